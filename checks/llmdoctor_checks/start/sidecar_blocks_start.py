"""A service mesh's proxy that is not up while others in the pod need the network."""

import itertools
import re
from collections.abc import Iterator
from datetime import datetime

from kubectl_llmdoctor.api import (
    Container,
    Ending,
    Events,
    Evidence,
    Finding,
    Fix,
    Line,
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
    parse_time,
    phase_of,
    pod_evidence,
    say_seconds,
)
from llmdoctor_checks._standstill import STUCK_SECONDS, ends_with

#: Proxies that all traffic of the pod is sent through, and the init containers that redirect it there.
_PROXIES = frozenset({"istio-proxy", "linkerd-proxy"})
_REDIRECTS = frozenset({"istio-init", "istio-validation", "linkerd-init", "linkerd-network-validator"})

#: Servers that are meant to run beside others, by name: as a plain init container they never let the next one start.
_SERVERS = (
    r"(?:istio|linkerd|queue|routing|cloud-?sql|auth|oauth2?|envoy|kube-rbac)-proxy|(?:llm-d-)?routing-sidecar"
    r"|lora-adapter-syncer|vllm-render|gke-gcsfuse-sidecar"
)
#: A shell loop that waits until something on the network answers.
_WAITS = expression(r"\b(?:until|while)\b.*\b(?:wget|curl|nc|ncat|nslookup|getent|dig|grpcurl)\b|/dev/tcp/", re.DOTALL)

#: A script that asks something over HTTP or TCP, and one that starts a server of its own first.
_ASKS = expression(r"\b(?:curl|wget|nc|ncat|requests\.get|urlopen)\b")
_STARTS = expression(r"\b(?:serve|server|launch_server|api_server|llama-server)\b|[^&>]&[ \t]*(?:$|\n)")
#: Ollama's client, which asks the server at OLLAMA_HOST, by default the port of the pod itself.
_OLLAMA = expression(r"\bollama[\"',\s]{1,8}(?:pull|run|create|list)\b")
_OLLAMA_PORT = 11434
_OWN_HOST = r"(?:https?://)?(?:0\.0\.0\.0|127\.0\.0\.1|localhost|::|\[::\])?(?::\d+)?/?$"
#: A line that only says something, and one that goes on without an answer.
_WORDS = expression(r"[ \t]*(?:#|(?:echo|printf)\b[^|;&]*$)")
_ANYHOW = expression(r"\|\|[ \t]*(?:true\b|:|echo\b|exit 0\b)")
#: A port of the pod itself.
_AT_OWN = expression(r"(?:\[::1\]|\b127\.0\.0\.1|\blocalhost)[: ](\d{2,5})\b")

#: Init containers that fetch the model, by name or image, and how their logs show that something came.
_FETCHES = r"(?:storage|model)-initializer|rclone|download|fetch|model-?(?:loader|puller)"
_CAME = (
    r"(?<![\d.])(?:[1-9]\d?|100)(?:\.\d{1,6})?%|\bDownloaded\b"
    r"|(?<![\d.])(?:[1-9]\d{0,12}(?:\.\d{1,6})?|0\.\d{0,6}[1-9]) ?[KMGT]i?B?\b"
)

#: Sidecars that mount a bucket: the pod's containers can only be made when they have reached it.
_MOUNTERS = frozenset({"gke-gcsfuse-sidecar"})

#: What Vault's injected agent says that cannot log in, so that its init container never ends.
_VAULT = "agent.auth.handler: error authenticating"

#: The user of Istio's proxy, whose traffic is not redirected.
_PROXY_USER = 1337

#: What programs print when a connection is refused or gets no answer, as the redirection without a proxy brings about.
_NETWORK = (
    "onnection refused",
    "Could not connect to the endpoint URL",
    "Failed to establish a new connection",
    "Network is unreachable",
    "i/o timeout",
    "Connection timed out",
    "ConnectTimeout",
    "Connection reset by peer",
    "Temporary failure in name resolution",
)

#: The same of another container of the pod, which is at localhost, as Go, requests and curl print it, and aiohttp.
_AT_HOME = ("onnection refused", "Connect call failed", "Failed to connect to localhost")
_PORT = expression(r"(?:\[::1\]|\b127\.0\.0\.1|\blocalhost)(?:'?, (?:port=)?| port |:)(\d{2,5})\b")
#: What a container says last is why it ended; what it met with before, it got over.
_LAST_LINES = 12

