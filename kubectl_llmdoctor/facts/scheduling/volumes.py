"""The filters over volumes: VolumeRestrictions, NodeVolumeLimits, VolumeBinding, VolumeZone.

A claim that is bound ties the pod to where its volume is. One that is not must have been bound already (Immediate), or
is bound together with the choice of the node (WaitForFirstConsumer): to a volume that is there, or to a new one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from msgspec.structs import replace

from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.nodes import Mismatch, Node, ref_of, selected, unmet
from kubectl_llmdoctor.facts.scheduling.ask import Ask, Filter
from kubectl_llmdoctor.facts.scheduling.objects import (
    CSIDriver,
    CSINode,
    CSIStorageCapacity,
    Objects,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
    VolumeAffinity,
    VolumeAttachment,
    VolumeSpec,
)
from kubectl_llmdoctor.facts.scheduling.verdict import Gap, Reason
from kubectl_llmdoctor.facts.units import units

_BOUND = "pv.kubernetes.io/bind-completed"
_CLASS = "volume.beta.kubernetes.io/storage-class"
_CHOSEN_NODE = "volume.kubernetes.io/selected-node"

#: Labels of a volume that VolumeZone compares, and the newer name of the old ones.
_ZONES = {
    "failure-domain.beta.kubernetes.io/zone": "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region": "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone": "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region": "topology.kubernetes.io/region",
}

_ZONE_LABELS = ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone")


class InTree(NamedTuple):
    """A kind of volume from before CSI, which the driver of its cloud serves by now (csi-translation-lib)."""

    field: str
    #: the provisioner's name, and in the annotation of a CSINode
    plugin: str
    driver: str
    #: the driver's own label for zones
    zone: str
    #: which value of the volume tells it from others
    handle: str


_IN_TREE = (
    InTree(
        "aws_elastic_block_store",
        "kubernetes.io/aws-ebs",
        "ebs.csi.aws.com",
        "topology.ebs.csi.aws.com/zone",
        "volumeID",
    ),
    InTree("gce_persistent_disk", "kubernetes.io/gce-pd", "pd.csi.storage.gke.io", "topology.gke.io/zone", "pdName"),
    InTree("azure_disk", "kubernetes.io/azure-disk", "disk.csi.azure.com", "", "diskURI"),
    InTree(
        "cinder",
        "kubernetes.io/cinder",
        "cinder.csi.openstack.org",
        "topology.cinder.csi.openstack.org/zone",
        "volumeID",
    ),
)
_MIGRATED = "storage.alpha.kubernetes.io/migrated-plugins"


def _in_tree(source: k8s.Volume | VolumeSpec) -> tuple[InTree, str] | None:
    """Of which such kind a volume is, and its handle."""
    for kind in _IN_TREE:
        found = getattr(source, kind.field)
        if found:
            return kind, str(found.get(kind.handle) or "").rpartition("/")[2]
    return None


class Used(NamedTuple):
    """A claim that a volume of a pod uses."""

    name: str
    #: one that is made for the pod, with the pod
    ephemeral: bool
    #: None when it is not known
    found: PersistentVolumeClaim | None
    #: it is known not to exist
    lacks: bool


def used_by(spec: k8s.PodSpec, pod: k8s.Metadata, objects: Objects) -> list[Used]:
    """The claims of a pod's volumes in their order."""
    found, namespace = [], pod.namespace or "default"
    for volume in spec.volumes:
        claim = volume.persistent_volume_claim
        if claim or volume.ephemeral is not None:
            name = claim.claim_name if claim else f"{pod.name}-{volume.name}"
            one = objects.get(PersistentVolumeClaim, name, namespace)
            lacks = one is None and objects.lacks(PersistentVolumeClaim, name, namespace)
            found.append(Used(name, claim is None, one, lacks))
    return found


def _claims(ask: Ask) -> list[Used]:
    return used_by(ask.spec, ask.pod.obj.metadata, ask.objects)


def class_of(claim: PersistentVolumeClaim) -> str:
    """The storage class that a claim names."""
    return str(claim.metadata.annotations.get(_CLASS) or claim.spec.storage_class_name)


def is_bound(claim: PersistentVolumeClaim) -> bool:
    """Whether a claim has its volume for good."""
    done = _BOUND in claim.metadata.annotations or claim.status.phase == "Bound"
    return bool(claim.spec.volume_name) and done


