"""What is enough, by a message and a specification."""

from __future__ import annotations

import pytest

from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.units import GIB
from kubectl_llmdoctor.room import enough
from kubectl_llmdoctor.room.amounts import amount, quantity
from kubectl_llmdoctor.room.case import Case
from kubectl_llmdoctor.room.gpus import most_gpus
from kubectl_llmdoctor.snapshot import Snapshot
from kubectl_llmdoctor.target import subjects


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("41.2 GiB", 41.2 * GIB),
        ("448.00M", 448 * 1024**2),
        ("17179869184", 17179869184.0),
        ("14.10", 14.1 * GIB),
        ("65536", 65536.0),
        ("4194304KB", 4 * GIB),
        ("320. GiB", 320.0 * GIB),
        ("", None),
        (None, None),
        ("1.2.3 GiB", None),
        ("cuda>=12.2", None),
    ],
)
def test_an_amount(text: str | None, size: float | None) -> None:
    assert amount(text) == size


def test_a_quantity_is_a_usual_one() -> None:
    assert [quantity(n * GIB) for n in (0.5, 33, 49.5, 3000)] == ["1Gi", "48Gi", "64Gi", "3000Gi"]


def test_nothing_is_counted_of_what_is_not_known() -> None:
    values = enough(Case(None, None, {"need": "cuda>=12.2", "have": "sm_86", "want": "?"}, "", None))
    guessed = {"share_unknown", "spread_why", "limit_written", "fewer_images", "allocator", "segmented"}
    assert {name for name, value in values.items() if value} == guessed


def _pod(*, limits: dict[str, str], labels: dict[str, str] | None = None) -> Container:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "llama-0", "namespace": "serving"},
        "spec": {"nodeName": "gpu-1", "containers": [{"name": "vllm", "image": "x", "resources": {"limits": limits}}]},
    }
    resource = next(iter(limits))
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "gpu-1", "labels": labels or {}},
        "status": {"allocatable": {resource: "8"}},
    }
    (subject,) = subjects(Cluster(Snapshot(objects=(pod, node), taken_at="2026-01-01T00:00:00Z")))
    return subject.pods[0].containers[0]


@pytest.mark.parametrize(
    ("limits", "labels", "most"),
    [
        ({"nvidia.com/gpu": "1"}, {}, 8),
        ({"nvidia.com/gpu": "1"}, {"nvidia.com/gpu.replicas": "8"}, 0),
        ({"nvidia.com/mig-1g.10gb": "1"}, {}, 0),
        ({"google.com/tpu": "4"}, {}, 0),
    ],
)
def test_only_whole_gpus_of_its_own_can_be_more(limits: dict[str, str], labels: dict[str, str], most: int) -> None:
    assert most_gpus(_pod(limits=limits, labels=labels)) == most


def _values(image: str, *args: str, **env: str) -> dict[str, str]:
    spec = {"name": "s", "image": image, "args": [*args], "env": [{"name": k, "value": v} for k, v in env.items()]}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "m", "namespace": "a"},
        "spec": {"containers": [spec]},
    }
    (subject,) = subjects(Cluster(Snapshot(objects=(pod,))))
    (engine,) = subject.engines(subject.pods[0])
    return enough(Case(engine, engine.container, {}, "", None))


@pytest.mark.parametrize(
    ("more", "fewer"),
    [
        ((), "2048"),
        (("--no-enable-chunked-prefill", "--max-model-len", "16384"), ""),  # the longest prompt is one batch
        (("--max-num-seqs", "4096"), ""),
    ],
)
def test_a_smaller_batch_is_one_that_starts(more: tuple[str, ...], fewer: str) -> None:
    values = _values("vllm/vllm-openai:v0.10.2", "--model", "a/b", "--max-num-batched-tokens", "16384", *more)

    assert values["fewer_batched"] == fewer


def test_expandable_segments_are_nothing_for_a_pool_nor_twice() -> None:
    image, model = "vllm/vllm-openai:v0.10.2", ("--model", "a/b")
    told = "max_split_size_mb:128,expandable_segments:True"

    assert _values(image, *model, PYTORCH_CUDA_ALLOC_CONF="max_split_size_mb:128")["no_segments"] == ""
    assert _values(image, *model, "--enable-sleep-mode")["no_segments"]
    assert _values(image, *model, PYTORCH_CUDA_ALLOC_CONF=told)["no_segments"]


@pytest.mark.parametrize(
    ("env", "fits"), [({}, "yes"), ({"LLAMA_ARG_FIT": "off"}, ""), ({"LLAMA_ARG_TENSOR_SPLIT": "3,1"}, "")]
)
def test_a_variable_keeps_llama_server_from_fitting_layers(env: dict[str, str], fits: str) -> None:
    image = "ghcr.io/ggml-org/llama.cpp:server-cuda-b8000"

    assert _values(image, "-m", "/m.gguf", "-ngl", "99", **env)["fits_layers"] == fits
