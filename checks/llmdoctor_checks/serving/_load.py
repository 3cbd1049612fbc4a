"""What engines print of their load while they serve: how many requests run and wait, and how full the cache is.

Sources: vLLM `metrics/loggers.py` (V0 and V1), every 10 s while there is traffic; SGLang `scheduler_metrics_mixin.py`, every
40 decode steps and with each prefill.
"""

from __future__ import annotations

import re
from collections import deque
from typing import NamedTuple

from kubectl_llmdoctor.api import Container, Line, Logs

#: Statements that are looked at, the last ones: two minutes of vLLM's.
RECENT = 12

_VLLM = re.compile(r"Running: (\d+) reqs?, .*?(?:Waiting|Pending): (\d+) reqs?, .*?KV cache usage: ([\d.]+)%")
_SGLANG = re.compile(r"Decode batch\. #running-req: (\d+), .*?token usage: ([\d.]+), .*?#queue-req: (\d+)")


class Load(NamedTuple):
    """One statement; `cache` is the share in use, 0 to 1."""

    line: Line
    running: int
    waiting: int
    cache: float


def recent_load(container: Container, logs: Logs) -> list[Load]:
    """The last statements of the instance that runs, oldest first; empty where it made fewer than `RECENT`."""
    log = next((log for log in logs.of(container.name) if not log.previous), None)
    found: deque[Load] = deque(maxlen=RECENT)
    for line in log.find("Running: ") if log else ():
        if (said := _VLLM.search(line.text)) is not None:
            found.append(Load(line, int(said[1]), int(said[2]), float(said[3]) / 100))
    for line in log.find("#queue-req: ") if log and not found else ():
        if (said := _SGLANG.search(line.text)) is not None:
            found.append(Load(line, int(said[1]), int(said[3]), float(said[2])))
    return list(found) if len(found) == RECENT else []
