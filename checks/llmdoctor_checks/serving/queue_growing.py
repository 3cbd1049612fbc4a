"""Requests that wait, and more and more of them."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Engine, Finding, Logs, Pod, check, fixes, log_evidence
from llmdoctor_checks.serving._load import recent_load

#: So many requests wait at the end, at least, and no fewer than run: fewer are a burst.
_LEAST = 10


@check("queue-growing", since="0.2", severity="warning")
def queue_growing(pod: Pod, engine: Engine, logs: Logs) -> Iterator[Finding]:
    """More requests come in than the engine can serve, and the queue grows.

    An engine runs as many requests at once as its cache and its limits allow; the others wait. A short queue is how batching
    works. A queue that grows for minutes means that requests arrive faster than they are served: each one waits longer than
    the one before, until clients give up or the engine refuses (Ollama beyond `OLLAMA_MAX_QUEUE`, Text Generation Inference
    beyond `MAX_CONCURRENT_REQUESTS`, SGLang beyond `--max-queued-requests`).

    ## Fix

    Add replicas, and scale on the number of waiting requests (`hpa-wrong-metric` says how). Limit what one client may send. Where
    the KV cache is full, see `kv-cache-saturated` first.

    ## References

    - https://docs.vllm.ai/en/latest/usage/metrics/
    - https://docs.sglang.ai/references/production_metrics.html
    - https://docs.ollama.com/faq
    """
    said = recent_load(engine.container, logs)
    if not said or not pod.ready or min(load.waiting for load in said) == 0:
        return
    third = len(said) // 3
    early, late = (sum(load.waiting for load in part) / third for part in (said[:third], said[-third:]))
    last = said[-1]
    if late < 1.5 * early or last.waiting < max(_LEAST, last.running):
        return
    yield Finding(
        role="cause",
        confidence="likely",
        summary=f"{last.waiting} requests wait in {engine.container.name} while {last.running} run; "
        f"it was {said[0].waiting} {len(said) - 1} statements before.",
        evidence=(log_evidence(said[0].line), log_evidence(last.line)),
        fixes=(
            fixes.advice(
                f"Add replicas of {fixes.edited(pod)}: about {-(-(last.waiting + last.running) // max(last.running, 1))} times as "
                "many serve what is here now at once; then scale on waiting requests"
            ),
        ),
        order=last.line.order,
        pods=(pod.name,),
    )
