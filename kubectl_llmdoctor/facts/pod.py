"""Pods and their containers: spec and status joined, environment resolved, and what is wrong with them by status alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Literal, cast

import msgspec

from kubectl_llmdoctor.engines.launch import EnvVar, Launch
from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.cluster import Cluster, Item
from kubectl_llmdoctor.facts.events import Event, came_further, events_of
from kubectl_llmdoctor.facts.scheduling.message import is_provisioner
from kubectl_llmdoctor.facts.units import milli, parse_time, say_seconds, units

if TYPE_CHECKING:
    from kubectl_llmdoctor import platforms

#: Size of /dev/shm in a pod without a mount there: containerd and CRI-O both hard-code it.
DEFAULT_SHM_BYTES = 64 * 2**20

#: From when on a pod that is being made, or an init container that runs, is taken for stuck; and how long ago an end
#: with an error still counts in a container that runs again. Half a minute off the round figures, so that the moment
#: of looking does not decide.
_CREATING_SECONDS, _INIT_SECONDS, _RECENT_SECONDS = 330, 630, 3630
#: Who has restarted so often counts as unsound for longer: until it has run for so long, and longer than between restarts before.
_OFTEN, _SETTLED_SECONDS = 5, 86400

#: How long a node with GPUs may take from the autoscaler's decision until it can be used.
_NODE_SECONDS = 630

#: What autoscalers say of a pod, and which of it promises a node.
_SCALING = ("NotTriggerScaleUp", "TriggeredScaleUp", "FailedScaleUp", "Nominated")
_PROMISES = ("TriggeredScaleUp", "Nominated")

#: The scheduler speaks of a new pod sooner, and the API server at once of one that it may not look at yet.
_FIRST_WORD_SECONDS = 30

#: The machine that Karpenter is getting for a pod, in the event that promises it.
_CLAIM = r"\bnodeclaim/([\w.-]+)"

#: How long after its grace period a pod that was deleted may still be listed.
_LEAVING_SECONDS = 60

#: What the kubelet says of volumes of a pod that it has only just heard of; the next try succeeds.
_BLIPS = re.compile(r"failed to sync \w+ cache: timed out waiting for the condition|object \S+ not registered")

#: Warnings that say nothing of a pod that has a node, or that do not stop it by themselves.
_NO_STOP = frozenset({"FailedScheduling", "FailedToRetrieveImagePullSecret"})

#: The kubelet's words for a restart that a probe brought about.
_PROBE_KILL = re.compile(r"^Container (?P<container>\S+) failed (?:liveness|startup) probe, will be restarted")
#: And for one because somebody changed its image or resources in place.
_CHANGED = r"^Container (?P<container>\S+) definition changed, will be restarted"

#: Waiting reasons of a container that is only on its way.
_STARTING = ("ContainerCreating", "PodInitializing", "")

_GPU_RESOURCES = (
    r"nvidia\.com/(gpu|gpu\.shared|mig-[\w.]+)|amd\.com/(gpu|[a-z]+_nps\d)|gpu\.intel\.com/(i915|xe|tiles)|"
    r"habana\.ai/gaudi|google\.com/tpu|aws\.amazon\.com/(neuron|neuroncore|neurondevice)|huawei\.com/Ascend\w+|"
    r"\w+\.com/(gpu|mlu|vgpu)|intel\.com/gpu"
)


#: Resources whose devices one process drives together, so that tensor parallelism starts no worker processes. Sources:
#: tpu_inference/platforms/tpu_platform.py (UniProcExecutor on one host), vllm/platforms/neuron.py of vLLM up to 0.11.
_ONE_PROCESS = re.compile(r"google\.com/tpu|aws\.amazon\.com/neuron(core|device)?")

#: Devices that one chip of a TPU shows to a program, by GKE's label of the node. Source: docs.cloud.google.com/tpu/docs:
#: v4 and v5p join their two cores to one device, v5e and v6e have one core, tpu7x shows both.
_TPU_LABEL = "cloud.google.com/gke-tpu-accelerator"
_TPU_DEVICES = {"tpu-v4-podslice": 1, "tpu-v5-lite-podslice": 1, "tpu-v5p-slice": 1, "tpu-v6e-slice": 1, "tpu7x": 2}


#: Digits of the largest port.
_PORT_DIGITS = 5


def is_accelerator(resource: str) -> bool:
    """Whether a resource name is a GPU or another accelerator."""
    return re.fullmatch(_GPU_RESOURCES, resource) is not None


#: What `/health` answers beside the status 503 when the engine behind the server is dead; vLLM says nothing then, and
#: something else while it scales. Sources: vLLM entrypoints/serve/instrumentator/health.py, TensorRT-LLM serve/openai_server.py.
_DEAD = {"vllm": "", "tensorrt-llm": "LLM is unavailable."}


class Shm(msgspec.Struct, frozen=True, kw_only=True):
    """What stands at /dev/shm in a container."""

    #: None: not limited by Kubernetes (node memory)
    size_bytes: int | None
    source: Literal["default", "memory-volume", "volume", "host-ipc"]
    volume: str = ""


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong with a pod by its status, or by what its own port answers or its log ends with."""

    #: `dead`: it counts as ready, and its own port says that the engine behind it is dead
    kind: Literal["pending", "waiting", "crashed", "failed", "not-ready", "creating", "dead"]
    text: str
    container: Container | None = None
    since: datetime | None = None


