"""Servers that live on when a model, or its engine, fails: Ollama, LocalAI, Xinference, Triton, Ray Serve, Dynamo, llama-swap, routers,
and what starts a llama-server of its own."""

from __future__ import annotations

import bisect
import heapq
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, takewhile

from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.logs import Line, Log
from kubectl_llmdoctor.facts.processes import said
from kubectl_llmdoctor.facts.requests import PER_STRAY, lost_threads, stray
from kubectl_llmdoctor.facts.starts import OLLAMA_LOADED, READY, answered_at, phase_of, signs_of_life
from kubectl_llmdoctor.facts.written import seconds_between

#: How Ollama says that it could not load a model: it lives on.
_LOAD_FAILED = ('msg="Load failed"', 'msg="error loading llama server"')
#: How it says, from 0.5 on, that the process of a model ended with an error, of which it has read some words.
_RUNNER_ENDED = 'msg="llama runner terminated"'
#: How servers whose models run in processes of their own say that such a process failed a request: Ollama, LocalAI. It stands
#: at most so many lines after what the process printed, which may be the stacks of all its threads.
_FAILED_TEXTS = ("| 500 |", " 500  -  POST ", "status=500")
_FAILED = (
    r"\| 500 \|.{0,80}\bPOST\b| 500  -  POST |\bmethod=POST status=500\b"
    r"|\bHTTP request method=\"?POST\"? path=\S+ status=500\b"
)
_OF_A_MODEL = 1500
#: How llama.cpp says that it finds no memory for a context, of which its process ends, and what stands above it where the cache was made:
#: a log that was quoted down to these lines shows no request. Source: its src/llama-context.cpp.
_NO_BUFFER = "cudaMalloc failed: out of memory"
_OF_A_CONTEXT = r"\bllama_(?:kv_cache\w{0,20}|context|new_context_with_model|init_from_model): |\bgraph_reserve: |\bggml_gallocr_reserve_n"
_BELOW_IT, _ABOVE_IT = 4, 8
#: How vLLM's server ends, in a process that is not the container's first: what started it may live on.
_CHILD = "Engine core initialization failed"
_CHILD_FAILED = r"\(APIServer pid=(?!1\))\d+\).*Engine core initialization failed"
#: How vLLM's exceptions end by which its engine does not start, up to 0.19: what started it for a model may live on.
_UNSTARTED, _RAISED = "when initializing the engine.", expression(r"(?:\w{1,60}\.){0,8}\w{1,60}Error: ")
_OWN_SERVER = "vLLM API server version "
#: What stands before it where vLLM's own server says so; and so many lines below it a server that has an engine within itself (MinerU),
#: and starts that for the first request, logs how this ended.
_BY_ITS_SERVER, _OF_A_REQUEST = "(APIServer pid=", 60
#: How vLLM's V0 engine says that it died; the process that takes the requests may live on, and answers none of them.
_ENGINE_DIED, _OF_AN_ENGINE = "Engine background task failed", 200
#: So many lines above the frame of a thread that ended does its exception stand, where the logger prints that first.
_ABOVE_A_FRAME = 10
#: How Ray says, in the log of who uses it, that one of its processes died (its core_worker). An engine whose ranks run in Ray does not
#: get over that, and the server in front of it may go on to answer its probes.
_RANK_DIED = "A worker died or was killed while executing a task by an unexpected system error"
#: How Xinference's worker says that a model was not launched, before the traceback, and that one was. From 3.0 on what wrote a
#: line stands behind its level, as text or as JSON.
_NOT_LAUNCHED, _LAUNCHED = "Failed to load model ", "Leave launch_builtin_model, elapsed time"
_BY_THE_WORKER = r"\bxinference\.core\.worker\b.{0,300}?\bFailed to load model "
_OF_A_LAUNCH = 200
#: The frame of its API below an error of that, for logs that have no line of the worker (one that runs elsewhere, or was cut).
_IN_ITS_API = 'xinference/api/restful_api.py", line '
_OF_ITS_API = expression(r'xinference/api/restful_api\.py", line \d{1,5}, in launch_model\b')
#: What ends such an error where nothing was loaded: a client asked for a model that it does not know, or has already.
_AN_ERROR, _ASKED_AMISS = "Error: ", expression(r"ValueError: .{0,300}\b(?:not found|already exists)\b")
#: How LocalAI says that it begins to load a model, and, as Xinference does, that it could not. Source: its pkg/model/initializers.go.
_LOADER_BEGINS = "BackendLoader starting"
_BY_THE_LOADER = r"\b(?:BackendLoader starting|Failed to load model)\b.{0,4000}?\bmodelID=\"?(?P<model>[^\"\s]{1,300})"
#: How Dynamo's frontend says that it does not serve a model that a worker has registered, and that it does; it is ready without any.
#: Source: its lib/llm/src/discovery/watcher.rs.
_NOT_ADDED, _ADDED = "Error adding model from discovery", "added model"
_OF_A_WORKER = r"\bmodel_name\"?[=:] ?\\?\"(?P<model>[^\"\\]{1,300})"
#: How llama-swap says that the process of a model ended with an error, and that one answers; and how it says, soon below the first
#: (what processes print may stand between), that it did not end it itself, as it does when another model is asked for or nobody asks
#: any more. Source: its proxy/process.go.
_SWAP_ENDED, _SWAP_UP = "> ExitError >> ", "> Health check passed on "
_SWAP_BY_ITSELF, _SWAP_BELOW = "> process exited but not StateStopping", 20
#: From v218 on (May 2026) it says only of a process that it did not end itself that this is gone: from its router, or of a model that
#: was up (internal/router/base.go, internal/process/process_command.go).
_SWAP_GONE = (
    ": upstream command exited prematurely",
    "upstream exited unexpectedly",
    "> upstream process exited unexpectedly",
)
_SWAPPED = (
    r"<(?P<model>[^<>]{1,300})> (?:ExitError >> |Health check passed on |process exited but not StateStopping|upstream process exited)"
    r"|\b(?:matrix|group): (?:running|starting) (?P<routed>\S{1,300}) (?:exited|failed): "
)
#: How Triton says that a model of its repository was not loaded, and that one was; what its backend said of it stands at most so
#: many lines before or after that.
_NOT_LOADED, _LOADED = "failed to load '", "successfully loaded '"
_TRITON_MODEL = (
    r"\bmodel_(?:lifecycle|repository_manager)\.cc:\d+\] \"?(?:failed to load|successfully loaded) '(?P<model>[^']+)'"
)
_OF_A_LOAD = 40
#: How the controller of Ray Serve says that a replica failed, before the traceback, and that one of a deployment is up. Source:
#: Ray's serve/_private/deployment_state.py; before Ray 2.8 a replica is named `deployment#suffix`.
_REPLICA_FAILED, _REPLICA_UP = ", the replica will be stopped", " started successfully on node "
_REPLICA = (
    r"\b(?:Exception in [Rr]eplica|Replica)(?: '?|\(id='\w{1,40}', deployment=')"
    r"(?P<deployment>[^'#\s]{1,200}(?:#[^'#\s]{1,200}(?=#))?)"
)
#: How llama-server as a router says that it starts the process of a model, that this has ended, and that the model is used.
_INSTANCE_TEXTS = ("spawning server instance with name=", " exited with status ", "proxying request to model ")
_INSTANCE = (
    r"\b(?:spawning server instance with name=(?P<starts>\S{1,300})|proxying request to model (?P<used>\S{1,300})) on port \d"
    r"|\binstance name=(?P<ended>\S{1,300}) exited with status (?!0\b)-?\d"
)
#: How programs that start llama-server for a model say that it is gone (CoPaw, Unsloth's studio, scripts in front of it); what it said
#: itself stands above. One that was told to end (SIGTERM) is none, nor is what stands before a server that came up later.
_WRAPPED_TEXTS = tuple(
    f"{who} {how}"
    for who in ("llama-server", "llama.cpp server", "llama-server process", "llama.cpp server process")
    for how in ("exited", "crashed", "died", "terminated")
)
_WRAPPED = (
    r"\bllama(?:-server|\.cpp server)(?: process)? (?:(?:crashed|died)\b|(?:exited|terminated) (?:before |early|unexpectedly"
    r"|(?:immediately )?\(?(?:with )?(?:an )?(?:error|(?:exit |return )?(?:code|status)[ :=]{0,3}(?!-?(?:0|15|143)\b)-?\d)))"
)
_WRAPPED_UP = (
    *("server is listening on http", "HTTP server listening", "main: model loaded"),
    *("llama-server ready", "llama-server is ready", "llama-server healthy", "llama.cpp server is ready"),
)
#: How web servers log a POST and their answer: uvicorn, gunicorn, nginx and werkzeug; Tornado. So many that fail, and none that
#: succeeds, say that a server answers nothing.
_POSTED = "POST /"
_POST = expression(r'"POST /\S{0,500} HTTP/[\d.]{1,4}\\?" (?P<after>\d{3})\b|(?<!\d)(?P<before>\d{3}) POST /')
_UNANSWERED = 2
#: How servers say that they listen, and log the first probe.
_LISTENS, _PROBED = (READY, "istening ", "unning on "), '"GET /'
#: The same with the route, of which so many in a row failed, up to the last, and not at one moment: so many probes, or seconds, between.
_ROUTE = expression(
    r'"POST (?P<path>/[^\s?"]{0,300})\S{0,500} HTTP/[\d.]{1,4}\\?" (?P<status>\d{3})\b'
    r"|\brequest: POST (?P<of>/[^\s?]{0,300})\S{0,500} [\da-f.:]{3,45} (?P<said>\d{3})\s*$"
    r"|[\d/+-]{9,60} (?P<first>\d{3}) [\d+]{1,12} \S{1,200} \S{1,200} [\w-]{4} [\d/+]{9,60} [\d/]{3,20} "  # HAProxy
    r"(?:\{[^}]{0,500}\} ){0,2}\"POST (?P<asked>/[^\s?\"]{0,300})"
)
#: The same in JSON: Envoy's access log, Caddy's, Traefik's. Caddy logs an error by itself as well, with the same status.
_JSON_POST = expression(r'"(?:method|RequestMethod|request_method)":\s?"POST"')
_JSON_PATH = expression(
    r'"(?:uri|path|x-envoy-origin-path|x_original_path|RequestPath|request_uri)":\s?"(/[^\s?"]{0,300})'
)
_JSON_STATUS = expression(r'"(?:status|response_code|DownstreamStatus)":\s?"?(\d{3})\b')
_POSTED_IN_JSON, _OF_ERRORS, _OF_ACCESS = '"POST"', '"logger":"http.log.error', '"logger":"http.log.access'
#: How Dynamo's frontend, which has no access log, says how a request ended, and which errors are no client's. Source: its
#: lib/llm/src/http/service/metrics.rs.
COMPLETED = "service::metrics: request completed "
_ENDPOINT = expression(
    r"service::metrics: request completed .{0,1200}? endpoint=(?P<endpoint>\w{1,40}) .{0,200}? status=(?:success|error)\b"
    r"(?P<failed> error_type=(?:internal|unavailable|response_timeout)\b)?"
)
#: How servers in Rust with tower-http say how a request ended, in the fields of its span: routers (SGLang's model gateway, its
#: src/middleware.rs), Dynamo's frontend up to 0.5, mistral.rs.
BY_SPAN = ("finished processing request", "request failed with server error", "response failed classification=")
_SPAN = expression(
    r"(?=.{0,1900}\bmethod(?:\": ?\"|=\"?)POST\b)(?=.{0,1900}\buri(?:\": ?\"|=\"?)(?P<path>/[^\s?\"}]{0,300}))"
    r".{0,1900}?(?:\bstatus(?:_code)?(?:\": ?|=)|\bclassification=Status code: )(?P<status>\d{3})\b"
)
_IN_A_ROW, _PROBES_BETWEEN, _SECONDS_BETWEEN = 5, 2, 60
#: So many of the last requests, and such a share of them, failed, and half of that share of the last fourth: it is not over.
_OF_LATE, _FEWEST_OF_LATE, _SHARE_OF_LATE, _PARTS = 200, 10, 0.2, 4
#: A server has few routes; of very long logs the last requests, and of each route the last failures, are looked at.
_MOST_REQUESTS, _MOST_ROUTES, _LOOKED_AT = 2000, 20, 40
#: The traceback of a request stands right beside what the access log has of it, and is no longer; so large a share of them is the same.
_BESIDE, _OF_A_TRACEBACK, _SHARE = 3, 400, 0.8
_BEGINS = "Traceback (most recent call last)"
#: Frames of a library that asks another server of models, whose words its exceptions repeat, whatever is raised of them; and of code
#: that came with the request.
FOREIGN = expression(
    r"^\s{1,12}File \"(?:[^\"]{0,300}(?:site|dist)-packages/(?:openai|anthropic|litellm|ollama|grpc|tritonclient|text_generation|cohere"
    r"|xinference/client|xinference_client|langchain\w{0,40}|llama_index|gradio_client|mistralai|google/api_core|ray/serve/handle"
    r"|huggingface_hub/inference)\b|<(?:string|stdin|ipython-input|cell)\b)"
)
#: The exception below the frames; one that quotes what another server answered is of that one.
_EXCEPTION = expression(r"^(?:[A-Za-z_]\w{0,60}\.){0,8}[A-Z]\w{0,80}(?::|$)")
_OF_ANOTHER = expression(
    r"(?i)\b(?:error code|status(?:[ _]?code)?)\W{1,4}[1-5]\d\d\b|\b[45]\d\d,? [\w ]{0,40}(?:for url|message=)|' for url '"
)
#: All that is looked for here.
LITERALS = (
    *OLLAMA_LOADED,
    *_LOAD_FAILED,
    _RUNNER_ENDED,
    *_FAILED_TEXTS,
    _CHILD,
    _UNSTARTED,
    _OWN_SERVER,
    _ENGINE_DIED,
    _RANK_DIED,
    _NOT_LAUNCHED,
    _LAUNCHED,
    _IN_ITS_API,
    _LOADER_BEGINS,
    _NOT_ADDED,
    _ADDED,
    _NOT_LOADED,
    _LOADED,
    _REPLICA_FAILED,
    _REPLICA_UP,
    _SWAP_ENDED,
    _SWAP_UP,
    *_SWAP_GONE,
    _SWAP_BY_ITSELF,
    _POSTED,
    _POSTED_IN_JSON,
    COMPLETED,
    *BY_SPAN,
    _PROBED,
    *_LISTENS,
    *_INSTANCE_TEXTS,
    *_WRAPPED_TEXTS,
    *_WRAPPED_UP,
)


