"""How container instances ended: exit codes and signals, out of memory, killed by a probe, and how far they had come."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise

import msgspec

from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.events import Event, Events
from kubectl_llmdoctor.facts.logs import Line, Log, Logs
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.processes import START, looks_like_error, said
from kubectl_llmdoctor.facts.units import parse_time

_SIGNALS = {1: "SIGHUP", 2: "SIGINT", 4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL", 11: "SIGSEGV"}
_SIGNALS |= {13: "SIGPIPE", 15: "SIGTERM"}


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """The last instance of a container that ended with an error."""

    container: Container
    terminated: k8s.Terminated
    #: where it stands in the pod: `status.containerStatuses[vllm].lastState.terminated`
    path: str

    @property
    def code(self) -> int:
        """The exit code; 128 + n for signal n."""
        return self.terminated.exit_code

    @property
    def signal(self) -> str:
        """`SIGKILL` for exit code 137; empty when it ended by itself."""
        return _SIGNALS.get(self.code - 128, "") if self.code > 128 else ""

    @property
    def oom_killed(self) -> bool:
        """Whether the runtime saw the kernel kill in the container's memory cgroup."""
        return self.terminated.reason == "OOMKilled"

    @property
    def started(self) -> datetime | None:
        """When the instance started."""
        return parse_time(self.terminated.started_at)

    @property
    def finished(self) -> datetime | None:
        """When it ended."""
        return parse_time(self.terminated.finished_at)

    @property
    def seconds(self) -> float | None:
        """How long it ran."""
        if self.started and self.finished and self.finished >= self.started:
            return (self.finished - self.started).total_seconds()
        return None

    @property
    def text(self) -> str:
        """`exitCode: 137, reason: OOMKilled`."""
        return f"exitCode: {self.code}, reason: {self.terminated.reason or 'none given'}"


def endings(pod: Pod) -> Iterator[Ending]:
    """Containers whose last instance ended with an error that still matters (see Pod.troubles)."""
    for trouble in pod.troubles:
        container = trouble.container
        if trouble.kind == "crashed" and container and container.terminated:
            kind = "containerStatuses" if container.role == "main" else "initContainerStatuses"
            state = "state" if container.status.state.terminated else "lastState"
            path = f"status.{kind}[{container.name}].{state}.terminated"
            yield Ending(container=container, terminated=container.terminated, path=path)


def last_round(pods: Sequence[Pod]) -> list[Ending]:
    """How the pods of one replica ended when it went down last, the earliest end first; one for each pod at most.

    An end before the last instance had even started belongs to a round before; without a start time nothing does. A pod
    that was made anew has no end, so that the first of those that are known need not be the first of all.
    """
    known = [max(dated, key=_moment) for pod in pods if (dated := [e for e in endings(pod) if e.finished])]
    if not known:
        return []
    began = max(known, key=_moment).started
    return sorted((e for e in known if not began or _moment(e) > began), key=_moment)


def _moment(ending: Ending) -> datetime:
    return ending.finished or datetime.min


