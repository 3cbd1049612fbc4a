"""Why a pod has no node: the scheduler's own words, and what each node of the snapshot says to the pod's demands.

Two sources that check each other. The message (`FitError.Error` in kube-scheduler's `framework/types.go`) counts
reasons over all nodes, only the first failing plugin of each. The verdicts are this module's own evaluation of the
scheduler's filters over the snapshot, all reasons of each node, in its order (`apis/config/v1/default_plugins.go`,
1.36). A further filter is one more function in `_FILTERS`; until then its plugin stands in `Pending.unjudged`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import msgspec

from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.events import Event
from kubectl_llmdoctor.facts.nodes import (
    Amounts,
    Mismatch,
    Node,
    Usage,
    host_ports,
    is_state_taint,
    mismatches,
    named_nodes,
    requests_of,
    show_taint,
    tolerated,
    usage_of,
)
from kubectl_llmdoctor.facts.pod import Pod, is_accelerator
from kubectl_llmdoctor.facts.units import parse_time, say_bytes, say_cores
from kubectl_llmdoctor.report.document import Placement

if TYPE_CHECKING:
    import re

    from kubectl_llmdoctor.facts.subject import Subject

T = TypeVar("T")

Kind = Literal[
    "unschedulable",
    "node-name",
    "taint",
    "affinity",
    "ports",
    "resource",
    "volume",
    "spread",
    "anti-affinity",
    "pod-affinity",
    "claim",
    "gang",
    "group-limit",
    "other",
]

#: The filters in the scheduler's order, by kind. A node that fails at one of them has passed all before it.
STAGES: tuple[Kind, ...] = (
    "unschedulable",
    "node-name",
    "taint",
    "affinity",
    "ports",
    "resource",
    "volume",
    "spread",
    "pod-affinity",
    "anti-affinity",
    "claim",
)


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """One item of the scheduler's histogram: so many nodes gave this reason."""

    number: int
    text: str
    kind: Kind
    #: the resource of an `Insufficient …`
    resource: str = ""
    #: `{key: value}` of a taint, where that version still names it
    taint: str = ""


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """A scheduler's message, parsed."""

    text: str = ""
    #: the number of nodes it looked at; None where the message does not say
    total: int | None = None
    counts: tuple[Count, ...] = ()
    #: texts of a PreFilter that rejected the pod before any node was looked at
    refused: tuple[Count, ...] = ()
    #: nodes on which evicting pods cannot help (they can never hold it as things are)
    helpless: int | None = None
    #: nodes on which evicting pods of lower priority would not be enough (they are occupied)
    occupied: int | None = None
    #: the text was cut where the event's note ends
    cut: bool = False
    #: a gang that found room for so many of so many pods
    gang: tuple[int, int] | None = None

    @property
    def all(self) -> tuple[Count, ...]:
        """The texts of PreFilters, then the histogram."""
        return (*self.refused, *self.counts)

    def of(self, *kinds: Kind) -> tuple[Count, ...]:
        """The items of some kinds."""
        return tuple(c for c in self.all if c.kind in kinds)

    def number(self, *kinds: Kind) -> int:
        """How many nodes gave a reason of these kinds."""
        return sum(c.number for c in self.counts if c.kind in kinds)


@cache
def _regex(pattern: str) -> re.Pattern[str]:
    import re

    return re.compile(pattern, re.DOTALL)


_HEAD = r"(?:^|[\s:])(\d+)/(\d+) (?:nodes|placements) are (?:un)?available[:,]?"
#: What PostFilter plugins append; everything after it repeats what was said before.
_TAIL = (
    r"[.,]*\s*(?:no new claims to deallocate|still not schedulable|deallocation of ResourceClaim completed"
    r"|deletion of ResourceClaim completed|plugin disabled|preemption: |No preemption victims found)"
)
_ITEM = r"(\d+) (\S.*)"
_KAI = "no nodes with enough resources were found"


