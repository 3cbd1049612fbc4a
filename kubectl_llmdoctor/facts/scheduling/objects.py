"""The kinds that only placing a pod needs, typed, and decoded when a filter asks for them.

Volumes (`core/v1`, `storage.k8s.io/v1`) and devices (`resource.k8s.io`, also as v1beta1 wrote them).
"""

from __future__ import annotations

from typing import Any, TypeVar
from weakref import proxy

import msgspec
from msgspec import field

from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.cluster import Cluster

Quantity = str | int | float


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Common settings, as of all API structs."""


# --- volumes ----------------------------------------------------------------------------------------------------------


class ClaimSpec(_Part, frozen=True):
    """What a claim asks of a volume."""

    access_modes: tuple[str, ...] = ()
    storage_class_name: str = ""
    volume_name: str = ""
    volume_mode: str = "Filesystem"
    volume_attributes_class_name: str = ""
    selector: k8s.LabelSelector | None = None
    resources: k8s.Resources = k8s.Resources()


class ClaimPhase(_Part, frozen=True):
    """How far it has come: `Pending`, `Bound`, `Lost`."""

    phase: str = ""


class PersistentVolumeClaim(k8s.Object, frozen=True):
    spec: ClaimSpec = ClaimSpec()
    status: ClaimPhase = ClaimPhase()


class VolumeAffinity(_Part, frozen=True):
    """Where a volume can be used."""

    required: k8s.NodeSelector | None = None


class CsiVolume(_Part, frozen=True):
    """A volume of a CSI driver."""

    driver: str = ""
    volume_handle: str = ""


class VolumeSpec(_Part, frozen=True):
    capacity: k8s.Quantities = {}
    access_modes: tuple[str, ...] = ()
    storage_class_name: str = ""
    volume_mode: str = "Filesystem"
    volume_attributes_class_name: str = ""
    node_affinity: VolumeAffinity | None = None
    claim_ref: k8s.ObjectRef | None = None
    csi: CsiVolume | None = None
    aws_elastic_block_store: dict[str, Any] | None = None
    gce_persistent_disk: dict[str, Any] | None = None
    azure_disk: dict[str, Any] | None = None
    cinder: dict[str, Any] | None = None


class PersistentVolume(k8s.Object, frozen=True):
    spec: VolumeSpec = VolumeSpec()
    status: ClaimPhase = ClaimPhase()


class LabelValues(_Part, frozen=True):
    """A label and the values that will do."""

    key: str = ""
    values: tuple[str, ...] = ()


class Topology(_Part, frozen=True):
    """Labels that all must fit."""

    match_label_expressions: tuple[LabelValues, ...] = ()


class StorageClass(k8s.Object, frozen=True):
    provisioner: str = ""
    volume_binding_mode: str = "Immediate"
    allowed_topologies: tuple[Topology, ...] = ()


class VolumeLimit(_Part, frozen=True):
    """How many volumes of a driver a node can have."""

    count: int | None = None


class NodeDriver(_Part, frozen=True):
    """A CSI driver on a node."""

    name: str = ""
    allocatable: VolumeLimit = VolumeLimit()


class NodeDrivers(_Part, frozen=True):
    drivers: tuple[NodeDriver, ...] = ()


class CSINode(k8s.Object, frozen=True):
    spec: NodeDrivers = NodeDrivers()


class AttachmentSource(_Part, frozen=True):
    """Which volume."""

    persistent_volume_name: str = ""


class AttachmentSpec(_Part, frozen=True):
    """Which volume is attached to which node."""

    attacher: str = ""
    node_name: str = ""
    source: AttachmentSource = AttachmentSource()


class VolumeAttachment(k8s.Object, frozen=True):
    spec: AttachmentSpec = AttachmentSpec()


class DriverSpec(_Part, frozen=True):
    """Whether a driver publishes how much room it has."""

    storage_capacity: bool = False


class CSIDriver(k8s.Object, frozen=True):
    spec: DriverSpec = DriverSpec()


class CSIStorageCapacity(k8s.Object, frozen=True):
    storage_class_name: str = ""
    capacity: str | int | float | None = None
    maximum_volume_size: str | int | float | None = None
    node_topology: k8s.LabelSelector | None = None


class Namespace(k8s.Object, frozen=True):
    """corev1.Namespace: its labels."""


# --- devices ----------------------------------------------------------------------------------------------------------


class Cel(_Part, frozen=True):
    """An expression over a device."""

    expression: str = ""


class DeviceSelector(_Part, frozen=True):
    """What a device must be."""

    cel: Cel | None = None


class DeviceToleration(_Part, frozen=True):
    """A taint of a device that a request puts up with."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


class Portions(_Part, frozen=True):
    """How much of a device a request takes."""

    requests: k8s.Quantities = {}


class DeviceRequest(_Part, frozen=True):
    """So many devices of a class: in `exactly`, as one of `firstAvailable`, or (v1beta1) at its top."""

    name: str = ""
    device_class_name: str = ""
    selectors: tuple[DeviceSelector, ...] = ()
    allocation_mode: str = "ExactCount"
    count: int = 1
    admin_access: bool = False
    tolerations: tuple[DeviceToleration, ...] = ()
    capacity: Portions = Portions()
    exactly: DeviceRequest | None = None
    first_available: tuple[DeviceRequest, ...] = ()


class DeviceConstraint(_Part, frozen=True):
    """What the devices of a claim must have in common."""

    requests: tuple[str, ...] = ()
    match_attribute: str = ""
    distinct_attribute: str = ""


class DeviceDemand(_Part, frozen=True):
    """All that a claim asks for."""

    requests: tuple[DeviceRequest, ...] = ()
    constraints: tuple[DeviceConstraint, ...] = ()


