"""The nodes that fit are out of service."""

import re
import shlex
from collections.abc import Iterable, Iterator

import msgspec

from kubectl_llmdoctor.api import (
    Cluster,
    Event,
    Evidence,
    Finding,
    Fix,
    Item,
    Node,
    Pending,
    check,
    dig,
    event_evidence,
    events_of,
    fixes,
    k8s,
    node_evidence,
    node_hardware,
    rows,
    say_seconds,
    selected,
    show_taint,
)
from llmdoctor_checks.scheduling._obstacles import Cause
from llmdoctor_checks.scheduling._repairs import ways
from llmdoctor_checks.scheduling._separation import cause
from llmdoctor_checks.scheduling._words import finding, node_lines, nodes_said, number_of

#: How a node's taint stands among its troubles, and how those end that an agent of the node takes away when it is up.
_TAINT, _EARLY = "taint ", ("/agent-not-ready", "/startup-taint")
#: Who takes other taints of new nodes away, when, and where to look.
_UNINITIALIZED = "node.cloudprovider.kubernetes.io/uninitialized"
_KEEPERS = {
    _UNINITIALIZED: (
        "the cloud-controller-manager",
        "when the node's machine is found at the cloud",
        "kubectl get pods -A -o wide | grep -i cloud-controller-manager",
    ),
    "node.cluster.x-k8s.io/uninitialized": (
        "Cluster API (in the cluster that manages this one; the provider's, where it is a service)",
        "when the Machine is joined to its Node",
        "kubectl get machines.cluster.x-k8s.io -A -o wide",
    ),
    "karpenter.sh/unregistered": (
        "Karpenter",
        "when the node is joined to its NodeClaim",
        "kubectl get nodeclaims.karpenter.sh -o wide",
    ),
}
#: What the kubelet says of a node whose network is not set up, and under which reasons it says that a pod cannot start.
_NO_NETWORK, _UNSTARTED = "NetworkReady=false", ("FailedCreatePodSandBox", "Failed", "FailedMount")


def _on_node(node: Node, cluster: Cluster) -> Iterator[Finding]:
    devices = " and ".join(f"{count} {name}" for name, count in node.accelerators.items() if count)
    if not node.troubles or not devices or node.joining:
        return
    down = node.ready is False
    # A node may be cordoned, drained or taken away on purpose; that it does not report, or runs short, is never meant.
    ill = down or any(trouble.endswith(("Pressure", "Unavailable")) for trouble in node.troubles)
    yield Finding(
        role="cause" if down else "risk" if ill else "note",
        confidence="certain",
        summary=f"{node.name}, with {devices}, takes no new pods: {', '.join(node.troubles)}.",
        evidence=tuple(_conditions(cluster, node)) or (node_evidence(node, ", ".join(node.troubles)),),
        fixes=(_mended(node),) if down else (),
    )


@check("node-not-ready", since="0.1", on_node=_on_node)
def node_not_ready(pending: Pending) -> Iterator[Finding]:
    """The nodes that could run the pod are cordoned, not ready or under pressure.

    The scheduler leaves out a node that is marked unschedulable (`kubectl cordon`, a drain, an upgrade) and one whose
    condition the control plane turns into a taint: not ready, unreachable, short of memory, disk or process ids.

    ## Fix

    Bring the node back: uncordon it when its maintenance is over, or find out on the node why its kubelet does not
    report.

    ## References

    - https://kubernetes.io/docs/concepts/architecture/nodes/
    - https://kubernetes.io/docs/reference/labels-annotations-taints/#node-kubernetes-io-not-ready
    """
    found = cause(pending, "node-not-ready")
    if found is None:
        return
    if found.verdicts:
        kinds = dict.fromkeys(t for v in found.verdicts for t in v.node.troubles)
        one = len(found.verdicts) == 1
        summary = f"{nodes_said(found)} would fit but {_in_words(kinds, one=one)}."
    else:
        are = "is" if number_of(found) == 1 else "are"
        summary = f"{nodes_said(found)} {are} cordoned or not fit for new pods, by the scheduler's count."
    evidence = [
        *node_lines(pending, found),
        *(e for v in found.verdicts[:3] for e in _conditions(pending.pod.cluster, v.node)),
        *(e for v in found.verdicts[:3] for e in _unnetworked(pending.pod.cluster, v.node)),
    ]
    yield finding(pending, found, summary, evidence, _fixes(pending, found))


