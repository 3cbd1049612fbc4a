"""Autoscalers of a workload, what each of them looks at, and the metrics of the engines.

Sources: autoscaling/v2 (without metrics the API server adds CPU at 80 %), keda.sh ScaledObject (minReplicaCount 0,
maxReplicaCount 100, cooldownPeriod 300 s unless set), metrics by engine and release from their sources.
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from kubectl_llmdoctor.api import (
    Cluster,
    Engine,
    Evidence,
    Fix,
    Item,
    Pod,
    Subject,
    dig,
    expression,
    fixes,
    object_evidence,
    pointer_to,
    rows,
)
from kubectl_llmdoctor.catalog.metrics import ENGINES, metric, metrics_of

#: What the API server adds where a HorizontalPodAutoscaler names no metric.
_DEFAULT_PERCENT = 80

#: Metrics of vLLM that releases renamed or dropped: name, hidden from, gone from, what took its place.
_DROPPED = (
    ("gpu_cache_usage_perc", "0.11.0", "0.12.0", "vllm:kv_cache_usage_perc"),
    ("time_per_output_token_seconds", "0.12.0", "0.15.0", "vllm:inter_token_latency_seconds"),
    ("cpu_cache_usage_perc", "0.9.0", "0.9.0", "vllm:kv_cache_usage_perc"),
    ("num_requests_swapped", "0.9.0", "0.9.0", "vllm:num_requests_waiting"),
)

#: Metrics of vLLM that came later: name, first release, what stood there before.
_LATER = (
    ("kv_cache_usage_perc", "0.9.2", "vllm:gpu_cache_usage_perc"),
    ("inter_token_latency_seconds", "0.10.2", "vllm:time_per_output_token_seconds"),
    ("num_requests_waiting_by_reason", "0.20.2", "vllm:num_requests_waiting"),
)

#: Beginnings of metrics that an engine's own pod emits.
EMITTED = expression(r"\b(?:(?:vllm|sglang|trtllm|llamacpp|lmdeploy)[:_]|tgi_|nv_inference_|nv_trt_llm_)\w+")


#: Engines whose pods emit metrics of this beginning and of no other.
_BEGINNINGS = {"vllm": "vllm:", "sglang": "sglang:", "tgi": "tgi_", "llama.cpp": "llamacpp:", "lmdeploy": "lmdeploy:"}

#: Those that pass on what the engine behind them emits.
_PASSING_ON = ("nim", "triton", "huggingfaceserver")

#: What the series of a histogram are called by, after its name.
_SERIES = r"_(?:bucket|sum|count)$"

_KINDS = ("ScaledObject", "HorizontalPodAutoscaler")


class Look(msgspec.Struct, frozen=True):
    """One thing that an autoscaler looks at."""

    path: str
    #: `resource` (CPU or memory), `metric`, or `other`
    source: str
    name: str
    #: how it stands in the object
    text: str
    #: of a resource: the percentage of the request that is the target
    percent: int | None = None
    #: of a metric: how much each replica is to have, as it stands there; empty where the target is of another kind
    each: str = ""


class Scaler(msgspec.Struct, frozen=True):
    """A HorizontalPodAutoscaler or ScaledObject."""

    item: Item
    minimum: int
    maximum: int
    looks: tuple[Look, ...]

    @property
    def ref(self) -> str:
        """`HorizontalPodAutoscaler/llama`."""
        return f"{self.item.raw.get('kind')}/{self.item.name}"

    @property
    def paused(self) -> bool:
        """Whether somebody stopped KEDA for this workload on purpose; then no trigger wakes or scales it, and none shall."""
        marks, paused = self.item.annotations, "autoscaling.keda.sh/paused"
        return f"{paused}-replicas" in marks or marks.get(paused, "").lower() == "true"

    def evidence(self, path: str, text: str) -> Evidence:
        """Something that it says."""
        return object_evidence(self.item, path, text)

    @property
    def quoted(self) -> Iterator[Evidence]:
        """By what it scales, as it says it."""
        return (self.evidence(look.path, look.text) for look in self.looks)


def scalers(subject: Subject, cluster: Cluster) -> Iterator[Scaler]:
    """The autoscalers of what owns these pods."""
    every = cluster.once("autoscalers by target", lambda: _by_target(cluster))
    owners = dict.fromkeys((kind.partition(".")[0], name) for kind, name in subject.related if kind != "Pod")
    keda, hpas = ([i for o in owners for i in every.get((kind, subject.namespace, *o), ())] for kind in _KINDS)
    yield from map(scaled_object, keda)
    for item in hpas:
        if not any(cluster.owner(item) is one or item.name == f"keda-hpa-{one.name}" for one in keda):
            yield _hpa(item)


def _by_target(cluster: Cluster) -> dict[tuple[str, str, str, str], list[Item]]:
    """The autoscalers by their kind, namespace, and the kind and name of what they scale."""
    found: dict[tuple[str, str, str, str], list[Item]] = {}
    for kind in _KINDS:
        for item in cluster.items(kind):
            target = dig(item.raw, "spec.scaleTargetRef")
            if isinstance(target, dict):
                scaled = str(target.get("kind") or "Deployment"), str(target.get("name"))
                found.setdefault((kind, item.namespace, *scaled), []).append(item)
    return found


def scaled_object(item: Item) -> Scaler:
    """What KEDA is told of one workload."""
    spec = item.raw.get("spec")
    idle = _number(dig(spec, "idleReplicaCount"), 1)
    looks = []
    for index, trigger in enumerate(rows(spec, "triggers")):
        kind, query = str(trigger.get("type")), dig(trigger, "metadata.query")
        path = f"spec.triggers[{index}]"
        if kind in ("cpu", "memory"):
            value = str(dig(trigger, "metadata.value") or "")
            utilization = "Utilization" in (trigger.get("metricType"), dig(trigger, "metadata.type"), None)
            percent = int(value) if utilization and value.isdecimal() else None
            looks.append(Look(path, "resource", kind, f"type: {kind}, value: {value}", percent))
        elif isinstance(query, str):
            average = trigger.get("metricType") in (None, "AverageValue")
            each = str(dig(trigger, "metadata.threshold") or "") if average else ""
            looks.append(Look(f"{path}.metadata.query", "metric", query, query, each=each))
        else:
            looks.append(Look(path, "other", kind, f"type: {kind}"))
    minimum = min(_number(dig(spec, "minReplicaCount"), 0), idle)
    return Scaler(item, minimum, _number(dig(spec, "maxReplicaCount"), 100), tuple(looks))


def _hpa(item: Item) -> Scaler:
    spec = item.raw.get("spec")
    looks = []
    for index, row in enumerate(rows(spec, "metrics")):
        kind = str(row.get("type") or "")
        path, own = f"spec.metrics[{index}]", row.get(kind[:1].lower() + kind[1:])
        if kind in ("Resource", "ContainerResource"):
            name, percent = str(dig(own, "name")), dig(own, "target.averageUtilization")
            amount = f"{percent} %" if percent else str(dig(own, "target.averageValue") or "")
            looks.append(
                Look(path, "resource", name, f"{name}: {amount}", percent if isinstance(percent, int) else None)
            )
        else:
            name = str(dig(own, "metric.name") or "")
            each = str(dig(own, "target.averageValue") or "")
            looks.append(Look(path, "metric" if name else "other", name, name or kind, each=each))
    if not looks:
        percent = dig(spec, "targetCPUUtilizationPercentage")
        if isinstance(percent, int):
            looks.append(Look("spec.targetCPUUtilizationPercentage", "resource", "cpu", f"cpu: {percent} %", percent))
        else:
            text = f"no metrics, which means cpu: {_DEFAULT_PERCENT} %"
            looks.append(Look("spec", "resource", "cpu", text, _DEFAULT_PERCENT))
    return Scaler(item, _number(dig(spec, "minReplicas"), 1), _number(dig(spec, "maxReplicas"), 1), tuple(looks))


def _number(value: Any, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def queue_metric(engine: Engine) -> str | None:
    """The metric that says how many requests wait; None where this release has none, or it is not known."""
    if engine.name == "triton":  # what a backend queues itself has other names
        return "nv_inference_pending_request_count"
    found = metric(engine.name, "waiting", engine.version)
    return found.name if found else None


def cache_metric(engine: Engine) -> str | None:
    """The metric of vLLM that says how full its cache is, by the name of this release."""
    found = metric("vllm", "kv_usage", engine.version) if engine.name == "vllm" else None
    return found.name if found else None


def metrics_off(engine: Engine) -> bool:
    """Whether the engine emits no metrics because nobody asked it to."""
    return engine.found.argv_known and engine.value("enable_metrics") is False


def absent(engine: Engine, query: str) -> tuple[str, str] | None:
    """A metric in a query that this engine, or this release of vLLM, does not emit, and the one that it does."""
    if (foreign := _foreign(engine, query)) is not None or engine.name != "vllm":
        return foreign

    def has(name: str) -> bool:
        return re.search(rf"\bvllm[:_]{name}\b", query) is not None

    shows = engine.explicit("show_hidden_metrics_for_version") is not None or any(
        "--show-hidden-metrics-for-version" in str(word) for word in engine.container.spec.args
    )
    for name, hidden, gone, instead in _DROPPED:
        if has(name) and engine.at_least(gone if shows else hidden) and instead.partition(":")[2] not in query:
            return f"vllm:{name}", instead
    for name, first, instead in _LATER:
        if has(name) and engine.at_least(first) is False and instead.partition(":")[2] not in query:
            return f"vllm:{name}", instead
    return None


def _foreign(engine: Engine, query: str) -> tuple[str, str] | None:
    """The only metric of a query, where it is another engine's, and what this one has for it."""
    own = _BEGINNINGS.get(engine.name)
    said = {found[0] for found in EMITTED.finditer(query)}
    if own is None or len(said) != 1:
        return None
    # adapters write an underscore for the colon
    name = re.sub(r"^(vllm|sglang|llamacpp|lmdeploy)_", r"\1:", re.sub(_SERIES, "", said.pop()))
    other = next((who for who, begins in _BEGINNINGS.items() if name.startswith(begins)), engine.name)
    if name.startswith(own) or other == engine.name:
        return None
    alike = (metric(engine.name, one.role, engine.version) for one in metrics_of(other) if one.name == name)
    mine = next(alike, None) or metric(engine.name, "waiting", engine.version)
    return (name, mine.name) if mine else None


