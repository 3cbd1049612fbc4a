"""A KV cache that is full while requests wait for it."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Engine, Finding, Logs, Pod, check, fixes, log_evidence
from llmdoctor_checks.serving._load import recent_load

#: From this share on the cache counts as full: a block that is left over fits no request.
_FULL = 0.97


@check("kv-cache-saturated", since="0.2", severity="warning")
def kv_cache_saturated(pod: Pod, engine: Engine, logs: Logs) -> Iterator[Finding]:
    """The KV cache is full, and requests wait for room in it.

    Every token of every running request has its place in the KV cache. When it is full, new requests wait although the GPU
    could compute more of them at once, and running ones are preempted: their cache is thrown away and computed again later.
    Both make answers slow, and preemption makes the server slower the busier it is.

    ## Fix

    Make the cache larger (`--gpu-memory-utilization` as far as it goes, an fp8 cache, more GPUs), shorten what one request
    may take (`--max-model-len`), or add replicas.

    ## References

    - https://docs.vllm.ai/en/latest/configuration/optimization/#preemption
    - https://docs.sglang.ai/advanced_features/hyperparameter_tuning.html
    """
    said = recent_load(engine.container, logs)
    if not said or not pod.ready or not all(load.cache >= _FULL and load.waiting for load in said):
        return
    last = said[-1]
    yield Finding(
        role="cause",
        confidence="likely",
        summary=f"The KV cache of {engine.container.name} is {last.cache:.0%} full, with {last.running} requests running and "
        f"{last.waiting} waiting, and was so in its last {len(said)} statements.",
        evidence=(log_evidence(said[0].line), log_evidence(last.line)),
        explains=("queue-growing",),
        fixes=(
            fixes.advice(
                f"Add replicas of {fixes.edited(pod)}, or give the cache more memory (kubectl llmdoctor fit says how much)"
            ),
        ),
        order=last.line.order,
        pods=(pod.name,),
    )
