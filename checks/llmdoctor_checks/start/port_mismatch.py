"""Whoever asks for a server at a port where it is not."""

import math
import re
from collections.abc import Iterator
from typing import cast

from kubectl_llmdoctor.api import (
    INFERENCE_SERVICE,
    Abstain,
    Confidence,
    Container,
    Engine,
    Events,
    Evidence,
    Finding,
    Fix,
    Line,
    Log,
    Logs,
    Pod,
    Setting,
    Subject,
    check,
    dig,
    ending_of,
    event_evidence,
    fixes,
    k8s,
    log_evidence,
    log_of,
    phase_of,
    pod_evidence,
    rows,
    selector_of,
)
from llmdoctor_checks import _links, _unreached
from llmdoctor_checks._consequences import CRASHED
from llmdoctor_checks._ended_clients import ended_clients
from llmdoctor_checks._last_link import AIBRIX_DEFAULT, AIBRIX_MODEL, AIBRIX_PORT
from llmdoctor_checks._listening import port_evidence
from llmdoctor_checks.start._apache_tls import FAILED, apache_speaks_tls
from llmdoctor_checks.start._balancers import asked_elsewhere
from llmdoctor_checks.start._client_tls import NO_GRPC, NO_TLS, client_with_grpc, client_with_tls
from llmdoctor_checks.start._mesh import PROXIES
from llmdoctor_checks.start._picker_ports import NOT_ASKED, picker_elsewhere
from llmdoctor_checks.start._picker_tls import picker_with_tls
from llmdoctor_checks.start._probes import BY_THE_MESH, SIDECAR_PROBE, answered_once, ended_by_itself, failures
from llmdoctor_checks.start._protocols import NO_HTTP, other_protocol
from llmdoctor_checks.start._routed_ports import routed_elsewhere
from llmdoctor_checks.start._sent_to import (
    LOOPBACK,
    OF_TF,
    STATED,
    further_ports,
    heard_ports,
    listener,
    of_pools,
    of_services,
    port_of,
    unheard,
)

#: Dynamo's own words for the port at which a worker answers probes, from its start on (lib/runtime/src/system_status_server.rs), and
#: the variable that sets it.
_STATUS_SERVES = r"ystem status server (?:bound to:|started successfully on) (?P<host>[\d.]{1,15}|\[[\da-f:]{2,39}\]):(?P<port>\d{1,5})\b"
_OF_STATUS, _STATUS_PORT = "ystem status server ", "DYN_SYSTEM_PORT"

#: The port of an address, whether or not it is one; nothing of an IPv6 address without a port.
_PORT_AT_THE_END = r"^(?:\w{1,10}://)?(?:[^:\[\]]*|\[[0-9A-Fa-f:]+\]):([^:/\]]{1,40})/?$"
#: llama-server's own word. One of its presets (`--embd-gemma-default`) brings a port of its own, and a host that ends in `.sock` is a file.
_LLAMA_LISTENS = r"listening on (?:https?://(?P<host>[\d.]{1,15}|localhost|\[[\da-f:]{2,39}\]):(?P<port>\d{1,5})\b|unix://(?P<socket>\S{1,200}))"

#: Where KServe and Knative take a container to listen that declares no port, and the servers that take it from PORT.
_OF_KSERVE = 8080
_READS_PORT = frozenset({"tgi", "tei"})

#: What a program prints that has not loaded yet: the server itself may listen only then, after one for metrics.
_LOADS = r"(?i)\b(?:down)?loading\b|\d{1,3}%\|"


