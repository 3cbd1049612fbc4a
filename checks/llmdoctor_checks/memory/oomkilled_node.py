"""A node that ran out of memory."""

import re
from collections.abc import Iterable, Iterator
from datetime import timedelta

import msgspec

from kubectl_llmdoctor.api import (
    GIB,
    Container,
    Ending,
    Engine,
    Events,
    Evidence,
    Finding,
    Fix,
    Hardware,
    Log,
    Logs,
    Metrics,
    Node,
    OutOfMemory,
    Pod,
    Span,
    Subject,
    check,
    endings,
    event_evidence,
    expression,
    fixes,
    log_evidence,
    log_of,
    node_evidence,
    parse_time,
    pod_evidence,
    requests_of,
    say_bytes,
    say_seconds,
    setting_evidence,
    units,
    usage_of,
)
from llmdoctor_checks.memory._compilers import LITERALS as OF_COMPILERS
from llmdoctor_checks.memory._compilers import compilers
from llmdoctor_checks.memory._killed import (
    CONSEQUENCES,
    PROCESSES,
    SAID,
    close,
    ended_by_probe,
    killed_then,
    shell_says_killed,
    told,
)
from llmdoctor_checks.memory._no_page import LITERALS, OF_THE_MACHINE, starved
from llmdoctor_checks.memory._numa import twice
from llmdoctor_checks.memory._pinned import DIED, PYTHON, died, excess, greed
from llmdoctor_checks.memory._prompt_cache import Greed, prompt_cache, unmapped

#: Images that run on Jetsons alone: those of jetson-containers, and of NVIDIA for their Linux (L4T).
_FOR_JETSON = expression(r"(?i)(?:^|/)dustynv/|jetson|\bl4t\b")

#: Available memory of a node below which the kernel is about to kill, as a share of its memory.
_EXHAUSTED = 0.01
_AVAILABLE = expression(r"^node_memory_MemAvailable_bytes(?:\{[^}]*\})? (?P<bytes>[\d.eE+]+)$", re.MULTILINE)

#: Memory is far above its request when it is so many times as much, and so much more; it lasts when it does for so long.
_TIMES, _BEYOND_BYTES, _LASTING_SECONDS = 2, 4 * GIB, 600

#: A node is short of memory when less than this share of it is available.
_SHORT = 0.1

#: Memory that has grown all through this time keeps growing; what is gone within a day is soon.
_GROWING_SECONDS, _SOON_SECONDS = 1800, 86400

#: The setting of the share of a GPU that an engine takes, and how much less of it is a beginning.
_SHARES = {"vllm": "--gpu-memory-utilization", "sglang": "--mem-fraction-static"}
_LEFT = 0.15

#: The kubelet's event names the process that the kernel killed.
_VICTIM = expression(rf"victim process: (?P<name>{PROCESSES}[^,]{{0,40}}),")
_ENGINES = expression(PROCESSES)
#: Those of llama.cpp's programs and Ollama's, which no other engine has.
_LLAMA, _OF_LLAMA = expression(r"(?i:ol)?llama"), ("llama.cpp", "ollama")

#: Cgroups of services and users of the node, of which no container is.
_OF_THE_NODE = ("/system.slice/", "/user.slice/", "/init.scope")
#: By how much the kernel's clock and the kubelet's may differ.
_SLACK = timedelta(seconds=30)

#: From this priority on the kubelet evicts no pod (`SystemCriticalPriority`).
_CRITICAL = 2_000_000_000

#: A node that has no memory left answers no more within this time of the kernel's kills; the kubelet reports each once.
_SILENT_SECONDS = 600

#: What a killed process had in memory of its own and shared, as the kernel prints it.
_RESIDENT = expression(r"(?:anon|shmem)-rss:(\d{1,15})kB")

#: NVIDIA's driver asks the kernel for pages of a memory that its GPU shares, and gets none: again and again, until the node goes down.
_NO_PAGES, _SEVERAL = "[NV_ERR_NO_MEMORY]", 3
#: How an instance ended whose node went down under it, as the kubelet says when it is back.
_WITH_THE_NODE = 255

