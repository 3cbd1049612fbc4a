"""Requests in a server's log: those that it answered, and how much those that failed say."""

from __future__ import annotations

import bisect
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise

from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.logs import Line, Log
from kubectl_llmdoctor.facts.starts import (
    BANNERS,
    answered_at,
    at_work,
    later_banners,
    marks_of,
    phase_of,
    restarts,
    signs_of_life,
    told_to_stop,
)
from kubectl_llmdoctor.facts.written import MOMENT

#: Times that it must do so after a line: what another process still prints of a server that has just died is less.
_GOES_ON = 2
#: How uvicorn and llama-server log that a client asked for what cannot be, and the lines after an error where they do so.
_REFUSAL = expression(r'"POST /\S* HTTP/[\d.]+\\?" 4\d\d\b|\brequest: POST /.{0,200} 4\d\d$')
_ANSWERS = 3
#: How uvicorn, llama-server and Ray Serve's proxy log that they answered one request with an error, whoever's it is.
_ERRED = expression(
    r'"POST /\S* HTTP/[\d.]+\\?" [45]\d\d\b|\brequest: POST /.{0,200} [45]\d\d$| POST (?:/\S{0,200} )?[45]\d\d \d[\d.]{0,12}ms\b'
)
#: Where so many requests are answered for each that fails, failing is no more than what some client got wrong; and one that
#: fails says as little where so many follow.
PER_STRAY, _AFTER_ONE = 10, 2
#: What befell no request of so many for so many seconds is over; where no time is known, none of so many more.
_OVER_ANSWERS, _OVER_SECONDS, _OVER_UNTIMED = 100, 3600, 300
#: Where a request was sent to, as access logs have it.
_PATH = expression(r"\bPOST /[^\s?\"]{1,200}")
#: So many lines around one show what a program prints all the time, so often at least; and what it prints in any case: a probe may
#: ask for any page.
_AROUND, _SEVERAL = 100, 3
_SAYS_LITTLE = expression(
    r"(?i)error|exception|fail|time(?:d )?out|retry|warn|deadline|refused|health|ready|livez|metrics|ping|\b(?:GET|HEAD)\b|^\s|^$"
)
#: What is said of one failed request, twice at most, stands so close together.
_ONE_REQUEST = 60
#: By what the ranks of one server name themselves, in the lines that each of them prints.
_RANK = expression(r"(?:\b|_)(?:rank[= ]|[TPE]P)\d{1,5}\b(?: pid=\d{1,9}\b)?")
#: How uvicorn begins what it logs of a request whose handler raised: it has caught it, and answers the next one.
_OF_A_REQUEST = "Exception in ASGI application"
#: The frames in which a thread of Infinity ends, of those that no request does without: nobody starts it again, and its HTTP server
#: lives on. Source: its inference/batch_handler.py.
_THREADS = ("in _publish_towards_model", "in _preprocess_batch", "in _core_batch", "in _postprocess_batch")
_OF_INFINITY, _FILE_ABOVE = "infinity_emb/inference/", 3
#: What the server in front of an engine prints, which may go on for long, when a process of the engine is gone. Sources: vLLM's
#: executors and clients (0.4 to 0.33); asyncio of LightLLM's router, whose loop nobody starts again.
_GONE = (
    "died, exit code: -",
    "died unexpectedly, shutting down",
    "), shutting down executor",  # the same with the exit code of a worker
    "MQLLMEngine is already dead",
    "Background loop has errored already.",
    "EngineCore encountered an issue. See stack trace (above)",
    "coro=<RouterManager.loop_for_fwd() done,",
    "Scheduler hit an exception: Traceback",  # SGLang, as the next two
    "TpModelWorkerClient hit an exception: Traceback",
    "DetokenizerManager hit an exception: Traceback",
    "] [E] Error in event loop: ",  # TensorRT-LLM's py_executor.py, of whose ranks each has one; as the next
    "Executor loop crashed on this rank; hard-killing all ",
    # PyTorch's watchdog, which then ends its process by an exception that nobody can catch: ProcessGroupNCCL.cpp (1.13 to 2.13)
    "To avoid data inconsistency, we are taking the entire process down.",
)
#: Lines after an error within which the server says that its engine is gone, if it died of that.
_OF_AN_END = 60
#: What is looked for here; what servers print of every request is in every other line.
LITERALS = (*_GONE, *_THREADS)


