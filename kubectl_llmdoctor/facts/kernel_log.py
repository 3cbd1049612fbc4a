"""The kernel's log of a node: Xids and SXids of NVIDIA's driver, errors of the PCIe bus, processes killed for want of memory.

Sources of the forms: NVIDIA's Xid and fabric manager guides; Linux `drivers/pci/pci.c`, `drivers/pci/pcie/aer.c`,
`drivers/gpu/drm/amd/amdgpu/amdgpu_device.c` and `mm/oom_kill.c`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Literal

import msgspec

from kubectl_llmdoctor.catalog.sxids import SxidClass, sxid_class
from kubectl_llmdoctor.facts.agent import Device, bus_of
from kubectl_llmdoctor.facts.units import parse_time
from kubectl_llmdoctor.report.document import Evidence


class _Timed(msgspec.Struct, frozen=True, kw_only=True):
    #: None: not known
    time: datetime | None = None

    @property
    def order(self) -> float | None:
        """Its place in time among lines of logs that carry times."""
        return self.time.timestamp() if self.time else None


class KernelLine(_Timed, frozen=True, kw_only=True):
    """One line of the kernel's log; `time` where it says it."""

    number: int
    text: str
    #: where it was found, if not in a log
    proof: Evidence | None = None


class Xid(_Timed, frozen=True, kw_only=True):
    """An Xid, by the kernel's log, the agent, metrics or a condition of the node."""

    number: int
    bus: str = ""
    uuid: str = ""
    #: the GPU instance of the slice that it is about, where it is about one
    gpu_instance: int | None = None
    pid: int | None = None
    process: str = ""
    #: what the driver says of it; empty from all but the kernel's log
    text: str = ""
    #: the GPU, where the agent saw it
    device: Device | None = None
    evidence: Evidence


class SwitchError(msgspec.Struct, frozen=True, kw_only=True):
    """An SXid: an error of an NVSwitch."""

    number: int
    #: whether the driver calls it fatal
    fatal: bool
    #: None where NVIDIA's guide does not list the number
    kind: SxidClass | None
    text: str
    line: KernelLine


class BusError(msgspec.Struct, frozen=True, kw_only=True):
    """An error of the PCIe bus (AER), by the device that it is about."""

    bus: str
    severity: Literal["corrected", "non-fatal", "fatal"]
    line: KernelLine


class OutOfMemory(msgspec.Struct, frozen=True, kw_only=True):
    """A process that the kernel killed for lack of host memory."""

    process: str
    #: sizes in bytes
    anon: int
    shmem: int
    #: whether the node was short of memory, and not a cgroup
    whole_node: bool | None = None
    pod_uid: str = ""
    container_id: str = ""
    #: the cgroup of the process; empty where the kernel does not say
    cgroup: str = ""
    time: datetime | None = None
    line: KernelLine


