"""Pods that had to make room."""

import shlex
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Events,
    Finding,
    Fix,
    Node,
    Pod,
    Subject,
    check,
    condition_evidence,
    dig,
    expression,
    fixes,
    parse_time,
)
from llmdoctor_checks.scheduling._disruption import BY_KUEUE, CONSEQUENCES, lost, taken
from llmdoctor_checks.scheduling._kueue import workloads

#: The highest value of a class that a person may make, and the name of one.
_MOST, _OWN = 1_000_000_000, "model-serving"
#: Classes of what a distribution runs itself.
_OF_THE_CLUSTER = ("openshift-", "system-")
#: KAI's own class for what serves: from 100 on nothing is preempted, within the quota of its queue.
_OF_KAI = ("inference", 125)
#: Kueue takes the quota back within moments of the word that it will.
_SAME_SECONDS = 60


@check("pod-preempted", since="0.1")
def pod_preempted(
    pod: Pod, subject: Subject, cluster: Cluster, events: Events | None, node: Node | None
) -> Iterator[Finding]:
    """The pod had to make room for one of higher priority.

    The scheduler deletes running pods of lower priority when a pod of higher priority fits nowhere else; the kubelet does
    so for critical system pods. The victim gets its termination grace period and is then gone. In a group of pods (a
    LeaderWorkerSet, a Ray cluster) the loss of one ends the whole replica, and the others report only a broken connection.

    Kueue takes the quota of a whole job for one of higher priority, or for a queue that has lent it: the job is suspended, its
    pods are deleted (those that a StatefulSet or a Deployment recreates wait at Kueue's gate), and its Workload says for
    whom. That it finds no quota since is the other side of it.

    ## Fix

    Give the server a PriorityClass above that of batch jobs, or one with `preemptionPolicy: Never` to those. Quotas (Kueue,
    ResourceQuota by priority) keep both within their share.

    ## References

    - https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/
    """
    if (not pod.exists or pod.unscheduled) and (evicted := _by_kueue(pod, subject, cluster)):
        yield evicted
        return
    found = taken(pod, subject, events, node)
    if found is None or found.kind != "preempted":
        return
    priority = pod.spec.priority_class_name or "none"
    yield lost(
        found,
        f"{pod.name} was removed from {pod.spec.node_name or 'its node'} to make room for another pod: {found.why}",
        _above_in_kueue(pod) if found.why.startswith(BY_KUEUE) else _above(pod, events, priority, found.why),
    )


#: The kubelet's word for a pod of the node itself, above which no class of a person's is.
_CRITICAL = "critical pod"


#: How a scheduler names who took the place: by name, or by uid.
_BY_WHOM = expression(r"[Pp]reempted by (?:pod )?(?:[\w.-]{1,63}/)?(?P<who>[\w.-]{1,253})")


def _priority_of_others(pod: Pod, events: Events | None, why: str) -> int:
    """The priority of who took the place, as far as such pods are known; 0 where none is."""
    texts = (why, *(e.message for e in (events.of("Preempted") if events else ()) if e.name == pod.name))
    named = {hit["who"] for text in texts if (hit := _BY_WHOM.search(text))}
    there = (
        item
        for item in pod.cluster.items("Pod")
        if {item.uid, item.name} & named
        or (pod.spec.node_name and dig(item.raw, "spec.nodeName") == pod.spec.node_name and item.name != pod.name)
    )
    known = [value for item in there if isinstance(value := dig(item.raw, "spec.priority"), int)]
    return max((value for value in known if value <= _MOST), default=0)


def _above(pod: Pod, events: Events | None, priority: str, why: str) -> Fix:
    """What keeps a pod from making room: the least class that is not below the others', which is there or is made."""
    if _CRITICAL in why:
        node = pod.spec.node_name or "its node"
        return fixes.platform(
            f"Leave room on {node} for the pods of the node itself, above which no PriorityClass is: request less there, or reserve it for "
            "them (systemReserved of the kubelet)",
            fixes.pods_on(node),
        )
    if "because of reclaim" in why:
        queue = pod.annotations.get("scheduling.volcano.sh/queue-name") or "default"
        return fixes.platform(
            f"Let nobody take back what queue {queue} has (spec.reclaimable: false), or raise its deserved share by what it asks for",
            f'kubectl patch queues.scheduling.volcano.sh {shlex.quote(queue)} --type=merge -p \'{{"spec":{{"reclaimable":false}}}}\'',
        )
    own, others = pod.spec.priority or 0, _priority_of_others(pod, events, why)
    known = {
        i.name: v
        for i in pod.cluster.items("PriorityClass")
        if isinstance(v := i.raw.get("value"), int) and max(own + 1, others) <= v <= _MOST
        if not i.name.startswith(_OF_THE_CLUSTER)
    }
    # above whom it must be is known only where such pods are: else above all that may be
    name = (min if others > own else max)(known, key=lambda one: (known[one], one), default="")
    if not name and pod.spec.scheduler_name == "kai-scheduler" and own < _OF_KAI[1]:
        name, known = _OF_KAI[0], dict([_OF_KAI])
    text = f"Give it PriorityClass {name or _OWN}" + (f" ({known[name]})" if name else " (made below)")
    text += f", above that of the pods that may wait (priorityClassName in {fixes.edited(pod)}, now {priority})"
    made = fixes.set_spec(pod, "/priorityClassName", name or _OWN, text)
    value = max(1_000_000, others)
    command = f"kubectl create priorityclass {_OWN} --value={value} --description='models that serve'"
    commands = ("kubectl get priorityclasses", *(() if name else (command,)), *made.commands)
    return Fix(summary=made.summary, owner=made.owner, commands=commands, patch=made.patch)


def _above_in_kueue(pod: Pod, *commands: str) -> Fix:
    """What lets a pod stay that Kueue took away, which goes by a priority of its own where the label names one."""
    return fixes.platform(
        "Give it a WorkloadPriorityClass above that of the jobs that may wait (label kueue.x-k8s.io/priority-class in "
        f"{fixes.edited(pod)}; without it Kueue goes by priorityClassName), or more quota of its own",
        "kubectl get workloadpriorityclasses.kueue.x-k8s.io",
        *commands,
    )


def _by_kueue(pod: Pod, subject: Subject, cluster: Cluster) -> Finding | None:
    """A job whose quota Kueue gave to another, and that has had none since: it lost it by that, at the same time."""
    for workload in workloads(subject, cluster):
        evicted, waits = workload.condition("Preempted", "True"), workload.condition("QuotaReserved", "False")
        if evicted is None or waits is None or not evicted.message:
            continue
        lost, went = parse_time(waits.last_transition_time), parse_time(evicted.last_transition_time)
        same = lost is not None and went is not None and abs((lost - went).total_seconds()) <= _SAME_SECONDS
        if not same and waits.message != evicted.message:
            continue
        name = subject.workload.ref if subject.workload else workload.name
        return Finding(
            confidence="certain",
            summary=f"Kueue has taken the quota of {name} to make room for another job: {evicted.message}",
            evidence=(condition_evidence(workload, evicted), condition_evidence(workload, waits)),
            explains=(*CONSEQUENCES, "scheduling-gated", "pod-pending", "quota-exceeded"),
            fix=_above_in_kueue(
                pod, f"kubectl -n {workload.namespace} get workloads.kueue.x-k8s.io {workload.name} -o yaml"
            ),
        )
    return None
