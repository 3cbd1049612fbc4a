"""What other programs say of a node's GPUs in its conditions, with the polarity of each.

Sources: NVSentinel's node conditions (type by its checks, True is bad, message
`ErrorCode:79 PCI:0001:00:00 GPU_UUID:GPU-… Recommended Action=RESTART_BM;`); the EKS node monitoring agent
(`AcceleratedHardwareReady`, False is bad, the reason says what); AKS's node problem detector for GPU nodes (True is bad).
A type that is not listed says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import msgspec

from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.agent import bus_of
from kubectl_llmdoctor.facts.units import parse_time

#: Types that are bad when they are True, and the id of the fault that they name.
_BAD_WHEN_TRUE = {
    "SysLogsXIDError": "xid-error",
    "GpuXidError": "xid-error",
    "XIDErrors": "xid-error",
    "SysLogsGPUFallenOff": "gpu-fallen-off",
    "GPUMissing": "gpu-fallen-off",
    "GpuMemWatch": "ecc-uncorrectable",
    "SysLogsSXIDError": "nvlink-down",
    "GpuNvlinkWatch": "nvlink-down",
    "GpuNvswitchFatalWatch": "nvlink-down",
    "NVLinkStatusInactive": "nvlink-down",
    "GpuPcieWatch": "pcie-degraded",
    "GpuThermalWatch": "gpu-throttled",
    "GpuThermalMarginWatch": "gpu-throttled",
    "GpuPowerWatch": "gpu-throttled",
    "GPUClockThrottling": "gpu-throttled",
    "UnhealthyNvidiaDevicePlugin": "device-plugin-down",
}
#: Types that are bad when they are False; what is bad stands in the reason.
_BAD_WHEN_FALSE = frozenset({"AcceleratedHardwareReady"})
_REASONS = (
    (expression(r"NvidiaXID\d+Error"), "xid-error"),
    (expression(r"NvidiaDoubleBitError"), "ecc-uncorrectable"),
    (expression(r"NvidiaNVLinkError"), "nvlink-down"),
    (expression(r"FabricManagerNotRunning|NvidiaFabricError"), "fabric-manager-down"),
    (expression(r"NvidiaDeviceCountMismatch"), "gpu-fallen-off"),
    (expression(r"NvidiaPCIeError"), "pcie-degraded"),
    (expression(r"NvidiaThermalError|NvidiaPowerError"), "gpu-throttled"),
)
_XID = expression(r"(?:ErrorCode:|(?i:xid)[ _:-]{0,2})(?P<number>\d{1,3})(?!\d)")
#: DCGM's word for any Xid, by which each of its watches may fail; the number says of what kind it is.
_ANY_XID = "DCGM_FR_XID_ERROR"
_UUID = expression(r"GPU-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class GpuCondition(msgspec.Struct, frozen=True, kw_only=True):
    """A condition that says that something is wrong with a GPU of the node."""

    #: the id of the fault that it names; empty where it names none that has one
    id: str
    type: str
    text: str
    #: since when it says so; such a condition may stay for days after the fault is gone
    since: datetime | None
    numbers: tuple[int, ...] = ()
    bus: str = ""
    uuid: str = ""

    @property
    def lasting(self) -> bool:
        """Whether it is of a state, which the other program reads again and again, and not of an event that once was."""
        return self.id == "gpu-throttled"


def gpu_conditions(node: k8s.Node) -> Iterator[GpuCondition]:
    """The conditions of a node that speak of a GPU that is not well; one for each GPU that they name."""
    for condition in node.status.conditions:
        if condition.type in _BAD_WHEN_TRUE and condition.status == "True":
            id_ = _BAD_WHEN_TRUE[condition.type]
        elif condition.type in _BAD_WHEN_FALSE and condition.status == "False":
            id_ = next((i for pattern, i in _REASONS if pattern.search(condition.reason)), "")
        else:
            continue
        said = f"{condition.type}={condition.status}, {condition.reason}: {condition.message}"
        since = f" (since {condition.last_transition_time})" if condition.last_transition_time else ""
        for part in condition.message.split(";"):
            if not part.strip() and condition.message.strip():
                continue
            of_part = "xid-error" if _ANY_XID in part else id_
            numbers = _XID.findall(f"{condition.reason} {part}") if of_part == "xid-error" else []
            uuid = _UUID.search(part)
            yield GpuCondition(
                id=of_part,
                type=condition.type,
                text=said.strip() + since,
                since=parse_time(condition.last_transition_time),
                numbers=tuple(dict.fromkeys(int(n) for n in numbers)),
                bus=bus_of(part),
                uuid=uuid[0] if uuid else "",
            )
