"""What Kueue keeps of a job or pod that it queues."""

import re
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import HOSTNAME, Cluster, Item, Node, Pod, Subject, dig, expression, k8s, milli, rows, table

#: The Workload of a group of pods has the name of the group (pkg/controller/jobs/pod).
GROUP = "kueue.x-k8s.io/pod-group-name"
#: How many pods a group is to have; Kueue makes no Workload of one that has fewer.
TOTAL = "kueue.x-k8s.io/pod-group-total-count"
#: The Workload that a pod is of, on pods for which Kueue chooses a place in a topology.
WORKLOAD = "kueue.x-k8s.io/workload"
#: The pod set of the Workload that a pod is of.
POD_SET = "kueue.x-k8s.io/podset"
#: The Workload that the owner of a pod is of, where it is made first, as that of each group of a LeaderWorkerSet is.
_PREBUILT = "kueue.x-k8s.io/prebuilt-workload-name"


def workloads(subject: Subject, cluster: Cluster) -> Iterator[Item]:
    """Kueue's Workload objects of this target: owned by one of its objects or their owners, or named by its pods."""
    owners = [owner for pod in subject.pods for owner in pod.obj.metadata.owner_references]
    mine = {item.uid for item in subject.related.values() if item.uid} | {o.uid for o in owners if o.uid}
    names = {*subject.related, *((o.kind, o.name) for o in owners)}
    labels, annotations = [pod.labels for pod in subject.pods], [pod.annotations for pod in subject.pods]
    groups = {one.get(key) for one in labels for key in (GROUP, _PREBUILT)} | {one.get(WORKLOAD) for one in annotations}
    for item in cluster.items("Workload", subject.namespace):
        refs = rows(item.raw, "metadata.ownerReferences")
        owned = any(str(r.get("uid")) in mine or (str(r.get("kind")), str(r.get("name"))) in names for r in refs)
        if owned or item.name in groups:
            yield item


#: What Kueue's flavor assigner says of flavors that a workload does not get for what it asks, or does not ask, of the topology
#: (pkg/scheduler/flavorassigner/tas_flavorassigner.go).
_TOPOLOGY = (
    r"Flavor \S{1,255} (?:supports only|does not support) TopologyAwareScheduling|does not contain the requested level"
)


#: The same of a topology in which a flavor has no room: `allows to fit only 1 out of 2 pod(s)`, `doesn't allow to fit any of 2 pod(s)`.
_NO_ROOM = r"topology \"?(?P<topology>[^\s\"]{1,255})\"? (?:allows to fit only|doesn't allow to fit)"


#: How many pods found no room in a topology, and which of its nodes have none for a single one
#: (tas_flavor_snapshot.go, after Kueue 0.16): `resource "cpu": 192, taint "dedicated=x:NoSchedule": 3, nodeSelector: 8`.
_ONE_OUT = r"(?:(?:resource|taint) \"[^\"]{1,400}\"|\w{1,40}): \d{1,7}"
_LEFT_OUT = expression(
    _NO_ROOM + r"[^.]{0,60}? (?P<pods>\d{1,7}) pod\(s\)\. Total nodes: (?P<nodes>\d{1,7}); excluded: "
    rf"(?P<why>{_ONE_OUT}(?:, {_ONE_OUT}){{0,99}})"
)
_WHY_OUT = expression(r"(?:(?P<kind>resource|taint) \"(?P<name>[^\"]{1,400})\"|(?P<filter>\w{1,40})): (?P<n>\d{1,7})")


class LeftOut(msgspec.Struct, frozen=True):
    """How many pods are to find room, on how many nodes; and how many of those are out of the question, for a resource or a taint.

    Where the lowest level of the topology is not that of nodes, its domains are counted.
    """

    topology: str
    pods: int
    nodes: int
    resources: dict[str, int]
    taints: dict[str, int]
    others: int  # by a node selector, an affinity, a domain

    @property
    def open(self) -> int:
        """The nodes that have room for one pod at least."""
        return self.nodes - sum(self.resources.values()) - sum(self.taints.values()) - self.others


def left_out(message: str) -> Iterator[LeftOut]:
    """The nodes that Kueue counts out of the topology of each flavor that it tried, where it counts them."""
    yield from (_counted(said) for said in _LEFT_OUT.finditer(message[:20_000]))


def _counted(said: re.Match[str]) -> LeftOut:
    counted = list(_WHY_OUT.finditer(said["why"]))
    named = {
        kind: {one["name"]: int(one["n"]) for one in counted if one["kind"] == kind} for kind in ("resource", "taint")
    }
    others = sum(int(one["n"]) for one in counted if one["filter"])
    return LeftOut(said["topology"], int(said["pods"]), int(said["nodes"]), named["resource"], named["taint"], others)