def log_of(ending: Ending, logs: Logs) -> Log | None:
    """The log of the instance that ended: the previous one, unless the container did not start again since."""
    found = logs.of(ending.container.name)
    previous = next((log for log in found if log.previous), None)
    current = next((log for log in found if not log.previous), None)
    return previous or (None if ending.container.running else current)


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """How far a start had come, by the last line that tells."""

    name: str
    line: Line


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
        ),
    ),
    (
        "profiling GPU memory",
        (
            "Model loading took",
            "Loading model weights took",
            "Load weight end",
            "Warming up model",
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
}


PHASES = tuple(name for name, _ in _PHASES)
#: A process of which there are several that load the model side by side.
_RANK = re.compile(r"(?i)worker|rank|\b(?:TP|PP|EP)\d")


def phase_of(log: Log | None) -> Phase | None:
    """The last phase of the last start that a log shows; None when it shows none."""
    best: Phase | None = None
    begin = next(reversed(_restarts(log)), 1) if log else 1
    for name, literals in _PHASES if log else ():
        for literal in literals:
            for line in log.find(literal) if log else ():
                if line.number < begin:
                    continue
                if _tells(literal, line) and (best is None or line.number >= best.line.number or name == "serving"):
                    best = Phase(name=name, line=line)
    return best


def phase_at(line: Line) -> str:
    """The phase that a start was in when a line was printed; empty when the lines before it do not tell."""
    last, name = max((x for x in _restarts(line.log)[1:] if x <= line.number), default=0), ""
    for phase, literals in _PHASES:
        for literal in literals:
            for found in line.log.find(literal):
                if found.number >= line.number:
                    break
                if found.number > last and _tells(literal, found):
                    last, name = found.number, "" if line.log.torn(found.number, line.number) else phase
    return name


def _tells(literal: str, line: Line) -> bool:
    return literal not in _WHOSE or _WHOSE[literal] in line.text


_READY = "Application startup complete."
#: What engines print when they start, and when they are ready: vLLM starts its HTTP server last, SGLang has then answered
#: a first request, the routers of TGI and TEI have warmed up the model, KServe's server has loaded it before it registers it.
#: What went wrong between the two did not keep the server from serving.
_STARTS = (
    ("vLLM API server version", _READY),
    ("server_args=ServerArgs(", "The server is fired up and ready to roll!"),
    ("text_generation_launcher: Args", "Connected"),
    ("Args { model_id: ", "Ready"),  # TEI
    ("] Registering model: ", _READY),  # KServe
)
#: How Ollama says that it has loaded a model, or could not: it lives on in both cases.
_OLLAMA_LOADED = ("llama runner started in", "llama-server started in")
_LOAD_FAILED = ('msg="Load failed"', 'msg="error loading llama server"')
#: What other engines print when they begin to load a model, and when it is loaded. llama-server and Ollama try again with
#: less when memory does not suffice.
_LOADS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("load_model: loading model",), ("server is listening on http",)),
    (('msg="starting runner"', 'msg="starting llama server"', 'msg="starting llama-server"'), _OLLAMA_LOADED),
    (("== NVIDIA Inference Microservice", "TensorRT-LLM version: "), (_READY,)),
    (("Triton Server Version",), ("Started HTTPService at",)),
)

#: What an engine prints from time to time while it answers requests.
_WORKS = (
    (
        "Avg generation throughput: ",
        re.compile(r"(?:Engine (?P<engine>\d+): )?Avg prompt .*generation throughput: (?!0\.0 )"),
    ),
    ("Decode batch", re.compile(r"\bDecode batch(?P<engine>)\b")),  # SGLang
)
#: Times that it must do so after a line: what another process still prints of a server that has just died is less.
_GOES_ON = 2

#: How uvicorn and llama-server log that a client asked for what cannot be, and the lines after an error where they do so.
_REFUSAL = re.compile(r'"POST /\S* HTTP/[\d.]+" 4\d\d\b|\brequest: POST /.{0,200} 4\d\d$')
_ANSWERS = 3

