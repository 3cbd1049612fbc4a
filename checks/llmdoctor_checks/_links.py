"""Clients and gateways whose logs say that they do not reach a server of models, and which link of the way there is broken.

Whom they ask stands in the line, or, where it names nobody, in what the container was told. The objects say the rest: nothing is said of a
way that is whole, as it was only broken while the server started. Wordings: Go's net, libuv, Python's sockets with urllib3, aiohttp and
httpx on top, Java's, curl's and reqwest's; nginx, Apache, Caddy, HAProxy, Traefik and Envoy.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from typing import cast

import msgspec

from kubectl_llmdoctor.api import (
    Cluster,
    Container,
    Destination,
    Engine,
    Evidence,
    Finding,
    Fix,
    Item,
    Line,
    Log,
    Pod,
    Setting,
    Trouble,
    dig,
    engines_in,
    fixes,
    follow,
    idle_workload,
    k8s,
    log_evidence,
    logs_of,
    object_evidence,
    pod_evidence,
    say_seconds,
    selector_of,
    setting_evidence,
    told_by,
)
from llmdoctor_checks._raw import rows
from llmdoctor_checks.serving._gateways import GENERATES
from llmdoctor_checks.start._listening import ANY_IPV4, listens, listens_elsewhere, loopback_told

#: A connection that nobody took, or that got no answer, and a name without an address.
_REFUSED = (
    "efused",
    "ECONNREFUSED",
    "onnect call failed",
    "ll connection attempts failed",
    "Connection error.",
    "No route to host",
    "EHOSTUNREACH",
    "Layer4 connection problem",
    "ould not connect",
    " SC--",
    " sC--",
    " UF",
    '"UF',
)
_SILENT = ("imed out", "imeout", "ETIMEDOUT", "Layer4 timeout")
#: A setting that is printed is no timeout.
_OUT_OF_TIME = r"(?i)timed[ -]?out|ETIMEDOUT|i/o timeout|Connect ?Timeout|TimeoutE|Layer4 timeout|timeout (?:exceeded|expired|reached)"
_NAMELESS = (
    "no such host",
    "ENOTFOUND",
    "EAI_AGAIN",
    "ame or service not known",
    "nodename nor servname",
    "ailed to resolve '",
    "ould not resolve host",
    "UnknownHostException",
    "failed to lookup address",
    "could not be resolved (",
)
#: What a gateway answered by itself; of Traefik's access log nothing else says so. Whom it asked stands in the line.
_UNAVAILABLE = ('" 502 ', '" 503 ', '"OriginStatus":502', '"OriginStatus":503')
LITERALS = (*_REFUSED, *_SILENT, *_NAMELESS, *_UNAVAILABLE)

#: What openai's library makes of each of these; why stands in the traceback above, of so many lines at most.
_WRAPPER, _ABOVE = "Connection error.", 80

#: Lines of one literal that are looked at, the last ones.
_MOST_LINES = 40

#: An address in a line: of a URL; in words of its own, as Python, aiohttp, curl and Envoy write it; and bare, which must lead somewhere.
_HOST = r"[a-zA-Z0-9](?:[\w-]{0,62}\.){0,8}[\w-]{0,62}"
_URL = rf"(?P<scheme>https?)://(?P<host>{_HOST})(?::(?P<port>\d{{1,5}}))?(?=[/?#\s\"'\\,)}}\]]|$)"
_STATED = (
    _URL,
    rf"host='(?P<host>{_HOST})', port=(?P<port>\d{{1,5}})",
    rf"to host (?P<host>{_HOST}):(?P<port>\d{{1,5}})",
    rf"(?:Failed|attempt|Could not|Unable|ailed) to connect to (?P<host>{_HOST})(?: port |:)(?P<port>\d{{1,5}})",
    r"remote host \((?P<host>\d{1,3}(?:\.\d{1,3}){3})\)",
    rf"outbound\|(?P<port>\d{{1,5}})\|[\w-]{{0,80}}\|(?P<host>{_HOST})",
    rf"(?:lookup|ENOTFOUND|EAI_AGAIN|UnknownHostException:|resolve host:?|to resolve) '?(?P<host>{_HOST})",
    rf"(?<![\w.-])(?P<host>{_HOST}) could not be resolved \(",
)
_BARE = r"(?<![\w.:/-])(?P<host>[a-z0-9](?:[\w-]{0,62}\.){0,8}[\w-]{0,62})(?:/[\d.]{7,15})?(?::|', )(?P<port>\d{2,5})(?!\d|[.:]\d)"
_DEFAULT = {"http": 80, "https": 443}
#: The page from which a client of a gateway came, as access logs, nginx's error log and Caddy's write it.
_CAME_FROM = r'(?i)(?:" \d{3} (?:\d{1,12}|-) |referr?er"?: ?\[?)"[^"]{0,2000}"'

#: What speaks of a server of models: a name, a variable, a library, a path. And what other servers are called or listen at.
_MODELS = (
    rf"{GENERATES}|/v1(?:/|\b)|(?i:openai|ollama|llm|anthropic|inference|completion|tgi|sglang|triton|llama|model|embed|generat|11434"
    r"|predict|chat)"
)
_STORES = (
    r"(?i)redis|valkey|postgres|psycopg|sql|mongo|kafka|rabbit|amqp|nats|etcd|minio|milvus|qdrant|weaviate|chroma|elastic|opensearch"
    r"|langfuse|otel|opentelemetry|jaeger|tempo|prometheus|grafana|loki|searx|tika|kubernetes|vault|\bdb\b|database|clickhouse|telemetry"
)
_STORE_PORTS = frozenset(
    {53, 5432, 5433, 6379, 26379, 3306, 27017, 9092, 5672, 4222, 2379, 4317, 4318, 9200, 6333, 6334, 19530, 6443, 8200}
)

#: Which variables name the proxy to the world.
_PROXY = r"(?i)^(?:https?|all)_proxy$"

#: What such a server, or a library that asks one, is called in a line.
_CALLED = (
    r"/chat/completions|(?i:openai|ollama|localai|litellm|anthropic|llm|sglang|tritonserver|llama[._]?cpp"
    r"|huggingface_?hub\.inference|text-generation)"
)

#: Of a request to generate. What lists the models of each server that might be there (Open WebUI) needs none of them.
_GENERATING = rf"{GENERATES}|litellm\.\w{{1,60}}Error|APIConnectionError"
#: What an access log, or a client's library, says of a request that was answered.
_ANSWERED = rf"(?:{GENERATES})[^\"\s]{{0,300}}(?: HTTP/[\d.]{{1,3}})?\"?[ :]{{1,3}}(?:\"HTTP/[\d.]{{1,3}} )?2\d\d\b|is UP, reason: "

#: A server that started no longer ago is loading.
_LOADING = 630

_CONSEQUENCES = ("crash-loop", "not-ready", "pod-failed", "rollout-stuck", "engine-init-failed")


class Why(msgspec.Struct, frozen=True):
    """At which link a way ends: the check that tells it, in words, and what shows it."""

    id: str
    text: str
    evidence: tuple[Evidence | None, ...]
    fix: Fix
    certain: bool = True
    #: the pod at which it ends, where no Service leads to it
    at: Pod | None = None


class Broken(msgspec.Struct, frozen=True):
    """A way that does not lead to a server: who says so, whom it asks, and why."""

    client: Container
    line: Line
    to: Destination
    why: Why

    def concerns(self, pod: Pod) -> bool:
        """Whether it is this pod's affair: it asks, or would be asked."""
        if self.client.pod.item is pod.item or (self.why.at is not None and self.why.at.item is pod.item):
            return True
        return any(other.item is pod.item for other in self.to.pods) and not self.to.itself


