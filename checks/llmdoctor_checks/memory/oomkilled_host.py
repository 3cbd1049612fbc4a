"""A container that hit its own memory limit."""

from collections.abc import Iterator
from datetime import timedelta

import msgspec

from kubectl_llmdoctor.api import (
    Container,
    Ending,
    Engine,
    Event,
    Events,
    Evidence,
    Finding,
    Hardware,
    Line,
    Log,
    Logs,
    Metrics,
    OutOfMemory,
    Phase,
    Pod,
    Subject,
    check,
    count_of,
    endings,
    event_evidence,
    last_words,
    log_evidence,
    log_of,
    parse_time,
    phase_of,
    pod_evidence,
    say_bytes,
    say_seconds,
    seconds_between,
    served,
    usage_of,
    written_ago,
)
from llmdoctor_checks.memory._compilers import LITERALS as OF_COMPILERS
from llmdoctor_checks.memory._compilers import compilers
from llmdoctor_checks.memory._growth import of_running
from llmdoctor_checks.memory._killed import CONSEQUENCES, SAID, Told, close, killed_then, shell_says_killed, told
from llmdoctor_checks.memory._memory_limit import A_DAY, GROWS, of_settings, raised, room_for, stated
from llmdoctor_checks.memory._numa import twice
from llmdoctor_checks.memory._on_cpu import LITERALS as ON_CPU
from llmdoctor_checks.memory._on_cpu import batch_of_warm_up, in_host_memory, long_context
from llmdoctor_checks.memory._pinned import DIED, died, excess, uses_of
from llmdoctor_checks.memory._prompt_cache import LITERALS, prompt_cache
from llmdoctor_checks.memory._router_prompts import prefixes
from llmdoctor_checks.memory._stub import TOLD_TO_STOP, gone_in_stub
from llmdoctor_checks.memory._too_small import of_planned

#: Containers that serve a volume of their pod to the others: with them it is gone.
_MOUNTERS = frozenset({"gke-gcsfuse-sidecar"})

#: How Istio's agent, which starts Envoy, says that this was killed.
_BY_AGENT = "Envoy may have been out of memory killed"

#: A process that a cgroup's limit killed held this share of it, at least, where it was the one that filled it.
_NEAR = 0.9

#: How far apart the kernel's word of a kill and a launcher's, or a container's status, may lie.
_TOGETHER = timedelta(minutes=2)

#: In these phases of its start a server takes host memory for what it keeps there; SGLang says so itself. So long a silence is no pause.
_TAKE_MEMORY = ("loading weights", "profiling GPU memory", "capturing CUDA graphs")
_ALLOCATES, _SILENT_SECONDS = "host memory for hierarchical KV cache", 300


