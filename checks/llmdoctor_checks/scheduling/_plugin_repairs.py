"""What a device plugin that offers nothing asks for, by its own words, by what ran before it, and by what its node shows."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Fix,
    Line,
    Pod,
    expression,
    fixes,
    is_accelerator,
    k8s,
    node_hardware,
    table,
    units,
)
from kubectl_llmdoctor.catalog.xids import xid_meaning
from llmdoctor_checks.scheduling._admission import (
    DISCOVERS,
    NO_AMD_DEVICES,
    WATCHES_USED_UP,
    awaited,
    last_errors,
    let_made,
    plugin_lines,
    plugins_on,
    unmade_plugin,
)
from llmdoctor_checks.scheduling._daemons import (
    brought,
    cluster_policy,
    driver_of_google,
    offering,
)
from llmdoctor_checks.scheduling.mig_profile_mismatch import MIG_CONFIG

#: gRPC's word for a list that is longer than the kubelet takes: plugins that share memory list a device for each piece of it.
_TOO_LONG = "received message larger than max"

#: The kernel (kernel/module/signing.c), modprobe and NVIDIA's installer of a module that may not be loaded under Secure Boot.
UNSIGNED = expression(
    r"unsigned module is rejected|Key was rejected by service|not signed by a key that is trusted|Required key not available"
)

#: What the first container of GKE's plugin prints in a node pool that was made without the driver.
_NO_INSTALLATION = "GPU driver auto installation is disabled"

#: What NVIDIA's plugin ends with where it writes a CDI specification (nvidia-container-toolkit `pkg/nvcdi`): under the root of the driver
#: that it was told there are no libraries of the driver that the kernel runs.
_NO_LIBRARY = expression(r"\b(?P<file>libcuda\.so\.\d[\d.]{2,20})(?:: pattern \S{1,60})? not found")

#: NVIDIA's plugin where MIG is on and there is no instance (go-nvlib; before 0.10 its own `mig-strategy.go`).
UNCUT = expression(r"has no MIG devices configured|invalid MIG configuration|No MIG devices associated with ")

#: The same where the strategy `single` wants all GPUs of a node to be cut into slices of one kind: only for that does it look at the slices
#: (`assertAllMigDevicesAreValid`, `buildDeviceMapFromConfigResources`; before 0.12 `mig-strategy.go`).
UNALIKE = expression(
    r"[Mm]ore than one MIG device type present on node|configured with the same migEnabled value"
    r"|invalid MIG configuration: (?:error visiting devices?: ){0,6}error visiting MIG device(?!.{0,400}error getting device attributes)"
)

#: The same where its container may not look at a whole GPU that is cut (NVML's word for that; `internal/rm`, `api/config/v1`).
_UNMONITORED = expression(r"error getting device memory info: Insufficient Permissions")
#: The same of a GPU that has no memory of its own and uses the machine's (GB10), which releases before 0.17.4 end with.
_UNIFIED = expression(r"error getting device memory: (?:Not Supported|ERROR_NOT_SUPPORTED)")

#: And what it answers the kubelet then, which asks it for devices that lie well together: it looks at all GPUs of the node for that.
UNSEEN = expression(
    r"(?:error creating nvml\.Device \d{1,3}|unable to get device link information)\b.{0,200}: Insufficient Permissions"
)

#: A program that HAMi's plugin for Ascend runs, and does not find where it looks.
LACKING = expression(r"\b(?P<program>[\w-]{1,40}) not found in \[/")

#: What the plugins of HAMi and Volcano answer where the kubelet asks for another pod than the one that they look at.
_MIXED_UP = expression(r"device number not matched|device request not found|empty id from pod annotation")

#: What keeps Istio's proxy out of a pod; the label goes before the annotation.
_ISTIO = "sidecar.istio.io/inject"

#: What HAMi's plugin for Ascend says of the part that its scheduler wrote for a container that asks for no device (before it passed over
#: those), and of a device that it does not know: a card was exchanged, or its scheduler has an old list.
_NO_UUID = expression(r"parse pod annotation error: unknown uuid: ?(?:,|$)")
_NEW_UUID = expression(r"parse pod annotation error: unknown uuid: ?(?P<uuid>[\w-]{8,80})")

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

#: What NVIDIA's plugin says as it gives up a device (`internal/rm/health.go`).
_BY_XID = expression(r"XidCriticalError: Xid=(?P<xid>\d{1,4}) on Device=(?P<gpu>[\w-]{8,80})")

#: Kinds of Xids that a program may cause: a GPU that is offered again after one of these works.
_OF_PROGRAMS = ("application", "info")

#: What klog writes before its words.
_LOG_HEAD = expression(r"^[IWEF]\d{4} [\d:.]{8,16} {1,8}\d{1,10} [\w.-]{1,80}:\d{1,6}\] ")

#: The kubelet's socket, by which a plugin registers, and which SELinux may keep it from.
_NO_SOCKET = "kubelet.sock: connect: permission denied"

#: Where k3s and RKE2 have the socket of their containerd.
_K3S_SOCKET = "/run/k3s/containerd/containerd.sock"


def last_words(cluster: Cluster, node: str) -> Iterator[str]:
    """That a device plugin of a node ends again and again, and its last error."""
    for plugin in plugins_on(cluster, node):
        for line in last_errors(cluster, plugin)[-1:]:
            yield f"the device plugin {plugin.metadata.name} ends there: {shortened(line)}"


def shortened(line: Line, most: int = 240) -> str:
    """An error without what klog writes before it, and of a long one what it began with: Go's end with that."""
    words = _LOG_HEAD.sub("", line.text[:2000])
    while len(words) > most and ": " in words:
        words = words.partition(": ")[2]
    return f"{words[:most].rstrip('. ')}{' …' * (len(words) > most)}"


