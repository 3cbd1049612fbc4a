"""A GPU whose link to the host is narrower or slower than it could be."""

from collections.abc import Iterator, Sequence

from kubectl_llmdoctor.api import (
    MACHINE,
    BusError,
    Device,
    Evidence,
    Finding,
    Hardware,
    Pod,
    check,
    count_of,
    dig,
    expression,
)
from llmdoctor_checks.hardware._gpu import CONSEQUENCES, busy, by_others, elsewhere, looked_at, out_of_service

#: Replays in a minute above which DCGM's health check warns, as NVIDIA's driver team recommends.
_MOST_REPLAYS = 8
#: Corrected errors in the log that are no accident any more: a link that is well has none in hours.
_MANY_CORRECTED = 20
#: How the ids of nodes begin that are virtual machines of a cloud, where their type does not say otherwise.
_CLOUDS = ("aws://", "gce://", "azure://")
#: What is done at a machine that somebody may open.
_BY_HAND = "Reseat the card or its riser"
#: The address of a device on the first bus.
_BUS_0 = expression(r"(?:[0-9a-fA-F]{4,8}:)?00:")


@check("pcie-degraded", since="0.2", severity="warning")
def pcie_degraded(pod: Pod, hardware: Hardware) -> Iterator[Finding]:
    """The PCIe link of a GPU is narrower or slower than it could be.

    Card and slot agree on the width and the speed of their link, and fall back when lanes or their signals are bad: a
    riser, dust, a card that sits askew. Loading a model, offloading and, without NVLink, all that the ranks exchange
    take longer in proportion. A GPU without work lowers the speed (the generation) of its link to save power: only under load
    does that say anything. The width stays. Where all GPUs of a node have the same narrow link, its board is
    made so, and that is only noted; so is a desktop's only card whose link sends nothing again: boards and adapters
    (M.2, OCuLink) often have four lanes or eight. The only GPU of a virtual machine (EC2's g5 with its A10G, g6 with its L4) has the lanes
    that its provider gives it, often eight of sixteen, and nobody there can reseat it.

    Before a link falls back, or is lost, packets are sent again: replays, which the driver counts, and errors of the bus
    that the kernel logs (AER). Corrected ones are harmless by themselves and tell of bad signals when they are many; a
    fatal one takes the GPU from the bus, usually with Xid 79.

    ## Fix

    Reseat the card or its riser, update the firmware of the board, try another slot. In a cloud stop and start the instance, or replace the
    node: another host takes its place.

    ## References

    - https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html
    """
    slow = [(device, why) for device in hardware.mine if (why := _why(device))]
    if fatal := _fatal(hardware):
        yield _broken(pod, hardware, fatal)
    elif slow and (_wired_so(hardware) or _alone(hardware)):
        why = slow[0][1]
        yield Finding(
            role="note",
            confidence="possible",
            summary=f"All {len(hardware.devices)} GPUs of {hardware.node} run on {why}: so their slots are probably wired."
            if _wired_so(hardware)
            else f"The only GPU of {hardware.node} runs on {why}: {_wiring(slow[0][0], hardware)}.",
            evidence=tuple(hardware.evidence(device, "pcie", _numbers(device)) for device, _ in slow[:2]),
        )
    elif slow:
        now = pod.ready and any(busy(device.utilization_percent) is not False for device, _ in slow)
        yield Finding(
            role="cause" if now else "risk",
            confidence="certain" if now and any(busy(d.utilization_percent) for d, _ in slow) else "likely",
            summary="; ".join(f"{device.title} of {hardware.node} runs on {why}" for device, why in slow[:4])
            + f": a copy between host and GPU takes about {max(_factor(d) for d, _ in slow)} times as long.",
            evidence=(
                *(hardware.evidence(device, "pcie", _numbers(device)) for device, _ in slow),
                *_corrected(hardware),
                *by_others(hardware, "pcie-degraded"),
            ),
            explains=("slow-load",),
            fix=looked_at(hardware, f"{_set_right(hardware)}{_wider(hardware, slow)}, then look at its link again"),
        )
    else:
        yield from _noisy(hardware)


def _noisy(hardware: Hardware) -> Iterator[Finding]:
    """A link of full width that has to send much again."""
    again = [d for d in hardware.mine if (d.pcie.replays_per_minute or 0) > _MOST_REPLAYS]
    corrected = _corrected(hardware)
    if not again and not corrected:
        return
    said = [f"{d.title} has {d.pcie.replays_per_minute:g} replays a minute" for d in again[:3]]
    said += [f"the kernel's log has {count_of(len(corrected), 'corrected error')}"] if corrected else []
    yield Finding(
        role="risk" if again else "note",
        summary=f"The PCIe link of a GPU of {hardware.node}, which this pod uses, has to send much again: {', '.join(said)}.",
        evidence=(*(hardware.evidence(device, "pcie", _numbers(device)) for device in again), *corrected[:3]),
        fix=looked_at(hardware, f"{_set_right(hardware)}, then count again"),
    )


def _wider(hardware: Hardware, slow: Sequence[tuple[Device, str]]) -> str:
    """Where a link is narrow, its slot may be: an open machine, whose slots somebody chose."""
    narrow = [d.pcie for d, _ in slow if d.pcie.width and d.pcie.max_width and d.pcie.width < d.pcie.max_width]
    if not narrow or not _set_right(hardware).startswith(_BY_HAND):
        return ""
    return f", or give it a slot with {narrow[0].max_width} lanes (the board's manual and its bifurcation in the BIOS say which has them)"


