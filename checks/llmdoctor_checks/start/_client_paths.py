"""Clients whose requests a server refuses one and all: for a path that it does not have, for want of its key, or of a type."""

import re
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import (
    Cluster,
    Container,
    Engine,
    Evidence,
    Finding,
    Fix,
    Line,
    Log,
    Logs,
    Pod,
    addresses,
    answered,
    count_of,
    dig,
    engines_in,
    fixes,
    log_evidence,
    logs_of,
    setting_evidence,
)
from llmdoctor_checks._unreached import configured
from llmdoctor_checks.serving._keyless_checks import checks_of, unchecked
from llmdoctor_checks.start._path_prefixes import passed_on

#: A request in the access log of uvicorn (vLLM, SGLang, LMDeploy, TensorRT-LLM; KServe has the process behind the address), of
#: llama-server and of Gin (Ollama, LocalAI).
_REQUESTS = (
    (
        "HTTP/1",
        r'(?P<client>[\da-f.:]{3,45}):\d{1,5}(?: \d{1,9})? - "(?P<verb>POST|GET) (?P<path>/[^\s"]{0,300}) HTTP/[\d.]{1,3}" '
        r"(?P<status>\d{3})\b",
    ),
    (
        "request: ",
        r"request: (?P<verb>POST|GET) (?P<path>/\S{0,300}) (?P<client>[\da-f.:]{3,45}) (?P<status>\d{3})\s*$",
    ),
    (
        "[GIN]",
        r'\| +(?P<status>\d{3}) \|[^|]{1,40}\| +(?P<client>[\da-f.:]{3,45}) \| (?P<verb>POST|GET) +"(?P<path>/[^"]{0,300})"',
    ),
)
#: What clients of OpenAI's, Anthropic's and Ollama's API, of TGI and of SGLang ask for. What none of them asks is somebody's search for
#: other things.
_CALLS = r"(?:chat/completions|completions|embeddings|responses|messages|models)"
_ASKED = rf"/{_CALLS}(?:[/?]|$)|/generate(?:_stream)?(?:\?|$)|/api/(?:chat|generate|embed|embeddings|tags|show)(?:\?|$)"
#: Where a server has it; there a 404 is of a model that it does not serve.
_RIGHT = rf"(?:/v\d)?/{_CALLS}(?:/[\w.-]{{1,200}})?(?:\?|$)"
_RIGHT_OF = {"ollama": rf"/api/(?:chat|generate|embed|embeddings|tags|show)(?:\?|$)|/v1/{_CALLS}"}
#: KServe has OpenAI's API below /openai, or what this variable says, and lists its own models at /v1/models.
_KSERVE_PREFIX, _KSERVE_OWN = "KSERVE_OPENAI_ROUTE_PREFIX", r"/v\d/models"
#: By what paths begin besides, where a proxy passes them on as they are: vLLM's and SGLang's option.
_ROOT = r"--(?:fastapi[-_])?root[-_]path[= ](/[\w./-]{1,200})"
#: Fewer prove no habit.
_FEWEST = 3

LITERALS = ("404 Not Found", "401 Unauthorized", "415 Unsupported Media Type")


class _Request(msgspec.Struct, frozen=True):
    """One request of a client to generate or to list the models, as the server logs it."""

    line: Line
    client: str
    path: str
    status: str


def refused_client(pod: Pod, cluster: Cluster) -> Iterator[Finding]:
    """The same from the side of the client, where it is the only one of a server of which it is told."""
    servers = {one.name: one for c in pod.containers for to in configured(c, cluster) for one in to.others}
    for server in servers.values() if pod.exists and not engines_in(pod) else ():
        for engine in engines_in(server):
            yield from refused_clients(server, engine, cluster, logs_of(server), pod.status.pod_ip)


def refused_clients(
    pod: Pod, engine: Engine, cluster: Cluster, logs: Logs | None, client: str | None = None
) -> Iterator[Finding]:
    """Clients of a ready server that answered nobody, and refuses each request alike; where one is named, that one alone."""
    log = engine.container.own_log(logs) if pod.ready else None
    if log is None or answered(log):
        return
    asked = list(_requests(log))
    if client is not None and any(one.client != client for one in asked):
        return
    wrong = [one for one in asked if one.status == "404" and not _has(engine, one.path)]
    keyless = [one for one in asked if one.status == "401"]
    if len(wrong) >= _FEWEST and len(wrong) == len(asked):
        yield _wrong_path(pod, engine, cluster, wrong)
    elif len(keyless) >= _FEWEST and len(keyless) == len(asked):
        yield _without_key(pod, engine, cluster, keyless)
    elif len(asked) >= _FEWEST and {one.status for one in asked} == {"415"}:
        yield _without_type(pod, engine, cluster, asked)


