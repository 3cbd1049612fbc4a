"""A timeout in front of the engine that a generation can outlast."""

import bisect
import re
from collections import deque
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise

import msgspec

from kubectl_llmdoctor.api import (
    INFERENCE_SERVICE,
    KNATIVE_SERVICE,
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
    current_logs,
    dig,
    duration,
    expression,
    fixes,
    log_evidence,
    long_past,
    parse_time,
    rows,
    say_seconds,
    seconds_between,
    stray,
    written_ago,
    written_before,
)
from kubectl_llmdoctor.catalog.models import native_context
from llmdoctor_checks._clients import asked_as_one
from llmdoctor_checks._consequences import CRASHED
from llmdoctor_checks._ended_clients import ended_clients
from llmdoctor_checks._stalled import stalled
from llmdoctor_checks._told_where import prolonged
from llmdoctor_checks.serving._clients_gone import (
    COUNTED,
    GONE,
    LATE_ANSWER,
    MANY,
    answered_well,
    cut_short,
    given_up,
    impatient,
    unbroken,
)
from llmdoctor_checks.serving._exposure import backends, leads
from llmdoctor_checks.serving._gateway_logs import (
    BESIDE,
    GAVE_UP,
    NO_POD,
    OF_CLIENT,
    OF_HAPROXY,
    OF_MODELS,
    OF_PICKER,
    OF_STREAMS,
    cut_off,
    own_setting,
    own_words,
    pod_of,
    telling,
    waited,
)
from llmdoctor_checks.serving._gateways import (
    CLIENT_TOLD,
    CUT_SHORT,
    LOST,
    OF_KEDA,
    STATUS,
    TUNNEL,
    UNDICI,
    WAITED,
    hidden_clients,
)
from llmdoctor_checks.serving._idle import LITERALS as RESET
from llmdoctor_checks.serving._idle import closed_by_uvicorn, closed_while_idle
from llmdoctor_checks.serving._model_router import IMAGE as OF_LLMKUBE
from llmdoctor_checks.serving._model_router import ROUTED
from llmdoctor_checks.serving._model_router import longer as longer_in_router
from llmdoctor_checks.serving._outlasted import CANCELED, OUTLASTED, ended_early, outlasted
from llmdoctor_checks.serving._patience import STREAM, cut_whole, enough, more_patient, writer_of
from llmdoctor_checks.serving._round_ages import ASKED, ENDED, fewest, of_clients, of_itself
from llmdoctor_checks.serving._since_asked import BROKEN, since_asked
from llmdoctor_checks.serving._timeouts import (
    FASTEST_TOKENS_PER_SECOND,
    NGINX_SECONDS,
    Timeout,
    longer,
    of_envoy,
    ports,
    timeouts,
)

#: Longer answers are rare: a timeout that allows so many tokens is only noted.
_COMMON_TOKENS = 16384

#: So many seconds are enough for what chooses an endpoint and had Envoy's 200 ms.
_PICKER_SECONDS = 5

#: Cloudflare's own status for a server that does not answer in time (developers.cloudflare.com, error 524).
_BY_CLOUDFLARE = r"(?<![\w.:-])524(?![\w.:-])"

#: LiteLLM's router (`types/router.py`), where each server of a model rests since it failed a few times.
_RESTS = "No deployments available for selected model, Try again in "
_RESTING = expression(
    r"Try again in (?P<seconds>\d{1,6})(?:\.\d{1,9})? seconds\. Passed model=(?P<model>[^\s,]{1,200}?)\.? "
)
#: Which model it was asked for, at the end of an error.
_GROUP = expression(r"\bReceived Model Group=([^\s,]{1,200})")

#: gunicorn's arbiter, which ends a worker; the worker says with what it was busy in the lines after that.
KILLED, _SOON = "WORKER TIMEOUT (pid:", 12
#: What only asks how a server is.
_PROBED = expression(
    r"(?i)/(?:(?:[\w-]{1,20}/){0,3}(?:health[\w-]*|live\w*|ready|readiness|readyz|ping|status|metrics)/?)?(?:\?|$)"
)

#: What Open WebUI calls the time that it waits for an answer.
_AIOHTTP_VARIABLE = "AIOHTTP_CLIENT_TIMEOUT"

