"""The terminal report: whole outputs as files, and what must hold for any report, however hostile.

`UPDATE_GOLDEN=1 pytest tests/test_report_text.py` rewrites the files under `tests/golden/text`.
"""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from kubectl_llmdoctor.report import document as doc
from kubectl_llmdoctor.report import words
from kubectl_llmdoctor.report.document import (
    Change,
    EngineInfo,
    Evidence,
    Finding,
    Fix,
    NotChecked,
    NotRead,
    Patch,
    Placement,
    Report,
    Target,
)
from kubectl_llmdoctor.report.text import render
from kubectl_llmdoctor.report.text_layout import clean, shorten, wrap

GOLDEN = Path(__file__).parent / "golden" / "text"
NOW = "2026-11-20T10:00:00Z"
VLLM = EngineInfo(name="vllm", version="0.9.1", container="vllm", config={"port": 8000, "tensor_parallel_size": 2})
UNREAD = (NotRead(source="agent", reason="not installed"), NotRead(source="prometheus", reason="none found"))


# -- realistic reports ------------------------------------------------------------------------------------------------


def pod(name: str, verdict: doc.Verdict, **fields: Any) -> Target:
    return Target(api_version="v1", kind="Pod", namespace="serving", name=name, verdict=verdict, **fields)


def cause(check: str, title: str, summary: str, **fields: Any) -> Finding:
    return Finding(
        id=check, role="cause", severity="critical", confidence="certain", title=title, summary=summary, **fields
    )


def other(role: doc.Role, check: str, title: str, summary: str = "", **fields: Any) -> Finding:
    severity: doc.Severity = "info" if role == "note" else "warning"
    return Finding(
        id=check, role=role, **{"severity": severity, "confidence": "certain"} | fields, title=title, summary=summary
    )


def report(*targets: Target, **fields: Any) -> Report:
    return Report(tool_version="0.1.0", **{"taken_at": NOW, "not_read": UNREAD} | fields, targets=targets)


def crash_loop(name: str, container: str) -> Finding:
    return other(
        "symptom",
        "crash-loop",
        "The container restarts again and again",
        f"{container} ended 7 times with exit code 1, last 2 min ago.",
        severity="critical",
        evidence=(
            Evidence(
                source="pod",
                ref=f"status.containerStatuses[{container}].lastState.terminated",
                text="reason: Error, exitCode: 1",
            ),
            Evidence(
                source="event",
                ref=f"Pod/{name}",
                text=f"BackOff: Back-off restarting failed container {container} in pod {name}",
                age_seconds=55,
                count=31,
            ),
        ),
    )


