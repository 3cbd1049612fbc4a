"""Plays a snapshot: makes a real API server give exactly what was recorded, as if it were now.

The objects go straight into etcd, as JSON under the keys that the API server uses: created through the API they would
lose ``creationTimestamp``, ``deletionTimestamp``, ``uid`` and status, and skeletons that lack a required field would be
refused. All their times move so that ``takenAt`` is now, those that programs print with them. Logs come from the stand-in
kubelet.

An object that is not in a snapshot is unknown; in a cluster it would be missing. What a pod of the snapshot must have
had to get as far as it got is therefore invented, as an empty stand-in that says nothing.
"""

import datetime
import gzip
import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from . import network, printed
from .controlplane import ControlPlane
from .kubelet import PORT, Instance, Kubelet, Log

Object = dict[str, Any]

TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)")
# Fields that the API decodes only with a fraction of six digits.
MICRO_TIMES = {"eventTime", "lastObservedTime", "renewTime", "acquireTime"}


@dataclass(frozen=True)
class Resource:
    """Where the objects of a kind live: in the API, and in the store."""

    group: str
    version: str
    plural: str
    namespaced: bool
    prefix: str

    @property
    def path(self) -> str:
        """The path of its list over all namespaces."""
        return f"/apis/{self.group}/{self.version}/{self.plural}" if self.group else f"/api/v1/{self.plural}"

    def object_path(self, item: Object) -> str:
        """The path of one object."""
        metadata = item["metadata"]
        within = f"namespaces/{metadata['namespace']}/" if self.namespaced else ""
        return f"{self.path.removesuffix(self.plural)}{within}{self.plural}/{metadata['name']}"

    def key(self, item: Object) -> str:
        """The key of an object in the store."""
        metadata = item["metadata"]
        name = f"{metadata['namespace']}/{metadata['name']}" if self.namespaced else metadata["name"]
        return f"{self.prefix}/{name}"


# The resources that the API server itself serves, by group, as Kind=plural; "!" marks those without a namespace.
BUILT_IN = {
    "": "Pod=pods Service=services Endpoints=endpoints ConfigMap=configmaps Secret=secrets Event=events "
    "PersistentVolumeClaim=persistentvolumeclaims ServiceAccount=serviceaccounts ResourceQuota=resourcequotas "
    "LimitRange=limitranges Node=!nodes Namespace=!namespaces PersistentVolume=!persistentvolumes",
    "apps": "Deployment=deployments ReplicaSet=replicasets StatefulSet=statefulsets DaemonSet=daemonsets "
    "ControllerRevision=controllerrevisions",
    "batch": "Job=jobs CronJob=cronjobs",
    "autoscaling": "HorizontalPodAutoscaler=horizontalpodautoscalers",
    "policy": "PodDisruptionBudget=poddisruptionbudgets",
    "discovery.k8s.io": "EndpointSlice=endpointslices",
    "networking.k8s.io": "Ingress=ingresses NetworkPolicy=networkpolicies IngressClass=!ingressclasses",
    "storage.k8s.io": "StorageClass=!storageclasses CSINode=!csinodes CSIDriver=!csidrivers "
    "VolumeAttachment=!volumeattachments CSIStorageCapacity=csistoragecapacities",
    "scheduling.k8s.io": "PriorityClass=!priorityclasses",
    "node.k8s.io": "RuntimeClass=!runtimeclasses",
    "coordination.k8s.io": "Lease=leases",
    "resource.k8s.io": "ResourceClaim=resourceclaims ResourceClaimTemplate=resourceclaimtemplates "
    "DeviceClass=!deviceclasses ResourceSlice=!resourceslices",
}
KINDS = {
    (group, kind): (plural.removeprefix("!"), not plural.startswith("!"))
    for group, kinds in BUILT_IN.items()
    for kind, plural in (entry.split("=") for entry in kinds.split())
}
# Resources whose key in the store does not follow from their name, for historical reasons.
PREFIXES = {
    "nodes": "/registry/minions",
    "services": "/registry/services/specs",
    "endpoints": "/registry/services/endpoints",
    "ingresses": "/registry/ingress",
}
# The version that answers for a group whatever version an object was written in, where it is not v1.
SERVED = {"autoscaling": "v2"}