def failed_models(log: Log) -> list[list[int]]:
    """Where a log shows that the process of a model failed in a server that lives on: the first and the last line of each place.

    Empty where hardly a request failed of it, or where a model was loaded since.
    """
    return log.once("failed models", lambda: _failed_models(log))


def _failed_models(log: Log) -> list[list[int]]:
    failed = sorted(
        (x for text in _FAILED_TEXTS for x in log.marks(text) if re.search(_FAILED, x.text[:2000])),
        key=lambda x: x.number,
    )
    found = []
    for line in [] if not failed or (stray(failed, ready=True) and not _last_word(failed)) else failed:
        answers = answered_at(log)
        before = bisect.bisect_left(answers, line.number)
        first = max(answers[before - 1] if before else 0, line.number - _OF_A_MODEL)
        found.append([first, line.number])
    found += [[number - _OF_A_MODEL, number] for number in _failed_children(log)]
    found += [[number - _ABOVE_A_FRAME, number + _OF_AN_ENGINE] for number in _dead_engines(log)]
    found += [[x.number, x.number + _OF_A_LAUNCH] for x in _not_launched(log)]
    found += [[number, number] for number in _unstarted(log)]
    found += [[first, x.number] for first, x in _not_begun(log)]
    found += [[x.number, x.number] for x in _not_added(log)]
    found += [[x.number - _OF_A_LOAD, x.number + _OF_A_LOAD] for x in _not_loaded(log)]
    found += [[x.number, x.number + _OF_A_LAUNCH] for x in _failed_replicas(log)]
    found += [*_failed_swaps(log), *_failed_instances(log), *_quoted_contexts(log)]
    found += [[x.number - _OF_A_MODEL, x.number] for x in _ended_servers(log)]
    return found


