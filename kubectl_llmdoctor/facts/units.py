"""Kubernetes quantities and times, and how they are said to a person."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

GIB = 1024**3
MIB = 1024**2

_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_SPANS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_SPAN = r"(\d{1,9}(?:\.\d{0,9})?)(h|ms|m|s|us|µs|ns)"


def _ratio(value: Any) -> tuple[int, int] | None:
    """A quantity as an exact fraction (numerator, denominator); None when it is not a quantity.

    Grammar: k8s.io/apimachinery `resource.Quantity`: decimal number, then a binary or decimal suffix or an exponent.
    """
    if value.__class__ not in (str, int, float):
        return None
    return _ratio_of(value if value.__class__ is str else str(value))


@lru_cache(maxsize=1024)
def _ratio_of(text: str) -> tuple[int, int] | None:
    text = text.strip()
    if not text or len(text) > 64 or not text.isascii():
        return None
    factor, exponent = 1, 0
    if text[-2:] in _BINARY:
        factor, text = _BINARY[text[-2:]], text[:-2]
    elif text[-1] in _DECIMAL:
        exponent, text = _DECIMAL[text[-1]], text[:-1]
    elif "e" in text or "E" in text:
        text, _, power = text.replace("E", "e").partition("e")
        if not power.lstrip("+-").isdigit() or abs(int(power)) > 30:
            return None
        exponent = int(power)
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    whole, _, fraction = digits.partition(".")
    if not (whole + fraction).isdigit():
        return None
    exponent -= len(fraction)
    numerator = sign * int(whole + fraction) * factor
    return (numerator * 10**exponent, 1) if exponent >= 0 else (numerator, 10**-exponent)


def units(value: Any) -> int | None:
    """A quantity in whole units (bytes, GPUs), rounded up as the API server does; None when it is not a quantity."""
    ratio = _ratio(value)
    return None if ratio is None else -(-ratio[0] // ratio[1])


def milli(value: Any) -> int | None:
    """A quantity in thousandths (millicores), rounded up; None when it is not a quantity."""
    ratio = _ratio(value)
    return None if ratio is None else -(-ratio[0] * 1000 // ratio[1])


def parse_time(text: Any) -> datetime | None:
    """An RFC 3339 time as an aware UTC datetime; None when it is none.

    Nothing in a cluster is of 1970: a container runtime says so of what never started, as its zero.
    """
    if not isinstance(text, str) or len(text) < 19 or text.startswith("1970-01-01"):
        return None
    head, dot, tail = text.strip().partition(".")
    if dot:  # nanoseconds: datetime knows microseconds only
        digits = len(tail) - len(tail.lstrip("0123456789"))
        head += "." + tail[: min(digits, 6)].ljust(6, "0") + tail[digits:]
    try:
        moment = datetime.fromisoformat(head)
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def duration(text: Any) -> float | None:
    """A length of time as Go writes it (`1h30m`, `600s`, `-1s`), in seconds; None when it is none (`time.ParseDuration`)."""
    said = re.fullmatch(rf"[+-]?(?:{_SPAN})+", text.strip()) if isinstance(text, str) else None
    if said is None:
        return None
    seconds = sum(float(number) * _SPANS[unit] for number, unit in re.findall(_SPAN, said[0]))
    return -seconds if said[0].startswith("-") else seconds


def rfc3339(moment: datetime) -> str:
    """A time as Kubernetes writes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def say_bytes(count: float) -> str:
    """Bytes in the binary unit that fits: `64 MiB`, `1.5 GiB`."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size) < 1024 or unit == "TiB":
            return f"{size:.0f} {unit}" if size == int(size) or abs(size) >= 100 else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError


def say_cores(millicores: int) -> str:
    """Millicores as cores: `4`, `0.5`."""
    return f"{millicores / 1000:g}"


def say_seconds(seconds: float) -> str:
    """A length of time in its two largest units: `45 s`, `21 min`, `3 h 5 min`, `2 d 4 h`."""
    left = int(abs(seconds))
    if left < 120:
        return f"{left} s"
    if left < 7200:
        return f"{left // 60} min" + (f" {left % 60} s" if left < 600 and left % 60 else "")
    if left < 172800:
        return f"{left // 3600} h" + (f" {left % 3600 // 60} min" if left % 3600 // 60 else "")
    return f"{left // 86400} d" + (f" {left % 86400 // 3600} h" if left % 86400 // 3600 else "")


def often(number: int) -> str:
    """`once`, `3 times`."""
    return "once" if number == 1 else f"{number} times"


def count_of(number: int, singular: str) -> str:
    """`1 pod`, `3 pods`."""
    return f"{number} {singular}" + "s" * (number != 1)


def few(names: Sequence[str], most: int) -> str:
    """The first of some names, and how many more there are: `a, b and 4 more`."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
