"""A quota or limit range refuses the pod."""

import re
import shlex
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Container,
    Evidence,
    Finding,
    Fix,
    Item,
    Pod,
    Subject,
    check,
    condition_evidence,
    count_of,
    dig,
    event_evidence,
    expression,
    fixes,
    k8s,
    milli,
    object_evidence,
    pod_evidence,
    requests_of,
    rows,
    say_pairs,
    say_selector,
    sentence,
)
from llmdoctor_checks.scheduling._admission import given_a_quota, limited_priorities
from llmdoctor_checks.scheduling._kueue import (
    TooLarge,
    cluster_queue,
    for_topology,
    local_queue,
    too_large,
    uncovered,
    unlisted,
    workloads,
)
from llmdoctor_checks.scheduling._limits import ending, finished, instead, lowering, stating, widening
from llmdoctor_checks.scheduling._other_queues import at_no_leaf, by_gpu_admission, by_yunikorn, queueless
from llmdoctor_checks.scheduling._raising import (
    YUNIKORN,
    Raised,
    covered,
    has_room,
    of_elastic,
    of_flavor,
    of_group,
    of_kai,
    of_namespace,
    of_volcano,
    quantity,
    shown_queue,
    volcano_group,
    volcano_queue,
)
from llmdoctor_checks.scheduling._refused import LITERALS, hurts, lacking, refusals, unmade

#: Texts of the admission plugins ResourceQuota and LimitRanger.
_REFUSED = expression(
    r"exceeded quota: (?P<quota>[\w.-]{1,253}), requested: (?>(?P<asked>.{0,2000}?), used: )(?>(?P<used>.{0,2000}?), limited: )"
    r"(?P<limit>.*)"
    r"|failed quota: (?P<needs>[\w.-]{1,253}): must specify (?P<what>.*)"
    r"|insufficient quota to (?:match these scopes: \[(?P<scopes>[^\n]{1,600})\]|consume: (?P<uncovered>\S{1,600}))"
    r"|(?P<range>(?:maximum|minimum) \S+ usage per \w+ is .*|(?<!\S)\S{1,100} max limit to request ratio per \w+ is .*)",
    re.DOTALL,
)
#: Kinds that want their pods at once.
_EAGER = ("Deployment", "ReplicaSet", "StatefulSet", "Job", "LeaderWorkerSet")
#: Kueue's flavor assigner (pkg/scheduler/flavorassigner/flavorassigner.go): too little quota, or none of a resource at all.
_KUEUE = (
    r"insufficient (?:unused )?quota (?:in cohort )?for (?P<short>\S+) in flavor (?P<flavor>\S+)"
    r"|resource (?P<uncovered>\S+) unavailable in ClusterQueue"
    r"|borrowing limit for (?P<limited>\S+) in flavor (?P<lent>\S+) exceeded"  # early releases
)
#: What it adds where the request is more than the flavor has, or may borrow, at all.
_MOST = r"maximum capacity \((?:\S{1,40} > )?(?P<most>[\w.]{1,40})\)"
#: KAI's and Run:ai's texts (pkg/scheduler/api/unschedule_info.go), Volcano's (plugins proportion, capacity, resourcequota), Koordinator's
#: (plugins elasticquota, quotaaware) and those of the plugin CapacityScheduling (scheduler-plugins).
_QUEUE = (
    r"Workload requested (?>(?P<asked>.{1,200}?), but )(?>(?P<queue>.{1,300}?) quota is )(?>(?P<quota>.{1,200}?), while )"
    r"(?P<used>.{1,200}?) are already allocated for non-preemptible pods"
    r"|(?:^|: )(?P<over>[^:]{1,300}?) quota has reached the allowable limit of [^.]{1,200}\. Limit is (?P<limit>[^,]{1,100}), "
    r"currently (?P<taken>.{1,100}?) allocated and workload requested (?P<wants>[^.]+)"
    r"|(?P<volcano>queue resource quota insufficient)(?:: insufficient (?P<lacks>.+))?"
    r"|^(?P<namespace>resource quota insufficient), requested: "
    r"|Insufficient (?:non-preemptible )?quotas\b[^,]{0,300}, quotaName(?:Topo)?: \[?(?P<elastic>[^,\s\]]{1,253})[^,]{0,2000}, "
    r"(?>.{0,4000}?exceedDimensions: \[)(?P<exceeds>[^\]]{1,300})\]"
    r"|rejected in Pre[Ff]ilter because (?:total )?(?:ElasticQuota|quota|queue)(?: (?!used )(?P<capacity>\S{1,253}))?(?: used)? is "
    r"(?:more than (?:Max|min)|at quota)"
)
#: KAI's word on a queue that its scheduler does not know (0.12 on; before, it said nothing), and the label by which a pod, a queue and
#: the nodes belong to one of its node pools (pkg/common/constants): each pool's scheduler (SchedulingShard) sees only its own.
_NO_QUEUE = r"QueueDoesNotExist: .{0,300}?[Qq]ueue '(?P<queue>[^']{1,253})'.{0,100}? does not exist"
#: What KAI says of a pod whose group it has not tried to place (pkg/scheduler/api/common_info/pod_errors.go).
_NOT_LOOKED_AT = "Unable to schedule pod"
#: Volcano tells the gang's state and the reason in two events.
_GANG = "in gang unschedulable"


