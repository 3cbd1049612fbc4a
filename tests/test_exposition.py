"""The text of a metrics port, as engines write it and as nobody should."""

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_llmdoctor.facts.exposition import Sample, samples


def test_prometheus_text() -> None:
    text = """
# HELP vllm:num_requests_waiting Number of requests waiting.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="Qwen/Qwen3-8B"} 12.0
vllm:e2e_request_latency_seconds_bucket{le="+Inf",model_name="a,b\\"c\\\\d\\ne}"} 1.5e+02 1700000000000
process_cpu_seconds_total 7
"""
    assert list(samples(text)) == [
        Sample("vllm:num_requests_waiting", {"engine": "0", "model_name": "Qwen/Qwen3-8B"}, 12.0),
        Sample("vllm:e2e_request_latency_seconds_bucket", {"le": "+Inf", "model_name": 'a,b"c\\d\ne}'}, 150.0),
        Sample("process_cpu_seconds_total", {}, 7.0),
    ]


def test_openmetrics_text() -> None:
    text = (
        'trtllm_request_success_total{finished_reason="stop",} 3 # {trace_id="ab"} 0.67 1520879607.789\n'
        '{"my.metric", "a.b"="c"} 4\n# EOF\n'
    )
    assert list(samples(text)) == [
        Sample("trtllm_request_success_total", {"finished_reason": "stop"}, 3.0),
        Sample("my.metric", {"a.b": "c"}, 4.0),
    ]


def test_only_the_names_that_are_asked_for() -> None:
    assert [s.name for s in samples("a 1\nb 2\nab 3\n", {"b"})] == ["b"]


@pytest.mark.parametrize(("word", "value"), [("NaN", math.nan), ("+Inf", math.inf), ("-inf", -math.inf), ("+.5", 0.5)])
def test_values(word: str, value: float) -> None:
    (sample,) = samples(f"a{{}} {word}")
    assert sample.value == value or (math.isnan(value) and math.isnan(sample.value))


@pytest.mark.parametrize(
    "line",
    [
        "",
        "a",
        "a{",
        'a{b="c"',
        'a{b="c} 1',
        "a{b=c} 1",
        "a 1_000",
        "a 1x",
        "a 0x10",
        "{} 1",
        "<html>",
        'a{"b","c"} 1',
        "a one",
    ],
)
def test_what_is_not_understood_is_passed_over(line: str) -> None:
    assert [s.name for s in samples(f"{line}\nlast 1\n")] == ["last"]


@given(st.text(max_size=300))
def test_nothing_raises(text: str) -> None:
    for sample in samples(text):
        assert isinstance(sample.value, float)


def test_hostile_lines_are_read_in_time() -> None:
    started = time.perf_counter()
    hostile = ['a{b="' + "\\" * 16_000, "a{" + "," * 16_000, 'a{b="c",' * 1_800, "a{" + 'b="",' * 3_000 + "} 1"]
    assert not list(samples("\n".join(hostile * 20)))
    assert time.perf_counter() - started < 2
