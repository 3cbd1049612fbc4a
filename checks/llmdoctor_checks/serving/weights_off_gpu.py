"""A model of which a part is computed on the CPU, or fetched over PCIe for each token."""

import re
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import (
    GIB,
    Engine,
    Finding,
    Fix,
    Line,
    Log,
    Logs,
    Pod,
    Sizing,
    Subject,
    check,
    expression,
    fixes,
    limits_evidence,
    log_evidence,
    most_gpus,
    pod_evidence,
    say_bytes,
    say_seconds,
    setting_evidence,
)
from llmdoctor_checks._load import Load, last_load
from llmdoctor_checks._offloaded import BUFFER, OFFLOADED, last_offloaded, on_the_cpu
from llmdoctor_checks._ollama import SKIPPED, wrong_library
from llmdoctor_checks.serving._answers import Answer, answered

#: Who prints one of these has a GPU at hand. Mesa's llvmpipe is a Vulkan device that computes on the CPU.
_DEVICES = (
    r"found [1-9]\d* (?:CUDA|ROCm) devices|using device (?:CUDA|ROCm|SYCL|Vulkan\d{1,3} \((?!llvmpipe))|"
    r"library=(?:cuda|rocm|CUDA|ROCm|Vulkan)\b|"
    # the log of a server of many days may begin after it found its devices; where a model's weights went, it says at each load
    r"\b(?:CUDA|ROCm)\d{1,3} (?:model buffer size =|size=)"
)

_DEVICE_TEXTS = (
    "CUDA devices",
    "ROCm devices",
    "using device ",
    "inference compute",
    BUFFER,
    'msg="model weights" device=',
)

#: How Ollama says how it splits a model; the second in older releases, which name the library there.
_SPLITS = ("msg=offload ", 'msg="offload to ')
#: What Ollama was asked to put on the GPU: -1 leaves it to Ollama, which puts there what fits.
_ASKED = r"layers\.requested=(-?\d{1,9})"
_MEMORY = r'memory\.available="\[([^\]]+)\]".*?memory\.required\.full="([^"]+)"'

#: Ollama's count, with the cache where the release tells it; and the context of a runner with its number of slots.
_COUNTED = expression(
    r'memory\.available="\[(?P<free>[^\]]{1,200})\]".{0,200}?memory\.required\.full="(?P<full>[^"]{1,20})"'
    r'(?:.{0,80}?memory\.required\.kv="(?P<kv>[^"]{1,20})")?'
)
_SIZE = expression(r"(\d{1,6}(?:\.\d{1,3})?) ([KMGT])iB")
_CTX = expression(r" --ctx-size (\d{1,8})\b(?:.{0,300}? --parallel (\d{1,4})\b)?")

#: What of the free memory a model can have, the shortest context that is worth setting, and the most GPUs for one model.
_USABLE, _SHORTEST, _MOST = 0.95, 2048, 4

#: The output layer alone is the last one to be left on the CPU, and costs little.
_NEARLY_ALL = 0.9

#: With no more than this share on the GPU, most of the last answers taking so long is what clients wait for.
_HALF, _LONG_SECONDS, _RECENT, _FEWEST = 0.5, 300, 20, 2
#: With no more than this, a minute is: the GPU does next to nothing.
_HARDLY, _A_MINUTE = 0.25, 60

#: Until this build llama.cpp put no layer on the GPU unless it was told to, since then all, and later ones what fits
#: (ggml-org/llama.cpp, pull request 15434). What a router starts has options of its own, in its preset.
_ALL_BY_DEFAULT, _ROUTED = "b6325", "spawning server instance"

#: What llama.cpp says, before it loads a model, of options with which it fits: those that it has left out are then as they are by
#: default, all layers on the GPU, so that fewer were asked for (`--n-gpu-layers`, `LLAMA_ARG_N_GPU_LAYERS`, a preset).
_FITS_AS_IT_IS = ", no changes needed"

#: How Ollama starts what runs a model. Only a build that knows a GPU says how many layers are on it; one without says alone into
#: which buffers it puts the weights, whatever Ollama has planned.
_STARTS = 'msg="starting '
_LAYERS = expression(r" --n-gpu-layers (\d{1,5})\b")
#: Ollama's list of what its runners can compute on, until 0.5.
_RUNNERS, _CPU_ALONE = "Dynamic LLM libraries", r"runners=\"?\[cpu(?:_\w+)?(?: cpu_\w+)*\]"

#: Weights up to this share of the GPUs' memory leave room for a cache.
_FITS = 0.75

