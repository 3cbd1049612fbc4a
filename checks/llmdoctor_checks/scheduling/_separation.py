"""What separates a pod from the nodes that are meant for it: one analysis, so that no two checks contradict each other.

The largest number in the scheduler's message is the true cause in little more than half of realistic GPU clusters:
nodes without GPUs and control planes refuse for reasons that nobody would change. So each node is asked for everything
that keeps the pod off it, nodes that were never meant for the pod are left out, and what stands between the pod and
the nearest of the rest is the cause. Without nodes the scheduler's own message is all there is; then its order of
filters helps: a node that failed late has passed every filter before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, get_args

import msgspec

from kubectl_llmdoctor.api import (
    STAGES,
    Confidence,
    Count,
    Holder,
    Kind,
    Node,
    NodeVerdict,
    Pending,
    Reason,
    Said,
    dig,
    is_accelerator,
    k8s,
    parse,
    parse_time,
    top_of,
)
from llmdoctor_checks.scheduling._claims import on_one_node
from llmdoctor_checks.scheduling._karpenter import pools

Obstacle = Literal[
    "claim",
    "volume",
    "spread",
    "pod-affinity",
    "ports",
    "pods",
    "ephemeral",
    "extended",
    "cpu-memory",
    "plugin",
    "node",
    "own-taint",
    "gpu",
    "taint",
    "gpu-size",
    "absent",
    "selector",
]

#: Which of several equally near ways out is the cause: first what stops a pod on a node whose GPUs are free for it,
#: then what somebody broke (device plugin, cordon), then a shortage, last what the pod asks for by name and keeps.
PRIORITY: tuple[Obstacle, ...] = get_args(Obstacle)

_IDS: dict[Obstacle, str] = {
    "claim": "dra-claim-pending",
    "volume": "pvc-unbound",
    "spread": "pod-spread-unsatisfied",
    "pod-affinity": "node-selector-mismatch",
    "ports": "host-port-conflict",
    "pods": "pods-per-node-limit",
    "ephemeral": "ephemeral-storage-insufficient",
    "extended": "extended-resource-insufficient",
    "cpu-memory": "cpu-memory-insufficient",
    "plugin": "device-plugin-down",
    "node": "node-not-ready",
    "own-taint": "taint-untolerated",
    "gpu": "gpu-insufficient",
    "taint": "taint-untolerated",
    "gpu-size": "gpu-request-exceeds-node",
    "absent": "gpu-resource-absent",
    "selector": "node-selector-mismatch",
}

#: What stands in the way by other objects: volumes, pods, claims. The scheduler looks at it last.
_OF_OTHERS: dict[Kind, Obstacle] = {
    "volume": "volume",
    "spread": "spread",
    "anti-affinity": "spread",
    "pod-affinity": "pod-affinity",
    "claim": "claim",
}

#: The filters behind them: of a node that one of them could not judge, the scheduler's words on it are the likelier.
_FILTERS: dict[str, tuple[Obstacle, ...]] = {
    "PodTopologySpread": ("spread",),
    "InterPodAffinity": ("spread", "pod-affinity"),
    "VolumeBinding": ("volume",),
    "VolumeZone": ("volume",),
    "VolumeRestrictions": ("volume",),
    "NodeVolumeLimits": ("volume",),
    "DynamicResources": ("claim",),
}

#: What depends on how many of a resource the nodes have and who holds them.
_OF_PODS: tuple[Obstacle, ...] = ("gpu", "gpu-size", "absent", "plugin")

#: Kinds under which the scheduler counts an obstacle.
_HEARD_AS: dict[Obstacle, tuple[Kind, ...]] = {
    "node": ("unschedulable", "taint"),
    "own-taint": ("taint",),
    "taint": ("taint",),
    "selector": ("affinity", "node-name"),
    "ports": ("ports",),
    **{obstacle: tuple(k for k, o in _OF_OTHERS.items() if o == obstacle) for obstacle in _OF_OTHERS.values()},
}

#: NVIDIA's GPU operator writes there how far the upgrade of a node has come (k8s-operator-libs, pkg/upgrade/consts.go).
UPGRADE_STATE = "nvidia.com/gpu-driver-upgrade-state"

#: The ids that say that GPUs are short; a group of pods that lacks them for some members is more than that.
SHORTAGE = frozenset({"gpu-insufficient", "gpu-fragmented"})

#: Kueue opens it when it has found nodes with room for all pods of the workload.
_TOPOLOGY_GATE = "kueue.x-k8s.io/topology"

#: How long after the end of its grace period a Terminating pod counts as stuck.
_STUCK_SECONDS = 60


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that separates the pod from nodes that are meant for it."""

    id: str
    obstacle: Obstacle
    confidence: Confidence
    #: 0 for the cause; then what must be mended as well, then other ways out
    rank: int = 0
    #: the nearest nodes, on which it stands in the way; empty where only the message speaks
    verdicts: tuple[NodeVerdict, ...] = ()
    #: the scheduler's words for it
    counts: tuple[Count, ...] = ()
    resource: str = ""
    #: what else stands in the way on the same nodes
    also: tuple[Obstacle, ...] = ()
    #: the pods whose end would make room, where they are the point
    holders: tuple[Holder, ...] = ()

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Its reasons on the nodes."""
        return tuple(r for v in self.verdicts for r in v.reasons if obstacle_of(v.node, r) == self.obstacle)

    def on(self, verdict: NodeVerdict) -> tuple[Reason, ...]:
        """Its reasons on one node."""
        return tuple(r for r in verdict.reasons if obstacle_of(verdict.node, r) == self.obstacle)

    @property
    def order(self) -> float:
        """Its place among causes of the same certainty."""
        return float(self.rank)


def causes(pending: Pending) -> tuple[Cause, ...]:
    """What keeps the pod off, the cause first; empty when nothing does or nothing is known."""
    return pending.once("separation", _causes)


def cause(pending: Pending, id: str) -> Cause | None:  # the field's term
    """The cause of this id, if it is one."""
    return next((c for c in causes(pending) if c.id == id), None)


def _causes(pending: Pending) -> tuple[Cause, ...]:
    if pending.gates:  # no scheduler has looked at it
        return tuple(_unplaced(pending))
    refused = tuple(_refused(pending))
    if refused:
        return refused
    found = _evaluated(pending)
    by_label = bool(found) and found[0].obstacle == "selector"
    groups = _kept_off_groups(pending, any_taint=by_label)
    if not found or found[0].id == "gpu-resource-absent" or _of_other_kind(found[0]):
        found = (*_unmade(pending), *groups, *found)[:1]
    elif by_label or (found[0].obstacle == "gpu" and not found[0].verdicts):
        found = (*groups, *found)[:1]
    return tuple(_as_sure(pending, one) for one in found)


def _of_other_kind(found: Cause) -> bool:
    """Whether all that is known is that nodes refuse it by taints and labels, none of which marks nodes with GPUs.

    Such nodes are of another kind than the pod needs; what makes nodes says more.
    """
    marked = any(_marks_gpus(*_key_and_value(count.taint)) for count in found.counts if count.taint)
    return found.obstacle in ("selector", "taint") and not found.verdicts and not marked


def _unplaced(pending: Pending) -> Iterator[Cause]:
    """What keeps Kueue's topology-aware scheduling from opening its gate: it looks for room on nodes itself."""
    found = _by_nodes(pending) if _TOPOLOGY_GATE in pending.gates else None
    if found and found[0].id in (*SHORTAGE, "gpu-request-exceeds-node"):
        yield _as_sure(pending, msgspec.structs.replace(found[0], confidence="likely"))


