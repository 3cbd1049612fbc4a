"""VirtualServices of Istio to a pod that no gateway serves: theirs is not there, or has other hosts, or clients ask for another host.

Sources: Istio's reference of VirtualService and Gateway: a gateway without a namespace is one of the VirtualService's own, and a server's
hosts may begin with the namespace whose VirtualServices it takes. Envoy's access log has a request for a host that it does not know as
`404 NR route_not_found`, with that host as the last quoted word but one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Evidence,
    Finding,
    Fix,
    Item,
    Line,
    Logs,
    Pod,
    current_logs,
    fixes,
    log_evidence,
    object_evidence,
    rows,
    words,
)
from llmdoctor_checks.serving._exposure import backends
from llmdoctor_checks.serving._routes import answers
from llmdoctor_checks.serving._subsets import sent_to

UNKNOWN_HOST = "NR route_not_found"
#: Such a request to generate, and what is quoted behind it.
_ASKED, _QUOTED = r'"POST /\S{0,300} HTTP/[\d.]{1,3}" 404 NR route_not_found ', r'"([^"]{0,500})"'
_FEWEST = 3
#: Inside of the mesh a VirtualService needs no gateway.
_MESH = "mesh"
_GROUP = "networking.istio.io/"


def unentered(pod: Pod, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """The first such VirtualService, where no other way leads to the pod and nobody asks it."""
    sent = {id(item): item for service in pod.services for item, _, _ in sent_to(service, cluster)}
    mine = [item for item in sent.values() if (named := words(item.raw, "spec.gateways")) and _MESH not in named]
    led = {name for item in cluster.items("Ingress", pod.namespace) for name in backends(item)}
    if not mine or led & {item.name for item in pod.services} or answers(pod, logs):
        return
    found = [one for item in mine if (one := _wrong(item, cluster)) is not None]
    if len(found) < len(mine):
        found = [one for one in [_asked_otherwise(mine[0], cluster)] if one is not None] if len(mine) == 1 else []
    for item, why, evidence, fix in found[:1]:
        yield Finding(
            severity="warning",
            summary=f"VirtualService {item.name} {why}. {pod.name} gets no requests through it.",
            evidence=evidence,
            explains=("http-5xx",),
            fix=fix,
        )


_Wrong = tuple[Item, str, tuple[Evidence, ...], Fix]


def _wrong(item: Item, cluster: Cluster) -> _Wrong | None:
    """What is wrong with all the gateways of a VirtualService."""
    named = words(item.raw, "spec.gateways")
    places = [_place(item, name) for name in named]
    there = [cluster.item("Gateway", *place) for place in places]
    evidence = object_evidence(item, "spec.gateways", ", ".join(named))
    gateways = [one for one in there if one is not None and one.api_version.startswith(_GROUP)]
    if not gateways and len(places) == 1:
        return _missing(item, named[0], places[0], evidence, cluster)
    hosts = words(item.raw, "spec.hosts")
    if len(gateways) < len(places) or not hosts or any(_takes(one, item, hosts) for one in gateways):
        return None
    gateway = gateways[0]
    servers = rows(gateway.raw, "spec.servers")
    taken = sorted({host for server in servers for host in words(server, "hosts")})
    quoted = object_evidence(gateway, "spec.servers[].hosts", ", ".join(taken))
    text = f"Add {', '.join(hosts)} to the hosts of Gateway/{gateway.name} in {gateway.namespace}"
    whole = len(servers) == 1 and servers[0].get("tls") is None
    operations = [{"op": "add", "path": "/spec/servers/0/hosts/-", "value": host} for host in hosts]
    return (
        item,
        f"is for {', '.join(hosts)}, and Gateway {gateway.namespace}/{gateway.name} takes requests for {', '.join(taken)} alone",
        (object_evidence(item, "spec.hosts", ", ".join(hosts)), quoted),
        fixes.patch_object(gateway, text, operations, owner="platform")
        if whole
        else fixes.platform(
            f"{text}, with a certificate for it, or give the VirtualService one of these",
            f"kubectl -n {gateway.namespace} edit gateways.networking.istio.io {gateway.name}",
        ),
    )


def _place(item: Item, name: str) -> tuple[str, str]:
    namespace, _, own = name.rpartition("/")
    return (item.namespace if namespace in ("", ".") else namespace), own


def _missing(item: Item, name: str, place: tuple[str, str], evidence: Evidence, cluster: Cluster) -> _Wrong | None:
    every = [one for one in cluster.items("Gateway") if one.api_version.startswith(_GROUP)]
    alike = [one for one in every if one.name == place[1]]
    # kinds of two groups are called so: a list of them may be one of the Gateway API's
    if not every or cluster.exists("Gateway", *place) is not False:
        return None
    candidates = alike or every
    have = ", ".join(f"{one.namespace}/{one.name}" for one in candidates[:3])
    why = f"hangs on Gateway {name}, which is {place[0]}/{place[1]}, and there is none, only {have}"
    right = f"{candidates[0].namespace}/{candidates[0].name}"
    text = f"Write {right} in place of {name} in VirtualService/{item.name}"
    fix = (
        fixes.set_field(item, "/spec/gateways", [right], text)
        if len(candidates) == 1 and _takes(candidates[0], item, words(item.raw, "spec.hosts"))
        else fixes.advice(f"Name a Gateway that is there in VirtualService/{item.name} ({have})")
    )
    said = _unknown(cluster)
    return item, why, (evidence, *((log_evidence(said[-1][0]),) if said else ())), fix


def _takes(gateway: Item, item: Item, hosts: list[str]) -> bool:
    """Whether a server of a Gateway takes requests for one of the hosts of a VirtualService."""
    for server in rows(gateway.raw, "spec.servers"):
        for told in words(server, "hosts"):
            namespace, _, host = told.rpartition("/")
            own = gateway.namespace if namespace == "." else namespace
            if own in ("", "*", item.namespace) and any(_meet(host, one) for one in hosts):
                return True
    return False


def _meet(one: str, other: str) -> bool:
    """Whether two hosts mean one name, which `*` at the beginning of either stands for."""
    if "*" in (one, other) or one == other:
        return True
    return (one.startswith("*.") and other.endswith(one[1:])) or (other.startswith("*.") and one.endswith(other[1:]))


def _asked_otherwise(item: Item, cluster: Cluster) -> _Wrong | None:
    """A host that clients ask a gateway for, and that no VirtualService has, while nobody asks for this one's."""
    hosts = words(item.raw, "spec.hosts")
    said = _unknown(cluster)
    asked = {host for _, host in said}
    if len(said) < _FEWEST or len(asked) != 1 or len(hosts) != 1 or "*" in hosts[0]:
        return None
    host = asked.pop()
    every = [one for kind in ("VirtualService", "HTTPRoute") for one in cluster.items(kind)]
    known = [name for one in every for path in ("spec.hosts", "spec.hostnames") for name in words(one.raw, path)]
    alike = host.partition(".")[0] == hosts[0].partition(".")[0] or host.partition(".")[2] == hosts[0].partition(".")[2]
    if any(_meet(name, host) for name in known) or not alike:
        return None
    line = said[-1][0]
    return (
        item,
        f"is for {hosts[0]}, and clients ask {line.log.pod} for {host}, which no VirtualService has: they are answered 404",
        (object_evidence(item, "spec.hosts", hosts[0]), log_evidence(line)),
        fixes.set_field(
            item, "/spec/hosts/-", host, f"Add {host} to the hosts of VirtualService/{item.name}", op="add"
        ),
    )


def _unknown(cluster: Cluster) -> list[tuple[Line, str]]:
    """Requests for hosts that a gateway does not know."""
    found = []
    for log in current_logs(cluster):
        for line in log.find(UNKNOWN_HOST):
            text = line.text[:4000]
            quoted = re.findall(_QUOTED, text[said.end() :]) if (said := re.search(_ASKED, text)) is not None else []
            if len(quoted) > 1:
                found.append((line, quoted[-2].partition(":")[0]))
    return found
