"""KServe's Hugging Face server (python/huggingfaceserver): options of its own in front of vLLM's engine arguments.

With the vLLM backend (its default where the model is supported) vLLM's options are understood as vLLM has them
(`maybe_add_vllm_cli_parser`); the image's tag is KServe's version, so nothing is said about vLLM's.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from .common import Start, build
from .config import Engine
from .options import Row, read_options
from .vllm import Parser

_TABLE: tuple[Row, ...] = (
    ("served_model_name", "one", "--model-name", ""),
    ("model", "str", "--model-id", "MODEL_ID"),
    ("model_dir", "str", "--model-dir", ""),
    ("revision", "str", "--model-revision", ""),
    ("tokenizer_revision", "str", "--tokenizer-revision", ""),
    ("port", "int", "--http-port", ""),
    ("grpc_port", "int", "--grpc-port", ""),
    ("backend", "str", "--backend", ""),
    ("task", "str", "--task", ""),
    ("dtype", "str", "--dtype", ""),
    ("max_model_len", "int", "--max-length", ""),
    ("trust_remote_code", "flag", "--trust-remote-code", ""),
)

DEFAULTS: tuple[tuple[str, Any, str, str], ...] = (
    ("model", "/mnt/models", "", ""),  # where the storage initializer puts it
    ("host", "0.0.0.0", "", ""),  # noqa: S104 - a statement about the engine
    ("port", 8080, "", ""),
    ("grpc_port", 8081, "", ""),
    ("tensor_parallel_size", 1, "", ""),
    ("pipeline_parallel_size", 1, "", ""),
    ("trust_remote_code", False, "", ""),
    ("enable_metrics", True, "", ""),
    ("api_key", False, "", ""),
    ("health_path", "/v2/health/live", "", ""),
)


def read(start: Start) -> Engine:
    """The configuration of one Hugging Face server."""
    reading = read_options(start, _TABLE)
    engine_args = Parser(None, "huggingfaceserver", start.files)
    engine_args.run(start.args)
    own = {"model", "revision", "port", "host"}
    both = {**engine_args.settings, **reading.settings}
    if "served_model_name" in engine_args.settings:  # vLLM's --served-model-name wins over --model-name
        both["served_model_name"] = engine_args.settings["served_model_name"]
    settings = {name: both[name] for name in both if name in reading.settings or name not in own}
    directory = settings.get("model_dir")
    if directory is not None and "model" not in settings:
        settings["model"] = replace(directory, name="model")
    problems = list(reading.problems)
    seen = {problem.text for problem in problems}
    problems += [
        problem for problem in engine_args.problems if problem.kind == "unresolved" and problem.text not in seen
    ]
    return build(
        start,
        settings,
        problems,
        DEFAULTS,
        reading.known and engine_args.known,
        reading.unresolved | engine_args.unresolved,
    )
