"""An autoscaler that looks at what does not follow the load."""

import re
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from kubectl_llmdoctor.api import (
    Cluster,
    Container,
    Engine,
    Evidence,
    Finding,
    Fix,
    Item,
    Logs,
    Metrics,
    Pod,
    Span,
    Subject,
    check,
    dig,
    fixes,
    log_evidence,
    object_evidence,
    parse_time,
    pod_evidence,
    say_cores,
    say_seconds,
    setting_evidence,
    workload_evidence,
)
from kubectl_llmdoctor.catalog.metrics import metric
from llmdoctor_checks._raw import rows
from llmdoctor_checks.scheduling._words import sentence
from llmdoctor_checks.serving._autoscaling import (
    Look,
    Scaler,
    absent,
    alike,
    cache_metric,
    metrics_off,
    queue_metric,
    scalers,
)
from llmdoctor_checks.serving._load import recent_load, works
from llmdoctor_checks.serving._processes import busy
from llmdoctor_checks.serving._rescale import concurrency_of, rescaled
from llmdoctor_checks.serving._saturation import evidence as load_evidence
from llmdoctor_checks.serving._saturation import load_of

_CLASS = "autoscaling.knative.dev/class"
_METRIC = "autoscaling.knative.dev/metric"

#: How many replicas an autoscaler has now.
_REPLICAS = "kube_horizontalpodautoscaler_status_current_replicas"

#: What has no value for so long is not only restarting.
_LASTS_SECONDS = 600

#: How many requests llama-server runs at once, when it starts (`tools/server/server.cpp`, `server-context.cpp`).
_SLOTS = "initializing slots, n_slots = "

#: Fewer that wait are a burst; a queue that is longer by this factor than a few minutes ago grows.
_QUEUE, _GROWS = 10, 1.5

#: CPU that changes by less than this from the first to the last third of an hour stands still.
_FLAT = 0.2
_FEWEST_POINTS = 6

#: Why the controller does not even ask for a value (`horizontal.go`, validateAndParseSelector), in words, and else.
_NO_PODS = {
    "InvalidSelector": "cannot tell which pods it scales for {}",
    "AmbiguousSelector": "shares the pods of {} with another autoscaler",
}
#: What KEDA calls a trigger that it cannot read, and a ScaledObject that it makes no autoscaler of.
_REFUSED = ("KEDAScalerFailed", "ScaledObjectCheckFailed")
_NO_VALUE = "gets no value for what it scales {} on"

#: What says of a container what an autoscaler looks at.
_BY_ROLE: dict[str, Literal["cpu_seconds", "memory_working_set"]] = {
    "cpu": "cpu_seconds",
    "memory": "memory_working_set",
}


