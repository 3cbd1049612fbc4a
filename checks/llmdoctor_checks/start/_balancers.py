"""Load balancers of clouds that ask a server for its health by themselves, at `/` where nobody tells them another path.

Sources: Google's ranges of probers (cloud.google.com/load-balancing/docs/health-checks) and Azure's address of them. GKE takes the path of
an Ingress from the readiness probe or a BackendConfig, and that of a Gateway from a HealthCheckPolicy alone. AWS' controller says what
its targets answered in a readiness gate of the pod.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Container,
    Engine,
    Finding,
    Fix,
    Item,
    Logs,
    Pod,
    count_of,
    dig,
    escaped,
    expression,
    fixes,
    in_order,
    log_evidence,
    object_evidence,
    pod_evidence,
    pointer_to,
    rows,
)
from llmdoctor_checks._routes import gateways_of, routes_to
from llmdoctor_checks._unreached import last_answered
from llmdoctor_checks.start._routed_ports import OF_PROXIES, listed_services, ways_to

_OF_GOOGLE = r"35\.191\.\d{1,3}\.\d{1,3}|130\.211\.[0-3]\.\d{1,3}|209\.85\.(?:15[2-5]|20[4-7])\.\d{1,3}"
_OF_AZURE = "168.63.129.16"
_FROM = rf"(?P<by>{_OF_GOOGLE}|{re.escape(_OF_AZURE)})"
#: How their addresses begin.
LITERALS = ("35.191.", "130.211.", "209.85.", _OF_AZURE)
#: The access log of uvicorn.
_ASKED = expression(
    rf'(?<![\d.]){_FROM}:\d{{1,5}} - "(?:GET|HEAD) (?P<path>/[^\s"]{{0,300}}) HTTP/[\d.]{{1,3}}" (?P<code>\d{{3}})'
)
_FEWEST = 2

#: The readiness gates of AWS' load balancer controller, and how it says that the answer was no success.
GATE, _MISMATCH = r"target-health\.(?:elbv2\.k8s|alb\.ingress\.k8s)\.aws/", "Target.ResponseCodeMismatch"
_CODES = r"with these codes: \[(\d{3})"

_ALB = "alb.ingress.kubernetes.io/healthcheck-path"
_ALB_PORT = "alb.ingress.kubernetes.io/healthcheck-port"
#: Where Istio's proxy answers for the health of the whole pod.
_OF_ISTIO = (15020, 15021)
_NLB = "service.beta.kubernetes.io/aws-load-balancer-healthcheck-path"
_AZURE = "service.beta.kubernetes.io/azure-load-balancer-health-probe-request-path"


def refused_balancer(pod: Pod, engine: Engine, health: str, logs: Logs | None) -> Iterator[Finding]:
    """A load balancer that takes a server for ill which is well, as it asks at a path that the server refuses."""
    yield from _by_gate(pod, engine, health)
    yield from _by_policy(pod, engine, health, logs)
    log = engine.container.own_log(logs) if pod.ready else None
    lines = in_order(log.find(*LITERALS)) if log is not None else []
    found = [(line, one) for line in lines if (one := _ASKED.search(line.text[:2000]))]
    if len(found) < _FEWEST or any(not one["code"].startswith("4") for _, one in found):
        return
    last, one = found[-1]
    whose = "Azure's" if one["by"] == _OF_AZURE else "Google's"
    yield Finding(
        severity="warning",
        summary=f"{whose} load balancer asks {engine.container.name} for its health at {one['path']}, where {engine.title} answers "
        f"{one['code']} ({count_of(len(found), 'time')}): it sends no requests to a server that it takes for ill.",
        evidence=(log_evidence(found[0][0]), log_evidence(last)),
        fix=_at_the_path(pod, engine, health, whose),
        order=found[0][0].order,
    )


def _by_gate(pod: Pod, engine: Engine, health: str) -> Iterator[Finding]:
    """What AWS' controller says of a pod that waits for its load balancer."""
    for condition in pod.status.conditions:
        if not re.match(GATE, condition.type) or condition.status == "True" or condition.reason != _MISMATCH:
            continue
        code = re.search(_CODES, condition.message or "")
        answer = f" with {code[1]}" if code else ""
        yield Finding(
            summary=f"{engine.container.name} answers the load balancer's health check{answer}, and the pod waits for that to pass "
            "before it becomes ready.",
            evidence=(pod_evidence(pod, f"status.conditions[{condition.type}]", f"{_MISMATCH}: {condition.message}"),),
            explains=("not-ready", "rollout-stuck"),
            fix=_of_aws(pod, health),
        )
        return


def _by_policy(pod: Pod, engine: Engine, health: str, logs: Logs | None) -> Iterator[Finding]:
    """A gateway that is told to ask the server for its health at a path where it answers 404, each time."""
    log = engine.container.own_log(logs) if pod.ready else None
    if log is None:
        return
    for item, pointer, path in _told_paths(pod):
        asked = rf'"?(?:GET|HEAD) {re.escape(path)}(?:\?[^\s"]{{0,200}})?(?: HTTP/[\d.]{{1,3}}")? (?:[\da-f.:]{{3,45}} )?(\d{{3}})\b'
        found = [(line, one[1]) for line in log.find(f" {path}") if (one := re.search(asked, line.text[:2000]))]
        if len(found) < _FEWEST or any(code != "404" for _, code in found):
            continue
        asked_since = last_answered(log) > found[0][0].number  # Envoy asks the ill, too, where all are (panic)
        yield Finding(
            role="risk" if asked_since else "cause",
            severity="warning",
            summary=f"{item.plain_kind} {item.name} has its gateway ask {engine.container.name} for its health at {path}, where "
            f"{engine.title} answers 404 ({count_of(len(found), 'time')}): the gateway takes it for ill"
            + (", and may send it no requests." if asked_since else ", and sends it no requests."),
            evidence=(object_evidence(item, pointer.replace("/", ".").strip("."), path), log_evidence(found[-1][0])),
            explains=("http-5xx",),
            fix=fixes.set_field(
                item, pointer, health, f"Set the path of the health check of {item.plain_kind}/{item.name} to {health}"
            ),
            order=found[0][0].order,
        )
        return


