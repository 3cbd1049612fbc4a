"""What the storage's own objects say of a volume that a node does not get."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Events,
    Finding,
    Item,
    Pod,
    check,
    dig,
    event_evidence,
    fixes,
    object_evidence,
    rows,
)

#: The kubelet's and the attach controller's words for a volume that they do not get.
_FAILED = r'(?:AttachVolume\.Attach|MountVolume\.\w{1,20}) failed for volume "([^"]{1,253})"'
#: A condition that is not met for a failure, not for want of anything to do.
_FAULT = r"(?i)fail|error|invalid|insufficient|not ?found|denied|fault"
#: Kinds of Kubernetes itself that are called like the volume, and what only repeats what the events say.
_KNOWN = ("PersistentVolume", "PersistentVolumeClaim", "VolumeAttachment")


@check("volume-mount-failed", since="0.1")
def volume_mount_failed(pod: Pod, events: Events | None, cluster: Cluster) -> Iterator[Finding]:
    """A volume of the pod cannot be mounted on its node, or is lost there.

    The pod has a node, and its containers wait for a volume: the CSI driver does not run there (often because it does not tolerate
    the taints of GPU nodes), the file server refuses the node or cannot be reached, the node has no client for that file
    system, or a hostPath is not on this node. The kubelet tries again for ever, and the pod stays in ContainerCreating. With
    `fsGroup` in the pod's securityContext it changes the owner of every file before it mounts, which takes long where there are
    millions.

    A mount can also be lost while the pod runs: the program behind a FUSE mount was killed, or the file server made its export anew.
    Each access to the path then fails ("Transport endpoint is not connected", "Stale file handle") until the pod is recreated.

    Secrets and ConfigMaps that do not exist are `secret-missing`; a volume in use elsewhere is `pvc-unbound`.

    ## Fix

    Mend what the event names: the driver's node plugin, the export and its address, the path. Then the mount succeeds at the next
    try, without a new pod. Storage that keeps volumes as objects of the cluster (Longhorn) says of them why one is not ready.

    ## References

    - https://kubernetes.io/docs/concepts/storage/volumes/
    - https://kubernetes.io/docs/tasks/debug/debug-application/debug-pods/
    """
    if not pod.failing or events is None:
        return
    told = [
        (e, hit[1]) for e in events if e.kind == "Pod" and e.name == pod.name and (hit := re.search(_FAILED, e.message))
    ]
    for event, name in told[-1:]:
        faults = [fault for item in _of(cluster, name) for fault in _faults(item)]
        if not faults:
            continue
        item, _, text = faults[0]
        yield Finding(
            role="cause",
            confidence="likely",
            summary=f"Volume {name} is not ready for a node: its {item.kind.partition('.')[0]} says {text}.",
            evidence=(event_evidence(event, cluster), *(object_evidence(*fault) for fault in faults[:2])),
            explains=("not-ready", "crash-loop", "pod-failed", "rollout-stuck"),
            fixes=(
                fixes.advice(
                    f"Mend what the storage says of it (room on its disks, replicas, nodes): {text}",
                    _describe(item),
                    owner="platform",
                ),
            ),
            order=-2.0,  # more than the events alone say
        )


def _of(cluster: Cluster, name: str) -> Iterator[Item]:
    """The objects of a storage system that stand for a volume: they bear its name or its handle."""
    volume = cluster.item("PersistentVolume", "", name)
    names = {name, str(dig(volume.raw, "spec.csi.volumeHandle"))} if volume else {name}
    for kind in cluster.kinds():
        if kind not in _KNOWN:
            yield from (item for item in cluster.items(kind) if item.name in names)


def _faults(item: Item) -> Iterator[tuple[Item, str, str]]:
    for row in rows(item.raw, "status.conditions"):
        text = ": ".join(str(row[key]) for key in ("reason", "message") if row.get(key))
        if row.get("status") == "False" and row.get("message") and re.search(_FAULT, text):
            yield item, f"status.conditions[{row.get('type')}]", text


def _describe(item: Item) -> str:
    kind = f"{item.kind.partition('.')[0].lower()}.{item.api_version.partition('/')[0]}"
    return f"kubectl -n {item.namespace} describe {kind} {item.name}"
