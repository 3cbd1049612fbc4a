"""Node agents as gathering asks them, through a scripted API server."""
# ruff: noqa: F811

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from kubectl_llmdoctor.gather import agents
from kubectl_llmdoctor.gather.access import AccessRow
from kubectl_llmdoctor.gather.cluster import Cluster, access
from kubectl_llmdoctor.snapshot import Missing, Snapshot
from tests.test_gather_cluster import TOKEN, obj, pending, pod, run
from tests.test_gather_server import (  # noqa: F401
    FakeApi,
    Fault,
    Json,
    api,
    cluster,
    drip,
    kubeconfig,
    raw,
    silence,
    status,
)

NOW = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)
LIST = "/api/v1/namespaces/llmdoctor/pods"
RUNNING = {"name": "agent", "ready": True, "state": {"running": {}}}


def agent_pod(node: str, ns: str = "llmdoctor", **state: Any) -> Json:
    row = RUNNING | ({"state": state} if state else {})
    return obj(
        "Pod",
        f"llmdoctor-agent-{node}",
        ns=ns,
        meta={"labels": {"app.kubernetes.io/name": "llmdoctor-agent"}},
        spec={"nodeName": node, "containers": [{"name": "agent", "ports": [{"containerPort": 9479}]}]},
        status={"phase": "Running", "containerStatuses": [row]},
    )


def proxy(node: str, ns: str = "llmdoctor") -> str:
    return f"/api/v1/namespaces/{ns}/pods/llmdoctor-agent-{node}:9479/proxy/v1/report"


def says(tree: Any, age: float = 10.0, **headers: str) -> Fault:
    """An agent's answer whose reading is so many seconds old by the agent's own clock, which is far from ours."""
    date = format_datetime(NOW + timedelta(seconds=age), usegmt=True)
    body = tree if isinstance(tree, bytes) else json.dumps(tree).encode()

    def fault(handler: Any) -> None:
        handler.date_time_string = lambda *_: date
        handler.send(200, body, **headers)

    return fault


def report(node: str = "gpu-1", **more: Any) -> Json:
    taken = NOW.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"schema": "llmdoctor.agent/v1", "node": node, "takenAt": taken, "gpus": [{"index": 0}], **more}


@pytest.fixture
def world(api: FakeApi) -> FakeApi:
    api.objects = [pod("llama-0"), obj("Node", "gpu-1", ns=""), agent_pod("gpu-1")]
    api.faults[proxy("gpu-1")] = [says(report(kernelLog=f"NVRM: Xid 79\nHF_TOKEN={TOKEN}\n"))]
    return api


def ask(cluster: Cluster, *names: str, **more: Any) -> Snapshot:
    return run(cluster, *(names or ("llama-0",)), agent=True, **more)


def missing(snapshot: Snapshot) -> list[Missing]:
    return [row for row in snapshot.missing if row.source == "agent"]


def reason(snapshot: Snapshot) -> str:
    """The one thing that is said of agents."""
    (row,) = missing(snapshot)
    assert "\n" not in row.reason
    assert snapshot.nodes == {}
    return row.reason


def test_the_report_and_the_kernel_log_of_the_pods_node(world: FakeApi, cluster: Cluster) -> None:
    found = ask(cluster)

    assert list(found.nodes) == ["gpu-1"]
    node = found.nodes["gpu-1"]
    assert node.agent
    assert node.agent["gpus"] == [{"index": 0}]
    assert "kernelLog" not in node.agent
    assert node.kernel_log.startswith("NVRM: Xid 79\n")
    assert missing(found) == []
    assert len(world.asked(proxy("gpu-1"))) == 1


def test_what_an_agent_says_is_masked(world: FakeApi, cluster: Cluster) -> None:
    process = {"pid": 1, "name": f"python --api-key {TOKEN}"}
    world.faults[proxy("gpu-1")] = [says(report(gpus=[{"processes": [process]}], kernelLog=f"HF_TOKEN={TOKEN}\n"))]

    node = ask(cluster).nodes["gpu-1"]

    assert TOKEN not in json.dumps(node.agent) + node.kernel_log
    assert "masked" in node.kernel_log


def test_nobody_asks_for_an_agent_that_is_not_wanted(world: FakeApi, cluster: Cluster) -> None:
    found = run(cluster, "llama-0")

    assert (found.nodes, missing(found)) == ({}, [])
    assert world.asked(LIST) == []


def test_agents_of_another_namespace_are_found_where_there_is_no_other(world: FakeApi, cluster: Cluster) -> None:
    world.objects[-1] = agent_pod("gpu-1", ns="monitoring")
    world.faults[proxy("gpu-1", ns="monitoring")] = [says(report())]

    assert list(ask(cluster).nodes) == ["gpu-1"]
    # one in the namespace that is meant for it comes first
    world.objects.append(agent_pod("gpu-1"))
    world.faults[proxy("gpu-1", ns="monitoring")] = [status(500)]
    assert list(ask(cluster).nodes) == ["gpu-1"]


