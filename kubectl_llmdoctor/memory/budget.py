"""What one GPU holds, and what fits into it."""

from __future__ import annotations

from typing import Literal

import msgspec

from kubectl_llmdoctor.catalog.architecture import Architecture
from kubectl_llmdoctor.engines.version import at_least
from kubectl_llmdoctor.memory.amount import GIB, Amount, exactly
from kubectl_llmdoctor.memory.cache import Layout, layout
from kubectl_llmdoctor.memory.serving import Serving, batched_tokens, memory_fraction
from kubectl_llmdoctor.memory.weights import indivisible, weights
from kubectl_llmdoctor.memory.working import working_memory

Verdict = Literal["fits", "does-not-fit", "too-close", "unknown"]


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine printed about itself; each wins over what would be computed."""

    total: Amount | None = None
    weights: Amount | None = None
    working: Amount | None = None
    cache: Amount | None = None
    tokens: int | None = None


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What one GPU holds. `usable` is the part of the GPU's `total` that the engine may use for all that is listed.

    `tokens` is how many the cache holds, `longest` the longest single request, `concurrency` how many requests of
    `context` tokens fit at once: each as lowest and highest. `missing` names the inputs that are not known; what
    depends on them is None.
    """

    verdict: Verdict
    context: int | None = None
    total: Amount | None = None
    usable: Amount | None = None
    weights: Amount | None = None
    working: Amount | None = None
    cache: Amount | None = None
    per_token: float | None = None
    per_request: int | None = None
    tokens: tuple[int, int] | None = None
    longest: tuple[int, int] | None = None
    concurrency: tuple[float, float] | None = None
    missing: tuple[str, ...] = ()

    @property
    def lacks_room(self) -> bool:
        """Whether there surely is a cache, and surely one too small for a single request of the maximum length."""
        return self.verdict == "does-not-fit" and self.cache is not None and self.cache.high > 0


def budget(
    model: Architecture,
    serving: Serving,
    gpu_memory: Amount | None,
    gpu_name: str = "",
    measured: Measured | None = None,
) -> Budget:
    """What fits: weights, working memory, cache, tokens, the longest request and how many of them.

    `gpu_memory` is what one GPU has in all, in bytes, as the driver states it. Verdict `fits` or `does-not-fit` only where the
    whole range says so; `too-close` where it depends on the working memory; `unknown` where an input is missing.
    """
    measured = measured or Measured()
    missing: list[str] = [f"the memory that {name} takes" for name in serving.beyond if not measured.cache]
    uneven = indivisible(model, serving.tensor_parallel)
    if uneven:
        missing.append(f"a tensor parallel size that {uneven} can be divided by, unlike {serving.tensor_parallel}")
    total = measured.total or gpu_memory
    if total is None and measured.cache is None:
        missing.append("the GPU's memory")
    stored = measured.weights or weights(model, serving)
    held = None if isinstance(stored, str) else stored
    missing += [stored] if isinstance(stored, str) else []
    usable, working, cache = None, measured.working, measured.cache
    if total is not None:
        usable, working, cache = _room(model, serving, total, gpu_name, held, measured, missing)
    shape = layout(model, serving)
    if isinstance(shape, str):
        missing.append(shape)
    context = serving.max_model_len or model.native_context
    if context is None:
        missing.append("max_model_len")
    result = Budget(
        verdict="unknown",
        context=context,
        total=total,
        usable=usable,
        weights=held,
        working=working,
        cache=cache,
        missing=tuple(dict.fromkeys(missing)),
    )
    if isinstance(shape, str):
        return _without_layout(result)
    batched = batched_tokens(serving, total.low if total else 0, gpu_name)
    per_token = shape.page * shape.pools * len(shape.groups) / shape.block
    request = shape.request(context, batched) if context else None
    result = msgspec.structs.replace(result, per_token=per_token, per_request=request)
    if cache is None or uneven or (serving.beyond and not measured.cache):
        return result
    ends = (max(cache.low, 0), max(cache.high, 0))
    tokens = _stated_tokens(shape, serving, ends, context, request)
    if measured.tokens is not None:
        tokens = (measured.tokens, measured.tokens)
    result = msgspec.structs.replace(result, tokens=tokens)
    return _judged(result, shape, ends, batched, max(context or 0, model.native_context or 0) or 1 << 24)