class Container:
    """One container of a pod: what was asked for and what became of it."""

    def __init__(self, pod: Pod, spec: k8s.Container, status: k8s.ContainerStatus | None, *, init: bool) -> None:
        self.pod = pod
        self.spec = spec
        self.status = status or k8s.ContainerStatus(name=spec.name)
        self.role: Literal["main", "init", "sidecar"] = (
            "main" if not init else "sidecar" if spec.restart_policy == "Always" else "init"
        )

    @property
    def name(self) -> str:
        """The container's name."""
        return self.spec.name

    @cached_property
    def path(self) -> str:
        """Where it stands in its object: `spec.containers[vllm]`."""
        template = None if self.pod.exists else self.pod.template
        if template:
            return template.shown(self.pointer)
        group = "containers" if self.role == "main" else "initContainers"
        return f"spec.{group}[{self.name}]"

    @property
    def pointer(self) -> str:
        """Where it stands in the pod spec, as JSON patches need it: `/containers/0`."""
        return f"/{'containers' if self.role == 'main' else 'initContainers'}/{self.index}"

    def shown(self, path: str) -> str:
        """The place of something inside it: an argument may stand in another field of the object than its container."""
        template = None if self.pod.exists else self.pod.template
        inside = path.removeprefix(f"{self.path}.args[")
        if template is None or inside == path or not inside[:-1].isdecimal():
            return path
        return template.shown(f"{self.pointer}/args/{inside[:-1]}")

    @cached_property
    def engine_dead(self) -> bool:
        """Whether it counts as ready, and its own port, or where nobody asked it its log, says that the engine is dead."""
        if not (self.running and self.status.ready and self.pod.exists):
            return False
        if not self.pod.cluster.snapshot.answers:
            return self._said_dead()
        from kubectl_llmdoctor import engines
        from kubectl_llmdoctor.facts.answers import Answers

        health = Answers(self).at("/health")
        if health is None or health.status != 503:
            return False
        engine, said = engines.read(self.launch), health.error.partition(": ")[2] or health.text
        words = _DEAD.get(engine.name) if engine else None
        return words is not None and (said.startswith(words) if words else not said)

    def _said_dead(self) -> bool:
        """Whether the log of the running instance ends with the death of its engine."""
        from kubectl_llmdoctor.facts.endings import gone
        from kubectl_llmdoctor.facts.logs import Log

        mine = (self.pod.name, self.pod.namespace, self.name, False)
        for text in self.pod.cluster.snapshot.logs:
            if (text.pod, text.namespace or "default", text.container, text.previous) == mine:
                return gone(Log(text)) is not None
        return False

    @property
    def told(self) -> tuple[platforms.Told, ...]:
        """Engines that an operator starts in it and of which its own command says nothing."""
        template = self.pod.template if self.pod.by_operator else None
        return tuple(told for told in template.told if told.container == self.name) if template else ()

    @cached_property
    def index(self) -> int:
        """Its position among its kind, as JSON patches need it."""
        group = self.pod.spec.containers if self.role == "main" else self.pod.spec.init_containers
        return next((i for i, c in enumerate(group) if c is self.spec), 0)

    @cached_property
    def launch(self) -> Launch:
        """What it was told to run, with its environment resolved as far as the snapshot knows."""
        return Launch(
            image=self.spec.image,
            command=tuple(map(_scalar, self.spec.command)),
            args=tuple(map(_scalar, self.spec.args)),
            env=self.env,
            files=self.files,
            ports=tuple(p.container_port for p in self.spec.ports),
            path=self.path,
            name=self.name,
            labels={k: str(v) for k, v in self.pod.obj.metadata.labels.items()},
        )

    @cached_property
    def env(self) -> dict[str, EnvVar]:
        """The environment in order; a value that only a Secret or the node knows is None."""
        cluster, found = self.pod.cluster, dict[str, EnvVar]()
        for source in self.spec.env_from:
            if source.config_map_ref:
                item = self.pod.config_map(source.config_map_ref.name)
                config = item.typed() if item else None
                for key, value in config.data.items() if isinstance(config, k8s.ConfigMap) else ():
                    name = source.prefix + key
                    origin = f"ConfigMap {source.config_map_ref.name}/{key}"
                    found[name] = EnvVar(name=name, value=str(value), origin=origin, path=f"{self.path}.envFrom")
            elif source.secret_ref:
                item = cluster.item("Secret", self.pod.namespace, source.secret_ref.name)
                secret = item.typed() if item else None
                if isinstance(secret, k8s.Secret):
                    for key in [*secret.data, *secret.string_data]:
                        name = source.prefix + key
                        origin = f"Secret {source.secret_ref.name}/{key}"
                        found[name] = EnvVar(name=name, value=None, origin=origin, path=f"{self.path}.envFrom")
        for var in self.spec.env:
            known, origin = self._resolve(var)
            found[var.name] = EnvVar(name=var.name, value=known, origin=origin, path=f"{self.path}.env[{var.name}]")
        return found

    def _resolve(self, var: k8s.EnvVar) -> tuple[str | None, str]:
        """A variable's value, and where it comes from."""
        source = var.value_from
        if source is None:
            return ("" if var.value is None else _scalar(var.value)), "value"
        if source.config_map_key_ref:
            ref = source.config_map_key_ref
            item = self.pod.config_map(ref.name)
            config = item.typed() if item else None
            value = config.data.get(ref.key) if isinstance(config, k8s.ConfigMap) else None
            return (None if value is None else _scalar(value)), f"ConfigMap {ref.name}/{ref.key}"
        if source.secret_key_ref:
            return None, f"Secret {source.secret_key_ref.name}/{source.secret_key_ref.key}"
        if source.field_ref:
            return self.pod.field(source.field_ref.field_path), f"field {source.field_ref.field_path}"
        if source.resource_field_ref:
            return None, f"resource {source.resource_field_ref.resource}"
        return None, "unknown source"

    @cached_property
    def files(self) -> dict[str, str]:
        """Text files that mounted ConfigMaps put into the container, by absolute path."""
        files: dict[str, str] = {}
        for mount in self.spec.volume_mounts:
            volume = self.pod.volume(mount.name)
            if volume is None or volume.config_map is None:
                continue
            item = self.pod.config_map(volume.config_map.name)
            config = item.typed() if item else None
            if not isinstance(config, k8s.ConfigMap):
                continue
            paths = {i.key: i.path for i in volume.config_map.items} or {key: key for key in config.data}
            for key, path in paths.items():
                if key in config.data and mount.sub_path in ("", path):
                    root = mount.mount_path.rstrip("/")
                    files[root if mount.sub_path else f"{root}/{path}"] = str(config.data[key])
        return files

    def limit(self, resource: str) -> int | None:
        """A limit in whole units (bytes, GPUs; millicores for cpu); None when it has none.

        Of CPU and memory zero is none: the kubelet then sets no limit (pkg/kubelet/kuberuntime, calculateLinuxResources).
        """
        amount = _amount(resource, self.spec.resources.limits.get(resource))
        return None if amount == 0 and resource in ("cpu", "memory") else amount

    def request(self, resource: str) -> int | None:
        """A request, which defaults to the limit as the API server does."""
        asked = self.spec.resources.requests.get(resource, self.spec.resources.limits.get(resource))
        return _amount(resource, asked)

    @cached_property
    def accelerators(self) -> dict[str, int]:
        """GPUs and other accelerators it asks for, by resource name."""
        names = [*self.spec.resources.limits, *self.spec.resources.requests]
        return {n: count for n in dict.fromkeys(names) if is_accelerator(n) and (count := self.request(n))}

    @property
    def gpus(self) -> int:
        """How many accelerators it asks for, of all names together."""
        return sum(self.accelerators.values())

    @property
    def devices(self) -> int | None:
        """How many devices a program sees of the accelerators that it asks for; None where the resource does not say.

        A chip of AWS Neuron is several cores, by its generation; a TPU chip is one device or two.
        """
        count = 0
        for resource, amount in self.accelerators.items():
            if resource == "google.com/tpu":
                each = _TPU_DEVICES.get(str(self.pod.spec.node_selector.get(_TPU_LABEL, "")))
            else:
                each = None if resource in ("aws.amazon.com/neuron", "aws.amazon.com/neurondevice") else 1
            if each is None:
                return None
            count += each * amount
        return count

    @property
    def one_process(self) -> bool:
        """Whether one process drives all its accelerators: nothing is then exchanged between workers."""
        return any(_ONE_PROCESS.fullmatch(resource) for resource in self.accelerators)

    @cached_property
    def terminated(self) -> k8s.Terminated | None:
        """The last instance that ended, if any."""
        return self.status.state.terminated or self.status.last_state.terminated

    @property
    def restarts(self) -> int:
        """How often it was restarted."""
        return self.status.restart_count

    @property
    def running(self) -> bool:
        """Whether it runs now."""
        return self.status.state.running is not None

    @property
    def waiting(self) -> k8s.Waiting | None:
        """Why it waits, when it does."""
        return self.status.state.waiting

    def mount_at(self, path: str) -> k8s.VolumeMount | None:
        """The mount whose path is exactly `path`."""
        return next((m for m in self.spec.volume_mounts if m.mount_path.rstrip("/") == path), None)

    def mount_over(self, path: str) -> k8s.VolumeMount | None:
        """The innermost mount that `path` lies in."""
        fits = [m for m in self.spec.volume_mounts if f"{path}/".startswith(m.mount_path.rstrip("/") + "/")]
        return max(fits, key=lambda m: len(m.mount_path), default=None)

    @cached_property
    def shm(self) -> Shm:
        """What stands at /dev/shm.

        A memory-backed emptyDir is as large as the smallest of node memory, pod memory limit and sizeLimit
        (kubelet, SizeMemoryBackedVolumes).
        """
        mount = self.mount_at("/dev/shm")
        volume = self.pod.volume(mount.name) if mount else None
        if mount and volume is None:
            return Shm(size_bytes=None, source="volume", volume=mount.name)
        if volume and volume.empty_dir and volume.empty_dir.medium == "Memory":
            bounds = [b for b in (units(volume.empty_dir.size_limit), self.pod.memory_limit) if b]
            return Shm(size_bytes=min(bounds, default=None), source="memory-volume", volume=volume.name)
        if volume:
            limit = units(volume.empty_dir.size_limit) if volume.empty_dir else None
            return Shm(size_bytes=limit, source="volume", volume=volume.name)
        if self.pod.spec.host_ipc:
            return Shm(size_bytes=None, source="host-ipc")
        return Shm(size_bytes=DEFAULT_SHM_BYTES, source="default")

    def port_number(self, port: str | int) -> int | None:
        """A probe's or Service's port as a number; a name is looked up among the declared ports."""
        if isinstance(port, int):
            return port
        if port.isdecimal():
            return int(port) if len(port) <= _PORT_DIGITS else None
        return next((p.container_port for p in self.spec.ports if p.name == port), None)


