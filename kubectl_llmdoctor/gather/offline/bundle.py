"""Support bundles of troubleshoot.sh, packed or as a folder: lists under `cluster-resources/`, and logs.

The layout is that of replicatedhq/troubleshoot, `pkg/collect/cluster_resources.go` and `logs.go`: one list per kind and
namespace (in older releases a bare array), `pods/logs/NAMESPACE/POD/CONTAINER.log`, and the folders of log collectors.
Nothing is ever unpacked to disk; a link counts only where it leads to another file of the bundle.
"""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from kubectl_llmdoctor.gather import kinds
from kubectl_llmdoctor.gather.kinds import Kind, core
from kubectl_llmdoctor.gather.offline.documents import documents
from kubectl_llmdoctor.gather.offline.dump import newest_time
from kubectl_llmdoctor.gather.offline.objects import Item, list_key
from kubectl_llmdoctor.gather.offline.reading import MAX_FILE, UnreadableError, decode, listed, os_reason
from kubectl_llmdoctor.gather.times import has_kubelet_times
from kubectl_llmdoctor.snapshot import Json, LogText, ReadList
from kubectl_llmdoctor.tree import rows

if TYPE_CHECKING:
    from pathlib import Path

    from kubectl_llmdoctor.gather.offline.found import Found

#: Files of one bundle that are looked at, and what they may hold together.
_MAX_FILES = 200_000
_MAX_TOTAL = 1 << 30

_RESOURCES = "cluster-resources"

#: What troubleshoot calls the lists of each namespace, and those of the cluster.
_NAMESPACED = {
    "pods": core("Pod"),
    "events": core("Event"),
    "services": core("Service"),
    "configmaps": core("ConfigMap"),
    "pvcs": core("PersistentVolumeClaim"),
    "limitranges": core("LimitRange"),
    "resource-quota": core("ResourceQuota"),
    "deployments": core("Deployment", "apps"),
    "replicasets": core("ReplicaSet", "apps"),
    "statefulsets": core("StatefulSet", "apps"),
    "daemonsets": core("DaemonSet", "apps"),
    "jobs": core("Job", "batch"),
    "cronjobs": core("CronJob", "batch"),
    "ingress": core("Ingress", "networking.k8s.io"),
    "network-policy": core("NetworkPolicy", "networking.k8s.io"),
    "pod-disruption-budgets": core("PodDisruptionBudget", "policy"),
    "endpointslices": core("EndpointSlice", "discovery.k8s.io"),
}
_OF_CLUSTER = {
    "nodes": core("Node"),
    "namespaces": core("Namespace"),
    "pvs": core("PersistentVolume"),
    "storage-classes": core("StorageClass", "storage.k8s.io"),
    "volumeattachments": core("VolumeAttachment", "storage.k8s.io"),
    "priorityclasses": core("PriorityClass", "scheduling.k8s.io"),
}
_CUSTOM = "custom-resources"
_ERRORS = "-errors.json"
_PREVIOUS = "-previous"
_TAIL = "a support bundle holds the last 10,000 lines of a log, unless its spec says otherwise"

#: By path inside the bundle: what reads the file. Raises UnreadableError.
Files = Mapping[str, Callable[[], bytes]]


def of_archive(data: bytes) -> Files | None:
    """The files of a bundle that is a tar archive; None for another archive. Raises UnreadableError."""
    try:
        archive = tarfile.open(fileobj=io.BytesIO(data), mode="r:")  # noqa: SIM115  (it lives as long as the files do)
        members: dict[str, tarfile.TarInfo] = {}
        for member in archive:
            if len(members) >= _MAX_FILES:
                raise UnreadableError(f"an archive of more than {_MAX_FILES} files")
            name = posixpath.normpath(member.name)
            if not name.startswith(("/", "..")):
                members[name] = member
    except (tarfile.TarError, EOFError, ValueError, OverflowError):
        raise UnreadableError("damaged tar archive") from None
    root = _root(members)
    if root is None:
        return None
    files: dict[str, Callable[[], bytes]] = {}
    total = 0
    for name in sorted(members):
        real = _target(name, members)
        if real is None or not name.startswith(root):
            continue
        total += real.size
        if total > _MAX_TOTAL:
            raise UnreadableError(f"it holds more than {_MAX_TOTAL >> 20} MiB")
        files[name.removeprefix(root)] = partial(_bytes, archive, real)
    return files