#: How servers log a request that they have answered: uvicorn, Gin (Ollama), llama-server, LocalAI, TGI's and TEI's routers.
_ANSWERED = (
    (
        "POST",
        r'"POST /\S* HTTP/[\d.]+" 2\d\d\b|\| 2\d\d \|.{0,80}\bPOST\b|\brequest: POST /.{0,200} 2\d\d$'
        r"| 2\d\d  -  POST |\bmethod=POST status=2\d\d\b|\bHTTP request method=\"?POST\"? path=\S+ status=2\d\d\b",
    ),
    (": Success", r"text_(?:generation_router|embeddings_router::http)::server: .{0,80}: Success"),
)
#: How servers whose models run in processes of their own say that such a process failed a request: Ollama, LocalAI. It stands
#: at most so many lines after what the process printed, which may be the stacks of all its threads.
_FAILED_TEXTS = ("| 500 |", " 500  -  POST ", "status=500")
_FAILED = (
    r"\| 500 \|.{0,80}\bPOST\b| 500  -  POST |\bmethod=POST status=500\b"
    r"|\bHTTP request method=\"?POST\"? path=\S+ status=500\b"
)
_OF_A_MODEL = 1500
#: How vLLM's server ends, in a process that is not the container's first: what started it may live on.
_CHILD, _CHILD_FAILED = (
    "Engine core initialization failed",
    r"\(APIServer pid=(?!1\))\d+\).*Engine core initialization failed",
)
#: How vLLM's V0 engine says that it died; the process that takes the requests may live on, and answers none of them.
_ENGINE_DIED, _OF_AN_ENGINE = "Engine background task failed", 200
#: How Xinference's worker says that a model was not launched, before the traceback, and that one was.
_NOT_LAUNCHED, _LAUNCHED = "ERROR    Failed to load model ", "Leave launch_builtin_model, elapsed time"
_OF_A_LAUNCH = 200
#: How llama-swap says that the process of a model ended by itself, and that one answers. Source: its proxy/process.go.
_SWAP_ENDED, _SWAP_UP = "> ExitError >> ", "> Health check passed on "
_SWAPPED = r"<(?P<model>[^>]+)> (?:ExitError >> |Health check passed on )"
#: How Triton says that a model of its repository was not loaded, and that one was; what its backend said of it stands at most so
#: many lines before or after that.
_NOT_LOADED, _LOADED = "failed to load '", "successfully loaded '"
_TRITON_MODEL = (
    r"\bmodel_(?:lifecycle|repository_manager)\.cc:\d+\] \"?(?:failed to load|successfully loaded) '(?P<model>[^']+)'"
)
_OF_A_LOAD = 40
#: How llama-server as a router says that it starts the process of a model, that this has ended, and that the model is used.
_INSTANCE_TEXTS = ("spawning server instance with name=", " exited with status ", "proxying request to model ")
_INSTANCE = (
    r"\b(?:spawning server instance with name=(?P<starts>\S{1,300})|proxying request to model (?P<used>\S{1,300})) on port \d"
    r"|\binstance name=(?P<ended>\S{1,300}) exited with status (?!0\b)-?\d"
)
#: Where so many requests are answered for each that fails, failing is no more than what some client got wrong; and one that
#: fails says as little where so many follow.
_PER_STRAY, _AFTER_ONE = 10, 2
#: What is said of one failed request, twice at most, stands so close together.
_ONE_REQUEST = 60

#: How uvicorn begins what it logs of a request whose handler raised: it has caught it, and answers the next one.
_OF_A_REQUEST = "Exception in ASGI application"

#: What a process leaves behind that ends in native code, or in a panic of Rust (TGI's and TEI's routers).
_CRASHES = (
    "ggml_abort",
    "GGML_ASSERT(",
    "CUDA error: ",
    "ROCm error: ",
    "Memory access fault by GPU",
    "terminate called ",
    "Fatal Python error",
    "Segmentation fault",
    "SIGABRT",
    "SIGSEGV",
    "(core dumped)",
    "' panicked at ",
)
#: A kernel on the GPU prints this for each thread whose check failed; Python learns only that one did.
_ASSERTION = "] Assertion `"
#: What servers print when they are told to stop; uvicorn also when its application ends it, after what it died of.
_STOPS = (
    "INFO:     Shutting down",
    "KeyboardInterrupt: terminated",
    "SIGTERM received. signum=",  # SGLang
    "Gracefully exiting... Remaining",
    "signal received, starting graceful shutdown",  # TGI
    "Signal (15) received.",  # Triton
)
#: What begins a start of a server, whatever it is that it loads.
_BANNERS = (
    *(banner for banner, _ in _STARTS),
    "Triton Server Version",
    "TensorRT-LLM version: ",
)
#: What the server in front of an engine prints, which may go on for long, when a process of the engine is gone. Sources: vLLM's
#: executors and clients (0.4 to 0.33).
_GONE = (
    "died, exit code: -",
    "died unexpectedly, shutting down",
    "MQLLMEngine is already dead",
    "Background loop has errored already.",
    "EngineCore encountered an issue. See stack trace (above)",
)
#: Lines after an error within which the server says that its engine is gone, if it died of that.
_OF_AN_END = 60
#: What a server prints once when it starts, and in no other process of that start.
_RESTARTS = (
    *(banner for banner, _ in _STARTS),
    "text_generation_launcher: Args",
    "Triton Server Version",
    'msg="server config"',  # Ollama
)
#: Lines before a banner that may be of its start: what modules say while they are imported.
_PROLOGUE = 60
#: Servers that run side by side in one container, at most: one that has said nothing for so many starts has ended.
_MOST_SERVERS = 16
_PORT_TAKEN = "ddress already in use"
_AT_EASE = re.compile(r"\b(?:INFO|WARNING) \d\d-\d\d \d\d:\d\d:\d\d ")
#: What no start prints before its banner.
_UNDER_WAY = (*_STOPS, *(text for text, _ in _WORKS), *(text for _, texts in _PHASES[:-1] for text in texts))
#: All that phase_of, survived, told_to_stop, failed_models, crash_of and assertion_of look for. What went_on looks for is in
#: every other line.
LITERALS = (
    *_CRASHES,
    _ASSERTION,
    *_STOPS,
    *_BANNERS,
    *_RESTARTS,
    _PORT_TAKEN,
    *(literal for _, literals in _PHASES for literal in literals),
    *(literal for pair in _STARTS for literal in pair),
    *(literal for pair in _LOADS for literals in pair for literal in literals),
    *_LOAD_FAILED,
    *_FAILED_TEXTS,
    _CHILD,
    _ENGINE_DIED,
    _NOT_LAUNCHED,
    _LAUNCHED,
    _NOT_LOADED,
    _LOADED,
    _SWAP_ENDED,
    _SWAP_UP,
    *_INSTANCE_TEXTS,
)


