"""An engine that fell back to the CPU in a container that has a GPU."""

import re
from collections.abc import Iterator, Mapping

from kubectl_llmdoctor.api import (
    Cluster,
    Container,
    Engine,
    Event,
    Finding,
    Fix,
    Line,
    Log,
    Logs,
    Node,
    Pod,
    Subject,
    awaited_reservation,
    came_further,
    check,
    ending_of,
    event_evidence,
    fixes,
    limits_evidence,
    log_evidence,
    log_of,
    parse_time,
    pod_evidence,
    rows,
    say_devices,
)
from kubectl_llmdoctor.catalog.images import cpu_build
from llmdoctor_checks._consequences import FAILED_START
from llmdoctor_checks._ollama import (
    INIT_FAILURE,
    NO_DEVICE,
    SEARCHED,
    UNINITIALISED,
    UNKNOWN,
    Fallback,
    alone,
    fallback,
    latest,
    lost,
    passed_over,
    with_rocm,
    without_driver,
    wrong_library,
)
from llmdoctor_checks.scheduling._claims import device_claims
from llmdoctor_checks.scheduling._devices import asked_gpus
from llmdoctor_checks.start._error_35 import ERROR_35, NO_DRIVER, error_35
from llmdoctor_checks.start._visible import hides_all

#: Ollama (discover/amd_linux.go) without the device in its container.
_NO_KFD = "kfd driver not loaded"
#: Builds of llama.cpp that reach a GPU by its render node.
_BY_RENDER_NODE = r"(?i)(?<![a-z])(?:vulkan|sycl|intel)(?![a-z])"
#: Resources under which device plugins hand out render nodes, whoever names them: `devic.es/dri-render`, `gpu.intel.com/xe`.
_RENDER_NODES = r"(?i)[\w.-]{1,100}/(?:[\w.-]{0,40}[-_.])?(?:dri|gpu|i915|xe|kfd|renderd\d{1,3})(?:[-_.][\w.-]{0,40})?"

#: LocalAI's all-in-one images, whose script looks for a GPU on the PCI bus and then calls nvidia-smi or rocminfo (aio/entrypoint.sh).
_BY_CPU = "GPU acceleration is not enabled or supported. Defaulting to CPU."

#: CUDA's names of its errors 999 and 3. NVML's numbers are others.
_UNKNOWN, _UNINITIALISED = (one.rpartition(": ")[2] for one in (UNKNOWN, UNINITIALISED))
_BY_NUMBER = r"(?:nvcuda|cudart|cuda driver library) init failure: (?P<error>\d{1,4})(?!\d)"

#: What its backends say of a GPU that they have.
_CUDA_FOUND = ("ggml_cuda_init: found ", "using device CUDA")

#: Libraries of a vendor's driver, which the vendor's container runtime mounts: by the prefix of the resources, with a word of the
#: name of its RuntimeClass. Sources: the mounts of Ascend's and Moore Threads' runtimes.
_BY_RUNTIME = {
    "huawei.com/": ("ascend", "lib(?:ascend_hal|c_sec|mmpa|slog|dcmi|drv\\w{1,40})\\.so"),
    "mthreads.com/": ("mthreads", "lib(?:musa|mtml)\\.so"),
}
#: Where pods that bring their driver's libraries by themselves mount them.
_DRIVERS_FOLDER = r"^/usr/local/(?:Ascend(?:/driver(?:/.{0,200})?)?|musa)/?$"
_NOT_FOUND = ": cannot open shared object file"
_WITHOUT_LIBRARIES = (
    "driver-libs-not-on-path", "system-library-missing", "compiler-missing", "entrypoint-missing", "import-broken",
    *FAILED_START, "engine-dead", "worker-lost", "rollout-stuck",
)  # fmt: skip

#: And where there is no library of it, either.
_NO_LIBRARY_EITHER = "Found no NVIDIA driver on your system"
#: What programs say that find no driver behind its libraries, or no device of it, as NVML and CUDA see none without /dev/nvidiactl.
_WITHOUT_DEVICES = (
    "because it couldn't communicate with the NVIDIA driver",
    "Driver Not Loaded",
    "NVMLError_DriverNotLoaded",
    _NO_LIBRARY_EITHER,
    "No CUDA GPUs are available",
    "no CUDA-capable device is detected",
)
#: NVIDIA's DRA driver for whole GPUs and their slices.
_BY_DRA = "gpu.nvidia.com"

