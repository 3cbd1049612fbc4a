"""Lines of gateways' and front ends' logs that say that a server did not answer in time, and of which server."""

import re
from itertools import takewhile

from kubectl_llmdoctor.api import (
    KNATIVE_REVISION,
    Cluster,
    Line,
    Log,
    Pod,
    Subject,
    backends_of,
    dig,
    engines_in,
    follow,
    host_of,
    in_order,
    leads_here,
    told_by,
)
from llmdoctor_checks._clients import asking
from llmdoctor_checks.serving._gateways import (
    CLIENT_TOLD,
    GENERATES,
    OF_KEDA,
    STATUS,
    asked_for,
    client_told,
    gave_up,
    hidden_clients,
    keda_gave_up,
    keda_leads,
    lost_alike,
)
from llmdoctor_checks.serving._model_router import ROUTED, routed_late

#: ingress-nginx, APISIX and Kong, which are nginx: a read or connect timeout towards the server. Envoy (Istio, Contour, Envoy
#: Gateway, kgateway) has such details in its access log, `%RESPONSE_CODE_DETAILS%`, after the flag for it in a line of text; the last
#: is of what it asks where to send a request (ext_proc: an endpoint picker, a router of AIBrix).
OF_PICKER = "ext_proc_error_per-message_timeout_exceeded"

#: nginx says so of a connection that did not come about as well: then no generation was cut off, and the network is the matter. Its
#: access log has such a request with 504 like any other.
_OF_NGINX, _CONNECTING = "upstream timed out (110:", r"while (?:connecting to|SSL handshaking to) upstream"

#: Whom it asked, and addresses of which a program is told.
_UPSTREAM = r'upstream: "https?://(?P<host>[\w.-]{1,253})(?::(?P<port>\d{1,5}))?'
_TOLD = r"https?://([\w.-]{1,253})(?::(\d{1,5}))?"

#: lighttpd's gw_backend.c, which names the socket alone.
_OF_LIGHTTPD, _SOCKET = "read timeout on socket: tcp:", r"on socket: tcp:(?P<host>[\w.-]{1,253}):(?P<port>\d{1,5}) "

GAVE_UP = (
    OF_PICKER,
    _OF_NGINX,
    "upstream_response_timeout",
    "upstream_per_try_timeout",
    "stream_idle_timeout",
    " UT response_timeout ",
    '"response_timeout"',
    '" 504 UT ',  # its default format has no details
    _OF_LIGHTTPD,
)

#: HAProxy's access log: the server did not begin its answer in time (`sH`), or took no request off HAProxy's queue (`sQ`), after the
#: code and the bytes, and the backend as its ingress controllers name it, by namespace and Service.
OF_HAPROXY = (" sH", " sQ")
_HAPROXY = r"\] \S+ (?P<backend>[\w.:-]+/\S+) [-+\d/]+ (?:504 \d+ \S+ \S+ sH|503 \d+ \S+ \S+ sQ)"

#: Knative's activator (`handler.go`), which holds a request until a pod is ready, as long as the revision's timeout allows. It says
#: the same of a request that found the queue full, or whose client went away.
NO_POD, _LATE = '"Throttler try error"', "context deadline exceeded"

#: How long Envoy waited, in milliseconds: a field of its access log (Caddy's of that name has seconds, with a point), or behind the
#: flag, what Istio adds to it, and the bytes.
_WAITED = (
    r'"(?:duration|latencyMs)":\s?"?(?P<field>\d{3,9})"?[,}]|'
    r'" 504 [A-Z,]{2,20} (?:\S{1,100} \S{1,100} "[^"]{0,200}" )?\d{1,12} \d{1,12} (?P<text>\d{3,9})\s'
)

#: The same of LiteLLM, of what a client was told in words, and of HAProxy, whose last timer is the whole time.
_PASSED = (
    r"(?:Timeout passed=|\b(?i:timeout after ))(\d{1,6}(?:\.\d{1,3})?)(?![\d.]| ?m)|/(\d{3,9}) 50[34] \d+ \S+ \S+ s[HQ]"
)

