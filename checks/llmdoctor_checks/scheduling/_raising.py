"""Quotas raised by as much as a pod lacks: a ResourceQuota's, and those of the queues of Kueue, KAI and Volcano."""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
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
    expression,
    fixes,
    k8s,
    milli,
    requests_of,
    rows,
    table,
)
from llmdoctor_checks.scheduling._kueue import cluster_queue

#: What Kueue's flavor assigner (pkg/scheduler/flavorassigner) says of amounts.
_LACKS = expression(
    r"insufficient (?:unused )?quota (?:in cohort )?for (?P<resource>[^\s,]{1,253}) in flavor (?P<flavor>[^\s,]{1,253}), "
    r"(?:previously considered podsets requests \((?P<before>[\w.]{1,40})\) \+ current podset request \((?P<now>[\w.]{1,40})\) > "
    r"maximum capacity \((?:\S{1,40} > )?(?P<most>[\w.]{1,40})\)"
    r"|request > maximum capacity \((?P<all>[\w.]{1,40}) > (?P<top>[\w.]{1,40})\)|(?P<more>[\w.]{1,40}) more needed)"
)
#: An amount as KAI says it, and what its queues call the resource and count it in (pkg/apis/scheduling/v2/queue_types.go).
_TOLD = expression(r"(?P<number>\d{1,9}(?:\.\d{1,4})?) (?P<unit>GPU|core|GB)s?")
_OF_KAI = {
    "GPU": ("gpu", 1, "nvidia.com/gpu", ""),
    "core": ("cpu", 1000, "cpu", ""),
    "GB": ("memory", 1000, "memory", "G"),
}
#: Amounts as Koordinator (`cpu:40,nvidia.com/gpu:4`) and Volcano (`cpu:{{40000 -3} {<nil>} 40 DecimalSI}`) list them.
_LISTED = expression(
    r'(?P<name>[a-z][\w./-]{1,252})"?:"?(?:\{\{(?P<digits>\d{1,19}) (?P<scale>-?\d{1,2})\}|(?P<amount>\d[\w.]{0,39}))'
)
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
    item = _quota(subject, name)
    amounts = _since(item, [listed(text) for text in (asked, used, limit)])
    changes: dict[str, tuple[str, str]] = {}
    pods = _unmade(subject)
    for resource, bound in amounts[2].items():
        want, have, most = (milli(a.get(resource, 0)) for a in amounts)
        if want and have is not None and most is not None and want * pods + have > most:
            changes[resource] = (bound, quantity(resource, want * pods + have))
    # OpenShift's quotas for several namespaces refuse in the same words
    elsewhere = item is None and subject.cluster.complete("ResourceQuota", subject.namespace)
    hard = {"hard": {resource: new for resource, (_, new) in changes.items()}}
    body = shlex.quote(msgspec.json.encode({"spec": {"quota": hard} if elsewhere else hard}).decode())
    resource = f"clusterresourcequota {name}" if elsewhere else f"resourcequota {name} -n {subject.namespace}"
    return _raised(
        subject.cluster,
        item,
        f"ClusterResourceQuota {name}" if elsewhere else f"quota {name} of {subject.namespace}",
        changes,
        _replaced("/spec/hard", changes),
        {resource: milli(amount) or 0 for resource, amount in amounts[1].items()},
        f"kubectl patch {resource} --type=merge -p {body}",
    )


def has_room(subject: Subject, name: str, limit: str) -> bool:
    """Whether a ResourceQuota that needs no raising was changed after it refused."""
    item, told = _quota(subject, name), listed(limit)
    return item is not None and bool(told) and _changed(item, told)


def _quota(subject: Subject, name: str) -> Item | None:
    return next((i for i in subject.cluster.items("ResourceQuota", subject.namespace) if i.name == name), None)


def _since(item: Item | None, amounts: list[dict[str, str]]) -> list[dict[str, str]]:
    """What is asked, used and allowed, as the quota has it now where it was changed after the refusal."""
    if item is None:
        return amounts
    hard, taken = _hard(item), table(dig(item.raw, "status.used"))
    asked, used, limit = amounts
    if not _changed(item, limit):
        return amounts
    now = {str(name): str(amount) for name, amount in taken.items()}
    return [asked, used | now, {name: str(hard[name]) for name in limit if name in hard}]


