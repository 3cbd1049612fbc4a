"""Whom a target needs, and who is not there for it: pods outside of it in which its root cause stands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

from kubectl_llmdoctor.check import Finding
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.clients import told_by
from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.destinations import follow, takes_telemetry
from kubectl_llmdoctor.facts.pod import Pod
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
#: So many addresses of a line are followed, and so many replicas of a server looked at.
_MOST, _REPLICAS = 8, 3


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


def _behind(texts: Iterable[str], asker: Pod) -> Iterator[tuple[str, list[Pod]]]:
    """The addresses in some texts that lead to other pods, and these."""
    for text in texts:
        for _, said in zip(range(_MOST), _ADDRESS.finditer(text), strict=False):
            to = follow(said["host"], int(said["port"]), asker, asker.cluster)
            if to is not None and not to.itself and to.pods and not takes_telemetry(to.host, to.port):
                yield to.shown, list(to.pods)
