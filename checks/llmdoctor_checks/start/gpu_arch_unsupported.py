"""A GPU whose compute capability does not do for the image, the data type or the quantization."""

import re
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import (
    Accelerator,
    Engine,
    Evidence,
    Finding,
    Fix,
    Logs,
    Pod,
    Setting,
    Sizing,
    check,
    device_evidence,
    expression,
    fixes,
    log_evidence,
    pod_evidence,
    setting_evidence,
)
from kubectl_llmdoctor.catalog import quantization
from kubectl_llmdoctor.catalog.images import maker
from kubectl_llmdoctor.catalog.models import find
from llmdoctor_checks._consequences import FAILED_START
from llmdoctor_checks._ollama import fallback

Compute = tuple[int, int]

#: What an engine runs on at all: engine, first and last version of it ("" is open), the least and the first too new
#: compute capability. vLLM's images by release, SGLang's own check at its start, LMDeploy's TurboMind, the support
#: matrix of TensorRT-LLM 1.x.
_BASE: tuple[tuple[str, str, str, Compute, Compute | None], ...] = (
    ("vllm", "", "0.8.5.post1", (7, 0), (10, 0)),
    ("vllm", "0.20.0", "", (7, 5), None),
    ("vllm", "", "", (7, 0), None),
    ("sglang", "", "", (7, 5), None),
    ("tensorrt-llm", "1.0", "", (8, 0), None),
    ("lmdeploy", "", "", (7, 0), None),
)

#: For which compute capabilities a build of Text Embeddings Inference runs, by what stands before its version: its own check
#: at the start (`backends/candle/src/compute_cap.rs`) in all releases, which differ in whether 8.9 runs builds for 8.x.
_TEI_BUILDS: dict[str, tuple[Compute, Compute]] = {
    "": ((8, 0), (8, 9)),
    "turing": ((7, 5), (7, 5)),
    "86": ((8, 6), (8, 9)),
    "89": ((8, 9), (8, 9)),
    "hopper": ((9, 0), (9, 0)),
    "100": ((10, 0), (10, 0)),
    "120": ((12, 0), (12, 0)),
}

#: Whose accelerators a resource is of: the vendors' device plugins.
_MAKERS = {
    "nvidia.com/": "NVIDIA",
    "amd.com/": "AMD",
    "habana.ai/": "Intel Gaudi",
    "gpu.intel.com/": "Intel",
    "google.com/tpu": "Google TPU",
    "aws.amazon.com/neuron": "AWS Neuron",
    "huawei.com/": "Huawei Ascend",
}

#: How FlashAttention 3 ends a process whose GPU does not take the launch of a kernel; no exception stands beside it.
_HOPPER = "/hopper/flash_"
_LAUNCH = expression(
    r"(?:\[[^\]]{1,60}\] |\([^)]{1,60}\) ){0,3}CUDA error \(\S{0,300}/hopper/flash_\w{1,60}\.\w{1,4}:\d{1,6}\): invalid argument"
)

#: The GPUs whose memory of a block its kernels are laid out for.
_FLASH_ATTENTION_3 = frozenset([(8, 0), (9, 0)])

_TRITON = frozenset(["triton_attn", "triton_attn_vllm_v1", "triton"])


class Clash(msgspec.Struct, frozen=True):
    """What the configuration needs and the GPU has not."""

    what: str
    need: str
    settings: tuple[Setting, ...]
    fix: str


@check("gpu-arch-unsupported", since="0.1", literals=(_HOPPER,))
def gpu_arch_unsupported(pod: Pod, engine: Engine, sizing: Sizing, logs: Logs | None) -> Iterator[Finding]:
    """The GPU does not support what the image or the model needs.

    Kernels are compiled for certain compute capabilities. A GPU that is older than all of them (V100, P40, T4 for
    bfloat16 or FP8) or newer than the image (a Blackwell card on an image of the year before) has no kernel to run: "no
    kernel image is available". Data types and quantization methods have minimums of their own: bfloat16 and Marlin 8.0,
    FP8 in hardware 8.9; vLLM's images from 0.20 on no longer support Volta. Text Embeddings Inference has an image for each generation
    (`turing-`, `86-`, `89-`, `hopper-`, none for 8.0), which refuses others. An image is built for the GPUs of one maker: CUDA's
    finds nothing on an AMD GPU, a TPU or Gaudi, and ROCm's nothing on an NVIDIA GPU.

    ## Fix

    Select nodes with a GPU that fits, or choose what fits the GPU: `--dtype half` on Turing, a GPTQ or AWQ checkpoint
    instead of FP8, a newer image for a new GPU, an older one for an old GPU.

    ## References

    - https://developer.nvidia.com/cuda-gpus
    - https://docs.vllm.ai/en/latest/features/quantization/
    """
    container = engine.container
    if engine.name == "ollama" and logs is not None and (refused := _refused(engine, logs)):
        yield refused
        return
    if logs is not None and not pod.ready and (launch := _not_launched(engine, sizing, logs)):
        yield launch
        return
    if pod.log_only or pod.ready:
        return
    if not pod.exists and (others := _of_another_maker(engine)):
        yield others
        return
    crashed = container.crashed
    if pod.exists and not crashed and container.terminated is None and container.restarts == 0 and not pod.unscheduled:
        return  # it is on its way: what it says will tell
    if any(log.text for log in container.own_logs(logs)):
        return  # what it printed is the better witness
    device = sizing.accelerator
    compute = device.gpu.compute if device else None
    if device is None or compute is None:
        return
    clash = next(_clashes(engine, compute), None)
    if clash is None:
        return
    gpu = f"{device.gpu.name} has {device.gpu.capability}"
    yield Finding(
        role="cause" if crashed else "risk",
        severity="critical",
        summary=f"{clash.what} needs compute capability {clash.need}, and {gpu}.",
        evidence=tuple(_evidence(engine, device, clash)),
        explains=FAILED_START if crashed else (),
        fixes=tuple(_fixes(engine, clash)),
    )


