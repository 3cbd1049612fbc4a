"""LMDeploy: `lmdeploy serve api_server MODEL` (lmdeploy/cli/serve.py and cli/utils.py, 0.4 to 0.18).

An argparse parser; underscores are taken for dashes since 0.9.2 (`FlexibleArgumentParser`).
"""

from __future__ import annotations

import functools
from typing import Any

from .common import Start, build, version_of
from .config import Engine
from .dialect import Table
from .lmdeploy_flags import CHOICES, FLAGS, SAMPLES
from .options import ARGPARSE, FLEXIBLE, Row, read_options
from .version import at_least

# Options whose common name is another one than their own.
_ROWS: tuple[Row, ...] = (
    ("model", "str", "--model-path", ""),
    ("host", "str", "--server-name", ""),
    ("port", "int", "--server-port", ""),
    ("served_model_name", "csv", "--model-name", ""),
    ("quantization", "str", "--model-format", ""),
    ("tensor_parallel_size", "int", "--tp", ""),
    ("data_parallel_size", "int", "--dp", ""),
    ("expert_parallel_size", "int", "--ep", ""),
    ("max_model_len", "int", "--session-len", ""),
    ("max_num_seqs", "int", "--max-batch-size", ""),
    ("max_num_batched_tokens", "int", "--max-prefill-token-num", ""),
    ("gpu_memory_utilization", "float", "--cache-max-entry-count", ""),
    ("enforce_eager", "flag", "--eager-mode", ""),
    ("api_key", "set", "--api-keys", ""),
    ("lora_modules", "list", "--adapters", ""),
    ("speculative_model", "str", "--speculative-draft-model", ""),
    ("enable_metrics", "notflag", "--disable-metrics", ""),
)

_SUCCESSORS = {
    "--enable-metrics": "metrics are on by default; --disable-metrics turns them off",
    "--disable-vision-encoder": "use --language-model-only",
}

DEFAULTS: tuple[tuple[str, Any, str, str], ...] = (
    ("host", "0.0.0.0", "", ""),  # noqa: S104 - a statement about the engine
    ("port", 23333, "", ""),
    ("backend", "turbomind", "", ""),
    ("tensor_parallel_size", 1, "", ""),
    ("data_parallel_size", 1, "", ""),
    ("nnodes", 1, "", ""),
    ("node_rank", 0, "", ""),
    ("gpu_memory_utilization", 0.8, "", ""),
    ("max_num_seqs", 128, "", "0.5.3"),
    ("max_num_batched_tokens", 8192, "0.6.0", ""),
    ("dtype", "auto", "0.6.5", ""),
    ("quant_policy", "0", "", ""),
    ("enable_prefix_caching", False, "", ""),
    ("trust_remote_code", False, "0.13.0", ""),
    ("enable_metrics", False, "", "0.10.2"),
    ("enable_metrics", True, "0.12.0", ""),
    ("api_key", False, "", ""),
    ("health_path", "/health", "0.6.0", ""),
)


@functools.cache
def table() -> Table:
    """The options by release."""
    return Table("lmdeploy", "LMDeploy", SAMPLES, FLAGS, CHOICES, _SUCCESSORS)


def read(start: Start) -> Engine:
    """The configuration of one api_server."""
    style = ARGPARSE if at_least(version_of(start)[0], "0.9.2") is False else FLEXIBLE
    reading = read_options(start, _ROWS, table(), style, positional="model")
    settings, open_ = dict(reading.settings), set(reading.unresolved)
    several = settings.get("data_parallel_size")
    if several is not None and several.value != 1:
        # these ranks share the GPUs of the tensor parallel group, or have GPUs of their own where there are as many
        del settings["data_parallel_size"]
        open_.add("data_parallel_size")
    return build(start, settings, reading.problems, DEFAULTS, reading.known, open_)
