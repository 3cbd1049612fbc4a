"""Services and pools that send to another port than that of the server."""

import re
from collections.abc import Iterator
from typing import cast

from kubectl_llmdoctor.api import (
    Container,
    Engine,
    Evidence,
    Finding,
    Fix,
    Item,
    Line,
    Log,
    Logs,
    Pod,
    Setting,
    answered,
    askers,
    dig,
    fixes,
    k8s,
    log_evidence,
    object_evidence,
    rows,
)
from llmdoctor_checks._listening import port_evidence
from llmdoctor_checks._services import target_ports

#: What Uvicorn, Gunicorn, Hypercorn and Flask print once they listen, on an address that the kubelet reaches.
#: A host by its name is another program's, to which this one leads or for which it waits.
_SERVES = (
    r"(?:(?:^|[*\]:]) ?Running on|Uvicorn running on|Listening at:) +https?://"
    r"(?P<host>[\d.]{1,15}|localhost|\[[\da-f:]{2,39}\]):(?P<port>\d{1,5})\b"
)

#: TensorFlow Serving's own words (model_servers/server.cc). It listens on every address for REST as well, whatever it says of that.
_TF_SERVES = (
    r"(?:Exporting HTTP/REST API at:|Running gRPC ModelServer at )(?P<host>[\w.\[\]:-]{1,60}):(?P<port>\d{1,5})\b"
)
OF_TF = ("Exporting HTTP/REST API at:", "Running gRPC ModelServer at ")

#: How a Service, or a port of it, is called that is not for a server's requests by HTTP: a program need not say that it listens there.
_OTHERS = r"(?i)metrics|prom(?:etheus)?\b|monitor|exporter|grpc|rpc\b|debug|admin|health"

#: Where a port stands that the engine was told, or says that it has.
STATED = ("flag", "log")

#: The servers that show their metrics at the port for requests, and at no other. A TEI that speaks gRPC has one for them (`prometheus.rs`).
_ONE_PORT = frozenset({"vllm", "sglang", "tgi", "tei", "llama.cpp"})

#: Those of these addresses that are only the process' own.
LOOPBACK = r"127\.[\d.]+|localhost|\[::1\]"


def heard_ports(log: Log) -> dict[int, Line]:
    """The ports at which a program listens by its own log, for others than itself."""
    found = log.matching(_SERVES, "unning on ", "Listening at:", most=2000)
    ports = {int(said["port"]): line for line, said in found if not re.fullmatch(LOOPBACK, said["host"])}
    return ports | {int(said["port"]): line for line, said in log.matching(_TF_SERVES, *OF_TF, most=2000)}


def unheard(pod: Pod, container: Container, logs: Logs | None) -> Iterator[Finding]:
    """The only Service of a ready program, no known engine, that leads to a port which it neither declares nor says that it has.

    Whether it listens there all the same nobody says, so that it is a risk.
    """
    services = list(pod.services)
    log = container.own_log(logs)
    if not (pod.exists and pod.ready and len(services) == 1) or container.beside or log is None or answered(log):
        return
    item, declared = services[0], container.declared_ports
    heard = heard_ports(log)
    ports = {port: line for port, line in heard.items() if port in declared}
    targets = {p.name or str(p.port): _target(pod, p) for p in cast(k8s.Service, item.typed()).spec.ports}
    numbers = {number for number in targets.values() if number is not None}
    meant = dig(item.raw, "spec.clusterIP") != "None" and not any(re.search(_OTHERS, x) for x in (item.name, *targets))
    if len(ports) != 1 or not numbers or len(numbers) != len(targets) or numbers & declared or not meant:
        return
    if any(number in heard or _spoken_of(container, log, number) for number in numbers):
        return
    port, line = next(iter(ports.items()))
    wrong = ", ".join(str(n) for n in sorted(numbers))
    if _scraped(item, targets) in numbers or any(askers(pod, {item.name}, pod.cluster)):
        return  # who asks there would be refused, and say so
    yield Finding(
        role="risk",
        summary=f"Service {item.name} sends to port {wrong} of the pod; by its log {container.name} listens on {port}.",
        evidence=(
            object_evidence(item, "spec.ports", f"targetPort: {wrong}"),
            log_evidence(line),
        ),
        fix=_retarget(item, len(targets), port),
    )


