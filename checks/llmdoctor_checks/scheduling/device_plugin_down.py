"""GPU nodes that do not advertise their GPUs."""

from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import (
    Cluster,
    Evidence,
    Finding,
    Fix,
    Hardware,
    Node,
    Pending,
    Pod,
    check,
    count_of,
    endings,
    event_evidence,
    expression,
    fixes,
    node_evidence,
    node_hardware,
    pod_evidence,
)
from kubectl_llmdoctor.catalog.xids import xid_meaning
from llmdoctor_checks.scheduling._admission import (
    MIRROR,
    PANIC,
    PLUGIN_LINES,
    Refusal,
    awaited,
    last_errors,
    plugin_evidence,
    plugin_lines,
    plugins_on,
    refusal,
    state_of,
    unmade_plugin,
)
from llmdoctor_checks.scheduling._daemons import (
    Absent,
    let_in,
    missing,
    offering,
    unlabelled,
    why_none,
)
from llmdoctor_checks.scheduling._obstacles import Cause
from llmdoctor_checks.scheduling._plugin_pods import counts, look, of_plugin, unfit
from llmdoctor_checks.scheduling._plugin_repairs import (
    LACKING,
    UNSEEN,
    UNSIGNED,
    by_answer,
    lacks_watches,
    last_words,
    repairs,
    shortened,
    uninstalled,
)
from llmdoctor_checks.scheduling._separation import cause
from llmdoctor_checks.scheduling._words import asked_in, finding, nodes_said
from llmdoctor_checks.scheduling.mig_profile_mismatch import MIG_CONFIG, MIG_SAID, MIG_STATE, manager_log

#: What the plugin answered when the kubelet asked it for devices, as gRPC passes it on.
_ANSWERED = expression(r"(?s)\A.{0,1900}\bdesc = (?P<why>[^\s,][^\n]{2,300})")

#: What the kubelet says of a plugin that went away over its question (gRPC's code).
_NO_ANSWER = "code = Unavailable"

#: What HAMi's plugin writes at its nodes, and its scheduler at the pods that it places (pkg/util/types.go): without it the plugin has
#: nothing to hand out.
_HAMI_NODE, _HAMI_POD = "hami.io/node-nvidia-register", "hami.io/vgpu-"
#: How gRPC says that no plugin runs.
_NOBODY = "connect: "


def _on_node(node: Node, cluster: Cluster) -> Iterator[Finding]:
    short = [
        (resource, listed, *should)
        for resource, listed in node.accelerators.items()
        if (should := node.should_offer(resource)) and should[0] and listed < should[0]
    ]
    if not node.accelerators and (should := node.should_offer("nvidia.com/gpu")):
        short = [("nvidia.com/gpu", 0, *should)]
    # A node that does not report offers nothing, whatever its plugin does; and one may be here in part only.
    if not short or node.ready is False or node.joining or not node.obj.status.allocatable:
        return
    resource, listed, count, why = short[0]
    if not listed and _by_claims(node.name, resource, cluster):
        return
    broken = list(unfit(cluster, node.name, resource)) or list(_disabled(cluster, node.name, resource))
    without = missing(cluster, [node], resource)
    reasons = [*(said for said, _ in broken[:3]), *([why_none(without)] if without else [])]
    yield Finding(
        severity="warning" if listed else "critical",
        summary="; ".join((f"{node.name} offers {listed} of {count or 'its'} {resource}", *reasons)) + ".",
        evidence=(
            node_evidence(node, f"status.allocatable {resource}: {listed}; {why}"),
            *(proof for one in without for proof in one.evidence),
            *(proof for _, proof in broken[:3]),
            *plugin_evidence(cluster, node.name),
        ),
        # a plugin that is restarted offers a broken GPU again
        fixes=(*(look(node.name) for _ in broken[:1]), *let_in(without), *repairs(cluster, node.name)),
    )