#: What the kubelet's eviction message says of a container.
_USED = expression(r"[Cc]ontainer (?P<name>[\w.-]{1,63}) was using (?P<size>\d{1,15}[KMGT]?i?)\b")


@check("oomkilled-node", since="0.1", literals=(*DIED, SAID, *LITERALS, *OF_COMPILERS))
def oomkilled_node(
    pod: Pod,
    events: Events | None,
    node: Node | None,
    hardware: Hardware | None,
    metrics: Metrics | None,
    logs: Logs | None,
    subject: Subject,
) -> Iterator[Finding]:
    """The node ran out of host memory.

    The container did not hit a limit of its own: the node had no memory left, and the kernel killed the process that
    was cheapest to lose, or the kubelet evicted the pod. Pods that use more than they request go first; a GPU server
    with a small memory request, or none, is the usual victim.

    Where a worker is killed, and not the container's first process, the container ends with an error of its own. The event
    `SystemOOM` or the kernel's log that names a worker then, or settings that take more than the whole node has, say what it was: LMCache's
    `LMCACHE_MAX_LOCAL_CPU_SIZE` and SGLang's `--hicache-size` count for each rank.

    A pod that requests as much as it may take, of CPU and memory, goes last: beside a `SystemOOM` alone its kill counts as one at its
    own limit.

    Where the machine's memory is the GPU's as well, a server may lose its GPU first (Vulkan: ErrorDeviceLost): the kernel says then that it
    found no page for it.

    GB10 (DGX Spark), Orin and Thor have no memory of their own. Before such a machine goes down, NVIDIA's driver tells the kernel's log
    again and again that it gets no memory (`NV_ERR_NO_MEMORY`), and nothing is killed.

    A node without memory may stop answering altogether: where its kubelet told of a `SystemOOM` shortly before, this is why it is lost.

    A server that holds far more than its pod requests, for ten minutes and more, is named before that happens, by what
    cAdvisor or the node agent measured of its own memory: without the page cache of its weights, which the kernel takes
    back. The scheduler counts what it holds beyond its request as free. When the node runs short the kubelet evicts pods
    above their requests first, and the kernel prefers their processes (`oom_score_adj` is 1000 less the thousandths of the
    node's memory that the container requests). It is a risk where the node is short now, by its condition `MemoryPressure`
    or by what node-exporter says is available, however little it is above its request, and a note elsewhere. Where it has no limit and
    keeps growing, it is said in what time the node has nothing left.

    ## Fix

    Request the memory that the server really uses (`resources.requests.memory`), so that the scheduler keeps it free,
    and find out who used the rest of the node.

    ## References

    - https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/
    - https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/#node-out-of-memory-behavior
    """
    if pod.status.reason == "Evicted" and (done := _evicted(pod.status.message)):
        yield Finding(
            confidence="certain",
            summary=f"The kubelet {done} {pod.name}: the node was short of memory.",
            evidence=(pod_evidence(pod, "status", f"Evicted: {pod.status.message}"),),
            explains=("pod-failed", "crash-loop", "not-ready"),
            fixes=tuple(_fixes(pod, *_of_eviction(pod))),
        )
        return
    yield from _beyond(pod, node, hardware, metrics)
    yield from _fell_silent(pod, events, node)
    yield from _refused_by_driver(pod, node, hardware, subject)
    for ending in endings(pod):
        proof = _kernel(ending, hardware) if hardware else None
        if proof is None and ending.signal != "SIGKILL" and not ending.oom_killed:
            engine = subject.engine_of(ending.container)
            found = [*starved(ending, engine, log_of(ending, logs), hardware, node)]
            found = found or [*_of_worker(pod, ending, events, hardware, node, logs, subject)]
            yield from found or _of_compilers(ending, node, logs)
            continue
        proof = proof or _proof(pod, ending, events, hardware, node, subject.engine_of(ending.container))
        if proof is None and not ending.container.limit("memory") and not pod.memory_limit:
            proof = _without_limit(ending, events, log_of(ending, logs))
        if proof is None:
            continue
        confidence, why, evidence = proof
        own = _compiles(ending, node, logs, [evidence]) or _greedy(ending, node, logs, subject)
        yield Finding(
            confidence="certain" if confidence == "certain" else "likely",
            summary=f"Container {ending.container.name} was killed for lack of memory on the node {pod.spec.node_name}: {why}."
            f"{own.text if own else ''}",
            evidence=(pod_evidence(pod, ending.path, ending.text), evidence, *((own.evidence,) if own else ())),
            explains=("oomkilled-host", "compiler-missing", *CONSEQUENCES),
            fixes=(*((own.fix,) if own else ()), *_fixes(pod, ending.container, _held(evidence.text))),
        )


