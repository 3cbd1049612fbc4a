"""From the object that a person names to its pods, for each platform; and that what is not installed costs nothing."""
# ruff: noqa: F811

from __future__ import annotations

import json
from typing import Any

import pytest

from kubectl_llmdoctor.gather import kinds
from kubectl_llmdoctor.gather.cluster import Cluster
from kubectl_llmdoctor.gather.kinds import Kind
from tests.test_gather_cluster import names, obj, pod, run
from tests.test_gather_server import FakeApi, Json, api, cluster, kubeconfig, raw  # noqa: F401


def _discovery(*custom: Kind) -> bytes:
    """What a server answers on /apis: the groups that it has, each with its versions."""
    groups: dict[str, list[Json]] = {}
    for kind in (*(k for k in kinds.KINDS if k.group and not _is_custom(f"/apis/{k.group}/")), *custom):
        groups.setdefault(kind.group, []).append({"version": kind.versions[-1]})
    listed = [{"name": name, "versions": versions} for name, versions in groups.items()]
    return json.dumps({"kind": "APIGroupList", "groups": listed}).encode()


def _is_custom(path: str) -> bool:
    group = path.split("/")[2] if path.startswith("/apis/") else ""
    return "." in group and (not group.endswith(".k8s.io") or group.endswith("x-k8s.io"))


def test_a_kind_that_is_not_installed_is_not_asked_for(api: FakeApi, cluster: Cluster) -> None:
    labels = {
        "ray.io/cluster": "a",
        "serving.kserve.io/inferenceservice": "b",
        "kueue.x-k8s.io/queue-name": "c",
        "app.kubernetes.io/part-of": "nim-service",
        "app.kubernetes.io/name": "d",
    }
    api.objects = [pod("llama-0", labels=labels)]
    api.faults["/apis"] = [raw(200, _discovery())]
    found = run(cluster, "llama-0")
    assert {row.source for row in found.missing} <= {"logs"}
    assert not [path for _, path, _, _ in api.requests if _is_custom(path)]
    assert len(api.asked("/apis")) == 1


def test_the_queue_of_a_pod_that_volcano_schedules_is_asked_for_whether_it_is_named_or_not(
    api: FakeApi, cluster: Cluster
) -> None:
    one, other, plain = (pod(f"llama-{i}") for i in range(3))
    for item in (one, other):
        item["spec"]["schedulerName"] = "volcano"
    other["metadata"]["annotations"] = {"scheduling.volcano.sh/queue-name": "large"}
    for item, queue in ((one, ["default"]), (other, ["large"]), (plain, [])):
        api.objects, before = [item], len(api.requests)
        run(cluster, item["metadata"]["name"])
        paths = [path for _, path, _, _ in api.requests[before:]]
        assert [path.rpartition("/")[2] for path in paths if "/scheduling.volcano.sh/v1beta1/queues/" in path] == queue


@pytest.mark.parametrize("label", ["kai.scheduler/queue", "runai/queue"])
def test_the_queues_of_kai_are_listed_where_a_pod_names_one(label: str, api: FakeApi, cluster: Cluster) -> None:
    api.objects = [pod("llama-0", labels={label: "team-a"})]
    run(cluster, "llama-0")
    asked = [path for _, path, _, _ in api.requests if path.endswith("/queues")]
    assert asked == ["/apis/scheduling.run.ai/v2/queues"]


def test_the_queues_are_read_for_which_a_gated_pod_may_be_meant_that_names_none(api: FakeApi, cluster: Cluster) -> None:
    waiting, plain = pod("llama-0"), pod("llama-1")
    waiting["spec"]["schedulingGates"] = [{"name": "kueue.x-k8s.io/admission"}]
    queue = obj("LocalQueue", "team", "kueue.x-k8s.io/v1beta1", spec={"clusterQueue": "gpus"})
    workload = obj("Workload", "pod-llama-0", "kueue.x-k8s.io/v1beta1", owner=waiting)
    other = obj("Workload", "pod-llama-2", "kueue.x-k8s.io/v1beta1", owner=plain)
    api.objects = [waiting, plain, queue, workload, other]

    found = run(cluster, "llama-0")
    assert [names(found, kind) for kind in ("LocalQueue", "Workload")] == [["team"], ["pod-llama-0"]]
    assert [path for _, path, _, _ in api.requests if path.endswith("/clusterqueues/gpus")]
    assert names(run(cluster, "llama-1"), "LocalQueue") == []


