"""Connections that a server closes while they are idle, and that who keeps them uses once more.

uvicorn closes a connection after 5 s without a request, which vLLM (`VLLM_HTTP_TIMEOUT_KEEP_ALIVE`), SGLang
(`SGLANG_TIMEOUT_KEEP_ALIVE`), KServe's server, LMDeploy and others that it runs leave at that, as cpp-httplib (llama-server) does;
Go's transport keeps it 90 s, Envoy an hour, nginx 60 s. What is sent then is reset.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Container,
    Engine,
    Finding,
    Line,
    Logs,
    Pod,
    Subject,
    clients,
    current_logs,
    dig,
    expression,
    fixes,
    log_evidence,
    rows,
    say_seconds,
    seconds_between,
    top_of,
    written_ago,
    written_before,
)
from llmdoctor_checks.serving._gateways import GENERATES
from llmdoctor_checks.serving._patience import writer_of
from llmdoctor_checks.serving._timeouts import Timeout, longer, timeouts

#: The variable of an engine for it.
_KEPT = {
    "vllm": "VLLM_HTTP_TIMEOUT_KEEP_ALIVE",
    "sglang": "SGLANG_TIMEOUT_KEEP_ALIVE",
    "huggingfaceserver": "",
    "lmdeploy": "",
    "llama.cpp": "",
}
#: What a server of models says that is no known engine, and that uvicorn runs.
_BY_UVICORN = expression(r"Uvicorn running on https?://\S{1,300}:(?P<port>\d{1,5})(?!\d)")
_SECONDS, _ENOUGH = 5, 120

#: A connection that was closed when a request was sent: by whom it was kept (the other side's address is in the line), and of clients
#: in Python, which name nobody: httpx and aiohttp.
_NAMED = (
    ("read: connection reset by peer", r"read tcp \S+->(?P<to>[\d.]+:\d+): read: connection reset by peer"),
    (
        "prematurely closed connection",
        r"while reading response header from upstream,.{1,3000}upstream: \"https?://(?P<to>[\d.]+:\d+)/",
    ),
    (
        "(104: Connection reset by peer)",
        r"while reading response header from upstream,.{1,3000}upstream: \"https?://(?P<to>[\d.]+:\d+)/",
    ),
)
#: How gateways are told to close idle connections to servers, by their image and labels; the last is Istio's.
_SETTINGS = (
    (r"higress", "upstream.idleTimeout: 4 in ConfigMap higress-config"),
    (r"traefik", "forwardingTimeouts.idleConnTimeout: 4s in a ServersTransport"),
    (r"ingress-nginx", 'upstream-keepalive-timeout: "4" in the ConfigMap of ingress-nginx'),
    (r"gateway\.envoyproxy\.io", "timeout.http.connectionIdleTimeout: 4s in a BackendTrafficPolicy of the route"),
    (r"", "idleTimeout of the connectionPool in a DestinationRule of Istio"),
)
#: Envoy's access log, of a connection that was lost at once.
_LOST = (
    (
        "upstream_reset_before_response_started{connection_termination}",
        r"\{connection_termination\} \S+ \"[^\"]*\" \d+ \d+ \d{1,2} [^\n]{1,3000}\"(?P<to>[\d.]+:\d+)\"",
    ),
    ('"response_flags":"UC"', r'"duration": ?"?\d{1,2}"?,[^\n]{1,5000}"upstream_host": ?"(?P<to>[\d.]+:\d+)"'),
)
#: Knative's queue-proxy (`network/error_handler.go`), whose one server is beside it; it cannot be told how long to keep a connection.
_QUEUE_PROXY, _ENDED_UNHEARD, _ANY_PORT = "queue-proxy", '"error":"EOF"', "*"
_NAMELESS = ("Server disconnected without sending a response", "ServerDisconnectedError: Server disconnected")
LITERALS = (*(words for words, _ in (*_NAMED, *_LOST)), *_NAMELESS, _ENDED_UNHEARD)

#: One may have any reason, and what is so long ago befalls nobody now.
_FEWEST, _A_DAY = 2, 86400


def closed_while_idle(
    pod: Pod, engine: Engine, subject: Subject, cluster: Cluster, logs: Logs | None
) -> Finding | None:
    """Requests that were reset by a server that runs without a break and says nothing of them: as they were sent, or at the age that
    a timeout on the way to it allows."""
    variable = _KEPT.get(engine.name)
    told = engine.container.env.get(variable) if variable else None
    if variable is None or told is not None or not pod.ready or pod.leaving or _ended(engine.container):
        return None
    lines = _reset(pod, engine.container, str(engine.value("port")), cluster)
    if not _unexplained(lines, engine.container, logs):
        return None
    if ages := [age for line in lines if (age := _age(line)) is not None and age > _SECONDS]:
        return _at_that_age(pod, lines, ages, timeouts(pod, engine, subject, cluster))
    return _idle(lines, engine.container, variable, cluster)


def closed_by_uvicorn(pod: Pod, cluster: Cluster, logs: Logs | None) -> Finding | None:
    """The same of a server with a GPU that no engine's name is known of, where it says that uvicorn runs it."""
    server = pod.gpu_container
    own = server.own_log(logs) if server is not None and pod.ready and not pod.leaving else None
    said = next((said for _, said in own.matching(_BY_UVICORN, "Uvicorn running on ")), None) if own else None
    if server is None or said is None or _ended(server):
        return None
    lines = _reset(pod, server, said["port"], cluster)
    aged = any((_age(line) or 0) > _SECONDS for line in lines)
    return _idle(lines, server, "", cluster) if _unexplained(lines, server, logs) and not aged else None


