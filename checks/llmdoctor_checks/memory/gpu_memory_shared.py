"""Processes of others on a GPU of this pod, as the node agent sees them."""

import re
import shlex
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import (
    GIB,
    Container,
    Device,
    Engine,
    Evidence,
    Finding,
    Fix,
    Hardware,
    Line,
    Logs,
    Node,
    Pod,
    Process,
    Subject,
    check,
    dig,
    ended_logs,
    endings,
    fixes,
    holder_of,
    is_accelerator,
    k8s,
    log_evidence,
    log_of,
    pod_evidence,
    say_bytes,
    units,
)
from llmdoctor_checks._offloaded import last_offloaded
from llmdoctor_checks._pytorch_memory import PAST_PYTORCH, account
from llmdoctor_checks.hardware._gpu import CONSEQUENCES
from llmdoctor_checks.memory._before_weights import before_weights
from llmdoctor_checks.memory._overbooked import FULL, overbooked
from llmdoctor_checks.scheduling._devices import asks_for_nothing

#: Programs take a little more of a GPU than is counted of their shares: what the driver keeps for each.
_MOST_OF_IT = 0.9

#: What a CUDA context or an MPS server takes; less than this is no other model.
_LEAST = GIB
#: A share of the GPU that is missed by whoever wants the rest.
_MUCH = 0.1


#: What Ollama says of each GPU when it starts, in GiB or MiB.
_FREE = (
    r'library=(?:cuda|rocm|CUDA|ROCm)\b.*?total="(\d{1,9}(?:\.\d+)?) ([GM]iB)" available="(\d{1,9}(?:\.\d+)?) ([GM]iB)"'
)
_GIB = {"GiB": 1.0, "MiB": 1 / 1024}

#: Less than this share of the GPUs is free where somebody else uses them; a desktop or a driver takes a tenth at most.
_LITTLE = 0.5

#: vLLM's refusal to start where less than its share is free.
_REFUSED = "on startup is less than desired GPU memory utilization"

#: What vLLM says where somebody else's memory on its GPU changes while it measures.
_CHANGED = "Error in memory profiling. Initial free memory "

#: Engines whose memory PyTorch does not count.
_OWN_ALLOCATORS = frozenset({"lmdeploy", "tensorrt-llm", "triton", "nim"})

#: What vLLM says of a cache for which less than nothing is left.
_NO_CACHE = "Available KV cache memory: -"

#: What a privileged container sees of its node.
_SEES_ALL = " {name} is privileged: it sees all devices of the node, and takes the first ones, whoever was given them."

#: How the KAI scheduler (Run:ai) marks pods that share a GPU: the share asked for, and the GPU that it chose.
_FRACTION, _GROUP = "gpu-fraction", "runai-gpu-group"


#: In the names of resources and annotations of what cuts a GPU's memory up: MIG, HAMi and Volcano, 4paradigm, Aliyun, Tencent, KAI, AMD.
_SLICES = ("mig-", "gpumem", "gpu-mem", "vgpu", "gpu-memory", "vcuda", "gpu-fraction", "gpucores", "gpu-core", "_nps")

#: How AMD's labeller says that a GPU is cut up (`cpx_nps4`), and so many GPUs a machine has at most.
_CUT_BY_AMD, _WHOLE_BY_AMD, _MOST_OF_AMD = "compute-memory-partition", "spx", 8

#: What lists the processes on accelerators of other makers than NVIDIA.
_TOOLS = {"amd.com": "rocm-smi --showpids", "huawei.com": "npu-smi info", "gpu.intel.com": "xpu-smi ps"}

#: What an engine dies of where others have the memory.
_NO_ROOM = ("cuda-oom-weights", "cuda-oom-profile", "cuda-oom-runtime", "kv-cache-no-room")


