"""A group that cannot place all its members."""

import re
import shlex
from collections.abc import Iterator
from datetime import timedelta

from kubectl_llmdoctor.api import (
    WORKER_GROUP,
    WORKER_SET,
    Cluster,
    Event,
    Evidence,
    Finding,
    Fix,
    Item,
    Pending,
    Pod,
    Subject,
    check,
    condition_evidence,
    count_of,
    dig,
    event_evidence,
    few,
    fixes,
    k8s,
    object_evidence,
    parse_time,
    pod_evidence,
    requests_of,
    say_devices,
    say_pairs,
)
from llmdoctor_checks.scheduling._admission import replaced
from llmdoctor_checks.scheduling._holders import surges
from llmdoctor_checks.scheduling._obstacles import SHORTAGE, Cause
from llmdoctor_checks.scheduling._raising import of_volcano, volcano_queue
from llmdoctor_checks.scheduling._refused import unmade
from llmdoctor_checks.scheduling._repairs import freeing, ways
from llmdoctor_checks.scheduling._separation import causes
from llmdoctor_checks.scheduling._words import EXPLAINS, node_lines, said_by
from llmdoctor_checks.scheduling._worker_sets import EXCLUSIVE, exclusive, leader_first

#: Volcano's overcommit plugin (pkg/scheduler/plugins/overcommit), of a group that it does not even let into the queue: what is
#: idle, times a factor, is promised to groups that came before. Releases from 1.11 on name the resources.
_FULL = "resource in cluster is overused"
#: It tells the state of the group in an event of its own.
_STATE = "in gang unschedulable"
#: Volcano's annotation on a pod.
_GROUP = "scheduling.k8s.io/group-name"
#: KAI's event about the PodGroup.
_FEWER = (
    r"Job is not ready for scheduling\. Waiting for (?P<wanted>\d{1,9}) pods.{0,200}?currently (?P<there>\d{1,9}) exist"
)
#: What Volcano (`1/2 tasks`: not placed of those that exist) and the coscheduling plugin say of a group in a pod's condition.
_FEWER_PODS = (
    r"\b\d{1,9}/(?P<there>\d{1,9}) tasks in gang unschedulable: .{0,200}?\b(?P<wanted>\d{1,9}) minAvailable",
    r"enough sibling pods, current pods number: (?P<there>\d{1,9}), minMember of group: (?P<wanted>\d{1,9})",
)
#: All tasks of a group by their states, as Volcano's own words on its state list them (pkg/scheduler/api/job_info.go, FitError).
_STATES = (
    r"pod group is not ready, (?P<states>\d{1,9} [A-Z][a-z]{1,20}(?:, \d{1,9} [A-Z][a-z]{1,20}){0,12}), "
    r"(?P<wanted>\d{1,9}) minAvailable"
)
#: Its word on the PodGroup of fewer pods than its least number, for which it then says nothing of the pods (plugins/gang).
_INVALID = r"Not enough valid tasks for gang-scheduling, valid: (?P<there>\d{1,9}), min: (?P<wanted>\d{1,9})"
#: YuniKorn's word on pods that it fails (yunikorn-core, pkg/scheduler/objects/application.go), and the annotation with its rules.
_RESERVED, _RULES = "ResourceReservationTimeout", "yunikorn.apache.org/schedulingPolicyParameters"
#: How long what makes the pods of a group may take to make all of them.
_ALL_MADE = timedelta(minutes=2)


