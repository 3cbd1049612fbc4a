"""What an operator's object says of its autoscaler: Knative's class, KServe's metric."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Engine,
    Finding,
    Fix,
    Metrics,
    Subject,
    Workload,
    dig,
    fixes,
    pointer_to,
    workload_evidence,
)
from llmdoctor_checks.serving._rescale import concurrency_of, followed

_CLASS = "autoscaling.knative.dev/class"
_METRIC = "autoscaling.knative.dev/metric"


def by_annotation(engine: Engine, subject: Subject, metrics: Metrics | None) -> Iterator[Finding]:
    """Knative's class for CPU and memory, and KServe's metric."""
    workload = subject.workload
    if workload is None:
        return
    raw = workload.raw
    told: list[tuple[str, str, str]] = []
    for path in ("metadata.annotations", "spec.template.metadata.annotations"):
        annotations = dig(raw, path)
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
        summary=f"{workload.ref} scales {engine.label} on GPUs by {metric}, which does not follow the load.",
        evidence=(workload_evidence(workload, path, text),),
        fix=_concurrency(engine, workload, path, metrics),
    )


def _concurrency(engine: Engine, workload: Workload, path: str, metrics: Metrics | None) -> Fix:
    """Knative's own autoscaler, where its class says that another one is meant; else advice."""
    if not path.endswith(f"[{_CLASS}]"):
        return fixes.advice(f"Scale on concurrency (Knative), or on {followed(engine)} (KEDA), in {workload.ref}")
    where = path.partition("[")[0]
    annotations = dig(workload.raw, where)
    at = pointer_to(where)
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
