"""What follows when a process was killed for lack of host memory, whoever was short of it."""

from __future__ import annotations

from datetime import datetime

import msgspec

from kubectl_llmdoctor.api import Ending, Event, expression
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

#: Processes of engines, which give their workers names of their own, and of what they run in, by the 15 characters that the kernel keeps.
PROCESSES = r"(?i:VLLM|sglang|ray|python|pt_|torch|trtllm|tritonserver|text-gen|llama|ollama)"

#: The event that node-problem-detector makes of the kernel's line (its rule OOMKilling; GKE and AKS run it on each node).
_REASON = "OOMKilling"
_LINE = expression(
    rf"(?P<cgroup>Memory cgroup )?[Oo]ut of memory[\s\S]{{0,300}}?Killed process \d{{1,10}},? \((?P<process>{PROCESSES}[^)]{{0,40}})\)"
    r"[\s\S]{0,80}?anon-rss:(?P<anon>\d{1,15})kB"
)


class Told(msgspec.Struct, frozen=True):
    """A process by the name of an engine's that the kernel killed, as an event of the node says."""

    process: str
    anon: int
    whole_node: bool


def told(event: Event, node: str) -> Told | None:
    """What an event of this node says of a process that the kernel killed for lack of memory."""
    found = _LINE.search(event.message) if event.reason == _REASON and event.name == node else None
    return Told(found["process"], int(found["anon"]) * 1024, not found["cgroup"]) if found else None


def close(moment: object, ending: Ending, seconds: float = 120) -> bool:
    """Whether something was at about the time at which an instance ended."""
    if not isinstance(moment, datetime) or ending.finished is None:
        return False
    return abs((moment - ending.finished).total_seconds()) <= seconds
