"""A whole cluster in one report: one target for a workload, its causes once, capacity by product, what is wrong with nodes."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kubectl_llmdoctor.audit import audit, join
from kubectl_llmdoctor.check import Finding
from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.facts.capacity import inventory
from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.nodes import Node
from kubectl_llmdoctor.facts.subject import Subject
from kubectl_llmdoctor.packs import installed
from kubectl_llmdoctor.report import document as doc
from kubectl_llmdoctor.report import markdown
from kubectl_llmdoctor.report.fleet import render as page
from kubectl_llmdoctor.snapshot import LogText, Missing, NodeData, ReadList, Snapshot, TargetRef
from kubectl_llmdoctor.testing import find_cases, load_case
from tests import fleet
from tests.program import run
from tests.sampling import some

Json = dict[str, Any]
NOW = "2026-11-20T10:00:00Z"
CASES = Path(__file__).parent.parent / "checks" / "cases"
READ = (ReadList(kind="Pod"), ReadList(kind="Node"), ReadList(kind="Service"), ReadList(kind="EndpointSlice"))


def node(name: str, gpus: int = 8, *, labels: Json | None = None, spec: Json | None = None, **status: Any) -> Json:
    amounts: Json = {"cpu": "64", "memory": "512Gi", "pods": "110", "nvidia.com/gpu": str(gpus)}
    product = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"} if labels is None else labels
    ready = [{"type": "Ready", "status": "True"}]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": product},
        "spec": spec or {},
        "status": {"capacity": amounts, "allocatable": amounts, "conditions": ready} | status,
    }


def workload(
    name: str, pods: int, *, on: str = "gpu-1", gpus: int = 1, ns: str = "serving", **status: Any
) -> list[Json]:
    """A Deployment, its ReplicaSet and its pods, which are well unless `status` says otherwise."""
    spec = {
        "containers": [
            {
                "name": "vllm",
                "image": "vllm/vllm-openai:v0.11.0",
                "args": ["--model", "Qwen/Qwen3-8B", "--max-model-len", "8192"],
                "resources": {"limits": {"nvidia.com/gpu": str(gpus)}, "requests": {"cpu": "4", "memory": "16Gi"}},
            }
        ]
    }
    template = {"metadata": {"labels": {"app": name}}, "spec": spec}
    desired = {"replicas": pods, "selector": {"matchLabels": {"app": name}}, "template": template}
    well = {
        "phase": "Running",
        "startTime": "2026-11-19T10:00:00Z",
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [
            {"name": "vllm", "ready": True, "state": {"running": {"startedAt": "2026-11-19T10:00:00Z"}}}
        ],
    }

    def owner(kind: str, name: str) -> Json:
        reference = {"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": f"{kind}/{ns}/{name}"}
        return {"ownerReferences": [reference | {"controller": True}]}

    def meta(kind: str, name: str, more: Json | None = None) -> Json:
        return {"name": name, "namespace": ns, "uid": f"{kind}/{ns}/{name}", "labels": {"app": name}} | (more or {})

    made = [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta("Deployment", name), "spec": desired},
        {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": meta("ReplicaSet", f"{name}-1", owner("Deployment", name)),
            "spec": desired,
        },
    ]
    for number in range(pods):
        head = meta("Pod", f"{name}-1-{number}", owner("ReplicaSet", f"{name}-1")) | {"labels": {"app": name}}
        placed = spec | {"nodeName": on}
        made.append({"apiVersion": "v1", "kind": "Pod", "metadata": head, "spec": placed, "status": well | status})
    return made


CRASHED: Json = {
    "containerStatuses": [
        {
            "name": "vllm",
            "ready": False,
            "restartCount": 4,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": "2026-11-20T09:58:00Z"}},
        }
    ],
    "conditions": [{"type": "Ready", "status": "False"}],
}


def snapshot(*objects: Json, **more: Any) -> Snapshot:
    return Snapshot(taken_at=NOW, objects=objects, **({"read": READ} | more))


def judged(*objects: Json, **more: Any) -> doc.Report:
    return audit(snapshot(*objects, **more), installed())


# -- workloads --------------------------------------------------------------------------------------------------------


def _log_of(case: str) -> str:
    return load_case(CASES / case).snapshot.logs[0].text


def test_a_cause_stands_once_for_all_replicas_that_show_it() -> None:
    broken = workload("llama", 6, **CRASHED)
    text = _log_of("weights-corrupt/fires_git_lfs_pointer.yaml")
    log = LogText(namespace="serving", pod="llama-1-3", container="vllm", previous=True, text=text)

    (target,) = judged(node("gpu-1"), *broken, logs=(log,)).targets

    assert target.verdict == "cause-found"
    assert [f.id for f in target.findings if f.role == "cause"] == ["weights-corrupt"]
    assert target.workload == "Deployment/llama"
    assert sorted(target.pods) == [f"llama-1-{number}" for number in range(6)]
    assert len({f.id for f in target.findings}) == len(target.findings)


def test_replicas_in_two_states_are_one_target_that_says_which_pods_are_broken() -> None:
    objects = workload("llama", 3)
    objects[-1]["status"] |= CRASHED

    (target,) = judged(node("gpu-1"), *objects).targets

    assert target.verdict == "undetermined"
    assert target.name == "llama-1-2"
    assert len(target.pods) == 3
    assert next(f for f in target.findings if f.id == "crash-loop").pods == ("llama-1-2",)


def test_what_is_down_stands_before_what_may_break_and_more_replicas_before_fewer() -> None:
    capped = workload("fine", 2)
    uncapped = workload("risky", 2)
    for item in uncapped:
        spec = item["spec"].get("template", item)["spec"]
        spec["containers"][0] = spec["containers"][0] | {"args": ["--model", "meta-llama/Llama-3.1-70B-Instruct"]}
    down, lonely = workload("down", 4, **CRASHED), workload("a-lonely", 1, **CRASHED)

    report = judged(node("gpu-1", 32), *capped, *uncapped, *down, *lonely)

    assert [t.workload.partition("/")[2] for t in report.targets][:2] == ["down", "a-lonely"]
    assert [t.verdict for t in report.targets] == sorted(
        (t.verdict for t in report.targets), key=["undetermined", "at-risk", "healthy"].index
    )


def test_workloads_of_which_the_same_is_said_stand_together_and_count_together() -> None:
    waits = {"waiting": {"reason": "CreateContainerConfigError", "message": 'configmap "defaults" not found'}}
    without: Json = {"phase": "Pending", "containerStatuses": [{"name": "vllm", "ready": False, "state": waits}]}
    shared = [obj for number in range(3) for obj in workload(f"shared-{number}", 2, **without)]

    report = judged(node("gpu-1", 32), *workload("alone", 4, **CRASHED), *shared)
    text = page(report)

    names = [target.workload.partition("/")[2] for target in report.targets]
    assert names == ["shared-0", "shared-1", "shared-2", "alone"]
    assert "and 2 others alike (4 pods): serving/shared-1, serving/shared-2\n" in text
    assert text.count("secret-missing") == 1
    assert "4 down" in text


def test_a_fix_that_differs_between_workloads_is_said_to_be_one_of_each() -> None:
    ended = {"terminated": {"exitCode": 2, "reason": "Error", "finishedAt": "2026-11-20T09:58:00Z"}}
    state = {"waiting": {"reason": "CrashLoopBackOff"}}
    status = {"name": "vllm", "ready": False, "restartCount": 4, "state": state, "lastState": ended}
    crashed: Json = {"containerStatuses": [status], "conditions": [{"type": "Ready", "status": "False"}]}
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "defaults", "namespace": "serving"},
        "data": {"DTYPE": "bf16"},
    }

    def said(dtype: str) -> str:
        objects = [obj for number in range(2) for obj in workload(f"llama-{number}", 1, **crashed)]
        for obj in objects:
            pod = obj["spec"].get("template", obj)["spec"]
            more = {"args": ["--model", "Qwen/Qwen3-8B", "--dtype", dtype]}
            pod["containers"] = [pod["containers"][0] | more | {"envFrom": [{"configMapRef": {"name": "defaults"}}]}]
        return " ".join(page(judged(node("gpu-1"), config, *objects)).split())

    assert "fix, of each alike: Set --dtype in Deployment/llama-0 to one of" in said("int3")
    assert "fix: Set --dtype to bfloat16 in ConfigMap defaults/DTYPE" in said("$(DTYPE)")


def test_what_has_the_same_name_in_another_namespace_is_mended_there_as_well() -> None:
    ended = {"terminated": {"exitCode": 2, "reason": "Error", "finishedAt": "2026-11-20T09:58:00Z"}}
    state = {"waiting": {"reason": "CrashLoopBackOff"}}
    status = {"name": "vllm", "ready": False, "restartCount": 4, "state": state, "lastState": ended}
    objects: list[Json] = []
    for namespace in ("first", "second"):
        head = {"name": "defaults", "namespace": namespace}
        objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": head, "data": {"DTYPE": "bf16"}})
        for obj in copy.deepcopy(workload(f"llama-{namespace}", 1, containerStatuses=[status])):
            obj["metadata"]["namespace"] = namespace
            pod = obj["spec"].get("template", obj)["spec"]
            more = {"args": ["--model", "Qwen/Qwen3-8B", "--dtype", "$(DTYPE)"]}
            pod["containers"] = [pod["containers"][0] | more | {"envFrom": [{"configMapRef": {"name": "defaults"}}]}]
            objects.append(obj)

    report = judged(node("gpu-1"), *objects)

    said = "fix, of each alike: Set --dtype to bfloat16 in ConfigMap defaults/DTYPE"
    assert said in " ".join(page(report).split())
    assert "**The same holds for 1 other, each with a fix of its own:**" in markdown.render(report).decode()


def test_a_long_status_leaves_room_for_what_depends_on_the_workload() -> None:
    refused: Json = {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "Allocate failed " * 20}

    text = page(judged(node("gpu-1"), *workload("llama", 1, **refused)), width=120)

    assert "UnexpectedAdmissionError: Allocate failed" in text
    assert "Service" in page(
        judged(
            node("gpu-1"),
            *workload("llama", 1, **refused),
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "llama", "namespace": "serving"},
                "spec": {"selector": {"app": "llama"}},
            },
        ),
        width=120,
    )


def test_pods_that_serve_no_models_are_none_of_its_targets() -> None:
    web = copy.deepcopy(workload("web", 1))
    for item in web:
        spec = item["spec"].get("template", item)["spec"]
        spec["containers"] = [{"name": "web", "image": "nginx"}]

    assert judged(node("gpu-1"), *web).targets == ()


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        ("ghcr.io/berriai/litellm:main-v1.75.5-stable", {}),
        ("registry.k8s.io/gateway-api-inference-extension/epp:v1.0.0", {}),
        ("lmcache/lmstack-router:v0.1.7", {}),
        ("kserve/sklearnserver:v0.15.2", {"serving.kserve.io/inferenceservice": "iris"}),
    ],
)
def test_what_stands_before_or_beside_a_server_is_judged_too(image: str, labels: Json) -> None:
    objects = workload("front", 1, gpus=0)
    pod = objects[-1]
    pod["metadata"]["labels"] |= labels
    pod["spec"]["containers"][0] |= {"image": image, "args": []}

    report = audit(snapshot(pod), installed())

    assert [target.name for target in report.targets] == [pod["metadata"]["name"]]


def test_a_pod_that_finished_well_and_leftovers_of_a_whole_workload_are_no_targets() -> None:
    objects = workload("llama", 3)
    objects[0]["status"] = objects[1]["status"] = {"replicas": 1, "readyReplicas": 3}
    objects[-1]["status"] = {"phase": "Failed", "reason": "Evicted"}
    objects[-2]["status"] = {"phase": "Succeeded"}

    (target,) = judged(node("gpu-1"), *objects).targets

    assert target.pods == ("llama-1-0",)


def test_a_workload_without_pods_is_seen() -> None:
    (target,) = judged(*workload("llama", 0)).targets

    assert (target.kind, target.name) == ("Deployment", "llama")


def test_the_pods_that_were_asked_about_are_the_only_ones() -> None:
    objects = [*workload("llama", 2), *workload("other", 1)]
    asked = TargetRef(kind="Pod", namespace="serving", name="llama-1-0")

    report = judged(node("gpu-1"), *objects, target=asked)

    assert [t.pods for t in report.targets] == [("llama-1-0",)]


def test_logs_that_were_not_read_of_healthy_pods_are_no_gap() -> None:
    (target,) = judged(node("gpu-1"), *workload("llama", 1)).targets

    # only what nothing but a log or metrics can tell
    assert {row.id for row in target.not_checked if "no log" in row.reason} == {"kv-cache-saturated", "queue-growing"}


def test_processes_do_not_change_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = [item for number in range(12) for item in workload(f"m-{number}", 2, ns=f"team-{number % 3}")]
    alone = judged(node("gpu-1", 64), *objects)
    monkeypatch.setattr("kubectl_llmdoctor.audit._LEAST", 3)

    assert doc.to_tree(judged(node("gpu-1", 64), *objects)) == doc.to_tree(alone)


def test_signatures_that_are_passed_over_would_have_said_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every recorded case, broken or not, the report is the same when each signature is asked."""
    cases = [load_case(path).snapshot for path in some(find_cases(CASES), 250)]
    checks = installed()
    short = [doc.to_tree(audit(case, checks)) for case in cases]
    monkeypatch.setattr(Subject, "quiet", False)

    assert [doc.to_tree(audit(case, checks)) for case in cases] == short