def _of_another_maker(engine: Engine) -> Finding | None:
    """An image that is built for the GPUs of one maker, in a container that asks for those of another."""
    container = engine.container
    built = maker(container.spec.image)
    asked = {
        resource: next((maker for prefix, maker in _MAKERS.items() if resource.startswith(prefix)), "")
        for resource in container.accelerators
    }
    if not built or not asked or not all(whose and whose != built for whose in asked.values()):
        return None
    resource, whose = next(iter(asked.items()))
    kind = "ROCm" if built == "AMD" else "CUDA"
    return Finding(
        role="risk",
        severity="critical",
        summary=f"{container.spec.image} is built for {kind}, the GPUs of {built}; container {container.name} asks for {resource}, "
        f"which is {whose}, and finds no device there that it can use.",
        evidence=(
            pod_evidence(container, "image", container.spec.image),
            pod_evidence(container, f"resources.limits[{resource}]", str(container.accelerators[resource])),
        ),
        fix=fixes.advice(
            f"Take the build of {engine.title} for {whose}, or ask for a GPU of {built}, in {fixes.edited(engine.pod)}"
        ),
    )


#: What computes attention without FlashAttention 3, as each engine is told.
_BESIDE_FLASH = {
    "sglang": "--attention-backend triton or flashinfer",
    "vllm": "VLLM_FLASH_ATTN_VERSION=2, or the backends TRITON_ATTN or FLASHINFER",
}
_ANY_BACKEND = "Triton's or FlashInfer's"


def _not_launched(engine: Engine, sizing: Sizing, logs: Logs) -> Finding | None:
    """FlashAttention 3 on a GPU that it has no kernels for."""
    device = sizing.accelerator
    if device is not None and device.gpu.compute in _FLASH_ATTENTION_3:
        return None
    found = (line for log in logs.of(engine.container.name) for line in log.find(_HOPPER) if _LAUNCH.match(line.text))
    line = next(found, None)
    if line is None:
        return None
    other = f", and {device.gpu.name} has {device.gpu.capability}" if device is not None and device.gpu.compute else ""
    told, beside = engine.explicit("attention_backend"), _BESIDE_FLASH.get(engine.name, _ANY_BACKEND)
    if engine.name == "sglang" and told is not None and told.value == "flashinfer":
        beside = "--attention-backend triton"
    return Finding(
        confidence="likely" if other else "possible",
        summary=f"FlashAttention 3 cannot launch its kernels on this GPU: they are for compute capability 9.0 (Hopper) and 8.0{other}.",
        evidence=(log_evidence(line), *((device_evidence(engine.container, device),) if other and device else ())),
        explains=("engine-init-failed", "engine-dead", "worker-lost", "crash-loop", "not-ready", "pod-failed"),
        fix=fixes.advice(
            f"Take another attention backend ({beside}) in {fixes.edited(engine.pod)}, "
            f"or a newer image of {engine.title}"
        ),
        order=line.order,
    )


def _refused(engine: Engine, logs: Logs) -> Finding | None:
    """A GPU that Ollama has found and left alone, because its libraries do not run on it: it computes on the CPU."""
    found = fallback(engine.container.name, logs)
    if found is None or found.failed is None or not found.refused:
        return None
    why = f"has nothing for {found.gfx}" if found.gfx else "fails on it"
    return Finding(
        severity="warning",
        summary=f"{engine.label} runs on the CPU: it found a GPU, and its library {found.library} {why}.",
        evidence=(log_evidence(found.failed), log_evidence(found.cpu)),
        explains=("not-ready", "probe-too-short", "cpu-starved"),
        fix=fixes.advice(
            "Take an image whose libraries know this GPU (an older Ollama for a GPU that was dropped; one with Vulkan and "
            "OLLAMA_VULKAN=1), or a GPU that Ollama's page on hardware lists"
        ),
        order=found.failed.order,
    )