def _as_sure(pending: Pending, found: Cause) -> Cause:
    """A cause as sure as what was read allows.

    Where nodes or pods were not given, others may hold what seems free, and a resource may be there in another cut or be
    held by a pod that is gone. Only where the scheduler names one thing on all nodes, that is it.
    """
    alone = len(pending.said.counts) == 1 and found.obstacle not in _OF_PODS
    return (
        found
        if not pending.unread or alone or found.obstacle in _OF_OTHERS.values()
        else msgspec.structs.replace(found, confidence="possible")
    )


def _evaluated(pending: Pending) -> tuple[Cause, ...]:
    found = _by_nodes(pending)
    if found is not None and (not found or not pending.said.counts or _heard(pending, found[0])):
        return found
    return _by_message(pending) or found or ()


def _refused(pending: Pending) -> Iterator[Cause]:
    """A PreFilter's refusal: it says itself what is wrong, and no node was looked at."""
    for count in pending.said.refused:
        obstacle = _OF_OTHERS.get(count.kind) or ("selector" if count.kind == "affinity" else None)
        if obstacle:
            yield Cause(id=_IDS[obstacle], obstacle=obstacle, confidence="likely", counts=(count,))
            return


def wanted_accelerators(pending: Pending) -> dict[str, int]:
    """The accelerators it asks for, also by a name that only looks like one (`nvidia.com/gpus`)."""
    offered = {name for v in pending.verdicts for name, amount in v.node.amounts.items() if amount}
    return {
        name: amount
        for name, amount in pending.requests.items()
        if amount > 0 and (is_accelerator(name) or (name not in offered and _resembles(name)))
    }


