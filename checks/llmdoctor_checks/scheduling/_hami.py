"""What HAMi's scheduler says of the cards of nodes, by reasons that have a remedy of their own (its `pkg/device`)."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import Fix, Pending, fixes
from llmdoctor_checks.scheduling._obstacles import Cause

#: How a pod asks for a share of an Ascend NPU that software cuts; and which nodes give such shares.
_SOFT, _SOFT_NODE = "huawei.com/vnpu-mode", "hami-vnpu-core"
_MUTEX, _CORDON, _CORES = "hami.io/gpu-scheduler-policy", "hami.io/device-cordon", "nvidia.com/gpucores"

#: The annotations of a pod that a reason is of, and what to do about one in words.
_BY_ANNOTATION = (
    ("NumaNotFit", r"[\w.-]{3,40}/numa-bind", "ask for fewer in one container: so many are free on no one NUMA node"),
    ("CardTypeMismatch", r"[\w.-]{3,40}/(?:no)?use-\w{2,8}type", "name a model that the nodes have: none of their cards is allowed"),
    ("CardTypeMismatch", r"nvidia\.com/vgpu-mode", "have nodes share their GPUs in that mode: none does"),
    ("CardUuidMismatch", r"[\w.-]{3,40}/(?:no)?use-gpu-?uuid", "name a card that is on these nodes: none of theirs is allowed"),
    ("CardMigTopologyInfeasible", r"nvidia\.com/vgpu-mode", "ask for less memory: no GPU has room for a slice of that size"),
)  # fmt: skip


def by_reason(pending: Pending, found: Cause) -> Iterator[Fix]:
    """What to do about the reasons that HAMi gives, where more than a smaller share helps."""
    said = " ".join(count.text for count in found.counts)
    pod, edited = pending.pod, fixes.edited(pending.pod)
    names = [v.node.name for v in found.verdicts]
    makers = {name.partition("/")[0] for name in pending.requests}
    if "ModeNotFit" in said and "huawei.com" in makers:
        yield _soft(pending, names)
    for reason, key, instead in _BY_ANNOTATION:
        held = [f"{name}: {value}" for name, value in pod.annotations.items() if re.fullmatch(key, str(name))]
        if reason in said and held:
            yield fixes.advice(f"Take the annotation {', '.join(held)} off {edited}, or {instead}")
    if "ResourceQuotaNotFit" in said:
        yield fixes.advice(
            f"Raise what a ResourceQuota of {pod.namespace} allows of limits.nvidia.com/gpumem or limits.{_CORES}, or ask for a smaller "
            "share: HAMi counts shares of the namespace by it",
            f"kubectl -n {pod.namespace} describe resourcequota",
        )
    if "CardCordoned" in said:
        kept = [node.name for node in pending.subject.nodes or () if _CORDON in node.obj.metadata.annotations]
        yield fixes.platform(
            f"Take the GPUs out of the annotation {_CORDON} of {', '.join(kept[:3]) or 'their node'} when they are fit again: HAMi gives "
            "none that it names",
            *(f"kubectl annotate node {name} {_CORDON}-" for name in kept[:1]),
        )
    if "CardTimeSlicingExhausted" in said and "nvidia.com" in makers:
        yield fixes.platform(
            "End a pod that shares the GPUs of these nodes, or raise devicePlugin.deviceSplitCount in the values of HAMi's chart (10 by "
            "default): each card has as many pods as that allows"
        )
    if "CardComputeUnitsExhausted" in said and "nvidia.com" in makers:
        yield fixes.advice(
            f"Lower {_CORES} of the pods that share the GPUs of these nodes, or end one: they have all cores of each card, though this "
            "pod asks for none"
        )
    if "ExclusiveDeviceAllocateConflict" in said:
        yield from _alone(pending)


def _soft(pending: Pending, names: list[str]) -> Fix:
    """The way in which shares of NPUs are cut, in which a pod and the nodes differ."""
    they = ", ".join(names[:3]) or "the nodes"
    mode = pending.pod.annotations.get(_SOFT)
    if mode == "hami-core":
        return fixes.advice(
            f"Take the annotation {_SOFT}: hami-core off {fixes.edited(pending.pod)}, so that a template cuts its share, or have {they} "
            f'give soft shares: annotation {_SOFT_NODE}: "true" of the node (hamiVnpuCore: true of HAMi for all nodes)'
        )
    if mode and mode != "template":
        return fixes.advice(
            f"Take the annotation {_SOFT}: {mode} off {fixes.edited(pending.pod)}, or have {they} cut NPUs in that way"
        )
    return fixes.annotate(
        pending.pod,
        {_SOFT: "hami-core"},
        f"Ask for a soft share by the annotation {_SOFT}: hami-core, as HAMi gives no share cut by a template on {they} (hamiVnpuCore, or "
        f"the node's annotation {_SOFT_NODE})",
    )


def _alone(pending: Pending) -> Iterator[Fix]:
    """What a pod does that wants cards on which nobody else is."""
    pod = pending.pod
    if "mutex" in str(pod.annotations.get(_MUTEX, "")):
        yield fixes.advice(
            f"Take mutex out of the annotation {_MUTEX} of {fixes.edited(pod)}, which wants cards that nobody uses, or end what uses one"
        )
    for container in pod.containers:
        if str(container.spec.resources.limits.get(_CORES)) == "100":
            yield fixes.advice(
                f"Ask for less than 100 {_CORES} in {container.name} of {fixes.edited(pod)}: with 100 HAMi wants a card on which nobody "
                "else has a share; or end what shares one"
            )
