"""GPU memory arithmetic: what an engine's weights, working memory and KV cache take, and what fits into the rest.

Pure functions over a model's `Architecture` and the settings of an engine. Every amount is for one GPU, in bytes, with
its lowest and highest likely value: weights and cache follow from the model, working memory does not and is a range.
What is missing is named, never replaced by a guess.

Sources: vLLM `v1/worker/gpu_worker.py`, `v1/core/kv_cache_utils.py`, `v1/kv_cache_interface.py` (0.8 to 0.33) and
`worker/worker.py` before; SGLang `model_executor/model_runner*.py`; the ranges of working memory are those that engines
print in public logs (`tests/memory/`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import msgspec

from kubectl_llmdoctor.catalog.architecture import (
    DTYPE_BYTES,
    LINEAR,
    Architecture,
    Cache,
    Quantization,
    bits_per_weight,
)
from kubectl_llmdoctor.catalog.gpus import Gpu
from kubectl_llmdoctor.engines.version import at_least

GIB = 1 << 30

Verdict = Literal["fits", "does-not-fit", "too-close", "unknown"]


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that decide memory, as one engine instance has them; None is unknown or left to the engine."""

    engine: str = "vllm"
    version: str | None = None
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    data_parallel: int = 1
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    memory_fraction: float | None = None
    kv_cache_bytes: int | None = None
    dtype: str | None = None
    quantization: str | None = None
    kv_cache_dtype: str | None = None
    block_size: int | None = None
    enforce_eager: bool = False
    hybrid_cache: bool = True
    cpu_offload_gib: float = 0
    #: settings with an effect on memory that is not computed here
    beyond: tuple[str, ...] = ()


