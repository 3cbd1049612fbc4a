"""DaemonSets that offer a device on the nodes, and what keeps the pod of one off a node."""

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from kubectl_llmdoctor.api import (
    GKE_GPU,
    MACHINE,
    Cluster,
    Evidence,
    Fix,
    Item,
    Mismatch,
    Node,
    count_of,
    dig,
    few,
    fixes,
    holds,
    is_state_taint,
    k8s,
    object_evidence,
    rows,
    show_taint,
    tolerated,
    usage_of,
)
from llmdoctor_checks.scheduling._demands import labels_wanted

#: How images and DaemonSets of device plugins are called: of GPUs and accelerators, EFA, RDMA, SR-IOV.
_NAMES = r"device-?plugin|intel-[gn]pu-plugin|rdma-shared-d|(?:gpu|dra)\S{0,40}-kubelet-?plugin"
#: What has the same image, or name, and offers nothing.
_OTHERS = r"feature-discovery|\bgfd\b|mps-control"
#: What finds the devices of a node and labels it, by which NVIDIA's operator knows it (the chart's, and OpenShift's).
_DISCOVERY = r"node-feature-discovery-worker|nfd-worker"
#: What labels nodes by their GPUs besides: NVIDIA's, and what has it in its chart.
_LABELS_NODES = rf"{_DISCOVERY}|feature-discovery|\bgfd\b"
#: Parts of resources' names that say nothing of the maker.
_PLAIN = frozenset({"com", "gpu", "vpc", "amazonaws", "shared", "device", "org", "mig"})
#: Labels that a feature discovery writes and takes away again.
_DISCOVERED = "feature.node.kubernetes.io/"
#: NVIDIA's devices by class and vendor, as NFD names them unless it is told to leave the class out.
_BY_VENDOR, _BY_CLASS = "pci-10de.present", r"feature\.node\.kubernetes\.io/pci-03\d\d_10de\.present"
#: What an operator writes on the nodes that it serves itself.
_DEPLOYED, _PAUSED = "nvidia.com/gpu.deploy.", "paused-for-"
#: The driver that GKE installs on a node by itself: default, latest, or disabled.
_GKE_DRIVER = "cloud.google.com/gke-gpu-driver-version"
#: What keeps GKE's own device plugin off a node, where another one is to run.
_NOT_GOOGLES = "gke-no-default-nvidia-gpu-device-plugin"
#: The type of the GPUs of Google's machines, which have them built in, in the words of that label.
_GKE_TYPES = (
    ("g2-", "nvidia-l4"),
    ("g4-", "nvidia-rtx-pro-6000"),
    ("a2-ultragpu-", "nvidia-a100-80gb"),
    ("a2-", "nvidia-tesla-a100"),
    ("a3-ultragpu-", "nvidia-h200-141gb"),
    ("a3-megagpu-", "nvidia-h100-mega-80gb"),
    ("a3-", "nvidia-h100-80gb"),
    ("a4x-", "nvidia-gb200"),
    ("a4-", "nvidia-b200"),
)
#: Nodes that are labelled by their names; of more it is not likely that all have the devices.
_MOST_NAMED = 8
#: Nodes that a sentence names one by one.
_MOST_NODES = 4
#: The label by which each kind of pool marks its nodes, and where labels for all of them belong.
_POOLS = (
    ("karpenter.sh/nodepool", "NodePool {} (spec.template.metadata.labels)"),
    ("eks.amazonaws.com/nodegroup", "node group {}"),
    ("cloud.google.com/gke-nodepool", "node pool {}"),
    ("kubernetes.azure.com/agentpool", "node pool {}"),
    ("agentpool", "node pool {}"),
)


class Absent(msgspec.Struct, frozen=True):
    """A DaemonSet that offers a resource and whose pods do not go to a node."""

    item: Item
    node: Node
    taints: tuple[k8s.Taint, ...]
    unmet: tuple[Mismatch, ...]

    @property
    def evidence(self) -> Iterator[Evidence]:
        """Where the DaemonSet says so."""
        spec = dig(self.item.raw, "spec.template.spec") or {}
        if self.taints:
            told = [str(row.get("key") or "*") for row in rows(spec, "tolerations")]
            yield object_evidence(
                self.item, "spec.template.spec.tolerations", f"tolerates {', '.join(told) or 'nothing'}"
            )
        for miss in self.unmet[:2]:
            yield object_evidence(self.item, f"spec.template.spec.{miss.path}", miss.demand)