#: gpu-admission's word on a node that it passes over (tkestack, pkg/predicate/gpu_predicate.go): its labels are not of a pool and of a
#: model of GPUs of which the namespace has any left.
_GPU_ADMISSION = "ExceedsGPUQuota"


@check("quota-exceeded", since="0.1", literals=LITERALS)
def quota_exceeded(subject: Subject, cluster: Cluster) -> Iterator[Finding]:
    """A ResourceQuota, LimitRange or queue quota of the namespace refuses the pod.

    A pod beyond the quota is refused when it is made, so there is no pod to look at: the ReplicaSet, StatefulSet or
    Job keeps trying, and only its `FailedCreate` events say why (KubeRay: `FailedToCreateHeadPod`,
    `FailedToCreateWorkerPod`). A quota on a resource also refuses pods that do not
    state it. What a cluster limits to namespaces with a quota of their own for it (of GKE: the priority classes of its own pods) is
    refused in all others. A LimitRange refuses containers that ask for more, or less, than it allows. A quota of Kueue, KAI (Run:ai)
    or Volcano, or an ElasticQuota of Koordinator or of the plugin CapacityScheduling, keeps the workload waiting although GPUs may be
    free. In KAI a pod that cannot be preempted (its
    PriorityClass is 100 or above) gets what the queue is entitled to and never more; its schedulers see the queues of their own node
    pool only, and call others not existent. Tencent's gpu-admission keeps one of GPUs by model and pool in a ConfigMap.

    ## Fix

    Ask for less, free quota by removing other workloads of the namespace, or have the quota raised.

    ## References

    - https://kubernetes.io/docs/concepts/policy/resource-quotas/
    - https://kubernetes.io/docs/concepts/policy/limit-range/
    """
    if subject.static:
        return
    workload = subject.workload
    if not subject.exists or any(p.unscheduled for p in subject.pods):
        yield from _queued(subject, cluster)
        yield from _over_limit(subject)
    for message, evidence in refusals(subject, cluster):
        if found := _REFUSED.search(message):
            yield _stated(subject, cluster, evidence, found)
            return
    if lacking(subject) and workload and workload.kind in _EAGER and not subject.events.of("FailedCreate"):
        yield from _computed(subject, cluster)


def _stated(subject: Subject, cluster: Cluster, evidence: Evidence, found: re.Match[str]) -> Finding:
    beyond = ""
    if found["quota"]:
        beyond = _more_than_all(found["asked"], found["limit"])
        summary = f"Quota {found['quota']} refuses the pod: {_of_quota(found['asked'], found['used'], found['limit'])}."
        name = found["quota"]
    elif found["needs"]:
        summary = f"Quota {found['needs']} refuses the pod, because it does not state {found['what']}."
        name = found["needs"]
    elif found["scopes"] or found["uncovered"]:
        return _without_a_quota(subject, evidence, found)
    else:
        summary, name = f"A LimitRange refuses the pod: {found['range'].rstrip(']')}.", ""
    quoted = list(_objects(cluster, subject.namespace, name))
    return Finding(
        role="cause" if hurts(subject) else "risk",
        confidence="certain",
        summary=summary,
        evidence=(evidence, *quoted),
        explains=("rollout-stuck", "pod-pending"),
        fixes=tuple(_fixes(subject, name, found.groupdict(""), beyond=beyond)),
    )


