"""A volume that the pod cannot have where it could run."""

import re
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import (
    HOSTNAME,
    NO_PROVISIONER,
    Cluster,
    Event,
    Events,
    Evidence,
    Finding,
    Fix,
    Item,
    Pending,
    Pod,
    Subject,
    Workload,
    came_further,
    check,
    dig,
    escaped,
    event_evidence,
    expression,
    fixes,
    object_evidence,
    pod_evidence,
    rows,
    sentence,
    top_of,
    words,
    workload_evidence,
)
from llmdoctor_checks._trust import trusting, untrusted
from llmdoctor_checks.scheduling._attached import attached_elsewhere
from llmdoctor_checks.scheduling._claims import VolumeClaim, nowhere, users_of, volume_claims, volume_where
from llmdoctor_checks.scheduling._holders import replaced
from llmdoctor_checks.scheduling._obstacles import Cause
from llmdoctor_checks.scheduling._provisioning import (
    awaited,
    elsewhere,
    helper,
    nobody,
    of_another_class,
    of_class,
    other_class,
    provided,
    quotes,
    told,
    where_gpus_are,
    with_room,
    withheld,
)
from llmdoctor_checks.scheduling._repairs import old_first, ways
from llmdoctor_checks.scheduling._separation import cause
from llmdoctor_checks.scheduling._words import finding, node_lines, nodes_said, scaling_lines
from llmdoctor_checks.serving._autoscaling import scalers

#: Parts of names of storage classes over network file systems, which attach nothing and let any node mount.
_SHARED = ("nfs", "efs", "filestore", "azurefile", "cephfs", "lustre", "gpfs", "weka", "juicefs", "gcsfuse", "s3")

#: Storage classes that come with a cloud or a distribution and make disks, of which no driver makes a file system for many nodes.
#: Sources: the drivers of EBS, Google's and Azure's disks, local-path-provisioner; docs of EKS, GKE, AKS and K3s.
_DISKS = {
    "gp2": "EBS",
    "gp3": "EBS",
    "standard-rwo": "Google's persistent disks",
    "premium-rwo": "Google's persistent disks",
    "managed-csi": "Azure's disks",
    "managed-csi-premium": "Azure's disks",
    "local-path": "folders of one node",
}

#: What a provisioner's message repeats of the claim.
_REPEATED = r'^failed to provision volume with StorageClass "[^"]*": (?:rpc error: code = \w{1,30} desc = ){0,3}'

#: How the volume controller says that a claim names a storage class that is not there.
_NO_CLASS = expression(r"storageclass(?:\.storage\.k8s\.io)? \"[^\"]{1,253}\" not found")

#: By which label the objects of one release of a chart know each other.
_RELEASE = "app.kubernetes.io/instance"
_CHART = "helm.sh/chart"
_STORED = ("PersistentVolumeClaim", "PersistentVolume")

#: Words that any claim may have in its name, and how short one is that tells nothing.
_OF_ANY = frozenset({"claim", "data", "disk", "pvc", "storage", "store", "volume"})
_SHORT = 2


#: The size of a claim of which nothing is known.
_USUAL = "200Gi"

#: Claims that are named with their places.
_MOST_APART = 4
#: The scheduler's words for a node that may have no further volume attached (plugins/nodevolumelimits).
_TOO_MANY = "exceed max volume count"
#: The same for a driver that publishes its room, and has too little (CSIStorageCapacity).
_NO_ROOM = "did not have enough free storage"

#: What a cloud says of a provisioner that may not make volumes, and of one that may make no more.
_NO_RIGHT = expression(
    r"UnauthorizedOperation|AccessDenied|AuthorizationFailed|PERMISSION_DENIED|PermissionDenied|[Nn]ot authorized|"
    r"does not have authorization|Error 403: (?!.{0,200}[Qq]uota)|Required '[\w.]{3,80}' permission|"
    r"ensure you have the right AWS permissions"  # EFS, which tells nothing of what the cloud answered
)
_NO_MORE = expression(
    r"[Qq]uota [\w'. -]{0,80}(?:exceeded|has been reached)|QuotaExceeded|VolumeLimitExceeded|ResourceExhausted"
)

#: Kinds whose objects make a claim of their own name when what they stand for is ready: Fluid, and KubeVirt's importer.
_MAKERS = ("Dataset", "DataVolume")