@check("oomkilled-host", since="0.1", literals=(*LITERALS, *OF_COMPILERS, *ON_CPU, *DIED, SAID, _BY_AGENT))
def oomkilled_host(
    pod: Pod,
    logs: Logs | None,
    subject: Subject,
    hardware: Hardware | None,
    metrics: Metrics | None,
    events: Events | None,
) -> Iterator[Finding]:
    """The container hit its own limit of host memory.

    The kernel killed a process because the container's memory cgroup was full: host memory (RAM), not GPU memory.
    Lack of GPU memory ends a process with a CUDA error and never with OOMKilled, so `--gpu-memory-utilization` does
    not help here.

    While weights load, the usual users of host memory are the loader (whole shards with `.bin` files or eager
    loading), `--swap-space` (per GPU, vLLM up to 0.17), `--cpu-offload-gb` (per GPU) and one process of 1.5 to 4 GiB
    per worker. While serving it grows with multimodal caches, KV offload and long queues. llama-server keeps the prompts of
    earlier requests, up to 8 GiB (`--cache-ram`), and so does each model that Ollama runs with it (`LLAMA_ARG_CACHE_RAM`).
    Text Embeddings Inference on a CPU computes its largest batch (`--max-batch-tokens`) there, the first time when it warms up.
    KTransformers that is built with `USE_NUMA=1` holds the experts once for each NUMA node.
    Memory-backed volumes such as /dev/shm count against the same limit: see `oomkilled-shm`.

    Without a GPU Ollama holds the whole model in host memory. Where the pod, or a Job beside it, pulls one whose weights, by
    the parameters and bits that its name says, exceed the limit, it answers `model requires more system memory (…) than is
    available`, since it compares with the limit of its cgroup, or is killed.

    Where a worker is killed, and not the container's first process, the container ends with an error of its own and no
    OOMKilled. So it is with a model of Triton's Python backend, vLLM's among them (`Stub process 'NAME' is not healthy`). SGLang's
    `--hicache-size` and LMCache's `LMCACHE_MAX_LOCAL_CPU_SIZE` are for each rank: where what the settings take for certain exceeds
    the limit, that is why a rank was killed.

    Of a node on which node-problem-detector runs (GKE and AKS have it), its event `OOMKilling` names the process that the kernel killed:
    a worker, or the container's first one, where the runtime tells no reason.

    An engine that compiles kernels at its first start (FlashInfer's, torch's extensions) runs as many compilers at once as there are cores,
    of which one may take 8 GiB: `MAX_JOBS` says how many may run. The build fails of it (`FAILED: [code=137]`), or the whole container is
    killed; more memory lets more of them run.

    A worker that is killed need not take the server with it: on nodes with cgroup v1, or where the kubelet's `singleProcessOOMKill`
    is set, the container runs on without it, and a launcher that waits for the worker waits forever. Its status says nothing then;
    the kernel's log and the counters of the cgroup do.

    A server that runs again may be killed again. One kill is a risk; three restarts and more, about as far apart as this kill was
    from the start before it, say that it goes on.

    One that is killed after days at the same load has something in it that grows. vLLM before 0.14 with its NixlConnector let UCX keep all
    memory that it had registered once: `UCX_RCACHE_MAX_UNRELEASED=1024` bounds that.

    A container that has served for a while and whose own memory (`container_memory_rss`, without the page cache) grows all
    the time will get there: the report says when, if it goes on like that.

    ## Fix

    Raise `resources.limits.memory` (and the request with it), or take away what uses it:

        kubectl -n NAMESPACE set resources deployment/NAME -c CONTAINER --limits=memory=64Gi --requests=memory=64Gi

    ## References

    - https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/
    - https://docs.vllm.ai/en/latest/configuration/conserving_memory/
    """
    if not pod.failing and not (pod.exists and pod.ready):
        yield from of_planned(pod, subject)
    if pod.ready:
        yield from of_running(pod, logs, subject, hardware, metrics)
    else:
        found = [*_survived(pod, hardware, subject)] if hardware is not None else []
        found = found or [*_runs_without(pod, logs, subject, events)]
        found = found or [*_hangs(pod, logs, subject)]
        yield from found or (_by_its_agent(pod, logs, subject) if logs is not None and pod.failing else ())
    for ending in endings(pod):
        limit = ending.container.memory_limit
        if limit is not None:
            yield from _ended(ending, limit, log_of(ending, logs), subject, hardware, events)


def _without_the_kernel(
    ending: Ending, limit: int, log: Log | None, subject: Subject, hardware: Hardware | None, events: Events | None
) -> Iterator[Finding]:
    """An instance of which neither its status nor the kernel says that it was killed, by the first of the others that does."""
    engine = subject.engine_of(ending.container)
    found = [*_of_compilers(ending, limit, log, subject)]
    if engine is not None and log is not None:
        found = found or [*_too_much(engine, limit, log, subject)]
    found = found or [*_by_event(ending, limit, log, subject, events)]
    if not found and engine is not None and log is not None and ending.code not in TOLD_TO_STOP:
        found = [*gone_in_stub(engine, limit, log)]
    yield from found or (_by_its_shell(ending, limit, log, subject) if hardware is None and log is not None else ())


