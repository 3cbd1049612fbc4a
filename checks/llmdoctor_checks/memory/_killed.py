"""What follows when a process was killed for lack of host memory, whoever was short of it."""

from __future__ import annotations

from llmdoctor_checks._consequences import FAILED_START

CONSEQUENCES = (
    *FAILED_START,
    "worker-lost",
    "storage-initializer-failed",
    "host-memory-insufficient",
    "nccl-other",
    "nccl-timeout",
    "slow-load",
)

#: A limit of host memory below which the runtime cannot even set up a container with GPUs; its process and NVIDIA's hook
#: take some tens of MiB.
HOOK_BYTES = 64 * 2**20
