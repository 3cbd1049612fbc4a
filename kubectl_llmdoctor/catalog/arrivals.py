"""Since when an engine knows an architecture.

Sources: vLLM's release notes, and `model_executor/models/registry.py` at some of its releases from 0.6.6 to 0.11.0. The
release named here is the first one that may know the architecture: an older one does not, a newer one is not judged.
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
    "DeepseekV32ForCausalLM": "0.11.0",
}


def first_release(engine: str, architecture: str) -> str | None:
    """The first release that may know an architecture; None where the table does not say."""
    return _VLLM.get(architecture) if engine == "vllm" else None
