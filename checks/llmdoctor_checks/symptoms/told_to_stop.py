"""The symptom of a server that was told to stop, where nothing shows by whom."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Ending,
    Event,
    Events,
    Finding,
    Fix,
    Line,
    Logs,
    Pod,
    check,
    endings,
    fixes,
    log_evidence,
    log_of,
    pod_evidence,
    probe_kills,
    said,
    served,
    stopped_at,
)
from llmdoctor_checks._sandbox import ended_together, node_came_back

#: 128 and the number of SIGTERM; 0 is what a server ends with that obeys it, and 137 what its grace period ends with.
_BY_SIGTERM, _OBEYED, _KILLED = 143, 0, 137
#: Who may tell a container of a pod to stop that stays: in a pod that goes, whoever deletes it, too.
_INSIDE = "a failed probe, a change in place, a process in the container or a person"
_ANY = "a failed liveness or startup probe, an eviction, a preemption, a drain, a rollout, a scale-down or a person"
#: Lists what the kubelet ended in the last hour, and why.
_KILLINGS = "kubectl get events -A --field-selector reason=Killing --sort-by=.lastTimestamp"


@check("told-to-stop", since="0.1")
def told_to_stop(pod: Pod, logs: Logs | None, events: Events | None) -> Iterator[Finding]:
    """The server was told to stop from outside.

    It got SIGTERM and ended in good order, or by it (exit code 143), or it took longer than its grace period and was killed (137; SGLang
    ends its processes so itself): it did not crash. Who sends it stands in no log of the server: the
    kubelet does, where a liveness or startup probe has failed too often, or where the pod is deleted (by a rollout, a scale-down, an
    autoscaler, a drain, an eviction, a preemption or a person). Kubernetes keeps the events that tell of it for an hour.

    A container that was told to stop and was started again in the same pod was not ended by a deletion. That leaves its probes, a change
    of its image or resources in place, a process beside it in the container, or a person; a restart of the node or of its container
    runtime ends all containers of the pod at once. What is certain of it stands in the kubelet's log of the node.

    ## Fix

    Find who told it to stop, and change that: the options and the log of the server are not at fault.

        kubectl get events -A --field-selector reason=Killing
        journalctl -u kubelet | grep -i 'killing container'      # on the node

    ## References

    - https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination
    - https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#types-of-probe
    """
    if pod.log_only:
        yield from _by_its_log(logs)
        return
    for ending in endings(pod):
        log = log_of(ending, logs)
        line = stopped_at(log) if log is not None else None
        obeyed = ending.code == _OBEYED or (ending.code == _KILLED and not ending.oom_killed)
        by_signal = ending.code == _BY_SIGTERM or (obeyed and line is not None)
        if by_signal and not _known(pod, ending, events):
            yield _by_its_end(pod, ending, line)
            return


def _by_its_log(logs: Logs | None) -> Iterator[Finding]:
    """A log alone that ends with a server that was told to stop; one that had not come up has failed."""
    for log in logs or ():
        line = stopped_at(log)
        if line is None:
            continue
        up = served(log)
        when = "after it had come up" if up else "before it had come up"
        yield Finding(
            role="note" if up else "symptom",
            severity="info" if up else "warning",
            confidence="certain",
            summary=f"The server was told to stop from outside {when} (SIGTERM), and did not crash: {said(line.text).text.strip()[:120]}",
            evidence=(log_evidence(line),),
            fix=fixes.advice(
                f"Find who told it to stop ({_ANY}), in the events of its pod; the log does not say it", _KILLINGS
            ),
            order=line.order,
        )
        return


def _known(pod: Pod, ending: Ending, events: Events | None) -> bool:
    """Whether something else says who told it: an event of a probe, why the pod was taken away, or that it was deleted."""
    if pod.obj.metadata.deletion_timestamp or pod.status.reason or pod.condition("DisruptionTarget", "True"):
        return True
    return events is not None and (
        any(probe_kills(pod, events, ending.container)) or any(map(_tells, events.of("Killing")))
    )


def _tells(event: Event) -> bool:
    """Whether the kubelet's word for the end of a container has a reason with it."""
    return not event.message.startswith("Stopping container")


def _by_its_end(pod: Pod, ending: Ending, line: Line | None) -> Finding:
    container = ending.container
    stays = bool(container.restarts) or container.running is not None
    who = _INSIDE if stays else _ANY
    if since := node_came_back(ending) if stays else "":
        who = f"a restart of {container.pod.spec.node_name}, which became ready again at {since}"
    elif stays and ended_together(container):
        who = "a restart of the node or of its container runtime, as all containers of the pod ended together"
    node = pod.spec.node_name
    kubelet = f"journalctl -u kubelet --since '3 hours ago' | grep -i -e killing -e {pod.name}"
    return Finding(
        role="symptom",
        severity="warning",
        confidence="certain",
        summary=f"{container.name} was told to stop from outside (SIGTERM), and did not crash; nothing here says by whom: it may have been "
        f"{who}.",
        evidence=(pod_evidence(pod, ending.path, ending.text), *((log_evidence(line),) if line else ())),
        fix=_find(pod, kubelet, node, who),
        order=line.order if line else None,
    )


def _find(pod: Pod, kubelet: str, node: str, who: str) -> Fix:
    where = f" and in the kubelet's log of {node}" if node else ""
    return fixes.advice(
        f"Find who told it to stop ({who}), in the events of {pod.name}{where}",
        f"kubectl -n {pod.namespace} get events --field-selector involvedObject.name={pod.name}",
        *((fixes.on_node(node, kubelet),) if node else ()),
        owner="model",
    )
