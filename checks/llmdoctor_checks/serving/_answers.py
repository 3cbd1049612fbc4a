"""How long Ollama's requests took, by Gin's access log."""

from __future__ import annotations

import re
from datetime import datetime

import msgspec

from kubectl_llmdoctor.api import Line

#: When a request was answered, and how long it took. Only requests that need a model. It has no zone: the server's own time.
_ANSWERED = (
    r"\[GIN\] (\d{4})/(\d\d)/(\d\d) - (\d\d):(\d\d):(\d\d)"
    r" \| +\d{3} \| +([\dhmµns.]+) \|.*POST +\"(?:/api/(?:chat|generate|embed)|/v1/)"
)
_DURATION = r"(\d{1,9}(?:\.\d+)?)(h|ms|m|s|µs|ns)"
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}


class Answer(msgspec.Struct, frozen=True):
    """A request that needed a model: its line, when it was answered by the server's clock, and the seconds that it took."""

    line: Line
    at: datetime
    seconds: float


def answered(line: Line) -> Answer | None:
    """The request of a line of the access log; None where it is another line, or a request that needs no model."""
    found = re.search(_ANSWERED, line.text)
    if found is None:
        return None
    try:
        year, month, day, hour, minute, second = map(int, found.groups()[:6])
        at = datetime(year, month, day, hour, minute, second)
        return Answer(line, at, sum(float(number) * _UNITS[unit] for number, unit in re.findall(_DURATION, found[7])))
    except ValueError:
        return None