@check(
    "port-mismatch",
    since="0.1",
    literals=(
        "robe error (failed",
        "unning on ",
        "listening on ",
        "Listening at:",
        *OF_TF,
        _OF_STATUS,
        NOT_ASKED,
        NO_HTTP,
        FAILED,
        *NO_TLS,
        NO_GRPC,
        *_unreached.LITERALS,
    ),
)
def port_mismatch(pod: Pod, subject: Subject, logs: Logs | None, events: Events | None) -> Iterator[Finding | Abstain]:
    """A probe, Service, pool, route or client asks at the wrong port, or with TLS where none is spoken.

    The kubelet asks the port that the probe names, whatever `containerPort` says; a name that no port of the container has it looks up in
    vain each time. When the engine listens on another one, the readiness probe fails forever and the pod gets no requests; a liveness or
    startup probe even restarts a healthy server. A Service with a wrong `targetPort`, or an InferencePool with wrong `targetPorts`,
    refuses every connection while the pod looks fine. The port of its `endpointPickerRef` is one of the endpoint picker's Service, not of
    the model. A client that was told a port which the Service does not have gets no further, and neither does an Ingress or a route, nor
    one that speaks TLS to a port where the server speaks none, or HTTP/1 where it speaks HTTP/2 (gRPC), or the other way round: a gateway
    asks by the `appProtocol` of a Service's port, or of an InferencePool, Istio also by the name of the port, and as a DestinationRule, a
    BackendTLSPolicy or an annotation of the Ingress says; an endpoint picker speaks TLS by itself. The container of an InferenceService
    is taken to listen on the port that it declares, or on 8080, which is a note where a Service of one's own leads to the right port. Of
    a program that is no known engine its log tells where it listens (where its only Service leads elsewhere is a risk), and of a
    llama-server whose preset brings a port of its own, or whose `--host` is a file. AIBrix' gateway asks the port of the label
    `model.aibrix.ai/port`, or 8000, of a pod with `model.aibrix.ai/name`, which is a risk, as only requests with a routing strategy go
    so.

    ## Fix

    Make the probe's port, the Service's `targetPort`, the InferencePool's `targetPorts` and the engine's `--port` the same; a
    named port avoids the mistake.

    ## References

    - https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/
    """
    # what starts one by itself may listen elsewhere, for it: where, its log says
    engines = [engine for engine in subject.engines(pod) if not engine.announced]
    for engine in engines:
        yield from _of(pod, engine, logs, events)
        yield from other_protocol(pod, engine, logs)
        yield from asked_elsewhere(pod, engine)
    for container in pod.containers:
        own = next((engine for engine in engines if engine.container is container), None)
        if own is not None and own.get("port") is None:  # a worker behind another's front end
            yield from _by_log(pod, container, logs, events)
        if container.role != "init" and own is None:
            yield from _by_log(pod, container, logs, events)
            yield from unheard(pod, container, logs)
            yield from _by_probe(pod, container, logs)
    yield from _with_tls(pod, subject, logs)
    yield from client_with_tls(pod, logs)
    yield from client_with_grpc(pod, logs)
    yield from apache_speaks_tls(pod, logs)
    astray = [*_links.broken(pod, pod.cluster, "port-mismatch")]
    yield from astray or _links.told_no_such_port(pod, pod.cluster, logs)
    yield from picker_elsewhere(pod, pod.cluster)
    yield from picker_with_tls(pod)
    yield from routed_elsewhere(pod, logs)


def _with_tls(pod: Pod, subject: Subject, logs: Logs | None) -> Iterator[Finding]:
    """A client of models in this pod that ended since it spoke TLS to a server that speaks none."""
    for ended in ended_clients(pod, subject, logs):
        if ended.why != "no tls":
            continue
        yield Finding(
            severity="warning",
            summary=f"{ended.container.name} speaks TLS to {ended.url}, which answers without, and ended of it.",
            evidence=ended.evidence,
            explains=CRASHED,
            fix=fixes.advice(
                f"Have {fixes.edited(pod)} ask the server with http:// ({ended.variable}), or give the server a certificate "
                "(--ssl-certfile and --ssl-keyfile)"
            ),
            order=ended.lines[0].order,
        )
        return


