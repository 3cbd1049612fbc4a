"""Values as the parsers of engines take them from text, and what they refuse."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from kubectl_llmdoctor.expressions import expression

#: Longer texts are not looked at.
MAX_FILE = 200_000


_HUMAN = expression(r"(\d+(?:\.\d+)?)([kKmMgGtT])", re.ASCII)


class BadValueError(ValueError):
    """A value that the engine's parser refuses; the message says why."""


def human(text: str) -> int:
    """`32k` is 32000, `32K` is 32768 (vllm/utils/argparse_utils.py human_readable_int)."""
    match = _HUMAN.fullmatch(text.strip())
    if match is None:
        return integer(text)
    number, suffix = match.groups()
    power = "kmgt".index(suffix.lower()) + 1
    if suffix.islower():
        return int(float(number) * 1000**power) if len(number) < 20 else integer(text)
    if "." in number:
        raise BadValueError(f"decimals are not allowed with the binary suffix {suffix}")
    return integer(number) * int(1024**power)


def integer(text: str) -> int:
    """A whole number as Python's int() takes it."""
    if len(text) > 40:
        raise BadValueError("not a whole number")
    try:
        return int(text)
    except ValueError:
        raise BadValueError("not a whole number") from None


def number(text: str) -> float:
    """A number; an endless one is refused, as JSON has none."""
    try:
        value = float(text)
    except ValueError:
        raise BadValueError("not a number") from None
    if value != value or value in (float("inf"), float("-inf")):
        raise BadValueError("not a finite number")
    return value


def boolean(text: str) -> bool:
    """`true`, `1`, `yes`, `on` and their opposites."""
    lower = text.strip().lower()
    if lower in ("true", "1", "yes", "on", "t", "y"):
        return True
    if lower in ("false", "0", "no", "off", "f", "n", ""):
        return False
    raise BadValueError("neither true nor false")


def as_json(value: Any) -> str:
    """A value as the text of an option."""
    import json  # 1 ms, and few options are JSON

    return json.dumps(value, ensure_ascii=False)


def parse_json(text: str) -> Any:
    """A JSON value, with bare sizes such as `80g` as newer vLLM takes them."""
    import json

    if len(text) > MAX_FILE:
        raise BadValueError("too long")
    for attempt in (text, _expand_sizes(text)):
        try:
            value = json.loads(attempt, parse_constant=_no_constant)
            json.dumps(value, allow_nan=False)  # 1e999 is infinite, too
            return value
        except (ValueError, RecursionError):
            continue
    raise BadValueError("not valid JSON")


def _no_constant(text: str) -> Any:
    raise BadValueError(f"{text} is not JSON")


def _expand_sizes(text: str) -> str:
    import re

    parts = re.split(r'("(?:[^"\\]|\\.)*")', text)
    for index in range(0, len(parts), 2):
        parts[index] = re.sub(r"\b\d{1,15}(?:\.\d{1,15})?[kKmMgGtT]\b", _one_size, parts[index])
    return "".join(parts)


def _one_size(match: Any) -> str:
    try:
        return str(human(match[0]))
    except BadValueError:
        return str(match[0])


def leading_integer(text: str) -> int:
    """The digits that a C++ program takes: `32k` is 32."""
    digits = text.strip()
    sign = digits[:1] if digits[:1] in ("-", "+") else ""
    rest = digits[len(sign) :]
    end = next((index for index, char in enumerate(rest) if char not in "0123456789"), len(rest))
    if not end:
        raise BadValueError("not a whole number")
    return integer(sign + rest[:end])


#: How values of the simple kinds are read.
_KINDS: dict[str, Callable[[str], Any]] = {
    "int": integer,
    "stoi": leading_integer,
    "human": human,
    "float": number,
    "bool": boolean,
    "json": parse_json,
    "set": bool,
    "not": lambda text: not boolean(text),
    "one": lambda text: (text,),
    "csv": lambda text: tuple(item.strip() for item in text.split(",") if item.strip()),
}


def convert(kind: str, text: str) -> Any:
    """A value of one of the simple kinds; raises BadValueError."""
    return _KINDS.get(kind, str)(text)
