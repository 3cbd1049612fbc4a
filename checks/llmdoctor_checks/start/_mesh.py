"""A service mesh's proxy that is not up while others in the pod need the network."""

import itertools
import re
from collections.abc import Iterator
from datetime import datetime

from kubectl_llmdoctor.api import (
    Confidence,
    Container,
    Ending,
    Events,
    Evidence,
    Finding,
    Fix,
    Item,
    Line,
    Logs,
    Pod,
    Subject,
    dig,
    ending_of,
    endings,
    event_evidence,
    expression,
    fixes,
    log_evidence,
    log_of,
    object_evidence,
    parse_time,
    phase_of,
    pod_evidence,
    say_seconds,
)
from llmdoctor_checks._standstill import STUCK_SECONDS, ends_with
from llmdoctor_checks.start._init_containers import NOT_STARTED

#: Proxies that all traffic of the pod is sent through, and the init containers that redirect it there.
PROXIES = frozenset({"istio-proxy", "linkerd-proxy"})
_REDIRECTS = frozenset({"istio-init", "istio-validation", "linkerd-init", "linkerd-network-validator"})

#: A shell loop that waits until something on the network answers.
_WAITS = expression(
    r"\A(?>.*?\b(?:until|while)\b).*\b(?:wget|curl|nc|ncat|nslookup|getent|dig|grpcurl)\b|/dev/tcp/", re.DOTALL
)

#: Init containers that fetch the model, by name or image, and how their logs show that something came.
_FETCHES = r"(?:storage|model)-initializer|rclone|download|fetch|model-?(?:loader|puller)"
_CAME = (
    r"(?<![\d.])(?:[1-9]\d?|100)(?:\.\d{1,6})?%|\bDownloaded\b"
    r"|(?<![\d.])(?:[1-9]\d{0,12}(?:\.\d{1,6})?|0\.\d{0,6}[1-9]) ?[KMGT]i?B?\b"
)

#: The address of a store that only the network leads to.
_ADDRESS = expression(r"(?:s3|gs|hf|https?|abfss?|wasbs?|azblob|oci|hdfs|webhdfs|oss|cos)://")
#: After this long a container that has no network still waits, whatever it would fetch.
_LONG_SECONDS = 1800

#: Sidecars that mount a bucket: the pod's containers can only be made when they have reached it.
_MOUNTERS = frozenset({"gke-gcsfuse-sidecar"})

#: The user of Istio's proxy, whose traffic is not redirected.
_PROXY_USER = 1337

#: What programs print when a connection is refused or gets no answer, as the redirection without a proxy brings about.
_NETWORK = (
    "onnection refused", "Could not connect to the endpoint URL", "Failed to establish a new connection",
    "Network is unreachable", "i/o timeout", "Connection timed out", "ConnectTimeout", "Connection reset by peer",
    "Temporary failure in name resolution",
)  # fmt: skip

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
PASSES = ("traffic.sidecar.istio.io/", "sidecar.istio.io/interceptionMode", "config.linkerd.io/skip-")
#: Those of what the pod itself asks for.
_PASSES_OUT = ("traffic.sidecar.istio.io/exclude", "config.linkerd.io/skip-outbound")

#: What the kubelet says of a probe over HTTP that was cut off. Of a probe that goes by the agent it names the agent's own port.
_RESET = expression(
    r'(?P<probe>Liveness|Readiness|Startup) probe failed: Get "https?://[^"/]{1,200}:(?P<port>\d{1,5})/[^"]{0,500}": '
    r"(?:read tcp \S{1,100}: read: connection reset by peer|EOF)"
)
#: So often it is no server that was only starting anew.
_OFTEN = 3
#: Ports to which others come past the proxy.
_PAST_PORTS = ("traffic.sidecar.istio.io/excludeInboundPorts", "traffic.sidecar.istio.io/includeInboundPorts")

#: What its access log has of a connection that it takes for HTTP, by the name of the port, and cannot read.
PROTOCOLS, _FEW, _PICKS = (" DPE http2.", " DPE http1."), 2, ("--pool-name", "-poolname", "--poolname")
_REJECTED = r" DPE http[12]\.[\w.]{1,80} .{0,400}\binbound\|(\d{1,5})\|"

