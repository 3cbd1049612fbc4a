"""The symptom of a container that ends again and again."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Container, Finding, Logs, Pod, check, count_of, parse_time, pod_evidence, say_seconds

from ._signals import meaning

#: As much of the kubelet's message as a report quotes; what counts stands at its end.
_QUOTED = 400
#: What SGLang prints before it kills its processes, with itself: of later releases each time, of others where its first requests failed
#: (srt/utils, `kill_process_tree`; srt/entrypoints/http_server.py). So many lines at most stand below it.
_ENDS_ITSELF, _BELOW = ("kill_process_tree called: parent_pid=", "Initialization failed. warmup error: "), 80
_KILLED = 137

#: For what a pod is ended as a whole (kubelet `eviction`, `nodeshutdown`, `preemption`, `active_deadline`; node-lifecycle-controller).
_ENDED_WHOLE = ("Evicted", "Preempting", "Terminated", "NodeShutdown", "Shutdown", "NodeLost", "DeadlineExceeded")


@check("crash-loop", since="0.1", literals=_ENDS_ITSELF)
def crash_loop(pod: Pod, logs: Logs | None) -> Iterator[Finding]:
    """A container keeps ending.

    A container of the pod ended with an error, and the kubelet restarts it with growing pauses (10 s, doubling to 5
    min) or has given up. This is what is seen, not why: the cause stands in the log of the instance that ended
    (`kubectl logs --previous`), in its exit code, or in what killed it.

    ## Fix

    Fix the cause that is named above it. Where none is named, read the whole log of the instance that ended, from its
    beginning: the last lines are often only the consequence.

    ## References

    - https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#container-states
    """
    for trouble in pod.troubles:
        container = trouble.container
        if trouble.kind != "crashed" or container is None:
            continue
        if _taken_away(pod) and not container.restarts:
            continue  # with the pod, for what ended that
        ended = container.terminated
        summary = f"Container {container.name} ended"
        evidence = []
        if ended:
            summary += f" with exit code {ended.exit_code}"
            said = ended.reason if ended.reason and ended.reason != "Error" else meaning(ended.exit_code)
            if said and ended.exit_code == _KILLED and ended.reason == "Error" and _ended_itself(container, logs):
                said = "SIGKILL: by SGLang itself, of an error"
            summary += f" ({said})" if said else ""
            start, end = parse_time(ended.started_at), parse_time(ended.finished_at)
            if start and end and end >= start:
                summary += f" after {say_seconds((end - start).total_seconds())}"
            state = "state" if container.status.state.terminated else "lastState"
            evidence.append(
                pod_evidence(
                    pod,
                    f"status.containerStatuses[{container.name}].{state}.terminated",
                    f"exitCode: {ended.exit_code}, reason: {ended.reason or 'none given'}",
                )
            )
            if ended.message.strip():
                # the container runtime's own words, or the end of the log
                path = f"status.containerStatuses[{container.name}].{state}.terminated.message"
                evidence.append(pod_evidence(pod, path, _last_words(ended.message)))
        if container.waiting:
            waiting = container.waiting
            evidence.append(
                pod_evidence(
                    pod, f"status.containerStatuses[{container.name}].state.waiting", f"reason: {waiting.reason}"
                )
            )
        if container.restarts:
            summary += f", {count_of(container.restarts, 'restart')}"
        yield Finding(role="symptom", confidence="certain", summary=f"{summary}.", evidence=tuple(evidence))


def _ended_itself(container: Container, logs: Logs | None) -> bool:
    """Whether SGLang says at the end of the log of the instance that ended that it kills its processes."""
    whose = not container.status.state.terminated
    for log in logs.of(container.name, previous=whose) if logs is not None else ():
        last = log.last(*_ENDS_ITSELF)
        if last is not None and len(log) - last.number <= _BELOW and "include_parent=False" not in last.text:
            return True
    return False


def _taken_away(pod: Pod) -> bool:
    """Whether the kubelet or a controller ended the pod as a whole, and says for what."""
    return pod.obj.status.phase == "Failed" and pod.obj.status.reason in _ENDED_WHOLE


def _last_words(message: str) -> str:
    """The last lines of a termination message."""
    text = " ".join(line.strip() for line in message.strip().splitlines()[-3:])
    return text if len(text) <= _QUOTED else f"… {text[-_QUOTED:]}"
