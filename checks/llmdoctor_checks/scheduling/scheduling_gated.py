"""Somebody holds the pod back on purpose."""

import re
import shlex
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import (
    KUEUE_QUEUE,
    PART_OF,
    WORKER_SET,
    Cluster,
    Evidence,
    Finding,
    Fix,
    Item,
    Pod,
    Subject,
    check,
    condition_evidence,
    dig,
    event_evidence,
    events_of,
    fixes,
    is_state_taint,
    k8s,
    node_evidence,
    object_evidence,
    parse_time,
    pod_evidence,
    rows,
)
from llmdoctor_checks.scheduling._kueue import (
    GROUP,
    TOTAL,
    LeftOut,
    at_once,
    cluster_queue,
    fewer,
    gone,
    left_out,
    left_over,
    local_queue,
    of_nodes,
    requested,
    workloads,
)
from llmdoctor_checks.scheduling._raising import shown_queue
from llmdoctor_checks.scheduling._words import EXPLAINS, sentence

#: Who sets and lifts a gate, by the domain in its name.
_KEEPERS = {
    "kueue.x-k8s.io": "Kueue",
    "grove.io": "Grove",
    "karpenter.sh": "Karpenter",
    "instaslice": "The InstaSlice operator",
    "jobset": "JobSet",
}
_SLICE = "kueue.x-k8s.io/podset-slice-size"

#: What a ProvisioningRequest passes on of a cloud that has no such machine now.
_NO_MACHINES = (
    r"(?i)STOCKOUT|out of resources|RESOURCE_POOL_EXHAUSTED|insufficient ?(?:instance ?)?capacity|not enough resources"
)

#: What to do about what Kueue says (pkg/controller/core/workload_controller.go, pkg/cache/scheduler/tas_flavor_snapshot.go).
_ADVICE = (
    (
        r"(LocalQueue|ClusterQueue) (\S+) is (?:inactive|stopped)",
        "See why the {0} {1} takes no workloads: its condition Active, its stopPolicy, its flavors",
    ),
    (
        r"waiting for admission checks?: ([\w., -]{1,200})",
        "See what the admission check {0} waits for (a ProvisioningRequest, another cluster): its controller says so at its object",
    ),
    (
        r"couldn't assign flavors to pod set .{0,400}?flavor (\S+) not found",
        "Make the ResourceFlavor {0}, which the ClusterQueue names, with spec.nodeLabels of its nodes, or correct its name there",
    ),
    (
        r"workload is deactivated",
        "Set spec.active of Kueue's Workload to true again when what its condition Evicted names is fixed (pods that are not ready in "
        "time: what their events and logs say, or Kueue's waitForPodsReady.timeout); where it names nothing, somebody set it to false",
    ),
    (
        r"no topology domains at level: (\S+)",
        "Give the nodes all labels that the flavor's Topology names, not only {0}: without one of them Kueue knows no domain",
    ),
    # what GKE's autoscaler answers to a ProvisioningRequest
    (
        r"Max nodepool size reached, affected nodepools: ([\w., -]{1,300})",
        "Raise the maximum size of the node pool {0}, or let what runs there end: its nodes go some minutes later, and Kueue tries again "
        "as often as retryStrategy of the ProvisioningRequestConfig allows",
    ),
    (
        r"(Max nodepool size reached)",
        "Raise the maximum size of the node pool that the admission check asks for nodes ({0}), or let what runs there end; Kueue tries "
        "again as often as retryStrategy of the ProvisioningRequestConfig allows, and again when its Workload is deleted",
    ),
    (
        r"pods cannot be scheduled in the nodepool(?:, affected nodepools: |\. Predicate checking errors: )([^;]{1,300})",
        "Ask in the pod template only for what a new node of the pool has, or give its ResourceFlavor labels and tolerations that fit; "
        "volumes that are made with the pod and devices of other plugins count ({0})",
    ),
    (
        r'Flavor "([^"]+)" does not support TopologyAwareScheduling',
        "Give the flavor {0} a topologyName, or take the annotation kueue.x-k8s.io/podset-…-topology from the pods",
    ),
)

#: A queue that is not there, and a flavor that a queue names.
_ABSENT = r"(?P<kind>LocalQueue|ClusterQueue) (?P<name>[^\s.]\S{0,252}) doesn't exist"
_OTHER_NAMESPACES = r"[Ww]orkload namespace doesn't match ClusterQueue selector"
_NO_FLAVOR = r"references missing ResourceFlavors?(?:\(s\))?: (?P<names>[\w., -]{1,400})"