def driver_of_amd(node: str, *, loaded: bool) -> Fix:
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


def by_xid(plugin: k8s.Pod, cluster: Cluster) -> Iterator[tuple[str, Fix]]:
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


def _of_watches(line: Line) -> bool:
    """Whether what cannot be opened any more is a watch: open files may be used up as well, by a limit of another name."""
    return WATCHES_USED_UP in line.text and re.search("(?i)watch|inotify|Failed to serve", line.text[:2000]) is not None


def watchless_line(pod: Pod, cluster: Cluster) -> Line | None:
    """Where a device plugin that is the target, and fails, says that it may open no more watches."""
    lines = plugin_lines(cluster, pod.obj) if pod.failing else ()
    return next(filter(_of_watches, lines), None)


def lacks_watches(cluster: Cluster, node: str) -> bool:
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
    if UNSIGNED.search(said):
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
    why = shortened(errors[-1]) if errors else " ".join(held.split())[:240]
    yield fixes.platform(
        f"Fix what {'ends' if ended else 'holds up'} the pod of the {title} on {node}{f' ({why})' if why else ''}: the device plugin "
        "waits for it and starts by itself then",
        f"{where} logs {meta.name} --previous" if ended else f"{where} describe pod {meta.name}",
    )


def _of_rancher(cluster: Cluster, node: str) -> bool:
    """Whether a node is one of k3s or RKE2, by its kubelet's release."""
    return bool(re.search(r"\+(?:k3s|rke2)", str(cluster.field("Node", "", node, "status.nodeInfo.kubeletVersion"))))


def by_answer(pod: Pod, text: str, cluster: Cluster) -> Iterator[Fix]:
    """What helps against the answer of a plugin: a list too long for the kubelet, pods mixed up, a program or a right that it lacks."""
    if UNSEEN.search(text[:4000]):
        yield _monitoring(next(iter(plugins_on(cluster, pod.spec.node_name)), None), pod.spec.node_name)
    if lacking := LACKING.search(text[:4000]):
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
    bare = [container.name for container in pod.containers if not container.accelerators]
    if bare and _NO_UUID.search(text[:4000]):
        yield from _without_device(pod, bare)
    elif unknown := _NEW_UUID.search(text[:4000]):
        yield fixes.platform(
            f"Restart HAMi's device plugin on {pod.spec.node_name or 'the node'}, which does not know the device {unknown['uuid']} that "
            "its scheduler chose, so that it reports the node's devices again",
            f"{fixes.pods_on(pod.spec.node_name)} | grep -i device-plugin",
        )
    if _MIXED_UP.search(text):
        yield fixes.advice(
            "Delete the refused pod, whose owner makes another: what the scheduler wrote at the pod and what the kubelet asks for were not "
            "of one pod, as happens where several that share GPUs come to a node at once. Start them one after another, and bring the "
            "plugin and the scheduler to one release where it stays",
            f"kubectl -n {pod.namespace} delete pod {pod.name}",
        )