def _without_a_quota(subject: Subject, evidence: Evidence, found: re.Match[str]) -> Finding:
    """What the API server lets only into namespaces with a quota of their own for it: as a rule, the priority of the cluster's own pods.

    Its configuration (limitedResources of the plugin ResourceQuota) is nothing that can be read; GKE, for one, has it so.
    """
    pod = next(iter(subject.pods), None)
    name = pod.spec.priority_class_name if pod else ""
    namespace, where = subject.namespace, fixes.edited(pod) if pod else "the workload"
    limited = limited_priorities(found[0])
    own = [
        n
        for item in subject.cluster.items("PriorityClass")
        if (n := item.name) not in limited and not n.startswith("system-")
    ]
    if limited and name in limited:
        what, given = f"priority class {name}", given_a_quota(namespace, name)
    else:
        what = found["scopes"] or found["uncovered"]
        look = f"kubectl -n {namespace} describe resourcequota"
        given = fixes.platform(f"Give namespace {namespace} a ResourceQuota for {what}", look)
    less = f"Take the {what} out of {where}" if limited else f"Ask for no {what} in {where}"
    if limited and pod and len(own) == 1:
        fix = fixes.set_spec(pod, "/priorityClassName", own[0], f"Name the priority class {own[0]} instead of {name}")
    else:
        fix = fixes.advice(f"{less}, or name another priority class: {', '.join(own[:4])}" if limited and own else less)
    return Finding(
        role="cause" if hurts(subject) else "risk",
        confidence="certain",
        summary=f"The API server lets pods with {what} only into namespaces that have a ResourceQuota for it, and {namespace} has none.",
        evidence=(evidence,),
        explains=("rollout-stuck", "pod-pending"),
        fixes=(fix, given),
    )


def _more_than_all(asked: str, limit: str) -> str:
    """What is asked of a quota that has less in all, so that no other workload need be stopped for it: `nvidia.com/gpu=2`."""
    whole = dict(part.strip().partition("=")[::2] for part in limit.split(","))
    for part in asked.split(","):
        name, _, amount = part.strip().partition("=")
        want, have = milli(amount), milli(whole.get(name))
        if want is not None and have is not None and want > have:
            return f"{name}={whole[name]}"
    return ""


def _objects(cluster: Cluster, namespace: str, quota: str) -> Iterator[Evidence]:
    for limits in cluster.all(k8s.ResourceQuota, "ResourceQuota", namespace):
        if limits.metadata.name == quota:
            hard = limits.status.hard or limits.spec.hard
            text = ", ".join(f"{k}: {limits.status.used.get(k, '0')} of {v}" for k, v in hard.items())
            yield Evidence(source="workload", ref=f"ResourceQuota/{quota}", text=text)
    if not quota:
        for limit in cluster.all(k8s.LimitRange, "LimitRange", namespace):
            for item in limit.spec.limits:
                text = f"{item.type}: max {_said(item.max)}, min {_said(item.min)}"
                yield Evidence(source="workload", ref=f"LimitRange/{limit.metadata.name}", text=text)


def _said(quantities: k8s.Quantities) -> str:
    return say_pairs(quantities) or "none"


def _of_quota(asked: str, used: str, limit: str) -> str:
    """`of requests.nvidia.com/gpu 2 asked, 7 of 8 used`; of several resources their words as the API server has them."""
    amounts = [text.partition("=") for text in (asked, used, limit)]
    if any("," in text for text in (asked, used, limit)) or len({name for name, _, _ in amounts}) > 1:
        return f"{asked} asked, {used} used of {limit}"
    (name, _, wanted), (_, _, taken), (_, _, most) = amounts
    return f"of {name} {wanted} asked, {taken} of {most} used"


def _fixes(subject: Subject, quota: str, found: dict[str, str], beyond: str = "") -> Iterator[Fix]:
    """`found` are the words of a refusal, or what they would be."""
    namespace = subject.namespace
    where = subject.workload.ref if subject.workload else "the pod"
    if needs := found.get("what"):
        yield from stating(subject, quota, needs)
        return
    if not quota:
        yield from widening(subject, found.get("range", ""))
        yield from lowering(subject, found.get("range", ""))
        return
    look = f"kubectl -n {namespace} describe resourcequota {quota}"
    raised = of_namespace(subject, quota, found["asked"], found["used"], found["limit"]) if found else None
    if beyond:
        less = "" if beyond.endswith("=0") else f"Ask for no more in {where}, or "
        text = f"{less}raise the quota {quota}, which allows {beyond} in all; to stop other workloads does not help"
        # a quota that is raised below needs no second advice to raise it
        others = (
            [fixes.advice(sentence(text), look, owner="model" if less else "platform")] if less or not raised else []
        )
    else:
        if found:
            yield from instead(subject, quota, found)
            yield from finished(subject, found)
        text = f"Ask for less in {where}{ending(subject, found)}"
        others = [fixes.advice(text, look)]
    if raised:
        yield from raised.beside(others)
        return
    if found and has_room(subject, quota, found["limit"]):
        text = f"Quota {quota} has room for it by now: the pod is made at the next try, within minutes"
        yield fixes.advice(text, look)
        return
    yield from others
    if not beyond:
        yield fixes.platform(f"Raise the quota {quota}")


