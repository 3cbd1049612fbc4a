"""Structural schemas of custom resources, as far as patches touch them: schemas.yaml as OpenAPI v3."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import yaml

from kubectl_llmdoctor.platforms import pointer
from kubectl_llmdoctor.report.document import Fix, Patch, Report

Json = dict[str, Any]
Found = tuple[Json, Patch]

#: What the API server serves itself; OpenShift's own API server serves the last.
BUILT_IN = (
    "v1",
    "apps/v1",
    "node.k8s.io/v1",
    "storage.k8s.io/v1",
    "batch/v1",
    "autoscaling/v1",
    "autoscaling/v2",
    "networking.k8s.io/v1",
    "apps.openshift.io/v1",
)

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
    schema: Json


@cache
def kinds() -> dict[tuple[str, str], Kind]:
    """The kinds, by apiVersion and kind; read once."""
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


def kind_of(raw: Json) -> Kind:
    """The schema of an object; KServe kept the fields of the group that it was called by before."""
    return kinds()[raw["apiVersion"].replace("serving.kubeflow.org/", "serving.kserve.io/"), raw["kind"]]


def patches(objects: Iterable[Any], report: Report) -> list[Found]:
    """The patches of a report for custom resources, each with its object."""
    every = [fix for target in report.targets for finding in target.findings for fix in finding.fixes]
    return [pair for fix in every for pair in with_object(objects, fix)]


def with_object(objects: Iterable[Any], fix: Fix) -> list[Found]:
    """The patch of a fix with the object that it changes; nothing where the API server knows the kind itself."""
    if fix.patch is None or fix.patch.target.split(" ")[0] in BUILT_IN:
        return []
    named = {f"{o['apiVersion']} {o['kind']}/{o['metadata']['name']}": o for o in objects}
    return [(named[fix.patch.target], fix.patch)]


def patched(raw: Json, patch: Patch) -> Json:
    """The object after its patch; JSON patches are the only ones that custom resources get."""
    assert patch.type == "json"
    after = raw
    for operation in patch.body:
        after = pointer.changed(after, operation)
    return after


def misfits(raw: Json, patch: Patch) -> list[str]:
    """What the API server would refuse in an object after its patch."""
    return list(problems(kind_of(raw).schema, patched(raw, patch)))


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
