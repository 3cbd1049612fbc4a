"""A device plugin that is itself what was asked about: why it offers no GPU, or ends."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Evidence,
    Finding,
    Fix,
    Line,
    Node,
    Pod,
    count_of,
    fixes,
    in_order,
    log_evidence,
    node_evidence,
    node_hardware,
)
from llmdoctor_checks.scheduling._admission import (
    NO_AMD_DEVICES,
    WITHOUT_NVML,
    is_device_plugin,
    last_errors,
    not_opened,
    opening,
    plugin_lines,
)
from llmdoctor_checks.scheduling._plugin_repairs import (
    UNALIKE,
    UNCUT,
    as_told,
    by_xid,
    driver_of_amd,
    kept_out,
    repairs,
    shortened,
    speaking,
    watchless_line,
    without_monitor,
)

#: NVML's library is not there, as NVIDIA's plugin says it, by releases of go-nvml; and what it says of a Tegra's files as well.
_NO_NVML = ("Failed to initialize NVML: ERROR_LIBRARY_NOT_FOUND", "could not load NVML library")
_GIVEN_NOTHING = (*_NO_NVML, "Incompatible strategy detected", "Incompatible platform detected")

#: What NVIDIA's plugin up to 0.7, and those made after it, end with where they cannot watch the kubelet's folder (`main.go`).
_UNWATCHED = "Failed to created FS watcher."
#: What NVIDIA's plugin and its MPS control daemon end with where NVML does not know a GPU's device file (`internal/rm/nvml_devices.go`): of
#: an integrated GPU, and on WSL, which the plugin knows from 0.15 on.
_NO_MINOR = "error getting GPU device minor number: Not Supported"


def unfit(cluster: Cluster, node: str, resource: str) -> Iterator[tuple[str, Evidence]]:
    """The GPUs of a node that cannot be used as they are: in words, and what says so."""
    hardware = node_hardware(cluster, node) if resource.startswith("nvidia.com/") else None
    for device, what, proof in hardware.unfit if hardware else ():
        yield f"{device.title} of {node} {what}", proof


def look(node: str) -> Fix:
    return fixes.platform(
        f"Look at the GPU that is not fit on {node}: reset it or reboot the node, and replace it when it fails again",
        f"kubectl cordon {node}",
        fixes.on_node(node, "nvidia-smi -q"),
    )


def counts(node: Node | None, resource: str) -> Iterator[Evidence]:
    """How many of a resource a node has and offers."""
    if node and resource:
        amounts = node.obj.status
        text = f"{resource}: capacity {amounts.capacity.get(resource, 'none')}"
        yield node_evidence(node, f"{text}, allocatable {amounts.allocatable.get(resource, 'none')}")


def _offers(node: Node) -> bool:
    return any(node.allocatable(name) for name in node.obj.status.allocatable if name.startswith("nvidia.com/"))


def of_plugin(pod: Pod, node: Node | None, cluster: Cluster) -> Iterator[Finding]:
    """What keeps a pod of a device plugin, or of its MPS control daemon, from its work."""
    where, plugin = pod.spec.node_name or "its node", is_device_plugin(pod.obj)
    if plugin and (line := watchless_line(pod, cluster)):
        yield Finding(
            confidence="certain",
            summary=f"The device plugin cannot watch the kubelet's folder and ends: the inotify instances of {where} are used up.",
            evidence=(log_evidence(line),),
            explains=("crash-loop", "not-ready"),
            fixes=tuple(repairs(cluster, pod.spec.node_name)),
            order=line.order,
        )
    elif pod.failing and (line := _without_minor(pod, cluster)):
        yield _of_no_minor(pod, node, line)
    elif plugin and (line := kept_out(pod, cluster)):
        yield Finding(
            confidence="certain",
            summary=f"The device plugin may not speak to the kubelet of {where} and ends: most often SELinux keeps it from the socket.",
            evidence=(log_evidence(line),),
            explains=("permission-denied", "crash-loop", "not-ready"),
            fix=speaking(where),
            order=line.order,
        )
    elif node and plugin:
        yield from [*_closed(pod, node, cluster)] or _empty_handed(pod, node, cluster)
        yield from _of_amd(pod, node, cluster)
        yield from _given_up(pod, node, cluster)
        yield from _of_slices(pod, cluster)
        yield from _of_jetson(pod, node, cluster)
        yield from _unwatched(pod, node, cluster)


def _closed(pod: Pod, node: Node, cluster: Cluster) -> Iterator[Finding]:
    """The target is NVIDIA's device plugin, which has NVML and may not open the GPUs: a machine without GPUs has no NVML."""
    lines = (x for x in plugin_lines(cluster, pod.obj) if not_opened(x))
    line = next((x for x in lines if pod.failing or not x.log.previous), None)
    if line is None or _offers(node):
        return
    yield Finding(
        summary=f"NVML is there for the device plugin of {node.name} and may open no GPU (Unknown Error): the runtime that starts its "
        "container keeps the devices from it, and the node offers none.",
        evidence=(log_evidence(line), *counts(node, "nvidia.com/gpu")),
        explains=("gpu-runtime-missing", "nvml-lost", "crash-loop", "not-ready"),
        fix=opening(node.name, line, cluster),
        order=line.order,
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
            *counts(node, "nvidia.com/gpu"),
            node_evidence(node, proof),
        ),
        fixes=(*([_with_runtime(pod, node.name)] if nothing else []), *repairs(cluster, node.name)),
        order=line.order,
    )


