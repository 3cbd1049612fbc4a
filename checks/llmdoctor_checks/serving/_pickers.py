"""What endpoint pickers of InferencePools, and routers that look for pods by labels, print of requests that they refuse."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Finding,
    Item,
    Line,
    Log,
    Logs,
    Pod,
    dig,
    fixes,
    object_evidence,
    pickers_of,
    rows,
)
from llmdoctor_checks.serving._routes import reached

#: gateway-api-inference-extension and llm-d, `pkg/epp/requestcontrol/director.go`: the older word and the newer.
NO_CANDIDATES = (
    "failed to find candidate pods for serving the request",
    "failed to find endpoint candidates for serving the request",
)

#: The same in `admission.go`: requests that it drops since it counts every server of the pool as full.
SHED = ("system saturated, sheddable request dropped", "request timed out in queue: ", "queue at capacity")

#: What a Deployment or StatefulSet puts behind its own name: "qwen-large-epp-6f7c9-abcde" is no pod of "qwen-epp", nor of "qwen".
_REPLICA = r"-(?:[a-z0-9]{1,10}-[a-z0-9]{5}|\d{1,4})"


#: The port of a picker, where a pool names none.
_USUAL = 9002


def refused_by(pool: Item, cluster: Cluster, words: tuple[str, ...] = NO_CANDIDATES) -> list[Line]:
    """Where the endpoint picker of a pool says so, in the order of its log."""
    said = cluster.once(
        f"pickers: {words[0]}",
        lambda: [(text.namespace, text.pod, line) for text in cluster.snapshot.logs for line in Log(text).find(*words)],
    )
    # the charts call a picker by its pool
    names = [pool.name, f"{pool.name}-epp", *pickers_of(pool).values()]
    of_it = re.compile(rf"(?:{'|'.join(map(re.escape, names))}){_REPLICA}")
    return [line for where, who, line in said if where == pool.namespace and of_it.fullmatch(who)]


def unmade(pod: Pod, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """An InferencePool whose endpoint picker is to be a Service that nobody made: no request through it gets a place to go."""
    pools = pod.pools if cluster.complete("Service", pod.namespace) else []
    missed = [(pool, said) for pool in pools if (said := _no_picker(pool, cluster)) is not None]
    for pool, (ref, name) in missed[:1]:
        opens = dig(pool.raw, f"spec.{ref}.failureMode") == "FailOpen"
        # one of two pools may be left over, and who has the pool may ask its pods otherwise
        another = len(missed) < len(pools) or reached(pod, cluster, logs)
        asked = dig(pool.raw, f"spec.{ref}.port.number") or dig(pool.raw, f"spec.{ref}.portNumber") or _USUAL
        alike = [
            item.name
            for item in cluster.items("Service", pod.namespace)
            if item.name.startswith(f"{name}-") and asked in [row.get("port") for row in rows(item.raw, "spec.ports")]
        ]
        yield Finding(
            role="note" if opens else "risk" if another else "cause",
            severity="warning",
            summary=f"InferencePool {pool.name} names Service {name} as its endpoint picker, and there is no such Service: "
            + (
                f"gateways send requests to any pod of the pool, {pod.name} among them (failureMode FailOpen)."
                if opens
                else f"no gateway learns from it where to send requests for {pod.name}."
            ),
            evidence=(object_evidence(pool, f"spec.{ref}.name", name),),
            fix=fixes.set_field(pool, f"/spec/{ref}/name", alike[0], f"Name Service {alike[0]}, which there is")
            if len(alike) == 1
            else fixes.advice(
                f"Set spec.{ref}.name of InferencePool {pool.name} to the Service of its endpoint picker, or bring the picker that "
                "belongs to the pool",
                f"kubectl -n {pod.namespace} get services,pods",
            ),
        )


def _no_picker(pool: Item, cluster: Cluster) -> tuple[str, str] | None:
    """The field in which a pool names a Service as its endpoint picker that is not there, and that name."""
    for ref, name in pickers_of(pool).items():
        of_a_service = dig(pool.raw, f"spec.{ref}.kind") in (None, "", "Service")
        if of_a_service and not cluster.item("Service", pool.namespace, name):
            return ref, name
    return None


#: By which labels a router looks for its engines: vLLM's production stack, and the routers of SGLang and vLLM, which take several words.
_LOOKS_FOR = r"(?:^|\s)--(?:k8s-label-selector|selector)[ =]((?:[\w./-]{1,100}=[\w.-]{1,100}[,\s]?){1,8})"

#: What makes the engines that it finds.
_WORKLOADS = ("Deployment", "StatefulSet")

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
        container = Pod.of(item, cluster).container(text.container)
        told = " ".join(container.spec.argv) if container is not None else ""
        if _finds_only(told[:8000], pod, cluster):
            asked = Log(text).find('"POST /v1/')
            yield text.pod, [line for line in asked if re.search(_REFUSED, line.text[:2000])]


def refused_for_nobody(pod: Pod, cluster: Cluster, logs: Logs) -> Iterator[tuple[Item, list[Line]]]:
    """Of a router: the workloads that it looks for, which all stand at zero, and where its log says what it refused and answered since."""
    for container in pod.containers:
        wanted, log = _looked_for(" ".join(container.spec.argv)[:8000]), logs.current(container.name)
        items = [
            item for kind in _WORKLOADS for item in cluster.items(kind, pod.namespace) if wanted and log is not None
        ]
        items = [item for item in items if _has(dig(item.raw, "spec.template.metadata.labels"), wanted)]
        if log is None or not items or any(dig(item.raw, "spec.replicas") != 0 for item in items):
            continue
        asked = list(log.find('"POST /v1/'))
        refused = [line for line in asked if re.search(_REFUSED, line.text[:2000])]
        if asked[-len(refused) :] == refused:
            yield from ((item, refused) for item in items)


def _looked_for(told: str) -> dict[str, str]:
    """The labels that a router is told to look for."""
    said = re.search(_LOOKS_FOR, told)
    terms = re.split(r"[,\s]+", said[1].strip(", ")) if said else []
    return dict(term.split("=", 1) for term in terms if "=" in term)


def _finds_only(told: str, pod: Pod, cluster: Cluster) -> bool:
    """Whether a router is told to look for the pods of this workload, and would find those of no other."""
    wanted = _looked_for(told)
    if not wanted or any(pod.labels.get(key) != value for key, value in wanted.items()):
        return False
    found, known = 0, set[str]()
    for kind in _WORKLOADS:
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
