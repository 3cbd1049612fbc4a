"""Reads objects and lists in parallel into one pot; what fails becomes an entry of `missing`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from kubectl_llmdoctor.errors import LlmdoctorError
from kubectl_llmdoctor.gather import slim
from kubectl_llmdoctor.gather.discovery import served
from kubectl_llmdoctor.gather.failure import RequestError, Why
from kubectl_llmdoctor.gather.kinds import Kind
from kubectl_llmdoctor.gather.related import meta, name_of, namespace_of
from kubectl_llmdoctor.gather.transport import JSON, Client, query
from kubectl_llmdoctor.gather.workers import Workers
from kubectl_llmdoctor.snapshot import (
    Json,
    LogText,
    MetricsText,
    Missing,
    NodeData,
    PortAnswer,
    ReadList,
    Snapshot,
    TargetRef,
)

#: Objects on one page of a list, as kubectl has it.
PAGE = 500

METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

#: Annotations that repeat the whole object, secrets included.
_REPEATING = ("kubectl.kubernetes.io/last-applied-configuration",)

#: Stands for a value that was never asked for.
_UNREAD = "<masked:unread>"

Key = tuple[str, str, str, str]
T = TypeVar("T")
Progress = Callable[[str], None]


class Collector:
    """What has been read so far; every method may be called by any thread."""

    def __init__(self, client: Client, workers: Workers, progress: Progress | None) -> None:
        self.client = client
        self.workers = workers
        #: what was read beside objects: any thread appends to it
        self.logs: list[LogText] = []
        self.nodes: dict[str, NodeData] = {}
        self.metrics: list[MetricsText] = []
        self.prometheus: list[Json] = []
        self.answers: list[PortAnswer] = []
        self.missing: set[Missing] = set()
        self.read: set[ReadList] = set()
        self._progress = progress
        self._objects: dict[Key, Json] = {}
        self._slim: dict[Key, Json] = {}
        self._asked: set[Any] = set()
        self._lock = threading.Lock()
        self._served: dict[str, list[str]] = {}
        self._discovery = threading.Lock()

    # --- what has been read -------------------------------------------------------------------------------------------

    def objects(self) -> list[Json]:
        """All objects in a stable order: kind, namespace, name."""
        found = {**self._slim, **self._objects}
        return [found[key] for key in sorted(found, key=lambda key: (key[1], key[2], key[3], key[0]))]

    def whole(self) -> list[Json]:
        """The objects that were read in full."""
        with self._lock:
            return list(self._objects.values())

    def snapshot(self, asked: list[TargetRef]) -> Snapshot:
        """All of it, in an order that does not tell which answer came first; `asked` is what it is about."""
        return Snapshot(
            taken_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            target=asked[0] if asked else None,
            targets=tuple(asked[1:]),
            objects=tuple(self.objects()),
            read=tuple(sorted(self.read, key=lambda row: (row.kind, row.namespace, row.fields))),
            metrics=tuple(sorted(self.metrics, key=lambda one: (one.namespace, one.pod, one.container, one.taken_at))),
            prometheus=tuple(sorted(self.prometheus, key=lambda answer: (answer["source"], answer["query"]))),
            answers=tuple(
                sorted(self.answers, key=lambda one: (one.namespace, one.pod, one.port, one.method, one.path))
            ),
            logs=tuple(sorted(self.logs, key=lambda log: (log.namespace, log.pod, log.container, not log.previous))),
            nodes={name: self.nodes[name] for name in sorted(self.nodes)},
            missing=tuple(sorted(self.missing, key=lambda row: (row.source, row.ref, row.reason))),
        )

    def add(self, obj: Json, *, is_slim: bool = False) -> None:
        """Keeps an object, masked; of several answers about one object the first counts, a full before a slim one."""
        kind, api_version = str(obj.get("kind") or ""), str(obj.get("apiVersion") or "")
        key = (api_version.rpartition("/")[0], kind, namespace_of(obj), name_of(obj))
        if key in self._objects:
            return
        if not is_slim:
            from kubectl_llmdoctor.redact import mask_object

            obj = mask_object(_trimmed(obj))
        with self._lock:
            (self._slim if is_slim else self._objects).setdefault(key, obj)

    def once(self, *key: Any) -> bool:
        """Whether this is asked for the first time."""
        with self._lock:
            if key in self._asked:
                return False
            self._asked.add(key)
            return True

    def miss(self, source: str, ref: str, reason: str) -> None:
        """Notes that something could not be read."""
        with self._lock:
            self.missing.add(Missing(source=source, ref=ref, reason=reason))

    def mark(self, kind: str, namespace: str = "", fields: str = "") -> None:
        """Notes that a list is complete."""
        with self._lock:
            self.read.add(ReadList(kind=kind, namespace=namespace, fields=fields))

    def say(self, text: str) -> None:
        """Tells the user what is going on."""
        if self._progress is not None:
            with self._lock:
                self._progress(text)

    def installed(self, kind: Kind) -> Kind | None:
        """A custom kind in a version that the server has; None when it has none of its group. Asks the server once."""
        if not kind.group or "." not in kind.group:
            return kind
        with self._discovery:
            if self.once("discovery"):
                try:
                    self._served = served(self.client)
                except RequestError:  # then every kind is tried
                    self._served = {}
        if not self._served:
            return kind
        have = [version for version in kind.versions if version in self._served.get(kind.group, ())]
        return kind.at(have[0]) if have else None

    # --- reading ------------------------------------------------------------------------------------------------------

    def task(self, source: str, ref: str, work: Callable[[], None], *, leads: bool = True) -> None:
        """Does some work on another thread; its failure is noted, never raised, unless it ends the program.

        `leads`: whether it may lead to other tasks or objects.
        """

        def guarded() -> None:
            try:
                work()
            except LlmdoctorError:
                raise
            except RequestError as error:
                self.miss(source, ref, error.reason)
            except Exception as error:  # noqa: BLE001  (an answer of a shape that no one foresaw costs its source only)
                self.miss(source, ref, f"not understood: {type(error).__name__}: {error}")

        self.workers.submit(guarded, leads=leads)

    def get(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        then: Callable[[Json], None] | None = None,
        *,
        if_there: bool = False,
        metadata_only: bool = False,
    ) -> None:
        """Reads one object, once. That it does not exist is noted as a complete list of that name.

        `if_there`: only a guess, so that its absence means nothing, and a kind that the server has not is not asked for.
        `metadata_only`: nothing but the metadata leaves the server.
        """
        namespace = namespace if kind.namespaced else ""
        if not name or not self.once("get", kind.key, namespace, name):
            return
        ref = f"{namespace}/{name}" if namespace else name

        def work() -> None:
            there = self.installed(kind) if if_there else kind
            if there is None:
                return
            try:
                obj = self.fetch(there, namespace, name, accept=METADATA if metadata_only else JSON)
            except RequestError as error:
                if error.why == Why.NOT_FOUND:
                    self.mark(kind.kind, namespace, f"metadata.name={name}")
                elif error.why != Why.NO_SUCH_KIND or not if_there:
                    raise
                return
            if metadata_only:
                obj = metadata_object(obj, kind)
            self.add(obj)
            if then is not None:
                then(obj)

        self.task(kind.resource, ref, work)

    def fetch(self, kind: Kind, namespace: str, name: str, *, accept: str = JSON) -> Json:
        """One object, now. Raises RequestError."""

        def one(version: Kind) -> Json:
            (path,) = version.paths(namespace, name)
            obj = self.client.get(path, accept=accept, decode=msgspec.json.decode)
            if not isinstance(obj, dict) or not name_of(obj):
                raise RequestError(Why.BROKEN, "the answer is no object")
            return obj

        return _with_versions(kind, one)

    def get_list(
        self,
        kind: Kind,
        namespace: str,
        then: Callable[[list[Json]], None] | None = None,
        *,
        selector: str = "",
        fields: str = "",
        keep: Callable[[Json], bool] | None = None,
        limit: int = PAGE,
        if_there: bool = False,
        again: bool = False,
    ) -> None:
        """Reads one page of a list, once unless `again`; a list with more than `limit` objects is noted as incomplete.

        `keep` picks the objects that stay. A whole list without a selector or `keep` is noted as complete.
        """
        namespace = namespace if kind.namespaced else ""
        if not self.once("list", kind.key, namespace, selector, fields) and not again:
            return

        def work() -> None:
            there = self.installed(kind) if if_there else kind
            if there is None:
                return
            try:
                items, more = self.page(there, namespace, selector=selector, fields=fields, limit=limit)
            except RequestError as error:
                if error.why == Why.NO_SUCH_KIND and if_there:
                    return
                raise
            chosen = [item for item in items if keep is None or keep(item)]
            for item in chosen:
                self.add(item)
            if more:
                self.miss(kind.resource, namespace, f"only the first {len(items)} were read")
            elif not selector and keep is None:
                self.mark(kind.kind, namespace, fields)
            if then is not None:
                then(chosen)

        self.task(kind.resource, namespace, work)

    def page(
        self,
        kind: Kind,
        namespace: str,
        *,
        selector: str = "",
        fields: str = "",
        limit: int = PAGE,
        names_only: bool = False,
    ) -> tuple[list[Json], bool]:
        """The first page of a list, now, and whether there is more. Raises RequestError."""
        asked = query(labelSelector=selector, fieldSelector=fields, limit=limit)

        def one(version: Kind) -> tuple[list[Json], bool]:
            (path,) = version.paths(namespace)
            page = self.client.get(path, asked, accept=METADATA_LIST if names_only else JSON, decode=slim.decode_page)
            return [typed(item, version) for item in page.items or ()], bool(page.metadata.continue_)

        return _with_versions(kind, one)

    def pages(self, kind: Kind, namespace: str, decode: Callable[[bytes], Any], *, fields: str = "") -> Iterable[Any]:
        """All pages of a list, one by one, so that only one of them is in memory. Raises RequestError."""
        (path,) = kind.paths(namespace)
        proceed = ""
        while True:
            asked = query(fieldSelector=fields, limit=PAGE, **{"continue": proceed})
            page = self.client.get(path, asked, decode=decode)
            yield page
            proceed = page.metadata.continue_
            if not proceed:
                return


def _with_versions(kind: Kind, attempt: Callable[[Kind], T]) -> T:
    """Tries the versions of a kind until the server knows one."""
    for version in kind.versions[:-1]:
        try:
            return attempt(kind.at(version))
        except RequestError as error:
            if error.why != Why.NO_SUCH_KIND:
                raise
    return attempt(kind.at(kind.versions[-1]))


def typed(item: Json, kind: Kind) -> Json:
    """An item of a list with its kind, which lists leave out."""
    return {**item, "apiVersion": item.get("apiVersion") or kind.api_version, "kind": item.get("kind") or kind.kind}


def metadata_object(partial: Json, kind: Kind) -> Json:
    """An object of which only the metadata was asked for.

    A Secret's keys, without their values, stand in its managed fields: the server notes there who set which.
    """
    found: Json = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": dict(meta(partial))}
    if kind.key == ("", "Secret"):
        keys = set()
        for row in meta(partial).get("managedFields") or ():
            keys |= {key for key in (row.get("fieldsV1") or {}).get("f:data") or {} if key.startswith("f:")}
        if keys:
            found["data"] = {key.removeprefix("f:"): _UNREAD for key in sorted(keys)}
    return found


def _without_nulls(tree: Any) -> Any:
    """Kubernetes reads null as absent, and so does everyone after this."""
    if isinstance(tree, dict):
        return {
            key: value if isinstance(value, str) else _without_nulls(value)
            for key, value in tree.items()
            if value is not None
        }
    if isinstance(tree, list):
        return [_without_nulls(value) for value in tree if value is not None]
    return tree


def _trimmed(obj: Json) -> Json:
    """Without what only the API server's bookkeeping needs, without binary data and nulls."""
    obj = _without_nulls(obj)
    head = dict(meta(obj))
    head.pop("managedFields", None)
    annotations = head.get("annotations")
    if isinstance(annotations, dict) and any(key in annotations for key in _REPEATING):
        head["annotations"] = {key: value for key, value in annotations.items() if key not in _REPEATING}
    found: Json = {"apiVersion": obj.get("apiVersion"), "kind": obj.get("kind"), **obj, "metadata": head}
    if found["kind"] == "ConfigMap" and found.get("binaryData"):
        found["binaryData"] = dict.fromkeys(found["binaryData"], "")
    if found["kind"] == "Node" and isinstance(found.get("status"), dict):
        found["status"] = {key: value for key, value in found["status"].items() if key != "images"}
    return found
