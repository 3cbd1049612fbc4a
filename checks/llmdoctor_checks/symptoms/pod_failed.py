"""The symptom of a pod that the kubelet gave up."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Finding, Pod, check, pod_evidence


@check("pod-failed", since="0.1")
def pod_failed(pod: Pod) -> Iterator[Finding]:
    """The pod as a whole has failed.

    Its phase is Failed: it was evicted, refused by the kubelet at admission, ran out of its deadline, or ended
    without a restart. A failed pod is never started again; its owner makes a new one. A server whose engine died may end with
    status 0: its pod counts as Succeeded where its restartPolicy is not Always.

    ## Fix

    Fix the cause that is named above it, then delete the failed pod: `kubectl delete pod NAME`.

    ## References

    - https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-phase
    """
    for trouble in pod.troubles:
        if trouble.kind == "failed":
            yield Finding(
                role="symptom",
                confidence="certain",
                summary=f"{pod.name} has failed: {pod.status.reason or _unnamed(pod)}.",
                evidence=(pod_evidence(pod, "status", trouble.text),),
            )


def _unnamed(pod: Pod) -> str:
    """Why it failed, where its status names no reason: who ends a pod before it runs need not give one."""
    if pod.status.phase == "Succeeded":
        return "the engine of a server died, and the server ended with status 0, so that nothing starts it again"
    ended = any(container.terminated for container in pod.containers)
    return "a container ended with an error" if ended else "its status names no reason, and no container that ended"
