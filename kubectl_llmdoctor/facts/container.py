"""The containers of a pod: spec and status joined, environment and mounted files resolved."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import msgspec

from kubectl_llmdoctor import engines
from kubectl_llmdoctor.engines.launch import EnvVar, Launch
from kubectl_llmdoctor.engines.version import split_image
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.accelerator import is_accelerator
from kubectl_llmdoctor.facts.answers import Answers
from kubectl_llmdoctor.facts.logs import Line, Log, Logs
from kubectl_llmdoctor.facts.requests import gone, served
from kubectl_llmdoctor.facts.units import milli, parse_time, units
from kubectl_llmdoctor.facts.written import QuotedLog, written_ago
from kubectl_llmdoctor.snapshot import Snapshot
from kubectl_llmdoctor.tree import say

if TYPE_CHECKING:
    from kubectl_llmdoctor import platforms
    from kubectl_llmdoctor.facts.cluster import Cluster
    from kubectl_llmdoctor.facts.pod import Pod
    from kubectl_llmdoctor.facts.troubles import Trouble

#: Size of /dev/shm in a pod without a mount there: containerd and CRI-O both hard-code it.
DEFAULT_SHM_BYTES = 64 * 2**20

#: How the resources begin that are never a GPU of NVIDIA's.
_OTHER_MAKERS = ("amd.com/", "gpu.intel.com/", "habana.ai/", "google.com/tpu", "aws.amazon.com/neuron", "huawei.com/")

#: Resources whose devices one process drives together, so that tensor parallelism starts no worker processes. Sources:
#: tpu_inference/platforms/tpu_platform.py (UniProcExecutor on one host), vllm/platforms/neuron.py of vLLM up to 0.11.
_ONE_PROCESS = frozenset(
    {"google.com/tpu", "aws.amazon.com/neuron", "aws.amazon.com/neuroncore", "aws.amazon.com/neurondevice"}
)

#: Devices that one chip of a TPU shows to a program, by GKE's label of the node. Source: docs.cloud.google.com/tpu/docs:
#: v4 and v5p join their two cores to one device, v5e and v6e have one core, tpu7x shows both.
_TPU_LABEL = "cloud.google.com/gke-tpu-accelerator"
_TPU_DEVICES = {"tpu-v4-podslice": 1, "tpu-v5-lite-podslice": 1, "tpu-v5p-slice": 1, "tpu-v6e-slice": 1, "tpu7x": 2}


#: By which a container has GPUs from the NVIDIA runtime without a request.
VISIBLE = "NVIDIA_VISIBLE_DEVICES"
#: Images that are made for GPUs by their names: such set that variable themselves.
_OF_GPUS = expression(r"(?i)cuda|nvidia|nvcr\.io|gpu")

#: Digits of the largest port.
_PORT_DIGITS = 5


#: What `/health` answers beside the status 503 when the engine behind the server is dead; vLLM says nothing then, and
#: something else while it scales. Sources: vLLM entrypoints/serve/instrumentator/health.py, TensorRT-LLM serve/openai_server.py.
_DEAD = {"vllm": "", "tensorrt-llm": "LLM is unavailable."}


#: What a shell starts in the background, in so much of a script: it goes on, and ends it in the end.
_BACKGROUND, _SCRIPT = expression(r"(?<!&)&(?=\s|;|$)"), 20_000


class Shm(msgspec.Struct, frozen=True, kw_only=True):
    """What stands at /dev/shm in a container."""

    #: None: not limited by Kubernetes (node memory)
    size_bytes: int | None
    source: Literal["default", "memory-volume", "volume", "host-ipc"]
    volume: str = ""


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

    @property
    def whose(self) -> tuple[str, str, str]:
        """Namespace, pod and name, as its log is known by."""
        return self.pod.namespace, self.pod.name, self.name

    @property
    def memory_limit(self) -> int | None:
        """What its memory is limited to, by its own limit or that of the whole pod."""
        return self.limit("memory") or self.pod.memory_limit

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

    @property
    def beside(self) -> list[Container]:
        """The other containers that run in its pod while it does."""
        return [other for other in self.pod.containers if other is not self and other.role != "init"]

    @property
    def repository(self) -> str:
        """Its image without tag and digest."""
        return split_image(self.spec.image)[0]

    @property
    def words(self) -> Iterator[tuple[str, str]]:
        """Each word of its command and arguments behind its place: `args[0]`."""
        for group in ("command", "args"):
            for index, word in enumerate(getattr(self.spec, group)):
                yield f"{group}[{index}]", str(word)

    def shown(self, path: str) -> str:
        """The place of something inside it: an argument may stand in another field of the object than its container."""
        template = None if self.pod.exists else self.pod.template
        inside = path.removeprefix(f"{self.path}.args[")
        if template is None or inside == path or not inside[:-1].isdecimal():
            return path
        return template.shown(f"{self.pointer}/args/{inside[:-1]}")

    @cached_property
    def answers(self) -> Answers:
        """What its own port said when it was asked; nothing where its pod does not exist."""
        snapshot = self.pod.cluster.snapshot if self.pod.exists else Snapshot()
        return Answers(snapshot, self.pod.namespace, self.pod.name, self.name)

    @cached_property
    def engine_dead(self) -> bool:
        """Whether it counts as ready, and its own port, or where nobody asked it its log, says that the engine is dead."""
        if not (self.running and self.status.ready and self.pod.exists):
            return False
        if not self.pod.cluster.snapshot.answers:
            return self.said_dead(previous=False)
        health = self.answers.at("/health")
        if health is None or health.status != 503:
            return False
        engine, said = engines.read(self.launch), health.error.partition(": ")[2] or health.text
        words = _DEAD.get(engine.name) if engine else None
        return words is not None and (said.startswith(words) if words else not said)

    @property
    def ended_dead(self) -> bool:
        """Whether it is a server that ended with status 0 as its engine had died, and nobody asked it to end.

        What a program that computes on its own prints of its engine when it is done is no death, nor is what a script prints that ends
        the server which it started.
        """
        pod = self.pod
        if self.role != "main" or self.terminated is None or pod.leaving or pod.spec.restart_policy == "Always":
            return False
        if any(owner.kind == "Job" for owner in pod.obj.metadata.owner_references):
            return False
        if any(_BACKGROUND.search(word[:_SCRIPT]) for word in self.spec.argv):
            return False
        return self.said_dead(previous=False) and any(served(log) for log in self._logs(previous=False))

    def said_dead(self, *, previous: bool) -> bool:
        """Whether the log of the running instance, or of the one before it, ends with the death of its engine."""
        return any(gone(log) is not None for log in self._logs(previous=previous))

    def _logs(self, *, previous: bool) -> Iterator[Log]:
        mine = (self.pod.name, self.pod.namespace, self.name, previous)
        for text in self.pod.cluster.snapshot.logs:
            if (text.pod, text.namespace or "default", text.container, text.previous) == mine:
                yield Log(text)
                return

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
            command=tuple(map(say, self.spec.command)),
            args=tuple(map(say, self.spec.args)),
            env=self.env,
            files=self.files,
            ports=tuple(p.container_port for p in self.spec.ports),
            path=self.path,
            labels=self.pod.labels,
        )

    @cached_property
    def env(self) -> dict[str, EnvVar]:
        """The environment in order; a value that only a Secret or the node knows is None."""
        cluster, found = self.pod.cluster, dict[str, EnvVar]()
        for source in self.spec.env_from:
            if source.config_map_ref:
                for key, value in self.pod.config_data(source.config_map_ref.name).items():
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
            return ("" if var.value is None else say(var.value)), "value"
        if source.config_map_key_ref:
            ref = source.config_map_key_ref
            value = self.pod.config_data(ref.name).get(ref.key)
            return (None if value is None else say(value)), f"ConfigMap {ref.name}/{ref.key}"
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
            data = self.pod.config_data(volume.config_map.name)
            paths = {i.key: i.path for i in volume.config_map.items} or {key: key for key in data}
            for key, path in paths.items():
                if key in data and mount.sub_path in ("", path):
                    root = mount.mount_path.rstrip("/")
                    files[root if mount.sub_path else f"{root}/{path}"] = str(data[key])
        return files

    @property
    def config_maps(self) -> Iterator[tuple[str, dict[str, str]]]:
        """The ConfigMaps that are mounted, by name, and their texts by key where they were read."""
        mounted = {mount.name for mount in self.spec.volume_mounts}
        for volume in self.pod.spec.volumes:
            if volume.config_map is not None and volume.name in mounted:
                data = self.pod.config_data(volume.config_map.name)
                yield volume.config_map.name, {key: str(text) for key, text in data.items()}

    def limit(self, resource: str) -> int | None:
        """A limit in whole units (bytes, GPUs; millicores for cpu); None when it has none.

        Of CPU and memory zero is none: the kubelet then sets no limit (pkg/kubelet/kuberuntime, calculateLinuxResources).
        """
        amount = _amount(resource, self.spec.resources.limits.get(resource))
        return None if amount == 0 and resource in ("cpu", "memory") else amount

    def request(self, resource: str) -> int | None:
        """A request in the units of `limit`, which it defaults to as the API server has it; None when it asks for none."""
        asked = self.spec.resources.requests.get(resource, self.spec.resources.limits.get(resource))
        return _amount(resource, asked)

    @cached_property
    def accelerators(self) -> dict[str, int]:
        """GPUs and other accelerators it asks for, by resource name."""
        names = [*self.spec.resources.limits, *self.spec.resources.requests]
        return {n: count for n in dict.fromkeys(names) if is_accelerator(n) and (count := self.request(n))}

    @property
    def without_nvidia(self) -> bool:
        """Whether it asks for accelerators, and for none that may be NVIDIA's."""
        asked = self.accelerators
        return bool(asked) and all(resource.startswith(_OTHER_MAKERS) for resource in asked)

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
        return not _ONE_PROCESS.isdisjoint(self.accelerators)

    @property
    def made_for_gpus(self) -> bool:
        """Whether its image is made for GPUs by its name."""
        return bool(_OF_GPUS.search(self.spec.image))

    @property
    def sees_all(self) -> bool:
        """Whether NVIDIA's runtime, where it runs the container, gives it all GPUs of its node."""
        told = self.env.get(VISIBLE)
        if told is not None and told.value is not None:
            return told.value == "all"
        return self.made_for_gpus or engines.of_image(self.spec.image) is not None

    @property
    def user(self) -> int | None:
        """The user that it is to run as, by its own word or the pod's; None where the image says it."""
        whole = self.pod.spec.security_context.run_as_user
        own = self.spec.security_context.run_as_user
        return whole if own is None else own

    @property
    def may_be_root(self) -> bool:
        """Whether it runs as root, by all that is stated."""
        whole, own = self.pod.spec.security_context, self.spec.security_context
        barred = whole.run_as_non_root if own.run_as_non_root is None else own.run_as_non_root
        return not self.user and not (self.user is None and barred)

    def may(self, capability: str) -> bool:
        """Whether it was given a capability (`IPC_LOCK`), which a process that is not root makes no use of."""
        security = self.spec.security_context
        added = {str(name).removeprefix("CAP_") for name in security.capabilities.get("add", ())}
        return bool(security.privileged or added & {capability, "ALL"})

    @cached_property
    def terminated(self) -> k8s.Terminated | None:
        """The last instance that ended, if any."""
        return self.status.state.terminated or self.status.last_state.terminated

    @property
    def crashed(self) -> bool:
        """Whether it ended with an error that still matters (see Pod.troubles)."""
        return self.trouble("crashed") is not None

    def trouble(self, *kinds: str) -> Trouble | None:
        """The gravest of its pod's troubles that is its own and of one of these kinds."""
        return next((t for t in self.pod.troubles if t.kind in kinds and t.container is self), None)

    def own_logs(self, logs: Logs | None) -> list[Log]:
        """Its logs among those of its pod, the previous instance first; none where no log was read."""
        return logs.of(self.name) if logs is not None else []

    def own_log(self, logs: Logs | None) -> Log | None:
        """The log of its latest instance; None where that was not read."""
        return logs.current(self.name) if logs is not None else None

    @property
    def declared_ports(self) -> set[int]:
        """The ports that it declares."""
        return {port.container_port for port in self.spec.ports}

    @property
    def restarts(self) -> int:
        """How often it was restarted."""
        return self.status.restart_count

    @property
    def running(self) -> bool:
        """Whether it runs now."""
        return self.status.state.running is not None

    @property
    def started(self) -> datetime | None:
        """When the instance that runs was started."""
        running = self.status.state.running
        return parse_time(running.started_at) if running else None

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


def _amount(resource: str, quantity: str | int | float | None) -> int | None:
    return None if quantity is None else milli(quantity) if resource == "cpu" else units(quantity)


def served_until(line: Line, server: Container) -> float | None:
    """How long a server that runs had run when it wrote a line; None where its log is of another clock, or has no times."""
    cluster = server.pod.cluster
    ran, ago = cluster.seconds_since(server.started), written_ago(line, cluster.now)
    return None if ran is None or ago is None or isinstance(line.log.source, QuotedLog) else ran - ago


def written_before(line: Line, server: Container, cluster: Cluster) -> bool:
    """Whether another's line was written before this server started, as far as the time is known: it tells of another."""
    ran = cluster.seconds_since(server.started)
    ago = written_ago(line, cluster.now) if ran is not None else None
    return ran is not None and ago is not None and ago > ran
