"""Texts with names in braces, and what these stand for: each is found out when a text first names it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from kubectl_llmdoctor.report.words import sentence

#: The container of a log alone.
UNNAMED = "the server"

#: A model that nobody named.
NO_MODEL = "OWNER/MODEL"

#: What a name stands for, or how to find it out.
Value = str | Callable[[], str]


class Values(Mapping[str, str]):
    """What templates may name, by name."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values: dict[str, Value] = dict(values)

    def __getitem__(self, name: str) -> str:
        value = self._values[name]
        if callable(value):
            value = self._values[name] = value()
        return value

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def add(self, more: Mapping[str, str]) -> None:
        """Further ones, of which those that it has stay as they are."""
        self._values = {**more, **self._values}


class _Counted(str):
    """A value that a template may count: of `{have:GPU}` it makes `1 GPU`, or `4 GPUs`."""

    __slots__ = ()

    def __format__(self, singular: str) -> str:
        return f"{self} {singular}{'s' * (self != '1')}" if singular else str(self)


class _Known:
    """Values of which those that are not known are `?`."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def __getitem__(self, name: str) -> _Counted:
        return _Counted(self._values.get(name, "?"))


def fill(template: str, values: Mapping[str, str]) -> str:
    """A template with its names filled in; what is not known is `?`, and a node without a name "the node"."""
    if "node {node}" in template and not values.get("node"):
        template = template.replace("node {node}", "the node")
    filled = template.format_map(_Known(values))
    unnamed = template.startswith("{container}") and values.get("container") == UNNAMED
    return sentence(filled) if unnamed else filled
