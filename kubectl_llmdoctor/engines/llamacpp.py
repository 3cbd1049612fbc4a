"""llama.cpp: `llama-server` (common/arg.cpp, up to August 2026); nearly every option is a LLAMA_ARG_* variable too.

The parser looks a word up as it stands: `--ctx-size=4096` is refused in every build, an option takes the next word
whatever it is, and numbers are read by C++'s stoi: `--ctx-size 32k` is 32, without a warning. The Python server
(`llama_cpp.server`) has names of its own. A router's presets (`--models-preset FILE.ini`) are not looked into: each of
its models is a server of its own.
"""

from __future__ import annotations

import functools
from typing import Any

from msgspec.structs import replace

from .common import Start, build
from .config import Engine, Problem
from .dialect import Table
from .llamacpp_flags import FLAGS, SAMPLES
from .options import Row, Style, read_options
from .version import split_image

_STYLE = Style(greedy=True, equals=False)

# Options whose common name is another one than their own, and the options' variables.
_ROWS: tuple[Row, ...] = (
    ("model", "str", "--model", "LLAMA_ARG_MODEL"),
    ("model_repo", "str", "--hf-repo", "LLAMA_ARG_HF_REPO"),
    ("model_file", "str", "--hf-file", "LLAMA_ARG_HF_FILE"),
    ("model_url", "str", "--model-url", "LLAMA_ARG_MODEL_URL"),
    ("model_image", "str", "--docker-repo", "LLAMA_ARG_DOCKER_REPO"),
    ("multimodal_projector", "str", "--mmproj", "LLAMA_ARG_MMPROJ"),
    ("served_model_name", "csv", "--alias", "LLAMA_ARG_ALIAS"),
    ("host", "str", "--host", "LLAMA_ARG_HOST"),
    ("port", "stoi", "--port", "LLAMA_ARG_PORT"),
    ("api_key", "set", "--api-key", "LLAMA_API_KEY LLAMA_ARG_API_KEY"),
    ("max_model_len", "stoi", "--ctx-size", "LLAMA_ARG_CTX_SIZE"),
    ("max_num_seqs", "stoi", "--parallel", "LLAMA_ARG_N_PARALLEL"),
    ("max_num_batched_tokens", "stoi", "--batch-size", "LLAMA_ARG_BATCH"),
    ("ubatch_size", "stoi", "--ubatch-size", "LLAMA_ARG_UBATCH"),
    ("gpu_layers", "str", "--n-gpu-layers", "LLAMA_ARG_N_GPU_LAYERS"),
    ("split_mode", "str", "--split-mode", "LLAMA_ARG_SPLIT_MODE"),
    ("tensor_split", "str", "--tensor-split", "LLAMA_ARG_TENSOR_SPLIT"),
    ("main_gpu", "stoi", "--main-gpu", "LLAMA_ARG_MAIN_GPU"),
    ("cpu_moe_layers", "stoi", "--n-cpu-moe", "LLAMA_ARG_N_CPU_MOE"),
    ("flash_attention", "onoff", "--flash-attn", "LLAMA_ARG_FLASH_ATTN"),
    ("kv_cache_dtype", "str", "--cache-type-k", "LLAMA_ARG_CACHE_TYPE_K"),
    ("kv_cache_dtype_v", "str", "--cache-type-v", "LLAMA_ARG_CACHE_TYPE_V"),
    ("threads", "stoi", "--threads", "LLAMA_ARG_THREADS"),
    ("mlock", "flag", "--mlock", "LLAMA_ARG_MLOCK"),
    ("mmap", "flag", "--mmap", "LLAMA_ARG_MMAP"),
    ("mmap", "notflag", "", "LLAMA_ARG_NO_MMAP"),
    ("kv_offload", "flag", "--kv-offload", "LLAMA_ARG_KV_OFFLOAD"),
    ("kv_offload", "notflag", "", "LLAMA_ARG_NO_KV_OFFLOAD"),
    ("load_mode", "str", "--load-mode", "LLAMA_ARG_LOAD_MODE"),
    ("cache_ram_mib", "stoi", "--cache-ram", "LLAMA_ARG_CACHE_RAM"),
    ("kv_unified", "flag", "--kv-unified", "LLAMA_ARG_KV_UNIFIED"),
    ("enable_metrics", "flag", "--metrics", "LLAMA_ARG_ENDPOINT_METRICS"),
    ("slots_endpoint", "flag", "--slots", "LLAMA_ARG_ENDPOINT_SLOTS"),
    ("slots_endpoint", "notflag", "", "LLAMA_ARG_NO_ENDPOINT_SLOTS"),
    ("timeout_seconds", "stoi", "--timeout", "LLAMA_ARG_TIMEOUT"),
    ("jinja", "flag", "--jinja", "LLAMA_ARG_JINJA"),
    ("chat_template", "str", "--chat-template", "LLAMA_ARG_CHAT_TEMPLATE"),
    ("chat_template_file", "str", "--chat-template-file", "LLAMA_ARG_CHAT_TEMPLATE_FILE"),
    ("lora_modules", "append", "--lora", ""),
    ("speculative_model", "str", "--model-draft", "LLAMA_ARG_MODEL_DRAFT LLAMA_ARG_SPEC_DRAFT_MODEL"),
    ("embeddings", "flag", "--embeddings", "LLAMA_ARG_EMBEDDINGS"),
    ("reranking", "flag", "--reranking", "LLAMA_ARG_RERANKING"),
    ("fit", "str", "--fit", "LLAMA_ARG_FIT"),
    ("models_dir", "str", "--models-dir", "LLAMA_ARG_MODELS_DIR"),
    ("models_preset", "str", "--models-preset", "LLAMA_ARG_MODELS_PRESET"),
    ("download_dir", "str", "", "LLAMA_CACHE"),
    ("offline", "flag", "--offline", "LLAMA_ARG_OFFLINE"),
)

