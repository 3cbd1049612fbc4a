"""What engines print of their load while they serve: how many requests run and wait, and how full the cache is.

Sources: vLLM `engine/metrics.py` (V0, every 5 or 10 s) and `v1/metrics/loggers.py` (every 10 s while there is traffic),
`core/scheduler.py` (V0: a preemption, and then each fiftieth); SGLang `scheduler_metrics_mixin.py`, every 40 decode steps
and with each prefill (from 0.5 on with a comma after "Decode batch", and one usage for each pool of a hybrid model).
"""

import itertools
import re
from collections import deque
from collections.abc import Callable

import msgspec

from kubectl_llmdoctor.api import MOMENT, Container, Line, Log, Logs, Pod, seconds_between, written_ago

#: Statements that are looked at, the last ones: two minutes of vLLM's.
RECENT = 12

#: Fewer say as much where they stand so far apart, for a log is often thinned out before it is passed on.
_FEWEST, _SECONDS = 6, 110
#: And so few where they cover several minutes.
_THINNED, _MINUTES = 4, 180

#: So many seconds later a few lines say nothing of a server.
_LONG_AGO = 86400

#: What a log says that has its beginning.
_STARTED = ("startup complete", "server version", "fired up")

_VLLM = (
    r"Avg prompt throughput: (\d{1,9}(?:\.\d+)?) tokens/s, Avg generation throughput: (\d{1,9}(?:\.\d+)?) tokens/s, .{0,120}?"
    r"Running: (\d{1,15}) reqs?, .{0,120}?(?:Waiting|Pending): (\d{1,15}) reqs?, .{0,120}?KV cache usage: (\d{1,9}(?:\.\d+)?)%"
)
_SGLANG = r"Decode batch[.,] #running-req: (\d{1,15}), (.*?)#queue-req: (\d{1,15})"
_SGLANG_TOKENS = r"gen throughput \(token/s\): (\d{1,9}(?:\.\d+)?)"
_USAGE = r"(?:token|mamba) usage: (\d{1,9}(?:\.\d+)?)"
#: What vLLM's first engine prints of a preemption, the first one and each fiftieth.
PREEMPTED = "is preempted by PreemptionMode"
_PREEMPTED = r"is preempted by PreemptionMode\.\w+ mode because .*?total_num_cumulative_preemption=(\d{1,15})"
#: What SGLang's scheduler prints each time on every rank; up to 0.5.2 "Decode out of memory happened."
RETRACTED = "#retracted_reqs: "
_RETRACTED = r"(?:KV cache pool is full\. Retract requests|Decode out of memory happened)\. #retracted_reqs: (\d{1,9})"
#: What is printed by a server that ends, or by what ends it.
_ENDS = ("Traceback (most recent call last)", "Shutting down", "ERROR", "CRITICAL", "SIG", "Killed", "timed out")


class Load(msgspec.Struct, frozen=True):
    """One statement; `cache` is the share in use, 0 to 1, `tokens` what it computes in a second (None where it does not say).

    Of vLLM's `read` and `made` are the prompt tokens and the generated ones among them.
    """

    line: Line
    running: int
    waiting: int
    cache: float
    tokens: float | None = None
    read: float | None = None
    made: float | None = None


def picked(container: Container, logs: Logs) -> bool:
    """Whether somebody picked the lines of the log out of a longer one: they are few, none is of the server's start.

    Where their times are the cluster's and lie long before it was looked at, nobody knows what has been since.
    """
    log = logs.current(container.name)
    if log is None or not log.quoted or any(log.holds(word) for word in _STARTED):
        return False
    ago = written_ago(log.line(len(log)), container.pod.cluster.now) if len(log) else None
    return ago is None or ago <= _LONG_AGO


def recent_load(container: Container, logs: Logs | None) -> list[Load]:
    """The last statements of the instance that runs, oldest first; empty where they cover less than two minutes or so."""
    said = last_load(container, logs)
    return said if lasts(said) else []


def lasts(said: list[Load]) -> bool:
    """Whether these statements cover two minutes or so."""
    if len(said) == RECENT or len(said) < _THINNED:
        return len(said) == RECENT
    seconds = seconds_between(said[0].line, said[-1].line) or 0
    return seconds >= (_SECONDS if len(said) >= _FEWEST else _MINUTES)