#: What CUDA, and PyTorch for it, say of a process that it shows no GPU (error 100).
_NONE_SEEN = ("no CUDA-capable device is detected", "No CUDA GPUs are available")

#: What gVisor's runsc (runsc/sandbox) says of a sandbox that ended while it came up, now and before 2023.
_SANDBOX_ENDED = (
    r"cannot read client sync file: waiting for sandbox to start|unable to read from the sync descriptor: 0, error"
)

#: What the pod that KAI's binder waits for ends with.
_NO_NVML = "ERROR_LIBRARY_NOT_FOUND"


@check(
    "gpu-runtime-missing",
    since="0.1",
    literals=(
        *(_NO_KFD, *ERROR_35, *SEARCHED, _NOT_FOUND, _BY_CPU, *_CUDA_FOUND, *_NONE_SEEN, *_WITHOUT_DEVICES, _NO_NVML),
        *(UNKNOWN, UNINITIALISED, INIT_FAILURE),
    ),
)
def gpu_runtime_missing(pod: Pod, subject: Subject, logs: Logs | None, node: Node | None) -> Iterator[Finding]:
    """The container sees no GPU.

    The engine was started in a container without an NVIDIA driver's libraries and devices. Either the pod asks for no
    GPU, or it does and the node's container runtime does not inject it: no RuntimeClass, a RuntimeClass without a handler
    on the node, a missing CDI specification, or no NVIDIA container toolkit. vLLM then says that it detected no platform
    or cannot infer the device type, PyTorch that it finds no NVIDIA driver, the loader that libcuda.so.1 cannot be
    opened. Ollama, llama.cpp, LocalAI and Text Embeddings Inference start all the same, on the CPU, and are many times slower. So does a
    llama.cpp with Vulkan or SYCL whose user is not in the group that owns `/dev/dri/renderD*`: the pod is ready, and slow. Other
    vendors' runtimes mount their driver's libraries just so (Ascend's `libascend_hal.so`, `libc_sec.so`). gVisor passes GPUs on by its
    nvproxy, which knows the drivers of a list alone; with another one the sandbox ends at once, and only runsc's debug log says why.
    Where a ResourceClaim hands over the GPU, NVIDIA's DRA driver writes a CDI specification for it; on a node that nothing has used a
    GPU of since it started, `/dev/nvidia*` may not be there yet, and the specification names no devices.

    ## Fix

    Give the container `nvidia.com/gpu` in its limits. Where the cluster does not inject GPUs by default, set
    `runtimeClassName: nvidia`. If both are there, look at the toolkit and the GPU operator on the node.

    ## References

    - https://kubernetes.io/docs/concepts/containers/runtime-class/
    - https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/troubleshooting.html
    - https://docs.nvidia.com/datacenter/cloud-native/gpu-operator/latest/troubleshooting.html
    """
    yield from _refused_by_gvisor(pod, node)
    yield from _of_reservation(pod)
    if logs is None:
        return
    for container in pod.containers:
        yield from _hidden(container, logs)
        yield from _by_the_default_runtime(container, logs, subject.cluster)
        yield from _not_brought(container, logs, node)
        yield from _claimed(container, logs)
    for engine in subject.engines(pod):
        yield from _of(pod, engine, logs, node)


