"""What a real vLLM 0.32 on the CPU exported, scraped by a real Prometheus, idle and under more load than it can serve.

Recorded by `tests/e2e/test_real_engine.py`; the pod around it is made to fit.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_llmdoctor.catalog import metrics
from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.facts.exposition import samples
from kubectl_llmdoctor.gather.files import load
from kubectl_llmdoctor.packs import installed
from kubectl_llmdoctor.redact import mask_text
from kubectl_llmdoctor.snapshot import Snapshot

FOLDER = Path(__file__).parent / "real_vllm_metrics"
VERSION = "0.32.0"


def recorded(name: str) -> Snapshot:
    return load(str(FOLDER / f"{name}.json.gz"))


def test_under_load_the_cache_is_the_cause() -> None:
    (target,) = diagnose(recorded("saturated"), installed()).targets

    first = target.findings[0]
    assert (first.role, first.id) == ("cause", "kv-cache-saturated")
    assert first.explains == ("queue-growing",)
    assert any("vllm:num_requests_waiting" in row.text for row in first.evidence)


def test_idle_nothing_is_wrong() -> None:
    (target,) = diagnose(recorded("idle"), installed()).targets

    assert target.verdict in ("healthy", "at-risk")
    assert {finding.role for finding in target.findings} <= {"risk", "note"}
    assert not {finding.id for finding in target.findings} & {"kv-cache-saturated", "queue-growing", "gpu-idle"}


@pytest.mark.parametrize("name", ["idle", "saturated"])
def test_every_name_of_the_catalogue_is_exported(name: str) -> None:
    found = {sample.name for text in recorded(name).metrics for sample in samples(text.text)}
    expected = {
        f"{metric.name}_bucket" if metric.kind == "histogram" else metric.name
        for metric in metrics.names("vllm", VERSION)
        if metric.has(VERSION)
    }

    assert expected
    assert expected <= found


def test_the_same_names_come_through_prometheus() -> None:
    answers = recorded("saturated").prometheus
    found = {row["labels"]["__name__"] for answer in answers for row in answer["series"]}

    assert {"vllm:num_requests_waiting", "vllm:kv_cache_usage_perc", "vllm:e2e_request_latency_seconds_bucket"} <= found
    assert len(answers) <= 12


def test_masking_changes_nothing_in_real_metrics() -> None:
    for name in ("idle", "saturated"):
        for text in recorded(name).metrics:
            assert mask_text(text.text) == text.text
