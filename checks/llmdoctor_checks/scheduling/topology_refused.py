"""A pod that the kubelet refused because what it asks for is not free on one NUMA node."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Evidence,
    Finding,
    Node,
    Pod,
    Subject,
    check,
    fixes,
    node_evidence,
    pod_evidence,
    usage_of,
)
from llmdoctor_checks.scheduling._admission import replaced

#: Holders that the evidence names.
_MOST = 4


@check("topology-refused", since="0.3")
def topology_refused(pod: Pod, node: Node | None, subject: Subject, cluster: Cluster) -> Iterator[Finding]:
    """The kubelet refused the pod, because what it asks for is not free on one NUMA node.

    With the topology manager's policy `single-numa-node` (or `restricted`) the kubelet admits a pod only if its GPUs, CPUs
    and network devices come from one NUMA node, mostly one socket. The scheduler counts devices of the whole node and does
    not know of that: small pods on both sockets leave no room for one that needs a whole socket, and it is refused each
    time with `TopologyAffinityError`. A refused pod stays failed; its owner makes another, which may meet the same.

    ## Fix

    Free GPUs of one socket, keep small pods and large ones on different nodes, or ask for a whole node. A policy of
    `best-effort` prefers one socket and admits the pod anyway; the scheduler plugin NodeResourceTopologyMatch counts by
    socket.

    ## References

    - https://kubernetes.io/docs/tasks/administer-cluster/topology-manager/
    - https://github.com/kubernetes-sigs/scheduler-plugins/tree/master/pkg/noderesourcetopology
    """
    status = pod.status
    if status.phase != "Failed" or status.reason != "TopologyAffinityError" or replaced(subject):
        return
    asked = [f"{amount} {name}" for name, amount in pod.accelerators.items()]
    wants = " and ".join(asked) or "its CPUs and memory"
    where = pod.spec.node_name or "its node"
    yield Finding(
        role="cause",
        confidence="certain",
        summary=f"The kubelet of {where} refused it: {wants} are not free on one NUMA node there"
        + (f"{_free(pod, node, cluster)}." if node else "."),
        evidence=(
            pod_evidence(pod, "status", f"{status.reason}: {status.message}"),
            *(pod_evidence(pod, "resources", text) for text in asked),
            *(_held(pod, node, cluster) if node else ()),
        ),
        explains=("pod-failed", "not-ready", "rollout-stuck"),
        fixes=(
            fixes.advice(
                f"Move small pods off {where} until one socket is free, then delete the refused pod",
                f"kubectl get pods -A -o wide --field-selector spec.nodeName={where}",
                f"kubectl -n {pod.namespace} delete pod {pod.name}",
            ),
            fixes.advice(
                "Keep pods of one GPU and pods of a whole socket on different nodes, or let the kubelet prefer one NUMA node "
                "instead of insisting on it (topologyManagerPolicy: best-effort)",
                owner="platform",
            ),
        ),
        pods=(pod.name,),
    )


def _free(pod: Pod, node: Node, cluster: Cluster) -> str:
    """How many GPUs of the node are free over all sockets, as far as its pods were read."""
    usage = usage_of(cluster)
    for resource in pod.accelerators:
        offered = node.allocatable(resource)
        if offered is not None and usage.complete:
            free = max(offered - usage.used(node.name).get(resource, 0), 0)
            return f", where {free} of {offered} {resource} are free in all"
    return ""


def _held(pod: Pod, node: Node, cluster: Cluster) -> Iterator[Evidence]:
    """Who has GPUs of the node."""
    for resource in pod.accelerators:
        holders = [h for h in usage_of(cluster).holders(node.name) if h.requests.get(resource)]
        said = [f"{h.ref} ({h.requests[resource]})" for h in sorted(holders, key=lambda h: h.ref)[:_MOST]]
        if said:
            yield node_evidence(
                node, f"{resource}: allocatable {node.allocatable(resource)}; held by {', '.join(said)}"
            )