#: What a proxy says that cannot reach its control plane.
_CONTROL_PLANE = (
    "gRPC config stream closed",
    "gRPC config stream to",
    "failed to warm certificate",
    "failed to generate workload certificate",
)

#: What Istio's agent says once, with the time, when its proxy has its configuration (`pilot-agent`, from 1.3 on).
_READY = "Envoy proxy is ready"
#: Who ended longer before that did not end for want of it; the agent says it again after each time that it was not ready.
_SOON = 600

#: Annotations by which some connections pass by the proxy.
_PASSES = ("traffic.sidecar.istio.io/", "sidecar.istio.io/interceptionMode", "config.linkerd.io/skip-")

#: What vLLM, SGLang and NCCL print where the ranks of a server connect.
_JOINS = (
    "is using nccl==",
    "Init torch distributed begin",
    "NCCL INFO Bootstrap",
    "NCCL INFO NCCL version",
    "NCCL version ",
    "Connected to Ray cluster",
)

_EXPLAINS = (
    "volume-mount-failed",
    "hf-unreachable",
    "model-registry-failed",
    "storage-initializer-failed",
    "ngc-unauthorized",
    "multinode-discovery",
    "ray-cluster",
    "crash-loop",
    "not-ready",
    "pod-failed",
    "rollout-stuck",
)


