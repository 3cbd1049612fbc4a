"""What to change of a pool of Karpenter's so that it makes a node for the pod: a larger machine, a label that the pod selects.

Sizes of EC2's machines with GPUs: four CPUs for each `xlarge`, and so much memory for a CPU as its family has.
"""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import msgspec

from kubectl_llmdoctor.api import (
    GIB,
    MACHINE,
    Fix,
    Item,
    Pending,
    dig,
    escaped,
    fixes,
    milli,
    rows,
    say_pairs,
    units,
    words,
)
from kubectl_llmdoctor.catalog.gpus import count_on
from llmdoctor_checks.scheduling._karpenter import Pool
from llmdoctor_checks.scheduling._nodepools import OF_ANY, meant_but_for_labels, offered

#: Of each family the sizes, and GiB for a CPU.
_FAMILIES = {
    "g4dn": ((1, 2, 4, 8, 12, 16), 4.0),
    "g5": ((1, 2, 4, 8, 12, 16, 24, 48), 4.0),
    "g6": ((1, 2, 4, 8, 12, 16, 24, 48), 4.0),
    "gr6": ((4, 8), 8.0),
    "g6e": ((1, 2, 4, 8, 12, 16, 24, 48), 8.0),
    "p3": ((2, 8, 16), 7.6),
    "p4d": ((24,), 12.0),
    "p4de": ((24,), 12.0),
    "p5": ((48,), 10.6),
    "p5e": ((48,), 10.6),
    "p5en": ((48,), 10.6),
    "p6-b200": ((48,), 10.6),
}
#: What is left of a machine's memory and CPUs for pods (Karpenter takes off 7.5 % of the memory, and what the kubelet reserves).
_MEMORY, _CPUS = 0.9, 0.98
#: Requirements that a larger machine may break.
_FAMILY, _SIZE, _COUNT, _CPU = (f"karpenter.k8s.aws/instance-{what}" for what in ("family", "size", "gpu-count", "cpu"))


def larger(pending: Pending, pool: Pool) -> Fix | None:
    """The smallest machine of a pool's families that holds the pod and the DaemonSets, added to what the pool allows."""
    item = pending.pod.cluster.item("NodePool", "", pool.name)
    asked = {name: milli(amount) for name, amount in _told(pool.asked)}
    if not asked.get("nvidia.com/gpu"):
        return None
    allowed = (
        {str(row.get("key")): words(row, "values") for row in rows(item.raw, "spec.template.spec.requirements")}
        if item
        else {}
    )
    families = {kind.partition(".")[0] for kind in (allowed.get(MACHINE, []) if item else pool.allows(MACHINE))}
    families |= set(allowed.get(_FAMILY, []) if item else pool.allows(_FAMILY))
    for family, number in _by_size(families):
        size = f"{number if number > 1 else ''}xlarge"
        machine = f"{family}.{size}"
        gpus = count_on(machine) or 0
        cpus = 4 * number * _CPUS
        memory = 4 * number * _FAMILIES[family][1] * GIB * _MEMORY
        if gpus * 1000 < (asked["nvidia.com/gpu"] or 0) or cpus * 1000 < (asked.get("cpu") or 0):
            continue
        if memory * 1000 < (asked.get("memory") or 0):
            continue
        if item is None and machine in pool.allows(MACHINE):
            return None  # it is not the size that is missing
        has = f"{gpus} GPU{'s' if gpus > 1 else ''}, {4 * number} CPUs, {int(4 * number * _FAMILIES[family][1])} GiB"
        text = (
            f"Allow {machine} ({has}) in {pool.title}, the smallest of its families that holds the pod; or ask for less"
        )
        operations = _allowing(item, family, size) if item else None
        if item is None or operations is None:
            return fixes.platform(
                text, f"kubectl edit nodepools.karpenter.sh {shlex.quote(pool.name) if pool.name else ''}".rstrip()
            )
        if not operations:
            return None  # it is not the size that is missing
        return fixes.patch_object(item, text, operations, owner="platform")
    return None


def without_daemons(pending: Pending, pool: Pool) -> Fix | None:
    """DaemonSets that ask for GPUs themselves, of which a new node has so many less before the pod comes."""
    told = dict(_told(pool.overhead))
    resource = next((name for name in pending.accelerators if milli(told.get(name))), "")
    if not resource:
        return None
    asking = [item for item in pending.pod.cluster.items("DaemonSet") if _asks(item, resource)]
    names = ", ".join(f"{item.namespace}/{item.name}" for item in asking[:3])
    who = f"DaemonSet {names}" if names else "the DaemonSet that asks for them"
    return fixes.platform(
        f"Keep {who} off {pool.title} (its nodeSelector or affinity), or let it ask for no {resource}: DaemonSets take "
        f"{told[resource]} of each new node, before the pod comes",
        "kubectl get daemonsets -A -o custom-columns='NAMESPACE:.metadata.namespace,NAME:.metadata.name,"
        "LIMITS:.spec.template.spec.containers[*].resources.limits'",
    )


