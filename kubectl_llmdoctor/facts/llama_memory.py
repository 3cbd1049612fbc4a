"""What llama.cpp prints of the memory of its GPUs up to the buffer that finds no room there.

Sources: src/llama.cpp and llama-model.cpp (`using device`, `n_layer`, `model buffer size`), ggml-cuda.cu (`cudaMalloc failed`), of
b4000 to b10875.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec

from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.logs import Log
from kubectl_llmdoctor.facts.units import MIB

_FREE, _WEIGHTS, _LAYERS, _FAILED = " MiB free", "model buffer size", "n_layer ", "cudaMalloc failed: out of memory"
LITERALS = (_FREE, _WEIGHTS, _LAYERS, _FAILED)

_A_DEVICE = expression(r"using device (?:CUDA|ROCm|MUSA)(\d{1,3}) \(.{1,200}?\) - (\d{1,8}) MiB free")
_A_BUFFER = expression(r"\b(?:CUDA|ROCm|MUSA)(\d{1,3}) +model buffer size = +(\d{1,8}(?:\.\d{1,6})?) MiB")
_SO_MANY = expression(r"\bn_layer += (\d{1,4})\b")
_REFUSED = expression(r"allocating (\d{1,8}(?:\.\d{1,6})?) MiB on device (\d{1,3}): cudaMalloc failed")


class LlamaMemory(msgspec.Struct, frozen=True):
    """Bytes by the number of a GPU: free before all of it, and taken by weights; the layers; what was refused last, and on which GPU."""

    free: dict[str, float] = {}
    weights: dict[str, float] = {}
    layers: int = 0
    refused: float = 0
    device: str = ""

    @property
    def left(self) -> float:
        """What was left on the GPU that refused, of what was free, beside the weights; 0 where it is not known."""
        return max(self.free.get(self.device, 0) - self.weights.get(self.device, 0), 0)


def of_logs(logs: Iterable[Log]) -> LlamaMemory:
    """By the newest log that says what was refused."""
    return next((found for log in logs if (found := _of(log)).refused), LlamaMemory())


def _of(log: Log) -> LlamaMemory:
    refused = next(iter([*_all(log, _FAILED, _REFUSED)][-1:]), ("0", ""))
    layers = next(iter([*_all(log, _LAYERS, _SO_MANY)][-1:]), ("0",))
    return LlamaMemory(
        free={device: float(size) * MIB for device, size in _all(log, _FREE, _A_DEVICE)},
        weights={device: float(size) * MIB for device, size in _all(log, _WEIGHTS, _A_BUFFER)},
        layers=int(layers[0]),
        refused=float(refused[0]) * MIB,
        device=refused[1],
    )


def _all(log: Log, literal: str, pattern: re.Pattern[str]) -> Iterator[tuple[str, ...]]:
    """The groups of each line that says so."""
    found = (pattern.search(line.text[:1000]) for line in log.find(literal))
    return (match.groups() for match in found if match)