def _resembles(resource: str) -> bool:
    domain, _, name = resource.partition("/")
    vendors = ("nvidia.com", "amd.com", "habana.ai", "gpu.intel.com", "aws.amazon.com", "huawei.com")
    shares = ("rdma", "mem", "core", "vgpu", "percent", "fabric")  # slices of a GPU, and networks
    return bool(name) and not any(s in name.lower() for s in shares) and (domain in vendors or "gpu" in name.lower())


def vendor(resource: str) -> str:
    """`nvidia.com` of `nvidia.com/mig-1g.10gb`."""
    return resource.partition("/")[0]


def obstacle_of(node: Node, reason: Reason) -> Obstacle | None:
    """What a reason is to the one who has to mend it."""
    if reason.state:
        return "node"
    match reason.kind:
        case "taint":
            return "own-taint" if reason.taint and _marks_gpus(reason.taint.key) else "taint"
        case "affinity" | "node-name":
            return "selector"
        case "ports":
            return "ports"
        case "resource":
            return _shortage(node, reason)
    return _OF_OTHERS.get(reason.kind)


def _marks_gpus(key: str, value: str = "gpu") -> bool:
    """Whether a taint says "GPU node" and not "kept for somebody"."""
    return is_accelerator(key) or (key in ("sku", "gpu", "accelerator") and (key != "sku" or "gpu" in value.lower()))


def _key_and_value(taint: str) -> tuple[str, str]:
    """The parts of a taint as the scheduler writes it: `sku: gpu`."""
    key, _, value = taint.partition(": ")
    return key.strip(), value.strip()


def _shortage(node: Node, reason: Reason) -> Obstacle:
    resource, have = reason.resource, reason.allocatable or 0
    if not is_accelerator(resource) and not (have == 0 and _resembles(resource)):
        return "plugin" if have == 0 and _silent_plugin(node, resource) else _plain(resource)
    should = node.should_offer(resource)
    if should:
        count = should[0]
        if have == 0 and (count is None or count >= reason.asked):
            return "plugin"
        if count is not None and count > have and (reason.free or 0) + count - have >= reason.asked:
            return "plugin"
    if have == 0:
        return "absent"
    return "gpu-size" if reason.asked > have else "gpu"


def _silent_plugin(node: Node, resource: str) -> bool:
    """Whether shares of a GPU (`nvidia.com/gpumem`) are missing with the GPU itself, which the same plugin advertises."""
    whole = f"{vendor(resource)}/gpu"
    return resource.startswith(whole) and not node.amounts.get(whole) and node.should_offer(whole) is not None


def _obstacles(verdict: NodeVerdict) -> tuple[Obstacle, ...]:
    """Everything that stands in the way on one node, the weightiest first, each once."""
    found = {o for reason in verdict.reasons if (o := obstacle_of(verdict.node, reason))}
    if verdict.node.ready is False:  # the taint for it may not have been set yet
        found.add("node")
    if "node" in found and _upgrading(verdict.node):
        found.discard("plugin")  # it is taken down for the upgrade, and comes back with it
    return tuple(o for o in PRIORITY if o in found)


def _upgrading(node: Node) -> bool:
    """Whether NVIDIA's GPU operator has begun to upgrade the driver of a node, and has not ended."""
    return node.labels.get(UPGRADE_STATE, "upgrade-done") not in ("upgrade-done", "upgrade-required", "")