#: What vLLM, SGLang and NCCL print where the ranks of a server connect.
_JOINS = (
    "is using nccl==", "Init torch distributed begin", "NCCL INFO Bootstrap", "NCCL INFO NCCL version",
    "NCCL version ", "Connected to Ray cluster",
)  # fmt: skip

#: What is looked for in the logs of proxies and of what they hold up.
LITERALS = (*_NETWORK, *_CONTROL_PLANE, *_JOINS, _READY)


def held_up_by_proxy(pod: Pod, subject: Subject, events: Events | None, logs: Logs | None) -> Iterator[Finding]:
    """The first way in which the proxy of a failing pod explains why it fails."""
    proxy = next((c for c in pod.containers if c.name in PROXIES), None)
    if proxy is None:
        return
    ways = (
        _not_redirected(pod, logs),
        _held_back(pod, proxy, events, logs),
        _before(pod, proxy, logs),
        _late(pod, proxy, logs),
        _not_ready(pod, proxy, logs),
        _cuts_probes(pod, proxy, events),
        _between_ranks(pod, subject, proxy, logs),
    )
    yield from itertools.islice(itertools.chain(*ways), 1)


def _not_redirected(pod: Pod, logs: Logs | None) -> Iterator[Finding]:
    """The mesh's own init container, which sets up or checks the redirection to its proxy: while it fails nothing starts."""
    for ending in endings(pod):
        container = ending.container
        if container.name not in _REDIRECTS or container.role != "init" or ending.oom_killed:
            continue
        checks = "validat" in container.name
        log = log_of(ending, logs)
        last = [line for line in log.lines() if line.text.strip()][-1:] if log is not None else []
        yield Finding(
            summary=f"{container.name}, which the mesh puts before all other containers, ended with exit code {ending.code}: "
            + (
                "it finds no redirection to the proxy."
                if checks
                else "it could not set up the redirection to the proxy."
            ),
            evidence=(pod_evidence(pod, ending.path, ending.text), *(log_evidence(line) for line in last)),
            explains=NOT_STARTED,
            fixes=(
                fixes.platform(
                    f"See that the mesh's CNI plugin runs on node {pod.spec.node_name} and does not exclude the namespace "
                    f"{pod.namespace}, then delete the pod"
                    if checks
                    else f"Give {container.name} NET_ADMIN, NET_RAW and the node's iptables, or use the mesh's CNI plugin",
                    fixes.pods_on(pod.spec.node_name),
                ),
                out_of_mesh(pod, istio="linkerd" not in container.name),
            ),
            pods=(pod.name,),
        )
        return


def _held_back(pod: Pod, proxy: Container, events: Events | None, logs: Logs | None) -> Iterator[Finding]:
    """A proxy whose hook lets no other container start before it is ready."""
    hooks = [e for e in events.of("FailedPostStartHook", kind="Pod") if e.name == pod.name] if events else []
    if hooks and "pilot-agent wait" in hooks[-1].message:
        told = complaint(proxy, logs)
        yield _finding(
            pod,
            proxy,
            f"{proxy.name} does not become ready, and the pod's other containers cannot start before it.",
            "certain",
            [event_evidence(hooks[-1], pod.cluster), *told],
            cut_off=bool(told),
        )


def _before(pod: Pod, proxy: Container, logs: Logs | None) -> Iterator[Finding]:
    """Init containers that need the network before the proxy starts."""
    for container in _cut_off(pod, proxy):
        line = _refused(container, logs)
        waits = _WAITS.search(" ".join(container.spec.argv))
        still = container.running and container.role == "init"
        sure = "likely" if line or (still and waits) else _waits_for_a_store(container, logs) if still else None
        if sure:
            yield _finding(
                pod,
                proxy,
                f"Init container {container.name} needs the network, which leads through {proxy.name}, and that starts only after it.",
                sure,
                [
                    log_evidence(line)
                    if line
                    else pod_evidence(container, "command", waits[0])
                    if waits
                    else pod_evidence(container, "image", container.spec.image),
                    pod_evidence(container, "name", f"runs before {proxy.name}"),
                    *_since(pod, container, sure),
                ],
            )


