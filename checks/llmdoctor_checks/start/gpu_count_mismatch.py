"""Parallel sizes that do not fit the GPUs of the pod."""

import math
import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    DYNAMO_GRAPH,
    RAY_CLUSTER,
    RAY_NODE_TYPE,
    WORKER_SET,
    Abstain,
    Accelerator,
    Container,
    Engine,
    Finding,
    Fix,
    Log,
    Logs,
    Pod,
    Setting,
    Sizing,
    Subject,
    check,
    count_of,
    device_evidence,
    dig,
    fixes,
)
from llmdoctor_checks._consequences import FAILED_START
from llmdoctor_checks.start._groups import gpus_of_group
from llmdoctor_checks.start._idle_gpus import (
    FULL,
    NO_ROOM,
    NODES_BY_FLAG,
    SIZE_TEXT,
    SIZES,
    crowded,
    devices_of,
    idle,
    idle_on_each_node,
    sizes_evidence,
    sizes_known,
    slices_of,
)
from llmdoctor_checks.start._visible import hides_all

#: GPUs that a node has at most, but for few machines.
_MOST_IN_ONE_NODE = 8
_WHOLE_GPUS = ("nvidia.com/gpu", "amd.com/gpu")

#: Engines that use one GPU unless they are told otherwise. TGI, Ollama and llama.cpp take all, NIM what its profile says. Text
#: Embeddings Inference takes the first and knows no other (backends/candle/src/lib.rs, `Device::new_cuda(0)`).
_ONE_GPU = frozenset({"vllm", "sglang", "tei"})

#: Labels of pods whose workers spread over several pods.
_GROUPED = (
    WORKER_SET,
    RAY_CLUSTER,
    RAY_NODE_TYPE,
    DYNAMO_GRAPH,
    "stormservice.orchestration.aibrix.ai/podset-name",
)
_GROUPED_KINDS = frozenset({"LeaderWorkerSet", "RayCluster", "RayService", "RayJob", "LLMInferenceService"})

#: Slices that are a whole GPU each, of one whose MIG mode wants driver 575: NVIDIA says that a process sees one slice of drivers up to
#: CUDA 12's first (R525), and people measured vLLM with tensor parallelism over two of these.
_WHOLE_SLICES = frozenset({"nvidia.com/mig-4g.96gb"})

#: Words of a command that bring ranks together by other means.
_OTHER_LAUNCHER = r"\bray\b|torchrun|mpirun|srun|multi[-_]node|run_cluster|ray_init|data-parallel|data_parallel"

#: Where several nodes meet: who says it means more than one pod.
_MEETS = r"--(?:dist-init-addr|nccl-init-addr|master-addr)\b"

#: What starts the Ray of a group before vLLM in its leader, and what spreads ranks in other ways than by the sizes alone.
_OVER_RAY = r"multi[-_]node[-_]serving\.sh\s+leader\b|\bray\s+start\s[^;&|]{0,200}--head\b"
_SPREAD_OTHERWISE = r"data[-_]parallel|--nnodes\b|expert-parallel"

_BY_RAY = r"--distributed[-_]executor[-_]backend[= ]ray\b"
#: Where a process looks for the Ray of its own pod, which somebody must have started.
_RAY_OF_ITS_POD = ("auto", "local", "127.0.0.1:6379", "localhost:6379")

