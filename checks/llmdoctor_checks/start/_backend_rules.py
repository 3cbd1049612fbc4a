"""What tells a gateway, beside the Service's port, with which protocol to ask the servers behind a Service.

Sources: Istio's `trafficPolicy.tls` of a DestinationRule; BackendTLSPolicy of the Gateway API; the annotations by which ingress controllers
go (ingress-nginx, AWS, Azure, HAProxy's two, Kong, GKE, Traefik); Traefik's `parseServiceProtocol`: TLS for port 443, and for a port whose
name begins with https, unless a scheme is given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from kubectl_llmdoctor.api import Cluster, Fix, Item, Line, Pod, current_logs, dig, escaped, fixes, pointer_to, rows
from llmdoctor_checks._ingress import class_of
from llmdoctor_checks.start._routed_ports import listed_services, ways_to

#: Annotations of Ingresses and of Services, those of their values that mean something else than HTTP/1.1 without TLS, and that one.
_ANNOTATIONS = {
    "nginx.ingress.kubernetes.io/backend-protocol": (r"(?i)^(?:https|grpcs?)$", "HTTP"),
    "alb.ingress.kubernetes.io/backend-protocol": (r"(?i)^https$", "HTTP"),
    "alb.ingress.kubernetes.io/backend-protocol-version": (r"(?i)^(?:grpc|http2)$", "HTTP1"),
    "appgw.ingress.kubernetes.io/backend-protocol": (r"(?i)^https$", "http"),
    "haproxy.org/server-ssl": (r"(?i)^(?:true|enabled|on)$", "false"),
    "haproxy-ingress.github.io/backend-protocol": (r"(?i)^(?:h1-ssl|h2|h2-ssl|https|grpcs?)$", "h1"),
    "konghq.com/protocol": (r"(?i)^(?:https|grpcs?)$", "http"),
    "traefik.ingress.kubernetes.io/service.serversscheme": (r"(?i)^(?:https|h2c)$", "http"),
}
#: How these annotations begin, and what the classes of those are called who go by them, or their controllers.
_MAKERS = {
    "nginx.": "nginx",
    "alb.": r"(?i)\balb\b|\baws\b",
    "appgw.": "(?i)azure|appgw|application-gateway",
    "haproxy": "(?i)haproxy",
    "konghq.": "(?i)kong",
    "traefik.": "(?i)traefik",
}
_SERVERS_SCHEME = "traefik.ingress.kubernetes.io/service.serversscheme"
_TRAEFIK = r"(?i)traefik"

#: Which modes of Istio speak TLS.
_MODES = ("SIMPLE", "MUTUAL", "ISTIO_MUTUAL")

#: What Envoy says of a server that does not, and of one that does not speak HTTP/2.
NO_TLS, NO_HTTP2 = "OPENSSL_internal:WRONG_VERSION_NUMBER", "{protocol_error}"

_HTTP2 = r"(?i)grpc|h2|http2"

#: The object, the path and the text of what says so, the protocol, and what is done about it.
Rule = tuple[Item, str, str, Fix]


def by_rules(pod: Pod, port: int) -> Iterator[Rule]:
    """What says that something else is spoken by the servers at a port of the pod, behind a Service of it."""
    for service in pod.services:
        own = _leading(service, pod, port)
        sent = [one.item for one in ways_to(service, pod.cluster) if one.port in own]
        for item in sent:
            if item.plain_kind == "Ingress":
                yield from _by_annotation(item, [item], pod.cluster)
        if sent:
            yield from _by_annotation(service, sent, pod.cluster)
        yield from _by_traefik(service, sent)
        yield from _by_policy(service, own, pod.cluster)
        yield from _by_destination(service, own, pod.cluster)


def _leading(service: Item, pod: Pod, port: int) -> set[object]:
    """The ports of a Service, by number and name, that lead to a port of the pod."""
    found = set[object]()
    for row in rows(service.raw, "spec.ports"):
        target = row.get("targetPort") or row.get("port")
        if target and any(one.port_number(target) == port for one in pod.containers):
            found |= {row.get("port"), row.get("name")} - {None}
    return found


def speaks_http2(protocol: str) -> bool:
    """Whether a protocol of these is HTTP/2; the others are TLS."""
    return re.search(_HTTP2, protocol) is not None


def told_by_envoy(pod: Pod, literal: str) -> Line | None:
    """Where an Envoy says so of this pod, or of a Service of it, as Istio names the cluster that it makes of that."""
    names = "|".join(re.escape(one.name) for one in pod.services)
    meant = rf"\|(?:{names})\.{re.escape(pod.namespace)}\.svc\b" if names else r"(?!)"
    if pod.status.pod_ip:
        meant += rf"|(?<![\d.]){re.escape(pod.status.pod_ip)}:\d"
    lines = (line for log in current_logs(pod.cluster) if (line := log.last(literal)) is not None)
    return next((line for line in lines if re.search(meant, line.text[:4000])), None)


def _by_annotation(item: Item, sent: list[Item], cluster: Cluster) -> Iterator[Rule]:
    for key, (wrong, right) in _ANNOTATIONS.items():
        value = item.annotations.get(key, "")
        if not re.search(wrong, value) or all(_of_another(key, one, cluster) for one in sent):
            continue
        text = f"Set {key}: {right} on {item.plain_kind}/{item.name}"
        fix = fixes.set_field(item, f"/metadata/annotations/{escaped(key)}", right, text)
        yield (
            item,
            f"metadata.annotations[{key}]",
            "https" if value.lower() in ("true", "enabled", "on") else value,
            fix,
        )


def _of_another(key: str, item: Item, cluster: Cluster) -> bool:
    """Whether an Ingress is for a controller that goes by the annotations of somebody else."""
    name = class_of(item)
    classes = (one for one in cluster.items("IngressClass") if one.name == name)
    words = " ".join((name, *(str(dig(one.raw, "spec.controller")) for one in classes)))
    whose = [prefix for prefix, maker in _MAKERS.items() if re.search(maker, words)]
    return item.plain_kind == "Ingress" and bool(whose) and not key.startswith(tuple(whose))


def _by_traefik(service: Item, sent: list[Item]) -> Iterator[Rule]:
    """Traefik, which goes by the number and the name of the Service's port."""
    if service.annotations.get(_SERVERS_SCHEME):
        return
    for item in sent:
        for path, listed in listed_services(item) if item.plain_kind == "IngressRoute" else ():
            row = _https_row(service, listed.get("port"))
            if listed.get("name") == service.name and not listed.get("scheme") and row is not None:
                at = f"{pointer_to(path)}/scheme"
                text = f"Add scheme: http for Service {service.name} in IngressRoute/{item.name}"
                yield item, f"{path}.port", "https", fixes.set_field(item, at, "http", text, op="add")
        name = class_of(item)
        if item.plain_kind == "Ingress" and re.search(_TRAEFIK, name):
            for n, row in enumerate(rows(service.raw, "spec.ports")):
                if _https_row(service, row.get("port")) is not None:
                    key = f"/metadata/annotations/{escaped(_SERVERS_SCHEME)}"
                    text = f"Set {_SERVERS_SCHEME}: http on Service/{service.name}"
                    yield service, f"spec.ports[{n}]", "https", fixes.set_field(service, key, "http", text, op="add")


