"""NVSwitches that nobody has set up, by the node's own account."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Device, Finding, Hardware, Pod, check, expression, fixes, letters
from llmdoctor_checks.hardware._gpu import CONSEQUENCES, by_others

#: NVML's states of a GPU's registration with the fabric that are not the end of it.
_UNFINISHED = frozenset({"notstarted", "inprogress"})
#: systemd's and the service's own lines in the journal.
_DEAD = expression(
    r"(?i)(?:nvidia-fabricmanager|nv-fabricmanager|fabricmanager).{0,80}(?:failed|exited|error|terminated|not running)"
    r"|failed to start .{0,40}fabric ?manager"
)


@check("fabric-manager-down", since="0.1")
def fabric_manager_down(pod: Pod, hardware: Hardware) -> Iterator[Finding]:
    """The fabric manager is not running on the node.

    In servers with NVSwitch (HGX and DGX with A100, H100, H200, B200) a service, the fabric manager, has to set up the switches before CUDA
    works at all. It is not installed, did not start, or has another version than the driver, as after a driver update. nvidia-smi shows
    all GPUs, but every CUDA program fails with error 802. On the newest systems the same is true of the IMEX and NVLSM services.

    ## Fix

    Install and start `nvidia-fabricmanager` in exactly the driver's version, then recreate the pods. A lone missing network plugin of NCCL
    in the same log is harmless.

    ## References

    - https://docs.nvidia.com/datacenter/tesla/fabric-manager-user-guide/
    - https://docs.nvidia.com/datacenter/cloud-native/gpu-operator/latest/troubleshooting.html
    """
    if not pod.failing or not hardware.asks:
        return
    # where a process has a GPU, CUDA starts
    waiting = [d for d in hardware.mine or hardware.devices if d.joining in _UNFINISHED and not d.all_processes]
    said = [line for line in hardware.kernel.lines if _DEAD.search(line.text)]
    errors = [error.text for error in (hardware.agent.errors if hardware.agent else ()) if _DEAD.search(error.text)]
    refused = [d for d in hardware.mine or hardware.devices if d.joining == "completed" and _refused(d)]
    # a service that failed once may have been started since: the GPUs know
    if not waiting and not refused and any(d.joining for d in hardware.devices):
        return
    evidence = [
        *(hardware.evidence(d, "fabric", f"state: {d.fabric.state or d.fabric_state}") for d in waiting[:2]),
        *(hardware.evidence(d, "fabric", f"state: {d.fabric.state}, status: {d.fabric.status}") for d in refused[:2]),
        *(hardware.of_node.said(text) for text in errors[:2]),
        *(hardware.kernel.evidence(line) for line in said[-2:]),
        *by_others(hardware, "fabric-manager-down"),
    ]
    if not evidence:
        return
    count = f": {len(refused)} of {len(hardware.devices)} GPUs could not be registered with it" if refused else ""
    count = count or f": {len(waiting)} of {len(hardware.devices)} GPUs are not registered with it" if waiting else ""
    yield Finding(
        role="cause",
        confidence="certain" if waiting or refused else "likely",
        summary=f"The NVSwitches of {hardware.node} are not set up by the fabric manager{count}; CUDA does not start there.",
        evidence=tuple(evidence),
        explains=("import-broken", *CONSEQUENCES),
        fixes=(
            fixes.advice(
                f"Start the fabric manager on node {hardware.node}, in the same version as the driver"
                f"{f' ({hardware.agent.driver_version})' if hardware.agent and hardware.agent.driver_version else ''}; "
                "with the GPU operator it runs in the driver pod",
                fixes.on_node(hardware.node, "systemctl status nvidia-fabricmanager"),
                owner="platform",
            ),
            fixes.advice(
                "Until then keep GPU pods away from the node", f"kubectl cordon {hardware.node}", owner="platform"
            ),
        ),
    )


def _refused(device: Device) -> bool:
    """Whether the registration ended in an error: the status means something only where it has come to its end."""
    status = letters(device.fabric.status)
    return bool(status) and status not in ("success", "nvmlsuccess", "ok", "0")
