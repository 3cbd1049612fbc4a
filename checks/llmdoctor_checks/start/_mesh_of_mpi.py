"""Ranks that mpirun starts in pods of a mesh, and whose output stands in the log of what launched them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import Finding, Line, Log, Pod, log_evidence, parse_time, pod_evidence, say_seconds
from llmdoctor_checks._standstill import STUCK_SECONDS
from llmdoctor_checks.start._mesh import PASSES, PROXIES, out_of_mesh

#: NCCL's words (init.cc) of a communicator of several ranks, one line of each rank as it begins and as it is done.
BEGUN, _DONE = "Init START", "Init COMPLETE"
_OF_A_RANK = (
    r"(?<![\w.-]){pod}(?:\.[\w.-]{{1,253}})?:\d{{1,7}}:\d{{1,7}} \[\d{{1,3}}\] NCCL INFO ncclCommInit\w{{1,30}} "
    r".{{0,120}}nranks (?:[2-9]|\d{{2,6}})\b"
)


def between_mpi_ranks(pod: Pod) -> Iterator[Finding]:
    """A communicator over pods of which none says that it is there, with a proxy in each, long after the launcher has started."""
    proxy = next((c for c in pod.containers if c.name in PROXIES and c.status.ready), None)
    if proxy is None or not pod.gpus or any(key.startswith(PASSES) for key in pod.annotations):
        return
    for text in pod.cluster.snapshot.logs:
        launcher = pod.cluster.item("Pod", pod.namespace, text.pod) if text.namespace == pod.namespace else None
        if launcher is None or text.pod == pod.name or text.previous:
            continue
        line, stood = _stands(Log(text), pod), _ran(Pod.of(launcher, pod.cluster), text.container)
        if line is None or stood < STUCK_SECONDS:
            continue
        yield Finding(
            role="cause",
            confidence="possible",
            summary=f"{text.pod} started {say_seconds(stood)} ago, and its log ends where the ranks in {pod.name} and other pods connect: "
            f"their connections lead through {proxy.name}, which does not know NCCL's ports.",
            evidence=(
                log_evidence(line, BEGUN),
                pod_evidence(pod, f"status.containerStatuses[{proxy.name}].ready", "true"),
            ),
            explains=("nccl-timeout",),
            fixes=(out_of_mesh(pod, istio=proxy.name == "istio-proxy"),),
            order=line.order,
        )
        return


def _stands(log: Log, pod: Pod) -> Line | None:
    """The last line of a rank in this pod that began, where no rank says since that it is done, nor anything but NCCL."""
    ours = _OF_A_RANK.format(pod=re.escape(pod.name))
    begun = [line for line in log.find(BEGUN) if re.search(ours, line.text[:600])]
    if not begun or any(line.number > begun[-1].number for line in log.find(_DONE)):
        return None
    rest = (line.text for line in log.lines(begun[-1].number) if line.text.strip())
    return begun[-1] if all("NCCL INFO" in one for one in rest) else None


def _ran(pod: Pod, name: str) -> float:
    """For how long a container has run; 0 where it does not."""
    container, now = pod.container(name), pod.cluster.now
    running = container.status.state.running if container else None
    since = parse_time(running.started_at) if running else None
    return (now - since).total_seconds() if since is not None and now is not None else 0.0
