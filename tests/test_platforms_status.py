"""What operators say of their objects: which conditions are bad news, and which of them are failures."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_llmdoctor.platforms.status import Said, said


def _of(kind: str, **status: Any) -> list[tuple[str, str, bool]]:
    return [_row(s) for s in said({"kind": kind, "status": status})]


def _row(found: Said) -> tuple[str, str, bool]:
    return found.path.removeprefix("status."), found.text, found.failed


def _condition(kind: str, status: str, reason: str = "", message: str = "") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (_condition("Ready", "True"), []),
        (_condition("Ready", "Unknown"), []),
        (_condition("Ready", "False", "Initializing"), [("conditions[Ready]", "Initializing", False)]),
        (_condition("Ready", "False"), [("conditions[Ready]", "False", False)]),
        # the NIM operator has a condition Failed, which is False when all is well
        (_condition("Failed", "False", "Ready"), []),
        (
            _condition("Failed", "True", "DeploymentFailed", "no"),
            [("conditions[Failed]", "DeploymentFailed: no", True)],
        ),
        (_condition("Ready", "False", "NIMCacheNotFound"), [("conditions[Ready]", "NIMCacheNotFound", True)]),
        # KubeRay and LeaderWorkerSet say what is going on
        (_condition("UpgradeInProgress", "False", "NoPendingCluster"), []),
        (_condition("RayClusterSuspended", "False"), []),
        (_condition("Progressing", "False"), []),
        (
            _condition("ReplicaFailure", "True", "FailedCreateWorkerPod"),
            [("conditions[ReplicaFailure]", "FailedCreateWorkerPod", True)],
        ),
        # Argo Rollouts
        (
            _condition("Progressing", "False", "ProgressDeadlineExceeded"),
            [("conditions[Progressing]", "ProgressDeadlineExceeded", True)],
        ),
        (_condition("Completed", "False"), []),
        # Kueue
        (_condition("Evicted", "False"), []),
        (_condition("QuotaReserved", "False", "Pending", "x"), [("conditions[QuotaReserved]", "Pending: x", False)]),
        # LLMInferenceService
        (
            _condition("PresetsCombined", "False", "CombineBaseError", "failed to get LLMInferenceServiceConfig"),
            [("conditions[PresetsCombined]", "CombineBaseError: failed to get LLMInferenceServiceConfig", True)],
        ),
    ],
)
def test_a_condition(condition: dict[str, str], expected: list[tuple[str, str, bool]]) -> None:
    assert _of("X", conditions=[condition]) == expected


def test_failures_stand_before_what_is_only_not_ready() -> None:
    found = _of("X", conditions=[_condition("Ready", "False", "Waiting"), _condition("A", "False", "RevisionFailed")])
    assert [path for path, _, _ in found] == ["conditions[A]", "conditions[Ready]"]


def test_the_application_of_a_ray_service() -> None:
    deployments = {"LLMServer": {"status": "UNHEALTHY", "message": "no GPU"}, "Router": {"status": "HEALTHY"}}
    app = {"status": "DEPLOY_FAILED", "message": "Traceback", "serveDeploymentStatuses": deployments}
    found = _of("RayService", activeServiceStatus={"applicationStatuses": {"llm": app, "ok": {"status": "RUNNING"}}})
    at = "activeServiceStatus.applicationStatuses[llm]"
    assert found == [
        (f"{at}.status", "DEPLOY_FAILED", True),
        (f"{at}.message", "Traceback", True),
        (f"{at}.serveDeploymentStatuses[LLMServer].status", "UNHEALTHY", True),
        (f"{at}.serveDeploymentStatuses[LLMServer].message", "no GPU", True),
    ]


def test_the_model_of_an_inference_service() -> None:
    failure = {"reason": "ModelLoadFailed", "location": "x-predictor", "exitCode": 1, "message": "last words"}
    status = {"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": failure}
    assert _of("InferenceService", modelStatus=status) == [
        ("modelStatus.lastFailureInfo", "ModelLoadFailed, x-predictor, exitCode 1", True),
        ("modelStatus.lastFailureInfo.message", "last words", True),
    ]
    # The failure of a revision before stays in the status while the next one is tried.
    now = _of("InferenceService", modelStatus={**status, "transitionStatus": "InProgress"})
    assert {failed for _, _, failed in now} == {False}


def test_jobs_and_cliques() -> None:
    assert _of("RayJob", jobDeploymentStatus="Failed", jobStatus="FAILED", reason="AppFailed", message="m") == [
        ("jobDeploymentStatus", "FAILED, AppFailed", True),
        ("message", "m", True),
    ]
    assert _of("RayJob", jobDeploymentStatus="Complete", jobStatus="SUCCEEDED") == []
    assert _of("PodCliqueSet", lastErrors=[{"code": "ERR_SYNC", "description": "d"}]) == [
        ("lastErrors", "ERR_SYNC: d", True)
    ]


def test_a_state_that_is_called_failed_and_one_that_only_sounds_so() -> None:
    assert _of("SeldonDeployment", state="Failed", description="no image") == [("description", "no image", True)]
    assert _of("X", phase="Failover", message="m") == _of("X", state="NoErrors", message="m") == []


@pytest.mark.parametrize("status", [None, [], "x", {"conditions": "x"}, {"conditions": [None, {}]}, {"modelStatus": 1}])
def test_anything_may_stand_there(status: Any) -> None:
    assert said({"kind": "RayService", "status": status}) == []
