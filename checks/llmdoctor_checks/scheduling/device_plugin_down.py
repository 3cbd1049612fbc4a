"""GPU nodes that do not advertise their GPUs."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Evidence,
    Finding,
    Fix,
    Hardware,
    Line,
    Node,
    Pending,
    Pod,
    check,
    count_of,
    endings,
    event_evidence,
    expression,
    fixes,
    in_order,
    is_accelerator,
    k8s,
    log_evidence,
    node_evidence,
    node_hardware,
    pod_evidence,
    table,
    units,
)
from kubectl_llmdoctor.catalog.xids import xid_meaning
from llmdoctor_checks.scheduling._admission import (
    DISCOVERS,
    MIRROR,
    NO_AMD_DEVICES,
    PANIC,
    PLUGIN_LINES,
    WATCHES_USED_UP,
    WITHOUT_NVML,
    Refusal,
    awaited,
    is_device_plugin,
    last_errors,
    let_made,
    not_opened,
    opening,
    plugin_evidence,
    plugin_lines,
    plugins_on,
    refusal,
    state_of,
    unmade_plugin,
)
from llmdoctor_checks.scheduling._daemons import (
    Absent,
    brought,
    cluster_policy,
    driver_of_google,
    let_in,
    missing,
    offering,
    unlabelled,
    why_none,
)
from llmdoctor_checks.scheduling._obstacles import Cause
from llmdoctor_checks.scheduling._separation import cause
from llmdoctor_checks.scheduling._words import asked_in, finding, nodes_said
from llmdoctor_checks.scheduling.mig_profile_mismatch import MIG_CONFIG, MIG_SAID, MIG_STATE, manager_log

#: What the plugin answered when the kubelet asked it for devices, as gRPC passes it on.
_ANSWERED = expression(r"(?s)\A.{0,1900}\bdesc = (?P<why>[^\s,][^\n]{2,300})")
#: gRPC's word for a list that is longer than the kubelet takes: plugins that share memory list a device for each piece of it.
_TOO_LONG = "received message larger than max"

#: The kernel (kernel/module/signing.c), modprobe and NVIDIA's installer of a module that may not be loaded under Secure Boot.
_UNSIGNED = expression(
    r"unsigned module is rejected|Key was rejected by service|not signed by a key that is trusted|Required key not available"
)
#: What the first container of GKE's plugin prints in a node pool that was made without the driver.
_NO_INSTALLATION = "GPU driver auto installation is disabled"
#: What NVIDIA's plugin ends with where it writes a CDI specification (nvidia-container-toolkit `pkg/nvcdi`): under the root of the driver
#: that it was told there are no libraries of the driver that the kernel runs.
_NO_LIBRARY = expression(r"\b(?P<file>libcuda\.so\.\d[\d.]{2,20})(?:: pattern \S{1,60})? not found")
#: NVIDIA's plugin where MIG is on and there is no instance (go-nvlib; before 0.10 its own `mig-strategy.go`).
_UNCUT = expression(r"has no MIG devices configured|invalid MIG configuration|No MIG devices associated with ")
#: The same where the strategy `single` wants all GPUs of a node to be cut into slices of one kind: only for that does it look at the slices
#: (`assertAllMigDevicesAreValid`, `buildDeviceMapFromConfigResources`; before 0.12 `mig-strategy.go`).
_UNALIKE = expression(
    r"[Mm]ore than one MIG device type present on node|configured with the same migEnabled value"
    r"|invalid MIG configuration: (?:error visiting devices?: ){0,6}error visiting MIG device(?!.{0,400}error getting device attributes)"
)
#: The same where its container may not look at a whole GPU that is cut (NVML's word for that; `internal/rm`, `api/config/v1`).
_UNMONITORED = expression(r"error getting device memory info: Insufficient Permissions")
#: The same of a GPU that has no memory of its own and uses the machine's (GB10), which releases before 0.17.4 end with.
_UNIFIED = expression(r"error getting device memory: (?:Not Supported|ERROR_NOT_SUPPORTED)")
#: And what it answers the kubelet then, which asks it for devices that lie well together: it looks at all GPUs of the node for that.
_UNSEEN = expression(
    r"(?:error creating nvml\.Device \d{1,3}|unable to get device link information)\b.{0,200}: Insufficient Permissions"
)
#: A program that HAMi's plugin for Ascend runs, and does not find where it looks.
_LACKING = expression(r"\b(?P<program>[\w-]{1,40}) not found in \[/")

#: What the plugins of HAMi and Volcano answer where the kubelet asks for another pod than the one that they look at.
_MIXED_UP = expression(r"device number not matched|device request not found|empty id from pod annotation")

#: What NVIDIA's driver container prints where no repository has the kernel that runs (gpu-driver-container), and what apt and dnf say.
_UNFETCHED = expression(
    r"Temporary failure resolving|Could not resolve host|Failed to fetch https?://(?!\S{1,500}\s{1,4}404\b)"
    r"|Failed to download metadata for repo"
)
_HEADERLESS = expression(
    r"Could not resolve Linux kernel version|Failed to fetch https?://\S{1,400}/linux-\S{1,200}\s{1,4}404\b"
    r"|Unable to locate package linux-(?:headers|modules|image|objects)-"
    r"|(?:Unable to find a match|No match for argument): kernel-(?:headers|devel|core)"
)

#: What AMD's plugin ends with where the driver's module is not loaded.
_NO_AMDGPU = "amdgpu driver unavailable"

#: What the kubelet says of a plugin that went away over its question (gRPC's code).
_NO_ANSWER = "code = Unavailable"

#: What NVIDIA's plugin says as it gives up a device (`internal/rm/health.go`).
_BY_XID = expression(r"XidCriticalError: Xid=(?P<xid>\d{1,4}) on Device=(?P<gpu>[\w-]{8,80})")
#: Kinds of Xids that a program may cause: a GPU that is offered again after one of these works.
_OF_PROGRAMS = ("application", "info")

#: What NVIDIA's plugin up to 0.7, and those made after it, end with where they cannot watch the kubelet's folder (`main.go`).
_UNWATCHED = "Failed to created FS watcher."
#: What NVIDIA's plugin and its MPS control daemon end with where NVML does not know a GPU's device file (`internal/rm/nvml_devices.go`): of
#: an integrated GPU, and on WSL, which the plugin knows from 0.15 on.
_NO_MINOR = "error getting GPU device minor number: Not Supported"

#: What HAMi's plugin writes at its nodes, and its scheduler at the pods that it places (pkg/util/types.go): without it the plugin has
#: nothing to hand out.
_HAMI_NODE, _HAMI_POD = "hami.io/node-nvidia-register", "hami.io/vgpu-"
#: How gRPC says that no plugin runs.
_NOBODY = "connect: "

#: What klog writes before its words.
_LOG_HEAD = expression(r"^[IWEF]\d{4} [\d:.]{8,16} {1,8}\d{1,10} [\w.-]{1,80}:\d{1,6}\] ")
#: The kubelet's socket, by which a plugin registers, and which SELinux may keep it from.
_NO_SOCKET = "kubelet.sock: connect: permission denied"

#: Where k3s and RKE2 have the socket of their containerd.
_K3S_SOCKET = "/run/k3s/containerd/containerd.sock"


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
    broken = list(_unfit(cluster, node.name, resource)) or list(_disabled(cluster, node.name, resource))
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
        fixes=(*(_look(node.name) for _ in broken[:1]), *let_in(without), *_restart(cluster, node.name)),
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
    elif is_device_plugin(pod.obj) and (line := _watchless_line(pod, cluster)):
        yield Finding(
            confidence="certain",
            summary="The device plugin cannot watch the kubelet's folder and ends: the inotify instances of "
            f"{pod.spec.node_name or 'its node'} are used up.",
            evidence=(log_evidence(line),),
            explains=("crash-loop", "not-ready"),
            fixes=tuple(_restart(cluster, pod.spec.node_name)),
            order=line.order,
        )
    elif pod.failing and (line := _without_minor(pod, cluster)):
        yield _of_no_minor(pod, node, line)
    elif is_device_plugin(pod.obj) and (line := _kept_out(pod, cluster)):
        where = pod.spec.node_name or "its node"
        yield Finding(
            confidence="certain",
            summary=f"The device plugin may not speak to the kubelet of {where} and ends: most often SELinux keeps it from the socket.",
            evidence=(log_evidence(line),),
            explains=("permission-denied", "crash-loop", "not-ready"),
            fix=_speaking(where),
            order=line.order,
        )
    elif node and is_device_plugin(pod.obj):
        closed = list(_closed(pod, node, cluster))
        yield from closed or _empty_handed(pod, node, cluster)
        yield from _of_amd(pod, node, cluster)
        yield from _given_up(pod, node, cluster)
        yield from _of_slices(pod, cluster)
        yield from _of_jetson(pod, node, cluster)
        yield from _unwatched(pod, node, cluster)
    elif hardware:
        yield from _unhealthy(pod, hardware, cluster)


def _refused(pod: Pod, refused: Refusal, node: Node | None, cluster: Cluster) -> Finding:
    """A pod that the kubelet refused, since the plugin gave it no device."""
    where = pod.spec.node_name
    answered = _ANSWERED.search(refused.text[:2000])
    why = f": {answered['why'].removesuffix(', which is unexpected').rstrip('.: ')}" if answered else ""
    past = [*_past_hami(pod, refused, node)]
    ways = [
        *past,
        *_by_answer(pod, refused.text, cluster),
        *(_panicking(cluster, where, pod) if _NO_ANSWER in refused.text else ()),
        *_restart(cluster, where, runs=answered is not None or _registered(cluster, refused.text, refused.resource)),
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
            *_listed(node, refused.resource),
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
    if _UNSEEN.search(refused.text[:4000]) or _LACKING.search(refused.text[:4000]):  # its own trouble
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


def _waiting(pending: Pending, found: Cause, cluster: Cluster) -> Iterator[Finding]:
    evidence = [*asked_in(pending, found.resource)]
    parts = []
    unknown = sum(count.number for count in found.counts if count.kind == "unregistered")
    shown = [v.node for v in sorted(found.verdicts, key=lambda v: v.node.name)[:3]]
    for node in shown:
        should = node.should_offer(found.resource)
        listed = node.allocatable(found.resource) or 0
        if should and not unknown:
            parts.append(f"{node.name} offers {listed} of {should[0] or 'its'}")
            evidence.append(node_evidence(node, f"status.allocatable {found.resource}: {listed}; {should[1]}"))
        evidence += list(plugin_evidence(cluster, node.name))
    broken = [pair for verdict in found.verdicts for pair in _unfit(cluster, verdict.node.name, found.resource)]
    evidence += [proof for _, proof in broken[:4]]
    without = missing(cluster, shown, found.resource)
    # the manager stops the plugin while it works
    uncut = [node for node in shown if node.labels.get(MIG_STATE) in MIG_SAID][: 1 if parts else 0]
    if unknown:
        summary = _unregistered(pending, found, unknown)
    elif parts:
        they = "does not advertise all of its" if len(found.verdicts) == 1 else "do not advertise all of their"
        whys = [*_reasons(cluster, found, shown, uncut)]
        whys += [(why_none(without), tuple(without[0].evidence))] if without else []
        if not whys and not broken:
            whys += [(said, ()) for node in shown for said in _ends(cluster, node.name)][:1]
        evidence += [proof for _, proofs in whys for proof in proofs]
        reasons = [*(said for said, _ in broken[:3]), *(said for said, _ in whys)]
        offered = f"{', '.join(parts)} {found.resource}"
        summary = f"{nodes_said(found)} would fit but {they} GPUs: {'; '.join((offered, *reasons))}."
    else:
        why = f"by the scheduler's count: they advertise no {found.resource}."
        summary = f"{nodes_said(found)} match its GPU selector and could never hold it, {why}"
    name = min((v.node.name for v in found.verdicts), default="")
    unhealthy = bool(unknown) and _all_unhealthy(found)
    answered = any(node.name == name and node.allocatable(found.resource) for node in shown)
    # with a plugin there, somebody has found the node by another label
    named = [node for node in shown if node.finely_named and not plugins_on(cluster, node.name)][:1]
    ways = [
        *map(_plainly, named),
        *map(manager_log, uncut),
        *([_look(name)] if broken else []),
        *([] if named or uncut else let_in(without)),
        *(_of_hami(shown) if unknown and not (unhealthy or without) and _sharer(pending) == "HAMi" else ()),
        *_restart(cluster, name, found.resource, runs=answered or unhealthy),
    ]
    yield finding(pending, found, summary, evidence, ways, ("gpu-insufficient", "gpu-resource-absent"))


def _reasons(
    cluster: Cluster, found: Cause, shown: list[Node], uncut: list[Node]
) -> Iterator[tuple[str, tuple[Evidence, ...]]]:
    """Why the plugin of nodes offers too little, by what stands before it: each in words, with what says so."""
    for node in uncut:
        config, state = node.labels.get(MIG_CONFIG, "its configuration"), node.labels[MIG_STATE]
        proof = node_evidence(node, f"{MIG_CONFIG}={config}, {MIG_STATE}={state}")
        yield f"the MIG manager {MIG_SAID[state]} {config} on {node.name}", (proof,)
    if watchless := next((node.name for node in shown if _watchless(cluster, node.name)), None):
        yield f"the device plugin of {watchless} ends, because the node's inotify instances are used up", ()
    if first := next((one for v in found.verdicts if (one := awaited(cluster, v.node.name))), None):
        unsigned = [x for x in last_errors(cluster, first[0]) if _UNSIGNED.search(x.text[:2000])]
        said = "".join(f": {_shortened(line)}" for line in unsigned[:1])
        yield f"the pod of the {first[1]} is not done there ({state_of(first[0])}){said}", ()
    if driverless := next((node.name for node in shown if _uninstalled(cluster, node.name)), None):
        yield f"the device plugin of {driverless} waits for a driver, and the node pool installs none", ()
    if unmade := unmade_plugin(cluster, found.resource):
        said = f"no pod of DaemonSet {unmade[0].name} is let into namespace {unmade[0].namespace}"
        yield said, (event_evidence(unmade[1], cluster),)


def _ends(cluster: Cluster, node: str) -> Iterator[str]:
    """That a device plugin of a node ends again and again, and its last error."""
    for plugin in plugins_on(cluster, node):
        for line in last_errors(cluster, plugin)[-1:]:
            yield f"the device plugin {plugin.metadata.name} ends there: {_shortened(line)}"


def _shortened(line: Line) -> str:
    """An error without what klog writes before it, and of a long one what it began with: Go's end with that."""
    words = _LOG_HEAD.sub("", line.text[:2000])
    while len(words) > 240 and ": " in words:
        words = words.partition(": ")[2]
    return f"{words[:240].rstrip('. ')}{' …' * (len(words) > 240)}"


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


