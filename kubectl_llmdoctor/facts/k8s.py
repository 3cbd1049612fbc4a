"""The parts of Kubernetes objects that facts are made of, as typed, frozen structs.

Classes are named as their types in the API. Only fields that something reads are declared; the rest of an object is
ignored. Decoding is lenient where manifests written by hand are: numbers for strings, strings for numbers. Nulls are gone
before (Kubernetes reads null as absent).

Annotations are not postponed here, nor where else what is decoded is declared: msgspec would compile each of them, 3 ms in all.
"""

import re
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec
from msgspec import field

Scalar = str | int | float | bool
Quantities = dict[str, str | int | float]


class _Base(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Common settings of all API structs."""


class OwnerReference(_Base, frozen=True):
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False


class Metadata(_Base, frozen=True):
    """metav1.ObjectMeta."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: dict[str, Scalar] = {}
    annotations: dict[str, Scalar] = {}
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    owner_references: tuple[OwnerReference, ...] = ()
    finalizers: tuple[str, ...] = ()

    @property
    def label_texts(self) -> dict[str, str]:
        """The labels as selectors compare them: a manifest may have numbers there."""
        return {key: str(value) for key, value in self.labels.items()}


class Object(_Base, frozen=True):
    kind: str = ""
    api_version: str = ""
    metadata: Metadata = Metadata()


class KeyRef(_Base, frozen=True):
    """A key of a ConfigMap or Secret."""

    name: str = ""
    key: str = ""
    optional: bool = False


class FieldRef(_Base, frozen=True):
    """A field of the pod, or a resource of a container."""

    field_path: str = ""
    resource: str = ""


class ValueFrom(_Base, frozen=True):
    """Where a variable's value comes from."""

    config_map_key_ref: KeyRef | None = None
    secret_key_ref: KeyRef | None = None
    field_ref: FieldRef | None = None
    resource_field_ref: FieldRef | None = None


class EnvVar(_Base, frozen=True):
    name: str = ""
    value: Scalar | None = None
    value_from: ValueFrom | None = None


class LocalRef(_Base, frozen=True):
    """A named object of the pod's own namespace."""

    name: str = ""
    optional: bool = False


class EnvFrom(_Base, frozen=True):
    """A whole ConfigMap or Secret as environment."""

    prefix: str = ""
    config_map_ref: LocalRef | None = None
    secret_ref: LocalRef | None = None


class Resources(_Base, frozen=True):
    requests: Quantities = {}
    limits: Quantities = {}
    claims: tuple[dict[str, Any], ...] = ()


class ContainerPort(_Base, frozen=True):
    name: str = ""
    container_port: int = 0
    host_port: int | None = None
    host_ip: str = field(default="", name="hostIP")
    protocol: str = "TCP"


class HttpGet(_Base, frozen=True):
    path: str = "/"
    port: str | int = ""
    scheme: str = "HTTP"
    host: str = ""
    http_headers: tuple[dict[str, Any], ...] = ()


class TcpSocket(_Base, frozen=True):
    port: str | int = ""


class ExecAction(_Base, frozen=True):
    command: tuple[Scalar, ...] = ()


class GrpcAction(_Base, frozen=True):
    port: str | int = ""
    service: str = ""


class Probe(_Base, frozen=True):
    """A probe with the API's defaults."""

    http_get: HttpGet | None = None
    tcp_socket: TcpSocket | None = None
    exec: ExecAction | None = None
    grpc: GrpcAction | None = None
    initial_delay_seconds: int = 0
    period_seconds: int = 10
    timeout_seconds: int = 1
    failure_threshold: int = 3
    termination_grace_period_seconds: int | None = None

    @property
    def path(self) -> str:
        """The path that it asks; empty where it does not ask by HTTP."""
        return self.http_get.path if self.http_get else ""

    @property
    def script(self) -> str:
        """The command that it runs, in one line; empty where it asks otherwise."""
        return " ".join(map(str, self.exec.command)) if self.exec else ""

    @property
    def budget(self) -> int:
        """Seconds until it has failed for good in a container that never answers."""
        return self.initial_delay_seconds + self.period_seconds * self.failure_threshold


class VolumeMount(_Base, frozen=True):
    name: str = ""
    mount_path: str = ""
    sub_path: str = ""
    read_only: bool = False


class Sysctl(_Base, frozen=True):
    """A kernel parameter of a pod."""

    name: str = ""
    value: Scalar = ""


class SecurityContext(_Base, frozen=True):
    run_as_user: int | None = None
    run_as_non_root: bool | None = None
    fs_group: int | None = None
    supplemental_groups: tuple[int, ...] = ()
    privileged: bool | None = None
    read_only_root_filesystem: bool | None = None
    sysctls: tuple[Sysctl, ...] = ()
    capabilities: dict[str, tuple[str, ...]] = {}


class Lifecycle(_Base, frozen=True):
    post_start: dict[str, Any] | None = None
    pre_stop: dict[str, Any] | None = None


class Container(_Base, frozen=True):
    name: str = ""
    image: str = ""
    command: tuple[Scalar, ...] = ()
    args: tuple[Scalar, ...] = ()
    env: tuple[EnvVar, ...] = ()
    env_from: tuple[EnvFrom, ...] = ()
    ports: tuple[ContainerPort, ...] = ()
    resources: Resources = Resources()
    volume_mounts: tuple[VolumeMount, ...] = ()
    startup_probe: Probe | None = None
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    security_context: SecurityContext = SecurityContext()
    restart_policy: str = ""
    restart_policy_rules: tuple[dict[str, Any], ...] = ()
    working_dir: str = ""
    stdin: bool = False
    tty: bool = False

    def words(self, vector: str) -> list[str]:
        """Its `args` or `command`, as texts."""
        return [str(word) for word in (self.args if vector == "args" else self.command)]

    @property
    def argv(self) -> tuple[str, ...]:
        """Its command and arguments, as texts."""
        return tuple(map(str, (*self.command, *self.args)))

    @property
    def probes(self) -> dict[str, Probe]:
        """The probes that it has, by kind, in the order in which they begin."""
        every = {"startup": self.startup_probe, "liveness": self.liveness_probe, "readiness": self.readiness_probe}
        return {kind: probe for kind, probe in every.items() if probe is not None}


class EmptyDir(_Base, frozen=True):
    medium: str = ""
    size_limit: str | int | float | None = None


class KeyToPath(_Base, frozen=True):
    """Where a key of a ConfigMap or Secret stands in its volume."""

    key: str = ""
    path: str = ""


class ConfigMapVolume(_Base, frozen=True):
    name: str = ""
    items: tuple[KeyToPath, ...] = ()
    optional: bool = False


class SecretVolume(_Base, frozen=True):
    secret_name: str = ""
    items: tuple[KeyToPath, ...] = ()
    optional: bool = False


class ClaimVolume(_Base, frozen=True):
    claim_name: str = ""
    read_only: bool = False


class HostPath(_Base, frozen=True):
    path: str = ""
    type: str = ""


class Volume(_Base, frozen=True):
    """corev1.Volume; a kind that is not declared here leaves all fields None."""

    name: str = ""
    empty_dir: EmptyDir | None = None
    config_map: ConfigMapVolume | None = None
    secret: SecretVolume | None = None
    persistent_volume_claim: ClaimVolume | None = None
    host_path: HostPath | None = None
    csi: dict[str, Any] | None = None
    ephemeral: dict[str, Any] | None = None
    projected: dict[str, Any] | None = None
    azure_disk: dict[str, Any] | None = None
    cinder: dict[str, Any] | None = None
    gce_persistent_disk: dict[str, Any] | None = None
    aws_elastic_block_store: dict[str, Any] | None = None
    iscsi: dict[str, Any] | None = None
    nfs: dict[str, Any] | None = None
    rbd: dict[str, Any] | None = None


class Toleration(_Base, frozen=True):
    key: str = ""
    operator: str = ""
    value: Scalar = ""
    effect: str = ""


class Requirement(_Base, frozen=True):
    """A label requirement of a node selector term or a label selector."""

    key: str = ""
    operator: str = ""
    values: tuple[Scalar, ...] = ()

    @property
    def text(self) -> str:
        """`zone In a, b`, `zone Exists`."""
        return f"{self.key} {self.operator} {', '.join(map(str, self.values))}".strip()


class NodeSelectorTerm(_Base, frozen=True):
    """One of several terms that may match."""

    match_expressions: tuple[Requirement, ...] = ()
    match_fields: tuple[Requirement, ...] = ()


class NodeSelector(_Base, frozen=True):
    """Terms, one of which must match."""

    node_selector_terms: tuple[NodeSelectorTerm, ...] = ()


class PreferredTerm(_Base, frozen=True):
    """A preference; it places nothing, and one that is invalid stops everything."""

    preference: NodeSelectorTerm = NodeSelectorTerm()


class NodeAffinity(_Base, frozen=True):
    required_during_scheduling_ignored_during_execution: NodeSelector | None = None
    preferred_during_scheduling_ignored_during_execution: tuple[PreferredTerm, ...] = ()


class LabelSelector(_Base, frozen=True):
    match_labels: dict[str, Scalar] = {}
    match_expressions: tuple[Requirement, ...] = ()


class PodAffinityTerm(_Base, frozen=True):
    """A required term of pod (anti-)affinity."""

    label_selector: LabelSelector | None = None
    topology_key: str = ""
    namespaces: tuple[str, ...] = ()
    namespace_selector: LabelSelector | None = None
    match_label_keys: tuple[str, ...] = ()
    mismatch_label_keys: tuple[str, ...] = ()


class PodAffinity(_Base, frozen=True):
    """Only what is required."""

    required_during_scheduling_ignored_during_execution: tuple[PodAffinityTerm, ...] = ()


class Affinity(_Base, frozen=True):
    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAffinity | None = None


class SpreadConstraint(_Base, frozen=True):
    """corev1.TopologySpreadConstraint."""

    max_skew: int = 1
    topology_key: str = ""
    when_unsatisfiable: str = ""
    label_selector: LabelSelector | None = None
    min_domains: int | None = None
    node_affinity_policy: str = "Honor"
    node_taints_policy: str = "Ignore"
    match_label_keys: tuple[str, ...] = ()


class Gate(_Base, frozen=True):
    name: str = ""


class PodSpec(_Base, frozen=True):
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()
    volumes: tuple[Volume, ...] = ()
    node_name: str = ""
    subdomain: str = ""
    node_selector: dict[str, Scalar] = {}
    affinity: Affinity | None = None
    tolerations: tuple[Toleration, ...] = ()
    topology_spread_constraints: tuple[SpreadConstraint, ...] = ()
    scheduling_gates: tuple[Gate, ...] = ()
    scheduler_name: str = ""
    runtime_class_name: str = ""
    priority: int | None = None
    priority_class_name: str = ""
    restart_policy: str = "Always"
    service_account_name: str = ""
    enable_service_links: bool = True
    host_ipc: bool = field(default=False, name="hostIPC")
    host_network: bool = False
    host_users: bool | None = None
    dns_policy: str = "ClusterFirst"
    dns_config: dict[str, Any] = {}
    host_aliases: tuple[dict[str, Any], ...] = ()
    overhead: Quantities = {}
    resources: Resources = Resources()
    resource_claims: tuple[dict[str, Any], ...] = ()
    security_context: SecurityContext = SecurityContext()
    termination_grace_period_seconds: int | None = None
    image_pull_secrets: tuple[LocalRef, ...] = ()
    hostname: str = ""

    @property
    def claim_names(self) -> set[str]:
        """The claims that it mounts volumes of."""
        return {v.persistent_volume_claim.claim_name for v in self.volumes if v.persistent_volume_claim}

    @property
    def node_terms(self) -> tuple[NodeSelectorTerm, ...]:
        """The terms of its required node affinity, one of which a node must match."""
        affinity = self.affinity.node_affinity if self.affinity else None
        required = affinity.required_during_scheduling_ignored_during_execution if affinity else None
        return required.node_selector_terms if required else ()

    @property
    def apart_terms(self) -> tuple[PodAffinityTerm, ...]:
        """The terms of its required anti-affinity: what must not be in its domain."""
        apart = self.affinity.pod_anti_affinity if self.affinity else None
        return apart.required_during_scheduling_ignored_during_execution if apart else ()


class Condition(_Base, frozen=True):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None

    @property
    def text(self) -> str:
        """As it is quoted: its reason and its message."""
        return ": ".join(filter(None, (self.reason, self.message)))


def condition_of(conditions: Iterable[Condition], kind: str, status: str = "") -> Condition | None:
    """The condition of a type, and of a status where one is named."""
    return next((c for c in conditions if c.type == kind and status in ("", c.status)), None)


class _Status(_Base, frozen=True):
    """A status with conditions."""

    conditions: tuple[Condition, ...] = ()

    def condition(self, kind: str, status: str = "") -> Condition | None:
        """Its condition of this type, and of this status where one is named."""
        return condition_of(self.conditions, kind, status)

    @property
    def ready(self) -> Condition | None:
        """The condition that says that it is ready; None where none does."""
        return self.condition("Ready", "True")


class Waiting(_Base, frozen=True):
    """A container that waits, and why."""

    reason: str = ""
    message: str = ""


class Running(_Base, frozen=True):
    started_at: str | None = None


class Terminated(_Base, frozen=True):
    """A container instance that ended."""

    exit_code: int = 0
    reason: str = ""
    message: str = ""
    started_at: str | None = None
    finished_at: str | None = None

    @property
    def lost(self) -> bool:
        """Whether it was gone when the runtime came back, mostly with its node: nobody knows how it ended."""
        return (self.exit_code, self.reason) == (255, "Unknown")


class State(_Base, frozen=True):
    """One of three."""

    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(_Base, frozen=True):
    name: str = ""
    ready: bool = False
    started: bool | None = None
    restart_count: int = 0
    state: State = State()
    last_state: State = State()
    image: str = ""
    image_id: str = field(default="", name="imageID")
    allocated_resources: Quantities = {}
    resources: Resources | None = None


class MadeClaim(_Base, frozen=True):
    """The ResourceClaim that was made from a template for a pod."""

    name: str = ""
    resource_claim_name: str = ""


class PodStatus(_Status, frozen=True):
    phase: str = ""
    reason: str = ""
    message: str = ""
    container_statuses: tuple[ContainerStatus, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()
    pod_ip: str = field(default="", name="podIP")
    host_ip: str = field(default="", name="hostIP")
    start_time: str | None = None
    nominated_node_name: str = ""
    resources: Resources | None = None
    allocated_resources: Quantities = {}
    resource_claim_statuses: tuple[MadeClaim, ...] = ()

    @property
    def of_containers(self) -> tuple[ContainerStatus, ...]:
        """How all its containers do, the init containers first."""
        return (*self.init_container_statuses, *self.container_statuses)


class Pod(Object, frozen=True):
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class PodTemplate(_Base, frozen=True):
    metadata: Metadata = Metadata()
    spec: PodSpec = PodSpec()


class Taint(_Base, frozen=True):
    key: str = ""
    value: Scalar = ""
    effect: str = ""


class NodeSpec(_Base, frozen=True):
    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()


class NodeInfo(_Base, frozen=True):
    """What of corev1.NodeSystemInfo is asked for."""

    os_image: str = ""
    kernel_version: str = ""
    container_runtime_version: str = ""


class NodeStatus(_Status, frozen=True):
    """corev1.NodeStatus without the image list."""

    capacity: Quantities = {}
    allocatable: Quantities = {}
    declared_features: tuple[str, ...] = ()
    node_info: NodeInfo = NodeInfo()


class Node(Object, frozen=True):
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class ObjectRef(_Base, frozen=True):
    """What an event is about."""

    kind: str = ""
    name: str = ""
    namespace: str = ""
    uid: str = ""
    field_path: str = ""


class Source(_Base, frozen=True):
    """Who reported an event (old form)."""

    component: str = ""


class Series(_Base, frozen=True):
    count: int = 0
    last_observed_time: str | None = None


class Event(Object, frozen=True):
    """An event in either API form: core/v1 or events.k8s.io/v1."""

    involved_object: ObjectRef = ObjectRef()
    regarding: ObjectRef = ObjectRef()
    reason: str = ""
    message: str = ""
    note: str = ""
    type: str = ""
    count: int | None = None
    first_timestamp: str | None = None
    last_timestamp: str | None = None
    event_time: str | None = None
    deprecated_first_timestamp: str | None = None
    deprecated_last_timestamp: str | None = None
    deprecated_count: int | None = None
    series: Series | None = None
    source: Source = Source()
    reporting_component: str = ""
    reporting_controller: str = ""


class ServicePort(_Base, frozen=True):
    name: str = ""
    port: int = 0
    target_port: str | int = ""
    protocol: str = "TCP"


class ServiceSpec(_Base, frozen=True):
    selector: dict[str, Scalar] = {}
    ports: tuple[ServicePort, ...] = ()
    type: str = "ClusterIP"
    cluster_ip: str = field(default="", name="clusterIP")


class Service(Object, frozen=True):
    spec: ServiceSpec = ServiceSpec()


class EndpointConditions(_Base, frozen=True):
    """discoveryv1.EndpointConditions; null means ready."""

    ready: bool = True


class Endpoint(_Base, frozen=True):
    conditions: EndpointConditions = EndpointConditions()


class EndpointSlice(Object, frozen=True):
    endpoints: tuple[Endpoint, ...] = ()
    #: empty where no port of the Service leads to a container: the API server says null then
    ports: tuple[dict[str, Any], ...] = ()


class Rollout(_Base, frozen=True):
    """The rolling update of a Deployment."""

    type: str = ""


class WorkloadSpec(_Base, frozen=True):
    """The spec of Deployment, ReplicaSet, StatefulSet, DaemonSet or Job, as far as they share it."""

    replicas: int | None = None
    selector: dict[str, Any] = {}
    template: PodTemplate | None = None
    strategy: Rollout = Rollout()
    progress_deadline_seconds: int | None = None


class WorkloadStatus(_Base, frozen=True):
    number_ready: int = 0
    desired_number_scheduled: int = 0
    conditions: tuple[Condition, ...] = ()


class Workload(Object, frozen=True):
    """A built-in workload."""

    spec: WorkloadSpec = WorkloadSpec()
    status: WorkloadStatus = WorkloadStatus()


class ConfigMap(Object, frozen=True):
    """corev1.ConfigMap; binary data is not kept."""

    data: dict[str, Scalar] = {}


class Secret(Object, frozen=True):
    """corev1.Secret: the names of its keys; the values were masked where they entered."""

    data: dict[str, Any] = {}
    string_data: dict[str, Any] = {}


class QuotaSpec(_Base, frozen=True):
    hard: Quantities = {}


class QuotaStatus(_Base, frozen=True):
    hard: Quantities = {}
    used: Quantities = {}


class ResourceQuota(Object, frozen=True):
    spec: QuotaSpec = QuotaSpec()
    status: QuotaStatus = QuotaStatus()


class LimitItem(_Base, frozen=True):
    type: str = ""
    max: Quantities = {}
    min: Quantities = {}
    default: Quantities = {}


class LimitRangeSpec(_Base, frozen=True):
    limits: tuple[LimitItem, ...] = ()


class LimitRange(Object, frozen=True):
    spec: LimitRangeSpec = LimitRangeSpec()


KINDS: dict[str, type[Object]] = {
    "Pod": Pod,
    "Node": Node,
    "Event": Event,
    "Service": Service,
    "EndpointSlice": EndpointSlice,
    "Deployment": Workload,
    "ReplicaSet": Workload,
    "StatefulSet": Workload,
    "DaemonSet": Workload,
    "Job": Workload,
    "ConfigMap": ConfigMap,
    "Secret": Secret,
    "ResourceQuota": ResourceQuota,
    "LimitRange": LimitRange,
}

T = TypeVar("T", bound=msgspec.Struct)


#: How many values of one object something else may still have to fill in.
_MOST_UNFILLED = 20


def convert(tree: Any, kind: type[T]) -> T:
    """A decoded JSON tree as a typed struct. Raises msgspec.ValidationError with the path of what does not fit.

    A number for which a manifest has `${REPLICAS}`, which a tool fills in later, counts as not given.
    """
    for _ in range(_MOST_UNFILLED):
        try:
            return msgspec.convert(tree, kind, strict=False)
        except msgspec.ValidationError as error:
            less = _without_unfilled(tree, str(error))
            if less is None:
                raise
            tree = less
    return msgspec.convert(tree, kind, strict=False)


def _without_unfilled(tree: Any, error: str) -> Any:
    """The tree without the value that an error speaks of, where that is such a variable; None where it is another."""
    place = error.rpartition("`$")[2].rstrip("`")
    steps = re.findall(r"\.(\w+)|\[(\d+)\]", place)
    if not steps or not steps[-1][0] or "[...]" in place:  # an element of a mapping is not named
        return None
    copy: Any = dict(tree)
    here = copy
    for name, index in steps[:-1]:
        key: Any = name or int(index)
        here[key] = list(here[key]) if isinstance(here[key], list) else dict(here[key])
        here = here[key]
    value = here.pop(steps[-1][0])
    return copy if isinstance(value, str) and re.search(r"\$\{\w+", value) else None
