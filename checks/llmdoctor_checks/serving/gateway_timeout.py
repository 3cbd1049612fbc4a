"""A timeout in front of the engine that a generation can outlast."""

import re
from collections.abc import Iterator
from typing import Any

from kubectl_llmdoctor.api import (
    Cluster,
    Engine,
    Finding,
    Fix,
    Histogram,
    Line,
    Log,
    Logs,
    Metrics,
    Pod,
    Subject,
    check,
    dig,
    fixes,
    log_evidence,
    object_evidence,
    parse_time,
    say_seconds,
    stray,
)
from kubectl_llmdoctor.catalog.models import native_context
from llmdoctor_checks._clients import askers, speaks_of_one
from llmdoctor_checks.serving._answers import answered
from llmdoctor_checks.serving._exposure import leads
from llmdoctor_checks.serving._load import seconds_between
from llmdoctor_checks.serving._timeouts import (
    ALB_ATTRIBUTES,
    KNATIVE_MOST_SECONDS,
    NGINX_SECONDS,
    Timeout,
    of_envoy,
    ports,
    timeouts,
)

#: Faster than nearly every model generates for one request; what takes longer than the timeout at this pace is cut.
_FASTEST_TOKENS_PER_SECOND = 200

#: Longer answers are rare: a timeout that allows so many tokens is only noted.
_COMMON_TOKENS = 16384

#: ingress-nginx, APISIX and Kong, which are nginx: a read or connect timeout towards the server. Envoy (Istio, Contour, Envoy
#: Gateway, kgateway) has such details in its access log, `%RESPONSE_CODE_DETAILS%`, after the flag for it in a line of text; the last
#: is of what it asks where to send a request (ext_proc: an endpoint picker, a router of AIBrix).
_OF_PICKER = "ext_proc_error_per-message_timeout_exceeded"
_GAVE_UP = (
    _OF_PICKER,
    "upstream timed out (110:",
    "upstream_response_timeout",
    "upstream_per_try_timeout",
    "stream_idle_timeout",
    " UT response_timeout ",
    '"response_timeout"',
)

#: HAProxy's access log: the server did not begin its answer in time (`sH`), after the code and the bytes, and the backend as its
#: ingress controllers name it, by namespace and Service.
_OF_HAPROXY, _HAPROXY = " sH", r"\] \S+ (?P<backend>[\w.:-]+/\S+) [-+\d/]+ 504 \d+ \S+ \S+ sH"

#: Knative's activator (`handler.go`), which holds a request until a pod is ready, as long as the revision's timeout allows. It says
#: the same of a request that found the queue full, or whose client went away.
_NO_POD, _LATE = '"Throttler try error"', "context deadline exceeded"

#: What names neither the server nor what it was asked for; that stands in the request log so many lines beside it, at most. Go's
#: reverse proxy (net/http/httputil), of which llama-swap and others are made: the server behind it sent no headers in time. aiohttp's
#: client (helpers.py), with which Open WebUI and routers in Python ask: below it stands only `TimeoutError`.
_OF_GO, _OF_AIOHTTP = "proxy error: net/http: timeout awaiting response headers", "raise asyncio.TimeoutError from "
_BESIDE = {_OF_GO: 5, _OF_AIOHTTP: 100}
#: Engines that fetch an image of a request with it.
_FETCHES = r"File \"[^\"]*/(?:vllm|sglang|lmdeploy)/"
#: What says by itself that it waited for a model: Olla (`proxy/common/errors.go`), LiteLLM (`exceptions.py`).
_OF_MODELS = (
    "(LLM model taking longer than expected)",
    "(LLM response took too long)",
    "litellm.Timeout: APITimeoutError - Request timed out",
    "litellm.Timeout: Timeout Error: OpenAIException - Error code: 504",
)

#: Go's client with a time of its own, which names what it asked for: a router, or a program behind one that passes it on.
_OF_CLIENT = ('": net/http: timeout awaiting response headers', "(Client.Timeout exceeded while awaiting headers)")
_POSTED = r'Post \\{0,3}"https?://[^"\\\s]{1,500}\\{0,3}": (?:net/http: timeout awaiting|context deadline exceeded \(Client\.Timeout)'

