"""A container that hit its own memory limit."""

import itertools
import re
import shlex
from collections.abc import Iterator
from datetime import timedelta

import msgspec

from kubectl_llmdoctor.api import (
    GIB,
    MIB,
    PART_OF,
    RAY_CLUSTER,
    Container,
    Ending,
    Engine,
    Event,
    Events,
    Evidence,
    Finding,
    Fix,
    Hardware,
    Item,
    Line,
    Log,
    Logs,
    Metrics,
    OutOfMemory,
    Phase,
    Pod,
    Sizing,
    Span,
    Subject,
    check,
    count_of,
    dig,
    endings,
    event_evidence,
    expression,
    fixes,
    last_words,
    log_evidence,
    log_of,
    parse_time,
    phase_of,
    pod_evidence,
    rows,
    say_bytes,
    say_seconds,
    seconds_between,
    served,
    setting_evidence,
    table,
    units,
    usage_of,
    written_ago,
)
from llmdoctor_checks.memory._compilers import LITERALS as OF_COMPILERS
from llmdoctor_checks.memory._compilers import compilers
from llmdoctor_checks.memory._killed import (
    CONSEQUENCES,
    HOOK_BYTES,
    SAID,
    Told,
    close,
    killed_then,
    shell_says_killed,
    told,
)
from llmdoctor_checks.memory._numa import twice
from llmdoctor_checks.memory._pinned import DIED, PYTHON, Excess, died, excess, uses_of
from llmdoctor_checks.memory._prompt_cache import LITERALS, Greed, prompt_cache
from llmdoctor_checks.memory._router_prompts import prefixes
from llmdoctor_checks.memory._stub import TOLD_TO_STOP, gone_in_stub
from llmdoctor_checks.scheduling._devices import asks_for_nothing, near_gpus
from llmdoctor_checks.start._library import asked, least_bytes

#: A context from which on the KV cache of a small model takes gigabytes, one that does not, and what a slot needs of it at the least;
#: what each token takes in models of a few billion parameters up to thirty; and which share of a limit counts.
_LONG, _SHORT, _A_SLOT, _PER_TOKEN, _SHARE = 32768, 8192, 2048, MIB // 4, 0.25
#: How llama.cpp says where its KV cache lies and how large it is, that its context is being made, and that layers lie on a GPU.
_KV, _MAKES_CONTEXT, _LAYERS = "KV buffer size =", " n_ctx ", "layers to GPU"
_KV_BUFFER, _ON_GPU = rf"(\w{{1,40}}) +{_KV} +([\d.]{{1,12}}) MiB", rf"offloaded [1-9]\d{{0,3}}/\d{{1,4}} {_LAYERS}"

#: How llama.cpp says how large the file of a model is (`llama_model_loader::print_info`, older `llm_load_print_meta`), and what a server
#: takes beside the weights: a share for buffers, and its cache.
_FILE, _FILE_SIZE = ("file size ", "model size "), r"\b(?:file|model) size += ([\d.]{1,12}) (MiB|GiB)\b"
_WITH_BUFFERS, _CACHE = 1.25, GIB

#: What the API server writes at a pod to which a LimitRange gave what it did not state (plugin/pkg/admission/limitranger).
_RANGED = "kubernetes.io/limit-ranger"

#: Containers that serve a volume of their pod to the others: with them it is gone.
_MOUNTERS = frozenset({"gke-gcsfuse-sidecar"})

#: How Istio's agent, which starts Envoy, says that this was killed.
_BY_AGENT = "Envoy may have been out of memory killed"

#: A container that is this full, and fills up within this time, is on its way to its limit.
_NEARLY_FULL, _SOON_SECONDS = 0.7, 24 * 3600

#: What is said beside a larger limit of who was well for so long that it cannot have been too little from the start.
_GROWS, _A_DAY = ", and find what grows", 24 * 3600

#: vLLM's connector over NIXL leaks in UCX, whose cache of registered memory frees nothing by itself (vLLM's issue 24264), until
#: vLLM 0.14 (pull requests 32181 and 32570) and later releases of NIXL (pull request 1210) set one of these.
_NIXL, _NIXL_LEAKS_NOT = "NixlConnector", "0.14.0"
_BOUNDS_UCX = ("UCX_RCACHE_MAX_UNRELEASED", "UCX_MEM_MMAP_HOOK_MODE")