class Pod:
    """A pod, or the pod that a workload's template would make (`exists` is False then)."""

    def __init__(
        self,
        obj: k8s.Pod,
        cluster: Cluster,
        *,
        item: Item | None = None,
        exists: bool = True,
        template: Callable[[], platforms.Template | None] | None = None,
        template_of: Item | None = None,
        by_operator: bool = False,
        log_only: bool = False,
    ) -> None:
        self.obj = obj
        self.cluster = cluster
        self.item = item
        self.exists = exists
        self._template = template
        #: whether an operator stands above it, and not a kind of Kubernetes itself
        self.by_operator = by_operator
        #: the workload whose template this is, when the pod does not exist
        self.template_of = template_of
        #: a log came without its pod: nothing is known but what it says
        self.log_only = log_only

    @cached_property
    def template(self) -> platforms.Template | None:
        """The template that it came from, where its workload has one."""
        return self._template() if self._template else None

    @property
    def spec_path(self) -> str:
        """Where its spec stands in its object: `spec`, `spec.template.spec`."""
        return self.template.shown("") if self.template and not self.exists else "spec"

    @property
    def partial(self) -> bool:
        """Whether it is a template about which another object that is not here may say more."""
        return not self.exists and self.template is not None and self.template.partial

    @property
    def lent(self) -> bool:
        """Whether it is the template of a runtime: the objects that use it may ask for other resources and say more."""
        return not self.exists and self.template is not None and self.template.context

    @property
    def completed(self) -> bool:
        """Whether it is a template to which the operator may add volumes and probes that nobody wrote."""
        return not self.exists and self.template is not None and (self.template.completed or self.template.partial)

    @property
    def nodes(self) -> int | None:
        """How many pods one replica consists of; None where it is not known."""
        return self.template.nodes if self.template else 1

    @property
    def name(self) -> str:
        """The pod's name; for a template the workload's."""
        return self.obj.metadata.name

    @property
    def namespace(self) -> str:
        """The pod's namespace."""
        return self.obj.metadata.namespace or "default"

    def config_map(self, name: str) -> Item | None:
        """The ConfigMap that it names: of its namespace, else one of its folder that goes there."""
        if (found := self.cluster.item("ConfigMap", self.namespace, name)) is not None:
            return found
        near = self.cluster.beside(self.template_of or self.item, "ConfigMap")
        return next((item for item in near if item.name == name), None)

    @cached_property
    def services(self) -> list[Item]:
        """The Services whose selector it matches: of its namespace, else those of its folder that go there."""
        found = self._selecting(self.cluster.items("Service", self.namespace))
        return found or self._selecting(self.cluster.beside(self.template_of or self.item, "Service"))

    def _selecting(self, services: Iterable[Item]) -> list[Item]:
        labels = {key: str(value) for key, value in self.obj.metadata.labels.items()}
        found = []
        for item in services:
            selector = cast(k8s.Service, item.typed()).spec.selector
            if selector and all(labels.get(key) == str(value) for key, value in selector.items()):
                found.append(item)
        return found

    @property
    def spec(self) -> k8s.PodSpec:
        """What was asked for."""
        return self.obj.spec

    @property
    def status(self) -> k8s.PodStatus:
        """What became of it."""
        return self.obj.status

    @cached_property
    def containers(self) -> tuple[Container, ...]:
        """Init containers, then the others, in order."""
        inits = {s.name: s for s in self.status.init_container_statuses}
        mains = {s.name: s for s in self.status.container_statuses}
        return (
            *(Container(self, c, inits.get(c.name), init=True) for c in self.spec.init_containers),
            *(Container(self, c, mains.get(c.name), init=False) for c in self.spec.containers),
        )

    def container(self, name: str) -> Container | None:
        """A container by its name."""
        return next((c for c in self.containers if c.name == name), None)

    def volume(self, name: str) -> k8s.Volume | None:
        """A volume by its name."""
        return next((v for v in self.spec.volumes if v.name == name), None)

    def field(self, path: str) -> str | None:
        """A field of the downward API; None where it is not known."""
        meta, status = self.obj.metadata, self.status
        known = {
            "metadata.name": meta.name if self.exists else None,
            "metadata.namespace": meta.namespace or None,
            "metadata.uid": meta.uid or None,
            "spec.nodeName": self.spec.node_name or None,
            "spec.serviceAccountName": self.spec.service_account_name or None,
            "status.podIP": status.pod_ip or None,
            "status.podIPs": status.pod_ip or None,
            "status.hostIP": status.host_ip or None,
        }
        if path in known:
            return known[path]
        group, bracket, key = path.partition("['")
        if bracket and group in ("metadata.labels", "metadata.annotations"):
            value = (meta.labels if group.endswith("labels") else meta.annotations).get(key.rstrip("']"))
            return None if value is None else str(value)
        return None

    @cached_property
    def memory_limit(self) -> int | None:
        """The pod's memory limit in bytes: its own, or the sum when every container has one."""
        own = units(self.spec.resources.limits.get("memory"))
        limits = [c.limit("memory") for c in self.containers if c.role != "init"]
        if own or not limits or None in limits:
            return own
        return sum(limit or 0 for limit in limits)

    @cached_property
    def accelerators(self) -> dict[str, int]:
        """Accelerators of the whole pod by the scheduler's rule: the sum of containers, or the largest init container."""
        totals: dict[str, int] = {}
        for container in self.containers:
            for name, count in container.accelerators.items():
                if container.role != "init":
                    totals[name] = totals.get(name, 0) + count
        for container in self.containers:
            if container.role == "init":
                for name, count in container.accelerators.items():
                    totals[name] = max(totals.get(name, 0), count)
        return totals

    @property
    def gpus(self) -> int:
        """How many accelerators the pod asks for."""
        return sum(self.accelerators.values())

    def condition(self, kind: str) -> k8s.Condition | None:
        """A condition by its type."""
        return next((c for c in self.status.conditions if c.type == kind), None)

    @cached_property
    def scheduled(self) -> bool:
        """Whether it has a node."""
        condition = self.condition("PodScheduled")
        return bool(self.spec.node_name) or (condition is not None and condition.status == "True")

    @cached_property
    def unscheduled(self) -> bool:
        """Whether it exists and waits for a node."""
        return (
            self.exists
            and not self.scheduled
            and self.status.phase in ("", "Pending")
            and not any(c.running or c.terminated for c in self.containers)
        )

    @cached_property
    def ready(self) -> bool:
        """Whether it counts as ready."""
        condition = self.condition("Ready")
        if condition is not None:
            return condition.status == "True"
        mains = [c for c in self.containers if c.role == "main"]
        return self.status.phase == "Running" and all(c.status.ready for c in mains) and bool(mains)

    @cached_property
    def started_at(self) -> datetime | None:
        """When the kubelet accepted it, else when it was made."""
        return parse_time(self.status.start_time) or parse_time(self.obj.metadata.creation_timestamp)

    @cached_property
    def warned(self) -> bool:
        """Whether the kubelet warned about the pod as a whole (sandbox, volumes, images) and has not come further since."""
        mine = [e for e in self._events if e.warning and e.reason.startswith("Failed") and e.reason not in _NO_STOP]
        return any(not _BLIPS.search(event.message) and not came_further(event, self._events) for event in mine)

    @cached_property
    def _events(self) -> list[Event]:
        found = events_of(self.cluster).about([("Pod", self.name)])
        return [event for event in found if (event.namespace or self.namespace) == self.namespace]

    @cached_property
    def just_made(self) -> bool:
        """Whether it is seconds old, and nobody has said anything of it yet: no scheduler has looked at it."""
        now, made = self.cluster.now, parse_time(self.obj.metadata.creation_timestamp)
        young = now is not None and made is not None and (now - made).total_seconds() <= _FIRST_WORD_SECONDS
        return young and self.unscheduled and not self._events and self.condition("PodScheduled") is None

    @cached_property
    def awaits_node(self) -> bool:
        """Whether it is new, and an autoscaler is making a node for it: its last word on the pod was a promise.

        A node that was made since and is ready did not help, so that the promise is over; so it is where the cloud did not
        give the machine.
        """
        now, made = self.cluster.now, parse_time(self.obj.metadata.creation_timestamp)
        said = [(e.last, e) for e in self._events if e.last and (e.reason in _SCALING or is_provisioner(e.reporter))]
        if not said or not now or not made or (now - made).total_seconds() > _NODE_SECONDS:
            return False
        last, newest = max(said, key=lambda pair: pair[0])
        if newest.reason not in _PROMISES or any(map(self._unlaunched, re.findall(_CLAIM, newest.message))):
            return False
        since = max(made, newest.first or last)
        return not any(
            (at := parse_time(node.metadata.creation_timestamp))
            and at >= since
            and any(c.type == "Ready" and c.status == "True" for c in node.status.conditions)
            for node in self.cluster.all(k8s.Node, "Node")
        )

    def _unlaunched(self, claim: str) -> bool:
        """Whether Karpenter says that it could not launch a machine."""
        from kubectl_llmdoctor.facts.workload import dig

        conditions = dig(self.cluster.find("NodeClaim", "", claim) or {}, "status.conditions")
        return any(
            isinstance(one, dict) and one.get("type") == "Launched" and one.get("reason") == "LaunchFailed"
            for one in (conditions if isinstance(conditions, list) else ())
        )

    @cached_property
    def leaving(self) -> bool:
        """Whether it was deleted and is within its grace period, in which it is taken out of service and ends."""
        until, now = parse_time(self.obj.metadata.deletion_timestamp), self.cluster.now
        return until is not None and now is not None and (now - until).total_seconds() <= _LEAVING_SECONDS

    @cached_property
    def troubles(self) -> tuple[Trouble, ...]:
        """What is wrong by its status, or by what its own port answers or its log ends with, the gravest first."""
        return tuple(self._troubles()) if self.exists else ()

    @property
    def failing(self) -> bool:
        """Whether anything is wrong; a log without its pod counts as failing."""
        return self.log_only or bool(self.troubles)

    @property
    def failing_by_status(self) -> bool:
        """The same without an engine that died behind a ready server: all has started then."""
        return self.log_only or any(trouble.kind != "dead" for trouble in self.troubles)

    def _troubles(self) -> Iterator[Trouble]:
        now, status = self.cluster.now, self.status
        if status.phase == "Failed":
            yield Trouble(kind="failed", text=f"{status.reason or 'Failed'}: {status.message}".rstrip(": "))
        elif status.phase == "Succeeded":
            return
        elif self.unscheduled:
            if not self.awaits_node:
                made = parse_time(self.obj.metadata.creation_timestamp)
                yield Trouble(kind="pending", text="Pending, no node", since=made)
            return
        for container in self.containers:
            if not (self.leaving and self._ended_by_deletion(container)):
                yield from self._container_troubles(container, now)
            if container.engine_dead:
                yield Trouble(kind="dead", container=container, text="Running, its engine is dead")
        starting = [c for c in self.containers if c.waiting and c.waiting.reason in _STARTING and c.role != "init"]
        runs = any(c.running for c in self.containers if c.role != "sidecar")
        if starting and status.phase in ("", "Pending", "Running") and not runs:
            # after its node was restarted a pod is still Running while its containers are made anew
            ended = [parse_time(c.terminated.finished_at) for c in self.containers if c.terminated]
            since = max((at for at in (self.started_at, *ended) if at), default=None)
            age = (now - since).total_seconds() if now and since else None
            if age is None or age > _CREATING_SECONDS or self.warned:
                length = f" for {say_seconds(age)}" if age is not None else ""
                yield Trouble(kind="creating", container=starting[0], text=f"ContainerCreating{length}", since=since)
        for container in self.containers:
            running = container.status.state.running
            since = parse_time(running.started_at) if running and container.role == "init" else None
            # one that only waits for another pod (KubeRay's wait-gcs-ready) downloads nothing
            long = _CREATING_SECONDS if container.name.startswith("wait") else _INIT_SECONDS
            if now and since and (now - since).total_seconds() > long:
                text = f"init container {container.name} has run for {say_seconds((now - since).total_seconds())}"
                yield Trouble(kind="creating", container=container, text=text, since=since)
        if status.phase == "Running" and not self.ready and not self.leaving:
            for container in self.containers:
                if container.role == "main" and container.running and not container.status.ready:
                    since = (
                        parse_time(container.status.state.running.started_at)
                        if container.status.state.running
                        else None
                    )
                    yield Trouble(kind="not-ready", container=container, text="Running, not ready", since=since)

    def _killed_by_probe(self, container: Container, ended: datetime) -> bool:
        """Whether the kubelet told the instance that ended then to end, for a failed probe."""
        return self._killed(_PROBE_KILL, container, ended)

    def _killed(self, words: str | re.Pattern[str], container: Container, ended: datetime) -> bool:
        """Whether the kubelet told the instance that ended then to end, and said so in these words."""
        grace = self.spec.termination_grace_period_seconds or 30
        for event in self._events:
            found = re.match(words, event.message) if event.reason == "Killing" and event.last else None
            if found and event.last and found["container"] == container.name:
                return abs((ended - event.last).total_seconds()) <= grace + 15
        return False

    def _restarted_from_outside(self, container: Container, ended: k8s.Terminated, since: datetime | None) -> bool:
        """Whether a container that is ready again ended with its node or runtime, or was made anew as somebody had asked.

        Of an instance that was gone when the kubelet or the runtime came back nothing is known: 255, Unknown.
        """
        lost = (ended.exit_code, ended.reason) == (255, "Unknown")
        return container.status.ready and (lost or (since is not None and self._killed(_CHANGED, container, since)))

    def _ended_by_deletion(self, container: Container) -> bool:
        """Whether a container ended after its pod was deleted: it was told to."""
        until = parse_time(self.obj.metadata.deletion_timestamp)
        ended = container.status.state.terminated
        at = parse_time(ended.finished_at) if ended else None
        grace = self.spec.termination_grace_period_seconds
        if until is None or at is None:
            return False
        return (until - at).total_seconds() <= (30 if grace is None else grace)

    def _container_troubles(self, container: Container, now: datetime | None) -> Iterator[Trouble]:
        waiting, ended = container.waiting, container.terminated
        since = parse_time(ended.finished_at) if ended else None
        died = ended is not None and (ended.exit_code != 0 or ended.reason not in ("Completed", ""))
        if ended and container.role == "main" and container.running and not container.status.ready:
            died = True  # a server does not end by itself: told to by a failed probe it ends with 0
        if ended and since and container.restarts and self._killed_by_probe(container, since):
            died = True
        if waiting and waiting.reason == "CrashLoopBackOff":
            yield Trouble(kind="crashed", container=container, text=waiting.reason, since=since)
        elif waiting and waiting.reason not in _STARTING:
            yield Trouble(kind="waiting", container=container, text=waiting.reason)
        elif container.status.state.terminated and died:
            yield Trouble(
                kind="crashed", container=container, text=_ending(container.status.state.terminated), since=since
            )
        elif died and ended and container.restarts and container.role != "init":
            age = (now - since).total_seconds() if now and since else None
            often = container.restarts >= _OFTEN and not (
                age and since and self._settled(container.restarts, since, age)
            )
            recent = (age is None or age < _RECENT_SECONDS) and not self._restarted_from_outside(
                container, ended, since
            )
            if not container.status.ready or recent or often:
                yield Trouble(kind="crashed", container=container, text=_ending(ended), since=since)

    def _settled(self, restarts: int, since: datetime, age: float) -> bool:
        """Whether it has run for a day since its last restart, and for longer than its restarts were apart before."""
        made = parse_time(self.obj.metadata.creation_timestamp)
        apart = (since - made).total_seconds() / restarts if made else None
        return apart is not None and age >= max(_SETTLED_SECONDS, 2 * apart)


def _ending(ended: k8s.Terminated) -> str:
    """`OOMKilled, exit 137`."""
    return f"{ended.reason or 'ended'}, exit {ended.exit_code}"


def _amount(resource: str, quantity: str | int | float | None) -> int | None:
    return None if quantity is None else milli(quantity) if resource == "cpu" else units(quantity)


def _scalar(value: k8s.Scalar) -> str:
    """A scalar as the API server would have it as a string."""
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
