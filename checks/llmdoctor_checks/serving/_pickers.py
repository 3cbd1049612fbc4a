"""What endpoint pickers of InferencePools, and routers that look for pods by labels, print of requests that they refuse."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import Cluster, Item, Line, Log, Pod, dig

#: gateway-api-inference-extension and llm-d, `pkg/epp/requestcontrol/director.go`: the older word and the newer.
NO_CANDIDATES = (
    "failed to find candidate pods for serving the request",
    "failed to find endpoint candidates for serving the request",
)

#: The same in `admission.go`: requests that it drops since it counts every server of the pool as full.
SHED = ("system saturated, sheddable request dropped", "request timed out in queue: ", "queue at capacity")

#: What a Deployment or StatefulSet puts behind its own name: "qwen-large-epp-6f7c9-abcde" is no pod of "qwen-epp", nor of "qwen".
_REPLICA = r"-(?:[a-z0-9]{1,10}-[a-z0-9]{5}|\d{1,4})"


def refused_by(pool: Item, cluster: Cluster, words: tuple[str, ...] = NO_CANDIDATES) -> list[Line]:
    """Where the endpoint picker of a pool says so, in the order of its log."""
    said = cluster.once(
        f"pickers: {words[0]}",
        lambda: [(text.namespace, text.pod, line) for text in cluster.snapshot.logs for line in Log(text).find(*words)],
    )
    refs = (dig(pool.raw, f"spec.{ref}.name") for ref in ("extensionRef", "endpointPickerRef"))
    # the charts call a picker by its pool
    names = [pool.name, f"{pool.name}-epp", *(name for name in refs if isinstance(name, str) and name)]
    of_it = re.compile(rf"(?:{'|'.join(map(re.escape, names))}){_REPLICA}")
    return [line for where, who, line in said if where == pool.namespace and of_it.fullmatch(who)]


#: By which labels a router looks for its engines: vLLM's production stack, and the routers of SGLang and vLLM, which take several words.
_LOOKS_FOR = r"(?:^|\s)--(?:k8s-label-selector|selector)[ =]((?:[\w./-]{1,100}=[\w.-]{1,100}[,\s]?){1,8})"

#: A request to generate that it refuses, in its access log: it knows no engine now, or has known none since it started.
_REFUSED = r"\"POST /v1/(?:chat/completions|completions|responses|messages|embeddings) HTTP/[\d.]{1,3}\" (?:404|503)\b"


def refused_for(pod: Pod, cluster: Cluster) -> Iterator[tuple[str, list[Line]]]:
    """Who refuses requests that mean these pods and no others, and where its log says so."""
    for pool in pod.pools:
        yield f"the endpoint picker of InferencePool {pool.name}", refused_by(pool, cluster)
    for text in cluster.snapshot.logs:
        item = cluster.item("Pod", text.namespace, text.pod) if text.namespace == pod.namespace else None
        if item is None or text.previous:
            continue
        container = next((c for c in Pod.of(item, cluster).containers if c.name == text.container), None)
        told = " ".join(container.spec.argv) if container is not None else ""
        if _finds_only(told[:8000], pod, cluster):
            asked = Log(text).find('"POST /v1/')
            yield text.pod, [line for line in asked if re.search(_REFUSED, line.text[:2000])]


def _finds_only(told: str, pod: Pod, cluster: Cluster) -> bool:
    """Whether a router is told to look for the pods of this workload, and would find those of no other."""
    said = re.search(_LOOKS_FOR, told)
    wanted = (
        dict(term.split("=", 1) for term in re.split(r"[,\s]+", said[1].strip(", ")) if "=" in term) if said else {}
    )
    if not wanted or any(pod.labels.get(key) != value for key, value in wanted.items()):
        return False
    found, known = 0, set[str]()
    for kind in ("Deployment", "StatefulSet"):
        for item in cluster.items(kind, pod.namespace):
            known.add(item.name)
            found += _has(dig(item.raw, "spec.template.metadata.labels"), wanted)
    # not every workload of a namespace is read: the pods and the autoscalers tell of those that are not
    scaled = {str(dig(item.raw, "spec.scaleTargetRef.name")) for item in cluster.items("ScaledObject", pod.namespace)}
    if found != 1 or not scaled <= known or not cluster.complete("Pod", pod.namespace):
        return False
    return not any(wanted.items() <= item.labels.items() for item in cluster.items("Pod", pod.namespace))


def _has(labels: object, wanted: dict[str, str]) -> bool:
    return isinstance(labels, dict) and all(str(labels.get(key)) == value for key, value in wanted.items())