def test_only_the_version_that_the_server_has_is_asked_for(api: FakeApi, cluster: Cluster) -> None:
    ray = kinds.core("RayService", "ray.io").at("v1alpha1")
    owner = obj("RayService", "b", "ray.io/v1alpha1")
    labels = {"ray.io/originated-from-crd": "RayService", "ray.io/originated-from-cr-name": "b"}
    api.objects = [owner, pod("llama-0", labels=labels)]
    api.faults["/apis"] = [raw(200, _discovery(ray))]
    assert names(run(cluster, "llama-0"), "RayService") == ["b"]
    asked = [path for _, path, _, _ in api.requests if "/ray.io/" in path]
    assert asked == ["/apis/ray.io/v1alpha1/namespaces/serving/rayservices/b"]


def test_without_discovery_every_kind_is_tried(api: FakeApi, cluster: Cluster) -> None:
    api.objects = [pod("llama-0", labels={"serving.kserve.io/inferenceservice": "b"})]
    found = run(cluster, "llama-0")
    assert {row.source for row in found.missing} <= {"logs"}
    assert [path for _, path, _, _ in api.requests if "serving.kserve.io" in path]


def _owned(kind: str, name: str, api_version: str, owner: Json, **more: Any) -> Json:
    return obj(kind, name, api_version, owner=owner, **more)


def _worlds() -> list[Any]:
    found = []

    def world(target: str, top: Json, between: list[Json], labels: Json, lowest: Json) -> None:
        objects = [top, *between, *(pod(f"x-{i}", lowest, labels=labels) for i in range(2))]
        found.append(pytest.param(target, objects, id=target.partition("/")[0]))

    isvc = obj("InferenceService", "x", "serving.kserve.io/v1beta1")
    mine = {"serving.kserve.io/inferenceservice": "x", "component": "predictor"}
    deployment = _owned("Deployment", "x-predictor", "apps/v1", isvc, meta={"labels": mine})
    world("isvc/x", isvc, [deployment], mine, deployment)

    llm = obj("LLMInferenceService", "x", "serving.kserve.io/v1alpha2")
    mine = {"app.kubernetes.io/part-of": "llminferenceservice", "app.kubernetes.io/name": "x"}
    lws = _owned("LeaderWorkerSet", "x-mn", "leaderworkerset.x-k8s.io/v1", llm, meta={"labels": mine})
    both = {**mine, "leaderworkerset.sigs.k8s.io/name": "x-mn", "leaderworkerset.sigs.k8s.io/group-index": "0"}
    world("llmisvc/x", llm, [lws], both, lws)

    ray = obj("RayCluster", "x", "ray.io/v1")
    world("raycluster/x", ray, [], {"ray.io/cluster": "x"}, ray)
    for kind in ("RayService", "RayJob"):
        top = obj(kind, "x", "ray.io/v1", status={"rayClusterName": "x-c"})
        mine = {"ray.io/originated-from-crd": kind, "ray.io/originated-from-cr-name": "x"}
        inner = _owned("RayCluster", "x-c", "ray.io/v1", top, meta={"labels": mine})
        world(f"{kind.lower()}/x", top, [inner], {**mine, "ray.io/cluster": "x-c"}, inner)

    graph = obj("DynamoGraphDeployment", "x", "nvidia.com/v1alpha1")
    mine = {"nvidia.com/dynamo-graph-deployment-name": "x"}
    deployment = _owned("Deployment", "x-worker", "apps/v1", graph, meta={"labels": mine})
    world("dgd/x", graph, [deployment], mine, deployment)

    nim = obj("NIMService", "x", "apps.nvidia.com/v1alpha1")
    mine = {"app.kubernetes.io/part-of": "nim-service", "app.kubernetes.io/name": "x"}
    deployment = _owned("Deployment", "x", "apps/v1", nim, meta={"labels": mine})
    world("nimservice/x", nim, [deployment], mine, deployment)

    rollout = obj("Rollout", "x", "argoproj.io/v1alpha1", spec={"selector": {"matchLabels": {"app": "llama"}}})
    replicas = _owned("ReplicaSet", "x-1", "apps/v1", rollout, meta={"labels": {"app": "llama"}})
    world("rollout/x", rollout, [replicas], {}, replicas)

    jobs = obj("JobSet", "x", "jobset.x-k8s.io/v1alpha2")
    mine = {"jobset.sigs.k8s.io/jobset-name": "x"}
    job = _owned("Job", "x-w-0", "batch/v1", jobs, meta={"labels": mine})
    world("jobset/x", jobs, [job], mine, job)

    storm = obj("StormService", "x", "orchestration.aibrix.ai/v1alpha1")
    mine = {"storm-service-name": "x", "role-name": "decode"}
    roles = _owned("RoleSet", "x-r", "orchestration.aibrix.ai/v1alpha1", storm, meta={"labels": mine})
    world("stormservice/x", storm, [roles], mine, roles)

    serving = obj("ModelServing", "x", "workload.serving.volcano.sh/v1alpha1")
    world("modelserving/x", serving, [], {"modelserving.volcano.sh/name": "x"}, serving)

    cliques = obj("PodCliqueSet", "x", "grove.io/v1alpha1")
    mine = {"app.kubernetes.io/part-of": "x", "app.kubernetes.io/managed-by": "grove-operator"}
    clique = _owned("PodClique", "x-0-w", "grove.io/v1alpha1", cliques, meta={"labels": mine})
    world("pcs/x", cliques, [clique], {**mine, "grove.io/podclique": "x-0-w"}, clique)

    group = obj("RoleBasedGroup", "x", "workloads.x-k8s.io/v1alpha1")
    world("rbg/x", group, [], {"rbg.workloads.x-k8s.io/group-name": "x"}, group)

    runtime = obj("VLLMRuntime", "x", "production-stack.vllm.ai/v1alpha1")
    deployment = _owned("Deployment", "x", "apps/v1", runtime)
    replicas = _owned("ReplicaSet", "x-1", "apps/v1", deployment)
    world("vllmruntime/x", runtime, [deployment, replicas], {}, replicas)

    fleet = obj("RayClusterFleet", "x", "orchestration.aibrix.ai/v1alpha1")
    replicas = _owned("RayClusterReplicaSet", "x-1", "orchestration.aibrix.ai/v1alpha1", fleet)
    inner = _owned("RayCluster", "x-1-a", "ray.io/v1", replicas)
    world("rayclusterfleet/x", fleet, [replicas, inner], {"ray.io/cluster": "x-1-a"}, inner)
    return found


