"""Fixes in words: what is to be done, with its commands, by whom, and what may be offered in a namespace."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from kubectl_llmdoctor.facts.cluster import Cluster, Item
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.subject import workload_of
from kubectl_llmdoctor.platforms.labels import named_by, of_served_model
from kubectl_llmdoctor.report.document import Fix
from kubectl_llmdoctor.tree import rows

Owner = Literal["model", "platform"]


#: What a fix may ask for that Pod Security refuses: each level refuses what the wider one does, and more.
Privilege = Literal["", "capability", "privileged", "host", "root"]


_REFUSING: dict[str, tuple[Privilege, ...]] = {
    "baseline": ("capability", "privileged", "host"),
    "restricted": ("capability", "privileged", "host", "root"),
}


_ENFORCE = "pod-security.kubernetes.io/enforce"


def permitted(cluster: Cluster, namespace: str, offered: Iterable[tuple[Fix, Privilege]]) -> tuple[Fix, ...]:
    """The fixes with those last that the namespace's Pod Security level refuses, which they then say."""
    item = cluster.item("Namespace", "", namespace)
    level = item.labels.get(_ENFORCE, "") if item else ""
    allowed, refused = [], []
    for fix, asks in offered:
        if asks and asks in _REFUSING.get(level, ()):
            summary = f"{fix.summary} (Pod Security {level} of namespace {namespace} refuses it: a wider level first)"
            refused.append(msgspec.structs.replace(fix, summary=summary, owner="platform"))
        else:
            allowed.append(fix)
    return (*allowed, *refused)


def edited(pod: Pod) -> str:
    """The object that a person edits: `Deployment/llama`, or `Pod/llama` for a bare pod; of a log alone nobody knows it."""
    if pod.log_only:
        return "its workload"
    workload = workload_of(pod)
    return unread(pod) or (workload.ref if workload else f"Pod/{pod.name}")


def pods_of(pod: Pod) -> str:
    """`the pods of Deployment/llama`, or `Pod/llama` for a bare pod."""
    where = edited(pod)
    return where if where.startswith("Pod/") else f"the pods of {where}"


def unread(pod: Pod) -> str:
    """The owner above all that were read, as `Deployment/llama`: what it makes is written again, so a patch below it does not last."""
    workload = workload_of(pod)
    item = workload.item if workload else pod.item
    owner = maker(item) if item else ""
    # without an owner, labels of operators that serve models only: others, as Ray's, people set on objects of their own
    labels = pod.labels if owner else item.labels if item and of_served_model(item.labels) else {}
    kind, name = named_by(labels) if pod.exists else ("", "")
    # what is between them is made as well, and mostly cannot be changed
    return f"{kind}/{name}" if name and (workload is None or kind != workload.kind) else owner


def lone(pod: Pod) -> str:
    """What a fix says besides that deletes the pod, where nothing makes it again."""
    owned = pod.log_only or pod.obj.metadata.owner_references or workload_of(pod)
    return "" if owned else " (no controller recreates the pod: apply its manifest afterwards)"


def advice(summary: str, *commands: str, owner: Owner = "model") -> Fix:
    """A fix without a patch."""
    return Fix(summary=summary, owner=owner, commands=commands)


def platform(summary: str, *commands: str) -> Fix:
    """A fix without a patch, for who runs the cluster."""
    return advice(summary, *commands, owner="platform")


def on_node(node: str, command: str) -> str:
    """A command that runs on the node itself; only a privileged pod sees its GPUs and its kernel's log there."""
    return f"kubectl debug node/{node} -it --profile=sysadmin --image=busybox -- chroot /host {command}"


def pods_on(node: str) -> str:
    """The command that lists what runs on a node."""
    return f"kubectl get pods -A -o wide --field-selector spec.nodeName={node}"


def maker(item: Item) -> str:
    """What a controller makes an object of, as `InferenceService/llama`, so that a patch of it would be undone; empty where nothing."""
    refs = rows(item.metadata, "ownerReferences") if item.kind != "PersistentVolumeClaim" else []  # made once
    owner = next((ref for ref in refs if ref.get("controller") is True and ref.get("kind") != "Node"), {})
    kind, name = str(owner.get("kind") or ""), str(owner.get("name") or "")
    if not kind or not name:
        return ""
    template = item.labels.get("pod-template-hash")
    if kind == "ReplicaSet" and template and name.endswith(f"-{template}"):
        return f"Deployment/{name.removesuffix(f'-{template}')}"
    return f"{kind}/{name}"
