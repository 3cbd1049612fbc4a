"""Pods that get nothing at a queue of KAI or YuniKorn, or of the quota that gpu-admission keeps."""

import re
import shlex

from kubectl_llmdoctor.api import (
    Evidence,
    Finding,
    Fix,
    Pod,
    dig,
    fixes,
    object_evidence,
    pod_evidence,
    say_amount,
)
from llmdoctor_checks.scheduling._raising import (
    of_yunikorn,
    queues_of_kai,
)

_KAI_POOL = "kai.scheduler/node-pool"


def by_gpu_admission(pod: Pod, evidence: Evidence) -> Finding:
    """A quota of GPUs by model and pool, which an extender of the scheduler keeps in a ConfigMap."""
    return Finding(
        confidence="certain",
        summary=f"The quota of GPUs that gpu-admission keeps for namespace {pod.namespace} leaves it no node: none is of a pool and of a "
        "model of GPUs of which it has any left.",
        evidence=(evidence,),
        explains=("pod-pending", "rollout-stuck"),
        fixes=(
            fixes.platform(
                f"Raise what ConfigMap kube-system/gpuquota gives {pod.namespace} (models under quota, pools under pool), or label nodes "
                "that are to count with tkestack.io/gpu-model and tkestack.io/gpu-pool: one without these labels is passed over",
                "kubectl -n kube-system get configmap gpuquota -o yaml",
                "kubectl get nodes -L tkestack.io/gpu-model -L tkestack.io/gpu-pool",
            ),
            fixes.advice(f"Remove other pods with GPUs of namespace {pod.namespace}, which count against it"),
        ),
    )


def by_yunikorn(pod: Pod, found: re.Match[str], evidence: Evidence) -> Finding:
    """A queue of YuniKorn's that has too little left. Its configuration is one text, in which a person changes it."""
    queue, short = found["yunikorn"], of_yunikorn(found["left"], found["needs"])
    lacks = " and ".join(
        f"{amount}m of vcore" if name == "vcore" else f"{say_amount(name, amount)} {name}"
        for name, amount in short.items()
    )
    lacks = lacks or "room"
    asked, left = (found[name].replace(" ", ", ") for name in ("needs", "left"))
    config = next((item for item in pod.cluster.items("ConfigMap") if item.name == "yunikorn-configs"), None)
    where = f"ConfigMap {config.namespace if config else 'yunikorn'}/yunikorn-configs"
    space = config.namespace if config else "yunikorn"
    return Finding(
        confidence="certain",
        summary=f"YuniKorn holds it back: queue {queue} lacks {lacks} for it (asked {asked}, left {left or 'nothing'}).",
        evidence=(evidence,),
        explains=("pod-pending", "gang-incomplete", "rollout-stuck"),
        fix=fixes.platform(
            f"Raise resources.max of queue {queue} (or of the queue above that is full) by {lacks} in {where}; or end pods "
            "of the queue that hold as much",
            f"kubectl -n {space} edit configmap yunikorn-configs",
            f"kubectl get pods -A -l queue={shlex.quote(queue)}",
        ),
        pods=(pod.name,) if pod.exists else (),
    )


def queueless(pod: Pod, name: str, evidence: Evidence) -> Finding:
    """A queue that the scheduler of the pod's node pool does not know: there is none, or it is another pool's."""
    queue = pod.cluster.item("Queue", "", name)
    if queue is not None and not queue.api_version.startswith("scheduling.run.ai/"):
        queue = None  # Volcano has queues, too
    theirs = queue.labels.get(_KAI_POOL, "") if queue else ""
    own = pod.labels.get(_KAI_POOL, "")
    unread = queue is None and not pod.cluster.complete("Queue")
    if queue is None or theirs == own:
        why = f"KAI knows no queue {name}, which it or its queue names."
        fix = _make_queue(pod, name, unread=unread)
    else:
        pool = f"node pool {own}" if own else "no node pool"
        why = (
            f"Queue {name} is there, of node pool {theirs or 'none'}, and the pod is of {pool}: the scheduler that looks at "
            "the pod does not see it."
        )
        text = f"Put the label {_KAI_POOL}: {theirs} on {fixes.pods_of(pod)}: queue {name} is of that node pool"
        fix = (
            fixes.annotate(pod, {_KAI_POOL: theirs}, text, field="labels")
            if theirs
            else fixes.advice(
                f"Take the label {_KAI_POOL} off {fixes.pods_of(pod)}: queue {name} is of no node pool",
                f"kubectl get queues.scheduling.run.ai {shlex.quote(name)} --show-labels",
            )
        )
    return Finding(
        confidence="certain" if queue is not None and theirs != own else "likely",
        summary=why,
        evidence=(
            evidence,
            *((object_evidence(queue, f"metadata.labels[{_KAI_POOL}]", theirs or "none"),) if queue else ()),
            *((pod_evidence(pod, f"metadata.labels[{_KAI_POOL}]", own or "none"),) if queue and theirs != own else ()),
        ),
        explains=("pod-pending", "gang-incomplete", "scheduling-gated", "rollout-stuck"),
        fix=fix,
        pods=(pod.name,) if pod.exists else (),
    )


