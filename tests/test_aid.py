"""The way back to a revision that ran, where no cause is known."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.packs import installed
from kubectl_llmdoctor.report.document import Finding
from kubectl_llmdoctor.testing import load_case

CASE = Path(__file__).parent.parent / "checks" / "cases" / "crash-loop" / "fires_after_a_rollout.yaml"
DEPLOYMENT, OLD, NEW, READY = range(4)


def _first(change: Any = None) -> Finding:
    """The first finding of the case, with its objects as somebody changed them."""
    case = load_case(CASE)
    objects = [deepcopy(dict(item)) for item in case.snapshot.objects]
    if change is not None:
        change(objects)
    (target,) = diagnose(replace(case.snapshot, objects=tuple(objects)), installed()).targets
    return target.findings[0]


def test_the_proof_is_quoted() -> None:
    found = _first()
    assert (
        "Take `ZeroDivisionError` at /srv/ranker/main.py:41 to whoever makes registry.test/ranker:1.9.0"
        in found.fixes[1].summary
    )
    assert found.fixes[0].commands == ("kubectl -n search rollout undo deployment/ranker --to-revision=2",)
    assert "ranker-6b7f5d9c4-k2m8p" in found.evidence[-1].ref


def test_a_revision_that_nothing_shows_to_have_run_is_not_offered() -> None:
    def change(objects: list[dict[str, Any]]) -> None:
        objects[OLD]["metadata"]["creationTimestamp"] = "2026-11-20T09:30:00Z"
        del objects[READY]

    assert all("Go back" not in fix.summary for fix in _first(change).fixes)


def test_a_revision_that_stood_for_days_is_offered() -> None:
    assert "it stood for 18" in _first(lambda objects: objects.pop(READY)).fixes[0].summary


def test_a_new_revision_that_runs_elsewhere_is_not_taken_back() -> None:
    def change(objects: list[dict[str, Any]]) -> None:
        objects[READY]["metadata"]["labels"]["pod-template-hash"] = "7c8d6f5b9"
        objects[READY]["metadata"]["ownerReferences"] = objects[-1]["metadata"]["ownerReferences"]

    assert all("Go back" not in fix.summary for fix in _first(change).fixes)


def test_helm_goes_back_by_itself() -> None:
    def change(objects: list[dict[str, Any]]) -> None:
        objects[DEPLOYMENT]["metadata"]["annotations"] = {"meta.helm.sh/release-name": "rank"}

    assert "helm -n search rollback rank" in _first(change).fixes[0].commands


def test_what_an_operator_makes_is_taken_back_there() -> None:
    def change(objects: list[dict[str, Any]]) -> None:
        objects[DEPLOYMENT]["metadata"]["ownerReferences"] = [
            {"apiVersion": "acme.test/v1", "kind": "Ranker", "name": "main", "uid": "u", "controller": True}
        ]

    assert _first(change).fixes[0].commands == ("kubectl -n search edit Ranker/main",)
