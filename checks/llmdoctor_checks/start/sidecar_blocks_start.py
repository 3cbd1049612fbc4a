"""Containers that start in an order which keeps one of them from what it needs."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Container,
    Events,
    Finding,
    Fix,
    Logs,
    Pod,
    Subject,
    check,
    endings,
    event_evidence,
    expression,
    fixes,
    log_evidence,
    log_of,
    pod_evidence,
)
from llmdoctor_checks.start import _mesh
from llmdoctor_checks.start._init_containers import NOT_STARTED, VAULT, never_ends, servers_in_the_way, waits_for_later
from llmdoctor_checks.start._mesh_of_mpi import BEGUN, between_mpi_ranks
from llmdoctor_checks.start._probes import SIDECAR_PROBE, asking_the_same

#: What programs print that get no answer of another container of the pod, at localhost: Go, requests and curl, and aiohttp.
_AT_HOME = ("onnection refused", "Connect call failed", "Failed to connect to localhost")
_PORT = expression(r"(?:\[::1\]|\b127\.0\.0\.1|\blocalhost)(?:'?, (?:port=)?| port |:)(\d{2,5})\b")
#: What Knative's queue-proxy and KServe's agent print of a probe that is a command, which only the kubelet runs in another container.
_NO_COMMAND = "exec probe not supported"
#: What KServe's agent ends with where nobody told it of one (from 0.15 on its webhook leaves out what the agent cannot ask).
_NO_PROBE = f"required key {SIDECAR_PROBE} missing value"
#: Whom the command of a probe asks, by HTTP, of its own container.
_ASKED = expression(r"(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\]):(\d{2,5})(/[\w./-]{0,200})")
_COMMAND = expression(r'(?:^\{|,)\s{0,20}"exec"\s{0,20}:\s{0,20}\{')
#: What a container says last is why it ended; what it met with before, it got over.
_LAST_LINES = 12


@check(
    "sidecar-blocks-start",
    since="0.1",
    literals=(*_AT_HOME, _NO_COMMAND, _NO_PROBE, *VAULT, *_mesh.LITERALS, *_mesh.PROTOCOLS, BEGUN),
)
def sidecar_blocks_start(pod: Pod, subject: Subject, events: Events | None, logs: Logs | None) -> Iterator[Finding]:
    """A sidecar is not ready, or keeps the network from what starts before it.

    In a service mesh all connections of a pod are redirected to its proxy (Istio, Linkerd). Until the proxy runs and has its
    configuration, every connection is refused, and while it is not ready the pod is not. Init containers run before the
    proxy, so that one which downloads the model never reaches its store; a server that asks the hub in its first seconds
    fails when the proxy is late, and forever when the proxy cannot reach its control plane.

    The mesh's own init container sets that redirection up (`istio-init`, `linkerd-init`), or checks what its CNI plugin has set
    up (`istio-validation`, `linkerd-network-validator`): where the plugin does not run on the node, or excludes the namespace, it
    fails, and nothing after it starts.

    A proxy that stands among the init containers as a plain one, without `restartPolicy: Always` (or on a cluster that does
    not know it, before Kubernetes 1.29), never ends, and nothing after it starts; in a manifest that is a risk. An agent that
    an injector puts there, such as Vault's, does not end either while it is not allowed to log in or read what it should, or gets no
    answer, and neither does a helper whose command ends with `sleep infinity` or a loop that nothing leaves.

    A native sidecar is waited for by its startup probe alone: without one the next container is started as soon as the
    sidecar runs. A container that ends because another of the pod, which it asks at localhost, is not up yet is started
    again until it is. An init container that waits for the pod's own server waits forever, and one that runs `ollama pull`
    finds no Ollama to ask unless it starts one; in a manifest that is a risk.

    KServe's agent, which stands before the server for its logger or batcher, asks the server in the kubelet's place, by the readiness
    probe of the server. It cannot run a command in another container: with an `exec` probe it never becomes ready, or, from
    KServe 0.15 on, which tells it of no such probe, ends at once.

    Where the mesh demands mTLS, Istio's proxy cuts off the kubelet's own probes, too. The injector turns those of the containers that it
    sees to its agent; a container that another webhook adds later is never ready, and killed again and again if it has a liveness probe.

    A server of several pods (Ray, LeaderWorkerSet) connects its ranks over ports that it picks itself. A proxy between them
    knows none of these: the start may stand still there forever, and no line says why. So it is where mpirun starts the ranks; their
    pods are ready, and what they print stands in the launcher's log.

    Istio's proxy takes what comes to a port for HTTP where the port's name begins with http, http2 or grpc. The stream from a gateway to an
    endpoint picker is none that it can read: each connection is rejected, and the gateway answers 500.

    ## Fix

    Make the proxy a native sidecar, which starts before other init containers (Istio: `ENABLE_NATIVE_SIDECARS`, the default
    from 1.27 on), or let the init container bypass it (`runAsUser: 1337`, or
    `traffic.sidecar.istio.io/excludeOutboundPorts`). For the server, set `holdApplicationUntilProxyStarts: true`. Where
    the mesh brings nothing, `sidecar.istio.io/inject: "false"` on the pod.

    ## References

    - https://istio.io/latest/docs/setup/additional-setup/cni/#compatibility-with-application-init-containers
    - https://istio.io/latest/docs/ops/common-problems/injection/
    """
    if not pod.exists and not pod.log_only:
        yield from servers_in_the_way(pod)
        yield from waits_for_later(pod)
    if pod.ready and pod.exists and not subject.engines(pod):
        yield from between_mpi_ranks(pod)
        yield from _mesh.taken_for_http(pod, logs)
    if not pod.failing:
        return
    yield from never_ends(pod, logs)
    yield from _not_started(pod, events, logs)
    yield from _not_up(pod, logs)
    yield from _given_a_command(pod, logs)
    yield from _mesh.held_up_by_proxy(pod, subject, events, logs)


def _not_started(pod: Pod, events: Events | None, logs: Logs | None) -> Iterator[Finding]:
    """A native sidecar whose startup probe does not succeed: no container after it is started before."""
    if any(c.role == "main" and (c.running or c.terminated or c.restarts) for c in pod.containers):
        return
    for container in pod.containers:
        running, probe = container.status.state.running, container.spec.startup_probe
        if container.role != "sidecar" or running is None or probe is None or container.status.started is not False:
            continue
        failed = [
            e
            for e in (events.of("Unhealthy", kind="Pod") if events else ())
            if e.name == pod.name and e.message.startswith("Startup probe failed")
        ]
        if not failed:
            continue
        last = pod.containers[-1].name
        told = _mesh.complaint(container, logs)
        yield Finding(
            summary=f"The startup probe of the sidecar {container.name} does not succeed, and {last} is started only after it.",
            evidence=(
                event_evidence(failed[-1], pod.cluster),
                pod_evidence(pod, f"status.initContainerStatuses[{container.name}].started", "false"),
                *told,
            ),
            explains=NOT_STARTED,
            fixes=tuple(_mesh.started_first(pod, container, cut_off=bool(told)))
            if container.name in _mesh.PROXIES
            else (
                fixes.advice(
                    f"See in its log what {container.name} waits for",
                    f"kubectl -n {pod.namespace} logs {pod.name} -c {container.name}",
                ),
            ),
        )
        return


def _not_up(pod: Pod, logs: Logs | None) -> Iterator[Finding]:
    """A container that ended because another one, which it asks at localhost, does not answer yet."""
    ended = list(endings(pod))
    for ending in ended:
        container, log = ending.container, log_of(ending, logs)
        lines = [*log.find(*_AT_HOME)] if log and container.role == "main" else []
        for line in lines:
            found = _PORT.search(line.text[:2000]) if log and line.number > len(log) - _LAST_LINES else None
            other = _listener(pod, container, int(found[1])) if found else None
            if found is None or other is None or other.status.ready or any(e.container is other for e in ended):
                continue
            kind = "containerStatuses" if other.role == "main" else "initContainerStatuses"
            yield Finding(
                summary=f"{container.name} ended because {other.name}, which it asks at localhost:{found[1]}, was not up.",
                evidence=(log_evidence(line), pod_evidence(pod, f"status.{kind}[{other.name}].ready", "false")),
                explains=NOT_STARTED,
                fix=_waited_for(container, other),
                order=line.order,
            )
            return


def _given_a_command(pod: Pod, logs: Logs | None) -> Iterator[Finding]:
    """A sidecar that is to ask the server by a probe which is a command, and cannot run it, or that was given no probe in its place."""
    for trouble in pod.troubles:
        sidecar = trouble.container
        if sidecar is None or trouble.kind not in ("not-ready", "crashed"):
            continue
        told = sidecar.env.get(SIDECAR_PROBE)
        words = _NO_PROBE if told is None else _NO_COMMAND
        said = next((line for log in sidecar.own_logs(logs) for line in log.find(words)), None)
        by_command = told is not None and _COMMAND.search(str(told.value)[:2000]) is not None
        if ((told is None or trouble.kind == "crashed") and said is None) or not (by_command or told is None):
            continue
        lacks = "to find out by a command whether the server is ready, which it cannot run in another container"
        if told is None:
            lacks = "told of no probe by which it could ask the server: KServe hands on none that is a command or gRPC"
        yield Finding(
            confidence="certain" if said else "likely",
            summary=f"{sidecar.name} is {lacks}: it never becomes ready.",
            evidence=(
                *((log_evidence(said),) if said else ()),
                *((pod_evidence(sidecar, f"env[{SIDECAR_PROBE}]", str(told.value)[:200]),) if told else ()),
            ),
            explains=(*NOT_STARTED, "engine-args-invalid", "progress-deadline"),
            fix=fixes.advice(
                f"Make the server's readinessProbe httpGet or tcpSocket instead of exec, in {fixes.edited(pod)}: {sidecar.name} "
                f"can ask that{_asked_before(pod)}"
            ),
        )
        return


def _asked_before(pod: Pod) -> str:
    """The path and port that the command of a server's probe asks itself."""
    for container in pod.containers:
        probe = container.spec.readiness_probe
        found = _ASKED.search(probe.script[:2000]) if probe else None
        if found is not None:
            return f" (httpGet: path {found[2]}, port {found[1]}, which the command of {container.name} asks)"
    return ""


def _listener(pod: Pod, asks: Container, port: int) -> Container | None:
    """The other container that says that it listens on a port, and runs until the pod ends."""
    for container in pod.containers:
        words = " ".join(container.spec.argv)
        says = port in container.declared_ports or re.search(rf"port[= ]{port}\b", words)
        if container is not asks and container.role != "init" and container.running and says:
            return container
    return None


def _waited_for(container: Container, other: Container) -> Fix:
    """What makes a container start only when another one answers."""
    probe = other.spec.readiness_probe or other.spec.liveness_probe
    if other.role != "sidecar" or other.spec.startup_probe or probe is None or probe.http_get is None:
        return fixes.advice(
            f"Have {container.name} wait until {other.name} answers, or make {other.name} a native sidecar (an init container with "
            f"restartPolicy: Always) with a startup probe, in {fixes.edited(container.pod)}"
        )
    startup = {**asking_the_same(probe), "periodSeconds": 2, "failureThreshold": 150}
    return fixes.set_probe(
        other, "startupProbe", startup, f"Have {container.name} start only when {other.name} answers"
    )