def _over_limit(subject: Subject) -> Iterator[Finding]:
    """The word of a scheduler with queues on a pod whose queue has no more to give, also before the pod is made (Volcano's Job)."""
    for pod in subject.pods:
        if not (pod.unscheduled if pod.exists else unmade(subject)):
            continue
        condition = pod.condition("PodScheduled", "False") if pod.exists else None
        said: list[tuple[str, Evidence]] = []
        if condition:
            said.append((condition.message, pod_evidence(pod, "status.conditions[PodScheduled]", condition.message)))
        for kind in ("Pod", "PodGroup"):
            events = subject.events.of(
                "Unschedulable", "NotSchedulable", "FailedScheduling", "Informational", kind=kind
            )
            mine = [e for e in events if kind == "PodGroup" or e.name == pod.name]
            latest = 2 if mine and _GANG in mine[-1].message else 1
            said += [(e.message, event_evidence(e, subject.cluster)) for e in mine[-latest:]]
        for message, evidence in said:
            if unknown := re.search(_NO_QUEUE, message):
                yield queueless(pod, unknown["queue"], evidence)
                return
            if message == _NOT_LOOKED_AT and (passed_over := at_no_leaf(pod, evidence)):
                yield passed_over
                return
            if _GPU_ADMISSION in message:
                yield by_gpu_admission(pod, evidence)
                return
            found = re.search(_QUEUE, message)
            if not found and (told := re.search(YUNIKORN, message)):
                yield by_yunikorn(pod, told, evidence)
                return
            if found:
                yield _uncounted(subject, pod, found, evidence) or _held_back(subject, pod, found, evidence)
                return


def _uncounted(subject: Subject, pod: Pod, found: re.Match[str], evidence: Evidence) -> Finding | None:
    """A queue of Volcano of which nothing is used, and whose capability names some resources and no pods.

    Volcano counts pods as a resource like others, and some releases of its plugin proportion take one that the capability does not
    name for none.
    """
    name = volcano_queue(pod, subject)
    queue = pod.cluster.item("Queue", "", name)
    if queue is None or not found["volcano"] or found["lacks"]:
        return None
    capability, taken = dig(queue.raw, "spec.capability"), dig(queue.raw, "status.allocated")
    if not isinstance(capability, dict) or "pods" in capability:
        return None
    used = {str(k): str(v) for k, v in taken.items()} if isinstance(taken, dict) else {}
    asked, members = requests_of(pod.obj), _members(subject, pod)
    beyond = [
        r
        for r, limit in capability.items()
        if asked.get(str(r), 0) * members > (milli(limit) or 0) / (1 if r == "cpu" else 1000)
    ]
    if beyond or not capability or any(milli(amount) for amount in used.values()):
        return None
    counts = say_pairs(capability, ": ")
    has = "what the pod asks for" if members == 1 else f"what the {members} pods of the group ask for"
    return Finding(
        summary=f"Volcano's queue {name} has nothing in use and {has}, but its capability ({counts}) names no pods, "
        "which some releases take for none.",
        evidence=(evidence, object_evidence(queue, "spec.capability", counts)),
        explains=("pod-pending", "gang-incomplete", "scheduling-gated", "rollout-stuck"),
        fix=fixes.platform(
            f"Name pods in the capability of the queue {name}, or take a later release of Volcano",
            f"kubectl patch queues.scheduling.volcano.sh {shlex.quote(name)} --type=merge "
            """-p '{"spec":{"capability":{"pods":200}}}'""",
        ),
        pods=(pod.name,) if pod.exists else (),
    )


def _members(subject: Subject, pod: Pod) -> int:
    """How many pods of its group Volcano starts together, as far as is known: of all of them the queue must take what they ask for."""
    group, job = volcano_group(pod, subject), subject.workload
    least = dig(group.raw, "spec.minMember") if group else dig(job.raw, "spec.minAvailable") if job else None
    return least if isinstance(least, int) and least > 1 else 1


def _names(lacks: str) -> list[str]:
    return re.findall(r"[\w.-]{1,253}/[\w.-]{1,63}|\bcpu\b|\bmemory\b", lacks[:2000])