@check("hpa-wrong-metric", since="0.2", severity="warning", literals=(_SLOTS,))
def hpa_wrong_metric(
    pod: Pod, subject: Subject, cluster: Cluster, metrics: Metrics | None, logs: Logs | None
) -> Iterator[Finding]:
    """An autoscaler follows CPU or memory, or a metric that the engine does not emit.

    CPU does not follow the load of an engine on GPUs. Its scheduler and workers loop at full speed as long as there is one
    request, and only the share of the API server grows; host memory stands still once the model is loaded, and GPU memory
    is reserved at start. So an autoscaler on CPU or memory adds all replicas for one request, or none for any load; which
    of the two depends on the CPU request. What follows the load is the number of waiting requests, and how full the KV
    cache is.

    Names change: vLLM has `vllm:kv_cache_usage_perc` from 0.9.2 on, and no longer `vllm:gpu_cache_usage_perc` from 0.12
    on (0.11 hides it). SGLang and llama.cpp emit metrics only with `--enable-metrics` and `--metrics`. A metric that
    nobody emits has no value, and the autoscaler does nothing. Neither does one on a metric of another engine.

    The requests that run are no more than the engine runs at once (`--max-num-seqs`, llama.cpp's `--parallel`): an autoscaler
    on them alone, with a target of as many or more, never adds a replica. llama-server says at start how many slots it has.

    Router, proxies and engines on CPU are another matter: there CPU follows the load.

    ## Fix

    Scale on the engine's queue, through an adapter that publishes Prometheus metrics (prometheus-adapter, KEDA):
    `vllm:num_requests_waiting`, `sglang:num_queue_reqs`, `tgi_queue_size`, `llamacpp:requests_deferred`. In Knative use
    its own autoscaler with concurrency.

    With KEDA (the names of vLLM; those of the release at hand stand in the report):

        apiVersion: keda.sh/v1alpha1
        kind: ScaledObject
        metadata: {name: llama, namespace: serving}
        spec:
          scaleTargetRef: {name: llama}
          minReplicaCount: 1
          maxReplicaCount: 4
          triggers:
            - type: prometheus
              metadata:
                serverAddress: http://prometheus-k8s.monitoring.svc:9090
                query: sum(vllm:num_requests_running{namespace="serving"}) + sum(vllm:num_requests_waiting{namespace="serving"})
                threshold: "40"

    The running ones belong to it: the waiting ones alone fall to zero as soon as every request runs, and full replicas would
    be taken away. Where metrics of the last hour were read, the target is computed from them: four fifths of the requests that one replica
    had in service while others waited. Without them it is four fifths of what the engine may run at once.

    Where the queue grew in that hour while CPU stood still and no replica was added, the autoscaler is the cause; so it is where
    it gets no value and could add replicas, while the engine's log says that more requests wait than run, or more and more. One that
    has had no value for ten minutes or more does nothing, whatever comes. Neither does one that reads zero while the engine says that
    requests run and wait: its query finds no series. What KEDA's does stands in the status of the autoscaler that it makes.

    ## References

    - https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/
    - https://docs.vllm.ai/en/latest/usage/metrics/
    - https://keda.sh/docs/latest/scalers/prometheus/
    """
    engine = next((e for e in subject.engines(pod) if e.container.gpus), None)
    if engine is None:
        return
    for scaler in scalers(subject, cluster):
        if scaler.maximum <= scaler.minimum:
            continue
        rescale = rescaled(engine, scaler, subject, cluster, metrics) or _told(engine, scaler)
        failed = _failed(pod, engine, scaler, rescale, logs) or _unread(pod, engine, scaler, subject)
        if failed or (failed := _reads_nothing(pod, engine, scaler, cluster, logs)):
            yield failed
            return
        if scaler.looks and all(look.source == "resource" for look in scaler.looks):
            yield (
                _blind(pod, engine, scaler, metrics, rescale)
                or _below(pod, engine, scaler, metrics, logs, rescale)
                or _resource(pod, engine, scaler, rescale)
            )
            return
        named = [look for look in scaler.looks if look.source == "metric"]
        if (
            len(scaler.looks) == 1
            and named
            and (found := _beyond(pod, engine, scaler, named[0], rescale, metrics, logs))
        ):
            yield found
            return
        for look in named:
            if len(named) == len(scaler.looks) and (found := _silent(pod, engine, scaler, look, subject, logs)):
                yield found
                return
    yield from _operator(pod, engine, subject, metrics)


def _beyond(
    pod: Pod, engine: Engine, scaler: Scaler, look: Look, rescale: Fix, metrics: Metrics | None, logs: Logs | None
) -> Finding | None:
    """A target for the requests that run which a full replica does not exceed, while the others wait unseen."""
    most, running = _at_once(engine, logs), metric(engine.name, "running", engine.version)
    # the metric alone: by its name, or the sum of its series in a query
    alone = re.fullmatch(r"(?:(?:sum|avg)\()?([a-z][\w:]*)(?:\{[^{}]*\})?\)?", look.name.strip())
    if most is None or running is None or alone is None:
        return None
    if alone[1].replace(":", "_", 1) != running.name.replace(":", "_", 1) or not look.each.isdecimal():
        return None
    if int(look.each) < most[0]:
        return None
    load = load_of(metrics) if metrics is not None else None
    waits = load is not None and load.queues and not load.drains and pod.ready and bool(_stays(scaler))
    meanwhile = f" Meanwhile {load.waiting.last:.0f} requests wait, and {_stays(scaler)}." if load and waits else ""
    return Finding(
        role="cause" if waits else "risk",
        severity="warning",
        confidence="likely",
        summary=f"{scaler.ref} adds a replica when more than {look.each} requests run in each; {engine.label} runs {most[0]} at "
        f"once and lets the others wait, so that no load adds one.{meanwhile}",
        evidence=(
            scaler.evidence(look.path, f"{look.text}, {look.each} for each replica"),
            most[1],
            *(load_evidence(load)[:1] if load and waits else ()),
        ),
        explains=("queue-growing", "kv-cache-saturated") if waits else (),
        fixes=(rescale,),
        pods=(pod.name,) if pod.exists else (),
    )


