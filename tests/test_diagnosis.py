"""Running, merging and ranking: what explains what, what a broken check costs, what is said to be unchecked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from kubectl_llmdoctor.check import Abstain, Check, Finding, Need
from kubectl_llmdoctor.diagnosis import diagnose, rank
from kubectl_llmdoctor.facts import subject
from kubectl_llmdoctor.packs import installed
from kubectl_llmdoctor.report import document as doc
from kubectl_llmdoctor.report.document import Evidence
from kubectl_llmdoctor.snapshot import LogText, Missing, Snapshot, TargetRef


def _finding(id: str, **more: Any) -> doc.Finding:
    fields: dict[str, Any] = {
        "role": "cause",
        "severity": "critical",
        "confidence": "certain",
        "title": id,
        "summary": id,
    }
    return doc.Finding(id=id, **(fields | more))


def _ids(findings: list[doc.Finding]) -> list[tuple[str, str]]:
    return [(f.id, f.role) for f in findings]


def test_a_cause_that_another_cause_explains_becomes_its_symptom() -> None:
    first = _finding("nccl-timeout"), 10.0
    root = _finding("shm-too-small", explains=("nccl-timeout", "crash-loop")), 90.0

    assert _ids(rank([first, root])) == [("shm-too-small", "cause"), ("nccl-timeout", "symptom")]


def test_certainty_comes_before_time_and_time_before_the_name() -> None:
    late, early = (_finding("late"), 9.0), (_finding("early"), 3.0)
    guess = _finding("a-guess", confidence="possible"), 1.0

    assert [f.id for f in rank([guess, late, early])] == ["early", "late", "a-guess"]


def test_two_causes_that_explain_each_other_both_stay() -> None:
    one = _finding("one", explains=("two",)), 1.0
    two = _finding("two", explains=("one",)), 2.0

    assert _ids(rank([one, two])) == [("one", "cause"), ("two", "cause")]


def test_of_two_causes_that_explain_each_other_only_the_first_says_so() -> None:
    symptom = _finding("crash-loop", role="symptom"), 3.0
    one = _finding("one", explains=("two", "crash-loop")), 1.0
    two = _finding("two", explains=("one", "crash-loop")), 2.0

    assert [f.explains for f in rank([one, two, symptom])] == [("two", "crash-loop"), ("crash-loop",), ()]


def test_a_guess_from_the_lines_of_a_surer_cause_is_left_out() -> None:
    quoted, other = (Evidence(source="log", ref="vllm", text="CUDA out of memory", line=n) for n in (7, 8))
    root = _finding("cuda-oom-runtime", explains=("cuda-oom-weights",), evidence=(quoted,)), 7.0
    guess = _finding("cuda-oom-weights", confidence="possible", evidence=(quoted,)), 7.0
    elsewhere = _finding("cuda-oom-weights", confidence="possible", evidence=(other,)), 8.0

    assert _ids(rank([root, guess])) == [("cuda-oom-runtime", "cause")]
    assert _ids(rank([root, elsewhere])) == [("cuda-oom-runtime", "cause"), ("cuda-oom-weights", "symptom")]


def test_a_guess_from_the_lines_of_a_surer_cause_that_does_not_know_it_is_left_out_too() -> None:
    quoted, other = (Evidence(source="log", ref="vllm", text="FP8 needs deep_gemm", line=n) for n in (7, 8))
    field = Evidence(source="pod", ref="spec.containers[vllm].args", text="--quantization=fp8")
    root = _finding("import-broken", confidence="likely", explains=("crash-loop",), evidence=(quoted, field)), 7.0
    kept = [("import-broken", "cause"), ("quantization-mismatch", "cause")]

    def beside(*evidence: Evidence) -> list[tuple[str, str]]:
        guess = _finding("quantization-mismatch", confidence="possible", explains=("crash-loop",), evidence=evidence)
        return _ids(rank([root, (guess, 7.0)]))

    assert beside(quoted) == kept[:1]
    assert beside(other) == kept
    assert beside(field) == kept


@pytest.mark.parametrize(("sure", "role"), [("certain", "note"), ("likely", "note"), ("possible", "cause")])
def test_a_guess_that_explains_nothing_is_a_note_where_another_cause_is_sure(sure: str, role: str) -> None:
    root = _finding("kv-cache-below-max-len", confidence=sure, explains=("crash-loop",)), 9.0
    guess = _finding("hf-unreachable", confidence="possible"), 2.0

    assert (guess[0].id, role) in _ids(rank([root, guess]))


def test_explains_names_only_what_is_there() -> None:
    found = rank(
        [(_finding("root", explains=("crash-loop", "http-5xx")), 0.0), (_finding("crash-loop", role="symptom"), 0.0)]
    )

    assert found[0].explains == ("crash-loop",)


def _check(id: str, run: Any, *needs: str) -> Check:
    return Check(
        id=id,
        title=id,
        doc=id,
        family="x",
        since="0.1",
        severity="critical",
        needs=tuple(Need(fact=fact, optional=False) for fact in ("Pod", *needs)),
        run=run,
        where="here",
    )


def _pods(*names: str) -> Snapshot:
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "llama-1", "uid": "u1", "controller": True}
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    pods = tuple(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "serving", "ownerReferences": [owner]},
            "spec": {"containers": [{"name": "c"}]},
            "status": status,
        }
        for name in names
    )
    replicas = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": "llama-1", "namespace": "serving", "uid": "u1"},
    }
    return Snapshot(objects=(*pods, replicas), taken_at="2026-01-01T00:00:00Z")


def _fine(pod: Any) -> Iterator[Finding]:
    yield Finding(role="risk", summary="found", evidence=(Evidence(source="pod", ref="x", text="y"),))


def test_a_check_that_raises_is_reported_and_the_others_run() -> None:
    def broken(pod: Any) -> Iterator[Finding]:
        yield from {"x": ()}["surprise"]

    report = diagnose(_pods("a"), [_check("broken", broken), _check("fine", _fine)])
    target = report.targets[0]

    assert [f.id for f in target.findings] == ["fine"]
    assert [(n.id, n.reason) for n in target.not_checked] == [("broken", "broken check: KeyError: 'surprise'")]
    assert target.verdict == "at-risk"


@pytest.mark.parametrize(
    ("kind", "bodies", "kept"),
    [
        ("json", ([{"path": "/a"}], [{"path": "/a"}]), 1),
        ("json", ([{"path": "/a"}], [{"path": "/b"}]), 2),
        ("merge", ({"a": 1}, {"b": 1}), 1),
    ],
)
def test_of_findings_that_become_one_a_fix_in_another_place_of_the_object_is_kept(
    kind: Any, bodies: tuple[Any, Any], kept: int
) -> None:
    said = Evidence(source="pod", ref="x", text="y")

    def run(pod: Any) -> Iterator[Finding]:
        for number, body in enumerate(bodies):
            patch = doc.Patch(target="apps/v1 Deployment/llama", type=kind, body=body)
            fix = doc.Fix(summary="Mend it.", patch=patch)
            of = (f"llama-{number}",)
            yield Finding(role="cause", summary=f"It broke {number}.", evidence=(said,), fixes=(fix,), pods=of)

    (target,) = diagnose(_pods("llama-0"), [_check("broken-thing", run)]).targets

    assert len(target.findings[0].fixes) == kept


@pytest.mark.parametrize(
    ("sure", "order"), [("likely", ["Patch it.", "Mend it."]), ("possible", ["Mend it.", "Patch it."])]
)
def test_a_patch_joins_words_and_goes_first_where_its_finding_is_as_sure(sure: Any, order: list[str]) -> None:
    said = Evidence(source="pod", ref="x", text="y")
    patch = doc.Patch(target="apps/v1 Deployment/llama", type="json", body=[{"path": "/a"}])

    def run(pod: Any) -> Iterator[Finding]:
        words, exact = doc.Fix(summary="Mend it."), doc.Fix(summary="Patch it.", patch=patch)
        yield Finding(role="cause", summary="It broke.", evidence=(said,), fixes=(words,))
        yield Finding(role="cause", summary="It was wrong.", evidence=(said,), confidence=sure, fixes=(exact,))

    (target,) = diagnose(_pods("llama-0"), [_check("broken-thing", run)]).targets

    assert [fix.summary for fix in target.findings[0].fixes] == order


def test_a_fact_that_cannot_be_made_costs_the_checks_that_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def needs_it(pod: Any, hardware: Any) -> Iterator[Finding]:
        yield from ()

    def fails(self: Any, pod: Any) -> Any:
        raise KeyError("surprise")

    monkeypatch.setattr(subject.Subject, "hardware", fails)
    checks = [_check("needy", needs_it, "Hardware"), _check("fine", _fine)]
    target = diagnose(_pods("a"), checks).targets[0]

    assert [f.id for f in target.findings] == ["fine"]
    assert [(n.id, n.reason) for n in target.not_checked] == [("needy", "broken fact: KeyError: 'surprise'")]


def test_a_check_that_abstains_says_what_it_lacks() -> None:
    def unsure(pod: Any) -> Iterator[Abstain]:
        yield Abstain(reason="the model is not known")

    report = diagnose(_pods("a"), [_check("unsure", unsure)])

    assert [(n.id, n.reason) for n in report.targets[0].not_checked] == [("unsure", "the model is not known")]


def test_replicas_with_one_diagnosis_are_one_target() -> None:
    def same(pod: Any) -> Iterator[Finding]:
        yield Finding(role="cause", summary=f"{pod.name} is ill")

    report = diagnose(_pods("a", "b", "c"), [_check("same", same)])

    assert len(report.targets) == 1
    assert report.targets[0].pods == ("a", "b", "c")


def test_only_what_was_asked_about_is_reported_and_an_absent_target_gives_no_verdict() -> None:
    snapshot = _pods("a", "b")
    asked = Snapshot(
        objects=snapshot.objects,
        taken_at=snapshot.taken_at,
        target=TargetRef(kind="Pod", name="b", namespace="serving"),
    )
    absent = Snapshot(objects=snapshot.objects, target=TargetRef(kind="Pod", name="zz", namespace="serving"))

    assert [t.name for t in diagnose(asked, []).targets] == ["b"]
    assert diagnose(absent, []).targets == ()


def _owned(owner: dict[str, Any], spec: dict[str, Any], phases: dict[str, str]) -> list[dict[str, Any]]:
    """Pods of an owner, by name in a phase."""
    meta = {"namespace": "serving", "ownerReferences": [owner]}
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, **meta},
            "spec": spec,
            "status": {"phase": phase},
        }
        for name, phase in phases.items()
    ]


@pytest.mark.parametrize(
    ("ready", "asked", "names"),
    [
        (1, None, ["llama-new"]),  # nobody misses what failed
        (0, None, ["llama-new", "llama-old"]),
        (1, TargetRef(kind="Pod", namespace="serving", name="llama-old"), ["llama-old"]),
    ],
)
def test_what_is_left_of_a_pod_that_was_replaced_is_a_target_only_by_name(
    ready: int, asked: TargetRef | None, names: list[str]
) -> None:
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "llama", "uid": "u-1", "controller": True}
    spec = {"containers": [{"name": "vllm", "image": "vllm/vllm-openai:v0.11.0"}]}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "llama", "namespace": "serving", "uid": "u-1"},
        "spec": {"replicas": 1, "template": {"spec": spec}},
        "status": {"replicas": 1, "readyReplicas": ready},
    }
    pods = _owned(owner, spec, {"llama-new": "Running", "llama-old": "Failed"})
    report = diagnose(Snapshot(objects=(deployment, *pods), taken_at="2026-01-01T00:00:00Z", target=asked), installed())

    assert sorted(name for target in report.targets for name in target.pods) == names


@pytest.mark.parametrize(
    ("kind", "names"),
    [("Complete", ["prefetch-b"]), ("Failed", ["prefetch-a", "prefetch-b"])],
)
def test_of_a_job_that_is_complete_the_pods_that_failed_before_are_no_targets(kind: str, names: list[str]) -> None:
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "prefetch", "uid": "u-1", "controller": True}
    spec = {"restartPolicy": "Never", "containers": [{"name": "dl", "image": "python:3.12-slim"}]}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "prefetch", "namespace": "serving", "uid": "u-1"},
        "spec": {"template": {"spec": spec}},
        "status": {"failed": 1, "conditions": [{"type": kind, "status": "True"}]},
    }
    pods = _owned(owner, spec, {"prefetch-a": "Failed", "prefetch-b": "Succeeded"})
    asked = TargetRef(kind="Job", namespace="serving", name="prefetch", api_version="batch/v1")
    report = diagnose(Snapshot(objects=(job, *pods), taken_at="2026-01-01T00:00:00Z", target=asked), installed())

    assert sorted(name for target in report.targets for name in target.pods) == names


def test_a_kind_of_another_group_is_found_without_its_group_where_only_one_has_the_name() -> None:
    def service(group: str) -> dict[str, Any]:
        return {
            "apiVersion": f"{group}/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": "llama", "namespace": "serving"},
            "spec": {"engine": {"runner": {"name": "ome-container", "image": "vllm/vllm-openai:v0.11.0"}}},
        }

    asked = TargetRef(kind="InferenceService", namespace="serving", name="llama")
    one = Snapshot(objects=(service("ome.io"),), target=asked)
    two = Snapshot(objects=(service("ome.io"), service("inference.llmkube.dev")), target=asked)

    assert [t.name for t in diagnose(one, []).targets] == ["llama"]
    assert not diagnose(two, []).targets


def test_what_could_not_be_read_is_in_the_report() -> None:
    snapshot = Snapshot(missing=(Missing(source="logs", ref="serving/a", reason="forbidden: pods/log"),))

    assert [(n.source, n.reason) for n in diagnose(snapshot, []).not_read] == [("logs", "forbidden: pods/log")]


def test_a_malformed_object_costs_itself_only() -> None:
    bad = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bad", "namespace": "serving"}, "spec": "none"}
    good = _pods("a")
    report = diagnose(Snapshot(objects=(*good.objects, bad), taken_at=good.taken_at), [])

    assert [t.name for t in report.targets] == ["a"]
    assert report.not_read[0].ref == "Pod/serving/bad"
    assert report.not_read[0].reason.startswith("malformed")


def test_of_two_causes_that_explain_each_other_the_more_certain_one_counts() -> None:
    sure = _finding("sure", explains=("guess",)), 2.0
    guess = _finding("guess", explains=("sure",), confidence="likely"), 1.0

    assert _ids(rank([guess, sure])) == [("sure", "cause"), ("guess", "symptom")]


def test_what_is_certain_is_no_consequence_of_a_guess() -> None:
    sure = _finding("sure", explains=("crash-loop",))
    likely = _finding("likely", confidence="likely", explains=("crash-loop",))
    guess = _finding("guess", explains=("sure", "likely"), confidence="possible"), 1.0

    assert _ids(rank([guess, (sure, 2.0)])) == [("sure", "cause"), ("guess", "cause")]
    assert _ids(rank([guess, (likely, 2.0)])) == [("guess", "cause"), ("likely", "symptom")]


def test_refused_requests_stand_below_what_ends_a_server() -> None:
    refused = _finding("refused", confidence="likely"), 1.0
    ended = _finding("ended", confidence="possible", explains=("crash-loop",)), 2.0

    assert _ids(rank([refused, ended])) == [("ended", "cause"), ("refused", "cause")]


_GATED = "OSError: You are trying to access a gated repo."
_ADDRESS = "OSError: [Errno 98] Address already in use"


def _two_containers(first: str, second: str, *, timestamps: bool) -> doc.Target:
    """A pod of two containers that both ended with an error; each log is one line behind some that say nothing."""
    ended = {
        "exitCode": 1,
        "reason": "Error",
        "startedAt": "2026-01-01T00:00:00Z",
        "finishedAt": "2026-01-01T00:01:00Z",
    }
    state = {"restartCount": 3, "ready": False, "state": {"terminated": ended}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "llama-0", "namespace": "serving"},
        "spec": {"containers": [{"name": name, "image": "vllm/vllm-openai:v0.11.0"} for name in ("one", "two")]},
        "status": {"phase": "Running", "containerStatuses": [{"name": name, **state} for name in ("one", "two")]},
    }
    texts = zip(("one", "two"), (first, second), strict=True)
    logs = tuple(
        LogText(text=text, namespace="serving", pod="llama-0", container=name, timestamps=timestamps)
        for name, text in texts
    )
    return diagnose(Snapshot(objects=(pod,), logs=logs, taken_at="2026-01-01T00:02:00Z"), installed()).targets[0]


def test_of_two_certain_causes_in_two_containers_both_are_shown_and_the_earlier_is_first() -> None:
    late = f"2026-01-01T00:00:30.000000000Z {_GATED}\n"
    early = "2026-01-01T00:00:01.000000000Z starting\n" * 9 + f"2026-01-01T00:00:09.000000000Z {_ADDRESS}\n"

    shown = [_two_containers(*texts, timestamps=True) for texts in ((late, early), (early, late))]

    assert [[f.id for f in target.findings if f.role == "cause"] for target in shown] == [
        ["port-in-use", "hf-unauthorized"]
    ] * 2


@pytest.mark.parametrize(("first", "said"), [("2026-01-01T00:00:10", False), ("2026-01-01T03:00:00", True)])
def test_a_log_that_does_not_reach_back_to_its_start_is_named(first: str, said: bool) -> None:
    ended = {"exitCode": 1, "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T03:00:10Z"}
    status = {"name": "vllm", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "llama-0", "namespace": "serving"},
        "spec": {"containers": [{"name": "vllm", "image": "vllm/vllm-openai:v0.11.0"}]},
        "status": {"phase": "Running", "containerStatuses": [{**status, "lastState": {"terminated": ended}}]},
    }
    text = f"{first}.000000000Z {_ADDRESS}\n"
    log = LogText(text=text, namespace="serving", pod="llama-0", container="vllm", previous=True, timestamps=True)
    report = diagnose(Snapshot(objects=(pod,), logs=(log,), taken_at="2026-01-01T03:01:00Z"), installed())

    assert [(n.source, n.ref) for n in report.not_read] == [("logs", "serving/llama-0/vllm (previous)")] * said
    assert all(n.reason.startswith("begins 3 h after its container") for n in report.not_read)


def test_a_log_that_breaks_off_with_an_error_is_not_healthy_for_a_note() -> None:
    def note(pod: Any) -> Iterator[Finding]:
        yield Finding(role="note", summary="no cap", evidence=(Evidence(source="pod", ref="x", text="y"),))

    error = 'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\nOSError: [Errno 5] Input/output error\n'
    ready = "INFO:     Application startup complete.\n"
    verdicts = [
        diagnose(Snapshot(logs=(LogText(text=text),)), [_check("note", note)]).targets[0].verdict
        for text in (error, error + ready)
    ]

    assert verdicts == ["undetermined", "healthy"]


def test_an_ollama_that_could_not_load_the_model_last_asked_for_is_not_healthy() -> None:
    up = 'level=INFO source=routes.go:1821 msg="Listening on [::]:11434 (version 0.31.1)"\n'
    failed = (
        'level=INFO source=sched.go:641 msg="Load failed" error="llama-server process has terminated: exit status 1"\n'
    )
    loaded = 'level=INFO source=llama_server.go:1354 msg="llama-server started in 2.11 seconds"\n'
    verdicts = [
        diagnose(Snapshot(logs=(LogText(text=text),)), installed()).targets[0].verdict
        for text in (up + failed, up + failed + loaded, up + loaded + failed)
    ]

    assert verdicts == ["undetermined", "healthy", "undetermined"]


_OK = 'INFO:     10.0.1.4:41860 - "POST /v1/chat/completions HTTP/1.1" 200 OK\n'
_CAUGHT = """ERROR 11-06 11:26:41 [serving_chat.py:1181] Traceback (most recent call last):
ERROR 11-06 11:26:41 [serving_chat.py:1181]   File "/vllm/tool_parsers/hermes.py", line 291, in extract
ERROR 11-06 11:26:41 [serving_chat.py:1181] partial_json_parser.core.exceptions.MalformedJSON: Missing pair
"""
_HUNG_UP = """ERROR:    Exception in ASGI application
Traceback (most recent call last):
  File "/usr/lib/python3/dist-packages/starlette/responses.py", line 265, in __call__
    await wrap(partial(self.listen_for_disconnect, receive))
