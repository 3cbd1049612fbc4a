"""Services that lead to a pod."""

from __future__ import annotations

from kubectl_llmdoctor.api import Item, Pod, dig


def service_of(pod: Pod) -> Item | None:
    """The first Service that sends requests to the pod; a headless one is for its peers."""
    return next((item for item in pod.services if dig(item.raw, "spec.clusterIP") != "None"), None)