def went_on(line: Line) -> bool:
    """Whether an engine answered requests for a while after a line; a log that was condensed may no longer tell."""
    limit = next((at for at in later_banners(line.log) if at > line.number), None)
    for numbers in at_work(line.log):
        first = bisect.bisect_right(numbers, line.number)
        last = len(numbers) if limit is None else bisect.bisect_left(numbers, limit)
        if last - first >= _GOES_ON:
            return True
    return False


def refused(line: Line) -> bool:
    """Whether a server answered a request with 4xx right after a line: what it complains of is the client's."""
    return any(_REFUSAL.search(after.text) for after in line.log.lines(line.number + 1, line.number + _ANSWERS))


def of_a_request(first: Line, last: Line) -> bool:
    """Whether a traceback, from line to line, is uvicorn's of one request, and others were answered after it."""
    caught = any(_OF_A_REQUEST in before.text for before in first.log.lines(first.number - 2, first.number - 1))
    limit = _end(last)
    return caught and any(last.number < at < limit for at in signs_of_life(last.log))


def _end(line: Line) -> int:
    """Where the start ends that a line belongs to."""
    return next((at for at in later_banners(line.log) if at > line.number), len(line.log) + 1)


def stray(lines: Sequence[Line], *, ready: bool = False) -> bool:
    """Whether the requests that some lines of a log say failed are few among those that the server answered.

    Of a server that its probes call ready one failure beside any answer is; of others only what follows says that it went on. So does
    what a program prints all the time that logs no answer.
    One after which the engine was gone and nothing was answered any more ended the server, however many came before.
    """
    last, failed = lines[-1], failed_requests(lines)
    limit = _end(last)
    answers = [at for at in signs_of_life(last.log) if at < limit]
    after = len(answers) - bisect.bisect_right(answers, last.number)
    ended = any(last.number < x.number <= last.number + _OF_AN_END for text in _GONE for x in last.log.marks(text))
    if not after and (ended or any(abs(x.number - last.number) <= _OF_AN_END for x in lost_threads(last.log))):
        return False
    if len(answers) >= PER_STRAY * failed:
        return True
    if answers:
        return failed == 1 and (ready or after >= _AFTER_ONE)
    return failed == 1 and _as_before(last, limit)


def _as_before(line: Line, limit: int) -> bool:
    """Whether a program goes on after a line, and before the next start, to print what it printed again and again before it."""
    before = _again_and_again(line.above(_AROUND))
    return bool(before & _again_and_again(line.log.lines(line.number + 1, min(line.number + _AROUND, limit - 1))))


def _again_and_again(lines: Iterable[Line]) -> set[str]:
    """What several lines say, whatever the numbers in it, and what is neither a complaint nor asked by a probe."""
    texts = Counter(re.sub(r"\d+", "0", line.text[:200]) for line in lines)
    return {text for text, times in texts.items() if times >= _SEVERAL and not _SAYS_LITTLE.search(text)}


def answered(log: Log | None, *, after: int = 0) -> int:
    """How many requests a log says, below a line, were answered; what an engine prints of its work from time to time is not counted."""
    if log is None:
        return 0
    at = answered_at(log)
    return len(at) - bisect.bisect_right(at, after)


def went_well(log: Log, *, after: int) -> int:
    """How many requests a log says, below a line, were answered; of a server that logs none, how often its engine was at work on some."""
    at = _went_well_at(log)
    return len(at) - bisect.bisect_right(at, after)


def _went_well_at(log: Log) -> list[int]:
    at = answered_at(log)
    return at if at or log.marks("POST") else signs_of_life(log)


