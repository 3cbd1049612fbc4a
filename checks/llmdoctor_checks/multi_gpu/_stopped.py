"""Prefill and decode servers between which nothing goes any more, by what they print of their queues.

Sources: SGLang `scheduler_metrics_mixin.py` (`#transfer-req` counts the requests whose cache is awaited, `#prealloc-req` those before
that: in decode they wait for a place, in prefill for a decode server that takes them); TensorRT-LLM `cacheTransceiver.cpp` and
`py_executor.py`.
"""

import re
from collections.abc import Callable, Iterator
from itertools import takewhile

import msgspec

from kubectl_llmdoctor.api import (
    Container,
    Engine,
    Finding,
    Line,
    Log,
    Logs,
    Pod,
    answered,
    expression,
    fixes,
    log_evidence,
    other_side,
    say_seconds,
    seconds_between,
    written_ago,
)

#: What SGLang prints of a step of either side, and which numbers of it count.
_DECODE, _PREFILL = "#transfer-req: ", "#prealloc-req: "
_NUMBERS = expression(r"#(running-req|transfer-req|prealloc-req|new-token|cached-token): (\d{1,9})")
_USAGE = expression(r"token usage: (\d(?:\.\d{1,4})?)")
_RANK = expression(r"\[[\d :-]{8,30} (DP\d{1,4})\b")

#: What TensorRT-LLM repeats of a cache that the other side does not fetch, and what it says of each step.
_UNSENT, _STEP = "imed out waiting for context KV cache transfer", "num_scheduled_requests: "

#: For so long nothing has moved (the longest prompts are read within that), so many times it was said, and so many wait, at least.
_SECONDS, _TIMES, _FEWEST = 300, 8, 8

#: A server whose cache is no fuller has room; what a probe asks for is no more than so many tokens.
_ROOM, _OF_A_PROBE = 0.5, 4

#: So many statements are looked at, the last ones; what was said longer ago than that is over.
_MOST, _LATELY = 4000, 3600


class Step(msgspec.Struct, frozen=True):
    """One statement of SGLang."""

    line: Line
    numbers: dict[str, int]
    usage: float

    def count(self, name: str) -> int:
        """A number of it; 0 where it is not there."""
        return self.numbers.get(name, 0)


#: All that is looked for here.
LITERALS = (_DECODE, _PREFILL, _UNSENT, _STEP)


def stopped(pod: Pod, engine: Engine, logs: Logs) -> Iterator[Finding]:
    """A server of which nothing goes to the other side, or comes from there, though it is up."""
    log = logs.current(engine.container.name)
    if log is None or not (pod.ready or pod.log_only):
        return
    for one in (_decode, _prefill, _unsent):
        if (found := one(engine.container, log)) is None:
            continue
        text, first, last = found
        if (written_ago(last, pod.cluster.now) or 0) > _LATELY:
            continue
        yield Finding(
            # a single cache that is kept for a request whose client has gone is said of as often
            confidence="possible" if one is _unsent else "likely",
            severity="warning",
            summary=text,
            evidence=(log_evidence(first), log_evidence(last)),
            explains=("queue-growing", "gateway-timeout", "engine-stalled"),
            fix=other_side(engine)
            or fixes.advice(
                "Look whether the servers of the other side are up and what they say of transfers; then start "
                f"{pod.name or 'it'} again: what stands still is not given up by itself",
                *((f"kubectl -n {pod.namespace} get pods -o wide",) if pod.exists else ()),
            ),
            order=first.order,
        )
        return


def _steps(log: Log, literal: str, kind: str) -> Iterator[list[Step]]:
    """The statements of one kind, each rank's by itself, oldest first."""
    found: dict[str, list[Step]] = {}
    for line in [*log.find(literal)][-_MOST:]:
        text = line.text[:2000]
        if kind in text:
            rank, usage = _RANK.search(text), _USAGE.search(text)
            numbers = {name: int(number) for name, number in _NUMBERS.findall(text)}
            found.setdefault(rank[1] if rank else "", []).append(Step(line, numbers, float(usage[1]) if usage else 0.0))
    yield from found.values()


