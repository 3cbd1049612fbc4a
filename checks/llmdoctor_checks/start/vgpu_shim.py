"""A start that stands still inside the library that shares the GPU."""

import re
from collections.abc import Iterator
from datetime import datetime

from kubectl_llmdoctor.api import (
    GPU_PRODUCT,
    Container,
    Evidence,
    Finding,
    Line,
    Log,
    Logs,
    Node,
    Pod,
    Subject,
    check,
    endings,
    fixes,
    log_evidence,
    log_of,
    node_evidence,
    pod_evidence,
    say_seconds,
    seconds_ago,
    served,
)
from llmdoctor_checks._standstill import STUCK_SECONDS, ends_with, killed_at

#: What HAMi's library prints in every process that it is loaded into (libvgpu.c), by the spelling of its releases.
_SHIM = ("[HAMI-core ", "[HAMi-core ")

#: How a process says that it ends by a wrong access to memory: UCX's handler, TVM's, and CPython's.
_CRASHES = ("Caught signal 11 (Segmentation fault", "Segfault encountered", "Fatal Python error: Segmentation fault")

#: What it prints before it asks the driver, and while it waits for its lock (libvgpu.c, utils.c). `Initialized` follows in the same
#: second, or the error of whom it asked.
_HANGS = r"\[HAM[Ii]-core Msg ?\([^)]{0,80}\)\]: (?:Initializing\.{3,}|unified_lock locked, waiting\b.{0,40})\s*"

#: How long that may take: it gives a lock up after 20 waits of 5 seconds at most.
_PATIENCE = 150

#: Where an engine's first calls of CUDA, or of NCCL, come next: Text Embeddings Inference, vLLM, SGLang.
_CALLS = (" model on Cuda(", "vLLM is using nccl==", "Init torch distributed begin.")

_EXPLAINS = ("nccl-p2p", "nccl-timeout", "probe-too-short", "slow-load", "crash-loop", "not-ready", "rollout-stuck")


#: CUDA's words for a GPU that takes no new process (46), among others one without a licence.
_BUSY = " busy or unavailable"
_BUSY_ERROR = r"(?:CUDA-capable device\(s\) is/are|all CUDA-capable devices are) busy or unavailable"

#: What GPU Feature Discovery labels of a virtual GPU: that it is one, and its type, `NVIDIA-A10-24Q`, `GRID-A100-4-20C`.
_VGPU_LABEL, _VGPU_TYPE = "nvidia.com/vgpu.present", r"(?:NVIDIA|GRID)-[\w-]{1,40}-\d{1,3}[ABCQ]"

#: What HAMi's and Volcano's scheduler write at a pod to which they have given GPUs: the device plugin then preloads the library into its
#: containers (HAMi nvinternal/plugin/server.go), unless this variable is set, or they gave parts of MIG, which
#: stand there in brackets.
_GPUS_GIVEN, _NOT_LOADED = ("hami.io/vgpu-devices-allocated", "volcano.sh/vgpu-ids-new"), "CUDA_DISABLE_CONTROL"

#: What HAMi's scheduler writes at a pod to which it has given Ascend NPUs; each that it gave stands in it once.
_NPUS_GIVEN = r"hami\.io/Ascend[\w-]{1,40}-devices-allocated"

#: How torch_npu says that CANN could not open the NPU of a number: none of the container's (107001, rt_error_codes.h), or one whose
#: process does not start (507033), as that of an NPU which is another pod's.
_NPU_TEXTS = ("error code 107001", "error code is 107001", "error code is 507033")
_NPU_ERROR = r"\b(?:aclInit|SetDevice|aclrtSetDevice)\b.{0,60}error code (?:is )?(?:107001|507033)\b"