def of_folder(folder: Path) -> Files | None:
    """The files of a bundle that was unpacked into a folder, or into one inside it; None where there is none."""
    try:
        inner = [folder, *(entry for entry in sorted(folder.iterdir()) if entry.is_dir() and not entry.is_symlink())]
        root = next((place for place in inner if (place / _RESOURCES).is_dir()), None)
        if root is None:
            return None
        real = root.resolve()
        files: dict[str, Callable[[], bytes]] = {}
        for path in sorted(root.rglob("*")):
            if len(files) >= _MAX_FILES:
                break
            # A link may lead to whatever the reader of a stranger's bundle can read.
            if path.is_file() and path.resolve().is_relative_to(real):
                files[path.relative_to(root).as_posix()] = partial(listed, path)
    except (OSError, RuntimeError) as error:
        raise UnreadableError(os_reason(error)) from None
    return files


def _root(names: Mapping[str, Any]) -> str | None:
    """What stands before `cluster-resources/`: nothing, or the bundle's own folder."""
    for name in names:
        head, found, _ = f"/{name}/".partition(f"/{_RESOURCES}/")
        if found and head.count("/") <= 1:
            return f"{head[1:]}/" if head else ""
    return None


def _target(name: str, members: Mapping[str, tarfile.TarInfo]) -> tarfile.TarInfo | None:
    """The regular file behind a name; links are followed inside the archive only."""
    for _ in range(8):
        member = members.get(name)
        if member is None or member.isreg():
            # A sparse file of some bytes claims to be as large as it likes.
            return member if member and not member.issparse() else None
        if member.issym():
            name = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
        elif member.islnk():
            name = posixpath.normpath(member.linkname)
        else:
            return None
    return None


