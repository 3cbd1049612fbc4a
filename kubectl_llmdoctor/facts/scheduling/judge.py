"""All filters over all nodes, in the scheduler's order (`apis/config/v1/default_plugins.go`, 1.36)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from kubectl_llmdoctor.facts.k8s import Pod
from kubectl_llmdoctor.facts.nodes import Node
from kubectl_llmdoctor.facts.scheduling import claims, filters, topology, volumes
from kubectl_llmdoctor.facts.scheduling.ask import Ask, Filter, Plugin
from kubectl_llmdoctor.facts.scheduling.verdict import Gap, NodeVerdict, Reason

#: They look at a node alone.
_FIRST = (filters.unschedulable, filters.node_name, filters.taints, filters.affinity, filters.ports, filters.fit)

#: They look at the question first, then at each node.
_THEN: tuple[Plugin, ...] = (
    filters.conflict,
    volumes.restrictions,
    volumes.limits,
    volumes.binding,
    volumes.zone,
    topology.spread,
    topology.affinity,
    claims.resources,
    filters.features,
)


class _Judge:
    def __init__(self, ask: Ask) -> None:
        said = [plugin(ask) for plugin in _THEN]
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
    judged = _Judge(ask)
    said = [(node, *(_crowded(ask, node) or judged.of(node))) for node in ask.nodes]
    end = next((gap for _, reasons, gaps in said if not reasons for gap in gaps if gap.ends), None)
    if end is None and sum(not reasons for _, reasons, _ in said) > 1:
        end = filters.preference(ask)
    for node, reasons, gaps in said:
        if end and not reasons and end not in gaps:
            gaps = (*gaps, end)
        known = sure and not gaps and all(node.offers(resource) is not None for resource in ask.requests)
        fits = False if reasons else True if known else None
        yield NodeVerdict(node=node, reasons=reasons, fits=fits, gaps=gaps)


def _crowded(ask: Ask, node: Node) -> tuple[tuple[Reason, ...], tuple[Gap, ...]] | None:
    """What stops the pod if those are there already to whom the node was promised; None when nothing does."""
    mine = ask.pod.obj
    promised = [
        pod
        for pod in ask.usage.nominated.get(node.name, ())
        if (pod.spec.priority or 0) >= (mine.spec.priority or 0) and not _same(pod, mine)
    ]
    if not promised:
        return None
    found = _Judge(ask.crowded({node.name: promised})).of(node)
    return found if found[0] else None


def _same(one: Pod, other: Pod) -> bool:
    return one.metadata.name == other.metadata.name and one.metadata.namespace == other.metadata.namespace
