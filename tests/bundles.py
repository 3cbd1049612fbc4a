"""Support bundles as troubleshoot.sh writes them, made of a snapshot's objects and logs."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterable
from typing import Any

Json = dict[str, Any]

FOLDERS = {
    "Pod": "pods", "Event": "events", "Service": "services", "ConfigMap": "configmaps",
    "PersistentVolumeClaim": "pvcs", "LimitRange": "limitranges", "ResourceQuota": "resource-quota",
    "Deployment": "deployments", "ReplicaSet": "replicasets", "StatefulSet": "statefulsets", "DaemonSet": "daemonsets",
    "Job": "jobs", "CronJob": "cronjobs", "Ingress": "ingress", "NetworkPolicy": "network-policy",
    "PodDisruptionBudget": "pod-disruption-budgets", "EndpointSlice": "endpointslices",
}  # fmt: skip
FILES = {
    "Node": "nodes", "Namespace": "namespaces", "PersistentVolume": "pvs", "StorageClass": "storage-classes",
    "VolumeAttachment": "volumeattachments", "PriorityClass": "priorityclasses",
}  # fmt: skip


def files(snapshot: Json, *, old: bool = False) -> dict[str, bytes]:
    """The bundle's files by path; `old`: as releases before lists had a kind wrote them, logs in a collector's folder."""
    lists: dict[str, list[Json]] = {}
    # A list that was read and is empty stands in a bundle too.
    for read in snapshot.get("read") or ():
        if read["kind"] in FILES:
            lists[f"{FILES[read['kind']]}.json"] = []
        elif read["kind"] in FOLDERS and read.get("namespace"):
            lists[f"{FOLDERS[read['kind']]}/{read['namespace']}.json"] = []
    found: dict[str, bytes] = {"version.yaml": b"apiVersion: troubleshoot.sh/v1beta2\nkind: SupportBundle\n"}
    for obj in snapshot.get("objects") or ():
        namespace = obj["metadata"].get("namespace") or "default"
        if obj["kind"] in FILES:
            lists.setdefault(f"{FILES[obj['kind']]}.json", []).append(obj)
        elif obj["kind"] in FOLDERS and "." not in obj["apiVersion"].replace(".k8s.io", ""):
            lists.setdefault(f"{FOLDERS[obj['kind']]}/{namespace}.json", []).append(obj)
        elif obj["kind"] != "Secret":
            plural = obj["kind"].lower() + "s"
            crd = f"{plural}.{obj['apiVersion'].partition('/')[0]}"
            lists.setdefault(f"custom-resources/{crd}/{namespace}.json", []).append(obj)
    for path, items in lists.items():
        bare = [{k: v for k, v in item.items() if k not in ("kind", "apiVersion")} for item in items]
        tree: Any = bare
        if not old:
            head = (
                {"kind": f"{items[0]['kind']}List", "apiVersion": items[0]["apiVersion"]} if items else {"kind": "List"}
            )
            tree = head | {"items": items}
        elif path.startswith("custom"):
            tree = items
        found[f"cluster-resources/{path}"] = json.dumps(tree, indent=2, default=str).encode()
    for log in snapshot.get("logs") or ():
        if log.get("pod"):
            place = f"engines/{log['pod']}" if old else f"cluster-resources/pods/logs/{log['namespace']}/{log['pod']}"
            previous = "-previous" if log.get("previous") else ""
            found[f"{place}/{log['container']}{previous}.log"] = log["text"].encode()
    return found


def packed(
    content: dict[str, bytes],
    *,
    root: str = "support-bundle-2026-11-20T10_00_00/",
    more: Iterable[tarfile.TarInfo] = (),
) -> bytes:
    """A tar.gz of these files, and of further members without content."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for path, data in content.items():
            info = tarfile.TarInfo(root + path)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in more:
            archive.addfile(info)
    return gzip.compress(plain.getvalue(), mtime=0)
