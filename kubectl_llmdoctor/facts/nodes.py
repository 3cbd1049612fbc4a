"""Nodes: their condition, taints, accelerators, and what they should offer by what is said of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from types import MappingProxyType

from msgspec.structs import replace

from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.accelerator import is_accelerator
from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.constraints import HOSTNAME, integer, is_state_taint
from kubectl_llmdoctor.facts.units import milli, units
from kubectl_llmdoctor.facts.usage import Amounts
from kubectl_llmdoctor.tree import say

#: Resources of InfiniBand, RoCE and EFA devices; of one that many pods share a node has more than it has devices.
RDMA = r"vpc\.amazonaws\.com/efa|rdma/.{1,60}|[^/]{1,80}/[\w.-]{0,40}(?:infiniband|roce|rdma|hca)[\w.-]{0,40}|[^/]{1,80}/ib[\w.-]{0,20}"
_MOST_OF_A_NODE = 32

_CONTROL_PLANE = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")

#: Labels by which a cloud names a node's machine type, GPU Feature Discovery and GKE its GPU.
MACHINE = "node.kubernetes.io/instance-type"
GPU_PRODUCT, GKE_GPU = "nvidia.com/gpu.product", "cloud.google.com/gke-accelerator"

#: Labels that say that a node has an NVIDIA GPU, and not how many. NFD names devices by vendor, or by class and vendor: a VGA or
#: a 3D controller.
_GPU_SIGNS = {
    "nvidia.com/gpu.present": "true",
    "feature.node.kubernetes.io/pci-10de.present": "true",
    "feature.node.kubernetes.io/pci-0300_10de.present": "true",
    "feature.node.kubernetes.io/pci-0302_10de.present": "true",
    "kubernetes.azure.com/accelerator": "nvidia",
    "k8s.amazonaws.com/accelerator": "nvidia",
    "karpenter.azure.com/sku-gpu-manufacturer": "nvidia",
    "karpenter.k8s.aws/instance-gpu-manufacturer": "nvidia",
    "eks.amazonaws.com/instance-gpu-manufacturer": "nvidia",
}

#: The same where NFD names devices by more than vendor and class (`sources.pci.deviceLabelFields`): device, subsystem. Of classes only
#: display controllers and accelerators: NVIDIA makes network adapters and NVSwitches, too.
_GPU_DEVICE = r"feature\.node\.kubernetes\.io/pci-(?:(?:03|12)[0-9a-f]{2}_)?10de(?:_[0-9a-f]{4}){1,3}\.present"

#: The same where the value names the GPU, or the machine that has some. Sources: GKE's list of GPU types; the GPU families of
#: EC2 (g4ad has AMD's), Azure (MI300X is AMD's, NV and NG of either maker) and Compute Engine.
_GPU_NAMES = (
    (GKE_GPU, r"nvidia-.+"),
    (
        MACHINE,
        r"(?:p[2-6]\w*|g4dn|g5\w*|g6\w*|gr6\w*|g7\w*)(?:-\w+)?\.\w+|Standard_N[CD](?!\w*MI300)\w+|(?:a[234]x?|g[24])-\w+-\w+",
    ),
)

#: What Talos writes on a node for its extensions: kernel modules or container toolkit for NVIDIA's GPUs were installed there.
_TALOS = r"extensions\.talos\.dev/(?:nonfree-kmod-nvidia|nvidia-(?:open-gpu|container-toolkit))[\w-]*"

#: The same for other makers' devices, by the start of their resources' names, as expressions for a label and its value. Sources:
#: the NodeFeatureRules of AMD's GPU operator and of Intel's device plugins; AMD's node labeller; AWS's names of instances with
#: Neuron devices.
_OTHER_SIGNS = (
    ("amd.com/", r"feature\.node\.kubernetes\.io/amd-gpu", "true"),
    ("amd.com/", r"(?:beta\.)?amd\.com/gpu\.(?:device-id|family|vram|product-name)\b.*", ".*"),
    ("gpu.intel.com/", r"intel\.feature\.node\.kubernetes\.io/gpu|gpu\.intel\.com/device-id\..+\.present", "true"),
    ("aws.amazon.com/neuron", r"node\.kubernetes\.io/instance-type", r"(?:inf|trn)\d\w*\.\w+"),
)

#: The same by NFD's names for a class and a vendor (3D and display controllers, accelerators): some processors have such a thing,
#: so they count where no node of the cluster offers the resource. A VGA controller is a part of most.
_ANY_DISPLAY = (("amd.com/gpu", r"feature\.node\.kubernetes\.io/pci-(?:0302|0380|1200)_1002\.present", "true"),)

#: A GPU node that is older and offers no GPU is no longer on its way: drivers that are compiled there take ten minutes.
_JOINING_SECONDS = 1230


#: Resources that every kubelet reports: where one is missing the object was shortened, so the amount is unknown.
_ALWAYS_REPORTED = ("cpu", "memory", "pods", "ephemeral-storage")


class Node:
    def __init__(self, obj: k8s.Node, cluster: Cluster) -> None:
        self.obj = obj
        self.cluster = cluster
        self.name = obj.metadata.name
        #: the name of the node that this one is a copy of, for the question what one more would do
        self.like = ""

    def changed(
        self,
        *,
        taints: Iterable[k8s.Taint] | None = None,
        cordoned: bool | None = None,
        labels: Mapping[str, str | None] = MappingProxyType({}),
    ) -> Node:
        """The same node with other taints, cordoned or not, with labels set or (None) taken away."""
        spec, meta = self.obj.spec, self.obj.metadata
        if taints is not None:
            spec = replace(spec, taints=tuple(taints))
        if cordoned is not None:
            spec = replace(spec, unschedulable=cordoned)
        merged = {**meta.labels, **labels}
        meta = replace(meta, labels={key: value for key, value in merged.items() if value is not None})
        return Node(replace(self.obj, spec=spec, metadata=meta), self.cluster)

    def twin(self, name: str) -> Node:
        """One more node like this one, fit for work, with nothing on it."""
        meta = replace(self.obj.metadata, name=name, uid="", labels={**self.obj.metadata.labels, HOSTNAME: name})
        taints = tuple(t for t in self.taints if not is_state_taint(t))
        spec = replace(self.obj.spec, unschedulable=False, taints=taints)
        found = Node(replace(self.obj, metadata=meta, spec=spec), self.cluster)
        found.like = self.like or self.name
        return found

    @cached_property
    def labels(self) -> dict[str, str]:
        """Its labels as strings."""
        return {key: say(value) for key, value in self.obj.metadata.labels.items()}

    @property
    def talos(self) -> bool:
        """Whether it runs Talos, whose host has no shell and no systemd: only its API reaches it (`talosctl`)."""
        return self.obj.status.node_info.os_image.startswith("Talos ")

    @property
    def jetson(self) -> bool:
        """Whether it is a Jetson: the kernel of JetPack, with which its driver comes."""
        return self.obj.status.node_info.kernel_version.endswith("-tegra")

    @property
    def taints(self) -> tuple[k8s.Taint, ...]:
        """Its taints as they stand in its spec."""
        return self.obj.spec.taints

    @property
    def cordoned(self) -> bool:
        """Whether it is marked unschedulable."""
        return self.obj.spec.unschedulable

    @cached_property
    def control_plane(self) -> bool:
        """Whether it is set aside for the control plane by role."""
        return any(key in self.labels for key in _CONTROL_PLANE) or any(t.key in _CONTROL_PLANE for t in self.taints)

    @property
    def joining(self) -> bool:
        """Whether it joined the cluster only just: drivers and device plugins take some minutes to come up."""
        age = self.cluster.seconds_since(self.obj.metadata.creation_timestamp)
        return age is not None and age < _JOINING_SECONDS

    def condition(self, kind: str, status: str = "") -> k8s.Condition | None:
        """Its condition of this type, and of this status where one is named."""
        return self.obj.status.condition(kind, status)

    @property
    def ready(self) -> bool | None:
        """Whether the Ready condition holds; None when it has none."""
        condition = self.condition("Ready")
        return None if condition is None else condition.status == "True"

    @property
    def troubles(self) -> tuple[str, ...]:
        """What is wrong with the node itself, in words: `cordoned`, `NotReady`, `DiskPressure`."""
        found = ["cordoned"] if self.cordoned else []
        ready = self.condition("Ready")
        if ready is not None and ready.status != "True":
            found.append("NotReady" if ready.status == "False" else "NotReady (unknown)")
        pressures = ("MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable")
        found += [c.type for c in self.obj.status.conditions if c.type in pressures and c.status == "True"]
        said = {"unschedulable", "not-ready", "unreachable"} if found else set()
        for taint in self.taints:
            short = taint.key.rpartition("/")[2]
            if taint.effect == "PreferNoSchedule" or not is_state_taint(taint) or short in said:
                continue
            if short.replace("-", "") not in {f.lower() for f in found}:
                found.append(f"taint {taint.key}")
        return tuple(found)

    def allocatable(self, resource: str) -> int | None:
        """Allocatable amount in whole units; None when the node does not list the resource."""
        return units(self.obj.status.allocatable.get(resource))

    def capacity(self, resource: str) -> int | None:
        """Capacity in whole units; None when the node does not list the resource."""
        return units(self.obj.status.capacity.get(resource))

    @cached_property
    def amounts(self) -> Amounts:
        """All that is allocatable, in the scheduler's units."""
        return {
            name: milli(quantity) or 0 if name == "cpu" else units(quantity) or 0
            for name, quantity in self.obj.status.allocatable.items()
        }

    def offers(self, resource: str) -> int | None:
        """Allocatable amount in the scheduler's units: 0 for a device that is not listed, None when it is not known."""
        found = self.amounts.get(resource)
        if found is None and self.obj.status.allocatable and resource not in _ALWAYS_REPORTED:
            return 0
        return found

    @cached_property
    def accelerators(self) -> dict[str, int]:
        """Allocatable accelerators by resource name (zero included)."""
        names = [*self.obj.status.capacity, *self.obj.status.allocatable]
        return {n: self.allocatable(n) or 0 for n in dict.fromkeys(names) if is_accelerator(n)}

    @property
    def product(self) -> str:
        """The GPU model as GPU Feature Discovery or the cloud labels it; empty when nothing does."""
        labels = self.labels
        for key in (GPU_PRODUCT, GKE_GPU, "amd.com/gpu.product-name"):
            if labels.get(key):
                return labels[key]
        return labels.get("karpenter.k8s.aws/instance-gpu-name", "")

    def should_offer(self, resource: str) -> tuple[int | None, str] | None:
        """How many devices the node has by its own account or its labels, and what says so; None when nothing does.

        The number is None where a label says only that there is one. Sources: capacity counts unhealthy devices too
        (kubelet device manager); GPU Feature Discovery's `nvidia.com/gpu.count` and `gpu.replicas`; GKE's accelerator
        count; Karpenter's instance labels; NVML, by the node agent; Talos's extensions; for other makers' devices `_OTHER_SIGNS`. Where
        devices are partitioned, renamed or served through DRA the labels say nothing about this resource.
        """
        labels = self.labels
        counted: list[tuple[int, str]] = []
        capacity = self.capacity(resource)
        if capacity:
            counted.append((capacity, f"status.capacity {resource}: {capacity}"))
        if resource != "nvidia.com/gpu" or self._elsewhere:
            return (
                max(counted, key=lambda pair: pair[0], default=None)
                or self._slices(resource)
                or self._sign_of(resource)
            )
        count = integer(labels.get("nvidia.com/gpu.count"))
        replicas = integer(labels.get("nvidia.com/gpu.replicas")) or 1
        if count:
            text = f"label nvidia.com/gpu.count={count}" + (f", gpu.replicas={replicas}" if replicas > 1 else "")
            counted.append((count * replicas, text))
        for key, whose in (
            ("cloud.google.com/gke-accelerator-count", GKE_GPU),
            ("karpenter.k8s.aws/instance-gpu-count", "karpenter.k8s.aws/instance-gpu-manufacturer"),
            ("eks.amazonaws.com/instance-gpu-count", "eks.amazonaws.com/instance-gpu-manufacturer"),
            ("karpenter.azure.com/sku-gpu-count", "karpenter.azure.com/sku-gpu-manufacturer"),
        ):
            count = integer(labels.get(key))
            if count and labels.get(whose, "").startswith("nvidia"):
                counted.append((count, f"label {key}={count}"))
        if seen := self._seen():
            counted.append((seen * replicas, f"agent: the driver sees {seen} GPU{'s' if seen > 1 else ''}"))
        if counted:
            return max(counted, key=lambda pair: pair[0])
        for key, value in _GPU_SIGNS.items():
            if labels.get(key) == value:
                return None, f"label {key}={value}"
        for key, names in _GPU_NAMES:
            if re.fullmatch(names, labels.get(key, "")):
                return None, f"label {key}={labels[key]}"
        if self.finely_named:
            return None, f"label {self.finely_named}={labels[self.finely_named]}"
        talos = next((key for key in labels if re.fullmatch(_TALOS, key)), None)
        return (None, f"label {talos}={labels[talos]}") if talos else None

    def _slices(self, resource: str) -> tuple[int | None, str] | None:
        """The same of slices of a GPU (MIG), where the node offers nothing of NVIDIA's at all; else it may be cut otherwise."""
        offered = any(amount for name, amount in self.accelerators.items() if name.startswith("nvidia.com/"))
        if not resource.startswith("nvidia.com/mig-") or offered or self._unmanaged:
            return None
        count = integer(self.labels.get(f"{resource}.count"))
        if count:
            return count, f"label {resource}.count={count}"
        strategy = self.labels.get("nvidia.com/mig.strategy")
        done = self.labels.get("nvidia.com/mig.config.state", "success") == "success"
        present = self.labels.get("nvidia.com/gpu.present") == "true"
        return (None, "label nvidia.com/mig.strategy=mixed") if strategy == "mixed" and done and present else None

    @property
    def finely_named(self) -> str:
        """The label by which NFD names an NVIDIA GPU of the node down to its device; empty where a plainer one does."""
        if any(self.labels.get(key) == value for key, value in _GPU_SIGNS.items()):
            return ""
        return next((k for k, v in self.labels.items() if v == "true" and re.fullmatch(_GPU_DEVICE, k)), "")

    def _sign_of(self, resource: str) -> tuple[None, str] | None:
        """The label that says that the node has a device of another maker; None where it offers one under another name."""
        nowhere = not any(node.allocatable(resource) for node in nodes_of(self.cluster))
        for start, key, value in (*_OTHER_SIGNS, *(_ANY_DISPLAY if nowhere else ())):
            if resource.startswith(start) and not any(n.startswith(start) and v for n, v in self.accelerators.items()):
                for name, label in self.labels.items():
                    if re.fullmatch(key, name) and re.fullmatch(value, label):
                        return None, f"label {name}={label}"
        return None

    def _seen(self) -> int | None:
        """How many GPUs the driver sees, none of them partitioned; of a copy of a node nobody has seen any."""
        if self.like or self.name not in self.cluster.snapshot.nodes:
            return None
        from kubectl_llmdoctor.facts.node_hardware import node_hardware  # only where the node was asked

        hardware = node_hardware(self.cluster, self.name)
        return hardware.whole if hardware and hardware.whole == len(hardware.devices) else None

    @property
    def _elsewhere(self) -> bool:
        """Whether its NVIDIA GPUs are advertised under another name, or not by the device plugin at all."""
        labels = self.labels
        return (
            any(n.startswith(("nvidia.com/mig-", "nvidia.com/gpu.shared")) and v for n, v in self.accelerators.items())
            or any(k.startswith("nvidia.com/mig-") and k.endswith(".count") for k in labels)
            or self._unmanaged
        )

    @property
    def _unmanaged(self) -> bool:
        """Whether NVIDIA's device plugin is not to run there."""
        labels = self.labels
        return (
            labels.get("nvidia.com/gpu.deploy.device-plugin") == "false"
            or labels.get("nvidia.com/gpu.deploy.operands") == "false"
            or labels.get("nvidia.com/gpu.workload.config", "container") != "container"
        )


