"""The process that calls NVML: `python -m llmdoctor_agent.nvml_worker`, started by `nvml.py`.

A call into the driver can hang for ever, in the library or in the kernel, and a thread that does so cannot be ended. So
all calls are made here, where nothing else happens: a thread per GPU, so that one that hangs costs the data of no other,
in a process that can be left behind. A new process also is what loads the library of a new driver, and what survives a
library that crashes. It imports as little as it can; half of the agent's memory is this second interpreter.

It reads numbers of readings from its standard input, one a line, and writes lines of JSON:

    {"read": 7, "system": {"driverVersion": "570.86.15", …, "count": 8}}     or {"read": 7, "failed": reason}
    {"read": 7, "index": 0, "at": 5123.4, "gpu": {…}, "errors": [[reason, [field, …]], …]}
    {"read": 7, "noP2p": {"0": {"1": reason}}}
    {"xid": 79, "uuid": "GPU-…"}          as it happens, with "gpuInstance": 2 if it is of a slice
    {"events": reason, "uuid": "GPU-…"}   why Xids of a GPU, or without its UUID of any, are not heard; empty if they are

`gpu` is a `report.Gpu` by the names of the report; `at` is the monotonic clock, seconds. Answers may be late or never come.
When the input ends, it lets go of the GPUs and ends as well.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from ctypes import CDLL, byref, c_void_p, cast
from functools import partial
from typing import Any, TypeVar

import pynvml

T = TypeVar("T")

#: How long one wait for events lasts, milliseconds; a GPU that is registered meanwhile is heard from the next one on.
_EVENT_WAIT = 500
#: How long until events are tried again after an error, seconds.
_EVENT_PAUSE = 2.0
#: How long letting go of the GPUs may take, seconds; without persistence mode the driver shuts them down then.
_SHUTDOWN = 5.0

#: NVML's names of `NVML_CLOCKS_EVENT_REASON_*` (earlier `NVML_CLOCKS_THROTTLE_REASON_*`), by bit.
_CLOCK_REASONS = {
    0x1: "gpu_idle",
    0x2: "applications_clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
    0x200: "board_limit",
    0x400: "reliability",
}
_COMPUTE_MODES = {0: "default", 1: "exclusive-thread", 2: "prohibited", 3: "exclusive-process"}
_FABRIC_STATES = {0: "not-supported", 1: "not-started", 2: "in-progress", 3: "completed"}
_FABRIC_HEALTH = {1: "healthy", 2: "unhealthy", 3: "limited-capacity"}
#: `NVML_GPU_FABRIC_HEALTH_MASK_SHIFT_*` of the two-bit fields, and which of their values is bad.
_FABRIC_PROBLEMS = (
    (0, 1, "degraded-bandwidth"),
    (2, 1, "route-recovery"),
    (4, 1, "route-unhealthy"),
    (6, 1, "access-timeout-recovery"),
    (14, 2, "fabric-manager-disconnected"),
)
#: `NVML_GPU_FABRIC_HEALTH_MASK_INCORRECT_CONFIGURATION_*`, four bits from bit 8.
_FABRIC_CONFIGURATION = {
    2: "incorrect-system-guid",
    3: "incorrect-chassis-serial-number",
    4: "no-partition",
    5: "insufficient-nvlinks",
    6: "incompatible-gpu-firmware",
    7: "invalid-location",
    8: "invalid-gpu-state",
}
#: `NVML_GPU_RECOVERY_ACTION_*`.
_RECOVERY = {
    0: "none",
    1: "gpu-reset",
    2: "node-reboot",
    3: "drain-p2p",
    4: "drain-and-reset",
    5: "recover-imex-domain",
    6: "bus-reset",
    7: "system-reboot",
}
#: `NVML_P2P_STATUS_*`; what is not supported because of MIG or of the board as such is no finding of a pair.
_P2P = {
    1: "chipset not supported",
    2: "GPU not supported",
    3: "IOH topology not supported",
    4: "disabled by registry key",
    5: "not supported",
}

#: `NVML_GPU_INSTANCE_ID_ANY`: an event that is not of one GPU instance.
_NO_INSTANCE = 0xFFFFFFFF

#: `NVML_P2P_CAPS_INDEX_READ`, which pynvml 13 has as a tuple.
_P2P_READ = 0

_RETIRED_SINGLE, _RETIRED_DOUBLE, _RETIRED_PENDING = 29, 30, 31
_LINK_COUNT, _RECOVERY_ACTION = 91, 230
#: Errors of a link: replays, recoveries and CRC errors of its data layer; and from NVLink 5 on, where those are not
#: counted any more, packets received with errors, failures of the link's integrity and recoveries.
_LINK_ERRORS = (161, 162, 163)
_LINK_ERRORS_5 = (208, 211, 215)

#: What every board has on which an engine runs, so that its absence is worth a line even if it is "not supported". All
#: else differs between boards (ECC, NVLink, fabric, MIG, retired pages or remapped rows) and modes.
_EXPECTED = frozenset({
    "memoryTotalBytes", "temperatureC", "powerWatts", "smClockMhz", "throttleReasons", "pcie.gen", "pcie.width",
    "processes",
})  # fmt: skip

_NAMES = {
    getattr(pynvml, name): name.removeprefix("NVML_ERROR_") for name in dir(pynvml) if name.startswith("NVML_ERROR_")
}
#: Errors after which a GPU as a whole is not to be relied on, by the words of `Gpu.lost`.
_LOST = {
    pynvml.NVML_ERROR_GPU_IS_LOST: "lost",
    pynvml.NVML_ERROR_RESET_REQUIRED: "reset-required",
    pynvml.NVML_ERROR_TIMEOUT: "timeout",
}
#: Errors of a function, or of a version of its argument, that this driver does not have.
_TOO_OLD = (
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
    pynvml.NVML_ERROR_INVALID_ARGUMENT,
)
_NOT_THERE = (pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_DEPRECATED)


def reason_of(error: Exception) -> str:
    """NVML's name of an error and its words: `GPU_IS_LOST: GPU is lost`."""
    if not isinstance(error, pynvml.NVMLError):
        return f"{type(error).__name__}: {error}"
    code = error.value
    return f"{_NAMES.get(code, f'error {code}')}: {error}"


