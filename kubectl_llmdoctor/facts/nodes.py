"""Nodes: condition, taints, accelerators, what runs on them, and how a pod's demands are matched against them.

The rules are kube-scheduler's own, read in v1.36: `pkg/scheduler/framework/plugins/*`, `k8s.io/component-helpers`
(`resource/helpers.go`, `scheduling/corev1`) and `pkg/controller/nodelifecycle`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from types import MappingProxyType
from weakref import WeakKeyDictionary

import msgspec
from msgspec.structs import replace

from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.pod import is_accelerator
from kubectl_llmdoctor.facts.units import milli, parse_time, units

#: Amounts by resource name in the scheduler's units: thousandths for cpu, whole units for all else.
Amounts = dict[str, int]

#: Taints that say that the node itself is unfit, not that it is kept for somebody: set by the node lifecycle
#: controller, cloud controllers, autoscalers and the agents of network and storage drivers.
_STATE_PREFIXES = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/")
_STATE_KEYS = frozenset(
    {
        "ToBeDeletedByClusterAutoscaler",
        "karpenter.sh/disruption",
        "karpenter.sh/disrupted",
        "karpenter.sh/unregistered",
        "cloud.google.com/impending-node-termination",
        "aws-node-termination-handler/spot-itn",
    }
)
_HOSTNAME = "kubernetes.io/hostname"
_CONTROL_PLANE = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")

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

#: The same where the value names the GPU, or the machine that has some. Sources: GKE's list of GPU types; the GPU families of
#: EC2 (g4ad has AMD's), Azure (MI300X is AMD's, NV and NG of either maker) and Compute Engine.
_GPU_NAMES = (
    ("cloud.google.com/gke-accelerator", r"nvidia-.+"),
    (
        "node.kubernetes.io/instance-type",
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

#: Resources that `spec.resources` of a pod replaces; never accelerators.
_POD_LEVEL = ("cpu", "memory")

#: Resources that every kubelet reports: where one is missing the object was shortened, so the amount is unknown.
_ALWAYS_REPORTED = ("cpu", "memory", "pods", "ephemeral-storage")


@lru_cache(maxsize=8192)
def _thousandths(quantity: str | int | float) -> int:
    return milli(quantity) or 0


def is_state_taint(taint: k8s.Taint) -> bool:
    """Whether a taint says that the node is unfit now, rather than kept for certain pods."""
    return (
        taint.key.startswith(_STATE_PREFIXES)
        or taint.key in _STATE_KEYS
        or taint.key.endswith(("/agent-not-ready", "/startup-taint"))
    )


def show_taint(taint: k8s.Taint) -> str:
    """A taint as kubectl writes it: `dedicated=search:NoSchedule`."""
    value = "" if taint.value in ("", None) else f"={taint.value}"
    return f"{taint.key}{value}:{taint.effect}"


def tolerated(taint: k8s.Taint, tolerations: Iterable[k8s.Toleration]) -> bool:
    """Whether one of the tolerations matches the taint (component-helpers `ToleratesTaint`)."""
    return any(_tolerates(t, taint) for t in tolerations)


def _tolerates(toleration: k8s.Toleration, taint: k8s.Taint) -> bool:
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    if toleration.operator == "Exists":
        return True
    if not toleration.key:  # an empty key is allowed with Exists only
        return False
    if toleration.operator in ("Gt", "Lt"):  # 1.35, alpha: integers
        wanted, have = _integer(toleration.value), _integer(taint.value)
        if wanted is None or have is None:
            return False
        return have > wanted if toleration.operator == "Gt" else have < wanted
    return str(toleration.value) == str(taint.value)


def holds(requirement: k8s.Requirement, labels: Mapping[str, str]) -> bool:
    """Whether labels meet a requirement; an operator that does not exist matches nothing."""
    value = labels.get(requirement.key)
    values = [str(v) for v in requirement.values]
    match requirement.operator:
        case "In":
            return value is not None and value in values
        case "NotIn":
            return value is None or value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt":
            have, wanted = _integer(value), _integer(values[0]) if len(values) == 1 else None
            if have is None or wanted is None:
                return False
            return have > wanted if requirement.operator == "Gt" else have < wanted
    return False


def _integer(text: object) -> int | None:
    try:
        return int(str(text))
    except ValueError:
        return None


@lru_cache(maxsize=1024)
def _is_label_value(text: str) -> bool:
    plain = text.replace("-", "").replace("_", "").replace(".", "")
    return not text or (
        len(text) <= 63 and text.isascii() and plain.isalnum() and text[0].isalnum() and text[-1].isalnum()
    )


def is_possible(requirement: k8s.Requirement) -> bool:
    """Whether its values can be values of labels; the API accepts others in node affinity."""
    return all(_is_label_value(str(v)) for v in requirement.values)


def show_requirement(requirement: k8s.Requirement) -> str:
    """A requirement in words: `zone in [a, b]`."""
    values = ", ".join(str(v) for v in requirement.values)
    words = {"In": f"in [{values}]", "NotIn": f"not in [{values}]", "Exists": "is set", "DoesNotExist": "is not set"}
    words |= {"Gt": f"> {values}", "Lt": f"< {values}"}
    return f"{requirement.key} {words.get(requirement.operator, f'{requirement.operator} [{values}]')}"


def selected(selector: k8s.LabelSelector | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector matches; None matches nothing, an empty one everything."""
    if selector is None:
        return False
    return all(labels.get(k) == str(v) for k, v in selector.match_labels.items()) and all(
        holds(r, labels) for r in selector.match_expressions
    )