_XID = r"NVRM: Xid \((?P<bus>[^)]{1,40})\)[^:]{0,80}: (?P<number>\d{1,5})(?P<rest>.*)"
_INSTANCE = r"GPU-I:(?P<number>[0-9a-fA-F]{1,4})"
_PID = r"pid='?(?P<pid>\d{1,10})"
#: What recent drivers add to an Xid 45.
_CAUSED = r"caused by previous Xid (?P<number>\d{1,5})"
_NAME = r"name='?(?P<name>[^,']{1,64})"
_SXID = r"SXid \([^)]{1,40}\): (?P<number>\d{4,6}), (?P<grade>Fatal|Non-fatal|Severity (?P<severity>\d+))(?:, )?(?P<rest>.*)"
#: Which GPU is at which address; the driver prints it once before the first Xid of each.
_NAMED = r"NVRM: GPU at PCI:(?P<bus>[0-9a-fA-F:]{7,16}): (?P<uuid>GPU-[0-9a-f-]{8,36})"
_AER = (
    r"(?P<bus>[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.\d): (?:AER: )?"
    r"(?:PCIe Bus Error: severity=(?P<severity>(?:Unc|C)orrect(?:ed|able)(?: \((?:Non-)?Fatal\))?)"
    r"|(?:Multiple )?(?P<told>(?:Unc|C)orrect(?:ed|able)(?: \((?:Non-)?Fatal\))?) error (?:message )?received(?: from|:) "
    r"(?P<about>[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.\d))"
)
_MISMATCH = r"NVRM: API mismatch"
#: Status 0x0f is NV_ERR_GPU_IS_LOST, which calls to the GPU's own processor (GSP) end with from then on.
_LOST = (
    r"(?i)NVRM:(?:(?!NVRM:).)*(?:fallen off the bus|GPU is lost|\[NV_ERR_GPU_IS_LOST\]|rpcSendMessage failed with status 0x0000000f\b)"
    r"|amdgpu\b.{0,60}\bdevice lost from bus"
    r"|\b(?:amdgpu|nvidia) \S{1,16}: Unable to change power state from \w+ to D0, device inaccessible"
)
#: The GPU's own processor does not answer the driver; one that was only asked for something has Xid 119 then (`kernel_gsp.c`).
_SILENT = (
    r"NVRM:(?: (?P<gpu>GPU\d{1,3}))? _kgsp(?:IsHeartbeatTimedOut: Heartbeat timed out|RpcRecvPoll: (?:GSP RM|LibOS) heartbeat timed out"
    r"|LogRpcTimeout: \*{3,80} GSP Timeout)"
)
_LOADED = r"NVRM: loading NVIDIA UNIX"
#: The status with which the driver refuses work for a GPU that it marked for a reset (open modules: `nvstatuscodes.h`).
_REFUSED = "[NV_ERR_RESET_REQUIRED]"
_NOT_INITIALISED = r"NVRM:.{0,40}\brm_init_adapter failed\b.{0,24}\bminor number (?P<minor>\d{1,4})"
_PAGE_FAULT = r"amdgpu\b.{0,80}\[\w+\] (?:(?:no-)?retry )?page fault \(src_id"
#: A fatal event of the card, and counts by block (`amdgpu/amdgpu_ras.c`). Consumer cards answer a query with multiples of 1048560.
_AMD_BROKEN = (
    r"amdgpu\b.{0,60}\b(?:[Uu]ncorrectable hardware error ?\(ERREVENT_ATHUB_INTERRUPT\) detected"
    r"|(?P<count>\d{1,12}) (?:new )?uncorrectable hardware errors detected in \w{1,20} block)"
)
_NO_COUNT = 1048560
#: A card that hung, and that amdgpu therefore resets (`amdgpu_device.c`, `amdgpu_job.c`, `amdgpu_mes.c`, amdkfd's
#: `kfd_device_queue_manager.c`), or cannot; a ring that it got going again without a reset is none.
_AMD_RESET = (
    r"amdgpu\b.{0,60}\b(?:GPU reset begin!|GPU [Rr]ecovery [Ff]ailed: -?\d|might be in (?:an )?unrecoverable state, issue a GPU reset"
    r"|[Rr]ing \w{1,20}(?:\.\d){0,3} timeout, signaled seq=)"
)
_CONSTRAINT = r"oom-kill:constraint=(?P<constraint>\w+)(?P<rest>.*)"
#: Whose limit it was: before the kill, up to Linux 4.18, or after the first of all processes of a cgroup that are killed together.
_TASKS = r"Tasks? in (?P<path>/\S{1,600}) (?:killed as a result of limit of|are going to be killed due to memory\.oom\.group)"
_KILLED = (
    r"[Kk]ill(?:ed)? process (?P<pid>\d{1,10})(?: \((?P<name>[^)]{0,40})\))?(?:.{0,200}?total-vm:\d{1,15}kB, "
    r"anon-rss:(?P<anon>\d{1,15})kB"
    r"(?:, file-rss:\d+kB)?(?:, shmem-rss:(?P<shmem>\d{1,15})kB)?|(?<=\))[ .,…]{0,5}$)"
)
_POD = r"pod(?P<uid>[0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32})"
_CONTAINER = r"[0-9a-f]{64}"

_ISO = r"^(?:\S+: (?:kern|user): +\w+: )?\s*\[?(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?)"
_CTIME = r"^\s*\[\w{3} (\w{3} +\d+ \d\d:\d\d:\d\d \d{4})\]"
_SINCE_BOOT = r"\[ {0,12}(\d{1,10}\.\d{1,9})\]"
_SYSLOG = r"^\s*(\w{3} +\d+ \d\d:\d\d:\d\d) "


