"""Pods and nodes of a whole cluster, decoded down to what placing a pod depends on.

Thousands of them are read to explain one Pending pod. Typed decoding skips what is not declared here without building
it: images of a node, managed fields, environment, probes.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import field

from kubectl_llmdoctor.snapshot import Json


class _Base(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True, gc=False):
    """Common settings."""


class Metadata(_Base):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] | None = None
    owner_references: list[Json] | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    finalizers: list[str] | None = None


class Port(_Base):
    """A port on the node."""

    host_port: int | None = None
    host_ip: str | None = field(default=None, name="hostIP")
    container_port: int | None = None
    protocol: str | None = None


class Container(_Base):
    """What it asks for; `command` and `args` only tell inference servers from other pods and are not kept."""

    name: str = ""
    image: str | None = None
    resources: Json | None = None
    ports: list[Port] | None = None
    restart_policy: str | None = None
    command: list[str] | None = None
    args: list[str] | None = None


class Claim(_Base):
    """A volume's claim."""

    claim_name: str = ""


class Volume(_Base):
    """Only claims bind a pod to a place, and disks that one pod at a time may write."""

    name: str = ""
    persistent_volume_claim: Claim | None = None
    ephemeral: Any = None
    azure_disk: Json | None = None
    cinder: Json | None = None
    gce_persistent_disk: Json | None = None
    aws_elastic_block_store: Json | None = None
    iscsi: Json | None = None
    rbd: Json | None = None

    @property
    def binds(self) -> bool:
        """Whether it is such a volume."""
        disks = (
            *(self.azure_disk, self.cinder, self.gce_persistent_disk, self.aws_elastic_block_store),
            *(self.iscsi, self.rbd),
        )
        return bool(self.persistent_volume_claim or self.ephemeral is not None or any(disks))


class AntiAffinity(_Base):
    """What keeps other pods away from this one."""

    required_during_scheduling_ignored_during_execution: list[Json] | None = None


class Affinity(_Base):
    """Of the affinities of a pod that runs, only this one bars others."""

    pod_anti_affinity: AntiAffinity | None = None


class PodSpec(_Base):
    """What it takes from its node."""

    node_name: str | None = None
    scheduler_name: str | None = None
    priority: int | None = None
    priority_class_name: str | None = None
    preemption_policy: str | None = None
    host_network: bool | None = None
    overhead: Json | None = None
    resources: Json | None = None
    resource_claims: list[Json] | None = None
    scheduling_gates: list[Json] | None = None
    #: kept of pods that have no node yet
    node_selector: dict[str, str] | None = None
    tolerations: list[Json] | None = None
    affinity: Affinity | None = None
    volumes: list[Volume] | None = None
    init_containers: list[Container] | None = None
    containers: list[Container] = []


class Condition(_Base):
    """A condition without its prose."""

    type: str = ""
    status: str = ""
    reason: str | None = None
    last_transition_time: str | None = None


class Waiting(_Base):
    """Why a container waits."""

    reason: str | None = None


class Terminated(_Base):
    """How and when a container ended."""

    exit_code: int = 0
    reason: str | None = None
    finished_at: str | None = None


class State(_Base):
    """One of three."""

    waiting: Waiting | None = None
    running: Json | None = None
    terminated: Terminated | None = None


class ContainerStatus(_Base):
    """Whether a container works (device plugins must), and what a resize in place left it with."""

    name: str = ""
    ready: bool = False
    restart_count: int = 0
    state: State | None = None
    last_state: State | None = None
    allocated_resources: Json | None = None
    resources: Json | None = None


class PodStatus(_Base):
    """How far it has come."""

    phase: str | None = None
    nominated_node_name: str | None = None
    conditions: list[Condition] | None = None
    init_container_statuses: list[ContainerStatus] | None = None
    container_statuses: list[ContainerStatus] | None = None
    resources: Json | None = None
    allocated_resources: Json | None = None


class Shares(_Base, rename=None):
    """The annotations by which a pod asks KAI for a part of a GPU."""

    fraction: str | None = field(default=None, name="gpu-fraction")
    memory: str | None = field(default=None, name="gpu-memory")


