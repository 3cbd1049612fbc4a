"""Fixes that depend on what is there."""

from __future__ import annotations

from pathlib import Path

import pytest
from llmdoctor_checks.start._probes import asking_the_same

from kubectl_llmdoctor import fixes
from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.engine import engines_of
from kubectl_llmdoctor.facts.logs import Logs
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.workload import Workload
from kubectl_llmdoctor.packs import installed
from kubectl_llmdoctor.snapshot import Snapshot
from kubectl_llmdoctor.testing import diagnose_case, load_case
from tests.patching import patched


def test_a_pod_in_a_manifest_gets_a_patch_and_no_command() -> None:
    from kubectl_llmdoctor.report import text

    container = {"name": "v", "image": "vllm/vllm-openai:v0.11.0", "args": ["--model", "x", "-tp", "2"]}
    container |= {"resources": {"limits": {"nvidia.com/gpu": 2}}}  # type: ignore[dict-item]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "q"}, "spec": {"containers": [container]}}
    report = diagnose(Snapshot(objects=(pod,)), installed())
    finding = next(f for f in report.targets[0].findings if f.id == "shm-too-small")
    patch = finding.fixes[0].patch

    assert patch
    after = patched(Snapshot(objects=(pod,)), patch)
    assert after
    assert after.objects[0]["spec"]["volumes"][0]["name"] == "dshm"
    assert "kubectl patch" not in text.render(report, wide=True)


@pytest.mark.parametrize(("more", "size"), [([], "4"), (["--pipeline-parallel-size", "2"], "2")])
def test_a_size_that_divides_is_first_looked_for_in_the_gpus_that_are_there(more: list[str], size: str) -> None:
    args = ["--model", "Qwen/Qwen3-235B-A22B", "--tensor-parallel-size", "3", *more]
    container = {
        "name": "vllm",
        "image": "vllm/vllm-openai:v0.11.0",
        "args": args,
        "resources": {"limits": {"nvidia.com/gpu": "4"}},
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "llm", "namespace": "prod"},
        "spec": {"template": {"metadata": {"labels": {"app": "llm"}}, "spec": {"containers": [container]}}},
    }
    (target,) = diagnose(Snapshot(objects=(deployment,)), installed()).targets
    (found,) = [f for f in target.findings if f.id == "tp-not-divisible"]

    assert found.fixes[0].summary.startswith(f"Set --tensor-parallel-size to {size},")


@pytest.mark.parametrize(
    "start",
    [
        {"args": ["--model-id", "Qwen/Qwen3-8B", "--num-shard=6"]},
        {"command": ["text-generation-launcher", "--model-id", "Qwen/Qwen3-8B", "--num-shard", "6"]},
        {"args": ["--model-id", "Qwen/Qwen3-8B"], "env": [{"name": "NUM_SHARD", "value": "6"}]},
    ],
)
def test_a_size_changes_where_it_stands_and_the_gpus_with_it(start: dict[str, object]) -> None:
    image = "ghcr.io/huggingface/text-generation-inference:3.1.0"
    container = {"name": "tgi", "image": image, "resources": {"limits": {"nvidia.com/gpu": "6"}}, **start}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "q"}, "spec": {"containers": [container]}}
    before = Snapshot(objects=(pod,))
    (found,) = [f for f in diagnose(before, installed()).targets[0].findings if f.id == "tp-not-divisible"]

    assert found.fixes[0].patch
    after = patched(before, found.fixes[0].patch)
    assert after
    assert after.objects[0]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "4"
    ids = {f.id for f in diagnose(after, installed()).targets[0].findings}
    assert not ids & {"tp-not-divisible", "gpu-count-mismatch"}


def test_gpus_stay_where_they_serve_more_than_one_stage() -> None:
    args = ["--model", "Qwen/Qwen3-8B", "--tensor-parallel-size", "3", "--pipeline-parallel-size", "2"]
    limits = {"limits": {"nvidia.com/gpu": "6"}}
    container = {"name": "v", "image": "vllm/vllm-openai:v0.11.0", "args": args, "resources": limits}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "q"}, "spec": {"containers": [container]}}
    (target,) = diagnose(Snapshot(objects=(pod,)), installed()).targets
    (found,) = [f for f in target.findings if f.id == "tp-not-divisible"]

    assert "and change the number of GPUs with it" in found.fixes[0].summary
    assert found.fixes[0].patch
    assert [op["value"] for op in found.fixes[0].patch.body] == ["2"]


