"""What a pod's metrics say, from the answers of a Prometheus and the text of a metrics port."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kubectl_llmdoctor.catalog.metrics import names
from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.exposition import samples
from kubectl_llmdoctor.facts.metrics import Metrics
from kubectl_llmdoctor.facts.series import Histogram
from kubectl_llmdoctor.facts.unknown import NotApplicable
from kubectl_llmdoctor.packs import installed
from kubectl_llmdoctor.snapshot import MetricsText, Snapshot
from kubectl_llmdoctor.target import subjects

NOW, HOUR_AGO, STARTED = "2026-06-02T10:00:00Z", "2026-06-02T09:00:00Z", "2026-06-02T08:00:00Z"

SERVING = tuple(check for check in installed() if any(need.fact == "Metrics" for need in check.needs))

Rows = list[tuple[dict[str, str], list[Any]]]


def pod(name: str = "qwen-0", image: str = "vllm/vllm-openai:v0.11.0", started: str = STARTED) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "serving"},
        "spec": {
            "containers": [{"name": "server", "image": image, "resources": {"limits": {"nvidia.com/gpu": "1"}}}],
            "nodeName": "gpu-1",
        },
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.7",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "server", "ready": True, "state": {"running": {"startedAt": started}}}],
        },
    }


def answer(rows: Rows, **more: Any) -> dict[str, Any]:
    series = [{"labels": labels, "values": values} for labels, values in rows]
    return {"source": "http://prometheus", "query": "q", "start": HOUR_AGO, "end": NOW, "series": series, **more}


def metrics(
    *answers: dict[str, Any], texts: tuple[MetricsText, ...] = (), objects: tuple[dict[str, Any], ...] = ()
) -> Metrics:
    snapshot = Snapshot(taken_at=NOW, objects=objects or (pod(),), prometheus=answers, metrics=texts)
    (subject,) = [s for s in subjects(Cluster(snapshot)) if s.pods[0].name == "qwen-0"]
    found = subject.metrics(subject.pods[0])
    assert isinstance(found, Metrics)
    return found


def row(name: str, values: list[Any], **labels: str) -> tuple[dict[str, str], list[Any]]:
    return {"__name__": name, "namespace": "serving", "pod": "qwen-0"} | labels, values


def test_a_gauge_over_time() -> None:
    found = metrics(answer([row("vllm:num_requests_waiting", [[0, 1], [1800, 4], [3600, 10]])]))
    span = found.span("waiting")
    assert span is not None
    assert (span.last, span.mean, span.seconds, span.values) == (10, 5, 3600, [1, 4, 10])
    assert (span.third(0), span.third(1), span.third(2)) == (1, 4, 10)
    assert span.slope == pytest.approx(9 / 3600)
    evidence = span.evidence()
    assert evidence.text == "vllm:num_requests_waiting: 1 at 09:00:00, 4 at 09:30:00, 10 at 10:00:00"
    assert (evidence.source, evidence.ref) == ("metric", "http://prometheus")


def test_what_is_not_exported_is_not_zero() -> None:
    found = metrics(answer([row("vllm:num_requests_waiting", [[3600, 0]])]))
    assert found.span("waiting") is not None
    assert found.span("running") is None
    assert found.increase("preemptions") is None
    assert found.histogram("ttft") is None
    assert found.by("finished", "finished_reason") == {}


def test_no_metrics_of_the_pod_is_no_fact() -> None:
    other = answer([row("vllm:num_requests_waiting", [[3600, 5]], pod="other-0")])
    (subject,) = subjects(Cluster(Snapshot(taken_at=NOW, objects=(pod(),), prometheus=(other,))))
    assert isinstance(subject.metrics(subject.pods[0]), NotApplicable)


def test_a_counter_that_began_anew() -> None:
    name, labels = "vllm:num_preemptions_total", {"engine": "0"}
    found = metrics(answer([row(name, [[0, 100], [600, 130], [1200, 5], [3600, 45]], **labels)]))
    grown = found.increase("preemptions")
    assert grown is not None
    assert (grown.amount, grown.seconds, grown.lifetime) == (75, 3600, False)
    assert grown.rate == 75 / 3600


def test_a_rate_over_time() -> None:
    points = [[0, 0], [1200, 1200], [2400, 120], [3600, 120]]
    rates = metrics(answer([row("container_cpu_usage_seconds_total", points, container="server")])).rates("cpu_seconds")
    assert rates is not None
    assert rates.values == [1, 0.1, 0]


def test_what_the_instance_before_left_does_not_count() -> None:
    restarted = pod(started="2026-06-02T09:30:00Z")
    rows = [row("vllm:num_requests_waiting", [[0, 90], [1799, 90], [1860, 1], [3600, 2]])]
    span = metrics(answer(rows), objects=(restarted,)).span("waiting")
    assert span is not None
    assert span.values == [1, 2]


def test_the_engines_of_one_pod_are_added_and_the_fullest_cache_counts() -> None:
    found = metrics(
        answer(
            [row("vllm:num_requests_waiting", [[0, 1], [3600, 2]], engine=str(n)) for n in range(2)]
            + [row("vllm:kv_cache_usage_perc", [[3600, 0.2 + n / 2]], engine=str(n)) for n in range(2)]
        )
    )
    waiting, cache = found.span("waiting"), found.cache
    assert waiting is not None
    assert waiting.values == [2, 4]
    assert cache is not None
    assert cache.last == 0.7


def test_a_pod_that_is_scraped_twice_is_counted_once() -> None:
    rows = [row("vllm:num_requests_waiting", [[0, 3], [3600, 3]], job=job, instance=job) for job in ("a", "b")]
    span = metrics(answer(rows)).span("waiting")
    assert span is not None
    assert span.last == 3


def test_the_newer_of_two_names_counts() -> None:
    rows = [row(f"vllm:{name}_cache_usage_perc", [[3600, 0.5]]) for name in ("gpu", "kv")]
    cache = metrics(answer(rows)).cache
    assert cache is not None
    assert (cache.metric, cache.last) == ("vllm:kv_cache_usage_perc", 0.5)


def test_ranks_say_the_same() -> None:
    rows = [row("sglang:num_queue_reqs", [[3600, 7]], tp_rank=str(n), dp_rank="0") for n in range(4)]
    span = metrics(answer(rows), objects=(pod(image="lmsysorg/sglang:v0.5.9"),)).span("waiting")
    assert span is not None
    assert span.last == 7


@pytest.mark.parametrize(
    "labels",
    [
        {"namespace": "serving", "pod": "qwen-0"},
        {"namespace": "monitoring", "pod": "exporter-x", "exported_namespace": "serving", "exported_pod": "qwen-0"},
        {"kubernetes_namespace": "serving", "kubernetes_pod_name": "qwen-0"},
        {"pod": "qwen-0"},
        {"instance": "10.0.0.7:8000"},
    ],
    ids=lambda labels: " ".join(labels),
)
def test_labels_that_name_the_pod(labels: dict[str, str]) -> None:
    span = metrics(answer([({"__name__": "vllm:num_requests_waiting", **labels}, [[3600, 7]])])).span("waiting")
    assert span is not None
    assert span.last == 7


@pytest.mark.parametrize(
    "labels",
    [
        {"namespace": "other", "pod": "qwen-0"},
        {"namespace": "serving", "pod": "qwen-00"},
        {"namespace": "serving", "pod": "qwen-0", "exported_namespace": "serving", "exported_pod": "other-0"},
        {"instance": "10.0.0.70:8000"},
        {},
    ],
    ids=lambda labels: " ".join(labels.values()) or "none",
)
def test_labels_that_name_another(labels: dict[str, str]) -> None:
    mine = row("vllm:num_requests_running", [[3600, 1]])
    found = metrics(answer([mine, ({"__name__": "vllm:num_requests_waiting", **labels}, [[3600, 7]])]))
    assert found.span("waiting") is None


def test_an_old_value_says_nothing_of_now() -> None:
    rows = [row("vllm:num_requests_waiting", [[0, 7], [3200, 7]]), row("vllm:num_requests_running", [[3400, 1]])]
    found = metrics(answer(rows))
    assert found.span("waiting") is None
    assert found.span("running") is not None


def buckets(name: str, counts: dict[str, float], start: float = 0) -> Rows:
    return [row(f"{name}_bucket", [[0, start], [3600, start + n]], le=le) for le, n in counts.items()]


def test_a_histogram_of_the_window() -> None:
    rows = buckets("vllm:time_to_first_token_seconds", {"0.5": 50, "1.0": 90, "2.5": 99, "+Inf": 100}, start=1000)
    found = metrics(answer(rows)).histogram("ttft")
    assert found is not None
    assert not found.lifetime
    assert (found.observed, found.seconds) == (100, 3600)
    assert found.quantile(0.5) == 0.5
    assert found.quantile(0.25) == 0.25
    assert found.quantile(0.95) == pytest.approx(1 + 1.5 * 5 / 9)
    assert found.quantile(0.999) == 2.5  # beyond the last bound
    assert (found.above(1.0), found.above(0.7), found.below(1.0), found.below(0.7)) == pytest.approx(
        (0.1, 0.1, 0.9, 0.5)
    )
    assert found.above(100) == 0


def test_a_histogram_without_observations_says_nothing() -> None:
    assert metrics(answer(buckets("vllm:time_to_first_token_seconds", {"1.0": 0, "+Inf": 0}))).histogram("ttft") is None


@given(st.lists(st.tuples(st.floats(0.001, 1e4), st.integers(0, 1000)), min_size=1, max_size=30), st.floats(0, 1))
def test_a_quantile_lies_within_the_bounds(steps: list[tuple[float, int]], share: float) -> None:
    bounds = sorted({bound for bound, _ in steps})
    counts, total = [], 0
    for _, (_, count) in zip(bounds, steps, strict=False):
        total += count
        counts.append(float(total))
    made = Histogram("m", (*bounds, float("inf")), (*counts, total + 1.0), 60, False, "")
    assert 0 <= made.quantile(share) <= bounds[-1]
    assert made.below(bounds[-1]) + made.above(bounds[-1]) == pytest.approx(1)


def text(at: str, waiting: float, preempted: int) -> MetricsText:
    body = f'vllm:num_requests_waiting{{engine="0"}} {waiting}\nvllm:num_preemptions_total{{engine="0"}} {preempted}\n'
    return MetricsText(namespace="serving", pod="qwen-0", container="server", taken_at=at, text=body)


def test_two_scrapes() -> None:
    found = metrics(texts=(text("2026-06-02T09:59:50Z", 5, 30), text(NOW, 8, 36)))
    span, grown = found.span("waiting"), found.increase("preemptions")
    assert span is not None
    assert (span.values, span.seconds) == ([5, 8], 10)
    assert grown is not None
    assert (grown.amount, grown.seconds, grown.lifetime) == (36, 7200, True)


def test_an_answer_over_a_window_goes_before_a_later_scrape() -> None:
    rows = [row("vllm:num_requests_waiting", [[0, 1], [3570, 4]], engine="0")]
    rows.append(row("vllm:num_preemptions_total", [[0, 10], [3570, 30]], engine="0"))
    found = metrics(answer(rows), texts=(text(NOW, 8, 36),))
    span, grown = found.span("waiting"), found.increase("preemptions")
    assert span is not None
    assert span.values == [1, 4]
    assert grown is not None
    assert (grown.amount, grown.lifetime) == (20, False)


def test_a_gauge_of_another_object() -> None:
    name = "kube_horizontalpodautoscaler_status_current_replicas"
    labels = {"__name__": name, "namespace": "monitoring", "exported_namespace": "serving"}
    rows = [({**labels, "horizontalpodautoscaler": "qwen"}, [[0, 1], [3600, 2]])]
    readings = metrics(answer([*rows, row("up", [[1, 1]]), row("vllm:num_requests_waiting", [[3600, 1]])])).readings
    span = readings.span(name, "serving", horizontalpodautoscaler="qwen")
    assert span is not None
    assert span.values == [1, 2]
    assert readings.span(name, "monitoring", horizontalpodautoscaler="qwen") is None
    assert readings.span(name, "serving", horizontalpodautoscaler="other") is None


def test_the_exporter_of_the_node_speaks_of_the_pods_on_it() -> None:
    body = "".join(
        f'DCGM_FI_DEV_GPU_UTIL{{gpu="{n}",UUID="GPU-{n}",pod="{name}",namespace="serving",container="server"}} {40 + n}\n'
        for n, name in enumerate(("qwen-0", "other-0"))
    )
    exporter = MetricsText(namespace="gpu-operator", pod="dcgm-exporter-x", node="gpu-1", taken_at=NOW, text=body)
    (gpu,) = metrics(texts=(exporter, text(NOW, 0, 0))).gpus
    assert gpu.id == "GPU-0"
    assert gpu.utilization is not None
    assert gpu.utilization.last == 0.4


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"series": None},
        {"series": [None, {}, {"labels": []}, {"labels": {"__name__": 5}, "values": [[0, 1]]}]},
        {"series": [{"labels": {"__name__": "vllm:num_requests_waiting", "pod": "qwen-0"}, "values": "x"}]},
        answer([row("vllm:num_requests_waiting", [[0], [1, 2, 3], ["x", 1], [1, "2"], [2, None], [3, True], 7])]),
        answer([row("vllm:num_requests_waiting", [[1, float("nan")], [2, float("inf")]])], start="never", end=5),
        answer([row("vllm:request_prompt_tokens_bucket", [[0, 1], [9, 2]], le="wide")]),
    ],
)
def test_broken_answers_say_nothing_and_harm_nothing(broken: dict[str, Any]) -> None:
    snapshot = Snapshot(taken_at=NOW, objects=(pod(),), prometheus=(broken, answer([row("up", [[3600, 1]])])))
    report = diagnose(snapshot, installed())
    assert not [n for t in report.targets for n in t.not_checked if n.broken]
    assert not [f for t in report.targets for f in t.findings if f.role == "cause"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["labels", "values", "x"]), inner),
    max_leaves=12,
)
NAMES = st.sampled_from(
    [
        "vllm:num_requests_waiting",
        "vllm:num_requests_running",
        "vllm:kv_cache_usage_perc",
        "vllm:num_preemptions_total",
        "vllm:request_success_total",
        "vllm:request_prompt_tokens_bucket",
        "vllm:e2e_request_latency_seconds_bucket",
        "container_cpu_cfs_periods_total",
        "container_memory_rss",
        "DCGM_FI_DEV_GPU_UTIL",
        "DCGM_FI_DEV_FB_USED",
    ]
)
VALUE = st.none() | st.floats() | st.integers(-(10**30), 10**30)
WILD = st.builds(
    lambda name, labels, values: {
        "labels": {"__name__": name, "pod": "qwen-0", "container": "server"} | labels,
        "values": values,
    },
    NAMES,
    st.dictionaries(st.sampled_from(["le", "engine", "UUID", "tp_rank", "finished_reason"]), st.text(max_size=5)),
    st.lists(st.tuples(st.integers(-(10**12), 10**12), VALUE).map(list), max_size=30),
)


@given(st.lists(WILD | JSON, max_size=12), JSON, JSON)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_no_answer_breaks_a_check(series: list[Any], start: Any, end: Any) -> None:
    answers = ({"series": series, "start": start, "end": end, "source": start}, {**answer([]), "series": series})
    snapshot = Snapshot(taken_at=NOW, objects=(pod(),), prometheus=answers)
    report = diagnose(snapshot, SERVING)
    assert not [n.reason for t in report.targets for n in t.not_checked if n.broken]


def test_many_series_are_read_in_time() -> None:
    rows = [
        row("vllm:num_requests_waiting", [[t, 1] for t in range(0, 3600, 30)], engine=str(n), pod=f"qwen-{n % 200}")
        for n in range(4000)
    ]
    started = time.perf_counter()
    assert metrics(answer(rows)).span("waiting") is not None
    assert time.perf_counter() - started < 5


def test_a_real_vllm_under_load() -> None:
    """vLLM 0.32.0 (its CPU build) with a cache of 48 blocks and 72 clients: every name is there, and the numbers fit."""
    real = (Path(__file__).parent / "metrics" / "vllm-0.32.0-saturated.txt").read_text()
    written = {sample.name for sample in samples(real)}
    assert all({m.name, f"{m.name}_bucket"} & written for m in names("vllm", "0.32.0"))
    scrape = MetricsText(namespace="serving", pod="qwen-0", container="server", taken_at=NOW, text=real)
    found = metrics(texts=(scrape,), objects=(pod(image="vllm/vllm-openai:v0.32.0"),))
    waiting, running, lost = found.span("waiting"), found.span("running"), found.increase("preemptions")
    assert waiting is not None
    assert running is not None
    assert lost is not None
    assert (waiting.last, running.last, lost.amount) == (70, 2, 1195)
    assert found.by("finished", "finished_reason")["length"] == found.by("http", "status")["2xx"] == 1320
    whole, queue, first = (found.histogram(role) for role in ("e2e", "queue_time", "ttft"))
    assert whole is not None
    assert queue is not None
    assert first is not None
    assert (whole.observed, queue.observed) == (1320, 1320)
    assert queue.quantile(0.5) < first.quantile(0.5) < whole.quantile(0.5)