#: The same where the pod's template is to be changed.
_OF_THE_POD = (
    (
        r"untolerated taint \{(\S+) [^}]{0,300}\} in flavor (\S+)",
        "Tolerate {0} in the pod template, or have the ResourceFlavor {1} add the toleration itself (spec.tolerations)",
    ),
    (
        r"flavor (\S+) doesn't match node affinity",
        "Select in the pod template what the labels of a flavor of the queue are (spec.nodeLabels of {0}), or name another queue",
    ),
    (
        r'topology "([^"]+)" (?:allows to fit only|doesn\'t allow to fit)',
        "Name a wider level of the Topology {0} in the annotation kueue.x-k8s.io/podset-required-topology of the pods, or prefer one "
        "(podset-preferred-topology) instead; else free nodes within one domain of the level that is required",
    ),
    (
        r'Flavor "([^"]+)" supports only TopologyAwareScheduling',
        "Ask for a topology in the pod template, by the annotation kueue.x-k8s.io/podset-preferred-topology with a level of flavor {0}'s "
        "Topology (usually kubernetes.io/hostname): it takes no workload without",
    ),
    (
        r'Flavor "([^"]+)" does not contain the requested level',
        "Name a level of the Topology of flavor {0} in the annotation kueue.x-k8s.io/podset-…-topology of the pods",
    ),
)


@check("scheduling-gated", since="0.1")
def scheduling_gated(subject: Subject, cluster: Cluster) -> Iterator[Finding]:
    """The pod is not given to the scheduler: a gate is closed, or its job is suspended.

    A pod with `schedulingGates` waits until the controller that set them removes them: a queue (Kueue), a gang
    controller (Grove), a quota or capacity system. Kueue holds jobs back by suspending them, so that no pod exists.
    The gate is kept for a reason that the controller knows: no quota left, no fitting topology, a group that is not
    complete, or the controller does not run.

    ## Fix

    Ask the controller that set the gate why it does not open it: its Workload, PodGroup or PodGang, its log. Do not
    remove a gate by hand unless that controller is gone.

    ## References

    - https://kubernetes.io/docs/concepts/scheduling-eviction/pod-scheduling-readiness/
    - https://kueue.sigs.k8s.io/docs/tasks/troubleshooting/
    """
    gated = [p for p in subject.pods if p.unscheduled and p.spec.scheduling_gates]
    item = subject.workload.item if subject.workload else subject.item
    held = item and not subject.exists and not subject.static and _suspended(item) and _queue(item)
    if not gated and not held:
        return
    queued = list(workloads(subject, cluster))
    said = [e for w in queued for e in _waits(w)]
    if gated and not said and all(pod.just_made for pod in gated):
        return  # its keeper has not got round to it
    if gated:
        yield _closed(gated, queued, said, subject)
    elif item:
        yield Finding(
            confidence="certain",
            summary=f"{item.kind}/{item.name} is suspended and waits in Kueue's queue {_queue(item)}; it has no pod"
            + _ending(_why(queued, cluster)),
            evidence=(
                Evidence(source="workload", ref=f"{item.kind}/{item.name} spec.suspend", text="true"),
                Evidence(
                    source="workload",
                    ref=f"{item.kind}/{item.name} metadata.labels",
                    text=f"{KUEUE_QUEUE}: {_queue(item)}",
                ),
                *said,
                *_of_queues(queued, cluster),
                *_last_words(item, cluster),
            ),
            explains=EXPLAINS,
            fixes=tuple(_fixes(subject, [KUEUE_QUEUE], queued)),
        )


def _closed(gated: list[Pod], queued: list[Item], said: list[Evidence], subject: Subject) -> Finding:
    """Gates that are not open, by those of the first pod."""
    pod = gated[0]
    gates = [g.name for g in pod.spec.scheduling_gates]
    which = f"the scheduling gate{'s' * (len(gates) > 1)} {', '.join(gates)}"
    who = ", ".join(dict.fromkeys(_keeper(g) for g in gates))
    evidence = [pod_evidence(pod, "schedulingGates", ", ".join(gates))]
    if condition := pod.condition("PodScheduled"):
        evidence.append(condition_evidence(pod, condition))
    return Finding(
        confidence="certain",
        summary=f"{who} has not opened {which}, so no scheduler looks at the pod"
        + _ending(
            (_unqueued(pod, queued) or _why(queued, subject.cluster))
            if any("kueue" in g for g in gates)
            else "Kueue has admitted its Workload, and opens its own gate only"
            if _let_in(queued, subject.cluster)
            else ""
        ),
        evidence=(
            *evidence,
            *said,
            *_of_queues(queued, subject.cluster),
            *_of_slices(pod, queued),
            *_nodes(queued, subject),
            *_owners(subject, subject.cluster),
        ),
        explains=(*EXPLAINS, "gang-incomplete"),
        fixes=tuple(_fixes(subject, gates, queued)),
        pods=tuple(p.name for p in gated),
    )


def _keeper(gate: str) -> str:
    domain = gate.partition("/")[0]
    return next((who for key, who in _KEEPERS.items() if key in domain), f"The controller of {domain}")


def _suspended(item: Item) -> bool:
    return dig(item.raw, "spec.suspend") is True or dig(item.raw, "spec.runPolicy.suspend") is True


def _queue(item: Item) -> str:
    return item.labels.get(KUEUE_QUEUE, "")


