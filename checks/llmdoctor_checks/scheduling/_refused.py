"""What the API server said when it refused to make the pods of a workload."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_llmdoctor.api import Evidence, Subject, Workload, dig, event_evidence
from llmdoctor_checks.scheduling._raw import rows

#: Kinds whose conditions repeat it; they outlive events, which expire after an hour.
_KINDS = ("ReplicaSet", "Deployment", "StatefulSet", "Revision", "Service.serving.knative.dev", "InferenceService")


def refusals(subject: Subject) -> Iterator[tuple[Evidence, str]]:
    """Messages of `FailedCreate` events, newest first, then of conditions, each with its evidence."""
    for event in reversed(subject.events.of("FailedCreate")):
        yield event_evidence(event, subject.cluster), event.message
    for where, message in conditions(subject):
        yield Evidence(source="workload", ref=where, text=message), message


def conditions(subject: Subject) -> Iterator[tuple[str, str]]:
    """What the conditions of the target and of the objects that it owns say: where, and the message."""
    mine, cluster = {id(item) for item in subject.related.values()}, subject.cluster
    for kind in _KINDS:
        for item in cluster.items(kind, subject.namespace):
            if id(item) in mine or any(id(owner) in mine for owner in cluster.chain(item)):
                for condition in rows(item.raw, "status.conditions"):
                    message = condition.get("message")
                    if isinstance(message, str):
                        place = f"status.conditions[{condition.get('type')}]"
                        yield f"{item.kind.partition('.')[0]}/{item.name} {place}", message


def finished(workload: Workload | None) -> bool:
    """Whether it wants no pod now: scaled to zero, suspended, or done."""
    if workload is None:
        return False
    done = holds(workload, "Complete", "Failed", "Suspended")
    return workload.replicas == 0 or done or dig(workload.raw, "spec.suspend") is True


def holds(workload: Workload | None, *types: str) -> bool:
    """Whether one of its conditions of these types is true."""
    found = rows(workload.raw, "status.conditions") if workload else []
    return any(c.get("type") in types and c.get("status") == "True" for c in found)
