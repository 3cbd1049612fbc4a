"""A liveness probe that kills a busy server."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Events,
    Evidence,
    Finding,
    Fix,
    Logs,
    Pod,
    check,
    endings,
    event_evidence,
    fixes,
    k8s,
    log_evidence,
    log_of,
    phase_of,
    pod_evidence,
    probe_kills,
    say_seconds,
)
from llmdoctor_checks.start._probes import failures

#: The kubelet's words for a probe that got no answer in time, as opposed to a refused connection or an error.
_SLOW = ("context deadline exceeded", "Client.Timeout exceeded", "command timed out", "i/o timeout", "timed out after")

#: Without a log: who ran so long had come up, and lost its answers later.
_LONG_SECONDS = 1800


@check("probe-timeout-under-load", since="0.1")
def probe_timeout_under_load(pod: Pod, events: Events | None, logs: Logs | None) -> Iterator[Finding]:
    """A liveness probe kills a server that is up and too busy to answer in time.

    The server had started and served. Then its health endpoint did not answer within the probe's `timeoutSeconds` (1 second
    by default), a few times in a row, and the kubelet restarted it: all requests are lost, and the model is loaded again.
    Engines answer `/health` from the process that also tokenizes, parses images and streams tokens, so under load, or with
    too little CPU, a second is soon over. A server that truly hangs looks the same from outside; then its log shows no
    progress before the kill.

    ## Fix

    Give the liveness probe time: it is there for a server that is stuck for good.

        livenessProbe: {httpGet: {path: /health, port: 8000}, periodSeconds: 10, timeoutSeconds: 10, failureThreshold: 6}

    Let the readiness probe take a busy replica out of the Service instead, and give the server CPU.

    ## References

    - https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/
    """
    for ending in endings(pod):
        container = ending.container
        if events is None or ending.oom_killed or ending.code not in (0, 1, 137, 143):
            continue
        kills = [event for kind, event in probe_kills(pod, events, container) if kind == "liveness"]
        slow = [
            event
            for kind, event in failures(container, events)
            if kind == "liveness" and any(words in event.message for words in _SLOW)
        ]
        log = log_of(ending, logs) if logs else None
        phase = phase_of(log)
        up = phase.name == "serving" if phase else (ending.seconds or 0) >= _LONG_SECONDS
        if not (kills and slow and up):
            continue
        probe = container.spec.liveness_probe
        allowed = (
            f"{say_seconds(probe.timeout_seconds)} that its liveness probe allows"
            if probe
            else "its liveness probe's timeout"
        )
        span = f" after {say_seconds(ending.seconds)}" if ending.seconds is not None else ""
        yield Finding(
            role="cause",
            confidence="likely",
            summary=f"The kubelet restarted {container.name}{span}: it was up and did not answer within the {allowed}.",
            evidence=tuple(_evidence(pod, probe, [event_evidence(e, pod.cluster) for e in (slow[-1], kills[-1])]))
            + (pod_evidence(pod, ending.path, ending.text),)
            + ((log_evidence(phase.line),) if phase else ()),
            explains=("crash-loop", "not-ready", "probe-too-short"),
            fixes=tuple(_fixes(pod, container.index, probe)),
            # what the log says went wrong before the kill comes first
            order=float(len(log)) if log else None,
            pods=(pod.name,),
        )
        return


def _evidence(pod: Pod, probe: k8s.Probe | None, quoted: list[Evidence]) -> Iterator[Evidence]:
    yield from quoted
    if probe:
        numbers = f"periodSeconds: {probe.period_seconds}, timeoutSeconds: {probe.timeout_seconds}"
        yield pod_evidence(pod, "livenessProbe", f"{numbers}, failureThreshold: {probe.failure_threshold}")


def _fixes(pod: Pod, index: int, probe: k8s.Probe | None) -> Iterator[Fix]:
    if probe is None:
        return
    at = f"/containers/{index}/livenessProbe"
    seconds, failed = max(10, probe.timeout_seconds), max(6, probe.failure_threshold)
    yield fixes.patch(
        pod,
        f"Let the liveness probe wait {seconds} s for an answer, and give up after {failed} failures",
        [
            {"op": "add", "path": f"{at}/timeoutSeconds", "value": seconds},
            {"op": "add", "path": f"{at}/failureThreshold", "value": failed},
        ],
    )
