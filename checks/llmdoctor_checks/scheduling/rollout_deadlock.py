"""The new pod waits for the GPU of the pod that waits for it."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Finding, Pending, check, dig, workload_evidence
from llmdoctor_checks.scheduling._repairs import old_first
from llmdoctor_checks.scheduling._separation import cause
from llmdoctor_checks.scheduling._words import asked_in, finding, node_lines


@check("rollout-deadlock", since="0.1")
def rollout_deadlock(pending: Pending) -> Iterator[Finding]:
    """A rolling update starts the new pod before it stops the old one, and the old one has the last GPU.

    A Deployment updates by default with `maxSurge: 25%`, rounded up, and `maxUnavailable: 25%`, rounded down: with
    fewer than four replicas it first adds a pod and removes no old one until the new one is ready. On a full GPU pool
    the new pod waits for the GPUs of the old one for ever; the old one serves on.

    ## Fix

    Let the old pod go first: `maxSurge: 0` with `maxUnavailable: 1`, or the strategy `Recreate`. The model is then
    away while the new pod loads, unless there are further replicas.

    ## References

    - https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#rolling-update-deployment
    """
    found, workload = cause(pending, "rollout-deadlock"), pending.subject.workload
    if found is None or workload is None:
        return
    held = ", ".join(f"{h.pod.metadata.name} ({h.requests.get(found.resource, 0)})" for h in found.holders)
    asked = pending.requests.get(found.resource, 0)
    summary = (
        f"The rollout of {workload.ref} adds this pod before it removes an old one; "
        f"it asks for {asked} {found.resource}, and the old {held} has what it would need."
    )
    strategy = dig(workload.raw, "spec.strategy")
    update = strategy.get("rollingUpdate") if isinstance(strategy, dict) else None
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
