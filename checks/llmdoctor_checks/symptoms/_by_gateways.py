"""Gateways that answer requests by themselves with an error, in the place of a server that they reach.

Sources: Envoy's response code details (`StreamInfo::ResponseCodeDetails`), in its access log as text, Istio's, and as JSON.
"""

import re
from collections.abc import Iterator
from itertools import takewhile

import msgspec

from kubectl_llmdoctor.api import (
    Cluster,
    Finding,
    Line,
    Log,
    Pod,
    count_of,
    current_logs,
    fails_often,
    fixes,
    in_order,
    log_evidence,
    parse_time,
    seconds_between,
    written_ago,
)

#: What each line of JSON has, and of lines of text these.
DETAILS = (
    'response_code_details"', "via_upstream", "response_payload_too_large", "{protocol_error}", "{overflow}",
    "ext_proc_error", "CERTIFICATE_VERIFY_FAILED", "_connect_error:_",
)  # fmt: skip
#: A request to generate or the like, its status and Envoy's detail: of an access log in JSON, and of one in text.
_JSON = (
    r'"response_code":\s?"?(\d{3})\b',
    r'"response_code_details":\s?"([^"\s]{1,300})"',
    r'"(?:x-envoy-origin-path|path|x_original_path)":\s?"(/[^"?\s]{1,300})',
)
#: The server that a gateway sent a request to: of a line of text the last address in quotes.
_HOST_JSON = r'"upstream_host":\s?"\[?([\da-f.:]{3,45}?)\]?:(\d{1,5})"'
_HOST_TEXT = r'" "\[?([\da-f.:]{3,45}?)\]?:(\d{1,5})"'
_TEXT = r'"POST (?P<path>/[^\s?"]{1,300})\S{0,500} HTTP/[\d.]{1,3}" (?P<code>\d{3}) \S{1,20} (?P<detail>\S{1,300}) '
#: Routes at which models work: OpenAI's and Anthropic's, TGI's and SGLang's, the Open Inference Protocol's, SageMaker's.
OF_MODELS = (
    r"/(?:chat/completions|completions|responses|messages|embeddings|embed|rerank|score|classify|pooling|generate|generate_stream"
    r"|infer|invocations|transcriptions|translations|speech|generations)$|(?::|%3A)predict$"
)
#: The server's own answer. What a gateway waits for, whom it does not reach, and what it refuses for its size others tell; but not of a
#: server whose certificate it refuses, nor of a port at which nobody listens.
_BY_SERVER = "via_upstream"
_OF_OTHERS = (
    r"^(?!.*(?:CERTIFICATE_VERIFY_FAILED|_connect_error:_(?:111|Connection_refused)))"
    r".*(?:timeout|no_healthy_upstream|connection_(?:failure|termination|timeout)|cluster_not_found|route_not_found|request_payload)"
)
#: What a detail means for who asks, and what is done about it.
_MEANT = (
    (
        "reset_reason:_overflow",
        "as many requests as it may have at once with what it asks first (ext_proc) are open, each for as long as its answer takes",
        "Raise the limits of the gateway's cluster for ext_proc (circuit_breakers: max_requests and max_connections, 1024 unless set), or "
        "run more gateways",
    ),
    (
        "ext_proc",
        "what it asks before it sends a request on (ext_proc) fails",
        "Read the log of the program that the gateway asks first (ext_proc: an endpoint picker, a guard, a router)",
    ),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "it does not accept the TLS certificate that the server shows: expired, made for another name, or by an authority that it does "
        "not know",
        "Look at the certificate that the server shows (openssl s_client -connect); renew it and restart the server, which reads it when "
        "it starts, or give the gateway its authority and name (BackendTLSPolicy; caCertificates and subjectAltNames of a "
        "DestinationRule)",
    ),
    (
        "_connect_error:_",
        "nobody listens at that port of the pod, which counts as ready all the same",
        "Have the readiness probe ask the port that the requests go to, or send them to the one that the server listens on (targetPort of "
        "the Service, targetPorts of the InferencePool)",
    ),
    (
        "response_payload_too_large",
        "the answer is larger than the buffer that a filter of it keeps it in",
        "Raise the gateway's buffer above the largest answer (Envoy Gateway: connection.bufferLimit of a ClientTrafficPolicy and a "
        "BackendTrafficPolicy; per_connection_buffer_limit_bytes), or let clients ask for less at once",
    ),
    (
        "overflow",
        "its limit of waiting requests, or of connections, to the server was reached",
        "Raise what the gateway or mesh lets wait (Istio: http1MaxPendingRequests and maxConnections in the DestinationRule's "
        "connectionPool; Envoy Gateway: circuitBreaker of a BackendTrafficPolicy) as far as the server keeps up, or add replicas",
    ),
    (
        "protocol_error",
        "the server does not speak at that port what the gateway takes it to speak",
        "Name the port of the Service, and of the container, by what is spoken there (http, or grpc or h2c; appProtocol), so that the "
        "gateway asks with it",
    ),
)
#: So many in a row, up to the last, and not at one moment.
_IN_A_ROW, _SECONDS, _MOST = 5, 60, 2000
#: So many of the last requests of a path are looked at for those that fail often.
_OF_LATE = 200
#: The Service that a request was for, by Envoy's name of its cluster; Istio makes one of its own of a pool.
_SERVICE, _OF_A_POOL = r"\|([a-z\d-]{1,80}\.[a-z\d-]{1,63})\.svc", r"-ip-[\da-f]{4,16}(?=\.)"
#: What an access log in JSON calls the cluster behind a route, and the route; neither need have the name of a Service. Istio calls each
#: route `default` that nobody named.
_BEHIND = (r'"upstream_cluster":\s?"([^"\s]{2,300})"', r'"route_name":\s?"(?!default")([^"\s]{2,300})"')
#: So many answers at other routes for each request that fails make it one client's affair.
BESIDE = 10
#: A server that nobody asked for so many seconds since may have been mended by whoever saw it.
_LATELY = 86400


