"""The filters that look at one node only: is it open, wanted, and is there room on it."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.constraints import (
    is_possible,
    mismatches,
    show_requirement,
    show_taint,
    tolerated,
    untolerated,
)
from kubectl_llmdoctor.facts.nodes import Node
from kubectl_llmdoctor.facts.scheduling.ask import Ask, Filter
from kubectl_llmdoctor.facts.scheduling.verdict import Gap, Reason, say_amount
from kubectl_llmdoctor.facts.usage import host_ports

#: What the scheduler says of nodes that a PreFilter left out before any filter.
LEFT_OUT = "node(s) didn't satisfy plugin(s) [NodeAffinity]"


def unschedulable(node: Node, ask: Ask) -> Iterator[Reason]:
    """NodeUnschedulable."""
    taint = k8s.Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule")
    if node.cordoned and not tolerated(taint, ask.spec.tolerations):
        yield Reason(
            plugin="NodeUnschedulable",
            kind="unschedulable",
            text="node(s) were unschedulable",
            detail="cordoned (spec.unschedulable: true)",
        )


def node_name(node: Node, ask: Ask) -> Iterator[Reason]:
    """NodeName."""
    if ask.spec.node_name and ask.spec.node_name != node.name:
        text = "node(s) didn't match the requested node name"
        yield Reason(plugin="NodeName", kind="node-name", text=text, detail=f"nodeName: {ask.spec.node_name}")


def taints(node: Node, ask: Ask) -> Iterator[Reason]:
    """TaintToleration."""
    cordon = "node.kubernetes.io/unschedulable"
    for taint in untolerated(node.taints, ask.spec.tolerations):
        if node.cordoned and taint.key == cordon:  # the same said twice: a cordoned node gets this taint as well
            continue
        yield Reason(
            plugin="TaintToleration",
            kind="taint",
            text="node(s) had untolerated taint(s)",
            detail=f"taint {show_taint(taint)}",
            taint=taint,
        )


def conflict(ask: Ask) -> Reason | None:
    """NodeAffinity, before it looks at nodes: every term names nodes that exclude each other."""
    if ask.named is None or ask.named:
        return None
    return Reason(
        plugin="NodeAffinity",
        kind="affinity",
        text="pod affinity terms conflict",
        detail="each term of the required node affinity names nodes that exclude each other",
        everywhere=True,
    )


def preference(ask: Ask) -> Gap | None:
    """NodeAffinity, when it weighs nodes: a preferred term with a value that can be no label's ends the attempt."""
    own = ask.spec.affinity.node_affinity if ask.spec.affinity else None
    for term in own.preferred_during_scheduling_ignored_during_execution if own else ():
        for r in term.preference.match_expressions:
            if not is_possible(r):
                why = f"the preferred affinity {show_requirement(r)} is invalid, and two nodes are not weighed with it"
                return Gap(plugin="NodeAffinity", why=why, ends=True)
    return None


def affinity(node: Node, ask: Ask) -> Iterator[Reason]:
    """NodeAffinity: its PreFilter leaves out all nodes but those that are named."""
    missed = mismatches(ask.spec, node.name, node.labels)
    left_out = ask.named is not None and node.name not in ask.named
    if missed or left_out:
        said = [f"wanted {m.demand} ({'not set' if m.have is None else f'is {m.have}'})" for m in missed]
        yield Reason(
            plugin="NodeAffinity",
            kind="affinity",
            text=LEFT_OUT if left_out else "node(s) didn't match Pod's node affinity/selector",
            detail="; ".join(said),
            mismatches=missed,
        )


def features(ask: Ask) -> Filter | None:
    """NodeDeclaredFeatures: of what a pod can ask for when it is placed, only one thing is on by default (1.36)."""
    plugin, needed = "NodeDeclaredFeatures", "RestartAllContainersOnContainerExits"
    containers = (*ask.spec.containers, *ask.spec.init_containers)
    rules = [rule for container in containers for rule in container.restart_policy_rules]
    if not any(rule.get("action") == "RestartAllContainers" for rule in rules):
        return None
    on = any(node.obj.status.declared_features for node in ask.nodes)

    def judge(node: Node) -> Iterator[Reason | Gap]:
        if not on:  # an older server, whose nodes declare nothing and which asks for nothing
            yield Gap(plugin=plugin, why="no node declares its features")
        elif needed not in node.obj.status.declared_features:
            text = "node(s) didn't match Pod's required features"
            yield Reason(plugin=plugin, kind="features", text=text, detail=f"does not declare {needed}")

    return judge


def ports(node: Node, ask: Ask) -> Iterator[Reason]:
    """NodePorts."""
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
            pods=tuple(dict.fromkeys(holder.ref for _, holder in clashes)),
        )


def fit(node: Node, ask: Ask) -> Iterator[Reason]:
    """NodeResourcesFit."""
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
        if asked <= 0 or have is None or ask.delegated(node, resource) or ask.booked(node, resource):
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
