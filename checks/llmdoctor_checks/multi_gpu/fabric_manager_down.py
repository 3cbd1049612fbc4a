"""NVSwitches that nobody has set up, by the node's own account, and servers that went on without CUDA for it."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Device,
    Engine,
    Evidence,
    Finding,
    Fix,
    Hardware,
    Logs,
    Pod,
    Subject,
    check,
    count_of,
    expression,
    fixes,
    letters,
)
from llmdoctor_checks._offloaded import asked_for, on_gpu_since, without_gpu
from llmdoctor_checks.hardware._gpu import CONSEQUENCES, by_others

#: NVML's states of a GPU's registration with the fabric that are not the end of it.
_UNFINISHED = frozenset({"notstarted", "inprogress"})
#: systemd's and the service's own lines in the journal.
_DEAD = expression(
    r"(?i)(?:nvidia-fabricmanager|nv-fabricmanager|fabricmanager).{0,80}(?:failed|exited|error|terminated|not running)"
    r"|failed to start .{0,40}fabric ?manager"
)


#: llama.cpp, and Ollama with it, of CUDA's error 802: they go on with the CPU.
#: The others are Ollama's own, which looked for GPUs itself before 0.12.
_REFUSED = (
    "initialize CUDA: system not yet initialized",
    "cuda driver library init failure: 802",
    "nvcuda init failure: 802",
    "cudart init failure: 802",
)


@check("fabric-manager-down", since="0.1", literals=_REFUSED)
def fabric_manager_down(pod: Pod, subject: Subject, hardware: Hardware | None, logs: Logs | None) -> Iterator[Finding]:
    """The fabric manager is not running on the node.

    In servers with NVSwitch (HGX and DGX with A100, H100, H200, B200) a service, the fabric manager, has to set up the switches before CUDA
    works at all. It is not installed, did not start, or has another version than the driver, as after a driver update. nvidia-smi shows
    all GPUs, but every CUDA program fails with error 802; llama.cpp and Ollama go on with the CPU, and are many times slower. On the
    newest systems the same is true of the IMEX and NVLSM services.

    ## Fix

    Install and start `nvidia-fabricmanager` in exactly the driver's version, then recreate the pods. A lone missing network plugin of NCCL
    in the same log is harmless.

    ## References

    - https://docs.nvidia.com/datacenter/tesla/fabric-manager-user-guide/
    - https://docs.nvidia.com/datacenter/cloud-native/gpu-operator/latest/troubleshooting.html
    """
    if pod.ready and logs is not None:
        for engine in subject.engines(pod):
            yield from _on_the_cpu(engine, logs)
    if hardware is None or not pod.failing or not hardware.asks:
        return
    gpus = hardware.mine or hardware.devices
    # where a process has a GPU, CUDA starts
    waiting = [d for d in gpus if d.joining in _UNFINISHED and not d.all_processes]
    refused = [d for d in gpus if d.joining == "completed" and _refused(d)]
    # a service that failed once may have been started since: the GPUs know
    if not waiting and not refused and any(d.joining for d in hardware.devices):
        return
    evidence = (
        *(hardware.evidence(d, "fabric", f"state: {d.fabric.state or d.fabric_state}") for d in waiting[:2]),
        *(hardware.evidence(d, "fabric", f"state: {d.fabric.state}, status: {d.fabric.status}") for d in refused[:2]),
        *_said_dead(hardware),
        *by_others(hardware, "fabric-manager-down"),
    )
    if evidence:
        yield Finding(
            confidence="certain" if waiting or refused else "likely",
            summary=f"The NVSwitches of {hardware.node} are not set up by the fabric manager{_unregistered(hardware, waiting, refused)}; "
            "CUDA does not start there.",
            evidence=evidence,
            explains=("import-broken", *CONSEQUENCES),
            fixes=_repairs(hardware.node, hardware.agent.driver_version if hardware.agent else None),
        )


def _said_dead(hardware: Hardware) -> Iterator[Evidence]:
    """What the node agent and the node's own log say of a service that failed."""
    errors = [error.text for error in (hardware.agent.errors if hardware.agent else ()) if _DEAD.search(error.text)]
    yield from (hardware.of_node.said(text) for text in errors[:2])
    said = [line for line in hardware.kernel.lines if _DEAD.search(line.text)]
    yield from (hardware.kernel.evidence(line) for line in said[-2:])


def _unregistered(hardware: Hardware, waiting: list[Device], refused: list[Device]) -> str:
    """How many GPUs the fabric manager has not registered, in words; empty where no GPU tells."""
    count = len(refused or waiting)
    if not count:
        return ""
    what = "could not be" if refused else "is not" if count == 1 else "are not"
    return f": {count} of {count_of(len(hardware.devices), 'GPU')} {what} registered with it"


def _on_the_cpu(engine: Engine, logs: Logs) -> Iterator[Finding]:
    """A server that is up and slow, since CUDA told it that the switches are not set up."""
    log = logs.current(engine.container.name) if asked_for(engine) else None
    line = log.last(*_REFUSED) if log else None
    if line is None or on_gpu_since(line):
        return
    node = engine.pod.spec.node_name or "?"
    why = f"CUDA answers 'system not yet initialized' (802), which says that the fabric manager has not set up the NVSwitches of {node}"
    yield without_gpu(engine, line, why, _repairs(node)[0])


def _repairs(node: str, driver: str | None = None) -> tuple[Fix, Fix]:
    start = fixes.platform(
        f"Start the fabric manager on node {node}, in the same version as the driver{f' ({driver})' if driver else ''}; "
        "where the GPU operator installs the driver, restart its driver pod, in which it runs",
        fixes.on_node(node, "systemctl restart nvidia-fabricmanager"),
    )
    away = fixes.platform("Until then keep GPU pods away from the node", f"kubectl cordon {node}")
    return start, away


def _refused(device: Device) -> bool:
    """Whether the registration ended in an error: the status means something only where it has come to its end."""
    status = letters(device.fabric.status)
    return bool(status) and status not in ("success", "nvmlsuccess", "ok", "0")