def _unread(plugin: str, claims: list[Used]) -> Filter | None:
    """The filter of a plugin that cannot know: a claim of the pod was not read."""
    names = [c.name for c in claims if c.found is None and not c.lacks]
    return _open(plugin, f"claim {', '.join(names)} was not read") if names else None


def _open(plugin: str, why: str) -> Filter:
    def judge(_: Node) -> Iterator[Reason | Gap]:
        yield Gap(plugin=plugin, why=why)

    return judge


def _refusal(plugin: str, text: str, detail: str, claim: str) -> Reason:
    return Reason(plugin=plugin, kind="volume", text=text, detail=detail, claim=claim, everywhere=True)


# --- VolumeRestrictions -----------------------------------------------------------------------------------------------


def restrictions(ask: Ask) -> Filter | Reason | None:
    """A disk that only one pod may write, and a claim that only one pod may use."""
    plugin = "VolumeRestrictions"
    claims = [c for c in _claims(ask) if not c.ephemeral]
    for claim in claims:
        if claim.lacks:
            text = f'persistentvolumeclaim "{claim.name}" not found'
            return _refusal(plugin, text, f"claim {claim.name} does not exist in {ask.pod.namespace}", claim.name)
    alone = [c.name for c in claims if c.found and "ReadWriteOncePod" in c.found.spec.access_modes]
    users = {
        name: [
            ref_of(pod)
            for pod in (ask.usage.by_namespace.get(ask.pod.namespace, ()) if alone else ())
            if any(v.persistent_volume_claim and v.persistent_volume_claim.claim_name == name for v in pod.spec.volumes)
        ]
        for name in alone
    }
    disks = [volume for volume in ask.spec.volumes if _disk(volume)]
    held = {name: pods for name, pods in users.items() if pods}
    unread = _unread(plugin, claims)
    if not disks and not held:
        return unread

    def judge(node: Node) -> Iterator[Reason | Gap]:
        rivals = [ref_of(pod) for pod in ask.usage.pods(node.name) if _clash(disks, pod)] if disks else []
        if rivals:
            yield Reason(
                plugin=plugin,
                kind="volume",
                text="node(s) had no available disk",
                detail=f"its disk is in use here by {', '.join(rivals)}",
                pods=tuple(rivals),
            )
        for name, pods in held.items():
            yield Reason(
                plugin=plugin,
                kind="volume",
                text="node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use "
                "by another pod",
                detail=f"claim {name} is ReadWriteOncePod, and {', '.join(pods)} uses it",
                pods=tuple(pods),
                claim=name,
            )
        if unread:
            yield from unread(node)

    return judge


def _disk(volume: k8s.Volume) -> bool:
    return any((volume.gce_persistent_disk, volume.aws_elastic_block_store, volume.iscsi, volume.rbd))


def _clash(disks: list[k8s.Volume], pod: k8s.Pod) -> bool:
    return any(_same_disk(a, b) for a in disks for b in pod.spec.volumes if _disk(b))


def _same_disk(one: k8s.Volume, other: k8s.Volume) -> bool:
    """Whether two volumes are one disk that cannot be mounted twice."""

    def shared(a: dict[str, Any] | None, b: dict[str, Any] | None, *keys: str) -> bool:
        if a is None or b is None or any(a.get(k) != b.get(k) for k in keys):
            return False
        return not (a.get("readOnly") and b.get("readOnly"))

    a, b = one.aws_elastic_block_store, other.aws_elastic_block_store
    if a is not None and b is not None and a.get("volumeID") == b.get("volumeID"):
        return True
    if shared(one.gce_persistent_disk, other.gce_persistent_disk, "pdName") or shared(one.iscsi, other.iscsi, "iqn"):
        return True
    if not shared(_rbd(one), _rbd(other), "pool", "image"):
        return False
    monitors = [{str(m) for m in v.rbd.get("monitors") or ()} for v in (one, other) if v.rbd]
    return bool(set.intersection(*monitors))


def _rbd(volume: k8s.Volume) -> dict[str, Any] | None:
    return {"pool": "rbd", **volume.rbd} if volume.rbd else None


# --- NodeVolumeLimits -------------------------------------------------------------------------------------------------


