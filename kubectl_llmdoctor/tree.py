"""Values of objects that are not decoded, read leniently: whoever wrote them, nothing of their shape is certain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any


def dig(tree: Any, path: str) -> Any:
    """The value at a dotted path of mappings; None where there is none."""
    for key in filter(None, path.split(".")):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def table(value: Any) -> dict[str, Any]:
    """A mapping, or an empty one."""
    return value if isinstance(value, dict) else {}


def rows(tree: Any, path: str = "") -> list[dict[str, Any]]:
    """The mappings of the list at a dotted path; empty where there is none."""
    found = dig(tree, path)
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def numbered(tree: Any, path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The same, each with its place in the list."""
    found = dig(tree, path)
    return ((at, row) for at, row in enumerate(found if isinstance(found, list) else ()) if isinstance(row, dict))


def words(tree: Any, path: str = "") -> list[str]:
    """The scalars of the list at a dotted path."""
    found = dig(tree, path)
    return [say(word) for word in found if not isinstance(word, dict | list)] if isinstance(found, list) else []


def say(value: Any) -> str:
    """A scalar as a string, as the API server would have it."""
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def say_pairs(values: Mapping[str, Any], between: str = "=") -> str:
    """The entries of a mapping in one line: `app=llama, tier=gpu`."""
    return ", ".join(f"{key}{between}{value}" for key, value in values.items())


def say_selector(labels: Mapping[str, Any]) -> str:
    """Labels as kubectl and the API take them for a selector: `app=llama,tier=gpu`."""
    return ",".join(f"{key}={value}" for key, value in labels.items())


def say_flow(value: Any, scalar: Callable[[Any], str] = str) -> str:
    """A value in YAML's flow style: `{app: llama}`."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {say_flow(inner, scalar)}" for key, inner in value.items()) + "}"
    return scalar(value)