def _without_device(pod: Pod, bare: list[str]) -> Iterator[Fix]:
    """What helps a plugin that looks for a device of each container, where some ask for none."""
    if "istio-proxy" in bare:
        yield fixes.annotate(
            pod,
            {_ISTIO: "false"},
            f"Leave the pod out of the mesh ({_ISTIO}): HAMi's device plugin for Ascend looks for the device of each container, and "
            "istio-proxy asks for none",
            field="labels" if _ISTIO in pod.labels else "annotations",
        )
    which = ", ".join(bare)
    yield fixes.platform(
        f"Update HAMi's device plugin for Ascend and its scheduler: later ones pass over containers that ask for no device ({which} here)",
        "kubectl get daemonsets -A -o wide | grep -i ascend",
    )


def let_it_in(cluster: Cluster, node: str, resource: str) -> Iterator[Fix]:
    """What lets a device plugin be made, where the API server refuses its pods, or speak to the kubelet."""
    if resource and (unmade := unmade_plugin(cluster, resource)):
        yield let_made(unmade)
    plugins = plugins_on(cluster, node)
    if any(_NO_SOCKET in line.text for plugin in plugins for line in last_errors(cluster, plugin)):
        yield speaking(node)


def kept_out(pod: Pod, cluster: Cluster) -> Line | None:
    """Where a device plugin that is the target, and ends again and again, says that it may not connect to the kubelet."""
    return next((line for line in last_errors(cluster, pod.obj) if _NO_SOCKET in line.text), None)


def speaking(node: str) -> Fix:
    """What lets a device plugin speak to the kubelet."""
    return fixes.platform(
        f"Let the plugin speak to the kubelet of {node}: where SELinux is on, the kubelet must run as kubelet_t (its program labelled "
        "kubelet_exec_t) and the plugin's container be of a type that may connect to it, or privileged",
        fixes.on_node(node, "ps -eZ | grep kubelet"),
    )


def as_told(cluster: Cluster, node: str, plugins: list[k8s.Pod]) -> Iterator[Fix]:
    """What ends what the plugin of a node says itself."""
    if uninstalled(cluster, node):
        item = cluster.item("Node", "", node)
        yield driver_of_google(node, item.labels if item else {})
    said = [line.text[:2000] for plugin in plugins for line in last_errors(cluster, plugin)]
    empty = any(NO_AMD_DEVICES in line.text for plugin in plugins for line in plugin_lines(cluster, plugin))
    if empty or any(_NO_AMDGPU in text for text in said):
        yield driver_of_amd(node, loaded=empty)
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
    if unseeing := [plugin for plugin in plugins if any(map(without_monitor, last_errors(cluster, plugin)))]:
        yield _monitoring(unseeing[0], node)
    if unalike := [
        plugin for plugin in plugins if any(UNALIKE.search(x.text[:2000]) for x in last_errors(cluster, plugin))
    ]:
        yield _mixed(cluster, node, unalike[0])
    else:
        yield from _cut(cluster, node, said)


def _for_tegra(cluster: Cluster, plugin: k8s.Pod) -> bool:
    """Whether NVIDIA's plugin was told to look for GPUs as on a Tegra, where it offers one whatever there is (`internal/rm/tegra_*.go`)."""
    return any(DISCOVERS in line.text for line in plugin_lines(cluster, plugin))


def _daemon_set(plugin: k8s.Pod) -> str:
    """The name of the DaemonSet that made a plugin's pod, if one did."""
    return next((owner.name for owner in plugin.metadata.owner_references if owner.kind == "DaemonSet"), "")


def _discovering(plugin: k8s.Pod, node: str) -> Fix:
    """What has a plugin count the GPUs of a node that is no Tegra."""
    meta, made = plugin.metadata, _daemon_set(plugin)
    where = f"kubectl -n {meta.namespace or 'default'} set env daemonset/{made}"
    return fixes.platform(
        f"Set DEVICE_DISCOVERY_STRATEGY of {f'DaemonSet {made}' if made else meta.name} (deviceDiscoveryStrategy of its chart) to nvml in "
        f"place of tegra, by which it offers one GPU of {node} whatever there is; its pods need the RuntimeClass nvidia",
        *([f"{where} DEVICE_DISCOVERY_STRATEGY=nvml"] if made else []),
    )


