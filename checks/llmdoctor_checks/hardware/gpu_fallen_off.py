"""A GPU of the pod that the driver can no longer reach."""

import re
from collections.abc import Iterator
from datetime import timedelta
from itertools import chain

from kubectl_llmdoctor.api import (
    Cluster,
    Confidence,
    Device,
    Evidence,
    Finding,
    Hardware,
    Line,
    Logs,
    Node,
    Pending,
    Pod,
    Xid,
    bus_of,
    check,
    count_of,
    endings,
    fixes,
    letters,
    log_evidence,
    node_hardware,
)
from llmdoctor_checks.hardware._gpu import (
    CONSEQUENCES,
    Hit,
    by_others,
    conditions,
    elsewhere,
    hits,
    out_of_service,
    quoted,
    said_then,
    where,
)
from llmdoctor_checks.scheduling._separation import causes
from llmdoctor_checks.scheduling._words import asked_in, finding

#: What CUDA says that cannot begin, by the first that asks it; and why, where the driver gives no reason (999).
_UNKNOWN = (
    "cudaGetDeviceCount",
    "failed to initialize CUDA",
    "CUDA initialization",
    "cuInit",
    "Failed to initialize NVML",
)
_UNKNOWN_ERROR = "nknown error"

#: What is the matter with a GPU that the driver finds and cannot use.
_DEAD = "could not be initialised by the driver, and NVML no longer lists it"
_NOT_OFFERED = "could not be initialised by the driver, and the node no longer offers it"
_NO_MORE = "was given to this pod and can no longer be initialised by the driver"

#: By how much the kernel's times may differ from the kubelet's.
_CLOCKS = timedelta(seconds=30)

#: The same in a word of its own (3), by programs that print no more: NVIDIA's samples, with which its operator looks at a node.
_NO_INIT = ("(error code initialization error)", "CUDA error: initialization error")

#: How the agent, in NVML's words, says that a GPU no longer answers.
_LOST = r"(?i)gpu.?is.?lost|fallen off|not answering|NVMLError_GpuIsLost"


@check("gpu-fallen-off", since="0.1", literals=(*_UNKNOWN, *_NO_INIT))
def gpu_fallen_off(
    pod: Pod, hardware: Hardware | None, logs: Logs | None, pending: Pending | None, cluster: Cluster, node: Node | None
) -> Iterator[Finding]:
    """A GPU of the node has dropped out.

    The driver can no longer talk to the GPU (Xid 79, NVML error 15): the device fell off the PCIe bus by a fault of
    hardware, power, cooling or firmware. Processes on it hang or end with CUDA errors, nvidia-smi fails, and NVIDIA's
    device plugin may refuse every pod on the node although the other GPUs work. A server may stay Ready for a while, and
    answers nothing.

    A GPU that does not answer in time, and of which the driver does not say that it is lost, may only be busy: that is
    said of a pod that fails, and is a risk for one that runs.

    An AMD GPU that hangs is reset by its driver (amdgpu: ring timeout, GPU reset), which ends every process on it.

    One that is gone when the driver is loaded, or that it cannot initialise (RmInitAdapter failed), is counted nowhere: the
    node has fewer GPUs than before, and a pod that asks for all of them waits.

    ## Fix

    Cordon the node, move the pods away and reboot or power-cycle it. When it happens again, hand the node to the vendor.

    ## References

    - https://docs.nvidia.com/deploy/xid-errors/
    """
    if pending:
        yield from _uncounted(pending, cluster)
    if hardware is None:
        return
    refused = pod.status.reason == "UnexpectedAdmissionError"
    found = hits(hardware, lambda number, _: number == 79)
    if not pod.failing:
        found = [hit for hit in found if hit[1] == "certain"]
    if found:
        xid, sure = found[0]
        evidence = (*quoted([*found, *_verdict(hardware)]), *_answers(hardware, xid), *said_then(pod, logs, xid))
        yield _finding(
            pod, hardware, where(hardware, xid), (*evidence, *by_others(hardware, "gpu-fallen-off")), sure, xid
        )
    elif (old := _not_back(hardware)) and (refused or (said := _no_start(pod, logs))):
        # the device plugin refuses whole nodes for one GPU, whoever was on it when it went, and so may the driver
        proof = () if refused else (log_evidence(said),) if said else ()
        yield _finding(pod, hardware, where(hardware, old), (old.evidence, *proof), "likely", None)
    elif dead := _dead(pod, hardware, node, logs):
        evidence, how = dead
        yield _finding(pod, hardware, f"a GPU of {hardware.node}", evidence, "likely", None, how)
    elif mine := [device for device in hardware.mine if letters(device.lost) == "lost"]:
        text = " and ".join(f"{device.title} of {hardware.node}" for device in mine)
        yield _finding(pod, hardware, text, tuple(_silence(hardware, mine)), "certain", None)
    elif gone := _gone(pod, hardware, refused=refused):
        text, evidence, sure = gone
        yield _finding(pod, hardware, text, evidence, sure, None)
    elif hung := _reset(pod, hardware, node):
        yield hung
    else:
        yield from _silent(pod, hardware)