def _asks(item: Item, resource: str) -> bool:
    limits = (dig(row, "resources.limits") for row in rows(item.raw, "spec.template.spec.containers"))
    return any(isinstance(one, dict) and milli(one.get(resource)) for one in limits)


def _told(amounts: str) -> Iterator[tuple[str, str]]:
    for part in amounts.split(","):
        name, _, amount = part.strip().partition(" ")
        yield name, amount


#: EC2's families with accelerators of other makers, and whose these are.
_OTHERS = {"g4ad": "AMD", "inf1": "AWS", "inf2": "AWS", "trn1": "AWS", "trn1n": "AWS", "trn2": "AWS"}
_OTHERS |= {"dl1": "Habana", "dl2q": "Qualcomm"}
#: What else a pool may say of the types of its machines.
_OF_TYPES = ("karpenter.k8s.aws/instance-", MACHINE)


def of_nvidia(pending: Pending, pool: Pool) -> Fix | None:
    """A family with NVIDIA's GPUs, where the pod asks for them and all that the pool allows have accelerators of another maker."""
    if not milli(dict(_told(pool.asked)).get("nvidia.com/gpu")):
        return None
    families = [*pool.allows(_FAMILY), *(kind.partition(".")[0] for kind in pool.allows(MACHINE))]
    if not families or not all(one in _OTHERS for one in families):
        return None
    makers = " and ".join(sorted({_OTHERS[one] for one in families}))
    have = f"{', '.join(dict.fromkeys(families))} has accelerators of {makers}, which no nvidia.com/gpu is"
    spec = pending.pod.spec
    own = {*spec.node_selector, *(part.key for term in spec.node_terms for part in term.match_expressions)}
    if own & {_FAMILY, MACHINE}:
        return fixes.advice(
            f"Select a family with NVIDIA's GPUs (g4dn, g5, g6, g6e) in {fixes.edited(pending.pod)}, one that {pool.title} allows: {have}"
        )
    text = f"Allow a family with NVIDIA's GPUs (g4dn, g5, g6, g6e) in {pool.title}: {have}"
    item = pending.pod.cluster.item("NodePool", "", pool.name)
    listed = list(enumerate(rows(item.raw, "spec.template.spec.requirements"))) if item else []
    at = next((at for at, row in listed if row.get("key") == _FAMILY and row.get("operator") == "In"), None)
    more = any(str(row.get("key")).startswith(_OF_TYPES) for n, row in listed if n != at)
    if item is None or at is None or more:
        edit = f"kubectl edit nodepools.karpenter.sh {shlex.quote(pool.name)}".rstrip()
        return fixes.platform(text, edit)
    path = f"/spec/template/spec/requirements/{at}/values"
    wider = [*words(listed[at][1], "values"), "g4dn", "g5", "g6"]  # others may need what it allows now
    return fixes.set_field(item, path, wider, text, owner="platform")


def more_pods(pending: Pending, pool: Pool) -> Fix | None:
    """The number of pods that a node may have, where the pool's node class sets it below what the pod and the DaemonSets are together."""
    cluster = pending.pod.cluster
    item = cluster.item("NodePool", "", pool.name) or cluster.item("Provisioner", "", pool.name)
    counted = dict(_told(pool.asked)).get("pods", "")
    if item is None or not counted.isdigit():
        return None
    name = dig(item.raw, "spec.template.spec.nodeClassRef.name")
    kind = str(dig(item.raw, "spec.template.spec.nodeClassRef.kind") or _EC2)
    made_of = cluster.item(kind, "", name) if isinstance(name, str) else None
    paths = ((made_of, "spec.kubelet"), (item, "spec.template.spec.kubelet"), (item, "spec.kubeletConfiguration"))
    for owner, path in paths:
        most = dig(owner.raw, f"{path}.maxPods") if owner else None
        if owner is None or not isinstance(most, int) or most >= int(counted):
            continue
        group = owner.api_version.partition("/")[0]
        body = msgspec.json.encode({"spec": _nested(path.removeprefix("spec."), {"maxPods": None})}).decode()
        return fixes.platform(
            f"Raise maxPods of {owner.kind} {owner.name} from {most}, or take it out: the pod and the DaemonSets of a node are "
            f"{counted} pods",
            f"kubectl patch {owner.kind.lower()}.{group} {shlex.quote(owner.name)} --type=merge -p {shlex.quote(body)}",
        )
    return None


