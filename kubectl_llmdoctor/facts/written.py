"""When a line of a log was written: by the kubelet's time, else by what the engine itself prints before it."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING

from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.logs import Line
from kubectl_llmdoctor.facts.units import parse_time

if TYPE_CHECKING:
    from kubectl_llmdoctor.facts.container import Container

#: So many lines before one at most stands the time of a traceback.
_STAMPED = 30

#: Month, day and time of day, as vLLM and SGLang print them, with a year or without.
MOMENT = r"(?:\d{4}-)?(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)"
#: klog's, of what is written in Go for Kubernetes: a letter for the level, and no hyphen.
_KLOG = r"\s*[IWEF](\d\d)(\d\d) (\d\d):(\d\d):(\d\d)\.\d"
#: llama-server's (`common/log.cpp`), after the number of the process in a router's log.
_UPTIME = r"(?:\[\d{1,6}\] )?(\d{1,7})\.(\d\d)\.(\d{3})\.\d{3} [A-Z] "


def seconds_between(first: Line, last: Line) -> float | None:
    """How long after one line another was written, by the times that the engine prints (without a year) or the kubelet's."""
    moments = [_moment(line) for line in (first, last)]
    if moments[0] is None or moments[1] is None:
        ran = [_uptime(line) for line in (first, last)]
        if ran[0] is not None and ran[1] is not None:
            return ran[1] - ran[0] if ran[1] >= ran[0] else None
        return (last.time - first.time).total_seconds() if first.time and last.time else None
    seconds = (moments[1] - moments[0]).total_seconds()
    return seconds if seconds >= 0 else seconds + 366 * 86400


def seconds_ago(line: Line, now: datetime | None) -> float | None:
    """How long before the snapshot a line was written, by the kubelet's time, or by the engine's own, taken for UTC."""
    if now is None:
        return None
    if line.time:
        return (now - line.time).total_seconds()
    if (at := _moment(line)) is None:
        return None
    return (datetime(2000, now.month, now.day, now.hour, now.minute, now.second) - at).total_seconds()


def written_ago(line: Line, now: datetime | None) -> float | None:
    """How many seconds before the snapshot a line was written, by its own time or that of one shortly before it."""
    if (own := seconds_ago(line, now)) is not None:
        return own
    before = list(line.log.lines(max(line.number - _STAMPED, 1), line.number - 1))[::-1]
    return next((ago for one in before if (ago := seconds_ago(one, now)) is not None), None)


def written_before(line: Line, server: Container, cluster: Cluster) -> bool:
    """Whether another's line was written before this server started, as far as the time is known: it tells of another."""
    status = server.status
    started = parse_time(status.state.running.started_at) if status and status.state.running else None
    ago = written_ago(line, cluster.now) if started is not None else None
    if started is None or cluster.now is None or ago is None:
        return False
    return ago > (cluster.now - started).total_seconds()


def _uptime(line: Line) -> float | None:
    """How many seconds a llama-server had run, which is what it prints for a time: minutes, seconds, thousandths and so on."""
    said = re.match(_UPTIME, line.text)
    return int(said[1]) * 60 + int(said[2]) + int(said[3]) / 1000 if said else None


def _moment(line: Line) -> datetime | None:
    found = re.match(_KLOG, line.text) or re.search(MOMENT, line.text)
    if found is None:
        return None
    month, day, hour, minute, second = map(int, found.groups())
    try:
        return datetime(2000, month, day, hour, minute, second)  # a leap year has every day
    except ValueError:
        return None