def _compiles(ending: Ending, node: Node | None, logs: Logs | None, kernel: Iterable[Evidence] = ()) -> Greed | None:
    """Compilers that have the whole node's memory to fill."""
    room = node.capacity("memory") if node else None
    log = log_of(ending, logs)
    return compilers(ending.container, room, log, kernel, killed=ending.oom_killed)


def _of_compilers(ending: Ending, node: Node | None, logs: Logs | None) -> Iterator[Finding]:
    """A compiler that was killed in a container without a limit, as the build says that failed of it."""
    container = ending.container
    build = _compiles(ending, node, logs)
    if build is None or container.memory_limit:
        return
    yield Finding(
        summary=f"A compiler of {container.name}, which has no memory limit of its own, was killed.{build.text}",
        evidence=(build.evidence, pod_evidence(container.pod, ending.path, ending.text)),
        explains=("compiler-missing", *CONSEQUENCES),
        fix=build.fix,
    )


def _without_limit(ending: Ending, events: Events | None, log: Log | None) -> tuple[str, str, Evidence] | None:
    """What was killed for lack of memory, as the runtime or its own shell says, and has no limit to reach."""
    if ending.oom_killed:
        path = f"{ending.container.path}.resources.limits.memory"
        return "likely", "it has no memory limit of its own", Evidence(source="pod", ref=path, text="none")
    line = shell_says_killed(ending, log) if log and not ended_by_probe(ending, events) else None
    if line is None:
        return None
    why = "it has no memory limit of its own, and its shell lived on to say that it was killed, as the kernel does for memory"
    return "likely", why, log_evidence(line)


def _greedy(ending: Ending, node: Node | None, logs: Logs | None, subject: Subject) -> Greed | None:
    """What of the engine's own settings may take half of the node's memory or more."""
    engine = subject.engine_of(ending.container)
    total = node.capacity("memory") if node else None
    kept = prompt_cache(engine, total, log_of(ending, logs)) or twice(ending.container)
    if engine is None or total is None:
        return kept or (_unified(engine, subject) if engine else None)
    return (
        kept
        or _pinned(engine, subject, total)
        or greed(engine, subject.sizing(engine), total)
        or _unified(engine, subject)
        or unmapped(engine)
    )


def _pinned(engine: Engine, subject: Subject, total: int) -> Greed | None:
    """Host memory that the engine's settings take for certain, where the whole node has less."""
    over = excess(engine, subject.sizing(engine), total)
    if over is None or not over.fixes or not over.evidence:
        return None
    return Greed(f" {over.text}, and the whole node has {say_bytes(total)}.", over.evidence[0], over.fixes[0])


def _unified(engine: Engine, subject: Subject) -> Greed | None:
    """The share of a GPU whose memory is the node's own."""
    card, node = subject.sizing(engine).accelerator, subject.nodes.get(engine.container.pod.spec.node_name)
    name, flag = "gpu_memory_utilization", _SHARES.get(engine.name, "")
    share = engine.value(name, 0.0) if flag else 0.0
    if card and OF_THE_MACHINE.search(card.gpu.name):
        gpu, proof = card.gpu.name, Evidence(source="pod", ref=card.ref, text=card.text)
    elif node and node.jetson:  # nothing labels its GPU
        gpu, proof = "GPU", node_evidence(node, f"kernelVersion: {node.obj.status.node_info.kernel_version}")
    elif _FOR_JETSON.search(engine.container.spec.image):
        gpu, proof = "GPU", pod_evidence(engine.container, "image", engine.container.spec.image)
    else:
        return None
    if not isinstance(share, float) or share <= _LEFT:
        return None
    setting, less = engine.explicit(name), f"{share - _LEFT:.2f}"
    return Greed(
        f" The memory of its {gpu} is the node's, and {engine.label} takes {share:g} of it for weights and cache.",
        setting_evidence(engine.container, setting) if setting else proof,
        fixes.set_flag(engine, name, flag, less, f"Leave more of it to all else: {flag} {less}"),
    )


