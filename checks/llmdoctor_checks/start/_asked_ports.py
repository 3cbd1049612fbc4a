"""Clients that ask a Service of the pod at a port which it does not have."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Container,
    Evidence,
    Finding,
    Item,
    Line,
    Log,
    Pod,
    addresses,
    askers,
    dig,
    fixes,
    log_evidence,
    pod_evidence,
)
from llmdoctor_checks._raw import rows

_URL = r"(?P<scheme>https?)://(?P<host>[\w.-]{1,253})(?::(?P<port>\d{1,5}))?(?=[/?#\s\"']|$)"
_DEFAULT = {"http": 80, "https": 443}

#: A connection that nobody took, or that got no answer; the address stands in the same line.
REFUSED = ("efused", "ECONNREFUSED", "imed out", "timeout")


def asked_elsewhere(pod: Pod, cluster: Cluster) -> Iterator[Finding]:
    """A client whose log says that it could not connect, and which was told another port than the Service's."""
    for item in pod.services if pod.exists and pod.ready else ():
        numbers = {row["port"] for row in rows(item.raw, "spec.ports") if isinstance(row.get("port"), int)}
        # of a headless one the pods are asked, at whatever port
        if not numbers or dig(item.raw, "spec.clusterIP") == "None":
            continue
        for container, where, value in askers(pod, {item.name}, cluster):
            told = re.search(_URL, value[:2000])
            if told is None or not addresses(told[0], {item.name}, pod.namespace, container.pod.namespace):
                continue
            port = int(told["port"] or _DEFAULT[told["scheme"]])
            line = _refused(container, told["host"], port, bool(told["port"])) if port not in numbers else None
            if line is None:
                continue
            yield _finding(pod, item, container, where, value, port, sorted(numbers), line)
            return


def led_elsewhere(pod: Pod, container: Container, ports: list[int], evidence: Evidence) -> Iterator[Finding]:
    """A Service that sends to a port which a ready program, no known engine, does not open, and a client that is refused there."""
    for item in pod.services:
        listed = rows(item.raw, "spec.ports")
        targets = [row.get("targetPort", row.get("port")) for row in listed]
        if any(not isinstance(target, int) or target in ports for target in targets) or not targets:
            continue
        for other, _, value in askers(pod, {item.name}, pod.cluster):
            told = re.search(_URL, value[:2000])
            if told is None or not addresses(told[0], {item.name}, pod.namespace, other.pod.namespace):
                continue
            asked = int(told["port"] or _DEFAULT[told["scheme"]])
            line = _refused(other, told["host"], asked, bool(told["port"]))
            if line is None or asked not in [row.get("port") for row in listed]:
                continue
            at = [row.get("port") for row in listed].index(asked)
            wrong = targets[at]
            yield Finding(
                role="cause",
                severity="warning",
                confidence="likely",
                summary=f"Service {item.name} sends to port {wrong} of the pod; {container.name} answers at {ports[0]}. "
                f"{other.pod.name} is refused.",
                evidence=(
                    log_evidence(line),
                    Evidence(source="workload", ref=f"Service/{item.name} spec.ports", text=f"targetPort: {wrong}"),
                    evidence,
                ),
                fixes=(
                    fixes.patch_object(
                        item,
                        f"Set targetPort to {ports[0]} in Service/{item.name}",
                        [{"op": "add", "path": f"/spec/ports/{at}/targetPort", "value": ports[0]}],
                    ),
                ),
                order=line.order,
                pods=(pod.name,),
            )
            return


def _finding(
    pod: Pod, item: Item, container: Container, where: str, value: str, port: int, numbers: list[int], line: Line
) -> Finding:
    have = ", ".join(map(str, numbers))
    return Finding(
        role="cause",
        severity="warning",
        confidence="likely",
        summary=f"{container.pod.name} asks Service {item.name} at port {port}; it has {have}. Nobody takes the connection.",
        evidence=(
            log_evidence(line),
            pod_evidence(
                container,
                f"env[{where}]" if where in container.env else where,
                f"{container.pod.name}: {where}={value}",
            ),
            Evidence(source="workload", ref=f"Service/{item.name} spec.ports", text=f"port: {have}"),
        ),
        fixes=(
            fixes.advice(
                f"Let {container.pod.name} ask port {numbers[0]} ({where}), or give Service {item.name} a port {port}"
            ),
        ),
        order=line.order,
        pods=(pod.name,),
    )


def _refused(container: Container, host: str, port: int, named: bool) -> Line | None:
    """A line of the client's log that says that it could not connect there."""
    there = re.compile(
        rf"(?<![\w.-]){re.escape(host)}(?::{port}(?!\d)|{'' if named else '(?!:)'}\b.{{0,200}}\b[pP]ort[=: ']{{1,3}}{port}(?!\d))"
    )
    for text in container.pod.cluster.snapshot.logs:
        if (text.namespace, text.pod, text.container) != (container.pod.namespace, container.pod.name, container.name):
            continue
        log = Log(text)
        for words in REFUSED:
            for line in log.find(words):
                if there.search(line.text):
                    return line
    return None
