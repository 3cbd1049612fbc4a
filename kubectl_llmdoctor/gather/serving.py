"""The engines of the pods that are explained, as gathering needs them: where they listen and what may be asked of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import NamedTuple

from kubectl_llmdoctor.facts import clients, destinations
from kubectl_llmdoctor.facts.cluster import Cluster, Item
from kubectl_llmdoctor.facts.engine import Engine, engines_of
from kubectl_llmdoctor.facts.logs import Logs
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.routes import pickers_of
from kubectl_llmdoctor.gather.prometheus.queries import PODS, PodRef
from kubectl_llmdoctor.gather.related import key_of, namespace_of
from kubectl_llmdoctor.snapshot import Json, LogText, Snapshot
from kubectl_llmdoctor.tree import dig, say_selector

#: Whom a text names: the host of an address, or of a host and a port as gateways are told them; and ends of names of the world.
_NAME = r"[a-z][a-z0-9-]{0,62}(?:\.[a-z0-9-]{1,63}){0,5}"
_HOST = rf"https?://({_NAME})(?=[:/\s\"']|$)|(?<![\w./:-])({_NAME})(?=:\d{{2,5}}\b)"
#: The name of a pod of a StatefulSet before that of its Service, and not a Service's before a namespace.
_OF_A_SET = r"[a-z0-9-]{1,63}-\d{1,4}\.(?![a-z0-9-]{1,63}\.svc(?:\.|$))"
#: What a line says where something did not connect.
_IN_VAIN = r"(?i)refused|unreach|not reach|t reach|to connect|not connect|no such host|not known|to resolve|not resolve|timed out"
_WORLD = r"\.(?:com|net|org|io|ai|dev|co|de|local|internal|lan|home|cloud|app|xyz)$"


#: Of access logs: how much of them is looked at from the end, and a client's address.
_TAIL_CHARS = 1 << 16
_ADDRESS = r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.])"
#: vLLM's word for a name that it does not serve (entrypoints/openai/serving_engine.py).
_NO_MODEL = " does not exist."


#: Of the proxies of a gateway, or the engines of the other side, so many say what the others would.
_ALIKE = 2


class Paths(NamedTuple):
    """What an engine answers without being asked to generate anything; the first metrics path that exists counts."""

    health: str
    metrics: tuple[str, ...]
    #: what it says of itself: version, the models that it serves
    about: tuple[str, ...]


#: By engine. Left out on purpose: `/health` of SGLang and TGI, which generates a token, and `/metrics` of TensorRT-LLM,
#: which takes the statistics away from whoever reads them otherwise.
_PATHS = {
    "vllm": Paths("/health", ("/metrics",), ("/version", "/v1/models")),
    "sglang": Paths("/v1/models", ("/metrics",), ("/server_info", "/get_server_info")),
    "tgi": Paths("/info", ("/metrics",), ()),
    "tensorrt-llm": Paths("/health", ("/prometheus/metrics",), ("/version", "/v1/models")),
    "triton": Paths("/v2/health/ready", ("/metrics",), ()),
    "nim": Paths("/v1/health/ready", ("/v1/metrics", "/metrics"), ("/v1/version", "/v1/models")),
    "llama.cpp": Paths("/health", ("/metrics",), ("/v1/models",)),
    "lmdeploy": Paths("/v1/models", ("/metrics",), ()),
    "huggingfaceserver": Paths("/v2/health/ready", ("/metrics",), ("/v1/models",)),
    "ollama": Paths("/api/version", (), ("/api/ps", "/api/tags")),
}


class Served(NamedTuple):
    """An engine that a pod runs and that should answer: its container is ready."""

    namespace: str
    pod: str
    container: str
    engine: str
    port: int
    metrics_port: int
    scheme: str
    paths: Paths


def cluster_of(objects: Iterable[Json]) -> Cluster:
    """The facts of what has been read so far."""
    return Cluster(Snapshot(objects=tuple(objects)))


def refs(cluster: Cluster, pods: list[Json]) -> list[PodRef]:
    """The pods as Prometheus is asked about them, then their replicas: how those do says what is wrong with these."""
    explained = _pods(cluster, pods)
    room = max(PODS - len(explained), 0)
    every = (*explained, *_replicas(cluster, explained)[:room])
    return [_ref(cluster, pod, engines_of(pod, Logs([]))) for pod in every]


def _replicas(cluster: Cluster, pods: list[Pod]) -> list[Pod]:
    """The other pods of what owns these."""
    owners = {id(_top(cluster, pod)) for pod in pods} - {id(None)}
    names = {(pod.namespace, pod.name) for pod in pods}
    others = (Pod.of(item, cluster) for item in cluster.items("Pod") if (item.namespace, item.name) not in names)
    return [pod for pod in others if id(_top(cluster, pod)) in owners]


def served(cluster: Cluster, pods: list[Json]) -> list[Served]:
    """The engines of these pods that should answer on a port that is known."""
    return [row for pod in _pods(cluster, pods) for engine in engines_of(pod, Logs([])) for row in _served(pod, engine)]


def askers(cluster: Cluster, pods: list[Json]) -> list[Json]:
    """Other pods that ask those of these that are ready or end, for clients of theirs too, and what stands before them: endpoint
    pickers, proxies of gateways, the other side of disaggregated serving.

    Only they may say what fails.
    """
    explained = _pods(cluster, pods)
    found: dict[tuple[str, str], Pod] = {}
    further: dict[tuple[str, str], Pod] = {}
    for pod in explained:
        if not pod.ready and not pod.obj.metadata.deletion_timestamp:
            continue
        for front in _asking(cluster, pod):
            found[front.namespace, front.name] = front
            # whoever asks it for an answer of this server, as LiteLLM's clients do
            further |= {(one.namespace, one.name): one for one in _asking(cluster, front, alone=pod)}
        before = (*clients.proxies(pod, cluster)[:_ALIKE], *_other_side(cluster, pod)[:_ALIKE])
        found |= {(other.namespace, other.name): other for other in (*_pickers(cluster, pod.namespace), *before)}
    mine = {(pod.namespace, pod.name) for pod in explained}
    near = [pod for name, pod in sorted(found.items()) if name not in mine]
    far = [pod for name, pod in sorted(further.items()) if name not in mine and name not in found]
    return [pod.item.raw for pod in (*near, *far) if pod.item is not None]


def knowing_adapters(objects: Iterable[Json], pods: list[Json], logs: Iterable[LogText]) -> list[Json]:
    """Replicas of those of these pods that take LoRA adapters and do not know a model for which they are asked: which adapters were
    loaded into a server while it ran stands in its log alone.
    """
    in_vain = {(log.namespace, log.pod) for log in logs if _NO_MODEL in log.text[-_TAIL_CHARS:]}
    asked = [pod for pod in pods if key_of(pod) in in_vain]
    if not asked:
        return []
    cluster = cluster_of(objects)
    takes = (pod for pod in _pods(cluster, asked) if any(e.value("enable_lora") for e in engines_of(pod, Logs([]))))
    return [pod.item.raw for pod in _replicas(cluster, [*takes]) if pod.ready and pod.item is not None]


def choosers(cluster: Cluster, namespaces: Iterable[str]) -> list[Json]:
    """The endpoint pickers of some namespaces, and the routers there that look for their engines by labels."""
    found = dict[tuple[str, str], Pod]()
    for namespace in sorted(namespaces):
        every = (Pod.of(item, cluster) for item in cluster.items("Pod", namespace))
        routers = (pod for pod in every if any(any(clients.sought(container)) for container in pod.containers))
        found |= {(pod.namespace, pod.name): pod for pod in (*_pickers(cluster, namespace), *routers)}
    return [pod.item.raw for _, pod in sorted(found.items()) if pod.item is not None]


def clients_seen(objects: Iterable[Json], pods: list[Json], logs: Iterable[LogText]) -> list[Json]:
    """Other pods of the namespaces of these whose requests the last part of their logs names by the client's address: what they
    asked for, or that they were told to come back later.
    """
    mine = {key_of(pod) for pod in pods}
    lines = (line for log in logs if (log.namespace, log.pod) in mine for line in log.text[-_TAIL_CHARS:].splitlines())
    seen = {
        address for line in lines if "POST" in line or '" 503' in line for address in re.findall(_ADDRESS, line[:2000])
    }
    near = {namespace for namespace, _ in mine}
    found = {}
    for pod in objects if seen else ():
        if pod.get("kind") != "Pod" or namespace_of(pod) not in near or (name := key_of(pod)) in mine:
            continue
        # a pod in its node's network has the address of the kubelet, too
        if dig(pod, "status.podIP") in seen and not dig(pod, "spec.hostNetwork"):
            found[name] = pod
    return [pod for _, pod in sorted(found.items(), key=itemgetter(0))]


def asked(cluster: Cluster, pods: list[Json]) -> list[tuple[str, str]]:
    """The Services (namespace and name) that those of these pods are told to ask which fail, or run no engine themselves."""
    return _services_in(
        (
            (pod, text)
            for pod in _pods(cluster, pods)
            for container in (pod.containers if pod.failing or not engines_of(pod, Logs([])) else ())
            for _, text in clients.told_by(container)
        ),
        cluster,
    )


def sought(cluster: Cluster, pods: list[Json]) -> list[tuple[str, str]]:
    """By which labels (namespace and selector) routers among these pods look for their servers."""
    found = (one for pod in _pods(cluster, pods) for container in pod.containers for one in clients.sought(container))
    return list(dict.fromkeys((there, say_selector(labels)) for _, there, labels in found))


def in_vain(pods: list[Json], logs: Iterable[LogText]) -> list[tuple[str, str, str]]:
    """The lines, with namespace and name of the pod, in the last part of the logs of these pods where something did not connect."""
    names = {key_of(pod) for pod in pods}
    said = (log for log in logs if (log.namespace, log.pod) in names)
    lines = ((log.namespace, log.pod, line[:2000]) for log in said for line in log.text[-_TAIL_CHARS:].splitlines())
    return [one for one in lines if re.search(_IN_VAIN, one[2]) and re.search(_HOST, one[2])]


def asked_in_vain(cluster: Cluster, lines: list[tuple[str, str, str]]) -> list[tuple[str, str]]:
    """The Services that such lines name."""
    items = [(cluster.item("Pod", namespace, name), line) for namespace, name, line in lines]
    return _services_in(((Pod.of(item, cluster), line) for item, line in items if item is not None), cluster)


def _services_in(texts: Iterable[tuple[Pod, str]], cluster: Cluster) -> list[tuple[str, str]]:
    """The Services that some texts of pods name, also by one of their pods; without those of the pods themselves."""
    found: dict[tuple[str, str], None] = {}
    mine: set[tuple[str, str]] = set()
    for pod, text in texts:
        mine |= {(item.namespace, item.name) for item in pod.services}
        for host in map("".join, re.findall(_HOST, text)):
            guess = not re.search(_WORLD, host)
            for name in (host, host.partition(".")[2]) if re.match(_OF_A_SET, host) else (host,):
                meant = destinations.named(name, pod.namespace, cluster, guess=guess)
                if meant is not None:
                    found[meant[1], meant[0]] = None
    there = {(item.namespace, item.name) for item in cluster.items("Service")}
    return [one for one in found if one not in mine and (one in there or not cluster.complete("Service", one[0]))]


def _asking(cluster: Cluster, pod: Pod, alone: Pod | None = None) -> list[Pod]:
    """Pods that ask another; where `alone` is given, of one that asks no other server of models than that."""
    names = {item.name for item in pod.services}
    if alone is not None:
        served = {item.name for item in alone.services}
        if not all(clients.speaks_of_one(c, alone, served) for c in pod.containers):
            return []
    return [c.pod for c, _, _ in clients.askers(pod, names, cluster)]


def _other_side(cluster: Cluster, pod: Pod) -> list[Pod]:
    """The pods of its namespace that hand a pod's engine their KV caches, or take its."""
    sides = _sides(pod)
    if not sides:
        return []
    others = (Pod.of(item, cluster) for item in cluster.items("Pod", pod.namespace))
    every = cluster.once(
        f"sides in {pod.namespace}", lambda: [(one, found) for one in others if (found := _sides(one))]
    )
    return [one for one, found in every if found - sides]


