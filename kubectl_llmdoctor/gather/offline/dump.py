"""`kubectl cluster-info dump`, as a folder or as one text: complete typed lists, and logs between separators."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

from kubectl_llmdoctor.gather.offline.documents import Document, documents
from kubectl_llmdoctor.gather.offline.objects import NO_OBJECT, is_object, items, list_key
from kubectl_llmdoctor.gather.offline.reading import listed, shown
from kubectl_llmdoctor.gather.related import namespace_of
from kubectl_llmdoctor.gather.times import has_kubelet_times, is_time
from kubectl_llmdoctor.snapshot import LogText, ReadList
from kubectl_llmdoctor.tree import dig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kubectl_llmdoctor.gather.offline.found import Found

#: The files of a namespace's folder, in kubectl's order.
_LISTS = ("events", "replication-controllers", "services", "daemonsets", "deployments", "replicasets", "pods")
_NAMESPACED = ("Event", "ReplicationController", "Service", "DaemonSet", "Deployment", "ReplicaSet", "Pod")
_NO_PREVIOUS = "a cluster-info dump holds no logs of previous containers"
_NOT_HELD = (
    "a cluster-info dump holds no ConfigMap, Job, Namespace, PersistentVolume, PersistentVolumeClaim, ResourceQuota,"
    " StatefulSet or custom resource"
)

_BLOCK = r"(?m)^==== START logs for container (\S+) of pod ([^/\s]+)/(\S+) ====\r?(?:\n|\Z)"
_NO_LOG = r"(?:Create log request|Request log) error: ([^\n]*)\s*\Z"
_UTC = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z\Z"


def is_dump(folder: Path) -> bool:
    """Whether the folder has the layout of a dump."""
    try:
        has_nodes = _list_file(folder, "nodes") is not None
        return any(
            _list_file(entry, "pods") and (has_nodes or _list_file(entry, "replication-controllers"))
            for entry in folder.iterdir()
            if entry.is_dir()
        )
    except OSError:
        return False


def is_stream(text: str, found: list[Document]) -> bool:
    """Whether a text, parsed into these documents, is the one-text form; `kubectl get` prints no typed lists."""
    return has_logs(text) or {"NodeList", "EventList"} <= {d.value["kind"] for d in found if is_object(d.value)}


def has_logs(text: str) -> bool:
    """Whether there are logs between separators in it."""
    return "==== START logs for container" in text and re.search(_BLOCK, text) is not None


def take_folder(found: Found, folder: Path) -> None:
    """Keeps a dump that was written with --output-directory."""
    dump = _Dump(found)
    dump.take_list_file(_list_file(folder, "nodes"), "")
    for namespace in _folders(folder):
        for name in _LISTS:
            dump.take_list_file(_list_file(namespace, name), shown(namespace.name))
        for pod in _folders(namespace):
            dump.take_log_file(pod / "logs.txt")
    dump.finish()


def take_stream(found: Found, name: str, text: str) -> None:
    """Keeps a dump that was written to stdout."""
    dump = _Dump(found)
    dump.take_text(name, text)
    dump.finish()


def _list_file(folder: Path, name: str) -> Path | None:
    return next((file for suffix in (".json", ".yaml") if (file := folder / f"{name}{suffix}").is_file()), None)


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return []


class _Dump:
    def __init__(self, found: Found) -> None:
        self._found = found
        self._newest = ""

    def finish(self) -> None:
        """The newest time in it is "now"; what a dump never holds is said."""
        self._found.taken_at = f"{self._newest}Z" if self._newest else None
        self._found.miss("", _NO_PREVIOUS, "logs")
        self._found.miss("", _NOT_HELD, "objects")

    def take_list_file(self, file: Path | None, namespace: str) -> None:
        if file is None:
            return
        name = shown(str(file))
        if (text := self._found.text(name, partial(listed, file))) is None:
            return
        for document in documents(text):
            kind, whole, _ = self._take_list(name, document)
            if whole:
                self._found.read.append(ReadList(kind=kind, namespace=namespace))

    def take_log_file(self, file: Path) -> None:
        name = shown(str(file))
        if file.is_file() and (text := self._found.text(name, partial(listed, file), "logs")) is not None:
            self.take_text(name, text)

    def take_text(self, name: str, text: str) -> None:
        """Lists and logs in one text. A list doesn't name its namespace, so it is that of what stands beside it."""
        kinds: list[str] = []
        namespaces: set[str] = set()

        def close() -> None:
            if len(namespaces) == 1:
                self._found.read += [ReadList(kind=kind, namespace=next(iter(namespaces))) for kind in kinds]
            kinds.clear()
            namespaces.clear()

        for part in _parts(text):
            if isinstance(part, LogText):
                namespaces.add(part.namespace)
                self._take_log(part)
                continue
            kind, whole, seen = self._take_list(name, part)
            if kind == "Event":  # the first list of a namespace
                close()
            if whole and kind == "Node":
                self._found.read.append(ReadList(kind=kind))
            elif whole and kind in _NAMESPACED:
                kinds.append(kind)
                namespaces |= seen
        close()

    def _take_log(self, log: LogText) -> None:
        if problem := re.match(_NO_LOG, log.text):
            self._found.miss(f"{log.namespace}/{log.pod}/{log.container}", problem[1], "logs")
        else:
            self._found.logs.append(log)

    def _take_list(self, name: str, document: Document) -> tuple[str, bool, set[str]]:
        """Keeps the list's objects; their kind, whether all are there, and their namespaces."""
        found = self._found
        if document.error or list_key(document.value) is None:
            found.miss(f"{name}:{document.line}", document.error or NO_OBJECT)
            return "", False, set()
        found.understood = True
        start = len(found.objects)
        kept = [found.keep(item, name, origin=False) for item in items(document, lines=False)]
        trees = found.objects[start:]
        self._newest = max(self._newest, *map(newest_time, trees), "")
        whole = all(kept) and not dig(document.value, "metadata.continue")
        return document.value["kind"][:-4], whole, set(map(namespace_of, trees))


def _parts(text: str) -> Iterator[Document | LogText]:
    """Lists and logs in their order."""
    pos, line, blocks = 0, 1, re.compile(_BLOCK)
    for block in blocks.finditer(text):
        if block.start() < pos:
            continue  # a line of a log
        yield from documents(text[pos : block.start()], first_line=line)
        container, namespace, pod = block.groups()
        end_mark = f"==== END logs for container {container} of pod {namespace}/{pod} ===="
        end = text.find(end_mark, block.end())
        if end < 0:  # the dump was cut off, or two were joined
            following = blocks.search(text, block.end())
            end = after = following.start() if following else len(text)
        else:
            after = end + len(end_mark)
        log = text[block.end() : end]
        yield LogText(text=log, namespace=namespace, pod=pod, container=container, timestamps=has_kubelet_times(log))
        line += text.count("\n", pos, after)
        pos = after
    yield from documents(text[pos:], first_line=line)


def newest_time(value: Any, key: str = "") -> str:
    """The newest time at which something happened, without its `Z`; in this one format text order is time order."""
    if isinstance(value, str):
        happened = key.endswith(("Time", "Timestamp", "At")) and key != "deletionTimestamp"
        return value[:-1] if happened and re.match(_UTC, value) and is_time(value) else ""
    if isinstance(value, dict):
        told = ((k, v) for k, v in value.items() if k not in ("annotations", "labels", "spec"))
        return max((newest_time(v, k) for k, v in told), default="")
    if isinstance(value, list):
        return max((newest_time(v, key) for v in value), default="")
    return ""