#: What names neither the server nor what it was asked for; that stands in the request log so many lines beside it, at most. Go's
#: reverse proxy (net/http/httputil), of which llama-swap and others are made: the server behind it, in its own pod or the one that it
#: is told of, sent no headers in time. aiohttp's client (helpers.py), with which Open WebUI and routers in Python ask: below it stands
#: only `TimeoutError`.
_OF_GO, _OF_AIOHTTP = "proxy error: net/http: timeout awaiting response headers", "raise asyncio.TimeoutError from "

#: Apache's mod_proxy, whose error for a timeout is 70007; what was asked for stands in the line after it, and in the access log.
_OF_APACHE, _OUT_OF_TIME = "AH01102: error reading status line from remote server", "(70007)"

BESIDE = {_OF_GO: 5, _OF_AIOHTTP: 100, _OF_APACHE: 3}

#: How a program asks the server beside it in its pod.
_LOOPBACK = ("localhost", "127.0.0.1")

#: Engines that fetch an image of a request with it.
_FETCHES = r"File \"[^\"]*/(?:vllm|sglang|lmdeploy)/"

#: What says by itself that it waited for a model: Olla (`proxy/common/errors.go`), LiteLLM (`exceptions.py`), VoidLLM (`proxy/handler.go`);
#: LLMKube's router by the age of a request.
OF_MODELS = (
    "(LLM model taking longer than expected)",
    "(LLM response took too long)",
    "litellm.Timeout: APITimeoutError - Request timed out",
    "litellm.Timeout: Timeout Error: OpenAIException - Error code: 504",
    "litellm.Timeout: Connection timed out. Timeout passed=",
    "stream timeout exceeded, aborting upstream connection",
    ROUTED,
)

#: The last of them LiteLLM says of connections, too (`http_handler.py`): what timed out stands in the traceback above it.
_OF_LITELLM, _READING, _ABOVE = r"^litellm\.\S{0,40}Timeout: ", r"Timeout on reading data|ReadTimeout", 60

#: OpenAI's library says the same of a connection that was not made: the traceback, which LiteLLM logs around it, says which it was.
_TRACED, _NOT_MADE, _WAS_MADE = 60, "ConnectTimeout", "ReadTimeout"

#: Go's client with a time of its own, which names what it asked for: a router, or a program behind one that passes it on.
OF_CLIENT = ('": net/http: timeout awaiting response headers', "(Client.Timeout exceeded while awaiting headers)")

#: What is limited there is the whole answer, be it a stream.
OF_STREAMS = (OF_CLIENT[1], OF_MODELS[5])

#: Those that waited as long as they are told themselves, and by what.
_SETTINGS = (
    (OF_MODELS[1], "response_timeout of Olla's proxy"),
    (OF_MODELS[2], "request_timeout in litellm_settings (a timeout in the model's litellm_params counts before it)"),
    (OF_MODELS[4], "request_timeout in litellm_settings (a timeout in the model's litellm_params counts before it)"),
    (OF_MODELS[5], "max_stream_duration of VoidLLM's server.proxy"),
    (ROUTED, "the timeout of its ModelRouter"),
    (OF_CLIENT[0], "ResponseHeaderTimeout of its HTTP client (Go's http.Transport)"),
    (OF_CLIENT[1], "Timeout of its HTTP client (Go's http.Client, which counts streams as well)"),
    (_OF_AIOHTTP, "the total timeout of its requests (AIOHTTP_CLIENT_TIMEOUT of Open WebUI)"),
)

_POSTED = r'Post \\{0,3}"https?://[^"\\\s]{1,500}\\{0,3}": (?:net/http: timeout awaiting|context deadline exceeded \(Client\.Timeout)'

#: A proxy that prints its own settings.
_SETTING = r'"response_timeout"\s*:'


def cut_off(pod: Pod, subject: Subject, cluster: Cluster) -> list[Line]:
    """Lines of gateways' logs, in other pods or beside the server in its own, that say that it did not answer in time."""
    said = cluster.once("gateway-timeout", lambda: _gave_up(cluster))
    if pod.log_only:
        return [line for line, _ in said if not line.log.pod]
    if not pod.exists or not said:
        return []
    server = _Server(pod, subject, cluster)
    return [line for line, plain in said if server.is_meant(line, plain)]