def _judged(result: Budget, shape: Layout, ends: tuple[int, int], batched: int, most: int) -> Budget:
    """The budget with what a cache of so many bytes, at least and at most, can hold of requests; none is longer than `most`."""
    context, request = result.context, result.per_request
    longest = (_longest(shape, ends[0], batched, most), _longest(shape, ends[1], batched, most))
    if not context or not request:
        return msgspec.structs.replace(result, longest=longest)
    verdict = "fits" if longest[0] >= context else "does-not-fit" if longest[1] < context else "too-close"
    concurrency = (ends[0] / request, ends[1] / request)
    return msgspec.structs.replace(result, longest=longest, concurrency=concurrency, verdict=verdict)


def _stated_tokens(
    shape: Layout, serving: Serving, ends: tuple[int, int], context: int | None, request: int | None
) -> tuple[int, int] | None:
    """The size of the cache in tokens, as the engine states it; None where the rule of this version is not known.

    For layers that are not alike vLLM counts blocks up to 0.20, and from 0.22 on what requests of the maximum length
    would use.
    """
    if len(shape.groups) == 1 or at_least(serving.version, "0.21.0") is False:
        return shape.tokens(ends[0]), shape.tokens(ends[1])
    if at_least(serving.version, "0.22.0") is False or not context or not request:
        return None
    return int(ends[0] / request * context), int(ends[1] / request * context)


def _without_layout(result: Budget) -> Budget:
    """Without a cache layout only one thing can be said: weights that do not fit never will."""
    if result.weights and result.usable and result.weights.low > result.usable.high:
        return msgspec.structs.replace(result, verdict="does-not-fit")
    return result


def _room(
    model: Architecture,
    serving: Serving,
    total: Amount,
    gpu_name: str,
    held: Amount | None,
    measured: Measured,
    missing: list[str],
) -> tuple[Amount | None, Amount | None, Amount | None]:
    """The usable part of a GPU, the working memory and what is left for the cache, by the engine's own rule."""
    share = memory_fraction(serving)
    if serving.engine == "vllm" and share is not None:
        usable = Amount(
            low=int(total.low * share), high=int(total.high * share), source=f"{share:g} of {total.low / GIB:.4g} GiB"
        )
        estimate = measured.working or working_memory(model, serving, total.low, gpu_name)
        if isinstance(estimate, str):
            missing.append(estimate)
            return usable, None, measured.cache
        if measured.cache:
            return usable, measured.working, measured.cache
        if serving.kv_cache_bytes:
            return usable, estimate, exactly(serving.kv_cache_bytes, "--kv-cache-memory-bytes")
        return usable, estimate, _less(usable, held, estimate) if held else None
    if serving.engine == "sglang":
        if share is None:
            missing.append("mem_fraction_static: SGLang's own value depends on the GPU and the batch")
            return None, None, measured.cache
        usable = _static(serving, total, share)
        working = Amount(low=0, high=0, source="outside SGLang's static share")
        return usable, working, measured.cache or (_less(usable, held, working) if held else None)
    if serving.engine in ("tensorrt-llm", "lmdeploy") and share is not None and held is not None:
        free = Amount(
            low=int((total.low - held.high - 3 * GIB) * share),
            high=int((total.high - held.low - GIB // 4) * share),
            source=f"{share:g} of what is free after the weights",
        )
        return None, None, measured.cache or free
    missing.append(f"how {serving.engine} divides GPU memory")
    return None, None, measured.cache


def _static(serving: Serving, total: Amount, share: float) -> Amount:
    """SGLang's share of what is free before it loads: all but the CUDA context and NCCL."""
    gpus = serving.tensor_parallel * serving.pipeline_parallel
    least, most = GIB // 4, 2 * GIB if gpus > 1 else GIB
    return Amount(
        low=int((total.low - most) * share),
        high=int((total.high - least) * share),
        source=f"{share:g} of what is free before the weights",
    )


def _less(usable: Amount, held: Amount, working: Amount) -> Amount:
    return Amount(
        low=usable.low - held.high - working.high, high=usable.high - held.low - working.low, source="what is left"
    )


def _longest(shape: Layout, cache: int, batched: int, most: int) -> int:
    """The longest request that a cache of so many bytes holds, at most `most` tokens; 0 for none."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if shape.request(middle, batched) <= cache else (low, middle - 1)
    return low
