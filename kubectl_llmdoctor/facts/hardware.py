"""What only the node knows, seen from one pod: the agent's report on its GPUs, and the kernel's log.

Both come from elsewhere and may hold anything: what has not the expected form counts as not known.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import msgspec

from kubectl_llmdoctor.catalog.xids import xid_meaning
from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.endings import Ending, endings
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.units import parse_time, units
from kubectl_llmdoctor.report.document import Confidence, Evidence
from kubectl_llmdoctor.snapshot import NodeData

T = TypeVar("T", bound=msgspec.Struct)

#: How far the node's clock and the kubelet's may lie apart; how long an error of a GPU takes to end its process, and the
#: processes that wait for that one; how long before a pod an error still counts that makes the GPU unusable.
_SLACK, _CRASH, _HANG, _BEFORE = timedelta(seconds=30), timedelta(minutes=3), timedelta(minutes=35), timedelta(hours=1)


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Common settings: names as the report has them."""


class Ecc(_Part, frozen=True):
    """Counters of errors in a GPU's memory that could not be corrected, and the state of its row remapping."""

    volatile_uncorrected: int | None = None
    aggregate_uncorrected: int | None = None
    remap_pending: bool | None = None
    remap_failed: bool | None = None


class Pcie(_Part, frozen=True):
    """The link to the host as it is and as it could be."""

    gen: int | None = None
    max_gen: int | None = None
    width: int | None = None
    max_width: int | None = None
    replays: int | None = None


class NvLink(_Part, frozen=True):
    """One NVLink of a GPU."""

    link: int | None = None
    active: bool | None = None


class Process(_Part, frozen=True):
    """A process that holds memory of a GPU, and the pod that it belongs to, where it belongs to one."""

    pid: int | None = None
    name: str = ""
    #: empty: of no pod; None: not known
    pod_uid: str | None = None
    container: str = ""
    used_bytes: int | None = None


class SeenXid(_Part, frozen=True):
    """An Xid that the agent saw happen."""

    number: int | None = None
    time: str = ""


class User(_Part, frozen=True):
    """A container that the kubelet gave a GPU to."""

    namespace: str = ""
    name: str = ""
    container: str = ""


class MigDevice(_Part, frozen=True):
    """A slice of a GPU."""

    uuid: str = ""
    processes: tuple[Process, ...] = ()
    pods: tuple[User, ...] = ()


class Fabric(_Part, frozen=True):
    """How far the fabric manager has come with a GPU behind NVSwitches."""

    state: str = ""


class Device(_Part, frozen=True):
    """A GPU as the agent reports it."""

    index: int | None = None
    uuid: str = ""
    name: str = ""
    pci_bus_id: str = ""
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    utilization_percent: float | None = None
    temperature_c: float | None = None
    throttle_reasons: tuple[str, ...] = ()
    ecc: Ecc = Ecc()
    pcie: Pcie = Pcie()
    nvlinks: tuple[NvLink, ...] = ()
    fabric: Fabric = Fabric()
    fabric_state: str = ""
    mig_enabled: bool | None = None
    mig_devices: tuple[MigDevice, ...] = ()
    processes: tuple[Process, ...] = ()
    xids: tuple[SeenXid, ...] = ()
    pods: tuple[User, ...] = ()

    @property
    def title(self) -> str:
        """`GPU 3 (NVIDIA L40S)`."""
        which = self.pci_bus_id or self.uuid if self.index is None else str(self.index)
        return f"GPU {which}".rstrip() + (f" ({self.name})" if self.name else "")

    @property
    def bus(self) -> str:
        """Its PCI address as `bus_of` has it."""
        return bus_of(self.pci_bus_id)

    @property
    def joining(self) -> str:
        """How far its registration with the fabric is, in letters only: `inprogress`, `completed`."""
        return re.sub("[^a-z]", "", (self.fabric.state or self.fabric_state).lower())

    @property
    def users(self) -> tuple[User, ...]:
        """The containers that it, or a slice of it, was given to."""
        return (*self.pods, *(user for part in self.mig_devices for user in part.pods))

    @property
    def all_processes(self) -> tuple[Process, ...]:
        """The processes on it and on its slices."""
        return (*self.processes, *(process for part in self.mig_devices for process in part.processes))


class Agent(_Part, frozen=True):
    """The node agent's report, as far as it is about GPUs."""

    driver_version: str = ""
    cuda_version: str = ""
    errors: tuple[str, ...] = ()
    gpus: tuple[Device, ...] = ()