@check("vgpu-shim", since="0.1", literals=(*_SHIM, *_CRASHES, *_CALLS, _BUSY, *_NPU_TEXTS))
def vgpu_shim(pod: Pod, subject: Subject, logs: Logs, node: Node | None) -> Iterator[Finding]:
    """What shares the GPU between pods breaks the engine.

    HAMi and its relatives share a GPU between pods by a library (libvgpu.so) that is preloaded into every process and answers CUDA's calls
    about memory and devices. New versions of CUDA, NCCL or the engine call functions that it handles wrongly: the process crashes
    while NCCL starts or memory is measured, or memory is refused at the pod's share. Or it stands still while the library initialises
    or at the first such call, prints nothing more, and is ended by a probe.

    NVIDIA's MPS lets processes of several pods compute on one GPU at a time, through a server on the node. When its daemon is not
    reached, or its server has failed after a fault of one client, CUDA starts in none of them. A virtual GPU (NVIDIA vGPU) computes
    only with a licence: without one it becomes slow after some minutes, and then CUDA answers that the device is busy or unavailable.

    Ascend NPUs that HAMi hands out are named to the container by their numbers on the node (ASCEND_VISIBLE_DEVICES). CANN counts from 0:
    where it is not told which are meant (ASCEND_RT_VISIBLE_DEVICES), an engine on several NPUs opens those of the node's first numbers,
    and starts only where it happened to get just these.

    ## Fix

    Update the library, restart the MPS daemon, give the virtual GPU its licence, or let the engine run without them on whole GPUs:
    with `CUDA_DISABLE_CONTROL=true` HAMi's library passes all calls on. Tensor parallel engines want whole GPUs in any case.

    ## References

    - https://project-hami.io/docs/
    - https://github.com/Project-HAMi/HAMi-core
    """
    for found in (
        *_initialises(pod, logs),
        *_calls(pod, logs),
        *_crashes(pod, logs),
        *_unlicensed(pod, logs, node),
        *_other_npus(pod, subject, logs),
    ):
        yield found
        return


def _initialises(pod: Pod, logs: Logs) -> Iterator[Finding]:
    """A container that runs, and whose last word is the library's first."""
    for trouble in pod.troubles:
        container, runs = trouble.container, pod.cluster.seconds_since(trouble.since)
        if trouble.kind != "not-ready" or container is None or runs is None:
            continue
        last = _hangs(logs.current(container.name), pod.cluster.now)
        if last is None or runs < _PATIENCE:
            continue
        yield Finding(
            summary=f"{container.name} has run for {say_seconds(runs)}, and has printed nothing since HAMi's library libvgpu.so began to "
            "initialise: it hangs there.",
            evidence=(log_evidence(last), pod_evidence(container, "image", container.spec.image)),
            explains=_EXPLAINS,
            fix=fixes.platform(
                f"See on node {pod.spec.node_name or 'of the pod'} whether nvidia-smi answers and whether a process that is gone holds "
                "the library's lock (/tmp/vgpulock/lock), remove that file, and take a HAMi release that knows this driver; "
                "CUDA_DISABLE_CONTROL=true lets the engine start without the library, on the whole GPU",
                f"kubectl -n {pod.namespace} exec {pod.name} -c {container.name} -- ls -l /tmp/vgpulock",
            ),
        )


def _hangs(log: Log | None, now: datetime | None) -> Line | None:
    """The library's first message where it is the last line of the log, and what stands before it is not of just now."""
    lines = [line for line in log.tail(20) if line.text.strip()] if log is not None else []
    if not lines or not re.fullmatch(_HANGS, lines[-1].text[:500]):
        return None
    ages = (seconds_ago(line, now) for line in reversed(lines))
    age = next((age for age in ages if age is not None), None)
    return None if age is not None and 0 <= age < _PATIENCE else lines[-1]


