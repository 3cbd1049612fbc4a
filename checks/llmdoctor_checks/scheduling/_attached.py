"""Claims whose volume is attached to another node, or that another pod has alone: who, and how it gets free."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    HOSTNAME,
    Cluster,
    Events,
    Finding,
    Fix,
    Pod,
    Workload,
    came_further,
    escaped,
    event_evidence,
    expression,
    fixes,
    k8s,
    milli,
    mismatches,
    requests_of,
    top_of,
    untolerated,
    usage_of,
)
from llmdoctor_checks.scheduling._claims import VolumeClaim, users_of, volume_claims
from llmdoctor_checks.scheduling._provisioning import quotes

#: For how long beyond its grace period a deleted pod is there that does not end by itself.
_OVERDUE_SECONDS = 60


def _stop(pod: Pod, name: str) -> Fix:
    """The pod that has the volume taken away for good: what a controller makes comes back."""
    item = pod.cluster.item("Pod", pod.namespace, name)
    top = top_of(item, pod.cluster)
    made_by = top.ref if top else fixes.maker(item) if item else ""
    if not made_by:
        return fixes.advice(f"Stop {name} first", f"kubectl -n {pod.namespace} delete pod {name}")
    scaled = top is not None and top.kind in ("Deployment", "StatefulSet") and top.replicas == 1
    command = f"kubectl -n {pod.namespace} scale {made_by.lower()} --replicas=0"
    ends = "Wait until {} has ended, or delete it" if made_by.startswith("Job/") else "Scale {} down first"
    return fixes.advice(
        f"{ends.format(made_by)}, if it can be spared: {name} is its pod", *((command,) if scaled else ())
    )


def _ended(pod: Pod, user: k8s.Pod) -> Fix | None:
    """What lets a pod end that has the volume and was deleted: to scale down who made it, which has let go of it, does nothing."""
    meta, overdue = user.metadata, pod.cluster.seconds_since(user.metadata.deletion_timestamp)
    if overdue is None or overdue < _OVERDUE_SECONDS:
        return None
    where = f"kubectl -n {pod.namespace}"
    if meta.finalizers:
        return fixes.platform(
            f"Have the controller of {', '.join(meta.finalizers)} let {meta.name} go, or take that finalizer off it where the controller "
            "is gone: the pod was deleted, and keeps the volume until it has ended",
            f'{where} patch pod {meta.name} --type=merge -p \'{{"metadata":{{"finalizers":null}}}}\'',
        )
    return fixes.platform(
        f"See why {meta.name} does not end on {user.spec.node_name} (its processes, the unmounting of its volumes in the kubelet's log): "
        "it was deleted, and keeps the volume until then; remove it by force only when nothing of it runs there any more",
        f"{where} describe pod {meta.name}",
        f"{where} delete pod {meta.name} --force --grace-period=0",
    )


#: How a container waits while the volumes of its pod are not there.
_NOT_MOUNTED = ("", "ContainerCreating", "PodInitializing")


#: How the attach/detach controller names the pods that have the volume, those of the same namespace only.
_USED_BY = expression(r"already used by pod\(s\) (.{1,200})")


#: Claims of a pod, each with another pod that uses it on another node.
_Users = list[tuple[VolumeClaim, k8s.Pod]]


def attached_elsewhere(pod: Pod, workload: Workload | None, events: Events) -> Iterator[Finding]:
    """A pod that has a node and waits for a volume that another node has."""
    if any(c.running for c in pod.containers):
        return
    failed = [
        e for e in events.of("FailedAttachVolume", "FailedMount") if e.name == pod.name and _HELD.search(e.message)
    ]
    if not failed or came_further(failed[-1], events) or pod.handed_over(failed[-1]):
        return
    if any(c.waiting and c.waiting.reason not in _NOT_MOUNTED for c in pod.containers):
        return  # its volumes were mounted before its image was asked for
    claims = [c for c in volume_claims(pod) if "ReadWriteOnce" in c.modes] or list(volume_claims(pod))
    users = [
        (c, u) for c in claims for u in users_of(pod.cluster, pod, c.name) if u.spec.node_name != pod.spec.node_name
    ]
    said = failed[-1].message
    lost = next((name for _, user in users if (name := _gone(pod.cluster, user.spec.node_name))), None)
    ended = _ended(pod, users[0][1]) if users and not lost else None
    why, ways = "", _to_free(pod, workload, users, said)
    if lost:
        why, ways = f". Node {lost} no longer reports, so that nobody detaches it", [_out_of_service(lost)]
    elif ended:
        why, ways = ". It was deleted, and has not ended in its grace period", [ended, *_to_share(users, said)]
    yield Finding(
        confidence="certain" if users else "likely",
        summary=f"{_held_where(pod, users, said)}{why}.",
        evidence=(event_evidence(failed[-1], pod.cluster), *(e for c in claims for e in quotes(pod, c))),
        explains=("volume-mount-failed", "not-ready", "rollout-stuck"),
        fixes=tuple(ways),
    )


def _held_where(pod: Pod, users: _Users, said: str) -> str:
    """Who has the volume, by the pods that were read, else by what the event says."""
    if users:
        claim, user = users[0]
        return (
            f"Claim {claim.name} can be mounted on one node at a time, and {user.metadata.name} has it on "
            f"{user.spec.node_name}; this pod was placed on {pod.spec.node_name}"
        )
    machine, named = _machine(said), _USED_BY.search(said)
    holder = f" ({machine})" if machine else f", where {named[1].rstrip('.')} uses it" if named else ""
    return f"A volume of it is still attached to another node{holder}, and can be attached to one only"


def _machine(said: str) -> str | None:
    held = _HELD.search(said)
    return held["machine"] if held else None


def _to_share(users: _Users, said: str) -> list[Fix]:
    """What lets several pods have the volume; before that what detaches it, where it is the cloud that still holds it."""
    there = f" ({users[0][1].spec.node_name} now)" if users else ""
    share = fixes.advice(f"Have all pods that share the claim run on one node{there}, or use ReadWriteMany storage")
    # Kubernetes itself passes it for free
    return [share] if "Multi-Attach error" in said else [_detached(_machine(said)), share]


def _to_free(pod: Pod, workload: Workload | None, users: _Users, said: str) -> list[Fix]:
    """What lets this pod have the volume, whose holder runs."""
    ways = _to_share(users, said)
    own = bool(workload and users and _made_by(users[0][1], workload, pod.cluster))
    if users and not own:  # to scale its own workload down would take this pod away as well
        claim, user = users[0]
        stop = _stop(pod, user.metadata.name)
        # what a controller keeps running is meant to run
        serves = any(owner.kind != "Job" for owner in user.metadata.owner_references)
        return [*_there(pod, claim.name, user.spec.node_name), *([*ways, stop] if serves else [stop, *ways])]
    if workload and own and _alike(pod, users[0][1]):  # no update: all of its pods are meant to run at once
        return [_of_replicas(pod, workload, users)]
    if workload and workload.kind == "Deployment" and own:
        text = f"Let the old pod go before the new one is made: strategy Recreate in {workload.ref}"
        ways.insert(0, fixes.set_field(workload.item, "/spec/strategy", {"type": "Recreate"}, text, op="add"))
    if named := _USED_BY.search(said):
        ways.append(fixes.advice(f"Stop {named[1].rstrip('.')} first"))
    return ways


def _alike(pod: Pod, user: k8s.Pod) -> bool:
    """Whether two pods of one workload are of the same revision, so that neither is there to replace the other."""
    mine, its = (
        (o.metadata.labels.get("pod-template-hash"), [w.name for w in o.metadata.owner_references if w.controller])
        for o in (pod.obj, user)
    )
    return mine == its and any(mine)


def _of_replicas(pod: Pod, workload: Workload, users: _Users) -> Fix:
    """Storage that all replicas can mount; one node for all of them where it has room for this one."""
    claim, user = users[0]
    several = (workload.replicas or 0) > 1
    who = f"the {workload.replicas} replicas" if several else "the pods"
    node = user.spec.node_name
    beside = next(_there(pod, claim.name, node), None)
    last = (
        f", or have all of them run on {node}, which has room" if beside else ", or run one replica" if several else ""
    )
    return fixes.advice(
        f"Give {who} of {workload.ref} a claim in place of {claim.name} that several nodes mount (ReadWriteMany, of a class that makes "
        f"shared files; a claim that exists must be recreated), or each its own{last}"
    )


def _detached(machine: str | None) -> Fix:
    """To free a volume that the storage, and not Kubernetes, says is in use on another machine."""
    return fixes.platform(
        f"Stop what still uses it on {machine or 'the other machine'}; where nothing does, detach it there "
        "(a VolumeAttachment that was left, else in the cloud or the storage itself), and it is attached at the next try",
        "kubectl get volumeattachments",
        f"kubectl get pods -A -o wide | grep {machine}" if machine else "kubectl get pods -A -o wide",
    )


def _there(pod: Pod, claim: str, node: str) -> Iterator[Fix]:
    """The pod on the node that has its volume, where there is room for what it asks for."""
    item = pod.cluster.item("Node", "", node)
    known = item.typed() if item else None
    used = usage_of(pod.cluster).used(node)
    if not isinstance(known, k8s.Node) or known.spec.unschedulable or not pod.cluster.complete_on(node):
        return
    kept = any(untolerated(known.spec.taints, pod.spec.tolerations))
    if kept or mismatches(pod.spec, node, known.metadata.label_texts):
        return
    for resource, amount in requests_of(pod.obj).items():
        have = milli(known.status.allocatable.get(resource))
        if have is None or have < (used.get(resource, 0) + amount) * (1 if resource == "cpu" else 1000):
            return
    value = known.metadata.labels.get(HOSTNAME, node)
    text = f"Let it run on {node}, where {claim} is attached and has room beside it (nodeSelector {HOSTNAME}: {value})"
    there = bool(pod.spec.node_selector)
    path = f"/nodeSelector/{escaped(HOSTNAME)}" if there else "/nodeSelector"
    yield fixes.set_spec(pod, path, value if there else {HOSTNAME: value}, text)


def _gone(cluster: Cluster, name: str) -> str:
    """The node's name where its kubelet no longer reports."""
    ready = {n.metadata.name: n for n in cluster.all(k8s.Node, "Node")}.get(name)
    told = ready.status.condition("Ready") if ready else None
    return name if told and told.status == "Unknown" else ""


def _out_of_service(node: str) -> Fix:
    """What gives the volumes of a node free that is down for good (non-graceful node shutdown)."""
    return fixes.platform(
        f"Bring {node} back. Where it is switched off for certain (its console, the cloud), taint it out-of-service: the pods on it are "
        "removed and their volumes detached; take the taint away when it is back",
        f"kubectl taint nodes {node} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute",
    )


#: A volume that another machine has: the attach controller's words; those of Azure, Compute Engine and Longhorn, which name the machine, of
#: EC2 and of Ceph (rbd), which do not.
_HELD = expression(
    r"Multi-Attach error|(?:already attached to node\(|is already being used by '|is currently attached to different node )"
    r"(?:[^)'\s]{0,400}/)?(?P<machine>[\w.-]{1,253})|VolumeInUse: \S{1,60} is already attached to an instance|"
    r"rbd image \S{1,253} is still being used"
)


def _made_by(user: k8s.Pod, workload: Workload, cluster: Cluster) -> bool:
    """Whether the pod that has the claim is of the same workload: in a rolling update, the one to be replaced."""
    item = cluster.item("Pod", user.metadata.namespace, user.metadata.name)
    top = top_of(item, cluster)
    return top is not None and top.item is workload.item