def agent_of(raw: object) -> Agent:
    """The typed view of a report."""
    return _view(Agent, raw)


def _view(kind: type[T], raw: object) -> T:
    """A struct from a JSON tree, in which every field that has another form than expected is left out."""
    known: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        value = raw.get(field.encode_name) if isinstance(raw, Mapping) else None
        if value is not None and (found := _value(field.type, value)) is not None:
            known[field.name] = found
    return kind(**known)


def _value(kind: Any, value: object) -> Any:
    inner = typing.get_args(kind)[0] if typing.get_origin(kind) is tuple else None
    if inner is not None:
        found = (_value(inner, item) for item in (value if isinstance(value, list) else ()))
        return tuple(item for item in found if item is not None)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _view(kind, value) if isinstance(value, Mapping) else None
    if kind is str and isinstance(value, Mapping):  # an error as an object
        return ", ".join(f"{key}: {item}" for key, item in value.items())
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, OverflowError):
        return None


_BUS = re.compile(r"(?P<domain>[0-9a-fA-F]{4,8}):(?P<bus>[0-9a-fA-F]{2}):(?P<device>[0-9a-fA-F]{2})")


def bus_of(text: str) -> str:
    """A PCI address in one form: NVML says `00000000:3B:00.0`, the kernel `0000:3b:00`."""
    found = _BUS.search(text)
    return f"{int(found['domain'], 16):04x}:{found['bus']}:{found['device']}".lower() if found else ""


# -- kernel log -------------------------------------------------------------------------------------------------------


class KernelLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the kernel's log; `time` where it says it."""

    number: int
    text: str
    time: datetime | None = None


class Xid(msgspec.Struct, frozen=True, kw_only=True):
    """An Xid, by the kernel's log or the agent."""

    number: int
    bus: str = ""
    pid: int | None = None
    process: str = ""
    #: what the driver says of it; empty from the agent
    text: str = ""
    time: datetime | None = None
    #: the GPU, where the agent saw it
    device: Device | None = None
    evidence: Evidence


class OutOfMemory(msgspec.Struct, frozen=True, kw_only=True):
    """A process that the kernel killed for lack of host memory."""

    process: str
    #: sizes in bytes
    total_vm: int
    anon: int
    shmem: int
    #: whether the node was short of memory, and not a cgroup
    whole_node: bool | None = None
    pod_uid: str = ""
    #: the limit that was hit is the pod's, not a container's
    of_pod: bool = False
    container_id: str = ""
    time: datetime | None = None
    line: KernelLine


_XID = re.compile(r"NVRM: Xid \((?P<bus>[^)]{1,40})\)[^:]{0,80}: (?P<number>\d{1,5})(?P<rest>.*)")
_PID = re.compile(r"pid='?(?P<pid>\d{1,10})")
_NAME = re.compile(r"name='?(?P<name>[^,']{1,64})")
_SXID = re.compile(r"SXid \([^)]{1,40}\): \d{4,6}, (?P<grade>Fatal|Non-fatal)")
_LOST = re.compile(r"(?i)NVRM:.*(?:fallen off the bus|GPU is lost)")
_CONSTRAINT = re.compile(r"oom-kill:constraint=(?P<constraint>\w+)(?P<rest>.*)")
_KILLED = re.compile(
    r"[Kk]ill(?:ed)? process (?P<pid>\d+)(?: \((?P<name>[^)]*)\))?.*?total-vm:(?P<vm>\d+)kB, anon-rss:(?P<anon>\d+)kB"
    r"(?:, file-rss:\d+kB)?(?:, shmem-rss:(?P<shmem>\d+)kB)?"
)
_POD = re.compile(r"pod(?P<uid>[0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32})")
_CONTAINER = re.compile(r"[0-9a-f]{64}")

_ISO = re.compile(r"^\s*(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?)")
_CTIME = re.compile(r"^\s*\[\w{3} (\w{3} +\d+ \d\d:\d\d:\d\d \d{4})\]")
_SYSLOG = re.compile(r"^\s*(\w{3} +\d+ \d\d:\d\d:\d\d) ")


