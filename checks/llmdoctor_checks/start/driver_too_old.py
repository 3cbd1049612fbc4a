"""llama.cpp, or Ollama with it, went on without the GPU since the driver is older than its CUDA."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import Engine, Finding, Line, Logs, Pod, check, fixes, log_evidence, pod_evidence

_OLD = "CUDA driver version is insufficient for CUDA runtime version"
_PTX = "the provided PTX was compiled with an unsupported toolchain"

#: Where there is no driver at all CUDA says the first, too: these show that one answered in the same log.
_DRIVER = (
    r'msg="inference compute".*library=(?i:cuda)\b.* driver=[1-9]',
    r"ggml_(?:cuda_init|init_cublas): found [1-9]\d* CUDA devices",
)


@check("driver-too-old", since="0.1", literals=(_OLD, _PTX))
def driver_too_old(pod: Pod, engine: Engine, logs: Logs) -> Iterator[Finding]:
    """The image needs a newer NVIDIA driver.

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
    container = engine.container
    asked = {name: n for name, n in container.accelerators.items() if name.startswith("nvidia.com/")}
    log = logs.current(container.name)
    if engine.name not in ("ollama", "llama.cpp") or not pod.ready or not asked or log is None:
        return
    refused = max((line for text in (_OLD, _PTX) for line in log.find(text)), key=lambda x: x.number, default=None)
    # Ollama starts llama.cpp with CUDA only where it has found a GPU
    if refused is None or (engine.name != "ollama" and _PTX not in refused.text and not _answers(refused)):
        return
    if any(line.number > refused.number for line in log.find("ggml_cuda_init: found ")):
        return  # the next process had the GPU
    node = pod.spec.node_name or "?"
    yield Finding(
        role="cause",
        severity="warning",
        confidence="likely",
        summary=f"{engine.label} runs on the CPU: the driver of node {node} is older than its CUDA, though container "
        f"{container.name} asks for {', '.join(f'{n} {name}' for name, n in asked.items())}.",
        evidence=(
            log_evidence(refused),
            *(pod_evidence(container, f"resources.limits[{name}]", str(n)) for name, n in asked.items()),
        ),
        explains=("cpu-starved", "weights-off-gpu", "gpu-runtime-missing"),
        fixes=(
            fixes.advice(
                f"Update the NVIDIA driver of node {node}, or use an image built for an older CUDA",
                f"kubectl get node {node} -L nvidia.com/cuda.driver-version.full,nvidia.com/gpu.product",
                owner="platform",
            ),
        ),
        order=refused.order,
        pods=(pod.name,),
    )


def _answers(refused: Line) -> bool:
    """Whether a log shows that there is a driver."""
    texts = ('msg="inference compute"', "CUDA devices")
    return any(
        re.search(pattern, line.text[:2000]) for text in texts for line in refused.log.find(text) for pattern in _DRIVER
    )