#: What only shows when all ranks are there: they have loaded the model, PyTorch's group of all ranks is made (vLLM and SGLang then
#: number their ranks and load NCCL), Gloo or NCCL has joined them and connects one to another (`init.cc` exchanges what each rank has
#: before any file of `transport/` sets up a connection; vLLM and SGLang hand NCCL's id to all over Gloo before it asks the system for
#: anything), Ray prints what a worker on another node says, or vLLM has divided the group of
#: all ranks, which is the first that it makes; kernels are warmed up, or compiled by DeepGEMM, for weights that are loaded.
_STARTED = (
    r"KV cache|Gloo connectFullMesh failed|\(RayWorker\w* pid=\d+, ip="
    r"|\b(?:vLLM|sglang) is using nccl==|\bInit torch distributed ends\b|\brank \d{1,4} in world size \d{1,4} is assigned as "
    r"|RuntimeError: NCCL error: unhandled system error|DistBackendError: NCCL error in: |\bNCCL WARN NET/"
    r"|NCCL INFO .{0,200}(?:Init COMPLETE|via (?:NET|P2P|SHM)/| nRanks (?:[2-9]|\d{2,5}) nNodes \d|Connected all )"
    r"|NCCL INFO Channel \d{1,3}/\d{1,3} : "
    r"|\b(?:transport/\w+|ib_plugin)\.cc?:\d+ NCCL WARN (?!(?:Cuda|HIP) failure)"
    r"|, line \d+, in (?:initialize_model_parallel|in_the_same_node_as|_initialize_kv_caches|kernel_warmup|compile_or_warm_up_model)\b"
    r"|/deep_gemm/include/deep_gemm/impls/\w{1,80}\.cuh\b"
)

#: What vLLM and SGLang print next, on each rank: of data parallel ones some may load while others find no GPU.
_LOADS = r"|\bStarting to load model |\bLoading safetensors checkpoint shards: |\bLoad weight begin\b|\bModel loading took \d"

#: What each rank says as it begins to join the others, on a GPU of its own by then: its number, and of how many (`init.cc`).
_JOINS = "NCCL INFO", r" rank (?P<rank>\d{1,4}) n[rR]anks (?P<of>\d{1,4}) .{0,200}Init START"
_SAME_GPU = "Duplicate GPU detected"

#: Who else a process is to meet: PyTorch's store, NCCL and Gloo say which address they lost or do not reach (c10d's `socket.cpp`,
#: `misc/socket.cc`, `transport/tcp/pair.cc`), and Ray which of its nodes went.
_MET = (
    r"client socket has (?:timed out after \d+m?s while trying|failed) to connect to (?:any network address of )?\((?P<store>[^,()\s]+), \d"
    r"|NCCL WARN socket(?:Start|Poll)Connect: [Cc]onnect to (?P<nccl>[\d.]+)<\d+> (?:failed|returned [^,]{1,60}, exceeded)"
    r"|gloo/transport/tcp/pair\.cc:\d+\] (?:Read error|Connection closed by peer) \[(?P<gloo>[\d.]+)\]:\d"
    r"|\(raylet\) The node with node id: \w+ and address: (?P<ray>[\d.]+) and node name: .{1,80} has been marked dead "
)
#: A rank that asks for NCCL's id, which has chosen its GPU before.
_RANK_OF_NCCL = r"\[(?P<rank>\d{1,4})\] is setting up NCCL communicator and retrieving ncclUniqueId from \[\d"


