"""Services and InferencePools that lead to a pod."""

from __future__ import annotations

from kubectl_llmdoctor.api import Item, Pod, dig


def service_of(pod: Pod) -> Item | None:
    """The first Service that sends requests to the pod; a headless one is for its peers."""
    return next((item for item in pod.services if dig(item.raw, "spec.clusterIP") != "None"), None)


def picked_by(pool: Item, pod: Pod) -> bool:
    """Whether an InferencePool selects a pod: by `matchLabels`, or, before its v1, by the labels themselves."""
    selector = dig(pool.raw, "spec.selector")
    wanted = selector.get("matchLabels", selector) if isinstance(selector, dict) else None
    labels = pod.labels
    return isinstance(wanted, dict) and bool(wanted) and all(labels.get(k) == str(v) for k, v in wanted.items())