def _in_words(troubles: Iterable[str], *, one: bool) -> str:
    """`is cordoned, NotReady and has the taint node.example.com/agent-not-ready`."""
    states = [trouble for trouble in troubles if not trouble.startswith(_TAINT)]
    taints = [trouble.removeprefix(_TAINT) for trouble in troubles if trouble.startswith(_TAINT)]
    parts = [f"{'is' if one else 'are'} {', '.join(states)}"] if states else []
    return " and ".join([*parts, *([f"{'has' if one else 'have'} the taint {', '.join(taints)}"] if taints else [])])


def _conditions(cluster: Cluster, node: Node) -> Iterator[Evidence]:
    """What the control plane says of the node, and since when; and what other programs say of its GPUs, for which some cordon it."""
    for condition in node.obj.status.conditions:
        bad = condition.status != "True" if condition.type == "Ready" else condition.status == "True"
        if bad and condition.type in ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable"):
            seconds = cluster.seconds_since(condition.last_transition_time) or 0
            age = f" for {say_seconds(seconds)}" if seconds > 0 else ""
            text = f"{condition.type}={condition.status}{age}: {condition.reason} {condition.message}".rstrip(": ")
            yield node_evidence(node, text)
    hardware = node_hardware(cluster, node.name) if node.cordoned else None
    yield from map(hardware.told, hardware.conditions[:1]) if hardware else ()


def _unnetworked(cluster: Cluster, node: Node) -> Iterator[Evidence]:
    """Why the pods do not start that are to set up the network of a node without one: those of its DaemonSets."""
    ready = next((c.message for c in node.obj.status.conditions if c.type == "Ready" and c.status != "True"), "")
    if _NO_NETWORK not in ready:
        return
    for event in cluster.once("daemons that do not start", lambda: _unstarted(cluster)):
        pod = cluster.item("Pod", event.namespace, event.name)
        if pod is not None and dig(pod.raw, "spec.nodeName") == node.name:
            yield event_evidence(event, cluster)
            return


def _unstarted(cluster: Cluster) -> list[Event]:
    """What keeps pods of DaemonSets from starting; what a server lacks says nothing of its node."""
    found = []
    for event in events_of(cluster).of_kind("Pod"):
        if not event.warning or event.reason not in _UNSTARTED:
            continue
        pod = cluster.item("Pod", event.namespace, event.name)
        if pod is not None and any(ref.get("kind") == "DaemonSet" for ref in rows(pod.metadata, "ownerReferences")):
            found.append(event)
    return found


#: What the kubelet says of why its node is not ready (pkg/kubelet/kubelet.go, runtime.go), and what ends that: nothing can be
#: started there by the API then.
_BY_MESSAGE = (
    (
        r"(?i)container runtime is (?:down|not ready)|PLEG is not healthy|runtime status check may not have completed|RuntimeReady=false",
        "The container runtime of {node} does not answer its kubelet: on the machine read its log (journalctl -u {runtime}) and restart it "
        "(systemctl restart {runtime}, then kubelet); reboot it where that hangs",
    ),
    (
        r"(?i)cni (?:plugin|config)|NetworkReady=false|NetworkPluginNotReady",
        "Bring the network plugin of {node} up: the pod of its DaemonSet there writes the CNI configuration (/etc/cni/net.d) for which the "
        "kubelet waits",
    ),
    (
        r"stopped posting node status|Kubelet never posted",
        "The kubelet of {node} no longer reports: see that the machine is up and reaches the API server, and start its kubelet there "
        "(journalctl -u kubelet, systemctl restart kubelet); delete the Node object only when it will not come back",
    ),
)
#: The kubelet's own complaints of a node that reports, what ends them, and what shows more there.
_PRESSURES = {
    "DiskPressure": (
        "Free the disk of {node}: unused images first, then old logs and what pods left in hostPath and emptyDir; the kubelet takes the "
        "taint away some minutes after",
        "crictl rmi --prune",
    ),
    "MemoryPressure": ("Free memory on {node}: end what takes more than any pod there requests", "ps aux --sort=-rss"),
    "NetworkUnavailable": (
        "Repair the pod network of {node}: restart the network plugin's pod there (calico-node, kube-flannel, …), whose log says what it "
        "lacks, or let the cloud's route controller make the node's route; who set the condition takes it back then",
        "ip route",
    ),
    "PIDPressure": ("Free process ids on {node}: end the pod that starts so many", "ps -eLf"),
}


