"""Every check owes a page, a firing case and a near miss, and survives rubbish."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from kubectl_llmdoctor.check import Check
from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.packs import installed, signature_of
from kubectl_llmdoctor.report.document import Report
from kubectl_llmdoctor.signatures.declared import Pattern, Signature
from kubectl_llmdoctor.signatures.wording import capture, matching
from kubectl_llmdoctor.snapshot import LogText, Snapshot

CASES = Path(__file__).parent.parent / "checks" / "cases"
CHECKS = installed()


def _ids(check: Check) -> str:
    return check.id


@pytest.mark.parametrize("check", CHECKS, ids=_ids)
def test_every_check_has_a_firing_case_and_a_near_miss(check: Check) -> None:
    names = [p.name for p in (CASES / check.id).glob("*.yaml")]

    assert any(n.startswith("fires_") for n in names), f"checks/cases/{check.id}/fires_….yaml is missing"
    assert any(n.startswith("quiet_") for n in names), f"checks/cases/{check.id}/quiet_….yaml is missing"


def test_every_folder_of_cases_belongs_to_a_check() -> None:
    assert {p.name for p in CASES.iterdir()} <= {c.id for c in CHECKS}


@pytest.mark.parametrize("check", CHECKS, ids=_ids)
def test_every_check_has_a_page_with_its_sections(check: Check) -> None:
    lines = check.doc.splitlines()

    assert lines[0].endswith(".")
    assert len(lines[0]) <= 100
    assert "## Fix" in lines
    assert "## References" in lines
    assert check.doc.index("## Fix") < check.doc.index("## References")
    assert not any(digit in check.title for digit in "0123456789") or "502" in check.title


def _signatures() -> list[Signature]:
    import llmdoctor_checks

    found = []
    for base in llmdoctor_checks.__path__:
        paths = [p for p in sorted(Path(base).glob("*/*.yaml")) if not p.name.startswith("_")]
        found += [signature_of(p) for p in paths]
    return found


@pytest.mark.parametrize("signature", _signatures(), ids=lambda s: s.id)
def test_a_signature_matches_its_lines_and_ignores_its_near_misses(signature: Signature) -> None:
    assert signature.matches
    assert signature.ignores
    assert len({*signature.matches}) == len(signature.matches)
    for line in signature.matches:
        assert matching(signature, line), line
    for line in signature.ignores:
        assert not matching(signature, line), line
    # no pattern stands in the shadow of one before it, unless that needs more than the line itself; what befalls requests does of
    # any pod, what ends a server only of one that failed
    for place, pattern in enumerate(signature.patterns):
        before = [
            p
            for p in signature.patterns[:place]
            if not (
                p.near or p.raised_in or p.bare or p.phases or p.ends or p.speaks_of or p.asks or p.locks is not None
            )
            and (p.affects or signature.affects) in ("requests", pattern.affects or signature.affects)
        ]
        lines = [line for line in signature.matches if capture(pattern, line) is not None]
        assert any(all(capture(p, line) is None for p in before) for line in lines), pattern


@pytest.mark.parametrize("signature", _signatures(), ids=lambda s: s.id)
def test_what_a_signature_explains_is_an_id(signature: Signature) -> None:
    told = {*signature.explains, *(id_ for pattern in signature.patterns for id_ in pattern.explains or ())}

    assert told <= {check.id for check in CHECKS}


@pytest.mark.parametrize("signature", _signatures(), ids=lambda s: s.id)
def test_no_expression_of_a_signature_is_slow_on_a_long_line(signature: Signature) -> None:
    for pattern in signature.patterns:
        # once may be the machine's doing, or the garbage collector's
        assert any(_seconds_on_long_lines(pattern) < 0.4 for _ in range(3)), pattern


def _seconds_on_long_lines(pattern: Pattern) -> float:
    """Processor time."""
    started = time.process_time()
    for text in ("1", "a.", "A ", "/a", "'"):
        line = (pattern.literal + text * 20_000)[:20_000]
        capture(pattern, line)
        for around in filter(None, (pattern.near_match, pattern.raised_in)):
            re.search(around, line)
    return time.process_time() - started


def _rubbish() -> list[Snapshot]:
    meta = {"name": "x", "namespace": "y"}
    weird = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": meta},
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**meta, "name": "z"},
            "spec": {"containers": [{}]},
            "status": {"phase": "Weird", "containerStatuses": [{"state": {"waiting": {}}}]},
        },
        {"apiVersion": "v1", "kind": "Pod", "metadata": {**meta, "name": "w"}, "spec": {"containers": "none"}},
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": "n"},
            "status": {"allocatable": {"nvidia.com/gpu": "x"}},
        },
        {"apiVersion": "v1", "kind": "Event", "metadata": meta},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": {}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {**meta, "name": "d"},
            "spec": {
                "template": {
                    "spec": {"containers": [{"name": "c", "image": "vllm/vllm-openai", "args": [1, True, ""]}]}
                }
            },
        },
    ]
    log = LogText(text="\x00\x1b[31m\r\n\ufffd\n\n", pod="z", namespace="y", container="")
    return [
        Snapshot(),
        Snapshot(taken_at="2026-01-01T00:00:00Z"),
        Snapshot(objects=tuple(weird), logs=(log,)),
        Snapshot(objects=tuple(weird), logs=(log,), taken_at="not a time"),
        Snapshot(logs=(LogText(text=""), LogText(text="\n\n"))),
    ]


@pytest.mark.parametrize("check", CHECKS, ids=_ids)
def test_every_check_survives_rubbish(check: Check) -> None:
    for snapshot in _rubbish():
        report: Report = diagnose(snapshot, [check])

        assert [n for t in report.targets for n in t.not_checked if n.reason.startswith("broken")] == []