def _bytes(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > MAX_FILE:
        raise UnreadableError(f"larger than {MAX_FILE >> 20} MiB")
    try:
        file = archive.extractfile(member)
        return file.read() if file else b""
    except (tarfile.TarError, OSError, EOFError):
        raise UnreadableError("damaged tar archive") from None


def take(found: Found, name: str, files: Files) -> None:
    """Keeps what a bundle holds. `name` is the bundle's, for what could not be read."""
    _Bundle(found, name, files).take()


class _Bundle:
    def __init__(self, found: Found, name: str, files: Files) -> None:
        self._found = found
        self._name = name
        self._files = files
        self._newest = ""

    def take(self) -> None:
        found = self._found
        found.understood = True
        for path in self._files:
            parts = path.split("/")
            if parts[0] != _RESOURCES:
                continue
            if path.endswith(_ERRORS):
                self._take_errors(path)
            elif len(parts) == 2 and (kind := _OF_CLUSTER.get(_stem(parts[1]))):
                self._take_list(path, kind, "")
            elif len(parts) == 3 and (kind := _NAMESPACED.get(parts[1])):
                self._take_list(path, kind, _stem(parts[2]))
            elif parts[1] == _CUSTOM and len(parts) in (3, 4):
                self._take_custom(path, parts[2:])
        self._take_logs()
        found.taken_at = f"{self._newest}Z" if self._newest else None
        found.miss("", _TAIL, "logs")

    def _take_list(self, path: str, kind: Kind | None, namespace: str) -> None:
        """A list as an object, or in older releases as a bare array; items need not name their kind."""
        found, name = self._found, f"{self._name}:{path}"
        if (text := found.text(name, self._files[path])) is None:
            return
        for document in documents(text):
            value, whole = document.value, True
            if document.error:
                found.miss(name, document.error)
                continue
            if value is None:  # troubleshoot writes null where it could not list
                continue
            if isinstance(value, dict) and (list_key(value) or isinstance(value.get("items"), list)):
                metadata = value.get("metadata")
                whole = not (isinstance(metadata, dict) and metadata.get("continue"))
                value = value.get("items") or []
            elif isinstance(value, dict):
                value, whole = [value], False
            if not isinstance(value, list):
                found.miss(name, "no list of objects")
                continue
            head: Json = {"apiVersion": kind.api_version, "kind": kind.kind} if kind else {}
            for item in value:
                typed = {**head, **_named(item)} if isinstance(item, dict) else item
                whole &= found.keep(Item(typed, document.line), name, origin=False)
                self._newest = max(self._newest, newest_time(typed))
            if whole and kind:
                found.read.append(ReadList(kind=kind.kind, namespace=namespace))

    def _take_custom(self, path: str, parts: list[str]) -> None:
        """`custom-resources/CRD/NAMESPACE.json`; the same as YAML stands beside it in some releases."""
        stem, _, suffix = path.rpartition(".")
        if suffix == "yaml" and f"{stem}.json" in self._files:
            return
        resource = parts[0] if len(parts) == 2 else _stem(parts[0])
        kind = next((kind for kind in kinds.KINDS if kind.resource == resource and kind.group), None)
        self._take_list(path, kind, _stem(parts[1]) if len(parts) == 2 else "")

    def _take_errors(self, path: str) -> None:
        """What troubleshoot could not list, by namespace or in all."""
        for document in documents(_text(self._files[path])):
            value = document.value
            rows = value.items() if isinstance(value, dict) else [("", row) for row in value or ()]
            what = path.removeprefix(f"{_RESOURCES}/").removesuffix(_ERRORS)
            for namespace, reason in rows:
                if reason:
                    self._found.miss(f"{what} {namespace}".strip(), " ".join(str(reason).split())[:300], "objects")

    # --- logs ---------------------------------------------------------------------------------------------------------

    def _take_logs(self) -> None:
        pods = dict(self._pods())
        taken = set()
        # Those of the cluster-resources collector name the namespace, so they come first.
        for path in sorted(self._files, key=lambda path: (not path.startswith(f"{_RESOURCES}/"), path)):
            if not path.endswith(".log"):
                continue
            for namespace, pod, stem in _places(path, pods):
                container, previous = _container(stem, pods.get((namespace, pod), []))
                if not container or (namespace, pod, container, previous) in taken:
                    continue
                taken.add((namespace, pod, container, previous))
                if (text := self._found.text(f"{self._name}:{path}", self._files[path], "logs")) is None:
                    continue
                self._found.logs.append(
                    LogText(
                        text=text,
                        namespace=namespace,
                        pod=pod,
                        container=container,
                        previous=previous,
                        timestamps=has_kubelet_times(text),
                    )
                )

    def _pods(self) -> Iterator[tuple[tuple[str, str], list[str]]]:
        """The containers of each pod of the bundle, by namespace and name."""
        for tree in self._found.objects:
            metadata, spec = tree.get("metadata"), tree.get("spec")
            if tree.get("kind") == "Pod" and isinstance(metadata, dict) and isinstance(spec, dict):
                containers = [*rows(spec, "initContainers"), *rows(spec, "containers")]
                place = str(metadata.get("namespace") or ""), str(metadata.get("name") or "")
                yield place, [str(one.get("name") or "") for one in containers]


def _places(path: str, pods: Mapping[tuple[str, str], list[str]]) -> Iterator[tuple[str, str, str]]:
    """Namespace, pod, and what the file is called, of a log's path."""
    parts = path.removesuffix(".log").split("/")
    if parts[:3] == [_RESOURCES, "pods", "logs"]:
        if len(parts) == 6:
            yield parts[3], parts[4], parts[5]
        return
    # A log collector's folder: POD/CONTAINER.log, or POD.log where there is one container; nothing names the namespace.
    if len(parts) >= 3 and (found := [place for place in pods if place[1] == parts[-2]]):
        if len(found) == 1:
            yield *found[0], parts[-1]
        return
    for previous in ("", _PREVIOUS):
        name = parts[-1].removesuffix(previous) if previous else parts[-1]
        found = [place for place in pods if place[1] == name]
        if len(parts) >= 2 and len(found) == 1 and len(pods[found[0]]) == 1:
            yield *found[0], pods[found[0]][0] + (previous if name != parts[-1] else "")
            return


def _container(stem: str, known: list[str]) -> tuple[str, bool]:
    """The container of a log file, and whether it is the log of its previous instance."""
    if stem in known or not stem.endswith(_PREVIOUS):
        return stem, False
    return stem.removesuffix(_PREVIOUS), True


def _named(item: Json) -> Json:
    """Without the empty kind and version that Go writes where none is set."""
    return {key: value for key, value in item.items() if value or key not in ("kind", "apiVersion")}


def _stem(name: str) -> str:
    return name.removesuffix(".json").removesuffix(".yaml")


def _text(read: Callable[[], bytes]) -> str:
    try:
        return decode(read())
    except UnreadableError:
        return ""