def long_past(lines: Sequence[Line]) -> bool:
    """Whether what some lines of logs tell of requests is over: many were answered at that route in the hour after the last and since.

    Not where it came back after such a time before, as what a job of the night does. Where the log does not carry the kubelet's times
    it takes more answers.
    """
    by_log: dict[int, list[Line]] = {}
    for line in lines:
        by_log.setdefault(id(line.log), []).append(line)
    return all(map(_over, by_log.values()))


def _over(lines: Sequence[Line]) -> bool:
    last, path = lines[-1], _route(lines[-1])
    if not _spared(last, len(last.log), path):
        return False
    return not any(_spared(one, other.number, path) for one, other in pairwise(lines))


def _route(line: Line) -> str:
    """Where the request of which a line tells was sent to, by what the server logs of its error; empty where it does not."""
    after = (x.text for x in line.log.lines(line.number, line.number + _ONE_REQUEST))
    erred = next((found for text in after if (found := _ERRED.search(text))), None)
    path = _PATH.search(erred[0]) if erred else None
    return path[0] if path else ""


def _spared(line: Line, end: int, path: str) -> bool:
    """Whether many requests to a path were answered after a line and before another, an hour later or more."""
    if end - line.number < _OVER_ANSWERS:
        return False
    began, ended = line.time, line.log.time_of(end)
    timed = began is not None and ended is not None
    if began is not None and ended is not None and (ended - began).total_seconds() < _OVER_SECONDS:
        return False
    many = _OVER_ANSWERS if timed else _OVER_UNTIMED
    at = _went_well_at(line.log)
    numbers = at[bisect.bisect_right(at, line.number) : bisect.bisect_right(at, end)]
    same = (n for n in numbers if not path or any(f"{path} " in x.text for x in line.log.lines(n, n)))
    return len(list(islice(same, many))) == many


def failed_requests(lines: Sequence[Line]) -> int:
    """How many requests some lines of a log are about, each of which may be said several times."""
    return sum(1 for _ in _requests(lines))


def served(log: Log | None) -> bool:
    """Whether the last start of a log came so far that it answered requests, also where its beginning is not in the log."""
    if log is None:
        return False
    phase, begin = phase_of(log), next(reversed(restarts(log)), 1)
    return (phase is not None and phase.name == "serving") or any(at >= begin for at in signs_of_life(log))


def _requests(lines: Sequence[Line]) -> Iterator[Line]:
    """The first of the lines that are about one request each: it is often said twice, and answered after that.

    Each rank of a server says the same of the same request.
    """
    last, said, ranks, again = lines[0], *_by_rank(lines[0]), False
    yield last
    for line in lines[1:]:
        between = line.log.lines(last.number, line.number)
        far = line.number - last.number > _ONE_REQUEST or any(_ERRED.search(x.text) for x in between)
        words, of = _by_rank(line)
        of_another = words == said and not of <= ranks
        if far or (again and not of_another):
            yield line
            said, ranks, again = words, of, False
        elif of_another:
            ranks |= of
        else:
            again = True
        last = line


def _by_rank(line: Line) -> tuple[str, set[str]]:
    """What a line says, whichever rank says it and when; and by which names it calls that rank."""
    text = line.text[:2000]
    return re.sub(MOMENT, "", _RANK.sub("", text)), {found[0] for found in _RANK.finditer(text)}


def lost_threads(log: Log) -> list[Line]:
    """Where a thread of a server ended of an exception that no request does without."""
    marks = (x for text in _THREADS for x in log.marks(text))
    # what wraps lines writes the file above the function
    return [
        x for x in marks if any(_OF_INFINITY in y.text for y in log.lines(max(x.number - _FILE_ABOVE, 1), x.number))
    ]


def gone(log: Log) -> Line | None:
    """The last line by which a server says that its engine is gone, where it answered nothing and started nothing after that."""
    last = max((*log.find(*_GONE), *lost_threads(log)), key=lambda x: x.number, default=None)
    if last is None or told_to_stop(last):
        return None
    later = (*signs_of_life(log), *(x.number for text in BANNERS for x in marks_of(log, text)))
    return None if any(at > last.number for at in later) else last
