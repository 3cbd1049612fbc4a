"""NetworkPolicies as the API defines them: which select a pod, and what they let through together."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from kubectl_llmdoctor.api import Cluster, Item, Pod, dig
from llmdoctor_checks._raw import rows


def labels_of(pod: Pod) -> dict[str, str]:
    """A pod's labels as strings."""
    return {key: str(value) for key, value in pod.obj.metadata.labels.items()}


def selected(selector: Any, labels: dict[str, str]) -> bool:
    """Whether a label selector fits; an empty one fits everything."""
    if not isinstance(selector, dict):
        return True
    wanted = selector.get("matchLabels")
    if isinstance(wanted, dict) and any(labels.get(key) != str(value) for key, value in wanted.items()):
        return False
    return all(_fits(term, labels) for term in rows(selector.get("matchExpressions")))


def _fits(term: dict[str, Any], labels: dict[str, str]) -> bool:
    have, listed = labels.get(str(term.get("key"))), term.get("values")
    values = [str(value) for value in listed] if isinstance(listed, list) else []
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
    found = []
    for item in cluster.items("NetworkPolicy", pod.namespace):
        types = dig(item.raw, "spec.policyTypes")
        default = ["Ingress", "Egress"] if dig(item.raw, "spec.egress") else ["Ingress"]
        if direction in (types if isinstance(types, list) else default) and selected(
            dig(item.raw, "spec.podSelector"), labels_of(pod)
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
