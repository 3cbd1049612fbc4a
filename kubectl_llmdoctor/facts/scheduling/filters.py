"""The scheduler's filters over one node, in its order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.nodes import (
    Amounts,
    Node,
    Usage,
    host_ports,
    mismatches,
    named_nodes,
    requests_of,
    show_taint,
    tolerated,
)
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.scheduling.message import Kind
from kubectl_llmdoctor.facts.scheduling.verdict import NodeVerdict, Reason, say_amount


class Ask:
    """All that a pod demands of a node, worked out once."""

    def __init__(self, pod: Pod, usage: Usage, *, delegated: frozenset[str], requests: Amounts | None = None) -> None:
        self.pod = pod
        self.spec = pod.spec
        self.usage = usage
        self.requests = requests_of(pod.obj) if requests is None else requests
        self.ports = host_ports(pod.spec)
        #: extended resources that a DeviceClass serves: where allocatable lacks them DRA judges, not NodeResourcesFit
        self.delegated = delegated
        #: the only nodes that required affinity names; the PreFilter leaves out all others before any other filter
        self.named = named_nodes(pod.spec)


def _unschedulable(node: Node, ask: Ask) -> Iterator[Reason]:
    taint = k8s.Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule")
    if node.cordoned and not tolerated(taint, ask.spec.tolerations):
        yield Reason(
            plugin="NodeUnschedulable",
            kind="unschedulable",
            text="node(s) were unschedulable",
            detail="cordoned (spec.unschedulable: true)",
        )


def _node_name(node: Node, ask: Ask) -> Iterator[Reason]:
    if ask.spec.node_name and ask.spec.node_name != node.name:
        text = "node(s) didn't match the requested node name"
        yield Reason(plugin="NodeName", kind="node-name", text=text, detail=f"nodeName: {ask.spec.node_name}")


def _taints(node: Node, ask: Ask) -> Iterator[Reason]:
    cordon = "node.kubernetes.io/unschedulable"
    for taint in node.taints:
        if node.cordoned and taint.key == cordon:  # the same said twice: a cordoned node gets this taint as well
            continue
        if taint.effect in ("NoSchedule", "NoExecute") and not tolerated(taint, ask.spec.tolerations):
            yield Reason(
                plugin="TaintToleration",
                kind="taint",
                text="node(s) had untolerated taint(s)",
                detail=f"taint {show_taint(taint)}",
                taint=taint,
            )


def _affinity(node: Node, ask: Ask) -> Iterator[Reason]:
    unmet = mismatches(ask.spec, node.name, node.labels)
    if unmet:
        said = [f"{m.demand} (here {'not set' if m.have is None else m.have})" for m in unmet]
        yield Reason(
            plugin="NodeAffinity",
            kind="affinity",
            text="node(s) didn't match Pod's node affinity/selector",
            detail="; ".join(said),
            mismatches=unmet,
        )


def _ports(node: Node, ask: Ask) -> Iterator[Reason]:
    if not ask.ports:
        return
    taken = {port: holder for holder in ask.usage.holders(node.name) for port in host_ports(holder.pod.spec)}
    clashes = [
        (mine[2], holder)
        for mine in sorted(ask.ports)
        for theirs, holder in taken.items()
        if mine[1:] == theirs[1:] and (not mine[0] or not theirs[0] or mine[0] == theirs[0])
    ]
    if clashes:
        yield Reason(
            plugin="NodePorts",
            kind="ports",
            text="node(s) didn't have free ports for the requested pod ports",
            detail=", ".join(f"port {number} is taken by {holder.ref}" for number, holder in clashes),
            ports=tuple(number for number, _ in clashes),
        )


def _fit(node: Node, ask: Ask) -> Iterator[Reason]:
    used = ask.usage.used(node.name)
    limit = node.offers("pods")
    if limit is not None and used["pods"] + 1 > limit:
        yield Reason(
            plugin="NodeResourcesFit",
            kind="resource",
            text="Too many pods",
            detail=f"{used['pods']} of {limit} pods",
            resource="pods",
            asked=1,
            free=limit - used["pods"],
            allocatable=limit,
        )
    for resource, asked in ask.requests.items():
        have = node.offers(resource)
        if asked <= 0 or have is None or (resource in ask.delegated and have == 0):
            continue
        free = have - used.get(resource, 0)
        if asked > free:
            yield Reason(
                plugin="NodeResourcesFit",
                kind="resource",
                text=f"Insufficient {resource}",
                detail=_shortfall(node, resource, asked, free, have),
                resource=resource,
                asked=asked,
                free=max(free, 0),
                allocatable=have,
            )


def _shortfall(node: Node, resource: str, asked: int, free: int, have: int) -> str:
    if have:
        said = [say_amount(resource, a) for a in (asked, max(free, 0), have)]
        return f"{resource}: {said[0]} asked, {said[1]} of {said[2]} free"
    capacity = node.capacity(resource)
    return f"{resource}: none of {capacity} advertised as healthy" if capacity else f"no {resource} here"


#: In the scheduler's order. Not yet judged: VolumeRestrictions, NodeVolumeLimits, VolumeBinding, VolumeZone,
#: PodTopologySpread, InterPodAffinity, DynamicResources.
_FILTERS: tuple[Callable[[Node, Ask], Iterator[Reason]], ...] = (
    _unschedulable,
    _node_name,
    _taints,
    _affinity,
    _ports,
    _fit,
)
JUDGED: tuple[Kind, ...] = ("unschedulable", "node-name", "taint", "affinity", "ports", "resource")


def judge(node: Node, ask: Ask, *, sure: bool) -> NodeVerdict:
    """All reasons that a node has against a pod; `sure` says whether no reason means that it fits."""
    reasons = tuple(reason for judged in _FILTERS for reason in judged(node, ask))
    if ask.named is not None and node.name not in ask.named:
        reasons = tuple(sorted(reasons, key=lambda reason: reason.kind != "affinity"))
    known = sure and all(node.offers(resource) is not None for resource in ask.requests)
    return NodeVerdict(node=node, reasons=reasons, fits=False if reasons else True if known else None)
