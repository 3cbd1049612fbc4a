"""No node offers the resource."""

from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import (
    MACHINE,
    Cluster,
    Container,
    Finding,
    Fix,
    Item,
    Line,
    Nodes,
    Pending,
    check,
    count_of,
    dig,
    expression,
    fixes,
    is_accelerator,
    k8s,
    log_evidence,
    node_evidence,
    tolerated,
)
from llmdoctor_checks.scheduling._admission import (
    NO_DEVICES,
    WITHOUT_NVML,
    is_device_plugin,
    not_opened,
    opening,
    plugin_evidence,
    plugin_lines,
    plugins_on,
    state_of,
)
from llmdoctor_checks.scheduling._daemons import (
    Absent,
    finding_nothing,
    idle_discovery,
    let_in,
    missing,
    offering,
    uninstalled,
    why_none,
)
from llmdoctor_checks.scheduling._obstacles import Cause, vendor
from llmdoctor_checks.scheduling._repairs import named, renamed, tolerating, tried
from llmdoctor_checks.scheduling._separation import FARGATE, cause
from llmdoctor_checks.scheduling._words import (
    asked_in,
    asking,
    finding,
    machine_types,
    removed,
    rename,
    scaling_lines,
)

#: What the plugins offer that say so where they find nothing.
_OF_SUCH_PLUGINS = ("nvidia.com/", "volcano.sh/vgpu")

_SAW_NONE = (NO_DEVICES, "Failed to initialize NVML: ")


@check("gpu-resource-absent", since="0.1")
def gpu_resource_absent(pending: Pending) -> Iterator[Finding]:
    """No node offers the GPU resource that the pod asks for.

    The name in `resources.limits` is one that no node lists under `status.allocatable`: a typing error, the name of
    another vendor, or another name because the GPUs are shared (`nvidia.com/gpu.shared`); or there is no GPU node at
    all, for example because an autoscaled group is at zero.

    ## Fix

    Ask for the name that the nodes offer, or add GPU nodes. A node group that is at zero needs labels and resources in
    its template, or the autoscaler cannot know that a node of it would help. On EKS keep the pod out of every Fargate
    profile: Fargate has no GPUs, whatever the cluster's nodes offer.

    ## References

    - https://docs.aws.amazon.com/eks/latest/userguide/fargate.html
    - https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/device-plugins/
    - https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/FAQ.md
    """
    found = cause(pending, "gpu-resource-absent")
    if found is None:
        return
    asked = pending.requests.get(found.resource, 0)
    if pending.scheduler == FARGATE:
        profile = pending.pod.labels.get("eks.amazonaws.com/fargate-profile", "")
        summary = f"It asks for {asked} {found.resource}, and EKS gives it to Fargate, which has no GPUs"
        summary += f": Fargate profile {profile} selects it." if profile else "."
        yield finding(pending, found, summary, [*asked_in(pending, found.resource)], [_off_fargate(pending)])
        return
    offered = offers(pending)
    if not pending.verdicts:
        summary = f"It asks for {asked} {found.resource}, which no node could ever give, by the scheduler's count."
    else:
        summary = f"It asks for {asked} {found.resource}, which no node offers"
        summary += f"; the nodes offer {', '.join(offered)}." if offered else ", and no node offers any other GPU."
    evidence = [*asked_in(pending, found.resource)]
    for name, nodes in list(offered.items())[:3]:
        if node := pending.subject.nodes.get(nodes[0]):
            evidence.append(node_evidence(node, f"status.allocatable {name}: {node.allocatable(name)}"))
    of_them = found.resource.startswith(_OF_SUCH_PLUGINS)
    empty = _empty_handed(pending.pod.cluster) if of_them and not offered else []
    if empty:
        summary = (
            f"{summary[:-1]}; the device plugin of {empty[0][0]} runs and {_saw_none(empty[0][1])} when it started."
        )
        evidence += [log_evidence(line) for _, line in empty[:2]]
    kept = [] if offered or empty else _kept_off(pending, found.resource)
    if kept:
        summary = f"{summary[:-1]}; {why_none(kept)}."
        evidence += kept[0].evidence
    ending = [] if offered or empty or kept else _ending(pending, found.resource)
    evidence += [proof for node, _ in ending[:2] for proof in plugin_evidence(pending.pod.cluster, node)]
    ways = [
        *_plugin(empty, pending.pod.cluster),
        *_mended(ending, pending.subject.nodes),
        *_let_in(pending, kept),
        *(() if offered or empty or kept or ending else _brought(pending, found.resource)),
        *(() if kept else _fixes(pending, found, offered)),
    ]
    yield finding(pending, found, summary, [*evidence, *scaling_lines(pending)], ways)