def _unfit(cluster: Cluster, node: str, resource: str) -> Iterator[tuple[str, Evidence]]:
    """The GPUs of a node that cannot be used as they are: in words, and what says so."""
    hardware = node_hardware(cluster, node) if resource.startswith("nvidia.com/") else None
    for device, what, proof in hardware.unfit if hardware else ():
        yield f"{device.title} of {node} {what}", proof


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


def _look(node: str) -> Fix:
    return fixes.platform(
        f"Look at the GPU that is not fit on {node}: reset it or reboot the node, and replace it when it fails again",
        f"kubectl cordon {node}",
        fixes.on_node(node, "nvidia-smi -q"),
    )


def _of_hami(nodes: list[Node]) -> Iterator[Fix]:
    """The label by which HAMi's chart has its device plugin select nodes."""
    if lacking := [node.name for node in nodes if node.labels.get("gpu") != "on"]:
        yield fixes.platform(
            f"Label {', '.join(lacking)} gpu=on, which the device plugin of HAMi's chart selects",
            f"kubectl label node {' '.join(lacking)} --overwrite gpu=on",
        )


def _listed(node: Node | None, resource: str) -> Iterator[Evidence]:
    if node and resource:
        amounts = node.obj.status
        text = f"{resource}: capacity {amounts.capacity.get(resource, 'none')}"
        yield node_evidence(node, f"{text}, allocatable {amounts.allocatable.get(resource, 'none')}")


