"""What the lines of a pod's logs prove by a signature, and how much of it the lines around them leave."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Literal

import msgspec

from kubectl_llmdoctor.check import Finding
from kubectl_llmdoctor.evidence import log_evidence
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.aftermath import configured_after, not_serving_yet, overcome, survived
from kubectl_llmdoctor.facts.clients import leads_here, told_by
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.destinations import is_loopback
from kubectl_llmdoctor.facts.endings import Ending, ending_of, log_of
from kubectl_llmdoctor.facts.failed_models import FOREIGN, failed_models, failing_alike, unserved_from
from kubectl_llmdoctor.facts.last_words import contradicted, last_words, nothing_else_after
from kubectl_llmdoctor.facts.logs import Line, Log
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.processes import (
    last_traceback,
    looks_like_error,
    printed,
    raised_at,
    said,
    said_why,
    warned_of,
)
from kubectl_llmdoctor.facts.requests import answered, failed_requests, long_past, refused, stray, went_on, went_well
from kubectl_llmdoctor.facts.starts import PHASES, answered_at, phase_at, phase_of, restarts, superseded, told_to_stop
from kubectl_llmdoctor.facts.subject import Subject
from kubectl_llmdoctor.facts.units import say_seconds
from kubectl_llmdoctor.facts.written import seconds_between, written_ago
from kubectl_llmdoctor.signatures.answers import REFUSED
from kubectl_llmdoctor.signatures.declared import Pattern, Signature
from kubectl_llmdoctor.signatures.wording import beside, captured, finding, fits, refused_at

#: What an engine's logger says without calling it an error, and an exception in it: one that was caught.
_WARNED = expression(
    r"(?:\([^)]{0,80}\)|\[[^\]]{0,80}\]|[\d:.,TZ -])*(?:WARN(?:ING|I)?|INFO|DEBUG)\b.{0,400}?\w(?:Error|Exception)\b"
)
#: By this a line says of itself that what it tells of is no error (SGLang's and vLLM's custom all-reduce, whatever it met), or that
#: a file of the hub was asked for which not every model has (vLLM's repo_utils.py, where it does not try again), or that a kernel was
#: only tried, to take the fastest of several (FlashInfer's and TensorRT-LLM's autotuner), or what is taken in its place (vLLM, of an
#: adapter without a tokenizer of its own: one that the hub did not give may lack more), or that an option has its default (TGI's
#: launcher, gpu.rs, whose own Python need not have what the server's has).
_NO_ERROR = expression(
    r"To silence this warning|WARN text_generation_launcher: Cannot determine GPU compute capability: ModuleNotFoundError: "
    r"|(?:\[|/)repo_utils\.py:\d+\](?!.{0,1000}retrying \d of \d)"
    r"|\[Autotuner\]:? (?:Skipping tactic |Failed when profiling runner=)"
    r"|, using base model tokenizer instead\. \((?:Exception: )?(?!.{0,300}(?:couldn't connect to|gated repo|(?:Client|Server) [Ee]rror))"
)
#: By this vLLM says that it has none of its kernels for CUDA (platforms/interface.py), and before that, that another maker's plugin is
#: its platform, which brings kernels of its own.
_NO_KERNELS, _PLUGIN, _ACTIVE = "Failed to import from vllm._", "Platform plugin ", " is activated"
#: By this SGLang, whose lines name no level, says that it goes on with something else in the place of what failed.
_DOES_WITHOUT = expression(
    r"\[(?:\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d(?: [A-Z]{2,3}\d{1,4})*\] (?:Failed to load (?:generation config for |(?:the )?(?:staged )?JIT )"
    r"|Failed to import (?:from )?\w{1,40} with |Rollback to implementation from |Failed to initialize QuickAllReduce: "
    r"|(?=.{0,900}\b(?:[Pp]roceeding without|[Cc]ontinuing without|[Ff]alling back to|[Uu]sing default|will attempt (?:re-)?download)\b))"
)
#: How it, and vLLM in a warning, name what failed before they quote the exception that they caught; what ends one is a traceback.
_CAUGHT = expression(
    r"(?:\[(?:\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d(?: [A-Z]{2,3}\d{1,4})*\]"
    r"|(?:\([^)]{1,60}\) )?WARNING \d\d-\d\d \d\d:\d\d:\d\d \[?[\w./-]{1,80}:\d+\]) "
    r"(?:Failed to|Could not|Can ?not|[Uu]nable to|Error (?:getting|closing)) [^:]{3,160}: "
)
#: By this a line, and the one after it, says that what it tells of is tried once or twice more, which may have come to a good
#: end: huggingface_hub, vLLM's calls of it. What fails for the third time hardly will.
_AGAIN = expression(r"\b[Rr]etrying,? \(?[12] ?(?:of|/) ?\d")
_AGAIN_BELOW = expression(r"Retrying in \d[\d.]{0,8}s \[Retry [12]/\d|Trying to resume download")
#: By this a library says, below what it tried again, that it came to an end of it (huggingface_hub).
_CAME = ("files: 100%|",)
#: A frame of code that a program was given as a text, by a model or a client, and ran; and of one of ComfyUI's nodes of its users,
#: without which it goes on.
_GIVEN = expression(
    r'\s+File "(?:<\w[\w -]{0,60}>", line \d+, in <module>|[^"]{1,300}", line \d+, in load_custom_node$|[^"]{1,300}/custom_nodes/)'
)
#: A line of a program that a traceback quotes, whose message is not filled in; in the frame of Rich's tracebacks (TGI) any.
_SOURCE = expression(r"\s+(?:raise \w+|[bf]?[\"']|f\"|logger\.\w+\(|msg = |assert )|\s*│ [ ❱]? *\d+ │")
#: Engines that answer requests only once their model is loaded, and load no other one.
_LOAD_FIRST = frozenset({"vllm", "sglang", "tgi", "tei", "tensorrt-llm", "lmdeploy"})
#: Engines that load a model for whoever asks for it, and say so again of one that cannot be loaded when it is asked for again.
_ON_DEMAND = frozenset({"ollama", "localai"})
#: Engines that log no request that went well: Triton never does, trtllm-serve where its access log is off.
_SILENT = frozenset({"triton", "tensorrt-llm"})
#: So many answers for each line that speaks of a load say that the model is there.
_MANY_ANSWERS = 10
#: Of fewer answers nothing follows for how many of a server's clients get something wrong; of its last refusals so many are looked at.
_ANSWERS_OF_MANY, _LATE_REFUSALS, _TWO = 100, 20, 2
#: Whom a server refuses a request, by its access log, so many lines at most below what it says of it.
_REFUSED_TO = expression(
    r"(?<![\d.])(\d{1,3}(?:\.\d{1,3}){3}):\d{1,5} - \"POST /\S{0,200} HTTP/[\d.]{1,3}\\?\" 4\d\d\b"
)
_ACCESS_BELOW = 3
#: What is no more than the end of a program that a server refused, and so many lines of notes after its exception.
_ENDS, _NOTES = ("crash-loop", "not-ready", "pod-failed", "rollout-stuck"), 4
#: Exit codes that tell of a signal: somebody ended the program. git ends itself with 128, what Go's klog calls fatal with 255.
_BY_SIGNAL = range(129, 193)
#: How a program says that something failed, whatever its level is called.
_FAILS = expression(r"(?i)\b(?:fail(?:s|ed|ure)?|fatal|exception)\b|\[E \d{6}")
#: By this a line says of itself that the program goes on, or that it is of a request: neither ends a program.
_GOES_ON = expression(
    r"^.{0,60}(?:\b(?:INFO|DEBUG|WARN(?:ING|I)?)\b|[\d:] W |\[W |\[(?:info|debug|warn(?:ing)?) {0,6}\])"
    r"|^[WI]\d{4} \d\d:|(?i:\blevel=(?:info|debug|warn)|^\W{0,3}warn(?:ing)?: )"
    r"|(?i:\bfall(?:s|ing)?[ -]?back|\bus(?:es|ing) (?:the )?default|\bskipp|\bignor(?:ed|ing)"
    r"|\btrying (?:the|another|next)\b)|\b(?:GET|HEAD|POST|PUT)\b:? ?\"?/"
)
#: The exit code of a program that called abort(): what C++ and Rust do of what nobody caught.
_ABORTED = 134
#: A start has got past what ended the one before when it has lasted so long, and so many times as long as that one.
_PAST_SECONDS, _PAST_TIMES = 300, 2
#: What ran longer may have served, where its log, perhaps cut to its end, shows no start.
_HARDLY_SERVED_SECONDS = 120
#: So many lines at most does Node.js print below one.
_FRAMES = 60
#: So many lines at most of an exception's message, and what a script says then, stand below its first one.
_MESSAGE = 5
#: Hits of a pattern around which other lines are looked for.
_MOST_NEAR = 500
#: The heads of groups, stores and hubs answer later than that, where all begin together.
_JUST_BEGUN_SECONDS = 90
#: So long may a server load: what it only warns of by then may come to nothing.
_LOADING_SECONDS = 600
#: Nor does a model take so long to come and to load together.
_NO_LOAD_SECONDS = 7200
#: Unless a frame so few lines above, or a statement in it, is of a start: one that waited for its weights or its group as long.
_OF_A_START = expression(
    r"(?: in |\.)(?:load_(?:model|weights)|init_device|from_pretrained|profile_run|determine_(?:available_memory|num_available_blocks)"
    r"|_?initialize_(?:kv_caches?|from_config)|init_memory_pool|capture(?:_model)?|compile_or_warm_up_model|warm_?up)\b"
)
_FRAMES_ABOVE = 120
#: By this a line calls itself a warning, or llama.cpp says that it computes without a GPU.
_WARNS = expression(
    r".{0,120}?\b(?:WARNING|WARN)\b|^W\d{4} \d\d:|.{0,60}\[W[ \]]|ggml_cuda_init: failed to initialize CUDA: "
)
#: What a program that is ready said so long ago stands on nothing but that nobody asked since; a day later on nothing at all.
_AN_HOUR, _A_DAY = 3600, 86400
#: What an access log says of each request for an answer of the model.
_POSTED = "POST /"
#: Whom a program asked, and so many lines above an answer where it says so (httpx, the frames of a traceback between).
_URL, _ASKED_ABOVE = expression(r"https?://(\[[\da-f:]{2,45}\]|[\w.-]{1,253})(?::\d{1,5})?"), 60

#: An exception that nobody caught, as Python prints it: no logger's words before its name.
_BARE_EXCEPTION = expression(r"(?:[\w]{1,60}\.){0,8}\w{1,60}(?:Error|Exception): ")

#: How a server says that nothing is where it looks for its model.
_NO_MODEL = expression(
    r"(?i:no such file|not found|does(?:n.t| not) (?:exist|appear)|invalid repository|not a (?:local folder|valid)"
    r"|can(?:no|.)t (?:find|load|open)|could(?: not|n.t) (?:find|open)|failed to open)"
)


def in_logs(signature: Signature, subject: Subject, pod: Pod) -> Finding | None:
    """The best finding of a pod: by the order of patterns, then of the instance that died, then of the one that runs."""
    retried = None
    logs = subject.logs(pod).all
    for pattern in signature.patterns:
        for log in logs:
            if not log.holds(pattern.literal):
                continue
            wording = _Wording(signature, pattern, subject, pod, log)
            if found := wording.best():
                return found
            retried = retried or wording.retried
    return retried


class _Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A line that a pattern matches, with the frame or the second line that it asks for."""

    line: Line
    captured: dict[str, str]
    near: Line | None = None


