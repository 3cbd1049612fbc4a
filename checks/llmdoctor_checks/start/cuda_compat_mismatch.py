"""llama.cpp, or Ollama with it, went on without the GPU since CUDA refused its libraries."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Engine,
    Finding,
    Fix,
    Logs,
    Nodes,
    Pod,
    check,
    driver_cuda,
    fixes,
    image_cuda,
    say_cuda,
)
from llmdoctor_checks._offloaded import asked_for, on_gpu_since, without_gpu

_REFUSED = "ggml_cuda_init: failed to initialize"

#: CUDA's words for the errors 803 and 804.
_OLDER = "forward compatibility was attempted on non supported HW"
_WHY = rf"system has unsupported display driver / cuda driver combination|{_OLDER}"


@check("cuda-compat-mismatch", since="0.1", literals=(_REFUSED,))
def cuda_compat_mismatch(pod: Pod, engine: Engine, logs: Logs, nodes: Nodes | None) -> Iterator[Finding]:
    """The CUDA compatibility library does not fit this GPU or driver.

    CUDA images bring a newer user-space driver (`/usr/local/cuda/compat`), with which they run on an older kernel driver. This
    forward compatibility is allowed on data centre GPUs only, and only for some driver branches. On a GeForce or workstation
    card CUDA refuses with error 804; with a library that does not fit the kernel driver, or two of them on the library path,
    with error 803. llama.cpp then goes on without GPU and looks healthy but slow, or crashes later.

    ## Fix

    Take the compat folder off `LD_LIBRARY_PATH` (or `/etc/ld.so.conf.d`), use an image built for the CUDA that the driver
    knows, or update the driver. After a driver update recreate the pods of that node. Images of vLLM from 0.15.0 on name the
    folder in `/etc/ld.so.conf.d`, so that on a driver that is newer than their CUDA the older library comes first; from 0.17.1 on
    they take it only where `VLLM_ENABLE_CUDA_COMPATIBILITY=1` asks for it.

    ## References

    - https://docs.nvidia.com/deploy/cuda-compatibility/
    """
    if not pod.ready or not asked_for(engine):
        return
    log = logs.current(engine.container.name)
    line = log.last(_REFUSED) if log else None
    why = re.search(_WHY, line.text) if line else None
    if line is None or why is None or on_gpu_since(line):
        return
    fix = _fix(pod, engine, logs, nodes, older=why[0] == _OLDER)
    yield without_gpu(engine, line, f"CUDA refuses the libraries that it finds in the container ({why[0]})", fix)


def _fix(pod: Pod, engine: Engine, logs: Logs, nodes: Nodes | None, *, older: bool) -> Fix:
    """What ends it: a driver runs what was built for its own major release of CUDA, or an earlier one, without these libraries."""
    name, image = pod.spec.node_name or "?", engine.container.spec.image
    known, built = driver_cuda(pod, nodes.get(name) if nodes else None), image_cuda(engine.container, logs)
    cuda = (
        f"CUDA {say_cuda(known[0])}, which the driver of node {name} knows" if known else "a CUDA that its driver knows"
    )
    off = "keep the image's compatibility libraries (/usr/local/cuda/compat) off LD_LIBRARY_PATH"
    if not older:
        text = f"Recreate {pod.name} where the driver of node {name} was updated under it, else {off}, or take an image whose CUDA "
        text += "that driver knows"
    elif known and built and known[0][0] >= built[0][0]:
        text = f"K{off[1:]}, which only data centre GPUs take, or use an image for {cuda}, in place of {image}; recreate {pod.name} "
        text += "where that driver was updated under it"
    else:
        text = f"Take an image for {cuda}, in place of {image}, or update that driver: only on data centre GPUs does an image of a later "
        text += "CUDA run on an older one"
    return fixes.advice(text, f"kubectl get node {name} -L nvidia.com/cuda.driver-version.full,nvidia.com/gpu.product")
