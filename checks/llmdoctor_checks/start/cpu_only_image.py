"""A CPU build of the engine in a container that asks for a GPU."""

import re
from collections.abc import Iterable, Iterator

from kubectl_llmdoctor.api import (
    INFERENCE_SERVICE,
    Confidence,
    Container,
    Engine,
    Finding,
    Fix,
    Line,
    Log,
    Logs,
    Pod,
    Subject,
    answered,
    check,
    fixes,
    limits_evidence,
    log_evidence,
    pod_evidence,
    say_devices,
)
from kubectl_llmdoctor.catalog.images import CpuBuild, cpu_build, cpu_build_of_speech
from llmdoctor_checks._consequences import FAILED_START
from llmdoctor_checks._ollama import SEARCHED, fallback, with_rocm
from llmdoctor_checks.scheduling._devices import asked_gpus

#: PyTorch without CUDA that is asked for it, whatever program asks.
_TORCH = "Torch not compiled with CUDA enabled"

#: Other libraries by which a program computes, built for the CPU and asked for a GPU: the program ends.
_REFUSED = {
    _TORCH: "PyTorch",
    "This CTranslate2 package was not compiled with CUDA support": "CTranslate2",
    "the candle crate has not been built with cuda support": "candle",
    "Cannot use GPU because you have installed CPU version PaddlePaddle": "PaddlePaddle",
    "since PaddlePaddle is not compiled with CUDA": "PaddlePaddle",
    "Compile with USE_CUDA=1 to enable GPU usage": "MXNet",
    'Could not find registered platform with name: "cuda"': "XLA",
}

#: ONNX Runtime warns of it where Python asks, and raises it elsewhere.
_NO_PROVIDER = "CUDA execution provider is not enabled in this build"

#: The same, and the library goes on with the CPU: of a server that runs, and names no GPU that another part of it is on.
_WENT_ON = {
    "Please compile with -DSHERPA_ONNX_ENABLE_GPU=ON": "sherpa-onnx",
    _NO_PROVIDER: "ONNX Runtime",
    "Specified provider 'CUDAExecutionProvider' is not in available provider names": "ONNX Runtime",
    "but a CUDA-enabled jaxlib is not installed. Falling back to cpu": "JAX",
}

#: A list of backends without a GPU's: JAX was asked for one by JAX_PLATFORMS, and its plugin is missing or could not be loaded.
_NO_BACKEND = "is not in the list of known backends: ['cpu', 'tpu']"

#: How XLA's list of platforms names one for a GPU: it has looked for the other maker's as well.
_HAS_PLATFORM = r"Available platform names are:.{0,200}\b(?:CUDA|ROCM)\b"

#: What a program says of the GPU that it computes on.
_ON_GPU = r"(?i)\bcuda:\d|\bdevice(?:_(?:name|type))?\W{1,4}cuda|\bGPU \d|CudaDevice|\b(?:on|using) (?:the )?(?:gpu|cuda)\b|\bVRAM\b"

#: How an access log says that a request failed in the program.
_FAILED = '" 500'

#: It says so in the beginning: so many characters are looked at, of logs that may have hundreds of millions.
_BEGINNING = 1_000_000

#: What stands before the words of a user, who may ask about such an error.
_ASKED = r"(?i)\b(?:prompts?|content|role|quer(?:y|ies)|questions?|asks)\b"

#: What only a build without GPU support prints: vLLM's platform by its own build, PyTorch, llama.cpp without a backend.
_SAYS: tuple[tuple[str, Confidence], ...] = (
    ("Automatically detected platform cpu", "certain"),
    ("device_config=cpu", "certain"),
    (_TORCH, "certain"),
    ("no usable GPU found, --gpu-layers option will be ignored", "likely"),
)

#: The same of llama.cpp up to the end of 2024, llama-cpp-python with it: a build for any GPU says 1 there (ggml_cpu_has_blas).
_SYSTEM_INFO = "| BLAS = 0 |"

#: A build for GPUs, by the name of its image.
_OF_GPUS = r"(?i)(?<![a-z])(?:cuda|rocm|vulkan|sycl|intel|musa|hip)(?![a-z])"

#: What llama.cpp prints when a GPU backend is there, whatever becomes of it.
_BACKENDS = ("ggml_cuda_init", "ggml_init_cublas", "ggml_vulkan", "ggml_sycl", "load_backend: loaded CUDA")

