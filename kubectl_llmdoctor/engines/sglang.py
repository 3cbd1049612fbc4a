"""SGLang: `python -m sglang.launch_server`, `sglang serve` and Dynamo's worker.

Options from srt/server_args.py (0.3.6 to 0.5.14) and srt/arg_groups/fields (0.5.19, 0.5.23); an argparse parser.
"""

from __future__ import annotations

from typing import Any

from .common import Start, build
from .config import Engine
from .options import Row, read_options, read_yaml

_TABLE: tuple[Row, ...] = (
    ("model", "str", "--model-path --model", ""),
    ("tokenizer", "str", "--tokenizer-path", ""),
    ("tokenizer_mode", "str", "--tokenizer-mode", ""),
    ("revision", "str", "--revision", ""),
    ("served_model_name", "one", "--served-model-name", ""),
    ("host", "str", "--host", ""),
    ("port", "int", "--port", ""),
    ("api_key", "set", "--api-key", ""),
    ("admin_api_key", "set", "--admin-api-key", ""),
    ("dtype", "str", "--dtype", ""),
    ("quantization", "str", "--quantization", ""),
    ("kv_cache_dtype", "str", "--kv-cache-dtype", ""),
    ("load_format", "str", "--load-format", ""),
    ("trust_remote_code", "flag", "--trust-remote-code", ""),
    ("max_model_len", "human", "--context-length", ""),
    ("max_num_seqs", "int", "--max-running-requests", ""),
    ("max_total_tokens", "int", "--max-total-tokens", ""),
    ("max_prefill_tokens", "int", "--max-prefill-tokens", ""),
    ("chunked_prefill_size", "int", "--chunked-prefill-size", ""),
    ("gpu_memory_utilization", "float", "--mem-fraction-static", ""),
    ("tensor_parallel_size", "int", "--tensor-parallel-size --tp-size --tp", ""),
    ("pipeline_parallel_size", "int", "--pipeline-parallel-size --pp-size --pp", ""),
    ("data_parallel_size", "int", "--data-parallel-size --dp-size --dp", ""),
    ("expert_parallel_size", "int", "--expert-parallel-size --ep-size --ep", ""),
    ("enable_dp_attention", "flag", "--enable-dp-attention", ""),
    ("attention_data_parallel_size", "int", "--attn-dp-size", ""),
    ("nnodes", "int", "--nnodes", ""),
    ("node_rank", "int", "--node-rank", ""),
    ("dist_init_addr", "str", "--dist-init-addr --nccl-init-addr", ""),
    ("distributed_timeout_seconds", "int", "--dist-timeout", ""),
    ("watchdog_timeout_seconds", "float", "--watchdog-timeout", ""),
    ("soft_watchdog_timeout_seconds", "float", "--soft-watchdog-timeout", ""),
    ("download_dir", "str", "--download-dir", ""),
    ("cpu_offload_gb", "float", "--cpu-offload-gb", ""),
    ("enforce_eager", "flag", "--disable-cuda-graph", ""),
    ("cuda_graph_max_bs", "int", "--cuda-graph-max-bs --cuda-graph-max-bs-decode", ""),
    ("enable_prefix_caching", "notflag", "--disable-radix-cache", ""),
    ("enable_hierarchical_cache", "flag", "--enable-hierarchical-cache", ""),
    ("hicache_size_gb", "float", "--hicache-size", ""),
    ("hicache_ratio", "float", "--hicache-ratio", ""),
    ("enable_metrics", "flag", "--enable-metrics", ""),
    ("enable_lora", "flag", "--enable-lora", ""),
    ("lora_modules", "list", "--lora-paths", ""),
    ("max_loras", "int", "--max-loras-per-batch", ""),
    ("max_lora_rank", "int", "--max-lora-rank", ""),
    ("tool_call_parser", "str", "--tool-call-parser", ""),
    ("reasoning_parser", "str", "--reasoning-parser", ""),
    ("chat_template", "str", "--chat-template", ""),
    ("attention_backend", "str", "--attention-backend", ""),
    ("speculative_algorithm", "str", "--speculative-algorithm", ""),
    ("speculative_model", "str", "--speculative-draft-model-path", ""),
    ("disaggregation_mode", "str", "--disaggregation-mode", ""),
    ("schedule_conservativeness", "float", "--schedule-conservativeness", ""),
    ("page_size", "int", "--page-size", ""),
    ("device", "str", "--device", ""),
    ("is_embedding", "flag", "--is-embedding", ""),
    ("config_file", "str", "--config", ""),
)

# Options without a value that are not settings here.
_ALONE = (
    "--skip-server-warmup",
    "--disable-custom-all-reduce",
    "--enable-mixed-chunk",
    "--enable-torch-compile",
    "--log-requests",
    "--enable-cache-report",
    "--enable-ep-moe",
    "--enable-deepep-moe",
    "--enable-eplb",
    "--disable-overlap-schedule",
    "--enable-p2p-check",
    "--enable-two-batch-overlap",
    "--disable-cuda-graph-padding",
    "--enable-multimodal",
    "--show-time-cost",
    "--enable-flashinfer-mla",
    "--weight-loader-disable-mmap",
    "--prefill-round-robin-balance",
)

DEFAULTS: tuple[tuple[str, Any, str, str], ...] = (
    ("host", "127.0.0.1", "", ""),
    ("port", 30000, "", ""),
    ("tensor_parallel_size", 1, "", ""),
    ("pipeline_parallel_size", 1, "", ""),
    ("data_parallel_size", 1, "", ""),
    ("nnodes", 1, "", ""),
    ("node_rank", 0, "", ""),
    ("dtype", "auto", "", ""),
    ("kv_cache_dtype", "auto", "", ""),
    ("load_format", "auto", "", ""),
    ("max_prefill_tokens", 16384, "", ""),
    ("watchdog_timeout_seconds", 300.0, "", ""),
    ("distributed_timeout_seconds", 600, "", ""),
    ("enable_metrics", False, "", ""),
    ("trust_remote_code", False, "", ""),
    ("enforce_eager", False, "", ""),
    ("enable_prefix_caching", True, "", ""),
    ("enable_lora", False, "", ""),
    ("cpu_offload_gb", 0.0, "", ""),
    ("api_key", False, "", ""),
)


def read(start: Start) -> Engine:
    """The configuration of one SGLang server."""
    reading = read_options(start, _TABLE, positional="model", known_flags=_ALONE)
    known = reading.known
    file = reading.settings.pop("config_file", None)
    if file is not None:  # 0.5.9+: keys are the options' names; the command line wins
        rows = {name: (row[0], row[1]) for row in _TABLE for flag in row[2].split() for name in _spellings(flag)}
        known = read_yaml(start, str(file.value), rows, reading.settings, overrides=False) and known
    rows_of_defaults = list(DEFAULTS)
    if start.form == "dynamo":
        rows_of_defaults = [row for row in DEFAULTS if row[0] not in ("host", "port", "api_key")]
    return build(start, reading.settings, reading.problems, rows_of_defaults, known, reading.unresolved)


def _spellings(flag: str) -> tuple[str, str]:
    return flag[2:], flag[2:].replace("-", "_")