@check("gang-incomplete", since="0.1")
def gang_incomplete(pending: Pending | None, subject: Subject) -> Iterator[Finding]:
    """A group of pods that works only as a whole cannot place all its members.

    The pods of a LeaderWorkerSet group, a Ray cluster or a gang (Volcano, KAI, coscheduling) serve one model together.
    While one of them has no node the others wait, holding their GPUs without use; a gang scheduler places none until
    it can place all, and none of a group that does not exist. YuniKorn fails all pods of a group that has not got its places
    in time (`gangSchedulingStyle=Hard`). What counts is room for the whole group at once. With `startupPolicy: LeaderReady` a
    LeaderWorkerSet makes the workers of a group when its leader is ready, which an engine over all of them is only with the workers.

    ## Fix

    Make room for all members at once, make the group smaller (fewer nodes, smaller pipeline parallel size), or let a
    gang scheduler place it so that a part does not block GPUs.

    ## References

    - https://lws.sigs.k8s.io/docs/overview/
    - https://kueue.sigs.k8s.io/docs/concepts/topology_aware_scheduling/
    """
    turned_away = _turned_away(subject)
    if pending is None and (given_up := [p for p in subject.pods if _given_up(p)]) and not replaced(subject):
        yield _without_places(given_up)
        return
    if pending is None:
        yield from leader_first(subject)
        if turned_away and unmade(subject):  # Volcano's Job makes its pods when its group is in the queue
            yield _not_queued(subject, turned_away)
        return
    if gone := _no_group(pending):
        yield gone
        return
    found = causes(pending)
    alone = " 1 minAvailable" in pending.message  # a group of one waits for nobody else
    words = () if alone else pending.said.of("gang")
    if (few := _too_few(pending, subject)) is not None:
        yield few
        return
    if (rest := _rest_not_made(pending)) is not None:
        yield rest
        return
    if pending.said.gang or words:
        yield _said(pending, found)
        return
    if (fitting := _fitting(pending)) and not alone:
        yield _held_back(pending, found, fitting)
        return
    if turned_away and not found:  # no node was looked at
        yield _not_queued(subject, turned_away, pending)
        return
    if found and found[0].id in SHORTAGE:
        yield from _in_part(pending, found[0], subject)


def _given_up(pod: Pod) -> bool:
    """Whether YuniKorn has failed the pod, since its group did not get all its places in time (`gangSchedulingStyle=Hard`)."""
    status = pod.status
    return pod.exists and status.phase == "Failed" and status.reason == _RESERVED


def _without_places(pods: list[Pod]) -> Finding:
    """A group that YuniKorn had reserve its places first, and gave up."""
    first = next((p for p in pods if p.accelerators), pods[0])
    rules = first.annotations.get(_RULES, "")
    found = re.search(r"placeholderTimeoutInSeconds=(\d{1,6})", rules)
    span = f"{found[1]} s" if found else "its time (15 min unless told otherwise)"
    asked = say_devices(first.accelerators)
    return Finding(
        summary=f"YuniKorn gave up the application of {first.name}: not all places of its group could be had within {span}"
        + (f"; this member asks for {asked}." if asked else "."),
        evidence=(
            pod_evidence(first, "status", f"{first.status.reason}: {first.status.message}".rstrip(": ")),
            *([pod_evidence(first, f"metadata.annotations[{_RULES}]", rules)] if rules else ()),
        ),
        explains=("pod-failed", "not-ready", "ray-cluster"),
        fixes=(
            fixes.advice(
                f"Make room for {count_of(len(pods), 'member')}{f' of {asked} each' if asked else ''} at once, in the limits of its queue "
                "and on the nodes, then start it again"
            ),
            fixes.advice(
                f"Give it longer, or let members start with what is there: {_RULES}: "
                '"placeholderTimeoutInSeconds=1800 gangSchedulingStyle=Soft"'
            ),
        ),
        pods=tuple(p.name for p in pods),
    )


def _in_part(pending: Pending, short: Cause, subject: Subject) -> Iterator[Finding]:
    """Members that hold GPUs while there is no room for the others."""
    placed = [p for p in subject.pods if p.scheduled]
    waiting = [p for p in subject.pods if p.unscheduled]
    holding = sum(p.accelerators.get(short.resource, 0) for p in placed)
    if not holding or not waiting:
        return
    size = _size(subject) or len(subject.pods)
    asked = pending.requests.get(short.resource, 0)
    left = max(len(waiting), size - len(placed))
    domain = next(exclusive(subject, size, asked, short.resource), None)
    within = f" within {domain[0]}={domain[1]}, where all of the group must stand" if domain else ""
    yield Finding(
        confidence=short.confidence,
        summary=f"The group has {count_of(size, 'member')} of {asked} {short.resource} each; {len(placed)} "
        f"{'has a node and holds' if len(placed) == 1 else 'have a node and hold'} {holding} idle, "
        f"for {len(waiting)} there is no room{within}.",
        evidence=(
            *said_by(pending),
            *(Evidence(source="pod", ref=p.name, text=f"on {p.spec.node_name}") for p in placed[:3]),
            *((pod_evidence(placed[0], f"metadata.annotations[{EXCLUSIVE}]", domain[0]),) if domain else ()),
            *node_lines(pending, short, holders=True),
        ),
        explains=(*EXPLAINS, "not-ready", *SHORTAGE),
        fixes=(
            *([] if domain or left > 1 or short.obstacle != "gpu" else ways(pending, short, freeing)[:1]),
            *_fixes(subject, left, asked, short.resource, domain),
        ),
        order=short.order,
        pods=tuple(p.name for p in waiting),
    )


