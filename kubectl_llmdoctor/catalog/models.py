"""What is known of open-weights models by their Hugging Face id.

Native context: `max_position_embeddings` of the model's own config.json on the Hub. Gating: the Hub asks for a
licence to be accepted before files can be read; it can change at any time, so it only ever supports a risk, never a
cause.
"""

from __future__ import annotations

import re
from functools import cache

#: Pattern of the id (lower case, whole) and native context in tokens; the first that matches counts.
_CONTEXT: tuple[tuple[str, int], ...] = (
    (r"meta-llama/(meta-)?llama-3\.[123]-.*", 131072),
    (r"meta-llama/meta-llama-3-.*", 8192),
    (r"meta-llama/llama-2-.*", 4096),
    (r"meta-llama/llama-4-scout-.*", 10485760),
    (r"meta-llama/llama-4-maverick-.*", 1048576),
    (r"mistralai/mistral-nemo-.*", 131072),
    (r"mistralai/mistral-small-3\.[12]-.*", 131072),
    (r"mistralai/mistral-large-.*-24(07|11)", 131072),
    (r"mistralai/mixtral-8x22b-.*", 65536),
    (r"qwen/qwen3-.*-2507(-fp8)?", 262144),
    (r"qwen/qwen3-coder-.*", 262144),
    (r"qwen/qwen3-next-.*", 262144),
    (r"qwen/qwen3-vl-.*", 262144),
    (r"qwen/qwen3\.5-.*", 262144),
    (r"qwen/qwen3-.*", 40960),
    (r"qwen/qwq-32b.*", 131072),
    (r"deepseek-ai/deepseek-r1-distill-.*", 131072),
    (r"deepseek-ai/deepseek-(v3|r1)(-.*)?", 163840),
    (r"moonshotai/kimi-k2-.*", 131072),
    (r"openai/gpt-oss-(20b|120b)", 131072),
    (r"google/gemma-3-(4b|12b|27b)-.*", 131072),
    (r"google/gemma-4-.*", 262144),
    (r"microsoft/phi-3\.5-mini-instruct", 131072),
    (r"microsoft/phi-4-mini-instruct", 131072),
    (r"nvidia/llama-3[._]?[123]-nemotron-.*", 131072),
    (r"zai-org/glm-4\.5.*", 131072),
)

#: Id prefixes (lower case) that the Hub gates.
_GATED = (
    "meta-llama/",
    "google/gemma-2",
    "google/gemma-3",
    "google/gemma-7b",
    "google/gemma-2b",
    "tiiuae/falcon-180b",
    "databricks/dbrx-",
    "coherelabs/",
    "cohereforai/",
)


@cache
def native_context(model: str) -> int | None:
    """The context length a model was made for, in tokens; None when the table does not know the model."""
    name = model.strip().lower()
    return next((tokens for pattern, tokens in _CONTEXT if re.fullmatch(pattern, name)), None)


def gated(model: str) -> bool:
    """Whether the Hub is known to ask for a licence before the model's files can be read."""
    return model.strip().lower().startswith(_GATED)
