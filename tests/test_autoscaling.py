"""The right autoscaler: which metrics of which release, at which target, and how many replicas a load takes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import msgspec
import pytest
from llmdoctor_checks.serving._saturation import load_of, need_of

from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.metrics import Metrics
from kubectl_llmdoctor.packs import installed
from kubectl_llmdoctor.report.document import Fix
from kubectl_llmdoctor.snapshot import Snapshot
from kubectl_llmdoctor.target import subjects
from kubectl_llmdoctor.testing import load_case

CASES = Path(__file__).parent.parent / "checks" / "cases"


def snapshot_of(id: str, name: str, *changes: tuple[str, str]) -> Snapshot:
    text = msgspec.json.encode(load_case(CASES / id / f"{name}.yaml").snapshot).decode()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return msgspec.json.decode(text, type=Snapshot)


def fix_of(name: str, *changes: tuple[str, str]) -> Fix:
    report = diagnose(snapshot_of("hpa-wrong-metric", name, *changes), installed())
    found = [f for target in report.targets for f in target.findings if f.id == "hpa-wrong-metric"]
    return found[0].fixes[0]


def scaled_object(fix: Fix) -> dict[str, Any]:
    words = shlex.split(fix.commands[0])
    assert words[0] == "echo"
    assert words[2:] == ["|", "kubectl", "apply", "-f", "-"]
    made: dict[str, Any] = json.loads(words[1])
    return made


def test_keda_takes_the_autoscaler_over_with_a_target_that_was_seen() -> None:
    fix = fix_of("fires_blind")
    made = scaled_object(fix)
    assert made["metadata"]["annotations"] == {"scaledobject.keda.sh/transfer-hpa-ownership": "true"}
    assert made["spec"]["advanced"] == {"horizontalPodAutoscalerConfig": {"name": "qwen3"}}
    assert (made["spec"]["minReplicaCount"], made["spec"]["maxReplicaCount"]) == (1, 6)
    assert made["spec"]["scaleTargetRef"]["kind"] == "StatefulSet"
    (trigger,) = made["spec"]["triggers"]
    selector = '{namespace="serving",pod=~"qwen3-.+"}'
    assert trigger["metadata"] == {
        "serverAddress": "http://prometheus-k8s.monitoring.svc:9090",
        "query": f"sum(vllm:num_requests_running{selector}) + sum(vllm:num_requests_waiting{selector})",
        "threshold": "39",
    }
    assert "0.8 of the 49 requests that ran while others waited" in fix.summary


def test_a_name_does_not_break_out_of_the_query() -> None:
    hostile = ('"name":"qwen3","namespace":"serving","uid"', '"name":"q\\"} or up{\\"","namespace":"serving","uid"')
    named = ('"kind":"StatefulSet","name":"qwen3"', '"kind":"StatefulSet","name":"q\\"} or up{\\""')
    fix = fix_of("fires_blind", hostile, named)
    query = scaled_object(fix)["spec"]["triggers"][0]["metadata"]["query"]
    assert 'pod=~"q\\"} or up{\\"-.+"' in query


def test_the_metrics_are_those_of_the_engine() -> None:
    changed = (
        ("vllm/vllm-openai:v0.11.0", "ghcr.io/huggingface/text-generation-inference:3.3.5"),
        ("vllm:num_", "tgi_no_"),
    )
    query = scaled_object(fix_of("fires_blind", *changed))["spec"]["triggers"][0]["metadata"]["query"]
    assert "tgi_queue_size{" in query
    assert "vllm" not in query


def test_an_adapter_gets_both_metrics_with_values_that_were_seen() -> None:
    fix = fix_of("fires_blind_adapter")
    assert fix.patch is not None
    assert fix.patch.target == "autoscaling/v2 HorizontalPodAutoscaler/qwen3"
    body: Any = fix.patch.body
    values = {row["pods"]["metric"]["name"]: row["pods"]["target"]["averageValue"] for row in body[0]["value"]}
    assert values == {"vllm:num_requests_running": "39", "vllm:num_requests_waiting": "5"}


def test_without_metrics_the_limit_of_the_engine_counts_and_the_assumption_is_said() -> None:
    changed = ("--max-model-len=8192", '--max-model-len=8192","--max-num-seqs=64')
    fix = fix_of("fires_cpu_at_once", changed)
    assert fix.patch is not None
    assert '"averageValue":"51"' in msgspec.json.encode(fix.patch.body).decode()
    assert "0.8 of the 64 requests that vLLM runs at once, if its KV cache has room for so many" in fix.summary


def test_keda_by_cpu_gets_another_trigger() -> None:
    fix = fix_of("fires_keda_cpu", ("--max-model-len=8192", '--max-model-len=8192","--max-num-seqs=10'))
    assert fix.patch is not None
    body: Any = fix.patch.body
    assert body[0]["path"] == "/spec/triggers"
    assert body[0]["value"][0]["metadata"]["threshold"] == "8"


def test_knative_scales_on_concurrency() -> None:
    fix = fix_of("fires_knative", ("--max-model-len=8192", '--max-model-len=8192","--max-num-seqs=100'))
    assert fix.patch is not None
    body: Any = fix.patch.body
    values = {row["path"].rpartition("~1")[2]: row["value"] for row in body}
    assert values == {"class": "kpa.autoscaling.knative.dev", "metric": "concurrency", "target": "80"}


def metrics_of(snapshot: Snapshot) -> Metrics:
    subject = next(s for s in subjects(Cluster(snapshot)) if s.pods[0].name == "qwen3-0")
    found = subject.metrics(subject.pods[0])
    assert isinstance(found, Metrics)
    return found


def test_littles_law() -> None:
    metrics = metrics_of(snapshot_of("queue-growing", "fires_over_time"))
    load = load_of(metrics)
    assert load is not None
    need = need_of(metrics, load)
    assert need is not None
    # half a request a second is finished, the queue grows by 0.6 a second, and 64 are in service
    assert need.finishing == pytest.approx(0.5, rel=0.01)
    assert need.arriving == pytest.approx(1.1, rel=0.02)
    assert need.seconds == pytest.approx(128, rel=0.02)
    assert (need.now, need.replicas) == (1, 3)
    assert need.arriving * need.seconds / need.in_service == pytest.approx(2.2, rel=0.02)


def test_what_the_other_replicas_serve_counts() -> None:
    metrics = metrics_of(snapshot_of("queue-growing", "fires_not_spread"))
    load = load_of(metrics)
    assert load is not None
    need = need_of(metrics, load)
    assert need is not None
    assert need.now == 2
    assert need.arriving == pytest.approx(2.5 + 0.1 + 0.1, rel=0.02)


def test_without_a_count_of_finished_requests_nothing_is_computed() -> None:
    metrics = metrics_of(snapshot_of("queue-growing", "fires_sglang"))
    load = load_of(metrics)
    assert load is not None
    assert need_of(metrics, load) is None
