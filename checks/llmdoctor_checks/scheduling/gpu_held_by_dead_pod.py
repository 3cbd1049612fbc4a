"""Pods that are being deleted and do not go keep GPUs."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Evidence, Finding, Fix, Holder, Pending, check, fixes, parse_time, say_seconds
from llmdoctor_checks.scheduling._repairs import Change, tried
from llmdoctor_checks.scheduling._separation import Cause, cause
from llmdoctor_checks.scheduling._words import asked_in, finding, node_lines


@check("gpu-held-by-dead-pod", since="0.1")
def gpu_held_by_dead_pod(pending: Pending) -> Iterator[Finding]:
    """GPUs are kept by pods that should have been gone long ago.

    A pod that is being deleted counts until it is gone. When its grace period is over and it is still Terminating,
    something holds it: a finalizer, a process in the kernel that cannot be killed, a volume that does not unmount, or
    a node that does not answer. Until then its GPUs are taken for the scheduler.

    ## Fix

    Find out what holds it: `metadata.finalizers`, the node's state, the kubelet's log. Remove a finalizer whose
    controller is gone; restart a node whose GPU process hangs. Deleting with force frees the GPUs for the scheduler
    only: make sure that no process is left on the GPU.

    ## References

    - https://kubernetes.io/docs/tasks/run-application/force-delete-stateful-set-pod/
    - https://kubernetes.io/docs/concepts/overview/working-with-objects/finalizers/
    """
    found = cause(pending, "gpu-held-by-dead-pod")
    if found is None or not found.holders:
        return
    held = ", ".join(
        f"{h.ref} on {h.pod.spec.node_name} ({h.requests.get(found.resource, 0)} {found.resource}{_age(pending, h)})"
        for h in found.holders
    )
    asked = pending.requests.get(found.resource, 0)
    summary = f"It asks for {asked} {found.resource}; these would be free if {held} were gone."
    evidence = [*(_quote(h) for h in found.holders), *asked_in(pending, found.resource)]
    yield finding(
        pending,
        found,
        summary,
        [*evidence, *node_lines(pending, found, holders=True)],
        _fixes(pending, found),
        ("gpu-insufficient",),
    )


def _age(pending: Pending, holder: Holder) -> str:
    now, end = pending.pod.cluster.now, parse_time(holder.pod.metadata.deletion_timestamp)
    return (
        f", Terminating for {say_seconds((now - end).total_seconds())} beyond its grace period" if now and end else ""
    )


def _quote(holder: Holder) -> Evidence:
    meta = holder.pod.metadata
    text = f"deletionTimestamp: {meta.deletion_timestamp}, phase: {holder.pod.status.phase}"
    if meta.finalizers:
        text += f", finalizers: {', '.join(meta.finalizers)}"
    return Evidence(source="pod", ref=f"{holder.ref} metadata", text=text)


def _fixes(pending: Pending, found: Cause) -> Iterator[Fix]:
    """Each alone where that suffices, else one after the other."""
    for holder in found.holders:
        made = _fix(holder)
        yield tried(pending, Change(text=made.summary, gone=(holder.ref,), fix=made)) or made


def _fix(holder: Holder) -> Fix:
    meta = holder.pod.metadata
    where = f"-n {meta.namespace or 'default'}"
    if meta.finalizers:
        text = f"Remove the finalizer of {holder.ref}, if its controller is gone: {', '.join(meta.finalizers)}"
        patch = '{"metadata":{"finalizers":null}}'
        return fixes.advice(text, f"kubectl {where} patch pod {meta.name} --type=merge -p '{patch}'", owner="platform")
    text = f"Make sure that no process of {holder.ref} is left on {holder.pod.spec.node_name}, then remove it"
    command = f"kubectl {where} delete pod {meta.name} --force --grace-period=0"
    return fixes.advice(text, command, owner="platform")