def _not_back(hardware: Hardware) -> Xid | None:
    """The last Xid 79 of the node, whosever the GPU was, unless the driver was loaded again since."""
    old = [xid for xid in hardware.xids if xid.number == 79]
    return old[-1] if old and not hardware.kernel.outlived(old[-1]) else None


def _no_start(pod: Pod, logs: Logs | None) -> Line | None:
    """Where CUDA could not even begin in a container of the pod, for a reason that the driver does not know."""
    led_in = pod.gpus or "nvidia" in (pod.spec.runtime_class_name or "")  # NVIDIA's runtime needs no request
    if not pod.failing or not led_in:
        return None
    found = (line for log in logs or () for line in log.find(*_UNKNOWN) if _UNKNOWN_ERROR in line.text)
    begun = (line for log in logs or () for line in log.find(*_NO_INIT))
    return next(chain(found, begun), None)


def _dead(
    pod: Pod, hardware: Hardware, node: Node | None, logs: Logs | None
) -> tuple[tuple[Evidence, ...], str] | None:
    """What says that the driver could not initialise a GPU that the pod has or should have, and the same in words."""
    if (missing := _not_initialised(hardware)) and (said := _no_start(pod, logs)):
        return (*missing, log_evidence(said)), _DEAD
    if missing := _not_listed(pod, hardware, node):
        return missing, _NOT_OFFERED
    if missing := _no_more(pod, hardware):
        return missing, _NO_MORE
    return None


def _not_initialised(hardware: Hardware) -> tuple[Evidence, ...]:
    """What the kernel says of GPUs that the driver could not initialise, where it has others: else it is the driver's fault."""
    lines, others = hardware.kernel.not_initialised, hardware.devices
    if not lines or not others or len(others) >= (hardware.offered or 0):
        return ()
    seen = f"{count_of(len(others), 'GPU')} seen by the driver, capacity nvidia.com/gpu: {hardware.offered}"
    proof = Evidence(source="agent", ref=f"Node/{hardware.node} agent gpus", text=seen)
    return (*(hardware.kernel.evidence(line) for line in lines[:2]), proof)


def _not_listed(pod: Pod, hardware: Hardware, node: Node | None) -> tuple[Evidence, ...]:
    """The same where the node offers fewer GPUs than it has, and fewer than the failing pod was given: nobody looked at them."""
    lines, has = hardware.kernel.not_initialised, hardware.offered
    there = node.allocatable("nvidia.com/gpu") if node else None
    if not lines or node is None or hardware.devices or not has or not there or not pod.failing:
        return ()
    if has != hardware.of_node.slots or not there < min(has, pod.gpus):
        return ()
    seen = f"nvidia.com/gpu: capacity {has}, allocatable {there}"
    proof = Evidence(source="node", ref=f"Node/{node.name} status.allocatable[nvidia.com/gpu]", text=seen)
    return (*(hardware.kernel.evidence(line) for line in lines[:2]), proof)


def _no_more(pod: Pod, hardware: Hardware) -> tuple[Evidence, ...]:
    """The same of a failing pod that was given all GPUs of its node: they were begun before, and the driver has not been loaded since.

    It lets go of a GPU that nobody has open, and begins it anew for the next. Where none of several can be begun, it is the driver's fault.
    What was said before the last instance began had no part in its end.
    """
    begun = max((ending.started for ending in endings(pod) if ending.started), default=None)
    of_now = [
        line
        for line in hardware.kernel.not_initialised
        if line.time and hardware.during(line.time) and (begun is None or line.time >= begun - _CLOCKS)
    ]
    if not of_now or hardware.devices or not (pod.failing and hardware.whole_node):
        return ()
    if hardware.kernel.loaded_after(pod.started_at) or 1 < (hardware.offered or 0) <= len(of_now):
        return ()
    return tuple(hardware.kernel.evidence(line) for line in of_now[:3])