def _waits_for_a_store(container: Container, logs: Logs | None) -> Confidence | None:
    """How sure it is that one which is there to fetch the model has got nothing; where its log was not read, time tells."""
    if not re.search(_FETCHES, container.name) and not re.search(_FETCHES, container.spec.image.rpartition("/")[2]):
        return None
    read = container.own_logs(logs)
    said = (line for log in read for line in log.lines())
    if not read:
        afar = any(_ADDRESS.match(word) for word in container.spec.argv)
        ran = container.pod.cluster.seconds_since(container.started)
        return "possible" if afar and ran is not None and ran >= _LONG_SECONDS else None
    return None if any(re.search(_CAME, line.text[:2000]) for line in said) else "likely"


def _since(pod: Pod, container: Container, sure: Confidence) -> Iterator[Evidence]:
    """How long it has run, where nothing else tells that it waits."""
    running = container.status.state.running
    if running and sure == "possible":
        at = f"status.initContainerStatuses[{container.name}].state.running"
        yield pod_evidence(pod, at, f"startedAt: {running.started_at}")


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
    running, up = proxy.status.state.running, proxy.started
    if running and up and done < up:
        at = f"status.containerStatuses[{proxy.name}].state.running"
        return "started", pod_evidence(pod, at, f"startedAt: {running.started_at}")
    log = proxy.own_log(logs)
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
    ready, told = pod_evidence(pod, f"status.containerStatuses[{proxy.name}].ready", "false"), complaint(proxy, logs)
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


def _cuts_probes(pod: Pod, proxy: Container, events: Events | None) -> Iterator[Finding]:
    """Istio's proxy, ready itself, that cuts off what the kubelet asks of another container of the pod.

    The injector lets the kubelet ask the agent instead, which passes the probes on: of containers that it sees, and not of those that
    another webhook adds after it. Where the mesh demands mTLS, plain connections end at the proxy; where it does not, a container that
    does not answer is told by status 503.
    """
    if proxy.name != "istio-proxy" or not proxy.status.ready or any(key in pod.annotations for key in _PAST_PORTS):
        return
    rule = of_mtls(pod)
    if rule and dig(rule.raw, "spec.mtls.mode") != "STRICT":
        return
    mine = [e for e in events.of("Unhealthy", kind="Pod") if e.name == pod.name] if events else []
    found = _RESET.search(mine[-1].message[:2000]) if mine else None
    asked = _probed(pod, proxy, found["probe"].lower(), int(found["port"])) if found else None
    times = sum(
        max(e.count, 1)
        for e in mine
        if (one := _RESET.search(e.message[:2000])) and found and one["port"] == found["port"]
    )
    if found and asked and not asked.status.ready and times >= _OFTEN:
        port = found["port"]
        yield Finding(
            summary=f"{proxy.name} cuts off the kubelet's {found['probe'].lower()} probe of {asked.name} at port {port}: "
            "where the mesh demands mTLS, a plain connection ends at the proxy.",
            evidence=(
                event_evidence(mine[-1], pod.cluster),
                pod_evidence(asked, f"{found['probe'].lower()}Probe.httpGet.port", port),
                *([object_evidence(rule, "spec.mtls.mode", "STRICT")] if rule else []),
            ),
            explains=("probe-timeout-under-load", "probe-too-short", "probe-path-wrong", "port-mismatch", *NOT_STARTED),
            fix=fixes.annotate(
                pod, {_PAST_PORTS[0]: port}, f"Let what comes to port {port} of {asked.name} pass by {proxy.name}"
            ),
        )


def taken_for_http(pod: Pod, logs: Logs | None) -> Iterator[Finding]:
    """Istio's proxy, that takes the stream between a gateway and a ready endpoint picker (ext_proc) for HTTP, and rejects it."""
    proxy = next((c for c in pod.containers if c.name == "istio-proxy"), None)
    log = proxy.own_log(logs) if proxy is not None else None
    said = [(line, m[1]) for line, m in log.matching(_REJECTED, *PROTOCOLS, most=1000)] if log is not None else []
    picks = any(word.lower().startswith(_PICKS) for c in pod.containers for _, word in c.words)
    if (
        proxy is None
        or log is None
        or not picks
        or len(said) < _FEW
        or any(key in pod.annotations for key in _PAST_PORTS)
    ):
        return
    line, port = said[-1]
    if any(" DPE " not in x.text and re.search(r'" [1-4]\d\d ', x.text[:2000]) for x in log.find(f"inbound|{port}|")):
        return
    named = [p.name for c in pod.containers for p in c.spec.ports if str(p.container_port) == port and p.name]
    by_name = f", as its name {named[0]} says," if named else ""
    yield Finding(
        severity="warning",
        summary=f"istio-proxy takes what comes to port {port} of {pod.name} for HTTP{by_name} and rejects it: no request gets through.",
        evidence=(log_evidence(line), *((pod_evidence(pod, "ports", f"{port}: {named[0]}"),) if named else ())),
        explains=("port-mismatch", "gateway-timeout"),
        fixes=(
            out_of_mesh(pod, istio=True),
            fixes.annotate(pod, {_PAST_PORTS[0]: port}, f"Let what comes to port {port} pass by {proxy.name}"),
        ),
        order=line.order,
    )