def _sides(pod: Pod) -> set[str]:
    return {engine.side for engine in engines_of(pod, Logs([]))} - {""}


def _pickers(cluster: Cluster, namespace: str) -> Iterator[Pod]:
    """The pods that choose for the InferencePools of a namespace which of their pods is asked."""
    for pool in cluster.items("InferencePool", namespace):
        names = tuple(f"{name}-" for name in pickers_of(pool).values())
        for item in cluster.items("Pod", namespace) if names else ():
            if item.name.startswith(names):
                yield Pod.of(item, cluster)


def _pods(cluster: Cluster, pods: list[Json]) -> list[Pod]:
    names = sorted({key_of(pod) for pod in pods})
    items = [item for namespace, name in names if (item := cluster.item("Pod", namespace, name))]
    return [Pod.of(item, cluster) for item in items]


def _top(cluster: Cluster, pod: Pod) -> Item | None:
    """What owns the pod in the end."""
    chain = list(cluster.chain(pod.item)) if pod.item else []
    return chain[-1] if chain else None


def _ref(cluster: Cluster, pod: Pod, engines: list[Engine]) -> PodRef:
    chain = cluster.chain(pod.item) if pod.item else ()
    return PodRef(
        namespace=pod.namespace,
        name=pod.name,
        address="" if pod.spec.host_network else pod.status.pod_ip,
        engines=tuple(sorted({(engine.name, engine.version) for engine in engines}, key=str)),
        workloads=tuple((item.plain_kind, item.name) for item in chain),
        hosts=tuple(filter(None, (pod.spec.node_name, pod.status.host_ip))),
    )


def _served(pod: Pod, engine: Engine) -> Iterable[Served]:
    container, paths = engine.container, _PATHS.get(engine.name)
    port = engine.value("port") or next((p.container_port for p in container.spec.ports), None)
    if paths is None or not isinstance(port, int) or not container.running or not container.status.ready or pod.leaving:
        return
    probe = container.spec.readiness_probe
    secure = probe is not None and probe.http_get is not None and probe.http_get.scheme == "HTTPS"
    metrics_port = engine.value("metrics_port", port) if engine.name == "triton" else port
    yield Served(
        namespace=pod.namespace,
        pod=pod.name,
        container=container.name,
        engine=engine.name,
        port=port,
        metrics_port=metrics_port if isinstance(metrics_port, int) else port,
        scheme="https" if secure else "http",
        paths=paths,
    )
