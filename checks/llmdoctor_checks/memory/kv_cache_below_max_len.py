"""A maximum length that the KV cache cannot hold."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Finding, Pod, Sizing, check

from ._budget import finding, gib, role_of, room


@check("kv-cache-below-max-len", since="0.1")
def kv_cache_below_max_len(pod: Pod, sizing: Sizing) -> Iterator[Finding]:
    """One request of the maximum length does not fit into the KV cache.

    The engine keeps the keys and values of every token of a running request in GPU memory, in what is left after the
    weights and the activations. At start it checks that one request of the maximum length fits. Without
    `--max-model-len` the maximum is the model's own, often 128 Ki tokens or more, which needs many gigabytes. From
    vLLM 0.8.5 on the message says which length would fit.

    ## Fix

    Set `--max-model-len` to what fits. If long requests are really needed, make room: spread the model over more GPUs
    (`--tensor-parallel-size`), store the cache in 8 bits (`--kv-cache-dtype fp8`), take a quantized checkpoint, or raise
    `--gpu-memory-utilization` where nothing else uses the GPU.

    ## References

    - https://docs.vllm.ai/en/latest/configuration/conserving_memory/
    - https://huggingface.co/docs/text-generation-inference/reference/launcher
    """
    cap = sizing.engine.explicit("max_model_len")
    if cap is None or not role_of(pod, sizing):
        return
    budget = sizing.budget
    if budget is None or not (budget.lacks_room and budget.per_request):
        return
    yield finding(
        pod,
        sizing,
        f"One request of {budget.context} tokens ({cap.text}) needs {gib(budget.per_request)} of KV cache, and "
        f"{room(sizing)}.",
    )
