"""An autoscaler that looks at what does not follow the load."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Engine,
    Evidence,
    Finding,
    Fix,
    Logs,
    Metrics,
    Pod,
    Subject,
    check,
    fixes,
    log_evidence,
    pod_evidence,
    setting_evidence,
)
from kubectl_llmdoctor.catalog.metrics import metric
from llmdoctor_checks.serving._autoscaler_annotations import by_annotation
from llmdoctor_checks.serving._autoscaler_model import SKIPPED, of_another_model
from llmdoctor_checks.serving._autoscaler_queue import lasting_queue, seen_queue, stays
from llmdoctor_checks.serving._autoscaler_resources import by_resources
from llmdoctor_checks.serving._autoscaler_status import as_it_says, flaps
from llmdoctor_checks.serving._autoscaling import Look, Scaler, absent, metrics_off, renamed, scalers
from llmdoctor_checks.serving._rescale import rescaled
from llmdoctor_checks.serving._saturation import evidence as load_evidence
from llmdoctor_checks.serving._saturation import load_of

#: How many requests llama-server runs at once, when it starts (`tools/server/server.cpp`, `server-context.cpp`).
_SLOTS = "initializing slots, n_slots = "


@check("hpa-wrong-metric", since="0.2", severity="warning", literals=(_SLOTS, SKIPPED))
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
    on them alone, with a target of as many or more, never adds a replica. llama-server says at start how many slots it has, and how many
    run while others wait the metrics show.

    The requests that wait are none as soon as all run. An autoscaler on them alone takes full replicas away, and wants them again: it
    flaps, most of all where `behavior.scaleDown.stabilizationWindowSeconds` is shorter than the 300 seconds that are taken for granted.

    llm-d's Workload Variant Autoscaler reads the metrics of the model that the annotation `llm-d.ai/model-id` names, which must be the
    name that the engine gives its metrics: the first of `--served-model-name`, else the model itself.

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
        if scaler.maximum <= scaler.minimum or scaler.paused:
            continue
        found = of_another_model(pod, engine, scaler, cluster)
        if found := found or _of(scaler, pod, engine, subject, cluster, metrics, logs):
            yield found
            return
    yield from by_annotation(engine, subject, metrics)


def _of(
    scaler: Scaler,
    pod: Pod,
    engine: Engine,
    subject: Subject,
    cluster: Cluster,
    metrics: Metrics | None,
    logs: Logs | None,
) -> Finding | None:
    """What is wrong with one autoscaler: what it says itself first, then what it looks at."""
    rescale = rescaled(engine, scaler, subject, cluster, metrics)
    found = as_it_says(pod, engine, scaler, subject, rescale, logs, metrics)
    found = found or by_resources(pod, engine, scaler, metrics, logs, rescale)
    if found or any(look.source != "metric" for look in scaler.looks):
        return found
    if len(scaler.looks) == 1:
        found = _beyond(pod, engine, scaler, scaler.looks[0], rescale, metrics, logs)
    silent = (_silent(pod, engine, scaler, look, subject, logs) for look in scaler.looks)
    return found or next(filter(None, silent), None) or flaps(pod, engine, scaler, rescale)


def _beyond(
    pod: Pod, engine: Engine, scaler: Scaler, look: Look, rescale: Fix, metrics: Metrics | None, logs: Logs | None
) -> Finding | None:
    """A target for the requests that run which a full replica does not exceed, while the others wait unseen."""
    most = _at_once(engine, logs) or (_beside_a_queue(metrics) if metrics is not None else None)
    running = metric(engine.name, "running", engine.version)
    # the metric alone: by its name, or the sum of its series in a query
    alone = re.fullmatch(r"(?:(?:sum|avg)\()?([a-z][\w:]*)(?:\{[^{}]*\})?\)?", look.name.strip())
    if most is None or running is None or alone is None:
        return None
    if alone[1].replace(":", "_", 1) != running.name.replace(":", "_", 1) or not look.each.isdecimal():
        return None
    if int(look.each) < most[0]:
        return None
    load = load_of(metrics)
    waits = load is not None and load.queues and not load.drains and pod.ready and bool(stays(scaler))
    meanwhile = f" Meanwhile {load.waiting.last:.0f} requests wait, and {stays(scaler)}." if load and waits else ""
    seen = seen_queue(pod, engine, scaler, logs, metrics) if load is None and pod.ready else None
    if seen is not None:
        waits, meanwhile = True, f" Meanwhile {seen[0]}, and {stays(scaler)}."
    return Finding(
        role="cause" if waits else "risk",
        confidence="possible" if seen else "likely",
        summary=f"{scaler.ref} adds a replica when more than {look.each} requests run in each; {engine.label} runs {most[0]} at "
        f"once and lets the others wait, so that no load adds one.{meanwhile}",
        evidence=(
            scaler.evidence(look.path, f"{look.text}, {look.each} for each replica"),
            most[1],
            *(load_evidence(load)[:1] if load and waits else (seen[1],) if seen else ()),
        ),
        explains=("queue-growing", "kv-cache-saturated") if waits else (),
        fix=rescale,
    )


def _at_once(engine: Engine, logs: Logs | None) -> tuple[int, Evidence] | None:
    """How many requests the engine runs at once: as it is told, or as llama.cpp says of its slots when it starts."""
    told = engine.explicit("max_num_seqs")
    if told is not None and isinstance(told.value, int) and told.value > 0:
        return told.value, setting_evidence(engine.container, told)
    log = engine.container.own_log(logs) if engine.name == "llama.cpp" else None
    found = log.matching(rf"{_SLOTS}(\d{{1,4}})\b", _SLOTS) if log is not None else ()
    return next(((int(said[1]), log_evidence(line)) for line, said in found), None)


def _beside_a_queue(metrics: Metrics) -> tuple[int, Evidence] | None:
    """As many as ran at once at the most while others waited all the time, by the metrics."""
    waiting, running = metrics.span("waiting"), metrics.span("running")
    if waiting is None or running is None or min(waiting.values) < 1 or max(running.values) < 1:
        return None
    return int(max(running.values)), running.evidence()


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
        fix = renamed(scaler, look, gone)
    elif _withheld(engine, look):
        flag = engine.called("enable_metrics")
        what = f"{engine.label} emits no metrics without {flag}"
        fix = fixes.set_flag(engine, "enable_metrics", flag, "", f"Have {engine.title} emit its metrics")
    else:
        return None
    # an adapter may publish another metric under the old name
    sure = look.path.endswith("query") or ":" in look.name
    # what else it looks at may add replicas all the same
    alone = all(absent(engine, other.name) or _withheld(engine, other) for other in scaler.looks)
    queue = lasting_queue(pod, engine, scaler, logs, subject) if sure and alone and pod.ready else None
    waits = f" Meanwhile {queue[0]}, and {stays(scaler, subject)}." if queue else ""
    return Finding(
        role="cause" if queue else "risk" if sure else "note",
        severity="warning" if sure else "info",
        confidence="likely" if sure else "possible",
        summary=f"{scaler.ref} scales on {gone[0] if gone else look.name}, which has no value: {what}.{waits}",
        evidence=(
            scaler.evidence(look.path, look.text),
            pod_evidence(engine.container, "image", engine.container.spec.image),
            *((queue[1],) if queue else ()),
        ),
        explains=("queue-growing", "kv-cache-saturated") if queue else (),
        fix=fix,
    )