@check(
    "gpu-memory-shared",
    since="0.1",
    literals=(
        "inference compute",
        "layers to GPU",
        "out of memory. Tried to allocate",
        *FULL,
        _NO_CACHE,
        _REFUSED,
        _CHANGED,
        "Load weight begin. avail mem=",
        "Executor creation failed due to insufficient GPU memory",
        "cudaMalloc failed: out of memory",
    ),
)
def gpu_memory_shared(
    pod: Pod, hardware: Hardware | None, subject: Subject, logs: Logs | None, node: Node | None
) -> Iterator[Finding]:
    """Something else holds the GPU's memory.

    The engine takes a share of the whole GPU, and less than that was free when it started. Another pod uses the same card (time slicing,
    MPS, a GPU-sharing scheduler, `NVIDIA_VISIBLE_DEVICES=all` without a request), the old replica has not ended yet, or a process
    outlived its container. GPU memory is not divided by Kubernetes: two engines with a share of 0.9 each cannot live on one card.

    HAMi's scheduler writes at each pod which card it gave it. Where the cores of one card are given out twice it has lost count: two pods
    that ask for a card each have the same one.

    When nearly the whole GPU was free and the share is above 0.95, nothing else is at fault: lower the share a little.

    ## Fix

    Give each engine a card or a MIG slice of its own, or divide the shares. Kill what was left behind; `strategy: Recreate`
    prevents overlap of old and new replica.

    ## References

    - https://docs.vllm.ai/en/latest/configuration/conserving_memory/
    - https://docs.nvidia.com/datacenter/cloud-native/gpu-operator/latest/gpu-sharing.html
    """
    yield from _overpacked(pod, subject)
    yield from overbooked(pod, subject, logs, _NO_ROOM)
    for server in subject.engines(pod) if logs is not None else ():
        if (crowded := _crowded(pod, server, logs)) is not None:
            yield crowded
    if logs is not None and (counted := _counted(pod, subject, logs)) is not None:
        yield counted
    if logs is not None and (gone := _gone_before(pod, subject, logs)) is not None:
        yield gone
    if logs is not None and (unnamed := _unaccounted(pod, subject, logs)) is not None:
        yield unnamed
    elif logs is not None and node is not None and (node.allocatable("nvidia.com/gpu") or 0) > 0:
        yield from _unasked(pod, subject, logs)
    if hardware is not None:
        yield from _by_the_node(pod, hardware, next(iter(subject.engines(pod)), None), logs)


class _Crowd(msgspec.Struct, frozen=True):
    """A GPU of the pod of which others hold much: its size and theirs, and what the pod was given of it, or its engine takes."""

    device: Device
    others: list[Process]
    total: int
    held: int
    given: int | None
    share: float | None

    @property
    def short(self) -> bool:
        """Whether what others leave is less than the pod is to have."""
        return self.given is not None or (self.share is not None and self.total - self.held < self.share * self.total)

    @property
    def orphaned(self) -> bool:
        """Whether processes of no pod hold much."""
        return sum(p.used_bytes or 0 for p in self.others if p.pod_uid == "") > _MUCH * self.total


def _crowds(pod: Pod, hardware: Hardware, engine: Engine | None) -> Iterator[_Crowd]:
    for device in hardware.mine:
        others, total = _of_others(pod, hardware, device), device.memory_total_bytes
        held = sum(p.used_bytes or 0 for p in others)
        if held < _LEAST or not total or held < _MUCH * total:
            continue
        given = hardware.shares.get(device.uuid)
        if given is not None and total - held >= _MOST_OF_IT * given:
            continue  # a share of its own, which others leave to it
        yield _Crowd(device, others, total, held, given, _share(engine))


def _by_the_node(pod: Pod, hardware: Hardware, engine: Engine | None, logs: Logs | None) -> Iterator[Finding]:
    """Processes of others on a GPU of this pod, by the node agent; the engine may have refused to start for want of what they hold."""
    found = next(_crowds(pod, hardware, engine), None) if pod.obj.metadata.uid else None
    if found is None:
        return
    # what it was given of a GPU that others have already
    refused = _refused(pod, logs) if found.short and logs is not None else None
    ended = any(endings(pod))
    fails = pod.failing and (found.short or (found.share is None and (ended or found.orphaned)))
    wants = (
        f"; {engine.label} takes {found.share:g} of it" if found.short and engine and found.share is not None else ""
    )
    wants = f"; it was given {say_bytes(found.given)} of it" if found.given is not None else wants
    yield Finding(
        role="cause" if fails else "note",
        # it may have ended of something else
        confidence="certain" if refused else "likely" if found.short or ended else "possible",
        summary=f"{', '.join(_who(hardware, p) for p in found.others[:3])} of {say_bytes(found.total)} of {found.device.title}"
        f" on {hardware.node}, which this pod uses{wants}.",
        evidence=(
            *(hardware.evidence(found.device, "processes", _quote(p)) for p in found.others[:5]),
            *(hardware.share_evidence() if found.given is not None else ()),
            *((log_evidence(refused),) if refused else ()),
        ),
        explains=(*_NO_ROOM, "kv-cache-below-max-len", "gpu-memory-utilization-high", *CONSEQUENCES),
        fixes=tuple(_fixes(hardware, found.device, found.others, engine, found.total - found.held)),
    )


