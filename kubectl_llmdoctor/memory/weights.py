"""What the weights take."""

from __future__ import annotations

import math

from kubectl_llmdoctor.catalog.architecture import DTYPE_BYTES, LINEAR, Architecture, bits_per_weight
from kubectl_llmdoctor.memory.amount import GIB, Amount
from kubectl_llmdoctor.memory.serving import Serving


def weights(model: Architecture, serving: Serving) -> Amount | str:
    """Bytes of the weights on the fullest GPU, or the name of what is missing.

    With tensor parallelism each GPU holds its share of attention, MLP and embeddings; key and value projections are
    copied where there are fewer KV heads than GPUs, norms and routers everywhere. A pipeline's fullest stage counts.
    """
    parts = model.weights
    if parts is None:
        return model.gaps[0] if model.gaps else "the model's configuration"
    full = dtype_bytes(serving.dtype, model.dtype)
    if full is None:
        return "dtype"
    stored = _quantized(model, serving)
    if isinstance(stored, str):
        return stored
    quantization, (quantized, low_bits) = model.quantization, stored
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
    source = f"{parts.total / 1e9:.4g} B parameters"
    if low_bits is not None:
        method = quantization.method if quantization else serving.quantization
        source += f", {low_bits:.3g} bits where {method} applies"
    else:
        source += f" x {full:g} bytes"
    if tensor * stages > 1:
        source += f", over {tensor * stages} GPUs"
    return Amount(low=int(max(held, 0)), high=int(max(held + padded, 0)), source=source)


def _quantized(model: Architecture, serving: Serving) -> tuple[frozenset[str], float | None] | str:
    """Which parts of the weights are quantized, and the bits of each of their parameters; or the name of what is missing."""
    if model.quantization is not None:
        bits = model.quantization.bits
        return (
            (model.quantization.parts, bits)
            if bits is not None
            else f"how {model.quantization.method} stores its weights"
        )
    if not serving.quantization:
        return frozenset(), None
    bits = online_bits(serving.quantization)
    if bits is None:
        return f"a checkpoint quantized with {serving.quantization}"
    return frozenset({"experts"}) if serving.quantization == "experts_int8" else LINEAR, bits


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


def dtype_bytes(asked: str | None, checkpoint: str | None) -> float | None:
    """Bytes of one weight that is not quantized. `auto` never takes more than 16 bits, whatever the checkpoint says."""
    if asked and asked != "auto":
        return DTYPE_BYTES.get(asked)
    width = DTYPE_BYTES.get(checkpoint or "bfloat16")
    return 2 if width == 4 else width


def indivisible(model: Architecture, size: int) -> str | None:
    """Why a tensor parallel size cannot be, as `28 attention heads`; None where nothing is known against it."""
    if model.heads and model.heads % size:
        return f"{model.heads} attention heads"
    heads = model.kv_heads
    if heads and not any(c.kind == "latent" for c in model.caches or ()) and heads % size and size % heads:
        return f"{heads} KV heads"
    return None