#: Intel's device plugins hand its GPUs out by these names. Ollama has no backend of its own for them: it reaches them by Vulkan, which
#: its builds have from this release on, and which has to be switched on.
_OF_INTEL, _VULKAN, _VULKAN_SINCE = r"gpu\.intel\.com/(?:i915|xe)", "OLLAMA_VULKAN", "0.12.11"

#: Ollama's own image and copies of it. Builds of others for Intel's GPUs list the CPU, too, and compute on the GPU.
_OLLAMA_ITSELF = r"(?:^|/)ollama/ollama(?::[\w.-]{1,128})?(?:@|$)"


@check(
    "cpu-only-image",
    since="0.1",
    literals=(
        *(words for words, _ in _SAYS),
        *_REFUSED,
        _NO_BACKEND,
        *_WENT_ON,
        _SYSTEM_INFO,
        *_BACKENDS,
        _FAILED,
        *SEARCHED,
    ),
)
def cpu_only_image(pod: Pod, subject: Subject, logs: Logs | None) -> Iterator[Finding]:
    """The image holds a CPU build of the engine, in a container that asks for a GPU.

    Most engines come in several builds, and the shortest name is not always the one for GPUs: `llama.cpp:server` and,
    from KServe 0.15 on, `huggingfaceserver` without `-gpu` know no GPU. The container gets its GPU and cannot use it:
    it ends because the model or an option needs one, or it runs many times slower while the GPU stays reserved. KServe
    adds `-gpu` by itself for the resource `nvidia.com/gpu` only, not for MIG slices. llama-cpp-python ignores the layers for the GPU
    without a word; `BLAS = 0` in its list of features says that it was built without any. Programs of one's own have it from a
    library: PyTorch, CTranslate2 and candle refuse, as JAX does where JAX_PLATFORMS asks for a GPU; ONNX Runtime (`onnxruntime` is
    the CPU package, `onnxruntime-gpu` the other), JAX and sherpa-onnx warn and go on with the CPU.

    Ollama's image has libraries for the GPUs of NVIDIA and AMD. With one of Intel's it computes on the CPU and lists nothing else:
    it reaches that by Vulkan alone, from 0.12.11 on and where OLLAMA_VULKAN is set.

    ## Fix

    Take the build for the GPU: `vllm/vllm-openai`, `llama.cpp:server-cuda`, `huggingfaceserver:…-gpu`. If the CPU is
    meant, ask for no GPU.

    ## References

    - https://docs.vllm.ai/en/latest/deployment/docker/
    - https://github.com/ggml-org/llama.cpp/blob/master/docs/docker.md
    - https://github.com/kserve/kserve/pull/4049
    """
    engines = {engine.container.name: engine for engine in subject.engines(pod)}
    for container in pod.containers:
        engine = engines.get(container.name)
        yield from _of(pod, container, engine, logs)
        if engine is not None and logs is not None:
            yield from _ollama_with_intel(pod, engine, logs)
            yield from _ollama_without_rocm(pod, engine, logs)


def _of(pod: Pod, container: Container, engine: Engine | None, logs: Logs | None) -> Iterator[Finding]:
    """One container; of a program that is no known engine its libraries say what they were built for."""
    asked = asked_gpus(container)
    if not asked or pod.log_only or (engine is not None and engine.value("device") == "cpu"):
        return
    image = container.spec.image
    if engine is not None:
        build = cpu_build(image)
    else:
        build = cpu_build_of_speech(image) if _of_nvidia(asked) else None
    if build and "huggingfaceserver" in image and _kserve_adds_gpu(pod, container):
        return
    said = _says(container, logs, _words(pod, engine), may_be_another=engine is None and pod.ready)
    if build is not None or said is not None:
        yield _without_the_gpu(container, engine, asked, build, said)


