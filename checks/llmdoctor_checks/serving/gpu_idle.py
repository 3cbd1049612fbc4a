"""GPUs that are allocated and not used."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    GIB,
    Device,
    Engine,
    Finding,
    Fix,
    Hardware,
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

#: Engines that take a model off the GPU when nobody has asked it anything for some minutes.
_UNLOADING = frozenset({"ollama", "localai"})


@check("gpu-idle", since="0.2", severity="info")
def gpu_idle(pod: Pod, engine: Engine, metrics: Metrics | None, hardware: Hardware | None) -> Iterator[Finding]:
    """GPUs of the pod are allocated and unused.

    A GPU that a pod holds is taken for all others, whether it computes or not. Where some GPUs of a pod are loaded and the
    others hold nothing, the engine was started on fewer than it was given: its tensor, pipeline and data parallel sizes
    multiply to less. The exporter of the node (DCGM) says how much memory of each is in use, over time; the node agent says
    it of one moment, and whether any process is on it, which for a server that has been ready for long is as telling.

    A server that nobody asks anything is another matter; it holds its GPUs, full of weights, for the request that comes.

    ## Fix

    Ask for as many GPUs as the engine uses, or let it use all (`--tensor-parallel-size`).

    ## References

    - https://docs.nvidia.com/datacenter/dcgm/latest/gpu-telemetry/dcgm-exporter.html
    - https://docs.vllm.ai/en/latest/serving/parallelism_scaling/
    """
    found = list(_over_time(pod, engine, metrics)) if metrics else []
    yield from found
    if hardware and not found:
        yield from _now(pod, engine, hardware)


def _over_time(pod: Pod, engine: Engine, metrics: Metrics) -> Iterator[Finding]:
    """GPUs that held nothing in the whole window."""
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
        severity="warning",
        confidence="certain",
        summary=f"{count_of(len(empty), 'GPU')} of {len(gpus)} of {container.name} ({names}) did nothing and held "
        f"{say_bytes(max(span.last for span in spans))} at most for {say_seconds(spans[0].seconds)}, while the others are loaded.",
        evidence=(
            pod_evidence(container, "resources.limits", f"{len(gpus)} GPUs"),
            *(span.evidence(say_bytes) for span in spans[:2]),
        ),
        fixes=(*_used(engine, len(loaded), len(gpus)),),
    )


def _now(pod: Pod, engine: Engine, hardware: Hardware) -> Iterator[Finding]:
    """GPUs without a process and without memory in use, long after the server became ready."""
    container, gpus = engine.container, hardware.mine
    condition = pod.condition("Ready")
    ready = pod.cluster.seconds_since(condition.last_transition_time) if condition else None
    if not pod.ready or ready is None or engine.name in _UNLOADING or len(gpus) != container.gpus:
        return
    empty = [gpu for gpu in gpus if _holds_nothing(gpu)]
    loaded = [gpu for gpu in gpus if (gpu.memory_used_bytes or 0) > 4 * _EMPTY_BYTES]
    if not empty or len(empty) + len(loaded) != len(gpus) or ready < _LONG_SECONDS:
        return
    what = "while the others are loaded" if loaded else f"though {engine.title} has been ready for {say_seconds(ready)}"
    yield Finding(
        role="cause" if loaded else "note",
        severity="warning" if loaded else "info",
        summary=f"{count_of(len(empty), 'GPU')} of {len(gpus)} of {container.name} on {hardware.node} "
        f"({', '.join(gpu.title for gpu in empty[:4])}) {'has' if len(empty) == 1 else 'have'} no process and no memory in use, {what}.",
        evidence=(
            pod_evidence(container, "resources.limits", count_of(len(gpus), "GPU")),
            *(
                hardware.evidence(gpu, "memoryUsedBytes", f"{gpu.memory_used_bytes}; processes: none")
                for gpu in empty[:3]
            ),
        ),
        fixes=tuple(_used(engine, len(loaded), len(gpus)))
        if loaded
        else (
            fixes.advice(
                f"See in the log of {container.name} on which device the model was loaded",
                f"kubectl -n {pod.namespace} logs {pod.name} -c {container.name} | grep -i -e cuda -e device | head",
            ),
        ),
    )


def _used(engine: Engine, loaded: int, every: int) -> Iterator[Fix]:
    """As many GPUs as are used, or the use of all that the container has."""
    container, names = engine.container, list(engine.container.accelerators)
    if len(names) == 1 and container.accelerators[names[0]] == every:
        yield fixes.set_resource(container, "limits", names[0], str(loaded), f"Ask for {count_of(loaded, 'GPU')}")
    else:
        yield fixes.advice(f"Ask for {count_of(loaded, 'GPU')} in {fixes.edited(container.pod)}")
    if engine.name in ("vllm", "sglang", "tgi"):
        flag = engine.called("tensor_parallel_size")
        yield fixes.set_flag(
            engine, "tensor_parallel_size", flag, str(every), f"Have {engine.title} use all {every} GPUs"
        )


def _holds_nothing(gpu: Device) -> bool:
    """Whether the agent knows that no process is on a GPU and that next to none of its memory is in use."""
    used = gpu.memory_used_bytes
    quiet = not gpu.utilization_percent and gpu.processes == () and used is not None and used < _EMPTY_BYTES
    return quiet and not (gpu.lost or gpu.mig_enabled)


def _unused(utilization: Span | None, memory: Span | None) -> bool:
    """Whether a GPU has neither computed nor held anything for long."""
    if utilization is None or memory is None or min(utilization.seconds, memory.seconds) < _LONG_SECONDS:
        return False
    return max(utilization.values) == 0 and max(memory.values) < _EMPTY_BYTES
