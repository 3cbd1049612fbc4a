"""Requests that are larger than the message bus takes over which they go to a worker.

Sources: nats-server (`server/client.go`, `maxPayloadViolation`), which says so and closes the connection; Dynamo's frontend and router,
which say only that the worker did not answer in time.
"""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import Cluster, Finding, Line, Log, Logs, Pod, count_of, fixes, log_evidence, written_ago

_TOO_LARGE, _NUMBERS = "maximum payload exceeded: ", r"maximum payload exceeded: (\d{1,12}) vs (\d{1,12})"
#: How who asked over it says that nobody answered.
_UNANSWERED = "NATS request to "
LITERALS = (_TOO_LARGE, _UNANSWERED)
#: What was refused so long ago is nobody's trouble now.
_A_DAY = 86400


def too_large(pod: Pod, cluster: Cluster, logs: Logs | None) -> Finding | None:
    """The bus refused what this pod sent, by its address or by its own complaint; or this pod is the bus."""
    said = cluster.once(_TOO_LARGE, lambda: list(_said(cluster)))
    waited = next(logs.find(_UNANSWERED), None) if logs is not None and said else None
    address = pod.status.pod_ip
    ours = [
        one
        for one in said
        if one[0].log.pod == pod.name
        or (address and re.search(rf"(?<![\d.]){re.escape(address)}:\d", one[0].text[:500]))
        or (waited is not None and one[0].log.source.namespace == pod.namespace)
    ]
    if not ours:
        return None
    (line, _, most), largest = ours[-1], max(size for _, size, _ in ours)
    megabytes = 8
    while megabytes * 1024**2 < largest and megabytes < 64:
        megabytes *= 2
    return Finding(
        severity="warning",
        summary=f"{line.log.pod} refused {count_of(len(ours), 'message')} of up to {largest} bytes; it takes {most} (max_payload). "
        "Requests that long never reach a worker, and time out.",
        evidence=(log_evidence(line), *((log_evidence(waited),) if waited is not None else ())),
        fix=fixes.advice(
            f"Set max_payload of NATS ({line.log.pod}) to {megabytes}MB in its configuration, or have requests go over TCP or HTTP "
            "where the release can (Dynamo: DYN_REQUEST_PLANE=tcp)"
        ),
        order=line.order,
    )


def _said(cluster: Cluster) -> Iterator[tuple[Line, int, int]]:
    """The lines of the last day that say so, with how large a message was and may be."""
    for text in cluster.snapshot.logs:
        if not text.previous:
            for line, said in Log(text).matching(_NUMBERS, _TOO_LARGE):
                if (written_ago(line, cluster.now) or 0) < _A_DAY:
                    yield line, int(said[1]), int(said[2])
