"""What gateways and clients print of a request that was given up, whatever program they are.

Sources: access logs of Envoy (its default text, Istio's, and JSON), ingress-nginx, Traefik (`CLF` and JSON), Caddy and uvicorn, all of
which have the request in quotes and the status after it, or both under names of their own. Clients: httpx (`HTTP Request: POST … "HTTP/1.1
504 …"`), openai, LangChain, LiteLLM and requests; the bodies are those of HAProxy, nginx, Envoy, Kong, Knative and Cloudflare.
"""

import re
from collections.abc import Iterator
from itertools import takewhile

from kubectl_llmdoctor.api import Cluster, Line, Log, Pod, dig, in_order, parse_time, rows

#: Paths at which servers generate: OpenAI's and Anthropic's, TGI's and SGLang's, Ollama's, the Open Inference Protocol's.
GENERATES = (
    r"/v1/(?:chat/completions|completions|responses|messages)\b|/generate(?:_stream)?\b|/api/(?:generate|chat)\b"
    r"|/v2/models/[^/\s]+/(?:infer|generate)|/v1/models/[^/\s]+:predict"
)

#: A status of an access log: no model server answers 504 by itself.
STATUS = (" 504 ", ":504,", ": 504,", ':"504"', ': "504"')
_TEXT = r"\"POST [^\"\s]{1,2000} HTTP/[\d.]{1,3}\" 504 "
_JSON = r'"(?:response_code|status|status_code|DownstreamStatus)": ?"?504"?[,}]'
#: Envoy says that the server answered so itself; of Knative's proxy beside a server the age of a request tells.
_BY_SERVER = ("via_upstream", '"httpRequest"')
#: So few milliseconds are no wait for an answer.
_MILLISECONDS, _NO_WAIT = r'"duration": ?"?(\d{1,9})"?[,}]', 1000

#: What a client is told in a gateway's place, by words that nothing else has.
CLIENT_TOLD = (
    "504 Gateway",
    "504 Server Error",
    "524 Server Error",
    "Error code: 504",
    "Error code: 524",
    *(
        f"{words}{code}"
        for code in (504, 524)
        for words in ("HTTP ", "status ", "status=", "status: ", "code ", "code=")
    ),
    "[524 ",
    "HTTP/1.1 524",
    "upstream request timeout",
    "The upstream server is timing out",
    "activator request timeout",
)
#: Who says so of a model: clients ask for other things, too. OpenAI's library has the status in these words. Where it names what it
#: asked for, that is looked at instead.
_OF_A_MODEL = r"(?i)litellm|openai|ollama|anthropic|completion|\bllm\b|inference|^Error code: 5|[^\w]Error code: 5"
#: What a user or a page may have written.
_OF_A_USER = r"(?i)\bprompt\b|\"(?:role|content|messages)\"|\buser (?:asked|message|query)"
_ADDRESS = r"https?://[^\s\"'<>]{1,500}"
#: What libraries refer to in their errors.
_MANUALS = r"https?://(?:docs|developer|platform|help)\."

#: Node's fetch (undici), which waits five minutes for headers: whom it asked it does not say.
UNDICI, UNDICI_SECONDS = "UND_ERR_HEADERS_TIMEOUT", 300