def broken(pod: Pod, cluster: Cluster, check: str) -> Iterator[Finding]:
    """The first broken way of a pod, or to a pod that is ready, that a check tells of."""
    if not pod.exists or pod.item is None:
        return
    for one in cluster.once("broken ways", lambda: list(_all(cluster))):
        if one.why.id != check or not one.concerns(pod):
            continue
        asks = one.client.pod.item is pod.item
        if not asks and not pod.ready:
            continue  # a server that is not ready has a cause of its own
        ended = asks and _ended_of_it(one)
        yield Finding(
            role="cause",
            severity="critical" if ended else "warning",
            confidence="likely" if one.why.certain and (ended or not asks or not pod.failing) else "possible",
            summary=f"{one.client.name if asks else one.client.pod.name} does not reach {one.to.shown}: {one.why.text}.",
            evidence=(
                log_evidence(one.line, one.to.host),
                *_told(one.client, one.to.host),
                *filter(None, one.why.evidence),
            ),
            explains=_CONSEQUENCES if ended else (),
            fixes=(one.why.fix,),
            order=one.line.order,
            pods=(pod.name,),
        )
        return


def _ended_of_it(one: Broken) -> bool:
    """Whether what is wrong with the client's pod is this container, and its log says little after the line."""
    troubled = [t for t in one.client.pod.troubles if t.container is None or t.container.name == one.client.name]
    return bool(troubled) and len(one.line.log) - one.line.number <= _ABOVE


