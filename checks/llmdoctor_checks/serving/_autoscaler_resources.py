"""An autoscaler that looks at CPU or memory of an engine on GPUs, which do not follow its load."""

from collections.abc import Iterator
from typing import Literal

from kubectl_llmdoctor.api import (
    Container,
    Engine,
    Evidence,
    Finding,
    Fix,
    Logs,
    Metrics,
    Pod,
    Span,
    dig,
    pod_evidence,
    rows,
    say_cores,
    say_seconds,
)
from llmdoctor_checks.serving._autoscaler_queue import lasting_queue, seen_queue, stays
from llmdoctor_checks.serving._autoscaling import Look, Scaler
from llmdoctor_checks.serving._processes import busy
from llmdoctor_checks.serving._saturation import evidence as load_evidence
from llmdoctor_checks.serving._saturation import load_of

#: How many replicas an autoscaler has now.
_REPLICAS = "kube_horizontalpodautoscaler_status_current_replicas"

#: CPU that changes by less than this from the first to the last third of an hour stands still.
_FLAT = 0.2
_FEWEST_POINTS = 6

#: What says of a container what an autoscaler looks at.
_BY_ROLE: dict[str, Literal["cpu_seconds", "memory_working_set"]] = {
    "cpu": "cpu_seconds",
    "memory": "memory_working_set",
}


def by_resources(
    pod: Pod, engine: Engine, scaler: Scaler, metrics: Metrics | None, logs: Logs | None, rescale: Fix
) -> Finding | None:
    """An autoscaler that looks at nothing else: the cause of a queue that it does not see, or a risk."""
    if not scaler.looks or any(look.source != "resource" for look in scaler.looks):
        return None
    return (
        _blind(pod, engine, scaler, metrics, rescale)
        or _below(pod, engine, scaler, metrics, logs, rescale)
        or _in_general(pod, engine, scaler, rescale)
    )


def _blind(pod: Pod, engine: Engine, scaler: Scaler, metrics: Metrics | None, rescale: Fix) -> Finding | None:
    """The queue grew, what the autoscaler looks at stood still, and it added nothing although it could."""
    load = load_of(metrics)
    if metrics is None or load is None or not load.queues or not load.grows:
        return None
    if not pod.ready or engine.container.engine_dead:
        return None
    made = "" if scaler.item.kind == "HorizontalPodAutoscaler" else "keda-hpa-"
    replicas = metrics.readings.span(_REPLICAS, pod.namespace, horizontalpodautoscaler=made + scaler.item.name)
    here = dig(scaler.item.raw, "status.currentReplicas")
    if replicas is not None and len(set(replicas.values)) > 1:
        return None
    now = int(replicas.last) if replicas is not None else here
    if not isinstance(now, int) or now >= scaler.maximum:
        return None  # it can do no more, or it is not known
    stood = _stood_still(scaler, metrics)
    if stood is None:
        return None
    looked, still = stood
    names = " and ".join(dict.fromkeys(look.name for look in scaler.looks))
    return Finding(
        severity="warning",
        summary=f"{scaler.ref} scales {engine.label} on GPUs by {names}: in {say_seconds(load.waiting.seconds)} the requests that "
        f"wait grew from {load.waiting.third(0):.0f} to {load.waiting.third(2):.0f} (means of the first and the last third), "
        f"while {still}, and it stayed at {now} of {scaler.maximum} replicas.",
        evidence=(
            *scaler.quoted,
            *load_evidence(load)[:1],
            looked.evidence(),
            *((replicas.evidence(),) if replicas is not None else ()),
        ),
        explains=("queue-growing", "kv-cache-saturated"),
        fix=rescale,
    )