#: What SGLang allocates for the cache of each GPU (`mem_cache/memory_pool.py`), of models with latent attention as one size; and how
#: much of what would be left of it may be in use.
_ALLOCATED = "KV Cache is allocated"
_POOL = (
    r"KV Cache is allocated\..{0,120}?"
    r"(?:\bK size: (\d{1,6}(?:\.\d+)?) GB, V size: (\d{1,6}(?:\.\d+)?) GB|\bKV size: (\d{1,6}(?:\.\d+)?) GB)"
)
_FULL = 0.8

#: Fewer tokens in a second are no pace of a GPU that has the weights, where so few requests run, none waits, and no prompts are read.
_SLOW, _FEW_REQUESTS, _STATEMENTS = 8, 4, 5


@check(
    "weights-off-gpu",
    since="0.3",
    severity="warning",
    literals=(
        "layers to GPU",
        _FITS_AS_IT_IS,
        *_SPLITS,
        "[GIN] ",
        _STARTS,
        BUFFER,
        _RUNNERS,
        SKIPPED,
        _ALLOCATED,
        *_DEVICE_TEXTS,
    ),
)
def weights_off_gpu(pod: Pod, engine: Engine, logs: Logs | None, subject: Subject) -> Iterator[Finding]:
    """A part of the model's weights does not lie on the GPU.

    A layer on the CPU takes many times as long as one on the GPU, and the GPU waits for it: with a third of the layers on
    the CPU a model answers at about the pace of the CPU alone. Ollama puts as many layers on the GPU as fit beside the context,
    and the rest on the CPU without a word to clients. llama.cpp puts there as many as `--n-gpu-layers` says; without it older
    releases none, later ones what fits. A build of Ollama without a runner for GPUs finds the GPU, plans for it, and puts all weights
    into the memory of the CPU. So does one that is told by `OLLAMA_LLM_LIBRARY` to use a library by a name which it does not have.

    A model larger than the GPU may be what somebody wants, so this is a risk; it is the cause where no layer is on a GPU that the
    pod asks for, or where most of Ollama's last answers took five minutes or longer (one minute, where no more than a quarter of the
    layers is on the GPU).

    vLLM and SGLang with `--cpu-offload-gb` keep that many GiB of weights in host memory and fetch them over PCIe for every
    step. It makes a model run that does not fit; on one that fits it only costs: an option that was left over from fewer or smaller
    GPUs. That it fits is known by the model's size, or by what the engine says it has left for the KV cache: twice as much or more, of
    which half is never used. It is the cause where the few requests that run in vLLM, or however many where it fits, get less than
    eight tokens a second each, all the time, while it reads no prompts.

    ## Fix

    Let all layers fit: a smaller context (`OLLAMA_CONTEXT_LENGTH`, `--ctx-size`), a stronger quantization, a quantized KV cache,
    fewer parallel requests, a larger GPU. Set `--n-gpu-layers 999` for llama.cpp. Remove `--cpu-offload-gb` where the weights fit.

    ## References

    - https://docs.ollama.com/faq
    - https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
    - https://docs.vllm.ai/en/latest/configuration/conserving_memory/
    """
    if engine.name in ("ollama", "llama.cpp"):
        if logs is not None and (pod.ready or pod.log_only):
            found = _layers(pod, engine, logs) or _planned_only(pod, engine, logs) or _no_such_library(engine, logs)
            yield from (found,) if found else ()
    elif (
        engine.name in ("vllm", "sglang")
        and not pod.failing
        and (found := _fetched_slowly(pod, engine, logs) or _offload(pod, engine, subject, logs))
    ):
        yield found


def _no_room(split: Line | None) -> str:
    """What the model takes and what was free when Ollama split it, as words that follow."""
    room = re.search(_MEMORY, split.text) if split else None
    return f": it takes {room[2]}, and {room[1]} were free" if room else ""


class _Offloaded(msgspec.Struct, frozen=True):
    """How much of a model is on the GPU by the last word of the log, and Ollama's count before that."""

    line: Line
    there: int
    layers: int
    split: Line | None

    def least(self, share: float) -> bool:
        """Whether no more than a share of its layers is there."""
        return self.there <= share * self.layers


def _offloaded(pod: Pod, engine: Engine, log: Log) -> _Offloaded | None:
    """A model of which a part is not on the GPU, where one is and nobody asked for less."""
    last = last_offloaded(log)
    if last is None or not (pod.log_only or engine.container.accelerators) or engine.explicit("gpu_layers") is not None:
        return None
    line, there, layers = last
    if there >= _NEARLY_ALL * layers or not any(re.search(_DEVICES, x.text) for x in _device_lines(log)):
        return None
    split = next(iter([x for x in log.find(*_SPLITS) if x.number < line.number][-1:]), None)
    asked = re.search(_ASKED, split.text) if split else None
    if asked and asked[1] != "-1":
        return None  # a number that the model or a request asked for
    if engine.name == "llama.cpp" and _asked_for_fewer(log, line):
        return None
    return _Offloaded(line, there, layers, split)


