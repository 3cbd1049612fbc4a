"""A share of GPU memory that leaves too little for the rest."""

import math
import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    GIB,
    Engine,
    Finding,
    Fix,
    Line,
    Logs,
    Pod,
    Setting,
    Sizing,
    check,
    ending_of,
    expression,
    fixes,
    log_evidence,
    log_of,
    phase_of,
    setting_evidence,
)
from llmdoctor_checks._consequences import FAILED_START
from llmdoctor_checks._pytorch_memory import account

#: From here on less than 4 GiB of an 80 GiB card are left for CUDA graphs, NCCL and the context.
_HIGH = 0.95
#: From here on it cannot be meant: less than 2 % is left.
_EXTREME = 0.98
_NEXT_TO_ALL = 0.99

#: The engine's own choice (vLLM from 0.20 on; 0.9 before): where that much is free, it is the share that is too high.
_DEFAULT = 0.92

#: What the driver and a CUDA context of its own take of a GPU that nobody else uses, GiB.
_CONTEXT_GIB = 1.0

_TOO_MUCH = "on startup is less than desired GPU memory utilization"
_FREE = r"Free memory on device(?! cpu)[^(]*\((?P<free>\d{1,5}(?:\.\d{1,4})?)/(?P<total>\d{1,5}(?:\.\d{1,4})?) GiB\)"