@check("gpu-count-mismatch", since="0.1", literals=(*FULL, NO_ROOM, SIZE_TEXT, "-core ERROR ("))
def gpu_count_mismatch(
    pod: Pod, engine: Engine, subject: Subject, logs: Logs | None, sizing: Sizing
) -> Iterator[Finding | Abstain]:
    """Tensor, pipeline and data parallel sizes do not match the GPUs of the pod.

    An engine starts one worker per GPU: tensor × pipeline (× data, × prefill context) parallel size of them. With fewer GPUs in the
    container the start fails ("World size is larger than the number of available GPUs", "invalid device ordinal");
    with more, the rest stands idle while it stays reserved: an engine that is not told of them puts the whole model on one GPU, and
    where that has no memory for it, this is why.

    Over several pods (LeaderWorkerSet, Ray, Dynamo, `--nnodes`) the product of tensor and pipeline size counts for the whole group: in
    a manifest it is a risk where all its pods together have fewer GPUs, or more than the ranks that Ray spreads. With too few Ray waits
    forever for a placement group, the others for ranks that nobody starts. Nor does it start where each pod of a LeaderWorkerSet runs
    the engine by itself, without `--nnodes` and without Ray: the pod then counts its own GPUs alone.

    A device of AWS Neuron holds several cores, so that its number says nothing. A slice of TPUs may span several pods; it
    is judged where the node selector shows that it does not, and only for too many workers: a pod takes all chips of its
    machine, however few of them it needs.

    Within a container its GPUs count from 0: a `CUDA_VISIBLE_DEVICES` with their numbers on the node hides them all.

    Several MIG slices are not several GPUs: CUDA shows a process only one of them, unless each is a whole GPU of the newest kind
    (`4g.96gb` of RTX PRO 6000). Several replicas of a time-sliced GPU
    may all be the same GPU: 5, 7 or 10 GPUs for one worker, numbers that no machine has, are noted for that reason, and so
    are those of a vLLM that is told to leave more than a fifth of a GPU's memory alone, and any beside a ConfigMap by which
    NVIDIA's device plugin shares GPUs.

    ## Fix

    Request as many GPUs as there are workers, or set `--tensor-parallel-size` to the GPUs of the pod. A whole replica
    on one node is fastest with tensor parallel size = GPUs of that node.

    ## References

    - https://docs.vllm.ai/en/latest/serving/parallelism_scaling/
    """
    container, devices = engine.container, engine.container.devices or 0
    if not (pod.exists or pod.lent) and (hidden := hides_all(container)):
        summary, evidence, fix = hidden
        yield Finding(role="risk", summary=summary, evidence=evidence, fix=fix)
        return
    explicit = [s for name in SIZES if (s := engine.explicit(name))]
    if not explicit and (engine.workers or 1) == 1:
        if engine.name in _ONE_GPU and not _grouped(pod, engine, subject) and devices > 1:
            yield from idle(engine, 1, devices)
            yield from crowded(engine, 1, devices, logs, sizing)
        return
    workers = _workers(pod, engine)
    if workers is None:
        told = explicit and not any(name in engine.found.unresolved for name in SIZES)
        whose = "what the image's own entrypoint adds to the parallel sizes is" if told else "the parallel sizes are"
        yield Abstain(reason=f"{whose} not known")
    elif _grouped(pod, engine, subject):
        yield from _too_many_for_a_group(pod, engine, subject, explicit, logs)
        yield from idle_on_each_node(pod, engine, workers)
    elif container.accelerators and (container.devices is None or _part_of_a_slice(pod, container)):
        yield Abstain(reason="how many workers its accelerators take is not known")
    else:
        yield from _by_number(pod, engine, workers, explicit, subject, logs, sizing)


def _workers(pod: Pod, engine: Engine) -> int | None:
    """The workers of one instance; of an entrypoint of the image's own, which may add to its arguments, those that are too many alone."""
    if engine.workers is not None or pod.exists or any(name in engine.found.unresolved for name in SIZES):
        return engine.workers
    least, devices = engine.workers_at_least, engine.container.devices or 0
    return least if least > devices or (least == devices and slices_of(engine.container)) else None


def _by_number(
    pod: Pod,
    engine: Engine,
    workers: int,
    explicit: list[Setting],
    subject: Subject,
    logs: Logs | None,
    sizing: Sizing,
) -> Iterator[Finding]:
    """Workers of a pod that stands alone against the GPUs that it sees."""
    gpus, devices = _visible(engine.container), engine.container.devices or 0
    if not gpus:
        return
    if gpus == workers:
        if workers > 1:
            yield from _not_whole(engine, workers, sizing.accelerator)
        if gpus < devices:
            yield from idle(engine, workers, devices)
    elif gpus > workers:
        yield from idle(engine, workers, gpus)
        yield from crowded(engine, workers, gpus, logs, sizing)
    else:
        yield from _too_few(pod, engine, workers, gpus, explicit, subject, logs)


