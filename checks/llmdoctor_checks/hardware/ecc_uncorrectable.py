"""An error in the memory of a GPU of this pod that cannot be corrected."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Device,
    Evidence,
    Finding,
    Fix,
    Hardware,
    Line,
    Logs,
    Pod,
    bus_of,
    check,
    count_of,
    endings,
    fixes,
    log_evidence,
)
from kubectl_llmdoctor.catalog.xids import xid_meaning
from llmdoctor_checks.hardware._gpu import (
    CONSEQUENCES,
    by_others,
    conditions,
    hits,
    hitting,
    once,
    or_elsewhere,
    out_of_service,
    quoted,
    reset,
    said_then,
)

#: Errors that end a process: double bits and their details, a remapping that failed, contained, uncontained, escaped.
_ERRORS = frozenset({48, 64, 94, 95, 140, 171, 172})
_RECORDED = 63

#: Retired pages of a GPU before Ampere, of the 64 for which there is room, at which DCGM's diagnosis gives it up.
_MOST_RETIRED = 63

#: How CUDA says that a kernel met such a cell (error 214), or was stopped for a reason that it does not know (719).
_STOPPED = ("uncorrectable ECC error", "unspecified launch failure")


@check("ecc-uncorrectable", since="0.1", literals=_STOPPED)
def ecc_uncorrectable(pod: Pod, hardware: Hardware, logs: Logs | None) -> Iterator[Finding]:
    """The GPU's memory has an error that cannot be corrected.

    A cell of the GPU's memory gave a wrong value in more than one bit (Xid 48, 94, 95). The process that used it ends with CUDA error
    214, and the other ranks wait for it until a timeout. The driver remaps the row (Xid 63) at the next reset of the GPU: until then the
    remapping is pending, and the same error may return at once. When the spare rows are used up the remapping fails (Xid 64): from
    then on nothing hides the bad cells, and what CUDA says of a kernel that met them may be as vague as an unspecified launch failure.
    Errors of one bit are corrected and harm nobody. An AMD GPU tells of such errors by the kernel's driver ("uncorrectable hardware
    error"), resets itself, and the process ends with "GPU Hang".

    ## Fix

    Cordon the node, reset the GPU (or reboot), and look at its counters. A remapping that failed, or errors that return, are a
    case for the vendor.

    ## References

    - https://docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt/
    - https://docs.nvidia.com/deploy/xid-errors/
    """
    found = hits(hardware, lambda number, _: number in _ERRORS)
    telling = [hit for hit in found if hardware.explains(hit[0])]
    counted = [(device, said) for device in hardware.mine if (said := list(_counters(hardware, device)))]
    evidence = once(*(e for _, said in counted for e in said))
    fix = _fix(hardware, pod, next((device for device, _ in counted), None), telling[0][0].bus if telling else "")
    if telling:
        xid, sure = telling[0]
        meaning = xid_meaning(xid.number)
        beside = hits(hardware, lambda number, _: number in (_RECORDED, 154))
        yield Finding(
            confidence=sure,
            summary=f"Uncorrectable memory error (Xid {xid.number}{f', {meaning.meaning}' if meaning else ''}) on "
            f"{hitting(hardware, xid, sure)}{_state(hardware)}.",
            evidence=(
                *quoted([*telling, *beside]),
                *said_then(pod, logs, xid),
                *evidence,
                *by_others(hardware, "ecc-uncorrectable"),
            ),
            explains=("xid-error", "illegal-memory-access", *CONSEQUENCES),
            fixes=or_elsewhere(fix, pod),
            order=xid.order,
        )
        return
    if counted:
        yield _by_counters(pod, hardware, logs, [device for device, _ in counted], evidence, fix)
        return
    yield from _by_amdgpu(pod, hardware)
    yield from _nearby(pod, hardware)
    yield from _by_others(pod, hardware, fix)


def _fix(hardware: Hardware, pod: Pod, device: Device | None, bus: str) -> Fix:
    """A reset, after which the remapped rows are used; a GPU without spare ones is replaced."""
    gpu = f"{bus}.0" if bus else (device.pci_bus_id or device.uuid) if device else ""
    if device is not None and (device.ecc.remap_failed or (device.ecc.retired_pages or 0) >= _MOST_RETIRED):
        return out_of_service(
            hardware,
            f"Cordon {hardware.node}, delete {pod.name}, and have {device.title} ({gpu}) replaced{fixes.lone(pod)}",
        )
    return reset(hardware, pod, gpu, "; have it replaced when the error returns")


def _by_counters(
    pod: Pod, hardware: Hardware, logs: Logs | None, counted: list[Device], evidence: tuple[Evidence, ...], fix: Fix
) -> Finding:
    """Errors that the GPU has counted, and no Xid that tells when."""
    device = counted[0]
    stopped = _stopped(pod, hardware, logs)
    ended = bool(stopped) or (any(endings(pod)) and any(d.ecc.volatile_uncorrected for d in counted))
    return Finding(
        role="cause" if ended else "risk",
        confidence="certain" if stopped and _STOPPED[0] in stopped.text else "likely",
        summary=f"{device.title} of {hardware.node}, which this pod uses, has {_words(device)}"
        f"{'' if ended or not _open(device) else '; work that touches these cells is ended, at the latest until the GPU is reset'}.",
        evidence=(
            *evidence,
            *quoted(hits(hardware, lambda number, _: number in (_RECORDED, *_ERRORS))),
            *((log_evidence(stopped),) if stopped else ()),
            *by_others(hardware, "ecc-uncorrectable"),
        ),
        explains=("illegal-memory-access", *CONSEQUENCES) if ended else (),
        fixes=or_elsewhere(fix, pod),
    )


def _stopped(pod: Pod, hardware: Hardware, logs: Logs | None) -> Line | None:
    """Where a kernel of a pod that fails met a bad cell; the vague words count where such cells can no longer be hidden."""
    if not pod.failing or not any(_open(device) for device in hardware.mine):
        return None
    words = _STOPPED if any(device.ecc.remap_failed for device in hardware.mine) else _STOPPED[:1]
    return next((line for log in logs or () for line in log.find(*words)), None)


def _nearby(pod: Pod, hardware: Hardware) -> Iterator[Finding]:
    """Errors of a GPU that may be the pod's: nothing says which it has, and nobody else has this one."""
    bad = [device for device in hardware.left if _open(device)]
    if not bad or not any(endings(pod)):
        return
    alone = len(hardware.left) <= pod.gpus
    yield Finding(
        confidence="likely" if alone else "possible",
        summary=f"{bad[0].title} of {hardware.node} has {_words(bad[0])}; nothing says which GPUs this pod was given, and "
        f"{_any(len(hardware.left), len(hardware.devices))} may be its own.",
        evidence=once(*(e for device in bad for e in _counters(hardware, device))),
        explains=(*(("cuda-oom-weights", "cuda-oom-runtime", "illegal-memory-access") if alone else ()), *CONSEQUENCES),
        fixes=or_elsewhere(_fix(hardware, pod, bad[0], ""), pod),
    )