#: llama-server as a router (`server-models.cpp`): it passes a request on to a model's process, whose answer did not come (httplib); its
#: word of a request that is over, and such a process that ended.
_UNREAD = "http client error: Failed to read connection"
_PROXIED = "proxying request to model "
_DONE = "request: POST "
_CHILD_ENDED = " exited with status "
_FEWEST_UNREAD, _AT_ONCE_SECONDS = 2, 1

#: How httpx says what its program asked whom for, and what it was answered (`_client.py`).
_ASKS = "HTTP Request: POST "
_ANSWERED = expression(
    _ASKS + r"https?://(?P<host>[\w.-]{1,253})(?::\d{1,5})?/\S{0,1000} \"HTTP/[\d.]{1,3} (?P<code>\d{3})\b"
)
#: So many one after another are no chance.
_FEWEST_IN_A_ROW = 2

#: So many requests say how long a request takes; from this share on they are cut. Where so many took half the time at most,
#: and the engine saw no client go, none is.
_ENOUGH_REQUESTS, _CUT_SHARE, _ENOUGH_TO_CLEAR = 100, 0.01, 1000


@check(
    "gateway-timeout",
    since="0.2",
    severity="warning",
    literals=(
        _ASKS,
        *(
            *GAVE_UP,
            NO_POD,
            *OF_HAPROXY,
            *BESIDE,
            *OF_MODELS,
            *OF_CLIENT,
            *LOST,
            *OF_KEDA,
            *CLIENT_TOLD,
            *CUT_SHORT,
            *WAITED,
            *STATUS,
            *RESET,
            TUNNEL,
            UNDICI,
            LATE_ANSWER,
            KILLED,
            _RESTS,
            _UNREAD,
            _PROXIED,
            _CHILD_ENDED,
            *ENDED,
            *BROKEN,
            *OUTLASTED,
            CANCELED,
        ),
        *(words for words, _ in GONE),
        *COUNTED,
    ),
)
def gateway_timeout(
    pod: Pod, subject: Subject, cluster: Cluster, metrics: Metrics | None, logs: Logs | None
) -> Iterator[Finding]:
    """A timeout of a client, gateway, mesh or Knative cuts generations off.

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

    Whatever words a client, a gateway or a proxy beside the server has for it: requests that it ended each time at the same round age,
    as its log says, met a timeout. So did those of which the server's log says when they began, and a client's that they ended, each time
    as many round seconds later. Both also count for a server that is not known, where its container asks for a GPU.

    A server behind Knative's proxy may say in its own log that it answers later than that waits (`spec.predictor.timeout` of an
    InferenceService): it goes on, and its client has got 504.

    Where nothing says who gave up, Ollama's own log may: clients that all went away at one round age while it loaded the model met a
    timeout. The other way round, a server that uvicorn runs (vLLM, SGLang, LMDeploy, Xinference) closes a connection that is idle for
    5 s, and llama-server does; what keeps it longer, Knative's queue-proxy among them, has its request reset
    (`VLLM_HTTP_TIMEOUT_KEEP_ALIVE`, `SGLANG_TIMEOUT_KEEP_ALIVE`).

    ## Fix

    Raise the timeout above the longest generation, or remove it from the route of the model. Let clients stream.

    ## References

    - https://istio.io/latest/docs/concepts/traffic-management/#timeouts
    - https://gateway-api.sigs.k8s.io/guides/http-timeouts/
    - https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/annotations/#custom-timeouts
    """
    engine = next((e for e in subject.engines(pod) if ports(e)), None)
    told = _told_by_others(pod, engine, subject, cluster)
    if told is not None and told.role == "cause":
        # no patience helps against a server that stands still
        still = engine is not None and stalled(pod, engine, logs, metrics) is not None
        yield msgspec.structs.replace(told, role="risk", severity=None) if still else told
        return
    found = _told_by_itself(pod, engine, subject, cluster, metrics, logs)
    if found is None or found.role not in ("cause", "risk"):
        found = ended_early(pod, cluster, logs) or found
    if told is not None and (found is None or found.role != "cause"):
        found = told
    if found is not None:
        yield found


