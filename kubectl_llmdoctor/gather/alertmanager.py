"""An alert -> what it is about: the pods, workloads and nodes that its labels name.

Read are the webhook payload of Alertmanager (version 4) and the bare list of its API v2 (`amtool alert query -o json`).
Labels are text from a cluster: what is no name of an object is passed over and said.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from kubectl_llmdoctor.errors import UsageError
from kubectl_llmdoctor.gather.offline import reading
from kubectl_llmdoctor.snapshot import Json, Missing, TargetRef

#: The largest payload; Alertmanager's own are some kilobytes.
MAX_BYTES = 8 << 20

#: Objects that are looked up for one payload.
MAX_TARGETS = 20

#: kube-state-metrics and dcgm-exporter name themselves in `pod` where the scrape does not honour their labels, and what
#: they measure in `exported_pod`.
_NAMESPACE = ("exported_namespace", "namespace", "kubernetes_namespace")
_POD = ("exported_pod", "pod", "kubernetes_pod_name", "pod_name")

#: Who measures, and is the subject only where no other label names one.
_EXPORTER = r"(?:.*-)?(?:kube-state-metrics|node-exporter|dcgm-exporter)(?:-|\Z)"

#: Labels of kube-state-metrics, of the Kubernetes mixin's recording rules and of operators, the nearest to the pods
#: first. `job` is no Job but what Prometheus calls its scrape; a Job stands in `job_name`.
_WORKLOADS = {
    "replicaset": "ReplicaSet",
    "deployment": "Deployment",
    "statefulset": "StatefulSet",
    "daemonset": "DaemonSet",
    "job_name": "Job",
    "leaderworkerset": "LeaderWorkerSet",
    "inferenceservice": "InferenceService",
    "isvc": "InferenceService",
    "rayservice": "RayService",
    "raycluster": "RayCluster",
    "nimservice": "NIMService",
    "rollout": "Rollout",
}
_WORKLOAD_TYPE = "workload_type"

#: A node by its name, and where an exporter on it answers (an address or a host name, with a port).
_NODE = ("exported_node", "node", "kubernetes_node", "Hostname", "nodename")
_ADDRESS = "instance"

_NAME = r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?\Z"
_HOST = r"(?:\[([0-9a-fA-F:.]{2,45})\]|([A-Za-z0-9][-A-Za-z0-9.]{0,252}))(?::\d{1,5})?\Z"


class Alerted(msgspec.Struct, frozen=True, kw_only=True):
    """What alerts are about, each thing once, in their order.

    `objects` without a namespace are in that of the command line. `nodes` are names, or an address where `instance` is
    all that is known. `passed_over` says which alerts led nowhere.
    """

    objects: tuple[TargetRef, ...] = ()
    nodes: tuple[str, ...] = ()
    passed_over: tuple[Missing, ...] = ()
    #: how many alerts there are, with those that are over
    alerts: int = 0


def read(path: str) -> Alerted:
    """What the alerts of a file are about; `-` is standard input. Raises UsageError with one line."""
    data = reading.named(path, None, lambda stream: reading.whole(stream, MAX_BYTES))
    return about(data, reading.shown(path))


def about(data: bytes, where: str) -> Alerted:
    """What the alerts of a payload are about. Raises UsageError where it is none, or names nothing."""
    try:
        tree = msgspec.json.decode(reading.decode(data).encode("utf-8", "replace"))
    except (msgspec.DecodeError, RecursionError):
        raise UsageError(f"{where}: not JSON; --alert takes the webhook payload of Alertmanager") from None
    alerts, missing = _alerts(tree, where)
    found: dict[TargetRef | str, None] = {}
    resolved = 0
    for number, alert in enumerate(alerts, start=1):
        if not isinstance(alert, dict) or not isinstance(alert.get("labels"), dict):
            missing.append(Missing(source="alert", ref=f"{where}: alert {number}", reason="it has no labels"))
            continue
        if alert.get("status") == "resolved":
            resolved += 1
            continue
        try:
            found[_subject(alert["labels"])] = None
        except ValueError as error:
            missing.append(Missing(source="alert", ref=_title(alert["labels"], number), reason=str(error)))
    if len(found) > MAX_TARGETS:
        reason = f"only the first {MAX_TARGETS} of {len(found)} things that the alerts name are explained"
        missing.append(Missing(source="alert", ref=where, reason=reason))
    chosen = list(found)[:MAX_TARGETS]
    if not chosen and resolved < len(alerts):
        raise UsageError(f"{missing[0].ref}: {missing[0].reason}")
    return Alerted(
        objects=tuple(thing for thing in chosen if isinstance(thing, TargetRef)),
        nodes=tuple(thing for thing in chosen if isinstance(thing, str)),
        passed_over=tuple(dict.fromkeys(missing)),
        alerts=len(alerts),
    )


def _alerts(tree: Any, where: str) -> tuple[list[Any], list[Missing]]:
    """The alerts of either form, and what Alertmanager itself left out."""
    if isinstance(tree, list):
        alerts, cut = tree, None
    elif isinstance(tree, dict) and isinstance(tree.get("alerts"), list):
        version = tree.get("version")
        if version not in ("4", None):
            raise UsageError(f"{where}: webhook payload of version {str(version)[:20]!r}, only 4 is known")
        alerts, cut = tree["alerts"], tree.get("truncatedAlerts")
    else:
        raise UsageError(f"{where}: no alerts in it; --alert takes the webhook payload of Alertmanager (version 4)")
    if not alerts:
        raise UsageError(f"{where}: the list of alerts is empty")
    if not isinstance(cut, int) or cut <= 0:
        return alerts, []
    return alerts, [Missing(source="alert", ref=where, reason=f"Alertmanager left out {cut} more alerts of this group")]


def _subject(labels: Json) -> TargetRef | str:
    """A pod, else the workload, else the node that the labels name. Raises ValueError, which says why not."""
    namespace = _named(labels, _NAMESPACE)
    pod = _named(labels, _POD)
    if pod and not re.match(_EXPORTER, pod):
        return TargetRef(kind="Pod", name=pod, namespace=namespace)
    for label, kind in _WORKLOADS.items():
        if name := _named(labels, (label,)):
            return TargetRef(kind=kind, name=name, namespace=namespace)
    kind = _WORKLOADS.get(str(labels.get(_WORKLOAD_TYPE)).lower(), "")
    if kind and (name := _named(labels, ("workload",))):
        return TargetRef(kind=kind, name=name, namespace=namespace)
    if name := _named(labels, _NODE):
        return name
    if pod:
        return TargetRef(kind="Pod", name=pod, namespace=namespace)
    address = labels.get(_ADDRESS)
    if isinstance(address, str) and (host := re.match(_HOST, address)):
        return (host[1] or host[2]).lower()
    have = ", ".join(sorted(str(label)[:40] for label in labels)[:12]) or "none"
    raise ValueError(f"its labels name no pod, workload or node (labels: {have})")


def _named(labels: Json, keys: tuple[str, ...]) -> str:
    """The first of these labels that is set. Raises ValueError for one that is no name."""
    for key in keys:
        value = labels.get(key)
        if value in (None, ""):
            continue
        if not isinstance(value, str) or not re.match(_NAME, value):
            raise ValueError(f"its label {key} is no name of an object: {_short(value)}")
        return value
    return ""


def _title(labels: Json, number: int) -> str:
    name = labels.get("alertname")
    return f"alert {_short(name)}" if isinstance(name, str) and name else f"alert {number}"


def _short(value: Any) -> str:
    text = "".join(c if c.isprintable() else "?" for c in str(value)[:61])
    return repr(text if len(text) <= 60 else text[:60] + "…")