@pytest.mark.parametrize(("target", "objects"), _worlds())
def test_the_pods_of_each_kind_are_found(api: FakeApi, cluster: Cluster, target: str, objects: list[Json]) -> None:
    api.objects = [*objects, obj("Pod", "stranger")]
    here = {(o["apiVersion"].rpartition("/")[0], o["kind"]): o["apiVersion"].rpartition("/")[2] for o in objects}
    custom = [k.at(here[k.key]) for k in kinds.KINDS if k.key in here and _is_custom(f"/apis/{k.group}/")]
    api.faults["/apis"] = [raw(200, _discovery(*custom))]
    found = run(cluster, target)
    assert {row.source for row in found.missing} <= {"logs"}
    from kubectl_llmdoctor.facts.cluster import Cluster as Facts
    from kubectl_llmdoctor.target import subjects

    explained = subjects(Facts(found))
    assert sorted(p.name for s in explained for p in s.pods) == ["x-0", "x-1"]
    assert {s.workload.kind for s in explained if s.workload} == {objects[0]["kind"]}
    asked = {path for _, path, _, _ in api.requests if _is_custom(path)}
    assert {path.split("/")[2] for path in asked} <= {key[0] for key in here}, "no group that is not installed"


def test_the_runtime_that_a_service_names_is_read_or_known_to_be_absent(api: FakeApi, cluster: Cluster) -> None:
    model = {"modelFormat": {"name": "vLLM"}, "runtime": "gone"}
    api.objects = [obj("InferenceService", "x", "serving.kserve.io/v1beta1", spec={"predictor": {"model": model}})]
    served = [
        kinds.core(k, "serving.kserve.io") for k in ("InferenceService", "ServingRuntime", "ClusterServingRuntime")
    ]
    api.objects.append(obj("ServingRuntime", "other", "serving.kserve.io/v1alpha1"))
    api.objects.append(obj("ClusterServingRuntime", "other", "serving.kserve.io/v1alpha1", ns=""))
    api.faults["/apis"] = [raw(200, _discovery(*served))]
    found = run(cluster, "isvc/x")
    absent = {(r.kind, r.fields) for r in found.read if r.fields.startswith("metadata.name=")}
    assert absent >= {("ServingRuntime", "metadata.name=gone"), ("ClusterServingRuntime", "metadata.name=gone")}
    del model["runtime"]
    found = run(cluster, "isvc/x")
    assert names(found, "ServingRuntime") == ["other"]
    assert {r.kind for r in found.read} >= {"ServingRuntime", "ClusterServingRuntime"}