class _Server:
    """How gateways name one server, and who asks it for others."""

    def __init__(self, pod: Pod, subject: Subject, cluster: Cluster) -> None:
        self.pod = pod
        self.itself = (pod.namespace, pod.name)
        self.pods = {(one.namespace, one.name) for one in subject.pods}
        self.containers = {engine.container.name for engine in subject.engines(pod)}
        self.names = {item.name for item in pod.services}
        self.names |= {subject.workload.name} if subject.workload else set()
        self.names |= {pod.labels.get(KNATIVE_REVISION, "")} - {""}
        either, space = "|".join(map(re.escape, sorted(self.names))), re.escape(pod.namespace)
        # a route may spell a model's name with dots where Kubernetes has none
        self.name = re.compile(rf"(?<![\w-])(?:{either})(?![\w-])") if self.names else None
        # Envoy names a Service by its host
        self.host = re.compile(rf"(?<![\w-])(?:{either})\.{space}(?![\w-])")
        # ingress-nginx, Traefik and Envoy Gateway have the namespace before it
        self.spaced = re.compile(rf"(?<![\w-]){space}[-/](?:{either})(?![\w])")
        # HAProxy's controllers name a backend by namespace, Service and port; OpenShift's router has the Service in a server's name
        self.backend = re.compile(rf"{space}_(?:svc_)?(?:{either})_|be_\w+:{space}:[\w.-]+/pod:[\w.-]+:(?:{either}):")
        # by its address, or that of its Service; that of a node is no pod's own
        services = (str(dig(item.raw, "spec.clusterIP") or "") for item in pod.services)
        own = (one.status.pod_ip for one in subject.pods if not one.spec.host_network)
        addresses = "|".join(map(re.escape, sorted({*own, *services} - {"", "None"})))
        self.address = re.compile(rf"(?:(?<![\w.:])|(?<= tcp:))(?:{addresses}):\d") if addresses else None
        # a route that leads to it, as Envoy Gateway and Istio name it in their access logs
        self.routes = _named_routes(pod, cluster)
        self.fronts = _fronts(pod, cluster)
        self.by_keda = keda_leads(pod, cluster)
        self.behind_tunnel = dict(hidden_clients(pod, cluster))

    def is_meant(self, line: Line, plain: str) -> bool:
        """Whether a line, and the same without dots, speaks of this server."""
        text, who = line.text, pod_of(line)
        if _OF_GO in text:
            return who == self.itself or (who in self.fronts and self._is_of_peer(line) and _asks_for_text(line))
        if _OF_APACHE in text and not _asks_for_text(line):
            return False
        if any(words in text for words in OF_KEDA):
            return bool(self.name and self.name.search(plain)) or self.by_keda
        if any(words in text for words in (_OF_AIOHTTP, *OF_MODELS, *CLIENT_TOLD)) and not gave_up(line):
            return self._is_asked(line) and _asks_for_text(line)
        if (of_haproxy := re.search(_HAPROXY, text)) is not None:
            return bool(self.names and self.backend.match(of_haproxy["backend"]))
        if who in self.pods:  # a proxy beside the server
            return self._stands_beside(line) and bool(re.search(GENERATES, text))
        if self._is_named(line, plain) or any(way and way.search(text) for way in (self.address, self.routes)):
            return True
        behind = any(front is not None and front.search(text) for front in self.fronts.values())
        return behind and re.search(GENERATES, text) is not None

    def _is_of_peer(self, line: Line) -> bool:
        """Whether Go's proxy says so of a server in another pod: llama-swap starts servers of its own, and calls the others peers."""
        said_by = self.pod.cluster.item("Pod", *pod_of(line))
        starts = said_by is not None and "llama-swap" in str(dig(said_by.raw, "spec.containers"))
        return not starts or re.search(r"\bpeer\b", line.text[:400]) is not None

    def _stands_beside(self, line: Line) -> bool:
        """Whether a container that is no engine says it in the server's own pod."""
        return pod_of(line) == self.itself and line.log.container not in self.containers

    def _is_named(self, line: Line, plain: str) -> bool:
        """Whether a line names a Service of the server, its workload or its revision."""
        if self.name is None:
            return False
        if self.host.search(line.text):
            return True
        if gave_up(line) and not self.spaced.search(plain):  # a Service may be called like a word of any path
            return False
        return self.name.search(plain) is not None

    def _is_asked(self, line: Line) -> bool:
        """Whether a client that says so asks this server: beside it, in front of it, or by a tunnel that leads to it."""
        beside, outside = self._stands_beside(line), self.behind_tunnel.get(pod_of(line))
        if (beside or pod_of(line) in self.fronts) and self._is_named_by_client(line, beside):
            return True
        return outside is not None and all(host_of(url) == outside for url in asked_for(line))

    def _is_named_by_client(self, line: Line, beside: bool) -> bool:
        """Whether one of the addresses that a client's line names is the server's, if it names any."""
        urls, here = asked_for(line), line.log.source.namespace
        return not urls or any(
            (beside and host_of(url) in _LOOPBACK)
            or (self.address is not None and self.address.search(url) is not None)
            or leads_here(self.pod, self.names, url, here)
            for url in urls
        )


