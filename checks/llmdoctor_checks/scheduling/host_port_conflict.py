"""A host port is taken everywhere."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Evidence, Finding, Fix, Pending, Pod, Subject, check, fixes, pod_evidence
from llmdoctor_checks.scheduling._admission import refused_for
from llmdoctor_checks.scheduling._holders import replaced
from llmdoctor_checks.scheduling._obstacles import Cause
from llmdoctor_checks.scheduling._repairs import old_first, ways
from llmdoctor_checks.scheduling._separation import cause
from llmdoctor_checks.scheduling._words import finding, node_lines, nodes_said


@check("host-port-conflict", since="0.1")
def host_port_conflict(pod: Pod, pending: Pending | None, subject: Subject) -> Iterator[Finding]:
    """The host port that the pod wants is taken on every node that could run it.

    A `hostPort` (and, with `hostNetwork: true`, every declared port) can be used by one pod per node. With as many
    such pods as nodes the next one waits, whatever else is free: one replica too many, or the new pod of a rolling update, which
    is added before the old one goes.

    ## Fix

    Drop the `hostPort`: a Service reaches the pod without it. Where the host's network is needed choose another port, and let an
    update remove the old pod first (`maxSurge: 0`, `maxUnavailable: 1`).

    ## References

    - https://kubernetes.io/docs/concepts/configuration/overview/#services
    """
    yield from refused_for("host-port-conflict", pod, subject)
    found = cause(pending, "host-port-conflict")
    if not pending or not found:
        return
    ports = sorted({p for r in found.reasons for p in r.ports})
    named = f"port {', '.join(map(str, ports))} of the host is" if ports else "a port of the host that it asks for is"
    summary = f"{nodes_said(found)} could run it, but {named} taken there."
    yield finding(pending, found, summary, [*_ports(pending), *node_lines(pending, found)], _fixes(pending, found))


def _ports(pending: Pending) -> Iterator[Evidence]:
    if pending.pod.spec.host_network:
        yield pod_evidence(pending.pod, "hostNetwork", "true")
    for container in pending.pod.containers:
        for port in container.spec.ports:
            if port.host_port or pending.pod.spec.host_network:
                yield pod_evidence(container, "ports", f"hostPort: {port.host_port or port.container_port}")


def _fixes(pending: Pending, found: Cause) -> Iterator[Fix]:
    where, workload = fixes.edited(pending.pod), pending.subject.workload
    former = replaced(pending, found)
    if workload is not None and former:
        yield old_first(pending, workload, former)
        return
    offered = ways(pending, found)
    if offered and pending.pod.spec.host_network:
        yield _other_port(pending, found, where)
    yield from offered or [_without(pending, where)]


def _other_port(pending: Pending, found: Cause, where: str) -> Fix:
    """Another port for a pod that stays in the host's network: what has the port there may be wanted as much."""
    ports = sorted({p for r in found.reasons for p in r.ports})
    holders = list(dict.fromkeys(ref for r in found.reasons if r.ports for ref in r.pods))
    who = f", which {', '.join(holders[:2])} {'has' if len(holders) == 1 else 'have'} there" if holders else ""
    names = [
        c.name for c in pending.pod.containers if {p.host_port or p.container_port for p in c.spec.ports} & set(ports)
    ]
    return fixes.advice(
        f"Give {', '.join(names) or 'it'} of {where} another port than {', '.join(map(str, ports))}{who}: in its ports, in what it is told "
        "to listen on, in its probes and Services; or take hostNetwork out, where it can do without",
        f"kubectl -n {pending.pod.namespace} get pod {pending.pod.name} -o jsonpath='{{.spec.containers[*].ports}}'",
    )


def _without(pending: Pending, where: str) -> Fix:
    """The pod without ports of the host, or without its network."""
    pod = pending.pod
    at = [(c, n, p.host_port) for c in pod.containers for n, p in enumerate(c.spec.ports) if p.host_port]
    ports = ", ".join(str(port) for _, _, port in at)
    body = [{"op": "remove", "path": f"{c.pointer}/ports/{n}/hostPort"} for c, n, _ in at]
    if pod.spec.host_network:  # the API server makes a hostPort of each port of a pod in the host's network
        text = f"Take hostNetwork out of {where}: a Service reaches its ports without it; where it must stay, give each pod another port"
        return fixes.patch(pod, text, [{"op": "remove", "path": "/hostNetwork"}, *body])
    text = f"Drop hostPort {ports} in {where}: a Service reaches the pod without it"
    return fixes.patch(pod, text, body) if body else fixes.advice(f"Drop the hostPort in {where}")
