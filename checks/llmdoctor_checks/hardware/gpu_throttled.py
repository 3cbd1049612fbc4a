"""A GPU that runs slower than it could."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Device,
    Finding,
    Fix,
    Hardware,
    Pod,
    check,
    engines_in,
    expression,
    fixes,
    letters,
    say_seconds,
)
from llmdoctor_checks.hardware._gpu import busy, by_others, conditions, looked_at

#: What a reason's name has in it, and what it means. An idle GPU, a power cap at full load and clocks that somebody set
#: are no faults by themselves.
_FAULTS = (
    ("thermal", "it is too hot"),
    ("brake", "the power supply holds it back"),
    ("hwslowdown", "the hardware halves its clocks for heat or power"),
)

#: Clocks that somebody set, or a lower limit of power than the other GPUs of its kind have on the node, where these leave a GPU at
#: full use no more than this share of its clocks.
_CLOCKS, _POWER = "applicationsclocks", "swpowercap"
_HALF, _FULL_USE, _LESS_POWER = 0.5, 80, 0.75
_SET = "somebody set its clocks so low"
#: What caps the power of a GPU at full use to no more than this share of its own limit, and its clocks to this share, for so long, is not
#: that limit: the board or the machine gives no more.
_FAR_BELOW, _LASTS_SECONDS = 0.7, 600
#: For how long a vGPU without a licence runs as it should.
_GRACE_SECONDS = 1200
_SHORT = "its power is capped far below its own limit"
#: The sizes of an engine whose ranks wait for each other at every step.
_OF_ONE_STEP = ("tensor_parallel_size", "pipeline_parallel_size")
_LESS = "its power is capped far below that of the others beside it"
#: A GPU of AMD that is part of a processor: it has no fan of its own, and boosts as far as the processor's power limit lets it.
_INTEGRATED = expression(r"Radeon \d{3,4}[MS]\b")
#: A T4's own application clocks are so low: nobody set them, and there is nothing to take back.
_OWN_MHZ = {"T4": 585}


@check("gpu-throttled", since="0.2", severity="warning")
def gpu_throttled(pod: Pod, hardware: Hardware) -> Iterator[Finding]:
    """A GPU of the pod runs at reduced clocks.

    The driver lowers the clocks of a GPU that is too hot, or whose board or power supply demands it: to a half or less. Everything
    on it becomes slower by as much, and in a group of GPUs all wait for the slowest. `sw_power_cap` under full load is normal and
    is not reported, nor are `gpu_idle` and clocks that somebody set, unless they leave a GPU at full use half of its clocks or
    less: `nvidia-smi -ac` or `-lgc` of a measurement that nobody took back, or a limit of power far below that of the GPUs beside
    it (small ones run so at their own limit). So is a power cap that leaves one GPU of the pod at 70 % or less of the clocks of the
    others, which are as busy and draw far more: these wait for it. A power cap that holds a GPU at full use far below its own limit
    for ten minutes is the machine's: a power supply that failed, a cable, a policy of its management controller. Where neither the
    agent nor metrics say how the GPUs run, a condition that another program set on the node says it. Where only metrics tell, so
    does the time for which DCGM counts a GPU as held back: half of what lies between two readings, or more.

    A vGPU whose driver finds no licence runs as it should for 20 minutes, and then at a fraction of its pace.

    ## Fix

    Look at the air flow, the fans and the inlet temperature, at the power supplies and their cables. Clocks and limits of power that
    somebody set are taken back with `nvidia-smi -rac`, `-rgc` and `-pl`. Give a vGPU its licence: the client configuration token of the
    licence server in /etc/nvidia/ClientConfigToken of the virtual machine, or the GPU Operator's `driver.licensingConfig`.

    ## References

    - https://docs.nvidia.com/deploy/nvml-api/group__nvmlClocksEventReasons.html
    - https://docs.nvidia.com/vgpu/latest/grid-licensing-user-guide/index.html
    """
    found = (
        (
            device,
            [*_why(device)] or [*_set(device, hardware)] or [*_short(pod, device)] or [*_behind(device, hardware)],
        )
        for device in hardware.mine
    )
    slow = [(device, why) for device, why in found if why]
    if not slow:
        yield from _unlicensed(pod, hardware) or _by_others(pod, hardware)
        return
    loaded = any(_works(device) for device, _ in slow)
    now, sure = loaded and hardware.runs, any(_is_fault(why) for _, why in slow)
    yield Finding(
        role="cause" if now else "risk" if loaded else "note",
        severity="warning" if loaded else "info",
        # it slows a server down, and seldom keeps it from becoming ready
        confidence="certain" if now and pod.ready and sure else "possible" if now and not pod.ready else "likely",
        summary=(
            f"The GPU of this pod on {hardware.node} runs"
            if len(hardware.mine) == 1
            else f"{len(slow)} of {len(hardware.mine)} GPUs of this pod on {hardware.node} run"
        )
        + " at reduced clocks: "
        + "; ".join(
            f"{device.title}{_heat(device)}{_clock(device)}, {why[0][1]}{_drawn(device, why)}{_since(pod, device, why)}"
            for device, why in slow[:3]
        )
        + ".",
        evidence=(
            *(
                hardware.evidence(device, "throttleReasons", f"{', '.join(device.throttle_reasons)}{_numbers(device)}")
                for device, _ in slow
            ),
            *by_others(hardware, "gpu-throttled"),
        ),
        explains=("head-of-line-blocking", "gateway-timeout", "probe-timeout-under-load", "queue-growing"),
        fixes=tuple(_fixes(hardware, slow)),
    )


def _fixes(hardware: Hardware, slow: list[tuple[Device, list[tuple[str, str]]]]) -> Iterator[Fix]:
    if any(_is_fault(why) for _, why in slow):
        yield looked_at(hardware, _mended(hardware, slow))
    elif any(why[0][1] == _SHORT or why[0][1].startswith(_LESS) for _, why in slow):
        yield looked_at(
            hardware,
            f"Look at what {hardware.node} gives its GPUs: power supplies and cables, and the power policy of its management controller "
            "(BMC, iDRAC)",
        )
    for device, why in slow:
        which = f"nvidia-smi -i {device.uuid or device.index}"
        if why[0][1] == _SET:
            commands = [fixes.on_node(hardware.node, f"{which} {reset}") for reset in ("-rac", "-rgc")]
            yield fixes.platform(f"Take back the clocks set for {device.title}", *commands)
        elif not _is_fault(why) and why[0][1] != _SHORT and (most := _most_power(device, hardware)):
            command = fixes.on_node(hardware.node, f"{which} -pl {most:.0f}")
            yield fixes.platform(f"Let {device.title} take as much power as the others", command)


def _mended(hardware: Hardware, slow: list[tuple[Device, list[tuple[str, str]]]]) -> str:
    """What to mend at the machine, by what its GPUs are held back for."""
    node, whys = hardware.node, {meaning for _, why in slow for _, meaning in why}
    heat, power = _FAULTS[0][1] in whys, _FAULTS[1][1] in whys
    which = slow[0][0].title if len(slow) == 1 else f"{len(slow)} GPUs"
    if heat and not power and all(_INTEGRATED.search(device.name) for device, _ in slow):
        return (
            f"Cap the clock of {which} of {node}, which the processor's own cooler does not bear at full load: `manual` in "
            "power_dpm_force_performance_level, `s 1 MHZ` (some hundreds below its highest) and `c` in pp_od_clk_voltage of "
            "/sys/class/drm/card*/device (needs the kernel's amdgpu.ppfeaturemask=0xffffffff), or lower its power limit in the firmware"
        )
    if heat and not power:
        return (
            f"Cool {which} of {node}: clean or replace fans and filters, let more and colder air in, give cards more distance; a lower "
            "power limit (nvidia-smi -pl, amd-smi set --power-cap) keeps cooler what cannot be cooled better"
        )
    if power and not heat:
        return (
            f"Find out at the management controller (BMC, iDRAC) of {node} why the power brake of {which} is on, and fix that: a supply "
            "unit or cable that failed, a cap of power, a card whose temperatures it does not know"
        )
    return f"Look at cooling and power of {node}, which hold {which} back"


def _is_fault(why: list[tuple[str, str]]) -> bool:
    """Whether the GPU is held back for heat or power, and not by what somebody set."""
    return any(meaning == why[0][1] for _, meaning in _FAULTS)


def _by_others(pod: Pod, hardware: Hardware) -> Iterator[Finding]:
    """Another program's word alone, of GPUs that nobody has read since."""
    said = conditions(hardware, "gpu-throttled")
    if not said or any(device.throttle_reasons for device in hardware.mine):
        return
    sure = said[0][1] == "certain"
    yield Finding(
        role="cause" if sure and pod.ready else "risk",
        confidence="likely" if sure else "possible",
        summary=f"The node {hardware.node} is marked for a GPU{' of this pod' if sure else ''} that is held back for heat or power "
        f"({said[0][0].type}).",
        evidence=by_others(hardware, "gpu-throttled"),
        explains=("head-of-line-blocking", "gateway-timeout", "probe-timeout-under-load", "queue-growing"),
        fix=looked_at(hardware, f"Look at cooling and power of {hardware.node}"),
    )


