"""Small clusters for the tests of the scheduler's filters: nodes, pods, claims, and a pod that waits."""

from __future__ import annotations

from typing import Any

from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.scheduling.pending import Pending
from kubectl_llmdoctor.snapshot import ReadList, Snapshot, TargetRef
from kubectl_llmdoctor.target import subjects

Json = dict[str, Any]

NOW = "2026-11-20T10:00:00Z"
ZONE = "topology.kubernetes.io/zone"
HOST = "kubernetes.io/hostname"
LISTS = (
    *("Node", "Pod", "Namespace", "PersistentVolume", "PersistentVolumeClaim", "StorageClass", "CSINode", "CSIDriver"),
    *("CSIStorageCapacity", "VolumeAttachment", "DeviceClass", "ResourceSlice", "ResourceClaim"),
)


def obj(
    kind: str, name: str, *, ns: str = "", labels: Json | None = None, meta: Json | None = None, **rest: Any
) -> Json:
    """Any object."""
    found: Json = {"name": name, "labels": labels or {}} | (meta or {})
    if ns:
        found["namespace"] = ns
    return {"kind": kind, "metadata": found, **rest}


def node(name: str, *, gpus: int = 8, taints: tuple[Json, ...] = (), **labels: str) -> Json:
    """A node; `zone="a"` stands for the label of its zone."""
    amounts = {"cpu": "64", "memory": "512Gi", "pods": "110", "ephemeral-storage": "1Ti"}
    if gpus:
        amounts["nvidia.com/gpu"] = str(gpus)
    found = {HOST: name} | {ZONE if key == "zone" else key.replace("_", "-"): value for key, value in labels.items()}
    status = {"capacity": amounts, "allocatable": amounts, "conditions": [{"type": "Ready", "status": "True"}]}
    return obj("Node", name, labels=found, spec={"taints": list(taints)}, status=status)


def pod(
    name: str, on: str = "", *, ns: str = "serving", gpus: int = 0, labels: Json | None = None, **spec: Any
) -> Json:
    """A pod; with a node it runs."""
    limits = {"limits": {"nvidia.com/gpu": gpus}} if gpus else {}
    meta = {"uid": f"uid-{name}", "creationTimestamp": NOW} | spec.pop("meta", {})
    status = {"phase": "Running" if on else "Pending"} | spec.pop("status", {})
    body = {"containers": [{"name": "c", "image": "x", "resources": limits}], **spec} | ({"nodeName": on} if on else {})
    return obj("Pod", name, ns=ns, labels=labels, meta=meta, spec=body, status=status)


def waiting(one: Json, *objects: Json, read: tuple[str, ...] = LISTS) -> Pending:
    """A pod among other objects, as what was asked about."""
    target = TargetRef(kind="Pod", name=one["metadata"]["name"], namespace=one["metadata"]["namespace"])
    lists = tuple(ReadList(kind=kind) for kind in read)
    (subject,) = subjects(Cluster(Snapshot(taken_at=NOW, target=target, objects=(one, *objects), read=lists)))
    return Pending(subject.pods[0], subject)


def said(pending: Pending) -> dict[str, list[tuple[str, str]]]:
    """What each node says: the scheduler's words and ours."""
    return {v.node.name: [(r.text, r.detail) for r in v.reasons] for v in pending.verdicts}


def texts(pending: Pending) -> dict[str, str]:
    """The scheduler's words of each node; `fits`, or what was not judged."""
    found = {}
    for v in pending.verdicts:
        open_ = "; ".join(f"{g.plugin}: {g.why}" for g in v.gaps) or "not known"
        found[v.node.name] = ", ".join(r.text for r in v.first) or ("fits" if v.fits else open_)
    return found