class _Wording:
    """One pattern against one log of a pod."""

    def __init__(self, signature: Signature, pattern: Pattern, subject: Subject, pod: Pod, log: Log) -> None:
        self._signature, self._pattern = signature, pattern
        self._subject, self._pod, self._log = subject, pod, log
        self._container = pod.container(log.container)
        self._server = (pattern.affects or signature.affects) == "server"
        self._overcome = signature.overcome if pattern.overcome is None else pattern.overcome
        #: whether the pod runs beside one of its group that ended, and may be the only one that says why
        self._beside = self._server and not log.previous and _beside(subject, pod, self._container)
        #: whether what the log says may have ended this server
        self._died = (
            not self._server or self._beside or (pod.failing and _died(pod, self._container, previous=log.previous))
        )
        #: whether it should have brought the model, says last that it could not, and yet ended well
        self._came_empty = (
            not self._died
            and self._explains_missing()
            and log.once("brought nothing", lambda: _brought_nothing(subject, pod, self._container))
        )
        #: the line at which it listens where it is ready and fails each request, so that an error before may be why; else 0
        self._unserved = self._unserved_from() if not self._died and pod.ready and not log.previous else 0
        #: the exceptions with which it fails each request, where it is ready and lives on
        self._failing = failing_alike(log) if not self._died and pod.ready and not log.previous else frozenset[int]()
        if self._failing and self._older(next(log.lines(max(self._failing), max(self._failing))), _A_DAY):
            self._failing = frozenset()
        #: what only lines say that were tried again, or that quote what was caught, which is the cause where nothing else is
        self.retried: Finding | None = None

    def _unserved_from(self) -> int:
        """The line at which it listens and after which it fails each request, unless the last one is long past."""
        listens = unserved_from(self._log)
        last = self._log.once("last request", lambda: self._log.last(_POSTED)) if listens else None
        return 0 if last is None or self._older(last, _A_DAY) else listens

    def _explains_missing(self) -> bool:
        """Whether what the pattern tells of may be why a server finds no model."""
        explains = self._signature.explains if self._pattern.explains is None else self._pattern.explains
        return self._server and not self._log.previous and "model-not-found" in explains

    def best(self) -> Finding | None:
        """The first finding of the last start, else a possible one of a start that another followed."""
        pod, log = self._pod, self._log
        if log.previous and not (pod.failing and self._died):
            return None  # an instance that is gone, of a pod that has recovered
        if not (self._died or self._came_empty or self._unserved or self._failing or failed_models(log)):
            return None
        earlier = passed = None
        for count, hit in enumerate(self._hits()):
            if passed is not None and count >= _MOST_NEAR:
                break  # each looks at the lines after it
            again = self._server and _tried_again(hit.line)
            if again and (self.retried or self._just_begun(_LOADING_SECONDS) or overcome(hit.line, _CAME)):
                continue
            state = self._state(hit.line)
            if state == "over":
                continue
            past = state == "perhaps over" or self._is_harmless(hit.line)
            found = self._weighed(self._finding(hit), hit.line, past=past)
            if self._only_warned(hit.line, found):
                continue
            if again:
                self.retried = _last_resort(found)
                continue
            if state == "stands" and not self._pattern.warned and self._is_caught(hit.line):
                self.retried = self.retried or found  # it may come again, and end the program
                continue
            if superseded(hit.line):
                # how the start after it goes is not shown yet
                earlier = msgspec.structs.replace(found, confidence="possible")
            elif state == "stands":
                return found
            else:
                passed = passed or found  # what was overcome may come back, and stay
        return passed or earlier

    def _hits(self) -> Iterator[_Hit]:
        pattern = self._pattern
        for count, line in enumerate(self._log.find(pattern.literal)):
            if (pattern.near or pattern.raised_in or pattern.bare) and count >= _MOST_NEAR:
                return  # each looks at the lines around it
            if (pattern.ends or self._came_empty) and not self._ends(line):
                continue
            if pattern.ends and pattern.warned and contradicted(line, self._says_it):
                continue  # what the program went on after, to another error
            if _SOURCE.match(said(line.text).text):
                continue  # the source of a message in a traceback, not the message
            if self._is_harmless(line) and not (self._has_ended() and _is_last(line)):
                continue  # what the program does without, as far as nothing says that it ended there
            # the frame of an error rules out most patterns, before their expressions are compiled
            frame = refused_at(pattern, line) if pattern.raised_in else None
            if (pattern.raised_in and frame is None) or (pattern.bare and raised_at(line)):
                continue
            names = captured(pattern, line)
            if names is None or not fits(pattern, self._subject, self._pod, self._container, names):
                continue
            if pattern.phases and self._phase(line) not in pattern.phases:
                continue
            if _of_given_code(line) and (self._pod.log_only or not self._ends(line)):
                continue  # nothing says that the program ended of it
            if pattern.wordless and said_why(line, names.get("worker", ""), names.get("peer", "")):
                continue
            if not pattern.near:
                yield _Hit(line=line, captured=names, near=frame)
            elif second := beside(pattern, line):
                yield _Hit(line=line, captured=names | second[1], near=frame or second[0])

    def _phase(self, line: Line) -> str:
        """The phase by the lines before; where these are gone a server that ran for hours served."""
        phase = phase_at(line)
        if phase or not self._ran_for_hours or restarts(line.log):
            return phase
        above = line.log.lines(max(line.number - _FRAMES_ABOVE, 1), line.number)
        return "" if any(_OF_A_START.search(one.text[:600]) for one in above) else "serving"

    @cached_property
    def _ran_for_hours(self) -> bool:
        """Whether the instance whose log this is ended, and ran for longer than a model takes to come and to load."""
        ended = self._ending
        if ended is None or (ended.seconds or 0) < _NO_LOAD_SECONDS:
            return False
        return log_of(ended, self._subject.logs(self._pod)) is self._log

    @cached_property
    def _ending(self) -> Ending | None:
        """How the last instance of the container ended, if that was with an error."""
        return ending_of(self._container) if self._container is not None else None

    @cached_property
    def _engines(self) -> set[str]:
        """The engines of the container, by name."""
        return {e.name for e in self._subject.engines(self._pod) if self._container in (None, e.container)}

    def _is_harmless(self, line: Line) -> bool:
        """Whether a line says of itself that the program goes on without what it tells of."""
        text = line.text[:2000]
        if _NO_ERROR.search(text) is not None or ("sglang" in self._engines and _DOES_WITHOUT.match(text) is not None):
            return True
        if _NO_KERNELS in text and self._on_a_plugin:
            return True
        return self._server and warned_of(line)

    @cached_property
    def _on_a_plugin(self) -> bool:
        """Whether vLLM runs on the platform of a plugin (Neuron, Ascend, Gaudi, Spyre), in a container that asks for no GPU of NVIDIA's."""
        if self._container is not None and self._container.accelerators and not self._container.without_nvidia:
            return False
        return self._log.once("on a plugin", lambda: any(_ACTIVE in line.text for line in self._log.find(_PLUGIN)))

    def _is_caught(self, line: Line) -> bool:
        """Whether the words of the pattern stand in an exception that SGLang or vLLM says to have caught, and did not end with."""
        head = _CAUGHT.match(line.text[:500]) if self._engines & {"sglang", "vllm"} else None
        if head is None or line.text.find(self._pattern.literal) < head.end():
            return False
        return not (self._has_ended() and _is_last(line))

    def _state(self, line: Line) -> Literal["stands", "perhaps over", "over"]:
        """What the lines after it, and the pod, say of a line's trouble."""
        if not (self._died or self._came_empty or self._may_be_why(line)):
            return "over"
        served_long = self._server and self._served_long(line)
        if served_long and self._pod.log_only:
            return "over"
        if not self._server and self._of_another(line):
            return "over"
        if (survived if self._server else not_serving_yet)(line) or told_to_stop(line):
            return "over"
        failed = bool(self._overcome) and self._of_a_failed_model(line)
        comes = (self._server and self._just_begun() and not failed) or self._others_come()
        if self._overcome and comes:
            return "over"  # it tries again, and whom it asks may be about to start as well
        on = self._server and (went_on(line) or configured_after(line) or served_long)
        # that a server listens is no sign of what it lacks for each request since
        if not on and not overcome(line, self._overcome, serving=not failed and line.number >= self._unserved):
            return "stands"
        if self._container and self._container.running and not self._log.previous:
            return "over"
        if self._pod.log_only and (on or not self._server or _serves_after(line)):
            return "over"  # nothing says that it ever ended
        return "perhaps over"

    def _served_long(self, line: Line) -> bool:
        """Whether many requests were answered after a line, which does not say why a model, or each request, failed."""
        return answered(line.log, after=line.number) >= _MANY_ANSWERS and not self._may_be_why(line)

    @property
    def _age(self) -> float | None:
        """For how many seconds the instance that runs has run."""
        return self._pod.cluster.seconds_since(self._container.started) if self._container is not None else None

    def _just_begun(self, seconds: int = _JUST_BEGUN_SECONDS) -> bool:
        """Whether the container runs for the first time, and only since so short that others of its group may not be up."""
        container, age = self._container, self._age
        if container is None or age is None or container.restarts or self._log.previous:
            return False
        return age < seconds

    def _may_come_up(self) -> bool:
        """Whether a program that is no engine runs for the first time, and so shortly that it may do without what it met with."""
        engines = self._subject.engines(self._pod)
        return self._just_begun(_LOADING_SECONDS) and all(e.container.name != self._log.container for e in engines)

    def _others_come(self) -> bool:
        """Whether the container runs for the first time, and another pod of its group is being made, with nothing in its way."""
        container = self._container
        if container is None or not container.running or container.status.restart_count or self._log.previous:
            return False
        return any(other.being_made for other in self._subject.pods if other is not self._pod)

    def _only_warned(self, line: Line, found: Finding) -> bool:
        """Whether a server that still loads warns there, and goes on: of what may not harm it, or of a GPU for which it did not ask."""
        asks = self._container is not None and bool(self._container.accelerators)
        if not self._server or self._pattern.warned or (asks and found.confidence != "possible"):
            return False
        warns = _WARNS.match(printed(line.text[:500])) is not None or self._is_caught(line)
        if line.number == len(self._log) or not warns:
            return False
        return self._just_begun(_LOADING_SECONDS)

    def _finding(self, hit: _Hit) -> Finding:
        evidence = [log_evidence(hit.line, self._pattern.literal)]
        if hit.near and hit.near.number != hit.line.number:
            evidence.append(log_evidence(hit.near, self._pattern.near))
        return finding(
            self._signature,
            self._pattern,
            hit.captured,
            self._subject,
            self._pod,
            self._container,
            evidence,
            hit.line.order,
        )

    def _weighed(self, found: Finding, line: Line, *, past: bool) -> Finding:
        """A finding, as sure and as grave as what stands around its line lets it be."""
        pod = self._pod
        if self._server and self._got_past():
            return msgspec.structs.replace(found, role="note", severity="info", explains=())
        # it says what it met with, and not that it ended, or that each request failed, of it
        fails_each = self._unserved or line.number in self._failing
        if (self._beside or fails_each or self._came_empty) and found.confidence == "certain":
            found = msgspec.structs.replace(found, confidence="likely")
        long_ago = line.number in self._failing and self._older(line, _AN_HOUR)
        contrary = self._pattern.ends and not fails_each and contradicted(line, self._says_it)
        if past or long_ago or contrary or self._lost():
            found = _last_resort(found)
        elif not self._pattern.warned and (_WARNED.match(line.text[:2000]) or self._is_caught(line)):
            found = msgspec.structs.replace(found, confidence="possible")
        if self._may_come_up() if self._server else self._overcome and self._just_begun(_LOADING_SECONDS):
            found = msgspec.structs.replace(found, confidence="possible")
        if self._server:
            return found
        if not past and self._ended_with(line):
            fixes = tuple(msgspec.structs.replace(fix, commands=()) for fix in found.fixes)
            return msgspec.structs.replace(found, explains=found.explains or _ENDS, fixes=fixes)
        of_a_client = self._signature.stray and refused(line)
        if not past and not pod.log_only and pod.failing and (not found.explains or of_a_client):
            return msgspec.structs.replace(found, role="note", explains=())  # the pod fails of something else
        if self._of_some_requests(line):
            summary = f"{found.summary}{self._share(line)}{self._last_time(line)}"
            return msgspec.structs.replace(found, role="note", severity="info", explains=(), summary=summary)
        return found

    def _lost(self) -> bool:
        """Whether nobody knows how the instance ended, and the one after it, which still runs, need not end of what it said."""
        container = self._container
        ended = container.status.last_state.terminated if container is not None and container.running else None
        return self._log.previous and ended is not None and ended.lost

    def _got_past(self) -> bool:
        """Whether the instance that ended had loaded nothing yet, and the one after it is ready and has outlived it."""
        container, log, age = self._container, self._log, self._age
        if container is None or age is None or not (log.previous and self._pod.ready):
            return False
        ran = self._ending.seconds if self._ending is not None else None
        if ran is None or age < max(_PAST_SECONDS, _PAST_TIMES * ran):
            return False
        phase = phase_of(log)
        early = bool(restarts(log)) or ran <= _HARDLY_SERVED_SECONDS
        return early and (phase is None or phase.name == PHASES[0]) and not answered(log)

    def _older(self, line: Line, seconds: int) -> bool:
        """Whether a line was written so long before the snapshot, as far as the time is known: no clock is before its container."""
        ago, age = written_ago(line, self._pod.cluster.now), self._age
        return ago is not None and ago > seconds and (age is None or ago <= age)

    def _of_another(self, line: Line) -> bool:
        """Whether a program that runs and is no engine says there of some other server what is nothing to this pod, or no more."""
        container, engines = self._container, self._subject.engines(self._pod)
        if container is None or not container.running or not self._pod.ready or self._log.previous:
            return False
        if any(engine.container.name == container.name for engine in engines):
            return False
        if not self._signature.quoted and (frame := raised_at(line)) and FOREIGN.match(frame.line.text[:600]):
            return True
        if container.accelerators:
            return False
        if not engines:
            return self._older(line, _A_DAY)
        return REFUSED.search(line.text[:4000]) is not None and not self._names_this_pod(container, line)

    def _names_this_pod(self, container: Container, line: Line) -> bool:
        """Whether whom a program asked leads to its own pod: by the line, by what stands above it, or else by all that it is told."""
        pod, names = self._pod, {item.name for item in self._pod.services}
        above = reversed(list(line.log.lines(max(line.number - _ASKED_ABOVE, 1), line.number)))
        asked = next(([one[0] for one in found] for x in above if (found := list(_URL.finditer(x.text[:4000])))), [])
        asked = asked or [one[0] for _, text in told_by(container) for one in _URL.finditer(text)]
        return bool(asked) and all(is_loopback(url) or leads_here(pod, names, url, pod.namespace) for url in asked)

    def _may_be_why(self, line: Line) -> bool:
        """Whether a ready server says there why a model of it failed, or why each request does."""
        if line.number in self._failing or self._of_a_failed_model(line):
            return True
        if line.number >= self._unserved or _GOES_ON.search(line.text[:500]):
            return False
        return looks_like_error(line.text) or _FAILS.search(line.text[:500]) is not None

    def _of_a_failed_model(self, line: Line) -> bool:
        """Whether a server that lives on speaks there of a model that it could not load, and has not loaded since."""
        return any(first <= line.number <= last for first, last in failed_models(self._log))

    def _ends(self, line: Line) -> bool:
        """Whether a line is among the last words of a program that ended with an error, or of a log of which nothing else is known."""
        if self._unserved or line.number in self._failing:
            return True
        if line.number not in last_words(self._log) or _GOES_ON.search(line.text[:500]):
            return False
        if self._running and not self._log.previous:
            return self._stands_still(line)
        return _hardly_followed(line) if self._came_empty else self._pod.log_only or self._has_ended()

    def _stands_still(self, line: Line) -> bool:
        """Whether a program that runs, and is no engine, has not become ready for long, and said nothing but errors since a line."""
        container, age = self._container, self._age
        if any(engine.container.name == self._log.container for engine in self._subject.engines(self._pod)):
            return False  # it may load for long without a word
        if container is None or container.status.ready or age is None:
            return False
        return age >= _PAST_SECONDS and nothing_else_after(line)

    @property
    def _running(self) -> bool:
        return self._container is not None and bool(self._container.running)

    def _has_ended(self) -> bool:
        """Whether the last instance of the container ended with an error, and by itself."""
        if self._ending is None or self._ending.terminated.lost:
            return False
        code = self._ending.code
        return bool(code) and (code not in _BY_SIGNAL or code == _ABORTED)

    def _ended_with(self, line: Line) -> bool:
        """Whether a program that asks a server ended of its refusal: it is the exception with which the log ends."""
        if self._container is None or (self._running and not self._log.previous) or not self._has_ended():
            return False
        if any(engine.container.name == self._container.name for engine in self._subject.engines(self._pod)):
            # a request ends no server, but a script that has an engine within ends with its error
            return self._log.quoted and _is_last(line) and _BARE_EXCEPTION.match(line.text[:300]) is not None
        last = last_traceback(line.log)
        if last is None or last.last.number < line.number:
            return looks_like_error(line.text) and _is_last(line)
        chain, one = [last], last
        while one.cause is not None:
            chain.append(one := one.cause)
        return any(one.last.number == line.number for one in chain) and not any(_said_after(last.last))

    def _of_some_requests(self, line: Line) -> bool:
        """Whether what a line says befell few requests among those that the server answers."""
        alike, ready = self._alike(line), self._pod.exists and self._pod.ready
        # that others are served does not bring back a model that could not be loaded
        loads = self._signature.loads or self._of_a_failed_model(line)
        if ready and not (loads or self._signature.quoted) and self._once_beside_an_engine(alike):
            return True
        if self._outlived(line, alike, loads=loads):
            return True
        if self._signature.stray:
            if stray(alike, ready=ready) or (ready and self._of_some_clients(alike)):
                return True
            if ready and self._silent() and failed_requests(alike) == 1:
                return self._signature.severity == "warning"  # it refused one; what is graver may befall each
        return self._signature.loads and self._loads_first() and answered(line.log) >= _MANY_ANSWERS * len(alike)

    def _outlived(self, line: Line, alike: list[Line], *, loads: bool) -> bool:
        """Whether the server has answered so much since, or so much time has passed, that it does not fail of it, whatever it ended of."""
        ready, lone = self._pod.exists and self._pod.ready, failed_requests(alike) == 1
        counts = ready or (self._pod.exists and not loads)
        since = (answered if loads else went_well)(line.log, after=line.number) if counts else 0
        if lone and since >= _MANY_ANSWERS:
            return True
        if ready and lone and not loads and since >= _TWO and self._of_an_hour_ago(line):
            return True
        if (not loads or (self._engines and self._engines <= _ON_DEMAND)) and self._days_past(alike[-1]):
            return True
        # what the server refuses by its settings it refuses until these are others
        return since >= _MANY_ANSWERS and not refused(alike[-1]) and long_past(alike)

    def _of_an_hour_ago(self, line: Line) -> bool:
        """Whether the server went on after a line that is old, and that did not refuse by its settings."""
        return not refused(line) and self._older(line, _AN_HOUR) and _went_on(line)

    def _days_past(self, last: Line) -> bool:
        """Whether a ready server, or one of whose pod nothing is known, has answered requests for a day since the last one that failed."""
        if refused(last) or went_well(last.log, after=last.number) < _MANY_ANSWERS:
            return False
        if self._pod.log_only:
            answers = answered_at(last.log)
            end = next(last.log.lines(answers[-1], answers[-1])) if answers else None
            return end is not None and (seconds_between(last, end) or 0) > _A_DAY
        return self._pod.exists and self._pod.ready and self._older(last, _A_DAY)

    def _once_beside_an_engine(self, alike: list[Line]) -> bool:
        """Whether a program beside an engine tells of one failure, and the engine has answered requests since."""
        container, when, engines = self._container, alike[-1].time, self._subject.engines(self._pod)
        if container is None or container.accelerators or when is None or failed_requests(alike) > 1:
            return False
        if any(engine.container.name == container.name for engine in engines):
            return False
        logs = (self._subject.logs(self._pod).current(engine.container.name) for engine in engines)
        last = (log.time_of(at[-1]) for log in logs if log is not None and (at := answered_at(log)))
        return any(time is not None and time > when for time in last)

    def _of_some_clients(self, alike: list[Line]) -> bool:
        """Whether what a server refuses is what some of its clients get wrong again and again, while it answers many more, now as well."""
        per, log = self._signature.per_refusal, alike[-1].log
        if not per or answered(log) < _ANSWERS_OF_MANY or not refused(alike[-1]):
            return False
        late = alike[-_LATE_REFUSALS:]
        between = answered(log, after=late[0].number) >= per * (failed_requests(late) - 1)
        return between and answered(log) >= per * failed_requests(alike)

    def _share(self, line: Line) -> str:
        """How many of all requests are refused so, and of whom, as a sentence that follows; empty where it is one."""
        alike = self._alike(line)
        count = failed_requests(alike) if self._signature.per_refusal and refused(line) else 0
        if count < _TWO:
            return ""
        beside = (y for x in alike[-_MOST_NEAR:] for y in x.log.lines(x.number + 1, x.number + _ACCESS_BELOW))
        told = {y.number: said[1] for y in beside if (said := _REFUSED_TO.search(y.text[:500]))}
        who = set(told.values())
        some = "all" if len(told) >= count else f"{len(told)} of them"
        whose = f", {some} of {next(iter(who)) if len(who) == 1 else f'{len(who)} addresses'}" if who else ""
        return f" It refused {count} of {count + answered(line.log)} requests so{whose}."

    def _last_time(self, line: Line) -> str:
        """How long ago a request failed so for the last time, as a sentence that follows; empty where that is less than a day."""
        last = self._alike(line)[-1]
        ago = written_ago(last, self._pod.cluster.now) if self._days_past(last) else None
        return f" The last time was {say_seconds(ago)} ago." if ago is not None else ""

    def _silent(self) -> bool:
        """Whether the server logs no request that it answers, so that nothing tells how many there are beside one that fails."""
        return bool(self._engines) and self._engines <= _SILENT and not self._log.holds('"POST ')

    def _loads_first(self) -> bool:
        """Whether it is a server that is up, whose engine has loaded its only model before it serves."""
        return (self._pod.ready or self._pod.log_only) and bool(self._engines) and self._engines <= _LOAD_FIRST

    def _alike(self, line: Line) -> list[Line]:
        """All lines of the log that the pattern matches, of which a line is one."""
        every = line.log.find(self._pattern.literal)
        return [x for x in every if x == line or self._says_it(x)]

    def _says_it(self, line: Line) -> bool:
        return captured(self._pattern, line) is not None


