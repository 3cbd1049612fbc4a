"""Pods that a Service or an InferencePool selects beside a server, and which do not listen where it sends."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import (
    Cluster,
    Evidence,
    Finding,
    Item,
    Line,
    Log,
    Pod,
    dig,
    fixes,
    is_headless,
    log_evidence,
    object_evidence,
    rows,
    top_of,
)
from llmdoctor_checks._services import target_ports
from llmdoctor_checks.serving._exposure import matches

#: A connection that nobody took; Envoy writes it with underscores, too.
REFUSED = ("onnection refused", "onnection_refused")
_AT = r"(?<![\d.])(\d{1,3}(?:\.\d{1,3}){3}):(\d{1,5})(?!\d)"


def strangers(pod: Pod, cluster: Cluster) -> Iterator[Finding]:
    """One that a gateway's log says was refused there: it takes its share of the requests, and fails it."""
    if not _refusals(cluster).at:
        return
    for item, numbers in _selecting(pod):
        for other in _others(item, pod, cluster):
            declared = {p.container_port for c in other.containers if c.role != "init" for p in c.spec.ports}
            address = other.status.pod_ip
            if not declared or not address or declared & numbers:
                continue
            line = next((x for n in sorted(numbers) if (x := _refused(cluster, address, n, other)) is not None), None)
            if line is None:
                continue
            told = dig(item.raw, "spec.selector")
            wanted = told.get("matchLabels", told) if isinstance(told, dict) else {}
            own = ((k, v) for k, v in pod.labels.items() if k not in wanted and "hash" not in k)
            label = next((f"{k}={v}" for k, v in own if other.labels.get(k) != v), "")
            port, kind = min(numbers), item.kind.partition(".")[0]
            yield Finding(
                role="cause",
                severity="warning",
                summary=f"{kind} {item.name} selects {other.name}, too, which does not listen on port {port}: its share of the "
                "requests is refused.",
                evidence=(
                    log_evidence(line, address),
                    object_evidence(item, "spec.selector", ", ".join(f"{k}: {v}" for k, v in wanted.items())),
                    Evidence(
                        source="workload",
                        ref=f"Pod/{other.name} spec.containers[].ports",
                        text=f"containerPort: {', '.join(map(str, sorted(declared)))}",
                    ),
                ),
                fixes=(
                    fixes.advice(
                        f"Add a label to the selector of {kind} {item.name} that only the servers have"
                        + (f" ({label})" if label else "")
                    ),
                ),
                order=line.order,
            )
            return


def _selecting(pod: Pod) -> Iterator[tuple[Item, set[int]]]:
    """What selects the pod, and the ports of pods to which it sends, as far as they are numbers."""
    for item in pod.pools:
        if numbers := target_ports(item):
            yield item, numbers
    for item in pod.services:
        targets = [row.get("targetPort", row.get("port")) for row in rows(item.raw, "spec.ports")]
        numbers = {target for target in targets if isinstance(target, int)}
        if numbers and len(numbers) == len(targets) and not is_headless(item):
            yield item, numbers


def _others(item: Item, pod: Pod, cluster: Cluster) -> Iterator[Pod]:
    """Ready pods of other workloads that it selects."""
    told = dig(item.raw, "spec.selector")
    wanted = told.get("matchLabels", told) if isinstance(told, dict) else None
    mine = top_of(pod.item, cluster) if pod.item else None
    for one in _refusals(cluster).pods if wanted and mine is not None else ():
        if one.namespace != pod.namespace:
            continue
        if not matches(wanted, one.labels):
            continue
        other = Pod.of(one, cluster)
        top = top_of(one, cluster)
        # one of the host's network shares its address with others
        of_its_own = not other.spec.host_network
        if (
            of_its_own
            and top is not None
            and mine is not None
            and top.item is not mine.item
            and other.ready
            and not other.leaving
        ):
            yield other


def _refused(cluster: Cluster, address: str, port: int, other: Pod) -> Line | None:
    """Where somebody else says that he was refused at an address."""
    said = _refusals(cluster).at.get((address, port), ())
    return next((x for x in said if (x.log.source.namespace, x.log.pod) != (other.namespace, other.name)), None)


class _Refusals(msgspec.Struct, frozen=True):
    """Connections that nobody took, by address and port, and the pods that have such an address."""

    at: dict[tuple[str, int], list[Line]]
    pods: list[Item]


def _refusals(cluster: Cluster) -> _Refusals:
    return cluster.once("refused", lambda: _refusals_of(cluster))


def _refusals_of(cluster: Cluster) -> _Refusals:
    at: dict[tuple[str, int], list[Line]] = {}
    for text in cluster.snapshot.logs:
        log = Log(text)
        for line in (line for words in REFUSED if not text.previous for line in log.find(words)):
            for address, port in re.findall(_AT, line.text):
                at.setdefault((address, int(port)), []).append(line)
    hosts = {address for address, _ in at}
    pods = [item for item in cluster.items("Pod") if str(dig(item.raw, "status.podIP")) in hosts] if hosts else []
    return _Refusals(at, pods)