def _waits(workload: Item) -> Iterator[Evidence]:
    """Conditions of a Kueue Workload that say what it waits for."""
    for condition in workload.conditions:
        if condition.status == "False" and condition.message:
            ref = f"Workload/{workload.name} status.conditions[{condition.type}]"
            yield Evidence(source="workload", ref=ref, text=condition.text)
    for name, state, message in _checks(workload):
        ref = f"Workload/{workload.name} status.admissionChecks[{name}]"
        yield Evidence(source="workload", ref=ref, text=f"{state}: {message}")


def _checks(workload: Item) -> Iterator[tuple[str, str, str]]:
    """Admission checks that have not let a Workload pass and say why: a ProvisioningRequest that failed, another cluster."""
    for row in rows(workload.raw, "status.admissionChecks"):
        name, state, message = (str(row.get(key) or "") for key in ("name", "state", "message"))
        if state and state != "Ready" and message:
            yield name, state, message


def _inactive(queued: list[Item], cluster: Cluster) -> Iterator[tuple[Item, k8s.Condition]]:
    """The queues of these workloads that take none, and what they say of it."""
    local = local_queue(queued[0], cluster) if queued else None
    behind = cluster.item("ClusterQueue", "", str(dig(local.raw, "spec.clusterQueue"))) if local else None
    for queue in (behind, local):
        if queue and (condition := queue.condition("Active", "False")):
            yield queue, condition


def _in_words(condition: k8s.Condition) -> str:
    """Its message as a part of a sentence."""
    return condition.message.replace("(s)", "s")


def _stopped(queued: list[Item], cluster: Cluster) -> Iterator[Item]:
    """The queues that somebody holds."""
    for queue, _ in _inactive(queued, cluster):
        if dig(queue.raw, "spec.stopPolicy") in ("Hold", "HoldAndDrain"):
            yield queue


def _last_words(job: Item, cluster: Cluster) -> Iterator[Evidence]:
    """The last warning about a pod of a job that Kueue took away again."""
    named = re.compile(rf"{re.escape(job.name)}-[a-z0-9]{{5}}")
    said = [
        (event.last, event)
        for event in events_of(cluster).of_kind("Pod")
        if event.warning and event.last and event.namespace == job.namespace and named.fullmatch(event.name)
    ]
    if said:
        yield event_evidence(max(said, key=lambda one: one[0])[1], cluster)


def _of_queues(queued: list[Item], cluster: Cluster) -> Iterator[Evidence]:
    for queue, said in _inactive(queued, cluster):
        yield condition_evidence(queue, said)
        if policy := dig(queue.raw, "spec.stopPolicy"):
            yield object_evidence(queue, "spec.stopPolicy", str(policy))


def _of_slices(pod: Pod, queued: list[Item]) -> Iterator[Evidence]:
    """How many pods a pod set has and how large its slices are."""
    if over := left_over(pod, queued):
        yield object_evidence(over.workload, f"spec.podSets[{over.pod_set}].count", str(over.pods))
        where = f"spec.podSets[{over.pod_set}].topologyRequest.podSetSliceSize"
        yield object_evidence(over.workload, where, str(over.slice))


def _nodes(queued: list[Item], subject: Subject) -> Iterator[Evidence]:
    """The nodes for want of which Kueue knows no domain."""
    if "no topology domains" not in _reason(queued):
        return
    yield from (node_evidence(node, ", ".join(node.troubles)) for node in gone(queued[0], subject)[:3])


def _reason(queued: list[Item]) -> str:
    """Why Kueue does not admit them, in its own words and those of the check that it waits for."""
    for workload in queued:
        checks = [f"admission check {name} says: {message}" for name, _, message in _checks(workload)]
        if unreserved := workload.condition("QuotaReserved", "False"):
            return "; ".join(filter(None, [unreserved.message, *checks[:1]]))
        if checks:
            return checks[0]
    return "The workload is deactivated" if _deactivated(queued) else ""


#: How long Kueue may take from admitting a workload to opening the gates of its pods, under load.
_OPENING_SECONDS = 180


def _let_in(queued: list[Item], cluster: Cluster) -> bool:
    """Whether Kueue has admitted all of them so long ago that it can only have failed to open the gates.

    It says Admitted first, and updates the pods then. An update that the API server refuses (on OpenShift a pod whose user or
    groups no SCC allows, any webhook) is tried again and again, and the Workload does not say so.
    """
    return bool(queued) and all(
        (admitted := workload.condition("Admitted", "True")) is not None
        and (cluster.seconds_since(admitted.last_transition_time) or 0) > _OPENING_SECONDS
        for workload in queued
    )


def _why(queued: list[Item], cluster: Cluster) -> str:
    """Why Kueue does not admit them; of a queue that takes none, what it lacks, and of what was deactivated, for what."""
    reason = _reason(queued)
    if not reason and _let_in(queued, cluster):
        return "Kueue has admitted its Workload, so what takes the gate off the pod fails or does not run"
    named = (_in_words(said) for queue, said in _inactive(queued, cluster) if f"{queue.kind} {queue.name} is" in reason)
    told = next(named, "") or ("; ".join(_evictions(queued)) if "deactivated" in reason else "")
    return f"{reason.rstrip('. ')} ({told.rstrip('. ')})" if told else reason


