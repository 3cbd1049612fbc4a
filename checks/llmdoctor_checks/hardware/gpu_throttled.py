"""A GPU that runs slower than it could."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import Device, Finding, Hardware, Pod, check
from llmdoctor_checks.hardware._gpu import busy, looked_at

#: What a reason's name has in it, and what it means. An idle GPU, a power cap at full load and clocks that somebody set
#: are no faults.
_FAULTS = (
    ("thermal", "it is too hot"),
    ("brake", "the power supply holds it back"),
    ("hwslowdown", "the hardware halves its clocks for heat or power"),
)


@check("gpu-throttled", since="0.2", severity="warning")
def gpu_throttled(pod: Pod, hardware: Hardware) -> Iterator[Finding]:
    """A GPU of the pod runs at reduced clocks.

    The driver lowers the clocks of a GPU that is too hot, or whose board or power supply demands it: to a half or less.
    Everything on it becomes slower by as much, and in a group of GPUs all wait for the slowest. `sw_power_cap` under full
    load is normal and is not reported, nor are `gpu_idle` and clocks that somebody set.

    ## Fix

    Look at the air flow, the fans and the inlet temperature, at the power supplies and their cables.

    ## References

    - https://docs.nvidia.com/deploy/nvml-api/group__nvmlClocksEventReasons.html
    """
    slow = [(device, why) for device in hardware.mine if (why := list(_why(device)))]
    if not slow:
        return
    loaded = any(_works(device) for device, _ in slow)
    now = loaded and hardware.runs
    yield Finding(
        role="cause" if now else "risk" if loaded else "note",
        severity="warning" if loaded else "info",
        # it slows a server down, and seldom keeps it from becoming ready
        confidence="certain" if now and pod.ready else "possible" if now else "likely",
        summary=f"{len(slow)} of {len(hardware.mine)} GPUs of this pod on {hardware.node} run at reduced clocks: "
        + "; ".join(f"{device.title}{_heat(device)}, {why[0][1]}" for device, why in slow[:3])
        + ".",
        evidence=tuple(
            hardware.evidence(device, "throttleReasons", f"{', '.join(device.throttle_reasons)}{_numbers(device)}")
            for device, _ in slow
        ),
        explains=("head-of-line-blocking", "gateway-timeout", "probe-timeout-under-load"),
        fixes=(looked_at(hardware, f"Look at cooling and power of {hardware.node}"),),
        pods=(pod.name,),
    )


def _works(device: Device) -> bool:
    """Whether it is under load; the driver names idleness among the reasons, too."""
    known = busy(device.utilization_percent)
    return not any("idle" in reason.lower() for reason in device.throttle_reasons) if known is None else known


def _why(device: Device) -> Iterator[tuple[str, str]]:
    for key, meaning in _FAULTS:
        for reason in device.throttle_reasons:
            if key in re.sub(r"[^a-z]", "", reason.lower()):
                yield reason, meaning


def _heat(device: Device) -> str:
    return "" if device.temperature_c is None else f" at {device.temperature_c:g} °C"


def _numbers(device: Device) -> str:
    text = "" if device.temperature_c is None else f"; temperatureC: {device.temperature_c:g}"
    return text + (
        "" if device.utilization_percent is None else f"; utilizationPercent: {device.utilization_percent:g}"
    )
