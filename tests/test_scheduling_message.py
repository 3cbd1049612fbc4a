"""The scheduler's message in all its vintages, and what autoscalers and other schedulers write in its place."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_llmdoctor.facts.scheduling.message import Said, parse


def _items(said: Said) -> list[tuple[int, str, str]]:
    return [(c.number, c.kind, c.resource or c.taint) for c in said.counts]


@pytest.mark.parametrize(
    ("text", "items"),
    [
        (  # 1.36: the taint is not named, DRA's PostFilter speaks first
            "0/7 nodes are available: 1 node(s) were unschedulable, 2 node(s) didn't match Pod's node affinity/selector, "
            "4 node(s) had untolerated taint(s). no new claims to deallocate, preemption: 0/7 nodes are available: "
            "7 Preemption is not helpful for scheduling.",
            [(1, "unschedulable", ""), (2, "affinity", ""), (4, "taint", "")],
        ),
        (  # 1.24 to 1.34: with the taint
            "0/3 nodes are available: 1 node(s) had untolerated taint {nvidia.com/gpu: present}, 2 Insufficient "
            "nvidia.com/gpu. preemption: 0/3 nodes are available: 1 Preemption is not helpful for scheduling, 2 No "
            "preemption victims found for incoming pod..",
            [(1, "taint", "nvidia.com/gpu: present"), (2, "resource", "nvidia.com/gpu")],
        ),
        (  # 1.19 to 1.23: a comma inside the text
            "0/4 nodes are available: 1 Insufficient memory, 1 node(s) had taint {node-role.kubernetes.io/master: }, "
            "that the pod didn't tolerate, 2 node(s) had taint {sku: gpu}, that the pod didn't tolerate.",
            [(1, "resource", "memory"), (1, "taint", "node-role.kubernetes.io/master:"), (2, "taint", "sku: gpu")],
        ),
        (
            "0/2 nodes are available: 2 node(s) had taints that the pod didn't tolerate.",
            [(2, "taint", "")],
        ),
        (  # counts are sorted as strings, and one node may give several
            "0/12 nodes are available: 10 Insufficient cpu, 12 Insufficient nvidia.com/gpu, 2 Too many pods.",
            [(10, "resource", "cpu"), (12, "resource", "nvidia.com/gpu"), (2, "resource", "pods")],
        ),
        ("0/41 nodes are available: 2 Insufficient pods, 39 Insufficient cpu.", [(2, "resource", "pods"), (39, "resource", "cpu")]),
        (
            "0/6 nodes are available: 6 node(s) didn't satisfy plugin(s) [NodeAffinity]. no new claims to deallocate, "
            "preemption: 0/6 nodes are available: 6 Preemption is not helpful for scheduling.",
            [(6, "affinity", "")],
        ),
        ("0/3 nodes are available: 3 node(s) didn't match node selector.", [(3, "affinity", "")]),
        (
            "0/9 nodes are available: 2 node(s) had volume node affinity conflict, 3 node(s) didn't match "
            "PersistentVolume's node affinity, 4 node(s) didn't find available persistent volumes to bind.",
            [(2, "volume", ""), (3, "volume", ""), (4, "volume", "")],
        ),
        (
            "0/6 nodes are available: 1 node(s) didn't match pod affinity rules, 2 node(s) didn't match pod anti-affinity "
            "rules, 3 node(s) didn't satisfy existing pods anti-affinity rules.",
            [(1, "pod-affinity", ""), (2, "anti-affinity", ""), (3, "anti-affinity", "")],
        ),
        (
            "0/2 nodes are available: 2 node(s) didn't match pod topology spread constraints (missing required label).",
            [(2, "spread", "")],
        ),
        ("0/4 nodes are available: 4 cannot allocate all claims. still not schedulable, preemption: 0/4 …", [(4, "claim", "")]),
        ("0/2 nodes are available: 2 node(s) didn't have free ports for the requested pod ports.", [(2, "ports", "")]),
        (  # coscheduling plugin
            "0/10 nodes are available: 10 pre-filter pod ray-head cannot find enough sibling pods, current pods number: 1, "
            "minMember of group: 8.",
            [(10, "gang", "")],
        ),
        ("0/3 nodes are unavailable: 1 Insufficient nvidia.com/gpu, 2 node(s) had untolerated taint(s).",  # Volcano
         [(1, "resource", "nvidia.com/gpu"), (2, "taint", "")]),
        (  # KAI
            "Resources were not found for pod ns/p due to: no nodes with enough resources were found: 1 node(s) didn't have "
            "enough resources: rdma/hca. \n6 node(s) didn't have enough of mig profile: nvidia.com/mig-1g.5gb.",
            [(1, "resource", "rdma/hca"), (6, "resource", "nvidia.com/mig-1g.5gb")],
        ),
        ("No nodes with enough resources were found: 2 node(s) didn't have enough resources: GPUs.",  # earlier KAI
         [(2, "resource", "nvidia.com/gpu")]),
        ("1 node(s) had untolerated taint(s)", [(1, "taint", "")]),
        ("0/5 nodes are available: 5 node(s) spoke a new language.", [(5, "other", "")]),
        ("no nodes available to schedule pods", []),
        ("", []),
    ],
)  # fmt: skip
def test_histogram(text: str, items: list[Any]) -> None:
    assert _items(parse(text)) == items


def test_the_tail_is_split_off_before_counting() -> None:
    text = (
        "0/8 nodes are available: 1 node(s) had untolerated taint(s), 2 node(s) didn't match Pod's node affinity/selector, "
        "5 Insufficient nvidia.com/gpu. no new claims to deallocate, preemption: 0/8 nodes are available: 3 Preemption is "
        "not helpful for scheduling, 5 Insufficient nvidia.com/gpu."
    )

    said = parse(text)

    assert said.total == 8
    assert said.number("resource") == 5
    assert said.helpless == 3


@pytest.mark.parametrize(
    ("text", "kind", "refused"),
    [
        ("0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found", "volume",
         "pod has unbound immediate PersistentVolumeClaims"),
        ("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. preemption: 0/1 nodes are available: 1 "
         "Preemption is not helpful for scheduling..", "volume", "pod has unbound immediate PersistentVolumeClaims"),
        ('0/3 nodes are available: persistentvolumeclaim "models" not found. not found', "volume",
         'persistentvolumeclaim "models" not found'),
        ("0/5 nodes are available: request gpu: device class nvidia-gpu does not exist. no new claims to deallocate, "
         "preemption: 0/5 nodes are available: 5 Preemption is not helpful for scheduling.", "claim",
         "request gpu: device class nvidia-gpu does not exist"),
        ('0/5 nodes are available: storageclass.storage.k8s.io "fast" not found. preemption: 0/5 nodes are available: 5 '
         "Preemption is not helpful for scheduling.", "volume", 'storageclass.storage.k8s.io "fast" not found'),
        ('running PreBind plugin "VolumeBinding": binding volumes: provisioning failed for PVC "models"', "volume",
         'running PreBind plugin "VolumeBinding": binding volumes: provisioning failed for PVC "models"'),
        ("rejected due to timeout after waiting 60s at plugin Coscheduling", "gang",
         "rejected due to timeout after waiting 60s at plugin Coscheduling"),
    ],
)  # fmt: skip
def test_a_prefilter_speaks_instead_of_the_histogram(text: str, kind: str, refused: str) -> None:
    said = parse(text)

    assert said.counts == ()
    assert [(c.kind, c.text) for c in said.refused] == [(kind, refused)]


def test_a_note_cut_by_the_event_says_so() -> None:
    said = parse(
        "0/9 nodes are available: 1 Insufficient nvidia.com/gpu, 2 node(s) had taint {a: b}, that the pod didn't ..."
    )

    assert said.cut
    assert said.number("resource") == 1


def test_a_gang_scheduler_says_how_many_it_placed() -> None:
    text = (
        "PodSchedulingErrors: Resources were found for 5 pods while 17 are required for gang scheduling. Additional pods "
        "cannot be scheduled due to: no nodes with enough resources were found: 12 cannot allocate all claims."
    )

    said = parse(text)

    assert said.gang == (5, 17)
    assert _items(said) == [(12, "claim", "")]


def test_an_autoscalers_words_have_the_same_form() -> None:
    said = parse("pod didn't trigger scale-up: 1 max node group size reached, 2 Insufficient nvidia.com/gpu")

    assert said.of("resource")[0].number == 2


@pytest.mark.parametrize(
    "text", ["0/", "0/x nodes are available: ", ", , ,", "1 ", "999999999999999999999 Insufficient x", "\0"]
)
def test_rubbish_does_not_break_it(text: str) -> None:
    assert parse(text).gang is None
