"""What separates a pod from the nodes that are meant for it: one analysis, so that no two checks contradict each other.

The largest number in the scheduler's message is the true cause in little more than half of realistic GPU clusters:
nodes without GPUs and control planes refuse for reasons that nobody would change. So each node is asked for everything
that keeps the pod off it, nodes that were never meant for the pod are left out, and what stands between the pod and
the nearest of the rest is the cause. Without nodes the scheduler's own message is all there is; then its order of
filters helps: a node that failed late has passed every filter before.
"""

from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import Count, Pending, parse
from llmdoctor_checks.scheduling._by_message import by_message, of_control_plane, of_state
from llmdoctor_checks.scheduling._by_nodes import by_nodes
from llmdoctor_checks.scheduling._karpenter import pools
from llmdoctor_checks.scheduling._kueue import for_room
from llmdoctor_checks.scheduling._obstacles import (
    IDS,
    OF_OTHERS,
    SHORTAGE,
    Cause,
    Obstacle,
    key_and_value,
    kinds_of,
    marks_gpus,
    wanted_accelerators,
)
from llmdoctor_checks.scheduling._on_its_way import comes_by_itself

#: What depends on how many of a resource the nodes have and who holds them.
_OF_PODS: tuple[Obstacle, ...] = ("gpu", "gpu-size", "absent", "plugin")

#: Who places the pods that a Fargate profile of EKS selects, each on a machine of its own, none of which has a GPU.
FARGATE = "fargate-scheduler"

#: Kueue opens it when it has found nodes with room for all pods of the workload; later releases set both gates on every pod, whether or
#: not its flavor has a topology.
_TOPOLOGY_GATE, _ADMISSION_GATE = "kueue.x-k8s.io/topology", "kueue.x-k8s.io/admission"


def causes(pending: Pending) -> tuple[Cause, ...]:
    """What keeps the pod off, the cause first; empty when nothing does, nothing is known, or waiting is all that it needs."""
    return () if awaited(pending) else pending.once("separation", _causes)


def awaited(pending: Pending) -> str:
    """In words, what is on its way and will let the pod go; empty where nothing is."""
    return pending.once("awaited", _awaited)


def _awaited(pending: Pending) -> str:
    found = pending.once("separation", _causes)
    return comes_by_itself(pending, found[0]) if found else ""


def cause(pending: Pending | None, id: str) -> Cause | None:  # the field's term
    """The cause of this id, if it is one."""
    return next((c for c in causes(pending) if c.id == id), None) if pending else None


def _causes(pending: Pending) -> tuple[Cause, ...]:
    if pending.gates:  # no scheduler has looked at it
        return tuple(_unplaced(pending))
    if pending.scheduler == FARGATE:  # the cluster's nodes are none of its
        wanted = list(wanted_accelerators(pending))[:1]
        return tuple(
            Cause(id="gpu-resource-absent", obstacle="absent", confidence="certain", resource=r) for r in wanted
        )
    if refused := tuple(_refused(pending)):
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
    marked = any(marks_gpus(*key_and_value(count.taint)) for count in found.counts if count.taint)
    return found.obstacle in ("selector", "taint") and not found.verdicts and not marked


def _unplaced(pending: Pending) -> Iterator[Cause]:
    """What keeps Kueue's topology-aware scheduling from opening its gate: it looks for room on nodes itself."""
    gates = pending.gates
    looks = _TOPOLOGY_GATE in gates and (_ADMISSION_GATE not in gates or for_room(pending.pod, pending.subject))
    found = by_nodes(pending) if looks else None
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
        if not pending.unread or alone or found.obstacle in OF_OTHERS.values()
        else msgspec.structs.replace(found, confidence="possible")
    )


def _evaluated(pending: Pending) -> tuple[Cause, ...]:
    found = by_nodes(pending)
    if found is not None and (not found or not pending.said.counts or _heard(pending, found[0])):
        return found
    return by_message(pending) or found or ()


def _refused(pending: Pending) -> Iterator[Cause]:
    """A PreFilter's refusal: it says itself what is wrong, and no node was looked at."""
    for count in pending.said.refused:
        obstacle = OF_OTHERS.get(count.kind) or ("selector" if count.kind == "affinity" else None)
        if obstacle:
            yield Cause(id=IDS[obstacle], obstacle=obstacle, confidence="likely", counts=(count,))
            return


def _heard(pending: Pending, found: Cause) -> bool:
    """Whether the scheduler speaks of this obstacle too."""
    if found.obstacle in ("absent", "plugin") or found.counts or pending.agrees:
        return True
    return bool(kinds_of(found.obstacle) & {c.kind for c in pending.said.all})


def _unmade(pending: Pending) -> Iterator[Cause]:
    """No node is there because the provisioner's pool for it has a taint or a requirement that the pod does not meet."""
    for event in reversed(pending.scaling):
        said = pools(event.message) if event.reason == "FailedScheduling" else []
        hits = sorted((p for p in said if p.taint or p.demand), key=lambda pool: "gpu" not in pool.name.lower())
        # a pool that came further, to the choice of an instance type, may be the one that is meant
        alone = len(said) == 1 or (len(hits) == len(said) and len({pool.demand for pool in hits} - {""}) == 1)
        for pool in hits:
            gpus = not pending.accelerators or "gpu" in pool.name.lower() or alone
            if pool.taint and (gpus or marks_gpus(pool.taint.partition("=")[0].partition(":")[0])):
                count = Count(number=1, text=pool.title, kind="taint", taint=pool.taint)
                yield Cause(id="taint-untolerated", obstacle="own-taint", confidence="likely", counts=(count,))
            elif pool.demand and gpus:
                count = Count(number=1, text=f"{pool.title}: {pool.demand}", kind="affinity")
                yield Cause(id="node-selector-mismatch", obstacle="selector", confidence="likely", counts=(count,))
        # taints and labels were met; a pool that came further has nodes where the volume is
        away = next((pool for pool in said if pool.volume), None)
        if away and not hits and not any(pool.typed for pool in said):
            text = f"{away.title} makes no node where the volume is: {away.volume}"
            count = Count(number=1, text=text, kind="volume")
            yield Cause(id="pvc-unbound", obstacle="volume", confidence="likely", counts=(count,))


def _kept_off_groups(pending: Pending, *, any_taint: bool) -> Iterator[Cause]:
    """The group whose nodes are meant for it has none, and a taint that the pod does not tolerate, by the cluster autoscaler.

    What no node is refused for is said of a group without nodes. Where the pod selects nodes that are not there any such group
    is meant; else one whose taint marks GPUs.
    """
    event = next((e for e in reversed(pending.scaling) if e.reason == "NotTriggerScaleUp"), None)
    known = {c.taint for c in pending.said.of("taint")}
    for count in parse(event.message.partition(": ")[2] or event.message).of("taint") if event else ():
        named = count.taint and not of_control_plane(count.taint) and not of_state(count.taint)
        if named and count.taint not in known and (any_taint or marks_gpus(count.taint.partition(":")[0])):
            group = Count(
                number=count.number, text=f"node group, {count.number} by its count", kind="taint", taint=count.taint
            )
            yield Cause(id="taint-untolerated", obstacle="own-taint", confidence="likely", counts=(group,))
