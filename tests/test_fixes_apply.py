"""Patches apply: each patch of each case fits its object, and what is wrong in a manifest is no longer said after it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.gather.files import load
from kubectl_llmdoctor.packs import installed
from kubectl_llmdoctor.platforms import pointer
from kubectl_llmdoctor.report.document import Finding, Patch
from kubectl_llmdoctor.snapshot import Snapshot

CASES = sorted((Path(__file__).parents[1] / "checks" / "cases").glob("*/fires_*.yaml"))
#: What a cluster has made or seen, which a file does not hold.
_LIVE = ("Pod", "Event", "ReplicaSet", "Node")
#: Patches, one after the other, that a case may take.
_ROUNDS = 4


def _patched(snapshot: Snapshot, patch: Patch) -> Snapshot | None:
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


@pytest.mark.parametrize("path", CASES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_patch_applies_to_its_object(path: Path) -> None:
    snapshot = load(str(path))
    report = diagnose(snapshot, installed())
    for finding in (f for target in report.targets for f in target.findings):
        for fix in finding.fixes:
            if fix.patch:
                _patched(snapshot, fix.patch)


def test_a_patched_manifest_is_not_complained_of_again() -> None:
    """The objects of each case as a file would hold them: what the check says of them its first patch ends.

    Where several things are wrong, each has its patch.
    """
    mended: list[str] = []
    still: dict[str, list[str]] = {}
    for path in CASES:
        id = path.parent.name
        state: Snapshot | None = Snapshot(
            objects=tuple(o for o in load(str(path)).objects if o.get("kind") not in _LIVE)
        )
        said = _said(state, id)
        if not _patch_of(said):
            continue
        for _ in range(_ROUNDS):
            state = _patched(state, patch) if state and (patch := _patch_of(said)) else None
            said = _said(state, id) if state else []
            if not said:
                break
        mended += [id] if state else []
        still |= {f"{id}/{path.stem}": [finding.summary for finding in said]} if said else {}

    assert still == {}
    assert len(set(mended)) >= 12


def _said(snapshot: Snapshot | None, id: str) -> list[Finding]:
    targets = diagnose(snapshot, installed()).targets if snapshot else ()
    return [finding for target in targets for finding in target.findings if finding.id == id and finding.fixes]


def _patch_of(findings: list[Finding]) -> Patch | None:
    return next((fix.patch for finding in findings for fix in finding.fixes if fix.patch), None)
