"""An error in the memory of a GPU of this pod that cannot be corrected."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Device, Evidence, Finding, Hardware, Pod, check, count_of, endings
from kubectl_llmdoctor.catalog.xids import xid_meaning
from llmdoctor_checks.hardware._gpu import CONSEQUENCES, elsewhere, hits, hitting, order_of, out_of_service, quoted

#: Errors that end a process: double bits and their details, a remapping that failed, contained, uncontained, escaped.
_ERRORS = frozenset({48, 64, 94, 95, 140, 171, 172})
_RECORDED = 63


@check("ecc-uncorrectable", since="0.1")
def ecc_uncorrectable(pod: Pod, hardware: Hardware) -> Iterator[Finding]:
    """The GPU's memory has an error that cannot be corrected.

    A cell of the GPU's memory gave a wrong value in more than one bit (Xid 48, 94, 95). The process that used it ends with CUDA error
    214, and the other ranks wait for it until a timeout. The driver remaps the row (Xid 63) at the next reset of the GPU: until then the
    remapping is pending, and the same error may return at once. When the spare rows are used up the remapping fails (Xid 64).
    Errors of one bit are corrected and harm nobody.

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
    evidence = tuple(e for _, said in counted for e in said)
    fix = out_of_service(hardware, f"Drain {hardware.node} and reset the GPU; replace it where remapping has failed")
    if telling:
        xid, sure = telling[0]
        meaning = xid_meaning(xid.number)
        beside = hits(hardware, lambda number, _: number in (_RECORDED, 154))
        yield Finding(
            role="cause",
            confidence=sure,
            summary=f"Uncorrectable memory error (Xid {xid.number}{f', {meaning.meaning}' if meaning else ''}) on "
            f"{hitting(hardware, xid, sure)}{_state(hardware)}.",
            evidence=(*quoted([*telling, *beside]), *evidence),
            explains=("xid-error", "illegal-memory-access", *CONSEQUENCES),
            fixes=(fix, elsewhere(pod)),
            order=order_of(xid),
            pods=(pod.name,),
        )
        return
    if not counted:
        return
    device = counted[0][0]
    ended = any(True for _ in endings(pod)) and any(d.ecc.volatile_uncorrected for d, _ in counted)
    yield Finding(
        role="cause" if ended else "risk",
        severity=None if ended else "warning",
        confidence="likely",
        summary=f"{device.title} of {hardware.node}, which this pod uses, has {_words(device)}"
        f"{'' if ended else '; work that touches these cells is ended, at the latest until the GPU is reset'}.",
        evidence=(*evidence, *quoted(hits(hardware, lambda number, _: number in (_RECORDED, *_ERRORS)))),
        explains=CONSEQUENCES if ended else (),
        fixes=(fix, elsewhere(pod)),
        pods=(pod.name,),
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


def _words(device: Device) -> str:
    said = []
    if device.ecc.volatile_uncorrected:
        said.append(count_of(device.ecc.volatile_uncorrected, "uncorrectable memory error"))
    if device.ecc.remap_failed:
        said.append("a row remapping that failed")
    elif device.ecc.remap_pending:
        said.append("a row remapping that waits for a reset")
    return " and ".join(said)


def _state(hardware: Hardware) -> str:
    if any(device.ecc.remap_failed for device in hardware.mine):
        return "; remapping the row has failed"
    return "; the remapping of the row is pending" if any(d.ecc.remap_pending for d in hardware.mine) else ""
