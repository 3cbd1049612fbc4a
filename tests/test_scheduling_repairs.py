"""What is offered for a Pending pod places it: each first fix, applied to the pod, leaves a node that takes it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from llmdoctor_checks.scheduling._repairs import one_more, ways
from llmdoctor_checks.scheduling._separation import causes
from llmdoctor_checks.scheduling.pod_spread_unsatisfied import pod_spread_unsatisfied

from kubectl_llmdoctor.api import Finding
from kubectl_llmdoctor.facts.scheduling.pending import Pending
from kubectl_llmdoctor.platforms import pointer
from kubectl_llmdoctor.report.document import Fix
from kubectl_llmdoctor.testing import diagnose_case, load_case
from tests.scheduling_scene import HOST, LISTS, ZONE, Json, node, obj, pod, waiting

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
TAINT = {"key": "dedicated", "value": "llm", "effect": "NoSchedule"}
APP = {"app": "llama"}
OWNED = {
    "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "me", "uid": "d", "controller": True}]
}


def _terms(*expressions: Json) -> Json:
    return {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [*expressions]}]}}}


def _apart(kind: str) -> Json:
    return {kind: {REQUIRED: [{"topologyKey": HOST, "labelSelector": {"matchLabels": APP}}]}}


def _scene(spec: Json, *objects: Json, read: tuple[str, ...] = LISTS, **more: Any) -> Pending:
    """The pod of a Deployment, which is what a person edits."""
    me = pod("me", meta=OWNED, **more, **spec)
    body = copy.deepcopy(me["spec"])
    template = {"metadata": {"labels": me["metadata"]["labels"]}, "spec": body}
    above = obj("Deployment", "me", ns="serving", meta={"uid": "d"}, spec={"replicas": 1, "template": template})
    return waiting(me, above | {"apiVersion": "apps/v1"}, *objects, read=read)


def _request(cpu: str, **more: Any) -> Json:
    return {"name": "c", "image": "x", "resources": {"requests": {"cpu": cpu}}, **more}


CASES: dict[str, tuple[Pending, str]] = {
    "toleration": (
        _scene({}, node("a", taints=(TAINT,)), gpus=1),
        "Tolerate dedicated=llm:NoSchedule, if it may run there; then it fits on a",
    ),
    "the nearest label value": (
        _scene({"nodeSelector": {"gpu": "h200"}}, node("a", gpu="h100"), gpus=1),
        "Select gpu=h100 instead of h200, which no suitable node has; then it fits on a",
    ),
    "a label that no node has": (
        _scene({"nodeSelector": {"gpu": "h200"}}, node("a"), gpus=1),
        "Drop gpu=h200 from the node selector; then it fits on a",
    ),
    "affinity, another value": (
        _scene({"affinity": _terms({"key": "gpu", "operator": "In", "values": ["h200"]})}, node("a", gpu="h100"), gpus=1),
        "Let the node affinity demand gpu in [h100], which suitable nodes meet; then it fits on a",
    ),
    "affinity, a number": (
        _scene({"affinity": _terms({"key": "mem", "operator": "Gt", "values": ["80"]})}, node("a", mem="80"), gpus=1),
        "Let the node affinity demand mem > 79, which suitable nodes meet; then it fits on a",
    ),
    "affinity, the only demand": (
        _scene({"affinity": _terms({"key": "fast", "operator": "Exists"})}, node("a"), gpus=1),
        "Drop the required node affinity; then it fits on a",
    ),
    "fewer GPUs than the node has": (
        _scene({}, node("a", gpus=4), pod("x", "a", gpus=2), gpus=8),
        "Ask for 2 nvidia.com/gpu in c instead of 8 (and as many workers in what it runs); then it fits on a",
    ),
    "less CPU": (
        _scene({"containers": [_request("80")]}, node("a"), pod("x", "a", containers=[_request("10500m")])),
        "Ask for 53 cpu in c instead of 80; then it fits on a",
    ),
    "two things at once": (
        _scene({"nodeSelector": {"gpu": "h200"}}, node("a", taints=(TAINT,)), gpus=1),
        "Tolerate dedicated=llm:NoSchedule, if it may run there, and drop gpu=h200 from the node selector; "
        "then it fits on a",
    ),
    "host port": (
        _scene(
            {"containers": [_request("1", ports=[{"containerPort": 80, "hostPort": 8080}])]},
            node("a"),
            pod("x", "a", containers=[_request("1", ports=[{"containerPort": 80, "hostPort": 8080}])]),
        ),
        "Drop hostPort 8080; a Service reaches the pod without it; then it fits on a",
    ),
    "spread": (
        _scene(
            {"topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule", "minDomains": 3,
                 "labelSelector": {"matchLabels": APP}}]},
            node("a", zone="a"), pod("x", "a", labels=APP), labels=APP, gpus=1,
        ),
        "Set whenUnsatisfiable: ScheduleAnyway in the topology spread; then it fits on a",
    ),
    "anti-affinity": (
        _scene({"affinity": _apart("podAntiAffinity")}, node("a"), pod("x", "a", labels=APP), labels=APP, gpus=1),
        "Make the pod anti-affinity a preference; then it fits on a",
    ),
    "affinity to a pod that is not there": (
        _scene({"affinity": _apart("podAffinity")}, node("a"), gpus=1),
        "Make the pod affinity a preference, or start the pod that it names first; then it fits on a",
    ),
}  # fmt: skip


def _first(pending: Pending) -> Fix:
    return ways(pending, causes(pending)[0])[0]


@pytest.mark.parametrize("name", CASES)
def test_the_first_fix_places_the_pod(name: str) -> None:
    pending, words = CASES[name]
    fix = _first(pending)

    assert fix.summary == words
    assert fix.patch is not None
    changed = pending.subject.workload.raw if pending.subject.workload else {}
    for operation in fix.patch.body:
        changed = pointer.changed(changed, operation)
    again = dict(pending.pod.item.raw if pending.pod.item else {}, spec=changed["spec"]["template"]["spec"])
    others = [o for o in pending.pod.cluster.snapshot.objects if o["metadata"]["name"] != "me"]
    assert [v.node.name for v in waiting(again, *others).verdicts if v.fits] == ["a"]


@pytest.mark.parametrize(
    ("holder", "words", "commands"),
    [
        (
            pod("x", "a", gpus=8),
            "Free 1 GPU on a: stop or scale down serving/x, if it can be spared; then it fits on a",
            ("kubectl -n serving delete pod x",),
        ),
        (
            pod("x", "a", gpus=8, meta={"deletionTimestamp": "2026-11-20T11:00:00Z"}),
            "Wait for serving/x, which is being deleted; then it fits on a",
            (),
        ),
        (
            pod(
                "x",
                "a",
                gpus=8,
                meta={"ownerReferences": [{"kind": "Job", "name": "j", "uid": "j", "controller": True}]},
            ),
            "Free 1 GPU on a: stop or scale down serving/x, if it can be spared; then it fits on a",
            ("kubectl get pods -A -o wide --field-selector spec.nodeName=a",),
        ),
    ],
    ids=["bare", "terminating", "owned"],
)
def test_gpus_that_others_have(holder: Json, words: str, commands: tuple[str, ...]) -> None:
    fix = _first(_scene({}, node("a"), holder, gpus=1))

    assert (fix.summary, fix.commands, fix.owner) == (words, commands, "platform")


def test_a_pod_that_comes_back_by_itself_is_not_to_be_stopped() -> None:
    owner = {"kind": "DaemonSet", "name": "d", "uid": "d", "controller": True}
    pending = _scene({}, node("a"), pod("x", "a", gpus=8, meta={"ownerReferences": [owner]}), gpus=1)

    assert ways(pending, causes(pending)[0]) == []


def test_a_pod_of_higher_priority_that_waits_too_comes_first() -> None:
    first = pod("first", gpus=8, priority=1000)
    pending = _scene({"priority": 0}, node("a"), pod("x", "a", gpus=8), first, gpus=8)

    assert ways(pending, causes(pending)[0]) == []
    assert _first(_scene({"priority": 1000}, node("a"), pod("x", "a", gpus=8), first, gpus=8)).summary.endswith("on a")


def test_what_a_finalizer_keeps_is_not_waited_for() -> None:
    meta = {"deletionTimestamp": "2026-11-20T10:00:20Z", "finalizers": ["example.com/keep"]}
    pending = _scene({}, node("a"), pod("x", "a", gpus=8, meta=meta), gpus=1)

    assert ways(pending, causes(pending)[0]) == []


def test_what_would_not_suffice_is_not_offered() -> None:
    """The taint is the cause, and the only other node that could take it is full: tolerating alone places nothing."""
    pending = _scene({}, node("a", gpus=4, taints=(TAINT,)), gpus=8)

    assert all(
        "Tolerate dedicated=llm:NoSchedule, if it may run there;" not in f.summary
        for c in causes(pending)
        for f in ways(pending, c)
    )
    assert "ask for 4" in " ".join(f.summary.lower() for c in causes(pending) for f in ways(pending, c))


@pytest.mark.parametrize(
    ("others", "first"),
    [
        ("12", "Ask for 52 cpu in c instead of 60; then it fits on a"),
        ("61500m", "Free 57.5 of cpu on a: stop or scale down serving/x"),
    ],
)
def test_a_request_is_not_lowered_to_the_little_that_is_left(others: str, first: str) -> None:
    pending = _scene({"containers": [_request("60")]}, node("a"), pod("x", "a", containers=[_request(others)]))
    offered = [fix.summary for fix in ways(pending, causes(pending)[0])]

    assert offered[0].startswith(first)
    assert any(text.startswith("Ask for 2500m cpu in c instead of 60, if it needs no more") for text in offered) == (
        others == "61500m"
    )


def test_nothing_is_offered_that_ends_the_attempt_with_an_error() -> None:
    """Tolerated, the taint no longer keeps it from a node at which the scheduler gives the whole pod up."""
    request = {"name": "all", "exactly": {"deviceClassName": "gpus", "allocationMode": "All"}}
    claim = obj("ResourceClaim", "mine", ns="serving", spec={"devices": {"requests": [request]}})
    pool = {"name": "a", "generation": 1, "resourceSliceCount": 2}
    half = {"driver": "gpus", "pool": pool, "nodeName": "a", "devices": [{"name": "g"}]}
    asks = {"resourceClaims": [{"name": "gpus", "resourceClaimName": "mine"}]}
    nodes = node("a", taints=(TAINT,)), node("b", taints=(TAINT,))
    pending = _scene(asks, *nodes, claim, obj("ResourceSlice", "s", spec=half), obj("DeviceClass", "gpus", spec={}))

    offered = [fix.summary for cause in causes(pending) for fix in ways(pending, cause)]
    assert not any(text.startswith("Tolerate") for text in offered)


def test_without_all_pods_nothing_is_promised() -> None:
    pending = _scene({}, node("a", taints=(TAINT,)), gpus=1, read=("Node",))

    assert _first(pending).summary == "Tolerate dedicated=llm:NoSchedule, if it may run there"


def test_one_more_node_is_offered_where_it_would_do() -> None:
    busy = _scene({}, node("a"), pod("x", "a", gpus=8), gpus=8)
    apart = _scene({"nodeSelector": {HOST: "a"}}, node("a"), pod("x", "a", gpus=8), gpus=8)

    assert [fix.summary for fix in one_more(busy, causes(busy)[0])] == ["Add a node like a; then it fits there"]
    assert one_more(apart, causes(apart)[0]) == []


@pytest.mark.parametrize(("own", "offered"), [("2", ["Ask for 3 cpu instead of 4 for the whole pod"]), ("4", [])])
def test_the_whole_pod_never_asks_for_less_than_its_containers(own: str, offered: list[str]) -> None:
    """The API server refuses `resources.requests` of a pod below what its containers ask for together."""
    snapshot = Path(__file__).parents[1] / "checks" / "cases" / "cpu-memory-insufficient" / "fires_whole_pod.yaml"
    tree = yaml.safe_load(snapshot.read_text(encoding="utf-8"))
    waits, *others = tree["objects"]
    waits["spec"]["containers"][0]["resources"]["requests"]["cpu"] = own
    pending = waiting(waits, *others)

    assert [fix.summary.partition(";")[0] for fix in ways(pending, causes(pending)[0])] == offered


def _rollout(*others: Json, strategy: Json | None = None) -> list[str]:
    """What is offered for the pod that a rollout adds on two nodes, each with an old pod that wants to be alone."""
    apart: dict[str, Any] = {"affinity": _apart("podAntiAffinity")}
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "controller": True}

    def of(revision: str, name: str, on: str = "") -> Json:
        meta = {"ownerReferences": [owner | {"name": f"llama-{revision}", "uid": revision}]}
        return pod(name, on, labels=APP | {"pod-template-hash": revision}, meta=meta, **apart)

    above = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "llama", "uid": "d", "controller": True}
    sets = [
        obj("ReplicaSet", f"llama-{r}", ns="serving", meta={"uid": r, "ownerReferences": [above]}, apiVersion="apps/v1")
        for r in ("old", "new")
    ]
    spec = {"replicas": 2, "strategy": strategy or {}}
    deployment = obj("Deployment", "llama", ns="serving", meta={"uid": "d"}, spec=spec, apiVersion="apps/v1")
    olds = [of("old", "old-a", "a"), *(others or (of("old", "old-b", "b"),))]
    pending = waiting(of("new", "me"), node("a"), node("b"), *olds, *sets, deployment)
    (finding,) = pod_spread_unsatisfied(pending)
    assert isinstance(finding, Finding)
    return [fix.summary for fix in finding.fixes]


def test_a_rollout_that_waits_for_its_old_pods_lets_one_go_first() -> None:
    first, *rest = _rollout()
    assert first == "Let the old pod go first: maxSurge 0, maxUnavailable 1 in Deployment/llama; then it fits on a"
    assert any("a preference" in text for text in rest)
    assert not any("stop or scale down" in text for text in rest)


def test_a_rollout_waits_for_more_than_its_old_pods() -> None:
    stranger = pod("stranger", "b", labels=APP)
    assert not any("go first" in text for text in _rollout(stranger))
    assert not any("go first" in text for text in _rollout(strategy={"rollingUpdate": {"maxSurge": 0}}))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fires_update_adds_first", "Let the old pod go first: maxSurge 0, maxUnavailable 1 in Deployment/llama"),
        ("fires_one_replica_too_many", "Take hostNetwork out of Deployment/llama"),
    ],
)
def test_the_workload_that_waits_is_not_stopped_for_its_own_port(name: str, said: str) -> None:
    path = Path(__file__).parent.parent / "checks" / "cases" / "host-port-conflict" / f"{name}.yaml"
    (target,) = diagnose_case(load_case(path)).targets
    (fix,) = next(f.fixes for f in target.findings if f.id == "host-port-conflict")
    assert fix.summary.startswith(said)
    assert not any("--replicas=0" in command for command in fix.commands)