def absent(cluster: Cluster, node: Node, resource: str) -> Absent | None:
    """Why no DaemonSet makes a pod on a node that offers this resource; None where one does, or none is known to be for it.

    Where NVIDIA's operator has not labelled the node for its own, it is feature discovery that comes first.
    """
    found = _off(cluster, node, lambda names: named(names, resource))
    if found and any(m.key.startswith(_DEPLOYED) and m.have is None for m in found.unmet):
        return _off(cluster, node, lambda names: bool(re.search(_DISCOVERY, names[0]))) or found
    return found


def offering(cluster: Cluster, resource: str) -> list[Item]:
    """The DaemonSets that are device plugins of the maker of a resource."""
    found = []
    for item in cluster.items("DaemonSet"):
        images = [str(row.get("image") or "") for row in rows(item.raw, "spec.template.spec.containers")]
        if named((item.name, *images), resource):
            found.append(item)
    return found


#: How the device plugins of makers are installed where nothing else does it.
_INSTALLED = {
    "nvidia.com": "helm upgrade --install nvdp nvidia-device-plugin --repo https://nvidia.github.io/k8s-device-plugin "
    "-n nvidia-device-plugin --create-namespace{}",
    "amd.com": "kubectl create -f https://raw.githubusercontent.com/ROCm/k8s-device-plugin/master/k8s-ds-amdgpu-dp.yaml",
    "aws.amazon.com": "helm upgrade --install neuron-helm-chart oci://public.ecr.aws/neuron/neuron-helm-chart --set npd.enabled=false",
    "gpu.intel.com": "kubectl apply -k 'https://github.com/intel/intel-device-plugins-for-kubernetes/deployments/gpu_plugin?ref=main'",
}
#: Those among them whose GPUs are in machines of one's own as well.
_PLUGINS = {
    "nvidia.com": "NVIDIA's device plugin",
    "amd.com": "AMD's device plugin (ROCm/k8s-device-plugin, a DaemonSet)",
}
#: What else a node must have for it.
_BESIDES = {
    "aws.amazon.com": "; the image of the node must have the Neuron driver (EKS: AL2023_x86_64_NEURON, up to 1.32 AL2_x86_64_GPU)"
}
_LIST = "kubectl get daemonsets -A -o wide | grep -iE 'device-?plugin|gpu'"


def driver_of_google(node: str, labels: Mapping[str, str]) -> Fix:
    """What GKE's own device plugin waits for, which GKE runs on each of its nodes with GPUs: the driver."""
    mine = f"kubectl -n kube-system get pods -o wide --field-selector spec.nodeName={node} | grep -i nvidia"
    if (release := labels.get(_GKE_DRIVER, "disabled")) in ("default", "latest"):
        return fixes.platform(
            f"See why GKE has no driver on {node}, where it installs one by itself (gpu-driver-version {release}): the first containers of "
            "its device plugin's pod in kube-system do that, within minutes of a new node",
            mine,
            f"kubectl get events -A --field-selector involvedObject.name={node}",
        )
    pool, kind = labels.get("cloud.google.com/gke-nodepool", "POOL"), labels.get(GKE_GPU, "TYPE")
    return fixes.platform(
        f"Have the driver installed on {node}, which GKE's device plugin there waits for: let GKE install it in that node pool "
        "(gpu-driver-version), or apply Google's DaemonSet nvidia-driver-installer (that of the node's image, COS or Ubuntu)",
        f"gcloud container node-pools update {shlex.quote(pool)} --cluster=CLUSTER "
        f"--accelerator=type={shlex.quote(kind)},count=COUNT,gpu-driver-version=default",
        mine,
    )


def brought(cluster: Cluster, node: str, resource: str) -> Fix:
    """What brings a device plugin to a node on which none runs: the one that is there, or its installation."""
    where, maker = node or "its node", resource.partition("/")[0]
    there = offering(cluster, resource) if resource else []
    if there:
        item = there[0]
        name = f"{item.namespace}/{item.name}"
        counts = [dig(item.raw, f"status.{key}") for key in ("desiredNumberScheduled", "numberReady")]
        of = f" ({counts[1] or 0} of {count_of(counts[0], 'pod')} ready)" if counts[0] else ""
        return fixes.platform(
            f"Bring the pod of DaemonSet {name}{of} to {where}: its events say what keeps it off",
            f"kubectl -n {item.namespace} describe daemonset {item.name}",
            f"kubectl get pods -n {item.namespace} -o wide --field-selector spec.nodeName={node}" if node else _LIST,
        )
    machine = next((n for n in cluster.all(k8s.Node, "Node") if n.metadata.name == node), None)
    labels = machine.metadata.label_texts if machine else {}
    if maker == "nvidia.com" and GKE_GPU in labels and labels.get(_NOT_GOOGLES) != "true":
        return driver_of_google(node, labels)
    if maker == "nvidia.com" and machine and machine.status.node_info.os_image.startswith("Bottlerocket"):
        return _of_bottlerocket(node, machine.status.node_info.os_image)
    install = _INSTALLED.get(maker, "")
    if "{}" in install:
        runtime = " --set runtimeClassName=nvidia" if cluster.item("RuntimeClass", "", "nvidia") else ""
        install = install.format(runtime)
    none = bool(resource) and cluster.complete("DaemonSet")
    text = (
        f"Install the device plugin of {maker or 'the devices'}, which has no DaemonSet here: {where} has no pod of it"
    )
    if not none:
        text = f"Install the device plugin of {maker or 'the devices'} where there is none; else let its DaemonSet select {where}"
        taints = [show_taint(t) for t in machine.spec.taints] if machine else []
        text += f" and tolerate its taints ({', '.join(taints)})" if taints else ""
    text += _BESIDES.get(maker, "")
    return fixes.platform(text, *([] if none else [_LIST]), *filter(None, [install]))