def for_topology(message: str) -> bool:
    """Whether a workload waits for no quota that may become free, but since it does or does not ask for a topology."""
    return re.search(_TOPOLOGY, message) is not None and " more needed" not in message


def for_room(pod: Pod, subject: Subject) -> bool:
    """Whether Kueue finds no domain of a topology with room: by its own word, or where it has none on a pod that asks for a topology."""
    said = [unreserved(workload) for workload in workloads(subject, subject.cluster)]
    asks = any(re.fullmatch(r"kueue\.x-k8s\.io/podset-[a-z-]{1,40}-topology", key) for key in pod.annotations)
    return any(re.search(_NO_ROOM, message or "") for message in said) or (asks and not said and not fewer(pod))


def fewer(pod: Pod) -> str:
    """That the group of a pod has fewer pods than it is to have, where all pods of the namespace are known."""
    total, group, cluster = pod.annotations.get(TOTAL, ""), pod.labels.get(GROUP, ""), pod.cluster
    if not group or not total.isdecimal() or len(total) > 6 or not cluster.complete("Pod", pod.namespace):
        return ""
    there = sum(item.labels.get(GROUP) == group for item in cluster.items("Pod", pod.namespace))
    return f"its group {group} has {there} of the {total} pods that it should have" if there < int(total) else ""


class LeftOver(msgspec.Struct, frozen=True):
    """Pods of a pod set that make no whole slice, and so got no place when their Workload was admitted."""

    workload: Item
    pod_set: str
    pods: int
    placed: int
    slice: int


def left_over(pod: Pod, queued: list[Item]) -> LeftOver | None:
    """The pods of the pod set of this one for which Kueue chose no place: it places whole slices, and admits the Workload all the same."""
    for workload in queued:
        assigned = {str(row.get("name")): row for row in rows(workload.raw, "status.admission.podSetAssignments")}
        for pod_set in rows(workload.raw, "spec.podSets"):
            name, pods = str(pod_set.get("name")), pod_set.get("count")
            size = dig(pod_set, "topologyRequest.podSetSliceSize")
            if name != pod.labels.get(POD_SET, name) or not isinstance(pods, int) or not isinstance(size, int):
                continue
            placed = _placed(assigned.get(name, {}))
            if size > 1 and pods % size and placed == pods - pods % size:
                return LeftOver(workload, name, pods, placed, size)
    return None


def _placed(assignment: object) -> int | None:
    """The pods that a topology assignment has a place for, as v1beta1 writes it (domains) and later releases (slices)."""
    counts = [row.get("count") for row in rows(assignment, "topologyAssignment.domains")]
    for row in rows(assignment, "topologyAssignment.slices"):
        each, domains = dig(row, "podCounts.universal"), row.get("domainCount")
        several = dig(row, "podCounts.individual")
        if isinstance(each, int) and isinstance(domains, int):
            counts.append(each * domains)
        elif isinstance(several, list):
            counts.extend(several)
    known = [count for count in counts if isinstance(count, int)]
    return sum(known) if counts and len(known) == len(counts) else None


def unreserved(workload: Item) -> str | None:
    """Why a Workload has no quota, in Kueue's words; None where it does not say that it has none."""
    condition = workload.condition("QuotaReserved", "False")
    return condition.message if condition else None


def local_queue(workload: Item, cluster: Cluster) -> Item | None:
    """The LocalQueue in which a Workload waits."""
    return cluster.item("LocalQueue", workload.namespace, str(dig(workload.raw, "spec.queueName") or ""))


def cluster_queue(workload: Item, cluster: Cluster) -> tuple[str, Item | None]:
    """The name of the ClusterQueue behind that queue, where it is known, and the ClusterQueue, where it was read."""
    local = local_queue(workload, cluster)
    name = dig(local.raw, "spec.clusterQueue") if local else None
    return (name, cluster.item("ClusterQueue", "", name)) if isinstance(name, str) else ("", None)


def uncovered(workload: Item, cluster: Cluster) -> list[str]:
    """Accelerators that a Workload asks for and no flavor of its queue has a quota of, by the queue's own account.

    Kueue 0.20 may leave such a Workload without a word, so that only where it has none is anything said.
    """
    local = local_queue(workload, cluster)
    said = any(condition.type in ("QuotaReserved", "Evicted") for condition in workload.conditions)
    listed = (
        [row for key in ("flavorsReservation", "flavorUsage") for row in rows(local.raw, f"status.{key}")]
        if local
        else []
    )
    covered = {str(resource.get("name")) for row in listed for resource in rows(row, "resources")}
    if said or not covered:
        return []
    return [name for name in requested(workload) if "/" in name and name not in covered]


