"""Pods that are being deleted and do not go keep GPUs."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    GIB,
    Cluster,
    Events,
    Evidence,
    Finding,
    Fix,
    Hardware,
    Holder,
    Node,
    Pending,
    Pod,
    Process,
    Subject,
    check,
    endings,
    event_evidence,
    fixes,
    holder_of,
    is_gone,
    k8s,
    node_evidence,
    parse_time,
    pod_evidence,
    say_bytes,
    say_devices,
    say_seconds,
    usage_of,
)
from llmdoctor_checks._consequences import CRASHED
from llmdoctor_checks.hardware._gpu import CONSEQUENCES
from llmdoctor_checks.scheduling._admission import Refusal, kept, plugin_evidence, refusal, replaced, was_scheduled
from llmdoctor_checks.scheduling._obstacles import Cause
from llmdoctor_checks.scheduling._repairs import Change, tried
from llmdoctor_checks.scheduling._separation import cause
from llmdoctor_checks.scheduling._words import asked_in, finding, node_lines

#: What takes a finalizer away does so within seconds of the end.
_GOES_SECONDS = 120
#: The kubelet gives up for the first time after two minutes, in which not all that holds much pinned memory has ended.
_CANNOT_SECONDS = 600


@check("gpu-held-by-dead-pod", since="0.1")
def gpu_held_by_dead_pod(
    pod: Pod,
    pending: Pending | None,
    hardware: Hardware | None,
    node: Node | None,
    subject: Subject,
    cluster: Cluster,
    events: Events | None,
) -> Iterator[Finding]:
    """GPUs are kept by pods that should have been gone long ago.

    A pod that is being deleted counts until it is gone. When its grace period is over and it is still Terminating,
    something holds it: a finalizer, a process in the kernel that cannot be killed, a volume that does not unmount, or
    a node that does not answer. Until then its GPUs are taken for the scheduler.

    A process can outlive its pod, too: the scheduler then counts the GPU as free, and who comes next finds its memory taken.

    And the kubelet can keep in its record of devices a pod that is gone, usually one that was deleted by force while it was being
    made: it refuses every further pod ("requested number of devices unavailable") although the scheduler counts the GPU as free.

    A pod of a StatefulSet that has ended and cannot go keeps its name as well: there is no other until it is gone. Nor is there
    where the kubelet says that it cannot end it: a process that waits in the kernel, usually in a driver or for a file server, does
    not take the signal.

    ## Fix

    Find out what holds it: `metadata.finalizers`, the node's state, the kubelet's log. Remove a finalizer whose
    controller is gone; restart a node whose GPU process hangs. Deleting with force frees the GPUs for the scheduler
    only: make sure that no process is left on the GPU. A kubelet that counts pods of the past counts again when it is restarted.

    ## References

    - https://kubernetes.io/docs/tasks/run-application/force-delete-stateful-set-pod/
    - https://kubernetes.io/docs/concepts/overview/working-with-objects/finalizers/
    """
    if hardware:
        yield from _left_behind(pod, hardware)
    yield from _name_kept(pod)
    if events and not replaced(subject):
        yield from _unkillable(pod, events)
    refused = refusal(pod, node)
    if refused and node and (alike := kept(pod, refused, node, cluster)):
        yield _still_counted(pod, refused, node, alike, cluster)
        return
    found = cause(pending, "gpu-held-by-dead-pod")
    if pending is None or found is None or not found.holders:
        return
    held = ", ".join(
        f"{h.ref} on {h.pod.spec.node_name} ({h.requests.get(found.resource, 0)} {found.resource}{_age(pending, h)})"
        for h in found.holders
    )
    asked = pending.requests.get(found.resource, 0)
    summary = f"It asks for {asked or 'some'} {found.resource}; these would be free if {held} were gone."
    evidence = [*(_quote(h) for h in found.holders), *asked_in(pending, found.resource)]
    yield finding(
        pending,
        found,
        summary,
        [*evidence, *node_lines(pending, found, holders=True)],
        _fixes(pending, found),
        ("gpu-insufficient",),
    )


def _name_kept(pod: Pod) -> Iterator[Finding]:
    """A pod of a StatefulSet that was deleted and has ended, and which only finalizers keep: there cannot be another of its name."""
    meta, statuses = pod.obj.metadata, pod.obj.status.container_statuses
    seconds = pod.cluster.seconds_since(meta.deletion_timestamp)
    owner = next((owner for owner in meta.owner_references if owner.controller), None)
    ended = bool(statuses) and all(status.state.terminated for status in statuses)
    if not meta.finalizers or not ended or seconds is None or owner is None or owner.kind != "StatefulSet":
        return
    if seconds < _GOES_SECONDS:
        return
    yield Finding(
        summary=f"{pod.name} has ended and should have been gone for {say_seconds(seconds)}, but the finalizer "
        f"{', '.join(meta.finalizers)} keeps it; StatefulSet/{owner.name} can make no other of that name before it is gone.",
        evidence=(
            pod_evidence(
                pod,
                "metadata",
                f"deletionTimestamp: {meta.deletion_timestamp}, finalizers: {', '.join(meta.finalizers)}",
            ),
            pod_evidence(pod, "status", f"phase: {pod.obj.status.phase}"),
        ),
        explains=(*CRASHED, "pod-pending"),
        fix=_fix_of(pod.obj),
    )


def _unkillable(pod: Pod, events: Events) -> Iterator[Finding]:
    """A pod that is to go, and whose processes the kubelet cannot end."""
    until = parse_time(pod.obj.metadata.deletion_timestamp)
    seconds = pod.cluster.seconds_since(until) or 0.0
    told = [e for e in events.of("FailedKillPod") if e.name == pod.name and e.last and until and e.last > until]
    running = any(status.state.running for status in pod.obj.status.container_statuses)
    again = seconds >= _CANNOT_SECONDS or sum(e.count for e in told) > 1
    if seconds < _GOES_SECONDS or not told or not again or not running or not pod.accelerators:
        return
    where = pod.spec.node_name or "its node"
    held = say_devices(pod.accelerators)
    yield Finding(
        summary=f"{pod.name} should have been gone for {say_seconds(seconds)}, and the kubelet of {where} cannot end it; it keeps {held}.",
        evidence=(
            event_evidence(told[-1], pod.cluster),
            pod_evidence(pod, "metadata", f"deletionTimestamp: {pod.obj.metadata.deletion_timestamp}"),
        ),
        explains=(*CRASHED, "rollout-stuck"),
        fixes=(
            fixes.platform(
                f"See what its processes wait for on {where} (state D; the kernel's log, Xids), and reboot the node where they do not end",
                fixes.on_node(where, "ps -eo pid,stat,wchan:30,args"),
            ),
            _fix_of(pod.obj),
        ),
    )


def _still_counted(pod: Pod, refused: Refusal, node: Node, alike: tuple[k8s.Pod, ...], cluster: Cluster) -> Finding:
    """The kubelet's record of devices has pods that are gone."""
    times = sorted(one.status.start_time or "" for one in alike)
    holders = [h for h in usage_of(cluster).holders(node.name) if h.requests.get(refused.resource)]
    whole = cluster.complete_on(node.name)
    unheld = "held by no pod" if whole else "free for the scheduler"
    held = f"held by {', '.join(h.ref for h in holders[:4])}" if holders else unheld
    return Finding(
        confidence="likely" if whole or was_scheduled(pod) else "possible",
        summary=f"The kubelet of {node.name} counts {refused.resource} as taken "
        f"that {'no pod holds' if whole else 'the scheduler counts as free'}: it refused {len(alike)} pods "
        f"from {times[0]} to {times[-1]}, while its device plugin runs and all devices are allocatable.",
        evidence=(
            pod_evidence(pod, "status", refused.text),
            node_evidence(node, f"status.allocatable {refused.resource}: {node.allocatable(refused.resource)}, {held}"),
            *plugin_evidence(cluster, node.name),
        ),
        explains=("pod-failed", "not-ready", "rollout-stuck", "device-plugin-not-ready"),
        fix=fixes.platform(
            f"Restart the kubelet of {node.name}, which rebuilds its record of devices; then delete the refused pods",
            fixes.on_node(node.name, "systemctl restart kubelet"),
            f"kubectl -n {pod.namespace} delete pod {pod.name}",
        ),
    )


