"""SGLang's scheduler or detokenizer that stands still, by its health check, which asks for a token and gets none."""

from collections import Counter
from datetime import datetime

import msgspec

from kubectl_llmdoctor.api import Ending, Line, Log, expression, seconds_ago, seconds_between, served

#: What SGLang prints before its health check answers 503: no output of any request came within SGLANG_HEALTH_CHECK_TIMEOUT.
UNHEALTHY = "Health check failed. Server couldn't get a response from detokenizer for last "

#: Its times, by the server's clock without a date, say since when nothing has come.
_SAID = expression(
    r"detokenizer for last (\d{1,6}) seconds\. tic start time: (\d\d):(\d\d):(\d\d)\. last_heartbeat time: (\d\d):(\d\d):(\d\d)"
)

#: What shows that it computes: a step, or an answer.
_STEPS = expression(
    r"\b(?:Prefill|Decode) batch\b|\"POST /\S{1,200} HTTP/1\.1\" 200\b|but the state was deleted in TokenizerManager"
)

#: How a process of it says that it ends (`scheduler.py`, `detokenizer_manager.py`): who has died does not stand still.
_DIED = ("Scheduler hit an exception", "DetokenizerManager hit an exception", "Received sigquit from a child process")

#: Outputs of a request whose client has gone (`tokenizer_manager.py`); those of the health check itself are no such.
ORPHANED = "but the state was deleted in TokenizerManager"
_RID = expression(r"Received output for rid='(?!HEALTH_CHECK)([^']{1,100})' but the state was deleted")
_MANY = 10

#: For so long no step takes, and for so long one may that reads a long prompt or compiles a kernel for it.
_SECONDS, _LONG_STEP_SECONDS = 60, 300

#: Of one that runs: so long ago it said so last, twice at least.
_LATELY, _TWICE = 300, 2


class Silence(msgspec.Struct, frozen=True):
    """The complaints with nothing computed since, how long that has been, and the requests whose clients had gone, with a line of one."""

    first: Line
    last: Line
    seconds: float
    orphan: Line | None


def ended_silent(ending: Ending, log: Log | None) -> Silence | None:
    """Whether the last instance of a container had computed nothing for a minute or more when it was killed."""
    if log is None or ending.oom_killed or ending.code not in (0, 130, 137, 143):
        return None
    return _silence(log, ending.finished, 1, ending.container.pod.cluster.now)


def runs_silent(log: Log | None, now: datetime | None) -> Silence | None:
    """Whether the instance that runs computes nothing."""
    found = _silence(log, now, _TWICE, now) if log is not None else None
    ago = seconds_ago(found.last, now) if found is not None else None
    return found if ago is None or ago <= _LATELY else None


def _silence(log: Log, end: datetime | None, times: int, now: datetime | None) -> Silence | None:
    said = list(log.find(UNHEALTHY))
    if not said or not served(log):
        return None
    steps = [line for line in log.find(" batch", "HTTP/1.1", ORPHANED) if _STEPS.search(line.text[:2000])]
    before = [line for line in steps if line.number < said[-1].number]
    said = [line for line in said if not before or line.number > before[-1].number]
    told = _SAID.search(said[-1].text[:2000])
    if len(said) < times or len(before) < len(steps) or told is None or next(log.find(*_DIED), None) is not None:
        return None
    tic, beat = (int(h) * 3600 + int(m) * 60 + int(s) for h, m, s in (told.groups()[1:4], told.groups()[4:7]))
    ago = seconds_ago(said[-1], now)
    since = ago - (now - end).total_seconds() if ago is not None and now is not None and end is not None else 0.0
    seconds = (tic - beat) % 86400 + int(told[1]) + max(0.0, since)
    # a long prompt is announced before it is read
    reads = before[-1] if before and "Prefill batch" in before[-1].text else None
    began = seconds_between(reads, said[0]) if reads is not None else None
    least = _LONG_STEP_SECONDS if began is not None and began < _LONG_STEP_SECONDS else _SECONDS
    return Silence(said[0], said[-1], seconds, _orphan(log)) if seconds >= least else None


def _orphan(log: Log) -> Line | None:
    """The last output of a request that the scheduler goes on with though its client has gone: many came."""
    lines = [(line, rid[1]) for line in log.find(ORPHANED) if (rid := _RID.search(line.text[:2000])) is not None]
    often = {rid for rid, count in Counter(rid for _, rid in lines).items() if count >= _MANY}
    return next((line for line, rid in reversed(lines) if rid in often), None)
