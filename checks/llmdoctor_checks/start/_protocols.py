"""Services and InferencePools that name a protocol for the port of a server that speaks another there: HTTP/1.1 without TLS.

Sources: Traefik's provider for the Gateway API (`getProtocol`) and GKE's gateways speak TLS where `appProtocol` of the Service is https,
whatever it is called by; others ignore that. For kubernetes.io/h2c most speak HTTP/2 at once, for grpc and http2 Istio alone. KServe
wrote https for each LLMInferenceService, with TLS or without (kserve/kserve#5533). Uvicorn (httptools), llama-server (cpp-httplib) and
Ollama (net/http) speak no HTTP/2; SGLang does with `--enable-http2`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from kubectl_llmdoctor.api import (
    Cluster,
    Engine,
    Finding,
    Fix,
    Item,
    Line,
    Logs,
    Pod,
    answered,
    dig,
    fixes,
    log_evidence,
    object_evidence,
    rows,
)
from llmdoctor_checks._routes import controllers_of
from llmdoctor_checks._services import target_ports
from llmdoctor_checks.start._apache_tls import without_tls
from llmdoctor_checks.start._backend_rules import NO_HTTP2, NO_TLS, by_rules, speaks_http2, told_by_envoy
from llmdoctor_checks.start._routed_ports import ways_to

#: The servers that speak HTTP/1.1 alone.
_HTTP1 = frozenset({"vllm", "sglang", "llama.cpp", "ollama"})

_H2C = "kubernetes.io/h2c"
_ISTIO = "istio.io/"
#: The protocols by which controllers of routes go, as their names begin.
_GO_BY = {
    _H2C: (
        _ISTIO,
        "traefik.io/",
        "gateway.envoyproxy.io/",
        "kgateway.dev/",
        "networking.gke.io/",
        "projectcontour.io/",
    ),
    "http2": (_ISTIO,),
    "grpc": (_ISTIO,),
    "https": ("traefik.io/", "networking.gke.io/"),
}

#: What Uvicorn says of the first bytes of TLS or HTTP/2.
NO_HTTP = "Invalid HTTP request received."


def other_protocol(pod: Pod, engine: Engine, logs: Logs | None) -> Iterator[Finding]:
    """The first Service or pool by which a gateway asks the server with a protocol that it does not speak."""
    port = engine.value("port")
    if engine.name not in _HTTP1 or engine.explicit("enable_http2") or not isinstance(port, int) or _by_grpc(engine):
        return
    if not without_tls(engine, port):
        return
    for item, path, protocol, fix in (*_by_services(pod, port), *by_rules(pod, port), *_by_pools(pod, port)):
        log = engine.container.own_log(logs)
        said: Line | None = next(log.find(NO_HTTP), None) if log is not None else None
        said = said or told_by_envoy(pod, NO_HTTP2 if speaks_http2(protocol) else NO_TLS)
        with_it = "HTTP/2" if speaks_http2(protocol) else "TLS"
        if (
            not said
            and item.plain_kind == "DestinationRule"
            and (answered(log) or "*" in str(dig(item.raw, "spec.host")))
        ):
            continue  # who asks need not be in the mesh
        # a gateway need not heed what a pool says
        sure = said or item.plain_kind not in ("InferencePool", "DestinationRule")
        yield Finding(
            role="cause" if sure and pod.exists and pod.ready and not answered(log) else "risk",
            severity="warning",
            summary=f"{item.plain_kind} {item.name} says that {protocol} is spoken at port {port}: gateways ask {engine.title} "
            f"with {with_it} there, and it speaks HTTP/1.1 without TLS, so that each request through them fails.",
            evidence=(object_evidence(item, path, protocol), *((log_evidence(said),) if said else ())),
            fix=fix,
            order=said.order if said else None,
        )
        return


def _by_grpc(engine: Engine) -> bool:
    """Whether the server is told to speak gRPC, at its own port or another: vLLM's `grpc_server` and `--grpc`, SGLang's `--grpc-mode`."""
    told = " ".join(engine.container.spec.argv)[:20_000]
    return re.search(r"(?:^|\s)(?:--(?:smg-)?grpc|vllm\.entrypoints\.grpc)", told) is not None


def _by_services(pod: Pod, port: int) -> Iterator[tuple[Item, str, str, Fix]]:
    for service in pod.services:
        ways = ways_to(service, pod.cluster)
        for index, row in enumerate(rows(service.raw, "spec.ports")):
            told = "appProtocol" if row.get("appProtocol") else "name"
            protocol, target = str(row.get(told) or ""), row.get("targetPort") or row.get("port")
            numbers = {container.port_number(target) for container in pod.containers} if target else set()
            asked = [one.item for one in ways if one.port in (row.get("port"), row.get("name"))]
            goes = _goes_by if told == "appProtocol" else _goes_by_name
            if port not in numbers:
                continue
            # what Istio's gateways refuse themselves they asked for, whatever object led them there
            by_name = told == "name" and _istio_by_name(protocol.lower())
            if any(goes(item, protocol.lower(), pod.cluster) for item in asked) or (
                by_name and told_by_envoy(pod, NO_HTTP2) is not None
            ):
                yield service, f"spec.ports[{index}].{told}", protocol, _as_http(service, index, row)


def _goes_by(route: Item, protocol: str, cluster: Cluster) -> bool:
    """Whether the controller of a route asks with the protocol that the Service names."""
    if route.kind.startswith("VirtualService"):
        return _ISTIO in _GO_BY.get(protocol, ())
    return any(name.startswith(_GO_BY.get(protocol, ())) for name in controllers_of(route, cluster))


def _goes_by_name(route: Item, name: str, cluster: Cluster) -> bool:
    """Whether it goes by what the port is called, where that has no `appProtocol`: Istio by the first word."""
    return _istio_by_name(name) and _goes_by(route, name.partition("-")[0], cluster)


def _istio_by_name(name: str) -> bool:
    return name.partition("-")[0] in ("grpc", "http2")


def _as_http(service: Item, index: int, row: dict[str, Any]) -> Fix:
    if by := fixes.maker(service):
        return fixes.advice(
            f"Send the route to a Service of your own with the same selector, whose port {row.get('port')} has appProtocol http, or update "
            f"the controller of {by}, which makes Service {service.name}, to a version that names the port by what is spoken there"
        )
    return fixes.patch_object(
        service,
        f"Set appProtocol of port {row.get('port')} to http in Service/{service.name}",
        [{"op": "add", "path": f"/spec/ports/{index}/appProtocol", "value": "http"}],
    )


def _by_pools(pod: Pod, port: int) -> Iterator[tuple[Item, str, str, Fix]]:
    """An InferencePool says it of all its ports."""
    for pool in pod.pools:
        if dig(pool.raw, "spec.appProtocol") == _H2C and port in target_ports(pool):
            operation = {"op": "replace", "path": "/spec/appProtocol", "value": "http"}
            fix = fixes.patch_object(pool, f"Set appProtocol to http in InferencePool/{pool.name}", [operation])
            yield pool, "spec.appProtocol", _H2C, fix