def _of_others(pod: Pod, hardware: Hardware, device: Device) -> list[Process]:
    """The processes on a GPU that are of no container of the pod, as far as the node tells whose they are."""
    if device.mig_enabled:
        return []  # slices have memory of their own
    known = any(p.pod_uid for d in hardware.devices for p in d.all_processes) or not hardware.runs
    return [p for p in device.all_processes if p.pod_uid != pod.obj.metadata.uid and (known or p.pod_uid is not None)]


def _refused(pod: Pod, logs: Logs) -> Line | None:
    """Where vLLM says that it does not start, since less than its share was free."""
    return next((line for log in ended_logs(pod, logs) for line in log.find(_REFUSED)), None)


def _crowded(pod: Pod, engine: Engine, logs: Logs | None) -> Finding | None:
    """Ollama found little of its GPUs free when it started, before it had loaded anything, and then had to leave layers out."""
    log = engine.container.own_log(logs)
    if log is None or engine.name != "ollama" or not (pod.ready or pod.log_only):
        return None
    sizes = [(line, said) for line, said in log.matching(_FREE, "inference compute")]
    last = last_offloaded(log)
    if not sizes or last is None or last[1] >= last[2]:
        return None
    total, free = (sum(_GIB[said[n + 1]] * float(said[n]) for _, said in sizes) for n in (1, 3))
    if free >= _LITTLE * total or total - free < 2:
        return None
    look = f"kubectl -n {pod.namespace} exec {pod.name} -c {engine.container.name} -- nvidia-smi"
    return Finding(
        severity="warning",
        summary=f"Of the {total:.3g} GiB of its GPUs only {free:.3g} GiB were free when {engine.title} started, before it had loaded a "
        "model: something else holds them, and layers of the model are computed on the CPU.",
        evidence=(*(log_evidence(line) for line, _ in sizes[:2]), log_evidence(last[0])),
        explains=("weights-off-gpu", "cpu-starved"),
        fix=fixes.platform(
            "See who else uses the GPU, and give this pod one of its own", *(() if pod.log_only else (look,))
        ),
        order=last[0].order,
    )


def _counted(pod: Pod, subject: Subject, logs: Logs) -> Finding | None:
    """What PyTorch says of a full GPU, of which it has itself only a part: the rest is somebody else's."""
    engine = next(iter(subject.engines(pod)), None)
    if not pod.failing or (engine and (engine.name in _OWN_ALLOCATORS or engine.explicit("enable_sleep_mode"))):
        return None
    for ending in endings(pod):
        log = log_of(ending, logs)
        for line in log.find("out of memory. Tried to allocate") if log else ():
            said = account(line.text)
            if said is None or not said.others:
                continue
            container, privileged = ending.container, ending.container.spec.security_context.privileged
            return Finding(
                confidence="likely" if said.others > said.own else "possible",
                summary=f"Of the GPU's {say_bytes(said.total)} this process had {say_bytes(said.own)} when none was left "
                f"({say_bytes(said.free)} free): about {say_bytes(said.others)} are held by something else, another process of "
                f"this container or another pod.{_SEES_ALL.format(name=container.name) if privileged else ''}",
                evidence=(
                    log_evidence(line),
                    *((pod_evidence(container, "securityContext.privileged", "true"),) if privileged else ()),
                ),
                explains=(*_NO_ROOM, *CONSEQUENCES),
                fixes=(
                    *((_unprivileged(container),) if privileged else ()),
                    fixes.platform(
                        "See who else uses the GPU (shares by time slicing have no memory of their own), and give each a GPU "
                        "or a MIG slice, or less memory",
                        fixes.pods_on(pod.spec.node_name or "NODE"),
                    ),
                ),
                order=line.order,
            )
    return None


def _unprivileged(container: Container) -> Fix:
    """The devices that the container was given, and no others."""
    if not (container.accelerators or container.spec.resources.claims):
        return fixes.advice(
            f"Ask for the GPUs of {container.name} in its limits (nvidia.com/gpu) in {fixes.edited(container.pod)}, and remove "
            "privileged: true, by which alone it has any now"
        )
    path = f"{container.pointer}/securityContext/privileged"
    summary = f"Remove privileged: true of {container.name}, so that it sees only the devices that it was given"
    return fixes.patch(container.pod, summary, [{"op": "remove", "path": path}])


