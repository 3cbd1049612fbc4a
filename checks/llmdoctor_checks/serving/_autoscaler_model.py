"""The model for which llm-d's Workload Variant Autoscaler reads the metrics of what it scales: an annotation of the autoscaler names it."""

from __future__ import annotations

import re

from kubectl_llmdoctor.api import Cluster, Engine, Finding, Line, Log, Pod, escaped, fixes, log_evidence
from llmdoctor_checks.serving._autoscaling import Scaler

_MODEL = "llm-d.ai/model-id"
#: It passes over each autoscaler that does not say so with "true".
_MANAGED = "llm-d.ai/managed"
#: What it prints where Prometheus has no series with the model's name (internal/engines/saturation), and which model that was.
SKIPPED = "No saturation metrics available for model, skipping analysis"
_WHICH = r"\"modelID\": ?\"(?P<model>[^\"\s]{1,253})\""


def of_another_model(pod: Pod, engine: Engine, scaler: Scaler, cluster: Cluster) -> Finding | None:
    """An autoscaler that asks for the metrics of a model which the engine serves by another name, as vLLM labels them."""
    wanted, named = str(scaler.item.annotations.get(_MODEL) or ""), engine.value("served_model_name")
    listed = named if isinstance(named, list | tuple) else str(named or engine.value("model") or "").split()
    label = str(listed[0]) if listed else ""
    if engine.name != "vllm" or not wanted or not label or "$" in label or wanted == label:
        return None
    lines = cluster.once("models without metrics", lambda: _skipped(cluster))
    line = lines.get(wanted)
    if line is None and scaler.item.annotations.get(_MANAGED) != "true":
        return None
    path = f"metadata.annotations[{_MODEL}]"
    operation = {"op": "add", "path": f"/metadata/annotations/{escaped(_MODEL)}", "value": label}
    return Finding(
        role="cause" if line is not None and pod.ready else "risk",
        summary=f"{scaler.ref} has llm-d's autoscaler look for the metrics of {wanted}, and {engine.container.name} gives its own the name "
        f"{label}: it finds none, and leaves the replicas as they are.",
        evidence=(scaler.evidence(path, wanted), *((log_evidence(line, wanted),) if line is not None else ())),
        fix=fixes.patch_object(scaler.item, f"Set the annotation {_MODEL} of {scaler.ref} to {label}", [operation]),
    )


def _skipped(cluster: Cluster) -> dict[str, Line]:
    """The last line for each model of which the autoscaler says that nobody has metrics of it."""
    lines = (line for text in cluster.snapshot.logs if not text.previous for line in Log(text).find(SKIPPED))
    return {said["model"]: line for line in lines if (said := re.search(_WHICH, line.text[:2000])) is not None}