def _any(left: int, there: int) -> str:
    """How many of the GPUs of a node, in words."""
    return f"{left} of the {there} GPUs there" if left < there else "any GPU there"


def _by_amdgpu(pod: Pod, hardware: Hardware) -> Iterator[Finding]:
    """What the kernel's driver says of an AMD GPU when the pod's process ended; the whole node's where the pod has all of them."""
    said = [line for line in hardware.kernel.amd_uncorrectable if line.time and hardware.during(line.time)]
    near = {line: sure for line in said if (sure := hardware.near(line.time))}  # earlier ones ended earlier instances
    lines, sure = list(near), "likely" if "likely" in near.values() else next(iter(near.values()), None)
    asked = {name: amount for name, amount in pod.accelerators.items() if name.startswith("amd.com/")}
    if sure is None or not asked:
        return
    node = hardware.of_node.obj
    listed = node.status.allocatable if node else {}
    if not any(str(amount) == str(listed.get(name)) for name, amount in asked.items()):
        sure = "possible"  # the GPU may be another pod's
    at = bus_of(lines[0].text)
    yield Finding(
        confidence=sure,
        summary=f"The AMD GPU{f' at {at}' if at else ''} of {hardware.node} had an error that could not be corrected "
        f"{'when' if sure == 'likely' else 'before'} this pod's process ended.",
        evidence=tuple(hardware.kernel.evidence(line) for line in lines[:3]),
        explains=(*(("gpu-fallen-off", "illegal-memory-access") if sure == "likely" else ()), *CONSEQUENCES),
        fixes=or_elsewhere(reset(hardware, pod, more="; have the GPU replaced when the error returns"), pod),
    )


def _by_others(pod: Pod, hardware: Hardware, fix: Fix) -> Iterator[Finding]:
    """Another program's word alone, since the pod came to the node: such conditions stay for long after a repair."""
    said = conditions(hardware, "ecc-uncorrectable")
    if not said or not pod.failing:
        return
    if said[0][0].bus:
        fix = _fix(hardware, pod, None, said[0][0].bus)
    yield Finding(
        confidence="likely" if said[0][1] == "certain" else "possible",
        summary=f"The node {hardware.node} is marked for an error in the memory of a GPU ({said[0][0].type}).",
        evidence=by_others(hardware, "ecc-uncorrectable"),
        explains=(*(("illegal-memory-access",) if said[0][1] == "certain" else ()), *CONSEQUENCES),
        fixes=or_elsewhere(fix, pod),
    )


def _counters(hardware: Hardware, device: Device) -> Iterator[Evidence]:
    """What the driver counts since it was loaded; what it counted in the card's whole life proves nothing of today."""
    ecc = device.ecc
    if ecc.volatile_uncorrected:
        yield hardware.evidence(device, "ecc", f"volatileUncorrected: {ecc.volatile_uncorrected}")
    if ecc.remap_pending:
        yield hardware.evidence(device, "ecc", "remapPending: true")
    if ecc.remap_failed:
        yield hardware.evidence(device, "ecc", "remapFailed: true")
    if ecc.retirement_pending:
        yield hardware.evidence(device, "ecc", "retirementPending: true")
    if (ecc.retired_pages or 0) >= _MOST_RETIRED:
        yield hardware.evidence(device, "ecc", f"retiredPages: {ecc.retired_pages}")


def _open(device: Device) -> bool:
    """Whether cells that gave wrong values are still in use."""
    ecc = device.ecc
    return bool(ecc.volatile_uncorrected or ecc.remap_pending or ecc.remap_failed or ecc.retirement_pending)


def _words(device: Device) -> str:
    said = []
    if device.ecc.volatile_uncorrected:
        said.append(count_of(device.ecc.volatile_uncorrected, "uncorrectable memory error"))
    if device.ecc.remap_failed:
        said.append("a row remapping that failed")
    elif device.ecc.remap_pending:
        said.append("a row remapping that waits for a reset")
    elif device.ecc.retirement_pending:
        said.append("a page whose retirement waits for a reset")
    if (device.ecc.retired_pages or 0) >= _MOST_RETIRED:
        said.append(f"{device.ecc.retired_pages} retired pages, and room for 64")
    return " and ".join(said)


def _state(hardware: Hardware) -> str:
    if any(device.ecc.remap_failed for device in hardware.mine):
        return "; remapping the row has failed"
    return "; the remapping of the row is pending" if any(d.ecc.remap_pending for d in hardware.mine) else ""
