"""YAML documents that stand as a text in something else: a file that a script writes, the values of a release."""

from __future__ import annotations

from typing import Any

#: A text of more characters is not read.
_LONGEST = 200_000


def load_yaml(text: str) -> Any:
    """A YAML document as plain values, or None where it is none or too large.

    A part that is not known (of a file that a script writes) comes back between two private characters: `obscure`.
    """
    if len(text) > _LONGEST:
        return None
    if "\0" in text:
        pieces = text.split("\0")
        for at in range(1, len(pieces), 2):  # `${X}` has characters of YAML's own
            pieces[at] = _OPEN + "".join(char for char in pieces[at] if char.isalnum() or char == "_") + _CLOSE
        text = "".join(pieces)
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _bounded(yaml.load(text, loader), [20_000])  # noqa: S506 - a safe loader in either case
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, AttributeError, OverflowError):
        return None


_OPEN, _CLOSE = "\ue000", "\ue001"


def obscure(text: str) -> str:
    """A text out of a YAML file with its unknown parts as words have them."""
    return text.replace(_OPEN, "\0").replace(_CLOSE, "\0") if _OPEN in text else text


def _bounded(value: Any, budget: list[int]) -> Any:
    """A copy without shared parts; aliases that multiply run out of budget."""
    budget[0] -= 1
    if budget[0] < 0:
        raise ValueError("too many values")
    if isinstance(value, dict):
        return {str(key): _bounded(item, budget) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_bounded(item, budget) for item in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)
    return str(value)
