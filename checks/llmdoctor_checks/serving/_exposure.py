"""Ways from outside the cluster to a pod: Services, Ingresses and routes, and what keeps them closed.

Sources: the annotations by which cloud controllers make a load balancer internal (AWS, Azure, Google, Alibaba, Tencent,
Oracle, IBM, DigitalOcean, Scaleway, Hetzner, OpenStack, Yandex). AWS Load Balancer Controller makes internal ones
unless told otherwise; the in-tree provider and all other clouds make public ones.
"""

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from kubectl_llmdoctor.api import Cluster, Item, Pod, backends_of, dig, rows, table, words
from llmdoctor_checks._ingress import CLASS_ANNOTATION
from llmdoctor_checks.serving._policies import policies, rules

#: Labels that a controller gives to one pod, or to the pods of one revision or one group.
_OF_FEW = r"hash|revision|uid|pod-name|pod-index|group-index|group-key|group-size"

_TRUE = ("true", "yes", "1", "0.0.0.0/0")
_INSIDE = ("internal", "intranet", "private", "inner", "disabled")

#: Classes of load balancers that are internal unless the annotation says `internet-facing`.
_AWS_CLASSES = ("service.k8s.aws/nlb", "eks.amazonaws.com/nlb")

#: By which MetalLB, kube-vip and Cilium are asked for the addresses of a load balancer.
_ADDRESSES = r"^(?:(?:metallb\.universe\.tf|metallb\.io|kube-vip\.io)/loadbalancerips|io\.cilium/lb-ipam-ips|lbipam\.cilium\.io/ips)$"

#: Words in the annotations of an Ingress or route that put a login, a certificate or a list of addresses in front.
_GUARDS = (
    "auth", "whitelist", "allowlist", "allow-list", "source-range", "middlewares", "oidc", "iap", "jwt",
    "security-policy", "inbound-cidrs", "waf",
)  # fmt: skip

#: By which AWS Load Balancer Controller makes the load balancer of an Ingress a public one.
SCHEME, FACING = "alb.ingress.kubernetes.io/scheme", "internet-facing"


class Way(msgspec.Struct, frozen=True):
    """One way in: the object, a path in it, and what stands there."""

    item: Item
    path: str
    text: str
    kind: str

    @property
    def public(self) -> bool:
        """Whether it surely leads outside the cluster's network."""
        return self.kind == "LoadBalancer" or self.text == FACING


def lasting(labels: dict[str, str]) -> dict[str, str]:
    """The labels of a pod that the next one in its place has, too."""
    return {key: value for key, value in labels.items() if not re.search(_OF_FEW, key)}


def ways(pod: Pod, ports: set[int], cluster: Cluster) -> Iterator[Way]:
    """How `ports` of a pod can be reached from outside."""
    named = {item.name for item in pod.services if leads(item, pod, ports)}
    for item in pod.services:
        kind = dig(item.raw, "spec.type")
        if item.name not in named:
            continue
        if kind == "LoadBalancer" and not _internal(item):
            yield Way(item, "spec.type", "LoadBalancer", "LoadBalancer")
        elif kind == "NodePort":
            yield Way(item, "spec.type", "NodePort", "NodePort")
    for item in cluster.items("Ingress", pod.namespace):
        if named & set(backends(item)) and not _guarded(item):
            where = (f"metadata.annotations[{SCHEME}]", FACING) if _facing(item) else ("spec.rules", _hosts(item))
            yield Way(item, *where, "Ingress")
    for item in cluster.items("HTTPRoute", pod.namespace):
        if named & set(backends(item)) and not _guarded(item):
            yield Way(item, "spec.hostnames", _hosts(item), "HTTPRoute")


def restricted(pod: Pod, cluster: Cluster) -> bool:
    """Whether a NetworkPolicy lets only chosen peers reach the pod."""
    selecting = policies(pod, cluster, "Ingress")
    return bool(selecting) and not any(_for_all(rule) for rule in rules(selecting, "Ingress"))


def _for_all(rule: dict[str, Any]) -> bool:
    """Whether a rule lets anybody in."""
    peers = rows(rule.get("from"))
    return not peers or any(dig(peer, "ipBlock.cidr") in ("0.0.0.0/0", "::/0") for peer in peers)


