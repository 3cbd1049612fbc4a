"""A pool without pods beside the server's own in one rule of a route, for which requests are refused."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Backend,
    Cluster,
    Finding,
    Item,
    Line,
    Log,
    Pod,
    dig,
    fixes,
    log_evidence,
    object_evidence,
    rules_of,
    table,
)
from llmdoctor_checks.serving._exposure import matches
from llmdoctor_checks.serving._pickers import refused_by

#: How Istio calls what it makes of a pool, in the access log of its gateway, where a request ended with 503 that reached no server.
NO_HOST = "-ip-"
_SHADOW = (
    r"outbound\|\d{1,5}\|\|(?P<pool>[a-z0-9][a-z0-9.-]{0,252})-ip-[0-9a-f]{6,10}\.(?P<namespace>[a-z0-9-]{1,63})\.svc"
)
_UNSERVED = r"\"response_code\": ?\"?503\b.{0,2000}\"upstream_host\": ?(?:null|\"-\")|\" 503 \S{1,40} (?!via_upstream)"

#: What makes the pods of a pool.
_MADE_BY = ("Deployment", "StatefulSet", "LeaderWorkerSet")


def beside(pod: Pod, cluster: Cluster) -> Iterator[Finding]:
    """It fails its share of the requests, or, where the gateway asks one picker for the whole rule (Istio), all of them."""
    mine = {pool.name for pool in pod.pools}
    for route in cluster.items("HTTPRoute") if mine else ():
        for rule in rules_of(route):
            named = {one.name: one.raw.get("weight", 1) for one in rule.backends if _takes_part(one, pod)}
            if mine.isdisjoint(named):
                continue
            for name, weight in named.items():
                pool = cluster.item("InferencePool", pod.namespace, name) if name not in mine else None
                if pool is None or _has_pods(pool, cluster):
                    continue
                picker = refused_by(pool, cluster)
                said = picker or (_refused_by_gateway({name, *mine}, pool, cluster) if _at_zero(pool, cluster) else [])
                if not said:
                    continue
                who = "its endpoint picker refuses them" if picker else "they are answered with 503"
                yield Finding(
                    summary=f"HTTPRoute {route.name} sends requests to InferencePool {name}, too, in one rule with that of this server, "
                    f"and it has no pods: {who}.",
                    evidence=(
                        log_evidence(said[-1]),
                        object_evidence(route, f"{rule.path}.backendRefs", f"name: {name}, weight: {weight}"),
                        object_evidence(pool, "spec.selector", str(dig(pool.raw, "spec.selector"))),
                    ),
                    fix=fixes.advice(
                        f"Scale the servers of InferencePool {name} up, or take it out of that rule of HTTPRoute {route.name} while it "
                        "has none; a gateway that asks one picker for a rule (Istio) needs a rule for each pool"
                    ),
                    order=said[0].order,
                )
                return


def _takes_part(backend: Backend, pod: Pod) -> bool:
    """Whether a backend is a pool of the pod's namespace that gets requests."""
    return backend.meant[:2] == ("InferencePool", pod.namespace) and backend.raw.get("weight", 1) != 0


def _refused_by_gateway(names: set[str], pool: Item, cluster: Cluster) -> list[Line]:
    """Requests by one of these pools that Istio's gateway answered with 503, and passed on to nobody."""
    found = cluster.once("pools unserved", lambda: list(_unserved(cluster)))
    return [line for namespace, name, line in found if namespace == pool.namespace and name in names]


def _unserved(cluster: Cluster) -> Iterator[tuple[str, str, Line]]:
    for text in cluster.snapshot.logs:
        for line in Log(text).find(NO_HOST) if not text.previous else ():
            said = re.search(_SHADOW, line.text[:4000])
            if said is not None and re.search(_UNSERVED, line.text[:4000]):
                yield said["namespace"], said["pool"], line


def _at_zero(pool: Item, cluster: Cluster) -> bool:
    """Whether what would make the pods of a pool is there, and makes none."""
    items = (item for kind in _MADE_BY for item in cluster.items(kind, pool.namespace))
    made = [
        item for item in items if matches(pool.wanted_labels, table(dig(item.raw, "spec.template.metadata.labels")))
    ]
    return bool(made) and all(dig(item.raw, "spec.replicas") == 0 for item in made)


def _has_pods(pool: Item, cluster: Cluster) -> bool:
    wanted = pool.wanted_labels
    return not wanted or any(matches(wanted, item.labels) for item in cluster.items("Pod", pool.namespace))
