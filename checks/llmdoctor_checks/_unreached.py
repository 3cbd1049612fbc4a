"""Clients and gateways whose logs say that they do not reach a server of models, and whom they ask.

Whom they ask stands in the line, or, where it names nobody, in what the container was told.
"""

import re
from collections import deque
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import (
    Cluster,
    Container,
    Destination,
    Line,
    Log,
    Pod,
    engines_in,
    expression,
    follow,
    told_by,
)
from llmdoctor_checks._connections import (
    BARE,
    HOST,
    NAMELESS,
    REFUSED,
    SILENT,
    STATED,
    TIMED_OUT,
    TLS_ANSWERED,
    URL,
    port_in,
)
from llmdoctor_checks.serving._gateways import GENERATES

#: What a gateway answered by itself; of Traefik's access log nothing else says so. Whom it asked stands in the line.
_UNAVAILABLE = ('" 502 ', '" 503 ', '"OriginStatus":502', '"OriginStatus":503')
#: How an ingress controller says, whenever it makes its configuration, that a Service has no ready pod: Traefik 2, nginx.
_NO_ENDPOINTS = ("subset not found for ", "endpoints not found for ", "does not have any active ")
_OF_SERVICE = expression(
    r"\b(?:subset|endpoints) not found for (?P<space>[\w.-]{1,63})/(?P<name>[\w.-]{1,253}?)(?=[\\\"\s]|$)"
    r"|\b[Ss]ervice \\?\"?(?P<of>[\w.-]{1,63})/(?P<called>[\w.-]{1,253})\\?\"? does not have any active [Ee]ndpoint"
)
LITERALS = (*REFUSED, *SILENT, *NAMELESS, *_UNAVAILABLE, *_NO_ENDPOINTS)

#: What openai's library makes of each of these; why stands in the traceback above, of so many lines at most.
_WRAPPER, _ABOVE = "Connection error.", 80


#: What timed out over a connection that there was: nginx's words, and those of clients in Python, Java and Node.
_CONNECTED = (
    r"(?i)\bwhile (?:reading|sending|SSL handshaking)\b|\bRead timed out|\bReadTimeout|SocketTimeoutException: timeout\b"
    r"|HEADERS_TIMEOUT|BODY_TIMEOUT"
)
#: Lines of one literal that are looked at, the last ones.
_MOST_LINES = 40


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


#: So many lines above its last an error is still told of.
_SAME_ERROR = 20


class Unreached(msgspec.Struct, frozen=True):
    """Who says so, in which line, and whom it asks; `kind` is `refused`, `silent`, `nameless`, `unavailable` or `unfilled`."""

    client: Container
    line: Line
    to: Destination
    kind: str


def unreached(cluster: Cluster) -> Iterator[Unreached]:
    """What the logs of clients say last of each whom they do not reach."""
    for text in cluster.snapshot.logs:
        item = cluster.item("Pod", text.namespace, text.pod)
        if item is None:
            continue
        pod = Pod.of(item, cluster)
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


def _of(container: Container, log: Log, cluster: Cluster) -> Iterator[Unreached]:
    """What the last lines of a client's log say, for each whom it asks."""
    done: set[str] = set()
    answered: int | None = None
    kinds = (
        ("refused", REFUSED),
        ("silent", SILENT),
        ("nameless", NAMELESS),
        ("unavailable", _UNAVAILABLE),
        ("unfilled", _NO_ENDPOINTS),
    )
    for kind, words in kinds:
        lines = {line.number: line for one in words for line in deque(log.find(one), maxlen=_MOST_LINES)}
        for line in _in_turn(lines) if kind == "nameless" else sorted(lines.values(), key=_for_requests, reverse=True):
            text = line.text[:4000]
            if (_WRAPPER in text and _of_something_else(line)) or (kind == "silent" and not _in_vain(text)):
                continue
            if kind == "unavailable" and not re.search(GENERATES, text):
                continue
            for to in asked_in(text, container, cluster, or_told=kind != "unavailable"):
                if to.shown in done or not _of_models(text, to, container, cluster):
                    continue
                answered = last_answered(log) if answered is None else answered
                if line.number < answered:
                    continue
                if kind != "unfilled" and not re.search(_GENERATING, text) and _has_another(to, container, cluster):
                    continue  # it may do without
                done.add(to.shown)
                yield Unreached(container, line, to, kind)


def _in_vain(text: str) -> bool:
    """Whether a line speaks of a timeout before there was a connection, as far as it says."""
    return re.search(TIMED_OUT, text) is not None and re.search(_CONNECTED, text) is None


def scrapes(line: Line) -> bool:
    """Whether it asked for metrics: without them requests come all the same."""
    return "/metrics" in line.text[:4000]


def _for_requests(line: Line) -> tuple[bool, int]:
    """The last line first, but what a client asks of a model before the metrics that it wants, too."""
    return not scrapes(line), line.number


def _in_turn(lines: dict[int, Line]) -> list[Line]:
    """The last line first, and before it those of the same error that name whom was asked: of one printed over several, one does."""
    same = max(lines, default=0) - _SAME_ERROR

    def telling(line: Line) -> tuple[bool, int]:
        near = line.number >= same
        return near and any(re.search(pattern, line.text[:4000]) for pattern in STATED), line.number

    return sorted(lines.values(), key=telling, reverse=True)