def _of_others(pod: Pod, group: Item | None, lacks: str) -> bool:
    """Whether neither the pod nor its group asks for what the queue lacks (Volcano's plugin proportion compares every resource)."""
    theirs = dig(group.raw, "spec.minResources") if group else None
    if group is None or not isinstance(theirs, dict):
        return False
    asked = requests_of(pod.obj)
    return bool(_names(lacks)) and not any(asked.get(name) or milli(theirs.get(name, 0)) for name in _names(lacks))


def _in_line(pod: Pod, lacks: str) -> Fix:
    """What has a place in the queue and no pods: a PodGroup stays in line where its workload was scaled to 0."""
    groups = [
        f"{item.namespace}/{item.name}"
        for item in pod.cluster.items("PodGroup")
        if dig(item.raw, "status.phase") == "Inqueue"
        and isinstance(wanted := dig(item.raw, "spec.minResources"), dict)
        and any(name in wanted for name in _names(lacks))
    ]
    return fixes.platform(
        "Delete PodGroups in line (Inqueue) that have no pods any more"
        + (f": {', '.join(sorted(groups)[:3])}" if groups else "")
        + "; or give what needs no GPU a queue of its own",
        "kubectl get podgroups.scheduling.volcano.sh -A",
    )


def _before(pod: Pod, subject: Subject, lacks: str) -> tuple[str, Fix] | None:
    """Groups in line before it that have pods, of a queue without a bound of its own: they are counted, and are placed nowhere.

    A queue without capability has what the cluster has; what is promised to a group that is in line is taken off before it is in use.
    """
    name, names = volcano_queue(pod, subject), _names(lacks)
    queue, own = pod.cluster.item("Queue", "", name), volcano_group(pod, subject)
    if queue is None or not names or not queue.api_version.startswith("scheduling.volcano.sh/"):
        return None
    given, taken = (dig(queue.raw, path) or {} for path in ("spec.capability", "status.allocated"))
    if not isinstance(given, dict) or not isinstance(taken, dict):
        return None
    if any(one in given or milli(taken.get(one, 0)) for one in names):
        return None
    ahead = [
        (item, one)
        for item in pod.cluster.items("PodGroup")
        if dig(item.raw, "status.phase") == "Inqueue"
        and dig(item.raw, "spec.queue") == name
        and (own is None or (item.namespace, item.name) != (own.namespace, own.name))
        and isinstance(wanted := dig(item.raw, "spec.minResources"), dict)
        for one in [next((n for n in names if milli(wanted.get(n))), "")]
        if one
    ]
    if not ahead:
        return None
    said = ", ".join(
        f"{item.namespace}/{item.name} ({dig(item.raw, 'spec.minResources')[one]} {one})" for item, one in ahead[:3]
    )
    first = ahead[0][0]
    return f"it is promised to {said}, in line (Inqueue) and not placed", fixes.advice(
        f"End what is in line and finds no place, or let it ask for what one node has: {said}; Volcano counts it as taken. Queue {name} "
        "has no bound of its own to raise",
        f"kubectl -n {first.namespace} describe podgroups.scheduling.volcano.sh {first.name}",
        "kubectl get podgroups.scheduling.volcano.sh -A",
    )


def _short_of(subject: Subject, pod: Pod, found: re.Match[str]) -> tuple[str, Raised | None, list[Fix]]:
    """What a queue has too little of in words, its quota raised by that, and what else helps."""
    elastic = found["elastic"] or found["capacity"]
    lacks = found["lacks"] or ", ".join((found["exceeds"] or "").split())
    if found["queue"]:
        preempted = fixes.advice("Let it be preempted (a PriorityClass below 100): then it may borrow beyond the quota")
        why = f"{found['asked']} asked, {found['used']} of {found['quota']} held by pods that cannot be preempted"
        return why, of_kai(pod, found["queue"], "quota", found["used"], found["asked"]), [preempted]
    if found["over"]:
        why = f"{found['wants']} asked, {found['taken']} of {found['limit']} allocated"
        return why, of_kai(pod, found["over"], "limit", found["taken"], found["wants"]), []
    why = f"too little is left of {lacks}" if lacks else "too little is left"
    if elastic:
        return why, of_elastic(pod, elastic, found.string, found["exceeds"] or ""), []
    return why, of_group(subject, found.string) if found["namespace"] else None, []