def unserved_from(log: Log) -> int:
    """The line at which a server listens that has failed each request since, several of them; 0 where it has not.

    What it said before is why, whatever it is. What it says of a request afterwards may be its upstream's words, or the client's.
    """
    return log.once("unserved from", lambda: _unserved_from(log))


def _unserved_from(log: Log) -> int:
    first, failed = 0, 0
    for line in log.find(_POSTED):
        if (found := _POST.search(line.text[:2000])) is None:
            continue
        if not (found["after"] or found["before"]).startswith("5"):
            return 0
        first, failed = first or line.number, failed + 1
    if failed < _UNANSWERED:
        return 0
    probed = next((line.number for line in log.find(_PROBED)), 0)
    listens = [line.number for text in _LISTENS for line in log.marks(text)]
    return max((at for at in (probed, *listens) if at < first), default=0)


def failing_alike(log: Log) -> frozenset[int]:
    """The lines of exceptions with which a server fails each request at one of its routes, the same ones each time.

    Its access log has several failures in a row there, up to the last request, and beside nearly each a traceback that ends alike. What
    ends a program elsewhere ends its requests then, whoever the server is.
    """
    return log.once("failing alike", lambda: frozenset(at for numbers in raised_alike(log).values() for at in numbers))


def raised_alike(log: Log) -> dict[str, list[int]]:
    """The same by the route."""
    return log.once("raised alike", lambda: dict(_raised_alike(log)))