@check("device-plugin-down", since="0.1", literals=PLUGIN_LINES, on_node=_on_node)
def device_plugin_down(
    pod: Pod, pending: Pending | None, node: Node | None, hardware: Hardware | None, cluster: Cluster
) -> Iterator[Finding]:
    """A GPU node advertises fewer GPUs than it has: its device plugin is missing or broken.

    The kubelet knows GPUs only through the device plugin of the node. Without the plugin, or while it cannot talk to
    the driver, `status.allocatable` is zero although the GPUs are there. NVIDIA's plugin takes a device out of service
    after a critical Xid, and all of them after an error that it cannot assign, and never puts them back before it is
    restarted. A plugin that started before the driver was ready finds no device and waits forever. One that cannot watch the
    kubelet's folder, because the node's inotify instances are used up ("too many open files"), ends at once, again and again. Under a
    GPU operator it waits for the pods that bring the driver and the container toolkit: while one of these ends again and again,
    its last errors say what to fix. With the MIG strategy `single` NVIDIA's plugin ends where GPUs of the node are cut differently,
    or some not at all: that is what `mixed` is for. On a Jetson, which it knows by files that
    NVIDIA's runtime brings, it must not ask NVML.

    `capacity` counts all devices of the plugin, `allocatable` those that it calls healthy. Where the node agent runs, the
    driver's own count stands beside them, and which GPU is lost or waits for a reset.

    ## Fix

    Look at the plugin's pod and log on that node, fix what it names (driver, runtime, a taint that it does not
    tolerate) and restart it. After an Xid look at the GPU first: restarting the plugin offers a broken GPU again.

    ## References

    - https://github.com/NVIDIA/k8s-device-plugin
    - https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/device-plugins/
    """
    found = cause(pending, "device-plugin-down")
    if pending and found:
        yield from _waiting(pending, found, cluster)
        return
    nowhere = cause(pending, "gpu-resource-absent")
    if pending and nowhere and (unknown := unlabelled(cluster, pending.subject.nodes, nowhere.resource)):
        yield _unknown_nodes(pending, nowhere, unknown)
        return
    refused = refusal(pod, node)
    if refused and refused.verdict == "down":
        yield _refused(pod, refused, node, cluster)
    else:
        yield from [*of_plugin(pod, node, cluster)] or (_unhealthy(pod, hardware, cluster) if hardware else ())


def _refused(pod: Pod, refused: Refusal, node: Node | None, cluster: Cluster) -> Finding:
    """A pod that the kubelet refused, since the plugin gave it no device."""
    where = pod.spec.node_name
    answered = _ANSWERED.search(refused.text[:2000])
    why = f": {answered['why'].removesuffix(', which is unexpected').rstrip('.: ')}" if answered else ""
    past = [*_past_hami(pod, refused, node)]
    ways = [
        *past,
        *by_answer(pod, refused.text, cluster),
        *(_panicking(cluster, where, pod) if _NO_ANSWER in refused.text else ()),
        *repairs(cluster, where, runs=answered is not None or _registered(cluster, refused.text, refused.resource)),
    ]
    if not past and MIRROR not in pod.annotations and not any("refused pod" in way.summary for way in ways):
        ways.append(
            fixes.advice(
                f"Delete the refused pod then, which stays as it is{fixes.lone(pod)}",
                f"kubectl -n {pod.namespace} delete pod {pod.name}",
            )
        )
    return Finding(
        confidence="likely" if node else "possible",  # without the node it may have been a moment of a reboot
        summary=(
            f"The kubelet of {where or 'its node'} refused it, because the device plugin could not hand out "
            f"{refused.resource or 'a device'}{why}."
        ),
        evidence=(
            pod_evidence(pod, "status", refused.text),
            *counts(node, refused.resource),
            *plugin_evidence(cluster, where),
        ),
        explains=("pod-failed", "not-ready", "device-plugin-not-ready"),
        fixes=tuple(ways),
    )


