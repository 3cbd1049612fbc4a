"""Where a host and a port lead in the cluster: the Service, which of its ports, and the pods behind it with what they run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from kubectl_llmdoctor.facts.cluster import Cluster, Item
from kubectl_llmdoctor.facts.engine import Engine, engines_of
from kubectl_llmdoctor.facts.logs import Log, Logs
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.workload import Workload
from kubectl_llmdoctor.tree import dig, rows

#: Addresses of a pod's own, and that of an IPv4 address.
_LOOPBACK, _ADDRESS = r"localhost|127(?:\.\d{1,3}){3}|\[?::1\]?|0\.0\.0\.0", r"\d{1,3}(?:\.\d{1,3}){3}"
#: What may follow the name of a Service: its namespace, and the domain of the cluster.
_INSIDE = r"(?P<namespace>[a-z0-9][\w-]{0,62})?(?:(?:^|\.)svc(?:\.[\w.-]{1,200})?)?"
#: Names without this end are mostly of the world: only a namespace that is there makes one with a dot a Service's.
_DOMAINS = r"\.svc(?:\.|$)"

#: What takes traces and metrics, by its name and by its port.
_TELEMETRY = r"(?i)otel|opentelemetry|telemetry|jaeger|tempo|zipkin|prometheus|langfuse|phoenix|sentry|statsd"
_TELEMETRY_PORTS = frozenset({4317, 4318, 8125, 9411, 14268})


class Destination(msgspec.Struct, frozen=True):
    """What an address means to a pod, as far as the objects say so."""

    host: str
    port: int | None
    #: the Service by namespace and name; of the address of a pod, and of the pod itself, no name
    namespace: str
    name: str
    service: Item | None
    #: the port of the Service that is asked, as its list has it
    row: dict[str, Any] | None
    pods: tuple[Pod, ...]
    #: whether it is the pod that asks
    itself: bool = False

    @property
    def others(self) -> tuple[Pod, ...]:
        """The pods behind it, none where it is the pod that asks."""
        return () if self.itself else self.pods

    @property
    def shown(self) -> str:
        """The address as a person writes it."""
        return self.host if self.port is None else f"{self.host}:{self.port}"

    def target(self, pod: Pod) -> int | None:
        """The port of a pod behind it at which a request arrives; None for a name that no container declares."""
        if self.service is None or is_headless(self.service):
            return self.port  # the pods of a headless one are asked themselves
        wanted = self.row.get("targetPort", self.row.get("port")) if self.row else None
        if isinstance(wanted, str) and wanted.isdecimal():
            return int(wanted)
        return wanted if isinstance(wanted, int) or wanted is None else pod.port_named(wanted)


def of_a_machine(host: str) -> bool:
    """Whether a name is what Docker or Podman call the machine on which a container runs; a cluster's DNS does not have it by itself."""
    return re.fullmatch(r"(?:host|gateway)\.(?:docker|containers)\.internal", host) is not None


def is_loopback(url: str) -> bool:
    """Whether an address is of the pod itself that asks."""
    return re.match(rf"https?://(?:{_LOOPBACK})(?![\w.])", url) is not None


def service_at(host: str, here: str, cluster: Cluster) -> Item | None:
    """The Service that a host means in the namespace `here`: by its name, or by its address."""
    if re.fullmatch(_ADDRESS, host):
        return _by_address(cluster).get(host)
    name, namespace = named(host, here, cluster) or ("", "")
    return cluster.item("Service", namespace, name) if name else None


#: What a host of the cluster is called; with an underscore it is none of a Service, but meant for one (Compose allows it).
_CALLED = r"[a-z][a-z0-9_-]{0,62}"


def named(host: str, here: str, cluster: Cluster, *, guess: bool = False) -> tuple[str, str] | None:
    """The name and the namespace of the Service that a host would be; None for a name of the world.

    A name with one dot is taken for one where its namespace is known, or for a `guess`.
    """
    name, _, rest = host.lower().rstrip(".").partition(".")
    said = re.fullmatch(_INSIDE, rest)
    if not name or said is None or re.fullmatch(_LOOPBACK, host) or not re.fullmatch(_CALLED, name):
        return None
    namespace = said["namespace"] or here
    if rest and not guess and not re.search(_DOMAINS, host) and not has_namespace(namespace, cluster):
        return None
    return name, namespace


def follow(host: str, port: int | None, pod: Pod, cluster: Cluster) -> Destination | None:
    """Where an address leads that a pod asks; None for one outside of the cluster, or one that nobody knows."""
    if re.fullmatch(_LOOPBACK, host):
        return Destination(host, port, pod.namespace, "", None, None, (pod,), itself=True)
    if re.fullmatch(_ADDRESS, host) and (item := _by_address(cluster).get(host)) is None:
        found = cluster.once("live pods by address", lambda: _addressed(cluster)).get(host, ())
        return Destination(host, port, found[0].namespace, "", None, None, found) if found else None
    item = service_at(host, pod.namespace, cluster)
    if item is None and (own := _of_its_own(host, pod, cluster)) is not None:
        service, one = own
        return Destination(host, port, one.namespace, service.name, service, None, (one,))
    if item is None:
        meant = (host, pod.namespace) if of_a_machine(host) else named(host, pod.namespace, cluster)
        return Destination(host, port, meant[1], meant[0], None, None, ()) if meant else None
    listed = rows(item.raw, "spec.ports")
    # without a port in the log the only one is meant
    asked = next((row for row in listed if row.get("port") == port), None)
    row = listed[0] if port is None and len(listed) == 1 else asked
    return Destination(host, port, item.namespace, item.name, item, row, _behind(item, cluster))