#: A client that no longer waited for an answer, and for how long it had: urllib3 and requests (which name whom they asked), axios,
#: .NET's HttpClient. Others name the path (Spring, Quarkus): then any words for a timeout will do but those for a connection.
WAITED = ("Read timed out", "ms exceeded", "HttpClient.Timeout of ", "imed out", "imeout")
_WAITED = (
    r"host='(?P<host>[\w.-]{1,253})', port=\d{1,5}\): Read timed out\. \(read timeout=(?P<seconds>\d{1,6})"
    r"|\btimeout of \d{4,9}ms exceeded|HttpClient\.Timeout of \d{1,6} seconds"
)
#: A setting that is printed beside a request is none.
_OUT_OF_TIME = (
    r"(?i:timed[ -]?out)|(?i:timeout\b(?: \S{1,40}){0,6} (?:exceeded|expired|elapsed|reached))|: timeout\b(?! ?[=:]? ?\d)"
    r"|Timeout(?:Error|Exception)\b(?![\],])|\bReadTimeout\b|timeout awaiting response headers"
)
#: So says a line that tells of no failure: its level, or what was answered.
_NO_FAILURE = r"\b(?:INFO|DEBUG|TRACE)\b|(?i:\blevel\W{1,4}(?:info|debug|trace)\b)|HTTP/[\d.]{1,3} 2\d\d\b"
_CONNECTING = (
    r"(?i)connect(?:ion|ing)?\W{0,3}(?:attempt )?time|connect timeout|while (?:connecting|ssl handshaking) to upstream"
    r"|(?:tcp connect|trying to connect|client error \(connect)\)?\W|\bdial tcp "
)
_PERIOD = r"\b(\d{4,9}) ?m(?:illi)?s(?:ec|econds)?\b|\b(\d{1,6})(?:\.\d{1,6})? ?s(?:ec|econds)?\b"
#: Those that name nobody, where they or the frames below them speak of a model. A traceback of Python's stands above. Java's
#: CompletionException is of anything.
_OF_MODELS, _BELOW = r"(?i)ollama|openai|anthropic|langchain|(?:chat|text|\ba)[ _.]?completion|\bllm\b", 5
#: The last line of a traceback of Python's, and how far above it its frames may stand; what Rust's client says above its cause.
_OF_PYTHON, _TRACED = r"(?:[a-z_]\w{0,30}\.){0,6}(?:ReadTimeout|ServerTimeoutError|SocketTimeoutError)\b", 60
_OF_REQWEST = "error sending request for url ("
#: What a line calls that is asked of a model, and what else a program around one waits for: stores, tools, locks of its own.
_OF_AN_ANSWER = (
    r"(?i)request|response|generat|completion|inference|answer|invo(?:ke|cation)|\bcall(?:ing|s)?\b"
    r"|timeout(?:error|exception)|read ?timeout"
)
STORES = (
    r"redis|valkey|postgres|psycopg|asyncpg|pgvector|sqlalchemy|\bsql|mysql|jdbc|hikari|mongo|kafka|rabbitmq|amqp|\bnats\b|celery|milvus|qdrant"
    r"|weaviate|chroma|elastic|opensearch|pinecone|langfuse|langsmith|opentelemetry|minio"
)
_ELSE = (
    rf"(?i){STORES}|database|\bdb\b|cache|vector|embed|rerank|retriev|\btool\b|\bsearch|\block\b|queue|\bpool\b|session|web.?socket|idle"
    r"|upload|download|\bs3\b|export|\bspans?\b|telemetry|smtp|\bdns\b|saving|insert|background"
)
_FRAME = r"\s|Caused by|Traceback"
_ABOVE = 20
_OTHER_PATHS = r"/api/(?:tags|version|ps)\b|/v1/models\b|(?i:health|heartbeat|\bGET\b|\bpull)"

#: A stream that ended in the middle, as clients say it: httpx, aiohttp, Go's, Codex, undici.
CUT_SHORT = (
    "without sending complete message body",
    "SSE stream: unexpected EOF",
    "stream disconnected before completion",
    "Response payload is not completed",
    "SocketError: other side closed",
)

#: Envoy lost the connection before the answer began: the server ended, or somebody's idle timeout closed it. Then all were as old, to
#: a fraction of a second; so many at least, and no shorter ones, which ends of a server are.
LOST = (
    "upstream_reset_before_response_started{connection_termination}",
    '"response_flags":"UC"',
    '"response_flags": "UC"',
    " 503 UC ",
)
_LOST_AFTER = (
    r'"duration": ?"?(\d{4,8})"?[,}]|\{connection_termination\} \S+ "[^"]*" \d+ \d+ (\d{4,8}) '
    r"| 503 UC \d+ \d+ (\d{4,8}) "
)
_FEWEST_LOST, _SHORTEST, _SPREAD = 2, 5_000, 250
#: When they began; those that began at once are as old at the end of a server, too.
_LOST_SINCE, _AT_ONCE = r'(?:"start_time": ?"|^\[)([\dT:.-]{19,30}Z)', 1

#: KEDA's HTTP add-on, which holds a request until a replica is ready (`interceptor/forward_wait_func.go`), or whose server sent no
#: headers in the time that it is given for them (`KEDA_RESPONSE_HEADER_TIMEOUT`).
OF_KEDA = ("context marked done while waiting for", "error on backend (net/http: timeout awaiting response headers)")
_LATE = "context deadline exceeded"

#: Cloudflare's tunnel: whose Service it asks, of a request whose client went away.
TUNNEL, _OF_TUNNEL = "originService=", r"originService=https?://(?P<host>[\w.-]{1,253})"
#: What a request that failed was for.
_DEST = (" dest=https://", r" dest=https://([\w.-]{1,253})")
#: Variables that name a server of models, and servers that everybody may ask.
_OF_A_SERVER = r"OPENAI|OLLAMA|LLM|ANTHROPIC|INFERENCE|MODEL|COMPLETION"
_PUBLIC = (
    r"(?:^|\.)(?:openai|anthropic|openrouter|groq|mistral|deepseek|together|fireworks|googleapis|azure|amazonaws|nvidia|cohere|x|huggingface"
    r"|cloudflare)\.(?:com|ai|co|xyz)$"
)


