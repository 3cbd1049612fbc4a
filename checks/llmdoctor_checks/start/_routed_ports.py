"""Ingresses and routes that send to a port which a Service of the pod does not have.

Sources: ingress-nginx answers 503 for such a path, Envoy's gateways and Istio 500 or 503; OpenShift's router takes the name of a port of
the Service, or the number of one of the pods. Contour takes the number of a port (`HTTPProxy`), Traefik number or name
(`IngressRoute`). The AWS load balancer controller has `use-annotation` for no port at all. ingress-nginx
(controller.go, `serviceEndpoints`) and haproxy-ingress (`FindServicePort`) also take the targetPort of the Service's port for it.
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from kubectl_llmdoctor.api import (
    Cluster,
    Evidence,
    Finding,
    Item,
    Logs,
    Pod,
    answered,
    backends_of,
    dig,
    fixes,
    object_evidence,
    pointer_to,
    rows,
)
from llmdoctor_checks._ingress import class_of

_NO_PORT = "use-annotation"

#: Kinds of Contour and Traefik that lead to Services.
OF_PROXIES = ("HTTPProxy", "IngressRoute")

#: In the names of classes of Ingress whose controllers go by the Service's own ports alone.
_BY_PORT = r"(?i)traefik|(?:^|[-_])(?:alb|gce|kong|istio|contour|cilium)"


class Sent(msgspec.Struct, frozen=True):
    """Where an object sends requests: the path of the port in it, and the port of the Service, by number or name."""

    item: Item
    path: str
    port: int | str


#: A Service by namespace and name, and what sends to it.
_Way = tuple[tuple[str, str], Sent]


def ways_to(service: Item, cluster: Cluster) -> list[Sent]:
    """What sends requests to a Service: Ingresses and routes."""
    return cluster.once("routed ports", lambda: _sent(cluster)).get((service.namespace, service.name), [])


def routed(service: Item, cluster: Cluster) -> Item | None:
    """An Ingress or a route that sends requests to a Service."""
    return next((one.item for one in ways_to(service, cluster)), None)


def routed_elsewhere(pod: Pod, logs: Logs | None) -> Iterator[Finding]:
    """The first such object; a risk where another leads to the server, or it is asked all the same."""
    services = [(item, ways_to(item, pod.cluster)) for item in pod.services]
    ways = sum(len(sent) for _, sent in services)
    for service, sent in services:
        listed = rows(service.raw, "spec.ports")
        numbers = [row["port"] for row in listed if isinstance(row.get("port"), int)]
        has = {*numbers, *(str(row["name"]) for row in listed if row.get("name"))}
        targets = {str(row.get("targetPort")) for row in listed}
        wrong = [
            one
            for one in sent
            if one.port not in has
            and not (isinstance(one.port, str) and any(mark in one.port for mark in "{$<"))
            and not (str(one.port) in targets and _by_target(one.item))
        ]
        if not wrong or not numbers:
            continue
        first, have = wrong[0], ", ".join(map(str, numbers))
        kind = first.item.plain_kind
        asked = any(answered(c.own_log(logs)) for c in pod.containers)
        alone = pod.exists and pod.ready and len(wrong) == ways and not asked
        yield Finding(
            role="cause" if alone else "risk",
            severity="warning",
            summary=f"{kind} {first.item.name} sends to port {first.port} of Service {service.name}, which has {have}: requests through it "
            "are answered with an error.",
            evidence=(
                object_evidence(first.item, first.path, str(first.port)),
                Evidence(source="workload", ref=f"Service/{service.name} spec.ports", text=f"port: {have}"),
            ),
            fix=fixes.set_field(first.item, pointer_to(first.path), numbers[0], f"Send to port {numbers[0]}")
            if len(numbers) == 1 and isinstance(first.port, int)
            else fixes.advice(f"Name a port in {kind}/{first.item.name} that Service {service.name} has ({have})"),
        )
        return


def _sent(cluster: Cluster) -> dict[tuple[str, str], list[Sent]]:
    """What sends requests to each Service, by namespace and name, and at which of its ports."""
    found: dict[tuple[str, str], list[Sent]] = {}
    ways = (
        *_ingresses(cluster),
        *_http_routes(cluster),
        *_virtual_services(cluster),
        *_openshift_routes(cluster),
        *_proxies(cluster),
    )
    for service, one in ways:
        found.setdefault(service, []).append(one)
    return found


def _ingresses(cluster: Cluster) -> Iterator[_Way]:
    for item in cluster.items("Ingress"):
        at = "spec.defaultBackend.service"
        backends = [(at, dig(item.raw, at))]
        for index, rule in enumerate(rows(item.raw, "spec.rules")):
            for number, path in enumerate(rows(dig(rule, "http"), "paths")):
                at = f"spec.rules[{index}].http.paths[{number}].backend.service"
                backends.append((at, dig(path, "backend.service")))
        for at, backend in backends:
            for key in ("number", "name"):
                port = dig(backend, f"port.{key}")
                if isinstance(port, int | str) and port != _NO_PORT:
                    yield (item.namespace, str(dig(backend, "name"))), Sent(item, f"{at}.port.{key}", port)


def _http_routes(cluster: Cluster) -> Iterator[_Way]:
    for item in cluster.items("HTTPRoute"):
        for backend in backends_of(item):
            port = backend.raw.get("port")
            if backend.kind == "Service" and isinstance(port, int):
                yield backend.place, Sent(item, f"{backend.path}.port", port)


def _virtual_services(cluster: Cluster) -> Iterator[_Way]:
    for item in cluster.items("VirtualService"):
        for index, route in enumerate(rows(item.raw, "spec.http")):
            for number, to in enumerate(rows(route, "route")):
                name, _, rest = str(dig(to, "destination.host")).partition(".")
                port, space = dig(to, "destination.port.number"), rest.partition(".")[0] or item.namespace
                if isinstance(port, int):
                    path = f"spec.http[{index}].route[{number}].destination.port.number"
                    yield (space, name), Sent(item, path, port)


def _proxies(cluster: Cluster) -> Iterator[_Way]:
    """Contour's and Traefik's own kinds, which list Services alike; Traefik's may name one of another namespace."""
    for kind in OF_PROXIES:
        for item in cluster.items(kind):
            for path, service in listed_services(item):
                if isinstance(service.get("port"), int | str):
                    place = (str(service.get("namespace") or item.namespace), str(service.get("name")))
                    yield place, Sent(item, f"{path}.port", service["port"])


def listed_services(item: Item) -> Iterator[tuple[str, dict[str, Any]]]:
    """The Services of an HTTPProxy or IngressRoute, each with its path in it."""
    for index, route in enumerate(rows(item.raw, "spec.routes")):
        for number, service in enumerate(rows(route, "services")):
            if service.get("kind") in (None, "Service"):
                yield f"spec.routes[{index}].services[{number}]", service


def _openshift_routes(cluster: Cluster) -> Iterator[_Way]:
    for item in cluster.items("Route"):
        port = dig(item.raw, "spec.port.targetPort")
        if isinstance(port, str) and not port.isdecimal():
            yield (item.namespace, str(dig(item.raw, "spec.to.name"))), Sent(item, "spec.port.targetPort", port)


def _by_target(item: Item) -> bool:
    """Whether its controller may take the port of the pods for that of the Service."""
    name = class_of(item)
    return item.plain_kind == "Ingress" and re.search(_BY_PORT, name) is None
