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
    if pod.spec.host_network or pod.spec.resource_claims or pod.partial:
        return True
    return any("networks" in key or "interfaces" in key for key in pod.annotations)


def rdma_device(pod: Pod) -> bool:
    """Whether a pod may have an RDMA device: a resource, the host's devices, or a claim."""
    if further_networks(pod) or any(v.host_path and "infiniband" in v.host_path.path for v in pod.spec.volumes):
        return True
    for container in pod.containers:
        resources, security = container.spec.resources, container.spec.security_context
        if security and security.privileged:
            return True
        if any(re.search(_FABRIC, name.lower()) for name in (*resources.limits, *resources.requests)):
            return True
    return False


def fabric(pod: Pod) -> bool:
    """Whether something of a pod speaks of a fast network between nodes."""
    metadata = pod.obj.metadata
    if any("networks" in str(key) or "interfaces" in str(key) for key in metadata.annotations):
        return True
    if pod.spec.resource_claims or any(v.host_path and "infiniband" in v.host_path.path for v in pod.spec.volumes):
        return True
    for container in pod.containers:
        resources = container.spec.resources
        if any(re.search(_FABRIC, name.lower()) for name in (*resources.limits, *resources.requests)):
            return True
        if any(re.match(_VARIABLES, name) for name in container.env):
            return True
    return False
