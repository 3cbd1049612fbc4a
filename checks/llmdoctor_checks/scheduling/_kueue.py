"""What Kueue keeps of a job or pod that it queues."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_llmdoctor.api import Cluster, Item, Subject, rows

#: The Workload of a group of pods has the name of the group (pkg/controller/jobs/pod).
GROUP = "kueue.x-k8s.io/pod-group-name"


def workloads(subject: Subject, cluster: Cluster) -> Iterator[Item]:
    """Kueue's Workload objects of this target: owned by one of its objects or their owners, or named by its pods as their group."""
    owners = [owner for pod in subject.pods for owner in pod.obj.metadata.owner_references]
    mine = {item.uid for item in subject.related.values() if item.uid} | {o.uid for o in owners if o.uid}
    names = {*subject.related, *((o.kind, o.name) for o in owners)}
    groups = {pod.labels.get(GROUP) for pod in subject.pods}
    for item in cluster.items("Workload", subject.namespace):
        refs = rows(item.raw, "metadata.ownerReferences")
        owned = any(str(r.get("uid")) in mine or (str(r.get("kind")), str(r.get("name"))) in names for r in refs)
        if owned or item.name in groups:
            yield item
