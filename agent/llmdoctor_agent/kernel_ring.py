"""The kernel's log by syslog(2) instead of /dev/kmsg.

A container that is not privileged may not open the device, whatever capability it has, for its device cgroup refuses
it. The call needs CAP_SYSLOG alone, and the default seccomp profiles of containerd, CRI-O and Docker let it through
where that is given.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable
from pathlib import Path

from llmdoctor_agent.kernel_log import KernelLog

#: `<PRIORITY>[  SECONDS.MICROSECONDS] TEXT`; the time is missing with `printk.time=0`, a caller follows it with
#: CONFIG_PRINTK_CALLER
_LINE = re.compile(rb"<(\d{1,10})>(?:\[ *(\d{1,10})\.(\d{6})\](?:\[ *[TC]\d+\])? )?(.*)")

_READ_ALL, _SIZE_BUFFER = 3, 10

#: the most that is read of a log, the newest
_MOST = 4 << 20

#: bytes of the end of a reading by which the next one finds where it stopped
_TAIL = 4096


def read_all() -> bytes:
    """What the kernel keeps of its log. Raises OSError."""
    library = ctypes.CDLL(None, use_errno=True)
    size = min(_called(library, _SIZE_BUFFER, None, 0), _MOST)
    buffer = ctypes.create_string_buffer(size)
    length = _called(library, _READ_ALL, buffer, size)
    return buffer.raw[:length]


def _called(library: ctypes.CDLL, action: int, buffer: ctypes.Array[ctypes.c_char] | None, size: int) -> int:
    result: int = library.klogctl(action, buffer, size)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


class KernelRing(KernelLog):
    """A kernel log that is read as a whole each time, and on from where the last reading stopped."""

    def __init__(self, read_all: Callable[[], bytes] = read_all) -> None:
        super().__init__(Path("syslog(2)"))
        self._read_all = read_all
        self._tail = b""

    def _read_on(self, dated: Callable[[int], str]) -> bool:
        text = self._read_all()
        text = text[: text.rfind(b"\n") + 1]
        found = text.rfind(self._tail) if self._tail else -1
        new = text[found + len(self._tail) :] if found >= 0 else text
        self._tail = text[-_TAIL:]
        for line in new.splitlines():
            if (record := _LINE.fullmatch(line)) is None:
                continue
            priority, seconds, micros, words = record.groups()
            usec = None if seconds is None else int(seconds) * 10**6 + int(micros)
            # the form of a record of /dev/kmsg; what is read here has no numbers, and comes in order and once
            self._take(
                b"%s,%d,%d,-;%s" % (priority, self._last + 1, usec or 0, words),
                dated if usec is not None else (lambda _: ""),
            )
        return True