def _unlicensed(pod: Pod, hardware: Hardware) -> list[Finding]:
    """vGPUs without a licence, which their driver slows down after a while."""
    bare = [device for device in hardware.mine if device.vgpu_licensed is False]
    if not bare:
        return []
    longest = max((pod.cluster.seconds_since(one.started) or 0 for one in pod.containers if one.running), default=0)
    lost = [pod.cluster.seconds_since(device.vgpu_unlicensed_since) for device in bare]
    now = pod.ready and min([longest, *(seconds for seconds in lost if seconds is not None)]) >= _GRACE_SECONDS
    which = bare[0].title if len(bare) == 1 else f"{len(bare)} vGPUs"
    then = "holds it back since it has run so for 20 minutes" if now else "holds it back after 20 minutes"
    return [
        Finding(
            role="cause" if now else "risk",
            summary=f"The vGPU of this pod on {hardware.node}, {which}, has no licence: its driver {then}, to a fraction of its pace.",
            evidence=tuple(hardware.evidence(device, "vgpuLicensed", "vgpuLicensed: false") for device in bare),
            explains=("head-of-line-blocking", "gateway-timeout", "probe-timeout-under-load", "queue-growing"),
            fix=looked_at(
                hardware,
                f"Have {hardware.node} fetch a licence for {which}: the licence server's client_configuration_token.tok in the Secret of "
                "driver.licensingConfig of the GPU Operator's ClusterPolicy, else in /etc/nvidia/ClientConfigToken of the machine, and a "
                "licence server that nvidia-gridd reaches",
            ),
        )
    ]


