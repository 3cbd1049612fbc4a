"""Texts that the fix of a signature may name, each by the name that it has in its class."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial


class template_value(cached_property[str]):  # noqa: N801 # a decorator
    """A text that fixes may name; found out when one does, and empty where nothing says it."""


def values_of(part: object) -> dict[str, Callable[[], str]]:
    """Such texts of an object, by their names."""
    return {
        name: partial(getattr, part, name) for name, one in vars(type(part)).items() if isinstance(one, template_value)
    }