def _meant(pending: Pending) -> list[NodeVerdict]:
    """The nodes that the pod can be meant for: those with its kind of accelerator, else all but control planes."""
    wanted = wanted_accelerators(pending)
    if wanted:
        return [v for v in pending.verdicts if all(_akin(pending, v.node, r) for r in wanted)]
    verdicts = pending.verdicts
    slices = _nodes_with_devices(pending) if pending.pod.spec.resource_claims else frozenset()
    if slices:
        return [v for v in verdicts if v.node.name in slices]
    workers = [v for v in verdicts if not (v.node.control_plane and any(_is_role_taint(r) for r in v.reasons))]
    return workers or list(verdicts)


def _is_role_taint(reason: Reason) -> bool:
    return reason.taint is not None and reason.taint.key.startswith("node-role.kubernetes.io/")


def _akin(pending: Pending, node: Node, resource: str) -> bool:
    if node.offers(resource) is None:
        return True  # the object was shortened: not known
    if (node.offers(resource) or 0) > 0 or node.should_offer(resource):
        return True
    if resource in pending.delegated:
        return node.name in _nodes_with_devices(pending)
    return any(amount and vendor(name) == vendor(resource) for name, amount in node.accelerators.items())


def _nodes_with_devices(pending: Pending) -> frozenset[str]:
    """Nodes for which a DRA driver publishes devices."""
    return pending.once("slices", _slices)


def _slices(pending: Pending) -> frozenset[str]:
    specs = [item.raw.get("spec") for item in pending.pod.cluster.items("ResourceSlice")]
    return frozenset(
        str(s["nodeName"]) for s in specs if isinstance(s, dict) and s.get("nodeName") and s.get("devices")
    )


def _by_nodes(pending: Pending) -> tuple[Cause, ...] | None:
    """The causes by the nodes of the snapshot; None where they cannot say."""
    if not pending.verdicts or any(v.fits for v in pending.verdicts):
        return () if any(v.fits for v in pending.verdicts) else None
    meant = _meant(pending)
    if not meant:
        return _absent(pending)
    standing = [(v, _obstacles(v)) for v in meant]
    open_ = [v for v, obstacles in standing if not obstacles]
    if open_:
        return _heard_only(pending, open_) or None
    # A living node that meets the selector shows that the selector means what it says; a dead one does not.
    if any("selector" not in o and "node" not in o for _, o in standing):
        standing = [(v, o) for v, o in standing if "selector" not in o]
    # A volume on a node's own disk goes nowhere else: a taint of that node is the point.
    held = [(v, o) for v, o in standing if "volume" not in o]
    if held and all(set(o) <= {"own-taint", "taint"} for _, o in held) and on_one_node(pending.pod):
        standing = held
    least = min(len(o) for _, o in standing)
    groups: dict[tuple[Obstacle, ...], list[NodeVerdict]] = {}
    for verdict, obstacles in standing:
        if len(obstacles) == least:
            groups.setdefault(obstacles, []).append(verdict)
    ordered = sorted(groups, key=lambda o: [PRIORITY.index(x) for x in o])
    found: list[Cause] = []
    for at, obstacles in enumerate(ordered):
        if at and (least > 1 or obstacles[0] in ("gpu-size", "absent", "selector")):
            break
        sure: Confidence = _confidence(pending, obstacles[0], alone=len(ordered) == 1) if not at else "possible"
        for obstacle in obstacles:
            also = tuple(o for o in obstacles if o != obstacle)
            made = _made(pending, obstacle, tuple(groups[obstacles]), sure, also)
            if made.id not in {c.id for c in found}:
                found.append(msgspec.structs.replace(made, rank=len(found)))
    return tuple(found)


def _confidence(pending: Pending, obstacle: Obstacle, *, alone: bool) -> Confidence:
    """Never certain: that no node takes the pod is a fact, which of the ways out was meant is a judgement.

    So it does not depend on how much of the cluster could be read, and a recorded case gives what the live one gave.
    """
    if alone and pending.certain:
        return "likely"
    if pending.agrees or pending.nodes_complete or _kinds(obstacle) & {c.kind for c in pending.said.all}:
        return "likely"
    return "possible"


def _kinds(obstacle: Obstacle) -> set[Kind]:
    return set(_HEARD_AS.get(obstacle, ("resource",)))


def _heard(pending: Pending, found: Cause) -> bool:
    """Whether the scheduler speaks of this obstacle too."""
    if found.obstacle in ("absent", "plugin") or found.counts or pending.agrees:
        return True
    return bool(_kinds(found.obstacle) & {c.kind for c in pending.said.all})


