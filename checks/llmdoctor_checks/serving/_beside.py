"""A pool without pods beside the server's own in one rule of a route, whose endpoint picker refuses requests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubectl_llmdoctor.api import Cluster, Finding, Item, Pod, dig, fixes, log_evidence, object_evidence, rows
from llmdoctor_checks.serving._exposure import matches
from llmdoctor_checks.serving._pickers import refused_by


def beside(pod: Pod, cluster: Cluster) -> Iterator[Finding]:
    """It fails its share of the requests, or, where the gateway asks one picker for the whole rule (Istio), all of them."""
    mine = {pool.name for pool in pod.pools}
    for route in cluster.items("HTTPRoute") if mine else ():
        for number, rule in enumerate(rows(route.raw, "spec.rules")):
            named = [(ref, str(ref.get("name"))) for ref in rows(rule, "backendRefs") if _takes_part(ref, route, pod)]
            if mine.isdisjoint(name for _, name in named):
                continue
            for ref, name in named:
                pool = cluster.item("InferencePool", pod.namespace, name) if name not in mine else None
                said = refused_by(pool, cluster) if pool is not None else []
                if pool is None or not said or _has_pods(pool, cluster):
                    continue
                weight = ref.get("weight", 1)
                yield Finding(
                    role="cause",
                    summary=f"HTTPRoute {route.name} sends requests to InferencePool {name}, too, in one rule with that of this server, "
                    "and it has no pods: its endpoint picker refuses them.",
                    evidence=(
                        log_evidence(said[-1]),
                        object_evidence(route, f"spec.rules[{number}].backendRefs", f"name: {name}, weight: {weight}"),
                        object_evidence(pool, "spec.selector", str(dig(pool.raw, "spec.selector"))),
                    ),
                    fixes=(
                        fixes.advice(
                            f"Scale the servers of InferencePool {name} up, or take it out of that rule of HTTPRoute {route.name} while it "
                            "has none; a gateway that asks one picker for a rule (Istio) needs a rule for each pool"
                        ),
                    ),
                    order=said[0].order,
                )
                return


def _takes_part(ref: dict[str, Any], route: Item, pod: Pod) -> bool:
    """Whether a backend is a pool of the pod's namespace that gets requests."""
    pool = ref.get("kind") == "InferencePool" and ref.get("weight", 1) != 0
    return pool and str(ref.get("namespace") or route.namespace) == pod.namespace


def _has_pods(pool: Item, cluster: Cluster) -> bool:
    told = dig(pool.raw, "spec.selector.matchLabels") or dig(pool.raw, "spec.selector")
    wanted = {str(k): str(v) for k, v in told.items()} if isinstance(told, dict) else {}
    return not wanted or any(matches(wanted, item.labels) for item in cluster.items("Pod", pool.namespace))
