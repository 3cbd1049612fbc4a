"""The symptom of a pod without a node."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Finding, Pending, check, pod_evidence, say_seconds
from llmdoctor_checks.scheduling._separation import awaited


@check("pod-pending", since="0.1")
def pod_pending(pending: Pending) -> Iterator[Finding]:
    """The pod waits for a node.

    No node was chosen for the pod, so nothing of it runs. The scheduler's message counts reasons over all nodes; the
    one that matters is what separates the pod from the nodes that were meant for it. A pod that is seconds old, and of which
    no scheduler has said anything yet, is on its way; so is one for which pods that are being deleted make room, or whose node has
    joined and is not ready, or does not offer its GPUs, yet.

    ## Fix

    Mend the cause that is named above it. `kubectl describe pod` shows the scheduler's own message.

    ## References

    - https://kubernetes.io/docs/concepts/scheduling-eviction/kube-scheduler/
    """
    pod = pending.pod
    trouble = next((t for t in pod.troubles if t.kind == "pending"), None)
    now, since = pod.cluster.now, trouble.since if trouble else None
    length = f" for {say_seconds((now - since).total_seconds())}" if now and since and now > since else ""
    condition = pod.condition("PodScheduled")
    if condition and condition.message:
        evidence = pod_evidence(pod, "status.conditions[PodScheduled]", f"{condition.reason}: {condition.message}")
    else:
        evidence = pod_evidence(pod, "status.phase", pod.status.phase or "Pending")
    coming = awaited(pending)
    yield Finding(
        role="note" if pod.just_made or coming else "symptom",
        confidence="certain",
        summary=f"{pod.name} waits for a node{length}{f': {coming}' if coming else ''}.",
        evidence=(evidence,),
    )
