"""VolumeBinding and VolumeZone: where the volumes of a pod can be used.

A claim that is bound ties the pod to where its volume is. One that is not must have been bound already (Immediate), or
is bound together with the choice of the node (WaitForFirstConsumer): to a volume that is there, or to a new one.
"""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.constraints import NO_PROVISIONER, Mismatch, selected, unmet
from kubectl_llmdoctor.facts.nodes import Node
from kubectl_llmdoctor.facts.scheduling.ask import Ask, Filter, left_open
from kubectl_llmdoctor.facts.scheduling.migration import MIGRATED, ZONES, in_tree, translated
from kubectl_llmdoctor.facts.scheduling.objects import (
    CSIDriver,
    CSINode,
    CSIStorageCapacity,
    Objects,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
)
from kubectl_llmdoctor.facts.scheduling.using import Used, claims_of, class_of, refusal, unread_of
from kubectl_llmdoctor.facts.scheduling.verdict import Gap, Reason
from kubectl_llmdoctor.facts.units import units

_BOUND = "pv.kubernetes.io/bind-completed"
_CHOSEN_NODE = "volume.kubernetes.io/selected-node"


def is_bound(claim: PersistentVolumeClaim) -> bool:
    """Whether a claim has its volume for good."""
    done = _BOUND in claim.metadata.annotations or claim.status.phase == "Bound"
    return bool(claim.spec.volume_name) and done


# --- VolumeBinding ----------------------------------------------------------------------------------------------------


def binding(ask: Ask) -> Filter | Reason | None:
    """Bound volumes must be usable on the node, unbound ones must be there for it or be made for it."""
    plugin = "VolumeBinding"
    claims = claims_of(ask)
    if not claims:
        return None
    for claim in claims:
        fault = _fault(ask, claim)
        if fault:
            return refusal(plugin, *fault)
    unread = unread_of(plugin, claims)
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
            return refusal(plugin, text, _why_unbound(ask.objects, one))
    if undecided:
        return left_open(plugin, f"storage class {class_of(undecided[0])} was not read")

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
            )
            return
        if volume is None:
            yield Gap(plugin=plugin, why=f"volume {name} was not read")
            continue
        missed = _out_of_reach(volume, node)
        old = in_tree(volume.spec)
        if old and old[0].zone:
            home = ask.objects.get(CSINode, node.like or node.name)
            if home is None and not ask.objects.lacks(CSINode, node.like or node.name):
                yield Gap(plugin=plugin, why=f"CSINode {node.name} was not read")
                continue
            if home and old[0].plugin in str(home.metadata.annotations.get(MIGRATED, "")).split(","):
                missed = _out_of_reach(translated(volume, old[0].zone), node)
        if missed:
            yield Reason(
                plugin=plugin,
                kind="volume",
                text="node(s) didn't match PersistentVolume's node affinity",
                detail=f"volume {name} of claim {claim.name} needs {_demands(missed)}",
                mismatches=missed,
            )
            return


def _out_of_reach(volume: PersistentVolume, node: Node) -> tuple[Mismatch, ...]:
    affinity = volume.spec.node_affinity
    return unmet(affinity.required, node.name, node.labels) if affinity and affinity.required else ()


def _demands(missed: tuple[Mismatch, ...]) -> str:
    return "; ".join(f"{m.demand} ({'not set' if m.have is None else m.have} here)" for m in missed)


def _waiting(
    ask: Ask, claims: list[PersistentVolumeClaim], choices: dict[str, list[PersistentVolume]], node: Node
) -> Iterator[Reason | Gap]:
    """Claims that are bound with the choice of the node: to the smallest volume that fits, else to a new one."""
    make: list[PersistentVolumeClaim] = []
    match: list[PersistentVolumeClaim] = []
    for claim in claims:
        chosen = claim.metadata.annotations.get(_CHOSEN_NODE)
        if chosen and chosen != node.name:
            yield _unbindable(f"claim {claim.metadata.name} is being made for node {chosen}")
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


def _unbindable(detail: str) -> Reason:
    return Reason(
        plugin="VolumeBinding",
        kind="volume",
        text="node(s) didn't find available persistent volumes to bind",
        detail=detail,
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
        labels = volume.metadata.label_texts
        if volume.status.phase != "Available" or (spec.selector is not None and not selected(spec.selector, labels)):
            continue
        if class_of(volume) == class_of(claim) and set(spec.access_modes) <= set(has.access_modes):
            found.append((size, volume))
    return [volume for _, volume in sorted(found, key=lambda pair: pair[0])]


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
    if found.provisioner in ("", NO_PROVISIONER):
        if not objects.complete(PersistentVolume):
            return Gap(plugin="VolumeBinding", why="not all volumes were read")
        return _unbindable(f"no volume of class {kind} that this node can use fits claim {name}")
    if found.allowed_topologies and not any(
        term.match_label_expressions
        and all(node.labels.get(e.key) in e.values for e in term.match_label_expressions if e.key)
        for term in found.allowed_topologies
    ):
        said = " or ".join(
            "; ".join(f"{e.key} in [{', '.join(e.values)}]" for e in term.match_label_expressions)
            for term in found.allowed_topologies
        )
        return _unbindable(f"storage class {kind} makes volumes only where {said}")
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
    )


# --- VolumeZone -------------------------------------------------------------------------------------------------------


def zone(ask: Ask) -> Filter | Reason | None:
    """A bound volume's zone and region must be the node's, where the node has any."""
    plugin = "VolumeZone"
    places: list[tuple[str, str, str, set[str]]] = []
    unread = []
    for claim in claims_of(ask):
        if claim.ephemeral or claim.found is None or not is_bound(claim.found):
            continue  # what is not there, not read or not bound has been dealt with before
        name = claim.found.spec.volume_name
        volume = ask.objects.get(PersistentVolume, name)
        if volume is None:
            if ask.objects.lacks(PersistentVolume, name):
                text = f'persistentvolume "{name}" not found'
                return refusal(plugin, text, f"volume {name} of claim {claim.name} does not exist")
            unread.append(name)
            continue
        for key in ZONES:
            value = volume.metadata.labels.get(key)
            if value is not None:
                places.append((claim.name, name, key, {part.strip() for part in str(value).split("__")}))
    if unread:
        return left_open(plugin, f"volume {', '.join(unread)} was not read")
    if not places:
        return None

    def judge(node: Node) -> Iterator[Reason | Gap]:
        if not any(key in node.labels for key in ZONES):
            return
        for claim, name, key, values in places:
            have = node.labels.get(key, node.labels.get(ZONES[key]))
            if have not in values:
                yield Reason(
                    plugin=plugin,
                    kind="volume",
                    text="node(s) had no available volume zone",
                    detail=f"volume {name} of claim {claim} is in {', '.join(sorted(values))} ({have or 'not set'} here)",
                )
                return

    return judge