def test_what_no_patch_can_change_is_told_as_a_person_writes_it() -> None:
    container = {
        "name": "vllm",
        "image": "vllm/vllm-openai:v0.11.0",
        "args": ["--model", "Qwen/Qwen3-8B", "--max-model-len", "131072"],
        "resources": {"limits": {"nvidia.com/gpu": "1"}},
    }
    waiting = {"name": "vllm", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "llama-0", "namespace": "prod"},
        "spec": {"nodeName": "gpu-1", "containers": [container]},
        "status": {
            "phase": "Running",
            "containerStatuses": [waiting | {"lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}}],
        },
    }
    (target,) = diagnose(Snapshot(objects=(pod,)), installed()).targets
    (found,) = [f for f in target.findings if f.id == "max-len-exceeds-model"]

    assert found.fixes[0].summary == (
        "Cap the context at 40960 tokens (--max-model-len 40960; in Pod/llama-0, which must be deleted and recreated)"
    )


def test_a_startup_probe_asks_all_that_the_liveness_probe_asks() -> None:
    header = {"name": "Authorization", "value": "Bearer a"}
    http = k8s.HttpGet(path="/health", port="api", scheme="HTTPS", http_headers=(header,))
    asked = {"path": "/health", "port": "api", "scheme": "HTTPS", "httpHeaders": [header]}
    assert asking_the_same(k8s.Probe(http_get=http, timeout_seconds=5)) == {"httpGet": asked, "timeoutSeconds": 5}
    assert asking_the_same(k8s.Probe(tcp_socket=k8s.TcpSocket(port=80))) == {"tcpSocket": {"port": 80}}
    assert asking_the_same(k8s.Probe(grpc=k8s.GrpcAction())) == {}


@pytest.mark.parametrize(
    ("labels", "where"),
    [
        ({}, "Deployment/llama"),
        ({"serving.knative.dev/service": "chat"}, "Service/chat"),
        ({"serving.knative.dev/service": "c", "serving.kserve.io/inferenceservice": "c"}, "InferenceService/c"),
    ],
)
def test_an_owner_that_was_not_read_is_what_a_fix_names(labels: dict[str, str], where: str) -> None:
    container = {
        "name": "vllm",
        "image": "vllm/vllm-openai:v0.11.0",
        "args": ["--max-model-len=131072", "--model=Qwen/Qwen3-8B"],
    }
    waiting = {"name": "vllm", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "llama-5d9c", "uid": "u1", "controller": True}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "llama-5d9c-x2k4q",
            "namespace": "prod",
            "labels": {"pod-template-hash": "5d9c"} | labels,
            "ownerReferences": [owner],
        },
        "spec": {"nodeName": "gpu-1", "containers": [container]},
        "status": {
            "phase": "Running",
            "containerStatuses": [waiting | {"lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}}],
        },
    }
    (target,) = diagnose(Snapshot(objects=(pod,)), installed()).targets
    (found,) = [f for f in target.findings if f.id == "max-len-exceeds-model"]

    assert found.fixes[0].summary.endswith(f"(--max-model-len=40960; in {where})")
    assert found.fixes[0].patch is None


def test_a_workload_that_another_makes_gets_no_patch() -> None:
    container = {
        "name": "main",
        "image": "vllm/vllm-openai:v0.11.0",
        "args": ["--max-model-len=131072", "--model=Qwen/Qwen3-8B"],
    }
    owner = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "name": "llama",
        "uid": "u2",
        "controller": True,
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "llama-predictor", "namespace": "prod", "ownerReferences": [owner]},
        "spec": {"template": {"metadata": {"labels": {"app": "llm"}}, "spec": {"containers": [container]}}},
    }
    (target,) = diagnose(Snapshot(objects=(deployment,)), installed()).targets
    (found,) = [f for f in target.findings if f.id == "max-len-exceeds-model"]

    assert found.fixes[0].summary.endswith("in InferenceService/llama)")
    assert found.fixes[0].patch is None


@pytest.mark.parametrize(
    ("case", "command"),
    [
        ("kai_limit_of_a_known_queue", "kubectl patch queue.scheduling.run.ai/team-b "),
        ("volcano_queue_lacks_cpus", "kubectl patch queue.scheduling.volcano.sh/serving "),
        ("kueue_quota_of_a_known_queue", "kubectl patch clusterqueue.kueue.x-k8s.io/cq "),
    ],
)
def test_a_queue_of_the_whole_cluster_has_no_namespace(case: str, command: str) -> None:
    cases = Path(__file__).parents[1] / "checks" / "cases" / "quota-exceeded"
    report = diagnose_case(load_case(cases / f"fires_{case}.yaml"))
    finding = next(f for f in report.targets[0].findings if f.id == "quota-exceeded")

    assert finding.fixes[0].commands[0].startswith(command)


def test_several_flags_are_words_as_the_parser_takes_them() -> None:
    server = {"name": "s", "image": "ghcr.io/ggml-org/llama.cpp:server", "args": ["-m", "/models/a.gguf"]}
    template = {"spec": {"containers": [server]}}
    item = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "llm", "namespace": "a"}}
    cluster = Cluster(Snapshot(taken_at="2026-11-20T10:00:00Z", objects=({**item, "spec": {"template": template}},)))
    found = cluster.item("Deployment", "a", "llm")
    assert found is not None
    (engine,) = engines_of(Pod.planned(Workload(found, cluster))[0], Logs([]))
    made = fixes.set_flags(engine, [("x", "--ctx-size", "8192"), ("y", "--no-mmap", "")], "Set both")
    assert made.patch is not None
    assert [one["value"] for one in made.patch.body] == ["--ctx-size", "8192", "--no-mmap"]