def _asked_for_fewer(log: Log, load: Line) -> bool:
    """Whether llama.cpp found, before it loaded this model, that it fits with the layers that it was told to put on the GPU."""
    since = max(
        (x.number for x in log.find("layers to GPU") if x.number < load.number and "offloaded" in x.text), default=0
    )
    return any(since < x.number < load.number for x in log.find(_FITS_AS_IT_IS))


def _layers(pod: Pod, engine: Engine, logs: Logs) -> Finding | None:
    """A model of which a part of the layers, by the last word of the log on it, is not on the GPU, and nobody asked for that."""
    log = logs.current(engine.container.name)
    found = _offloaded(pod, engine, log) if log is not None else None
    if log is None or found is None:
        return None
    of_llama_cpp = engine.name == "llama.cpp"
    if of_llama_cpp and any(_all_on_gpu(other, found.layers) for other in log.find("layers to GPU")):
        return None  # a draft, or one more model of a router, beside a larger one that is there
    # a script may say how many
    unseen = of_llama_cpp and not pod.log_only and not engine.found.argv_known
    if unseen and found.there:
        return None
    limit = _A_MINUTE if found.least(_HARDLY) else _LONG_SECONDS
    waits = _waits(log, found.line, limit) if found.least(_HALF) else []
    routed = log.holds(_ROUTED)
    told = not routed and not engine.at_least(_ALL_BY_DEFAULT)
    # a log alone says nothing of the arguments
    default = of_llama_cpp and told and found.there == 0 and not pod.log_only and not unseen
    why = _no_room(found.split) or (", as no --n-gpu-layers is set" if default else "")
    return Finding(
        # a model that is larger than the GPU may be what somebody wants; a GPU that is asked for and left idle is not, nor is an
        # answer that takes minutes
        role="cause" if found.there == 0 or waits else "risk",
        confidence="possible" if unseen else "certain" if why and not waits else "likely",
        summary=f"{engine.at} has {found.there} of {found.layers} layers of the model on the GPU, and computes the "
        f"others on the CPU{why}"
        f"{f'; most of its last answers took {say_seconds(limit)} or longer' if waits else ''}.",
        evidence=(
            log_evidence(found.line),
            *(log_evidence(wait.line) for wait in waits[-1:]),
            *((log_evidence(found.split),) if found.split else ()),
            *limits_evidence(engine.container, engine.container.accelerators),
        ),
        explains=("cpu-starved",),
        fixes=(
            *([] if routed else _room_for(engine, log, found.split)),
            _more_layers(engine, told=told, routed=routed),
        ),
        order=found.line.order,
    )


def _more_layers(engine: Engine, *, told: bool, routed: bool) -> Fix:
    """How more of the model comes onto the GPU: by an option, where the release must be told; of a model behind a router by its preset."""
    where = fixes.edited(engine.container.pod)
    if engine.name == "llama.cpp" and told:
        return fixes.set_flag(engine, "gpu_layers", "--n-gpu-layers", "999", "Put all layers on the GPU")
    if routed:
        return fixes.advice(
            "Make the model fit beside the others of the router: fewer at a time (--models-max), a smaller context, a stronger "
            f"quantization or a larger GPU; or correct n-gpu-layers in its preset ({where})"
        )
    return fixes.advice(
        f"Make the model fit: a smaller context ({engine.called('max_model_len')}), a stronger quantization or a larger GPU, in {where}"
    )