def _held_back(subject: Subject, pod: Pod, found: re.Match[str], evidence: Evidence) -> Finding:
    name, elastic = found["queue"] or found["over"], found["elastic"] or found["capacity"]
    by_elastic = "PreFilter" in found[0] or "Prefilter" in found[0] or bool(elastic)
    queue = f"queue {name}" if name else "its namespace"
    if found["volcano"]:
        queue = f"queue {volcano_queue(pod, subject)}"
    if by_elastic:
        queue = f"ElasticQuota {elastic}" if elastic else "all ElasticQuotas together"
    raised = queue if by_elastic else f"the quota of {queue}"
    why, exact, more = _short_of(subject, pod, found)
    why = re.sub(r"\b1 GPUs\b", "1 GPU", why)  # KAI counts so
    full = ""
    of_others = found["volcano"] is not None and _of_others(pod, volcano_group(pod, subject), found["lacks"] or "")
    if of_others:
        why += (
            ", of which it asks for nothing: Volcano counts what the queue has in use and in line, whoever comes next"
        )
        more.append(_in_line(pod, found["lacks"]))
    elif found["volcano"]:
        exact = of_volcano(pod, subject, _names(found["lacks"] or ""))
        if before := _before(pod, subject, found["lacks"] or ""):
            full = f"{queue} has too little left of {found['lacks']}, with none of it in use: {before[0]}"
            exact = Raised(before[1], True)
    shown = f"queues.scheduling.{'run.ai' if found['queue'] or found['over'] else 'volcano.sh'} -o wide"
    shown = "elasticquotas.scheduling.sigs.k8s.io -A" if by_elastic else shown
    wait = fixes.advice(
        f"Wait for, or end, other workloads of {queue}" + "; or ask for less" * (not of_others),
        f"kubectl -n {pod.namespace} describe resourcequotas" if found["namespace"] else f"kubectl get {shown}",
    )
    raising = fixes.platform(f"Raise {raised}")
    return Finding(
        confidence="certain",
        summary=f"The scheduler holds it back, because {full or f'{raised} is used up: {why}'}.",
        evidence=(evidence,),
        explains=("pod-pending", "gang-incomplete", "scheduling-gated", "rollout-stuck"),
        fixes=exact.beside([wait, *more]) if exact else (wait, raising, *more),
        pods=(pod.name,) if pod.exists else (),
    )


def _computed(subject: Subject, cluster: Cluster) -> Iterator[Finding]:
    """No event says so (they expire after an hour): the template compared with the limits of the namespace."""
    for pod in subject.pods[:1]:
        for limits in cluster.all(k8s.LimitRange, "LimitRange", subject.namespace):
            for item in limits.spec.limits:
                for container, resource, asked, bound, word in _beyond(pod, item):
                    yield Finding(
                        summary=(
                            f"LimitRange {limits.metadata.name} allows a container {word} {bound} of {resource}; "
                            f"{container.name} asks for {asked}, so the pod is refused."
                        ),
                        evidence=(
                            pod_evidence(container, "resources", f"{resource}: {asked}"),
                            Evidence(
                                source="workload",
                                ref=f"LimitRange/{limits.metadata.name}",
                                text=f"{item.type}: max {_said(item.max)}, min {_said(item.min)}",
                            ),
                        ),
                        explains=("rollout-stuck",),
                        fixes=tuple(_fixes(subject, "", {"range": _ranged(resource, asked, bound, word)})),
                    )
                    return
        yield from _over_quota(subject, cluster, pod)


def _ranged(resource: str, asked: str, bound: str, word: str) -> str:
    """What LimitRanger would say."""
    side, of = ("maximum", "limit") if word == "at most" else ("minimum", "request")
    return f"{side} {resource} usage per Container is {bound}, but {of} is {asked}"


def _beyond(pod: Pod, item: k8s.LimitItem) -> Iterator[tuple[Container, str, str, str, str]]:
    if item.type != "Container":
        return
    for container in pod.containers:
        resources = container.spec.resources
        for resource, bound in item.max.items():
            asked = resources.limits.get(resource, resources.requests.get(resource))
            if asked is not None and (milli(asked) or 0) > (milli(bound) or 0):
                yield container, resource, str(asked), str(bound), "at most"
        for resource, bound in item.min.items():
            asked = resources.requests.get(resource, resources.limits.get(resource))
            if asked is not None and (milli(asked) or 0) < (milli(bound) or 0):
                yield container, resource, str(asked), str(bound), "at least"


