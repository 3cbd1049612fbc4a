"""Which autoscalers decide on the replicas of a workload."""

from collections.abc import Collection, Iterator

from kubectl_llmdoctor.api import Cluster, Item, dig


def scalers_of(kind: str, namespace: str, scaled: Collection[tuple[str, str]], cluster: Cluster) -> Iterator[Item]:
    """The autoscalers of a kind whose target is one of these, each by its kind and name; KEDA takes a Deployment where none is stated."""
    for scaler in cluster.items(kind, namespace):
        target = dig(scaler.raw, "spec.scaleTargetRef")
        if (dig(target, "kind") or "Deployment", dig(target, "name")) in scaled:
            yield scaler