def _raised_alike(log: Log) -> Iterator[tuple[str, list[int]]]:
    for path, failed in failing_routes(log).items():
        raised = [_exceptions(line) for line in failed[-_LOOKED_AT:]]
        times = Counter(text for one in raised for text in set(one.values()))
        often = {text for text, count in times.items() if count >= _SHARE * len(raised)}
        yield path, [number for one in raised for number, text in one.items() if text in often]


def failing_routes(log: Log) -> dict[str, list[Line]]:
    """The routes at which a server answers each request with 5xx, several in a row up to the last, and the access log's lines of these."""
    return log.once("failing routes", lambda: dict(_failing_routes(log)))


def _failing_routes(log: Log) -> Iterator[tuple[str, list[Line]]]:
    rows = {path: [*takewhile(lambda one: one[1], reversed(posts))][::-1] for path, posts in _posts(log).items()}
    for path, row in sorted(rows.items(), key=lambda one: len(one[1]), reverse=True)[:_MOST_ROUTES]:
        failed = [line for line, _ in row]
        if len(failed) >= _IN_A_ROW and _apart(failed[0], failed[-1]):
            yield path, failed


def often_failing_routes(log: Log) -> dict[str, tuple[list[Line], list[Line]]]:
    """The routes at which a server answers many of the last requests with 5xx, and others not: the access log's lines of both."""
    found = {}
    for path, posts in _posts(log).items():
        last = posts[-_OF_LATE:]
        failed = [line for line, bad in last if bad]
        if not fails_often([bad for _, bad in last]) or not _apart(failed[0], failed[-1]):
            continue
        if any(bad for _, bad in last[: len(last) // 2]):
            found[path] = failed, [line for line, bad in last if not bad]
    return found


def fails_often(last: Sequence[bool]) -> bool:
    """Whether many of the last requests failed, and still do; oldest first."""
    last = last[-_OF_LATE:]
    fourth = last[-len(last) // _PARTS :]
    often = sum(last) >= max(_FEWEST_OF_LATE, _SHARE_OF_LATE * len(last))
    return often and sum(fourth) >= _SHARE_OF_LATE / 2 * len(fourth)


def _posts(log: Log) -> dict[str, list[tuple[Line, bool]]]:
    """The last requests of each route, but those of a process that another has replaced, and whether they failed with 5xx."""
    return log.once("posts", lambda: _by_route(log))


def _by_route(log: Log) -> dict[str, list[tuple[Line, bool]]]:
    listens = max((line.number for text in _LISTENS for line in log.marks(text)), default=0)
    by_route: dict[str, list[tuple[Line, bool]]] = {}
    found_by = [deque(log.find(text), maxlen=_MOST_REQUESTS) for text in (_POSTED, COMPLETED, _POSTED_IN_JSON)]
    if log.holds(_OF_ACCESS):
        found_by[-1] = deque(line for line in found_by[-1] if _OF_ERRORS not in line.text[:2000])
    every = heapq.merge(*found_by, *_spans(log), key=lambda line: line.number)
    for line in deque(every, maxlen=_MOST_REQUESTS):
        if line.number > listens and (found := _request(line.text[:2000])) is not None:
            path, failed = found
            by_route.setdefault(path, []).append((line, failed))
    return by_route


def _spans(log: Log) -> list[deque[Line]]:
    """The last lines of each of `BY_SPAN`; without how tower-http classifies failures where its program tells of them as well."""
    found = [deque(log.find(text), maxlen=_MOST_REQUESTS) for text in BY_SPAN]
    told = (_request(line.text[:2000]) for lines in found[:-1] for line in lines)
    return found[:-1] if any(one is not None and one[1] for one in told) else found


def _request(text: str) -> tuple[str, bool] | None:
    """The route of a request that a line tells of, and whether it failed with 5xx."""
    if (found := _ROUTE.search(text)) is not None:
        status = found["status"] or found["said"] or found["first"]
        return found["path"] or found["of"] or found["asked"], status.startswith("5")
    at = text.find(COMPLETED)
    if at >= 0 and (found := _ENDPOINT.match(text, at)) is not None:
        return f"/v1/{found['endpoint'].replace('_', '/')}", found["failed"] is not None
    if any(words in text for words in BY_SPAN) and (found := _SPAN.match(text)) is not None:
        return found["path"], found["status"].startswith("5")
    if _POSTED_IN_JSON not in text or not _JSON_POST.search(text):
        return None
    path, status = _JSON_PATH.search(text), _JSON_STATUS.search(text)
    return (path[1], status[1].startswith("5")) if path and status else None


def _apart(first: Line, last: Line) -> bool:
    """Whether requests failed at more than one moment, as far as times tell, or else probes between them."""
    gap = seconds_between(first, last)
    if gap is not None:
        return gap >= _SECONDS_BETWEEN
    return len(list(islice(first.log.between(_PROBED, first, last), _PROBES_BETWEEN))) == _PROBES_BETWEEN


def _exceptions(failed: Line) -> dict[int, str]:
    """The exceptions of the tracebacks right after what says that a request failed, and right before that: their lines, without numbers.

    A worker says before what the server then stumbles over. None where one is what another server answered: what is raised of that
    repeats it.
    """
    log, number = failed.log, failed.number
    tracebacks = []
    if any(_BEGINS in x.text for x in log.lines(number + 1, number + _BESIDE)):
        tracebacks.append(_until_the_next(log.lines(number + 1, number + _OF_A_TRACEBACK)))
    beside = _until_the_next([*log.lines(max(number - _BESIDE, 1), number - 1)][::-1])
    if any(_EXCEPTION.match(said(x.text[:4000]).text[:400]) for x in beside):
        tracebacks.append(_until_the_next([*log.lines(max(number - _OF_A_TRACEBACK, 1), number - 1)][::-1])[::-1])
    found: dict[int, str] = {}
    for lines in tracebacks:
        framed = False
        for line in lines:
            text = said(line.text[:4000]).text
            if FOREIGN.match(text[:600]):
                return {}
            if framed and _EXCEPTION.match(text[:400]):
                if _OF_ANOTHER.search(text):
                    return {}
                found[line.number] = re.sub(r"\d+", "0", text[:120])
            framed = text[:1].isspace()
    return found


def _until_the_next(lines: Iterable[Line]) -> list[Line]:
    """What stands before the next request of an access log."""
    return list(takewhile(lambda x: " HTTP/1" not in x.text[:2000], lines))


def _failed_children(log: Log) -> list[int]:
    """Where vLLM says that its engine did not start, in a process that is not the container's first, and has not served since.

    So does a server that has such an engine within itself, and starts it for a request: the answer to this is an error.
    """
    serves = max((line.number for line in log.marks(READY)), default=0)
    failed = [x for x in log.marks(_CHILD) if x.number > serves]
    own = [x for x in failed if _BY_ITS_SERVER not in x.text[:2000]]
    posts = [*log.find(_POSTED)] if own else []
    numbers = [x.number for x in posts]
    found = [x.number for x in failed if re.search(_CHILD_FAILED, x.text[:2000])]
    for x in own:
        after = bisect.bisect_right(numbers, x.number)
        answer = posts[after] if after < len(posts) and numbers[after] <= x.number + _OF_A_REQUEST else None
        said = _POST.search(answer.text[:2000]) if answer is not None else None
        if said is not None and (said["after"] or said["before"]).startswith("5"):
            found.append(x.number)
    return sorted(found)


def _unstarted(log: Log) -> list[int]:
    """Where an engine of vLLM ended at its start, and none has begun or come up since, nor was a request answered.

    With its engine vLLM's own server ends as well: where that lives, what it said was not its last word.
    """
    if any(log.marks(_OWN_SERVER)):
        return []
    up = [
        line.number for text in (READY, _LAUNCHED, _LOADED, _REPLICA_UP, _ADDED, _SWAP_UP) for line in log.marks(text)
    ]
    later = phase_of(log)
    last = max((*up, *signs_of_life(log), later.line.number if later else 0))
    return [x.number for x in log.marks(_UNSTARTED) if x.number > last and _RAISED.match(said(x.text[:2000]).text)]


def _dead_engines(log: Log) -> list[int]:
    """Where an engine says that it died, and answers nothing since."""
    up = [*(line.number for line in log.marks(READY)), *answered_at(log)]
    last, later = max(up, default=0), (*signs_of_life(log), *(x.number for x in log.marks(_REPLICA_UP)))
    died = [x.number for x in (*log.marks(_ENGINE_DIED), *lost_threads(log)) if x.number > last]
    # other programs use Ray as well: only of one that had served
    return died + [x.number for x in log.marks(_RANK_DIED) if 0 < last < x.number and x.number > max(later, default=0)]


def _not_launched(log: Log) -> list[Line]:
    """Where Xinference says that a model was not launched, and launched none since."""
    launched = max((line.number for line in log.marks(_LAUNCHED)), default=0)
    said = [x for x in log.marks(_NOT_LAUNCHED) if re.search(_BY_THE_WORKER, x.text[:2000])]
    for x in log.marks(_IN_ITS_API):
        raised = next((y.text[:1000] for y in log.find(_AN_ERROR) if y.number > x.number), "")
        if _OF_ITS_API.search(x.text[:2000]) and not _ASKED_AMISS.match(raised):
            said.append(x)
    return [x for x in said if x.number > launched]


def _not_begun(log: Log) -> list[tuple[int, Line]]:
    """Where LocalAI began to load a model, could not, and has not begun again; not where that is one request of many."""
    begun: dict[str, int] = {}
    failed: dict[str, tuple[int, Line]] = {}
    marks = sorted((x for text in (_LOADER_BEGINS, _NOT_LAUNCHED) for x in log.marks(text)), key=lambda x: x.number)
    for x in marks:
        if (match := re.search(_BY_THE_LOADER, x.text[:5000])) is None:
            continue
        if _LOADER_BEGINS in x.text:
            begun[match["model"]] = x.number
            failed.pop(match["model"], None)
        else:
            failed[match["model"]] = (begun.get(match["model"], x.number), x)
    lines = sorted((line for _, line in failed.values()), key=lambda x: x.number)
    return [] if lines and stray(lines, ready=True) and not _last_word(lines) else list(failed.values())


def _not_added(log: Log) -> list[Line]:
    """Where Dynamo's frontend says that it does not serve a model, of models that it serves by no other worker either."""
    added = {match["model"] for x in log.marks(_ADDED) if (match := re.search(_OF_A_WORKER, x.text[:2000]))}
    named = [(x, re.search(_OF_A_WORKER, x.text[:2000])) for x in log.marks(_NOT_ADDED)]
    return [x for x, match in named if match and match["model"] not in added]


def _not_loaded(log: Log) -> list[Line]:
    """Where Triton says that a model was not loaded, and has not loaded it since."""
    return _not_since(log, _NOT_LOADED, _LOADED, _TRITON_MODEL)


def _failed_replicas(log: Log) -> list[Line]:
    """Where Ray Serve says that a replica failed, of deployments of which none has come up since."""
    return _not_since(log, _REPLICA_FAILED, _REPLICA_UP, _REPLICA)


def _not_since(log: Log, failed: str, well: str, name: str) -> list[Line]:
    """Where a log says that something failed whose name a pattern finds, and not since that it is well."""
    last = {match[1]: x.number for x in log.marks(well) if (match := re.search(name, x.text[:2000]))}
    found = ((x, re.search(name, x.text[:2000])) for x in log.marks(failed))
    return [x for x, match in found if match and x.number > last.get(match[1], 0)]


def _ended_swaps(log: Log) -> list[Line]:
    """Where llama-swap says that the process of a model ended by itself, of models of which none has answered since."""
    ended, up, by_itself, gone = (
        _of_swap(log, *texts) for texts in ((_SWAP_ENDED,), (_SWAP_UP,), (_SWAP_BY_ITSELF,), _SWAP_GONE)
    )
    found = [
        x
        for model, lines in gone.items()
        for x in lines
        if x.number > max((y.number for y in up.get(model, ())), default=0)
    ]
    for model, lines in ended.items():
        is_up, alone = up.get(model, []), [line.number for line in by_itself.get(model, ())]
        last_up = is_up[-1].number if is_up else 0
        for x in lines:
            # a model that was never up did not come so far; of others a line below says whether it went on its own
            at = bisect.bisect_right(alone, x.number)
            said = at < len(alone) and alone[at] <= x.number + _SWAP_BELOW
            if x.number > last_up and (said or not (is_up or by_itself)):
                found.append(x)
    return sorted(found, key=lambda x: x.number)


def _of_swap(log: Log, *texts: str) -> dict[str, list[Line]]:
    """Where llama-swap says one of these, by model."""
    found = dict[str, list[Line]]()
    for line in (x for text in texts for x in log.marks(text)):
        if (match := re.search(_SWAPPED, line.text)) is not None:
            found.setdefault(match["model"] or match["routed"], []).append(line)
    return found


def _failed_swaps(log: Log) -> Iterator[list[int]]:
    """Where llama-swap prints what a model's process said before it ended."""
    marks = sorted(x.number for text in (_SWAP_ENDED, _SWAP_UP, *_SWAP_GONE) for x in log.marks(text))
    for line in _ended_swaps(log):
        before = bisect.bisect_left(marks, line.number)
        yield [max(marks[before - 1] + 1 if before else 0, line.number - _OF_A_MODEL), line.number]


def _ended_servers(log: Log) -> list[Line]:
    """Where a program that lives on says that the llama-server which it started is gone, and none has come up or answered since."""
    up = [*answered_at(log), *(x.number for text in _WRAPPED_UP for x in log.marks(text))]
    ended = [x for text in _WRAPPED_TEXTS for x in log.marks(text) if re.search(_WRAPPED, x.text[:2000])]
    return [x for x in ended if x.number > max(up, default=0)]


def _last_word(failed: Sequence[Line]) -> bool:
    """Whether the one request that failed is the last that a log shows: nothing says that the next one was answered."""
    answers = answered_at(failed[-1].log)
    return len(answers) < PER_STRAY and (not answers or answers[-1] < failed[-1].number)


def _failed_instances(log: Log) -> list[list[int]]:
    """Where the process of a model of a llama-server router ended with an error, and the model was not used since."""
    lines = sorted((x for text in _INSTANCE_TEXTS for x in log.marks(text)), key=lambda x: x.number)
    begun: dict[str, int] = {}
    failed: dict[str, list[int]] = {}
    for line in lines:
        if not (match := re.search(_INSTANCE, line.text[:2000])):
            continue
        if starts := match["starts"]:
            begun[starts] = line.number
        elif ended := match["ended"]:
            failed[ended] = [begun.get(ended, line.number - _OF_A_LOAD), line.number]
        else:
            failed.pop(match["used"], None)
    return list(failed.values())


def _quoted_contexts(log: Log) -> list[list[int]]:
    """Where a log ends with it that a context found no memory."""
    last = max((x.number for x in log.find(_NO_BUFFER)), default=0)
    if not last or len(log) > last + _BELOW_IT:
        return []
    if any(x.number > last for x in log.find(*OLLAMA_LOADED)):  # with fewer layers on the GPU
        return []
    around = [x.text[:400] for x in log.lines(max(last - _ABOVE_IT, 1), len(log) + 1)]
    return [[last, last]] if any(re.search(_OF_A_CONTEXT, text) for text in around) else []


def failed_load(log: Log) -> Line | None:
    """Where a server that lives on says last that it could not load a model; None when it has loaded that, or one, since."""
    loaded = max((x.number for x in log.find(*OLLAMA_LOADED)), default=0)
    failed = [x for x in log.find(*_LOAD_FAILED) if x.number > loaded]
    failed += [*_not_launched(log), *_not_loaded(log), *_failed_replicas(log), *_ended_swaps(log)]
    failed += [*(x for _, x in _not_begun(log)), *_not_added(log), *_ended_servers(log)]
    return max(failed, key=lambda x: x.number, default=None)


def lacks_model(log: Log) -> Line | None:
    """Where a server that lives on says last that it could not load a model, if more than a stray request fails of it."""
    return failed_load(log) if failed_models(log) else None


def ended_runner(log: Log) -> Line | None:
    """Where Ollama says last that the process of a model that it had loaded ended, if requests failed of it, the last one too."""
    ended = max(log.marks(_RUNNER_ENDED), key=lambda x: x.number, default=None)
    # one that it ends itself, since nobody asks, has failed no request
    failed = ended is not None and any(last >= ended.number - _BESIDE for _, last in failed_models(log))
    if ended is None or not failed or failed_load(log) is not None:
        return None
    up = (*(x.number for x in log.find(*OLLAMA_LOADED)), *answered_at(log))
    return ended if ended.number > max(up, default=0) else None
