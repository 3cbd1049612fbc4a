"""Settings for an RDMA network that the pod cannot use."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    RDMA,
    Container,
    Engine,
    Evidence,
    Finding,
    Fix,
    Log,
    Logs,
    Pod,
    Subject,
    check,
    fixes,
    log_evidence,
    pod_evidence,
)
from llmdoctor_checks.multi_gpu._network import rdma_device

_SETTINGS = ("NCCL_IB_HCA", "NCCL_IB_GID_INDEX", "NVSHMEM_HCA_LIST")

#: How NCCL says at NCCL_DEBUG=INFO by what it goes between nodes, before 2.26 and since; and why it takes no RDMA.
_SOCKETS = ("Using network Socket", "Initialized NET plugin Socket")
_WHY = (
    "NCCL WARN NET/OFI",
    "NET/OFI No eligible providers",
    "NET/IB : No device found",
    "NET/IB : Unable to open device",
)

#: Where the devices are in a container.
_DEVICES = "/dev/infiniband"

#: How it says at the same level that somebody told it to use sockets, wherever that stands.
_TOLD = "NCCL_IB_DISABLE set by environment to 1"

#: The same in a start script.
_EXPORTED = r"\bNCCL_IB_DISABLE=[\"']?[1-9]|\bNCCL_NET=[\"']?[Ss]ocket"


@check("nccl-ib", since="0.1", literals=(*_SOCKETS, *_WHY, _TOLD))
def nccl_ib(pod: Pod, engine: Engine, subject: Subject, logs: Logs | None) -> Iterator[Finding]:
    """NCCL has trouble with the RDMA network.

    Between nodes NCCL uses InfiniBand, RoCE or EFA where it finds them. A GID index of the wrong RoCE version, a subnet that is not
    routed, a switch without flow control or a port that flaps make operations fail; NCCL then says which call or which
    completion status. That no device was found is only an information: it uses sockets then. Where a pod of several asks for RDMA
    devices, and NCCL says that it uses sockets, the devices lie idle and all between the nodes is many times slower: a risk. Memory
    that cannot be locked is `memlock-limit`.

    ## Fix

    Name devices and GID index, check the path between exactly these two nodes. Status 5 is an
    after-effect; look for the first other one.

    ## References

    - https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html
    - https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html
    """
    several = (pod.nodes or 1) > 1 or (engine.value("nnodes", 1) or 1) != 1
    if several or len(subject.pods) > 1 or (engine.workers or 1) > (engine.container.gpus or 1):
        yield from _unused(pod, engine.container, logs)
    off = engine.container.env.get("NCCL_IB_DISABLE")
    if pod.ready or not several or rdma_device(pod) or (off and off.value != "0"):
        return
    found = [v for name in _SETTINGS if (v := engine.container.env.get(name))]
    if not found:
        return
    names = ", ".join(v.name for v in found)
    yield Finding(
        role="note",
        confidence="possible",
        summary=f"{names} choose RDMA devices, and the pod asks for none: without a device NCCL takes plain sockets between "
        "the nodes, many times slower, and says so only at NCCL_DEBUG=INFO.",
        evidence=tuple(Evidence(source="pod", ref=v.path, text=f"{v.name}={v.value or '…'}") for v in found),
        fix=fixes.request_rdma(engine.container, "Give {container} the RDMA devices of its nodes ({rdma})")
        or fixes.advice(f"Remove {names} from {fixes.edited(pod)}: its node offers no RDMA device"),
    )


def _unused(pod: Pod, container: Container, logs: Logs | None) -> Iterator[Finding]:
    """RDMA devices that the pod asks for, and that NCCL does not use between the nodes."""
    limits = container.spec.resources.limits
    device = next((name for name in limits if re.fullmatch(RDMA, name.lower()) and str(limits[name]) != "0"), None)
    log = container.own_log(logs)
    if device is None or log is None or not pod.ready or _meant(container, log):
        return
    said = [*log.find(*_SOCKETS)]
    if not said:
        return
    why = min(log.find(*_WHY), key=lambda line: line.number, default=None)
    yield Finding(
        role="risk",
        summary=f"{container.name} asks for {limits[device]} {device}, and NCCL goes by plain sockets between the nodes: many times "
        "slower.",
        evidence=(
            log_evidence(said[-1]),
            *((log_evidence(why),) if why else ()),
            pod_evidence(container, "resources.limits", f"{device}: {limits[device]}"),
        ),
        fixes=(*_over_the_devices(container), _look(container)),
    )


def _over_the_devices(container: Container) -> Iterator[Fix]:
    """The node's own /dev/infiniband over what the device plugin gave; libfabric gives up at a device that it cannot open."""
    mount = container.mount_over(_DEVICES)
    volume = container.pod.volume(mount.name) if mount else None
    if mount is None or volume is None or volume.host_path is None or mount.mount_path.rstrip("/") == "":
        return
    yield fixes.advice(
        f"Remove the mount of {mount.mount_path} from {container.name} in all pods, and the hostPath volume {mount.name} "
        f"({volume.host_path.path}) in {fixes.edited(container.pod)}: it shows all adapters of the node, and those that the container "
        "was not given cannot be opened"
    )


def _look(container: Container) -> Fix:
    """What the container has."""
    pod = container.pod
    return fixes.advice(
        "See which RDMA devices the container has and can open, and that the image's libraries (rdma-core; libfabric and NCCL's plugin "
        "for EFA) fit the node's driver",
        f"kubectl -n {pod.namespace} exec {pod.name} -c {container.name} -- sh -c 'ls -l /dev/infiniband; ibv_devices; fi_info -p efa'",
    )


def _meant(container: Container, log: Log) -> bool:
    """Whether somebody told NCCL to use sockets, or may have: the devices may be for what else the engine sends (KV caches)."""
    off, net = container.env.get("NCCL_IB_DISABLE"), container.env.get("NCCL_NET")
    if (off and off.value != "0") or (net and str(net.value or "socket").lower() == "socket"):
        return True
    words = container.spec.argv
    return any(log.find(_TOLD)) or any(re.search(_EXPORTED, text) for text in words)