def _gone_before(pod: Pod, subject: Subject, logs: Logs) -> Finding | None:
    """Much of a whole GPU was missing before the server had loaded anything, and what was left was too little."""
    for ending in endings(pod):
        container, log = ending.container, log_of(ending, logs)
        engine = subject.engine_of(container)
        if engine is None or log is None or _has_a_slice(container):
            continue
        sizing = subject.sizing(engine)
        card, found = sizing.accelerator, before_weights(engine, log, sizing)
        # of a GPU that MPS divides each client sees its own part alone
        if found is None or (card is not None and "mps" in card.sharing.lower()):
            continue
        sharing = card is not None and card.shared > 1
        gone, node = say_bytes(found.total - found.free), pod.spec.node_name or "NODE"
        unasked = asks_for_nothing(container)
        alone = "; the container asks for no GPU, so that others may have it" if unasked else ""
        tool = next(
            (tool for maker, tool in _TOOLS.items() if any(maker in name for name in container.accelerators)),
            "nvidia-smi",
        )
        return Finding(
            confidence="certain" if found.free < found.total / 2 else "likely",
            summary=f"Before {engine.title} had loaded anything, only {say_bytes(found.free)} of the GPU's {say_bytes(found.total)} were "
            f"free: something else holds about {gone}, and its own settings change nothing about that{alone}.",
            evidence=(log_evidence(found.line), log_evidence(found.short)),
            explains=(*_NO_ROOM, "gpu-memory-utilization-high", *CONSEQUENCES),
            fixes=(
                *((_of_its_own(container, asked=False),) if unasked else ()),
                *(_beside_others(container, found.free / found.total) if sharing and not unasked else ()),
                fixes.platform(
                    f"End what holds {gone} of this GPU on {node} ({tool} there lists the processes: a pod that uses the GPU without "
                    "asking for it, or one that outlived its container), or move this pod to another node; then the settings may stay",
                    fixes.on_node(node, tool),
                    fixes.pods_on(node),
                ),
            ),
            order=found.short.order,
        )
    return None


def _beside_others(container: Container, free: float) -> tuple[Fix, ...]:
    """What helps where a GPU is shared on purpose by time slicing: each server takes what it is told of the whole of it."""
    node = container.pod.spec.node_name or "NODE"
    return (
        fixes.platform(
            f"Have the pods that share this GPU of {node} take less of it each ({free:.0%} was free), or give "
            f"{fixes.edited(container.pod)} a GPU that is not shared: time slicing does not divide the memory",
            fixes.pods_on(node),
        ),
    )


def _has_a_slice(container: Container) -> bool:
    """Whether a container was given part of a GPU, of which it sees no more than that."""
    asked = " ".join([*container.spec.resources.limits, *container.pod.annotations])
    return any(word in asked for word in _SLICES) or bool(container.spec.resources.claims) or _cut_by_amd(container)


def _cut_by_amd(container: Container) -> bool:
    """Whether the GPUs of AMD of its node are cut into parts, which count as GPUs of their own and show no more than their own memory."""
    node = container.pod.cluster.item("Node", "", container.pod.spec.node_name or "")
    if node is None or "amd.com/gpu" not in container.spec.resources.limits:
        return False
    modes = [str(value).lower() for key, value in node.labels.items() if key.endswith(_CUT_BY_AMD)]
    count = units((dig(node.raw, "status.allocatable") or {}).get("amd.com/gpu"))
    return any(not mode.startswith(_WHOLE_BY_AMD) for mode in modes) or (count or 0) > _MOST_OF_AMD


