"""Metrics of the engine that a monitor asks for in the wrong place, or that the engine does not emit."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from kubectl_llmdoctor.api import (
    Cluster,
    Engine,
    Evidence,
    Finding,
    Fix,
    Item,
    Line,
    Logs,
    Metrics,
    Pod,
    Subject,
    Workload,
    check,
    condition_evidence,
    dig,
    escaped,
    fixes,
    log_evidence,
    object_evidence,
    pod_evidence,
    pointer_to,
    rows,
    say_pairs,
    table,
)
from kubectl_llmdoctor.catalog.metrics import names
from llmdoctor_checks.serving._autoscaling import metrics_off, scalers
from llmdoctor_checks.serving._picker_metrics import FLAGS, SCRAPES, blind_picker, refused_picker
from llmdoctor_checks.serving._policies import selected

_PATHS = {"tensorrt-llm": ("/prometheus/metrics",), "nim": ("/v1/metrics", "/metrics")}
_SETTLED = 600  # seconds
_SCRAPE = "prometheus.io/scrape"
#: What of a Prometheus says which monitors it takes, and who else reads them.
_SELECTORS = {"PodMonitor": "podMonitorSelector", "ServiceMonitor": "serviceMonitorSelector"}
_OTHER_READERS = ("PrometheusAgent", "VMAgent", "OpenTelemetryCollector", "TargetAllocator")
#: How servers log that a scrape was refused (uvicorn and what logs like it, llama-server); so often it is no visitor who tried.
_GET, _OFTEN = ('metrics HTTP/1.1" 404', 'metrics HTTP/1.1" 405', "request: GET /metrics "), 2
_ANSWERED = r'(?:"GET (?:{paths}) HTTP/[\d.]{{1,3}}" |request: GET (?:{paths}) \S{{1,64}} )(?:{status})\b'
#: What one that was answered has in its line.
_GOT = ('metrics HTTP/1.1" 200', _GET[-1])


class Asked(msgspec.Struct, frozen=True):
    """One place that a monitor asks, and what says so."""

    evidence: Evidence
    who: str
    #: the port's number in the pod; None where nothing of that name is there
    port: int | None
    #: the port as it is written
    text: str
    path: str
    #: where the port stands in the monitor
    item: Item | None = None
    pointer: str = ""
    service: Item | None = None


@check("metrics-not-scraped", since="0.2", severity="info", literals=(*_GET, *_GOT, FLAGS, SCRAPES))
def metrics_not_scraped(
    pod: Pod, subject: Subject, cluster: Cluster, metrics: Metrics | None, logs: Logs | None
) -> Iterator[Finding]:
    """The engine's metrics do not reach Prometheus, or the picker that goes by them.

    A PodMonitor names a port that a container must declare (its number is no name), a ServiceMonitor one that the Service
    must have, and both are silent when there is none. So is a PodMonitor that asks for a label with an empty value, where
    the pod has another, and one without a `namespaceSelector` that stands in another namespace than the pods. So is a monitor
    without the labels by which the only Prometheus of the operator takes monitors (`podMonitorSelector`; the chart
    kube-prometheus-stack asks for `release`); a live diagnosis does not read that Prometheus, a dump of the cluster has it.
    SGLang and llama.cpp emit metrics only when told to. trtllm-serve has Prometheus' format at `/prometheus/metrics`; its
    `/metrics` is JSON. Without metrics nobody sees the queue grow, and an autoscaler on them does nothing.

    An endpoint picker reads the metrics itself. Where those of all its servers are older than it allows, it counts each as full, and
    drops requests though nobody has much to do. One that goes by a name which the servers' release no longer has (vLLM's
    `vllm:gpu_cache_usage_perc`, up to the inference extension's 1.1) takes the cache of each for empty. It asks at the pool's port, where a
    proxy before the engine may have no metrics.

    It is a risk when a monitor or annotation is meant for this pod and cannot work, and the cause where the server's own log shows
    that it refuses each scrape; it is none of them where that log shows others that are answered. That none is here at all is a note,
    in a cluster where the Prometheus operator is installed. Where a Prometheus was asked, its answer decides: one that has
    the engine's metrics gets them, however; one that knows the container and not the engine is not told to ask it,
    unless it has nothing but the kubelet's metrics of containers: it is the platform's then, and others may ask the engines.

    ## Fix

    Name a port that is there, and switch the metrics on (SGLang `--enable-metrics`, llama-server `--metrics`).

    ## References

    - https://prometheus-operator.dev/docs/developer/getting-started/
    - https://docs.vllm.ai/en/latest/usage/metrics/
    """
    engine = next(iter(subject.engines(pod)), None)
    if engine is None:
        yield from blind_picker(pod, cluster, logs)
    if engine is None or engine.name == "ollama":
        return
    if not pod.exists and not engine.found.argv_known:
        return  # what an image of somebody's own starts, and where, is not to be seen in a manifest
    switch = _switch_on(pod, engine) if metrics_off(engine) else None
    if pod.exists and (found := refused_picker(engine, switch)) is not None:
        yield found
        return
    if metrics is not None and metrics.queried(of_engine=True):
        return
    asked = list(_asked(pod, engine, cluster))
    if not asked and (found := _no_metric_of_it(pod, engine, metrics, cluster)) is not None:
        yield found
        return
    right = [
        one
        for one in asked
        if one.port is not None and not metrics_off(engine) and one.path in _PATHS.get(engine.name, (one.path,))
    ]
    if right:
        found = _taken_by_none(pod, engine, right, cluster, logs)
    elif asked and _scrapes(engine, _PATHS.get(engine.name, (asked[0].path,)), logs, _GOT, "200"):
        return  # who asks in the right place is not told of in any monitor
    else:
        found = _asked_in_vain(pod, engine, subject, asked, logs)
    if found is not None:
        yield found


def _no_metric_of_it(pod: Pod, engine: Engine, metrics: Metrics | None, cluster: Cluster) -> Finding | None:
    """A Prometheus that knows the pod's containers, and nothing of its engine."""
    source = metrics.queried(of_engine=False) if metrics is not None and _settled(pod, metrics) else ""
    if metrics is None or not source or not _asks_others(cluster, source):
        return None
    known = metrics.name_of("memory_working_set") or metrics.name_of("cpu_seconds")
    return Finding(
        role="note",
        summary=f"Prometheus knows the containers of {pod.name}, and no metric of {engine.title} in it.",
        evidence=(Evidence(source="metric", ref=source, text=f"{known or 'metrics'} of {pod.name}"),),
        fix=_switch_on(pod, engine)
        if metrics_off(engine)
        else fixes.platform(f"Add a PodMonitor for {fixes.pods_of(pod)}"),
    )


