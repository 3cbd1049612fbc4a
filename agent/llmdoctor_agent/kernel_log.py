"""What the kernel's log says of GPUs, PCIe and memory, from /dev/kmsg, with the time of day.

A record (Linux, Documentation/ABI/testing/dev-kmsg) is `PRIORITY,SEQUENCE,MICROSECONDS,FLAGS[,…];TEXT`, followed by
lines ` KEY=value` that say which device it is about.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from llmdoctor_agent.report import Error

#: What is kept.
_WANTED = re.compile(
    # NVRM: Xid (PCI:0000:3b:00): 79, pid=1234, …   nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 20034, Fatal, …
    # amdgpu 0000:c1:00.0: amdgpu: …   [drm:amdgpu_job_timedout [amdgpu]] *ERROR* …   segfault … in libnccl.so.2[…]
    rb"^(?:NVRM|nvidia|nv_peer_mem|gdrdrv|amdgpu|kfd kfd: amdgpu|\[drm.{0,40}amdgpu)|S?Xid \(| in lib(?:nvidia|cuda|nccl)|"
    # pcieport 0000:00:1d.0: AER: Corrected error received: …   PCIe Bus Error: severity=Corrected, …
    # device [8086:a29e] error status/mask=…   pcieport 0000:00:1d.0:    [ 0] RxErr   TLP Header: …
    # pcieport 0000:00:1d.0: pciehp: Slot(3): Link Down   pcieport 0000:00:01.0: DPC: containment event, …
    rb"AER: |PCIe Bus Error: |error status/mask=|^\S+ [0-9a-f]{4}:[^ ]+:\s+\[ *\d+\] |TLP Header: |pciehp: |DPC: |"
    # the firmware's own account: {1}[Hardware Error]:  section_type: PCIe error
    rb"\[Hardware Error\]: +(?:event severity: |section_type: PCIe|device_id: |aer_)|"
    # python3 invoked oom-killer: …   oom-kill:constraint=CONSTRAINT_MEMCG,…   oom_reaper: reaped process …
    # Memory cgroup out of memory: Killed process …   Tasks in … are going to be killed due to memory.oom.group set
    rb"invoked oom-killer:|^oom-kill:|[Oo]ut of memory|Kill(?:ed)? process |^oom_reaper: |memory\.oom\.group|"
    rb"as a result of limit of|^memory: usage \d|^Memory cgroup stats for "
)
#: What makes two lines of one sort: an Xid's number and GPU; else the beginning, in which a device's address stands.
_SORT = re.compile(rb".*?Xid \([^)]{0,40}\): \d+|.{0,20}", re.DOTALL)
#: After `Memory cgroup stats for PATH:` the kernel writes the memory.stat of the cgroup whose limit was hit, a line each:
#: `shmem 20401094656` tells a full /dev/shm from a heap.
_STATS = b"Memory cgroup stats for "
_STAT = re.compile(rb"(?:total_)?(?:anon|rss|file|cache|shmem|kernel|slab|unevictable) \d+$")

_RECORD = re.compile(rb"(\d{1,10}),(\d{1,20}),(\d{1,16}),([^;]*);(.*)", re.DOTALL)
_UNPRINTABLE = re.compile(rb"[^ -~]")
#: the log is read a record at a time; the kernel's longest takes 8 KiB
_READ = 1 << 14
_NEEDS = "it needs CAP_SYSLOG and access to the device"


class _Record(msgspec.Struct):
    sequence: int
    time: str
    text: str
    size: int = 0

    def __post_init__(self) -> None:
        self.size = len(self.time) + len(self.text) + 1


class KernelLog:
    """The records of a kernel log that are kept, read on from where the last reading stopped.

    A record has only the kernel's monotonic clock, which stands still while the machine sleeps and is not corrected as
    the time of day is. What is read soon after it was written is dated between two readings. What was there before the
    first one is dated by the clock's present offset; it has no time if the machine slept since.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int = 65536,
        deadline_s: float = 2.0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        uptime: Callable[[int], float] = time.clock_gettime,
    ) -> None:
        self.path, self.deadline_s = path, deadline_s
        self._clock, self._uptime = clock, uptime
        self._kept: dict[bytes, deque[_Record]] = {}
        self._sizes: dict[bytes, int] = {}
        self._room = max_bytes
        self._file: int | None = None
        self._rest = b""
        self._last = -1
        self._previous: _Record | None = None
        self._in_stats = False
        self._read_at: datetime | None = None
        self._slept = 0.0

    def read(self) -> tuple[str | None, Error | None]:
        """The lines, oldest first, each `2026-11-20T09:58:01.123456Z TEXT`; without the time where it is not known.

        None where the log cannot be read.
        """
        now = self._clock()
        awake = self._uptime(time.CLOCK_MONOTONIC)
        offset, slept = now - timedelta(seconds=awake), self._uptime(time.CLOCK_BOOTTIME) - awake
        has_slept = abs(slept - self._slept) >= 1
        try:
            complete = self._read_on(lambda usec: "" if has_slept else self._time(offset, usec, now))
        except OSError as e:
            self.close()
            return None, self._error(
                f"{self.path}: {e.strerror}" + (f" ({_NEEDS})" if isinstance(e, PermissionError) else "")
            )
        if complete:
            self._read_at, self._slept = now, slept
        records = sorted(
            (record for kept in self._kept.values() for record in kept), key=lambda record: record.sequence
        )
        text = "".join(f"{record.time}{record.text}\n" for record in records)
        return text, None if complete else self._error(
            f"more than {self.deadline_s:g} s can read; the next reading goes on"
        )

    def _error(self, reason: str) -> Error:
        return Error(source="kernel-log", reason=reason, fields=("kernelLog",))

    def close(self) -> None:
        """Closes the log; a later reading opens it again and passes over what it knows."""
        if self._file is not None:
            os.close(self._file)
        self._file, self._rest = None, b""

    def _time(self, offset: datetime, usec: int, now: datetime) -> str:
        moment = min(offset + timedelta(microseconds=usec), now)
        if self._read_at:
            moment = max(moment, self._read_at)
        return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z ")

    def _read_on(self, dated: Callable[[int], str]) -> bool:
        """Reads what is there; whether that was all."""
        if self._file is None:
            self._file = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        end = time.monotonic() + self.deadline_s
        while time.monotonic() < end:
            try:
                found = os.read(self._file, _READ)
            except BlockingIOError:
                return True
            except BrokenPipeError:  # records were overwritten before they were read; the next read goes on behind them
                self._rest = b""
                continue
            if not found:
                return True
            *lines, self._rest = (self._rest + found).split(b"\n")
            self._rest = self._rest[-_READ:]
            for line in lines:
                self._take(line, dated)
        return False

    def _take(self, line: bytes, dated: Callable[[int], str]) -> None:
        record = _RECORD.match(line)
        if not record or int(record[1]) >> 3:
            # a line about the device; or not the kernel's own (facility 0): any process that may open the device can
            # write to it, and the kernel sees to it that those records have another facility
            return
        text, sequence = record[5], int(record[2])
        if sequence <= self._last:
            return
        self._last = sequence
        if record[4].startswith(b"+"):  # a piece of the line before (Linux before 4.10)
            if self._previous:
                self._previous.text += _readable(text)
            return
        self._previous = None
        # one message may have several lines: `NVRM: The NVIDIA GPU 0000:18:00.0\x0aNVRM: …`
        for part in text.split(rb"\x0a"):
            if sort := self._sort(part):
                self._previous = self._keep(sort, _Record(sequence, dated(int(record[3])), _readable(part)))

    def _sort(self, text: bytes) -> bytes | None:
        """What a line counts as; None if it is not kept."""
        if _WANTED.search(text):
            self._in_stats = text.startswith(_STATS)
            found = _SORT.match(text)
            return found[0] if found else text
        return _STATS if self._in_stats and _STAT.match(text) else None

    def _keep(self, sort: bytes, record: _Record) -> _Record:
        """Adds a record. What is too much is taken from the sort that takes most room, the oldest first.

        So a flood of one error does not push out the others: corrected PCIe errors come by the thousand, as do Xids 13.
        """
        self._kept.setdefault(sort, deque()).append(record)
        self._sizes[sort] = self._sizes.get(sort, 0) + record.size
        self._room -= record.size
        while self._room < 0:
            largest = max(self._sizes, key=self._sizes.__getitem__)
            gone = self._kept[largest].popleft().size
            self._room += gone
            self._sizes[largest] -= gone
            if not self._kept[largest]:
                del self._kept[largest], self._sizes[largest]
        return record


def _readable(text: bytes) -> str:
    """A record's text. The kernel writes all but printable ASCII as `\\xNN`, and the backslash itself, which is undone."""
    plain = _UNPRINTABLE.sub(lambda found: b"\\x%02x" % ord(found[0]), text)
    return plain.replace(rb"\x09", b" ").replace(rb"\x5c", b"\\").decode("ascii")
