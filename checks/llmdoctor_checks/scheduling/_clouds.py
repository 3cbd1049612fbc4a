"""What to ask a cloud for that refuses a machine, by its own words: the quota by its name and number, another zone.

Sources: EC2's error codes and the quotas of Service Quotas (code ec2) for each class of machines; Azure's QuotaExceeded,
OperationNotAllowed and ErrCode_InsufficientVCPUQuota; Compute Engine's QUOTA_EXCEEDED; OpenStack's Nova and Cinder.
"""

import re
import shlex
from collections.abc import Iterable

from kubectl_llmdoctor.api import MACHINE, Fix, Item, expression, fixes, rows, words
from llmdoctor_checks.scheduling._karpenter import FAMILIES

_VCPUS = expression(r"current vCPU limit of (?P<limit>\d{1,7}) allows")
_SPOT = "MaxSpotInstanceCountExceeded"
_EMPTY = expression(
    r"sufficient (?P<type>[\w.-]{1,40}) capacity in the Availability Zone you requested \((?P<zone>[\w-]{1,40})\)"
    r"(?:.{0,300}?\bor choosing (?P<zones>[a-z0-9, -]{1,300}))?"
)
_AZURE = expression(
    r"Insufficient vcpu quota requested (?P<asked>\d{1,6}), remaining (?P<left>\d{1,6}) for family (?P<family>\w{1,80}) "
    r"for region (?P<region>\w{1,40})"
)
_APPROVED = expression(
    r"exceeding approved (?P<family>[\w ]{1,80}?) quota\..{0,200}?Location: (?P<region>\w{1,40}).{0,200}?"
    r"\(Minimum\) New Limit Required: (?P<limit>\d{1,6})",
    re.DOTALL,
)
_FAMILY = expression(
    r"exceeding approved (?P<family>[\w ]{1,80}?) quota(?:\..{0,200}?Current Limit: (?P<limit>\d{1,6}))?", re.DOTALL
)
_GOOGLE = expression(
    r"Quota '(?P<name>[A-Z0-9_]{1,80})' exceeded\.? {1,3}Limit: (?P<limit>[\d.]{1,12})(?: in region (?P<region>[\w-]{1,40}))?"
)
_VOLUMES = expression(
    r"number of (?P<what>volumes|gigabytes|snapshots) allowed \((?P<limit>\d{1,9})\) exceeded for quota"
)
_NOVA = expression(
    r"Quota exceeded for (?P<what>[\w, ]{1,80}): Requested (?P<asked>[\d, ]{1,80}), but already used (?P<used>[\d, ]{1,80}) of "
    r"(?P<limit>[\d, ]{1,80}) "
)
#: EC2's quotas of vCPUs by the letters of the families of machines: on demand, and spot.
_QUOTAS = {
    "g": ("Running On-Demand G and VT instances", "L-DB2E81BA", "All G and VT Spot Instance Requests", "L-3819A6DF"),
    "p": ("Running On-Demand P instances", "L-417A185B", "All P Spot Instance Requests", "L-7212CCBC"),
    "inf": ("Running On-Demand Inf instances", "L-1945791B", "All Inf Spot Instance Requests", "L-B5D1601B"),
    "trn": ("Running On-Demand Trn instances", "L-2C3B7624", "All Trn Spot Instance Requests", "L-5480EFD2"),
    "dl": ("Running On-Demand DL instances", "L-6E869C2A", "All DL Spot Instance Requests", "L-85EED4F7"),
}
_CAPACITY = "karpenter.sh/capacity-type"
_ZONE = "topology.kubernetes.io/zone"
_POOL = "karpenter.sh/nodepool"
#: Labels of machines that a cloud takes back (Karpenter's, those of GKE, EKS and AKS), and the value of others, where these have one.
SPOT = (
    (_CAPACITY, "spot", "on-demand"),
    ("eks.amazonaws.com/capacityType", "SPOT", "ON_DEMAND"),
    ("cloud.google.com/gke-spot", "true", ""),
    ("cloud.google.com/gke-preemptible", "true", ""),
    ("kubernetes.azure.com/scalesetpriority", "spot", ""),
)


def asked_of_cloud(
    said: str, claim: Item | None = None, types: Iterable[str] = (), pool: Item | None = None, of: str = ""
) -> Fix | None:
    """What ends a refusal that the cloud explains; None where it does not say what is short.

    `claim` is Karpenter's NodeClaim, and `pool` the NodePool that it is of, where they are known; `of` is its name.
    """
    demands = (
        {str(row.get("key")): words(row, "values") for row in rows(claim.raw, "spec.requirements")} if claim else {}
    )
    for row in rows(pool.raw, "spec.template.spec.requirements") if pool else ():
        if row.get("operator") == "In":
            demands.setdefault(str(row.get("key")), words(row, "values"))
    kinds = [*types, *demands.get(MACHINE, ())] or [kind for key in FAMILIES for kind in demands.get(key, ())]
    text = said[:20_000]
    if _VCPUS.search(text) or _SPOT in text:
        return _of_ec2(text, kinds, demands)
    if empty := _EMPTY.search(text):
        return _elsewhere(empty, pool.name if pool else claim.labels.get(_POOL, of) if claim else of)
    return _of_azure(text) or _of_google(text) or _of_openstack(text) or _unavailable(text, pool.name if pool else of)