def read_snapshot(path: Path) -> Object:
    """Opens a snapshot document, compressed or not."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()
    document: Object = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return document


def target_arguments(snapshot: Object) -> list[str]:
    """What ``diagnose`` is to be called with for the snapshot's target."""
    target = snapshot["target"]
    kind = target["kind"].lower()
    for item in snapshot["objects"]:
        group = item["apiVersion"].rpartition("/")[0]
        if item["kind"] == target["kind"] and item["metadata"]["name"] == target["name"] and not _built_in(item):
            kind = f"{_plural(item['kind'])}.{group}"
    return ["--namespace", target["namespace"], f"{kind}/{target['name']}"]


#: Custom resources of the whole cluster that are read by name; a list of others is the same in either scope.
CLUSTER_WIDE = {
    ("scheduling.volcano.sh", "Queue"),
    ("scheduling.run.ai", "Queue"),
    ("kueue.x-k8s.io", "ClusterQueue"),
    ("kueue.x-k8s.io", "ResourceFlavor"),
}


class Player:
    """Loads one snapshot at a time and takes it away again. Scheduler and controller manager must not run."""

    def __init__(self, cluster: ControlPlane, kubelet: Kubelet) -> None:
        self._cluster = cluster
        self._kubelet = kubelet
        self._served: dict[tuple[str, str], set[str]] = {}
        # What stood in the store before, so that unloading brings back what the API server had made itself.
        self._before: list[tuple[Resource, dict[str, bytes | None]]] = []

    def load(self, snapshot: Object) -> list[tuple[str, Object]]:
        """Returns, when the API server gives every object, what was written and under which path it is to be found."""
        now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        taken_at = datetime.datetime.fromisoformat(snapshot["takenAt"])
        shift = now - taken_at
        objects = [_prepared(item, shift) for item in snapshot.get("objects", [])]
        pods = [item for item in objects if item["kind"] == "Pod"]
        _label(objects)
        objects += _stand_ins(objects, pods, snapshot.get("logs", []))
        by_resource: dict[Resource, dict[str, bytes | None]] = {}
        for item in objects:
            resource = self._resource(item)
            by_resource.setdefault(resource, {})[resource.key(item)] = json.dumps(item).encode()
        for resource, values in by_resource.items():
            self._before.append((resource, self._write(resource, values)))
        self._play_logs(snapshot.get("logs", []), pods, taken_at, shift)
        return [(self._resource(item).object_path(item), item) for item in objects]

    def unload(self) -> None:
        """Takes everything played away."""
        while self._before:
            self._write(*self._before.pop())
        self._kubelet.logs.clear()
        self._kubelet.refusals.clear()
        self._kubelet.requests.clear()

    def _write(self, resource: Resource, values: dict[str, bytes | None]) -> dict[str, bytes | None]:
        revision, before = self._cluster.etcd.write(values)
        # The API server answers lists from a cache that follows the store; this one waits until it has caught up.
        query = f"resourceVersion={revision}&resourceVersionMatch=NotOlderThan&fieldSelector=metadata.name%3Dnone"
        self._cluster.api.get(f"{resource.path}?{query}")
        return before

    def _resource(self, item: Object) -> Resource:
        group, _, version = item["apiVersion"].rpartition("/")
        if (group, item["kind"]) in KINDS:
            plural, namespaced = KINDS[group, item["kind"]]
            prefix = PREFIXES.get(plural, f"/registry/{plural}")
            return Resource(group, SERVED.get(group, "v1"), plural, namespaced, prefix)
        plural, namespaced = _plural(item["kind"]), (group, item["kind"]) not in CLUSTER_WIDE
        self._define(group, version, item["kind"], plural, namespaced=namespaced)
        return Resource(group, version, plural, namespaced, f"/registry/{group}/{plural}")

    def _define(self, group: str, version: str, kind: str, plural: str, *, namespaced: bool) -> None:
        """Makes the API server serve a custom resource; the definition says nothing about its contents and stays."""
        versions = self._served.setdefault((group, plural), set())
        if version in versions:
            return
        versions.add(version)
        schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
        served = [
            {"name": name, "served": True, "storage": index == 0, "schema": schema, "subresources": {"status": {}}}
            for index, name in enumerate(sorted(versions))
        ]
        # Groups below k8s.io are reserved; the annotation says that this definition is not an official one.
        annotations = {"api-approved.kubernetes.io": "unapproved, for tests"}
        definition = {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{plural}.{group}", "annotations": annotations},
            "spec": {
                "group": group,
                "scope": "Namespaced" if namespaced else "Cluster",
                "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"},
                "versions": served,
            },
        }
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{plural}.{group}"
        query = "?fieldManager=e2e&force=true"
        self._cluster.api.call("PATCH", path + query, definition, "application/apply-patch+yaml")
        # kubectl finds the resource by discovery, which follows later than the resource itself.
        for path in (f"/apis/{group}/{version}/{plural}", f"/apis/{group}/{version}"):
            self._cluster.wait_until_served(path)

    def _play_logs(
        self, logs: list[Object], pods: list[Object], taken_at: datetime.datetime, shift: datetime.timedelta
    ) -> None:
        recorded = {
            Instance(log["namespace"], log["pod"], log["container"], log.get("previous", False)): log for log in logs
        }
        for pod in pods:
            namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
            for status in _container_statuses(pod):
                current = Instance(namespace, name, status["name"], previous=False)
                previous = Instance(namespace, name, status["name"], previous=True)
                state = status.get("state", {})
                last = status.get("lastState", {}).get("terminated")
                waiting = state.get("waiting")
                here = {instance: recorded[instance] for instance in (current, previous) if instance in recorded}
                if waiting and last and here:
                    # Until the next start the last instance is both the current and the previous one to a kubelet.
                    here = {current: here.get(current) or here[previous], previous: here.get(previous) or here[current]}
                for instance, log in here.items():
                    ran = last if instance.previous or waiting else state.get("running") or state.get("terminated")
                    began = (ran or {}).get("startedAt") or pod["metadata"].get("creationTimestamp", Log.at)
                    text = printed.moved(log["text"], taken_at.year, shift)
                    self._kubelet.logs[instance] = Log(text, bool(log.get("timestamps")), began)
                where = f'container "{status["name"]}" in pod "{name}"'
                starting = f"is waiting to start: {waiting.get('reason', '')}" if waiting else "is not available"
                self._kubelet.refusals[current] = f"{where} {starting}"
                self._kubelet.refusals[previous] = f"previous terminated {where} not found"


