"""What a node says to a pod: the reasons against it, in the scheduler's words and with the node's own values."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.constraints import Mismatch, is_state_taint
from kubectl_llmdoctor.facts.nodes import Node
from kubectl_llmdoctor.facts.scheduling.message import Kind
from kubectl_llmdoctor.facts.units import few, say_bytes, say_cores


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that keeps the pod off a node."""

    #: the scheduler's plugin, `NodeResourcesFit`
    plugin: str
    kind: Kind
    #: the scheduler's words, 1.36
    text: str
    #: the same with the values of this node and pod
    detail: str
    resource: str = ""
    asked: int = 0
    free: int | None = None
    allocatable: int | None = None
    taint: k8s.Taint | None = None
    mismatches: tuple[Mismatch, ...] = ()
    ports: tuple[int, ...] = ()
    #: devices that nobody has and that taints of theirs keep from the pod, and which taints
    tainted: int = 0
    device_taints: tuple[str, ...] = ()
    #: pools of devices here of which slices are missing: the scheduler takes nothing from them
    partial_pools: tuple[str, ...] = ()
    #: attributes that a claim wants its devices to share, or not to share, where it had enough of them otherwise
    constraints: tuple[str, ...] = ()
    #: the pods that stand in the way: `serving/llama-0`
    pods: tuple[str, ...] = ()
    #: a PreFilter's word: it holds on every node, and the scheduler looks at none
    everywhere: bool = False

    @property
    def state(self) -> bool:
        """Whether it says that the node itself is unfit: cordoned, not ready, under pressure, going away."""
        return self.kind == "unschedulable" or (self.taint is not None and is_state_taint(self.taint))


#: The plugins that give all their reasons; others stop at the first.
_SAY_ALL = ("NodeResourcesFit", "VolumeBinding")


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """What one filter could not judge, and why."""

    plugin: str
    why: str
    #: the scheduler gives the whole pod up with an error when it comes to this
    ends: bool = False


class NodeVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a node says to the pod: all reasons against it, in the scheduler's order."""

    node: Node
    reasons: tuple[Reason, ...]
    #: None: nothing known stops it, but not everything could be judged
    fits: bool | None
    #: what could not be judged on this node
    gaps: tuple[Gap, ...] = ()

    @property
    def first(self) -> tuple[Reason, ...]:
        """The reasons of the first failing plugin: all that the scheduler says of this node."""
        if not self.reasons:
            return ()
        first = self.reasons[0]
        several = first.plugin in _SAY_ALL
        return tuple(r for r in self.reasons if r.plugin == first.plugin and (several or r.text == first.text))

    def lacking(self, resource: str) -> Reason | None:
        """The reason that says that a resource does not suffice."""
        return next((r for r in self.reasons if r.kind == "resource" and r.resource == resource), None)


def say_amount(resource: str, amount: int) -> str:
    """An amount in the scheduler's units as a person writes it: cores, GiB, pieces."""
    if resource == "cpu":
        return say_cores(amount)
    if resource in ("memory", "ephemeral-storage") or resource.startswith("hugepages-"):
        return say_bytes(amount)
    return str(amount)


def names_of(verdicts: Iterable[NodeVerdict]) -> str:
    """The names of some nodes: `gpu-1, gpu-2, gpu-3 and 4 more`."""
    return few(sorted(v.node.name for v in verdicts), 3)