def _nested(path: str, value: object) -> object:
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def _by_size(families: set[str]) -> list[tuple[str, int]]:
    sizes = [(family, number) for family in families & _FAMILIES.keys() for number in _FAMILIES[family][0]]
    return sorted(
        sizes, key=lambda one: (count_on(f"{one[0]}.{one[1] if one[1] > 1 else ''}xlarge") or 0, one[1], one[0])
    )


def _allowing(item: Item, family: str, size: str) -> list[dict[str, Any]] | None:
    """The operations after which a pool allows a machine; None where a requirement is no list of values."""
    number = int(size.removesuffix("xlarge") or 1)
    has = {MACHINE: f"{family}.{size}", _FAMILY: family, _SIZE: size, _CPU: str(4 * number)}
    has[_COUNT] = str(count_on(has[MACHINE]) or "")
    found: list[dict[str, Any]] = []
    for at, row in enumerate(rows(item.raw, "spec.template.spec.requirements")):
        key = str(row.get("key"))
        if key not in has:
            continue
        if row.get("operator") != "In":
            return None
        if has[key] not in words(row, "values"):
            found.append({"op": "add", "path": f"/spec/template/spec/requirements/{at}/values/-", "value": has[key]})
    return found


_DISK = "ephemeral-storage"
#: The least disk of a node that Karpenter makes where the node class states none, and what is said in each class of a larger one.
_USUAL_DISK = 20 * GIB
_DISKS = {
    "NodeClass": "ephemeralStorage.size, 80Gi where it states none",
    "AKSNodeClass": "osDiskSizeGB, 128 where it states none",
}
_EC2 = "EC2NodeClass"
_ANY_CLASS = "its node class (EC2NodeClass: volumeSize in blockDeviceMappings; AKSNodeClass: osDiskSizeGB)"
_POOLS = ("karpenter.sh/nodepool", "karpenter.sh/provisioner-name")