def _over_quota(subject: Subject, cluster: Cluster, pod: Pod) -> Iterator[Finding]:
    wanted = requests_of(pod.obj)
    for item in cluster.items("ResourceQuota", subject.namespace):
        quota = item.typed()
        if (
            not isinstance(quota, k8s.ResourceQuota)
            or dig(item.raw, "spec.scopes")
            or dig(item.raw, "spec.scopeSelector")
        ):
            continue  # a quota for some pods only: whether for this one is not worked out here
        for name, bound in (quota.status.hard or quota.spec.hard).items():
            resource = name.removeprefix("requests.")
            asked = (
                1000
                if resource in ("pods", "count/pods")
                else wanted.get(resource, 0) * (1 if resource == "cpu" else 1000)
            )
            used = milli(quota.status.used.get(name, 0)) or 0
            if asked and used + asked > (milli(bound) or 0):
                yield Finding(
                    summary=f"Quota {quota.metadata.name} leaves no room for the pod: {name} is limited to {bound}, "
                    f"{quota.status.used.get(name, 0)} of it used, and the pod needs more than the rest.",
                    evidence=tuple(_objects(cluster, subject.namespace, quota.metadata.name)),
                    explains=("rollout-stuck",),
                    fixes=tuple(_fixes(subject, quota.metadata.name, _counted(quota, wanted))),
                )
                return


def _counted(quota: k8s.ResourceQuota, wanted: dict[str, int]) -> dict[str, str]:
    """What the plugin ResourceQuota would say of a pod: what is asked, used and allowed of all that is requested."""
    hard, asked = quota.status.hard or quota.spec.hard, {}
    for name in hard:
        resource = name.removeprefix("requests.")
        if resource in ("pods", "count/pods"):
            asked[name] = "1"
        elif resource in wanted:
            asked[name] = quantity(resource, wanted[resource] * (1 if resource == "cpu" else 1000))
    listed = (
        {n: asked[n] for n in asked},
        {n: quota.status.used.get(n, 0) for n in asked},
        {n: hard[n] for n in asked},
    )
    asking, used, limit = (say_selector(one) for one in listed)
    return {"asked": asking, "used": used, "limit": limit}


def _queued(subject: Subject, cluster: Cluster) -> Iterator[Finding]:
    """Kueue's word on a workload that waits for quota."""
    for item in workloads(subject, cluster):
        if condition := item.condition("QuotaReserved", "False"):
            message = condition.message
            found = re.search(_KUEUE, message)
            if found and not for_topology(message):
                queue = dig(item.raw, "spec.queueName") or "its queue"
                yield Finding(
                    confidence="certain",
                    summary=f"Kueue holds it back in {queue}: {message}.",
                    evidence=(condition_evidence(item, condition),),
                    explains=("scheduling-gated", "pod-pending", "rollout-stuck"),
                    fixes=_queue_fixes(found, str(queue), item, cluster),
                )
                return
        silent = not any(one.type in ("QuotaReserved", "Evicted", "Finished") for one in item.conditions)
        silent = silent and dig(item.raw, "spec.active") is not False  # it waits for who deactivated it
        if (
            silent
            and not all(pod.just_made for pod in subject.pods if pod.exists)
            and (large := too_large(item, cluster))
        ):
            yield _never_admitted(item, large)
            return
        missing = uncovered(item, cluster)
        if missing and not all(pod.just_made for pod in subject.pods if pod.exists):
            yield _of_no_flavor(item, missing, cluster)
            return


def _never_admitted(workload: Item, large: TooLarge) -> Finding:
    """More pods in one group than any flavor of the queue has quota for, where Kueue has not come to say so itself."""
    asked, most = quantity(large.resource, large.asked), quantity(large.resource, large.most)
    group = f"{count_of(large.pods, 'pod')} of {large.pod_set}"
    return Finding(
        summary=f"Kueue can never admit it: the {group} ask for {asked} {large.resource} together, and no flavor of ClusterQueue "
        f"{large.queue.name}, which is in no cohort, has more than {most} ({large.flavor}).",
        evidence=(
            object_evidence(workload, "spec.podSets", f"{group} request {asked} {large.resource}"),
            object_evidence(large.queue, "spec.resourceGroups", f"{large.flavor}: {large.resource} {most}"),
        ),
        explains=("scheduling-gated", "pod-pending", "rollout-stuck", "gang-incomplete"),
        fixes=(
            fixes.platform(
                f"Raise the nominalQuota of {large.resource} in flavor {large.flavor} of ClusterQueue {large.queue.name} to {asked} where "
                "its nodes have as many, or put the queue into a cohort that can lend them",
                *shown_queue(workload, large.queue.name),
            ),
            fixes.advice(f"Ask for no more than {most} {large.resource} in all pods of the group: waiting is no help"),
        ),
    )


