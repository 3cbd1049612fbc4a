"""Triton Inference Server: `tritonserver` and the launcher of the TensorRT-LLM backend.

The models' configuration lies in the model repository: `config.pbtxt` of the TensorRT-LLM backend, `model.json` (vLLM's
engine arguments) of the vLLM backend. They are read where they are mounted from a ConfigMap. A launcher of one's own
(`server.py --tp=2 --pp=1`) is read as far as its options speak for themselves.
"""

from __future__ import annotations

import re
from typing import Any

from kubectl_llmdoctor.expressions import expression

from .common import Start, build
from .config import Engine, Setting
from .options import Row, read_options
from .values import BadValueError, convert, parse_json

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
    ("health_path", "/v2/health/ready", "", ""),
)

# Fields and parameters of config.pbtxt: common name and kind (tensorrtllm_backend, all_models/inflight_batcher_llm).
_FIELDS = {
    "backend": ("backend", "str"),
    "max_batch_size": ("max_num_seqs", "int"),
    "gpt_model_path": ("model", "str"),
    "kv_cache_free_gpu_mem_fraction": ("gpu_memory_utilization", "float"),
    "max_tokens_in_paged_kv_cache": ("max_total_tokens", "int"),
    "enable_kv_cache_reuse": ("enable_prefix_caching", "bool"),
    "enable_chunked_context": ("enable_chunked_prefill", "bool"),
    "kv_cache_host_memory_bytes": ("host_cache_bytes", "int"),
    "batch_scheduler_policy": ("capacity_scheduler_policy", "str"),
    "max_beam_width": ("max_beam_width", "int"),
}

# Arguments of the vLLM backend that are called otherwise here.
_VLLM = {"enable_expert_parallel": "expert_parallel"}

_BACKENDS = ("tensorrtllm", "vllm")


#: `name: "value"`, and `key: "name" value: { string_value: "value" }`, in protobuf's text format.
_PBTXT = expression(
    r'\bkey\s*+:\s*+"(?P<key>\w{1,80})"\s*+,?\s*+value\s*+:?\s*+\{\s*+string_value\s*+:\s*+"(?P<string>[^"\n]{0,500})"'
    r'|^[ \t]*+(?P<field>backend|max_batch_size)\s*+:\s*+"?(?P<value>[^"\n]{1,100}?)"?\s*$',
    re.MULTILINE | re.ASCII,
)


def read(start: Start) -> Engine:
    """The configuration of one Triton server."""
    reading = read_options(start, _TABLE)
    settings = dict(reading.settings)
    for file, text in start.files.items():
        if file.endswith("/config.pbtxt"):
            _read_pbtxt(file, text, settings)
        elif file.endswith("/model.json"):
            _read_model(file, text, settings)
    return build(start, settings, reading.problems, DEFAULTS, reading.known, reading.unresolved)


def _read_pbtxt(file: str, text: str, settings: dict[str, Setting]) -> None:
    """Adds what the configuration of a model with one of the LLM backends says; that of pre- and postprocessing not."""
    found = [
        (match["key"] or match["field"], match["string"] if match["key"] else match["value"], match[0].strip())
        for match in _PBTXT.finditer(text[:200_000])
    ]
    if not any(key == "backend" and value in _BACKENDS for key, value, _ in found):
        return
    for key, value, shown in found:
        name, kind = _FIELDS.get(key, ("", ""))
        if not name or name in settings or not value or "${" in value or (key == "max_batch_size" and value == "0"):
            continue
        try:
            converted = convert(kind, value)
        except BadValueError:
            continue
        line = " ".join(shown.split())
        settings[name] = Setting(name=name, value=converted, source="file", text=line, path=file, flag=key)


def _read_model(file: str, text: str, settings: dict[str, Setting]) -> None:
    """Adds the engine arguments of the vLLM backend."""
    try:
        content = parse_json(text)
    except BadValueError:
        return
    for key, value in list(content.items())[:200] if isinstance(content, dict) else ():
        name = str(_VLLM.get(key, key))
        if name not in settings and value is not None and name.isidentifier():
            settings[name] = Setting(name=name, value=value, source="file", text=f"{key}: {value}", path=file, flag=key)
