"""Gateways that find no server behind a Service although its pod is ready: their own checks, or what they know of it, say otherwise."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Finding,
    Line,
    Pod,
    current_logs,
    fixes,
    log_evidence,
    pod_evidence,
    written_ago,
)

#: Envoy's access log, and the alerts of HAProxy, whose ingress controllers call a backend by namespace, Service and port.
LITERALS = ("no_healthy_upstream", "has no server available!", "via_upstream", "is UP, reason: ")
#: So many seconds a gateway may take to hear that a pod is ready: longer than its checks wait.
_LATE = 120


def overlooked(pod: Pod, cluster: Cluster) -> Iterator[Finding]:
    """One that says so of the pod's Service when the pod had been ready for a while."""
    ready = pod.status.ready
    served = cluster.seconds_since(ready.last_transition_time) if ready is not None else None
    said = cluster.once("no server", lambda: _said(cluster)) if served is not None and pod.services else []
    for service in pod.services if said else ():
        name, space = re.escape(service.name), re.escape(pod.namespace)
        names = rf"\|{name}\.{space}\.svc\b"
        backend = rf"\b{space}[-_:]{{1,2}}(?:svc[-_])?{name}[-_:]{{1,2}}[a-zA-Z\d]{{1,20}}'? has no server"
        for line in said:
            if line.log.pod == pod.name or not re.search(rf"{names}|{backend}", line.text[:4000]):
                continue
            ago = written_ago(line, cluster.now)
            if served is None or ago is None or served - ago < _LATE:
                continue
            if any(x.number > line.number and re.search(names, x.text[:4000]) for x in line.log.find("via_upstream")):
                continue  # it has found one since
            yield Finding(
                severity="warning",
                confidence="possible",
                summary=f"{line.log.pod} finds no server behind Service {service.name}, though {pod.name} has been ready since "
                f"{ready.last_transition_time if ready else '?'}: its own checks of the pod fail, it ejected the pod, or it "
                "does not hear of its endpoints.",
                evidence=(
                    log_evidence(line),
                    pod_evidence(
                        pod, "status.conditions[Ready]", f"True since {ready.last_transition_time if ready else '?'}"
                    ),
                ),
                fix=fixes.advice(
                    f"Look at the checks and the outlier detection of {line.log.pod} for this Service (path, port, TLS), and at what "
                    "it knows of the endpoints",
                    f"kubectl -n {pod.namespace} get endpointslices -l kubernetes.io/service-name={service.name} -o yaml",
                ),
                order=line.order,
            )
            return


def _said(cluster: Cluster) -> list[Line]:
    """The last lines that say so, of gateways that did not find one afterwards."""
    said = (last for log in current_logs(cluster) for last in map(log.last, LITERALS[:2]) if last and cluster.now)
    return [last for last in said if not any(x.number > last.number for x in last.log.find("is UP, reason: "))]
