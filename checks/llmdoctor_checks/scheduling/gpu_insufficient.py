"""Every GPU that the pod could have is taken."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Finding, Fix, Pending, Pod, Subject, check, fixes
from llmdoctor_checks.scheduling._admission import refused_for
from llmdoctor_checks.scheduling._obstacles import Cause
from llmdoctor_checks.scheduling._repairs import one_more, ways
from llmdoctor_checks.scheduling._separation import cause
from llmdoctor_checks.scheduling._told import told
from llmdoctor_checks.scheduling._words import (
    asked_in,
    finding,
    node_lines,
    nodes_said,
    scaling_lines,
)


@check("gpu-insufficient", since="0.1")
def gpu_insufficient(pod: Pod, pending: Pending | None, subject: Subject) -> Iterator[Finding]:
    """All GPUs of the kind that the pod asks for are taken.

    The nodes that could run the pod have enough GPUs when they are empty, but other pods hold them. A GPU counts as
    taken as long as its pod exists and has not ended, in any namespace: also while the pod crashes, pulls its image,
    or is being deleted. A pod that named its node itself, or was placed by two schedulers at once, is refused by the kubelet
    instead (`OutOfnvidia.com/gpu`). Nodes without GPUs, tainted nodes of other teams and control planes do not matter here.

    ## Fix

    Free GPUs (stop or scale down what holds them), add a node of that kind, or ask for fewer. Preemption helps only
    against pods of lower priority.

    ## References

    - https://kubernetes.io/docs/tasks/manage-gpus/scheduling-gpus/
    - https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/
    """
    yield from refused_for("gpu-insufficient", pod, subject)
    yield from told("gpu-insufficient", pod, subject)
    found = cause(pending, "gpu-insufficient") if pending else None
    if pending is None or found is None:
        return
    asked = pending.requests.get(found.resource, 0)
    frees = {v.node.name: r.free or 0 for v in found.verdicts if (r := v.lacking(found.resource))}
    summary = f"It asks for {asked or 'some'} {found.resource}; {nodes_said(found)} could run it"
    if frees:
        most = max(frees.values())
        summary += f", and {f'at most {most} are free on one node' if most else 'none is free there'}."
    else:
        summary += " and have too few free, by the scheduler's count."
    evidence = [*asked_in(pending, found.resource), *node_lines(pending, found, holders=True), *scaling_lines(pending)]
    yield finding(pending, found, summary, evidence, _fixes(pending, found))


def _fixes(pending: Pending, found: Cause) -> Iterator[Fix]:
    offered = [*ways(pending, found), *one_more(pending, found)]
    yield from offered or [
        fixes.advice("Free GPUs, or add a node with GPUs", "kubectl get pods -A -o wide", owner="platform")
    ]
