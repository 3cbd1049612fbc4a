"""A server that counts as ready and does not answer on its own port."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import Engine, Finding, Fix, Pod, check, fixes, say_seconds

#: How a request ends that was taken and not answered in time: ours to the API server, and the API server's to the pod. That a
#: connection could not be made is another matter, of the network or of a server that is not up.
_NO_ANSWER = r"timed out after [\d.]+ s|awaiting headers|context deadline exceeded"
_NO_CONNECTION = r"dial tcp|connection refused|no route to host"


@check("engine-unresponsive", since="0.2", severity="warning")
def engine_unresponsive(pod: Pod, engine: Engine) -> Iterator[Finding]:
    """A server counts as ready and does not answer on its own port.

    The health endpoint of an engine answers within milliseconds, whatever the GPU does. When it takes seconds, the process
    that answers HTTP is busy or stuck: tokenizing or parsing huge requests, short of CPU, blocked in a call. Requests then
    wait before they reach the engine, and a liveness probe with a short timeout is about to restart the container.

    The question goes through the API server. Where nothing else of the pod's port was answered, it may as well be that the
    API server does not reach pods: a network policy, or a control plane outside of the pods' network.

    ## Fix

    Ask from inside the pod. If it answers at once there, the way from the API server is closed; if not, look at the CPU
    that the container gets and at its log.

        kubectl -n NAMESPACE exec POD -c CONTAINER -- curl -sS -m 10 -o /dev/null -w '%{http_code} %{time_total}s' localhost:8000/health

    ## References

    - https://docs.vllm.ai/en/latest/serving/openai_compatible_server/
    - https://kubernetes.io/docs/concepts/cluster-administration/proxies/
    """
    port, path = engine.value("port"), str(engine.value("health_path", "/health"))
    health, smoke = engine.answers.at(path), engine.answers.smoke
    silent = next((one for one in (health, smoke) if one and _timed_out(one.error)), None)
    if not pod.ready or silent is None or silent.port != port or engine.container.engine_dead:
        return
    other = engine.answers.reached(silent.port)
    where = f"{other.method} {other.path}" if other else "GET /metrics" if engine.answers.measured else ""
    busy = "its HTTP process is busy or stuck" if silent is health else "its engine is stuck, or its queue is that long"
    waited = f"within {say_seconds(silent.seconds)}" if silent.seconds >= 1 else "in time"
    yield Finding(
        role="risk" if where else "note",
        confidence="likely" if where else "possible",
        summary=f"{pod.name} counts as ready, and {engine.at} did not answer {silent.method} "
        f"{silent.path} {waited}"
        + (f", though it answered {where}: {busy}." if where else f": {busy}, or the API server does not reach pods."),
        evidence=(engine.answers.evidence(silent), *((engine.answers.evidence(other),) if other else ())),
        fixes=_fixes(engine, silent.port, path, stuck=silent is not health),
    )


def _timed_out(error: str) -> bool:
    return bool(re.search(_NO_ANSWER, error)) and not re.search(_NO_CONNECTION, error)


def _fixes(engine: Engine, port: int, path: str, *, stuck: bool) -> tuple[Fix, ...]:
    """What tells a slow process from a way that is closed, or, where it is the engine that is slow, a queue from a standstill."""
    pod, container = engine.pod, engine.container.name
    run = f"kubectl -n {pod.namespace} exec {pod.name} -c {container} --"
    if stuck:
        counted = engine.name in ("vllm", "sglang", "tgi")
        return (
            fixes.advice(
                "See how many requests run and wait: with a long queue add replicas, without one the engine is stuck",
                *((f"{run} curl -sS -m 10 localhost:{port}/metrics",) if counted else ()),
                f"kubectl -n {pod.namespace} logs {pod.name} -c {container} --tail=50",
            ),
        )
    inside = f"curl -sS -m 10 -o /dev/null -w '%{{http_code}} %{{time_total}}s' localhost:{port}{path}"
    return (
        fixes.advice(
            "Ask from inside the pod how long it takes: where it answers at once, the way from the API server is closed; "
            "where not, look at the container's CPU and its log",
            f"{run} {inside}",
        ),
    )