def _of_bottlerocket(node: str, image: str) -> Fix:
    """What has Bottlerocket offer the GPUs of a node: its variants for NVIDIA run the device plugin themselves, as a service."""
    if "nvidia" not in image.lower():
        return fixes.platform(
            f"Make nodes like {node} from Bottlerocket's variant for NVIDIA: this one ({image}) has no driver for the GPUs"
        )
    return fixes.platform(
        f"Reboot or replace {node}, on which the device plugin is a service of Bottlerocket's ({image}) and no pod; where that comes back "
        "take a later release of Bottlerocket, and see what the service said as it started",
        fixes.on_node(node, "journalctl -u nvidia-k8s-device-plugin"),
    )


def _off(cluster: Cluster, node: Node, meant: Callable[[tuple[str, ...]], bool]) -> Absent | None:
    """The DaemonSet of some that comes nearest to a pod on a node; None where one has, or would have, one there."""
    pods = [h.pod for h in usage_of(cluster).holders(node.name)]
    if node.ready is False or any(meant((p.metadata.name, *(c.image for c in p.spec.containers))) for p in pods):
        return None
    found = []
    for item in cluster.items("DaemonSet"):
        typed = item.typed()
        template = typed.spec.template if isinstance(typed, k8s.Workload) else None
        if template is None or not meant((item.name, *(c.image for c in template.spec.containers))):
            continue
        taints = tuple(t for t in node.taints if _keeps_off(t) and not tolerated(t, template.spec.tolerations))
        unmet = _unmet(template.spec, node)
        if not taints and not unmet:
            return None
        found.append(Absent(item, node, taints, unmet))
    return min(found, key=lambda one: (len(one.taints) + len(one.unmet), one.item.name), default=None)


def named(names: tuple[str, ...], resource: str) -> bool:
    """Whether one of a pod's names is that of a device plugin, and some say the maker of the resource."""
    short = " ".join(name.rpartition("/")[2] for name in names).lower()
    makers = [word for word in re.split(r"[./_-]", resource.lower()) if len(word) > 2 and word not in _PLAIN]
    makers += ["hami"] * resource.startswith("nvidia.com/") + ["rocm"] * ("amd" in makers)
    if re.search(_OTHERS, names[0]) or not re.search(_NAMES, short):
        return False
    return any(word in " ".join(names).lower() for word in makers)


def _keeps_off(taint: k8s.Taint) -> bool:
    """Whether a taint keeps pods of DaemonSets off for good: what says the node's state is taken away again."""
    return taint.effect != "PreferNoSchedule" and not is_state_taint(taint)


def _unmet(spec: k8s.PodSpec, node: Node) -> tuple[Mismatch, ...]:
    """The labels that a node lacks for the pods of a DaemonSet, by the term that is easiest to meet by hand."""
    own = [
        Mismatch(path="nodeSelector", key=k, demand=f"{k}={v}", wanted=(str(v),), have=node.labels.get(k))
        for k, v in spec.node_selector.items()
        if node.labels.get(k) != str(v)
    ]
    ways = []
    for term in spec.node_terms:
        failed = [row for row in term.match_expressions if not holds(row, node.labels)]
        if not failed:
            return tuple(own)
        ways.append(
            [
                Mismatch(
                    path="affinity.nodeAffinity",
                    key=row.key,
                    demand=f"{row.key}={row.values[0]}" if row.operator == "In" and len(row.values) == 1 else row.text,
                    wanted=tuple(map(str, row.values))
                    if row.operator == "In"
                    else _value(row.key, node) * (row.operator == "Exists"),
                    have=node.labels.get(row.key),
                )
                for row in failed
            ]
        )
    easiest = min(ways, key=lambda way: (any(m.key.startswith(_DISCOVERED) for m in way), len(way)), default=[])
    return (*own, *easiest)