def _of(pod: Pod, engine: Engine, logs: Logs, node: Node | None) -> Iterator[Finding]:
    container = engine.container
    asked = asked_gpus(container)
    if engine.name not in ("ollama", "llama.cpp", "tei", "localai") or cpu_build(container.spec.image):
        return
    if str(engine.value("gpu_layers")) == "0":
        return  # meant so
    if engine.name == "llama.cpp" and not asked and re.search(_BY_RENDER_NODE, container.spec.image):
        yield from _without_render_node(pod, engine, logs)
        return
    found = fallback(container.name, logs) if engine.name == "ollama" else None
    if found is not None and found.failed is not None:
        if found.too_slow and (asked or not found.unseen):
            yield _slow(engine, found)
        return  # it is there, and unfit
    if engine.name == "ollama" and passed_over(container.name, logs):
        return  # it is there, and its driver is too old
    if engine.name == "ollama" and wrong_library(engine, logs) is not None:
        return  # it was told not to look for one
    line = found.cpu if found else _on_the_cpu(engine, logs, asked)
    if line is not None and not asked:
        yield from _without_kfd(pod, engine, logs)
    of_image = with_rocm(engine) and all(name.startswith("amd.com/") for name in asked)  # which has no library for them
    if line is not None and asked and not of_image and not lost(container.name, logs):
        yield _sees_none(pod, engine, line, asked, node)


def _on_the_cpu(engine: Engine, logs: Logs, asked: Mapping[str, int]) -> Line | None:
    """The line by which an engine takes the CPU, or sees no driver beside a GPU that it asked for."""
    container = engine.container
    if engine.name == "localai":
        return _by_cpu(container, logs)
    if engine.name != "ollama":
        return alone(container.name, logs, container.pod.ready)
    line = alone(container.name, logs, False)
    of_nvidia = any(name.startswith("nvidia.com/") for name in asked)
    return without_driver(container.name, logs) if line is None and of_nvidia else line


def _sees_none(pod: Pod, engine: Engine, line: Line, asked: Mapping[str, int], node: Node | None) -> Finding:
    container = engine.container
    unfit, fix = _what_is_missing(pod, line, of_amd=all(name.startswith("amd.com/") for name in asked))
    refused, error = _not_started(line)
    if refused is not None:
        unfit = f"CUDA is there and answers '{error}'"
        fix = _load_uvm(pod, node) if error == _UNKNOWN else _without_hmm(pod)
    said = {one.number: one for one in (refused, line) if one is not None}
    return Finding(
        severity="warning" if pod.ready else None,
        # an image of somebody's own may hold a build for the CPU
        confidence="possible" if engine.announced and engine.name != "ollama" else "likely",
        summary=f"{engine.label} runs on the CPU: {unfit or 'it sees no GPU'}, though container {container.name} asks for "
        f"{say_devices(asked)}.",
        evidence=(*map(log_evidence, said.values()), *limits_evidence(container, asked)),
        explains=("not-ready", "probe-too-short", "cpu-starved"),
        fix=fix,
        order=line.order,
    )


def _by_cpu(container: Container, logs: Logs) -> Line | None:
    """The line by which LocalAI's script takes the CPU, where no backend has found a GPU of NVIDIA after it.

    AMD's cards for servers are neither VGA nor 3D on the PCI bus, so that the script never sees them.
    """
    if not any(name.startswith("nvidia.com/") for name in container.accelerators):
        return None
    for log in latest(container.name, logs):
        for line in log.find(_BY_CPU):
            found = any(later.number > line.number for later in log.find(*_CUDA_FOUND))
            return None if found else line
    return None


def _hidden(container: Container, logs: Logs) -> Iterator[Finding]:
    """A program that ended since CUDA shows it no GPU, where a variable of its container hides those that it has."""
    # what a command sets by itself counts more than the variable
    served = container.pod.ready or "CUDA_VISIBLE_DEVICES=" in " ".join(container.spec.argv)
    hidden = None if served else hides_all(container)
    log = log_of(ending_of(container), logs) if hidden else None
    line = next(log.find(*_NONE_SEEN), None) if log is not None else None
    if hidden is None or line is None:
        return
    summary, evidence, fix = hidden
    yield Finding(
        confidence="certain",
        summary=summary,
        evidence=(log_evidence(line), *evidence),
        explains=(*_WITHOUT_LIBRARIES, "gpu-request-missing"),
        fix=fix,
        order=line.order,
    )