def _without_the_gpu(
    container: Container,
    engine: Engine | None,
    asked: dict[str, int],
    build: CpuBuild | None,
    said: tuple[Line, Confidence] | None,
) -> Finding:
    pod, image = container.pod, container.spec.image
    # servers of speech run on a CPU as well, only slower: they fail of something else
    speech = engine is None and build is not None
    failing = (said is not None or not speech) and container.trouble("crashed", "not-ready") is not None
    # the log says that it happens; by its name alone the image may hold a GPU build
    slow = (said is not None or speech) and pod.ready
    if failing:
        explains: tuple[str, ...] = ("gpu-runtime-missing", "compiler-missing", *FAILED_START)
    else:
        explains = ("weights-off-gpu", "cpu-starved") if slow else ()
    of = engine.title if engine else _library(said) or "the server"
    part = said is not None and any(words in said[0].text for words in _WENT_ON)
    what = f"{image} {'has' if part else 'is'} a CPU build of {of}" + (f" ({build.why})" if build else "")
    return Finding(
        role="cause" if failing or slow else "risk",
        severity=None if failing else "warning",
        confidence=said[1] if said else "likely",
        summary=f"{what}; container {container.name} asks for {say_devices(asked)}, which {'that' if part else 'it'} cannot use.",
        evidence=(
            *((log_evidence(said[0]),) if said else ()),
            pod_evidence(container, "image", image),
            *limits_evidence(container, asked),
        ),
        explains=explains,
        fix=_fix(pod, container, build, of),
        order=said[0].order if said else None,
    )


def _of_nvidia(asked: Iterable[str]) -> bool:
    return all(name.startswith("nvidia.com/") for name in asked)


def _ollama_without_rocm(pod: Pod, engine: Engine, logs: Logs) -> Iterator[Finding]:
    """Ollama's image for NVIDIA GPUs with a GPU of AMD's, for which it has no library: it goes on with the CPU."""
    container = engine.container
    asked = asked_gpus(container)
    twin = with_rocm(engine) if asked and all(name.startswith("amd.com/") for name in asked) else ""
    found = fallback(container.name, logs) if twin else None
    if found is None or found.failed is not None or found.cpu is None:
        return
    yield Finding(
        severity="warning" if pod.ready else None,
        summary=f"{engine.label} runs on the CPU: {container.spec.image} has no ROCm, though container {container.name} asks for "
        f"{say_devices(asked)}.",
        evidence=(
            log_evidence(found.cpu),
            pod_evidence(container, "image", container.spec.image),
            *limits_evidence(container, asked),
        ),
        explains=("gpu-runtime-missing", "not-ready", "probe-too-short", "cpu-starved", "weights-off-gpu"),
        fix=fixes.set_image(
            container, twin, f"Take the image with ROCm, {twin}: this one has libraries for NVIDIA GPUs alone"
        ),
        order=found.cpu.order,
    )


def _ollama_with_intel(pod: Pod, engine: Engine, logs: Logs) -> Iterator[Finding]:
    """Ollama's own image with a GPU of Intel's, for which it has no library: it lists the CPU alone."""
    container = engine.container
    asked = {name: n for name, n in container.accelerators.items() if re.fullmatch(_OF_INTEL, name)}
    itself = engine.name == "ollama" and re.search(_OLLAMA_ITSELF, container.spec.image)
    if not itself or not asked or _VULKAN in container.env:
        return
    found = fallback(container.name, logs)
    if found is None or found.failed is not None:
        return
    # it may have been told in another way, and not see the device for another reason
    newer = engine.at_least(_VULKAN_SINCE) is not False
    yield Finding(
        severity="warning" if pod.ready else None,
        confidence="possible" if newer else "likely",
        summary=f"{engine.label} runs on the CPU: container {container.name} asks for {say_devices(asked)}, and "
        + (f"it reaches Intel's GPUs by Vulkan alone ({_VULKAN})." if newer else "this release has no library for it."),
        evidence=(
            log_evidence(found.cpu),
            pod_evidence(container, "image", container.spec.image),
            *limits_evidence(container, asked),
        ),
        explains=("not-ready", "probe-too-short", "cpu-starved", "weights-off-gpu"),
        fix=fixes.advice(
            f"Set {_VULKAN}=1 with Ollama {_VULKAN_SINCE} or later, or take a server that is built for Intel's GPUs "
            f"(llama.cpp:server-vulkan, llama.cpp:server-intel), in {fixes.edited(pod)}; ask for no GPU if the CPU is meant"
        ),
        order=found.cpu.order,
    )


def _kserve_adds_gpu(pod: Pod, container: Container) -> bool:
    """Whether this is KServe's own object, in which its controller still adds `-gpu` to the image."""
    kind = pod.template_of.kind if pod.template_of else ""
    return kind.startswith(("InferenceService", "ServingRuntime", "ClusterServingRuntime")) and (
        "nvidia.com/gpu" in container.accelerators
    )