def _with_runtime(pod: Pod, node: str) -> Fix:
    if named := pod.spec.runtime_class_name:
        return fixes.platform(
            f"See that the driver is on {node} (nvidia-smi), and that the handler of RuntimeClass {named}, which the plugin's pod names, "
            "is NVIDIA's runtime in the configuration of the node's container runtime (nvidia-ctk runtime configure, then a restart "
            f"of that); then delete {pod.name}",
            fixes.on_node(node, "nvidia-smi"),
            f"kubectl get runtimeclass {named} -o yaml",
        )
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
        evidence=(log_evidence(line), *counts(node, offered[0] if offered else "amd.com/gpu")),
        fix=driver_of_amd(where, loaded=True),
        order=line.order,
    )


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
        unalike = UNALIKE.search(line.text[:2000])
        if not (unalike or UNCUT.search(line.text[:2000]) or without_monitor(line)):
            continue
        why = (
            "as its MIG strategy, single, wants all GPUs there cut into slices of one kind"
            if unalike
            else "as some GPU should be cut by MIG"
        )
        yield Finding(
            confidence="certain",
            summary=f"The device plugin of {pod.spec.node_name} ends, {why}: {shortened(line)}.",
            evidence=(log_evidence(line),),
            explains=("engine-args-invalid", "crash-loop", "not-ready"),
            fixes=tuple(as_told(cluster, pod.spec.node_name, [pod.obj])),
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
        broken = list(unfit(cluster, node.name, resource))
        failed = [] if broken else list(by_xid(pod.obj, cluster))
        said_of = [said for said, _ in broken[:3]] or [said for said, _ in failed]
        yield Finding(
            severity="warning" if listed else "critical",
            confidence="certain" if lines else "likely",
            summary=f"{node.name} offers {listed} of {capacity} {resource}: its device plugin calls "
            f"{count_of(capacity - listed, 'device')} unhealthy" + "".join(f"; {said}" for said in said_of) + ".",
            evidence=(
                *counts(node, resource),
                *(log_evidence(line) for line in lines[:3]),
                *(proof for _, proof in broken[:3]),
            ),
            fixes=(*(look(node.name) for _ in broken[:1]), *repairs(cluster, node.name)),
            order=lines[0].order if lines else None,
        )
        return
