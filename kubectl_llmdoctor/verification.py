"""What the checks say of an object after a patch: judged as a file would hold it, without what a cluster has seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from kubectl_llmdoctor.check import Check
from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.report.document import Finding, Fix, Patch, Report, Verification
from kubectl_llmdoctor.snapshot import Json, Snapshot

#: What a controller or the kubelet makes; a file does not hold it.
_MADE = ("Pod", "Event", "ReplicaSet", "Node", "ControllerRevision")

#: Tries a patch: the object as it would be, or None and why not. Given target, namespace, type and body.
Trial = Callable[[str, str, str, Any], tuple[Json | None, str]]


def verified(report: Report, snapshot: Snapshot, checks: Iterable[Check], trial: Trial) -> Report:
    """The report with the outcome of a dry run at every fix that is a patch."""
    known = tuple(checks)
    targets = []
    for target in report.targets:

        def fixed(finding: Finding, namespace: str = target.namespace) -> Finding:
            done = tuple(_tried(fix, finding.id, namespace, snapshot, known, trial) for fix in finding.fixes)
            return msgspec.structs.replace(finding, fixes=done)

        targets.append(msgspec.structs.replace(target, findings=tuple(map(fixed, target.findings))))
    return msgspec.structs.replace(report, targets=tuple(targets))


def _tried(fix: Fix, id: str, namespace: str, snapshot: Snapshot, checks: tuple[Check, ...], trial: Trial) -> Fix:
    if fix.patch is None:
        return fix
    namespace = fix.patch.namespace or namespace
    found, why = trial(fix.patch.target, namespace, fix.patch.type, fix.patch.body)
    if found is None:
        return msgspec.structs.replace(fix, verified=Verification(accepted=False, said=why))
    gone = _gone(id, fix.patch, namespace, snapshot, checks, found)
    return msgspec.structs.replace(fix, verified=Verification(accepted=True, gone=gone))


def _gone(
    id: str, patch: Patch, namespace: str, snapshot: Snapshot, checks: tuple[Check, ...], found: Json
) -> bool | None:
    objects = tuple(o for o in snapshot.objects if o.get("kind") not in _MADE)
    if id not in _ids(objects, checks):
        return None
    after = tuple(found if _is(o, patch.target, namespace) else o for o in objects)
    return id not in _ids(after, checks)


def _is(obj: Json, target: str, namespace: str) -> bool:
    meta = obj.get("metadata") or {}
    same = f"{obj.get('apiVersion')} {obj.get('kind')}/{meta.get('name')}" == target
    return same and meta.get("namespace", "") in (namespace, "")


def _ids(objects: tuple[Json, ...], checks: tuple[Check, ...]) -> set[str]:
    """What is said of objects as a file would hold them."""
    report = diagnose(Snapshot(objects=objects), checks)
    return {finding.id for target in report.targets for finding in target.findings}
