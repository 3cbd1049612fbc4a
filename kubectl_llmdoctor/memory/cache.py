"""How the KV cache is laid out, and what a request takes of it."""

from __future__ import annotations

import math

import msgspec

from kubectl_llmdoctor.catalog.architecture import DTYPE_BYTES, Architecture, Cache
from kubectl_llmdoctor.engines.version import at_least
from kubectl_llmdoctor.memory.serving import Serving
from kubectl_llmdoctor.memory.weights import dtype_bytes


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
        return dtype_bytes(serving.dtype, model.dtype)
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
    caches, width = model.caches, kv_bytes(model, serving)
    missing = _missing(model, serving, width)
    if missing or not caches or width is None:
        return missing
    block = serving.block_size or (64 if caches[0].kind == "latent" else 16)
    per_layer: list[tuple[Cache, int, float]] = []
    for cache in caches:
        one = cache.bytes_per_token(width, serving.tensor_parallel) / cache.layers
        per_layer.append((cache, math.ceil(cache.layers / serving.pipeline_parallel), one))
    attention = [entry for entry in per_layer if entry[0].kind != "state"]
    states = [cache for cache, _, _ in per_layer if cache.kind == "state"]
    hybrid = serving.hybrid_cache and serving.engine == "vllm" and at_least(serving.version, "0.10.0") is not False
    kinds = {cache.kind for cache, _, _ in attention}
    if not states and (len(attention) == 1 or not hybrid or kinds == {"full"}):
        page = sum(layers * round(one * block) for _, layers, one in attention)
        window = attention[0][0].window if len(attention) == 1 else 0
        kind = attention[0][0].kind if len(attention) == 1 else "full"
        return Layout(page=page, pools=1, groups=((kind, window, block),), block=block)
    if states and not hybrid:
        return f"how {serving.engine} stores the state of {model.name}"
    if states:
        # the attention block grows until its page holds one state
        largest = max(cache.state for cache in states) / serving.tensor_parallel
        step = _step(serving, latent=kinds == {"latent"})
        block = max(block, math.ceil(largest / max(one for _, _, one in attention) / step) * step)
    return _paged(per_layer, block, serving)


def _missing(model: Architecture, serving: Serving, width: float | None) -> str:
    """What must be known of a model, or be so, for its cache to have a layout; empty where it has one."""
    if model.caches is None:
        return model.gaps[0] if model.gaps else "the model's configuration"
    if width is None:
        if model.quantization is not None and model.quantization.fp8_cache and not serving.kv_cache_dtype:
            return "kv_cache_dtype: the checkpoint has scales for FP8, which newer engines use by themselves"
        return "kv_cache_dtype" if serving.kv_cache_dtype else "dtype"
    if not model.caches:
        return "a KV cache: this model is an encoder"
    if serving.pipeline_parallel > 1 and len(model.caches) > 1:
        return "how the layers of a hybrid model fall on pipeline stages"
    return "a model with attention layers" if all(cache.kind == "state" for cache in model.caches) else ""


def _step(serving: Serving, *, latent: bool) -> int:
    """By how many tokens a block grows; the kernels of compressed attention take larger ones."""
    if not latent:
        return 16
    return 64 if at_least(serving.version, "0.20.0") is False else 128


def _paged(per_layer: list[tuple[Cache, int, float]], block: int, serving: Serving) -> Layout | str:
    """Layers that are not alike, in pages of one size: each cache with its layers on a GPU, and the bytes of a token in one of them."""
    page = max(round(one * block) for cache, _, one in per_layer if cache.kind != "state")
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