def _changed(item: Item, limit: Mapping[str, str]) -> bool:
    hard = _hard(item)
    now = {name: milli(hard[name]) if name in hard else 0 for name in limit if hard}
    return any(amount is not None and amount != milli(limit[name]) for name, amount in now.items())


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


def of_flavor(workload: Item, cluster: Cluster, message: str, flavor: str) -> Raised | None:
    """The nominalQuota of a flavor of Kueue's raised by what is missing; None where Kueue does not say how much that is."""
    lacks: dict[str, int] = {}
    for found in _LACKS.finditer(message):
        before, now, most, more, all_of, top = (
            milli(found[name]) for name in ("before", "now", "most", "more", "all", "top")
        )
        short = before + now - most if before is not None and now is not None and most is not None else more
        if all_of is not None and top:  # where it has none at all, nothing says that it is to have some
            short = all_of - top
        if found["flavor"] == flavor and short:
            lacks[found["resource"]] = max(short, lacks.get(found["resource"], 0))
    if not lacks:
        return None
    name, queue = cluster_queue(workload, cluster)
    if queue and (lent := _borrowed(cluster, queue, flavor, lacks, "more needed" in message)):
        return lent
    changes: dict[str, tuple[str, str]] = {}
    operations = []
    for path, row, given in _quotas(queue):
        resource, nominal = str(given.get("name")), milli(given.get("nominalQuota"))
        if row.get("name") == flavor and resource in lacks and nominal is not None:
            value = quantity(resource, nominal + lacks[resource])
            changes[resource] = (str(given.get("nominalQuota")), value)
            operations.append({"op": "replace", "path": f"{path}/nominalQuota", "value": value})
    if queue and len(changes) == len(lacks):
        return _raised(
            cluster, queue, f"the nominalQuota of flavor {flavor} in ClusterQueue {name}", changes, operations
        )
    amounts = " and ".join(f"{resource} by {quantity(resource, short)}" for resource, short in lacks.items())
    local = str(dig(workload.raw, "spec.queueName") or "")
    behind = (
        f"ClusterQueue {name}" if name else f"the ClusterQueue of LocalQueue {local}" if local else "its ClusterQueue"
    )
    commands = shown_queue(workload, name)
    return Raised(fixes.platform(f"Raise the nominalQuota of flavor {flavor} in {behind}: {amounts}", *commands), True)


def _borrowed(cluster: Cluster, queue: Item, flavor: str, lacks: dict[str, int], unused: bool) -> Raised | None:
    """The borrowingLimit of a queue raised by what is missing, where the other queues of its cohort have as much to lend.

    A nominalQuota raised instead would promise machines to two queues. Where Kueue says that what is `unused` is too little, what the
    queues use counts as well.
    """
    cohort = _cohort(queue)
    others = [q for q in cluster.items("ClusterQueue") if cohort and q.name != queue.name and _cohort(q) == cohort]
    changes: dict[str, tuple[str, str]] = {}
    operations = []
    for path, row, given in _quotas(queue):
        resource, limit = str(given.get("name")), milli(given.get("borrowingLimit"))
        if row.get("name") == flavor and resource in lacks and limit is not None:
            left = [_lent(other, flavor, resource, unused) for other in others]
            own = _used(queue, flavor, resource) if unused else 0
            if None in left or own is None:
                return None
            # what it borrows already is used of what the others have
            lent = max(0, own - (milli(given.get("nominalQuota")) or 0))
            if sum(one or 0 for one in left) - lent < lacks[resource] + (0 if unused else limit):
                return None
            value = quantity(resource, limit + lacks[resource])
            changes[resource] = (str(given.get("borrowingLimit")), value)
            operations.append({"op": "replace", "path": f"{path}/borrowingLimit", "value": value})
    if len(changes) != len(lacks):
        return None
    what = f"the borrowingLimit of flavor {flavor} in ClusterQueue {queue.name}, whose cohort {cohort} has more to lend"
    return _raised(cluster, queue, what, changes, operations)