def last_start(log: Log) -> Log:
    """A log of several starts from the last one on that shows how it went: it served, or something went wrong.

    A script that starts its server again and again, a supervisor, or a log store writes them one after the other. What
    an earlier start failed of says nothing of the last one.
    """
    begins, end = _restarts(log), len(log)
    for begin in reversed(begins[1:]):
        if any(_shows_how_it_went(line) for line in log.lines(begin, end)):
            return log.since(begin)
        end = begin - 1
    return log


def superseded(line: Line) -> bool:
    """Whether the server was started once more after a line, in the same log."""
    return any(begin > line.number for begin in _restarts(line.log))


def _restarts(log: Log) -> list[int]:
    """Where the starts of a log begin, the first included.

    One that finds its port taken is none of its own: the process of the start before still has it.
    """
    if "restarts" not in log.memo:
        begins, taken = list(_begins(log)), [line.number for line in log.marks(_PORT_TAKEN)]
        ends = dict(pairwise([*begins, len(log) + 1]))
        own = [at for at in begins if at == begins[0] or not any(at <= number < ends[at] for number in taken)]
        log.memo["restarts"] = [own]
    return log.memo["restarts"][0]


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
    ready = any(text in line.text and _tells(text, line) for text in _PHASES[-1][1])
    return ready or any(text in line.text and pattern.search(line.text) for text, pattern in _WORKS)


def survived(line: Line) -> bool:
    """Whether the server became ready after a line, in the same start; only some engines' logs tell."""
    return any(_served_after(line, *pair) for pair in _STARTS) or any(_loaded_after(line, *pair) for pair in _LOADS)


def went_on(line: Line) -> bool:
    """Whether an engine answered requests for a while after a line; a log that was condensed may no longer tell."""
    limit = next((at for at in _later_banners(line.log) if at > line.number), None)
    for numbers in _at_work(line.log):
        first = bisect.bisect_right(numbers, line.number)
        last = len(numbers) if limit is None else bisect.bisect_left(numbers, limit)
        if last - first >= _GOES_ON:
            return True
    return False


def lived_on(line: Line) -> bool:
    """Whether the process that raised the error of a line did not end with it, as far as the log tells."""
    return survived(line) or went_on(line) or refused(line)


def refused(line: Line) -> bool:
    """Whether a server answered a request with 4xx right after a line: what it complains of is the client's."""
    return any(_REFUSAL.search(after.text) for after in line.log.lines(line.number + 1, line.number + _ANSWERS))


def of_a_request(first: Line, last: Line) -> bool:
    """Whether a traceback, from line to line, is uvicorn's of one request, and others were answered after it."""
    caught = any(_OF_A_REQUEST in before.text for before in first.log.lines(first.number - 2, first.number - 1))
    limit = next((at for at in _later_banners(last.log) if at > last.number), len(last.log) + 1)
    return caught and any(last.number < at < limit for at in _answers(last.log))