class Mismatch(msgspec.Struct, frozen=True, kw_only=True):
    """One demand on the node's labels that a node does not meet."""

    #: where it stands in the pod's spec
    path: str
    key: str
    #: the demand in words: `nvidia.com/gpu.product in [NVIDIA-L4]`
    demand: str
    #: the values that would do, where the demand lists them
    wanted: tuple[str, ...] = ()
    #: what the node has; None when the label is not set
    have: str | None = None


def mismatches(spec: k8s.PodSpec, name: str, labels: Mapping[str, str]) -> tuple[Mismatch, ...]:
    """What of nodeSelector and required node affinity a node does not meet; empty when it matches.

    Of several alternative terms the one that comes nearest speaks.
    """
    found = [
        Mismatch(path="nodeSelector", key=k, demand=f"{k}={v}", wanted=(str(v),), have=labels.get(k))
        for k, v in spec.node_selector.items()
        if labels.get(k) != str(v)
    ]
    affinity = spec.affinity.node_affinity if spec.affinity else None
    required = affinity.required_during_scheduling_ignored_during_execution if affinity else None
    return (*found, *unmet(required, name, labels)) if required else tuple(found)


def unmet(selector: k8s.NodeSelector, name: str, labels: Mapping[str, str]) -> tuple[Mismatch, ...]:
    """What of a node selector a node does not meet, by the term that comes nearest; empty when one matches."""
    path = "affinity.nodeAffinity"
    failed: list[list[Mismatch]] = []
    for term in selector.node_selector_terms:
        if not term.match_expressions and not term.match_fields:
            continue  # an empty term matches nothing
        # A value that can be no label's makes the whole term invalid: it matches nothing, whatever the operator.
        of_term = [
            _mismatch(r, path, labels) for r in term.match_expressions if not (holds(r, labels) and is_possible(r))
        ]
        fields = {"metadata.name": name}
        of_term += [_mismatch(r, path, fields) for r in term.match_fields if not holds(r, fields)]
        if not of_term:
            return ()
        failed.append(of_term)
    nearest = min(failed, key=len, default=[Mismatch(path=path, key="", demand="a term that matches no node")])
    return tuple(nearest)


def named_nodes(spec: k8s.PodSpec) -> frozenset[str] | None:
    """The nodes that required affinity names in every term; None when it leaves the choice open."""
    affinity = spec.affinity.node_affinity if spec.affinity else None
    required = affinity.required_during_scheduling_ignored_during_execution if affinity else None
    if required is None or not required.node_selector_terms:
        return None
    names: set[str] = set()
    for term in required.node_selector_terms:
        fields = [r for r in term.match_fields if r.key == "metadata.name" and r.operator == "In"]
        if not fields:
            return None
        names |= set.intersection(*({str(v) for v in r.values} for r in fields))
    return frozenset(names)


