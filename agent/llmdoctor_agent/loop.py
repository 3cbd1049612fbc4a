"""Reads the node again and again, and keeps the last report."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from llmdoctor_agent.report import Report

_LOG = logging.getLogger(__name__)

#: Seconds that two readings lie apart at least, whoever asks for them: what a request can cost the node.
APART = 2.0


class Loop:
    """Calls `read` every `interval` seconds on a thread of its own, or sooner when somebody asks."""

    def __init__(self, read: Callable[[], Report], interval: float) -> None:
        self._read = read
        self._interval = interval
        self._changed = threading.Condition()
        self._wanted = False
        self._stopped = False
        self._last: Report | None = None
        self._count = 0
        self._ended = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="readings", daemon=True)

    def start(self) -> None:
        """Begins with the first reading."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Ends after the reading that runs, or after some seconds without its end."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(seconds)

    @property
    def last(self) -> Report | None:
        """The last report; None before the first one."""
        with self._changed:
            return self._last

    @property
    def idle_seconds(self) -> float:
        """How long ago the last reading ended, or the agent started."""
        with self._changed:
            return time.monotonic() - self._ended

    def fresh(self, seconds: float) -> Report | None:
        """A report that is finished from now on, or the last one where that takes longer than some seconds."""
        with self._changed:
            count = self._count
            self._wanted = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._count > count or self._stopped, seconds)
            return self._last

    def _run(self) -> None:
        while True:
            with self._changed:
                self._wanted = False
                if self._stopped:
                    return
            report = self._attempt()
            with self._changed:
                if report is not None:
                    self._last = report
                    self._count += 1
                    self._ended = time.monotonic()
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._stopped, APART)
                self._changed.wait_for(lambda: self._stopped or self._wanted, max(self._interval - APART, 0))

    def _attempt(self) -> Report | None:
        """One report. What nobody foresaw is written down and costs this reading only; `/healthz` tells when it stays."""
        try:
            return self._read()
        except Exception:  # noqa: BLE001 # logged; the loop must go on
            _LOG.exception("a reading failed")
            return None