def _code(error: Exception) -> int:
    return int(getattr(error, "value", -1))


def _address(handle: Any) -> int | None:
    return cast(handle, c_void_p).value


class _Out:
    """Writes lines from several threads."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def __call__(self, **message: Any) -> None:
        line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            while line:
                line = line[os.write(self._descriptor, line) :]


class _Task(threading.Thread):
    """Does one thing when asked to, and again if it was asked meanwhile; how often does not matter."""

    def __init__(self, work: Callable[[int], None]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._wanted = 0
        self._wake = threading.Event()
        self.is_busy = False
        self.start()

    def ask(self, number: int) -> None:
        self._wanted = number
        self._wake.set()

    def run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            self.is_busy = True
            self._work(self._wanted)
            self.is_busy = False


class _LostError(Exception):
    """The GPU does not answer any more; asking for more could hang."""


class _Fields:
    """One reading of one GPU: what was read, and what was not for which reason."""

    def __init__(self) -> None:
        self.gpu: dict[str, Any] = {}
        self._missing: dict[str, list[str]] = {}

    @property
    def errors(self) -> list[list[Any]]:
        return [[reason, fields] for reason, fields in self._missing.items()]

    def miss(self, field: str, error: Exception) -> None:
        """Notes that `field` could not be read. Raises `_LostError` if nothing else will be."""
        code = _code(error)
        if code in _NOT_THERE and field and field not in _EXPECTED:
            return
        if code in _LOST:
            self.gpu["lost"] = _LOST[code]
        fields = self._missing.setdefault(reason_of(error), [])
        if field and field not in fields:
            fields.append(field)
        if code in (pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_TIMEOUT):
            raise _LostError

    def call(self, field: str, *calls: Callable[[], T]) -> T | None:
        """The value of the first of `calls` that this driver has; None, and noted for `field`, if it gives none."""
        for call in calls:
            try:
                return call()
            except (pynvml.NVMLError, ValueError) as error:  # ValueError: a text that is no UTF-8
                if call is calls[-1] or _code(error) not in _TOO_OLD:
                    self.miss(field, error)
                    break
        return None

    def put(self, field: str, *calls: Callable[[], Any]) -> None:
        """Reads `field`, `ecc.enabled` being `enabled` inside `ecc`."""
        value = self.call(field, *calls)
        if value is not None:
            self.set(field, value)

    def set(self, field: str, value: Any) -> None:
        part, dot, name = field.rpartition(".")
        target = self.gpu.setdefault(part, {}) if dot else self.gpu
        target[name] = value


def _field_values(handle: Any, wanted: list[tuple[int, int]]) -> dict[tuple[int, int], float | None]:
    """Values by field and scope; None where this one is not to be had. All are read with one call."""
    result: dict[tuple[int, int], float | None] = {}
    for key, value in zip(wanted, pynvml.nvmlDeviceGetFieldValues(handle, wanted), strict=True):
        # in the order of `NVML_VALUE_TYPE_*`
        names = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
        known = value.nvmlReturn == pynvml.NVML_SUCCESS and value.valueType < len(names)
        result[key] = getattr(value.value, names[value.valueType]) if known else None
        if value.nvmlReturn in (pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED):
            raise pynvml.NVMLError(value.nvmlReturn)
    return result


def _is_the_hosts_pid_namespace() -> bool:
    """Whether pids here are those of the driver; the inode is fixed in the kernel (`PROC_PID_INIT_INO`)."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino == 0xEFFFFFFC  # noqa: PTH116 - pathlib for this alone is not worth its memory
    except OSError:
        return False