def _since(steps: list[Step], holds: Callable[[Step, Step], bool]) -> list[Step]:
    """The last statements, as far back as something holds of each beside the last one."""
    return [*takewhile(lambda step: holds(step, steps[-1]), reversed(steps))][::-1]


def _stands(step: Step, last: Step) -> bool:
    """Whether as many transfers are awaited as at last, and more requests wait."""
    return step.count("transfer-req") == last.count("transfer-req") and step.count("prealloc-req") > 0


def _reads_nothing(step: Step, _: Step) -> bool:
    """Whether a step is about no more than a probe."""
    return step.count("new-token") + step.count("cached-token") <= _OF_A_PROBE


def _lasts(lines: list[Line]) -> float | None:
    """For how long something has been said, where that is long and often enough."""
    seconds = seconds_between(lines[0], lines[-1]) if len(lines) >= _TIMES else None
    return seconds if seconds is not None and seconds >= _SECONDS else None


def _decode(container: Container, log: Log) -> tuple[str, Line, Line] | None:
    """SGLang's decode side with transfers of which none ends, while hardly anything runs in a cache with room, and more wait."""
    of_ranks = [*_steps(log, _DECODE, "Decode batch")]
    for steps in of_ranks:
        last, awaited = steps[-1], steps[-1].count("transfer-req")
        still = _since(steps, _stands)
        seconds = _lasts([step.line for step in still])
        running = max((x.count("running-req") for x in still), default=0)
        if seconds is None or awaited < _FEWEST or running * _FEWEST > awaited:
            continue
        # where one comes for each that goes there are as many, too; what a probe asks for comes from nowhere
        ran = max(still[0].count("running-req"), 1)
        if running > ran or (len(of_ranks) == 1 and answered(log, after=still[0].line.number) > ran):
            continue
        if max(step.usage for step in still) > _ROOM or last.count("prealloc-req") < still[0].count("prealloc-req"):
            continue
        return (
            f"{container.name} has awaited the KV caches of the same {awaited} requests for {say_seconds(seconds)}, and none came: "
            f"{running} ran at most, and {last.count('prealloc-req')} more wait for a place.",
            still[0].line,
            last.line,
        )
    return None


def _prefill(container: Container, log: Log) -> tuple[str, Line, Line] | None:
    """SGLang's prefill side with ever more requests that no decode server takes, while it reads nothing but what probes ask."""
    for steps in _steps(log, _PREFILL, "Prefill batch"):
        idle = _since(steps, _reads_nothing)
        seconds = _lasts([step.line for step in idle])
        queue = [step.count("prealloc-req") for step in idle]
        if seconds is None or queue[-1] < _FEWEST or queue[-1] <= queue[0] or min(queue) == 0:
            continue
        return (
            f"{queue[-1]} requests wait in {container.name} for a decode server that takes them, where {queue[0]} waited "
            f"{say_seconds(seconds)} before, and it read no prompt meanwhile.",
            idle[0].line,
            idle[-1].line,
        )
    return None


def _unsent(container: Container, log: Log) -> tuple[str, Line, Line] | None:
    """TensorRT-LLM's context side that says again and again that a cache is not fetched, and begins no request meanwhile."""
    told = list(log.find(_UNSENT))[-_MOST:]
    if not told:
        return None
    begun = [
        line
        for line in log.find(_STEP, '"POST /')
        if re.search(r"num_scheduled_requests: [1-9]|\"POST /\S{1,200} HTTP/1\.1\" 200", line.text[:2000])
    ]
    since = [line for line in told if not begun or line.number > begun[-1].number]
    seconds = _lasts(since)
    # a step that is not said is no step
    if seconds is None or not any(line.number > since[0].number for line in log.find(f"{_STEP}0")):
        return None
    return (
        f"{container.name} has said for {say_seconds(seconds)} that a KV cache which it computed is not fetched by the generation side, "
        "and has begun no request since.",
        since[0],
        since[-1],
    )
