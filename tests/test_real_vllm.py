"""Whole logs of a real vLLM, run into more than a hundred failures and healthy starts: the right cause stands first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.gather.files import load_log
from kubectl_llmdoctor.packs import installed
from kubectl_llmdoctor.report.document import Target
from kubectl_llmdoctor.snapshot import Snapshot

FOLDER = Path(__file__).parent / "real_vllm"
ROWS: list[dict[str, Any]] = yaml.safe_load((FOLDER / "index.yaml").read_text(encoding="utf-8"))

#: What a log alone cannot tell: the kernel, the kubelet or a person ended a process that says nothing of it.
_SILENT = frozenset({"oomkilled-host", "worker-lost", "engine-dead", "probe-too-short"})


def _diagnosed(name: str) -> Target:
    return diagnose(Snapshot(logs=(load_log(str(FOLDER / f"{name}.log")),)), installed()).targets[0]


@pytest.mark.parametrize("row", [r for r in ROWS if r["expected"] != "healthy"], ids=lambda row: row["name"])
def test_the_cause_of_a_failure(row: dict[str, Any]) -> None:
    path = FOLDER / f"{row['name']}.log"
    if not path.read_bytes().strip():
        pytest.skip("it was killed before it printed anything")
    target = _diagnosed(row["name"])
    causes = [f for f in target.findings if f.role == "cause"]

    if not causes:
        assert row["expected"] in _SILENT or row["name"] in _UNKNOWN, target.next_steps
        assert target.verdict in ("undetermined", "healthy")
        return
    assert causes[0].id in {row["expected"], *row.get("also", ())}
    assert causes[0].evidence


#: Causes without an id of their own; the first error is what a person sees.
_UNKNOWN = {
    "open-files": "socket: Too many open files",
    "thread-limit": "Resource temporarily unavailable",
    "omp-bind-bad": "WorkerProc initialization failed",
}


@pytest.mark.parametrize(("name", "said"), sorted(_UNKNOWN.items()))
def test_without_a_cause_the_first_error_stands_first(name: str, said: str) -> None:
    target = _diagnosed(name)

    assert target.verdict == "undetermined"
    assert said in target.next_steps[0]


@pytest.mark.parametrize("row", [r for r in ROWS if r["expected"] == "healthy"], ids=lambda row: row["name"])
def test_a_healthy_server_has_no_cause_and_no_risk(row: dict[str, Any]) -> None:
    roles = {f.id: f.role for f in _diagnosed(row["name"]).findings}

    assert set(roles.values()) <= {"note"}, roles


def test_prompts_and_tokens_of_real_logs_are_masked() -> None:
    logs = [path for path in FOLDER.glob("*.log") if path.read_bytes().strip()]
    assert any("Mustermann" in path.read_text() for path in logs)
    for path in logs:
        text = load_log(str(path)).text
        assert "Mustermann" not in text, path.name
        assert "hf_RealVllm" not in text, path.name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("config-not-json", "/models/"),
        ("quant-unknown-method", "hqq9."),
        ("port-privileged", "ports below 1024"),
        ("tp-2-shm-64m", "need 160 MiB in /dev/shm, and 64 MiB are free"),
        ("kv-below-max-len", "131072"),
        ("lora-rank", "64"),
        ("max-len-above-model", "8192"),
    ],
)
def test_the_summary_has_the_names_and_numbers_of_the_case(name: str, said: str) -> None:
    cause = next(f for f in _diagnosed(name).findings if f.role == "cause")

    assert said in cause.summary
    assert "{" not in cause.summary
    assert ".." not in cause.summary