def at_no_leaf(pod: Pod, evidence: Evidence) -> Finding | None:
    """A queue of KAI from which no pod is taken: one with queues below it, or, before 0.13, one with none above it."""
    name = pod.labels.get("kai.scheduler/queue") or pod.labels.get("runai/queue") or ""
    queues = queues_of_kai(pod)
    queue = next((item for item in queues if name and item.name == name), None)
    if queue is None:
        return None
    below = sorted(item.name for item in queues if dig(item.raw, "spec.parentQueue") == name)
    above = dig(queue.raw, "spec.parentQueue")
    if above and not below:
        return None
    parents = sorted({str(p) for item in queues if (p := dig(item.raw, "spec.parentQueue"))} & {i.name for i in queues})
    if below:
        text = f"Name a queue below {name} in the label kai.scheduler/queue of {fixes.pods_of(pod)}: {', '.join(below[:4])}"
        fix = fixes.annotate(pod, {"kai.scheduler/queue": below[0]}, text, field="labels")
        why = f"it has queues below it ({', '.join(below[:4])}), and KAI takes pods from the lowest ones alone"
    else:
        at = parents[0] if parents else "a queue that you make above it"
        text = f"Put queue {name} below another one (spec.parentQueue: {at}), or bring KAI to 0.13 or later"
        body = [{"op": "add", "path": "/spec/parentQueue", "value": parents[0]}] if parents else []
        look = f"kubectl edit queues.scheduling.run.ai {shlex.quote(name)}"
        fix = fixes.patch_object(queue, text, body, owner="platform") if body else fixes.platform(text, look)
        why = "it has none above it (spec.parentQueue), and KAI before 0.13 takes no pods from such a one"
    return Finding(
        confidence="certain" if below else "likely",
        summary=f"KAI does not look at the pods of queue {name}: {why}.",
        evidence=(evidence, object_evidence(queue, "spec.parentQueue", str(above or "none"))),
        explains=("pod-pending", "gang-incomplete", "scheduling-gated", "rollout-stuck"),
        fix=fix,
        pods=(pod.name,),
    )


def _make_queue(pod: Pod, name: str, *, unread: bool) -> Fix:
    """What helps where a queue is missing: the only other one that takes pods, else to make it, beside those that there are."""
    items = queues_of_kai(pod)
    parents = {str(dig(item.raw, "spec.parentQueue")) for item in items}
    leaves = [item.name for item in items if item.name not in parents]
    if len(leaves) == 1 and not unread:
        text = f"Name queue {leaves[0]} in the label kai.scheduler/queue of {fixes.pods_of(pod)}: there is no other"
        return fixes.annotate(pod, {"kai.scheduler/queue": leaves[0]}, text, field="labels")
    above = next((p for leaf in items if (p := dig(leaf.raw, "spec.parentQueue")) in {i.name for i in items}), None)
    boundless = {kind: {"quota": -1, "limit": -1, "overQuotaWeight": 1} for kind in ("cpu", "gpu", "memory")}
    spec = {**({"parentQueue": above} if above else {}), "resources": boundless}
    seen = f" (there are {', '.join(sorted(leaves)[:4])})" if leaves else ""
    text = f"Make the queue {name}, below, without bounds of its own{seen}"
    if unread:
        text += f"; where it is there, give it and the pods the same label {_KAI_POOL}"
    return fixes.platform(
        text,
        "kubectl get queues.scheduling.run.ai --show-labels",
        fixes.create("scheduling.run.ai/v2", "Queue", name, spec=spec),
    )
