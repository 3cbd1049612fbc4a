"""Verified fixes: what a dry run says stands at the fix, and the checks run on the object that came back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from msgspec.structs import replace

from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.gather.files import load
from kubectl_llmdoctor.packs import installed
from kubectl_llmdoctor.platforms import pointer
from kubectl_llmdoctor.report import text
from kubectl_llmdoctor.report.component import component
from kubectl_llmdoctor.report.document import Fix, Report
from kubectl_llmdoctor.snapshot import Json, Snapshot
from kubectl_llmdoctor.verification import verified

DEMO = Path(__file__).parents[1] / "docs" / "demo.yaml"


def _fix(report: Report, id: str) -> Fix:
    return next(f for t in report.targets for x in t.findings if x.id == id for f in x.fixes if f.patch)


def _server(snapshot: Snapshot, asked: list[tuple[str, str, str]]) -> Any:
    """An API server that takes every patch."""

    def trial(target: str, namespace: str, patch_type: str, body: Any) -> tuple[Json | None, str]:
        asked.append((target, namespace, patch_type))
        kind, _, name = target.rpartition(" ")[2].partition("/")
        found = next(o for o in snapshot.objects if (o["kind"], o["metadata"]["name"]) == (kind, name))
        changed = found
        for operation in body:
            changed = pointer.changed(changed, operation)
        return changed, ""

    return trial


def test_an_accepted_patch_ends_what_a_file_shows() -> None:
    snapshot = load(str(DEMO))
    report, asked = diagnose(snapshot, installed()), list[tuple[str, str, str]]()
    done = verified(report, snapshot, installed(), _server(snapshot, asked))
    outcomes = [f.verified for t in done.targets for x in t.findings for f in x.fixes if f.patch]

    assert outcomes
    assert all(outcome is not None and outcome.accepted for outcome in outcomes)
    assert asked
    assert "The API server accepts it (dry run)" in " ".join(text.render(done, wide=True).split())


def test_a_refusal_is_quoted() -> None:
    snapshot = load(str(DEMO))
    done = verified(diagnose(snapshot, installed()), snapshot, installed(), lambda *_: (None, "forbidden: no right"))

    assert "The API server refuses it (dry run): forbidden: no right" in " ".join(text.render(done, wide=True).split())


def test_the_component_holds_the_first_patch_of_each_cause() -> None:
    report = diagnose(load(str(DEMO)), installed())
    document = yaml.safe_load(component(report))

    assert (document["kind"], len(document["patches"])) == ("Component", 1)
    assert document["patches"][0]["target"]["name"] == "llama"
    assert yaml.safe_load(document["patches"][0]["patch"]) == _fix(report, "context-uncapped").patch.body  # type: ignore[union-attr]


def test_a_report_without_patches_is_a_component_without_any() -> None:
    assert yaml.safe_load(component(Report(tool_version="0", taken_at=None, targets=())))["patches"] == []


def test_a_patch_of_an_object_in_another_namespace_is_tried_and_written_there() -> None:
    snapshot = load(str(DEMO))
    report, asked = diagnose(snapshot, installed()), list[tuple[str, str, str]]()

    def moved(fix: Fix) -> Fix:
        return replace(fix, patch=replace(fix.patch, namespace="elsewhere")) if fix.patch else fix

    targets = [
        replace(t, findings=tuple(replace(f, fixes=tuple(map(moved, f.fixes))) for f in t.findings))
        for t in report.targets
    ]
    report = replace(report, targets=tuple(targets))
    verified(report, snapshot, installed(), _server(snapshot, asked))

    assert {namespace for _, namespace, _ in asked} == {"elsewhere"}
    rows = yaml.safe_load(component(report))["patches"]
    assert {row["target"]["namespace"] for row in rows} == {"elsewhere"}