#: The kubelet's word where it finds no image that nobody uses (pkg/kubelet/images/image_gc_manager.go).
_COLLECTED = r"Failed to garbage collect required amount of images\. (?:Wanted|Attempted) to free \d{1,20} bytes, but "
_NO_IMAGES = (
    "Free the disk of {node}, or enlarge it: its kubelet finds no unused images to collect, so look at logs, emptyDir and hostPath of its "
    "pods and at what lies beside them"
)


def _uncollected(node: Node) -> bool:
    """Whether the kubelet has looked for unused images, and found too few."""
    about = events_of(node.cluster).about([("Node", node.name)])
    return any(re.search(_COLLECTED, event.message) for event in about)


def _mended(node: Node) -> Fix:
    """What ends the node's own complaint; where it makes none that is known, where to look."""
    look = f"kubectl describe node {node.name}"
    ready = node.condition("Ready")
    if ready and ready.status != "True":
        item = node.cluster.item("Node", "", node.name)
        version = str(dig(item.raw, "status.nodeInfo.containerRuntimeVersion") or "") if item else ""
        runtime = (version.partition(":")[0] or "containerd").replace("cri-o", "crio")
        text = next((text for said, text in _BY_MESSAGE if re.search(said, ready.message)), "")
        if text:
            return fixes.platform(text.format(node=node.name, runtime=runtime), look)
    for kind, (text, command) in _PRESSURES.items():
        if node.condition(kind, "True") and node.ready is not False:
            if kind == "DiskPressure" and _uncollected(node):
                text, command = _NO_IMAGES, "du -xhd2 /var/log /var/lib/kubelet/pods /var/lib/containerd"
            return fixes.platform(text.format(node=node.name), look, fixes.on_node(node.name, command))
    return fixes.platform(f"Find out why {node.name} {_in_words(node.troubles, one=True)}", look)


def _kept(pending: Pending, node: Node, key: str, number: int) -> Fix:
    """A taint with which a node begins, and which a controller takes away; a pod that tolerates it runs on a node that is not ready."""
    who, when, look = _KEEPERS[key]
    if key == _UNINITIALIZED and (failing := _failing_manager(pending)):
        name, namespace = failing.metadata.name, failing.metadata.namespace
        again = any(c.restart_count for c in failing.status.container_statuses)
        return fixes.platform(
            f"Fix {namespace}/{name}, which is not ready: its log says why (usually its cloud.conf or credentials). The taint {key} of "
            f"{node.name} goes by itself {when}; do not tolerate it",
            f"kubectl -n {shlex.quote(namespace)} logs {shlex.quote(name)}{' --previous' if again else ''}",
        )
    taint = next(show_taint(t) for t in node.taints if t.key == key)
    more = f" and {number - 1} more" if number > 1 else ""
    return fixes.platform(
        f"See in the log of {who} what keeps it from {node.name}{more}: the taint {key} goes by itself {when}. Take it off by hand only "
        f"where nobody else will (kubectl taint nodes {node.name} {taint}-), and do not tolerate it",
        look,
        f"kubectl describe node {node.name}",
    )


#: Who takes a node out of the cluster by a taint, and where it says why.
_LEAVING = {
    "karpenter.sh/disrupted": ("Karpenter", "kubectl get nodeclaims.karpenter.sh -o wide"),
    "karpenter.sh/disruption": ("Karpenter", "kubectl get nodeclaims.karpenter.sh -o wide"),
    "ToBeDeletedByClusterAutoscaler": (
        "the cluster autoscaler",
        "kubectl -n kube-system get configmap cluster-autoscaler-status -o yaml",
    ),
}


def _on_its_way_out(node: Node, taint: k8s.Taint) -> Fix:
    """A node that is being taken away, which nobody should have a pod tolerate."""
    who, look = _LEAVING[taint.key]
    return fixes.platform(
        f"Let the pod have another node (its events say why none is made for it): {who} is taking {node.name} out of the cluster. "
        "Do not tolerate its taint; where that stays for long, a pod there may not be evicted, or what set it no longer runs: it may then "
        "be taken away",
        f"kubectl describe node {node.name}",
        look,
        f"kubectl taint nodes {node.name} {show_taint(taint)}-",
    )


