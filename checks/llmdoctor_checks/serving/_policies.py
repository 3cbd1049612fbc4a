"""NetworkPolicies as the API and Cilium define them: which select a pod, and what they let through together."""

import ipaddress
import re
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from typing import Any

from kubectl_llmdoctor.api import Cluster, Item, Pod, dig, rows, table, words


def selected(selector: Any, labels: dict[str, str]) -> bool:
    """Whether a label selector fits; an empty one fits everything."""
    if not isinstance(selector, dict):
        return True
    wanted = selector.get("matchLabels")
    if isinstance(wanted, dict) and any(labels.get(key) != str(value) for key, value in wanted.items()):
        return False
    return all(_fits(term, labels) for term in rows(selector.get("matchExpressions")))


def _fits(term: dict[str, Any], labels: dict[str, str]) -> bool:
    have, values = labels.get(str(term.get("key"))), words(term, "values")
    match term.get("operator"):
        case "In":
            return have in values
        case "NotIn":
            return have not in values
        case "Exists":
            return have is not None
        case "DoesNotExist":
            return have is None
    return False


def policies(pod: Pod, cluster: Cluster, direction: str) -> list[Item]:
    """The policies that restrict a pod in one direction (`Ingress` or `Egress`)."""
    return policies_on(pod.labels, pod.namespace, cluster, direction)


def policies_on(labels: dict[str, str], namespace: str, cluster: Cluster, direction: str) -> list[Item]:
    """The same for a pod that has these labels."""
    found = []
    for item in cluster.items("NetworkPolicy", namespace):
        types = dig(item.raw, "spec.policyTypes")
        default = ["Ingress", "Egress"] if dig(item.raw, "spec.egress") else ["Ingress"]
        if direction in (types if isinstance(types, list) else default) and selected(
            dig(item.raw, "spec.podSelector"), labels
        ):
            found.append(item)
    return found


def rules(items: list[Item], direction: str) -> Iterator[dict[str, Any]]:
    """What they let through; each rule adds to the others."""
    for item in items:
        yield from rows(item.raw, f"spec.{direction.lower()}")


def has_port(rule: dict[str, Any], port: int, protocol: str = "TCP") -> bool:
    """Whether a rule speaks of this port; a port by name may be any."""
    listed = rows(rule.get("ports"))
    for row in listed:
        number, end = row.get("port"), row.get("endPort")
        if str(row.get("protocol") or "TCP") != protocol:
            continue
        if not str(number).isdecimal():  # all ports, or one by name
            return True
        if int(str(number)) <= port <= (end if isinstance(end, int) else int(str(number))):
            return True
    return not listed


def leads_outside(rule: dict[str, Any]) -> bool:
    """Whether a rule leads to addresses outside of private networks."""
    peers = rows(rule.get("to"))
    return not peers or any(_public(str(dig(peer, "ipBlock.cidr") or "")) for peer in peers)


def _public(cidr: str) -> bool:
    try:
        network = ipaddress.ip_network(cidr, strict=False)
    except ValueError:
        return False
    return network.prefixlen == 0 or not network.is_private


#: Cilium's kinds; what they allow adds to what NetworkPolicies do.
CILIUM = ("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy")

#: Entities that are, or contain, what is outside of the cluster.
_OUTSIDE = frozenset({"all", "world", "world-ipv4", "world-ipv6"})

#: Entities that pods of the cluster may be.
_PODS = frozenset({"all", "cluster", "ingress", "init", "unmanaged"})

#: What names the other side in a rule of Cilium.
_PEERS = ("toEndpoints", "toEntities", "toCIDR", "toCIDRSet", "toFQDNs", "toServices", "toNodes", "toGroups")


def cilium_egress(pod: Pod, cluster: Cluster) -> list[tuple[Item, list[dict[str, Any]]]]:
    """Cilium's policies on what a pod may open, each with its rules; none where no policy denies what the others do not allow.

    A policy denies it where it has rules, unless its `enableDefaultDeny` says otherwise (pkg/policy/api/rule.go). Labels of the
    namespace are known where the Namespace was read; a selector that needs others selects nothing here.
    """
    return _cilium(pod, cluster, "egress")


def cilium_ingress(pod: Pod, cluster: Cluster) -> list[tuple[Item, list[dict[str, Any]]]]:
    """The same for who may open connections to a pod."""
    return _cilium(pod, cluster, "ingress")


def _cilium(pod: Pod, cluster: Cluster, direction: str) -> list[tuple[Item, list[dict[str, Any]]]]:
    labels = _with_namespace(pod.labels, pod.namespace, cluster)
    found, denied = [], False
    for kind in CILIUM:
        for item in cluster.items(kind, pod.namespace if kind == CILIUM[0] else None):
            specs = [dig(item.raw, "spec"), *rows(item.raw, "specs")]
            for spec in specs:
                allowed, selector = rows(spec, direction), dig(spec, "endpointSelector")
                if not isinstance(selector, dict) or not selected(_bare(selector), labels):
                    continue
                deny = dig(spec, f"enableDefaultDeny.{direction}")
                denies = deny if isinstance(deny, bool) else bool(allowed)
                denied |= denies
                if denies or allowed:  # one that says nothing of the direction would deny it with its first rule
                    found.append((item, allowed))
    return found if denied else []