def _by_log(pod: Pod, container: Container, logs: Logs | None, events: Events | None) -> Iterator[Finding]:
    """A program that is no known engine, whose log says where it listens, and whose probe is refused elsewhere."""
    refused = [(kind, e) for kind, e in failures(container, events) if "connection refused" in e.message]
    stuck = container.trouble("not-ready", "crashed") is not None
    ended = ending_of(container)
    log = container.own_log(logs)
    if log is None and logs is not None and ended is not None:
        log = log_of(ended, logs)
    if not stuck or not refused or log is None or ended_by_itself(container, events):
        return
    status = _of_status(log)
    ports = status or heard_ports(log)
    for kind, probe in container.spec.probes.items():
        asked = port_of(container, probe)
        if kind != refused[-1][0] or asked is None or not ports or asked in ports or answered_once(ended, probe):
            continue
        if listener(container, asked) or (status and _front_end(container, asked)):
            return
        number, line = next(iter(ports.items()))
        if not status and any(re.search(_LOADS, one.text[:2000]) for one in log.lines(line.number + 1)):
            return
        yield Finding(
            summary=f"The {kind} probe of {container.name} asks port {asked}; by its log it listens on {number}.",
            evidence=(
                event_evidence(refused[-1][1], pod.cluster),
                _asked_port(container, kind, probe),
                log_evidence(line),
            ),
            explains=("not-ready", "crash-loop", "probe-too-short"),
            fixes=(*_told_by_status(container, asked, number), _fix(container, kind, probe, number)),
        )
        return


def _asked_port(container: Container, kind: str, probe: k8s.Probe) -> Evidence:
    return pod_evidence(container, f"{kind}Probe.{_action(probe)}.port", _written(probe))


def _of_status(log: Log) -> dict[int, Line]:
    """The port at which a worker of Dynamo says that it answers probes."""
    found = log.matching(_STATUS_SERVES, _OF_STATUS, most=2000)
    return {int(said["port"]): line for line, said in found if not re.fullmatch(LOOPBACK, said["host"])}


def _front_end(container: Container, asked: int) -> bool:
    """Whether Dynamo's front end is asked, or may be, which answers probes at the port of its requests, whatever else it opens."""
    words, told = " ".join(container.spec.argv)[:20_000], container.env.get("DYN_HTTP_PORT")
    if re.search(r"\bdynamo\.(?:frontend|http)\b|\bin=http\b", words):
        return True
    return not re.search(r"\bdynamo\.\w", words) and str(asked) in ("8000", str(told.value) if told else "")


def _told_by_status(container: Container, asked: int, number: int) -> Iterator[Fix]:
    """For a worker of Dynamo that was given a port for probes: the one that its probe asks."""
    told = container.env.get(_STATUS_PORT)
    # 0 is another one at each start; it is read as a number of 16 bits with a sign
    if told and told.value in (str(number), "0") and asked < 1 << 15:
        text = f"Set {_STATUS_PORT} to the port that the probe asks, {asked}, as Dynamo's operator does"
        yield fixes.set_env(container, _STATUS_PORT, str(asked), text)


def _by_probe(pod: Pod, container: Container, logs: Logs | None) -> Iterator[Finding]:
    """A program that is no known engine (a frontend, a router), and is ready: it answers at the port of its readiness probe."""
    if phase_of(container.own_log(logs)) is not None:
        return  # an engine that it starts has a port of its own
    probe = container.spec.readiness_probe
    answers = port_of(container, probe) if probe and pod.exists and pod.ready else None
    # one that declares no port may answer probes at another than requests
    if probe and answers is not None and container.spec.ports:
        ports = [answers, *(p.container_port for p in container.spec.ports)]
        evidence = pod_evidence(container, f"readinessProbe.{_action(probe)}.port", _written(probe))
        yield from of_pools(pod, container, container.name, ports, evidence)