def _at_once(engine: Engine, logs: Logs | None) -> tuple[int, Evidence] | None:
    """How many requests the engine runs at once: as it is told, or as llama.cpp says of its slots when it starts."""
    told = engine.explicit("max_num_seqs")
    if told is not None and isinstance(told.value, int) and told.value > 0:
        return told.value, setting_evidence(engine.container, told)
    log = logs.current(engine.container.name) if logs is not None and engine.name == "llama.cpp" else None
    for line in log.find(_SLOTS) if log is not None else ():
        if (said := re.search(rf"{_SLOTS}(\d{{1,4}})\b", line.text)) is not None:
            return int(said[1]), log_evidence(line)
    return None


def _failed(pod: Pod, engine: Engine, scaler: Scaler, rescale: Fix, logs: Logs | None) -> Finding | None:
    """What the controller says: it gets no value, although there is a pod to ask."""
    if pod.exists and not pod.ready:
        return None
    hpa = _acts(scaler, pod.cluster)
    acting = msgspec.structs.replace(scaler, item=hpa)
    for row in rows(hpa.raw, "status.conditions"):
        inactive = (row.get("type"), row.get("status")) == ("ScalingActive", "False")
        reason = str(row.get("reason"))
        if inactive and (reason.startswith("FailedGet") or reason in _NO_PODS):
            said = f"{reason}: {row.get('message') or ''}".rstrip(": ")
            queue = _queue(pod, engine, acting, logs) if logs is not None else None
            waits = f" Meanwhile {queue[0]}, and {_stays(acting)}." if queue else ""
            told = _for_long(acting, row, pod.cluster) if not queue else None
            if told:
                waits = f" It has said so for {told[0]}."
            gone = next((found for look in scaler.looks if (found := absent(engine, look.name))), None)
            if gone and pod.exists:
                waits += f" {engine.label} does not emit {gone[0]}; it has {gone[1]}."
            return Finding(
                role="cause" if queue or told or (gone and pod.exists) else "risk",
                severity="warning",
                confidence="certain",
                summary=f"{scaler.ref} {_NO_PODS.get(reason, _NO_VALUE).format(engine.label)}, and does nothing.{waits}",
                evidence=(
                    acting.evidence("status.conditions[ScalingActive]", said),
                    *(scaler.evidence(look.path, look.text) for look in scaler.looks),
                    *((queue[1],) if queue else ()),
                    *(told[1] if told else ()),
                ),
                explains=("queue-growing", "kv-cache-saturated") if queue else (),
                fixes=(_selectable(scaler, reason) if reason in _NO_PODS else _lookup(pod, engine, scaler, rescale),),
                pods=(pod.name,) if pod.exists else (),
            )
    return None


def _acts(scaler: Scaler, cluster: Cluster) -> Item:
    """The HorizontalPodAutoscaler whose status tells what an autoscaler does: of a ScaledObject the one that KEDA makes of it."""
    if scaler.item.kind.partition(".")[0] != "ScaledObject":
        return scaler.item
    name = str(dig(scaler.item.raw, "status.hpaName") or f"keda-hpa-{scaler.item.name}")
    return cluster.item("HorizontalPodAutoscaler", scaler.item.namespace, name) or scaler.item


def _selectable(scaler: Scaler, reason: str) -> Fix:
    """What to do where the autoscaler cannot tell whose replicas it counts."""
    target = dig(scaler.item.raw, "spec.scaleTargetRef")
    what = f"{dig(target, 'kind')}/{dig(target, 'name')}"
    if reason == "AmbiguousSelector":
        return fixes.advice(
            f"Leave one autoscaler to the pods of {what}, or let the selectors of what they scale not overlap",
            f"kubectl -n {scaler.item.namespace} get hpa",
            owner="platform",
        )
    return fixes.advice(
        f"Give the scale subresource of {what} a selector that is its own, let its operator scale it, or point {scaler.ref} at what "
        "makes the pods",
        f"kubectl -n {scaler.item.namespace} describe hpa {scaler.item.name}",
        owner="platform",
    )


