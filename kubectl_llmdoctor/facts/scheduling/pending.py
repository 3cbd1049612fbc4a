"""A pod that waits for a node: what was said of it, and what each node says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, cast

from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.events import Event
from kubectl_llmdoctor.facts.nodes import Amounts, Usage, requests_of, usage_of
from kubectl_llmdoctor.facts.pod import Pod, is_accelerator
from kubectl_llmdoctor.facts.scheduling.filters import JUDGED, Ask, judge
from kubectl_llmdoctor.facts.scheduling.message import Kind, Said, is_provisioner, parse
from kubectl_llmdoctor.facts.scheduling.verdict import NodeVerdict
from kubectl_llmdoctor.facts.units import parse_time

if TYPE_CHECKING:
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
        found = self.pod.condition("PodScheduled")
        return found if found is not None and found.status == "False" else None

    @cached_property
    def event(self) -> Event | None:
        """The newest refusal by a scheduler; what provisioners of nodes report under the same reason is left out."""
        found = [
            e
            for e in self.subject.events.of("FailedScheduling", "Unschedulable", "NotSchedulable")
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
        """The scheduler's message, parsed."""
        return parse(self.message)

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

    @cached_property
    def since(self) -> datetime | None:
        """Since when it waits."""
        started = parse_time(self.condition.last_transition_time) if self.condition else None
        return started or parse_time(self.pod.obj.metadata.creation_timestamp)

    @property
    def seconds(self) -> float | None:
        """How long it has existed."""
        now, made = self.pod.cluster.now, parse_time(self.pod.obj.metadata.creation_timestamp)
        return (now - made).total_seconds() if now and made else None

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

    @property
    def certain(self) -> bool:
        """Whether nodes and pods are complete lists, so that the evaluation is the scheduler's own."""
        return self.subject.nodes.complete and self.usage.complete and not self.foreign

    @cached_property
    def delegated(self) -> frozenset[str]:
        """Extended resources that a DeviceClass of the snapshot serves (DRAExtendedResource, on since 1.36)."""
        found = set()
        for item in self.pod.cluster.items("DeviceClass"):
            spec = item.raw.get("spec")
            name = spec.get("extendedResourceName") if isinstance(spec, dict) else None
            found.add(f"deviceclass.resource.kubernetes.io/{item.name}")
            if isinstance(name, str):
                found.add(name)
        return frozenset(found)

    @cached_property
    def unjudged(self) -> tuple[str, ...]:
        """Plugins that have a say on this pod and are not evaluated here."""
        spec, found = self.pod.spec, []
        if any(v.persistent_volume_claim or v.ephemeral for v in spec.volumes):
            found.append("VolumeBinding")
        if any(c.when_unsatisfiable == "DoNotSchedule" for c in spec.topology_spread_constraints):
            found.append("PodTopologySpread")
        affinity = spec.affinity
        own = (affinity.pod_affinity, affinity.pod_anti_affinity) if affinity else ()
        if any(a and a.required_during_scheduling_ignored_during_execution for a in own) or self.repelled:
            found.append("InterPodAffinity")
        if spec.resource_claims or any(r in self.delegated for r in self.requests):
            found.append("DynamicResources")
        return tuple(found)

    @cached_property
    def repelled(self) -> bool:
        """Whether some running pod has required anti-affinity, which may hold this one off."""
        return any(
            pod.spec.node_name
            and pod.spec.affinity
            and pod.spec.affinity.pod_anti_affinity
            and pod.spec.affinity.pod_anti_affinity.required_during_scheduling_ignored_during_execution
            for pod in self.pod.cluster.all(k8s.Pod, "Pod")
        )

    def ask(self, requests: Amounts | None = None) -> Ask:
        """Its demands on a node; with other requests, for the question what would do."""
        return Ask(self.pod, self.usage, delegated=self.delegated, requests=requests or self.requests)

    @cached_property
    def verdicts(self) -> tuple[NodeVerdict, ...]:
        """What each node of the snapshot says; empty when no node was read."""
        ask, sure = self.ask(), self.usage.complete and not self.unjudged and not self.foreign and not self.gates
        return tuple(judge(node, ask, sure=sure) for node in self.subject.nodes)

    @cached_property
    def agrees(self) -> bool | None:
        """Whether this evaluation gives the scheduler's own histogram; None where they cannot be compared."""
        said = self.said
        if not said.counts or said.cut or said.total != len(self.verdicts):
            return None
        theirs: Counter[tuple[Kind, str]] = Counter()
        for count in said.counts:
            if count.kind in JUDGED:
                resource = "pods" if count.resource == "pods" else count.resource
                theirs[count.kind, resource] += count.number
        ours = Counter((kind, resource) for v in self.verdicts for kind, resource in _texts_of(v))
        return ours == theirs


def _texts_of(verdict: NodeVerdict) -> set[tuple[Kind, str]]:
    """A node's share of the histogram: each text counts once per node."""
    return {(r.kind, r.resource) for r in verdict.first} if verdict.reasons else set()