def test_the_machines_that_karpenter_asks_for_are_read_for_a_pod_that_waits(api: FakeApi, cluster: Cluster) -> None:
    waits = pod("llama-0")
    del waits["spec"]["nodeName"]
    waits["status"] = {"phase": "Pending"}
    # the claim that was refused is gone
    refused = obj("Event", "gpu-b.1", ns="default", involvedObject={"kind": "NodeClaim", "name": "gpu-b"}, message="m")
    of_a_pod = obj("Event", "x.1", ns="default", involvedObject={"kind": "Pod", "name": "x", "namespace": "default"})
    api.objects = [waits, obj("NodeClaim", "gpu-a", "karpenter.sh/v1", ns=""), refused, of_a_pod]
    api.faults["/apis"] = [raw(200, _discovery(kinds.core("NodeClaim", "karpenter.sh").at("v1")))]

    found = run(cluster, "llama-0")
    assert names(found, "NodeClaim") == ["gpu-a"]
    assert names(found, "Event") == ["gpu-b.1"]


def test_the_machines_of_openshift_are_read_for_a_pod_that_waits(api: FakeApi, cluster: Cluster) -> None:
    waits = pod("llama-0")
    del waits["spec"]["nodeName"]
    waits["status"] = {"phase": "Pending"}
    api.objects = [waits, obj("Machine", "gpu-a", "machine.openshift.io/v1beta1", ns="openshift-machine-api")]
    api.faults["/apis"] = [raw(200, _discovery(kinds.core("Machine", "machine.openshift.io").at("v1beta1")))]

    assert names(run(cluster, "llama-0"), "Machine") == ["gpu-a"]


def test_no_events_of_machines_are_asked_for_where_there_is_no_karpenter(api: FakeApi, cluster: Cluster) -> None:
    waits = pod("llama-0")
    del waits["spec"]["nodeName"]
    waits["status"] = {"phase": "Pending"}
    api.objects = [waits]
    api.faults["/apis"] = [raw(200, _discovery())]

    found = run(cluster, "llama-0")
    assert api.asked("/api/v1/nodes")
    assert not api.asked("/api/v1/namespaces/default/events")
    assert not {missing.source for missing in found.missing} & {"events", "nodeclaims"}


def test_the_machines_of_a_kaito_workspace_without_a_pod_are_read(api: FakeApi, cluster: Cluster) -> None:
    mine = {"kaito.sh/workspace": "x", "kaito.sh/workspacenamespace": "serving"}
    workspace = obj("Workspace", "x", "kaito.sh/v1beta1")
    api.faults["/apis/kaito.sh/v1beta1/namespaces/serving/workspaces/x"] = [raw(200, json.dumps(workspace).encode())]
    api.objects = [
        obj("NodeClaim", "a", "karpenter.sh/v1", ns="", meta={"labels": mine}),
        obj("NodeClaim", "b", "karpenter.sh/v1", ns="", meta={"labels": {**mine, "kaito.sh/workspace": "y"}}),
    ]
    groups = [
        {"metadata": {"name": group}, "versions": [{"version": version, "resources": [row]}]}
        for group, version, row in (
            ("kaito.sh", "v1beta1", _resource("Workspace", "workspaces", "Namespaced")),
            ("karpenter.sh", "v1", _resource("NodeClaim", "nodeclaims", "Cluster")),
        )
    ]
    api.faults["/apis"] = [raw(200, json.dumps({"kind": "APIGroupDiscoveryList", "items": groups}).encode())]

    assert names(run(cluster, "workspace/x"), "NodeClaim") == ["a"]


def _resource(kind: str, plural: str, scope: str) -> Json:
    """A row of aggregated discovery."""
    return {"resource": plural, "responseKind": {"kind": kind}, "scope": scope, "verbs": ["get", "list"]}