@check("pvc-unbound", since="0.1")
def pvc_unbound(
    pod: Pod, subject: Subject, workload: Workload | None, pending: Pending | None, events: Events | None
) -> Iterator[Finding]:
    """The pod's volume claim is missing, unbound, in another zone, or attached elsewhere.

    A pod can run only where all its volumes can be mounted. A claim stays unbound when its storage class does not
    exist, no provisioner makes the volume, or no existing volume matches. A volume that is bound has a place: a zone,
    or for local disks one node. A claim that is ReadWriteOnce can be mounted on one node at a time, ReadWriteOncePod
    by one pod, so that replicas which share it must all run on that node. A claim with `WaitForFirstConsumer` is
    Pending by design until its pod is placed; that is the scheduler's work, which a pod with `nodeName` never sees.

    In manifests a claim that none of them makes is no fault by itself: it may be there. It is a risk beside a claim of a like name,
    of the same release or file, that nothing mounts, and where a chart that makes a claim gave it the release's name. So is one that
    asks for ReadWriteMany of a class whose name stands for disks everywhere (`gp3`, `standard-rwo`, `managed-csi`, `local-path`).

    ## Fix

    Name a storage class that exists, make the volume, use a claim whose volume is where the GPUs are, or stop the pod
    that holds it. Model files that several pods read belong on ReadWriteMany or ReadOnlyMany storage.

    ## References

    - https://kubernetes.io/docs/concepts/storage/persistent-volumes/
    - https://kubernetes.io/docs/concepts/storage/storage-classes/#volume-binding-mode
    """
    found = cause(pending, "pvc-unbound")
    if pending and found:
        yield from _waiting(pending, found, events)
    elif events and not pod.ready and pod.exists:
        yield from attached_elsewhere(pod, workload, events)
        yield from _never_bound(pod, workload, events)
    elif workload and not pod.exists and (pod.gpus or subject.engines(pod)):
        yield from _shared(pod, workload, subject)
        yield from _of_disks(pod)
        yield from _misnamed(pod, subject)


def _misnamed(pod: Pod, subject: Subject) -> Iterator[Finding]:
    """A claim that is in none of the manifests, beside one of a like name that was made for nobody."""
    owner, cluster = pod.template_of, pod.cluster
    missing = [claim.name for claim in volume_claims(pod) if claim.item is None]
    if not subject.static or owner is None or len(missing) != 1:
        return
    name = missing[0]
    release = owner.labels.get(_RELEASE)
    made = [
        item
        for item in cluster.items("PersistentVolumeClaim", pod.namespace)
        if (release and item.labels.get(_RELEASE) == release)
        or (item.origin is not None and owner.origin is not None and item.origin.file == owner.origin.file)
    ]
    if not made or any(item.name == name for item in cluster.items("PersistentVolumeClaim")):
        return
    texts = cluster.once("texts beside claims", lambda: _texts(cluster))
    free = [item for item in made if not any(item.name in text for text in texts)]
    # a chart makes the names of a release's own objects of the release's, and a claim that somebody has is called otherwise
    own = release and name.startswith(f"{release}-") and _CHART in owner.labels
    # what all objects of the release are called tells of none of them what it is for
    told = _parts(name) - _parts(release or "") - _parts(owner.name)
    other = next((item for item in free or made if told & _parts(item.name)), None)
    if other is None or len(free or made) != 1 or not (free or own):
        return
    rest = "is mounted by nothing" if free else f"has another name, and a chart made {name} of the name of its release"
    yield Finding(
        role="risk",
        summary=f"{fixes.edited(pod)} mounts claim {name}, which is not in these manifests; the claim that they make, "
        f"{other.name}, {rest}: the pod stays Pending unless somebody makes {name}.",
        evidence=(
            pod_evidence(pod, "volumes", f"persistentVolumeClaim: {name}"),
            object_evidence(other, "metadata.name", other.name),
        ),
        fix=_renamed(pod, name, other.name),
    )


def _renamed(pod: Pod, name: str, other: str) -> Fix:
    """The claim that there is, in place of one that there is not."""
    at = [
        n
        for n, volume in enumerate(pod.spec.volumes)
        if volume.persistent_volume_claim and volume.persistent_volume_claim.claim_name == name
    ]
    body = [{"op": "replace", "path": f"/volumes/{n}/persistentVolumeClaim/claimName", "value": other} for n in at]
    return fixes.patch(pod, f"Name claim {other} instead of {name} in {fixes.edited(pod)}", body)


