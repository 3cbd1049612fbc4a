"""Direct paths between the GPUs, switched off by hand."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Accelerator,
    Confidence,
    Container,
    Engine,
    Evidence,
    Finding,
    Fix,
    Hardware,
    Line,
    Logs,
    Pod,
    check,
    endings,
    fixes,
    log_evidence,
    log_of,
    phase_at,
    phase_of,
    pod_evidence,
    say_seconds,
    variable_evidence,
)
from kubectl_llmdoctor.catalog.gpus import Gpu
from llmdoctor_checks._blocked import BLOCKED, stands_still, waited
from llmdoctor_checks._standstill import STUCK_SECONDS, ends_with, killed_at

#: Variables and the values by which they forbid a path.
_OFF = {"NCCL_P2P_DISABLE": ("1",), "NCCL_P2P_LEVEL": ("LOC", "0"), "NCCL_SHM_DISABLE": ("1",)}

#: What vLLM prints where it has found no peer access.
_NO_ACCESS = "your platform lacks GPU P2P capability or P2P test failed"

#: What vLLM prints before NCCL connects the GPUs, and NCCL itself (NCCL_DEBUG=INFO, RCCL too) when it has: what comes next is the first
#: exchange, and then the weights are loaded.
_CONNECTS = ("vLLM is using nccl==", _NO_ACCESS, "NCCL INFO Connected all ", " Init COMPLETE")

#: What vLLM prints where it does not use its own all-reduce.
_NOT_OWN = "Custom allreduce is disabled"

#: What switches peer-to-peer of NCCL off, and the engine's own all-reduce.
_NO_P2P, _OWN = "NCCL_P2P_DISABLE", "--disable-custom-all-reduce"

#: From this use on a GPU does nothing else.
_ALL_OF_IT = 99

#: Of a start of which the log shows nothing else, so old is it at most when the complaints begin.
_LONGEST_START = 7200

#: RCCL's word (init.cc) on a node whose IOMMU translates what the GPUs write to each other.
_IOMMU = 'Missing "iommu=pt" from kernel command line'

#: Where vLLM computes for the first time: the phases in which it profiles, tunes its kernels and captures graphs.
_WARMS_UP = ("profiling GPU memory", "capturing CUDA graphs")


@check("nccl-p2p", since="0.1", literals=(*_CONNECTS, _IOMMU, _NOT_OWN, BLOCKED))
def nccl_p2p(
    pod: Pod, engine: Engine, accelerator: Accelerator | None, logs: Logs | None, hardware: Hardware | None
) -> Iterator[Finding]:
    """The GPUs of this server cannot exchange data directly.

    Within a server GPUs write into each other's memory over NVLink or PCIe. Some cards have no peer access at all; on others an IOMMU, PCIe
    access control (ACS) or a virtual machine breaks it although the driver reports it. Then the first all-reduce hangs until the
    watchdog ends it, or NCCL and vLLM's own all-reduce report errors.

    A message that vLLM has disabled its custom all-reduce is harmless. Where it is the last one, and nothing follows for a quarter
    of an hour, the GPUs wait for each other; they show 100 % and compute nothing. `NCCL_P2P_DISABLE` is NCCL's alone: vLLM's own
    all-reduce still writes into the other GPU's memory, and may hang later, while the engine warms up.

    ## Fix

    Test with `NCCL_P2P_DISABLE=1` and `--disable-custom-all-reduce`. If that works, fix the node (IOMMU, ACS), or keep the two settings.

    ## References

    - https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html
    - https://docs.vllm.ai/en/latest/usage/troubleshooting/
    """
    if engine.workers_at_least < 2:
        return
    alone = engine.container.gpus == 1  # its peers are in other pods, and reached over the network
    met = None
    if logs and not alone:
        met = (
            _stuck(pod, engine, logs, hardware)
            or _killed(pod, engine, logs)
            or _own(pod, engine, logs)
            or _spin(pod, engine, logs, hardware)
        )
    if met:
        yield met
    elif not pod.failing:
        yield from _by_hand(engine, accelerator, hardware)


def _by_hand(engine: Engine, accelerator: Accelerator | None, hardware: Hardware | None) -> Iterator[Finding]:
    """Variables that turn the direct path off, or the shared memory that takes its place."""
    env = engine.container.env
    found = [v for name, values in _OFF.items() if (v := env.get(name)) and v.value in values]
    if not found:
        return
    names = {v.name for v in found}
    direct, shared = bool(names - {"NCCL_SHM_DISABLE"}), "NCCL_SHM_DISABLE" in names
    linked = [d for d in hardware.mine if any(link.active for link in d.nvlinks)] if hardware and direct else []
    shown = [
        hardware.evidence(d, "nvlinks", f"active: {sum(bool(n.active) for n in d.nvlinks)}")
        for d in linked[:1]
        if hardware
    ]
    gpu = accelerator.gpu if accelerator and direct else None
    yield Finding(
        role="risk" if len(linked) >= 2 else "note",
        summary=f"{' and '.join(sorted(names))} set by hand: "
        f"{_detour(engine.workers_at_least, gpu, direct=direct, shared=shared)}.",
        evidence=(*map(variable_evidence, found), *shown),
        fixes=tuple(
            fixes.remove_env(engine.container, v.name, f"Remove {v.name}, unless this node hangs without it")
            for v in found
        ),
    )


def _detour(workers: int, gpu: Gpu | None, *, direct: bool, shared: bool) -> str:
    """Which way the GPUs take instead of the direct one, of shared memory, or of both."""
    if not direct:
        return f"where the {workers} GPUs have no direct path, they use the network's loopback instead of shared memory"
    instead = "the network's loopback" if shared else "/dev/shm in host memory"
    unused = f"; the NVLink of {gpu.name} is not used" if gpu and gpu.nvlink else ""
    return f"the {workers} GPUs exchange everything through {instead}{unused}"


def _stuck(pod: Pod, engine: Engine, logs: Logs, hardware: Hardware | None) -> Finding | None:
    """A start that has come to where NCCL connects the GPUs of the server, and no further."""
    container = engine.container
    trouble = container.trouble("not-ready")
    log, ran = logs.current(container.name), pod.cluster.seconds_since(trouble.since) if trouble else None
    if log is None or pod.nodes != 1 or phase_of(log) is not None or (trouble is None and not pod.log_only):
        return None
    if trouble is not None and (ran is None or ran < STUCK_SECONDS):
        return None
    # a log alone may have been cut off anywhere, unless it ends with a peer access that failed
    line = ends_with(log, (_NO_ACCESS,) if pod.log_only else _CONNECTS)
    if line is None:
        return None
    since = f" {say_seconds(ran)} ago" if ran is not None else ""
    spinning, shown = _busy(hardware)
    waits = f"; {spinning} meanwhile" if shown else ""
    return _found(
        engine,
        logs,
        line,
        f"{container.name} started{since}, and its log ends where NCCL connects its GPUs{waits}",
        *shown,
        confidence="likely" if shown else "possible",
    )


def _busy(hardware: Hardware | None) -> tuple[str, list[Evidence]]:
    """The GPUs of the pod where each is used all the time, as those are that wait for each other: in words, and shown; else nothing."""
    mine = hardware.mine if hardware is not None else ()
    if hardware is None or len(mine) < 2 or any((d.utilization_percent or 0) < _ALL_OF_IT for d in mine):
        return "", []
    least = min(d.utilization_percent or 0 for d in mine)
    return f"its {len(mine)} GPUs show {least:g} %{' or more' * (least < 100)}", [
        hardware.evidence(d, "utilizationPercent", f"{d.utilization_percent:g}") for d in mine[:2]
    ]


def _killed(pod: Pod, engine: Engine, logs: Logs) -> Finding | None:
    """The same of a start that a probe has ended since: its log ends there, and it ran for minutes."""
    for ending, line in killed_at(pod, logs, _CONNECTS):
        if ending.container is not engine.container or pod.nodes != 1 or phase_of(line.log) is not None:
            continue
        return _found(
            engine,
            logs,
            line,
            f"{ending.container.name} ran for {say_seconds(ending.seconds or 0)}, and its log ends where NCCL connects its GPUs",
            pod_evidence(pod, ending.path, ending.text),
        )
    return None


def _own(pod: Pod, engine: Engine, logs: Logs) -> Finding | None:
    """A start that stands still while it warms up, on GPUs whose direct path is switched off for NCCL and not for vLLM itself."""
    off = [
        v
        for name in ("NCCL_P2P_DISABLE", "NCCL_P2P_LEVEL")
        if (v := engine.container.env.get(name)) and v.value in _OFF[name]
    ]
    if engine.name != "vllm" or not off or engine.value("disable_custom_all_reduce") is True or pod.nodes != 1:
        return None
    ended = [
        log for e in endings(pod) if e.container is engine.container and not e.oom_killed and (log := log_of(e, logs))
    ]
    current = logs.current(engine.container.name)
    for log in [*ended, *([current] if current and not pod.ready else [])]:
        phase, said = phase_of(log), stands_still(log)
        if not said or phase is None or phase.name not in _WARMS_UP or next(log.find(_NOT_OWN), None):
            continue
        return _found(
            engine,
            logs,
            said[0],
            f"{off[0].name}={off[0].value} keeps NCCL from writing into the other GPU's memory, and not vLLM's own all-reduce, which the "
            f"{engine.workers_at_least} workers use; they have taken no work for {say_seconds(waited(said))} while the engine warmed up",
            Evidence(source="pod", ref=off[0].path, text=f"{off[0].name}={off[0].value}"),
            fix=f"Add {_OWN}",
        )
    return None


def _spin(pod: Pod, engine: Engine, logs: Logs, hardware: Hardware | None) -> Finding | None:
    """A start that stands still after its weights were loaded, while all its GPUs compute: they wait for each other, mostly in vLLM's own
    all-reduce, which takes peer access that the driver reports for granted."""
    log, (spinning, shown) = logs.current(engine.container.name), _busy(hardware)
    if not shown or log is None or pod.ready or pod.nodes != 1 or engine.name != "vllm":
        return None
    said = stands_still(log)
    if not said or waited(said) < STUCK_SECONDS or not _starts(pod, engine.container, said):
        return None
    tensors = engine.value("tensor_parallel_size")
    shared = isinstance(tensors, int) and tensors > 1  # else no all-reduce of vLLM's own
    off = engine.value("disable_custom_all_reduce") is True or next(log.find(_NOT_OWN), None) is not None
    own = shared and not off
    return _found(
        engine,
        logs,
        said[0],
        f"The {engine.workers_at_least} workers of {engine.container.name} have taken no work for {say_seconds(waited(said))} while it "
        f"started, and {spinning}, as those do that wait for each other",
        *shown,
        fix="Where that does not help, try NCCL_P2P_DISABLE=1 as well" if own else "Try NCCL_P2P_DISABLE=1",
        first=(
            fixes.set_flag(
                engine,
                "disable_custom_all_reduce",
                _OWN,
                "",
                "Start with --disable-custom-all-reduce, so that NCCL exchanges what the GPUs compute",
            ),
        )
        if own
        else (),
    )


def _starts(pod: Pod, container: Container, said: list[Line]) -> bool:
    """Whether the complaints began while the engine started, by the lines before them or, where none tells, by its age."""
    phase = phase_at(said[0])
    trouble = container.trouble("not-ready")
    ran = pod.cluster.seconds_since(trouble.since) if trouble else None
    if phase or ran is None:
        return phase in _WARMS_UP
    return ran - waited(said) < _LONGEST_START


def _tried(engine: Engine, fix: str) -> Fix:
    """Without what a text names of the two: peer-to-peer of NCCL, and the engine's own all-reduce."""
    own = engine.name in ("vllm", "sglang", "huggingfaceserver")
    tried = fix if own else fix.replace(f" and {_OWN}", "")
    text = f"{tried}; if it starts then, fix the node: IOMMU off or in pass-through, PCIe ACS off"
    without = fixes.set_env(engine.container, _NO_P2P, "1", text) if _NO_P2P in tried else None
    if _OWN not in tried:
        return without or fixes.advice(f"{text}, in {fixes.edited(engine.pod)}")
    alone = fixes.set_flag(engine, "disable_custom_all_reduce", _OWN, "", text)
    return fixes.together(without, alone) if without else alone


def _found(
    engine: Engine,
    logs: Logs,
    line: Line,
    what: str,
    *more: Evidence,
    confidence: Confidence = "possible",
    fix: str = f"Try {_NO_P2P}=1 and {_OWN}",
    first: tuple[Fix, ...] = (),
) -> Finding:
    warned = next((w for w in logs.find(_IOMMU) if w.log.place == line.log.place), None)
    lacks = "; the node's kernel is started without iommu=pt, of which RCCL warns" if warned else ""
    return Finding(
        confidence=confidence,
        summary=f"{what}{lacks}.",
        evidence=(log_evidence(line), *((log_evidence(warned),) if warned else ()), *more),
        explains=("crash-loop", "not-ready", "rollout-stuck", "nccl-timeout", "probe-too-short"),
        fixes=(*first, _tried(engine, fix)),
        order=line.order,
    )