def _told(client: Container, host: str) -> tuple[Evidence, ...]:
    """Where the client was told whom to ask."""
    for where, value in told_by(client, client.pod.cluster):
        at = re.search(rf"(?:https?://)?(?<![\w.-]){re.escape(host)}(?![\w.-])[^\s\"',]{{0,200}}", value)
        if at is not None:
            path = f"env[{where}]" if where in client.env else where
            return (pod_evidence(client, path, f"{client.pod.name}: {at[0]}"),)
    return ()


def _all(cluster: Cluster) -> Iterator[Broken]:
    for text in cluster.snapshot.logs:
        item = cluster.item("Pod", text.namespace, text.pod)
        if item is None:
            continue
        pod = Pod(cast(k8s.Pod, item.typed()), cluster, item=item)
        container = pod.container(text.container)
        if container is None or pod.leaving or pod.completed or pod.status.phase == "Succeeded":
            continue
        if container.role == "init" and not container.running and not pod.failing:
            continue
        if text.previous and container.running and pod.ready:
            continue  # it got over what it ended of
        if any(engine.container.name == container.name for engine in engines_in(pod)):
            continue
        yield from _of(container, Log(text), cluster)


def _of(container: Container, log: Log, cluster: Cluster) -> Iterator[Broken]:
    """What the last lines of a client's log say, for each whom it asks."""
    done: set[str] = set()
    answered: int | None = None
    kinds = (("refused", _REFUSED), ("silent", _SILENT), ("nameless", _NAMELESS), ("unavailable", _UNAVAILABLE))
    for kind, words in kinds:
        lines = {line.number: line for one in words for line in deque(log.find(one), maxlen=_MOST_LINES)}
        for _, line in sorted(lines.items(), reverse=True):
            text = line.text[:4000]
            if (_WRAPPER in text and _of_a_name(line)) or (kind == "silent" and not re.search(_OUT_OF_TIME, text)):
                continue
            if kind == "unavailable" and not re.search(GENERATES, text):
                continue
            for to in _asked(text, container, cluster, or_told=kind != "unavailable"):
                if to.shown in done:
                    continue
                if not _of_models(text, to, container, cluster):
                    continue
                answered = _last_answered(log) if answered is None else answered
                if line.number < answered:
                    continue
                if not re.search(_GENERATING, text) and _has_another(to, container, cluster):
                    continue  # it may do without
                done.add(to.shown)
                why = _break(container, to, kind, line, cluster)
                if why is not None:
                    yield Broken(container, line, to, why)