def _of(pod: Pod, engine: Engine, logs: Logs | None, events: Events | None) -> Iterator[Finding | Abstain]:
    """A known engine, by the port that it was told."""
    port = engine.get("port")
    if port is None or not isinstance(port.value, int):
        return
    container = engine.container
    if elsewhere := _by_own_word(pod, engine, port, logs, events):
        yield elsewhere
        return
    probed = (_probed_elsewhere(engine, port, kind, probe, events) for kind, probe in container.spec.probes.items())
    if (found := next(filter(None, probed), None)) is not None:
        yield found
        return
    yield from _by_kserve(pod, container, engine, port)
    yield from _by_aibrix(pod, container, engine, port)
    yield from _through_sidecar(pod, container, engine, port, logs)
    yield from of_services(pod, container, engine, port, logs)
    by_default = port.source == "default" and engine.own_image and engine.found.argv_known and not pod.exists
    if port.source in STATED or by_default:
        yield from of_pools(
            pod, container, engine.title, [port.value, *further_ports(engine)], port_evidence(container, port)
        )


def _probed_elsewhere(
    engine: Engine, port: Setting, kind: str, probe: k8s.Probe, events: Events | None
) -> Finding | None:
    """A probe that asks another port than the engine's."""
    pod, container, asked = engine.pod, engine.container, port_of(engine.container, probe)
    if probe.http_get is not None and probe.http_get.path.startswith(BY_THE_MESH):
        return None
    if asked is None:
        named = kind != "liveness" and re.fullmatch(_NAME_OF_A_PORT, _written(probe))
        unmade = not (pod.exists or pod.completed or pod.lent)
        return _of_no_name(container, kind, probe, port) if named and unmade else None
    if asked == port.value or (asked in further_ports(engine) and not _speaks_otherwise(engine, probe, asked)):
        return None
    other = listener(container, asked)
    failing = container.trouble("not-ready", "crashed") is not None
    if not failing and (pod.exists or other):
        return None  # it is ready, so that something answers there, or will be
    later = failing and ended_by_itself(container, events)  # it waits for a server that comes up
    sure: Confidence = "certain" if port.source == "flag" and not other else "likely"
    tail = f", where container {other} listens" if other else ""
    return Finding(
        role="cause" if failing else "risk",
        confidence="possible" if later else sure,
        summary=f"The {kind} probe of {container.name} asks port {asked}{tail}; {engine.title} listens on {port.value}.",
        evidence=(
            _asked_port(container, kind, probe),
            port_evidence(container, port),
        ),
        explains=("not-ready", "crash-loop", "probe-too-short", "probe-path-wrong") if failing else (),
        fix=_of_no_port(engine, asked, port.value) or _fix(container, kind, probe, port.value),
        order=math.inf if later else None,
    )


def _of_no_port(engine: Engine, asked: int, listens: int) -> Fix | None:
    """For an Ollama that was told a port that is none, in whose place it took that of the scheme."""
    told = engine.container.env.get("OLLAMA_HOST") if engine.name == "ollama" else None
    address = told.value[:300].strip().strip("\"'") if told and told.value else ""
    found = re.search(_PORT_AT_THE_END, address)
    if found is None or "$(" in found[1] or (found[1].isdecimal() and int(found[1]) < 65536):
        return None
    return fixes.set_env(
        engine.container,
        "OLLAMA_HOST",
        f"0.0.0.0:{asked}",
        f"Set OLLAMA_HOST to the port that the probe asks (0.0.0.0:{asked}): "
        f"{found[1]} is no port, and Ollama listens on {listens} in its place",
    )


