"""Whether a container is given a device to compute on."""

import re

from kubectl_llmdoctor.api import GKE_GPU, Container, Node

#: Builds for other hardware, by the words of their image names.
_OTHER_HARDWARE = r"(?i)cpu|xpu|tpu|neuron|gaudi|hpu|habana|intel|ipex|openvino|arm64|npu|ascend|sim(?:ulator)?\b|\bopea/vllm(?![\w-])"

#: Extended resources that compute nothing.
_NO_DEVICE = r"(?i)rdma|efa|hca|sriov|macvlan|/(?:fuse|kvm|tun|vhost-net)$"

#: Words of what leads a pod to a node with GPUs, whose runtime may give them to whoever asks for none.
_NEAR_GPUS = r"(?i)gpu|nvidia|accelerator|amd\.com"


def asked_gpus(container: Container) -> dict[str, int]:
    """The resources of NVIDIA's and AMD's that a container asks for."""
    return {name: n for name, n in container.accelerators.items() if name.startswith(("nvidia.com/", "amd.com/"))}


def asks_for_nothing(container: Container, *, of_any_maker: bool = False) -> bool:
    """Whether no way to a device is open: no resource, no claim, no device of the host; of NVIDIA's and AMD's, if not of any maker."""
    pod, resources = container.pod, container.spec.resources
    named = [*resources.limits, *resources.requests]
    if container.gpus or resources.claims or pod.spec.resource_claims:
        return False
    if any("/" in name and not re.search(_NO_DEVICE, name) for name in named):
        return False  # zero is written out, or it is the device of another vendor
    if not of_any_maker and for_other_hardware(container):
        return False
    if container.spec.security_context.privileged and "NVIDIA_VISIBLE_DEVICES" not in container.env:
        return False  # it may have been given devices in other ways
    return not any(
        v.host_path and v.host_path.path.startswith("/dev") and v.host_path.path != "/dev/shm" for v in pod.spec.volumes
    )


def for_other_hardware(container: Container) -> bool:
    """Whether its image was built for something else than a GPU of NVIDIA's or AMD's, by its name."""
    return re.search(_OTHER_HARDWARE, container.spec.image) is not None


def near_gpus(container: Container) -> bool:
    """Whether its pod is led to a node with GPUs, or to a runtime of its own, or a variable of NVIDIA's runtime is set."""
    spec = container.pod.spec
    selected = (f"{key}={value}" for key, value in spec.node_selector.items())
    words = " ".join([*selected, *(str(t.key) for t in spec.tolerations), *container.env])
    return bool(spec.runtime_class_name or re.search(_NEAR_GPUS, words))


#: What NVIDIA's operator writes on nodes; it makes its own runtime the default one there. The containerd of GKE's nodes has none by
#: default: the device plugin mounts the driver.
_OPERATED = "nvidia.com/gpu.deploy."


def given_by_request_only(container: Container, node: Node | None) -> bool:
    """Whether the node gives its GPUs and their driver to nobody who asks for none, whatever leads a pod there."""
    spec = container.pod.spec
    if node and any(key.startswith(_OPERATED) for key in node.labels):
        return False
    return not spec.runtime_class_name and (GKE_GPU in spec.node_selector or bool(node and GKE_GPU in node.labels))