def stray(lines: Sequence[Line], *, ready: bool = False) -> bool:
    """Whether the requests that some lines of a log say failed are few among those that the server answered.

    Of a server that its probes call ready one failure beside any answer is; of others only what follows says that it went on.
    One after which the engine was gone and nothing was answered any more ended the server, however many came before.
    """
    last, failed = lines[-1], failed_requests(lines)
    limit = next((at for at in _later_banners(last.log) if at > last.number), None)
    answers = [at for at in _answers(last.log) if limit is None or at < limit]
    after = len(answers) - bisect.bisect_right(answers, last.number)
    if not after and any(
        last.number < x.number <= last.number + _OF_AN_END for text in _GONE for x in last.log.marks(text)
    ):
        return False
    if len(answers) >= _PER_STRAY * failed:
        return True
    return failed == 1 and (bool(answers) if ready else after >= _AFTER_ONE)


def failed_models(log: Log) -> list[list[int]]:
    """Where a log shows that the process of a model failed in a server that lives on: the first and the last line of each place.

    Empty where hardly a request failed of it, or where a model was loaded since.
    """
    if "failed models" not in log.memo:
        failed = sorted(
            (x for text in _FAILED_TEXTS for x in log.marks(text) if re.search(_FAILED, x.text[:2000])),
            key=lambda x: x.number,
        )
        found = []
        for line in [] if not failed or (stray(failed, ready=True) and not _last_word(failed)) else failed:
            answers = _answered(log)
            before = bisect.bisect_left(answers, line.number)
            first = max(answers[before - 1] if before else 0, line.number - _OF_A_MODEL)
            found.append([first, line.number])
        found += [[number - _OF_A_MODEL, number] for number in _failed_children(log)]
        found += [[number, number + _OF_AN_ENGINE] for number in _dead_engines(log)]
        found += [[x.number, x.number + _OF_A_LAUNCH] for x in _not_launched(log)]
        found += [[x.number - _OF_A_LOAD, x.number + _OF_A_LOAD] for x in _not_loaded(log)]
        found += [*_failed_swaps(log), *_failed_instances(log)]
        log.memo["failed models"] = found
    return log.memo["failed models"]


def _failed_children(log: Log) -> list[int]:
    """Where vLLM says, in a process that is not the container's first, that its engine did not start, and has not served since."""
    serves = max((line.number for line in log.marks(_READY)), default=0)
    return [x.number for x in log.marks(_CHILD) if x.number > serves and re.search(_CHILD_FAILED, x.text[:2000])]


def _dead_engines(log: Log) -> list[int]:
    """Where an engine says that it died, and answers nothing since."""
    last = max([*(line.number for line in log.marks(_READY)), *_answered(log)], default=0)
    return [x.number for x in log.marks(_ENGINE_DIED) if x.number > last]


def _not_launched(log: Log) -> list[Line]:
    """Where Xinference says that a model was not launched, and launched none since."""
    launched = max((line.number for line in log.marks(_LAUNCHED)), default=0)
    return [line for line in log.marks(_NOT_LAUNCHED) if line.number > launched]


def _not_loaded(log: Log) -> list[Line]:
    """Where Triton says that a model was not loaded, and has not loaded it since."""
    loaded = {match["model"]: x.number for x in log.marks(_LOADED) if (match := _triton_model(x))}
    return [
        x for x in log.marks(_NOT_LOADED) if (match := _triton_model(x)) and x.number > loaded.get(match["model"], 0)
    ]


def _ended_swaps(log: Log) -> list[Line]:
    """Where llama-swap says that the process of a model ended by itself, of models of which none has answered since."""
    ended = [(match["model"], x) for x in log.marks(_SWAP_ENDED) if (match := re.search(_SWAPPED, x.text))]
    up = [(match["model"], x.number) for x in log.marks(_SWAP_UP) if (match := re.search(_SWAPPED, x.text))]
    return [x for model, x in ended if not any(other == model and at > x.number for other, at in up)]


