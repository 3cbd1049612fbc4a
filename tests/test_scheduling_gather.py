"""What is read of a cluster to judge where a pod could go: only what the pod's spec makes matter."""
# ruff: noqa: F811

from __future__ import annotations

from typing import Any

import pytest

from kubectl_llmdoctor.gather.cluster import Cluster, Query, gather
from kubectl_llmdoctor.snapshot import Snapshot
from tests.scheduling_scene import pod
from tests.test_gather_server import FakeApi, Json, api, cluster, kubeconfig, status  # noqa: F401

VOLUMES = {
    "PersistentVolume",
    "PersistentVolumeClaim",
    "CSINode",
    "CSIDriver",
    "CSIStorageCapacity",
    "VolumeAttachment",
}
DEVICES = {"DeviceClass", "ResourceSlice", "ResourceClaim"}
CLAIM: Json = {"volumes": [{"name": "m", "persistentVolumeClaim": {"claimName": "m"}}]}
TEAM = {"topologyKey": "zone", "labelSelector": {}, "namespaceSelector": {"matchLabels": {"team": "x"}}}
AFFINITY = {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [TEAM]}}}
TEMPLATE = {"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "t"}]}


def asking(resource: str) -> Json:
    return {"containers": [{"name": "c", "image": "x", "resources": {"limits": {resource: "1"}}}]}


def read(cluster: Cluster, api: FakeApi, one: Json, *others: Json) -> Snapshot:
    api.objects = [{"apiVersion": "v1", **item} for item in (one, *others)]
    return gather(cluster, Query(names=("me",)))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, set()),
        (CLAIM, VOLUMES),
        ({"volumes": [{"name": "s", "ephemeral": {"volumeClaimTemplate": {}}}]}, VOLUMES),
        ({"volumes": [{"name": "d", "awsElasticBlockStore": {"volumeID": "v"}}]}, VOLUMES),
        ({"volumes": [{"name": "d", "emptyDir": {}}]}, set()),
        (AFFINITY, {"Namespace"}),
        (TEMPLATE, DEVICES),
        (asking("nvidia.com/gpu"), DEVICES),
        (asking("example.com/fpga"), DEVICES),
        (asking("deviceclass.resource.kubernetes.io/gpu.nvidia.com"), DEVICES),
        (asking("hugepages-2Mi"), set()),
    ],
)
def test_lists_that_are_read_for_a_pod_that_waits(
    spec: dict[str, Any], expected: set[str], api: FakeApi, cluster: Cluster
) -> None:
    found = read(cluster, api, pod("me", **spec))
    whole = {r.kind for r in found.read if not r.namespace and not r.fields}

    assert whole & (VOLUMES | DEVICES | {"Namespace"}) == expected
    assert {"Node", "Pod", "StorageClass"} <= whole


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, set()),
        ({"priorityClassName": "high-prio"}, {"PriorityClass"}),
        ({"runtimeClassName": "nvidia"}, {"RuntimeClass"}),
    ],
)
def test_classes_are_read_beside_one_that_a_workload_without_pods_names(
    spec: dict[str, Any], expected: set[str], api: FakeApi, cluster: Cluster
) -> None:
    labels = {"app": "me"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "x"}], **spec}}
    metadata = {"name": "me", "namespace": "serving"}
    api.objects = [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {"selector": {"matchLabels": labels}, "template": template},
        }
    ]

    found = gather(cluster, Query(names=("deployment/me",)))

    assert {r.kind for r in found.read} & {"PriorityClass", "RuntimeClass"} == expected


def test_other_pods_keep_what_bars_this_one(api: FakeApi, cluster: Cluster) -> None:
    disks = [{"name": "d", "rbd": {"image": "i", "monitors": ["m"]}}, {"name": "e", "emptyDir": {}}]
    given = {"name": "c", "ready": True, "resources": {"requests": {"cpu": "3"}}, "allocatedResources": {"cpu": "2"}}
    whole = {"resources": {"requests": {"cpu": "4"}}, "allocatedResources": {"cpu": "4"}}
    other = pod("busy", "n", ns="other", volumes=disks, status={"containerStatuses": [given], **whole})
    found = read(cluster, api, pod("me"), other)

    (slim,) = [o for o in found.objects if o["metadata"]["name"] == "busy"]
    assert slim["spec"]["volumes"] == disks[:1]
    assert {key: slim["status"][key] for key in whole} == whole
    assert slim["status"]["containerStatuses"][0]["resources"] == given["resources"]


def test_other_pods_keep_their_part_of_a_gpu(api: FakeApi, cluster: Cluster) -> None:
    marks = {"gpu-fraction": "0.5", "kubectl.kubernetes.io/last-applied-configuration": "{}"}
    found = read(cluster, api, pod("me"), pod("busy", "n", ns="other", meta={"annotations": marks}))

    (slim,) = [o for o in found.objects if o["metadata"]["name"] == "busy"]
    assert slim["metadata"]["annotations"] == {"gpu-fraction": "0.5"}


def test_without_the_right_to_list_volumes_the_rest_is_still_read(api: FakeApi, cluster: Cluster) -> None:
    api.faults["/api/v1/persistentvolumeclaims"] = [status(403, "cannot list")]
    found = read(cluster, api, pod("me", **CLAIM))

    assert "PersistentVolumeClaim" not in {r.kind for r in found.read if not r.namespace and not r.fields}
    assert [m.source for m in found.missing if "cannot list" in m.reason] == ["persistentvolumeclaims"]


def test_for_a_device_the_daemon_sets_are_read_that_bring_some(api: FakeApi, cluster: Cluster) -> None:
    def daemons(name: str, image: str) -> Json:
        containers = [{"name": "c", "image": image}]
        metadata = {"name": name, "namespace": "kube-system"}
        return {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": metadata,
            "spec": {"template": {"spec": {"containers": containers}}},
        }

    others = (daemons("nvidia", "registry.example/k8s-device-plugin:v0.17.4"), daemons("logs", "fluent-bit:3"))
    for spec, expected in ((asking("nvidia.com/gpu"), ["nvidia"]), ({}, [])):
        found = read(cluster, api, pod("me", **spec), *others)
        assert [o["metadata"]["name"] for o in found.objects if o["kind"] == "DaemonSet"] == expected