#: Envoy lost the connection before the answer began: the server ended, or somebody's idle timeout closed it. Then all were as old, to
#: a fraction of a second; so many at least, and no shorter ones, which ends of a server are.
_LOST = "upstream_reset_before_response_started{connection_termination}"
_LOST_AFTER = r'"duration": ?"?(\d{4,8})"?[,}]|\{connection_termination\} \S+ "[^"]*" \d+ \d+ (\d{4,8}) '
_FEWEST_LOST, _SHORTEST, _SPREAD = 2, 5_000, 250
#: When they began; those that began at once are as old at the end of a server, too.
_LOST_SINCE, _AT_ONCE = r'(?:"start_time": ?"|^\[)([\dT:.-]{19,30}Z)', 1

#: Knative's queue-proxy, where it logs requests: the template of config-observability, `logging.request-log-template`.
_LATE_ANSWER, _LATENCY = '"status": 504', r'"latency": "(\d{1,6}(?:\.\d{1,9})?)s"'

#: A proxy that prints its own settings.
_SETTING = r'"response_timeout"\s*:'

#: Paths at which servers generate: OpenAI's and Anthropic's, TGI's and SGLang's, Ollama's, the Open Inference Protocol's.
_GENERATES = (
    r"/v1/(?:chat/completions|completions|responses|messages)\b|/generate(?:_stream)?\b|/api/(?:generate|chat)\b"
    r"|/v2/models/[^/\s]+/(?:infer|generate)|/v1/models/[^/\s]+:predict"
)

#: How engines say that a request began, and that its client went away: vLLM, llama-server.
_BEGUN = (
    ("request ", r"\b(?:Added|Received) request ([\w-]{4,80})"),
    ("launch_slot_", r"\| task (\d{1,12}) \| processing task"),
)
_GONE = (
    ("Aborted request", r"\bAborted request(?:\(s\))? ([\w-]{4,80})"),
    (" aborted", r"\bRequest ([\w-]{4,80}) aborted\b"),
    ("cancel task, id_task", r"id_task = (\d{1,12})"),
)

#: Ollama's, by status: of a request that waits, and of one that is not streamed and runs (`server/routes.go`), which is 500 as faults are,
#: which do not take so many seconds.
_GONE_OF_OLLAMA = (("| 499 |", 0), ("| 500 |", 5))
#: It says in so many lines before, at most, what went wrong.
_BEFORE = 3

#: So far from the timeout a request may end that it ended: the gateway counts from before the engine's first word to before its
#: last, and logs have whole seconds. So many that did, and so large a share of all whose clients went away, are no chance.
_EARLIER, _LATER, _FEWEST_CUT, _CUT_OF_GONE = 3, 4, 2, 0.8

#: So many requests say how long a request takes; from this share on they are cut. Where so many took half the time at most,
#: and the engine saw no client go, none is.
_ENOUGH_REQUESTS, _CUT_SHARE, _ENOUGH_TO_CLEAR = 100, 0.01, 1000


