"""The guide that the tool grew from: its lab raises nothing, and each of its troubles is told apart (docs/guide.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.gather.files import load
from kubectl_llmdoctor.packs import installed
from kubectl_llmdoctor.report.document import Finding, Report
from kubectl_llmdoctor.testing import complaints, diagnose_case, load_case

GUIDE = Path(__file__).parent / "guide"
LAB = GUIDE / "lab" / "vllm.yaml"
CASES = sorted(GUIDE.glob("*.yaml"))


def _findings(report: Report) -> list[Finding]:
    return [f for target in report.targets for f in target.findings]


def _roles(path: Path) -> set[tuple[str, str]]:
    return {(f.id, f.role) for f in _findings(diagnose(load(str(path)), installed()))}


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_a_trouble_of_the_guide_is_told_apart(path: Path) -> None:
    case = load_case(path)
    report = diagnose_case(case)
    tree: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))

    assert complaints(case, report) == []
    assert [t.verdict for t in report.targets] == [tree.get("verdict", report.targets[0].verdict)]
    causes = [f.id for f in _findings(report) if f.role == "cause"]
    # What the case names as the cause is the only one; a case without one has none.
    expected = [name for name, role in case.expect.items() if role == "cause"]
    assert causes == expected or ("verdict" not in tree and not expected)
    assert not {f.id for f in _findings(report) if f.role != "note"} & set(tree.get("never", ()))


def test_the_lab_raises_nothing() -> None:
    report = diagnose(load(str(LAB)), installed())

    assert [(t.kind, t.name, t.verdict) for t in report.targets] == [("Deployment", "vllm-llama3-8b", "healthy")]
    assert _findings(report) == []
    assert report.not_read == ()


def test_the_engine_of_the_lab_is_read_as_it_is_written() -> None:
    engine = diagnose(load(str(LAB)), installed()).targets[0].engine

    assert engine is not None
    assert (engine.name, engine.version, engine.container) == ("vllm", "0.5.0.post1", "vllm")
    assert engine.config == {
        "model": "casperhansen/llama-3-8b-instruct-awq",
        "port": 8000,
        "max_model_len": 4096,
        "gpu_memory_utilization": 0.85,
        "quantization": "awq",
    }


#: One change of the lab, and what it must then be warned of.
_CHANGES = {
    "utilization": ([("'0.85'", "'0.99'")], {("gpu-memory-utilization-high", "risk")}),
    "service port": ([("targetPort: 8000", "targetPort: 80")], {("port-mismatch", "risk")}),
    "service name": ([("name: vllm-service", "name: vllm")], {("k8s-env-collision", "risk")}),
    "context": (
        [
            ("        - --max-model-len\n        - '4096'\n", ""),
            ("casperhansen/llama-3-8b-instruct-awq", "meta-llama/Llama-3.1-8B-Instruct"),
            ("        - --quantization\n        - awq\n", ""),
        ],
        {("context-uncapped", "note")},
    ),
    "no shared memory": (
        [
            ("        - name: dshm\n          mountPath: /dev/shm\n", ""),
            ("        - --port\n", "        - --tensor-parallel-size\n        - '4'\n        - --port\n"),
            ("nvidia.com/gpu: '1'", "nvidia.com/gpu: '4'"),
            ("cpu: '4'", "cpu: '16'"),
        ],
        {("shm-too-small", "risk"), ("nccl-timeout-missing", "note"), ("volume-not-mounted", "note")},
    ),
}


@pytest.mark.parametrize("change", _CHANGES)
def test_one_change_of_the_lab_is_warned_of(change: str, tmp_path: Path) -> None:
    edits, expected = _CHANGES[change]
    text = LAB.read_text(encoding="utf-8")
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new)
    path = tmp_path / "vllm.yaml"
    path.write_text(text, encoding="utf-8")

    assert _roles(path) == expected


def test_gpu_memory_that_runs_out_is_quoted_and_not_taken_for_host_memory() -> None:
    report = diagnose_case(load_case(GUIDE / "gpu_memory_while_loading.yaml"))

    said = [e.text for f in _findings(report) for e in f.evidence] + list(report.targets[0].next_steps)
    assert any("CUDA out of memory" in text for text in said)
    assert not any("oomkilled" in f.id for f in _findings(report))
