"""Ranks that mpirun starts in pods of a mesh, and whose output stands in the log of what launched them."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_llmdoctor.api import Cluster, Finding, Line, Log, Pod, expression, log_evidence, pod_evidence, say_seconds
from llmdoctor_checks._standstill import STUCK_SECONDS
from llmdoctor_checks.start._mesh import PASSES, PROXIES, out_of_mesh

#: NCCL's words (init.cc) of a communicator of several ranks, one line of each rank as it begins and as it is done.
BEGUN, _DONE = "Init START", "Init COMPLETE"
_OF_A_RANK = expression(
    r"(?<![\w.-])(?P<pod>[a-z\d-]{1,63})(?:\.[\w.-]{1,253})?:\d{1,7}:\d{1,7} \[\d{1,3}\] NCCL INFO ncclCommInit\w{1,30} "
    r".{0,120}nranks (?:[2-9]|\d{2,6})\b"
)


def between_mpi_ranks(pod: Pod) -> Iterator[Finding]:
    """A communicator over pods of which none says that it is there, with a proxy in each, long after the launcher has started."""
    proxy = next((c for c in pod.containers if c.name in PROXIES and c.status.ready), None)
    if proxy is None or not pod.gpus or any(key.startswith(PASSES) for key in pod.annotations):
        return
    standing = pod.cluster.once("ranks that connect", lambda: _standing(pod.cluster))
    for line in standing.get((pod.namespace, pod.name), ()):
        text = line.log.source
        launcher = pod.cluster.item("Pod", pod.namespace, text.pod)
        stood = _ran(Pod.of(launcher, pod.cluster), text.container) if launcher and text.pod != pod.name else 0.0
        if stood < STUCK_SECONDS:
            continue
        yield Finding(
            confidence="possible",
            summary=f"{text.pod} started {say_seconds(stood)} ago, and its log ends where the ranks in {pod.name} and other pods connect: "
            f"their connections lead through {proxy.name}, which does not know NCCL's ports.",
            evidence=(
                log_evidence(line, BEGUN),
                pod_evidence(pod, f"status.containerStatuses[{proxy.name}].ready", "true"),
            ),
            explains=("nccl-timeout",),
            fix=out_of_mesh(pod, istio=proxy.name == "istio-proxy"),
            order=line.order,
        )
        return


def _standing(cluster: Cluster) -> dict[tuple[str, str], list[Line]]:
    """By namespace and name of a pod, of each log the last line of a rank in it that began.

    Only where no rank says since that it is done, nor anything but NCCL.
    """
    found: dict[tuple[str, str], list[Line]] = {}
    for text in cluster.snapshot.logs:
        log = Log(text)
        ranks = ((line, _OF_A_RANK.search(line.text[:600])) for line in log.find(BEGUN)) if not text.previous else ()
        begun = {rank["pod"]: line for line, rank in ranks if rank}
        if not begun:
            continue
        first = min(line.number for line in begun.values())
        others = (line.number for line in log.lines(first) if line.text.strip() and "NCCL INFO" not in line.text)
        over = max([*others, *(line.number for line in log.find(_DONE))], default=0)
        for name, line in begun.items():
            if line.number > over:
                found.setdefault((text.namespace or "default", name), []).append(line)
    return found


def _ran(pod: Pod, name: str) -> float:
    """For how long a container has run; 0 where it does not."""
    container = pod.container(name)
    return pod.cluster.seconds_since(container.started) or 0.0 if container else 0.0
