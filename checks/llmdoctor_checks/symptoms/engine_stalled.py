"""The symptom of an engine that has requests and computes nothing."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Engine,
    Finding,
    Fix,
    Logs,
    Metrics,
    Pod,
    check,
    endings,
    fixes,
    log_evidence,
    log_of,
    pod_evidence,
    say_seconds,
)
from llmdoctor_checks._blocked import BLOCKED
from llmdoctor_checks._consequences import CRASHED
from llmdoctor_checks._no_token import ORPHANED, UNHEALTHY, Silence, ended_silent, runs_silent
from llmdoctor_checks._stalled import stalled

#: The last release of SGLang in which the scheduler is not told that the client of a request has gone (sgl-project/sglang#35255).
_ORPHANS_UNTIL = "0.5.19"


@check("engine-stalled", since="0.3", literals=(BLOCKED, UNHEALTHY, ORPHANED))
def engine_stalled(pod: Pod, engine: Engine, logs: Logs | None, metrics: Metrics | None) -> Iterator[Finding]:
    """Requests are there, and no token has been computed for minutes.

    The server in front of the engine answers, also `/health` and `/metrics`, so that the pod stays ready; the engine behind it
    stands still. It is a symptom: a worker waits for another one in a collective, a kernel does not end, the GPU has failed, or
    the scheduler has no way on (then nothing runs, and requests wait beside an empty cache). Nothing ends it by itself before a
    timeout of the engine (300 s for a step of vLLM's, ten minutes for NCCL, `--watchdog-timeout` of SGLang) does.

    A long prompt is no standstill: its prefill fills the KV cache step by step. It is judged by the engine's metrics, by its own
    statements of throughput, or by the complaint of vLLM's engine core that its workers take nothing from it.

    SGLang's `/health` asks for a token itself, and says so when none came in time. Where nothing shows a step after that, the engine
    stands still, and a liveness probe that restarts it is right: more time for the probe only hides it.

    ## Fix

    Save what it is doing before it is restarted (`py-spy dump` of the engine's and the workers' processes), look for Xids on
    the node, then delete the pod. A liveness probe on `/health` does not see it, but for SGLang's.

    SGLang up to 0.5.19 goes on with requests whose clients have gone (`Received output for rid=... but the state was deleted in
    TokenizerManager`), which take the places of others: take a later release.

    ## References

    - https://docs.vllm.ai/en/latest/usage/troubleshooting/
    - https://github.com/sgl-project/sglang/pull/35255
    """
    if engine.name == "sglang" and logs is not None and (silent := _silent(pod, engine, logs)) is not None:
        yield silent
        return
    found = stalled(pod, engine, logs, metrics)
    if found is None:
        return
    text, evidence, line = found
    yield Finding(
        role="symptom",
        summary=f"{engine.at} {text}.",
        evidence=evidence,
        fixes=(_recreated(pod),) if pod.exists else (),
        order=line.order if line else None,
    )


def _silent(pod: Pod, engine: Engine, logs: Logs) -> Finding | None:
    """An SGLang whose health check got no token and that has done nothing since, or did not before a probe ended it."""
    container = engine.container
    ending = next((one for one in endings(pod) if one.container is container), None)
    if ending is not None and (found := ended_silent(ending, log_of(ending, logs))) is not None:
        what, shown = "had", [pod_evidence(pod, ending.path, ending.text)]
    elif (
        not container.engine_dead and (found := runs_silent(logs.current(container.name), pod.cluster.now)) is not None
    ):
        what, shown = "has", []
    else:
        return None
    orphans = " It went on with requests whose clients had gone." if found.orphan else ""
    return Finding(
        role="symptom" if pod.ready else "cause",
        summary=f"{engine.at} {what} computed nothing for {say_seconds(found.seconds)}, as its own health check says, which asks for a "
        f"token and got none; the server in front of it was up.{orphans}",
        evidence=(log_evidence(found.last), *((log_evidence(found.orphan),) if found.orphan else ()), *shown),
        explains=CRASHED,
        fixes=tuple(_fixes(pod, engine, found, ended=what == "had")),
        order=found.first.order,
    )


def _fixes(pod: Pod, engine: Engine, found: Silence, *, ended: bool) -> Iterator[Fix]:
    if found.orphan is not None and engine.at_least(_ORPHANS_UNTIL + ".post99") is not True:
        yield fixes.advice(
            f"Take an SGLang later than {_ORPHANS_UNTIL} (with sgl-project/sglang#35255) in {fixes.edited(pod)}: it ends the requests of "
            "clients that have gone; leave the probes, a longer one only hides it"
        )
    if not pod.exists:
        return
    if ended and engine.at_least("0.5.7") and engine.explicit("soft_watchdog_timeout_seconds") is None:
        yield fixes.set_flag(
            engine,
            "soft_watchdog_timeout_seconds",
            "--soft-watchdog-timeout",
            "30",
            "Have SGLang log the stacks of its processes when a step takes 30 s, which tell where it stands still the next time; leave "
            "the probe, which was right",
        )
        return
    if ended:
        yield fixes.advice(
            "Save the stacks of its processes (py-spy dump) the next time before the probe ends it, which was right"
        )
        return
    yield _recreated(pod)


def _recreated(pod: Pod) -> Fix:
    return fixes.advice(
        f"Save the stacks of its processes (py-spy dump), then recreate {pod.name}{fixes.lone(pod)}",
        f"kubectl -n {pod.namespace} delete pod {pod.name}",
    )