def _prepared(item: Object, shift: datetime.timedelta) -> Object:
    moved: Object = _moved(item, shift)
    metadata = moved["metadata"]
    if _built_in(moved) is None or KINDS[_built_in(moved) or ("", "")][1]:
        metadata.setdefault("namespace", "default")
    # A skeleton may lack what every stored object has.
    metadata.setdefault("uid", str(uuid.uuid5(uuid.NAMESPACE_URL, f"{moved['kind']}/{metadata['name']}")))
    for field in ("resourceVersion", "managedFields"):
        metadata.pop(field, None)  # the store has its own versions, and nobody owns fields here
    if moved["kind"] == "Secret" and moved.get("data"):
        # What masked them left no base64; the API server would not list a Secret that it cannot decode.
        moved["data"] = dict.fromkeys(moved["data"], "")
    if moved["kind"] == "Node":
        _reachable(moved)
    if moved["kind"] in ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"):
        # A skeleton may lack what is required. In a cluster that is never null, as the API server would give it.
        template = moved.setdefault("spec", {}).setdefault("template", {})
        template.setdefault("spec", {}).setdefault("containers", [])
        labels = template.get("metadata", {}).get("labels") or {"stand-in": metadata["name"]}
        moved["spec"].setdefault("selector", {"matchLabels": labels})
    if moved["kind"] == "Service" and moved["spec"].get("clusterIP") != "None":
        # The API server repairs every address that it has not given out itself, and says so in an event.
        for field in ("clusterIP", "clusterIPs"):
            moved["spec"].pop(field, None)
    return moved


