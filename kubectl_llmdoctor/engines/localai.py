"""LocalAI: `local-ai run`, whose options each have a variable (core/cli/run.go of 4.0, 2026-08).

Models come from its gallery or from a folder of YAML files, several at a time; those named at the start are its
positional arguments. The address has no host as a rule, so that it listens on all.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from .common import Start, build
from .config import Engine
from .options import Row, read_options

_TABLE: tuple[Row, ...] = (
    ("model", "str", "--models", "LOCALAI_MODELS MODELS"),
    ("listen", "str", "--address", "LOCALAI_ADDRESS ADDRESS"),
    ("max_model_len", "int", "--context-size", "LOCALAI_CONTEXT_SIZE CONTEXT_SIZE"),
    ("threads", "int", "--threads -t", "LOCALAI_THREADS THREADS"),
    ("download_dir", "str", "--models-path", "LOCALAI_MODELS_PATH MODELS_PATH"),
    ("backends_path", "str", "--backends-path", "LOCALAI_BACKENDS_PATH BACKENDS_PATH"),
    ("models_config_file", "str", "--models-config-file --config-file", "LOCALAI_MODELS_CONFIG_FILE CONFIG_FILE"),
    ("preload_models", "set", "--preload-models", "LOCALAI_PRELOAD_MODELS PRELOAD_MODELS"),
    ("f16", "bool", "--f16", "LOCALAI_F16 F16"),
    ("api_key", "set", "--api-keys", "LOCALAI_API_KEY API_KEY"),
    ("parallel_requests", "bool", "--parallel-requests", "LOCALAI_PARALLEL_REQUESTS PARALLEL_REQUESTS"),
    ("single_active_backend", "bool", "--single-active-backend", "LOCALAI_SINGLE_ACTIVE_BACKEND SINGLE_ACTIVE_BACKEND"),
    ("disable_metrics", "bool", "--disable-metrics-endpoint", "LOCALAI_DISABLE_METRICS_ENDPOINT DISABLE_METRICS_ENDPOINT"),
)  # fmt: skip

DEFAULTS: tuple[tuple[str, Any, str, str], ...] = (
    ("host", "0.0.0.0", "", ""),  # noqa: S104 - a statement about the engine
    ("port", 8080, "", ""),
    ("enable_metrics", True, "", ""),
    ("api_key", False, "", ""),
    ("health_path", "/readyz", "", ""),
)


def read(start: Start) -> Engine:
    """The configuration of one server."""
    reading = read_options(start, _TABLE, positional="model")
    settings = reading.settings
    listen = settings.pop("listen", None)
    if listen is not None:
        host, _, port = str(listen.value).rpartition(":")
        if host:
            settings["host"] = replace(listen, name="host", value=host.strip("[]"))
        if port.isascii() and port.isdecimal() and len(port) < 6:
            settings["port"] = replace(listen, name="port", value=int(port))
    return build(start, settings, reading.problems, DEFAULTS, reading.known, reading.unresolved)