def test_of_what_was_asked_about_an_audit_finds_what_a_diagnosis_finds() -> None:
    """Also of groups, of which one member was named; pods that ended, and are missed by nobody, are left out.

    A workload without pods that stands beside them was not asked about.
    """
    for path in some(find_cases(CASES), 300):
        case = load_case(path).snapshot
        if not case.target or case.target.kind != "Pod" or case.taken_at is None:
            continue
        said, found = (
            [[(f.id, f.role) for f in target.findings] for target in report.targets if target.pods]
            for report in (diagnose(case, installed()), audit(case, installed()))
        )
        assert found in (said, []), path


# -- nodes and capacity -----------------------------------------------------------------------------------------------


def stock(*objects: Json, **more: Any) -> doc.Capacity:
    (row,) = inventory(Cluster(snapshot(*objects, **more))).capacity
    return row


def test_capacity_adds_up_by_product() -> None:
    row = stock(
        node("gpu-1"), node("gpu-2"), *workload("a", 3), *workload("b", 2, gpus=2), *workload("c", 1, on="gpu-2")
    )

    assert (row.product, row.resource) == ("NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu")
    assert (row.nodes, row.total, row.allocatable, row.allocated, row.free) == (2, 16, 16, 8, 8)
    assert row.chunks == {"1": 1, "7": 1}
    assert [(h.workload, h.devices) for h in row.holders] == [
        ("Deployment/b", 4),
        ("Deployment/a", 3),
        ("Deployment/c", 1),
    ]
    assert row.idle is None