def _by_own_word(pod: Pod, engine: Engine, port: Setting, logs: Logs | None, events: Events | None) -> Finding | None:
    """A llama-server that says that it listens elsewhere than it was told, and whose probe is refused."""
    container, log = engine.container, engine.container.own_log(logs)
    refused = [(kind, e) for kind, e in failures(container, events) if "connection refused" in e.message]
    failing = container.trouble("not-ready", "crashed") is not None
    # one that is ready was only asked before it listened
    if engine.name != "llama.cpp" or log is None or not (failing and refused) or ended_by_itself(container, events):
        return None
    found = [(line, said) for line, said in log.matching(_LLAMA_LISTENS, "listening on ", most=2000)]
    # the models of a router listen on the loopback address
    found = [one for one in found if not re.fullmatch(LOOPBACK, one[1]["host"] or "")]
    kind, event = refused[-1]
    probe = container.spec.probes.get(kind)
    asked = port_of(container, probe) if probe else None
    if not found or probe is None or asked is None or listener(container, asked):
        return None
    if any(said["port"] and int(said["port"]) == asked for _, said in found):
        return None  # the other is that of a second server
    line, said = found[-1]
    listens = int(said["port"]) if said["port"] else None
    others = [c for c in container.beside if c.name not in PROXIES]
    # a socket is meant for a proxy beside it, which may be what is asked
    if listens in (asked, port.value) or (listens is None and others):
        return None
    told = f", although it was told {port.value}" if listens and port.source != "default" else ""
    where = f"port {listens}{told}" if listens else f"the socket {said['socket']} alone"
    fix = (
        _fix(container, kind, probe, listens)
        if listens
        else fixes.set_flag(engine, "host", "--host", "0.0.0.0", "Have llama-server listen on an address")  # noqa: S104 # its option
    )
    return Finding(
        summary=f"The {kind} probe of {container.name} asks port {asked}; by its log {engine.title} listens on {where}.",
        evidence=(
            event_evidence(event, pod.cluster),
            _asked_port(container, kind, probe),
            log_evidence(line),
        ),
        explains=("not-ready", "crash-loop", "probe-too-short", "probe-path-wrong"),
        fix=fix,
    )


def _by_kserve(pod: Pod, container: Container, engine: Engine, port: Setting) -> Iterator[Finding]:
    """A container of an InferenceService that declares no port, or another one: KServe and Knative send to 8080, or to what it declares.

    Knative tells the container by PORT, which some servers read. (KServe: the raw deployment's Service and its default
    readiness probe, reconcilers/service and reconcilers/deployment; Knative: DefaultUserPort.)
    """
    raw = pod.template.raw if pod.template and not pod.exists else {}
    if not str(raw.get("apiVersion", "")).startswith("serving.kserve.io/") or raw.get("kind") != "InferenceService":
        return
    declared = [p.container_port for p in container.spec.ports]
    if pod.partial or container.beside or port.value in (declared or (_OF_KSERVE,)) or engine.name in _READS_PORT:
        return
    if port.source not in ("flag", "default", "env") or not engine.found.argv_known:
        return
    if declared and (port.source != "flag" or set(declared) & further_ports(engine)):
        return  # an image of its own may be told the port that it declares
    asks = "" if container.spec.readiness_probe else " and asks there whether it is ready"
    beside = bool(container.spec.readiness_probe) and _service_beside(pod, str(raw["metadata"]["name"]), port)
    said = f"port {declared[0]}" if declared else "no port"
    yield Finding(
        role="note" if beside else "risk",
        severity="info" if beside else "critical",
        summary=f"{container.name} declares {said}, so that KServe sends to {declared[0] if declared else _OF_KSERVE}{asks}; "
        f"{engine.title} listens on {port.value}.",
        evidence=(
            pod_evidence(container, "ports", ", ".join(map(str, declared)) or "none"),
            port_evidence(container, port),
        ),
        # what a runtime declares is merged with what an InferenceService declares, and stays the first
        fix=fixes.set_flag(engine, "port", port.flag, str(declared[0]), f"Have {engine.title} listen on {declared[0]}")
        if declared
        else fixes.set_spec(
            pod,
            f"/containers/{container.index}/ports",
            [{"containerPort": port.value, "protocol": "TCP"}],
            f"Declare {port.value} as the port of {container.name}",
        ),
    )


