"""What a model's config.json says about memory: its weights by part, and what each layer keeps in the KV cache.

Read from the Hugging Face configuration, by the rules of the models' own code (`transformers`, and vLLM's
`model_executor/models`). A class that is not listed here is unknown: nothing is derived for it, since a layer that
keeps its cache differently would make every number wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from kubectl_llmdoctor.catalog.attention import block_layer, kv_heads_of, latent_layer, mimo_layer, plain_layer
from kubectl_llmdoctor.catalog.layer import Config, Family, GapError, Kind, Layer, Stored, divided, multiple
from kubectl_llmdoctor.catalog.recurrent import delta_layer, hybrid_layers, nemotron_layer, nemotron_pattern

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

    def bytes_per_token(self, kv_bytes: float, tensor_parallel: int) -> float:
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
    multimodal: bool = False
    gaps: tuple[str, ...] = ()


_PLAIN = Family()

#: Classes by what their fields mean; as written in `architectures` of config.json.
_CLASSES: tuple[tuple[Family, str], ...] = (
    (
        _PLAIN,
        "LlamaForCausalLM MistralForCausalLM Qwen3ForCausalLM Phi3ForCausalLM OlmoForCausalLM Olmo2ForCausalLM "
        "Olmo3ForCausalLM InternLMForCausalLM InternLM2ForCausalLM InternLM3ForCausalLM GlmForCausalLM "
        "Glm4ForCausalLM ExaoneForCausalLM Exaone4ForCausalLM BaichuanForCausalLM BaiChuanForCausalLM "
        "MixtralForCausalLM Qwen3MoeForCausalLM Glm4MoeForCausalLM DbrxForCausalLM MiniMaxM2ForCausalLM "
        "OlmoeForCausalLM PhiMoEForCausalLM StableLmForCausalLM MistralModel LlamaModel "
        "Mistral3ForConditionalGeneration LlavaForConditionalGeneration "
        "Qwen3VLForConditionalGeneration Qwen3VLMoeForConditionalGeneration HunYuanDenseV1ForCausalLM "
        "HunYuanMoEV1ForCausalLM Dots1ForCausalLM Ministral3ForCausalLM MinistralForCausalLM CwmForCausalLM "
        "HeliumForCausalLM SolarOpenForCausalLM GraniteMoeSharedForCausalLM MellumForCausalLM FlexOlmoForCausalLM",
    ),
    (
        Family(tied=True),
        "GemmaForCausalLM CohereForCausalLM GraniteForCausalLM GraniteMoeForCausalLM SmolLM3ForCausalLM "
        "Ernie4_5ForCausalLM Ernie4_5_MoeForCausalLM Qwen3Model",
    ),
    (
        Family(qkv_bias=True),
        "Qwen2ForCausalLM Qwen2MoeForCausalLM Qwen2VLForConditionalGeneration Qwen2_5_VLForConditionalGeneration "
        "MiMoForCausalLM SeedOssForCausalLM ChatGLMModel",
    ),
    (
        Family(attention="mla"),
        "DeepseekV2ForCausalLM DeepseekV3ForCausalLM DeepseekV32ForCausalLM KimiK2ForCausalLM "
        "KimiK25ForConditionalGeneration GlmMoeDsaForCausalLM Glm4MoeLiteForCausalLM MistralLarge3ForCausalLM",
    ),
    (Family(tied=True, attention="alternate"), "Gemma2ForCausalLM"),
    (Family(tied=True, attention="every-6th-full"), "Gemma3ForCausalLM Gemma3ForConditionalGeneration"),
    (
        Family(tied=True, attention="gemma4"),
        "Gemma4ForConditionalGeneration Gemma4ForCausalLM Gemma4UnifiedForConditionalGeneration",
    ),
    (Family(tied=True, attention="gemma3n"), "Gemma3nForConditionalGeneration Gemma3nForCausalLM"),
    (Family(tied=True, attention="every-4th-full"), "Cohere2ForCausalLM"),
    (Family(qkv_bias=True, attention="alternate"), "GptOssForCausalLM"),
    (Family(attention="llama4"), "Llama4ForConditionalGeneration Llama4ForCausalLM"),
    (
        Family(attention="delta"),
        "Qwen3NextForCausalLM Qwen3_5ForCausalLM Qwen3_5MoeForCausalLM Qwen3_5ForConditionalGeneration "
        "Qwen3_5MoeForConditionalGeneration",
    ),
    (Family(attention="nemotron-h"), "NemotronHForCausalLM"),
    (Family(attention="granite", tied=True), "GraniteMoeHybridForCausalLM"),
    (Family(attention="bamba"), "BambaForCausalLM"),
    (Family(attention="falcon-h1"), "FalconH1ForCausalLM"),
    (Family(attention="jamba"), "JambaForCausalLM"),
    (Family(attention="lfm2", tied=True), "Lfm2ForCausalLM Lfm2MoeForCausalLM"),
    (Family(attention="kimi-linear"), "KimiLinearForCausalLM"),
    (Family(attention="blocks"), "DeciLMForCausalLM"),
    (Family(mlp=2), "NemotronForCausalLM ApertusForCausalLM ArceeForCausalLM Jais2ForCausalLM"),
    (Family(attention="minicpm3", tied=True), "MiniCPM3ForCausalLM"),
    (Family(attention="longcat"), "LongcatFlashForCausalLM"),
    (Family(attention="mimo"), "MiMoV2FlashForCausalLM"),
    (Family(mlp=2, qkv_bias=True), "PhiForCausalLM GPTNeoXForCausalLM"),
    (
        Family(mlp=2, qkv_bias=True, tied=True),
        "Starcoder2ForCausalLM OPTForCausalLM GPT2LMHeadModel GPTBigCodeForCausalLM",
    ),
    (Family(mlp=2, tied=True), "FalconForCausalLM"),
    (
        Family(mlp=2, qkv_bias=True, encoder_only=True),
        "BertModel XLMRobertaModel RobertaModel BertForSequenceClassification XLMRobertaForSequenceClassification",
    ),
)
_FAMILIES = {name: family for family, names in _CLASSES for name in names.split()}

#: Classes around a text model that the configuration names, with an encoder whose size only the whole checkpoint's tells.
_WRAPPERS = frozenset(
    {
        "LlavaNextForConditionalGeneration", "LlavaOnevisionForConditionalGeneration", "InternVLChatModel",
        "InternVLForConditionalGeneration", "Idefics3ForConditionalGeneration", "SmolVLMForConditionalGeneration",
        "PaliGemmaForConditionalGeneration", "AyaVisionForConditionalGeneration",
        "Cohere2VisionForConditionalGeneration", "KimiVLForConditionalGeneration", "DeepseekVLV2ForCausalLM",
        "Glm4vForConditionalGeneration", "Glm4vMoeForConditionalGeneration", "Lfm2VlForConditionalGeneration",
        "Phi3VForCausalLM",
    }
)  # fmt: skip

#: Classes that are called models, and have a head for the vocabulary.
_WITH_HEAD = {"InternVLChatModel", "ChatGLMModel"}

#: The classes of text models by their `model_type`.
_TEXTS = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "internlm2": "InternLM2ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "phi3_v": "Phi3ForCausalLM",
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "cohere2": "Cohere2ForCausalLM",
    "deepseek_v2": "DeepseekV2ForCausalLM",
    "deepseek_v3": "DeepseekV3ForCausalLM",
    "glm4v_text": "Glm4ForCausalLM",
    "glm4v_moe_text": "Glm4MoeForCausalLM",
    "gpt_oss": "GptOssForCausalLM",
    "lfm2": "Lfm2ForCausalLM",
}


#: Fields for which the class of a text model has a default that does not follow from its other fields: transformers leaves out of
#: the configuration inside another one what is the default.
_STATED = {
    **dict.fromkeys(("mistral", "qwen2"), ("num_key_value_heads",)),
    **dict.fromkeys(("qwen3", "qwen3_moe", "gemma", "gemma2", "gpt_oss"), ("num_key_value_heads", "head_dim")),
}


def of_config(config: Mapping[str, Any], parameters: int | None = None) -> Architecture:
    """The architecture that a config.json describes. Never raises for a mapping; what is missing becomes a gap.

    `parameters` is how many the checkpoint has in all, where that is stated: what the text model does not account for
    is then the vision encoder's.
    """
    name = _class(config)
    text = _text_part(config)
    raw = Config(text)
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
    wrapped = name in _WRAPPERS
    family = _FAMILIES.get(_TEXTS.get(str(text.get("model_type")), "") if wrapped else name)
    if family is None:
        unknown = f"the architecture {name}" if name else "architectures"
        return Architecture(**base, gaps=(unknown,), quantization=_quantization(config, text))
    gaps: list[str] = []
    weights: Weights | None = None
    caches: tuple[Cache, ...] | None = None
    shapes: list[Layer] = []
    try:
        for field in _STATED.get(str(text.get("model_type")), ()) if wrapped else ():
            raw.number(field)
        base["kv_heads"] = kv_heads_of(raw, family)
        shapes = list(_layers(raw, family))
        caches = () if family.encoder_only else _caches(shapes)
    except GapError as gap:
        gaps.append(str(gap))
    if shapes:
        try:
            weights = _weights(raw, family, shapes, config, parameters)
        except GapError as gap:
            gaps.append(str(gap))
    return Architecture(
        **base,
        weights=weights,
        caches=caches,
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
    raw = Config(text)
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length")
    stated = [value for name in names if (value := raw.optional(name))]
    if not stated:
        return None
    length = min(stated)
    scaling = text.get("rope_scaling") or text.get("rope_parameters")
    # the factor of Gemma 3 is in the field already
    if not isinstance(scaling, dict) or str(text.get("model_type")).startswith("gemma3"):
        return length
    kind, factor = scaling.get("rope_type") or scaling.get("type"), scaling.get("factor")
    if kind in ("longrope", "su"):
        return raw.optional("original_max_position_embeddings") or length
    if not isinstance(factor, int | float) or isinstance(factor, bool):
        return length
    if kind in ("linear", "dynamic"):
        return int(length * factor)
    if kind == "yarn":
        original = scaling.get("original_max_position_embeddings")
        return max(length, int(original * factor)) if isinstance(original, int) else length
    return length


def longest_context(text: Mapping[str, Any]) -> int | None:
    """The longest context that may be asked for: with `longrope` the whole length, which is not the default."""
    native = native_context(text)
    stated = Config(text).optional("max_position_embeddings")
    return max(native, stated) if native and stated else native


def _layers(raw: Config, family: Family) -> Iterator[Layer]:
    """The layers of the text model, in order."""
    count = raw.optional("num_hidden_layers", "n_layer", "n_layers", "num_layers")
    if count is None and family.attention == "nemotron-h":
        count = len(nemotron_pattern(raw))
    count = raw.number("num_hidden_layers") if count is None else count
    if not 0 < count <= 1000:
        raise GapError("num_hidden_layers")
    for index in range(count):
        mlp = _mlp_kind(raw, index)
        match family.attention:
            case "mla":
                yield latent_layer(raw, mlp)
            case "delta":
                yield delta_layer(raw, family, index, mlp)
            case "nemotron-h":
                yield nemotron_layer(raw, index)
            case "blocks":
                yield block_layer(raw, index)
            case "longcat":
                yield from (latent_layer(raw, kind) for kind in ("dense", "dense and moe"))
            case "mimo":
                yield mimo_layer(raw, index, mlp)
            case "minicpm3":
                values = divided(raw.number("hidden_size"), raw.number("num_attention_heads"))
                layer = latent_layer(Config({"v_head_dim": values, **raw.raw}), mlp)
                width = raw.number("qk_nope_head_dim") + raw.number("qk_rope_head_dim")
                cache: Stored = ("full", raw.number("num_attention_heads"), 2 * width, 0, 0, 0)
                yield msgspec.structs.replace(layer, cache=cache)  # vLLM keeps what the compressed vector stands for
            case "granite" | "bamba" | "falcon-h1" | "jamba" | "lfm2" | "kimi-linear":
                yield from hybrid_layers(raw, family, index, mlp)
            case _:
                layer = plain_layer(raw, family, index, mlp)
                # the last layers of small Gemmas use the cache of an earlier one
                shared = index >= count - (raw.optional("num_kv_shared_layers") or 0)
                yield msgspec.structs.replace(layer, cache=None, kv=0) if shared else layer


def _mlp_kind(raw: Config, index: int) -> str:
    """`moe` or `dense`: which layers have experts."""
    if not raw.optional("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"):
        ffn = raw.get("ffn_config")
        return "moe" if isinstance(ffn, dict) and ffn.get("moe_num_experts") else "dense"
    dense_first = raw.optional("first_k_dense_replace", "moe_layer_start_index", "num_dense_layers") or 0
    if index < dense_first:
        return "dense"
    only = raw.get("mlp_only_layers")
    if isinstance(only, list) and index in only:
        return "dense"
    frequency = raw.get("moe_layer_freq")
    if isinstance(frequency, list) and index < len(frequency):
        return "moe" if frequency[index] else "dense"
    kinds = raw.get("mlp_layer_types")
    if isinstance(kinds, list) and index < len(kinds):
        return "dense" if kinds[index] == "dense" else "moe"
    period = raw.optional("expert_layer_period")
    if period:
        return "moe" if index % period == raw.number("expert_layer_offset") else "dense"
    step = raw.optional("decoder_sparse_step", "interleave_moe_layer_step") or 1
    if step > 1 and (index + 1) % step:
        return "dense"
    return "moe"


def _caches(shapes: Sequence[Layer]) -> tuple[Cache, ...]:
    """The layers grouped by what they keep, in the order in which they first appear."""
    counted = Counter(layer.cache for layer in shapes if layer.cache)
    return tuple(
        Cache(kind=kind, layers=layers, heads=heads, values=values, window=window, state=state, extra=extra)
        for (kind, heads, values, window, state, extra), layers in counted.items()
    )


#: By which further names configurations say how many experts are always asked.
_SHARED = ("num_shared_experts", "num_shared_expert")


def _weights(
    raw: Config, family: Family, shapes: Sequence[Layer], config: Mapping[str, Any], parameters: int | None
) -> Weights:
    """The parameters of all layers, the embeddings and the vision encoder."""
    hidden, vocab = raw.number("hidden_size", "n_embd", "d_model"), raw.number("vocab_size", "padded_vocab_size")
    name = _class(config)
    mlp, shared, experts, routers = _mlps(raw, family, shapes, hidden)
    beside, inputs = _per_layer_inputs(raw, hidden, len(shapes))
    tied = config.get("tie_word_embeddings", raw.raw.get("tie_word_embeddings"))
    tied = family.tied if not isinstance(tied, bool) else tied
    positions = raw.optional("n_positions") or 0 if raw.raw.get("model_type") in ("gpt2", "gpt_bigcode") else 0
    if family.encoder_only or raw.raw.get("model_type") == "opt":
        positions = raw.optional("max_position_embeddings") or 0
    headless = name.endswith("Model") and name not in _WITH_HEAD
    text = Weights(
        attention=sum(layer.attention for layer in shapes),
        kv=sum(layer.kv for layer in shapes),
        replicated=sum(layer.replicated for layer in shapes) + beside,
        mlp=mlp,
        shared=shared,
        experts=experts,
        plain=sum(layer.plain for layer in shapes) + routers + hidden,
        embedding=(vocab + positions) * hidden + inputs,
        head=0 if tied or family.encoder_only or headless else vocab * hidden,
    )
    wrapped = name in _WRAPPERS
    if not wrapped and not name.endswith("ForConditionalGeneration"):
        return text
    vision = parameters - text.total if parameters and parameters > text.total else None
    # what small Gemmas hear with counts, too
    if not wrapped and not inputs and isinstance(config.get("vision_config"), dict):
        with suppress(GapError):
            vision = _vision(config)
    if vision is None:
        raise GapError("vision_config")
    return msgspec.structs.replace(text, vision=vision)


def _class(config: Mapping[str, Any]) -> str:
    """The name of the model's class; empty where there is none."""
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""


