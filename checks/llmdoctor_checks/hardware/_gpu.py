"""What the checks of a pod's GPUs have in common."""

from collections.abc import Callable, Sequence
from datetime import datetime

from kubectl_llmdoctor.api import (
    Confidence,
    Device,
    Evidence,
    Fix,
    GpuCondition,
    Hardware,
    Line,
    Log,
    Logs,
    Pod,
    Xid,
    dig,
    ended_logs,
    expression,
    fixes,
    log_evidence,
    rows,
    signs_of_life,
    units,
)
from kubectl_llmdoctor.catalog.gpus import BRIDGED_LINKS, by_product
from kubectl_llmdoctor.catalog.xids import XidMeaning, xid_meaning
from llmdoctor_checks._consequences import FAILED_START

#: What follows when a GPU fails under a running server.
CONSEQUENCES = (
    "nccl-timeout", "nccl-other", "nccl-p2p", "worker-lost", *FAILED_START, "engine-dead", "engine-stalled",
    "gpu-runtime-missing", "weights-corrupt", "device-plugin-down", "rollout-stuck",
)  # fmt: skip

#: From this use on a GPU counts as being under load.
_BUSY_PERCENT = 20

Hit = tuple[Xid, Confidence]


def most_links(device: Device) -> int:
    """How many links a card can have: all of its chip, or those that there is room for bridges for."""
    gpu = by_product(device.name)
    return min(BRIDGED_LINKS.get(gpu.name, len(device.nvlinks)) if gpu else len(device.nvlinks), len(device.nvlinks))


def links_short(device: Device) -> int:
    """How many of them are down."""
    spare = len(device.nvlinks) - most_links(device)
    return max(sum(link.active is False for link in device.nvlinks) - spare, 0)


def hits(hardware: Hardware, wanted: Callable[[int, XidMeaning | None], bool]) -> list[Hit]:
    """The Xids of the pod's GPUs whose number is wanted, the surest first, each in the order of time."""
    found = [(xid, sure) for xid, sure in hardware.hits if wanted(xid.number, xid_meaning(xid.number))]
    return sorted(found, key=lambda hit: ("certain", "likely", "possible").index(hit[1]))


def quoted(found: Sequence[Hit]) -> tuple[Evidence, ...]:
    """The lines of several Xids: the first of each number and GPU, for one error is often told many times."""
    first: dict[tuple[int, str], Evidence] = {}
    for xid, _ in found:
        first.setdefault((xid.number, xid.bus), xid.evidence)
    return tuple(first.values())[:5]


def where(hardware: Hardware, xid: Xid) -> str:
    """`GPU 3 (NVIDIA L40S) of gpu-1`."""
    device = hardware.device_of(xid)
    return f"{device.title if device else f'the GPU at {xid.bus}' if xid.bus else 'a GPU'} of {hardware.node}"


def hitting(hardware: Hardware, xid: Xid, sure: Confidence) -> str:
    """The middle of a sentence: which GPU, and what ties it to the pod."""
    if hardware.device_of(xid) in hardware.mine or sure == "certain":
        tie = ", which this pod uses"
    else:
        ended = any(container.terminated for container in hardware.pod.containers)
        tie = (" at the time of its end" if ended else " while the pod ran") if sure == "likely" else ""
    unknown = xid.evidence.source == "metric" and xid.time is None
    return where(hardware, xid) + tie + (" (when is not known)" if unknown else "")


def once(*evidence: Evidence) -> tuple[Evidence, ...]:
    """Each piece of evidence once, in its first place."""
    return tuple(dict.fromkeys(evidence))


#: How far apart a line of a log and an error of the GPU are that it speaks of.
_TOGETHER_SECONDS = 90
#: What a program prints when its GPU fails; the second kind only where the log has times.
OF_GPUS = ("CUDA error", "CUDA_ERROR", "cudaError", "Cuda failure", "NCCL error", "NCCL WARN", "GPU is lost")
_OF_ENDS = ("EngineDeadError", "Traceback (most recent call last)", "terminate called", "Watchdog caught", " ERROR ")


def said_then(pod: Pod, logs: Logs | None, xid: Xid) -> tuple[Evidence, ...]:
    """What the pod's log says at the time of an Xid: the first line of an error since, or of one of its GPU at all."""
    if logs is None:
        return ()
    for log in ended_logs(pod, logs) or list(logs):
        words = OF_GPUS + _OF_ENDS if log.source.timestamps else OF_GPUS
        if lines := [line for word in words if (line := _first(log, word, xid.time))]:
            return (log_evidence(min(lines, key=lambda line: line.number)),)
    return ()


#: Exceptions that a GPU's failure does not raise: what a program was told, or found in its files and packages, does not fit.
_OF_ITSELF = expression(
    r"^(?:.{0,200}[\s\]])?(?:Assertion|Attribute|FileNotFound|Import|Key|ModuleNotFound|NotImplemented|Type|Validation|Value)Error: "
)
ERRORS = ("Error: ",)