_PYTHON: tuple[Row, ...] = (
    ("model", "str", "--model", "MODEL"),
    ("model_repo", "str", "--hf-model-repo-id", "HF_MODEL_REPO_ID"),
    ("host", "str", "--host", "HOST"),
    ("port", "int", "--port", "PORT"),
    ("api_key", "set", "--api-key", "API_KEY"),
    ("max_model_len", "int", "--n-ctx", "N_CTX"),
    ("max_num_batched_tokens", "int", "--n-batch", "N_BATCH"),
    ("gpu_layers", "str", "--n-gpu-layers", "N_GPU_LAYERS"),
    ("served_model_name", "csv", "--model-alias", "MODEL_ALIAS"),
    ("threads", "int", "--n-threads", "N_THREADS"),
    ("chat_template", "str", "--chat-format", "CHAT_FORMAT"),
)

DEFAULTS: tuple[tuple[str, Any, str, str], ...] = (
    ("port", 8080, "", ""),
    ("max_num_batched_tokens", 2048, "", ""),
    ("ubatch_size", 512, "", ""),
    ("kv_cache_dtype", "f16", "", ""),
    ("enable_metrics", False, "", ""),
    ("mlock", False, "", ""),
    ("api_key", False, "", ""),
    ("health_path", "/health", "", ""),
)


@functools.cache
def table() -> Table:
    """The options."""
    return Table("llama.cpp", "llama-server", SAMPLES, FLAGS, {}, {})


def read(start: Start) -> Engine:
    """The configuration of one llama.cpp server."""
    if start.form == "python":
        reading = read_options(start, _PYTHON)
        rows = [("port", 8000, "", ""), ("max_model_len", 2048, "", ""), *_host(start, "", "abetlen/llama-cpp-python")]
        return build(start, reading.settings, reading.problems, rows, reading.known, reading.unresolved)
    reading = read_options(start, _ROWS, table(), _STYLE)
    problems = list(reading.problems)
    settings = reading.settings
    for setting in settings.values():
        digits = setting.text.partition("=")[2].strip()
        whole = isinstance(setting.value, int) and not isinstance(setting.value, bool)
        if setting.source == "env" and whole and digits != str(setting.value):
            problems.append(
                Problem(
                    kind="bad-value",
                    flag=setting.flag,
                    text=setting.text,
                    path=setting.path,
                    detail=f"llama-server reads {digits!r} as {setting.value}, without a warning",
                    certain=False,
                )
            )
    if "model" not in settings:  # what it is fetched as, where no file is named
        for other in ("model_repo", "model_url", "model_image"):
            if other in settings:
                settings["model"] = replace(settings.pop(other), name="model")
                break
    rows = [*DEFAULTS, *_host(start, "server", "ggml-org/llama.cpp", "ggerganov/llama.cpp")]
    return build(start, settings, problems, rows, reading.known, reading.unresolved)


def _host(start: Start, tag: str, *images: str) -> list[tuple[str, Any, str, str]]:
    """The address without a flag: the makers' images set 0.0.0.0 in a variable, and so may any other image."""
    name, own, _ = split_image(start.launch.image)
    known = name.endswith(images) and own.startswith(tag)
    return [("host", "0.0.0.0", "", "")] if known else []  # noqa: S104 - what the image sets