def _asked_in_vain(pod: Pod, engine: Engine, subject: Subject, asked: list[Asked], logs: Logs | None) -> Finding | None:
    """A monitor that asks elsewhere, or misses the pod, or is of another namespace; or none that is known."""
    cluster = pod.cluster
    scaling = _without_value(engine, subject, cluster)
    if asked:
        refused = _refused(engine, asked[0], logs)
        if refused is None and not engine.found.argv_known and not isinstance(engine.value("port"), int):
            return None  # nor is it to be seen of a pod, unless its log says so
        return _finding(pod, engine, asked[0], scaling, refused)
    if (missed := _missed(pod, cluster, lacking=scaling is not None)) is not None:
        return _beside(pod, *missed, scaling)
    if (elsewhere := _in_another_namespace(pod, cluster)) is not None:
        return _out_of_reach(pod, elsewhere, scaling)
    if not pod.ready or not all(cluster.complete(kind, pod.namespace) for kind in ("ServiceMonitor", "PodMonitor")):
        return None
    return Finding(
        role="note",
        confidence="possible",
        summary=f"No PodMonitor, ServiceMonitor or annotation of {pod.namespace} is meant for {pod.name}: the metrics of "
        f"{engine.title} may reach no Prometheus.",
        evidence=(pod_evidence(pod, "metadata.labels", say_pairs(pod.labels)),),
        fix=fixes.platform(f"Add a PodMonitor for {fixes.pods_of(pod)}"),
    )


