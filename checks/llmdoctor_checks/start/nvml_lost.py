"""A container that lost its GPUs while the node has them."""

from collections.abc import Iterator
from typing import Literal

from kubectl_llmdoctor.api import Evidence, Finding, Hardware, Logs, Pod, check, count_of, fixes, log_evidence
from llmdoctor_checks._ollama import LOST, lost

#: What a program in a container says whose devices are closed to it.
_SAID = ("Failed to initialize NVML: Unknown Error", "NVMLError_Unknown: Unknown Error")
#: What CUDA says of that, and of other things too.
_VAGUE = ("no CUDA-capable device is detected", "CUDA unknown error")
_RELOADS = ("systemd[1]: Reloading", "systemd: Reloading", "Reloading requested from client", "daemon-reload")


@check("nvml-lost", since="0.1", literals=(*_SAID, *_VAGUE, LOST))
def nvml_lost(pod: Pod, hardware: Hardware | None, logs: Logs) -> Iterator[Finding]:
    """The container has lost its GPUs.

    The driver works on the node, but this container may no longer open the devices. It happens to containers that got their
    GPUs from NVIDIA's hook behind the runtime's back: when systemd reloads (`systemctl daemon-reload`, an update of a package) it writes
    the container's device rules again and drops what it does not know of. Running work may go on for a while; whatever opens the
    device again fails with "Failed to initialize NVML: Unknown Error". The pod stays Running and Ready. Ollama, which starts a new
    process for each model that it loads, then goes on with the CPU.

    ## Fix

    Recreate the pod. To prevent it, let the toolkit inject GPUs by CDI, or create the `/dev/char` links and let the device plugin
    pass device specifications.

    ## References

    - https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/troubleshooting.html
    - https://github.com/NVIDIA/nvidia-container-toolkit/issues/48
    """
    if hardware is not None and (len(hardware.mine) < max(pod.gpus, 1) or any(device.lost for device in hardware.mine)):
        return
    closed = _beside_the_driver(hardware, logs) if hardware is not None else None
    found = closed or next((one for one in (_since_its_start(c.name, logs) for c in pod.containers) if one), None)
    if found is None:
        return
    confidence, order, summary, evidence = found
    yield Finding(
        confidence=confidence,
        severity="warning" if pod.ready and not closed else None,  # Ollama goes on with the CPU
        summary=summary,
        evidence=evidence,
        explains=(
            "gpu-runtime-missing",
            "driver-missing",
            "engine-init-failed",
            "engine-dead",
            "worker-lost",
            "crash-loop",
            "not-ready",
            "weights-off-gpu",
        ),
        fix=fixes.advice(
            f"Recreate the pod, whose new container has its devices again{fixes.lone(pod)}; so that it keeps them, inject GPUs by CDI "
            f"on node {pod.spec.node_name or '?'}, or let the device plugin pass their device nodes (PASS_DEVICE_SPECS=true, without "
            "which the kubelet's static CPU manager takes them, too) and link these in /dev/char for systemd",
            f"kubectl -n {pod.namespace} delete pod {pod.name}",
        ),
        order=order,
    )


#: How sure it is, the order of the line, what is to be said, and the quotations.
_Found = tuple[Literal["certain", "likely"], float, str, tuple[Evidence, ...]]


def _beside_the_driver(hardware: Hardware, logs: Logs) -> _Found | None:
    """The container may not open what the driver still sees."""
    reload = next(
        (x for x in hardware.kernel.lines if any(t in x.text for t in _RELOADS) and hardware.during(x.time)), None
    )
    words = _SAID if reload is None else (*_SAID, *_VAGUE)
    line = next(logs.find(*words), None)
    if line is None:
        return None
    summary = (
        f"The driver of {hardware.node} still sees {count_of(len(hardware.mine), 'GPU')} of this pod, and the "
        f"container may no longer open them{'; systemd was reloaded since the pod started' if reload else ''}."
    )
    evidence = (
        log_evidence(line),
        *(hardware.evidence(device, "uuid", device.uuid) for device in hardware.mine[:2]),
        *([hardware.kernel.evidence(reload)] if reload else []),
    )
    return "certain" if any(text in line.text for text in _SAID) else "likely", line.order, summary, evidence


def _since_its_start(container: str, logs: Logs) -> _Found | None:
    """A model that Ollama loaded found a GPU, and one that it loads later finds none."""
    both = lost(container, logs)
    if both is None:
        return None
    there, gone = both
    summary = f"{container or 'Ollama'} found a GPU for a model that it loaded before, and finds none now: it runs on the CPU."
    return "likely", gone.order, summary, (log_evidence(there), log_evidence(gone))