def of_mtls(pod: Pod) -> Item | None:
    """The narrowest PeerAuthentication that says of a pod whether plain connections are taken: its own, its namespace's, the mesh's."""
    found = []
    for rule in pod.cluster.items("PeerAuthentication"):
        labels, mine = dig(rule.raw, "spec.selector.matchLabels"), rule.namespace == pod.namespace
        meant = not labels or (mine and isinstance(labels, dict) and labels.items() <= pod.labels.items())
        said = dig(rule.raw, "spec.mtls.mode") not in (None, "UNSET")
        if said and meant and rule.namespace in (pod.namespace, "istio-system"):
            found.append((not labels, not mine, rule.name, rule))
    return min(found, key=lambda one: one[:3])[3] if found else None


def _probed(pod: Pod, proxy: Container, probe: str, port: int) -> Container | None:
    """The container beside the proxy that the kubelet asks at a port itself, by this probe."""
    for container in pod.containers:
        own = getattr(container.spec, f"{probe}_probe")
        if container is not proxy and own and own.http_get and container.port_number(own.http_get.port) == port:
            return container
    return None


def _between_ranks(pod: Pod, subject: Subject, proxy: Container, logs: Logs | None) -> Iterator[Finding]:
    """A server of several pods that stands still where its ranks connect, with the proxy between them."""
    annotations = pod.annotations
    past = any(key.startswith(PASSES) for key in annotations)
    if any(c.role == "main" and not c.running for other in subject.pods for c in other.containers):
        return  # a rank that is not there is waited for, with or without a proxy
    for engine in subject.engines(pod) if logs and not past and proxy.status.ready else ():
        container = engine.container
        log, stood = container.own_log(logs), pod.cluster.seconds_since(container.started)
        spread = (pod.nodes or 0) > 1 or 0 < container.gpus < engine.workers_at_least
        if log is None or stood is None or container.status.ready or not spread or phase_of(log):
            continue
        line = ends_with(log, _JOINS)
        if line is not None and stood >= STUCK_SECONDS:
            yield Finding(
                confidence="possible",
                summary=f"{container.name} started {say_seconds(stood)} ago, and its log ends where its ranks, which are in several pods, "
                f"connect: their connections lead through {proxy.name}, which does not know NCCL's ports.",
                evidence=(
                    log_evidence(line),
                    pod_evidence(pod, f"status.containerStatuses[{proxy.name}].ready", "true"),
                ),
                explains=("nccl-timeout", "probe-too-short", *NOT_STARTED),
                fix=out_of_mesh(pod, istio=proxy.name == "istio-proxy"),
                order=line.order,
            )


def _ended_beside(pod: Pod, proxy: Container, logs: Logs | None) -> Iterator[tuple[Ending, Line]]:
    """Containers beside the proxy that ended, each with its line of a connection that did not come about."""
    for ending in endings(pod):
        line = _refused(ending.container, logs)
        if line and ending.container.role == "main" and ending.container is not proxy:
            yield ending, line


def _finding(
    pod: Pod, proxy: Container, summary: str, confidence: Confidence, evidence: list[Evidence], *, cut_off: bool = False
) -> Finding:
    return Finding(
        confidence=confidence,
        summary=summary,
        evidence=tuple(evidence),
        explains=NOT_STARTED,
        fixes=tuple(started_first(pod, proxy, cut_off=cut_off)),
    )


