"""A node whose GPUs are simulated, so that there is no driver whatever the node says."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Abstain,
    Container,
    Finding,
    Logs,
    Node,
    Pod,
    check,
    endings,
    fixes,
    log_evidence,
    log_of,
    node_evidence,
)
from llmdoctor_checks._consequences import FAILED_START

#: By which the fake GPU operator takes nodes (`topology.nodePoolLabelKey` of its chart); it then answers for the device plugin.
_SIMULATED = "run.ai/simulated-gpu-node-pool"

#: What programs say that find no driver in the container.
_NO_DRIVER = (
    "CUDA driver version is insufficient",
    "cudaErrorInsufficientDriver",
    "Found no NVIDIA driver",
    "No CUDA GPUs are available",
    "no CUDA-capable device",
    "Failed to infer device type",
    "libcuda.so.1: cannot open shared object file",
    "libnvidia-ml.so.1: cannot open shared object file",
)


@check("driver-missing", since="0.1", literals=_NO_DRIVER)
def driver_missing(pod: Pod, node: Node | None, logs: Logs) -> Iterator[Finding | Abstain]:
    """The node has no working driver for its GPU.

    The container runtime is set up for GPUs and calls NVIDIA's hook, but the driver is not installed, its kernel module is not
    loaded, or the module does not fit the kernel after an update. The container cannot be created, or nvidia-smi says that it
    cannot communicate with the driver. The pod's specification is not at fault.

    Where the fake GPU operator simulates the GPUs (nodes with the label `run.ai/simulated-gpu-node-pool`), pods are scheduled as if
    they were there, and CUDA answers that the driver is too old: there is none.

    ## Fix

    Repair the driver on the node. With the GPU operator the pod `nvidia-driver-daemonset` of that node says what is wrong;
    after a kernel update a driver that was installed by hand must be built again.

    ## References

    - https://docs.nvidia.com/datacenter/cloud-native/gpu-operator/latest/troubleshooting.html
    - https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/troubleshooting.html
    """
    if node is None:
        if pod.spec.node_name and any(_nvidia(container) for container in pod.containers):
            yield Abstain(reason=f"node {pod.spec.node_name} was not read")
        return
    pool = node.labels.get(_SIMULATED)
    for ending in endings(pod) if pool is not None and not pod.ready else ():
        log = log_of(ending, logs)
        line = next(log.find(*_NO_DRIVER), None) if log is not None else None
        if line is None or not _nvidia(ending.container):
            continue
        yield Finding(
            confidence="certain",
            summary=f"The GPUs of node {node.name} are simulated (by the fake GPU operator): there is no driver that a program could use.",
            evidence=(log_evidence(line), node_evidence(node, f"label {_SIMULATED}: {pool}")),
            explains=("driver-too-old", "gpu-runtime-missing", "driver-libs-not-on-path", *FAILED_START),
            fix=fixes.advice(
                f"Run it on a node with real GPUs: keep it off nodes with the label {_SIMULATED}, in {fixes.edited(pod)}"
            ),
            order=line.order,
        )
        return


def _nvidia(container: Container) -> bool:
    """Whether a container asks for GPUs that want NVIDIA's driver."""
    return any(name.startswith("nvidia.com/") for name in container.accelerators)
