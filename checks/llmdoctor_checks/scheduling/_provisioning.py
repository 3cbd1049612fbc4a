"""How a claim that no volume is made for gets one: the class, its provisioner, the access modes that it offers."""

import shlex
from collections.abc import Iterator
from typing import Any

import msgspec

from kubectl_llmdoctor.api import (
    HOSTNAME,
    NO_PROVISIONER,
    Cluster,
    Event,
    Events,
    Evidence,
    Fix,
    Item,
    Node,
    Pod,
    dig,
    escaped,
    expression,
    fixes,
    k8s,
    milli,
    pod_evidence,
    rows,
    say_pairs,
    selected,
    show_taint,
    top_of,
    untolerated,
    words,
)
from llmdoctor_checks.scheduling._claims import VolumeClaim, nowhere, volume_where
from llmdoctor_checks.scheduling._copies import other_copy

#: Parts of names of provisioners of file systems and buckets, which many nodes mount at a time.
_SHARED = expression(
    r"nfs|efs\.|filestore|file\.csi|cephfs|lustre|fsx\.|gpfs|weka|juicefs|gcsfuse|s3|glusterfs|ganesha"
)

#: What drivers of disks say of a claim that many nodes are to write: those of the clouds and vSphere, local-path, the old ones.
_MODES = expression(
    r"multi writer with mount access type|invalid AccessModes|MULTI_NODE_(?:MULTI_WRITER|READER_ONLY)|only supports? ReadWriteOnce|"
    r"[Aa]ccess ?[Mm]odes? .{0,80}(?:not supported|unsupported|are supported)"
)

#: The volume controller waits for a driver that it does not have itself (pkg/controller/volume/persistentvolume/pv_controller.go).
_AWAITED = expression(r"external provisioner ['\"](?P<name>[\w./-]{1,253})['\"]")
_PROVISIONER = ("volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner")
_DEFAULT = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")
#: Which stands for the class of a claim that names none, also of one that is there (Kubernetes 1.26 on).
_ANNOTATE = "kubectl annotate storageclass {} storageclass.kubernetes.io/is-default-class=true --overwrite"

#: Nodes that a fix names.
_MOST = 4

#: How the drivers of clouds are installed.
_ADDON = "aws eks create-addon --cluster-name CLUSTER --addon-name {}"
_GKE = "gcloud container clusters update CLUSTER --update-addons={}=ENABLED"
_AKS = "az aks update --resource-group GROUP --name CLUSTER --enable-{}-driver"
_INSTALLED = {
    "ebs.csi.aws.com": _ADDON.format("aws-ebs-csi-driver"),
    "efs.csi.aws.com": _ADDON.format("aws-efs-csi-driver"),
    "s3.csi.aws.com": _ADDON.format("aws-mountpoint-s3-csi-driver"),
    "pd.csi.storage.gke.io": _GKE.format("GcePersistentDiskCsiDriver"),
    "filestore.csi.storage.gke.io": _GKE.format("GcpFilestoreCsiDriver"),
    "gcsfuse.csi.storage.gke.io": _GKE.format("GcsFuseCsiDriver"),
    "disk.csi.azure.com": _AKS.format("disk"),
    "file.csi.azure.com": _AKS.format("file"),
    "blob.csi.azure.com": _AKS.format("blob"),
}
#: The role that the driver's controller needs on AWS.
_POLICIES = {"ebs.csi.aws.com": "AmazonEBSCSIDriverPolicy", "efs.csi.aws.com": "AmazonEFSCSIDriverPolicy"}


def told(claim: VolumeClaim, events: Events | None) -> list[Event]:
    """What the provisioner or the volume controller says of a claim, the latest last."""
    said = events.of("ProvisioningFailed", "FailedBinding", "ProvisioningTimedOut") if events else []
    return [e for e in said if e.kind == "PersistentVolumeClaim" and e.name == claim.name]


def awaited(pod: Pod, claim: VolumeClaim, events: Events | None) -> Event | None:
    """The controller's word that it waits for a driver, of which nothing has been heard."""
    mine = [e for e in events or () if e.kind == "PersistentVolumeClaim" and e.name == claim.name]
    if any(e.reason in ("Provisioning", "ProvisioningFailed") for e in mine):
        return None
    waiting = [e for e in mine if e.reason == "ExternalProvisioning"]
    return waiting[-1] if waiting and registered(pod.cluster, provisioner(pod, claim, events)) is False else None