@check(
    "gateway-timeout",
    since="0.2",
    severity="warning",
    literals=(
        *(*_GAVE_UP, _NO_POD, _OF_HAPROXY, *_BESIDE, *_OF_MODELS, *_OF_CLIENT, _LOST, _LATE_ANSWER),
        *(words for words, _ in _GONE),
    ),
)
def gateway_timeout(
    pod: Pod, subject: Subject, cluster: Cluster, metrics: Metrics | None, logs: Logs | None
) -> Iterator[Finding]:
    """A timeout of the ingress, gateway, mesh or Knative cuts generations off.

    A model writes its answer token by token; an answer of the maximum length takes minutes. A timeout for the *whole*
    request (Istio's `timeout`, the Gateway API's `timeouts.request`, Knative's `timeoutSeconds`) cuts it off in the
    middle even while it streams; the client sees 504, or a stream that ends without `[DONE]`. A timeout between two
    reads (ingress-nginx's `proxy-read-timeout`, `haproxy.router.openshift.io/timeout` of an OpenShift Route) spares
    streams, and cuts off requests without `stream: true`, which send nothing until they are complete, and those that wait
    in the queue.

    Whether generations of that length happen depends on the clients; `max_tokens` caps them. The engine's metrics tell how
    long requests really take (`vllm:e2e_request_latency_seconds` and the like), from their arrival at the engine to their
    last token. Where requests are longer than the timeout, they are cut; where none comes near it, nothing is said. An engine
    that prints when a request begins and when its client goes away shows it, too: all go when they are as old as the timeout.

    What asks the server for others (LiteLLM, Olla, Open WebUI, a router) has a timeout of its own. What its log says of that counts
    where its environment, arguments or configuration name this server. So does an Envoy that lost every connection at the same
    age, or did not hear in time from what it asks where to send a request.

    ## Fix

    Raise the timeout above the longest generation, or remove it from the route of the model. Let clients stream.

    ## References

    - https://istio.io/latest/docs/concepts/traffic-management/#timeouts
    - https://gateway-api.sigs.k8s.io/guides/http-timeouts/
    - https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/annotations/#custom-timeouts
    """
    engine = next((e for e in subject.engines(pod) if ports(e)), None)
    serves = subject.engines(pod) or pod.log_only
    cut = _cut_off(pod, subject, cluster) if serves else _own_words(pod, cluster)
    if cut and not stray(cut):
        timeout = next(timeouts(pod, engine, subject, cluster), None) if engine else None
        where, whose = cut[0].log.pod or "A gateway", "a" if pod.log_only or not serves else "this"
        times = f"{len(cut)} times" if len(cut) > 1 else "once"
        yield Finding(
            role="cause",
            confidence="likely",
            summary=f"{where} gave up waiting for an answer from {whose} server; its log says so {times}.",
            evidence=(
                *(log_evidence(line) for line in cut[:2]),
                *([object_evidence(timeout.item, timeout.path, timeout.text)] if timeout else []),
            ),
            fixes=(_allow(pod, cut, timeout),),
            pods=(pod.name,) if pod.exists else (),
        )
        return
    if engine is None or not _generates(engine):
        return
    if logs is not None and (found := _given_up(pod, engine, subject, cluster, logs)):
        yield found
        return
    tokens, what = _longest(engine)
    taken = metrics.histogram("e2e") if metrics is not None else None
    for timeout in timeouts(pod, engine, subject, cluster):
        if taken is not None and taken.observed >= _ENOUGH_REQUESTS:
            if taken.above(timeout.seconds) >= _CUT_SHARE:
                yield _measured(pod, timeout, taken, tokens)
                return
            left = metrics.by("finished", "finished_reason").get("abort", 0.0) if metrics is not None else 0.0
            if taken.below(timeout.seconds / 2) == 1 and taken.observed >= _ENOUGH_TO_CLEAR and not left:
                continue
        fits = int(timeout.seconds * _FASTEST_TOKENS_PER_SECOND)
        if tokens is None or tokens <= fits:
            continue
        where = f"{timeout.item.raw.get('kind')}/{timeout.item.name}"
        needs = say_seconds(tokens / _FASTEST_TOKENS_PER_SECOND)
        ends = "ends every request after" if timeout.whole else "ends every request that sends nothing for"
        sure = fits < min(tokens, _COMMON_TOKENS) and (timeout.whole or timeout.seconds < NGINX_SECONDS)
        yield Finding(
            role="risk" if sure else "note",
            severity="warning" if sure else "info",
            confidence="likely" if timeout.whole else "possible",
            summary=f"{where} {ends} {say_seconds(timeout.seconds)}; {what} allows {tokens} tokens, and at "
            f"{_FASTEST_TOKENS_PER_SECOND} a second {fits} fit: one of full length takes {needs} or more.",
            evidence=(object_evidence(timeout.item, timeout.path, timeout.text),),
            fixes=(_fix(timeout, tokens),),
            pods=(pod.name,) if pod.exists else (),
        )
        return


def _given_up(pod: Pod, engine: Engine, subject: Subject, cluster: Cluster, logs: Logs) -> Finding | None:
    """Requests that somebody gave up when they were as old as a timeout on their way allows."""
    ages = list(_clients_gone(logs.current(engine.container.name)))
    late = [] if ages else list(_late_answers(logs.current("queue-proxy")))
    ages = ages or late
    if not ages:
        return None
    whose = "that Knative's proxy answered with 504" if late else "whose clients went away"
    names = {item.name for item in pod.services if leads(item, pod, ports(engine))}
    for timeout in (*of_envoy(names, pod.namespace, cluster), *timeouts(pod, engine, subject, cluster)):
        cut = [line for line, age in ages if timeout.seconds - _EARLIER <= age <= timeout.seconds + _LATER]
        if len(cut) < max(_FEWEST_CUT, _CUT_OF_GONE * len(ages)):
            continue
        return Finding(
            role="cause",
            severity="warning",
            confidence="likely",
            summary=f"{len(cut)} of {len(ages)} requests {whose} were {say_seconds(timeout.seconds)} old, which is what "
            f"{timeout.item.raw.get('kind')}/{timeout.item.name} allows{'' if timeout.whole else ' without a word of the answer'}.",
            evidence=(
                log_evidence(cut[-1]),
                object_evidence(timeout.item, timeout.path, timeout.text),
            ),
            fixes=(_fix(timeout, 0),),
            order=cut[0].order,
            pods=(pod.name,) if pod.exists else (),
        )
    return None


