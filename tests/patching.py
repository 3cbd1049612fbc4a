"""A snapshot after one of the patches that a report advises."""

from __future__ import annotations

import copy
from typing import Any

import msgspec

from kubectl_llmdoctor.platforms import pointer
from kubectl_llmdoctor.report.document import Patch
from kubectl_llmdoctor.snapshot import Snapshot


def patched(snapshot: Snapshot, patch: Patch) -> Snapshot | None:
    """The snapshot with one object changed; None where it does not hold the object."""
    api, _, ref = patch.target.partition(" ")
    kind, _, name = ref.partition("/")
    objects = []
    found = False
    for item in snapshot.objects:
        mine = (item.get("apiVersion"), item.get("kind"), item.get("metadata", {}).get("name")) == (api, kind, name)
        objects.append(_changed(item, patch) if mine else item)
        found = found or mine
    return msgspec.structs.replace(snapshot, objects=tuple(objects)) if found else None


def _changed(item: dict[str, Any], patch: Patch) -> dict[str, Any]:
    if patch.type == "json":
        for operation in patch.body:
            item = pointer.changed(item, operation)
        return item
    assert patch.type == "merge"
    changed = copy.deepcopy(item)
    _merge(changed, patch.body)
    return changed


def _merge(into: dict[str, Any], body: dict[str, Any]) -> None:
    """RFC 7386."""
    for key, value in body.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict):
            if not isinstance(into.get(key), dict):
                into[key] = {}
            _merge(into[key], value)
        else:
            into[key] = value
