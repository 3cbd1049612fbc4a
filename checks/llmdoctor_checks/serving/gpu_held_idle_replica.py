"""Replicas that hold GPUs and have nothing to do."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Engine,
    Evidence,
    Finding,
    Fix,
    Metrics,
    Pod,
    Subject,
    check,
    count_of,
    dig,
    fixes,
    say_seconds,
)
from llmdoctor_checks.serving._autoscaling import scalers

#: For so long, at least, a replica has nothing to do before it is called idle: the hour that is asked for, less a scrape.
_LONG_SECONDS = 3000

#: A replica counts as far from full up to this share of its KV cache.
_EASY = 0.5


@check("gpu-held-idle-replica", since="0.2", severity="info")
def gpu_held_idle_replica(
    pod: Pod, engine: Engine, subject: Subject, cluster: Cluster, metrics: Metrics
) -> Iterator[Finding]:
    """A replica holds GPUs and answers nothing, while the others have room to spare.

    Replicas that are far above the load keep GPUs from all other workloads. This one has had no request for an hour, nobody
    waits at any replica, and the others are less than half full: one replica fewer serves the same.

    Without a history the counters of a server that has finished no request since it started say the same of it; the others are
    then known for the moment only.

    Whether it is kept for a peak that comes later is known to whoever runs it; so this is only noted. A single replica
    that is idle is not: the next request needs it.

    ## Fix

    Lower the minimum of the autoscaler, or the number of replicas. Where peaks come, scale on the number of waiting requests
    (`hpa-wrong-metric` says how), and count how long a replica takes to start.

    ## References

    - https://keda.sh/docs/latest/concepts/scaling-deployments/
    - https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/
    """
    running, waiting = metrics.span("running"), metrics.span("waiting")
    if not pod.ready or not engine.container.gpus or not metrics.peers or running is None or waiting is None:
        return
    finished = metrics.increase("finished")
    # counted from the start of the process: it has never done anything
    never = finished is not None and finished.lifetime and not finished.amount
    idle = max(running.seconds, finished.seconds if finished and never else 0.0)
    if idle < _LONG_SECONDS or max(running.values) > 0 or max(waiting.values) > 0:
        return
    busiest = 0.0
    for peer in metrics.peers:
        queue, runs, cache = peer.span("waiting"), peer.span("running"), peer.cache
        if queue is None or runs is None or max(queue.values) > 0 or (runs.seconds < _LONG_SECONDS and not never):
            return
        if max(runs.values) > 0 and (cache is None or max(cache.values) > _EASY):
            return
        busiest = max(busiest, max(runs.values))
    if not busiest:
        return  # all are idle: at night that is so
    replicas = 1 + len(metrics.peers)
    text = f"{metrics.name_of('finished')}: 0 in {say_seconds(idle)}"
    counted = (Evidence(source="metric", ref=running.source, text=text),) if never else ()
    yield Finding(
        role="note",
        summary=f"{pod.name} has answered nothing for {say_seconds(idle)} and holds "
        f"{count_of(engine.container.gpus, 'GPU')}; nobody waited at any of {replicas} replicas, and the busiest ran "
        f"{busiest:.0f} at most.",
        evidence=(running.evidence(), waiting.evidence(), *counted),
        fix=_fix(pod, subject, cluster, replicas),
    )


def _fix(pod: Pod, subject: Subject, cluster: Cluster, replicas: int) -> Fix:
    scaler = next(scalers(subject, cluster), None)
    if scaler is not None and scaler.minimum > 1:
        path = "minReplicas" if scaler.item.kind == "HorizontalPodAutoscaler" else "minReplicaCount"
        if isinstance(dig(scaler.item.raw, f"spec.{path}"), int):
            return fixes.set_field(
                scaler.item, f"/spec/{path}", scaler.minimum - 1, f"Lower the minimum of {scaler.ref}"
            )
    return fixes.advice(
        f"Run {count_of(replicas - 1, 'replica')} of {fixes.edited(pod)}, if no peak is expected that needs all"
    )
