"""Who wrote which line of a log, and the tracebacks: joined over interleaved processes, with their chains.

Several processes and ranks write to one log, line by line. Each engine marks them in its own way; what carries no mark
belongs to the main process. Sources: vLLM `utils/system_utils.py` (decorate_logs), Ray's worker prefixes, PyTorch's
`[rank3]:`, SGLang `srt/utils` (`TP0`), Text Generation Inference's JSON and text logs, logging of glog (Triton), LocalAI
`pkg/model/process.go`, Tabby `llama-cpp-server/src/supervisor.rs`, TorchServe `wlm/WorkerLifeCycle.java`, llama.cpp
`tools/server/server-models.cpp`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.logs import COLOUR, Line, Log, Logs, unmarked

START = "Traceback (most recent call last)"
#: A traceback of more lines, or of more lines by others in between, is taken as far as this.
_LONGEST = 400
#: Tracebacks read of one log; what repeats is one.
_MOST = 200

# what kubectl logs --prefix puts before the lines of several containers: [pod/llama-0/vllm]
_POD = expression(r"\[pod/(?P<who>[\w.-]{1,253}/[\w.-]{1,63})\] ")
# (EngineCore_DP0 pid=141)  (APIServer pid=1)  (Worker_TP1 pid=7)  (VllmWorker rank=1 pid=7)
# (RayWorkerWrapper pid=7, ip=10.0.0.4)  (ServeReplica:default:llm pid=7)
_PARENTHESES = expression(r"\((?P<who>[\w:.-]{1,60})(?P<rank> rank=\d+)? pid=(?P<pid>\d+)(?:, ip=(?P<ip>[\d.]+))?\)\s?")
_RANK = expression(r"\[rank(?P<rank>\d+)\]:\s?")
# [2026-06-02 08:00:00 DP0 TP1] …
_SGLANG = expression(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?(?P<who>(?: (?:DP|TP|PP|EP|ATTN_[A-Z]+)\d+)+)\]\s?")
# INFO 06-02 08:00:00 [core.py:708]   ERROR 06-02 08:00:00 core.py:708]   2026-06-02 08:00:00,123 ERROR …   E0602 …
_LOGGER = expression(
    r"(?:(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)? \[?[\w./-]+:\d+\] ?"
    r"|\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[.,]\d+Z?\s+(?:- [\w.]+ - )?(?:DEBUG|INFO|WARNING|ERROR|CRITICAL)\s+(?:[\w.:-]+ )?(?:-- : )?)"
)
# a time that a log store put before the line: an engine's own is followed by its level
_STAMP = expression(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z (?!\s*(?:DEBUG|INFO|WARN|ERROR))")
# what a server says that a process of its own has printed: LocalAI, Tabby, TorchServe; llama-server as a router, by the port of that one
_RELAYS = (
    r'(?:\S+ +){3}DEBUG GRPC (?:stderr|stdout) id="(?P<id>[^"]{1,200})" line="(?P<quoted>(?:[^"\\]|\\.)*)"'
    r"|\S+ DBG GRPC\((?P<model>[^)]{1,200})\): (?:stderr|stdout) (?P<text>.*)"
    r"|\S+ +WARN llama_cpp_server::supervisor: \S+/supervisor\.rs:\d+: (?P<server><\w+>): (?P<line>.*)"
    r"|[\d-]{10}[T ][\d:,]{12} \[\w+ *\] (?P<worker>W-\d+-\S{1,200}?)(?:-std(?:out|err))? MODEL_LOG - (?P<logged>.*)"
)
_ROUTED = expression(r"\[ ?(\d{4,5})\] ")
_ERROR = expression(r"(?P<type>(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*)(?:: (?P<message>.*))?$")
_FRAME = expression(r'\s*File "[^"]+", line \d+, in ')
#: Lines below a frame that quote its statement and mark a part of it.
_QUOTING = 2
_LINKS = (
    "The above exception was the direct cause of the following exception",
    "During handling of the above exception, another exception occurred",
)
#: How a line begins that ends a traceback, or that a program or its logger marked as an error.
_BEGINS = expression(
    r"(\(?\w+ pid=\d+\) )?(\w+\.)*\w*(Error|Exception|Interrupt|Exit|Timeout)\b.*: "
    r"|panic: |Unhandled exception\. |Exception in thread |fatal: |fatal error: |# (?:Check failed: |Fatal (?!error in ))"
    r"|\{?\"?Kernel pid terminated|Runtime terminating during boot|init terminating in "
    r"|[EF]\d{4} \d\d:\d\d:|\d+\.\d\d\.\d{3}\.\d{3} E |/\S{1,300}\.(?:cpp|cuh?|c|h):\d+: "
)
#: What marks it elsewhere, and words without which no line has such a mark: most lines of a long log have none of them.
_MARKS = expression(
    r'\b(ERROR|FATAL|CRITICAL)\b|\berror:|\berror="[^"]|"(?:level|lvl|severity)": ?"(?:error|fatal|panic|critical)"'
    r"|\blevel=(?:error|fatal|panic)\b|\[ ?(?:error|fatal|emerg|crit)\]|\t(?:error|fatal|panic)\t"
)
_IN_MARKS = ("error", "ERROR", "fatal", "FATAL", "panic", "crit", "CRITICAL", "emerg")


class Said(msgspec.Struct, frozen=True):
    """A line without the marks of its process and logger; `process` is empty for the main one."""

    process: str
    text: str


def said(text: str) -> Said:
    """Who wrote a line, and what: `(Worker_TP1 pid=7) ERROR 06-02 … [x.py:1] boom` is `Worker_TP1 (pid 7)`, `boom`."""
    text = _unstamped(COLOUR.sub("", text) if "\x1b" in text else text)
    if text.startswith("[pod/") and (outer := _POD.match(text)) is not None:
        own = _said(_unstamped(text[outer.end() :]))
        return Said(f"{outer['who']} {own.process}".strip(), own.text)
    return _said(text)


def _unstamped(text: str) -> str:
    stamp = _STAMP.match(text) if text[:1].isdecimal() else None
    return text[stamp.end() :] if stamp else text


def _relayed(text: str) -> Said | None:
    """The same of a line that a server passes on; most lines are none, and cost next to nothing here."""
    if text.startswith("["):
        routed = _ROUTED.match(text)
        return Said(f"port {routed[1]}", text[routed.end() :]) if routed else None
    if (
        text.find("GRPC", 0, 40) < 0
        and text.find("supervisor.rs", 0, 200) < 0
        and text.find(" MODEL_LOG - ", 0, 250) < 0
    ):
        return None
    found = re.match(_RELAYS, text)
    if found is None:
        return None
    own = found["text"] or found["line"] or found["logged"] or re.sub(r"\\(.)", r"\1", found["quoted"] or "")
    return Said(found["id"] or found["model"] or found["server"] or found["worker"], own)


def printed(text: str) -> str:
    """A line as its process printed it, where a server passes it on at a level of its own."""
    relayed = _relayed(text)
    return relayed.text if relayed is not None else text


def _said(text: str) -> Said:
    """The same of a line before which no log store put anything."""
    if (relayed := _relayed(text)) is not None:
        return relayed
    process = ""
    if text.startswith("(") and (found := _PARENTHESES.match(text)) is not None:
        process, text = _named(found), text[found.end() :]
        # Ray says which of its processes another one's line came from
        if (inner := _PARENTHESES.match(text)) is not None:
            process, text = f"{process} {_named(inner)}", text[inner.end() :]
    elif text.startswith("[") and (found := _SGLANG.match(text)) is not None:
        process, text = found["who"].strip(), text[found.end() :]
    if text.startswith("[rank") and (found := _RANK.match(text)) is not None:
        process, text = process or f"rank {found['rank']}", text[found.end() :]
    if (found := _LOGGER.match(text)) is not None:
        text = text[found.end() :]
        if (inner := _RANK.match(text)) is not None:
            process, text = process or f"rank {inner['rank']}", text[inner.end() :]
    return Said(process, unmarked(text))


def _named(found: re.Match[str]) -> str:
    """A process by its name, rank, pid and address in parentheses."""
    who = found["who"] + (f" rank {found['rank'].partition('=')[2]}" if found["rank"] else "")
    return f"{who} (pid {found['pid']}" + (f" on {found['ip']})" if found["ip"] else ")")


def looks_like_error(text: str) -> bool:
    """Whether a line says that something went wrong, and is no frame of a traceback that a logger wrote."""
    head = text[:500]
    marked = any(word in head for word in _IN_MARKS) and _MARKS.search(head)
    if not marked and not _BEGINS.match(head):
        return False
    own = said(text).text
    return own == text or not own.startswith("  ")


#: How Python prints a warning of a library, and the statement below its message; so many lines has one at most, and so many are read.
_WARNING, _WARNS = expression(r"\S{1,300}\.py:\d+: \w*Warning:"), "warnings.warn("
_LONGEST_WARNING, _MOST_WARNINGS = 300, 200
#: How PyTorch's Inductor says of one of several kernels that it could not be tried, and how that ends.
_TRIED, _LEFT_OUT = expression(r".{0,300}\berror during autotuning:"), "Ignoring this choice"
#: How it ends where it has left out all of them.
_NONE_LEFT = "NoValidChoicesError"
#: What a logger writes, which is no part of one.
_LEVEL = expression(r".{0,80}?\b(?:DEBUG|INFO|WARN(?:ING)?|ERROR|CRITICAL)\b")


def warned_of(line: Line) -> bool:
    """Whether a line is part of the message of a Python warning, or of a kernel that was only tried: the program goes on without."""
    spans = line.log.once("Python warnings", lambda: [*_warnings(line.log), *_choices(line.log)])
    who = said(line.text).process if spans else ""
    return any(first < line.number < last and who == whose for first, last, whose in spans)


def _warnings(log: Log) -> Iterator[tuple[int, int, str]]:
    """The first and the last line, and the process, of each warning of Python whose message has several lines."""
    for end in itertools.islice(log.find(_WARNS), _MOST_WARNINGS):
        process, last = said(end.text).process, end.number
        above = reversed([*log.lines(max(last - _LONGEST_WARNING, 1), last - 1)])
        for line in above:
            one = said(line.text)
            if _LEVEL.match(line.text) or _WARNS in line.text:
                break
            if one.process == process and _WARNING.match(one.text):
                yield line.number, last, process
                break


def _choices(log: Log) -> Iterator[tuple[int, int, str]]:
    """The first and the last line, and the process, of what Inductor says of each kernel without which it does."""
    none_left = max((line.number for line in log.find(_NONE_LEFT)), default=0)
    for end in itertools.islice(log.find(_LEFT_OUT), _MOST_WARNINGS):
        if end.number < none_left:
            continue
        process, last = said(end.text).process, end.number
        for line in reversed([*log.lines(max(last - _LONGEST_WARNING, 1), last - 1)]):
            if _LEFT_OUT in line.text:
                break
            if said(line.text).process == process and _TRIED.match(line.text):
                yield line.number, last, process
                break


class Traceback(msgspec.Struct, frozen=True, kw_only=True):
    """One Python traceback: its process, where it starts, and the line that says what went wrong.

    `cause` is the traceback before it in a chain ("The above exception was the direct cause …").
    """

    process: str
    first: Line
    last: Line
    error: str
    message: str
    cause: Traceback | None = None

    @property
    def root(self) -> Traceback:
        """The first of the chain: what went wrong before anything else."""
        return self.cause.root if self.cause else self


def last_traceback(log: Log) -> Traceback | None:
    """The traceback that ends last."""
    return next(reversed(tracebacks(log)), None)


def tracebacks(log: Log) -> list[Traceback]:
    """The tracebacks of a log in the order of their ends; one that repeats is the first of its kind."""
    found: dict[tuple[str, str], Traceback] = {}
    by_process: dict[str, Traceback] = {}
    for count, start in enumerate(log.find(START)):
        if count >= _MOST:
            break
        one = _read(start, by_process)
        if one is None:
            continue
        by_process[one.process] = one
        found.setdefault((one.error, one.message), one)
    return sorted(found.values(), key=lambda one: one.last.number)


def _read(start: Line, before: dict[str, Traceback]) -> Traceback | None:
    """The traceback that starts on a line; None when its end is not there."""
    heading, quoting = said(start.text), 0
    process = heading.process
    below = process
    if not heading.text.startswith(START):  # a part of a logger's message, of which the first line alone may be marked
        following = [said(x.text).process for x in start.log.lines(start.number + 1, start.number + 1)]
        below = next((one for one in following if process.startswith(one)), process)
    # the frames stand further to the right than the heading, and the error does not; unless the indentation was lost
    for line in start.log.lines(start.number + 1, start.number + _LONGEST):
        one = said(line.text)
        if one.process != below:
            continue
        text = one.text
        if not text.strip() or text[:1].isspace() or text.startswith(("+", "|", "│", "╰")):  # the frame of Rich's
            continue
        error = _ERROR.match(text.strip())
        if _FRAME.match(text):
            quoting = _QUOTING
            continue
        if error is None and quoting and START not in text:
            quoting -= 1
            continue
        if error is None or START in text:
            return None
        message = (error["message"] or "").strip()
        # pydantic says what is wrong two lines further down, and what wraps another's error in the line below ("… raised:")
        if error["type"].endswith("ValidationError") or message.endswith(":"):
            more = [said(x.text) for x in start.log.lines(line.number + 1, line.number + 3)]
            message = " ".join([message, *(x.text.strip() for x in more if x.process == below)])
        previous = before.get(process)
        linked = previous is not None and _linked(start, previous, process)
        return Traceback(
            process=process,
            first=start,
            last=line,
            error=error["type"],
            message=message,
            cause=previous if linked else None,
        )
    return None


#: A process that ends of its exception is missed before the others print so many lines; it survives one that it only logs.
_MISSED = 1000


#: What a process prints that says why it ends, whichever it is; what a logger calls less than an error it survives.
_FAULT = expression(
    r"\bERROR\b|\bCRITICAL\b|\b[Ff]atal\b|Traceback \(most|terminate called|core dumped|[Ss]egmentation fault|\bKilled\b|\bSIG[A-Z]{3,4}\b"
    r"|\b[A-Z]\w{1,60}(?:Error|Exception)\b|\b[Ee]rror:"
)
#: An exception by which a rank says no more than that it does not reach another one.
_LOST = expression(
    r"(?i)connection (?:closed|reset|refused|timed out|was likely closed)|broken pipe|timed? ?out"
    r"|nccl|gloo|DistBackendError|DistNetworkError"
)
_NO_FAULT = expression(r"^.{0,80}?\b(?:DEBUG|INFO|WARN|WARNING)\b")


#: What SGLang, as it starts and as it serves, and vLLM 0.6 to 0.8 print before they end their own tree of processes with SIGKILL: a shell
#: calls that killed, too. SGLang's word before that on a process of it which somebody else killed.
_ENDS_ITSELF = (
    "eceived sigquit from a child proces",
    "t usually means one child failed",
    "ot fatal signal from worker processes, shutting down",
)
_CHILD_KILLED = ("crashed with exit code -9.", "unexpectedly failed with an exit code 9.", "failed with exitcode=9.")


def ended_itself(log: Log, *, before: int | None = None) -> bool:
    """Whether an engine says, above a line, that it ends its own processes, and not before that one of them was killed."""
    says = next(log.find(*_ENDS_ITSELF), None)
    if says is None or (before is not None and says.number > before):
        return False
    return not any(x.number < says.number for x in log.find(*_CHILD_KILLED))


def said_why(line: Line, worker: str, peer: str = "") -> bool:
    """Whether a traceback shortly above a line is of the very process that it calls gone: `VllmWorker-1` marks its own with
    `Worker_TP1`, `Worker_TP1_EP1` or `VllmWorker rank=1`, `EngineCore_DP0` with its name. Where the line has no name of it,
    whether anybody says above what went wrong, or may have: of a log without its beginning nobody knows. Of a `peer` that
    only an address is known of, whether another rank ended above, and not because it lost one itself. An engine that ends
    itself has said why before, or knows no more.
    """
    if peer:
        return _another_rank_said_why(line)
    if ended_itself(line.log, before=line.number):
        return True
    if not re.search(r"\w", worker):
        return _somebody_said_why(line)
    rank = re.fullmatch(r"\D{1,40}-(\d{1,4})", worker)
    own = rf"\w{{0,40}}Worker\w{{0,40}}(?:_TP| rank ){rank[1]}(?!\d)" if rank else rf"{re.escape(worker)}\b"
    above = (one for one in tracebacks(line.log) if 0 < line.number - one.last.number <= _MISSED)
    return any(re.match(own, one.process) and "PP" not in one.process for one in above)


def _another_rank_said_why(line: Line) -> bool:
    found = tracebacks(line.log)
    own = next((one for one in found if one.last.number == line.number), None)
    first, process = (own.first.number, own.process) if own else (line.number, said(line.text).process)
    return any(
        0 < first - one.last.number <= _MISSED
        and one.process not in ("", process)
        and not _LOST.search(f"{one.error}: {one.message[:2000]}")
        for one in found
    )


def _somebody_said_why(line: Line) -> bool:
    """Whether anything above a line, and above the traceback that it ends, says what went wrong."""
    log = line.log
    own = next((one.first.number for one in tracebacks(log) if one.last.number == line.number), line.number)
    start = max(log.first, own - _MISSED)
    above = (one.text[:2000] for one in log.lines(start, own - 1))
    return start > 1 or any(_FAULT.search(text) and not _NO_FAULT.match(text) for text in above)


class Frame(msgspec.Struct, frozen=True):
    """The frame of a traceback that raised its exception; `refuses` where its statement is a `raise` or an `assert`."""

    line: Line
    refuses: bool


def raised_at(line: Line) -> Frame | None:
    """The innermost frame of the traceback that a line ends; None where no frame stands before it, or lines are missing."""
    return line.log.once(f"raised at {line.number}", lambda: _raised_at(line))  # dozens of patterns ask the same


def _raised_at(line: Line) -> Frame | None:
    process, statement, flush = said(line.text).process, "", 0
    for number in range(line.number - 1, max(line.log.first, line.number - _LONGEST) - 1, -1):
        if line.log.torn(number, line.number):
            return None
        other = line.log.line(number)
        one = said(other.text)
        if one.process != process:
            continue
        if _FRAME.match(one.text):
            return Frame(other, statement.startswith(("raise ", "assert ")) or statement == "raise")
        if not one.text[:1].isspace():
            flush += 1  # a log that was copied without its indentation
            if flush > _QUOTING or START in one.text:
                return None
        statement = one.text.strip() or statement  # the first line of several that quote it counts
    return None


def _linked(start: Line, previous: Traceback, process: str) -> bool:
    """Whether the lines between two tracebacks of one process say that the first led to the second."""
    if not 0 < start.number - previous.last.number < _LONGEST:
        return False
    between = start.log.lines(previous.last.number + 1, start.number)
    return any(link in line.text and said(line.text).process == process for line in between for link in _LINKS)


def first_errors(logs: Logs) -> list[Traceback]:
    """What went wrong first in each process, the earliest first; what only repeats another process's words is left out."""
    chosen: dict[tuple[int, str], Traceback] = {}
    messages: set[str] = set()
    for number, log in enumerate(logs):
        for one in tracebacks(log):
            root = one.root
            if root.message and root.message in messages:
                continue
            messages.add(root.message)
            chosen.setdefault((number, one.process), root)
    return sorted(chosen.values(), key=lambda one: (not one.last.log.previous, one.last.order))
