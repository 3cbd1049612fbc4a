"""Routes of the Gateway API, and who serves them."""

from __future__ import annotations

import re

from kubectl_llmdoctor.api import Cluster, Item, backends_of, dig, parents_of, rows

#: Classes of gateways that controllers or their charts make by themselves, by the beginning of their names, where the object was not read.
_CLASSES = (
    (r"traefik$", "traefik.io/gateway-controller"),
    (r"istio(?:-\w{1,20})?$", "istio.io/gateway-controller"),
    (r"gke-l7-", "networking.gke.io/gateway"),
    (r"(?:kgateway|agentgateway)$", "kgateway.dev/kgateway"),
    (r"(?:eg|envoy-gateway)$", "gateway.envoyproxy.io/gatewayclass-controller"),
    (r"nginx$", "gateway.nginx.org/nginx-gateway-controller"),
    (r"cilium$", "io.cilium/gateway-controller"),
    (r"contour$", "projectcontour.io/gateway-controller"),
)


def controllers_of(route: Item, cluster: Cluster) -> list[str]:
    """Who serves a route, as its status says; where that says nothing, by the classes of its gateways."""
    told = [str(one.get("controllerName")) for one in rows(route.raw, "status.parents")]
    for namespace, named in [] if told else parents_of(route):
        gateway = cluster.item("Gateway", namespace, named)
        name = str(dig(gateway.raw, "spec.gatewayClassName")) if gateway is not None else ""
        made = [str(dig(x.raw, "spec.controllerName")) for x in cluster.items("GatewayClass") if x.name == name]
        told += made or [controller for called, controller in _CLASSES if re.match(called, name)]
    return told


def gateways_of(behind: Item, cluster: Cluster) -> list[tuple[str, str]]:
    """The Gateways (namespace and name) whose HTTPRoutes lead to a Service or InferencePool."""
    return [gateway for route in routes_to(behind, cluster) for gateway in parents_of(route)]


def routes_to(behind: Item, cluster: Cluster) -> list[Item]:
    """The HTTPRoutes that lead to a Service or InferencePool."""
    meant = (behind.plain_kind, behind.namespace, behind.name)
    return [
        route for route in cluster.items("HTTPRoute") if any(backend.meant == meant for backend in backends_of(route))
    ]