def _visible(container: Container) -> int | None:
    """As many of its GPUs as CUDA shows a container."""
    gpus, visible = container.devices, container.env.get("CUDA_VISIBLE_DEVICES")
    if not visible or not visible.value or visible.value.lower() == "all":
        return gpus
    seen = len([d for d in visible.value.split(",") if d.strip()])
    return min(gpus, seen) if gpus else seen


def _factors(sizes: list[Setting]) -> str:
    """Of what the number of workers is the product, where it is of several: ` (2 x 4)`."""
    return f" ({' x '.join(str(size.value) for size in sizes)})" if len(sizes) > 1 else ""


def _too_few(
    pod: Pod, engine: Engine, workers: int, gpus: int, explicit: list[Setting], subject: Subject, logs: Logs | None
) -> Iterator[Finding]:
    """Fewer GPUs than workers: of a pod that exists only where it fails before they have all started."""
    container = engine.container
    product = _factors(explicit)
    failing = any(t.container is container and t.kind != "dead" for t in pod.troubles)
    if pod.exists and not failing:
        return
    begun = _STARTED if engine.explicit("data_parallel_size") else _STARTED + _LOADS
    if failing and any(re.search(begun, log.text) for log in container.own_logs(logs)):
        return  # all workers had started, in other pods too: whatever ended them came later
    if failing and any(_all_join(log, workers) for log in container.own_logs(logs)):
        return
    if failing and any(_meets_others(pod, log.text, gpus) for log in container.own_logs(logs)):
        return
    resource = next(iter(container.accelerators), "nvidia.com/gpu")
    hidden = container.devices != gpus  # by a variable: it has more, by its limits or by a claim
    yield Finding(
        role="cause" if failing else "risk",
        # stages are mostly those of several pods, which a Ray that only a log tells of may join
        confidence="certain" if not failing else "likely" if logs or not engine.explicit(SIZES[1]) else "possible",
        summary=f"{engine.label} starts {count_of(workers, 'worker')}{product}; container {container.name} {'sees' if hidden else 'has'} "
        f"{devices_of(container, gpus)}.",
        evidence=tuple(sizes_evidence(engine)),
        explains=FAILED_START if failing else (),
        fixes=tuple(_fixes(engine, resource, workers, gpus, len(explicit), subject)),
    )


def _all_join(log: Log, workers: int) -> bool:
    """Whether NCCL says of as many ranks as there are workers that they begin to join, each on a GPU of its own."""
    literal, pattern = _JOINS
    ranks = {int(said["rank"]) for _, said in log.matching(pattern, literal, most=20_000) if int(said["of"]) >= workers}
    return len(ranks) >= workers and not log.holds(_SAME_GPU)


def _meets_others(pod: Pod, text: str, gpus: int) -> bool:
    """Whether a log tells of other machines that take part: the GPUs of this pod alone say nothing then."""
    own = {pod.name, pod.status.pod_ip, "localhost", "127"}
    for found in re.finditer(_MET, text):
        host = next(h for h in found.groupdict().values() if h)
        if host not in own and host.partition(".")[0] not in own:
            return True
    return any(int(found["rank"]) >= gpus for found in re.finditer(_RANK_OF_NCCL, text))


