"""What NVML says of the GPUs of this node, without ever waiting for it longer than a deadline.

The calls are made by a process of their own (`nvml_worker.py`). Here is what has to outlive it: the names of GPUs that
do not answer any more, the samples before the last, the Xids; and when it is time for a new one: after an error of the
library, when the driver or the devices have changed, when it hangs as a whole.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import IO, Any, cast

import msgspec

from llmdoctor_agent.report import Error, Gpu, Xid, clock, rfc3339

#: How many Xids are kept of one GPU, the newest.
XIDS = 100

#: A worker that has not answered at all for so long is replaced, seconds. Without persistence mode, starting NVML takes
#: seconds per GPU.
_HANGS = 120.0

#: How long a worker may take to let go of the GPUs before it is killed, seconds; that is quick with persistence mode.
_END = 8.0


@dataclass(frozen=True)
class Reading:
    """What NVML said. `gpus` is None where not even their number is known; `errors` then say why."""

    driver_version: str | None = None
    cuda_version: str | None = None
    nvml_version: str | None = None
    gpus: tuple[Gpu, ...] | None = None
    errors: tuple[Error, ...] = ()


@dataclass
class _Sample:
    """The counters of a GPU as they were read last, at a time of the monotonic clock, seconds."""

    at: float = 0.0
    replays: int | None = None
    link_errors: Mapping[int, int] = field(default_factory=dict)
    #: when each reason for a lower clock was first seen, of those that were seen ever since
    throttled_since: Mapping[str, str] = field(default_factory=dict)

    def per_minute(self, before: int | None, now: int | None, at: float) -> float | None:
        """None where there is no change to speak of: one value only, or a counter that began anew."""
        if before is None or now is None or now < before or at <= self.at:
            return None
        return round((now - before) / (at - self.at) * 60, 3)


class _Worker:
    """One process with NVML, and what it has answered; `heard` guards it. Raises `OSError` if it cannot be started."""

    def __init__(self, heard: threading.Condition, on_xid: Callable[[str, int, int | None], None]) -> None:
        #: the last answer of each that answers: `system`, and GPUs by their index
        self.answers: dict[str | int, dict[str, Any]] = {}
        #: who has not answered in time and not since, and when it was asked
        self.silent: dict[str | int, float] = {}
        #: pairs that cannot reach each other, by indexes as text, with the reason
        self.no_p2p: dict[str, dict[str, str]] = {}
        #: why Xids of a GPU are not heard of, by its UUID; of no UUID if of none
        self.deaf: dict[str, str] = {}
        self.count_changed = False
        #: how the process ended
        self.ended = ""
        self._asked_to_end = 0.0
        self._heard = heard
        self._on_xid = on_xid
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "llmdoctor_agent.nvml_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # a Ctrl-C is for the agent, which then ends it
        )
        threading.Thread(target=self._hear, daemon=True).start()

    def ask(self, number: int) -> None:
        """Asks for a reading. That it has ended is said by `ended`."""
        with contextlib.suppress(OSError):
            cast(IO[bytes], self._process.stdin).write(b"%d\n" % number)

    def _hear(self) -> None:
        with io.BufferedReader(cast(io.RawIOBase, self._process.stdout)) as lines:
            for line in lines:
                with self._heard:
                    self._take(msgspec.json.decode(line))
                    self._heard.notify_all()
        status = self._process.wait()
        with self._heard:
            self.ended = f"signal {-status}" if status < 0 else f"exit code {status}"
            self._heard.notify_all()

    def _take(self, message: dict[str, Any]) -> None:
        if "xid" in message:
            self._on_xid(message["uuid"], message["xid"], message.get("gpuInstance"))
        elif "events" in message:
            for uuid in {"", message["uuid"]}:  # one that is heard again is so with a new set of events
                self.deaf.pop(uuid, None)
            if message["events"]:
                self.deaf[message["uuid"]] = message["events"]
        elif "noP2p" in message:
            self.no_p2p = message["noP2p"]
        else:
            who = message.get("index", "system")
            before = self.count
            self.answers[who] = message
            self.silent.pop(who, None)
            self.count_changed |= before is not None and before != self.count

    @property
    def count(self) -> int | None:
        """How many GPUs it says there are; None if it has not said."""
        count: int | None = self.answers.get("system", {}).get("system", {}).get("count")
        return count

    @property
    def _everybody(self) -> list[str | int]:
        return ["system", *range(self.count or 0)]

    def has_answered(self, who: str | int, number: int) -> bool:
        return self.answers.get(who, {}).get("read") == number

    def is_complete(self, number: int) -> bool:
        """Whether all have answered this reading, but those that did not answer the one before either."""
        return all(self.has_answered(who, number) or who in self.silent for who in self._everybody)

    def mark_silent(self, number: int, asked: float) -> None:
        for who in self._everybody:
            if not self.has_answered(who, number):
                self.silent.setdefault(who, asked)

    def silence(self, who: str | int) -> str:
        return f"timeout: no answer for {time.monotonic() - self.silent[who]:.0f} s"

    def hangs(self) -> bool:
        """Whether nobody has answered for so long that only a new process can help."""
        now = time.monotonic()
        return all(now - self.silent.get(who, now) > _HANGS for who in self._everybody)

    def end(self) -> None:
        """Asks it to end."""
        self._asked_to_end = time.monotonic()
        cast(IO[bytes], self._process.stdin).close()

    def has_ended(self, seconds: float) -> bool:
        """Waits for its end; kills it if that is overdue, which is in vain while it hangs in the driver."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            if time.monotonic() - self._asked_to_end >= _END:
                self._process.kill()
            return False
        return True


