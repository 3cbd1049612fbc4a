"""Tables about what runs on which GPU, builds of images, vulnerabilities, and ways in from outside."""

from __future__ import annotations

import re
from typing import Any

import pytest
from llmdoctor_checks.serving._exposure import ways

from kubectl_llmdoctor.catalog import quantization
from kubectl_llmdoctor.catalog.images import cpu_build, foreign_resource
from kubectl_llmdoctor.catalog.vulnerabilities import VULNERABILITIES
from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.snapshot import Snapshot
from kubectl_llmdoctor.target import subjects


@pytest.mark.parametrize(
    ("engine", "method", "version", "least"),
    [
        ("vllm", "fp8", "0.8.5", (8, 0)),
        ("vllm", "fp8", "0.8.5.post1", (8, 0)),
        ("vllm", "fp8", "0.10.2", (7, 5)),  # between two samples: the lower demand
        ("vllm", "fp8", None, (7, 5)),
        ("vllm", "nvfp4", "0.8.4", (10, 0)),
        ("vllm", "bitsandbytes", "0.33.0", None),  # a plugin by then
        ("vllm", "fp8", "0.40.0", None),  # newer than what was read
        ("vllm", "no-such-method", "0.10.0", None),
        ("sglang", "w8a8_fp8", None, (8, 9)),
        ("tgi", "marlin", "3.3.5", (8, 0)),
        ("ollama", "fp8", "0.12.0", None),
    ],
)
def test_the_least_capability(engine: str, method: str, version: str | None, least: tuple[int, int] | None) -> None:
    assert quantization.minimum(engine, method, version) == least


@pytest.mark.parametrize(
    ("method", "version", "known"),
    [
        ("gguf", "0.23.0", True),
        ("gguf", "0.24.0", True),  # between the last with and the first without
        ("gguf", "0.26.0", False),
        ("bitsandbytes", "0.29.0", False),
        ("aqlm", "0.10.2", False),
        ("mxfp4", "0.8.5", False),
        ("mxfp4", "0.9.2", True),
        ("awq", "0.4.0", None),
        ("awq", "0.99.0", None),
    ],
)
def test_which_methods_a_release_knows(method: str, version: str, known: bool | None) -> None:
    assert quantization.knows("vllm", method, version) is known


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("Qwen/Qwen2.5-7B-Instruct-AWQ", "awq"),
        ("/models/Llama-2-7B-GPTQ/", "gptq"),
        ("RedHatAI/Qwen3-8B-FP8-dynamic", "fp8"),
        ("RedHatAI/Qwen3-8B-quantized.w4a16", "compressed-tensors"),
        ("nvidia/Qwen3-8B-NVFP4", "nvfp4"),
        ("unsloth/m-bnb-4bit", "bitsandbytes"),
        ("acme/gptq-vs-awq", None),
        ("acme/awqward", None),
    ],
)
def test_what_a_name_says(model: str, family: str | None) -> None:
    assert quantization.of_name(model) == family


@pytest.mark.parametrize(
    ("image", "twin"),
    [
        ("ghcr.io/ggml-org/llama.cpp:server", "ghcr.io/ggml-org/llama.cpp:server-cuda"),
        ("ghcr.io/ggml-org/llama.cpp:server-b10434", "ghcr.io/ggml-org/llama.cpp:server-cuda-b10434"),
        ("kserve/huggingfaceserver:v0.15.2", "kserve/huggingfaceserver:v0.15.2-gpu"),
        ("vllm/vllm-openai-cpu:v0.11.0", "vllm/vllm-openai:v0.11.0"),
        ("ghcr.io/huggingface/text-embeddings-inference:cpu-1.8", ""),
        ("registry.acme.example:5000/vllm-cpu-env:1@sha256:0", ""),
    ],
)
def test_builds_for_the_cpu(image: str, twin: str) -> None:
    build = cpu_build(image)

    assert build is not None
    assert build.twin == twin


@pytest.mark.parametrize(
    "image",
    [
        "ghcr.io/ggml-org/llama.cpp:server-cuda-b10434",
        "ghcr.io/ggml-org/llama.cpp:server-rocm",
        "kserve/huggingfaceserver:v0.14.1",
        "kserve/huggingfaceserver:v0.15.2-gpu",
        "vllm/vllm-openai:v0.11.0",
        "ollama/ollama",
        "registry.cpu.example/vllm-openai:v1",
        "",
    ],
)
def test_other_builds(image: str) -> None:
    assert cpu_build(image) is None


def test_ranges_of_vulnerabilities() -> None:
    def key(version: str) -> list[int]:
        return [int(part) for part in re.findall(r"\d+", version)]

    assert len({row.id for row in VULNERABILITIES}) == len(VULNERABILITIES)
    for row in VULNERABILITIES:
        assert re.fullmatch(r"CVE-\d{4}-\d{4,7}", row.id)
        assert key(row.first) < key(row.fixed), row.id
        assert 0 < row.score <= 10


