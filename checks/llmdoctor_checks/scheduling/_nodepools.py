"""Pools of machines that Karpenter passes over, since they are not ready.

Sources: kubernetes-sigs/karpenter pkg/controllers/nodepool/readiness and pkg/apis/v1 (conditions ValidationSucceeded, NodeClassReady,
Ready); the node classes of the providers for AWS, Azure and Google have conditions of their own, of which Ready is the sum.
"""

import re
import shlex
from collections.abc import Iterable, Iterator
from datetime import timedelta

import msgspec

from kubectl_llmdoctor.api import (
    MACHINE,
    Finding,
    Item,
    Pending,
    dig,
    fixes,
    k8s,
    object_evidence,
    parse_time,
    rows,
    say_pairs,
    table,
    tolerated,
    words,
)
from llmdoctor_checks.scheduling._karpenter import ACCELERATED, FAMILIES
from llmdoctor_checks.scheduling._obstacles import Cause
from llmdoctor_checks.scheduling._words import EXPLAINS, said_by, sentence

#: What a further node would mend, and what nodes of a kind that is not there now lack.
LACKS = ("gpu", "gpu-size", "absent", "selector", "cpu-memory", "pods", "ephemeral")

#: EC2's and Azure's names of machines with accelerators.
TYPES = r"(?:p\d|gr?\d|inf\d|trn\d|dl\d)[a-z]{0,3}(?:-[a-z0-9]+)?\.\w+|Standard_N[CDV]\d+\w*"

#: Labels that any node has, whatever a pool says of them.
OF_ANY = r"kubernetes\.io/(?:os|arch|hostname)|topology\.kubernetes\.io/|karpenter\.sh/capacity-type"

#: Labels that the nodes of a cloud have without the pool's saying so.
_OF_PROVIDERS = (
    "kubernetes.io", "karpenter.sh", "karpenter.k8s.aws", "karpenter.k8s.gcp", "karpenter.azure.com",
    "eks.amazonaws.com",
)  # fmt: skip

#: Labels of machines with accelerators alone.
_COUNTED = r"/(?:instance|sku)-(?:gpu|accelerator)-"

#: How a pool says that its node class is not ready.
_OF_CLASS = "NodeClassReady"

#: Told by Karpenter of the nodes that it made; a pool is ready without.
OF_NODES = "NodeRegistrationHealthy"

#: How long a controller may take to look at an object: until then its conditions are Unknown.
_LOOKED_AT = timedelta(minutes=10)


class _Fault(msgspec.Struct, frozen=True):
    """The object that is not ready, and its condition that says why."""

    item: Item
    type: str
    text: str
    message: str
    answered: bool


def unready(pending: Pending, found: tuple[Cause, ...]) -> Iterator[Finding]:
    """Every pool that would make nodes for the pod is not ready, by its own conditions and those of its node class."""
    if not found or found[0].obstacle not in LACKS:
        return
    pools = [(pool, _takes(pool, pending)) for pool in pending.pod.cluster.items("NodePool") if _of_karpenter(pool)]
    faults = {pool.name: _faults(pool, pending) for pool, takes in pools if takes is not False}
    meant = [pool for pool, takes in pools if takes]
    others = [pool for pool, takes in pools if takes is None and _tolerated(pool, pending)]
    if not meant or not all(faults[pool.name] for pool in (*meant, *others)):
        return
    pool, reasons = meant[0], faults[meant[0].name]
    deepest = next(fault for fault in reasons if fault.item is reasons[-1].item)
    kind = deepest.item.plain_kind
    by = "" if deepest.item is pool else f", because {kind} {deepest.item.name} is not"
    way = _way(deepest, kind)
    if not deepest.answered:
        way = f"See in the log of Karpenter what keeps it from an answer on {deepest.type} of {kind}/{deepest.item.name} (its rights)"
    named = f"{kind.lower()} {deepest.item.name}"
    made_of = dig(deepest.item.raw, "spec.template.spec.nodeClassRef")
    if deepest.type == _OF_CLASS and isinstance(made_of, dict):  # which was not read
        way = f"See in the conditions of {made_of.get('kind')}/{made_of.get('name')} why it is not ready"
        named = " ".join(shlex.quote(str(made_of.get(key))) for key in ("kind", "name")).lower()
    yield Finding(
        summary=f"Karpenter passes over NodePool {pool.name}, which is not ready{by}: {sentence(deepest.message or deepest.text)}",
        evidence=(
            *(object_evidence(fault.item, f"status.conditions[{fault.type}]", fault.text) for fault in reasons),
            *said_by(pending),
        ),
        explains=(*EXPLAINS, *(cause.id for cause in found)),
        fix=fixes.platform(way, f"kubectl describe {named}"),
        order=float(len(found)),
    )