def _unexplained(lines: list[Line], server: Container, logs: Logs | None) -> bool:
    """Whether there are enough of them, and the server's own log tells of no fault."""
    own = server.own_log(logs)
    faults = ("Traceback (most", "500 Internal")
    return len(lines) >= _FEWEST and own is not None and not any(next(own.find(words), None) for words in faults)


def _idle(lines: list[Line], server: Container, variable: str, cluster: Cluster) -> Finding:
    """Connections that were reset as a request was sent, by a server that goes on."""
    return Finding(
        severity="warning",
        confidence="possible",
        summary=f"{lines[0].log.pod} lost {len(lines)} connections as it sent a request: usually {server.name} had closed them "
        f"before. It keeps an idle one {_SECONDS} s, and whoever asks it keeps it longer.",
        evidence=tuple(log_evidence(line) for line in lines[:2]),
        fix=fixes.set_env(
            server,
            variable,
            str(_ENOUGH),
            "Keep idle connections longer than what asks the server does (90 s where it is written in Go)",
        )
        if variable
        else fixes.advice(
            f"Have {server.name} keep idle connections {_ENOUGH} s (--timeout-keep-alive of uvicorn, timeout_keep_alive of its run())"
        )
        if lines[0].log.container == _QUEUE_PROXY
        else fixes.advice(
            f"Have what asks the server close idle connections before it does, after less than {_SECONDS} s "
            f"({_setting(lines[0], cluster)}), or try once more"
        ),
        order=lines[0].order,
    )


def _setting(line: Line, cluster: Cluster) -> str:
    """How who kept a connection is told how long to keep an idle one."""
    writer = writer_of(line, cluster)
    called = f"{writer.spec.image} {' '.join(writer.pod.labels)}".lower() if writer is not None else ""
    return next((setting for words, setting in _SETTINGS if re.search(words, called)), _SETTINGS[-1][1])


def _age(line: Line) -> float | None:
    """How old a request was that was reset, where the line right above says that it was sent."""
    above = next(line.log.lines(line.number - 1, line.number - 1), None) if line.number > 1 else None
    sent = above is not None and re.search(
        rf"\bPOST (?=/)\S{{0,200}}?(?:{GENERATES})(?! HTTP/\S{{1,9}} \d)", above.text[:2000]
    )
    return seconds_between(above, line) if above is not None and sent else None


def _at_that_age(pod: Pod, lines: list[Line], ages: list[float], known: Iterable[Timeout]) -> Finding | None:
    """Requests that a timeout on their way ended, each when it was as old as that allows; nothing where they were of other ages."""
    timeout = next((one for one in known if all(abs(age - one.seconds) <= 1 for age in ages)), None)
    if timeout is None or len(ages) < max(_FEWEST, len(lines)):
        return None
    return Finding(
        summary=f"{len(lines)} requests to {pod.name} were ended when they were {say_seconds(timeout.seconds)} old, which is what "
        f"{timeout.where} allows; {lines[0].log.container} beside the server tells of a connection that was reset.",
        evidence=(*(log_evidence(line) for line in lines[:2]), timeout.evidence),
        fix=longer(timeout, 0),
        order=lines[0].order,
    )


def _ended(server: Container) -> bool:
    """Whether the server ended lately, which closes connections, too."""
    status = server.status
    return status is None or bool(status.restart_count) or status.state.running is None


def _reset(pod: Pod, server: Container, port: str, cluster: Cluster) -> list[Line]:
    """Lines of what asks this server: beside it in its pod, in a gateway's, or in a client's that asks nobody else."""
    said = cluster.once("reset connections", lambda: list(_said(cluster)))
    if not said:
        return []
    listed = [row for item in pod.services for row in rows(item.raw, "spec.ports")]
    ports = {port, *(str(row.get("port")) for row in listed)}
    addresses = {str(dig(item.raw, "spec.clusterIP") or "") for item in pod.services} | {pod.status.pod_ip}
    names = {item.name for item in pod.services}
    asking = clients(pod, names, cluster)
    found: list[Line] = []
    top = top_of(pod.item, cluster)
    # of several replicas, one of which ended, only the address tells whose connection it was
    unsure = top is not None and top.item.ref in cluster.once("restarted", lambda: _restarted(cluster))
    for line, to in said:
        who = line.log.whose
        host, _, number = to.partition(":")
        beside = who[:2] == (pod.namespace, pod.name) and host == "127.0.0.1" and number in (port, _ANY_PORT)
        if who == (pod.namespace, pod.name, server.name):
            continue
        if unsure and not beside and host != pod.status.pod_ip:
            continue
        if who in asking if not to else beside or (host in addresses and number in ports):
            found.append(line)
    return [x for x in found if not written_before(x, server, cluster) and (written_ago(x, cluster.now) or 0) < _A_DAY]


def _restarted(cluster: Cluster) -> set[str]:
    """Workloads of which a container ended and was started again."""
    found: set[str] = set()
    for item in cluster.items("Pod"):
        statuses = rows(item.raw, "status.containerStatuses")
        if any(one.get("restartCount") for one in statuses) and (top := top_of(item, cluster)) is not None:
            found.add(top.item.ref)
    return found


def _said(cluster: Cluster) -> Iterator[tuple[Line, str]]:
    """Lines that tell of a request on a connection that was closed, and whom it was for, where they say it."""
    for log in current_logs(cluster):
        for words, pattern in (*_NAMED, *_LOST):
            yield from ((line, said["to"]) for line, said in log.matching(pattern, words))
        yield from ((line, "") for line in log.find(*_NAMELESS))
        if log.source.container == _QUEUE_PROXY:
            yield from ((line, f"127.0.0.1:{_ANY_PORT}") for line in log.find(_ENDED_UNHEARD))