class _Kill(msgspec.Struct, frozen=True):
    """What the kernel says of the end of an instance: the processes that it killed, and the first, if any."""

    all: list[OutOfMemory]
    first: OutOfMemory | None
    #: it was the container's own memory that filled the limit
    own: bool
    #: the kernel's line names no pod
    unnamed: bool = False


def _kill(ending: Ending, limit: int, hardware: Hardware | None) -> _Kill:
    """What the kernel killed of an instance; a process that is killed need not take the container's first one with it."""
    named = [*hardware.kills(ending, whole_node=False)] if hardware else []
    if named:
        return _Kill(named, named[0], _by_own(named[0], ending.container, limit))
    other = _at_limit(hardware, limit) if hardware and not ending.oom_killed else None
    return _Kill([other], other, own=True, unnamed=True) if other else _Kill([], None, own=False)


def _ended(
    ending: Ending, limit: int, log: Log | None, subject: Subject, hardware: Hardware | None, events: Events | None
) -> Iterator[Finding]:
    """An instance that ended: killed by the word of its status or of the kernel, else by what its own log shows."""
    kill = _kill(ending, limit, hardware)
    if ending.oom_killed or kill.own:
        yield _at_its_limit(ending, limit, log, subject, hardware, kill)
    else:
        yield from _without_the_kernel(ending, limit, log, subject, hardware, events)


def _at_its_limit(
    ending: Ending, limit: int, log: Log | None, subject: Subject, hardware: Hardware | None, kill: _Kill
) -> Finding:
    """An instance that was killed at its limit, with what took the memory as far as something says it."""
    container, engine, phase = ending.container, subject.engine_of(ending.container), phase_of(log)
    served = phase is not None and phase.name == "serving"
    prompts = prompt_cache(engine, limit, log) if phase is None or served else None
    # what is pinned is taken at the start, so that none of it is too much where the server has come to serve
    over = excess(engine, subject.sizing(engine), limit) if engine is not None and not served else None
    context = long_context(engine, limit, log) if engine is not None and not served and not over else None
    by_kernel = [hardware.kernel.evidence(x.line) for x in kill.all] if hardware else []
    build = compilers(container, limit, log, by_kernel, killed=ending.oom_killed)
    greedy = [x for x in (build, context, prompts, prefixes(ending), twice(container)) if x]
    # a cache that somebody wants larger than the limit is: that one is too small, where the node has more
    wanted = prompts.wanted if prompts and prompts.wanted >= limit and greedy == [prompts] else 0
    least = room_for(wanted, container, subject)
    if over and engine:
        further = of_settings(over, engine, limit, subject)
    else:
        grows = GROWS if not greedy and (ending.seconds or 0) >= A_DAY else ""
        if least:
            grows = f", which holds the {say_bytes(wanted)} of prompts that it is told to keep"
        further = raised(container, limit, subject, grows, weights=in_host_memory(log), least=least)
    fewer = [x.fix for x in greedy]
    batch = batch_of_warm_up(engine, phase, log) if engine is not None and phase is not None else None
    return Finding(
        confidence="likely" if kill.unnamed or (_shared(container, limit) and not kill.own) else "certain",
        summary=_summary(ending, limit, phase, kill.first, over.text if over else _settings(engine, subject))
        + "".join(x.text for x in (*greedy, *([batch] if batch else []))),
        evidence=(
            *_evidence(ending, phase),
            *(x.evidence for x in greedy if x.evidence not in by_kernel[:1]),
            *([batch.evidence] if batch else []),
            *(over.evidence if over else ()),
            *by_kernel[:1],
            *(_counted(container, hardware) if hardware else ()),
        ),
        explains=(
            *CONSEQUENCES,
            "compiler-missing",
            *(("volume-mount-failed",) if container.name in _MOUNTERS else ()),
        ),
        fixes=(*(() if least else fewer), *further, *(fewer if least else ()), *([batch.fix] if batch else [])),
    )