def _words(pod: Pod, engine: Engine | None) -> tuple[tuple[str, Confidence], ...]:
    if engine is None or engine.announced:
        sure: list[tuple[str, Confidence]] = [(words, "certain") for words in _REFUSED]
        sure.append((_NO_BACKEND, "likely"))
        if pod.ready:
            sure += [(words, "likely") for words in _WENT_ON]
        else:
            sure.append((_NO_PROVIDER, "possible"))
        if engine is None:
            return tuple(sure)
        sure += _SAYS
        return (*sure, (_SYSTEM_INFO, "likely")) if engine.name == "llama.cpp" else tuple(sure)
    # Ollama has runners for CPU and GPU in one image, and prints the line of the one that it chose
    return (*_SAYS, (_SYSTEM_INFO, "likely")) if engine.name == "llama.cpp" else _SAYS


def _says(
    container: Container, logs: Logs | None, words: Iterable[tuple[str, Confidence]], *, may_be_another: bool
) -> tuple[Line, Confidence] | None:
    """The line by which a CPU build is known, and how surely; `may_be_another`: the program has other parts, and one of them may serve."""
    for log in container.own_logs(logs):
        for literal, sure in words:
            line = next((x for x in log.find(literal) if not re.search(_ASKED, x.text.partition(literal)[0])), None)
            if line is None:
                continue
            gpu_build = re.search(_OF_GPUS, container.spec.image) or any(next(log.find(b), None) for b in _BACKENDS)
            if re.search(_HAS_PLATFORM, line.text):
                continue
            # these libraries say what they were built for, whatever else in the image was built for a GPU
            if sure != "certain" and gpu_build and literal not in _WENT_ON:
                continue  # that found no device: the runtime's fault, not the image's
            if may_be_another and re.compile(_ON_GPU).search(log.text, 0, _BEGINNING):
                # the part that matters may be on the GPU; or a GPU was only asked for, and requests fail for want of it
                if literal not in _REFUSED or not _requests_fail(log, line):
                    continue
                return line, "possible"
            return line, sure
    return None


def _requests_fail(log: Log, line: Line) -> bool:
    """Whether requests were answered with an error after a line, and none with success."""
    return not answered(log, after=line.number) and any(x.number > line.number for x in log.find(_FAILED))


def _library(said: tuple[Line, str] | None) -> str:
    """The library whose words a line has."""
    libraries = {**_REFUSED, **_WENT_ON, _NO_BACKEND: "JAX"}
    return next((name for words, name in libraries.items() if said and words in said[0].text), "")


#: How a library is built or installed with CUDA, by its name: for an image that somebody made.
_WITH_CUDA = {
    "PyTorch": "pip install torch --index-url https://download.pytorch.org/whl/cu128",
    "JAX": 'pip install "jax[cuda12]"',
    "ONNX Runtime": "onnxruntime-gpu in place of onnxruntime (Java: onnxruntime_gpu)",
    "sherpa-onnx": "-DSHERPA_ONNX_ENABLE_GPU=ON",
    "XLA": "XLA_TARGET=cuda12",
    "llama.cpp server": "cmake -DGGML_CUDA=ON (llama-cpp-python: CMAKE_ARGS=-DGGML_CUDA=on)",
    "SGLang": "pip install torch --index-url https://download.pytorch.org/whl/cu128",
    "vLLM": "pip install torch --index-url https://download.pytorch.org/whl/cu128",
}


def _fix(pod: Pod, container: Container, build: CpuBuild | None, library: str) -> Fix:
    how = _WITH_CUDA.get(library) if all(name.startswith("nvidia.com/") for name in container.accelerators) else None
    if (build is None or not build.twin) and how:
        return fixes.advice(
            f"Build {container.spec.image} again with {library} for CUDA ({how}), and name the new image in {fixes.edited(pod)}"
        )
    if build is None or not build.twin:
        return fixes.advice(
            f"Take the engine's image for this GPU in {fixes.edited(pod)}, or ask for no GPU if the CPU is meant"
        )
    if service := pod.labels.get(INFERENCE_SERVICE):
        return fixes.advice(
            f"Set the image {build.twin} in InferenceService/{service} (spec.predictor.model.image), or in its ServingRuntime"
        )
    return fixes.set_image(container, build.twin, f"Take the GPU build {build.twin}")