def since_when(said: list[Load], holds: Callable[[Load], bool]) -> list[Load]:
    """The last of these statements, from when on something has held without a break."""
    return list(itertools.takewhile(holds, reversed(said)))[::-1]


def last_load(container: Container, logs: Logs | None, most: int = RECENT) -> list[Load]:
    """The last statements of the instance that runs, `most` of them at most, oldest first.

    Of several engines that one server has (the data parallel ones of vLLM and SGLang) those of the one that has most to do.
    """
    log = container.own_log(logs)
    return list(log.once(f"the last {most} loads", lambda: _last_loads(log, most))) if log else []


def _last_loads(log: Log, most: int) -> list[Load]:
    found: dict[str, deque[Load]] = {}
    for literal in ("Running: ", "#queue-req: "):
        for line in log.find(literal) if not found else ():
            if (load := _statement(line)) is not None:
                found.setdefault(_whose(line), deque(maxlen=most)).append(load)
    return list(max(found.values(), key=lambda said: (said[-1].waiting, said[-1].running), default=()))


def idle_engines(container: Container, logs: Logs, busy: list[Load], taken: float | None = None) -> list[str]:
    """Engines of the same server that had nothing to do all the while that another was as busy as these statements say.

    One that computes nothing prints nothing, or zeros. With a share of the cache also those that had no queue, and took no more of it.
    """
    log, first = logs.current(container.name), busy[0].line.number
    known, at_work = set[str](), {_whose(busy[-1].line)}
    for line in log.find("Running: ", "#queue-req: ") if log else ():
        if (said := _statement(line)) is not None:
            known.add(_whose(line))
            free = not said.waiting and (not said.running or bool(taken and said.cache <= taken))
            if line.number >= first and not free:
                at_work.add(_whose(line))
    return sorted(known - at_work - {""})


def _statement(line: Line) -> Load | None:
    """What a line says of the load, of either engine."""
    if (said := re.search(_VLLM, line.text)) is not None:
        read, made = float(said[1]), float(said[2])
        return Load(line, int(said[3]), int(said[4]), float(said[5]) / 100, read + made, read, made)
    said = re.search(_SGLANG, line.text)
    pools = [float(usage) for usage in re.findall(_USAGE, said[2])] if said else []
    if said is None or not pools:
        return None
    pace = re.search(_SGLANG_TOKENS, said[2])
    # the fullest pool stops all
    return Load(line, int(said[1]), int(said[3]), max(pools), float(pace[1]) if pace else None)


def _whose(line: Line) -> str:
    """Which of vLLM's engines, or of SGLang's data parallel ranks, says it; empty where there is no name."""
    said = re.search(r"\bEngine (\d{1,4}): |\[[\d :-]{8,30} DP(\d{1,4})\b", line.text[:400])
    return (said[1] or said[2]) if said else ""


def preemptions(container: Container, logs: Logs) -> list[tuple[Line, int]]:
    """What vLLM's first engine says of preemptions of the instance that runs: the line, and how many there were so far."""
    log = logs.current(container.name)
    lines = log.find(PREEMPTED) if log else ()
    return [(line, int(said[1])) for line in lines if (said := re.search(_PREEMPTED, line.text)) is not None]


def retractions(container: Container, logs: Logs) -> list[tuple[Line, int]]:
    """What SGLang says of requests that it put back for lack of room: the line, and how many so far; once for all ranks."""
    log = logs.current(container.name)
    found: list[tuple[Line, int]] = []
    seen: set[str] = set()
    for line in log.find(RETRACTED) if log else ():
        when = re.search(MOMENT, line.text)
        if (said := re.search(_RETRACTED, line.text)) is not None and when is not None and when[0] not in seen:
            seen.add(when[0])
            found.append((line, int(said[1]) + (found[-1][1] if found else 0)))
    return found


#: So many statements without a token, ten seconds apart, are no pause between two batches.
_STANDS_STILL = 6


def works(pod: Pod, said: list[Load]) -> bool:
    """Whether the engine computes, so that its load is the matter; a log alone may be that of a server that ended, of whatever."""
    last = said[-1].line
    if not any(load.tokens is None or load.tokens for load in said[-_STANDS_STILL:]):
        return False  # it stands still, and what waits is the consequence
    return not pod.log_only or not any(
        any(text in line.text for text in _ENDS) for line in last.log.lines(last.number + 1)
    )