def _fell_silent(pod: Pod, events: Events | None, node: Node | None) -> Iterator[Finding]:
    """A node that no longer answers, after its kernel had begun to kill processes for lack of memory."""
    ready = node.condition("Ready", "Unknown") if node else None
    since = parse_time(ready.last_transition_time) if ready else None
    if node is None or ready is None or since is None or pod.ready or not pod.exists:
        return
    kills = [
        event
        for event in (events.of("SystemOOM", kind="Node") if events else ())
        if event.name == node.name and event.last and 0 <= (since - event.last).total_seconds() <= _SILENT_SECONDS
    ]
    if kills:
        yield Finding(
            summary=f"The node {node.name} ran out of memory, and no longer answers since: the kernel killed processes of it, the last "
            f"{say_seconds((since - kills[-1].last).total_seconds() if kills[-1].last else 0)} before.",
            evidence=(event_evidence(kills[-1], pod.cluster), node_evidence(node, f"Ready=Unknown: {ready.reason}")),
            explains=("node-lost", "node-not-ready", *CONSEQUENCES),
            fixes=tuple(_fixes(pod)),
        )


def _refused_by_driver(pod: Pod, node: Node | None, hardware: Hardware | None, subject: Subject) -> Iterator[Finding]:
    """A node that went down as the driver of its GPU, which has the node's memory, got none of it."""
    engine = next(iter(subject.engines(pod)), None)
    own = _unified(engine, subject) if engine and hardware and not pod.ready else None
    lines = [line for line in hardware.kernel.lines if _NO_PAGES in line.text] if hardware and own else []
    ready = node.condition("Ready") if node else None
    down = any(e.code == _WITH_THE_NODE or e.terminated.reason == "Unknown" for e in endings(pod)) or (
        ready is not None and ready.status != "True"
    )
    if engine is None or hardware is None or own is None or len(lines) < _SEVERAL or not down:
        return
    yield Finding(
        summary=f"The node {hardware.node} went down without memory: {len(lines)} times its GPU's driver got none.{own.text}",
        evidence=(hardware.kernel.evidence(lines[-1]), own.evidence),
        explains=("node-lost", "node-not-ready", *CONSEQUENCES),
        fixes=(
            own.fix,
            fixes.advice(
                f"Let long prompts take less at once: a smaller --max-num-batched-tokens, or a shorter context, in {fixes.edited(pod)}"
            ),
        ),
    )


def _of_worker(
    pod: Pod,
    ending: Ending,
    events: Events | None,
    hardware: Hardware | None,
    node: Node | None,
    logs: Logs | None,
    subject: Subject,
) -> Iterator[Finding]:
    """A worker that ended without a word while the node was full, or can only be full; the container's first process lived on."""
    log = log_of(ending, logs)
    lost = died(log)
    engine = subject.engine_of(ending.container)
    if lost is None or engine is None or engine.name not in PYTHON:
        return
    total = node.capacity("memory") if node else None
    over = excess(engine, subject.sizing(engine), total) if total is not None else None
    limit = ending.container.memory_limit
    evidence = [log_evidence(lost)]
    if victim := _victim(pod, ending, events, hardware, engine):
        why = f"a system OOM killed {victim[0]}"
        evidence.append(victim[1])
    else:
        if over is None or (limit is not None and limit < over.needed):
            return
        why = "it takes more than the whole node has"
    own = _greedy(ending, node, logs, subject) if over is None else None
    repairs: tuple[Fix, ...] = (own.fix,) if own else ()
    text = f"A worker of {ending.container.name} ended for lack of memory on the node {pod.spec.node_name}: {why}."
    if own:
        text += own.text
        evidence.append(own.evidence)
    if node is not None and total is not None and over is not None:
        text += f" {over.text}, and {node.name} has {say_bytes(total)}."
        repairs = (*repairs, *over.fixes)
        evidence += [*over.evidence, node_evidence(node, f"memory: {say_bytes(total)}")]
    yield Finding(
        summary=text,
        evidence=tuple(evidence),
        explains=("oomkilled-host", *CONSEQUENCES),
        fixes=(
            *repairs,
            *_fixes(pod, ending.container, (_held(victim[1].text) if victim else 0) * (engine.workers or 1)),
        ),
        order=lost.order,
    )