def _no_group(pending: Pending) -> Finding | None:
    """A pod that names a PodGroup which is not there: a scheduler of gangs passes over it, most often without a word."""
    pod, name = pending.pod, _group_of(pending.pod.item)
    known = pod.cluster.exists("PodGroup", pod.namespace, name) if name else None
    scheduler = pod.spec.scheduler_name
    # one that has looked at nodes for the pod knows its group, or does not ask for it
    if known is not False or pod.just_made or "volcano" not in scheduler or pending.said.counts:
        return None
    return Finding(
        summary=f"{pod.name} belongs to the PodGroup {name}, which does not exist: {scheduler} places no pod of a group "
        "that it does not know.",
        evidence=(
            pod_evidence(pod, f"metadata.annotations[{_GROUP}]", name),
            pod_evidence(pod, "schedulerName", scheduler),
            *said_by(pending),
        ),
        explains=EXPLAINS,
        fix=fixes.advice(
            "See why what makes the group has not made it (its controller's log, its rights); delete the pod, so that it and its "
            "group are recreated",
            f"kubectl -n {pod.namespace} get podgroups.scheduling.volcano.sh",
            f"kubectl -n {pod.namespace} delete pod {pod.name}",
        ),
        pods=(pod.name,),
    )


def _groups_of(pending: Pending) -> str:
    """What kubectl calls the groups of the pod's scheduler: several have a kind of that name."""
    groups = {
        "volcano": "scheduling.volcano.sh",
        "kai": "scheduling.run.ai",
        "scheduler-plugins": "scheduling.x-k8s.io",
    }
    group = next((group for name, group in groups.items() if name in pending.scheduler), "")
    return f"podgroups.{group}" if group else "podgroups"


def _said(pending: Pending, found: tuple[Cause, ...]) -> Finding:
    if gang := pending.said.gang:
        summary = f"{pending.scheduler} found room for {gang[0]} of the {gang[1]} pods that must start together."
    else:
        texts = "; ".join(dict.fromkeys(c.text for c in pending.said.of("gang")))
        summary = f"{pending.scheduler} does not place it before its whole group can be placed: {texts}."
    others = [c for c in pending.said.counts if c.kind not in ("gang", "other")]
    # where it has looked at nodes, its queue has room; what its own members hold is in use of the queue already
    by_queue = "volcano" in pending.scheduler and not others and not _counted(pending)[0]
    full = of_volcano(pending.pod, pending.subject, []) if by_queue else None
    if full:
        name = volcano_queue(pending.pod, pending.subject)
        summary = f"{summary[:-1]}; its queue {name} has less left than the group asks for."
    if others:
        summary = summary[:-1] + f"; of the rest it says: {', '.join(f'{c.number} {c.text}' for c in others)}."
    return Finding(
        summary=summary,
        evidence=(
            *said_by(pending),
            pod_evidence(pending.pod, "schedulerName", pending.scheduler),
            *_groups(pending),
            *(_in_use(pending) if full else ()),
        ),
        explains=(*EXPLAINS, *(c.id for c in found)),
        fixes=(full.fix, *_others_in_queue(pending))
        if full
        else tuple(_rooms(pending, *gang) if gang else _rooms(pending, *_counted(pending))),
    )


def _in_use(pending: Pending) -> Iterator[Evidence]:
    """What the queue of Volcano's may give, and has given."""
    if queue := pending.pod.cluster.item("Queue", "", volcano_queue(pending.pod, pending.subject)):
        for path in ("spec.capability", "status.allocated"):
            if isinstance(amounts := dig(queue.raw, path), dict):
                yield object_evidence(queue, path, say_pairs(amounts, ": "))


