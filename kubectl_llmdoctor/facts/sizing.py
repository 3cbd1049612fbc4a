"""What fits into the GPUs of an engine: its model, its settings, its GPU and what it printed, put into one budget."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from kubectl_llmdoctor.engines.names import PARALLEL_SIZES
from kubectl_llmdoctor.facts import llama_memory
from kubectl_llmdoctor.facts.units import GIB, MIB

if TYPE_CHECKING:
    from kubectl_llmdoctor.catalog.architecture import Architecture
    from kubectl_llmdoctor.facts.accelerator import Accelerator
    from kubectl_llmdoctor.facts.engine import Engine
    from kubectl_llmdoctor.facts.llama_memory import LlamaMemory
    from kubectl_llmdoctor.facts.logs import Line, Log, Logs
    from kubectl_llmdoctor.facts.unknown import NotApplicable, Unknown
    from kubectl_llmdoctor.memory.budget import Budget, Measured
    from kubectl_llmdoctor.memory.options import Option
    from kubectl_llmdoctor.memory.serving import Serving

#: Engines whose use of GPU memory is computed.
ENGINES = frozenset({"vllm", "sglang", "tensorrt-llm", "lmdeploy"})

#: Before the number, in the log of Text Embeddings Inference.
_LONGEST_INPUT = "Maximum number of tokens per request: "

#: Settings that only decide how much is left for the cache.
_ROOM = ("gpu_memory_utilization", "quantization", "dtype", "kv_cache_dtype", "kv_cache_memory_bytes")
#: Among more GPUs than this nobody shares a model, and a number that somebody wrote may have no end.
_MOST_GPUS = 1024


class Sizing:
    """The memory of one engine, as far as it is known; `unknown` says what is missing for any statement at all."""

    def __init__(self, engine: Engine, logs: Logs, gpu: Callable[[], Accelerator | Unknown | NotApplicable]) -> None:
        self.engine = engine
        #: those of its pod
        self._logs = logs
        #: finds the GPU of its container
        self._gpu = gpu

    @cached_property
    def model(self) -> tuple[Architecture, str] | None:
        """The model's architecture and where it is known from, in words."""
        from kubectl_llmdoctor.catalog.architecture import of_config
        from kubectl_llmdoctor.catalog.models import find

        stated = self.engine.get("model")
        name = str(stated.value) if stated is not None else ""
        for path, text in self.engine.container.files.items():
            if path.endswith("/config.json") and (path.startswith(f"{name.rstrip('/')}/") or not name.startswith("/")):
                try:
                    config = msgspec.json.decode(text)
                except msgspec.DecodeError:
                    continue
                if isinstance(config, dict) and config.get("architectures"):
                    return of_config(config), path
        for candidate in dict.fromkeys(filter(None, (name, self.engine.checkpoint))):
            found = find(candidate)
            if found is not None:
                return found.architecture, found.id if found.exact else f"{found.id}, by the name {candidate}"
        return None

    @cached_property
    def file_bytes(self) -> int | None:
        """The least that the checkpoint's weight files take on a disk; None where the model's shape is not known.

        As they are stored: whatever the engine converts or quantizes them to when it loads them.
        """
        return _file_bytes(self.model[0]) if self.model else None

    def splits(self, most: int) -> int:
        """The most GPUs, of so many, that can share the model evenly; of one that is not known, a power of two."""
        from kubectl_llmdoctor.memory.weights import indivisible

        if self.model is None:
            return 1 << (most.bit_length() - 1) if most > 0 else 0
        sizes = range(min(most, _MOST_GPUS), 1, -1)
        return next((size for size in sizes if not indivisible(self.model[0], size)), min(most, 1))

    @property
    def model_name(self) -> str:
        """The model as the engine was told, for a sentence."""
        return str(self.engine.value("model") or "the model")

    @cached_property
    def options(self) -> list[Option]:
        """Changes after which it surely fits, the gentlest first; none where the GPU is not known."""
        from kubectl_llmdoctor.memory.options import options

        if self.budget is None or self.model is None or self.accelerator is None:
            return []
        return options(self.model[0], self.serving, self.accelerator.gpu)

    @cached_property
    def accelerator(self) -> Accelerator | None:
        """The GPU of the container; None where it is not known."""
        from kubectl_llmdoctor.facts.accelerator import Accelerator

        found = self._gpu()
        return found if isinstance(found, Accelerator) else None

    @property
    def has_log(self) -> bool:
        """Whether there is a log of the container that says anything."""
        return any(log.text for log in self.engine.container.own_logs(self._logs))

    @cached_property
    def longest_input(self) -> int | None:
        """The tokens of the longest input that Text Embeddings Inference says it takes."""
        said = (line for log in self.engine.container.own_logs(self._logs) for line in log.find(_LONGEST_INPUT))
        found = next((re.search(rf"{_LONGEST_INPUT}(\d{{1,9}})\b", line.text[:1000]) for line in said), None)
        return int(found[1]) if found else None

    @cached_property
    def serving(self) -> Serving:
        """The settings that decide memory."""
        from kubectl_llmdoctor.memory.serving import of_settings

        return of_settings(self.engine.name, self.engine.version, self.engine.value)

    @cached_property
    def printed(self) -> Printed:
        """What the engine's log says of its memory; of the newest instance that says anything."""
        for log in self._newest_first:
            found = _printed(self.engine.name, log)
            if found.lines:
                return found
        return Printed()

    @cached_property
    def llama(self) -> LlamaMemory:
        """What llama.cpp says of the memory of its GPUs."""
        return llama_memory.of_logs(self._newest_first)

    @property
    def _newest_first(self) -> list[Log]:
        own = self._logs.all if self.engine.pod.log_only else self.engine.container.own_logs(self._logs)
        return own[::-1]

    @cached_property
    def unknown(self) -> str:
        """Why nothing can be computed; empty when something can."""
        if self.engine.name not in ENGINES:
            return f"how {self.engine.title} divides GPU memory is not computed"
        missing = [name for name in PARALLEL_SIZES if self._hidden(name)]
        if self.printed.measured.cache is None:
            missing += [name for name in _ROOM if self._hidden(name)]
        if self._hidden("max_model_len"):
            missing.append("max_model_len")
        if missing:
            return f"{', '.join(missing)} of {self.engine.title} cannot be seen"
        if self.model is None:
            name = self.engine.value("model")
            return f"the shape of the model {name} is not known" if name else "the model is not known"
        accelerator = self.accelerator
        if accelerator is None and self.printed.measured.total is None and self.printed.measured.cache is None:
            return "the GPU is not known"
        if accelerator is not None and accelerator.shared > 1 and self.printed.measured.cache is None:
            return f"the GPU is shared ({accelerator.sharing}), and who else uses it is not known"
        return ""

    def _hidden(self, name: str) -> bool:
        """Whether a setting may have a value that cannot be seen."""
        found = self.engine.found
        return self.engine.get(name) is None and (name in found.unresolved or not found.argv_known)

    @cached_property
    def budget(self) -> Budget | None:
        """What fits; None where `unknown` says why not."""
        from kubectl_llmdoctor.memory.budget import budget
        from kubectl_llmdoctor.memory.options import memory_of

        if self.unknown or self.model is None:
            return None
        gpu = self.accelerator.gpu if self.accelerator else None
        total = memory_of(gpu) if gpu else None
        return budget(self.model[0], self.serving, total, gpu.name if gpu else "", self.printed.measured)