def _victim(
    pod: Pod, ending: Ending, events: Events | None, hardware: Hardware | None, engine: Engine
) -> tuple[str, Evidence] | None:
    """A process by the name of an engine's that the kernel killed for the whole node, and when; and what says so."""
    for event in events or ():
        named = _VICTIM.search(event.message) if event.reason == "SystemOOM" else None
        if named and event.name == pod.spec.node_name and close(event.last, ending):
            return f"{named['name']} at that time", event_evidence(event, pod.cluster)
        told_of = told(event, ending.container)
        if told_of and told_of.whole_node and close(event.last, ending):
            return f"{told_of.process} at that time", event_evidence(event, pod.cluster)
    for kill in _unowned(ending, hardware, engine):
        if _ENGINES.match(kill.process) and hardware:
            return f"{kill.process} {_at_that_time(kill)}", hardware.kernel.evidence(kill.line)
    return None


def _unowned(ending: Ending, hardware: Hardware | None, engine: Engine | None) -> list[OutOfMemory]:
    """What the kernel killed for the whole node as an instance ended, where its log does not say whose it was; the engines' first."""
    found = [
        kill
        for kill in (hardware.kernel.kills if hardware else ())
        if kill.whole_node and not kill.pod_uid and not kill.container_id and not kill.cgroup.startswith(_OF_THE_NODE)
        if _then(kill, ending) or (hardware and not kill.time and _by_name(kill, ending, hardware, engine))
    ]
    return sorted(found, key=lambda kill: not _ENGINES.match(kill.process))


def _then(kill: OutOfMemory, ending: Ending) -> bool:
    """Whether the kernel killed a process as an instance ended."""
    if not close(kill.time, ending) or not kill.time or not ending.finished or kill.time > ending.finished + _SLACK:
        return False
    return not ending.started or kill.time >= ending.started - _SLACK


def _by_name(kill: OutOfMemory, ending: Ending, hardware: Hardware, engine: Engine | None) -> bool:
    """Whether a process that the kernel killed at a time that its log does not say is one of this engine's, which no limit holds.

    Lines that count the seconds since the boot tell what is older than the end of the instance.
    """
    if engine is None or ending.container.limit("memory") or not _ENGINES.match(kill.process):
        return False
    ago = ending.container.pod.cluster.seconds_since(ending.finished)
    if ago is not None and hardware.kernel.seconds_to_end(kill.line) > ago + _SLACK.total_seconds():
        return False
    return (_LLAMA.match(kill.process) is not None) == (engine.name in _OF_LLAMA)


def _at_that_time(kill: OutOfMemory) -> str:
    return "at that time" if kill.time else "at a time that its log does not say"


def _evicted(message: str) -> str:
    """What the kubelet did for lack of memory, by the two texts of its eviction manager; empty for another lack.

    It evicts what runs, and refuses a pod without requests while the node has the condition.
    """
    if "low on resource: memory" in message:
        return "evicted"
    return "refused" if re.search(r"The node had condition: \[[^\]]*MemoryPressure", message) else ""