class TooLarge(msgspec.Struct, frozen=True):
    """A pod set that asks for more of a resource than any flavor of its queue has, and which nobody can lend it."""

    pod_set: str
    pods: int
    resource: str
    #: thousandths, of the pod set and of the flavor with most
    asked: int
    most: int
    flavor: str
    queue: Item


def too_large(workload: Item, cluster: Cluster) -> TooLarge | None:
    """A pod set that never gets its quota: Kueue takes one flavor for all of its pods, and the queue is in no cohort."""
    _, queue = cluster_queue(workload, cluster)
    if queue is None or any(dig(queue.raw, f"spec.{key}") for key in ("cohort", "cohortName")):
        return None
    quotas: dict[str, list[tuple[int, str]]] = {}
    for group in rows(queue.raw, "spec.resourceGroups"):
        for flavor in rows(group, "flavors"):
            for row in rows(flavor, "resources"):
                quota = row.get("nominalQuota")
                if (amount := milli(quota) if isinstance(quota, str | int) else None) is None:
                    return None
                quotas.setdefault(str(row.get("name")), []).append((amount, str(flavor.get("name"))))
    for pod_set in rows(workload.raw, "spec.podSets"):
        pods, asked = pod_set.get("count", 1), dict[str, int]()
        for container in rows(pod_set, "template.spec.containers"):
            for name, amount in table(dig(container, "resources.requests")).items():
                asked[str(name)] = asked.get(str(name), 0) + (milli(amount) or 0)
        for name, each in asked.items():
            if not isinstance(pods, int) or name not in quotas or isinstance(pod_set.get("minCount"), int):
                continue  # one that may be admitted in part
            most, of_flavor = max(quotas[name])
            if pods * each > most > 0:
                return TooLarge(str(pod_set.get("name")), pods, name, pods * each, most, of_flavor, queue)
    return None


def unlisted(workload: Item, cluster: Cluster) -> list[str]:
    """What a Workload asks for that its ClusterQueue covers in no group: Kueue names one such resource at a time."""
    _, queue = cluster_queue(workload, cluster)
    groups = rows(queue.raw, "spec.resourceGroups") if queue else []
    stated = [names for group in groups if isinstance(names := dig(group, "coveredResources"), list)]
    listed = {str(name) for names in stated for name in names}
    return [name for name in requested(workload) if listed and name not in listed]


def at_once(asked: dict[str, str], cluster: Cluster) -> int:
    """How many pods that ask for so much the largest node would hold if it were empty; one where nothing is known of nodes."""
    wanted = {name: size for name, amount in asked.items() if (size := milli(amount))}
    rooms = (
        min((milli(node.status.allocatable.get(name)) or 0) // size for name, size in wanted.items())
        for node in cluster.all(k8s.Node, "Node")
        if wanted
    )
    return max(rooms, default=1)


def of_nodes(topology: str, cluster: Cluster) -> bool:
    """Whether the lowest level of a topology is that of nodes; most are made so."""
    item = cluster.item("Topology", "", topology)
    levels = rows(item.raw, "spec.levels") if item else []
    return not levels or levels[-1].get("nodeLabel") == HOSTNAME


def requested(workload: Item) -> dict[str, str]:
    """The resources that the pods of a Workload request, with what the first container that does asks for."""
    asked: dict[str, str] = {}
    for pod_set in rows(workload.raw, "spec.podSets"):
        for container in rows(pod_set, "template.spec.containers"):
            for name, amount in table(dig(container, "resources.requests")).items():
                asked.setdefault(str(name), str(amount))
    return asked


def gone(workload: Item, subject: Subject) -> list[Node]:
    """The nodes of the flavors with a topology that a workload may get, where all of them are known and none is ready and open.

    Kueue counts only those as a part of the topology (pkg/cache/scheduler/tas_flavor.go).
    """
    cluster, (_, queue) = subject.cluster, cluster_queue(workload, subject.cluster)
    groups = rows(queue.raw, "spec.resourceGroups") if queue else []
    found: list[Node] = []
    for row in (row for group in groups for row in rows(group, "flavors")):
        flavor = cluster.item("ResourceFlavor", "", str(row.get("name")))
        labels = dig(flavor.raw, "spec.nodeLabels") if flavor else None
        if flavor is None or not isinstance(labels, dict):
            return []
        if dig(flavor.raw, "spec.topologyName"):
            found += [n for n in subject.nodes if all(n.labels.get(key) == value for key, value in labels.items())]
    open_ = any(node.ready is not False and not node.cordoned for node in found)
    return found if subject.nodes.complete and not open_ else []