@check("sidecar-blocks-start", since="0.1", literals=(*_NETWORK, *_AT_HOME, *_CONTROL_PLANE, *_JOINS, _VAULT, _READY))
def sidecar_blocks_start(pod: Pod, subject: Subject, events: Events | None, logs: Logs | None) -> Iterator[Finding]:
    """A sidecar is not ready, or keeps the network from what starts before it.

    In a service mesh all connections of a pod are redirected to its proxy (Istio, Linkerd). Until the proxy runs and has its
    configuration, every connection is refused, and while it is not ready the pod is not. Init containers run before the
    proxy, so that one which downloads the model never reaches its store; a server that asks the hub in its first seconds
    fails when the proxy is late, and for ever when the proxy cannot reach its control plane.

    A proxy that stands among the init containers as a plain one, without `restartPolicy: Always` (or on a cluster that does
    not know it, before Kubernetes 1.29), never ends, and nothing after it starts; in a manifest that is a risk. An agent that
    an injector puts there, such as Vault's, does not end either while it may not log in.

    A native sidecar is waited for by its startup probe alone: without one the next container is started as soon as the
    sidecar runs. A container that ends because another of the pod, which it asks at localhost, is not up yet is started
    again until it is. An init container that waits for the pod's own server waits for ever, and one that runs `ollama pull`
    finds no Ollama to ask unless it starts one; in a manifest that is a risk.

    A server of several pods (Ray, LeaderWorkerSet) connects its ranks over ports that it picks itself. A proxy between them
    knows none of these: the start may stand still there for ever, and no line says why.

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
        yield from _will_not_end(pod)
        yield from _waits_for_later(pod)
    if not pod.failing:
        return
    yield from _never_ends(pod, logs)
    yield from _not_started(pod, events, logs)
    yield from _not_up(pod, logs)
    proxy = next((c for c in pod.containers if c.name in _PROXIES), None)
    if proxy is None:
        return
    ways = (
        _held_back(pod, proxy, events, logs),
        _before(pod, proxy, logs),
        _late(pod, proxy, logs),
        _not_ready(pod, proxy, logs),
        _between_ranks(pod, subject, proxy, logs),
    )
    yield from itertools.islice(itertools.chain(*ways), 1)


def _held_back(pod: Pod, proxy: Container, events: Events | None, logs: Logs | None) -> Iterator[Finding]:
    """A proxy whose hook lets no other container start before it is ready."""
    hooks = [e for e in events.of("FailedPostStartHook", kind="Pod") if e.name == pod.name] if events else []
    if hooks and "pilot-agent wait" in hooks[-1].message:
        told = _complaint(proxy, logs)
        yield _finding(
            pod,
            proxy,
            f"{proxy.name} does not become ready, and the pod's other containers may not start before it.",
            "certain",
            [event_evidence(hooks[-1], pod.cluster), *told],
            cut_off=bool(told),
        )


def _before(pod: Pod, proxy: Container, logs: Logs | None) -> Iterator[Finding]:
    """Init containers that need the network before the proxy starts."""
    for container in _cut_off(pod, proxy):
        line = _refused(pod, container, logs)
        waits = _WAITS.search(" ".join(map(str, (*container.spec.command, *container.spec.args))))
        still = container.running and container.role == "init"
        if line or (still and (waits or _waits_for_a_store(container, logs))):
            yield _finding(
                pod,
                proxy,
                f"Init container {container.name} needs the network, which leads through {proxy.name}, and that starts only after it.",
                "likely",
                [
                    log_evidence(line)
                    if line
                    else pod_evidence(container, "command", waits[0])
                    if waits
                    else pod_evidence(container, "image", container.spec.image),
                    pod_evidence(container, "name", f"runs before {proxy.name}"),
                ],
            )


def _waits_for_a_store(container: Container, logs: Logs | None) -> bool:
    """Whether it is there to fetch the model, and nothing has come."""
    if not re.search(_FETCHES, container.name) and not re.search(_FETCHES, container.spec.image.rpartition("/")[2]):
        return False
    read = logs.of(container.name) if logs else []
    said = (line for log in read for line in log.lines())
    return bool(read) and not any(re.search(_CAME, line.text[:2000]) for line in said)


def _late(pod: Pod, proxy: Container, logs: Logs | None) -> Iterator[Finding]:
    """A container that ended before the proxy beside it was there."""
    for ending, line in _ended_beside(pod, proxy, logs) if not proxy.restarts and proxy.role == "main" else ():
        done = parse_time(ending.terminated.finished_at)
        since = _up_since(pod, proxy, done, logs) if done else None
        if since is not None:
            yield _finding(
                pod,
                proxy,
                f"{ending.container.name} ended before {proxy.name} was {since[0]}, through which all its connections lead.",
                "likely",
                [log_evidence(line), since[1]],
            )


def _up_since(pod: Pod, proxy: Container, done: datetime, logs: Logs | None) -> tuple[str, Evidence] | None:
    """How far the proxy was when another container had already ended: not started, or not ready by its own word."""
    running = proxy.status.state.running
    up = parse_time(running.started_at) if running else None
    if running and up and done < up:
        at = f"status.containerStatuses[{proxy.name}].state.running"
        return "started", pod_evidence(pod, at, f"startedAt: {running.started_at}")
    log = logs.current(proxy.name) if logs else None
    line = next(log.find(_READY), None) if log is not None else None
    ready = re.search(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z", line.text[:200]) if line else None
    since = parse_time(ready[0]) if ready else None
    # the kubelet gives whole seconds
    late = (since.replace(microsecond=0) - done).total_seconds() if since is not None else 0
    return ("ready", log_evidence(line, _READY)) if line and 0 < late < _SOON else None


def _not_ready(pod: Pod, proxy: Container, logs: Logs | None) -> Iterator[Finding]:
    """A proxy that runs and is not ready: others failed meanwhile, or it alone is not."""
    if not proxy.running or proxy.status.ready:
        return
    ready, told = pod_evidence(pod, f"status.containerStatuses[{proxy.name}].ready", "false"), _complaint(proxy, logs)
    for ending, line in _ended_beside(pod, proxy, logs):
        yield _finding(
            pod,
            proxy,
            f"{proxy.name} is not ready, and all connections of {ending.container.name} lead through it.",
            "likely",
            [log_evidence(line), ready, *told],
            cut_off=bool(told),
        )
    others = [c for c in pod.containers if c.role == "main" and c is not proxy]
    if others and all(c.running and c.status.ready for c in others) and next(iter(endings(pod)), None) is None:
        yield _finding(
            pod,
            proxy,
            f"{proxy.name} alone is not ready: the pod's other containers are, and nobody is sent to them.",
            "likely",
            [ready, *told],
            cut_off=bool(told),
        )


def _between_ranks(pod: Pod, subject: Subject, proxy: Container, logs: Logs | None) -> Iterator[Finding]:
    """A server of several pods that stands still where its ranks connect, with the proxy between them."""
    annotations = pod.obj.metadata.annotations
    past = any(key.startswith(_PASSES) for key in annotations)
    now = pod.cluster.now
    if any(c.role == "main" and not c.running for other in subject.pods for c in other.containers):
        return  # a rank that is not there is waited for, with or without a proxy
    for engine in subject.engines(pod) if logs and not past and proxy.status.ready and now else ():
        container, running = engine.container, engine.container.status.state.running
        log, since = logs.current(container.name) if logs else None, parse_time(running.started_at) if running else None
        spread = (pod.nodes or 0) > 1 or 0 < container.gpus < engine.workers_at_least
        if log is None or since is None or now is None or container.status.ready or not spread or phase_of(log):
            continue
        line, stood = ends_with(log, _JOINS), (now - since).total_seconds()
        if line is not None and stood >= STUCK_SECONDS:
            yield Finding(
                role="cause",
                confidence="possible",
                summary=f"{container.name} started {say_seconds(stood)} ago, and its log ends where its ranks, which are in several pods, "
                f"connect: their connections lead through {proxy.name}, which does not know NCCL's ports.",
                evidence=(
                    log_evidence(line),
                    pod_evidence(pod, f"status.containerStatuses[{proxy.name}].ready", "true"),
                ),
                explains=("nccl-timeout", "probe-too-short", *_EXPLAINS),
                fixes=(
                    fixes.advice(
                        f'Leave the pods of this server out of the mesh (sidecar.istio.io/inject: "false") in {fixes.edited(pod)}, or '
                        "let traffic between them pass by the proxy (traffic.sidecar.istio.io/excludeInboundPorts and "
                        "excludeOutboundPorts, interceptionMode: NONE)"
                    )
                    if proxy.name == "istio-proxy"
                    else fixes.advice(
                        f"Leave the pods of this server out of the mesh (linkerd.io/inject: disabled) in {fixes.edited(pod)}"
                    ),
                ),
                order=line.order,
                pods=(pod.name,),
            )


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
        told = _complaint(container, logs)
        yield Finding(
            role="cause",
            confidence="likely",
            summary=f"The startup probe of the sidecar {container.name} does not succeed, and {last} is started only after it.",
            evidence=(
                event_evidence(failed[-1], pod.cluster),
                pod_evidence(pod, f"status.initContainerStatuses[{container.name}].started", "false"),
                *told,
            ),
            explains=_EXPLAINS,
            fixes=tuple(_fixes(pod, container, cut_off=bool(told)))
            if container.name in _PROXIES
            else (
                fixes.advice(
                    f"See in its log what {container.name} waits for",
                    f"kubectl -n {pod.namespace} logs {pod.name} -c {container.name}",
                ),
            ),
            pods=(pod.name,),
        )
        return


def _not_up(pod: Pod, logs: Logs | None) -> Iterator[Finding]:
    """A container that ended because another one, which it asks at localhost, does not answer yet."""
    ended = list(endings(pod))
    for ending in ended:
        container, log = ending.container, log_of(ending, logs) if logs else None
        lines = [x for text in _AT_HOME for x in log.find(text)] if log and container.role == "main" else []
        for line in lines:
            found = _PORT.search(line.text[:2000]) if log and line.number > len(log) - _LAST_LINES else None
            other = _listener(pod, container, int(found[1])) if found else None
            if found is None or other is None or other.status.ready or any(e.container is other for e in ended):
                continue
            kind = "containerStatuses" if other.role == "main" else "initContainerStatuses"
            yield Finding(
                role="cause",
                confidence="likely",
                summary=f"{container.name} ended because {other.name}, which it asks at localhost:{found[1]}, was not up.",
                evidence=(
                    log_evidence(line),
                    pod_evidence(pod, f"status.{kind}[{other.name}].ready", "false"),
                ),
                explains=_EXPLAINS,
                fixes=(_waited_for(container, other),),
                order=line.order,
                pods=(pod.name,),
            )
            return


def _listener(pod: Pod, asks: Container, port: int) -> Container | None:
    """The other container that says that it listens on a port, and runs until the pod ends."""
    for container in pod.containers:
        words = " ".join(map(str, (*container.spec.command, *container.spec.args)))
        says = any(p.container_port == port for p in container.spec.ports) or re.search(rf"port[= ]{port}\b", words)
        if container is not asks and container.role != "init" and container.running and says:
            return container
    return None


def _waited_for(container: Container, other: Container) -> Fix:
    """What makes a container start only when another one answers."""
    probe = other.spec.readiness_probe or other.spec.liveness_probe
    if other.role != "sidecar" or other.spec.startup_probe or probe is None or probe.http_get is None:
        return fixes.advice(
            f"Let {container.name} wait until {other.name} answers, or make {other.name} a native sidecar (an init container with "
            f"restartPolicy: Always) with a startup probe, in {fixes.edited(container.pod)}"
        )
    action = {"httpGet": {"path": probe.http_get.path, "port": probe.http_get.port}}
    startup = {**action, "periodSeconds": 2, "failureThreshold": 150}
    return fixes.set_probe(other, "startupProbe", startup, f"Let {container.name} start only when {other.name} answers")


def _ended_beside(pod: Pod, proxy: Container, logs: Logs | None) -> Iterator[tuple[Ending, Line]]:
    """Containers beside the proxy that ended, each with its line of a connection that did not come about."""
    for ending in endings(pod):
        line = _refused(pod, ending.container, logs)
        if line and ending.container.role == "main" and ending.container is not proxy:
            yield ending, line


def _is_server(container: Container) -> bool:
    """Whether an init container runs a program that is known to serve until it is stopped."""
    image = container.spec.image.rpartition("/")[2].partition("@")[0].partition(":")[0]
    return container.role == "init" and bool(re.fullmatch(_SERVERS, container.name) or re.fullmatch(_SERVERS, image))


def _as_sidecar(container: Container) -> Fix:
    summary = "Mark it as a sidecar with restartPolicy: Always (from Kubernetes 1.29 on)"
    operation = {"op": "add", "path": f"{container.pointer}/restartPolicy", "value": "Always"}
    return fixes.patch(container.pod, summary, [operation])


def _will_not_end(pod: Pod) -> Iterator[Finding]:
    """The same in a manifest, as the image has it: a command of its own may end."""
    for container in pod.containers:
        if _is_server(container) and not container.spec.command:
            last = pod.containers[-1].name
            yield Finding(
                role="risk",
                severity="critical",
                confidence="likely",
                summary=f"{container.name} is a server, and stands among the init containers as a plain one: it does not end, "
                f"so that {last} never starts.",
                evidence=(pod_evidence(container, "restartPolicy", "not set"),),
                fixes=(_as_sidecar(container),),
            )
            return


def _waits_for_later(pod: Pod) -> Iterator[Finding]:
    """An init container that asks a port of the pod's own server, which is started when it has ended."""
    later = {p.container_port: c.name for c in pod.containers if c.role == "main" for p in c.spec.ports}
    sooner = {p.container_port for c in pod.containers if c.role == "sidecar" for p in c.spec.ports}
    for container in pod.containers:
        said = "\n".join(text for _, text in container.words)
        script = "\n".join([said, *(text for path, text in container.files.items() if path in said)])
        script = "\n".join(line for line in script.splitlines() if not _WORDS.match(line))
        asks = _ASKS.search(script) or _OLLAMA.search(script)
        if container.role != "init" or not asks or _STARTS.search(script):
            continue
        ports = {
            int(found[1])
            for line in script.splitlines()
            if not _ANYHOW.search(line)
            for found in _AT_OWN.finditer(line)
        }
        if _OLLAMA.search(script):
            host = container.env.get("OLLAMA_HOST")
            elsewhere = host is not None and not re.match(_OWN_HOST, str(host.value))
            if "OLLAMA_HOST" in script or elsewhere or (host is None and container.spec.env_from):
                continue
            ports.add(_OLLAMA_PORT)
        port = next((number for number in ports if number in later and number not in sooner), None)
        if port is not None:
            yield Finding(
                role="risk",
                severity="critical",
                confidence="likely",
                summary=f"Init container {container.name} asks port {port} of its own pod, where {later[port]} listens: that is started "
                "only when all init containers have ended, so that nothing answers.",
                evidence=(
                    pod_evidence(container, "command", asks[0] if _OLLAMA.search(script) else f"localhost:{port}"),
                    pod_evidence(pod, f"containers[{later[port]}].ports", str(port)),
                ),
                fixes=(
                    fixes.advice(
                        f"Do it after the start instead: in a Job that asks the Service, or in a postStart hook of {later[port]}, in "
                        f"{fixes.edited(pod)}"
                    ),
                ),
            )
            return


