"""What the checks of a pod's GPUs have in common."""

from collections.abc import Callable, Sequence

from kubectl_llmdoctor.api import Confidence, Evidence, Fix, Hardware, Pod, Xid, fixes
from kubectl_llmdoctor.catalog.xids import XidMeaning, xid_meaning

#: What follows when a GPU fails under a running server.
CONSEQUENCES = (
    "nccl-timeout",
    "nccl-other",
    "nccl-p2p",
    "worker-lost",
    "engine-init-failed",
    "engine-dead",
    "gpu-runtime-missing",
    "weights-corrupt",
    "device-plugin-down",
    "crash-loop",
    "not-ready",
    "pod-failed",
    "rollout-stuck",
)

#: From this use on a GPU counts as being under load.
_BUSY_PERCENT = 20

Hit = tuple[Xid, Confidence]


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
    device = xid.device or hardware.device_at(xid.bus)
    return f"{device.title if device else f'the GPU at {xid.bus}' if xid.bus else 'a GPU'} of {hardware.node}"


def hitting(hardware: Hardware, xid: Xid, sure: Confidence) -> str:
    """The middle of a sentence: which GPU, and what ties it to the pod."""
    tie = {"certain": ", which this pod uses", "likely": " at the time of its end", "possible": ""}[sure]
    return where(hardware, xid) + tie


def order_of(xid: Xid) -> float | None:
    """Its place in time among lines of logs that carry times."""
    return xid.time.timestamp() if xid.time else None


def busy(percent: float | None) -> bool | None:
    """Whether a GPU is under load; None where that is not known."""
    return None if percent is None else percent >= _BUSY_PERCENT


def looked_at(hardware: Hardware, summary: str, *before: str) -> Fix:
    """Look at the GPUs of the node."""
    command = f"kubectl debug node/{hardware.node} -it --image=busybox -- chroot /host nvidia-smi -q"
    return fixes.advice(summary, *before, command, owner="platform")


def out_of_service(hardware: Hardware, summary: str) -> Fix:
    """Keep pods away from the node, and look at its GPUs."""
    return looked_at(hardware, summary, f"kubectl cordon {hardware.node}")


def elsewhere(pod: Pod) -> Fix:
    """Have the pod made anew, on another node."""
    return fixes.advice(
        f"Recreate {pod.name} once the node is cordoned, so that it gets another GPU",
        f"kubectl -n {pod.namespace} delete pod {pod.name}",
    )
