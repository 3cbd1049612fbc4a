"""Hostile input: whatever comes in, a report or one clear error comes out, and no traceback."""

from __future__ import annotations

import json
import re
import shlex
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kubectl_llmdoctor.audit import audit
from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.facts.kernel_log import KernelLog
from kubectl_llmdoctor.gather.files import load
from kubectl_llmdoctor.packs import installed
from kubectl_llmdoctor.report import data, fleet, text
from kubectl_llmdoctor.report.document import Report
from kubectl_llmdoctor.snapshot import LogText, NodeData, ReadList, Snapshot, TargetRef
from tests.program import run

_SCALARS = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=20)
_TREES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
#: Names that the program looks for, so that rubbish gets deep into it.
_KEYS = st.sampled_from(
    [
        "metadata",
        "name",
        "namespace",
        "labels",
        "annotations",
        "ownerReferences",
        "spec",
        "containers",
        "initContainers",
        "args",
        "command",
        "env",
        "image",
        "ports",
        "resources",
        "limits",
        "requests",
        "volumeMounts",
        "volumes",
        "emptyDir",
        "status",
        "conditions",
        "containerStatuses",
        "state",
        "lastState",
        "waiting",
        "terminated",
        "running",
        "reason",
        "message",
        "phase",
        "nodeName",
        "template",
        "taints",
        "allocatable",
        "involvedObject",
        "type",
        "count",
        "livenessProbe",
        "startupProbe",
        "httpGet",
        "port",
        "nvidia.com/gpu",
        "tolerations",
        "affinity",
        "nodeSelector",
    ]
)
_VALUES = st.sampled_from(
    [
        "vllm",
        "vllm/vllm-openai:v0.9.1",
        "--tensor-parallel-size",
        "2",
        "sh",
        "-c",
        "Pending",
        "CrashLoopBackOff",
        "OOMKilled",
        "1Gi",
    ]
)
_K8S = st.recursive(
    _SCALARS | _VALUES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=6),
    max_leaves=30,
)
_OBJECTS = st.builds(
    lambda kind, api, body: {**body, "kind": kind, "apiVersion": api},
    st.sampled_from(
        ["Pod", "Node", "Event", "Deployment", "ReplicaSet", "Service", "ConfigMap", "LeaderWorkerSet", "X"]
    ),
    st.sampled_from(["v1", "apps/v1", "x/y", ""]),
    st.dictionaries(_KEYS, _K8S, max_size=5),
)

_SLOW = settings(max_examples=150, suppress_health_check=list(HealthCheck))


def _judge(snapshot: Snapshot) -> Report:
    report = diagnose(snapshot, installed())
    broken = [n for t in report.targets for n in t.not_checked if n.broken]
    assert broken == []
    for wide in (False, True):
        shown = text.render(report, wide=wide)
        assert not any(ord(c) < 32 and c != "\n" for c in shown)
    json.loads(data.to_json(report))
    return report


@_SLOW
@given(
    st.lists(_OBJECTS, max_size=6),
    st.text(max_size=300),
    st.sampled_from([None, "2026-01-01T00:00:00Z", "yesterday"]),
    st.sampled_from(
        [None, TargetRef(kind="Pod", name="x"), TargetRef(kind="Deployment", name="x", namespace="default")]
    ),
)
def test_any_objects_and_any_log_give_a_report(
    objects: list[dict[str, Any]], log: str, taken_at: str | None, target: TargetRef | None
) -> None:
    logs = (LogText(text=log, pod="x", container="x"), LogText(text=log))
    nodes = {"x": NodeData(agent={"containers": [log, {}], "gpus": 3}, kernel_log=log)}

    _judge(Snapshot(objects=tuple(objects), logs=logs, nodes=nodes, taken_at=taken_at, target=target))


@_SLOW
@given(st.lists(_OBJECTS, max_size=6), _K8S, st.sampled_from([None, "2026-01-01T00:00:00Z"]))
def test_any_objects_give_an_audit(objects: list[dict[str, Any]], status: Any, taken_at: str | None) -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "status": status}
    read = (ReadList(kind="Pod"), ReadList(kind="Node"))

    report = audit(Snapshot(objects=(*objects, node), read=read, taken_at=taken_at), installed())

    unjudged = [*report.not_checked, *(n for target in report.targets for n in target.not_checked)]
    assert [n for n in unjudged if n.broken] == []
    for wide in (False, True):
        assert not any(ord(c) < 32 and c != "\n" for c in fleet.render(report, wide=wide))
    json.loads(data.to_json(report))


@_SLOW
@given(_K8S, _K8S)
def test_any_pod_spec_and_status_give_a_report(spec: Any, status: Any) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec, "status": status}

    _judge(Snapshot(objects=(pod,), taken_at="2026-01-01T00:00:00Z", logs=(LogText(text="x", pod="x"),)))


@_SLOW
@given(st.text(max_size=2000))
def test_any_log_alone_gives_a_report(log: str) -> None:
    _judge(Snapshot(logs=(LogText(text=log),)))


_CASES = Path(__file__).parent.parent / "checks" / "cases"
_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.:-])|\d+\.\d+(?=%|s\b)")