def _by_the_default_runtime(container: Container, logs: Logs, cluster: Cluster) -> Iterator[Finding]:
    """A library of the driver that is missing where the vendor's RuntimeClass is there, and the pod does not name it."""
    pod = container.pod
    resources = container.spec.resources
    asked = {k: n for k, n in (resources.requests | resources.limits).items() if k.startswith(tuple(_BY_RUNTIME))}
    if not asked or pod.spec.runtime_class_name or not pod.exists:
        return
    if any(re.search(_DRIVERS_FOLDER, mount.mount_path) for mount in container.spec.volume_mounts):
        return  # it brings the driver by itself, and needs no runtime for that
    word, libraries = next(found for prefix, found in _BY_RUNTIME.items() if next(iter(asked)).startswith(prefix))
    classes = cluster.items("RuntimeClass")
    runtime = next((item.name for item in classes if word in f"{item.name} {item.raw.get('handler')}".lower()), None)
    log = log_of(ending_of(container), logs)
    absent = libraries + r"[\w.]{0,20}: cannot"
    line = next((x for x in log.find(_NOT_FOUND) if re.search(absent, x.text[:2000])), None) if log else None
    if runtime is None or line is None:
        return
    yield Finding(
        summary=f"Libraries of the accelerator's driver are not in container {container.name}: the pod asks for "
        f"{', '.join(asked)} and names no runtime class, and the cluster has {runtime}.",
        evidence=(
            log_evidence(line),
            *limits_evidence(container, asked),
            pod_evidence(pod, "runtimeClassName", "not set"),
        ),
        explains=_WITHOUT_LIBRARIES,
        fixes=(
            fixes.set_spec(pod, "/runtimeClassName", runtime, f"Give the pod the runtime class {runtime}"),
            fixes.platform(
                f"Where {runtime} is set and the library is still not found, look at the vendor's runtime on the node"
            ),
        ),
        order=line.order,
    )


def _refused_by_gvisor(pod: Pod, node: Node | None) -> Iterator[Finding]:
    """A sandbox of gVisor that ends while it comes up, of a pod with a GPU."""
    asked = next((n for c in pod.containers for n in c.accelerators if n.startswith("nvidia.com/")), None)
    if asked is None or not pod.exists or pod.ready:
        return
    events = pod.events
    said = [e for e in events if e.reason == "FailedCreatePodSandBox" and re.search(_SANDBOX_ENDED, e.message[:4000])]
    if not said or came_further(said[-1], events) or _started_after(pod, said[-1]):
        return
    here = pod.spec.node_name or "?"
    driver = str(node.labels.get("nvidia.com/cuda.driver-version.full") or "") if node else ""
    which = f", {driver}," if driver else ""
    yield Finding(
        confidence="possible",
        summary=f"gVisor's sandbox ends while it comes up, without a word; in a pod that asks for {asked} as a rule because "
        f"its nvproxy does not know the driver{which} of node {here}.",
        evidence=(
            event_evidence(said[-1], pod.cluster),
            pod_evidence(pod, "runtimeClassName", pod.spec.runtime_class_name or "not set"),
        ),
        explains=("crash-loop", "not-ready", "rollout-stuck"),
        fix=fixes.platform(
            f"See whether runsc on node {here} lists the driver, and update gVisor or take a driver of its list; runsc's debug log "
            "(debug-log in runsc.toml) says what else it may be",
            fixes.on_node(here, "runsc nvproxy list-supported-drivers"),
            f"kubectl get node {here} -L nvidia.com/cuda.driver-version.full",
        ),
    )


def _of_reservation(pod: Pod) -> Iterator[Finding]:
    """A share of a GPU that a pod of KAI's is to hold, and which finds no NVML that tells it which GPU it was given."""
    events = pod.events
    waits = [(event, held) for event in events if (held := awaited_reservation(event.message))]
    if not waits or not pod.exists or pod.spec.node_name:
        return
    event, (place, name) = waits[-1]
    of_it = [Log(log) for log in pod.cluster.snapshot.logs if (log.namespace, log.pod) == (place, name)]
    line = next((line for log in of_it for line in log.find(_NO_NVML) if "NVML" in line.text), None)
    if line is None:
        return
    yield Finding(
        summary=f"KAI holds the GPU that {pod.name} should share by a pod of its own ({place}/{name}), and that one has "
        "no libraries of the driver: it cannot say which GPU it was given.",
        evidence=(log_evidence(line), event_evidence(event, pod.cluster)),
        explains=("vgpu-shim", "pod-pending", "not-ready", "rollout-stuck"),
        fix=fixes.platform(
            "Give KAI's reservation pods the NVIDIA runtime: spec.binder.resourceReservation.runtimeClassName: nvidia in "
            "Config/kai-config (binder.runtimeClassName of its Helm values) where the cluster has that RuntimeClass, "
            "binder.cdiEnabled: true where its GPUs are handed over by CDI; or make it the default of the node's container runtime",
            "kubectl get runtimeclass",
            "kubectl get configs.kai.scheduler kai-config -o yaml",
            f"kubectl -n {place} logs {name}",
        ),
    )