def gave_up(line: Line) -> bool:
    """Whether an access log has a request to generate that was answered with 504 after a while."""
    text = line.text
    if any(words in text for words in _BY_SERVER):
        return False
    if not re.search(_TEXT, text) and not ("POST" in text and re.search(_JSON, text)):
        return False
    waited = re.search(_MILLISECONDS, text)
    return re.search(GENERATES, text) is not None and (waited is None or int(waited[1]) >= _NO_WAIT)


def client_told(line: Line) -> bool:
    """Whether a client prints that something before the server gave up its request to generate."""
    text = line.text
    told = (words for words in CLIENT_TOLD if words in text)
    # a code may be the beginning of a number
    if not any(re.search(rf"{re.escape(words)}(?!\d)", text) for words in told) or re.search(_OF_A_USER, text):
        return False
    if named := asked_for(line):
        return any(re.search(GENERATES, one) or re.search(_OF_A_MODEL, text) for one in named)
    if re.search(r"(?i)\btool\b", text):  # of an agent
        return False
    # a page of HTML stands in lines of its own
    page = text.lstrip().startswith("<")
    beside = line.log.lines(max(line.number - 2, 1), line.number + 1) if page else (line,)
    return any(re.search(_OF_A_MODEL, one.text) for one in beside) or _asked_to_generate(line)


def _asked_to_generate(line: Line) -> bool:
    """Whether the last that a client says before its failure whom it asks is a request to generate, not yet answered."""
    before = [one.text[:4000] for one in line.above(2)]
    asked = next((text for text in reversed(before) if re.search(_ADDRESS, text)), "")
    return re.search(GENERATES, asked) is not None and re.search(r"HTTP/[\d.]{1,3} \d{3}\b", asked) is None


def waited(line: Line) -> tuple[float | None, str] | None:
    """How many seconds a client waited for an answer before it gave up, and the host that it asked, where it names them."""
    text = line.text[:4000]
    said = re.search(_WAITED, text)
    if re.search(_OF_A_USER, text) or re.search(_NO_FAILURE, text):
        return None
    if said is not None and said["host"]:
        path = re.search(r"with url: (\S{1,500})", text)
        if re.search(_OTHER_PATHS, text) or (path and not re.search(GENERATES, path[1])):
            return None
        return float(said["seconds"]), said["host"]
    if said is None and (not re.search(_OUT_OF_TIME, text) or re.search(_CONNECTING, text)):
        return None
    asked = [one for one in re.findall(_ADDRESS, text) if re.search(GENERATES, one)] or _asked_beside(line)
    if not asked and not re.search(rf"(?:{GENERATES})", text) and not _of_a_model(line):
        return None
    period = re.search(_PERIOD, text)
    seconds = (int(period[1]) / 1000 if period[1] else float(period[2])) if period else None
    return seconds, re.split(r"[:/]", asked[0].partition("://")[2], maxsplit=1)[0] if asked else ""


def _asked_beside(line: Line) -> list[str]:
    """What was asked, where the frames below the error say so (Reactor's checkpoint), or the error that it is the cause of (reqwest)."""
    if re.search(_ADDRESS, line.text[:4000]):
        return []
    below = (one.text[:2000] for one in line.log.lines(line.number + 1, line.number + _BELOW))
    above = (
        [one.text[:2000] for one in line.log.lines(max(line.number - 2, 1), line.number - 1)] if line.number > 1 else []
    )
    said = [*takewhile(lambda text: re.match(_FRAME, text), below), *(x for x in above if _OF_REQWEST in x)]
    return [one for text in said for one in re.findall(_ADDRESS, text) if re.search(GENERATES, one)]


def _of_a_model(line: Line) -> bool:
    """Whether a line that names no path speaks of a model, itself or by the frames below it, and of no connection above it."""
    text = line.text[:4000]
    if any(re.search(words, text) for words in (_ADDRESS, _OTHER_PATHS, _ELSE)):
        return False
    below = [one.text[:2000] for one in line.log.lines(line.number + 1, line.number + _BELOW)]
    frames = "\n".join(takewhile(lambda text: re.match(_FRAME, text), below))
    itself = re.search(_OF_MODELS, text) and re.search(_OF_AN_ANSWER, text)
    if re.match(_OF_PYTHON, text):  # its frames stand above
        traced = line.log.lines(max(line.number - _TRACED, 1), line.number - 1) if line.number > 1 else ()
        frames = "\n".join(takewhile(lambda text: re.match(_FRAME, text), reversed([x.text[:2000] for x in traced])))
    if re.search(rf"(?i){STORES}", frames) or not (itself or re.search(_OF_MODELS, frames)):
        return False
    above = [*line.log.lines(max(line.number - _ABOVE, 1), line.number)]
    return not any(re.search(r"ConnectTimeout|(?i:connection timed out)", one.text[:2000]) for one in above)