def _by_aibrix(pod: Pod, container: Container, engine: Engine, port: Setting) -> Iterator[Finding]:
    """AIBrix' gateway asks a pod of a model at the port that a label tells, or at 8000, where a request is to be routed by a strategy."""
    told = pod.labels.get(AIBRIX_PORT, AIBRIX_DEFAULT)
    if AIBRIX_MODEL not in pod.labels or told == str(port.value) or container.beside or not told.isdecimal():
        return
    yield Finding(
        role="risk",
        summary=f"AIBrix' gateway asks {pod.name} at port {told} where a routing strategy is set, "
        f"{f'as its label {AIBRIX_PORT} says' if AIBRIX_PORT in pod.labels else f'for it has no label {AIBRIX_PORT}'}; {engine.title} "
        f"listens on {port.value}.",
        evidence=(
            pod_evidence(pod, f"metadata.labels[{AIBRIX_PORT}]", pod.labels.get(AIBRIX_PORT, "none")),
            port_evidence(container, port),
        ),
        fix=fixes.annotate(
            pod, {AIBRIX_PORT: str(port.value)}, f"Set the label {AIBRIX_PORT} to {port.value}", field="labels"
        ),
    )


def _service_beside(pod: Pod, name: str, port: Setting) -> bool:
    """Whether a Service of one's own leads to the port, by the labels that KServe gives to the pods of its InferenceService."""
    given = {**pod.labels, "app": f"isvc.{name}-predictor", INFERENCE_SERVICE: name}
    for item in pod.cluster.items("Service", pod.namespace):
        selector, ports = selector_of(item), rows(item.raw, "spec.ports")
        leads = any(row.get("targetPort", row.get("port")) == port.value for row in ports)
        if selector and leads and all(given.get(key) == value for key, value in selector.items()):
            return True
    return False


#: Any other text the API server refuses; a placeholder stands there until a script fills it in.
_NAME_OF_A_PORT = r"(?=.*[a-z])[a-z0-9-]{1,15}"


def _of_no_name(container: Container, kind: str, probe: k8s.Probe, port: Setting) -> Finding:
    """A probe of a named port that its container does not declare: the kubelet throws each of its results away."""
    names = ", ".join(p.name for p in container.spec.ports if p.name)
    return Finding(
        role="risk",
        summary=f"The {kind} probe of {container.name} asks port {_written(probe)}, and no port of the container has that name"
        f"{f' ({names})' if names else ''}: the pod never becomes ready.",
        evidence=(_asked_port(container, kind, probe),),
        fix=_fix(container, kind, probe, int(port.value)),
    )


def _through_sidecar(
    pod: Pod, container: Container, engine: Engine, port: Setting, logs: Logs | None
) -> Iterator[Finding]:
    """Knative's queue-proxy and KServe's agent ask the server in the kubelet's place, at the port that they were told."""
    for trouble in pod.troubles:
        sidecar = trouble.container
        if trouble.kind != "not-ready" or sidecar is None or sidecar is container:
            continue
        told = sidecar.env.get(SIDECAR_PROBE)
        asked = _port_in(told.value) if told and told.value else None
        line = _refused(sidecar, logs) if asked is None and logs is not None else None
        if line is not None:
            asked = int(line[1])
        if asked is None or asked == port.value or listener(container, asked) not in (None, sidecar.name):
            continue
        yield Finding(
            summary=f"{sidecar.name} asks {container.name} at port {asked} whether it is ready; {engine.title} listens on {port.value}.",
            evidence=(
                log_evidence(line[0])
                if line is not None
                else pod_evidence(sidecar, f"env[{SIDECAR_PROBE}]", str(told.value) if told else ""),
                port_evidence(container, port),
            ),
            explains=("not-ready", "probe-too-short", "sidecar-blocks-start", "rollout-stuck"),
            fix=fixes.advice(
                f"Have {engine.title} listen on port {asked}, or declare {port.value} as the containerPort of "
                f"{container.name} in {fixes.edited(pod)}, which {sidecar.name} then asks"
            ),
        )
        return