def _offers(node: Node) -> bool:
    return any(node.allocatable(name) for name in node.obj.status.allocatable if name.startswith("nvidia.com/"))


def _closed(pod: Pod, node: Node, cluster: Cluster) -> Iterator[Finding]:
    """The target is NVIDIA's device plugin, which has NVML and may not open the GPUs: a machine without GPUs has no NVML."""
    lines = (x for x in plugin_lines(cluster, pod.obj) if not_opened(x))
    line = next((x for x in lines if pod.failing or not x.log.previous), None)
    if line is None or _offers(node):
        return
    yield Finding(
        confidence="likely",
        summary=f"NVML is there for the device plugin of {node.name} and may open no GPU (Unknown Error): the runtime that starts its "
        "container keeps the devices from it, and the node offers none.",
        evidence=(log_evidence(line), *_listed(node, "nvidia.com/gpu")),
        explains=("gpu-runtime-missing", "nvml-lost", "crash-loop", "not-ready"),
        fix=opening(node.name, line, cluster),
        order=line.order,
    )


#: What NVIDIA's plugin says where its container has nothing of the driver: neither NVML nor a Tegra's files.
_GIVEN_NOTHING = (
    "Failed to initialize NVML: ERROR_LIBRARY_NOT_FOUND",
    "could not load NVML library",
    "Incompatible strategy detected",
    "Incompatible platform detected",
)


def _empty_handed(pod: Pod, node: Node, cluster: Cluster) -> Iterator[Finding]:
    """The target is a device plugin that found no device on a node that has some."""
    lines = list(plugin_lines(cluster, pod.obj))
    line = next((x for x in lines if "No devices found. Waiting" in x.text), None)
    hardware = node_hardware(cluster, node.name)
    seen = len(hardware.devices) if hardware else 0
    should = node.should_offer("nvidia.com/gpu")
    if line is None or not (seen or should) or node.allocatable("nvidia.com/gpu"):
        return
    proof = f"agent: the driver sees {count_of(seen, 'GPU')}" if seen else should[1] if should else ""
    said = [x for x in lines if x.log is line.log and x.order <= line.order]
    nothing = next((x for x in said if any(text in x.text for text in _GIVEN_NOTHING)), None)
    why = next((found for x in said if (found := WITHOUT_NVML.search(x.text[:2000]))), None)
    summary = (
        f"The device plugin has nothing of the driver in its container, found no device and waits forever; {node.name} has GPUs."
        if nothing
        else f"The device plugin could not start NVML ({why['why'].strip()}), found no device and waits forever; {node.name} has GPUs."
        if why
        else f"The device plugin found no device when it started and waits forever; {node.name} has GPUs by now."
    )
    yield Finding(
        confidence="certain" if seen else "likely",
        summary=summary,
        evidence=(
            *([log_evidence(nothing)] if nothing else []),
            log_evidence(line),
            *_listed(node, "nvidia.com/gpu"),
            node_evidence(node, proof),
        ),
        fixes=(*([_with_runtime(node.name)] if nothing else []), *_restart(cluster, node.name)),
        order=line.order,
    )


