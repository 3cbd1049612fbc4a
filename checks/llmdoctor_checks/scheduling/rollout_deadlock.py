"""The new pod waits for the GPU of the pod that waits for it."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Finding, Pending, Workload, check, dig, fixes, workload_evidence
from llmdoctor_checks.scheduling._holders import second_cluster
from llmdoctor_checks.scheduling._obstacles import Cause
from llmdoctor_checks.scheduling._repairs import old_first
from llmdoctor_checks.scheduling._separation import cause
from llmdoctor_checks.scheduling._words import asked_in, finding, node_lines


@check("rollout-deadlock", since="0.1")
def rollout_deadlock(pending: Pending) -> Iterator[Finding]:
    """A rolling update starts the new pod before it stops the old one, and the old one has the last GPU.

    A Deployment updates by default with `maxSurge: 25%`, rounded up, and `maxUnavailable: 25%`, rounded down: with
    fewer than four replicas it first adds a pod and removes no old one until the new one is ready. On a full GPU pool
    the new pod waits for the GPUs of the old one forever; the old one serves on.

    A RayService makes a second cluster beside the one that serves, and takes the first away when the second serves: on nodes
    that one cluster fills the second waits forever.

    ## Fix

    Let the old pod go first: `maxSurge: 0` with `maxUnavailable: 1`, or the strategy `Recreate`. The model is then
    away while the new pod loads, unless there are further replicas.

    ## References

    - https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#rolling-update-deployment
    """
    found, workload = cause(pending, "rollout-deadlock"), pending.subject.workload
    if found is None or workload is None:
        return
    if clusters := second_cluster(pending):
        yield _beside(pending, found, workload, *clusters)
        return
    held = ", ".join(f"{h.pod.metadata.name} ({h.requests.get(found.resource, 0)})" for h in found.holders)
    asked = pending.requests.get(found.resource, 0)
    summary = (
        f"The rollout of {workload.ref} adds this pod before it removes an old one; "
        f"it asks for {asked} {found.resource}, which it would get if the old {'pods' if len(found.holders) > 1 else 'pod'} "
        f"were gone: {held}."
    )
    update = dig(workload.raw, "spec.strategy.rollingUpdate")
    surge = (
        ", ".join(f"{k}: {v}" for k, v in sorted(update.items())) if isinstance(update, dict) else "the default, 25%"
    )
    evidence = [
        workload_evidence(workload, "spec.strategy.rollingUpdate", surge),
        workload_evidence(workload, "spec.replicas", str(workload.replicas)),
        *asked_in(pending, found.resource),
        *node_lines(pending, found, holders=True),
    ]
    fix = old_first(pending, workload, tuple(h.ref for h in found.holders))
    yield finding(pending, found, summary, evidence, [fix], ("gpu-insufficient",))


def _beside(pending: Pending, found: Cause, workload: Workload, old: str, new: str) -> Finding:
    """A RayService's second cluster, which has no room beside the first."""
    held = sum(h.requests.get(found.resource, 0) for h in found.holders)
    asked = pending.requests.get(found.resource, 0)
    summary = (
        f"The update of {workload.ref} makes the cluster {new} beside {old} and removes that only when {new} serves; this pod asks "
        f"for {asked} {found.resource}, and {old} has {held} where it could run."
    )
    evidence = [
        workload_evidence(workload, "status.activeServiceStatus.rayClusterName", old),
        workload_evidence(workload, "status.pendingServiceStatus.rayClusterName", new),
        *asked_in(pending, found.resource),
        *node_lines(pending, found, holders=True),
    ]
    ways = [
        fixes.platform(f"Add nodes for a second cluster for as long as the update of {workload.ref} takes"),
        fixes.advice(
            f"Where there is room for one only: set spec.upgradeStrategy.type: None in {workload.ref} (KubeRay from 1.3 on), and delete "
            "and apply it again to change it; the model is away meanwhile"
        ),
    ]
    return finding(pending, found, summary, evidence, ways, ("gpu-insufficient",))
