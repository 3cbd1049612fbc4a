"""Settings for an RDMA network that the pod cannot use."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Engine, Evidence, Finding, Pod, check, fixes
from llmdoctor_checks.multi_gpu._network import rdma_device

_SETTINGS = ("NCCL_IB_HCA", "NCCL_IB_GID_INDEX", "NVSHMEM_HCA_LIST")


@check("nccl-ib", since="0.1")
def nccl_ib(pod: Pod, engine: Engine) -> Iterator[Finding]:
    """NCCL has trouble with the RDMA network.

    Between nodes NCCL uses InfiniBand, RoCE or EFA where it finds them. A GID index of the wrong RoCE version, a subnet that is not
    routed, a switch without flow control or a port that flaps make operations fail; NCCL then says which call or which
    completion status. That no device was found is only an information: it uses sockets then. Memory that cannot be locked is
    `memlock-limit`.

    ## Fix

    Name devices and GID index, check the path between exactly these two nodes. Status 5 is an
    after-effect; look for the first other one.

    ## References

    - https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html
    - https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html
    """
    several = (pod.nodes or 1) > 1 or (engine.value("nnodes", 1) or 1) != 1
    off = engine.container.env.get("NCCL_IB_DISABLE")
    if pod.ready or not several or rdma_device(pod) or (off and off.value != "0"):
        return
    found = [v for name in _SETTINGS if (v := engine.container.env.get(name))]
    if not found:
        return
    names = ", ".join(v.name for v in found)
    yield Finding(
        role="note",
        severity="info",
        confidence="possible",
        summary=f"{names} choose RDMA devices, and the pod asks for none: without a device NCCL takes plain sockets between "
        "the nodes, many times slower, and says so only at NCCL_DEBUG=INFO.",
        evidence=tuple(Evidence(source="pod", ref=v.path, text=f"{v.name}={v.value or '…'}") for v in found),
        fixes=(
            fixes.advice(
                f"Request the RDMA resource of your nodes (rdma/…, vpc.amazonaws.com/efa) in {fixes.edited(pod)}, or remove "
                f"{names}"
            ),
        ),
        pods=(pod.name,) if pod.exists else (),
    )
