"""The nodes are full of pods."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Finding, Pending, Pod, Subject, check, fixes
from llmdoctor_checks.scheduling._admission import refused_for
from llmdoctor_checks.scheduling._separation import cause
from llmdoctor_checks.scheduling._words import finding, node_lines, nodes_said, number_of


@check("pods-per-node-limit", since="0.1")
def pods_per_node_limit(pod: Pod, pending: Pending | None, subject: Subject) -> Iterator[Finding]:
    """The nodes that could run the pod have as many pods as they allow.

    The kubelet's `maxPods` (110 unless set; on EKS what the network interfaces of the instance allow) counts every pod,
    however small. GPUs, CPU and memory may all be free.

    ## Fix

    Move small pods to other nodes, raise the limit of the node, or on EKS turn on prefix delegation.

    ## References

    - https://kubernetes.io/docs/setup/best-practices/cluster-large/
    - https://docs.aws.amazon.com/eks/latest/userguide/cni-increase-ip-addresses.html
    """
    yield from refused_for("pods-per-node-limit", pod, subject)
    found = cause(pending, "pods-per-node-limit")
    if not pending or not found:
        return
    limits = [
        f"{(r.allocatable or 0) - (r.free or 0)} of {r.allocatable}" for r in found.reasons if r.resource == "pods"
    ]
    summary = f"{nodes_said(found)} could run it, but {'allows' if number_of(found) == 1 else 'allow'} no further pod"
    summary += f" ({', '.join(dict.fromkeys(limits))})." if limits else ", by the scheduler's count."
    name = min((v.node.name for v in found.verdicts), default="")
    most = max((r.allocatable or 0 for r in found.reasons if r.resource == "pods"), default=0)
    above = f" above {most}" if most else ""
    fix = fixes.platform(
        f"Raise maxPods of the kubelet of {name or 'these nodes'}{above} (where the network has as many addresses{_of_eks(pending)}), or "
        f"move pods that need no GPU off {'it' if name or number_of(found) == 1 else 'them'}, or add a node",
        *([fixes.pods_on(name)] if name else []),
    )
    yield finding(pending, found, summary, node_lines(pending, found), [fix])


def _of_eks(pending: Pending) -> str:
    """Where the network's addresses are those of EC2's interfaces."""
    labels = {label.partition("/")[0] for node in pending.subject.nodes for label in node.labels}
    on_eks = "eks.amazonaws.com" in labels or "sagemaker.amazonaws.com" in labels
    return ": on EKS by ENABLE_PREFIX_DELEGATION=true of DaemonSet aws-node" if on_eks else ""