def _clients_gone(log: Log | None) -> Iterator[tuple[Line, float]]:
    """Requests whose client went away: the line that says so, and how old they were in seconds."""
    if log is None:
        return
    for status, least in _GONE_OF_OLLAMA:
        lost = [(x, y.seconds) for x in log.find(status) if (y := answered(x)) is not None and not _at_fault(x)]
        if lost := [one for one in lost if one[1] >= least]:
            yield from lost
            break
    gone = [one for words, pattern in _GONE for one in _requests(log, words, pattern)]
    if len(gone) < _FEWEST_CUT:
        return
    begun: dict[str, Line] = {}
    for words, pattern in _BEGUN:
        for name, line in _requests(log, words, pattern):
            begun.setdefault(name, line)
    for name, line in gone:
        first = begun.pop(name, None)
        if first is not None and (age := seconds_between(first, line)) is not None:
            yield line, age


def _at_fault(line: Line) -> bool:
    """Whether Ollama says before its answer what went wrong, as it does of a model that does not load in time."""
    return any(" level=ERROR " in before.text[:200] for before in line.log.lines(line.number - _BEFORE, line.number))


def _late_answers(log: Log | None) -> Iterator[tuple[Line, float]]:
    """Requests that Knative's proxy ended itself: the line of its request log, and how old they were in seconds."""
    for line in log.find(_LATE_ANSWER) if log is not None else ():
        after = line.text.partition(_LATE_ANSWER)[2]
        if '"httpRequest"' in line.text and (said := re.search(_LATENCY, after)) is not None:
            yield line, float(said[1])


def _requests(log: Log, words: str, pattern: str) -> Iterator[tuple[str, Line]]:
    """What a wording calls requests by, and its lines."""
    for line in log.find(words):
        if (said := re.search(pattern, line.text[:2000])) is not None:
            yield said[1], line


def _measured(pod: Pod, timeout: Timeout, taken: Histogram, tokens: int | None) -> Finding:
    """Requests that take longer than the timeout, as the engine measured them."""
    where, share = f"{timeout.item.raw.get('kind')}/{timeout.item.name}", taken.above(timeout.seconds)
    ends = "ends every request after" if timeout.whole else "ends every request that sends nothing for"
    slow = taken.quantile(0.99)
    seconds = max(slow * 2, (tokens or 0) / _FASTEST_TOKENS_PER_SECOND)
    said = (
        f"{share:.1%} took longer than {say_seconds(timeout.seconds)}, one in a hundred {say_seconds(slow)} or longer"
    )
    streams = "" if timeout.whole else " (those that stream are spared)"
    return Finding(
        role="risk",
        severity="warning",
        confidence="certain" if timeout.whole else "possible",
        summary=f"{where} {ends} {say_seconds(timeout.seconds)}; of {taken.observed:.0f} requests that the engine finished "
        f"{share:.1%} took longer{streams}.",
        evidence=(object_evidence(timeout.item, timeout.path, timeout.text), taken.evidence(said)),
        fixes=(_fix(timeout, int(seconds * _FASTEST_TOKENS_PER_SECOND)),),
        pods=(pod.name,),
    )