def provisioner(pod: Pod, claim: VolumeClaim, events: Events | None) -> str:
    """Who is to make the volume: what the controller noted of it, else what its class names."""
    annotations = claim.get("metadata.annotations")
    noted = next((annotations[key] for key in _PROVISIONER if key in annotations), "") if annotations else ""
    said = next((hit["name"] for e in events or () if e.name == claim.name and (hit := _AWAITED.search(e.message))), "")
    item = pod.cluster.item("StorageClass", "", claim.storage_class) if claim.storage_class else None
    return str(noted or said or (item.raw.get("provisioner") if item else "") or "")


def registered(cluster: Cluster, name: str) -> bool | None:
    """Whether a CSI driver is installed; None where that is not known, or it is a provisioner of another make."""
    if cluster.item("CSIDriver", "", name):
        return True
    return False if "csi" in name and cluster.complete("CSIDriver") else None


#: How the pods are called by which provisioners of the nodes' own disks make a volume: local-path's, MicroK8s', OpenEBS'.
_MAKES = expression(r"^(?:helper-pod-create-|hostpath-provisioner-|init-pvc-)")
#: The uid of a claim in the name of the pod that makes its volume, and no other's.
_OF_CLAIM = expression(r"pvc-[0-9a-f]{8}-[0-9a-f]{4}-")
_SELECTED = "volume.kubernetes.io/selected-node"


def _selected(claim: VolumeClaim) -> str:
    """The node that the scheduler has chosen for the claim's first pod."""
    return str((claim.item.annotations if claim.item else {}).get(_SELECTED) or "")


def helper(cluster: Cluster, claim: VolumeClaim) -> k8s.Pod | None:
    """The pod that is to make the claim's volume on its node, and has not got there itself."""
    node = _selected(claim)
    uid = str(claim.get("metadata.uid") or "")
    for pod in cluster.all(k8s.Pod, "Pod"):
        name, spec = pod.metadata.name, pod.spec
        if spec.node_name or not _MAKES.search(name):
            continue
        if uid and _OF_CLAIM.search(name):
            if f"pvc-{uid}" in name:
                return pod
        elif node and (f"-{node}-" in name or node in spec.node_selector.values()):
            return pod
    return None


def _helped(pod: k8s.Pod, claim: VolumeClaim, cluster: Cluster, maker: str) -> Fix:
    """What brings the helper to the node: of taints it tolerates none but what its provisioner gives it."""
    node = _selected(claim) or "its node"
    known = next((n for n in cluster.all(k8s.Node, "Node") if n.metadata.name == node), None)
    taints = [show_taint(t) for t in untolerated(known.spec.taints, pod.spec.tolerations)] if known else []
    ref, who = f"{pod.metadata.namespace}/{pod.metadata.name}", maker or "the provisioner"
    look = f"kubectl -n {pod.metadata.namespace} describe pod {pod.metadata.name}"
    if not taints:
        return fixes.platform(f"Let {ref} get to {node}, by which {who} makes the volume: see what keeps it off", look)
    # Rancher's local-path provisioner makes them by a template (pkg: helperPod.yaml)
    local = pod.metadata.name.startswith("helper-pod-")
    where = "tolerations in helperPod.yaml of its ConfigMap, usually local-path-config" if local else "its settings"
    return fixes.platform(
        f"Have the helper pods of {who} tolerate {', '.join(taints)} of {node} ({where}, or a policy that adds it): {ref}, which is to "
        f"make {claim.name} there, does not. Or make its PersistentVolume by hand, or take the taint off until the claim is bound",
        look,
    )


def nobody(pod: Pod, claim: VolumeClaim, events: Events | None) -> str:
    """What is wrong where nobody makes its volume."""
    return f": {provisioner(pod, claim, events)} should make its volume, and no CSI driver of that name is installed"