def _uncounted(pending: Pending, cluster: Cluster) -> Iterator[Finding]:
    """GPUs that were gone when the driver was loaded, where a pod waits for no more than these."""
    found = next(iter(causes(pending)), None)
    if found is None or found.id not in ("gpu-request-exceeds-node", "gpu-insufficient", "device-plugin-down"):
        return
    for verdict in found.verdicts:
        hardware = node_hardware(cluster, verdict.node.name)
        gone, how = hardware.kernel.absent if hardware else (), "had fallen off the bus when the driver was loaded"
        # where it fails for all of them it is the driver's
        if hardware and not gone and verdict.node.allocatable(found.resource):
            gone, how = hardware.kernel.not_initialised, "could not be initialised by the driver"
        name, listed = verdict.node.name, verdict.node.allocatable(found.resource) or 0
        # a node is too small by what it offers, whoever holds that now
        small = found.id == "gpu-request-exceeds-node"
        short = max((r.asked - (listed if small else r.free or 0) for r in found.on(verdict)), default=0)
        if hardware is None or not 0 < short <= len(gone):
            continue
        free = min((reason.free for reason in found.on(verdict) if reason.free is not None), default=listed)
        held = f", of which other pods hold {listed - free}" if small and free < listed else ""
        yield finding(
            pending,
            found,
            f"{count_of(len(gone), 'GPU')} of {name} {how}: "
            f"{name} offers {listed} {found.resource} without {'them' if len(gone) > 1 else 'it'}{held}.",
            [*asked_in(pending, found.resource), *(hardware.kernel.evidence(line) for line in gone[:3])],
            [
                fixes.platform(
                    f"Take node {name} out of service and reboot it, cold if that does not help; replace the GPU when it is gone again",
                    f"kubectl cordon {name}",
                    fixes.on_node(name, "sh -c 'lspci -d 10de:; nvidia-smi -L'"),
                )
            ],
            (found.id,),
        )
        return


def _silence(hardware: Hardware, devices: list[Device]) -> Iterator[Evidence]:
    """What the agent says of GPUs that do not answer."""
    errors = hardware.agent.errors if hardware.agent else ()
    for device in devices[:3]:
        yield hardware.evidence(device, "lost", f"lost: {device.lost}")
        about = [error for error in errors if device.is_named(error.gpu)]
        yield from (hardware.of_node.said(error.text) for error in about[:1])


def _answers(hardware: Hardware, xid: Xid) -> Iterator[Evidence]:
    """Whether the GPU of an Xid answers now."""
    device = hardware.device_of(xid)
    if device and device.lost:
        yield from _silence(hardware, [device])


def _silent(pod: Pod, hardware: Hardware) -> Iterator[Finding]:
    """GPUs of the pod that did not answer in time: lost, or only busy."""
    silent = [device for device in hardware.mine if device.silent]
    if not silent:
        return
    yield Finding(
        role="cause" if pod.failing else "risk",
        confidence="likely" if pod.failing else "possible",
        summary=f"{' and '.join(device.title for device in silent[:3])} of {hardware.node}, which this pod uses, "
        "did not answer the driver in time.",
        evidence=tuple(_silence(hardware, silent)),
        explains=("nvml-lost", "illegal-memory-access", *CONSEQUENCES) if pod.failing else (),
        fix=out_of_service(hardware, f"See whether the GPUs of {hardware.node} answer, and reboot it if not"),
    )