def _told_by_others(pod: Pod, engine: Engine | None, subject: Subject, cluster: Cluster) -> Finding | None:
    """A timeout in the words of whoever gave up: clients of the pod, gateways, or the pod itself where it is one."""
    serves = bool(subject.engines(pod)) or pod.log_only
    cut = cut_off(pod, subject, cluster) if serves else own_words(pod, cluster)
    if not cut or stray(cut):
        return None
    its_own = any(map(own_setting, cut))
    timeout = _that_ended(cut, pod, engine, subject, cluster) if engine and not its_own else None
    return _gave_up(pod, cut, timeout, cluster, serves=serves)


def _told_by_itself(
    pod: Pod, engine: Engine | None, subject: Subject, cluster: Cluster, metrics: Metrics | None, logs: Logs | None
) -> Finding | None:
    """A timeout that nobody names: what its log, its metrics and what leads to it show of one, what proves more first."""
    found = (_own_timeout(pod, subject, logs) or outlasted(pod, cluster, logs)) if pod.exists else None
    if found is not None:
        return found
    if engine is None:
        return _of_another_program(pod, subject, cluster, logs)
    if logs is not None and engine.name == "llama.cpp":
        found = _by_its_router(pod, engine, logs)
    found = found or closed_while_idle(pod, engine, subject, cluster, logs)
    if found is not None or not _generates(engine):
        return found
    return (
        (given_up(pod, engine, subject, cluster, logs) if logs is not None else None)
        or cut_short(pod, engine, subject, cluster, logs)
        or impatient(pod, engine, cluster, logs)
        or _all_at_one_age(pod, engine, subject, cluster, logs)
        or _shorter_than_answers(pod, engine, subject, cluster, metrics)
    )


def _of_another_program(pod: Pod, subject: Subject, cluster: Cluster, logs: Logs | None) -> Finding | None:
    """The same of a program that is no known engine, and is up."""
    if subject.engines(pod) or not pod.ready:
        return None
    return (
        _all_at_one_age(pod, None, subject, cluster, logs)
        or closed_by_uvicorn(pod, cluster, logs)
        or _by_its_host(pod, subject, cluster)
    )


def _that_ended(cut: list[Line], pod: Pod, engine: Engine, subject: Subject, cluster: Cluster) -> Timeout | None:
    """The timeout as old as the requests were that were given up; where no log says how old, the shortest, which ends first."""
    seconds = waited(cut)
    if seconds is None:
        return min(timeouts(pod, engine, subject, cluster), key=lambda one: one.seconds, default=None)
    names = {item.name for item in pod.services if leads(item, pod, ports(engine))}
    known = (*timeouts(pod, engine, subject, cluster), *of_envoy(names, pod.namespace, cluster))
    return next((one for one in known if abs(one.seconds - seconds) <= max(1, seconds / 20)), None)


def _a_day_old(line: Line, cluster: Cluster) -> bool:
    """Whether the kubelet saw a line, or the end of who wrote it, more than a day ago: who was refused then may long be content."""
    at = line.time or (_end_of(line, cluster) if line.log.previous else None)
    return at is not None and cluster.now is not None and (cluster.now - at).days >= 1


def _end_of(line: Line, cluster: Cluster) -> datetime | None:
    """When the instance ended that wrote a line of a log before the current one."""
    writer = cluster.item("Pod", *pod_of(line))
    for status in rows(writer.raw, "status.containerStatuses") if writer is not None else ():
        if status.get("name") == line.log.container:
            return parse_time(dig(status, "lastState.terminated.finishedAt"))
    return None