def _evictions(queued: list[Item]) -> Iterator[str]:
    """For what Kueue has taken workloads away, by its own count."""
    for workload in queued:
        for row in rows(workload.raw, "status.schedulingStats.evictions"):
            if why := row.get("underlyingCause" if row.get("reason") == "Deactivated" else "reason"):
                yield f"evicted {row.get('count')}×: {why}"


def _unqueued(pod: Pod, queued: list[Item]) -> str:
    """What keeps Kueue from opening a gate though it has admitted the whole: it passes over pods without the queue's label.

    So it does where it counts pods as a group (pods, LeaderWorkerSets, StatefulSets); those of a Job need no such label. A pod
    that names another queue than its whole it takes for a workload of its own.
    """
    labels = pod.labels
    if short := fewer(pod):
        return short
    admitted = bool(queued) and all(workload.condition("Admitted", "True") for workload in queued)
    if not admitted and not _deactivated(queued):
        return ""
    if (GROUP in labels or WORKER_SET in labels) and KUEUE_QUEUE not in labels:
        state = "is admitted" if admitted else "was given up (deactivated)"
        return f"the workload {state}, and {pod.name} lacks the label {KUEUE_QUEUE}"
    if over := left_over(pod, queued):
        return (
            f"the workload is admitted, and Kueue chose places for {over.placed} of the {over.pods} pods of its pod set {over.pod_set}, "
            f"which it takes in slices of {over.slice}"
        )
    if other := _of_another_queue(pod, queued):
        state = "is admitted to" if admitted else "was given up (deactivated) in"
        return f"the workload {state} {other}, and {pod.name} names {labels[KUEUE_QUEUE]} in its label {KUEUE_QUEUE}"
    return ""


def _deactivated(queued: list[Item]) -> bool:
    """Whether Kueue, or somebody, has switched off the workload."""
    return any(dig(workload.raw, "spec.active") is False for workload in queued)


def _of_another_queue(pod: Pod, queued: list[Item]) -> str:
    """The queue of the pod's whole, where the pod's own label names another."""
    queues = {str(dig(w.raw, "spec.queueName") or "") for w in queued}
    own = pod.labels.get(KUEUE_QUEUE)
    return min(queues) if own and queues and own not in queues else ""


def _ending(reason: str) -> str:
    return f": {sentence(reason)}" if reason else "."


def _owners(subject: Subject, cluster: Cluster) -> Iterator[Evidence]:
    """What the owners, or what else is named as the pod's whole, say of themselves."""
    pod = subject.pods[0]
    whole = pod.labels.get(PART_OF, "")
    for kind in cluster.kinds():
        for item in cluster.items(kind, subject.namespace):
            mine = (item.kind, item.name) in subject.related and item.kind not in ("Pod", "ReplicaSet", "Deployment")
            if not (mine or (whole and item.name == whole)) or item.kind == "Workload":
                continue
            for condition in item.conditions:
                if condition.message:
                    ref = f"{item.kind}/{item.name} status.conditions[{condition.type}]"
                    yield Evidence(source="workload", ref=ref, text=condition.text)
            for error in rows(item.raw, "status.lastErrors"):
                if error.get("description"):
                    text = f"{error.get('code')}: {error['description']}"
                    yield Evidence(source="workload", ref=f"{item.kind}/{item.name} status.lastErrors", text=text)


def _fixes(subject: Subject, gates: list[str], queued: list[Item]) -> Iterator[Fix]:
    if any("kueue" in g for g in gates):
        yield from _of_kueue(subject, queued)
    else:
        who = _keeper(gates[0])
        yield from _of_template(subject, gates[0], who)
        yield from _by_hand(subject, gates[0])
        if gates[0] == _OF_GROVE:
            yield from _of_grove(subject)
            return
        keeper = f"the {who[4:]}" if who.startswith("The ") else who
        yield fixes.platform(
            f"Find in the log and the objects of {keeper} why it keeps the gate {gates[0]}, and fix that: it alone opens the gate"
        )


#: Grove's gate, which its operator lifts once the pod stands in the PodGang that this label names (operator/internal/controller/podclique).
_OF_GROVE, _GANG = "grove.io/podgang-pending-creation", "grove.io/podgang"
#: What is beyond minAvailable of a scaling group waits for the PodGang of the rest as well, which this one names.
_BASE = "grove.io/base-podgang"
#: A release that leaves the gate on what is scaled up from zero (ai-dynamo/grove 809).
_KEEPS_GATES = "/grove-operator:v0.1.0-alpha.12"
#: In how many seconds an object's first pods are made.
_FIRST_SECONDS = 600


