"""A snapshot is everything that was read: raw, masked, serialisable; schema `llmdoctor.snapshot/v1`."""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

SCHEMA = "llmdoctor.snapshot/v1"

#: How what stands in the place of a secret begins: what holds one is not written over the real one.
MASK = "<masked"

#: A Kubernetes object as the API gives it, or any other JSON tree.
Json = dict[str, Any]


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Common settings of the snapshot's parts: camelCase names, defaults left out."""


class TargetRef(_Part, frozen=True):
    """What was asked about. `kind` is the API kind, `api_version` may be empty."""

    kind: str
    name: str
    namespace: str = ""
    api_version: str = ""


#: Of a list of pods without those that have ended, which occupy nothing: as good as the whole.
UNFINISHED = "status.phase!=Succeeded,status.phase!=Failed"


class ReadList(_Part, frozen=True):
    """A list that was read whole: what is absent from it does not exist. No namespace means the whole cluster."""

    kind: str
    namespace: str = ""
    #: a field selector the list was limited to, such as `spec.nodeName=gpu-1`; empty means everything
    fields: str = ""


class Cut(_Part, frozen=True):
    """What was left out of the middle of a log: `bytes` after line `after_line`."""

    after_line: int
    bytes: int


class Skip(_Part, frozen=True):
    """Lines of a very long log that were not kept, since nothing looks at them: `lines` after the kept `after_line`."""

    after_line: int
    lines: int


class LogText(_Part, frozen=True):
    """One container instance's log. `pod` and `container` are empty for a log that came alone."""

    text: str
    namespace: str = ""
    pod: str = ""
    container: str = ""
    previous: bool = False
    #: each line starts with the kubelet's RFC 3339 time
    timestamps: bool = False
    #: the restart count of the instance that wrote it
    restart: int | None = None
    cut: Cut | None = None
    skips: tuple[Skip, ...] = ()


class NodeData(_Part, frozen=True):
    """What only the node knows: the node agent's report and kernel log lines."""

    agent: Json | None = None
    kernel_log: str = ""


class MetricsText(_Part, frozen=True):
    """Exposition text read from a metrics port."""

    text: str
    namespace: str = ""
    pod: str = ""
    container: str = ""
    node: str = ""
    taken_at: str = ""


class PortAnswer(_Part, frozen=True):
    """What an engine's port said to one question: `status` and `text`, or, without a status, the `error`.

    `path` is what was asked (`/health`, `/v1/models`), `seconds` how long the answer took, through the API server.
    """

    path: str
    port: int
    namespace: str = ""
    pod: str = ""
    container: str = ""
    method: str = "GET"
    taken_at: str = ""
    seconds: float = 0.0
    status: int | None = None
    text: str = ""
    error: str = ""


class Missing(_Part, frozen=True):
    """A source that could not be read, and why."""

    source: str
    reason: str
    ref: str = ""


class Origin(_Part, frozen=True):
    """Where in which file an object stood: `file`, 1-based `line`."""

    file: str
    line: int


class Snapshot(_Part, frozen=True):
    """Everything that was read.

    `objects` are decoded JSON trees with secrets already masked; an object that is not there is unknown,
    unless a complete list in `read` says that it does not exist.
    """

    schema: str = SCHEMA
    taken_at: str | None = None
    target: TargetRef | None = None
    #: further targets, when several were named
    targets: tuple[TargetRef, ...] = ()
    objects: tuple[Json, ...] = ()
    read: tuple[ReadList, ...] = ()
    logs: tuple[LogText, ...] = ()
    nodes: dict[str, NodeData] = {}
    metrics: tuple[MetricsText, ...] = ()
    prometheus: tuple[Json, ...] = ()
    #: what the engines said of themselves: health, version, the models that they serve
    answers: tuple[PortAnswer, ...] = ()
    missing: tuple[Missing, ...] = ()
    #: by position in `objects`, for objects that came from files: where each stands
    origins: tuple[Origin | None, ...] = ()

    @property
    def asked(self) -> tuple[TargetRef, ...]:
        """All that was asked about, in the order of asking; empty when nothing was named."""
        return ((self.target,) if self.target else ()) + self.targets


def to_json(snapshot: Snapshot) -> bytes:
    """The snapshot as one compact JSON document, `schema` first."""
    tree = msgspec.to_builtins(snapshot)
    return msgspec.json.encode({"schema": SCHEMA, **tree}) + b"\n"


def merge(parts: Iterable[Snapshot]) -> Snapshot:
    """Several snapshots as one; the first `takenAt` and the targets in order win."""
    whole = list(parts)
    if len(whole) == 1:
        return whole[0]

    def all_of(field: str) -> Iterator[Any]:
        for part in whole:
            yield from getattr(part, field)

    asked = [t for part in whole for t in part.asked]
    origins = [o for p in whole for o in (p.origins or (None,) * len(p.objects))]
    return Snapshot(
        taken_at=next((p.taken_at for p in whole if p.taken_at), None),
        target=asked[0] if asked else None,
        targets=tuple(asked[1:]),
        objects=tuple(all_of("objects")),
        read=tuple(all_of("read")),
        logs=tuple(all_of("logs")),
        nodes={k: v for p in whole for k, v in p.nodes.items()},
        metrics=tuple(all_of("metrics")),
        prometheus=tuple(all_of("prometheus")),
        answers=tuple(all_of("answers")),
        missing=tuple(all_of("missing")),
        origins=tuple(origins) if any(origins) else (),
    )