def _of_compilers(ending: Ending, limit: int, log: Log | None, subject: Subject) -> Iterator[Finding]:
    """A compiler that was killed in a container with a limit, as the build says that failed of it."""
    container = ending.container
    build = compilers(container, limit, log)
    if build is None:
        return
    yield Finding(
        summary=f"A compiler of {container.name}, which may have {say_bytes(limit)} of memory, was killed.{build.text}",
        evidence=(build.evidence, stated(container), pod_evidence(container.pod, ending.path, ending.text)),
        explains=(*CONSEQUENCES, "compiler-missing"),
        fixes=(build.fix, *raised(container, limit, subject)),
    )


def _too_much(engine: Engine, limit: int, log: Log, subject: Subject) -> Iterator[Finding]:
    """A process that was killed while the first one lived on, in a container whose settings take more than its limit."""
    over, killed = excess(engine, subject.sizing(engine), limit), died(log)
    if killed is None or over is None:
        return
    container = engine.container
    yield Finding(
        summary=f"A process of {container.name} was killed: {over.text}, and the memory limit is {say_bytes(limit)}.",
        evidence=(log_evidence(killed), *over.evidence, stated(container)),
        explains=CONSEQUENCES,
        fixes=tuple(of_settings(over, engine, limit, subject)),
        order=killed.order,
    )


def _by_event(
    ending: Ending, limit: int, log: Log | None, subject: Subject, events: Events | None
) -> Iterator[Finding]:
    """An end without a word as the kernel killed a process on its node at some cgroup's limit; by an event that names no pod.

    It was the container's first process, or one of which a launcher says that it is gone.
    """
    container, lost = ending.container, died(log)
    for event in events or ():
        kill = told(event, container)
        if (
            events is None
            or kill is None
            or kill.whole_node
            or kill.anon > limit
            or _killed_beside(container.pod, event)
        ):
            continue
        if not (close(event.last, ending) if lost else killed_then(event, ending, events)):
            continue
        yield _by_kernel(
            container,
            f"{'A process of' if lost else 'Container'} {container.name} ended when the kernel killed",
            kill,
            limit,
            (log_evidence(lost) if lost else pod_evidence(container.pod, ending.path, ending.text), event),
            subject,
            lost,
        )
        return


def _runs_without(pod: Pod, logs: Logs | None, subject: Subject, events: Events | None) -> Iterator[Finding]:
    """A container that is up and not ready, whose log tells of a process that was killed, as does an event of its node."""
    for container in pod.containers if logs else ():
        limit, began = container.memory_limit, container.started
        log = container.own_log(logs) if container.role == "main" else None
        lost = died(log)
        if log is None or limit is None or lost is None or began is None or container.status.ready or served(log):
            continue
        since = max(began, lost.time - _TOGETHER) if lost.time else began
        for event in events or ():
            kill = told(event, container)
            if not kill or kill.whole_node or kill.anon > limit or _killed_beside(pod, event):
                continue
            if event.last and event.last >= since:
                said = f"{container.name} runs without a process since the kernel killed"
                yield _by_kernel(container, said, kill, limit, (log_evidence(lost), event), subject, lost)
                return


def _hangs(pod: Pod, logs: Logs | None, subject: Subject) -> Iterator[Finding]:
    """A server that comes no further, and whose settings take more than its limit: ranks were killed, and it waits for them."""
    for engine in subject.engines(pod) if pod.failing else ():
        container = engine.container
        limit, running = container.memory_limit, container.status.state.running
        if limit is None or running is None or container.status.ready or container.status.restart_count or pod.lent:
            continue
        log = container.own_log(logs)
        over = excess(engine, subject.sizing(engine), limit)
        last = next(log.lines(len(log), len(log)), None) if log is not None and len(log) else None
        if over is None or log is None or last is None or served(log) or not _stands(log, last, pod):
            continue
        yield Finding(
            confidence="possible",
            summary=f"{over.text}, and the memory limit of {container.name} is {say_bytes(limit)}: the kernel kills processes of it, and "
            "a launcher that waits for one of them says nothing more and never gets ready.",
            evidence=(log_evidence(last), *over.evidence, stated(container)),
            explains=(*CONSEQUENCES, "probe-too-short"),
            fixes=tuple(of_settings(over, engine, limit, subject)),
            order=last.order,
        )
        return