def limits(ask: Ask) -> Filter | Reason | None:
    """How many volumes of a CSI driver a node can have."""
    plugin = "NodeVolumeLimits"
    claims = [c for c in _claims(ask) if not c.lacks]
    unread = _unread(plugin, claims)
    new = _handles(ask.objects, ask.spec, ask.pod.obj.metadata)
    if unread or not new:
        return unread
    objects = ask.objects
    lists = (PersistentVolumeClaim, PersistentVolume, VolumeAttachment)
    missing = [kind.__name__ for kind in lists if not objects.complete(kind)]
    attached: dict[str, dict[str, str]] = {}
    for one in objects.all(VolumeAttachment):
        volume = objects.get(PersistentVolume, one.spec.source.persistent_volume_name)
        if one.spec.attacher and volume and volume.spec.csi:
            handle = f"{one.spec.attacher}/{volume.spec.csi.volume_handle}"
            attached.setdefault(one.spec.node_name, {})[handle] = one.spec.attacher

    def judge(node: Node) -> Iterator[Reason | Gap]:
        name = node.like or node.name
        known = objects.get(CSINode, name)
        if known is None:
            if not objects.lacks(CSINode, name):
                yield Gap(plugin=plugin, why=f"CSINode {name} was not read")
            return
        most = {d.name: d.allocatable.count for d in known.spec.drivers if d.allocatable.count is not None}
        if not any(driver in most for driver in new.values()):
            return
        used: dict[str, str] = {}
        for pod in ask.usage.pods(node.name):
            used |= _handles(objects, pod.spec, pod.metadata)
        # A volume that is attached still, and that no pod uses, counts twice for a pod that wants it.
        have = ({} if node.like else attached.get(node.name, {})) | used
        full = []
        for driver, limit in most.items():
            asked = sum(d == driver and handle not in used for handle, d in new.items())
            there = sum(d == driver for d in have.values())
            if asked and there + asked > limit:
                full.append(f"{driver}: {asked} more volume{'s' * (asked > 1)} asked, {there} of {limit} are attached")
        if full:
            text = "node(s) exceed max volume count"
            yield Reason(plugin=plugin, kind="volume", text=text, detail="; ".join(full))
        elif missing:
            yield Gap(plugin=plugin, why=f"not all of {', '.join(missing)} were read")

    return judge


def _handles(objects: Objects, spec: k8s.PodSpec, meta: k8s.Metadata) -> dict[str, str]:
    """The CSI volumes of a pod, each with its driver."""
    found: dict[str, str] = {}
    for used in used_by(spec, meta, objects) if spec.volumes else ():
        handle = _handle(objects, used.found) if used.found else None
        if handle:
            found[handle[0]] = handle[1]
    for volume in spec.volumes:
        old = _in_tree(volume)
        if old:
            found[f"{old[0].driver}/{old[1]}"] = old[0].driver
    return found


def _handle(objects: Objects, claim: PersistentVolumeClaim) -> tuple[str, str] | None:
    """A CSI volume by its unique name, and its driver; a volume that is still to be made by its claim."""
    volume = objects.get(PersistentVolume, claim.spec.volume_name) if claim.spec.volume_name else None
    if volume is not None:
        csi, old = volume.spec.csi, _in_tree(volume.spec)
        if old:
            return f"{old[0].driver}/{old[1]}", old[0].driver
        return (f"{csi.driver}/{csi.volume_handle}", csi.driver) if csi and csi.volume_handle else None
    kind = objects.get(StorageClass, class_of(claim))
    if kind is None or not kind.provisioner:
        return None
    driver = next((old.driver for old in _IN_TREE if old.plugin == kind.provisioner), kind.provisioner)
    return f"{driver}/new-{claim.metadata.namespace or 'default'}/{claim.metadata.name}", driver


# --- VolumeBinding ----------------------------------------------------------------------------------------------------


def binding(ask: Ask) -> Filter | Reason | None:
    """Bound volumes must be usable on the node, unbound ones must be there for it or be made for it."""
    plugin = "VolumeBinding"
    claims = _claims(ask)
    if not claims:
        return None
    for claim in claims:
        fault = _fault(ask, claim)
        if fault:
            return _refusal(plugin, *fault, claim.name)
    unread = _unread(plugin, claims)
    if unread:
        return unread
    bound, waiting, undecided = [], [], []
    for claim in claims:
        one = claim.found
        if one is None:
            continue
        if is_bound(one):
            bound.append(claim)
            continue
        delayed = None if one.spec.volume_name else _delayed(ask.objects, one)
        if delayed is None and not one.spec.volume_name:
            undecided.append(one)
        elif delayed:
            waiting.append(one)
        else:
            text = "pod has unbound immediate PersistentVolumeClaims"
            return _refusal(plugin, text, _why_unbound(ask.objects, one), one.metadata.name)
    if undecided:
        return _open(plugin, f"storage class {class_of(undecided[0])} was not read")

    choices = {c.metadata.name: _choices(ask.objects, c) for c in waiting}

    def judge(node: Node) -> Iterator[Reason | Gap]:
        yield from _bound(ask, bound, node)
        if waiting:
            yield from _waiting(ask, waiting, choices, node)

    return judge


