"""Times in text."""

from __future__ import annotations

import re

_KUBELET = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.(\d{1,9}))?(?:Z|[+-]\d\d:\d\d)(?: |\r?$)"


def is_time(text: str) -> bool:
    """Whether it is a date and time, as RFC 3339 has it."""
    if len(text) < 19 or text[4:11:3] not in ("--T", "--t", "-- "):
        return False
    from datetime import datetime

    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def has_kubelet_times(log: str) -> bool:
    """Whether the lines start with the kubelet's times.

    Those have nanoseconds; engines that begin their lines with an RFC 3339 time of their own write fewer digits.
    """
    lines = [line for line in log[:65536].split("\n")[:60] if line.strip()]
    times = [match for match in (re.match(_KUBELET, line) for line in lines) if match]
    fine = sum(len(match[1] or "") > 6 for match in times)
    return bool(lines) and len(times) * 5 >= len(lines) * 4 and fine * 2 >= len(times)