def _with_runtime(node: str) -> Fix:
    return fixes.platform(
        f"Have NVIDIA's runtime start the device plugin on {node}, which brings it the driver: runtimeClassName: nvidia in its pods (of "
        "the chart runtimeClassName), or nvidia as the default runtime of the node (nvidia-ctk runtime configure --set-as-default), whose "
        "driver must be there",
        fixes.on_node(node, "nvidia-smi"),
        "kubectl get runtimeclass",
    )


def _of_amd(pod: Pod, node: Node, cluster: Cluster) -> Iterator[Finding]:
    """The target is AMD's device plugin, which sees the driver's module and none of the GPUs behind it."""
    line = next((x for x in plugin_lines(cluster, pod.obj) if NO_AMD_DEVICES in x.text), None)
    offered = [name for name in node.obj.status.allocatable if name.startswith("amd.com/")]
    if line is None or any(node.allocatable(name) for name in offered):
        return
    where = node.name
    yield Finding(
        summary=f"AMD's device plugin finds no GPU on {where} although the amdgpu module is loaded there: the driver has not taken "
        "the GPUs, as after an upgrade of it under running pods, or does not know them.",
        evidence=(log_evidence(line), *_listed(node, offered[0] if offered else "amd.com/gpu")),
        fix=_driver_of_amd(where, loaded=True),
        order=line.order,
    )


def _driver_of_amd(node: str, *, loaded: bool) -> Fix:
    """What gives AMD's device plugin its GPUs, by whether the driver's module is there."""
    return fixes.platform(
        f"Have the driver take the GPUs of {node} again: reboot it, or set spec.driver.version in the DeviceConfig of AMD's operator back "
        "to the release that worked; its messages say why it did not. Then delete the plugin's pod there"
        if loaded
        else f"Load the amdgpu driver on {node}: modprobe amdgpu, an image of such machines that has it, or spec.driver.enable: true in "
        "the DeviceConfig of AMD's operator, whose kmm-worker pod there says why it does not",
        fixes.on_node(node, "sh -c 'ls /sys/module/amdgpu/drivers/pci:amdgpu; dmesg | grep -i amdgpu | tail -40'"),
        "kubectl get deviceconfigs.amd.com -A -o jsonpath='{.items[*].spec.driver}'",
    )


#: NVML's library is not there, as NVIDIA's plugin says it, by releases of go-nvml.
_NO_NVML = ("Failed to initialize NVML: ERROR_LIBRARY_NOT_FOUND", "could not load NVML library")


def _of_jetson(pod: Pod, node: Node, cluster: Cluster) -> Iterator[Finding]:
    """The target is a device plugin on a Jetson that takes it for another machine, and asks NVML: a Jetson has its own way."""
    lines = plugin_lines(cluster, pod.obj) if pod.failing and node.jetson else ()
    line = next((x for x in lines if any(text in x.text for text in _NO_NVML)), None)
    if line is None:
        return
    container = pod.containers[0]
    summary = "Tell the plugin that it is on a Jetson, where there is no NVML to ask: DEVICE_DISCOVERY_STRATEGY=tegra"
    yield Finding(
        confidence="certain",
        summary=f"The device plugin takes {node.name}, a Jetson, for a machine with NVML, and ends: it does not find the library.",
        evidence=(log_evidence(line),),
        explains=("driver-missing", "gpu-runtime-missing", "crash-loop", "not-ready"),
        fixes=(
            fixes.set_env(container, "DEVICE_DISCOVERY_STRATEGY", "tegra", summary),
            fixes.platform(
                f"See that the plugin's pod gets NVIDIA's runtime on {node.name} (its runtimeClassName), by which it recognises a Jetson, "
                "and that the chart is of the image's release",
                "kubectl get runtimeclass",
            ),
        ),
        order=line.order,
    )


def _unwatched(pod: Pod, node: Node, cluster: Cluster) -> Iterator[Finding]:
    """The target is an old plugin that cannot watch the kubelet's folder, and does not say why."""
    for line in last_errors(cluster, pod.obj) if pod.failing else ():
        if line.text.rstrip().endswith(_UNWATCHED):
            yield Finding(
                confidence="likely",
                summary=f"The device plugin cannot watch /var/lib/kubelet/device-plugins of {node.name} and ends: the node's inotify "
                "instances are used up, or the folder is not there; its release does not say which.",
                evidence=(log_evidence(line),),
                explains=("crash-loop", "not-ready"),
                fixes=(
                    fixes.platform(
                        f"Raise fs.inotify.max_user_instances of {node.name} (128 by default), for good in /etc/sysctl.d, if the kubelet "
                        "keeps its sockets in /var/lib/kubelet/device-plugins there: else mount the folder in which it does",
                        fixes.on_node(node.name, "ls -la /var/lib/kubelet/device-plugins"),
                        fixes.on_node(node.name, "sysctl -w fs.inotify.max_user_instances=8192"),
                    ),
                    fixes.platform(
                        "Take a release of the plugin from 0.8 on, which says why"
                        if any("nvidia/k8s-device-plugin" in container.spec.image for container in pod.containers)
                        else "Take a later release of the plugin, if there is one that says why"
                    ),
                ),
                order=line.order,
            )
            return


def _without_minor(pod: Pod, cluster: Cluster) -> Line | None:
    """Where NVIDIA's plugin, or its MPS control daemon, says that NVML knows no device file of a GPU."""
    if not any("k8s-device-plugin" in container.spec.image for container in pod.containers):
        return None
    return next((line for line in last_errors(cluster, pod.obj) if _NO_MINOR in line.text), None)