_OUT_OF_MEMORY = ("CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


#: PyTorch's exception with its account, by how much what it had is more than the weights, and a step of the share.
_ACCOUNTED, _LOADED, _STEP = " out of memory. Tried to allocate ", 1.2, 0.05

#: What vLLM counted for its cache, and for how many requests of the maximum length that is (v1/core/kv_cache_utils.py).
_CACHE = expression(r"Available KV cache memory: (?P<left>\d{1,5}(?:\.\d{1,3})?) GiB")
_REQUESTS = expression(
    r"Maximum concurrency for (?P<length>[\d,]{1,12}) tokens per request: (?P<times>\d{1,6}(?:\.\d{1,3})?)x"
)
#: The share that is advised where nothing else is known, a step of it where the cache has nothing to spare, how much of what is left
#: then counts, and a context that is hardly worth serving.
_USUAL, _SMALL_STEP, _ROUNDED, _SHORT = 0.90, 0.02, 0.98, 2048


@check("gpu-memory-utilization-high", since="0.1", literals=(*_OUT_OF_MEMORY, _TOO_MUCH, _ACCOUNTED))
def gpu_memory_utilization_high(pod: Pod, engine: Engine, logs: Logs | None, sizing: Sizing) -> Iterator[Finding]:
    """The engine reserves so much GPU memory that the rest does not fit.

    vLLM reserves `--gpu-memory-utilization` of the whole card for weights, activations and KV cache. What is outside
    that budget (up to 0.19 the CUDA graphs, NCCL buffers, the CUDA context, other processes) must fit into what is
    left; where even the empty GPU has less free, the engine refuses to start. A value near 1 then ends in "CUDA out of
    memory" while graphs are captured or under load. It never ends in OOMKilled: that is host memory. SGLang's
    `--mem-fraction-static` covers weights and cache only, so it needs more room than vLLM's.

    Of a log that has kept the exception alone PyTorch's account tells: what it had was more than the share, and far more than the
    weights, so that these were loaded, and the cache was there.

    ## Fix

    Go back to the default (0.9; 0.92 from vLLM 0.20 on), or lower in steps of 0.02 until graphs are captured.

    ## References

    - https://docs.vllm.ai/en/latest/configuration/conserving_memory/
    """
    setting = engine.explicit("gpu_memory_utilization")
    if engine.name not in ("vllm", "sglang") or setting is None or not isinstance(setting.value, int | float):
        return
    share = float(setting.value)
    if not _HIGH <= share <= 1:
        yield from _past_its_share(engine, setting, share, logs, sizing)
        return
    container = engine.container
    crashed = container.crashed
    # the size of the cache, where it is told, takes the place of the share
    pinned = engine.explicit("kv_cache_memory_bytes") is not None
    failed = _out_of_memory(logs, container.name) if logs and crashed else None
    refused = _never_free(logs, container.name) if logs and crashed else None
    if refused:
        line, free, total = refused
        why = "the driver and the engine's own CUDA context take as much as the rest, without any other program."
        if total - free > _CONTEXT_GIB:
            why = f"{engine.title}'s default of {_DEFAULT} would have had room beside what else uses {total - free:.2f} GiB of it."
        yield Finding(
            summary=f"{setting.text} asks for {share * total:.2f} of the GPU's {total:g} GiB, of which {free:g} were free: {why}",
            evidence=(log_evidence(line), setting_evidence(container, setting)),
            explains=("gpu-memory-shared", *FAILED_START),
            fixes=_fixes(engine, setting.flag),
            order=line.order,
        )
    elif failed and not pinned:
        yield Finding(
            summary=f"{setting.text} leaves {1 - share:.0%} of the GPU for what is outside {engine.title}'s budget, and it ran out.",
            evidence=(log_evidence(failed), setting_evidence(container, setting)),
            explains=("cuda-oom-profile", "cuda-oom-runtime", *FAILED_START),
            fixes=_with_the_cache(engine, setting, share, failed) or _fixes(engine, setting.flag),
            order=failed.order,
        )
    elif not (pod.exists and pod.ready) and not pinned:
        eager = engine.value("enforce_eager") is True
        # without graphs NCCL and the context are all that is left, and whoever switched them off has counted
        extreme = share >= (_NEXT_TO_ALL if eager else _EXTREME)
        yield Finding(
            role="risk" if extreme else "note",
            summary=f"{setting.text} leaves {1 - share:.0%} of the GPU for {'' if eager else 'CUDA graphs, '}NCCL and the CUDA context.",
            evidence=(setting_evidence(container, setting),),
            fixes=_fixes(engine, setting.flag),
        )


def _past_its_share(
    engine: Engine, setting: Setting, share: float, logs: Logs | None, sizing: Sizing
) -> Iterator[Finding]:
    """A lower share, where PyTorch's account says that weights and cache were there, and nothing else of the log says so."""
    spread = sizing.serving.tensor_parallel * sizing.serving.pipeline_parallel
    weights = (sizing.file_bytes or 0) / spread
    log = log_of(ending_of(engine.container), logs)
    line = next(log.find(_ACCOUNTED), None) if log is not None and phase_of(log) is None else None
    said = account(line.text) if line is not None else None
    if engine.name != "vllm" or line is None or said is None or not weights or said.others:
        return
    lower = round(share - _STEP, 2)
    if said.own <= max(share * said.total, weights * _LOADED) or lower * said.total < weights + GIB:
        return
    yield Finding(
        summary=f"{setting.text} is {share * said.total / GIB:.1f} of the GPU's {said.total / GIB:.1f} GiB, and PyTorch had "
        f"{said.own / GIB:.1f} GiB when there was no more: the {weights / GIB:.1f} GiB of weights and the KV cache fit, and what "
        "runs beside them (graphs, a warm-up, requests) did not.",
        evidence=(log_evidence(line), setting_evidence(engine.container, setting)),
        explains=("cuda-oom-weights", "cuda-oom-profile", "cuda-oom-runtime", *FAILED_START),
        fix=fixes.set_flag(
            engine,
            "gpu_memory_utilization",
            setting.flag,
            f"{lower:.2f}",
            f"Lower {setting.flag} from {share:g} to {lower:.2f}",
        ),
        order=line.order,
    )


def _never_free(logs: Logs, container: str) -> tuple[Line, float, float] | None:
    """The line by which the engine refuses its share of a GPU of which hardly anybody else uses anything, and the GiB in it."""
    for log in logs.of(container):
        for line in log.find(_TOO_MUCH):
            said = re.search(_FREE, line.text)
            free, total = (float(said["free"]), float(said["total"])) if said else (0.0, 0.0)
            if said and (total - free <= _CONTEXT_GIB or free >= _DEFAULT * total):
                return line, free, total
    return None


def _out_of_memory(logs: Logs, container: str) -> Line | None:
    """The first line that says so, when the weights were loaded before."""
    for log in logs.of(container):
        phase = phase_of(log)
        if phase is None or phase.name in ("downloading the model", "loading weights"):
            continue
        if lines := [*log.find(*_OUT_OF_MEMORY)]:
            return min(lines, key=lambda line: line.number)
    return None


def _with_the_cache(engine: Engine, setting: Setting, share: float, failed: Line) -> tuple[Fix, ...]:
    """A lower share with which one request of the maximum length still has its cache, by what vLLM counted before it failed.

    Nothing where the usual share leaves room for that, or where the log does not say it.
    """
    cache = [*failed.log.matching(_CACHE, "Available KV cache memory: ")]
    fits = [*failed.log.matching(_REQUESTS, "Maximum concurrency for ")]
    total = account(failed.text)
    if engine.name != "vllm" or not cache or not fits or total is None:
        return ()
    left, times = float(cache[-1][1]["left"]) * GIB, float(fits[-1][1]["times"])
    length, spare = int(fits[-1][1]["length"].replace(",", "")), left - left / max(times, 1)
    # the share below which a request of the maximum length does not fit any more
    lowest = math.ceil((share - spare / total.total) * 100 - 1e-6) / 100
    if lowest <= _USUAL or times < 1:
        return ()
    flag = setting.flag
    if lowest < share - 0.005:
        lower = f"{lowest:.2f}"
        summary = (
            f"Lower {flag} from {share:g} to {lower}, and no further: one request of {length} tokens takes "
            f"{left / times / GIB:.2f} GiB of the {left / GIB:.2f} GiB that vLLM counted for its cache"
        )
        return (fixes.set_flag(engine, "gpu_memory_utilization", flag, lower, summary),)
    target = round(share - _SMALL_STEP, 2)
    tokens = int((left - (share - target) * total.total) / (left / times) * length * _ROUNDED) // 16 * 16
    if tokens < _SHORT:
        return ()
    summary = (
        f"Lower {flag} from {share:g} to {target:.2f} and cap the context at {tokens} tokens with it: by vLLM's count the cache of "
        f"{left / GIB:.2f} GiB is hardly more than one request of {length} tokens takes"
    )
    length_flag = engine.explicit("max_model_len")
    told = length_flag.flag if length_flag is not None else "--max-model-len"
    chosen = [("gpu_memory_utilization", flag, f"{target:.2f}"), ("max_model_len", told, str(tokens))]
    return (fixes.set_flags(engine, chosen, summary),)


def _fixes(engine: Engine, flag: str) -> tuple[Fix, ...]:
    value = "0.85" if engine.name == "sglang" else "0.90"
    now = engine.value("gpu_memory_utilization")
    summary = f"Lower {flag} {f'from {now} ' if now is not None else ''}to {value}"
    return (fixes.set_flag(engine, "gpu_memory_utilization", flag, value, summary),)