def provided(pod: Pod, claim: VolumeClaim, events: Events | None, describe: str) -> Iterator[Fix]:
    """What gives the claim a volume, by what is known of its class and what its events say."""
    said = " ".join(event.message[:2000] for event in told(claim, events)[-1:])
    many = not {"ReadWriteOnce", "ReadWriteOncePod"}.intersection(claim.modes)
    if made_by := helper(pod.cluster, claim):
        yield _helped(made_by, claim, pod.cluster, provisioner(pod, claim, events))
        return
    if _MODES.search(said) and many:
        yield from _other_mode(pod, claim)
    elif claim.storage_class is None and not claim.volume and any(_usable(pod.cluster, many=many)):
        yield from _default_class(pod, claim, many=many)
    elif claim.storage_class is None and not claim.volume and "no storage class is set" in said:
        yield _first_class(pod, claim, many=many)
    elif awaited(pod, claim, events):
        yield from _installed(pod, claim, provisioner(pod, claim, events), many=many)
    else:
        yield from _unmatched(pod, claim, describe)


def _first_class(pod: Pod, claim: VolumeClaim, *, many: bool) -> Fix:
    """A default class for a claim that names none, in a cluster in which none is known."""
    maker = (
        "a CSI driver for a shared file system (NFS, CephFS)"
        if many
        else "local-path-provisioner for a node's own disk, or a CSI driver"
    )
    default, gets = _ANNOTATE.format("NAME"), f"{claim.name}, which names none, gets it by itself then"
    if pod.cluster.complete("StorageClass") and not any(pod.cluster.items("StorageClass")):
        return fixes.platform(
            f"Install what makes volumes ({maker}), and make its storage class the default one: {gets}. The cluster has no storage class",
            default,
        )
    return fixes.platform(
        f"Make a storage class the default one: {gets}; or recreate it with one that there is as storageClassName. Where the first command "
        f"lists none, as in a cluster that kubeadm made, install {maker} before, which brings one",
        "kubectl get storageclass",
        default,
    )


def other_class(pod: Pod, claim: VolumeClaim) -> Fix:
    """Another class in place of one that does not exist."""
    many = not {"ReadWriteOnce", "ReadWriteOncePod"}.intersection(claim.modes)
    names = [item.name for item in _usable(pod.cluster, many=many)]
    unfit = "none that many nodes can mount" if many else "none whose driver is installed"
    none = unfit if next(pod.cluster.items("StorageClass"), None) else ""
    have = f" ({found})" if (found := ", ".join(sorted(names)) or none) else ""
    text = f"Recreate the claim with a storage class that exists{have}, or create {claim.storage_class}"
    if names:
        return _recreated(pod, claim, text, {"storageClassName": names[0]})
    return fixes.advice(text, "kubectl get storageclass")


def where_gpus_are(pod: Pod, claim: VolumeClaim, nodes: list[Node]) -> Fix:
    """A class that makes volumes where the nodes are that could run the pod: another one, else this one with their places as well."""
    many = not {"ReadWriteOnce", "ReadWriteOncePod"}.intersection(claim.modes)
    free = [item.name for item in _usable(pod.cluster, many=many) if not rows(item.raw, "allowedTopologies")]
    if free:
        text = f"Recreate the claim with storage class {free[0]}, which makes volumes wherever the pod's node is"
        return _recreated(pod, claim, text, {"storageClassName": free[0]})
    item = pod.cluster.item("StorageClass", "", claim.storage_class or "")
    terms = rows(item.raw, "allowedTopologies") if item else []
    parts = rows(terms[0], "matchLabelExpressions") if len(terms) == 1 else []
    key = str(parts[0].get("key")) if len(parts) == 1 else ""
    there = sorted({node.labels[key] for node in nodes if key in node.labels})
    if item is None or not there:
        return fixes.platform(
            f"Let allowedTopologies of storage class {claim.storage_class} have the nodes with GPUs as well"
        )
    return fixes.set_field(
        item,
        "/allowedTopologies/0/matchLabelExpressions/0/values",
        [*words(parts[0], "values"), *there],
        f"Let storage class {item.name} make volumes where nodes are that could run the pod, too ({key}: {', '.join(there)})",
        owner="platform",
    )


def with_room(pod: Pod, claim: VolumeClaim, nodes: list[Node]) -> Fix:
    """As much as the driver of a claim's class has free on a node that could run the pod, or more room there."""
    sizes = [
        str(item.raw.get("maximumVolumeSize") or item.raw.get("capacity"))
        for item in pod.cluster.items("CSIStorageCapacity")
        if item.raw.get("storageClassName") == claim.storage_class and any(_reached(item, node) for node in nodes)
    ]
    most = max(sizes, key=lambda size: milli(size) or 0, default="")
    there = ", ".join(sorted(node.name for node in nodes)[:_MOST])
    more = f"free or add room for storage class {claim.storage_class} on {there}"
    if not milli(most):
        return fixes.platform(f"{more[:1].upper()}{more[1:]}", "kubectl get csistoragecapacities -A")
    return _recreated(
        pod,
        claim,
        f"Ask for no more than {most} in {claim.name}, the most that its driver has free there, if that holds the model; or {more}",
        {"resources": {"requests": {"storage": most}}},
    )