def _calls(pod: Pod, logs: Logs) -> Iterator[Finding]:
    """An engine that goes no further than its first call of CUDA or NCCL, with the library between it and the driver."""
    if pod.nodes != 1:
        return  # it may wait for its peers
    for what, line, *more in _stands_still(pod, logs):
        container = next(c for c in pod.containers if c.name == line.log.container)
        loaded = _loaded(line.log)
        shim = log_evidence(loaded) if loaded is not None else _preloaded(container)
        if shim is None:
            continue
        yield Finding(
            confidence="possible",
            summary=f"{what}, and its log ends where it first calls CUDA or NCCL; HAMi's library libvgpu.so stands between it "
            "and the driver.",
            evidence=(log_evidence(line), shim, *more),
            explains=_EXPLAINS,
            fix=fixes.set_env(
                container,
                _NOT_LOADED,
                "true",
                "Have HAMi's library pass all calls on (the engine then sees the whole GPU); where it starts so, update HAMi and take "
                "the variable away again",
            ),
            order=line.order,
        )


def _preloaded(container: Container) -> Evidence | None:
    """What says that the library is in the processes of a container, where it prints nothing: newer releases do so only when asked."""
    marks, switch = container.pod.annotations, container.env.get(_NOT_LOADED)
    given = next((name for name in _GPUS_GIVEN if marks.get(name)), None)
    off = switch is not None and str(switch.value).lower() in ("1", "t", "true")  # Go's strconv.ParseBool
    if given is None or off or "[" in marks[given] or not container.gpus:
        return None
    return pod_evidence(container.pod, f"metadata.annotations[{given}]", marks[given][:200])


def _loaded(log: Log) -> Line | None:
    """A line that shows the library in a process of this log."""
    return next(log.find(*_SHIM), None)


def _crashes(pod: Pod, logs: Logs) -> Iterator[Finding]:
    """A start that ended by a wrong access to memory in a process that has the library in it."""
    for ending in endings(pod) if pod.failing else ():
        log = log_of(ending, logs)
        shim = _loaded(log) if log is not None else None
        if log is None or shim is None or served(log):
            continue
        lines = [line for line in log.find(*_CRASHES) if line.number > shim.number]
        line = min(lines, key=lambda x: x.number, default=None)
        if line is None:
            continue
        yield Finding(
            confidence="possible",
            summary=f"A process of {ending.container.name} crashed (signal 11) while the engine started, with HAMi's library libvgpu.so "
            "between it and the driver.",
            evidence=(log_evidence(line), log_evidence(shim)),
            explains=("worker-lost", "nccl-other", "engine-init-failed", "engine-dead", "pod-failed", *_EXPLAINS),
            fix=fixes.set_env(
                ending.container,
                "CUDA_DISABLE_CONTROL",
                "true",
                "Have HAMi's library pass all calls on (the engine then sees the whole GPU); where it starts so, update HAMi and take "
                "the variable away again",
            ),
            order=line.order,
        )
        return


def _unlicensed(pod: Pod, logs: Logs, node: Node | None) -> Iterator[Finding]:
    """A virtual GPU that takes no process: nothing in the pod says that it has no licence."""
    if node is None or not pod.failing:
        return
    product = node.labels.get(GPU_PRODUCT, "")
    if node.labels.get(_VGPU_LABEL) != "true" and not re.fullmatch(_VGPU_TYPE, product):
        return
    for ending in endings(pod):
        log = log_of(ending, logs)
        line = next((one for one in log.find(_BUSY) if re.search(_BUSY_ERROR, one.text[:500])), None) if log else None
        if line is None:
            continue
        yield Finding(
            summary=f"{product or 'The GPU'} of {node.name} is a virtual GPU, and takes no process: usually it has no licence.",
            evidence=(log_evidence(line), node_evidence(node, product or f"label {_VGPU_LABEL}=true")),
            explains=(
                "gpu-memory-shared",
                "engine-init-failed",
                "engine-dead",
                "worker-lost",
                "pod-failed",
                *_EXPLAINS,
            ),
            fix=fixes.platform(
                f"See whether the vGPU of {node.name} is licensed (License Status of nvidia-smi -q), that nvidia-gridd runs there "
                "with the token of the licence server (with the GPU operator: driver.licensingConfig), and start the pod again",
                fixes.on_node(
                    node.name, "sh -c 'nvidia-smi -q | grep -i -A2 license; journalctl -u nvidia-gridd | tail'"
                ),
            ),
            order=line.order,
        )
        return


