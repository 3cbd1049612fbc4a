"""The symptom of requests that all end with an error of the server's side, while the pod is ready."""

import re
import shlex
from collections import Counter
from collections.abc import Iterator
from itertools import takewhile

from kubectl_llmdoctor.api import (
    BY_SPAN,
    COMPLETED,
    Container,
    Finding,
    Fix,
    Line,
    Log,
    Logs,
    Pod,
    Subject,
    answered,
    check,
    count_of,
    failing_routes,
    fixes,
    follow,
    in_order,
    log_evidence,
    often_failing_routes,
    raised_alike,
    said,
    seconds_between,
    signs_of_life,
    written_ago,
)
from llmdoctor_checks._clients import asks_as_one
from llmdoctor_checks.symptoms._by_gateways import BESIDE, DETAILS, OF_MODELS, by_gateway, of_now

#: What a server that cannot do a thing answers, whoever asks.
_NOT_DONE = r'" 501 | 501\s*$'
#: How a proxy of Go's in the same pod (Knative's queue-proxy, a sidecar) says that a request which it passed on failed; one
#: that its client gave up is no fault, and one that nobody took may be of the start. What was answered it does not log.
_PASSED_ON = ("error reverse proxying request", "http: proxy error: ")
_GIVEN_UP = ("context canceled", "deadline exceeded", "connection refused")
#: What it did not get through to is not in the pod.
_ELSEWHERE = r"\blookup \S|(?:\bdial tcp |->)(?!127\.|\[::1\]|localhost)"
_WHY = r'"error":"((?:[^"\\]|\\.){1,200})"|http: proxy error: (.{1,200})'
#: How SGLang's router says that it leaves out a server (sgl-model-gateway, its core/circuit_breaker.rs).
_BREAKER, _OPENS = "Circuit breaker state transition: ", " -> open"
#: Routes of OpenAI's API in an access log: who answers these is a server of models, whatever its image, and needs no GPU for it.
_OF_OPENAI = ('"POST /v1/chat/completions ', '"POST /v1/completions ', '"POST /v1/embeddings ')
_FEWEST, _SECONDS, _MOST, _JUST_NOW = 5, 60, 200, 3600
#: What a server logs right above a request that it fails, so often at least, is why.
_ABOVE, _COMPLAINS, _MOSTLY = 6, r"(?i)error|fail|exception|reject|refus|\[[EW]\]", 0.5
#: Whom a gateway did not get through to, as nginx, Go's dialer (Caddy, Traefik) and Envoy's access log as text name it; and how Envoy
#: and HAProxy say that there was nobody.
_UPSTREAM = (
    r"(?:connect\(\) failed|prematurely closed connection|upstream timed out).{0,2000}?upstream: \"\w{4,6}://(?P<host>[\w.-]{1,253})"
    r"(?::(?P<port>\d{1,5}))?",
    r"\bdial tcp (?P<host>[\d.]{7,15}):(?P<port>\d{1,5}): ",
    r"\" 503 (?:UF|UC|LR)\S{0,20} .{0,2000}\"(?P<host>[\d.]{7,15}):(?P<port>\d{1,5})\"",
    r"\"response_flags\":\s?\"(?:UF|UC).{0,2000}\"upstream_host\":\s?\"(?P<host>[\d.]{7,15}):(?P<port>\d{1,5})\"",
    r"\"DownstreamStatus\":50[24]\b.{0,2000}\"ServiceURL\":\"https?://(?P<host>[\w.-]{1,253})(?::(?P<port>\d{1,5}))?",
    r"\" 50[24] .{0,1000}\"https?://(?P<host>[\w.-]{1,253})(?::(?P<port>\d{1,5}))?[^\"\s]{0,200}\" \d+ms",
)
_OF_NGINX = r"\[(?:error|crit)\] \d{1,9}#\d{1,9}: "
_NOBODY = r"\" 503 UH |\"response_flags\":\s?\"UH|/<NOSRV> "
#: So many seconds lie between two at most: now and then one fails everywhere, and of those that do not no log may tell.
_CLOSE = 300


@check("http-5xx", since="0.5", severity="critical", literals=(*DETAILS, *_PASSED_ON, _BREAKER))
def http_5xx(pod: Pod, subject: Subject, logs: Logs | None) -> Iterator[Finding]:
    """Requests end with an error of the server, or of the gateway before it.

    The pod is ready: its probes ask for something that needs no model. The access log shows that at one route every request
    has failed with 5xx since a certain one, or many of the last ones have. It is a symptom: what the log prints beside each says
    why, an exception of the engine, of a parser or of the chat template, or another server that this one asks.

    Where the server's own log is well, the gateway in front of it may answer by itself. Envoy's access log then has a detail other
    than `via_upstream`: an answer larger than its buffer (`response_payload_too_large`), a protocol that the port does
    not speak (`protocol_error`), a filter that fails, a certificate that it does not accept, a port at which nobody listens.

    Of a gateway's own pod (nginx, Envoy, Traefik, Caddy, HAProxy) the access log says the same: it is well, and does not get
    through to the server behind it. Whose address that is, and whether its pods are ready, is the next question.

    ## Fix

    Read what the log prints beside the failed requests, and send one of them by hand, first as small as it can be (no tools, no
    images, no schema): what makes it fail is what was added last. For a gateway, ask the server past it.

    ## References

    - https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/response_code_details
    """
    if not pod.ready:
        return
    found = _in_its_own_logs(pod, subject, logs) if logs is not None else None
    yield from (found,) if found is not None else by_gateway(pod, pod.cluster)


