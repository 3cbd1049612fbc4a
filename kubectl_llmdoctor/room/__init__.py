"""What is enough: by what a message and the specification say, which value of a setting makes room, and which setting is meant.

Each is a text for a fix, and empty where nothing says it.
"""

from __future__ import annotations

import msgspec

from kubectl_llmdoctor.room.batches import Batches
from kubectl_llmdoctor.room.case import Case
from kubectl_llmdoctor.room.gpu_memory import GpuMemory
from kubectl_llmdoctor.room.gpus import Gpus
from kubectl_llmdoctor.room.host_memory import HostMemory
from kubectl_llmdoctor.room.kernels import Kernels
from kubectl_llmdoctor.room.llama import Llama

_PARTS = GpuMemory, Gpus, Kernels, Batches, HostMemory, Llama


def enough(case: Case) -> dict[str, str]:
    """All of them, by the names that templates use."""
    known = msgspec.structs.astuple(case)
    return {name: value for part in _PARTS for name, value in part(*known).values().items()}