class _Asked(msgspec.Struct, frozen=True):
    """A request in a gateway's log, the server that it was sent to (empty: to none), the Service that it was for, and what it was sent by.

    That is the cluster, or else the route.
    """

    line: Line
    path: str
    status: str
    detail: str
    host: str
    port: str
    service: str
    cluster: str = ""
    route: str = ""

    @property
    def failed(self) -> bool:
        """Whether the gateway answered it by itself with an error."""
        return self.status.startswith("5") and self.detail != _BY_SERVER and not re.search(_OF_OTHERS, self.detail)


def by_gateway(pod: Pod, cluster: Cluster) -> Iterator[Finding]:
    """The first gateway whose last requests to this pod, of one path, all ended so, or many of them."""
    if not pod.status.pod_ip:
        return
    for log, asked in cluster.once("answered by gateways", lambda: list(_logs(cluster))):
        if log.pod == pod.name:
            continue
        for mine in (_sent_to(pod, asked), _meant_for(pod, asked)):
            if (found := _failing(pod, mine)) is not None:
                yield found
                return


def refused_behind(pod: Pod, cluster: Cluster) -> tuple[list[Line], int]:
    """Lines of a gateway's log by which the pod itself answered many of the last requests with 503, of late, and of how many."""
    for log, asked in cluster.once("answered by gateways", lambda: list(_logs(cluster))):
        last = _sent_to(pod, asked)[-_OF_LATE:] if pod.status.pod_ip and log.pod != pod.name else []
        bad = [one.status == "503" and one.detail == _BY_SERVER for one in last]
        if fails_often(bad) and of_now(last[-1].line, pod):
            return [one.line for one, refuses in zip(last, bad, strict=True) if refuses], len(last)
    return [], 0


def _sent_to(pod: Pod, asked: list[_Asked]) -> list[_Asked]:
    """Requests that were sent to the pod; its node's address it may share with others, that listen on other ports."""
    ports = {str(port) for port in pod.declared_ports}
    every = not (ports and pod.spec.host_network)
    return [one for one in asked if one.host == pod.status.pod_ip and (every or one.port in ports)]