def _fault(ask: Ask, claim: Used) -> tuple[str, str] | None:
    """What is wrong with a claim before any node is looked at: the scheduler's words, and plainer ones."""
    name, found, pod = claim.name, claim.found, ask.pod
    if claim.lacks and claim.ephemeral:
        text = f'waiting for ephemeral volume controller to create the persistentvolumeclaim "{name}"'
        return text, f"claim {name} of an ephemeral volume was not made yet"
    if found is None:  # VolumeRestrictions has refused the pod for one that does not exist
        return None
    if found.status.phase == "Lost":
        volume = found.spec.volume_name
        text = f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{volume}"'
        return text, f"claim {name} has lost its volume {volume}"
    if found.metadata.deletion_timestamp:
        return f'persistentvolumeclaim "{name}" is being deleted', f"claim {name} is being deleted"
    uid = pod.obj.metadata.uid
    if claim.ephemeral and uid and not any(o.uid == uid and o.controller for o in found.metadata.owner_references):
        ref = f"{pod.namespace}/{name}"
        text = f"PVC {ref} was not created for pod {pod.namespace}/{pod.name} (pod is not owner)"
        return text, f"claim {name}, which its ephemeral volume needs, belongs to something else"
    return None


def _delayed(objects: Objects, claim: PersistentVolumeClaim) -> bool | None:
    """Whether a claim is bound only together with the choice of a node; None when its class is not known."""
    name = class_of(claim)
    if not name:
        return False
    found = objects.get(StorageClass, name)
    if found is None:
        return False if objects.lacks(StorageClass, name) else None
    return found.volume_binding_mode == "WaitForFirstConsumer"


def _why_unbound(objects: Objects, claim: PersistentVolumeClaim) -> str:
    name, kind = claim.metadata.name, class_of(claim)
    if claim.spec.volume_name:
        return f"claim {name} is not bound yet to volume {claim.spec.volume_name}"
    if not kind:
        return f"claim {name} is not bound, and names no storage class"
    if objects.lacks(StorageClass, kind):
        return f"claim {name} is not bound: there is no storage class {kind}"
    return f"claim {name} is not bound; storage class {kind} binds at once, before a node is chosen"


def _bound(ask: Ask, claims: list[Used], node: Node) -> Iterator[Reason | Gap]:
    plugin = "VolumeBinding"
    for claim in claims:
        name = claim.found.spec.volume_name if claim.found else ""
        volume = ask.objects.get(PersistentVolume, name)
        if volume is None and ask.objects.lacks(PersistentVolume, name):
            if not claim.ephemeral:  # VolumeZone has refused the pod for it
                return
            yield Reason(
                plugin=plugin,
                kind="volume",
                text="node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",
                detail=f"volume {name} of claim {claim.name} does not exist",
                claim=claim.name,
            )
            return
        if volume is None:
            yield Gap(plugin=plugin, why=f"volume {name} was not read")
            continue
        missed = _out_of_reach(volume, node)
        old = _in_tree(volume.spec)
        if old and old[0].zone:
            home = ask.objects.get(CSINode, node.like or node.name)
            if home is None and not ask.objects.lacks(CSINode, node.like or node.name):
                yield Gap(plugin=plugin, why=f"CSINode {node.name} was not read")
                continue
            if home and old[0].plugin in str(home.metadata.annotations.get(_MIGRATED, "")).split(","):
                missed = _out_of_reach(_translated(volume, old[0].zone), node)
        if missed:
            yield Reason(
                plugin=plugin,
                kind="volume",
                text="node(s) didn't match PersistentVolume's node affinity",
                detail=f"volume {name} of claim {claim.name} needs {_demands(missed)}",
                claim=claim.name,
                mismatches=missed,
            )
            return


