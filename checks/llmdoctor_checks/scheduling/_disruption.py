"""Pods that somebody took away: the scheduler, a drain, the kubelet of a node that stops, or the loss of a node.

Sources: Kubernetes pkg/apis/core (`DisruptionTarget`), kube-scheduler preemption, pkg/controller/tainteviction and podgc,
pkg/kubelet/nodeshutdown and preemption; Karpenter's and the cluster autoscaler's events; Volcano's pkg/scheduler/cache; the
descheduler's pkg/descheduler/evictions.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Literal

import msgspec

from kubectl_llmdoctor.api import (
    HOSTNAME,
    Cluster,
    Event,
    Events,
    Evidence,
    Finding,
    Fix,
    Node,
    Pod,
    Subject,
    condition_evidence,
    endings,
    event_evidence,
    events_of,
    node_evidence,
    parse_time,
    pod_evidence,
)
from llmdoctor_checks._consequences import FAILED_START

Kind = Literal["preempted", "drained", "lost", "rebooted"]

#: What follows when a pod is taken away: itself ends, and the others of its group lose a member.
CONSEQUENCES = (
    *FAILED_START, "rollout-stuck", "worker-lost", "ray-cluster", "multinode-discovery", "nccl-timeout", "nccl-other",
    "engine-dead", "probe-too-short", "node-selector-mismatch",
)  # fmt: skip

#: Taints that the control plane sets on a node that no longer answers.
_SILENT = ("node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready")

#: The reason of a pod that the kubelet ended, and its message.
_BY_KUBELET: tuple[tuple[str, str, Kind], ...] = (
    ("Preempting", "", "preempted"),
    ("Terminated", "node shutdown", "drained"),
    ("Shutdown", "hutting", "drained"),  # 1.20: `Node is shutting, evicting pods`
    ("NodeShutdown", "hutting down", "drained"),
    ("NodeLost", "", "lost"),
)

_BY_CONDITION: dict[str, Kind] = {
    "PreemptionByScheduler": "preempted",
    "PreemptionByKubeScheduler": "preempted",
    "EvictionByEvictionAPI": "drained",
    "TerminationByKubelet": "drained",
    "DeletionByTaintManager": "drained",
    "DeletionByPodGC": "lost",
}

#: What Volcano writes into the condition Ready and an event, and KAI into an event of the pod's PodGroup.
_BY_SCHEDULER = r"Pod is evicted, because of \w*(?:preempt|reclaim)|Pod \S+ was preempted by "

#: How Kueue begins to say for whom a pod had to go.
BY_KUEUE = "Preempted to accommodate"

#: The condition of a pod that Kueue ends before it runs (pkg/controller/tas): the node that it pinned the pod to was tainted since.
_PINNED = "TerminatedByKueue"

#: Events about a pod that say who takes it away, by reason and an expression for the beginning of the message.
_EVENTS: tuple[tuple[str, str, Kind], ...] = (
    ("Preempted", "Preempted by", "preempted"),
    ("Stopped", f"{BY_KUEUE} a workload", "preempted"),
    ("Evict", _BY_SCHEDULER, "preempted"),
    ("Evicted", "Evicted pod", "drained"),  # Karpenter
    ("ScaleDown", "deleting pod for node scale down", "drained"),
    ("TaintManagerEviction", "Marking for deletion", "drained"),
)

#: What the descheduler says of a pod that it evicts, under the name of its plugin as the reason.
_DESCHEDULED = r"pod (?:evicted|eviction) from \S{1,253} node by sigs\.k8s\.io/descheduler$"

#: So many pods of one ReplicaSet that are taken away before they are ready are a loop.
_AGAIN = 2

#: A ReplicaSet makes a pod in the place of one that is deleted within this time.
_IN_ITS_PLACE_SECONDS = 60

#: The troubles of a pod that may only have had too little time.
_STARTING = ("not-ready", "creating")

#: The kubelet tells of a reboot, and finds the containers ended, within this time of each other.
_REBOOT_SECONDS = 600

#: Events about a node that say that it goes away, and why.
_NODE_EVENTS = (
    "SpotInterrupted",
    "TerminatingOnInterruption",
    "SpotInterruption",
    "RebalanceRecommendation",
    "PreemptScheduled",
)

#: Those of them after which the machine is gone; what is recommended may not happen.
_TAKEN_BACK = ("SpotInterrupted", "TerminatingOnInterruption", "SpotInterruption", "PreemptScheduled")

#: Taints by which somebody says that a node goes away with its pods, what that is, and whether a cloud takes the machine back
#: (aws-node-termination-handler pkg/node, GKE's maintenance handler, cluster-autoscaler utils/taints, Karpenter pkg/apis/v1). Of what
#: is only recommended, and of a node that is merely cordoned, nobody knows whether it goes.
_GOING = {
    "aws-node-termination-handler/spot-itn": ("AWS takes the spot machine back", True),
    "aws-node-termination-handler/asg-lifecycle-termination": ("its Auto Scaling group ends the machine", False),
    "aws-node-termination-handler/scheduled-maintenance": ("AWS has scheduled maintenance of the machine", False),
    "cloud.google.com/impending-node-termination": ("Google Cloud is about to stop the machine", True),
    "ToBeDeletedByClusterAutoscaler": ("the cluster autoscaler removes it (scale down)", False),
    "karpenter.sh/disrupted": ("Karpenter removes it", False),
    "karpenter.sh/disruption": ("Karpenter removes it", False),
}

#: Conditions by which AKS's node problem detector passes on that Azure will take a machine away, and the reasons that mean it.
_ANNOUNCED = ("VMEventScheduled", "PreemptScheduled", "TerminateScheduled", "RedeployScheduled")
_AZURE_TAKES = ("PreemptScheduled", "TerminateScheduled", "RedeployScheduled")

#: A machine that is told to go stops within this time: a cloud gives two minutes at most, and a drain may take as long as its pods.
_NOTICE_SECONDS = 3600

#: Events about a node that its autoscaler removes (Karpenter pkg/controllers/disruption/events, cluster-autoscaler
#: core/scaledown/actuation): it is gone by intent, whatever its pods were told.
_BY_INTENT = (("DisruptionTerminating", "Disrupting Node: "), ("ScaleDown", "marked the node as toBeDeleted"))


#: What the cloud's node controller says when it deletes a Node object (cloud-provider pkg/controllers/nodelifecycle).
_GONE = r"^Deleting node \S{1,253} because it does not exist in the cloud provider"


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """How a pod was taken away."""

    kind: Kind
    why: str
    evidence: tuple[Evidence, ...]
    #: whether it may be another kind, since the node was not read
    open: bool = False
    #: whether a cloud took the machine back
    spot: bool = False
    #: when the node fell silent
    since: datetime | None = None
    #: how many pods before this one were taken away, where this one starts in their place
    before: int = 0
    #: the plugin of the descheduler that did it
    plugin: str = ""
    #: the node that its queue had pinned it to, where that was tainted before it ran there
    pinned: str = ""
    #: whether the node reports, and says that it is not ready
    unready: bool = False


def lost(found: Taken, summary: str, fix: Fix) -> Finding:
    """The finding of a pod that was taken away."""
    return Finding(
        confidence="possible" if found.open else "likely" if found.before else "certain",
        summary=summary,
        evidence=found.evidence,
        explains=CONSEQUENCES,
        fix=fix,
    )


def taken(pod: Pod, subject: Subject, events: Events | None, node: Node | None) -> Taken | None:
    """Who took the pod away; None when nobody did, or while it leaves and enough other replicas are ready."""
    workload = subject.workload
    if not pod.exists or pod.status.phase == "Succeeded":
        return None
    whole = workload is not None and workload.replicas and (workload.ready or 0) >= workload.replicas
    if whole and len(subject.pods) == 1 and pod.status.phase != "Failed":
        return None
    found = _by_status(pod, node) or _silent(pod, node) or _by_event(pod, events, node)
    found = found or _remade(pod, node) or _rebooted(pod, events) or _machine_gone(pod, events, node)
    if found is None:
        return _again(pod)
    found = _by_intent(pod, events, found) or _announced(node, found) or found
    about = [event for event in _about(pod, events) if event.last]
    evidence = dict.fromkeys((*found.evidence, *(event_evidence(event, pod.cluster) for event in about)))
    spot = found.spot or any(event.reason.startswith(("Spot", "PreemptScheduled")) for event in about)
    plugin = next((event.reason for event in about if re.match(_DESCHEDULED, event.message)), "")
    return msgspec.structs.replace(found, evidence=tuple(evidence)[:4], spot=spot, plugin=plugin)


def leaving(pod: Pod, events: Events | None, node: Node | None) -> Taken | None:
    """Who is about to take the node of a running pod away, by its taints, an event about it or a condition; None where nobody says so."""
    if pod.status.phase != "Running" or pod.obj.metadata.deletion_timestamp or not pod.spec.node_name:
        return None
    told = [event for event in _about(pod, events) if event.reason in _TAKEN_BACK and _of_late(event, pod)]
    quoted = tuple(event_evidence(event, pod.cluster) for event in told)
    taint = next((t for t in node.obj.spec.taints if t.key in _GOING), None) if node else None
    if node and taint:
        why, spot = _GOING[taint.key]
        evidence = (node_evidence(node, f"taint {taint.key}:{taint.effect}"), *quoted)
        return Taken(kind="drained", why=_when(told) or why, evidence=evidence, spot=spot or bool(told))
    if told:
        return Taken(kind="drained", why=_when(told), evidence=quoted, spot=True)
    for name in _ANNOUNCED if node else ():
        said = node.condition(name, "True") if node else None
        if node and said and said.reason in _AZURE_TAKES:
            quoted = (node_evidence(node, f"{name}=True: {said.reason} {said.message}".rstrip()),)
            spot = said.reason == "PreemptScheduled"
            return Taken(kind="drained", why=said.message or said.reason, evidence=quoted, spot=spot)
    return None


def _of_late(event: Event, pod: Pod) -> bool:
    """Whether an event is so young that the machine of which it tells may still be there."""
    now = pod.cluster.now
    return now is None or event.last is None or (now - event.last).total_seconds() <= _NOTICE_SECONDS


def _when(told: list[Event]) -> str:
    """What the last notice says, without the end of its sentence."""
    return told[-1].message.strip().rstrip(".") if told else ""


def _again(pod: Pod) -> Taken | None:
    """Pods of the same ReplicaSet that were drained one after the other, of which this one is the next and not ready yet."""
    stem = pod.name.rpartition("-")[0]
    made = any(o.kind == "ReplicaSet" and o.name == stem for o in pod.obj.metadata.owner_references)
    if not made or pod.ready or any(trouble.kind not in _STARTING for trouble in pod.troubles):
        return None
    drained = pod.cluster.once("drained pods of ReplicaSets", lambda: _drained(pod.cluster))
    told = {event.name: event for event in drained.get((pod.namespace, stem), ()) if _before(event, pod)}
    latest = sorted(told.values(), key=lambda event: str(event.last or ""))
    if len(latest) < _AGAIN or _over(pod, *latest[-2:]):
        return None
    plugin = latest[-1].reason if re.match(_DESCHEDULED, latest[-1].message) else ""
    quoted = tuple(event_evidence(event, pod.cluster) for event in latest[:-4:-1])
    return Taken(kind="drained", why=latest[-1].message, evidence=quoted, before=len(latest), plugin=plugin)


def _drained(cluster: Cluster) -> dict[tuple[str, str], list[Event]]:
    """The events of pods that are taken away, by their namespace and what their names begin with."""
    found: dict[tuple[str, str], list[Event]] = {}
    for event in events_of(cluster).of_kind("Pod"):
        if _drains(event):
            found.setdefault((event.namespace, event.name.rpartition("-")[0]), []).append(event)
    return found


def _before(event: Event, pod: Pod) -> bool:
    """Whether an event is about another pod, and the pod was made when that one went or later."""
    made = parse_time(pod.obj.metadata.creation_timestamp)
    early = made is not None and event.last is not None and (event.last - made).total_seconds() > _IN_ITS_PLACE_SECONDS
    return event.name != pod.name and not early


def _over(pod: Pod, one: Event, last: Event) -> bool:
    """Whether the pod has been left alone for longer than those before it: then it has no cause to be unready but its own."""
    now = pod.cluster.now
    if not (now and one.last and last.last):
        return False
    return (now - last.last).total_seconds() > 2 * (last.last - one.last).total_seconds()


def _drains(event: Event) -> bool:
    """Whether an event says that its pod is taken away with its node, or by the descheduler."""
    listed = any(
        event.reason == r and kind == "drained" and re.match(piece, event.message) for r, piece, kind in _EVENTS
    )
    return listed or re.match(_DESCHEDULED, event.message) is not None


def _by_status(pod: Pod, node: Node | None) -> Taken | None:
    status = pod.status
    for reason, piece, kind in _BY_KUBELET:
        if status.reason == reason and piece in status.message:
            said = f"{reason}: {status.message}"
            return Taken(kind=kind, why=status.message or reason, evidence=(pod_evidence(pod, "status", said),))
    stopped = pod.condition("TerminationTarget", "True")  # Kueue's, of a pod that it queues by itself
    if stopped is not None and stopped.message.startswith(BY_KUEUE):
        return Taken(kind="preempted", why=stopped.message, evidence=(condition_evidence(pod, stopped),))
    if ended := pod.condition(_PINNED, "True"):
        pinned = pod.spec.node_name or str(pod.spec.node_selector.get(HOSTNAME) or "its node")
        return Taken(kind="drained", why=ended.message, evidence=(condition_evidence(pod, ended),), pinned=pinned)
    ready = pod.condition("Ready")
    if ready is not None and ready.reason == "Evict" and re.match(_BY_SCHEDULER, ready.message):
        return Taken(kind="preempted", why=ready.message, evidence=(condition_evidence(pod, ready),))
    condition = pod.condition("DisruptionTarget", "True")
    if condition is None:
        return None
    found = _BY_CONDITION.get(condition.reason)
    # the kubelet also sets it when it evicts for pressure, which has causes of its own
    if found is None or (condition.reason == "TerminationByKubelet" and status.reason == "Evicted"):
        return None
    evidence = (condition_evidence(pod, condition),)
    silent = _silent(pod, node) if condition.reason == "DeletionByTaintManager" else None
    if silent:
        return msgspec.structs.replace(silent, evidence=(*evidence, *silent.evidence))
    by_taint = condition.reason == "DeletionByTaintManager"
    return Taken(
        kind=found, why=condition.message or condition.reason, evidence=evidence, open=by_taint and node is None
    )


def _by_event(pod: Pod, events: Events | None, node: Node | None) -> Taken | None:
    if not (pod.obj.metadata.deletion_timestamp or pod.status.phase == "Failed"):
        return None
    for event in _about(pod, events):
        for reason, piece, kind in _EVENTS:
            if event.reason == reason and re.match(piece, event.message):
                by_taint = reason == "TaintManagerEviction"
                quoted = (event_evidence(event, pod.cluster),)
                return Taken(kind=kind, why=event.message, evidence=quoted, open=by_taint and node is None)
    return None


def _machine_gone(pod: Pod, events: Events | None, node: Node | None) -> Taken | None:
    """A pod that is left over from a node whose machine is gone, by the word of who deletes its Node object."""
    if node is not None or not pod.spec.node_name or not pod.obj.metadata.deletion_timestamp:
        return None
    for event in reversed(list(events or ())):
        if (event.kind, event.name, event.reason) == ("Node", pod.spec.node_name, "DeletingNode") and re.search(
            _GONE, event.message
        ):
            quoted = (event_evidence(event, pod.cluster),)
            return Taken(kind="lost", why=event.message, evidence=quoted, since=event.last)
    return None


def _by_intent(pod: Pod, events: Events | None, found: Taken) -> Taken | None:
    """A node that is lost because its autoscaler removes it, or its cloud took the machine back."""
    for event in reversed(list(events or ())) if found.kind == "lost" else ():
        removed = any(event.reason == reason and event.message.startswith(words) for reason, words in _BY_INTENT)
        removed = removed or (event.reason in _TAKEN_BACK and _soon(event, found))
        if removed and event.kind == "Node" and event.name == pod.spec.node_name:
            quoted = (event_evidence(event, pod.cluster), *found.evidence)
            return Taken(kind="drained", why=event.message, evidence=quoted)
    return None


def _announced(node: Node | None, found: Taken) -> Taken | None:
    """A node that is lost because Azure takes its machine, as a condition of it said before."""
    for name in _ANNOUNCED if node and found.kind == "lost" else ():
        said = node.condition(name, "True") if node else None
        if node and said and said.reason in _AZURE_TAKES:
            quoted = node_evidence(node, f"{name}=True: {said.reason} {said.message}".rstrip())
            preempted = said.reason == "PreemptScheduled"
            why = said.message or said.reason
            return Taken(kind="drained", why=why, evidence=(quoted, *found.evidence), spot=preempted)
    return None


def _soon(event: Event, found: Taken) -> bool:
    """Whether the node fell silent after such an event and not long after; what has no time may have."""
    if found.since is None or event.last is None:
        return True
    return -_REBOOT_SECONDS <= (found.since - event.last).total_seconds() <= _NOTICE_SECONDS


def _about(pod: Pod, events: Events | None) -> Iterator[Event]:
    reasons = {reason for reason, _, _ in _EVENTS}
    for event in events_of(pod.cluster).of_kind("PodGroup"):
        if event.reason == "Evict" and event.message.startswith(f"Pod {pod.namespace}/{pod.name} was "):
            yield event
    for event in events or ():
        said = event.reason in reasons or re.match(_DESCHEDULED, event.message)
        own = said and event.kind == "Pod" and event.name == pod.name and not _of_a_namesake(event, pod)
        if own or (event.kind == "Node" and event.name == pod.spec.node_name and event.reason in _NODE_EVENTS):
            yield event


def _of_a_namesake(event: Event, pod: Pod) -> bool:
    """Whether an event is about a pod of the same name that went before this one was made, as those of a StatefulSet do."""
    own, made = pod.obj.metadata.uid, parse_time(pod.obj.metadata.creation_timestamp)
    another = bool(event.uid and own) and event.uid != own
    return another and made is not None and event.last is not None and event.last <= made


def _rebooted(pod: Pod, events: Events | None) -> Taken | None:
    """A node that was started again under the pod: its containers ended without a trace at that time, and that was the last of it."""
    ended = list(endings(pod))
    last = max((ending.finished for ending in ended if ending.finished), default=None)
    for ending in ended:
        if not ending.terminated.lost or ending.finished is None:
            continue
        for event in events.of("Rebooted", kind="Node") if events else []:
            if event.name != pod.spec.node_name or event.last is None:
                continue
            later = last is not None and (last - event.last).total_seconds() > _REBOOT_SECONDS
            if abs((event.last - ending.finished).total_seconds()) <= _REBOOT_SECONDS and not later:
                evidence = event_evidence(event, pod.cluster), pod_evidence(pod, ending.path, ending.text)
                return Taken(kind="rebooted", why="it was rebooted", evidence=evidence)
    return None


def _silent(pod: Pod, node: Node | None) -> Taken | None:
    """A node that the control plane has heard nothing of, or only that it is not ready, under a pod that is no longer ready."""
    ready = node.condition("Ready") if node else None
    if node is None or ready is None or ready.status == "True" or pod.ready:
        return None
    said = ready.status == "False"
    if said and not _unready_by_node(pod, node):
        return None
    evidence = [node_evidence(node, f"Ready={ready.status}: {ready.reason} {ready.message}".rstrip())]
    evidence += [node_evidence(node, f"taint {t.key}") for t in node.obj.spec.taints if t.key in _SILENT][:1]
    since = parse_time(ready.last_transition_time)
    return Taken(kind="lost", why=ready.message or ready.reason, evidence=tuple(evidence), since=since, unready=said)


def _unready_by_node(pod: Pod, node: Node) -> bool:
    """Whether a pod on a node that says it is not ready has no trouble but that: it was evicted for it, or its containers are ready."""
    evicted, containers, ready = (pod.condition(x) for x in ("DisruptionTarget", "ContainersReady", "Ready"))
    by_taint = evicted is not None and evicted.reason == "DeletionByTaintManager"
    if by_taint:
        return any(taint.key in _SILENT for taint in node.obj.spec.taints)
    gated = ready is not None and ready.reason == "ReadinessGatesNotReady"
    return containers is not None and containers.status == "True" and not gated


def _remade(pod: Pod, node: Node | None) -> Taken | None:
    """A node that was recreated under the name of the one that the pod was placed on: its kubelet refused what it did not know."""
    placed = pod.condition("PodScheduled")
    at = parse_time(placed.last_transition_time if placed else None) or parse_time(pod.status.start_time)
    made = parse_time(node.obj.metadata.creation_timestamp) if node else None
    if node is None or pod.status.reason != "NodeAffinity" or not (at and made and made > at):
        return None
    said = f"{pod.status.reason}: {pod.status.message}"
    quoted = (pod_evidence(pod, "status", said), node_evidence(node, f"metadata.creationTimestamp {made.isoformat()}"))
    return Taken(kind="lost", why="the Node of that name is younger than the pod's place on it", evidence=quoted)
