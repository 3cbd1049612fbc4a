"""Signatures: where a line may stand, when it is a cause, and what its message says."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.report.document import Finding
from kubectl_llmdoctor.signature import as_check, parse
from kubectl_llmdoctor.snapshot import LogText, Snapshot, TargetRef


def _tree(**more: Any) -> dict[str, Any]:
    return {
        "id": "disk-eaten",
        "since": "0.1",
        "summary": "{container} of {workload} lost {what}.",
        "patterns": [{"literal": "eaten:", "match": r"eaten: (?P<what>\S+)"}],
        "matches": ["eaten: x"],
        "ignores": ["y"],
        "fixes": [{"summary": "Feed {what}", "commands": ["kubectl -n {namespace} exec {pod} -- feed {what}"]}],
    } | more


def _pod(*, ready: bool, restarts: int = 0, message: str = "") -> dict[str, Any]:
    ended = {"exitCode": 1, "reason": "Error", "finishedAt": "2026-01-01T00:00:00Z", "message": message}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "llama-0", "namespace": "serving"},
        "spec": {"nodeName": "n", "containers": [{"name": "vllm"}]},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [
                {
                    "name": "vllm",
                    "ready": ready,
                    "restartCount": restarts,
                    "state": {"running": {}} if ready else {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": ended} if restarts else {},
                }
            ],
        },
    }


def _found(tree: dict[str, Any], pod: dict[str, Any], *logs: LogText, events: tuple[Any, ...] = ()) -> list[Finding]:
    check = as_check(parse(tree, stem=tree["id"].replace("-", "_")), family="x", where="here")
    snapshot = Snapshot(objects=(pod, *events), logs=logs, taken_at="2026-01-09T00:00:00Z")
    return [f for target in diagnose(snapshot, [check]).targets for f in target.findings]


def _log(text: str, *, previous: bool = False) -> LogText:
    return LogText(text=text, namespace="serving", pod="llama-0", container="vllm", previous=previous)


def test_a_line_of_the_instance_that_died_is_a_cause_with_its_captures() -> None:
    (finding,) = _found(_tree(), _pod(ready=False, restarts=3), _log("a\neaten: $(rm)\n", previous=True))

    assert (finding.role, finding.confidence) == ("cause", "certain")
    assert finding.summary == "vllm of Pod/llama-0 lost $(rm)."
    assert finding.fixes[0].commands == ("kubectl -n serving exec llama-0 -- feed '$(rm)'",)
    assert (finding.evidence[0].line, finding.evidence[0].text) == (2, "eaten: $(rm)")


def test_the_line_that_must_stand_near_is_quoted_and_its_numbers_fill_the_summary() -> None:
    pattern = {
        "literal": "eaten:",
        "near": "out of",
        "near_match": r"lacks (?P<size>\d+)",
        "summary": "It lacks {size}.",
    }
    tree = _tree(summary="It lacks something.", patterns=[pattern], fixes=[])
    pod = _pod(ready=False, restarts=3)
    (known,) = _found(tree, pod, _log("out of it\neaten: x\nout of it, lacks 7\n", previous=True))
    (unknown,) = _found(tree, pod, _log("out of it\neaten: x\n", previous=True))

    assert (known.summary, [e.line for e in known.evidence]) == ("It lacks 7.", [2, 3])
    assert (unknown.summary, [e.line for e in unknown.evidence]) == ("It lacks something.", [2, 1])
    assert _found(tree, pod, _log("eaten: x\n", previous=True)) == []


@pytest.mark.parametrize("affects", ["server", "requests"])
def test_an_old_instance_of_a_pod_that_recovered_proves_nothing(affects: str) -> None:
    pod = _pod(ready=True, restarts=1)

    assert _found(_tree(affects=affects), pod, _log("eaten: x\n", previous=True)) == []


def test_what_fails_requests_is_a_cause_in_a_ready_pod_and_what_ends_the_server_is_not() -> None:
    log = _log("eaten: x\n")

    assert [f.role for f in _found(_tree(affects="requests"), _pod(ready=True), log)] == ["cause"]
    assert _found(_tree(), _pod(ready=True), log) == []


def test_the_end_of_a_log_in_the_status_stands_in_for_a_log_that_is_gone() -> None:
    (finding,) = _found(_tree(), _pod(ready=False, restarts=3, message="Traceback\neaten: x\n"))

    assert finding.evidence[0].ref == "status.containerStatuses[vllm].lastState.terminated"
    assert finding.evidence[0].text == "eaten: x"


def test_an_earlier_pattern_in_an_event_wins_over_a_later_one_in_the_status() -> None:
    tree = _tree(
        sources=["status", "event"],
        patterns=[{"literal": "because", "summary": "why"}, {"literal": "back-off", "summary": "what"}],
        matches=["because", "back-off"],
    )
    pod = _pod(ready=False, restarts=1)
    pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"] = "back-off 5m0s"
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e", "namespace": "serving"},
        "involvedObject": {"kind": "Pod", "name": "llama-0", "namespace": "serving"},
        "type": "Warning",
        "reason": "Failed",
        "message": "it failed because of the registry",
    }
    (finding,) = _found(tree, pod, events=(event,))

    assert finding.summary == "why"


def test_an_object_without_pods_speaks_through_its_conditions() -> None:
    check = as_check(parse(_tree(sources=["status"]), stem="disk_eaten"), family="x", where="here")
    service = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "llama", "namespace": "serving"},
        "status": {"conditions": [{"type": "Ready", "status": "False", "reason": "Bad", "message": "eaten: x"}]},
    }
    target = TargetRef(kind="InferenceService", name="llama", namespace="serving")
    report = diagnose(Snapshot(objects=(service,), target=target, taken_at="2026-01-01T00:00:00Z"), [check])

    assert [f.evidence[0].ref for f in report.targets[0].findings] == [
        "InferenceService/llama status.conditions[Ready]"
    ]


@pytest.mark.parametrize(
    "wrong",
    [{"patern": []}, {"patterns": [{"literal": "x", "match": "("}]}, {"confidence": "sure"}, {"id": "other-name"}],
    ids=["unknown key", "bad regex", "bad confidence", "stem"],
)
def test_a_mistake_fails_when_it_is_loaded(wrong: dict[str, Any]) -> None:
    import re

    with pytest.raises((msgspec.ValidationError, ValueError, re.error)):
        parse(_tree(**wrong), stem="disk_eaten")


def test_of_a_very_long_line_the_telling_part_is_quoted() -> None:
    line = '{"message": "' + "frame " * 200 + 'then eaten: all of it"}'
    (finding,) = _found(_tree(), _pod(ready=False, restarts=3), _log(line, previous=True))

    assert finding.evidence[0].text.startswith("… frame ")
    assert len(finding.evidence[0].text) < 150
    assert 'then eaten: all of it"}' in finding.evidence[0].text


def test_a_bare_pod_gets_no_command_that_would_change_it() -> None:
    fixes = [{"summary": "Feed it", "commands": ["kubectl -n {namespace} set env {workload} A=b", "kubectl get pods"]}]
    (finding,) = _found(_tree(fixes=fixes), _pod(ready=False, restarts=3), _log("eaten: x\n", previous=True))

    assert finding.fixes[0].commands == ("kubectl get pods",)
