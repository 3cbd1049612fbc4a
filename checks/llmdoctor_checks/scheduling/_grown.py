"""A group or pool of nodes at its maximum, let grow by one machine.

Sources: karpenter.sh NodePool (spec.limits, status.resources); cluster-autoscaler's events; the labels that clouds give the nodes
of a group.
"""

import shlex
from collections import Counter
from typing import Any

from kubectl_llmdoctor.api import Fix, Item, Pending, dig, escaped, fixes, milli, say_devices, table
from llmdoctor_checks.scheduling._karpenter import pools
from llmdoctor_checks.scheduling._raising import quantity

#: The label of Google's groups, whose maximum is that of each zone.
_BY_ZONE, _ZONE = "cloud.google.com/gke-nodepool", "topology.kubernetes.io/zone"
#: The labels by which clouds name the group of a node, and how its maximum is raised.
_GROUPS = {
    "eks.amazonaws.com/nodegroup": "aws eks update-nodegroup-config --cluster-name CLUSTER --nodegroup-name {} --scaling-config maxSize={}",
    "alpha.eksctl.io/nodegroup-name": "eksctl scale nodegroup --cluster CLUSTER --name {} --nodes-max {}",
    _BY_ZONE: "gcloud container clusters update CLUSTER --enable-autoscaling --node-pool {} --max-nodes {}",
    "kubernetes.azure.com/agentpool": "az aks nodepool update --resource-group GROUP --cluster-name CLUSTER --name {} "
    "--update-cluster-autoscaler --max-count {} --min-count MIN",
}


def grown(pending: Pending, message: str) -> Fix:
    """The limit of the pool or group that is at it, raised by a machine."""
    full = next((pool.name for pool in pools(message) if pool.full and pool.name), "")
    return (raised(pending, full) if full else _of_group(pending)) or fixes.platform(
        "Raise the maximum of the GPU node group or the limits of the node pool"
    )


def spent(pending: Pending, name: str) -> str | None:
    """What says that the limits of a pool leave less than the pod asks for, if they do.

    Karpenter drops the instance types that would pass the limits before it looks for one with enough resources, so a pool
    that also has smaller types is told of as one whose types do not do, or are not on offer.
    """
    item = pending.pod.cluster.item("NodePool", "", name)
    if item is None:
        return None
    limits, used = table(dig(item.raw, "spec.limits")), table(dig(item.raw, "status.resources"))
    asks = pending.accelerators | {one: pending.requests[one] for one in ("cpu", "memory") if one in pending.requests}
    for resource, asked in asks.items():
        most, taken = milli(limits.get(resource)), milli(used.get(resource)) or 0
        wanted = asked if resource == "cpu" else asked * 1000
        if most is not None and wanted and taken + wanted > most:
            if not taken:
                return f"its limit of {resource} is {limits[resource]}, less than one such pod asks for"
            are = "is" if resource == "memory" else "are"
            return f"{used[resource]} {resource} of its limit of {limits[resource]} {are} there already"
    return None


def raised(pending: Pending, name: str) -> Fix:
    """The limits of a pool, raised by a machine."""
    item = pending.pod.cluster.item("NodePool", "", name)
    limits = dig(item.raw, "spec.limits") if item else None
    edit = f"kubectl get nodepools.karpenter.sh {shlex.quote(name)} -o jsonpath='{{.spec.limits}}{{\"\\n\"}}{{.status.resources}}'"
    if item is None or not isinstance(limits, dict):
        asks = say_devices(pending.accelerators)
        more = f", with {asks}" if asks else ""
        return fixes.platform(
            f"Raise spec.limits of NodePool {name} by a machine that holds the pod{more}: above what its status.resources counts",
            edit,
            f"kubectl edit nodepools.karpenter.sh {shlex.quote(name)}",
        )
    machine, used = _machine(pending, name), table(dig(item.raw, "status.resources"))
    if machine or set(limits) == {"nodes"}:
        machine = machine | {"nodes": 1000}
    changes: dict[str, tuple[str, str]] = {}
    for resource, limit in limits.items():
        taken = milli(used.get(resource))
        most, more_of = milli(limit), machine.get(resource, 0)
        if most is not None and more_of and (taken if taken is not None else most) + more_of > most:
            changes[str(resource)] = (str(limit), quantity(str(resource), max(taken or 0, most) + more_of))
    if not changes:
        return fixes.platform(
            f"Raise spec.limits of NodePool {name} by a machine that holds the pod (now "
            f"{', '.join(f'{resource}: {limit}' for resource, limit in limits.items())})",
            f"kubectl edit nodepools.karpenter.sh {shlex.quote(name)}",
        )
    return _raised(item, changes)


def _raised(item: Item, changes: dict[str, tuple[str, str]]) -> Fix:
    told = " and ".join(f"{resource} from {old} to {new}" for resource, (old, new) in changes.items())
    operations: list[dict[str, Any]] = [
        {"op": "replace", "path": f"/spec/limits/{escaped(resource)}", "value": new}
        for resource, (_, new) in changes.items()
    ]
    text = f"Raise spec.limits of NodePool {item.name} by one machine: {told}"
    return fixes.patch_object(item, text, operations, owner="platform")


def _machine(pending: Pending, pool: str) -> dict[str, int]:
    """What a machine of a pool has, by a node of it: with the pod's accelerators where it asks for some; else what the pod asks for."""
    for node in pending.subject.nodes or ():
        mine = node.labels.get("karpenter.sh/nodepool") == pool
        if mine and all(
            (node.capacity(name) or node.allocatable(name) or 0) >= n for name, n in pending.accelerators.items()
        ):
            capacity = node.obj.status.capacity or node.obj.status.allocatable
            return {name: amount for name, told in capacity.items() if (amount := milli(told))}
    return {}


def _of_group(pending: Pending) -> Fix | None:
    """The group of nodes that have what the pod asks for: as many as there are now are its maximum."""
    nodes = [
        n
        for n in pending.subject.nodes or ()
        if all((n.allocatable(a) or 0) >= k for a, k in pending.accelerators.items())
    ]
    for label, command in _GROUPS.items():
        groups = {node.labels[label] for node in nodes if label in node.labels}
        if pending.accelerators and len(groups) == 1:
            name = groups.pop()
            zones = Counter(n.labels.get(_ZONE) for n in pending.subject.nodes or () if n.labels.get(label) == name)
            each = " in a zone" if label == _BY_ZONE and len(zones) > 1 else ""
            count = (max(zones.values()) if each else zones.total()) + 1
            return fixes.platform(
                f"Raise the maximum of node group {name} to {count} nodes{each} or more: with {count - 1} it is at it",
                command.format(name, count),
            )
    return None
