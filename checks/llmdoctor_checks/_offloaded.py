"""How many layers of a model llama.cpp, and Ollama with it, put on the GPU."""

from __future__ import annotations

import re

from kubectl_llmdoctor.api import Line, Log

#: llama.cpp, and Ollama with either of its runners (`llm_load_tensors:` before 2025, then `load_tensors:`, `ggml.go`).
_OFFLOADED = r"offloaded (\d{1,9})/(\d{1,9}) layers to GPU"


def last_offloaded(log: Log) -> tuple[Line, int, int] | None:
    """The model that was loaded last: the line, its layers on the GPU, all of them."""
    found = None
    for line in log.find("layers to GPU"):
        if (said := re.search(_OFFLOADED, line.text)) is not None and int(said[2]):
            found = line, int(said[1]), int(said[2])
    return found
