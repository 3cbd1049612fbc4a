"""A timeout in front of the engine that a generation can outlast."""

import re
from collections.abc import Iterator
from itertools import pairwise
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
    addresses,
    check,
    clients,
    count_of,
    dig,
    fixes,
    host_of,
    leads_here,
    log_evidence,
    object_evidence,
    say_seconds,
    stray,
)
from kubectl_llmdoctor.catalog.models import native_context
from llmdoctor_checks._clients import asking, before
from llmdoctor_checks.serving._answers import answered
from llmdoctor_checks.serving._exposure import leads
from llmdoctor_checks.serving._gateways import (
    CLIENT_TOLD,
    CUT_SHORT,
    GENERATES,
    LOST,
    OF_KEDA,
    STATUS,
    TUNNEL,
    UNDICI,
    UNDICI_SECONDS,
    WAITED,
    asked_for,
    client_told,
    gave_up,
    hidden_clients,
    keda_gave_up,
    keda_leads,
    lost_alike,
    waited,
)
from llmdoctor_checks.serving._idle import LITERALS as RESET
from llmdoctor_checks.serving._idle import closed_while_idle
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
    '" 504 UT ',  # its default format has no details
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
#: How a program asks the server beside it in its pod.
_LOOPBACK = ("localhost", "127.0.0.1")
#: Engines that fetch an image of a request with it.
_FETCHES = r"File \"[^\"]*/(?:vllm|sglang|lmdeploy)/"
#: What says by itself that it waited for a model: Olla (`proxy/common/errors.go`), LiteLLM (`exceptions.py`).
_OF_MODELS = (
    "(LLM model taking longer than expected)",
    "(LLM response took too long)",
    "litellm.Timeout: APITimeoutError - Request timed out",
    "litellm.Timeout: Timeout Error: OpenAIException - Error code: 504",
)

#: Those that waited as long as they are told themselves, and by what.
_SETTINGS = (
    (_OF_MODELS[1], "response_timeout of Olla's proxy"),
    (_OF_MODELS[2], "request_timeout of litellm_settings, or timeout of the model's litellm_params,"),
    (_OF_AIOHTTP, "the total timeout of its requests (AIOHTTP_CLIENT_TIMEOUT of Open WebUI)"),
)

#: Go's client with a time of its own, which names what it asked for: a router, or a program behind one that passes it on.
_OF_CLIENT = ('": net/http: timeout awaiting response headers', "(Client.Timeout exceeded while awaiting headers)")
_POSTED = r'Post \\{0,3}"https?://[^"\\\s]{1,500}\\{0,3}": (?:net/http: timeout awaiting|context deadline exceeded \(Client\.Timeout)'

#: Knative's queue-proxy, where it logs requests: the template of config-observability, `logging.request-log-template`.
_LATE_ANSWER, _LATENCY = '"status": 504', r'"latency": "(\d{1,6}(?:\.\d{1,9})?)s"'

#: A proxy that prints its own settings.
_SETTING = r'"response_timeout"\s*:'

#: How engines say that a request began, and that its client went away: vLLM, llama-server.
_BEGUN = (
    ("request ", r"\b(?:Added|Received) request ([\w-]{4,80})"),
    ("launch_slot_", r"\| task (\d{1,12}) \| processing task"),
)
#: Such lines in full, of which many are kept of a long log.
_COUNTED = ("Added request ", " processing task")
_GONE = (
    ("Aborted request", r"\bAborted request(?:\(s\))? ([\w-]{4,80})"),
    (" aborted", r"\bRequest ([\w-]{4,80}) aborted\b"),
    ("cancel task, id_task", r"id_task = (\d{1,12})"),
)

#: Ollama's, by status: of a request that waits, and of one that is not streamed and runs (`server/routes.go`), which is 500 as faults are,
#: which do not take so many seconds.
_GONE_OF_OLLAMA = (("| 499 |", 0), ("| 500 |", 5))
#: Or it logs 200 and says before that it stops (`runner.go`).
_STOPS = "aborting completion request due to client closing the connection"
#: It says in so many lines before, at most, what went wrong.
_BEFORE = 3

#: So far from the timeout a request may end that it ended: the gateway counts from before the engine's first word to before its
#: last, and logs have whole seconds. So many that did, and so large a share of all whose clients went away, are no chance.
_EARLIER, _LATER, _FEWEST_CUT, _CUT_OF_GONE = 3, 4, 2, 0.8

