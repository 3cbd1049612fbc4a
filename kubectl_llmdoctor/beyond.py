"""Whom a target needs, and who is not there for it: pods outside of it in which its root cause stands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain

from kubectl_llmdoctor.check import Finding
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.clients import askers, proxies, told_by
from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.destinations import engines_in, follow, logs_of, takes_telemetry
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.routes import pickers_of
from kubectl_llmdoctor.facts.subject import Subject
from kubectl_llmdoctor.facts.workload import Workload

#: A host with a port, also as Prisma, libpq and urllib3 quote the two.
_ADDRESS = expression(
    r"(?<![\w.-])(?P<host>[a-z0-9](?:[\w-]{0,62}\.){0,8}[\w-]{0,62})[`'\"]?(?::|, port[= ])[`'\"]?(?P<port>\d{2,5})(?!\w|[.:-]\d)"
)
#: What a line says of a server that did not take a connection, or did not answer.
_IN_VAIN = expression(
    r"(?i)\bconnect(?:ion|ing|ed)?\b"
    r"|\breach|refused|unavailable|timed? ?out|resolve|name or service|no such host|deadline exceeded|\b50[234]\b"
)
#: By what a line names whom it asked, in the cluster or outside: a URL, a host with a port that is no place in a file, an address.
_SOMEBODY = expression(
    r"://[\w\[]|\bhost\W{1,3}\w|(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}\b|\blocalhost\b"
    r"|\b[a-zA-Z][\w.-]{0,200}(?<!\.(?:py|rs|cc|cu|go|js|ts))(?<!\.(?:cpp|hpp))(?<!\.[ch])(?<!\.java):\d{2,5}(?![\d:])"
)
#: The same of a URL, which need not say its port.
_URL = expression(r"https?://(?P<host>[a-z0-9][\w.-]{0,252})(?::(?P<port>\d{2,5}))?(?![\w:])")
#: What may be the name of a pod.
_NAME = expression(r"(?<![\w.-])[a-z0-9][a-z0-9.-]{0,251}[a-z0-9]")
#: So many addresses of a line are followed, and so many replicas of a server looked at.
_MOST, _REPLICAS = 8, 3
#: What stands between a server and who asks it, as evidence refers to it.
_BETWEEN = ("HTTPRoute/", "InferencePool/", "Gateway/")
#: So many servers that a target asks are looked at, and so many of the last lines of a log for whom else it asks.
_SERVERS, _LAST = 6, 400


def awaited(finding: Finding, subject: Subject) -> Iterator[tuple[str, list[Pod]]]:
    """The pods outside of a target that a cause says do not answer, the worst first, and where they were asked: where none is ready.

    The cause names them, or a line that it quotes, or what the pod is told has their address.
    """
    mine = {(pod.namespace, pod.name) for pod in subject.pods}
    for shown, pods in (*_named(finding, subject), *_asked(finding, subject)):
        if any(pod.ready or (pod.namespace, pod.name) in mine for pod in pods):
            continue
        worst = sorted((pod for pod in pods if pod.troubles and not pod.leaving), key=lambda pod: not pod.failing)
        if worst:
            yield shown, worst[:_REPLICAS]


def bringers(subject: Subject) -> Iterator[Pod]:
    """The pods of Jobs that mount a claim of a target, too, and have failed, each: what they should have brought there is not whole."""
    cluster = subject.cluster
    for namespace, name in sorted({(pod.namespace, name) for pod in subject.pods for name in pod.spec.claim_names}):
        for pods in cluster.once(f"pods of failed Jobs in {namespace}", partial(_of_failed_jobs, cluster, namespace)):
            if all(name in pod.spec.claim_names for pod in pods):
                yield pods[-1]


def servers(subject: Subject) -> list[Pod]:
    """Whom a target asks, by what it is told, by the end of its logs, by what stands between, and whom these ask in turn; of replicas one.

    Without those that were asked about themselves: they have a diagnosis of their own.
    """
    known, found = {(pod.namespace, pod.name) for pod in subject.pods}, list[Pod]()
    askers = list(subject.pods)
    while askers and len(found) < _SERVERS:
        asker = askers.pop(0)
        for pod in _asked_by(asker):
            if (pod.namespace, pod.name) not in known and not _was_asked(pod):
                known.add((pod.namespace, pod.name))
                found.append(pod)
                if not engines_in(pod):
                    askers.append(pod)
    return found[:_SERVERS]


def neighbours(subject: Subject) -> list[Pod]:
    """Who else may say something of a target: the others of its namespace, and, of what brings GPUs or nodes, pods without a node.

    What others say of a target that is not up is no reason for it, and a replica fares as it does by itself.
    """
    cluster, spaces = subject.cluster, {pod.namespace for pod in subject.pods}
    owners = [owner for pod in subject.pods if pod.item and (owner := cluster.owner(pod.item))]
    near = [
        pod
        for pod in (_each(cluster) if all(pod.ready for pod in subject.pods) else ())
        if pod.namespace in spaces and (pod.item is None or cluster.owner(pod.item) not in owners)
    ]
    near = sorted(near, key=lambda pod: pod.gpu_container is None)[:_SERVERS]
    if any(logs_of(pod).all for pod in subject.pods) and not any(map(engines_in, subject.pods)):
        near += list(_each(cluster, unscheduled=True))[:_SERVERS]
    return [pod for pod in near if not _was_asked(pod)]


def concerns(finding: Finding, pod: Pod, subject: Subject) -> bool:
    """Whether a finding of another pod quotes the log of a target, names it, or is about the route or the pool for which it works."""
    names = {one.name for one in subject.pods}
    quoted = {one.ref.partition(" ")[0] for one in finding.evidence if one.source == "log"}
    if pod.unscheduled:
        return not names.isdisjoint(quoted)  # it may name whoever has what it wants
    if not names.isdisjoint(quoted) or not names.isdisjoint(_NAME.findall(finding.summary)):
        return True
    leads = any(one.ref.startswith(_BETWEEN) for one in finding.evidence if one.source == "workload")
    return leads and any(_stands_before(one, pod) for one in subject.pods)


def _asked_by(asker: Pod) -> Iterator[Pod]:
    """The servers that a pod asks, of replicas one."""
    told = [text[:4000] for container in asker.containers for _, text in told_by(container)]
    # the log of a server names its clients
    logs = () if engines_in(asker) else logs_of(asker).all
    ends = [line.text[:4000] for log in logs for line in log.lines(max(1, len(log) - _LAST), len(log))]
    for _, pods in _behind((*told, *dict.fromkeys(ends)), asker, urls=True):
        yield from [pod for pod in pods if pod.ready][:1]
    hosts = {said["host"] for text in ends for said in _ADDRESS.finditer(text)}
    for pod in _each(asker.cluster):
        asking = (container.pod for container, _, _ in askers(pod, {one.name for one in pod.services}, pod.cluster))
        if pod.status.pod_ip in hosts or _stands_before(asker, pod) or any(one.item is asker.item for one in asking):
            yield pod


def _each(cluster: Cluster, *, unscheduled: bool = False) -> Iterator[Pod]:
    """The pods that serve or end, or those without a node, of replicas one."""
    seen = set[tuple[str, str]]()
    for item in cluster.items("Pod"):
        pod, owner = Pod.of(item, cluster), cluster.owner(item)
        replicas = item.namespace, owner.name if owner else item.name
        if replicas not in seen and (pod.unscheduled if unscheduled else pod.ready or pod.leaving):
            seen.add(replicas)
            yield pod


def _stands_before(one: Pod, pod: Pod) -> bool:
    """Whether a pod is a proxy of a gateway whose routes lead to another, or picks for an InferencePool of it."""
    names = (name for pool in pod.pools for name in pickers_of(pool).values())
    picks = one.namespace == pod.namespace and any(one.name.startswith(f"{name}-") for name in names)
    return picks or any(proxy.item is one.item for proxy in proxies(pod, pod.cluster))


def _was_asked(pod: Pod) -> bool:
    """Whether a pod, or what it is of, is among what somebody asked about."""
    names = {pod.name, *(item.name for item in pod.cluster.chain(pod.item))} if pod.item else {pod.name}
    return any(one.namespace == pod.namespace and one.name in names for one in pod.cluster.snapshot.asked)


def _of_failed_jobs(cluster: Cluster, namespace: str) -> list[list[Pod]]:
    """The pods of each Job of a namespace that has not done its work, where all of them fail."""
    of_jobs: dict[str, list[Pod]] = {}
    for item in cluster.items("Pod", namespace):
        owner = cluster.owner(item)
        if owner is not None and owner.kind == "Job" and not Workload(owner, cluster).completed:
            of_jobs.setdefault(owner.name, []).append(Pod.of(item, cluster))
    return [pods for pods in of_jobs.values() if all(pod.failing for pod in pods)]


def _named(finding: Finding, subject: Subject) -> Iterator[tuple[str, list[Pod]]]:
    items = [subject.cluster.item("Pod", *ref.split("/", 1)) for ref in finding.awaits]
    pods = [Pod.of(item, subject.cluster) for item in items if item is not None]
    if pods:
        yield "", pods


def _asked(finding: Finding, subject: Subject) -> Iterator[tuple[str, list[Pod]]]:
    asker = next((pod for pod in subject.pods if pod.name in finding.pods), subject.pods[0])
    lines = [one.text[:4000] for one in finding.evidence if one.source == "log" and _IN_VAIN.search(one.text[:4000])]
    named = list(_behind(lines, asker))
    # a line that names nobody: whom the pod is told to ask, where one of these alone is down
    if lines and not named and not any(map(_SOMEBODY.search, lines)):
        told = (text[:4000] for container in asker.containers for _, text in told_by(container))
        down = {shown: pods for shown, pods in _behind(told, asker) if all(pod.failing for pod in pods)}
        named = list(down.items()) if len(down) == 1 else []
    yield from named


def _behind(texts: Iterable[str], asker: Pod, *, urls: bool = False) -> Iterator[tuple[str, list[Pod]]]:
    """The addresses in some texts that lead to other pods, and these; also URLs without a port, where they are wanted."""
    for text in texts:
        said_of = _ADDRESS.finditer(text)
        for _, said in zip(range(_MOST), chain(said_of, _URL.finditer(text)) if urls else said_of, strict=False):
            to = follow(said["host"], int(said["port"]) if said["port"] else None, asker, asker.cluster)
            if to is not None and to.others and not takes_telemetry(to.host, to.port):
                yield to.shown, list(to.pods)