def _of_no_minor(pod: Pod, node: Node | None, line: Line) -> Finding:
    """A GPU without a device file of its own: NVIDIA's plugin must find it in another way, and MPS has none."""
    where = pod.spec.node_name or "its node"
    mps = "mps-control" in pod.name or any("mps-control-daemon" in c.spec.command for c in pod.containers)
    if mps:
        ways = [
            fixes.platform(
                f"Share the GPU of {where} by time slicing: sharing.timeSlicing in place of sharing.mps in the plugin's configuration that "
                "the node has (its label nvidia.com/device-plugin.config, or the chart's config.default)",
                f"kubectl get node {where} -L nvidia.com/device-plugin.config",
            )
        ]
    elif node and (node.jetson or node.labels.get("kubernetes.io/arch") == "arm64"):
        text = (
            "Tell the plugin that the GPU is integrated, as on a Jetson: DEVICE_DISCOVERY_STRATEGY=tegra (from 0.16 on)"
        )
        said = pod.container(line.log.whose[2]) or pod.containers[0]
        ways = [fixes.set_env(said, "DEVICE_DISCOVERY_STRATEGY", "tegra", text)]
    else:
        ways = [
            fixes.platform(
                f"Take release 0.15 or later of the plugin (image nvcr.io/nvidia/k8s-device-plugin) where {where} runs in WSL, which it "
                "knows from then on"
            )
        ]
    what = "NVIDIA's MPS control daemon" if mps else "The device plugin"
    return Finding(
        summary=f"{what} ends on {where}: NVML knows no device file of the GPU there, as of an integrated one (Jetson) or in WSL.",
        evidence=(log_evidence(line),),
        explains=("driver-missing", "gpu-runtime-missing", "crash-loop", "not-ready"),
        fixes=tuple(ways),
        order=line.order,
    )


def _of_slices(pod: Pod, cluster: Cluster) -> Iterator[Finding]:
    """The target is a device plugin that ends over GPUs which MIG cuts: one has no instance, or it may not look at them."""
    for line in last_errors(cluster, pod.obj) if pod.failing else ():
        unalike = _UNALIKE.search(line.text[:2000])
        if not (unalike or _UNCUT.search(line.text[:2000]) or _unseen(line)):
            continue
        why = (
            "as its MIG strategy, single, wants all GPUs there cut into slices of one kind"
            if unalike
            else "as some GPU should be cut by MIG"
        )
        yield Finding(
            confidence="certain",
            summary=f"The device plugin of {pod.spec.node_name} ends, {why}: {_shortened(line)}.",
            evidence=(log_evidence(line),),
            explains=("engine-args-invalid", "crash-loop", "not-ready"),
            fixes=tuple(_as_told(cluster, pod.spec.node_name, [pod.obj])),
            order=line.order,
        )
        return


def _given_up(pod: Pod, node: Node, cluster: Cluster) -> Iterator[Finding]:
    """The target is a device plugin that calls devices of its node unhealthy: they stay so until it is restarted."""
    for resource in node.accelerators:
        capacity, listed = node.capacity(resource), node.allocatable(resource)
        if capacity is None or listed is None or listed >= capacity or not resource.startswith("nvidia.com/"):
            continue
        said = [x for x in plugin_lines(cluster, pod.obj) if "nhealthy" in x.text or "XidCriticalError" in x.text]
        lines = in_order(said)
        broken = list(_unfit(cluster, node.name, resource))
        failed = [] if broken else list(_by_xid(pod.obj, cluster))
        said_of = [said for said, _ in broken[:3]] or [said for said, _ in failed]
        yield Finding(
            severity="warning" if listed else "critical",
            confidence="certain" if lines else "likely",
            summary=f"{node.name} offers {listed} of {capacity} {resource}: its device plugin calls "
            f"{count_of(capacity - listed, 'device')} unhealthy" + "".join(f"; {said}" for said in said_of) + ".",
            evidence=(
                *_listed(node, resource),
                *(log_evidence(line) for line in lines[:3]),
                *(proof for _, proof in broken[:3]),
            ),
            fixes=(*(_look(node.name) for _ in broken[:1]), *_restart(cluster, node.name)),
            order=lines[0].order if lines else None,
        )
        return


def _by_xid(plugin: k8s.Pod, cluster: Cluster) -> Iterator[tuple[str, Fix]]:
    """The Xid for which a plugin has given up a GPU, in words, where it is the GPU's and no program's; with what mends it.

    A plugin that is started again offers the GPU as it is: rows of its memory wait for a reset to be remapped, links to be trained.
    """
    node, meta = plugin.spec.node_name, plugin.metadata
    for line in plugin_lines(cluster, plugin):
        told = _BY_XID.search(line.text[:2000])
        meaning = xid_meaning(int(told["xid"])) if told else None
        if told is None or (meaning and meaning.kind in _OF_PROGRAMS):
            continue
        hardware = node_hardware(cluster, node)
        buses = {x.bus for x in (hardware.xids if hardware else ()) if x.number == int(told["xid"]) and x.bus}
        gpu = f"{min(buses)}.0" if len(buses) == 1 else told["gpu"]
        gone = meaning is not None and meaning.bucket == "RESTART_BM"
        delete = f"kubectl -n {meta.namespace or 'default'} delete pod {meta.name}"
        also = "; the GPU should be replaced when the error returns" if meaning and meaning.kind == "memory" else ""
        yield (
            f"{told['gpu']} had Xid {told['xid']}{f' ({meaning.meaning})' if meaning else ''}",
            fixes.platform(
                f"Cordon {node}, take the pods off and reboot it, cold if that does not help: the plugin starts again with it{also}"
                if gone
                else f"Cordon {node}, take the pods off GPU {gpu} and reset it, or reboot {node}; then delete {meta.name}, whose "
                f"successor offers the GPU again{also}",
                f"kubectl cordon {node}",
                *(() if gone else (fixes.on_node(node, f"nvidia-smi --gpu-reset -i {gpu}"), delete)),
                f"kubectl uncordon {node}",
            ),
        )
        return


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
        fixes=(_look(hardware.node), *_restart(cluster, hardware.node)),
    )


def _of_watches(line: Line) -> bool:
    """Whether what cannot be opened any more is a watch: open files may be used up as well, by a limit of another name."""
    return WATCHES_USED_UP in line.text and re.search("(?i)watch|inotify|Failed to serve", line.text[:2000]) is not None