def _beyond(pod: Pod, node: Node | None, hardware: Hardware | None, metrics: Metrics | None) -> Iterator[Finding]:
    """A server that has taken far more than it requests, and for long: the first to go when the node runs short."""
    asked = requests_of(pod.obj, placed=True).get("memory", 0)
    if not pod.ready or not asked or (pod.spec.priority or 0) >= _CRITICAL:
        return
    for container in pod.containers:
        own = _own(container, hardware, metrics) if container.role == "main" else None
        if own is None or own[0] - asked < _BEYOND_BYTES:
            continue
        taken, said, proof = own
        short = _short(node, metrics)
        # where the node is short now whoever is above its request goes first, by however much
        if own[0] < _TIMES * asked and not short:
            continue
        fills = _fills(container, metrics) if short else None
        request = container.spec.resources.requests.get("memory")
        text = f"Container {container.name} {said}; the pod requests {say_bytes(asked)}"
        if node and (capacity := node.capacity("memory")) and not pod.spec.resources.requests:
            adjustment = min(max(1000 - 1000 * (container.request("memory") or 0) // capacity, 3), 999)
            text += f", so that its oom_score_adj is {adjustment} of 1000"
        if short:
            text += f". {pod.spec.node_name} is short of memory: {short[0]}. Pods above their requests go first"
        if fills:
            text += f". It grew by {say_bytes(fills.rss.slope * 3600)} an hour: at that pace none is left in {say_seconds(fills.left)}"
        yield Finding(
            role="risk" if short else "note",
            summary=f"{text}.",
            evidence=(
                proof,
                pod_evidence(container, "resources.requests.memory", "none" if request is None else str(request)),
                *((fills.rss.evidence(say_bytes),) if fills else ()),
                *((short[1],) if short else ()),
                *_given_away(pod, node),
            ),
            fixes=(*((_again_in_time(pod, fills),) if fills else ()), *_requests(container, taken, node)),
        )
        return


class _Fills(msgspec.Struct, frozen=True):
    """How the memory of a container without a limit grows, and in how many seconds the node has none left."""

    rss: Span
    left: float


def _fills(container: Container, metrics: Metrics | None) -> _Fills | None:
    """A container that keeps growing, with no limit but what the node has left."""
    rss, available = metrics.span("memory_rss") if metrics else None, metrics.node_available if metrics else None
    if rss is None or available is None or container.memory_limit or rss.seconds < _GROWING_SECONDS:
        return None
    thirds = [rss.third(n) for n in range(3)]
    if not thirds[0] < thirds[1] < thirds[2] or rss.slope <= 0:
        return None
    left = available.last / rss.slope
    return _Fills(rss, left) if left < _SOON_SECONDS else None


def _again_in_time(pod: Pod, fills: _Fills) -> Fix:
    """What frees the memory before the node takes it, and who else may be hit."""
    return fixes.advice(
        f"Restart {pod.name} within {say_seconds(fills.left)}, at a time of your own and after another one is ready: it gives back "
        "what it has gathered. Then find what keeps it (a cache, a leak of the release), and give it a memory limit in "
        f"{fixes.edited(pod)}{fixes.lone(pod)}",
        f"kubectl -n {pod.namespace} delete pod {pod.name}",
    )


def _requests(container: Container, taken: int, node: Node | None) -> Iterator[Fix]:
    """The request that covers what it takes, where a node of that kind has so much."""
    there = node.allocatable("memory") if node else None
    if there is None or taken * 11 // 10 <= there:
        yield _request(container, taken)


def _own(container: Container, hardware: Hardware | None, metrics: Metrics | None) -> tuple[int, str, Evidence] | None:
    """Bytes that a container holds and the kernel cannot take back, in words, and what says so; None if not known.

    Of a series the least of the last ten minutes. The agent's reading is a single one: it counts of a container that is
    past its start.
    """
    of_it = metrics is not None and metrics.container is not None and metrics.container.name == container.name
    rss = metrics.span("memory_rss") if metrics and of_it else None
    if rss is not None:
        recent = rss.tail(_LASTING_SECONDS)
        least = int(min(recent.values))
        said = f"has held {say_bytes(least)} of host memory or more for {say_seconds(recent.seconds)}, page cache not counted"
        return (least, said, recent.evidence(say_bytes)) if recent.seconds >= 0.9 * _LASTING_SECONDS else None
    use = hardware.use_of(container) if hardware else None
    ran = container.pod.cluster.seconds_since(container.started)
    if use is None or hardware is None or use.memory.anon_bytes is None or ran is None or ran < _LASTING_SECONDS:
        return None
    held = use.memory.anon_bytes + (use.memory.shmem_bytes or 0)
    quoted = f"anonBytes: {use.memory.anon_bytes}, shmemBytes: {use.memory.shmem_bytes or 0}"
    said = f"holds {say_bytes(held)} of host memory, page cache not counted"
    return held, said, hardware.use_evidence(use, "memory", quoted)


def _short(node: Node | None, metrics: Metrics | None) -> tuple[str, Evidence] | None:
    """That the node is short of memory now, and what says so."""
    if node and (condition := node.condition("MemoryPressure", "True")):
        return "the kubelet reports pressure", node_evidence(node, f"MemoryPressure: {condition.message}")
    total, available = node.capacity("memory") if node else None, metrics.node_available if metrics else None
    if not total or available is None:
        return None
    recent = available.tail(_LASTING_SECONDS)
    if recent.seconds < 0.9 * _LASTING_SECONDS or max(recent.values) >= _SHORT * total:
        return None
    return f"{say_bytes(recent.last)} of {say_bytes(total)} are available", recent.evidence(say_bytes)


def _given_away(pod: Pod, node: Node | None) -> Iterator[Evidence]:
    """What the scheduler takes for free on the node, where all pods were read."""
    usage, allocatable = usage_of(pod.cluster), node.allocatable("memory") if node else None
    if node and pod.cluster.complete_on(node.name) and allocatable:
        asked = usage.used(node.name).get("memory", 0)
        yield node_evidence(node, f"its pods request {say_bytes(asked)} of {say_bytes(allocatable)} of memory")


def _request(container: Container, taken: int) -> Fix:
    """The request that covers what it takes, a tenth more; no more than its limit, which would be refused."""
    wanted = -(-taken * 11 // (10 * GIB))
    limit = container.limit("memory")
    value = f"{wanted}Gi" if limit is None or wanted * GIB <= limit else str(container.spec.resources.limits["memory"])
    summary = f"Request the memory that {container.name} takes: {value}"
    return fixes.set_resource(container, "requests", "memory", value, summary)


def _kernel(ending: Ending, hardware: Hardware) -> tuple[str, str, Evidence] | None:
    """The kernel's own line: it killed a process of this pod, and no cgroup was full."""
    for kill in hardware.kills(ending, whole_node=True):
        held = f" with {say_bytes(kill.anon + kill.shmem)} in memory" if kill.anon + kill.shmem else ""
        own = f"the kernel killed {kill.process}{held}, with no limit reached"
        return "certain", own, hardware.kernel.evidence(kill.line)
    return None


def _proof(
    pod: Pod, ending: Ending, events: Events | None, hardware: Hardware | None, node: Node | None, engine: Engine | None
) -> tuple[str, str, Evidence] | None:
    """What shows that the node, not the container's limit, was full: confidence, why, evidence."""
    if hardware and next(hardware.kills(ending, whole_node=False), None) is not None:
        return None  # the kernel says that it was the limit
    kills = [
        event
        for event in events or ()
        if event.reason == "SystemOOM" and event.name == pod.spec.node_name and close(event.last, ending)
    ]
    if kills and not _kept_to_the_last(pod, ending):
        # the node's other processes are killed beside the engine's
        named = next((event for event in kills if _VICTIM.search(event.message)), kills[0])
        return "likely", "a system OOM at that time", event_evidence(named, pod.cluster)
    for event in events or () if not ending.oom_killed else ():
        kill = told(event, ending.container)
        if kill and events and kill.whole_node and killed_then(event, ending, events):
            return "likely", f"the kernel killed {kill.process} at that time", event_evidence(event, pod.cluster)
    unowned = _unowned(ending, hardware, engine)
    if hardware and unowned and not ended_by_probe(ending, events):
        killed = unowned[0]
        return (
            "likely",
            f"the kernel killed {killed.process} for it {_at_that_time(killed)}",
            hardware.kernel.evidence(killed.line),
        )
    if low := _exhausted(pod, ending, events, node):
        return low
    if node and (condition := node.condition("MemoryPressure", "True")):
        return (
            "likely",
            "the node is under memory pressure",
            node_evidence(node, f"MemoryPressure: {condition.message}"),
        )
    return None


def _kept_to_the_last(pod: Pod, ending: Ending) -> bool:
    """Whether the kernel takes a container last when the node is full: its pod is guaranteed all that it may take.

    The kubelet gives its processes an `oom_score_adj` of -997. It tells of a kill in a cgroup of a node in a container (kind,
    k3d), too, as of one of the system.
    """
    guaranteed = all(
        one.limit(name) and one.request(name) in (None, one.limit(name))
        for one in pod.containers
        for name in ("cpu", "memory")
    )
    return ending.oom_killed and bool(ending.container.limit("memory")) and guaranteed


def _exhausted(pod: Pod, ending: Ending, events: Events | None, node: Node | None) -> tuple[str, str, Evidence] | None:
    """Node-exporter's available memory at the time of the kill."""
    total = units(node.obj.status.capacity.get("memory")) if node else None
    if not total or ending.oom_killed or ended_by_probe(ending, events):
        return None  # who ended it is known
    for sample in pod.cluster.snapshot.metrics:
        exporter = pod.cluster.item("Pod", sample.namespace, sample.pod)
        same = sample.node == pod.spec.node_name or (
            exporter is not None and exporter.raw.get("spec", {}).get("nodeName") == pod.spec.node_name
        )
        found = _AVAILABLE.search(sample.text)
        if found and same and close(parse_time(sample.taken_at), ending, seconds=180):
            available = float(found["bytes"])
            if available < total * _EXHAUSTED:
                why = f"{say_bytes(available)} of {say_bytes(total)} were available when it was killed"
                return "likely", why, Evidence(source="metric", ref=sample.pod or pod.spec.node_name, text=found[0])
    return None


def _held(text: str) -> int:
    """What a process had in memory when the kernel killed it, by its line."""
    return sum(int(found) * 1024 for found in _RESIDENT.findall(text))


def _of_eviction(pod: Pod) -> tuple[Container | None, int]:
    """The container of the pod that the kubelet says used most, and how much."""
    told = [(units(found["size"]) or 0, pod.container(found["name"])) for found in _USED.finditer(pod.status.message)]
    size, container = max(told, key=lambda one: one[0], default=(0, None))
    return container, size


def _low_request(user: Container) -> Fix | None:
    """A request far below what a container may take: the scheduler gives the rest away."""
    asked, limit = user.request("memory") or 0, user.limit("memory")
    if not asked or (limit is not None and asked * 10 >= limit * 9):
        return None
    may = f"may take {say_bytes(limit)}" if limit is not None else "has no limit"
    return fixes.advice(
        f"Request the memory that {user.name} really uses (resources.requests.memory in {fixes.edited(user.pod)}): it requests "
        f"{say_bytes(asked)} and {may}, so that the scheduler gives the rest to others",
        f"kubectl -n {user.pod.namespace} top pod {user.pod.name} --containers",
    )


def _fixes(pod: Pod, user: Container | None = None, taken: int = 0) -> Iterator[Fix]:
    """`user` was seen to take so much: what it requests is to cover that, where it is less."""
    if user is not None and taken > max(user.request("memory") or 0, GIB):
        yield _request(user, taken)
    for container in pod.containers if not taken else ():
        if container.role == "main" and not container.request("memory"):
            yield fixes.advice(
                f"Request the memory that {container.name} uses (resources.requests.memory in {fixes.edited(pod)}): it requests none"
            )
            break
    else:
        if user is not None and not taken and (low := _low_request(user)):
            yield low
    yield fixes.platform(
        f"Find what uses the memory of {pod.spec.node_name or 'the node'}",
        f"kubectl describe node {pod.spec.node_name}" if pod.spec.node_name else "kubectl top node",
    )