def _reached(room: Item, node: Node) -> bool:
    """Whether what a driver says of its room is about a node."""
    try:
        return selected(k8s.convert(room.raw.get("nodeTopology"), k8s.LabelSelector), node.labels)
    except msgspec.ValidationError:
        return False


def _usable(cluster: Cluster, *, many: bool) -> list[Item]:
    """The classes that make volumes, the default one first; those of shared file systems where many nodes are to mount it."""
    made = [
        item
        for item in sorted(cluster.items("StorageClass"), key=lambda one: (not _is_default(one), one.name))
        if (name := str(item.raw.get("provisioner") or "")) != NO_PROVISIONER
        and registered(cluster, name) is not False
        and (not many or _SHARED.search(name))
    ]
    return [item for item in made if registered(cluster, str(item.raw.get("provisioner")))] or made


def _is_default(item: Item) -> bool:
    annotations = dig(item.raw, "metadata.annotations")
    return isinstance(annotations, dict) and any(annotations.get(key) == "true" for key in _DEFAULT)


def _other_mode(pod: Pod, claim: VolumeClaim) -> Iterator[Fix]:
    """One node at a time where one pod uses it, else a class that shares."""
    shared = [item.name for item in _usable(pod.cluster, many=True)]
    alone = _replicas(pod) == 1 and not _sharing(pod, claim)
    once = _recreated(
        pod,
        claim,
        f"Make {claim.name} ReadWriteOnce, which storage class {claim.storage_class or 'of it'} can: one pod uses it",
        {"accessModes": ["ReadWriteOnce"]},
    )
    if alone:
        yield once
    if shared:
        text = f"Recreate {claim.name} with storage class {shared[0]}, which many nodes can mount"
        yield _recreated(pod, claim, text, {"storageClassName": shared[0]})
    elif not alone:
        yield fixes.platform(
            f"Recreate {claim.name} with a class of a shared file system (NFS, EFS, Filestore, Azure Files, CephFS), which this cluster "
            "has none of; or give each pod a ReadWriteOnce claim of its own (a StatefulSet with volumeClaimTemplates)",
            "kubectl get storageclass",
        )


def _replicas(pod: Pod) -> int:
    top = top_of(pod.item, pod.cluster)
    return (top.replicas if top else None) or 1


def _sharing(pod: Pod, claim: VolumeClaim) -> bool:
    """Whether other pods have the same claim, wherever they are."""
    return any(
        other.metadata.name != pod.name
        and other.status.phase not in ("Succeeded", "Failed")
        and any(
            v.persistent_volume_claim and v.persistent_volume_claim.claim_name == claim.name for v in other.spec.volumes
        )
        for other in pod.cluster.all(k8s.Pod, "Pod", pod.namespace)
    )


def _default_class(pod: Pod, claim: VolumeClaim, *, many: bool) -> Iterator[Fix]:
    """A class for a claim that names none."""
    usable = _usable(pod.cluster, many=many)
    names = [item.name for item in usable]
    if _is_default(usable[0]):  # which came after the claim
        yield _recreated(pod, claim, f"Recreate {claim.name}: it gets the default storage class {names[0]} then", {})
        return
    one = names[0] if len(names) == 1 else f"one of {', '.join(names)}"
    yield fixes.platform(
        f"Make {one} the default storage class: {claim.name}, which names none, gets it by itself then",
        _ANNOTATE.format(shlex.quote(names[0])),
    )
    text = f"Recreate {claim.name} with storageClassName: {names[0]}, if no class should be the default one"
    yield _recreated(pod, claim, text, {"storageClassName": names[0]})


