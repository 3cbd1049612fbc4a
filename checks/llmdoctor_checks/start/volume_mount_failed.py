"""What the storage's own objects say of a volume that a node does not get."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Event,
    Events,
    Finding,
    Item,
    Logs,
    Pod,
    check,
    dig,
    event_evidence,
    fixes,
    k8s,
    object_evidence,
)
from llmdoctor_checks._consequences import CRASHED
from llmdoctor_checks.start._folders import LITERALS, folder_for_file

#: The kubelet's and the attach controller's words for a volume that they do not get.
_FAILED = r'(?:AttachVolume\.Attach|MountVolume\.\w{1,20}) failed for volume "([^"]{1,253})"'
#: The kubelet gave up a call of the driver, after two minutes (`csiTimeout`); or the driver, whose work ended with the call, says so.
_CALL_ENDED = r"rpc error: code = DeadlineExceeded desc = |\bcontext (?:canceled|deadline exceeded)\b"
#: Drivers that bring an image or a model while the kubelet waits for the mount, with the attributes that name it: modelpack's and
#: warm-metal's, by both of its names.
_PULLING = {
    "model.csi.modelpack.org": ("model.csi.modelpack.org/reference", "modelRef"),
    "container-image.csi.k8s.io": ("image",),
    "csi-image.warm-metal.tech": ("image",),
}
#: Which of them can pull on while the kubelet asks again.
_ASYNC = {"container-image.csi.k8s.io": "--async-pull-timeout", "csi-image.warm-metal.tech": "--async-pull-timeout"}
#: A condition that is not met for a failure, not for want of anything to do.
_FAULT = r"(?i)fail|error|invalid|insufficient|not ?found|denied|fault"
#: Groups of Kubernetes itself, whose objects only repeat what the events say; all others end in a domain.
_OWN_GROUPS = r"(?:apps|batch|policy|autoscaling|(?:[\w-]+\.)+k8s\.io)?/"


@check("volume-mount-failed", since="0.1", literals=LITERALS)
def volume_mount_failed(pod: Pod, events: Events | None, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """A volume of the pod cannot be mounted on its node, is lost there, or lacks what its program needs.

    The pod has a node, and its containers wait for a volume: the CSI driver does not run there (often because it does not tolerate
    the taints of GPU nodes), the file server refuses the node or cannot be reached, the node has no client for that file
    system, or a hostPath is not on this node. The kubelet tries again forever, and the pod stays in ContainerCreating. With
    `fsGroup` in the pod's securityContext it changes the owner of every file before it mounts, which takes long where there are
    millions.

    The kubelet waits two minutes for an answer of the driver. Some drivers (modelpack's, warm-metal's) pull an image or a model in
    that time: what takes longer ends with DeadlineExceeded, and begins anew.

    A mount can also be lost while the pod runs: the program behind a FUSE mount was killed, or the file server made its export again.
    Each access to the path then fails ("Transport endpoint is not connected", "Stale file handle") until the pod is recreated.

    A ConfigMap or Secret that is mounted at the name of one of its files, without a `subPath`, or with one that is none of its keys,
    is a folder there: a program that opens it as a file ends with "Is a directory".

    Secrets and ConfigMaps that do not exist are `secret-missing`; a volume in use elsewhere is `pvc-unbound`.

    ## Fix

    Fix what the event names: the driver's node plugin, the export and its address, the path. Then the mount succeeds at the next
    try, without a new pod. Storage that keeps volumes as objects of the cluster (Longhorn) says of them why one is not ready.

    ## References

    - https://kubernetes.io/docs/concepts/storage/volumes/
    - https://kubernetes.io/docs/tasks/debug/debug-application/debug-pods/
    """
    if pod.exists and pod.failing:
        yield from folder_for_file(pod, cluster, logs)
    if not pod.failing or events is None or any(_ran(status) for status in pod.status.of_containers):
        return  # it has got its volumes since
    own = {str(volume.name) for volume in pod.spec.volumes}
    told = [
        (e, hit[1]) for e in events if e.kind == "Pod" and e.name == pod.name and (hit := re.search(_FAILED, e.message))
    ]
    if told and re.search(_CALL_ENDED, told[-1][0].message) and (slow := _pulling(pod, told[-1][0], told[-1][1])):
        yield slow
        return
    # one that the pod itself describes (a file server's) has no object anywhere, and its name may be anything's
    for event, name in [pair for pair in told[-1:] if pair[1] not in own]:
        faults = [fault for item in _of(cluster, name) for fault in _faults(item)]
        if not faults:
            continue
        item, _, text = faults[0]
        yield Finding(
            summary=f"Volume {name} is not ready for a node: its {item.plain_kind} says {text}.",
            evidence=(event_evidence(event, cluster), *(object_evidence(*fault) for fault in faults[:2])),
            explains=CRASHED,
            fix=fixes.platform(
                f"Fix what the storage says of it (room on its disks, replicas, nodes): {text}", _describe(item)
            ),
            order=-2.0,  # more than the events alone say
        )


def _pulling(pod: Pod, event: Event, name: str) -> Finding | None:
    """A mount for which the driver pulls a model: what takes longer than the kubelet waits is cut off and begun anew."""
    csi = next((volume.csi for volume in pod.spec.volumes if volume.name == name and volume.csi), None)
    driver = str((csi or {}).get("driver") or "")
    if driver not in _PULLING:
        return None
    attributes = dig(csi, "volumeAttributes") or {}
    what = next((str(attributes[key]) for key in _PULLING[driver] if attributes.get(key)), "what it mounts")
    node = pod.spec.node_name or "?"
    advice = f"Bring {what} to a claim beforehand (a Job, or an init container that pulls it) and mount that in {fixes.edited(pod)}"
    if option := _ASYNC.get(driver):
        advice = f"Set {option} (30m) for the node plugin of {driver}, which then pulls on meanwhile; or bring {what} to a claim"
    return Finding(
        summary=f"The kubelet of {node} waits two minutes for the mount of volume {name}, and {driver} pulls {what} in that time: "
        "where the pull takes longer it is cut off and begins anew.",
        evidence=(event_evidence(event, pod.cluster),),
        explains=CRASHED,
        fixes=(
            fixes.advice(advice),
            fixes.platform(
                f"See in the log of its node plugin on {node} whether it pulls (context canceled) or cannot reach the registry",
                f"{fixes.pods_on(node)} | grep -i csi",
            ),
        ),
        order=-2.0,  # more than the words of the event say
    )


def _of(cluster: Cluster, name: str) -> Iterator[Item]:
    """The objects of a storage system that stand for a volume: they bear its name or its handle."""
    volume = cluster.item("PersistentVolume", "", name)
    names = {name, str(dig(volume.raw, "spec.csi.volumeHandle"))} if volume else {name}
    named = cluster.once("objects of operators by name", lambda: _by_name(cluster))
    for one in sorted(names):
        yield from named.get(one, ())


def _by_name(cluster: Cluster) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = {}
    for kind in cluster.kinds():
        for item in cluster.items(kind):
            if re.match(_OWN_GROUPS, item.api_version.rpartition("/")[0] + "/"):
                break  # a kind of Kubernetes itself
            found.setdefault(item.name, []).append(item)
    return found


def _ran(status: k8s.ContainerStatus) -> bool:
    """Whether a container has run, for which all volumes of its pod are mounted."""
    return bool(status.restart_count or status.state.running or status.state.terminated)


def _faults(item: Item) -> Iterator[tuple[Item, str, str]]:
    for condition in item.conditions:
        if condition.status == "False" and condition.message and re.search(_FAULT, condition.text):
            yield item, f"status.conditions[{condition.type}]", condition.text


def _describe(item: Item) -> str:
    kind = f"{item.plain_kind.lower()}.{item.api_version.partition('/')[0]}"
    return f"kubectl -n {item.namespace} describe {kind} {item.name}"