def _of_something_else(line: Line) -> bool:
    """Whether, by the traceback around it, a name did not resolve, which has its own line, or TLS failed with who answered."""
    # LiteLLM has the traceback below the line that says what came of it
    end = line.number + (_ABOVE if re.search(r"\blitellm\.\w{1,60}Error\b", line.text[:4000]) else 0)
    around = line.log.lines(max(line.number - _ABOVE, 1), end)
    return any(
        words in x.text for x in around for words in (*NAMELESS, *TLS_ANSWERED, "emporary failure in name resolution")
    )


def asked_in(text: str, container: Container, cluster: Cluster, *, or_told: bool) -> Iterator[Destination]:
    """Whom a line names, as far as the cluster knows them; where it names nobody, the one whom the container was told to ask."""
    named, text = False, re.sub(_CAME_FROM, "", text)
    if (of := _OF_SERVICE.search(text)) is not None:
        host = f"{of['name'] or of['called']}.{of['space'] or of['of']}.svc"
        if (to := follow(host, None, container.pod, cluster)) is not None:
            yield to
        return
    for pattern in STATED:
        for said in re.finditer(pattern, text):
            found = said.groupdict()
            to = follow(found["host"], port_in(found), container.pod, cluster)
            named = True
            if to is not None:
                yield _with_port(to, container, cluster)
    for said in re.finditer(BARE, text):
        to = follow(said["host"], int(said["port"]), container.pod, cluster)
        if to is not None and (to.service is not None or to.pods) and not (to.itself and ":53" in text):
            named = True
            yield to
    if not named and or_told:
        meant = {to.shown: to for to in configured(container, cluster)}
        if len(meant) == 1:
            yield from meant.values()


def _with_port(to: Destination, container: Container, cluster: Cluster) -> Destination:
    """The same with the port that the container was told, where the line has only the name."""
    if to.port is not None:
        return to
    told = {one.port: one for one in configured(container, cluster) if one.host == to.host and one.port is not None}
    return next(iter(told.values())) if len(told) == 1 else to


def configured(container: Container, cluster: Cluster) -> list[Destination]:
    """The servers of models that a container is told of."""
    key = f"told {container.pod.namespace} {container.pod.name} {container.name}"
    return cluster.once(key, lambda: list(_told_of(container, cluster)))


def _told_of(container: Container, cluster: Cluster) -> Iterator[Destination]:
    for where, value in told_by(container):
        for pattern in (URL, BARE) if ":" in value or "', " in value else ():
            for said in re.finditer(pattern, value):
                found = said.groupdict()
                port = port_in(found) or 0
                to = follow(found["host"], port, container.pod, cluster)
                if to is None or (pattern is BARE and (to.service is None or to.itself)):
                    continue
                near = value[max(said.start() - 40, 0) : said.end() + 40]
                if port in _STORE_PORTS or re.search(_STORES, f"{where} {to.host}"):
                    continue
                if re.search(_MODELS, f"{where} {near}") or any(map(engines_in, to.pods)):
                    yield to


def _of_models(text: str, to: Destination, container: Container, cluster: Cluster) -> bool:
    """Whether what is asked is a server of models: an engine runs there, or it is called and asked like one."""
    if any(map(engines_in, to.others)):
        return True
    if to.service is None and to.others:
        return False  # the address of a pod may be the client's of a request
    if to.port in _STORE_PORTS or re.search(_STORES, f"{to.host} {to.name}"):
        return False
    if any(re.search(_PROXY, name) and to.host in value for name, value in told_by(container)):
        return False
    told = configured(container, cluster)
    if any((one.host, one.port) == (to.host, to.port) or (one.service and one.service is to.service) for one in told):
        return True
    return bool(re.search(rf"{GENERATES}|{_CALLED}", text) or re.search(_MODELS, f"{to.host} {to.name}"))


def last_answered(log: Log) -> int:
    """The number of the last line of a request that was answered: by whom it asks, or by whom nobody says; else 0."""
    lines = log.find(" 200", " 201", '"HTTP/', "is UP, reason: ")
    return max((x.number for x in lines if re.search(_ANSWERED, x.text[:4000])), default=0)


def _has_another(to: Destination, container: Container, cluster: Cluster) -> bool:
    """Whether the container is told of another server of models, so that it may do without this one."""
    urls = (
        url
        for where, value in told_by(container)
        for url in re.findall(rf"https?://({HOST})", value)
        if re.search(_MODELS, f"{where} {value[:300]}") and not re.search(_STORES, where)
    )
    based = any(re.search(r"OPENAI\w{0,20}(?:BASE|URL|ENDPOINT|HOST)", name) for name in container.env)
    public = not based and any(re.search(r"(?:OPENAI|ANTHROPIC)_API_KEY", name) for name in container.env)
    return public or any(url != to.host and not _is(url, to, container, cluster) for url in urls)


def _is(host: str, to: Destination, container: Container, cluster: Cluster) -> bool:
    """Whether another name means the same Service."""
    other = follow(host, None, container.pod, cluster)
    return other is not None and other.service is not None and other.service is to.service


def mentioned(host: str, container: Container) -> bool:
    """Whether a container is told of a host, for whatever purpose."""
    pattern = rf"(?<![\w.-]){re.escape(host)}(?![\w.-])"
    return any(re.search(pattern, value) for _, value in told_by(container))
