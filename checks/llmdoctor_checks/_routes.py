"""Routes of the Gateway API, and who serves them."""

from __future__ import annotations

from kubectl_llmdoctor.api import Cluster, Item, dig, rows


def controllers_of(route: Item, cluster: Cluster) -> list[str]:
    """Who serves a route, as its status says; where that says nothing, by the classes of its gateways."""
    told = [str(one.get("controllerName")) for one in rows(route.raw, "status.parents")]
    refs = [] if told else rows(route.raw, "spec.parentRefs")
    for ref in refs:
        if str(ref.get("kind") or "Gateway") != "Gateway":
            continue  # a Service of a mesh
        gateway = cluster.item("Gateway", str(ref.get("namespace") or route.namespace), str(ref.get("name")))
        name = str(dig(gateway.raw, "spec.gatewayClassName")) if gateway is not None else ""
        told += [str(dig(x.raw, "spec.controllerName")) for x in cluster.items("GatewayClass") if x.name == name]
    return told