def _in_its_own_logs(pod: Pod, subject: Subject, logs: Logs) -> Finding | None:
    engines = [engine.container for engine in subject.engines(pod)]
    with_gpu = [pod.gpu_container] if pod.gpu_container is not None else []
    for container in engines or with_gpu or (pod.containers if asks_as_one(pod) else _frontends(pod, logs)):
        log = logs.current(container.name)
        found = (_by_itself(pod, container, log) or _often(pod, container, log)) if log is not None else None
        if found is not None:
            return found
    servers = [*engines, *with_gpu, *pod.containers]
    return _by_its_proxy(pod, logs, [one for one in servers if one.role != "init"])


def _frontends(pod: Pod, logs: Logs) -> list[Container]:
    """Containers of Dynamo's frontend, of routers and of servers that nobody knows, by what they say of each request, and of gateways
    that fail all of some."""
    found = ((container, logs.current(container.name)) for container in pod.containers)
    said_so = (COMPLETED, *BY_SPAN, *_OF_OPENAI)
    return [
        container
        for container, log in found
        if log is not None and (any(log.marks(text) for text in said_so) or failing_routes(log))
    ]


def _by_itself(pod: Pod, container: Container, log: Log) -> Finding | None:
    for path, failed in failing_routes(log).items():
        first, last = failed[0], failed[-1]
        if not re.search(OF_MODELS, path) or re.search(_NOT_DONE, last.text[:2000]) or not of_now(last, pod):
            continue
        why = _beside(log, path, last) or _said_above(failed, [])
        # what one client wants at a route of its own says little of a server that answers all others
        few = answered(log, after=first.number) >= BESIDE * len(failed)
        behind = _upstream(why or last)
        words = f": {said(why.text).text.strip()[:160]}" if why is not None else "."
        if behind is not None:
            words = f": it does not get through to {':'.join(filter(None, behind))}."
        return Finding(
            role="symptom",
            severity="warning" if few else "critical",
            summary=f"{container.name} counts as ready, and has failed the last {count_of(len(failed), 'request')} to {path}, one and "
            f"all{words}",
            evidence=(log_evidence(first), log_evidence(last), *((log_evidence(why),) if why is not None else ())),
            fixes=(
                *_of_a_breaker(pod, log),
                _behind(pod, why or last)
                or fixes.advice(
                    f"Send one of these requests to {pod.name} by hand, as small as it can be (no tools, images or schema), and read what "
                    "its log prints beside it",
                    f"kubectl -n {pod.namespace} logs {pod.name} -c {container.name} --tail=200",
                ),
            ),
            order=first.order,
        )
    return None


def _behind(pod: Pod, line: Line) -> Fix | None:
    """Where to look when a gateway does not get through to the server behind it, by the address in its words."""
    found = _upstream(line)
    if found is None:
        if re.search(_NOBODY, line.text[:4000]) is None:
            return None
        return fixes.advice(
            f"See which Service the route of {pod.name} names, and whether a ready pod is behind it: it has nobody to send these "
            "requests to",
            f"kubectl -n {pod.namespace} get services,endpointslices",
        )
    host, port = found
    to = follow(host, int(port) if port else None, pod, pod.cluster)
    name = f"Service {to.service.name}" if to is not None and to.service is not None else f"the server at {host}"
    return fixes.advice(
        f"See why {name} does not answer{f' at port {port}' if port else ''}: its pods, whether they are ready, and the port that they "
        "listen on; the gateway itself is well",
        f"kubectl get services,endpointslices,pods -A -o wide | grep -F {shlex.quote(host)}",
    )


def _upstream(line: Line) -> tuple[str, str] | None:
    """Host and port (empty where not said) of the server that a gateway did not get through to, by its words."""
    found = (re.search(pattern, line.text[:4000]) for pattern in _UPSTREAM)
    return next(((said["host"], said["port"] or "") for said in found if said is not None), None)


def _often(pod: Pod, container: Container, log: Log) -> Finding | None:
    """Many of the last requests at a route fail, and others are answered: what they have in common is why."""
    for path, (failed, others) in often_failing_routes(log).items():
        last = failed[-1]
        if not re.search(OF_MODELS, path) or re.search(_NOT_DONE, last.text[:2000]) or not of_now(last, pod):
            continue
        why, all_of = _said_above(failed, others), len(failed) + len(others)
        words = f": {said(why.text).text.strip()[:160]}" if why is not None else "."
        return Finding(
            role="symptom",
            summary=f"{container.name} counts as ready, and has failed {len(failed)} of the last {count_of(all_of, 'request')} to {path}"
            f"{words}",
            evidence=(*((log_evidence(why),) if why is not None else ()), log_evidence(failed[0]), log_evidence(last)),
            fixes=(
                *_of_a_breaker(pod, log),
                fixes.advice(
                    "Look for what those that fail have in common and the others have not (a schema, tools, images, their "
                    f"length), and send one of them to {pod.name} by hand",
                    f"kubectl -n {pod.namespace} logs {pod.name} -c {container.name} --tail=200",
                ),
            ),
            order=failed[0].order,
        )
    return None