#: Limits from which twice as much is a lot, and from which few nodes have more.
_LARGE, _HUGE = 128 * GIB, 512 * GIB

#: For so long memory has to grow: loading a model ends sooner.
_GROWING_SECONDS = 1800

#: What grows little within an hour counts from this share of the limit on, where each tenth of the time has more than the one before, and
#: so long after the start that caches have filled.
_NEARLY_THERE, _PARTS, _NO_SLOWER, _FILLED_SECONDS = 0.85, 10, 0.8, 6 * 3600

#: From this share on of what cannot be taken back a limit is as good as reached.
_FULL = 0.95

#: A process that a cgroup's limit killed held this share of it, at least, where it was the one that filled it.
_NEAR = 0.9

#: A kill is remembered for so long, and until the server has run so many times as long as before it.
_REMEMBERED_DAYS, _LONG_SURE = 7, 2

#: How far apart the kernel's word of a kill and a launcher's, or a container's status, may lie.
_TOGETHER = timedelta(minutes=2)

#: So many restarts, as far apart as this one: it goes on, and is what is wrong.
_OFTEN = 3

#: In these phases of its start a server takes host memory for what it keeps there; SGLang says so itself. So long a silence is no pause.
_TAKE_MEMORY = ("loading weights", "profiling GPU memory", "capturing CUDA graphs")
_ALLOCATES, _SILENT_SECONDS = "host memory for hierarchical KV cache", 300

#: TEI's largest batch where nothing is stated (router/src/main.rs), and its word of the longest request.
_BATCH_OF_TEI, _OF_A_REQUEST = 16384, "Maximum number of tokens per request: "
_LONGEST = expression(r"Maximum number of tokens per request: (\d{1,7})")

#: What Ollama takes beside the weights of a model, at the least: the cache of 2048 tokens, the buffers of its graph.
_BESIDE_WEIGHTS = 256 * MIB