def _gave_up(pod: Pod, cut: list[Line], timeout: Timeout | None, cluster: Cluster, *, serves: bool) -> Finding:
    """Logs of others that say so, or of the pod itself where it is a gateway, with the timeout that it was."""
    old = all(_a_day_old(line, cluster) for line in cut)
    whose, others = "a" if pod.log_only or not serves else "this", len({pod_of(line) for line in cut}) - 1
    where = (cut[0].log.pod or "A gateway") + (f" and {others} more" if others else "")
    times = "their logs say so " if others else "its log says so "
    times += f"{len(cut)} times" if len(cut) > 1 else "once"
    ages = [ago for line in cut if (ago := written_ago(line, cluster.now))] if old else []
    times += f", the last {say_seconds(min(ages))} ago" if ages else ""
    seconds = waited(cut)
    after = f" after {say_seconds(round(seconds))}" if seconds and seconds >= 1 else ""
    allows = f", and {timeout.where} allows {say_seconds(timeout.seconds)}" if timeout else ""
    guessed = dict(hidden_clients(pod, cluster)) if serves and pod.exists else {}
    return Finding(
        # the next long one meets it, too
        role="risk" if old or long_past(cut) else "cause",
        confidence="possible" if all(pod_of(line) in guessed for line in cut) else "likely",
        summary=f"{where} gave up waiting for an answer from {whose} server{after}; {times}{allows}.",
        evidence=(*(log_evidence(line, telling(line)) for line in cut[:2]), *([timeout.evidence] if timeout else [])),
        fixes=(*_rests(cut, cluster), *_allow(pod, cut, timeout, cluster)),
    )


def _rests(cut: list[Line], cluster: Cluster) -> Iterator[Fix]:
    """What to do where LiteLLM lets the only server of a model rest for the timeouts of one client, and refuses all others meanwhile."""
    late = sorted((line for line in cut if line.log is cut[-1].log), key=lambda line: line.number)
    models = {said[1] for line in late if (said := _GROUP.search(line.text[:4000]))}
    resting = cut[-1].log.matching(_RESTING, _RESTS, most=2000)
    of_these = ((x, said) for x, said in resting if not models or said["model"] in models)
    rest = next((said for x, said in of_these if _soon_after(late, x, int(said["seconds"]))), None)
    writer = cluster.item("Pod", *pod_of(cut[-1]))
    if rest is not None and writer is not None:
        yield fixes.advice(
            f"Set disable_cooldowns: true, or a larger allowed_fails, in router_settings of LiteLLM's configuration "
            f"({fixes.edited(Pod.of(writer, cluster))}): for each few requests that time out it refuses all for "
            f"{rest['model']} with 429 for {rest['seconds']} s"
        )


def _soon_after(lines: list[Line], other: Line, seconds: int) -> bool:
    """Whether a line was written at most so long after the last of others before it, as far as times tell."""
    at = bisect.bisect_left(lines, other.number, key=lambda line: line.number)
    return at > 0 and (seconds_between(lines[at - 1], other) or 0) <= seconds


def _shorter_than_answers(
    pod: Pod, engine: Engine, subject: Subject, cluster: Cluster, metrics: Metrics | None
) -> Finding | None:
    """A timeout that cuts the answers that were measured, or would cut one of full length."""
    tokens, what = _longest(engine)
    taken = metrics.histogram("e2e") if metrics is not None else None
    for timeout in timeouts(pod, engine, subject, cluster):
        if taken is not None and taken.observed >= _ENOUGH_REQUESTS:
            if taken.above(timeout.seconds) >= _CUT_SHARE:
                return _measured(timeout, taken, tokens)
            left = metrics.by("finished", "finished_reason").get("abort", 0.0) if metrics is not None else 0.0
            if taken.below(timeout.seconds / 2) == 1 and taken.observed >= _ENOUGH_TO_CLEAR and not left:
                continue
        fits = int(timeout.seconds * FASTEST_TOKENS_PER_SECOND)
        if tokens is None or tokens <= fits:
            continue
        where = timeout.where
        needs = say_seconds(tokens / FASTEST_TOKENS_PER_SECOND)
        ends = "ends every request after" if timeout.whole else "ends every request that sends nothing for"
        # with what a controller allows by itself between two reads most servers live, whose clients stream or ask for little
        short = timeout.whole or (timeout.told and timeout.seconds < NGINX_SECONDS)
        sure = short and fits < min(tokens, _COMMON_TOKENS)
        return Finding(
            role="risk" if sure else "note",
            confidence="likely" if timeout.whole else "possible",
            summary=f"{where} {ends} {say_seconds(timeout.seconds)}; {what} allows {tokens} tokens, and at "
            f"{FASTEST_TOKENS_PER_SECOND} a second {fits} fit: one of full length takes {needs} or more.",
            evidence=(timeout.evidence,),
            fix=longer(timeout, tokens),
        )
    return None


