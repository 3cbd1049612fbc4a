"""Starts of a server that came to a certain line and no further."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Ending, Line, Log, Logs, Pod, endings, expression, log_of, seconds_between

#: What such a line announces takes seconds; who has printed nothing more for so long stands still.
STUCK_SECONDS = 900

#: A probe that ends a start which had come no further, after so long, did not end one that loads.
_KILLED_SECONDS = 300

#: Among so many first lines of a log one has a time.
_FIRST_LINES = 40

#: Other words may follow the last of those lines, of other ranks and of libraries.
_LINES_AFTER = 6

#: PyTorch prints its own stack below a warning of its C++ code, longer than any words of others.
_OF_A_STACK = expression(r"\bframe #\d{1,3}: |\bException raised from |<omitting python frames>")
_STACK_LINES = 80

#: What vLLM's API server says every ten seconds while it waits, whatever its engine does.
_STILL_WAITING = expression(r"Waiting for \d{1,4} local, \d{1,4} remote core engine proc")


def ends_with(log: Log, texts: tuple[str, ...]) -> Line | None:
    """The last of the lines with one of these texts, where it is among the last of the log."""
    last = log.last(*texts)
    if last is None:
        return None
    said = stack = 0
    for line in log.lines(last.number + 1, len(log)):
        if _OF_A_STACK.search(line.text[:200]):
            stack += 1
        elif not _STILL_WAITING.search(line.text[:200]):
            said += 1
        if said > _LINES_AFTER or stack > _STACK_LINES:
            return None
    return last


def after_start(line: Line) -> float:
    """How many seconds after the first line of its log one was written; 0 where nothing tells."""
    first = line.log.lines(line.log.first, min(line.log.first + _FIRST_LINES, line.number - 1))
    return next((seconds for one in first if (seconds := seconds_between(one, line)) is not None), 0)


def killed_at(pod: Pod, logs: Logs, texts: tuple[str, ...]) -> Iterator[tuple[Ending, Line]]:
    """Instances that a probe has ended since: the log ends with such a line, and it ran on for minutes."""
    for ending, line in killed_with(pod, logs, texts):
        if (ending.seconds or 0) - after_start(line) >= _KILLED_SECONDS:
            yield ending, line


def killed_with(pod: Pod, logs: Logs, texts: tuple[str, ...]) -> Iterator[tuple[Ending, Line]]:
    """Instances that may have been ended by a probe, and whose log ends with such a line, be it said again and again."""
    for ending in endings(pod):
        log = log_of(ending, logs)
        if log is None or ending.oom_killed or ending.code not in (130, 137, 143):
            continue
        if line := ends_with(log, texts):
            yield ending, line