def _lent(queue: Item, flavor: str, resource: str, unused: bool) -> int | None:
    """How much of a flavor a queue lends to its cohort, or what it does not use of it; None where its use is not known."""
    for _, row, given in _quotas(queue):
        if row.get("name") == flavor and str(given.get("name")) == resource:
            nominal = milli(given.get("nominalQuota")) or 0
            most = milli(given.get("lendingLimit")) if "lendingLimit" in given else nominal
            used = _used(queue, flavor, resource) if unused else 0
            return None if used is None else min(most or 0, max(0, nominal - used))
    return 0


def _used(queue: Item, flavor: str, resource: str) -> int | None:
    """What a queue has given of a flavor, by its status."""
    for row in (*rows(queue.raw, "status.flavorsReservation"), *rows(queue.raw, "status.flavorsUsage")):
        for given in rows(row, "resources") if row.get("name") == flavor else ():
            if given.get("name") == resource:
                return milli(given.get("total"))
    return None


def _cohort(queue: Item) -> str:
    return str(dig(queue.raw, "spec.cohortName") or dig(queue.raw, "spec.cohort") or "")


def shown_queue(workload: Item, name: str) -> tuple[str, ...]:
    """How the ClusterQueue of a Workload is changed; first how its name is found, where that is not known."""
    if name:
        return (f"kubectl edit clusterqueues.kueue.x-k8s.io {shlex.quote(name)}",)
    local = str(dig(workload.raw, "spec.queueName") or "")
    named = f"localqueues.kueue.x-k8s.io {shlex.quote(local)} -o jsonpath='{{.spec.clusterQueue}}'"
    look = (
        f"kubectl -n {workload.namespace} get {named}" if local else "kubectl get clusterqueues.kueue.x-k8s.io -o wide"
    )
    return (look,)


def _quotas(queue: Item | None) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """The quotas of a ClusterQueue: where each stands, its flavor, and itself."""
    for g, group in enumerate(rows(queue.raw, "spec.resourceGroups") if queue else ()):
        for f, row in enumerate(rows(group, "flavors")):
            for r, given in enumerate(rows(row, "resources")):
                yield f"/spec/resourceGroups/{g}/flavors/{f}/resources/{r}", row, given


def covered(workload: Item, cluster: Cluster, amounts: dict[str, str]) -> Fix | None:
    """Resources given a quota in each flavor of a ClusterQueue that has one group of them; None where there is no such queue."""
    name, queue = cluster_queue(workload, cluster)
    groups = rows(queue.raw, "spec.resourceGroups") if queue else []
    if queue is None or len(groups) != 1 or not rows(groups[0], "flavors"):
        return None
    at, operations = "/spec/resourceGroups/0", list[dict[str, Any]]()
    for resource, amount in amounts.items():
        given = {"name": resource, "nominalQuota": amount}
        operations.append({"op": "add", "path": f"{at}/coveredResources/-", "value": resource})
        for f, _ in enumerate(rows(groups[0], "flavors")):
            operations.append({"op": "add", "path": f"{at}/flavors/{f}/resources/-", "value": given})
    quotas = " and ".join(f"{resource}: {amount}" for resource, amount in amounts.items())
    text = f"Give ClusterQueue {name} a quota of {quotas} in each of its flavors, or as much as their nodes have"
    return fixes.patch_object(queue, text, operations, owner="platform")


def volcano_group(pod: Pod, subject: Subject) -> Item | None:
    """Volcano's PodGroup of a pod, also of one that is still to be made."""
    name = pod.annotations.get(VOLCANO_GROUP)
    made = next((item for (kind, _), item in subject.related.items() if kind == "PodGroup"), None)
    return pod.cluster.item("PodGroup", pod.namespace, name) if name else made


def volcano_queue(pod: Pod, subject: Subject) -> str:
    """The queue of Volcano's in which a pod waits."""
    group = volcano_group(pod, subject)
    of_job = dig(subject.workload.raw, "spec.queue") if subject.workload else None
    named = pod.annotations.get(VOLCANO_QUEUE) or (dig(group.raw, "spec.queue") if group else None) or of_job
    return str(named) if isinstance(named, str) and named else "default"