def _installed(pod: Pod, claim: VolumeClaim, name: str, *, many: bool) -> Iterator[Fix]:
    """A class whose driver is there, or the driver that is not."""
    there = [i for i in _usable(pod.cluster, many=many) if registered(pod.cluster, str(i.raw.get("provisioner")))]
    if there:
        text = f"Recreate {claim.name} with storage class {there[0].name}, whose driver {there[0].raw.get('provisioner')} is installed"
        yield _recreated(pod, claim, text, {"storageClassName": there[0].name})
    role = f", with a role that has the policy {_POLICIES[name]}" if name in _POLICIES else ""
    yield fixes.platform(
        f"Install the driver {name}{role}: {claim.name} is bound as soon as it runs",
        *filter(None, [_INSTALLED.get(name)]),
        "kubectl get csidrivers",
    )


def of_class(cluster: Cluster, claim: VolumeClaim) -> list[Item]:
    """The volumes of the claim's class, those of none where it names none, and the one that it names."""
    return [
        volume
        for volume in cluster.items("PersistentVolume")
        if (dig(volume.raw, "spec.storageClassName") or "") == (claim.storage_class or "")
        or volume.name == claim.volume
    ]


def of_another_class(cluster: Cluster, claim: VolumeClaim) -> tuple[Item, str] | None:
    """The volume that a claim names and no other has or is kept for, where it is of another class than the claim, and that class."""
    if not claim.item or not claim.volume:
        return None
    volume = cluster.item("PersistentVolume", "", claim.volume)
    if volume is None or dig(volume.raw, "status.phase") != "Available":
        return None
    its, kept = str(dig(volume.raw, "spec.storageClassName") or ""), dig(volume.raw, "spec.claimRef.name")
    if kept and (dig(volume.raw, "spec.claimRef.namespace"), kept) != (claim.item.namespace, claim.name):
        return None
    return (volume, its) if its != (claim.storage_class or "") else None


def withheld(pod: Pod, claim: VolumeClaim, describe: str) -> Fix:
    """What to do about a claim that goes or has lost its volume, with whatever lies there."""
    if claim.phase == "Lost":
        return fixes.platform(
            f"Make PersistentVolume {claim.volume} again for the disk or share that it stood for, with claimRef to {claim.name} and "
            f"its uid ({claim.get('metadata.uid') or 'metadata.uid'}), which is bound to it then, and without the uid is not; a new claim "
            "is empty",
            describe,
        )
    volume = pod.cluster.item("PersistentVolume", "", claim.volume) if claim.volume else None
    retained = volume is not None and dig(volume.raw, "spec.persistentVolumeReclaimPolicy") == "Retain"
    kept = [one for one in words(claim.item.raw, "metadata.finalizers") if one != _IN_USE] if claim.item else []
    going = f"Let {claim.name} go: it does so" if retained else f"Save what is on {claim.name}, which goes"
    text = f"{going} as soon as no pod uses it"
    if kept:
        text += f" and its finalizer {', '.join(kept)} is off (which what set it takes away; if that is gone for good, a patch)"
    text += "; then create it again"
    if retained:
        text += f" with volumeName {claim.volume}, which keeps what is on it (Retain), without the uid in that one's claimRef"
    left = f'["{_IN_USE}"]' if claim.item and _IN_USE in words(claim.item.raw, "metadata.finalizers") else "null"
    freed = (
        f'kubectl -n {pod.namespace} patch pvc {claim.name} --type=merge -p \'{{"metadata":{{"finalizers":{left}}}}}\''
    )
    again = f'kubectl patch pv {claim.volume} --type=json -p \'[{{"op":"remove","path":"/spec/claimRef/uid"}}]\''
    return fixes.advice(
        f"{text}, or name another claim in {fixes.edited(pod)}",
        describe,
        *([freed] if kept else []),
        *([again] if retained else []),
    )


#: With this Kubernetes keeps a claim that pods use.
_IN_USE = "kubernetes.io/pvc-protection"