def _too_many_for_a_group(
    pod: Pod, engine: Engine, subject: Subject, explicit: list[Setting], logs: Logs | None
) -> Iterator[Finding]:
    """More workers than all pods of a replica have GPUs: how they are spread over the pods does not matter then."""
    if pod.ready or any(name in engine.found.unresolved for name in SIZES[:2]):
        return
    if any(re.search(_STARTED, log.text) for log in engine.container.own_logs(logs)):
        return
    sizes = [s for s in explicit if s.name in SIZES[:2] and isinstance(s.value, int)]
    workers = math.prod(s.value for s in sizes)
    group = gpus_of_group(pod, engine, subject) if workers > 1 else None
    own = engine.container.devices or 0
    if not pod.exists and group is not None and 0 < own < workers <= group[0] and _joins_nobody(pod, engine):
        yield _on_its_own(engine, workers, own, sizes, group[0])
        return
    if group is not None and not pod.exists and group[0] > workers > 1 and _ranks_by_ray(pod, engine, subject):
        yield _idle_in_group(engine, workers, sizes, group[0])
    if group is None or not 0 < group[0] < workers:
        return
    gpus, whose = group
    product = _factors(sizes)
    alone = gpus == engine.container.devices
    resource = next(iter(engine.container.accelerators), "nvidia.com/gpu")
    yield Finding(
        role="cause" if pod.exists else "risk",
        explains=(*FAILED_START, "ray-cluster") if pod.exists else (),
        summary=f"{engine.label} starts {workers} workers{product}; {whose} {count_of(gpus, 'GPU')}.",
        evidence=tuple(sizes_evidence(engine)),
        fixes=tuple(_fixes(engine, resource, workers, gpus, len(explicit), subject))
        if alone and engine.container.accelerators
        else (
            fixes.advice(f"Give {fixes.pods_of(pod)} {workers} GPUs together, or set sizes whose product is {gpus}"),
        ),
    )


def _ranks_by_ray(pod: Pod, engine: Engine, subject: Subject) -> bool:
    """Whether the leader of a LeaderWorkerSet alone runs vLLM, whose ranks Ray spreads over the pods of the group."""
    kind = pod.template_of.kind if pod.template_of else ""
    if kind != "LeaderWorkerSet" or engine.name != "vllm" or not sizes_known(engine):
        return False
    words = " ".join(word for _, word in engine.container.words)
    if re.search(_SPREAD_OTHERWISE, words) or not re.search(_OVER_RAY, words):
        return False
    return all(other is pod or not subject.engines(other) for other in subject.pods)


def _idle_in_group(engine: Engine, workers: int, sizes: list[Setting], gpus: int) -> Finding:
    """Ranks that Ray spreads over fewer GPUs than the pods of a group take together."""
    product = _factors(sizes)
    stages = engine.value("pipeline_parallel_size", 1)
    whole = isinstance(stages, int) and gpus % workers == 0
    use = f"Set --pipeline-parallel-size {stages * gpus // workers}" if whole else f"Set sizes whose product is {gpus}"
    fewer = "a size of 1" if workers <= (engine.container.devices or 0) else "fewer pods"
    return Finding(
        role="risk",
        summary=f"{engine.label} starts {workers} workers{product}, and the pods of a group take {gpus} GPUs: "
        f"{gpus - workers} stay reserved and idle.",
        evidence=tuple(sizes_evidence(engine)),
        fix=fixes.advice(f"{use}, or give the group {fewer}, in {fixes.edited(engine.pod)}"),
    )


def _joins_nobody(pod: Pod, engine: Engine) -> bool:
    """Whether nothing of a pod of a group tells its engine that there are other pods: neither its arguments nor a Ray beside it.

    The leader of a LeaderWorkerSet is a pod like any other to vLLM and SGLang, which know a rank among several nodes only by
    `--nnodes` (vLLM from 0.12 on) or by a Ray that runs before vLLM starts: `--distributed-executor-backend ray` starts none but
    one of its own pod. What a shell's script or the entrypoint of an image of one's own does first is not known.
    """
    kind = pod.template_of.kind if pod.template_of else ""
    if kind != "LeaderWorkerSet" or engine.explicit("nnodes") or "nnodes" in engine.found.unresolved:
        return False
    return _starts_alone(pod, engine)


