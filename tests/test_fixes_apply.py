"""What is wrong in a manifest is no longer said after its patches."""

from __future__ import annotations

from pathlib import Path

from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.gather.files import load
from kubectl_llmdoctor.packs import installed
from kubectl_llmdoctor.report.document import Finding, Patch
from kubectl_llmdoctor.snapshot import Snapshot
from tests.patching import patched

CASES = sorted((Path(__file__).parents[1] / "checks" / "cases").glob("*/fires_*.yaml"))
#: What a cluster has made or seen, which a file does not hold.
_LIVE = ("Pod", "Event", "ReplicaSet", "Node")
_CHECKS = {check.id: check for check in installed()}
#: Patches, one after the other, that a case may take.
_ROUNDS = 4


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
            state = patched(state, patch) if state and (patch := _patch_of(said)) else None
            said = _said(state, id) if state else []
            if not said:
                break
        mended += [id] if state else []
        still |= {f"{id}/{path.stem}": [finding.summary for finding in said]} if said else {}

    assert still == {}
    assert len(set(mended)) >= 12


def _said(snapshot: Snapshot | None, id: str) -> list[Finding]:
    """What the check alone says: the hundred and seventy others would cost ten times as much."""
    targets = diagnose(snapshot, (_CHECKS[id],)).targets if snapshot else ()
    return [finding for target in targets for finding in target.findings if finding.fixes]


def _patch_of(findings: list[Finding]) -> Patch | None:
    return next((fix.patch for finding in findings for fix in finding.fixes if fix.patch), None)
