"""From NVML's own answers to a finding: the stand-in library, the agent's report, the snapshot, the checks."""
# ruff: noqa: F811

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from llmdoctor_agent.nvml import Nvml
from llmdoctor_agent.report import Report, User, to_json

from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.packs import installed
from kubectl_llmdoctor.snapshot import NodeData, Snapshot
from tests.agent import nvml_scenes as scenes
from tests.agent.nvml_scenes import Scene
from tests.agent.test_nvml import library, standin  # noqa: F401

pytestmark = standin

CRASHED = {
    "ready": False,
    "restartCount": 3,
    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
    "lastState": {
        "terminated": {
            "exitCode": 1,
            "reason": "Error",
            "startedAt": "2026-11-20T09:50:00Z",
            "finishedAt": "2026-11-20T10:00:05Z",
        }
    },
}
SERVES = {"ready": True, "restartCount": 0, "state": {"running": {"startedAt": "2026-11-20T08:00:20Z"}}}


def report_of(lines: Sequence[str], library: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The report of a node in which one pod has the first two GPUs, as it comes over the wire."""
    monkeypatch.setenv("STANDIN_NVML", str(Scene(folder / "scene", lines).path))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library))
    agent = Nvml(5.0, lambda: datetime(2026, 11, 20, 10, tzinfo=UTC), sysfs=folder)
    agent.start()
    try:
        reading = agent.read()
    finally:
        agent.stop()
    user = User(namespace="serving", name="llama-0", container="vllm")
    gpus = tuple(
        msgspec.structs.replace(gpu, pods=(user,) if (gpu.index or 0) < 2 else ()) for gpu in reading.gpus or ()
    )
    return msgspec.json.decode(to_json(Report(node="gpu-1", gpus=gpus, errors=reading.errors)))


def found(report: Any, status: dict[str, Any]) -> dict[str, str]:
    """The ids and roles of what is found about the pod, without what a manifest alone says."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "llama-0", "namespace": "serving", "uid": "6f1d2c3b-8a90-4e57-b1c2-0d9e8f7a6b5c"},
        "spec": {
            "nodeName": "gpu-1",
            "volumes": [{"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": "16Gi"}}],
            "containers": [
                {
                    "name": "vllm",
                    "image": "vllm/vllm-openai:v0.10.2",
                    "args": ["--model=/models/m", "--max-model-len=8192", "--tensor-parallel-size=2"],
                    "resources": {"limits": {"nvidia.com/gpu": "2"}},
                    "volumeMounts": [{"name": "dshm", "mountPath": "/dev/shm"}],  # a volume's path
                }
            ],
        },
        "status": {
            "phase": "Running",
            "startTime": "2026-11-20T08:00:10Z",
            "conditions": [{"type": "Ready", "status": str(status["ready"])}],
            "containerStatuses": [{"name": "vllm", **status}],
        },
    }
    snapshot = Snapshot(taken_at="2026-11-20T10:00:30Z", objects=(pod,), nodes={"gpu-1": NodeData(agent=report)})
    (target,) = diagnose(snapshot, installed()).targets
    families = {check.id for check in installed() if check.family in ("hardware", "multi_gpu", "memory", "scheduling")}
    return {f.id: f.role for f in target.findings if f.id in families and f.id != "nccl-timeout-missing"}


@pytest.mark.parametrize(
    ("lines", "crashed", "serving"),
    [
        (scenes.h100(), {}, {}),
        (scenes.l40s(), {}, {}),
        ([*scenes.h100(), "fail 1 * 15"], {"gpu-fallen-off": "cause"}, {"gpu-fallen-off": "cause"}),
        ([*scenes.h100(), "fail 3 * 15"], {}, {}),  # of somebody else
        (
            [*scenes.h100(), "fail 1 nvmlDeviceGetMemoryInfo_v2 16"],
            {"xid-error": "cause"},
            {"xid-error": "risk"},
        ),
        ([*scenes.h100(), "gpu 0 field.230 4"], {"xid-error": "cause"}, {"xid-error": "risk"}),
        (
            [*scenes.h100(), "gpu 0 ecc.uncorrected.volatile 2", "gpu 0 remapped 2 1 1 0"],
            {"ecc-uncorrectable": "cause"},
            {"ecc-uncorrectable": "risk"},
        ),
        (
            [*scenes.h100(), "gpu 0 utilization 99", "gpu 0 clock-reasons 0x48", "gpu 0 temperature.0 92"],
            {"gpu-throttled": "risk"},
            {"gpu-throttled": "cause"},
        ),
        (
            [*scenes.l40s(), "gpu 0 utilization 99", "gpu 0 pcie-width 4"],
            {"pcie-degraded": "risk"},
            {"pcie-degraded": "cause"},
        ),
        ([*scenes.h100(), *(f"gpu {n} fabric 2 0 0x0 0" for n in range(8))], {"fabric-manager-down": "cause"}, {}),
    ],
)
def test_what_nvml_says_becomes_a_finding(
    lines: list[str],
    crashed: dict[str, str],
    serving: dict[str, str],
    library: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    report = report_of(lines, library, tmp_path, monkeypatch)
    assert found(report, SERVES) == serving
    assert {i: role for i, role in found(report, CRASHED).items() if role != "symptom"} == crashed
