"""What Kueue keeps of a job or pod that it queues."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_llmdoctor.api import Cluster, Item, Subject
from llmdoctor_checks._raw import rows


def workloads(subject: Subject, cluster: Cluster) -> Iterator[Item]:
    """Kueue's Workload objects of this target: owned by one of its objects."""
    mine = {item.uid for item in subject.related.values() if item.uid}
    names = set(subject.related)
    for item in cluster.items("Workload", subject.namespace):
        refs = rows(item.raw, "metadata.ownerReferences")
        if any(str(r.get("uid")) in mine or (str(r.get("kind")), str(r.get("name"))) in names for r in refs):
            yield item
