"""An autoscaler that follows the load of an engine: by which metric, and at which value.

What is scaled on is the requests that an engine has: those that run and those that wait. The waiting ones alone fall to
zero as soon as every request runs, and an autoscaler that sees nothing else takes replicas away that are full.

The target is what one replica has in service when it is full, less a fifth, so that the next one starts before the queue
does. What that is was seen (the requests that ran while others waited), or else is what the engine is allowed to run at
once, which holds as long as its KV cache has room for so many.
"""

import shlex
from typing import Any

import msgspec

from kubectl_llmdoctor.api import Cluster, Engine, Fix, Metrics, Pod, Subject, dig, fixes
from kubectl_llmdoctor.catalog.metrics import metric
from llmdoctor_checks.serving._autoscaling import Scaler, cache_metric, metrics_off, queue_metric
from llmdoctor_checks.serving._saturation import load_of

#: The share of a full replica at which the next one is wanted.
_TARGET = 0.8

#: Where nothing says how many requests fill a replica: so many may wait at each.
_WAITING = 5

#: Kinds whose pods are named after them, a hyphen, and a suffix.
_NAMED = ("Deployment", "StatefulSet", "ReplicaSet")


class Concurrency(msgspec.Struct, frozen=True):
    """How many requests fill one replica, and how that is known."""

    requests: int
    why: str

    @property
    def target(self) -> int:
        """How many it is to have, at least one."""
        return max(int(self.requests * _TARGET), 1)


def concurrency_of(engine: Engine, metrics: Metrics | None) -> Concurrency | None:
    """How many requests one replica has in service when it is full: as seen, else as configured; None where not known."""
    load = load_of(metrics)
    if load is not None and load.queues and (seen := round(load.recent.running.mean)):
        return Concurrency(seen, f"0.8 of the {seen} requests that ran while others waited")
    stated = metrics.span("max_running") if metrics is not None else None
    limit = int(stated.last) if stated is not None else engine.value("max_num_seqs")
    if isinstance(limit, int) and limit > 0:
        why = f"0.8 of the {limit} requests that {engine.title} runs at once, if its KV cache has room for so many"
        return Concurrency(limit, why)
    return None


def rescaled(engine: Engine, scaler: Scaler, subject: Subject, cluster: Cluster, metrics: Metrics | None) -> Fix:
    """The fix for an autoscaler that looks at something else; advice where no patch can be made of it."""
    queue = queue_metric(engine)
    if queue is None or metrics_off(engine):
        return _told(engine, scaler)
    running = metric(engine.name, "running", engine.version)
    many = concurrency_of(engine, metrics)
    names = (running.name, queue) if running is not None and many is not None and not running.where else (queue,)
    target, why = (many.target, many.why) if many and len(names) > 1 else (_WAITING, "a value to start from")
    if scaler.item.kind == "ScaledObject":
        trigger = _trigger(names, target, engine.pod, subject, metrics)
        return fixes.set_field(
            scaler.item, "/spec/triggers", [trigger], f"Scale on {_said(names)}, at {target} for each replica: {why}"
        )
    if scaler.item.kind != "HorizontalPodAutoscaler":
        return _told(engine, scaler)
    if _has_keda(cluster) and not fixes.maker(scaler.item):
        return _keda(names, target, why, scaler, engine.pod, subject, metrics)
    summary = (
        f"Scale on {_said(names, ' and ')}, which an adapter must publish (prometheus-adapter), at {target} for each "
    )
    return _adapter(names, target, f"{summary}replica: {why}", scaler)


def _said(names: tuple[str, ...], between: str = " + ") -> str:
    return between.join(names)


def _has_keda(cluster: Cluster) -> bool:
    """Whether KEDA is installed, as far as it was read."""
    found = cluster.exists("CustomResourceDefinition", "", "scaledobjects.keda.sh")
    return bool(found) or next(cluster.items("ScaledObject"), None) is not None


