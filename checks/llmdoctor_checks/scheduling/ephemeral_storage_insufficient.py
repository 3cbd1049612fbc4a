"""Ephemeral storage does not fit."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Finding, Fix, Pending, Pod, Subject, check, fixes, say_amount
from llmdoctor_checks.scheduling._admission import refused_for
from llmdoctor_checks.scheduling._karpenter import pools
from llmdoctor_checks.scheduling._larger import larger_disk
from llmdoctor_checks.scheduling._obstacles import Cause
from llmdoctor_checks.scheduling._repairs import ways
from llmdoctor_checks.scheduling._separation import cause
from llmdoctor_checks.scheduling._words import asked_in, finding, node_lines, nodes_said


@check("ephemeral-storage-insufficient", since="0.1")
def ephemeral_storage_insufficient(pod: Pod, pending: Pending | None, subject: Subject) -> Iterator[Finding]:
    """The nodes that could run the pod lack the ephemeral storage that it requests.

    `ephemeral-storage` is the node's own disk: image layers that containers write to, logs, and emptyDir volumes, such
    as a model cache. A request that is larger than the disk of any node never fits.

    ## Fix

    Request what the pod really writes, and keep model files on a PersistentVolumeClaim, or give the nodes larger disks.

    ## References

    - https://kubernetes.io/docs/concepts/storage/ephemeral-storage/
    """
    yield from refused_for("ephemeral-storage-insufficient", pod, subject)
    found = cause(pending, "ephemeral-storage-insufficient")
    if not pending or not found:
        return
    asked = say_amount("ephemeral-storage", pending.requests.get("ephemeral-storage", 0))
    summary = f"It requests {asked} of ephemeral storage; {nodes_said(found)} could run it"
    free = [r.free or 0 for r in found.reasons]
    summary += f", and at most {say_amount('ephemeral-storage', max(free))} is free." if free else " and have less."
    evidence = [*asked_in(pending, "ephemeral-storage"), *node_lines(pending, found)]
    yield finding(pending, found, summary, evidence, _fixes(pending, found))


def _fixes(pending: Pending, found: Cause) -> Iterator[Fix]:
    asked = pending.requests.get("ephemeral-storage", 0)
    disk = larger_disk(pending, _pool_said(pending))
    # what asks for far more than there is would fill the disk
    far = max((r.allocatable or 0 for r in found.reasons), default=asked) < asked / 2
    if disk and far:
        yield disk
    yield from ways(pending, found)
    if disk and not far:
        yield disk
    yield fixes.advice(
        f"Keep model files on a PersistentVolumeClaim instead of the node's disk ({fixes.edited(pending.pod)})"
    )


def _pool_said(pending: Pending) -> str:
    """The pool of which Karpenter says that none of its machines holds the pod."""
    said = (pool for event in reversed(pending.scaling) for pool in pools(event.message))
    return next((p.name for p in said if p.typed and p.name and "ephemeral-storage" in p.asked), "")