def _started_after(pod: Pod, event: Event) -> bool:
    """Whether a container was started after an event about the pod's sandbox: one came up since."""
    states = [state for c in pod.containers for state in (c.status.state, c.status.last_state)]
    starts = [
        began
        for state in states
        for found in (state.running, state.terminated)
        if found is not None and (began := parse_time(found.started_at)) is not None
    ]
    return event.last is not None and any(began > event.last for began in starts)


def _what_is_missing(pod: Pod, line: Line, *, of_amd: bool) -> tuple[str, Fix]:
    """Why the engine uses no GPU, as far as that is known, and what brings it one."""
    here, unfit = pod.spec.node_name or "?", _unfit(line)
    if unfit and NO_DRIVER not in unfit:  # the container runtime has brought the driver that answers
        return unfit, fixes.platform(
            f"See whether the GPUs and the driver of node {here} answer, and what the kernel's log says of them; then recreate the pod",
            fixes.on_node(here, "sh -c 'nvidia-smi; dmesg | grep -e NVRM -e amdgpu | tail -n 20'"),
        )
    if of_amd:
        return unfit, fixes.advice(
            "Give the container's user the node's groups render and video (supplementalGroups in the securityContext), and see that "
            f"/dev/kfd and /dev/dri are in it, in {fixes.edited(pod)}"
        )
    if pod.spec.runtime_class_name:
        return unfit, fixes.platform(
            f"Look at the toolkit and the driver of node {here}: RuntimeClass "
            f"{pod.spec.runtime_class_name} is set and injects no GPU"
        )
    summary = "Give the container the NVIDIA runtime: runtimeClassName: nvidia"
    return unfit, fixes.set_spec(pod, "/runtimeClassName", "nvidia", summary)


def _load_uvm(pod: Pod, node: Node | None) -> Fix:
    """The module that CUDA misses, or its devices in the container, by what loads it on the node."""
    here = pod.spec.node_name or "?"
    if node is not None and node.talos:
        text = f"List nvidia_uvm in machine.kernel.modules of the machine configuration of node {here}, then recreate the pod"
        return fixes.platform(text, f"talosctl -n {here} read /proc/modules")
    if node is not None and node.labels.get("nvidia.com/gpu.deploy.driver") == "true":
        text = f"Recreate the GPU operator's pods of driver and toolkit on node {here}: they load nvidia_uvm and write "
        return fixes.platform(f"{text}the CDI specification; then recreate this pod", fixes.pods_on(here))
    return fixes.platform(
        f"Load nvidia_uvm on node {here} (modprobe nvidia_uvm, and at each boot: /etc/modules-load.d), and where the toolkit hands "
        "GPUs over by CDI write its specification anew (nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml, as after each update of "
        "the driver); then recreate the pod",
        fixes.on_node(here, "sh -c 'lsmod | grep nvidia_uvm; ls -l /dev/nvidia-uvm /etc/cdi /var/run/cdi'"),
    )


def _without_hmm(pod: Pod) -> Fix:
    """What keeps CUDA's driver from starting (error 3) where its library is there and the node's driver answers nvidia-smi."""
    here = pod.spec.node_name or "?"
    return fixes.platform(
        f"Where nvidia-smi works on node {here}, turn HMM of nvidia_uvm off there (options nvidia_uvm uvm_disable_hmm=1 in a file of "
        "/etc/modprobe.d, and a reboot); where it fails, too, repair the driver, or reset the GPU that it or an Xid names",
        fixes.on_node(
            here,
            "sh -c 'nvidia-smi -L; cat /sys/module/nvidia_uvm/parameters/uvm_disable_hmm; dmesg -T | grep -i -e xid -e uvm'",
        ),
    )


