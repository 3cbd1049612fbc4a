"""Layers that keep a state of a fixed size for each sequence, and the models that mix them with attention.

Sources: vLLM 0.32 `model_executor/layers/mamba/mamba_utils.py` for the shapes and data types of states, transformers 5 for
weights.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.catalog.attention import kv_heads_of, latent_layer, plain_layer
from kubectl_llmdoctor.catalog.layer import Config, Family, GapError, Layer


def delta_layer(raw: Config, family: Family, index: int, mlp: str) -> Layer:
    """Qwen3-Next and Qwen3.5: gated delta net in most layers, gated full attention in every n-th."""
    hidden, heads = raw.number("hidden_size"), raw.number("num_attention_heads")
    listed = raw.get("layer_types")
    if isinstance(listed, list) and index < len(listed):
        full = listed[index] == "full_attention"
    else:
        full = (index + 1) % raw.number("full_attention_interval") == 0
    if full:
        head_dim, kv_heads = raw.number("head_dim"), kv_heads_of(raw, family)
        return Layer(
            cache=("full", kv_heads, 2 * head_dim, 0, 0, 0),
            attention=3 * hidden * heads * head_dim,  # queries carry an output gate
            kv=2 * hidden * kv_heads * head_dim,
            plain=2 * hidden,
            mlp=mlp,
        )
    keys = raw.number("linear_num_key_heads") * raw.number("linear_key_head_dim")
    value_heads, value_dim = raw.number("linear_num_value_heads"), raw.number("linear_value_head_dim")
    values = value_heads * value_dim
    width = 2 * keys + values
    kernel = raw.optional("linear_conv_kernel_dim") or 4
    recurrent = 4 if raw.get("mamba_ssm_dtype") == "float32" else 2
    state = width * (kernel - 1) * 2 + value_heads * raw.number("linear_key_head_dim") * value_dim * recurrent
    return Layer(
        cache=("state", value_heads, 0, 0, state, 0),
        attention=hidden * (width + values) + hidden * 2 * value_heads + width * kernel + values * hidden,
        plain=2 * hidden + 2 * value_heads,
        mlp=mlp,
    )


def nemotron_layer(raw: Config, index: int) -> Layer:
    """Nemotron-H: each layer is one of Mamba-2 (M), attention (*), MLP (-) or experts (E)."""
    pattern = nemotron_pattern(raw)
    if index >= len(pattern):
        raise GapError("hybrid_override_pattern")
    hidden = raw.number("hidden_size")
    if pattern[index] == "M":
        heads, dim = raw.number("mamba_num_heads"), raw.number("mamba_head_dim")
        sizes = heads, dim, raw.number("ssm_state_size"), raw.number("n_groups"), raw.number("conv_kernel")
        exact = raw.get("mamba_ssm_cache_dtype") == "float32"
        return msgspec.structs.replace(_mamba2(hidden, heads * dim, *sizes, exact=exact), mlp="none")
    if pattern[index] == "*":
        return msgspec.structs.replace(plain_layer(raw, Family(), index, "none"), plain=hidden)
    if pattern[index] not in "-E":
        raise GapError(f"layer type {pattern[index]}")
    return Layer(cache=None, plain=hidden, mlp="relu2" if pattern[index] == "-" else "moe")


#: The same by the names that transformers 5 writes.
_BLOCKS = {"mamba": "M", "linear_attention": "M", "attention": "*", "full_attention": "*", "mlp": "-", "moe": "E"}


def nemotron_pattern(raw: Config) -> str:
    """One letter for each layer."""
    pattern, listed = raw.get("hybrid_override_pattern"), raw.get("layers_block_type")
    if isinstance(pattern, str):
        return pattern
    if isinstance(listed, list):
        return "".join(_BLOCKS.get(str(name), "?") for name in listed)
    raise GapError("hybrid_override_pattern")


def hybrid_layers(raw: Config, family: Family, index: int, mlp: str) -> Iterator[Layer]:
    """What stands in one layer of the other hybrids; Falcon-H1 has attention and a state side by side."""
    hidden, listed = raw.number("hidden_size"), raw.get("layer_types")
    named = str(listed[index]) if isinstance(listed, list) and index < len(listed) else ""
    recurrent = named in ("mamba", "linear_attention", "conv")
    plain = Config({**raw.raw, "layer_types": None, "sliding_window": None})
    match family.attention:
        case "granite" | "bamba":
            own = raw.get("attn_layer_indices")
            other = family.attention == "bamba" and not named and not (isinstance(own, list) and index in own)
            if recurrent or other:
                sizes = (raw.number(f"mamba_{name}") for name in ("n_heads", "d_head", "d_state", "n_groups", "d_conv"))
                layer = _mamba2(hidden, raw.number("mamba_expand") * hidden, *sizes)
                yield msgspec.structs.replace(layer, plain=layer.plain + hidden, mlp=mlp)
            else:
                yield plain_layer(plain, family, index, mlp)
        case "falcon-h1":
            yield plain_layer(plain, family, index, mlp)
            inner = raw.optional("mamba_d_ssm") or raw.number("mamba_expand") * hidden
            sizes = (raw.number(f"mamba_{name}") for name in ("n_heads", "d_head", "d_state", "n_groups", "d_conv"))
            layer = _mamba2(hidden, inner, *sizes)
            normed = inner if raw.flag("mamba_rms_norm", False) else 0
            yield msgspec.structs.replace(layer, plain=layer.plain - hidden - inner + normed)
        case "jamba":
            if index % (raw.number("attn_layer_period") or 1) == raw.number("attn_layer_offset"):
                yield plain_layer(plain, family, index, mlp)
            else:
                rank = raw.optional("mamba_dt_rank") or -(-hidden // 16)
                size, kernel = raw.number("mamba_d_state"), raw.number("mamba_d_conv")
                layer = _mamba1(hidden, raw.number("mamba_expand") * hidden, rank, size, kernel)
                plain_weights = 2 * hidden + rank + 2 * size
                yield msgspec.structs.replace(layer, plain=plain_weights, mlp=mlp)
        case "lfm2":
            own = raw.get("full_attn_idxs")
            if not recurrent and (named or (isinstance(own, list) and index in own)):
                yield plain_layer(plain, family, index, mlp)
            else:
                kernel = raw.number("conv_L_cache")
                bias = 4 * hidden + hidden if raw.flag("conv_bias", False) else 0
                yield Layer(
                    cache=("state", 1, 0, 0, hidden * (kernel - 1) * 2, 0),
                    attention=4 * hidden * hidden + hidden * kernel,
                    plain=2 * hidden + bias,
                    mlp=mlp,
                )
        case _:
            yield _kimi_layer(raw, index, named, mlp)


def _kimi_layer(raw: Config, index: int, named: str, mlp: str) -> Layer:
    """Kimi Linear: Kimi delta attention in most layers, latent attention in the others; layers are counted from one."""
    linear = raw.get("linear_attn_config")
    own = Config(linear if isinstance(linear, dict) else raw.raw)
    full = own.get("full_attn_layers")
    if named == "full_attention" or (not named and isinstance(full, list) and index + 1 in full):
        return latent_layer(raw, mlp)
    hidden, heads = raw.number("hidden_size"), own.number("num_heads", "linear_num_value_heads")
    dim, kernel = own.number("head_dim", "linear_head_dim"), own.number("short_conv_kernel_size")
    inner = heads * dim
    return Layer(
        cache=("state", heads, 0, 0, 3 * inner * (kernel - 1) * 2 + heads * dim * dim * 4, 0),
        attention=4 * hidden * inner + 3 * inner * kernel + 2 * inner * dim + hidden * heads,
        replicated=2 * hidden * dim,
        plain=2 * hidden + inner + heads + dim,
        mlp=mlp,
    )


def _mamba2(
    hidden: int, inner: int, heads: int, dim: int, size: int, groups: int, kernel: int, *, exact: bool = False
) -> Layer:
    """Mamba-2 with one norm before it; `exact` keeps its state in 32 bits."""
    width = inner + 2 * groups * size
    return Layer(
        cache=("state", heads, 0, 0, width * (kernel - 1) * 2 + heads * dim * size * (4 if exact else 2), 0),
        attention=hidden * (inner + width + heads) + width * (kernel + 1) + inner * hidden,
        plain=hidden + inner + 3 * heads,
        mlp="none",
    )


def _mamba1(hidden: int, inner: int, rank: int, size: int, kernel: int) -> Layer:
    """Mamba, without the norms around it."""
    return Layer(
        cache=("state", inner, 0, 0, inner * (kernel - 1 + size) * 2, 0),
        attention=3 * hidden * inner + inner * (rank + 2 * size) + inner * (rank + 1) + inner * (kernel + 1 + size + 1),
        mlp="none",
    )
