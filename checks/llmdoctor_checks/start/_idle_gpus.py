"""GPUs that are asked for and not used."""

import math
import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Container,
    Engine,
    Evidence,
    Finding,
    Fix,
    Line,
    Log,
    Logs,
    Pod,
    Sizing,
    count_of,
    dig,
    ending_of,
    fixes,
    limits_evidence,
    log_evidence,
    log_of,
    logs_of,
    phase_of,
    pod_evidence,
    setting_evidence,
)
from llmdoctor_checks._consequences import CRASHED
from llmdoctor_checks._pytorch_memory import account

SIZES = (
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "prefill_context_parallel_size",
    "context_parallel_size",
)

#: Numbers of GPUs that no model is split over and no machine has: who asks for so many asks for shares by time-slicing.
_NO_NODE_HAS = (5, 7, 9, 10, 11, 12, 13, 14, 15, *range(17, 100))

#: How NVIDIA's device plugin is told to give a GPU to several containers, and to how many.
_SHARING, _REPLICAS = ("timeSlicing:", "mps:"), r"\breplicas: *(?:[2-9]|[1-9]\d)\b"

#: Engines that learn of further nodes by `--nnodes`.
NODES_BY_FLAG = frozenset({"vllm", "sglang"})

#: What a start prints whose GPUs have no memory left, and what of it says that something else holds that memory.
FULL = ("CUDA out of memory", "HIP out of memory")
#: What it prints whose share of the memory is used up, and the share from which on that is the GPU's own end.
NO_ROOM, _WHOLE_SHARE = "No available memory for the cache blocks", 0.8
_OTHERS = r"Process \d+ has [^.]{0,9}\.\d+ GiB memory in use\. (?:Process|Including)"

#: vLLM 0.6 to 0.9, of memory that is not PyTorch's own and counts as part of its share (CUDA and NCCL take less than 5 GiB), where
#: that leaves less than nothing.
_NOT_ITS_OWN = (
    r"non_torch_memory(?:=| takes )(?P<other>\d{2,4}\.\d{1,4})Gi?B.{0,200}?(?:kv_cache_size=|KV Cache is )"
    r"-(?P<lacks>\d{1,4}\.\d{1,4})Gi?B"
)

#: The share of a GPU that the weights take at least where it is for them that more GPUs are needed.
_FILLED = 1 / 3

#: Which rank or GPU such a line is of: where there is one more than the sizes make, the arguments are not all.
_RANK = r"\b(?:Worker_TP|TP|rank ?=? ?|GPU )(?P<number>\d{1,3})\b"

#: The configuration that vLLM prints before it loads anything, whatever file or script its settings are from.
SIZE_TEXT = "tensor_parallel_size="
_BEGINS = "LLM engine "
_SIZES_PRINTED = (
    r"\btensor_parallel_size=(\d{1,3}), pipeline_parallel_size=(\d{1,3})\b(?:, data_parallel_size=(\d{1,3})\b)?"
)

#: The option by which KAITO's server gets its settings from a file.
_OF_KAITO = "--kaito-config-file"

#: HAMi's library where it refuses memory: what it may give was used up, on the GPU that the engine uses.
_REFUSED = r"\[HAM[Ii]-core ERROR \([^)]{0,80}\)\]: Device \d+ OOM \d{1,18} /"


def devices_of(container: Container, count: int) -> str:
    """`2 GPUs`, or what else they are: `4 x google.com/tpu (8 devices)`."""
    resource = next(iter(container.accelerators), "nvidia.com/gpu")
    if "gpu" in resource or "mig-" in resource:
        return count_of(count, "GPU")
    more = f" ({count} devices)" if count != container.gpus else ""
    return f"{container.gpus} x {resource}{more}"


def slices_of(container: Container) -> str:
    """The resource of MIG slices that a container asks for; empty where it asks for none."""
    return next((name for name in container.accelerators if name.startswith("nvidia.com/mig-")), "")