def _of_ec2(text: str, kinds: list[str], demands: dict[str, list[str]]) -> Fix:
    found = _VCPUS.search(text)
    limit = int(found["limit"]) if found else 0
    letters = {match[0] for kind in kinds if (match := re.match(r"[a-z]{1,4}", kind))}
    letters = {"g" if letter in ("gr", "vt") else letter for letter in letters} & _QUOTAS.keys()
    spot = _SPOT in text or demands.get(_CAPACITY) == ["spot"]
    zones = demands.get(_ZONE, [])
    region = (
        f" --region {zones[0].rstrip('abcdef')}"
        if zones and re.fullmatch(r"[a-z]{2}(?:-[a-z]{2,9}){1,3}-\d[a-f]", zones[0])
        else ""
    )
    needs = min((size for kind in kinds if (size := _vcpus(kind))), default=0)
    value = limit + needs
    names = [_QUOTAS[letter][2 if spot else 0 :][:2] for letter in sorted(letters) or ("g", "p")]
    told = " or ".join(f"{name} ({code})" for name, code in names)
    to = (
        f"{f'from {limit} ' if found else ''}to {value} vCPUs or more"
        if needs
        else f"above {limit} vCPUs by those of the machine"
    )
    wanted = value if needs else "VCPUS"
    return fixes.platform(
        f"Raise the quota {told} of EC2 in its region {to}",
        *(
            f"aws service-quotas request-service-quota-increase --service-code ec2 --quota-code {code} --desired-value {wanted}{region}"
            for _, code in names
        ),
    )


def _vcpus(kind: str) -> int:
    """The CPUs of one of EC2's machines: four for each `xlarge`."""
    found = re.fullmatch(r"[a-z0-9-]{1,20}\.(\d{0,3})xlarge", kind)
    return 4 * int(found[1] or 1) if found else 0


def _elsewhere(empty: re.Match[str], pool: str) -> Fix:
    """Other zones for a kind of machine that one has none of."""
    others = ", ".join(re.findall(r"[a-z]{2}-[a-z-]{2,20}\d[a-z]", empty["zones"] or ""))
    where = f"NodePool {pool}" if pool else "its NodePool"
    zones = f"zones that have it ({others})" if others else f"other zones than {empty['zone']}"
    return fixes.platform(
        f"Let {where} use {zones}, or other sizes and families than {empty['type']} that hold the pod (requirements "
        f"{_ZONE} and {MACHINE}): "
        f"AWS has no {empty['type']} in {empty['zone']} now, and Karpenter tries again by itself",
        f"kubectl edit nodepools.karpenter.sh {shlex.quote(pool)}"
        if pool
        else "kubectl get nodepools.karpenter.sh -o wide",
    )


def _unavailable(text: str, pool: str) -> Fix | None:
    """More kinds of machines for a pool of which the cloud had none that it allows."""
    if "all requested instance types were unavailable" not in text:
        return None
    where = f"NodePool {pool}" if pool else "its NodePool"
    return fixes.platform(
        f"Let {where} use more sizes, families and zones, and on-demand machines beside spot ({MACHINE}, {_ZONE}, {_CAPACITY}): the cloud "
        "has none that it allows now; it is tried again by itself",
        f"kubectl edit nodepools.karpenter.sh {shlex.quote(pool)}"
        if pool
        else "kubectl get nodepools.karpenter.sh -o wide",
    )


def _of_azure(text: str) -> Fix | None:
    short, approved, named = _AZURE.search(text), _APPROVED.search(text), _FAMILY.search(text)
    if short:
        family = short["family"]
        region = short["region"]
        to = f"by {int(short['asked']) - int(short['left'])} vCPUs or more"
    elif approved:
        family = approved["family"].removesuffix(" Cores")
        region = approved["region"]
        to = f"to {approved['limit']} vCPUs or more"
    elif named:
        family, region = named["family"].removesuffix(" Cores"), "its region"
        to = (
            f"above {named['limit']} vCPUs by those of the machine" if named["limit"] else "by the vCPUs of the machine"
        )
    else:
        return None
    return fixes.platform(
        f"Raise Azure's quota {family} of the subscription in {region} {to} (Quotas in its portal)",
        f"az vm list-usage --location {region if region != 'its region' else 'REGION'} --output table",
    )


def _of_google(text: str) -> Fix | None:
    found = _GOOGLE.search(text)
    if not found:
        return None
    where = f" in {found['region']}" if found["region"] else ""
    look = (
        f"gcloud compute regions describe {found['region']}"
        if found["region"]
        else "gcloud compute project-info describe"
    )
    return fixes.platform(
        f"Raise the quota {found['name']} of the Google project{where} above {found['limit']}",
        f"{look} --flatten=quotas --format='table(quotas.metric,quotas.usage,quotas.limit)' | grep {found['name']}",
    )


def _of_openstack(text: str) -> Fix | None:
    if volumes := _VOLUMES.search(text):
        more = {volumes["what"]: int(volumes["limit"]) + 1}
    elif nova := _NOVA.search(text):
        columns = [[part.strip() for part in nova[name].split(",")] for name in ("what", "asked", "used")]
        more = {what: int(a) + int(u) for what, a, u in zip(*columns, strict=False) if a.isdecimal() and u.isdecimal()}
    else:
        return None
    told = " and ".join(f"{what} to {amount} or more" for what, amount in more.items())
    options = " ".join(f"--{what} {amount}" for what, amount in more.items())
    return fixes.platform(
        f"Raise the quota of the OpenStack project: {told}; then have the machine made again",
        f"openstack quota set {options} PROJECT",
    )
