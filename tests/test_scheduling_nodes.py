"""Effective requests, taints, affinity, host ports: the scheduler's rules as of 1.36."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.constraints import holds, mismatches, show_taint, tolerated
from kubectl_llmdoctor.facts.nodes import Node
from kubectl_llmdoctor.facts.usage import host_ports, requests_of, usage_of
from kubectl_llmdoctor.snapshot import ReadList, Snapshot


def _pod(spec: dict[str, Any], status: dict[str, Any] | None = None, **meta: Any) -> k8s.Pod:
    return k8s.convert({"metadata": {"name": "p"} | meta, "spec": spec, "status": status or {}}, k8s.Pod)


def _container(name: str = "c", limits: Any = None, **requests: Any) -> dict[str, Any]:
    return {"name": name, "resources": {"requests": requests, "limits": limits or {}}}


def test_containers_add_up() -> None:
    pod = _pod({"containers": [_container("a", cpu="1500m", memory="1Gi"), _container("b", cpu="0.5", memory="512Mi")]})

    assert requests_of(pod) == {"cpu": 2000, "memory": 1536 * 2**20}


def test_a_limit_stands_in_for_a_missing_request() -> None:
    pod = _pod({"containers": [_container(limits={"nvidia.com/gpu": 2, "memory": "4Gi"}, memory="1Gi")]})

    assert requests_of(pod) == {"nvidia.com/gpu": 2, "memory": 2**30}


def test_an_init_container_counts_where_it_asks_for_more() -> None:
    pod = _pod(
        {"containers": [_container(cpu=1, memory="8Gi")], "initContainers": [_container("i", cpu=4, memory="1Gi")]}
    )

    assert requests_of(pod) == {"cpu": 4000, "memory": 8 * 2**30}


def test_sidecars_run_beside_containers_and_beside_later_init_containers() -> None:
    sidecar = _container("s", cpu=1) | {"restartPolicy": "Always"}
    first, late = _container("first", cpu=5), _container("late", cpu=5)
    pod = _pod({"containers": [_container(cpu=2)], "initContainers": [first, sidecar, late]})

    assert requests_of(pod) == {"cpu": 6000}  # late 5 + sidecar 1; the first ran before the sidecar; containers need 3


def test_pod_level_requests_replace_cpu_and_memory_never_gpus() -> None:
    pod = _pod(
        {
            "containers": [_container(limits={"nvidia.com/gpu": "1"}, cpu=8, memory="64Gi")],
            "resources": {"requests": {"cpu": "2", "nvidia.com/gpu": "9"}},
        }
    )

    assert requests_of(pod) == {"nvidia.com/gpu": 1, "cpu": 2000, "memory": 64 * 2**30}


def test_overhead_comes_on_top() -> None:
    pod = _pod({"containers": [_container(cpu=1)], "overhead": {"cpu": "250m", "memory": "120Mi"}})

    assert requests_of(pod) == {"cpu": 1250, "memory": 120 * 2**20}


def test_thousandths_of_a_byte_round_up_once() -> None:
    pod = _pod({"containers": [_container("a", memory="500m"), _container("b", memory="500m")]})

    assert requests_of(pod) == {"memory": 1}


def test_a_resize_that_the_kubelet_has_not_taken_back_counts_for_placed_pods() -> None:
    status = {
        "containerStatuses": [
            {"name": "c", "allocatedResources": {"cpu": "4"}, "resources": {"requests": {"cpu": "3"}}},
        ]
    }
    pod = _pod({"containers": [_container(cpu=2)]}, status)

    assert requests_of(pod) == {"cpu": 2000}
    assert requests_of(pod, placed=True) == {"cpu": 4000}


def test_an_infeasible_resize_does_not_count() -> None:
    status = {
        "conditions": [{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}],
        "containerStatuses": [{"name": "c", "resources": {"requests": {"cpu": "3"}}}],
    }

    assert requests_of(_pod({"containers": [_container(cpu=64)]}, status), placed=True) == {"cpu": 3000}


@pytest.mark.parametrize(
    ("infeasible", "expected"), [(False, {"cpu": 6000, "memory": 4 * 2**30}), (True, {"cpu": 5000, "memory": 2**30})]
)
def test_a_resize_of_the_whole_pod(infeasible: bool, expected: dict[str, int]) -> None:
    status = {
        "conditions": [{"type": "PodResizePending", "reason": "Infeasible"}] if infeasible else [],
        "resources": {"requests": {"cpu": "3", "memory": "1Gi"}},
        "allocatedResources": {"cpu": "5"},
    }
    pod = _pod({"containers": [_container(cpu=1)], "resources": {"requests": {"cpu": 6, "memory": "4Gi"}}}, status)

    assert requests_of(pod, placed=True) == expected
    assert requests_of(pod) == {"cpu": 6000, "memory": 4 * 2**30}


@pytest.mark.parametrize(
    ("toleration", "yes"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "gpu", "operator": "Exists"}, True),
        ({"key": "gpu", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "gpu", "value": "a100", "effect": "NoSchedule"}, True),
        ({"key": "gpu", "operator": "Equal", "value": "a100"}, True),
        ({"key": "gpu", "value": "h100"}, False),
        ({"key": "gpu"}, False),
        ({"key": "other", "operator": "Exists"}, False),
        ({}, False),
    ],
)
def test_tolerations(toleration: dict[str, Any], yes: bool) -> None:
    taint = k8s.Taint(key="gpu", value="a100", effect="NoSchedule")

    assert tolerated(taint, [k8s.convert(toleration, k8s.Toleration)]) is yes


def test_a_taint_without_value_is_written_without_one() -> None:
    assert show_taint(k8s.Taint(key="gpu", effect="NoSchedule")) == "gpu:NoSchedule"
    assert show_taint(k8s.Taint(key="gpu", value="yes", effect="NoExecute")) == "gpu=yes:NoExecute"


@pytest.mark.parametrize(
    ("operator", "values", "have", "yes"),
    [
        ("In", ["a", "b"], "a", True),
        ("In", ["a"], None, False),
        ("NotIn", ["a"], None, True),
        ("NotIn", ["a"], "a", False),
        ("Exists", [], "", True),
        ("Exists", [], None, False),
        ("DoesNotExist", [], None, True),
        ("Gt", ["80000"], "81559", True),
        ("Gt", ["81559"], "81559", False),
        ("Gt", ["80000"], "80GB", False),
        ("Gt", ["80000"], None, False),
        ("Lt", ["9"], "8", True),
        ("Near", ["a"], "a", False),
    ],
)
def test_label_requirements(operator: str, values: list[str], have: str | None, yes: bool) -> None:
    labels = {} if have is None else {"k": have}

    assert holds(k8s.Requirement(key="k", operator=operator, values=tuple(values)), labels) is yes


def _affinity(*terms: dict[str, Any], **spec: Any) -> k8s.PodSpec:
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}
    return _pod({"affinity": {"nodeAffinity": required}} | spec).spec


def test_terms_are_alternatives_and_their_expressions_are_not() -> None:
    gpu = {"key": "gpu", "operator": "In", "values": ["h100"]}
    zone = {"key": "zone", "operator": "In", "values": ["a"]}

    assert not mismatches(_affinity({"matchExpressions": [gpu]}, {"matchExpressions": [zone]}), "n", {"zone": "a"})
    unmet = mismatches(_affinity({"matchExpressions": [gpu, zone]}), "n", {"zone": "a"})
    assert [(m.key, m.have, m.wanted) for m in unmet] == [("gpu", None, ("h100",))]


def test_node_selector_holds_beside_affinity() -> None:
    spec = _affinity({"matchExpressions": [{"key": "zone", "operator": "Exists"}]}, nodeSelector={"gpu": "h100"})

    assert [m.demand for m in mismatches(spec, "n", {"zone": "a", "gpu": "l4"})] == ["gpu=h100"]


def test_an_empty_term_and_an_empty_list_match_nothing() -> None:
    assert mismatches(_affinity({}), "n", {})
    assert mismatches(_affinity(), "n", {})


def test_match_fields_name_the_node() -> None:
    spec = _affinity({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["gpu-1"]}]})

    assert not mismatches(spec, "gpu-1", {})
    assert mismatches(spec, "gpu-2", {})


@pytest.mark.parametrize("operator", ["In", "NotIn", "Gt", "Lt"])
def test_a_value_that_can_be_no_label_s_makes_its_term_match_nothing(operator: str) -> None:
    affinity = {"matchExpressions": [{"key": "x", "operator": operator, "values": ["-1"]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [affinity]}}
    pod = _pod({"affinity": {"nodeAffinity": required}})

    assert mismatches(pod.spec, "n", {"x": "5"})


def test_host_ports() -> None:
    ports = [{"containerPort": 8000, "hostPort": 80}, {"containerPort": 9000}]

    assert host_ports(_pod({"containers": [{"name": "c", "ports": ports}]}).spec) == {("", "TCP", 80)}
    on_host = _pod({"hostNetwork": True, "containers": [{"name": "c", "ports": ports}]}).spec
    assert host_ports(on_host) == {("", "TCP", 80), ("", "TCP", 9000)}


def _raw(name: str, phase: str, **meta: Any) -> dict[str, Any]:
    spec = {"nodeName": "gpu-1", "containers": [_container(limits={"nvidia.com/gpu": 1})]}
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"name": name} | meta,
        "spec": spec,
        "status": {"phase": phase},
    }


def test_a_pod_counts_until_it_has_ended() -> None:
    pods = (
        _raw("runs", "Running"),
        _raw("starts", "Pending", namespace="other"),
        _raw("goes", "Running", namespace="third", deletionTimestamp="2026-11-20T09:00:00Z"),
        _raw("done", "Succeeded", namespace="fourth"),
        _raw("failed", "Failed", namespace="fifth"),
    )
    usage = usage_of(Cluster(Snapshot(objects=pods, read=(ReadList(kind="Pod"),))))

    assert usage.used("gpu-1") == {"pods": 3, "nvidia.com/gpu": 3}
    assert usage.complete
    assert [h.ref for h in usage.holders("gpu-1") if h.terminating] == ["third/goes"]


def _node(labels: dict[str, str], **amounts: str) -> Node:
    status = {"capacity": amounts, "allocatable": amounts}
    return Node(
        k8s.convert({"metadata": {"name": "n", "labels": labels}, "status": status}, k8s.Node), Cluster(Snapshot())
    )


@pytest.mark.parametrize(
    ("labels", "amounts", "number"),
    [
        ({"nvidia.com/gpu.count": "8"}, {"cpu": "8"}, 8),
        ({"nvidia.com/gpu.count": "2", "nvidia.com/gpu.replicas": "4"}, {"cpu": "8"}, 8),
        (
            {"cloud.google.com/gke-accelerator": "nvidia-l4", "cloud.google.com/gke-accelerator-count": "1"},
            {"cpu": "8"},
            1,
        ),
        ({"nvidia.com/gpu.count": "8", "nvidia.com/gpu.deploy.device-plugin": "false"}, {"cpu": "8"}, None),
        ({"nvidia.com/gpu.count": "8"}, {"nvidia.com/mig-1g.10gb": "56"}, None),
        ({"nvidia.com/gpu.count": "2", "nvidia.com/gpu.replicas": "4"}, {"nvidia.com/gpu.shared": "8"}, None),
        ({"nvidia.com/gpu.count": "many"}, {"cpu": "8"}, None),
        ({}, {"cpu": "8"}, None),
    ],
)
def test_how_many_gpus_a_node_should_offer(labels: dict[str, str], amounts: dict[str, str], number: int | None) -> None:
    should = _node(labels, **amounts).should_offer("nvidia.com/gpu")

    assert (should[0] if should else None) == number


def test_a_label_that_says_only_that_there_is_a_gpu() -> None:
    should = _node({"feature.node.kubernetes.io/pci-10de.present": "true"}, cpu="8").should_offer("nvidia.com/gpu")

    assert should == (None, "label feature.node.kubernetes.io/pci-10de.present=true")


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("cloud.google.com/gke-accelerator", "nvidia-l4", True),
        ("karpenter.azure.com/sku-gpu-manufacturer", "nvidia", True),
        ("node.kubernetes.io/instance-type", "g6e.xlarge", True),
        ("node.kubernetes.io/instance-type", "p6-b200.48xlarge", True),
        ("node.kubernetes.io/instance-type", "Standard_NC24ads_A100_v4", True),
        ("node.kubernetes.io/instance-type", "a3-highgpu-8g", True),
        ("node.kubernetes.io/instance-type", "g4ad.xlarge", False),
        ("node.kubernetes.io/instance-type", "Standard_ND96isr_MI300X_v5", False),
        ("node.kubernetes.io/instance-type", "m5.xlarge", False),
        ("cloud.google.com/gke-tpu-accelerator", "tpu-v5-lite-podslice", False),
    ],
)
def test_a_label_whose_value_names_the_gpu_or_the_machine(key: str, value: str, told: bool) -> None:
    should = _node({key: value}, cpu="8").should_offer("nvidia.com/gpu")

    assert should == ((None, f"label {key}={value}") if told else None)


def test_what_an_object_that_was_shortened_offers_is_unknown() -> None:
    node = _node({}, cpu="8")

    assert node.offers("cpu") == 8000
    assert node.offers("memory") is None
    assert node.offers("nvidia.com/gpu") == 0
