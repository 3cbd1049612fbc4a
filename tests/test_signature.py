"""Signatures: where a line may stand, when it is a cause, and what its message says."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.report.document import Finding
from kubectl_llmdoctor.signatures.check import as_check
from kubectl_llmdoctor.signatures.declared import parse
from kubectl_llmdoctor.snapshot import LogText, Snapshot, TargetRef


def _tree(**more: Any) -> dict[str, Any]:
    return {
        "id": "disk-eaten",
        "since": "0.1",
        "summary": "{container} of {workload} lost {what}.",
        "patterns": [{"literal": "eaten:", "match": r"eaten: (?P<what>\S+)"}],
        "matches": ["eaten: x"],
        "ignores": ["y"],
        "fixes": [{"summary": "Feed {what}", "commands": ["kubectl -n {namespace} label pod {pod} fed={what}"]}],
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
    assert finding.fixes[0].commands == ("kubectl -n serving label pod llama-0 fed='$(rm)'",)
    assert (finding.evidence[0].line, finding.evidence[0].text) == (2, "eaten: $(rm)")


def test_the_line_that_must_stand_near_is_quoted_and_its_numbers_fill_the_summary() -> None:
    pattern = {
        "literal": "eaten:",
        "near": "out of",
        "near_match": r"out of it(?:, lacks (?P<size>\d+))?",
        "summary": "It lacks {size}.",
    }
    tree = _tree(summary="It lacks something.", patterns=[pattern], fixes=[])
    pod = _pod(ready=False, restarts=3)
    (known,) = _found(tree, pod, _log("run out of\neaten: x\nout of it, lacks 7\n", previous=True))
    (unknown,) = _found(tree, pod, _log("out of it\neaten: x\n", previous=True))

    assert (known.summary, [e.line for e in known.evidence]) == ("It lacks 7.", [2, 3])
    assert (unknown.summary, [e.line for e in unknown.evidence]) == ("It lacks something.", [2, 1])
    assert _found(tree, pod, _log("eaten: x\n", previous=True)) == []
    assert _found(tree, pod, _log("if it runs out of\neaten: x\n", previous=True)) == []


_DEAD = _pod(ready=False, restarts=3)


@pytest.mark.parametrize(
    ("after", "sure"),
    [
        ("", True),
        ("it was fed again\n", False),
        ("(EngineCore_0 pid=7) INFO 06-02 08:00:41 [x.py:1] Model loading took 15.2 GiB\n", False),
        ("INFO 06-02 08:01:10 [x.py:1] Capturing CUDA graph shapes: 0%\n", False),
    ],
)
def test_what_a_start_went_beyond_is_a_last_resort_for_what_ended_and_nothing_for_what_runs(
    after: str, sure: bool
) -> None:
    tree = _tree(overcome=["fed again", "profiling GPU memory"], explains=["crash-loop"])
    (finding,) = _found(tree, _DEAD, _log("eaten: x\n" + after, previous=True))
    starting = _pod(ready=False, restarts=3)
    starting["status"]["containerStatuses"][0]["state"] = {"running": {"startedAt": "2026-01-08T00:00:00Z"}}

    assert (finding.confidence == "certain") is sure
    assert bool(_found(tree, starting, _log("eaten: x\n" + after))) is sure


@pytest.mark.parametrize(
    ("reason", "state", "confidence"),
    [
        ("Unknown", {"running": {"startedAt": "2026-01-08T23:00:00Z"}}, "possible"),
        ("Unknown", {"waiting": {"reason": "CrashLoopBackOff"}}, "certain"),
        ("Error", {"running": {"startedAt": "2026-01-08T23:00:00Z"}}, "certain"),
    ],
)
def test_what_an_instance_said_that_was_lost_with_its_node_is_a_last_resort(
    reason: str, state: dict[str, Any], confidence: str
) -> None:
    pod = _pod(ready=False, restarts=1)
    status = pod["status"]["containerStatuses"][0]
    status["state"] = state
    status["lastState"]["terminated"] |= {"exitCode": 255, "reason": reason}

    (finding,) = _found(_tree(), pod, _log("eaten: x\n", previous=True))

    assert finding.confidence == confidence


def test_what_one_rank_complains_of_another_does_not_overcome() -> None:
    tree = _tree(overcome=["profiling GPU memory"])
    log = "(Worker_TP1 pid=8) eaten: x\n(Worker_TP{} pid={}) Model loading took 15.2 GiB\n"

    (mine,) = _found(tree, _DEAD, _log(log.format(1, 8), previous=True))
    (other,) = _found(tree, _DEAD, _log(log.format(0, 7), previous=True))

    assert (mine.confidence, other.confidence) == ("possible", "certain")


def test_what_a_server_prints_after_it_was_told_to_stop_is_no_cause() -> None:
    down = "INFO:     Shutting down\n"

    assert _found(_tree(), _DEAD, _log(down + "eaten: x\n", previous=True)) == []
    assert _found(_tree(), _DEAD, _log("eaten: x\n" + down, previous=True))
    assert _found(_tree(), _DEAD, _log(down + "vLLM API server version 0.11.0\neaten: x\n", previous=True))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("text_generation_launcher: Args { model_id: x }", "text_generation_router: router/src/main.rs:247: Connected"),
        (
            'text_embeddings_router: router/src/main.rs:203: Args { model_id: "x" }',
            "text_embeddings_router::http::server: router/src/http/server.rs:1853: Ready",
        ),
    ],
    ids=["tgi", "tei"],
)
def test_what_a_router_got_over_before_it_was_ready_is_no_cause(before: str, after: str) -> None:
    tree = _tree()
    started = f"{before}\neaten: disk\n{after}\n"
    assert not _found(tree, _pod(ready=False), _log(started))
    assert _found(tree, _pod(ready=False), _log(f"{before}\neaten: disk\n"))
    # the same words of another program say nothing
    assert _found(tree, _pod(ready=False), _log(f"{before}\neaten: disk\nredis: Connected, Ready\n"))
    # what comes after the server was ready, or in the next start
    assert _found(tree, _pod(ready=False), _log(f"{started}eaten: disk\n"))
    assert _found(tree, _pod(ready=False), _log(f"{started}{before}\neaten: disk\n"))


@pytest.mark.parametrize(
    "line", ["│ ❱ 119 │   │   raise Eaten('eaten: disk')", "│   116 │   │   'eaten: disk'", "│ 1476 │ 'eaten: x'"]
)
def test_source_in_the_frame_of_a_traceback_is_not_the_message(line: str) -> None:
    tree = _tree()
    assert not _found(tree, _pod(ready=False), _log(f"{line}\n"))
    assert _found(tree, _pod(ready=False), _log(f"{line}\nEaten: eaten: disk\n"))
    assert _found(tree, _pod(ready=False), _log("│ eaten: disk │\n"))


def test_what_a_server_went_on_to_serve_after_is_a_last_resort() -> None:
    stats = (
        "INFO 06-02 [x.py:1] Engine 000: Avg prompt throughput: 4.1 tokens/s, Avg generation throughput: {} tokens/s\n"
    )
    decode = "[2026-06-02 08:00:00 TP0] Decode batch. #running-req: 2, gen throughput (token/s): 55.1\n"
    tree = _tree(explains=["crash-loop"])

    def confidence(text: str) -> str:
        (finding,) = _found(tree, _DEAD, _log(text, previous=True))
        return finding.confidence

    for after in (stats.format("55.0") * 2, decode * 2):
        assert confidence("eaten: x\n" + after) == "possible"
    for after in (stats.format("55.0"), stats.format("0.0") * 4):
        assert confidence("eaten: x\n" + after) == "certain"
    assert confidence(stats.format("55.0") * 4 + "eaten: x\n") == "certain"


_START = "INFO 06-02 08:00:00 [api_server.py:1805] vLLM API server version 0.11.0\n"


def test_of_several_starts_in_one_log_the_last_one_that_shows_how_it_went_counts() -> None:
    """A script that starts its server again, a supervisor, a log store: one log, one start after the other."""
    stats = (
        "INFO 06-02 [x.py:1] Engine 000: Avg prompt throughput: 4.1 tokens/s, Avg generation throughput: 5.0 tokens/s\n"
    )
    tree = _tree(overcome=["fed again"])

    def found(*starts: str, pod: dict[str, Any] = _DEAD) -> list[tuple[str, int | None]]:
        log = _log("".join(_START + start for start in starts), previous=pod is _DEAD)
        return [(f.summary.split()[-1], f.evidence[0].line) for f in _found(tree, pod, log)]

    assert found("eaten: x\n", "eaten: y\n") == [("y.", 4)]
    assert found("eaten: x\n", "RuntimeError: another one\n") == []
    assert found("eaten: x\n", "INFO:     Application startup complete.\n") == []
    assert found("eaten: x\n", stats) == []
    assert found("INFO:     Application startup complete.\n", "eaten: y\n") == [("y.", 4)]
    # the process of the start before still has the port
    assert found("eaten: x\n", "OSError: [Errno 98] Address already in use\n") == [("x.", 2)]


def test_an_earlier_start_is_a_last_resort_where_the_last_one_does_not_show_how_it_goes() -> None:
    starting = _pod(ready=False, restarts=3)
    starting["status"]["containerStatuses"][0]["state"] = {"running": {"startedAt": "2026-01-08T00:00:00Z"}}
    text = f"{_START}RuntimeError: eaten: x\n{_START}Starting to load model\n"

    for pod, previous in ((_DEAD, True), (starting, False)):
        (finding,) = _found(_tree(), pod, _log(text, previous=previous))
        assert (finding.confidence, finding.evidence[0].line) == ("possible", 2)


def test_what_a_module_says_before_the_banner_of_its_start_belongs_to_it() -> None:
    warning = "WARNING 06-02 08:00:00 [_custom_ops.py:20] eaten: {}\n"
    text = f"{warning.format('x')}{_START}RuntimeError: one\n{warning.format('y')}{_START}RuntimeError: two\n"
    (finding,) = _found(_tree(), _DEAD, _log(text, previous=True))

    assert finding.evidence[0].line == 4


def test_servers_side_by_side_are_no_starts_one_after_the_other() -> None:
    def banner(pid: int) -> str:
        return f"(APIServer pid={pid}) {_START}"

    text = f"{banner(7)}(APIServer pid=7) eaten: x\n{banner(8)}(APIServer pid={{}}) INFO:     Application startup complete.\n"

    assert _found(_tree(), _DEAD, _log(text.format(7) + text.format(8).splitlines()[-1], previous=True))
    assert _found(_tree(), _DEAD, _log(text.format(8), previous=True)) == []


def test_a_log_alone_that_goes_on_serving_after_a_line_has_no_cause() -> None:
    """Of an instance that ended it would be a last resort; nothing says that this one ever did."""
    stats = (
        "INFO 06-02 [x.py:1] Engine 000: Avg prompt throughput: 4.1 tokens/s, Avg generation throughput: 5.0 tokens/s\n"
    )
    check = as_check(parse(_tree(), stem="disk_eaten"), family="x", where="here")

    def found(text: str) -> list[Finding]:
        return list(diagnose(Snapshot(logs=(LogText(text=text),)), [check]).targets[0].findings)

    assert found("eaten: x\n" + stats * 4) == []
    assert len(found(stats * 4 + "eaten: x\n")) == 1


def test_a_log_alone_of_a_server_that_came_up_after_what_it_overcame_has_no_cause() -> None:
    """Also where the banner of the start is not in it: what was overcome before it served is no cause of anything."""
    check = as_check(parse(_tree(overcome=["fed again"]), stem="disk_eaten"), family="x", where="here")

    def found(text: str) -> list[str]:
        findings = diagnose(Snapshot(logs=(LogText(text=text),)), [check]).targets[0].findings
        return [finding.confidence for finding in findings]

    assert found("eaten: x\nfed again\nINFO:     Application startup complete.\n") == []
    assert found("eaten: x\nfed again\n") == ["possible"]
    assert found("INFO:     Application startup complete.\neaten: x\nfed again\n") == ["possible"]
    assert found("eaten: x\nINFO:     Application startup complete.\n") == ["certain"]


def test_what_explains_no_failure_is_a_note_in_a_pod_that_fails() -> None:
    tree = _tree(affects="requests", explains=[])

    assert [f.role for f in _found(tree, _DEAD, _log("eaten: x\n", previous=True))] == ["note"]
    assert [f.role for f in _found(tree, _pod(ready=True), _log("eaten: x\n"))] == ["cause"]


_OK = 'INFO:     10.0.3.7:51234 - "POST /v1/chat/completions HTTP/1.1" 200 OK\n'
_BAD = 'eaten: x\nINFO:     10.0.3.7:51234 - "POST /v1/chat/completions HTTP/1.1" 400 Bad Request\n'


@pytest.mark.parametrize(
    ("log", "role"),
    [
        (_BAD, "cause"),
        (_OK + _BAD, "note"),
        (_BAD + _OK, "note"),
        (_BAD + 'INFO:     10.0.3.7:1 - "GET /health HTTP/1.1" 200 OK\n' * 9, "cause"),  # a probe is no request
        ("eaten: x\n" + _BAD + _OK * 2, "note"),  # said twice of one request
        ("eaten: x\n" * 12 + _OK * 20, "cause"),  # without an access log
        (_BAD * 3 + _OK * 20, "cause"),
        (_BAD * 3 + _OK * 30, "note"),
        (_BAD + '[GIN] 2026/06/02 - 08:03:11 | 200 |  9.1s |     10.42.0.17 | POST     "/api/chat"\n' * 2, "note"),
        (
            _BAD + "0.55.191.301 I srv  log_server_r: done request: POST /v1/chat/completions 10.42.0.9 200\n" * 2,
            "note",
        ),
        (
            _BAD
            + "2026-06-02T08:04:10Z  INFO generate{}: text_generation_router::server: router/src/server.rs:424: Success\n"
            * 2,
            "note",
        ),
    ],
)
def test_a_request_that_fails_among_many_that_are_answered_is_a_note(log: str, role: str) -> None:
    tree = _tree(affects="requests", explains=[], stray=True)

    assert [f.role for f in _found(tree, _pod(ready=True), _log(log))] == [role]
    assert [f.role for f in _found(_tree(affects="requests", explains=[]), _pod(ready=True), _log(log))] == ["cause"]


@pytest.mark.parametrize(
    ("log", "ready", "role"),
    [
        (_BAD + _OK * 10, True, "note"),
        (_BAD + _OK * 9, True, "cause"),
        (_OK * 20 + _BAD, True, "cause"),  # nothing shows that the next one would not fail
        (_BAD + _OK * 3 + _BAD + _OK * 20, True, "cause"),
        (_BAD + _OK * 10, False, "note"),  # the pod fails of something else
    ],
)
def test_the_only_request_that_failed_is_a_note_where_a_ready_server_has_answered_many_since(
    log: str, ready: bool, role: str
) -> None:
    for loads in (False, True):
        tree = _tree(affects="requests", explains=[], loads=loads)
        assert [f.role for f in _found(tree, _pod(ready=ready), _log(log))] == [role]


@pytest.mark.parametrize(
    ("image", "answers", "role"),
    [
        ("vllm/vllm-openai:v0.11.0", 10, "note"),
        ("vllm/vllm-openai:v0.11.0", 9, "cause"),
        ("nvcr.io/nvidia/tensorrt-llm/release:1.0.0", 10, "note"),
        ("ollama/ollama:0.12.3", 10, "cause"),
    ],
)
def test_a_load_that_fails_in_a_server_that_has_its_model_is_a_note(image: str, answers: int, role: str) -> None:
    pod = _pod(ready=True)
    pod["spec"]["containers"][0]["image"] = image
    tree = _tree(affects="requests", explains=["not-ready"], loads=True)

    assert [f.role for f in _found(tree, pod, _log(_OK * answers + _BAD))] == [role]


@pytest.mark.parametrize(
    ("before", "after", "role"), [(0, 1, "cause"), (0, 2, "note"), (9, 0, "cause"), (10, 0, "note")]
)
def test_of_a_log_alone_what_follows_says_that_a_request_was_a_stray_one(before: int, after: int, role: str) -> None:
    check = as_check(
        parse(_tree(affects="requests", explains=[], stray=True), stem="disk_eaten"), family="x", where="y"
    )

    (finding,) = (
        diagnose(Snapshot(logs=(LogText(text=_OK * before + _BAD + _OK * after),)), [check]).targets[0].findings
    )

    assert finding.role == role


@pytest.mark.parametrize(
    ("line", "confidence"),
    [
        ("WARNING 06-02 08:00:01 [x.py:60] no plugin: EatenError: eaten: x", "possible"),
        ("(EngineCore_0 pid=7) WARNING 06-02 08:00:01 [x.py:60] EatenError: eaten: x", "possible"),
        ("WARNI [open_webui.retrieval] no plugin: EatenError: eaten: x", "possible"),
        ("(EngineCore_0 pid=7) ERROR 06-02 08:00:01 [x.py:60] EatenError: eaten: x", "certain"),
        ("WARNING 06-02 08:00:01 [x.py:60] eaten: x", "certain"),
        ("EatenError: eaten: WARNING", "certain"),
    ],
)
def test_an_exception_that_is_only_warned_of_was_caught(line: str, confidence: str) -> None:
    (finding,) = _found(_tree(), _DEAD, _log(line + "\n", previous=True))

    assert finding.confidence == confidence


@pytest.mark.parametrize(
    ("image", "started", "affects", "confidence"),
    [
        ("registry.example.com/front:1", "23:57", "server", "possible"),
        ("registry.example.com/front:1", "23:40", "server", "certain"),
        ("vllm/vllm-openai:v0.11.0", "23:57", "server", "certain"),
        ("registry.example.com/front:1", "23:57", "requests", "possible"),
        ("registry.example.com/front:1", "23:40", "requests", "certain"),
    ],
)
def test_in_its_first_minutes_a_program_may_do_without_what_it_met_with(
    image: str, started: str, affects: str, confidence: str
) -> None:
    pod = _pod(ready=False)
    pod["spec"]["containers"][0]["image"] = image
    status = pod["status"]["containerStatuses"][0]
    status["image"], status["state"] = image, {"running": {"startedAt": f"2026-01-08T{started}:00Z"}}
    tree = _tree(affects=affects, overcome=["fed again"] if affects == "requests" else [], explains=["not-ready"])

    (finding,) = _found(tree, pod, _log("eaten: x\n"))

    assert finding.confidence == confidence


def test_of_several_wordings_the_most_certain_one_counts() -> None:
    patterns = [{"literal": "eaten", "confidence": "possible"}, {"literal": "devoured"}]
    tree = _tree(summary="Gone.", patterns=patterns, fixes=[])
    (finding,) = _found(tree, _DEAD, _log("eaten: x\ndevoured\n", previous=True))

    assert (finding.confidence, finding.evidence[0].line) == ("certain", 2)


@pytest.mark.parametrize(
    ("started", "exit_reason", "found"),
    [
        ("2026-01-01T00:30:00Z", "Error", False),
        ("2025-12-31T23:00:00Z", "Error", True),
        ("2026-01-01T00:30:00Z", "StartError", True),
    ],
)
def test_what_an_event_says_of_a_start_is_over_once_the_container_has_started(
    started: str, exit_reason: str, found: bool
) -> None:
    pod = _pod(ready=False, restarts=3)
    pod["status"]["containerStatuses"][0]["lastState"]["terminated"] |= {"startedAt": started, "reason": exit_reason}
    about = {"kind": "Pod", "name": "llama-0", "namespace": "serving", "fieldPath": "spec.containers{vllm}"}
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e", "namespace": "serving"},
        "involvedObject": about,
        "type": "Warning",
        "reason": "Failed",
        "message": "eaten: x",
        "lastTimestamp": "2026-01-01T00:00:00Z",
    }
    begun = event | {"metadata": {"name": "s", "namespace": "serving"}, "type": "Normal", "reason": "Started"}
    begun |= {"message": "Started", "lastTimestamp": "2026-01-01T00:10:00Z"}

    assert bool(_found(_tree(sources=["event"]), pod, events=(event,))) is found
    assert _found(_tree(sources=["event"]), pod, events=(event, begun)) == []


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

    assert finding.evidence[0].text.startswith('{"message": "frame ')
    assert " … frame " in finding.evidence[0].text
    assert len(finding.evidence[0].text) < 150
    assert 'then eaten: all of it"}' in finding.evidence[0].text


def _owned(kind: str, api_version: str, template: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": "llama", "namespace": "serving", "uid": "u"},
        "spec": template,
    }


def _owner(kind: str, api_version: str) -> list[dict[str, Any]]:
    return [{"apiVersion": api_version, "kind": kind, "name": "llama", "uid": "u", "controller": True}]


def test_a_bare_pod_gets_no_command_that_would_change_it_but_is_told_what_to_set() -> None:
    commands = ["kubectl -n {namespace} edit {workload}", "kubectl get pods"]
    fixes = [{"summary": "Feed it", "commands": commands, "env": {"A": "b", "C": None}}]
    (finding,) = _found(_tree(fixes=fixes), _pod(ready=False, restarts=3), _log("eaten: x\n", previous=True))

    assert finding.fixes[0].commands == ("kubectl get pods",)
    assert finding.fixes[0].summary == "Feed it: A=b (in Pod/llama-0, which must be deleted and recreated)"


_PLAIN = {"template": {"spec": {"containers": [{"name": "vllm"}]}}}


@pytest.mark.parametrize(
    ("kind", "api_version", "spec", "path"),
    [
        ("StatefulSet", "apps/v1", _PLAIN, "/spec/template/spec/containers/0/env"),
        ("StatefulSet", "apps/v1", {"template": {"spec": {"containers": [{"name": "other"}]}}}, ""),
        ("Job", "batch/v1", _PLAIN, ""),
        (
            "LeaderWorkerSet",
            "leaderworkerset.x-k8s.io/v1",
            {"leaderWorkerTemplate": {"workerTemplate": _PLAIN["template"]}},
            "/spec/leaderWorkerTemplate/workerTemplate/spec/containers/0/env",
        ),
    ],
    ids=["a container of the template", "one that a webhook added", "an immutable template", "a custom resource"],
)
def test_variables_are_set_where_the_object_of_the_pod_states_them(
    kind: str, api_version: str, spec: dict[str, Any], path: str
) -> None:
    pod = _pod(ready=False, restarts=3)
    pod["metadata"]["ownerReferences"] = _owner(kind, api_version)
    fixes = [{"summary": "Feed it", "env": {"A": "{what}", "TOKEN": "secret:mine"}}]
    (finding,) = _found(
        _tree(fixes=fixes), pod, _log("eaten: x\n", previous=True), events=(_owned(kind, api_version, spec),)
    )

    (fix,) = finding.fixes
    if not path:
        assert fix.patch is None
        assert fix.summary.startswith("Feed it: A=x")
        assert f"{kind}/llama" in fix.summary
        return
    assert fix.patch is not None
    token = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "mine", "key": "TOKEN"}}}
    assert fix.patch.body == [{"op": "add", "path": path, "value": [{"name": "A", "value": "x"}, token]}]


def test_variables_that_are_there_are_replaced_and_removed_from_the_last_on() -> None:
    pod = _pod(ready=False, restarts=3)
    pod["metadata"]["ownerReferences"] = _owner("StatefulSet", "apps/v1")
    env = [{"name": name, "value": "1"} for name in ("A", "B", "C")]
    pod["spec"]["containers"][0]["env"] = env
    spec = {"template": {"spec": {"containers": [{"name": "vllm", "env": env}]}}}
    fixes = [{"summary": "Feed it", "env": {"A": None, "B": "2", "C": None}}]
    (finding,) = _found(
        _tree(fixes=fixes), pod, _log("eaten: x\n", previous=True), events=(_owned("StatefulSet", "apps/v1", spec),)
    )

    assert finding.fixes[0].patch is not None
    assert [(op["op"], op["path"].rpartition("/")[2]) for op in finding.fixes[0].patch.body] == [
        ("replace", "1"),
        ("remove", "2"),
        ("remove", "0"),
    ]


@pytest.mark.parametrize(
    ("limits", "runtime", "said"),
    [
        ({}, "", ["Ask", "Look"]),
        ({"nvidia.com/gpu": "1"}, "", ["Set a runtime", "Look"]),
        ({"nvidia.com/gpu": "1"}, "nvidia", ["Look"]),
    ],
    ids=["asks for none", "asks for one", "asks for one, by a runtime"],
)
def test_a_fix_may_depend_on_what_the_pod_asks_for(limits: dict[str, str], runtime: str, said: list[str]) -> None:
    fixes = [
        {"summary": "Ask", "when": ["no gpu asked"]},
        {"summary": "Set a runtime", "when": ["gpu asked", "no runtime class"]},
        {"summary": "Look"},
    ]
    pod = _pod(ready=False, restarts=3)
    pod["spec"]["containers"][0]["resources"] = {"limits": limits}
    pod["spec"]["runtimeClassName"] = runtime
    (finding,) = _found(_tree(fixes=fixes), pod, _log("eaten: x\n", previous=True))

    assert [fix.summary for fix in finding.fixes] == said


def test_nothing_is_run_in_a_container_that_does_not_run() -> None:
    fixes = [
        {"summary": "Look", "commands": ["kubectl exec {pod} -c {container} -- df", "kubectl logs {pod} --previous"]}
    ]
    tree = _tree(fixes=fixes, affects="requests")

    (dead,) = _found(tree, _pod(ready=False, restarts=3), _log("eaten: x\n", previous=True))
    (alive,) = _found(tree, _pod(ready=True), _log("eaten: x\n"))

    assert dead.fixes[0].commands == ("kubectl logs llama-0 --previous",)
    assert alive.fixes[0].commands == ("kubectl exec llama-0 -c vllm -- df", "kubectl logs llama-0")


def test_a_pod_without_a_node_is_told_of_the_node() -> None:
    pod = _pod(ready=False, restarts=3)
    del pod["spec"]["nodeName"]
    tree = _tree(fixes=[{"summary": "Reboot node {node}"}])

    (finding,) = _found(tree, pod, _log("eaten: x\n", previous=True))

    assert finding.fixes[0].summary == "Reboot the node"


@pytest.mark.parametrize(
    ("args", "option", "patched", "said"),
    [
        (["--model=m"], {"max_model_len": "{what}"}, [("add", "-", "--max-model-len=512")], "Cap it"),
        (["--max-model-len", "9000"], {"max_model_len": "{what}"}, [("replace", "1", "512")], "Cap it"),
        (
            ["--quantization", "awq", "--port=1"],
            {"quantization": None},
            [("remove", "1", None), ("remove", "0", None)],
            "Cap it",
        ),
        (["--quantization=awq"], {"quantization": None}, [("remove", "0", None)], "Cap it"),
        (["--model=m"], {"quantization": None}, None, "Cap it"),
    ],
)
def test_an_option_is_set_and_removed_where_it_stands(
    args: list[str], option: dict[str, Any], patched: list[tuple[str, str, str | None]] | None, said: str
) -> None:
    container = {"name": "vllm", "image": "vllm/vllm-openai:v0.11.0", "args": args}
    pod = _pod(ready=False, restarts=3)
    pod["metadata"]["ownerReferences"] = _owner("StatefulSet", "apps/v1")
    pod["spec"]["containers"] = [container]
    owner = _owned("StatefulSet", "apps/v1", {"template": {"spec": {"containers": [container]}}})
    (finding,) = _found(
        _tree(fixes=[{"summary": "Cap it", "option": option}]),
        pod,
        _log("eaten: 512\n", previous=True),
        events=(owner,),
    )

    (fix,) = finding.fixes
    assert fix.summary == said
    body = fix.patch.body if fix.patch else None
    assert patched == (body and [(op["op"], op["path"].rpartition("/")[2], op.get("value")) for op in body])


def test_of_a_log_alone_the_option_is_said() -> None:
    tree = _tree(fixes=[{"summary": "Cap it", "option": {"max_model_len": "{what}"}}])
    check = as_check(parse(tree, stem="disk_eaten"), family="x", where="here")
    report = diagnose(Snapshot(logs=(LogText(text="eaten: 512\n"),)), [check])

    (finding,) = report.targets[0].findings
    assert finding.fixes[0].summary == "Cap it (--max-model-len, in SGLang --context-length)"


@pytest.mark.parametrize(
    ("image", "above", "found"),
    [
        ("vllm/vllm-openai:v0.11.0", "EngineCore failed to start.", True),
        (
            "vllm/vllm-openai:v0.11.0",
            '  File "/usr/lib/python3.12/json/decoder.py", line 3, in decode\n    raise fans',
            False,
        ),
        ("acme/gateway:1.4.0", "EngineCore failed to start.", False),
    ],
)
def test_words_alone_count_where_no_frame_says_whose_they_are_and_the_engine_is_known(
    image: str, above: str, found: bool
) -> None:
    pattern = {"literal": "Error: ", "match": "^ValueError: no (?P<what>fans)", "bare": True, "engines": ["vllm"]}
    pod = _pod(ready=False, restarts=3)
    pod["spec"]["containers"][0]["image"] = image
    tree = _tree(patterns=[pattern], matches=["ValueError: no fans"])

    log = _log(f"{above}\nValueError: no fans\n", previous=True)

    assert [f.id for f in _found(tree, pod, log)] == ["disk-eaten"] * found


def test_bare_words_without_engines_are_refused() -> None:
    tree = _tree(patterns=[{"literal": "Error: ", "match": "^ValueError: no fans", "bare": True}])

    with pytest.raises(ValueError, match="'Error: ' is bare, and names no engines"):
        parse(tree, stem="disk_eaten")


def test_a_word_of_the_package_stands_for_its_expression_and_an_unknown_one_is_named() -> None:
    pattern = {"literal": "fan", "match": "^fan (?&stops)$"}
    tree = {
        "id": "fan-stuck",
        "since": "1.0",
        "summary": "A fan is stuck.",
        "patterns": [pattern],
        "matches": ["fan is stuck"],
        "ignores": ["fan turns"],
    }

    signature = parse(tree, stem="fan_stuck", words={"stops": "(?:is stuck|stands)"})

    assert signature.patterns[0].match == "^fan (?:is stuck|stands)$"
    with pytest.raises(ValueError, match="no such word: stops; known are turns"):
        parse(tree, stem="fan_stuck", words={"turns": "turns"})


def test_a_word_may_name_those_above_it() -> None:
    tree = _tree(patterns=[{"literal": "fan", "match": "(?&ends)"}])

    signature = parse(tree, stem="disk_eaten", words={"stops": "stuck", "ends": "(?:(?&stops)|gone)"})

    assert signature.patterns[0].match == "(?:stuck|gone)"
    with pytest.raises(ValueError, match="no such word: stops"):
        parse(tree, stem="disk_eaten", words={"ends": "(?:(?&stops)|gone)", "stops": "stuck"})


@pytest.mark.parametrize(
    ("line", "quoted"),
    [
        ('{"level": "info", "msg": "ticket", "note": "why eaten: x?"}', True),
        ('level=info msg=ticket note="why eaten: x?"', True),
        (r'{"msg": "hook", "payload": "{\"remark\": \"why eaten: x?\"}"}', True),
        ("{'msg': 'ticket', 'notes': ['why eaten: x?']}", True),
        ('{"level": "info", "msg": "tool", "tool_message": "eaten: x"}', True),
        ('{"level": "error", "msg": "eaten: x", "note": "none"}', False),
        ('level=error msg="load failed" error="eaten: x"', False),
        (r'{"msg": "answer", "body": "{\"error\": \"eaten: x\"}"}', False),
        ('{"note": "none"} eaten: x', False),
        ('{"error": {"name": "ApiError", "responseBody": "eaten: x"}}', False),
        ('{"@t": "x", "@mt": "load failed", "@x": "eaten: x"}', False),
        ('{"LogEntry": "eaten: x", "stream": "stderr"}', False),
        ('{"body": {"stringValue": "eaten: x"}}', False),
        ('{"msg": "ticket", "userMessage": "why eaten: x?"}', True),
        ('cannot load model "m": "eaten: x"', False),
        ("RuntimeError: 'eaten: x'", False),
    ],
)
def test_what_a_line_quotes_of_others_is_not_what_it_says(line: str, quoted: bool) -> None:
    assert bool(_found(_tree(), _DEAD, _log(line, previous=True))) is not quoted


def test_a_match_may_begin_in_the_level_of_a_line() -> None:
    tree = {**_tree(), "patterns": [{"literal": "eaten: x", "match": "error.{0,200}eaten: x"}]}

    assert _found(tree, _DEAD, _log('{"level": "error", "message": "eaten: x"}', previous=True))
    assert not _found(tree, _DEAD, _log('{"level": "error", "message": "ticket", "note": "eaten: x"}', previous=True))
