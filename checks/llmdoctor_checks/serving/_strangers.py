"""Pods that a Service or an InferencePool selects beside a server, and which do not listen where it sends."""

import itertools
import re
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import (
    Cluster,
    Evidence,
    Finding,
    Item,
    Line,
    Pod,
    clients,
    current_logs,
    dig,
    engines_in,
    fixes,
    is_headless,
    log_evidence,
    object_evidence,
    rows,
    say_pairs,
    top_of,
    written_ago,
)
from llmdoctor_checks._clients import asking
from llmdoctor_checks._services import target_ports
from llmdoctor_checks.serving._exposure import matches
from llmdoctor_checks.serving._gateways import STORES
from llmdoctor_checks.serving._policy_clients import pickers, picks, serves_grpc

#: A connection that nobody took; Envoy writes it with underscores, too.
REFUSED = ("onnection refused", "onnection_refused")
#: So many are no chance; and what names another, or its port, is not of this server.
_FEWEST, _ANY_AT = 2, r"https?://|\bport\b|[a-z)\]]:\d{2,5}\b|\d{1,3}(?:\.\d{1,3}){3}:\d"
#: Envoy's filter that asks another program about each request, over gRPC, and names none.
_OF_A_PROCESSOR = "ext_proc"
#: What a program connects to beside a server of models.
_OF_OTHERS = rf"(?i){STORES}|database|\bdb\b|cache|embed|rerank|\btool\b|smtp|\bdns\b"
_AT = r"(?<![\d.])(\d{1,3}(?:\.\d{1,3}){3}):(\d{1,5})(?!\d)"


def strangers(pod: Pod, cluster: Cluster) -> Iterator[Finding]:
    """One that a gateway's log says was refused there: it takes its share of the requests, and fails it."""
    if not _refusals(cluster).any:
        return
    yield from _beside(pod, cluster)
    if any(line.log.pod == pod.name and line.log.source.namespace == pod.namespace for line in _refusals(cluster).any):
        for server in _behind(pod, cluster):
            yield from itertools.islice(_beside(server, cluster), 1)
            return


def _behind(pod: Pod, cluster: Cluster) -> Iterator[Pod]:
    """Of a gateway that was refused, a server of a pool beside which another pod refused it."""
    hosts = {(item.namespace, item.name) for item in _refusals(cluster).pods}
    for pool in cluster.items("InferencePool") if not pod.pools and not engines_in(pod) else ():
        wanted = dig(pool.raw, "spec.selector.matchLabels") or dig(pool.raw, "spec.selector")
        members = [one for one in cluster.items("Pod", pool.namespace) if wanted and matches(wanted, one.labels)]
        if not any((one.namespace, one.name) in hosts for one in members):
            continue
        for one in members:
            server = Pod.of(one, cluster)
            if server.ready and any(c.declared_ports & target_ports(pool) for c in server.containers):
                yield server