def test_two_namespaces_that_claim_a_node_are_both_left_alone(world: FakeApi, cluster: Cluster) -> None:
    world.objects[-1:] = [agent_pod("gpu-1", ns="a"), agent_pod("gpu-1", ns="b")]

    assert "a/llmdoctor-agent-gpu-1, b/llmdoctor-agent-gpu-1" in reason(ask(cluster))


def test_no_agent_at_all_is_one_line(world: FakeApi, cluster: Cluster) -> None:
    world.objects[:] = [pod("llama-0"), pod("llama-1", spec={"nodeName": "gpu-2"})]

    assert reason(ask(cluster, "llama-0", "llama-1")) == "not installed (kubectl llmdoctor agent manifests)"


def test_a_node_without_an_agent(world: FakeApi, cluster: Cluster) -> None:
    world.objects[-1] = agent_pod("gpu-2")

    found = ask(cluster)

    assert missing(found) == [Missing(source="agent", ref="gpu-1", reason=reason(found))]
    assert "no agent runs there (kubectl label node gpu-1 llmdoctor-agent=true" in reason(found)


def test_a_pod_without_a_gpu_misses_no_agent(world: FakeApi, cluster: Cluster) -> None:
    world.objects[-1] = agent_pod("gpu-2")
    world.objects[0]["spec"]["containers"][0].pop("resources")

    assert missing(ask(cluster)) == []


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (status(403, 'User "u" cannot get resource "pods/proxy"'), ["forbidden", "llmdoctor-agent-reader"]),
        (silence, ["no answer", "--allow-from"]),
        (drip, ["no answer", "--allow-from"]),
        (
            status(503, "error trying to reach service: dial tcp 10.1.2.3:9479: connect: connection refused"),
            ["does not reach", "connection refused", "--allow-from"],
        ),
        (raw(502, b"error trying to reach service: EOF"), ["does not reach", "EOF"]),
        (raw(503, b"no reading yet\n"), ["first reading", "again"]),
        (raw(404, b"404 page not found"), ["gone or serves no report"]),
        (raw(401, b""), ["unauthorized"]),
        (says(b"<html>"), ["no report"]),
        (says(b"[" * 100_000), ["no report"]),
        (says([1]), ["no report"]),
        (says({"gpus": []}), ["no report"]),
        (says(b" " * (9 * 2**20)), ["larger than 8 MiB"]),
        (says({"schema": "llmdoctor.agent/v2"}), ["llmdoctor.agent/v2", "reads llmdoctor.agent/v1"]),
        (says(report(node="gpu-7")), ["another node: gpu-7"]),
        (says(report(), age=720), ["12 min old", "logs"]),
    ],
    ids=[
        *("forbidden", "silent", "slow", "refused", "broken off", "no reading", "gone", "unauthorized", "web page"),
        *("deep", "list", "no schema", "large", "new schema", "other node", "stale"),
    ],
)
def test_an_agent_that_cannot_be_used_is_one_line_with_what_to_do(
    world: FakeApi, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, fault: Fault, words: list[str]
) -> None:
    monkeypatch.setattr(agents, "_SECONDS", 1.0)
    world.faults[proxy("gpu-1")] = [fault]

    said = reason(ask(cluster))

    assert [word for word in words if word not in said] == []
    assert len(world.asked(proxy("gpu-1"))) == 1, "nobody waits for a second try"


def test_fields_that_are_new_or_of_another_form_do_no_harm(world: FakeApi, cluster: Cluster) -> None:
    world.faults[proxy("gpu-1")] = [says({**report(gpus="many", new={"a": 1}), "kernelLog": 7, "takenAt": "yesterday"})]

    node = ask(cluster).nodes["gpu-1"]

    assert node.agent
    assert (node.agent["gpus"], node.agent["new"], node.kernel_log) == ("many", {"a": 1}, "")


def test_an_agent_that_does_not_run(world: FakeApi, cluster: Cluster) -> None:
    world.objects[-1] = agent_pod("gpu-1", waiting={"reason": "CrashLoopBackOff"})

    assert "does not run: CrashLoopBackOff" in reason(ask(cluster))
    assert world.asked(proxy("gpu-1")) == []


def test_the_pod_that_runs_is_asked_and_not_the_one_that_goes(world: FakeApi, cluster: Cluster) -> None:
    going = agent_pod("gpu-1")
    going["metadata"] |= {"name": "llmdoctor-agent-0", "deletionTimestamp": "2026-11-20T10:00:00Z"}
    world.objects.append(going)

    assert list(ask(cluster).nodes) == ["gpu-1"]