def _mlps(raw: Config, family: Family, shapes: Sequence[Layer], hidden: int) -> tuple[int, int, int, int]:
    """Parameters of all layers' dense MLPs, shared experts, routed experts, and routers."""
    mlp = shared = experts = routers = 0
    for layer in shapes:
        if layer.mlp in ("moe", "dense and moe"):
            one_shared, routed, router = _experts(raw, hidden)
            experts, routers = experts + routed, routers + router
            if layer.mlp == "moe":
                shared += one_shared
            else:
                mlp += 3 * hidden * _width(raw, hidden)
        elif layer.mlp.startswith("width"):
            mlp += 3 * hidden * int(layer.mlp.split()[1])
        elif layer.mlp == "relu2":
            mlp += 2 * hidden * raw.number("intermediate_size")
        elif layer.mlp == "dense":
            mlp += family.mlp * hidden * _width(raw, hidden)
    if raw.get("enable_moe_block"):  # Gemma 4: a dense MLP beside the experts of each layer
        mlp += len(shapes) * 3 * hidden * raw.number("intermediate_size")
    if raw.get("use_double_wide_mlp"):  # Gemma 4: in the layers that use the cache of an earlier one
        mlp += raw.number("num_kv_shared_layers") * 3 * hidden * raw.number("intermediate_size")
    return mlp, shared, experts, routers


