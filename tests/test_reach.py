"""What is said of an address that a pod asks in vain, and when nothing is."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.destinations import engines_in
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.reach import other_side, reach
from kubectl_llmdoctor.report.document import Fix
from kubectl_llmdoctor.snapshot import ReadList, Snapshot


def _pod(name: str, ready: bool = True, **spec: Any) -> dict[str, Any]:
    status: dict[str, Any] = {"name": "main", "ready": ready, "restartCount": 0}
    status["state"] = {"running": {"startedAt": "2026-11-20T09:00:00Z"}}
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "serving", "labels": {"app": name}},
        "spec": {"nodeName": "n", "containers": [{"name": "main", "image": "x"}], **spec},
        "status": {
            "phase": "Running",
            "conditions": conditions,
            "containerStatuses": [status],
            "podIP": f"10.0.0.{len(name)}",
        },
    }


def _service(name: str, port: int = 80, **spec: Any) -> dict[str, Any]:
    own = {"clusterIP": "10.96.0.1", "selector": {"app": name}, "ports": [{"port": port}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "serving"}, "spec": own}


def _in(namespace: str, item: dict[str, Any]) -> dict[str, Any]:
    return {**item, "metadata": {**item["metadata"], "namespace": namespace}}


def _with(variables: dict[str, str]) -> dict[str, Any]:
    return {"name": "main", "image": "x", "env": [{"name": name, "value": value} for name, value in variables.items()]}


def _said(address: str, *objects: dict[str, Any], asker: dict[str, Any] | None = None) -> str:
    fix = _fix(address, asker or _pod("asker"), *objects)
    return fix.summary if fix else ""


def _fix(address: str, asking: dict[str, Any], *objects: dict[str, Any]) -> Fix | None:
    read = (ReadList(kind="Service", namespace=""), ReadList(kind="Pod", namespace="serving"))
    cluster = Cluster(Snapshot(taken_at="2026-11-20T10:00:00Z", objects=(asking, *objects), read=read))
    item = cluster.item("Pod", "serving", "asker")
    assert item is not None
    pod = Pod.of(item, cluster)
    return reach(address, pod, pod.containers[0])


@pytest.mark.parametrize(
    ("address", "objects", "says"),
    [
        ("http://etcd:2379", (), "Start what should answer at etcd:2379"),
        ("etcd-main:2379", (_service("etcd-mein", 2379),), "Ask etcd-mein in place of etcd-main"),
        ("etcd:2379", (_service("etcd", 2380), _pod("etcd")), "at port 2380"),
        ("etcd:2379", (_service("etcd", 2379),), "none has app=etcd"),
        ("etcd:2379", (_service("etcd", 2379), _pod("etcd", ready=False)), "Fix etcd first (Running, not ready)"),
        (
            "tcp://llm-0.llm:29500",
            (_service("llm", clusterIP="None"), _pod("llm-0", False, subdomain="llm")),
            "publish llm-0",
        ),
    ],
)
def test_what_the_objects_say_against_it(address: str, objects: tuple[dict[str, Any], ...], says: str) -> None:
    assert says in _said(address, *objects)


@pytest.mark.parametrize(
    ("address", "objects"),
    [
        ("etcd:2379", (_service("etcd", 2379), _pod("etcd"))),
        ("etcd:2379", (_service("etcd", 2379, selector={}),)),
        ("etcd.example.com:2379", ()),
        ("localhost:2379", ()),
        ("203.0.113.9:2379", ()),
        ("asker:29500", ()),
        # while the ranks wait for each other none is ready
        (
            "llm-0.llm:29500",
            (_service("llm", clusterIP="None", publishNotReadyAddresses=True), _pod("llm-0", False, subdomain="llm")),
        ),
        ("", ()),
    ],
)
def test_nothing_is_said_of_what_may_answer(address: str, objects: tuple[dict[str, Any], ...]) -> None:
    assert not _said(address, *objects)


def test_a_name_that_the_pod_or_its_node_knows_is_not_missed() -> None:
    aliases = [{"ip": "10.1.1.1", "hostnames": ["etcd"]}]
    assert not _said("etcd:2379", asker=_pod("asker", hostAliases=aliases))
    assert not _said("etcd:2379", asker=_pod("asker", hostNetwork=True))


@pytest.mark.parametrize(
    ("address", "objects"),
    [
        # of another namespace is neither the pod nor the Service of that name here
        ("llm-0.llm.batch.svc:29500", (_pod("llm-0", False, subdomain="llm", nodeName=""),)),
        ("http://[fd00:10:96::a]:8000/v1", ()),
        ("fd00:10:96::a", ()),
        ("tcp://[::1]:29500", ()),
    ],
)
def test_an_address_leads_to_what_it_says(address: str, objects: tuple[dict[str, Any], ...]) -> None:
    assert not _said(address, *objects)


@pytest.mark.parametrize(
    ("address", "objects", "says"),
    [
        ("llama-8b:80", (_service("llama-70b"),), "Start what should answer"),  # another model
        ("chat-b:80", (_service("chat-a"),), "Start what should answer"),
        ("etcd-main:2379", (_service("etcd-mein", 80),), "Start what should answer"),
        ("etcd-main.serving.svc:2379", (_service("etcd-mein", 2379),), "Ask etcd-mein.serving.svc in place of"),
        ("etcd:2379", (_in("infra", _service("etcd", 2379)),), "Ask etcd.infra.svc in place of etcd"),
        ("etcd:2379", (_in("infra", _service("etcd", 80)),), "Start what should answer"),
        ("etcd.serving.svc:2379", (_in("test", _service("etcd", 2379)),), "Start what should answer"),
    ],
)
def test_what_is_meant_by_a_name_that_is_not_there(
    address: str, objects: tuple[dict[str, Any], ...], says: str
) -> None:
    assert says in _said(address, *objects)


@pytest.mark.parametrize(
    ("variables", "becomes"),
    [
        ({"BACKEND": "redis", "URL": "redis://redis:6379/redis"}, "redis://redis.infra.svc:6379/redis"),
        ({"CACHE_HOST": "redis"}, "redis.infra.svc"),
        ({"BACKEND": "redis"}, None),
    ],
)
def test_only_the_address_is_changed(variables: dict[str, str], becomes: str | None) -> None:
    asker = _pod("asker", containers=[_with(variables)])
    fix = _fix("redis:6379", asker, _in("infra", _service("redis", 6379)))
    assert fix is not None
    assert (becomes or "in Pod/asker") in fix.summary
    assert "svc" not in fix.summary.replace("Ask redis.infra.svc", "") or becomes


def test_a_pod_that_fell_and_stands_again_since_is_not_to_blame() -> None:
    peer = _pod("llm-0", subdomain="llm")
    asker = _pod("asker", ready=False)
    for one, ended in ((peer, "2026-11-20T09:30:00Z"), (asker, "2026-11-20T09:20:00Z")):
        status = one["status"]["containerStatuses"][0]
        status["lastState"] = {"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": ended}}
        status["restartCount"] = 1
    assert not _said("llm-0.llm:29500", peer, asker=asker)
    peer["status"]["containerStatuses"][0]["lastState"]["terminated"]["finishedAt"] = "2026-11-20T09:19:00Z"
    assert "Fix llm-0 first" in _said("llm-0.llm:29500", peer, asker=asker)


def test_an_address_that_a_later_pod_has_is_not_its_fault() -> None:
    late, asker = _pod("latest", ready=False, nodeName=""), _pod("asker", ready=False)
    late["status"]["containerStatuses"][0]["state"] = {"waiting": {"reason": "CrashLoopBackOff"}}
    asker["status"]["containerStatuses"][0] |= {
        "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": "2026-11-20T09:20:00Z"}},
        "restartCount": 1,
    }
    late["metadata"]["creationTimestamp"] = "2026-11-20T09:10:00Z"
    assert "Fix latest first" in _said("10.0.0.6:29500", late, asker=asker)
    late["metadata"]["creationTimestamp"] = "2026-11-20T09:40:00Z"
    assert not _said("10.0.0.6:29500", late, asker=asker)


def test_no_service_without_a_name_is_created() -> None:
    owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "llm", "uid": "u", "controller": True}
    asker = _pod("asker")
    asker["metadata"]["ownerReferences"] = [owner]
    made = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "llm", "namespace": "serving", "uid": "u"},
    }
    made["spec"] = {"selector": {"matchLabels": {"app": "llm"}}, "template": {"spec": {"containers": []}}}
    assert "headless Service  " not in _said("llm-0:29500", made, asker=asker)
    assert "headless Service llm " in _said("llm-0.llm:29500", made, asker=asker)
    assert not _said("llm-0.llm.batch.svc.cluster.local:29500", made, asker=asker)


@pytest.mark.parametrize("word", ["auto", "local", "null", "none", "true"])
def test_a_word_for_no_address_is_none(word: str) -> None:
    assert not _said(word)


@pytest.mark.parametrize("published", [True, False])
def test_a_service_of_the_askers_own_group_blames_nobody(published: bool) -> None:
    spec = {"clusterIP": "None", "publishNotReadyAddresses": published, "selector": {"app": "llm"}}
    asker, peer = _pod("asker", ready=False), _pod("z-peer", ready=False)
    for one in (asker, peer):
        one["metadata"]["labels"] = {"app": "llm"}
        one["status"]["containerStatuses"][0]["state"] = {"waiting": {"reason": "CrashLoopBackOff"}}
    assert not _said("llm:29500", _service("llm", 29500, **spec), peer, asker=asker)


def test_an_older_replica_set_is_not_started() -> None:
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "etcd", "uid": "u", "controller": True}
    template = {"metadata": {"labels": {"app": "etcd"}}, "spec": {"containers": []}}
    older = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "spec": {"replicas": 0, "template": template}}
    older["metadata"] = {"name": "etcd-5d9", "namespace": "serving", "ownerReferences": [owner]}
    assert "none has app=etcd" in _said("etcd:2379", _service("etcd", 2379), older)


def _side(name: str, side: str, model: str, *more: str) -> dict[str, Any]:
    config = f'{{"kv_connector": "NixlConnector", "kv_role": "kv_{side}"}}'
    args = [f"--model={model}", f"--kv-transfer-config={config}", *more]
    image = "vllm/vllm-openai:v0.11.0"
    return _pod(name, containers=[{"name": "main", "image": image, "args": args}])


def test_the_other_side_of_another_model_is_not_compared() -> None:
    mine = _side("asker", "producer", "/models/small")
    others = (_side("a-decode", "consumer", "/models/large"), _side("prefill", "producer", "/models/large"))
    own = _side("decode", "consumer", "/models/small", "--block-size=64")

    def said(*objects: dict[str, Any]) -> str:
        cluster = Cluster(Snapshot(taken_at="2026-11-20T10:00:00Z", objects=(mine, *objects)))
        item = cluster.item("Pod", "serving", "asker")
        assert item is not None
        fix = other_side(engines_in(Pod.of(item, cluster))[0])
        return fix.summary if fix else ""

    assert not said(*others)
    assert "--block-size here to 64" in said(*others, own)