def _reset(pod: Pod, hardware: Hardware, node: Node | None) -> Finding | None:
    """An AMD GPU of the node that hung about when the pod's process ended, for no reason that has an id of its own."""
    kernel = hardware.kernel
    found = [line for line in kernel.amd_resets if hardware.during(line.time) and hardware.near(line.time) is not None]
    if not found or found[0].time is None or not any(name.startswith("amd.com/") for name in pod.accelerators):
        return None
    sure = hardware.near(found[0].time)
    # a process that is killed for lack of memory may leave queues that the GPU then cannot put away
    killed = any(ending.oom_killed for ending in endings(pod))
    if sure is None or killed or kernel.page_faults or kernel.amd_uncorrectable:
        return None
    moment = "when" if sure == "likely" else "before"
    if node and any((node.allocatable(name) or 0) > amount for name, amount in pod.accelerators.items()):
        sure = "possible"  # it may be another pod's
    hung = "hung, and the kernel's driver reset it" if any("reset" in x.text.lower() for x in found) else "hung"
    return Finding(
        confidence=sure,
        summary=f"An AMD GPU of {hardware.node} {hung} {moment} this pod's process ended.",
        evidence=tuple(kernel.evidence(line) for line in found[:3]),
        explains=("illegal-memory-access", *CONSEQUENCES),
        fixes=(
            out_of_service(
                hardware,
                f"Update kernel, firmware and ROCm of {hardware.node}; take its GPU out of service when other programs hang on it as well",
            ),
            fixes.advice("Try another release of the engine, smaller batches, or without graphs and flash attention"),
        ),
    )


def _verdict(hardware: Hardware) -> list[Hit]:
    """Xid 154: what the driver asks for now."""
    return hits(hardware, lambda number, _: number == 154)


def _gone(pod: Pod, hardware: Hardware, *, refused: bool) -> tuple[str, tuple[Evidence, ...], Confidence] | None:
    """Without an Xid: the driver's own words, NVML's answer, or fewer GPUs than the node has."""
    if not pod.failing or not (hardware.asks or refused):
        return None
    complete = hardware.mapped and len(hardware.mine) >= pod.gpus > 0
    for line in hardware.kernel.lost:
        device = hardware.of_node.device_at(bus_of(line.text))
        if hardware.during(line.time) and not (complete and (device is None or device not in hardware.mine)):
            sure: Confidence = "certain" if device in hardware.mine or hardware.whole_node else "likely"
            return f"a GPU of {hardware.node}", (hardware.kernel.evidence(line),), sure
    said = conditions(hardware, "gpu-fallen-off")
    if said and not (complete and said[0][1] != "certain"):
        return f"a GPU of {hardware.node}", by_others(hardware, "gpu-fallen-off"), said[0][1]
    if complete or hardware.agent is None:
        return None
    dead = [d for d in hardware.devices if (letters(d.lost) == "lost" or d.silent) and not d.users]
    evidence = list(_silence(hardware, dead))
    if not evidence:
        lost = [error.text for error in hardware.agent.errors if re.search(_LOST, error.text)]
        evidence = [hardware.of_node.said(text) for text in lost[:2]]
    seen, offered = len(hardware.devices), hardware.offered
    if seen and offered and seen < offered <= 2 * seen:  # of a report of one GPU the others were left out
        text = f"{count_of(seen, 'GPU')} seen by the driver, capacity nvidia.com/gpu: {offered}"
        evidence.append(Evidence(source="agent", ref=f"Node/{hardware.node} agent gpus", text=text))
    return (f"a GPU of {hardware.node}", tuple(evidence), "likely") if evidence else None


def _finding(
    pod: Pod,
    hardware: Hardware,
    place: str,
    evidence: tuple[Evidence, ...],
    sure: Confidence,
    xid: Xid | None,
    how: str = "",
) -> Finding:
    code = " (Xid 79)" if xid or any("Xid" in e.text for e in evidence) else ""
    tie = ", which this pod uses," if sure == "certain" else ""
    return Finding(
        confidence=sure,
        summary=f"{place[0].upper()}{place[1:]}{tie} {how or f'has fallen off the bus{code}: the driver no longer reaches it'}.",
        evidence=evidence,
        explains=(
            "xid-error",
            "illegal-memory-access",
            "nvml-lost",
            "device-plugin-not-ready",
            "gpu-count-mismatch",  # a GPU that is gone is one fewer than there are workers
            "driver-missing",  # the runtime looks at all GPUs of a node, and fails at the one that is gone
            *CONSEQUENCES,
        ),
        fixes=(
            out_of_service(
                hardware,
                f"Take node {hardware.node} out of service and reboot it, cold if that does not help; when a GPU drops out again, look at "
                "its seat, its power (supply, cables, what the circuit bears; a lower power limit) and cooling, or have it replaced",
            ),
            elsewhere(pod),
        ),
        order=xid.order if xid else None,
    )