#: Words that say of no claim what is on it.
_OF_ANY_CLAIM = frozenset({"", "pvc", "claim", "data", "volume", "vol", "storage", "disk"})


def _alike(one: str, other: str) -> bool:
    """Whether the words of one name are all in the other: `qwen-models` and `models-of-qwen`, and no claim of something else."""
    parts = [{word.rstrip("s") for word in re.split(r"[-.]", name)} - _OF_ANY_CLAIM for name in (one, other)]
    return all(parts) and (parts[0] <= parts[1] or parts[1] <= parts[0])


def _made(pod: Pod, name: str) -> Fix:
    """A claim that is not there: the only one of a like name that no pod uses, else a new one."""
    cluster, namespace = pod.cluster, pod.namespace
    claims = [i.name for i in cluster.items("PersistentVolumeClaim", namespace)]
    own = pod.spec.claim_names
    alike = [one for one in claims if one not in own and _alike(one, name)]
    whole = all(cluster.complete(kind, namespace) for kind in ("PersistentVolumeClaim", "Pod"))
    if len(alike) == 1 and whole and not users_of(cluster, pod, alike[0]):
        return _renamed(pod, name, alike[0])
    top = top_of(pod.item, cluster)
    mode = "ReadWriteMany" if top and (top.replicas or 1) > 1 else "ReadWriteOnce"
    spec = {"accessModes": [mode], "resources": {"requests": {"storage": _USUAL}}}
    others = f", or name one that exists ({', '.join(sorted(claims)[:4])})" if claims else ""
    return fixes.advice(
        f"Create the claim {name} in {namespace} ({mode}, {_USUAL} or as much as the model takes){others}",
        fixes.create("v1", "PersistentVolumeClaim", name, namespace, spec=spec),
    )


def _texts(cluster: Cluster) -> list[str]:
    """Every text of the objects that are no claims or volumes: what names a claim, in whatever kind, has it there."""
    found: list[str] = []
    left: list[object] = [item.raw for kind in cluster.kinds() if kind not in _STORED for item in cluster.items(kind)]
    while left:
        value = left.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict | list):
            left.extend(value.values() if isinstance(value, dict) else value)
    return found


def _parts(name: str) -> set[str]:
    """The words of a name that tell what a claim is for."""
    return {word for word in re.split(r"[-._]", name) if len(word) > _SHORT} - _OF_ANY


def _shared(pod: Pod, workload: Workload, subject: Subject) -> Iterator[Finding]:
    """Several pods of a manifest, now or when it is scaled, that mount one claim which one node can have at a time."""
    if _on_one_node(pod):
        return
    claims = [claim for claim in volume_claims(pod) if claim.on_one_node]
    claims = [c for c in claims if not any(word in (c.storage_class or "").lower() for word in _SHARED)]
    if not claims:
        return
    replicas, who = (workload.replicas or 1) * (pod.nodes or 1), workload.ref
    told = workload_evidence(workload, "spec.replicas", str(workload.replicas or 1))
    if replicas < 2:
        scaler = next((one for one in scalers(subject, pod.cluster) if one.maximum > 1), None)
        if scaler is None:
            return
        replicas, who = scaler.maximum, f"{workload.ref}, as many as {scaler.ref} may make,"
        field = "maxReplicaCount" if scaler.item.kind == "ScaledObject" else "maxReplicas"
        told = scaler.evidence(f"spec.{field}", str(scaler.maximum))
    names = " and ".join(dict.fromkeys(claim.name for claim in claims))
    modes = list(dict.fromkeys(claim.modes[0] for claim in claims))
    where = "by one pod" if modes == ["ReadWriteOncePod"] else "to one node at a time"
    mode, many = " and ".join(modes), " and " in names
    yield Finding(
        role="risk",
        summary=f"{replicas} pods of {who} mount claim{'s' if many else ''} {names}, which {'are' if many else 'is'} {mode}: "
        f"{'each' if many else 'it'} can be attached "
        f"{where}, and a pod elsewhere stays in ContainerCreating (Multi-Attach error).",
        evidence=(
            *(pod_evidence(pod, "volumes", f"persistentVolumeClaim: {claim.name}") for claim in claims),
            told,
            *(object_evidence(c.item, "spec.accessModes", ", ".join(c.modes)) for c in claims if c.item),
        ),
        fix=fixes.advice(
            f"Make {names} ReadWriteMany on storage that offers it (a claim that exists must be recreated), or "
            "give each replica its own: a StatefulSet with volumeClaimTemplates"
        ),
    )