def _left_behind(pod: Pod, hardware: Hardware) -> Iterator[Finding]:
    """A process whose pod is gone, on a GPU that this pod was given."""
    if not any(endings(pod)):
        return
    for device in hardware.mine:
        left = [p for p in device.all_processes if (p.used_bytes or 0) >= GIB and _outlived(hardware, p)]
        if not left:
            continue
        pids = " ".join(str(p.pid) for p in left if p.pid)
        yield Finding(
            # the pod may have ended of something else
            summary=f"{device.title} of {hardware.node} was given to this pod while "
            + ", ".join(
                f"process {p.pid} of {holder_of(hardware, p)} still holds {say_bytes(p.used_bytes or 0)} of it"
                for p in left
            )
            + ".",
            evidence=tuple(
                hardware.evidence(
                    device, "processes", f"pid: {p.pid}, name: {p.name}, podUid: {p.pod_uid}, usedBytes: {p.used_bytes}"
                )
                for p in left
            ),
            explains=(
                "gpu-memory-shared",
                "cuda-oom-weights",
                "cuda-oom-profile",
                "cuda-oom-runtime",
                "kv-cache-no-room",
                "kv-cache-below-max-len",
                "gpu-memory-utilization-high",
                *CONSEQUENCES,
            ),
            fix=fixes.platform(
                f"End what was left behind on {hardware.node}: process {pids}; one that cannot be killed needs a reboot",
                fixes.on_node(hardware.node, f"kill -9 {pids}"),
            ),
        )
        return


