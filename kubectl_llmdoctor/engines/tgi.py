"""Text Generation Inference: every option of its launcher is a variable as well (launcher/src/main.rs, 3.3.7).

The image sets PORT=80 and HUGGINGFACE_HUB_CACHE=/data, whatever command it runs. Text Embeddings Inference is of the
same making (router/src/main.rs).
"""

from __future__ import annotations

from typing import Any

from .common import Start, build
from .config import Engine
from .options import Row, read_options
from .version import split_image

_TABLE: tuple[Row, ...] = (
    ("model", "str", "--model-id", "MODEL_ID"),
    ("revision", "str", "--revision", "REVISION"),
    ("tokenizer", "str", "--tokenizer-config-path", "TOKENIZER_CONFIG_PATH"),
    ("tensor_parallel_size", "int", "--num-shard", "NUM_SHARD"),
    ("sharded", "bool", "--sharded", "SHARDED"),
    ("quantization", "str", "--quantize", "QUANTIZE"),
    ("dtype", "str", "--dtype", "DTYPE"),
    ("kv_cache_dtype", "str", "--kv-cache-dtype", "KV_CACHE_DTYPE"),
    ("trust_remote_code", "bool", "--trust-remote-code", "TRUST_REMOTE_CODE"),
    ("max_model_len", "int", "--max-total-tokens", "MAX_TOTAL_TOKENS"),
    ("max_input_tokens", "int", "--max-input-tokens --max-input-length", "MAX_INPUT_TOKENS MAX_INPUT_LENGTH"),
    ("max_num_batched_tokens", "int", "--max-batch-prefill-tokens", "MAX_BATCH_PREFILL_TOKENS"),
    ("max_batch_total_tokens", "int", "--max-batch-total-tokens", "MAX_BATCH_TOTAL_TOKENS"),
    ("max_num_seqs", "int", "--max-batch-size", "MAX_BATCH_SIZE"),
    ("max_concurrent_requests", "int", "--max-concurrent-requests", "MAX_CONCURRENT_REQUESTS"),
    ("gpu_memory_utilization", "float", "--cuda-memory-fraction", "CUDA_MEMORY_FRACTION"),
    ("cuda_graphs", "csv", "--cuda-graphs", "CUDA_GRAPHS"),
    ("host", "str", "--hostname", ""),
    ("port", "int", "--port -p", "PORT"),
    ("metrics_port", "int", "--prometheus-port", "PROMETHEUS_PORT"),
    ("api_key", "set", "--api-key", "API_KEY"),
    ("download_dir", "str", "--huggingface-hub-cache", "HUGGINGFACE_HUB_CACHE"),
    ("lora_modules", "csv", "--lora-adapters", "LORA_ADAPTERS"),
    ("speculate", "int", "--speculate", "SPECULATE"),
    ("rope_scaling", "str", "--rope-scaling", "ROPE_SCALING"),
    ("rope_factor", "float", "--rope-factor", "ROPE_FACTOR"),
    ("waiting_served_ratio", "float", "--waiting-served-ratio", "WAITING_SERVED_RATIO"),
    ("max_waiting_tokens", "int", "--max-waiting-tokens", "MAX_WAITING_TOKENS"),
    ("attention_backend", "str", "", "ATTENTION"),
    ("enable_prefix_caching", "bool", "", "PREFIX_CACHING"),
    ("json_output", "bool", "--json-output", "JSON_OUTPUT"),
    ("master_port", "int", "--master-port", "MASTER_PORT"),
)

_ALONE = ("--disable-custom-kernels", "--env", "--disable-grammar-support", "--enable-prefill-logprobs", "-e")

DEFAULTS: tuple[tuple[str, Any, str, str], ...] = (
    ("model", "bigscience/bloom-560m", "", ""),
    ("host", "0.0.0.0", "", ""),  # noqa: S104 - a statement about the engine
    ("max_concurrent_requests", 128, "", ""),
    ("gpu_memory_utilization", 1.0, "", ""),
    ("metrics_port", 9000, "", ""),
    ("trust_remote_code", False, "", ""),
    ("enable_metrics", True, "", ""),
    ("distributed_timeout_seconds", 120, "", ""),
    ("api_key", False, "", ""),
)

_EMBEDDINGS: tuple[Row, ...] = (
    ("model", "str", "--model-id", "MODEL_ID"),
    ("revision", "str", "--revision", "REVISION"),
    ("dtype", "str", "--dtype", "DTYPE"),
    ("host", "str", "--hostname", ""),
    ("port", "int", "--port -p", "PORT"),
    ("max_concurrent_requests", "int", "--max-concurrent-requests", "MAX_CONCURRENT_REQUESTS"),
    ("max_num_batched_tokens", "int", "--max-batch-tokens", "MAX_BATCH_TOKENS"),
    ("max_num_seqs", "int", "--max-batch-requests", "MAX_BATCH_REQUESTS"),
    ("api_key", "set", "--api-key", "API_KEY"),
    ("download_dir", "str", "--huggingface-hub-cache", "HUGGINGFACE_HUB_CACHE"),
)


def read(start: Start) -> Engine:
    """The configuration of one launcher."""
    table = _EMBEDDINGS if start.engine == "tei" else _TABLE
    reading = read_options(start, table, abbreviations=False, known_flags=_ALONE)
    rows = [row for row in DEFAULTS if start.engine == "tgi" or row[0] in ("host", "trust_remote_code", "api_key")]
    last = split_image(start.launch.image)[0].rpartition("/")[2].lower()
    if last in ("text-generation-inference", "text-embeddings-inference"):
        rows.append(("port", 80, "", ""))
    elif start.program and start.launch.command:
        rows.append(("port", 3000, "", ""))
    return build(start, reading.settings, reading.problems, rows, reading.known, reading.unresolved)