def _own_timeout(pod: Pod, subject: Subject, logs: Logs | None) -> Finding | None:
    """A program of the pod itself that gave up: a client that ended of it, or gunicorn, which ends a worker that is busy too long."""
    ended = next((one for one in ended_clients(pod, subject, logs) if one.why == "late"), None)
    if ended is not None:
        whom = f"{ended.url} " if ended.url else "the server of the model "
        return Finding(
            summary=f"{ended.container.name} ended since {whom}did not answer in the time that its client gives it "
            f"({ended.error}).",
            evidence=tuple(log_evidence(line) for line in ended.lines),
            explains=CRASHED,
            fix=prolonged(ended.container, None, enough(None))
            or fixes.advice(
                f"Raise the timeout of the client in {fixes.edited(pod)} to {say_seconds(enough(None))} (timeout={enough(None)} of its "
                "library), and let it ask again instead of ending"
            ),
            order=ended.lines[-1].order,
        )
    busy = list(_busy_workers(pod, logs)) if logs is not None and not subject.engines(pod) else []
    if not busy or stray([line for line, _ in busy]):
        return None
    (killed, request), times = busy[0], f"{len(busy)} times" if len(busy) > 1 else "once"
    return Finding(
        confidence="likely" if len(busy) > 1 else "possible",  # few programs behind gunicorn log what they answered
        summary=f"gunicorn in {killed.log.container} ended workers that were busy with a request for as long as --timeout allows "
        f"(30 s by default); its log says so {times}.",
        evidence=(log_evidence(killed), log_evidence(request)),
        explains=("slow-load", "worker-lost"),
        fixes=(
            _patient(pod, killed.log.container),
            fixes.advice(
                "Have threads or an asynchronous worker (-k gthread, -k uvicorn.workers.UvicornWorker) wait for the answer: the timeout is "
                "for a worker that is stuck"
            ),
        ),
        order=killed.order,
    )


def _patient(pod: Pod, name: str) -> Fix:
    """More time for gunicorn's workers, by its variable where nothing else says how much they have."""
    container = pod.container(name)
    text = f"Give gunicorn --timeout {enough(None)}"
    words = " ".join(container.spec.argv) if container is not None else ""
    if (
        container is None
        or "GUNICORN_CMD_ARGS" in container.env
        or re.search(r"(?:^|\s)(?:--timeout\b|-t\s?\d)", words)
    ):
        return fixes.advice(f"{text} in {fixes.edited(pod)} (GUNICORN_CMD_ARGS sets it without a new image)")
    if "gunicorn" not in words:  # the image's own command starts it, which goes before the variable
        text += ", where the image's command gives it none"
    return fixes.set_env(container, "GUNICORN_CMD_ARGS", f"--timeout {enough(None)}", text)


def _by_its_router(pod: Pod, engine: Engine, logs: Logs) -> Finding | None:
    """llama-server as a router, whose own client of a model's process got no answer in time, while that ran on."""
    log = logs.current(engine.container.name) if pod.ready else None
    lines = list(log.find(_UNREAD)) if log is not None else []
    if log is None or len(lines) < _FEWEST_UNREAD or not log.holds(_PROXIED):
        return None
    if log.holds(_CHILD_ENDED) or stray(lines) or _failed_at_once(log):
        return None
    return Finding(
        summary=f"{engine.container.name} as a router gave up waiting for the process of a model, which ran on; its log says so "
        f"{len(lines)} times. Its own client waits for so long, in some releases whatever --timeout says.",
        evidence=(log_evidence(lines[0]), log_evidence(lines[-1])),
        fix=fixes.advice(
            "Have clients stream (the wait is for the next piece), or take a release whose router heeds --timeout and raise that; else "
            "let a server of its own serve the slow model, without the router before it"
        ),
        order=lines[0].order,
    )


def _failed_at_once(log: Log) -> bool:
    """Whether the router could read no answer right after it had passed a request on, each time: it waited for nothing.

    Which of several open requests failed it does not say; the oldest one may be.
    """
    opened, waits = deque[Line](), list[float | None]()
    for line in sorted(log.find(_PROXIED, _UNREAD, _DONE), key=lambda line: line.number):
        if _PROXIED in line.text:
            opened.append(line)
        elif opened and _UNREAD in line.text:
            waits.append(seconds_between(opened[0], line))
        elif opened:
            opened.popleft()
    return bool(waits) and all(seconds is not None and seconds < _AT_ONCE_SECONDS for seconds in waits)