def _others_in_queue(pending: Pending) -> Iterator[Fix]:
    """The groups of the same queue of Volcano's that hold what is allocated there."""
    queue, names = volcano_queue(pending.pod, pending.subject), _group_names(pending)
    holding = [
        f"{item.namespace}/{item.name}"
        for item in pending.pod.cluster.items("PodGroup")
        if dig(item.raw, "spec.queue") == queue
        and item.name not in names
        and dig(item.raw, "status.phase") == "Running"
    ]
    if holding:
        yield fixes.advice(
            f"End what holds the queue {queue}, where it can be spared: {', '.join(sorted(holding)[:3])}",
            "kubectl get podgroups.scheduling.volcano.sh -A",
        )


#: Pods of a group that have a node, or for which there is one, as Volcano counts them (pkg/scheduler/api/types.go).
_PLACED = r"\b(\d{1,5}) (?:Running|Bound|Binding|Allocated|Pipelined|Succeeded|Schedulable)\b"


def _counted(pending: Pending) -> tuple[int, int]:
    """For how many pods of a group there is room by the scheduler's words, and how many must start together; 0 where nobody says."""
    text = " ".join((pending.message, *(c.text for c in pending.said.of("gang"))))
    least = re.search(
        r"(?:not ready, (?P<states>[^;]{0,300}?))?(?P<number>\d{1,5}) minAvailable(?P<rest>[^.]{0,300})", text
    )
    there = sum(int(n) for n in re.findall(_PLACED, f"{least['states'] or ''} {least['rest']}")) if least else 0
    names, groups = _group_names(pending), pending.pod.cluster.items("PodGroup", pending.pod.namespace)
    item = next((i for i in groups if i.name in names), None)
    known = dig(item.raw, "spec.minMember") if item else None
    return there, int(least["number"]) if least else known if isinstance(known, int) else 0


def _rooms(pending: Pending, there: int, wanted: int) -> Iterator[Fix]:
    """Room for what of a group has none, or a smaller group."""
    asks = [f"{amount} {resource}" for resource, amount in pending.accelerators.items()]
    each = f" of {' and '.join(asks)}" if asks else ""
    left = wanted - there
    look = f"kubectl -n {pending.pod.namespace} get {_groups_of(pending)} -o yaml"
    if left <= 0:
        text = (
            f"Make room for the whole group at once, each pod{each}"
            if each
            else "Make room for the whole group at once"
        )
        yield fixes.advice(f"{text} (free or add nodes), or lower the number that must start together", look)
        return
    also = f" beside the {there} for which there is" if there else ""
    once = f"{' each' if each else ''}, all at once" if left > 1 else ""
    text = f"Make room for {count_of(left, 'pod')}{each}{once}{also} (free or add nodes)"
    yield fixes.platform(text, look)
    if there:
        yield fixes.advice(
            f"Let the group start with {count_of(there, 'pod')} (its minMember, {wanted} now), if it can serve with as many"
        )


def _fitting(pending: Pending) -> list[Item]:
    """The pods of the same group for which Volcano has a node, and which it does not place without this one.

    It says so in their PodScheduled condition (pkg/scheduler/framework/job_updater.go and api/unschedule_info.go).
    """
    group = _group_of(pending.pod.item)
    return [
        item
        for item in pending.pod.cluster.items("Pod", pending.pod.namespace)
        if group and item is not pending.pod.item and _group_of(item) == group and _could_be_placed(item)
    ]


def _group_of(pod: Item | None) -> str:
    """Volcano's PodGroup of a pod, by its annotation."""
    return pod.annotations.get(_GROUP, "") if pod else ""


def _could_be_placed(pod: Item) -> bool:
    scheduled = pod.condition("PodScheduled")
    return scheduled is not None and scheduled.reason == "Schedulable"


def _held_back(pending: Pending, found: tuple[Cause, ...], fitting: list[Item]) -> Finding:
    group, pods = _group_of(pending.pod.item), pending.pod.cluster.items("Pod", pending.pod.namespace)
    running = [i for i in pods if dig(i.raw, "spec.nodeName") and dig(i.raw, "status.phase") == "Running"]
    there = len(fitting) + sum(_group_of(item) == group for item in running)
    return Finding(
        summary=f"{pending.scheduler} has nodes for {count_of(len(fitting), 'other pod')} of the group and none for this one, so it places "
        "none of them.",
        evidence=(
            *said_by(pending),
            *(
                Evidence(source="pod", ref=f"{item.name} status.conditions[PodScheduled]", text="Schedulable")
                for item in fitting[:3]
            ),
            *_groups(pending),
        ),
        explains=(*EXPLAINS, *(c.id for c in found)),
        fixes=tuple(_rooms(pending, there, max(there + 1, _counted(pending)[1]))),
    )


