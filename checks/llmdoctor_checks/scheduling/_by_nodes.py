"""What separates a pod from the nodes that are meant for it, by the nodes of the snapshot."""

import re

import msgspec

from kubectl_llmdoctor.api import Confidence, Node, NodeVerdict, Pending, Reason
from llmdoctor_checks.scheduling._by_message import sureness, unregistered
from llmdoctor_checks.scheduling._claims import on_one_node
from llmdoctor_checks.scheduling._holders import outgoing, stuck
from llmdoctor_checks.scheduling._obstacles import (
    IDS,
    OF_OTHERS,
    PRIORITY,
    Cause,
    Obstacle,
    kinds_of,
    obstacle_of,
    obstacles_on,
    vendor,
    wanted_accelerators,
)

#: The filters behind obstacles by other objects: of a node that one of them could not judge, the scheduler's words are
#: the likelier.
_FILTERS: dict[str, tuple[Obstacle, ...]] = {
    "PodTopologySpread": ("spread",),
    "InterPodAffinity": ("spread", "pod-affinity"),
    "VolumeBinding": ("volume",),
    "VolumeZone": ("volume",),
    "VolumeRestrictions": ("volume",),
    "NodeVolumeLimits": ("volume",),
    "DynamicResources": ("claim",),
}


#: How many slices of a MIG profile a GPU has at the least, by the compute slices of each: of those with twice the memory fewer fit, and
#: an A30 has four in all. Of those with media engines (`.me`) there is one.
_SLICES = {"1": 4, "2": 2, "3": 2}

#: A node, and what keeps the pod off it.
_Standing = tuple[NodeVerdict, tuple[Obstacle, ...]]


def _meant(pending: Pending) -> list[NodeVerdict]:
    """The nodes that the pod can be meant for: those with its kind of accelerator, else all but control planes."""
    if wanted := wanted_accelerators(pending):
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


def by_nodes(pending: Pending) -> tuple[Cause, ...] | None:
    """The causes by the nodes of the snapshot; None where they cannot say."""
    if any(v.fits for v in pending.verdicts):
        return ()
    if not pending.verdicts:
        return None
    meant = _meant(pending)
    if not meant:
        return _absent(pending)
    standing = _partnered(pending, [(v, _standing_alone(v, obstacles_on(v))) for v in meant])
    if open_ := [v for v, obstacles in standing if not obstacles]:
        return _heard_only(pending, open_) or None
    return _causes(pending, _nearest(_within_reach(pending, standing)))


def _within_reach(pending: Pending, standing: list[_Standing]) -> list[_Standing]:
    """The nodes to which the pod can go by what it has chosen already: its selector, its devices, its volume."""
    # A living node that meets the selector shows that the selector means what it says; a dead one does not.
    if any("selector" not in o and "node" not in o for _, o in standing):
        standing = [(v, o) for v, o in standing if "selector" not in o]
    # A claim that has its devices goes nowhere else either: what is wrong there is the point.
    standing = [(v, o) for v, o in standing if not _away(v)] or standing
    # A volume on a node's own disk goes nowhere else: a taint or a cordon of that node is the point.
    held = [(v, o) for v, o in standing if "volume" not in o]
    if held and all(set(o) <= {"own-taint", "taint", "node"} for _, o in held) and on_one_node(pending.pod):
        return held
    return standing


def _nearest(standing: list[_Standing]) -> dict[tuple[Obstacle, ...], tuple[NodeVerdict, ...]]:
    """The nodes with the fewest obstacles, by these; those first whose obstacles are the likelier cause."""
    least = min(len(obstacles) for _, obstacles in standing)
    alike = {obstacles for _, obstacles in standing if len(obstacles) == least}
    ordered = sorted(alike, key=lambda obstacles: [PRIORITY.index(x) for x in obstacles])
    return {obstacles: tuple(v for v, o in standing if o == obstacles) for obstacles in ordered}


def _causes(pending: Pending, groups: dict[tuple[Obstacle, ...], tuple[NodeVerdict, ...]]) -> tuple[Cause, ...]:
    """The obstacles of the first group, and as possible ones those of the others where a single thing would have to change."""
    found: list[Cause] = []
    for at, (obstacles, verdicts) in enumerate(groups.items()):
        if at and (len(obstacles) > 1 or obstacles[0] in ("gpu-size", "absent", "selector")):
            break
        sure: Confidence = _confidence(pending, obstacles[0], alone=len(groups) == 1) if not at else "possible"
        gone: frozenset[Obstacle] = frozenset()
        for obstacle in obstacles:
            if obstacle in gone:
                continue
            made = _made(pending, obstacle, verdicts, sure, tuple(o for o in obstacles if o != obstacle))
            if freed := _freed_as_well(made):
                gone |= freed
                made = msgspec.structs.replace(made, also=tuple(o for o in made.also if o not in freed))
            if made.id not in {c.id for c in found}:
                found.append(msgspec.structs.replace(made, rank=len(found)))
    return tuple(found)