def _meant_for(pod: Pod, asked: list[_Asked]) -> list[_Asked]:
    """Requests for the pod's Services, or on a route that led to it, that failed before a server was chosen.

    They are among those that any of its servers was sent.
    """
    services = {f"{item.name}.{pod.namespace}" for item in pod.services}
    pools = {f"{item.name}.{pod.namespace}" for item in pod.pools}
    led_here = _sent_to(pod, asked)
    clusters, routes = {one.cluster for one in led_here} - {""}, {one.route for one in led_here} - {""}
    return [
        one
        for one in asked
        if (
            one.service in services
            or (pools and re.sub(_OF_A_POOL, "", one.service) in pools)
            or (one.cluster in clusters if one.cluster else one.route in routes)
        )
        and not (one.failed and one.host)
    ]


def _failing(pod: Pod, mine: list[_Asked]) -> Finding | None:
    by_path: dict[str, list[_Asked]] = {}
    for one in mine:
        by_path.setdefault(one.path, []).append(one)
    for all_of in by_path.values():
        row = [*takewhile(lambda one: one.failed, reversed(all_of))][::-1]
        last = all_of[-_OF_LATE:]
        often = [one for one in last if one.failed] if fails_often([one.failed for one in last]) else []
        for rows, among in ((row, row), (often, last)):
            took = seconds_between(rows[0].line, rows[-1].line) if len(rows) >= _IN_A_ROW else None
            if took is not None and took >= _SECONDS and of_now(rows[-1].line, pod):
                since = [one for one in mine if one.line.number > rows[0].line.number and one.detail == _BY_SERVER]
                return _finding(pod, rows, len(among), few=len(since) >= BESIDE * len(rows))
    return None


def of_now(line: Line, pod: Pod) -> bool:
    """Whether what a line tells of a server may still be so: it has not become ready since, and somebody may have seen to it."""
    ago, ready = written_ago(line, pod.cluster.now), pod.condition("Ready")
    since = parse_time(ready.last_transition_time) if ready is not None else None
    before = line.time is not None and since is not None and line.time < since
    return not before and (ago is None or ago <= _LATELY)


def _finding(pod: Pod, rows: list[_Asked], among: int, *, few: bool) -> Finding:
    line, path, status, detail = msgspec.structs.astuple(rows[-1])[:4]
    asked = f"{f'{len(rows)} of ' if among > len(rows) else ''}the last {count_of(among, 'request')}"
    meant, advice = next(
        ((means, how) for words, means, how in _MEANT if words in detail),
        (
            "",
            f"Ask {pod.name} past the gateway; if it answers there, look at the gateway's filters and policies for this route",
        ),
    )
    return Finding(
        role="symptom",
        severity="warning" if few else "critical",
        summary=f"{line.log.pod} has answered {asked} for {path} that were meant for {pod.name} with "
        f"{status} by itself ({detail}){': ' + meant if meant else ''}.",
        evidence=(log_evidence(rows[0].line, rows[0].detail), log_evidence(line, detail)),
        fix=fixes.platform(advice),
        order=rows[0].line.order,
    )


def _logs(cluster: Cluster) -> Iterator[tuple[Log, list[_Asked]]]:
    for log in current_logs(cluster):
        asked = map(_asked, in_order(log.find(*DETAILS))[-_MOST:])
        if rows := [one for one in asked if one is not None and re.search(OF_MODELS, one.path)]:
            yield log, rows


def _asked(line: Line) -> _Asked | None:
    text = line.text[:4000]
    service = found[1] if (found := re.search(_SERVICE, text)) is not None else ""
    if (said := re.search(_TEXT, text)) is not None:
        hosts = re.findall(_HOST_TEXT, text[said.end() - 1 :])
        ip, port = hosts[-1] if hosts else ("", "")
        return _Asked(line, said["path"], said["code"], said["detail"], ip, port, service)
    code, detail, path, host = (re.search(pattern, text) for pattern in (*_JSON, _HOST_JSON))
    if code is None or detail is None or path is None:
        return None
    ip, port = host.groups() if host else ("", "")
    cluster, route = (found[1] if (found := re.search(pattern, text)) is not None else "" for pattern in _BEHIND)
    return _Asked(line, path[1], code[1], detail[1], ip, port, service, cluster, route)