class _Board:
    """One GPU by its index, in a thread of its own."""

    def __init__(self, index: int, worker: Worker) -> None:
        self.index = index
        self.handle: Any = None
        self.uuid = ""
        self.is_sliced = False
        self._worker = worker
        self._heard_by: Any = None
        self.task = _Task(self._read)

    def _read(self, number: int) -> None:
        fields = _Fields()
        with contextlib.suppress(_LostError):
            self._names(fields)
            self._state(fields)
            self._links_and_fabric(fields)
            self._slices(fields)
        self._worker.out(read=number, index=self.index, at=time.monotonic(), gpu=fields.gpu, errors=fields.errors)
        if self.handle is not None and "lost" not in fields.gpu:
            self._register()  # last, since it may have to wait for a wait that is going on

    def _names(self, fields: _Fields) -> None:
        fields.gpu["index"] = self.index
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(self.index)
        except pynvml.NVMLError as error:
            self.handle = None
            name = _NAMES.get(_code(error), "").removesuffix("_ERROR").lower().replace("_", "-")
            fields.gpu["lost"] = _LOST.get(_code(error)) or ("unknown-error" if name in ("", "unknown") else name)
            fields.miss("", error)
            raise _LostError from None
        fields.put("uuid", lambda: pynvml.nvmlDeviceGetUUID(handle))
        fields.put("name", lambda: pynvml.nvmlDeviceGetName(handle))
        fields.put("pciBusId", lambda: pynvml.nvmlDeviceGetPciInfo(handle).busId)
        fields.put("minor", lambda: pynvml.nvmlDeviceGetMinorNumber(handle))
        self.uuid = fields.gpu.get("uuid", self.uuid)
        self.handle = handle
        self._worker.by_handle[_address(handle)] = self

    def _register(self) -> None:
        """Lets the Xids of this GPU be heard; again where the set of events is a new one."""
        with self._worker.listener.events() as events:
            if events is None or events is self._heard_by:
                return
            self._heard_by = events
            try:
                pynvml.nvmlDeviceRegisterEvents(self.handle, pynvml.nvmlEventTypeXidCriticalError, events)
            except pynvml.NVMLError as error:
                self._worker.out(events=reason_of(error), uuid=self.uuid)
            else:
                self._worker.listener.registered.set()
                self._worker.out(events="", uuid=self.uuid)

    def _state(self, fields: _Fields) -> None:
        handle, put = self.handle, fields.put
        slices = fields.call("migEnabled", lambda: pynvml.nvmlDeviceGetMigMode(handle))
        if slices is not None:
            self.is_sliced = fields.gpu["migEnabled"] = slices[0] == 1
        memory = self._memory(fields, handle, "memoryTotalBytes")
        if memory is not None:
            fields.gpu |= {"memoryTotalBytes": memory.total, "memoryUsedBytes": memory.used}
            if hasattr(memory, "reserved"):
                fields.gpu["memoryReservedBytes"] = memory.reserved
        self._clocks(fields)
        self._health(fields)
        put("persistenceMode", lambda: pynvml.nvmlDeviceGetPersistenceMode(handle) == 1)
        mode = fields.call("computeMode", lambda: pynvml.nvmlDeviceGetComputeMode(handle))
        if mode is not None:
            fields.gpu["computeMode"] = _COMPUTE_MODES.get(mode, str(mode))
        processes = self._processes(fields, handle, "processes")
        if processes is not None:
            fields.gpu["processes"] = processes

    def _clocks(self, fields: _Fields) -> None:
        """How busy and how hot it is, and what holds its clocks down."""
        handle, put = self.handle, fields.put
        put("utilizationPercent", lambda: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        put(
            "temperatureC",
            lambda: pynvml.nvmlDeviceGetTemperatureV(handle, pynvml.NVML_TEMPERATURE_GPU),
            lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
        )
        # Thresholds are deprecated from Ada on, margins not there before; a driver that lacks the newer is no error.
        put("temperatureMarginC", lambda: pynvml.nvmlDeviceGetMarginTemperature(handle), _not_supported)
        put(
            "slowdownTemperatureC",
            lambda: pynvml.nvmlDeviceGetTemperatureThreshold(handle, pynvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN),
        )
        put("powerWatts", lambda: pynvml.nvmlDeviceGetPowerUsage(handle) / 1000)
        put("powerLimitWatts", lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000)
        put("smClockMhz", lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM))
        put("maxSmClockMhz", lambda: pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_SM))
        reasons = fields.call(
            "throttleReasons",
            lambda: pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle),
            lambda: pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle),
        )
        if reasons is not None:
            fields.gpu["throttleReasons"] = [name for bit, name in _CLOCK_REASONS.items() if reasons & bit]

    def _health(self, fields: _Fields) -> None:
        """Errors of its memory, and its PCIe link."""
        handle, put = self.handle, fields.put
        put("ecc.enabled", lambda: pynvml.nvmlDeviceGetEccMode(handle)[0] == 1)
        for name, counter in (("volatile", pynvml.NVML_VOLATILE_ECC), ("aggregate", pynvml.NVML_AGGREGATE_ECC)):
            put(
                f"ecc.{name}Uncorrected",
                partial(pynvml.nvmlDeviceGetTotalEccErrors, handle, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, counter),
            )
        rows = fields.call("ecc.remapPending", lambda: pynvml.nvmlDeviceGetRemappedRows(handle), _not_supported)
        if rows is not None:
            fields.set("ecc.remappedCorrectable", rows[0])
            fields.set("ecc.remappedUncorrectable", rows[1])
            fields.set("ecc.remapPending", rows[2] != 0)
            fields.set("ecc.remapFailed", rows[3] != 0)
        put("pcie.gen", lambda: pynvml.nvmlDeviceGetCurrPcieLinkGeneration(handle))
        put("pcie.maxGen", lambda: pynvml.nvmlDeviceGetMaxPcieLinkGeneration(handle))
        put("pcie.width", lambda: pynvml.nvmlDeviceGetCurrPcieLinkWidth(handle))
        put("pcie.maxWidth", lambda: pynvml.nvmlDeviceGetMaxPcieLinkWidth(handle))
        put("pcie.replays", lambda: pynvml.nvmlDeviceGetPcieReplayCounter(handle))

    def _memory(self, fields: _Fields, handle: Any, field: str) -> Any:
        """Before the 510 driver, what is reserved counts as used."""
        return fields.call(
            field,
            partial(pynvml.nvmlDeviceGetMemoryInfo, handle, version=pynvml.nvmlMemory_v2),
            partial(pynvml.nvmlDeviceGetMemoryInfo, handle),
        )

    def _processes(self, fields: _Fields, handle: Any, field: str) -> list[dict[str, Any]] | None:
        """Compute, graphics and MPS processes; a process in several of the lists is one. None if all are unknown."""
        found: dict[int, dict[str, Any]] = {}
        known = False
        for kind, name in (("Compute", field), ("Graphics", f"{field}.graphics"), ("MPSCompute", f"{field}.mps")):
            calls = [
                partial(getattr(pynvml, f"nvmlDeviceGet{kind}RunningProcesses_{version}"), handle)
                for version in ("v3", "v2")
            ]
            processes = fields.call(name, *calls)
            if processes is None:
                continue
            known = known or kind == "Compute"
            for process in processes:
                entry = found.setdefault(process.pid, {"pid": process.pid})
                if process.usedGpuMemory is not None:
                    entry["usedBytes"] = max(process.usedGpuMemory, entry.get("usedBytes", 0))
        if self._worker.names_processes:
            for pid, entry in found.items():
                try:
                    # a process may have written all its arguments into its first one
                    entry["name"] = pynvml.nvmlSystemGetProcessName(pid).partition(" ")[0]
                except (pynvml.NVMLError, ValueError):
                    continue  # it has ended, or belongs to somebody else
        return [found[pid] for pid in sorted(found)] if known or found else None

    def _links_and_fabric(self, fields: _Fields) -> None:
        handle = self.handle
        single = [(number, 0) for number in (_RETIRED_SINGLE, _RETIRED_DOUBLE, _RETIRED_PENDING, _LINK_COUNT)]
        try:
            values = _field_values(handle, [*single, (_RECOVERY_ACTION, 0)])
        except pynvml.NVMLError as error:
            values = {}
            for field in ("recoveryAction", "ecc.retiredPages"):
                fields.miss(field, error)
        action = values.get((_RECOVERY_ACTION, 0))
        if action is not None:
            fields.gpu["recoveryAction"] = _RECOVERY.get(int(action), str(int(action)))
        retired = [values.get((number, 0)) for number in (_RETIRED_SINGLE, _RETIRED_DOUBLE)]
        if None not in retired:
            fields.set("ecc.retiredPages", int(sum(pages for pages in retired if pages is not None)))
        pending = values.get((_RETIRED_PENDING, 0))
        if pending is not None and "remapPending" not in fields.gpu.get("ecc", {}):
            fields.set("ecc.retirementPending", pending != 0)
        count = values.get((_LINK_COUNT, 0))
        links = list(self._link_states(fields, int(count) if count is not None else pynvml.NVML_NVLINK_MAX_LINKS))
        if links:
            self._link_errors(fields, links)
            fields.gpu["nvlinks"] = links
        fabric = fields.call("fabric", *(partial(_fabric, handle, version) for version in (3, 2, 1)), _not_supported)
        if fabric is not None:
            fields.gpu["fabric"] = fabric

    def _link_states(self, fields: _Fields, count: int) -> Iterator[dict[str, Any]]:
        for link in range(count):
            try:
                yield {"link": link, "active": pynvml.nvmlDeviceGetNvLinkState(self.handle, link) == 1}
            except pynvml.NVMLError as error:
                # not all drivers say how many links there are
                if _code(error) not in (pynvml.NVML_ERROR_INVALID_ARGUMENT, pynvml.NVML_ERROR_NOT_SUPPORTED):
                    fields.miss("nvlinks", error)

    def _link_errors(self, fields: _Fields, links: list[dict[str, Any]]) -> None:
        handle = self.handle
        wanted = [(number, entry["link"]) for entry in links for number in (*_LINK_ERRORS, *_LINK_ERRORS_5)]
        values = fields.call("nvlinks.errors", lambda: _field_values(handle, wanted)) or {}
        for entry in links:
            for numbers in (_LINK_ERRORS, _LINK_ERRORS_5):
                known = [value for number in numbers if (value := values.get((number, entry["link"]))) is not None]
                if known:
                    entry["errors"] = int(sum(known))
                    break

    def _slices(self, fields: _Fields) -> None:
        if not fields.gpu.get("migEnabled"):
            return
        handle = self.handle
        slices = []
        for index in range(fields.call("migDevices", lambda: pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)) or 0):
            try:
                device = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
                entry: dict[str, Any] = {"uuid": pynvml.nvmlDeviceGetUUID(device)}
            except (pynvml.NVMLError, ValueError) as error:
                if _code(error) != pynvml.NVML_ERROR_NOT_FOUND:  # an instance that was not made
                    fields.miss("migDevices", error)
                continue
            instance = fields.call("migDevices.gpuInstance", partial(pynvml.nvmlDeviceGetGpuInstanceId, device))
            if instance is not None:
                entry["gpuInstance"] = instance
            # `NVIDIA A100-SXM4-80GB MIG 3g.40gb`
            name = fields.call("migDevices.profile", partial(pynvml.nvmlDeviceGetName, device)) or ""
            if " MIG " in name:
                entry["profile"] = name.rpartition(" MIG ")[2]
            memory = self._memory(fields, device, "migDevices.memoryTotalBytes")
            if memory is not None:
                entry |= {"memoryTotalBytes": memory.total, "memoryUsedBytes": memory.used}
            entry["processes"] = self._processes(fields, device, "migDevices.processes") or []
            slices.append(entry)
        fields.gpu["migDevices"] = slices


