"""Patches apply: each patch of each case fits its object, and what is wrong in a manifest is no longer said after it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.gather.files import load
from kubectl_llmdoctor.packs import installed
from kubectl_llmdoctor.platforms import pointer
from kubectl_llmdoctor.report.document import Fix, Patch, Target
from kubectl_llmdoctor.snapshot import Snapshot

CASES = sorted((Path(__file__).parents[1] / "checks" / "cases").glob("*/fires_*.yaml"))
#: What a cluster has made or seen, which a file does not hold.
_LIVE = ("Pod", "Event", "ReplicaSet", "Node")


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
    changed = copy.deepcopy(item)
    if patch.type == "json":
        for operation in patch.body:
            pointer.apply(changed, operation)
        return changed
    assert patch.type == "merge"
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


def _fixes(targets: tuple[Target, ...], id: str) -> Iterator[Fix]:
    for target in targets:
        for finding in target.findings:
            if finding.id == id:
                yield from finding.fixes


@pytest.mark.parametrize("path", CASES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_patch_applies_to_its_object(path: Path) -> None:
    snapshot = load(str(path))
    report = diagnose(snapshot, installed())
    for finding in (f for target in report.targets for f in target.findings):
        for fix in finding.fixes:
            if fix.patch:
                _patched(snapshot, fix.patch)


def test_a_patched_manifest_is_not_complained_of_again() -> None:
    """The objects of each case as a file would hold them: what the check says of them its first patch ends."""
    mended: list[str] = []
    still: dict[str, list[str]] = {}
    for path in CASES:
        id = path.parent.name
        manifest = Snapshot(objects=tuple(o for o in load(str(path)).objects if o.get("kind") not in _LIVE))
        patches = [fix.patch for fix in _fixes(diagnose(manifest, installed()).targets, id) if fix.patch]
        patched = _patched(manifest, patches[0]) if patches else None
        if patched is not None:
            mended.append(id)
            said = [fix.summary for fix in _fixes(diagnose(patched, installed()).targets, id)]
            still |= {f"{id}/{path.stem}": said} if said else {}

    assert still == {}
    assert len(set(mended)) >= 12
