"""No GPU memory left for the KV cache."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Finding, Pod, Sizing, check

from ._budget import finding, gib, role_of


@check("kv-cache-no-room", since="0.1")
def kv_cache_no_room(pod: Pod, sizing: Sizing) -> Iterator[Finding]:
    """Nothing is left of the GPU's memory for the KV cache.

    vLLM may use `--gpu-memory-utilization` of the GPU for weights, for the working memory of one full batch and for the
    cache of keys and values. When weights and working memory take all of it, no cache block can be allocated and the
    engine refuses to start ("No available memory for the cache blocks"). The same happens where another process holds
    memory of the GPU.

    ## Fix

    Raise `--gpu-memory-utilization` where nothing else uses the GPU, lower `--max-num-batched-tokens` and
    `--max-num-seqs` (they decide the working memory), take a quantized checkpoint, or more GPUs.

    ## References

    - https://docs.vllm.ai/en/latest/configuration/conserving_memory/
    """
    if not role_of(pod, sizing) or (budget := sizing.budget) is None:
        return
    if not (budget.weights and budget.total and budget.cache and budget.usable):
        return
    if budget.cache.high > 0 or budget.weights.low > budget.total.high:
        return
    yield finding(
        pod,
        sizing,
        f"{gib(budget.weights.low)} of weights fill the {gib(budget.usable.high)} of GPU memory that {sizing.engine.title} "
        "may use, so nothing is left for the KV cache.",
    )
