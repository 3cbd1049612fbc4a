"""GKE's driver, which lies where the image does not look."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    GKE_GPU,
    Container,
    Finding,
    Logs,
    Node,
    Pod,
    check,
    fixes,
    log_evidence,
    node_evidence,
    pod_evidence,
)
from kubectl_llmdoctor.catalog.images import cpu_build, maker
from llmdoctor_checks._consequences import FAILED_START

#: GKE's own label of nodes with GPUs; its device plugin mounts the driver at that folder, into each container that asks for one.
_FOLDER = "/usr/local/nvidia"

#: The driver's library, and the driver's own program for whoever looks for that first (Text Embeddings Inference).
_MISSING = (
    ("libcuda.so.1: cannot open shared object file", "libcuda.so.1"),
    ('Unable to dynamically load the "cuda" shared library', "libcuda.so"),
    ("Error: 'nvidia-smi' command not found.", "nvidia-smi"),
)

#: vLLM, which asks the driver's libnvidia-ml for a GPU and goes on without a word where that is not found. GKE's device plugin hands out
#: GPUs of nodes that have a driver alone.
_NO_PLATFORM = (
    "No platform detected, vLLM is running on UnspecifiedPlatform",
    "Device string must not be empty",
    "Failed to infer device type",
)
_NVML = "libnvidia-ml.so.1"


@check("driver-libs-not-on-path", since="0.3", literals=(*(text for text, _ in _MISSING), *_NO_PLATFORM))
def driver_libs_not_on_path(pod: Pod, container: Container, node: Node | None, logs: Logs) -> Iterator[Finding]:
    """The driver's libraries are not on the library path.

    The node mounts the driver's libraries into the container, but the image does not look there. On GKE they lie under
    `/usr/local/nvidia/lib64`, elsewhere the loader's cache was not renewed (ldconfig missing or not allowed), or the runtime
    injects only the utility part of the driver. Then vLLM detects no platform, Triton says that libcuda.so cannot be found, or
    the linker cannot find -lcuda when a kernel is built.

    ## Fix

    Set `LD_LIBRARY_PATH` to the driver's folder (`LIBRARY_PATH` where it is the linker that finds nothing), use an image whose
    entrypoint runs ldconfig, and ask for the driver capabilities `compute,utility`.

    ## References

    - https://cloud.google.com/kubernetes-engine/docs/how-to/gpus
    - https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/docker-specialized.html
    """
    path = container.env.get("LD_LIBRARY_PATH")
    known = path is None or path.value is not None
    # a pod that was placed stands on a node that has what it selects
    labels = node.labels if node else pod.spec.node_selector if pod.spec.node_name else {}
    if not container.gpus or pod.ready or not known or GKE_GPU not in labels:
        return
    if path is not None and f"{_FOLDER}/lib64" in (path.value or ""):
        return
    image = container.spec.image
    # images on top of NVIDIA's have the folder on the path by themselves, and those for other hardware do not look for it
    bare = not maker(image) and cpu_build(image) is None
    looked_for = (*_MISSING, *((text, _NVML) for text in (_NO_PLATFORM if bare else ())))
    found = next(
        ((line, what) for log in logs.of(container.name) for text, what in looked_for for line in log.find(text)), None
    )
    if found is None:
        return
    line, what = found
    folders = f"{_FOLDER}/lib64:/usr/local/cuda/lib64"
    yield Finding(
        confidence="likely" if what == _NVML else "certain",
        summary=f"{what} is not found in {container.name}, which asks for a GPU: GKE mounts the driver at {_FOLDER}, and "
        + (f"LD_LIBRARY_PATH is {path.value}." if path is not None else "nothing puts that on the library path."),
        evidence=(
            log_evidence(line),
            node_evidence(node, f"{GKE_GPU}={labels[GKE_GPU]}")
            if node
            else pod_evidence(pod, "spec.nodeSelector", f"{GKE_GPU}: {labels[GKE_GPU]}"),
            *((pod_evidence(container, "env[LD_LIBRARY_PATH]", str(path.value)),) if path is not None else ()),
        ),
        explains=("gpu-runtime-missing", "driver-missing", "import-broken", "system-library-missing", *FAILED_START),
        fix=fixes.advice(
            f"Put {_FOLDER}/bin on PATH and {_FOLDER}/lib64 on LD_LIBRARY_PATH before the server starts, in {fixes.edited(pod)}"
        )
        if what == "nvidia-smi"
        else fixes.set_env(container, "LD_LIBRARY_PATH", folders, "Put the driver's folder on the library path"),
        order=line.order,
    )
