"""Knative's queue-proxy that asks another container whether it is ready than the one to which it forwards requests."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import Finding, Logs, Pod, fixes, log_evidence, pod_evidence
from llmdoctor_checks.start._probes import SIDECAR_PROBE

#: The port to which it forwards, and what it prints of a request that found nobody there (knative pkg/network/error_handler.go).
_FORWARDS = "USER_PORT"
FAILED = "error reverse proxying request"

#: So long after the start of the one that was not up.
_SOON_SECONDS = 3600


def forwarded_elsewhere(pod: Pod, logs: Logs | None) -> Iterator[Finding]:
    """Requests that found nobody: the pod was ready by its server, and what stands before that was not up yet.

    KServe lets the proxy forward to its agent (for a logger, a batcher or several models) and leaves it to ask the server.
    """
    for proxy in pod.containers if logs and pod.ready else ():
        told, probe = proxy.env.get(_FORWARDS), proxy.env.get(SIDECAR_PROBE)
        to = str(told.value) if told and told.value else ""
        asked = re.search(r'"port": ?(\d{1,5})\b', str(probe.value)[:2000]) if probe and probe.value else None
        log = proxy.own_log(logs)
        agent = next((c for c in pod.containers if to in map(str, c.declared_ports)), None)
        if log is None or asked is None or asked[1] == to or agent is None or agent is proxy or not agent.running:
            continue
        if agent.status.restart_count:
            continue  # it was down of something else
        refused = rf"dial tcp (?:127\.0\.0\.1|\[::1\]|localhost):{re.escape(to)}: connect: connection refused"
        lines = [line for line in log.find(FAILED) if re.search(refused, line.text[:4000])]
        if not lines:
            continue
        ran = pod.cluster.seconds_since(agent.started)
        recent = ran is not None and ran <= _SOON_SECONDS
        yield Finding(
            role="cause" if recent else "risk",
            summary=f"{proxy.name} forwards requests to {agent.name} at port {to}, and asks port {asked[1]} whether the pod is ready: "
            f"requests came before {agent.name} was up.",
            evidence=(
                log_evidence(lines[-1]),
                pod_evidence(proxy, f"env[{SIDECAR_PROBE}]", str(probe.value)[:200] if probe else ""),
                pod_evidence(proxy, f"env[{_FORWARDS}]", to),
            ),
            fixes=(
                fixes.advice(
                    f"Have clients ask again until {agent.name} is up, or leave out what puts it before the server, in "
                    f"{fixes.edited(pod)} (a logger or batcher)"
                ),
                fixes.platform(
                    f"Make KServe's injector let {proxy.name} ask port {to}, to which it forwards, by {SIDECAR_PROBE}: 0.20 leaves "
                    "that as it was (kserve issue 5569)"
                ),
            ),
            order=lines[0].order,
        )
        return