def _room_for(engine: Engine, log: Log, split: Line | None) -> Iterator[Fix]:
    """What suffices by Ollama's own count: a shorter context where its cache is what is too much, else more GPUs, which share layers."""
    found = _COUNTED.search(split.text) if split else None
    if split is None or found is None or engine.name != "ollama":
        return
    free = sum(float(size) * 1024.0 ** "KMGT".index(unit) for size, unit in _SIZE.findall(found["free"]))
    full, cache = (_bytes(found[name]) for name in ("full", "kv"))
    begun = (line for line in log.find("--ctx-size ") if line.number > split.number)
    start = next((said for line in begun if (said := _CTX.search(line.text[:4000]))), None)
    usual = engine.value("max_model_len")
    now = int(start[1]) // max(int(start[2] or 1), 1) if start else usual
    lacking = full - free * _USABLE
    if isinstance(now, int) and cache and 0 < lacking < cache:
        length = int(now * (1 - lacking / cache)) // 1024 * 1024
        summary = f"Make the model fit: a context of {length} tokens instead of {now}"
        if length >= _SHORTEST and usual in (None, now):
            summary += f" (OLLAMA_CONTEXT_LENGTH={length})"
            yield fixes.set_env(engine.container, "OLLAMA_CONTEXT_LENGTH", str(length), summary)
            return
        if length >= _SHORTEST:
            yield fixes.advice(
                f"{summary}: num_ctx in the options of the requests or in the model's Modelfile, which goes first"
            )
            return
    most = min(most_gpus(engine.container), _MOST)
    if most and free and 1 < (count := -(-full // (free * _USABLE / engine.container.gpus))) <= most:
        resource = next(iter(engine.container.accelerators))
        summary = f"Give {engine.container.name} {count:.0f} GPUs of this kind, over which Ollama divides the layers"
        yield fixes.set_resource(engine.container, "limits", resource, f"{count:.0f}", summary)


def _bytes(text: str | None) -> float:
    """`127.4 GiB`, in the unit of `_SIZE`: KiB."""
    found = _SIZE.search(text or "")
    return float(found[1]) * 1024.0 ** "KMGT".index(found[2]) if found else 0.0


def _planned_only(pod: Pod, engine: Engine, logs: Logs) -> Finding | None:
    """A model that Ollama loaded last with all weights in the CPU's memory, though it lists a GPU and planned to use it."""
    log, container = logs.current(engine.container.name), engine.container
    starts = [x for x in log.find(_STARTS) if _LAYERS.search(x.text[:4000])] if log is not None else []
    if log is None or not starts or engine.name != "ollama" or not (pod.log_only or container.accelerators):
        return None
    begun = starts[-1]
    planned = _LAYERS.search(begun.text[:4000])
    listed = any("inference compute" in x.text and re.search(_DEVICES, x.text) for x in _device_lines(log))
    said = [(x, cpu) for x in log.find(BUFFER) if x.number > begun.number and (cpu := on_the_cpu(x)) is not None]
    if planned is None or planned[1] == "0" or not listed or not said or not all(cpu for _, cpu in said):
        return None
    runners = log.last(_RUNNERS)
    lacks = runners is not None and re.search(_CPU_ALONE, runners.text[:2000]) is not None
    return Finding(
        summary=f"{engine.at} planned {planned[1]} layers for the GPU that it lists, and has all weights in the memory of the CPU"
        f"{': it has no runner for GPUs' if lacks else ''}.",
        evidence=(
            *((log_evidence(runners),) if runners is not None and lacks else ()),
            log_evidence(begun),
            log_evidence(said[-1][0]),
            *limits_evidence(container, container.accelerators),
        ),
        explains=("cpu-starved",),
        fix=fixes.advice(
            f"Use an image whose Ollama has its libraries for this GPU (the official one: ollama/ollama) in {fixes.edited(pod)}"
        ),
        order=said[-1][0].order,
    )


def _no_such_library(engine: Engine, logs: Logs) -> Finding | None:
    """Ollama that is told to use a library by a name that it does not have, and uses none."""
    found = wrong_library(engine, logs) if engine.name == "ollama" and engine.container.accelerators else None
    if found is None:
        return None
    name, line = found
    return Finding(
        summary=f"{engine.at} computes on the CPU: OLLAMA_LLM_LIBRARY={name} names no library for GPUs that it has (cuda_v12, rocm …), "
        "and it skips all others.",
        evidence=(pod_evidence(engine.container, "env[OLLAMA_LLM_LIBRARY]", name), log_evidence(line)),
        explains=("cpu-starved",),
        fix=fixes.remove_env(engine.container, "OLLAMA_LLM_LIBRARY", "Have Ollama choose its library"),
        order=line.order,
    )


def _waits(log: Log, loaded: Line, limit: int) -> list[Answer]:
    """The answers since a model was loaded that took so many seconds or longer, where most of the last ones did."""
    lines = (line for line in log.find("[GIN] ") if line.number > loaded.number)
    recent = [said for line in lines if (said := answered(line)) is not None][-_RECENT:]
    long = [answer for answer in recent if answer.seconds >= limit]
    return long if len(long) >= max(_FEWEST, len(recent) / 2) else []


def _all_on_gpu(line: Line, least: int) -> bool:
    """Whether it tells of a model of at least so many layers, and all of them on the GPU."""
    said = re.search(OFFLOADED, line.text[:2000])
    return said is not None and said[1] == said[2] and int(said[2]) >= least


def _device_lines(log: Log) -> Iterator[Line]:
    for text in _DEVICE_TEXTS:
        yield from log.find(text)


def _fetched_slowly(pod: Pod, engine: Engine, logs: Logs | None) -> Finding | None:
    """Weights kept in host memory of a server that is slow with few requests: each step waits until they have come over PCIe."""
    setting = engine.explicit("cpu_offload_gb")
    if setting is None or not isinstance(setting.value, int | float) or setting.value <= 0 or logs is None:
        return None
    said = last_load(engine.container, logs) if pod.ready else []
    pace = _each_gets(said) if all(one.running <= _FEW_REQUESTS for one in said) else None
    if pace is None:
        return None
    return Finding(
        summary=f"{setting.text} keeps up to {setting.value:g} GiB of weights for each GPU in host memory and fetches them for every step: "
        f"a request gets {pace:.1f} tokens a second at most.",
        evidence=(setting_evidence(engine.container, setting), log_evidence(said[-1].line)),
        fix=fixes.advice(
            f"Keep all weights on the GPUs (no {setting.text.partition('=')[0]}), with a shorter context, a stronger quantization or "
            f"more GPUs where they do not fit, in {fixes.edited(pod)}"
        ),
        order=said[-1].line.order,
    )


def _offload(pod: Pod, engine: Engine, subject: Subject, logs: Logs | None) -> Finding | None:
    """Weights kept in host memory although the GPUs would hold all of them: by the model's size, or by what is free beside the rest."""
    setting, sizing, workers = engine.explicit("cpu_offload_gb"), subject.sizing(engine), engine.workers
    if setting is None or not isinstance(setting.value, int | float) or setting.value <= 0 or not workers:
        return None
    kept = f"{setting.text} keeps up to {setting.value:g} GiB of weights for each GPU in host memory and fetches them for every step"
    fix = fixes.set_flag(engine, "cpu_offload_gb", "--cpu-offload-gb", "0", "Keep all weights on the GPUs")
    said = last_load(engine.container, logs)
    if (room := _free_beside(engine, sizing, logs, setting.value * GIB, said)) is not None:
        free, line = room
        pace = _each_gets(said) if pod.ready and said else None
        return Finding(
            role="risk" if pace is None else "cause",
            summary=f"{kept}, although {say_bytes(free)} of each are left for the KV cache"
            f"{'' if pace is None else f', and a request gets {pace:.1f} tokens a second at most'}.",
            evidence=(
                setting_evidence(engine.container, setting),
                log_evidence(line),
                *(log_evidence(one.line) for one in said[-1:] if pace is not None),
            ),
            explains=("queue-growing",),
            fix=fix,
            order=line.order,
        )
    gpu = sizing.accelerator.gpu if sizing.accelerator and sizing.accelerator.shared <= 1 else None
    weights = sizing.file_bytes
    if not weights or gpu is None or not gpu.memory or weights > _FITS * gpu.memory * workers:
        return None
    return Finding(
        role="risk",
        summary=f"{kept}, although the {say_bytes(weights)} of weights fit into {workers} x {say_bytes(gpu.memory)} of {gpu.name}.",
        evidence=(setting_evidence(engine.container, setting),),
        fix=fix,
    )


def _free_beside(
    engine: Engine, sizing: Sizing, logs: Logs | None, kept: float, said: list[Load]
) -> tuple[int, Line] | None:
    """What each GPU has left for the cache, by the engine, where the weights would leave it half of that and all that it is used for."""
    found: tuple[int, Line] | None = None
    cache, line = sizing.printed.measured.cache, sizing.printed.lines.get("cache")
    if cache is not None and line is not None and engine.name == "vllm":
        found = int(cache.low), line
    log = engine.container.own_log(logs) if engine.name == "sglang" else None
    for one, sizes in log.matching(_POOL, _ALLOCATED) if log else ():
        found = int(sum(float(size) for size in sizes.groups() if size) * GIB), one
    if found is None or found[0] < 2 * kept:
        return None
    used = max((one.cache for one in said), default=0)
    return found if used * found[0] <= _FULL * (found[0] - kept) else None


def _each_gets(said: list[Load]) -> float | None:
    """The tokens a second of a request at most, where that is no pace of a GPU and nothing else takes the time."""
    if not all(one.running and not one.waiting for one in said):
        return None
    # SGLang counts the pauses between two requests in, and who reads prompts all the time generates little
    alone = [one for one in said if one.read is not None and one.read < _SLOW * one.running]
    paces = [one.made / one.running for one in alone if one.made]
    return max(paces) if len(paces) >= max(_STATEMENTS, len(alone)) and max(paces) < _SLOW else None