def _not_started(line: Line) -> tuple[Line | None, str]:
    """What CUDA answered before Ollama listed the CPU alone, or llama.cpp: its library is there, and does not start."""
    said = (one for one in line.log.find(UNKNOWN, UNINITIALISED, INIT_FAILURE) if one.number <= line.number)
    found = [(one, error) for one in said if (error := _answer(one.text[:2000]))]
    return max(found, key=lambda pair: pair[0].number) if found else (None, "")


def _answer(text: str) -> str:
    """CUDA's name of the error of which a line speaks, of those that a driver gives which is not whole."""
    if INIT_FAILURE in text and (told := re.search(_BY_NUMBER, text)) is not None:
        return {"3": _UNINITIALISED, "999": _UNKNOWN}.get(told["error"], "")
    return _UNKNOWN if UNKNOWN in text else _UNINITIALISED if UNINITIALISED in text else ""


def _not_brought(container: Container, logs: Logs, node: Node | None) -> Iterator[Finding]:
    """CUDA's error 35 on a node whose driver has the CUDA of the image: the container has no driver, or another one."""
    asked = any(name.startswith("nvidia.com/") for name in container.accelerators)
    error = error_35(container, logs, node) if asked else None
    if error is None or not error.suffices:
        return
    pod = container.pod
    name = pod.spec.node_name or "?"
    built = f"the image's {error.image}" if error.image else "an image of any earlier one, too"
    yield Finding(
        summary=f"CUDA finds no driver in container {container.name}, or not the node's: that of {name} knows CUDA {error.driver}, "
        f"which suffices for {built}.",
        evidence=error.evidence,
        explains=(*FAILED_START, "engine-dead", "worker-lost"),
        fixes=(
            fixes.set_spec(
                pod, "/runtimeClassName", "nvidia", "Give the container the NVIDIA runtime: runtimeClassName: nvidia"
            )
            if not pod.spec.runtime_class_name
            else fixes.platform(f"Look at the NVIDIA container toolkit of node {name}"),
            fixes.advice(
                "Keep other copies of libcuda.so.1 (CUDA's stubs, /usr/local/cuda/compat) off LD_LIBRARY_PATH and out of the image's "
                "library path"
            ),
        ),
        order=error.line.order,
    )


def _claimed(container: Container, logs: Logs) -> Iterator[Finding]:
    """A container whose claim has a GPU, by a driver that runs on its node, and that was handed none of its devices.

    NVIDIA's DRA driver asks the node's driver for its GPUs before it offers them, and writes into the specification of a claim
    (`cdi.go`) the device nodes that it finds then: they are made by the first program that uses a GPU.
    """
    pod, named = container.pod, {str(one.get("name")) for one in container.spec.resources.claims}
    if pod.ready or not named or any(name.startswith("nvidia.com/") for name in container.accelerators):
        return
    hidden = container.env.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.value in ("", "-1", None):
        return  # which shows none of those that are there
    log = log_of(ending_of(container), logs)
    line = next(log.find(*_WITHOUT_DEVICES), None) if log is not None else None
    for claim in device_claims(pod) if line is not None else ():
        results = (
            rows(claim.item.raw, "status.allocation.devices.results") if claim.item and claim.name in named else []
        )
        device = next((str(one.get("device")) for one in results if one.get("driver") == _BY_DRA), "")
        if line is None or not device:
            continue
        # PyTorch says so where it finds no libcuda.so: what hands over the devices brings that, too
        nothing = _NO_LIBRARY_EITHER in line.text
        name = pod.spec.node_name or "?"
        yield Finding(
            confidence="certain",
            summary=f"ResourceClaim {claim.claim} has {device} of node {name}, whose driver told the DRA driver of it, and container "
            f"{container.name} got "
            + (
                "neither devices nor the driver's libraries: "
                + (
                    "nothing of its CDI specification reached it."
                    if _by_cdi(pod, name)
                    else "the container runtime there most likely hands over nothing by CDI."
                )
                if nothing
                else "no device: /dev/nvidia* were most likely not there when the claim's CDI specification was written."
            ),
            evidence=(
                log_evidence(line),
                pod_evidence(container, "resources.claims", f"{claim.name}: {device} of {_BY_DRA} is allocated"),
            ),
            explains=("driver-missing", "driver-too-old", *_WITHOUT_LIBRARIES),
            fix=_with_cdi(pod, name) if nothing else _made_devices(name, claim.claim),
            order=line.order,
        )
        return