def _mismatch(requirement: k8s.Requirement, path: str, labels: Mapping[str, str]) -> Mismatch:
    return Mismatch(
        path=path,
        key=requirement.key,
        demand=show_requirement(requirement),
        wanted=tuple(str(v) for v in requirement.values) if requirement.operator == "In" else (),
        have=labels.get(requirement.key),
    )


def requests_of(pod: k8s.Pod, *, placed: bool = False) -> Amounts:
    """What the scheduler counts for a pod (`PodRequests`): its containers, or its largest init step, and overhead.

    For a pod that has a node the kubelet's view of a resize counts too (`determineEffectiveRequests`). A request that
    is missing beside a limit is filled in from it, as the API server does.
    """
    statuses: dict[str, k8s.ContainerStatus] = {}
    infeasible = False
    if placed:
        statuses = {s.name: s for s in (*pod.status.container_statuses, *pod.status.init_container_statuses)}
        infeasible = any(c.type == "PodResizePending" and c.reason == "Infeasible" for c in pod.status.conditions)
    total: Amounts = {}
    for container in pod.spec.containers:
        _add(total, _requests(container, statuses.get(container.name), infeasible=infeasible))
    if pod.spec.init_containers:
        sidecars: Amounts = {}
        largest: Amounts = {}
        for container in pod.spec.init_containers:
            sidecar = container.restart_policy == "Always"
            own = _requests(container, statuses.get(container.name) if sidecar else None, infeasible=infeasible)
            if sidecar:
                _add(total, own)
                _add(sidecars, own)
                step = sidecars
            else:
                step = own
                _add(step, sidecars)
            for name, amount in step.items():
                largest[name] = max(largest.get(name, 0), amount)
        for name, amount in largest.items():
            total[name] = max(total.get(name, 0), amount)
    if pod.spec.resources.requests:
        own = {name: _thousandths(quantity) for name, quantity in pod.spec.resources.requests.items()}
        actual = own
        if placed and pod.status.resources is not None:
            actual = _actual(own, pod.status.resources, pod.status.allocated_resources, infeasible=infeasible)
        for name in own:
            if name in _POD_LEVEL or name.startswith("hugepages-"):
                total[name] = actual.get(name, 0)
    for name, quantity in pod.spec.overhead.items():
        total[name] = total.get(name, 0) + _thousandths(quantity)
    return {name: amount if name == "cpu" else -(-amount // 1000) for name, amount in total.items()}


def _requests(container: k8s.Container, status: k8s.ContainerStatus | None, *, infeasible: bool) -> Amounts:
    limits, asked = container.resources.limits, container.resources.requests
    own = {name: _thousandths(quantity) for name, quantity in limits.items() if name not in asked}
    own |= {name: _thousandths(quantity) for name, quantity in asked.items()}
    if status is None or status.resources is None:
        return own
    return _actual(own, status.resources, status.allocated_resources, infeasible=infeasible)


def _actual(own: Amounts, has: k8s.Resources, allocated: k8s.Quantities, *, infeasible: bool) -> Amounts:
    """What counts while a resize in place goes on: the most of what is asked for, what it has and what it was given."""
    actual: Amounts = {} if infeasible else {**own}
    for quantities in (has.requests, allocated):
        for name, quantity in quantities.items():
            actual[name] = max(actual.get(name, 0), _thousandths(quantity))
    return actual


def _add(total: Amounts, other: Amounts) -> None:
    for name, amount in other.items():
        total[name] = total.get(name, 0) + amount


def host_ports(spec: k8s.PodSpec) -> set[tuple[str, str, int]]:
    """The host ports of a pod as (address, protocol, port); every address is an empty one.

    To the scheduler `::` is an address like others (`CheckConflict`).
    """
    found = set()
    sidecars = [c for c in spec.init_containers if c.restart_policy == "Always"]
    for container in (*spec.containers, *sidecars):
        for port in container.ports:
            number = port.host_port or (port.container_port if spec.host_network else 0)
            if number:
                address = "" if port.host_ip == "0.0.0.0" else port.host_ip  # noqa: S104 # compared, not bound
                found.add((address, port.protocol or "TCP", number))
    return found


def ref_of(pod: k8s.Pod) -> str:
    """`serving/llama-0`."""
    return f"{pod.metadata.namespace or 'default'}/{pod.metadata.name}"


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """A pod that takes something of a node."""

    pod: k8s.Pod
    requests: Amounts

    @property
    def ref(self) -> str:
        """`serving/llama-0`."""
        return ref_of(self.pod)

    @property
    def terminating(self) -> bool:
        """Whether it is being deleted; it counts until it is gone."""
        return self.pod.metadata.deletion_timestamp is not None


class Usage:
    """What runs where: every pod that is bound to a node and has not ended, whatever its namespace."""

    def __init__(self, pods: Iterable[k8s.Pod], *, complete: bool) -> None:
        self._pods: dict[str, list[k8s.Pod]] = {}
        self._holders: dict[str, tuple[Holder, ...]] = {}
        self._used: dict[str, Amounts] = {}
        #: whether these are all pods of the cluster; otherwise what is used is a lower bound
        self.complete = complete
        #: pods that another pod's eviction is to make room for, by the node that was promised to them
        self.nominated: dict[str, list[k8s.Pod]] = {}
        #: pods that have no node yet, those included
        self.waiting: list[k8s.Pod] = []
        for pod in pods:
            if pod.status.phase in ("Succeeded", "Failed"):
                continue
            if pod.spec.node_name:
                self._pods.setdefault(pod.spec.node_name, []).append(pod)
                continue
            self.waiting.append(pod)
            if pod.status.nominated_node_name:
                self.nominated.setdefault(pod.status.nominated_node_name, []).append(pod)

    @property
    def nodes(self) -> list[str]:
        """The nodes that pods are bound to, in order; also those that were not read."""
        return sorted(self._pods)

    def pods(self, node: str) -> Sequence[k8s.Pod]:
        """The pods on a node."""
        return self._pods.get(node, ())

    def holders(self, node: str) -> tuple[Holder, ...]:
        """The pods on a node with what each asks for."""
        found = self._holders.get(node)
        if found is None:
            pods = self._pods.get(node, ())
            found = tuple(Holder(pod=pod, requests=requests_of(pod, placed=True)) for pod in pods)
            self._holders[node] = found
        return found

    def used(self, node: str) -> Amounts:
        """The sum of what they ask for; `pods` is their number."""
        found = self._used.get(node)
        if found is None:
            holders = self.holders(node)
            found = {"pods": len(holders)}
            for holder in holders:
                _add(found, holder.requests)
            self._used[node] = found
        return found

    @cached_property
    def by_namespace(self) -> dict[str, list[k8s.Pod]]:
        """The pods that have a node, by their namespace."""
        found: dict[str, list[k8s.Pod]] = {}
        for pods in self._pods.values():
            for pod in pods:
                found.setdefault(pod.metadata.namespace or "default", []).append(pod)
        return found

    @cached_property
    def repelling(self) -> list[k8s.Pod]:
        """The pods that have a node and required anti-affinity."""
        return [
            pod
            for pods in self._pods.values()
            for pod in pods
            if pod.spec.affinity
            and pod.spec.affinity.pod_anti_affinity
            and pod.spec.affinity.pod_anti_affinity.required_during_scheduling_ignored_during_execution
        ]

    def changed(self, *, without: Collection[str] = (), plus: Mapping[str, Iterable[k8s.Pod]] | None = None) -> Usage:
        """The same without the pods of these names (`serving/llama-0`), and with further pods on nodes."""
        found = Usage((), complete=self.complete)
        found.nominated = self.nominated
        added = {node: [*pods] for node, pods in (plus or {}).items()}
        for node, pods in self._pods.items():
            left = [pod for pod in pods if ref_of(pod) not in without] if without else pods
            found._pods[node] = left + added.pop(node, [])
            if len(left) == len(pods) == len(found._pods[node]):
                if node in self._holders:
                    found._holders[node] = self._holders[node]
                if node in self._used:
                    found._used[node] = self._used[node]
        found._pods.update(added)
        return found


_USAGE: WeakKeyDictionary[Cluster, Usage] = WeakKeyDictionary()


def usage_of(cluster: Cluster) -> Usage:
    """What runs where, counted once per snapshot."""
    found = _USAGE.get(cluster)
    if found is None:
        pods = cluster.all(k8s.Pod, "Pod")
        found = _USAGE[cluster] = Usage(pods, complete=cluster.complete("Pod"))
    return found


class Node:
    """One node."""

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
        meta = replace(self.obj.metadata, name=name, uid="", labels={**self.obj.metadata.labels, _HOSTNAME: name})
        taints = tuple(t for t in self.taints if not is_state_taint(t))
        spec = replace(self.obj.spec, unschedulable=False, taints=taints)
        found = Node(replace(self.obj, metadata=meta, spec=spec), self.cluster)
        found.like = self.like or self.name
        return found

    @cached_property
    def labels(self) -> dict[str, str]:
        """Its labels as strings."""
        return {
            key: ("true" if value else "false") if isinstance(value, bool) else str(value)
            for key, value in self.obj.metadata.labels.items()
        }

    @property
    def taints(self) -> tuple[k8s.Taint, ...]:
        """Its taints."""
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
        made, now = parse_time(self.obj.metadata.creation_timestamp), self.cluster.now
        return made is not None and now is not None and (now - made).total_seconds() < _JOINING_SECONDS

    def condition(self, kind: str) -> k8s.Condition | None:
        """A condition by its type."""
        return next((c for c in self.obj.status.conditions if c.type == kind), None)

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
        for key in ("nvidia.com/gpu.product", "cloud.google.com/gke-accelerator", "amd.com/gpu.product-name"):
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
            return max(counted, key=lambda pair: pair[0], default=None) or self._sign_of(resource)
        count = _integer(labels.get("nvidia.com/gpu.count"))
        replicas = _integer(labels.get("nvidia.com/gpu.replicas")) or 1
        if count:
            text = f"label nvidia.com/gpu.count={count}" + (f", gpu.replicas={replicas}" if replicas > 1 else "")
            counted.append((count * replicas, text))
        for key, whose in (
            ("cloud.google.com/gke-accelerator-count", "cloud.google.com/gke-accelerator"),
            ("karpenter.k8s.aws/instance-gpu-count", "karpenter.k8s.aws/instance-gpu-manufacturer"),
            ("eks.amazonaws.com/instance-gpu-count", "eks.amazonaws.com/instance-gpu-manufacturer"),
            ("karpenter.azure.com/sku-gpu-count", "karpenter.azure.com/sku-gpu-manufacturer"),
        ):
            count = _integer(labels.get(key))
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
        talos = next((key for key in labels if re.fullmatch(_TALOS, key)), None)
        return (None, f"label {talos}={labels[talos]}") if talos else None

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
        from kubectl_llmdoctor.facts.hardware import node_hardware  # only where the node was asked

        hardware = node_hardware(self.cluster, self.name)
        return hardware.whole if hardware and hardware.whole == len(hardware.devices) else None

    @property
    def _elsewhere(self) -> bool:
        """Whether its NVIDIA GPUs are advertised under another name, or not by the device plugin at all."""
        labels = self.labels
        return (
            any(n.startswith(("nvidia.com/mig-", "nvidia.com/gpu.shared")) and v for n, v in self.accelerators.items())
            or any(k.startswith("nvidia.com/mig-") and k.endswith(".count") for k in labels)
            or labels.get("nvidia.com/gpu.deploy.device-plugin") == "false"
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
        """A node by its name."""
        return self._by_name.get(name)
