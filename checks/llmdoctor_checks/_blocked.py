"""What vLLM's engine core prints while its workers take nothing from it."""

import re

from kubectl_llmdoctor.api import Line, Log

#: Once a minute (since 0.10). It prints the same while kernels are compiled, and while a step is long.
BLOCKED = "No available shared memory broadcast block found in"

#: So many at the end of a start, with hardly a line of anything else between them, are no compilation of ours.
_TIMES = 8

#: Probes and libraries may print a word in that time.
_OTHERS = 4


def stands_still(log: Log) -> list[Line]:
    """The complaints that a log ends with, where nothing else has been printed for so many minutes; else nothing."""
    said = list(log.find(BLOCKED))
    run: list[Line] = []
    others = 0
    for line in reversed(said):
        others += (run[0].number if run else len(log) + 1) - line.number - 1
        if others > _OTHERS:
            break
        run.insert(0, line)
    mine = [line for line in run if _printer(line) == _printer(run[-1])]
    return mine if len(mine) >= _TIMES else []


def _printer(line: Line) -> str:
    """Which process printed it: of several engines each says it once a minute."""
    named = re.match(r"\(\w[^)]{0,60}\)", line.text)
    return named[0] if named else ""


def waited(said: list[Line]) -> int:
    """For how many seconds these lines say that nothing was taken: each states its interval (VLLM_RINGBUFFER_WARNING_INTERVAL)."""
    found = (re.search(BLOCKED + r" (\d{1,5}) second", line.text) for line in said)
    return sum(int(told[1]) if told else 60 for told in found)
