"""Services that lead to a pod."""

from __future__ import annotations

from kubectl_llmdoctor.api import Item, Pod, k8s


def service_of(pod: Pod) -> Item | None:
    """The first Service that sends requests to the pod; a headless one is for its peers."""
    labels = {key: str(value) for key, value in pod.obj.metadata.labels.items()}
    for item in pod.cluster.items("Service", pod.namespace):
        service = item.typed()
        if not isinstance(service, k8s.Service) or service.spec.cluster_ip == "None":
            continue
        selector = service.spec.selector
        if selector and all(labels.get(key) == str(value) for key, value in selector.items()):
            return item
    return None