def _of_grove(subject: Subject) -> Iterator[Fix]:
    pod = next(pod for pod in subject.pods if _OF_GROVE in {gate.name for gate in pod.spec.scheduling_gates})
    gang = pod.labels.get(_GANG, "")
    named = f"PodGang {gang}" if gang else "a PodGang"
    yield from _of_base(pod)
    images = (c.image for p in pod.cluster.all(k8s.Pod, "Pod") for c in p.spec.containers)
    if not _of_the_first(subject, pod) and any(image.endswith(_KEEPS_GATES) for image in images):
        yield fixes.platform(
            f"Take Grove back to v0.1.0-alpha.11, or on to a release after alpha.12, if {pod.name} is of what was scaled up from zero: "
            "alpha.12, which runs here, does not lift the gate of such pods",
            "kubectl get pods -A | grep grove-operator",
            "helm list -A | grep -i grove",
        )
    yield fixes.platform(
        f"See in the log of Grove's operator why {pod.name} does not stand in {named} yet, or not all pods of that exist: it then lifts "
        "the gate by itself; do not take it off by hand, as the gang would be broken up",
        "kubectl get pods -A | grep grove-operator",
        f"kubectl -n {pod.namespace} get podgangs.scheduler.grove.io {shlex.quote(gang) if gang else ''}".strip(),
    )


def _of_the_first(subject: Subject, pod: Pod) -> bool:
    """Whether a pod was made with the object behind it, and not when that was scaled up later."""
    begun = parse_time(dig(subject.workload.raw, "metadata.creationTimestamp")) if subject.workload else None
    made = parse_time(pod.obj.metadata.creation_timestamp)
    return begun is not None and made is not None and 0 <= (made - begun).total_seconds() <= _FIRST_SECONDS


def _of_base(pod: Pod) -> Iterator[Fix]:
    """The pods of the base PodGang, which have to come up before the gate of one beyond it is lifted."""
    base = pod.labels.get(_BASE)
    first = [p for p in pod.cluster.all(k8s.Pod, "Pod", pod.namespace) if base and p.metadata.labels.get(_GANG) == base]
    late = [p.metadata.name for p in first if not p.status.ready]
    if not late:
        return
    said = [e for e in events_of(pod.cluster).about([("Pod", name) for name in late]) if e.namespace == pod.namespace]
    domain = any("ComputeDomain" in event.message for event in said)
    text = f"Bring up {' and '.join(late[:2])} of the base PodGang {base} first: Grove lifts the gate of {pod.name} after that"
    if domain:
        text = (
            f"Make the PodCliqueSet again with a minAvailable of the scaling group that is its replicas, as nobody may change it, so that "
            f"{pod.name} stands in the base PodGang {base}, too: {late[0]} "
            f"waits for a ComputeDomain to be complete, and the gate for {late[0]}; newer releases of Grove lift it "
            "once the base is scheduled"
        )
    yield fixes.advice(text, *(f"kubectl -n {pod.namespace} describe pod {name}" for name in late[:2]))


def _by_hand(subject: Subject, gate: str) -> Iterator[Fix]:
    """A gate of a pod that nobody made of a template, whose name says of no controller that it is to open it."""
    for pod in subject.pods:
        at = next((n for n, one in enumerate(pod.spec.scheduling_gates) if one.name == gate), None)
        if pod.unscheduled and at is not None and "/" not in gate and not pod.obj.metadata.owner_references:
            operations = [{"op": "remove", "path": f"/spec/schedulingGates/{at}"}]
            yield fixes.advice(
                f"Take the gate {gate} off {pod.name} where nothing should open it: its name is of no controller",
                f"kubectl -n {pod.namespace} patch pod {pod.name} --type=json -p "
                + shlex.quote(msgspec.json.encode(operations).decode()),
            )
            return


def _of_template(subject: Subject, gate: str, who: str) -> Iterator[Fix]:
    """A gate that no webhook added: the object's own template has it, and whoever wrote it there may take it out."""
    for pod in subject.pods:
        given = rows(pod.template.pod, "spec.schedulingGates") if pod.template else []
        at = next((n for n, row in enumerate(given) if row.get("name") == gate), None)
        if pod.unscheduled and at is not None:
            last = len(given) == 1
            text = (
                f"Take {gate} out of the template of {fixes.edited(pod)}, which sets it itself, where {who[:1].lower() + who[1:]} is not "
                "there to open it"
            )
            path = "/schedulingGates" if last else f"/schedulingGates/{at}"
            yield fixes.patch(pod, text, [{"op": "remove", "path": path}])
            return


