"""The settings of an engine that decide memory, and what it takes where nobody sets them."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from kubectl_llmdoctor.engines.version import at_least
from kubectl_llmdoctor.memory.amount import GIB


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


#: Settings with an effect on memory that is not computed here.
_BEYOND = (
    "speculative_model", "speculative_config", "speculative_algorithm", "enable_dp_attention",
    "decode_context_parallel_size", "kv_offloading_size", "hf_overrides", "num_gpu_blocks_override",
)  # fmt: skip


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
