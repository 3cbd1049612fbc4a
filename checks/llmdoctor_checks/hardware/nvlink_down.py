"""An NVLink between GPUs that is not up."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Device, Finding, Hardware, Logs, Pod, check, endings, expression, log_evidence
from kubectl_llmdoctor.catalog.gpus import by_product
from kubectl_llmdoctor.catalog.xids import XidMeaning, xid_meaning
from llmdoctor_checks.hardware._gpu import (
    CONSEQUENCES,
    Hit,
    by_others,
    conditions,
    hits,
    links_short,
    looked_at,
    most_links,
    or_elsewhere,
    quoted,
    reset,
)

#: Errors of a link in a minute above which DCGM's health check fails it: a hundred in a second.
_MOST_ERRORS = 6000

#: The card that stands on a board with seven others, where each is joined to some of them.
_ON_A_BOARD, _OF_A_BOARD = expression(r"\bV100-SXM[23]\b"), 8

#: What a rank says that cannot reach the memory of another GPU of its node.
_NO_PEER = ("transport/p2p", "transport/nvls")

#: What a link is that a reset does not bring back.
_OF_THE_BOARD = "; a link that stays down is one of the board: have that replaced"


@check("nvlink-down", since="0.2", literals=_NO_PEER)
def nvlink_down(pod: Pod, hardware: Hardware, logs: Logs | None) -> Iterator[Finding]:
    """An NVLink of a GPU is down, or fails.

    GPUs that are joined by NVLink exchange everything over it. When links fail (Xid 74, on newer GPUs 144 to 150) a running
    collective aborts or hangs; after a restart NCCL does with fewer links, or goes over PCIe, many times slower. A card
    that can do without a bridge and has no link that is up is taken to have none, and one that has some links up may have
    fewer bridges than there is room for: without an error of a link that is a risk. CUDA itself says of an error on a link that
    it was uncorrectable (220).

    ## Fix

    Reset the GPUs and the switches together, or reboot; when the link stays down, reseat the bridge or the module.

    ## References

    - https://docs.nvidia.com/deploy/xid-errors/
    - https://docs.nvidia.com/datacenter/tesla/fabric-manager-user-guide/
    """
    errors = [hit for hit in hits(hardware, _of_nvlink) if hardware.explains(hit[0])]
    failed = {device.bus for xid, _ in errors if (device := hardware.device_of(xid))}
    by_design = any((gpu := by_product(device.name)) and gpu.nvlink for device in hardware.mine)
    joined = by_design or any(map(_joined, hardware.mine))
    yield from _by_switch(pod, hardware)
    down = [
        (device, numbers)
        for device in hardware.mine
        # a card beside bridged ones need not have a bridge
        if (numbers := _down(device)) and (by_design or device.bus in failed or _joined(device))
    ]
    if down and (errors or not _of_a_part(hardware)):
        yield _down_links(pod, hardware, down, errors, by_design=by_design)
        return
    yield from _degraded(hardware)
    yield from _noisy(hardware)
    yield from _by_others(pod, hardware, joined=joined)
    if not errors and logs is not None:
        yield from _not_reset(pod, hardware, logs)


def _down_links(
    pod: Pod, hardware: Hardware, down: list[tuple[Device, list[int]]], errors: list[Hit], *, by_design: bool
) -> Finding:
    """Links that carry nothing, with the Xids that tell why."""
    ran = any(endings(pod)) or any(c.running for c in pod.containers if c.role == "main")
    together = len(hardware.mine) > 1
    # of a bridge that was never there the links are down as well
    certainly = by_design or bool(errors)
    return Finding(
        role="note" if not (together and ran) else "cause" if certainly else "risk",
        severity="warning" if pod.ready and together else None,
        confidence="certain" if errors else "likely" if certainly else "possible",
        summary="; ".join(
            f"{links_short(device)} of {most_links(device)} NVLinks of {device.title} on {hardware.node} are down"
            for device, _ in down[:4]
        )
        + (f"; the {len(hardware.mine)} GPUs of this pod exchange everything over them." if together else "."),
        evidence=(
            *(
                hardware.evidence(device, "nvlinks", f"active: false on link {', '.join(map(str, numbers))}")
                for device, numbers in down
            ),
            *quoted(errors),
            *by_others(hardware, "nvlink-down"),
        ),
        explains=("xid-error", "illegal-memory-access", *CONSEQUENCES) if together else (),
        fixes=or_elsewhere(reset(hardware, pod, lasts=_OF_THE_BOARD), pod)
        if together
        else (looked_at(hardware, f"Reset the GPUs of {hardware.node} together in a maintenance"),),
        order=errors[0][0].order if errors else None,
    )


def _of_a_part(hardware: Hardware) -> bool:
    """Whether a machine has some of the eight V100 of a board, each with as many links up: the others lead to GPUs that it does not have.

    Each has six links, to four of the seven others; a virtual machine of four (EC2's p3.8xlarge) leaves those to the other half down.
    """
    of_board = all(_ON_A_BOARD.search(device.name or "") for device in hardware.devices)
    up = {sum(link.active is True for link in device.nvlinks) for device in hardware.devices}
    return of_board and 1 < len(hardware.devices) < _OF_A_BOARD and len(up) == 1 and 0 not in up


def _degraded(hardware: Hardware) -> Iterator[Finding]:
    """GPUs that NVML calls unhealthy as members of the fabric."""
    bad = [device for device in hardware.mine if device.fabric.health in ("unhealthy", "limited-capacity")]
    if not bad or len(hardware.mine) < 2:
        return
    problems = ", ".join(dict.fromkeys(name for device in bad for name in device.fabric.problems))
    yield Finding(
        role="risk",
        summary=f"{len(bad)} of the {len(hardware.mine)} GPUs of this pod on {hardware.node} are {bad[0].fabric.health} in the NVLink "
        f"fabric{f': {problems}' if problems else ''}.",
        evidence=tuple(
            hardware.evidence(
                d, "fabric", f"health: {d.fabric.health}, problems: {', '.join(d.fabric.problems) or 'none'}"
            )
            for d in bad[:4]
        ),
        fix=looked_at(
            hardware, f"Look at the fabric manager's log and the NVLinks of {hardware.node}; reset its GPUs together"
        ),
    )


def _noisy(hardware: Hardware) -> Iterator[Finding]:
    """Links that are up and repeat much."""
    noisy = [
        (device, link)
        for device in hardware.mine
        for link in device.nvlinks
        if (link.errors_per_minute or 0) >= _MOST_ERRORS
    ]
    if not noisy or len(hardware.mine) < 2:
        return
    worst, link = max(noisy, key=lambda pair: pair[1].errors_per_minute or 0)
    yield Finding(
        role="risk",
        summary=f"NVLinks of the {len(hardware.mine)} GPUs of this pod repeat much of what they carry: {worst.title} on "
        f"{hardware.node} has {link.errors_per_minute:g} errors a minute{'' if link.link is None else f' on link {link.link}'}.",
        evidence=tuple(
            hardware.evidence(d, "nvlinks", f"link: {n.link}, errorsPerMinute: {n.errors_per_minute:g}")
            for d, n in noisy[:4]
        ),
        fix=looked_at(hardware, f"Look at the NVLinks of {hardware.node}; reset its GPUs together in a maintenance"),
    )


def _by_others(pod: Pod, hardware: Hardware, *, joined: bool) -> Iterator[Finding]:
    """Another program's word alone, on a board that has NVLink."""
    said = conditions(hardware, "nvlink-down")
    if not said or not joined or pod.gpus < 2 or not pod.failing:
        return
    yield Finding(
        confidence="likely" if said[0][1] == "certain" else "possible",
        summary=f"The node {hardware.node} is marked for an NVLink that failed ({said[0][0].type}); the {pod.gpus} GPUs of this pod "
        "exchange everything over such links.",
        evidence=by_others(hardware, "nvlink-down"),
        explains=(*(("illegal-memory-access",) if said[0][1] == "certain" else ()), *CONSEQUENCES),
        fixes=or_elsewhere(reset(hardware, pod, lasts=_OF_THE_BOARD), pod),
    )


def _by_switch(pod: Pod, hardware: Hardware) -> Iterator[Finding]:
    """A switch that reports a fatal error, while the pod, which has several GPUs, went down.

    Of a number that NVIDIA's guide lists, the class counts; of another one the driver's word, where it is about a link.
    """
    near = [
        error
        for error in hardware.kernel.switch_errors
        if (error.kind in ("fatal", "switch") or (error.kind is None and error.fatal and "Link" in error.text))
        and (error.fatal or error.kind == "switch")
        and hardware.during(error.line.time)
        and hardware.near(error.line.time)
    ]
    if not near or pod.gpus < 2:
        return
    first = near[0]
    what = "failed" if first.kind == "switch" else "reported a fatal error"
    yield Finding(
        confidence="certain" if hardware.whole_node else "likely",
        summary=f"A switch between the GPUs of {hardware.node} {what} (SXid {first.number}: {first.text}); "
        f"the {pod.gpus} GPUs of this pod exchange everything over its links.",
        evidence=(*(hardware.kernel.evidence(x.line) for x in near[:3]), *quoted(hits(hardware, _of_nvlink))),
        explains=("xid-error", "illegal-memory-access", *CONSEQUENCES),
        fixes=or_elsewhere(reset(hardware, pod, lasts=_OF_THE_BOARD), pod),
        order=first.line.order,
    )


def _not_reset(pod: Pod, hardware: Hardware, logs: Logs) -> Iterator[Finding]:
    """A link that failed before the pod began, on a node whose driver was not loaded again since, where ranks cannot reach each other.

    NVIDIA's list asks for a reset of the GPU after Xid 74; until then the link stays down.
    """
    if not pod.failing or pod.gpus < 2:
        return
    old = [
        xid
        for xid in hardware.xids
        if _of_nvlink(xid.number, xid_meaning(xid.number)) and not hardware.kernel.outlived(xid)
    ]
    said = [line for log in logs for line in log.find(*_NO_PEER) if "NCCL WARN" in line.text]
    if not old or not said:
        return
    yield Finding(
        summary=f"An NVLink of {hardware.node} had failed before (Xid {old[-1].number}), and the GPUs were not reset since; now the "
        f"{pod.gpus} GPUs of this pod cannot reach each other's memory.",
        evidence=(old[-1].evidence, log_evidence(said[0])),
        explains=("xid-error", "illegal-memory-access", *CONSEQUENCES),
        fixes=or_elsewhere(reset(hardware, pod, lasts=_OF_THE_BOARD), pod),
        order=said[0].order,
    )


def _joined(device: Device) -> bool:
    return any(link.active for link in device.nvlinks)


def _down(device: Device) -> list[int]:
    """The links that are down, where more are than have no bridge."""
    down = [n if link.link is None else link.link for n, link in enumerate(device.nvlinks) if link.active is False]
    return down if links_short(device) else []


def _of_nvlink(_: int, meaning: XidMeaning | None) -> bool:
    return meaning is not None and meaning.mnemonic.startswith("NVLINK")