def _unaccounted(pod: Pod, subject: Subject, logs: Logs) -> Finding | None:
    """A share that neither weights nor cache of vLLM take, on a GPU that others may use as well.

    vLLM measures the whole GPU while it profiles (v1/worker/gpu_worker.py): what a neighbour takes meanwhile is charged to it.
    """
    for ending in endings(pod):
        engine = subject.engine_of(ending.container)
        share, log = _share(engine), log_of(ending, logs)
        if engine is None or share is None or log is None:
            continue
        sizing = subject.sizing(engine)
        line = next(log.find(_NO_CACHE), None)
        left = re.search(rf"{_NO_CACHE}(\d{{1,6}}(?:\.\d{{1,6}})?) GiB", line.text) if line else None
        card, weights = sizing.accelerator, sizing.printed.measured.weights
        total = card.gpu.memory if card else None
        asked = bool(engine.container.gpus)
        if line is None or left is None or weights is None or not total:
            continue
        if asked and (card is None or card.shared < 2):
            continue
        unknown = share * total + float(left[1]) * GIB - weights.high
        if unknown < max(PAST_PYTORCH, share * total / 2):
            continue
        others = (
            "which others share"
            if asked
            else f"for which container {ending.container.name} does not ask, so that others may have it"
        )
        return Finding(
            summary=f"Weights take {say_bytes(weights.high)}, and of the {say_bytes(share * total)} that vLLM may use nothing is left: "
            f"about {say_bytes(unknown)} were taken by something else while it measured the GPU, {others}.",
            evidence=(
                log_evidence(line),
                log_evidence(sizing.printed.lines["weights"]),
                pod_evidence(
                    ending.container, "resources.limits", ", ".join(ending.container.spec.resources.limits) or "none"
                ),
            ),
            explains=("kv-cache-no-room", "gpu-memory-utilization-high", *CONSEQUENCES),
            fix=_of_its_own(ending.container, asked=asked),
            order=line.order,
        )
    return None


def _unasked(pod: Pod, subject: Subject, logs: Logs) -> Iterator[Finding]:
    """vLLM that others disturb on a GPU for which its container does not ask: the scheduler may give that to anybody."""
    engines = [engine.container for engine in subject.engines(pod) if engine.name == "vllm"]
    for ending in endings(pod):
        container, log = ending.container, log_of(ending, logs)
        line = next(log.find(_REFUSED, _CHANGED), None) if log is not None else None
        if line is None or not asks_for_nothing(container) or not any(one is container for one in engines):
            continue
        yield Finding(
            summary=f"Somebody else has memory on the GPU that vLLM takes: container {container.name} asks for none, so that it sees all "
            f"of {pod.spec.node_name} and takes the first, whoever has it.",
            evidence=(
                log_evidence(line),
                pod_evidence(container, "resources.limits", ", ".join(container.spec.resources.limits) or "none"),
            ),
            explains=(*_NO_ROOM, "gpu-memory-utilization-high", *CONSEQUENCES),
            fix=_of_its_own(container, asked=False),
            order=line.order,
        )
        return


def _of_its_own(container: Container, *, asked: bool) -> Fix:
    """A GPU that no other has."""
    if not asked:
        summary = f"Ask for a GPU in the limits of {container.name}"
        return fixes.set_resource(container, "limits", "nvidia.com/gpu", "1", summary)
    return fixes.platform(
        "Give each engine a GPU or a MIG slice of its own; start engines that share one GPU after each other",
        fixes.pods_on(container.pod.spec.node_name or "NODE"),
    )


def _overpacked(pod: Pod, subject: Subject) -> Iterator[Finding]:
    """Pods that share a GPU by KAI's fractions, which together are more than one GPU: it counts, and keeps nobody to it."""
    group, now = pod.labels.get(_GROUP), list(endings(pod))
    if not group or not now or _fraction(pod.obj) is None:
        return
    sharing = [
        other
        for other in subject.cluster.all(k8s.Pod, "Pod")
        if other.metadata.labels.get(_GROUP) == group
        and other.spec.node_name == pod.spec.node_name
        and other.status.phase not in ("Succeeded", "Failed")
        and _fraction(other) is not None
    ]
    shares = [(other, _fraction(other) or 0) for other in sharing]
    total = sum(share for _, share in shares)
    if total <= 1:
        return
    yield Finding(
        summary=f"{len(shares)} pods share one GPU of {pod.spec.node_name}, with {total:g} of it together: "
        + ", ".join(f"{other.metadata.name} {share:g}" for other, share in shares)
        + ".",
        evidence=(
            pod_evidence(pod, f"metadata.labels[{_GROUP}]", str(group)),
            *(
                Evidence(
                    source="pod",
                    ref=f"Pod/{other.metadata.name} metadata.annotations[{_FRACTION}]",
                    text=str(other.metadata.annotations.get(_FRACTION)),
                )
                for other, _ in shares
            ),
        ),
        explains=(*_NO_ROOM, *CONSEQUENCES),
        fix=fixes.platform(
            "Delete one of the pods that share the GPU, so that the scheduler places it again, and see that all pods with "
            f"{_FRACTION} are placed by one scheduler",
            f"kubectl get pods -A -o wide -l {_GROUP}={group}",
        ),
    )