def _unmatched(pod: Pod, claim: VolumeClaim, describe: str) -> Iterator[Fix]:
    """A volume that is there and does not fit."""
    asked = claim.get("spec.resources.requests.storage")
    if differs := of_another_class(pod.cluster, claim):
        wanted = claim.storage_class or ""
        yield fixes.set_field(
            differs[0],
            "/spec/storageClassName",
            wanted,
            f"Give PersistentVolume {differs[0].name} the storage class of {claim.name}, {wanted or 'none'}: it is bound to it then",
            owner="platform",
            op="add",
        )
        return
    free: list[Item] = []
    for volume in of_class(pod.cluster, claim):
        mine = [dig(volume.raw, f"spec.claimRef.{key}") for key in ("namespace", "name")] == [pod.namespace, claim.name]
        if dig(volume.raw, "status.phase") == "Released" and mine:
            yield fixes.patch_object(
                volume,
                f"Give {claim.name} {volume.name} again, which still belongs to a claim of that name that was deleted",
                [
                    {"op": "remove", "path": f"/spec/claimRef/{key}"}
                    for key in ("uid", "resourceVersion")
                    if dig(volume.raw, f"spec.claimRef.{key}")
                ],
                owner="platform",
            )
            return
        of_a_mode = {
            dig(one, "spec.volumeMode") or "Filesystem" for one in (volume.raw, claim.item.raw if claim.item else {})
        }
        if dig(volume.raw, "status.phase") == "Available" and len(of_a_mode) == 1:
            free.append(volume)
    sizes = {volume.name: milli(dig(volume.raw, "spec.capacity.storage")) or 0 for volume in free}
    most = max(free, key=lambda volume: sizes[volume.name], default=None)
    if most and sizes[most.name] < (milli(asked) or 0) and not _made_by_class(pod.cluster, claim):
        size = dig(most.raw, "spec.capacity.storage")
        text = f"Ask for {size} in {claim.name}, which is what {most.name} has, or make a volume of {asked}"
        yield _recreated(pod, claim, text, {"resources": {"requests": {"storage": size}}})
        return
    if (near := _nearly(pod, claim, free)) and not _made_by_class(pod.cluster, claim):
        yield near
        return
    text = f"Provide a volume for {claim.name}: see what the claim's events say"
    modes = set(words(most.raw, "spec.accessModes")) if most else set[str]()
    if most and volume_where(most) and modes.issuperset(claim.modes) and not _made_by_class(pod.cluster, claim):
        text = (
            f"Make a PersistentVolume of {asked} with storageClassName {claim.storage_class} and {' and '.join(claim.modes)} on a node "
            f"that can run {pod.name}: {most.name}, which is free, is only for {volume_where(most)}"
        )
    if claim.storage_class and not any(of_class(pod.cluster, claim)) and not _made_by_class(pod.cluster, claim):
        text = (
            f"Make a PersistentVolume of {asked} with storageClassName {claim.storage_class} and {' and '.join(claim.modes)} on a node "
            f"that can run {pod.name}, if that class has no provisioner; else the claim's events say why it makes none"
        )
    yield fixes.platform(text, f"kubectl get storageclass {claim.storage_class or ''}".strip(), describe)


def _nearly(pod: Pod, claim: VolumeClaim, free: list[Item]) -> Fix | None:
    """What makes a free volume fit that is large enough and lacks an access mode or a label that the claim wants."""
    asked = milli(claim.get("spec.resources.requests.storage")) or 0
    wanted = claim.get("spec.selector.matchLabels")
    labels = {str(key): str(value) for key, value in wanted.items()} if isinstance(wanted, dict) else {}
    for volume in free:
        if (milli(dig(volume.raw, "spec.capacity.storage")) or 0) < asked:
            continue
        modes, has = words(volume.raw, "spec.accessModes"), dig(volume.raw, "metadata.labels") or {}
        lacks = {key: value for key, value in labels.items() if has.get(key) != value}
        if set(claim.modes) <= set(modes):
            if not lacks or claim.get("spec.selector.matchExpressions"):
                continue
            text = (
                f"Give {volume.name}, which is free and else fits, the labels that the selector of {claim.name} wants"
            )
            return fixes.patch_object(
                volume,
                f"{text}: {say_pairs(lacks)}",
                [
                    {"op": "add", "path": f"/metadata/labels/{escaped(key)}", "value": value}
                    for key, value in lacks.items()
                ]
                if has
                else [{"op": "add", "path": "/metadata/labels", "value": lacks}],
                owner="platform",
            )
        if lacks:
            continue
        offers = f"{volume.name}, which is free, is {' and '.join(modes)} and not {' and '.join(claim.modes)}"
        one = next((mode for mode in modes if mode != "ReadOnlyMany"), "")
        if one and _replicas(pod) == 1 and not _sharing(pod, claim):
            return _recreated(
                pod, claim, f"Make {claim.name} {one}, as one pod uses it: {offers}", {"accessModes": [one]}
            )
        return fixes.patch_object(
            volume,
            f"Let {volume.name} be {' and '.join(claim.modes)} as well, where its storage can (a shared file system): {offers}",
            [
                {
                    "op": "add",
                    "path": "/spec/accessModes",
                    "value": [*modes, *(m for m in claim.modes if m not in modes)],
                }
            ],
            owner="platform",
        )
    return None


