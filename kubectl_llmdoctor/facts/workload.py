"""Workloads: what owns the pods, the object that a person edits, and the pod templates that follow from it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from kubectl_llmdoctor import platforms
from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.cluster import Cluster, Item
from kubectl_llmdoctor.platforms.labels import KUEUE_QUEUE
from kubectl_llmdoctor.tree import dig

if TYPE_CHECKING:
    from kubectl_llmdoctor.platforms import kserve

#: Kinds that take strategic merge patches.
BUILT_IN = frozenset(
    {"Pod", "Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "ReplicationController", "Job", "CronJob"}
)

#: Conditions of custom resources under which they need no pod.
_AT_REST = frozenset(
    {"Ready", "Complete", "Completed", "Succeeded", "Finished", "Suspended", "RayClusterSuspended", "Stopped"}
)

#: Phases of Volcano's Job in which its pods are gone by intent (pkg/apis/batch/v1alpha1/job.go).
_ENDED = ("Aborting", "Aborted", "Completing", "Completed", "Terminating", "Terminated")

#: Made by another object and overwritten by it; never the object to edit.
_DERIVED = frozenset({"ReplicaSet", "ControllerRevision", "Pod"})


class Workload:
    """One object that owns pods, or would."""

    def __init__(self, item: Item, cluster: Cluster) -> None:
        self.item = item
        self.cluster = cluster
        self.kind = item.plain_kind
        self.name = item.name
        self.namespace = item.namespace
        self.api_version = item.api_version

    @property
    def ref(self) -> str:
        """`Deployment/llama`."""
        return f"{self.kind}/{self.name}"

    @property
    def resource(self) -> str:
        """What kubectl calls its kind: `deployment`, `rayservice.ray.io`."""
        group = self.api_version.rpartition("/")[0]
        return f"{self.kind.lower()}.{group}" if "." in group else self.kind.lower()

    @property
    def raw(self) -> dict[str, Any]:
        """The object as it is."""
        return self.item.raw

    @property
    def built_in(self) -> bool:
        """Whether it takes strategic merge patches."""
        return self.item.kind in BUILT_IN  # Volcano's Job is `Job.batch.volcano.sh` there

    @cached_property
    def templates(self) -> list[tuple[platforms.Template, k8s.PodTemplate]]:
        """Its pod templates, as its operator makes them; those that are malformed are left out."""
        found = []
        for template in platforms.templates(self.raw, self.cluster.find):
            try:
                found.append((template, k8s.convert(template.pod, k8s.PodTemplate)))
            except (msgspec.ValidationError, RecursionError):
                continue
        return found

    def template_of(self, pod: k8s.Pod) -> platforms.Template | None:
        """The template that a pod came from: by labels, then by the names of its containers; None where it is open."""
        found = [(t, typed) for t, typed in self.templates if t.matches(pod.metadata.labels)]
        most = max((len(template.labels) for template, _ in found), default=0)
        found = [pair for pair in found if len(pair[0].labels) == most]
        if len(found) > 1:
            mine = {c.name for c in pod.spec.containers}
            found = [pair for pair in found if {c.name for c in pair[1].spec.containers} <= mine]
        return found[0][0] if len(found) == 1 else None

    @property
    def status(self) -> k8s.WorkloadStatus:
        """The status of a built-in kind; empty for others."""
        try:
            typed = self.item.typed()
        except (msgspec.ValidationError, RecursionError):  # a foreign kind with odd metadata
            return k8s.WorkloadStatus()
        return typed.status if isinstance(typed, k8s.Workload) else k8s.WorkloadStatus()

    @property
    def replicas(self) -> int | None:
        """How many it is asked to run; None where its kind has no such number."""
        if self.kind == "DaemonSet":
            return self.status.desired_number_scheduled
        asked = dig(self.raw, "spec.replicas")
        if isinstance(asked, int):
            return asked
        return 1 if self.kind in ("Deployment", "StatefulSet", "ReplicaSet", "LeaderWorkerSet") else None

    @property
    def ready(self) -> int | None:
        """How many are ready; None where its status does not say."""
        if not isinstance(self.raw.get("status"), dict):
            return None
        if self.kind == "DaemonSet":
            return self.status.number_ready
        ready = dig(self.raw, "status.readyReplicas")
        return ready if isinstance(ready, int) else 0 if self.replicas is not None else None

    @property
    def completed(self) -> bool:
        """Whether it is a Job that has done its work, whatever became of its first pods."""
        return self.item.kind == "Job" and self.item.condition("Complete", "True") is not None

    @property
    def at_rest(self) -> bool:
        """Whether it means to have no pod now: suspended by somebody, finished, or ready while scaled to zero."""
        if dig(self.raw, "status.state.phase") in _ENDED:
            return True
        if not self.built_in and any(c.status == "True" and c.type in _AT_REST for c in self.item.conditions):
            return True
        return dig(self.raw, "spec.suspend") is True and KUEUE_QUEUE not in self.item.labels

    @property
    def release(self) -> bool:
        """Whether it is a release of a chart, of which nobody can say which pods follow from it, and whether any do."""
        return platforms.is_release(self.item.api_version, self.item.raw.get("kind", ""))

    @cached_property
    def said(self) -> list[platforms.Said]:
        """What the operator of a custom resource says is wrong with it, the gravest first."""
        if self.built_in or self.kind in ("Node", "Namespace"):
            return []
        from kubectl_llmdoctor.platforms.status import said

        return said(self.raw)

    @property
    def names(self) -> frozenset[str]:
        """Its name, and those of what it refers to and its operator speaks of: the runtime of an InferenceService."""
        if self.item.kind != "InferenceService":
            return frozenset({self.name})
        from kubectl_llmdoctor.platforms.kserve import runtime_names

        return frozenset({self.name, *runtime_names(self.raw)})

    @cached_property
    def runtime_wanted(self) -> kserve.Wanted | None:
        """The runtime that an InferenceService of KServe needs; None for other kinds and for one with its own container."""
        if self.item.kind != "InferenceService":
            return None
        from kubectl_llmdoctor.platforms import kserve

        return kserve.wanted(self.raw)

    @property
    def formats_of_kserves_own(self) -> tuple[str, ...]:
        """The formats of the runtime that it names, where that comes with KServe."""
        from kubectl_llmdoctor.platforms import kserve

        return kserve.OWN_FORMATS.get(self.runtime_wanted.name, ()) if self.runtime_wanted else ()

    def fits(self, runtime: Item) -> bool:
        """Whether a ServingRuntime may serve the model format of this InferenceService."""
        from kubectl_llmdoctor.platforms import kserve

        return self.runtime_wanted is not None and kserve.supports(runtime.raw, self.runtime_wanted)


def top_of(item: Item | None, cluster: Cluster) -> Workload | None:
    """The topmost owner of an object: what a person edits. None for an object that nothing owns, or that was not read."""
    chain = [i for i in cluster.chain(item) if i.kind not in ("Node", "Namespace")] if item else []
    edited = [i for i in chain if i.kind not in _DERIVED] or chain
    return Workload(edited[-1], cluster) if edited else None
