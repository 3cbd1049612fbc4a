"""What an engine that computes without a GPU takes of host memory."""

import re

from kubectl_llmdoctor.api import (
    GIB,
    MIB,
    Engine,
    Log,
    Phase,
    expression,
    fixes,
    log_evidence,
    setting_evidence,
    units,
)
from llmdoctor_checks.memory._prompt_cache import Greed

#: A context from which on the KV cache of a small model takes gigabytes, one that does not, and what a slot needs of it at the least;
#: what each token takes in models of a few billion parameters up to thirty; and which share of a limit counts.
_LONG, _SHORT, _A_SLOT, _PER_TOKEN, _SHARE = 32768, 8192, 2048, MIB // 4, 0.25
#: How llama.cpp says where its KV cache lies and how large it is, that its context is being made, and that layers lie on a GPU.
_KV, _MAKES_CONTEXT, _LAYERS = "KV buffer size =", " n_ctx ", "layers to GPU"
_KV_BUFFER, _ON_GPU = rf"(\w{{1,40}}) +{_KV} +([\d.]{{1,12}}) MiB", rf"offloaded [1-9]\d{{0,3}}/\d{{1,4}} {_LAYERS}"

#: How llama.cpp says how large the file of a model is (`llama_model_loader::print_info`, older `llm_load_print_meta`).
_FILE, _FILE_SIZE = ("file size ", "model size "), r"\b(?:file|model) size += ([\d.]{1,12}) (MiB|GiB)\b"

#: TEI's largest batch where nothing is stated (router/src/main.rs), and its word of the longest request.
_BATCH_OF_TEI, _OF_A_REQUEST = 16384, "Maximum number of tokens per request: "
_LONGEST = expression(r"Maximum number of tokens per request: (\d{1,7})")

#: What the log has to be kept for.
LITERALS = (_KV, _MAKES_CONTEXT, _LAYERS, _OF_A_REQUEST)


def batch_of_warm_up(engine: Engine, phase: Phase, log: Log | None) -> Greed | None:
    """The largest batch of TEI on a CPU, which lies in host memory: it warms up with that (backends/src/lib.rs, warmup)."""
    told = [m for _, m in log.matching(_LONGEST, _OF_A_REQUEST, most=400)] if log is not None else []
    tokens = engine.value("max_num_batched_tokens", _BATCH_OF_TEI)
    if engine.name != "tei" or phase.doing != "warming up" or engine.container.accelerators or not told:
        return None
    longest = int(told[-1][1])
    if not isinstance(tokens, int) or tokens <= longest:
        return None
    return Greed(
        f" It warms up with a batch of up to {tokens} tokens (--max-batch-tokens), as it may have to compute one of its clients'.",
        log_evidence(phase.line),
        fixes.set_flag(
            engine,
            "max_num_batched_tokens",
            "--max-batch-tokens",
            str(longest),
            f"In place of that have it compute less at once: lower --max-batch-tokens from {tokens} to {longest}, the longest request",
        ),
    )


def in_host_memory(log: Log | None) -> int:
    """The largest model that llama.cpp loaded, by its log, where none of their layers went to a GPU."""
    if log is None or any(re.search(_ON_GPU, line.text[:500]) for line in log.find(_LAYERS)):
        return 0
    told = [size for line in log.find(*_FILE) if (size := re.search(_FILE_SIZE, line.text[:500]))]
    return max((int(float(one[1].strip(".") or 0) * (GIB if one[2] == "GiB" else MIB)) for one in told), default=0)


def long_context(engine: Engine, limit: int, log: Log | None) -> Greed | None:
    """llama.cpp without a GPU, told to hold a long context: it makes room for all of it in host memory when it starts."""
    setting = engine.explicit("max_model_len")
    if engine.name != "llama.cpp" or setting is None or not isinstance(setting.value, int) or setting.value < _LONG:
        return None
    slots = engine.value("max_num_seqs", 1)
    less = max(_SHORT, _A_SLOT * slots if isinstance(slots, int) else 0)
    if engine.container.accelerators or less >= setting.value or not _holds_context(setting.value, limit, log):
        return None
    return Greed(
        f" The KV cache for a context of {setting.value} tokens lies in that memory as well.",
        setting_evidence(engine.container, setting),
        fixes.set_flag(
            engine,
            "max_model_len",
            "--ctx-size",
            str(less),
            f"Lower --ctx-size from {setting.value} to {less}, as its KV cache lies in host memory",
        ),
    )


def _holds_context(tokens: int, limit: int, log: Log | None) -> bool:
    """Whether the KV cache of so many tokens is much of a limit: by its size in the log, or by what models of a usual size take."""
    size = tokens * _PER_TOKEN
    if log is not None and len(log):
        if buffers := [m for _, m in log.matching(_KV_BUFFER, _KV, most=500)]:
            size = int(sum(units(f"{m[2]}Mi") or 0 for m in buffers if m[1] == "CPU"))
        elif log.holds("load_tensors") and not log.holds(_MAKES_CONTEXT):
            return False  # it was still at the weights
        elif any(re.search(_ON_GPU, x.text[:500]) for x in log.find(_LAYERS)):
            return False
    return size >= _SHARE * limit