def _refused(sidecar: Container, logs: Logs) -> tuple[Line, str] | None:
    """The last line by which Knative's queue-proxy says that its probe was refused, and the port."""
    log = logs.current(sidecar.name)
    for line in reversed(list(log.find("robe error (failed"))) if log is not None else ():
        if said := re.search(r"dial tcp (?:127\.0\.0\.1|\[::1\]):(\d{1,5}): connect: connection refused", line.text):
            return line, said[1]
    return None


def _port_in(probe: str) -> int | None:
    """The port in a probe that is written as JSON."""
    import json  # 2 ms, and few probes are written so

    try:
        found = json.loads(probe)
    except ValueError:
        return None
    port = dig(found, "httpGet.port") or dig(found, "tcpSocket.port")
    return port if isinstance(port, int) else None


def _speaks_otherwise(engine: Engine, probe: k8s.Probe, asked: int) -> bool:
    """Whether an HTTP probe asks a port of Triton's that answers no health path: gRPC, or the metrics alone."""
    if engine.name != "triton" or probe.http_get is None:
        return False
    return asked == engine.value("grpc_port") or (
        asked == engine.value("metrics_port") and probe.http_get.path.startswith("/v2/")
    )


def _action(probe: k8s.Probe) -> str:
    return "httpGet" if probe.http_get else "tcpSocket"


def _written(probe: k8s.Probe) -> str:
    action = probe.http_get or probe.tcp_socket
    return str(action.port) if action else ""


def _fix(container: Container, kind: str, probe: k8s.Probe, port: int) -> Fix:
    """Let the probe ask the right port, and whichever others ask the same wrong one."""
    asked = port_of(container, probe)
    same = {k: p for k, p in container.spec.probes.items() if k == kind or (asked and port_of(container, p) == asked)}
    if (renumbered := _of_its_name(container, same, port)) is not None:
        return renumbered
    operations = [
        {"op": "replace", "path": f"{container.pointer}/{k}Probe/{_action(p)}/port", "value": port}
        for k, p in same.items()
    ]
    who = f"the {kind} probe" if len(same) == 1 else "the probes"
    return fixes.patch(container.pod, f"Have {who} ask port {port}", operations)


def _of_its_name(container: Container, probes: dict[str, k8s.Probe], port: int) -> Fix | None:
    """Where probes ask a port by the name that the container gives it, as a Service does or may: another number for that name."""
    written = {kind: _written(probe) for kind, probe in probes.items()}
    by_number = {kind for kind, asked in written.items() if asked.isdecimal()}
    names = {asked for kind, asked in written.items() if kind not in by_number}
    declared = {p.name: i for i, p in enumerate(container.spec.ports) if p.name in names}
    services = [
        item.name
        for item in container.pod.services
        for row in cast(k8s.Service, item.typed()).spec.ports
        if str(row.target_port) in names
    ]
    others = [p.container_port for p in container.spec.ports if p.name not in names]
    of_the_node = container.pod.spec.host_network or any(p.host_port for p in container.spec.ports)
    told = bool(container.pod.services)
    if len(names) != 1 or len(declared) != 1 or (told and not services) or port in others or of_the_node:
        return None
    name, index = next(iter(declared.items()))
    paths = [
        f"ports/{index}/containerPort",
        *(f"{kind}Probe/{_action(probes[kind])}/port" for kind in sorted(by_number)),
    ]
    too = f", and the {' and '.join(sorted(by_number))} probe too, which asks the old one" if by_number else ""
    return fixes.patch(
        container.pod,
        f"Give port {name} of {container.name} the number {port}{too}: "
        + (f"a probe and Service {services[0]} ask it by that name" if services else "a probe asks it by that name"),
        [{"op": "replace", "path": f"{container.pointer}/{path}", "value": port} for path in paths],
    )