class Amount(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes on one GPU between `low` and `high`, and where they come from, in words."""

    low: int
    high: int
    source: str

    @property
    def middle(self) -> int:
        """The middle of the range."""
        return (self.low + self.high) // 2

    @property
    def exact(self) -> bool:
        """Whether nothing about it is a range."""
        return self.low == self.high


def exactly(value: float, source: str) -> Amount:
    """An amount without a range."""
    return Amount(low=int(value), high=int(value), source=source)


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


# -- weights ----------------------------------------------------------------------------------------------------------


def weights(model: Architecture, serving: Serving) -> Amount | str:
    """Bytes of the weights on the fullest GPU, or the name of what is missing.

    With tensor parallelism each GPU holds its share of attention, MLP and embeddings; key and value projections are
    copied where there are fewer KV heads than GPUs, norms and routers everywhere. A pipeline's fullest stage counts.
    """
    parts = model.weights
    if parts is None:
        return model.gaps[0] if model.gaps else "the model's configuration"
    full = _dtype_bytes(serving.dtype, model.dtype)
    if full is None:
        return "dtype"
    quantization = model.quantization
    quantized: frozenset[str] = frozenset()
    low_bits: float | None = None
    if quantization is not None:
        quantized, low_bits = quantization.parts, quantization.bits
        if low_bits is None:
            return f"how {quantization.method} stores its weights"
    elif serving.quantization:
        low_bits = online_bits(serving.quantization)
        if low_bits is None:
            return f"a checkpoint quantized with {serving.quantization}"
        quantized = frozenset({"experts"}) if serving.quantization == "experts_int8" else LINEAR
    tensor, stages = serving.tensor_parallel, serving.pipeline_parallel
    share = math.ceil(model.layers / stages) / model.layers if model.layers else 1.0
    heads = max(model.kv_heads, 1)
    # with data parallelism the experts are spread over all GPUs of the group, the rest is copied
    expert_gpus = tensor * serving.data_parallel
    divisors = {"attention": tensor, "kv": min(tensor, heads), "mlp": tensor, "shared": tensor, "experts": expert_gpus}
    held = 0.0
    for name in ("attention", "kv", "replicated", "mlp", "shared", "experts", "plain"):
        width = low_bits / 8 if low_bits is not None and name in quantized else full
        held += getattr(parts, name) * width / divisors.get(name, 1) * share
    # what an engine keeps of a vision encoder differs: up to twice its parameters were printed
    padded = parts.vision * full
    ends = parts.embedding + parts.head
    if stages > 1:  # the first stage has the embeddings, the last one the head
        ends = max(parts.embedding, parts.head or parts.embedding)
    held += ends * full / tensor + parts.vision * full
    held -= serving.cpu_offload_gib * GIB
    if quantization is not None and quantization.spread:
        padded += sum(getattr(parts, n) / divisors.get(n, 1) for n in quantized) * quantization.spread / 8 * share
    if quantization is not None and quantization.method == "mxfp4" and low_bits:
        # some kernels pad both sides of an expert to multiples of 256
        inner = (model.moe_intermediate_size or model.intermediate_size) / tensor
        grown = (_multiple(model.hidden_size) / model.hidden_size) * (_multiple(inner) / inner) - 1
        padded += parts.experts * low_bits / 8 / expert_gpus * share * grown
    source = f"{parts.total / 1e9:.3g} B parameters"
    if low_bits is not None:
        method = quantization.method if quantization else serving.quantization
        source += f", {low_bits:.3g} bits where {method} applies"
    else:
        source += f" x {full:g} bytes"
    if tensor * stages > 1:
        source += f", over {tensor * stages} GPUs"
    return Amount(low=int(max(held, 0)), high=int(max(held + padded, 0)), source=source)


def _multiple(size: float) -> int:
    return -(-int(size) // 256) * 256


def online_bits(method: str) -> float | None:
    """Bits per weight when an engine quantizes a plain checkpoint itself; None where it needs a quantized one."""
    if method in ("fp8", "fp8_per_tensor", "fp8_per_block", "fp8_per_channel", "ptpc_fp8", "experts_int8"):
        return 8.0
    if method in ("int8_per_channel_weight_only", "eetq"):
        return 8.0
    if method in ("bitsandbytes", "bitsandbytes-nf4", "bitsandbytes-fp4"):
        return bits_per_weight("bitsandbytes", 4, double=False)
    return None


def _dtype_bytes(asked: str | None, checkpoint: str | None) -> float | None:
    """Bytes of one weight that is not quantized. `auto` never takes more than 16 bits, whatever the checkpoint says."""
    if asked and asked != "auto":
        return DTYPE_BYTES.get(asked)
    width = DTYPE_BYTES.get(checkpoint or "bfloat16")
    return 2 if width == 4 else width


# -- the KV cache -----------------------------------------------------------------------------------------------------


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """How vLLM cuts the cache of one GPU into blocks.

    `pools` layers of each group share one page of `page` bytes; `groups` lists, for each group, the kind of its layers,
    its window, and the tokens of one block. A model whose layers are all alike has one group.
    """

    page: int
    pools: int
    groups: tuple[tuple[str, int, int], ...]
    #: tokens of the smallest block
    block: int
    #: blocks that one sequence's state takes
    states: int = 1

    def tokens(self, cache: int) -> int:
        """How many tokens vLLM up to 0.20 says that a cache of so many bytes holds (`GPU KV cache size`)."""
        return cache // (self.page * self.pools) // len(self.groups) * self.block

    def blocks(self, length: int, batched: int) -> int:
        """Blocks that one request of this length needs over all groups."""
        return sum(
            self.states if kind == "state" else _blocks(kind, window, block, length, batched)
            for kind, window, block in self.groups
        )

    def request(self, length: int, batched: int) -> int:
        """Bytes that one request of this length needs."""
        return self.page * self.pools * self.blocks(length, batched)


def _blocks(kind: str, window: int, block: int, length: int, batched: int) -> int:
    """Blocks of one layer for one request (`max_memory_usage_bytes` of vLLM's cache specifications)."""
    if kind == "window" and window:
        return -(-min(window - 1 + batched, length) // block) + 1
    if kind == "chunked" and window:
        return -(-min(window + batched, length) // block)
    return -(-length // block)


def kv_bytes(model: Architecture, serving: Serving) -> float | None:
    """Bytes of one cached value; None where the data type is not known."""
    name = serving.kv_cache_dtype or "auto"
    if name.startswith("fp8") or name == "int8":
        return 1
    if name == "auto" and model.quantization is not None and model.quantization.fp8_cache:
        return None
    if name in ("auto", "f16"):
        return _dtype_bytes(serving.dtype, model.dtype)
    return DTYPE_BYTES.get(name, _LLAMA_BYTES.get(name))


#: llama.cpp's cache types with their scales (ggml block sizes).
_LLAMA_BYTES = {
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "bf16": 2,
    "f32": 4,
}


def layout(model: Architecture, serving: Serving) -> Layout | str:
    """How the cache of one GPU is laid out, or the name of what is missing."""
    if model.caches is None:
        return model.gaps[0] if model.gaps else "the model's configuration"
    width = kv_bytes(model, serving)
    if width is None:
        if model.quantization is not None and model.quantization.fp8_cache and not serving.kv_cache_dtype:
            return "kv_cache_dtype: the checkpoint has scales for FP8, which newer engines use by themselves"
        return "kv_cache_dtype" if serving.kv_cache_dtype else "dtype"
    if not model.caches:
        return "a KV cache: this model is an encoder"
    tensor, stages = serving.tensor_parallel, serving.pipeline_parallel
    if stages > 1 and len(model.caches) > 1:
        return "how the layers of a hybrid model fall on pipeline stages"
    block = serving.block_size or (64 if model.caches[0].kind == "latent" else 16)
    per_layer: list[tuple[Cache, int, float]] = []
    for cache in model.caches:
        one = cache.bytes_per_token(width, tensor) / cache.layers
        per_layer.append((cache, math.ceil(cache.layers / stages), one))
    attention = [entry for entry in per_layer if entry[0].kind != "state"]
    states = [entry for entry in per_layer if entry[0].kind == "state"]
    if not attention:
        return "a model with attention layers"
    hybrid = serving.hybrid_cache and serving.engine == "vllm" and at_least(serving.version, "0.10.0") is not False
    kinds = {entry[0].kind for entry in attention}
    if not states and (len(attention) == 1 or not hybrid or kinds == {"full"}):
        page = sum(layers * round(one * block) for _, layers, one in attention)
        window = attention[0][0].window if len(attention) == 1 else 0
        kind = attention[0][0].kind if len(attention) == 1 else "full"
        return Layout(page=page, pools=1, groups=((kind, window, block),), block=block)
    if states:
        if not hybrid:
            return f"how {serving.engine} stores the state of {model.name}"
        # the attention block grows until its page holds one state
        largest = max(cache.state for cache, _, _ in states) / tensor
        one = max(entry[2] for entry in attention)
        block = max(block, math.ceil(largest / one / 16) * 16)
    page = max(round(one * block) for _, _, one in attention)
    counts = [layers for _, layers, _ in per_layer]
    pools = max(counts) if max(counts) < min(counts) * 1.5 else min(counts)
    groups: list[tuple[str, int, int]] = []
    for cache, layers, one in per_layer:
        tokens = block
        if cache.kind != "state":
            if page % round(one * block):
                return "a common page size of its layers"
            tokens = block * (page // round(one * block))
        groups += [(cache.kind, cache.window, tokens)] * math.ceil(layers / pools)
    smallest = min(tokens for kind, _, tokens in groups if kind != "state")
    # with prefix caching, the default from 0.20 on, a state is kept at the last block and at the one before
    kept = 1 if at_least(serving.version, "0.20.0") is False else 2
    return Layout(page=page, pools=pools, groups=tuple(groups), block=smallest, states=kept)


# -- working memory ---------------------------------------------------------------------------------------------------


def batched_tokens(serving: Serving, gpu_memory: int, gpu_name: str) -> int:
    """`max_num_batched_tokens` of vLLM when nobody sets it (`engine/arg_utils.py`): by the GPU's memory."""
    if serving.max_num_batched_tokens:
        return serving.max_num_batched_tokens
    large = gpu_memory >= 70 * GIB and "a100" not in gpu_name.lower() and "gb10" not in gpu_name.lower()
    return 8192 if large else 2048


def sequences(serving: Serving, gpu_memory: int, gpu_name: str) -> int:
    """`max_num_seqs` of vLLM when nobody sets it."""
    if serving.max_num_seqs:
        return serving.max_num_seqs
    if at_least(serving.version, "0.8.0") is False:
        return 256
    return 1024 if gpu_memory >= 70 * GIB and "a100" not in gpu_name.lower() else 256


#: Bytes that the sampler keeps for one sequence and one entry of the vocabulary: logits in the model's and in full
#: precision, probabilities, and a copy (20 logs of 0.19 give 14.2 to 15.9).
_SAMPLER_BYTES = 14.3


def working_memory(model: Architecture, serving: Serving, gpu_memory: int, gpu_name: str) -> Amount | str:
    """What vLLM keeps for a full batch, NCCL and CUDA graphs: a range, since kernels and versions differ.

    The peak of the profiling run is the sampler's (every sequence times the vocabulary, not divided by tensor
    parallelism) or the MLP's (every batched token). Outside torch, cuBLAS and the like take up to half a GiB, NCCL and
    custom all-reduce about two GiB where GPUs reach each other directly. From 0.20.2 on CUDA graphs count too.
    """
    if not (model.hidden_size and model.vocab_size):
        return "hidden_size"
    tokens, count = batched_tokens(serving, gpu_memory, gpu_name), sequences(serving, gpu_memory, gpu_name)
    hidden = 2 * tokens * 2 * model.hidden_size
    sampler = min(count, tokens) * model.vocab_size * _SAMPLER_BYTES + hidden
    step = hidden + tokens * 2 * 4 * model.intermediate_size / serving.tensor_parallel
    peak = max(sampler, step)
    low, high = 0.85 * peak + GIB / 16, 1.15 * peak + GIB / 2
    if model.experts:
        high += tokens * 8 * model.hidden_size * 5
    if model.multimodal:
        high += GIB
    if serving.tensor_parallel * serving.pipeline_parallel * serving.data_parallel > 1:
        low, high = low + GIB / 8, high + 2 * GIB
    graphs = not serving.enforce_eager and at_least(serving.version, "0.20.2") is not False
    if graphs:
        low, high = low + GIB / 16, high + 3 * GIB / 2
    if at_least(serving.version, "0.8.0") is False:  # the first engine profiled another way, and kept more beside torch
        high += 2 * GIB
    names = f"a batch of {tokens} tokens and {count} sequences" + (", CUDA graphs" if graphs else "")
    return Amount(low=int(low), high=int(high), source=f"estimate for {names}")


# -- the budget -------------------------------------------------------------------------------------------------------

#: The share of GPU memory that engines take when nobody says: name, from version, share.
_SHARES: tuple[tuple[str, str, float], ...] = (
    ("vllm", "0.20.0", 0.92),
    ("vllm", "", 0.9),
    ("lmdeploy", "", 0.8),
    ("tensorrt-llm", "", 0.9),
)


def memory_fraction(serving: Serving) -> float | None:
    """The share of memory in force: as set, else the engine's default; None where it depends on more."""
    if serving.memory_fraction is not None:
        return serving.memory_fraction
    for engine, since, share in _SHARES:
        if engine == serving.engine and (not since or at_least(serving.version, since) is not False):
            return share
    return None


def budget(
    model: Architecture,
    serving: Serving,
    gpu_memory: Amount | None,
    gpu_name: str = "",
    measured: Measured | None = None,
) -> Budget:
    """What fits: weights, working memory, cache, tokens, the longest request and how many of them.

    `gpu_memory` is what one GPU has in all, as the driver states it. Verdict `fits` or `does-not-fit` only where the
    whole range says so; `too-close` where it depends on the working memory; `unknown` where an input is missing.
    """
    measured = measured or Measured()
    missing: list[str] = [f"the memory that {name} takes" for name in serving.beyond if not measured.cache]

    def known(value: Amount | str | None) -> Amount | None:
        if isinstance(value, str):
            missing.append(value)
            return None
        return value

    uneven = indivisible(model, serving.tensor_parallel)
    if uneven:
        missing.append(f"a tensor parallel size that {uneven} can be divided by, unlike {serving.tensor_parallel}")
    total = measured.total or gpu_memory
    if total is None and measured.cache is None:
        missing.append("the GPU's memory")
    held = measured.weights or known(weights(model, serving))
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
    longest_possible = max(context or 0, model.native_context or 0) or 1 << 24
    tokens = _stated_tokens(shape, serving, ends, context, request)
    if measured.tokens is not None:
        tokens = (measured.tokens, measured.tokens)
    longest = (_longest(shape, ends[0], batched, longest_possible), _longest(shape, ends[1], batched, longest_possible))
    concurrency = None
    verdict: Verdict = "unknown"
    if context and request:
        concurrency = (ends[0] / request, ends[1] / request)
        verdict = "fits" if longest[0] >= context else "does-not-fit" if longest[1] < context else "too-close"
    return msgspec.structs.replace(result, tokens=tokens, longest=longest, concurrency=concurrency, verdict=verdict)


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
        if held is None:
            return usable, estimate, None
        return usable, estimate, _less(usable, held, estimate)
    if serving.engine == "sglang":
        if share is None:
            missing.append("mem_fraction_static: SGLang's own value depends on the GPU and the batch")
            return None, None, measured.cache
        # free memory before loading: all but the CUDA context and NCCL
        gpus = serving.tensor_parallel * serving.pipeline_parallel
        context = Amount(low=GIB // 4, high=GIB + (GIB if gpus > 1 else 0), source="estimate: CUDA context and NCCL")
        usable = Amount(
            low=int((total.low - context.high) * share),
            high=int((total.high - context.low) * share),
            source=f"{share:g} of what is free before the weights",
        )
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


def _less(usable: Amount, held: Amount, working: Amount) -> Amount:
    return Amount(
        low=usable.low - held.high - working.high,
        high=usable.high - held.low - working.low,
        source="what is left",
    )


def _longest(shape: Layout, cache: int, batched: int, most: int) -> int:
    """The longest request that a cache of so many bytes holds, at most `most` tokens; 0 for none."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if shape.request(middle, batched) <= cache else (low, middle - 1)
    return low


# -- what would make it fit -------------------------------------------------------------------------------------------


def memory_of(gpu: Gpu) -> Amount:
    """What one GPU of the table has in all, as a program sees it: drivers differ by half a percent."""
    high = gpu.memory * 1005 // 1000 if gpu.measured else gpu.reported << 20
    return Amount(low=gpu.memory, high=max(gpu.memory, high), source=gpu.name)


Kind = Literal["context", "share", "kv-dtype", "tensor", "checkpoint", "gpu"]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One change: what is changed, to which value, in words, and what would then run on which GPU."""

    kind: Kind
    value: str
    summary: str
    model: Architecture
    serving: Serving
    gpu: Gpu


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """A change after which it surely fits, with the budget that it leads to."""

    step: Step
    budget: Budget


def options(model: Architecture, serving: Serving, gpu: Gpu, larger: Sequence[Gpu] = ()) -> list[Option]:
    """Changes that make it fit, the gentlest first: settings, more GPUs, other weights, a larger GPU.

    Of each kind only the smallest step that fits. `larger` are other GPUs, by memory.
    """
    now = budget(model, serving, memory_of(gpu), gpu.name)
    found: dict[Kind, Option] = {}
    for step in _steps(model, serving, now, gpu, larger):
        if step.kind in found:
            continue
        result = budget(step.model, step.serving, memory_of(step.gpu), step.gpu.name)
        if result.verdict == "fits":
            found[step.kind] = Option(step=step, budget=result)
    return list(found.values())


def _steps(model: Architecture, serving: Serving, now: Budget, gpu: Gpu, larger: Sequence[Gpu]) -> Iterator[Step]:
    """Changes, the gentlest kind first, and of each kind the smallest first."""

    def step(kind: Kind, value: object, summary: str, **changes: Any) -> Step:
        shape, card = changes.pop("model", model), changes.pop("gpu", gpu)
        changed = msgspec.structs.replace(serving, **changes)
        return Step(kind=kind, value=str(value), summary=summary, model=shape, serving=changed, gpu=card)

    if now.longest and now.longest[0] >= 1024:
        length = rounded(now.longest[0])
        yield step("context", length, f"cap the context at {length} tokens", max_model_len=length)
    if serving.engine == "vllm":
        for share in (0.92, 0.95):
            if share > (memory_fraction(serving) or 1):
                yield step("share", share, f"raise --gpu-memory-utilization to {share:g}", memory_fraction=share)
    if gpu.fp8 and (serving.kv_cache_dtype or "auto") == "auto":
        yield step("kv-dtype", "fp8", "keep the KV cache in FP8", kv_cache_dtype="fp8")
    for size in (2, 4, 8):  # within one node
        if size > serving.tensor_parallel and not indivisible(model, size):
            yield step("tensor", size, f"spread it over {size} GPUs (tensor parallel)", tensor_parallel=size)
    if model.quantization is None and not serving.quantization:
        for words, method in _CHECKPOINTS:
            if gpu.fp8 or method.method != "fp8":
                other = msgspec.structs.replace(model, quantization=method)
                yield step("checkpoint", method.method, f"take a checkpoint quantized to {words}", model=other)
    for card in larger:
        yield step("gpu", card.name, f"take a GPU with more memory: {card.name}", gpu=card)


_CHECKPOINTS = (
    ("8 bits (FP8)", Quantization(method="fp8", bits=8, parts=LINEAR)),
    ("4 bits (AWQ)", Quantization(method="awq", bits=bits_per_weight("awq", 4, 128), parts=LINEAR, group=128)),
)


def indivisible(model: Architecture, size: int) -> str | None:
    """Why a tensor parallel size cannot be, as `28 attention heads`; None where nothing is known against it."""
    if model.heads and model.heads % size:
        return f"{model.heads} attention heads"
    heads = model.kv_heads
    if heads and not any(c.kind == "latent" for c in model.caches or ()) and heads % size and size % heads:
        return f"{heads} KV heads"
    return None


def rounded(tokens: int) -> int:
    """A length that a person would write: down to a multiple of 1024, or of 16 below that."""
    return tokens // 1024 * 1024 if tokens >= 2048 else tokens // 16 * 16


#: Settings with an effect on memory that is not computed here.
_BEYOND = (
    "speculative_model",
    "speculative_config",
    "speculative_algorithm",
    "enable_dp_attention",
    "decode_context_parallel_size",
    "kv_offloading_size",
    "hf_overrides",
    "num_gpu_blocks_override",
)


def of_settings(name: str, version: str | None, value: Callable[[str], object]) -> Serving:
    """The settings of an engine reader (its common names) as a `Serving`; what is not a number counts as unknown."""

    def number(key: str) -> int | None:
        found = value(key)
        return found if isinstance(found, int) and not isinstance(found, bool) else None

    def text(key: str) -> str | None:
        found = value(key)
        return found if isinstance(found, str) else None

    share = value("gpu_memory_utilization")
    offload = value("cpu_offload_gb")
    return Serving(
        engine=name,
        version=version,
        tensor_parallel=number("tensor_parallel_size") or 1,
        pipeline_parallel=number("pipeline_parallel_size") or 1,
        data_parallel=number("data_parallel_size") or 1,
        max_model_len=number("max_model_len"),
        max_num_seqs=number("max_num_seqs"),
        max_num_batched_tokens=number("max_num_batched_tokens"),
        memory_fraction=float(share) if isinstance(share, int | float) and 0 < share <= 1 else None,
        kv_cache_bytes=number("kv_cache_memory_bytes"),
        dtype=text("dtype"),
        quantization=text("quantization"),
        kv_cache_dtype=text("kv_cache_dtype"),
        block_size=number("block_size"),
        enforce_eager=value("enforce_eager") is True,
        hybrid_cache=value("disable_hybrid_kv_cache_manager") is not True,
        cpu_offload_gib=float(offload) if isinstance(offload, int | float) else 0,
        beyond=tuple(key for key in _BEYOND if value(key) not in (None, False, 1, 0)),
    )