def _of_a_name(line: Line) -> bool:
    """Whether it was a name that did not resolve, by the traceback above."""
    above = line.log.lines(max(line.number - _ABOVE, 1), line.number)
    return any(words in x.text for x in above for words in (*_NAMELESS, "emporary failure in name resolution"))


def _asked(text: str, container: Container, cluster: Cluster, *, or_told: bool) -> Iterator[Destination]:
    """Whom a line names, as far as the cluster knows them; where it names nobody, the one whom the container was told to ask."""
    named, text = False, re.sub(_CAME_FROM, "", text)
    for pattern in _STATED:
        for said in re.finditer(pattern, text):
            found = said.groupdict()
            port = found.get("port") or _DEFAULT.get(found.get("scheme") or "")
            to = follow(found["host"], int(port) if port else None, container.pod, cluster)
            named = True
            if to is not None:
                yield _with_port(to, container, cluster)
    for said in re.finditer(_BARE, text):
        to = follow(said["host"], int(said["port"]), container.pod, cluster)
        if to is not None and (to.service is not None or to.pods) and not (to.itself and ":53" in text):
            named = True
            yield to
    if not named and or_told:
        configured = {to.shown: to for to in _configured(container, cluster)}
        if len(configured) == 1:
            yield from configured.values()


def _with_port(to: Destination, container: Container, cluster: Cluster) -> Destination:
    """The same with the port that the container was told, where the line has only the name."""
    if to.port is not None:
        return to
    told = {one.port: one for one in _configured(container, cluster) if one.host == to.host and one.port is not None}
    return next(iter(told.values())) if len(told) == 1 else to


def _configured(container: Container, cluster: Cluster) -> list[Destination]:
    """The servers of models that a container is told of."""
    key = f"told {container.pod.namespace} {container.pod.name} {container.name}"
    return cluster.once(key, lambda: list(_told_of(container, cluster)))


def _told_of(container: Container, cluster: Cluster) -> Iterator[Destination]:
    for where, value in told_by(container, cluster):
        for pattern in (_URL, _BARE):
            for said in re.finditer(pattern, value):
                found = said.groupdict()
                port = int(found.get("port") or _DEFAULT.get(found.get("scheme") or "", 0))
                to = follow(found["host"], port, container.pod, cluster)
                if to is None or (pattern is _BARE and (to.service is None or to.itself)):
                    continue
                near = value[max(said.start() - 40, 0) : said.end() + 40]
                if port in _STORE_PORTS or re.search(_STORES, f"{where} {to.host}"):
                    continue
                if re.search(_MODELS, f"{where} {near}") or any(map(engines_in, to.pods)):
                    yield to


def _of_models(text: str, to: Destination, container: Container, cluster: Cluster) -> bool:
    """Whether what is asked is a server of models: an engine runs there, or it is called and asked like one."""
    if not to.itself and any(map(engines_in, to.pods)):
        return True
    if to.service is None and to.pods and not to.itself:
        return False  # the address of a pod may be the client's of a request
    if to.port in _STORE_PORTS or re.search(_STORES, f"{to.host} {to.name}"):
        return False
    if any(re.search(_PROXY, name) and to.host in value for name, value in told_by(container, cluster)):
        return False
    told = _configured(container, cluster)
    if any((one.host, one.port) == (to.host, to.port) or (one.service and one.service is to.service) for one in told):
        return True
    return bool(re.search(rf"{GENERATES}|{_CALLED}", text) or re.search(_MODELS, f"{to.host} {to.name}"))


def _last_answered(log: Log) -> int:
    """The number of the last line of a request that was answered: by whom it asks, or by whom nobody says; else 0."""
    lines = (x for word in (" 200", " 201", '"HTTP/', "is UP, reason: ") for x in log.find(word))
    return max((x.number for x in lines if re.search(_ANSWERED, x.text[:4000])), default=0)