def _watchless_line(pod: Pod, cluster: Cluster) -> Line | None:
    """Where a device plugin that is the target, and fails, says that it may open no more watches."""
    lines = plugin_lines(cluster, pod.obj) if pod.failing else ()
    return next(filter(_of_watches, lines), None)


def _watchless(cluster: Cluster, node: str) -> bool:
    """Whether a device plugin of a node may not watch the kubelet's folder."""
    plugins = plugins_on(cluster, node)
    return any(_of_watches(line) for plugin in plugins for line in plugin_lines(cluster, plugin))


def _before_the_plugin(cluster: Cluster, node: str) -> Iterator[Fix]:
    """What to do about the pod for which the plugin of a node waits."""
    first = awaited(cluster, node) if node else None
    if first is None:
        return
    pod, title = first
    said = " ".join(line.text for line in last_errors(cluster, pod))
    if "containerd" in said and "no such file or directory" in said and _of_rancher(cluster, node):
        yield fixes.platform(
            f"Tell the GPU operator's toolkit where k3s and RKE2 keep containerd: CONTAINERD_SOCKET={_K3S_SOCKET} in toolkit.env "
            "of its values (and CONTAINERD_CONFIG, in releases that do not ask containerd for it)",
            "kubectl edit clusterpolicies.nvidia.com",
        )
    if _UNFETCHED.search(said):
        yield fixes.platform(
            f"Let the driver's container on {node} reach the repositories of its distribution, from which it takes what belongs to the "
            "kernel (DNS in the cluster, egress, a proxy in driver.env, a mirror in driver.repoConfig); or use drivers that bring their "
            "modules (driver.usePrecompiled), or one that the machine has (driver.enabled=false)"
        )
    elif _HEADERLESS.search(said):
        kernel = cluster.field("Node", "", node, "status.nodeInfo.kernelVersion")
        yield fixes.platform(
            f"The driver's container finds no packages of the kernel of {node}{f' ({kernel})' if kernel else ''} where its distribution "
            "keeps them: boot a kernel that is offered there, give the container a repository that has them (driver.repoConfig of the GPU "
            "operator), or install the driver on the machine itself and set driver.enabled=false",
            fixes.on_node(node, "uname -r"),
        )
    if _UNSIGNED.search(said):
        yield fixes.platform(
            f"Switch Secure Boot off for {node} and its like (GKE: shielded nodes without secure boot): the kernel there loads only "
            "modules signed by a key that it trusts, which the driver's are not"
        )
        yield fixes.platform(
            "Else use signed drivers: driver.usePrecompiled of NVIDIA's GPU operator, driver.imageSign in AMD's DeviceConfig with its key "
            "enrolled on the machine by mokutil, or the driver that the machine's image brings"
        )
    meta = pod.metadata
    ended = any(s.restart_count for s in pod.status.container_statuses)
    where = f"kubectl -n {meta.namespace or 'default'}"
    errors = last_errors(cluster, pod)
    statuses = (*pod.status.init_container_statuses, *pod.status.container_statuses)
    waits = next(
        (s for s in statuses if s.state.waiting and s.state.waiting.reason not in ("PodInitializing", "")), None
    )
    held = (waits.state.waiting.message if waits and waits.state.waiting else "") or ""
    if waits and waits.state.waiting and "Image" in waits.state.waiting.reason:
        held = f"its image {waits.image} cannot be pulled" + (f": {held}" if held else "")
    why = _shortened(errors[-1]) if errors else " ".join(held.split())[:240]
    yield fixes.platform(
        f"Fix what {'ends' if ended else 'holds up'} the pod of the {title} on {node}{f' ({why})' if why else ''}: the device plugin "
        "waits for it and starts by itself then",
        f"{where} logs {meta.name} --previous" if ended else f"{where} describe pod {meta.name}",
    )


def _of_rancher(cluster: Cluster, node: str) -> bool:
    """Whether a node is one of k3s or RKE2, by its kubelet's release."""
    return bool(re.search(r"\+(?:k3s|rke2)", str(cluster.field("Node", "", node, "status.nodeInfo.kubeletVersion"))))