def _adapter(names: tuple[str, ...], target: int, summary: str, scaler: Scaler) -> Fix:
    """A patch of the autoscaler itself; of several metrics it follows the one that asks for most replicas."""
    values = [
        {"metric": {"name": name}, "target": {"type": "AverageValue", "averageValue": str(number)}}
        for name, number in zip(names, (target, _WAITING) if len(names) > 1 else (target,), strict=True)
    ]
    metrics = {"op": "add", "path": "/spec/metrics", "value": [{"type": "Pods", "pods": value} for value in values]}
    if scaler.item.api_version == "autoscaling/v1":
        old = dig(scaler.item.raw, "spec.targetCPUUtilizationPercentage")
        removed = [] if old is None else [{"op": "remove", "path": "/spec/targetCPUUtilizationPercentage"}]
        version = {"op": "replace", "path": "/apiVersion", "value": "autoscaling/v2"}
        return fixes.patch_object(scaler.item, summary, [version, *removed, metrics])
    return fixes.patch_object(scaler.item, summary, [metrics])


def _keda(
    names: tuple[str, ...], target: int, why: str, scaler: Scaler, pod: Pod, subject: Subject, metrics: Metrics | None
) -> Fix:
    """A ScaledObject that takes the autoscaler over under its own name."""
    item = scaler.item
    made = {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {
            "name": item.name,
            "namespace": item.namespace,
            "annotations": {"scaledobject.keda.sh/transfer-hpa-ownership": "true"},
        },
        "spec": {
            "scaleTargetRef": dig(item.raw, "spec.scaleTargetRef"),
            # at zero nobody emits the metric that would start the first replica
            "minReplicaCount": max(scaler.minimum, 1),
            "maxReplicaCount": scaler.maximum,
            "advanced": {"horizontalPodAutoscalerConfig": {"name": item.name}},
            "triggers": [_trigger(names, target, pod, subject, metrics)],
        },
    }
    document = msgspec.json.encode(made).decode()
    address = "" if _address(metrics) else "; put in the address of your Prometheus"
    return fixes.advice(
        f"Have KEDA scale on {_said(names)}, at {target} for each replica: {why}{address}",
        f"echo {shlex.quote(document)} | kubectl apply -f -",
    )


def _trigger(
    names: tuple[str, ...], target: int, pod: Pod, subject: Subject, metrics: Metrics | None
) -> dict[str, Any]:
    """KEDA's trigger: the requests of all replicas together, and how many one of them is to have."""
    where = f"namespace={_quoted(pod.namespace)}"
    if subject.workload is not None and subject.workload.kind in _NAMED:
        where += f",pod=~{_quoted(subject.workload.name + '-.+')}"
    query = " + ".join(f"sum({name}{{{where}}})" for name in names)
    address = _address(metrics) or "http://PROMETHEUS:9090"
    return {"type": "prometheus", "metadata": {"serverAddress": address, "query": query, "threshold": str(target)}}


def _quoted(text: str) -> str:
    """A string of PromQL: its escapes are those of JSON."""
    return msgspec.json.encode(text).decode()


def _address(metrics: Metrics | None) -> str:
    """Where the Prometheus is that answered; empty where none did."""
    source = metrics.span("waiting") if metrics is not None else None
    said = source.source if source else ""
    kind, _, rest = said.partition(" ")
    namespace, slash, service = rest.partition("/")
    name, _, port = service.partition(":")
    if kind == "Service" and slash and name:
        return f"http://{name}.{namespace}.svc:{port or '9090'}"
    return said if said.startswith(("http://", "https://")) else ""


def followed(engine: Engine) -> str:
    """The metrics that follow the load of this release, in words."""
    queue, cache = queue_metric(engine), cache_metric(engine)
    if queue is None:
        return "the requests in flight that your gateway or router counts"
    return queue + (f", or {cache}" if cache else "")


def _told(engine: Engine, scaler: Scaler) -> Fix:
    """The same in words, where this release emits nothing to scale on, or the autoscaler is of another kind."""
    flag = engine.flag("enable_metrics")
    first = f", which {engine.title} emits with {flag}" if flag and metrics_off(engine) else ""
    return fixes.advice(f"Scale on {followed(engine)}{first}, in {scaler.ref}")