def test_pods_that_have_ended_hold_nothing() -> None:
    assert stock(node("gpu-1"), *workload("a", 3, phase="Failed")).free == 8


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"spec": {"unschedulable": True}}, "cordoned"),
        ({"conditions": [{"type": "Ready", "status": "Unknown"}]}, "not ready"),
        (
            {"spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]}},
            "tainted or under pressure",
        ),
    ],
)
def test_free_devices_of_a_node_out_of_service_are_stranded(changed: Json, why: str) -> None:
    assert stock(node("gpu-1", **changed), *workload("a", 3)).stranded == {why: 5}


def test_devices_without_cpu_or_memory_beside_them_are_stranded() -> None:
    other = workload("batch", 1, gpus=1)[2]
    other["spec"]["containers"][0]["resources"]["requests"] = {"cpu": "54", "memory": "16Gi"}
    found = inventory(Cluster(snapshot(node("gpu-1"), other, *workload("a", 1))))

    # 64 - 54 - 4 = 6 CPU are left, and no pod asks for fewer than 4 beside a GPU
    assert found.capacity[0].stranded == {"CPU": 5}
    assert found.nodes[0].stranded == "6 of 64 CPU free"


def test_a_taint_that_keeps_a_node_for_somebody_strands_nothing() -> None:
    taints: Json = {"taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]}

    assert stock(node("gpu-1", spec=taints), *workload("a", 1)).stranded == {}


def test_without_all_pods_nothing_is_said_to_be_free() -> None:
    found = inventory(Cluster(snapshot(node("gpu-1"), read=(ReadList(kind="Node"),))))

    assert (found.capacity, found.nodes) == ((), ())


@pytest.mark.parametrize(
    "resource", ["amd.com/gpu", "habana.ai/gaudi", "aws.amazon.com/neuron", "google.com/tpu", "nvidia.com/mig-1g.10gb"]
)
def test_other_accelerators_are_counted(resource: str) -> None:
    amounts: Json = {"cpu": "64", "memory": "512Gi", "pods": "110", resource: "4"}

    row = stock(node("n", labels={}, capacity=amounts, allocatable=amounts))

    assert (row.product, row.total, row.free) == (resource, 4, 4)


def test_what_is_held_and_idle_the_agent_says() -> None:
    used: Json = {
        "memoryUsedBytes": 70 * 2**30,
        "utilizationPercent": 0,
        "pods": [{"namespace": "serving", "name": "a-1-0"}],
    }
    bare: Json = {
        "memoryUsedBytes": 4 * 2**20,
        "utilizationPercent": 0,
        "pods": [{"namespace": "serving", "name": "a-1-1"}],
    }
    agent = NodeData(agent={"gpus": [used, bare]})

    row = stock(node("gpu-1"), *workload("a", 2), nodes={"gpu-1": agent})

    assert (row.allocated, row.idle) == (2, 1)
    assert row.holders[0].idle == 1


def test_what_is_wrong_with_nodes_is_said_once_for_each_cause() -> None:
    short: Json = {"nvidia.com/gpu.product": "NVIDIA-L4", "nvidia.com/gpu.count": "8"}
    gone: Json = {"conditions": [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]}

    report = judged(
        *(node(f"lost-{number}", **gone) for number in range(3)),
        node("short", 6, labels=short),
        node("drained", spec={"unschedulable": True}),
        node(
            "upgraded", spec={"unschedulable": True}, labels={"nvidia.com/gpu-driver-upgrade-state": "upgrade-failed"}
        ),
        node("fine"),
    )

    found = {(f.id, f.role): f for f in report.cluster.findings}
    assert set(found) == {
        ("node-not-ready", "cause"),
        ("node-not-ready", "note"),
        ("device-plugin-down", "cause"),
        ("driver-upgrade-blocked", "cause"),
    }
    assert "The same holds for lost-1, lost-2." in found["node-not-ready", "cause"].summary
    assert "drained" in found["node-not-ready", "note"].summary
    assert "offers 6 of 8" in found["device-plugin-down", "cause"].summary
    assert all(f.evidence and f.title and f.docs for f in found.values())


def test_a_node_with_a_broken_gpu_is_not_told_to_restart_its_device_plugin_first() -> None:
    short: Json = {"nvidia.com/gpu.product": "NVIDIA-L4", "nvidia.com/gpu.count": "8"}
    gpus = [{"index": 0, "xids": [{"number": 79, "time": "2026-11-20T09:25:00Z"}]}]

    def first(agent: Json) -> tuple[str, str]:
        found = judged(node("gpu-1", 7, labels=short), nodes={"gpu-1": NodeData(agent=agent)}).cluster.findings[0]
        return found.summary, found.fixes[0].summary

    assert "GPU 0 had Xid 79" in first({"gpus": gpus})[0]
    assert first({"gpus": gpus})[1].startswith("Look at the GPU")
    assert "Xid" not in first({"gpus": [{"index": 0, "xids": [{"number": 31}]}]})[0]


@pytest.mark.parametrize(
    "quiet",
    [
        node("on-its-way", 0, labels={"nvidia.com/gpu.count": "8"}, conditions=[{"type": "Ready", "status": "False"}]),
        node("young", 0, labels={"nvidia.com/gpu.count": "8"}),
        node("in-part", labels={"nvidia.com/gpu.count": "8"}, capacity={}, allocatable={}),
        node("no-gpu", capacity={"cpu": "8"}, allocatable={"cpu": "8"}, labels={}, spec={"unschedulable": True}),
        node("leaving", spec={"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]}),
        node("claimed", 0, labels={"nvidia.com/gpu.count": "8"}),
    ],
    ids=lambda one: one["metadata"]["name"],
)
def test_a_node_that_is_only_just_here_or_is_taken_away_is_no_fault(quiet: Json) -> None:
    young = (
        {"creationTimestamp": "2026-11-20T09:50:00Z"} if quiet["metadata"]["name"] in ("young", "on-its-way") else {}
    )
    quiet = quiet | {"metadata": quiet["metadata"] | young}
    offered = {"driver": "gpu.nvidia.com", "nodeName": "claimed", "devices": [{"name": "gpu-0"}]}
    by_claims: Json = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": "a"},
        "spec": offered,
    }

    assert {f.role for f in judged(quiet, by_claims).cluster.findings} <= {"note"}


def test_a_check_that_fails_on_a_node_does_not_cost_the_others() -> None:
    def fails(node: Node, cluster: Cluster) -> list[Finding]:
        raise ValueError("no")

    checks = [msgspec.structs.replace(c, on_node=fails) if c.id == "node-not-ready" else c for c in installed()]

    report = audit(snapshot(node("a"), node("b", 6, labels={"nvidia.com/gpu.count": "8"})), checks)

    assert [(row.id, row.reason) for row in report.not_checked] == [("node-not-ready", "broken check: ValueError: no")]
    assert [f.id for f in report.cluster.findings] == ["device-plugin-down"]
    said = page(report)
    assert "NOT SEEN  broken check: ValueError: no (1 check): node-not-ready" in said
    assert "need a cluster" not in page(report, wide=True)


def test_engines_are_counted_by_version_with_what_is_known_against_them() -> None:
    old = workload("old", 1)
    for item in old:
        spec = item["spec"].get("template", item)["spec"]
        spec["containers"][0] = spec["containers"][0] | {"image": "vllm/vllm-openai:v0.8.4"}

    report = judged(node("gpu-1"), *old, *workload("new", 2))

    first, second = report.cluster.engines
    assert (first.name, first.version, first.workloads) == ("vllm", "0.8.4", ("serving/Deployment/old",))
    assert "CVE-2025-32444" in first.vulnerabilities
    assert (second.version, second.workloads) == ("0.11.0", ("serving/Deployment/new",))


# -- several clusters, and reports over time --------------------------------------------------------------------------


def test_reports_of_several_clusters_are_one_that_says_which_is_which() -> None:
    parts = [
        audit(snapshot(node("gpu-1"), *workload("llama", 1, **status)), installed(), context=name)
        for name, status in (("eu", {}), ("us", CRASHED))
    ]
    lost = audit(
        Snapshot(missing=(Missing(source="cluster", ref="asia", reason="no route"),)), installed(), context="asia"
    )

    report = join([*parts, lost])

    assert (report.targets[0].context, report.targets[0].verdict) == ("us", "undetermined")
    assert {row.context for row in report.cluster.capacity} == {"eu", "us"}
    assert [row.ref for row in report.not_read if row.source == "cluster"] == ["asia"]
    assert doc.to_tree(report)["targets"][0]["context"] == "us"


def _saved(tmp_path: Path, name: str, *objects: Json) -> Path:
    path = tmp_path / name
    path.write_bytes(msgspec.json.encode(msgspec.to_builtins(snapshot(*objects)) | {"schema": "llmdoctor.snapshot/v1"}))
    return path


def test_a_report_is_compared_with_an_earlier_one(tmp_path: Path) -> None:
    before = _saved(tmp_path, "before.json", node("gpu-1"), *workload("a", 1, **CRASHED), *workload("b", 2, **CRASHED))
    after = _saved(tmp_path, "after.json", node("gpu-1"), *workload("b", 3, **CRASHED), *workload("c", 1, **CRASHED))
    old = tmp_path / "old.json"
    run("audit", "--from", str(before), "-o", f"json={old}")

    done = run("audit", "--from", str(after), "-o", "json", "--compare", str(old))

    assert done.returncode == 1
    found = json.loads(done.stdout)["comparison"]
    assert {row["target"] for row in found["new"]} == {"Deployment serving/c"}
    assert {row["target"] for row in found["fixed"]} == {"Deployment serving/a"}
    assert found["unchanged"] > 0
    assert found["takenAt"] == NOW
    text = run("audit", "--from", str(after), "--compare", str(old)).stdout.decode()
    assert "fixed: Deployment serving/a" in text


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"schema": "other/v1", "targets": []}', '{"schema": 1'])
def test_a_broken_earlier_report_is_one_line_and_exit_2(tmp_path: Path, content: str) -> None:
    after, old = _saved(tmp_path, "after.json", node("gpu-1")), tmp_path / "old.json"
    old.write_text(content)

    done = run("audit", "--from", str(after), "--compare", str(old))

    assert done.returncode == 2
    assert done.stdout == b""
    assert len(done.stderr.decode().strip().splitlines()) == 1


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_page_says_first_what_is_down_and_fits_a_terminal(tmp_path: Path) -> None:
    path = _saved(tmp_path, "s.json", node("gpu-1"), *workload("llama", 2, **CRASHED), *workload("fine", 1))

    done = run("audit", "--from", str(path))

    lines = done.stdout.decode().splitlines()
    assert done.returncode == 1
    assert lines[0] == "2 LLM or GPU workloads   1 down   0 at risk   1 fine   8 GPUs, 5 free"
    assert lines[2].startswith("DOWN NOW  serving/llama (Deployment), 2 pods, CrashLoopBackOff, 4 restarts")
    assert any(line.startswith("CAPACITY") for line in lines)
    assert any(line.startswith("ENGINES   vLLM 0.11.0: 2 workloads") for line in lines)
    commands = [line for line in lines if "kubectl llmdoctor diagnose" in line]  # they stand whole, to be copied
    assert len(commands) == 1
    assert max(len(line) for line in lines if line not in commands) <= 80


def test_several_formats_at_once(tmp_path: Path) -> None:
    path = _saved(tmp_path, "s.json", node("gpu-1"), *workload("fine", 1))

    done = run("audit", "--from", str(path), "-o", f"json={tmp_path / 'r.json'}", "-o", "text")

    assert done.returncode == 0
    assert done.stdout.startswith(b"1 LLM or GPU workload ")
    assert json.loads((tmp_path / "r.json").read_bytes())["cluster"]["capacity"][0]["free"] == 7


def test_a_node_that_is_lost_counts_for_the_exit_code(tmp_path: Path) -> None:
    gone: Json = {"conditions": [{"type": "Ready", "status": "Unknown"}]}

    assert run("audit", "--from", str(_saved(tmp_path, "s.json", node("gpu-1", **gone)))).returncode == 1


def test_without_a_model_there_is_nothing_to_judge_and_that_is_said(tmp_path: Path) -> None:
    done = run("audit", "--from", str(_saved(tmp_path, "s.json", node("gpu-1"))))

    assert done.returncode == 0
    assert done.stdout.startswith(b"0 LLM or GPU workloads")


@pytest.mark.parametrize(("arguments", "code"), [((), 2), (("-n", "elsewhere"), 3)])
def test_an_input_that_holds_nothing_of_it_is_no_healthy_cluster(
    tmp_path: Path, arguments: tuple[str, ...], code: int
) -> None:
    path = _saved(tmp_path, "s.json", *([node("gpu-1")] if arguments else []))

    done = run("audit", "--from", str(path), *arguments)

    assert done.returncode == code
    assert done.stderr.startswith(b"error: the input holds no")
    assert done.stdout == b""


@pytest.mark.parametrize(
    "arguments",
    [("--context", "a", "--all-contexts"), ("-o", "nonsense"), ("--print-cronjob", "a b")],
)
def test_wrong_usage_is_one_line(arguments: tuple[str, ...]) -> None:
    done = run("audit", *arguments)

    assert done.returncode == 2
    assert len(done.stderr.decode().strip().splitlines()) == 1


def test_text_of_a_stranger_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    objects = workload("llama", 1, **CRASHED)
    hostile = node("gpu-1", labels={"nvidia.com/gpu.product": "H\x1b[31m100\n\u202e"})

    out = run("audit", "--from", str(_saved(tmp_path, "s.json", hostile, *objects))).stdout.decode()

    assert "\x1b" not in out
    assert "\u202e" not in out


def test_the_wide_page_says_nothing_twice() -> None:
    report = fleet.fleet(4, broken=1, at_risk=1, nodes=2)

    wide = page(report, wide=True)

    assert "cause" in wide.partition("CAPACITY")[2]
    for heading in ("CAPACITY", "NOT SEEN"):
        assert wide.count(f"\n{heading}") == 1