def test_who_may_not_list_the_agents_is_told_what_permits_it(world: FakeApi, cluster: Cluster) -> None:
    world.faults[LIST] = [status(403, 'cannot list resource "pods" in the namespace "llmdoctor"')]
    world.faults["/api/v1/pods"] = [status(403, "cannot list pods")]

    assert "llmdoctor-agent-reader" in reason(ask(cluster))


def test_who_may_list_nothing_else_reads_the_agents_of_their_namespace(world: FakeApi, cluster: Cluster) -> None:
    world.faults["/api/v1/pods"] = [status(403, "cannot list pods")]

    assert list(ask(cluster).nodes) == ["gpu-1"]
    world.objects.pop()
    assert reason(ask(cluster)) == "not installed (kubectl llmdoctor agent manifests)"


def test_many_nodes_cost_so_many_requests(world: FakeApi, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "_NODES", 3)
    world.objects = []
    for n in range(6):
        world.objects += [pod(f"llama-{n}", spec={"nodeName": f"gpu-{n}"}), agent_pod(f"gpu-{n}")]
        world.faults[proxy(f"gpu-{n}")] = [says(report(f"gpu-{n}"))]

    found = ask(cluster, *(f"llama-{n}" for n in range(6)))

    assert len(found.nodes) == 3
    assert [row.reason for row in missing(found)] == ["only 3 nodes were asked"]
    assert len(world.asked(LIST)) == 1


def test_agents_that_do_not_answer_cost_little_all_together(
    world: FakeApi, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "_SECONDS", 0.3)
    monkeypatch.setattr(agents, "_BUDGET", 0.4)
    world.objects = []
    for n in range(16):
        world.objects += [pod(f"llama-{n}", spec={"nodeName": f"gpu-{n}"}), agent_pod(f"gpu-{n}")]
        world.faults[proxy(f"gpu-{n}")] = [silence]
    began = datetime.now(UTC)

    found = ask(cluster, *(f"llama-{n}" for n in range(16)))

    assert (datetime.now(UTC) - began).total_seconds() < 4
    assert len(missing(found)) == 16
    assert any("not asked" in row.reason for row in missing(found))


# -- pods that wait for a node ----------------------------------------------------------------------------------------


def node(name: str, has: int, offers: int) -> Json:
    status_ = {"capacity": {"nvidia.com/gpu": str(has)}, "allocatable": {"nvidia.com/gpu": str(offers)}}
    return obj("Node", name, ns="", status=status_)


def pending_world(api: FakeApi, *nodes: Json) -> None:
    api.objects = [pending(), *nodes, obj("Node", "cpu-1", ns="", status={"capacity": {"cpu": "8"}})]
    for name in (one["metadata"]["name"] for one in nodes):
        api.objects.append(agent_pod(name))
        api.faults[proxy(name)] = [says(report(name))]


def test_a_pending_pod_asks_the_nodes_that_have_gpus(api: FakeApi, cluster: Cluster) -> None:
    pending_world(api, node("gpu-1", 8, 8), node("gpu-2", 8, 7))

    found = ask(cluster, "waiting-0")

    assert list(found.nodes) == ["gpu-1", "gpu-2"]
    assert missing(found) == []


def test_of_many_nodes_it_asks_those_that_offer_less_than_they_have(
    api: FakeApi, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "CANDIDATES", 2)
    broken = obj("Node", "gpu-9", ns="", meta={"labels": {"nvidia.com/gpu.present": "true"}}, status={"capacity": {}})
    pending_world(api, node("gpu-1", 8, 8), node("gpu-2", 8, 7), node("gpu-3", 8, 8), broken)

    found = ask(cluster, "waiting-0")

    assert list(found.nodes) == ["gpu-2", "gpu-9"]
    assert [row.reason for row in missing(found)] == [
        "of 4 nodes with GPUs 2 that offer fewer than they have were asked"
    ]


def test_a_pending_pod_without_gpus_asks_nobody(api: FakeApi, cluster: Cluster) -> None:
    pending_world(api, node("gpu-1", 8, 8))
    api.objects[0]["spec"]["containers"][0].pop("resources")

    found = ask(cluster, "waiting-0")

    assert (found.nodes, missing(found)) == ({}, [])


# -- access -----------------------------------------------------------------------------------------------------------


def row_of(cluster: Cluster) -> AccessRow:
    (row,) = (row for row in access(cluster, "serving") if row.resource == "node agents")
    return row


def test_access_tells_of_the_agents(world: FakeApi, cluster: Cluster) -> None:
    row = row_of(cluster)
    assert (row.allowed, row.needed_for) == (
        True,
        "1 of 1 run in the namespace llmdoctor, and the one of gpu-1 answers",
    )
    world.faults[proxy("gpu-1")] = [status(403, "no")]
    assert row_of(cluster).allowed is False
    assert "llmdoctor-agent-reader" in row_of(cluster).needed_for
    world.objects.pop()
    assert "not installed" in row_of(cluster).needed_for
