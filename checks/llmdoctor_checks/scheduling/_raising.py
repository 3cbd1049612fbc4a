"""Quotas raised by as much as a pod lacks: a ResourceQuota's, and those of the queues of Kueue, KAI and Volcano."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from kubectl_llmdoctor.api import (
    GIB,
    MIB,
    Cluster,
    Fix,
    Item,
    Pod,
    Subject,
    dig,
    escaped,
    fixes,
    k8s,
    milli,
    requests_of,
    rows,
)
from llmdoctor_checks.scheduling._kueue import local_queue

#: What Kueue's flavor assigner (pkg/scheduler/flavorassigner) says of amounts.
_NEEDS = (
    r"previously considered podsets requests \((?P<before>[\w.]{1,40})\) \+ current podset request \((?P<now>[\w.]{1,40})\) > "
    r"maximum capacity \((?:\S{1,40} > )?(?P<most>[\w.]{1,40})\)"
)
_MORE = r"in flavor \S{1,255}, (?P<more>[\w.]{1,40}) more needed"
_GPUS = r"^(?P<number>\d{1,6}(?:\.\d{1,4})?) GPUs?$"
#: Where Volcano keeps the queue of a pod, and the group that its owner made for it.
VOLCANO_QUEUE, VOLCANO_GROUP = "scheduling.volcano.sh/queue-name", "scheduling.k8s.io/group-name"


#: Kinds that say how many pods they have made.
_COUNTING = ("Deployment", "ReplicaSet", "StatefulSet")


class Raised(msgspec.Struct, frozen=True):
    """A quota raised, and whether the nodes have as much as it is then."""

    fix: Fix
    fits: bool

    def beside(self, others: Iterable[Fix]) -> tuple[Fix, ...]:
        """First where it is all that is missing; where the nodes have no more, others come first."""
        return (self.fix, *others) if self.fits else (*others, self.fix)


def quantity(resource: str, thousandths: int) -> str:
    """Thousandths of a resource as a quantity that is no less: `8`, `500Gi`."""
    whole = -(-thousandths // 1000)
    if resource.rpartition(".")[2] == "cpu" or "/" in resource:
        return str(whole)
    for unit, name in ((GIB, "Gi"), (MIB, "Mi")):
        if whole >= unit:
            return f"{-(-whole // unit)}{name}"
    return str(whole)


def of_namespace(subject: Subject, name: str, asked: str, used: str, limit: str) -> Raised | None:
    """A ResourceQuota raised so that what was refused fits: its amounts as the refusal says them, `requests.nvidia.com/gpu=2`."""
    amounts = [listed(text) for text in (asked, used, limit)]
    changes: dict[str, tuple[str, str]] = {}
    pods = _unmade(subject)
    for resource, bound in amounts[2].items():
        want, have, most = (milli(a.get(resource, 0)) for a in amounts)
        if want and have is not None and most is not None and want * pods + have > most:
            changes[resource] = (bound, quantity(resource, want * pods + have))
    item = next((i for i in subject.cluster.items("ResourceQuota", subject.namespace) if i.name == name), None)
    return _raised(
        subject.cluster, item, f"quota {name} of {subject.namespace}", changes, _replaced("/spec/hard", changes)
    )


def listed(text: str) -> dict[str, str]:
    """Amounts as the plugin ResourceQuota lists them: `requests.cpu=2,requests.nvidia.com/gpu=1`."""
    return {name.strip(): amount for part in text.split(",") for name, _, amount in [part.partition("=")] if amount}


def _unmade(subject: Subject) -> int:
    """How many pods are still to be made, each of which the quota counts."""
    workload = subject.workload
    status = dig(workload.raw, "status") if workload and workload.kind in _COUNTING else None
    made = (status.get("replicas") or 0) if isinstance(status, dict) else None
    return max(1, (workload.replicas or 0) - made) if workload and isinstance(made, int) else 1


def thousandths(pod: k8s.Pod) -> dict[str, int]:
    """What a pod asks for, all of it in thousandths."""
    return {name: amount * (1 if name == "cpu" else 1000) for name, amount in requests_of(pod).items()}


def of_flavor(workload: Item, cluster: Cluster, message: str, flavor: str, resource: str) -> Raised | None:
    """The nominalQuota of a flavor of Kueue's raised by what is missing; None where the ClusterQueue is not known."""
    local = local_queue(workload, cluster)
    queue = cluster.item("ClusterQueue", "", str(dig(local.raw, "spec.clusterQueue"))) if local else None
    if queue is None:
        return None
    for g, group in enumerate(rows(queue.raw, "spec.resourceGroups")):
        for f, row in enumerate(rows(group, "flavors")):
            for r, given in enumerate(rows(row, "resources")):
                nominal = milli(given.get("nominalQuota"))
                lacks = _lacking(message, resource)
                if row.get("name") != flavor or given.get("name") != resource or nominal is None or lacks is None:
                    continue
                value = quantity(resource, nominal + lacks)
                path = f"/spec/resourceGroups/{g}/flavors/{f}/resources/{r}/nominalQuota"
                what = f"the nominalQuota of flavor {flavor} in ClusterQueue {queue.name}"
                operations = [{"op": "replace", "path": path, "value": value}]
                return _raised(cluster, queue, what, {resource: (str(given.get("nominalQuota")), value)}, operations)
    return None