def _fraction(pod: k8s.Pod) -> float | None:
    """The share of a GPU that KAI gives a pod."""
    try:
        return float(pod.metadata.annotations.get(_FRACTION, ""))
    except ValueError:
        return None


def _pods_of(hardware: Hardware, processes: list[Process]) -> list[k8s.Pod]:
    """The pods of processes, as far as the snapshot has them."""
    uids = {process.pod_uid for process in processes if process.pod_uid}
    return [pod for pod in hardware.pod.cluster.all(k8s.Pod, "Pod") if pod.metadata.uid in uids]


def _asks(pod: k8s.Pod) -> bool:
    return any(is_accelerator(name) for container in pod.spec.containers for name in container.resources.limits)


def _sees_all(pod: k8s.Pod) -> bool:
    """Whether a container is told to see all GPUs, whichever the device plugin gives it."""
    told = (variable for container in pod.spec.containers for variable in container.env)
    return any(variable.name == "NVIDIA_VISIBLE_DEVICES" and variable.value == "all" for variable in told)


def _share(engine: Engine | None) -> float | None:
    """The share of the GPU that the engine wants to have free at its start."""
    value = engine.value("gpu_memory_utilization") if engine and engine.name == "vllm" else None
    return value if isinstance(value, float) and 0 < value <= 1 else None


def _who(hardware: Hardware, process: Process) -> str:
    name = f"process {process.pid}" + (f" ({process.name})" if process.name else "")
    return f"{name} of {holder_of(hardware, process)} holds {say_bytes(process.used_bytes or 0)}"


def _quote(process: Process) -> str:
    owner = f", podUid: {process.pod_uid}" if process.pod_uid else ""
    return f"pid: {process.pid}, name: {process.name}{owner}, usedBytes: {process.used_bytes}"


def _fixes(
    hardware: Hardware, device: Device, others: list[Process], engine: Engine | None, free: int
) -> Iterator[Fix]:
    if orphans := [
        str(p.pid) for p in others if not p.pod_uid and p.pid
    ]:  # with those on the pod's other GPUs, as of an engine that outlived its server
        beside = (p for other in hardware.mine if other is not device for p in other.all_processes)
        orphans += [str(p.pid) for p in beside if p.pod_uid == "" and p.pid and (p.used_bytes or 0) >= _LEAST]
        orphans = list(dict.fromkeys(orphans))
        yield fixes.platform(
            f"End the processes that no pod owns, on {hardware.node}: {', '.join(orphans)}",
            fixes.on_node(hardware.node, f"kill {' '.join(orphans)}"),
        )
    else:
        if asking := [item for item in _pods_of(hardware, others) if not _asks(item)]:
            names = ", ".join(f"Pod {pod.metadata.namespace}/{pod.metadata.name}" for pod in asking[:3])
            yield fixes.platform(
                f"Have {names} ask for a GPU in its limits, or end it: it uses {device.title} of {hardware.node} and was given none",
                *(f"kubectl -n {pod.metadata.namespace} get pod {pod.metadata.name} -o yaml" for pod in asking[:1]),
            )
        for pod in (item for item in _pods_of(hardware, others) if _sees_all(item)):
            owner = f"Pod {pod.metadata.namespace}/{pod.metadata.name}"
            yield fixes.advice(
                f"Take NVIDIA_VISIBLE_DEVICES=all out of what {owner} is made from: with it {owner} sees all GPUs of "
                f"{hardware.node}, and not only those that it is given",
                f"kubectl -n {shlex.quote(pod.metadata.namespace)} get pod {shlex.quote(pod.metadata.name)} -o yaml",
            )
        yield fixes.platform(
            f"Find out why {device.title} of {hardware.node} serves several pods (sharing, or a pod that sees all GPUs "
            "without asking for one), and give this pod a GPU of its own",
            fixes.pods_on(hardware.node),
        )
    share = int((free / (device.memory_total_bytes or 1) - 0.02) * 100) / 100
    if engine and _share(engine) and share >= 0.3:
        yield fixes.set_flag(
            engine,
            "gpu_memory_utilization",
            "--gpu-memory-utilization",
            f"{share:g}",
            f"Where sharing is meant: take {share:g} of the GPU, which is free",
        )