def _past_hami(pod: Pod, refused: Refusal, node: Node | None) -> Iterator[Fix]:
    """What has HAMi's scheduler place a pod that came to one of its nodes by another way, and whose GPUs its plugin was asked for."""
    if (
        "rpc error: " not in refused.text
        or _NOBODY in refused.text
        or refused.resource.partition("/")[0] not in ("", "nvidia.com")
    ):
        return
    if UNSEEN.search(refused.text[:4000]) or LACKING.search(refused.text[:4000]):  # its own trouble
        return
    hami = node is not None and _HAMI_NODE in node.obj.metadata.annotations
    if node and hami and pod.accelerators and not any(key.startswith(_HAMI_POD) for key in pod.annotations):
        yield fixes.advice(
            "Have HAMi's scheduler place the pod, which writes at it what the plugin hands out: schedulerName: hami-scheduler in "
            f"{fixes.edited(pod)} and no nodeName there (nodeSelector kubernetes.io/hostname: {node.name} leads to the node as well)"
            f"{fixes.lone(pod)}",
            f"kubectl -n {pod.namespace} delete pod {pod.name}",
        )


def _registered(cluster: Cluster, text: str, resource: str) -> bool:
    """Whether the kubelet knows devices of a plugin, and all as unhealthy, where no DaemonSet that was read is to bring it."""
    seen = cluster.complete("DaemonSet") or bool(resource and offering(cluster, resource))
    return "no healthy devices" in text and not seen


def _by_claims(node: str, resource: str, cluster: Cluster) -> bool:
    """Whether a driver for claims (DRA), such as gpu.nvidia.com, offers the devices of a node in a device plugin's place."""
    specs = [item.raw.get("spec") for item in cluster.items("ResourceSlice")]
    here = (spec for spec in specs if isinstance(spec, dict) and spec.get("nodeName") == node and spec.get("devices"))
    return any(str(spec.get("driver")).endswith(resource.partition("/")[0]) for spec in here)


def _unknown_nodes(pending: Pending, found: Cause, without: list[Absent]) -> Finding:
    """A plugin that is installed and runs nowhere, since nothing says of any node that it has devices."""
    return finding(
        pending,
        found,
        f"No node offers {found.resource}: {why_none(without)}, and nothing here sets it.",
        [*asked_in(pending, found.resource), *without[0].evidence],
        [
            *let_in(without, known=len(without) == 1),
            fixes.platform(
                "Have a feature discovery label the nodes instead (gfd.enabled=true in the values of NVIDIA's chart, which brings NFD "
                "with it)"
            ),
        ],
        ("gpu-resource-absent",),
    )


class _Case(msgspec.Struct, frozen=True):
    """Nodes that are meant for a pod and offer too little, the first few of them, with what stands in the plugin's way there."""

    pending: Pending
    found: Cause
    cluster: Cluster
    nodes: list[Node]
    #: what of them offers less than it has; None of one of which nobody knows
    fewer: list[tuple[str, Evidence] | None]
    #: of so many a scheduler that shares GPUs knows none
    unknown: int
    #: GPUs that cannot be used as they are
    broken: list[tuple[str, Evidence]]
    without: list[Absent]

    @property
    def uncut(self) -> list[Node]:
        """The node whose manager of MIG slices stops the plugin while it works."""
        return [node for node in self.nodes if node.labels.get(MIG_STATE) in MIG_SAID][: any(self.fewer)]

    @property
    def whys(self) -> list[tuple[str, tuple[Evidence, ...]]]:
        """Why the plugin offers too little: each in words, with what says so."""
        whys = [*_reasons(self.cluster, self.found, self.nodes, self.uncut)]
        whys += [(why_none(self.without), tuple(self.without[0].evidence))] if self.without else []
        if not whys and not self.broken:
            whys += [(said, ()) for node in self.nodes for said in last_words(self.cluster, node.name)][:1]
        return whys