def _heard_only(pending: Pending, open_: list[NodeVerdict]) -> tuple[Cause, ...]:
    """Nodes that nothing known keeps off: the scheduler's words on plugins not worked out here are of them."""
    unjudged = {obstacle for v in open_ for gap in v.gaps for obstacle in _FILTERS.get(gap.plugin, ())}
    counts = sorted(pending.said.of(*_OF_OTHERS), key=lambda c: (_OF_OTHERS[c.kind] not in unjudged, -c.number, c.text))
    if not counts:
        return tuple(msgspec.structs.replace(c, verdicts=tuple(open_)) for c in _unregistered(pending))
    obstacle = _OF_OTHERS[counts[0].kind]
    same = tuple(c for c in counts if _OF_OTHERS[c.kind] == obstacle)
    served = next((r for r in pending.requests if r in pending.delegated), "")
    if obstacle == "claim" and served and not pending.pod.spec.resource_claims:
        # which devices are free is not known: else the nodes had said why not
        return (
            Cause(
                id="gpu-insufficient",
                obstacle="claim",
                confidence="likely",
                verdicts=tuple(open_),
                counts=same,
                resource=served,
            ),
        )
    return (Cause(id=_IDS[obstacle], obstacle=obstacle, confidence="likely", verdicts=tuple(open_), counts=same),)


def _unmade(pending: Pending) -> Iterator[Cause]:
    """No node is there because the provisioner's pool for it has a taint or a requirement that the pod does not meet."""
    for event in reversed(pending.scaling):
        said = pools(event.message) if event.reason == "FailedScheduling" else []
        hits = sorted((p for p in said if p.taint or p.demand), key=lambda pool: "gpu" not in pool.name.lower())
        # a pool that came further, to the choice of an instance type, may be the one that is meant
        alone = len(said) == 1 or (len(hits) == len(said) and len({pool.demand for pool in hits} - {""}) == 1)
        for pool in hits:
            gpus = not pending.accelerators or "gpu" in pool.name.lower() or alone
            if pool.taint and (gpus or _marks_gpus(pool.taint.partition("=")[0].partition(":")[0])):
                count = Count(number=1, text=pool.title, kind="taint", taint=pool.taint)
                yield Cause(id="taint-untolerated", obstacle="own-taint", confidence="likely", counts=(count,))
            elif pool.demand and gpus:
                count = Count(number=1, text=f"{pool.title}: {pool.demand}", kind="affinity")
                yield Cause(id="node-selector-mismatch", obstacle="selector", confidence="likely", counts=(count,))
        # taints and labels were met; a pool that came further has nodes where the volume is
        away = next((pool for pool in said if pool.volume), None)
        if away and not hits and not any(pool.typed for pool in said):
            text = f"{away.title} makes no node where it is: {away.volume}"
            count = Count(number=1, text=text, kind="volume")
            yield Cause(id="pvc-unbound", obstacle="volume", confidence="likely", counts=(count,))


def _kept_off_groups(pending: Pending, *, any_taint: bool = False) -> Iterator[Cause]:
    """The group whose nodes are meant for it has none, and a taint that the pod does not tolerate, by the cluster autoscaler.

    What no node is refused for is said of a group without nodes. Where the pod selects nodes that are not there any such group
    is meant; else one whose taint marks GPUs.
    """
    event = next((e for e in reversed(pending.scaling) if e.reason == "NotTriggerScaleUp"), None)
    known = {c.taint for c in pending.said.of("taint")}
    for count in parse(event.message.partition(": ")[2] or event.message).of("taint") if event else ():
        named = count.taint and not _of_control_plane(count.taint) and not _of_state(count.taint)
        if named and count.taint not in known and (any_taint or _marks_gpus(count.taint.partition(":")[0])):
            group = Count(
                number=count.number, text=f"node group, {count.number} by its count", kind="taint", taint=count.taint
            )
            yield Cause(id="taint-untolerated", obstacle="own-taint", confidence="likely", counts=(group,))


