"""A few threads for tasks that start further tasks."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable

from kubectl_llmdoctor.errors import LlmdoctorError


class Workers:
    """Runs tasks on daemon threads: neither an interrupt nor a failed start waits for a server that is silent."""

    def __init__(self, size: int, meanwhile: Iterable[object] = ()) -> None:
        """`meanwhile` is gone through, item by item, by whoever waits for tasks."""
        self._size = size
        self._meanwhile = iter(meanwhile)
        self._spare = True
        self._lock = threading.Condition()
        self._tasks: deque[tuple[Callable[[], None], bool]] = deque()
        self._threads = 0
        self._idle = 0
        self._open = 0
        self._leading = 0
        self._stopped = False
        self._fatal: BaseException | None = None

    def submit(self, task: Callable[[], None], *, leads: bool = True) -> None:
        """Queues a task; a task may submit others, unless it says that it `leads` to none."""
        with self._lock:
            if self._stopped:
                return
            self._tasks.append((task, leads))
            self._open += 1
            self._leading += leads
            if self._idle < len(self._tasks) and self._threads < self._size:
                self._threads += 1
                threading.Thread(target=self._run, daemon=True).start()
            self._lock.notify()

    def drain(self) -> None:
        """Waits until no task is left; raises what ended one of them as soon as it did."""
        self._wait(lambda: self._open)

    def settle(self) -> None:
        """Like `drain`, but does not wait for tasks that lead to no others, such as long logs."""
        self._wait(lambda: self._leading)

    def _wait(self, left: Callable[[], int]) -> None:
        while True:
            with self._lock:
                while left() and self._fatal is None and not self._spare:
                    self._lock.wait()
                if self._fatal is not None:
                    raise self._fatal
                if not left():
                    return
            self._spare = next(self._meanwhile, self) is not self

    def stop(self) -> None:
        """Forgets the tasks that have not begun and lets the threads end."""
        with self._lock:
            self._stopped = True
            self._open -= len(self._tasks)
            self._leading -= sum(leads for _, leads in self._tasks)
            self._tasks.clear()
            self._lock.notify_all()

    def _run(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
                while not self._tasks and not self._stopped:
                    self._lock.wait()
                self._idle -= 1
                if self._stopped:
                    return
                task, leads = self._tasks.popleft()
            fatal: BaseException | None = None
            try:
                task()
            except (LlmdoctorError, Exception) as error:  # noqa: BLE001  (raised again where drain() is called)
                fatal = error
            with self._lock:
                self._open -= 1
                self._leading -= leads
                self._fatal = self._fatal or fatal
                self._lock.notify_all()