class Nvml:
    """Reads NVML. Start it once; it needs neither a GPU nor a driver nor the library, then or later.

    `deadline_s` bounds one `read`, which one thread at a time may call. After a failure NVML is started again at the
    first reading that is `retry_s` later. `sysfs` is where the kernel shows its devices; that they have changed is seen
    there, since NVML sees only those that it was started with.
    """

    def __init__(
        self,
        deadline_s: float = 5.0,
        clock: Callable[[], datetime] = clock,
        *,
        retry_s: float = 60.0,
        sysfs: Path = Path("/sys"),
    ) -> None:
        self._deadline = deadline_s
        self._clock = clock
        self._retry = retry_s
        self._sysfs = sysfs
        self._heard = threading.Condition()
        self._worker: _Worker | None = None
        #: the worker of before, until it has ended; there is no new one beside it, since it may hang in the driver
        self._ending: _Worker | None = None
        self._next_start = 0.0
        self._devices: object = None
        self._number = 0
        #: the reading of before, repeated while there is no worker
        self._last = Reading()
        self._xids: dict[str, deque[Xid]] = {}
        self._samples: dict[str, _Sample] = {}
        #: the names of GPUs by index, as this worker gave them
        self._names: dict[int, Gpu] = {}
        #: the names of GPUs by UUID that were lost when they were last heard of, by whichever worker
        self._lost: dict[str, Gpu] = {}

    def start(self) -> None:
        """Begins to start NVML and returns."""
        self._ensure_worker()

    def stop(self) -> None:
        """Ends the worker, which takes as long as letting go of the GPUs, at most `_END` seconds and one."""
        self._replace(0.0)
        if self._ending is not None and not self._ending.has_ended(_END):
            self._ending.has_ended(1.0)

    def read(self) -> Reading:
        """What NVML says now, at the latest after the deadline; a GPU that did not answer until then is `timeout`."""
        end = time.monotonic() + self._deadline
        if self._devices_now() != self._devices:
            self._replace(0.0)
        self._ensure_worker()
        if (worker := self._worker) is None:
            return self._last
        self._number += 1
        number, asked = self._number, time.monotonic()
        worker.ask(number)
        with self._heard:
            self._heard.wait_for(lambda: worker.ended or worker.is_complete(number), end - asked)
            worker.mark_silent(number, asked)
            self._last, again = self._compose(worker, number)
        if again is not None:
            self._replace(again)
        return self._last

    def _ensure_worker(self) -> None:
        """Starts a worker if there is none and it is time for one."""
        if self._worker is not None or time.monotonic() < self._next_start:
            return
        if self._ending is not None and not self._ending.has_ended(self._deadline / 2):
            gpus = [
                msgspec.structs.replace(names, lost="timeout", xids=self._xids_of(names.uuid))
                for _, names in sorted(self._names.items())
            ]
            failure = _error("timeout: the process that called NVML does not end")
            self._last = Reading(gpus=tuple(gpus) or None, errors=(failure,))
            return
        self._ending = None
        self._devices = self._devices_now()
        self._names.clear()
        try:
            self._worker = _Worker(self._heard, self._on_xid)
        except OSError as error:
            self._next_start = time.monotonic() + self._retry
            self._last = Reading(errors=(_error(f"no process for NVML could be started: {error.strerror}"),))

    def _replace(self, after: float) -> None:
        """Ends the worker; another is started at the first reading that is `after` seconds later."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.end()
            self._ending = worker
        self._next_start = time.monotonic() + after

    def _devices_now(self) -> object:
        """Differs when GPUs have come or gone or the driver was loaded anew."""
        try:
            driver = (self._sysfs / "module/nvidia").stat().st_ino  # a new one for each time that it is loaded
        except OSError:
            driver = None
        return driver, sorted(path.name for path in self._sysfs.glob("bus/pci/drivers/nvidia/*:*"))

    def _module_version(self) -> str | None:
        """The version of the kernel module, which NVML does not tell where its library is of another one."""
        try:
            return (self._sysfs / "module/nvidia/version").read_text().strip() or None
        except OSError:
            return None

    def _on_xid(self, uuid: str, number: int, gpu_instance: int | None) -> None:
        xid = Xid(number=number, time=rfc3339(self._clock()), gpu_instance=gpu_instance)
        self._xids.setdefault(uuid, deque(maxlen=XIDS)).append(xid)

    def _compose(self, worker: _Worker, number: int) -> tuple[Reading, float | None]:
        """The reading, and after how many seconds NVML has to be started anew, None if it is well."""
        system = worker.answers.get("system", {})
        versions = system.get("system", {})
        reading = Reading(
            driver_version=versions.get("driverVersion", self._module_version()),
            cuda_version=versions.get("cudaVersion"),
            nvml_version=versions.get("nvmlVersion"),
        )
        failure = f"NVML ended its process with {worker.ended}" if worker.ended else system.get("failed", "")
        if failure:
            self._samples.clear()
            return replace(reading, errors=(_error(failure),)), self._retry
        errors = []
        if "system" in worker.silent:
            errors.append(_error(worker.silence("system")))
        errors += [_error(reason, gpu=uuid, fields=("xids",)) for uuid, reason in worker.deaf.items()]
        again = 0.0 if worker.hangs() or worker.count_changed else None
        if worker.count is None:
            return replace(reading, errors=tuple(errors)), again
        gpus = []
        for index in range(worker.count):
            gpu, its_errors = self._gpu(worker, index, number)
            gpus.append(gpu)
            errors += its_errors
        gpus = self._with_lost(gpus)
        self._samples = {gpu.uuid: self._samples[gpu.uuid] for gpu in gpus if gpu.uuid in self._samples}
        return replace(reading, gpus=tuple(gpus), errors=tuple(errors)), again

    def _gpu(self, worker: _Worker, index: int, number: int) -> tuple[Gpu, list[Error]]:
        """GPU `index` as it answered this time; only its names if it did not."""
        names = self._names.get(index, Gpu(index=index))
        if not worker.has_answered(index, number):
            gpu = msgspec.structs.replace(names, lost="timeout")
            self._samples.pop(gpu.uuid or "", None)
            return gpu, [_error(worker.silence(index), gpu=_called(gpu))]
        answer = worker.answers[index]
        gpu = msgspec.convert(answer["gpu"], Gpu)
        if gpu.uuid is None:
            gpu = msgspec.structs.replace(
                gpu, uuid=names.uuid, name=names.name, pci_bus_id=names.pci_bus_id, minor=names.minor
            )
        else:
            self._names[index] = Gpu(
                index=index, uuid=gpu.uuid, name=gpu.name, pci_bus_id=gpu.pci_bus_id, minor=gpu.minor
            )
        errors = [_error(reason, gpu=_called(gpu), fields=tuple(fields)) for reason, fields in answer["errors"]]
        gpu = msgspec.structs.replace(gpu, no_p2p=worker.no_p2p.get(str(index)), xids=self._xids_of(gpu.uuid))
        return self._compared(gpu, answer["at"]), errors

    def _xids_of(self, uuid: str | None) -> tuple[Xid, ...]:
        return tuple(self._xids.get(uuid or "", ()))

    def _compared(self, gpu: Gpu, at: float) -> Gpu:
        """With what only shows between two samples, the older of which was taken at the reading before."""
        if gpu.uuid is None:
            return gpu
        before = self._samples.get(gpu.uuid, _Sample())
        since = {
            reason: before.throttled_since.get(reason, rfc3339(self._clock())) for reason in gpu.throttle_reasons or ()
        }
        links = {link.link: link.errors for link in gpu.nvlinks or () if link.errors is not None}
        self._samples[gpu.uuid] = _Sample(at, gpu.pcie.replays if gpu.pcie else None, links, since)
        if gpu.pcie is not None:
            rate = before.per_minute(before.replays, gpu.pcie.replays, at)
            gpu = msgspec.structs.replace(gpu, pcie=msgspec.structs.replace(gpu.pcie, replays_per_minute=rate))
        if gpu.nvlinks is not None:
            gpu = msgspec.structs.replace(
                gpu,
                nvlinks=tuple(
                    msgspec.structs.replace(
                        link,
                        errors_per_minute=before.per_minute(before.link_errors.get(link.link), link.errors, at),
                    )
                    for link in gpu.nvlinks
                ),
            )
        return msgspec.structs.replace(gpu, throttled_since=since if gpu.throttle_reasons is not None else None)

    def _with_lost(self, gpus: list[Gpu]) -> list[Gpu]:
        """With the GPUs that were lost and that NVML, started anew since, does not show or cannot name any more."""
        for gpu in gpus:
            if gpu.uuid is not None and gpu.lost == "lost":
                self._lost[gpu.uuid] = Gpu(
                    uuid=gpu.uuid, name=gpu.name, pci_bus_id=gpu.pci_bus_id, minor=gpu.minor, lost="lost"
                )
            elif gpu.uuid is not None and gpu.lost is None:
                self._lost.pop(gpu.uuid, None)
        shown = {gpu.uuid for gpu in gpus}
        gone = [
            msgspec.structs.replace(gpu, xids=self._xids_of(gpu.uuid))
            for gpu in self._lost.values()
            if gpu.uuid not in shown
        ]
        nameless = [gpu for gpu in gpus if gpu.uuid is None]
        if not nameless:
            return [*gpus, *gone]
        if len(nameless) == len(gone) == 1:  # the same
            return [
                msgspec.structs.replace(gone[0], index=gpu.index, lost=gpu.lost) if gpu is nameless[0] else gpu
                for gpu in gpus
            ]
        return gpus


def _error(reason: str, gpu: str = "", fields: tuple[str, ...] = ()) -> Error:
    return Error(source="nvml", reason=reason, gpu=gpu, fields=fields)


def _called(gpu: Gpu) -> str:
    return gpu.uuid or gpu.pci_bus_id or f"index {gpu.index}"
