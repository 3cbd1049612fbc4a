"""The GPUs are partitioned, and the pod asks for another cut."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Finding,
    Fix,
    Node,
    Pending,
    Pod,
    check,
    fixes,
    node_evidence,
    node_hardware,
    pod_evidence,
    usage_of,
)
from llmdoctor_checks.scheduling._by_nodes import half_cut
from llmdoctor_checks.scheduling._obstacles import Cause
from llmdoctor_checks.scheduling._repairs import renamed, tried
from llmdoctor_checks.scheduling._separation import cause
from llmdoctor_checks.scheduling._words import asked_in, asking, finding, rename
from llmdoctor_checks.scheduling.gpu_resource_absent import offers

#: Labels of NVIDIA's MIG manager (mig-parted, deployments/…/nvidia-mig-manager): what it is to apply, and how that went.
MIG_CONFIG, MIG_STATE = "nvidia.com/mig.config", "nvidia.com/mig.config.state"
#: The states in which the slices are not there, in words. One that stays `pending` has most often ended at a pod that would
#: not go: the manager waits for the label to change, and leaves the device plugin switched off.
MIG_SAID = {"failed": "could not apply", "pending": "has begun and not finished"}


@check("mig-profile-mismatch", since="0.1")
def mig_profile_mismatch(pod: Pod, pending: Pending | None, node: Node | None) -> Iterator[Finding]:
    """The pod asks for a GPU or MIG profile that the partitioned GPUs do not offer.

    With MIG the device plugin advertises slices. Under the strategy `mixed` each profile has its own resource
    (`nvidia.com/mig-3g.40gb`) and partitioned GPUs no longer count as `nvidia.com/gpu`; under `single` every slice is
    called `nvidia.com/gpu` and there are no `mig-` names. A pod that asks for the other name, or for a profile that
    nobody configured, fits nowhere. Where the MIG manager could not apply a layout, or not all of it, slices are missing
    that the node's label promises.

    ## Fix

    Ask for a name that the nodes offer, with enough memory for the model, or partition a GPU as the pod needs it (label
    `nvidia.com/mig.config`, whose names stand in the ConfigMap that the operator's values call `migManager.config.name`).
    The strategy is `mig.strategy` in the values of the GPU operator's chart.

    ## References

    - https://docs.nvidia.com/datacenter/cloud-native/gpu-operator/latest/gpu-operator-mig.html
    - https://github.com/NVIDIA/k8s-device-plugin
    """
    found = cause(pending, "mig-profile-mismatch")
    if pending and found:
        yield from _waiting(pending, found)
    elif node and not pod.ready:
        yield from _stale(pod, node)


def _waiting(pending: Pending, found: Cause) -> Iterator[Finding]:
    offered = {n: nodes for n, nodes in offers(pending).items() if n.startswith("nvidia.com/")}
    asked = pending.requests.get(found.resource, 0)
    half = [v.node for v in found.verdicts if half_cut(v.node, found.resource)]
    summary = f"It asks for {asked} {found.resource}, "
    if half:
        there = half[0].allocatable(found.resource) or 0
        has = f"only {there} of them, which others hold" if there else "none of them"
        summary += f"and {half[0].name} has {has}."
    else:
        summary += "which no node offers"
        summary += f"; the partitioned GPUs are offered as {', '.join(offered)}." if offered else "."
    evidence = [*asked_in(pending, found.resource)]
    for name, nodes in list(offered.items())[:3]:
        if node := pending.subject.nodes.get(nodes[0]):
            strategy = node.labels.get("nvidia.com/mig.strategy")
            text = f"status.allocatable {name}: {node.allocatable(name)}"
            evidence.append(node_evidence(node, text + (f"; nvidia.com/mig.strategy={strategy}" if strategy else "")))
    failed = half or [v.node for v in pending.verdicts if v.node.labels.get(MIG_STATE) in MIG_SAID]
    failed.sort(key=lambda node: node.labels[MIG_STATE] != "failed")
    if failed:
        config, state = failed[0].labels.get(MIG_CONFIG, "its configuration"), failed[0].labels[MIG_STATE]
        summary = f"{summary[:-1]}; the MIG manager {MIG_SAID[state]} {config} on {failed[0].name}."
        evidence += [
            node_evidence(n, f"{MIG_CONFIG}={n.labels.get(MIG_CONFIG, '')}, {MIG_STATE}={n.labels[MIG_STATE]}")
            for n in failed[:3]
        ]
        held = [(key, value) for key, value in failed[0].labels.items() if value == "paused-for-mig-change"]
        evidence += [node_evidence(failed[0], f"{key}={value}") for key, value in sorted(held)[:1]]
    ways = [*(manager_log(failed[0]) for _ in failed[:1]), *(() if half else _fixes(pending, found, offered))]
    yield finding(pending, found, summary, evidence, ways, ("gpu-resource-absent",))


#: What nvidia-smi, and mig-parted with it, print where a GPU cannot be reset, and where the label's name is none of the ConfigMap's.
_IN_USE, _NO_CONFIG = "In use by another client", "selected mig-config not present"


def manager_log(node: Node) -> Fix:
    """What to do about a configuration that the MIG manager could not apply: who has a GPU of the node has to end first."""
    usage = usage_of(node.cluster)
    managers = [h.pod.metadata for h in usage.holders(node.name) if "mig-manager" in h.pod.metadata.name]
    named = {meta.name for meta in managers}
    said = " ".join(text.text[-20_000:] for text in node.cluster.snapshot.logs if text.pod in named)
    held = [
        h for h in usage.holders(node.name) if any(k.startswith("nvidia.com/") and v for k, v in h.requests.items())
    ]
    config = node.labels.get(MIG_CONFIG, "")
    label = f"kubectl label node {node.name} --overwrite {MIG_CONFIG}="
    again = (f"{label}all-disabled", f"{label}{config}") if config and config != "all-disabled" else ()
    look = f"{fixes.pods_on(node.name)} | grep mig-manager"
    if managers:
        look = f"kubectl -n {managers[0].namespace} logs {managers[0].name}"
    if _NO_CONFIG in said:
        text = f"Set {MIG_CONFIG} of {node.name} to a name that the MIG manager's ConfigMap has, or add {config} to it: it has no {config}"
        return fixes.platform(text, look, "kubectl get configmaps -A | grep mig")
    if held and (not said or _IN_USE in said):  # its log may say another reason
        refs = ", ".join(h.ref for h in held[:4])
        them, hold = ("it", "it holds") if len(held) == 1 else ("them", "they hold")
        text = (
            f"Have who owns {refs} end {them}: {hold} GPUs of {node.name}, and the MIG manager can reset none in use. "
        )
        text += f"Then let it try again: {MIG_CONFIG} to another value and back to {config or 'what it should be'}"
    elif _IN_USE in said:
        text = f"Find what uses a GPU of {node.name} outside of pods (DCGM, a monitoring agent, persistenced) and stop it there; then set "
        text += f"{MIG_CONFIG} to another value and back to {config or 'what it should be'}"
        again = (fixes.on_node(node.name, "nvidia-smi"), *again)
    else:
        text = f"Read why in the MIG manager's log on {node.name} (a GPU in use, a reset that the machine does not allow, a name that "
        text += "its ConfigMap lacks, a pod that would not end), fix it and set the label to another value and back"
    return fixes.platform(text, look, *again)


def _fixes(pending: Pending, found: Cause, offered: dict[str, list[str]]) -> Iterator[Fix]:
    working = [f for change in renamed(pending, found.resource, offered) if (f := tried(pending, change))]
    yield from working[:2]
    for container in asking(pending, found.resource)[:1] if not working else ():
        for name in list(offered)[:2]:
            text = f"Ask for {name}, which {', '.join(offered[name][:3])} offers (mind its memory)"
            yield rename(container, found.resource, name, text)
    profile = found.resource.removeprefix("nvidia.com/mig-")
    what = "leave a GPU whole" if profile == found.resource else f"make slices {profile}"
    yield fixes.platform(f"Change the MIG configuration of a node so as to {what}")


def _stale(pod: Pod, node: Node) -> Iterator[Finding]:
    """A node that still lists whole GPUs after all of them were partitioned: the pod is placed and gets no device."""
    hardware = node_hardware(pod.cluster, node.name)
    cut = [device.mig_enabled for device in hardware.devices] if hardware else []
    waits = any(c.waiting and not c.terminated for c in pod.containers)
    if not pod.accelerators.get("nvidia.com/gpu") or not waits or not cut or not all(cut):
        return
    if node.labels.get("nvidia.com/mig.strategy") != "mixed":
        return
    listed = node.allocatable("nvidia.com/gpu")
    slices = [n for n, amount in node.accelerators.items() if n.startswith("nvidia.com/mig-") and amount]
    yield Finding(
        summary=(
            f"It asks for nvidia.com/gpu, but all {len(cut)} GPUs of {node.name} are partitioned (MIG, mixed): "
            f"the {listed} that the node still lists are not there."
        ),
        evidence=(
            pod_evidence(pod, "containers[*].resources", f"nvidia.com/gpu: {pod.accelerators['nvidia.com/gpu']}"),
            node_evidence(node, f"status.allocatable nvidia.com/gpu: {listed}, " + ", ".join(slices)),
            node_evidence(node, f"agent: MIG is enabled on all {len(cut)} GPUs"),
        ),
        explains=("not-ready", "device-plugin-down"),
        fixes=(
            fixes.advice("Ask for a MIG profile that the node offers: " + (", ".join(slices) or "see its labels")),
            fixes.platform("Restart the device plugin on the node after a change of the MIG layout"),
        ),
    )