class ResourceClaimSpec(_Part, frozen=True):
    devices: DeviceDemand = DeviceDemand()


class DeviceResult(_Part, frozen=True):
    """A device that a claim has."""

    driver: str = ""
    pool: str = ""
    device: str = ""
    admin_access: bool = False
    share_id: str = field(default="", name="shareID")
    consumed_capacity: k8s.Quantities = {}


class DeviceResults(_Part, frozen=True):
    results: tuple[DeviceResult, ...] = ()


class Allocation(_Part, frozen=True):
    """What was chosen for a claim, and the nodes that can use it."""

    devices: DeviceResults = DeviceResults()
    node_selector: k8s.NodeSelector | None = None


class Consumer(_Part, frozen=True):
    """Who may use a claim now."""

    resource: str = "pods"
    name: str = ""
    uid: str = ""


class ResourceClaimStatus(_Part, frozen=True):
    allocation: Allocation | None = None
    reserved_for: tuple[Consumer, ...] = ()


class ResourceClaim(k8s.Object, frozen=True):
    spec: ResourceClaimSpec = ResourceClaimSpec()
    status: ResourceClaimStatus = ResourceClaimStatus()


class DeviceClassSpec(_Part, frozen=True):
    """Which devices are of a class, and the extended resource that it serves."""

    selectors: tuple[DeviceSelector, ...] = ()
    extended_resource_name: str = ""


class DeviceClass(k8s.Object, frozen=True):
    spec: DeviceClassSpec = DeviceClassSpec()


class Span(_Part, frozen=True):
    """From where to where, and in which steps."""

    min: Quantity | None = None
    max: Quantity | None = None
    step: Quantity | None = None


class Policy(_Part, frozen=True):
    """Which parts of a capacity can be had; the default is the part of who asks for none."""

    default: Quantity | None = None
    valid_values: tuple[Quantity, ...] = ()
    valid_range: Span | None = None


class Amount(_Part, frozen=True):
    """How much there is of a capacity or a counter."""

    value: Quantity = 0
    request_policy: Policy = Policy()


class Attribute(_Part, frozen=True):
    """One of four, by its type."""

    string: str | None = None
    number: int | None = field(default=None, name="int")
    truth: bool | None = field(default=None, name="bool")
    version: str | None = None


class CounterSet(_Part, frozen=True):
    """What devices of a pool share: `{memory: {value: 80Gi}}`."""

    name: str = ""
    counters: dict[str, Amount] = {}


class Consumption(_Part, frozen=True):
    """What a device takes of it."""

    counter_set: str = ""
    counters: dict[str, Amount] = {}


class Device(_Part, frozen=True):
    """resourcev1.Device; v1beta1 has the attributes in `basic`."""

    name: str = ""
    attributes: dict[str, Attribute] = {}
    capacity: dict[str, Amount | Quantity] = {}
    consumes_counters: tuple[Consumption, ...] = ()
    taints: tuple[k8s.Taint, ...] = ()
    node_name: str = ""
    node_selector: k8s.NodeSelector | None = None
    all_nodes: bool = False
    allow_multiple_allocations: bool = False
    basic: Device | None = None


class Pool(_Part, frozen=True):
    """Which pool a slice is a part of, and of how many parts."""

    name: str = ""
    generation: int = 0
    resource_slice_count: int = 0


class SliceSpec(_Part, frozen=True):
    """Devices of a driver, and the nodes that reach them."""

    driver: str = ""
    pool: Pool = Pool()
    node_name: str = ""
    node_selector: k8s.NodeSelector | None = None
    all_nodes: bool = False
    per_device_node_selection: bool = False
    devices: tuple[Device, ...] = ()
    shared_counters: tuple[CounterSet, ...] = ()


class ResourceSlice(k8s.Object, frozen=True):
    spec: SliceSpec = SliceSpec()


T = TypeVar("T", bound=k8s.Object)


class Objects:
    """The objects of these kinds; each kind is decoded once per snapshot, and what does not fit counts as not read."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = proxy(cluster)  # else what is remembered by a snapshot would keep it alive
        self._found: dict[type[k8s.Object], dict[tuple[str, str], Any]] = {}
        #: what filters worked out of them, whatever the pod
        self.memo: dict[Any, Any] = {}

    def _of(self, kind: type[T]) -> dict[tuple[str, str], T]:
        if kind not in self._found:
            typed: dict[tuple[str, str], T] = {}
            for item in self._cluster.items(kind.__name__):
                try:
                    typed[item.namespace, item.name] = k8s.convert(item.raw, kind)
                except (msgspec.ValidationError, RecursionError):
                    continue
            self._found[kind] = typed
        return self._found[kind]

    def all(self, kind: type[T]) -> list[T]:
        """All objects of a kind that were read and understood."""
        return [*self._of(kind).values()]

    def get(self, kind: type[T], name: str, namespace: str = "") -> T | None:
        """One object; None when it was not read, was not understood or does not exist."""
        return self._of(kind).get((namespace, name))

    def lacks(self, kind: type[k8s.Object], name: str, namespace: str = "") -> bool:
        """Whether an object is known not to exist."""
        return self._cluster.exists(kind.__name__, namespace, name) is False

    def complete(self, kind: type[k8s.Object]) -> bool:
        """Whether these are all objects of the kind, and each was understood."""
        read = self._cluster.complete(kind.__name__)
        return read and len(self._of(kind)) == sum(1 for _ in self._cluster.items(kind.__name__))


def objects_of(cluster: Cluster) -> Objects:
    """The objects of a snapshot, decoded once."""
    return cluster.once("objects", lambda: Objects(cluster))
