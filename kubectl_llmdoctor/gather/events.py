"""Which of a namespace's events are about the objects that were read."""

from __future__ import annotations

from collections.abc import Iterable

from kubectl_llmdoctor.gather.collector import Collector
from kubectl_llmdoctor.gather.kinds import core
from kubectl_llmdoctor.gather.related import key_of, meta, name_of, namespace_of
from kubectl_llmdoctor.snapshot import Json

#: Objects whose events are asked for one by one where a namespace has more events than one page.
_MAX_OBJECTS = 40

#: In this order, when not all of them can be asked for.
_FIRST = (
    "Pod", "ReplicaSet", "StatefulSet", "Job", "LeaderWorkerSet", "RayCluster", "PersistentVolumeClaim",
    "InferenceService", "LLMInferenceService", "RayService", "RayJob", "NIMService", "DynamoGraphDeployment", "JobSet",
)  # fmt: skip

#: Owners whose name is the beginning of their pods' names; an event may outlive its pod.
_NAME_GIVERS = ("ReplicaSet", "StatefulSet", "DaemonSet", "Job", "ReplicationController", "RayCluster")


def keep(pot: Collector, listed: dict[str, tuple[list[Json], bool]], pods: Iterable[Json]) -> None:
    """Keeps the events about what was read, and asks for those that did not fit on a page."""
    objects = [obj for obj in pot.whole() if obj.get("kind") != "Event"]
    known = {(obj.get("kind"), namespace_of(obj), name_of(obj)) for obj in objects}
    uids = {meta(obj)["uid"] for obj in objects if meta(obj).get("uid")}
    givers = {key_of(obj) for obj in objects if obj.get("kind") in _NAME_GIVERS}
    deployments = {key_of(obj) for obj in objects if obj.get("kind") == "Deployment"}
    explained = {key_of(pod) for pod in pods}
    for namespace, (events, more) in sorted(listed.items()):
        for event in events:
            about = event.get("involvedObject") or {}
            name, scope = str(about.get("name") or ""), str(about.get("namespace") or "")
            if (
                about.get("uid") in uids
                or (about.get("kind"), scope, name) in known
                or (about.get("kind") == "Pod" and (scope, name.rpartition("-")[0]) in givers)
                # what a Deployment's former ReplicaSets did to their pods
                or (about.get("kind") == "ReplicaSet" and (scope, name.rpartition("-")[0]) in deployments)
                # the StatefulSet of the workers of a LeaderWorkerSet has the name of their leader
                or (about.get("kind") == "StatefulSet" and (scope, name) in explained)
            ):
                pot.add(event)
        if more:
            _ask(pot, namespace, [obj for obj in objects if namespace_of(obj) == namespace], explained)
        else:
            for _, name in sorted(pair for pair in explained if pair[0] == namespace):
                pot.mark("Event", namespace, f"involvedObject.name={name}")


def _ask(pot: Collector, namespace: str, objects: list[Json], explained: set[tuple[str, str]]) -> None:
    def rank(obj: Json) -> tuple[bool, int, str]:
        kind = str(obj.get("kind"))
        first = key_of(obj) in explained
        return not (kind == "Pod" and first), _FIRST.index(kind) if kind in _FIRST else len(_FIRST), name_of(obj)

    wanted = sorted((obj for obj in objects if obj.get("kind") in _FIRST or meta(obj).get("ownerReferences")), key=rank)
    for obj in wanted[:_MAX_OBJECTS]:
        pot.get_list(core("Event"), namespace, fields=f"involvedObject.name={name_of(obj)}")
    if len(wanted) > _MAX_OBJECTS:
        pot.miss("events", namespace, f"read for {_MAX_OBJECTS} of {len(wanted)} objects only")