def _set_right(hardware: Hardware) -> str:
    """What sets a bad contact right, by who may touch the machine."""
    node = hardware.pod.cluster.item("Node", "", hardware.node)
    if node is not None and str(dig(node.raw, "spec.providerID") or "").startswith(_CLOUDS):
        return f"Have the cloud give {hardware.node} another host (stop and start the instance, or replace the node)"
    return f"{_BY_HAND} on {hardware.node}"


def _broken(pod: Pod, hardware: Hardware, errors: list[BusError]) -> Finding:
    """Errors of the bus that ended what ran on the GPU."""
    count = len({error.line.time for error in errors})  # the port and the device behind it tell of the same
    return Finding(
        severity="critical",
        summary=f"The PCIe link of a GPU of {hardware.node}, which this pod uses, had {count_of(count, 'fatal error')}.",
        evidence=tuple(hardware.kernel.evidence(error.line) for error in errors[:3]),
        explains=("xid-error", "illegal-memory-access", *CONSEQUENCES),
        fixes=(
            out_of_service(hardware, f"Take {hardware.node} out of service and reseat the card or its riser"),
            elsewhere(pod),
        ),
        order=errors[0].line.order,
    )


def _fatal(hardware: Hardware) -> list[BusError]:
    """Fatal errors of links of the pod's GPUs that fell into the life of an instance that ended."""
    if not hardware.pod.failing:
        return []
    return [e for e in _mine(hardware) if e.severity == "fatal" and e.line.time and hardware.near(e.line.time)]


def _corrected(hardware: Hardware) -> list[Evidence]:
    """Corrected errors of the pod's GPUs, where they are many."""
    found = [error for error in _mine(hardware) if error.severity == "corrected"]
    return [hardware.kernel.evidence(error.line) for error in found] if len(found) >= _MANY_CORRECTED else []


def _mine(hardware: Hardware) -> Iterator[BusError]:
    """Errors of the bus that are about GPUs of the pod, since it came to the node."""
    buses = {device.bus for device in hardware.mine if device.bus}
    return (e for e in hardware.kernel.bus_errors if e.bus in buses and hardware.during(e.line.time))


def _why(device: Device) -> str:
    """`PCIe x4 of x16`; empty where the link is as it should be, or nothing is known."""
    link, said = device.pcie, []
    if link.width and link.max_width and link.width < link.max_width:
        said.append(f"PCIe x{link.width} of x{link.max_width}")
    if _slow(device):
        said.append(f"PCIe {link.gen}.0 of {link.max_gen}.0 under load")
    return " and ".join(said)


def _slow(device: Device) -> bool:
    """Whether its link is slower than it could be although it works."""
    link = device.pcie
    return bool(link.gen and link.max_gen and link.gen < link.max_gen and busy(device.utilization_percent))


def _factor(device: Device) -> int:
    """How many times as long a copy takes: a link carries twice as much with each generation, and with twice the lanes."""
    link = device.pcie
    lanes = link.max_width / link.width if link.width and link.max_width else 1.0
    speed = 2.0 ** (link.max_gen - link.gen) if link.gen and link.max_gen and _slow(device) else 1.0
    return round(lanes * speed)


def _wired_so(hardware: Hardware) -> bool:
    """Whether all of several GPUs of one kind have the same narrow link, none is slow and none sends again: no accident does that."""
    alike = {(device.name, device.pcie.width, device.pcie.max_width) for device in hardware.devices}
    quiet = not any(_slow(device) or device.pcie.replays_per_minute for device in hardware.devices)
    return len(hardware.devices) > 1 and len(alike) == 1 and quiet


def _alone(hardware: Hardware) -> bool:
    """Whether there is one GPU, a desktop's or a virtual machine's, on a link that is well: few lanes are as likely made so as a fault."""
    if len(hardware.devices) != 1 or _corrected(hardware):
        return False
    device = hardware.devices[0]
    return (
        ("GeForce" in (device.name or "") or _passed_through(device, hardware))
        and not _slow(device)
        and not device.pcie.replays
    )


def _passed_through(device: Device, hardware: Hardware) -> bool:
    """Whether a hypervisor shows it with half of its lanes or more.

    A card of a real machine sits behind a port, so on a bus of its own: only hypervisors put one on bus 0. EC2 alone has the A10G. What a
    cloud says of a node by its provider's id and type of machine holds for all the others (EC2's g6 with its L4).
    """
    link = device.pcie
    virtual = bool(device.bus and _BUS_0.match(device.bus)) or "A10G" in (device.name or "") or _of_a_cloud(hardware)
    return virtual and bool(link.width and link.max_width and 2 * link.width >= link.max_width)


def _of_a_cloud(hardware: Hardware) -> bool:
    """Whether the node is a virtual machine of a large cloud, by its own words: those on bare metal have that in their type."""
    node = hardware.pod.cluster.item("Node", "", hardware.node)
    if node is None:
        return False
    provider, kind = (
        str(dig(node.raw, "spec.providerID") or ""),
        node.labels.get(MACHINE, ""),
    )
    return provider.startswith(_CLOUDS) and bool(kind) and "metal" not in kind.lower()


def _wiring(device: Device, hardware: Hardware) -> str:
    if _passed_through(device, hardware):
        return "the virtual machine got it so"
    return "its slot or adapter may have no more lanes, or some are lost"


def _numbers(device: Device) -> str:
    link = device.pcie
    known: dict[str, float | None] = {
        "gen": link.gen,
        "maxGen": link.max_gen,
        "width": link.width,
        "maxWidth": link.max_width,
    }
    known |= {"replays": link.replays, "replaysPerMinute": link.replays_per_minute}
    known |= {"utilizationPercent": device.utilization_percent}
    return ", ".join(f"{key}: {value:g}" for key, value in known.items() if value is not None)