def _freed_as_well(made: Cause) -> frozenset[Obstacle]:
    """What else is short on the node and comes free with the pods whose devices are waited for: their CPU, memory and place."""
    where = {h.pod.spec.node_name for h in made.holders}
    verdict = next((v for v in made.verdicts if v.node.name in where), None)
    if verdict is None:
        return frozenset()
    held: list[Obstacle] = [
        o
        for o in made.also
        if all(_freed(made, verdict.node, r) for r in verdict.reasons if obstacle_of(verdict.node, r) == o)
    ]
    return frozenset(held)


def _freed(made: Cause, node: Node, reason: Reason) -> bool:
    """Whether an amount that is short is there once the holders are gone."""
    if reason.kind != "resource" or reason.state:
        return False
    of = [
        1 if reason.resource == "pods" else h.requests.get(reason.resource, 0)
        for h in made.holders
        if h.pod.spec.node_name == node.name
    ]
    return (reason.free or 0) + sum(of) >= reason.asked


def _away(verdict: NodeVerdict) -> bool:
    """Whether the devices of a claim of the pod, chosen already, are out of reach from a node."""
    return any(reason.kind == "claim" and reason.mismatches for reason in verdict.reasons)


def _standing_alone(verdict: NodeVerdict, obstacles: tuple[Obstacle, ...]) -> tuple[Obstacle, ...]:
    """Without what only follows: no device plugin runs on a node that is not ready."""
    if "node" in obstacles and verdict.node.ready is False:
        return tuple(one for one in obstacles if one != "plugin")
    return obstacles


def _partnered(pending: Pending, standing: list[_Standing]) -> list[_Standing]:
    """The nodes where the pod finds what its pod affinity wants, if there are any: it can go nowhere else."""
    if not pending.said.of("pod-affinity"):
        return standing
    beside = [
        (verdict, obstacles)
        for verdict, obstacles in standing
        if not {"pod-affinity", "node"} & set(obstacles)
        and all(gap.plugin != "InterPodAffinity" for gap in verdict.gaps)
    ]
    return beside or standing


def _confidence(pending: Pending, obstacle: Obstacle, *, alone: bool) -> Confidence:
    """Never certain: that no node takes the pod is a fact, which of the ways out was meant is a judgement.

    So it does not depend on how much of the cluster could be read, and a recorded case gives what the live one gave.
    """
    if alone and pending.certain:
        return "likely"
    if pending.agrees or pending.nodes_complete or kinds_of(obstacle) & {c.kind for c in pending.said.all}:
        return "likely"
    return "possible"


def _heard_only(pending: Pending, open_: list[NodeVerdict]) -> tuple[Cause, ...]:
    """Nodes that nothing known keeps off: the scheduler's words on plugins not worked out here are of them."""
    unjudged = {obstacle for v in open_ for gap in v.gaps for obstacle in _FILTERS.get(gap.plugin, ())}
    counts = sorted(pending.said.of(*OF_OTHERS), key=lambda c: (OF_OTHERS[c.kind] not in unjudged, -c.number, c.text))
    if not counts:
        return tuple(msgspec.structs.replace(c, verdicts=tuple(open_)) for c in unregistered(pending))
    obstacle = OF_OTHERS[counts[0].kind]
    same = tuple(c for c in counts if OF_OTHERS[c.kind] == obstacle)
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
    sure = sureness(obstacle, pending.said)
    return (Cause(id=IDS[obstacle], obstacle=obstacle, confidence=sure, verdicts=tuple(open_), counts=same),)


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
        c for c in pending.said.all if c.kind in kinds_of(obstacle) and (not resource or c.resource == resource)
    )
    made = Cause(
        id=IDS[obstacle],
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
    return msgspec.structs.replace(made, id=_absent_id(pending, resource)) if obstacle == "absent" else made


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
    if any(half_cut(verdict.node, made.resource) for verdict in made.verdicts):
        return msgspec.structs.replace(made, id="mig-profile-mismatch")
    held = _held(pending, made)
    # KAI is asked by an annotation
    asked = pending.requests.get(made.resource) or max((r.asked for r in made.reasons), default=1)
    if held:
        return held
    free = sum((r.free or 0) for v in scattered(pending, made.resource) if (r := v.lacking(made.resource)))
    return msgspec.structs.replace(made, id="gpu-fragmented") if free >= asked else made


def half_cut(node: Node, resource: str) -> bool:
    """Whether a node has fewer slices of a MIG profile than the manager was to make, which has not come to its end.

    A failed change to another layout leaves the slices of before: only a layout of nothing but this profile counts.
    """
    profile = resource.removeprefix("nvidia.com/mig-")
    wanted = profile != resource and node.labels.get("nvidia.com/mig.config") == f"all-{profile}"
    if not wanted or node.labels.get("nvidia.com/mig.config.state") not in ("failed", "pending"):
        return False
    each = 1 if ".me" in profile else _SLICES.get(profile[:1], 1)
    gpus = re.fullmatch(r"[1-9]\d?", node.labels.get("nvidia.com/gpu.count", ""))
    return (node.allocatable(resource) or 0) < each * (int(gpus[0]) if gpus else 1)


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
    alone = [v for v in pending.verdicts if obstacles_on(v) in (("gpu",), ("gpu-size",))]
    return [v for v in alone if v.lacking(resource)]