def _of_a_breaker(pod: Pod, log: Log) -> Iterator[Fix]:
    """What to do where a router of SGLang's leaves out servers that are well: releases count what a client got wrong as their failure."""
    opened = [x for x in log.find(_BREAKER) if x.text[:2000].rstrip().endswith(_OPENS)]
    ago = written_ago(opened[-1], pod.cluster.now) if opened else None
    if ago is not None and ago <= _JUST_NOW:
        yield fixes.advice(
            f"See what its servers answered before their circuits opened ({count_of(len(opened), 'time')}): where that is 4xx (prompts "
            "that are too long), they are well, and a release that counts no 4xx as a failure, or --disable-circuit-breaker in "
            f"{fixes.edited(pod)}, lets all others be answered"
        )


def _said_above(failed: list[Line], others: list[Line]) -> Line | None:
    """What the server complains of right above most of the requests that it fails alone, the first words of the last of them."""
    times, beside = Counter[str](), Counter[str]()
    last: dict[str, Line] = {}
    for line in failed:
        here = _complaints_above(line)
        times.update(here.keys())
        last |= here
    for line in others:
        beside.update(_complaints_above(line).keys())
    own = (text for text in times if not others or beside[text] < _MOSTLY * len(others))
    usual = [last[text] for text in own if times[text] >= _MOSTLY * len(failed)]
    newest = max((x.number for x in usual), default=0)
    return min((x for x in usual if newest - x.number <= _ABOVE), key=lambda x: x.number, default=None)


def _complaints_above(line: Line) -> dict[str, Line]:
    """The lines by which a server complains right above a request of its access log, without their numbers."""
    above = takewhile(_not_of_another, reversed(line.above(_ABOVE)))
    complaints = (x for x in above if re.search(_COMPLAINS, x.text[:300]))
    return {re.sub(r"[\da-f]*\d[\da-f]*", "0", x.text[:300]): x for x in complaints}


def _not_of_another(line: Line) -> bool:
    """Whether a line is not that of another request in the access log; nginx names the request in its errors."""
    return re.search(_OF_NGINX, line.text[:100]) is not None or not any(
        words in line.text[:2000] for words in (" HTTP/1", "request: POST ", COMPLETED, *BY_SPAN)
    )


def _by_its_proxy(pod: Pod, logs: Logs, servers: list[Container]) -> Finding | None:
    """A proxy in the pod that gets no answer from the server beside it, again and again, where no log has one that was answered."""
    if any(log is not None and signs_of_life(log) for log in (logs.current(one.name) for one in pod.containers)):
        return None
    for container in pod.containers:
        server = next((one for one in servers if one is not container), None)
        failed = _in_a_row(logs.current(container.name))
        ago = written_ago(failed[-1], pod.cluster.now) if len(failed) >= _FEWEST else None
        apart = seconds_between(failed[0], failed[-1]) if failed else None
        if server is None or apart is None or apart < _SECONDS or ago is None or ago > _JUST_NOW:
            continue
        told = re.search(_WHY, failed[-1].text[:4000])
        why = f" ({told[1] or told[2]})" if told else ""
        return Finding(
            role="symptom",
            summary=f"{pod.name} counts as ready, and {container.name} got no answer to {count_of(len(failed), 'request')} that it passed "
            f"on to the server beside it{why}; no log of the pod has one that was answered.",
            evidence=(
                log_evidence(failed[0], told[0] if told else ""),
                log_evidence(failed[-1], told[0] if told else ""),
            ),
            fix=fixes.advice(
                f"Ask {server.name} past {container.name} (kubectl port-forward to its own port), and read its log for why it closes "
                "the connection",
                f"kubectl -n {pod.namespace} logs {pod.name} -c {server.name} --tail=200",
            ),
            order=failed[0].order,
        )
    return None


def _in_a_row(log: Log | None) -> list[Line]:
    """The last requests of a proxy that failed in the pod itself, as far as they follow each other closely."""
    lines = in_order(log.find(*_PASSED_ON)) if log is not None else []
    failed = [x for x in lines if not any(words in x.text[:4000] for words in _GIVEN_UP)][-_MOST:]
    row = failed[-1:]
    for line in failed[-2::-1]:
        between = seconds_between(line, row[-1])
        if between is None or between > _CLOSE:
            break
        row.append(line)
    return [] if any(re.search(_ELSEWHERE, x.text[:4000]) for x in row) else row[::-1]


def _beside(log: Log, path: str, failed: Line) -> Line | None:
    """The last exception that the server prints for each request of a route, near the one that failed last."""
    at = max((at for at in raised_alike(log).get(path, ()) if abs(at - failed.number) <= 400), default=0)
    return next(iter(log.lines(at, at)), None) if at else None
