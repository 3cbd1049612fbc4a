"""What follows when a process was killed for lack of host memory, whoever was short of it."""

CONSEQUENCES = (
    "crash-loop",
    "not-ready",
    "engine-init-failed",
    "pod-failed",
    "worker-lost",
    "storage-initializer-failed",
    "host-memory-insufficient",
    "nccl-other",
    "nccl-timeout",
    "slow-load",
)
