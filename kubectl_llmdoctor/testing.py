"""Helpers for the authors of checks: load a case, diagnose it, compare with what it expects."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubectl_llmdoctor.check import Check
from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.packs import installed
from kubectl_llmdoctor.report.document import Finding, Report
from kubectl_llmdoctor.snapshot import Snapshot


@dataclass(frozen=True, kw_only=True)
class Case:
    """A recorded situation: a snapshot file with the top-level keys `expect` (id: role) and `says` (texts).

    It lies in a folder named after the id that it is about. A `fires_` case must find that id (as a cause unless
    `expect` says otherwise, and then first among the causes); a `quiet_` case, the near miss, must not find it (or only
    in the role that `expect` names). What it `says` stands in the summary of the finding of that id or of one of its fixes.
    """

    path: Path
    id: str
    fires: bool
    expect: dict[str, str]
    says: tuple[str, ...]
    snapshot: Snapshot


def load_case(path: Path) -> Case:
    """Read one case file."""
    import yaml

    from kubectl_llmdoctor.gather.files import load

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    tree: Any = yaml.load(path.read_bytes(), loader)  # noqa: S506 - a safe loader in either case
    expect = tree.get("expect") or {}
    return Case(
        path=path,
        id=path.parent.name,
        fires=path.name.startswith("fires_"),
        expect={str(k): str(v) for k, v in expect.items()},
        says=(says,) if isinstance(says := tree.get("says", ()), str) else tuple(says),
        snapshot=load(str(path)),
    )


def find_cases(root: Path) -> list[Path]:
    """All case files below a folder, sorted."""
    return sorted(p for p in root.glob("*/*.yaml") if p.name.startswith(("fires_", "quiet_")))


def complaints(case: Case, report: Report) -> list[str]:
    """What is wrong with the report on a case; empty when all is as expected."""
    findings = [f for target in report.targets for f in target.findings]
    roles = {f.id: f.role for f in findings}
    said: list[str] = []
    broken = [n for t in report.targets for n in t.not_checked if n.broken]
    said += [f"{n.id}: {n.reason}" for n in broken]
    for id, role in case.expect.items():
        if roles.get(id) != role:
            said.append(f"{id} should be a {role}, is {roles.get(id, 'not found')}")
    if case.fires:
        said += _fires(case, findings, roles)
    elif case.id in roles and case.id not in case.expect:
        said.append(f"{case.id} should not be found, is a {roles[case.id]}")
    mine = [f for f in findings if f.id == case.id]
    text = "\n".join(summary for f in mine for summary in (f.summary, *(fix.summary for fix in f.fixes)))
    said += [f"{case.id} should say {words!r}" for words in case.says if words not in text]
    return said


def _fires(case: Case, findings: list[Finding], roles: dict[str, Any]) -> list[str]:
    role = case.expect.get(case.id, "cause")
    if roles.get(case.id) != role:
        return [f"{case.id} should be a {role}, is {roles.get(case.id, 'not found')}"]
    said = []
    first = next((f.id for f in findings if f.role == "cause"), None)
    if role == "cause" and first != case.id:
        said.append(f"{case.id} should be the first cause, but that is {first}")
    if any(not f.evidence for f in findings if f.id == case.id):
        said.append(f"{case.id} has no evidence")
    return said


def diagnose_case(case: Case, checks: Iterable[Check] | None = None) -> Report:
    """The report on a case, by all installed checks unless some are given."""
    return diagnose(case.snapshot, installed() if checks is None else checks)