class PodMetadata(Metadata):
    """Who it is, and what it asks for by annotations."""

    annotations: Shares | None = None


class Pod(_Base):
    """A pod as the scheduler sees it."""

    metadata: PodMetadata
    spec: PodSpec
    status: PodStatus | None = None


class NodeMetadata(Metadata):
    """Who it is; annotations say who manages its GPUs."""

    annotations: dict[str, str] | None = None


class NodeStatus(_Base):
    """What it offers, without the images that it holds."""

    capacity: Json | None = None
    allocatable: Json | None = None
    conditions: list[Json] | None = None
    addresses: list[Json] | None = None
    node_info: Json | None = None
    features: Json | None = None
    declared_features: list[str] | None = None
    runtime_handlers: list[Json] | None = None


class Node(_Base):
    """A node without the images that it holds."""

    metadata: NodeMetadata
    spec: Json | None = None
    status: NodeStatus | None = None


class About(_Base):
    """The object of an event."""

    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""


class Event(_Base):
    metadata: Metadata
    involved_object: About = field(default_factory=About)
    type: str = ""
    reason: str = ""


class Template(_Base):
    """The pods of a workload."""

    spec: PodSpec = field(default_factory=PodSpec)


class OwnerSpec(_Base):
    """How many pods a workload has."""

    replicas: int | None = None
    template: Template = field(default_factory=Template)


class OwnerStatus(_Base):
    """How many it has."""

    replicas: int = 0


class Owner(_Base):
    """A built-in workload: enough to tell whether its pods serve models."""

    #: the annotations of a ReplicaSet number its revision
    metadata: NodeMetadata
    spec: OwnerSpec = field(default_factory=OwnerSpec)
    status: OwnerStatus = field(default_factory=OwnerStatus)


class Head(_Base):
    """Any object: only who it is."""

    metadata: Metadata


class ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    """Where the next page begins; empty on the last one."""

    continue_: str = field(default="", name="continue")
    #: how many come after this page; only where nothing is filtered
    remaining_item_count: int = 0


class PodPage(msgspec.Struct):
    """One page of a list of pods, each still as it came."""

    #: null where a server has none
    items: list[msgspec.Raw] | None = None
    metadata: ListMeta = ListMeta()


class NodePage(msgspec.Struct):
    """One page of a list of nodes."""

    items: list[Node] | None = None
    metadata: ListMeta = ListMeta()


class Page(msgspec.Struct):
    """One page of any list."""

    items: list[Json] | None = None
    metadata: ListMeta = ListMeta()


_decode_pod = msgspec.json.Decoder(Pod).decode
decode_pod_page = msgspec.json.Decoder(PodPage).decode
decode_node_page = msgspec.json.Decoder(NodePage).decode
decode_page = msgspec.json.Decoder(Page).decode
decode_whole_pod = msgspec.json.Decoder(Pod).decode
decode_node = msgspec.json.Decoder(Node).decode
decode_event = msgspec.json.Decoder(Event).decode
decode_head = msgspec.json.Decoder(Head).decode
decode_owner = msgspec.json.Decoder(Owner).decode


def decode_pod(raw: msgspec.Raw) -> Pod | None:
    """One pod of a page; None when it has another shape than a pod."""
    try:
        return _decode_pod(raw)
    except (msgspec.DecodeError, RecursionError):
        return None


def pod_tree(pod: Pod) -> Json:
    """The pod as a JSON tree; kind and version stand first."""
    spec = pod.spec
    for container in [*spec.containers, *(spec.init_containers or ())]:
        container.command = container.args = None
        container.ports = [port for port in container.ports or () if port.host_port] or None
    spec.volumes = [v for v in spec.volumes or () if v.binds] or None
    if spec.affinity and not spec.affinity.pod_anti_affinity:
        spec.affinity = None
    if spec.node_name:
        spec.node_selector = spec.tolerations = None
    return {"apiVersion": "v1", "kind": "Pod", **msgspec.to_builtins(pod)}


def node_tree(node: Node) -> Json:
    return {"apiVersion": "v1", "kind": "Node", **msgspec.to_builtins(node)}
