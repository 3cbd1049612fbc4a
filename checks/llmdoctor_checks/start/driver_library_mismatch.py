"""A kernel module and libraries of different versions, by the node's own account."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Evidence, Finding, Hardware, Logs, Pod, check, ended_logs, fixes, letters, phase_of
from llmdoctor_checks.hardware._gpu import CONSEQUENCES

#: How far a start comes without a GPU.
_BEFORE_GPUS = ("", "downloading the model")


@check("driver-library-mismatch", since="0.1")
def driver_library_mismatch(pod: Pod, hardware: Hardware, logs: Logs | None) -> Iterator[Finding]:
    """The driver of the node and the libraries that use it differ in version.

    A package upgrade replaced the driver's libraries on the node, and the kernel module of the old version is still loaded, because
    something used the GPUs or because nobody rebooted. Containers that run go on; every new one fails when it
    opens a GPU, and so do `nvidia-smi` and the device plugin after its next restart.

    A CDI specification lists the driver's libraries one by one, with its version in their names: where nobody makes it again after
    an upgrade, the runtime looks for files that are gone, and creates no container with a GPU.

    The node agent has the libraries that were there when its own container was made: that they do not fit the module any
    more can also mean that the driver was loaded again under the agent. The kernel's line `API mismatch` names both versions.

    Gaudi's runtime may open no device of a driver of another release than its own (1.15 and 1.16 are two), whichever is newer.

    ## Fix

    Drain the node and reboot it, or unload the modules and load them again when nothing uses a GPU. Hold the driver's packages so that
    they change only in a maintenance. Have `nvidia-cdi-refresh` (or `nvidia-ctk cdi generate`) run after each upgrade.
    For Gaudi take the image that was built for the release of the node's driver.

    ## References

    - https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceEnumvs.html
    - https://docs.habana.ai/en/latest/Support_Matrix/Support_Matrix.html
    """
    errors = hardware.agent.errors if hardware.agent else ()
    said: list[Evidence] = [hardware.of_node.said(e.text) for e in errors if "versionmismatch" in letters(e.reason)]
    logged = [line for line in hardware.kernel.mismatches if hardware.during(line.time)]
    if not (said or logged) or not hardware.asks or hardware.devices:
        return
    after = hardware.kernel.lines[hardware.kernel.lines.index(logged[-1]) :][:4] if logged else []
    said += [hardware.kernel.evidence(line) for line in after if "NVRM" in line.text]
    stopped = pod.failing and not hardware.runs and not _had_gpus(pod, logs)
    yield Finding(
        role="cause" if stopped else "risk" if logged else "note",
        confidence="certain" if stopped and logged and errors else "likely" if stopped or logged else "possible",
        summary=f"On node {hardware.node} the kernel module that runs is not of the version of the driver's libraries"
        f"{': no container that starts gets a GPU' if stopped else '; a container that starts again gets no GPU'}.",
        evidence=tuple(said),
        explains=("driver-missing", "cuda-compat-mismatch", "nvml-lost", *CONSEQUENCES) if stopped else (),
        fixes=(
            fixes.platform(
                f"Drain node {hardware.node} (its pods lose their emptyDir volumes) and reboot it: that loads the new kernel module",
                f"kubectl drain {hardware.node} --ignore-daemonsets --delete-emptydir-data",
                f"kubectl debug node/{hardware.node} -it --image=busybox -- cat /proc/driver/nvidia/version",
            ),
            fixes.platform(
                "Keep the driver's packages from being upgraded under running GPUs (unattended upgrades), or let the GPU "
                "operator manage the driver"
            ),
        ),
    )


def _had_gpus(pod: Pod, logs: Logs | None) -> bool:
    """Whether the instance that ended had come as far as only one with a GPU comes."""
    phases = map(phase_of, ended_logs(pod, logs))
    return any(phase is not None and phase.name not in _BEFORE_GPUS for phase in phases)