def _busy_workers(pod: Pod, logs: Logs) -> Iterator[tuple[Line, Line]]:
    """Workers that gunicorn ended while they were busy with a request, and no probe: the lines that say so (`arbiter.py`, `sync.py`)."""
    for killed in logs.find(KILLED):
        if killed.log.previous and not pod.failing:
            continue  # an instance that is gone, of a pod that has recovered
        pid = re.search(r"WORKER TIMEOUT \(pid:(\d{1,10})\)", killed.text[:2000])
        for line in killed.log.lines(killed.number + 1, killed.number + _SOON) if pid else ():
            text = line.text[:2000]
            said = re.search(rf"\[{pid[1]}\] \[ERROR\] Error handling request (/\S{{1,500}})", text) if pid else None
            if said is not None and not _PROBED.match(said[1]):
                yield killed, line
                break


class _Together(msgspec.Struct, frozen=True):
    """Requests that somebody ended at one age, and the timeout of just so long, where one is known."""

    lines: list[Line]
    seconds: int
    timeout: Timeout | None


def _ended_alike(
    pod: Pod, engine: Engine | None, subject: Subject, cluster: Cluster, own: Log | None
) -> _Together | None:
    """Enough requests of one age, by the log of who ended them, of a client, or by when they were asked."""
    known = [*timeouts(pod, engine, subject, cluster)] if engine is not None else []
    allowed = {one.seconds for one in known if one.told and one.whole}
    ended = of_itself(pod, cluster, {one.container.name for one in subject.engines(pod)}, allowed)
    if own is not None and (engine is not None or _asked_as_one(pod, own)):
        ended = ended or of_clients(pod, cluster, allowed) or since_asked(pod, own, cluster)
    lines, seconds = ended or ([], 0)
    if engine is not None:
        lines = [line for line in lines if not written_before(line, engine.container, cluster)]
    if len(lines) < fewest(seconds, allowed):
        return None
    return _Together(lines, seconds, next((one for one in known if one.seconds == seconds), None))


def _all_at_one_age(
    pod: Pod, engine: Engine | None, subject: Subject, cluster: Cluster, logs: Logs | None
) -> Finding | None:
    """Requests that somebody ended each time at the same round age, by whatever words, while the server ran on."""
    own = unbroken(pod, engine.container if engine is not None else pod.gpu_container, logs)
    if engine is not None and own is None:
        return None
    found = _ended_alike(pod, engine, subject, cluster, own)
    if found is None:
        return None
    lines, timeout, log = found.lines, found.timeout, found.lines[0].log
    alive, runs_on = answered_well(own) if own is not None else 0, own is not None
    allows = f", which is what {timeout.where} allows" if timeout else ""
    old, who = say_seconds(found.seconds), f"{log.container or log.pod} of {log.pod}"
    said = (
        f"{len(lines)} requests when they were {old} old, each time the same"
        if len(lines) > 1
        else f"a request when it was {old} old"
    )
    return Finding(
        role="note" if alive >= MANY * len(lines) else "risk" if long_past(lines) else "cause",
        confidence="likely" if alive or timeout else "possible",
        summary=f"{who} ended {said}{allows}: a timeout of its own, or of what it asks."
        + (" The server runs on." if runs_on and (engine is not None or log.pod != pod.name) else ""),
        evidence=(*(log_evidence(line) for line in lines[:2]), *([timeout.evidence] if timeout else [])),
        fix=_allowed_longer(found, who, cluster),
        order=lines[0].order,
    )


def _allowed_longer(found: _Together, who: str, cluster: Cluster) -> Fix:
    """A longer timeout where it stands: by the object that says it, by who wrote the line, else in words."""
    if found.timeout is not None:
        return longer(found.timeout, 0)
    wait = enough(found.seconds)
    return prolonged(writer_of(found.lines[0], cluster), found.seconds, wait) or fixes.advice(
        f"Raise the timeout of {say_seconds(found.seconds)} that {who} has, or what stands between it "
        f"and the server, to {say_seconds(wait)}"
    )