@pytest.mark.parametrize("number", [".", "1.2.3", "9" * 5000, "0"], ids=lambda number: number[:5])
@pytest.mark.parametrize(
    "case",
    [
        "context-uncapped/fires_kv_cache_refused",
        "cpu-starved/fires_gpu_waits_by_agent",
        "cuda-oom-profile/fires_profile_run",
        "cuda-oom-runtime/fires_sglang_prefill",
        "gpu-memory-shared/fires_ollama_finds_little",
        "kv-cache-saturated/fires_sglang",
        "slow-load/fires_risk_took_long",
        "weights-off-gpu/fires_ollama_does_not_fit",
    ],
)
def test_what_is_no_number_in_a_log_is_passed_over(case: str, number: str) -> None:
    snapshot = load(str(_CASES / f"{case}.yaml"))
    logs = tuple(msgspec.structs.replace(log, text=_NUMBER.sub(number, log.text)) for log in snapshot.logs)

    _judge(msgspec.structs.replace(snapshot, logs=logs))


@pytest.mark.parametrize(
    ("case", "old", "new"),
    [
        ("quota-exceeded/fires_workers_of_a_leader", 'size: "2"', f'size: "{"9" * 5000}"'),
        ("gateway-timeout/fires_nginx_short", 'read-timeout: "', f'read-timeout: "{"9" * 5000}'),
        ("dra-claim-pending/fires_deleted_claims_keep_devices", "driver: gpu.nvidia.com", "driver: {a: [b]}"),
        ("api-exposed/quiet_policy", "ingress: [{from: [", "ingress: [{from: true, ports: ["),
        ("kv-cache-saturated/fires_steady_queue", '"__name__": "vllm:num_requests_waiting"', '"__name__": {a: b}'),
    ],
)
def test_odd_values_of_objects_are_passed_over(case: str, old: str, new: str, tmp_path: Path) -> None:
    text = (_CASES / f"{case}.yaml").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "snapshot.yaml").write_text(text.replace(old, new), encoding="utf-8")

    _judge(load(str(tmp_path / "snapshot.yaml")))


@pytest.mark.parametrize(
    ("case", "account"),
    [
        ("admission-denied/fires_no_right_to_create", "llmisvc-controller-manager"),
        ("quota-exceeded/fires_kai_limit", "inference"),
        ("rbac-denied/fires_endpoint_picker", "llama-epp"),
        ("volume-mount-failed/fires_dead_mount_of_the_node", "models"),
    ],
)
def test_what_a_message_names_stays_one_word_of_a_command(case: str, account: str, tmp_path: Path) -> None:
    file = tmp_path / "snapshot.yaml"
    file.write_text((_CASES / f"{case}.yaml").read_text("utf-8").replace(account, "x; touch y #"), "utf-8")

    commands = [c for f in _judge(load(str(file))).targets[0].findings for fix in f.fixes for c in fix.commands]

    assert any("touch" in command for command in commands)
    assert not any(";" in shlex.shlex(c, posix=True, punctuation_chars=True) for c in commands)


_BANNER = "(APIServer pid={}) vLLM API server version 0.11.0\n"
_OTHERS = "(Worker_TP1 pid=9) INFO 06-02 08:00:00 [worker.py:1] at work\n" * 380


@pytest.mark.parametrize(
    "log",
    [
        "".join(f"{_BANNER.format(n % 2)}ERROR 06-02 08:00:00 [core.py:1] boom\n" for n in range(10_000)),
        "".join(f"{_OTHERS}(EngineCore pid=7) ValueError: number {n}\n" for n in range(500)),
    ],
    ids=["starts", "errors among other processes"],
)
def test_a_log_is_judged_in_a_time_that_grows_with_its_length(log: str) -> None:
    started = time.process_time()
    _judge(Snapshot(logs=(LogText(text=log),)))

    assert time.process_time() - started < 6


def test_a_long_line_of_the_kernel_is_read_in_a_moment() -> None:
    log = KernelLog("NVRM: " * 3400, "gpu-1", None)
    started = time.process_time()

    assert not log.lost
    assert time.process_time() - started < 0.3


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 1000,
        b"{",
        b"[]",
        b"null",
        b"schema: llmdoctor.snapshot/v9\n",
        b"schema: llmdoctor.snapshot/v1\nobjects: 7\n",
        b"a: &a [*a]\n",
        b"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c,*c,*c]\n",
        b"[" * 100_000,
        b"kind: Pod\nmetadata: {name: \xff\xfe}\n",
        b"---\n" * 5000,
        b"kind: Pod\nspec: {{ .Values.x }}\n",
        'kind: Pod\napiVersion: v1\nmetadata: {name: "\\e[31mred\\a", namespace: "\u202egpj"}\nstatus: {phase: Running}\n'.encode(),
    ],
    ids=lambda c: repr(c[:24]),
)
def test_any_bytes_as_input_end_in_a_report_or_one_line(content: bytes) -> None:
    done = run("diagnose", "--from", "-", stdin=content)

    assert done.returncode in (0, 1, 2, 3)
    assert b"Traceback" not in done.stderr
    assert b"internal error" not in done.stderr
    assert b"\x1b" not in done.stdout
    if done.returncode > 1:
        assert len(done.stderr.decode().strip().splitlines()) == 1


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=400))
def test_arbitrary_bytes_as_snapshot_and_as_log(content: bytes) -> None:
    for option in ("--from", "--logs"):
        done = run("diagnose", option, "-", stdin=content)

        assert done.returncode in (0, 1, 2, 3)
        assert b"Traceback" not in done.stderr
        assert b"internal error" not in done.stderr
