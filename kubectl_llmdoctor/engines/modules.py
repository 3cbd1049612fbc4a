"""The module of each engine, imported when the engine is met. It has `read(start)` and its table `DEFAULTS`."""

from __future__ import annotations

import functools
from importlib import import_module
from types import ModuleType

_MODULES = {"tei": "tgi", "tensorrt-llm": "trtllm", "llama.cpp": "llamacpp"}


@functools.cache
def module(engine: str) -> ModuleType:
    """The reader of an engine by its name."""
    return import_module(f".{_MODULES.get(engine, engine)}", __package__)