def _for_long(scaler: Scaler, condition: dict[str, Any], cluster: Cluster) -> tuple[str, tuple[Evidence, ...]] | None:
    """For how long it has had no value, and the event that says so, where that is no hiccup of what serves the metrics."""
    since, now = parse_time(condition.get("lastTransitionTime")), cluster.now
    if since is not None and now is not None and (now - since).total_seconds() >= _LASTS_SECONDS:
        return say_seconds((now - since).total_seconds()), ()
    for raw, said in _events(scaler, str(condition.get("reason")), cluster):
        first, last = (parse_time(raw.get(key)) for key in ("firstTimestamp", "lastTimestamp"))
        if first is not None and last is not None and (last - first).total_seconds() >= _LASTS_SECONDS:
            return say_seconds((last - first).total_seconds()), (said,)
    return None


def _unread(pod: Pod, engine: Engine, scaler: Scaler, subject: Subject) -> Finding | None:
    """What KEDA says of a ScaledObject that it cannot use as it stands, so that it scales nothing."""
    if scaler.item.kind.partition(".")[0] != "ScaledObject":
        return None
    conditions = rows(scaler.item.raw, "status.conditions")
    said = next((row for row in conditions if (row.get("type"), row.get("status")) == ("Ready", "False")), None)
    if said is None:
        return None
    # the condition often says only that the triggers failed
    events = [said for _, said in _events(scaler, "KEDAScalerFailed", pod.cluster)]
    why = events[-1].text if events else str(said.get("message") or said.get("reason") or "")
    # at zero replicas KEDA alone could make one
    asleep = subject.workload is not None and subject.workload.replicas == 0 and scaler.minimum == 0
    told = next((told for reason in _REFUSED if (told := _for_long(scaler, {"reason": reason}, pod.cluster))), None)
    lasts = told is not None and pod.exists and pod.ready
    return Finding(
        role="cause" if asleep or lasts else "risk",
        severity="warning",
        confidence="likely" if asleep else "certain",
        summary=f"KEDA cannot use {scaler.ref} as it stands and scales {engine.label} by nothing: {sentence(why)}"
        + (" There are 0 replicas, and nothing else makes one." if asleep else "")
        + (f" It has said so for {told[0]}." if told and lasts else ""),
        evidence=(
            *events[-1:],
            scaler.evidence("status.conditions[Ready]", f"{said.get('reason')}: {said.get('message')}"),
            *(scaler.evidence(look.path, look.text) for look in scaler.looks),
        ),
        explains=("scale-from-zero-blind",),
        fixes=(
            fixes.advice(
                f"Correct what it names in {scaler.ref}",
                f"kubectl -n {scaler.item.namespace} describe scaledobject {scaler.item.name}",
            ),
        ),
        pods=(pod.name,) if pod.exists else (),
    )


def _reads_nothing(pod: Pod, engine: Engine, scaler: Scaler, cluster: Cluster, logs: Logs | None) -> Finding | None:
    """Everything that it looks at is zero, by its own word, while the engine says that requests run and wait.

    Whatever says something of this engine's load is more than that; a query that finds no series is zero to KEDA.
    """
    hpa = _acts(scaler, cluster)
    read = rows(hpa.raw, "status.currentMetrics")
    values = [dig(row, f"{str(row.get('type')).lower()}.current") for row in read if row.get("type") != "Resource"]
    nothing = all(isinstance(x, dict) and str(x.get("averageValue") or x.get("value") or "") == "0" for x in values)
    if not values or len(read) != len(scaler.looks) or len(values) != len(read) or not nothing or logs is None:
        return None
    queue = _queue(pod, engine, msgspec.structs.replace(scaler, item=hpa), logs) if pod.ready else None
    if queue is None:
        return None
    return Finding(
        role="cause",
        severity="warning",
        confidence="likely",
        summary=f"{scaler.ref} reads 0 for what it scales {engine.label} on, and does nothing. Meanwhile {queue[0]}, and "
        f"{_stays(msgspec.structs.replace(scaler, item=hpa))}: what it asks for finds nothing of this engine.",
        evidence=(
            object_evidence(hpa, "status.currentMetrics", "0"),
            *(scaler.evidence(look.path, look.text) for look in scaler.looks),
            queue[1],
        ),
        explains=("queue-growing", "kv-cache-saturated"),
        fixes=(_by_hand(scaler),),
        pods=(pod.name,),
    )


