"""Nodes that stopped answering under a running pod."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import Events, Finding, Node, Pod, Subject, check, dig, expression, fixes
from llmdoctor_checks.scheduling._clouds import SPOT
from llmdoctor_checks.scheduling._disruption import lost, taken

#: How clouds name a machine in a node's providerID: Compute Engine, EC2, Azure's scale sets and its single machines.
_PROVIDERS = (
    (
        expression(r"^gce://(?P<project>[\w.:-]{1,80})/(?P<zone>[\w-]{1,40})/(?P<name>[\w-]{1,80})$"),
        "gcloud compute instances describe {name} --zone={zone} --project={project} --format='value(status,lastStopTimestamp)'",
    ),
    (
        expression(r"^aws:///(?P<region>[a-z]{2}(?:-[a-z]{1,12}){1,3}-\d)[a-z]?/(?P<name>i-[0-9a-f]{6,32})$"),
        "aws ec2 describe-instance-status --include-all-instances --region {region} --instance-ids {name}",
    ),
    (
        expression(
            r"(?i)^azure:///subscriptions/(?P<subscription>[\w-]{1,60})/resourceGroups/(?P<group>[\w.()-]{1,90})/providers/Microsoft\.Compute/"
            r"virtualMachineScaleSets/(?P<name>[\w.-]{1,80})/virtualMachines/(?P<id>\d{1,9})$"
        ),
        "az vmss get-instance-view --subscription {subscription} -g {group} -n {name} --instance-id {id}",
    ),
    (
        expression(
            r"(?i)^azure:///subscriptions/(?P<subscription>[\w-]{1,60})/resourceGroups/(?P<group>[\w.()-]{1,90})/providers/Microsoft\.Compute/"
            r"virtualMachines/(?P<name>[\w.-]{1,80})$"
        ),
        "az vm get-instance-view --subscription {subscription} -g {group} -n {name}",
    ),
)


@check("node-lost", since="0.1")
def node_lost(pod: Pod, subject: Subject, events: Events | None, node: Node | None) -> Iterator[Finding]:
    """The node stopped answering under the running pod.

    The kubelet no longer reports, does so after a reboot, or says that the node is not ready, since its container runtime or
    network plugin is down: the machine crashed, was switched off or taken back, lost its network, or its kubelet hangs. The
    control plane marks the pods not ready after 40 seconds and deletes them after five minutes; a pod of a StatefulSet (so of a
    LeaderWorkerSet, too) stays Terminating until the node is back or its object is deleted. The other pods of a group see a
    dead Ray node or a broken connection.

    ## Fix

    Look at the machine (console, BMC, cloud provider; Xid messages of a GPU that hangs the host). When it will not come
    back, delete the Node object, or taint it `node.kubernetes.io/out-of-service`, so that the pods are made elsewhere.

    ## References

    - https://kubernetes.io/docs/concepts/architecture/nodes/#node-status
    - https://kubernetes.io/docs/concepts/cluster-administration/node-shutdown/#non-graceful-node-shutdown
    """
    found = taken(pod, subject, events, node)
    if found is None or found.kind not in ("lost", "rebooted"):
        return
    name = pod.spec.node_name or "its node"
    # it was made anew under its name
    if pod.status.reason == "NodeAffinity" and pod.status.phase == "Failed" and node and node.ready:
        yield lost(
            found,
            f"{pod.name} lost its node {name}: {found.why}",
            fixes.advice(
                f"Delete the refused pod; its replacement is placed on the node that {name} is now, or on another{fixes.lone(pod)}",
                f"kubectl -n {pod.namespace} delete pod {pod.name}",
            ),
        )
        return
    if found.unready and re.search(r"PLEG|[Cc]ontainer runtime", found.why):
        item = pod.cluster.item("Node", "", name)
        cri = str(dig(item.raw, "status.nodeInfo.containerRuntimeVersion")) if item else ""
        runtime = "crio" if cri.startswith("cri-o") else "containerd"
        yield lost(
            found,
            f"{pod.name} lost its node {name}: {found.why}",
            fixes.platform(
                f"Restart the container runtime of {name}, which does not answer its kubelet, on the machine (systemctl restart {runtime}, "
                "then kubelet), and reboot it where that hangs: the node is ready again by itself then",
                f"kubectl describe node {name}",
                fixes.on_node(name, f"systemctl restart {runtime} kubelet"),
            ),
        )
        return
    yield lost(
        found,
        f"{pod.name} lost its node {name}: {found.why}",
        fixes.platform(
            f"Find out what rebooted {name} (its kernel's log of before, an update, the cloud); the pod starts again by itself"
            if found.kind == "rebooted"
            else f"Fix what the kubelet of {name} names (the container runtime that hangs, the network plugin): the node is ready again "
            "by itself then"
            if found.unready
            else _of_spot(node)
            if node is not None and any(node.labels.get(key) == spot for key, spot, _ in SPOT)
            else f"See why {name} no longer reports; only when it will not come back, delete its Node object (kubectl delete node), "
            f"so that the pods are made elsewhere{_unbounded(pod)}",
            f"kubectl describe node {name}",
            *(_of_the_cloud(pod, name) if not found.unready else ()),
        ),
    )


def _of_the_cloud(pod: Pod, name: str) -> Iterator[str]:
    """What asks the cloud for the state of the machine behind a node."""
    item = pod.cluster.item("Node", "", name)
    machine = str(dig(item.raw, "spec.providerID") or "") if item else ""
    for names, command in _PROVIDERS:
        if (found := names.match(machine)) is not None:
            yield command.format(**found.groupdict())
            return


def _of_spot(node: Node) -> str:
    """What to do about a spot machine that fell silent: as a rule the cloud has taken it back, and a stopped one keeps its Node."""
    what = (
        "its NodeClaim"
        if any(label.startswith("karpenter.sh/") for label in node.labels)
        else "its Node object (kubectl delete node)"
    )
    return (
        f"Delete {what} where the cloud says that it has taken the spot machine {node.name} back, so that its pods are made elsewhere; "
        "what must not be interrupted belongs on machines that are not spot"
    )


def _unbounded(pod: Pod) -> str:
    """What a server does to a node whose memory it may take whole: the kubelet and SSH starve, and nobody is killed."""
    loose = [c.name for c in pod.containers if c.gpus and "memory" not in c.spec.resources.limits]
    if not loose:
        return ""
    return (
        f"; where it hangs for want of memory, power-cycle it, and give {', '.join(loose)} of {fixes.edited(pod)} a memory limit below "
        "what the node has (it has none), so that the container is ended instead"
    )
