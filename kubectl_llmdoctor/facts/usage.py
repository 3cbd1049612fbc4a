"""What pods ask for and what nodes have given away, counted as kube-scheduler does it.

Read in v1.36: `pkg/scheduler/framework`, `k8s.io/component-helpers/resource/helpers.go`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache

import msgspec

from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.units import milli

#: Amounts by resource name in the scheduler's units: thousandths for cpu, whole units for all else.
Amounts = dict[str, int]


#: Resources that `spec.resources` of a pod replaces; never accelerators.
_POD_LEVEL = ("cpu", "memory")


@lru_cache(maxsize=8192)
def _thousandths(quantity: str | int | float) -> int:
    return milli(quantity) or 0


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
        """The pods that are bound to a node and have not ended."""
        return self._pods.get(node, ())

    def holders(self, node: str) -> tuple[Holder, ...]:
        """The pods on a node with what each asks for."""
        found = self._holders.get(node)
        if found is None:
            found = tuple(Holder(pod=pod, requests=requests_of(pod, placed=True)) for pod in self.pods(node))
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
        return [pod for pods in self._pods.values() for pod in pods if pod.spec.apart_terms]

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


def usage_of(cluster: Cluster) -> Usage:
    """What runs where, counted once per snapshot."""
    return cluster.once("usage", lambda: Usage(cluster.all(k8s.Pod, "Pod"), complete=cluster.complete("Pod")))


def pods_on(cluster: Cluster, node: str) -> Sequence[k8s.Pod]:
    """All pods that name a node, those that have ended, too."""
    by_node: dict[str, list[k8s.Pod]] = cluster.once("pods by node", lambda: _by_node(cluster))
    return by_node.get(node, ())


def _by_node(cluster: Cluster) -> dict[str, list[k8s.Pod]]:
    found: dict[str, list[k8s.Pod]] = {}
    for pod in cluster.all(k8s.Pod, "Pod"):
        found.setdefault(pod.spec.node_name, []).append(pod)
    return found