def _of_disks(pod: Pod) -> Iterator[Finding]:
    """A claim of a manifest that many nodes should mount, from a class of that name which makes disks everywhere."""
    for claim in volume_claims(pod):
        makes = _DISKS.get(claim.storage_class or "")
        block = claim.get("spec.volumeMode") == "Block" or claim.volume
        if not makes or block or claim.item is None or "ReadWriteMany" not in claim.modes:
            continue
        if pod.cluster.find("StorageClass", "", claim.storage_class or ""):
            continue  # one of the reader's own
        yield Finding(
            role="risk",
            summary=f"Claim {claim.name} asks storage class {claim.storage_class} for ReadWriteMany; where that makes {makes}, as "
            "it does by default, none is made, and the pod stays Pending.",
            evidence=(
                object_evidence(claim.item, "spec.accessModes", ", ".join(claim.modes)),
                object_evidence(claim.item, "spec.storageClassName", str(claim.storage_class)),
                pod_evidence(pod, "volumes", f"persistentVolumeClaim: {claim.name}"),
            ),
            fix=fixes.advice(
                f"Name a class of a network file system in PersistentVolumeClaim/{claim.name}, or make it ReadWriteOnce if all pods "
                "that mount it run on one node; a claim that exists must be recreated"
            ),
        )
        return


def _on_one_node(pod: Pod) -> bool:
    """Whether all its replicas must run on the same node."""
    affinity = pod.spec.affinity.pod_affinity if pod.spec.affinity else None
    terms = affinity.required_during_scheduling_ignored_during_execution if affinity else ()
    together = any(term.topology_key == HOSTNAME for term in terms)
    return bool(pod.spec.node_name) or HOSTNAME in pod.spec.node_selector or together


def _waiting(pending: Pending, found: Cause, events: Events | None) -> Iterator[Finding]:
    pod = pending.pod
    faults = [(claim, fault) for claim in volume_claims(pod) if (fault := _fault(pod, claim, found, events))]
    counted = "; ".join(c.text for c in found.counts)
    full = not faults and _says(found, _TOO_MANY)
    summary = "; ".join(fault for _, fault in faults) or (
        f"{nodes_said(found)} could run it and may have no further volume attached: each machine takes so many of one kind, "
        "and network interfaces and disks of its own count on some"
        if full
        else f"A volume is not available: {counted}"
    )
    evidence: list[Evidence] = []
    for claim, _ in faults or [(c, "") for c in volume_claims(pod)]:
        evidence += quotes(pod, claim)
        evidence += [event_evidence(e, pod.cluster) for e in told(claim, events)[-2:]]
    if away := any(count.text.startswith("nodepool ") for count in found.counts):
        evidence += scaling_lines(pending)
    workload, former = pending.subject.workload, replaced(pending, found)
    answers = (
        [_elsewhere()]
        if away
        else [old_first(pending, workload, former)]
        if workload and former
        else ways(pending, found)
        or _apart(pod, [claim for claim, _ in faults])
        or [fix for claim, _ in faults for fix in _fixes(pod, claim, found, events)]
    )
    yield finding(
        pending,
        found,
        sentence(summary) + ("" if summary.endswith(".") else "."),
        [*evidence, *node_lines(pending, found)],
        answers
        or [_fewer_volumes()] * full
        or [fixes.advice("See what the claims wait for", f"kubectl -n {pod.namespace} describe pvc")],
    )