def _asked(pod: Pod, engine: Engine, cluster: Cluster) -> Iterator[Asked]:
    """Whatever is meant to scrape this pod."""
    for kind, endpoints in (("PodMonitor", "spec.podMetricsEndpoints"), ("PodMonitoring", "spec.endpoints")):
        for item in cluster.items(kind):
            if _covers(item, pod.namespace) and selected(dig(item.raw, "spec.selector"), pod.labels):
                for index, row in enumerate(rows(item.raw, endpoints)):
                    yield _endpoint(pod, item, endpoints, index, row, None)
    for item in cluster.items("ServiceMonitor"):
        for service in pod.services if _covers(item, pod.namespace) else ():
            if selected(dig(item.raw, "spec.selector"), service.labels):
                for index, row in enumerate(rows(item.raw, "spec.endpoints")):
                    yield _endpoint(pod, item, "spec.endpoints", index, row, service)
    yield from _annotated(pod, engine)


def _taken_by_none(pod: Pod, engine: Engine, asked: list[Asked], cluster: Cluster, logs: Logs | None) -> Finding | None:
    """Monitors that ask in the right place, and a Prometheus of the operator which takes none of them, by its selector."""
    # what is no monitor of the operator's, and what others read, is not decided by it
    monitors = [one.item for one in asked if one.item is not None and one.item.kind in _SELECTORS]
    servers = list(cluster.items("Prometheus")) if len(monitors) == len(asked) else []
    if len(servers) != 1 or not pod.ready or any(True for kind in _OTHER_READERS for _ in cluster.items(kind)):
        return None
    if _scrapes(engine, _PATHS.get(engine.name, (asked[0].path,)), logs, _GOT, "200"):
        return None
    monitor = monitors[0]
    wanted = dig(servers[0].raw, f"spec.{_SELECTORS[monitor.kind]}")
    labels = table(table(wanted).get("matchLabels"))
    missing = {key: str(value) for key, value in labels.items() if monitor.labels.get(key) != str(value)}
    # only where labels alone decide, and it takes none of all
    if rows(servers[0].raw, f"spec.{_SELECTORS[monitor.kind]}.matchExpressions") or not missing:
        return None
    if any(selected(dig(servers[0].raw, f"spec.{_SELECTORS[one.kind]}"), one.labels) for one in monitors):
        return None
    said = say_pairs(labels)
    return _unseen(
        pod,
        f"{monitor.kind} {monitor.name} means {pod.name}, and Prometheus {servers[0].name} takes only those with the labels {said}",
        (
            object_evidence(servers[0], f"spec.{_SELECTORS[monitor.kind]}.matchLabels", said),
            object_evidence(monitor, "metadata.labels", say_pairs(monitor.labels) or "none"),
        ),
        fixes.patch_object(
            monitor,
            f"Give {monitor.kind} {monitor.name} the label{'s' if len(missing) > 1 else ''} "
            + say_pairs(missing, ": "),
            [
                {"op": "add", "path": f"/metadata/labels/{escaped(key)}", "value": value}
                for key, value in missing.items()
            ]
            if monitor.labels
            else [{"op": "add", "path": "/metadata/labels", "value": missing}],
        ),
        None,
    )


def _missed(pod: Pod, cluster: Cluster, *, lacking: bool) -> tuple[Item, str] | None:
    """A PodMonitor that wants of one label of the pod no value, which no pod has that is told what it serves.

    Where an autoscaler is `lacking` the metrics, one that also asks that the label be there means any value, whatever pods were not read.
    """
    for item in cluster.items("PodMonitor") if pod.exists else ():
        wanted = dig(item.raw, "spec.selector.matchLabels")
        if not isinstance(wanted, dict) or not _covers(item, pod.namespace):
            continue
        wrong = [key for key, value in wanted.items() if pod.labels.get(key) != str(value)]
        # an empty value beside one that is there is what a template left
        if len(wrong) != 1 or wanted[wrong[0]] != "" or not pod.labels.get(wrong[0]):
            continue
        without = {key: value for key, value in wanted.items() if key != wrong[0]}
        rest = {**dig(item.raw, "spec.selector"), "matchLabels": without}
        any_value = lacking and _there(wrong[0]) in rows(item.raw, "spec.selector.matchExpressions")
        if selected(rest, pod.labels) and not _meant(item, wanted, cluster, seen=any_value):
            return item, wrong[0]
    return None