#: What of EC2NodeClass a condition is about.
_FIELDS = {
    "SubnetsReady": ("subnetSelectorTerms", "subnets"),
    "SecurityGroupsReady": ("securityGroupSelectorTerms", "security groups"),
    "AMIsReady": ("amiSelectorTerms", "images"),
    "InstanceProfileReady": ("role", "role"),
}


def _way(fault: _Fault, kind: str) -> str:
    """What to correct of a node class, by the condition that says so, with what stands there now."""
    field, what = _FIELDS.get(fault.type, ("", ""))
    where = f"{kind}/{fault.item.name}"
    if not field:
        return f"Correct {where} as its condition {fault.type} says (image, subnets, security groups, role)"
    stands = dig(fault.item.raw, f"spec.{field}")
    if field == "role":
        return f"Correct spec.role of {where} ({stands or 'not set'}): a role of that name must exist, and Karpenter may pass it on"
    if not isinstance(stands, list) or not stands:
        return f"Write spec.{field} into {where}, which has none: by it the {what} are found"
    told = "; ".join(
        f"{key} {_flow(value)}" for term in rows(fault.item.raw, f"spec.{field}") for key, value in term.items()
    )
    return f"Give the {what} what spec.{field} of {where} looks for ({told}), or correct it there: nothing in the account has it"


def _flow(value: object) -> str:
    return say_pairs(value) if isinstance(value, dict) else str(value)


def _of_karpenter(pool: Item) -> bool:
    return pool.api_version.startswith("karpenter.sh/") and "deletionTimestamp" not in pool.metadata


def _takes(pool: Item, pending: Pending) -> bool | None:
    """Whether nodes of the pool are meant for the pod: by what it asks of nodes' labels, by machines with accelerators, or its name.

    None where its nodes may be such: a pool that says nothing of its machines makes any, those with GPUs, too.
    """
    offer, spec = offered(pool), pending.pod.spec
    asked = {k: str(v) for k, v in spec.node_selector.items() if not re.match(OF_ANY, k)}
    own = _all(_meets(offer, key, "In", {value}) for key, value in asked.items())
    terms = [
        _all(_meets(offer, row.key, row.operator, {str(v) for v in row.values}) for row in term.match_expressions)
        for term in spec.node_terms
    ]
    if terms:
        own = _all((own, True if True in terms else None if None in terms else False))
    if not pending.accelerators:
        return own if asked or terms or own is False else None
    return _all((own, _accelerated(offer, pool)))


def meant_but_for_labels(pool: Item, pending: Pending) -> bool:
    """Whether a pool may make nodes for the pod, once the labels that it selects are agreed on: GPUs where it asks for some."""
    offer, selector = offered(pool), pending.pod.spec.node_selector
    apart = any(
        offer.get(key) and str(selector[key]) not in (offer[key] or ()) for key in selector if re.match(OF_ANY, key)
    )
    bare = bool(pending.accelerators) and _accelerated(offer, pool) is False
    return not apart and not bare and _tolerated(pool, pending)


