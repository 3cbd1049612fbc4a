"""What separates a pod from all nodes, by the scheduler's words alone: its order of filters helps."""

from collections.abc import Iterable

import msgspec

from kubectl_llmdoctor.api import GKE_GPU, STAGES, Confidence, Count, Pending, Said, expression, is_accelerator
from llmdoctor_checks.scheduling._holders import outgoing, stuck
from llmdoctor_checks.scheduling._obstacles import (
    IDS,
    OF_OTHERS,
    Cause,
    Obstacle,
    key_and_value,
    marks_gpus,
    obstacle_of_resource,
    wanted_accelerators,
)

#: Names of taints by which people keep nodes with GPUs for what needs them: `workload: aiml`, `dedicated: llm-inference`, `pool: a100`.
_SUGGESTS = expression(
    r"(?i)(?<![a-z0-9.])(?:[a-z]{0,12}gpu(?:s|pool|node)?|nvidia|cuda|[dh]gx|accelerat\w{1,6}|ai|ml|aiml|llms?|genai|inference"
    r"|a10g?|a[34]0|a[18]00|h20|h[128]00|g?b[23]00|l4|l40s?|t4|v100|mi\d{3}x?)(?![a-z0-9])"
)


def by_message(pending: Pending) -> tuple[Cause, ...]:
    """The causes by the scheduler's words alone: the node that failed latest has passed all filters before."""
    said = pending.said
    if late := [c for c in said.counts if c.kind in OF_OTHERS]:
        last = max(late, key=lambda c: (STAGES.index(c.kind), c.number))
        obstacle = OF_OTHERS[last.kind]
        return (_told(obstacle, [c for c in late if OF_OTHERS[c.kind] == obstacle], sureness(obstacle, said)),)
    resources, ports = said.of("resource"), said.of("ports")
    if ports and (not resources or _occupied(said) == 0):
        return (_told("ports", ports),)
    # a node that is asked for its devices has passed the filters before
    return _by_resources(pending, resources) if resources else unregistered(pending) or _by_filters(pending)


def unregistered(pending: Pending) -> tuple[Cause, ...]:
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
    taints, kept = said.of("taint"), _own_taints(said)
    unnamed = [c for c in taints if not c.taint]
    selector = said.of("affinity", "node-name")
    state = [c for c in said.counts if c.kind == "unschedulable" or (c.taint and of_state(c.taint))]
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


def sureness(obstacle: Obstacle, said: Said) -> Confidence:
    """How sure the scheduler's words make it that this keeps the pod off, of those that are about other objects.

    The pod that it is to stand beside may be on one of the nodes that it does not tolerate.
    """
    return "possible" if obstacle == "pod-affinity" and _own_taints(said) else "likely"


def _own_taints(said: Said) -> list[Count]:
    """The taints of nodes that are up and meant for work."""
    return [c for c in said.of("taint") if c.taint and not of_control_plane(c.taint) and not of_state(c.taint)]


def _told(
    obstacle: Obstacle, counts: Iterable[Count], confidence: Confidence = "likely", resource: str = "", id: str = ""
) -> Cause:
    return Cause(
        id=id or IDS[obstacle], obstacle=obstacle, confidence=confidence, counts=tuple(counts), resource=resource
    )


def of_control_plane(taint: str) -> bool:
    return taint.startswith(("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"))


def of_state(taint: str) -> bool:
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
        obstacle = obstacle_of_resource(top.resource)
        made = _told(
            obstacle, [c for c in others if obstacle_of_resource(c.resource) == obstacle], resource=top.resource
        )
        return (_replacing(pending, made) if obstacle == "extended" else made,)
    if not of_gpu:
        return ()
    resource = max(of_gpu, key=lambda c: c.number).resource or next(iter(wanted))
    marked = [c for c in said.of("taint") if marks_gpus(*key_and_value(c.taint)) or _SUGGESTS.search(c.taint)]
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
    taints, kept = said.of("taint"), _own_taints(said)
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
    if away := [
        c for c in said.counts if c.kind == "unschedulable" or (c.taint and of_state(c.taint))
    ]:  # the others could never hold it, and a node that is away says nothing of its GPUs
        return _told("node", away, "possible")
    if asked > 1:
        return _told("gpu-size", counts, "possible", resource)
    return _told("absent", counts, "likely" if alone else "possible", resource)


def _picks_gpus(pending: Pending) -> bool:
    """Whether the pod selects nodes by a label that only GPU nodes have."""
    keys = [*pending.pod.spec.node_selector]
    return any(key.startswith(("nvidia.com/gpu", GKE_GPU, "amd.com/gpu")) for key in keys) or any(
        key.startswith("karpenter.k8s.aws/instance-gpu") for key in keys
    )
