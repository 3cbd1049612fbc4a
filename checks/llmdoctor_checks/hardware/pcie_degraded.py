"""A GPU whose link to the host is narrower or slower than it could be."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Device, Finding, Hardware, Pod, check
from llmdoctor_checks.hardware._gpu import busy, looked_at


@check("pcie-degraded", since="0.2", severity="warning")
def pcie_degraded(pod: Pod, hardware: Hardware) -> Iterator[Finding]:
    """The PCIe link of a GPU is narrower or slower than it could be.

    Card and slot agree on the width and the speed of their link, and fall back when lanes or their signals are bad: a
    riser, dust, a card that sits askew. Loading a model, offloading and, without NVLink, all that the ranks exchange
    take as much longer. A GPU without work lowers the speed (the generation) of its link to save power: only under load
    does that say anything. The width stays.

    ## Fix

    Reseat the card or its riser, update the firmware of the board, try another slot.

    ## References

    - https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html
    """
    slow = [(device, why) for device in hardware.mine if (why := _why(device))]
    if not slow:
        return
    now = pod.ready and any(busy(device.utilization_percent) is not False for device, _ in slow)
    yield Finding(
        role="cause" if now else "risk",
        severity="warning",
        confidence="certain" if now and any(busy(d.utilization_percent) for d, _ in slow) else "likely",
        summary="; ".join(f"{device.title} of {hardware.node} runs on {why}" for device, why in slow[:4])
        + ": what passes between host and GPU takes as much longer.",
        evidence=tuple(hardware.evidence(device, "pcie", _numbers(device)) for device, _ in slow),
        explains=("slow-load",),
        fixes=(looked_at(hardware, f"Reseat the card or its riser on {hardware.node}, then look at its link again"),),
        pods=(pod.name,),
    )


def _why(device: Device) -> str:
    """`PCIe x4 of x16`; empty where the link is as it should be, or nothing is known."""
    link, said = device.pcie, []
    if link.width and link.max_width and link.width < link.max_width:
        said.append(f"PCIe x{link.width} of x{link.max_width}")
    if link.gen and link.max_gen and link.gen < link.max_gen and busy(device.utilization_percent):
        said.append(f"PCIe {link.gen}.0 of {link.max_gen}.0 under load")
    return " and ".join(said)


def _numbers(device: Device) -> str:
    link = device.pcie
    known: dict[str, float | None] = {
        "gen": link.gen,
        "maxGen": link.max_gen,
        "width": link.width,
        "maxWidth": link.max_width,
    }
    known |= {"replays": link.replays, "utilizationPercent": device.utilization_percent}
    return ", ".join(f"{key}: {value:g}" for key, value in known.items() if value is not None)
