"""What the kubelet says of a container's probes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from kubectl_llmdoctor.api import Container, Event, Events

KINDS = ("startup", "liveness", "readiness")


def failures(
    container: Container, events: Events | None, verb: Literal["failed", "errored"] = "failed"
) -> Iterator[tuple[str, Event]]:
    """Failed probes of a container, oldest first: `startup`, `liveness` or `readiness`, and the event.

    A probe that `errored` could not be run at all: to the kubelet that is neither success nor failure.
    """
    pod = container.pod
    several = sum(c.role != "init" for c in pod.containers) > 1
    for event in events.of("Unhealthy", kind="Pod") if events else []:
        kind = event.message.partition(f" probe {verb}")[0].lower()
        if event.name != pod.name or kind not in KINDS:
            continue
        if f"{{{container.name}}}" in event.field_path or not (several or event.field_path):
            yield kind, event