def _of_no_flavor(workload: Item, missing: list[str], cluster: Cluster) -> Finding:
    """A resource of which no flavor of the queue has a quota, where Kueue does not say so itself."""
    queue, lacks = local_queue(workload, cluster), " and ".join(missing)
    name = queue.name if queue else "its queue"
    listed = (
        {
            str(r.get("name")): None
            for row in rows(queue.raw, "status.flavorsReservation")
            for r in rows(row, "resources")
        }
        if queue
        else {}
    )
    return Finding(
        summary=f"Kueue holds it back in {name} without a word: it asks for {lacks}, and no flavor of the queue has a quota of it.",
        evidence=(
            object_evidence(workload, "spec.podSets", f"requests {lacks}"),
            *([object_evidence(queue, "status.flavorsReservation", f"quotas of {', '.join(listed)}")] if queue else []),
        ),
        explains=("scheduling-gated", "pod-pending", "rollout-stuck"),
        fixes=tuple(_uncovered_fixes(missing[0], workload, cluster)),
    )


def _uncovered_fixes(resource: str, workload: Item, cluster: Cluster) -> Iterator[Fix]:
    name, _ = cluster_queue(workload, cluster)
    local = str(dig(workload.raw, "spec.queueName") or "its queue")
    amount, also = _asked(workload, resource), unlisted(workload, cluster)
    most = f" of {amount} or more" if amount else ""
    behind = f"ClusterQueue {name}" if name else f"the ClusterQueue behind {local}"
    amounts = {resource: amount} | {other: asked for other in also if (asked := _asked(workload, other))}
    others = " and ".join(f"{other} ({asked})" for other, asked in amounts.items() if other != resource)
    likewise = f"; {others} as well" if others else ""
    yield (covered(workload, cluster, amounts) if amount else None) or fixes.platform(
        f"Give {resource} a nominalQuota{most} in a flavor of {behind}, and name it in coveredResources{likewise}",
        *shown_queue(workload, name),
    )
    lacking = " and ".join(amounts)
    yield fixes.advice(f"Take {lacking} out of the requests and limits of the pod")


def _asked(workload: Item, resource: str) -> str:
    """How much all pods of a Workload ask for; empty where it does not say."""
    whole = 0
    for pod_set in rows(workload.raw, "spec.podSets"):
        count = pod_set.get("count", 1)
        for container in rows(pod_set, "template.spec.containers"):
            given = [dig(container, f"resources.{kind}") for kind in ("requests", "limits")]
            one = next((milli(g[resource]) for g in given if isinstance(g, dict) and resource in g), 0)
            whole += (one or 0) * (count if isinstance(count, int) else 1)
    return quantity(resource, whole) if whole else ""


def _queue_fixes(found: re.Match[str], queue: str, workload: Item, cluster: Cluster) -> tuple[Fix, ...]:
    """What helps where Kueue has too little quota of a resource, or none of it in any flavor."""
    if found["uncovered"]:
        return tuple(_uncovered_fixes(found["uncovered"], workload, cluster))
    name, _ = cluster_queue(workload, cluster)
    look = shown_queue(workload, name)
    if found["limited"]:
        of = f" of ClusterQueue {name}" if name else ""
        return (
            fixes.platform(
                f"Raise the borrowingLimit of {found['limited']} in flavor {found['lent']}{of}, where its cohort has as much unused: with "
                "this workload the queue would use more than that and its nominalQuota",
                *look,
            ),
            fixes.advice(f"Wait for, or end, other workloads of {queue}; or ask for less {found['limited']}"),
        )
    flavor, short = found["flavor"].rstrip(",;"), found["short"]
    most = re.search(_MOST, found.string)
    if most and milli(most["most"]) == 0:
        less = fixes.advice(
            f"Take {short} out of the requests and limits of the pod, if it can do without: the queue has none"
        )
    elif most:
        less = fixes.advice(
            f"Ask for no more than {most['most']} {short} in all of its pods: the queue never has more, and waiting is no help"
        )
    else:
        less = fixes.advice(f"Wait for, or end, other workloads of {queue}; or ask for less {short}")
    if raised := of_flavor(workload, cluster, found.string, flavor):
        return raised.beside([less])
    raising = f"Raise the nominalQuota of {short} in flavor {flavor}" + (f" of ClusterQueue {name}" if name else "")
    return fixes.platform(raising, *look), less