def _of_its_own(host: str, asker: Pod, cluster: Cluster) -> tuple[Item, Pod] | None:
    """The pod whose own name stands before that of its headless Service in a host, as the pods of a StatefulSet are asked.

    Of the asker's own group none: ranks wait for each other.
    """
    own, _, rest = host.lower().partition(".")
    service = service_at(rest, asker.namespace, cluster) if rest else None
    if service is None or not is_headless(service):
        return None
    pods = {pod.spec.hostname or pod.name: pod for pod in _behind(service, cluster)}
    mine = any(pod.item is asker.item for pod in pods.values())
    return (service, pods[own]) if own in pods and not mine else None


def takes_telemetry(host: str, port: int | None) -> bool:
    """Whether a server takes traces and metrics: a program does without."""
    return port in _TELEMETRY_PORTS or re.search(_TELEMETRY, host) is not None


def is_headless(service: Item) -> bool:
    """Whether a Service has no address of its own: its name leads to the pods themselves."""
    return bool(dig(service.raw, "spec.clusterIP") == "None")


def selector_of(service: Item) -> dict[str, str]:
    """The labels that a Service wants; none of one whose endpoints somebody else makes."""
    found = dig(service.raw, "spec.selector")
    plain = isinstance(found, dict) and dig(service.raw, "spec.type") != "ExternalName"
    return {str(key): str(value) for key, value in found.items()} if plain else {}


def engines_in(pod: Pod) -> list[Engine]:
    """The engines of any pod of the snapshot, by its own logs too."""
    return pod.cluster.once(f"engines in {pod.namespace}/{pod.name}", lambda: engines_of(pod, logs_of(pod)))


def logs_of(pod: Pod) -> Logs:
    """The logs of any pod of the snapshot."""
    cluster = pod.cluster
    found = cluster.once("logs by pod", lambda: _logs(cluster))
    return Logs([Log(text) for text in found.get((pod.namespace, pod.name), ())])


def current_logs(cluster: Cluster) -> Iterator[Log]:
    """The logs of the containers' latest instances, of all pods that were read."""
    return (Log(text) for text in cluster.snapshot.logs if not text.previous)


def idle_workload(service: Item, cluster: Cluster) -> Item | None:
    """A workload whose pods the Service would select, and which is scaled to none."""
    wanted = selector_of(service)
    for kind in ("Deployment", "StatefulSet", "LeaderWorkerSet", "ReplicaSet"):
        for item in cluster.items(kind, service.namespace) if wanted else ():
            older = kind == "ReplicaSet" and rows(
                item.metadata, "ownerReferences"
            )  # by a Deployment, which runs another one
            if dig(item.raw, "spec.replicas") != 0 or older:
                continue
            templates = (t.metadata.label_texts for _, t in Workload(item, cluster).templates)
            if any(wanted.items() <= labels.items() for labels in templates):
                return item
    return None


def _behind(service: Item, cluster: Cluster) -> tuple[Pod, ...]:
    key = f"pods behind {service.namespace}/{service.name}"
    return cluster.once(key, lambda: tuple(_selected(service, cluster)))


def _selected(service: Item, cluster: Cluster) -> Iterator[Pod]:
    wanted = selector_of(service)
    for pod in _pods(cluster, service.namespace) if wanted else ():
        labels = pod.labels
        if wanted.items() <= labels.items():
            yield pod


def _pods(cluster: Cluster, namespace: str) -> list[Pod]:
    """The pods of a namespace that have not ended: the address of one that has may be another's by now."""
    return cluster.once(f"pods in {namespace}", lambda: list(_alive(cluster, namespace)))


def _alive(cluster: Cluster, namespace: str | None) -> Iterator[Pod]:
    for item in cluster.items("Pod", namespace):
        pod = Pod.of(item, cluster)
        if not pod.completed and not pod.leaving and pod.status.phase not in ("Succeeded", "Failed"):
            yield pod


def _addressed(cluster: Cluster) -> dict[str, tuple[Pod, ...]]:
    found: dict[str, tuple[Pod, ...]] = {}
    for pod in _alive(cluster, None):
        if pod.status.pod_ip and not pod.spec.host_network:
            found[pod.status.pod_ip] = (*found.get(pod.status.pod_ip, ()), pod)
    return found


def _by_address(cluster: Cluster) -> dict[str, Item]:
    return cluster.once(
        "services by address", lambda: {str(dig(item.raw, "spec.clusterIP")): item for item in cluster.items("Service")}
    )


def has_namespace(namespace: str, cluster: Cluster) -> bool:
    """Whether a namespace is known to be there: `ollama.lan` may be a Service of the namespace lan, and a machine of the house."""
    # a list of the whole cluster says nothing of a namespace of which it has nothing
    return cluster.item("Namespace", "", namespace) is not None or any(
        next(cluster.items(kind, namespace), None) is not None
        or (cluster.complete(kind, namespace) and not cluster.complete(kind))
        for kind in ("Service", "Pod")
    )


def _logs(cluster: Cluster) -> dict[tuple[str, str], list[Any]]:
    found: dict[tuple[str, str], list[Any]] = {}
    for text in cluster.snapshot.logs:
        found.setdefault((text.namespace, text.pod), []).append(text)
    return found
