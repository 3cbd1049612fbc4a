"""A driver that is older than the image's CUDA, by the node's account; and llama.cpp or Ollama that went on without the GPU."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import Engine, Finding, Fix, Line, Logs, Node, Pod, branch_for, check, fixes, image_cuda
from llmdoctor_checks._consequences import FAILED_START
from llmdoctor_checks._offloaded import asked_for, on_gpu_since, without_gpu
from llmdoctor_checks._ollama import PASSED_OVER
from llmdoctor_checks.start._error_35 import ERROR_35, error_35

_OLD = "CUDA driver version is insufficient for CUDA runtime version"
_PTX = "the provided PTX was compiled with an unsupported toolchain"

#: Ollama's own search for GPUs (discover/gpu_info_nvcuda.c), before it asks llama.cpp: the driver's library is there.
_LACKS = "undefined symbol: cu"
_SEARCH = r'msg="unable to load cuda driver library".{0,400}symbol lookup for (?P<name>cu\w+) failed: .{0,400}undefined symbol: cu'

#: What that search passes over since the driver is older than its library for CUDA 12 wants (`PASSED_OVER`), of gpu.go in old releases
#: and of cuda_compat.go since 0.30. A GPU below 7.0, whose kernels are compiled when they are loaded, wants 570 as soon as it has 550.
_WANTS = r'required_driver="?(?P<branch>\d{3})'
_OF_PTX = r" compute=[3-6]\.\d"
_FOR_PTX = 570

#: Where there is no driver at all CUDA says the first, too: these show that one answered in the same log.
_DRIVER = (
    r'msg="inference compute".*library=(?i:cuda)\b.* driver=[1-9]',
    r"ggml_(?:cuda_init|init_cublas): found [1-9]\d* CUDA devices",
)

_CONSEQUENCES = (
    "gpu-runtime-missing", "driver-missing", "import-broken", *FAILED_START, "engine-dead", "worker-lost",
    "nccl-other", "rollout-stuck",
)  # fmt: skip


@check("driver-too-old", since="0.1", literals=(*ERROR_35, _PTX, _LACKS, PASSED_OVER))
def driver_too_old(pod: Pod, engine: Engine, logs: Logs, node: Node | None) -> Iterator[Finding]:
    """The image needs a newer driver than the node has.

    Every CUDA release needs a minimum driver; within one major release older drivers mostly still work, across major releases
    they do not. The image's CUDA is newer than the node's driver allows: the NVIDIA runtime refuses the container by the
    image's own requirement (`NVIDIA_REQUIRE_CUDA`), or CUDA refuses at its first call. A rolling image tag is enough to bring
    it about: vLLM's images moved to CUDA 13 with 0.20. llama.cpp and Ollama go on without the GPU then, and look healthy but slow.

    ## Fix

    Update the driver, select nodes with a newer one, or pin an image for the CUDA that the driver knows. Data centre GPUs can
    also run newer CUDA through the forward-compatibility package.

    ## References

    - https://docs.nvidia.com/deploy/cuda-compatibility/
    - https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/
    """
    yield from _by_the_node(pod, engine, logs, node)
    log = logs.current(engine.container.name)
    if not pod.ready or not asked_for(engine) or log is None:
        return
    lacks = [line for line in log.find(_LACKS) if engine.name == "ollama" and re.search(_SEARCH, line.text[:2000])]
    passed_over = [*log.find(PASSED_OVER)] if engine.name == "ollama" else []
    said = [*log.find(_OLD, _PTX), *lacks, *passed_over]
    refused = max(said, key=lambda x: x.number, default=None)
    # Ollama starts llama.cpp with CUDA only where it has found a GPU
    if refused is None or (engine.name != "ollama" and _PTX not in refused.text and not _answers(refused)):
        return
    if on_gpu_since(refused):
        return  # the next process had the GPU, or Ollama went on with another one of its libraries
    name = pod.spec.node_name or "?"
    least = _least(refused)
    wants = f"branch {least}, which it wants for this GPU" if least else "its CUDA"
    fix = _newer(pod, node, f" to branch {least} or later" if least else "")
    yield without_gpu(engine, refused, f"the driver of node {name} is older than {wants}", fix)


def _least(refused: Line) -> int | None:
    """The branch of the driver that Ollama wants for a GPU that it passes over."""
    wants = re.search(_WANTS, refused.text[:1000]) if PASSED_OVER in refused.text else None
    if wants is None:
        return None
    return max(int(wants["branch"]), _FOR_PTX if re.search(_OF_PTX, refused.text[:1000]) else 0)


def _newer(pod: Pod, there: Node | None, least: str = "") -> Fix:
    node = pod.spec.node_name or "?"
    if there and there.jetson:
        return fixes.advice(
            f"Use an image built for the CUDA of the JetPack on node {node}: a Jetson's driver comes with JetPack, and cannot be "
            f"updated alone; in {fixes.edited(pod)}",
            f"kubectl get node {node} -o wide",
        )
    return fixes.platform(
        f"Update the NVIDIA driver of node {node}{least or ', or use an image built for an older CUDA'}",
        f"kubectl get node {node} -L nvidia.com/cuda.driver-version.full,nvidia.com/gpu.product",
    )


def _by_the_node(pod: Pod, engine: Engine, logs: Logs, node: Node | None) -> Iterator[Finding]:
    """CUDA's refusal of a driver that the node's labels or the agent say is of an earlier major release than the image's CUDA."""
    error = error_35(engine.container, logs, node)
    if error is None or error.suffices is not False:
        return
    name = pod.spec.node_name or "?"
    told = image_cuda(engine.container, logs)
    least = branch_for(told[0]) if told else None
    yield Finding(
        confidence="certain",
        summary=f"The driver of node {name} knows CUDA {error.driver}, and the image was built for {error.image}.",
        evidence=error.evidence,
        explains=_CONSEQUENCES,
        fix=_newer(pod, node, f" to branch {least} or later, for CUDA {error.image}" if least else ""),
        order=error.line.order,
    )


def _answers(refused: Line) -> bool:
    """Whether a log shows that there is a driver."""
    texts = ('msg="inference compute"', "CUDA devices")
    return any(re.search(pattern, line.text[:2000]) for line in refused.log.find(*texts) for pattern in _DRIVER)