def _by_its_host(pod: Pod, subject: Subject, cluster: Cluster) -> Finding | None:
    """Clients of a proxy that its gateway answered with 504, by the host at which they ask it, each time when a request was as old."""
    names = {item.name for item in pod.services}
    leading = [item for item in cluster.items("Ingress", pod.namespace) if names & set(backends(item))]
    hosts = {rule.get("host") for item in leading for rule in rows(item.raw, "spec.rules")}
    known = [one for one in timeouts(pod, None, subject, cluster) if one.item in leading]
    for log in current_logs(cluster) if known and hosts else ():
        said = [(line, m) for line, m in log.matching(_ANSWERED, _ASKS, most=2000) if m["host"] in hosts]
        # one after another: between two answers lies no more than one request
        late = [
            (line, seconds_between(before_it, line))
            for (before_it, _), (line, m) in pairwise(said)
            if m["code"] == "504"
        ]
        ages = [age for _, age in late if age is not None]
        timeout = next(
            (x for x in known if ages and all(0 <= age - x.seconds <= max(3, x.seconds / 20) for age in ages)), None
        )
        if timeout is None or len(ages) < len(late) or len(late) < _FEWEST_IN_A_ROW or said[-1][1]["code"] != "504":
            continue
        return Finding(
            role="risk" if long_past([line for line, _ in late]) else "cause",
            summary=f"{timeout.where} leads to {pod.name}, and {len(late)} requests of {log.pod} there were answered with 504 after "
            f"{say_seconds(timeout.seconds)}, which is what its gateway allows.",
            evidence=(*(log_evidence(line) for line, _ in late[:2]), timeout.evidence),
            fix=longer(timeout, 0),
            order=late[0][0].order,
        )
    return None


def _asked_as_one(pod: Pod, own: Log) -> bool:
    """Whether somebody takes what nobody knows for a server of models: its clients by what they call it, or its log by what it is asked."""
    return asked_as_one(pod) or any(re.search(ASKED, line.text[:2000]) for line in own.find("POST /"))


def _measured(timeout: Timeout, taken: Histogram, tokens: int | None) -> Finding:
    """Requests that take longer than the timeout, as the engine measured them."""
    where, share = timeout.where, taken.above(timeout.seconds)
    ends = "ends every request after" if timeout.whole else "ends every request that sends nothing for"
    slow = taken.quantile(0.99)
    seconds = max(slow * 2, (tokens or 0) / FASTEST_TOKENS_PER_SECOND)
    said = (
        f"{share:.1%} took longer than {say_seconds(timeout.seconds)}, one in a hundred {say_seconds(slow)} or longer"
    )
    streams = "" if timeout.whole else " (those that stream are spared)"
    return Finding(
        role="risk",
        confidence="certain" if timeout.whole else "possible",
        summary=f"{where} {ends} {say_seconds(timeout.seconds)}; of {taken.observed:.0f} requests that the engine finished "
        f"{share:.1%} took longer{streams}.",
        evidence=(timeout.evidence, taken.evidence(said)),
        fix=longer(timeout, int(seconds * FASTEST_TOKENS_PER_SECOND)),
    )


def _generates(engine: Engine) -> bool:
    """Whether it writes text: embeddings and scores are done in one step."""
    if engine.name in ("tei", "triton"):
        return False
    told = [engine.value(name) for name in ("task", "runner", "is_embedding")]
    return not any(value in ("embed", "embedding", "score", "classify", "reward", "pooling", True) for value in told)


def _longest(engine: Engine) -> tuple[int | None, str]:
    """How many tokens one request may have, and what says so."""
    if cap := engine.explicit("max_model_len"):
        return (cap.value if isinstance(cap.value, int) and cap.value > 0 else None), cap.text
    model = engine.explicit("model")
    if model and isinstance(model.value, str) and engine.found.argv_known:
        return native_context(model.value), f"{model.value} without a cap"
    return None, ""