def _out_of_reach(volume: PersistentVolume, node: Node) -> tuple[Mismatch, ...]:
    affinity = volume.spec.node_affinity
    return unmet(affinity.required, node.name, node.labels) if affinity and affinity.required else ()


def _translated(volume: PersistentVolume, key: str) -> PersistentVolume:
    """A volume of a former kind as its driver has it: its zone is one by the driver's label."""
    affinity = volume.spec.node_affinity
    terms = affinity.required.node_selector_terms if affinity and affinity.required else ()
    zones = {r.key for term in terms for r in term.match_expressions} & _ZONES.keys()
    old = next((zone for zone in _ZONE_LABELS if zone in zones), "")
    if old:
        terms = tuple(
            replace(
                t, match_expressions=tuple(replace(r, key=key if r.key == old else r.key) for r in t.match_expressions)
            )
            for t in terms
        )
    else:
        label = next((volume.metadata.labels[z] for z in _ZONE_LABELS if z in volume.metadata.labels), None)
        if label is None:
            return volume
        values = tuple(sorted({part.strip() for part in str(label).split("__")} - {""}))
        row = k8s.Requirement(key=key, operator="In", values=values)
        terms = tuple(
            replace(t, match_expressions=(*t.match_expressions, row)) for t in terms or (k8s.NodeSelectorTerm(),)
        )
    required = k8s.NodeSelector(node_selector_terms=terms)
    return replace(volume, spec=replace(volume.spec, node_affinity=VolumeAffinity(required=required)))


def _demands(missed: tuple[Mismatch, ...]) -> str:
    return "; ".join(f"{m.demand} (here {'not set' if m.have is None else m.have})" for m in missed)


def _waiting(
    ask: Ask, claims: list[PersistentVolumeClaim], choices: dict[str, list[PersistentVolume]], node: Node
) -> Iterator[Reason | Gap]:
    """Claims that are bound with the choice of the node: to the smallest volume that fits, else to a new one."""
    make: list[PersistentVolumeClaim] = []
    match: list[PersistentVolumeClaim] = []
    for claim in claims:
        chosen = claim.metadata.annotations.get(_CHOSEN_NODE)
        if chosen and chosen != node.name:
            yield _unbindable(claim, f"claim {claim.metadata.name} is being made for node {chosen}")
            return
        (make if chosen else match).append(claim)
    taken: set[str] = set()
    for claim in sorted(match, key=_asked):
        found = (v.metadata.name for v in choices[claim.metadata.name] if not _out_of_reach(v, node))
        volume = next((name for name in found if name not in taken), "")
        if volume:
            taken.add(volume)
        else:
            make.append(claim)
    for claim in make:
        said = _provision(ask.objects, claim, node)
        if said:
            yield said
            return


def _unbindable(claim: PersistentVolumeClaim, detail: str) -> Reason:
    return Reason(
        plugin="VolumeBinding",
        kind="volume",
        text="node(s) didn't find available persistent volumes to bind",
        detail=detail,
        claim=claim.metadata.name,
    )


def _asked(claim: PersistentVolumeClaim) -> int:
    return units(claim.spec.resources.requests.get("storage")) or 0


def _choices(objects: Objects, claim: PersistentVolumeClaim) -> list[PersistentVolume]:
    """The volumes that a claim could get, the smallest first (`FindMatchingVolume`); one made for it is the only one."""
    spec, found = claim.spec, []
    for volume in objects.all(PersistentVolume):
        has, owner = volume.spec, volume.spec.claim_ref
        if owner is not None and not _is_for(owner, claim):
            continue
        size = units(has.capacity.get("storage")) or 0
        if size < _asked(claim) or has.volume_mode != spec.volume_mode or volume.metadata.deletion_timestamp:
            continue
        if has.volume_attributes_class_name != spec.volume_attributes_class_name:
            continue
        if owner is not None:
            return [volume]
        labels = {k: str(v) for k, v in volume.metadata.labels.items()}
        if volume.status.phase != "Available" or (spec.selector is not None and not selected(spec.selector, labels)):
            continue
        if _class(volume) == class_of(claim) and set(spec.access_modes) <= set(has.access_modes):
            found.append((size, volume))
    return [volume for _, volume in sorted(found, key=lambda pair: pair[0])]


def _class(volume: PersistentVolume) -> str:
    return str(volume.metadata.annotations.get(_CLASS) or volume.spec.storage_class_name)