def _requests(log: Log) -> Iterator[_Request]:
    for literal, pattern in _REQUESTS:
        for line, said in log.matching(pattern, literal, most=2000):
            if re.search(_ASKED, said["path"]):
                yield _Request(line, said["client"], said["path"], said["status"])


def _has(engine: Engine, path: str) -> bool:
    """Whether the server may have a path: a 404 there speaks of a model."""
    spec = engine.container.spec
    if (root := re.search(_ROOT, " ".join(spec.argv))) is not None:
        path = path.removeprefix(root[1].rstrip("/"))
    if engine.name == "huggingfaceserver":
        prefix = _below(engine)
        return prefix is None or re.match(rf"{re.escape(prefix)}/v\d/{_CALLS}|{_KSERVE_OWN}", path) is not None
    right = _RIGHT_OF.get(engine.name, _RIGHT if engine.name == "llama.cpp" else _RIGHT.replace(r"(?:/v\d)?", r"/v\d"))
    return re.match(right, path) is not None


def _below(engine: Engine) -> str | None:
    """Below which path KServe has OpenAI's API, with a slash before it if need be; None where the variable's value is from elsewhere."""
    told = engine.container.env.get(_KSERVE_PREFIX)
    below = "/openai" if told is None else told.value
    return f"/{below}" if below and not below.startswith("/") else below


def _wrong_path(pod: Pod, engine: Engine, cluster: Cluster, wrong: list[_Request]) -> Finding:
    last = wrong[-1]
    client, where = _clients(wrong, pod, cluster)
    twice = re.match(r"(?:/[\w-]{1,40}){0,3}?/v1(?:/v1)+/", last.path) or "completions/chat/completions" in last.path
    below = _below(engine) or "" if engine.name == "huggingfaceserver" else ""
    right = "http://HOST:PORT" + {"ollama": ""}.get(engine.name, f"{below}/v1")
    told = _where_told(wrong, pod, cluster)
    calls = r"/api/" if engine.name == "ollama" else rf"/{_CALLS}(?:[/?]|$)"
    alike = told is not None and all(
        re.search(calls, one.path) for one in wrong
    )  # the API that the server has, at another place
    doubled = "//" in last.path  # the client puts a slash of its own after the one that ends its base URL
    fix = _rewritten(told, right.removeprefix("http://HOST:PORT"), doubled) if told is not None and alike else None
    way = passed_on(pod, last.path, lambda path: _has(engine, path), cluster) if told is None else None
    how = (
        f"Have the base URL of {client} end once in /v1 ({right}): the client appends the rest itself"
        if twice
        else f"Have the base URL of {client} end without a slash ({right}): the client puts one before the rest itself"
        if doubled
        else f"Give {client} the API and the base URL of {engine.title} ({right})"
    )
    return Finding(
        severity="warning",
        summary=f"{_begun(client)} asks {engine.container.name} for {last.path}, a path that {engine.title} does not have: "
        f"{count_of(len(wrong), 'request')}, all answered 404." + (f" {way[0]}." if way else ""),
        evidence=(log_evidence(last.line), *where, *((way[1],) if way else ())),
        fix=fix or (way[2] if way else fixes.advice(how)),
        order=last.line.order,
    )


def _where_told(requests: list[_Request], pod: Pod, cluster: Cluster) -> tuple[Container, str] | None:
    """The container and the variable by which the one client is told of the server, where there is one."""
    asking = {one.client for one in requests}
    clients = (
        [item for item in cluster.items("Pod") if str(dig(item.raw, "status.podIP")) in asking]
        if len(asking) == 1
        else []
    )
    told = [(c, name) for item in clients for c in Pod.of(item, cluster).containers for name in _variables(c, pod)]
    return told[0] if len(told) == 1 else None


