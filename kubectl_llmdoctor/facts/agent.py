"""The node agent's report, as far as somebody judges it: schema `llmdoctor.agent/v1`.

It comes from elsewhere and may hold anything: what has not the expected form counts as not known.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.tree import say_pairs

T = TypeVar("T", bound=msgspec.Struct)


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Common settings: names as the report has them."""


class Error(_Part, frozen=True):
    """Something that the agent could not read; `gpu` is a UUID, a PCI address or `index 3` where it is about one GPU."""

    source: str = ""
    reason: str = ""
    gpu: str = ""

    @property
    def text(self) -> str:
        """`nvml: GPU is lost (GPU-1234)`."""
        return f"{self.source}: {self.reason}".removeprefix(": ") + (f" ({self.gpu})" if self.gpu else "")


class Ecc(_Part, frozen=True):
    """Counters of errors in a GPU's memory that could not be corrected, and the state of its row remapping."""

    volatile_uncorrected: int | None = None
    remap_pending: bool | None = None
    remap_failed: bool | None = None
    retired_pages: int | None = None
    #: whether the retirement of a page, on GPUs that do not remap rows, waits for a reset
    retirement_pending: bool | None = None


class Pcie(_Part, frozen=True):
    """The link to the host as it is and as it could be; `replays` since the driver was loaded."""

    gen: int | None = None
    max_gen: int | None = None
    width: int | None = None
    max_width: int | None = None
    replays: int | None = None
    replays_per_minute: float | None = None


class NvLink(_Part, frozen=True):
    """One NVLink of a GPU, and its errors per minute between two readings."""

    link: int | None = None
    active: bool | None = None
    errors_per_minute: float | None = None


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
    #: the GPU instance of the slice that it is about, where it is about one
    gpu_instance: int | None = None


class User(_Part, frozen=True):
    """A container that the kubelet gave a GPU to."""

    namespace: str = ""
    name: str = ""
    container: str = ""


class MigDevice(_Part, frozen=True):
    """A slice of a GPU."""

    gpu_instance: int | None = None
    processes: tuple[Process, ...] = ()
    pods: tuple[User, ...] = ()


class Fabric(_Part, frozen=True):
    """How far the fabric manager has come with a GPU behind NVSwitches."""

    state: str = ""
    status: str = ""
    health: str = ""
    problems: tuple[str, ...] = ()


class Device(_Part, frozen=True):
    """A GPU as the agent reports it."""

    index: int | None = None
    uuid: str = ""
    name: str = ""
    pci_bus_id: str = ""
    #: why nothing is known of it: `lost`, `timeout`, `unknown-error`, `reset-required`, `no-permission`, …
    lost: str = ""
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    utilization_percent: float | None = None
    temperature_c: float | None = None
    slowdown_temperature_c: float | None = None
    temperature_margin_c: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    sm_clock_mhz: float | None = None
    max_sm_clock_mhz: float | None = None
    throttle_reasons: tuple[str, ...] = ()
    throttled_since: dict[str, str] = {}
    #: of a vGPU: whether its driver has a licence; None: no vGPU, or not known
    vgpu_licensed: bool | None = None
    #: when it was first seen without the one that it had before
    vgpu_unlicensed_since: str = ""
    ecc: Ecc = Ecc()
    pcie: Pcie = Pcie()
    nvlinks: tuple[NvLink, ...] = ()
    fabric: Fabric = Fabric()
    fabric_state: str = ""
    recovery_action: str = ""
    no_p2p: dict[str, str] = msgspec.field(default_factory=dict, name="noP2P")
    mig_enabled: bool | None = None
    mig_devices: tuple[MigDevice, ...] = ()
    #: None: not known
    processes: tuple[Process, ...] | None = None
    xids: tuple[SeenXid, ...] = ()
    pods: tuple[User, ...] = ()
    #: which source it is known from: the agent's report, or metrics that somebody else exports
    source: typing.Literal["agent", "metric"] = "agent"
    #: the lines of an exposition that say its values, where it is known by metrics
    quotes: dict[str, str] = {}

    def is_named(self, text: str) -> bool:
        """Whether an error of the report is about it."""
        return bool(text) and (text in (self.uuid, f"index {self.index}") or (bus_of(text) == self.bus != ""))

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
        return letters(self.fabric.state or self.fabric_state)

    @property
    def asks_for(self) -> str:
        """What the driver says has to be done before the GPU can be used again: `a reset of the GPU`; empty for nothing."""
        refused = "a reset of the GPU" if letters(self.lost) == "resetrequired" else ""
        return _RECOVERY.get(letters(self.recovery_action), refused)

    @property
    def silent(self) -> bool:
        """Whether it did not answer, or not with anything that makes sense: lost, or only busy."""
        return letters(self.lost) in ("timeout", "unknownerror")

    @property
    def users(self) -> tuple[User, ...]:
        """The containers that it, or a slice of it, was given to."""
        return (*self.pods, *(user for part in self.mig_devices for user in part.pods))

    @property
    def all_processes(self) -> tuple[Process, ...]:
        """The processes on it and on its slices."""
        return (*(self.processes or ()), *(process for part in self.mig_devices for process in part.processes))


