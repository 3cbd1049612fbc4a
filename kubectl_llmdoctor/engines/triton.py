"""Triton Inference Server: `tritonserver` and the launcher of the TensorRT-LLM backend.

The models' configuration lies in the model repository (`config.pbtxt`), which is not seen here; a launcher of one's own
(`server.py --tp=2 --pp=1`) is read as far as its options speak for themselves.
"""

from __future__ import annotations

from typing import Any

from .common import Start, build
from .config import Engine
from .options import Row, read_options

_TABLE: tuple[Row, ...] = (
    ("model_repository", "str", "--model-repository --model-store --model-repo", ""),
    ("host", "str", "--http-address", ""),
    ("port", "int", "--http-port", ""),
    ("grpc_port", "int", "--grpc-port", ""),
    ("metrics_port", "int", "--metrics-port", ""),
    ("enable_metrics", "bool", "--allow-metrics", ""),
    ("world_size", "int", "--world-size", ""),
    ("tensor_parallel_size", "int", "--tp --tp-size", ""),
    ("pipeline_parallel_size", "int", "--pp --pp-size", ""),
    ("model_control_mode", "str", "--model-control-mode", ""),
    ("load_model", "append", "--load-model", ""),
    ("cuda_memory_pool_bytes", "str", "--cuda-memory-pool-byte-size", ""),
    ("shm_region_prefix", "str", "--shm-region-prefix-name", ""),
)

DEFAULTS: tuple[tuple[str, Any, str, str], ...] = (
    ("host", "0.0.0.0", "", ""),  # noqa: S104 - a statement about the engine
    ("port", 8000, "", ""),
    ("grpc_port", 8001, "", ""),
    ("metrics_port", 8002, "", ""),
    ("enable_metrics", True, "", ""),
    ("api_key", False, "", ""),
)


def read(start: Start) -> Engine:
    """The configuration of one Triton server."""
    reading = read_options(start, _TABLE)
    return build(start, reading.settings, reading.problems, DEFAULTS, reading.known, reading.unresolved)
