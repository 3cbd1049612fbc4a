"""TensorRT-LLM: `trtllm-serve MODEL` (tensorrt_llm/commands/serve.py, a click program) and Dynamo's worker.

The YAML of `--config` / `--extra_llm_api_options` overrides the options.
"""

from __future__ import annotations

import functools
from typing import Any

from .common import Start, build
from .config import Engine
from .dialect import Table
from .options import CLICK, LENIENT, Row, read_options, read_yaml
from .trtllm_flags import FLAGS, SAMPLES

# Options whose common name is another one than their own.
_ROWS: tuple[Row, ...] = (
    ("model", "str", "--model", ""),
    ("served_model_name", "one", "--served_model_name", ""),
    ("revision", "str", "--revision", ""),
    ("max_model_len", "int", "--max_seq_len", ""),
    ("max_num_seqs", "int", "--max_batch_size", ""),
    ("max_num_batched_tokens", "int", "--max_num_tokens", ""),
    ("expert_parallel_size", "int", "--moe_expert_parallel_size", ""),
    ("gpu_memory_utilization", "float", "--free_gpu_memory_fraction", ""),
    ("enable_dp_attention", "flag", "--enable_attention_dp", ""),
    ("tool_call_parser", "str", "--tool_parser", ""),
    ("config_file", "str", "--config", ""),
)

# Dynamo's worker: options of its own, with variables (components/src/dynamo/trtllm).
_DYNAMO: tuple[Row, ...] = (
    ("model", "str", "--model-path --model", ""),
    ("served_model_name", "one", "--served-model-name", ""),
    ("max_model_len", "int", "--max-seq-len", ""),
    ("max_num_seqs", "int", "--max-batch-size", ""),
    ("max_num_batched_tokens", "int", "--max-num-tokens", ""),
    ("max_beam_width", "int", "--max-beam-width", ""),
    ("tensor_parallel_size", "int", "--tensor-parallel-size", ""),
    ("pipeline_parallel_size", "int", "--pipeline-parallel-size", ""),
    ("expert_parallel_size", "int", "--expert-parallel-size", ""),
    ("gpus_per_node", "int", "--gpus-per-node", ""),
    ("gpu_memory_utilization", "float", "--free-gpu-memory-fraction", ""),
    ("enable_dp_attention", "flag", "--enable-attention-dp", ""),
    ("disaggregation_mode", "str", "--disaggregation-mode", ""),
    ("kv_block_size", "int", "--kv-block-size", ""),
    ("config_file", "str", "--extra-engine-args", ""),
)

_FILE = {
    "tensor_parallel_size": ("tensor_parallel_size", "int"),
    "pipeline_parallel_size": ("pipeline_parallel_size", "int"),
    "context_parallel_size": ("context_parallel_size", "int"),
    "moe_expert_parallel_size": ("expert_parallel_size", "int"),
    "max_seq_len": ("max_model_len", "int"),
    "max_batch_size": ("max_num_seqs", "int"),
    "max_num_tokens": ("max_num_batched_tokens", "int"),
    "dtype": ("dtype", "str"),
    "kv_cache_config.free_gpu_memory_fraction": ("gpu_memory_utilization", "float"),
    "kv_cache_config.dtype": ("kv_cache_dtype", "str"),
    "kv_cache_config.enable_block_reuse": ("enable_prefix_caching", "bool"),
    "kv_cache_config.max_tokens": ("max_total_tokens", "int"),
    "scheduler_config.capacity_scheduler_policy": ("capacity_scheduler_policy", "str"),
    "enable_chunked_prefill": ("enable_chunked_prefill", "bool"),
    "enable_attention_dp": ("enable_dp_attention", "bool"),
    "quant_config.quant_algo": ("quantization", "str"),
    "kv_cache_config.host_cache_size": ("host_cache_bytes", "int"),
    "trust_remote_code": ("trust_remote_code", "bool"),
    "backend": ("backend", "str"),
    "tokenizer": ("tokenizer", "str"),
    "max_beam_width": ("max_beam_width", "int"),
    "gpus_per_node": ("gpus_per_node", "int"),
    "disable_overlap_scheduler": ("disable_overlap_scheduler", "bool"),
    "speculative_config": ("speculative_config", "json"),
    "cuda_graph_config": ("cuda_graph_config", "json"),
    "moe_config.backend": ("moe_backend", "str"),
}

DEFAULTS: tuple[tuple[str, Any, str, str], ...] = (
    ("host", "localhost", "", ""),
    ("port", 8000, "", ""),
    ("tensor_parallel_size", 1, "", ""),
    ("pipeline_parallel_size", 1, "", ""),
    ("gpu_memory_utilization", 0.9, "", ""),
    ("trust_remote_code", False, "", ""),
    ("api_key", False, "", ""),
    ("health_path", "/health", "", ""),
)


@functools.cache
def table() -> Table:
    """The options."""
    return Table("tensorrt-llm", "TensorRT-LLM", SAMPLES, FLAGS, {}, {})


def read(start: Start) -> Engine:
    """The configuration of one trtllm-serve."""
    if start.form == "dynamo":
        reading = read_options(start, _DYNAMO, style=LENIENT)
    else:
        reading = read_options(start, _ROWS, table(), CLICK, positional="model")
    known = reading.known
    file = reading.settings.pop("config_file", None)
    if file is not None:
        known = read_yaml(start, str(file.value), _FILE, reading.settings, reading.unresolved, overrides=True) and known
    hidden = ("host", "port", "api_key", "health_path") if start.form == "dynamo" else ()
    rows = [row for row in DEFAULTS if row[0] not in hidden]
    return build(start, reading.settings, reading.problems, rows, known, reading.unresolved)