def _label(objects: list[Object]) -> None:
    """Gives skeletons without labels those that their owner finds them by; without them they would belong to nobody."""
    owners = {item["metadata"]["uid"]: item for item in objects}
    for item in objects:
        if item["kind"] in ("Pod", "ReplicaSet") and not item["metadata"].get("labels"):
            for reference in item["metadata"].get("ownerReferences", []):
                owner = owners.get(reference.get("uid"), {})
                labels = owner.get("spec", {}).get("selector", {}).get("matchLabels", {})
                item["metadata"].setdefault("labels", {}).update(labels)


def _moved(value: Any, shift: datetime.timedelta, field: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _moved(item, shift, key) for key, item in value.items()}
    if isinstance(value, list):
        return [_moved(item, shift, field) for item in value]
    if isinstance(value, datetime.datetime):  # YAML reads an unquoted time as one
        value = value.isoformat().replace("+00:00", "Z")
    if not isinstance(value, str) or not (match := TIME.fullmatch(value)):
        return value
    moment = datetime.datetime.fromisoformat(match[1] + match[3]).astimezone(datetime.UTC) + shift
    fraction = match[2] or (".000000" if field in MICRO_TIMES else "")
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"


def _reachable(node: Object) -> None:
    status = node.setdefault("status", {})
    status["addresses"] = [{"type": "InternalIP", "address": network.ADDRESS}]
    status["daemonEndpoints"] = {"kubeletEndpoint": {"Port": PORT}}


def _stand_ins(objects: list[Object], pods: list[Object], logs: list[Object]) -> Iterator[Object]:
    """What must exist around the recorded objects but was not recorded."""
    known = {(item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]) for item in objects}
    logged = {(log["namespace"], log["pod"]) for log in logs}
    words = json.dumps([item for item in objects if item["kind"] in ("Pod", "Event")])
    gone = set(re.findall(r'([a-z]+) \\"([^"\\]+)\\" not found', words))

    def missing(kind: str, name: str, namespace: str = "", api: str = "v1", **contents: Any) -> Iterator[Object]:
        if (kind, namespace, name) not in known:
            known.add((kind, namespace, name))
            identity = str(uuid.uuid5(uuid.NAMESPACE_URL, f"stand-in/{kind}/{namespace}/{name}"))
            metadata = {"name": name, "uid": identity, "creationTimestamp": "2026-01-01T00:00:00Z"}
            metadata |= {"namespace": namespace} if namespace else {}
            yield {"apiVersion": api, "kind": kind, "metadata": metadata} | contents

    for item in list(objects):
        if namespace := item["metadata"].get("namespace"):
            finalizers = {"finalizers": ["kubernetes"]}
            yield from missing("Namespace", namespace, spec=finalizers, status={"phase": "Active"})
    for pod in pods:
        metadata, spec = pod["metadata"], pod["spec"]
        if (metadata["namespace"], metadata["name"]) in logged:
            # Logs are asked for through the node, so a pod with a log needs one, whatever it is called.
            for node in missing("Node", spec.setdefault("nodeName", "stand-in")):
                _reachable(node)
                yield node
        for (kind, name), keys in _named_objects(spec).items():
            # In the words of kubelet and scheduler; otherwise the pod would not be where it is.
            if (kind.lower(), name) not in gone:
                for item in missing(kind, name, metadata["namespace"]):
                    yield item | ({"data": dict.fromkeys(sorted(keys), "")} if keys else {})
        if name := spec.get("priorityClassName"):
            yield from missing("PriorityClass", name, api="scheduling.k8s.io/v1", value=spec.get("priority", 0))
        if name := spec.get("runtimeClassName"):
            yield from missing("RuntimeClass", name, api="node.k8s.io/v1", handler=name)


