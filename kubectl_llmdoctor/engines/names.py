"""What the engines are called, and what each calls the settings that most of them have.

For advice in an engine's own words, and for options that are another engine's.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from kubectl_llmdoctor.engines.version import at_least
from kubectl_llmdoctor.expressions import expression

TITLES = {
    "vllm": "vLLM",
    "sglang": "SGLang",
    "tgi": "Text Generation Inference",
    "tei": "Text Embeddings Inference",
    "tensorrt-llm": "TensorRT-LLM",
    "triton": "Triton Inference Server",
    "nim": "NVIDIA NIM",
    "ollama": "Ollama",
    "llama.cpp": "llama.cpp server",
    "lmdeploy": "LMDeploy",
    "localai": "LocalAI",
    "huggingfaceserver": "KServe Hugging Face server",
}

#: How many processes serve together, each with a GPU.
PARALLEL_SIZES = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")

#: In names of images: gateways, routers, pickers of endpoints and caches that are made for model servers and stand before
#: or beside them.
_BESIDE = expression(
    r"litellm|gateway-api-inference-extension|ai-gateway-extproc|lmstack-router|vllm-router|sglang?-(?:model-gateway|router)|"
    r"llm-d-|aibrix|ai-dynamo|llama-swap|kubeai|lmcache|semantic-router",
    re.IGNORECASE,
)

#: Switches that llama.cpp refuses from b10875 on (PR 28334), in place of which it has one option.
LOAD_SWITCHES = ("--mmap", "--no-mmap", "--mlock", "--direct-io", "-dio", "--no-direct-io", "-ndio")


def load_mode(switches: Collection[str]) -> str:
    """The value of --load-mode that does what these switches did together."""
    if {"--direct-io", "-dio"} & {*switches}:
        return "dio"
    if "--no-mmap" in switches:
        return "mlock" if "--mlock" in switches else "none"
    return "mmap+mlock" if "--mlock" in switches else "mmap"


#: By common name and engine: the option, or the variable, as its own documentation writes it; first what to say where there is none.
OPTIONS: dict[str, dict[str, str]] = {
    "max_model_len": {
        "": "the context length", "vllm": "--max-model-len", "sglang": "--context-length",
        "tgi": "--max-total-tokens", "llama.cpp": "--ctx-size", "lmdeploy": "--session-len",
        "tensorrt-llm": "--max_seq_len", "nim": "NIM_MAX_MODEL_LEN", "ollama": "OLLAMA_CONTEXT_LENGTH",
    },
    "gpu_memory_utilization": {
        "": "the engine's share of GPU memory", "vllm": "--gpu-memory-utilization",
        "sglang": "--mem-fraction-static", "tgi": "--cuda-memory-fraction", "lmdeploy": "--cache-max-entry-count",
        "tensorrt-llm": "--kv_cache_free_gpu_memory_fraction", "nim": "NIM_KVCACHE_PERCENT",
    },
    "tensor_parallel_size": {
        "": "tensor parallelism", "vllm": "--tensor-parallel-size", "sglang": "--tp-size", "tgi": "--num-shard",
        "lmdeploy": "--tp", "tensorrt-llm": "--tp_size",
    },
    "enforce_eager": {
        "": "the switch that turns CUDA graphs off", "vllm": "--enforce-eager", "sglang": "--disable-cuda-graph",
    },
    "max_num_seqs": {
        "": "the requests at once", "vllm": "--max-num-seqs", "sglang": "--max-running-requests",
        "tgi": "--max-batch-size", "llama.cpp": "--parallel", "lmdeploy": "--max-batch-size",
        "tensorrt-llm": "--max_batch_size",
        "ollama": "OLLAMA_NUM_PARALLEL",
    },
    "max_input_tokens": {"": "the longest prompt", "tgi": "--max-input-tokens"},
    "gpu_layers": {
        "": "the layers on the GPU",
        "llama.cpp": "--n-gpu-layers",
    },
    "ubatch_size": {"": "the physical batch", "llama.cpp": "--ubatch-size"},
    "max_num_batched_tokens": {
        "": "the tokens of a batch", "vllm": "--max-num-batched-tokens", "sglang": "--chunked-prefill-size",
        "tgi": "--max-batch-prefill-tokens", "tei": "--max-batch-tokens", "llama.cpp": "--batch-size",
        "lmdeploy": "--max-prefill-token-num", "tensorrt-llm": "--max_num_tokens",
    },
    "model": {
        "": "the model", "vllm": "--model", "sglang": "--model-path", "tgi": "--model-id", "llama.cpp": "--model",
    },
    "served_model_name": {
        "": "the names it serves", "vllm": "--served-model-name", "sglang": "--served-model-name",
        "llama.cpp": "--alias", "nim": "NIM_SERVED_MODEL_NAME",
    },
    "dtype": {"": "the data type", "vllm": "--dtype", "sglang": "--dtype"},
    "quantization": {"": "the quantization", "vllm": "--quantization"},
    "load_format": {"": "the format of the weights", "vllm": "--load-format"},
    "block_size": {"": "the block size of its KV cache", "vllm": "--block-size"},
    "page_size": {"": "the page size of its KV cache", "sglang": "--page-size"},
    "kv_cache_dtype": {"": "the data type of its KV cache", "vllm": "--kv-cache-dtype", "sglang": "--kv-cache-dtype"},
    "disable_custom_all_reduce": {
        "": "its own all-reduce", "vllm": "--disable-custom-all-reduce", "sglang": "--disable-custom-all-reduce",
    },
    "kv_cache_memory_bytes": {"": "the size of the KV cache", "vllm": "--kv-cache-memory-bytes"},
    "kv_transfer_config": {"": "the KV connector's configuration", "vllm": "--kv-transfer-config"},
    "disaggregation_ib_device": {"": "the RDMA devices of the KV transfer", "sglang": "--disaggregation-ib-device"},
    "all2all_backend": {"": "the exchange of tokens between experts", "vllm": "--all2all-backend"},
    "moe_a2a_backend": {"": "the exchange of tokens between experts", "sglang": "--moe-a2a-backend"},
    "enable_metrics": {"": "its metrics", "sglang": "--enable-metrics", "llama.cpp": "--metrics"},
}  # fmt: skip


def beside_a_server(image: str | None) -> bool:
    """Whether an image is of a program that stands before or beside model servers."""
    return bool(image and _BESIDE.search(image))


def flag(engine: str, name: str) -> str:
    """The option or variable by which an engine is told a setting; empty where it has none."""
    # KServe's server hands on what vLLM takes, and has names of its own for these
    own = engine == "huggingfaceserver" and name not in ("model", "served_model_name", "dtype")
    return OPTIONS.get(name, {}).get("vllm" if own else engine, "")


def option(engine: str | None, name: str) -> str:
    """What an engine calls a setting, or words where it has no option for it; of an open engine the two commonest names."""
    known = OPTIONS[name]
    if engine is None:
        return known["vllm"] + (f", in SGLang {known['sglang']}" if known["sglang"] != known["vllm"] else "")
    return known.get("vllm" if engine == "huggingfaceserver" else engine) or known[""]


def passed_on(engine: str, version: str | None, name: str) -> str:
    """What a NIM passes on to the engine behind it, mostly vLLM, from 2.0 on, which no longer has a variable for it; empty for others."""
    later = engine == "nim" and name == "gpu_memory_utilization" and at_least(version, "2.0")
    return OPTIONS[name]["vllm"] if later else ""


def meant(engine: str, foreign: str) -> tuple[tuple[str, ...], str]:
    """Of an option that an engine lacks: the engines that have it, and what this one calls the same (empty if nothing)."""
    for known in OPTIONS.values():
        owners = tuple(other for other, name in known.items() if name == foreign and other not in ("", engine))
        if owners:
            return owners, known.get(engine, "")
    return (), ""
