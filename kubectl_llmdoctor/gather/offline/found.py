"""Collects what was found and what was not, and makes one masked `Snapshot` of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from kubectl_llmdoctor.errors import UsageError
from kubectl_llmdoctor.gather.offline.objects import NO_OBJECT, Item, is_object, tidy
from kubectl_llmdoctor.gather.offline.reading import SUFFIXES, UnreadableError, decode
from kubectl_llmdoctor.snapshot import Json, LogText, Missing, Origin, ReadList, Snapshot, merge


class Found:
    """What the inputs hold so far."""

    def __init__(self, *, snapshots: bool) -> None:
        #: saved snapshots and dumps are welcome, not only manifests; the objects of manifests are masked as they come
        self.snapshots = snapshots
        #: by file: its text, for those who need the line of a field
        self.texts: dict[str, str] | None = None
        self.saved: Snapshot | None = None
        self.objects: list[Json] = []
        self.origins: list[Origin | None] = []
        self.read: list[ReadList] = []
        self.logs: list[LogText] = []
        self.taken_at: str | None = None
        #: something was read, even if it left nothing to look at: an empty list, a CRD
        self.understood = False
        #: files that a kustomization applies as patches to other objects
        self.patches: set[str] = set()
        self._missing: dict[Missing, None] = {}

    def miss(self, ref: str, reason: str, source: str = "file") -> None:
        """Notes what could not be read, once."""
        self._missing[Missing(source=source, ref=ref, reason=reason)] = None

    def text(self, name: str, read: Callable[[], bytes], source: str = "file") -> str | None:
        """What a file says; of one that cannot be read it is noted why."""
        try:
            return decode(read())
        except UnreadableError as error:
            self.miss(name, str(error), source)
            return None

    def keep(self, item: Item, file: str, *, origin: bool = True) -> bool:
        """Keeps an object, or says why not."""
        ref = f"{file}:{item.line}"
        if not is_object(item.value):
            self.miss(ref, NO_OBJECT)
            return False
        try:
            tree = tidy(item.value)
            self.objects.append(tree if self.snapshots else _mask_object(tree))
        except UnreadableError as e:
            self.miss(ref, str(e))
            return False
        self.origins.append(Origin(file=file, line=item.line) if origin else None)
        return True

    def fresh(self) -> Found:
        """An empty one of the same sort, for a part of the manifests."""
        part = Found(snapshots=self.snapshots)
        part.texts = None if self.texts is None else {}
        return part

    def join(self, part: Found) -> None:
        """Takes over a part of the manifests, which was collected by itself."""
        self.objects += part.objects
        self.origins += part.origins
        self.understood |= part.understood
        self.patches |= part.patches
        self._missing.update(part._missing)
        if self.texts is not None:
            self.texts.update(part.texts or {})

    def snapshot(self, what: str) -> Snapshot:
        """All of it, masked; a `UsageError` if nothing could be read."""
        self._drop_patches()
        if not (self.saved or self.objects or self.logs or self.understood):
            raise UsageError(" ".join(self._nothing(what).split()))
        own = Snapshot(
            taken_at=self.taken_at,
            objects=tuple(self.objects),
            read=tuple(self.read),
            logs=tuple(self.logs),
            missing=tuple(self._missing),
            origins=tuple(self.origins) if any(self.origins) else (),
        )
        return _masked(merge([self.saved, own]) if self.saved else own, objects=self.snapshots)

    def _drop_patches(self) -> None:
        patched = {origin.file for origin in self.origins if origin} & self.patches
        if not patched:
            return
        for file in sorted(patched):
            self.miss(file, "a patch of a kustomization, build the whole first: kubectl kustomize")
        pairs = list(zip(self.objects, self.origins, strict=True))
        pairs = [(tree, origin) for tree, origin in pairs if not (origin and origin.file in patched)]
        self.objects, self.origins = [tree for tree, _ in pairs], [origin for _, origin in pairs]

    def _nothing(self, what: str) -> str:
        if not self._missing:
            return f"{what}: nothing to read in it"
        first = next(iter(self._missing))
        others = len(self._missing) - 1
        reason = first.reason
        if reason.startswith("not a manifest") and not first.ref.lower().endswith(SUFFIXES) and "--logs" not in reason:
            reason += "; a log is read with --logs"
        return f"{first.ref}: {reason}" + (f" (and {others} more that could not be read)" if others else "")


def _mask_object(tree: Json) -> Json:
    from kubectl_llmdoctor.redact import mask_object

    masked: Json = mask_object(tree)
    return masked


def _masked(snapshot: Snapshot, *, objects: bool) -> Snapshot:
    from kubectl_llmdoctor.gather.times import has_kubelet_times
    from kubectl_llmdoctor.gather.wrapped import unwrapped
    from kubectl_llmdoctor.redact import mask_object, mask_text

    def of_log(log: LogText) -> LogText:
        text = unwrapped(log.text, alone=False)
        return msgspec.structs.replace(log, text=mask_text(text), timestamps=log.timestamps or has_kubelet_times(text))

    def masked(part: Any, **texts: str) -> Any:
        return msgspec.structs.replace(part, **{name: mask_text(text) for name, text in texts.items()})

    nodes = {
        name: masked(
            msgspec.structs.replace(node, agent=node.agent and mask_object(node.agent)), kernel_log=node.kernel_log
        )
        for name, node in snapshot.nodes.items()
    }
    return msgspec.structs.replace(
        snapshot,
        objects=tuple(map(_mask_object, snapshot.objects)) if objects else snapshot.objects,
        logs=tuple(map(of_log, snapshot.logs)),
        nodes=nodes,
        metrics=tuple(masked(metrics, text=metrics.text) for metrics in snapshot.metrics),
        prometheus=tuple(map(mask_object, snapshot.prometheus)),
        answers=tuple(masked(answer, text=answer.text, error=answer.error) for answer in snapshot.answers),
        missing=tuple(masked(entry, reason=entry.reason) for entry in snapshot.missing),
    )
