"""Snapshot documents: read leniently, written as JSON or YAML."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import msgspec

from kubectl_llmdoctor.gather.offline.documents import Document
from kubectl_llmdoctor.gather.offline.found import Found
from kubectl_llmdoctor.gather.offline.objects import NO_OBJECT, clean, is_object, items, tidy
from kubectl_llmdoctor.gather.offline.reading import UnreadableError
from kubectl_llmdoctor.gather.related import meta
from kubectl_llmdoctor.gather.times import is_time
from kubectl_llmdoctor.snapshot import (
    SCHEMA,
    Json,
    LogText,
    MetricsText,
    Missing,
    NodeData,
    Origin,
    PortAnswer,
    ReadList,
    Snapshot,
    TargetRef,
    to_json,
)

if TYPE_CHECKING:
    from pathlib import Path

_T = TypeVar("_T")


def is_snapshot(value: Any) -> TypeGuard[Json]:
    """Whether a document claims to be one, of whatever schema."""
    if not isinstance(value, dict) or "schema" not in value:
        return False
    schema = value["schema"]
    named = isinstance(schema, str) and schema.startswith("llmdoctor.")
    return named or ("kind" not in value and ("objects" in value or "logs" in value))


def take(found: Found, name: str, value: Json) -> None:
    """Keeps a snapshot document, or says why not."""
    schema = value.get("schema")
    if schema != SCHEMA:
        told = schema if isinstance(schema, str) else repr(schema)
        if told.startswith("llmdoctor.report/"):
            found.miss(name, f"this is a report; a diagnosis starts from a snapshot ({SCHEMA})")
        else:
            found.miss(name, f"schema {told[:80]} is not supported, only {SCHEMA}")
    elif not found.snapshots:
        found.miss(name, "a snapshot, not a manifest: kubectl llmdoctor diagnose --from")
    elif found.saved:
        found.miss(name, "another snapshot, open it by itself")
    else:
        found.saved = _Parts(value).snapshot()


class _Parts:
    """A snapshot document, part by part: what has the wrong shape goes to `missing`, the rest is kept."""

    def __init__(self, value: Json) -> None:
        self._value = value
        self._missing: list[Missing] = []

    def snapshot(self) -> Snapshot:
        """The snapshot as far as it can be read."""
        kept = list(self._objects())
        parts: Json = {
            "taken_at": self._taken_at(),
            "target": self._one("target", self._value.get("target"), TargetRef),
            "targets": self._each("targets", TargetRef),
            "objects": tuple(tree for tree, _ in kept),
            "read": self._each("read", ReadList),
            "logs": self._each("logs", LogText),
            "nodes": dict(self._nodes()),
            "metrics": self._each("metrics", MetricsText),
            "prometheus": self._each("prometheus", Json),
            "answers": self._each("answers", PortAnswer),
            "origins": tuple(origin for _, origin in kept) if any(origin for _, origin in kept) else (),
        }
        return Snapshot(**parts, missing=(*self._each("missing", Missing), *self._missing))

    def _miss(self, ref: str, reason: str) -> None:
        self._missing.append(Missing(source="snapshot", ref=ref, reason=reason))

    def _convert(self, values: Iterable[tuple[str, Any]], wanted: type[_T]) -> Iterator[_T]:
        for ref, value in values:
            if value is None:
                continue
            try:
                yield msgspec.convert(clean(value), wanted)
            except (msgspec.ValidationError, UnreadableError) as e:
                self._miss(ref, f"malformed: {e}")

    def _one(self, ref: str, value: Any, wanted: type[_T]) -> _T | None:
        return next(self._convert([(ref, value)], wanted), None)

    def _each(self, key: str, wanted: type[_T]) -> tuple[_T, ...]:
        return tuple(self._convert(((f"{key}[{i}]", value) for i, value in enumerate(self._list(key))), wanted))

    def _list(self, key: str) -> list[Any]:
        value = self._value.get(key)
        if value is None or isinstance(value, list):
            return value or []
        self._miss(key, f"malformed: expected a list, got {type(value).__name__}")
        return []

    def _taken_at(self) -> str | None:
        value = self._value.get("takenAt")
        if value is None or (isinstance(value, str) and is_time(value)):
            return value
        self._miss("takenAt", "malformed: not a time such as 2026-11-20T10:00:00Z")
        return None

    def _objects(self) -> Iterator[tuple[Json, Origin | None]]:
        values = self._list("objects")
        origins = self._value.get("origins")
        if not (isinstance(origins, list) and len(origins) == len(values)):
            origins = [None] * len(values)
        for i, (value, place) in enumerate(zip(values, origins, strict=True)):
            if not is_object(value):
                self._miss(f"objects[{i}]", NO_OBJECT)
                continue
            origin = self._one(f"origins[{i}]", place, Origin)
            for item in items(Document(value=value, line=0, text=""), lines=False):
                try:
                    # all that a cluster gave have a name
                    if is_object(item.value) and any(map(meta(item.value).get, ("name", "generateName"))):
                        yield tidy(item.value), origin
                    else:
                        self._miss(f"objects[{i}]", NO_OBJECT)
                except UnreadableError as e:
                    self._miss(f"objects[{i}]", f"malformed: {e}")

    def _nodes(self) -> Iterator[tuple[str, NodeData]]:
        nodes = self._value.get("nodes")
        if nodes is not None and not isinstance(nodes, dict):
            self._miss("nodes", f"malformed: expected a mapping, got {type(nodes).__name__}")
            return
        for key, node in (nodes or {}).items():
            name = clean(key)
            if not isinstance(node, dict):
                self._miss(f"nodes/{name}", "malformed: expected a mapping")
                continue
            agent = self._one(f"nodes/{name}/agent", node.get("agent"), Json)
            kernel_log = self._one(f"nodes/{name}/kernelLog", node.get("kernelLog"), str)
            yield name, NodeData(agent=agent, kernel_log=kernel_log or "")


def encoded(snapshot: Snapshot, name: str) -> bytes:
    """The bytes for a file of that name: JSON, YAML where the name says so, gzipped where it ends in `.gz`."""
    plain = name.removesuffix(".gz")
    data = _yaml(snapshot) if plain.endswith((".yaml", ".yml")) else to_json(snapshot)
    if plain == name:
        return data
    import gzip

    return gzip.compress(data, mtime=0)


def _yaml(snapshot: Snapshot) -> bytes:
    import yaml

    class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
        def ignore_aliases(self, _data: Any) -> bool:
            return True

    def text(dumper: Any, value: str) -> Any:
        style = "|" if "\n" in value else None
        if any(mark in value for mark in "\x85\u2028\u2029"):  # PyYAML would write these line breaks as its own
            style = '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    tree = {"schema": SCHEMA, **msgspec.to_builtins(snapshot)}
    data: bytes = yaml.dump(tree, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1 << 20, encoding="utf-8")
    return data


def write(place: Path, data: bytes) -> None:
    """Writes for the owner's eyes only; a file that is replaced stays whole until the new one is complete."""
    place = place.resolve()
    if place.exists() and not place.is_file():  # a pipe or a device can't be replaced
        place.write_bytes(data)
        return
    fresh = place.with_name(f".{place.name[:200]}.{os.getpid()}.tmp")
    fresh.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
        fresh.replace(place)
    finally:
        fresh.unlink(missing_ok=True)
