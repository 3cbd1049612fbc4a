"""Times that programs print in front of their lines, moved as those of the objects around them."""

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


def moved(text: str, year: int, shift: datetime.timedelta) -> str:
    """A log as it would be had everything happened later by `shift`; a time without a year is of that one."""
    for expression, form in _FORMATS.items():
        text = re.sub(expression, partial(_later, form, year, shift), text)
    return text


def _later(form: str, year: int, shift: datetime.timedelta, found: re.Match[str]) -> str:
    whole = (found[0], form) if "%Y" in form else (f"{found[0]} {year}", f"{form} %Y")
    try:
        moment = datetime.datetime.strptime(*whole)
    except ValueError:  # digits that are no time
        return found[0]
    return (moment + shift).strftime(form)