def of_volcano(pod: Pod, subject: Subject, lacks: list[str]) -> Raised | None:
    """The capability of Volcano's queue raised to what is in use and asked for, or by that where the queue is not known."""
    group, name = volcano_group(pod, subject), volcano_queue(pod, subject)
    queue = pod.cluster.item("Queue", "", name)
    asked = _amounts(dig(group.raw, "spec.minResources") if group else None) or thousandths(pod.obj)
    what = f"the capability of queue {name}"
    capability = dig(queue.raw, "spec.capability") if queue else None
    if queue is None or not isinstance(capability, dict) or not queue.api_version.startswith("scheduling.volcano.sh/"):
        more = {resource: asked[resource] for resource in lacks if asked.get(resource)}
        amounts = " and ".join(f"{resource} by {quantity(resource, amount)}" for resource, amount in more.items())
        edit = f"kubectl edit queues.scheduling.volcano.sh {shlex.quote(name)}"
        text = f"Raise {what}: {amounts}, which is what it asks for (less, where something is left)"
        return Raised(fixes.platform(text, edit), True) if more else None
    taken = _amounts(dig(queue.raw, "status.allocated"))
    changes: dict[str, tuple[str, str]] = {}
    for resource, limit in capability.items():
        need, most = taken.get(str(resource), 0) + asked.get(str(resource), 0), milli(limit)
        if most is not None and need > most and asked.get(str(resource)) and (not lacks or resource in lacks):
            changes[str(resource)] = (str(limit), quantity(str(resource), need))
    return _raised(pod.cluster, queue, what, changes, _replaced("/spec/capability", changes), taken)


def of_group(subject: Subject, message: str) -> Raised | None:
    """A ResourceQuota raised so that a group fits into it, by Volcano's word on what is asked, used and allowed."""
    asked, used, limit = (_said(message, key) for key in ("requested", "used", "limited"))
    short = {
        name: asked[name] + used.get(name, 0)
        for name in asked
        if asked[name] + used.get(name, 0) > limit.get(name, asked[name])
    }
    items = [i for i in subject.cluster.items("ResourceQuota", subject.namespace) if short.keys() <= _hard(i).keys()]
    item = items[0] if len(items) == 1 else None
    what = f"quota {item.name} of {subject.namespace}" if item else f"the ResourceQuota of {subject.namespace}"
    changes = {
        name: (quantity(name, limit[name]), quantity(name, need)) for name, need in short.items() if name in limit
    }
    edit = f"kubectl -n {subject.namespace} edit resourcequota"
    return _raised(subject.cluster, item, what, changes, _replaced("/spec/hard", changes), used, edit)


def _hard(quota: Item) -> dict[str, Any]:
    return table(dig(quota.raw, "spec.hard"))


def _said(message: str, key: str) -> dict[str, int]:
    """The amounts of a message after a key, in thousandths: `used: cpu:40,nvidia.com/gpu:4, pod's request: …`."""
    text = message.partition(f" {key}: ")[2][:4000]
    text = re.split(r", (?:[a-zA-Z]{1,40}(?:'s request)?): ", text, maxsplit=1)[0]
    found: dict[str, int] = {}
    for one in _LISTED.finditer(text):
        amount = milli(one["amount"]) if one["amount"] else int(int(one["digits"]) * 10 ** (int(one["scale"]) + 3))
        if amount is not None:
            found[one["name"]] = amount
    return found


def of_elastic(pod: Pod, name: str, message: str, exceeds: str) -> Raised | None:
    """An ElasticQuota of Koordinator or of the plugin CapacityScheduling raised so that the pod fits.

    Koordinator guarantees the minimum and shares out up to the maximum; of the plugin's word only the bound is known.
    """
    used = _said(message, "nonPreemptibleUsed" if " nonPreemptibleUsed: " in message else "used")
    wanted, dimensions = _said(message, "pod's request"), exceeds.split()
    if dimensions and all(wanted.get(resource) for resource in dimensions):
        told = " and ".join(f"{r} to {quantity(r, used.get(r, 0) + wanted[r])}" for r in dimensions)
        text = f"Raise spec.min of ElasticQuota {name}: {told} (and spec.max, where it is less)"
    elif not dimensions and (asked := thousandths(pod.obj)):
        told = ", ".join(f"{resource} {quantity(resource, amount)}" for resource, amount in asked.items())
        bound = "min" if "more than min" in message else "max"
        text = f"Raise spec.{bound} of ElasticQuota {name} by what the pod asks for ({told}), of what it names"
    else:
        return None
    look = f"kubectl get elasticquotas.scheduling.sigs.k8s.io -A | grep -w {shlex.quote(name)}"
    return Raised(fixes.platform(text, look), True)


