"""An engine that needs a GPU in a container that asks for none."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    GIB,
    Confidence,
    Container,
    Engine,
    Evidence,
    Finding,
    Fix,
    Line,
    Logs,
    Node,
    Pod,
    Subject,
    check,
    dig,
    driver_cuda,
    endings,
    escaped,
    fixes,
    image_cuda,
    is_accelerator,
    log_evidence,
    log_of,
    node_evidence,
    object_evidence,
    pod_evidence,
    say_cuda,
    say_pairs,
    setting_evidence,
    suffices,
    usage_of,
)
from kubectl_llmdoctor.catalog.images import cpu_build, foreign_resource
from llmdoctor_checks._consequences import FAILED_START
from llmdoctor_checks._ollama import alone, fallback
from llmdoctor_checks.scheduling._devices import asks_for_nothing, given_by_request_only, near_gpus
from llmdoctor_checks.start._groups import gpus_of_group

#: Engines whose usual images do not run without an accelerator; Ollama and llama.cpp run on the CPU as well.
_NEED_GPU = frozenset({"vllm", "sglang", "tgi", "tensorrt-llm", "nim", "lmdeploy"})

#: vLLM's own image, which is built for CUDA: `--device cpu` and VLLM_TARGET_DEVICE, which only the build reads, do not make
#: it run on a CPU (vllm/platforms/__init__.py asks for "cpu" in the package's version).
_CUDA_BUILD = r"(?:^|/)vllm/vllm-openai(?:$|[:@])"

_GPUS = ("auto", "cuda", "rocm")

#: IBM's fork of TGI, which computes on the CPU where it sees no GPU (IBM/text-generation-inference,
#: server/text_generation_server/inference_engine/engine.py): Caikit's small models are served so.
_TGIS = r"(?:^|/)(?:modh|opendatahub|wxpe|ibm)/(?:[\w.-]+/){0,9}(?:text-generation-inference|text-gen-server)\b"

#: What TGI is told for a machine without a GPU (its README).
_TGI_ON_CPU = "--disable-custom-kernels"

#: With it OpenShift AI's webhook puts the resources of a hardware profile into an InferenceService that it admits
#: (opendatahub-io/odh-model-controller, internal/webhook/serving/hardwareprofile).
_PROFILE = "opendatahub.io/hardware-profile-name"

#: A variable that the kubelet replaces in a command.
_VARIABLE = r"\$\(([A-Za-z_]\w*)\)"

#: What engines say when they see no GPU.
_NO_GPU = (
    "Failed to infer device type",
    "No platform detected, vLLM is running on UnspecifiedPlatform",
    "No CUDA GPUs are available",
    "Found no NVIDIA driver on your system",
    "no CUDA-capable device is detected",
    "No accelerator (CUDA",
    "libcuda.so.1: cannot open shared object file",
    "No GPU devices found",
    "No supported device detected",  # vLLM up to 0.4
    "Device string must not be empty",
    "number of visible devices (0)",
    "no GPUs found!",
    "No HIP GPUs are available",
    "NVIDIA Driver was not detected",
    "driver version is insufficient for CUDA runtime version",  # CUDA's word for no driver, too
    "cudaErrorInsufficientDriver",
)

#: What the runtimes of other makers say where the container has no device, each by the resource that brings one: Habana's Synapse,
#: libtpu, CANN and torch_npu, AWS's Neuron.
_NO_DEVICE_OF = {
    "habana.ai/gaudi": ("Device acquire failed", "synStatus=8 [Device not found]"),
    "google.com/tpu": ("No ba16c7433 device found", "TPU initialization failed: open("),
    "huawei.com/Ascend910": (
        "libascend_hal.so: cannot open shared object file",
        "driver error:no valid device",
        "torch_npu detected, but NPU device is not available",
        "dcmi module initialize failed",
        "dcmi model initialized failed",
        "aclInit, error code is 507008",
        "Get device count of NPU failed",
    ),
    "aws.amazon.com/neuron": ("No neuron device available", "Please check /dev/neuron"),
}
#: Neuron's device, and one of its cores.
_NEURON, _CORES = "aws.amazon.com/neuron", "aws.amazon.com/neuroncore"
#: By which the runtimes of these makers are told of devices that no plugin gave.
_BY_RUNTIME = ("ASCEND_VISIBLE_DEVICES", "HABANA_VISIBLE_DEVICES")
_EVERY_NO_DEVICE = tuple(text for texts in _NO_DEVICE_OF.values() for text in texts)

#: What Triton says of a model that cannot be loaded without a GPU (core model_config_utils.cc, tensorrt_backend).
_MODEL_NEEDS = (
    "TensorRT backend supports only GPU device",
    "has kind KIND_GPU but no GPUs are available",
    "specifies invalid or unsupported gpu id",
)

#: Of them CUDA's words for a driver that is too old, or not there.
_OLD_OR_NONE = _NO_GPU[-2:]

#: CTranslate2's words for them; all of its packages of the last years are built for CUDA 12, so that no driver of that is too old.
_CTRANSLATE2 = r"RuntimeError: CUDA failed with error CUDA driver version is insufficient"
_OF_CTRANSLATE2 = (12, 0)

#: How near its end a program says why it ends.
_LAST = 15

#: Lines by which a program went on without a GPU (ONNX Runtime says what failed, and that it takes the next provider), or
#: ended of something else: the last line of another exception.
_WENT_ON = r"(?i)pinned memory pool will not be available|\bfall(?:s|ing)? ?back\b"
_ANOTHER = r"^(?:[\w-]{1,80}\.){0,9}[A-Za-z]\w{0,80}(?:Error|Exception|Exit)\b(?::|\s*$)"

#: Between two exceptions of which one led to the other.
_CHAINED = ("direct cause of the following exception", "another exception occurred")

#: What says of a driver that it is there: NVIDIA's start script of an image, nvidia-smi.
_THERE = r"version [\d.]{3,20} was detected|Driver Version: \d"
_TOLD = ("was detected", "Driver Version: ")

#: Engines that take the CPU where they see no GPU.
_EITHER = frozenset({"ollama", "llama.cpp", "tei"})

#: In the name of an image, or in a line that a part of the build printed: it is made for GPUs.
_GPU_BUILD = r"(?i)cuda|rocm|vulkan|sycl|musa|nvidia"

#: What the missing device explains.
_NODES_FAULTS = ("gpu-runtime-missing", "driver-missing", "driver-too-old")
_NO_DEVICE = (*_NODES_FAULTS, *FAILED_START)

#: What of a Serve configuration asks Ray for GPUs: a deployment's own number of them, or an LLMConfig, each worker of which takes one
#: (ray.llm, VLLMEngineConfig.placement_bundles) unless it says what else it takes.
_ASKS_RAY = r"\bnum_gpus[\"']?: *(?:[1-9]|0?\.0{0,9}[1-9])[\d.]{0,9}|\bllm_configs\b"
_OF_ITS_OWN = r"\bplacement_group|\bresources_per_bundle\b|\buse_cpu\b"

#: Labels of nodes that only those with GPUs have.
_GPU_LABELS = r"nvidia\.com/(?!gpu\.deploy)|amd\.com/gpu|cloud\.google\.com/gke-accelerator|karpenter\.k8s\.aws/instance-gpu|gpu\b"


@check("gpu-request-missing", since="0.1", literals=(*_NO_GPU, *_EVERY_NO_DEVICE, *_TOLD, *_MODEL_NEEDS))
def gpu_request_missing(pod: Pod, subject: Subject, logs: Logs | None, node: Node | None) -> Iterator[Finding]:
    """The container that runs the engine asks for no GPU.

    Only a container that asks for `nvidia.com/gpu` (or another vendor's resource, or a ResourceClaim) gets a GPU. Without
    it the pod may land on any node, and the engine finds no device: "Failed to infer device type", "No CUDA GPUs are
    available". Where the NVIDIA runtime is the node's default it may even start, on a GPU that the scheduler gives to
    somebody else as well. CUDA itself says of a container without a driver that the driver version is insufficient, as it does
    of an old one: of a program that ends so in a container that asks for no GPU the missing request is the likelier of both. A runtime
    class gives the GPUs to whoever has NVIDIA_VISIBLE_DEVICES, by its image too: there the same is said of CTranslate2 (faster-whisper)
    beside a driver that is new enough for its packages.

    Ollama, llama.cpp and Text Embeddings Inference take the CPU then, and are many times slower. That is a fault where the
    pod was meant for a GPU: its RuntimeClass, its node selector, variables of NVIDIA's runtime, the layers that llama.cpp
    should put on a GPU say so, or that it tolerates the GPU taint of the node on which it runs.

    vLLM's own image is built for CUDA: `--device cpu` or `VLLM_TARGET_DEVICE=cpu` does not make it run on a CPU, for which
    there are builds of their own. Noted is a container that has neither arguments nor variables nor resources: the outline
    of one, which somebody completes; and TGI, which takes the CPU where it sees no GPU, unless its model is known to be large or
    something else says that it is meant for one. Of TGI with `--disable-custom-kernels`, which is how it runs without a GPU, and of IBM's
    fork of it, which takes the CPU where it sees none, nothing is said. What a RayService deploys waits forever for GPUs that no pod of
    its cluster has. Triton runs models on either; one that is made for a GPU,
    as each of TensorRT is, it does not load without.

    ## Fix

    Ask for the GPU in the limits of the container that runs the engine (not of a sidecar or an init container):

        resources: {limits: {nvidia.com/gpu: 1}}

    ## References

    - https://kubernetes.io/docs/tasks/manage-gpus/scheduling-gpus/
    """
    engines = {engine.container.name: engine for engine in subject.engines(pod)}
    for container in pod.containers if not pod.log_only else ():
        engine = engines.get(container.name)
        if not asks_for_nothing(container):
            yield from _of_another_maker(container, engine, logs, node)
            continue
        if engine is not None and engine.name in _EITHER:
            yield from _on_cpu(pod, engine, logs, node)
        elif engine is not None and engine.name in _NEED_GPU:
            yield from _needs_one(pod, engine, logs, subject)
        elif said := next(_for_a_model(container, logs), None):
            yield _model_needs_one(container, said)
        elif logs is not None:
            yield from _without_driver(container, logs, node)


def _how_sure(container: Container) -> Confidence:
    """How sure it is that the missing request is why an engine sees no GPU.

    NVIDIA's runtime hands all GPUs to a container whose image or pod says so, without a request: then it may be the runtime.
    """
    resources = container.spec.resources
    if "nvidia" in (container.pod.spec.runtime_class_name or ""):
        return "possible"
    written = resources.limits or resources.requests
    return "certain" if written and "NVIDIA_VISIBLE_DEVICES" not in container.env else "likely"


def _ask_for_one(container: Container, resource: str = "", number: int = 1) -> Fix:
    """A GPU in the limits, or several, with the runtime class by which the other pods of the node have theirs."""
    resource = resource or foreign_resource(container.spec.image) or "nvidia.com/gpu"
    what = "a GPU" if number == 1 else f"{number} GPUs"
    pod, text = container.pod, f"Ask for {what} in the limits of {container.name}"
    having = [
        holder.pod
        for holder in usage_of(pod.cluster).holders(pod.spec.node_name or "")
        if holder.requests.get(resource) and holder.pod.metadata.uid != pod.obj.metadata.uid
    ]
    classes = {other.spec.runtime_class_name or "" for other in having}
    name = classes.pop() if len(classes) == 1 else ""
    if not name or pod.spec.runtime_class_name:
        return fixes.set_resource(container, "limits", resource, str(number), text)
    text += f", and the runtime class {name}, by which {having[0].metadata.namespace}/{having[0].metadata.name} has its GPU on this node"
    at = f"{container.pointer}/resources/limits/{escaped(resource)}"
    operations = [
        {"op": "add", "path": at, "value": str(number)},
        {"op": "add", "path": "/runtimeClassName", "value": name},
    ]
    return fixes.patch(pod, text, operations)


def _in_each_pod(pod: Pod, engine: Engine) -> int:
    """How many GPUs an engine takes in each pod of its group; one, where that is open."""
    workers, pods = engine.workers or 1, pod.nodes
    told = engine.value("nnodes", 1)
    if isinstance(told, int) and told > 1:
        pods = told
    return workers // pods if pods and workers % pods == 0 else 1


def _needs_one(pod: Pod, engine: Engine, logs: Logs | None, subject: Subject) -> Iterator[Finding]:
    """An engine that does not run without a GPU."""
    container = engine.container
    line = next((x for text in _NO_GPU for log in container.own_logs(logs) for x in log.find(text)), None)
    crashed = container.trouble("crashed", "not-ready") is not None
    evidence: list[Evidence] = [pod_evidence(container, "resources", _resources(container))]
    fix = _ask_for_one(container, number=_in_each_pod(pod, engine))
    if crashed and line:
        evidence.insert(0, log_evidence(line))
        yield Finding(
            confidence=(sure := _how_sure(container)),
            summary=f"{engine.label} needs a GPU and sees none: container {container.name} asks for none.",
            evidence=tuple(evidence),
            explains=_NO_DEVICE[len(_NODES_FAULTS) :] if sure == "possible" else _NO_DEVICE,
            fix=fix,
        )
    elif asked := _unplaced(pod, engine, subject):
        yield Finding(
            role="risk",
            summary=f"Ray never places the replicas of {engine.label}: they ask it for GPUs, and no pod of the cluster has one; "
            f"container {container.name} asks for none.",
            evidence=(*evidence, asked),
            fix=fix,
        )
    elif not pod.exists and not _elsewhere(pod) and _for_gpus(engine) and not _open(container):
        cpu = _for_cpus(engine)
        build = f": its image is built for CUDA, which {cpu} does not change" if cpu else ""
        # TGI computes on the CPU where it sees no GPU, slowly: small models are run so on purpose
        few = engine.workers_at_least < 2 and _meant(pod, engine, None) is None
        small = few and (subject.sizing(engine).file_bytes or 0) < GIB
        noted = pod.spec.runtime_class_name == "nvidia" or _outline(engine) or (engine.name == "tgi" and small)
        needs = "is made for a GPU, and slow without" if engine.name == "tgi" else f"needs a GPU{build}"
        yield Finding(
            role="note" if noted else "risk",
            summary=f"{engine.label} {needs}; container {container.name} asks for none.",
            evidence=(*evidence, pod_evidence(container, "image", container.spec.image)) if cpu else tuple(evidence),
            fixes=_either(engine, cpu) if cpu.startswith("--device") else (*_either(engine, cpu), fix),
        )


def _of_another_maker(
    container: Container, engine: Engine | None, logs: Logs | None, node: Node | None
) -> Iterator[Finding]:
    """A container for accelerators of another maker than NVIDIA's that ends without one, as it asks for none."""
    resource = foreign_resource(container.spec.image)
    texts = _NO_DEVICE_OF.get(resource, ())
    crashed = container.trouble("crashed", "not-ready") is not None
    if (
        not crashed
        or not texts
        or container.spec.security_context.privileged
        or not asks_for_nothing(container, of_any_maker=True)
    ):
        return
    line = next((x for text in texts for log in container.own_logs(logs) for x in log.find(text)), None)
    if line is None or container.pod.spec.runtime_class_name or any(name in container.env for name in _BY_RUNTIME):
        return  # its runtime may have given it some
    maker = resource.partition("/")[0]
    offered = (
        [name for name, number in node.accelerators.items() if number and name.startswith(f"{maker}/")] if node else []
    )
    if node is not None and not offered:
        return  # no node for it, or one whose plugin is not there
    name, number = offered[0] if len(offered) == 1 else resource, _in_each_pod(container.pod, engine) if engine else 1
    cores = engine.value("tensor_parallel_size") if engine is not None and resource == _NEURON else None
    if isinstance(cores, int) and cores > 1:
        name, number = _CORES, cores  # which it counts, and a device has several
    yield Finding(
        confidence="certain" if offered else "likely",
        summary=f"Container {container.name} runs {container.spec.image.rpartition('/')[2]}, finds no accelerator and asks for none "
        f"({name}).",
        evidence=(log_evidence(line), pod_evidence(container, "resources", _resources(container))),
        explains=(
            *_NO_DEVICE,
            "driver-libs-not-on-path",
            "gpu-memory-shared",
            "import-broken",
            "worker-lost",
            "rollout-stuck",
        ),
        fix=fixes.set_resource(
            container, "limits", name, str(number), f"Ask for {number} {name} in the limits of {container.name}"
        ),
        order=line.order,
    )


def _unplaced(pod: Pod, engine: Engine, subject: Subject) -> Evidence | None:
    """What asks Ray for GPUs in the Serve configuration of a RayService, in whose cluster no pod has one."""
    item = pod.template_of if not pod.exists else None
    config = dig(item.raw, "spec.serveConfigV2") if item and item.kind == "RayService" else None
    if item is None or not isinstance(config, str) or re.search(_OF_ITS_OWN, config):
        return None
    asks = re.search(_ASKS_RAY, config)
    group = gpus_of_group(pod, engine, subject) if asks else None
    return object_evidence(item, "spec.serveConfigV2", asks[0]) if asks and group and group[0] == 0 else None


def _either(engine: Engine, cpu: str) -> tuple[Fix, ...]:
    """What to do where a setting says that the CPU is meant: with `--device` in its arguments, a GPU alone does not help."""
    if not cpu:
        return ()
    where, container = fixes.edited(engine.pod), engine.container.name
    other = f", or leave out {cpu} and ask for a GPU in the limits of {container}" if cpu.startswith("--device") else ""
    return (fixes.advice(f"Take an image built for the CPU, vllm/vllm-openai-cpu, in {where}{other}"),)


def _for_a_model(container: Container, logs: Logs | None) -> Iterator[Line]:
    """Where Triton says that a model needs a GPU, and is not ready, or ended without being killed: it may serve the others."""
    if logs is None or container.status.ready or near_gpus(container):
        return
    killed = (e for e in endings(container.pod) if e.oom_killed or e.signal in ("SIGKILL", "SIGTERM"))
    others = [log.source for e in killed if e.container is container and (log := log_of(e, logs))]
    for log in logs.of(container.name):
        if log.source not in others:
            yield from log.find(*_MODEL_NEEDS)


def _model_needs_one(container: Container, line: Line) -> Finding:
    return Finding(
        summary=f"Triton has a model that needs a GPU, and container {container.name} asks for none.",
        evidence=(log_evidence(line), pod_evidence(container, "resources", _resources(container))),
        explains=_NO_DEVICE,
        fix=_ask_for_one(container),
    )


def _without_driver(container: Container, logs: Logs, node: Node | None) -> Iterator[Finding]:
    """A program that calls CUDA where no driver answers, and ends of it: nothing leads a driver into its container."""
    pod = container.pod
    mine = (
        ending
        for ending in endings(pod)
        if ending.container is container and ending.signal not in ("SIGKILL", "SIGTERM")
    )
    ended = [log for ending in mine if not ending.oom_killed and (log := log_of(ending, logs))]
    line = next((x for text in _OLD_OR_NONE for log in ended for x in log.find(text) if _ends(x)), None)
    if line is None:
        return
    near = near_gpus(container) and not given_by_request_only(container, node)
    if near and not _would_do(container, line, node):
        return  # it may be led in without a request, and too old
    said = line.log.find(*_TOLD)
    if any(re.search(_THERE, x.text[:2000]) for x in said):
        return  # it is led in, and too old
    driver, built = driver_cuda(pod, node), image_cuda(container, logs)
    if driver and built and suffices(driver[0], built[0]) is False:
        return  # that the driver is too old is known
    yield Finding(
        confidence="likely" if near else "certain",
        summary=f"CUDA finds no driver in container {container.name}, which asks for no GPU"
        + (f"; that of the node knows CUDA {say_cuda(driver[0])}." if driver else "."),
        evidence=(
            log_evidence(line),
            pod_evidence(container, "resources", _resources(container)),
            *((driver[1],) if driver else ()),
        ),
        explains=(*_NO_DEVICE, "import-broken", "worker-lost", "rollout-stuck"),
        fixes=(
            _ask_for_one(container),
            *(
                ()
                if given_by_request_only(container, node)
                else (
                    fixes.platform(
                        "Where this node's default runtime gives its GPUs to pods that ask for none, compare its driver with the image's "
                        "CUDA",
                        "kubectl get nodes -L nvidia.com/cuda.driver-version.full,nvidia.com/cuda.runtime-version.full",
                    ),
                )
            ),
        ),
        order=line.order,
    )


def _would_do(container: Container, line: Line, node: Node | None) -> bool:
    """Whether the node's driver is new enough for whoever says that there is none, and only its runtime class may lead it in."""
    driver = driver_cuda(container.pod, node)
    by_class = container.pod.spec.runtime_class_name == "nvidia" and "NVIDIA_VISIBLE_DEVICES" not in container.env
    return bool(by_class and driver and driver[0] >= _OF_CTRANSLATE2 and re.search(_CTRANSLATE2, line.text[:2000]))


def _ends(line: Line) -> bool:
    """Whether a program ended of what a line near its end says: nothing after it tells of another way, or another end."""
    if len(line.log) - line.number > _LAST or re.search(_WENT_ON, line.text[:2000]):
        return False
    for text in (after.text[:2000] for after in line.log.lines(line.number + 1)):
        if any(said in text for said in _CHAINED):
            return True
        if re.search(_WENT_ON, text) or (re.search(_ANOTHER, text) and not any(said in text for said in _OLD_OR_NONE)):
            return False
    return True


def _on_cpu(pod: Pod, engine: Engine, logs: Logs | None, node: Node | None) -> Iterator[Finding]:
    """A server that runs on the CPU although its pod was meant for a GPU."""
    container = engine.container
    if logs is None or cpu_build(container.spec.image) or str(engine.value("gpu_layers")) == "0":
        return
    found = fallback(container.name, logs) if engine.name == "ollama" else None
    line = found.cpu if found else alone(container.name, logs, pod.ready and engine.name != "ollama")
    meant = _meant(pod, engine, node)
    if line is None or meant is None or (found and found.failed):
        return
    resource = "amd.com/gpu" if "amd.com/" in meant.text else ""
    layers = engine.explicit("gpu_layers")
    by_layers = layers is not None and meant == setting_evidence(container, layers)
    made_for_gpus = re.search(_GPU_BUILD, f"{container.spec.image} {line.text}")
    yield Finding(
        # people leave the option in the arguments of a build for CPUs
        role="risk" if pod.ready and by_layers and not made_for_gpus else "cause",
        severity="warning" if pod.ready else None,
        summary=f"{engine.label} runs on the CPU: container {container.name} asks for no GPU, though {meant.ref} says that one was meant.",
        evidence=(log_evidence(line), pod_evidence(container, "resources", _resources(container)), meant),
        explains=("gpu-runtime-missing", "not-ready", "probe-too-short", "cpu-starved", "slow-load"),
        fix=_ask_for_one(container, resource),
        order=line.order,
    )


def _meant(pod: Pod, engine: Engine, node: Node | None) -> Evidence | None:
    """What of the pod says that it was meant for a GPU."""
    container, spec = engine.container, pod.spec
    if "nvidia" in spec.runtime_class_name:
        return pod_evidence(pod, "runtimeClassName", spec.runtime_class_name)
    for key, value in spec.node_selector.items():
        if re.search(_GPU_LABELS, key) and str(value).lower() not in ("false", "no", "none"):
            return pod_evidence(pod, "nodeSelector", f"{key}: {value}")
    layers = engine.explicit("gpu_layers") if engine.name == "llama.cpp" else None
    if layers is not None:
        return setting_evidence(container, layers)
    if "NVIDIA_DRIVER_CAPABILITIES" in container.env:
        return pod_evidence(container, "env", "NVIDIA_DRIVER_CAPABILITIES")
    named = {toleration.key for toleration in spec.tolerations}  # one for all taints is meant for none
    taints = [t for t in node.taints if is_accelerator(t.key) and t.key in named] if node else []
    return node_evidence(node, f"taint {taints[0].key}:{taints[0].effect}") if node and taints else None


def _elsewhere(pod: Pod) -> bool:
    """Whether another object may ask for the GPU, a runtime, a preset or a profile, or a container beside it does."""
    kind = pod.template_of.kind if pod.template_of else ""
    if pod.template_of and pod.template_of.annotations.get(_PROFILE):
        return True
    return pod.partial or "ServingRuntime" in kind or pod.gpus > 0 or kind.endswith(("Template", "Preset", "Config"))


def _for_gpus(engine: Engine) -> bool:
    """Whether image or settings say that it runs on GPUs: of an image with a name of its own nobody knows the build."""
    container = engine.container
    if engine.name == "vllm" and re.search(_CUDA_BUILD, container.spec.image):
        return True
    if _for_cpus(engine):
        return False
    if any(name in container.env for name in ("NVIDIA_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")):
        return True
    if engine.name == "tgi" and (
        re.search(_TGIS, container.spec.image)
        or _TGI_ON_CPU in (*container.launch.command, *container.launch.args)
        or "DISABLE_CUSTOM_KERNELS" in container.env
    ):
        return False
    if not engine.found.argv_known:
        return False  # a script that cannot be seen may build or download something, and start nothing
    if engine.own_image or "cuda" in container.spec.image or engine.workers_at_least > 1:
        return True
    return _meant(engine.pod, engine, None) is not None


def _for_cpus(engine: Engine) -> str:
    """The setting that says that it is not meant for GPUs; empty if none does."""
    built = engine.container.env.get("VLLM_TARGET_DEVICE")
    device = str(engine.value("device", "auto"))
    if device not in _GPUS:
        return f"--device {device}"
    return f"VLLM_TARGET_DEVICE={built.value}" if built and built.value and built.value not in _GPUS else ""


def _open(container: Container) -> bool:
    """Whether its arguments name variables that nothing here sets: a base, which others complete."""
    words = " ".join([*container.launch.command, *container.launch.args])
    return not container.spec.env_from and any(name not in container.env for name in re.findall(_VARIABLE, words))


def _outline(engine: Engine) -> bool:
    """Whether it has an image and next to nothing else, so that it shows a place rather than a server to be run.

    The image of a NIM holds its model: it needs no more.
    """
    spec = engine.container.spec
    resources = spec.resources
    return engine.name != "nim" and not (
        spec.command or spec.args or spec.env or spec.env_from or resources.limits or resources.requests
    )


def _resources(container: Container) -> str:
    parts = [
        f"{kind}: {say_pairs(values)}"
        for kind, values in (
            ("limits", container.spec.resources.limits),
            ("requests", container.spec.resources.requests),
        )
        if values
    ]
    return "; ".join(parts) or "none"