def _named_routes(pod: Pod, cluster: Cluster) -> re.Pattern[str] | None:
    """How gateways name the HTTPRoutes that lead to a pod and to no other, by its Services or pools."""
    behind = {(item.kind, pod.namespace, item.name) for item in (*pod.services, *pod.pools)}
    found = set()
    for route in cluster.items("HTTPRoute") if behind else ():
        led = {backend.meant for backend in backends_of(route)}
        if led and led <= behind:
            found |= {f"{re.escape(route.namespace)}[./]{re.escape(route.name)}"}
    return re.compile(rf"(?<![\w./-])(?:httproute/)?(?:{'|'.join(sorted(found))})(?=[./])") if found else None


def _fronts(pod: Pod, cluster: Cluster) -> dict[tuple[str, str], re.Pattern[str] | None]:
    """Pods that ask this one for clients of theirs, and such clients; how a gateway names them: by address, or a Service of theirs."""
    found: dict[tuple[str, str], re.Pattern[str] | None] = {}
    for front in (container.pod for container in asking(pod, cluster)):
        ways = [rf"(?<![\w-]){re.escape(i.name)}\.{re.escape(front.namespace)}(?![\w-])" for i in front.services]
        if front.status.pod_ip and not front.spec.host_network:
            ways.append(rf"(?<![\w.:]){re.escape(front.status.pod_ip)}:\d")
        found[front.namespace, front.name] = re.compile("|".join(ways)) if ways else None
    return found


def pod_of(line: Line) -> tuple[str, str]:
    """The namespace and the name of the pod whose log it is."""
    return line.log.source.namespace, line.log.pod


def own_words(pod: Pod, cluster: Cluster) -> list[Line]:
    """Lines of the pod's own log, of a gateway, that say that some model server did not answer in time."""
    said = cluster.once("gateway-timeout", lambda: _gave_up(cluster)) if pod.exists else []
    itself = (pod.namespace, pod.name)
    own = [x for x, _ in said if pod_of(x) == itself]
    return [x for x in own if _asks_for_text(x) or _of_models(x, pod, cluster) or _of_an_asker(x, pod, cluster)]


def _of_an_asker(line: Line, pod: Pod, cluster: Cluster) -> bool:
    """Whether nginx waited for the answer to a POST of a program that asks a server of models, whatever its paths are called."""
    to = re.search(_UPSTREAM, line.text[:4000]) if _OF_NGINX in line.text and '"POST /' in line.text[:4000] else None
    found = follow(to["host"], int(to["port"] or 80), pod, cluster) if to is not None else None
    return found is not None and not found.itself and any(_asks_a_model(one, cluster) for one in found.pods)


def _asks_a_model(pod: Pod, cluster: Cluster) -> bool:
    """Whether a container of the pod is told of an address at which an engine listens."""
    told = {url for container in pod.containers for _, text in told_by(container) for url in re.findall(_TOLD, text)}
    leads = (follow(host, int(port or 80), pod, cluster) for host, port in sorted(told))
    return any(to is not None and not to.itself and any(map(engines_in, to.pods)) for to in leads)


def _of_models(line: Line, pod: Pod, cluster: Cluster) -> bool:
    """Whether a line names nothing but the socket of a server, at which an engine listens."""
    socket = re.search(_SOCKET, line.text[:2000]) if _OF_LIGHTTPD in line.text else None
    to = follow(socket["host"], int(socket["port"]), pod, cluster) if socket is not None else None
    return to is not None and not to.itself and any(map(engines_in, to.pods))


