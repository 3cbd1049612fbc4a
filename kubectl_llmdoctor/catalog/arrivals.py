"""Since when an engine knows an architecture.

The release named here is the first one that may know it: an older one does not, a newer one is not judged. `X.post1` says
that release X was looked into and did not know it.

Sources: vLLM's release notes, `model_executor/models/registry.py` at some of its releases from 0.6.6 to 0.11.0, and the
lists that 0.14.1, 0.17.1, 0.19.1 and 0.22.1 print when they refuse a model (kaito-project/kaito,
presets/workspace/models/vllm_model_arch_list.txt); 0.6.1 came without a Transformers that knows Qwen2-VL, and 0.6.2
failed of its rope_scaling (vllm-project/vllm, issues 8682 and 9236); 0.11.0 refused MiniMax M2 (MiniMax-AI/MiniMax-M2, issue 40), 0.16.0
Qwen 3.5 (runpod-workers/worker-vllm, issue 279).
SGLang: the classes of `srt/models` in its packages 0.4.0 to 0.5.3; from 0.4.9 on it falls back to Transformers, and the
releases of Transformers that those packages ask for have no such model either. TGI: `models/__init__.py` at its tags
3.1.0 to 3.2.2; it falls back to Transformers too, which had none of these models when the older tags were made (Qwen2.5-VL
came with 4.49 of 2025-02-17, Gemma 3 with 4.50 of 2025-03-21, Llama 4 and Qwen3 with 4.51 of 2025-04-05).
llama.cpp: the names in `src/llama-arch.cpp` (before `src/llama.cpp`) of its builds b3995, b4234, b4529, b4753, b4980, b5415,
b5640, b6133, b6431, b6673, b7347, b7836, b8121, b8390, b10068, b10361; a row names the build after the last one that has no
such name. What other builds ran under an older name (DeepSeek V3.2 as DeepSeek V2, Mistral 3 as Llama) has no row.
TensorRT-LLM: docs/source/release-notes.md of 0.19 to 1.2, its PyTorch backend; GPT-OSS, GLM 4.5 and DeepSeek V3.2 were
published after the releases that are said not to know them.
Transformers: `CONFIG_MAPPING_NAMES` in its packages 4.46.0 to 5.3.0 (each minor release), 5.5.0, 5.9.0, 5.15.0, 5.20.0, 5.24.0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_VLLM: Mapping[str, str] = {
    "Gemma2ForCausalLM": "0.5.1",
    "Qwen2VLForConditionalGeneration": "0.6.3",
    "MllamaForConditionalGeneration": "0.6.2",
    "DeepseekV3ForCausalLM": "0.6.6",
    "Qwen2_5_VLForConditionalGeneration": "0.7.2",
    "Gemma3ForCausalLM": "0.8.0",
    "Gemma3ForConditionalGeneration": "0.8.0",
    "Llama4ForConditionalGeneration": "0.8.3",
    "Qwen3ForCausalLM": "0.8.4",
    "Qwen3MoeForCausalLM": "0.8.4",
    "NemotronHForCausalLM": "0.9.0",
    "Glm4MoeForCausalLM": "0.10.0",
    "GptOssForCausalLM": "0.10.1",
    "Qwen3NextForCausalLM": "0.10.2",
    **dict.fromkeys(
        ("DeepseekV32ForCausalLM", "Qwen3VLForConditionalGeneration", "Qwen3VLMoeForConditionalGeneration"), "0.11.0"
    ),
    "MiniMaxM2ForCausalLM": "0.11.0.post1",
    **dict.fromkeys(
        ("Glm4MoeLiteForCausalLM", "GlmMoeDsaForCausalLM", "KimiK25ForConditionalGeneration"), "0.14.1.post1"
    ),
    **dict.fromkeys(("Qwen3_5ForConditionalGeneration", "Qwen3_5MoeForConditionalGeneration"), "0.16.0.post1"),
    "Gemma4ForConditionalGeneration": "0.19.0",
    "DeepseekV4ForCausalLM": "0.19.1.post1",
    **dict.fromkeys(
        ("Gemma4UnifiedForConditionalGeneration", "MiniMaxM3SparseForConditionalGeneration"), "0.22.1.post1"
    ),
}

_SGLANG: Mapping[str, str] = {
    "DeepseekV3ForCausalLM": "0.4.0.post1",
    "Qwen2_5_VLForConditionalGeneration": "0.4.3.post1",
    "Gemma3ForCausalLM": "0.4.4.post1",
    "Gemma3ForConditionalGeneration": "0.4.4.post1",
    "Llama4ForConditionalGeneration": "0.4.5",
    "Qwen3ForCausalLM": "0.4.5.post1",
    "Qwen3MoeForCausalLM": "0.4.5.post1",
    "Glm4MoeForCausalLM": "0.4.9.post1",
    "GptOssForCausalLM": "0.4.10.post1",
    "Qwen3NextForCausalLM": "0.5.1.post1",
    "DeepseekV32ForCausalLM": "0.5.2.post1",
}

_TGI: Mapping[str, str] = {
    "Qwen2_5_VLForConditionalGeneration": "3.1.1",
    "Gemma3ForCausalLM": "3.2.0",
    "Gemma3ForConditionalGeneration": "3.2.0",
    "Llama4ForConditionalGeneration": "3.2.2",
    "Qwen3ForCausalLM": "3.2.2",
    "Qwen3MoeForCausalLM": "3.2.2",
}

_LLAMA_CPP: Mapping[str, str] = {
    "Olmo2ForCausalLM": "b3996",
    "PhiMoEForCausalLM": "b4235",
    **dict.fromkeys(("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"), "b4754"),
    **dict.fromkeys(("Llama4ForConditionalGeneration", "Qwen3ForCausalLM", "Qwen3MoeForCausalLM"), "b4981"),
    **dict.fromkeys(
        (
            *(
                "GptOssForCausalLM",
                "Glm4MoeForCausalLM",
                "SmolLM3ForCausalLM",
                "Exaone4ForCausalLM",
                "ArceeForCausalLM",
            ),
            *("Ernie4_5ForCausalLM", "Ernie4_5_MoeForCausalLM", "HunYuanDenseV1ForCausalLM"),
            "GraniteMoeHybridForCausalLM",
        ),
        "b5641",
    ),
    **dict.fromkeys(("NemotronHForCausalLM", "SeedOssForCausalLM"), "b6134"),
    "ApertusForCausalLM": "b6432",
    **dict.fromkeys(
        (
            *("Qwen3NextForCausalLM", "MiniMaxM2ForCausalLM"),
            *("Qwen3VLForConditionalGeneration", "Qwen3VLMoeForConditionalGeneration"),
        ),
        "b6674",
    ),
    "MiMoV2FlashForCausalLM": "b7348",
    **dict.fromkeys(
        (
            *("Qwen3_5ForConditionalGeneration", "Qwen3_5MoeForConditionalGeneration"),
            *("GlmMoeDsaForCausalLM", "KimiLinearForCausalLM"),
        ),
        "b7837",
    ),
    **dict.fromkeys(("Gemma4ForConditionalGeneration", "DeepseekV4ForCausalLM"), "b8391"),
    **dict.fromkeys(("MiniMaxM3SparseForCausalLM", "MiniMaxM3SparseForConditionalGeneration"), "b10069"),
    "KimiK3ForConditionalGeneration": "b10362",
}

_TENSORRT_LLM: Mapping[str, str] = {
    **dict.fromkeys(("Qwen3ForCausalLM", "Qwen3MoeForCausalLM", "NemotronHForCausalLM"), "0.19.0.post1"),
    **dict.fromkeys(("Exaone4ForCausalLM", "GptOssForCausalLM", "Glm4MoeForCausalLM"), "0.21.0.post1"),
    **dict.fromkeys(("SeedOssForCausalLM", "HunYuanDenseV1ForCausalLM", "DeepseekV32ForCausalLM"), "1.0.0.post1"),
    **dict.fromkeys(
        ("Qwen3NextForCausalLM", *("Qwen3VLForConditionalGeneration", "Qwen3VLMoeForConditionalGeneration")),
        "1.1.0.post1",
    ),
}

#: By release of Transformers the types of models (`model_type` of config.json) that it has and the last one looked into before it
#: had not.
_TRANSFORMERS: Mapping[str, str] = {
    "4.47.0": "olmo2",
    "4.48.0": "aria bamba cohere2 emu3 modernbert",
    "4.49.0": "granitemoeshared helium qwen2_5_vl zamba2",
    "4.50.0": "aya_vision gemma3 gemma3_text mistral3 siglip2 smolvlm",
    "4.51.0": "deepseek_v3 llama4 llama4_text phi4_multimodal qwen3 qwen3_moe",
    "4.52.1": "bitnet glm4 granite_speech granitemoehybrid internvl janus qwen2_5_omni",
    "4.53.0": "arcee dots1 falcon_h1 gemma3n gemma3n_text glm4v minimax smollm3",
    "4.54.0": "deepseek_v2 deepseek_vl doge ernie4_5 ernie4_5_moe exaone4 glm4_moe lfm2 voxtral xlstm",
    "4.55.0": "cohere2_vision gpt_oss",
    "4.56.0": "apertus florence2 glm4v_moe hunyuan_v1_dense hunyuan_v1_moe ovis2 seed_oss",
    "4.57.0": (
        "flex_olmo lfm2_vl longcat_flash ministral olmo3 qwen3_next qwen3_omni_moe qwen3_vl qwen3_vl_moe vaultgemma"
    ),
    "5.0.0": (
        "afmoe ernie4_5_vl_moe glm46v glm4_moe_lite glm_image lfm2_moe lighton_ocr minimax_m2 ministral3 "
        "nanochat paddleocr_vl solar_open"
    ),
    "5.1.0": "exaone_moe glm_ocr youtu",
    "5.2.0": "glm_moe_dsa qwen3_5 qwen3_5_text qwen3_5_moe qwen3_5_moe_text voxtral_realtime",
    "5.3.0": "eurobert nemotron_h olmo_hybrid",
    "5.5.0": "gemma4 gemma4_text jina_embeddings_v3 mistral4 nomic_bert",
    "5.9.0": "cohere2_moe deepseek_v4 exaone4_5 granite4_vision hy_v3 hyperclovax laguna minicpmv4_6",
    "5.15.0": (
        "deepseek_v32 deepseek_ocr2 gemma4_unified hunyuan_vl kimi_k25 mimo_v2_flash minicpm3 "
        "minimax_m3_vl qwen3_asr zaya"
    ),
    "5.20.0": "bailing_hybrid gte hy_v4 kimi_linear molmo2 nemotron_h_omni step3p5 step3p7",
    "5.24.0": "exaone internlm3 iquestcoder lfm3 mistral_large4 sarvam_moe",
}

_ENGINES = {"vllm": _VLLM, "sglang": _SGLANG, "tgi": _TGI, "llama.cpp": _LLAMA_CPP, "tensorrt-llm": _TENSORRT_LLM}


def first_release(engine: str, architecture: str) -> str | None:
    """The first release that may know an architecture; None where the table does not say."""
    return _ENGINES.get(engine, {}).get(architecture)


def release_for(engine: str, name: str) -> str | None:
    """The same of a class or a type of model, as whoever refuses it names it: `Qwen3NextForCausalLM`, `qwen3_next`, `qwen3next`."""
    rows = _ENGINES.get(engine, {})
    return rows.get(name) or next((first for known, first in rows.items() if _bare(known) == _bare(name)), None)


def transformers_for(name: str) -> str | None:
    """A release of Transformers that knows a type of model, or a class; None where the table does not say."""
    bare = _bare(name)
    return next((r for r, types in _TRANSFORMERS.items() if bare in (_bare(t) for t in types.split())), None)


def _bare(name: str) -> str:
    """A class or a type of model without what its spelling adds."""
    return re.sub(r"(?:For(?:CausalLM|ConditionalGeneration)|Model|Config)$|[^a-zA-Z0-9]", "", name).lower()