def _off_fargate(pending: Pending) -> Fix:
    pod = pending.pod
    return fixes.platform(
        "Run it where no Fargate profile selects it (another namespace, or without the labels that the profile names), on nodes with GPUs",
        f"kubectl -n {pod.namespace} get pod {pod.name} --show-labels",
        "aws eks list-fargate-profiles --cluster-name CLUSTER",
    )


def _empty_handed(cluster: Cluster) -> list[tuple[str, Line]]:
    """Nodes whose device plugin says that it has found nothing and waits: it has no GPU there, or does not see it."""
    names = {text.pod for text in cluster.snapshot.logs}

    def found() -> list[tuple[str, Line]]:
        plugins = (p for p in cluster.all(k8s.Pod, "Pod") if p.metadata.name in names and is_device_plugin(p))
        waiting = (p for p in plugins if p.spec.node_name and not state_of(p).startswith("CrashLoopBackOff"))
        lines = [(p, line) for p in waiting for line in plugin_lines(cluster, p)]
        # where NVML is there, so are GPUs; and what says why stands before what it came to
        lines.sort(key=lambda one: (not not_opened(one[1]), WITHOUT_NVML.search(one[1].text[:2000]) is None))
        return [(p.spec.node_name, line) for p, line in lines if any(text in line.text for text in _SAW_NONE)]

    return cluster.once("device plugins without devices", found)


def _saw_none(line: Line) -> str:
    why = WITHOUT_NVML.search(line.text[:2000])
    return f"could not initialize NVML ({why['why']})" if why else "found no device"


def _ending(pending: Pending, resource: str) -> list[tuple[str, k8s.Pod]]:
    """Nodes on which the device plugin of the resource's maker ends again and again: without it a node offers no GPU."""
    maker = resource.partition(".")[0]
    plugins = [(n.name, p) for n in pending.subject.nodes for p in plugins_on(pending.pod.cluster, n.name)]
    return [
        (node, plugin)
        for node, plugin in plugins
        if maker in (plugin.metadata.name + "".join(c.image for c in plugin.spec.containers))
        and state_of(plugin).startswith("CrashLoopBackOff")
    ]


def _mended(ending: list[tuple[str, k8s.Pod]], nodes: Nodes) -> Iterator[Fix]:
    if ending:
        node, plugin = ending[0]
        name, space = plugin.metadata.name, plugin.metadata.namespace or "default"
        usual = f"usually the driver of {node}, or its container runtime without that driver"
        if (there := nodes.get(node)) and there.jetson:
            usual = "on a Jetson it must not ask NVML (DEVICE_DISCOVERY_STRATEGY=tegra in its env), and needs NVIDIA's runtime itself"
        yield fixes.platform(
            f"Fix what ends the device plugin {space}/{name} on {node} ({state_of(plugin)}), by its log: {usual}; "
            "where the node has such a GPU, it is offered as soon as the plugin runs",
            f"kubectl -n {space} logs {name} --previous --all-containers",
            fixes.on_node(node, "nvidia-smi") if "nvidia" in name else f"kubectl describe node {node}",
        )


def _kept_off(pending: Pending, resource: str) -> list[Absent]:
    """The device plugin that runs on no node at all, where nothing but a taint keeps it off some: those may have GPUs."""
    kept = missing(pending.pod.cluster, pending.subject.nodes, resource)
    idle = kept and dig(kept[0].item.raw, "status.desiredNumberScheduled") == 0
    by_taints = idle and kept[0].taints and not kept[0].unmet
    of_control = by_taints and all("control-plane" in taint.key or "master" in taint.key for taint in kept[0].taints)
    return kept if by_taints and not of_control else []