def matches(wanted: Any, labels: dict[str, str]) -> bool:
    """Whether labels have all that a `matchLabels` wants."""
    return all(labels.get(key) == str(value) for key, value in table(wanted).items())


def leads(item: Item, pod: Pod, ports: set[int]) -> bool:
    """Whether one of the Service's ports leads to one of these."""
    for port in rows(item.raw, "spec.ports"):
        target = port.get("targetPort", port.get("port"))
        if isinstance(target, str) and not target.isdecimal():
            names = [p for c in pod.containers for p in c.spec.ports if p.name == target]
            target = names[0].container_port if names else None
        if target is not None and str(target).isdecimal() and int(target) in ports:
            return True
    return False


def _internal(item: Item) -> bool:
    """Whether a load balancer is reachable from inside the network only."""
    raw = item.raw
    annotations = _annotations(item)
    balancer = str(dig(raw, "spec.loadBalancerClass") or "")
    scheme = annotations.get("service.beta.kubernetes.io/aws-load-balancer-scheme")
    kind = annotations.get("service.beta.kubernetes.io/aws-load-balancer-type", "")
    if scheme == "internet-facing":
        return False
    if balancer in _AWS_CLASSES or kind in ("external", "nlb-ip") or "tailscale" in balancer:
        return True
    for key, value in annotations.items():
        tail = key.rpartition("/")[2]
        if "internal" in tail and (value in _TRUE or "subnet" in tail or value in _INSIDE):
            return True
        if value in _INSIDE and any(
            word in tail for word in ("balancer", "elb", "slb", "scheme", "network", "ip-type")
        ):
            return True
        if (
            tail in ("scw-loadbalancer-private", "disable-public-network") and value in _TRUE
        ) or "tailscale.com/" in key:
            return True
    ranges = dig(raw, "spec.loadBalancerSourceRanges")
    if isinstance(ranges, list) and ranges and not {"0.0.0.0/0", "::/0"} & set(map(str, ranges)):
        return True
    addresses = [str(one.get("ip") or "") for one in rows(raw, "status.loadBalancer.ingress")]
    asked = (value.split(",") for key, value in annotations.items() if re.search(_ADDRESSES, key))
    addresses = addresses or next(asked, list[str]()) or [str(dig(raw, "spec.loadBalancerIP") or "")]
    return all(_private(address.strip()) for address in addresses)


def _private(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_private
    except ValueError:
        return False


def _annotations(item: Item) -> dict[str, str]:
    return {key.lower(): value.lower() for key, value in item.annotations.items()}


def _classes(item: Item) -> list[str]:
    """The class of an Ingress in its new and in its old place; empty where none stands."""
    return [
        str(dig(item.raw, "spec.ingressClassName") or ""),
        _annotations(item).get(CLASS_ANNOTATION, ""),
    ]


def _facing(item: Item) -> bool:
    """Whether AWS makes its load balancer a public one: to controllers of other classes the annotation says nothing."""
    named = [name for name in _classes(item) if name]
    of_aws = not named or any(word in name for name in named for word in ("alb", "aws"))
    return of_aws and _annotations(item).get(SCHEME) == FACING


def _guarded(item: Item) -> bool:
    annotations = _annotations(item)
    if any(guard in key.rpartition("/")[2] for key in annotations for guard in _GUARDS):
        return True
    names = _classes(item)
    if any(name == "alb" for name in names) and annotations.get(SCHEME) != FACING:
        return True
    filters = str(dig(item.raw, "spec.rules"))
    return any(word in name for name in names for word in (*_INSIDE, "tailscale")) or "ExtensionRef" in filters


def backends(item: Item) -> Iterator[str]:
    """The names of the Services that an Ingress or route leads to."""
    default = dig(item.raw, "spec.defaultBackend.service.name")
    if isinstance(default, str):
        yield default
    for rule in rows(item.raw, "spec.rules"):
        yield from (str(dig(path, "backend.service.name") or "") for path in rows(rule, "http.paths"))
    yield from (backend.name for backend in backends_of(item) if backend.kind == "Service")


def _hosts(item: Item) -> str:
    hosts = [str(rule["host"]) for rule in rows(item.raw, "spec.rules") if rule.get("host")]
    return ", ".join((*hosts, *words(item.raw, "spec.hostnames"))) or "every host"
