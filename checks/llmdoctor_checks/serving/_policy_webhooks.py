"""Policies that keep the API server from the webhook that a pod answers, by what those say whose requests it then refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from kubectl_llmdoctor.api import (
    Cluster,
    Evidence,
    Finding,
    Item,
    Log,
    Pod,
    event_evidence,
    events_of,
    log_evidence,
    rows,
)
from llmdoctor_checks.serving._policies import has_port, policies, rules
from llmdoctor_checks.serving._policy_words import quote, with_rules

#: The API server's words of a webhook that did not answer (apiserver, pkg/admission/plugin/webhook), in JSON perhaps.
CALLING = "failed calling webhook"
_CALL = (
    r"failed calling webhook \\{0,3}\"(?P<who>[^\"\\]{1,253})\\{0,3}\": .{0,80}?Post \\{0,3}\"https://(?P<service>[\w-]{1,63})"
    r"\.(?P<namespace>[\w-]{1,63})\.svc(?::(?P<port>\d{1,5}))?/[^\"]{0,300}\": .{0,120}?"
    r"(?:context deadline exceeded|i/o timeout|Client\.Timeout exceeded)"
)

#: Whose events say that what they should make was refused so.
_MAKERS = ("ReplicaSet", "StatefulSet", "Deployment", "Job", "LeaderWorkerSet", "Workspace", "InferenceService")


def of_webhook(pod: Pod, cluster: Cluster) -> Iterator[Finding]:
    """A webhook of this pod that the API server waits for in vain, where no policy lets in who is no pod."""
    found = policies(pod, cluster, "Ingress")
    said = cluster.once("webhooks that do not answer", lambda: list(_calls(cluster))) if found else []
    services = {item.name: item for item in pod.services} if said else {}
    for call, evidence in said:
        service = services.get(call["service"]) if call["namespace"] == pod.namespace else None
        port = _port(pod, service, int(call["port"] or 443)) if service else None
        if port is None or any(has_port(rule, port) and _from_anywhere(rule) for rule in rules(found, "Ingress")):
            continue
        names = " and ".join(item.name for item in found)
        rule: dict[str, object] = {"ports": [{"protocol": "TCP", "port": port}]}
        yield Finding(
            summary=f"No rule of NetworkPolicy {names} lets the API server in to port {port} of {pod.name}, where it asks the webhook "
            f"{call['who']}: it gets no answer, and refuses what it should be asked about.",
            evidence=(evidence, *(quote(item, "ingress") for item in found)),
            explains=("admission-denied",),
            fix=with_rules(
                found[0],
                "ingress",
                [rule],
                f"Let everybody in to port {port}, as the API server is no pod, by NetworkPolicy/{found[0].name}; or take {names} away "
                "where a chart brought them for other programs (policies.create: false of Flux's)",
            ),
        )
        return


def _calls(cluster: Cluster) -> Iterator[tuple[re.Match[str], Evidence]]:
    """What logs and events say of webhooks that did not answer."""
    for text in cluster.snapshot.logs:
        for line in Log(text).find(CALLING) if not text.previous else ():
            if (call := re.search(_CALL, line.text[:8000])) is not None:
                yield call, log_evidence(line, call["service"])
    for event in (event for kind in _MAKERS for event in events_of(cluster).of_kind(kind)):
        if CALLING in event.message and (call := re.search(_CALL, event.message[:8000])) is not None:
            yield call, event_evidence(event, cluster)


def _port(pod: Pod, service: Item, asked: int) -> int | None:
    """The pod's own port behind one of a Service."""
    row = next((row for row in rows(service.raw, "spec.ports") if row.get("port") == asked), None)
    target = row.get("targetPort", asked) if row else None
    return target if isinstance(target, int) else pod.port_named(target)


def _from_anywhere(rule: dict[str, Any]) -> bool:
    """Whether a rule may let in the API server: everybody, addresses, or pods of other namespaces, through which some providers ask."""
    peers = rows(rule.get("from"))
    return not peers or any("ipBlock" in peer or "namespaceSelector" in peer for peer in peers)