def _turned_away(subject: Subject) -> Event | None:
    """Volcano's latest word on the group, where that is that it is not let into the queue."""
    said = [e for e in subject.events.of("Unschedulable", kind="PodGroup") if _STATE not in e.message]
    return said[-1] if said and said[-1].message.startswith(_FULL) else None


def _not_queued(subject: Subject, event: Event, pending: Pending | None = None) -> Finding:
    lacks = event.message.removeprefix(_FULL).removeprefix(": overused ")
    return Finding(
        summary=f"Volcano does not let the group into the queue: what is idle in the cluster{f' ({lacks})' if lacks else ''} "
        "is promised to groups that came before.",
        evidence=(event_evidence(event, subject.cluster), *((*said_by(pending), *_groups(pending)) if pending else ())),
        explains=EXPLAINS,
        fixes=(
            *_finished(subject.cluster),
            fixes.advice(
                "See which groups are Inqueue or Running, and delete those whose pods are gone",
                "kubectl get podgroups.scheduling.volcano.sh -A",
            ),
            fixes.platform("Make room for the whole group at once, or lower its minResources"),
            fixes.platform("Raise overcommit-factor of Volcano's plugin overcommit (1.2 by default)"),
        ),
    )


def _finished(cluster: Cluster) -> Iterator[Fix]:
    """The groups that are in the queue still, and whose pods have all ended: Volcano counts what they were promised.

    A group that tries again has failed pods and one that waits, of which its status says nothing.
    """
    running = {
        (pod.metadata.namespace, pod.metadata.annotations.get(_GROUP))
        for pod in cluster.all(k8s.Pod, "Pod")
        if pod.status.phase not in ("Succeeded", "Failed")
    }
    over: dict[str, list[str]] = {}
    for item in cluster.items("PodGroup"):
        status, least = dig(item.raw, "status"), dig(item.raw, "spec.minMember")
        if not isinstance(status, dict) or status.get("phase") not in ("Inqueue", "Running"):
            continue
        ended = [n for name in ("succeeded", "failed") if isinstance(n := status.get(name), int)]
        if status.get("running") or (item.namespace, item.name) in running or not isinstance(least, int):
            continue
        if status.get("failed") and not cluster.complete("Pod", item.namespace):
            continue
        if least and sum(ended) >= least:
            over.setdefault(item.namespace, []).append(item.name)
    if over:
        names = [f"{namespace}/{name}" for namespace, group in over.items() for name in group]
        said = few(names, 3)
        yield fixes.advice(
            f"Delete the PodGroups whose pods have all ended and that are in the queue all the same ({said}): what they were promised is "
            "counted until they are gone, in later releases of Volcano no longer",
            *(
                f"kubectl -n {namespace} delete podgroups.scheduling.volcano.sh {shlex.join(group[:20])}"
                for namespace, group in list(over.items())[:5]
            ),
        )


def _too_few(pending: Pending, subject: Subject) -> Finding | None:
    """A scheduler's word on a group that has fewer pods than must start together, so that it places none of them."""
    counts, group = _counts(pending.message), None
    told = _told_too_few(pending, subject)
    if told and not counts:
        counts = _counts(told[-1].message)
    if not counts:
        group, counts = _invalid(pending)
    if counts is None or counts[0] >= counts[1]:
        return None
    there, wanted = counts
    if told and _there(pending) >= wanted:
        return None  # the others have been made since
    one_by_one = surges(pending) and pending.subject.workload
    summary = f"Of the {wanted} pods that must start together {there} "
    summary += f"{'is' if there == 1 else 'are'} there, so {pending.scheduler} looks for no node yet"
    ways = [
        fixes.advice(
            f"See why {count_of(wanted - there, 'more pod')} did not come to be (a quota, an admission "
            f"webhook, what makes them), or let the group start with {there}",
            f"kubectl -n {pending.pod.namespace} get events --field-selector reason=FailedCreate",
            f"kubectl -n {pending.pod.namespace} get pods,{_groups_of(pending)}",
        )
    ]
    if one_by_one:
        summary += f": the update of {one_by_one.ref} makes one after the other"
        ways.insert(
            0,
            fixes.advice(
                f"Have the update make the whole group at once (maxSurge 100%) or take the old pods away first, in {one_by_one.ref}"
            ),
        )
    return Finding(
        summary=summary + ".",
        evidence=(
            *(event_evidence(e, pending.pod.cluster) for e in told[-1:]),
            *([condition_evidence(group, condition) for condition in _unschedulable(group)] if group else []),
            *said_by(pending),
            *_groups(pending),
        ),
        explains=EXPLAINS,
        fixes=tuple(ways),
    )


