"""PodTopologySpread and InterPodAffinity, case by case."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scheduling_scene import HOST, LISTS, ZONE, Json, node, obj, pod, said, texts, waiting

APP = {"matchLabels": {"app": "llama"}}
LABELS = {"app": "llama", "version": "v2"}
UNEVEN = "node(s) didn't match pod topology spread constraints"
UNLABELLED = f"{UNEVEN} (missing required label)"
NOT_BESIDE = "node(s) didn't match pod affinity rules"
APART = "node(s) didn't match pod anti-affinity rules"
HELD_OFF = "node(s) didn't satisfy existing pods anti-affinity rules"
NODES = node("a1", zone="a"), node("a2", zone="a"), node("b1", zone="b"), node("c1")


def running(*nodes: str, **more: Any) -> list[Json]:
    return [pod(f"llama-{n}", on, labels=LABELS, **more) for n, on in enumerate(nodes)]


# --- spread -----------------------------------------------------------------------------------------------------------


def spreading(**more: Any) -> Json:
    row = {"maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": APP} | more
    spec = {key: more.pop(key) for key in ("nodeSelector", "tolerations") if key in more}
    row = {key: value for key, value in row.items() if key not in spec}
    return pod("me", labels=LABELS, topologySpreadConstraints=[row], **spec)


@pytest.mark.parametrize(
    ("case", "others", "expected"),
    [
        ({}, running("a1"), {"a1": UNEVEN, "a2": UNEVEN, "b1": "fits", "c1": UNLABELLED}),
        ({}, running("a1", "b1"), {"a1": "fits", "a2": "fits", "b1": "fits", "c1": UNLABELLED}),
        # terminating pods, other namespaces, pods that have ended and other labels do not count
        ({}, running("a1", meta={"deletionTimestamp": "2026-11-20T09:00:00Z"}), {"a1": "fits"}),
        ({}, running("a1", ns="other"), {"a1": "fits"}),
        ({}, running("a1", status={"phase": "Succeeded"}), {"a1": "fits"}),
        ({}, [pod("x", "a1", labels={"app": "other"})], {"a1": "fits"}),
        ({"maxSkew": 2}, running("a1"), {"a1": "fits", "b1": "fits"}),
        # without minDomains the least of the domains that are there counts, with too few of them none
        ({"minDomains": 2}, running("a1", "b1"), {"a1": "fits", "b1": "fits"}),
        ({"minDomains": 3}, running("a1", "b1"), {"a1": UNEVEN, "b1": UNEVEN}),
        # the pod's own labels: one that the selector does not mean adds nothing
        ({"labelSelector": {"matchLabels": {"app": "other"}}}, [pod("x", "a1", labels={"app": "other"})],
         {"a1": "fits", "b1": "fits"}),
        ({"labelSelector": {}}, running("a1", "a2"), {"a1": "fits", "b1": "fits"}),
        ({"matchLabelKeys": ["version"]}, [pod("old", "a1", labels={"app": "llama", "version": "v1"})],
         {"a1": "fits", "b1": "fits"}),
        ({"matchLabelKeys": ["version"]}, running("a1"), {"a1": UNEVEN, "b1": "fits"}),
        # nodes that the pod's selector leaves out are no domain, unless the policy says so
        ({"nodeSelector": {ZONE: "a"}}, running("a1"), {"a1": "fits"}),
        ({"nodeSelector": {ZONE: "a"}, "nodeAffinityPolicy": "Ignore"}, running("a1"), {"a1": UNEVEN}),
        ({"whenUnsatisfiable": "ScheduleAnyway"}, running("a1"), {"a1": "fits", "c1": "fits"}),
    ],
)  # fmt: skip
def test_spread(case: Json, others: list[Json], expected: dict[str, str]) -> None:
    found = texts(waiting(spreading(**case), *NODES, *others))

    assert {name: found[name] for name in expected} == expected


def test_spread_over_nodes_that_are_tainted() -> None:
    taint = {"key": "dedicated", "value": "x", "effect": "NoSchedule"}
    nodes = node("a1", zone="a"), node("b1", zone="b", taints=(taint,))

    ignored = texts(waiting(spreading(), *nodes, *running("a1")))
    honored = texts(waiting(spreading(nodeTaintsPolicy="Honor"), *nodes, *running("a1")))

    assert (ignored["a1"], honored["a1"]) == (UNEVEN, "fits")


def test_a_spread_says_the_numbers_and_the_pods() -> None:
    pending = waiting(spreading(minDomains=3), *NODES, *running("a1", "b1"))

    (verdict,) = [v for v in pending.verdicts if v.node.name == "a1"]

    assert verdict.reasons[0].detail == (
        f"{ZONE}=a has 1 such pod, 2 of 3 domains (minDomains) are there, so the least counts as 0 (maxSkew 1)"
    )
    assert verdict.reasons[0].pods == ("serving/llama-0",)
    assert said(pending)["c1"] == [(UNLABELLED, f"no label {ZONE}")]


def test_a_spread_over_nodes_or_pods_that_were_not_all_read_is_not_judged() -> None:
    for read in (("Node",), ("Pod",)):
        found = texts(waiting(spreading(), *NODES[:2], *running("a1"), read=read))

        assert found == dict.fromkeys(("a1", "a2"), "PodTopologySpread: not all nodes and pods were read")


@settings(max_examples=60)
@given(st.lists(st.sampled_from(["a1", "a2", "b1"]), max_size=8), st.integers(1, 3))
def test_a_spread_is_the_difference_to_the_emptiest_domain(places: list[str], skew: int) -> None:
    found = texts(waiting(spreading(maxSkew=skew), *NODES[:3], *running(*places)))
    counts = {"a": sum(p[0] == "a" for p in places), "b": sum(p[0] == "b" for p in places)}

    for name in ("a1", "a2", "b1"):
        fits = counts[name[0]] + 1 - min(counts.values()) <= skew
        assert found[name] == ("fits" if fits else UNEVEN)


# --- affinity ---------------------------------------------------------------------------------------------------------


def terms(*rows: Json) -> Json:
    return {"requiredDuringSchedulingIgnoredDuringExecution": list(rows)}


def term(key: str = ZONE, **more: Any) -> Json:
    return {"topologyKey": key, "labelSelector": APP} | more


def near(*rows: Json, labels: Json | None = None) -> Json:
    return pod("me", labels=LABELS if labels is None else labels, affinity={"podAffinity": terms(*rows)})


def apart(*rows: Json, labels: Json | None = None) -> Json:
    return pod("me", labels=LABELS if labels is None else labels, affinity={"podAntiAffinity": terms(*rows)})


TEAMS = obj("Namespace", "serving", labels={"team": "x"}), obj("Namespace", "other", labels={"team": "y"})
DELETED = {"deletionTimestamp": "2026-11-20T09:00:00Z"}


@pytest.mark.parametrize(
    ("one", "others", "expected"),
    [
        (near(term()), running("a1"), {"a1": "fits", "a2": "fits", "b1": NOT_BESIDE, "c1": NOT_BESIDE}),
        # pods that are being deleted still count
        (near(term()), running("a1", meta=DELETED), {"a2": "fits", "b1": NOT_BESIDE}),
        # the first of its kind goes anywhere where the label is, a stranger nowhere
        (near(term()), [], {"a1": "fits", "b1": "fits", "c1": NOT_BESIDE}),
        (near(term(), labels={"app": "router"}), [], {"a1": NOT_BESIDE, "b1": NOT_BESIDE}),
        # one pod must match all terms
        (near(term(), term(HOST, labelSelector={"matchLabels": {"version": "v1"}})), running("a1"),
         {"a1": NOT_BESIDE}),
        (near(term(), term(HOST, labelSelector={"matchLabels": {"version": "v2"}})), running("a1"),
         {"a1": "fits", "a2": NOT_BESIDE}),
        # namespaces: its own, those named, those with labels, all
        (near(term()), running("a1", ns="other"), {"a2": "fits", "b1": "fits"}),
        (near(term(namespaces=["other"]), labels={}), running("a1", ns="other"), {"a2": "fits", "b1": NOT_BESIDE}),
        (near(term(namespaceSelector={"matchLabels": {"team": "y"}}), labels={}), running("a1", ns="other"),
         {"a2": "fits", "b1": NOT_BESIDE}),
        (near(term(namespaceSelector={"matchLabels": {"team": "x"}}), labels={}), running("a1", ns="other"),
         {"a2": NOT_BESIDE}),
        (near(term(namespaceSelector={}), labels={}), running("a1", ns="other"), {"a2": "fits", "b1": NOT_BESIDE}),
        # keys of the pod's own labels
        (near(term(matchLabelKeys=["version"])), [pod("old", "a1", labels={"app": "llama", "version": "v1"})],
         {"a1": "fits", "b1": "fits"}),
        (apart(term(HOST)), running("a1"), {"a1": APART, "a2": "fits", "c1": "fits"}),
        (apart(term()), running("a1"), {"a1": APART, "a2": APART, "b1": "fits", "c1": "fits"}),
        (apart(term(HOST, mismatchLabelKeys=["version"])), running("a1"), {"a1": "fits"}),
        (apart(term(HOST, matchLabelKeys=["version"])), running("a1"), {"a1": APART}),
        # any term will do
        (apart(term(HOST, labelSelector={"matchLabels": {"app": "x"}}), term(HOST)), running("a1"), {"a1": APART}),
    ],
)  # fmt: skip
def test_affinity(one: Json, others: list[Json], expected: dict[str, str]) -> None:
    found = texts(waiting(one, *NODES, *TEAMS, *others))

    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("row", "ns", "expected"),
    [
        (term(HOST), "serving", {"a1": HELD_OFF, "a2": "fits"}),
        (term(), "serving", {"a1": HELD_OFF, "a2": HELD_OFF, "b1": "fits"}),
        (term(HOST), "other", {"a1": "fits"}),
        (term(HOST, namespaces=["serving"]), "other", {"a1": HELD_OFF}),
        (term(HOST, namespaceSelector={"matchLabels": {"team": "x"}}), "other", {"a1": HELD_OFF}),
        (term(HOST, namespaceSelector={"matchLabels": {"team": "y"}}), "other", {"a1": "fits"}),
        (term(HOST, labelSelector={"matchLabels": {"app": "x"}}), "serving", {"a1": "fits"}),
    ],
)
def test_what_running_pods_hold_off(row: Json, ns: str, expected: dict[str, str]) -> None:
    holder = pod("holder", "a1", ns=ns, affinity={"podAntiAffinity": terms(row)})
    found = texts(waiting(pod("me", labels=LABELS), *NODES, *TEAMS, holder))

    assert {name: found[name] for name in expected} == expected


def test_a_selector_of_namespaces_that_no_labels_meet_means_all_of_them_in_its_own_terms() -> None:
    without = {"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}
    mine = waiting(apart(term(HOST, namespaceSelector=without)), *NODES, *TEAMS, *running("a1", ns="other"))
    holder = pod("h", "a1", ns="other", affinity={"podAntiAffinity": terms(term(HOST, namespaceSelector=without))})
    theirs = waiting(pod("me", labels=LABELS), *NODES, *TEAMS, holder)

    assert (texts(mine)["a1"], texts(theirs)["a1"]) == (APART, "fits")


def test_namespaces_whose_labels_were_not_read() -> None:
    read = tuple(kind for kind in LISTS if kind != "Namespace")
    by_team = term(HOST, namespaceSelector={"matchLabels": {"team": "y"}})
    by_name = term(HOST, namespaceSelector={"matchLabels": {"kubernetes.io/metadata.name": "other"}})

    found = texts(waiting(apart(by_team), *NODES[:1], *running("a1", ns="other"), read=read))
    assert found == {"a1": "InterPodAffinity: the labels of namespace other were not read"}
    assert texts(waiting(apart(by_name), *NODES[:1], *running("a1", ns="other"), read=read)) == {"a1": APART}


def test_affinity_is_said_with_who_and_where() -> None:
    rows = {"podAntiAffinity": terms(term(HOST))}
    others = [pod(f"llama-{n}", "a1", labels=LABELS, affinity=rows) for n in range(5)]
    pending = waiting(pod("me", labels=LABELS, affinity={"podAffinity": terms(term()), **rows}), *NODES, *others)

    assert said(pending)["a1"] == [
        (APART, f"kept apart from serving/llama-0, serving/llama-1, serving/llama-2 and 2 more in {HOST}=a1"),
        (HELD_OFF, f"held off by serving/llama-0, serving/llama-1, serving/llama-2 and 2 more in {HOST}=a1"),
    ]
    assert said(pending)["b1"] == [(NOT_BESIDE, f"no pod with app=llama in {ZONE}=b")]
    assert said(pending)["c1"] == [(NOT_BESIDE, f"no label {ZONE}")]
    assert texts(pending)["a1"] == APART  # the scheduler says one of the two
    assert len(pending.verdicts[0].reasons[0].pods) == 5


def test_an_affinity_that_fails_among_pods_that_were_not_all_read_is_not_judged() -> None:
    found = texts(waiting(near(term(), labels={}), *NODES[:1], read=("Node",)))

    assert found == {"a1": "InterPodAffinity: not all nodes and pods were read"}
