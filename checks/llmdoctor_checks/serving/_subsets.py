"""VirtualServices of Istio that send to a subset which no DestinationRule defines, or whose labels no pod has.

Source: Envoy's access log names the cluster `outbound|PORT|SUBSET|HOST`: one that is not defined is `cluster_not_found` (NC), one without
endpoints `no_healthy_upstream` (UH).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

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
    dig,
    fixes,
    log_evidence,
    object_evidence,
    rows,
    say_pairs,
    table,
)
from llmdoctor_checks.serving._exposure import lasting, matches
from llmdoctor_checks.serving._router_selectors import of_workloads
from llmdoctor_checks.serving._routes import answers, led_by_others
from llmdoctor_checks.start._backend_rules import is_for

#: What Envoy says of a cluster that it does not know, and of one without a server.
_UNKNOWN, _EMPTY = "cluster_not_found", "no_healthy_upstream"
LITERALS = (_UNKNOWN, _EMPTY)


def unmatched(pod: Pod, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """The first such destination of one of the pod's Services; a risk where another leads to the pod, or it is asked all the same."""
    for service in pod.services:
        rules = [item for item in cluster.items("DestinationRule") if is_for(item, service)]
        sent = list(sent_to(service, cluster))
        wrong = [(one, found) for one in sent if (found := _wrong(one[2], rules, service, pod, cluster)) is not None]
        for (item, at, subset), (why, evidence, fix) in wrong[:1]:
            said = _said(service, subset, cluster)
            yield Finding(
                role="cause"
                if len(wrong) == len(sent) and not answers(pod, logs) and not led_by_others(pod, item, cluster)
                else "risk",
                severity="warning",
                confidence="likely" if said else "possible",
                summary=f"VirtualService {item.name} sends requests to subset {subset} of Service {service.name}, {why}: they are answered "
                f"with 503, and {pod.name} gets none of them.",
                evidence=(object_evidence(item, at, subset), *evidence, *((log_evidence(said),) if said else ())),
                explains=("http-5xx",),
                fix=fix,
            )
            return


def sent_to(service: Item, cluster: Cluster) -> Iterator[tuple[Item, str, str]]:
    """Where routes send to a Service, and its subset, or ''."""
    for item in cluster.items("VirtualService"):
        for n, rule in enumerate(rows(item.raw, "spec.http")):
            for m, to in enumerate(rows(rule, "route")):
                name, _, rest = str(dig(to, "destination.host")).partition(".")
                if dig(to, "weight") == 0 and len(rows(rule, "route")) > 1:
                    continue  # a version that gets nothing yet, or nothing more
                if name == service.name and (rest.partition(".")[0] or item.namespace) == service.namespace:
                    yield (
                        item,
                        f"spec.http[{n}].route[{m}].destination.subset",
                        str(dig(to, "destination.subset") or ""),
                    )


def _wrong(
    subset: str, rules: list[Item], service: Item, pod: Pod, cluster: Cluster
) -> tuple[str, tuple[Evidence, ...], Fix] | None:
    """What is wrong with a subset: nobody defines it, or its labels are no pod's."""
    defined = [(item, n, row) for item in rules for n, row in enumerate(rows(item.raw, "spec.subsets"))]
    mine = [(item, n, row) for item, n, row in defined if row.get("name") == subset]
    if not subset or not rules:
        return None
    if not mine:
        have = ", ".join(str(row.get("name")) for _, _, row in defined) or "none"
        fitting = [item for item in rules if "*" not in str(dig(item.raw, "spec.host"))]
        evidence = object_evidence(rules[0], "spec.subsets", have)
        return (
            f"which DestinationRule {rules[0].name} does not define ({have})",
            (evidence,),
            _defined(subset, fitting, pod),
        )
    item, n, row = mine[0]
    labels = {str(key): str(value) for key, value in table(dig(row, "labels")).items()}
    has = [other.labels for other in cluster.items("Pod", pod.namespace)]
    known = cluster.complete("Pod", pod.namespace) or _said(service, subset, cluster)
    if not known or any(matches(labels, one) for one in (*has, *of_workloads(pod.namespace, cluster))):
        return None
    wanted = say_pairs(labels)
    evidence = object_evidence(item, f"spec.subsets[{n}].labels", wanted)
    return f"whose labels ({wanted}) no pod has", (evidence,), _relabelled(item, n, row, labels, pod)


def _defined(subset: str, rules: list[Item], pod: Pod) -> Fix:
    if len(rules) != 1:
        return fixes.advice(f"Define subset {subset} in a DestinationRule for the Service, or name one that is there")
    own = lasting(pod.labels)
    every = rows(rules[0].raw, "spec.subsets")
    if len(every) == 1 and matches(table(dig(every[0], "labels")), pod.labels):
        there = every[0].get("name")
        return fixes.advice(
            f"Name subset {there}, which there is, in place of {subset}, or define {subset} in DestinationRule/{rules[0].name}",
            f"kubectl -n {rules[0].namespace} edit destinationrule {rules[0].name}",
        )
    return fixes.set_field(
        rules[0],
        "/spec/subsets",
        [*every, {"name": subset, "labels": own}],
        f"Define subset {subset} in DestinationRule/{rules[0].name} with labels of the pods (" + say_pairs(own) + ")",
        op="add",
    )


def _relabelled(item: Item, n: int, row: dict[str, Any], labels: dict[str, str], pod: Pod) -> Fix:
    own = lasting(pod.labels)
    right = {key: own[key] for key in labels if key in own} or own
    return fixes.set_field(
        item,
        f"/spec/subsets/{n}/labels",
        right,
        f"Have subset {row.get('name')} of DestinationRule/{item.name} select "
        + say_pairs(right)
        + f", or give {say_pairs(labels)} to the pods of {fixes.edited(pod)}",
    )


def _said(service: Item, subset: str, cluster: Cluster) -> Line | None:
    meant = rf"\|{re.escape(subset)}\|{re.escape(service.name)}\.{re.escape(service.namespace)}\.svc\b"
    lines = (line for log in current_logs(cluster) for words in LITERALS if (line := log.last(words)) is not None)
    return next((line for line in lines if re.search(meant, line.text[:4000])), None)