def _value(key: str, node: Node) -> tuple[str, ...]:
    """What a label is to say where any value will do; that of GKE's GPUs is their type, which others read."""
    if key != GKE_GPU:
        return ("true",)
    machine = str(node.labels.get(MACHINE) or "")
    return tuple(gpu for family, gpu in _GKE_TYPES if machine.startswith(family))[:1]


def missing(cluster: Cluster, nodes: Iterable[Node], resource: str) -> list[Absent]:
    """The DaemonSet for a resource that makes no pod on the first of some nodes, and on those that lack the same."""
    found = [one for node in nodes if (one := absent(cluster, node, resource))]
    return [
        one for one in found if (one.item, one.taints, one.unmet) == (found[0].item, found[0].taints, found[0].unmet)
    ]


#: What distributions call any machine, where no cloud tells its type.
_NO_TYPE = ("", "k3s", "rke2")


def _untold(nodes: list[Node]) -> bool:
    """Whether no cloud tells the types of the machines, by which one would know of their devices."""
    return {str(node.labels.get(MACHINE, "")) for node in nodes} <= {*_NO_TYPE}


def finding_nothing(cluster: Cluster, nodes: Iterable[Node], resource: str) -> list[Item]:
    """The device plugins of the maker that run on machines of which no cloud tells what they have."""
    plugins = offering(cluster, resource) if _untold([*nodes]) else []
    return [item for item in plugins if dig(item.raw, "status.numberReady")]


def uninstalled(cluster: Cluster, nodes: Iterable[Node], resource: str) -> Fix | None:
    """The device plugin of a maker, which is not here, on machines of which no cloud tells what they have: one may have its GPUs."""
    known = [node for node in nodes if not node.control_plane] or [*nodes]
    maker = resource.partition("/")[0]
    if (
        not known
        or not _untold(known)
        or maker not in _PLUGINS
        or resource != f"{maker}/gpu"
        or offering(cluster, resource)
    ):
        return None
    names = [node.name for node in known]
    where = ", ".join(names) if len(names) <= _MOST_NODES else f"one of the {len(names)} nodes"
    install = _INSTALLED[maker]
    if "{}" in install:
        install = install.format(" --set runtimeClassName=nvidia" if cluster.item("RuntimeClass", "", "nvidia") else "")
    complete = cluster.complete("DaemonSet")
    return fixes.platform(
        f"Where {where} has such a GPU and its driver, install {_PLUGINS[maker]}, without which no node offers {resource}"
        + (": no DaemonSet here is one" if complete else ", if there is none yet"),
        *([] if complete else [_LIST]),
        install,
    )


def unlabelled(cluster: Cluster, nodes: Iterable[Node], resource: str) -> list[Absent]:
    """The device plugin that runs nowhere for want of labels that nothing here would set: no discovery, no cloud that tells the type.

    A discovery that is installed and does not work is to be mended.

    NVIDIA's chart selects such labels since 0.15, and brings the discovery only where it is told to (gfd.enabled, nfd.enabled).
    """
    known = list(nodes)
    if not _untold(known) or any(key.startswith(_DISCOVERED) for node in known for key in node.labels):
        return []
    if idle_discovery(cluster, known):
        return []
    workers = [node for node in known if not node.control_plane] or known
    found = [one for one in missing(cluster, workers, resource) if not one.taints and labels_wanted([*one.unmet])]
    plugins = offering(cluster, resource)
    idle = plugins and all(dig(item.raw, "status.desiredNumberScheduled") == 0 for item in plugins)
    return found if idle else []


def idle_discovery(cluster: Cluster, nodes: Iterable[Node]) -> Item | None:
    """The feature discovery that has pods to run and has labelled no node: it does not work."""
    if any(key.startswith(_DISCOVERED) for node in nodes for key in node.labels):
        return None
    having = (item for item in cluster.items("DaemonSet") if dig(item.raw, "status.desiredNumberScheduled"))
    return next((item for item in having if re.search(_LABELS_NODES, item.name)), None)