def _made_by_class(cluster: Cluster, claim: VolumeClaim) -> bool:
    """Whether the claim's class makes a volume of the size that is asked for."""
    return any(item.name == claim.storage_class for item in _usable(cluster, many=False))


def _recreated(pod: Pod, claim: VolumeClaim, text: str, changed: dict[str, Any]) -> Fix:
    """The claim anew with other words: its class and modes cannot be changed, and it holds nothing yet."""
    top = top_of(pod.item, pod.cluster)
    names = [dig(row, "metadata.name") for row in rows(top.raw, "spec.volumeClaimTemplates")] if top else []
    if top and claim.name in [f"{name}-{pod.name}" for name in names]:
        return fixes.advice(
            f"{text} (the claim is of volumeClaimTemplates of {top.ref}, which only a new one changes: delete that without its pods, "
            "the claim and this pod, and apply it again with the change)",
            f"kubectl -n {pod.namespace} delete {top.resource} {top.name} --cascade=orphan",
            f"kubectl -n {pod.namespace} delete pvc {claim.name} --wait=false",
            f"kubectl -n {pod.namespace} delete pod {pod.name}",
        )
    for index, volume in enumerate(pod.spec.volumes):
        if volume.ephemeral and claim.name == f"{pod.name}-{volume.name}":  # made with each pod
            at = f"/volumes/{index}/ephemeral/volumeClaimTemplate/spec"
            return fixes.patch(
                pod, text, [{"op": "add", "path": f"{at}/{key}", "value": value} for key, value in changed.items()]
            )
    return fixes.recreate(claim.item, text, changed) if claim.item else fixes.advice(text)


def elsewhere(pod: Pod, claim: VolumeClaim, volume: Item) -> Fix:
    """GPUs where the volume is, or the model where the GPUs are, each by its name."""
    if nowhere(volume):
        return _made_again(pod, claim)
    wanted = [name for c in pod.containers for name in c.spec.resources.limits if "/" in name]
    nodes = list(pod.cluster.all(k8s.Node, "Node"))
    able = [n for n in nodes if wanted and all(milli(n.status.allocatable.get(name)) for name in wanted)]
    if (other := other_copy(pod, claim, able)) is not None:
        return other
    place = volume_where(volume)
    keys = list(dict.fromkeys(part.partition(" ")[0] for part in place.split("; ") if part))
    copy = (
        f"copy the {'model' if wanted else 'data'} to a new claim{_class_that_waits(pod.cluster)}{_gpus_at(able, keys)}"
    )
    if not any(key.endswith("/hostname") for key in keys):
        text = f"Add a node {'with its GPUs ' if wanted else ''}where {claim.name} is ({place}), or {copy}"
    else:
        hosts = _hosts_of(volume)
        if hosts and pod.cluster.complete("Node") and not any(hosts & {n.metadata.name, _host(n)} for n in nodes):
            return _of_a_node_that_is_gone(pod, claim, sorted(hosts))
        if able and not hosts.intersection(map(_host, able)):
            text = f"{copy[:1].upper()}{copy[1:]}: {claim.name} is on a disk of a node without them ({place})"
        else:
            text = (
                f"Free the node of {claim.name} for the pod, whose volume is a disk of that node ({place}), or {copy}"
            )
    return fixes.platform(text, f"kubectl get nodes -L {','.join(map(shlex.quote, keys))}")


def _hosts_of(volume: Item) -> set[str]:
    """The nodes that a volume on a disk of a node names."""
    terms = rows(volume.raw, "spec.nodeAffinity.required.nodeSelectorTerms")
    return {value for term in terms for part in rows(term, "matchExpressions") for value in words(part, "values")}


def _host(node: k8s.Node) -> str:
    """What a node is called where a volume names it."""
    return str(node.metadata.labels.get(HOSTNAME, node.metadata.name))