#: What NVML's recovery actions (field 230) ask for, by their names in letters only.
_RECOVERY = {
    "gpureset": "a reset of the GPU",
    "nodereboot": "a reboot of the node",
    "systemreboot": "a reboot of the node",
    "drainp2p": "an end of all traffic between it and other GPUs",
    "drainandreset": "a reset of the GPU once nothing runs on it",
    "recoverimexdomain": "a recovery of the IMEX domain",
    "busreset": "a reset of the PCIe bus",
}


class Cpu(_Part, frozen=True):
    """CPU bandwidth control of a container since it started, and how much it waited for CPUs, percent of 10 s and 300 s."""

    quota_cores: float | None = None
    nr_periods: int | None = None
    nr_throttled: int | None = None
    throttled_usec: int | None = None
    pressure10: float | None = None
    pressure300: float | None = None


class Memory(_Part, frozen=True):
    """Host memory of a container, bytes; kills since it started, and since its pod did."""

    current_bytes: int | None = None
    max_bytes: int | None = None
    peak_bytes: int | None = None
    shmem_bytes: int | None = None
    anon_bytes: int | None = None
    oom_kills: int | None = None
    pod_oom_kills: int | None = None


class SharedMemory(_Part, frozen=True):
    """/dev/shm of a container, bytes."""

    size_bytes: int | None = None
    used_bytes: int | None = None


class ContainerUse(_Part, frozen=True):
    """What a container that has a GPU takes of the node."""

    namespace: str = ""
    pod: str = ""
    container: str = ""
    pod_uid: str = ""
    container_id: str = ""
    cpu: Cpu = Cpu()
    memory: Memory = Memory()
    shm: SharedMemory = SharedMemory()


class Agent(_Part, frozen=True):
    """The node agent's report."""

    taken_at: str = ""
    driver_version: str = ""
    cuda_version: str = ""
    errors: tuple[Error, ...] = ()
    gpus: tuple[Device, ...] = ()
    containers: tuple[ContainerUse, ...] = ()
    kernel_log: str = ""


def agent_of(raw: object) -> Agent:
    """The typed view of a report."""
    found = _view(Agent, raw)
    gpus = tuple(msgspec.structs.replace(device, source="agent", quotes={}) for device in found.gpus)
    return msgspec.structs.replace(found, gpus=gpus)


def letters(text: str) -> str:
    """A name in small letters only, however it is written: `drain-p2p`, `DRAIN_P2P`."""
    return re.sub("[^a-z0-9]", "", text.lower())


def _view(kind: type[T], raw: object) -> T:
    """A struct from a JSON tree, in which every field that has another form than expected is left out."""
    known: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        value = raw.get(field.encode_name) if isinstance(raw, Mapping) else None
        if value is not None and (found := _value(field.type, value)) is not None:
            known[field.name] = found
    return kind(**known)


def _value(kind: Any, value: object) -> Any:
    choices = [choice for choice in typing.get_args(kind) if choice is not type(None)]
    if len(choices) == 1 and typing.get_origin(kind) is not tuple:  # optional
        return _value(choices[0], value)
    if typing.get_origin(kind) is tuple:
        found = [_value(choices[0], item) for item in (value if isinstance(value, list) else ())]
        return tuple(item for item in found if item is not None) if isinstance(value, list) else None
    if typing.get_origin(kind) is dict:
        items = value.items() if isinstance(value, Mapping) else ()
        return {key: item for key, item in items if isinstance(key, str) and isinstance(item, str)}
    if kind is Error and isinstance(value, str):
        return Error(reason=value)
    if kind is Error and isinstance(value, Mapping) and not isinstance(value.get("reason"), str):
        return Error(reason=say_pairs(value, ": "))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _view(kind, value) if isinstance(value, Mapping) else None
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, OverflowError):
        return None


_BUS = expression(r"(?P<domain>[0-9a-fA-F]{4,8}):(?P<bus>[0-9a-fA-F]{2}):(?P<device>[0-9a-fA-F]{2})")


def bus_of(text: str) -> str:
    """A PCI address in one form: NVML says `00000000:3B:00.0`, the kernel `0000:3b:00`."""
    found = _BUS.search(text)
    return f"{int(found['domain'], 16):04x}:{found['bus']}:{found['device']}".lower() if found else ""
