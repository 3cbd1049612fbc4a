"""What follows when a process was killed for lack of host memory, whoever was short of it."""

import re
from datetime import datetime

import msgspec

from kubectl_llmdoctor.api import (
    Container,
    Ending,
    Event,
    Events,
    Line,
    Log,
    ended_itself,
    expression,
    last_words,
    probe_kills,
)
from llmdoctor_checks._consequences import FAILED_START

CONSEQUENCES = (
    *FAILED_START, "worker-lost", "storage-initializer-failed", "host-memory-insufficient", "nccl-other",
    "nccl-timeout", "slow-load",
)  # fmt: skip

#: A limit of host memory below which the runtime cannot even set up a container with GPUs; its process and NVIDIA's hook
#: take some tens of MiB.
HOOK_BYTES = 64 * 2**20

#: Processes of engines, which give their workers names of their own, and of what they run in, by the 15 characters that the kernel keeps.
PROCESSES = r"(?i:VLLM|sglang|ray|python|pt_|torch|trtllm|tritonserver|text-gen|llama|ollama)"

_ENGINES = expression(PROCESSES)

#: How many characters of a program's name the kernel keeps.
_KEPT = 15

#: The event that node-problem-detector makes of the kernel's line (its rule OOMKilling; GKE and AKS run it on each node).
_REASON = "OOMKilling"
_LINE = expression(
    r"(?P<cgroup>Memory cgroup )?[Oo]ut of memory[\s\S]{0,300}?Killed process \d{1,10},? \((?P<process>[^)]{1,40})\)"
    r"[\s\S]{0,80}?anon-rss:(?P<anon>\d{1,15})kB"
)

#: The exit code of what SIGKILL ended, and how bash, and dash without more, say so of a program that they ran.
_KILLED, SAID = 137, "Killed"
_BY_SHELL = r"sh: line \d{1,6}: {1,12}\d{1,8} Killed {2,30}(?!(?:\S{0,80}/)?timeout )\S"
#: What a script ends a program with: `timeout` as well, which ends itself with it.
_KILLS, _BY_TIME = r"(?:p?kill|killall)\s{1,5}(?:-\w{1,9}\s{1,5}){0,3}-(?:s\s{1,3})?(?:9|(?:SIG)?KILL)", "timeout"

#: A process that SIGKILL ends is gone within this time, whatever memory it had.
_GONE_SECONDS = 30


class Told(msgspec.Struct, frozen=True):
    """A process that the kernel killed, by the name of an engine's or of what a container runs, as an event of the node says."""

    process: str
    anon: int
    whole_node: bool


def told(event: Event, container: Container) -> Told | None:
    """What an event of a container's node says of a process that the kernel killed for lack of memory, which may be the container's."""
    if event.reason != _REASON or event.name != container.pod.spec.node_name:
        return None
    found = _LINE.search(event.message)
    if not found or not (_ENGINES.match(found["process"]) or found["process"] in _programs(container)):
        return None
    return Told(found["process"], int(found["anon"]) * 1024, not found["cgroup"])


def _programs(container: Container) -> set[str]:
    """The programs that a container's command names, as the kernel would name their processes."""
    words = " ".join(container.spec.argv).split()
    return {word.rpartition("/")[2][:_KEPT] for word in words if not word.startswith("-")}


def killed_then(event: Event, ending: Ending, events: Events) -> bool:
    """Whether an instance that SIGKILL ended did so right after the kill that an event tells of, and no probe had asked for it."""
    return (
        ending.signal == "SIGKILL" and close(event.last, ending, _GONE_SECONDS) and not ended_by_probe(ending, events)
    )


def ended_by_probe(ending: Ending, events: Events | None) -> bool:
    """Whether the kubelet had this instance, and not one before it, stopped for a probe."""
    container = ending.container
    kills = [event.last for _, event in probe_kills(container.pod, events, container)] if events else []
    return any(last is None or ending.started is None or last >= ending.started for last in kills)


def close(moment: object, ending: Ending, seconds: float = 120) -> bool:
    """Whether something was at about the time at which an instance ended."""
    if not isinstance(moment, datetime) or ending.finished is None:
        return False
    return abs((moment - ending.finished).total_seconds()) <= seconds


def shell_says_killed(ending: Ending, log: Log) -> Line | None:
    """Where a shell that lived on says at the end that its program was killed: the kubelet ends a shell before its children."""
    if ending.code != _KILLED or ended_itself(log):
        return None
    last = last_words(log)
    return next((x for x in log.find(SAID) if x.number in last and _says_killed(x.text, ending.container)), None)


def _says_killed(text: str, container: Container) -> bool:
    """Whether a shell says so that does not kill anything itself; dash does not say which program it was."""
    alone = text.strip() == SAID
    own = f"{_KILLS}|{_BY_TIME}" if alone else _KILLS
    if re.search(rf"(?:^|[\s/;&|(])(?:{own})\s", " ".join(container.spec.argv)):
        return False
    return alone or re.search(_BY_SHELL, text) is not None