KV_CACHE = pod(
    "llama-70b-0",
    "cause-found",
    workload="StatefulSet/llama-70b",
    pods=("llama-70b-0",),
    status="CrashLoopBackOff, 7 restarts in 21 min",
    engine=VLLM,
    impact="0 of 1 replicas ready; Service llama-70b has no endpoint",
    changes=(
        Change(at="2026-11-20T09:37:00Z", what="rollout", text="revision 7 to 8: vllm lost --max-model-len 8192"),
        Change(at="2026-11-20T09:39:30Z", what="first fatal line", text="vllm (previous), line 213"),
    ),
    findings=(
        cause(
            "kv-cache-below-max-len",
            "One request of the maximum length does not fit into the KV cache",
            "Nothing caps the context, so the model's own 131072 applies: "
            "it needs 16.0 GiB of cache, 0.98 GiB are left.",
            evidence=(
                Evidence(
                    source="log",
                    ref="llama-70b-0 vllm (previous)",
                    text="ValueError: To serve at least one request with the models's max seq len (131072), (16.0 GiB "
                    "KV cache is needed, which is larger than the available KV cache memory (0.98 GiB). Based on the "
                    "available memory, the estimated maximum model length is 8064. Try increasing "
                    "`gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine.",
                    line=213,
                ),
                Evidence(
                    source="pod",
                    ref="spec.containers[vllm].args",
                    text="--tensor-parallel-size 2          (no --max-model-len)",
                ),
                Evidence(source="node", ref="Node/gpu-1", text="4 x H100 80GB, 2 used by this pod"),
            ),
            explains=("crash-loop", "readiness-failing"),
            fixes=(
                Fix(
                    summary="Cap the context at what fits: 8064 tokens",
                    commands=(
                        'kubectl -n serving patch statefulset/llama-70b --type=json -p \'[{"op":"add",'
                        '"path":"/spec/template/spec/containers/0/args/-","value":"--max-model-len=8064"}]\'',
                    ),
                ),
                Fix(summary="Use all four GPUs of the node: with --tensor-parallel-size 4, 131072 tokens fit 3 times"),
            ),
            docs="https://example.org/checks/kv-cache-below-max-len",
        ),
        crash_loop("llama-70b-0", "vllm"),
        other("symptom", "readiness-failing", "The readiness probe fails"),
        other(
            "risk",
            "shm-too-small",
            "/dev/shm is too small for the workers of one replica",
            "/dev/shm is 64 MiB and two workers share it.",
            fixes=(
                Fix(
                    summary="Mount an emptyDir of medium Memory at /dev/shm",
                    patch=Patch(target="apps/v1 StatefulSet/llama-70b", type="strategic", body={"spec": {"it's": 1}}),
                ),
            ),
        ),
        other("note", "nccl-timeout-ineffective", "NCCL_TIMEOUT has no effect", "vLLM 0.9.1 does not read it."),
    ),
    suppressed=(doc.Suppressed(id="cpu-limit-missing", reason="we mean it, see the runbook"),),
    not_checked=(
        NotChecked(id="ecc-uncorrectable", reason="no node agent"),
        NotChecked(id="gpu-fallen-off", reason="no node agent"),
        NotChecked(id="kv-cache-pressure", reason="no metrics of the engine"),
    ),
)
PENDING = pod(
    "mixtral-7d9f8c-x2k4p",
    "cause-found",
    workload="Deployment/mixtral",
    pods=("mixtral-7d9f8c-x2k4p",),
    status="Pending for 14 min",
    engine=EngineInfo(name="vllm", version=None, container="vllm", config={}),
    impact="0 of 1 replicas ready",
    placement=(
        Placement(nodes=("gpu-c-1.eu-central-1.example.com",), fits=False, reasons=("taint team=a:NoSchedule",)),
        Placement(
            nodes=tuple(f"cpu-{i:03}" for i in range(117)),
            fits=False,
            reasons=("no nvidia.com/gpu", "memory: 400Gi wanted, 52Gi free"),
        ),
        Placement(
            nodes=tuple(f"gpu-a-{i:03}" for i in range(180)), fits=False, reasons=("nvidia.com/gpu: 8 wanted, 4 free",)
        ),
        Placement(nodes=("gpu-b-1", "gpu-b-2"), fits=False, reasons=("cordoned since 09:12",)),
    ),
    findings=(
        cause(
            "gpu-fragmented",
            "Enough GPUs are free, but on no single node",
            "The pod asks for 8 nvidia.com/gpu on one node. 720 are free in total, 4 at most on one node.",
            evidence=(
                Evidence(
                    source="event",
                    ref="Pod/mixtral-7d9f8c-x2k4p",
                    text="FailedScheduling: 0/300 nodes are available: 1 node(s) had untolerated taint {team: a}, 117 "
                    "node(s) didn't match Pod's node affinity/selector, 180 Insufficient nvidia.com/gpu, 2 node(s) "
                    "were unschedulable. preemption: 0/300 nodes are available: 300 Preemption is not helpful for "
                    "scheduling.",
                    age_seconds=190,
                    count=12,
                ),
                Evidence(source="pod", ref="spec.containers[vllm].resources.limits", text="nvidia.com/gpu: 8"),
            ),
            explains=("pending",),
            fixes=(
                Fix(
                    summary="Drain one gpu-a node of its smaller pods, so that 8 GPUs come free together",
                    owner="platform",
                    commands=(
                        "kubectl drain gpu-a-004 --ignore-daemonsets --delete-emptydir-data",
                        "kubectl uncordon gpu-a-004",
                    ),
                ),
                Fix(summary="Spread the model over two nodes: --pipeline-parallel-size 2, with 4 GPUs each"),
            ),
        ),
        other("symptom", "pending", "The pod is Pending", severity="critical"),
    ),
)
FORBIDDEN = 'forbidden: User "eve" cannot get resource "pods/log" in API group "" in the namespace "serving"'
OOM_KILLED = pod(
    "qwen-6f7b9-abcde",
    "cause-found",
    workload="Deployment/qwen",
    status="OOMKilled, 3 restarts in 12 min",
    engine=VLLM,
    impact="1 of 2 replicas ready; Service qwen has 1 endpoint",
    findings=(
        Finding(
            id="oom-weights-load",
            role="cause",
            severity="critical",
            confidence="likely",
            title="The memory limit is too small to load the weights",
            summary="The limit is 32 GiB; the checkpoint's 61.0 GiB pass through host memory while they are loaded.",
            evidence=(
                Evidence(
                    source="pod", ref="status.containerStatuses[vllm].lastState", text="reason: OOMKilled, exitCode 137"
                ),
                Evidence(source="pod", ref="spec.containers[vllm].resources.limits", text="memory: 32Gi"),
                Evidence(
                    source="log",
                    ref="qwen-6f7b9-abcde vllm (previous)",
                    text="Loading safetensors checkpoint shards:  47% Completed | 8/17",
                    line=91,
                ),
                Evidence(source="metric", ref="container_memory_working_set_bytes", text="31.9 GiB at 09:56:30"),
                Evidence(
                    source="kernel-log",
                    ref="Node/gpu-1",
                    text="Memory cgroup out of memory: Killed process 4242 (python3)",
                ),
            ),
            fixes=(
                Fix(
                    summary="Raise the memory limit to 80Gi",
                    patch=Patch(
                        target="apps/v1 Deployment/qwen",
                        type="json",
                        body=[
                            {
                                "op": "add",
                                "path": "/spec/template/spec/containers/0/resources/limits/memory",
                                "value": "80Gi",
                            }
                        ],
                    ),
                ),
                Fix(summary="Give the nodes of this pool more memory", owner="platform"),
            ),
        ),
        other("symptom", "restarts", "The container was restarted", "3 restarts in 12 min."),
        other(
            "risk",
            "probe-too-short",
            "A probe gives up before the model is loaded",
            "Far too long. " * 9,
            severity="critical",
        ),
    ),
)
HEALTHY = pod(
    "llama-0",
    "healthy",
    workload="Deployment/llama",
    engine=VLLM,
    impact="3 of 3 replicas ready",
    findings=(other("note", "uncapped", "Note"), other("note", "prefix-cache", "Note")),
)
UNDETERMINED = pod(
    "qwen-0",
    "undetermined",
    workload="StatefulSet/qwen",
    status="CrashLoopBackOff, 7 restarts in 21 min",
    engine=EngineInfo(name="sglang", version="0.4.6", container="sglang", config={}),
    impact="0 of 1 replicas ready",
    findings=(crash_loop("qwen-0", "sglang"),),
    next_steps=(
        "Read the lines before the last error:",
        "kubectl -n serving logs qwen-0 -c sglang --previous | tail -n 200",
        "Nothing is known of the node gpu-3: ask for its kernel log (NVRM, Xid) around 09:58.",
    ),
)
AT_RISK = Target(
    api_version="apps/v1",
    kind="Deployment",
    namespace="serving",
    name="phi",
    workload="Deployment/phi",
    verdict="at-risk",
    engine=VLLM,
    findings=(
        other(
            "risk",
            "shm-too-small",
            "/dev/shm is too small for the workers of one replica",
            "/dev/shm is the runtime's 64 MiB; two workers exchange tensors through it and die once it is full.",
            confidence="likely",
            evidence=(
                Evidence(
                    source="manifest",
                    ref="spec.template.spec.containers[vllm].volumeMounts",
                    text="(nothing at /dev/shm)",
                    file="deploy/phi.yaml",
                    line=41,
                ),
            ),
            fixes=(
                Fix(
                    summary="Mount an emptyDir of medium Memory, sizeLimit 2Gi, at /dev/shm",
                    commands=("kubectl -n serving patch deployment/phi -p '{}'",),
                ),
            ),
        ),
    ),
)