def _cut_off(pod: Pod, proxy: Container) -> Iterator[Container]:
    """Init containers that went wrong after the redirection was set up, where the proxy is no native sidecar.

    Sidecars that mount a bucket are of them: whether they got the network, their log says.
    """
    annotations = pod.annotations
    if proxy.role != "main" or any(key.startswith(_PASSES_OUT) for key in annotations):
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


def _refused(container: Container, logs: Logs | None) -> Line | None:
    """The first line of the instance that failed that tells of a connection which did not come about."""
    log = log_of(ending_of(container), logs)
    if log is None and logs:
        log = next(iter(logs.of(container.name)), None)
    lines = [line for text in _NETWORK for line in (next(iter(log.find(text)), None),) if line] if log else []
    return min(lines, key=lambda line: line.number, default=None)


def complaint(proxy: Container, logs: Logs | None) -> list[Evidence]:
    """What the proxy says of its control plane, last."""
    for log in proxy.own_logs(logs):
        for text in _CONTROL_PLANE:
            found = list(log.find(text))
            if found and re.search(r"error|failed|closed", found[-1].text):
                return [log_evidence(found[-1], text)]
    return []


def out_of_mesh(pod: Pod, *, istio: bool) -> Fix:
    """A label, or an annotation, by which the webhook leaves the pod without a proxy."""
    if istio:
        return fixes.annotate(
            pod,
            {"sidecar.istio.io/inject": "false"},
            'Leave the pod out of the mesh: label sidecar.istio.io/inject: "false"',
            field="labels",
        )
    return fixes.annotate(
        pod, {"linkerd.io/inject": "disabled"}, "Leave the pod out of the mesh: annotation linkerd.io/inject: disabled"
    )


def started_first(pod: Pod, proxy: Container, *, cut_off: bool) -> Iterator[Fix]:
    """What lets the pod start; `cut_off`: the proxy says that it does not reach its control plane."""
    istio = proxy.name == "istio-proxy"
    log = f"kubectl -n {pod.namespace} logs {pod.name} -c {proxy.name}"
    first = proxy.role == "sidecar" or bool(proxy.spec.lifecycle and proxy.spec.lifecycle.post_start)
    if cut_off or first:  # it starts before the others already
        plane = "istiod" if istio else "Linkerd's control plane"
        yield fixes.platform(
            f"Let {proxy.name} reach {plane} from {pod.namespace}: its pods run, its Service has endpoints, no NetworkPolicy is between",
            log,
            f"kubectl -n {'istio-system' if istio else 'linkerd'} get pods,services,endpointslices",
            f"kubectl -n {pod.namespace} get networkpolicies",
        )
        yield out_of_mesh(pod, istio=istio)
        return
    if not istio:
        native = {"config.linkerd.io/proxy-enable-native-sidecar": "true"}
        yield fixes.annotate(pod, native, f"Have {proxy.name} start before what needs the network, as a native sidecar")
        return
    waiting = [c for c in pod.containers if c.role == "init" and not (c.terminated and c.terminated.exit_code == 0)]
    blocked = next((c for c in waiting if c.running or c.restarts or c.terminated), None)
    if blocked is not None and blocked.name == "storage-initializer":
        past = {"serving.kserve.io/storage-initializer-uid": "1337"}
        yield fixes.annotate(
            pod, past, f"Have {blocked.name} run as the user of {proxy.name}, whose connections pass by the proxy"
        )
    elif blocked is not None and blocked.spec.image and not blocked.name.startswith("gke-"):
        operation = {"op": "add", "path": f"{blocked.pointer}/securityContext/runAsUser", "value": 1337}
        summary = f"Have {blocked.name} run as user 1337, that of {proxy.name}, whose connections pass by the proxy"
        yield fixes.patch(pod, summary, [operation])
    else:
        held = {"proxy.istio.io/config": '{"holdApplicationUntilProxyStarts": true}'}
        if blocked is not None:
            held = {"sidecar.istio.io/nativeSidecar": "true"}
        yield fixes.annotate(pod, held, f"Have {proxy.name} start before what needs the network")
    yield fixes.advice(
        f"Else make the proxy of each pod a native sidecar (ENABLE_NATIVE_SIDECARS of istiod, the default from 1.27 on), or leave this one "
        f'out of the mesh (sidecar.istio.io/inject: "false" in {fixes.edited(pod)})',
        log,
    )