def _apart(pod: Pod, claims: list[VolumeClaim]) -> list[Fix]:
    """What to do where volumes of a pod are in places that no node shares."""
    zones: dict[str, set[str]] = {}
    for claim in claims:
        volume = pod.cluster.item("PersistentVolume", "", claim.volume) if claim.volume else None
        terms = rows(volume.raw, "spec.nodeAffinity.required.nodeSelectorTerms") if volume else []
        parts = [part for term in terms for part in rows(term, "matchExpressions")]
        at = (value for p in parts if str(p.get("key")).endswith("/zone") for value in words(p, "values"))
        zones[claim.name] = {zone or "no zone" for zone in at}
    placed = {name: found for name, found in zones.items() if found}
    if len(placed) < 2 or set.intersection(*placed.values()):
        return []
    shown = ", ".join(f"{name} in {' or '.join(sorted(found))}" for name, found in list(placed.items())[:_MOST_APART])
    # the one that is beside fewest of the others is copied to where most are
    beside = {name: sum(bool(found & other) for other in placed.values()) for name, found in placed.items()}
    first = max(placed, key=lambda name: beside[name])
    second = min((n for n, found in placed.items() if not found & placed[first]), key=lambda n: beside[n], default="")
    moved = (
        f"copy what is in {second} to a new claim that is made where {first} is"
        if second
        else "copy what is in one of them"
    )
    return [
        fixes.platform(
            f"Bring the volumes to one zone ({shown}): {moved}, or use storage that all zones mount (EFS, Filestore, Azure Files); "
            "no node can have disks of both",
            "kubectl get pv -o 'custom-columns=CLAIM:.spec.claimRef.name,WHERE:.spec.nodeAffinity.required.nodeSelectorTerms[*]"
            ".matchExpressions[*].values'",
        )
    ]


def _fewer_volumes() -> Fix:
    """What to do where a node has as many volumes attached as its CSINode says that it may."""
    return fixes.platform(
        "Stop pods that have volumes there and can do without, take machines that attach more, or keep the model on storage that is "
        "mounted over the network or on the node's own disk; volumes of pods that are gone detach after some minutes",
        "kubectl get csinodes -o custom-columns=NAME:.metadata.name,MOST:.spec.drivers[*].allocatable.count",
        "kubectl get volumeattachments",
    )


def _elsewhere() -> Fix:
    """What to do where no pool of Karpenter makes nodes where the volume is."""
    return fixes.platform(
        "Have a nodepool make nodes where the volume is, or copy the model to a volume where one does",
        "kubectl get nodepools.karpenter.sh -o yaml",
    )


def _says(found: Cause, *pieces: str) -> bool:
    return any(piece in c.text for c in found.counts for piece in pieces)


def _is_foreign(pod: Pod, claim: VolumeClaim, found: Cause) -> bool:
    """Whether a claim has the name of that of an ephemeral volume of the pod, and another owner."""
    said = f"PVC {pod.namespace}/{claim.name} was not created for pod"
    return any(said in text for text in (*(r.text for r in found.reasons), *(c.text for c in found.counts)))


def _fault(pod: Pod, claim: VolumeClaim, found: Cause, events: Events | None) -> str:
    """What is wrong with one claim; empty when nothing of it is known to be."""
    cluster = pod.cluster
    if f'"{claim.name}" not found' in " ".join(c.text for c in found.counts) or claim.exists is False:
        return f"claim {claim.name} does not exist in {pod.namespace}{_unmade(pod, claim)}"
    if claim.item is None:
        return ""
    if _is_foreign(pod, claim, found):
        return (
            f"claim {claim.name} was not made for this pod, whose ephemeral volume needs one of that name: the controller leaves it alone, "
            "and makes no other"
        )
    if dig(claim.item.raw, "metadata.deletionTimestamp"):
        return f"claim {claim.name} is being deleted"
    if claim.phase == "Lost":
        return f"claim {claim.name} has lost its volume {claim.volume}"
    if claim.phase == "Pending" and not _says(found, "ReadWriteOncePod", "node affinity"):
        if _says(found, _NO_ROOM):
            return f"{_unbound(pod, claim, events)}: its driver has not as much room where the pod could run"
        only = _only_where(claim, found)
        return _unbound(pod, claim, events) + (f", which makes volumes only where {only}" if only else "")
    if "ReadWriteOncePod" in claim.modes and _says(found, "ReadWriteOncePod"):
        users = ", ".join(p.metadata.name for p in users_of(cluster, pod, claim.name)) or "another pod"
        return f"claim {claim.name} is ReadWriteOncePod and {users} uses it"
    volume = cluster.item("PersistentVolume", "", claim.volume) if claim.volume else None
    where = volume_where(volume) if volume else ""
    if where and _says(found, "node affinity", "volume zone"):
        only = f"nowhere, as it is for {where}" if volume and nowhere(volume) else f"only where {where}"
        return f"claim {claim.name} is bound to {claim.volume}, which can be used {only}"
    return ""


