"""What is said of an address that a pod asks in vain, and when nothing is."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.reach import reach
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


def _said(address: str, *objects: dict[str, Any], asker: dict[str, Any] | None = None) -> str:
    read = (ReadList(kind="Service", namespace=""), ReadList(kind="Pod", namespace="serving"))
    asking = asker or _pod("asker")
    cluster = Cluster(Snapshot(taken_at="2026-11-20T10:00:00Z", objects=(asking, *objects), read=read))
    item = cluster.item("Pod", "serving", "asker")
    assert item is not None
    fix = reach(address, Pod.of(item, cluster))
    return fix.summary if fix else ""


@pytest.mark.parametrize(
    ("address", "objects", "says"),
    [
        ("http://etcd:2379", (), "Start what should answer at etcd:2379"),
        ("etcd-main:2379", (_service("etcd-mein", 2379),), "Ask etcd-mein in place of etcd-main"),
        ("etcd:2379", (_service("etcd", 2380), _pod("etcd")), "at port 2380"),
        ("etcd:2379", (_service("etcd", 2379),), "none has app=etcd"),
        ("etcd:2379", (_service("etcd", 2379), _pod("etcd", ready=False)), "Mend etcd first (Running, not ready)"),
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
