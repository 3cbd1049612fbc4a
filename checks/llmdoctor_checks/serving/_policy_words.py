"""What a finding says of a policy, and the rules that its fixes add."""

from collections.abc import Collection, Sequence
from typing import Any

from kubectl_llmdoctor.api import APP_NAME, Evidence, Fix, Item, Pod, dig, fixes, object_evidence, rows, say_pairs
from llmdoctor_checks.serving._exposure import lasting
from llmdoctor_checks.serving._policies import cilium_ports


def quote(item: Item, direction: str) -> Evidence:
    """What a NetworkPolicy lets through in one direction (`ingress` or `egress`)."""
    found = dig(item.raw, f"spec.{direction}")
    texts = [_rule(rule) for rule in rows(found)] or ["nothing"]
    return object_evidence(item, f"spec.{direction}", "; ".join(texts))


def _rule(rule: dict[str, object]) -> str:
    """A rule in one line: to whom, at which ports."""
    peers = rows(rule.get("to") or rule.get("from"))
    to = ", ".join(str(dig(p, "ipBlock.cidr") or "/".join(sorted(p))) for p in peers) or "anywhere"
    ports = ", ".join(f"{row.get('protocol', 'TCP')} {row.get('port', 'any')}" for row in rows(rule.get("ports")))
    return f"{to}: {ports or 'all ports'}"


def sources(rule: dict[str, object]) -> str:
    """Whom one of Cilium's rules lets in, in one line."""
    wanted = [dig(one, "matchLabels") for one in rows(rule, "fromEndpoints")]
    peers = [say_pairs(one) for one in wanted if isinstance(one, dict)]
    return f"{' or '.join(peers) or ', '.join(sorted(k for k in rule if k.startswith('from'))) or 'anybody'}: {numbers(rule)}"


def numbers(rule: dict[str, object]) -> str:
    """The ports of one of Cilium's rules, in one line."""
    return ", ".join(str(one.get("port")) for one in cilium_ports(rule)) or "all ports"


def let_in(policy: Item, labels: dict[str, str], namespace: str, pod: Pod, port: int) -> Fix:
    """A rule for the client; its namespace by the label that every one has. One without labels is not to be told from others."""
    own = {k: v for k, v in labels.items() if k in ("app", APP_NAME)} or lasting(labels)
    named = f"pods of {namespace} with {say_pairs(own)}" if own else f"all pods of {namespace}"
    summary = f"Let {named} in to port {port} in {policy.plain_kind}/{policy.name}"
    if policy.plain_kind != "NetworkPolicy":
        apart = {} if namespace == policy.namespace else {"k8s:io.kubernetes.pod.namespace": namespace}
        admitted: dict[str, object] = {"fromEndpoints": [{"matchLabels": {**own, **apart}}], "toPorts": _to(port)}
        return with_rules(policy, "ingress", [admitted], summary)
    peer: dict[str, object] = {"podSelector": {"matchLabels": own}}
    if namespace != pod.namespace:
        peer["namespaceSelector"] = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    rule: dict[str, object] = {"from": [peer], "ports": [{"protocol": "TCP", "port": port}]}
    return with_rules(policy, "ingress", [rule], summary)


def let_out(policy: Item, service: Item, port: int) -> Fix:
    """A rule for the pods behind a Service, where its selector says which they are."""
    selector = dig(service.raw, "spec.selector")
    rule: dict[str, object] = {"ports": [{"protocol": "TCP", "port": port}]}
    whom = service.name
    if not isinstance(selector, dict) or not selector:
        whom += ", which selects no pods, and so of all addresses,"
    else:
        peer: dict[str, object] = {"podSelector": {"matchLabels": selector}}
        if service.namespace != policy.namespace:
            peer["namespaceSelector"] = {"matchLabels": {"kubernetes.io/metadata.name": service.namespace}}
        rule["to"] = [peer]
    return with_rules(policy, "egress", [rule], f"Allow port {port} of {whom} in NetworkPolicy/{policy.name}")


def let_out_to(policy: Item, given: list[dict[str, Any]], hosts: Collection[str], port: int) -> Fix:
    """A rule of Cilium's: names where a policy has some already, since Cilium learns their addresses by a rule for DNS; else the world."""
    where = f"{policy.plain_kind}/{policy.name}"
    if hosts and any(rule.get("toFQDNs") for rule in given):
        names = [{"matchName": host} for host in sorted(hosts)]
        text = f"Allow port {port} to {' and '.join(sorted(hosts))} in {where}; a store may send on to other names"
        return with_rules(policy, "egress", [{"toFQDNs": names, "toPorts": _to(port)}], text)
    text = f"Allow port {port} to the entity world in {where}"
    if hosts:
        text += f"; less is open with toFQDNs of {' and '.join(sorted(hosts))}, and rules.dns where it allows DNS"
    return with_rules(policy, "egress", [{"toEntities": ["world"], "toPorts": _to(port)}], text)


def _to(port: int) -> list[dict[str, object]]:
    return [{"ports": [{"port": str(port), "protocol": "TCP"}]}]


def out_there(ports: Sequence[int], *, dns: bool) -> str:
    """DNS, and ports of public addresses, in words."""
    return " and ".join([*(["DNS (port 53)"] if dns else []), *(f"port {port} of public addresses" for port in ports)])


def let_outside(policy: Item, ports: Sequence[int] = (), *, dns: bool = False) -> Fix:
    """Rules for what is closed: DNS, or ports of public addresses."""
    wanted: list[dict[str, object]] = []
    if dns:
        wanted.append({"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]})
    if ports:
        block = {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"]}
        wanted.append({"to": [{"ipBlock": block}], "ports": [{"protocol": "TCP", "port": port} for port in ports]})
    return with_rules(policy, "egress", wanted, f"Allow {out_there(ports, dns=dns)} in NetworkPolicy/{policy.name}")


def with_rules(policy: Item, direction: str, added: list[dict[str, object]], summary: str) -> Fix:
    """A policy with further rules; those that it has stay. One of the whole cluster, or of several parts, is left to a person."""
    if "Clusterwide" in policy.kind or not isinstance(dig(policy.raw, "spec"), dict):
        return fixes.platform(f"{summary}, for all that it selects, or in a policy of this pod's own")
    if not any(
        dig(policy.raw, f"spec.{selector}.{part}")
        for selector in ("podSelector", "endpointSelector")
        for part in ("matchLabels", "matchExpressions")
    ):
        summary += f" (the policy selects every pod of {policy.namespace})"
    path = f"/spec/{direction}"
    operations: list[dict[str, object]] = [{"op": "add", "path": path, "value": added}]
    if isinstance(dig(policy.raw, f"spec.{direction}"), list):
        operations = [{"op": "add", "path": f"{path}/-", "value": rule} for rule in added]
    return fixes.patch_object(policy, summary, operations, owner="platform")