def _has_another(to: Destination, container: Container, cluster: Cluster) -> bool:
    """Whether the container is told of another server of models, so that it may do without this one."""
    urls = (
        url
        for where, value in told_by(container, cluster)
        for url in re.findall(rf"https?://({_HOST})", value)
        if re.search(_MODELS, f"{where} {value[:300]}") and not re.search(_STORES, where)
    )
    based = any(re.search(r"OPENAI\w{0,20}(?:BASE|URL|ENDPOINT|HOST)", name) for name in container.env)
    public = not based and any(re.search(r"(?:OPENAI|ANTHROPIC)_API_KEY", name) for name in container.env)
    return public or any(url != to.host and not _is(url, to, container, cluster) for url in urls)


def _is(host: str, to: Destination, container: Container, cluster: Cluster) -> bool:
    """Whether another name means the same Service."""
    other = follow(host, None, container.pod, cluster)
    return other is not None and other.service is not None and other.service is to.service


def _break(container: Container, to: Destination, kind: str, line: Line, cluster: Cluster) -> Why | None:
    """The first link on the way that is broken."""

    lost = to.itself or (to.service is None and not to.pods)
    if lost and _configured(container, cluster) and not _mentioned(to.host, container, cluster):
        return None  # it asks others; the line may repeat what somebody wrote to it
    if to.itself:
        return _itself(container, to, line, cluster)
    if to.service is None and not to.pods:
        return _no_service(container, to, kind, cluster)
    service = to.service
    if kind == "nameless":
        return _unpublished(to, cluster)
    if service is not None and dig(service.raw, "spec.type") == "ExternalName":
        return None  # another name, whose ports are asked as they are
    if service is not None:
        listed = [row["port"] for row in rows(service.raw, "spec.ports") if isinstance(row.get("port"), int)]
        headless = dig(service.raw, "spec.clusterIP") == "None"
        if to.row is None and to.port is not None and listed and not headless:
            have = ", ".join(map(str, listed))
            return Why(
                "port-mismatch",
                f"Service {service.name} has no port {to.port}, only {have}",
                (object_evidence(service, "spec.ports", f"port: {have}"),),
                fixes.advice(
                    f"Let {fixes.edited(container.pod)} ask {service.name} at port {listed[0]}, or give the Service a port {to.port}"
                ),
            )
        if not to.pods:
            return _no_pod(service, cluster)
    if not any(pod.ready for pod in to.pods):
        return _not_ready(to, cluster)
    return _at_the_pod(to)


def _unpublished(to: Destination, cluster: Cluster) -> Why | None:
    """Why the name of a Service that is there has no address: of a headless one it has those of the ready pods."""
    spec = dig(to.service.raw, "spec") if to.service is not None else None
    if to.service is None or dig(spec, "clusterIP") != "None" or dig(spec, "publishNotReadyAddresses") is True:
        return None  # it has one now
    if not to.pods:
        return _no_pod(to.service, cluster)
    return None if any(pod.ready for pod in to.pods) else _not_ready(to, cluster)


def _mentioned(host: str, container: Container, cluster: Cluster) -> bool:
    """Whether a container is told of a host, for whatever purpose."""
    pattern = rf"(?<![\w.-]){re.escape(host)}(?![\w.-])"
    return any(re.search(pattern, value) for _, value in told_by(container, cluster))


