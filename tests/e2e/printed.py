"""Times that programs print in front of their lines, moved as those of the objects around them."""

import contextlib
import datetime
import re
from functools import partial

#: What stands for a moment in a line, and how `datetime` reads and writes it.
_FORMATS = {
    r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d": "%Y-%m-%dT%H:%M:%S",  # the kubelet, Rust, JSON
    r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d": "%Y-%m-%d %H:%M:%S",  # Python's logging
    r"\b\d{4}/\d\d/\d\d \d\d:\d\d:\d\d": "%Y/%m/%d %H:%M:%S",  # Go's log, nginx' errors
    r"\b\d{4}/\d\d/\d\d - \d\d:\d\d:\d\d": "%Y/%m/%d - %H:%M:%S",  # gin
    r"\b\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d": "%d/%b/%Y:%H:%M:%S",  # access logs
    r"(?<=[A-Z] )\d\d-\d\d \d\d:\d\d:\d\d": "%m-%d %H:%M:%S",  # vLLM
    r"(?<=\b[IWEF])\d{4} \d\d:\d\d:\d\d": "%m%d %H:%M:%S",  # klog, glog
}

#: Behind so many characters of a line a time is of what it tells.
_HEAD = 60


def moved(text: str, year: int, shift: datetime.timedelta) -> str:
    """A log as it would be had everything happened later by `shift`; a time without a year is of that one."""
    for expression, form in _FORMATS.items():
        text = re.sub(expression, partial(_later, form, year, shift), text)
    return text


def first(line: str, year: int) -> datetime.datetime | None:
    """The first time in the head of a line, taken as UTC; None where it has none."""
    for expression, form in _FORMATS.items():
        if found := re.search(expression, line[:_HEAD]):
            with contextlib.suppress(ValueError):
                return _read(found[0], form, year).replace(tzinfo=datetime.UTC)
    return None


def _read(text: str, form: str, year: int) -> datetime.datetime:
    return datetime.datetime.strptime(*((text, form) if "%Y" in form else (f"{text} {year}", f"{form} %Y")))


def _later(form: str, year: int, shift: datetime.timedelta, found: re.Match[str]) -> str:
    try:
        moment = _read(found[0], form, year)
    except ValueError:  # digits that are no time
        return found[0]
    return (moment + shift).strftime(form)
