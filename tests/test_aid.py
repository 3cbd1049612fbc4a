"""The way back to a revision that ran, where no cause is known."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.packs import installed
from kubectl_llmdoctor.report.document import Finding
from kubectl_llmdoctor.testing import load_case

CASE = Path(__file__).parent.parent / "checks" / "cases" / "crash-loop" / "fires_after_a_rollout.yaml"
DEPLOYMENT, OLD, NEW, READY = range(4)


def _first(change: Any = None, *, previous: bool = True) -> Finding:
    """The first finding of the case, with its objects as somebody changed them."""
    case = load_case(CASE)
    objects = [deepcopy(dict(item)) for item in case.snapshot.objects]
    if change is not None:
        change(objects)
    logs = tuple(replace(log, previous=previous) for log in case.snapshot.logs)
    (target,) = diagnose(replace(case.snapshot, objects=tuple(objects), logs=logs), installed()).targets
    return target.findings[0]


def test_the_proof_is_quoted() -> None:
    found = _first()
    assert (
        "Report `ZeroDivisionError` at /srv/ranker/main.py:41 to the makers of registry.test/ranker:1.9.0"
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


def test_a_workload_that_failed_before_the_rollout_does_not_go_back() -> None:
    def change(objects: list[dict[str, Any]]) -> None:
        condition = {"type": "Available", "status": "False", "lastTransitionTime": "2026-11-02T08:00:05Z"}
        objects[DEPLOYMENT]["status"] = {"conditions": [condition]}
        del objects[READY]

    assert all("Go back" not in fix.summary for fix in _first(change).fixes)


def test_how_long_a_revision_stood_that_came_back_is_not_known() -> None:
    def change(objects: list[dict[str, Any]]) -> None:
        objects[OLD]["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"] = "1"
        del objects[READY]

    assert all("Go back" not in fix.summary for fix in _first(change).fixes)


def test_a_kubelet_that_takes_nothing_up_is_not_mended_by_an_older_revision() -> None:
    def change(objects: list[dict[str, Any]]) -> None:
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-11-20T09:40:01Z"}
        objects[-1]["status"] = {"phase": "Pending", "conditions": [scheduled]}

    found = _first(change)
    assert found.id == "not-ready"
    assert all("Go back" not in fix.summary for fix in found.fixes)


def test_what_is_paused_is_resumed_first() -> None:
    def change(objects: list[dict[str, Any]]) -> None:
        objects[DEPLOYMENT]["spec"] = {**objects[DEPLOYMENT]["spec"], "paused": True}

    assert _first(change).fixes[0].commands[0] == "kubectl -n search rollout resume deployment/ranker"


def test_a_release_is_a_word_of_a_command() -> None:
    def change(objects: list[dict[str, Any]]) -> None:
        objects[DEPLOYMENT]["metadata"]["annotations"] = {
            "meta.helm.sh/release-name": "rank; reboot",
            "meta.helm.sh/release-namespace": "apps",
        }

    assert _first(change).fixes[0].commands == (
        "helm -n apps history 'rank; reboot'",
        "helm -n apps rollback 'rank; reboot'",
    )


def test_a_release_further_back_is_looked_up() -> None:
    def change(objects: list[dict[str, Any]]) -> None:
        objects[DEPLOYMENT]["metadata"]["annotations"] = {"meta.helm.sh/release-name": "rank"}
        objects[OLD]["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "1"

    assert _first(change).fixes[0].commands == ("helm -n search history rank",)


def test_a_container_that_was_not_restarted_has_no_previous_log() -> None:
    def change(objects: list[dict[str, Any]]) -> None:
        (status,) = objects[-1]["status"]["containerStatuses"]
        objects[-1]["status"]["phase"] = "Failed"
        status |= {"state": status.pop("lastState"), "restartCount": 0}

    found = _first(change, previous=False)
    assert found.fixes[-1].commands == ("kubectl -n search logs ranker-7c8d6f5b9-x4v2q -c api",)


def test_the_rollout_that_ended_it_need_not_be_the_last() -> None:
    def change(objects: list[dict[str, Any]]) -> None:
        condition = {"type": "Available", "status": "False", "lastTransitionTime": "2026-11-20T09:10:05Z"}
        objects[DEPLOYMENT]["status"] = {"conditions": [condition]}
        objects[READY] = deepcopy(objects[NEW])  # a try between the two
        objects[READY]["metadata"] |= {
            "name": "ranker-5d9",
            "uid": "uid-ranker-t",
            "creationTimestamp": "2026-11-20T09:10:00Z",
        }
        objects[READY]["metadata"]["labels"] = {"pod-template-hash": "5d9"}
        objects[NEW]["metadata"]["annotations"] = {"deployment.kubernetes.io/revision": "4"}

    assert "revision 2 of Deployment/ranker: it was available until revision 3 came" in _first(change).fixes[0].summary


@pytest.mark.parametrize("number", ["3²", "9" * 5000, "", "latest"])
def test_a_revision_without_a_number_is_none(number: str) -> None:
    def change(objects: list[dict[str, Any]]) -> None:
        objects[NEW]["metadata"]["annotations"] = {"deployment.kubernetes.io/revision": number}

    assert all("Go back" not in fix.summary for fix in _first(change).fixes)
