"""Where a pod would fit if something were different; what ends an attempt; pods to whom a node is promised."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from kubectl_llmdoctor.facts import k8s
from tests.scheduling_scene import HOST, ZONE, Json, node, obj, pod, said, texts, waiting

TAINT = {"key": "dedicated", "value": "llm", "effect": "NoSchedule"}


def fits(verdicts: Any) -> list[str]:
    return [v.node.name for v in verdicts if v.fits]


def test_another_spec() -> None:
    pending = waiting(pod("me", gpus=4, nodeSelector={"gpu": "h100"}), node("a", taints=(TAINT,)), node("b", gpu="h100"),
                      pod("x", "b", gpus=6))  # fmt: skip
    spec = pending.pod.spec
    toleration = k8s.Toleration(key="dedicated", operator="Exists")

    assert fits(pending.verdicts) == []
    assert fits(pending.where(spec=replace(spec, node_selector={}))) == []
    assert fits(pending.where(spec=replace(spec, node_selector={}, tolerations=(toleration,)))) == ["a"]


def test_what_a_changed_spec_asks_for_is_worked_out_from_it() -> None:
    pending = waiting(pod("me", gpus=4), node("a", gpus=2))
    (container,) = pending.pod.spec.containers
    smaller = replace(container, resources=k8s.Resources(limits={"nvidia.com/gpu": 2}))

    assert fits(pending.where(spec=replace(pending.pod.spec, containers=(smaller,)))) == ["a"]


def test_pods_that_would_be_gone() -> None:
    app = {"app": "llama"}
    rule = {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": HOST, "labelSelector": {"matchLabels": app}}]}  # fmt: skip
    others = pod("x", "a", gpus=4), pod("y", "a", gpus=2, labels=app)
    pending = waiting(pod("me", gpus=4, labels=app, affinity={"podAntiAffinity": rule}), node("a"), *others)

    assert fits(pending.where(without={"serving/x"})) == []
    assert fits(pending.where(without={"serving/y"})) == ["a"]
    assert fits(pending.where()) == []


def test_devices_of_pods_that_would_be_gone() -> None:
    results = [{"driver": "d", "pool": "a", "device": "g"}]
    scene = [
        node("a", gpus=0),
        obj("DeviceClass", "c", spec={"selectors": []}),
        obj("ResourceSlice", "s", spec={"driver": "d", "pool": {"name": "a"}, "nodeName": "a", "devices": [{"name": "g"}]}),
        obj("ResourceClaim", "mine", ns="serving",
            spec={"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c"}}]}}),
        obj("ResourceClaim", "theirs", ns="serving", status={"allocation": {"devices": {"results": results}},
            "reservedFor": [{"resource": "pods", "name": "x", "uid": "uid-x"}]}),
    ]  # fmt: skip
    pending = waiting(pod("me", resourceClaims=[{"name": "r", "resourceClaimName": "mine"}]), *scene, pod("x", "a"))

    assert fits(pending.verdicts) == []
    assert fits(pending.where(without={"serving/x"})) == ["a"]
    # one more node like it has devices like these
    a = pending.subject.nodes.all[0]
    assert fits(pending.where(nodes=[a, a.twin("new")])) == ["new"]


def test_nodes_that_would_be_different() -> None:
    tainted = obj("Node", "a", **{k: v for k, v in node("a", taints=(TAINT,)).items() if k not in ("kind", "metadata")})
    tainted["spec"]["unschedulable"] = True
    pending = waiting(pod("me", gpus=8, nodeSelector={ZONE: "a"}), tainted, pod("x", "a"))
    (a,) = pending.subject.nodes

    assert fits(pending.where(nodes=[a.changed(taints=(), cordoned=False)])) == []
    assert fits(pending.where(nodes=[a.changed(taints=(), cordoned=False, labels={ZONE: "a"})])) == ["a"]
    assert fits(pending.verdicts) == []


def test_one_more_node_is_empty_and_fit() -> None:
    full = node("a", zone="a")
    full["spec"] = {"unschedulable": True, "taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]}
    spread = {"maxSkew": 1, "topologyKey": HOST, "whenUnsatisfiable": "DoNotSchedule",
              "labelSelector": {"matchLabels": {"app": "llama"}}}  # fmt: skip
    app = {"app": "llama"}
    pending = waiting(pod("me", gpus=8, labels=app, topologySpreadConstraints=[spread]), full,
                      pod("x", "a", gpus=8, labels=app))  # fmt: skip
    (a,) = pending.subject.nodes
    new = a.twin("new-1")

    assert fits(pending.where(nodes=[a, new])) == ["new-1"]
    assert (new.labels[HOST], new.labels[ZONE], new.like) == ("new-1", "a", "a")


def test_what_was_asked_about_stays_as_it_is() -> None:
    pending = waiting(pod("me", gpus=8), node("a"), pod("x", "a", gpus=8))

    assert fits(pending.where(without={"serving/x"})) == ["a"]
    assert texts(pending) == {"a": "Insufficient nvidia.com/gpu"}
    assert pending.usage.used("a")["nvidia.com/gpu"] == 8


@pytest.mark.parametrize(("priority", "expected"), [(0, []), (5, []), (10, ["a"])])
def test_a_node_that_is_promised_to_a_pod_of_no_less_priority_is_taken(priority: int, expected: list[str]) -> None:
    promised: Json = pod("other", gpus=8, priority=5, status={"nominatedNodeName": "a"})
    pending = waiting(pod("me", gpus=8, priority=priority), node("a"), promised)

    assert fits(pending.verdicts) == expected


def test_a_preference_that_is_invalid_ends_the_attempt_where_nodes_are_weighed() -> None:
    term = {"matchExpressions": [{"key": "x", "operator": "Gt", "values": ["-1"]}]}
    rows = [{"weight": 1, "preference": term}]
    one = pod("me", affinity={"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": rows}})
    why = "NodeAffinity: the preferred affinity x > -1 is invalid, and two nodes are not weighed with it"

    assert texts(waiting(one, node("a"), node("b"))) == {"a": why, "b": why}
    assert texts(waiting(one, node("a"))) == {"a": "fits"}


def test_features_that_a_pod_needs() -> None:
    one = pod("me")
    one["spec"]["containers"][0]["restartPolicyRules"] = [{"action": "RestartAllContainers"}]
    new, old = node("new"), node("old")
    new["status"]["declaredFeatures"] = ["RestartAllContainersOnContainerExits"]
    text, detail = (
        "node(s) didn't match Pod's required features",
        "does not declare RestartAllContainersOnContainerExits",
    )

    assert said(waiting(one, new, old)) == {"new": [], "old": [(text, detail)]}
    assert texts(waiting(one, old)) == {"old": "NodeDeclaredFeatures: no node declares its features"}


def test_nodes_that_exclude_each_other() -> None:
    fields = [{"key": "metadata.name", "operator": "In", "values": [name]} for name in "ab"]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": fields}]}}
    pending = waiting(pod("me", affinity={"nodeAffinity": required}), node("a"), node("b"))

    assert [r.text for r in pending.refused] == ["pod affinity terms conflict"]
    assert set(texts(pending).values()) == {"pod affinity terms conflict"}


def test_a_node_that_affinity_does_not_name_says_nothing_else() -> None:
    fields = [{"key": "metadata.name", "operator": "In", "values": ["a"]}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": fields}]}}
    one = pod("me", gpus=9, affinity={"nodeAffinity": required})
    message = (
        "0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) didn't satisfy plugin(s) [NodeAffinity]."
    )
    one["status"]["conditions"] = [{"type": "PodScheduled", "status": "False", "message": message}]
    pending = waiting(one, node("a"), node("b", taints=(TAINT,)))

    assert texts(pending) == {
        "a": "Insufficient nvidia.com/gpu",
        "b": "node(s) didn't satisfy plugin(s) [NodeAffinity]",
    }
    assert pending.agrees is True