def _let_in(pending: Pending, kept: list[Absent]) -> Iterator[Fix]:
    """What lets the plugin onto tainted nodes, and the pod after it."""
    own = pending.pod.spec.tolerations
    closed = [taint for taint in (kept[0].taints if kept else ()) if not tolerated(taint, own)]
    for fix in let_in(kept, known=False):
        text = fix.summary + (f", and the pod too, which does not tolerate {named(closed)} either" if closed else "")
        yield msgspec.structs.replace(fix, summary=text)
    if closed:
        text = f"Have the pod tolerate {named(closed)} too, by which it comes to {kept[0].node.name} once that offers its GPUs"
        yield fixes.patch(pending.pod, text, tolerating(pending, closed))


def _plugin(empty: list[tuple[str, Line]], cluster: Cluster) -> Iterator[Fix]:
    if empty:
        node, line = empty[0]
        if not_opened(line):
            yield opening(node, line, cluster)
            return
        yield fixes.platform(
            f"If {node} has GPUs, look whether its driver works and whether the plugin's pod is given it (the runtime class nvidia, "
            "or nvidia as the default runtime), then restart the plugin",
            fixes.on_node(node, "nvidia-smi"),
        )


def _brought(pending: Pending, resource: str) -> Iterator[Fix]:
    """What lets a node offer the resource, where nothing says what keeps it from that."""
    if seen := finding_nothing(pending.pod.cluster, pending.subject.nodes, resource):
        yield from _running(seen)
        return
    yield from _undiscovered(pending, resource)
    yield from _uninstalled(pending, resource)


def _running(seen: list[Item]) -> Iterator[Fix]:
    """The device plugin of the maker, which runs where nobody says that there are no GPUs."""
    for item in seen[:1]:
        yield fixes.platform(
            f"See in the log of DaemonSet {item.namespace}/{item.name}, which runs here, why it finds no device, if a node has one: the "
            "driver of the node (lspci, /dev/dri, nvidia-smi), or a device that this plugin does not know",
            f"kubectl -n {item.namespace} logs daemonset/{item.name} --all-containers",
        )


def _undiscovered(pending: Pending, resource: str) -> Iterator[Fix]:
    """The discovery whose labels the device plugin selects, where it has labelled none of the nodes."""
    cluster = pending.pod.cluster
    item = idle_discovery(cluster, pending.subject.nodes) if offering(cluster, resource) else None
    if item is not None:
        ready, wanted = (dig(item.raw, f"status.{key}") or 0 for key in ("numberReady", "desiredNumberScheduled"))
        yield fixes.platform(
            f"See why DaemonSet {item.namespace}/{item.name} ({ready} of {count_of(wanted, 'pod')} ready) has labelled no node: the device "
            "plugin selects such labels, and runs where a node is known to have the device",
            f"kubectl -n {item.namespace} describe daemonset {item.name}",
            f"kubectl -n {item.namespace} logs daemonset/{item.name} --all-containers",
        )


def _uninstalled(pending: Pending, resource: str) -> Iterator[Fix]:
    """The device plugin that nobody installed, where nothing makes nodes as they are wanted."""
    cluster = pending.pod.cluster
    if pending.scaling or idle_discovery(cluster, pending.subject.nodes):
        return
    if fix := uninstalled(cluster, pending.subject.nodes, resource):
        yield fix


def offers(pending: Pending) -> dict[str, list[str]]:
    """The accelerators that nodes offer, each with its nodes."""
    offered: dict[str, list[str]] = {}
    for node in pending.subject.nodes:
        for name, amount in sorted(node.amounts.items()):
            if amount and is_accelerator(name):
                offered.setdefault(name, []).append(node.name)
    return offered


def _fixes(pending: Pending, found: Cause, offered: dict[str, list[str]]) -> Iterator[Fix]:
    for container in asking(pending, found.resource)[:1]:
        if others := [
            name for name in container.accelerators if name in offered and vendor(name) != vendor(found.resource)
        ]:
            yield _dropped(container, found.resource, others[0])
            return
    names = sorted(offered, key=lambda n: (vendor(n) != vendor(found.resource), n))
    working = [f for change in renamed(pending, found.resource, names) if (f := tried(pending, change))]
    yield from working[:2]
    kin = [n for n in offered if vendor(n) == vendor(found.resource)]
    from difflib import get_close_matches

    near = get_close_matches(found.resource, kin, n=1, cutoff=0) or list(offered)[:1]
    for container in asking(pending, found.resource)[:1]:
        if near and near[0] != found.resource and not working:
            text = f"Ask for {near[0]}, which {', '.join(offered[near[0]][:3])} offers, instead of {found.resource}"
            yield rename(container, found.resource, near[0], text)
    if not offered:
        yield _another_machine(pending, found.resource) or _more_nodes(pending, found.resource)


