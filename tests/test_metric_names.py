"""Every metric name that is used exists in the releases that it is used for, and is used for no others."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_llmdoctor.catalog.metrics import ENGINES, PLATFORM, metric, metrics_of, names

ROWS: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "metrics" / "names.yaml").read_text())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['engine']}-{row['release']}")
def test_a_release_may_export_what_its_source_defines(row: dict[str, Any]) -> None:
    mine = {m.name: m.kind for m in names(row["engine"], row["release"]) if m.engine == row["engine"]}
    defined = row["names"]
    assert mine.items() <= defined.items(), "used for a release that does not define them"
    never = {m.name for m in metrics_of(row["engine"]) if m.engine == row["engine"] and m.has(row["release"]) is False}
    hidden = {m.name for m in metrics_of(row["engine"]) if m.hidden}
    assert not (never - hidden) & defined.keys(), "not used for a release that defines them"


def test_every_name_has_a_source() -> None:
    stated = {(row["engine"], name) for row in ROWS for name in row["names"]}
    for engine in (*ENGINES, *PLATFORM):
        for m in metrics_of(engine):
            assert (m.engine, m.name) in stated, f"no source states {m.name} of {m.engine}"


@pytest.mark.parametrize(
    ("engine", "version", "role", "expected"),
    [
        ("vllm", "0.8.5", "kv_usage", "vllm:gpu_cache_usage_perc"),
        ("vllm", "0.9.2", "kv_usage", "vllm:kv_cache_usage_perc"),
        ("vllm", "0.11.0", "kv_usage", "vllm:kv_cache_usage_perc"),
        ("vllm", None, "kv_usage", None),
        ("vllm", None, "waiting", "vllm:num_requests_waiting"),
        ("vllm", "0.9.1", "itl", "vllm:time_per_output_token_seconds"),
        ("vllm", "0.13.0", "itl", "vllm:inter_token_latency_seconds"),
        ("huggingfaceserver", "0.15", "waiting", "vllm:num_requests_waiting"),
        ("sglang", "0.5.3", "preemptions", None),
        ("tensorrt-llm", "1.2", "waiting", None),
        ("tensorrt-llm", None, "waiting", None),
        ("tgi", "2.3.0", "kv_total", None),
        ("ollama", "0.5", "waiting", None),
    ],
)
def test_the_name_of_a_role(engine: str, version: str | None, role: Any, expected: str | None) -> None:
    found = metric(engine, role, version)
    assert (found.name if found else None) == expected