def _spoken_of(container: Container, log: Log, number: int) -> bool:
    """Whether a container that is ready may listen at a port: it is told of it, is probed there, or its log names it."""
    if any(
        port_of(container, probe) == number or (probe.grpc and probe.grpc.port == number)
        for probe in container.spec.probes.values()
    ):
        return True
    told = [" ".join(text for _, text in container.words)]
    told += [f"{one.name}={one.value}" for one in container.env.values()]
    named = rf"(?i)(?:port\w{{0,10}}\W{{1,4}}(?:is )?|[\w\])*]:|\b(?:on|at) ){number}(?!\d)"
    return any(re.search(named, text) for text in (*told, *(line.text[:2000] for line in log.find(str(number)))))


def of_services(pod: Pod, container: Container, engine: Engine, port: Setting, logs: Logs | None) -> Iterator[Finding]:
    for item in pod.services:
        service = cast(k8s.Service, item.typed())
        targets = {p.name or str(p.port): _target(pod, p) for p in service.spec.ports}
        numbers = {number for number in targets.values() if number is not None}
        if not pod.exists and (found := _of_metrics(pod, container, engine, port, item, targets)):
            yield found
            continue
        if dig(item.raw, "spec.clusterIP") == "None":
            continue  # its name leads to the pod itself, at whatever port a client asks
        if not numbers or len(numbers) != len(targets) or port.value in numbers:
            continue
        if any(listener(container, number) for number in numbers) or numbers & further_ports(engine):
            continue
        declared = container.declared_ports
        if port.value in declared and numbers <= declared:
            continue  # ports beside the one for requests, for transfers or metrics
        wrong = ", ".join(str(n) for n in sorted(numbers))
        sure = port.source in STATED or port.value in declared
        # one that is asked may have something else before it in its container
        asked = answered(container.own_log(logs))
        # of a server that runs alone in its pod: whoever asks this Service is refused, and no other leads to it
        alone = sure and not (container.beside or asked) and len(list(pod.services)) == 1
        refused = pod.exists and pod.ready and alone
        yield Finding(
            role="cause" if refused else "risk",
            severity="warning",
            summary=f"Service {service.metadata.name} sends to port {wrong} of the pod; {engine.title} listens on {port.value}.",
            evidence=(
                object_evidence(item, "spec.ports", f"targetPort: {wrong}"),
                port_evidence(container, port),
            ),
            fix=_retarget(item, len(service.spec.ports), port.value),
        )


def _of_metrics(
    pod: Pod, container: Container, engine: Engine, port: Setting, item: Item, targets: dict[str, int | None]
) -> Finding | None:
    """A Service's port for metrics that leads to a port which nobody opens: these engines show them where they serve."""
    named = targets.get("metrics") or targets.get("http-metrics")
    number = named or _scraped(item, targets)
    taken = pod.declared_ports
    if number is None or engine.name not in _ONE_PORT or port.source != "flag" or port.value not in targets.values():
        return None
    if (
        number == port.value
        or number in taken | further_ports(engine)
        or container.beside
        or not engine.found.argv_known
        or "grpc" in container.spec.image
        or pod.completed
        or _sidecar_comes(pod)
    ):
        return None
    return Finding(
        role="risk" if named else "note",  # a monitor of another kind may ask the right port beside the annotations
        summary=f"Service {item.name} sends to port {number} for metrics, where nothing listens; {engine.title} has them on {port.value}.",
        evidence=(
            object_evidence(item, "spec.ports", f"targetPort: {number}"),
            port_evidence(container, port),
        ),
        fix=fixes.advice(f"Set targetPort to {port.value} in Service/{item.name}, for the port for metrics"),
    )


