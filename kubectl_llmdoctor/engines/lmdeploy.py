"""LMDeploy: `lmdeploy serve api_server MODEL` (lmdeploy/cli/serve.py and cli/utils.py, 0.4 to 0.18)."""

from __future__ import annotations

from typing import Any

from .common import Start, build
from .config import Engine
from .options import Row, read_options

_TABLE: tuple[Row, ...] = (
    ("model", "str", "--model-path", ""),
    ("host", "str", "--server-name", ""),
    ("port", "int", "--server-port", ""),
    ("served_model_name", "csv", "--model-name", ""),
    ("revision", "str", "--revision", ""),
    ("download_dir", "str", "--download-dir", ""),
    ("dtype", "str", "--dtype", ""),
    ("quantization", "str", "--model-format", ""),
    ("quant_policy", "str", "--quant-policy", ""),
    ("backend", "str", "--backend", ""),
    ("tensor_parallel_size", "int", "--tp", ""),
    ("data_parallel_size", "int", "--dp", ""),
    ("expert_parallel_size", "int", "--ep", ""),
    ("nnodes", "int", "--nnodes", ""),
    ("node_rank", "int", "--node-rank", ""),
    ("max_model_len", "int", "--session-len", ""),
    ("max_num_seqs", "int", "--max-batch-size", ""),
    ("max_num_batched_tokens", "int", "--max-prefill-token-num", ""),
    ("gpu_memory_utilization", "float", "--cache-max-entry-count", ""),
    ("enable_prefix_caching", "flag", "--enable-prefix-caching", ""),
    ("enforce_eager", "flag", "--eager-mode", ""),
    ("trust_remote_code", "flag", "--trust-remote-code", ""),
    ("api_key", "set", "--api-keys --api-key", ""),
    ("enable_metrics", "flag", "--enable-metrics", ""),
    ("lora_modules", "list", "--adapters", ""),
    ("chat_template", "str", "--chat-template", ""),
    ("tool_call_parser", "str", "--tool-call-parser", ""),
    ("reasoning_parser", "str", "--reasoning-parser", ""),
    ("log_level", "str", "--log-level", ""),
)

DEFAULTS: tuple[tuple[str, Any, str, str], ...] = (
    ("host", "0.0.0.0", "", ""),  # noqa: S104 - a statement about the engine
    ("port", 23333, "", ""),
    ("tensor_parallel_size", 1, "", ""),
    ("gpu_memory_utilization", 0.8, "", ""),
    ("max_num_batched_tokens", 8192, "", ""),
    ("enable_prefix_caching", False, "", ""),
    ("trust_remote_code", False, "", ""),
    ("api_key", False, "", ""),
)


def read(start: Start) -> Engine:
    """The configuration of one api_server."""
    reading = read_options(start, _TABLE, positional="model", known_flags=("--ssl", "--disable-fastapi-docs"))
    return build(start, reading.settings, reading.problems, DEFAULTS, reading.known, reading.unresolved)
