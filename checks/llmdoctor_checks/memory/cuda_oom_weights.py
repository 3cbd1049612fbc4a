"""Weights that are larger than the GPU."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Finding, Pod, Sizing, check, count_of

from ._budget import finding, gib, role_of


@check("cuda-oom-weights", since="0.1")
def cuda_oom_weights(pod: Pod, sizing: Sizing) -> Iterator[Finding]:
    """The weights do not fit into the GPU's memory.

    Each GPU holds the model's weights divided by the tensor and pipeline parallel size: two bytes for each parameter in
    16 bits, one in 8 bits, about half a byte in 4 bits. When they are larger than the GPU, the engine ends while it
    loads them, with "CUDA out of memory". No setting of the KV cache helps.

    ## Fix

    Spread the model over more GPUs (`--tensor-parallel-size`), take a checkpoint that is quantized to 8 or 4 bits, or
    a GPU with more memory. `kubectl llmdoctor fit MODEL --gpu NAME` computes what fits.

    ## References

    - https://docs.vllm.ai/en/latest/configuration/conserving_memory/
    - https://huggingface.co/docs/text-generation-inference/conceptual/quantization
    """
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