def _asks_for_text(line: Line) -> bool:
    """Whether it is a request to generate that the gateway says this of."""
    text = line.text
    if any(words in text for words in (*OF_MODELS, *CLIENT_TOLD)):
        return True
    far = next((far for words, far in BESIDE.items() if words in text), 0)
    beside = line.log.lines(line.number - far, line.number + min(far, 5)) if far else (line,)
    return any(re.search(GENERATES, one.text) for one in beside)


def _gave_up(cluster: Cluster) -> list[tuple[Line, str]]:
    """Where a log says that some server did not answer in time: the line, and its text without dots."""
    found = []
    for text in cluster.snapshot.logs:
        log = Log(text)
        words = (*GAVE_UP, NO_POD, *OF_HAPROXY, *BESIDE, *OF_MODELS, *OF_CLIENT, *OF_KEDA, *CLIENT_TOLD, *STATUS)
        lines = in_order([*filter(_says_so, log.find(*words)), *lost_alike(log)])
        late = [re.search(_CONNECTING, x.text) is not None for x in log.find(_OF_NGINX)]
        if late and all(late):
            continue
        found += [(line, re.sub(r"[._]", "-", line.text)) for line in lines]
    return found


def _says_so(line: Line) -> bool:
    text = line.text
    if re.search(_SETTING, text) or (_OF_NGINX in text and re.search(_CONNECTING, text)):
        return False
    if NO_POD in text:
        return _LATE in text
    if any(words in text for words in OF_KEDA):
        return keda_gave_up(line)
    if gave_up(line) or client_told(line):
        return True
    if any(words in text for words in OF_CLIENT):
        return bool(re.search(_POSTED, text) and re.search(GENERATES, text))
    if ROUTED in text:
        return routed_late(line)
    if OF_MODELS[2] in text and _not_made(line):
        return False
    if OF_MODELS[4] in text:
        above = line.above(_ABOVE) if re.match(_OF_LITELLM, text) else ()
        return any(re.search(_READING, x.text[:2000]) for x in above)
    if _OF_APACHE in text:
        return _OUT_OF_TIME in text
    if _OF_AIOHTTP in text:
        before = [x.text[:2000] for x in line.above(BESIDE[_OF_AIOHTTP])]
        if "/aiohttp/" not in "".join(before[-1:]) or any(re.search(_FETCHES, x) for x in before):
            return False
    return any(said in text for said in (*GAVE_UP, *BESIDE, *OF_MODELS)) or re.search(_HAPROXY, text) is not None


def _not_made(line: Line) -> bool:
    """Whether it was a connection that was not made in time, by the tracebacks around what LiteLLM says of a request."""
    above = takewhile(_of_one_request, reversed(line.above(_TRACED)))
    below = takewhile(_of_one_request, line.log.lines(line.number + 1, line.number + _TRACED))
    texts = [x.text[:2000] for x in (*above, *below)]
    return any(_NOT_MADE in x for x in texts) and not any(_WAS_MADE in x for x in texts)


def _of_one_request(line: Line) -> bool:
    """Whether a line may be of the same request as the one before it: the access log has none of another."""
    return " HTTP/1" not in line.text[:2000]


def waited(lines: list[Line]) -> float | None:
    """How many seconds a gateway waited before it gave up, where its log says so and it was each time the same."""
    seconds = [said for line in lines if (said := _age(line.text[:8000])) is not None]
    return seconds[0] if len(seconds) == len(lines) and max(seconds) <= min(seconds) * 1.05 else None


def _age(text: str) -> float | None:
    """How many seconds a request was old when it was given up."""
    if (said := re.search(_WAITED, text)) is not None:
        return int(said["field"] or said["text"]) / 1000
    if (said := re.search(_PASSED, text)) is not None:
        return float(said[1] or int(said[2]) / 1000)
    return None


def telling(line: Line) -> str:
    """What in a line says that somebody gave up."""
    fields = ('"response_flags"', '"response_code_details"', '"response_code"')
    return next((words for words in (*GAVE_UP, *OF_MODELS, *OF_CLIENT, *fields) if words in line.text), "")


def own_setting(line: Line) -> str:
    """The setting of a program that waited as long as it is told itself, and was not cut off by a route."""
    return next((setting for words, setting in _SETTINGS if words in line.text), "")