CASES: dict[str, tuple[Report, dict[str, Any]]] = {
    "kv-cache": (report(KV_CACHE), {}),
    "kv-cache-120": (report(KV_CACHE), {"width": 120}),
    "kv-cache-color": (report(KV_CACHE), {"color": True}),
    "kv-cache-wide": (report(KV_CACHE), {"wide": True}),
    "pending-300-nodes": (
        report(PENDING, not_read=(NotRead(source="logs", ref="serving/mixtral", reason=FORBIDDEN), *UNREAD)),
        {},
    ),
    "oom-killed": (report(OOM_KILLED), {}),
    "healthy": (report(HEALTHY), {}),
    "undetermined": (report(UNDETERMINED), {}),
    "at-risk": (report(AT_RISK, taken_at=None, not_read=()), {}),
    "several": (report(KV_CACHE, UNDETERMINED, AT_RISK, HEALTHY, pod("a", "healthy", status="Running")), {}),
    "nothing": (report(), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_whole_output(name: str) -> None:
    document, options = CASES[name]
    written = render(document, **options)
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(written, encoding="utf-8")
    assert written == path.read_text(encoding="utf-8")


def test_every_golden_file_has_a_case() -> None:
    assert {path.stem for path in GOLDEN.glob("*")} == set(CASES)


# -- what the reader relies on ----------------------------------------------------------------------------------------


def test_the_common_case_fits_one_screen() -> None:
    """One cause, three pieces of evidence, two fixes, changes and a risk."""
    assert len(render(report(KV_CACHE)).splitlines()) <= 30


def test_a_thousand_nodes_fit_one_screen() -> None:
    groups = tuple(Placement(nodes=tuple(f"n{g}-{i}" for i in range(10)), fits=False) for g in range(100))
    text = render(report(pod("a", "cause-found", placement=groups)))
    assert "0 of 1000 nodes fit" in text
    assert "… 940 more nodes: -o wide" in text
    assert len(text.splitlines()) < 24


def test_colour_adds_nothing_but_colour() -> None:
    for document, options in CASES.values():
        colored = render(document, **options | {"color": True})
        assert re.sub(r"\x1b\[[0-9;]+m", "", colored) == render(document, **options | {"color": False})


def test_commands_stand_on_lines_of_their_own() -> None:
    script = "kubectl apply -f - <<'EOF'\nkind: Pod\nspec:\n\n  x: 1\nEOF"
    long = "kubectl patch pod/a -p '" + "x " * 100 + "'"
    fix = Fix(summary="Do it", commands=(script, long, "kubectl get pods"))
    lines = render(report(pod("a", "cause-found", findings=(cause("x", "X", "x", fixes=(fix,)),)))).splitlines()
    start = lines.index("kubectl apply -f - <<'EOF'")
    assert lines[start : start + 6] == script.split("\n")
    assert [line.strip() for line in lines[start + 6 : start + 8]] == [long, "kubectl get pods"]


def test_a_patch_alone_becomes_a_command_that_a_shell_reads_back() -> None:
    import json
    import shlex

    line = next(line for line in render(report(KV_CACHE), wide=True).splitlines() if "strategic" in line)
    words = shlex.split(line)
    assert words[:5] == ["kubectl", "-n", "serving", "patch", "statefulset/llama-70b"]
    assert json.loads(words[-1]) == {"spec": {"it's": 1}}


def test_who_acts_is_said() -> None:
    assert "(by the platform team)" in render(report(PENDING))
    assert "(by the model's owner)" in render(report(KV_CACHE))


def test_a_few_files_that_were_not_read_are_named() -> None:
    torn = [
        NotRead(source="file", ref=f"deploy/llama-{n}.yaml:7", reason="YAML error at line 7: torn") for n in range(4)
    ]
    assert "NOT SEEN  llama-0.yaml, llama-1.yaml: YAML error at line 7" in render(report(not_read=tuple(torn[:2])))
    assert "NOT SEEN  file (4): YAML error at line 7" in render(report(not_read=tuple(torn)))


def test_a_healthy_pod_that_was_not_seen_whole_says_so() -> None:
    text = render(report(HEALTHY, not_read=(NotRead(source="logs", ref="serving/llama-0", reason=FORBIDDEN),)))
    assert "NOT SEEN  logs: forbidden" in text
    assert "kubectl llmdoctor access" in text


def test_a_broken_check_is_said_of_a_healthy_pod_too() -> None:
    failed = NotChecked(id="shm-too-small", reason="broken check: KeyError: 'x'")
    text = render(report(pod("a", "healthy", not_checked=(failed,))))
    assert "1 check not run (-o wide names them): broken check" in text


def test_a_verdict_of_healthy_hides_no_cause() -> None:
    assert "CAUSE" in render(report(pod("a", "healthy", findings=(cause("x", "X", "x"),))))


def test_a_cut_list_says_so_and_wide_shows_it_all() -> None:
    evidence = tuple(Evidence(source="log", ref="vllm", text=f"line number {i}", line=i) for i in range(1, 10))
    risks = tuple(other("risk", f"risk-{i}", f"Risk {i}") for i in range(9))
    document = report(pod("a", "cause-found", findings=(cause("x", "X", "x", evidence=evidence), *risks)))
    short, whole = render(document), render(document, wide=True)
    assert "… 5 more: -o wide" in short
    assert "line number 5" not in short
    assert "… 4 more: -o wide" in short
    assert all(f"line number {i}" in whole for i in range(1, 10))
    assert all(f"risk-{i}" in whole for i in range(9))
    assert "-o wide" not in whole


def test_two_causes_quote_advise_and_explain_nothing_twice() -> None:
    said = Evidence(source="pod", ref="status.conditions[PodScheduled]", text="0/9 nodes are available")
    causes = [
        cause(
            check,
            title,
            f"{title}.",
            evidence=(said, Evidence(source="node", ref="Node/gpu-1", text=f"what {check} says")),
            fixes=(Fix(summary=steps, owner="platform", commands=("kubectl get pods -A",)),),
            explains=("pod-pending",),
        )
        for check, title, steps in (
            ("a", "Taken", "Free 1 GPU, and drop tier=x from the selector"),
            ("b", "Not selected", "Drop tier=x from the selector, and free 1 GPU"),
        )
    ]
    text = render(report(pod("p", "cause-found", findings=tuple(causes))))

    assert [text.count(once) for once in ("0/9 nodes", "Free 1 GPU", "kubectl get pods", "EXPLAINS")] == [1, 1, 1, 1]
    assert "what a says" in text
    assert "what b says" in text
    assert "Both at once, as above (by the platform team)" in text
    assert render(report(pod("p", "cause-found", findings=tuple(causes))), wide=True).count("0/9 nodes") == 2


def test_a_fix_is_told_whole_with_who_makes_it() -> None:
    long = "Set one thing, " * 30 + "and the last"
    found = cause("x", "X", "x", fixes=(Fix(summary=long, owner="platform"),))
    text = " ".join(render(report(pod("p", "cause-found", findings=(found,)))).split())

    assert "and the last (by the platform team)" in text


def test_what_a_change_takes_away_and_puts_in_stand_below_each_other() -> None:
    path = "spec.template.spec.containers[litellm].resources.limits.memory"
    patch = Patch(target="apps/v1 Deployment/x", type="json", body=[], diff=(f"- {path}: 512Mi", f"+ {path}: 2Gi"))
    found = cause("x", "X", "x", fixes=(Fix(summary="Do it", owner="model", patch=patch),))
    lines = [line.strip() for line in render(report(pod("p", "cause-found", findings=(found,)))).splitlines()]

    assert "- …template.spec.containers[litellm].resources.limits.memory: 512Mi" in lines
    assert "+ …template.spec.containers[litellm].resources.limits.memory: 2Gi" in lines


def test_times_are_absolute_when_now_is_unknown() -> None:
    changes = (Change(at="2026-11-20T10:37:00+01:00", what="rollout", text="x"), Change(at="soon", what="", text="y"))
    text = render(report(pod("a", "cause-found", changes=changes), taken_at=None))
    assert "CHANGED   2026-11-20 09:37:00Z   rollout: x" in text
    assert "soon" in text


H100 = doc.Capacity(
    product="H100",
    resource="nvidia.com/gpu",
    nodes=2,
    total=16,
    allocatable=16,
    allocated=13,
    free=3,
    chunks={"1": 1, "2": 1},
    stranded={"cordoned": 1},
)


def test_what_holds_for_the_cluster_is_shown() -> None:
    cluster = doc.Cluster(findings=(other("risk", "driver-old", "Driver"),))
    text = render(report(HEALTHY, cluster=cluster))
    assert "cluster   at risk" in text
    told = "H100: 2 nodes, 16 GPUs, 13 used, 3 free (1 node with 1, 1 node with 2), 1 stranded: cordoned"
    assert words.capacity(H100) == told


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("a\x1b[31;1mred\x1b[0m", "ared"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b31mred\x9d0;t\x9c.", "red."),
        ("\x1bPq#0\x1b\\text \x1b(B\x1b7end", "text end"),
        ("\x1b]0;never ends", "]0;never ends"),
        ("10%\r20%\tdone\x00\x07", "10% 20% done"),
        ("user\u202egnp.exe\u202c\u2066\u200b\ufeff\u200d\u2028.", "usergnp.exe ."),
        ("caf\u00e9 \u6a21\u578b \U0001f600", "caf\u00e9 \u6a21\u578b \U0001f600"),
        ("\ud800", "\ufffd"),
    ],
)
def test_hostile_text_is_shown_harmless(raw: str, shown: str) -> None:
    assert clean(raw) == shown


def test_lines_break_at_blanks_only() -> None:
    assert wrap("aa  bb cc", 6) == ["aa  bb", "cc"]
    assert wrap("a looooooong b", 5) == ["a", "looooooong", "b"]
    assert wrap("one two three four", 9, 1) == ["one two …"]
    assert wrap("x" * 30, 9, 3) == ["x" * 26 + "…"]
    assert wrap("limits:\n  memory: 32Gi\n\n", 40) == ["limits:", "  memory: 32Gi"]
    assert wrap("模型模型 模型", 9) == ["模型模型", "模型"]
    assert wrap("", 9) == []
    assert shorten("模型模型", 5) == "模型…"


# -- what must hold for any report ------------------------------------------------------------------------------------

HOSTILE = st.text(
    alphabet=st.one_of(
        st.characters(),
        st.sampled_from("\x1b[]0;m\x07\x9b\x9d\\\r\n\t \u202e\u2066\u200b\u200d\ud800模型é\u0301"),
    ),
    max_size=20,
)
WORDS = st.lists(st.text(alphabet="abcXYZ0189-_=/.:,'\"{}模型é", min_size=1, max_size=12), max_size=25).map(" ".join)
SLUG = st.text(alphabet="abcxyz-", max_size=12)


def tuples(items: st.SearchStrategy[Any], most: int = 2) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(items, max_size=most).map(tuple)


def reports(text: st.SearchStrategy[str], name: st.SearchStrategy[str]) -> st.SearchStrategy[Report]:
    """Reports whose prose is `text` and whose names and ids are `name`."""
    number = st.none() | st.integers(-5, 10**12)
    evidence = st.builds(
        Evidence,
        source=st.sampled_from(doc.EvidenceSource.__args__),  # type: ignore[attr-defined]
        ref=text,
        text=text,
        file=st.none() | name,
        line=number,
        age_seconds=number,
        count=number,
    )
    body: st.SearchStrategy[Any] = st.recursive(
        st.none() | st.booleans() | st.integers() | text, lambda inner: st.lists(inner) | st.dictionaries(text, inner)
    )
    patch = st.builds(Patch, target=text, type=st.sampled_from(("strategic", "merge", "json")), body=body)
    fix = st.builds(
        Fix,
        summary=text,
        owner=st.sampled_from(("model", "platform")),
        commands=tuples(text.map(lambda command: f"kubectl {command}"), 2),
        patch=st.none() | patch,
    )
    finding = st.builds(
        Finding,
        id=name,
        role=st.sampled_from(doc.ROLES),
        severity=st.sampled_from(doc.SEVERITIES),
        confidence=st.sampled_from(doc.CONFIDENCES),
        title=text,
        summary=text,
        evidence=tuples(evidence),
        explains=tuples(name),
        fixes=tuples(fix, 3),
        docs=name,
        pods=tuples(name),
    )
    config = st.dictionaries(name, text, max_size=2)
    engine = st.builds(EngineInfo, name=name, version=st.none() | name, container=name, config=config)
    time = st.none() | name | st.datetimes().map(lambda t: t.isoformat() + "Z")
    target = st.builds(
        Target,
        api_version=st.just("v1"),
        kind=st.sampled_from(("Pod", "Deployment", "")),
        namespace=name,
        name=name,
        verdict=st.sampled_from(doc.Verdict.__args__),  # type: ignore[attr-defined]
        workload=name,
        pods=tuples(name),
        status=text,
        engine=st.none() | engine,
        engines=tuples(engine, 2),
        impact=text,
        changes=tuples(st.builds(Change, at=time, what=text, text=text), 6),
        findings=tuples(finding),
        placement=tuples(st.builds(Placement, nodes=tuples(name, 4), fits=st.booleans(), reasons=tuples(text)), 7),
        suppressed=tuples(st.builds(doc.Suppressed, id=name, reason=text), 2),
        not_checked=tuples(st.builds(NotChecked, id=name, reason=text)),
        next_steps=tuples(text | text.map(lambda command: f"kubectl {command}"), 3),
    )
    few = st.integers(0, 99)
    capacity = st.builds(
        doc.Capacity,
        product=name,
        resource=name,
        nodes=few,
        total=few,
        allocatable=few,
        allocated=few,
        free=few,
        stranded=st.dictionaries(text, few, max_size=2),
    )
    return st.builds(
        Report,
        tool_version=name,
        taken_at=time,
        targets=tuples(target, 3),
        cluster=st.builds(doc.Cluster, capacity=tuples(capacity, 2), findings=tuples(finding, 2)),
        not_read=tuples(st.builds(NotRead, source=name, reason=text, ref=name)),
    )


def measure(text: str) -> int:
    """Columns of a text, told apart from the program's own reckoning."""
    narrow = [c for c in text if not unicodedata.combining(c)]
    return len(narrow) + sum(unicodedata.east_asian_width(c) in ("W", "F") for c in narrow)


@pytest.mark.parametrize("status", ["Running, not ready", "Pending", "Terminating"])
def test_the_line_of_a_pod_that_does_not_serve_yet_or_no_more_has_its_state(status: str) -> None:
    text = render(report(replace(HEALTHY, status=status)))

    assert text.endswith(f"{status}   2 notes\n")


@settings(max_examples=60)
@given(reports(HOSTILE, HOSTILE), st.integers(0, 200), st.booleans(), st.booleans())
def test_nothing_hostile_reaches_the_terminal(document: Report, width: int, color: bool, wide: bool) -> None:
    written = render(document, width=width, color=color, wide=wide)
    assert written.endswith("\n")
    assert not written.startswith("\n")
    assert not written.endswith("\n\n")
    written.encode()
    plain = re.sub(r"\x1b\[(?:1|2|1;31|1;32|1;33|0)m", "", written) if color else written
    assert all(c == "\n" or c.isprintable() for c in plain)
    assert render(document, width=width, color=color, wide=wide) == written


@settings(max_examples=60)
@given(reports(WORDS, SLUG), st.integers(60, 160), st.booleans())
def test_only_commands_are_wider_than_the_terminal(document: Report, width: int, wide: bool) -> None:
    for line in render(document, width=width, wide=wide).splitlines():
        assert measure(line) <= width or line.lstrip().startswith("kubectl ")
        assert line == line.rstrip()


@given(HOSTILE, st.integers(40, 160))
def test_evidence_is_quoted_word_by_word(text: str, width: int) -> None:
    evidence = (Evidence(source="log", ref="vllm", text=text, line=1), Evidence(source="node", ref="n", text="short"))
    document = report(pod("a", "cause-found", findings=(cause("x", "X", "x", evidence=evidence),)))
    # what two lines of 12 columns less can hold is never cut
    for wide in (True, False) if measure(clean(text)) <= 28 else (True,):
        words = render(document, width=width, wide=wide).split()
        assert [w for line in text.split("\n") for w in clean(line).split() if w not in words] == []


@given(st.lists(st.text(alphabet="ab模\u0301\x1b ", max_size=30), max_size=6).map("\n".join), st.integers(1, 30))
def test_wrapping_keeps_every_word_and_the_width(text: str, width: int) -> None:
    lines = wrap(text, width)
    assert " ".join(lines).split() == [word for line in text.split("\n") for word in clean(line).split()]
    assert all(measure(line) <= width or len(line.split()) == 1 for line in lines)
    assert len(wrap(text, width, 2)) <= 2


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ("- spec.replicas: 1", "- spec.replicas: 1"),
        (
            "+ spec.template.spec.containers[kimi-k2-instruct].resources.limits.memory: 3072Gi",
            "+ …spec.containers[kimi-k2-instruct].resources.limits.memory: 3072Gi",
        ),
        (
            '+ spec.template.spec.volumes: [{"name":"dshm","emptyDir":{"medium":"Memory","sizeLimit":"8Gi"}}]',
            '+ …template.spec.volumes: [{"name":"dshm","emptyDir":{"medium":"Memor…',
        ),
    ],
)
def test_of_a_long_line_of_a_patch_the_value_is_shown(row: str, shown: str) -> None:
    patch = Patch(target="apps/v1 Deployment/x", type="json", body=[], diff=(row,))
    found = cause("x", "It is so", "It is so.", fixes=(Fix(summary="Do it", owner="model", patch=patch),))
    text = render(Report(tool_version="0", taken_at=NOW, targets=(pod("p", "cause-found", findings=(found,)),)))

    assert shown in [line.strip() for line in text.splitlines()]


