"""When a line of a log was written: by the kubelet's time, else by what the engine itself prints before it."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Callable
from datetime import UTC, datetime

from kubectl_llmdoctor.facts.logs import Line, Log
from kubectl_llmdoctor.snapshot import LogText

#: So many lines before one at most stands the time of a traceback.
_STAMPED = 30

#: Month, day and time of day, as vLLM and SGLang print them, with a year or without.
MOMENT = r"(?:\d{4}-)?(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)"
#: klog's, of what is written in Go for Kubernetes: a letter for the level, and no hyphen.
_KLOG = r"\s*[IWEF](\d\d)(\d\d) (\d\d):(\d\d):(\d\d)\.\d"
#: That of Go's own logger and of nginx, which begins the line; NATS prints its process before it.
_SLASHED = r"\s*(?:\[\d{1,7}\] )?\d{4}/(\d\d)/(\d\d) (\d\d):(\d\d):(\d\d)\b"
#: That of Gin, by which Ollama and LocalAI log their requests.
_GIN = r"\[GIN\] \d{4}/(\d\d)/(\d\d) - (\d\d):(\d\d):(\d\d)\b"
#: That of access logs (nginx, Apache, Traefik, HAProxy), and Caddy's, which is Unix time.
_ACCESS = r"\[(\d\d)/(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)/\d{4}:(\d\d):(\d\d):(\d\d)"
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_UNIX = r'"ts":(\d{10})\.\d'
#: llama-server's (`common/log.cpp`), after the number of the process in a router's log.
_UPTIME = r"(?:\[\d{1,6}\] )?(\d{1,7})\.(\d\d)\.(\d{3})\.\d{3} [A-Z] "

#: So many characters at the end of a log tell by which clock it was written; time zones differ by less than a day.
_LAST_CHARS, _A_DAY = 10_000, 86400.0
#: 2000, which stands for each year that is not written, is a leap year.
_A_YEAR = 366 * _A_DAY


class QuotedLog(LogText, frozen=True):
    """A log whose times are of another clock than the cluster's: written down from a report, or copied from elsewhere.

    `behind`: how many seconds its last line lies before the snapshot by its own times.
    """

    behind: float = 0.0


def by_their_clocks(
    logs: tuple[LogText, ...], now: datetime | None, begun: Callable[[LogText], datetime | None]
) -> tuple[LogText, ...]:
    """The logs, those marked whose times cannot be the cluster's, for no line is older than its container, or is yet to come.

    Logs of one clock keep their distance: the last of those that end within a day of each other ends with the snapshot.
    """
    if now is None or all(log.timestamps for log in logs):
        return logs
    ages = {place: of for place, log in enumerate(logs) if not log.timestamps if (of := _ages(log, now))}
    foreign = [of[-1] for place, of in ages.items() if all(_impossible(age, now, begun(logs[place])) for age in of)]
    if not foreign:
        return logs
    in_order = sorted(foreign)
    ends = {place: of[-1] for place, of in ages.items() if _nearest(in_order, of[-1]) <= of[-1] + _A_DAY}
    in_order, marked = sorted(ends.values()), list(logs)
    for place, end in ends.items():
        given = {name: getattr(logs[place], name) for name in LogText.__struct_fields__}
        marked[place] = QuotedLog(**given, behind=_nearest(in_order, end))
    return tuple(marked)


def _nearest(in_order: list[float], end: float) -> float:
    """The least of some ages that is less than by a day below one, or the next above it."""
    place = bisect_left(in_order, end - _A_DAY)
    return in_order[place] if place < len(in_order) else math.inf


def _ages(source: LogText, now: datetime) -> list[float]:
    """How many seconds before the snapshot the last lines of a log were written, by the times that they bear."""
    lines = Log(LogText(text=source.text[-_LAST_CHARS:])).lines(1)
    return [age for line in lines if (age := _by_its_year(line, now)) is not None]


def _impossible(age: float, now: datetime, begun: datetime | None) -> bool:
    """Whether a line of this age is older than its container, or of a day to come that was not last year's in its time either."""
    most = (now - begun).total_seconds() + _A_DAY if begun is not None else None
    if age < -_A_DAY:
        return most is None or age + _A_YEAR > most
    return most is not None and age > most


def seconds_between(first: Line, last: Line) -> float | None:
    """How long after one line another was written, by the times that the engine prints (without a year) or the kubelet's."""
    moments = [_moment(line) or _of_access(line) for line in (first, last)]
    if moments[0] is None or moments[1] is None:
        ran = [_uptime(line) for line in (first, last)]
        if ran[0] is not None and ran[1] is not None:
            return ran[1] - ran[0] if ran[1] >= ran[0] else None
        return (last.time - first.time).total_seconds() if first.time and last.time else None
    seconds = (moments[1] - moments[0]).total_seconds()
    return seconds if seconds >= 0 else seconds + _A_YEAR


def seconds_ago(line: Line, now: datetime | None) -> float | None:
    """How long before the snapshot a line was written, by the kubelet's time, or by the engine's own, taken for UTC."""
    if now is None:
        return None
    if line.time:
        return (now - line.time).total_seconds()
    if (ago := _by_its_year(line, now)) is None:
        return None
    ago -= line.log.source.behind if isinstance(line.log.source, QuotedLog) else 0
    return ago if ago >= -_A_DAY else ago + _A_YEAR  # no line is of a day to come: it is of last year


def written_ago(line: Line, now: datetime | None) -> float | None:
    """How many seconds before the snapshot a line was written, by its own time or that of one shortly before it."""
    if (own := seconds_ago(line, now)) is not None:
        return own
    before = line.above(_STAMPED)[::-1]
    return next((ago for one in before if (ago := seconds_ago(one, now)) is not None), None)


def _uptime(line: Line) -> float | None:
    """How many seconds a llama-server had run, which is what it prints for a time: minutes, seconds, thousandths and so on."""
    said = re.match(_UPTIME, line.text)
    return int(said[1]) * 60 + int(said[2]) + int(said[3]) / 1000 if said else None


def _by_its_year(line: Line, now: datetime) -> float | None:
    """How many seconds before the snapshot a line was written by its own time, taken for one of the same year."""
    at = _moment(line)
    return (now.replace(year=2000, microsecond=0, tzinfo=None) - at).total_seconds() if at is not None else None


def _of_access(line: Line) -> datetime | None:
    """The time of a line of an access log, in the year 2000."""
    if (said := re.search(_ACCESS, line.text[:2000])) is not None:
        return _made(_MONTHS.index(said[2]) + 1, *(int(said[part]) for part in (1, 3, 4, 5)))
    unix = re.search(_UNIX, line.text[:2000])
    return datetime.fromtimestamp(int(unix[1]), UTC).replace(year=2000, tzinfo=None) if unix else None


def _moment(line: Line) -> datetime | None:
    begins = next((found for each in (_KLOG, _SLASHED, _GIN) if (found := re.match(each, line.text))), None)
    return _read(begins or re.search(MOMENT, line.text))


def _read(found: re.Match[str] | None) -> datetime | None:
    if found is None:
        return None
    return _made(*map(int, found.groups()))


def _made(month: int, day: int, hour: int, minute: int, second: int) -> datetime | None:
    try:
        return datetime(2000, month, day, hour, minute, second)  # a leap year has every day
    except ValueError:
        return None
