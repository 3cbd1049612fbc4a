"""Nodes judged as the scheduler does, the table of the report, and which separation is taken for the cause."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from llmdoctor_checks.scheduling._separation import cause, causes

from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.scheduling.pending import Pending
from kubectl_llmdoctor.facts.scheduling.placement import placement
from kubectl_llmdoctor.facts.usage import usage_of
from kubectl_llmdoctor.packs import installed
from kubectl_llmdoctor.snapshot import ReadList, Snapshot
from kubectl_llmdoctor.target import subjects

NOW = "2026-11-20T10:00:00Z"
BOTH = (ReadList(kind="Node"), ReadList(kind="Pod"))


def _node(
    name: str, gpus: int = 8, *, labels: Any = None, taints: Any = (), cordoned: bool = False, **amounts: str
) -> Any:
    listed = {"cpu": "64", "memory": "512Gi", "pods": "110", "ephemeral-storage": "1Ti"} | amounts
    if gpus:
        listed["nvidia.com/gpu"] = str(gpus)
    return {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {
            "taints": [{"key": k, "value": v, "effect": "NoSchedule"} for k, v in taints],
            "unschedulable": cordoned,
        },
        "status": {"capacity": listed, "allocatable": listed, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def _pod(name: str, gpus: int, *, node: str = "", message: str = "", **spec: Any) -> Any:
    container = {"name": "c", "image": "vllm/vllm-openai:v0.11.0", "resources": {"limits": {"nvidia.com/gpu": gpus}}}
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "serving", "creationTimestamp": NOW},
        "spec": {"containers": [container if gpus else {"name": "c", "image": "x"}], "nodeName": node} | spec,
        "status": {"phase": "Running" if node else "Pending", "conditions": [] if node or not message else [condition]},
    }


def _pending(*objects: Any, read: Any = BOTH) -> Pending:
    subject = next(
        s for s in subjects(Cluster(Snapshot(taken_at=NOW, objects=objects, read=read))) if s.pods[0].unscheduled
    )
    return Pending(subject.pods[0], subject)


def test_all_reasons_of_a_node_in_the_scheduler_s_order() -> None:
    node = _node("gpu-1", 2, labels={"gpu": "l4"}, taints=[("dedicated", "a"), ("team", "b")], cordoned=True)
    pending = _pending(_pod("p", 4, nodeSelector={"gpu": "h100"}), node)

    (verdict,) = pending.verdicts

    assert [(r.plugin, r.detail) for r in verdict.reasons] == [
        ("NodeUnschedulable", "cordoned (spec.unschedulable: true)"),
        ("TaintToleration", "taint dedicated=a:NoSchedule"),
        ("TaintToleration", "taint team=b:NoSchedule"),
        ("NodeAffinity", "wanted gpu=h100 (is l4)"),
        ("NodeResourcesFit", "nvidia.com/gpu: 4 asked, 2 of 2 free"),
    ]
    assert [r.plugin for r in verdict.first] == ["NodeUnschedulable"]
    assert verdict.fits is False


def test_a_node_fits_for_certain_only_when_all_pods_are_known() -> None:
    objects = _pod("p", 4), _node("gpu-1")

    assert [v.fits for v in _pending(*objects).verdicts] == [True]
    assert [v.fits for v in _pending(*objects, read=BOTH[:1]).verdicts] == [None]


def test_what_is_not_judged_makes_no_node_fit() -> None:
    spread = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    pod, nodes = _pod("p", 1, topologySpreadConstraints=[spread]), [_node(f"gpu-{z}", labels={"zone": z}) for z in "ab"]
    pending = _pending(pod, *nodes, read=BOTH[1:])

    assert pending.unjudged == ("PodTopologySpread",)
    assert [v.fits for v in pending.verdicts] == [None, None]
    assert [p.reasons for p in placement(pending)] == [
        ("nothing known stops it; PodTopologySpread not judged (not all nodes and pods were read)",)
    ]
    assert [v.fits for v in _pending(pod, *nodes).verdicts] == [True, True]


def test_agreement_with_the_scheduler_s_own_histogram() -> None:
    nodes = _node("gpu-1", taints=[("a", "b")]), _node("gpu-2", 2), _node("gpu-3", cordoned=True)
    said = "0/3 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable."

    assert _pending(_pod("p", 4, message=said), *nodes).agrees is True
    assert _pending(_pod("p", 4, message=said.replace("taint(s), 1", "taint(s), 2")), *nodes).agrees is False
    assert _pending(_pod("p", 4, message=said), *nodes[:2]).agrees is None


def test_nodes_that_affinity_does_not_name_are_out_before_their_taints() -> None:
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["gpu-9"]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}
    pending = _pending(_pod("p", 1, affinity=affinity), _node("gpu-1", taints=[("a", "b")]))

    assert [r.plugin for r in pending.verdicts[0].first] == ["NodeAffinity"]
    assert len(pending.verdicts[0].reasons) == 2


def test_the_table_groups_nodes_and_puts_the_most_promising_first() -> None:
    pods = [_pod(f"a{i}", i, node=f"gpu-{i}") for i in (1, 2, 3)]
    nodes = (
        [_node(f"gpu-{i}", 4) for i in (1, 2, 3)],
        [_node(f"cpu-{i}", 0) for i in (1, 2)],
        [_node("far", 8, taints=[("t", "")])],
    )
    table = placement(_pending(_pod("p", 4), *pods, *(n for group in nodes for n in group)))

    assert [(p.nodes, p.fits, p.devices, p.reasons) for p in table] == [
        (("far",), False, "8 of 8 nvidia.com/gpu free", ("taint t:NoSchedule",)),
        (("gpu-1", "gpu-2", "gpu-3"), False, "1 to 3 of 4 nvidia.com/gpu free", ("4 asked",)),
        (("cpu-1", "cpu-2"), False, "", ("no nvidia.com/gpu here",)),
    ]


def test_a_thousand_kinds_of_verdict_stay_one_screen() -> None:
    nodes = [_node(f"gpu-{i}", taints=[(f"team-{i}", "")]) for i in range(1000)]
    table = placement(_pending(_pod("p", 4), *nodes))

    assert len(table) <= 9
    assert sum(len(p.nodes) for p in table) == 1000


def _ids(*objects: Any, read: Any = BOTH) -> list[tuple[str, str]]:
    return [(c.id, c.confidence) for c in causes(_pending(*objects, read=read))]


def test_likely_with_complete_lists_and_one_way_out() -> None:
    node, other = _node("gpu-1", taints=[("nvidia.com/gpu", "present")]), _node("gpu-2", cordoned=True)

    assert _ids(_pod("p", 4), node) == [("taint-untolerated", "likely")]
    assert _ids(_pod("p", 4), node, read=()) == [("taint-untolerated", "possible")]
    assert _ids(_pod("p", 4), node, other) == [("node-not-ready", "likely"), ("taint-untolerated", "possible")]
    assert _ids(_pod("p", 4, schedulerName="volcano"), node) == [("taint-untolerated", "likely")]


def test_both_are_said_where_both_must_be_mended() -> None:
    node = _node("gpu-1", 4, taints=[("nvidia.com/gpu", "present")])

    assert [i for i, _ in _ids(_pod("p", 4), node, _pod("a", 4, node="gpu-1"))] == [
        "taint-untolerated",
        "gpu-insufficient",
    ]


def test_a_pod_that_fits_has_no_cause() -> None:
    assert _ids(_pod("p", 4), _node("gpu-1")) == []
    assert _ids(_pod("p", 4), _node("gpu-1"), _node("gpu-2", cordoned=True)) == []


def test_a_gated_pod_is_not_the_scheduler_s_business() -> None:
    assert _ids(_pod("p", 4, schedulingGates=[{"name": "x/y"}]), _node("gpu-1", cordoned=True)) == []


@pytest.mark.parametrize(
    ("message", "gpus", "expected"),
    [
        # nodes that reach the last filter have passed all others
        ("0/9 nodes are available: 1 node(s) didn't match pod anti-affinity rules, 8 Insufficient nvidia.com/gpu.", 1,
         "pod-spread-unsatisfied"),
        # fewer nodes lack GPUs than got as far: the rest lacks memory only
        ("0/9 nodes are available: 3 Insufficient nvidia.com/gpu, 9 Insufficient memory.", 1, "cpu-memory-insufficient"),
        ("0/9 nodes are available: 9 Insufficient memory, 9 Insufficient nvidia.com/gpu.", 1, "gpu-insufficient"),
        # evicting would help nowhere: no node has the device
        ("0/2 nodes are available: 2 Insufficient nvidia.com/gpu. preemption: 0/2 nodes are available: 2 Preemption is not "
         "helpful for scheduling.", 1, "gpu-resource-absent"),
        ("0/2 nodes are available: 2 Insufficient nvidia.com/gpu. preemption: 0/2 nodes are available: 2 Preemption is not "
         "helpful for scheduling.", 8, "gpu-request-exceeds-node"),
        ("0/4 nodes are available: 1 node(s) had untolerated taint {dedicated: llm}, 3 Insufficient nvidia.com/gpu. preemption: "
         "0/4 nodes are available: 4 Preemption is not helpful for scheduling.", 1, "taint-untolerated"),
        ("0/3 nodes are available: 1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }, 2 Insufficient "
         "cpu.", 0, "cpu-memory-insufficient"),
        ("0/2 nodes are available: 2 node(s) had untolerated taint {node.kubernetes.io/disk-pressure: }.", 0, "node-not-ready"),
        ("0/1 nodes are available: 1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }.", 0, "taint-untolerated"),
        ("0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims.", 1, "pvc-unbound"),
        ("0/3 nodes are available: 3 node(s) exceed max volume count.", 1, "pvc-unbound"),
    ],
)  # fmt: skip
def test_by_the_message_alone(message: str, gpus: int, expected: str) -> None:
    assert [i for i, _ in _ids(_pod("p", gpus, message=message), read=())][:1] == [expected]
    assert all(confidence != "certain" for _, confidence in _ids(_pod("p", gpus, message=message), read=()))


def test_devices_that_dra_serves_and_that_are_taken_are_a_shortage() -> None:
    claim = {"devices": {"results": [{"driver": "gpu.nvidia.com", "pool": "gpu-1", "device": "gpu-0"}]}}
    pending = _pending(
        _pod("p", 1, message="0/1 nodes are available: 1 cannot allocate all claims. still not schedulable, preemption: 0/1 x"),
        _node("gpu-1", 0),
        {"kind": "DeviceClass", "metadata": {"name": "gpu.nvidia.com"}, "spec": {"extendedResourceName": "nvidia.com/gpu"}},
        {"kind": "ResourceSlice", "metadata": {"name": "s"}, "spec": {"driver": "gpu.nvidia.com", "nodeName": "gpu-1",
         "pool": {"name": "gpu-1"}, "devices": [{"name": "gpu-0"}]}},
        {"kind": "ResourceClaim", "metadata": {"name": "c", "namespace": "x"}, "status": {"allocation": claim}},
    )  # fmt: skip

    found = cause(pending, "gpu-insufficient")

    assert found is not None
    assert found.resource == "nvidia.com/gpu"


def test_the_fix_for_a_taint_is_a_toleration_that_fits() -> None:
    workload = {
        "kind": "StatefulSet",
        "apiVersion": "apps/v1",
        "metadata": {"name": "p", "namespace": "serving", "uid": "u"},
        "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "c"}]}}},
    }
    pod = _pod("p-0", 4)
    pod["metadata"]["ownerReferences"] = [{"kind": "StatefulSet", "name": "p", "uid": "u", "controller": True}]
    objects = (workload, pod, _node("gpu-1", taints=[("dedicated", "llm")]))
    report = diagnose(Snapshot(taken_at=NOW, objects=objects, read=BOTH), installed())

    (finding,) = [f for f in report.targets[0].findings if f.role == "cause"]

    assert (finding.id, finding.confidence) == ("taint-untolerated", "likely")
    patch = finding.fixes[0].patch
    assert patch is not None
    assert patch.body == [
        {
            "op": "add",
            "path": "/spec/template/spec/tolerations",
            "value": [{"key": "dedicated", "operator": "Equal", "value": "llm", "effect": "NoSchedule"}],
        }
    ]


def test_nothing_of_a_snapshot_is_kept_after_it() -> None:
    pending = _pending(_pod("p", 4), _node("gpu-1"))
    assert pending.verdicts
    usage = weakref.ref(usage_of(pending.pod.cluster))
    del pending
    gc.collect()

    assert usage() is None
