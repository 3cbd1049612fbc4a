"""Prometheus within one gathering: looked for while the pods are read, asked when they are known, never waited for long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import partial

import msgspec

from kubectl_llmdoctor.errors import AccessError, UsageError
from kubectl_llmdoctor.gather.collector import Collector
from kubectl_llmdoctor.gather.connection import Endpoint
from kubectl_llmdoctor.gather.failure import RequestError, Why
from kubectl_llmdoctor.gather.prometheus import ask, options, queries
from kubectl_llmdoctor.gather.prometheus.ask import Source
from kubectl_llmdoctor.gather.prometheus.find import Candidate, Found, find
from kubectl_llmdoctor.gather.prometheus.queries import PodRef
from kubectl_llmdoctor.gather.transport import STALE, Client
from kubectl_llmdoctor.gather.wanted import WantedPrometheus
from kubectl_llmdoctor.gather.workers import Workers
from kubectl_llmdoctor.snapshot import Json

_SOURCE = "prometheus"

#: Seconds that one query may take, and after which no further one is begun.
_TIMEOUT, _PATIENCE = 3.0, 4.0

#: Servers that are asked, when the first ones do not know the pods.
_CANDIDATES = 3


class Prometheus:
    """One gathering's Prometheus."""

    def __init__(self, pot: Collector, wanted: WantedPrometheus, namespaces: Iterable[str]) -> None:
        self._pot = pot
        self._wanted = wanted
        self._namespaces = tuple(namespaces)
        #: None while, and where, the cluster could not be looked through
        self._found: Found | None = None
        self._ready = threading.Event()
        self._until = float("inf")
        self._clients: list[Client] = []
        self._more = options.headers(wanted) if wanted.where == "auto" else ()
        # What is wrong with an address or a file that somebody gave is said before anything is read.
        self._given = self._source_at(options.endpoint(wanted)) if wanted.where != "auto" else None

    def look(self) -> None:
        """Looks for it on another thread; what follows waits for that."""

        def work() -> None:
            try:
                if self._given is None:
                    self._found = find(self._pot, self._namespaces)
                if self._given or (self._found and self._found.candidates):
                    ask.load()
            finally:
                self._ready.set()

        self._pot.task(_SOURCE, "", work, leads=False)

    def ask(self, pods: list[PodRef], then: Callable[[set[tuple[str, str]]], None]) -> None:
        """Asks about the pods; `then` gets the namespaces and names of those whose engines' metrics it does not have."""
        every = {(pod.namespace, pod.name) for pod in pods if pod.engines}

        def work() -> None:
            unknown = every
            try:
                if pods:
                    unknown = every - self._ask(pods)
            finally:
                then(unknown)

        self._pot.task(_SOURCE, "", work)

    def close(self) -> None:
        """Closes the connections."""
        for client in self._clients:
            client.close()

    def _ask(self, pods: list[PodRef]) -> frozenset[tuple[str, str]]:
        """Queues the questions; returns the pods whose engines are known to the server that is asked."""
        best: tuple[Source, datetime, queries.Found] | None = None
        asked = []
        for source in self._sources():
            # From the first question on; the search before it has its own limits.
            self._until = min(self._until, time.monotonic() + _PATIENCE)
            if time.monotonic() > self._until:
                break
            self._pot.say(f"asking Prometheus ({source.name})")
            try:
                answer = source.instant(queries.probe(pods))
            except RequestError as error:
                self._pot.miss(_SOURCE, source.name, self._reason(error))
                continue
            self._warn(source, answer)
            asked.append(source.name)
            found = queries.found(answer["series"], pods)
            if found.styles and (best is None or found.pods):
                best = source, datetime.fromisoformat(answer["end"]), found
            if found.pods:
                break
        if best is None:
            if asked:
                self._pot.miss(_SOURCE, ", ".join(asked), "has no series of these pods")
            return frozenset()
        source, now, found = best
        self._skew(source, now)
        most = queries.PODS * queries.PARTS
        if len(pods) > most:
            self._pot.miss(_SOURCE, source.name, f"asked about the first {most} of {len(pods)} pods only")
        for question in queries.questions(pods, found.styles):
            ref = f"{source.name}, {question.about}"
            self._pot.task(_SOURCE, ref, partial(self._series, source, question, now), leads=False)
        return found.pods

    def _series(self, source: Source, question: queries.Question, now: datetime) -> None:
        if time.monotonic() > self._until:
            raise RequestError(Why.TIMEOUT, f"not asked: the answers before took {_PATIENCE:g} s")
        answer = source.range(question.promql, now, queries.WINDOW, question.step, queries.LIMIT)
        self._warn(source, answer)
        if answer["series"]:
            self._pot.prometheus.append(answer)

    def _sources(self) -> Iterator[Source]:
        """The servers to ask, the best first."""
        self._ready.wait(self._pot.client.timeout + _TIMEOUT)
        if self._given is not None:
            yield self._given
        elif self._found is not None:
            for one in self._found.candidates[:_CANDIDATES]:
                yield self._source(f"Service {one.ref}", _proxied(self._pot.client.endpoint, one, self._more))
            if not self._found.candidates:
                where = f"; Services of all namespaces: {self._found.unread}" if self._found.unread else ""
                self._pot.miss(_SOURCE, "", f"none found{where}")

    def _source_at(self, endpoint: Endpoint) -> Source:
        try:
            return self._source(endpoint.server, endpoint)
        except AccessError as error:
            raise UsageError(f"--prometheus {endpoint.server}: {error}") from None

    def _source(self, name: str, endpoint: Endpoint) -> Source:
        source = _source(name, endpoint, self._pot.client)
        self._clients.append(source.client)
        return source

    def _reason(self, error: RequestError) -> str:
        if error.why == Why.UNAUTHORIZED and self._given is None:
            return (
                f"{error.reason}; the API server passes no credentials on to it: give its address with --prometheus URL"
            )
        return error.reason

    def _warn(self, source: Source, answer: Json) -> None:
        for text in answer["warnings"]:
            self._pot.miss(_SOURCE, source.name, text)

    def _skew(self, source: Source, now: datetime) -> None:
        """The series are asked for by the server's own clock; a difference is said, because events have another."""
        apart = abs((datetime.now(UTC) - now).total_seconds())
        if apart > 120:
            self._pot.miss(_SOURCE, source.name, f"its clock and this one are {apart:.0f} s apart; its own is used")