#: Ollama drops a load when the client of the request that wanted it goes away.
_LOADING = "client connection closed before server finished loading"
#: A client prints how long a request took so many lines before the end of its traceback at most.
_NEAR = 40
#: So few seconds streams of models often take.
_LIKELY = 300
#: Timeouts that people set are multiples of so many seconds, and no shorter; requests that one ends are as old to so much.
_ROUND, _OLD, _ALIKE = 5, 10, 1
#: So many that went at one such age, each at another time, are no chance, whatever the server did meanwhile.
_FEWEST_ALIKE = 3

#: So many answers for each request that was given up make it a note.
_MANY = 10
#: A request to generate that was answered: uvicorn's access log, Gin's, llama-server's.
_ANSWERED_WELL = rf"POST [^\n]{{0,60}}(?:{GENERATES})[^\n]{{0,60}}\b200\b|\| 200 \|[^\n]{{0,80}}POST "

#: So many requests say how long a request takes; from this share on they are cut. Where so many took half the time at most,
#: and the engine saw no client go, none is.
_ENOUGH_REQUESTS, _CUT_SHARE, _ENOUGH_TO_CLEAR = 100, 0.01, 1000


@check(
    "gateway-timeout",
    since="0.2",
    severity="warning",
    literals=(
        *(
            *_GAVE_UP,
            _NO_POD,
            _OF_HAPROXY,
            *_BESIDE,
            *_OF_MODELS,
            *_OF_CLIENT,
            *LOST,
            *OF_KEDA,
            *CLIENT_TOLD,
            *CUT_SHORT,
            *WAITED,
            *STATUS,
            *RESET,
            TUNNEL,
            UNDICI,
            _LATE_ANSWER,
        ),
        *(words for words, _ in _GONE),
        *_COUNTED,
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

    Where nothing says who gave up, Ollama's own log may: clients that all went away at one round age while it loaded the model met a
    timeout. The other way round, vLLM and SGLang close a connection that is idle for 5 s; what keeps it longer has its request reset
    (`VLLM_HTTP_TIMEOUT_KEEP_ALIVE`, `SGLANG_TIMEOUT_KEEP_ALIVE`).

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
        settings = {_own_setting(line) for line in cut}
        timeout = next(timeouts(pod, engine, subject, cluster), None) if engine and settings == {""} else None
        where, whose = cut[0].log.pod or "A gateway", "a" if pod.log_only or not serves else "this"
        times = f"{len(cut)} times" if len(cut) > 1 else "once"
        guessed = dict(hidden_clients(pod, cluster)) if serves and pod.exists else {}
        yield Finding(
            role="cause",
            confidence="possible" if all(_who(line) in guessed for line in cut) else "likely",
            summary=f"{where} gave up waiting for an answer from {whose} server; its log says so {times}.",
            evidence=(
                *(log_evidence(line) for line in cut[:2]),
                *([object_evidence(timeout.item, timeout.path, timeout.text)] if timeout else []),
            ),
            fixes=(_allow(pod, cut, timeout),),
            pods=(pod.name,) if pod.exists else (),
        )
        return
    if engine is not None and (closed := closed_while_idle(pod, engine, cluster, logs)) is not None:
        yield closed
        return
    if engine is None or not _generates(engine):
        return
    if logs is not None and (found := _given_up(pod, engine, subject, cluster, logs)):
        yield found
        return
    if (short := _cut_short(pod, engine, subject, cluster, logs)) is not None:
        yield short
        return
    if (impatient := _impatient(pod, engine, cluster, logs)) is not None:
        yield impatient
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
    if late:
        return None
    return _of_undici(pod, engine, cluster, ages) or _all_as_old(pod, engine, ages)


def _of_undici(pod: Pod, engine: Engine, cluster: Cluster, ages: list[tuple[Line, float]]) -> Finding | None:
    """Requests that ended at the age at which Node's fetch gives up, and a client of this server alone that says that its own did."""
    old = [line for line, age in ages if UNDICI_SECONDS - _EARLIER <= age <= UNDICI_SECONDS + _LATER]
    if not old or len(old) < _CUT_OF_GONE * len(ages):
        return None
    asking = clients(pod, {item.name for item in pod.services}, cluster)
    said = cluster.once(UNDICI, lambda: list(_words_of_clients(cluster, (UNDICI,))))
    line = next((line for who, line in said if who in asking and not before(line, engine, cluster)), None)
    if line is None:
        return None
    return Finding(
        role="cause",
        severity="warning",
        confidence="likely",
        summary=f"{line.log.pod} gives up when no headers came for {say_seconds(UNDICI_SECONDS)}, Node's own limit; "
        f"{count_of(len(old), 'request')} of {engine.container.name} ended at that age.",
        evidence=(log_evidence(line), log_evidence(old[-1])),
        fixes=(
            fixes.advice(
                f"Let {line.log.pod} stream its answers, or give its fetch a dispatcher with a longer headersTimeout (undici's Agent)"
            ),
        ),
        order=old[0].order,
        pods=(pod.name,) if pod.exists else (),
    )


def _cut_short(pod: Pod, engine: Engine, subject: Subject, cluster: Cluster, logs: Logs | None) -> Finding | None:
    """Streams that ended in the middle, by the log of a client that asks this server alone, and a limit of the whole request on the way."""
    status, own = engine.container.status, logs.current(engine.container.name) if logs is not None else None
    if (
        not pod.ready
        or status is None
        or status.restart_count
        or own is None
        or next(own.find("Traceback (most"), None)
    ):
        return None
    said = cluster.once("cut short", lambda: list(_words_of_clients(cluster, CUT_SHORT)))
    names = {item.name for item in pod.services if leads(item, pod, ports(engine))}
    asking = clients(pod, names, cluster) if said else set()
    lines = [line for who, line in said if who in asking and not before(line, engine, cluster)]
    if len(lines) < _FEWEST_CUT:
        return None
    limits = (*of_envoy(names, pod.namespace, cluster), *timeouts(pod, engine, subject, cluster))
    ages = [_ages(line) for line in lines]
    oldest = max((age for some in ages for age in some), default=None)
    for timeout in limits:
        as_old = [
            x for x, some in zip(lines, ages, strict=True) if any(-1 <= a - timeout.seconds <= _EARLIER for a in some)
        ]
        # one between two reads spares streams, but for the wait for their first token; so does a long one all but the longest
        may = timeout.whole and timeout.seconds <= _LIKELY and (oldest is None or oldest <= timeout.seconds + _EARLIER)
        if may or len(as_old) >= _FEWEST_CUT:
            break
    else:
        return None
    return Finding(
        role="cause",
        severity="warning",
        confidence="likely" if len(as_old) >= _FEWEST_CUT else "possible",
        summary=f"{lines[0].log.pod} lost {count_of(len(lines), 'stream')} in the middle while {engine.container.name} ran on; "
        f"{timeout.item.raw.get('kind')}/{timeout.item.name} ends every request after {say_seconds(timeout.seconds)}.",
        evidence=(
            *(log_evidence(line) for line in (as_old or lines)[:2]),
            object_evidence(timeout.item, timeout.path, timeout.text),
        ),
        fixes=(_fix(timeout, 0),),
        order=lines[0].order,
        pods=(pod.name,),
    )


def _words_of_clients(cluster: Cluster, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, str, str], Line]]:
    """Whose log, by namespace, pod and container, has one of some words."""
    for text in cluster.snapshot.logs:
        log = Log(text)
        lines = {line.number: line for said in words if not text.previous for line in log.find(said)}
        yield from (((text.namespace, text.pod, text.container), line) for _, line in sorted(lines.items()))