def _counts(message: str) -> tuple[int, int] | None:
    """How many pods of a group a scheduler counts, and how many must start together; None where it does not say."""
    for words in (*_FEWER_PODS, _FEWER, _INVALID):
        if counts := re.search(words, message):
            return int(counts["there"]), int(counts["wanted"])
    if listed := re.search(_STATES, message):
        return sum(int(n) for n in re.findall(r"\d{1,9}", listed["states"])), int(listed["wanted"])
    return None


def _invalid(pending: Pending) -> tuple[Item | None, tuple[int, int] | None]:
    """Volcano's PodGroup of the pod with its count, where it finds too few pods in it and no more have come since."""
    name, cluster = _group_of(pending.pod.item), pending.pod.cluster
    group = cluster.item("PodGroup", pending.pod.namespace, name) if name else None
    if group is None or dig(group.raw, "status.phase") not in ("Pending", "Inqueue"):
        return None, None
    counts = next((counts for told in _unschedulable(group) if (counts := _counts(told.message))), None)
    pods = [item for item in cluster.items("Pod", pending.pod.namespace) if _group_of(item) == name]
    if counts is None or sum("deletionTimestamp" not in item.metadata for item in pods) >= counts[1]:
        return None, None
    return group, counts


def _unschedulable(group: Item) -> list[k8s.Condition]:
    """What Volcano says on a group that it does not place."""
    return [c for c in group.conditions if c.type == "Unschedulable" and c.status == "True"]


def _rest_not_made(pending: Pending) -> Finding | None:
    """A pod of which Volcano says nothing: of its group there are fewer pods than must start together."""
    pod, cluster = pending.pod, pending.pod.cluster
    group = cluster.item("PodGroup", pod.namespace, name) if (name := _group_of(pod.item)) else None
    least = dig(group.raw, "spec.minMember") if group else None
    phase = str(dig(group.raw, "status.phase") or "Pending") if group else ""
    since, now = parse_time(pod.obj.metadata.creation_timestamp), cluster.now
    if not isinstance(least, int) or phase != "Pending" or pending.message or "volcano" not in pod.spec.scheduler_name:
        return None
    if since is None or now is None or now - since < _ALL_MADE:
        return None
    pods = [item for item in cluster.items("Pod", pod.namespace) if _group_of(item) == name]
    there = sum("deletionTimestamp" not in item.metadata for item in pods)
    said = [event for event in pod.events if event.warning and name in event.message]
    if there >= least or not (said or cluster.complete("Pod", pod.namespace)):
        return None
    return Finding(
        summary=f"Of the {least} pods of the PodGroup {name} that must start together {there} {'is' if there == 1 else 'are'} there, so "
        f"{pod.spec.scheduler_name} looks for no node yet.",
        evidence=(
            *(event_evidence(event, cluster) for event in said[-1:]),
            pod_evidence(pod, f"metadata.annotations[{_GROUP}]", name),
            *_groups(pending),
        ),
        explains=EXPLAINS,
        fix=fixes.advice(
            "See why the others were not made (a quota, an admission webhook, what makes them and whose the group is)",
            f"kubectl -n {pod.namespace} get pods,podgroups.scheduling.volcano.sh",
            f"kubectl -n {pod.namespace} get events --field-selector type=Warning",
        ),
        pods=(pod.name,),
    )