asyncio.exceptions.CancelledError: Cancelled by cancel scope 757f107d7cd0

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/usr/lib/python3/dist-packages/vllm/engine/async_llm_engine.py", line 782, in generate
    raise e
asyncio.exceptions.CancelledError
"""
_REFUSED = 'INFO:     10.0.1.4:41860 - "POST /v1/chat/completions HTTP/1.1" 400 Bad Request\n'


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (_OK * 2, "healthy"),
        (_OK, "undetermined"),
        (_OK * 2 + _CAUGHT + _REFUSED, "healthy"),
        (_OK * 2 + _CAUGHT, "undetermined"),  # the last that it said
        (_OK * 2 + _CAUGHT + _OK, "undetermined"),
        (_OK * 2 + _HUNG_UP + _OK, "healthy"),  # of one request, as uvicorn says
        (_OK * 2 + _HUNG_UP, "undetermined"),
        ("Serving endpoints:\n  0.0.0.0:8000/openapi.json\n", "healthy"),
        ("INFO serve 19100 -- Application 'llm' is ready at http://0.0.0.0:8000/.\n", "healthy"),
        ("INFO: the dashboard is ready at http://127.0.0.1:8265\n", "undetermined"),
    ],
)
def test_a_log_without_its_head_is_healthy_where_it_answers_requests(text: str, verdict: str) -> None:
    assert diagnose(Snapshot(logs=(LogText(text=text),)), []).targets[0].verdict == verdict