def _never_ends(pod: Pod, logs: Logs | None) -> Iterator[Finding]:
    """An init container that is a server, or an agent that waits for its login."""
    for trouble in pod.troubles:
        container = trouble.container
        if trouble.kind != "creating" or container is None or container.role != "init" or not container.running:
            continue
        if _is_server(container):
            last = pod.containers[-1].name
            yield Finding(
                role="cause",
                confidence="likely",
                summary=f"{container.name} is a server, and stands among the init containers as a plain one: it does not end, "
                f"and {last} waits for that.",
                evidence=(
                    pod_evidence(container, "restartPolicy", container.spec.restart_policy or "not set"),
                    pod_evidence(pod, f"status.initContainerStatuses[{container.name}].state.running", trouble.text),
                ),
                explains=_EXPLAINS,
                fixes=(_as_sidecar(container),),
                pods=(pod.name,),
            )
        elif container.name == "vault-agent-init":
            found = [list(log.find(_VAULT)) for log in logs.of(container.name)] if logs else []
            lines = [lines[-1] for lines in found if lines]
            if lines:
                role = pod.obj.metadata.annotations.get("vault.hashicorp.com/role")
                yield Finding(
                    role="cause",
                    confidence="likely",
                    summary=f"{container.name} may not log in at Vault, so that no other container of the pod starts.",
                    evidence=(
                        log_evidence(lines[-1], _VAULT),
                        pod_evidence(pod, "metadata.annotations[vault.hashicorp.com/role]", str(role or "not set")),
                    ),
                    explains=_EXPLAINS,
                    fixes=(
                        fixes.advice(
                            f"Let a role of Vault's Kubernetes login admit the service account of {fixes.edited(pod)} in "
                            f"{pod.namespace}, and name it in vault.hashicorp.com/role",
                            f"kubectl -n {pod.namespace} logs {pod.name} -c {container.name}",
                        ),
                    ),
                    pods=(pod.name,),
                )