class KernelLog:
    """The kernel's log of a node, in the order of its lines; else those of its lines that others `copied`."""

    def __init__(self, text: str, node: str, now: datetime | None, copied: Iterable[KernelLine] = ()) -> None:
        self.node = node
        self.lines = [
            KernelLine(number=n, text=line.strip(), time=_time(line, now))
            for n, line in enumerate(text.splitlines(), 1)
            if line.strip()
        ] or list(copied)

    def evidence(self, line: KernelLine) -> Evidence:
        """A line with its place."""
        return line.proof or Evidence(source="kernel-log", ref=f"Node/{self.node}", text=line.text, line=line.number)

    def seconds_to_end(self, line: KernelLine) -> float:
        """How long before the last line of the log a line was written, by the seconds since the boot; 0 where it does not say them."""
        began, ended = (re.match(_SINCE_BOOT, one.text) for one in (line, self.lines[-1] if self.lines else line))
        return float(ended[1]) - float(began[1]) if began and ended else 0.0

    @cached_property
    def uuids(self) -> dict[str, str]:
        """The UUIDs of GPUs by their addresses, as far as the driver printed them."""
        named = (re.search(_NAMED, line.text) for line in self.lines if "NVRM: GPU at PCI:" in line.text)
        return {bus_of(found["bus"]): found["uuid"] for found in named if found}

    @cached_property
    def xids(self) -> tuple[Xid, ...]:
        """The Xids that the driver wrote into it, in its order."""
        found: list[Xid] = []
        for line in self.lines:
            if match := re.search(_XID, line.text):
                bus, rest = bus_of(match["bus"]), match["rest"]
                pid, name, part = re.search(_PID, rest), re.search(_NAME, rest), re.search(_INSTANCE, match["bus"])
                said = re.sub(r"^(?:, (?:pid|name)=[^,]*)*,? ?", "", rest)
                numbers = [int(match["number"])]
                # the line of the first one may be lost, as in a log that wraps around
                if (before := re.search(_CAUSED, rest)) and not any(
                    x.bus == bus and x.number != numbers[0] for x in found
                ):
                    numbers.insert(0, int(before["number"]))
                found += (
                    Xid(
                        number=number,
                        bus=bus,
                        uuid=self.uuids.get(bus, ""),
                        gpu_instance=int(part["number"], 16) if part else None,
                        pid=int(pid["pid"]) if pid else None,
                        process=name["name"].strip() if name and "unknown" not in name["name"] else "",
                        text=said.strip(),
                        time=line.time,
                        evidence=self.evidence(line),
                    )
                    for number in dict.fromkeys(numbers)
                )
        return tuple(found)

    @cached_property
    def switch_errors(self) -> tuple[SwitchError, ...]:
        """The SXids."""
        return tuple(
            SwitchError(
                number=int(found["number"]),
                fatal=found["grade"] == "Fatal" or found["severity"] == "1",
                kind=sxid_class(int(found["number"])),
                text=found["rest"].strip(),
                line=line,
            )
            for line in self.lines
            if "SXid" in line.text and (found := re.search(_SXID, line.text))
        )

    @cached_property
    def bus_errors(self) -> tuple[BusError, ...]:
        """Errors of the PCIe bus: what a device says of itself, and what a port says of a device behind it.

        Which device is behind a port that only speaks of itself is not known here.
        """
        found = []
        for line in self.lines:
            match = re.search(_AER, line.text) if "orrect" in line.text else None
            if match:
                severity = (match["severity"] or match["told"]).lower()
                found.append(
                    BusError(
                        bus=bus_of(match["about"] or match["bus"]),
                        severity="corrected"
                        if not severity.startswith("un")
                        else "non-fatal"
                        if "non-fatal" in severity
                        else "fatal",
                        line=line,
                    )
                )
        return tuple(found)

    @cached_property
    def mismatches(self) -> tuple[KernelLine, ...]:
        """Lines in which the kernel module refuses a library of another version."""
        return tuple(line for line in self.lines if re.search(_MISMATCH, line.text))

    @cached_property
    def lost(self) -> tuple[KernelLine, ...]:
        """Lines that say, without an Xid, that a GPU fell off the bus."""
        return tuple(line for line in self.lines if re.search(_LOST, line.text) and "Xid" not in line.text)

    @cached_property
    def silent(self) -> tuple[tuple[KernelLine, str], ...]:
        """Lines that say, without an Xid, that a GPU's own processor (GSP) does not answer the driver, and which GPU they name."""
        found = ((line, re.search(_SILENT, line.text)) for line in self.lines if "_kgsp" in line.text)
        return tuple((line, said["gpu"] or "") for line, said in found if said)

    @cached_property
    def refused(self) -> tuple[KernelLine, ...]:
        """Lines by which the driver, since it was loaded, refused work for a GPU that is to be reset first."""
        loaded = max((line.number for line in self.lines if re.search(_LOADED, line.text)), default=0)
        return tuple(line for line in self.lines if line.number > loaded and _REFUSED in line.text)

    def outlived(self, xid: Xid) -> bool:
        """Whether the driver was loaded again after an Xid of this log, which begins again with every GPU."""
        place = xid.evidence.line
        return place is not None and any(line.number > place and re.search(_LOADED, line.text) for line in self.lines)

    def loaded_after(self, moment: datetime | None) -> bool:
        """Whether the driver was, or may have been, loaded after a moment."""
        loaded = (line for line in self.lines if re.search(_LOADED, line.text))
        return any(moment is None or line.time is None or line.time > moment for line in loaded)

    @cached_property
    def absent(self) -> tuple[KernelLine, ...]:
        """The same of GPUs that the driver did not take when it was loaded, so that nobody counts them: the last line on each."""
        probed = max((line.number for line in self.lines if "NVIDIA probe routine failed" in line.text), default=0)
        # the driver may say on three lines what it says of one GPU, and name it on the first
        named = {line.number: bus_of(line.text) for line in self.lines if "NVRM: The NVIDIA GPU" in line.text}
        last: dict[str, KernelLine] = {}
        for line in self.lost:
            number = line.number
            bus = bus_of(line.text) or named.get(number - 1) or named.get(number - 2) or str(number)
            if number < probed:
                last[bus] = line
        return tuple(last.values())

    @cached_property
    def not_initialised(self) -> tuple[KernelLine, ...]:
        """The last word on each GPU that the driver found and could not initialise, since it was loaded; NVML lists none of them."""
        last: dict[str, KernelLine] = {}
        for line in self.lines:
            if re.search(_LOADED, line.text):
                last.clear()
            elif said := re.search(_NOT_INITIALISED, line.text):
                last[said["minor"]] = line
        return tuple(last.values())

    @cached_property
    def page_faults(self) -> tuple[KernelLine, ...]:
        """Accesses that an AMD GPU refused (`amdgpu/gmc_v*_0.c`)."""
        return tuple(
            line for line in self.lines if "page fault (src_id" in line.text and re.search(_PAGE_FAULT, line.text)
        )

    @cached_property
    def amd_resets(self) -> tuple[KernelLine, ...]:
        """Lines that say that an AMD GPU hung, and was or is to be reset."""
        return tuple(line for line in self.lines if "amdgpu" in line.text and re.search(_AMD_RESET, line.text[:400]))

    @cached_property
    def amd_uncorrectable(self) -> tuple[KernelLine, ...]:
        """Errors of an AMD GPU's hardware that could not be corrected."""
        found = []
        for line in self.lines:
            said = re.search(_AMD_BROKEN, line.text) if "ncorrectable hardware error" in line.text else None
            if said and (said["count"] is None or int(said["count"]) % _NO_COUNT):
                found.append(line)
        return tuple(found)

    @cached_property
    def kills(self) -> tuple[OutOfMemory, ...]:
        """Processes that were killed for lack of memory; the line before says in which cgroup and why."""
        found: list[OutOfMemory] = []
        why: re.Match[str] | None = None
        together = ""
        for line in self.lines:
            # of the node; up to Linux 4.18 what was killed is said on the next line
            if "Out of memory: Kill" in line.text:
                together = ""
            if constraint := re.search(_CONSTRAINT, line.text):
                why, together = constraint, ""
            elif tasks := re.search(_TASKS, line.text):
                together = tasks["path"]
                if found and "oom.group" in line.text and not (found[-1].pod_uid or found[-1].whole_node):
                    found[-1] = _killed(found[-1].line, None, together) or found[-1]
            elif killed := _killed(line, why, together):
                found.append(killed)
                why = None
        return tuple(found)