def why_none(found: list[Absent]) -> str:
    """`DaemonSet kube-system/efa-plugin makes no pod on n1: it selects efa=enabled, which the node lacks`."""
    first, names, parts = found[0], [one.node.name for one in found], []
    if first.taints:
        parts.append(f"it does not tolerate {', '.join(show_taint(t) for t in first.taints)}")
    if first.unmet:
        lacks = all(m.have is None for m in first.unmet)
        meets = ("lacks" if lacks else "does not meet") if len(names) == 1 else "lack" if lacks else "do not meet"
        nodes = "the node" if len(names) == 1 else "the nodes"
        parts.append(f"it selects {' and '.join(m.demand for m in first.unmet)}, which {nodes} {meets}")
    where = few(names, _MOST_NODES)
    return f"DaemonSet {first.item.namespace}/{first.item.name} makes no pod on {where}: {' and '.join(parts)}"


def let_in(found: list[Absent], *, known: bool = True) -> Iterator[Fix]:
    """What brings the pods of a DaemonSet to nodes: tolerations in it, labels on the nodes. `known`: they have the devices."""
    if not found:
        return
    first = found[0]
    if first.taints:
        yield _tolerating(first)
    if not first.unmet or any(
        m.key.startswith(_DEPLOYED) and (m.have or _PAUSED).startswith(_PAUSED) for m in first.unmet
    ):
        return  # an operator writes such labels itself, on the nodes that it knows, and takes the plugin off while it works there
    where = f"DaemonSet {first.item.namespace}/{first.item.name}"
    names = [one.node.name for one in found]
    if not labels_wanted([*first.unmet]):
        if any(m.key == GKE_GPU and m.have is None for m in first.unmet):
            yield fixes.platform(
                f"Label {', '.join(names)} {GKE_GPU} with the type of its GPUs in Google's words (nvidia-tesla-t4, nvidia-l4), by which "
                f"{where} knows nodes with GPUs, and for good in what makes such nodes"
            )
            return
        demands = " and ".join(m.demand for m in first.unmet)
        built = ", for which its image must have a variant" * any(
            m.key.endswith("kubernetes.io/arch") for m in first.unmet
        )
        yield fixes.platform(f"Have {where} select {', '.join(names)} too{built}: it demands {demands}")
        return
    pairs = shlex.join(f"{m.key}={m.wanted[0]}" for m in first.unmet)
    labels = first.node.labels
    pool = next((text.format(labels[key]) for key, text in _POOLS if key in labels), "")
    for_good = f", and for good in {pool}" if pool else ""
    by_vendor = _BY_VENDOR in str(dig(first.item.raw, "spec.template.spec.affinity"))
    if by_vendor and any(re.fullmatch(_BY_CLASS, key) for key in labels):
        for_good += "; or let NFD leave the class out (sources.pci.deviceLabelFields: [vendor] of its worker)"
    if not known or len(names) > _MOST_NAMED:
        yield fixes.platform(
            f"Label the nodes that have the devices {pairs}, which {where} selects: none of {', '.join(names[:_MOST_NODES])} has it",
            f"kubectl label node NODE --overwrite {pairs}",
        )
        return
    yield fixes.platform(
        f"Label {', '.join(names)} {pairs}, which {where} selects{for_good}",
        f"kubectl label node {' '.join(names)} --overwrite {pairs}",
    )


def _tolerating(found: Absent) -> Fix:
    """The tolerations in the DaemonSet, or in the object that makes it."""
    item = found.item
    values = [toleration(taint) for taint in found.taints]
    text = f"Have DaemonSet {item.namespace}/{item.name} tolerate {', '.join(show_taint(t) for t in found.taints)} of {found.node.name}"
    policy = cluster_policy(found.node.cluster) if fixes.maker(item).startswith("ClusterPolicy/") else None
    target, at = (policy, "/spec/daemonsets") if policy else (item, "/spec/template/spec")
    there = rows(target.raw, f"{at[1:].replace('/', '.')}.tolerations")
    operations: list[dict[str, Any]] = [
        {"op": "add", "path": f"{at}/tolerations/-", "value": value} for value in values
    ]
    if not there:
        operations = [{"op": "add", "path": f"{at}/tolerations", "value": values}]
    return fixes.patch_object(target, text, operations, owner="platform")


def cluster_policy(cluster: Cluster) -> Item | None:
    """The object of which NVIDIA's GPU operator makes its DaemonSets."""
    return next(
        (i for i in cluster.items("ClusterPolicy") if i.api_version.startswith("nvidia.com/")), None
    )  # Kyverno has such, too


def toleration(taint: k8s.Taint) -> dict[str, str]:
    """The toleration of one taint and no more."""
    if taint.value in ("", None):
        return {"key": taint.key, "operator": "Exists", "effect": taint.effect}
    return {"key": taint.key, "operator": "Equal", "value": str(taint.value), "effect": taint.effect}