def _of_kueue(subject: Subject, queued: list[Item]) -> Iterator[Fix]:
    one = f"describe workloads.kueue.x-k8s.io {queued[0].name}" if queued else "get workloads.kueue.x-k8s.io"
    commands = (f"kubectl -n {subject.namespace} {one}", "kubectl get clusterqueues.kueue.x-k8s.io -o yaml")
    reason = _reason(queued)
    if bare := next((p for p in subject.pods if p.unscheduled and _unqueued(p, queued)), None):
        labelled = _of_one_pod(bare, subject, queued, commands[0])
        if _deactivated(queued):
            told = f"{labelled.summary}; then set spec.active of Kueue's Workload to true again"
            labelled = msgspec.structs.replace(labelled, summary=told, commands=(*labelled.commands, *_again(queued)))
        yield labelled
        return
    away = sorted(node.name for node in gone(queued[0], subject))[:3] if "no topology domains" in reason else []
    if away:
        yield fixes.platform(
            f"Bring {', '.join(away)} back: no node of the flavor is ready and open for pods, so there is no domain",
            f"kubectl get nodes {' '.join(away)}",
        )
        return
    if (mended := _of_queue(queued, subject.cluster, commands[1])) is not None:
        yield mended
        return
    if "LocalQueue  doesn't exist" in reason:
        yield _queue_named(subject, queued)
        return
    if absent := re.search(_ABSENT, reason):
        yield _queue_made(subject, absent["kind"], absent["name"])
        return
    if re.search(_OTHER_NAMESPACES, reason):
        yield _of_namespaces(subject, queued)
        return
    if (full := _of_full_nodes(queued, subject.cluster, reason, commands[0])) is not None:
        yield full
        return
    for words, text in (*_ADVICE, *_OF_THE_POD):
        if found := re.search(words, reason):
            advice = text.format(*found.groups())
            again = _again(queued) if "deactivated" in words else ()
            yield fixes.advice(advice, *commands, *again, owner="platform" if (words, text) in _ADVICE else "model")
            return
    if not reason and _let_in(queued, subject.cluster):
        yield _refused_update(subject, commands[0])
        return
    unpassed = next((one for workload in queued for one in _checks(workload)), None)
    check = unpassed[0] if unpassed else ""
    if unpassed and re.search(_NO_MACHINES, unpassed[2]):
        yield fixes.platform(
            f"Have admission check {check} ask for machines that the cloud has: a further flavor in the ClusterQueue for another zone, "
            "capacity type (spot, reserved) or GPU, with that check; what it has none of is tried again by itself",
            commands[0],
            f"kubectl -n {subject.namespace} get provisioningrequests -o yaml",
        )
        return
    if check:
        yield fixes.platform(
            f"See what keeps admission check {check} from passing; where it asks for nodes, its ProvisioningRequest says why none "
            "came",
            commands[0],
            f"kubectl -n {subject.namespace} get provisioningrequests -o yaml",
            f"kubectl get admissionchecks.kueue.x-k8s.io {shlex.quote(check)} -o yaml",
        )
        return
    yield fixes.advice("See what Kueue's Workload waits for: quota, topology, an admission check", *commands)
    if (
        subject.workload
        and not _queue(subject.workload.item)
        and not any(KUEUE_QUEUE in pod.labels for pod in subject.pods)
    ):
        yield fixes.advice(f"Name the queue on {subject.workload.ref}: label {KUEUE_QUEUE}")


def _of_full_nodes(queued: list[Item], cluster: Cluster, reason: str, look: str) -> Fix | None:
    """What helps where the nodes of a topology that have room for a pod would not hold all of them: a wider level has no more."""
    every, asked = list(left_out(reason)), requested(queued[0]) if queued else {}
    if not every or not all(_is_full(out, max(at_once(asked, cluster), 1), cluster) for out in every):
        return None
    out = every[0]
    open_to_it = f"only {out.open} of its {out.nodes} nodes have" if out.open else f"none of its {out.nodes} nodes has"
    level = f"{open_to_it} room for a pod at all" + (f", for {out.pods} pods" if out.pods > 1 else "")
    if not out.resources:
        taints = sorted(out.taints, key=lambda taint: -out.taints[taint])[:3]
        ill = [said for said in taints if is_state_taint(k8s.Taint(key=re.split("[=:]", said)[0]))]
        named = ", ".join(ill or taints)
        if ill:
            return fixes.advice(f"Bring the nodes back that have {named}, which no pod should tolerate: {level}", look)
        return fixes.advice(f"Tolerate {named} in the pod template, or free nodes of the topology: {level}", look)
    short = sorted(out.resources, key=lambda name: -out.resources[name])[:3]
    counted = ", ".join(
        f"{out.resources[name]} have too little {name}" + (f" ({asked[name]} asked for)" if name in asked else "")
        for name in short
    )
    return fixes.advice(
        f"Ask for less {' and '.join(short)} in the pod template, or end or move what holds it on the nodes of the topology: {counted}; "
        f"{level}",
        look,
        "kubectl describe nodes | grep -A 8 'Allocated resources'",
    )


def _is_full(out: LeftOut, each: int, cluster: Cluster) -> bool:
    """Whether what is open of a topology, with room for so many pods on each node, does not hold all of them."""
    if not (out.resources or out.taints) or out.open < 0:
        return False
    return out.open == 0 or (out.open * each < out.pods and of_nodes(out.topology, cluster))