def _class_that_waits(cluster: Cluster) -> str:
    """The classes whose volumes are made where their pod's node is, as words that follow a claim."""
    classes = cluster.items("StorageClass")
    waits = sorted(i.name for i in classes if i.raw.get("volumeBindingMode") == "WaitForFirstConsumer")
    return f" of a class that waits for the pod's node ({', '.join(waits)})" if waits else ""


def _gpus_at(able: list[k8s.Node], keys: list[str]) -> str:
    """The nodes that have what the pod asks for, each with its place by the labels to which the volume is bound."""
    if not able:
        return ""
    places = [
        (n.metadata.name, ", ".join(str(n.metadata.labels[key]) for key in keys if key in n.metadata.labels))
        for n in able
    ]
    shown = ", ".join(f"{name} ({place})" if place else name for name, place in places[:_MOST])
    return f"; its GPUs are on {shown}{' and others' if len(places) > _MOST else ''}"


def _of_a_node_that_is_gone(pod: Pod, claim: VolumeClaim, nodes: list[str]) -> Fix:
    """A claim whose volume was a disk of a node that the cluster no longer has."""
    top = top_of(pod.item, pod.cluster)
    again = (
        f"and then the pod: {top.ref} makes both again"
        if top and top.kind == "StatefulSet" and rows(top.raw, "spec.volumeClaimTemplates")
        else "and make it again"
    )
    return fixes.platform(
        f"Where {', '.join(nodes)} is gone for good, delete claim {claim.name}, whose volume was a disk of that node, {again}; "
        "what was on it is lost and must be fetched anew. Else bring that node back under its name",
        f"kubectl -n {pod.namespace} delete pvc {claim.name} --wait=false",
        f"kubectl -n {pod.namespace} delete pod {pod.name}",
    )


def _made_again(pod: Pod, claim: VolumeClaim) -> Fix:
    """A claim whose volume is for no node at all: made again, once its provisioner gets to the node."""
    made_by, who = helper(pod.cluster, claim), provisioner(pod, claim, None) or "its provisioner"
    again = f"delete claim {claim.name} and make it again: its volume {claim.volume} is for no node, and nothing can be on it"
    if made_by is None:
        return fixes.advice(
            f"{again[:1].upper()}{again[1:]}. See first why {who} did not know the node",
            f"kubectl -n {pod.namespace} delete pvc {claim.name}",
        )
    first = _helped(made_by, claim, pod.cluster, who)
    return fixes.platform(
        f"{first.summary}; then {again}", *first.commands, f"kubectl -n {pod.namespace} delete pvc {claim.name}"
    )


def quotes(pod: Pod, claim: VolumeClaim) -> Iterator[Evidence]:
    """What a claim asks for and has, what waits to make its volume, and the volumes of its class."""
    yield pod_evidence(pod, "volumes", f"persistentVolumeClaim: {claim.name}")
    if claim.item:
        text = f"phase: {claim.phase or 'unknown'}, storageClassName: {claim.storage_class or 'none'}"
        text += f", accessModes: {', '.join(claim.modes)}" + (f", volumeName: {claim.volume}" if claim.volume else "")
        yield Evidence(source="pod", ref=f"PersistentVolumeClaim/{claim.name}", text=text)
    volume = pod.cluster.item("PersistentVolume", "", claim.volume) if claim.volume else None
    if volume and volume_where(volume):
        said = "nodeAffinity" if dig(volume.raw, "spec.nodeAffinity") else "labels"
        yield Evidence(source="pod", ref=f"PersistentVolume/{volume.name}", text=f"{said}: {volume_where(volume)}")
    if claim.item and claim.phase == "Pending" and (made_by := helper(pod.cluster, claim)):
        said = next((c.message for c in made_by.status.conditions if c.type == "PodScheduled"), "") or "Pending"
        yield Evidence(source="pod", ref=f"{made_by.metadata.namespace}/{made_by.metadata.name}", text=said)
    for volume in pod.cluster.items("PersistentVolume"):
        if claim.phase == "Pending" and dig(volume.raw, "spec.storageClassName") == claim.storage_class:
            size, where = dig(volume.raw, "spec.capacity.storage"), volume_where(volume)
            text = f"{dig(volume.raw, 'status.phase') or 'unknown'}, {size}" + (
                f", only where {where}" if where else ""
            )
            yield Evidence(source="pod", ref=f"PersistentVolume/{volume.name}", text=text)
