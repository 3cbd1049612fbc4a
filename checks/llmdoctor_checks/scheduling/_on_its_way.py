"""What a pod waits for and is about to get: room that leaving pods give back, GPUs of a node that has just joined, a new machine."""

from kubectl_llmdoctor.api import Holder, NodeVerdict, Pending, Pod, k8s, requests_of
from llmdoctor_checks.scheduling._admission import plugins_on
from llmdoctor_checks.scheduling._claims import volume_claims
from llmdoctor_checks.scheduling._machines import coming
from llmdoctor_checks.scheduling._obstacles import Cause, obstacle_of

#: What is said while a volume is being made: by the volume controller, which only knows that somebody else is to make it, and by
#: the provisioner itself when it begins. File stores of clouds take minutes; one that says nothing for so long may not be there.
_AT_WORK = "Provisioning"
_PROVISIONING = frozenset({_AT_WORK, "ExternalProvisioning", "WaitForFirstConsumer"})
_PROVISIONING_SECONDS, _SILENT_SECONDS = 360, 60

#: The scheduler's first word on a pod with a template of a claim, and how long the controller may take for it.
_CLAIM_TO_COME = "waiting for resource claim controller to create the resourceclaim"
_CLAIM_SECONDS = 60

#: So long a node takes for its network at most, from when it joined.
_NETWORK_SECONDS = 300

#: Grace periods that are taken for a moment: engines that end their requests first are given minutes.
_ENDING_SECONDS = 600
#: The finalizer of each pod of a Job, which its controller takes away as soon as it has counted the pod.
_OF_JOBS = "batch.kubernetes.io/job-tracking"


def comes_by_itself(pending: Pending, found: Cause) -> str:
    """In words, what will let the pod go where this cause keeps it off; empty where nothing will without anybody's doing."""
    if found.obstacle == "volume":
        return _being_made(pending)
    if found.obstacle == "claim" and any(_CLAIM_TO_COME in count.text for count in found.counts):
        new = pending.seconds is not None and pending.seconds < _CLAIM_SECONDS
        return "its ResourceClaim is being made" if new else ""
    if found.obstacle == "plugin":  # an older node that offers none says that it is not for lack of time
        new = bool(found.verdicts) and all(_coming_up(pending, verdict) for verdict in found.verdicts)
        return f"node {found.verdicts[0].node.name} has only just joined and does not offer its GPUs yet" if new else ""
    if found.obstacle == "node" and found.verdicts and all(_setting_up(pending, one) for one in found.verdicts):
        return f"node {found.verdicts[0].node.name} has only just joined and is not ready yet"
    if machine := coming(pending, found):
        return f"machine {machine}, which will be a node for it, is being made"
    for verdict in found.verdicts:
        if leaving := _making_room(pending, verdict):
            names = ", ".join(holder.ref for holder in leaving)
            return f"{names} on {verdict.node.name} {'is' if len(leaving) == 1 else 'are'} ending and will make room"
    return ""


def _coming_up(pending: Pending, verdict: NodeVerdict) -> bool:
    """Whether a node joined only just, and nothing is known to keep its device plugin from starting."""
    node = verdict.node
    if not node.joining or node.ready is False:
        return False
    return not any(Pod(plugin, pending.pod.cluster).failing for plugin in plugins_on(pending.pod.cluster, node.name))


def _setting_up(pending: Pending, verdict: NodeVerdict) -> bool:
    """Whether a node joined only just, and its network comes up first."""
    node = verdict.node
    age = pending.pod.cluster.seconds_since(node.obj.metadata.creation_timestamp)
    return age is not None and age < _NETWORK_SECONDS and not node.cordoned and node.ready is False


def _being_made(pending: Pending) -> str:
    """What a provisioner is making of the claims that are not bound; empty where it does not say so, has failed, or takes too long."""
    pod, making = pending.pod, []
    for claim in volume_claims(pod):
        if claim.phase == "Bound":
            continue
        said = [e for e in pending.subject.events if e.kind == "PersistentVolumeClaim" and e.name == claim.name]
        reasons = {event.reason for event in said}
        most = _PROVISIONING_SECONDS if _AT_WORK in reasons else _SILENT_SECONDS
        age = pod.cluster.seconds_since(claim.get("metadata.creationTimestamp"))
        if age is None or age >= most or not reasons or not reasons <= _PROVISIONING:
            return ""
        making.append(claim.name)
    return f"a volume is being made for {', '.join(making)}" if making else ""


def _making_room(pending: Pending, verdict: NodeVerdict) -> list[Holder]:
    """The pods that end soon, whose end is all that it needs on a node; empty where somebody else may take the room."""
    short = [reason for reason in verdict.reasons if reason.kind == "resource" and reason.resource]
    if not short or len(short) != len(verdict.reasons) or any(obstacle_of(verdict.node, r) == "plugin" for r in short):
        return []
    leaving = [holder for holder in pending.usage.holders(verdict.node.name) if _ends_soon(holder.pod, pending)]
    for reason in short if leaving else ():
        if reason.free is None:
            return []
        room = reason.free + sum(holder.requests.get(reason.resource, 0) for holder in leaving)
        if room < reason.asked + sum(asked for asked in _rivals(pending, reason.resource) if asked <= room):
            return []
    return leaving


def _ends_soon(pod: k8s.Pod, pending: Pending) -> bool:
    """Whether its grace period ends in minutes and no finalizer may keep it: who waits for hours asks who holds the room."""
    over = pending.pod.cluster.seconds_since(pod.metadata.deletion_timestamp)
    if any(name != _OF_JOBS for name in pod.metadata.finalizers) or over is None or over < -_ENDING_SECONDS:
        return False
    return Pod(pod, pending.pod.cluster).leaving


def _rivals(pending: Pending, resource: str) -> tuple[int, ...]:
    """What other pods without a node ask of it, which may be given it first; nothing where a node was promised to this one."""
    if pending.pod.obj.status.nominated_node_name:
        return ()
    usage = pending.usage
    waiting = pending.pod.cluster.once(
        f"waiting for {resource}",
        lambda: [(pod.metadata, asked) for pod in usage.waiting if (asked := requests_of(pod).get(resource, 0))],
    )
    own = (pending.pod.namespace, pending.pod.name)
    return tuple(asked for other, asked in waiting if (other.namespace, other.name) != own)
