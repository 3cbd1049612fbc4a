"""Services that lead to a pod."""

from __future__ import annotations

from kubectl_llmdoctor.api import Item, Pod, dig
from llmdoctor_checks.serving._exposure import selects


def service_of(pod: Pod) -> Item | None:
    """The first Service that sends requests to the pod; a headless one is for its peers."""
    services = pod.cluster.items("Service", pod.namespace)
    return next((item for item in services if dig(item.raw, "spec.clusterIP") != "None" and selects(item, pod)), None)