def idle(engine: Engine, workers: int, gpus: int) -> Iterator[Finding]:
    """GPUs that are asked for and not used: only where the engine's own arguments are all known and say so."""
    container = engine.container
    if "google.com/tpu" in container.accelerators:
        return  # the chips of a machine are taken together, however many of them are used
    if not sizes_known(engine) or engine.pod.failing or _has_rank(engine, workers):
        return
    if engine.name in NODES_BY_FLAG and engine.explicit("model") is None:
        return  # nobody serves the model that it takes by itself: something else gives it its arguments
    size = engine.explicit("tensor_parallel_size")
    flag = size.flag if size else "--tensor-parallel-size"
    # whatever else the workers are the product of stays as it is
    more = (size.value if size is not None and isinstance(size.value, int) else 1) * gpus // workers
    replicas = f", or more replicas of {workers}" if engine.value("nnodes", 1) == 1 else ""
    visible = container.env.get("CUDA_VISIBLE_DEVICES")
    hidden = visible and visible.value and visible.value.lower() != "all" and visible.value.count(",") + 1 < gpus
    seen = "without CUDA_VISIBLE_DEVICES, which hides some: " if hidden else ""
    # who leaves a part of the memory alone shares the GPU with somebody, and then several of them may be one
    shared = gpus in _NO_NODE_HAS or (engine.name == "vllm" and _small_share(engine)) or _sliced(engine.pod.cluster)
    shares = "nvidia.com/gpu" in container.accelerators and shared
    ranks = _ranks_of_connector(engine, gpus)
    yield Finding(
        role="note" if shares else "risk",
        confidence="possible" if shares else "likely",
        summary=f"{engine.label} uses {workers} of {devices_of(container, gpus)} that container {container.name} takes; "
        + (
            "they may be shares of a GPU (time-slicing)."
            if shares
            else f"{gpus - workers} {'stays' if gpus - workers == 1 else 'stay'} reserved and idle."
        ),
        evidence=tuple(sizes_evidence(engine)),
        fix=fixes.set_flag(
            engine,
            "data_parallel_size",
            "--data-parallel-size",
            str(ranks),
            f"Set --data-parallel-size {ranks}, as --kv-transfer-config says of this side (dp_size)",
        )
        if ranks
        else fixes.advice(
            f"Ask for {workers} in {fixes.edited(engine.pod)}: workers on shares of one GPU are no faster"
            if shares
            else (f"Run {gpus} replicas" if engine.name == "tei" else f"Use them ({seen}{flag} {more}{replicas})")
            + f", or ask for {workers} in {fixes.edited(engine.pod)}"
        ),
    )


def _ranks_of_connector(engine: Engine, gpus: int) -> int:
    """The data parallel ranks that Mooncake's connector is told of its own side, where they make use of all GPUs; 0 otherwise."""
    told = engine.value("kv_transfer_config")
    if not isinstance(told, dict) or engine.explicit("data_parallel_size"):
        return 0
    role = dig(told, "kv_role")
    side = {"kv_producer": "prefill", "kv_consumer": "decode"}.get(str(role), "")
    ranks, each = (dig(told, f"kv_connector_extra_config.{side}.{size}") for size in ("dp_size", "tp_size"))
    if not (isinstance(ranks, int) and isinstance(each, int)) or each != engine.value("tensor_parallel_size", 1):
        return 0
    return ranks if ranks * each == gpus else 0


def _has_rank(engine: Engine, number: int) -> bool:
    """Whether a rank prints, by its name, which is one more than the arguments make: then they are not all."""
    log = logs_of(engine.pod).current(engine.container.name)
    names = (f" TP{number}]", f"Worker_TP{number} ", f"Worker_TP{number})")
    return log is not None and next(log.find(*names), None) is not None


def _sliced(cluster: Cluster) -> bool:
    """Whether a ConfigMap of NVIDIA's device plugin that is here makes several `nvidia.com/gpu` of one GPU."""

    def shares() -> bool:
        texts = (text for item in cluster.items("ConfigMap") for text in (dig(item.raw, "data") or {}).values())
        told = (text for text in texts if isinstance(text, str) and "sharing:" in text)
        return any(re.search(_REPLICAS, text) for text in told if any(how in text for how in _SHARING))

    return cluster.once("whether a device plugin's ConfigMap shares GPUs", shares)