def _again(queued: list[Item]) -> Iterator[str]:
    """How a Workload that was deactivated is let in again."""
    for workload in queued[:1]:
        resource = f"workloads.kueue.x-k8s.io {workload.name}"
        yield f'kubectl -n {workload.namespace} patch {resource} --type=merge -p \'{{"spec":{{"active":true}}}}\''


def _queue_named(subject: Subject, queued: list[Item]) -> Fix:
    """A queue for a workload that names none: that of the namespace where it has one alone, at what Kueue takes for the whole."""
    namespace = subject.namespace
    queues = sorted(item.name for item in subject.cluster.items("LocalQueue", namespace))
    queue = queues[0] if len(queues) == 1 else "QUEUE"
    pod = next((p for p in subject.pods if p.unscheduled), None)
    owners = [owner.get("kind") for item in queued for owner in rows(item.raw, "metadata.ownerReferences")]
    where = subject.workload.ref if subject.workload else f"Pod/{pod.name}" if pod else "the workload"
    which = (
        f", the only one of {namespace}"
        if len(queues) == 1
        else f" (one of {', '.join(queues)})"
        if queues
        else f" (none of {namespace} was seen: make one of a ClusterQueue)"
    )
    text = f"Name the LocalQueue {queue}{which}, in the label {KUEUE_QUEUE} of {where}: the workload has none"
    if pod and len(queues) == 1 and (not owners or "Pod" in owners):
        return fixes.annotate(
            pod, {KUEUE_QUEUE: queue}, text.replace(" of " + where, f" of the pods of {where}"), field="labels"
        )
    commands = (
        [f"kubectl -n {namespace} label {_target(subject)} --overwrite {KUEUE_QUEUE}={queue}"]
        if subject.workload
        else []
    )
    return fixes.advice(text, *([] if queues else ["kubectl get localqueues.kueue.x-k8s.io -A"]), *commands)


def _queue_made(subject: Subject, kind: str, name: str) -> Fix:
    """A queue that a workload or its LocalQueue names and that is not there."""
    cluster, namespace = subject.cluster, subject.namespace
    queues = [item.name for item in cluster.items(kind, *([namespace] if kind == "LocalQueue" else []))]
    behind = [item.name for item in cluster.items("ClusterQueue")]
    others = f", or name one that exists ({', '.join(sorted(queues)[:4])})" if queues else ""
    version = next((i.api_version for i in cluster.items("ClusterQueue")), "kueue.x-k8s.io/v1beta1")
    if kind == "LocalQueue" and len(queues) == 1 and cluster.complete("LocalQueue", namespace) and subject.pods:
        where = subject.workload.ref if subject.workload else fixes.edited(subject.pods[0])
        return fixes.advice(
            f"Name queue {queues[0]} in the label {KUEUE_QUEUE} of {where}, the only one of {namespace}, instead of {name}",
            *(
                [f"kubectl -n {namespace} label {_target(subject)} --overwrite {KUEUE_QUEUE}={queues[0]}"]
                if subject.workload
                else []
            ),
        )
    if kind == "LocalQueue" and len(behind) == 1:
        return fixes.platform(
            f"Make the LocalQueue {name} in {namespace} for ClusterQueue {behind[0]}{others}",
            fixes.create(version, kind, name, namespace, spec={"clusterQueue": behind[0]}),
        )
    if kind == "ClusterQueue":  # the label of the workload names its LocalQueue, of which this is immutable
        locals_ = [i.name for i in cluster.items("LocalQueue", namespace) if dig(i.raw, "spec.clusterQueue") == name]
        whose = f"LocalQueue {locals_[0]}" if locals_ else "the LocalQueue"
        return fixes.platform(
            f"Make the ClusterQueue {name}, or {whose} of {namespace} anew with a clusterQueue that exists"
            + (f" ({', '.join(sorted(queues)[:4])})" if queues else ""),
            "kubectl get localqueues.kueue.x-k8s.io,clusterqueues.kueue.x-k8s.io -A",
        )
    place = f" in {namespace}" if kind == "LocalQueue" else ""
    return fixes.platform(
        f"Make the {kind} {name}{place}{others or ', or name one that exists'} in the label {KUEUE_QUEUE}",
        "kubectl get localqueues.kueue.x-k8s.io,clusterqueues.kueue.x-k8s.io -A",
    )


def _refused_update(subject: Subject, look: str) -> Fix:
    """The update that opens the gate is refused, for which a pod's own user and groups are the usual ground on OpenShift."""
    pod = next((p for p in subject.pods if p.unscheduled), None)
    context = dig(pod.item.raw, "spec.securityContext") if pod and pod.item else None
    own = [
        key
        for key in ("runAsUser", "runAsGroup", "fsGroup", "supplementalGroups")
        if isinstance(context, dict) and key in context
    ]
    named = pod.name if pod else subject.namespace
    text = "Fix what Kueue's log says when it updates the pod"
    if own and pod:
        text += (
            f": on OpenShift take {', '.join(own)} out of the securityContext of {fixes.edited(pod)}, or let its service account use an "
            "SCC that allows them"
        )
    return fixes.platform(
        f"{text}; then recreate {named}",
        f"kubectl -n kueue-system logs deployment/kueue-controller-manager | grep {named}",
        look,
    )