def _waiting(pending: Pending, found: Cause, cluster: Cluster) -> Iterator[Finding]:
    shown = [v.node for v in sorted(found.verdicts, key=lambda v: v.node.name)[:3]]
    unknown = sum(count.number for count in found.counts if count.kind == "unregistered")
    case = _Case(
        pending,
        found,
        cluster,
        shown,
        fewer=[None if unknown else _fewer(node, found.resource) for node in shown],
        unknown=unknown,
        broken=[pair for verdict in found.verdicts for pair in unfit(cluster, verdict.node.name, found.resource)],
        without=missing(cluster, shown, found.resource),
    )
    evidence = [*asked_in(pending, found.resource)]
    for node, less in zip(shown, case.fewer, strict=True):
        evidence += [*((less[1],) if less else ()), *plugin_evidence(cluster, node.name)]
    evidence += [proof for _, proof in case.broken[:4]]
    if case.unknown:
        summary = _unregistered(pending, found, case.unknown)
    elif any(case.fewer):
        whys = case.whys
        evidence += [proof for _, proofs in whys for proof in proofs]
        they = "does not advertise all of its" if len(found.verdicts) == 1 else "do not advertise all of their"
        offered = f"{', '.join(less[0] for less in case.fewer if less)} {found.resource}"
        reasons = (offered, *(said for said, _ in case.broken[:3]), *(said for said, _ in whys))
        summary = f"{nodes_said(found)} would fit but {they} GPUs: {'; '.join(reasons)}."
    else:
        why = f"by the scheduler's count: they advertise no {found.resource}."
        summary = f"{nodes_said(found)} match its GPU selector and could never hold it, {why}"
    yield finding(pending, found, summary, evidence, [*_ways(case)], ("gpu-insufficient", "gpu-resource-absent"))


def _fewer(node: Node, resource: str) -> tuple[str, Evidence] | None:
    """How many a node offers, where it is known that it has some; and what says so."""
    should = node.should_offer(resource)
    if should is None:
        return None
    listed = node.allocatable(resource) or 0
    evidence = node_evidence(node, f"status.allocatable {resource}: {listed}; {should[1]}")
    return f"{node.name} offers {listed} of {should[0] or 'its'}", evidence


def _ways(case: _Case) -> Iterator[Fix]:
    """What makes the plugin of the first node offer its GPUs."""
    resource = case.found.resource
    name = min((v.node.name for v in case.found.verdicts), default="")
    unhealthy = bool(case.unknown) and _all_unhealthy(case.found)
    runs = unhealthy or any(node.name == name and node.allocatable(resource) for node in case.nodes)
    # with a plugin there, somebody has found the node by another label
    named = [node for node in case.nodes if node.finely_named and not plugins_on(case.cluster, node.name)][:1]
    yield from map(_plainly, named)
    yield from map(manager_log, case.uncut)
    if case.broken:
        yield look(name)
    if not named and not case.uncut:
        yield from let_in(case.without)
    if case.unknown and not unhealthy and not case.without and _sharer(case.pending) == "HAMi":
        yield from _of_hami(case.nodes)
    yield from repairs(case.cluster, name, resource, runs=runs)


def _reasons(
    cluster: Cluster, found: Cause, shown: list[Node], uncut: list[Node]
) -> Iterator[tuple[str, tuple[Evidence, ...]]]:
    """Why the plugin of nodes offers too little, by what stands before it: each in words, with what says so."""
    for node in uncut:
        config, state = node.labels.get(MIG_CONFIG, "its configuration"), node.labels[MIG_STATE]
        proof = node_evidence(node, f"{MIG_CONFIG}={config}, {MIG_STATE}={state}")
        yield f"the MIG manager {MIG_SAID[state]} {config} on {node.name}", (proof,)
    if watchless := next((node.name for node in shown if lacks_watches(cluster, node.name)), None):
        yield f"the device plugin of {watchless} ends, because the node's inotify instances are used up", ()
    if first := next((one for v in found.verdicts if (one := awaited(cluster, v.node.name))), None):
        unsigned = [x for x in last_errors(cluster, first[0]) if UNSIGNED.search(x.text[:2000])]
        said = "".join(f": {shortened(line)}" for line in unsigned[:1])
        yield f"the pod of the {first[1]} is not done there ({state_of(first[0])}){said}", ()
    if driverless := next((node.name for node in shown if uninstalled(cluster, node.name)), None):
        yield f"the device plugin of {driverless} waits for a driver, and the node pool installs none", ()
    if unmade := unmade_plugin(cluster, found.resource):
        said = f"no pod of DaemonSet {unmade[0].name} is let into namespace {unmade[0].namespace}"
        yield said, (event_evidence(unmade[1], cluster),)


def _unregistered(pending: Pending, found: Cause, count: int) -> str:
    """Nodes of which a scheduler that shares GPUs knows none."""
    they = nodes_said(found) if found.verdicts else f"{count} node{'s' if count > 1 else ''}"
    if _all_unhealthy(found):
        return f"HAMi's device plugin says that no device of {they} is healthy."
    return f"{_sharer(pending)} knows no device of {they}: its device plugin does not run there, or has found none."