class Printed(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine printed of its memory, and the lines: `weights`, `cache`, `tokens`, `total`, `working`."""

    measured: Measured = msgspec.field(default_factory=lambda: _measured())
    lines: dict[str, Line] = {}


def _measured(**found: Any) -> Measured:
    from kubectl_llmdoctor.memory.budget import Measured

    return Measured(**found)


# What engines print of their memory: amount, literal, pattern, unit; of several ranks the fullest one counts. Sources:
# vLLM v1/worker/gpu_worker.py, v1/worker/gpu_model_runner.py, v1/core/kv_cache_utils.py, worker/worker.py; SGLang
# model_executor/model_runner.py, mem_cache/memory_pool.py; TensorRT-LLM _torch/pyexecutor.
_VLLM: tuple[tuple[str, str, str, int], ...] = (
    ("weights", "Model loading took", r"Model loading took (?P<size>\d{1,9}(?:\.\d+)?) G(?:i)?B", GIB),
    ("weights", "Loading model weights took", r"Loading model weights took (?P<size>\d{1,9}(?:\.\d+)?) GB", GIB),
    ("cache", "Available KV cache memory", r"Available KV cache memory: (?P<size>\d{1,9}(?:\.\d+)?) GiB", GIB),
    ("cache", "reserved for KV Cache is", r"reserved for KV Cache is (?P<size>\d{1,9}(?:\.\d+)?)GiB", GIB),
    ("cache", "available KV cache memory (", r"available KV cache memory \((?P<size>\d{1,9}(?:\.\d+)?) GiB\)", GIB),
    ("tokens", "KV cache size:", r"KV cache size: (?P<size>\d[\d,]{0,15}) tokens", 1),
    (
        "total",
        "Free memory on device",
        r"Free memory on device(?: [\w:]+)? \([\d.]+/(?P<size>\d{1,9}(?:\.\d+)?) GiB\)",
        GIB,
    ),
    ("total", "total_gpu_memory (", r"total_gpu_memory \((?P<size>\d{1,9}(?:\.\d+)?)GiB\)", GIB),
)
_SGLANG: tuple[tuple[str, str, str, int], ...] = (
    ("weights", "Load weight end", r"Load weight end\..* mem usage=(?P<size>\d{1,9}(?:\.\d+)?) GB", GIB),
    ("tokens", "max_total_num_tokens=", r"max_total_num_tokens=(?P<size>\d{1,15})", 1),
)
_TRTLLM: tuple[tuple[str, str, str, int], ...] = (
    (
        "cache",
        "for max tokens in paged KV cache",
        r"Allocated (?P<size>\d{1,9}(?:\.\d+)?) GiB for max tokens in paged KV",
        GIB,
    ),
    ("tokens", "for max tokens in paged KV cache", r"max tokens in paged KV cache \((?P<size>\d{1,15})\)", 1),
)
_LLAMA: tuple[tuple[str, str, str, int], ...] = (
    (
        "weights",
        "model buffer size",
        r"(?:CUDA|ROCm|Vulkan)\d+ model buffer size = +(?P<size>\d{1,9}(?:\.\d+)?) MiB",
        MIB,
    ),
    ("cache", "KV buffer size", r"(?:CUDA|ROCm|Vulkan)\d+ KV buffer size = +(?P<size>\d{1,9}(?:\.\d+)?) MiB", MIB),
)
_TABLES = {"vllm": _VLLM, "sglang": _SGLANG, "tensorrt-llm": _TRTLLM, "llama.cpp": _LLAMA, "ollama": _LLAMA}


#: All that is looked for.
LITERALS = tuple(
    dict.fromkeys([*(row[1] for rows in _TABLES.values() for row in rows), _LONGEST_INPUT, *llama_memory.LITERALS])
)


def _printed(engine: str, log: Log) -> Printed:
    from kubectl_llmdoctor.memory.amount import exactly

    chosen: dict[str, tuple[float, Line]] = {}
    for name, size, line in _amounts(engine, log):
        old = chosen.get(name)
        # ranks differ a little: the fullest decides, so the most weights and the least that is left
        if old is None or (size > old[0] if name == "weights" else size < old[0]):
            chosen[name] = size, line
    found: dict[str, Any] = {
        name: exactly(size, f"log line {line.number}") for name, (size, line) in chosen.items() if name != "tokens"
    }
    if "tokens" in chosen:
        found["tokens"] = int(chosen["tokens"][0])
    return Printed(measured=_measured(**found), lines={name: line for name, (_, line) in chosen.items()})


def _amounts(engine: str, log: Log) -> Iterator[tuple[str, float, Line]]:
    for name, literal, pattern, unit in _TABLES.get(engine, ()):
        compiled = re.compile(pattern)
        for line in log.find(literal):
            match = compiled.search(line.text)
            if match:
                try:
                    yield name, float(match["size"].replace(",", "")) * unit, line
                except ValueError:
                    continue


def file_bytes_of(model: str) -> int | None:
    """The least that the weight files of a model of the Hub take on a disk; None where its shape is not known."""
    from kubectl_llmdoctor.catalog.models import find

    found = find(model)
    return _file_bytes(found.architecture) if found else None


def _file_bytes(model: Architecture) -> int | None:
    from kubectl_llmdoctor.memory.amount import Amount
    from kubectl_llmdoctor.memory.serving import Serving
    from kubectl_llmdoctor.memory.weights import weights

    found = weights(model, Serving())
    return found.low if isinstance(found, Amount) else None
