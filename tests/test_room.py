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
    guessed = {"share_unknown", "spread_why", "limit_written", "fewer_images"}
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
