"""GPUs that are allocated and not used."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    GIB,
    Engine,
    Finding,
    Metrics,
    Pod,
    Span,
    check,
    count_of,
    fixes,
    pod_evidence,
    say_bytes,
    say_seconds,
)

#: For so long, at least, nothing happens on a GPU before it is called unused.
_LONG_SECONDS = 3000

#: What the driver and an empty CUDA context take of a GPU's memory, with room to spare.
_EMPTY_BYTES = GIB


@check("gpu-idle", since="0.2", severity="info")
def gpu_idle(pod: Pod, engine: Engine, metrics: Metrics) -> Iterator[Finding]:
    """GPUs of the pod are allocated and unused.

    A GPU that a pod holds is taken for all others, whether it computes or not. Where some GPUs of a pod are loaded and the
    others hold nothing, the engine was started on fewer than it was given: its tensor, pipeline and data parallel sizes
    multiply to less. The exporter of the node (DCGM) says how much memory of each is in use.

    A server that nobody asks anything is another matter; it holds its GPUs, full of weights, for the request that comes.

    ## Fix

    Ask for as many GPUs as the engine uses, or let it use all (`--tensor-parallel-size`).

    ## References

    - https://docs.nvidia.com/datacenter/dcgm/latest/gpu-telemetry/dcgm-exporter.html
    - https://docs.vllm.ai/en/latest/serving/parallelism_scaling/
    """
    container, gpus = engine.container, metrics.gpus
    if not pod.ready or container.gpus < 2 or len(gpus) != container.gpus:
        return  # shared or sliced GPUs are not ascribed to one pod
    empty = [gpu for gpu in gpus if _unused(gpu.utilization, gpu.memory_used)]
    loaded = [gpu for gpu in gpus if gpu.memory_used is not None and min(gpu.memory_used.values) > 4 * _EMPTY_BYTES]
    if not empty or len(empty) + len(loaded) != len(gpus):
        return
    spans = [gpu.memory_used for gpu in empty if gpu.memory_used is not None]
    names = ", ".join(gpu.id for gpu in empty)
    yield Finding(
        role="risk",
        severity="warning",
        confidence="certain",
        summary=f"{count_of(len(empty), 'GPU')} of {len(gpus)} of {container.name} ({names}) did nothing and held "
        f"{say_bytes(max(span.last for span in spans))} at most for {say_seconds(spans[0].seconds)}, while the others are loaded.",
        evidence=(
            pod_evidence(container, "resources.limits", f"{len(gpus)} GPUs"),
            *(span.evidence(say_bytes) for span in spans[:2]),
        ),
        fixes=(
            fixes.advice(
                f"Ask for {len(loaded)} GPUs in {fixes.edited(pod)}, or let {engine.title} use all {len(gpus)} (tensor "
                "parallel size)"
            ),
        ),
        pods=(pod.name,),
    )


def _unused(utilization: Span | None, memory: Span | None) -> bool:
    """Whether a GPU has neither computed nor held anything for long."""
    if utilization is None or memory is None or min(utilization.seconds, memory.seconds) < _LONG_SECONDS:
        return False
    return max(utilization.values) == 0 and max(memory.values) < _EMPTY_BYTES
