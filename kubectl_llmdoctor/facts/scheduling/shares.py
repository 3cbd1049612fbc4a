"""Schedulers that give a container shares of GPUs, and one share of each GPU at the most.

Sources: HAMi pkg/scheduler/score.go (`NodeInsufficientDevice`: more devices are asked for than the node has; not of GPUs that
are cut by MIG, of which one may give several) and the registration by its device plugin; Volcano
pkg/scheduler/api/devices/nvidia/vgpu (one share of each device, `not enough gpu fitted on this node`). What the node offers counts
shares, ten of each GPU unless set otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.nodes import Node
from kubectl_llmdoctor.facts.scheduling.ask import Ask, Filter
from kubectl_llmdoctor.facts.scheduling.verdict import Reason
from kubectl_llmdoctor.facts.units import units

#: A piece of the scheduler's name, whose it is, the resource, and the annotation in which the plugin registers the GPUs of a node.
_SCHEDULERS = (
    ("hami", "HAMi", "nvidia.com/gpu", "hami.io/node-nvidia-register"),
    ("volcano", "Volcano", "volcano.sh/vgpu-number", "volcano.sh/node-vgpu-register"),
)
#: Fields of a GPU in the older form: `GPU-ab…,10,24576,100,NVIDIA-A10,0,true:`.
_FIELDS = 5


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


def registered(text: str) -> int | None:
    """How many GPUs a plugin registered in an annotation; None where it cannot be read, names none, or one that is cut by MIG."""
    if re.search(r'"mode":\s{0,3}"mig"|,mig\b', text):
        return None
    if text.lstrip().startswith("["):
        try:
            devices = msgspec.json.decode(text)
        except msgspec.DecodeError:
            return None
        ids = {str(d.get("id")) for d in devices if isinstance(d, dict)}
    else:
        ids = {one.partition(",")[0] for one in text.split(":") if one.count(",") >= _FIELDS - 1}
    return len(ids) or None


def _asked(container: k8s.Container, resource: str) -> int:
    amounts = container.resources
    return units(amounts.requests.get(resource) or amounts.limits.get(resource)) or 0
