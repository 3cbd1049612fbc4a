"""What an audit reads of a cluster: each kind once, of every list what it uses, logs of the broken ones only."""
# ruff: noqa: F811

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any

import pytest

from kubectl_llmdoctor.errors import AccessError
from kubectl_llmdoctor.gather import fleet
from kubectl_llmdoctor.gather.cluster import Cluster, Query
from kubectl_llmdoctor.gather.transport import Pace
from kubectl_llmdoctor.snapshot import to_json
from tests.test_gather_agents import agent_pod, proxy, report, says
from tests.test_gather_cluster import NS, TOKEN, deployment_world, event, named, obj, pod
from tests.test_gather_server import FakeApi, Json, api, cluster, kubeconfig, normal, reset_after, status  # noqa: F401

READY = {"name": "vllm", "ready": True, "state": {"running": {}}}


def _template(image: str = "vllm/vllm-openai:v0.9.1") -> Json:
    return {"template": {"spec": {"containers": [{"name": "vllm", "image": image}]}}}


def _web(name: str, ns: str = "web") -> Json:
    """A pod that serves no models."""
    spec = {
        "nodeName": "cpu-1",
        "containers": [{"name": "web", "image": "nginx", "env": [{"name": "A", "value": "b"}]}],
    }
    return obj(
        "Pod", name, ns=ns, spec=spec, status={"phase": "Running", "containerStatuses": [READY | {"name": "web"}]}
    )


def _world() -> list[Json]:
    world = deployment_world()
    for item in world:
        if item["kind"] in ("Deployment", "ReplicaSet"):
            item["spec"] = {**item["spec"], **_template()}
    return [
        *world,
        _web("nginx-0"),
        obj("Deployment", "nginx", "apps/v1", ns="web", spec=_template("nginx")),
        obj("Service", "nginx", ns="web", spec={"selector": {"app": "nginx"}}),
        obj("Node", "cpu-1", ns="", status={"capacity": {"cpu": "8"}}),
        event("of-web", "Pod", "nginx-0", ns="web"),
        event("of-cpu-node", "Node", "cpu-1", ns="default"),
    ]


def test_each_list_is_asked_for_once_and_plainly(api: FakeApi, cluster: Cluster) -> None:
    api.objects = _world()

    fleet.gather(cluster, "", Query())

    lists = [(path, query) for _, path, query, _ in api.requests if path.rpartition("/")[2] in _PLURALS]
    assert max(Counter(path for path, _ in lists).values()) == 1
    assert all(query == {"resourceVersion": "0"} for _, query in lists)
    assert not [path for path, _ in lists if "/namespaces/" in path]
    assert len(fleet.LISTED) <= 76  # had a cluster all operators and gateways there are


_PLURALS = {kind.plural for kind in fleet.LISTED}


def test_a_gateway_of_models_is_read_whole(api: FakeApi, cluster: Cluster) -> None:
    front = _web("litellm-0")
    front["spec"]["containers"][0]["image"] = "ghcr.io/berriai/litellm:main-stable"
    api.objects = [*_world(), front]

    found = fleet.gather(cluster, "", Query())

    assert "litellm-0" in {ref.name for ref in found.asked}
    (kept,) = (item for item in found.objects if item["metadata"]["name"] == "litellm-0")
    assert "env" in kept["spec"]["containers"][0]


def test_of_every_list_stays_what_is_about_models(api: FakeApi, cluster: Cluster) -> None:
    api.objects = _world()

    found = fleet.gather(cluster, "", Query())

    assert {ref.name for ref in found.asked} == {"llama-2-a", "llama-2-b", "llama-1-a"}
    assert named(found, "Deployment") == {"llama"}
    assert named(found, "Service") == {"llama"}
    assert named(found, "InferenceService") == {"chat"}
    assert named(found, "Node") == {"gpu-1", "cpu-1"}
    # the other pods are here as far as they take place on a node
    (web,) = [item for item in found.objects if item["metadata"]["name"] == "nginx-0"]
    assert "env" not in web["spec"]["containers"][0]
    assert named(found, "Event") == {"mine", "of-node", "of-claim"}
    assert {(row.kind, row.namespace) for row in found.read} >= {("Pod", ""), ("Node", ""), ("Service", "serving")}
    assert ("Service", "web") not in {(row.kind, row.namespace) for row in found.read}
    assert TOKEN.encode() not in to_json(found)


def test_logs_are_read_of_one_replica_for_each_way_to_be_broken(api: FakeApi, cluster: Cluster) -> None:
    api.objects = _world()
    api.logs = {("serving", name, "vllm", True): b"died" for name in ("llama-2-a", "llama-2-b", "llama-1-a")}

    found = fleet.gather(cluster, "", Query())

    (log,) = found.logs
    assert log.pod in ("llama-2-a", "llama-2-b")
    assert len(api.asked(f"{NS}/configmaps/vllm-config")) <= 1