def _cut_off(pod: Pod, subject: Subject, cluster: Cluster) -> list[Line]:
    """Lines of gateways' logs, in other pods or beside the server in its own, that say that it did not answer in time."""
    said = cluster.once("gateway-timeout", lambda: _gave_up(cluster))
    if pod.log_only:
        return [line for who, line, _ in said if not who]
    if not pod.exists or not said:
        return []
    mine = {one.name for one in subject.pods}
    servers = {engine.container.name for engine in subject.engines(pod)}
    names = {item.name for item in pod.services}
    names |= {subject.workload.name} if subject.workload else set()
    names |= {str(pod.obj.metadata.labels.get("serving.knative.dev/revision") or "")} - {""}
    either = "|".join(map(re.escape, sorted(names)))
    # a route may spell a model's name with dots where Kubernetes has none
    named = re.compile(rf"(?<![\w-])(?:{either})(?![\w-])") if names else None
    # by its address, or that of its Service; that of a node is no pod's own
    services = (str(dig(item.raw, "spec.clusterIP") or "") for item in pod.services)
    own = (one.status.pod_ip for one in subject.pods if not one.spec.host_network)
    addresses = {*own, *services} - {"", "None"}
    there = re.compile(rf"(?<![\w.:])(?:{'|'.join(map(re.escape, sorted(addresses)))}):\d") if addresses else None
    # Envoy names a Service by its host
    host = re.compile(rf"(?<![\w-])(?:{either})\.{re.escape(pod.namespace)}(?![\w-])")
    # HAProxy's controllers name a backend by namespace, Service and port; OpenShift's router has the Service in a server's name
    own_space = re.escape(pod.namespace)
    backend = re.compile(rf"{own_space}_(?:svc_)?(?:{either})_|be_\w+:{own_space}:[\w.-]+/pod:[\w.-]+:(?:{either}):")

    fronts = _fronts(pod, cluster)

    def about_it(who: str, line: Line, plain: str) -> bool:
        text = line.text
        if _OF_GO in text:
            return who == pod.name
        if any(words in text for words in (_OF_AIOHTTP, *_OF_MODELS)):
            beside = who == pod.name and line.log.container not in servers
            return (beside or who in fronts) and _asks_for_text(line)
        if (of_haproxy := re.search(_HAPROXY, text)) is not None:
            return bool(names and backend.match(of_haproxy["backend"]))
        if who in mine:  # a proxy beside the server
            return who == pod.name and line.log.container not in servers and bool(re.search(_GENERATES, text))
        if (named and (named.search(plain) or host.search(text))) or (there and there.search(text)):
            return True
        before = any(of is not None and of.search(text) for of in fronts.values())
        return before and re.search(_GENERATES, text) is not None

    return [line for who, line, plain in said if about_it(who, line, plain)]


def _fronts(pod: Pod, cluster: Cluster) -> dict[str, re.Pattern[str] | None]:
    """Pods that ask this one for clients of theirs, and how a gateway names them: by their address, or a Service of theirs."""
    found: dict[str, re.Pattern[str] | None] = {}
    names = {item.name for item in pod.services}
    for container, _, _ in askers(pod, names, cluster):
        if not speaks_of_one(container, pod, names):
            continue
        front = container.pod
        ways = [rf"(?<![\w-]){re.escape(i.name)}\.{re.escape(front.namespace)}(?![\w-])" for i in front.services]
        if front.status.pod_ip and not front.spec.host_network:
            ways.append(rf"(?<![\w.:]){re.escape(front.status.pod_ip)}:\d")
        found[front.name] = re.compile("|".join(ways)) if ways else None
    return found


def _own_words(pod: Pod, cluster: Cluster) -> list[Line]:
    """Lines of the pod's own log, of a gateway, that say that some model server did not answer in time."""
    said = cluster.once("gateway-timeout", lambda: _gave_up(cluster)) if pod.exists else []
    return [line for who, line, _ in said if who == pod.name and _asks_for_text(line)]


def _asks_for_text(line: Line) -> bool:
    """Whether it is a request to generate that the gateway says this of."""
    text = line.text
    if any(words in text for words in _OF_MODELS):
        return True
    far = next((far for words, far in _BESIDE.items() if words in text), 0)
    beside = line.log.lines(line.number - far, line.number + min(far, 5)) if far else (line,)
    return any(re.search(_GENERATES, one.text) for one in beside)


def _gave_up(cluster: Cluster) -> list[tuple[str, Line, str]]:
    """Whose log says that some server did not answer in time: the pod, the line, and its text without dots."""
    found = []
    for text in cluster.snapshot.logs:
        log = Log(text)
        words = (*_GAVE_UP, _NO_POD, _OF_HAPROXY, *_BESIDE, *_OF_MODELS, *_OF_CLIENT)
        lines = {x.number: x for said in words for x in log.find(said) if _says_so(x)}
        lines |= {x.number: x for x in _lost_alike(log)}
        found += [(text.pod, line, re.sub(r"[._]", "-", line.text)) for _, line in sorted(lines.items())]
    return found


def _lost_alike(log: Log) -> list[Line]:
    """Requests whose connection to the server was closed when they were all as old."""
    lost = [(line, said) for line in log.find(_LOST) if (said := re.search(_LOST_AFTER, line.text))]
    ages = [int(said[1] or said[2]) for _, said in lost]
    if len(ages) < _FEWEST_LOST or min(ages) < _SHORTEST or max(ages) - min(ages) > _SPREAD:
        return []
    begun = [parse_time(m[1]) for line, _ in lost if (m := re.search(_LOST_SINCE, line.text))]
    times = [time for time in begun if time is not None]
    if len(times) == len(lost) and (max(times) - min(times)).total_seconds() < _AT_ONCE:
        return []
    return [line for line, _ in lost]


