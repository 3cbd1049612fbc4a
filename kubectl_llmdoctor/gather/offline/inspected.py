"""`oc adm must-gather` and `oc adm inspect`: objects by namespace and group, each twice, and logs beside their pods.

The layout is that of openshift/oc, `pkg/cli/admin/inspect`: lists in `namespaces/NS/GROUP/RESOURCE.yaml`, each pod once more in
`namespaces/NS/pods/POD/POD.yaml`, logs in `namespaces/NS/pods/POD/CONTAINER/CONTAINER/logs/`. A must-gather has a folder
for each of its images between.
"""

from __future__ import annotations

import itertools
import os
from functools import partial
from typing import TYPE_CHECKING

from kubectl_llmdoctor.gather.offline.documents import documents
from kubectl_llmdoctor.gather.offline.dump import newest_time
from kubectl_llmdoctor.gather.offline.objects import is_object, items
from kubectl_llmdoctor.gather.offline.reading import listed, shown
from kubectl_llmdoctor.gather.related import name_of, namespace_of
from kubectl_llmdoctor.gather.times import has_kubelet_times
from kubectl_llmdoctor.snapshot import Json, LogText

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kubectl_llmdoctor.gather.offline.found import Found

_LOGS = {"current.log": False, "previous.log": True}
#: What a repository of manifests does not have.
_TELLING = ("*/core/pods.yaml", "*/pods/*/*/*/logs")
_SUFFIXES = (".yaml", ".yml", ".json")
#: Of no use here, and most of what is collected of the cluster.
_PASSED_OVER = ("apiextensions.k8s.io", "customresourcedefinitions")
_MAX_TOTAL = 1 << 30
#: How the namespaces of OpenShift and Kubernetes themselves begin.
_PLATFORM = ("openshift-", "kube-")


def roots_of(folder: Path) -> list[Path]:
    """The folders of one collection, as they lie in `folder`; none where it is no such collection."""
    places = sorted(path for form in ("", "*/", "*/*/") for path in folder.glob(f"{form}namespaces"))
    return [place.parent for place in places if any(True for form in _TELLING for _ in place.glob(form))]


def take_folders(found: Found, roots: list[Path]) -> None:
    """Keeps the objects and the logs of all of them; the newest time in them is "now"."""
    found.understood = True
    seen, newest, total = set[tuple[str, ...]](), "", 0
    for file in sorted((file for root in roots for file in _files(root)), key=_late):
        name = shown(str(file))
        if (text := found.text(name, partial(listed, file))) is None:
            continue
        total += len(text)
        if total > _MAX_TOTAL:
            found.miss(name, f"not read, nor what follows: there is more than {_MAX_TOTAL >> 20} MiB")
            break
        if file.name in _LOGS:
            _take_log(found, file, text)
            continue
        for document in documents(text):
            if document.error:
                found.miss(f"{name}:{document.line}", document.error)
                continue
            for item in items(document, lines=False):
                key = _key(item.value) if is_object(item.value) else None
                if key and key not in seen and found.keep(item, name, origin=False):
                    seen.add(key)
                    newest = max(newest, newest_time(found.objects[-1]))
    found.taken_at = f"{newest}Z" if newest else None


def _files(root: Path) -> Iterator[Path]:
    from pathlib import Path

    for part in ("cluster-scoped-resources", "namespaces"):
        for place, folders, names in os.walk(root / part):
            folders[:] = sorted(name for name in folders if name not in _PASSED_OVER)
            for name in sorted(names):
                if name.endswith(_SUFFIXES) or (name in _LOGS and place.endswith("logs")):
                    yield Path(place) / name


def _late(file: Path) -> tuple[bool, bool]:
    """Objects before logs, and last those of the platform itself, which are most of them: not all may be read."""
    namespace = next((b for a, b in itertools.pairwise(file.parts) if a == "namespaces"), "")
    return file.name in _LOGS, namespace.startswith(_PLATFORM)


def _key(tree: Json) -> tuple[str, ...] | None:
    group = str(tree.get("apiVersion", "")).rpartition("/")[0]
    return (group, str(tree["kind"]), namespace_of(tree), name_of(tree)) if name_of(tree) else None


def _take_log(found: Found, file: Path, text: str) -> None:
    container, pod = file.parent.parent, file.parent.parent.parent.parent
    if text.strip() and container.parent.name == container.name and pod.parent.name == "pods":
        found.logs.append(
            LogText(
                text=text,
                namespace=pod.parent.parent.name,
                pod=pod.name,
                container=container.name,
                previous=_LOGS[file.name],
                timestamps=has_kubelet_times(text),
            )
        )