def _made_devices(node: str, claim: str) -> Fix:
    return fixes.platform(
        f"Make the devices on {node} (nvidia-smi once on the host; at each boot, before the DRA driver, nvidia-persistenced or "
        f"nvidia-modprobe -u -c=0), restart the DRA driver's kubelet plugin there, then delete the pod and claim {claim}",
        fixes.on_node(node, "sh -c 'nvidia-smi -L; ls -l /dev/nvidia* /var/run/cdi'"),
        f"{fixes.pods_on(node)} | grep -i dra",
    )


def _runtime(pod: Pod, node: str) -> str:
    return str(pod.cluster.field("Node", "", node, "status.nodeInfo.containerRuntimeVersion") or "")


def _by_cdi(pod: Pod, node: str) -> bool:
    """Whether the runtime of a node heeds CDI unless it is told not to: CRI-O does, and containerd from 2.0 on."""
    return re.match(r"cri-o:|containerd://(?!1\.)\d", _runtime(pod, node)) is not None


def _with_cdi(pod: Pod, node: str) -> Fix:
    """What has a node's runtime heed the specifications that DRA drivers write (containerd's `enable_cdi`, on by default from 2.0 on)."""
    runtime = _runtime(pod, node)
    crio = runtime.startswith("cri-o:")
    config = "crio config" if crio else "containerd config dump"
    look = fixes.on_node(node, f"sh -c '{config} | grep -i cdi; ls -l /var/run/cdi'")
    if _by_cdi(pod, node):
        kept = (
            "/var/run/cdi is among cdi_spec_dirs"
            if crio
            else "enable_cdi is not false and /var/run/cdi among cdi_spec_dirs"
        )
        return fixes.platform(
            f"See that {kept} in the configuration of {runtime} on {node}, and that nvidiaDriverRoot of the DRA driver's chart is the "
            "folder of the driver on the node; then delete the pod",
            look,
        )
    return fixes.platform(
        f"Have the container runtime of {node}{f' ({runtime})' if runtime else ''} take part in CDI: containerd 1.7 with enable_cdi = true "
        "and /var/run/cdi among its cdi_spec_dirs, or 2.0 and later, where that is so by default; restart it, then delete the pod. Where "
        "it does so, see that nvidiaDriverRoot of the DRA driver's chart is the folder of the driver on the node",
        look,
    )


def _without_kfd(pod: Pod, engine: Engine, logs: Logs) -> Iterator[Finding]:
    """Ollama in a container that was made for an AMD GPU, and got no device: it sees the node's GPU in sysfs alone."""
    container = engine.container
    devices = [m.mount_path for m in container.spec.volume_mounts if m.mount_path.startswith(("/dev/dri", "/dev/kfd"))]
    meant = "rocm" in container.spec.image.rpartition(":")[2]
    for line in (found for log in logs.of(container.name) for found in log.find(_NO_KFD)):
        if not meant and not devices:
            return  # any container of a node with an AMD GPU sees that much of it
        yield Finding(
            severity="warning" if pod.ready else None,
            summary=f"{engine.label} runs on the CPU: the node has an AMD GPU, and container {container.name} has no /dev/kfd.",
            evidence=(
                log_evidence(line),
                pod_evidence(container, "image", container.spec.image)
                if meant
                else pod_evidence(container, "volumeMounts", ", ".join(devices)),
            ),
            explains=("not-ready", "probe-too-short", "cpu-starved"),
            fix=fixes.advice(
                f"Ask for the GPU (limits amd.com/gpu, with AMD's device plugin on the node) in {fixes.edited(pod)}; without the "
                "plugin mount /dev/kfd and /dev/dri from the node"
            ),
            order=line.order,
        )
        return


