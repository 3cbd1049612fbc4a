"""Ingresses and routes to a Service or pool that is not there, and that is called like the pod's but for its ending.

That it is not there the lists say that were read, or who looked for it. Sources: the condition ResolvedRefs of the Gateway API; Contour's
`httpproxy_processor.go` (errors of the condition Valid); Traefik's provider for its own kinds (`kubernetes_http.go`); events of the
controllers of AWS, Google and Azure (`pkg/events` of its application gateway); Envoy's access log, for a cluster that it does not know
(`cluster_not_found`), whose name Istio makes of the Service.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import (
    Cluster,
    Evidence,
    Finding,
    Fix,
    Item,
    Logs,
    Pod,
    backends_of,
    current_logs,
    dig,
    event_evidence,
    events_of,
    fixes,
    log_evidence,
    object_evidence,
    pointer_to,
    rows,
    table,
)
from llmdoctor_checks.serving._routes import SUFFIX, reached, refusal
from llmdoctor_checks.start._routed_ports import OF_PROXIES, listed_services

#: How a pool ends besides.
_ENDING = rf"{SUFFIX}|-(?:inference-?)?pool$"

#: What Envoy and Traefik say of a Service that is not there; it follows in the line.
LITERALS = ("cluster_not_found", "kubernetes service not found: ")

#: The same of an Ingress, in events of those who make load balancers for it.
_EVENTS = r"not found|non existent Service|Unable to get the service|does not exist"


class _Way(msgspec.Struct, frozen=True):
    """Where an object names a Service or pool: the path in it of what names it, the name as it stands there, and the port of a Service."""

    item: Item
    path: str
    kind: str
    namespace: str
    name: str
    written: str
    port: object = None


def misnamed(pod: Pod, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """The first such object, where nothing else leads to the pod, and nobody asks it."""
    own = {_stem(item.name): item for item in (*pod.pools, *pod.services)}
    meant = list(_ways(pod.namespace, cluster)) if own else []
    named = {(item.plain_kind, item.name) for item in own.values()}
    if any((one.kind, one.name) in named for one in meant) or not meant or reached(pod, cluster, logs):
        return
    for one in meant:
        right = own.get(_stem(one.name))
        if right is None or right.plain_kind != one.kind:
            continue
        told, there = _told(one, cluster), cluster.exists(one.kind, one.namespace, one.name)
        if there or (told is None and there is None):
            continue  # who did not find it may have looked before it was made
        kind = one.item.plain_kind
        yield Finding(
            severity="warning",
            summary=f"{kind} {one.item.name} sends requests to {one.kind} {one.name}, and there is none of that name; {pod.name} is behind "
            f"{one.kind} {right.name}, to which no Ingress or route leads.",
            evidence=(object_evidence(one.item, one.path, one.written), *((told,) if told else ())),
            fix=_renamed(one, right, [x for x in meant if x.item is one.item and x.name == one.name]),
        )
        return


def _stem(name: str) -> str:
    return re.sub(_ENDING, "", name)


def _ways(namespace: str, cluster: Cluster) -> Iterator[_Way]:
    """What sends requests to Services and pools of a namespace."""
    for item in cluster.items("Ingress", namespace):
        yield from _of_ingress(item)
    for item in cluster.items("HTTPRoute"):
        for backend in backends_of(item):
            if backend.namespace == namespace:
                name, port = backend.name, backend.raw.get("port")
                yield _Way(item, f"{backend.path}.name", backend.kind, namespace, name, name, port)
    for item in cluster.items("VirtualService"):
        for n, rule in enumerate(rows(item.raw, "spec.http")):
            for m, to in enumerate(rows(rule, "route")):
                host = str(dig(to, "destination.host"))
                name, _, rest = host.partition(".")
                if (rest.partition(".")[0] or item.namespace) == namespace:
                    at, port = f"spec.http[{n}].route[{m}].destination.host", dig(to, "destination.port.number")
                    yield _Way(item, at, "Service", namespace, name, host, port)
    for kind in OF_PROXIES:
        for item in cluster.items(kind):
            for path, service in listed_services(item):
                if str(service.get("namespace") or item.namespace) == namespace:
                    name = str(service.get("name"))
                    yield _Way(item, f"{path}.name", "Service", namespace, name, name, service.get("port"))


def _of_ingress(item: Item) -> Iterator[_Way]:
    places = [("spec.defaultBackend.service", table(dig(item.raw, "spec.defaultBackend.service")))]
    for n, rule in enumerate(rows(item.raw, "spec.rules")):
        for m, path in enumerate(rows(rule, "http.paths")):
            places.append((f"spec.rules[{n}].http.paths[{m}].backend.service", table(dig(path, "backend.service"))))
    for at, service in places:
        if isinstance(name := service.get("name"), str):
            port = dig(service, "port.number") or dig(service, "port.name")
            yield _Way(item, f"{at}.name", "Service", item.namespace, name, name, port)


def _told(one: _Way, cluster: Cluster) -> Evidence | None:
    """Who says that it found nothing of that name."""
    item, name = one.item, re.escape(one.name)
    word = rf"(?<![\w.-]){name}(?![\w-])"
    if item.plain_kind == "HTTPRoute":
        said = refusal(item, cluster)
        there = said is not None and said.reason == "BackendNotFound" and re.search(word, said.message)
        return object_evidence(item, said.path, said.text) if said is not None and there else None
    if item.plain_kind == "HTTPProxy":
        errors = (row for at in rows(item.raw, "status.conditions") for row in rows(at, "errors"))
        texts = [text for row in errors if re.search(rf"{word}\"? not found", text := str(row.get("message")))]
        return object_evidence(item, "status.conditions", texts[0]) if texts else None
    if item.plain_kind == "Ingress":
        for event in events_of(cluster).about([("Ingress", item.name)]):
            if (
                event.namespace == item.namespace
                and re.search(_EVENTS, event.message)
                and re.search(word, event.message)
            ):
                return event_evidence(event, cluster)
        return None
    space = re.escape(one.namespace)
    literal, pattern = (
        (LITERALS[0], rf"\|{name}\.{space}\.svc\b")
        if item.plain_kind == "VirtualService"
        else (LITERALS[1], rf"not found: {space}/{name}(?![\w.-])")
    )
    lines = (line for log in current_logs(cluster) if (line := log.last(literal)) is not None)
    found = next((line for line in lines if re.search(pattern, line.text[:4000])), None)
    return log_evidence(found) if found is not None else None


def _renamed(one: _Way, right: Item, places: list[_Way]) -> Fix:
    """The object with the other name, where that has the port for which it is asked."""
    text = f"Name {right.plain_kind} {right.name} in {one.item.plain_kind}/{one.item.name}"
    has = {row.get(key) for row in rows(right.raw, "spec.ports") for key in ("port", "name")}
    if right.plain_kind == "Service" and any(x.port not in has for x in places if x.port is not None):
        ports = ", ".join(str(row.get("port")) for row in rows(right.raw, "spec.ports"))
        command = f"kubectl -n {one.item.namespace} describe {one.item.plain_kind.lower()} {one.item.name}"
        return fixes.advice(f"{text}, with a port that it has ({ports})", command)
    value = {x.path: right.name + x.written[len(x.name) :] for x in places}
    return fixes.patch_object(
        one.item, text, [{"op": "replace", "path": pointer_to(at), "value": name} for at, name in value.items()]
    )