def says_otherwise(pod: Pod, logs: Logs | None) -> bool:
    """Whether an instance ended by an exception that has nothing to do with a GPU, and said nothing of one."""
    for log in ended_logs(pod, logs):
        lived = max(signs_of_life(log), default=0)  # one of a request is none of the end
        own = any(line.number > lived and _OF_ITSELF.search(line.text[:1000]) for line in log.find(*ERRORS))
        if own and not any(log.find(*OF_GPUS)):
            return True
    return False


def _first(log: Log, word: str, moment: datetime | None) -> Line | None:
    """The first line with a word that a log without times has, or that was written shortly after a moment."""
    for line in log.find(word):
        if line.time is None or (moment and -2 <= (line.time - moment).total_seconds() <= _TOGETHER_SECONDS):
            return line
    return None


def conditions(hardware: Hardware, id: str) -> list[tuple[GpuCondition, Confidence]]:  # the field's term
    """What other programs say of the pod's GPUs in conditions of the node, of one kind of fault; the surest first."""
    found = [(condition, sure) for condition, sure in hardware.conditions if condition.id == id]
    return sorted(found, key=lambda pair: ("certain", "likely", "possible").index(pair[1]))


def by_others(hardware: Hardware, id: str) -> tuple[Evidence, ...]:  # the field's term
    """The same as evidence."""
    return tuple(hardware.of_node.told(condition) for condition, _ in conditions(hardware, id))[:3]


def busy(percent: float | None) -> bool | None:
    """Whether a GPU is under load; None where that is not known."""
    return None if percent is None else percent >= _BUSY_PERCENT


def looked_at(hardware: Hardware, summary: str, *before: str) -> Fix:
    """Look at the GPUs of the node."""
    amd = any(name.startswith("amd.com/") for name in hardware.pod.accelerators)
    tool = "sh -c 'dmesg -T | grep -i -e amdgpu -e pcieport'" if amd else "nvidia-smi -q"
    command = fixes.on_node(hardware.node, tool)
    return fixes.platform(summary, *before, command)


def out_of_service(hardware: Hardware, summary: str) -> Fix:
    """Keep pods away from the node, and look at its GPUs."""
    return looked_at(hardware, summary, f"kubectl cordon {hardware.node}")


#: How the fix begins that stops a pod which finds no other node.
_STOP = "Stop "


def reset(hardware: Hardware, pod: Pod, gpu: str = "", more: str = "", lasts: str = "") -> Fix:
    """Take the GPU, by its address or UUID, from the pod and reset it; without one all GPUs of the node together.

    `lasts` says what it is where that is no help to a pod which has all of them.
    """
    node, which = hardware.node, f" -i {gpu}" if gpu else ""
    if any(name.startswith("amd.com/") for name in pod.accelerators):
        steps = f"Cordon {node}, delete {pod.name} so that it gets another GPU, and reboot {node}"
        return out_of_service(hardware, f"{steps}{more}{fixes.lone(pod)}")
    what = f"the GPU {gpu}" if gpu else "all its GPUs together"
    if not gpu and hardware.whole_node and not _as_large(pod, node):
        owner = fixes.edited(pod)
        by_scale = owner.startswith(("Deployment/", "StatefulSet/"))
        scale = f"kubectl -n {pod.namespace} scale {owner.lower()} --replicas="
        return fixes.platform(
            f"{_STOP}{owner}, which has all GPUs of {node} (no other node is known to have as many), reset all of them together, or "
            f"reboot {node} where the reset is refused, and start it again{lasts}{more}",
            *((f"{scale}0",) if by_scale else ()),
            fixes.on_node(node, "nvidia-smi --gpu-reset"),
        )
    return fixes.platform(
        f"Cordon {node}, delete {pod.name} so that it gets another GPU, then reset {what} once nothing runs there, or reboot "
        f"{node} where the reset is refused{more}{fixes.lone(pod)}",
        f"kubectl cordon {node}",
        f"kubectl -n {pod.namespace} delete pod {pod.name}",
        fixes.on_node(node, f"nvidia-smi --gpu-reset{which}"),
    )


def _as_large(pod: Pod, node: str) -> bool:
    """Whether another node that takes pods has as many GPUs as a pod asks for."""
    for item in pod.cluster.items("Node"):
        has = dig(item.raw, "status.allocatable") or {}
        ready = [
            row.get("status") == "True" for row in rows(item.raw, "status.conditions") if row.get("type") == "Ready"
        ]
        if dig(item.raw, "spec.unschedulable") or not all(ready):
            continue
        if item.name != node and all((units(has.get(name)) or 0) >= count for name, count in pod.accelerators.items()):
            return True
    return False


def or_elsewhere(fix: Fix, pod: Pod) -> tuple[Fix, ...]:
    """A fix of the node, and beside it the pod made again elsewhere where the fix does not delete it anyway."""
    away = elsewhere(pod)
    alone = fix.summary.startswith(_STOP) or set(away.commands) <= set(fix.commands)
    return (fix,) if alone else (fix, away)


def elsewhere(pod: Pod) -> Fix:
    """Have the pod made again, on another node."""
    return fixes.advice(
        f"Recreate {pod.name} once the node is cordoned, so that it gets another GPU{fixes.lone(pod)}",
        f"kubectl -n {pod.namespace} delete pod {pod.name}",
    )