def _not_supported() -> Any:
    """Stands last among calls where a driver that lacks the function is too old for what it is about."""
    raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


def _fabric(handle: Any, version: int) -> dict[str, Any]:
    """State of the registration with the fabric; what is wrong comes with version 2 (driver 550), `health` with 3."""
    if version == 1:
        info = pynvml.c_nvmlGpuFabricInfo_t()
        pynvml.nvmlDeviceGetGpuFabricInfo(handle, byref(info))
    else:
        info = pynvml.c_nvmlGpuFabricInfo_v3_t() if version == 3 else pynvml.c_nvmlGpuFabricInfo_v2_t()
        pynvml.nvmlDeviceGetGpuFabricInfoV(handle, byref(info))
    if info.state == pynvml.NVML_GPU_FABRIC_STATE_NOT_SUPPORTED:
        _not_supported()
    fabric: dict[str, Any] = {"state": _FABRIC_STATES.get(info.state, str(info.state))}
    if info.state != pynvml.NVML_GPU_FABRIC_STATE_COMPLETED:
        return fabric  # the rest means nothing yet
    fabric["status"] = "success" if info.status == pynvml.NVML_SUCCESS else _NAMES.get(info.status, str(info.status))
    if health := _FABRIC_HEALTH.get(getattr(info, "healthSummary", 0)):
        fabric["health"] = health
    if version > 1:
        mask = info.healthMask
        problems = [name for shift, bad, name in _FABRIC_PROBLEMS if mask >> shift & 0x3 == bad]
        if configuration := _FABRIC_CONFIGURATION.get(mask >> 8 & 0xF):
            problems.append(configuration)
        fabric["problems"] = problems
    return fabric