def idle_on_each_node(pod: Pod, engine: Engine, workers: int) -> Iterator[Finding]:
    """The same where `--nnodes` says over how many pods the workers are spread, each of which takes more GPUs than its part."""
    nodes, devices = engine.explicit("nnodes"), engine.container.devices
    number = nodes.value if nodes is not None and nodes.source == "flag" else None
    if pod.exists or engine.name not in NODES_BY_FLAG or not isinstance(number, int) or number < 2 or not devices:
        return
    if workers % number == 0 and workers // number < devices and not pod.gpus > devices:
        yield from idle(engine, workers // number, devices)


def sizes_known(engine: Engine) -> bool:
    """Whether the engine's own arguments are all known and say over how many GPUs it spreads the model."""
    size = engine.explicit("tensor_parallel_size")
    silent = size is None and not any(name in engine.found.unresolved for name in SIZES)
    return bool(size or silent) and engine.found.argv_known


def _printed(line: Line, workers: int) -> Line | None:
    """Where vLLM says, above a line, that it puts the model on so many GPUs."""
    above = (x for x in line.log.find(SIZE_TEXT) if x.number < line.number)
    told = [(x, found) for x in above if (found := re.search(_SIZES_PRINTED, x.text[:8000].partition(_BEGINS)[2]))]
    last = told[-1] if told else None
    return last[0] if last and math.prod(int(size) for size in last[1].groups() if size) == workers else None


def crowded(engine: Engine, workers: int, gpus: int, logs: Logs | None, sizing: Sizing) -> Iterator[Finding]:
    """GPUs that are not used by an engine whose start finds no memory on those that it uses."""
    container, device = engine.container, sizing.accelerator
    part = slices_of(container) or (device is not None and (device.shared > 1 or device.gpu.profile))
    if part or gpus in _NO_NODE_HAS:
        return
    line = _no_memory(engine, workers, logs) if logs else None
    printed = _printed(line, workers) if line is not None and not sizes_known(engine) else None
    if line is None or not (printed or sizes_known(engine)):
        return
    said, weights = account(line.text), sizing.printed.measured.weights
    total = said.total if said else device.gpu.memory if device else None
    if said is not None and said.others:
        return
    if weights is not None and total and weights.high < _FILLED * total:
        return  # what is run with them fills the GPU
    refused = any(re.search(_REFUSED, refusal.text) for refusal in line.log.find("-core ERROR ("))
    yield Finding(
        summary=f"{engine.label} puts the model on {count_of(workers, 'GPU')} of the {gpus} that container {container.name} has, "
        f"and {'its' if workers == 1 else 'their'} memory was used up while it started.",
        evidence=(
            *sizes_evidence(engine),
            *((log_evidence(printed, SIZE_TEXT),) if printed else ()),
            log_evidence(line),
        ),
        explains=(
            *("cuda-oom-weights", "cuda-oom-profile", "kv-cache-no-room", "gpu-memory-utilization-high"),
            *("engine-init-failed", "engine-dead", "worker-lost"),
            *CRASHED,
            *(("vgpu-shim",) if refused else ()),
            # nor would an empty GPU have room
            *(("gpu-memory-shared",) if NO_ROOM in line.text and _held_by_others(line.log) else ()),
        ),
        fix=_use_all(engine, gpus),
        order=line.order,
    )


def _use_all(engine: Engine, gpus: int) -> Fix:
    """How the engine is told to use all GPUs."""
    size = engine.explicit("tensor_parallel_size")
    flag = size.flag if size else "--tensor-parallel-size"
    visible = engine.container.env.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.value != "all":
        return fixes.advice(f"Take CUDA_VISIBLE_DEVICES away, which hides GPUs, and set {flag} {gpus}")
    if [name for name in SIZES if name != "tensor_parallel_size" and engine.explicit(name)]:
        return fixes.advice(f"Set sizes whose product is {gpus}")
    if gpus & (gpus - 1):  # no power of two: the heads of few models can be dealt out so
        return fixes.advice(
            f"Spread the model over more of the {gpus} GPUs: {flag} must divide its attention heads, the pipeline parallel size need not"
        )
    if any(_OF_KAITO in str(word) for word in engine.container.spec.argv):
        return fixes.advice(
            f"Spread the model over the {gpus} GPUs: tensor-parallel-size: {gpus} below vllm: in inference_config.yaml of the ConfigMap "
            "that inference.config of the Workspace names (a copy of KAITO's own where it names none)",
            f"kubectl -n {engine.pod.namespace} get workspaces.kaito.sh -o yaml",
        )
    return fixes.set_flag(engine, "tensor_parallel_size", flag, str(gpus), f"Spread the model over the {gpus} GPUs")


def _no_memory(engine: Engine, workers: int, logs: Logs) -> Line | None:
    """The first line that says that a start of the container's last instance found no GPU memory."""
    log = log_of(ending_of(engine.container), logs)
    phase = phase_of(log)
    if log is None or (phase is not None and phase.name == "serving"):
        return None
    texts = FULL if _small_share(engine) else (*FULL, NO_ROOM)
    lines = [line for text in texts if (line := next(log.find(text), None))]
    line = min(lines, key=lambda line: line.number, default=None)
    if line is None or re.search(_OTHERS, line.text) or (NO_ROOM in line.text and any(_held_by_others(log))):
        return None
    ranks = [int(found["number"]) for found in re.finditer(_RANK, line.text)]
    return None if "(RayWorker" in line.text or any(rank >= workers for rank in ranks) else line


def _held_by_others(log: Log) -> list[bool]:
    """Whether there would be room without what something else holds of the GPU, each time that vLLM measured it and found none."""
    said = [found for _, found in log.matching(_NOT_ITS_OWN, "non_torch_memory", most=2000)]
    return [float(one["lacks"]) < float(one["other"]) for one in said]


def _small_share(engine: Engine) -> bool:
    """Whether it was told to leave a part of the GPU's memory to others."""
    share = engine.explicit("gpu_memory_utilization")
    return share is not None and (not isinstance(share.value, int | float) or share.value < _WHOLE_SHARE)


def sizes_evidence(engine: Engine) -> Iterator[Evidence]:
    container = engine.container
    for name in (*SIZES, "nnodes"):
        if setting := engine.explicit(name):
            yield setting_evidence(container, setting)
    visible = container.env.get("CUDA_VISIBLE_DEVICES")
    if visible and visible.value:
        yield pod_evidence(container, "env[CUDA_VISIBLE_DEVICES]", visible.value)
    yield from limits_evidence(container, container.accelerators)