def _rewritten(told: tuple[Container, str], path: str, doubled: bool) -> Fix | None:
    """The variable with the path that the server has behind host and port; None where that is no plain URL, or the same."""
    container, name = told
    value = container.env[name].value or ""
    base = re.match(r"https?://[\w.-]{1,253}(?::\d{1,5})?(?=[/]|$)", value)
    if base is None or re.search(r"[;,\s]", value) or base[0] + path == (value if doubled else value.rstrip("/")):
        return None
    kept = (
        " (and in its settings, under Connections: it keeps there what it was first told)"
        if "open-webui" in container.spec.image
        else ""
    )
    return fixes.set_env(
        container, name, base[0] + path, f"Set {name} of {fixes.edited(container.pod)} to {base[0]}{path}{kept}"
    )


def _without_type(pod: Pod, engine: Engine, cluster: Cluster, asked: list[_Request]) -> Finding:
    last = asked[-1]
    client, where = _clients(asked, pod, cluster)
    return Finding(
        severity="warning",
        summary=f"{_begun(client)} asks {engine.container.name} for {last.path} without saying that what it sends is JSON: "
        f"{count_of(len(asked), 'request')}, all refused (415).",
        evidence=(log_evidence(last.line), *where),
        fix=fixes.advice(
            f"Have {client} send Content-Type: application/json, and what passes its requests on keep that header"
        ),
        order=last.line.order,
    )


def _without_key(pod: Pod, engine: Engine, cluster: Cluster, keyless: list[_Request]) -> Finding:
    last, key = keyless[-1], engine.explicit("api_key")
    named = f" ({key.flag})" if key is not None and key.flag else ""
    client, where = _clients(keyless, pod, cluster)
    several = len({one.client for one in keyless}) > 1
    asking = [] if several else _at(last.client, cluster)
    router = next((c for other in asking if (c := checks_of(other)) is not None), None)
    return Finding(
        # several that nobody knows may be anybody who met with a server that is open to the world
        role="note" if several else "cause",
        severity="info" if several else "warning",
        confidence="likely" if where or key is not None else "possible",
        summary=f"{engine.container.name} wants a key, and {client} sends none or another: {count_of(len(keyless), 'request')}, all "
        "answered 401.",
        evidence=(
            log_evidence(last.line),
            *((setting_evidence(engine.container, key),) if key is not None else ()),
            *where,
        ),
        fix=unchecked(router)
        if router is not None
        else fixes.advice(
            f"Give {client} the key of {engine.container.name}{named}, both from one Secret, as a Bearer token (OPENAI_API_KEY in "
            "most clients)"
        ),
        order=last.line.order,
    )


def _clients(requests: list[_Request], pod: Pod, cluster: Cluster) -> tuple[str, tuple[Evidence, ...]]:
    """Who asks: one client, as far as it is known, or several of which nothing more is said."""
    if len({one.client for one in requests}) > 1:
        return "each of its clients", ()
    return _client(requests[0].client, pod, cluster)


def _client(address: str, pod: Pod, cluster: Cluster) -> tuple[str, tuple[Evidence, ...]]:
    """The pod that has an address, and by which variable it is told of the server; else the address.

    One that is told of none may pass on what others ask: an ingress controller.
    """
    for other in _at(address, cluster):
        where = tuple(e for c in other.containers for e in _told(c, pod))[:2]
        return (other.name if where else f"{other.name}, or who asks through it,"), where
    return f"the client at {address}", ()


def _at(address: str, cluster: Cluster) -> list[Pod]:
    """The pods of an address of their own."""
    asking = [item for item in cluster.items("Pod") if str(dig(item.raw, "status.podIP")) == address]
    return [Pod.of(item, cluster) for item in asking if not dig(item.raw, "spec.hostNetwork")]


def _begun(client: str) -> str:
    """A client at the beginning of a sentence; the name of a pod stays as it is."""
    return f"T{client[1:]}" if client.startswith("the client at ") else client


def _told(container: Container, pod: Pod) -> Iterator[Evidence]:
    for name in _variables(container, pod):
        text = f"{container.pod.name}: {name}={container.env[name].value}"
        yield Evidence(source="workload", ref=f"Pod/{container.pod.name} env[{name}]", text=text)


def _variables(container: Container, pod: Pod) -> Iterator[str]:
    """The variables of a client that hold an address of the server."""
    names = {item.name for item in pod.services}
    for name, variable in container.env.items():
        if not variable.value or not re.search(r"(?:BASE_URL|API_BASE|ENDPOINT)S?$", name):
            continue
        here = addresses(variable.value, names, pod.namespace, container.pod.namespace)
        if here or (not names and re.search(r"/v1\b|:11434\b", variable.value)):
            yield name