def _clashes(engine: Engine, compute: Compute) -> Iterator[Clash]:
    for name, first, last, least, new in _BASE:
        if name != engine.name or not _within(engine, first, last):
            continue
        if compute < least:
            fix = "Select nodes with a newer GPU" + (", or take an image before 0.20" if first == "0.20.0" else "")
            yield Clash(f"{engine.label}", _say(least), (), fix)
        elif new and compute >= new:
            fix = "Take an image of vLLM v0.10.1 or later, which has kernels for this GPU"
            yield Clash(f"A kernel of {engine.label}", f"below {_say(new)}", (), fix)
    if engine.name == "vllm":
        yield from _vllm_types(engine, compute)
    if engine.name == "tei":
        yield from _tei_build(engine, compute)
    yield from _methods(engine, compute)


def _tei_build(engine: Engine, compute: Compute) -> Iterator[Clash]:
    """A build for GPUs of another generation, which the server refuses; what somebody built without its prefix may be for any."""
    found = re.search(
        r"(?:^|/)huggingface/text-embeddings-inference:(?:([a-z]+|\d{2,3})-)?\d+\.\d", engine.container.spec.image
    )
    low, high = _TEI_BUILDS.get(found[1] or "", ((0, 0), (99, 0))) if found else ((0, 0), (99, 0))
    if not low <= compute <= high:
        need = _say(low) if low == high else f"{_say(low)} to {_say(high)}"
        builds = [(word, build) for word, build in _TEI_BUILDS.items() if build[0] <= compute <= build[1]]
        word = min(builds, key=lambda one: (one[1][1], -one[1][0][1]))[0] if builds else ""
        fix = "Take the image that is built for this GPU"
        told = (
            f", whose tag {f'begins with {word}-' if word else 'has no such word before its version'}" if builds else ""
        )
        yield Clash("This build of Text Embeddings Inference", need, (), fix + told)


def _within(engine: Engine, first: str, last: str) -> bool:
    """Whether the engine's version surely lies in the range."""
    if first and not engine.at_least(first):
        return False
    return not last or (engine.at_least(last) is False or engine.version == last)


def _vllm_types(engine: Engine, compute: Compute) -> Iterator[Clash]:
    dtype = engine.explicit("dtype")
    if dtype and dtype.value == "bfloat16" and compute < (8, 0):
        yield Clash("bfloat16", "8.0", (dtype,), "Run the model in float16: --dtype half")
    cache, backend = engine.explicit("kv_cache_dtype"), engine.explicit("attention_backend")
    if (
        cache
        and cache.value in ("fp8", "fp8_e4m3")
        and compute < (8, 9)
        and backend
        and str(backend.value).lower() in _TRITON
    ):
        fix = "Use --kv-cache-dtype fp8_e5m2 or auto, or another attention backend"
        yield Clash("An 8-bit cache (e4m3) in Triton kernels", "8.9", (cache, backend), fix)


def _methods(engine: Engine, compute: Compute) -> Iterator[Clash]:
    """The quantization that was asked for, or that the checkpoint has by the table or by its name."""
    asked, model = engine.explicit("quantization"), engine.explicit("model")
    settings = tuple(s for s in (asked or model,) if s)
    method = str(asked.value).lower() if asked else _stored(engine.checkpoint) if model else None
    least = quantization.minimum(engine.name, method, engine.version) if method else None
    if method and least and compute < least:
        fix = "Take a checkpoint with a quantization that this GPU can run (AWQ or GPTQ from 7.5 on), or a newer GPU"
        what = f"The quantization {method} in {engine.label}"
        yield Clash(what, _say(least), settings, fix)


def _stored(model: str) -> str | None:
    """How a checkpoint is quantized."""
    family = quantization.of_name(model)
    if family in ("fp8", "nvfp4", "mxfp4"):
        return family
    known = find(model)
    stored = known.architecture.quantization if known else None
    return stored.method if stored and stored.method in ("fp8", "mxfp4") else None


def _say(compute: Compute) -> str:
    return f"{compute[0]}.{compute[1]}"


def _evidence(engine: Engine, device: Accelerator, clash: Clash) -> Iterator[Evidence]:
    container = engine.container
    yield from (setting_evidence(container, setting) for setting in clash.settings)
    if not clash.settings:
        yield pod_evidence(container, "image", container.spec.image)
    yield device_evidence(container, device)


def _fixes(engine: Engine, clash: Clash) -> Iterator[Fix]:
    if clash.what == "bfloat16":
        yield fixes.set_flag(engine, "dtype", "--dtype", "half", clash.fix)
        return
    yield fixes.advice(
        f"{clash.fix} ({fixes.edited(engine.pod)})",
        "kubectl get nodes -L nvidia.com/gpu.product,nvidia.com/gpu.compute.major,nvidia.com/gpu.compute.minor",
    )