def _lacking(message: str, resource: str) -> int | None:
    """How much more Kueue would need, in thousandths, by its own word on this resource."""
    said = message.partition(f"quota for {resource} in flavor ")
    about = f"in flavor {said[2]}"[:600]
    if found := re.search(_NEEDS, about):
        before, now, most = (milli(found[name]) for name in ("before", "now", "most"))
        return None if before is None or now is None or most is None else before + now - most
    more = re.search(_MORE, about)
    return milli(more["more"]) if more else None


def of_volcano(pod: Pod, lacks: list[str]) -> Raised | None:
    """The capability of Volcano's queue raised to what is in use and asked for; None where the queue does not say what it lacks."""
    group = pod.cluster.item("PodGroup", pod.namespace, str(pod.annotations.get(VOLCANO_GROUP)))
    named = pod.annotations.get(VOLCANO_QUEUE) or (dig(group.raw, "spec.queue") if group else None) or "default"
    queue = pod.cluster.item("Queue", "", str(named))
    capability = dig(queue.raw, "spec.capability") if queue else None
    if queue is None or not isinstance(capability, dict) or not queue.api_version.startswith("scheduling.volcano.sh/"):
        return None
    taken, asked = (
        _amounts(dig(queue.raw, "status.allocated")),
        _amounts(dig(group.raw, "spec.minResources") if group else None),
    )
    asked = asked or thousandths(pod.obj)
    changes: dict[str, tuple[str, str]] = {}
    for resource, limit in capability.items():
        need, most = taken.get(str(resource), 0) + asked.get(str(resource), 0), milli(limit)
        if most is not None and need > most and asked.get(str(resource)) and (not lacks or resource in lacks):
            changes[str(resource)] = (str(limit), quantity(str(resource), need))
    what = f"the capability of queue {queue.name}"
    return _raised(pod.cluster, queue, what, changes, _replaced("/spec/capability", changes))


def _amounts(told: Any) -> dict[str, int]:
    return {str(k): v for k, said in told.items() if (v := milli(said)) is not None} if isinstance(told, dict) else {}


def of_kai(pod: Pod, name: str, field: str, taken: str, wanted: str) -> Raised | None:
    """GPUs of a queue of KAI's (`quota` or `limit`) raised to what is allocated and asked for."""
    queue = pod.cluster.item("Queue", "", name)
    numbers = [re.match(_GPUS, text.strip()) for text in (taken, wanted)]
    own = dig(queue.raw, "spec.resources.gpu") if queue else None
    if queue is None or not queue.api_version.startswith("scheduling.run.ai/") or not isinstance(own, dict):
        return None
    if not all(numbers) or not isinstance(own.get(field), int | float):
        return None
    need = sum(float(found["number"]) for found in numbers if found)
    value = int(need) if need == int(need) else round(need, 4)
    operations = [{"op": "replace", "path": f"/spec/resources/gpu/{field}", "value": value}]
    limit = own.get("limit")
    if field == "quota" and isinstance(limit, int | float) and 0 <= limit < value:
        operations.append({"op": "replace", "path": "/spec/resources/gpu/limit", "value": value})
    changes = {"nvidia.com/gpu": (str(own[field]), str(value))}
    return _raised(pod.cluster, queue, f"the GPU {field} of queue {name}", changes, operations)


#: YuniKorn's word on a queue without room (pkg/scheduler/objects/events), its amounts as `map[memory:1024 nvidia.com/gpu:4]`.
YUNIKORN = (
    r"Request '[^']{1,100}' does not fit in queue '(?P<yunikorn>[^']{1,255})' \(requested map\[(?P<needs>[^\]]{0,1000})\], "
    r"available map\[(?P<left>[^\]]{0,1000})\]\)"
)


def of_yunikorn(left: str, needs: str) -> dict[str, int]:
    """What a queue of YuniKorn's has too little of, and how much of it; what it does not name is not limited."""
    have, want = (
        {k: int(v) for part in text.split() for k, _, v in [part.rpartition(":")] if v.lstrip("-").isdecimal()}
        for text in (left, needs)
    )
    return {name: want[name] - have[name] for name in want if name in have and want[name] > have[name]}


def _replaced(place: str, changes: Mapping[str, tuple[str, str]]) -> list[dict[str, Any]]:
    return [{"op": "replace", "path": f"{place}/{escaped(name)}", "value": new} for name, (_, new) in changes.items()]


def _raised(
    cluster: Cluster,
    item: Item | None,
    what: str,
    changes: Mapping[str, tuple[str, str]],
    operations: list[dict[str, Any]],
) -> Raised | None:
    """The patch, and in words what it raises; how much the nodes have decides whether it is enough. None where nothing is raised."""
    if not changes:
        return None
    amounts = " and ".join(f"{resource} from {old} to {new}" for resource, (old, new) in changes.items())
    short = []
    for resource, (_, new) in changes.items():
        name = resource.removeprefix("requests.")  # limits may be more than there is
        there = [milli((dig(node.raw, "status.allocatable") or {}).get(name)) or 0 for node in cluster.items("Node")]
        if there and ("/" in name or name in ("cpu", "memory")) and sum(there) < (milli(new) or 0):
            short.append(f"{quantity(name, sum(there))} {name}")
    text = f"Raise {what}: {amounts}"
    text += f", once the nodes have as much ({' and '.join(short)} now)" if short else ""
    if item is None:
        return Raised(fixes.advice(text, owner="platform"), not short)
    return Raised(fixes.patch_object(item, text, operations, owner="platform"), not short)
