"""Probes by gRPC that ask for a health service which the server does not have.

Sources: the kubelet's `pkg/probe/grpc/grpc.go`; grpc-go's and grpc-python's health servers, which answer NOT_FOUND for a name that nobody
registered; the endpoint picker of the Gateway API inference extension (`pkg/epp/server`), which answers SERVICE_UNKNOWN and logs the names.
"""

import re

from kubectl_llmdoctor.api import (
    Container,
    Event,
    Evidence,
    Finding,
    Fix,
    Logs,
    event_evidence,
    expression,
    fixes,
    log_evidence,
    pod_evidence,
)

#: The server has a health service, and none for this name; or it has none at all.
_UNKNOWN = (
    r'service unhealthy \(responded with "SERVICE_UNKNOWN"\)|health rpc (?:probe )?failed: .{0,80}code = NotFound'
)
_NONE = "does not implement the grpc health protocol"

#: The program by which a command asks, which prints the kubelet's words (grpc-ecosystem/grpc-health-probe).
_BY_COMMAND = expression(r"grpc[_-]health[_-]probe\b(?:.{0,400}?-service[= ](?P<service>[\w./-]{1,120}))?")

#: What a server logs that was asked for a name it does not have, and the names that it has.
KNOWN = "requested unknown service"
_NAMES = r'"available-services": ?\[((?:"[\w.-]{1,120}"(?:, ?)?){1,20})\]'


def unknown_service(
    container: Container, kind: str, event: Event, logs: Logs | None, *, loading: bool
) -> Finding | None:
    """A probe that the server answers with that it has no such health service; some have it only when their model is loaded."""
    probe, said = container.spec.probes.get(kind), event.message.rstrip()
    by_command = _BY_COMMAND.search(probe.script[:4000]) if probe else None
    if probe is None or (probe.grpc is None and by_command is None):
        return None
    none = _NONE in said
    if not none and re.search(_UNKNOWN, said[:600]) is None:
        return None
    told = _told(container, logs)
    if loading and told is None:
        return None
    asked = probe.grpc.service if probe.grpc else (by_command["service"] or "" if by_command else "")
    what = (
        "that it has no service of the gRPC health protocol"
        if none
        else f"that it does not know the service {asked or '(no name)'}"
    )
    return Finding(
        # some register their service only when the model is loaded
        confidence="certain" if told or none else "possible" if container.accelerators else "likely",
        summary=f"The {kind} probe asks {container.name} by gRPC, and the server answers {what}.",
        evidence=(
            event_evidence(event, container.pod.cluster),
            *((pod_evidence(container, f"{kind}Probe", asked),) if asked else ()),
            *((told[1],) if told else ()),
        ),
        explains=("crash-loop", "not-ready", "probe-too-short", "rollout-stuck"),
        fix=_fix(container, asked, told[0] if told else (), none=none),
    )


def _told(container: Container, logs: Logs | None) -> tuple[tuple[str, ...], Evidence] | None:
    """The services that a server says it has, where it was asked for another."""
    for log in container.own_logs(logs):
        for line in log.find(KNOWN):
            if (said := re.search(_NAMES, line.text[:4000])) is not None:
                return tuple(re.findall(r'"([^"]+)"', said[1])), log_evidence(line, KNOWN)
    return None


def _fix(container: Container, asked: str, names: tuple[str, ...], *, none: bool) -> Fix:
    pod = container.pod
    by_grpc = {kind: probe.grpc for kind, probe in container.spec.probes.items() if probe.grpc}
    kinds = [kind for kind, grpc in by_grpc.items() if grpc.service == asked]
    probes = f"{' and '.join(kinds)} probe{'s' if len(kinds) > 1 else ''}" if kinds else "probes"
    if none:
        return fixes.advice(
            f"Have the {probes} of {fixes.edited(pod)} open the port (tcpSocket) or ask over HTTP (httpGet) in place of grpc"
        )
    if not kinds:
        which = (
            f"-service={names[0]}"
            if len(names) == 1
            else "no -service (the server as a whole)"
            if asked
            else "a -service of its own"
        )
        return fixes.advice(f"Have grpc_health_probe in the probes of {fixes.edited(pod)} ask for {which}")
    right = {kind: _right(kind, names) for kind in kinds}
    if not asked and not all(right.values()):
        return fixes.advice(
            f"Name a service that the server has in grpc.service of the {probes} of {fixes.edited(pod)}"
        )
    operations: list[dict[str, str]] = [
        {"path": f"{container.pointer}/{kind}Probe/grpc/service"}
        | ({"op": "add", "value": name} if name else {"op": "remove"})
        for kind, name in right.items()
    ]
    which = " and ".join(f"the service {name}" for name in dict.fromkeys(right.values()) if name)
    which = which or "no name (the server as a whole)"
    return fixes.patch(pod, f"Ask for {which} in the {probes}, in place of {asked or 'no name'}", operations)


def _right(kind: str, names: tuple[str, ...]) -> str:
    """The service to ask for, of those that a server says it has; empty is the server as a whole.

    A picker that waits to be the leader lives, and as a whole it is not ready.
    """
    if len(names) == 1:
        return names[0]
    meant = "readiness" if kind == "readiness" else "liveness"
    return meant if meant in names else ""
