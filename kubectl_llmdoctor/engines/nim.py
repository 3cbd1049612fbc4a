"""NVIDIA NIM for LLMs: configured by variables (documentation of 1.x to 3.0; the program itself is closed).

The model is that of the image, unless NIM_MODEL_NAME or NIM_MODEL_PATH names one (the multi-LLM image). From 2.0 on a NIM
is an engine's own server behind `nim-serve`: arguments win over NIM_PASSTHROUGH_ARGS, which win over the NIM_* variables,
which win over the profile. A profile's readable name says how the model is split (`…-tp4-pp1-…`).
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from .argv import Word
from .common import Start, build, shell_words, version_of
from .config import Engine, Setting
from .options import Row, read_options
from .version import at_least, split_image

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
    ("gpu_memory_utilization", 0.9, "", "2.0"),
    ("enable_metrics", True, "", ""),
    ("api_key", False, "", ""),
    ("health_path", "/v1/health/ready", "", ""),
)

# Words of a profile's readable name.
_PROFILE = {"tp": "tensor_parallel_size", "pp": "pipeline_parallel_size"}


def read(start: Start) -> Engine:
    """The configuration of one NIM."""
    reading = read_options(msgspec.structs.replace(start, args=()), _TABLE)
    settings, known, unresolved = reading.settings, reading.known, set(reading.unresolved)
    version, _ = version_of(start)
    if at_least(version, "2.0") is not False:
        passed = settings.pop("passthrough_args", None)
        words = [*_passed(passed), *start.args]
        if words:
            known, more = _engine_arguments(start, words, passed, settings)
            unresolved = (unresolved | more) - settings.keys()
    _profile(settings)
    engine = build(start, settings, reading.problems, DEFAULTS, known, unresolved)
    repository = split_image(start.launch.image)[0]
    _, found, name = f"/{repository}".partition("/nim/")
    told = "model" in reading.settings or "model" in reading.unresolved
    if found and "/" in name and not name.endswith("llm-nim") and not told:
        model = Setting(name="model", value=name, source="default", text=f"image {repository}", path="", flag="image")
        return replace(engine, defaults={**engine.defaults, "model": model})
    return engine


def _passed(passed: Setting | None) -> list[Word]:
    """The words of NIM_PASSTHROUGH_ARGS."""
    if passed is None:
        return []
    return [Word(text, text, passed.path) for text in shell_words(str(passed.value))]


def _engine_arguments(
    start: Start, words: list[Word], passed: Setting | None, settings: dict[str, Setting]
) -> tuple[bool, set[str]]:
    """Adds what the engine behind a NIM is told, as vLLM reads it; which vLLM it is nobody says."""
    from .vllm import Parser

    parser = Parser(None, "hidden", start.files)
    parser.run(words)
    for name, setting in parser.settings.items():
        if passed is not None and setting.path == passed.path:
            setting = replace(setting, source="env")
        settings[name] = setting
    return parser.known, parser.unresolved


def _profile(settings: dict[str, Setting]) -> None:
    """Adds the sizes that a profile's name states, where nothing else sets them."""
    profile = settings.get("model_profile")
    if profile is None:
        return
    for part in str(profile.value).lower().split("-"):
        name, size = _PROFILE.get(part[:2]), part[2:]
        if name and size.isascii() and size.isdecimal() and len(size) < 4 and name not in settings:
            settings[name] = replace(profile, name=name, value=int(size))