class KernelLog:
    """The kernel's log of a node, in the order of its lines."""

    def __init__(self, text: str, node: str, now: datetime | None) -> None:
        self.node = node
        self.lines = [
            KernelLine(number=n, text=line.strip(), time=_time(line, now))
            for n, line in enumerate(text.splitlines(), 1)
            if line.strip()
        ]

    def evidence(self, line: KernelLine) -> Evidence:
        """A line with its place."""
        return Evidence(source="kernel-log", ref=f"Node/{self.node}", text=line.text, line=line.number)

    @cached_property
    def xids(self) -> tuple[Xid, ...]:
        """The Xids."""
        found = []
        for line in self.lines:
            if match := _XID.search(line.text):
                rest = match["rest"]
                pid, name = _PID.search(rest), _NAME.search(rest)
                said = re.sub(r"^(?:, (?:pid|name)=[^,]*)*,? ?", "", rest)
                found.append(
                    Xid(
                        number=int(match["number"]),
                        bus=bus_of(match["bus"]),
                        pid=int(pid["pid"]) if pid else None,
                        process=name["name"].strip() if name and "unknown" not in name["name"] else "",
                        text=said.strip(),
                        time=line.time,
                        evidence=self.evidence(line),
                    )
                )
        return tuple(found)

    @cached_property
    def fatal_switch_errors(self) -> tuple[KernelLine, ...]:
        """SXids, the errors of NVSwitches, that say that they are fatal: programs on that fabric are ended."""
        return tuple(line for line in self.lines if (found := _SXID.search(line.text)) and found["grade"] == "Fatal")

    @cached_property
    def lost(self) -> tuple[KernelLine, ...]:
        """Lines that say, without an Xid, that a GPU fell off the bus."""
        return tuple(line for line in self.lines if _LOST.search(line.text) and "Xid" not in line.text)

    @cached_property
    def kills(self) -> tuple[OutOfMemory, ...]:
        """Processes that were killed for lack of memory; the line before says in which cgroup and why."""
        found: list[OutOfMemory] = []
        why: re.Match[str] | None = None
        for line in self.lines:
            why = _CONSTRAINT.search(line.text) or why
            killed = _KILLED.search(line.text)
            if not killed:
                continue
            rest = why["rest"] if why else line.text
            uid, ids = _POD.search(rest), _CONTAINER.findall(_after(rest, "task_memcg=") or rest)
            memcg = "cgroup" in line.text or (why is not None and why["constraint"] == "CONSTRAINT_MEMCG")
            found.append(
                OutOfMemory(
                    process=killed["name"] or "?",
                    total_vm=int(killed["vm"]) * 1024,
                    anon=int(killed["anon"]) * 1024,
                    shmem=int(killed["shmem"] or 0) * 1024,
                    whole_node=not memcg,
                    pod_uid=uid["uid"].replace("_", "-") if uid else "",
                    of_pod=memcg and "oom_memcg=" in rest and not _CONTAINER.search(_after(rest, "oom_memcg=")),
                    container_id=ids[-1] if ids else "",
                    time=line.time,
                    line=line,
                )
            )
            why = None
        return tuple(found)


def _after(text: str, key: str) -> str:
    """The value of a key in the kernel's list `key=value,key=value`."""
    return text.partition(key)[2].partition(",")[0]


def _time(line: str, now: datetime | None) -> datetime | None:
    """When a line was written: journald's, dmesg's and syslog's forms; seconds since the boot say nothing here."""
    if found := _ISO.match(line):
        return parse_time(found[1].replace(" ", "T").replace(",", "."))
    try:
        if found := _CTIME.match(line):
            return datetime.strptime(found[1], "%b %d %H:%M:%S %Y").replace(tzinfo=UTC)
        if (found := _SYSLOG.match(line)) and now:  # without a year: the last one that is not in the future
            moment = datetime.strptime(f"{now.year} {found[1]}", "%Y %b %d %H:%M:%S").replace(tzinfo=UTC)
            return moment if moment <= now + timedelta(days=1) else moment.replace(year=now.year - 1)
    except ValueError:
        pass
    return None


# -- one pod ----------------------------------------------------------------------------------------------------------

_READ: WeakKeyDictionary[Cluster, dict[str, tuple[Agent | None, KernelLog]]] = WeakKeyDictionary()


def _read(cluster: Cluster, name: str, data: NodeData) -> tuple[Agent | None, KernelLog]:
    """A node's report and log, read once per snapshot."""
    known = _READ.setdefault(cluster, {})
    if name not in known:
        agent = None if data.agent is None else agent_of(data.agent)
        known[name] = agent, KernelLog(data.kernel_log, name, cluster.now)
    return known[name]