def _without_render_node(pod: Pod, engine: Engine, logs: Logs) -> Iterator[Finding]:
    """llama.cpp with Vulkan or SYCL that was given a render node, and cannot open it: it says nothing but that it sees no GPU."""
    container = engine.container
    limits = container.spec.resources.limits
    given = [
        pod_evidence(container, f"resources.limits[{name}]", str(limits[name]))
        for name in limits
        if re.fullmatch(_RENDER_NODES, name)
    ] or [
        pod_evidence(container, "volumeMounts", mount.mount_path)
        for mount in container.spec.volume_mounts
        if mount.mount_path.startswith("/dev/dri")
    ]
    line = alone(container.name, logs, pod.ready)
    if line is None or not given:
        return
    own, whole = container.spec.security_context, pod.spec.security_context
    where, user = (container, own.run_as_user) if own.run_as_user is not None else (pod, whole.run_as_user)
    groups = sorted({*whole.supplemental_groups, *([whole.fs_group] if whole.fs_group else [])})
    # it owns the render nodes; a group is given to who is another
    root = user == 0 or (user is None and not (own.run_as_non_root or whole.run_as_non_root or groups))
    who = f"user {user}" if user else "its user"
    why = f", with the groups {', '.join(map(str, groups))}" if groups else ""
    look = f"kubectl -n {pod.namespace} exec {pod.name} -c {container.name} -- sh -c 'id; ls -ln /dev/dri'"
    yield Finding(
        severity="warning" if pod.ready else None,
        summary=f"{engine.label} runs on the CPU: it sees no GPU, though container {container.name} is given a render node."
        + ("" if root else f" Usually {who} cannot open it{why}."),
        evidence=(
            log_evidence(line),
            *given,
            *((pod_evidence(where, "securityContext.runAsUser", str(user)),) if user else ()),
        ),
        explains=("not-ready", "probe-too-short", "cpu-starved"),
        fix=fixes.advice(
            f"See that /dev/dri/renderD* is in the container, and take an image whose driver knows this GPU in {fixes.edited(pod)}"
            if root
            else "Give the container's user the group that owns the node's /dev/dri/renderD* (supplementalGroups, by its number on "
            f"that node) in {fixes.edited(pod)}; where it may open them, the image's driver does not know this GPU",
            *((look,) if container.running else ()),
        ),
        order=line.order,
    )


def _slow(engine: Engine, found: Fallback) -> Finding:
    """A GPU that Ollama had found, or was about to find, and that did not answer in time."""
    container = engine.container.name or "Ollama"
    what = (
        f"its search for GPUs with {found.library} did not end"
        if found.unseen
        else f"it found a GPU, and the GPU did not start up with {found.library}"
    )
    failed = found.failed or found.cpu
    told = engine.container.env.get("OLLAMA_LLM_LIBRARY")
    alone = (
        ""
        if told is not None and told.value
        else f" and set OLLAMA_LLM_LIBRARY={found.library}, so that Ollama tries one library alone"
    )
    return Finding(
        severity="warning",
        summary=f"{engine.label} runs on the CPU: {what} within the 30 s that Ollama waits.",
        evidence=(log_evidence(failed), log_evidence(found.cpu)),
        explains=("not-ready", "probe-too-short", "cpu-starved"),
        fix=fixes.advice(
            f"Restart {container} (the GPU may be awake then), and keep the driver loaded on the node (nvidia-smi -pm 1){alone}"
        ),
        order=failed.order,
    )


def _unfit(line: Line) -> str:
    """Why CUDA or ROCm refused the GPU that llama.cpp was given, in the library's words."""
    said = re.search(r"ggml_cuda_init: failed to initialize (?P<library>\w+): (?P<why>.+?)\s*$", line.text)
    return f"{said['library']} answers '{said['why']}'" if said and NO_DEVICE not in said["why"] else ""
