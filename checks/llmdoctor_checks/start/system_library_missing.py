"""A library of CUDA that ONNX Runtime misses, in a server that goes on with the CPU."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import Finding, Logs, Pod, Subject, check, fixes, log_evidence, pod_evidence

#: How ONNX Runtime (`provider_bridge_ort.cc`) says why a provider cannot be had; the library of the driver itself is another matter.
_NOT_LOADED = "Failed to load library libonnxruntime_providers_cuda.so with error: "
_LIBRARY = (
    r"(?P<lib>lib(?!cuda\.so|nvidia-ml\.so)[\w.+-]{1,120}\.so[\w.]{0,60}): cannot open shared object file: No such file"
)

#: Engines that compute on the GPU by themselves: ONNX Runtime is only what a library beside the model uses.
_WITHOUT_ONNX = ("vllm", "sglang", "tgi", "lmdeploy", "tensorrt-llm", "llama.cpp", "ollama")

#: Another part of the program computes on the GPU.
_ON_GPU = r"(?i)\bcuda:\d|\bdevice\W{1,4}cuda|\b(?:on|using) (?:the )?(?:gpu|cuda)\b"
_BEGINNING = 1_000_000


@check("system-library-missing", since="0.1", literals=(_NOT_LOADED,))
def system_library_missing(pod: Pod, subject: Subject, logs: Logs | None) -> Iterator[Finding]:
    """A shared library is missing in the image.

    A program or Python extension of the image was linked against a library that is not there, or is there in an older version: a
    wheel for another CUDA (libcudart), a slim base without libgomp or libGL, a newer C++ library than the base has. The loader
    names it. Libraries of the driver (libcuda, libnvidia-ml) are another matter: they come from the node, see
    gpu-runtime-missing.

    ONNX Runtime logs that its provider for CUDA lacks a library, and goes on with the CPU: the pod is ready, its GPU idle, and it
    answers many times slower.

    ## Fix

    Use the engine's own image, install the package that holds the library, or take wheels built for the CUDA of the image.

    ## References

    - https://docs.vllm.ai/en/latest/getting_started/installation/gpu/
    - https://man7.org/linux/man-pages/man8/ld.so.8.html
    - https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html#requirements
    """
    if not (pod.exists and pod.ready) or logs is None:
        return
    others = [engine.container for engine in subject.engines(pod) if engine.name in _WITHOUT_ONNX]
    for container in pod.containers:
        log = logs.current(container.name)
        asked = next((name for name in container.accelerators if name.startswith("nvidia.com/")), None)
        line = next(log.find(_NOT_LOADED), None) if log is not None and container not in others else None
        said = re.search(_LIBRARY, line.text[:4000]) if line else None
        if asked is None or line is None or said is None or re.search(_ON_GPU, line.log.text[:_BEGINNING]):
            continue
        yield Finding(
            severity="warning",
            summary=f"{container.name} runs on the CPU: ONNX Runtime's provider for CUDA needs the library {said['lib']}, "
            f"which is not where the loader looks; its {container.accelerators[asked]} {asked} is idle.",
            evidence=(
                log_evidence(line),
                pod_evidence(container, f"resources.limits[{asked}]", str(container.accelerators[asked])),
            ),
            explains=("weights-off-gpu", "cpu-starved", "gpu-idle"),
            fix=fixes.advice(
                f"Take an image with the CUDA and cuDNN of the major version that this ONNX Runtime was built with, in "
                f"{fixes.edited(pod)}, and name the folder of {said['lib']} in LD_LIBRARY_PATH where it is there",
                f"kubectl -n {pod.namespace} exec {pod.name} -c {container.name} -- ldconfig -p",
            ),
            order=line.order,
        )
        return
