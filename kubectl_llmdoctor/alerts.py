"""Alerts that lead to a diagnosis: rules for Prometheus over the metrics of engines, pods and GPUs.

Each alert has the labels `namespace` and `pod`, and says which command explains that pod. The thresholds are those of the
checks that the alerts are named after, so that what an alert calls saturated a diagnosis calls so too.

Labels are expected as the operator for Prometheus sets them: `namespace` and `pod` on what an engine exports, and those of
the pod itself on what kube-state-metrics and cAdvisor export (`honorLabels: true`). For the GPU exporter both ways work.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from kubectl_llmdoctor.catalog.metrics import ENGINES, Metric, Role, metrics_of
from kubectl_llmdoctor.check import DOCS_URL

#: Resource names of accelerators as kube-state-metrics writes them.
_GPUS = r"nvidia_com_(gpu|mig_.+)|amd_com_gpu|gpu_intel_com_.+|habana_ai_gaudi|google_com_tpu|aws_amazon_com_neuron.*"

#: Xids of applications and their aftermath, which are no fault of the GPU (catalog/xids.py).
_OF_APPLICATIONS = (13, 31, 43, 45)

_EACH = "by (namespace, pod)"


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One alert: `id` is the check whose page is its runbook; `hold` is how long the expression must hold."""

    name: str
    id: str
    expression: str
    hold: str
    severity: str
    summary: str
    labels: dict[str, str] = {}


def alerting_engines() -> tuple[str, ...]:
    """The engines that there are alerts for; NIM's names have no prefix, and anything may export `num_requests_waiting`."""
    return tuple(engine for engine in ENGINES if engine != "nim")


def groups(engines: Iterable[str] = (), namespace: str = "", runbooks: str = "") -> list[dict[str, Any]]:
    """The groups of a rules file: one for each engine, one for pods, one for GPUs.

    Args:
        engines: names of engines (`vllm`, `sglang`, …); none means all.
        namespace: only pods of this namespace; empty means all.
        runbooks: an address that the pages of the checks are found under.
    """
    where = f'namespace="{namespace}"' if namespace else ""
    chosen = tuple(engines) or alerting_engines()
    made = [
        *((f"llmdoctor-{engine}", list(_of_engine(engine, where))) for engine in chosen),
        ("llmdoctor-pods", list(_of_pods(where))),
        ("llmdoctor-gpus", list(_of_gpus(where))),
    ]
    return [
        {"name": name.replace(".", "-"), "rules": [_rule(alert, runbooks) for alert in alerts]}
        for name, alerts in made
        if alerts
    ]


def prometheus_rule(
    made: list[dict[str, Any]], name: str, namespace: str, labels: dict[str, str] | None = None
) -> dict[str, Any]:
    """The object of the operator for Prometheus (monitoring.coreos.com/v1) that holds groups of rules."""
    metadata: dict[str, Any] = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    metadata["labels"] = {"app.kubernetes.io/name": "kubectl-llmdoctor", **(labels or {})}
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": metadata,
        "spec": {"groups": made},
    }


def _rule(alert: Alert, runbooks: str) -> dict[str, Any]:
    page = DOCS_URL.format(id=alert.id)
    page = f"{runbooks.rstrip('/')}/{page.rpartition('/')[2]}" if runbooks else page
    return {
        "alert": alert.name,
        "expr": alert.expression,
        "for": alert.hold,
        "labels": {"severity": alert.severity, **alert.labels},
        "annotations": {
            "summary": alert.summary,
            "diagnose": "kubectl llmdoctor diagnose {{ $labels.pod }} -n {{ $labels.namespace }}",
            "runbook_url": f"{page}?diagnose={{{{ $labels.namespace }}}}/{{{{ $labels.pod }}}}",
        },
    }


def _own(engine: str, role: Role) -> list[Metric]:
    return [m for m in metrics_of(engine) if m.engine == engine and m.role == role]


def _select(metric: Metric, where: str, suffix: str) -> str:
    """A selector: `name{namespace="serving",request_type="waiting"}[10m]`."""
    matchers = ",".join([*([where] if where else []), *(f'{key}="{value}"' for key, value in metric.where)])
    return metric.name + (f"{{{matchers}}}" if matchers else "") + suffix


def _joined(engine: str, role: Role, where: str, how: str = "sum", suffix: str = "", over: str = "") -> str:
    """A role of an engine for each pod: of several names the one that there is."""
    made = (
        f"{how} {_EACH} ({f'{over}({_select(m, where, suffix)})' if over else _select(m, where, suffix)})"
        for m in _own(engine, role)
    )
    return " or ".join(dict.fromkeys(made))