def _itself(container: Container, to: Destination, line: Line, cluster: Cluster) -> Why | None:
    pod, text = container.pod, line.text[:4000]
    if pod.spec.host_network:
        return None  # that is its node, where anything may listen
    told = any((one.host, one.port) == (to.host, to.port) for one in _configured(container, cluster))
    if not told and not re.search(rf"https?://{re.escape(to.host)}:{to.port}/", text):
        return None  # the line may name by it where the program itself listens
    for engine in engines_in(pod):
        port = engine.get("port")
        if port is None or not isinstance(port.value, int) or not engine.container.status.ready:
            return None  # it comes up, or fails by itself
        if to.port in (None, port.value, engine.value("metrics_port")):
            return None
        declared = {p.container_port for c in pod.containers for p in c.spec.ports if c is not engine.container}
        if to.port in declared:
            return None
        return Why(
            "port-mismatch",
            f"{engine.title} in {engine.container.name} of the same pod listens on {port.value}",
            (_of_setting(engine, port),),
            fixes.advice(f"Let {container.name} ask port {port.value}, in {fixes.edited(pod)}"),
        )
    others = [c for c in pod.containers if c is not container and c.role != "init"]
    declares = any(p.container_port == to.port for c in pod.containers for p in c.spec.ports)
    if others or declares or to.port is None:
        return None
    # it may start the server itself, which was not up yet
    went_on = not pod.failing and len(line.log) - line.number > _ABOVE
    if went_on or listens(container, logs_of(pod), {str(to.port)}) is not None:
        return None
    return Why(
        "service-selects-nothing",
        f"that is {pod.name} itself, where no other container runs and none declares port {to.port}",
        (),
        fixes.advice(
            f"Name the Service of the model (SERVICE.NAMESPACE) in place of {to.host}, in {fixes.edited(pod)}"
        ),
        certain=told,
    )


def _no_service(container: Container, to: Destination, kind: str, cluster: Cluster) -> Why | None:
    if kind != "nameless":
        return None  # the name has an address, by whatever way
    there = cluster.exists("Service", to.namespace, to.name)
    known = there is False or next(cluster.items("Service", to.namespace), None) is not None
    elsewhere = next((item for item in cluster.items("Service") if item.name == to.name), None)
    said = (
        f"there is no Service {to.name} in {to.namespace}"
        if there is False
        else f"no Service {to.name} was read in {to.namespace}"
    )
    also = f", but one in {elsewhere.namespace}" if elsewhere is not None else ""
    right = (
        f"{elsewhere.name}.{elsewhere.namespace}"
        if elsewhere is not None
        else "SERVICE.NAMESPACE of the model's Service"
    )
    near = elsewhere or next(iter(cluster.items("Service", to.namespace)), None)
    return Why(
        "service-selects-nothing",
        said + also,
        (object_evidence(near, "metadata.name", near.name) if near is not None else None,),
        fixes.advice(f"Ask {right} in {fixes.edited(container.pod)}, or make the Service", "kubectl get services -A"),
        certain=known and _mentioned(to.host, container, cluster),
    )


def _no_pod(service: Item, cluster: Cluster) -> Why | None:
    wanted = selector_of(service)
    served = _has_endpoints(service, cluster)
    if not wanted or served:
        return None
    shown = ", ".join(f"{key}: {value}" for key, value in wanted.items())
    idle = idle_workload(service, cluster)
    if idle is not None:
        kind = idle.kind.partition(".")[0]
        return Why(
            "service-selects-nothing",
            f"Service {service.name} has no pod: {kind} {idle.name} is scaled to 0",
            (object_evidence(service, "spec.selector", shown), object_evidence(idle, "spec.replicas", "0")),
            _scale_up(kind, idle, cluster),
        )
    lost = _meant(service, wanted, cluster)
    if lost is None and served is None and not cluster.complete("Pod", service.namespace):
        return None  # its pods were not read
    labels = ", ".join(f"{k}: {v}" for k, v in lost.obj.metadata.labels.items() if k in wanted) if lost else ""
    return Why(
        "service-selects-nothing",
        f"Service {service.name} selects no pod ({shown})"
        + (f"; {lost.name} has {labels or 'none of these labels'}" if lost else ""),
        (
            object_evidence(service, "spec.selector", shown),
            Evidence(source="workload", ref=f"Pod/{lost.name} metadata.labels", text=labels)
            if lost and labels
            else None,
        ),
        fixes.advice(
            f"Make the selector of Service {service.name} and the labels of the server's pods the same, or start the server",
            f"kubectl -n {service.namespace} get pods --show-labels",
        ),
        at=lost,
    )