def _of_its_agent(pending: Pending, node: Node, key: str) -> Fix | None:
    """The pod of a DaemonSet that is called like a taint of new nodes, and should take that away, where it is not ready on the node."""
    named = {word for word in re.split(r"[./-]", key.partition("/")[0]) if len(word) > _SHORT_WORD}
    for pod in pending.pod.cluster.all(k8s.Pod, "Pod"):
        meta = pod.metadata
        agent = any(owner.kind == "DaemonSet" for owner in meta.owner_references) and named & set(meta.name.split("-"))
        if agent and pod.spec.node_name == node.name and not pod.status.ready:
            again = any(c.restart_count for c in pod.status.container_statuses)
            return fixes.platform(
                f"Fix {meta.namespace}/{meta.name} on {node.name}, which is not ready: it takes the taint {key} away when it is. Its log "
                "says what it lacks; do not tolerate the taint",
                f"kubectl -n {shlex.quote(meta.namespace)} logs {shlex.quote(meta.name)} --all-containers{' --previous' if again else ''}",
            )
    return None


#: `node`, `io`, `com` are in the keys of many.
_SHORT_WORD = 4


def _failing_manager(pending: Pending) -> k8s.Pod | None:
    """The pod of a cloud-controller-manager where none of them is ready."""
    named = (p for p in pending.pod.cluster.all(k8s.Pod, "Pod") if "cloud-controller-manager" in p.metadata.name)
    pods = [p for p in named if p.status.phase in ("Pending", "Running")]
    ready = any(p.status.ready for p in pods)
    return pods[0] if pods and not ready else None


def _undrained(pending: Pending, cordoned: list[Node]) -> Iterator[Fix]:
    """What a drain of a cordoned node waits for, and with it an upgrade that drains nodes itself: pods that a budget keeps there."""
    cluster = pending.pod.cluster
    for node in cordoned:
        there = [holder.pod for holder in pending.usage.holders(node.name)]
        for item in cluster.items("PodDisruptionBudget"):
            if dig(item.raw, "status.disruptionsAllowed") != 0:
                continue
            selector = _selector(item)
            kept = [
                pod.metadata.name
                for pod in there
                if pod.metadata.namespace == item.namespace and selected(selector, pod.metadata.label_texts)
            ]
            if kept:
                ref = f"PodDisruptionBudget {item.namespace}/{item.name}"
                yield fixes.platform(
                    f"Where {node.name} should be drained, let go what {ref} keeps there ({', '.join(sorted(kept)[:3])}: it allows no "
                    "eviction now): start another replica of it elsewhere, or delete the pod by hand; whoever drains the node goes on then",
                    f"kubectl -n {item.namespace} describe poddisruptionbudget {item.name}",
                )
                return


def _selector(budget: Item) -> k8s.LabelSelector | None:
    """Which pods a PodDisruptionBudget is for."""
    try:
        return k8s.convert(dig(budget.raw, "spec.selector"), k8s.LabelSelector)
    except msgspec.ValidationError:
        return None


def _fixes(pending: Pending, found: Cause) -> Iterator[Fix]:
    nodes = sorted((v.node for v in found.verdicts), key=lambda n: n.name)
    cordoned = [n for n in nodes if n.cordoned and n.ready is not False]
    ill = [n for n in nodes if n not in cordoned]
    offered = ways(pending, found)
    yield from offered
    yield from _undrained(pending, cordoned[:1])
    if cordoned and not offered:
        text = f"Uncordon {cordoned[0].name} when its maintenance is over, and fix what else stands in its way there"
        yield fixes.platform(text)
    if ill:
        first = ill[0]
        early = [t.removeprefix(_TAINT) for t in first.troubles if t.startswith(_TAINT) and t.endswith(_EARLY)]
        kept = next((key for key in _KEEPERS if f"{_TAINT}{key}" in first.troubles), "")
        if kept and len(first.troubles) == 1:
            yield _kept(pending, first, kept, len(ill))
        elif early and len(early) == len(first.troubles):
            yield _of_its_agent(pending, first, early[0]) or fixes.platform(
                f"See whether what takes the taint {early[0]} away runs on {first.name} (the pod of its DaemonSet), and restart it "
                "there: some take it away only when they start",
                fixes.pods_on(first.name),
            )
        elif leaving := [t for t in first.taints if t.key in _LEAVING]:
            yield _on_its_way_out(first, leaving[0])
        else:
            yield _mended(first)
    if not nodes:
        yield fixes.platform("See which nodes are out of service", "kubectl get nodes")