def _works(device: Device) -> bool:
    """Whether it is under load; the driver names idleness among the reasons, too."""
    known = busy(device.utilization_percent)
    return not any("idle" in reason.lower() for reason in device.throttle_reasons) if known is None else known


def _why(device: Device) -> Iterator[tuple[str, str]]:
    for key, meaning in _FAULTS:
        yield from ((reason, meaning) for reason in device.throttle_reasons if key in letters(reason))


def _set(device: Device, hardware: Hardware) -> Iterator[tuple[str, str]]:
    """What somebody set that leaves a GPU at full use half of its clocks or less."""
    clock, most, use = device.sm_clock_mhz, device.max_sm_clock_mhz, device.utilization_percent
    if not clock or not most or clock > _HALF * most or use is None or use < _FULL_USE:
        return
    for reason in device.throttle_reasons:
        if _CLOCKS in letters(reason) and not any(
            clock >= own for name, own in _OWN_MHZ.items() if name in device.name.split()
        ):
            yield reason, _SET
        elif _POWER in letters(reason) and (others := _most_power(device, hardware)):
            yield reason, f"its limit is {device.power_limit_watts:g} W, of others beside it {others:g} W"


def _short(pod: Pod, device: Device) -> Iterator[tuple[str, str]]:
    """What holds a GPU at full use far below its own limit of power, and its clocks down, for long."""
    draws = device.power_watts
    limit = device.power_limit_watts
    clock = device.sm_clock_mhz
    most = device.max_sm_clock_mhz
    if not (draws and limit and clock and most) or (device.utilization_percent or 0) < _FULL_USE:
        return
    if draws > _FAR_BELOW * limit or clock > _FAR_BELOW * most:
        return
    for reason in device.throttle_reasons:
        seconds = pod.cluster.seconds_since(device.throttled_since.get(reason))
        if _POWER in letters(reason) and seconds is not None and seconds >= _LASTS_SECONDS:
            yield reason, _SHORT


