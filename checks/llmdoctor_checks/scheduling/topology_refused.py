"""A pod that the kubelet's managers of CPUs, memory and NUMA nodes refused.

Sources: kubelet `cm/topologymanager/topology_manager.go`, `cm/memorymanager/policy_static.go`,
`cm/cpumanager/policy_static.go` and `cpu_assignment.go`.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from kubectl_llmdoctor.api import (
    Cluster,
    Evidence,
    Finding,
    Fix,
    Node,
    Pod,
    Subject,
    check,
    fixes,
    node_evidence,
    pod_evidence,
    requests_of,
    say_bytes,
    usage_of,
)
from llmdoctor_checks.scheduling._admission import without_it

#: Holders that the evidence names.
_MOST = 4

_CPUS = r"not enough cpus available to satisfy request(?:: requested=(?P<asked>\d+), available=(?P<free>\d+))?"
_CORES = r"requested (?P<asked>\d+) cpus not multiple cpus per core = (?P<threads>\d+)"


class _Refusal(NamedTuple):
    """Which of the kubelet's managers refused the pod, what to do, and whether a NUMA node is what lacks something."""

    summary: str
    advice: str
    of_numa: bool = False


#: What keeps one NUMA node free.
_APART = fixes.platform(
    "Keep pods of one GPU and pods of a whole socket on different nodes, or let the kubelet prefer one NUMA node "
    "instead of insisting on it (topologyManagerPolicy: best-effort)"
)


@check("topology-refused", since="0.3")
def topology_refused(pod: Pod, node: Node | None, subject: Subject, cluster: Cluster) -> Iterator[Finding]:
    """The kubelet cannot give the pod what it asks for on one NUMA node, or as whole cores.

    With the topology manager's policy `single-numa-node` (or `restricted`) the kubelet admits a pod only if its GPUs, CPUs
    and network devices come from one NUMA node, usually one socket. The scheduler counts devices of the whole node and does
    not know of that: small pods on both sockets leave no room for one that needs a whole socket, and it is refused each
    time with `TopologyAffinityError`. The static memory manager refuses in the same way (`[memorymanager] …`), and the
    static CPU manager where its pool of exclusive CPUs is used up, or where whole cores must be given (`full-pcpus-only`)
    and the pod asks for half a core (`SMTAlignmentError`). A refused pod stays failed; its owner makes another, which may
    meet the same. Init containers count as well: what one of them was given may bind the rest of the pod to its NUMA node.

    ## Fix

    Free GPUs, memory or CPUs of one socket, keep small pods and large ones on different nodes, or ask for a whole node. A
    policy of `best-effort` prefers one socket and admits the pod anyway; the scheduler plugin NodeResourceTopologyMatch
    counts by socket. Exclusive CPUs and memory are given only to pods whose requests equal their limits: a pod that needs
    neither can ask for less than its limits.

    ## References

    - https://kubernetes.io/docs/tasks/administer-cluster/topology-manager/
    - https://kubernetes.io/docs/tasks/administer-cluster/memory-manager/
    - https://kubernetes.io/docs/tasks/administer-cluster/cpu-management-policies/
    - https://github.com/kubernetes-sigs/scheduler-plugins/tree/master/pkg/noderesourcetopology
    """
    status = pod.status
    if status.phase != "Failed":
        return
    where = pod.spec.node_name or "its node"
    said = _said(pod, where, _free(pod, node, cluster) if node else "")
    if said is None:
        return
    asked = [f"{amount} {name}" for name, amount in pod.accelerators.items()]
    left = without_it(pod, subject)
    yield Finding(
        confidence="certain",
        summary=said.summary,
        evidence=(
            pod_evidence(pod, "status", f"{status.reason}: {status.message}"),
            *(pod_evidence(pod, "resources", text) for text in asked),
            *(_held(pod, node, cluster) if node else ()),
        ),
        explains=("pod-failed", "not-ready", "rollout-stuck"),
        fixes=(left,)
        if left
        else (
            *_rounded(pod),
            fixes.advice(
                f"{said.advice}{fixes.lone(pod)}",
                fixes.pods_on(where),
                f"kubectl -n {pod.namespace} delete pod {pod.name}",
            ),
            *((_APART,) if said.of_numa else ()),
        ),
    )