def _stands(log: Log, last: Line, pod: Pod) -> bool:
    """Whether a start has come to where it takes host memory, and says nothing for long."""
    phase, ago = phase_of(log), written_ago(last, pod.cluster.now)
    container = pod.container(log.container)
    ran = pod.cluster.seconds_since(container.started) if container is not None and log.quoted else None
    if ran is not None:  # the clock of what a report quotes may be another
        ago = ran - (seconds_between(log.line(1), last) or 0)
    taking = (phase is not None and phase.name in _TAKE_MEMORY) or log.holds(_ALLOCATES)
    return taking and ago is not None and ago >= _SILENT_SECONDS


def _by_kernel(
    container: Container,
    said: str,
    kill: Told,
    limit: int,
    proof: tuple[Evidence, Event],
    subject: Subject,
    lost: Line | None,
) -> Finding:
    """What an event of the node and the container together show."""
    return Finding(
        summary=f"{said} {kill.process} on node {container.pod.spec.node_name}, which had {say_bytes(kill.anon)} of its own, at the limit "
        f"of its cgroup; the memory limit of {container.name} is {say_bytes(limit)}.",
        evidence=(proof[0], event_evidence(proof[1], container.pod.cluster), stated(container)),
        explains=(*CONSEQUENCES, "probe-too-short"),
        fixes=tuple(raised(container, limit, subject)),
        order=lost.order if lost else None,
    )


def _killed_beside(pod: Pod, event: Event) -> bool:
    """Whether a container of another pod on the node was killed at its limit at that time: the kernel's word may be of that one."""
    return any(
        ended is not None
        and ended.reason == "OOMKilled"
        and (at := parse_time(ended.finished_at)) is not None
        and event.last is not None
        and abs(at - event.last) <= _TOGETHER
        for other in usage_of(pod.cluster).pods(event.name)
        if (other.metadata.namespace, other.metadata.name) != (pod.namespace, pod.name)
        for status in other.status.container_statuses
        for ended in (status.state.terminated, status.last_state.terminated)
    )


def _by_its_shell(ending: Ending, limit: int, log: Log, subject: Subject) -> Iterator[Finding]:
    """A program whose shell lived to say that it was killed: the kubelet ends a shell before its children, the kernel takes the largest."""
    if line := shell_says_killed(ending, log):
        what = f"The program in {ending.container.name} was killed while its shell lived on"
        yield _by_its_parent(ending.container, what, line, limit, subject)


def _by_its_parent(container: Container, what: str, line: Line, limit: int, subject: Subject) -> Finding:
    """What was killed, as the program says that started it: at which limit, nobody says."""
    return Finding(
        summary=f"{what}, as the kernel does for memory: usually at the container's limit of {say_bytes(limit)}, else on a node that "
        "ran out.",
        evidence=(log_evidence(line), stated(container)),
        explains=CONSEQUENCES,
        fixes=tuple(raised(container, limit, subject)),
        order=line.order,
    )


def _by_its_agent(pod: Pod, logs: Logs, subject: Subject) -> Iterator[Finding]:
    """A container that runs without Envoy, which was killed, and whose agent says so."""
    for container in pod.containers:
        limit, log = container.memory_limit, logs.current(container.name)
        if limit is None or log is None or not container.running or container.status.ready:
            continue
        if line := next((x for x in log.find(_BY_AGENT) if x.number in last_words(log)), None):
            what = f"Envoy in {container.name} was killed (signal 9) while what started it lived on"
            yield _by_its_parent(container, what, line, limit, subject)