class Worker:
    """Starts NVML and a thread per GPU, and passes the numbers of readings on to them."""

    def __init__(self, out: _Out) -> None:
        self.out = out
        self.listener = _Listener(self)
        #: GPUs by the addresses of their handles: one of which an Xid tells may not answer any more
        self.by_handle: dict[int | None, _Board] = {}
        self.names_processes = _is_the_hosts_pid_namespace()
        self._boards: list[_Board] = []
        self._initialised = False
        self._peers_known = False
        self._system = _Task(self._read)
        self._peers = _Task(self._read_peers)

    def ask(self, number: int) -> None:
        for board in self._boards:
            board.task.ask(number)
        self._system.ask(number)
        self._peers.ask(number)

    def end(self) -> None:
        """Lets go of the GPUs in order, unless something hangs: clients that were killed have left GPUs hanging."""
        if not self._initialised:
            return
        self.listener.ending = True
        self.listener.registered.set()
        self.listener.join(1.0)
        tasks = (self._system, self._peers, *(board.task for board in self._boards))
        if self.listener.is_alive() or any(task.is_busy for task in tasks):
            return
        shutdown = threading.Thread(target=pynvml.nvmlShutdown, daemon=True)
        shutdown.start()
        shutdown.join(_SHUTDOWN)

    def _read(self, number: int) -> None:
        try:
            if not self._initialised:
                pynvml.nvmlInit()
                self._initialised = True
                self.listener.start()
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            reason = reason_of(error)
            if _code(error) == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
                reason = f"LIBRARY_NOT_FOUND: {_why_not_loaded()}"
            self.out(read=number, failed=reason, system=self._versions())
            return
        self.out(read=number, system=self._versions() | {"count": count})
        new = [_Board(index, self) for index in range(len(self._boards), count)]
        self._boards = [*self._boards, *new]  # at once, so that pairs are not read of some GPUs only
        for board in new:
            board.task.ask(number)

    def _versions(self) -> dict[str, str]:
        versions = {}
        for name, call in (
            ("driverVersion", pynvml.nvmlSystemGetDriverVersion),
            ("nvmlVersion", pynvml.nvmlSystemGetNVMLVersion),
            ("cudaVersion", pynvml.nvmlSystemGetCudaDriverVersion_v2),
        ):
            try:
                versions[name] = call()
            except (pynvml.NVMLError, ValueError):
                continue  # absent means not known, and the reason is that of the failed start
        if "cudaVersion" in versions:
            number = int(versions["cudaVersion"])  # 12040 is 12.4
            versions["cudaVersion"] = f"{number // 1000}.{number % 1000 // 10}"
        return versions

    def _read_peers(self, number: int) -> None:
        """Which pairs cannot reach each other; fixed while the driver runs, so once, when all GPUs have been read."""
        # Taken once: a GPU that is lost in the meantime loses its handle to another thread.
        handles = {board.index: board.handle for board in self._boards}
        if self._peers_known or len(handles) < 2 or None in handles.values():
            return
        matrix: dict[int, dict[int, str]] = {index: {} for index in handles}
        try:
            for one, handle in handles.items():
                for other, other_handle in handles.items():
                    if one != other:
                        status = pynvml.nvmlDeviceGetP2PStatus(handle, other_handle, _P2P_READ)
                        if status in _P2P:
                            matrix[one][other] = _P2P[status]
        except pynvml.NVMLError:
            return  # not of such boards, with MIG, or one is lost; to be tried again
        self._peers_known = True
        self.out(read=number, noP2p=matrix)


