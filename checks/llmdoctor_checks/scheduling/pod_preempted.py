"""Pods that had to make room."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Events, Finding, Node, Pod, Subject, check, fixes
from llmdoctor_checks.scheduling._disruption import CONSEQUENCES, taken


@check("pod-preempted", since="0.1")
def pod_preempted(pod: Pod, subject: Subject, events: Events | None, node: Node | None) -> Iterator[Finding]:
    """The pod had to make room for one of higher priority.

    The scheduler deletes running pods of lower priority when a pod of higher priority fits nowhere else; the kubelet does
    so for critical system pods. The victim gets its termination grace period and is then gone. In a group of pods (a
    LeaderWorkerSet, a Ray cluster) the loss of one ends the whole replica, and the others report only a broken connection.

    ## Fix

    Give the server a PriorityClass above that of batch jobs, or one with `preemptionPolicy: Never` to those. Quotas (Kueue,
    ResourceQuota by priority) keep both within their share.

    ## References

    - https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/
    """
    found = taken(pod, subject, events, node)
    if found is None or found.kind != "preempted":
        return
    priority = pod.spec.priority_class_name or "none"
    yield Finding(
        role="cause",
        confidence="certain",
        summary=f"{pod.name} was removed from {pod.spec.node_name or 'its node'} to make room for another pod: {found.why}",
        evidence=found.evidence,
        explains=CONSEQUENCES,
        fixes=(
            fixes.advice(
                f"Give it a PriorityClass above that of the pods that may wait (priorityClassName in {fixes.edited(pod)}, now {priority})",
                "kubectl get priorityclasses",
            ),
        ),
        pods=(pod.name,),
    )