def _behind(device: Device, hardware: Hardware) -> Iterator[tuple[str, str]]:
    """A power cap that leaves one GPU of the pod far behind the others of its kind, which are as busy.

    Those that compute the same step wait for it each time; replicas of a model do not.
    """
    beside = [one for one in hardware.mine if one is not device and one.name == device.name]
    beside = [one for one in beside if (one.utilization_percent or 0) >= _FULL_USE]
    clock, draws = device.sm_clock_mhz, device.power_watts
    most, others = (max((read(one) or 0 for one in beside), default=0) for read in (_clock_of, _power_of))
    if not (clock and draws and most and others) or (device.utilization_percent or 0) < _FULL_USE:
        return
    if clock > _FAR_BELOW * most or draws > _LESS_POWER * others:
        return
    together = any(engine.product_of(_OF_ONE_STEP) > 1 for engine in engines_in(hardware.pod))
    for reason in device.throttle_reasons:
        if _POWER in letters(reason):
            limit = _most_power(device, hardware)
            its = f"its limit is {device.power_limit_watts:g} W, of others beside it {limit:g} W" if limit else _LESS
            yield reason, f"{its}: those run at up to {most:g} MHz{', and wait for it' if together else ''}"


def _clock_of(device: Device) -> float | None:
    return device.sm_clock_mhz


def _power_of(device: Device) -> float | None:
    return device.power_watts


def _most_power(device: Device, hardware: Hardware) -> float | None:
    """The limit of power of the other GPUs of its kind on the node, where its own is far below that."""
    alike = (one for one in hardware.devices if one.name == device.name and one is not device)
    most = max((one.power_limit_watts or 0 for one in alike), default=0)
    return most if device.power_limit_watts and device.power_limit_watts <= _LESS_POWER * most else None


def _since(pod: Pod, device: Device, why: list[tuple[str, str]]) -> str:
    """`, for 12 min`: for how long the agent has seen it at every reading."""
    longest = max((pod.cluster.seconds_since(device.throttled_since.get(reason)) or 0 for reason, _ in why), default=0)
    return f", for {say_seconds(longest)}" if longest > 0 else ""


def _clock(device: Device) -> str:
    """` at 345 of 1980 MHz`."""
    if not device.sm_clock_mhz or not device.max_sm_clock_mhz:
        return ""
    return f" at {device.sm_clock_mhz:g} of {device.max_sm_clock_mhz:g} MHz"


def _drawn(device: Device, why: list[tuple[str, str]]) -> str:
    """` (239 of 400 W)`, where that is what holds it."""
    return f" ({device.power_watts:g} of {device.power_limit_watts:g} W)" if why[0][1] == _SHORT else ""


def _heat(device: Device) -> str:
    return "" if device.temperature_c is None else f" at {device.temperature_c:g} °C"


def _numbers(device: Device) -> str:
    known = {
        "temperatureC": device.temperature_c,
        "slowdownTemperatureC": device.slowdown_temperature_c,
        "temperatureMarginC": device.temperature_margin_c,
        "powerWatts": device.power_watts,
        "powerLimitWatts": device.power_limit_watts,
        "smClockMhz": device.sm_clock_mhz,
        "utilizationPercent": device.utilization_percent,
    }
    return "".join(f"; {key}: {value:g}" for key, value in known.items() if value is not None)