def _only_where(claim: VolumeClaim, found: Cause) -> str:
    """Where the class of a claim makes volumes, if none of the nodes that could run the pod is there."""
    begin, said = f"storage class {claim.storage_class} makes volumes only where ", [r.detail for r in found.reasons]
    return said[0].removeprefix(begin) if said and all(detail.startswith(begin) for detail in said) else ""


def _maker(pod: Pod, claim: VolumeClaim) -> Item | None:
    """The object that is to make a claim of its own name and has not come so far; None where the claim is there."""
    for kind in _MAKERS if claim.item is None else ():
        item = pod.cluster.item(kind, pod.namespace, claim.name)
        phase = dig(item.raw, "status.phase") if item else None
        if item and isinstance(phase, str) and phase not in ("Bound", "Succeeded", ""):
            return item
    return None


def _unmade(pod: Pod, claim: VolumeClaim) -> str:
    maker = _maker(pod, claim)
    return f"; {maker.kind} {maker.name}, which makes it, is {dig(maker.raw, 'status.phase')}" if maker else ""


def _unbound(pod: Pod, claim: VolumeClaim, events: Events | None) -> str:
    """Why a claim has no volume: by its class, by what should make one, or by what was said of it last."""
    name = claim.storage_class
    size = dig(claim.item.raw, "spec.resources.requests.storage") if claim.item else None
    what = f"claim {claim.name}" + (f" ({size})" if size else "") + " is not bound"
    said = [e.message for e in told(claim, events)]
    if why := _by_its_class(pod.cluster, claim, said):
        return f"{what}: {why}"
    what += f", storage class {name}" if name else ""
    if claim.item and (made_by := helper(pod.cluster, claim)):
        ref = f"{made_by.metadata.namespace}/{made_by.metadata.name}"
        return f"{what}: the pod {ref}, which should make its volume, has no place itself"
    why = " ".join(re.sub(_REPEATED, "", said[-1]).split()) if said else ""
    if not why and awaited(pod, claim, events):
        return f"{what}{nobody(pod, claim, events)}"
    return what + (f": {why[:300]} …" if len(why) > 300 else f": {why.rstrip('.')}" if why else "")


def _by_its_class(cluster: Cluster, claim: VolumeClaim, said: list[str]) -> str:
    """What is wrong with the storage class of a claim; empty where nothing is known to be."""
    name, classes = claim.storage_class, [i.name for i in cluster.items("StorageClass")]
    if differs := of_another_class(cluster, claim):
        return f"it names {differs[0].name}, which has storage class {differs[1] or 'none'}, and its own is {name or 'none'}"
    if name is None and not claim.volume:
        if any("no storage class is set" in text for text in said):
            return "it names no storage class, there is no default one, and no existing volume matches"
        return "it names no storage class" + ("" if classes else ", and there may be no default one")
    by_hand = bool(name) and name not in classes and bool(of_class(cluster, claim))
    if name and name not in classes and not by_hand and (classes or cluster.complete("StorageClass")):
        return f"there is no storage class {name} (there is {', '.join(sorted(classes)) or 'none'})"
    item = cluster.item("StorageClass", "", name) if name else None
    if by_hand or (item and item.raw.get("provisioner") == NO_PROVISIONER):
        return f"storage class {name} makes no volumes, and no existing one matches where the pod could run"
    return ""


def _fixes(pod: Pod, claim: VolumeClaim, found: Cause, events: Events | None) -> Iterator[Fix]:
    describe = f"kubectl -n {pod.namespace} describe pvc {claim.name}"
    classes = sorted(i.name for i in pod.cluster.items("StorageClass"))
    if unmade := _maker(pod, claim):
        yield fixes.advice(
            f"See why {unmade.kind} {unmade.name} is not ready (conditions, pods and log of its runtime); it makes the claim then",
            f"kubectl -n {pod.namespace} describe {unmade.kind.lower()} {unmade.name}",
        )
    elif claim.exists is False or claim.item is None:
        yield _made(pod, claim.name)
    elif _is_foreign(pod, claim, found):
        yield _freed_name(pod, claim)
    elif _says(found, "ReadWriteOncePod"):
        users = ", ".join(user.metadata.name for user in users_of(pod.cluster, pod, claim.name)) or "the pod"
        yield fixes.advice(f"Stop {users}, which uses {claim.name}, or share the model through ReadWriteMany storage")
    elif _says(found, "node affinity", "volume zone"):
        volume = pod.cluster.item("PersistentVolume", "", claim.volume)
        if volume and volume_where(volume):
            yield elsewhere(pod, claim, volume)
        else:
            text = "Use a claim whose volume is where the GPU nodes are, or GPU nodes where the volume is"
            yield fixes.advice(text, describe)
    elif claim.phase == "Lost" or claim.get("metadata.deletionTimestamp"):
        yield withheld(pod, claim, describe)
    elif _says(found, _NO_ROOM):
        yield with_room(pod, claim, [verdict.node for verdict in found.verdicts])
    elif _only_where(claim, found):
        yield where_gpus_are(pod, claim, [verdict.node for verdict in found.verdicts])
    elif claim.storage_class and classes and claim.storage_class not in classes and not of_class(pod.cluster, claim):
        yield other_class(pod, claim)
    else:
        yield from _provided(pod, claim, events, describe)