def _amounts(told: Any) -> dict[str, int]:
    return {str(k): v for k, said in table(told).items() if (v := milli(said)) is not None}


#: By so much of a GPU a quota that is just used up is raised, so that no rounding matters.
_A_LITTLE = 0.01


def queues_of_kai(pod: Pod) -> list[Item]:
    return [item for item in pod.cluster.items("Queue") if item.api_version.startswith("scheduling.run.ai/")]


def of_kai(pod: Pod, name: str, field: str, taken: str, wanted: str) -> Raised | None:
    """What a queue of KAI's gives (`quota` or `limit`) raised to what is allocated and asked for."""
    queues = queues_of_kai(pod)
    queue = next((i for i in queues if name in (i.name, dig(i.raw, "spec.displayName"))), None)
    numbers = [found for text in (taken, wanted) if (found := _TOLD.match(text.strip()))]
    units = {found["unit"] for found in numbers}
    if len(numbers) != 2 or len(units) != 1 or (field == "quota" and units != {"GPU"}):
        return None  # some releases say the CPUs and memory that are asked for in other units
    kind, factor, resource, suffix = _OF_KAI[units.pop()]
    have, need = float(numbers[0]["number"]), sum(float(found["number"]) for found in numbers)
    value = int(need * factor) if need * factor == int(need * factor) else round(need * factor, 4)
    what = f"the {'GPU' if kind == 'gpu' else kind} {field} of queue {queue.name if queue else name}"
    own = dig(queue.raw, f"spec.resources.{kind}") if queue else None
    if queue is None or not isinstance(own, dict) or not isinstance(own.get(field), int | float):
        unread = ", and its limit where that is less" if field == "quota" else ""
        body = f'{{"spec":{{"resources":{{"{kind}":{{"{field}":{value}}}}}}}}}'
        called = shlex.quote(queue.name if queue else name)
        command = f"kubectl patch queues.scheduling.run.ai {called} --type=merge -p '{body}'"
        text = f"Raise {what} to {need:g}{suffix} {resource}{unread}"
        return Raised(fixes.platform(text, command), True)
    if own[field] == value and value != int(value):
        value = round(value + _A_LITTLE, 4)  # KAI adds shares as floating numbers: 0.1 and 0.2 are more than 0.3
        need = value / factor
    if not 0 <= own[field] < value:
        return None  # it was raised since
    at = f"/spec/resources/{kind}"
    operations = [{"op": "replace", "path": f"{at}/{field}", "value": value}]
    limit = own.get("limit")
    if field == "quota" and isinstance(limit, int | float) and 0 <= limit < value:
        operations.append({"op": "replace", "path": f"{at}/limit", "value": value})
    changes = {resource: (f"{own[field] / factor:g}{suffix}", f"{need:g}{suffix}")}
    return _raised(pod.cluster, queue, what, changes, operations, {resource: int(have * 1000)})


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
    taken: Mapping[str, int] | None = None,
    unread: str = "",
) -> Raised | None:
    """The patch, and in words what it raises; how much the nodes have decides whether it is enough. None where nothing is raised.

    Where more is taken than the nodes have, they are not all known, and decide nothing.
    """
    if not changes:
        return None
    amounts = " and ".join(f"{resource} from {old} to {new}" for resource, (old, new) in changes.items())
    short = []
    for resource, (_, new) in changes.items():
        name = resource.removeprefix("requests.")  # limits may be more than there is
        there = [milli((dig(node.raw, "status.allocatable") or {}).get(name)) or 0 for node in cluster.items("Node")]
        if sum(there) < (taken or {}).get(resource, 0):
            continue
        if there and ("/" in name or name in ("cpu", "memory")) and sum(there) < (milli(new) or 0):
            short.append(f"{quantity(name, sum(there))} {name}")
    text = f"Raise {what}: {amounts}"
    text += f", once the nodes have as much ({' and '.join(short)} now)" if short else ""
    if item is None:
        return Raised(fixes.platform(text, *filter(None, [unread])), not short)
    return Raised(fixes.patch_object(item, text, operations, owner="platform"), not short)
