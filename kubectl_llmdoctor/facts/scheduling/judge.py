"""All filters over all nodes, in the scheduler's order (`apis/config/v1/default_plugins.go`, 1.36)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from kubectl_llmdoctor.facts.k8s import Pod
from kubectl_llmdoctor.facts.nodes import Node
from kubectl_llmdoctor.facts.scheduling import filters, topology
from kubectl_llmdoctor.facts.scheduling.ask import Ask, Filter, Plugin
from kubectl_llmdoctor.facts.scheduling.shares import fractions, shares
from kubectl_llmdoctor.facts.scheduling.verdict import Gap, NodeVerdict, Reason

#: They look at a node alone.
_FIRST = (filters.unschedulable, filters.node_name, filters.taints, filters.affinity, filters.ports, filters.fit)


def _plugins(ask: Ask) -> Iterator[Plugin]:
    """They look at the question first, then at each node. What a pod does not need is not loaded."""
    yield filters.conflict
    if ask.spec.volumes:
        from kubectl_llmdoctor.facts.scheduling import attachments, volumes

        yield from (attachments.restrictions, attachments.limits, volumes.binding, volumes.zone)
    yield from (topology.spread, topology.affinity)
    if ask.spec.resource_claims or any(resource in ask.classes for resource in ask.requests):
        from kubectl_llmdoctor.facts.scheduling import claims

        yield claims.resources
    yield filters.features
    yield from (shares, fractions)


#: Promised nodes that are looked at one by one.
_MOST_CROWDS = 20


class _Judge:
    def __init__(self, ask: Ask) -> None:
        said = [plugin(ask) for plugin in _plugins(ask)]
        self.refused = tuple(one for one in said if isinstance(one, Reason))
        self._left_out = ask.named
        self._filters: list[Filter] = [partial(judged, ask=ask) for judged in _FIRST]
        self._filters += [one for one in said if one is not None and not isinstance(one, Reason)]

    def of(self, node: Node) -> tuple[tuple[Reason, ...], tuple[Gap, ...]]:
        """All reasons of a node and what could not be judged, as the scheduler would come upon them."""
        reasons, gaps = [*self.refused], []
        for judged in self._filters:
            for one in judged(node):
                if isinstance(one, Gap):
                    gaps.append(one)
                else:
                    reasons.append(one)
        if self._left_out is not None and node.name not in self._left_out:
            reasons.sort(key=lambda reason: (not reason.everywhere, reason.text != filters.LEFT_OUT))
        return tuple(reasons), tuple(dict.fromkeys(gaps))


def judge(ask: Ask, *, sure: bool) -> Iterator[NodeVerdict]:
    """What each node says; `sure` says whether no reason means that it fits."""
    judged, crowds = _Judge(ask), _crowds(ask)
    said = []
    for node in ask.nodes:
        crowded = crowds[node.name].of(node) if node.name in crowds else None
        said.append((node, *(crowded if crowded and crowded[0] else judged.of(node))))
    end = next((gap for _, reasons, gaps in said if not reasons for gap in gaps if gap.ends), None)
    if end is None and sum(not reasons for _, reasons, _ in said) > 1:
        end = filters.preference(ask)
    for node, reasons, gaps in said:
        if end and not reasons and end not in gaps:
            gaps = (*gaps, end)
        known = sure and not gaps and all(node.offers(resource) is not None for resource in ask.requests)
        fits = False if reasons else True if known else None
        yield NodeVerdict(node=node, reasons=reasons, fits=fits, gaps=gaps)


def _crowds(ask: Ask) -> dict[str, _Judge]:
    """For nodes that are promised to pods of no less priority: the judge who counts these as there already."""
    mine = ask.pod.obj
    promised = {
        node: rivals
        for node, pods in ask.usage.nominated.items()
        if (rivals := [p for p in pods if (p.spec.priority or 0) >= (mine.spec.priority or 0) and not _same(p, mine)])
    }
    if len(promised) > _MOST_CROWDS:  # one for all: only counts by topology differ
        judge = _Judge(ask.crowded(promised))
        return dict.fromkeys(promised, judge)
    return {node: _Judge(ask.crowded({node: rivals})) for node, rivals in promised.items()}


def _same(one: Pod, other: Pod) -> bool:
    return one.metadata.name == other.metadata.name and one.metadata.namespace == other.metadata.namespace
