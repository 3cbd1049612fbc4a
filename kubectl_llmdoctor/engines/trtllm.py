"""TensorRT-LLM: `trtllm-serve MODEL` (tensorrt_llm/commands/serve.py, a click program) and Dynamo's worker.

The YAML of `--config` / `--extra_llm_api_options` overrides the options.
"""

from __future__ import annotations

from typing import Any

from .common import Start, build
from .config import Engine
from .options import Row, read_options, read_yaml

_TABLE: tuple[Row, ...] = (
    ("model", "str", "--model-path --model", ""),
    ("tokenizer", "str", "--tokenizer", ""),
    ("revision", "str", "--revision", ""),
    ("served_model_name", "one", "--served-model-name", ""),
    ("host", "str", "--host", ""),
    ("port", "int", "--port", ""),
    ("backend", "str", "--backend", ""),
    ("max_model_len", "int", "--max-seq-len", ""),
    ("max_num_seqs", "int", "--max-batch-size", ""),
    ("max_num_batched_tokens", "int", "--max-num-tokens", ""),
    ("max_beam_width", "int", "--max-beam-width", ""),
    ("tensor_parallel_size", "int", "--tp-size --tensor-parallel-size", ""),
    ("pipeline_parallel_size", "int", "--pp-size --pipeline-parallel-size", ""),
    ("expert_parallel_size", "int", "--ep-size --moe-expert-parallel-size --expert-parallel-size", ""),
    ("gpus_per_node", "int", "--gpus-per-node", ""),
    ("gpu_memory_utilization", "float", "--kv-cache-free-gpu-memory-fraction --free-gpu-memory-fraction", ""),
    ("kv_cache_dtype", "str", "--kv-cache-dtype", ""),
    ("trust_remote_code", "flag", "--trust-remote-code", ""),
    ("reasoning_parser", "str", "--reasoning-parser", ""),
    ("tool_call_parser", "str", "--tool-parser", ""),
    ("log_level", "str", "--log-level", ""),
    ("config_file", "str", "--extra-llm-api-options --config --extra-engine-args", ""),
)

_FILE = {
    "tensor_parallel_size": ("tensor_parallel_size", "int"),
    "pipeline_parallel_size": ("pipeline_parallel_size", "int"),
    "moe_expert_parallel_size": ("expert_parallel_size", "int"),
    "max_seq_len": ("max_model_len", "int"),
    "max_batch_size": ("max_num_seqs", "int"),
    "max_num_tokens": ("max_num_batched_tokens", "int"),
    "dtype": ("dtype", "str"),
    "kv_cache_config.free_gpu_memory_fraction": ("gpu_memory_utilization", "float"),
    "kv_cache_config.dtype": ("kv_cache_dtype", "str"),
    "kv_cache_config.enable_block_reuse": ("enable_prefix_caching", "bool"),
    "kv_cache_config.max_tokens": ("max_total_tokens", "int"),
    "enable_chunked_prefill": ("enable_chunked_prefill", "bool"),
    "enable_attention_dp": ("enable_dp_attention", "bool"),
    "quant_config.quant_algo": ("quantization", "str"),
    "trust_remote_code": ("trust_remote_code", "bool"),
}

DEFAULTS: tuple[tuple[str, Any, str, str], ...] = (
    ("host", "localhost", "", ""),
    ("port", 8000, "", ""),
    ("tensor_parallel_size", 1, "", ""),
    ("pipeline_parallel_size", 1, "", ""),
    ("gpu_memory_utilization", 0.9, "", ""),
    ("trust_remote_code", False, "", ""),
    ("api_key", False, "", ""),
)


def read(start: Start) -> Engine:
    """The configuration of one trtllm-serve."""
    reading = read_options(start, _TABLE, positional="model", abbreviations=False)
    known = reading.known
    file = reading.settings.pop("config_file", None)
    if file is not None:
        known = read_yaml(start, str(file.value), _FILE, reading.settings, overrides=True) and known
    rows = [row for row in DEFAULTS if start.form != "dynamo" or row[0] not in ("host", "port", "api_key")]
    return build(start, reading.settings, reading.problems, rows, known, reading.unresolved)
