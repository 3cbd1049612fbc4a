"""An NVLink between GPUs that is not up."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Device, Finding, Hardware, Pod, check, endings
from kubectl_llmdoctor.catalog.gpus import by_product
from kubectl_llmdoctor.catalog.xids import XidMeaning
from llmdoctor_checks.hardware._gpu import CONSEQUENCES, elsewhere, hits, order_of, out_of_service, quoted


@check("nvlink-down", since="0.2")
def nvlink_down(pod: Pod, hardware: Hardware) -> Iterator[Finding]:
    """An NVLink of a GPU is down.

    GPUs that are joined by NVLink exchange everything over it. When links fail (Xid 74, on newer GPUs 144 to 150) a running
    collective aborts or hangs; after a restart NCCL does with fewer links, or goes over PCIe, many times slower. A card
    that can do without a bridge and has no link that is up is taken to have none.

    ## Fix

    Reset the GPUs and the switches together, or reboot; when the link stays down, reseat the bridge or the module.

    ## References

    - https://docs.nvidia.com/deploy/xid-errors/
    - https://docs.nvidia.com/datacenter/tesla/fabric-manager-user-guide/
    """
    joined = any(link.active for device in hardware.devices for link in device.nvlinks) or any(
        (gpu := by_product(device.name)) and gpu.nvlink for device in hardware.mine
    )
    yield from _by_switch(pod, hardware)
    down = [(device, numbers) for device in hardware.mine if (numbers := _down(device))]
    if not joined or not down:
        return
    errors = [hit for hit in hits(hardware, _of_nvlink) if hardware.explains(hit[0])]
    ran = any(True for _ in endings(pod)) or any(c.running for c in pod.containers if c.role == "main")
    together = len(hardware.mine) > 1
    yield Finding(
        role="cause" if together and ran else "note",
        severity="warning" if pod.ready and together else None,
        confidence="certain" if errors else "likely",
        summary="; ".join(
            f"{len(numbers)} of {len(device.nvlinks)} NVLinks of {device.title} on {hardware.node} are down"
            for device, numbers in down[:4]
        )
        + (f"; the {len(hardware.mine)} GPUs of this pod exchange everything over them." if together else "."),
        evidence=(
            *(
                hardware.evidence(device, "nvlinks", f"active: false on link {', '.join(map(str, numbers))}")
                for device, numbers in down
            ),
            *quoted(errors),
        ),
        explains=("xid-error", *CONSEQUENCES) if together else (),
        fixes=(
            out_of_service(hardware, f"Reset the GPUs of {hardware.node} together, or reboot it"),
            *([elsewhere(pod)] if together else []),
        ),
        order=order_of(errors[0][0]) if errors else None,
        pods=(pod.name,),
    )


def _by_switch(pod: Pod, hardware: Hardware) -> Iterator[Finding]:
    """A switch that reports that a link of it failed, while the pod, which has several GPUs, went down."""
    lines = [x for x in hardware.kernel.fatal_switch_errors if "Link" in x.text and hardware.during(x.time)]
    near = [x for x in lines if hardware.near(x.time)]
    if not near or pod.gpus < 2:
        return
    yield Finding(
        role="cause",
        confidence="certain" if hardware.whole_node else "likely",
        summary=f"A switch between the GPUs of {hardware.node} reported a fatal error of a link; the {pod.gpus} GPUs of this pod "
        "exchange everything over such links.",
        evidence=(*(hardware.kernel.evidence(x) for x in near[:3]), *quoted(hits(hardware, _of_nvlink))),
        explains=("xid-error", "illegal-memory-access", *CONSEQUENCES),
        fixes=(
            out_of_service(hardware, f"Reset the GPUs and switches of {hardware.node} together, or reboot it"),
            elsewhere(pod),
        ),
        order=near[0].time.timestamp() if near[0].time else None,
        pods=(pod.name,),
    )


def _down(device: Device) -> list[int]:
    return [n if link.link is None else link.link for n, link in enumerate(device.nvlinks) if link.active is False]


def _of_nvlink(_: int, meaning: XidMeaning | None) -> bool:
    return meaning is not None and meaning.mnemonic.startswith("NVLINK")