def _sidecar_comes(pod: Pod) -> bool:
    """Whether AIBrix adds its runtime, which shows metrics of its own (pkg/webhook/deployment_webhook.go)."""
    owner = pod.template_of
    return owner is not None and "model.aibrix.ai/sidecar-injection" in owner.annotations


def _scraped(item: Item, targets: dict[str, int | None]) -> int | None:
    """The port of the pods that a Service's annotations tell Prometheus to scrape, where the Service leads there as well."""
    told = (
        item.annotations.get("prometheus.io/port") if item.annotations.get("prometheus.io/scrape") == "true" else None
    )
    return next((number for number in targets.values() if number is not None and str(number) == told), None)


def of_pools(pod: Pod, container: Container, title: str, ports: list[int], evidence: Evidence) -> Iterator[Finding]:
    """An InferencePool sends to ports of the pod by their numbers, whatever Service there is; the first is that for requests."""
    if container.beside:
        return
    for pool in pod.pools:
        numbers = target_ports(pool)
        if not numbers or numbers & set(ports):
            continue
        right = ports[0]
        wrong = ", ".join(str(n) for n in sorted(numbers))
        field = "targetPorts" if rows(pool.raw, "spec.targetPorts") else "targetPortNumber"
        value = [{"number": right}] if field == "targetPorts" else right
        yield Finding(
            role="cause" if pod.exists and pod.ready else "risk",
            severity="warning",
            summary=f"InferencePool {pool.name} sends to port {wrong} of the pod; {title} listens on {right}.",
            evidence=(object_evidence(pool, f"spec.{field}", wrong), evidence),
            fix=fixes.set_field(pool, f"/spec/{field}", value, f"Set {field} to {right} in InferencePool/{pool.name}"),
        )
        return


def _retarget(item: Item, ports: int, port: object) -> Fix:
    summary = f"Set targetPort to {port} in Service/{item.name}"
    if ports > 1:
        return fixes.advice(f"{summary}, for the port that requests come in at")
    return fixes.set_field(item, "/spec/ports/0/targetPort", port, summary)


def further_ports(engine: Engine) -> set[int]:
    """The ports that the engine opens beside the one for requests: for metrics, gRPC, health, transfers, ranks."""
    settings = {**engine.found.defaults, **engine.found.settings}.values()
    ports = {s.value for s in settings if s.name.endswith("_port") and isinstance(s.value, int)}
    # where its ranks meet, at a host that a script may learn when it runs
    words = " ".join(text for _, text in engine.container.words)
    met = re.findall(r"--(?:dist|nccl)-init-addr[= ]\S{0,200}?:(\d{1,5})\b", words)
    # Triton's endpoints for SageMaker and Vertex AI (command_line_parser.cc)
    if engine.name == "triton" and re.search(r"--allow-(?:sagemaker|vertex-ai)\b(?![= ](?i:0|false))", words):
        met += re.findall(r"--(?:sagemaker|vertex-ai)-port[= ](\d{1,5})\b", words) or ["8080"]
    return ports | {int(port) for port in met}


def _target(pod: Pod, port: k8s.ServicePort) -> int | None:
    """The number that a Service port leads to in the pod."""
    numbers = (container.port_number(port.target_port or port.port) for container in pod.containers)
    return next((number for number in numbers if number is not None), None)


def port_of(container: Container, probe: k8s.Probe) -> int | None:
    action = probe.http_get or probe.tcp_socket
    return container.port_number(action.port) if action else None


def listener(container: Container, port: int) -> str | None:
    """Another container of the pod that declares the port."""
    declaring = (c.name for c in container.beside if port in c.declared_ports)
    return next(declaring, None)
