"""Layers of attention by the fields of a config.json: plain, windowed, compressed, and pruned ones."""

from __future__ import annotations

from kubectl_llmdoctor.catalog.layer import Config, Family, GapError, Kind, Layer, divided, multiple


def kv_heads_of(raw: Config, family: Family) -> int:
    """How many heads of keys and values a layer has; as many as of queries where nothing is said."""
    heads = raw.number("num_attention_heads", "n_head", "n_heads")
    if family.attention == "blocks":
        return raw.optional("num_key_value_heads") or heads
    if raw.raw.get("model_type") == "falcon":
        if raw.flag("new_decoder_architecture", False):
            return raw.number("num_kv_heads")
        return 1 if raw.flag("multi_query", True) else heads
    if raw.raw.get("model_type") == "gpt_bigcode":
        return 1 if raw.flag("multi_query", True) else heads
    attention = raw.get("attn_config")
    if isinstance(attention, dict) and isinstance(attention.get("kv_n_heads"), int):  # DBRX
        return int(attention["kv_n_heads"])
    return raw.optional("num_key_value_heads", "multi_query_group_num") or heads


def plain_layer(raw: Config, family: Family, index: int, mlp: str) -> Layer:
    """A layer with queries, keys and values as projections of their own. Raises GapError where a size is missing."""
    hidden = raw.number("hidden_size", "n_embd", "d_model")
    heads = raw.number("num_attention_heads", "n_head", "n_heads")
    kv_heads = kv_heads_of(raw, family)
    kind, window = attention_kind(raw, family, index)
    head_dim = raw.optional("head_dim", "attention_head_dim", "kv_channels") or divided(hidden, heads)
    values = 2 * head_dim
    shared_kv = False
    if family.attention == "gemma4" and kind == "full":
        head_dim = raw.number("global_head_dim")
        kv_heads = raw.optional("num_global_key_value_heads") or kv_heads
        shared_kv = raw.flag("attention_k_eq_v", False)
        values = 2 * head_dim
    bias = 1 if raw.flag("attention_bias", False) or family.qkv_bias else 0
    return Layer(
        cache=None if family.encoder_only else (kind, kv_heads, values, window, 0, 0),
        attention=2 * hidden * heads * head_dim + bias * heads * head_dim,
        kv=(1 if shared_kv else 2) * (hidden + bias) * kv_heads * head_dim,
        plain=2 * hidden,
        mlp=mlp,
    )


def attention_kind(raw: Config, family: Family, index: int) -> tuple[Kind, int]:
    """Whether a layer looks at everything, at a window or at a chunk, and how far."""
    window = raw.optional("sliding_window") or 0
    listed = raw.get("layer_types")
    if isinstance(listed, list):
        if index >= len(listed):
            raise GapError("layer_types")
        name = str(listed[index])
        if name == "full_attention":
            return "full", 0
        if name == "sliding_attention":
            return "window", window or raw.number("sliding_window")
        if name == "chunked_attention":
            return "chunked", raw.number("attention_chunk_size")
        raise GapError(f"layer type {name}")
    if family.attention == "llama4":
        flat = raw.get("no_rope_layers")
        step = raw.optional("no_rope_layer_interval") or 4
        full = flat[index] == 0 if isinstance(flat, list) and index < len(flat) else (index + 1) % step == 0
        return ("full", 0) if full else ("chunked", raw.number("attention_chunk_size"))
    if family.attention == "gemma4":
        raise GapError("layer_types")
    if family.attention == "alternate":
        return ("window", raw.number("sliding_window")) if index % 2 == 0 else ("full", 0)
    if family.attention in ("every-6th-full", "every-4th-full"):
        step = raw.optional("sliding_window_pattern", "_sliding_window_pattern") or int(family.attention[6])
        return ("full", 0) if (index + 1) % step == 0 else ("window", raw.number("sliding_window"))
    if not window or raw.raw.get("use_sliding_window") is False:
        return "full", 0
    if raw.raw.get("use_sliding_window") is True and (first := raw.optional("max_window_layers")) is not None:
        return ("full", 0) if index < first else ("window", window)
    context = raw.optional("max_position_embeddings") or 0
    return ("window", window) if window < context else ("full", 0)