def _starts_alone(pod: Pod, engine: Engine) -> bool:
    """Whether its engine surely starts with nothing before it, such as the Ray of a cluster."""
    container = engine.container
    command = container.spec.words("command")
    if engine.name not in NODES_BY_FLAG or not engine.found.argv_known:
        return False
    if not (command or engine.own_image) or (command and re.search(r"(?:^|/)(?:ba|da|z)?sh$", command[0])):
        return False
    said = " ".join(w for other in pod.containers for _, w in other.words)
    # vLLM that is told to use Ray starts none but one of its own pod
    backend = engine.value("distributed_executor_backend", "mp")
    if backend not in ("mp", "ray") or re.search(_OTHER_LAUNCHER, re.sub(_BY_RAY, "", said)):
        return False
    ray = container.env.get("RAY_ADDRESS")
    if ray is not None and ray.value not in _RAY_OF_ITS_POD:
        return False
    return not (container.spec.lifecycle or container.spec.env_from)


def _on_its_own(engine: Engine, workers: int, own: int, sizes: list[Setting], together: int) -> Finding:
    product = _factors(sizes)
    nodes = -(-workers // own)
    place = "with --node-rank and --{}: LWS_WORKER_INDEX, LWS_LEADER_ADDRESS"
    if engine.name != "vllm":
        told = f"Tell each pod its place in the group (--nnodes {nodes} {place.format('dist-init-addr')})"
    elif engine.at_least("0.12.0") is False:  # it has no such option
        told = "Start Ray in each pod first, and vLLM in the leader alone,"
    else:
        told = f"Tell each pod its place in the group (--nnodes={nodes} {place.format('master-addr')}), or start Ray in each first,"
    by_ray = engine.value("distributed_executor_backend") == "ray"
    how = "starts no Ray before it, though it should use one" if by_ray else "is not told of other pods"
    return Finding(
        role="risk",
        summary=f"{engine.label} starts {workers} workers{product} and {how}: it counts the "
        f"{count_of(own, 'GPU')} of its own container {engine.container.name}, though the pods of a group have {together} together.",
        evidence=tuple(sizes_evidence(engine)),
        fix=fixes.advice(f"{told} in {fixes.edited(engine.pod)}"),
    )


def _not_whole(engine: Engine, workers: int, device: Accelerator | None) -> Iterator[Finding]:
    """As many devices as workers, which are slices or shares of a GPU and not GPUs."""
    container, pod = engine.container, engine.pod
    if pod.ready:
        return
    slices = slices_of(container)
    if not slices and device is not None and device.gpu.profile:
        slices = f"nvidia.com/gpu ({device.gpu.name})"
    if slices in _WHOLE_SLICES:
        return
    if slices:
        yield Finding(
            role="risk",
            summary=f"{engine.label} starts {workers} workers; container {container.name} gets {workers} x {slices}, and "
            "CUDA shows a process only one MIG slice.",
            evidence=tuple(sizes_evidence(engine)),
            fix=fixes.advice(
                f"Ask for whole GPUs, or for one larger slice without parallelism, in {fixes.edited(pod)}"
            ),
        )
    elif device is not None and device.shared > 1:
        yield Finding(
            role="note",
            confidence="possible",
            summary=f"The {workers} GPUs of container {container.name} are shares ({device.sharing}), and may be one and the same.",
            evidence=(*sizes_evidence(engine), device_evidence(container, device)),
        )


def _grouped(pod: Pod, engine: Engine, subject: Subject) -> bool:
    """Whether the workers may stand in other pods too, so that this pod's GPUs alone prove nothing."""
    labels = pod.labels
    if any(label in labels for label in _GROUPED) or _spread(pod, subject):
        return True
    kinds = {subject.workload.kind if subject.workload else "", subject.item.kind if subject.item else ""}
    if kinds & _GROUPED_KINDS or any(c.name.startswith("ray") for c in pod.containers):
        return True
    if subject.workload and dig(subject.workload.raw, "spec.predictor.workerSpec") is not None:
        return True
    if any("ray start" in word for word in engine.container.spec.argv):
        return True
    nodes = engine.value("nnodes", 1)
    if nodes != 1 or engine.explicit("headless"):
        return True
    if engine.value("distributed_executor_backend") == "ray" and not _starts_alone(pod, engine):
        return True
    return any(engine.explicit(n) for n in ("data_parallel_address", "data_parallel_size_local", "data_parallel_rank"))


def _each_rank(engine: Engine, gpus: int) -> int:
    """The GPUs that each data parallel rank can have of the pod's, where each was told to take more: the two sizes are multiplied."""
    told = {name: setting.value for name in SIZES if (setting := engine.explicit(name))}
    ranks, each = told.get("data_parallel_size"), told.get("tensor_parallel_size")
    if len(told) != 2 or not isinstance(ranks, int) or not isinstance(each, int) or ranks < 2:
        return 0
    fewer = gpus // ranks
    return fewer if fewer and gpus % ranks == 0 and each % fewer == 0 else 0  # whose heads they share evenly


def _part_of_a_slice(pod: Pod, container: Container) -> bool:
    """Whether its TPUs may be those of one host of a larger slice, each host of which has a pod of its own."""
    chips = container.accelerators.get("google.com/tpu")
    sides = str(pod.spec.node_selector.get("cloud.google.com/gke-tpu-topology", "")).split("x")
    return bool(chips) and not (
        all(side.isdecimal() and len(side) < 10 for side in sides) and math.prod(map(int, sides)) == chips
    )


def _spread(pod: Pod, subject: Subject) -> bool:
    """Whether one replica consists of several pods, or may; parts of a graph that are no ranks of each other are not."""
    return len(subject.pods) > 1 if pod.exists else pod.nodes != 1 or pod.partial or pod.lent


def _fixes(engine: Engine, resource: str, workers: int, gpus: int, sizes: int, subject: Subject) -> Iterator[Fix]:
    container = engine.container
    name, by_claim = "CUDA_VISIBLE_DEVICES", bool(container.spec.resources.claims) and not container.accelerators
    if container.gpus >= workers or (by_claim and container.env.get(name)):
        has = "its claim may give" if by_claim else "the container has"  # GPUs of a claim are not asked for once more
        yield fixes.remove_env(container, name, f"Remove {name}: it hides GPUs that {has}")
        return
    meets = next((met[0] for _, word in container.words if (met := re.search(_MEETS, word))), "")
    if meets and engine.name in NODES_BY_FLAG and engine.explicit("nnodes") is None and workers % gpus == 0:
        yield fixes.advice(
            f"Add --nnodes {workers // gpus}, and the number of each pod as --node-rank, in {fixes.edited(engine.pod)}: "
            f"{meets} alone does not tell it of other pods"
        )
        return
    wanted = -(-workers * container.gpus // gpus) if container.gpus else workers  # a chip may be several devices
    largest = max((node.offers(resource) or 0 for node in subject.nodes), default=0)
    if resource in _WHOLE_GPUS and wanted > max(largest, _MOST_IN_ONE_NODE):
        if fewer := _each_rank(engine, gpus):
            summary = f"Give each of the {gpus // fewer} data parallel ranks {count_of(fewer, 'GPU')} of the {gpus}, if the model fits"
            yield fixes.set_flag(engine, "tensor_parallel_size", "--tensor-parallel-size", str(fewer), summary)
        most = min(largest or _MOST_IN_ONE_NODE, _MOST_IN_ONE_NODE)
        pods = (
            f"{wanted // most} pods of {most} GPUs"
            if wanted % most == 0
            else f"pods of {most} GPUs or fewer on several nodes"
        )
        yield fixes.advice(
            f"Spread the engine over {pods} (a LeaderWorkerSet, a Ray cluster): hardly any node has {wanted}"
        )
    elif not slices_of(container):
        summary = f"Request {wanted} x {resource} for {container.name}"
        yield fixes.set_resource(container, "limits", resource, str(wanted), summary)
    if sizes == 1 and engine.explicit("tensor_parallel_size"):
        summary = f"Use the {devices_of(container, gpus)} that {'is' if gpus == 1 else 'are'} there, if the model fits"
        yield fixes.set_flag(engine, "tensor_parallel_size", "--tensor-parallel-size", str(gpus), summary)
