"""Clients that go on, and speak TLS to a server of models that speaks none, as they are told to ask it by https; or gRPC to Triton's port
for HTTP.

Sources: gRPC's core (`chttp2_transport.cc`); OpenSSL as Python's ssl passes it on, Node's (EPROTO), Go's net/http, rustls.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Container,
    Destination,
    Finding,
    Fix,
    Line,
    Log,
    Logs,
    Pod,
    engines_in,
    fixes,
    follow,
    log_evidence,
    rows,
    told_by,
)
from llmdoctor_checks._unreached import last_answered
from llmdoctor_checks.start._apache_tls import without_tls

NO_TLS = (
    "WRONG_VERSION_NUMBER",
    "wrong version number",
    "record layer failure",
    "server gave HTTP response to HTTPS client",
    "received corrupt message of type InvalidContentType",
)
#: What gRPC says of a server that answers by HTTP/1, and whom it had asked.
NO_GRPC = "Trying to connect an http1.x server"
_ASKED = rf"\bipv4:(?P<host>[\d.]{{7,15}}):(?P<port>\d{{1,5}}): {NO_GRPC}"
_GRPC_PORT = 8001
_URL = r"https://(?P<host>[\w.-]{1,253})(?::(?P<port>\d{1,5}))?(?=[/?#\s\"',)}\]]|$)"


def client_with_tls(pod: Pod, logs: Logs | None) -> Iterator[Finding]:
    """The first container that is told of such an address, and whose log says that it met with no TLS, up to the last."""
    for container in pod.containers if pod.exists and not engines_in(pod) else ():
        log = container.own_log(logs)
        said = _last(log) if log is not None else None
        for where, value in told_by(container) if said is not None else ():
            for url in re.finditer(_URL, value):
                to = follow(url["host"], int(url["port"] or 443), pod, pod.cluster)
                if to is None or not to.others:
                    continue
                served = [engines_in(one) for one in to.pods]
                if not all(len(own) == 1 and without_tls(own[0], to.target(own[0].pod)) for own in served):
                    continue
                engine = served[0][0]
                right = f"http://{url['host']}" + (f":{url['port']}" if url["port"] else "")
                text = f"Write {right} in place of {url[0]} ({where}) in {fixes.edited(pod)}"
                yield Finding(
                    severity="warning",
                    summary=f"{container.name} is told to ask {url[0]}, and {engine.title} in {engine.pod.name} speaks no TLS there: its "
                    "requests fail.",
                    evidence=(*((log_evidence(said),) if said else ()),),
                    fix=fixes.set_env(container, where, value.replace(url[0], right), text)
                    if where in container.env and container.env[where].value == value
                    else fixes.advice(text),
                    order=said.order if said else None,
                )
                return


def client_with_grpc(pod: Pod, logs: Logs | None) -> Iterator[Finding]:
    """The first container whose gRPC meets with Triton's port for HTTP, up to the last."""
    for container in pod.containers if pod.exists and not engines_in(pod) else ():
        log = container.own_log(logs)
        line = log.last(NO_GRPC) if log is not None else None
        asked = (
            re.search(_ASKED, line.text[:4000]) if line is not None and line.number > last_answered(line.log) else None
        )
        to = follow(asked["host"], int(asked["port"]), pod, pod.cluster) if asked is not None else None
        if line is None or to is None or not to.others:
            continue
        engine = next((one for one in engines_in(to.pods[0]) if one.name == "triton"), None)
        if engine is None or to.target(engine.pod) != engine.value("port"):
            continue
        told = [
            (where, value, one[0])
            for where, value in told_by(container)
            for one in re.finditer(rf"(?<![\w.-])([\w.-]{{1,253}}):{to.port}(?!\d)", value)
            if (other := follow(one[1], to.port, pod, pod.cluster)) is not None and other.service is to.service
        ]
        yield Finding(
            severity="warning",
            summary=f"{container.name} asks {told[0][2] if told else to.shown} by gRPC: that is the port for HTTP of Triton in "
            f"{engine.pod.name}, and its calls fail.",
            evidence=(log_evidence(line, NO_GRPC),),
            explains=("http-5xx",),
            fix=_by_grpc(to, container, told),
            order=line.order,
        )
        return


def _by_grpc(to: Destination, container: Container, told: list[tuple[str, str, str]]) -> Fix:
    """The client at Triton's port for gRPC, and that port in the Service, where it has none that leads there."""
    listed = rows(to.service.raw, "spec.ports") if to.service is not None else []
    there = next(
        (row["port"] for row in listed if row.get("targetPort", row.get("port")) in (_GRPC_PORT, "grpc")), None
    )
    port = there or _GRPC_PORT
    where, value, address = told[0] if len(told) == 1 else ("", "", "")
    right = f"{address.rpartition(':')[0]}:{port}"
    text = (
        f"Write {right} in place of {address} ({where}) in {fixes.edited(container.pod)}"
        if address
        else (f"Have {container.name} ask port {port}")
    )
    if to.service is not None and there is None and all(row.get("name") for row in listed):
        added = {"name": "grpc", "port": port, "targetPort": port}
        return fixes.set_field(
            to.service, "/spec/ports/-", added, f"Add port {port} (gRPC) to Service/{to.service.name}. {text}", op="add"
        )
    variable = container.env.get(where)
    if there is not None and variable is not None and variable.value == value:
        return fixes.set_env(container, where, value.replace(address, right), text)
    return fixes.advice(text)


def _last(log: Log) -> Line | None:
    """The last line of these, where nothing was answered since."""
    found = [line for words in NO_TLS if (line := log.last(words)) is not None]
    last = max(found, key=lambda line: line.number, default=None)
    return last if last is not None and last.number > last_answered(log) else None