def _finding(
    pod: Pod, proxy: Container, summary: str, confidence: str, evidence: list[Evidence], *, cut_off: bool = False
) -> Finding:
    return Finding(
        role="cause",
        confidence="certain" if confidence == "certain" else "likely",
        summary=summary,
        evidence=tuple(evidence),
        explains=_EXPLAINS,
        fixes=tuple(_fixes(pod, proxy, cut_off=cut_off)),
        pods=(pod.name,),
    )


def _cut_off(pod: Pod, proxy: Container) -> Iterator[Container]:
    """Init containers that went wrong after the redirection was set up, where the proxy is no native sidecar.

    Sidecars that mount a bucket are of them: whether they got the network, their log says.
    """
    annotations = pod.obj.metadata.annotations
    if proxy.role != "main" or any(key.startswith("traffic.sidecar.istio.io/exclude") for key in annotations):
        return
    if annotations.get("traffic.sidecar.istio.io/includeOutboundIPRanges", "*") != "*":
        return  # what lies elsewhere is reached without the proxy
    names = [c.name for c in pod.containers]
    redirected = min((names.index(n) for n in names if n in _REDIRECTS), default=None)
    troubled = {t.container.name for t in pod.troubles if t.container}
    for place, container in enumerate(pod.containers):
        if container.name in _REDIRECTS or container.name not in (troubled if container.role == "init" else _MOUNTERS):
            continue
        if redirected is not None and place > redirected and container.spec.security_context.run_as_user != _PROXY_USER:
            yield container