class Hardware:
    """What the node says of one pod's GPUs."""

    def __init__(self, pod: Pod, data: NodeData) -> None:
        self.pod = pod
        self.node = pod.spec.node_name
        self.agent, self.kernel = _read(pod.cluster, self.node, data)

    @property
    def devices(self) -> tuple[Device, ...]:
        """The GPUs that the agent sees on the node."""
        return self.agent.gpus if self.agent else ()

    @cached_property
    def mapped(self) -> bool:
        """Whether the agent says which pod has which GPU."""
        return any(device.users for device in self.devices)

    @cached_property
    def mine(self) -> tuple[Device, ...]:
        """The pod's GPUs: those that it was given or has a process on, or all where it asks for all that there are."""
        found = tuple(device for device in self.devices if self._has(device))
        return found or (self.devices if not self.mapped and len(self.devices) <= self.pod.gpus else ())

    @cached_property
    def runs(self) -> bool:
        """Whether a container of the pod runs now: only then can a process on a GPU be its own."""
        return any(container.running for container in self.pod.containers)

    @cached_property
    def asks(self) -> bool:
        """Whether the pod asks for GPUs at all."""
        return self.pod.gpus > 0 or bool(self.pod.spec.resource_claims)

    @cached_property
    def whole_node(self) -> bool:
        """Whether the pod asks for all GPUs of its node."""
        return 0 < (self.offered or len(self.devices)) <= self.pod.gpus

    @cached_property
    def offered(self) -> int | None:
        """How many GPUs the node has by its own account."""
        item = self.pod.cluster.item("Node", "", self.node)
        node = item.typed() if item else None
        return units(node.status.capacity.get("nvidia.com/gpu")) if isinstance(node, k8s.Node) else None

    def _has(self, device: Device) -> bool:
        pod, uid = self.pod, self.pod.obj.metadata.uid
        if any((user.namespace or "default", user.name) == (pod.namespace, pod.name) for user in device.users):
            return True
        return bool(uid) and any(process.pod_uid == uid for process in device.all_processes)

    def device_at(self, bus: str) -> Device | None:
        """The GPU at a PCI address."""
        return next((device for device in self.devices if bus and device.bus == bus), None)

    def evidence(self, device: Device, field: str, text: str) -> Evidence:
        """A value of the agent's report on a GPU."""
        which = device.uuid if device.index is None else device.index
        return Evidence(source="agent", ref=f"Node/{self.node} agent gpus[{which}].{field}", text=text)

    @cached_property
    def xids(self) -> tuple[Xid, ...]:
        """All Xids of the node in the order of time; the agent's only where the kernel's log does not have them."""
        found = [*self.kernel.xids]
        known = {(xid.bus, xid.number) for xid in found}
        for device in self.devices:
            for seen in device.xids:
                if seen.number is not None and (device.bus, seen.number) not in known:
                    text = f"number: {seen.number}" + (f", time: {seen.time}" if seen.time else "")
                    proof = self.evidence(device, "xids", text)
                    found.append(
                        Xid(
                            number=seen.number,
                            bus=device.bus,
                            time=parse_time(seen.time),
                            device=device,
                            evidence=proof,
                        )
                    )
        if all(xid.time for xid in found):
            found.sort(key=lambda xid: xid.time or datetime.max.replace(tzinfo=UTC))
        return tuple(found)

    def during(self, moment: datetime | None) -> bool:
        """Whether something happened since the pod came to the node; unknown times count."""
        start = self.pod.started_at
        return moment is None or start is None or moment >= start - _SLACK

    @cached_property
    def hits(self) -> tuple[tuple[Xid, Confidence], ...]:
        """The Xids since the pod came to the node that are on its GPUs, with how sure that is."""
        found: list[tuple[Xid, Confidence]] = []
        for xid in self.xids:
            sure, meaning = self.owns(xid), xid_meaning(xid.number)
            if sure and self.during(xid.time):
                found.append((xid, sure))
            elif sure and xid.time and meaning and meaning.disables and self.during(xid.time + _BEFORE):
                found.append((xid, "likely" if sure == "certain" else "possible"))  # unless somebody has reset it since
        return tuple(found)

    def owns(self, xid: Xid) -> Confidence | None:
        """How sure it is that an Xid is about one of the pod's GPUs; None where it is not."""
        owner = next((p.pod_uid for d in self.devices for p in d.all_processes if p.pid == xid.pid and p.pod_uid), "")
        if xid.pid and owner:
            return "certain" if owner == self.pod.obj.metadata.uid else None
        device = xid.device or self.device_at(xid.bus)
        if device and (device in self.mine or self.mapped):
            return "certain" if device in self.mine else None
        addressed = all(mine.bus for mine in self.mine)
        if not self.asks or (addressed and len(self.mine) >= self.pod.gpus > 0):
            return None
        if self.whole_node:
            return "certain"
        return self.near(xid.time)

    def explains(self, xid: Xid) -> bool:
        """Whether an Xid can be why the pod fails: it fell into the life of an instance, or the GPU is unusable since."""
        at, ended = xid.time, list(endings(self.pod))
        meaning = xid_meaning(xid.number)
        if not self.pod.failing or at is None or (meaning and meaning.disables) or not any(e.finished for e in ended):
            return self.pod.failing
        return any(
            (e.started or e.finished - _HANG) - _SLACK <= at and (self.runs or at <= e.finished + _SLACK)
            for e in ended
            if e.finished
        )

    def near(self, moment: datetime | None) -> Confidence | None:
        """By time alone: an error of some GPU of the node shortly before a container of the pod went down.

        Ranks that wait for one that hangs end only when a collective times out.
        """
        ends = [ending.finished for ending in endings(self.pod) if ending.finished]
        if moment is None or not ends:
            return "likely" if self.pod.failing else None
        waits = [end - moment for end in ends if end - moment >= -_SLACK]
        return None if not waits or min(waits) > _HANG else "likely" if min(waits) <= _CRASH else "possible"

    def kills(self, ending: Ending, *, whole_node: bool) -> Iterator[OutOfMemory]:
        """Processes killed by the end of an instance for lack of memory: of the node, or of the pod's or container's cgroup."""
        uid = self.pod.obj.metadata.uid
        for kill in self.kernel.kills:
            if not uid or kill.pod_uid != uid or kill.whole_node is not whole_node:
                continue
            # an instance that is gone may no longer stand in the status; one that does must be this one
            status = next((s for s in self._statuses() if kill.container_id and kill.container_id in str(s)), None)
            if status is not None and status.get("name") != ending.container.name:
                continue
            if kill.time and ending.started and kill.time < ending.started - _SLACK:
                continue
            if kill.time and ending.finished and kill.time > ending.finished + _SLACK:
                continue
            yield kill

    def _statuses(self) -> list[dict[str, Any]]:
        raw = self.pod.item.raw.get("status") if self.pod.item else None
        found = (raw or {}).get("containerStatuses")
        return [status for status in found if isinstance(status, dict)] if isinstance(found, list) else []


