"""A server that a router or a gateway took off its list, since it was too busy to answer the health check in time."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Engine,
    Finding,
    Line,
    Log,
    Logs,
    Pod,
    dig,
    fixes,
    leads_here,
    log_evidence,
    often,
)
from llmdoctor_checks._clients import before
from llmdoctor_checks._nobody_left import nobody_left
from llmdoctor_checks._written import written_ago

#: How they speak of their own health checks, and of one that got no answer in time; a connection that did not come about is none.
LITERALS = ("ealth check", "ealth probe", "ealthcheck", "ealth_check", "unhealthy", "is DOWN, reason: ")
_HEALTH = r"(?i)health[ _-]?(?:check|probe)|\bunhealthy\b|is DOWN, reason: "
_LATE = r"(?i)read ?timeout|timed?[ -]?out|timeout(?! ?[=:]? ?\d)|deadline exceeded|awaiting (?:response )?headers|Layer7 timeout"
_CONNECTING = r"(?i)connect(?:ion|ing)?\W{0,3}time|ConnectTimeout|while connecting|Layer4"
_ADDRESS = r"https?://[^\s\"'<>),]{1,300}"

#: What shows that the server worked: a step of its scheduler, or an answer. vLLM's statement counts where requests run.
_STEPS = (" batch, #", 'HTTP/1.1" 200', "Running: ")
_WORKED = r"\b(?:Prefill|Decode) batch\b|\"POST /\S{1,300} HTTP/1\.1\" 200\b|Running: [1-9]\d{0,5} reqs"

#: So soon after the check it has to work again, or else it hung.
_SOON_SECONDS, _LONG_AGO = 900, 6 * 3600


def dropped(pod: Pod, engine: Engine, cluster: Cluster, logs: Logs | None) -> Finding | None:
    """Where somebody's health check of this server got no answer in time, and nobody was left to him, while it worked on.

    The server has answered him afterwards, so that the way between them is open.
    """
    log = logs.current(engine.container.name) if logs is not None and pod.ready else None
    said = cluster.once("late health checks", lambda: list(_late(cluster))) if log is not None else []
    names = {item.name for item in pod.services}
    for other, lines in said if log is not None else ():
        source = other.source
        mine = [
            line
            for line in lines
            if (source.namespace, other.pod) != (pod.namespace, pod.name)
            and _names(pod, names, line)
            and not before(line, engine.container, cluster)
        ]
        alone = [line for line in nobody_left(other) if mine and line.number > mine[0].number]
        ago = written_ago(mine[-1], cluster.now) if alone else None
        if ago is None or ago > _LONG_AGO or log is None:
            continue
        after = _worked_after(log, ago, cluster)
        if after is None or not _answers(log, source.namespace, other.pod, cluster):
            continue
        return Finding(
            role="cause",
            severity="warning",
            summary=f"{other.pod} took {pod.name} off its list: its health check got no answer in time, {often(len(mine))} in its log, "
            f"and no server was left to it. {engine.title} was up, busy, and answered again afterwards.",
            evidence=(log_evidence(mine[-1]), log_evidence(alone[-1]), log_evidence(after)),
            fixes=(
                fixes.advice(
                    f"Let the health check of {other.pod} wait longer (10 s and more) and fail more often before it drops a server, "
                    "and run a second replica, so that one is left"
                ),
            ),
            order=mine[-1].order,
        )
    return None


def _late(cluster: Cluster) -> Iterator[tuple[Log, list[Line]]]:
    """Logs that speak of health checks which got no answer in time, and their lines."""
    for text in cluster.snapshot.logs:
        log = Log(text)
        found = {x.number: x for words in LITERALS if text.pod and not text.previous for x in log.find(words)}
        lines = [x for _, x in sorted(found.items()) if _says_so(x.text[:4000])]
        if lines:
            yield log, lines


def _says_so(text: str) -> bool:
    return bool(re.search(_HEALTH, text) and re.search(_LATE, text)) and not re.search(_CONNECTING, text)


def _names(pod: Pod, names: set[str], line: Line) -> bool:
    """Whether a line names this server: by an address that leads to it alone, or its own."""
    here, text = line.log.source.namespace, line.text[:4000]
    own = pod.status.pod_ip
    if own and not pod.spec.host_network and re.search(rf"(?<![\d.]){re.escape(own)}(?![\d.])", text):
        return True
    return any(leads_here(pod, names, url, here) for url in re.findall(_ADDRESS, text))


def _worked_after(log: Log, ago: float, cluster: Cluster) -> Line | None:
    """The first line by which the server shows, soon after so many seconds ago, that it works."""
    found = {line.number: line for words in _STEPS for line in log.find(words)}
    for _, line in sorted(found.items()):
        then = written_ago(line, cluster.now) if re.search(_WORKED, line.text[:2000]) else None
        if then is not None and ago - _SOON_SECONDS <= then <= ago:
            return line
    return None


def _answers(log: Log, namespace: str, name: str, cluster: Cluster) -> bool:
    """Whether the access log has an answer to that pod."""
    item = cluster.item("Pod", namespace, name)
    address = str(dig(item.raw, "status.podIP") or "") if item is not None else ""
    return bool(address) and any(f"{address}:" in line.text for line in log.find('HTTP/1.1" 200'))