def _of_namespaces(subject: Subject, queued: list[Item]) -> Fix:
    """What lets a ClusterQueue take the workloads of a namespace: one that states no selector takes those of none."""
    namespace, (name, queue) = subject.namespace, cluster_queue(queued[0], subject.cluster)
    path, own = "/spec/namespaceSelector", {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    stated = dig(queue.raw, "spec.namespaceSelector") if queue else None
    if queue and stated is None:
        text = f"Have ClusterQueue {name} take the workloads of {namespace}: it states no namespaceSelector, so takes none ({{}}: all)"
        return fixes.set_field(queue, path, own, text, owner="platform", op="add")
    labels = dig(stated, "matchLabels") if isinstance(stated, dict) else None
    whose = f"ClusterQueue {name}" if name else "its ClusterQueue"
    if isinstance(labels, dict) and labels and not dig(stated, "matchExpressions"):
        pairs = [f"{key}={value}" for key, value in labels.items()]
        return fixes.platform(
            f"Label namespace {namespace} {', '.join(pairs)}, as the namespaceSelector of {whose} demands, if it may use that queue",
            f"kubectl label namespace {namespace} {shlex.join(pairs)}",
        )
    return fixes.platform(
        f"Label namespace {namespace} as spec.namespaceSelector of {whose} demands, or have that take it; without a selector the queue "
        "takes no namespace, with {} all",
        *shown_queue(queued[0], name),
        f"kubectl get namespace {namespace} --show-labels",
    )


def _target(subject: Subject) -> str:
    return f"{subject.workload.resource}/{subject.workload.name}" if subject.workload else ""


def _of_one_pod(pod: Pod, subject: Subject, queued: list[Item], look: str) -> Fix:
    """What helps where Kueue passes over a pod, or waits for others of its group."""
    if fewer(pod):
        return fixes.advice(
            f"Make the other pods of the group {pod.labels[GROUP]}, or write how many there are into the annotation {TOTAL} of each",
            f"kubectl -n {subject.namespace} get pods -l {GROUP}={pod.labels[GROUP]}",
        )
    if over := left_over(pod, queued):
        owner = next(iter(rows(over.workload.raw, "metadata.ownerReferences")), {})
        whole = f"{owner.get('kind')}/{owner.get('name')}" if owner else f"the owner of Workload {over.workload.name}"
        smaller = next(size for size in range(over.slice - 1, 0, -1) if over.pods % size == 0)
        return fixes.advice(
            f"Set the annotation {_SLICE} of pod set {over.pod_set} to {smaller} in {whole}, which divides its {over.pods} pods, or give "
            f"it {over.placed + over.slice} pods: Kueue places only whole slices of {over.slice}",
            look,
        )
    if _of_another_queue(pod, queued):
        where = subject.workload.ref if subject.workload else "its owner"
        return fixes.advice(
            f"Take {KUEUE_QUEUE} out of the pod templates of {where}, name the queue on the object alone, and recreate {pod.name}",
            look,
        )
    if queue := next((str(q) for w in queued if (q := dig(w.raw, "spec.queueName"))), ""):
        text = f"Set {KUEUE_QUEUE}={queue} in the pod templates too, and recreate {pod.name}; later releases of Kueue set it by themselves"
        return fixes.annotate(pod, {KUEUE_QUEUE: queue}, text, field="labels")
    return fixes.advice(
        f"Set {KUEUE_QUEUE} in the pod templates too, and recreate {pod.name}; later releases of Kueue set it by themselves",
        look,
    )


def _of_queue(queued: list[Item], cluster: Cluster, look: str) -> Fix | None:
    """What helps where the queue takes no workloads and says why."""
    if stopped := next(_stopped(queued, cluster), None):
        where = f"-n {stopped.namespace} " if stopped.namespace else ""
        resource = f"{stopped.kind.lower()}.kueue.x-k8s.io"
        return fixes.platform(
            f"Let {stopped.kind}/{stopped.name} go on when the reason for which somebody stopped it is gone",
            f'kubectl {where}patch {resource} {stopped.name} --type merge -p \'{{"spec":{{"stopPolicy":"None"}}}}\'',
        )
    for queue, said in _inactive(queued, cluster):
        if lost := re.search(_NO_FLAVOR, said.message):
            names = lost["names"].replace(" ", "").rstrip(".").split(",")
            return fixes.platform(
                f"Make the ResourceFlavor {', '.join(names)}, which ClusterQueue {queue.name} names, with spec.nodeLabels of its nodes",
                *(fixes.create(queue.api_version, "ResourceFlavor", name) for name in names[:3]),
            )
        if queue.kind == "ClusterQueue":
            return fixes.platform(f"Fix what ClusterQueue/{queue.name} lacks: {_in_words(said)}", look)
    return None
