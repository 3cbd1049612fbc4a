"""Services and InferencePools that lead to a pod."""

from __future__ import annotations

import re

from kubectl_llmdoctor.api import Cluster, Item, Pod, dig


def service_of(pod: Pod) -> Item | None:
    """The first Service that sends requests to the pod; a headless one is for its peers."""
    return next((item for item in pod.services if dig(item.raw, "spec.clusterIP") != "None"), None)


def called(host: str, pod: Pod) -> tuple[str, str] | None:
    """Namespace and name of the Service that a host means for a pod; None for an address, and a name that is outside for certain."""
    name, _, rest = host.partition(".")
    if not re.fullmatch(r"(?=.*[a-z])[a-z\d-]{1,63}", name) or not re.fullmatch(
        r"(?:[a-z][a-z\d-]{0,62}(?:\.svc(?:\.[\w.-]{1,200})?)?)?", rest
    ):
        return None
    return rest.partition(".")[0] or pod.namespace, name


def has_namespace(namespace: str, cluster: Cluster) -> bool:
    """Whether a namespace is known to be there: `ollama.lan` may be a Service of the namespace lan, and a machine of the house."""
    return bool(cluster.exists("Namespace", "", namespace)) or any(
        next(cluster.items(kind, namespace), None) is not None for kind in ("Pod", "Service")
    )


def picked_by(pool: Item, pod: Pod) -> bool:
    """Whether an InferencePool selects a pod: by `matchLabels`, or, before its v1, by the labels themselves."""
    selector = dig(pool.raw, "spec.selector")
    wanted = selector.get("matchLabels", selector) if isinstance(selector, dict) else None
    labels = {key: str(value) for key, value in pod.obj.metadata.labels.items()}
    return isinstance(wanted, dict) and bool(wanted) and all(labels.get(k) == str(v) for k, v in wanted.items())
