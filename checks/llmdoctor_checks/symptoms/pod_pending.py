"""The symptom of a pod without a node."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Finding,
    Fix,
    Pending,
    Pod,
    check,
    condition_evidence,
    expression,
    fixes,
    k8s,
    pod_evidence,
    say_seconds,
)
from llmdoctor_checks.scheduling._separation import awaited

#: The scheduler that every cluster has.
_USUAL = ("", "default-scheduler")
#: How schedulers are told their own name.
_NAMED = expression(r"--scheduler-name[= ]([\w.-]{1,253})")


@check("pod-pending", since="0.1")
def pod_pending(pending: Pending) -> Iterator[Finding]:
    """The pod waits for a node.

    No node was chosen for the pod, so nothing of it runs. The scheduler's message counts reasons over all nodes; the
    one that matters is what separates the pod from the nodes that were meant for it. A pod that is seconds old, and of which
    no scheduler has said anything yet, is on its way; so is one for which pods that are being deleted make room, or whose node has
    joined and is not ready, or does not offer its GPUs, yet.

    ## Fix

    Fix the cause that is named above it. `kubectl describe pod` shows the scheduler's own message.

    ## References

    - https://kubernetes.io/docs/concepts/scheduling-eviction/kube-scheduler/
    """
    pod = pending.pod
    trouble = next((t for t in pod.troubles if t.kind == "pending"), None)
    seconds = (pod.cluster.seconds_since(trouble.since) if trouble else None) or 0
    waits = f"has been waiting for a node for {say_seconds(seconds)}" if seconds > 0 else "waits for a node"
    condition = pod.condition("PodScheduled")
    if condition and condition.message:
        evidence = condition_evidence(pod, condition)
    else:
        evidence = pod_evidence(pod, "status.phase", pod.status.phase or "Pending")
    coming = awaited(pending)
    deaf = (
        not coming
        and not pod.just_made
        and not pending.gates
        and pod.condition("PodScheduled") is None
        and not pod.events
        and pod.spec.scheduler_name not in _USUAL
    )
    unheard = f"; its scheduler {pod.spec.scheduler_name} has set no condition on it" if deaf else ""
    yield Finding(
        role="note" if pod.just_made or coming else "symptom",
        confidence="certain",
        summary=f"{pod.name} {waits}{f': {coming}' if coming else unheard}.",
        evidence=(evidence,),
        fixes=tuple(_of_another(pod)) if deaf else (),
    )


def _of_another(pod: Pod) -> Iterator[Fix]:
    """What to do about a pod that the scheduler which it names does not look at, as where none is called so."""
    name = pod.spec.scheduler_name
    there = sorted(
        {
            found[1]
            for other in pod.cluster.all(k8s.Pod, "Pod")
            for container in other.spec.containers
            if (found := _NAMED.search(" ".join(map(str, (*container.command, *container.args)))))
        }
    )
    if name in there:
        text = f"See in the log of the scheduler {name} why it passes over the pod (its queue, its node pool)"
        yield fixes.platform(text, "kubectl get pods -A -o wide | grep -i scheduler")
        return
    look = f"See that a scheduler of the name {name} runs"
    if len(there) == 1:
        text = f"{look}; where none does, name {there[0]}, which does, with the labels that it wants"
        yield fixes.set_spec(pod, "/schedulerName", there[0], text)
        return
    usual = f"name one that does ({', '.join(there)})" if there else "leave schedulerName out for the usual one"
    yield fixes.advice(f"{look}; else {usual} in {fixes.edited(pod)}", "kubectl get pods -A | grep -i scheduler")