def _other_npus(pod: Pod, subject: Subject, logs: Logs) -> Iterator[Finding]:
    """An engine on NPUs from HAMi that opens one by a number which is not its own."""
    annotations = pod.annotations
    given = next((name for name in annotations if re.fullmatch(_NPUS_GIVEN, name)), None)
    if given is None or not pod.failing:
        return
    for ending in endings(pod):
        container, log = ending.container, log_of(ending, logs)
        if log is None or container.gpus < 2 or _told_which(container):
            continue  # one NPU has the number 0 in any case
        if _more_workers(subject, container):
            continue  # whose numbers nobody has
        lines = [x for x in log.find(*_NPU_TEXTS) if re.search(_NPU_ERROR, x.text[:1000])]
        line = min(lines, key=lambda x: x.number, default=None)
        if line is None:
            continue
        unknown = "107001" in line.text  # a card that hangs says the other as well
        wrong = "opens an NPU" if unknown else "cannot open an NPU, maybe because it does so"
        yield Finding(
            confidence="likely" if unknown else "possible",
            summary=f"{container.name} {wrong} by a number that is not its own: HAMi names the {container.gpus} NPUs that it gave by their "
            "numbers on the node, and CANN counts from 0.",
            evidence=(
                log_evidence(line),
                pod_evidence(pod, f"metadata.annotations[{given}]", str(annotations[given])),
                pod_evidence(container, "env", "no ASCEND_RT_VISIBLE_DEVICES"),
            ),
            explains=(
                "gpu-count-mismatch",
                "gpu-runtime-missing",
                "engine-init-failed",
                "engine-dead",
                "worker-lost",
                "pod-failed",
                *_EXPLAINS,
            ),
            fix=fixes.advice(
                f"Have the start of {container.name} set ASCEND_RT_VISIBLE_DEVICES to the numbers in ASCEND_VISIBLE_DEVICES before "
                "the engine, or take a release of HAMi's ascend-device-plugin that sets both",
                f"kubectl -n {pod.namespace} exec {pod.name} -c {container.name} -- sh -c 'ls /dev/davinci*; env | grep ASCEND'",
            ),
            order=line.order,
        )
        return


def _told_which(container: Container) -> bool:
    """Whether a variable or the start itself tells CANN which NPUs are meant."""
    words = container.spec.argv
    return any("ASCEND_RT_VISIBLE_DEVICES" in text for text in (*container.env, *words))


def _more_workers(subject: Subject, container: Container) -> bool:
    """Whether its engine starts more workers than it has NPUs, together with the other pods of its replica."""
    pods = max(container.pod.nodes or 1, len(subject.pods))
    engines = (engine for engine in subject.engines(container.pod) if engine.container is container)
    return any(engine.workers_at_least > container.gpus * pods for engine in engines)


def _stands_still(pod: Pod, logs: Logs) -> Iterator[tuple[str, Line, *tuple[Evidence, ...]]]:
    """Starts that have come to the first call, and no further: one that goes on, or one that a probe has ended."""
    for trouble in pod.troubles:
        log = logs.current(trouble.container.name) if trouble.kind == "not-ready" and trouble.container else None
        since = pod.cluster.seconds_since(trouble.since) or 0
        if log is not None and since >= STUCK_SECONDS and (line := ends_with(log, _CALLS)):
            yield f"{log.container} started {say_seconds(since)} ago", line
    for ending, line in killed_at(pod, logs, _CALLS):
        proof = pod_evidence(pod, ending.path, ending.text)
        yield f"{ending.container.name} ran for {say_seconds(ending.seconds or 0)}", line, proof