def test_a_member_of_a_group_is_read_with_it_whatever_it_runs(api: FakeApi, cluster: Cluster) -> None:
    head, worker, alone = _web("head", "serving"), pod("worker"), _web("alone", "serving")
    for item, name in ((head, "chat"), (worker, "chat"), (alone, "batch")):
        item["metadata"]["labels"] = {"ray.io/cluster": name}
    api.objects = [head, worker, alone]

    found = fleet.gather(cluster, "", Query())

    assert {ref.name for ref in found.asked} == {"head", "worker"}
    assert ["env" in o["spec"]["containers"][0] for o in found.objects if o["metadata"]["name"] == "head"] == [True]


def test_a_namespace_is_read_with_the_nodes_and_what_takes_place_on_them(api: FakeApi, cluster: Cluster) -> None:
    api.objects = [*_world(), pod("elsewhere") | {"metadata": {"name": "elsewhere", "namespace": "other"}}]

    found = fleet.gather(cluster, "serving", Query())

    assert {ref.namespace for ref in found.asked} == {"serving"}
    (other,) = [item for item in found.objects if item["metadata"]["name"] == "elsewhere"]
    assert other["spec"]["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert "env" not in other["spec"]["containers"][0]
    assert api.asked(f"{NS}/services")
    assert not api.asked("/api/v1/services")


def test_who_may_read_one_namespace_gets_that(api: FakeApi, cluster: Cluster) -> None:
    api.objects = _world()
    for path in ("/api/v1/pods", "/api/v1/nodes"):
        api.faults[path] = [status(403, "not for you")]

    found = fleet.gather(cluster, "serving", Query())

    assert len(found.asked) == 3
    assert {row.source for row in found.missing if "not for you" in row.reason} == {"pods", "nodes"}
    assert ("Pod", "") not in {(row.kind, row.namespace) for row in found.read}


def test_without_the_pods_there_is_no_audit(api: FakeApi, cluster: Cluster) -> None:
    api.faults["/api/v1/pods"] = [status(403, "not for you")]

    with pytest.raises(AccessError, match="pods of the cluster"):
        fleet.gather(cluster, "", Query())


def test_a_list_that_fails_costs_itself_only(api: FakeApi, cluster: Cluster) -> None:
    api.objects = _world()
    api.faults["/apis/apps/v1/replicasets"] = [status(403, "no")]

    found = fleet.gather(cluster, "", Query())

    assert [row.source for row in found.missing if row.reason == "forbidden: no"] == ["replicasets.apps"]
    assert len(found.asked) == 3


def test_a_list_that_breaks_off_is_asked_for_again(api: FakeApi, cluster: Cluster) -> None:
    api.objects = _world()
    api.faults["/api/v1/pods"] = [reset_after(b'{"kind":"PodList","items":[{"metadata":{"na'), normal]

    found = fleet.gather(cluster, "", Query())

    assert len(found.asked) == 3
    assert not found.missing or all(row.source != "pods" for row in found.missing)


def test_the_server_says_when_to_come_again(api: FakeApi, cluster: Cluster) -> None:
    api.objects = _world()
    api.faults["/api/v1/nodes"] = [status(429, "slowly", Retry_After="1"), normal]
    began = time.monotonic()

    found = fleet.gather(cluster, "", Query())

    assert time.monotonic() - began >= 1
    assert named(found, "Node") == {"gpu-1", "cpu-1"}


def test_more_broken_pods_than_can_be_explained_are_said(
    api: FakeApi, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "MAX_EXPLAINED", 1)
    api.objects = [pod("a"), pod("b", status={"phase": "Failed"})]

    found = fleet.gather(cluster, "", Query())

    assert "1 most broken of 2" in next(row.reason for row in found.missing if row.source == "logs")


def test_the_agents_of_the_nodes_of_broken_pods_are_asked_when_wanted(api: FakeApi, cluster: Cluster) -> None:
    fine = pod("fine", spec={"nodeName": "gpu-2"}, status={"containerStatuses": [READY]})
    api.objects = [pod("broken"), fine, agent_pod("gpu-1"), agent_pod("gpu-2")]
    api.faults = {proxy(node): [says(report(node))] for node in ("gpu-1", "gpu-2")}

    assert not fleet.gather(cluster, "", Query()).nodes
    assert set(fleet.gather(cluster, "", Query(agent=True)).nodes) == {"gpu-1"}


def test_a_pace_holds_within_any_second() -> None:
    pace, asked, sent = Pace(20), list[float](), list[float]()
    for _ in range(50):
        asked.append(time.monotonic())
        pace.wait()
        sent.append(time.monotonic())

    # one that was let go may be held up before it is noted, and none can be before it asked
    assert all(later - sooner >= 0.99 for sooner, later in zip(asked, sent[20:], strict=False))
    assert sent[-1] - sent[0] < 6


def test_hostile_objects_do_not_end_a_gathering(api: FakeApi, cluster: Cluster) -> None:
    odd: list[Any] = [{"metadata": {"name": "x", "namespace": "serving", "labels": [1]}, "spec": 7, "status": "no"}]
    api.objects = _world()
    api.faults["/api/v1/events"] = [
        lambda handler: handler.send(200, json.dumps({"kind": "EventList", "items": odd}).encode())
    ]

    found = fleet.gather(cluster, "", Query())

    assert len(found.asked) == 3
    assert any(row.source == "events" and "not understood" in row.reason for row in found.missing)