def _beside(pod: Pod, cluster: Cluster) -> Iterator[Finding]:
    """Those that one of its Services or pools selects beside a server."""
    alone = bool(_refusals(cluster).of_processors) and _picks_alone(pod, cluster)
    for item, numbers in _selecting(pod):
        for other in _others(item, pod, cluster, every=alone):
            declared = {port for c in other.containers if c.role != "init" for port in c.declared_ports}
            address = other.status.pod_ip
            # what a Job runs is no server, be it that it declares no port
            job = next(iter(other.obj.metadata.owner_references), None)
            of_job = job is not None and job.kind == "Job"
            if not address or declared & numbers or not (declared or of_job):
                continue
            line = next((x for n in sorted(numbers) if (x := _refused(cluster, address, n, other)) is not None), None)
            line = line or (_by_a_client(pod, other, item, cluster) if of_job and item.kind == "Service" else None)
            line = line or (_by_a_gateway(pod, other, cluster) if declared and alone else None)
            if line is None:
                continue
            told = dig(item.raw, "spec.selector")
            wanted = told.get("matchLabels", told) if isinstance(told, dict) else {}
            own = ((k, v) for k, v in pod.labels.items() if k not in wanted and "hash" not in k)
            label = next((f"{k}={v}" for k, v in own if other.labels.get(k) != v), "")
            port, kind = min(numbers), item.plain_kind
            yield Finding(
                severity="warning",
                summary=f"{kind} {item.name} selects {other.name}, too, which does not listen on port {port}: its share of the "
                "requests is refused.",
                evidence=(
                    log_evidence(line, address if address in line.text else ""),
                    object_evidence(item, "spec.selector", say_pairs(wanted, ": ")),
                    Evidence(
                        source="workload",
                        ref=f"Pod/{other.name} spec.containers[].ports",
                        text=f"containerPort: {', '.join(map(str, sorted(declared))) or 'none'}",
                    ),
                ),
                fix=fixes.advice(
                    f"Add a label to the selector of {kind} {item.name} that only the servers have"
                    + (f" ({label})" if label else "")
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


def _others(item: Item, pod: Pod, cluster: Cluster, *, every: bool) -> Iterator[Pod]:
    """Ready pods of other workloads that it selects, of all or of those that may have refused a connection."""
    pods = cluster.items("Pod", pod.namespace) if every else _refusals(cluster).pods
    told = dig(item.raw, "spec.selector")
    wanted = told.get("matchLabels", told) if isinstance(told, dict) else None
    owned = pod.item is not None and (top_of(pod.item, cluster) is not None or _owner(pod) is None)
    for one in pods if wanted and owned else ():
        if one.namespace != pod.namespace or not matches(wanted, one.labels):
            continue
        other = Pod.of(one, cluster)
        # one of the host's network shares its address with others
        if not other.spec.host_network and other.ready and not other.leaving and _apart(other, pod, cluster):
            yield other


def _apart(other: Pod, pod: Pod, cluster: Cluster) -> bool:
    """Whether two pods are of two workloads, by their owners' names where the other's were not read; without any by their images."""
    if _owner(pod) is None or _owner(other) is None:
        images = ({c.spec.image for c in one.containers if c.role != "init"} for one in (pod, other))
        return _owner(pod) is _owner(other) and next(images).isdisjoint(next(images))
    top = top_of(other.item, cluster)
    mine = top_of(pod.item, cluster)
    if top is not None:
        return mine is not None and top.item is not mine.item
    return _owner(other) not in (None, _owner(pod))


def _owner(pod: Pod) -> tuple[str, str] | None:
    """What made a pod; of a ReplicaSet's name without the hash of the template, which changes with each revision."""
    owner = next(iter(pod.obj.metadata.owner_references), None)
    if owner is None:
        return None
    return owner.kind, owner.name.rpartition("-")[0] if owner.kind == "ReplicaSet" else owner.name


def _refused(cluster: Cluster, address: str, port: int, other: Pod) -> Line | None:
    """Where somebody else says that he was refused at an address."""
    said = _refusals(cluster).at.get((address, port), ())
    return next((x for x in said if (x.log.source.namespace, x.log.pod) != (other.namespace, other.name)), None)


class _Refusals(msgspec.Struct, frozen=True):
    """Connections that nobody took, by address and port, and the pods that have such an address."""

    at: dict[tuple[str, int], list[Line]]
    pods: list[Item]
    #: all such lines
    any: list[Line]
    #: those of a program that is asked about each request
    of_processors: list[Line]


def _refusals(cluster: Cluster) -> _Refusals:
    return cluster.once("refused", lambda: _refusals_of(cluster))


def _refusals_of(cluster: Cluster) -> _Refusals:
    at: dict[tuple[str, int], list[Line]] = {}
    said: list[Line] = []
    for log in current_logs(cluster):
        for line in log.find(*REFUSED):
            said.append(line)
            for address, port in re.findall(_AT, line.text):
                at.setdefault((address, int(port)), []).append(line)
    hosts = {address for address, _ in at}
    pods = [
        item
        for item in (cluster.items("Pod") if said else ())
        if str(dig(item.raw, "status.podIP")) in hosts
        or any(row.get("kind") == "Job" for row in rows(item.raw, "metadata.ownerReferences"))
    ]
    return _Refusals(at, pods, said, [line for line in said if _OF_A_PROCESSOR in line.text])


def _picks_alone(pod: Pod, cluster: Cluster) -> bool:
    """Whether the pod is what a gateway asks where to send requests, and no other Service is of such a one: no line says whom it asked."""
    if engines_in(pod) or not serves_grpc(pod) or not picks(pod, cluster):
        return False
    named = cluster.once("pickers", lambda: pickers(cluster))
    return named <= {(item.namespace, item.name) for item in pod.services}


def _by_a_gateway(pod: Pod, other: Pod, cluster: Cluster) -> Line | None:
    """Where a gateway that asks over gRPC where to send requests was refused by it does not say whom, while both are ready for long."""
    longest = _both_ready(pod, other, cluster)
    lines = [
        line
        for line in _refusals(cluster).of_processors
        if line.log.pod not in (pod.name, other.name)
        and (ago := written_ago(line, cluster.now)) is not None
        and ago < (longest or 0)
    ]
    return lines[-1] if len(lines) >= _FEWEST and pod.ready else None


def _both_ready(pod: Pod, other: Pod, cluster: Cluster) -> float | None:
    """For how many seconds neither of two pods has become ready, or ceased to be."""
    ages: list[float | None] = []
    for one in (pod, other):
        ready = one.condition("Ready")
        at = ready.last_transition_time if ready is not None else None
        # where that is not told, it was not before its containers ran
        ages += [
            cluster.seconds_since(time)
            for time in (
                [at] if at else [s.state.running.started_at for s in one.status.container_statuses if s.state.running]
            )
        ]
    return min((age for age in ages if age is not None), default=None)


def _by_a_client(pod: Pod, other: Pod, service: Item, cluster: Cluster) -> Line | None:
    """Where clients of this server alone say, again and again, that they were refused by they do not say whom, while both run."""
    restarts = sum(status.restart_count for status in pod.status.container_statuses)
    # before the server is ready nobody takes a connection, either
    longest = _both_ready(pod, other, cluster)
    who = {c.whose for c in asking(pod, cluster)}
    who &= clients(pod, {service.name}, cluster)
    lines = [
        line
        for line in _refusals(cluster).any
        if line.log.whose in who
        and not re.search(_ANY_AT, line.text)
        and not re.search(_OF_OTHERS, line.text)
        and (longest is None or (ago := written_ago(line, cluster.now)) is None or ago < longest)
    ]
    return lines[-1] if len(lines) >= _FEWEST and pod.ready and not restarts else None