def _refused(pod: Pod, container: Container, logs: Logs | None) -> Line | None:
    """The first line of the instance that failed that tells of a connection which did not come about."""
    ending = next((e for e in endings(pod) if e.container is container), None)
    log = log_of(ending, logs) if ending and logs else None
    if log is None and logs:
        log = next(iter(logs.of(container.name)), None)
    lines = [line for text in _NETWORK for line in (next(iter(log.find(text)), None),) if line] if log else []
    return min(lines, key=lambda line: line.number, default=None)


def _complaint(proxy: Container, logs: Logs | None) -> list[Evidence]:
    """What the proxy says of its control plane, last."""
    for log in logs.of(proxy.name) if logs else []:
        for text in _CONTROL_PLANE:
            found = list(log.find(text))
            if found and re.search(r"error|failed|closed", found[-1].text):
                return [log_evidence(found[-1], text)]
    return []


def _fixes(pod: Pod, proxy: Container, *, cut_off: bool) -> Iterator[Fix]:
    """What lets the pod start; `cut_off`: the proxy says that it does not reach its control plane."""
    istio = proxy.name == "istio-proxy"
    log = f"kubectl -n {pod.namespace} logs {pod.name} -c {proxy.name}"
    if cut_off:
        plane = "istiod" if istio else "Linkerd's control plane"
        yield fixes.advice(
            f"Let {proxy.name} reach {plane}: its pods, its Service, a NetworkPolicy between; or leave the pod out of the mesh",
            log,
            f"kubectl -n {'istio-system' if istio else 'linkerd'} get pods,services",
            owner="platform",
        )
        return
    how = (
        "native sidecars (ENABLE_NATIVE_SIDECARS), holdApplicationUntilProxyStarts, runAsUser 1337 for an init container"
        if istio
        else "config.linkerd.io/proxy-enable-native-sidecar, config.linkerd.io/proxy-await"
    )
    yield fixes.advice(
        f"Let the proxy start before what needs the network in {fixes.edited(pod)}: {how}; or leave the pod out of the mesh",
        log,
    )
