"""A node that ran out of memory."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Ending,
    Events,
    Evidence,
    Finding,
    Fix,
    Hardware,
    Node,
    Pod,
    check,
    endings,
    event_evidence,
    fixes,
    node_evidence,
    parse_time,
    pod_evidence,
    say_bytes,
    units,
)
from llmdoctor_checks.memory._killed import CONSEQUENCES

#: Available memory of a node below which the kernel is about to kill, as a share of its memory.
_EXHAUSTED = 0.01
_AVAILABLE = re.compile(r"^node_memory_MemAvailable_bytes(?:\{[^}]*\})? (?P<bytes>[\d.eE+]+)$", re.MULTILINE)


@check("oomkilled-node", since="0.1")
def oomkilled_node(pod: Pod, events: Events | None, node: Node | None, hardware: Hardware | None) -> Iterator[Finding]:
    """The node ran out of host memory.

    The container did not hit a limit of its own: the node had no memory left, and the kernel killed the process that
    was cheapest to lose, or the kubelet evicted the pod. Pods that use more than they request go first; a GPU server
    with a small memory request, or none, is the usual victim.

    ## Fix

    Request the memory that the server really uses (`resources.requests.memory`), so that the scheduler keeps it free,
    and find out who used the rest of the node.

    ## References

    - https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/
    """
    if pod.status.reason == "Evicted" and "low on resource: memory" in pod.status.message:
        yield Finding(
            role="cause",
            confidence="certain",
            summary=f"The kubelet evicted {pod.name}: the node was short of memory.",
            evidence=(pod_evidence(pod, "status", f"Evicted: {pod.status.message}"),),
            explains=("pod-failed", "crash-loop", "not-ready"),
            fixes=tuple(_fixes(pod)),
            pods=(pod.name,),
        )
        return
    for ending in endings(pod):
        proof = _kernel(ending, hardware) if hardware else None
        if proof is None and ending.signal != "SIGKILL" and not ending.oom_killed:
            continue
        proof = proof or _proof(pod, ending, events, node)
        if proof is None and ending.oom_killed and not ending.container.limit("memory") and not pod.memory_limit:
            path = f"{ending.container.path}.resources.limits.memory"
            proof = "likely", "it has no memory limit of its own", Evidence(source="pod", ref=path, text="none")
        if proof is None:
            continue
        confidence, why, evidence = proof
        yield Finding(
            role="cause",
            confidence="certain" if confidence == "certain" else "likely",
            summary=f"Container {ending.container.name} was killed for lack of memory on the node {pod.spec.node_name}: {why}.",
            evidence=(pod_evidence(pod, ending.path, ending.text), evidence),
            explains=("oomkilled-host", *CONSEQUENCES),
            fixes=tuple(_fixes(pod)),
            pods=(pod.name,),
        )


def _kernel(ending: Ending, hardware: Hardware) -> tuple[str, str, Evidence] | None:
    """The kernel's own line: it killed a process of this pod, and no cgroup was full."""
    for kill in hardware.kills(ending, whole_node=True):
        own = f"the kernel killed {kill.process} with {say_bytes(kill.anon + kill.shmem)} in memory, with no limit reached"
        return "certain", own, hardware.kernel.evidence(kill.line)
    return None


def _proof(pod: Pod, ending: Ending, events: Events | None, node: Node | None) -> tuple[str, str, Evidence] | None:
    """What shows that the node, not the container's limit, was full: confidence, why, evidence."""
    for event in events or ():
        if event.reason == "SystemOOM" and event.name == pod.spec.node_name and _close(event.last, ending):
            return "likely", "a system OOM at that time", event_evidence(event, pod.cluster)
    low = _exhausted(pod, ending, node)
    if low:
        return low
    if node and (condition := node.condition("MemoryPressure")) and condition.status == "True":
        return (
            "likely",
            "the node is under memory pressure",
            node_evidence(node, f"MemoryPressure: {condition.message}"),
        )
    return None


def _exhausted(pod: Pod, ending: Ending, node: Node | None) -> tuple[str, str, Evidence] | None:
    """Node-exporter's available memory at the time of the kill."""
    total = units(node.obj.status.capacity.get("memory")) if node else None
    if not total or ending.oom_killed:
        return None
    for sample in pod.cluster.snapshot.metrics:
        exporter = pod.cluster.item("Pod", sample.namespace, sample.pod)
        same = sample.node == pod.spec.node_name or (
            exporter is not None and exporter.raw.get("spec", {}).get("nodeName") == pod.spec.node_name
        )
        found = _AVAILABLE.search(sample.text)
        if found and same and _close(parse_time(sample.taken_at), ending, seconds=180):
            available = float(found["bytes"])
            if available < total * _EXHAUSTED:
                why = f"{say_bytes(available)} of {say_bytes(total)} were available when it was killed"
                return "certain", why, Evidence(source="metric", ref=sample.pod or pod.spec.node_name, text=found[0])
    return None


def _close(moment: object, ending: Ending, seconds: float = 120) -> bool:
    from datetime import datetime

    if not isinstance(moment, datetime) or ending.finished is None:
        return False
    return abs((moment - ending.finished).total_seconds()) <= seconds


def _fixes(pod: Pod) -> Iterator[Fix]:
    for container in pod.containers:
        if container.role == "main" and not container.request("memory"):
            yield fixes.advice(
                f"Request the memory that {container.name} uses (resources.requests.memory in {fixes.edited(pod)}): it requests none"
            )
            break
    yield fixes.advice(
        f"Find what uses the memory of {pod.spec.node_name or 'the node'}",
        f"kubectl describe node {pod.spec.node_name}" if pod.spec.node_name else "kubectl top node",
        owner="platform",
    )
