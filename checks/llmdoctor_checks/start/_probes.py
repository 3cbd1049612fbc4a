"""What the kubelet says of a container's probes."""

from collections.abc import Iterator
from typing import Any, Literal

from kubectl_llmdoctor.api import Container, Ending, Event, Events, ending_of, k8s, probe_kills

KINDS = ("startup", "liveness", "readiness")

#: The variable in which a sidecar that answers the kubelet's probes is told the server's own.
SIDECAR_PROBE = "SERVING_READINESS_PROBE"

#: Below this path a mesh's sidecar (Istio's pilot-agent) takes the probes of the other containers, and asks them itself.
BY_THE_MESH = "/app-health/"

#: Exit codes of a server that was told to end: it obeyed, or SIGINT, SIGTERM or SIGKILL ended it. A program in Python that makes
#: a KeyboardInterrupt of SIGTERM ends with the first of them.
_TOLD_TO_END = frozenset({0, 130, 137, 143})

#: An instance that its probe ends may live so much longer than the probe's budget, and as long again as it takes to end.
_LONGER, _TO_END = 1.5, 60


def came_up(container: Container) -> bool:
    """Whether what the liveness probe asks was answered once in any instance that it restarted: a startup probe asks the same.

    The kubelet begins with the liveness probe only when the startup probe has succeeded.
    """
    startup, liveness = container.spec.startup_probe, container.spec.liveness_probe
    return startup is not None and liveness is not None and _question(startup) == _question(liveness)


def _question(probe: k8s.Probe) -> tuple[object, ...]:
    return probe.http_get, probe.tcp_socket, probe.exec, probe.grpc


def asking_the_same(probe: k8s.Probe) -> dict[str, Any]:
    """What a probe asks, and how long it waits for the answer, for another one; empty where that cannot be said."""
    if http := probe.http_get:
        asked: dict[str, Any] = {"path": http.path, "port": http.port}
        asked |= {"scheme": http.scheme} if http.scheme != "HTTP" else {}
        asked |= {"host": http.host} if http.host else {}
        asked |= {"httpHeaders": list(http.http_headers)} if http.http_headers else {}
        action = {"httpGet": asked}
    elif probe.tcp_socket:
        action = {"tcpSocket": {"port": probe.tcp_socket.port}}
    elif probe.exec:
        action = {"exec": {"command": list(probe.exec.command)}}
    else:
        return {}
    return action | ({"timeoutSeconds": probe.timeout_seconds} if probe.timeout_seconds > 1 else {})


def failures(
    container: Container, events: Events | None, verb: Literal["failed", "errored"] = "failed"
) -> Iterator[tuple[str, Event]]:
    """Failed probes of a container, oldest first: `startup`, `liveness` or `readiness`, and the event.

    A probe that `errored` could not be run at all: to the kubelet that is neither success nor failure.
    """
    pod = container.pod
    several = sum(c.role != "init" for c in pod.containers) > 1
    for event in events.of("Unhealthy", kind="Pod") if events else []:
        kind = event.message.partition(f" probe {verb}")[0].lower()
        if event.name != pod.name or kind not in KINDS:
            continue
        if f"{{{container.name}}}" in event.field_path or not (several or event.field_path):
            yield kind, event


def ended_by_itself(container: Container, events: Events | None) -> bool:
    """Whether the server ended by an error of its own, not by a probe that had it killed.

    Of a probe that failed alone this does not follow: nothing answers while the model loads.
    """
    last = ending_of(container)
    spec = container.spec
    watched = spec.liveness_probe is not None or spec.startup_probe is not None
    killed = events is not None and any(probe_kills(container.pod, events, container))
    return last is not None and not killed and not (watched and last.code in _TOLD_TO_END)


def answered_once(ended: Ending | None, probe: k8s.Probe) -> bool:
    """Whether an instance lived longer than one whose probe is never answered: something listened where it asks."""
    return ended is not None and (ended.seconds or 0) > _LONGER * probe.budget + _TO_END
