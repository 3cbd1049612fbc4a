"""All that a pod demands of the nodes, and the scene that it meets: nodes, the pods on them, what else the filters read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property

import msgspec
from msgspec.structs import replace

from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.constraints import mismatches, named_nodes, untolerated
from kubectl_llmdoctor.facts.nodes import Node
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.scheduling.objects import DeviceClass, Objects
from kubectl_llmdoctor.facts.scheduling.verdict import Gap, Reason
from kubectl_llmdoctor.facts.usage import Amounts, Usage, host_ports, requests_of


class Ask(msgspec.Struct, frozen=True, kw_only=True, eq=False, dict=True):
    """One question to the filters."""

    pod: Pod
    spec: k8s.PodSpec
    nodes: Sequence[Node]
    #: whether these are all nodes
    nodes_complete: bool
    usage: Usage
    objects: Objects
    #: pods that are thought away; `usage` is already without them
    without: Collection[str]

    def crowded(self, pods: Mapping[str, Iterable[k8s.Pod]]) -> Ask:
        """The same question with further pods on nodes. They have a node then, or they would not count."""
        placed = {
            node: [replace(pod, spec=replace(pod.spec, node_name=node)) for pod in some] for node, some in pods.items()
        }
        return replace(self, usage=self.usage.changed(plus=placed))

    def after(self, rivals: Sequence[k8s.Pod]) -> Ask:
        """The same question, with pods that come before this one on every node that would take them."""
        if not rivals:
            return self
        usage = self.usage.changed()
        usage.nominated = {
            node.name: [*self.usage.nominated.get(node.name, ()), *(r for r in rivals if _takes(node, usage, r))]
            for node in self.nodes
        }
        return replace(self, usage=usage)

    @cached_property
    def requests(self) -> Amounts:
        """What it asks of one node, in the scheduler's units."""
        return requests_of(k8s.Pod(metadata=self.pod.obj.metadata, spec=self.spec))

    @cached_property
    def ports(self) -> set[tuple[str, str, int]]:
        """The host ports that it needs."""
        return host_ports(self.spec)

    @cached_property
    def named(self) -> frozenset[str] | None:
        """The only nodes that required affinity names; the PreFilter leaves out all others before any other filter."""
        return named_nodes(self.spec)

    @cached_property
    def labels(self) -> dict[str, str]:
        """The pod's labels as strings."""
        return self.pod.labels

    @cached_property
    def by_name(self) -> dict[str, Node]:
        """The nodes by their names."""
        return {node.name: node for node in self.nodes}

    def pods_complete(self, namespace: str) -> bool:
        """Whether all pods of a namespace are known."""
        return self.usage.complete or self.pod.cluster.complete("Pod", namespace)

    @cached_property
    def classes(self) -> dict[str, DeviceClass]:
        """The DeviceClass that serves an extended resource (DRAExtendedResource, on since 1.36): of several the newest."""
        found: dict[str, DeviceClass] = {}
        for one in sorted(self.objects.all(DeviceClass), key=lambda c: c.metadata.name, reverse=True):
            found[f"deviceclass.resource.kubernetes.io/{one.metadata.name}"] = one
            name = one.spec.extended_resource_name
            rival = found.get(name)
            if name and (rival is None or _made(one) >= _made(rival)):
                found[name] = one
        return found

    def delegated(self, node: Node, resource: str) -> bool:
        """Whether DRA judges a resource on a node, not NodeResourcesFit: a class serves it and no plugin offers it."""
        return resource in self.classes and node.offers(resource) == 0

    def booked(self, node: Node, resource: str) -> bool:
        """Whether HAMi judges a resource on a node: it books shares of a GPU (`nvidia.com/gpumem`) itself, and no node offers them."""
        share = any(part in resource.partition("/")[2].lower() for part in ("mem", "core", "priority"))
        return share and "hami" in (self.spec.scheduler_name or "") and node.offers(resource) == 0


def _takes(node: Node, usage: Usage, pod: k8s.Pod) -> bool:
    """Whether a pod could go to a node, by its tolerations, its selector and what it asks for."""
    if any(untolerated(node.taints, pod.spec.tolerations)):
        return False
    used = usage.used(node.name)
    asked = requests_of(pod).items()
    return not mismatches(pod.spec, node.name, node.labels) and all(
        amount <= (node.offers(resource) or 0) - used.get(resource, 0) for resource, amount in asked if amount > 0
    )


def _made(one: DeviceClass) -> str:
    return one.metadata.creation_timestamp or ""


#: What a plugin says to one node.
Filter = Callable[[Node], Iterator[Reason | Gap]]

#: A plugin looks at the question once (PreFilter): it refuses the pod outright, has a filter for each node, or no say.
Plugin = Callable[[Ask], Filter | Reason | None]


def left_open(plugin: str, why: str) -> Filter:
    """The filter of a plugin that cannot judge any node."""

    def judge(_: Node) -> Iterator[Reason | Gap]:
        yield Gap(plugin=plugin, why=why)

    return judge