def _is_for(ref: k8s.ObjectRef, claim: PersistentVolumeClaim) -> bool:
    meta = claim.metadata
    same = ref.name == meta.name and (ref.namespace or "default") == (meta.namespace or "default")
    return same and (not ref.uid or ref.uid == meta.uid)


def _provision(objects: Objects, claim: PersistentVolumeClaim, node: Node) -> Reason | Gap | None:
    """Why no volume can be made for a claim where this node can use it."""
    name, kind = claim.metadata.name, class_of(claim)
    found = objects.get(StorageClass, kind)
    if found is None:  # a claim that waits for its consumer has a class that was read
        return None
    if found.provisioner in ("", "kubernetes.io/no-provisioner"):
        if not objects.complete(PersistentVolume):
            return Gap(plugin="VolumeBinding", why="not all volumes were read")
        return _unbindable(claim, f"no volume of class {kind} that this node can use fits claim {name}")
    if found.allowed_topologies and not any(
        term.match_label_expressions
        and all(node.labels.get(e.key) in e.values for e in term.match_label_expressions if e.key)
        for term in found.allowed_topologies
    ):
        said = " or ".join(
            "; ".join(f"{e.key} in [{', '.join(e.values)}]" for e in term.match_label_expressions)
            for term in found.allowed_topologies
        )
        return _unbindable(claim, f"storage class {kind} makes volumes only where {said}")
    return _room(objects, claim, found, node)


def _room(objects: Objects, claim: PersistentVolumeClaim, kind: StorageClass, node: Node) -> Reason | Gap | None:
    """Whether a driver that publishes its room has enough where the node is."""
    size = units(claim.spec.resources.requests.get("storage"))
    driver = objects.get(CSIDriver, kind.provisioner)
    if size is None or (driver is not None and not driver.spec.storage_capacity):
        return None
    if driver is None:
        known = objects.lacks(CSIDriver, kind.provisioner)
        return None if known else Gap(plugin="VolumeBinding", why=f"CSIDriver {kind.provisioner} was not read")
    for room in objects.all(CSIStorageCapacity):
        has = units(room.capacity if room.maximum_volume_size is None else room.maximum_volume_size)
        if room.storage_class_name != kind.metadata.name or has is None or has < size:
            continue
        if selected(room.node_topology, node.labels):
            return None
    if not objects.complete(CSIStorageCapacity):
        return Gap(plugin="VolumeBinding", why="not all of CSIStorageCapacity were read")
    asked = claim.spec.resources.requests.get("storage")
    return Reason(
        plugin="VolumeBinding",
        kind="volume",
        text="node(s) did not have enough free storage",
        detail=f"{kind.provisioner} has no {asked} free for claim {claim.metadata.name} where this node is",
        claim=claim.metadata.name,
    )


# --- VolumeZone -------------------------------------------------------------------------------------------------------


def zone(ask: Ask) -> Filter | Reason | None:
    """A bound volume's zone and region must be the node's, where the node has any."""
    plugin = "VolumeZone"
    places: list[tuple[str, str, str, set[str]]] = []
    unread = []
    for claim in _claims(ask):
        if claim.ephemeral or claim.found is None or not is_bound(claim.found):
            continue  # what is not there, not read or not bound has been dealt with before
        name = claim.found.spec.volume_name
        volume = ask.objects.get(PersistentVolume, name)
        if volume is None:
            if ask.objects.lacks(PersistentVolume, name):
                text = f'persistentvolume "{name}" not found'
                return _refusal(plugin, text, f"volume {name} of claim {claim.name} does not exist", claim.name)
            unread.append(name)
            continue
        for key in _ZONES:
            value = volume.metadata.labels.get(key)
            if value is not None:
                places.append((claim.name, name, key, {part.strip() for part in str(value).split("__")}))
    if unread:
        return _open(plugin, f"volume {', '.join(unread)} was not read")
    if not places:
        return None

    def judge(node: Node) -> Iterator[Reason | Gap]:
        if not any(key in node.labels for key in _ZONES):
            return
        for claim, name, key, values in places:
            have = node.labels.get(key, node.labels.get(_ZONES[key]))
            if have not in values:
                yield Reason(
                    plugin=plugin,
                    kind="volume",
                    text="node(s) had no available volume zone",
                    detail=f"volume {name} of claim {claim} is in {', '.join(sorted(values))} (here {have or 'not set'})",
                    claim=claim,
                )
                return

    return judge