def _of_unified_memory(plugin: k8s.Pod, node: str) -> Fix:
    """The release of NVIDIA's plugin that does without the memory of a GPU (`internal/rm/devices.go`: Ignoring error …)."""
    meta, made = plugin.metadata, _daemon_set(plugin)
    container = next(iter(plugin.spec.containers), None)
    return fixes.platform(
        f"Take NVIDIA's device plugin 0.17.4 or later on {node} (devicePlugin.version of the GPU operator, or its release v25.10.0; "
        f"now {(container.image if container else '') or 'an earlier one'}): those before end at a GPU without memory of its own",
        f"kubectl -n {meta.namespace or 'default'} get {f'daemonset {made}' if made else f'pod {meta.name}'} -o wide",
    )


def without_monitor(line: Line) -> bool:
    """Whether NVML refuses a plugin to look at a whole GPU that MIG cuts."""
    return _UNMONITORED.search(line.text[:2000]) is not None


def _monitoring(plugin: k8s.Pod | None, node: str) -> Fix:
    """What lets a plugin look at whole GPUs that MIG cuts, as NVIDIA's chart has it (`addMigMonitorDevices`, `requiresCapSysAdmin`)."""
    what, made = f"the device plugin on {node}", ""
    if plugin is not None:
        made = _daemon_set(plugin)
        owner = f"DaemonSet {made}" if made else plugin.metadata.name
        what = f"{next((c.name for c in plugin.spec.containers), '')} of {owner}"
    return fixes.platform(
        f"Set NVIDIA_MIG_MONITOR_DEVICES=all for {what}, with the capability SYS_ADMIN, which NVIDIA's runtime asks of whoever sets it: on "
        "a node with MIG only such a container may see the memory of a whole GPU (NVIDIA's chart gives both unless migStrategy is none)",
        *([f"kubectl -n {plugin.metadata.namespace or 'default'} edit daemonset {made}"] if plugin and made else []),
    )


def _mixed(cluster: Cluster, node: str, plugin: k8s.Pod) -> Fix:
    """What lets a plugin offer GPUs that are not cut alike, where it was told that they are."""
    meta, made = plugin.metadata, _daemon_set(plugin)
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
    if any(map(UNCUT.search, said)):
        config = (cluster.field("Node", "", node, "metadata.labels") or {}).get(MIG_CONFIG)
        label = f"kubectl label node {node} --overwrite {MIG_CONFIG}="
        yield fixes.platform(
            f"MIG is on and a GPU of {node} has no instance: have them made while no pod uses its GPUs (the GPU operator's MIG manager "
            f"does nothing where {MIG_CONFIG} stays as it is: set it to another value and back; else nvidia-smi mig -cgi), or turn MIG off",
            fixes.on_node(node, "nvidia-smi mig -lgi"),
            *((f"{label}all-disabled", f"{label}{config}") if config else ()),
        )


def uninstalled(cluster: Cluster, node: str) -> bool:
    """Whether GKE's plugin waits for a driver that nobody installs."""
    waits = [plugin for plugin in plugins_on(cluster, node) if plugin.status.phase == "Pending"]
    return any(_NO_INSTALLATION in line.text for plugin in waits for line in plugin_lines(cluster, plugin))


def repairs(cluster: Cluster, node: str, resource: str = "", *, runs: bool = False) -> Iterator[Fix]:
    """What brings a device plugin back; `runs` where it answered, whatever is to be seen of its pod."""
    yield from _before_the_plugin(cluster, node)
    yield from let_it_in(cluster, node, resource)
    plugins = plugins_on(cluster, node)
    yield from as_told(cluster, node, plugins)
    if lacks_watches(cluster, node):
        yield fixes.platform(
            f"Raise the inotify instances of {node}, which are used up (fs.inotify.max_user_instances; 128 by default), for good in "
            "/etc/sysctl.d or the machine's configuration",
            fixes.on_node(node, "sysctl -w fs.inotify.max_user_instances=8192"),
        )
    if plugins:
        meta = plugins[0].metadata
        where = f"-n {meta.namespace or 'default'}"
        yield from (fix for _, fix in by_xid(plugins[0], cluster))
        ends = next(iter(last_words(cluster, node)), "").partition(" ends there: ")[2]
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