def owner_of(hardware: Hardware, process: Process) -> k8s.Pod | None:
    """The pod that a process belongs to, where it was read."""
    for item in hardware.pod.cluster.items("Pod") if process.pod_uid else ():
        pod = item.typed()
        if isinstance(pod, k8s.Pod) and pod.metadata.uid == process.pod_uid:
            return pod
    return None


def is_gone(hardware: Hardware, process: Process) -> bool:
    """Whether the pod that a process belonged to does not exist any more, or should not."""
    owner, now = owner_of(hardware, process), hardware.pod.cluster.now
    if owner is not None:
        until = parse_time(owner.metadata.deletion_timestamp)
        return until is not None and now is not None and until < now
    return bool(process.pod_uid) and hardware.pod.cluster.complete("Pod")


def holder_of(hardware: Hardware, process: Process) -> str:
    """Whose a process is, in words: `Pod chat/llama-0`, `no pod`."""
    if not process.pod_uid:
        return "no pod"
    owner = owner_of(hardware, process)
    if owner is not None:
        return f"Pod {owner.metadata.namespace or 'default'}/{owner.metadata.name}"
    return f"a pod {'that is gone' if is_gone(hardware, process) else 'that was not read'} ({process.pod_uid})"


def hardware_of(pod: Pod) -> Hardware | None:
    """What the node of a pod says; None where nothing of it was read."""
    data = pod.cluster.snapshot.nodes.get(pod.spec.node_name) if pod.exists and pod.spec.node_name else None
    return Hardware(pod, data) if data and (data.agent is not None or data.kernel_log) else None
