"""Schedulers that give a container shares of GPUs: HAMi and Volcano by a resource, KAI by an annotation of the pod.

Of each GPU a container gets one share at the most. Sources: HAMi pkg/scheduler/score.go (`NodeInsufficientDevice`: more devices
are asked for than the node has; not of GPUs that are cut by MIG, of which one may give several) and the registration by its device
plugin; Volcano pkg/scheduler/api/devices/nvidia/vgpu (one share of each device, `not enough gpu fitted on this node`). What the node
offers counts shares, ten of each GPU unless set otherwise. KAI (and Run:ai) pkg/common/constants and
pkg/binder/binding/resourcereservation: a pod asks for a fraction or for MiB of a GPU and for no resource; a pod of KAI's own takes
each GPU that is shared, under a label that names the group, and those who share it bear the same label.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.accelerator import HAMI_REGISTER, registered
from kubectl_llmdoctor.facts.nodes import Node
from kubectl_llmdoctor.facts.scheduling.ask import Ask, Filter
from kubectl_llmdoctor.facts.scheduling.verdict import Reason
from kubectl_llmdoctor.facts.units import units
from kubectl_llmdoctor.facts.usage import Usage

#: A piece of the scheduler's name, whose it is, the resource, and the annotation in which the plugin registers the GPUs of a node.
_SCHEDULERS = (
    ("hami", "HAMi", "nvidia.com/gpu", HAMI_REGISTER),
    ("volcano", "Volcano", "volcano.sh/vgpu-number", "volcano.sh/node-vgpu-register"),
)
#: Pieces of the names under which KAI is installed, and its annotations and label.
_KAI = ("kai", "runai")
_FRACTION, _MEMORY, _DEVICES, _GROUP = "gpu-fraction", "gpu-memory", "gpu-fraction-num-devices", "runai-gpu-group"
#: In MiB, from GPU Feature Discovery.
_GPU_MEMORY = "nvidia.com/gpu.memory"
_GPU = "nvidia.com/gpu"


def shares(ask: Ask) -> Filter | None:
    """The extender's own filter, for a pod that one of these schedulers places."""
    name = (ask.spec.scheduler_name or "").lower()
    found = next((one for one in _SCHEDULERS if one[0] in name), None)
    if found is None:
        return None
    _, who, resource, annotation = found
    most = max((_asked(container, resource) for container in ask.spec.containers), default=0)

    def judge(node: Node) -> Iterator[Reason]:
        gpus = registered(str(node.obj.metadata.annotations.get(annotation) or ""))
        if gpus and most > gpus:
            yield Reason(
                plugin=who,
                kind="shares",
                text="NodeInsufficientDevice",
                detail=f"{resource}: {most} asked for one container, and {who} knows {gpus} GPU{'s' if gpus > 1 else ''} here",
                resource=resource,
                asked=most,
                free=gpus,
                allocatable=gpus,
            )

    return judge if most > 1 else None


def _asked(container: k8s.Container, resource: str) -> int:
    amounts = container.resources
    return units(amounts.requests.get(resource) or amounts.limits.get(resource)) or 0


def fractions(ask: Ask) -> Filter | None:
    """KAI's own filter for a pod that shares a GPU: a GPU that nobody has, or room beside others on one that is shared."""
    marks, name = ask.pod.annotations, (ask.spec.scheduler_name or "").lower()
    if not any(piece in name for piece in _KAI) or not {_FRACTION, _MEMORY} & set(marks):
        return None
    devices = max(units(str(marks.get(_DEVICES) or 1)) or 1, 1)

    def judge(node: Node) -> Iterator[Reason]:
        gpus, asked = node.offers(_GPU), _fraction(marks, node)
        if gpus is None or asked is None:
            return
        free = max(gpus - ask.usage.used(node.name).get(_GPU, 0), 0)
        left = _left(ask.usage, node) if free < devices else []
        if free + sum(room >= asked for room in left) >= devices:
            return
        shared = f", and at most {max(left):.2g} of one that is shared" if left else ""
        yield Reason(
            plugin="KAI",
            kind="resource",
            text="didn't have enough resources: GPUs",
            detail=f"{_GPU}: {asked:.2g} of {'a GPU' if devices == 1 else f'each of {devices} GPUs'} asked, {free} of {gpus} free{shared}",
            resource=_GPU,
            asked=devices,
            free=free,
            allocatable=gpus,
        )

    return judge


def _left(usage: Usage, node: Node) -> list[float]:
    """What is left of each GPU of a node that is shared; all of one whose users are not known."""
    taken: dict[str, float] = {}
    for holder in usage.holders(node.name):
        meta = holder.pod.metadata
        share = 0.0 if holder.requests.get(_GPU) else _fraction(meta.annotations, node)
        for label, value in meta.labels.items():
            if label.partition("/")[0] == _GROUP:
                group = str(value)
                taken[group] = taken.get(group, 0) + (float("-inf") if share is None else share)
    return [round(1 - min(max(share, 0), 1), 6) for share in taken.values()]


def _fraction(marks: Mapping[str, Any], node: Node) -> float | None:
    """Which part of a GPU of a node the annotations ask for; None where that is not known."""
    try:
        if _FRACTION in marks:
            part = float(marks[_FRACTION])
        else:
            part = float(marks[_MEMORY]) / float(node.labels[_GPU_MEMORY])
    except (ArithmeticError, KeyError, TypeError, ValueError):
        return None
    return part if 0 < part <= 1 else None