class _Listener(threading.Thread):
    """Hears of Xids of the GPUs that registered. A set that fails is replaced; GPUs register again when they are read."""

    def __init__(self, worker: Worker) -> None:
        super().__init__(daemon=True)
        self.registered = threading.Event()
        self.ending = False
        self._failed = False
        self._worker = worker
        self._lock = threading.Lock()
        self._events: Any = None
        self._users = 0

    @contextlib.contextmanager
    def events(self) -> Iterator[Any]:
        """The set, or None; it is not freed inside."""
        with self._lock:
            self._users += 1
            events = self._events
        try:
            yield events
        finally:
            with self._lock:
                self._users -= 1

    def run(self) -> None:
        while not self.ending:
            try:
                self._hear()
            except pynvml.NVMLError as error:
                if self._failed:  # else it may have been a lost GPU, which is said anyway and is not in the next set
                    self._worker.out(events=reason_of(error), uuid="")
                self._failed = True
            with self._lock:
                events, self._events = self._events, None
                unused = not self._users
            if events is not None and unused:  # else a GPU hangs while it registers, and the set is left to it
                with contextlib.suppress(pynvml.NVMLError):
                    pynvml.nvmlEventSetFree(events)
            time.sleep(0 if self.ending else _EVENT_PAUSE)

    def _hear(self) -> None:
        self.registered.clear()
        self._events = events = pynvml.nvmlEventSetCreate()
        self.registered.wait()  # no wait for the events of nobody
        while not self.ending:
            try:
                event = pynvml.nvmlEventSetWait_v2(events, _EVENT_WAIT)
            except pynvml.NVMLError_Timeout:
                self._failed = False
                continue
            if event.eventType == pynvml.nvmlEventTypeXidCriticalError:
                board = self._worker.by_handle.get(_address(event.device))
                uuid = board.uuid if board is not None else pynvml.nvmlDeviceGetUUID(event.device)
                of_slice = board is not None and board.is_sliced and event.gpuInstanceId != _NO_INSTANCE
                instance = {"gpuInstance": event.gpuInstanceId} if of_slice else {}
                self._worker.out(xid=event.eventData, uuid=uuid, **instance)


def _why_not_loaded() -> str:
    """What the loader says, which pynvml keeps to itself: no such file, too short, made for another C library, …"""
    try:
        CDLL("libnvidia-ml.so.1")
    except OSError as error:
        return str(error)
    return "found by now"


def _give_up(failure: threading.ExceptHookArgs) -> None:
    threading.__excepthook__(failure)
    os._exit(70)  # rather than go on as if a GPU did not answer


def main() -> None:
    """Serves the agent until it ends."""
    threading.excepthook = _give_up
    out = _Out(os.dup(1))
    os.dup2(2, 1)  # whatever the library prints is no answer
    worker = Worker(out)
    for line in sys.stdin:
        worker.ask(int(line))
    worker.end()
    os._exit(0)  # threads may hang in the driver


if __name__ == "__main__":
    main()
