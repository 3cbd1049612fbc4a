"""The port at which an InferencePool's endpoint picker is asked: a port of its Service, not of the model's pods."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Finding,
    Item,
    Line,
    Log,
    Pod,
    dig,
    fixes,
    log_evidence,
    object_evidence,
    pickers_of,
    pointer_to,
    rows,
)

#: Envoy could not ask it (ext_proc over gRPC, status UNAVAILABLE), and why.
NOT_ASKED = "ext_proc_error_gRPC_error_14"
_WHY = (
    r"\{(?i:cluster_not_available|no_healthy_upstream|no_cluster|upstream_connect_error|remote_connection_failure"
    r"|[^}\s]{0,120}connection_refused)"
)

#: The port of an endpoint picker, by the name that charts give it, or by the number that it has by default.
_GRPC, _USUAL = r"grpc|h2c|http2|ext-?proc", 9002


def picker_elsewhere(pod: Pod, cluster: Cluster) -> Iterator[Finding]:
    """An InferencePool that names a port which the Service of its picker does not have: no request gets a place to go."""
    for pool in pod.pools if pod.exists and pod.ready else ():
        for ref, name in pickers_of(pool).items():
            path = f"spec.{ref}.port.number" if dig(pool.raw, f"spec.{ref}.port") else f"spec.{ref}.portNumber"
            asked, service = dig(pool.raw, path), cluster.item("Service", pod.namespace, name)
            if service is None or not isinstance(asked, int):
                continue
            listed = rows(service.raw, "spec.ports")
            numbers = [row["port"] for row in listed if isinstance(row.get("port"), int)]
            if numbers and asked not in numbers:
                yield _finding(
                    pod, pool, service, path, asked, _right(service), cluster.once(NOT_ASKED, lambda: _said(cluster))
                )
                return


def _right(service: Item) -> int | None:
    """Which of the ports of the picker's Service is the one that is meant."""
    listed = [row for row in rows(service.raw, "spec.ports") if isinstance(row.get("port"), int)]
    for row in listed:
        if row.get("port") == _USUAL or re.search(_GRPC, f"{row.get('name')} {row.get('appProtocol')}".lower()):
            return int(row["port"])
    return int(listed[0]["port"]) if len(listed) == 1 else None


def _said(cluster: Cluster) -> Line | None:
    """A line of a gateway that could not ask a picker, and does not say that it was not answered."""
    lines = (line for text in cluster.snapshot.logs for line in Log(text).find(NOT_ASKED))
    return next((line for line in lines if re.search(rf"{NOT_ASKED}{_WHY}", line.text[:4000])), None)


def _finding(
    pod: Pod, pool: Item, service: Item, path: str, asked: int, right: int | None, said: Line | None
) -> Finding:
    have = ", ".join(str(row.get("port")) for row in rows(service.raw, "spec.ports"))
    pointer = pointer_to(path)
    # then a gateway sends requests to any pod of the pool
    opens = dig(pool.raw, f"{'.'.join(path.split('.')[:2])}.failureMode") == "FailOpen"
    return Finding(
        role="note" if opens else "cause" if said else "risk",
        severity="warning",
        summary=f"InferencePool {pool.name} asks its endpoint picker, Service {service.name}, at port {asked}; that has {have}. "
        + (
            f"Gateways send requests to any pod of the pool, {pod.name} among them, without it (failureMode FailOpen)."
            if opens
            else f"No gateway learns where to send requests for {pod.name}."
        ),
        evidence=(
            *((log_evidence(said, NOT_ASKED),) if said else ()),
            object_evidence(pool, path, str(asked)),
            object_evidence(service, "spec.ports", f"port: {have}"),
        ),
        fix=fixes.set_field(pool, pointer, right, f"Ask it at port {right} in InferencePool/{pool.name}")
        if right
        else fixes.advice(f"Set {path} of InferencePool {pool.name} to the gRPC port of Service {service.name}"),
        order=said.order if said else None,
    )
