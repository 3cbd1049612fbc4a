"""The starts of a server in one log: where each begins, how far it came, and how its process went down."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from itertools import pairwise

import msgspec

from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.logs import Line, Log
from kubectl_llmdoctor.facts.processes import START, looks_like_error, said

#: TEI and TGI print it.
_WARMS_UP = "Warming up model"


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """How far a start had come, by the last line that tells."""

    name: str
    line: Line

    @property
    def doing(self) -> str:
        """What the server does, in words: TEI and TGI warm up, on a CPU as well."""
        return "warming up" if _WARMS_UP in self.line.text else self.name


#: Phases of a start in order; each with pieces of the lines that engines print when they enter it.
_PHASES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "downloading the model",
        (
            "Downloading shards",
            "Download file:",
            "text_generation_launcher: Download: [",
            "pulling manifest",
            "Fetching ",
            "INF Downloading",  # LocalAI
            " Downloading fileName=",  # the same in newer ones
        ),
    ),
    (
        "loading weights",
        (
            "Starting to load model",  # vLLM
            "Loading safetensors checkpoint shards",
            "Loading pt checkpoint shards",
            "Load weight begin",  # SGLang
            "Waiting for shard to be ready",  # TGI
            "load_tensors:",  # llama.cpp
            "Convert to turbomind format",  # LMDeploy
            "] loading: ",  # Triton
            '] "loading: ',  # the same since 24.05
        ),
    ),
    (
        "profiling GPU memory",
        (
            "Model loading took",
            "Loading model weights took",
            "Load weight end",
            _WARMS_UP,
            "Available KV cache memory: ",  # vLLM, at the end
        ),
    ),
    (
        "capturing CUDA graphs",
        (
            "Capturing CUDA graph",
            "Capturing the model for CUDA graphs",
            "Capturing cudagraphs for decoding",
            "Capture cuda graph begin",  # SGLang
            "CUDA graph begin",  # SGLang 0.5.14+
            "Graph capturing finished",  # vLLM, before it warms up its sampler
        ),
    ),
    (
        "serving",
        (
            "Application startup complete.",
            "The server is fired up and ready to roll!",
            "listening on http://",  # llama.cpp
            'msg="Listening on ',  # Ollama: it loads a model when somebody asks for it
            "Started HTTPService at",  # Triton
            "Serving endpoints:",  # NIM
            "is ready at http",  # Ray Serve
            "Registered base model '",  # Dynamo's workers
            "Connected",
            "Ready",
        ),
    ),
)
#: Words that mean it only where this program says them.
_WHOSE = {
    "Connected": "text_generation",
    "Ready": "text_embeddings_router::",
    "is ready at http": "Application '",
    "Args { model_id: ": "text_embeddings_router",
    "INF Downloading": " ETA: ",
    "] loading: ": " model_",
    '] "loading: ': " model_",
}
PHASES = tuple(name for name, _ in _PHASES)


def phase_of(log: Log | None) -> Phase | None:
    """The last phase of the last start that a log shows; None when it shows none."""
    if log is None:
        return None
    best: Phase | None = None
    begin = next(reversed(restarts(log)), 1)
    for name, literals in _PHASES:
        for literal in literals:
            for line in log.find(literal):
                if line.number < begin:
                    continue
                if tells(literal, line) and (best is None or line.number >= best.line.number or name == "serving"):
                    best = Phase(name=name, line=line)
    return best


def phase_at(line: Line) -> str:
    """The phase that a start was in when a line was printed; empty when the lines before it do not tell.

    Who has got or answered requests serves, also where the beginning of the log is gone.
    """
    begin = max((x for x in restarts(line.log)[1:] if x <= line.number), default=0)
    alive = signs_of_life(line.log)
    if bisect.bisect_right(alive, begin) < bisect.bisect_left(alive, line.number):
        return "serving"
    if any(begin < asked.number < line.number for text in _ASKED for asked in line.log.marks(text)):
        return "serving"
    told = line.log.once("told phases", lambda: _told_phases(line.log))
    before = bisect.bisect_left(told, (line.number, ""))
    last, name = told[before - 1] if before else (0, "")
    return name if last > begin and not line.log.torn(last, line.number) else ""


def _told_phases(log: Log) -> list[tuple[int, str]]:
    """The lines that engines print in a phase, each with its name."""
    found: dict[int, str] = {}
    for name, literals in _PHASES:
        for literal in literals:
            for line in log.find(literal):
                if tells(literal, line):
                    found.setdefault(line.number, name)
    return sorted(found.items())


def printed_from(phase: str) -> Iterator[str]:
    """Pieces of the lines that engines print in a phase and in those after it."""
    for _, literals in _PHASES[PHASES.index(phase) :]:
        yield from literals


def tells(literal: str, line: Line) -> bool:
    """Whether a piece of text means in a line what it is looked for: some are common words."""
    return literal not in _WHOSE or _WHOSE[literal] in line.text


READY = "Application startup complete."
#: What engines print when they start, and when they are ready: vLLM starts its HTTP server last, SGLang has then answered
#: a first request, the routers of TGI and TEI have warmed up the model, KServe's server has loaded it before it registers it.
#: What went wrong between the two did not keep the server from serving.
STARTS = (
    ("vLLM API server version", READY),
    ("server_args=ServerArgs(", "The server is fired up and ready to roll!"),
    ("text_generation_launcher: Args", "Connected"),
    ("Args { model_id: ", "Ready"),  # TEI
    ("] Registering model: ", READY),  # KServe
)
#: How Ollama says that it has loaded a model.
OLLAMA_LOADED = ("llama runner started in", "llama-server started in")

#: What an engine prints from time to time while it answers requests.
WORKS = (
    (
        "Avg generation throughput: ",
        expression(r"(?:Engine (?P<engine>\d+): )?Avg prompt .*generation throughput: (?!0\.0 )"),
    ),
    ("Decode batch", expression(r"\bDecode batch(?P<engine>)\b")),  # SGLang
)
#: How servers log a request that they have answered: uvicorn, Gin (Ollama), llama-server, LocalAI, Ray Serve's replicas (its
#: proxy says the same once more), BentoML, TGI's and TEI's routers; Caddy's and Traefik's access logs as JSON. And how httpx, in a client,
#: logs an answer that it got.
_ANSWERED = (
    (
        "POST",
        r'"POST /\S* HTTP/[\d.]+\\?" 2\d\d\b|\| 2\d\d \|.{0,80}\bPOST\b|\brequest: POST /.{0,200} 2\d\d$'
        r"| 2\d\d  -  POST |\bmethod=POST status=2\d\d\b|\bHTTP request method=\"?POST\"? path=\S+ status=2\d\d\b"
        r"|^(?!.{0,120} proxy ).{0,400} POST (?:/\S{0,200} )?(?:OK|2\d\d) \d[\d.]{0,12}ms\b"
        r"|,method=POST,path=[^,]{0,200},[^)]{0,200}\) \(status=2\d\d,"
        r'|\bHTTP Request: POST \S{1,300}/(?:completions|responses|messages|generate|chat) "HTTP/[\d.]+ 2\d\d\b',
    ),
    ("handled request", r'"method": ?"POST".{0,1900}"status": ?2\d\d\b'),
    ('"DownstreamStatus":2', r'^\{(?=.{0,1900}"RequestMethod":"POST").{0,1900}"DownstreamStatus":2\d\d\b'),
    # what one deployment of Ray Serve asks of another, by the name of the method
    (" OK ", r"\breplica\.py:\d{1,5} --? (?:CALL )?(?!GET )\S{1,200} OK \d[\d.]{0,12}ms\b"),
    (" succeeded in ", r"/ForkPoolWorker-\d{1,6}\] Task \S{1,300} succeeded in \d"),  # Celery
    (": Success", r"text_(?:generation_router|embeddings_router::http)::server: .{0,80}: Success"),
    # the same as JSON (--json-output)
    ('"message":"Success"', r'"target":"text_(?:generation_router|embeddings_router::http)::server"'),
    # Dynamo's frontend, which has no access log
    ("request completed", r"dynamo_llm::http::service::metrics: request completed .{0,1200}? status=success\b"),
    # servers in Rust with tower-http: Dynamo's frontend up to 0.5, mistral.rs
    (
        "finished processing request",
        r"^(?=.{0,1900}\bmethod(?:\": ?\"|=\"?)POST\b)(?=.{0,1900}\bstatus(?:_code)?(?:\": ?|=)2\d\d\b)",
    ),
)
#: The proxy of Ray Serve, which has its replicas elsewhere where no line of theirs is in the log.
_PROXIED = expression(r"^.{0,120} proxy .{0,300} POST (?:/\S{0,200} )?2\d\d \d[\d.]{0,12}ms\b")
#: How vLLM logs a request that it got (entrypoints/logger.py) and one that its engine took (V0's engine loops, v1/engine/async_llm.py).
_ASKED = ("Received request ", "Added request ")
#: What asks nothing of a model, though it is posted: routes by which a server is operated. Sources: vLLM's entrypoints/serve (0.4 to 0.33),
#: SGLang's http_server.py, Ollama's routes.go, llama-server's router.
_OPERATES = expression(
    r"\bPOST\b.{0,80}?/(?:(?:un)?load_lora_adapter|sleep|wake_up|pause|resume|collective_rpc|scale_elastic_ep|flush_cache|abort_request"
    r"|re(?:set_(?:prefix|mm|encoder)_cache|(?:lease|sume)_memory_occupation)|(?:start|stop)_profile|update_weights\w{0,40}"
    r"|api/(?:pull|push|show|create|copy|blobs/[\w:]{1,80})|models/(?:un)?load)[?\s\"]"
)
#: How llama-server says that a slot is done with a task, and before that that the task failed or its client left. Newer builds log requests
#: at their debug level only.
_TASK_DONE, _TASK_FAILED = "stop processing: n_tokens", ("send_error: task id", "cancel task, id_task")
_TASK = expression(
    r"(?:\btask (?:id = )?|\bid_task = )(?P<task>\d{1,12})\b(?: \| stop processing: n_tokens = (?P<tokens>\d{1,9})\b)?"
)
#: What a process leaves behind that ends in native code, or in a panic of Rust (TGI's and TEI's routers).
_CRASHES = (
    "ggml_abort", "GGML_ASSERT(", "CUDA error: ", "ROCm error: ", "Memory access fault by GPU",
    "terminate called ", "Fatal Python error", "Segmentation fault", "SIGABRT", "SIGSEGV", "(core dumped)",
    "' panicked at ",
)  # fmt: skip
#: A kernel on the GPU prints this for each thread whose check failed; Python learns only that one did.
_ASSERTION = "] Assertion `"
#: What servers print when they are told to stop; uvicorn also when its application ends it, after what it died of.
_STOPS = (
    "INFO:     Shutting down",
    "KeyboardInterrupt: terminated",
    "hutting down FastAPI HTTP server",  # vLLM
    "[shutdown] API server: shutdown triggered",  # the signal handler of vLLM, by its pull request 43707
    "SIGTERM received. signum=",  # SGLang
    "Gracefully exiting... Remaining",
    "signal received, starting graceful shutdown",  # TGI
    "Signal (15) received.",  # Triton
)
#: How uvicorn says that it ends itself, as it was told to after so many requests (--limit-max-requests, LiteLLM's
#: --max_requests_before_restart).
_ENOUGH = "Maximum request limit of "
#: How uvicorn says that it has begun, and what a terminal shows of the key by which a person ends what runs there.
_STARTED, _BY_HAND = "Started server process [", "^C"
#: With what vLLM's server answers once its engine has died, before it ends itself (entrypoints/launcher.py).
_ENGINE_DEAD = "EngineDeadError"
#: How many lines before it was told to stop something must have gone wrong, to be what ended it.
_BEFORE_STOP = 60
#: What begins a start of a server, whatever it is that it loads.
BANNERS = (*(banner for banner, _ in STARTS), "Triton Server Version", "TensorRT-LLM version: ")
#: What a server prints once when it starts, and in no other process of that start.
_RESTARTS = (
    *(banner for banner, _ in STARTS),
    "Triton Server Version",
    'msg="server config"',  # Ollama
)
#: Lines before a banner that may be of its start: what modules say while they are imported.
_PROLOGUE = 60
#: Servers that run side by side in one container, at most: one that has said nothing for so many starts has ended.
_MOST_SERVERS = 16
_PORT_TAKEN = "ddress already in use"
_AT_EASE = expression(r"\b(?:INFO|WARNING) \d\d-\d\d \d\d:\d\d:\d\d ")
#: What no start prints before its banner.
_UNDER_WAY = (*_STOPS, *_ASKED, *(text for text, _ in WORKS), *(text for _, texts in _PHASES[:-1] for text in texts))
#: All that is looked for here. What engines print of their work is in every other line.
LITERALS = (
    *_CRASHES,
    _ASSERTION,
    *_STOPS,
    *BANNERS,
    *_RESTARTS,
    _PORT_TAKEN,
    *(literal for _, literals in _PHASES for literal in literals),
    *(literal for pair in STARTS for literal in pair),
    *_ASKED,
)


def last_start(log: Log) -> Log:
    """A log of several starts from the last one on that shows how it went: it served, or something went wrong.

    A script that starts its server again and again, a supervisor, or a log store writes them one after the other. What
    an earlier start failed of says nothing of the last one.
    """
    begins, end = restarts(log), len(log)
    for begin in reversed(begins[1:]):
        if any(_shows_how_it_went(line) for line in log.lines(begin, end)):
            return log.since(begin)
        end = begin - 1
    return log


def superseded(line: Line) -> bool:
    """Whether the server was started once more after a line, in the same log."""
    return any(begin > line.number for begin in restarts(line.log))


def restarts(log: Log) -> list[int]:
    """Where the starts of a log begin, the first included.

    One that finds its port taken is none of its own: the process of the start before still has it.
    """
    return log.once("restarts", lambda: _restarts(log))


def _restarts(log: Log) -> list[int]:
    begins, taken = list(_begins(log)), [line.number for line in log.marks(_PORT_TAKEN)]
    ends = dict(pairwise([*begins, len(log) + 1]))
    return [at for at in begins if at == begins[0] or not any(at <= number < ends[at] for number in taken)]


def _begins(log: Log) -> Iterator[int]:
    banners = sorted((line for text in _RESTARTS for line in log.marks(text)), key=lambda line: line.number)
    for at, banner in enumerate(banners):
        until = banners[at + _MOST_SERVERS] if at + _MOST_SERVERS < len(banners) else None
        if at == 0 or not _side_by_side(banners[at - 1], banner, until):
            yield _prologue(banner)


def _side_by_side(before: Line, banner: Line, until: Line | None) -> bool:
    """Whether two servers run in one container at a time: the earlier one goes on when the other has begun."""
    who, other = said(before.text).process, said(banner.text).process
    if not who or not other or who == other:
        return False
    pid = who.partition("(pid ")[2].partition(" ")[0].rstrip(")")
    return any(said(line.text).process == who for line in banner.log.between(f"pid={pid}", banner, until))


def _prologue(banner: Line) -> int:
    """The first of the lines right before a banner that its process wrote while it imported its modules."""
    who, first = said(banner.text).process, banner.number
    for number in range(banner.number - 1, max(banner.log.first, banner.number - _PROLOGUE) - 1, -1):
        line = banner.log.line(number)
        at_ease = _AT_EASE.search(line.text[:120]) and said(line.text).process in ("", who)
        if not at_ease or any(text in line.text for text in _UNDER_WAY):
            break
        first = number
    return first


def _shows_how_it_went(line: Line) -> bool:
    if START in line.text or looks_like_error(line.text) or any(text in line.text for text in _CRASHES):
        return True
    ready = any(text in line.text and tells(text, line) for text in _PHASES[-1][1])
    return ready or any(text in line.text and pattern.search(line.text) for text, pattern in WORKS)


def later_banners(log: Log) -> list[int]:
    """Where a start begins, but for the first one: that one prints something before its banner."""
    return log.once("banners", lambda: sorted({x.number for text in BANNERS for x in marks_of(log, text)})[1:])


def marks_of(log: Log, literal: str) -> Iterator[Line]:
    """The lines of a log in which a literal means what it is looked for."""
    return (line for line in log.marks(literal) if tells(literal, line))


def told_to_stop(line: Line) -> bool:
    """Whether the server had been told to stop before a line: what it then prints is no cause of anything."""
    at = max((x.number for text in _STOPS for x in line.log.marks(text) if x.number < line.number), default=None)
    return at is not None and not any(at < x.number < line.number for text in BANNERS for x in marks_of(line.log, text))


def stopped_at(log: Log) -> Line | None:
    """Where a server says in its last start that it was told to stop: nothing had gone wrong right before that, nor had it had enough."""
    stops = [x for text in _STOPS for x in log.marks(text)]
    line = min((x for x in stops if not superseded(x)), key=lambda x: x.number, default=None)
    if line is None or crash_of(log) is not None:
        return None
    # uvicorn that watches its files (--reload) stops its worker and starts another, and is told so by nobody
    if line.text.startswith(_BY_HAND) or any(x.number > line.number for x in log.find(_STARTED)):
        return None
    start = next(reversed(restarts(log)), 1)
    # whose engine has died ends by itself, however much its ranks print in between
    if any(start <= x.number < line.number for x in log.find(_ENGINE_DEAD)):
        return None
    begin = max(start, line.number - _BEFORE_STOP)
    # what a signal leaves behind in Python is a traceback, whose last line tells of it
    frames = line.text.rstrip().endswith("KeyboardInterrupt: terminated")
    above = list(log.lines(begin, line.number - 1))
    if any(_ENOUGH in x.text for x in above[-_BEFORE_STOP:]):
        return None
    return None if not frames and any(looks_like_error(x.text) for x in above) else line


def crash_of(log: Log) -> Line | None:
    """The first line of a log that says that a process ended in native code, or in a panic."""
    found = [line for text in _CRASHES if (line := next(log.find(text), None)) is not None]
    return min(found, key=lambda line: line.number, default=None)


def assertion_of(log: Log) -> Line | None:
    """The first line of a log in which a kernel on the GPU says which of its checks failed."""
    return next(log.find(_ASSERTION), None)


def signs_of_life(log: Log) -> list[int]:
    """The lines by which a log shows that a request was answered, or that an engine is at work on some."""
    return log.once(
        "signs of life", lambda: sorted({*answered_at(log), *(at for numbers in at_work(log) for at in numbers)})
    )


def answered_at(log: Log) -> list[int]:
    """The lines by which a log says that a request was answered."""
    return log.once("answered", lambda: sorted(_answered_at(log)))


def _answered_at(log: Log) -> set[int]:
    found = {
        x.number
        for text, pattern in _ANSWERED
        for x in log.marks(text)
        if re.search(pattern, x.text[:2000]) and not _OPERATES.search(x.text[:2000])
    }
    if not found and (asked := log.marks("POST")):
        return {x.number for x in asked if _PROXIED.search(x.text[:2000]) and not _OPERATES.search(x.text[:2000])}
    return found or _tasks_done(log)


def _tasks_done(log: Log) -> set[int]:
    """The lines by which llama-server, where it logs no requests, says that a slot is done with a task that neither failed nor was left."""
    failed: set[str] = set()
    done: dict[str, int] = {}
    lines = sorted((x for text in (*_TASK_FAILED, _TASK_DONE) for x in log.marks(text)), key=lambda x: x.number)
    for line in lines:
        if (match := _TASK.search(line.text[:300])) is None:
            continue
        if _TASK_DONE not in line.text:
            failed.add(match["task"])
        elif match["tokens"] and match["tokens"] != "0" and match["task"] not in failed:
            done[match["task"]] = line.number
    return set(done.values())


def at_work(log: Log) -> list[list[int]]:
    """The lines by which each engine of a log shows that it answers requests."""
    return log.once("at work", lambda: _at_work(log))


def _at_work(log: Log) -> list[list[int]]:
    found: dict[str, list[int]] = {}
    for literal, pattern in WORKS:
        for line in log.marks(literal):
            if (match := pattern.search(line.text)) is not None:
                who = f"{said(line.text).process} {match['engine'] or ''}"
                found.setdefault(who, []).append(line.number)
    return list(found.values())