def _made(
    pending: Pending,
    obstacle: Obstacle,
    verdicts: tuple[NodeVerdict, ...],
    confidence: Confidence,
    also: tuple[Obstacle, ...],
) -> Cause:
    reasons = [next((r for r in v.reasons if obstacle_of(v.node, r) == obstacle), None) for v in verdicts]
    resource = next((r.resource for r in reasons if r and r.resource), "")
    counts = tuple(
        c for c in pending.said.all if c.kind in _kinds(obstacle) and (not resource or c.resource == resource)
    )
    made = Cause(
        id=_IDS[obstacle],
        obstacle=obstacle,
        confidence=confidence,
        verdicts=verdicts,
        counts=counts,
        resource=resource,
        also=also,
    )
    if obstacle == "gpu":
        return _shortage_of(pending, made)
    if obstacle == "extended":
        return _held(pending, made) or made
    if obstacle == "absent":
        return msgspec.structs.replace(made, id=_absent_id(pending, resource))
    return made


def _absent(pending: Pending) -> tuple[Cause, ...] | None:
    """No node has anything of the accelerator's kind."""
    for resource in wanted_accelerators(pending):
        if resource not in pending.delegated:
            counts = tuple(c for c in pending.said.all if c.resource == resource)
            sure: Confidence = "likely" if pending.certain or pending.nodes_complete else "possible"
            found = Cause(
                id=_absent_id(pending, resource), obstacle="absent", confidence=sure, counts=counts, resource=resource
            )
            return (found,)
    return None


def _absent_id(pending: Pending, resource: str) -> str:
    """Whether the devices are there in another cut (MIG), or not at all."""
    offered = {n for v in pending.verdicts for n, amount in v.node.accelerators.items() if amount}
    mig = any(n.startswith("nvidia.com/mig-") for n in offered)
    cut = any(v.node.labels.get("nvidia.com/mig.config.state") in ("failed", "pending") for v in pending.verdicts)
    if resource.startswith("nvidia.com/mig-") and (cut or any(vendor(n) == "nvidia.com" for n in offered)):
        return "mig-profile-mismatch"
    return "mig-profile-mismatch" if resource == "nvidia.com/gpu" and mig else "gpu-resource-absent"


def _shortage_of(pending: Pending, made: Cause) -> Cause:
    """Why the devices of a resource do not suffice on nodes that have enough of them when empty."""
    held, asked = _held(pending, made), pending.requests[made.resource]
    if held:
        return held
    free = sum((r.free or 0) for v in scattered(pending, made.resource) if (r := v.lacking(made.resource)))
    if free >= asked:
        return msgspec.structs.replace(made, id="gpu-fragmented")
    return made


def _held(pending: Pending, made: Cause) -> Cause | None:
    """A shortage that ends with pods which should be gone, or which the same update is to remove; None if it is neither."""
    asked = pending.requests.get(made.resource, 0)
    for id_, pick in (("gpu-held-by-dead-pod", stuck), ("rollout-deadlock", outgoing)):
        for verdict in made.verdicts:
            holders = [h for h in pick(pending, verdict.node.name) if h.requests.get(made.resource, 0)]
            reason = verdict.lacking(made.resource)
            freed = sum(h.requests[made.resource] for h in holders)
            if holders and reason and (reason.free or 0) + freed >= asked:
                return msgspec.structs.replace(made, id=id_, holders=tuple(holders))
    return None


def scattered(pending: Pending, resource: str) -> list[NodeVerdict]:
    """The nodes that lack enough of a resource and nothing else; one that is too small can take the pods of others."""
    alone = [v for v in pending.verdicts if _obstacles(v) in (("gpu",), ("gpu-size",))]
    return [v for v in alone if v.lacking(resource)]


def stuck(pending: Pending, node: str) -> list[Holder]:
    """Pods on a node that are Terminating for longer than their grace period (deletionTimestamp is its end)."""
    now = pending.pod.cluster.now
    found = []
    for holder in pending.usage.holders(node):
        end = parse_time(holder.pod.metadata.deletion_timestamp)
        if now and end and (now - end).total_seconds() > _STUCK_SECONDS:
            found.append(holder)
    return found


def outgoing(pending: Pending, node: str) -> list[Holder]:
    """Pods of the same Deployment's former revision on a node, where the update first adds and then removes."""
    if not surges(pending):
        return []
    revision, former = _revision(pending.pod.obj), []
    for holder in pending.usage.holders(node):
        meta = holder.pod.metadata
        item = pending.pod.cluster.item("Pod", meta.namespace, meta.name)
        workload = top_of(item, pending.pod.cluster) if item else None
        mine = pending.subject.workload
        if mine and workload and workload.item is mine.item and _revision(holder.pod) != revision:
            former.append(holder)
    return former


