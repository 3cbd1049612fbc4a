"""llama.cpp: `llama-server` (common/arg.cpp, builds up to b11434); nearly every option is a LLAMA_ARG_* variable too.

Numbers are read by C++'s stoi: `--ctx-size 32k` is 32, without a warning. The Python server (`llama_cpp.server`) has
names of its own.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from .common import Start, build
from .config import Engine, Problem
from .options import Row, read_options

_TABLE: tuple[Row, ...] = (
    ("model", "str", "-m --model", "LLAMA_ARG_MODEL"),
    ("model_repo", "str", "-hf -hfr --hf-repo", "LLAMA_ARG_HF_REPO"),
    ("model_file", "str", "-hff --hf-file", "LLAMA_ARG_HF_FILE"),
    ("model_url", "str", "-mu --model-url", "LLAMA_ARG_MODEL_URL"),
    ("multimodal_projector", "str", "-mm --mmproj", "LLAMA_ARG_MMPROJ"),
    ("served_model_name", "csv", "-a --alias", "LLAMA_ARG_ALIAS"),
    ("host", "str", "--host", "LLAMA_ARG_HOST"),
    ("port", "stoi", "--port", "LLAMA_ARG_PORT"),
    ("api_key", "set", "--api-key", "LLAMA_API_KEY LLAMA_ARG_API_KEY"),
    ("api_key_file", "str", "--api-key-file", ""),
    ("max_model_len", "stoi", "-c --ctx-size", "LLAMA_ARG_CTX_SIZE"),
    ("max_num_seqs", "stoi", "-np --parallel", "LLAMA_ARG_N_PARALLEL"),
    ("max_num_batched_tokens", "stoi", "-b --batch-size", "LLAMA_ARG_BATCH"),
    ("ubatch_size", "stoi", "-ub --ubatch-size", "LLAMA_ARG_UBATCH"),
    ("gpu_layers", "str", "-ngl --gpu-layers --n-gpu-layers", "LLAMA_ARG_N_GPU_LAYERS"),
    ("split_mode", "str", "-sm --split-mode", "LLAMA_ARG_SPLIT_MODE"),
    ("tensor_split", "str", "-ts --tensor-split", "LLAMA_ARG_TENSOR_SPLIT"),
    ("main_gpu", "stoi", "-mg --main-gpu", "LLAMA_ARG_MAIN_GPU"),
    ("cpu_moe_layers", "stoi", "-ncmoe --n-cpu-moe", "LLAMA_ARG_N_CPU_MOE"),
    ("flash_attention", "onoff", "-fa --flash-attn", "LLAMA_ARG_FLASH_ATTN"),
    ("kv_cache_dtype", "str", "-ctk --cache-type-k", "LLAMA_ARG_CACHE_TYPE_K"),
    ("kv_cache_dtype_v", "str", "-ctv --cache-type-v", "LLAMA_ARG_CACHE_TYPE_V"),
    ("threads", "stoi", "-t --threads", "LLAMA_ARG_THREADS"),
    ("mlock", "flag", "--mlock", "LLAMA_ARG_MLOCK"),
    ("mmap", "notflag", "--no-mmap", "LLAMA_ARG_NO_MMAP"),
    ("kv_offload", "notflag", "-nkvo --no-kv-offload", "LLAMA_ARG_NO_KV_OFFLOAD"),
    ("cache_ram_mib", "stoi", "-cram --cache-ram", "LLAMA_ARG_CACHE_RAM"),
    ("enable_metrics", "flag", "--metrics", "LLAMA_ARG_ENDPOINT_METRICS"),
    ("slots_endpoint", "notflag", "--no-slots", "LLAMA_ARG_NO_ENDPOINT_SLOTS"),
    ("timeout_seconds", "stoi", "-to --timeout", "LLAMA_ARG_TIMEOUT"),
    ("jinja", "flag", "--jinja", "LLAMA_ARG_JINJA"),
    ("chat_template", "str", "--chat-template", "LLAMA_ARG_CHAT_TEMPLATE"),
    ("chat_template_file", "str", "--chat-template-file", "LLAMA_ARG_CHAT_TEMPLATE_FILE"),
    ("lora_modules", "append", "--lora", ""),
    ("speculative_model", "str", "-md --model-draft", "LLAMA_ARG_MODEL_DRAFT"),
    ("embeddings", "flag", "--embedding --embeddings", "LLAMA_ARG_EMBEDDINGS"),
    ("reranking", "flag", "--rerank --reranking", "LLAMA_ARG_RERANKING"),
    ("fit", "str", "-fit --fit", "LLAMA_ARG_FIT"),
    ("download_dir", "str", "", "LLAMA_CACHE"),
)

_ALONE = (
    "-cb",
    "--cont-batching",
    "-nocb",
    "--no-cont-batching",
    "--no-warmup",
    "--warmup",
    "--verbose",
    "-v",
    "--log-disable",
    "--no-webui",
    "--slots",
    "--no-context-shift",
    "--context-shift",
    "--swa-full",
    "--kv-unified",
    "-kvu",
    "--no-jinja",
    "--mmap",
    "--check-tensors",
    "--server",
    "-s",
    "--offline",
    "--no-mmproj",
    "--numa-distribute",
    "--log-timestamps",
    "--log-prefix",
    "--no-perf",
    "--special",
    "-cmoe",
    "--cpu-moe",
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
    ("host", "127.0.0.1", "", ""),
    ("port", 8080, "", ""),
    ("max_num_batched_tokens", 2048, "", ""),
    ("ubatch_size", 512, "", ""),
    ("kv_cache_dtype", "f16", "", ""),
    ("enable_metrics", False, "", ""),
    ("mlock", False, "", ""),
    ("api_key", False, "", ""),
)


def read(start: Start) -> Engine:
    """The configuration of one llama.cpp server."""
    if start.form == "python":
        reading = read_options(start, _PYTHON)
        rows = [("host", "localhost", "", ""), ("port", 8000, "", ""), ("max_model_len", 2048, "", "")]
        return build(start, reading.settings, reading.problems, rows, reading.known, reading.unresolved)
    reading = read_options(start, _TABLE, abbreviations=False, known_flags=_ALONE)
    problems = list(reading.problems)
    settings = reading.settings
    for setting in settings.values():
        digits = setting.text.replace("=", " ").split()[-1].strip("\"'")
        whole = isinstance(setting.value, int) and not isinstance(setting.value, bool)
        if whole and digits[:1].isdigit() and not digits.isdecimal():
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
        for other in ("model_repo", "model_url"):
            if other in settings:
                settings["model"] = replace(settings.pop(other), name="model")
                break
    rows = list(DEFAULTS)
    return build(start, settings, problems, rows, reading.known, reading.unresolved)