def _below(
    pod: Pod, engine: Engine, scaler: Scaler, metrics: Metrics | None, logs: Logs | None, rescale: Fix
) -> Finding | None:
    """Requests wait, more than run or more and more, while its own readings are below its targets, so that it adds nothing."""
    readings = _readings(scaler)
    if not readings or not pod.ready or engine.container.engine_dead or not stays(scaler):
        return None
    load, sure = load_of(metrics), True
    if load is not None and load.queues and load.grows:
        waits = f"{load.waiting.last:.0f} requests wait, {load.waiting.points[0][1]:.0f} did {say_seconds(load.waiting.seconds)} before"
        shown = load_evidence(load)[:1]
    elif (queue := lasting_queue(pod, engine, scaler, logs)) is not None:
        waits, shown = queue[0], (queue[1],)
    elif load is None and (queue := seen_queue(pod, engine, scaler, logs, metrics)) is not None:
        waits, shown, sure = queue[0], (queue[1],), False
    else:
        return None
    return Finding(
        severity="warning",
        confidence="likely" if sure else "possible",
        summary=f"{scaler.ref} scales {engine.label} on GPUs by {' and '.join(name for name, _, _ in readings)}: {waits}, while it reads "
        + " and ".join(f"{now}% {name} and adds replicas above {target}%" for name, now, target in readings)
        + f"; {stays(scaler)}.",
        evidence=(
            *scaler.quoted,
            *(scaler.evidence("status.currentMetrics", f"{name}: {now}%") for name, now, _ in readings),
            *shown,
        ),
        explains=("queue-growing", "kv-cache-saturated"),
        fix=rescale,
    )


def _in_general(pod: Pod, engine: Engine, scaler: Scaler, rescale: Fix) -> Finding:
    """CPU or memory of an engine on GPUs."""
    names = " and ".join(dict.fromkeys(look.name for look in scaler.looks))
    cpu = next((look for look in scaler.looks if look.name == "cpu"), None)
    effect = _cpu_effect(pod, engine, scaler, cpu) if cpu else ""
    if not effect:
        effect = "host memory stands still once the model is loaded" if cpu is None else "it does not follow the load"
    return Finding(
        role="risk",
        summary=f"{scaler.ref} scales {engine.label} on GPUs by {names}: {effect}.",
        evidence=(*scaler.quoted, *_cpu_evidence(engine.container)),
        fix=rescale,
    )


def _readings(scaler: Scaler) -> list[tuple[str, int, int]]:
    """What it reads of each resource and its target, percent of the request; empty unless all are known and below."""
    found = []
    for look in scaler.looks:
        current = next(
            (row for row in rows(scaler.item.raw, "status.currentMetrics") if dig(row, "resource.name") == look.name),
            None,
        )
        now = dig(current, "resource.current.averageUtilization")
        if not isinstance(now, int) or look.percent is None or now >= look.percent:
            return []
        found.append((look.name, now, look.percent))
    return found


def _stood_still(scaler: Scaler, metrics: Metrics) -> tuple[Span, str] | None:
    """What it looks at, where all of that stood still over the window, and in words; CPU first."""
    found = None
    for name in sorted({look.name for look in scaler.looks}, reverse=True):
        span = {"cpu": metrics.rates, "memory": metrics.span}[name](_BY_ROLE[name]) if name in _BY_ROLE else None
        if span is None or len(span.points) < _FEWEST_POINTS:
            return None
        first, last = span.third(0), span.third(2)
        if abs(last - first) > _FLAT * max(first, last):
            return None
        found = span, (f"CPU stood still ({first:.2g} and {last:.2g} cores)" if name == "cpu" else "memory stood still")
    return found


def _cpu_effect(pod: Pod, engine: Engine, scaler: Scaler, cpu: Look) -> str:
    containers = [c for c in pod.containers if c.role != "init"]
    requests = [c.request("cpu") for c in containers]
    without = [c.name for c in containers if c.request("cpu") is None]
    if cpu.percent and without and not pod.partial and not pod.exists:
        return (
            f"container {without[0]} has no CPU request, so that there is no percentage to compute "
            "(FailedGetResourceMetric), and it never scales"
        )
    processes = busy(engine)
    total = sum(request or 0 for request in requests)
    if processes is None or not cpu.percent or not total:
        return ""
    most, least = processes.total * 100_000 // total, processes.loops * 100_000 // total
    base = f"it keeps {processes.total} processes busy ({processes.text}), at most {most} % of the {say_cores(total)} cores requested"
    if most < cpu.percent:
        return f"{base}, so that the target of {cpu.percent} % is never reached and no load adds a replica"
    if least >= cpu.percent:
        few = f"{least} % with a single request: at a target of {cpu.percent} % that is enough"
        return f"{base}, and {few} to add all {scaler.maximum} replicas"
    return f"{base}, whatever waits in its queue; the target is {cpu.percent} %"


def _cpu_evidence(container: Container) -> Iterator[Evidence]:
    amount = container.spec.resources.requests.get("cpu", container.spec.resources.limits.get("cpu"))
    if amount is not None:
        yield pod_evidence(container, "resources.requests.cpu", str(amount))