def surges(pending: Pending) -> bool:
    """Whether the pod is one that a rolling update adds before it removes an old one."""
    workload = pending.subject.workload
    if workload is None or workload.kind not in ("Deployment", "Rollout"):
        return False
    strategy = dig(workload.raw, "spec.strategy")
    strategy = strategy if isinstance(strategy, dict) else {}
    update = strategy.get("rollingUpdate")
    surge = update.get("maxSurge") if isinstance(update, dict) else None
    return strategy.get("type", "RollingUpdate") == "RollingUpdate" and str(surge) not in ("0", "0%")


def _revision(pod: k8s.Pod) -> str:
    """The ReplicaSet of a pod, which each revision has for itself; a snapshot that somebody cut down may lack either."""
    owner = next((owner.name for owner in pod.metadata.owner_references if owner.controller), "")
    return str(pod.metadata.labels.get("pod-template-hash", owner))


def _by_message(pending: Pending) -> tuple[Cause, ...]:
    """The causes by the scheduler's words alone: the node that failed latest has passed all filters before."""
    said = pending.said
    late = [c for c in said.counts if c.kind in _OF_OTHERS]
    if late:
        last = max(late, key=lambda c: (STAGES.index(c.kind), c.number))
        obstacle = _OF_OTHERS[last.kind]
        return (_told(obstacle, [c for c in late if _OF_OTHERS[c.kind] == obstacle]),)
    resources, ports = said.of("resource"), said.of("ports")
    if ports and (not resources or _occupied(said) == 0):
        return (_told("ports", ports),)
    # a node that is asked for its devices has passed the filters before
    return _by_resources(pending, resources) if resources else _unregistered(pending) or _by_filters(pending)


def _unregistered(pending: Pending) -> tuple[Cause, ...]:
    """HAMi, or Volcano's deviceshare, knows no devices of the nodes that got as far as its own filter."""
    counts = pending.said.of("unregistered")
    resource = next(iter(wanted_accelerators(pending)), "")
    return (_told("plugin", counts, resource=resource),) if counts and not pending.said.of("resource") else ()


def _occupied(said: Said) -> int | None:
    """Nodes that fail for resources only because others use them; None where the message does not tell.

    `Preemption is not helpful` counts nodes that could never hold the pod as they are; the rest are occupied, by ports
    or pods that repel this one too.
    """
    if said.total is None or said.helpless is None:
        return None
    return max(said.total - said.helpless - said.number("ports", "spread", "anti-affinity"), 0)


def _by_filters(pending: Pending) -> tuple[Cause, ...]:
    """The causes where no node got as far as its resources."""
    said = pending.said
    taints = said.of("taint")
    kept = [c for c in taints if c.taint and not _of_control_plane(c.taint) and not _of_state(c.taint)]
    unnamed = [c for c in taints if not c.taint]
    selector = said.of("affinity", "node-name")
    state = [c for c in said.counts if c.kind == "unschedulable" or (c.taint and _of_state(c.taint))]
    if kept:
        return (_told("taint", kept),)
    if selector:
        # Nodes with GPUs are often tainted, and a node without GPUs fails at a selector that is right.
        return (_told("taint", unnamed, "possible"),) if unnamed else (_told("selector", selector),)
    if unnamed:
        return (_told("taint", unnamed, "possible" if state else "likely"),)
    if state:
        return (_told("node", state),)
    return (_told("taint", taints),) if taints else ()


def _told(
    obstacle: Obstacle,
    counts: Iterable[Count],
    confidence: Confidence = "likely",
    resource: str = "",
    id: str = "",
) -> Cause:
    return Cause(
        id=id or _IDS[obstacle], obstacle=obstacle, confidence=confidence, counts=tuple(counts), resource=resource
    )


def _of_control_plane(taint: str) -> bool:
    return taint.startswith(("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"))


def _of_state(taint: str) -> bool:
    return taint.startswith(("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/", "ToBeDeleted"))