def _survived(pod: Pod, hardware: Hardware, subject: Subject) -> Iterator[Finding]:
    """A container that runs without one of its processes, which the kernel killed, and does not get ready."""
    for container in pod.containers:
        limit, running = container.memory_limit, container.status.state.running
        if limit is None or running is None or container.role != "main" or container.status.ready:
            continue
        began = container.started
        killed = [
            kill
            for kill in hardware.kills_between(container, began, None, whole_node=False)
            if _by_own(kill, container, limit) and (kill.container_id or len(pod.containers) == 1)
        ]
        counted = tuple(_counted(container, hardware))
        use = hardware.use_of(container)
        if not killed and not (use and use.memory.oom_kills):
            continue
        of = f": {killed[0].process}, which had {say_bytes(killed[0].anon)} of its own in memory" if killed else ""
        yield Finding(
            summary=f"The kernel killed {count_of(len(killed), 'process') if killed else 'a process'} of container {container.name} at its "
            f"memory limit of {say_bytes(limit)}{of}; the container runs on without, and does not get ready.",
            evidence=(
                *(hardware.kernel.evidence(kill.line) for kill in killed[:2]),
                stated(container),
                *counted,
            ),
            explains=(*CONSEQUENCES, "probe-too-short"),
            fixes=tuple(raised(container, limit, subject)),
        )


def _by_own(kill: OutOfMemory, container: Container, limit: int | None) -> bool:
    """Whether it was no volume that filled the limit: shared memory may be what the processes themselves share."""
    return kill.shmem < kill.anon or (limit is not None and not _shared(container, limit))


def _at_limit(hardware: Hardware, limit: int) -> OutOfMemory | None:
    """A process that some cgroup's limit killed, by a line that names no pod, and that held what this container may have."""
    near = (
        kill
        for kill in hardware.kernel.kills
        if kill.whole_node is False and not kill.pod_uid and _NEAR * limit <= kill.anon <= limit
    )
    return next(near, None)


def _counted(container: Container, hardware: Hardware) -> Iterator[Evidence]:
    """Kills that the cgroup counts: those of the pod since it began, which outlive the instance."""
    use = hardware.use_of(container)
    if use is None:
        return
    kills = {"podOomKills": use.memory.pod_oom_kills, "oomKills": use.memory.oom_kills}
    said = [f"{name}: {number}" for name, number in kills.items() if number]
    sizes = {
        "currentBytes": use.memory.current_bytes,
        "peakBytes": use.memory.peak_bytes,
        "maxBytes": use.memory.max_bytes,
    }
    if said:
        said += [f"{name}: {size}" for name, size in sizes.items() if size]
        yield hardware.use_evidence(use, "memory", ", ".join(said))


def _shared(container: Container, limit: int) -> bool:
    """Whether a memory-backed volume may hold half of the limit, so that the volume may be what filled it."""
    shm = container.shm
    return shm.source == "memory-volume" and (shm.size_bytes is None or shm.size_bytes * 2 >= limit)


def _summary(ending: Ending, limit: int, phase: Phase | None, kill: OutOfMemory | None, taken: str) -> str:
    container = ending.container
    who = "Container" if ending.oom_killed or ending.code == 137 else "A process of container"
    text = f"{who} {container.name} was killed at its memory limit of {say_bytes(limit)}"
    if ending.seconds is not None:
        text += f", {say_seconds(ending.seconds)} after its start"
    if phase and phase.name != "serving":
        text += f", while {phase.doing}"
    elif phase:
        text += ", while serving"
    if container.restarts > 1:
        text += f" ({count_of(container.restarts, 'restart')})"
    if kill:
        text += f"; the kernel killed {kill.process}, which had {say_bytes(kill.anon)} of its own in memory"
        text += f" and {say_bytes(kill.shmem)} that it shared" if kill.shmem > kill.anon else ""
    text += "."
    return f"{text} {taken}." if taken else text


def _settings(engine: Engine | None, subject: Subject) -> str:
    """What of the limit the engine's settings take, in words."""
    uses = [use.text for use in (uses_of(engine, subject.sizing(engine)) if engine else ()) if use.setting]
    return f"Its settings take {' and '.join(uses)}" if uses else ""


def _evidence(ending: Ending, phase: Phase | None) -> Iterator[Evidence]:
    container = ending.container
    yield pod_evidence(container.pod, ending.path, ending.text)
    yield stated(container)
    if phase:
        yield log_evidence(phase.line)