def _scale_up(kind: str, idle: Item, cluster: Cluster) -> Fix:
    """How a workload gets a pod; KEDA scales one of its own down again."""
    scalers = cluster.items("ScaledObject", idle.namespace)
    scaler = next((one for one in scalers if dig(one.raw, "spec.scaleTargetRef.name") == idle.name), None)
    if scaler is not None:
        return fixes.advice(
            f"Set minReplicaCount to 1 in ScaledObject/{scaler.name}, or let something that wakes {kind}/{idle.name} (KEDA's HTTP "
            "add-on) stand before it"
        )
    return fixes.advice(
        f"Scale {kind}/{idle.name} up",
        f"kubectl -n {idle.namespace} scale {kind.lower()}/{idle.name} --replicas=1",
    )


def _meant(service: Item, wanted: dict[str, str], cluster: Cluster) -> Pod | None:
    """The server that a Service should select: the only one that none leads to, with a label much like one that it wants."""
    lost = [pod for pod in _engine_pods(service.namespace, cluster) if pod.ready and not pod.services]
    owners = [(pod.item, *cluster.chain(pod.item)) for pod in lost if pod.item is not None]
    if len({chain[-1].name for chain in owners}) != 1:
        return None  # of several models each may be asked in another way
    held = {str(value) for value in lost[0].obj.metadata.labels.values()}
    return lost[0] if any(alike(one, other) for one in wanted.values() for other in held) else None


def alike(one: str, other: str) -> bool:
    """Whether one of two values is the other with something before or after it."""
    one, other = (re.sub(r"[^a-z0-9]", "", value.lower()) for value in (one, other))
    return bool(one and other) and (one in other or other in one)


def _engine_pods(namespace: str, cluster: Cluster) -> Iterator[Pod]:
    for item in cluster.items("Pod", namespace):
        pod = Pod(cast(k8s.Pod, item.typed()), cluster, item=item)
        if not pod.leaving and engines_in(pod):
            yield pod


def _has_endpoints(service: Item, cluster: Cluster) -> bool | None:
    """Whether somebody answers behind a Service, by its endpoints; None where they were not read."""
    key = "kubernetes.io/service-name"
    slices = [one for one in cluster.items("EndpointSlice", service.namespace) if _labels(one).get(key) == service.name]
    endpoints = cluster.item("Endpoints", service.namespace, service.name)
    if not slices and endpoints is None:
        return None
    return any(dig(one.raw, "endpoints") for one in slices) or bool(endpoints and dig(endpoints.raw, "subsets"))


def _labels(item: Item) -> dict[str, object]:
    found = item.metadata.get("labels")
    return found if isinstance(found, dict) else {}


def _not_ready(to: Destination, cluster: Cluster) -> Why | None:
    states = [_state(pod, cluster) for pod in to.pods]
    trouble, age = next(iter(states), None) or (None, None)
    if trouble is None or None in states:
        return None  # one loads its model
    pod = to.pods[0]
    where = f"Service {to.name}" if to.name else to.host
    since = f" for {say_seconds(age)}" if age is not None and trouble.kind == "not-ready" else ""
    many = f"none of its {len(to.pods)} pods is ready" if len(to.pods) > 1 else f"its pod {pod.name} is not ready"
    return Why(
        "not-ready",
        f"{where} has no server, as {many} ({trouble.text}{since})",
        (Evidence(source="workload", ref=f"Pod/{pod.name} status", text=f"{trouble.text}{since}"),),
        fixes.advice(f"See why {pod.name} is not ready", f"kubectl llmdoctor diagnose {pod.name} -n {pod.namespace}"),
        certain=False,
    )


def _state(pod: Pod, cluster: Cluster) -> tuple[Trouble, float | None] | None:
    """What is wrong with a server that is not ready, and for how many seconds; None for one that may be loading."""
    trouble = next(iter(pod.troubles), None)
    age = (cluster.now - trouble.since).total_seconds() if cluster.now and trouble and trouble.since else None
    loading = trouble is None or (trouble.kind == "not-ready" and (age is None or age < _LOADING))
    return None if trouble is None or loading else (trouble, age)