def _events(scaler: Scaler, reason: str, cluster: Cluster) -> Iterator[tuple[dict[str, Any], Evidence]]:
    """What is said of an autoscaler for a reason: the event as it is, and as evidence."""
    for item in cluster.items("Event", scaler.item.namespace):
        about = item.raw.get("involvedObject") or item.raw.get("regarding")
        here = (str(scaler.item.raw.get("kind")), scaler.item.name)
        if item.raw.get("reason") == reason and (dig(about, "kind"), dig(about, "name")) == here:
            text = str(item.raw.get("message") or item.raw.get("note") or "")
            yield item.raw, Evidence(source="event", ref=f"{scaler.ref} {reason}", text=text)


def _queue(
    pod: Pod, engine: Engine, scaler: Scaler, logs: Logs, subject: Subject | None = None
) -> tuple[str, Evidence] | None:
    """A queue that lasts, and grows or is longer than what runs, where the autoscaler could add a replica."""
    said = recent_load(engine.container, logs)
    if not said or not works(pod, said) or not _stays(scaler, subject):
        return None
    last, grows = said[-1], said[-1].waiting >= _GROWS * said[0].waiting
    if any(load.waiting < (_QUEUE if grows else max(_QUEUE, load.running)) for load in said):
        return None
    return f"{last.waiting} requests wait while {last.running} run", log_evidence(last.line)


def _stays(scaler: Scaler, subject: Subject | None = None) -> str:
    """How many replicas it has, in words; empty where that is not known, or it could add none."""
    replicas = dig(scaler.item.raw, "status.currentReplicas")
    if replicas is None and subject is not None and subject.workload is not None:
        replicas = subject.workload.replicas  # a ScaledObject keeps no count of its own
    could = isinstance(replicas, int) and replicas < scaler.maximum
    return f"it stays at {replicas} of {scaler.maximum} replicas" if could else ""


def _by_hand(scaler: Scaler) -> Fix:
    """What to do where a query of KEDA's finds nothing."""
    return fixes.advice(
        f"Put what {scaler.ref} asks for to Prometheus by hand, and correct the labels in it that no series has (the name of "
        "a pool, namespace, model), or let the metrics be scraped",
        f"kubectl -n {scaler.item.namespace} describe scaledobject {scaler.item.name}",
        owner="platform",
    )


def _lookup(pod: Pod, engine: Engine, scaler: Scaler, rescale: Fix) -> Fix:
    if all(look.source == "resource" for look in scaler.looks):
        return rescale
    if scaler.item.kind.partition(".")[0] == "ScaledObject" and absent(engine, scaler.looks[0].name) is None:
        return _by_hand(scaler)
    return fixes.advice(
        f"See which metrics the adapter publishes, and name one of them; {engine.label} has {_right(engine)}",
        "kubectl get --raw /apis/custom.metrics.k8s.io/v1beta1",
        f"kubectl -n {pod.namespace} describe {scaler.item.kind.partition('.')[0].lower()} {scaler.item.name}",
        owner="platform",
    )


def _blind(pod: Pod, engine: Engine, scaler: Scaler, metrics: Metrics | None, rescale: Fix) -> Finding | None:
    """The queue grew, what the autoscaler looks at stood still, and it added nothing although it could."""
    load = load_of(metrics) if metrics is not None else None
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
        role="cause",
        severity="warning",
        confidence="likely",
        summary=f"{scaler.ref} scales {engine.label} on GPUs by {names}: in {say_seconds(load.waiting.seconds)} the requests that "
        f"wait grew from {load.waiting.third(0):.0f} to {load.waiting.third(2):.0f} (means of the first and the last third), "
        f"while {still}, and it stayed at {now} of {scaler.maximum} replicas.",
        evidence=(
            *(scaler.evidence(look.path, look.text) for look in scaler.looks),
            *load_evidence(load)[:1],
            looked.evidence(),
            *((replicas.evidence(),) if replicas is not None else ()),
        ),
        explains=("queue-growing", "kv-cache-saturated"),
        fixes=(rescale,),
        pods=(pod.name,),
    )