def _last_resort(found: Finding) -> Finding:
    """A finding that stands behind whatever else is found: what it tells of may have come to a good end."""
    return msgspec.structs.replace(found, confidence="possible", explains=())


def _tried_again(line: Line) -> bool:
    """Whether a line, or the one after it, says that what failed is tried once more."""
    below = (said(after.text).text for after in line.log.lines(line.number + 1, line.number + 1))
    return bool(_AGAIN.search(line.text[-400:])) or any(map(_AGAIN_BELOW.match, below))


def _of_given_code(line: Line) -> bool:
    """Whether an exception comes from a text that a program ran for somebody, and that is no part of the program."""
    frame = raised_at(line)
    text = said(frame.line.text).text if frame is not None else ""
    if frame is None or not _GIVEN.match(text):
        return False
    above = (said(one.text).text for one in frame.line.log.lines(frame.line.number - 1, frame.line.number - 1))
    return 'File "<' not in text or any(one[:1].isspace() for one in above)


def _said_after(line: Line) -> Iterator[Line]:
    """What stands behind an exception and the notes that a library may add to it."""
    return line.log.lines(line.number + _NOTES + 1, line.number + _NOTES + 50)


def _is_last(line: Line) -> bool:
    """Whether a log ends with a line, or with what Node.js prints below an error that nobody caught: its frames and its version."""
    after = [x.text for x in line.log.lines(line.number + 1, line.number + _FRAMES) if x.text.strip()]
    if not after:
        return True
    below = all(text[:1] in " }" for text in after[:-1])
    return len(after) < _FRAMES - 1 and below and after[-1].startswith("Node.js v")