def _told_paths(pod: Pod) -> Iterator[tuple[Item, str, str]]:
    """Where policies and routes that lead to the pod name the path of a health check: Envoy Gateway's, Contour's and Traefik's."""
    behind = [*pod.pools, *pod.services]
    routes = {(route.plain_kind, route.name) for one in behind for route in routes_to(one, pod.cluster)}
    routes |= {("Gateway", name) for one in behind for _, name in gateways_of(one, pod.cluster)}
    for item in pod.cluster.items("BackendTrafficPolicy"):
        refs = [
            *rows(item.raw, "spec.targetRefs"),
            *([one] if isinstance(one := dig(item.raw, "spec.targetRef"), dict) else []),
        ]
        if any((str(ref.get("kind")), str(ref.get("name"))) in routes for ref in refs):
            yield from _path(item, "/spec/healthCheck/active/http/path")
    names = {one.name for one in pod.services}
    for kind in OF_PROXIES:
        for item in pod.cluster.items(kind, pod.namespace):
            for at, service in listed_services(item):
                if service.get("name") in names:
                    yield from _path(item, f"{pointer_to(at)}/healthCheck/path")
                    yield from _path(item, f"{pointer_to(at).rpartition('/services/')[0]}/healthCheckPolicy/path")


def _path(item: Item, pointer: str) -> Iterator[tuple[Item, str, str]]:
    value: object = item.raw
    for part in pointer.strip("/").split("/"):
        value = value[int(part)] if isinstance(value, list) else dig(value, part)
    if isinstance(value, str) and value.startswith("/"):
        yield item, pointer, value


def asked_elsewhere(pod: Pod, engine: Engine) -> Iterator[Finding]:
    """A health check of AWS' that fails, and is told a port at which the server does not listen."""
    port = engine.value("port")
    failing = [c for c in pod.status.conditions if re.match(GATE, c.type) and c.status != "True"]
    up = failing and engine.container.status.ready
    for item in (one.item for service in pod.services for one in ways_to(service, pod.cluster)) if up else ():
        told = item.annotations.get(_ALB_PORT, "")
        by_node = item.annotations.get("alb.ingress.kubernetes.io/target-type", "instance") != "ip"
        if not told.isdecimal() or not isinstance(port, int) or int(told) == port or by_node:
            continue
        if any(int(told) in _ports_of(one) for one in pod.containers if one is not engine.container):
            continue
        yield Finding(
            severity="warning",
            summary=f"Ingress {item.name} has the load balancer ask for health at port {told}; {engine.title} listens on {port}, and the "
            "pod waits for that check to pass before it becomes ready.",
            evidence=(
                object_evidence(item, f"metadata.annotations[{_ALB_PORT}]", told),
                pod_evidence(
                    pod, f"status.conditions[{failing[0].type}]", f"{failing[0].reason}: {failing[0].message}"
                ),
            ),
            explains=("not-ready", "rollout-stuck"),
            fix=_annotated(item, _ALB_PORT, "traffic-port"),
        )
        return


def _ports_of(container: Container) -> tuple[int, ...]:
    """Where a container beside the server listens."""
    return (
        *(one.container_port for one in container.spec.ports),
        *(_OF_ISTIO if container.name == "istio-proxy" else ()),
    )


def _of_aws(pod: Pod, health: str) -> Fix:
    """The path in the annotations of the Ingress, or of a Service with a load balancer of its own."""
    for service in pod.services:
        if dig(service.raw, "spec.type") == "LoadBalancer":
            return _annotated(service, _NLB, health)
        for item in (one.item for one in ways_to(service, pod.cluster)):
            if item.kind == "Ingress":
                return _annotated(item, _ALB, health)
    return fixes.advice(f"Set {_ALB}: {health} in the annotations of the Ingress (it is / where nothing is set)")


def _annotated(item: Item, key: str, value: str) -> Fix:
    summary = f"Set {key}: {value} on {item.plain_kind}/{item.name}"
    return fixes.set_field(item, f"/metadata/annotations/{escaped(key)}", value, summary, op="add")


def _at_the_path(pod: Pod, engine: Engine, health: str, whose: str) -> Fix:
    """The path where the load balancer is told of it."""
    port = engine.value("port")
    if whose == "Azure's":
        mine = next((one for one in pod.services if dig(one.raw, "spec.type") == "LoadBalancer"), None)
        return (
            _annotated(mine, _AZURE, health)
            if mine
            else fixes.advice(f"Set {_AZURE}: {health} in the annotations of the Service of the load balancer")
        )
    behind = next((item for item in (*pod.pools, *pod.services) if gateways_of(item, pod.cluster)), None)
    if behind is not None:
        group = "" if behind.plain_kind == "Service" else ", group: inference.networking.k8s.io"
        return fixes.advice(
            f"Make a HealthCheckPolicy (networking.gke.io/v1) in namespace {behind.namespace} with targetRef {{kind: {behind.plain_kind}, "
            f"name: {behind.name}{group}}} and default.config: {{type: HTTP, httpHealthCheck: {{requestPath: {health}, port: {port}}}}}"
        )
    return fixes.advice(
        f"Make a BackendConfig (cloud.google.com/v1) with healthCheck: {{type: HTTP, requestPath: {health}, port: {port}}}, and name it in "
        "the annotation cloud.google.com/backend-config of the Service"
    )
