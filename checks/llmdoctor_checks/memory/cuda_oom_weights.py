"""Weights that are larger than the GPU."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    GIB,
    Engine,
    Evidence,
    Finding,
    Pod,
    Sizing,
    check,
    count_of,
    fixes,
    pod_evidence,
    setting_evidence,
    units,
)
from kubectl_llmdoctor.catalog.models import find

from ._budget import finding, gib, role_of

#: GiB of memory of one TPU chip, by GKE's label of the node. Source: docs.cloud.google.com/tpu/docs, the page of each generation.
_TPU_GIB = {
    "tpu-v4-podslice": 32,
    "tpu-v5-lite-podslice": 16,
    "tpu-v5-lite-device": 16,
    "tpu-v5p-slice": 95,
    "tpu-v6e-slice": 32,
    "tpu7x": 192,
}

#: GiB of the largest accelerator that was announced by 2026 (MI455X): no GPU of a pod has more, whichever it is.
_LARGEST_GIB = 432

#: Engines that keep all weights on GPUs unless they are told otherwise.
_ON_GPUS = frozenset({"vllm", "sglang", "tgi", "lmdeploy", "tensorrt-llm"})


@check("cuda-oom-weights", since="0.1")
def cuda_oom_weights(pod: Pod, sizing: Sizing) -> Iterator[Finding]:
    """The weights do not fit into the GPU's memory.

    Each GPU holds the model's weights divided by the tensor and pipeline parallel size: two bytes for each parameter in
    16 bits, one in 8 bits, about half a byte in 4 bits. When they are larger than the GPU, the engine ends while it
    loads them, with "CUDA out of memory". No setting of the KV cache helps.

    Where nothing tells which GPU a manifest's pod gets, only weights are told that as many of the largest there is do not hold.

    ## Fix

    Spread the model over more GPUs (`--tensor-parallel-size`), take a checkpoint that is quantized to 8 or 4 bits, or
    a GPU with more memory. `kubectl llmdoctor fit MODEL --gpu NAME` computes what fits.

    ## References

    - https://docs.vllm.ai/en/latest/configuration/conserving_memory/
    - https://huggingface.co/docs/text-generation-inference/conceptual/quantization
    """
    if not pod.exists and (found := _on_tpus(pod, sizing) or _on_any_gpus(pod, sizing)):
        yield found
    if not role_of(pod, sizing) or (budget := sizing.budget) is None:
        return
    if not budget.weights or not budget.total or budget.weights.low <= budget.total.high:
        return
    serving = sizing.serving
    gpus = serving.tensor_parallel * serving.pipeline_parallel
    where = f"each of {count_of(gpus, 'GPU')}, of which each" if gpus > 1 else "the GPU, which"
    yield finding(
        pod,
        sizing,
        f"The weights of {sizing.model_name} take {gib(budget.weights.low)} on {where} has {gib(budget.total.high)}.",
        explains=("kv-cache-no-room",),
    )


def _on_tpus(pod: Pod, sizing: Sizing) -> Finding | None:
    """Weight files that are larger than the memory of all chips of a pod, none of which is quantized while it is loaded."""
    engine, needed = sizing.engine, sizing.file_bytes
    label = str(pod.spec.node_selector.get("cloud.google.com/gke-tpu-accelerator", ""))
    each, chips = _TPU_GIB.get(label), units(engine.container.limit("google.com/tpu"))
    if needed is None or not each or not chips or pod.nodes != 1:
        return None
    if any("quantization" in str(word) for word in engine.found.argv):
        return None  # an option of its own, or a key of --additional-config
    if needed <= chips * each * GIB:
        return None
    return _too_large(
        engine,
        f"The weights of {sizing.model_name} take {gib(needed)} or more; {count_of(chips, 'TPU chip')} of {label} "
        f"{'has' if chips == 1 else 'have'} {gib(chips * each * GIB)}.",
        (
            pod_evidence(pod, "nodeSelector[cloud.google.com/gke-tpu-accelerator]", label),
            pod_evidence(engine.container, "resources.limits[google.com/tpu]", str(chips)),
        ),
        "Take a larger topology of chips, or a checkpoint of 8 bits,",
    )


def _on_any_gpus(pod: Pod, sizing: Sizing) -> Finding | None:
    """Weight files that are larger than the memory of all GPUs of a pod, if they were of the largest kind."""
    engine, needed = sizing.engine, sizing.file_bytes
    container = engine.container
    name = next((name for name in ("nvidia.com/gpu", "amd.com/gpu") if container.limit(name)), "")
    own = units(container.limit(name)) if name else None
    if needed is None or not own or sizing.accelerator is not None or engine.name not in _ON_GPUS or pod.nodes != 1:
        return None
    serving = sizing.serving
    spread = serving.tensor_parallel * serving.pipeline_parallel > own or engine.value("nnodes", 1) != 1
    if spread or needed <= own * _LARGEST_GIB * GIB or not engine.found.argv_known:
        return None
    known = find(engine.checkpoint)
    # no option makes the files of a checkpoint smaller that is quantized itself
    as_stored = known is not None and known.exact and known.architecture.quantization is not None
    others = ("offload", "overrid", "--kt-", "data-parallel", "--dp", *(() if as_stored else ("quanti",)))
    if any(word in str(arg) for arg in engine.found.argv for word in others):
        return None
    return _too_large(
        engine,
        f"The weights of {sizing.model_name} take {gib(needed)} or more, and the container has {count_of(own, 'GPU')}: "
        f"no {'GPU has' if own == 1 else f'{own} GPUs have'} as much memory.",
        (pod_evidence(container, f"resources.limits[{name}]", str(own)),),
        "Give it as many GPUs as hold the weights and set --tensor-parallel-size, or take a smaller model,",
    )


def _too_large(engine: Engine, summary: str, evidence: tuple[Evidence, ...], fix: str) -> Finding:
    """Weights that no chip of the pod's kind holds."""
    model = engine.explicit("model")
    return Finding(
        role="risk",
        severity="critical",
        summary=summary,
        evidence=(*evidence, *((setting_evidence(engine.container, model),) if model else ())),
        fix=fixes.advice(f"{fix} in {fixes.edited(engine.pod)}"),
    )
