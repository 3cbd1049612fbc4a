"""What a model's config.json says about memory: its weights by part, and what each layer keeps in the KV cache.

Read from the Hugging Face configuration, by the rules of the models' own code (`transformers`, and vLLM's
`model_executor/models`). A class that is not listed here is unknown: nothing is derived for it, since a layer that
keeps its cache differently would make every number wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

#: Bytes of one value by the names that configurations, flags and logs use.
DTYPE_BYTES: Mapping[str, float] = {
    "float32": 4,
    "float": 4,
    "bfloat16": 2,
    "float16": 2,
    "half": 2,
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
    "fp8_e4m3fn": 1,
    "int8": 1,
}

Kind = Literal["full", "window", "chunked", "latent", "state"]


class Cache(msgspec.Struct, frozen=True, kw_only=True):
    """Layers that keep their cache alike.

    `values` is how many numbers one KV head of one layer keeps for one token (keys and values); for `latent` (MLA) the
    compressed vector, which every GPU of a tensor parallel group holds whole. `window` is how many tokens a `window`
    or `chunked` layer looks back. `state` is a `state` layer's fixed size per sequence in bytes (Mamba, linear
    attention), which does not grow with the context. `extra` is further bytes per token and layer, whatever the
    cache's data type (the indexer of sparse attention).
    """

    kind: Kind
    layers: int
    heads: int = 1
    values: int = 0
    window: int = 0
    state: int = 0
    extra: int = 0

    def bytes_per_token(self, kv_bytes: float, tensor_parallel: int = 1) -> float:
        """Bytes of one token in all these layers, on one GPU of a tensor parallel group; 0 for `state` layers."""
        heads = 1 if self.kind == "latent" else max(1, -(-self.heads // tensor_parallel))
        return self.layers * (heads * self.values * kv_bytes + self.extra) if self.kind != "state" else 0


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """How many parameters a model has, by the way in which they are sharded and quantized.

    `attention` and `mlp` divide by the tensor parallel size; `kv` (key and value projections) only down to one KV head;
    `replicated` not at all, but can be quantized; `experts` by tensor (or expert) parallel size; `plain` (norms,
    routers, biases) is neither divided nor quantized; `vision` is the encoder of a multimodal model.
    """

    attention: int = 0
    kv: int = 0
    replicated: int = 0
    mlp: int = 0
    shared: int = 0
    experts: int = 0
    plain: int = 0
    embedding: int = 0
    head: int = 0
    vision: int = 0

    @property
    def total(self) -> int:
        """All parameters that a checkpoint holds."""
        return sum(getattr(self, name) for name in self.__struct_fields__)


class Quantization(msgspec.Struct, frozen=True, kw_only=True):
    """How a checkpoint is quantized: `bits` per weight with scales and zero points, None where that is not known;
    `parts` are the parts of `Weights` that are quantized; `group` the group or block size along the input, 0 for none.
    `spread` is how many bits more it may be, where only the checkpoint's name says how it was quantized. `fp8_cache`
    says that the checkpoint brings scales for an FP8 KV cache, which newer engines then use on their own.
    """

    method: str
    bits: float | None
    parts: frozenset[str]
    group: int = 0
    spread: float = 0
    fp8_cache: bool = False


class Architecture(msgspec.Struct, frozen=True, kw_only=True):
    """What decides a model's memory. `weights` and `caches` are None where `gaps` says what is missing for them.

    `native_context` is in tokens, what applies when nothing is set, and `longest_context` what may be set, both as vLLM
    derives them from the configuration; sizes are those of the text model.
    """

    name: str
    layers: int = 0
    hidden_size: int = 0
    heads: int = 0
    kv_heads: int = 0
    intermediate_size: int = 0
    moe_intermediate_size: int = 0
    vocab_size: int = 0
    experts: int = 0
    native_context: int | None = None
    longest_context: int | None = None
    dtype: str | None = None
    quantization: Quantization | None = None
    weights: Weights | None = None
    caches: tuple[Cache, ...] | None = None
    encoder_only: bool = False
    multimodal: bool = False
    gaps: tuple[str, ...] = ()


class _GapError(Exception):
    """An input that the configuration does not have, by its name there."""


class _Config:
    """A configuration with checked access: a number that is missing or absurd is a gap, not a zero."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.raw = raw

    def get(self, *names: str) -> Any:
        return next((self.raw[name] for name in names if self.raw.get(name) is not None), None)

    def number(self, *names: str) -> int:
        value = self.optional(*names)
        if value is None:
            raise _GapError(names[0])
        return value

    def optional(self, *names: str) -> int | None:
        value = self.get(*names)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
            return None
        return int(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.raw.get(name)
        return value if isinstance(value, bool) else default


class _Family(msgspec.Struct, frozen=True):
    """What the fields of a class mean: matrices of one MLP, biases, whether embeddings are tied by default, and the
    attention of its layers: `plain`, `mla`, or a pattern that the class has of its own.
    """

    mlp: int = 3
    qkv_bias: bool = False
    tied: bool = False
    attention: str = "plain"
    encoder_only: bool = False


_PLAIN = _Family()

#: Classes by what their fields mean; as written in `architectures` of config.json.
_CLASSES: tuple[tuple[_Family, str], ...] = (
    (
        _PLAIN,
        "LlamaForCausalLM MistralForCausalLM Qwen3ForCausalLM Phi3ForCausalLM OlmoForCausalLM Olmo2ForCausalLM "
        "Olmo3ForCausalLM InternLMForCausalLM InternLM2ForCausalLM InternLM3ForCausalLM GlmForCausalLM "
        "Glm4ForCausalLM ExaoneForCausalLM Exaone4ForCausalLM BaichuanForCausalLM BaiChuanForCausalLM "
        "MixtralForCausalLM Qwen3MoeForCausalLM Glm4MoeForCausalLM DbrxForCausalLM MiniMaxM2ForCausalLM "
        "OlmoeForCausalLM PhiMoEForCausalLM StableLmForCausalLM MistralModel LlamaModel "
        "Mistral3ForConditionalGeneration LlavaForConditionalGeneration "
        "Qwen3VLForConditionalGeneration Qwen3VLMoeForConditionalGeneration",
    ),
    (
        _Family(tied=True),
        "GemmaForCausalLM CohereForCausalLM GraniteForCausalLM GraniteMoeForCausalLM SmolLM3ForCausalLM "
        "Ernie4_5ForCausalLM Ernie4_5_MoeForCausalLM Qwen3Model",
    ),
    (
        _Family(qkv_bias=True),
        "Qwen2ForCausalLM Qwen2MoeForCausalLM Qwen2VLForConditionalGeneration Qwen2_5_VLForConditionalGeneration "
        "MiMoForCausalLM SeedOssForCausalLM",
    ),
    (
        _Family(attention="mla"),
        "DeepseekV2ForCausalLM DeepseekV3ForCausalLM DeepseekV32ForCausalLM KimiK2ForCausalLM "
        "KimiK25ForConditionalGeneration GlmMoeDsaForCausalLM Glm4MoeLiteForCausalLM MistralLarge3ForCausalLM",
    ),
    (_Family(tied=True, attention="alternate"), "Gemma2ForCausalLM"),
    (_Family(tied=True, attention="every-6th-full"), "Gemma3ForCausalLM Gemma3ForConditionalGeneration"),
    (_Family(tied=True, attention="gemma4"), "Gemma4ForConditionalGeneration Gemma4ForCausalLM"),
    (_Family(tied=True, attention="every-4th-full"), "Cohere2ForCausalLM"),
    (_Family(qkv_bias=True, attention="alternate"), "GptOssForCausalLM"),
    (_Family(attention="llama4"), "Llama4ForConditionalGeneration Llama4ForCausalLM"),
    (
        _Family(attention="delta"),
        "Qwen3NextForCausalLM Qwen3_5ForCausalLM Qwen3_5MoeForCausalLM Qwen3_5ForConditionalGeneration "
        "Qwen3_5MoeForConditionalGeneration",
    ),
    (_Family(attention="nemotron-h"), "NemotronHForCausalLM"),
    (_Family(attention="blocks"), "DeciLMForCausalLM"),
    (_Family(mlp=2), "NemotronForCausalLM"),
    (_Family(mlp=2, qkv_bias=True), "PhiForCausalLM GPTNeoXForCausalLM"),
    (
        _Family(mlp=2, qkv_bias=True, tied=True),
        "Starcoder2ForCausalLM OPTForCausalLM GPT2LMHeadModel GPTBigCodeForCausalLM",
    ),
    (_Family(mlp=2, tied=True), "FalconForCausalLM"),
    (
        _Family(mlp=2, qkv_bias=True, encoder_only=True),
        "BertModel XLMRobertaModel RobertaModel BertForSequenceClassification",
    ),
)
_FAMILIES = {name: family for family, names in _CLASSES for name in names.split()}


def of_config(config: Mapping[str, Any], parameters: int | None = None) -> Architecture:
    """The architecture that a config.json describes. Never raises for a mapping; what is missing becomes a gap.

    `parameters` is how many the checkpoint has in all, where that is stated: what the text model does not account for
    is then the vision encoder's.
    """
    names = config.get("architectures")
    name = str(names[0]) if isinstance(names, list) and names else ""
    text = _text_part(config)
    raw = _Config(text)
    dtype = raw.get("torch_dtype", "dtype")
    base: dict[str, Any] = {
        "name": name,
        "layers": raw.optional("num_hidden_layers", "n_layer", "n_layers", "num_layers") or 0,
        "hidden_size": raw.optional("hidden_size", "n_embd", "d_model") or 0,
        "heads": raw.optional("num_attention_heads", "n_head", "n_heads") or 0,
        "intermediate_size": raw.optional("intermediate_size", "ffn_dim", "n_inner") or 0,
        "moe_intermediate_size": raw.optional("moe_intermediate_size", "expert_ffn_hidden_size") or 0,
        "vocab_size": raw.optional("vocab_size", "padded_vocab_size") or 0,
        "experts": raw.optional("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts") or 0,
        "native_context": native_context(text),
        "longest_context": longest_context(text),
        "dtype": str(dtype).removeprefix("torch.") if isinstance(dtype, str) else None,
        "multimodal": isinstance(config.get("vision_config"), dict),
    }
    family = _FAMILIES.get(name)
    if family is None:
        unknown = f"the architecture {name}" if name else "architectures"
        return Architecture(**base, gaps=(unknown,), quantization=_quantization(config, text))
    gaps: list[str] = []
    weights: Weights | None = None
    caches: tuple[Cache, ...] | None = None
    shapes: list[_Layer] = []
    try:
        base["kv_heads"] = _kv_heads(raw, family)
        shapes = list(_layers(raw, family))
        caches = () if family.encoder_only else _caches(shapes)
    except _GapError as gap:
        gaps.append(str(gap))
    if shapes:
        try:
            weights = _weights(raw, family, shapes, config, parameters)
        except _GapError as gap:
            gaps.append(str(gap))
    return Architecture(
        **base,
        weights=weights,
        caches=caches,
        encoder_only=family.encoder_only,
        quantization=_quantization(config, text),
        gaps=tuple(dict.fromkeys(gaps)),
    )


def _text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The text model's fields, with those of the whole where it has none."""
    for name in ("text_config", "llm_config", "language_config"):
        part = config.get(name)
        if isinstance(part, dict):
            return {**config, **{key: value for key, value in part.items() if value is not None}}
    return config


def native_context(text: Mapping[str, Any]) -> int | None:
    """The longest context that a configuration allows, in tokens, as vLLM derives it without the tokenizer.

    The least of the fields that state a length; RoPE scaling by `factor` counts unless its type says that the field
    already has it (`_get_and_verify_max_len` in vLLM's config).
    """
    raw = _Config(text)
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length")
    stated = [value for name in names if (value := raw.optional(name))]
    if not stated:
        return None
    length = min(stated)
    scaling = text.get("rope_scaling") or text.get("rope_parameters")
    if not isinstance(scaling, dict) or str(text.get("model_type")).startswith("gemma3"):
        return length
    kind = scaling.get("rope_type") or scaling.get("type")
    if str(text.get("model_type")).startswith("gemma3"):  # its factor is in the field already
        return length
    factor = scaling.get("factor")
    if kind == "longrope" or kind == "su":
        return raw.optional("original_max_position_embeddings") or length
    if kind in ("linear", "dynamic") and isinstance(factor, int | float) and not isinstance(factor, bool):
        return int(length * factor)
    if kind == "yarn" and isinstance(factor, int | float) and not isinstance(factor, bool):
        original = scaling.get("original_max_position_embeddings")
        return max(length, int(original * factor)) if isinstance(original, int) else length
    return length


def longest_context(text: Mapping[str, Any]) -> int | None:
    """The longest context that may be asked for: with `longrope` the whole length, which is not the default."""
    native = native_context(text)
    stated = _Config(text).optional("max_position_embeddings")
    return max(native, stated) if native and stated else native


class _Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One decoder layer: what its attention keeps, its parameters, and whether its MLP is `dense`, `moe` or none."""

    cache: tuple[Kind, int, int, int, int, int] | None  # kind, heads, values, window, state, extra
    attention: int = 0
    kv: int = 0
    replicated: int = 0
    plain: int = 0
    mlp: str = "dense"


def _kv_heads(raw: _Config, family: _Family) -> int:
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


def _layers(raw: _Config, family: _Family) -> Iterator[_Layer]:
    """The layers of the text model, in order."""
    count = raw.number("num_hidden_layers", "n_layer", "n_layers", "num_layers")
    if not 0 < count <= 1000:
        raise _GapError("num_hidden_layers")
    for index in range(count):
        mlp = _mlp_kind(raw, index)
        match family.attention:
            case "mla":
                yield _latent_layer(raw, mlp)
            case "delta":
                yield _delta_layer(raw, family, index, mlp)
            case "nemotron-h":
                yield _nemotron_layer(raw, index)
            case "blocks":
                yield _block_layer(raw, index)
            case _:
                layer = _plain_layer(raw, family, index, mlp)
                # the last layers of small Gemmas use the cache of an earlier one
                shared = index >= count - (raw.optional("num_kv_shared_layers") or 0)
                yield msgspec.structs.replace(layer, cache=None) if shared else layer


def _plain_layer(raw: _Config, family: _Family, index: int, mlp: str) -> _Layer:
    hidden, heads = (
        raw.number("hidden_size", "n_embd", "d_model"),
        raw.number("num_attention_heads", "n_head", "n_heads"),
    )
    kv_heads = _kv_heads(raw, family)
    kind, window = _attention_kind(raw, family, index)
    head_dim = raw.optional("head_dim", "attention_head_dim", "kv_channels") or _divided(hidden, heads)
    values = 2 * head_dim
    shared_kv = False
    if family.attention == "gemma4" and kind == "full":
        head_dim = raw.number("global_head_dim")
        kv_heads = raw.optional("num_global_key_value_heads") or kv_heads
        shared_kv = raw.flag("attention_k_eq_v", False)
        values = 2 * head_dim
    bias = 1 if raw.flag("attention_bias", False) or family.qkv_bias else 0
    return _Layer(
        cache=None if family.encoder_only else (kind, kv_heads, values, window, 0, 0),
        attention=2 * hidden * heads * head_dim + bias * heads * head_dim,
        kv=(1 if shared_kv else 2) * (hidden + bias) * kv_heads * head_dim,
        plain=2 * hidden,
        mlp=mlp,
    )


def _attention_kind(raw: _Config, family: _Family, index: int) -> tuple[Kind, int]:
    """Whether a layer looks at everything, at a window or at a chunk, and how far."""
    window = raw.optional("sliding_window") or 0
    listed = raw.get("layer_types")
    if isinstance(listed, list):
        if index >= len(listed):
            raise _GapError("layer_types")
        name = str(listed[index])
        if name == "full_attention":
            return "full", 0
        if name == "sliding_attention":
            return "window", window or raw.number("sliding_window")
        if name == "chunked_attention":
            return "chunked", raw.number("attention_chunk_size")
        raise _GapError(f"layer type {name}")
    if family.attention == "llama4":
        flat = raw.get("no_rope_layers")
        step = raw.optional("no_rope_layer_interval") or 4
        full = flat[index] == 0 if isinstance(flat, list) and index < len(flat) else (index + 1) % step == 0
        return ("full", 0) if full else ("chunked", raw.number("attention_chunk_size"))
    if family.attention == "gemma4":
        raise _GapError("layer_types")
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


def _latent_layer(raw: _Config, mlp: str) -> _Layer:
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
    return _Layer(
        cache=("latent", 1, rank + rope, 0, 0, index_dim + 4 * (index_dim // 128) if index_dim else 0),
        attention=(low or hidden) * query + rank * heads * (nope + value) + heads * value * hidden,
        replicated=replicated,
        plain=2 * hidden + rank + (low or 0),
        mlp=mlp,
    )


def _delta_layer(raw: _Config, family: _Family, index: int, mlp: str) -> _Layer:
    """Qwen3-Next and Qwen3.5: gated delta net in most layers, gated full attention in every n-th."""
    hidden, heads = raw.number("hidden_size"), raw.number("num_attention_heads")
    listed = raw.get("layer_types")
    if isinstance(listed, list) and index < len(listed):
        full = listed[index] == "full_attention"
    else:
        full = (index + 1) % raw.number("full_attention_interval") == 0
    if full:
        head_dim, kv_heads = raw.number("head_dim"), _kv_heads(raw, family)
        return _Layer(
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
    return _Layer(
        cache=("state", value_heads, 0, 0, state, 0),
        attention=hidden * (width + values) + hidden * 2 * value_heads + width * kernel + values * hidden,
        plain=2 * hidden + 2 * value_heads,
        mlp=mlp,
    )


def _nemotron_layer(raw: _Config, index: int) -> _Layer:
    """Nemotron-H: each layer is one of Mamba-2 (M), attention (*), MLP (-) or experts (E)."""
    pattern = raw.get("hybrid_override_pattern")
    if not isinstance(pattern, str) or index >= len(pattern):
        raise _GapError("hybrid_override_pattern")
    hidden = raw.number("hidden_size")
    if pattern[index] == "M":
        heads, dim = raw.number("mamba_num_heads"), raw.number("mamba_head_dim")
        size, groups, kernel = raw.number("ssm_state_size"), raw.number("n_groups"), raw.number("conv_kernel")
        inner = heads * dim
        width = inner + 2 * groups * size
        state = width * (kernel - 1) * 2 + heads * dim * size * (
            4 if raw.get("mamba_ssm_cache_dtype") == "float32" else 2
        )
        return _Layer(
            cache=("state", heads, 0, 0, state, 0),
            attention=hidden * (inner + width + heads) + width * kernel + inner * hidden,
            plain=hidden + inner + 3 * heads,
            mlp="none",
        )
    if pattern[index] == "*":
        layer = _plain_layer(raw, _PLAIN, index, "none")
        return msgspec.structs.replace(layer, plain=hidden)
    if pattern[index] not in "-E":
        raise _GapError(f"layer type {pattern[index]}")
    return _Layer(cache=None, plain=hidden, mlp="relu2" if pattern[index] == "-" else "moe")


def _block_layer(raw: _Config, index: int) -> _Layer:
    """Pruned Llama (DeciLM): each layer says for itself whether it has attention, and how wide its MLP is."""
    blocks = raw.get("block_configs")
    block = blocks[index] if isinstance(blocks, list) and index < len(blocks) else None
    if not isinstance(block, dict) or not isinstance(block.get("attention"), dict):
        raise _GapError("block_configs")
    attention, ffn = block["attention"], block.get("ffn") or {}
    hidden, heads = raw.number("hidden_size"), raw.number("num_attention_heads")
    head_dim = _divided(hidden, heads)
    width = _multiple(int(2 * float(ffn.get("ffn_mult") or 0) * hidden / 3), 256)
    mlp = f"width {0 if ffn.get('no_op') else width}"
    if attention.get("no_op") or attention.get("replace_with_linear"):
        linear = hidden * hidden if attention.get("replace_with_linear") else 0
        return _Layer(cache=None, attention=linear, plain=2 * hidden, mlp=mlp)
    group = attention.get("n_heads_in_group")
    if not isinstance(group, int) or group < 1:
        raise _GapError("n_heads_in_group")
    kv_heads = heads // group
    return _Layer(
        cache=("full", kv_heads, 2 * head_dim, 0, 0, 0),
        attention=2 * hidden * heads * head_dim,
        kv=2 * hidden * kv_heads * head_dim,
        plain=2 * hidden,
        mlp=mlp,
    )


def _mlp_kind(raw: _Config, index: int) -> str:
    """`moe` or `dense`: which layers have experts."""
    if not raw.optional("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"):
        ffn = raw.get("ffn_config")
        return "moe" if isinstance(ffn, dict) and ffn.get("moe_num_experts") else "dense"
    dense_first = raw.optional("first_k_dense_replace", "moe_layer_start_index") or 0
    if index < dense_first:
        return "dense"
    only = raw.get("mlp_only_layers")
    if isinstance(only, list) and index in only:
        return "dense"
    step = raw.optional("decoder_sparse_step", "interleave_moe_layer_step") or 1
    if step > 1 and (index + 1) % step:
        return "dense"
    return "moe"


def _caches(shapes: Sequence[_Layer]) -> tuple[Cache, ...]:
    """The layers grouped by what they keep, in the order in which they first appear."""
    counted = Counter(layer.cache for layer in shapes if layer.cache)
    return tuple(
        Cache(kind=kind, layers=layers, heads=heads, values=values, window=window, state=state, extra=extra)
        for (kind, heads, values, window, state, extra), layers in counted.items()
    )


def _weights(
    raw: _Config,
    family: _Family,
    shapes: Sequence[_Layer],
    config: Mapping[str, Any],
    parameters: int | None,
) -> Weights:
    """The parameters of all layers, the embeddings and the vision encoder."""
    hidden, vocab = raw.number("hidden_size", "n_embd", "d_model"), raw.number("vocab_size", "padded_vocab_size")
    mlp = shared = experts = plain = 0
    for layer in shapes:
        plain += layer.plain
        if layer.mlp == "moe":
            one_shared, routed, router = _experts(raw, hidden)
            shared, experts, plain = shared + one_shared, experts + routed, plain + router
        elif layer.mlp.startswith("width"):
            mlp += 3 * hidden * int(layer.mlp.split()[1])
        elif layer.mlp == "relu2":
            mlp += 2 * hidden * raw.number("intermediate_size")
        elif layer.mlp == "dense":
            mlp += family.mlp * hidden * _width(raw, hidden)
    if raw.get("enable_moe_block"):  # Gemma 4: a dense MLP beside the experts of each layer
        mlp += len(shapes) * 3 * hidden * raw.number("intermediate_size")
    if raw.optional("hidden_size_per_layer_input"):
        raise _GapError("the size of per-layer embeddings")
    tied = config.get("tie_word_embeddings", raw.raw.get("tie_word_embeddings"))
    tied = family.tied if not isinstance(tied, bool) else tied
    positions = raw.optional("n_positions") or 0 if raw.raw.get("model_type") in ("gpt2", "gpt_bigcode") else 0
    if family.encoder_only or raw.raw.get("model_type") == "opt":
        positions = raw.optional("max_position_embeddings") or 0
    text = Weights(
        attention=sum(layer.attention for layer in shapes),
        kv=sum(layer.kv for layer in shapes),
        replicated=sum(layer.replicated for layer in shapes),
        mlp=mlp,
        shared=shared,
        experts=experts,
        plain=plain + hidden,
        embedding=(vocab + positions) * hidden,
        head=0
        if tied or family.encoder_only or str(config.get("architectures")).endswith("Model']")
        else vocab * hidden,
    )
    if not str(config.get("architectures")).endswith("ForConditionalGeneration']"):
        return text
    if isinstance(config.get("vision_config"), dict):
        vision = _vision(config)
    elif parameters and parameters > text.total:
        vision = parameters - text.total
    else:
        raise _GapError("vision_config")
    return msgspec.structs.replace(text, vision=vision)


def _experts(raw: _Config, hidden: int) -> tuple[int, int, int]:
    """Parameters of one layer's shared experts, routed experts, and router."""
    ffn = raw.get("ffn_config")
    if isinstance(ffn, dict):  # DBRX
        count, width = _Config(ffn).number("moe_num_experts"), _Config(ffn).number("ffn_hidden_size")
        return 0, count * 3 * hidden * width, count * hidden
    count = raw.number("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    width = raw.optional("moe_intermediate_size") or raw.number("intermediate_size")
    if raw.raw.get("model_type") == "nemotron_h":  # no gate: two matrices
        shared_width = raw.optional("moe_shared_expert_intermediate_size") or 0
        latent = raw.optional("moe_latent_size")
        inner = latent or hidden
        through = 2 * hidden * latent if latent else 0
        return 2 * hidden * shared_width + through, count * 2 * inner * width, count * hidden
    shared_width = raw.optional("shared_expert_intermediate_size") or 0
    if not shared_width:
        shared_width = (raw.optional("n_shared_experts", "moe_num_shared_experts") or 0) * width
    if raw.raw.get("model_type") in ("llama4", "llama4_text"):
        shared_width = width
    router = count * hidden
    if raw.raw.get("model_type") == "gpt_oss":
        router += count * (2 * width + hidden) + count  # biases
    return 3 * hidden * shared_width, count * 3 * hidden * width, router


def _width(raw: _Config, hidden: int) -> int:
    width = raw.optional("intermediate_size_mlp", "intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")
    if width:
        return width
    if raw.raw.get("model_type") in ("gpt2", "gpt_bigcode", "falcon", "phi-msft"):  # None means four times as wide
        return 4 * hidden
    raise _GapError("intermediate_size")


def _vision(config: Mapping[str, Any]) -> int:
    """Parameters of the vision encoder: its layers, and what merges its patches for the text model."""
    part = config["vision_config"]
    raw = _Config(part)
    if isinstance(raw.get("model_args"), dict):
        raise _GapError("vision_config")
    width = raw.number("embed_dim", "hidden_size", "vt_hidden_size")
    layers = raw.number("depth", "num_hidden_layers", "vt_num_hidden_layers")
    inner = raw.optional("intermediate_size", "vt_intermediate_size") or 4 * width
    model_type = str(part.get("model_type") or config.get("model_type") or "")
    matrices = 3 if model_type in ("pixtral", "qwen2_5_vl", "gemma4_vision") else 2
    merged = (raw.optional("spatial_merge_size") or 0) ** 2 * width
    out = raw.optional("out_hidden_size") or _Config(_text_part(config)).optional("hidden_size") or 0
    deep = raw.get("deepstack_visual_indexes")
    mergers = 1 + (len(deep) if isinstance(deep, list) else 0)
    return layers * (4 * width * width + matrices * width * inner) + mergers * merged * (merged + out)


#: Parts of `Weights` that a method quantizes when the checkpoint lists no exception.
LINEAR = frozenset({"attention", "kv", "replicated", "mlp", "shared", "experts"})


def bits_per_weight(method: str, bits: int | None = None, group: int = 0, *, double: bool = True) -> float | None:
    """Bits of one quantized weight with its share of scales and zero points; None for a method that is not known.

    awq and gptq keep a 16 bit scale and a packed zero point per group; MXFP4 one byte per 32 weights, NVFP4 one per 16;
    bitsandbytes (4 bit) one absolute maximum per 64, itself quantized when `double`. FP8 scales are per tensor, channel
    or block of 128 x 128 and do not count.
    """
    match method:
        case "awq" | "gptq" | "auto-round" | "awq_marlin" | "gptq_marlin" | "auto_awq" | "auto_gptq" | "moe_wna16":
            width = bits or 4
            return width + ((16 + width) / group if group > 0 else 0)
        case (
            "fp8"
            | "fbgemm_fp8"
            | "modelopt"
            | "ptpc_fp8"
            | "int8"
            | "experts_int8"
            | "fp8_per_tensor"
            | "fp8_per_block"
        ):
            return 8.0
        case "mxfp4" | "gpt_oss_mxfp4":
            return 4.25
        case "modelopt_fp4" | "nvfp4":
            return 4.5
        case "bitsandbytes":
            return 8.0 if bits == 8 else 4 + (8 / 64 + 32 / (64 * 256) if double else 32 / 64)
        case "compressed-tensors":
            return None if bits is None else bits + (16 / group if group > 0 else 0)
    return None


def _quantization(config: Mapping[str, Any], text: Mapping[str, Any]) -> Quantization | None:
    """How the checkpoint says that it is quantized; None when it is not."""
    stated = config.get("quantization_config") or text.get("quantization_config") or config.get("compression_config")
    if not isinstance(stated, dict) or not stated:
        return None
    raw = _Config(stated)
    method = str(raw.get("quant_method") or "").lower() or "compressed-tensors" * bool(raw.get("config_groups"))
    bits, group = raw.optional("bits", "w_bit", "weight_bits"), raw.optional("group_size", "q_group_size") or 0
    algorithm = str(raw.get("quant_algo") or "").upper()
    if method == "modelopt" and algorithm:
        method = {"FP8": "modelopt", "NVFP4": "modelopt_fp4"}.get(algorithm, f"modelopt {algorithm}")
    if method == "bitsandbytes":
        bits = 8 if raw.flag("load_in_8bit", False) else 4
    block = raw.get("weight_block_size")
    if isinstance(block, list) and block and isinstance(block[-1], int):
        group = block[-1]
    groups = raw.get("config_groups")
    if isinstance(groups, dict) and groups:
        widths = set()
        for one in groups.values():
            weights = one.get("weights") if isinstance(one, dict) else None
            if isinstance(weights, dict):
                part = _Config(weights)
                widths.add((part.optional("num_bits"), part.optional("group_size") or 0))
        if len(widths) == 1:
            bits, group = widths.pop()
            if bits == 4 and group == 16:
                method = "nvfp4" if _is_float(groups) else method
        else:
            bits = None
    layers = _Config(text).optional("num_hidden_layers") or 0
    per_weight = bits_per_weight(method, bits, group, double=raw.flag("bnb_4bit_use_double_quant", True))
    return Quantization(
        method=method,
        bits=per_weight,
        parts=_quantized_parts(method, raw, layers),
        group=group,
        fp8_cache=bool(raw.get("kv_cache_scheme", "kv_cache_quant_algo")),
    )


def _is_float(groups: Mapping[str, Any]) -> bool:
    return any(isinstance(one, dict) and (one.get("weights") or {}).get("type") == "float" for one in groups.values())


def _quantized_parts(method: str, raw: _Config, layers: int) -> frozenset[str]:
    """Which parts are quantized, by the modules that the checkpoint leaves out."""
    if method in ("mxfp4", "gpt_oss_mxfp4", "experts_int8"):
        return frozenset({"experts"})
    parts = set(LINEAR)
    left_out = raw.get("ignore", "modules_to_not_convert", "ignored_layers", "exclude_modules")
    names = [str(name) for name in left_out] if isinstance(left_out, list) else []
    if _left_out(names, ("self_attn", "linear_attn", "attention"), layers):
        parts -= {"attention", "kv", "replicated"}
    if _left_out(names, ("shared_expert", "shared_experts"), layers):
        parts.discard("shared")
    if any("mlp" in name and "(gate|up" in name for name in names):
        parts.discard("mlp")
    return frozenset(parts)


def _left_out(names: Sequence[str], modules: Sequence[str], layers: int) -> bool:
    """Whether a list of exceptions covers these modules: by a pattern, or layer by layer in most layers."""
    hits = 0
    for name in names:
        pieces = name.replace("\\", "").split(".")
        at = next((i for i, piece in enumerate(pieces) if piece.strip("*") in modules), None)
        if at is None or "norm" in name or "indexer" in name:
            continue
        rest = "".join(pieces[at + 1 :]).strip("*")
        if rest and not rest.endswith("_proj"):
            continue
        numbered = [piece for piece in pieces if piece.strip("{}").replace(",", "").replace("-", "").isdecimal()]
        if not numbered:
            return True
        hits += sum(_many(part) for part in numbered[0].strip("{}").split(","))
    return hits > layers / 2 > 0


def _many(numbers: str) -> int:
    """How many layers `7` or `0-60` names."""
    first, dash, last = numbers.partition("-")
    return int(last) - int(first) + 1 if dash and first.isdecimal() and last.isdecimal() else 1


def _divided(total: int, parts: int) -> int:
    if not parts or total % parts:
        raise _GapError("head_dim")
    return total // parts


def _multiple(value: int, of: int) -> int:
    return -(-value // of) * of
