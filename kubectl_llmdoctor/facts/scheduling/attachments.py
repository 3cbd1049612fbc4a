"""VolumeRestrictions and NodeVolumeLimits: a volume that another pod has, and a node that can have no more of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.nodes import Node
from kubectl_llmdoctor.facts.scheduling.ask import Ask, Filter
from kubectl_llmdoctor.facts.scheduling.migration import IN_TREE, in_tree
from kubectl_llmdoctor.facts.scheduling.objects import (
    CSINode,
    Objects,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
    VolumeAttachment,
)
from kubectl_llmdoctor.facts.scheduling.using import claims_of, class_of, refusal, unread_of, used_by
from kubectl_llmdoctor.facts.scheduling.verdict import Gap, Reason
from kubectl_llmdoctor.facts.usage import ref_of


def restrictions(ask: Ask) -> Filter | Reason | None:
    """A disk that only one pod may write, and a claim that only one pod may use."""
    plugin = "VolumeRestrictions"
    claims = [c for c in claims_of(ask) if not c.ephemeral]
    for claim in claims:
        if claim.lacks:
            text = f'persistentvolumeclaim "{claim.name}" not found'
            return refusal(plugin, text, f"claim {claim.name} does not exist in {ask.pod.namespace}")
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
    unread = unread_of(plugin, claims)
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
    monitors = [v.rbd.get("monitors") for v in (one, other) if v.rbd]
    return bool(set.intersection(*({str(m) for m in some} if isinstance(some, list) else set() for some in monitors)))


def _rbd(volume: k8s.Volume) -> dict[str, Any] | None:
    return {"pool": "rbd", **volume.rbd} if volume.rbd else None


# --- NodeVolumeLimits -------------------------------------------------------------------------------------------------


def limits(ask: Ask) -> Filter | Reason | None:
    """How many volumes of a CSI driver a node can have."""
    plugin = "NodeVolumeLimits"
    claims = [c for c in claims_of(ask) if not c.lacks]
    unread = unread_of(plugin, claims)
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
        old = in_tree(volume)
        if old:
            found[f"{old[0].driver}/{old[1]}"] = old[0].driver
    return found


def _handle(objects: Objects, claim: PersistentVolumeClaim) -> tuple[str, str] | None:
    """A CSI volume by its unique name, and its driver; a volume that is still to be made by its claim."""
    volume = objects.get(PersistentVolume, claim.spec.volume_name) if claim.spec.volume_name else None
    if volume is not None:
        csi, old = volume.spec.csi, in_tree(volume.spec)
        if old:
            return f"{old[0].driver}/{old[1]}", old[0].driver
        return (f"{csi.driver}/{csi.volume_handle}", csi.driver) if csi and csi.volume_handle else None
    kind = objects.get(StorageClass, class_of(claim))
    if kind is None or not kind.provisioner:
        return None
    driver = next((old.driver for old in IN_TREE if old.plugin == kind.provisioner), kind.provisioner)
    return f"{driver}/new-{claim.metadata.namespace or 'default'}/{claim.metadata.name}", driver
