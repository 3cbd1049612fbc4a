"""Every GPU that the pod could have is taken."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    PART_OF,
    Finding,
    Fix,
    Pending,
    Pod,
    Subject,
    check,
    count_of,
    dig,
    fixes,
    k8s,
    requests_of,
    top_of,
)
from llmdoctor_checks.scheduling._admission import refused_for
from llmdoctor_checks.scheduling._obstacles import Cause
from llmdoctor_checks.scheduling._repairs import one_more, ways
from llmdoctor_checks.scheduling._separation import cause
from llmdoctor_checks.scheduling._told import told
from llmdoctor_checks.scheduling._words import asked_in, finding, node_lines, nodes_said, scaling_lines

#: Who has some of a resource, and where.
_HOLDERS = (
    "kubectl get pods -A -o "
    "'custom-columns=NODE:.spec.nodeName,NAMESPACE:.metadata.namespace,POD:.metadata.name,HAS:.spec.containers[*].resources.limits.{}'"
)
#: The label by which KAI tells who shares a GPU.
_GROUP = "runai-gpu-group"
#: The image of the pods by which KAI takes a GPU that is to be shared.
_RESERVES = "resource-reservation"


@check("gpu-insufficient", since="0.1")
def gpu_insufficient(pod: Pod, pending: Pending | None, subject: Subject) -> Iterator[Finding]:
    """All GPUs of the kind that the pod asks for are taken.

    The nodes that could run the pod have enough GPUs when they are empty, but other pods hold them. A GPU counts as
    taken as long as its pod exists and has not ended, in any namespace: also while the pod crashes, pulls its image,
    or is being deleted. A pod that named its node itself, or was placed by two schedulers at once, is refused by the kubelet
    instead (`OutOfnvidia.com/gpu`). Under KAI a pod may ask for a part of a GPU (annotation `gpu-fraction` or `gpu-memory`): it
    needs a GPU that nobody has, which a pod of KAI's own then takes for it, or one that is shared and has as much left. Nodes
    without GPUs, tainted nodes of other teams and control planes do not matter here.

    ## Fix

    Free GPUs (stop or scale down what holds them), add a node of that kind, or ask for fewer. Preemption helps only
    against pods of lower priority.

    ## References

    - https://kubernetes.io/docs/tasks/manage-gpus/scheduling-gpus/
    - https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/
    """
    yield from refused_for("gpu-insufficient", pod, subject)
    yield from told("gpu-insufficient", pod, subject)
    found = cause(pending, "gpu-insufficient")
    if pending is None or found is None or _taken_for_it(pending, found):
        return
    wanted = _part(pending) or f"{pending.requests.get(found.resource, 0) or 'some'} {found.resource}"
    frees = {v.node.name: r.free or 0 for v in found.verdicts if (r := v.lacking(found.resource))}
    summary = f"It asks for {wanted}; {nodes_said(found)} could run it"
    if frees:
        most = max(frees.values())
        summary += f", and {f'at most {most} are free on one node' if most else 'none is free there'}"
        kept = _kept_for(pending, found)
        summary += f" beside what is kept for {', '.join(kept)}, which the scheduler places first." if kept else "."
    else:
        summary += " and have too few free, by the scheduler's count."
    evidence = [*asked_in(pending, found.resource), *node_lines(pending, found, holders=True), *scaling_lines(pending)]
    repairs = (_share_fix(pending, found),) if _part(pending) else _fixes(pending, found)
    yield finding(pending, found, summary, evidence, repairs)


def _taken_for_it(pending: Pending, found: Cause) -> bool:
    """Whether a GPU that is taken there is so by the very pod that KAI has made to take one for this pod, as its binder says."""
    holders = (holder for verdict in found.verdicts for holder in pending.usage.holders(verdict.node.name))
    return _part(pending) != "" and any(holder.ref in pending.message.split() for holder in holders)


def _part(pending: Pending) -> str:
    """The part of a GPU that it asks KAI for, in words."""
    marks = pending.pod.annotations
    unit = next((u for name, u in (("gpu-fraction", ""), ("gpu-memory", " MiB")) if marks.get(name)), None)
    if unit is None or not pending.foreign:
        return ""
    return f"{marks.get('gpu-fraction') or marks['gpu-memory']}{unit} of a GPU"


def _share_fix(pending: Pending, found: Cause) -> Fix:
    """What makes room on a GPU that is shared: KAI's own pods, which take them, go by themselves."""
    there = [holder for verdict in found.verdicts for holder in pending.usage.holders(verdict.node.name)]
    sharing = [h for h in there if not h.requests.get(found.resource) and _shares(h.pod)]
    alone = [
        h
        for h in there
        if h.requests.get(found.resource) and not any(_RESERVES in c.image for c in h.pod.spec.containers)
    ]
    names = sorted({holder.ref for holder in (*sharing, *alone)})
    whom = f" ({', '.join(names[:4])}{' …' if len(names) > 4 else ''})" if names else ""
    # beside those who have a whole GPU, no part of one is free
    smaller = [h for h in sharing if _part_of(h.pod) != 1] or not sharing
    ways = f"Scale down a pod that shares these GPUs or has one for itself{whom}, or add a node with GPUs"
    if smaller:
        ways = f"Scale down a pod that shares these GPUs or has one for itself{whom}, add a node with GPUs, or ask for a smaller part in "
        ways += fixes.edited(pending.pod)
    return fixes.platform(
        f"{ways}; leave KAI's reservation pods alone, it deletes those who share their GPU",
        f"kubectl get pods -A -o wide -L {_GROUP}",
    )