def latent_layer(raw: Config, mlp: str) -> Layer:
    """Multi-head latent attention: one compressed vector for each token, whatever the number of heads."""
    hidden, heads = raw.number("hidden_size"), raw.number("num_attention_heads")
    rank, rope = raw.number("kv_lora_rank"), raw.number("qk_rope_head_dim")
    nope, value = raw.number("qk_nope_head_dim"), raw.number("v_head_dim")
    query = heads * (nope + rope)
    low = raw.optional("q_lora_rank")
    replicated = hidden * (rank + rope) + (hidden * low if low else 0)
    index_dim = raw.optional("index_head_dim") or 0
    if index_dim:  # the indexer's key of each token: FP8 with one scale of 4 bytes per 128 values
        replicated += (low or hidden) * raw.number("index_n_heads") * index_dim + hidden * index_dim
    return Layer(
        cache=("latent", 1, rank + rope, 0, 0, index_dim + 4 * (index_dim // 128) if index_dim else 0),
        attention=(low or hidden) * query + rank * heads * (nope + value) + heads * value * hidden,
        replicated=replicated,
        plain=2 * hidden + rank + (low or 0),
        mlp=mlp,
    )


def block_layer(raw: Config, index: int) -> Layer:
    """Pruned Llama (DeciLM): each layer says for itself whether it has attention, and how wide its MLP is."""
    blocks = raw.get("block_configs")
    block = blocks[index] if isinstance(blocks, list) and index < len(blocks) else None
    if not isinstance(block, dict) or not isinstance(block.get("attention"), dict):
        raise GapError("block_configs")
    attention, ffn = block["attention"], block.get("ffn") or {}
    hidden, heads = raw.number("hidden_size"), raw.number("num_attention_heads")
    head_dim = divided(hidden, heads)
    width = multiple(int(2 * float(ffn.get("ffn_mult") or 0) * hidden / 3), 256)
    mlp = f"width {0 if ffn.get('no_op') else width}"
    if attention.get("no_op") or attention.get("replace_with_linear"):
        linear = hidden * hidden if attention.get("replace_with_linear") else 0
        return Layer(cache=None, attention=linear, plain=2 * hidden, mlp=mlp)
    group = attention.get("n_heads_in_group")
    if not isinstance(group, int) or group < 1:
        raise GapError("n_heads_in_group")
    kv_heads = heads // group
    return Layer(
        cache=("full", kv_heads, 2 * head_dim, 0, 0, 0),
        attention=2 * hidden * heads * head_dim,
        kv=2 * hidden * kv_heads * head_dim,
        plain=2 * hidden,
        mlp=mlp,
    )


def mimo_layer(raw: Config, index: int, mlp: str) -> Layer:
    """MiMo-V2: layers with a window have other heads than the rest; keys are wider than values."""
    pattern = raw.get("hybrid_layer_pattern")
    if not isinstance(pattern, list) or index >= len(pattern):
        raise GapError("hybrid_layer_pattern")
    prefix, window = ("swa_", raw.number("sliding_window_size", "sliding_window")) if pattern[index] else ("", 0)
    hidden, heads = raw.number("hidden_size"), raw.number(f"{prefix}num_attention_heads")
    fewer, key = raw.number(f"{prefix}num_key_value_heads"), raw.number(f"{prefix}head_dim")
    value = raw.optional(f"{prefix}v_head_dim") or key
    return Layer(
        cache=("window" if window else "full", fewer, key + value, window, 0, 0),
        attention=hidden * heads * (key + value),
        kv=hidden * fewer * (key + value),
        plain=2 * hidden,
        mlp=mlp,
    )
