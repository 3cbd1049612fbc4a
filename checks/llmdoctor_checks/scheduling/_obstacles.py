"""What stands between a pod and a node, in the words of the one who has to mend it, and the cause that it makes."""

import re
from typing import Literal, get_args

import msgspec

from kubectl_llmdoctor.api import (
    Confidence,
    Count,
    Holder,
    Kind,
    Node,
    NodeVerdict,
    Pending,
    Reason,
    expression,
    is_accelerator,
)

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

#: The cause that each makes, and how it is said where it stands in the way beside another.
_SAID: dict[Obstacle, tuple[str, str]] = {
    "claim": ("dra-claim-pending", "a claim is not allocated"),
    "volume": ("pvc-unbound", "a volume is not available"),
    "spread": ("pod-spread-unsatisfied", "other pods repel it"),
    "pod-affinity": ("node-selector-mismatch", "it must stand beside a pod that is not there"),
    "ports": ("host-port-conflict", "a host port is taken"),
    "pods": ("pods-per-node-limit", "there are as many pods as allowed"),
    "ephemeral": ("ephemeral-storage-insufficient", "ephemeral storage is short"),
    "extended": ("extended-resource-insufficient", "another device is short"),
    "cpu-memory": ("cpu-memory-insufficient", "CPU or memory is short"),
    "plugin": ("device-plugin-down", "devices are not advertised"),
    "node": ("node-not-ready", "the node is not fit for new pods"),
    "own-taint": ("taint-untolerated", "a taint keeps it off"),
    "gpu": ("gpu-insufficient", "the GPUs are taken"),
    "taint": ("taint-untolerated", "a taint keeps it off"),
    "gpu-size": ("gpu-request-exceeds-node", "it asks for more GPUs than there are"),
    "absent": ("gpu-resource-absent", "the resource has another name there"),
    "selector": ("node-selector-mismatch", "the selector does not match"),
}
IDS = {obstacle: id for obstacle, (id, _) in _SAID.items()}

#: What stands in the way by other objects: volumes, pods, claims. The scheduler looks at it last.
OF_OTHERS: dict[Kind, Obstacle] = {
    "volume": "volume",
    "spread": "spread",
    "anti-affinity": "spread",
    "pod-affinity": "pod-affinity",
    "claim": "claim",
}

#: Kinds under which the scheduler counts an obstacle.
_HEARD_AS: dict[Obstacle, tuple[Kind, ...]] = {
    "node": ("unschedulable", "taint"),
    "own-taint": ("taint",),
    "taint": ("taint",),
    "selector": ("affinity", "node-name"),
    "ports": ("ports",),
    **{obstacle: tuple(k for k, o in OF_OTHERS.items() if o == obstacle) for obstacle in OF_OTHERS.values()},
}

#: NVIDIA's GPU operator writes there how far the upgrade of a node has come (k8s-operator-libs, pkg/upgrade/consts.go).
UPGRADE_STATE = "nvidia.com/gpu-driver-upgrade-state"

#: The ids that say that GPUs are short; a group of pods that lacks them for some members is more than that.
SHORTAGE = frozenset({"gpu-insufficient", "gpu-fragmented"})


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
        return tuple(r for r in verdict.reasons if obstacle_of(verdict.node, r) in self._of_a_kind)

    @property
    def beside(self) -> str:
        """What else stands in the way there, in words; empty where nothing does."""
        return " and ".join(_SAID[obstacle][1] for obstacle in self.also if obstacle not in self._of_a_kind)

    @property
    def _of_a_kind(self) -> tuple[Obstacle, ...]:
        """What is told as one: of a node with two taints the pod must tolerate both."""
        return ("own-taint", "taint") if self.obstacle in ("own-taint", "taint") else (self.obstacle,)

    @property
    def order(self) -> float:
        """Its place among causes of the same certainty."""
        return float(self.rank)


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
            return "own-taint" if reason.taint and marks_gpus(reason.taint.key, str(reason.taint.value)) else "taint"
        case "affinity" | "node-name":
            return "selector"
        case "ports":
            return "ports"
        case "resource":
            return _shortage(node, reason)
        case "shares":
            return "gpu-size"
    return OF_OTHERS.get(reason.kind)


#: A word for nodes with GPUs, whoever has pods there.
_GPU_NODE = expression(r"(?:nvidia-?)?gpus?(?:-(?:only|nodes?|pool|workloads?))?", re.IGNORECASE)


def marks_gpus(key: str, value: str = "") -> bool:
    """Whether a taint says "GPU node" and not "kept for somebody": `nvidia.com/gpu`, `dedicated=gpu`."""
    if key == "sku" and value:
        return "gpu" in value.lower()
    named = key in ("sku", "accelerator") or _GPU_NODE.fullmatch(key.rpartition("/")[2]) or _GPU_NODE.fullmatch(value)
    return is_accelerator(key) or bool(named)


def key_and_value(taint: str) -> tuple[str, str]:
    """The parts of a taint as the scheduler writes it: `sku: gpu`."""
    key, _, value = taint.partition(": ")
    return key.strip(), value.strip()


def _shortage(node: Node, reason: Reason) -> Obstacle:
    resource, have = reason.resource, reason.allocatable or 0
    if not is_accelerator(resource) and not (have == 0 and _resembles(resource)):
        return "plugin" if have == 0 and _silent_plugin(node, resource) else obstacle_of_resource(resource)
    if should := node.should_offer(resource):
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


def obstacles_on(verdict: NodeVerdict) -> tuple[Obstacle, ...]:
    """Everything that stands in the way on one node, the weightiest first, each once."""
    found = {o for reason in verdict.reasons if (o := obstacle_of(verdict.node, reason))}
    if verdict.node.ready is False:  # the taint for it may not have been set yet
        found.add("node")
    if "node" in found and _upgrading(verdict.node):
        found.discard("plugin")  # it is taken down for the upgrade, and comes back with it
    if {"gpu", "cpu-memory"} <= found:  # who holds the GPUs of a node has its CPU and memory for them
        return tuple(sorted(found, key=lambda o: PRIORITY.index("cpu-memory" if o == "gpu" else o) - (o == "gpu") / 2))
    return tuple(o for o in PRIORITY if o in found)


def _upgrading(node: Node) -> bool:
    """Whether NVIDIA's GPU operator has begun to upgrade the driver of a node, and has not ended."""
    return node.labels.get(UPGRADE_STATE, "upgrade-done") not in ("upgrade-done", "upgrade-required", "")


def kinds_of(obstacle: Obstacle) -> set[Kind]:
    return set(_HEARD_AS.get(obstacle, ("resource",)))


def obstacle_of_resource(resource: str) -> Obstacle:
    known: dict[str, Obstacle] = {
        "": "cpu-memory",
        "cpu": "cpu-memory",
        "memory": "cpu-memory",
        "pods": "pods",
        "ephemeral-storage": "ephemeral",
    }
    return known.get(resource, "extended")
