"""A server that hangs in the library that shares its GPU."""

import re
from collections.abc import Iterator
from datetime import datetime

from kubectl_llmdoctor.api import Finding, Line, Log, Logs, Pod, check, fixes, log_evidence, pod_evidence, say_seconds
from llmdoctor_checks.serving._load import seconds_ago

#: What HAMi-core prints before it asks the driver, and while it waits for its lock (libvgpu.c, utils.c). `Initialized` follows in
#: the same second, or the error of whom it asked.
_HANGS = r"\[HAMI-core Msg ?\([^)]{0,80}\)\]: (?:Initializing\.{3,}|unified_lock locked, waiting\b.{0,40})\s*"

#: How long it may take: it gives a lock up after 20 waits of 5 seconds at most.
_PATIENCE = 150


@check("vgpu-shim", since="0.1", literals=("[HAMI-core Msg",))
def vgpu_shim(pod: Pod, logs: Logs) -> Iterator[Finding]:
    """What shares the GPU between pods breaks the engine.

    HAMi and its relatives share a GPU between pods by a library (libvgpu.so) that is preloaded into every process and answers CUDA's calls
    about memory and devices. New versions of CUDA, NCCL or the engine call functions that it handles wrongly: the process crashes
    while NCCL starts or memory is measured, or memory is refused at the pod's share.

    NVIDIA's MPS lets processes of several pods compute on one GPU at a time, through a server on the node. When its daemon is not
    reached, or its server has failed after a fault of one client, CUDA starts in none of them. A virtual GPU (NVIDIA vGPU) computes
    only with a licence.

    A process may hang in it as well: its log then ends with the library's first message.

    ## Fix

    Update the library, restart the MPS daemon, give the virtual GPU its licence, or let the engine run without them on whole GPUs.
    Tensor parallel engines want whole GPUs in any case.

    ## References

    - https://project-hami.io/docs/
    - https://github.com/Project-HAMi/HAMi-core
    """
    now = pod.cluster.now
    for trouble in pod.troubles:
        container = trouble.container
        if trouble.kind != "not-ready" or container is None or trouble.since is None or now is None:
            continue
        last = _hangs(logs.current(container.name), now)
        runs = (now - trouble.since).total_seconds()
        if last is None or runs < _PATIENCE:
            continue
        yield Finding(
            role="cause",
            confidence="likely",
            summary=f"{container.name} has run for {say_seconds(runs)}, and has printed nothing since HAMi's library libvgpu.so began to "
            "initialise: it hangs there.",
            evidence=(log_evidence(last), pod_evidence(container, "image", container.spec.image)),
            explains=("probe-too-short", "slow-load", "not-ready", "rollout-stuck"),
            fixes=(
                fixes.advice(
                    f"See on node {pod.spec.node_name or 'of the pod'} whether nvidia-smi answers and whether a process that is gone holds "
                    "the library's lock (/tmp/vgpulock/lock), remove that file, and take a HAMi release that knows this driver; "
                    "CUDA_DISABLE_CONTROL=true lets the engine start without the library, on the whole GPU",
                    f"kubectl -n {pod.namespace} exec {pod.name} -c {container.name} -- ls -l /tmp/vgpulock",
                    owner="platform",
                ),
            ),
            pods=(pod.name,),
        )
        return


def _hangs(log: Log | None, now: datetime) -> Line | None:
    """The library's first message where it is the last line of the log, and what stands before it is not of just now."""
    lines = [line for line in log.lines(max(len(log) - 20, 1)) if line.text.strip()] if log is not None else []
    if not lines or not re.fullmatch(_HANGS, lines[-1].text[:500]):
        return None
    ages = (seconds_ago(line, now) for line in reversed(lines))
    age = next((age for age in ages if age is not None), None)
    return None if age is not None and 0 <= age < _PATIENCE else lines[-1]
