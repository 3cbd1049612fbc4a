"""How long Ollama's requests took, by Gin's access log."""

import re
from datetime import datetime

import msgspec

from kubectl_llmdoctor.api import Line, duration

#: When a request was answered, and how long it took. Only requests that need a model. It has no zone: the server's own time.
_ANSWERED = (
    r"\[GIN\] (\d{4})/(\d\d)/(\d\d) - (\d\d):(\d\d):(\d\d)"
    r" \| +\d{3} \| +([\dhmµns.]+) \|.*POST +\"(?:/api/(?:chat|generate|embed)|/v1/)"
)


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
        return Answer(line, at, duration(found[7]) or 0.0)
    except ValueError:
        return None