def _shares(pod: k8s.Pod) -> bool:
    """Whether a pod shares a GPU under KAI, by the label that it then gets, or by what it asks for."""
    marks = pod.metadata.annotations
    asks = bool(marks.get("gpu-fraction") or marks.get("gpu-memory"))
    return any(label.startswith(_GROUP) for label in pod.metadata.labels) or (
        asks and pod.spec.scheduler_name not in ("", "default-scheduler")
    )


def _part_of(pod: k8s.Pod) -> float | None:
    """The part of a GPU that a pod asks for, where it says it so."""
    try:
        return float(pod.metadata.annotations.get("gpu-fraction") or "")
    except ValueError:
        return None


#: By which the parts of one application belong together.
_RELEASE = ("app.kubernetes.io/instance", PART_OF)


def _of_one_release(pending: Pending, found: Cause) -> Fix | None:
    """Room for an application of which some parts wait while others of its parts have all that there is: none is to be stopped."""
    pod, resource = pending.pod, found.resource
    own = {key: value for key in _RELEASE if (value := pod.labels.get(key))}
    top = top_of(pod.item, pod.cluster)
    holders = [holder.pod for v in found.verdicts for holder in pending.usage.holders(v.node.name)]
    holders = [other for other in holders if requests_of(other).get(resource)]
    if not own or top is None or not holders or not all(_belongs(other, pod, own) for other in holders):
        return None
    items = [pod.cluster.item("Pod", other.metadata.namespace, other.metadata.name) for other in holders]
    tops = [top_of(item, pod.cluster) for item in items if item]
    if any(one is None or one.ref == top.ref for one in tops) or len(tops) < len(holders):
        return None
    waiting = [
        requests_of(other).get(resource, 0)
        for other in pod.cluster.all(k8s.Pod, "Pod", pod.namespace)
        if not other.spec.node_name and other.status.phase == "Pending" and _belongs(other, pod, own)
    ]
    each = [amount for amount in waiting if amount]
    release = next(iter(own.values()))
    refs = ", ".join(sorted({one.ref for one in tops if one})[:3])
    text = (
        f"Add nodes with {sum(each)} {resource} for {count_of(len(each), 'waiting pod')} of {release}: what has the others ({refs}) is a "
        "part of it, too. Or turn off the parts that are not needed"
    )
    if set(each) == {1} and resource == "nvidia.com/gpu":
        text += "; or let parts share a GPU (time slices of its device plugin), where their models fit into its memory together"
    return fixes.platform(text)


def _belongs(other: k8s.Pod, pod: Pod, own: dict[str, str]) -> bool:
    labels = other.metadata.label_texts
    return other.metadata.namespace == pod.namespace and any(labels.get(key) == value for key, value in own.items())


def _of_its_job(pending: Pending, found: Cause) -> Fix | None:
    """Pods of the same Job that end by themselves, each of which makes room for the next; numbered ones may wait for each other."""
    job = pending.subject.workload
    if (
        job is None
        or job.kind != "Job"
        or dig(job.raw, "spec.completionMode") == "Indexed"
        or dig(job.raw, "metadata.ownerReferences")
    ):
        return None
    holders = [h for v in found.verdicts for h in pending.usage.holders(v.node.name) if h.requests.get(found.resource)]
    tops = [
        top_of(pending.pod.cluster.item("Pod", h.pod.metadata.namespace, h.pod.metadata.name), pending.pod.cluster)
        for h in holders
    ]
    mine = sum(1 for top in tops if top is not None and top.item is job.item)
    if not mine:
        return None
    return fixes.advice(
        f"Wait, if the pods of {job.ref} do not need each other: {mine} of them {'runs' if mine == 1 else 'run'}, and when one ends the "
        f"next has its {found.resource}; parallelism {mine} makes no more at a time than that",
        f'kubectl -n {job.namespace} patch job/{job.name} --type=merge -p \'{{"spec":{{"parallelism":{mine}}}}}\'',
    )


def _kept_for(pending: Pending, found: Cause) -> list[str]:
    """The pods of no less priority that get what becomes free on these nodes (status.nominatedNodeName), whose victims are ending."""
    rivals = [pod for v in found.verdicts for pod in pending.usage.nominated.get(v.node.name, ())]
    mine = pending.pod.obj
    return sorted(
        f"{pod.metadata.namespace}/{pod.metadata.name}"
        for pod in rivals
        if pod.metadata.uid != mine.metadata.uid
        and (pod.spec.priority or 0) >= (mine.spec.priority or 0)
        and requests_of(pod).get(found.resource)
    )


def _fixes(pending: Pending, found: Cause) -> Iterator[Fix]:
    if own := _of_its_job(pending, found):
        yield own
    if whole := _of_one_release(pending, found):
        yield whole
    offered = [*ways(pending, found), *one_more(pending, found)]
    if not offered and (kept := _kept_for(pending, found)):
        yield fixes.platform(
            f"Add a node with {pending.requests.get(found.resource, 0)} {found.resource}, or wait until {', '.join(kept)} "
            f"{'is' if len(kept) == 1 else 'are'} placed, for which free ones are kept: what is freed there goes to it first",
            f"kubectl get pods -A -o wide --field-selector spec.nodeName={found.verdicts[0].node.name}",
        )
        return
    yield from offered or [
        fixes.platform(
            f"Free {pending.accelerators.get(found.resource, 0) or 'some'} {found.resource} on one of these nodes, or add a node that has "
            "as many; the command shows who has them",
            _HOLDERS.format(found.resource.replace(".", "\\.")),
        )
    ]