def parse(text: str) -> Said:
    """A scheduler's message of any vintage; what is not understood is kept as kind `other`."""
    body = text.strip()
    cut = body.endswith("...")
    body = body.removesuffix("...").rstrip(" ,") if cut else body
    total = None
    head = _regex(_HEAD).search(body)
    if head:
        total = int(head.group(2))
        body = body[head.end() :]
    elif body.startswith("all nodes are unavailable:"):  # Volcano
        body = body.partition(":")[2].lstrip()
    elif _KAI in body:
        body = body.partition(_KAI)[2].lstrip(": ")
    tail = _regex(_TAIL).search(body)
    after = ""
    if tail:
        body, after = body[: tail.start()], body[tail.start() :]
    # «. not found» after a PreFilter's text comes from the DRA PostFilter, which found no state of its own
    body = _regex(r"\. not found\.?\s*$").sub("", body.strip()).rstrip(". \n")
    refused: list[Count] = []
    counts: list[Count] = []
    for part in _regex(r"(?:, |\. ?\s)(?=\d+ \S)").split(body) if body else ():
        item = _regex(_ITEM).fullmatch(part.strip().rstrip(".")) if part else None
        if item:
            counts.extend(_count(int(item.group(1)), item.group(2)))
        elif part.strip():
            refused.extend(_count(total or 0, part.strip()))
    gang = _regex(r"found for (\d+) pods? while (\d+) are required|(\d+) Pending, (\d+) minAvailable").search(text)
    return Said(
        text=text,
        total=total,
        counts=tuple(counts),
        refused=tuple(refused),
        helpless=_number(r"(\d+) Preemption is not helpful", after),
        occupied=_number(r"(\d+) No preemption victims", after),
        cut=cut,
        gang=(int(gang.group(1)), int(gang.group(2))) if gang and gang.group(1) else None,
    )


def _number(pattern: str, text: str) -> int | None:
    found = _regex(pattern).search(text)
    return int(found.group(1)) if found else None


#: Reason texts by what they contain, the first that fits; all vintages since 1.16.
_TEXTS: tuple[tuple[str, Kind], ...] = (
    ("node(s) were unschedulable", "unschedulable"),
    ("unknown conditions", "unschedulable"),
    ("node(s) were not ready", "unschedulable"),
    ("node(s) were out of disk space", "unschedulable"),
    ("didn't match the requested node name", "node-name"),
    ("didn't match the requested hostname", "node-name"),
    ("volume node affinity conflict", "volume"),
    ("PersistentVolume", "volume"),
    ("persistentvolume", "volume"),
    ("persistent volumes to bind", "volume"),
    ("enough free storage", "volume"),
    ("pvc(s) bound to non-existent", "volume"),
    ("available volume zone", "volume"),
    ("no available disk", "volume"),
    ("max volume count", "volume"),
    ("ephemeral volume controller", "volume"),
    ("CSI driver is not installed", "volume"),
    ("pod topology spread constraints", "spread"),
    ("pod anti-affinity rules", "anti-affinity"),
    ("existing pods anti-affinity", "anti-affinity"),
    ("pod affinity/anti-affinity", "anti-affinity"),
    ("pod affinity rules", "pod-affinity"),
    ("pod affinity terms conflict", "affinity"),
    ("node affinity", "affinity"),
    ("node selector", "affinity"),
    ("plugin(s) [NodeAffinity]", "affinity"),
    ("plugin NodeAffinity", "affinity"),
    ("untolerated taint", "taint"),
    ("had taint", "taint"),
    ("didn't tolerate", "taint"),
    ("free ports", "ports"),
    ("Too many pods", "resource"),
    ("resourceclaim", "claim"),
    ("resource claim", "claim"),
    ("allocate all claims", "claim"),
    ("device class", "claim"),
    ("cannot fit resource", "claim"),
    ("sibling pods", "gang"),
    ("minCount pods from a gang", "gang"),
    ("pod group", "gang"),
    ("gang", "gang"),
    ("pgName", "gang"),
    ("node group size reached", "group-limit"),
    ("max limit reached", "group-limit"),
    ("limit reached", "group-limit"),
    ("backoff after failed scale-up", "group-limit"),
    ("not ready for scale-up", "group-limit"),
)