def _by_resources(pending: Pending, resources: tuple[Count, ...]) -> tuple[Cause, ...]:
    """Which resource is short where it matters: on nodes that have the accelerator free, if there are such."""
    wanted = wanted_accelerators(pending)
    of_gpu = [c for c in resources if c.resource in wanted or is_accelerator(c.resource) or (wanted and not c.resource)]
    others = [c for c in resources if c not in of_gpu]
    said = pending.said
    elsewhere = sum(c.number for c in said.counts if c.kind != "resource")
    reached = said.total - elsewhere if said.total is not None else sum(c.number for c in resources)
    reached = max(reached, *(c.number for c in resources))  # HAMi gives several reasons for one node
    lacking = max((c.number for c in of_gpu), default=0)
    if others and lacking < reached:  # some node has the accelerators free and lacks something else
        top = max(others, key=lambda c: (c.number, c.resource))
        obstacle = _plain(top.resource)
        made = _told(obstacle, [c for c in others if _plain(c.resource) == obstacle], resource=top.resource)
        return (_replacing(pending, made) if obstacle == "extended" else made,)
    if not of_gpu:
        return ()
    resource = max(of_gpu, key=lambda c: c.number).resource or next(iter(wanted))
    marked = [c for c in said.of("taint") if _marks_gpus(*_key_and_value(c.taint))]
    if marked and not pending.verdicts:  # nodes without GPUs lack them, too
        return (_told("own-taint", marked), msgspec.structs.replace(_told("gpu", of_gpu, "possible", resource), rank=1))
    if _occupied(said) == 0:
        return (_never(pending, resource, of_gpu),)
    return (_replacing(pending, _told("gpu", of_gpu, resource=resource)),)


def _replacing(pending: Pending, made: Cause) -> Cause:
    """The same shortage, where pods hold what the pod needs which should be gone, or which the same update is to remove."""
    resource = made.resource
    for id_, pick in (("gpu-held-by-dead-pod", stuck), ("rollout-deadlock", outgoing)):
        for node in pending.usage.nodes:
            holders = [h for h in pick(pending, node) if h.requests.get(resource, 0)]
            if holders and sum(h.requests[resource] for h in holders) >= pending.requests.get(resource, 1):
                return msgspec.structs.replace(made, id=id_, holders=tuple(holders))
    return made


def _never(pending: Pending, resource: str, counts: list[Count]) -> Cause:
    """No node that got as far could ever hold so many: it has fewer of them, or none at all."""
    said, asked = pending.said, pending.requests.get(resource, 1)
    taints = said.of("taint")
    kept = [c for c in taints if c.taint and not _of_control_plane(c.taint) and not _of_state(c.taint)]
    if kept:
        return _told("taint", kept)
    if resource.startswith("nvidia.com/mig-"):
        return _told("absent", counts, "possible", resource, "mig-profile-mismatch")
    if _picks_gpus(pending):  # these nodes have the label of a GPU node
        return _told("plugin" if asked == 1 else "gpu-size", counts, "possible", resource)
    unnamed = [c for c in taints if not c.taint]
    if sum(c.number for c in unnamed) not in (0, 1, 3):  # one or three are most often the control plane's
        return _told("taint", unnamed, "possible")
    alone = len(said.counts) == len(counts)
    away = [c for c in said.counts if c.kind == "unschedulable" or (c.taint and _of_state(c.taint))]
    if away:  # the others could never hold it, and a node that is away says nothing of its GPUs
        return _told("node", away, "possible")
    if asked > 1:
        return _told("gpu-size", counts, "possible", resource)
    return _told("absent", counts, "likely" if alone else "possible", resource)


def _picks_gpus(pending: Pending) -> bool:
    """Whether the pod selects nodes by a label that only GPU nodes have."""
    keys = [*pending.pod.spec.node_selector]
    return any(
        key.startswith(("nvidia.com/gpu", "cloud.google.com/gke-accelerator", "amd.com/gpu")) for key in keys
    ) or any(key.startswith("karpenter.k8s.aws/instance-gpu") for key in keys)


def _plain(resource: str) -> Obstacle:
    known: dict[str, Obstacle] = {
        "": "cpu-memory",
        "cpu": "cpu-memory",
        "memory": "cpu-memory",
        "pods": "pods",
        "ephemeral-storage": "ephemeral",
    }
    return known.get(resource, "extended")