def _per_layer_inputs(raw: Config, hidden: int, layers: int) -> tuple[int, int]:
    """What small Gemmas hold beside their layers, and the embeddings that each of them has of its own."""
    width = raw.optional("hidden_size_per_layer_input") or 0
    vocab = raw.number("vocab_size_per_layer_input") if width else 0
    beside = layers * (3 * hidden * width + hidden) + width if width else 0
    if raw.optional("altup_num_inputs"):  # Gemma 3n
        streams, rank = raw.number("altup_num_inputs"), raw.number("laurel_rank")
        mixing = streams * streams + streams**3 + streams * hidden + 2 * hidden
        beside += layers * (mixing + 2 * rank * hidden + hidden) + 2 * (streams - 1) * hidden * hidden
    return beside, vocab * layers * width


def _experts(raw: Config, hidden: int) -> tuple[int, int, int]:
    """Parameters of one layer's shared experts, routed experts, and router."""
    ffn = raw.get("ffn_config")
    if isinstance(ffn, dict):  # DBRX
        count, width = Config(ffn).number("moe_num_experts"), Config(ffn).number("ffn_hidden_size")
        return 0, count * 3 * hidden * width, count * hidden
    count = raw.number("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    width = raw.optional("moe_intermediate_size", "expert_ffn_hidden_size") or raw.number("intermediate_size")
    if raw.raw.get("model_type") == "nemotron_h":  # no gate: two matrices
        shared_width = raw.optional("moe_shared_expert_intermediate_size") or 0
        latent = raw.optional("moe_latent_size")
        inner = latent or hidden
        through = 2 * hidden * latent if latent else 0
        return 2 * hidden * shared_width + through, count * 2 * inner * width, count * hidden
    shared_width = raw.optional("shared_expert_intermediate_size", "shared_intermediate_size") or 0
    if not shared_width:
        shared_width = (raw.optional("n_shared_experts", "moe_num_shared_experts", *_SHARED) or 0) * width
    if raw.raw.get("model_type") in ("llama4", "llama4_text"):
        shared_width = width
    router = count * hidden
    if raw.raw.get("model_type") == "gpt_oss":
        router += count * (2 * width + hidden) + count  # biases
    return 3 * hidden * shared_width, count * 3 * hidden * width, router


def _width(raw: Config, hidden: int) -> int:
    if raw.raw.get("model_type") == "granitemoehybrid":  # without experts only the shared MLP is there
        return raw.number("shared_intermediate_size")
    if raw.flag("block_auto_adjust_ff_dim", False):  # LFM2
        narrow = int(2 * raw.number("intermediate_size", "block_ff_dim") / 3)
        factor = raw.get("block_ffn_dim_multiplier")
        if factor is None:
            return narrow
        if not isinstance(factor, int | float) or not 0 < factor < 100:
            raise GapError("block_ffn_dim_multiplier")
        return multiple(int(factor * narrow), raw.number("block_multiple_of") or 1)
    width = raw.optional("intermediate_size_mlp", "intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")
    if width:
        return width
    if raw.raw.get("model_type") in ("gpt2", "gpt_bigcode", "falcon", "phi-msft"):  # None means four times as wide
        return 4 * hidden
    raise GapError("intermediate_size")


def _vision(config: Mapping[str, Any]) -> int:
    """Parameters of the vision encoder: its layers, and what merges its patches for the text model."""
    part = config["vision_config"]
    raw = Config(part)
    if isinstance(raw.get("model_args"), dict):
        raise GapError("vision_config")
    width = raw.number("embed_dim", "hidden_size", "vt_hidden_size")
    layers = raw.number("depth", "num_hidden_layers", "vt_num_hidden_layers")
    inner = raw.optional("intermediate_size", "vt_intermediate_size") or 4 * width
    model_type = str(part.get("model_type") or config.get("model_type") or "")
    matrices = 3 if model_type in ("pixtral", "qwen2_5_vl", "gemma4_vision") else 2
    merged = (raw.optional("spatial_merge_size") or 0) ** 2 * width
    out = raw.optional("out_hidden_size") or Config(_text_part(config)).optional("hidden_size") or 0
    deep = raw.get("deepstack_visual_indexes")
    mergers = 1 + (len(deep) if isinstance(deep, list) else 0)
    return layers * (4 * width * width + matrices * width * inner) + mergers * merged * (merged + out)


#: Parts of `Weights` that a method quantizes when the checkpoint lists no exception.
LINEAR = frozenset({"attention", "kv", "replicated", "mlp", "shared", "experts"})


def bits_per_weight(method: str, bits: int | None, group: int = 0, *, double: bool = True) -> float | None:
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
    raw = Config(stated)
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
                part = Config(weights)
                widths.add((part.optional("num_bits"), part.optional("group_size") or 0))
        if len(widths) == 1:
            bits, group = widths.pop()
            if bits == 4 and group == 16:
                method = "nvfp4" if _is_float(groups) else method
        else:
            bits = None
    layers = Config(text).optional("num_hidden_layers") or 0
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


def _quantized_parts(method: str, raw: Config, layers: int) -> frozenset[str]:
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