def _of_engine(engine: str, where: str) -> Iterator[Alert]:
    labels = {"engine": engine}
    waiting = _joined(engine, "waiting", where)
    if waiting:
        now = f"({_joined(engine, 'waiting', where, suffix='[10m]', over='avg_over_time')})"
        before = f"({_joined(engine, 'waiting', where, suffix='[10m] offset 20m', over='avg_over_time')})"
        running = _joined(engine, "running", where)
        yield Alert(
            name="LLMQueueGrowing",
            id="queue-growing",
            expression=f"({waiting}) >= 10\nand {now} > 1.5 * {before}" + (f"\nand ({running}) > 0" if running else ""),
            hold="10m",
            severity="warning",
            summary="{{ $value }} requests wait in {{ $labels.namespace }}/{{ $labels.pod }}, and more and more of them.",
            labels=labels,
        )
    cache = _cache(engine, where)
    if cache and waiting:
        yield Alert(
            name="LLMKVCacheSaturated",
            id="kv-cache-saturated",
            expression=f"({cache}) >= 0.95\nand ({waiting}) >= 1",
            hold="10m",
            severity="warning",
            summary="The KV cache of {{ $labels.namespace }}/{{ $labels.pod }} is {{ $value | humanizePercentage }} full and "
            "requests wait for it.",
            labels=labels,
        )
    running = _joined(engine, "running", where)
    if running:
        was = _joined(engine, "running", where, suffix="[6h]", over="present_over_time")
        alive = _matching("kube_pod_status_phase", where, 'phase="Running"') + " == 1"
        yield Alert(
            name="LLMMetricsAbsent",
            id="metrics-not-scraped",
            expression=f"(({was}) unless ({running}))\nand on (namespace, pod) ({alive})",
            hold="15m",
            severity="warning",
            summary="{{ $labels.namespace }}/{{ $labels.pod }} runs, and its metrics no longer come.",
            labels=labels,
        )


def _cache(engine: str, where: str) -> str:
    """How full the KV cache of each pod is, 0 to 1; empty where an engine does not say."""
    if _own(engine, "kv_usage"):
        return _joined(engine, "kv_usage", where, how="max")
    used, total = (_joined(engine, role, where) for role in ("kv_used", "kv_total"))
    return f"{used} / ({total} > 0)" if used and total else ""


def _matching(name: str, *matchers: str) -> str:
    """A selector of what is there for each pod."""
    chosen = ",".join(filter(None, matchers))
    return name + (f"{{{chosen}}}" if chosen else "")


def _have_gpus(where: str) -> str:
    """The pods that ask for accelerators."""
    requests = _matching("kube_pod_container_resource_requests", where, f'resource=~"{_GPUS}"')
    return f"sum {_EACH} ({requests}) > 0"


def _of_pods(where: str) -> Iterator[Alert]:
    gpus = _have_gpus(where)
    loops = _matching("kube_pod_container_status_waiting_reason", where, 'reason="CrashLoopBackOff"')
    restarts = _matching("kube_pod_container_status_restarts_total", where)
    killed = _matching("kube_pod_container_status_last_terminated_reason", where, 'reason="OOMKilled"')
    pending = _matching("kube_pod_status_phase", where, 'phase="Pending"')
    yield Alert(
        name="LLMPodCrashLooping",
        id="crash-loop",
        expression=f"max {_EACH} (max_over_time({loops}[5m])) >= 1\nand on (namespace, pod) {gpus}",
        hold="5m",
        severity="critical",
        summary="{{ $labels.namespace }}/{{ $labels.pod }}, which has GPUs, crashes again and again.",
    )
    yield Alert(
        name="LLMPodOOMKilled",
        id="oomkilled-host",
        expression=(
            f"max {_EACH} (increase({restarts}[15m]) > 0 and on (namespace, pod, container) {killed} == 1)\n"
            f"and on (namespace, pod) {gpus}"
        ),
        hold="0m",
        severity="critical",
        summary="A container of {{ $labels.namespace }}/{{ $labels.pod }}, which has GPUs, was killed for lack of host memory.",
    )
    yield Alert(
        name="LLMPodPending",
        id="pod-pending",
        expression=f"max {_EACH} ({pending}) == 1\nand on (namespace, pod) {gpus}",
        hold="15m",
        severity="warning",
        summary="{{ $labels.namespace }}/{{ $labels.pod }} asks for GPUs and has been Pending for 15 minutes.",
    )


def _of_gpus(where: str) -> Iterator[Alert]:
    """What the exporter ascribes to a pod, whether Prometheus calls that `pod` or `exported_pod`."""
    last, failed = (_own("dcgm", role)[0].name for role in ("gpu_xid", "gpu_remap_failed"))
    mild = "".join(f" != {number}" for number in (0, *_OF_APPLICATIONS))
    recent = f"{last}{mild} and changes({last}[15m]) > 0"
    either = f"({recent}) or ({failed} > 0)"
    named = _relabelled(_relabelled(either, "pod"), "namespace")
    only = f"max by (namespace, pod, Hostname, hostname, gpu) ({named})\nand on (namespace, pod) {_have_gpus(where)}"
    yield Alert(
        name="LLMGPUError",
        id="xid-error",
        expression=only,
        hold="0m",
        severity="critical",
        summary="GPU {{ $labels.gpu }} of {{ $labels.namespace }}/{{ $labels.pod }} reports an error (its last Xid, or 1 for a "
        "row that cannot be remapped: {{ $value }}).",
    )


def _relabelled(expression: str, label: str) -> str:
    return f'label_replace({expression}, "{label}", "$1", "exported_{label}", "(.+)")'