def _there(key: str) -> dict[str, Any]:
    """What selects pods that have a label."""
    return {"key": key, "operator": "Exists"}


def _meant(monitor: Item, wanted: dict[str, Any], cluster: Cluster, within: str = "", *, seen: bool = False) -> bool:
    """Whether there are pods with the labels that a monitor wants, of one namespace or any, or, unless only what was `seen` counts,
    there may be some that nobody has seen."""
    told = table(dig(monitor.raw, "spec.namespaceSelector"))
    names = told.get("matchNames")
    where = [""] if told.get("any") is True else names if isinstance(names, list) else [monitor.namespace]
    if not seen and not all(cluster.complete("Pod", str(name)) for name in where):
        return True
    return cluster.once(
        f"pods of {within} that PodMonitor {monitor.namespace}/{monitor.name} means",
        lambda: any(selected({"matchLabels": wanted}, pod.labels) for pod in cluster.items("Pod", within or None)),
    )


def _beside(pod: Pod, item: Item, key: str, scaling: Evidence | None) -> Finding:
    """What a monitor misses by the empty value of a label."""
    pointer = f"/spec/selector/matchLabels/{escaped(key)}"
    operations: list[dict[str, Any]] = [{"op": "remove", "path": pointer}]
    terms, there = rows(item.raw, "spec.selector.matchExpressions"), _there(key)
    if there not in terms:
        operations.append({"op": "add", "path": "/spec/selector/matchExpressions", "value": [*terms, there]})
    return _unseen(
        pod,
        f"{item.raw.get('kind')} {item.name} asks only pods whose label {key} is empty, and {pod.name} has {pod.labels[key]}",
        (
            object_evidence(item, "spec.selector.matchLabels", f'{key}: ""'),
            pod_evidence(pod, f"metadata.labels[{key}]", pod.labels[key]),
        ),
        fixes.patch_object(item, f"Select pods that have the label {key}, whatever its value", operations),
        scaling,
    )


def _in_another_namespace(pod: Pod, cluster: Cluster) -> Item | None:
    """A PodMonitor that selects the pod by its labels, looks in its own namespace alone, and finds nothing there."""
    templates = ("Deployment", "StatefulSet")
    for item in cluster.items("PodMonitor") if pod.exists else ():
        chosen, wanted = dig(item.raw, "spec.namespaceSelector"), dig(item.raw, "spec.selector.matchLabels")
        if item.namespace == pod.namespace or chosen or not isinstance(wanted, dict) or not wanted:
            continue
        # each namespace may have servers and a monitor of its own, and they may be scaled to zero
        if (
            selected(dig(item.raw, "spec.selector"), pod.labels)
            and all(cluster.complete(kind, item.namespace) for kind in templates)
            and not _meant(item, wanted, cluster, item.namespace)
            and not _may_have(item, wanted, cluster)
        ):
            return item
    return None


def _may_have(monitor: Item, wanted: dict[str, Any], cluster: Cluster) -> bool:
    """Whether a workload beside a monitor makes pods with the labels that it wants, when it makes any."""
    where = monitor.namespace
    return cluster.once(
        f"templates of {where} that PodMonitor {monitor.name} means",
        lambda: any(
            selected({"matchLabels": wanted}, template.metadata.label_texts)
            for kind in cluster.kinds()
            if kind != "Pod"
            for item in cluster.items(kind, where)
            for _, template in Workload(item, cluster).templates
        ),
    )


def _out_of_reach(pod: Pod, item: Item, scaling: Evidence | None) -> Finding:
    return _unseen(
        pod,
        f"PodMonitor {item.name} selects {pod.name} by its labels, and looks in its own namespace {item.namespace} alone, where no pod "
        "has them",
        (
            object_evidence(item, "spec.namespaceSelector", "not set"),
            pod_evidence(pod, "metadata.namespace", pod.namespace),
        ),
        fixes.set_field(
            item,
            "/spec/namespaceSelector",
            {"matchNames": [pod.namespace]},
            f"Look in namespace {pod.namespace}",
            op="add",
        ),
        scaling,
    )


