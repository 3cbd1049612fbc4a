"""Since when an engine knows an architecture.

The release named here is the first one that may know it: an older one does not, a newer one is not judged. `X.post1` says
that release X was looked into and did not know it.

Sources: vLLM's release notes, `model_executor/models/registry.py` at some of its releases from 0.6.6 to 0.11.0, and the
lists that 0.14.1, 0.17.1, 0.19.1 and 0.22.1 print when they refuse a model (kaito-project/kaito,
presets/workspace/models/vllm_model_arch_list.txt); 0.11.0 refused MiniMax M2 (MiniMax-AI/MiniMax-M2, issue 40), 0.16.0
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
"""

from __future__ import annotations

from collections.abc import Mapping

_VLLM: Mapping[str, str] = {
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

_ENGINES = {"vllm": _VLLM, "sglang": _SGLANG, "tgi": _TGI, "llama.cpp": _LLAMA_CPP, "tensorrt-llm": _TENSORRT_LLM}


def first_release(engine: str, architecture: str) -> str | None:
    """The first release that may know an architecture; None where the table does not say."""
    return _ENGINES.get(engine, {}).get(architecture)
