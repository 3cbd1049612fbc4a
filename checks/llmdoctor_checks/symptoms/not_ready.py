"""The symptom of a pod that has a node and does not serve."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Events, Finding, Pod, check, event_evidence, pod_evidence, say_seconds

#: A start shorter than this is taken for loading, not for a fault: weights of large models take minutes.
_LOADING_SECONDS = 630


@check("not-ready", since="0.1")
def not_ready(pod: Pod, events: Events | None) -> Iterator[Finding]:
    """The pod has a node but does not serve.

    A container waits (for its image, its configuration, its volumes) or runs without becoming ready, so Services send
    it no requests.

    ## Fix

    Mend the cause that is named above it. A model that is still loading needs time: see `probe-too-short` and
    `slow-load`.

    ## References

    - https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#container-probes
    """
    probes = [e for e in (events.of("Unhealthy") if events else []) if e.name == pod.name]
    crashed = any(t.kind == "crashed" for t in pod.troubles)
    for trouble in pod.troubles:
        container = trouble.container
        if trouble.kind not in ("waiting", "creating", "not-ready") or container is None:
            continue
        now = pod.cluster.now
        seconds = (now - trouble.since).total_seconds() if now and trouble.since else None
        loading = trouble.kind == "not-ready" and seconds is not None and seconds < _LOADING_SECONDS
        evidence = [event_evidence(e, pod.cluster) for e in probes[-1:]] if trouble.kind == "not-ready" else []
        if container.waiting and container.waiting.reason:
            waiting = container.waiting
            text = f"{waiting.reason}: {waiting.message}" if waiting.message else waiting.reason
            path = f"status.containerStatuses[{container.name}].state.waiting"
            evidence.append(pod_evidence(pod, path, text))
        if trouble.kind == "not-ready":
            evidence.append(pod_evidence(pod, f"status.containerStatuses[{container.name}].ready", "false"))
        span = f" for {say_seconds(seconds)}" if seconds is not None and trouble.kind == "not-ready" else ""
        summary = f"Container {container.name}: {trouble.text}{span}."
        if loading and not container.restarts and not crashed:
            summary = f"Container {container.name} started {say_seconds(seconds or 0)} ago and is not ready yet."
            yield Finding(role="note", confidence="certain", summary=summary, evidence=tuple(evidence))
        else:
            yield Finding(
                role="symptom", confidence="certain", summary=summary, evidence=tuple(evidence), pods=(pod.name,)
            )