def _refused(engine: Engine, one: Asked, logs: Logs | None) -> Line | None:
    """The last scrape that the server refused, by its own log, of several."""
    return _scrapes(engine, (one.path,), logs, _GET, "404|405|501")


def _scrapes(
    engine: Engine, paths: tuple[str, ...], logs: Logs | None, literals: tuple[str, ...], status: str
) -> Line | None:
    """The last of several scrapes that the server answered with a status, by its own log."""
    log = engine.container.own_log(logs)
    pattern = _ANSWERED.format(paths="|".join(map(re.escape, paths)), status=status)
    lines = [x for x in log.find(*literals) if re.search(pattern, x.text[:400])] if log else []
    return lines[-1] if len(lines) >= _OFTEN else None


def _unseen(
    pod: Pod, what: str, evidence: tuple[Evidence, ...], fix: Fix, scaling: Evidence | None, refused: Line | None = None
) -> Finding:
    """Metrics that do not get to whoever wants them: the cause where an autoscaler says that it lacks them."""
    lost = "its autoscaler gets no value for them" if scaling else "nobody sees its queue and cache"
    return Finding(
        role="cause" if (scaling or refused) and pod.ready else "risk",
        severity="warning",
        summary=f"{what}: {lost}.",
        evidence=(*evidence, *((log_evidence(refused),) if refused else ()), *((scaling,) if scaling else ())),
        explains=("hpa-wrong-metric",) if scaling else (),
        fix=fix,
    )


def _covers(item: Item, namespace: str) -> bool:
    chosen = dig(item.raw, "spec.namespaceSelector")
    if not isinstance(chosen, dict):
        return item.namespace == namespace
    names = chosen.get("matchNames")
    return chosen.get("any") is True or namespace in (names if isinstance(names, list) else [item.namespace])


def _endpoint(pod: Pod, item: Item, where: str, index: int, row: dict[str, Any], service: Item | None) -> Asked:
    key = next((k for k in ("port", "portNumber", "targetPort") if row.get(k) is not None), "port")
    written = row.get(key)
    port: int | None
    if service and key == "port":
        listed = rows(service.raw, "spec.ports")
        target = next((p.get("targetPort", p.get("port")) for p in listed if p.get("name") == written), None)
        port = _number(pod, target)
    elif key == "port" and item.raw.get("kind") == "PodMonitor":
        port = pod.port_named(written)  # a name, which no number can be
    else:
        port = _number(pod, written)
    path = f"{where}[{index}].{key}"
    return Asked(
        evidence=object_evidence(item, path, f"{key}: {written}"),
        who=f"{item.raw.get('kind')} {item.name}",
        port=port,
        text=f"port {written}" + (f" of Service {service.name}" if service and key == "port" else ""),
        path=str(row.get("path") or "/metrics"),
        item=item,
        pointer=f"{pointer_to(where)}/{index}",
        service=service,
    )


def _number(pod: Pod, port: Any) -> int | None:
    return int(port) if isinstance(port, int) or str(port).isdecimal() else pod.port_named(port)


def _annotated(pod: Pod, engine: Engine) -> Iterator[Asked]:
    annotations = {key: str(value) for key, value in pod.annotations.items()}
    if annotations.get(_SCRAPE) != "true":
        return
    written = annotations.get("prometheus.io/port", "")
    port = int(written) if written.isdecimal() else None
    known = isinstance(engine.value("port"), int)
    if written and known and port not in _listened(engine, pod):
        port = None
    elif port is None:  # every declared port is asked, or one that is not known
        port = engine.value("port", 0)
    yield Asked(
        evidence=pod_evidence(pod, "metadata.annotations", f"prometheus.io/port: {written or 'none'}"),
        who="The annotation prometheus.io/scrape",
        port=port,
        text=f"port {written}",
        path=annotations.get("prometheus.io/path", "/metrics"),
    )


def _listened(engine: Engine, pod: Pod) -> set[Any]:
    """Ports on which something listens, as far as it is known."""
    declared = pod.declared_ports
    return declared | {engine.value("port"), engine.value("metrics_port")}