def asked_for(line: Line) -> list[str]:
    """The addresses that a line names, but for those of manuals."""
    return [url for url in re.findall(_ADDRESS, line.text) if not re.match(_MANUALS, url)]


def keda_gave_up(line: Line) -> bool:
    """Whether KEDA's interceptor did not get a replica, or its answer, in time."""
    return OF_KEDA[1] in line.text or (OF_KEDA[0] in line.text and _LATE in line.text)


def keda_leads(pod: Pod, cluster: Cluster) -> bool:
    """Whether all that KEDA's interceptor asks is this pod's workload."""
    found = list(cluster.items("HTTPScaledObject"))
    names = {item.name for item in pod.services}
    keys = ("spec.scaleTargetRef.service", "spec.scaleTargetRef.name", "spec.scaleTargetRef.deployment")
    mine = [
        one for one in found if one.namespace == pod.namespace and any(dig(one.raw, key) in [*names] for key in keys)
    ]
    return bool(found) and len(mine) == len(found)


def lost_alike(log: Log) -> list[Line]:
    """Requests whose connection to the server was closed when they were all as old."""
    lost = [(x, said) for x in in_order(log.find(*LOST)) if (said := re.search(_LOST_AFTER, x.text))]
    ages = [int(next(filter(None, said.groups()))) for _, said in lost]
    if len(ages) < _FEWEST_LOST or min(ages) < _SHORTEST or max(ages) - min(ages) > _SPREAD:
        return []
    begun = [parse_time(m[1]) for line, _ in lost if (m := re.search(_LOST_SINCE, line.text))]
    times = [time for time in begun if time is not None]
    if len(times) == len(lost) and (max(times) - min(times)).total_seconds() < _AT_ONCE:
        return []
    return [line for line, _ in lost]


def tunnelled(pod: Pod, cluster: Cluster) -> bool:
    """Whether a tunnel of Cloudflare's leads to the pod's Services, by its log, and to nothing else."""
    found, _ = cluster.once("tunnels", lambda: _tunnels(cluster))
    return bool(found) and found <= {(item.namespace, item.name) for item in pod.services}


def _tunnels(cluster: Cluster) -> tuple[set[tuple[str, str]], set[str]]:
    """Services that a tunnel leads to (namespace and name), and by which names it is asked, where its log has them."""
    found: set[tuple[str, str]] = set()
    asked: set[str] = set()
    for text in cluster.snapshot.logs:
        for line in Log(text).find(TUNNEL) if "cloudflared" in text.pod + text.container else ():
            if (said := re.search(_OF_TUNNEL, line.text)) is not None:
                name, _, rest = said["host"].partition(".")
                found.add((rest.partition(".")[0] or text.namespace, name))
        for line in Log(text).find(_DEST[0]) if "cloudflared" in text.pod + text.container else ():
            asked.update(re.findall(_DEST[1], line.text))
    return found, asked


def hidden_clients(pod: Pod, cluster: Cluster) -> Iterator[tuple[tuple[str, str], str]]:
    """Pods (namespace and name) that ask one server of models, by which name outside of the cluster, beside a tunnel that leads here."""
    if not tunnelled(pod, cluster):
        return
    _, asked = cluster.once("tunnels", lambda: _tunnels(cluster))
    for item in cluster.items("Pod"):
        variables = [one for container in rows(item.raw, "spec.containers") for one in rows(container, "env")]
        hosts = {
            host
            for one in variables
            for host in re.findall(r"^https?://([\w.-]{1,253})", str(one.get("value") or ""))
            if re.search(_OF_A_SERVER, str(one.get("name")))
        }
        if len(hosts) == 1 and _outside(host := hosts.pop(), cluster) and (not asked or host in asked):
            yield (item.namespace, item.name), host


def _outside(host: str, cluster: Cluster) -> bool:
    """Whether a name may be that of a tunnel: none of the cluster's own, and none of a server that everybody may ask."""
    name, _, rest = host.partition(".")
    inside = host.count(".") < 2 or host.endswith((".local", ".svc")) or cluster.item("Service", rest, name) is not None
    return not inside and re.search(_PUBLIC, host) is None