def _count(number: int, text: str) -> Iterator[Count]:
    short = _regex(r"Insufficient (\S+)").fullmatch(text)
    if short:
        yield Count(number=number, text=text, kind="resource", resource=short.group(1))
        return
    kai = _regex(r"node\(s\) didn't have enough (?:resources|of mig profile): (.+)").fullmatch(text)
    if kai:
        names = {"CPU cores": "cpu", "GPUs": "nvidia.com/gpu", "GPU memory": "nvidia.com/gpu"}
        for name in kai.group(1).split(", "):
            yield Count(number=number, text=text, kind="resource", resource=names.get(name, name))
        return
    if _regex(r"Card\w*Insufficient\w*|NodeInsufficientDevice|ExclusiveDeviceAllocateConflict").search(text):  # HAMi
        yield Count(number=number, text=text, kind="resource", resource="a share of a GPU")
        return
    if "resource fit failed" in text:  # Volcano, which does not say which resource
        yield Count(number=number, text=text, kind="resource")
        return
    kind: Kind = next((kind for piece, kind in _TEXTS if piece in text), "other")
    resource = "pods" if text == "Too many pods" else ""
    taint = _regex(r"\{([^}]*)\}").search(text) if kind == "taint" else None
    yield Count(number=number, text=text, kind=kind, resource=resource, taint=taint.group(1).strip() if taint else "")


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

    @property
    def state(self) -> bool:
        """Whether it says that the node itself is unfit: cordoned, not ready, under pressure, going away."""
        return self.kind == "unschedulable" or (self.taint is not None and is_state_taint(self.taint))


class NodeVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a node says to the pod: all reasons against it, in the scheduler's order."""

    node: Node
    reasons: tuple[Reason, ...]
    #: None: nothing known stops it, but not everything could be judged
    fits: bool | None

    @property
    def first(self) -> tuple[Reason, ...]:
        """The reasons of the first failing plugin: all that the scheduler says of this node."""
        return tuple(r for r in self.reasons if r.plugin == self.reasons[0].plugin)

    def lacking(self, resource: str) -> Reason | None:
        """The reason that says that a resource does not suffice."""
        return next((r for r in self.reasons if r.kind == "resource" and r.resource == resource), None)


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
_JUDGED: tuple[Kind, ...] = ("unschedulable", "node-name", "taint", "affinity", "ports", "resource")


def say_amount(resource: str, amount: int) -> str:
    """An amount in the scheduler's units as a person writes it: cores, GiB, pieces."""
    if resource == "cpu":
        return say_cores(amount)
    if resource in ("memory", "ephemeral-storage") or resource.startswith("hugepages-"):
        return say_bytes(amount)
    return str(amount)


def judge(node: Node, ask: Ask, *, sure: bool) -> NodeVerdict:
    """All reasons that a node has against a pod; `sure` says whether no reason means that it fits."""
    reasons = tuple(reason for judged in _FILTERS for reason in judged(node, ask))
    if ask.named is not None and node.name not in ask.named:
        reasons = tuple(sorted(reasons, key=lambda reason: reason.kind != "affinity"))
    known = sure and all(node.offers(resource) is not None for resource in ask.requests)
    return NodeVerdict(node=node, reasons=reasons, fits=False if reasons else True if known else None)


#: Who reports FailedScheduling without being a scheduler: they speak of nodes that they could add.
_PROVISIONERS = ("karpenter", "autoscaler", "eks-auto-mode", "node-autoprovision")