def nodes_of(cluster: Cluster) -> Nodes:
    """All nodes of the snapshot, made once."""
    return cluster.once(
        "nodes", lambda: Nodes([Node(n, cluster) for n in cluster.all(k8s.Node, "Node")], complete=cluster.nodes_known)
    )


class Nodes:
    """All nodes of the snapshot; `complete` says whether these are all of the cluster."""

    def __init__(self, nodes: list[Node], *, complete: bool) -> None:
        self.all = nodes
        self.complete = complete

    def __iter__(self) -> Iterator[Node]:
        return iter(self.all)

    def __len__(self) -> int:
        return len(self.all)

    @cached_property
    def _by_name(self) -> dict[str, Node]:
        return {n.name: n for n in reversed(self.all)}

    def get(self, name: str) -> Node | None:
        """A node by its name; None when it was not read."""
        return self._by_name.get(name)


def rdma_offered(cluster: Cluster, gpus: int, own: str) -> tuple[str, int] | None:
    """The RDMA devices that a pod's own node offers, or where that was not read any with GPUs, and how many go with so many GPUs."""
    every = cluster.all(k8s.Node, "Node")
    for node in [one for one in every if one.metadata.name == own] or every:
        offered = node.status.allocatable
        on_node = sum(units(n) or 0 for name, n in offered.items() if is_accelerator(name))
        for name, amount in sorted(offered.items()) if on_node else ():
            if re.fullmatch(RDMA, name.lower()) and (have := units(amount) or 0) > 0:
                return name, max(have * gpus // on_node, 1) if have <= _MOST_OF_A_NODE else 1
    return None
