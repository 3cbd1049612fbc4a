"""Ollama: configured by variables (envconfig/config.go, 0.1 to 0.33); models are pulled through its API.

The image sets OLLAMA_HOST=0.0.0.0:11434; without it the server listens on the loopback only.
"""

from __future__ import annotations

from typing import Any

from .common import Start, build
from .config import Engine, Setting
from .options import Row, read_options
from .recognise import of_image

_TABLE: tuple[Row, ...] = (
    ("listen", "str", "", "OLLAMA_HOST"),
    ("download_dir", "str", "", "OLLAMA_MODELS"),
    ("keep_alive", "str", "", "OLLAMA_KEEP_ALIVE"),
    ("load_timeout", "str", "", "OLLAMA_LOAD_TIMEOUT"),
    ("max_loaded_models", "int", "", "OLLAMA_MAX_LOADED_MODELS"),
    ("max_queue", "int", "", "OLLAMA_MAX_QUEUE"),
    ("max_num_seqs", "int", "", "OLLAMA_NUM_PARALLEL"),
    ("max_model_len", "int", "", "OLLAMA_CONTEXT_LENGTH"),
    ("flash_attention", "bool", "", "OLLAMA_FLASH_ATTENTION"),
    ("kv_cache_dtype", "str", "", "OLLAMA_KV_CACHE_TYPE"),
    ("gpu_overhead_bytes", "int", "", "OLLAMA_GPU_OVERHEAD"),
    ("sched_spread", "bool", "", "OLLAMA_SCHED_SPREAD"),
    ("llm_library", "str", "", "OLLAMA_LLM_LIBRARY"),
    ("origins", "csv", "", "OLLAMA_ORIGINS"),
    ("debug", "str", "", "OLLAMA_DEBUG"),
)

DEFAULTS: tuple[tuple[str, Any, str, str], ...] = (
    ("port", 11434, "", ""),
    ("keep_alive", "5m", "", ""),
    ("load_timeout", "5m", "", ""),
    ("max_queue", 512, "", ""),
    ("max_model_len", 2048, "", "0.5.13"),
    ("max_model_len", 4096, "0.9.0", "0.15.0"),
    ("max_num_seqs", 1, "0.12.0", ""),
    ("kv_cache_dtype", "f16", "", ""),
    ("enable_metrics", False, "", ""),
    ("api_key", False, "", ""),
)


def read(start: Start) -> Engine:
    """The configuration of one `ollama serve`."""
    reading = read_options(start, _TABLE)
    settings = reading.settings
    listen = settings.pop("listen", None)
    rows = list(DEFAULTS)
    if listen is not None:
        for name, value in _address(str(listen.value)):
            settings[name] = Setting(
                name=name, value=value, source=listen.source, text=listen.text, path=listen.path, flag=listen.flag
            )
        rows.append(("host", "127.0.0.1", "", ""))
    else:
        own = of_image(start.launch.image) == "ollama"
        rows.append(("host", "0.0.0.0" if own else "127.0.0.1", "", ""))  # noqa: S104 - what the image sets
    return build(start, settings, reading.problems, rows, reading.known, reading.unresolved)


def _address(text: str) -> list[tuple[str, Any]]:
    """Host and port of OLLAMA_HOST: `0.0.0.0:8080`, `:8080`, `http://0.0.0.0`, `[::]:11434`."""
    rest = text.strip().strip("\"'")
    scheme, found, after = rest.partition("://")
    port_of_scheme = {"http": 80, "https": 443}.get(scheme.lower()) if found else None
    rest = (after if found else rest).partition("/")[0]
    host, colon, port = rest.rpartition(":")
    if not colon or rest.endswith("]"):
        host, port = rest, ""
    out: list[tuple[str, Any]] = []
    if host:
        out.append(("host", host.strip("[]")))
    if port.isascii() and port.isdecimal() and len(port) < 6:
        out.append(("port", int(port)))
    elif port_of_scheme and not port:
        out.append(("port", port_of_scheme))
    return out