def _freed_name(pod: Pod, claim: VolumeClaim) -> Fix:
    """Room for the claim of an ephemeral volume, whose name another claim has."""
    users = ", ".join(user.metadata.name for user in users_of(pod.cluster, pod, claim.name))
    volume = claim.name.removeprefix(f"{pod.name}-")
    if users or claim.volume:
        used = f", which {users} uses" if users else ", which has a volume"
        return fixes.advice(
            f"Give the volume {volume} of {fixes.edited(pod)} another name (also in volumeMounts), as {claim.name}{used}, has that of its "
            "claim; or delete that claim when nobody needs what is on it: the controller then makes it anew"
        )
    return fixes.advice(
        f"Delete claim {claim.name}, which has no volume and no user: the controller then makes it anew, for this pod",
        f"kubectl -n {pod.namespace} delete pvc {claim.name}",
    )


def _provided(pod: Pod, claim: VolumeClaim, events: Events | None, describe: str) -> Iterator[Fix]:
    """What lets the provisioner make the volume, by what it was answered last."""
    said = next((event.message[:2000] for event in reversed(told(claim, events))), "")
    item = pod.cluster.item("StorageClass", "", claim.storage_class) if claim.storage_class else None
    maker = str(item.raw.get("provisioner") or "") if item else ""
    who = f"the provisioner {maker}" if maker else "the provisioner of its storage class"
    if _NO_CLASS.search(said):
        yield other_class(pod, claim)
    elif untrusted(said):
        yield trusting(pod.cluster, *_controllers_account(pod, maker), describe)
    elif _NO_RIGHT.search(said):
        text = (
            f"Let {who} make volumes: give its controller the cloud's role for it (EKS: AmazonEBSCSIDriverPolicy or the like by IRSA or "
            "Pod Identity; AKS and GKE: the driver's identity on the resource group or project), then restart the controller"
        )
        yield fixes.platform(text, "kubectl get serviceaccounts -A -o yaml | grep -i -B2 -A6 csi", describe)
    elif _NO_MORE.search(said):
        text = (
            f"Raise what {claim.name} runs into (the cloud's quota, the room of a driver for the nodes' own disks), ask for a smaller "
            "volume, or delete volumes that nobody uses"
        )
        yield fixes.platform(text, describe, "kubectl get pv --sort-by=.spec.capacity.storage")
    else:
        yield from provided(pod, claim, events, describe)


def _controllers_account(pod: Pod, maker: str) -> tuple[str, str]:
    """The service account of a provisioner's controller, by namespace and name: AWS's are called after the driver."""
    kind = maker.partition(".")[0] or "ebs"
    name = f"{kind}-csi-controller-sa"
    item = next((i for i in pod.cluster.items("ServiceAccount") if i.name == name), None)
    return (item.namespace if item else "kube-system"), name


#: What the kubelet finds when it looks at a claim (pkg/kubelet/volumemanager/populator).
_UNUSABLE = (
    r"(?:error processing PVC \S+/(?P<name>[\w.-]+)|for volume \"(?P<volume>[^\"]{1,253})\" ?): (?:failed to fetch PVC from API server: "
    r".*(?P<missing>not found)|(?P<why>PVC is being deleted|PVC is not bound))"
)


