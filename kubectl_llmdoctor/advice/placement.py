"""The node that the pod is on and others: GPUs, driver, runtime, network, taints and architecture."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple, get_args

from kubectl_llmdoctor.advice.declared import Condition, OfPlacement
from kubectl_llmdoctor.advice.occurrence import Topic
from kubectl_llmdoctor.advice.templates import Value
from kubectl_llmdoctor.catalog.images import foreign_resource
from kubectl_llmdoctor.driver import branch_for, branch_of, driver_cuda, image_cuda, say_cuda, suffices
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.accelerator import Accelerator, is_accelerator
from kubectl_llmdoctor.facts.cluster import Item
from kubectl_llmdoctor.facts.container import VISIBLE
from kubectl_llmdoctor.facts.k8s import Node
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.units import few, milli
from kubectl_llmdoctor.facts.usage import pods_on, usage_of
from kubectl_llmdoctor.template_values import template_value
from kubectl_llmdoctor.tree import dig, rows

#: What a driver has to have: a release of CUDA, or a version of its own.
_CUDA_WANTED = expression(r"cuda\s?>=\s?(?P<major>\d{1,2})\.(?P<minor>\d{1,2})")
_DRIVER_WANTED = expression(r"(?P<branch>[4-9]\d\d)(?:\.\d{1,3}){0,2}")

#: Resources of slices of a GPU.
_MIG = "nvidia.com/mig-"

#: How the labels begin that GKE gives each node: its pool, its accelerator, its boot disk.
_GKE = "cloud.google.com/gke-"

#: Where AKS says to which pool a node belongs.
_AKS = "kubernetes.azure.com/agentpool"

_ARCH = "kubernetes.io/arch"

#: GPUs of servers whose NVSwitches the fabric manager reaches as InfiniBand devices (NVLink 5).
_BY_INFINIBAND = frozenset({"B100", "B200", "B300"})

#: What is taken to be so where only a log is known.
_OF_A_LOG: tuple[OfPlacement, ...] = (
    "gpu asked", "no gpu asked", "NVIDIA's or unknown", "whole gpu", "no runtime class", "runtime class open",
    "not on GKE", "pod network",
)  # fmt: skip


#: Amazon's images for EKS nodes that bring no driver (awslabs/amazon-eks-ami: variant standard, beside nvidia and neuron).
_BARE_AMI = expression(r"amazon-eks-node-al2023-(?P<arch>x86_64|arm64)-standard-(?P<release>\d\.\d{1,3})-\S{1,40}")


_NVIDIA = "nvidia.com/gpu"

#: The labels by which nodes tell which GPUs they have: of GPU Feature Discovery, AMD's node labeller, NFD's rules for Intel's.
_GPU_LABELS = {
    "nvidia.com": "nvidia.com/gpu.product,nvidia.com/gpu.compute.major,nvidia.com/gpu.compute.minor",
    "amd.com": "amd.com/gpu.product-name,amd.com/gpu.family",
    "gpu.intel.com": "gpu.intel.com/product,gpu.intel.com/family",
}
#: The variables that turn AMD's library of kernels (AITER) on, of vLLM and SGLang, and what names a generation of AMD's GPUs.
_AITER = ("VLLM_ROCM_USE_AITER", "SGLANG_USE_AITER")
_OF_AMD = expression(r"\bgfx\d|\bCDNA|\bMI\d{3}")

#: Kernels of DGX Spark that lose the memory set apart for DMA (CMA), by which adapters register any.
_LOSES = expression(r"7\.0\.0-(?:31|1019)-nvidia")

#: A containerd that knows no CDI, as a node reports it, and the release of the GPU operator in the name of its chart.
_BEFORE_CDI = expression(r"containerd://v?(?P<version>1\.[0-6]\.\S{1,40})")
_OPERATOR = expression(r"gpu-operator-v?(?P<year>\d{2})\.(?P<month>\d{1,2})\.")

#: What NVIDIA's IMEX daemon says where another one has the driver's session.
_NO_SESSION = expression(r"(?i)IMEX session.{0,200}NV_ERR_IN_USE")

#: Images of servers that go on without a GPU where they see none, and so prove nothing by being ready.
_WITHOUT = expression(r"(?i)ollama|llama[._-]?cpp|llama-server|local-?ai|llamafile|koboldcpp|pause(?:$|[:@])")


class _Wanted(NamedTuple):
    """A driver that is needed, in words, other nodes that have it, and whether that of the pod's own node is enough, where known."""

    needed: str = ""
    nodes: str = ""
    enough: bool | None = None


