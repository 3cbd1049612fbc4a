"""Events of a target: both API forms as one, oldest first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime

import msgspec

from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.units import parse_time


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One event: who said what about which object, when last and how often."""

    kind: str
    namespace: str
    name: str
    field_path: str
    uid: str
    reason: str
    message: str
    warning: bool
    reporter: str
    count: int
    first: datetime | None
    last: datetime | None


#: Warnings of what the kubelet does before it looks at an image, and what it says when it has come so far.
_BEFORE_IMAGES = frozenset(
    {"FailedMount", "FailedMapVolume", "FailedAttachVolume", "FailedPrepareDynamicResources", "FailedCreatePodSandBox"}
    | {"NetworkNotReady"}
)
_AT_IMAGES = frozenset({"Pulling", "Pulled", "Created", "Started"})


#: KAI's binder (pkg/binder/binding/resourcereservation), of a pod that is to share a GPU.
_AWAITED = r"failed waiting for GPU reservation pod to allocate: ([\w.-]{1,63})/([\w.-]{1,253})"


def awaited_reservation(message: str) -> tuple[str, str] | None:
    """Namespace and name of KAI's own pod that an event's message says has not taken its GPU."""
    found = re.search(_AWAITED, message[:4000])
    return (found[1], found[2]) if found else None


def came_further(event: Event, others: Iterable[Event]) -> bool:
    """Whether the kubelet has come further with a pod than what a warning of its volumes, devices or sandbox says."""
    if event.kind != "Pod" or event.last is None or event.reason not in _BEFORE_IMAGES:
        return False
    return any(
        other.reason in _AT_IMAGES
        and (other.kind, other.namespace, other.name) == (event.kind, event.namespace, event.name)
        and other.last is not None
        and other.last > event.last
        for other in others
    )


class Events:
    """The events that concern one target, oldest first (those without a time come first)."""

    def __init__(self, events: list[Event], now: datetime | None) -> None:
        self.now = now
        self._events = events

    def __iter__(self) -> Iterator[Event]:
        return iter(self._events)

    def __len__(self) -> int:
        return len(self._events)

    def of(self, *reasons: str, kind: str | None = None) -> list[Event]:
        """Those with one of these reasons, optionally about one kind of object."""
        return [e for e in self._events if e.reason in reasons and (kind is None or e.kind == kind)]


class EventIndex:
    """The events of a snapshot by the objects that they are about."""

    def __init__(self, events: Iterable[Event]) -> None:
        self._named: dict[tuple[str, str], list[tuple[int, Event]]] = {}
        self._uids: dict[str, list[tuple[int, Event]]] = {}
        for row in enumerate(events):
            event = row[1]
            self._named.setdefault((event.kind, event.name), []).append(row)
            if event.uid:
                self._uids.setdefault(event.uid, []).append(row)

    def about(self, names: Iterable[tuple[str, str]], uids: Iterable[str] = ()) -> list[Event]:
        """The events about objects of these kinds and names, whatever their namespace, or of these uids."""
        found = dict(row for name in names for row in self._named.get(name, ()))
        found.update(row for uid in uids for row in self._uids.get(uid, ()))
        return [found[number] for number in sorted(found)]

    def of_kind(self, kind: str) -> list[Event]:
        """The events about objects of one kind, whatever their name."""
        found = dict(row for (about, _), rows in self._named.items() if about == kind for row in rows)
        return [found[number] for number in sorted(found)]


def events_of(cluster: Cluster) -> EventIndex:
    """All events of the snapshot, in the order of their namespaces and names."""
    return cluster.once("events", lambda: EventIndex(map(normalise, cluster.all(k8s.Event, "Event"))))


def normalise(event: k8s.Event) -> Event:
    """Either API form as an `Event`."""
    about = event.involved_object if event.involved_object.kind else event.regarding
    series = event.series or k8s.Series()
    first = (event.first_timestamp, event.deprecated_first_timestamp, event.event_time)
    last = (series.last_observed_time, event.last_timestamp, event.deprecated_last_timestamp, event.event_time)
    created = event.metadata.creation_timestamp
    return Event(
        kind=about.kind,
        namespace=about.namespace,
        name=about.name,
        field_path=about.field_path,
        uid=about.uid,
        reason=event.reason,
        message=event.message or event.note,
        warning=event.type == "Warning",
        reporter=event.reporting_component or event.reporting_controller or event.source.component,
        count=max(event.count or 0, event.deprecated_count or 0, series.count, 1),
        first=next((t for t in map(parse_time, (*first, created)) if t), None),
        last=next((t for t in map(parse_time, (*last, *first, created)) if t), None),
    )
