"""SGLang's message queue between the nodes of one server, which names another address than the one that NCCL was told to use."""

from __future__ import annotations

import re

from kubectl_llmdoctor.api import (
    Engine,
    Finding,
    Line,
    Logs,
    Pod,
    Subject,
    fixes,
    log_evidence,
    phase_of,
    pod_evidence,
    say_seconds,
)
from llmdoctor_checks._standstill import STUCK_SECONDS

#: NCCL's words (bootstrap.cc) of the interface that it takes, and of a communicator that is complete.
USES, COMPLETE = "NCCL INFO Bootstrap", "Init COMPLETE"
_AT = r"NCCL INFO Bootstrap ?: Using (?P<nic>[\w.-]{1,40}):(?P<ip>\d{1,3}(?:\.\d{1,3}){3})<"
#: By what SGLang (`utils/network.py`) is told its own address; without them it takes that of the default route.
_TOLD = ("SGLANG_HOST_IP", "HOST_IP", "SGLANG_LOCAL_IP_NIC")
#: The function in which each side waits for the other, as py-spy names it, and what is printed by a start that went wrong.
WAITS, _WRONG = "wait_until_ready (", ("Traceback (most recent", "Error: ", "NCCL WARN")


def of_another_network(pod: Pod, engine: Engine, subject: Subject, logs: Logs | None) -> Finding | None:
    """Ranks whose NCCL is complete, and which wait since for messages at an address that the other node may not reach."""
    container = engine.container
    log = container.own_log(logs)
    ran = pod.cluster.seconds_since(container.started)
    if engine.name != "sglang" or log is None or ran is None or len(subject.pods) < 2:
        return None
    if any(name in container.env for name in _TOLD) or ran < STUCK_SECONDS or phase_of(log):
        return None
    line, done = _used(logs), next(log.find(COMPLETE), None)
    said = re.search(_AT, line.text[:600]) if line is not None else None
    own = pod.status.pod_ip
    if line is None or done is None or said is None or not own or said["ip"] == own or next(log.find(*_WRONG), None):
        return None
    waits = next((one for one in log.find(WAITS) if "shm_broadcast" in one.text), None)
    used = ((one.name, at["ip"]) for one in subject.pods if (at := _address(one, subject)) is not None)
    each = ", ".join(f"{ip} for {name}" for name, ip in sorted(set(used))[:8])
    return Finding(
        # ranks of which each is complete have met
        confidence="likely"
        if waits is not None or all(_is_complete(one, subject) for one in subject.pods)
        else "possible",
        summary=f"{container.name} has run for {say_seconds(ran)}; NCCL is complete over {said['nic']} "
        f"({said['ip']}), and nothing follows: SGLang's own messages between its nodes go to the address of the default route ({own}), "
        "which is of another network.",
        evidence=(
            log_evidence(waits or line),
            *((log_evidence(line),) if waits is not None else ()),
            pod_evidence(pod, "status.podIP", own),
        ),
        explains=("multinode-discovery", "not-ready", "probe-too-short", "nccl-timeout", "rollout-stuck"),
        fix=fixes.advice(
            f"Set SGLANG_HOST_IP in each pod to its address on {said['nic']} ({each}), in {fixes.edited(pod)}; from one template by "
            f"a shell before the start: export SGLANG_HOST_IP=$(ip -4 -o addr show {said['nic']} | awk '{{print $4}}' | cut -d/ -f1)"
        ),
        order=line.order,
    )


def _used(logs: Logs | None) -> Line | None:
    """The line by which NCCL says which address it uses."""
    return (
        next((line for line in logs.find(USES) if re.search(_AT, line.text[:600])), None) if logs is not None else None
    )


def _address(pod: Pod, subject: Subject) -> re.Match[str] | None:
    line = _used(subject.logs(pod))
    return re.search(_AT, line.text[:600]) if line is not None else None


def _is_complete(pod: Pod, subject: Subject) -> bool:
    return next(subject.logs(pod).find(COMPLETE), None) is not None