def _with_namespace(labels: dict[str, str], namespace: str, cluster: Cluster) -> dict[str, str]:
    """The labels that Cilium knows of a pod: its own, its namespace, and those of its namespace where that was read."""
    found = {**labels, "io.kubernetes.pod.namespace": namespace}
    read = cluster.item("Namespace", "", namespace)
    for key, value in read.labels.items() if read else ():
        found[f"io.cilium.k8s.namespace.labels.{key}"] = value
    return found


def cilium_admits(
    rule: dict[str, Any], port: int, labels: dict[str, str], namespace: str, cluster: Cluster, policy_namespace: str
) -> bool:
    """Whether one of Cilium's rules may let a pod of these labels in at a port; entities, addresses and groups may mean any.

    A selector that names no namespace means that of its policy (pkg/k8s/apis/cilium.io/utils).
    """
    listed = cilium_ports(rule)
    if listed and not any(_covers(one, port) for one in listed):
        return False
    peers = [key for key in rule if key.startswith("from")]
    if peers == ["fromEntities"]:
        return bool(_PODS.intersection(words(rule, "fromEntities")))
    if not peers or peers != ["fromEndpoints"]:
        return True
    known = _with_namespace(labels, namespace, cluster)
    for selector in rows(rule, "fromEndpoints"):
        bare = _bare(selector)
        keys = {*bare["matchLabels"], *(str(term["key"]) for term in bare["matchExpressions"])}
        if any(key.startswith("io.cilium.k8s.namespace.labels.") and key not in known for key in keys):
            return True  # its namespace was not read
        spaced = any(key.startswith("io.kubernetes.pod.namespace") or "namespace.labels" in key for key in keys)
        if selected(bare, known) and (spaced or not policy_namespace or namespace == policy_namespace):
            return True
    return False


def _bare(selector: dict[str, Any]) -> dict[str, Any]:
    """A selector without the sources of its labels (`k8s:app`, `any:app`)."""
    wanted, terms = selector.get("matchLabels"), rows(selector.get("matchExpressions"))
    return {
        "matchLabels": {_key(key): value for key, value in table(wanted).items()},
        "matchExpressions": [{**term, "key": _key(str(term.get("key")))} for term in terms],
    }


def _key(key: str) -> str:
    return re.sub(r"^(?:k8s|any)[:.]", "", key)


def cilium_ports(rule: dict[str, Any]) -> list[dict[str, Any]]:
    """The ports of one of Cilium's rules; empty means all."""
    return [one for ports in rows(rule, "toPorts") for one in rows(ports, "ports")]


def _covers(one: dict[str, Any], port: int) -> bool:
    """Whether an entry means this port among others; one by name may be any, and 0 is all."""
    number, end = str(one.get("port")), one.get("endPort")
    if not number.isdecimal() or int(number) == 0:
        return True
    return int(number) <= port <= (end if isinstance(end, int) and end else int(number))


def cilium_leads_outside(rule: dict[str, Any], port: int, hosts: Collection[str]) -> bool:
    """Whether one of Cilium's rules may let a pod out of the cluster at a port; names and groups may mean any address.

    Where the hosts that are asked are known, names must mean one of them; a star is taken for any characters. Without a peer a rule
    allows its ports to everybody, and without ports either nothing at all.
    """
    listed = cilium_ports(rule)
    if listed and not any(_covers(one, port) for one in listed):
        return False
    if not any(rule.get(peer) for peer in _PEERS):
        return bool(listed)
    cidrs = [*words(rule, "toCIDR"), *(dig(one, "cidr") for one in rows(rule, "toCIDRSet"))]
    return (
        bool(_OUTSIDE.intersection(words(rule, "toEntities")))
        or any(_public(str(cidr)) for cidr in cidrs)
        or bool(rule.get("toGroups"))
        or any(not hosts or _means(one, hosts) for one in rows(rule, "toFQDNs"))
    )


def _means(name: dict[str, Any], hosts: Collection[str]) -> bool:
    """Whether an entry of `toFQDNs` means one of these hosts."""
    pattern = str(name.get("matchName") or name.get("matchPattern") or "").removesuffix(".").lower()
    return any(fnmatchcase(host.lower(), pattern) for host in hosts)


def only_at(rule: dict[str, Any]) -> list[str]:
    """The addresses at which alone a rule lets ask, where it names nothing but single ones; none otherwise."""
    peers = rows(rule.get("to"))
    blocks = [str(dig(peer, "ipBlock.cidr") or "") for peer in peers]
    single = [cidr.partition("/")[0] for cidr in blocks if cidr.endswith(("/32", "/128"))]
    return single if len(single) == len(peers) else []