def _by_answer(pod: Pod, text: str, cluster: Cluster) -> Iterator[Fix]:
    """What helps against the answer of a plugin: a list too long for the kubelet, pods mixed up, a program or a right that it lacks."""
    if _UNSEEN.search(text[:4000]):
        yield _monitoring(next(iter(plugins_on(cluster, pod.spec.node_name)), None), pod.spec.node_name)
    if lacking := _LACKING.search(text[:4000]):
        yield fixes.platform(
            f"Give the device plugin's container {lacking['program']}, which it runs to hand out the device and does not find: mount the "
            "node's into its DaemonSet at one of the places where it looks, or turn off the kind of sharing that needs it",
            f"{fixes.pods_on(pod.spec.node_name)} | grep -i device-plugin",
        )
    if _TOO_LONG in text:
        yield fixes.platform(
            "Have the device plugin count memory in larger pieces, so that it lists fewer devices (Volcano's for vGPUs: "
            "--gpu-memory-factor, in the pieces of which pods ask for memory then)"
        )
    if _MIXED_UP.search(text):
        yield fixes.advice(
            "Delete the refused pod, whose owner makes another: what the scheduler wrote at the pod and what the kubelet asks for were not "
            "of one pod, as happens where several that share GPUs come to a node at once. Start them one after another, and bring the "
            "plugin and the scheduler to one release where it stays",
            f"kubectl -n {pod.namespace} delete pod {pod.name}",
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


def _let_in(cluster: Cluster, node: str, resource: str) -> Iterator[Fix]:
    """What lets a device plugin be made, where the API server refuses its pods, or speak to the kubelet."""
    if resource and (unmade := unmade_plugin(cluster, resource)):
        yield let_made(unmade)
    plugins = plugins_on(cluster, node)
    if any(_NO_SOCKET in line.text for plugin in plugins for line in last_errors(cluster, plugin)):
        yield _speaking(node)


def _kept_out(pod: Pod, cluster: Cluster) -> Line | None:
    """Where a device plugin that is the target, and ends again and again, says that it may not connect to the kubelet."""
    return next((line for line in last_errors(cluster, pod.obj) if _NO_SOCKET in line.text), None)


def _speaking(node: str) -> Fix:
    """What lets a device plugin speak to the kubelet."""
    return fixes.platform(
        f"Let the plugin speak to the kubelet of {node}: where SELinux is on, the kubelet must run as kubelet_t (its program labelled "
        "kubelet_exec_t) and the plugin's container be of a type that may connect to it, or privileged",
        fixes.on_node(node, "ps -eZ | grep kubelet"),
    )


def _as_told(cluster: Cluster, node: str, plugins: list[k8s.Pod]) -> Iterator[Fix]:
    """What ends what the plugin of a node says itself."""
    if _uninstalled(cluster, node):
        item = cluster.item("Node", "", node)
        yield driver_of_google(node, item.labels if item else {})
    said = [line.text[:2000] for plugin in plugins for line in last_errors(cluster, plugin)]
    empty = any(NO_AMD_DEVICES in line.text for plugin in plugins for line in plugin_lines(cluster, plugin))
    if empty or any(_NO_AMDGPU in text for text in said):
        yield _driver_of_amd(node, loaded=empty)
    if lost := next(filter(None, map(_NO_LIBRARY.search, said)), None):
        yield fixes.platform(
            f"Tell the device plugin where on {node} the driver's libraries are, as where it looks is no {lost['file']}: "
            "NVIDIA_DRIVER_ROOT (nvidiaDriverRoot of its chart) is / for a driver that is installed on the node, and /run/nvidia/driver "
            "for that of the GPU operator",
            f"{fixes.pods_on(node)} | grep -i -e validator -e driver -e plugin",
            fixes.on_node(
                node,
                f"sh -c 'cat /run/nvidia/validations/driver-ready; find / /run/nvidia/driver -xdev -name {lost['file']}'",
            ),
        )
        yield fixes.platform(
            f"With the GPU operator restart its validator's pod on {node}: it writes that folder to /run/nvidia/validations/driver-ready, "
            "which a reboot takes away"
        )
    if told := next((plugin for plugin in plugins if _for_tegra(cluster, plugin)), None):
        yield _discovering(told, node)
    for plugin in plugins:
        if any(_UNIFIED.search(line.text[:2000]) for line in last_errors(cluster, plugin)):
            yield _of_unified_memory(plugin, node)
            break
    if unseeing := [plugin for plugin in plugins if any(map(_unseen, last_errors(cluster, plugin)))]:
        yield _monitoring(unseeing[0], node)
    if unalike := [
        plugin for plugin in plugins if any(_UNALIKE.search(x.text[:2000]) for x in last_errors(cluster, plugin))
    ]:
        yield _mixed(cluster, node, unalike[0])
    else:
        yield from _cut(cluster, node, said)


def _for_tegra(cluster: Cluster, plugin: k8s.Pod) -> bool:
    """Whether NVIDIA's plugin was told to look for GPUs as on a Tegra, where it offers one whatever there is (`internal/rm/tegra_*.go`)."""
    return any(DISCOVERS in line.text for line in plugin_lines(cluster, plugin))


def _discovering(plugin: k8s.Pod, node: str) -> Fix:
    """What has a plugin count the GPUs of a node that is no Tegra."""
    meta = plugin.metadata
    made = next((owner.name for owner in meta.owner_references if owner.kind == "DaemonSet"), "")
    where = f"kubectl -n {meta.namespace or 'default'} set env daemonset/{made}"
    return fixes.platform(
        f"Set DEVICE_DISCOVERY_STRATEGY of {f'DaemonSet {made}' if made else meta.name} (deviceDiscoveryStrategy of its chart) to nvml in "
        f"place of tegra, by which it offers one GPU of {node} whatever there is; its pods need the RuntimeClass nvidia",
        *([f"{where} DEVICE_DISCOVERY_STRATEGY=nvml"] if made else []),
    )


def _of_unified_memory(plugin: k8s.Pod, node: str) -> Fix:
    """The release of NVIDIA's plugin that does without the memory of a GPU (`internal/rm/devices.go`: Ignoring error …)."""
    meta = plugin.metadata
    made = next((owner.name for owner in meta.owner_references if owner.kind == "DaemonSet"), "")
    container = next(iter(plugin.spec.containers), None)
    return fixes.platform(
        f"Take NVIDIA's device plugin 0.17.4 or later on {node} (devicePlugin.version of the GPU operator, or its release v25.10.0; "
        f"now {(container.image if container else '') or 'an earlier one'}): those before end at a GPU without memory of its own",
        f"kubectl -n {meta.namespace or 'default'} get {f'daemonset {made}' if made else f'pod {meta.name}'} -o wide",
    )


def _unseen(line: Line) -> bool:
    """Whether NVML refuses a plugin to look at a whole GPU that MIG cuts."""
    return _UNMONITORED.search(line.text[:2000]) is not None


def _monitoring(plugin: k8s.Pod | None, node: str) -> Fix:
    """What lets a plugin look at whole GPUs that MIG cuts, as NVIDIA's chart has it (`addMigMonitorDevices`, `requiresCapSysAdmin`)."""
    what, made = f"the device plugin on {node}", ""
    if plugin is not None:
        made = next((owner.name for owner in plugin.metadata.owner_references if owner.kind == "DaemonSet"), "")
        owner = f"DaemonSet {made}" if made else plugin.metadata.name
        what = f"{next((c.name for c in plugin.spec.containers), '')} of {owner}"
    return fixes.platform(
        f"Set NVIDIA_MIG_MONITOR_DEVICES=all for {what}, with the capability SYS_ADMIN, which NVIDIA's runtime asks of whoever sets it: on "
        "a node with MIG only such a container may see the memory of a whole GPU (NVIDIA's chart gives both unless migStrategy is none)",
        *([f"kubectl -n {plugin.metadata.namespace or 'default'} edit daemonset {made}"] if plugin and made else []),
    )


def _mixed(cluster: Cluster, node: str, plugin: k8s.Pod) -> Fix:
    """What lets a plugin offer GPUs that are not cut alike, where it was told that they are."""
    meta = plugin.metadata
    made = next((owner.name for owner in meta.owner_references if owner.kind == "DaemonSet"), "")
    owned = f"DaemonSet {made}" if made else f"pod {meta.name}"
    container = next(iter(plugin.spec.containers), None)
    policy = cluster_policy(cluster)
    if policy is not None:
        what = f"spec.mig.strategy of ClusterPolicy {policy.name} to mixed"
        change = '{"spec": {"mig": {"strategy": "mixed"}}}'
        command = f"kubectl patch clusterpolicies.nvidia.com {policy.name} --type merge -p '{change}'"
    else:
        option = next((word for word in (container.argv if container else ()) if "--mig-strategy" in word), "")
        what = f"{'--mig-strategy' if option else 'MIG_STRATEGY'}=mixed instead of single"
        what += f" for {container.name} of {owned}" if container else f" for {owned}"
        where = f"kubectl -n {meta.namespace or 'default'}"
        command = f"{where} edit daemonset {made}"
        if not option and container:
            command = f"{where} set env daemonset/{made} -c {container.name} MIG_STRATEGY=mixed"
        what += ", and migStrategy in the values where a Helm chart made it"
    return fixes.platform(
        f"Set {what}: pods then ask for nvidia.com/mig-<profile>, and for nvidia.com/gpu where a GPU is not cut. Or cut all GPUs of {node} "
        "into slices of one kind, while no pod uses them, and leave the strategy as it is",
        *([command] if made or policy else []),
        fixes.on_node(node, "nvidia-smi mig -lgi"),
    )


def _cut(cluster: Cluster, node: str, said: list[str]) -> Iterator[Fix]:
    """What has instances made of GPUs that MIG is to cut."""
    if any(map(_UNCUT.search, said)):
        config = (cluster.field("Node", "", node, "metadata.labels") or {}).get(MIG_CONFIG)
        label = f"kubectl label node {node} --overwrite {MIG_CONFIG}="
        yield fixes.platform(
            f"MIG is on and a GPU of {node} has no instance: have them made while no pod uses its GPUs (the GPU operator's MIG manager "
            f"does nothing where {MIG_CONFIG} stays as it is: set it to another value and back; else nvidia-smi mig -cgi), or turn MIG off",
            fixes.on_node(node, "nvidia-smi mig -lgi"),
            *((f"{label}all-disabled", f"{label}{config}") if config else ()),
        )


def _uninstalled(cluster: Cluster, node: str) -> bool:
    """Whether GKE's plugin waits for a driver that nobody installs."""
    waits = [plugin for plugin in plugins_on(cluster, node) if plugin.status.phase == "Pending"]
    return any(_NO_INSTALLATION in line.text for plugin in waits for line in plugin_lines(cluster, plugin))


def _restart(cluster: Cluster, node: str, resource: str = "", *, runs: bool = False) -> Iterator[Fix]:
    """What brings a device plugin back; `runs` where it answered, whatever is to be seen of its pod."""
    yield from _before_the_plugin(cluster, node)
    yield from _let_in(cluster, node, resource)
    plugins = plugins_on(cluster, node)
    yield from _as_told(cluster, node, plugins)
    if _watchless(cluster, node):
        yield fixes.platform(
            f"Raise the inotify instances of {node}, which are used up (fs.inotify.max_user_instances; 128 by default), for good in "
            "/etc/sysctl.d or the machine's configuration",
            fixes.on_node(node, "sysctl -w fs.inotify.max_user_instances=8192"),
        )
    if plugins:
        meta = plugins[0].metadata
        where = f"-n {meta.namespace or 'default'}"
        yield from (fix for _, fix in _by_xid(plugins[0], cluster))
        ends = next(iter(_ends(cluster, node)), "").partition(" ends there: ")[2]
        yield fixes.platform(
            f"Fix what ends the device plugin on {node} ({ends}), which is started again by itself"
            if ends
            else f"Restart the device plugin on {node} (pod {meta.name}): it looks for the devices again; its log says what it met",
            f"kubectl {where} logs {meta.name}",
            *([] if ends else [f"kubectl {where} delete pod {meta.name}"]),
        )
    elif node and (kept := _kept(cluster, node)):
        given, listed, named = kept
        yield fixes.platform(
            f"Restart the device plugin's pod on {node}, which calls {given - listed} of {given} {named} unhealthy until then; where it "
            "does so again, the GPU should be reset or replaced",
            f"{fixes.pods_on(node)} | grep -i device-plugin",
            *([fixes.on_node(node, "nvidia-smi")] if named.startswith("nvidia.com/") else []),
        )
    elif runs or _registered_once(cluster, node):
        at = f" --field-selector spec.nodeName={node}" if node else ""
        yield fixes.platform(
            f"Restart the device plugin on {node or 'its node'}: delete its pod there, whose log says what it met",
            f"kubectl get pods -A -o wide{at} | grep -i device-plugin",
        )
    else:
        yield brought(cluster, node, resource or _offered(cluster, node))


def _registered_once(cluster: Cluster, node: str) -> bool:
    """Whether a plugin has named devices of a node, which offers none, where no DaemonSet that was read is to bring it.

    The kubelet forgets the devices of a plugin that is gone some minutes later.
    """
    given, listed = (cluster.field("Node", "", node, f"status.{key}") for key in ("capacity", "allocatable"))
    if not isinstance(given, dict) or not isinstance(listed, dict) or cluster.complete("DaemonSet"):
        return False
    named = [name for name in map(str, given) if is_accelerator(name) and units(given.get(name))]
    return any(units(listed.get(name)) == 0 and not offering(cluster, name) for name in named)


def _kept(cluster: Cluster, node: str) -> tuple[int, int, str] | None:
    """How many devices a node has by its plugin, how many of them it offers, and of what, where those are fewer and some."""
    given, listed = (cluster.field("Node", "", node, f"status.{key}") for key in ("capacity", "allocatable"))
    if isinstance(given, dict) and isinstance(listed, dict):
        for name in filter(is_accelerator, map(str, given)):
            all_of, left = str(given[name]), str(listed.get(name, ""))
            if all_of.isdecimal() and left.isdecimal() and 0 < int(left) < int(all_of):
                return int(all_of), int(left), name
    return None


def _offered(cluster: Cluster, node: str) -> str:
    """The accelerator that a node has or had, by what it lists; NVIDIA's where it says nothing."""
    capacity = table(cluster.field("Node", "", node, "status.capacity"))
    return next((str(name) for name in capacity if is_accelerator(str(name))), "nvidia.com/gpu")