def _without_value(engine: Engine, subject: Subject, cluster: Cluster) -> Evidence | None:
    """What an autoscaler of the workload says that gets no value for a metric of the engine."""
    emitted = {metric.name for metric in names(engine.name, engine.version)}
    emitted |= {name.replace(":", "_") for name in emitted}  # as adapters write it
    for scaler in scalers(subject, cluster):
        silent = scaler.item.condition("ScalingActive", "False")
        if silent and any(name in silent.message for name in emitted):
            return condition_evidence(scaler.item, silent)
    return None


def _finding(pod: Pod, engine: Engine, one: Asked, scaling: Evidence | None, refused: Line | None) -> Finding:
    right = _PATHS.get(engine.name, (one.path,))
    fix: Fix
    if metrics_off(engine):
        flag = engine.flag("enable_metrics")
        what = f"{one.who} asks {engine.label} for metrics, which it does not emit" + (
            f" without {flag}" if flag else ""
        )
        fix = _switch_on(pod, engine)
    elif one.port is None:
        what = f"{one.who} looks for metrics at {one.text}, which {pod.name} does not have"
        fix = _port_fix(pod, engine, one)
    else:
        what = f"{one.who} asks {engine.label} for {one.path}, which is not where its metrics are ({right[0]})"
        fix = (
            fixes.set_field(one.item, f"{one.pointer}/path", right[0], f"Ask for {right[0]}", op="add")
            if one.item
            else fixes.annotate(
                pod, {"prometheus.io/path": right[0]}, f"Set the annotation prometheus.io/path to {right[0]}"
            )
        )
    return _unseen(pod, what, (one.evidence,), fix, scaling, refused)


def _port_fix(pod: Pod, engine: Engine, one: Asked) -> Fix:
    """Name the engine's port where it has a name; else give the number."""
    port, container = engine.value("metrics_port" if engine.name == "triton" else "port"), engine.container
    name = next((p.name for p in container.spec.ports if p.container_port == port), "")
    if one.item is None or not isinstance(port, int):
        summary = f"Name the port of {engine.title} for its metrics"
        if isinstance(port, int):
            return fixes.annotate(pod, {"prometheus.io/port": str(port)}, f"{summary}, {port}")
        return fixes.advice(f"{summary}, in {fixes.edited(pod)}")
    if one.item.kind == "PodMonitor" and name:
        return fixes.set_field(one.item, f"{one.pointer}/port", name, f"Ask port {name}", op="add")
    if one.service:
        listed = rows(one.service.raw, "spec.ports")
        name = next((str(p["name"]) for p in listed if p.get("name") and _number(pod, p.get("targetPort")) == port), "")
        if name:
            return fixes.set_field(one.item, f"{one.pointer}/port", name, f"Ask port {name}", op="add")
    if one.item.kind == "PodMonitoring":
        return fixes.set_field(one.item, f"{one.pointer}/port", port, f"Ask port {port}", op="add")
    if one.text.rpartition(" ")[2].isdecimal():
        return fixes.advice(f"Give port {port} a name in {fixes.edited(pod)}, and let {one.who} ask for that name")
    return fixes.advice(f"Give port {port} the name that {one.who} asks for")


def _asks_others(cluster: Cluster, source: str) -> bool:
    """Whether a Prometheus has anything that is not the kubelet's: one of containers alone is the platform's, and asks no program."""
    return any(
        not str(dig(series, "labels.__name__") or "container_").startswith("container_")
        for answer in cluster.snapshot.prometheus
        if dig(answer, "source") == source
        for series in rows(answer, "series")
    )


def _settled(pod: Pod, metrics: Metrics) -> bool:
    """Whether the engine has run for so long that every Prometheus had the time to find it."""
    now = pod.cluster.now
    return (
        pod.ready and now is not None and metrics.started is not None and now.timestamp() - metrics.started > _SETTLED
    )


def _switch_on(pod: Pod, engine: Engine) -> Fix:
    flag = engine.flag("enable_metrics")
    if not flag:
        return fixes.advice(f"Switch the metrics on in {fixes.edited(pod)}")
    return fixes.set_flag(engine, "enable_metrics", flag, "", f"Have {engine.title} emit its metrics")