@check(
    "oomkilled-host",
    since="0.1",
    literals=(*LITERALS, *OF_COMPILERS, *DIED, SAID, _BY_AGENT, _KV, _MAKES_CONTEXT, _LAYERS, _OF_A_REQUEST),
)
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
        for server in subject.engines(pod):
            yield from (
                _of_ollama(pod, server) if server.name == "ollama" else _risk(pod, server, subject.sizing(server))
            )
    if metrics is not None and pod.ready:
        yield from _trend(metrics, subject, logs)
    for container in pod.containers if pod.ready else ():
        grown = _growth(metrics) if metrics is not None and metrics.container is container else None
        yield from _before(pod, container, subject, logs, grown)
        if hardware is not None:
            yield from _nearly(container, hardware, subject, logs)
    if not pod.ready:
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
    context = _context(engine, limit, log) if engine is not None and not served and not over else None
    by_kernel = [hardware.kernel.evidence(x.line) for x in kill.all] if hardware else []
    build = compilers(container, limit, log, by_kernel, killed=ending.oom_killed)
    greedy = [x for x in (build, context, prompts, prefixes(ending), twice(container)) if x]
    if over and engine:
        further = _of_settings(over, engine, limit, subject)
    else:
        grows = _GROWS if not greedy and (ending.seconds or 0) >= _A_DAY else ""
        further = _fixes(container, limit, subject, grows, weights=_in_host_memory(log))
    batch = _batch_of_warm_up(engine, phase, log) if engine is not None and phase is not None else None
    return Finding(
        confidence="likely" if kill.unnamed or (_shared(container, limit) and not kill.own) else "certain",
        summary=_summary(ending, limit, phase, kill.first, over.text if over else _settings(engine, subject))
        + "".join(x.text for x in (*greedy, *([batch] if batch else []))),
        evidence=(
            *_evidence(ending, limit, phase),
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
        fixes=(*(x.fix for x in greedy), *further, *([batch.fix] if batch else [])),
    )


def _batch_of_warm_up(engine: Engine, phase: Phase, log: Log | None) -> Greed | None:
    """The largest batch of TEI on a CPU, which lies in host memory: it warms up with that (backends/src/lib.rs, warmup)."""
    told = [m for _, m in log.matching(_LONGEST, _OF_A_REQUEST, most=400)] if log is not None else []
    tokens = engine.value("max_num_batched_tokens", _BATCH_OF_TEI)
    if engine.name != "tei" or phase.doing != "warming up" or engine.container.accelerators or not told:
        return None
    longest = int(told[-1][1])
    if not isinstance(tokens, int) or tokens <= longest:
        return None
    return Greed(
        f" It warms up with a batch of up to {tokens} tokens (--max-batch-tokens), as it may have to compute one of its clients'.",
        log_evidence(phase.line),
        fixes.set_flag(
            engine,
            "max_num_batched_tokens",
            "--max-batch-tokens",
            str(longest),
            f"In place of that have it compute less at once: lower --max-batch-tokens from {tokens} to {longest}, the longest request",
        ),
    )


def _in_host_memory(log: Log | None) -> int:
    """The largest model that llama.cpp loaded, by its log, where none of their layers went to a GPU."""
    if log is None or any(re.search(_ON_GPU, line.text[:500]) for line in log.find(_LAYERS)):
        return 0
    told = [size for line in log.find(*_FILE) if (size := re.search(_FILE_SIZE, line.text[:500]))]
    return max((int(float(one[1].strip(".") or 0) * (GIB if one[2] == "GiB" else MIB)) for one in told), default=0)


def _of_compilers(ending: Ending, limit: int, log: Log | None, subject: Subject) -> Iterator[Finding]:
    """A compiler that was killed in a container with a limit, as the build says that failed of it."""
    container = ending.container
    build = compilers(container, limit, log)
    if build is None:
        return
    yield Finding(
        summary=f"A compiler of {container.name}, which may have {say_bytes(limit)} of memory, was killed.{build.text}",
        evidence=(build.evidence, _stated(container), pod_evidence(container.pod, ending.path, ending.text)),
        explains=(*CONSEQUENCES, "compiler-missing"),
        fixes=(build.fix, *_fixes(container, limit, subject)),
    )


def _context(engine: Engine, limit: int, log: Log | None) -> Greed | None:
    """llama.cpp without a GPU, told to hold a long context: it makes room for all of it in host memory when it starts."""
    setting = engine.explicit("max_model_len")
    if engine.name != "llama.cpp" or setting is None or not isinstance(setting.value, int) or setting.value < _LONG:
        return None
    slots = engine.value("max_num_seqs", 1)
    less = max(_SHORT, _A_SLOT * slots if isinstance(slots, int) else 0)
    if engine.container.accelerators or less >= setting.value or not _holds_context(setting.value, limit, log):
        return None
    return Greed(
        f" The KV cache for a context of {setting.value} tokens lies in that memory as well.",
        setting_evidence(engine.container, setting),
        fixes.set_flag(
            engine,
            "max_model_len",
            "--ctx-size",
            str(less),
            f"Lower --ctx-size from {setting.value} to {less}, as its KV cache lies in host memory",
        ),
    )


def _holds_context(tokens: int, limit: int, log: Log | None) -> bool:
    """Whether the KV cache of so many tokens is much of a limit: by its size in the log, or by what models of a usual size take."""
    size = tokens * _PER_TOKEN
    if log is not None and len(log):
        if buffers := [m for _, m in log.matching(_KV_BUFFER, _KV, most=500)]:
            size = int(sum(units(f"{m[2]}Mi") or 0 for m in buffers if m[1] == "CPU"))
        elif log.holds("load_tensors") and not log.holds(_MAKES_CONTEXT):
            return False  # it was still at the weights
        elif any(re.search(_ON_GPU, x.text[:500]) for x in log.find(_LAYERS)):
            return False
    return size >= _SHARE * limit


def _too_much(engine: Engine, limit: int, log: Log, subject: Subject) -> Iterator[Finding]:
    """A process that was killed while the first one lived on, in a container whose settings take more than its limit."""
    over, killed = excess(engine, subject.sizing(engine), limit), died(log)
    if killed is None or over is None:
        return
    container = engine.container
    yield Finding(
        summary=f"A process of {container.name} was killed: {over.text}, and the memory limit is {say_bytes(limit)}.",
        evidence=(log_evidence(killed), *over.evidence, _stated(container)),
        explains=CONSEQUENCES,
        fixes=tuple(_of_settings(over, engine, limit, subject)),
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
            evidence=(log_evidence(last), *over.evidence, _stated(container)),
            explains=(*CONSEQUENCES, "probe-too-short"),
            fixes=tuple(_of_settings(over, engine, limit, subject)),
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
        evidence=(proof[0], event_evidence(proof[1], container.pod.cluster), _stated(container)),
        explains=(*CONSEQUENCES, "probe-too-short"),
        fixes=tuple(_fixes(container, limit, subject)),
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


def _stated(container: Container) -> Evidence:
    """The memory limit as the container has it."""
    return pod_evidence(container, "resources.limits.memory", str(container.spec.resources.limits.get("memory")))


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
        evidence=(log_evidence(line), _stated(container)),
        explains=CONSEQUENCES,
        fixes=tuple(_fixes(container, limit, subject)),
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
                pod_evidence(
                    container if "memory" in container.spec.resources.limits else pod,
                    "resources.limits.memory",
                    str(container.spec.resources.limits.get("memory") or say_bytes(limit)),
                ),
                *counted,
            ),
            explains=(*CONSEQUENCES, "probe-too-short"),
            fixes=tuple(_fixes(container, limit, subject)),
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


def _risk(pod: Pod, engine: Engine, sizing: Sizing) -> Iterator[Finding]:
    """A limit below what the engine surely takes."""
    container = engine.container
    limit = container.memory_limit
    uses = list(uses_of(engine, sizing))
    needed = sum(use.size for use in uses)
    if limit is None or needed <= limit or engine.name not in PYTHON or pod.lent:
        return
    if container.gpus and limit < HOOK_BYTES and "memory" in container.spec.resources.limits:
        return  # hook-oomkilled: a slip in the unit
    evidence = [use.evidence for use in uses if use.evidence]
    own = container.spec.resources.limits.get("memory")
    where = container if own is not None else pod
    evidence.append(pod_evidence(where, "resources.limits.memory", str(own) if own is not None else say_bytes(limit)))
    larger = f"{-(-(needed * 5 // 4) // (8 * GIB)) * 8}Gi"
    summary = f"Raise the memory limit of {container.name} from {say_bytes(limit)} to {larger}"
    yield Finding(
        role="risk",
        severity="critical",
        summary=f"{engine.label} takes {say_bytes(needed)} of host memory or more ({', '.join(use.text for use in uses)}); "
        f"the memory limit of {container.name} is {say_bytes(limit)}, so it is killed while it starts.",
        evidence=tuple(evidence),
        fixes=(fixes.set_resource(container, "limits", "memory", larger, summary),) if own is not None else (),
    )


def _of_ollama(pod: Pod, engine: Engine) -> Iterator[Finding]:
    """A limit below the weights of a model that the pod pulls, which Ollama holds in host memory where it has no GPU."""
    container = engine.container
    own = container.spec.resources.limits.get("memory")
    limit = container.limit("memory")
    if pod.exists or own is None or limit is None or near_gpus(container) or not asks_for_nothing(container):
        return
    models = asked(pod, pod.cluster)
    size, name = max(((least_bytes(name) or 0, name) for name in models), default=(0, ""))
    needed = size + _BESIDE_WEIGHTS
    if not size or needed <= limit:
        return
    larger = f"{-(-(needed * 5 // 4) // GIB)}Gi"
    summary = f"Raise the memory limit of {container.name} from {say_bytes(limit)} to {larger}"
    yield Finding(
        role="risk",
        summary=f"{name} takes {say_bytes(needed)} of host memory or more without a GPU; the memory limit of {container.name} is "
        f"{say_bytes(limit)}, so Ollama refuses to load it or is killed.",
        evidence=(models[name], pod_evidence(container, "resources.limits.memory", str(own))),
        fixes=(
            fixes.set_resource(container, "limits", "memory", larger, summary),
            fixes.advice(f"Pull a smaller model than {name}"),
        ),
    )


class _Growth(msgspec.Struct, frozen=True):
    """Memory of a container itself that grows: its course, in how many seconds it is killed, and whether that is little yet."""

    rss: Span
    left: float
    little: bool


def _growth(metrics: Metrics) -> _Growth | None:
    """Memory that grows towards the limit: what the kernel cannot take back, and no page cache."""
    container, rss, whole = metrics.container, metrics.span("memory_rss"), metrics.span("memory_working_set")
    limit = container.limit("memory") if container else None
    if limit is None or rss is None or whole is None or metrics.started is None:
        return None
    recent = rss.tail(2 * _GROWING_SECONDS)
    loaded = recent.points[0][0] - metrics.started
    thirds = [recent.third(n) for n in range(3)]
    steady = thirds[0] < thirds[1] < thirds[2]
    if recent.seconds < _GROWING_SECONDS or loaded < _GROWING_SECONDS or not steady or recent.slope <= 0:
        return None
    left = (limit - rss.last) / recent.slope
    if rss.last < _NEARLY_FULL * limit or whole.last < rss.last or not 0 < left < _SOON_SECONDS:
        return None
    little = thirds[2] - thirds[0] < 0.02 * limit
    if little and not (rss.last >= _NEARLY_THERE * limit and loaded >= _FILLED_SECONDS and _straight(recent)):
        return None  # it breathes
    return _Growth(recent, left, little)


def _trend(metrics: Metrics, subject: Subject, logs: Logs | None) -> Iterator[Finding]:
    container, grown = metrics.container, _growth(metrics)
    limit = container.limit("memory") if container else None
    if container is None or limit is None or grown is None:
        return
    rss, kept = grown.rss, [*_kept(container, limit, logs, subject)]
    yield Finding(
        role="risk",
        confidence="possible" if grown.little else "likely",
        summary=f"The memory of {container.name} itself grew by {say_bytes(rss.slope * 3600)} an hour for "
        f"{say_seconds(rss.seconds)}, to {say_bytes(rss.last)} of its limit of {say_bytes(limit)}; at that pace it is killed in "
        f"{say_seconds(grown.left)}." + "".join(x.text for x in kept),
        evidence=(rss.evidence(say_bytes), _stated(container), *(x.evidence for x in kept)),
        fixes=(*(x.fix for x in kept), *_fixes(container, limit, subject, "" if kept else _GROWS)),
    )


def _straight(span: Span) -> bool:
    """Whether it rises all the time and no slower in the end: as a leak does, and a cache that fills does not."""
    size = len(span.points) // _PARTS
    means = [sum(span.values[n * size : (n + 1) * size]) / size for n in range(_PARTS)] if size else []
    rises = bool(means) and all(a < b for a, b in itertools.pairwise(means))
    return rises and span.tail(span.seconds / 2).slope >= _NO_SLOWER * span.slope


def _before(
    pod: Pod, container: Container, subject: Subject, logs: Logs | None, grown: _Growth | None
) -> Iterator[Finding]:
    """A server that was killed at its limit some time ago, and has not served for as long again since."""
    ended, since, now = container.terminated, container.started, pod.cluster.now
    limit = container.memory_limit
    began, died = map(parse_time, (ended and ended.started_at, ended and ended.finished_at))
    if ended is None or ended.reason != "OOMKilled" or limit is None or container.role != "main" or pod.failing:
        return
    if now is None or began is None or died is None or since is None or (now - died).days >= _REMEMBERED_DAYS:
        return
    served, ago, again = ((b - a).total_seconds() for a, b in ((began, died), (died, now), (since, now)))
    if served < _GROWING_SECONDS or again > _LONG_SURE * served:
        return  # it was killed while it started, or has come further since
    restarts, made = container.status.restart_count, parse_time(pod.obj.metadata.creation_timestamp)
    often = restarts >= _OFTEN and made is not None and (now - made).total_seconds() / restarts <= _LONG_SURE * served
    kept = [*_kept(container, limit, logs, subject)]
    yield Finding(
        role="cause" if often else "risk",
        severity="warning",
        summary=f"Container {container.name} was killed at its memory limit of {say_bytes(limit)} {say_seconds(ago)} ago, after "
        f"{say_seconds(served)}; it has run again with the same limit for {say_seconds(again)}"
        f"{f', and restarted {restarts} times in all' if often else ''}"
        + (
            f", and holds {say_bytes(grown.rss.last)} that grow by {say_bytes(grown.rss.slope * 3600)} an hour: at that pace it is "
            f"killed again in {say_seconds(grown.left)}."
            if grown is not None
            else "."
        )
        + "".join(x.text for x in kept),
        evidence=(
            pod_evidence(
                pod,
                f"status.containerStatuses[{container.name}].lastState.terminated",
                f"exitCode: {ended.exit_code}, reason: {ended.reason}",
            ),
            *((grown.rss.evidence(say_bytes),) if grown is not None else ()),
            _stated(container),
            *(x.evidence for x in kept),
        ),
        fixes=(*(x.fix for x in kept), *_fixes(container, limit, subject, "" if kept else _GROWS)),
    )


def _kept(container: Container, limit: int, logs: Logs | None, subject: Subject) -> Iterator[Greed]:
    """What a server that runs keeps of earlier prompts, by its settings or by the newest log that tells of it."""
    of_each = container.own_logs(logs) if logs is not None else []
    for log in [*reversed(of_each), None]:
        if (found := prompt_cache(subject.engine_of(container), limit, log)) is not None:
            yield found
            return


def _nearly(container: Container, hardware: Hardware, subject: Subject, logs: Logs | None) -> Iterator[Finding]:
    """Memory that nobody can take back, up to the limit: what the processes hold, without the page cache."""
    use, limit = hardware.use_of(container), container.limit("memory")
    if use is None or limit is None or use.memory.anon_bytes is None:
        return
    own, files = use.memory.anon_bytes, use.memory.shmem_bytes or 0
    if own + files < _FULL * limit or files > own:
        return  # oomkilled-shm speaks of memory-backed files
    kept = [*_kept(container, limit, logs, subject)]
    shared = f" and {say_bytes(files)} in memory-backed files" if files else ""
    yield Finding(
        role="risk",
        summary=f"The processes of {container.name} hold {say_bytes(own)}{shared} of its memory limit of {say_bytes(limit)}; the kernel "
        "can take none of it back, and kills at the limit." + "".join(x.text for x in kept),
        evidence=(
            hardware.use_evidence(
                use, "memory", f"anonBytes: {own}, shmemBytes: {files}, maxBytes: {use.memory.max_bytes}"
            ),
            _stated(container),
            *(x.evidence for x in kept),
        ),
        fixes=(*(x.fix for x in kept), *_fixes(container, limit, subject, "" if kept else _GROWS)),
    )


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


def _evidence(ending: Ending, limit: int, phase: Phase | None) -> Iterator[Evidence]:
    container = ending.container
    yield pod_evidence(container.pod, ending.path, ending.text)
    own = container.spec.resources.limits.get("memory")
    if own is not None:
        yield pod_evidence(container, "resources.limits.memory", str(own))
    else:
        yield pod_evidence(container.pod, "resources.limits.memory", say_bytes(limit))
    if phase:
        yield log_evidence(phase.line)


def _of_settings(over: Excess, engine: Engine, limit: int, subject: Subject) -> Iterator[Fix]:
    """A limit that holds what the settings take, where the node has it, and so much less of them that they fit the limit, or the node."""
    container = engine.container
    node = subject.nodes.get(container.pod.spec.node_name)
    there = node.allocatable("memory") if node else None
    wanted = -(-(over.needed * 5 // 4) // (8 * GIB)) * 8
    pod = container.pod
    fits = wanted * GIB <= there if there is not None else wanted * GIB < _HUGE
    if fits and container.spec.resources.limits.get("memory") is not None:
        summary = f"Raise the memory limit of {container.name} to {wanted}Gi, which holds all of that"
        yield fixes.set_resource(container, "limits", "memory", f"{wanted}Gi", summary)
    elif fits and pod.spec.resources.limits.get("memory") is not None:
        summary = f"Raise the memory limit of the whole pod to {wanted}Gi, which holds all of that"
        yield fixes.set_spec(pod, "/resources/limits/memory", f"{wanted}Gi", summary)
    yield from over.fixes
    if fits or over.fixes:
        return
    both = excess(engine, subject.sizing(engine), there) if there is not None else None
    if there is not None and both is not None and both.fixes:
        most = f"{there * 19 // (20 * GIB)}Gi"
        yield fixes.advice(f"{both.fixes[0].summary}; with that, raise the memory limit of {container.name} to {most}")
    else:
        yield from _fixes(container, limit, subject, ", or take less")


def _in_volumes(container: Container, limit: int) -> int:
    """What memory-backed volumes hold at most that alone may fill the limit, where that is stated."""
    mounted = (container.pod.volume(mount.name) for mount in container.spec.volume_mounts)
    sizes = (units(v.empty_dir.size_limit) for v in mounted if v and v.empty_dir and v.empty_dir.medium == "Memory")
    return sum(size for size in sizes if size and size >= limit)


def _storage_container(container: Container, limit: int) -> Item | None:
    """The ClusterStorageContainer from which KServe's webhook took the initializer's limit: it is set over that of the ConfigMap."""
    if container.pod.labels.get(PART_OF) == "llminferenceservice":
        return None
    uri = str(next(iter(container.spec.args), ""))
    for item in container.pod.cluster.items("ClusterStorageContainer"):
        prefixes = (str(row.get("prefix") or "") for row in rows(item.raw, "spec.supportedUriFormats"))
        stated = units(str(dig(item.raw, "spec.container.resources.limits.memory") or ""))
        if stated == limit and any(prefix and uri.startswith(prefix) for prefix in prefixes):
            return item
    return None


def _given_by_range(container: Container) -> str:
    """The LimitRange, in words, from which a container has its memory limit, where the API server wrote that it set it."""
    written = container.pod.annotations.get(_RANGED, "")
    end = f" limit for {'init ' if container.role == 'init' else ''}container {container.name}"
    if not any("memory" in part and part.strip().endswith(end) for part in written.split(";")):
        return ""
    limit = container.memory_limit
    names = [
        item.name
        for item in container.pod.cluster.items("LimitRange", container.pod.namespace)
        if any(units(str(dig(row, "default.memory") or "")) == limit for row in rows(item.raw, "spec.limits"))
    ]
    return f"LimitRange {names[0]}" if len(names) == 1 else f"a LimitRange of {container.pod.namespace}"


def _fixes(container: Container, limit: int, subject: Subject, more: str = "", *, weights: int = 0) -> Iterator[Fix]:
    if (fix := _stated_by_operator(container, limit)) is not None:
        yield fix
        return
    pod = container.pod
    if more == _GROWS:
        yield from _of_ucx(subject.engine_of(container))
    node = subject.nodes.get(pod.spec.node_name)
    there = node.allocatable("memory") if node else None
    larger = limit * 4 if limit < GIB else limit * 2 if limit < _LARGE else limit * 3 // 2
    held = _in_volumes(container, limit)
    if held and larger < limit + held <= (_HUGE if there is None else there):
        larger = limit + held
        more += "; what lies in its memory-backed volumes stays until the pod is deleted"
    needed = -(-int(weights * _WITH_BUFFERS + _CACHE) // GIB) * GIB if weights else 0
    if needed > larger:
        larger = needed
        more += f", which holds the {say_bytes(weights)} of the model's weights as well"
    text = f"Raise the memory limit of {container.name} from {say_bytes(limit)}"
    if given := _given_by_range(container):
        text = f"State a memory limit of its own for {container.name}, which has {say_bytes(limit)} by {given}"
    if there is not None and node and larger > there and needed == larger:
        yield fixes.advice(
            f"Run {container.name} on a node with more memory than {node.name} ({say_bytes(there)}), with a limit of {larger // GIB}Gi, "
            f"or take a smaller model: its weights are {say_bytes(weights)}"
        )
    elif there is not None and node and larger > there:
        yield fixes.advice(
            f"Take away what uses the memory, or choose a node with more: of {node.name}'s {say_bytes(there)} "
            f"{container.name} may use {say_bytes(limit)} already{more}"
        )
    elif container.spec.resources.limits.get("memory") is None:
        amount = f"{larger // GIB}Gi" if larger >= 2 * GIB else f"{max(larger // MIB, 256)}Mi"
        summary = f"Raise the memory limit of the whole pod from {say_bytes(limit)}, for example to {amount}{more}"
        yield fixes.set_spec(pod, "/resources/limits/memory", amount, summary)
    elif there is None and limit >= _HUGE:
        yield fixes.advice(f"{text} as far as its node has memory, in {fixes.edited(pod)}{more}")
    else:
        amount = f"{larger // GIB}Gi" if larger >= 2 * GIB or larger == GIB else f"{max(larger // MIB, 256)}Mi"
        text += f", for example {amount}" if given else f", for example to {amount}"
        yield fixes.set_resource(container, "limits", "memory", amount, f"{text}{more}{_refused(container, larger)}")


def _refused(container: Container, larger: int) -> str:
    """Who in the namespace lets no container have so much, as an addition to the advice; empty where nobody is known to."""
    pod = container.pod
    for item in pod.cluster.items("LimitRange", pod.namespace):
        for row in rows(item.raw, "spec.limits"):
            most = units(str(dig(row, "max.memory") or ""))
            if most is not None and most < larger and row.get("type") in ("Container", "Pod"):
                return f"; LimitRange {item.name} has to allow that first (max.memory {dig(row, 'max.memory')} of a {row['type']})"
    for item in pod.cluster.items("ResourceQuota", pod.namespace):
        if dig(item.raw, "spec.scopes") or dig(item.raw, "spec.scopeSelector"):
            continue  # which may not count this pod
        hard, used = (units(table(dig(item.raw, f"status.{key}")).get("limits.memory")) for key in ("hard", "used"))
        if hard is not None and used is not None and used - (container.memory_limit or 0) + larger > hard:
            there = f"{say_bytes(used)} of its {say_bytes(hard)} limits.memory are used"
            return f"; ResourceQuota {item.name} has to allow that first ({there})"
    return ""


def _of_ucx(engine: Engine | None) -> Iterator[Fix]:
    """Have UCX give back what it keeps registered, of a release of vLLM that does not see to it."""
    told = str(engine.value("kv_transfer_config", "")) if engine is not None and engine.name == "vllm" else ""
    if engine is None or _NIXL not in told or engine.at_least(_NIXL_LEAKS_NOT) is not False:
        return
    if not any(name in engine.container.env for name in _BOUNDS_UCX):
        text = f"Have UCX give back the memory that it keeps registered for NIXL, which grows without an end: {_BOUNDS_UCX[0]}=1024"
        yield fixes.set_env(engine.container, _BOUNDS_UCX[0], "1024", text)


def _stated_by_operator(container: Container, limit: int) -> Fix | None:
    """What raises a limit that the operator states of a container which it adds to the pod: no object that a person edits has it."""
    labels = container.pod.labels
    if container.name == "wait-gcs-ready" and RAY_CLUSTER in labels:
        return fixes.platform(
            f"Have KubeRay add no wait-gcs-ready, whose {say_bytes(limit)} it states itself (ENABLE_INIT_CONTAINER_INJECTION=false of "
            f"its operator, env of the chart kuberay-operator), and give the workers of {fixes.edited(container.pod)}, and of each other "
            "RayCluster of that operator, an init container of their own with 1Gi that runs the same script"
        )
    if container.name != "storage-initializer":
        return None
    change = f"from {say_bytes(limit)}, for example to {max(limit * 2 // GIB, 2)}Gi"
    if (made := _storage_container(container, limit)) is not None:
        return fixes.platform(
            f"Raise the memory limit of {made.kind} {made.name} {change} (a download of some 40 GB has needed 16Gi)",
            f"kubectl edit clusterstoragecontainers {shlex.quote(made.name)}",
        )
    summary = f"Raise storageInitializer.memoryLimit {change}, in the ConfigMap kserve/inferenceservice-config"
    # what the chart's value sets is a ClusterStorageContainer, to which the pods of an LLMInferenceService do not look
    if labels.get(PART_OF) == "llminferenceservice":
        return fixes.platform(
            f"{summary}, and delete the pod: of an LLMInferenceService no ClusterStorageContainer counts"
        )
    return fixes.platform(
        f"{summary} (of the chart kserve-resources, from 0.16 on, kserve.storage.resources.limits.memory)"
    )
