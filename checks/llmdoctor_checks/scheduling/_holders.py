"""Pods that hold what another one waits for, and should be gone or are about to go."""

from kubectl_llmdoctor.api import RAY_CLUSTER, Holder, Pending, dig, k8s, table, top_of
from llmdoctor_checks.scheduling._obstacles import Cause

#: How long after the end of its grace period a Terminating pod counts as stuck.
_STUCK_SECONDS = 60


def stuck(pending: Pending, node: str) -> list[Holder]:
    """Pods on a node that are Terminating for longer than their grace period (deletionTimestamp is its end)."""
    since = pending.pod.cluster.seconds_since
    holders = pending.usage.holders(node)
    return [one for one in holders if (since(one.pod.metadata.deletion_timestamp) or 0) > _STUCK_SECONDS]


def outgoing(pending: Pending, node: str) -> list[Holder]:
    """Pods of the same Deployment's former revision on a node, where the update first adds and then removes."""
    if clusters := second_cluster(pending):
        return [
            holder
            for holder in pending.usage.holders(node)
            if holder.pod.metadata.namespace == pending.pod.namespace and _ray_cluster(holder.pod) == clusters[0]
        ]
    if not surges(pending):
        return []
    revision, former = _revision(pending.pod.obj), []
    for holder in pending.usage.holders(node):
        meta = holder.pod.metadata
        item = pending.pod.cluster.item("Pod", meta.namespace, meta.name)
        workload = top_of(item, pending.pod.cluster)
        mine = pending.subject.workload
        if mine and workload and workload.item is mine.item and _revision(holder.pod) != revision:
            former.append(holder)
    return former


def replaced(pending: Pending, found: Cause) -> tuple[str, ...]:
    """The pods of the former revision among those that keep this one off its nodes by what is no amount: a port, a claim, a place."""
    stand = {ref for reason in found.reasons for ref in reason.pods}
    former = (old.ref for verdict in found.verdicts for old in outgoing(pending, verdict.node.name))
    return tuple(dict.fromkeys(ref for ref in former if ref in stand))


def second_cluster(pending: Pending) -> tuple[str, str] | None:
    """The RayCluster that serves and the one that is to take its place, for a pod of the latter.

    A RayService's update makes a whole cluster beside the first, and takes that away when the second serves
    (ray-operator/controllers/ray/rayservice_controller.go).
    """
    workload = pending.subject.workload
    if workload is None or workload.kind != "RayService":
        return None
    old, new = (dig(workload.raw, f"status.{which}ServiceStatus.rayClusterName") for which in ("active", "pending"))
    both = isinstance(old, str) and isinstance(new, str) and old and new and old != new
    return (str(old), str(new)) if both and _ray_cluster(pending.pod.obj) == new else None


def _ray_cluster(pod: k8s.Pod) -> str:
    return str(pod.metadata.labels.get(RAY_CLUSTER, ""))


def surges(pending: Pending) -> bool:
    """Whether the pod is one that a rolling update adds before it removes an old one."""
    workload = pending.subject.workload
    if workload is None or workload.kind not in ("Deployment", "Rollout"):
        return False
    strategy = table(dig(workload.raw, "spec.strategy"))
    # Argo's Rollout has no type: a canary has the same two numbers, and blue-green always makes a second set
    update = strategy.get("canary" if workload.kind == "Rollout" else "rollingUpdate")
    surge = table(update).get("maxSurge")
    return strategy.get("type", "RollingUpdate") == "RollingUpdate" and str(surge) not in ("0", "0%")


def _revision(pod: k8s.Pod) -> str:
    """The ReplicaSet of a pod, which each revision has for itself; a snapshot that somebody cut down may lack either."""
    owner = next((owner.name for owner in pod.metadata.owner_references if owner.controller), "")
    return str(pod.metadata.labels.get("pod-template-hash", owner))
