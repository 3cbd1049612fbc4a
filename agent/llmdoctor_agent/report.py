"""The report of one node, schema `llmdoctor.agent/v1`: what the agent serves and the CLI reads.

Every field is optional: absent means not known. Why something is not known stands in `errors`, with the source and,
where it is about one GPU or one field of it, which.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

SCHEMA = "llmdoctor.agent/v1"


class _Part(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True):
    """Common settings: camelCase names, what is not known left out."""


class Error(_Part):
    """Something that could not be read: `source` is `nvml`, `pod-resources`, `processes`, `cgroup` or `kernel-log`."""

    source: str
    reason: str
    #: the UUID or PCI address of the GPU, where it is about one, or `index 3` where nothing else is known of it
    gpu: str = ""
    #: the fields of the report that are missing for it, as paths such as `ecc` or `nvlinks`
    fields: tuple[str, ...] = ()


class Ecc(_Part):
    """Errors in a GPU's memory that could not be corrected; `volatile` counts since the driver was loaded."""

    enabled: bool | None = None
    volatile_uncorrected: int | None = None
    aggregate_uncorrected: int | None = None
    remap_pending: bool | None = None
    remap_failed: bool | None = None
    remapped_correctable: int | None = None
    remapped_uncorrectable: int | None = None
    retired_pages: int | None = None
    #: on GPUs that retire pages instead of remapping rows: whether that waits for a reset
    retirement_pending: bool | None = None


class Pcie(_Part):
    """The link to the host. `replays` counts since the driver was loaded, `replays_per_minute` between two readings."""

    gen: int | None = None
    max_gen: int | None = None
    width: int | None = None
    max_width: int | None = None
    replays: int | None = None
    replays_per_minute: float | None = None


class NvLink(_Part):
    """One NVLink of a GPU; `errors` are its replay, recovery and CRC errors together, per minute between two readings."""

    link: int
    active: bool | None = None
    errors: int | None = None
    errors_per_minute: float | None = None


class Fabric(_Part):
    """How far the fabric manager has come with a GPU behind NVSwitches; `health` only where it is complete."""

    state: str | None = None
    status: str | None = None
    health: str | None = None
    #: what is wrong with it, from NVML's health mask: `degraded-bandwidth`, `route-unhealthy`, `no-partition`, …
    problems: tuple[str, ...] | None = None


class Process(_Part):
    """A process that holds memory of a GPU. `pod_uid` is empty where it belongs to no pod, absent where that is not known."""

    pid: int
    name: str | None = None
    pod_uid: str | None = None
    container_id: str | None = None
    container: str | None = None
    used_bytes: int | None = None


class Xid(_Part):
    """An Xid that NVML told of as it happened; `time` is the agent's, RFC 3339 in UTC."""

    number: int
    time: str
    #: the GPU instance of the MIG device that it is about, where it is about one
    gpu_instance: int | None = None


class User(_Part):
    """A container that the kubelet gave the device to."""

    namespace: str
    name: str
    container: str


class MigDevice(_Part):
    """A slice of a GPU."""

    uuid: str
    profile: str | None = None
    gpu_instance: int | None = None
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    processes: tuple[Process, ...] = ()
    pods: tuple[User, ...] = ()


class Gpu(_Part):
    """A GPU. One that does not answer has only its names and an entry in `errors`."""

    index: int | None = None
    uuid: str | None = None
    name: str | None = None
    pci_bus_id: str | None = None
    #: the number of its device file: 3 for /dev/nvidia3
    minor: int | None = None
    #: why nothing, or with `reset-required` not all, is known of it: `lost`, `timeout`, `reset-required`,
    #: `no-permission`, `unknown-error`, or another of NVML's errors
    lost: str | None = None
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    memory_reserved_bytes: int | None = None
    utilization_percent: int | None = None
    temperature_c: int | None = None
    #: degrees at which the hardware slows down; or how many are left to the nearest threshold at which clocks go down
    slowdown_temperature_c: int | None = None
    temperature_margin_c: int | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    sm_clock_mhz: int | None = None
    max_sm_clock_mhz: int | None = None
    #: NVML's names in lower case: `sw_power_cap`, `hw_slowdown`, `sw_thermal_slowdown`, `hw_thermal_slowdown`,
    #: `hw_power_brake_slowdown`, `gpu_idle`, …
    throttle_reasons: tuple[str, ...] | None = None
    #: since when each of `throttle_reasons` was seen at every reading, RFC 3339
    throttled_since: dict[str, str] | None = None
    ecc: Ecc | None = None
    pcie: Pcie | None = None
    nvlinks: tuple[NvLink, ...] | None = None
    fabric: Fabric | None = None
    persistence_mode: bool | None = None
    compute_mode: str | None = None
    #: what the driver recommends: `none`, `gpu-reset`, `node-reboot`, `drain-p2p`, `drain-and-reset`, …
    recovery_action: str | None = None
    #: the indexes of GPUs that it cannot reach by peer access, and why
    no_p2p: dict[str, str] | None = None
    mig_enabled: bool | None = None
    mig_devices: tuple[MigDevice, ...] = ()
    processes: tuple[Process, ...] | None = None
    xids: tuple[Xid, ...] = ()
    pods: tuple[User, ...] | None = None


class Cpu(_Part):
    """CPU bandwidth control of a container since it started; `quota_cores` is absent without a limit."""

    quota_cores: float | None = None
    nr_periods: int | None = None
    nr_throttled: int | None = None
    throttled_usec: int | None = None
    #: share of the time of the last 10 s and 300 s in which some task waited for a CPU, percent
    pressure10: float | None = None
    pressure300: float | None = None


class Memory(_Part):
    """Host memory of a container; `oom_kills` of the container, `pod_oom_kills` of its whole pod since the pod began."""

    current_bytes: int | None = None
    max_bytes: int | None = None
    peak_bytes: int | None = None
    shmem_bytes: int | None = None
    anon_bytes: int | None = None
    oom_kills: int | None = None
    pod_oom_kills: int | None = None
    pressure10: float | None = None
    pressure300: float | None = None


class Shm(_Part):
    """/dev/shm of a container; `used_bytes` needs the right to look into it."""

    size_bytes: int | None = None
    used_bytes: int | None = None


class Container(_Part):
    """A container that has a GPU, by the kubelet or by a process of its that holds one."""

    namespace: str | None = None
    pod: str | None = None
    container: str | None = None
    pod_uid: str | None = None
    container_id: str | None = None
    cpu: Cpu | None = None
    memory: Memory | None = None
    shm: Shm | None = None


class Report(_Part):
    """All that the agent knows of its node."""

    schema: str = SCHEMA
    node: str | None = None
    agent_version: str | None = None
    #: when the readings were taken, RFC 3339 in UTC
    taken_at: str | None = None
    profile: tuple[str, ...] = ()
    driver_version: str | None = None
    cuda_version: str | None = None
    #: the version of the NVML library in the agent's container
    nvml_version: str | None = None
    errors: tuple[Error, ...] = ()
    gpus: tuple[Gpu, ...] | None = None
    containers: tuple[Container, ...] | None = None
    #: lines of the kernel's log about GPUs, PCIe and memory, oldest first
    kernel_log: str | None = None


def to_json(report: Report) -> bytes:
    """The report as one compact JSON document, `schema` first."""
    return msgspec.json.encode({"schema": SCHEMA, **msgspec.to_builtins(report)})


def clock() -> datetime:
    """The time of this node."""
    return datetime.now(UTC)


def rfc3339(moment: datetime) -> str:
    """A time as Kubernetes writes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