def _says_so(line: Line) -> bool:
    text = line.text
    if re.search(_SETTING, text):
        return False
    if _NO_POD in text:
        return _LATE in text
    if any(words in text for words in _OF_CLIENT):
        return bool(re.search(_POSTED, text) and re.search(_GENERATES, text))
    if _OF_AIOHTTP in text:
        before = [x.text[:2000] for x in line.log.lines(line.number - _BESIDE[_OF_AIOHTTP], line.number - 1)]
        if "/aiohttp/" not in "".join(before[-1:]) or any(re.search(_FETCHES, x) for x in before):
            return False
    return any(said in text for said in (*_GAVE_UP, *_BESIDE, *_OF_MODELS)) or re.search(_HAPROXY, text) is not None


def _generates(engine: Engine) -> bool:
    """Whether it writes text: embeddings and scores are done in one step."""
    if engine.name in ("tei", "triton"):
        return False
    told = [engine.value(name) for name in ("task", "runner", "is_embedding")]
    return not any(value in ("embed", "embedding", "score", "classify", "reward", "pooling", True) for value in told)


def _longest(engine: Engine) -> tuple[int | None, str]:
    """How many tokens one request may have, and what says so."""
    cap = engine.explicit("max_model_len")
    if cap:
        return (cap.value if isinstance(cap.value, int) and cap.value > 0 else None), cap.text
    model = engine.explicit("model")
    if model and isinstance(model.value, str) and engine.found.argv_known:
        return native_context(model.value), f"{model.value} without a cap"
    return None, ""


def _allow(pod: Pod, cut: list[Line], timeout: Timeout | None) -> Fix:
    """What lets requests be answered that somebody gave up."""
    if all(_NO_POD in line.text for line in cut):
        return fixes.advice(
            'Keep a pod running (autoscaling.knative.dev/min-scale: "1"), or raise timeoutSeconds above the time that one '
            f"takes to become ready, in {fixes.edited(pod)}"
        )
    if all(_OF_PICKER in line.text for line in cut):
        return fixes.advice(
            "Give what chooses the endpoint (ext_proc) more CPU or replicas, or raise the gateway's messageTimeout for it",
            owner="platform",
        )
    if timeout:
        return _fix(timeout, 0)
    return fixes.advice("Raise the timeout of the gateway's route above the longest generation, or let clients stream")


def _fix(timeout: Timeout, tokens: int) -> Fix:
    """Twice the time at the fastest pace, in whole minutes."""
    seconds = max(600, -(-2 * tokens // _FASTEST_TOKENS_PER_SECOND // 60) * 60)
    kind = timeout.item.raw.get("kind")
    value: Any = f"{seconds}s"
    if kind == "Pod":
        setting = "timeoutSeconds (spec.predictor.timeout of an InferenceService)"
        if not timeout.whole:
            setting = "responseStartTimeoutSeconds, or revision-response-start-timeout-seconds of knative-serving/config-defaults,"
        return fixes.advice(f"Set {setting} of the revision to {seconds}, with max-revision-timeout-seconds no less")
    if kind == "Service":
        value = min(seconds, KNATIVE_MOST_SECONDS)
        if value * _FASTEST_TOKENS_PER_SECOND < tokens:
            return fixes.advice(
                f"Set timeoutSeconds to {seconds} and max-revision-timeout-seconds of config-defaults (namespace "
                "knative-serving) to no less, or cap max_tokens",
                owner="platform",
            )
    elif kind == "Ingress" and ALB_ATTRIBUTES in timeout.path:
        value = f"idle_timeout.timeout_seconds={seconds}"
        if not timeout.pointer:  # other attributes stand in the same value
            return fixes.advice(
                f"Set {value} in the annotation {ALB_ATTRIBUTES} of Ingress {timeout.item.name}", owner="platform"
            )
    elif kind == "Ingress":
        value = str(seconds)
    elif timeout.pointer.endswith("/timeouts"):
        value = {"request": value}  # the route has none yet
    operation = {"op": "add", "path": timeout.pointer, "value": value}
    return fixes.patch_object(timeout.item, f"Allow {say_seconds(seconds)}", [operation])
