"""Documents -> Kubernetes objects: lists flattened, nulls and ballast gone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import isfinite
from typing import Any, NamedTuple, TypeGuard, cast

from kubectl_llmdoctor.gather.offline.documents import Document, json_item_lines
from kubectl_llmdoctor.gather.offline.reading import UnreadableError
from kubectl_llmdoctor.snapshot import Json

#: An object nested deeper than this is none: the deepest published ones (CRD schemas) stay below 60.
MAX_DEPTH = 200
#: Where a JSON file is larger, an item's origin is the line of its list.
MAX_JSON_LINES = 4 << 20

NO_OBJECT = "not a Kubernetes object"

_SURROGATE = "[\ud800-\udfff]"


def clean(value: Any, depth: int = MAX_DEPTH) -> Any:
    """A JSON tree without nulls, which Kubernetes reads as absent, holding only what every format can write."""
    cls = value.__class__
    if cls is str:
        return value if value.isascii() else re.sub(_SURROGATE, "\ufffd", value)
    if cls is dict or cls is list:
        if depth == 0:
            raise UnreadableError("nested too deeply")
        depth -= 1
        if cls is list:
            return [clean(item, depth) for item in value if item is not None]
        return {clean(key): clean(item, depth) for key, item in value.items() if item is not None}
    if cls is int and not -(1 << 63) <= value < 1 << 64:
        return f"{value:e}" if value.bit_length() < 1000 else "overflow"
    if cls is float and not isfinite(value):
        return str(value)
    return value


def is_object(value: Any) -> TypeGuard[Json]:
    """Whether it has a kind."""
    return isinstance(value, dict) and isinstance(value.get("kind"), str) and bool(value["kind"])


def tidy(value: Json) -> Json:
    """An object as a snapshot keeps it; `managedFields` are most of an object's bytes and say nothing here."""
    tree = cast(Json, clean(value))
    metadata = tree.get("metadata")
    if isinstance(metadata, dict):
        metadata.pop("managedFields", None)
    return tree


class Item(NamedTuple):
    """One object of a document, not yet looked at, and its line."""

    value: Any
    line: int


def list_key(value: Any) -> str | None:
    """Where a list keeps its objects; None for what is no list. An OpenShift Template is one in all but name."""
    if not is_object(value):
        return None
    kind, group = value["kind"], str(value.get("apiVersion")).partition("/")[0]
    if kind.endswith("List") and "items" in value and isinstance(value["items"], list | None):
        return "items"
    if kind == "Template" and group == "template.openshift.io" and isinstance(value.get("objects"), list):
        return "objects"
    return None


def items(document: Document, *, lines: bool = True) -> Iterator[Item]:
    """The document's objects: itself, or what its list holds. Without `lines` those of items may be the list's."""
    value = document.value
    if isinstance(value, list):
        yield from _flatten(value, "", {}, document, lines)
    elif (key := list_key(value)) is None:
        yield Item(value, document.line)
    else:
        # items of a typed list (PodList) come without the type that the list has already named
        typed = key == "items" and value["kind"] != "List"
        head = {"apiVersion": value.get("apiVersion"), "kind": value["kind"][:-4]} if typed else {}
        yield from _flatten(value[key] or [], key, head, document, lines)


def _flatten(values: list[Any], key: str, head: Json, document: Document, lines: bool) -> Iterator[Item]:
    starts = document.item_lines.get(key, [])
    if lines and document.text[:1] in ("{", "[") and len(document.text) <= MAX_JSON_LINES:
        starts = starts or json_item_lines(document.text, document.line, key)
    if len(starts) != len(values):
        starts = [document.line] * len(values)
    for value, line in zip(values, starts, strict=True):
        whole = head | {k: v for k, v in value.items() if v is not None} if head and isinstance(value, dict) else value
        if list_key(whole) is None:
            yield Item(whole, line)
        else:  # lists in lists: generators make them
            yield from items(Document(value=whole, line=line, text=""), lines=False)
