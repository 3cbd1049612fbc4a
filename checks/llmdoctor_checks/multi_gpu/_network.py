"""What a pod says of its networks: RDMA devices, further interfaces."""

import re

from kubectl_llmdoctor.api import Pod

#: Resources of InfiniBand, RoCE and EFA devices, and of NVLink domains over several nodes.
_FABRIC = r"rdma|infiniband|hca|roce|\befa\b|mlnx|mellanox|hostdev|/ib|erdma|imex|sriov|networks/"

#: Variables that somebody sets who has such a network.
_VARIABLES = (
    r"NCCL_IB_(HCA|GID_INDEX|ADDR|TC|SL|QPS|TIMEOUT|CUDA)|FI_|NCCL_NET(_PLUGIN)?$|NCCL_MNNVL|NVSHMEM_IB|UCX_NET|GLOO_IB"
)


def further_networks(pod: Pod) -> bool:
    """Whether a pod may have other interfaces than `eth0` and `lo`: the host's, or those of a second network."""
    return bool(pod.spec.host_network or pod.spec.resource_claims or pod.partial or _attached(pod))


def _attached(pod: Pod) -> bool:
    """Whether annotations of a pod ask for another network (Multus, GKE)."""
    return any("networks" in key or "interfaces" in key for key in pod.annotations)


def _has_device(pod: Pod) -> bool:
    """Whether a pod asks for a device of a fast network, or mounts those of the host."""
    if any(v.host_path and "infiniband" in v.host_path.path for v in pod.spec.volumes):
        return True
    resources = (name for c in pod.containers for name in (*c.spec.resources.limits, *c.spec.resources.requests))
    return any(re.search(_FABRIC, name.lower()) for name in resources)


def rdma_device(pod: Pod) -> bool:
    """Whether a pod may have an RDMA device: a resource, the host's devices, or a claim."""
    contexts = (container.spec.security_context for container in pod.containers)
    return further_networks(pod) or _has_device(pod) or any(context and context.privileged for context in contexts)


def fabric(pod: Pod) -> bool:
    """Whether something of a pod speaks of a fast network between nodes."""
    if _attached(pod) or pod.spec.resource_claims or _has_device(pod):
        return True
    return any(re.match(_VARIABLES, name) for container in pod.containers for name in container.env)
