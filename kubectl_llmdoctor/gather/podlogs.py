"""The logs of a pod's containers: which there are, and how much of them all together is kept."""

from __future__ import annotations

import threading

from kubectl_llmdoctor.gather import kinds, logs, related
from kubectl_llmdoctor.gather.collector import Collector
from kubectl_llmdoctor.gather.failure import RequestError, Why
from kubectl_llmdoctor.gather.related import LogRequest, key_of, name_of, namespace_of
from kubectl_llmdoctor.gather.times import has_kubelet_times
from kubectl_llmdoctor.gather.transport import query
from kubectl_llmdoctor.snapshot import Json, LogText

#: All logs together are kept up to so many times the cap of one.
_BUDGET = 8

_MIN_BYTES = 2**20

#: A log that still comes in after so many request timeouts is cut.
_TIMEOUTS = 6


#: How a kubelet says that it has no such log.
_NO_SUCH_LOG = (Why.OTHER, Why.NOT_FOUND, Why.NO_SUCH_KIND)


class PodLogs:
    """Reads logs; each of at most `cap` bytes."""

    def __init__(self, pot: Collector, cap: int) -> None:
        self._pot = pot
        self._cap = cap
        self._budget = _BUDGET * cap
        self._lock = threading.Lock()

    def of(self, pod: Json) -> None:
        """Reads the logs of a pod's containers, once."""
        if not self._pot.once("logs", namespace_of(pod), name_of(pod)):
            return
        wanted = list(related.log_requests(pod))
        if wanted:
            count = len({request.container for request in wanted})
            self._pot.say(f"reading logs of {count} container{'s' * (count > 1)} of {name_of(pod)}")
        for request in wanted:
            self._log(pod, request)

    def _log(self, pod: Json, request: LogRequest) -> None:
        namespace, name = key_of(pod)
        ref = f"{namespace}/{name}/{request.container}" + (" (previous)" if request.previous else "")

        def work() -> None:
            try:
                found = self._read_log(namespace, name, request.container, previous=request.previous)
                previous = request.previous
                if request.else_current and not found.text:
                    found = self._read_log(namespace, name, request.container, previous=False)
                    previous = not found.text
            except RequestError as error:
                if error.why == Why.FORBIDDEN:  # all logs of the pod are
                    self._pot.miss("logs", f"{namespace}/{name}", error.reason)
                    return
                if not request.else_current or error.why not in _NO_SUCH_LOG:
                    raise
                found = self._read_log(namespace, name, request.container, previous=False)
                previous = False
            if found.trouble is not None:
                self._pot.miss("logs", ref, f"{found.trouble.reason}; what came before is kept")
            self._pot.logs.append(
                LogText(
                    text=found.text,
                    namespace=namespace,
                    pod=name,
                    container=request.container,
                    previous=previous,
                    restart=request.restart,
                    timestamps=has_kubelet_times(found.text),
                    cut=found.cut,
                )
            )

        self._pot.task("logs", ref, work, leads=False)

    def _read_log(self, namespace: str, pod: str, container: str, *, previous: bool) -> logs.LogRead:
        """The log; once more from its beginning where the connection breaks, the longer of the two is kept."""
        first = None
        try:
            first = self._stream(namespace, pod, container, previous=previous)
            if first.trouble is None or first.trouble.why != Why.BROKEN:
                return first
        except RequestError as error:
            if error.why != Why.BROKEN:
                raise
        try:
            second = self._stream(namespace, pod, container, previous=previous)
        except RequestError:
            if first is None:
                raise
            return first
        return first if first and second.trouble and len(second.text) < len(first.text) else second

    def _stream(self, namespace: str, pod: str, container: str, *, previous: bool) -> logs.LogRead:
        (path,) = kinds.POD.paths(namespace, pod)
        asked = query(container=container, previous="true" if previous else "", timestamps="true")
        seconds = _TIMEOUTS * self._pot.client.timeout
        with self._lock:
            share = max(min(self._cap, self._budget // 2), min(_MIN_BYTES, self._cap))
            self._budget -= share
        used = 0
        try:
            found = logs.read(self._pot.client.stream(f"{path}/log", asked, seconds=seconds), share)
            used = len(found.text)
        finally:
            with self._lock:
                self._budget += share - used
        return found