def _killed(line: KernelLine, why: re.Match[str] | None, together: str) -> OutOfMemory | None:
    """The process that a line says was killed, by what another line says of the reason or of the cgroup."""
    killed = re.search(_KILLED, line.text)
    if not killed:
        return None
    rest = why["rest"] if why else together or line.text
    uid, ids = re.search(_POD, rest), re.findall(_CONTAINER, _cgroup_of(rest) or rest)
    return OutOfMemory(
        process=killed["name"] or "?",
        anon=int(killed["anon"] or 0) * 1024,
        shmem=int(killed["shmem"] or 0) * 1024,
        whole_node=not (together or "cgroup" in line.text or (why and why["constraint"] == "CONSTRAINT_MEMCG")),
        pod_uid=uid["uid"].replace("_", "-") if uid else "",
        container_id=ids[-1] if ids else "",
        cgroup=_cgroup_of(rest) or together,
        time=line.time,
        line=line,
    )


def _cgroup_of(text: str) -> str:
    """The cgroup of the process, by the kernel's list `key=value,key=value`."""
    return text.partition("task_memcg=")[2].partition(",")[0]


def _time(line: str, now: datetime | None) -> datetime | None:
    """When a line was written: journald's, dmesg's and syslog's forms; seconds since the boot say nothing here."""
    if found := re.match(_ISO, line):
        return parse_time(found[1].replace(" ", "T").replace(",", "."))
    try:
        if found := re.match(_CTIME, line):
            return datetime.strptime(found[1], "%b %d %H:%M:%S %Y").replace(tzinfo=UTC)
        if (found := re.match(_SYSLOG, line)) and now:  # without a year: the last one that is not in the future
            moment = datetime.strptime(f"{now.year} {found[1]}", "%Y %b %d %H:%M:%S").replace(tzinfo=UTC)
            return moment if moment <= now + timedelta(days=1) else moment.replace(year=now.year - 1)
    except ValueError:
        pass
    return None