#: The types of Azure's and Google's machines that have no GPUs, and to which none can be attached.
_OF_OTHERS = expression(
    r"Standard_[A-FHLM]\w{1,40}|(?:e2|n2d?|n4|c2d?|c3d?|c4[ad]?|t2[ad]|m[1-4])-(?:standard|highmem|highcpu|ultramem|megamem|micro|small|"
    r"medium)[\w-]{0,20}"
)
#: The types of EC2's machines that have no GPUs: general ones, and those for computing, memory and disks.
_OF_EC2 = expression(
    r"[acdimrtxz]\d{1,2}[a-z]{0,4}(?:-flex)?\.(?:metal(?:-\d{1,3}xl)?|\d{0,3}x?large|nano|micro|small|medium)"
)


def _dropped(container: Container, resource: str, other: str) -> Fix:
    """It asks for devices of two vendors, and nodes have those of one."""
    text = f"Take {resource} out of the resources of {container.name}: it asks for {other}, too, which nodes have, and no node has both"
    return fixes.patch(container.pod, text, removed(container, resource))


def _another_machine(pending: Pending, resource: str) -> Fix | None:
    """The machine type that the pod demands, where a node of it is there and has none: a new one would not have any, either."""
    for path, types in machine_types(pending.pod):
        nodes = [node.name for node in pending.subject.nodes if node.labels.get(MACHINE) in types]
        if not nodes or not all(_OF_EC2.fullmatch(name) or _OF_OTHERS.fullmatch(name) for name in types):
            continue  # one that is not known may have GPUs, and nothing that offers them
        named = f"{' or '.join(types)}, which {nodes[0]} is, has none"
        made = pending.subject.cluster.items("Workspace", pending.pod.namespace)
        made_for = next((item for item in made if dig(item.raw, "resource.instanceType") in types), None)
        if made_for is None:
            return fixes.advice(
                f"Name a machine type that has {resource} in {path} in {fixes.edited(pending.pod)}: {named}"
            )
        text = (
            f"Make Workspace/{made_for.name} again with a resource.instanceType that has {resource}, as KAITO lets nobody "
            f"change it: {named}"
        )
        kind = f"workspaces.kaito.sh {made_for.name}"
        return fixes.advice(
            text, *(f"kubectl -n {made_for.namespace} {verb}" for verb in (f"get {kind} -o yaml", f"delete {kind}"))
        )
    return None


def _more_nodes(pending: Pending, resource: str) -> Fix:
    """No node has GPUs: a group may be at zero, whose nodes the cluster autoscaler judges by a template."""
    judged = any(event.reason == "NotTriggerScaleUp" and resource in event.message for event in pending.scaling)
    if not judged:
        types = {node.labels.get(MACHINE, "") for node in pending.subject.nodes}
        on_ec2 = resource == "nvidia.com/gpu" and types and all(map(_OF_EC2.fullmatch, types))
        text = f"Add a node with {pending.accelerators.get(resource, 1)} {resource} or more"
        text += (
            f" (of EC2's machines g4dn, g5 and g6 have such GPUs, {' and '.join(sorted(types)[:2])} none)"
            if on_ec2
            else ""
        )
        return fixes.platform(
            f"{text}; where a group of such nodes is at zero, give it a template that shows its GPUs to the autoscaler"
        )
    return fixes.platform(
        f"Give the group of GPU nodes, which is at zero, a template that shows its {resource} to the cluster autoscaler (AWS: the tag "
        f"k8s.io/cluster-autoscaler/node-template/resources/{resource} with the number that a node has, and the permission to read it; "
        "other clouds: the accelerator type of the group); where there is no such group, make one"
    )
