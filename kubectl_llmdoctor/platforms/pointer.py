"""JSON pointers and patches (RFC 6901, 6902): walking, showing, applying, and fitting a patch to the object it is for."""

from __future__ import annotations

import re
from typing import Any

Json = dict[str, Any]


def split(pointer: str) -> list[str]:
    """The keys of a pointer: `/a/b~1c` -> [`a`, `b/c`]."""
    return [key.replace("~1", "/").replace("~0", "~") for key in pointer.split("/")[1:]]


def escaped(key: str) -> str:
    """A key as a step of a pointer: `b/c` -> `b~1c`."""
    return key.replace("~", "~0").replace("/", "~1")


def join(keys: list[str]) -> str:
    """The pointer of these keys."""
    return "".join("/" + escaped(key) for key in keys)


def pointer_to(path: str) -> str:
    """The pointer of a place as evidence names it: `spec.rules[0].timeouts` -> `/spec/rules/0/timeouts`."""
    return join([name or inner for name, inner in re.findall(r"([^.\[\]]+)|\[([^\[\]]+)\]", path)])


def step(tree: Any, key: str) -> Any:
    """The member of a mapping or list. Raises LookupError."""
    if isinstance(tree, list):
        if not key.isdecimal() or int(key) >= len(tree):
            raise LookupError(key)
        return tree[int(key)]
    if isinstance(tree, dict):
        return tree[key]
    raise LookupError(key)


def show(tree: Any, pointer: str) -> str:
    """A pointer as a person reads it: `spec.containers[vllm].args[3]`; elements of lists by their name, if any."""
    text = ""
    for key in split(pointer):
        if isinstance(tree, list) or (tree is None and (key.isdecimal() or key == "-")):
            element = tree[int(key)] if tree and key.isdecimal() and int(key) < len(tree) else None
            name = element.get("name") or element.get("groupName") if isinstance(element, dict) else None
            text += f"[{name or key}]"
            tree = element
        else:
            plain = "." not in key and "/" not in key
            text += f".{key}" if plain and text else key if plain else f"[{key}]"
            tree = tree.get(key) if isinstance(tree, dict) else None
    return text


def changed(tree: Any, operation: Json) -> Any:
    """The tree after one operation: add, replace or remove. Raises LookupError where it does not fit.

    Only what the path runs through is copied, the rest is shared with the tree before.
    """
    *path, last = split(operation["path"])
    root = parent = _copied(tree)
    for key in path:
        child = _copied(step(parent, key))
        parent[int(key) if isinstance(parent, list) else key] = child
        parent = child
    kind, value = operation["op"], operation.get("value")
    if kind != "add":
        step(parent, last)
    if isinstance(parent, list):
        if kind == "add" and (last == "-" or (last.isdecimal() and int(last) <= len(parent))):
            parent.insert(len(parent) if last == "-" else int(last), value)
        elif kind == "remove":
            del parent[int(last)]
        elif kind == "replace":
            parent[int(last)] = value
        else:
            raise LookupError(last)
    elif not isinstance(parent, dict):
        raise LookupError(last)
    elif kind == "remove":
        del parent[last]
    else:
        parent[last] = value
    return root


def _copied(node: Any) -> Any:
    return node.copy() if isinstance(node, (dict, list)) else node


def fitted(tree: Any, operations: list[Json]) -> list[Json] | None:
    """The operations so that they apply to this object; None where they cannot.

    What a path runs through and is not there is made: the operation then adds the nearest part that is missing. A
    number that is written as a string becomes one where a number stands. A scalar never takes the place of a mapping or
    a list: where they meet, the object says the same in another form (the `image` of a NIMService).
    """
    found: list[Json] = []
    for operation in operations:
        fit = _fit(tree, operation)
        if fit is None:
            return None
        try:
            tree = changed(tree, fit)
        except LookupError:
            return None
        word = fit["op"] == "add" and fit["path"].endswith("/-") and isinstance(fit["value"], str)
        if word or fit not in found:  # a command line may have a word twice
            found.append(fit)
    return found


def _fit(tree: Any, operation: Json) -> Json | None:
    keys, here = split(operation["path"]), tree
    for position, key in enumerate(keys):
        last = position == len(keys) - 1
        if isinstance(here, list):
            if last and operation["op"] == "add" and (key == "-" or key == str(len(here))):
                return operation
        elif isinstance(here, dict):
            # the API server drops what is empty
            if key not in here or (not last and here[key] in ({}, [])):
                return _made(operation, keys, position)
        else:
            return None
        try:
            here = step(here, key)
        except LookupError:
            return None
    value = operation.get("value")
    if operation["op"] != "remove" and isinstance(here, dict | list) != isinstance(value, dict | list):
        return None
    if isinstance(here, int) and not isinstance(here, bool) and isinstance(value, str) and value.isdecimal():
        return {**operation, "value": int(value)}
    return operation


def _made(operation: Json, keys: list[str], position: int) -> Json | None:
    """Adds the part of the path that is missing from `position` on, with the value inside."""
    if operation["op"] != "add":
        return None
    value = operation.get("value")
    for key in reversed(keys[position + 1 :]):
        if key.isdecimal() and key != "0":
            return None
        value = [value] if key in ("-", "0") else {key: value}
    return {"op": "add", "path": join(keys[: position + 1]), "value": value}
