"""Structural schemas of custom resources, as far as patches touch them: schemas.yaml as OpenAPI v3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import yaml

Json = dict[str, Any]

_LEAVES: dict[str, Json] = {
    "quantity": {"x-kubernetes-int-or-string": True},
    "any": {"x-kubernetes-preserve-unknown-fields": True},
} | {word: {"type": word} for word in ("string", "integer", "boolean", "number")}
_PYTHON: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
    "number": (int, float),
}


class Kind(msgspec.Struct, frozen=True):
    """One kind at one version: how the API serves it, and the schema of its objects."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    schema: Json


def load() -> dict[tuple[str, str], Kind]:
    """The kinds, by apiVersion and kind."""
    read = yaml.safe_load(Path(__file__).with_name("schemas.yaml").read_text())
    found = {}
    for name, row in read["kinds"].items():
        api_version, _, kind = name.partition(" ")
        group, _, version = api_version.partition("/")
        meta = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
        fields = {key: _schema(value, read["shared"]) for key, value in row["fields"].items()}
        found[api_version, kind] = Kind(
            group=group,
            version=version,
            kind=kind,
            plural=row["plural"],
            namespaced=row.get("scope") != "Cluster",
            schema={"type": "object", "properties": meta | fields | {"status": _LEAVES["any"]}},
        )
    return found


def _schema(short: Any, shared: Json) -> Json:
    if isinstance(short, str):
        return _LEAVES[short] if short in _LEAVES else _schema(shared[short], shared)
    if isinstance(short, list):
        return {"type": "array", "items": _schema(short[0], shared)}
    short = dict(short)
    if "like" in short:
        taken = {key: value for key, value in shared[short["like"]].items() if key not in short.get("without", ())}
        return _schema(taken | short.get("with", {}), shared)
    if "*" in short:
        return {"type": "object", "additionalProperties": _schema(short["*"], shared)}
    open_ended = short.pop("...", None) is not None
    schema: Json = {"type": "object", "properties": {key: _schema(value, shared) for key, value in short.items()}}
    return schema | (_LEAVES["any"] if open_ended else {})


def problems(schema: Json, value: Any, path: str = "") -> Iterator[str]:
    """What the API server would refuse in a value: fields that the schema has not, and other types."""
    if schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, bool) or not isinstance(value, int | str):
            yield f"{path}: {value!r} is no quantity"
        return
    wanted = schema.get("type")
    if wanted is None:
        return
    if type(value) not in _PYTHON[wanted]:
        yield f"{path}: {value!r} is no {wanted}"
    elif wanted == "array":
        for index, element in enumerate(value):
            yield from problems(schema["items"], element, f"{path}/{index}")
    elif wanted == "object" and "additionalProperties" in schema:
        for key, member in value.items():
            yield from problems(schema["additionalProperties"], member, f"{path}/{key}")
    elif wanted == "object" and "properties" in schema:
        for key, member in value.items():
            if key in schema["properties"]:
                yield from problems(schema["properties"][key], member, f"{path}/{key}")
            elif not schema.get("x-kubernetes-preserve-unknown-fields"):
                yield f"{path}/{key}: no such field"