def _allow(pod: Pod, cut: list[Line], timeout: Timeout | None, cluster: Cluster) -> Iterator[Fix]:
    """What lets requests be answered that somebody gave up."""
    setting, seconds = own_setting(cut[0]), waited(cut)
    whole = any(words in cut[0].text for words in OF_STREAMS)
    if setting:
        yield _own(cut[0], setting, seconds, cluster)
    elif all(NO_POD in line.text for line in cut):
        labels = (
            ("InferenceService", INFERENCE_SERVICE),
            ("Knative's Service", KNATIVE_SERVICE),
        )
        of = next((f"{kind}/{pod.labels[key]}" for kind, key in labels if key in pod.labels), fixes.edited(pod))
        yield fixes.advice(f'Keep a pod running: autoscaling.knative.dev/min-scale: "1" in the annotations of {of}')
        yield fixes.advice(f"Raise timeoutSeconds above the time that a pod takes to become ready, in {of}")
        return
    elif all(OF_PICKER in line.text for line in cut):
        yield from _for_the_picker(seconds, cluster)
        return
    elif all(re.search(_BY_CLOUDFLARE, line.text) and not telling(line) for line in cut):
        yield fixes.advice(
            "Have clients stream (stream: true): Cloudflare gives up after 100 to 120 s without a word of the answer"
        )
        yield fixes.advice("Lead clients past Cloudflare, which lets only its Enterprise plans change that time")
        return
    elif timeout:
        yield longer(timeout, 0)
        whole = timeout.whole
    else:
        to = f" of {say_seconds(round(seconds))}" if seconds and seconds >= 1 else ""
        yield more_patient(cut[0], seconds, pod, cluster) or fixes.advice(
            f"Raise the timeout{to} of the gateway's route to {say_seconds(enough(seconds))}",
            f"kubectl -n {pod.namespace} get httproutes,virtualservices,ingresses -o yaml | grep -i -B9 timeout",
        )
        whole = cut_whole(cut[0])
    if not whole:
        yield STREAM


def _for_the_picker(seconds: float | None, cluster: Cluster) -> Iterator[Fix]:
    """More time for what chooses the endpoint: twice what it had, where that was more than the 200 ms of Envoy's own."""
    allowed = max(_PICKER_SECONDS, round(2 * (seconds or 0)))
    said = (
        f"Have the gateway wait {allowed} s for what chooses the endpoint: messageTimeout: {allowed}s of its extProc in"
    )
    told = [
        (policy, at, processor["messageTimeout"])
        for policy in cluster.items("EnvoyExtensionPolicy")
        for at, processor in enumerate(rows(policy.raw, "spec.extProc"))
        if seconds and abs((duration(processor.get("messageTimeout")) or 0) - seconds) < seconds / 10
    ]
    if len(told) == 1:
        policy, at, had = told[0]
        yield fixes.set_field(
            policy,
            f"/spec/extProc/{at}/messageTimeout",
            f"{allowed}s",
            f"{said} EnvoyExtensionPolicy/{policy.name}, where it is {had}",
            owner="platform",
        )
    else:
        now = f"{say_seconds(round(seconds))} now" if seconds and seconds >= 1 else "200 ms where nothing is set"
        names = " or ".join(f"{policy.namespace}/{policy.name}" for policy, _, _ in told[:3])
        which = f"the EnvoyExtensionPolicy of the route ({names}" if told else "an EnvoyExtensionPolicy ("
        yield fixes.platform(f"{said} {which}{'; ' if told else ''}message_timeout of Envoy's ext_proc filter, {now})")
    yield fixes.platform("Give what chooses the endpoint (ext_proc) more CPU or replicas")


def _own(line: Line, setting: str, seconds: float | None, cluster: Cluster) -> Fix:
    """A longer time in what waited as long as it is told itself."""
    writer, allowed = writer_of(line, cluster), enough(seconds)
    if ROUTED in line.text or (writer is not None and OF_LLMKUBE in writer.spec.image):
        return longer_in_router(line, seconds, allowed, cluster)
    if (told := prolonged(writer, seconds, allowed)) is not None:
        return told
    if writer is not None and _AIOHTTP_VARIABLE in setting and "open-webui" in writer.spec.image:
        return fixes.set_env(
            writer,
            _AIOHTTP_VARIABLE,
            str(allowed),
            f"Let it wait {say_seconds(allowed)}: {_AIOHTTP_VARIABLE}={allowed}",
        )
    where = fixes.edited(writer.pod) if writer is not None else line.log.pod or "it"
    return fixes.advice(f"Raise {setting} to {say_seconds(allowed)} ({allowed} s) in {where}")
