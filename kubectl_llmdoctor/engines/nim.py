"""NVIDIA NIM for LLMs: configured by variables (documentation of 1.x to 3.0; the program itself is closed).

The model is that of the image, unless NIM_MODEL_NAME or NIM_MODEL_PATH names one (the multi-LLM image).
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from .common import Start, build
from .config import Engine, Setting
from .options import Row, read_options
from .version import split_image

_TABLE: tuple[Row, ...] = (
    ("model", "str", "", "NIM_MODEL_NAME NIM_MODEL_PATH"),
    ("served_model_name", "csv", "", "NIM_SERVED_MODEL_NAME"),
    ("model_profile", "str", "", "NIM_MODEL_PROFILE"),
    ("port", "int", "", "NIM_SERVER_PORT NIM_HTTP_API_PORT"),
    ("health_port", "int", "", "NIM_HEALTH_PORT"),
    ("max_model_len", "int", "", "NIM_MAX_MODEL_LEN"),
    ("tensor_parallel_size", "int", "", "NIM_TENSOR_PARALLEL_SIZE"),
    ("pipeline_parallel_size", "int", "", "NIM_PIPELINE_PARALLEL_SIZE"),
    ("nnodes", "int", "", "NIM_NUM_COMPUTE_NODES"),
    ("node_rank", "int", "", "NIM_NODE_RANK"),
    ("gpu_memory_utilization", "float", "", "NIM_KVCACHE_PERCENT NIM_KV_CACHE_PERCENT"),
    ("enforce_eager", "bool", "", "NIM_DISABLE_CUDA_GRAPH"),
    ("passthrough_args", "str", "", "NIM_PASSTHROUGH_ARGS"),
    ("download_dir", "str", "", "NIM_CACHE_PATH"),
    ("lora_source", "str", "", "NIM_PEFT_SOURCE"),
    ("low_memory_mode", "bool", "", "NIM_LOW_MEMORY_MODE"),
    ("relax_memory_constraints", "bool", "", "NIM_RELAX_MEM_CONSTRAINTS"),
    ("trust_remote_code", "bool", "", "NIM_FORCE_TRUST_REMOTE_CODE"),
    ("logging_level", "str", "", "NIM_LOG_LEVEL"),
    ("ssl_mode", "str", "", "NIM_SSL_MODE"),
)

DEFAULTS: tuple[tuple[str, Any, str, str], ...] = (
    ("host", "0.0.0.0", "", ""),  # noqa: S104 - a statement about the engine
    ("port", 8000, "", ""),
    ("download_dir", "/opt/nim/.cache", "", ""),
    ("enable_metrics", True, "", ""),
    ("api_key", False, "", ""),
)


def read(start: Start) -> Engine:
    """The configuration of one NIM."""
    reading = read_options(start, _TABLE)
    engine = build(start, reading.settings, reading.problems, DEFAULTS, reading.known, reading.unresolved)
    repository = split_image(start.launch.image)[0]
    _, found, name = f"/{repository}".partition("/nim/")
    told = "model" in reading.settings or "model" in reading.unresolved
    if found and "/" in name and not name.endswith("llm-nim") and not told:
        model = Setting(name="model", value=name, source="default", text=f"image {repository}", path="", flag="image")
        return replace(engine, defaults={**engine.defaults, "model": model})
    return engine