def reachable(client: Client, namespace: str) -> tuple[bool, str]:
    """Whether a Prometheus of the cluster answers this user, and which, or why none does. Raises RequestError."""
    pot = Collector(client, Workers(1), None)
    found = find(pot, [namespace])
    more = options.headers(WantedPrometheus()) if found.candidates else ()
    said = "none found" + (f"; Services of all namespaces: {found.unread}" if found.unread else "")
    for one in found.candidates[:_CANDIDATES]:
        source = _source(f"Service {one.ref}", _proxied(client.endpoint, one, more), client)
        try:
            source.instant("vector(1)")
        except RequestError as error:
            said = f"{source.name}: {error.reason}"
        else:
            return True, source.name
        finally:
            source.client.close()
    return False, said


def _proxied(endpoint: Endpoint, one: Candidate, more: tuple[tuple[str, str], ...]) -> Endpoint:
    return msgspec.structs.replace(endpoint, server=endpoint.server + one.proxy_path, headers=more)


def _source(name: str, endpoint: Endpoint, client: Client) -> Source:
    """`client`: the one whose limits of time hold here as well."""
    limit = min(_TIMEOUT, client.timeout)
    made = Client(
        endpoint, limit, expected=ask.EXPECTED, most_bytes=ask.MOST_BYTES, retries=STALE, deadline=client.deadline
    )
    return Source(name, made)