def is_provisioner(reporter: str) -> bool:
    """Whether an event's reporter adds nodes rather than choosing one."""
    return any(name in reporter for name in _PROVISIONERS)


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
            if count.kind in _JUDGED:
                resource = "pods" if count.resource == "pods" else count.resource
                theirs[count.kind, resource] += count.number
        ours = Counter((kind, resource) for v in self.verdicts for kind, resource in _texts_of(v))
        return ours == theirs


def _texts_of(verdict: NodeVerdict) -> set[tuple[Kind, str]]:
    """A node's share of the histogram: each text counts once per node."""
    return {(r.kind, r.resource) for r in verdict.first} if verdict.reasons else set()


#: Groups of nodes that a report shows one by one; the rest is its last line.
_MOST_GROUPS = 8


def placement(pending: Pending) -> tuple[Placement, ...]:
    """The nodes grouped by verdict, the most promising first: what would have to change to place the pod there."""
    groups: dict[tuple[Any, ...], list[NodeVerdict]] = {}
    for verdict in pending.verdicts:
        groups.setdefault((verdict.fits, *map(_alike, verdict.reasons)), []).append(verdict)
    ordered = sorted(groups.values(), key=lambda group: _promise(pending, group[0]))
    shown = [
        Placement(nodes=_names(group), fits=group[0].fits is True, reasons=tuple(_said_of(pending, group)))
        for group in ordered[:_MOST_GROUPS]
    ]
    rest = [verdict for group in ordered[_MOST_GROUPS:] for verdict in group]
    if rest:
        texts = Counter(r.text for v in rest for r in v.first)
        reasons = tuple(f"{number} {text}" for text, number in sorted(texts.items()))
        shown.append(Placement(nodes=_names(rest), fits=any(v.fits for v in rest), reasons=reasons))
    return tuple(shown)


def _names(verdicts: list[NodeVerdict]) -> tuple[str, ...]:
    return tuple(sorted(v.node.name for v in verdicts))


def _alike(reason: Reason) -> tuple[str, ...]:
    """What makes two reasons one line of the table: the same words and the same names, whatever the numbers."""
    names = tuple(m.demand for m in reason.mismatches)
    never = reason.allocatable is not None and reason.asked > reason.allocatable
    return (reason.text, reason.detail if reason.taint else "", str(never), *names)


def _promise(pending: Pending, verdict: NodeVerdict) -> tuple[bool, bool, bool, int, str]:
    offers = all(verdict.node.offers(r) != 0 for r in pending.accelerators)
    return (
        verdict.fits is not True,
        not offers,
        verdict.node.control_plane and not offers,
        len(verdict.reasons),
        verdict.node.name,
    )


def _said_of(pending: Pending, group: list[NodeVerdict]) -> Iterator[str]:
    first = group[0]
    for at, reason in enumerate(first.reasons):
        if reason.kind != "resource" or len(group) == 1 or reason.allocatable == 0:
            yield reason.detail if len(group) == 1 or reason.kind != "affinity" else _demands(reason)
            continue
        others = [v.reasons[at] for v in group]
        frees = sorted({r.free or 0 for r in others})
        span = say_amount(reason.resource, frees[0])
        if frees[-1] != frees[0]:
            span += f" to {say_amount(reason.resource, frees[-1])}"
        yield f"{reason.resource}: {say_amount(reason.resource, reason.asked)} asked, {span} free"
    if first.fits is None:
        rest = ", ".join(pending.unjudged)
        yield f"nothing known stops it; {rest} not judged" if rest else "nothing known stops it"


def _demands(reason: Reason) -> str:
    return "; ".join(dict.fromkeys(m.demand for m in reason.mismatches))


def names_of(verdicts: Iterable[NodeVerdict], most: int = 3) -> str:
    """The names of some nodes: `gpu-1, gpu-2 and 4 more`."""
    names = sorted(v.node.name for v in verdicts)
    shown = ", ".join(names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