def _ways(service: dict[str, Any], metadata: dict[str, Any] | None = None, *more: dict[str, Any]) -> list[str]:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "llama", "namespace": "serving", "labels": {"app": "llama"}},
        "spec": {"containers": [{"name": "vllm", "image": "vllm/vllm-openai:v0.11.0"}]},
    }
    spec = {"selector": {"app": "llama"}, "ports": [{"port": 80, "targetPort": 8000}], **service}
    made = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "llama", "namespace": "serving"}, "spec": spec}
    made["metadata"] = {**made["metadata"], **(metadata or {})}  # type: ignore[dict-item]
    cluster = Cluster(Snapshot(objects=(pod, made, *more)))
    subject = next(s for s in subjects(cluster) if s.pods)
    return [way.kind for way in ways(subject.pods[0], {8000}, cluster)]


@pytest.mark.parametrize(
    "annotations",
    [
        {"service.beta.kubernetes.io/aws-load-balancer-internal": "true"},
        {"service.beta.kubernetes.io/aws-load-balancer-scheme": "internal"},
        {"service.beta.kubernetes.io/aws-load-balancer-type": "nlb-ip"},
        {"service.beta.kubernetes.io/azure-load-balancer-internal": "true"},
        {"networking.gke.io/load-balancer-type": "Internal"},
        {"cloud.google.com/load-balancer-type": "Internal"},
        {"service.beta.kubernetes.io/openstack-internal-load-balancer": "true"},
        {"service.beta.kubernetes.io/alibaba-cloud-loadbalancer-address-type": "intranet"},
        {"service.kubernetes.io/qcloud-loadbalancer-internal-subnetid": "subnet-1"},
        {"service.beta.kubernetes.io/oci-load-balancer-internal": "true"},
        {"service.kubernetes.io/ibm-load-balancer-cloud-provider-ip-type": "private"},
        {"service.beta.kubernetes.io/do-loadbalancer-network": "INTERNAL"},
        {"service.beta.kubernetes.io/scw-loadbalancer-private": "true"},
        {"load-balancer.hetzner.cloud/disable-public-network": "true"},
        {"yandex.cloud/load-balancer-type": "internal"},
    ],
)
def test_internal_load_balancers(annotations: dict[str, str]) -> None:
    assert _ways({"type": "LoadBalancer"}, {"annotations": annotations}) == []


@pytest.mark.parametrize(
    ("service", "metadata", "found"),
    [
        ({"type": "LoadBalancer"}, {}, ["LoadBalancer"]),
        ({"type": "LoadBalancer", "loadBalancerClass": "service.k8s.aws/nlb"}, {}, []),
        ({"type": "LoadBalancer", "loadBalancerClass": "tailscale"}, {}, []),
        ({"type": "LoadBalancer", "loadBalancerIP": "10.1.2.3"}, {}, []),
        ({"type": "LoadBalancer", "loadBalancerIP": "8.8.8.8"}, {}, ["LoadBalancer"]),
        ({"type": "LoadBalancer", "loadBalancerSourceRanges": ["0.0.0.0/0"]}, {}, ["LoadBalancer"]),
        ({"type": "LoadBalancer", "loadBalancerSourceRanges": ["192.0.2.0/24"]}, {}, []),
        ({"type": "LoadBalancer", "ports": [{"port": 9000}]}, {}, []),
        ({"type": "LoadBalancer", "selector": {"app": "other"}}, {}, []),
        ({"type": "LoadBalancer", "selector": None}, {}, []),
        ({"type": "NodePort"}, {}, ["NodePort"]),
        ({"type": "ClusterIP"}, {}, []),
        (
            {"type": "LoadBalancer"},
            {"annotations": {"service.beta.kubernetes.io/aws-load-balancer-scheme": "internet-facing"}},
            ["LoadBalancer"],
        ),
        (
            {"type": "LoadBalancer"},
            {"annotations": {"service.beta.kubernetes.io/azure-load-balancer-internal": "false"}},
            ["LoadBalancer"],
        ),
    ],
)
def test_ways_through_a_service(service: dict[str, Any], metadata: dict[str, Any], found: list[str]) -> None:
    assert _ways(service, metadata) == found


def test_ways_through_a_route() -> None:
    route = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "llama", "namespace": "serving"},
        "spec": {"hostnames": ["llama.acme.example"], "rules": [{"backendRefs": [{"name": "llama", "port": 80}]}]},
    }

    assert _ways({"type": "ClusterIP"}, {}, route) == ["HTTPRoute"]


@pytest.mark.parametrize(
    ("image", "resource"),
    [
        ("rocm/vllm:latest", "amd.com/gpu"),
        ("quay.io/ascend/vllm-ascend:v0.11", "huawei.com/Ascend910"),
        ("vault.habana.ai/gaudi-docker/1.15/ubuntu/pytorch:1", "habana.ai/gaudi"),
        ("lmsysorg/sglang:v0.5.10-rocm700", "amd.com/gpu"),
        ("registry.corp.example/neuron-team/vllm:v1", ""),
        ("tpu.registry.corp.example/llm/vllm-openai:v0.24.0", ""),
    ],
)
def test_whose_accelerators_an_image_is_for(image: str, resource: str) -> None:
    """A registry, and the folders of one's own, say nothing of it."""
    assert foreign_resource(image) == resource