def _at_the_pod(to: Destination) -> Why | None:
    """Whether a ready server listens where the request arrives."""
    for pod in to.pods:
        if not pod.ready or pod.spec.host_network:
            continue
        target = to.target(pod)
        mains = [c for c in pod.containers if c.role != "init"]
        declared = {p.container_port for c in mains for p in c.spec.ports}
        service = to.service
        asked = (
            f"Service {service.name} sends to port {target} of {pod.name}"
            if service is not None
            else f"that is port {target} of {pod.name}"
        )
        sent = object_evidence(service, "spec.ports", f"targetPort: {target}") if service is not None else None
        engine = next((e for e in engines_in(pod) if isinstance(e.value("port"), int)), None)
        port = engine.get("port") if engine is not None else None
        if target is None or (len(mains) > 1 and (target in declared or engine is None)):
            continue
        if len(mains) == 1 and (alone := _loopback(mains[0], engine, target)) is not None:
            return Why(
                "loopback-only",
                f"{engine.title if engine else mains[0].name} in {pod.name} listens on {alone[0]} alone",
                (sent, alone[1]),
                fixes.advice(f"Have the server listen on all addresses of the pod, in {fixes.edited(pod)}"),
                at=pod,
            )
        if engine is not None and port is not None:
            further = {engine.value("metrics_port"), engine.value("grpc_port")}
            if target == port.value or target in further:
                continue
            if port.source not in ("flag", "log", "env") and port.value not in declared:
                continue
            listens, evidence = port.value, _of_setting(engine, port)
            title = engine.title
        else:
            probed = _probed(mains[0]) if len(mains) == 1 else None
            if probed is None or not declared or target in declared or target == probed[0]:
                continue
            listens, evidence, title = probed[0], probed[1], mains[0].name
        fix = fixes.advice(f"Ask {pod.name} at port {listens}")
        if service is not None and to.row is not None:
            index = rows(service.raw, "spec.ports").index(to.row)
            patch = [{"op": "add", "path": f"/spec/ports/{index}/targetPort", "value": listens}]
            fix = fixes.patch_object(service, f"Set targetPort to {listens} in Service/{service.name}", patch)
        # a container that declares no ports may listen there, for the engine
        sure = all(c.spec.ports for c in mains if engine is None or c is not engine.container)
        what = f"{asked}, and {title} listens on {listens}"
        return Why("port-mismatch", what, (sent, evidence), fix, certain=sure, at=pod)
    return None


def _loopback(container: Container, engine: Engine | None, port: int) -> tuple[str, Evidence] | None:
    """The loopback address at which alone a server listens, by what it was told or by its log."""
    logs = logs_of(container.pod)
    said = listens(container, logs, {str(port)})
    if said is not None:
        alone = said[0] != ANY_IPV4 and not listens_elsewhere(container, logs, said[2])
        return (said[0], log_evidence(said[1])) if alone else None
    host = loopback_told(engine) if engine is not None else None
    if host is None or str(host.value) == ANY_IPV4 or host.source == "default":
        return None
    return str(host.value), setting_evidence(container, host)


def _probed(container: Container) -> tuple[int, Evidence] | None:
    """The port at which a ready program answers its readiness probe."""
    probe = container.spec.readiness_probe
    action = (probe.http_get or probe.tcp_socket) if probe else None
    number = container.port_number(action.port) if action else None
    if probe is None or action is None or number is None:
        return None
    path = f"readinessProbe.{'httpGet' if probe.http_get else 'tcpSocket'}.port"
    return number, pod_evidence(container, path, str(action.port))


def _of_setting(engine: Engine, port: Setting) -> Evidence:
    if port.source == "default":
        return pod_evidence(engine.container, "args", f"no --port ({port.text})")
    return setting_evidence(engine.container, port)
