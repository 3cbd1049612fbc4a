"""The objects of a snapshot by kind and name, and what may be concluded from an object's absence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, TypeVar

import msgspec

from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.units import parse_time
from kubectl_llmdoctor.facts.written import by_their_clocks
from kubectl_llmdoctor.platforms.labels import owners_named
from kubectl_llmdoctor.platforms.ray import clusters_made
from kubectl_llmdoctor.snapshot import UNFINISHED, Json, LogText, Missing, Origin, Snapshot
from kubectl_llmdoctor.tree import dig, rows, say, table

T = TypeVar("T", bound=k8s.Object)
M = TypeVar("M")

#: API groups of the kinds that are decoded: `Service` exists in core and in Knative, and only one is meant.
_GROUPS = {
    "Pod": "",
    "Node": "",
    "Event": "",
    "Service": "",
    "ConfigMap": "",
    "Secret": "",
    "ResourceQuota": "",
    "LimitRange": "",
    "Deployment": "apps",
    "ReplicaSet": "apps",
    "StatefulSet": "apps",
    "DaemonSet": "apps",
    "Job": "batch",
    "EndpointSlice": "discovery.k8s.io",
    "InferenceService": "serving.kserve.io",
    "ServingRuntime": "serving.kserve.io",
    "ClusterServingRuntime": "serving.kserve.io",
}

#: Objects that carry the labels of what they belong to without leading from pods to it.
_NEVER_OWNED = frozenset({"Service", "ConfigMap", "Secret", "Event", "EndpointSlice", "PersistentVolumeClaim", "Node"})

CLUSTER_SCOPED = frozenset(
    {"Node", "PersistentVolume", "StorageClass", "PriorityClass", "RuntimeClass", "Namespace", "DeviceClass"}
    | {"ResourceSlice", "ClusterServingRuntime", "CustomResourceDefinition", "VolumeAttachment"}
    | {"CSINode", "CSIDriver", "NodeClaim", "NodePool", "EC2NodeClass", "AKSNodeClass", "GCENodeClass"}
    | {"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration", "ClusterPolicy"}
    | {"ClusterQueue", "ResourceFlavor", "Queue"}  # of Kueue, of KAI and Volcano
)


def group_of(api_version: str) -> str:
    """`apps/v1` -> `apps`; the core group is empty."""
    return api_version.rpartition("/")[0]


class Item:
    """One object of the snapshot: raw, decoded on demand, with its origin."""

    __slots__ = (
        "_annotations",
        "_labels",
        "_typed",
        "api_version",
        "kind",
        "metadata",
        "name",
        "namespace",
        "origin",
        "raw",
        "uid",
    )

    def __init__(self, raw: Json, origin: Origin | None) -> None:
        meta = table(raw.get("metadata"))
        self.raw = raw
        self.metadata = meta
        self.origin = origin
        self.kind = _text(raw.get("kind"))
        self.api_version = _text(raw.get("apiVersion"))
        self.name = _text(meta.get("name")) or _text(meta.get("generateName"))
        self.namespace = "" if self.kind in CLUSTER_SCOPED else _text(meta.get("namespace")) or "default"
        self.uid = _text(meta.get("uid"))
        self._typed: k8s.Object | None = None
        self._labels: dict[str, str] | None = None
        self._annotations: dict[str, str] | None = None

    @property
    def labels(self) -> dict[str, str]:
        """Its labels, as strings; none where somebody wrote anything else in their place."""
        if self._labels is None:
            self._labels = {str(key): say(value) for key, value in table(self.metadata.get("labels")).items()}
        return self._labels

    @property
    def wanted_labels(self) -> dict[str, str]:
        """The labels of the pods that a Service or a pool selects."""
        told = table(dig(self.raw, "spec.selector.matchLabels")) or table(dig(self.raw, "spec.selector"))
        return {str(key): str(value) for key, value in told.items()}

    @property
    def annotations(self) -> dict[str, str]:
        """Its annotations, likewise."""
        if self._annotations is None:
            self._annotations = {str(key): say(value) for key, value in table(self.metadata.get("annotations")).items()}
        return self._annotations

    @property
    def conditions(self) -> list[k8s.Condition]:
        """The conditions of its status, of whatever kind it is."""
        return [
            k8s.Condition(
                type=_text(row.get("type")),
                status=_text(row.get("status")),
                reason=_text(row.get("reason")),
                message=_text(row.get("message")),
                last_transition_time=_text(row.get("lastTransitionTime")) or None,
            )
            for row in rows(self.raw, "status.conditions")
        ]

    def condition(self, kind: str, status: str = "") -> k8s.Condition | None:
        """Its condition of this type, and of this status where one is named."""
        return k8s.condition_of(self.conditions, kind, status)

    @property
    def plain_kind(self) -> str:
        """Its kind without the API group that tells it from another one of that name."""
        return self.kind.partition(".")[0]

    @property
    def ref(self) -> str:
        """`Pod/serving/llama-0`."""
        return "/".join(part for part in (self.kind, self.namespace, self.name) if part)

    def typed(self) -> k8s.Object:
        """Decoded by its kind. Raises msgspec.ValidationError."""
        if self._typed is None:
            self._typed = k8s.convert(self.raw, k8s.KINDS.get(self.kind, k8s.Object))
        return self._typed


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


class Cluster:
    """All objects of the snapshot, looked up by kind; malformed objects are left out and named in `malformed`."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.now: datetime | None = parse_time(snapshot.taken_at)
        self.malformed: list[Missing] = []
        origins = snapshot.origins or (None,) * len(snapshot.objects)
        self._items: dict[str, dict[tuple[str, str], Item]] = {}
        self._uids: dict[str, Item] = {}
        self._sorted: dict[str, dict[str | None, list[Item]]] = {}
        self._chains: dict[int, tuple[Item, ...]] = {}
        self._made: dict[str, Any] = {}
        for raw, origin in zip(snapshot.objects, origins, strict=True):
            item = Item(raw, origin)
            if not item.kind:
                self.malformed.append(Missing(source="object", ref=item.ref, reason="malformed: no kind"))
                continue
            item.kind = lookup_kind(item.kind, item.api_version)
            if item.kind in _GROUPS:
                try:
                    item.typed()
                except (msgspec.ValidationError, RecursionError) as error:
                    self.malformed.append(Missing(source="object", ref=item.ref, reason=f"malformed: {error}"))
                    continue
            self._items.setdefault(item.kind, {})[item.namespace, item.name] = item
            if item.uid:
                self._uids[item.uid] = item
        self._read = {(r.kind, r.namespace) for r in snapshot.read if r.fields in ("", UNFINISHED)}
        self._absent = {(r.kind, r.namespace, r.fields) for r in snapshot.read if r.fields}
        if (logs := by_their_clocks(snapshot.logs, self.now, self._begun)) is not snapshot.logs:
            self.snapshot = msgspec.structs.replace(snapshot, logs=logs)

    def _begun(self, log: LogText) -> datetime | None:
        """Since when a container can have written a log, as far as its pod says so."""
        item = self.item("Pod", log.namespace, log.pod) if log.pod else None
        pod = item.typed() if item is not None else None
        if not isinstance(pod, k8s.Pod):
            return None
        statuses = (*pod.status.container_statuses, *pod.status.init_container_statuses)
        status = next((one for one in statuses if one.name == log.container), None)
        running = status.state.running if status is not None and not log.previous else None
        return parse_time(running.started_at if running else pod.metadata.creation_timestamp)

    def items(self, kind: str, namespace: str | None = None) -> Iterator[Item]:
        """All objects of a kind in the order of namespace and name."""
        if kind not in self._sorted:
            spaces: dict[str | None, list[Item]] = {None: []}
            for _, item in sorted(self._items.get(kind, {}).items()):
                spaces[None].append(item)
                spaces.setdefault(item.namespace, []).append(item)
            self._sorted[kind] = spaces
        return iter(self._sorted[kind].get(namespace, ()))

    def once(self, name: str, make: Callable[[], M]) -> M:
        """What all targets of the snapshot share, made for the first that asks: an index, the nodes."""
        if name not in self._made:
            self._made[name] = make()
        found: M = self._made[name]
        return found

    def seconds_since(self, when: datetime | str | None) -> float | None:
        """How long before the snapshot something was; None where that time, or when the snapshot was taken, is not known."""
        moment = when if isinstance(when, datetime) else parse_time(when)
        return (self.now - moment).total_seconds() if self.now and moment else None

    def kinds(self) -> list[str]:
        """The kinds that occur, sorted."""
        return sorted(self._items)

    def item(self, kind: str, namespace: str, name: str) -> Item | None:
        """One object, raw and typed."""
        return self._items.get(kind, {}).get(("" if kind in CLUSTER_SCOPED else namespace or "default", name))

    def field(self, kind: str, namespace: str, name: str, path: str) -> Any:
        """A field of one object, as `dig` reads it; None where there is no such object or field."""
        item = self.item(kind, namespace, name)
        return dig(item.raw, path) if item else None

    def beside(self, item: Item | None, kind: str) -> list[Item]:
        """Manifests of a kind in the folder of another that go into its namespace: only one of the two states one.

        Who applies the folder names the namespace. Where those that state one name several, none is meant surely.
        """
        if item is None or item.origin is None:
            return []
        folders = self.once(f"folders of {kind}", lambda: self._folders(kind))
        stated = bool(item.metadata.get("namespace"))
        found = folders.get((item.origin.file.rpartition("/")[0], not stated), [])
        found = [other for other in found if other.namespace != item.namespace]
        return found if len({other.namespace for other in found}) == 1 else []

    def _folders(self, kind: str) -> dict[tuple[str, bool], list[Item]]:
        """The manifests of a kind by folder, and by whether they state a namespace."""
        folders: dict[tuple[str, bool], list[Item]] = {}
        for item in self.items(kind):
            if item.origin is not None:
                key = (item.origin.file.rpartition("/")[0], bool(item.metadata.get("namespace")))
                folders.setdefault(key, []).append(item)
        return folders

    def find(self, kind: str, namespace: str, name: str) -> Json | None:
        """One raw object; without a name all of the kind, as a list."""
        if not name:
            where = None if kind in CLUSTER_SCOPED else namespace
            return {"items": [item.raw for item in self.items(kind, where)]}
        item = self.item(kind, namespace, name)
        return item.raw if item else None

    def all(self, kind: type[T], name: str, namespace: str | None = None) -> Sequence[T]:
        """All objects of a kind that are of this type."""

        def typed() -> tuple[T, ...]:
            every = (item.typed() for item in self.items(name, namespace))
            return tuple(one for one in every if isinstance(one, kind))

        return self.once(f"all {kind.__name__} {name} {namespace}", typed)

    def complete(self, kind: str, namespace: str = "") -> bool:
        """Whether the list of this kind is complete: what is absent from it does not exist."""
        return (kind, "") in self._read or (bool(namespace) and (kind, namespace) in self._read)

    def complete_on(self, node: str) -> bool:
        """Whether all pods of a node are known."""
        return self.complete("Pod") or ("Pod", "", f"spec.nodeName={node}") in self._absent

    def exists(self, kind: str, namespace: str, name: str) -> bool | None:
        """Whether an object exists; None when it is not known."""
        if self.item(kind, namespace, name):
            return True
        asked = (kind, namespace, f"metadata.name={name}") in self._absent
        return False if asked or self.complete(kind, namespace) else None

    def owner(self, item: Item) -> Item | None:
        """The controlling owner, when it is in the snapshot (by uid, else by kind and name)."""
        refs = rows(item.metadata, "ownerReferences")
        for ref in sorted(refs, key=lambda ref: ref.get("controller") is not True):
            found = self._uids.get(_text(ref.get("uid")))
            kind = lookup_kind(_text(ref.get("kind")), _text(ref.get("apiVersion")))
            found = found or self.item(kind, item.namespace, _text(ref.get("name")))
            found = found or self._deployment_of(kind, item, _text(ref.get("name")))
            found = found or self._maker_of(kind, item, _text(ref.get("name")))
            if found is not None and found is not item:
                return found
        return self._labelled_owner(item)

    def _deployment_of(self, kind: str, item: Item, name: str) -> Item | None:
        """The Deployment whose ReplicaSet owns a pod and is not here: its controller names it `<deployment>-<pod-template-hash>`."""
        stated = item.labels.get("pod-template-hash")
        deployment, _, template = name.rpartition("-")
        if kind != "ReplicaSet" or not deployment or stated not in (None, template):
            return None
        return self.item("Deployment", item.namespace, deployment)

    def _maker_of(self, kind: str, item: Item, name: str) -> Item | None:
        """The RayService or RayJob whose status names a cluster that is not here as its own."""
        if kind != "RayCluster":
            return None
        made = (maker for kind in ("RayService", "RayJob") for maker in self.items(kind, item.namespace))
        return next((maker for maker in made if name in clusters_made(maker.raw)), None)

    def _labelled_owner(self, item: Item) -> Item | None:
        """The object that its labels name: operators label what they make, and a link between may not have been read."""
        if item.kind in _NEVER_OWNED:
            return None
        for row, name in owners_named(item.labels):
            found = self.item(lookup_kind(row.kind, f"{row.group}/"), item.namespace, name)
            if found is not None and found is not item and group_of(found.api_version) == row.group:
                return found
        return None

    def chain(self, item: Item) -> list[Item]:
        """The owners of an object up to the top, nearest first; stops at a loop."""
        known = self._chains.get(id(item))
        if known is None:
            known = self._chains[id(item)] = tuple(self._owners(item))
        return list(known)

    def _owners(self, item: Item) -> list[Item]:
        chain: list[Item] = []
        seen = {id(item)}
        step = self.owner(item)
        while step is not None and id(step) not in seen:
            seen.add(id(step))
            chain.append(step)
            step = self.owner(step)
        return chain

    def unread(self, source: str) -> bool:
        """Whether the list of a whole resource (`nodes`, `pods`) was asked for and not given."""
        return any(entry.source == source and not entry.ref for entry in self.snapshot.missing)

    @cached_property
    def nodes_known(self) -> bool:
        """Whether every node of the cluster is in the snapshot."""
        return self.complete("Node")


def lookup_kind(kind: str, api_version: str) -> str:
    """The kind, or `Kind.group` for a foreign kind that shares the name of one that is decoded here."""
    group = group_of(api_version)
    if kind not in _GROUPS or not api_version or group == _GROUPS[kind]:
        return kind
    return kind if kind == "Event" and group == "events.k8s.io" else f"{kind}.{group}"