def _told_too_few(pending: Pending, subject: Subject) -> list[Event]:
    """KAI's events on the group of the pod, unless it looked for nodes after them."""
    names, told = _group_names(pending), list[Event]()
    for event in subject.events:
        if event.kind == "PodGroup" and event.name in names and re.search(_FEWER, event.message):
            told.append(event)
        elif event.reason in ("FailedScheduling", "Unschedulable"):
            told.clear()
    return told


def _there(pending: Pending) -> int:
    """How many pods of the group are known to exist; others may not have been read."""
    names = _group_names(pending)
    pods = pending.pod.cluster.items("Pod", pending.pod.namespace)
    return sum(
        item.annotations.get("pod-group-name") in names for item in pods if "deletionTimestamp" not in item.metadata
    )


def _group_names(pending: Pending) -> set[str]:
    """What may be the name of its PodGroup, by annotation or label, whatever scheduler it is of."""
    meta = pending.pod.obj.metadata
    return {str(v) for k, v in (*meta.annotations.items(), *meta.labels.items()) if "group" in k.lower()}


def _groups(pending: Pending) -> Iterator[Evidence]:
    """The PodGroup of the pod."""
    names = _group_names(pending)
    for item in pending.pod.cluster.items("PodGroup", pending.pod.namespace):
        if item.name in names:
            least = dig(item.raw, "spec.minMember")
            yield Evidence(source="workload", ref=f"PodGroup/{item.name} spec.minMember", text=str(least))


def _size(subject: Subject) -> int | None:
    size = dig(subject.workload.raw, "spec.leaderWorkerTemplate.size") if subject.workload else None
    return size if isinstance(size, int) else None


#: LeaderWorkerSet's labels on its pods.


def _fewer_groups(subject: Subject, asked: int, resource: str) -> Fix | None:
    """As many groups of a LeaderWorkerSet as can be complete with what several incomplete ones hold now."""
    workload, size = subject.workload, _size(subject)
    wanted = dig(workload.raw, "spec.replicas") if workload else None
    if workload is None or workload.kind != "LeaderWorkerSet" or not size or not isinstance(wanted, int):
        return None
    groups: dict[str, list[bool]] = {}
    others: dict[str, int] = {}  # leaders that ask for less
    for pod in subject.cluster.all(k8s.Pod, "Pod", subject.namespace):
        labels = pod.metadata.label_texts
        if labels.get(WORKER_SET) != workload.name or pod.status.phase in ("Succeeded", "Failed"):
            continue
        of_group = groups.setdefault(labels.get(WORKER_GROUP, ""), [])
        if requests_of(pod).get(resource, 0) == asked:
            of_group.append(bool(pod.spec.node_name))
        else:
            others[labels.get(WORKER_GROUP, "")] = others.get(labels.get(WORKER_GROUP, ""), 0) + 1
    whole = size - max(others.values(), default=0)
    complete = [index for index, placed in groups.items() if sum(placed) >= whole]
    held = sum(sum(placed) for index, placed in groups.items() if index not in complete)
    possible = len(complete) + held // max(whole, 1)
    if len(groups) - len(complete) < 2 or not 0 < possible < wanted:
        return None
    return fixes.advice(
        f"Run {possible} instead of {wanted} groups ({workload.ref}): those that are incomplete hold places for {held} members, and "
        f"{whole} make one whole",
        f"kubectl -n {subject.namespace} scale {workload.resource}/{workload.name} --replicas={possible}",
    )


def _fixes(
    subject: Subject, left: int, asked: int, resource: str, domain: tuple[str, str, bool] | None
) -> Iterator[Fix]:
    """`left` is how many members have no node."""
    if domain and subject.workload:
        none = " (no value of this label has nodes for the whole group, even empty)" if domain[2] else ""
        yield fixes.advice(
            f"Name a wider topology in the annotation {EXCLUSIVE} of {subject.workload.ref} than {domain[0]}, or take it away{none}"
        )
    if domain is None and (whole := _fewer_groups(subject, asked, resource)):
        yield whole
    each = " each, all at once" if left > 1 else ""
    at = f" with {domain[0]}={domain[1]}" if domain else ""
    text = f"Make room for {count_of(left, 'more pod')} of {asked} {resource}{each} (free or add nodes{at})"
    yield fixes.platform(text)
    if subject.workload:
        yield fixes.advice(
            f"Make the group smaller in {subject.workload.ref} (fewer members, same parallelism in total)"
        )
