"""The symptom of an engine that has requests and computes nothing."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Engine, Finding, Logs, Metrics, Pod, check, fixes
from llmdoctor_checks._blocked import BLOCKED
from llmdoctor_checks._stalled import stalled


@check("engine-stalled", since="0.3", literals=(BLOCKED,))
def engine_stalled(pod: Pod, engine: Engine, logs: Logs | None, metrics: Metrics | None) -> Iterator[Finding]:
    """Requests are there, and no token has been computed for minutes.

    The server in front of the engine answers, also `/health` and `/metrics`, so that the pod stays ready; the engine behind it
    stands still. It is a symptom: a worker waits for another one in a collective, a kernel does not end, the GPU has failed, or
    the scheduler has no way on (then nothing runs, and requests wait beside an empty cache). Nothing ends it by itself before a
    timeout of the engine (300 s for a step of vLLM's, ten minutes for NCCL, `--watchdog-timeout` of SGLang) does.

    A long prompt is no standstill: its prefill fills the KV cache step by step. It is judged by the engine's metrics, by its own
    statements of throughput, or by the complaint of vLLM's engine core that its workers take nothing from it.

    ## Fix

    Save what it is doing before it is restarted (`py-spy dump` of the engine's and the workers' processes), look for Xids on
    the node, then delete the pod. A liveness probe on `/health` does not see it.

    ## References

    - https://docs.vllm.ai/en/latest/usage/troubleshooting/
    """
    found = stalled(pod, engine, logs, metrics)
    if found is None:
        return
    text, evidence, line = found
    yield Finding(
        role="symptom",
        summary=f"{engine.at} {text}.",
        evidence=evidence,
        fixes=(
            fixes.advice(
                f"Save the stacks of its processes (py-spy dump), then recreate {pod.name}{fixes.lone(pod)}",
                f"kubectl -n {pod.namespace} delete pod {pod.name}",
            ),
        )
        if pod.exists
        else (),
        order=line.order if line else None,
    )