def offered(pool: Item) -> dict[str, set[str] | None]:
    """The labels that nodes of the pool have, each with its possible values; None where it limits them otherwise than by a list."""
    labels = table(dig(pool.raw, "spec.template.metadata.labels"))
    offer: dict[str, set[str] | None] = {str(key): {str(value)} for key, value in labels.items()}
    offer["karpenter.sh/nodepool"] = {pool.name}
    for row in rows(pool.raw, "spec.template.spec.requirements"):
        if row.get("operator") == "In":
            offer[str(row.get("key"))] = set(words(row, "values"))
        elif row.get("operator") != "DoesNotExist":
            offer.setdefault(str(row.get("key")), None)
    return offer


def _meets(offer: dict[str, set[str] | None], key: str, operator: str, values: set[str]) -> bool | None:
    """Whether nodes of a pool meet a demand on one label; None where they may."""
    if re.match(OF_ANY, key):
        return True
    have = offer.get(key)
    if have is None:
        unsaid = key not in offer and not key.partition("/")[0].endswith(_OF_PROVIDERS)
        return operator in ("NotIn", "DoesNotExist") if unsaid else None
    if operator == "In":
        return bool(have & values)
    return bool(have - values) if operator == "NotIn" else {"Exists": True, "DoesNotExist": False}.get(operator)


def _accelerated(offer: dict[str, set[str] | None], pool: Item) -> bool | None:
    families = [one for key in FAMILIES for one in offer.get(key) or ()]
    types = offer.get(MACHINE) or ()
    if said := [re.fullmatch(ACCELERATED, one) for one in families] + [re.match(TYPES, one) for one in types]:
        return True if all(said) else None if any(said) else False
    return True if "gpu" in pool.name.lower() or any(re.search(_COUNTED, key) for key in offer) else None


def _all(said: Iterable[bool | None]) -> bool | None:
    found = [*said]
    return False if False in found else None if None in found else True


def _tolerated(pool: Item, pending: Pending) -> bool:
    taints = [
        k8s.Taint(key=str(row.get("key")), value=str(row.get("value") or ""), effect=str(row.get("effect")))
        for row in rows(pool.raw, "spec.template.spec.taints")
    ]
    hard = (taint for taint in taints if taint.effect != "PreferNoSchedule")
    return all(tolerated(taint, pending.pod.spec.tolerations) for taint in hard)


def _faults(pool: Item, pending: Pending) -> list[_Fault]:
    """Why a pool is not ready, its node class's reason last; empty where it is, or has not been looked at."""
    found = [*_said(pool, pending)]
    ref = dig(pool.raw, "spec.template.spec.nodeClassRef")
    if found and isinstance(ref, dict):
        made_of = pending.pod.cluster.item(str(ref.get("kind")), "", str(ref.get("name")))
        found += _said(made_of, pending) if made_of else ()
    return found


def _said(item: Item, pending: Pending) -> Iterator[_Fault]:
    """The conditions of an object that is not ready, those with an answer first: others wait for them.

    The sum of them only where no other says more.
    """
    told = (condition for condition in item.conditions if condition.type != OF_NODES)
    unmet = sorted((one for one in told if _unmet(one, pending)), key=lambda one: one.status != "False")
    if not any(one.type == "Ready" for one in unmet):
        return
    parts = [one for one in unmet if one.type != "Ready"] or unmet
    for one in parts[:2]:
        yield _Fault(item, one.type, one.text, one.message, one.status == "False")


def _unmet(condition: k8s.Condition, pending: Pending) -> bool:
    """Whether a condition is not met, or has been left without an answer for longer than a look at the object takes."""
    since, now = parse_time(condition.last_transition_time), pending.pod.cluster.now
    left = since is not None and now is not None and now - since > _LOOKED_AT
    return condition.status == "False" or (condition.status == "Unknown" and left)
