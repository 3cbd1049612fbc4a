"""A server that listens on the loopback address, where no probe reaches it."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Engine,
    Events,
    Evidence,
    Finding,
    Pod,
    check,
    event_evidence,
    fixes,
    k8s,
    pod_evidence,
    setting_evidence,
)
from llmdoctor_checks.start._probes import failures

_LOOPBACK = ("127.0.0.1", "localhost", "::1")

#: Engines whose host is read from everything that may set it; images of others set it where nobody looks.
_KNOWN = {"vllm": "--host", "sglang": "--host"}


@check("loopback-only", since="0.1")
def loopback_only(pod: Pod, engine: Engine, events: Events | None) -> Iterator[Finding]:
    """The server listens on the loopback address only, where neither probes nor Services reach it.

    The kubelet's probes and a Service's requests come to the pod's address. A server bound to 127.0.0.1 refuses them, though
    its log says that it serves and a request from inside the container succeeds. SGLang binds to 127.0.0.1 unless it is told
    otherwise; vLLM does so with `--host 127.0.0.1` or `--host localhost`.

    ## Fix

    Let it listen on all addresses: `--host 0.0.0.0`. A server that only a proxy in the same pod shall reach needs probes at
    that proxy's port.

    ## References

    - https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/
    - https://docs.sglang.ai/advanced_features/server_arguments.html
    """
    container, host = engine.container, engine.get("host")
    if engine.name not in _KNOWN or host is None or host.value not in _LOOPBACK:
        return
    if host.source == "default" and not engine.found.argv_known:
        return
    probe = next((p for p in _probes(container.spec) if _asks_pod(p)), None)
    failing = any(t.kind in ("not-ready", "crashed") and t.container is container for t in pod.troubles)
    if probe is None or (pod.exists and not failing):
        return
    refused = [e for _, e in failures(container, events) if "connection refused" in e.message]
    if failing and not refused:
        return
    set_here = host.source != "default"
    written: Evidence = setting_evidence(container, host) if set_here else pod_evidence(container, "args", "no --host")
    yield Finding(
        role="cause" if failing else "risk",
        severity=None if failing else "warning",
        confidence="likely",
        summary=f"{engine.title} listens on {host.value} only"
        + ("" if set_here else ", its default")
        + f"; the probes of {container.name} come to the pod's address.",
        evidence=(*(event_evidence(e, pod.cluster) for e in refused[-1:]), written),
        explains=("not-ready", "crash-loop", "probe-too-short", "rollout-stuck") if failing else (),
        fixes=(fixes.set_flag(engine, "host", _KNOWN[engine.name], "0.0.0.0", "Listen on all addresses"),),  # noqa: S104
        pods=(pod.name,) if pod.exists else (),
    )


def _probes(container: k8s.Container) -> Iterator[k8s.Probe]:
    for probe in (container.startup_probe, container.liveness_probe, container.readiness_probe):
        if probe:
            yield probe


def _asks_pod(probe: k8s.Probe) -> bool:
    """Whether a probe comes from outside: neither a command in the container nor to a host of its own."""
    action = probe.http_get or probe.tcp_socket
    return action is not None and getattr(action, "host", "") not in _LOOPBACK