def larger_disk(pending: Pending, name: str) -> Fix | None:
    """A larger disk for the nodes of a pool, whose ephemeral storage Karpenter takes from the node class, mostly whatever the type.

    Nothing where that is no matter of the pool: its nodes have more, or its class states more.
    Sources: karpenter-provider-aws pkg/providers/instancetype (`ephemeralStorage`); the APIs of AKSNodeClass and of EKS Auto Mode.
    """
    asked = pending.requests.get(_DISK, 0)
    labels = [v.node.labels.get(key) for v in pending.verdicts if v.lacking(_DISK) for key in _POOLS]
    name = name or next((str(value) for value in labels if value), "")
    if asked <= _USUAL_DISK or not name:
        return None
    mine = (v.node for v in pending.verdicts if any(v.node.labels.get(key) == name for key in _POOLS))
    if any((node.allocatable(_DISK) or 0) >= asked for node in mine):
        return None
    cluster = pending.pod.cluster
    pool = cluster.item("NodePool", "", name)
    ref = dig(pool.raw, "spec.template.spec.nodeClassRef") if pool else None
    kind, called = (str(ref.get("kind")), str(ref.get("name"))) if isinstance(ref, dict) else ("", "")
    size = -(-asked * 5 // (4 * GIB)) + 10  # images, logs, and what the kubelet keeps back
    if kind != _EC2 and kind not in _DISKS:
        text = (
            f"Give the nodes of nodepool {name} a disk of {size}Gi or more in {_ANY_CLASS}, whatever the machine's type"
        )
        return fixes.platform(text, "kubectl get nodepools.karpenter.sh -o yaml")
    where, edit = f"{kind} {called}", f"kubectl edit {kind.lower()} {shlex.quote(called)}"
    made = cluster.item(kind, "", called) if kind == _EC2 else None
    if made and dig(made.raw, "spec.instanceStorePolicy") == "RAID0":
        return fixes.platform(
            f"Let nodepool {name} take machines with {size}Gi or more of disks of their own, which count alone where a machine has any "
            f"(instanceStorePolicy RAID0 in {where}); of those that have none it is volumeSize in blockDeviceMappings",
            f"kubectl edit nodepools.karpenter.sh {shlex.quote(name)}",
            edit,
        )
    device, stated = _counted(made) if made else ("/dev/xvda (Bottlerocket: /dev/xvdb)", None)
    if stated is not None and stated >= size * GIB:
        return None
    now = f"{stated / GIB:.0f}Gi now" if stated else "20Gi where it states none"
    field = _DISKS.get(kind) or f"volumeSize of {device} in blockDeviceMappings, {now}"
    text = (
        f"Give the nodes of nodepool {name} a disk of {size}Gi or more in {where}: {field}, whatever the machine's type"
    )
    return fixes.platform(text, edit)


def _counted(made: Item) -> tuple[str, int | None]:
    """The device of an EC2NodeClass whose size counts as ephemeral storage, and what is stated of it."""
    terms = [str(row.get("alias")) for row in rows(made.raw, "spec.amiSelectorTerms")]
    rocket = dig(made.raw, "spec.amiFamily") == "Bottlerocket" or any(one.startswith("bottlerocket@") for one in terms)
    device = "/dev/xvdb" if rocket else "/dev/xvda"
    mappings = rows(made.raw, "spec.blockDeviceMappings")
    root = next((row for row in mappings if row.get("rootVolume") is True), None)
    row = root or next((row for row in mappings if row.get("deviceName") == device), None)
    return str(row.get("deviceName") if row else device), units(dig(row, "ebs.volumeSize")) if row else None


_CAPACITY, _ZONE = "karpenter.sh/capacity-type", "topology.kubernetes.io/zone"


def more_offers(pending: Pending, pool: Pool) -> Fix | None:
    """On-demand machines beside spot ones, and other zones, for a pool whose machines the cloud does not offer now."""
    item = pending.pod.cluster.item("NodePool", "", pool.name)
    listed = list(enumerate(rows(item.raw, "spec.template.spec.requirements"))) if item else []
    only = {str(row.get("key")): (at, words(row, "values")) for at, row in listed if row.get("operator") == "In"}
    at, kinds = only.get(_CAPACITY, (0, ["on-demand"]))
    zones = only.get(_ZONE, (0, []))[1]
    elsewhere = (
        f"it is held to {', '.join(zones)}: name other zones in {_ZONE} where the cloud has such machines"
        if zones
        else ""
    )
    wanted = str(pending.pod.spec.node_selector.get(_CAPACITY, "on-demand"))
    if item is None or ("on-demand" in kinds and not zones) or (wanted != "on-demand" and not zones):
        return None
    if "on-demand" in kinds or wanted != "on-demand":  # the pod itself may want no other
        text = f"Let {pool.title} use other zones: {elsewhere}; what the cloud had none of is tried again by itself"
        return fixes.platform(text, f"kubectl edit nodepools.karpenter.sh {shlex.quote(pool.name)}")
    text = f"Let {pool.title} take on-demand machines beside {', '.join(kinds)}" + (
        f"; {elsewhere}" if elsewhere else ""
    )
    path = f"/spec/template/spec/requirements/{at}/values/-"
    return fixes.set_field(item, path, "on-demand", text, owner="platform", op="add")


def selecting(pending: Pending, names: list[str]) -> Iterator[Fix]:
    """The pod's node selector so that a pool makes nodes for it, and the pool's labels so that it does.

    What counts is a label that nobody sets but a person: what the cloud says of its machines is no matter of opinion.
    """
    for name in names:
        item = pending.pod.cluster.item("NodePool", "", name)
        if item is None or not meant_but_for_labels(item, pending):
            continue
        offer, selector = offered(item), pending.pod.spec.node_selector
        unmet = {
            key: str(value)
            for key, value in selector.items()
            if not re.match(OF_ANY, key) and (key not in offer or str(value) not in (offer[key] or {str(value)}))
        }
        free = [key for key in unmet if key not in offer and "karpenter" not in key and "kubernetes.io" not in key]
        if not unmet or len(free) < len(unmet):
            continue
        gone = [{"op": "remove", "path": f"/nodeSelector/{escaped(key)}"} for key in unmet]
        chosen = {"op": "add", "path": "/nodeSelector/karpenter.sh~1nodepool", "value": name}
        said = say_pairs(unmet)
        yield fixes.patch(
            pending.pod, f"Select karpenter.sh/nodepool={name} in place of {said}, which no pool sets", [chosen, *gone]
        )
        text = f"Have NodePool {name} set {said} on its nodes instead"
        there = isinstance(dig(item.raw, "spec.template.metadata.labels"), dict)
        path = "/spec/template/metadata/labels"
        operations = [{"op": "add", "path": f"{path}/{escaped(key)}", "value": value} for key, value in unmet.items()]
        yield fixes.patch_object(
            item, text, operations if there else [{"op": "add", "path": path, "value": unmet}], owner="platform"
        )
        return