def _failed_swaps(log: Log) -> Iterator[list[int]]:
    """Where llama-swap prints what a model's process said before it ended."""
    marks = sorted(x.number for text in (_SWAP_ENDED, _SWAP_UP) for x in log.marks(text))
    for line in _ended_swaps(log):
        before = bisect.bisect_left(marks, line.number)
        yield [max(marks[before - 1] + 1 if before else 0, line.number - _OF_A_MODEL), line.number]


def _last_word(failed: Sequence[Line]) -> bool:
    """Whether the one request that failed is the last that a log shows: nothing says that the next one was answered."""
    answers = _answered(failed[-1].log)
    return len(answers) < _PER_STRAY and (not answers or answers[-1] < failed[-1].number)


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


def _triton_model(line: Line) -> re.Match[str] | None:
    return re.search(_TRITON_MODEL, line.text[:2000])


def answered(log: Log | None, *, after: int = 0) -> int:
    """How many requests a log says, below a line, were answered; what an engine prints of its work from time to time is not counted."""
    return sum(1 for at in _answered(log) if at > after) if log is not None else 0


def failed_requests(lines: Sequence[Line]) -> int:
    """How many requests some lines of a log are about, each of which may be said several times."""
    return sum(1 for _ in _requests(lines))


def served(log: Log | None) -> bool:
    """Whether the last start of a log came so far that it answered requests, also where its beginning is not in the log."""
    if log is None:
        return False
    phase, begin = phase_of(log), next(reversed(_restarts(log)), 1)
    return (phase is not None and phase.name == "serving") or any(at >= begin for at in _answers(log))


def _requests(lines: Sequence[Line]) -> Iterator[Line]:
    """The first of the lines that are about one request each: it is often said twice, and answered after that."""
    first, last = lines[0], lines[0]
    yield first
    for line in lines[1:]:
        between = line.log.lines(last.number, line.number)
        far = line.number - last.number > _ONE_REQUEST or any(_REFUSAL.search(x.text) for x in between)
        if far or last is not first:
            yield (first := line)
        last = line


def _answers(log: Log) -> list[int]:
    """The lines by which a log shows that a request was answered, or that an engine is at work on some."""
    return sorted({*_answered(log), *(at for numbers in _at_work(log) for at in numbers)})


def _answered(log: Log) -> list[int]:
    if "answered" not in log.memo:
        said = {x.number for text, pattern in _ANSWERED for x in log.marks(text) if re.search(pattern, x.text[:2000])}
        log.memo["answered"] = [sorted(said)]
    return log.memo["answered"][0]


def _at_work(log: Log) -> list[list[int]]:
    """The lines by which each engine of a log shows that it answers requests."""
    if "at work" not in log.memo:
        found: dict[str, list[int]] = {}
        for literal, pattern in _WORKS:
            for line in log.marks(literal):
                if (match := pattern.search(line.text)) is not None:
                    who = f"{said(line.text).process} {match['engine'] or ''}"
                    found.setdefault(who, []).append(line.number)
        log.memo["at work"] = list(found.values())
    return log.memo["at work"]


def _later_banners(log: Log) -> list[int]:
    """Where a start begins, but for the first one: that one prints something before its banner."""
    if "banners" not in log.memo:
        log.memo["banners"] = [sorted({x.number for text in _BANNERS for x in _marks(log, text)})[1:]]
    return log.memo["banners"][0]


def _served_after(line: Line, banner: str, ready: str) -> bool:
    starts = [x.number for x in _marks(line.log, banner)]
    at = next((x.number for x in _marks(line.log, ready) if x.number > line.number), None)
    # what any web server prints is the engine's only after its banner; the rest no other program prints, and a log that was
    # cut at its head has no banner
    whose = bool(starts) or ready != _READY
    # the first start prints something before its banner
    return at is not None and whose and not any(line.number < start < at for start in starts[1:])


def _marks(log: Log, literal: str) -> Iterator[Line]:
    """The lines of a log in which a literal means what it is looked for."""
    return (line for line in log.marks(literal) if _tells(literal, line))


