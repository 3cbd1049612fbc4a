"""A start that stands still inside the library that shares the GPU."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Evidence,
    Finding,
    Line,
    Logs,
    Pod,
    check,
    fixes,
    log_evidence,
    pod_evidence,
    say_seconds,
)
from llmdoctor_checks.start._standstill import ends_with, killed_at

#: What HAMi's library prints in every process that it is loaded into (libvgpu.c).
_SHIM = "[HAMI-core "

#: Where an engine's first calls of CUDA, or of NCCL, come next: Text Embeddings Inference, vLLM, SGLang.
_CALLS = (" model on Cuda(", "vLLM is using nccl==", "Init torch distributed begin.")

#: What comes next takes seconds; who has printed nothing more for so long stands still.
_STUCK_SECONDS = 900


@check("vgpu-shim", since="0.1", literals=(_SHIM, *_CALLS))
def vgpu_shim(pod: Pod, logs: Logs) -> Iterator[Finding]:
    """What shares the GPU between pods breaks the engine.

    HAMi and its relatives share a GPU between pods by a library (libvgpu.so) that is preloaded into every process and answers CUDA's calls
    about memory and devices. New versions of CUDA, NCCL or the engine call functions that it handles wrongly: the process crashes
    while NCCL starts or memory is measured, or memory is refused at the pod's share. Or it stands still at its first such call, prints
    nothing more, and is ended by a probe.

    NVIDIA's MPS lets processes of several pods compute on one GPU at a time, through a server on the node. When its daemon is not
    reached, or its server has failed after a fault of one client, CUDA starts in none of them. A virtual GPU (NVIDIA vGPU) computes
    only with a licence.

    ## Fix

    Update the library, restart the MPS daemon, give the virtual GPU its licence, or let the engine run without them on whole GPUs:
    with `CUDA_DISABLE_CONTROL=true` HAMi's library passes all calls on. Tensor parallel engines want whole GPUs in any case.

    ## References

    - https://project-hami.io/docs/
    - https://github.com/Project-HAMi/HAMi-core
    """
    for what, line, *more in _stands_still(pod, logs):
        shim = next(line.log.find(_SHIM), None)
        if shim is None:
            continue
        container = next(c for c in pod.containers if c.name == line.log.container)
        yield Finding(
            role="cause",
            confidence="possible",
            summary=f"{what}, and its log ends where it first calls CUDA or NCCL; HAMi's library libvgpu.so stands between it "
            "and the driver.",
            evidence=(log_evidence(line), log_evidence(shim), *more),
            explains=("nccl-p2p", "nccl-timeout", "probe-too-short", "crash-loop", "not-ready", "rollout-stuck"),
            fixes=(
                fixes.set_env(
                    container,
                    "CUDA_DISABLE_CONTROL",
                    "true",
                    "See whether it starts when HAMi's library passes all calls on; where it does, update HAMi, or give the pod "
                    "whole GPUs",
                ),
            ),
            order=line.order,
            pods=(pod.name,),
        )
        return


def _stands_still(pod: Pod, logs: Logs) -> Iterator[tuple[str, Line, *tuple[Evidence, ...]]]:
    """Starts that have come to the first call, and no further: one that goes on, or one that a probe has ended."""
    now = pod.cluster.now
    for trouble in pod.troubles:
        log = logs.current(trouble.container.name) if trouble.kind == "not-ready" and trouble.container else None
        since = (now - trouble.since).total_seconds() if now and trouble.since else 0
        if log is not None and since >= _STUCK_SECONDS and (line := ends_with(log, _CALLS)):
            yield f"{log.container} started {say_seconds(since)} ago", line
    for ending, line in killed_at(pod, logs, _CALLS):
        proof = pod_evidence(pod, ending.path, ending.text)
        yield f"{ending.container.name} ran for {say_seconds(ending.seconds or 0)}", line, proof
