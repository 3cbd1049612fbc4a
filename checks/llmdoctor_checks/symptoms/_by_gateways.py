"""Gateways that answer requests by themselves with an error, in the place of a server that they reach.

Sources: Envoy's response code details (`StreamInfo::ResponseCodeDetails`), in its access log as text, Istio's, and as JSON.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

from kubectl_llmdoctor.api import Cluster, Finding, Line, Log, Pod, count_of, fixes, log_evidence, parse_time

#: What each line of JSON has, and of lines of text these.
DETAILS = ('response_code_details"', "via_upstream", "response_payload_too_large", "{protocol_error}", "ext_proc_error")
#: A request to generate or the like, its status and Envoy's detail: of an access log in JSON, and of one in text.
_JSON = (
    r'"response_code":\s?"?(\d{3})\b',
    r'"response_code_details":\s?"([^"\s]{1,300})"',
    r'"(?:x-envoy-origin-path|path|x_original_path)":\s?"(/[^"?\s]{1,300})',
)
_TEXT = r'"POST (?P<path>/[^\s?"]{1,300})\S{0,500} HTTP/[\d.]{1,3}" (?P<code>\d{3}) \S{1,20} (?P<detail>\S{1,300}) '
_OF_MODELS = r"/v\d/[\w/.:-]{3,200}$|/generate(?:_stream)?$|/invocations$"
#: The server's own answer. What a gateway waits for, whom it does not reach, and what it refuses for its size others tell.
_BY_SERVER = "via_upstream"
_OF_OTHERS = r"timeout|no_healthy_upstream|connection_(?:failure|termination|timeout)|cluster_not_found|route_not_found|request_payload"
#: What a detail means for who asks, and what is done about it.
_MEANT = (
    (
        "ext_proc",
        "what it asks before it sends a request on (ext_proc) fails",
        "Read the log of the program that the gateway asks first (ext_proc: an endpoint picker, a guard, a router)",
    ),
    (
        "response_payload_too_large",
        "the answer is larger than the buffer that a filter of it keeps it in",
        "Raise the gateway's buffer above the largest answer (Envoy Gateway: connection.bufferLimit of a ClientTrafficPolicy and a "
        "BackendTrafficPolicy; per_connection_buffer_limit_bytes), or let clients ask for less at once",
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


def by_gateway(pod: Pod, cluster: Cluster) -> Iterator[Finding]:
    """The first gateway whose last requests to this pod, of one path, all ended so."""
    if not pod.status.pod_ip:
        return
    names = [re.escape(item.name) for item in pod.services]
    # Istio makes a Service of its own of a pool
    names += [rf"{re.escape(item.name)}-ip-[\da-f]{{4,16}}" for item in pod.pools]
    here = rf'"{re.escape(pod.status.pod_ip)}:\d|\|(?:{"|".join(names) or "-"})\.{re.escape(pod.namespace)}\.svc'
    for log, asked in cluster.once("answered by gateways", lambda: list(_logs(cluster))):
        if log.pod == pod.name:
            continue
        by_path: dict[str, list[tuple[Line, str, str]]] = {}
        for line, path, code, detail in asked:
            if not re.search(here, line.text[:4000]):
                continue
            rows = by_path.setdefault(path, [])
            if code.startswith("5") and detail != _BY_SERVER and not re.search(_OF_OTHERS, detail):
                rows.append((line, code, detail))
            else:
                rows.clear()
        for path, rows in by_path.items():
            if len(rows) >= _IN_A_ROW and _apart(rows[0][0], rows[-1][0]) and not _before(rows[-1][0], pod):
                yield _finding(pod, path, rows)
                return


def _finding(pod: Pod, path: str, rows: list[tuple[Line, str, str]]) -> Finding:
    last, code, detail = rows[-1]
    meant, advice = next(
        ((means, how) for words, means, how in _MEANT if words in detail),
        (
            "",
            f"Ask {pod.name} past the gateway; if it answers there, look at the gateway's filters and policies for this route",
        ),
    )
    return Finding(
        role="symptom",
        summary=f"{last.log.pod} has answered the last {count_of(len(rows), 'request')} for {path} that were meant for {pod.name} with "
        f"{code} by itself ({detail}){': ' + meant if meant else ''}.",
        evidence=(log_evidence(rows[0][0], detail), log_evidence(last, detail)),
        fixes=(fixes.advice(advice, owner="platform"),),
        order=rows[0][0].order,
    )


def _logs(cluster: Cluster) -> Iterator[tuple[Log, list[tuple[Line, str, str, str]]]]:
    for text in cluster.snapshot.logs:
        log = Log(text)
        lines = {x.number: x for words in DETAILS if not text.previous for x in log.find(words)}
        asked = (_asked(x) for _, x in deque(sorted(lines.items()), maxlen=_MOST))
        rows = [one for one in asked if one is not None and re.search(_OF_MODELS, one[1])]
        if rows:
            yield log, rows


def _asked(line: Line) -> tuple[Line, str, str, str] | None:
    """The path of a request, its status and the detail."""
    text = line.text[:4000]
    if (said := re.search(_TEXT, text)) is not None:
        return line, said["path"], said["code"], said["detail"]
    code, detail, path = (re.search(pattern, text) for pattern in _JSON)
    return (line, path[1], code[1], detail[1]) if code and detail and path else None


def _apart(first: Line, last: Line) -> bool:
    return first.time is not None and last.time is not None and (last.time - first.time).total_seconds() >= _SECONDS


def _before(line: Line, pod: Pod) -> bool:
    """Whether a line is older than the server."""
    since = parse_time(pod.status.start_time)
    return line.time is not None and since is not None and line.time < since