def _named_objects(spec: Object) -> dict[tuple[str, str], set[str]]:
    """The objects that a pod cannot start without, by kind and name: the keys that it needs of each."""
    needed: dict[tuple[str, str], set[str]] = {}
    sources: list[tuple[Object, str]] = []
    for volume in spec.get("volumes", []):
        sources += [(source, "") for source in (volume, *volume.get("projected", {}).get("sources", []))]
        if claim := volume.get("persistentVolumeClaim"):
            needed["PersistentVolumeClaim", claim["claimName"]] = set()
    for container in (*spec.get("containers", []), *spec.get("initContainers", [])):
        sources += [(entry.get("valueFrom") or {}, "KeyRef") for entry in container.get("env", [])]
        sources += [(entry, "Ref") for entry in container.get("envFrom", [])]
    for source, suffix in sources:
        for field, kind in (("configMap", "ConfigMap"), ("secret", "Secret")):
            named = source.get(f"{field}{suffix}")
            if named and not named.get("optional"):
                keys = needed.setdefault((kind, named.get("name") or named["secretName"]), set())
                keys |= {item["key"] for item in named.get("items", [named] if "key" in named else [])}
    return needed


def _container_statuses(pod: Object) -> Iterator[Object]:
    for field in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
        yield from pod.get("status", {}).get(field, [])


def _built_in(item: Object) -> tuple[str, str] | None:
    known = (item["apiVersion"].rpartition("/")[0], item["kind"])
    return known if known in KINDS else None


def _plural(kind: str) -> str:
    word = kind.lower()
    if word == "podmetrics":  # the one kind here whose resource is not called after it
        return "pods"
    if word.endswith(("s", "x", "ch", "sh")):
        return f"{word}es"
    return f"{word[:-1]}ies" if word.endswith("y") and word[-2] not in "aeiou" else f"{word}s"


def lost(recorded: Any, given: Any, path: str = "") -> Iterator[str]:
    """What the API server does not give as it was recorded; what it adds by default is no loss."""
    if isinstance(recorded, dict) and isinstance(given, dict):
        if "/" in str(recorded.get("apiVersion")) and recorded["apiVersion"] != given.get("apiVersion"):
            return  # an older version of the API, given in the form of the served one
        for key, value in recorded.items():
            if key in given:
                yield from lost(value, given[key], f"{path}.{key}")
            elif value not in (None, "", [], {}, 0, False):
                yield f"{path}.{key} is gone, it was {value!r}"
    elif isinstance(recorded, list) and isinstance(given, list) and len(recorded) == len(given):
        for index, (one, other) in enumerate(zip(recorded, given, strict=True)):
            yield from lost(one, other, f"{path}[{index}]")
    elif recorded != given and (_amount(recorded) is None or _amount(recorded) != _amount(given)):
        yield f"{path} is {given!r}, it was {recorded!r}"


def _amount(quantity: Any) -> float | None:
    """The value of a quantity: the API server writes 1024Gi as 1Ti, 40000 as 40k and 1000m as 1."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(m|[kMGTP]|[KMGTP]i)?", str(quantity))
    scale = {"m": 0.001} | {letter: 1000.0**power for power, letter in enumerate("kMGTP", 1)}
    scale |= {f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTP", 1)}
    return float(match[1]) * scale.get(match[2], 1.0) if match else None