class Placement(Topic):
    """What the pod asks of its node, what that one has, and which others have it."""

    decides = get_args(OfPlacement)

    def values(self) -> dict[str, Value]:
        return super().values() | {
            "driver_needed": lambda: self._wanted.needed,
            "newer_driver_nodes": lambda: self._wanted.nodes,
            "driver_behind": lambda: self._wanted.needed if self._wanted.enough is False else "",
            "driver_doubtful": lambda: self._wanted.needed if self._wanted.enough is None else "",
            "neighbour": lambda: self._beside[0][0] if self._beside else "",
            "bare_ami": lambda: self._bare_ami[0],
            "driver_ami": lambda: self._bare_ami[1],
            "node_class": lambda: self._bare_ami[2],
            "aks_pool": lambda: self._node.labels.get(_AKS, "") if self._node else "",
            "imex_refused": lambda: self._imex_refused,
            "without_cdi": lambda: self._without_cdi,
            "losing_kernel": lambda: self._kernels[0],
            "kept_kernel": lambda: self._kernels[1],
            "node_arch": lambda: self._architectures[0] or "the node's architecture",
            "other_arch": lambda: self._architectures[1],
            "other_arch_nodes": lambda: self._architectures[2],
        }

    def _holds(self) -> Iterator[Condition]:
        driven = (node := self._node) is not None and node.labels.get("nvidia.com/gpu.deploy.driver") == "true"
        yield "driver by the GPU operator" if driven else "driver not by the GPU operator"
        there = self.subject.nodes.get(self.pod.spec.node_name) if self.pod else None
        yield "on Talos" if there is not None and there.talos else "not on Talos"
        yield "on a Jetson" if there is not None and there.jetson else "not on a Jetson"
        yield "other architecture there" if self._architectures[1] else "no other architecture"
        yield "ARM node" if self._architectures[0] == "arm64" else "no ARM node"
        gpu = self.subject.accelerator(self.container) if self.container else None
        if isinstance(gpu, Accelerator) and gpu.gpu.name in _BY_INFINIBAND:
            yield "switches by InfiniBand"
        yield "no use of a GPU" if self.pod and self._does_without(self.pod) else "use of a GPU"
        yield from _OF_A_LOG if self.pod is None or self.log_only else self._asked(self.pod)

    @property
    def _without_cdi(self) -> str:
        """The node's containerd, where it is from before CDI (1.7) and the GPU operator hands GPUs over by CDI (from 25.10 on)."""
        there = self.subject.nodes.get(self.pod.spec.node_name) if self.pod else None
        runtime = _BEFORE_CDI.fullmatch(there.obj.status.node_info.container_runtime_version) if there else None
        for policy in self.subject.cluster.items("ClusterPolicy") if runtime else ():
            chart = _OPERATOR.search(policy.labels.get("helm.sh/chart", ""))
            by_cdi = chart is not None and (int(chart["year"]), int(chart["month"])) >= (25, 10)
            if by_cdi and dig(policy.raw, "spec.cdi.enabled") is not False:
                return runtime["version"] if runtime else ""
        return ""

    @property
    def _imex_refused(self) -> str:
        """A pod on the same node whose IMEX daemon gets no session, because another one on the node has it."""
        cluster, here = self.subject.cluster, self.node_name
        beside = {(p.metadata.namespace, p.metadata.name) for p in pods_on(cluster, here)}
        logs = (log for log in cluster.snapshot.logs if here and (log.namespace or "default", log.pod) in beside)
        return next((log.pod for log in logs if _NO_SESSION.search(log.text)), "")

    @cached_property
    def _bare_ami(self) -> tuple[str, str, str]:
        """An image of EKS without NVIDIA's driver of which the node is made, the one that has it, and the EC2NodeClass that names it."""
        cluster = self.subject.cluster
        node = cluster.item("Node", "", self.pod.spec.node_name) if self.pod and self.pod.spec.node_name else None
        name = node.labels.get("karpenter.k8s.aws/ec2nodeclass", "") if node else ""
        made_by = cluster.item("EC2NodeClass", "", name) if name else None
        if node is None or made_by is None or node.labels.get("nvidia.com/gpu.deploy.driver") == "true":
            return "", "", ""
        names = [str(row.get("name") or "") for row in rows(made_by.raw, "status.amis")]
        bare = [found for one in names if (found := _BARE_AMI.fullmatch(one))]
        if not bare or len(bare) < len(names):
            return "", "", ""
        return bare[0][0], f"amazon-eks-node-al2023-{bare[0]['arch']}-nvidia-{bare[0]['release']}-*", name

    @property
    def _node(self) -> Item | None:
        """The pod's node."""
        return self.subject.cluster.item("Node", "", self.node_name)

    @property
    def _on_gke(self) -> bool:
        """Whether the pod's node is one of GKE's, whose device plugin mounts the driver: there is no runtime for GPUs."""
        if (node := self._node) is not None:
            return any(label.startswith(_GKE) for label in node.labels)
        if self.pod is None or not self.pod.spec.node_name:
            return False
        # a pod that was placed stands on a node that has what it selects
        selected = any(label.startswith(_GKE) for label in self.pod.spec.node_selector)
        return selected or self.pod.spec.node_name.startswith("gke-")

    def _does_without(self, pod: Pod) -> bool:
        """Whether nothing of the pod speaks of a GPU: no request, variable, engine or image; those of a DaemonSet may look after them."""
        if pod.log_only or any(owner.kind == "DaemonSet" for owner in pod.obj.metadata.owner_references):
            return False
        asks = any(
            c.accelerators or c.spec.resources.claims or VISIBLE in c.env or c.made_for_gpus for c in pod.containers
        )
        return not asks and not self.subject.engines(pod)

    @template_value
    def driver(self) -> str:
        """` (570.148.08)`: the version of the node's driver, where its label says the whole of it."""
        node = self._node
        version = node.labels.get("nvidia.com/cuda.driver-version.full", "") if node else ""
        return f" ({version})" if version else ""

    @cached_property
    def _wanted(self) -> _Wanted:
        """The driver that the image needs, as the message or the image's CUDA says."""
        pod, told = self.pod, self.captured.get("need", "")
        if pod is None or self.log_only:
            return _Wanted()
        cuda, number = _CUDA_WANTED.search(told), _DRIVER_WANTED.fullmatch(told)
        logs, container = self.subject.logs(pod), self.container
        built = image_cuda(container, logs) if container and not cuda and not number else None
        wanted: tuple[int, int | None] | None = None
        if number:
            branch: int | None = int(number["branch"])
            said = f"{told} or later"
        else:
            wanted = (int(cuda["major"]), int(cuda["minor"])) if cuda else built[0] if built else None
            branch = branch_for(wanted) if wanted and wanted[1] is not None else None
            said = f"branch {branch} or later, for CUDA {say_cuda(wanted)}" if branch and wanted else ""
        if branch is None:
            return _Wanted()
        nodes = (node for node in self.subject.nodes.all if node.name != pod.spec.node_name)
        able = [n.name for n in nodes if (branch_of(n) or 0) > branch - (1 if not number else 0)]
        has = driver_cuda(pod, self.subject.nodes.get(pod.spec.node_name))
        enough = suffices(has[0], wanted) if has is not None and wanted is not None else None
        return _Wanted(said, ", ".join(able[:3]), enough)

    @cached_property
    def _beside(self) -> list[tuple[str, str]]:
        """Ready pods of the same node that ask for NVIDIA's GPUs, with their runtime class, where all of them have the same, or none."""
        own = self.pod
        found = [
            (f"{one.metadata.namespace}/{one.metadata.name}", one.spec.runtime_class_name or "")
            for one in (pods_on(own.cluster, own.spec.node_name) if own is not None and own.spec.node_name else ())
            if own is not None
            and (one.metadata.namespace, one.metadata.name) != (own.namespace, own.name)
            and one.status.ready
            and any(_NVIDIA in c.resources.limits and not _WITHOUT.search(c.image) for c in one.spec.containers)
        ]
        return sorted(found) if len({runtime for _, runtime in found}) == 1 else []

    @template_value
    def runtime_class(self) -> str:
        """The cluster's runtime class for NVIDIA's GPUs, where it is known to have one."""
        listed = self.subject.cluster.items("RuntimeClass")
        if self._beside:
            return self._beside[0][1]
        return next((item.name for item in listed if str(item.raw.get("handler") or "").startswith("nvidia")), "")

    @template_value
    def class_of_cdi(self) -> str:
        """The pod's runtime class, where it is the one that the GPU operator makes for CDI alone: `nvidia-cdi`."""
        name = self.pod.spec.runtime_class_name if self.pod else ""
        return name if name == "nvidia-cdi" else ""

    @template_value
    def foreign_resource(self) -> str:
        """Accelerators of another maker than NVIDIA, `amd.com/gpu`: those asked for; where none are, what the image is built for."""
        every = [self.container] if self.container else self.pod.containers if self.pod else []
        asking = [c for c in every if c.gpus or c.spec.resources.claims]
        if not asking:
            return foreign_resource(self.container.spec.image) if self.container else ""
        return next(iter(asking[0].accelerators), "") if all(c.without_nvidia for c in asking) else ""

    @template_value
    def gpu_labels(self) -> str:
        """The labels of nodes that tell which GPUs they have, by the maker of those that the container asks for."""
        asked = [name.split("/")[0] for name in (self.container.accelerators if self.container else ())]
        return next((labels for maker, labels in _GPU_LABELS.items() if maker in asked), _GPU_LABELS["nvidia.com"])

    @template_value
    def aiter_on(self) -> str:
        """The variable by which AITER's kernels are on, where what was captured refuses one of AMD's generations."""
        if not self.container or not _OF_AMD.search(self.captured.get("why", "")):
            return ""
        env = self.container.env
        return next((x for x in _AITER if x in env and (env[x].value or "").lower() in ("1", "true")), "")

    @template_value
    def gpu_pods(self) -> str:
        """The other pods that have GPUs of the pod's node."""
        name = self.node_name
        every = usage_of(self.subject.cluster).holders(name) if name and self.pod else ()
        own = f"{self.pod.namespace}/{self.pod.name}" if self.pod else ""
        held = sorted(h.ref for h in every if any(map(is_accelerator, h.requests)) and h.ref != own)
        return few(held, 4)

    @template_value
    def node_taints(self) -> str:
        """The taints that keep new pods off the pod's node, as `kubectl taint` writes them."""
        name = self.node_name
        node = next((n for n in self.subject.cluster.all(Node, "Node") if n.metadata.name == name), None)
        kept = [t for t in node.spec.taints if t.effect in ("NoSchedule", "NoExecute")] if node else []
        own = [t for t in kept if not t.key.startswith("node.kubernetes.io/")]
        words = [f"{t.key}={t.value}:{t.effect}" if t.value else f"{t.key}:{t.effect}" for t in own]
        return f"the taint {' and '.join(words)}" if words else "the taints of GPU nodes"

    @cached_property
    def _architectures(self) -> tuple[str, str, str]:
        """The node's, and the one of other nodes on which the pod could have its accelerators, with their names."""
        asked = self.pod.accelerators if self.pod else {}
        nodes = {node.metadata.name: node for node in self.subject.cluster.all(Node, "Node")}
        own = nodes.get(self.node_name)
        here = str(own.metadata.labels.get(_ARCH, "")) if own else ""
        able = [n for n in nodes.values() if all(milli(n.status.allocatable.get(r)) for r in asked)]
        there = [n for n in able if here and n.metadata.labels.get(_ARCH, here) != here and not n.spec.unschedulable]
        if not there:
            return here, "", ""
        other = str(there[0].metadata.labels[_ARCH])
        names = sorted(n.metadata.name for n in there if n.metadata.labels[_ARCH] == other)
        return here, other, ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")

    @cached_property
    def _kernels(self) -> tuple[str, str]:
        """The node's kernel, where it loses memory for DMA, and another that a node has: ` (6.17.0-1031-nvidia, as gpu-2 has)`."""
        kernels = {
            node.name: str(dig(node.raw, "status.nodeInfo.kernelVersion") or "")
            for node in self.subject.cluster.items("Node")
        }
        own = kernels.get(self.node_name, "")
        if not _LOSES.match(own):
            return "", ""
        other = next(((name, kernel) for name, kernel in kernels.items() if kernel.startswith("6.17.")), None)
        return own, f" ({other[1]}, as {other[0]} has)" if other else ""

    def _asked(self, pod: Pod) -> Iterator[OfPlacement]:
        """What is so of what the pod asks of its node."""
        every = [self.container] if self.container else pod.containers
        gpus = any(c.gpus or c.spec.resources.claims for c in every)
        yield "gpu asked" if gpus else "no gpu asked"
        yield "of another maker" if self.foreign_resource else "NVIDIA's or unknown"
        slices = any(name.startswith(_MIG) for c in every for name in c.spec.resources.limits)
        yield "mig slice" if slices else "whole gpu"
        yield "on GKE" if self._on_gke else "not on GKE"
        yield "host network" if pod.spec.host_network else "pod network"
        if pod.spec.runtime_class_name:
            if not any(c.may("SYS_ADMIN") for c in every):
                yield "runtime class, unprivileged"
            return
        yield "no runtime class"
        if self._beside and not self._beside[0][1]:
            yield "GPUs by default"
        elif self.runtime_class:
            yield "runtime class there"
        elif not self.subject.cluster.complete("RuntimeClass"):  # a pod that names one that is not there is refused
            yield "runtime class open"