def _loaded_after(line: Line, begins: tuple[str, ...], ends: tuple[str, ...]) -> bool:
    """Whether a line stands between the beginning and the end of the same load."""
    starts = [x.number for text in begins for x in line.log.marks(text)]
    done = min((x.number for text in ends for x in line.log.marks(text) if x.number > line.number), default=None)
    begun = max((at for at in starts if at < line.number), default=None)
    return done is not None and begun is not None and not any(line.number < at < done for at in starts)


def not_serving_yet(line: Line) -> bool:
    """Whether a server that answers requests only once it is ready became ready after a line, in the same start."""
    return any(_served_after(line, *pair) for pair in _STARTS)


def told_to_stop(line: Line) -> bool:
    """Whether the server had been told to stop before a line: what it then prints is no cause of anything."""
    at = max((x.number for text in _STOPS for x in line.log.marks(text) if x.number < line.number), default=None)
    return at is not None and not any(at < x.number < line.number for text in _BANNERS for x in _marks(line.log, text))


def gone(log: Log) -> Line | None:
    """The last line by which a server says that its engine is gone, where it answered nothing and started nothing after that."""
    last = max((x for text in _GONE for x in log.find(text)), key=lambda x: x.number, default=None)
    if last is None or told_to_stop(last):
        return None
    later = (*_answers(log), *(x.number for text in _BANNERS for x in _marks(log, text)))
    return None if any(at > last.number for at in later) else last


def overcome(line: Line, signs: Sequence[str]) -> bool:
    """Whether a later line of the same start shows that what a line complains of was overcome.

    A sign is a text, or the name of a phase, which stands for what is printed in it and in the phases after it. What a
    rank complains of, or one model of a llama-server router, the progress of another does not overcome.
    """
    if not signs:
        return False
    who = said(line.text).process
    apart = _RANK.search(who) or who.startswith("port ")
    limit = next((at for at in _later_banners(line.log) if at > line.number), None)
    for text in _signs(signs):
        for found in line.log.marks(text):
            if found.number <= line.number or not _tells(text, found):
                continue
            if limit is not None and found.number > limit:
                break
            if not apart or said(found.text).process == who:
                return True
    return False


def signs_of(signs: Sequence[str]) -> tuple[str, ...]:
    """The texts that `overcome` looks for."""
    return tuple(_signs(signs))


def _signs(signs: Sequence[str]) -> Iterator[str]:
    for sign in signs:
        if sign in PHASES:
            for _, literals in _PHASES[PHASES.index(sign) :]:
                yield from literals
        else:
            yield sign


def crash_of(log: Log) -> Line | None:
    """The first line of a log that says that a process ended in native code, or in a panic."""
    found = [line for text in _CRASHES if (line := next(log.find(text), None)) is not None]
    return min(found, key=lambda line: line.number, default=None)


def failed_load(log: Log) -> Line | None:
    """Where a server that lives on says last that it could not load a model; None when it has loaded that, or one, since."""
    loaded = max((x.number for text in _OLLAMA_LOADED for x in log.find(text)), default=0)
    failed = [x for text in _LOAD_FAILED for x in log.find(text) if x.number > loaded]
    failed += [*_not_launched(log), *_not_loaded(log), *_ended_swaps(log)]
    return max(failed, key=lambda x: x.number, default=None)


def lacks_model(log: Log) -> Line | None:
    """Where a server that lives on says last that it could not load a model, if more than a stray request fails of it."""
    return failed_load(log) if failed_models(log) else None


def assertion_of(log: Log) -> Line | None:
    """The first line of a log in which a kernel on the GPU says which of its checks failed."""
    return next(log.find(_ASSERTION), None)


_PROBE_KILL = re.compile(r"failed (?P<probe>liveness|startup) probe, will be restarted")


def probe_kills(pod: Pod, events: Events, container: Container) -> Iterator[tuple[str, Event]]:
    """Events that say that the kubelet restarted a container for a failed probe: `liveness` or `startup`."""
    several = sum(c.role != "init" for c in pod.containers) > 1
    for event in events.of("Killing", "Unhealthy", kind="Pod"):
        found = _PROBE_KILL.search(event.message)
        if event.name != pod.name or not found:
            continue
        named = f"{{{container.name}}}" in event.field_path or f"ontainer {container.name} " in event.message
        if named or not several:
            yield found["probe"], event
