"""Ephemeral storage does not fit."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Finding, Fix, Pending, Pod, Subject, check, fixes, say_amount
from llmdoctor_checks.scheduling._admission import refused_for
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
    found = cause(pending, "ephemeral-storage-insufficient") if pending else None
    if not pending or not found:
        return
    asked = say_amount("ephemeral-storage", pending.requests.get("ephemeral-storage", 0))
    summary = f"It requests {asked} of ephemeral storage; {nodes_said(found)} could run it"
    free = [r.free or 0 for r in found.reasons]
    summary += f", and at most {say_amount('ephemeral-storage', max(free))} is free." if free else " and have less."
    evidence = [*asked_in(pending, "ephemeral-storage"), *node_lines(pending, found)]
    yield finding(pending, found, summary, evidence, _fixes(pending, found))


def _fixes(pending: Pending, found: Cause) -> Iterator[Fix]:
    yield from ways(pending, found)
    yield fixes.advice(
        f"Keep model files on a PersistentVolumeClaim instead of the node's disk ({fixes.edited(pending.pod)})"
    )