def of_others_alone(engine: Engine, query: str) -> bool:
    """Whether a query is of the metrics of another engine, where this one emits none of its own."""
    own = engine.name in _BEGINNINGS or engine.name in _PASSING_ON or queue_metric(engine) is not None
    return not own and EMITTED.search(query) is not None


def renamed(scaler: Scaler, look: Look, gone: tuple[str, str]) -> Fix:
    """What the engine emits in place of what it does not, where both say the same."""
    if gone[0] not in look.text or not alike(*gone):
        return fixes.advice(f"Scale on {gone[1]} in {scaler.ref}")
    tail = "" if look.path.endswith("query") else "/" + _member(scaler, look) + "/metric/name"
    operation = {"op": "replace", "path": pointer_to(look.path) + tail, "value": look.text.replace(*gone)}
    return fixes.patch_object(scaler.item, f"Scale on {gone[1]}", [operation])


def _member(scaler: Scaler, look: Look) -> str:
    index = int(look.path.partition("[")[2][:-1])
    kind = str(dig(scaler.item.raw, "spec.metrics")[index]["type"])
    return kind[:1].lower() + kind[1:]


def alike(one: str, other: str) -> bool:
    """Whether two metrics say the same of their engines, so that either is right in a query and against its target."""
    known = [metric for engine in ENGINES for metric in metrics_of(engine)]
    first, second = ({(m.role, m.kind, m.scale) for m in known if m.name == name} for name in (one, other))
    return bool(first & second)


def routed(pod: Pod, cluster: Cluster) -> bool:
    """Whether a router stands in the namespace, which may emit metrics under the engine's names."""
    return any("router" in item.name for item in cluster.items("Deployment", pod.namespace))