LACKING = tuple(doc.NotChecked(id=id, reason="node gpu-1 was not read") for id in ("driver-missing", "driver-too-old"))


def test_a_node_that_a_recorded_input_lacks_can_be_added() -> None:
    likely = replace(cause("x", "It is so", "It."), confidence="likely")
    unsure = pod("p", "cause-found", findings=(likely,), not_checked=LACKING)

    assert "to add it: kubectl get node gpu-1 -o yaml, into one folder with the" in render(report(unsure, not_read=()))
    assert "to add it" not in render(report(unsure))  # a cluster says itself why it gave no node


def test_what_a_certain_cause_does_not_need_is_not_asked_for() -> None:
    sure = pod("p", "cause-found", findings=(cause("x", "It is so", "It."),), not_checked=LACKING)

    assert "gpu-1" not in render(report(sure, not_read=()))
    assert "node gpu-1 was not read (2 checks)" in render(report(sure, not_read=()), wide=True)
    assert "NOT SEEN" in render(report(sure))
    without_a_log = (*LACKING, doc.NotChecked(id="nccl-ib", reason="no log was read"))
    assert "3 checks not run" in render(report(replace(sure, not_checked=without_a_log), not_read=()))


def test_checks_that_lack_the_same_stand_together() -> None:
    text = render(report(pod("p", "healthy", not_checked=LACKING)), wide=True)

    assert "NOT RUN   node gpu-1 was not read (2 checks): driver-missing, driver-too-old" in text