def _https_row(service: Item, port: object) -> dict[str, Any] | None:
    """The port of a Service that is asked for, where Traefik takes it for one with TLS."""
    for row in rows(service.raw, "spec.ports"):
        if port in (row.get("port"), row.get("name")) and (
            row.get("port") == 443 or str(row.get("name") or "").startswith("https")
        ):
            return row
    return None


def _by_policy(service: Item, own: set[object], cluster: Cluster) -> Iterator[Rule]:
    """A BackendTLSPolicy, with which every gateway speaks TLS to the Service."""
    for item in cluster.items("BackendTLSPolicy", service.namespace):
        targets = [ref for ref in rows(item.raw, "spec.targetRefs") if ref.get("kind") == "Service"]
        if any(ref.get("name") == service.name and ref.get("sectionName") in (None, *own) for ref in targets):
            only = len(targets) == 1
            fix = fixes.advice(
                f"Delete BackendTLSPolicy/{item.name}"
                if only
                else f"Take Service {service.name} out of targetRefs of BackendTLSPolicy/{item.name}",
                f"kubectl -n {item.namespace} {'delete' if only else 'edit'} backendtlspolicy {item.name}",
            )
            yield item, "spec.targetRefs", "https", fix


def _by_destination(service: Item, own: set[object], cluster: Cluster) -> Iterator[Rule]:
    """A DestinationRule for the Service, or for a whole namespace."""
    for item in cluster.items("DestinationRule"):
        if not is_for(item, service):
            continue
        path, policy = "spec.trafficPolicy", dig(item.raw, "spec.trafficPolicy")
        for n, level in enumerate(rows(item.raw, "spec.trafficPolicy.portLevelSettings")):
            if dig(level, "port.number") in own:  # which leaves nothing of what holds for the other ports
                path, policy = f"spec.trafficPolicy.portLevelSettings[{n}]", level
        mode = dig(policy, "tls.mode")
        if mode not in _MODES:
            continue
        host = f"{service.name}.{service.namespace}.svc.cluster.local"
        if "*" in str(dig(item.raw, "spec.host")):
            text = f"Make a DestinationRule for {host} with trafficPolicy.tls.mode DISABLE, which counts before {item.name}"
            fix = fixes.advice(
                text,
                fixes.create(
                    item.api_version,
                    "DestinationRule",
                    f"{service.name}-plain",
                    service.namespace,
                    spec={"host": host, "trafficPolicy": {"tls": {"mode": "DISABLE"}}},
                ),
            )
        else:
            text = f"Set tls.mode of DestinationRule/{item.name} to DISABLE"
            operations = [{"op": "replace", "path": f"{pointer_to(path)}/tls", "value": {"mode": "DISABLE"}}]
            fix = fixes.patch_object(item, text, operations)
        yield item, f"{path}.tls.mode", f"TLS ({mode})", fix


def is_for(rule: Item, service: Item) -> bool:
    """Whether the host of a DestinationRule means a Service: a short name is one of the rule's own namespace."""
    host = str(dig(rule.raw, "spec.host"))
    full = f"{service.name}.{service.namespace}.svc.cluster.local"
    if host.startswith("*"):
        return full.endswith(host[1:])
    return host in (full, full.removesuffix(".cluster.local"), f"{service.name}.{service.namespace}") or (
        host == service.name and rule.namespace == service.namespace
    )