def _hardly_followed(line: Line) -> bool:
    """Whether no more stands below a line than the rest of an exception's message, and what a script says at its end."""
    after = line.log.lines(line.number + 1, line.number + _FRAMES)
    return sum(1 for x in after if x.text.strip()) <= (_MESSAGE if raised_at(line) else 1)


def _serves_after(line: Line) -> bool:
    """Whether the last start that a log shows came up after a line, or answered a request then: Ollama serves before it looks for GPUs."""
    phase = phase_of(line.log)
    came_up = phase is not None and phase.name == "serving" and phase.line.number > line.number
    return came_up or answered(line.log, after=line.number) > 0


def _beside(subject: Subject, pod: Pod, container: Container | None) -> bool:
    """Whether a container runs in a pod of a group of which another pod fails: what ended that one may be told here alone."""
    runs = container is not None and container.role == "main" and container.running
    crashed = (t for other in subject.pods if other is not pod for t in other.troubles if t.kind == "crashed")
    return runs and not pod.failing and any(crashed)


def _brought_nothing(subject: Subject, pod: Pod, container: Container | None) -> bool:
    """Whether an init container ended well, and a container after it finds no model on a volume that both mount."""
    ended = container.status.state.terminated if container is not None and container.role == "init" else None
    if container is None or ended is None or ended.exit_code != 0 or not pod.failing:
        return False
    volumes = {mount.name for mount in container.spec.volume_mounts}
    for other in pod.containers:
        paths = [m.mount_path for m in other.spec.volume_mounts if m.name in volumes] if other.role == "main" else []
        lines = (line for log in subject.logs(pod).of(other.name) for path in paths for line in log.find(path))
        if any(_NO_MODEL.search(line.text[:2000]) for line in lines):
            return True
    return False


def _died(pod: Pod, container: Container | None, *, previous: bool) -> bool:
    """Whether this log is of an instance that went wrong: a log of a ready container proves no failure of the server.

    Nor does one of an instance before it, which had long ended, while another container fails; nor any of an init container that
    came to its end.
    """
    if pod.log_only or container is None or container.engine_dead:
        return True
    if not previous and any(t.kind == "failed" and t.container is container for t in pod.troubles):
        return True  # its engine died, and it ended with status 0
    ended = container.status.state.terminated
    if ended is not None and ended.exit_code == 0 and (not previous or container.role == "init"):
        return False
    if previous:
        well = container.running and container.status.ready
        return not well or any(t.container is None or t.container.name == container.name for t in pod.troubles)
    return not (container.running and container.status.ready)


def _went_on(line: Line) -> bool:
    """Whether a log goes on for an hour after a line, where the engine's own clock, which may be in any zone, is all that tells."""
    last = line.log.line(len(line.log))
    return line.time is not None or (seconds_between(line, last) or 0) > _AN_HOUR
