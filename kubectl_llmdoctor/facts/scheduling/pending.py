"""A pod that waits for a node: what was said of it, and what each node says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.accelerator import is_accelerator
from kubectl_llmdoctor.facts.events import Event
from kubectl_llmdoctor.facts.nodes import Node
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.scheduling.message import (
    NEVER_JUDGED,
    Kind,
    Said,
    as_share,
    is_provisioner,
    is_unfit,
    parse,
)
from kubectl_llmdoctor.facts.scheduling.verdict import NodeVerdict, Reason
from kubectl_llmdoctor.facts.usage import Amounts, Usage, requests_of, usage_of

if TYPE_CHECKING:
    from kubectl_llmdoctor.facts.scheduling.ask import Ask
    from kubectl_llmdoctor.facts.subject import Subject

T = TypeVar("T")


class Pending:
    """A pod that waits for a node."""

    def __init__(self, pod: Pod, subject: Subject) -> None:
        self.pod = pod
        self.subject = subject
        self._memo: dict[str, Any] = {}

    def once(self, key: str, make: Callable[[Pending], T]) -> T:
        """What `make` says of this pod, worked out once and shared by all checks that ask under this key."""
        if key not in self._memo:
            self._memo[key] = make(self)
        return cast("T", self._memo[key])

    @property
    def scheduler(self) -> str:
        """Who is to choose the node."""
        return self.pod.spec.scheduler_name or "default-scheduler"

    @property
    def foreign(self) -> bool:
        """Whether another scheduler than Kubernetes' own chooses: only what holds for all may be claimed then."""
        return self.scheduler != "default-scheduler"

    @cached_property
    def condition(self) -> k8s.Condition | None:
        """The PodScheduled condition that says no."""
        return self.pod.condition("PodScheduled", "False")

    @cached_property
    def event(self) -> Event | None:
        """The newest refusal by a scheduler (KAI's binder is one); what provisioners of nodes report under the same reason is left out."""
        found = [
            e
            for e in self.subject.events.of("FailedScheduling", "Unschedulable", "NotSchedulable", "BindingError")
            if e.kind in ("Pod", "") and e.name == self.pod.name and not is_provisioner(e.reporter)
        ]
        return found[-1] if found else None

    @cached_property
    def message(self) -> str:
        """The scheduler's message: the condition (never cut), else the newest event's."""
        if self.condition and self.condition.message and self.condition.reason != "SchedulingGated":
            return self.condition.message
        return self.event.message if self.event else ""

    @cached_property
    def said(self) -> Said:
        """The scheduler's message, parsed; where an extender of HAMi's says only that no node fits, with its reasons."""
        said = parse(self.message)
        if any(is_unfit(c.text) for c in said.counts) and not said.of("resource"):
            told = [c for event in self.filtering for c in parse(event.message).counts if c.kind != "other"]
            # it judges nodes only whose devices it knows
            counts = said.counts if told else [as_share(c) if is_unfit(c.text) else c for c in said.counts]
            return msgspec.structs.replace(said, counts=(*counts, *told))
        return said

    @cached_property
    def filtering(self) -> tuple[Event, ...]:
        """Why HAMi turned nodes down, by reason: `2 nodes CardInsufficientMemory(gpu-1,gpu-2)`."""
        told = (e for e in self.subject.events.of("FilteringFailed") if e.name == self.pod.name)
        return tuple({e.message: e for e in told}.values())

    @cached_property
    def scaling(self) -> tuple[Event, ...]:
        """What autoscalers and provisioners said of this pod, oldest first."""
        reasons = ("NotTriggerScaleUp", "TriggeredScaleUp", "FailedScaleUp", "Nominated")
        return tuple(
            e
            for e in self.subject.events
            if e.kind in ("Pod", "")
            and e.name == self.pod.name
            and (e.reason in reasons or (e.reason == "FailedScheduling" and is_provisioner(e.reporter)))
        )

    @property
    def gates(self) -> tuple[str, ...]:
        """Scheduling gates that are still closed."""
        return tuple(g.name for g in self.pod.spec.scheduling_gates)

    @property
    def seconds(self) -> float | None:
        """How many seconds it has existed, as the snapshot tells the time."""
        return self.pod.cluster.seconds_since(self.pod.obj.metadata.creation_timestamp)

    @cached_property
    def requests(self) -> Amounts:
        """What it asks of one node, in the scheduler's units."""
        return requests_of(self.pod.obj)

    @cached_property
    def accelerators(self) -> dict[str, int]:
        """The accelerators among it."""
        return {name: amount for name, amount in self.requests.items() if is_accelerator(name) and amount > 0}

    @cached_property
    def usage(self) -> Usage:
        """What runs where."""
        return usage_of(self.pod.cluster)

    @property
    def nodes_complete(self) -> bool:
        """Whether the nodes of the snapshot are all: it says so, or the scheduler counted as many."""
        nodes = self.subject.nodes
        return nodes.complete or (len(nodes) > 0 and self.said.total == len(nodes))

    @cached_property
    def unread(self) -> tuple[str, ...]:
        """Which of nodes and pods of the whole cluster were not given: mostly this user may not list them."""
        return tuple(source for source in ("nodes", "pods") if self.pod.cluster.unread(source))

    @property
    def certain(self) -> bool:
        """Whether nodes and pods are complete lists, so that the evaluation is the scheduler's own."""
        return self.subject.nodes.complete and self.usage.complete and not self.foreign

    @cached_property
    def delegated(self) -> frozenset[str]:
        """Extended resources that a DeviceClass of the snapshot serves (DRAExtendedResource, on since 1.36)."""
        return frozenset(self._ask().classes)

    def _ask(
        self, *, spec: k8s.PodSpec | None = None, without: Collection[str] = (), nodes: Iterable[Node] | None = None
    ) -> Ask:
        # the names of this module are imported by checks that also judge pods which have a node
        from kubectl_llmdoctor.facts.scheduling.ask import Ask
        from kubectl_llmdoctor.facts.scheduling.objects import objects_of

        return Ask(
            pod=self.pod,
            nodes=[*(self.subject.nodes if nodes is None else nodes)],
            nodes_complete=self.nodes_complete,
            usage=self.usage.changed(without=without) if without else self.usage,
            objects=objects_of(self.pod.cluster),
            spec=self.pod.spec if spec is None else spec,
            without=without,
        )

    @staticmethod
    def _judged(ask: Ask, *, sure: bool) -> tuple[NodeVerdict, ...]:
        from kubectl_llmdoctor.facts.scheduling.judge import judge

        return tuple(judge(ask, sure=sure))

    @property
    def _sure(self) -> bool:
        """Whether a node that nothing stops is a node that fits."""
        return self.usage.complete and not self.foreign

    @cached_property
    def verdicts(self) -> tuple[NodeVerdict, ...]:
        """What each node of the snapshot says; empty when no node was read."""
        return self._judged(self._ask(), sure=self._sure and not self.gates)

    def where(
        self, *, spec: k8s.PodSpec | None = None, without: Collection[str] = (), nodes: Iterable[Node] | None = None
    ) -> tuple[NodeVerdict, ...]:
        """What each node would say if something were different.

        `spec`: the pod's (tolerations, selector, affinity, resources, …). `without`: pods that would be gone
        (`serving/llama-0`). `nodes`: all nodes as they would be, some of them `changed`, or one more as the `twin` of
        another. What else stands in the way is still said. Pods of higher priority that wait too come first: a place
        counts only if it takes them as well.
        """
        ask = self._ask(spec=spec, without=without, nodes=nodes)
        return self._judged(ask.after(self._rivals), sure=self._sure)

    @cached_property
    def _rivals(self) -> list[k8s.Pod]:
        mine = self.pod.spec.priority or 0
        return [p for p in self.usage.waiting if (p.spec.priority or 0) > mine and not p.spec.scheduling_gates]

    @cached_property
    def refused(self) -> tuple[Reason, ...]:
        """The reasons that hold on every node: the scheduler says the first of them, and looks at no node."""
        return tuple(r for r in self.verdicts[0].reasons if r.everywhere) if self.verdicts else ()

    @cached_property
    def unjudged(self) -> tuple[str, ...]:
        """Plugins that could not be evaluated on some node that nothing else stops."""
        open_ = [v for v in self.verdicts if not v.reasons]
        return tuple(dict.fromkeys(gap.plugin for v in open_ for gap in v.gaps))

    @cached_property
    def agrees(self) -> bool | None:
        """Whether this evaluation gives the scheduler's own histogram; None where they cannot be compared."""
        said = self.said
        if said.refused and not said.counts and self.verdicts:
            return any(r.text == count.text for r in self.refused for count in said.refused) or None
        if not said.counts or said.cut or said.total != len(self.verdicts):
            return None
        theirs: Counter[tuple[Kind, str]] = Counter()
        for count in said.counts:
            if count.kind not in NEVER_JUDGED:
                theirs[count.kind, count.resource] += count.number
        # A node of which something was not judged may give any reason, but for what is known of it.
        sure = [v for v in self.verdicts if not v.gaps]
        ours = Counter(text for v in sure for text in _texts_of(v))
        if len(sure) == len(self.verdicts):
            return ours == theirs
        return ours <= theirs and (theirs - ours).total() >= len(self.verdicts) - len(sure)


def _texts_of(verdict: NodeVerdict) -> list[tuple[Kind, str]]:
    """A node's share of the histogram: each text counts once per node. An extender says of none which one it refuses."""
    said = {(r.kind, r.resource, r.text) for r in verdict.first if r.kind != "shares"}
    return [(kind, resource) for kind, resource, _ in said]