def _said(pod: Pod, where: str, free: str) -> _Refusal | None:
    """Which of the kubelet's managers refused the pod, and what to do; None where another did."""
    status = pod.status
    if status.reason == "TopologyAffinityError":
        wants = [f"{amount} {name}" for name, amount in pod.accelerators.items()]
        # one device lies on one NUMA node by itself: there it is what should come from the same that is short
        beside = [text for amount, text in _beside(pod) if amount] if sum(pod.accelerators.values()) < 2 else []
        wants = [*wants, *beside] or ["its CPUs and memory"]
        named = ", ".join(wants[:-1]) + " and " * (len(wants) > 1) + wants[-1]
        return _Refusal(
            f"The kubelet of {where} refused it: {named} are not free together on one NUMA node there{free}.",
            f"Move small pods off {where}{_small(pod)} until one socket is free, then delete the refused pod",
            of_numa=True,
        )
    if status.reason == "SMTAlignmentError":
        cores = re.search(_CORES, status.message)
        asked = f": it asks for {cores['asked']} CPUs, and a core has {cores['threads']}" if cores else ""
        return _Refusal(
            f"The kubelet of {where} gives whole cores only (full-pcpus-only){asked}.",
            "Ask for a number of CPUs that fills whole cores, then delete the refused pod",
        )
    if status.reason != "UnexpectedAdmissionError":
        return None
    if "[memorymanager]" in status.message:
        return _Refusal(
            f"The memory manager of the kubelet of {where} refused it: no NUMA node has the memory that it asks for.",
            f"Ask for less memory, or move pods off {where} until one NUMA node has enough, then delete the refused pod",
            of_numa=True,
        )
    if cpus := re.search(_CPUS, status.message):
        numbers = f": {cpus['asked']} asked, {cpus['free']} left" if cpus["asked"] else ""
        return _Refusal(
            f"The CPU manager of the kubelet of {where} refused it: too few exclusive CPUs are left{numbers}.",
            f"Ask for fewer CPUs, or move pods off {where}, then delete the refused pod",
        )
    return None


def _rounded(pod: Pod) -> Iterator[Fix]:
    """As many CPUs as fill whole cores, or as are left, where one container asks for all of them."""
    cores, cpus = re.search(_CORES, pod.status.message), re.search(_CPUS, pod.status.message)
    asking = [c for c in pod.containers if c.role != "init" and c.request("cpu")]
    amount = 0
    if cores:
        amount = -(-int(cores["asked"]) // int(cores["threads"])) * int(cores["threads"])
    elif cpus and cpus["free"]:
        amount = int(cpus["free"])
    if len(asking) != 1 or not amount:
        return
    operations = [
        {"op": "add", "path": f"{asking[0].pointer}/resources/{kind}/cpu", "value": str(amount)}
        for kind in ("limits", "requests")
    ]
    why = "which fills whole cores" if cores else "which are left"
    now = (asking[0].request("cpu") or 0) / 1000
    text = f"Ask for {amount} CPUs in {asking[0].name} instead of {now:g}, {why}; then delete the refused pod"
    yield fixes.patch(pod, text, operations)


def _small(pod: Pod) -> str:
    """The pods that have least of what a refused pod asks for, on its node: ` (a/b with 1)`."""
    for resource, asked in pod.accelerators.items():
        holders = usage_of(pod.cluster).holders(pod.spec.node_name) if pod.spec.node_name else []
        if held := sorted((n, h.ref) for h in holders if 0 < (n := h.requests.get(resource, 0)) < asked):
            return f" ({', '.join(f'{ref} with {n}' for n, ref in held[:3])})"
    return ""


def _beside(pod: Pod) -> tuple[tuple[int, str], ...]:
    """CPUs and memory of the whole pod, which the kubelet takes from the NUMA node of its devices: of a guaranteed pod alone."""
    guaranteed = all(c.limit(r) and c.request(r) == c.limit(r) for c in pod.containers for r in ("cpu", "memory"))
    if not guaranteed:
        return ()
    asked = requests_of(pod.obj)
    cpus, memory = asked.get("cpu", 0), asked.get("memory", 0)
    return (cpus, f"{cpus / 1000:g} CPUs"), (memory, f"{say_bytes(memory)} of memory")


def _free(pod: Pod, node: Node, cluster: Cluster) -> str:
    """How many GPUs of the node are free over all sockets, as far as its pods were read."""
    usage = usage_of(cluster)
    for resource in pod.accelerators:
        offered = node.allocatable(resource)
        if offered is not None and cluster.complete_on(node.name):
            free = max(offered - usage.used(node.name).get(resource, 0), 0)
            return f", where {free} of {offered} {resource} are free in all"
    return ""


def _held(pod: Pod, node: Node, cluster: Cluster) -> Iterator[Evidence]:
    """Who has GPUs of the node."""
    for resource in pod.accelerators:
        holders = [h for h in usage_of(cluster).holders(node.name) if h.requests.get(resource)]
        if said := [f"{h.ref} ({h.requests[resource]})" for h in sorted(holders, key=lambda h: h.ref)[:_MOST]]:
            yield node_evidence(
                node, f"{resource}: allocatable {node.allocatable(resource)}; held by {', '.join(said)}"
            )