def _ages(line: Line) -> list[float]:
    """What a client says, some lines before or after at most, of how many seconds something took."""
    texts = [one.text[:2000] for one in line.log.lines(max(line.number - _NEAR, 1), line.number + 2)]
    return [float(age) for text in texts for age in re.findall(r"\b(\d{1,5}(?:\.\d{1,6})?) ?s(?:ec|econds)?\b", text)]


def _all_as_old(pod: Pod, engine: Engine, ages: list[tuple[Line, float]]) -> Finding | None:
    """Requests whose clients all went away at one round age: somebody has less patience than the server needs."""
    loading = all(any(_LOADING in one.text for one in x.log.lines(x.number - _BEFORE, x.number)) for x, _ in ages)
    middle = sorted(age for _, age in ages)[len(ages) // 2]
    age = _ROUND * round(middle / _ROUND)
    alike = [line for line, one in ages if abs(one - age) <= _ALIKE]
    # those that went together may be those of a client that ended
    apart = [alike[0], *(y for x, y in pairwise(alike) if _apart(x, y))] if alike else []
    if age < _OLD or len(alike) < (1 if loading else _CUT_OF_GONE) * len(ages):
        return None
    if len(apart) < (_FEWEST_CUT if loading else _FEWEST_ALIKE):
        return None
    then = (
        f"and {engine.container.name} then dropped the model that it was loading: a timeout of theirs, or of a gateway, is "
        "shorter than the load."
        if loading
        else f"while {engine.container.name} ran on: that is a timeout of theirs, or of what stands before it."
    )
    return Finding(
        role="cause" if loading or not (_few(alike[0].log, len(alike)) or _many(alike[0].log, len(alike))) else "note",
        severity="warning",
        confidence="likely" if loading or _answers(ages) else "possible",
        summary=f"The clients of {count_of(len(alike), 'request')} went away when these were {say_seconds(age)} old, "
        f"{'all of them' if len(alike) == len(ages) else f'of {len(ages)} whose clients did'}, {then}",
        evidence=tuple(log_evidence(line) for line in alike[-2:]),
        explains=("slow-load",) if loading else (),
        fixes=(
            fixes.advice(
                f"Raise the timeout of {say_seconds(age)} that clients, or the gateway before {fixes.edited(pod)}, have, or "
                + (
                    "load the model before they ask and keep it (OLLAMA_KEEP_ALIVE=-1)"
                    if loading
                    else "let them stream, or ask for shorter answers"
                )
            ),
        ),
        order=alike[0].order,
        pods=(pod.name,) if pod.exists else (),
    )


def _apart(one: Line, other: Line) -> bool:
    """Whether two requests ended at different times; where no line has one they did."""
    mine, theirs = answered(one), answered(other)
    seconds = (theirs.at - mine.at).total_seconds() if mine and theirs else seconds_between(one, other)
    return seconds is None or abs(seconds) > _ALIKE


def _answers(ages: list[tuple[Line, float]]) -> bool:
    """Whether Ollama answered other requests between those whose clients went away."""
    first, last, gone = ages[0][0], ages[-1][0], {line.number for line, _ in ages}
    between = (one for one in first.log.find("| 200 |") if first.number < one.number < last.number)
    return any(answered(one) for one in between if one.number not in gone)


def _impatient(pod: Pod, engine: Engine, cluster: Cluster, logs: Logs | None) -> Finding | None:
    """Clients that say after how many seconds they no longer waited for the answer of a server that runs without a break."""
    status, own = engine.container.status, logs.current(engine.container.name) if logs is not None else None
    if (
        not pod.ready
        or status is None
        or status.restart_count
        or own is None
        or next(own.find("Traceback (most"), None)
    ):
        return None
    said = cluster.once("waited", lambda: list(_waited(cluster)))
    names = {item.name for item in pod.services}
    if not said or not names:
        return None
    clients = {(c.pod.name, c.name) for c in asking(pod, cluster)}
    mine = [
        (line, seconds)
        for space, line, seconds, host in said
        if line.log.pod != pod.name
        and not before(line, engine, cluster)
        and (addresses(host, names, pod.namespace, space) if host else (line.log.pod, line.log.container) in clients)
    ]
    if len(mine) < _FEWEST_CUT:
        return None
    (line, seconds), alive = mine[0], _answered_well(own) > 0
    long = f" of {say_seconds(seconds)}" if seconds else ""
    return Finding(
        role="note" if _few(own, len(mine)) else "cause",
        severity="warning",
        confidence="likely" if alive else "possible",
        summary=f"{line.log.pod} got no answer in time, {count_of(len(mine), 'time')} in its log: a timeout{long} of its own, or of what "
        f"it asks; {engine.container.name} runs on.",
        evidence=tuple(log_evidence(line) for line, _ in mine[:2]),
        fixes=(
            fixes.advice(
                f"Raise the timeout{long} that {line.log.pod} has, or what it asks, above the longest generation, or let it stream"
            ),
        ),
        order=line.order,
        pods=(pod.name,),
    )


def _answered_well(log: Log) -> int:
    """How many requests to generate the server answered."""
    return sum(re.search(_ANSWERED_WELL, line.text[:2000]) is not None for line in log.find("POST "))


def _few(log: Log, times: int) -> bool:
    """Whether the server answered so many more that somebody's own requests may be to blame."""
    return _answered_well(log) >= _MANY * times


def _many(log: Log, times: int) -> bool:
    """Whether so many more requests began, where the access log is off."""
    begun = {name for words, pattern in _BEGUN for name, _ in _requests(log, words, pattern)}
    return len(begun) >= (_MANY + 1) * times


def _waited(cluster: Cluster) -> Iterator[tuple[str, Line, float | None, str]]:
    """Who gave up, by its namespace and its line, after how many seconds, and which host it asked, where it says so."""
    for text in cluster.snapshot.logs:
        log = Log(text)
        lines = {line.number: line for words in WAITED if not text.previous for line in log.find(words)}
        for _, line in sorted(lines.items()):
            said = waited(line)
            if said is not None and (said[0] is None or said[0] >= _OLD):
                yield text.namespace, line, *said


def _clients_gone(log: Log | None) -> Iterator[tuple[Line, float]]:
    """Requests whose client went away: the line that says so, and how old they were in seconds."""
    if log is None:
        return
    for status, least in _GONE_OF_OLLAMA:
        lost = [(x, y.seconds) for x in log.find(status) if (y := answered(x)) is not None and not _at_fault(x)]
        if lost := [one for one in lost if one[1] >= least]:
            yield from lost
            break
    else:
        yield from _gone_with_200(log)
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


def _gone_with_200(log: Log) -> Iterator[tuple[Line, float]]:
    """The same of Ollama's requests that it logs as well: it says before that it stops, or the longest are as long as Node waits."""
    ends = [one for line in log.find("| 200 |") if (one := answered(line)) is not None]
    for one in ends:
        before = one.line.log.lines(max(one.line.number - _BEFORE, 1), one.line.number)
        if any(_STOPS in line.text[:300] for line in before):
            yield one.line, one.seconds
            ends = []
    longest = max((one.seconds for one in ends), default=0)
    as_long = [one for one in ends if abs(one.seconds - UNDICI_SECONDS) <= _ALIKE]
    if len(as_long) >= _FEWEST_ALIKE and longest <= UNDICI_SECONDS + _ALIKE:
        yield from ((one.line, one.seconds) for one in as_long)


def _at_fault(line: Line) -> bool:
    """Whether Ollama says before its answer what went wrong, as it does of a model that does not load in time."""
    before = line.log.lines(line.number - _BEFORE, line.number)
    # a load that it ends because the client went away is an error, too
    return any(" level=ERROR " in one.text[:200] and "context canceled" not in one.text[:2000] for one in before)


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
        return [line for line, _ in said if not line.log.pod]
    if not pod.exists or not said:
        return []
    mine = {(one.namespace, one.name) for one in subject.pods}
    itself = (pod.namespace, pod.name)
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
    # ingress-nginx, Traefik and Envoy Gateway have the namespace before it
    spaced = re.compile(rf"(?<![\w-]){re.escape(pod.namespace)}[-/](?:{either})(?![\w])")
    # HAProxy's controllers name a backend by namespace, Service and port; OpenShift's router has the Service in a server's name
    own_space = re.escape(pod.namespace)
    backend = re.compile(rf"{own_space}_(?:svc_)?(?:{either})_|be_\w+:{own_space}:[\w.-]+/pod:[\w.-]+:(?:{either}):")

    fronts, by_keda = _fronts(pod, cluster), keda_leads(pod, cluster)
    behind_tunnel = dict(hidden_clients(pod, cluster))

    def for_it(line: Line, beside: bool) -> bool:
        """Whether one of the addresses that a client's line names is the server's, if it names any."""
        urls, here = asked_for(line), line.log.source.namespace
        return not urls or any(
            (beside and host_of(url) in _LOOPBACK)
            or (there is not None and there.search(url) is not None)
            or leads_here(pod, names, url, here)
            for url in urls
        )

    def about_it(line: Line, plain: str) -> bool:
        text = line.text
        who = _who(line)
        if _OF_GO in text:
            return who == itself
        if any(words in text for words in OF_KEDA):
            return bool(named and named.search(plain)) or by_keda
        if any(words in text for words in (_OF_AIOHTTP, *_OF_MODELS, *CLIENT_TOLD)) and not gave_up(line):
            beside = who == itself and line.log.container not in servers
            told = (beside or who in fronts) and for_it(line, beside)
            outside = behind_tunnel.get(who)
            told |= outside is not None and all(host_of(url) == outside for url in asked_for(line))
            return told and _asks_for_text(line)
        if (of_haproxy := re.search(_HAPROXY, text)) is not None:
            return bool(names and backend.match(of_haproxy["backend"]))
        if who in mine:  # a proxy beside the server
            return who == itself and line.log.container not in servers and bool(re.search(GENERATES, text))
        by_name = named is not None and (named.search(plain) is not None or host.search(text) is not None)
        if by_name and gave_up(line):  # a Service may be called like a word of any path
            by_name = host.search(text) is not None or spaced.search(plain) is not None
        if by_name or (there and there.search(text)):
            return True
        behind = any(of is not None and of.search(text) for of in fronts.values())
        return behind and re.search(GENERATES, text) is not None

    return [line for line, plain in said if about_it(line, plain)]


def _fronts(pod: Pod, cluster: Cluster) -> dict[tuple[str, str], re.Pattern[str] | None]:
    """Pods that ask this one for clients of theirs, and such clients; how a gateway names them: by address, or a Service of theirs."""
    found: dict[tuple[str, str], re.Pattern[str] | None] = {}
    for front in (container.pod for container in asking(pod, cluster)):
        ways = [rf"(?<![\w-]){re.escape(i.name)}\.{re.escape(front.namespace)}(?![\w-])" for i in front.services]
        if front.status.pod_ip and not front.spec.host_network:
            ways.append(rf"(?<![\w.:]){re.escape(front.status.pod_ip)}:\d")
        found[front.namespace, front.name] = re.compile("|".join(ways)) if ways else None
    return found


def _who(line: Line) -> tuple[str, str]:
    """The namespace and the name of the pod whose log it is."""
    return line.log.source.namespace, line.log.pod


def _own_words(pod: Pod, cluster: Cluster) -> list[Line]:
    """Lines of the pod's own log, of a gateway, that say that some model server did not answer in time."""
    said = cluster.once("gateway-timeout", lambda: _gave_up(cluster)) if pod.exists else []
    itself = (pod.namespace, pod.name)
    return [x for x, _ in said if _who(x) == itself and _asks_for_text(x)]


def _asks_for_text(line: Line) -> bool:
    """Whether it is a request to generate that the gateway says this of."""
    text = line.text
    if any(words in text for words in (*_OF_MODELS, *CLIENT_TOLD)):
        return True
    far = next((far for words, far in _BESIDE.items() if words in text), 0)
    beside = line.log.lines(line.number - far, line.number + min(far, 5)) if far else (line,)
    return any(re.search(GENERATES, one.text) for one in beside)


def _gave_up(cluster: Cluster) -> list[tuple[Line, str]]:
    """Where a log says that some server did not answer in time: the line, and its text without dots."""
    found = []
    for text in cluster.snapshot.logs:
        log = Log(text)
        words = (*_GAVE_UP, _NO_POD, _OF_HAPROXY, *_BESIDE, *_OF_MODELS, *_OF_CLIENT, *OF_KEDA, *CLIENT_TOLD, *STATUS)
        lines = {x.number: x for said in words for x in log.find(said) if _says_so(x)}
        lines |= {x.number: x for x in lost_alike(log)}
        found += [(line, re.sub(r"[._]", "-", line.text)) for _, line in sorted(lines.items())]
    return found


def _says_so(line: Line) -> bool:
    text = line.text
    if re.search(_SETTING, text):
        return False
    if _NO_POD in text:
        return _LATE in text
    if any(words in text for words in OF_KEDA):
        return keda_gave_up(line)
    if gave_up(line) or client_told(line):
        return True
    if any(words in text for words in _OF_CLIENT):
        return bool(re.search(_POSTED, text) and re.search(GENERATES, text))
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


def _own_setting(line: Line) -> str:
    """The setting of a program that waited as long as it is told itself, and was not cut off by a route."""
    return next((setting for words, setting in _SETTINGS if words in line.text), "")


def _allow(pod: Pod, cut: list[Line], timeout: Timeout | None) -> Fix:
    """What lets requests be answered that somebody gave up."""
    if setting := _own_setting(cut[0]):
        return fixes.advice(
            f"Raise {setting} above the longest generation in {cut[0].log.pod or 'it'}, or let it stream"
        )
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
