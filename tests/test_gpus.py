"""Which GPU a name, a label, a node, a log or a selector means."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_llmdoctor.catalog import gpus
from kubectl_llmdoctor.facts.accelerator import Accelerator
from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.unknown import NOT_APPLICABLE, NotApplicable, Unknown
from kubectl_llmdoctor.snapshot import LogText, NodeData, ReadList, Snapshot, TargetRef
from kubectl_llmdoctor.target import subjects


@pytest.mark.parametrize(
    ("label", "name", "gib"),
    [
        ("NVIDIA-H100-80GB-HBM3", "H100 SXM", 79.1),
        ("NVIDIA-H100-NVL", "H100 NVL", 93.1),
        ("NVIDIA-H100-PCIe", "H100 PCIe", 79.1),
        ("nvidia-h100-80gb", "H100 SXM", 79.1),
        ("NVIDIA-H200", "H200", 139.7),
        ("NVIDIA-H200-NVL", "H200 NVL", 139.7),
        ("NVIDIA-GH200-480GB", "GH200 96GB", 94.5),
        ("NVIDIA GH200 144G HBM3e", "GH200 144GB", 142.0),
        ("NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", "A100 SXM 80GB MIG 1g.10gb", 9.5),
        ("NVIDIA-H100-80GB-HBM3-MIG-3g.40gb-SHARED", "H100 SXM MIG 3g.40gb", 39.2),
        ("NVIDIA-A100-PCIE-40GB-MIG-7g.40gb", "A100 PCIe 40GB MIG 7g.40gb", 39.0),
        ("NVIDIA-A100-80GB-PCIe", "A100 PCIe 80GB", 79.1),
        ("A100-SXM4-40GB", "A100 SXM 40GB", 39.4),
        ("nvidia-tesla-a100", "A100 SXM 40GB", 39.4),
        ("NVIDIA-A10", "A10", 22.0),
        ("a10g", "A10G", 22.0),
        ("NVIDIA-L4", "L4", 22.0),
        ("NVIDIA-L40", "L40", 44.4),
        ("NVIDIA-L40S-SHARED", "L40S", 44.4),
        ("Tesla-T4", "T4", 14.6),
        ("nvidia-tesla-t4", "T4", 14.6),
        ("Tesla V100-SXM2-32GB", "V100 32GB", 31.7),
        ("Quadro-RTX-6000", "Quadro RTX 6000", 23.4),
        ("NVIDIA-RTX-6000-Ada-Generation", "RTX 6000 Ada", 47.4),
        ("NVIDIA RTX A6000", "RTX A6000", 47.4),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "RTX PRO 6000 Blackwell", 95.0),
        ("NVIDIA GeForce RTX 5090", "GeForce RTX 5090", 31.4),
        ("NVIDIA B300 SXM6 AC", "B300", 265.9),
        ("NVIDIA-GB200", "GB200", 184.3),
        ("NVIDIA H20-3e", "H20 141GB", 139.7),
        ("AMD_Instinct_MI300X_OAM", "Instinct MI300X", 192.0),
    ],
)
def test_a_label_is_one_gpu(label: str, name: str, gib: float) -> None:
    found = gpus.by_product(label)

    assert found is not None
    assert (found.name, round(found.memory / 2**30, 1)) == (name, gib)


@pytest.mark.parametrize(
    "label",
    [
        "NVIDIA-A40-24Q",
        "GRID-T4-8C",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA-GeForce-RTX-3080",
        "DGX-Display",
        "",
    ],
)
def test_what_is_no_whole_gpu_or_several_is_none(label: str) -> None:
    assert gpus.by_product(label) is None


def test_the_memory_beside_a_name_decides() -> None:
    assert gpus.by_product("NVIDIA-GeForce-RTX-3080", 12288) == gpus.by_product("RTX 3080 12GB")
    assert gpus.by_product("a100", 81920) == gpus.by_product("a100-80gb")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("H100", ["H100 80GB"]),
        ("h100 nvl", ["H100 NVL"]),
        ("A100", ["A100 80GB", "A100 40GB"]),
        ("a100-40gb", ["A100 40GB"]),
        ("A100 80 GB", ["A100 80GB"]),
        ("rtx4090", ["GeForce RTX 4090"]),
        ("RTX 6000", ["RTX 6000 Ada", "Quadro RTX 6000"]),
        ("V100", ["V100 32GB", "V100 16GB"]),
        ("A100 MIG 1g.10gb", ["A100 80GB MIG 1g.10gb", "A100 40GB MIG 1g.10gb"]),
        ("H1000", []),
    ],
)
def test_an_ambiguous_name_is_answered_with_candidates(text: str, names: list[str]) -> None:
    assert [gpu.name for gpu in gpus.candidates(text)] == names
    assert (gpus.by_product(text) is None) == (len(names) != 1)


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        ("g6e.12xlarge", "L40S"),
        ("g6.xlarge", "L4"),
        ("p5.48xlarge", "H100 SXM"),
        ("p5en.48xlarge", "H200"),
        ("a2-ultragpu-4g", "A100 SXM 80GB"),
        ("Standard_NC40ads_H100_v5", "H100 NVL"),
        ("Standard_NC4as_T4_v3", "T4"),
        ("m5.large", None),
        ("g6f.large", None),
        ("Standard_NV6ads_A10_v5", None),
    ],
)
def test_machine_types(machine: str, name: str | None) -> None:
    found = gpus.by_instance(machine)
    assert (found.name if found else None) == name


def test_the_table_is_sound() -> None:
    for gpu in gpus.known():
        assert 0.94 * gpu.reported <= gpu.memory / 2**20 <= gpu.reported, gpu.name
        named = gpus.candidates(gpu.name)
        assert any(c.reported == gpu.reported and c.compute == gpu.compute for c in named), gpu.name


def _node(name: str, labels: dict[str, str], resource: str = "nvidia.com/gpu") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "status": {"allocatable": {resource: "8", "cpu": "8", "memory": "64Gi", "pods": "110"}},
    }


def _pod(spec: dict[str, Any] | None = None, resource: str = "nvidia.com/gpu") -> dict[str, Any]:
    container = {"name": "vllm", "image": "vllm/vllm-openai:v0.10.2", "resources": {"limits": {resource: "1"}}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "llama", "namespace": "serving"},
        "spec": {"containers": [container], **(spec or {})},
    }


def _found(
    *objects: dict[str, Any], log: str = "", nodes: dict[str, NodeData] | None = None, complete: bool = False
) -> Accelerator | Unknown | NotApplicable:
    logs = (LogText(text=log, namespace="serving", pod="llama", container="vllm"),) if log else ()
    snapshot = Snapshot(
        target=TargetRef(kind="Pod", name="llama", namespace="serving"),
        objects=objects,
        logs=logs,
        nodes=nodes or {},
        read=(ReadList(kind="Node"),) if complete else (),
    )
    subject = subjects(Cluster(snapshot))[0]
    return subject.accelerator(subject.pods[0].containers[0])


def test_the_labels_of_the_node_say_it() -> None:
    labels = {
        "nvidia.com/gpu.product": "NVIDIA-L40S-SHARED",
        "nvidia.com/gpu.memory": "46068",
        "nvidia.com/gpu.replicas": "4",
        "nvidia.com/gpu.sharing-strategy": "time-slicing",
    }
    found = _found(_pod({"nodeName": "gpu-1"}), _node("gpu-1", labels))

    assert isinstance(found, Accelerator)
    assert (found.gpu.name, found.source, found.shared, found.sharing) == ("L40S", "label", 4, "time-slicing")
    assert found.text == "nvidia.com/gpu.product=NVIDIA-L40S-SHARED"


def test_a_slice_that_is_asked_for_by_name() -> None:
    labels = {"nvidia.com/gpu.product": "NVIDIA-H200", "nvidia.com/mig-2g.35gb.memory": "33280"}
    resource = "nvidia.com/mig-2g.35gb"
    found = _found(_pod({"nodeName": "gpu-1"}, resource), _node("gpu-1", labels, resource))

    assert isinstance(found, Accelerator)
    assert (found.gpu.name, found.gpu.memory) == ("H200 MIG 2g.35gb", 33280 * 2**20)


def test_a_gpu_that_the_table_lacks() -> None:
    labels = {
        "nvidia.com/gpu.product": "NVIDIA-X900",
        "nvidia.com/gpu.memory": "50000",
        "nvidia.com/gpu.compute.major": "8",
        "nvidia.com/gpu.compute.minor": "9",
    }
    found = _found(_pod({"nodeName": "gpu-1"}), _node("gpu-1", labels))

    assert isinstance(found, Accelerator)
    assert (found.gpu.name, found.gpu.compute, found.gpu.fp8, found.gpu.measured) == ("X900", (8, 9), True, False)


def test_a_card_with_other_memory_than_its_name_says() -> None:
    labels = {
        "nvidia.com/gpu.product": "NVIDIA-GeForce-RTX-4090",
        "nvidia.com/gpu.memory": "49140",
        "nvidia.com/gpu.compute.major": "8",
        "nvidia.com/gpu.compute.minor": "9",
    }
    found = _found(_pod({"nodeName": "gpu-1"}), _node("gpu-1", labels))

    assert isinstance(found, Accelerator)
    assert (found.gpu.memory, found.gpu.fp8, found.gpu.measured) == (49140 * 2**20, True, False)


def test_error_correction_takes_its_part() -> None:
    labels = {"nvidia.com/gpu.product": "NVIDIA-RTX-A6000", "nvidia.com/gpu.memory": "46068"}
    found = _found(_pod({"nodeName": "gpu-1"}), _node("gpu-1", labels))

    assert isinstance(found, Accelerator)
    assert (found.gpu.name, found.gpu.memory // 2**20) == ("RTX A6000", 45434)


def test_a_slice_that_the_table_lacks() -> None:
    labels = {"nvidia.com/gpu.product": "NVIDIA-H200-MIG-3g.71gb", "nvidia.com/gpu.memory": "71424"}
    found = _found(_pod({"nodeName": "gpu-1"}), _node("gpu-1", labels))

    assert isinstance(found, Accelerator)
    assert (found.gpu.profile, found.gpu.memory) == ("3g.71gb", 71424 * 2**20)


def test_the_agent_says_it() -> None:
    device = {"name": "NVIDIA A10G", "memoryTotalBytes": 23028 * 2**20}
    found = _found(_pod({"nodeName": "gpu-1"}), nodes={"gpu-1": NodeData(agent={"gpus": [device, device]})})
    other = {"name": "Tesla T4", "memoryTotalBytes": 15360 * 2**20}
    mixed = _found(_pod({"nodeName": "gpu-1"}), nodes={"gpu-1": NodeData(agent={"gpus": [device, other]})})

    assert isinstance(found, Accelerator)
    assert (found.gpu.name, found.source) == ("A10G", "agent")
    assert isinstance(mixed, Unknown)


@pytest.mark.parametrize(
    ("log", "name", "compute", "gib"),
    [
        ("  Device 0: NVIDIA L40S, compute capability 8.9, VMM: yes, VRAM: 45467 MiB", "L40S", (8, 9), 44.4),
        (
            'time=x level=INFO source=types.go:130 msg="inference compute" id=GPU-1 library=cuda variant=v12 '
            'compute=8.9 driver=12.5 name="NVIDIA GeForce RTX 4090" total="23.6 GiB" available="21.8 GiB"',
            "GeForce RTX 4090",
            (8, 9),
            23.6,
        ),
        (
            'time=x level=INFO msg="inference compute" id=GPU-b filter_id="" library=CUDA compute=8.6 name=CUDA0 '
            'description="NVIDIA GeForce RTX 3070" libdirs=ollama,cuda_v12 driver=13.0 total="8.0 GiB"',
            "GeForce RTX 3070",
            (8, 6),
            8.0,
        ),
        (
            "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 GPU "
            "has compute capability 7.5.",
            "T4",
            (7, 5),
            14.6,
        ),
        (
            "NVIDIA GeForce RTX 5090 with CUDA capability sm_120 is not compatible with the current PyTorch",
            "GeForce RTX 5090",
            (12, 0),
            31.4,
        ),
        ("ValueError: Free memory on device cuda:0 (7.3/139.72 GiB) on startup", "GPU of 139.72 GiB", None, 139.7),
    ],
)
def test_the_log_says_it(log: str, name: str, compute: tuple[int, int] | None, gib: float) -> None:
    found = _found(_pod({"nodeName": "gpu-1"}), log=log + "\n")

    assert isinstance(found, Accelerator)
    assert (found.gpu.name, found.gpu.compute, round(found.gpu.memory / 2**30, 1)) == (name, compute, gib)
    assert found.line is not None


def test_the_log_knows_better_how_much_memory_is_shown() -> None:
    log = "the current vLLM instance can use total_gpu_memory (8.00GiB) x gpu_memory_utilization (0.70) = 5.60GiB\n"
    labels = {"nvidia.com/gpu.product": "NVIDIA-L40S"}
    found = _found(_pod({"nodeName": "gpu-1"}), _node("gpu-1", labels), log=log)

    assert isinstance(found, Accelerator)
    assert (found.gpu.name, found.gpu.memory, found.source) == ("L40S", 8 * 2**30, "log")


def test_selectors_of_a_pod_without_a_node() -> None:
    one = _found(_pod({"nodeSelector": {"cloud.google.com/gke-accelerator": "nvidia-l4"}}))
    terms = [
        {
            "matchExpressions": [
                {"key": "nvidia.com/gpu.product", "operator": "In", "values": ["NVIDIA-L4", "NVIDIA-L40S"]}
            ]
        }
    ]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    several = _found(_pod({"affinity": {"nodeAffinity": required}}))

    assert isinstance(one, Accelerator)
    assert (one.gpu.name, one.source, one.ref) == ("L4", "selector", "spec.nodeSelector")
    assert isinstance(several, Unknown)
    assert "L4, L40S" in several.reason


def test_nodes_that_are_all_alike() -> None:
    labels = {"nvidia.com/gpu.product": "NVIDIA-L4"}
    tainted = _node("gpu-2", {"nvidia.com/gpu.product": "NVIDIA-H200"})
    tainted["spec"] = {"taints": [{"key": "team", "value": "a", "effect": "NoSchedule"}]}
    found = _found(_pod(), _node("gpu-1", labels), tainted, complete=True)
    partial = _found(_pod(), _node("gpu-1", labels))
    mixed = _found(
        _pod(), _node("gpu-1", labels), _node("gpu-2", {"nvidia.com/gpu.product": "NVIDIA-H200"}), complete=True
    )

    assert isinstance(found, Accelerator)
    assert (found.gpu.name, found.source) == ("L4", "nodes")
    assert isinstance(partial, Unknown)
    assert isinstance(mixed, Unknown)


def test_a_container_without_a_gpu() -> None:
    pod = _pod()
    pod["spec"]["containers"][0]["resources"] = {}

    assert _found(pod) is NOT_APPLICABLE
