"""Reports of whole clusters for the tests of what is passed on: one small enough to read, and one of any size."""

from __future__ import annotations

from msgspec.structs import replace

from kubectl_llmdoctor.report import document as doc
from kubectl_llmdoctor.report.document import Changed, Cluster, Comparison, GpuNode, Holder, NotRead, Report, Target

from .test_report_text import AT_RISK, FORBIDDEN, HEALTHY, KV_CACHE, OOM_KILLED, PENDING, UNDETERMINED, UNREAD, report

LLAMA = Holder(namespace="serving", workload="StatefulSet/llama-70b", devices=2)
IDLE = Holder(namespace="research", workload="Deployment/notebook", devices=4, idle=4)
H100 = "NVIDIA H100 80GB HBM3"


def node(name: str, free: int, *holders: Holder, total: int = 8, stranded: str = "", product: str = H100) -> GpuNode:
    return GpuNode(
        name=name,
        product=product,
        resource="nvidia.com/gpu",
        total=total,
        allocatable=total,
        free=free,
        holders=holders,
        stranded=stranded,
    )


NODES = (
    node("gpu-a-001", 2, LLAMA, IDLE),
    node("gpu-a-002", 0, Holder(namespace="serving", workload="Deployment/mixtral", devices=8)),
    node("gpu-a-003", 8, stranded="cordoned"),
    replace(
        node("gpu-a-004", 3, Holder(namespace="serving", workload="Deployment/qwen", devices=4), total=8), allocatable=7
    ),
    node("gpu-b-001", 1, Holder(namespace="batch", workload="Job/train", devices=3), total=4, product="NVIDIA L40S"),
)
CLUSTER = Cluster(
    capacity=(
        doc.Capacity(
            product=H100,
            resource="nvidia.com/gpu",
            nodes=4,
            total=32,
            allocatable=31,
            allocated=18,
            free=13,
            chunks={"2": 1, "3": 1, "8": 1},
            stranded={"cordoned": 8},
            idle=4,
            holders=(Holder(namespace="serving", workload="Deployment/mixtral", devices=8), IDLE, LLAMA),
        ),
        doc.Capacity(
            product="NVIDIA L40S",
            resource="nvidia.com/gpu",
            nodes=1,
            total=4,
            allocatable=4,
            allocated=3,
            free=1,
            chunks={"1": 1},
            holders=(Holder(namespace="batch", workload="Job/train", devices=3),),
        ),
    ),
    nodes=NODES,
    engines=(
        doc.EngineVersion(
            name="vllm",
            version="0.9.1",
            workloads=("Deployment serving/qwen", "StatefulSet serving/llama-70b"),
            vulnerabilities=("CVE-2025-48956", "CVE-2025-62164"),
        ),
        doc.EngineVersion(name="sglang", version="0.4.6", workloads=("StatefulSet serving/qwen",)),
        doc.EngineVersion(name="tgi", version=None, workloads=("Deployment chat/mistral",)),
    ),
)
COMPARISON = Comparison(
    taken_at="2026-11-13T10:00:00Z",
    new=(
        Changed(
            target="Pod serving/llama-70b-0",
            id="kv-cache-below-max-len",
            role="cause",
            severity="critical",
            summary="Nothing caps the context, so the model's own 131072 applies.",
        ),
    ),
    fixed=(Changed(target="Deployment chat/mistral", id="shm-too-small", role="risk", severity="warning"),),
    unchanged=4,
)
GIB = 1 << 30


def amount(low: float, high: float, source: str) -> doc.Bytes:
    return doc.Bytes(low=int(low * GIB), high=int(high * GIB), source=source)


MEMORY = doc.Memory(
    container="vllm",
    gpu="H100 80GB",
    verdict="does-not-fit",
    total=amount(79.2, 79.2, "log line 118"),
    usable=amount(71.3, 71.3, "gpu_memory_utilization 0.9"),
    weights=amount(65.7, 65.7, "log line 160"),
    working=amount(3.2, 6.0, "a full batch of 8192 tokens"),
    cache=amount(0.98, 0.98, "log line 213"),
    context=131072,
    tokens=(8064, 8064),
)
#: A small cluster with one of everything.
AUDIT = report(
    replace(KV_CACHE, memory=(MEMORY,)),
    PENDING,
    OOM_KILLED,
    UNDETERMINED,
    AT_RISK,
    HEALTHY,
    replace(HEALTHY, namespace="chat", name="mistral-5c9d-abcde", workload="Deployment/mistral", findings=()),
    cluster=CLUSTER,
    comparison=COMPARISON,
    not_read=(*UNREAD, NotRead(source="logs", ref="serving/mixtral", reason=FORBIDDEN)),
    not_checked=(doc.NotChecked(id="pvc-unbound", reason="needs the cluster"),),
    unused_suppressions=(
        doc.UnusedSuppression(id="api-exposed", where=".llmdoctor.yaml:3", reason="it ended on 2026-10-01"),
    ),
)


def fleet(workloads: int, *, broken: int = 50, at_risk: int = 400, nodes: int = 200) -> Report:
    """A cluster of any size, in which the workloads differ in name and namespace only."""
    causes = (KV_CACHE, PENDING, OOM_KILLED, UNDETERMINED)

    def nth(number: int) -> Target:
        pattern = causes[number % 4] if number < broken else AT_RISK if number < broken + at_risk else HEALTHY
        name = f"{pattern.name}-{number:04}"
        return replace(pattern, namespace=f"team-{number % 20:02}", name=name, workload=f"Deployment/model-{number:04}")

    machines = tuple(replace(NODES[number % 5], name=f"gpu-{number:04}") for number in range(nodes))
    return replace(AUDIT, targets=tuple(map(nth, range(workloads))), cluster=replace(CLUSTER, nodes=machines))