def _all_unhealthy(found: Cause) -> bool:
    """Whether HAMi's device plugin runs, and has no device that is well."""
    return any("CardNotHealth" in one.text for one in found.counts)


def _sharer(pending: Pending) -> str:
    """Whose scheduler shares GPUs, by its words for nodes of which it knows none."""
    return "Volcano" if "not initialized with device" in pending.message else "HAMi"


def _disabled(cluster: Cluster, node: str, resource: str) -> Iterator[tuple[str, Evidence]]:
    """The last error of a GPU of the node that makes it unusable, unless the driver was loaded again since."""
    hardware = node_hardware(cluster, node) if resource.startswith("nvidia.com/") else None
    for xid in reversed(hardware.xids if hardware else ()):
        meaning = xid_meaning(xid.number)
        if hardware and meaning and meaning.disables and not hardware.kernel.outlived(xid):
            yield f"{xid.device.title if xid.device else 'a GPU'} had Xid {xid.number}", xid.evidence
            return


def _plainly(node: Node) -> Fix:
    """What lets NVIDIA's GPU operator see a node again (internal/controller, `gpuNodeLabels`)."""
    return fixes.platform(
        "Have NFD name devices by vendor, or by class and vendor (sources.pci.deviceLabelFields of its worker): NVIDIA's GPU operator "
        f"looks for pci-10de.present, pci-0302_10de.present or pci-0300_10de.present, and {node.name} has "
        f"{node.finely_named.rpartition('/')[2]}",
        "kubectl get nodefeaturediscoveries.nfd.openshift.io -A -o yaml   # or: the ConfigMap of nfd-worker",
    )


def _of_hami(nodes: list[Node]) -> Iterator[Fix]:
    """The label by which HAMi's chart has its device plugin select nodes."""
    if lacking := [node.name for node in nodes if node.labels.get("gpu") != "on"]:
        yield fixes.platform(
            f"Label {', '.join(lacking)} gpu=on, which the device plugin of HAMi's chart selects",
            f"kubectl label node {' '.join(lacking)} --overwrite gpu=on",
        )


def _unhealthy(pod: Pod, hardware: Hardware, cluster: Cluster) -> Iterator[Finding]:
    """Devices of the pod that the plugin calls unhealthy: it keeps them, and nobody restarts it for that."""
    bad = [uuid for uuid, health in hardware.given.items() if health == "Unhealthy"]
    if not bad:
        return
    ended = any(endings(pod))
    yield Finding(
        role="cause" if ended else "risk",
        severity="warning",
        confidence="possible" if ended else "likely",
        summary=f"The device plugin of {hardware.node} calls {count_of(len(bad), 'GPU')} of this pod unhealthy: {', '.join(bad[:4])}.",
        evidence=(
            *(
                pod_evidence(pod, "status.containerStatuses[*].allocatedResourcesStatus", f"{uuid}: Unhealthy")
                for uuid in bad[:4]
            ),
            *plugin_evidence(cluster, hardware.node),
        ),
        explains=("crash-loop", "not-ready", "engine-dead"),
        fixes=(look(hardware.node), *repairs(cluster, hardware.node)),
    )


def _panicking(cluster: Cluster, node: str, pod: Pod) -> Iterator[Fix]:
    """What helps where the plugin of a node fell over the kubelet's question, by its log: it does so again when asked again."""
    for plugin in plugins_on(cluster, node):
        if any(PANIC in line.text for line in plugin_lines(cluster, plugin)):
            name = next((c.image for c in plugin.spec.containers), "") or plugin.metadata.name
            yield fixes.platform(
                f"Take another release of the device plugin on {node} ({name}): it panics when the kubelet asks it for the pod's devices, "
                "and starts again by itself; delete the refused pod then, whose owner makes another",
                f"kubectl -n {plugin.metadata.namespace or 'default'} logs {plugin.metadata.name} --previous",
                f"kubectl -n {pod.namespace} delete pod {pod.name}",
            )
            return