def _below(
    pod: Pod, engine: Engine, scaler: Scaler, metrics: Metrics | None, logs: Logs | None, rescale: Fix
) -> Finding | None:
    """Requests wait, more than run or more and more, while its own readings are below its targets, so that it adds nothing."""
    readings = _readings(scaler)
    if not readings or not pod.ready or engine.container.engine_dead or not _stays(scaler):
        return None
    load = load_of(metrics) if metrics is not None else None
    if load is not None and load.queues and load.grows:
        waits = f"{load.waiting.last:.0f} requests wait, {load.waiting.points[0][1]:.0f} did {say_seconds(load.waiting.seconds)} before"
        shown = load_evidence(load)[:1]
    elif logs is not None and (queue := _queue(pod, engine, scaler, logs)) is not None:
        waits, shown = queue[0], (queue[1],)
    else:
        return None
    return Finding(
        role="cause",
        severity="warning",
        confidence="likely",
        summary=f"{scaler.ref} scales {engine.label} on GPUs by {' and '.join(name for name, _, _ in readings)}: {waits}, while it reads "
        + " and ".join(f"{now}% {name} and adds replicas above {target}%" for name, now, target in readings)
        + f"; {_stays(scaler)}.",
        evidence=(
            *(scaler.evidence(look.path, look.text) for look in scaler.looks),
            *(scaler.evidence("status.currentMetrics", f"{name}: {now}%") for name, now, _ in readings),
            *shown,
        ),
        explains=("queue-growing", "kv-cache-saturated"),
        fixes=(rescale,),
        pods=(pod.name,),
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


def _resource(pod: Pod, engine: Engine, scaler: Scaler, rescale: Fix) -> Finding:
    """CPU or memory of an engine on GPUs."""
    names = " and ".join(dict.fromkeys(look.name for look in scaler.looks))
    cpu = next((look for look in scaler.looks if look.name == "cpu"), None)
    effect = _cpu_effect(pod, engine, scaler, cpu) if cpu else ""
    if not effect:
        effect = "host memory stands still once the model is loaded" if cpu is None else "it does not follow the load"
    return Finding(
        role="risk",
        severity="warning",
        confidence="likely",
        summary=f"{scaler.ref} scales {engine.label} on GPUs by {names}: {effect}.",
        evidence=(
            *(scaler.evidence(look.path, look.text) for look in scaler.looks),
            *_cpu_evidence(engine.container),
        ),
        fixes=(rescale,),
        pods=(pod.name,) if pod.exists else (),
    )


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


def _withheld(engine: Engine, look: Look) -> bool:
    """Whether a metric is the engine's own, and it was not told to emit any."""
    beginning = {"sglang": "sglang:", "llama.cpp": "llamacpp:"}.get(engine.name, "")
    return bool(beginning) and beginning in look.name.replace("_", ":", 1) and metrics_off(engine)


def _silent(
    pod: Pod, engine: Engine, scaler: Scaler, look: Look, subject: Subject, logs: Logs | None
) -> Finding | None:
    """A metric that this engine does not emit; the cause of a queue that lasts while replicas could be added."""
    gone = absent(engine, look.name)
    fix: Fix
    if gone:
        what = f"{engine.label} does not emit {gone[0]} but {gone[1]}"
        if gone[0] in look.text and alike(*gone):
            pointer = look.path.replace("[", "/").replace("]", "").replace(".", "/")
            tail = "" if look.path.endswith("query") else "/" + _member(scaler, look) + "/metric/name"
            operation = {"op": "replace", "path": f"/{pointer}{tail}", "value": look.text.replace(*gone)}
            fix = fixes.patch_object(scaler.item, f"Scale on {gone[1]}", [operation])
        else:
            fix = fixes.advice(f"Scale on {gone[1]} in {scaler.ref}")
    elif _withheld(engine, look):
        flag = "--enable-metrics" if engine.name == "sglang" else "--metrics"
        what = f"{engine.label} emits no metrics without {flag}"
        fix = fixes.set_flag(engine, "enable_metrics", flag, "", f"Let {engine.title} emit its metrics")
    else:
        return None
    # an adapter may publish another metric under the old name
    sure = look.path.endswith("query") or ":" in look.name
    # what else it looks at may add replicas all the same
    alone = all(absent(engine, other.name) or _withheld(engine, other) for other in scaler.looks)
    queue = _queue(pod, engine, scaler, logs, subject) if sure and alone and logs is not None and pod.ready else None
    waits = f" Meanwhile {queue[0]}, and {_stays(scaler, subject)}." if queue else ""
    return Finding(
        role="cause" if queue else "risk" if sure else "note",
        severity="warning" if sure else "info",
        confidence="likely" if sure else "possible",
        summary=f"{scaler.ref} scales on {gone[0] if gone else look.name}, which has no value: {what}.{waits}",
        evidence=(
            scaler.evidence(look.path, look.text),
            pod_evidence(engine.container, "image", _image(engine)),
            *((queue[1],) if queue else ()),
        ),
        explains=("queue-growing", "kv-cache-saturated") if queue else (),
        fixes=(fix,),
        pods=(pod.name,) if pod.exists else (),
    )


def _member(scaler: Scaler, look: Look) -> str:
    index = int(look.path.partition("[")[2][:-1])
    kind = str(dig(scaler.item.raw, "spec.metrics")[index]["type"])
    return kind[:1].lower() + kind[1:]


def _image(engine: Engine) -> str:
    return engine.container.spec.image


def _cpu_evidence(container: Container) -> Iterator[Evidence]:
    amount = container.spec.resources.requests.get("cpu", container.spec.resources.limits.get("cpu"))
    if amount is not None:
        yield pod_evidence(container, "resources.requests.cpu", str(amount))


def _right(engine: Engine) -> str:
    """The metrics that follow the load of this release, in words."""
    queue, cache = queue_metric(engine), cache_metric(engine)
    if queue is None:
        return "the requests in flight that your gateway or router counts"
    return queue + (f", or {cache}" if cache else "")


def _told(engine: Engine, scaler: Scaler) -> Fix:
    """The same in words, where this release emits nothing to scale on."""
    flag = {"sglang": "--enable-metrics", "llama.cpp": "--metrics"}.get(engine.name)
    first = f", which {engine.title} emits with {flag}" if flag and metrics_off(engine) else ""
    return fixes.advice(f"Scale on {_right(engine)}{first}, in {scaler.ref}")


def _operator(pod: Pod, engine: Engine, subject: Subject, metrics: Metrics | None) -> Iterator[Finding]:
    """Knative's class for CPU and memory, and KServe's metric."""
    workload = subject.workload
    if workload is None:
        return
    raw = workload.raw
    told: list[tuple[str, str, str]] = []
    own, template = (dig(raw, "metadata.annotations"), dig(raw, "spec.template.metadata.annotations"))
    for path, annotations in (
        ("metadata.annotations", own),
        ("spec.template.metadata.annotations", template),
    ):
        if not isinstance(annotations, dict):
            continue
        metric = str(annotations.get(_METRIC, ""))
        if str(annotations.get(_CLASS, "")).startswith("hpa.") and metric in ("", "cpu", "memory"):
            told.append((f"{path}[{_CLASS}]", f"{annotations[_CLASS]}, metric {metric or 'cpu'}", metric or "cpu"))
        if annotations.get("serving.kserve.io/metric") in ("cpu", "memory"):
            metric = annotations["serving.kserve.io/metric"]
            told.append((f"{path}[serving.kserve.io/metric]", metric, metric))
    metric = dig(raw, "spec.predictor.scaleMetric")
    if workload.kind == "InferenceService" and metric in ("cpu", "memory"):
        told.append(("spec.predictor.scaleMetric", metric, metric))
    if not told:
        return
    path, text, metric = told[-1]
    yield Finding(
        role="risk",
        severity="warning",
        confidence="likely",
        summary=f"{workload.ref} scales {engine.label} on GPUs by {metric}, which does not follow the load.",
        evidence=(workload_evidence(workload, path, text),),
        fixes=(_own_fix(engine, subject, path, metrics),),
        pods=(pod.name,) if pod.exists else (),
    )


def _own_fix(engine: Engine, subject: Subject, path: str, metrics: Metrics | None) -> Fix:
    workload = subject.workload
    if workload is None or not path.endswith(f"[{_CLASS}]"):
        where = workload.ref if workload else ""
        return fixes.advice(f"Scale on concurrency (Knative), or on {_right(engine)} (KEDA), in {where}")
    where = path.partition("[")[0]
    annotations = dig(workload.raw, where)
    at = "/" + where.replace(".", "/")
    operations = [
        {"op": "add", "path": f"{at}/autoscaling.knative.dev~1class", "value": "kpa.autoscaling.knative.dev"},
        {"op": "add", "path": f"{at}/autoscaling.knative.dev~1metric", "value": "concurrency"},
    ]
    many, target = concurrency_of(engine, metrics), f"{at}/autoscaling.knative.dev~1target"
    summary = "Use Knative's own autoscaler with concurrency"
    if many is not None:
        operations.append({"op": "add", "path": target, "value": str(many.target)})
        summary += f", at {many.target} for each replica: {many.why}"
    elif "autoscaling.knative.dev/target" in annotations:  # a percentage there, a number of requests here
        operations.append({"op": "remove", "path": target})
    return fixes.patch_object(workload.item, summary, operations)