class _PastTheScheduler(msgspec.Struct, frozen=True):
    """A claim that a pod cannot use, which was given a node past the scheduler."""

    pod: Pod
    claim: VolumeClaim
    workload: Workload | None
    event: Event
    #: as the kubelet says; empty where the claim does not exist
    why: str
    #: what was tried to make a volume for it, and that it waits for a pod to be placed
    refused: list[Event]
    waits: list[Event]

    @property
    def named(self) -> str:
        """The node that the workload names; empty where it names none."""
        raw = self.workload.item.raw if self.workload and self.workload.item else {}
        return str(dig(raw, "spec.template.spec.nodeName") or "")


def _past_the_scheduler(pod: Pod, workload: Workload | None, events: Events) -> _PastTheScheduler | None:
    if not pod.spec.node_name or pod.begun:
        return None
    failed = [
        (e, hit) for e in events.of("FailedMount") if e.name == pod.name and (hit := re.search(_UNUSABLE, e.message))
    ]
    if not failed or came_further(failed[-1][0], events):
        return None
    event, hit = failed[-1]
    mounts = {v.name: v.persistent_volume_claim.claim_name for v in pod.spec.volumes if v.persistent_volume_claim}
    claim = next((c for c in volume_claims(pod) if c.name == (hit["name"] or mounts.get(hit["volume"]))), None)
    if claim is None or (
        claim.item and (claim.phase == "Bound" and not dig(claim.item.raw, "metadata.deletionTimestamp"))
    ):
        return None
    return _PastTheScheduler(
        pod,
        claim,
        workload,
        event,
        "" if hit["missing"] else str(hit["why"]),
        refused=told(claim, events)[-1:],
        waits=[e for e in events.of("WaitForFirstConsumer", "WaitForPodScheduled") if e.name == claim.name],
    )


def _never_bound(pod: Pod, workload: Workload | None, events: Events) -> Iterator[Finding]:
    """A pod that was given a node past the scheduler, which would have waited for the claim.

    With `WaitForFirstConsumer` it would have chosen the node for the volume, too: without it nobody does.
    """
    found = _past_the_scheduler(pod, workload, events)
    if found is None:
        return
    claim, named = found.claim, found.named
    summary, answers = _why_unusable(found, events)
    yield Finding(
        confidence="certain" if claim.item or claim.exists is False else "likely",
        summary=summary + ".",
        evidence=(
            event_evidence(found.event, pod.cluster),
            *(event_evidence(e, pod.cluster) for e in found.refused or found.waits[-1:]),
            *((workload_evidence(workload, "spec.template.spec.nodeName", named),) if workload and named else ()),
            *quotes(pod, claim),
        ),
        explains=("volume-mount-failed", "not-ready", "rollout-stuck"),
        fixes=tuple(answers),
    )


def _why_unusable(found: _PastTheScheduler, events: Events) -> tuple[str, list[Fix]]:
    """What keeps the claim from being used, and what to do about it."""
    pod, claim = found.pod, found.claim
    describe = f"kubectl -n {pod.namespace} describe pvc {claim.name}"
    if not found.why:
        return f"Claim {claim.name} does not exist in {pod.namespace}", [_made(pod, claim.name)]
    unbound = found.why == "PVC is not bound"
    if unbound and found.refused:
        words = _unbound(pod, claim, events)
        return sentence(words), [*_provided(pod, claim, events, describe)]
    summary = f"Claim {claim.name} is {found.why.removeprefix('PVC is ')}"
    answers = [fixes.advice("See what the claim waits for", describe)]
    if unbound and (found.waits or found.named):
        summary += f": it waits for a scheduler, and {pod.name} was put on {pod.spec.node_name} without one"
        if found.workload and found.named:
            answers.insert(0, _scheduled(found.workload, found.named))
    return summary, answers


def _scheduled(workload: Workload, node: str) -> Fix:
    """The same node by a selector, which the scheduler obeys, instead of by nodeName."""
    spec, key = "/spec/template/spec", HOSTNAME
    chosen = isinstance(dig(workload.item.raw, "spec.template.spec.nodeSelector"), dict)
    added: dict[str, object] = (
        {"path": f"{spec}/nodeSelector/{escaped(key)}", "value": node}
        if chosen
        else {"path": f"{spec}/nodeSelector", "value": {key: node}}
    )
    text = f"Have the scheduler place it on {node}: nodeSelector {key} instead of nodeName in {workload.ref}"
    return fixes.patch_object(
        workload.item, text, [{"op": "remove", "path": f"{spec}/nodeName"}, {"op": "add", **added}]
    )