# -- words that all formats share -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "Set it (in Pod/a, which must be recreated)",
            "Set it (in Pod/a, which must be recreated; by the model's owner)",
        ),
        ("Set it (HOME=/tmp; in Pod/a)", "Set it (HOME=/tmp; in Pod/a; by the model's owner)"),
        ("Set it (max_tokens counts too)", "Set it (max_tokens counts too) – by the model's owner"),
        ("Set it (as f(x) is)", "Set it (as f(x) is) – by the model's owner"),
        ("Set it", "Set it (by the model's owner)"),
    ],
)
def test_who_makes_a_fix_stands_in_the_remark_that_says_where(text: str, said: str) -> None:
    assert words.owned(text, "model") == said


def test_reasons_that_differ_only_in_a_name_are_one() -> None:
    reasons = [f"node gpu-{n} was not read" for n in range(3)] + ["no log of a was read"] * 2 + ["no log of b was read"]
    assert words.gists(reasons) == "3 nodes were not read (3), no log of 2 pods was read (3)"
    assert words.gists(["node gpu-1 was not read"]) == "node gpu-1 was not read"


@pytest.mark.parametrize(
    ("reason", "so"),
    [
        ("HTTP 403: you may not", True),
        ("Unauthorized", True),
        ("answered 401", True),
        ("dial tcp 10.40.1.9:4013: connect: connection refused", False),
        ("node gpu-403 was not read", False),
    ],
)
def test_a_number_of_an_address_is_no_refusal(reason: str, so: bool) -> None:
    assert words.forbidden(reason) is so