def _outlived(hardware: Hardware, process: Process) -> bool:
    """Whether a process is left of a pod that is gone, or of an instance of this pod, of which none runs."""
    own = process.pod_uid == hardware.pod.obj.metadata.uid != "" and not hardware.runs and hardware.seen_since_end
    return own or is_gone(hardware, process)


def _age(pending: Pending, holder: Holder) -> str:
    seconds = pending.pod.cluster.seconds_since(holder.pod.metadata.deletion_timestamp)
    return f", Terminating for {say_seconds(seconds)} beyond its grace period" if seconds is not None else ""


def _quote(holder: Holder) -> Evidence:
    meta = holder.pod.metadata
    text = f"deletionTimestamp: {meta.deletion_timestamp}, phase: {holder.pod.status.phase}"
    if meta.finalizers:
        text += f", finalizers: {', '.join(meta.finalizers)}"
    return Evidence(source="pod", ref=f"{holder.ref} metadata", text=text)


def _fixes(pending: Pending, found: Cause) -> Iterator[Fix]:
    """Each alone where that suffices, else one after the other."""
    for holder in found.holders:
        made = _fix_of(holder.pod)
        yield tried(pending, Change(text=made.summary, gone=(holder.ref,), fix=made)) or made


def _fix_of(pod: k8s.Pod) -> Fix:
    meta = pod.metadata
    ref = f"{meta.namespace or 'default'}/{meta.name}"
    where = f"-n {meta.namespace or 'default'}"
    if meta.finalizers:
        text = f"Remove the finalizer of {ref}, if its controller is gone: {', '.join(meta.finalizers)}"
        patch = '{"metadata":{"finalizers":null}}'
        return fixes.platform(text, f"kubectl {where} patch pod {meta.name} --type=merge -p '{patch}'")
    text = f"Make sure that no process of {ref} is left on {pod.spec.node_name}, then remove it"
    command = f"kubectl {where} delete pod {meta.name} --force --grace-period=0"
    return fixes.platform(text, command)
