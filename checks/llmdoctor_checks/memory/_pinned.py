"""Host memory that an engine's settings take for certain, and workers that ended without a word of their own."""

import re
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import (
    GIB,
    Engine,
    Evidence,
    Fix,
    Line,
    Log,
    Sizing,
    expression,
    fixes,
    pod_evidence,
    say_bytes,
    setting_evidence,
)
from llmdoctor_checks.memory._prompt_cache import Greed

#: Engines whose workers are Python processes with PyTorch and a CUDA context, and the least that one of them takes.
PYTHON = frozenset({"vllm", "sglang", "huggingfaceserver"})
_WORKER_BYTES = 3 * GIB // 2

#: Settings by which an engine pins host memory at its start, each for every GPU, and the bytes of one.
_PINNED = {
    "vllm": (("swap_space", "swap space", GIB), ("cpu_offload_gb", "CPU offload", GIB)),
    "sglang": (("cpu_offload_gb", "CPU offload", GIB), ("hicache_size_gb", "hierarchical cache", 10**9)),
}

#: PyTorch pins memory in powers of two (`CachingHostAllocator`), which vLLM's offload of weights asks for tensor by tensor: 1.9 times as
#: much as --cpu-offload-gb says was measured.
_OF_TENSORS, _ROUNDED = ("cpu_offload_gb",), 2

#: What launchers print of a process that SIGKILL ended (torchrun's table, DeepSpeed, gunicorn before 21 and since, uWSGI); the container's
#: first process lives on then, or ends with an error.
_KILLED = (
    "xit code: -9", "exitcode: -9", "': -9", "exitcode  : -9 ", " exits with return code = -9", " was terminated due to signal 9",
    "was sent SIGKILL! Perhaps out of memory?", ") died, killed by signal 9 :(",
)  # fmt: skip

#: How Triton says that a process of its Python backend (`stub_launcher.cc`, `python_be.cc`) is gone.
STUB = "Stub process '"

#: The same of vLLM before it said by what, and where it does not know yet, and of TorchServe and Triton, which never do.
_GONE = (
    "died unexpectedly, shutting down", "died unexpectedly (exit code: None), shutting down",
    " interrupted or backend worker process died.", STUB,
)  # fmt: skip

DIED = (*_KILLED, *_GONE)

#: By which a process tells why it ends (of its own fault, or as it was told to), and so was not killed; before that line, or, of a
#: signal, beside it.
_OF_ITSELF = expression(r"\b[A-Z]\w{1,60}(?:Error|Exception)\b: |WorkerProc (?:hit an exception|failed|was terminated)")
_BY_A_SIGNAL = expression(
    r"Segfault encountered|Fatal Python error|Segmentation fault|\bSIG(?:SEGV|ABRT|BUS|ILL)\b|\bterminate called |"
    r"Signal \((?:4|6|7|8|11)\) received|\b(?:free|malloc|realloc|munmap_chunk)\(\): |\bdouble free or corruption"
)
_NEAR = 200

#: What gunicorn and uWSGI print before they kill a worker themselves, which gave no sign of life or took too long for a request; their next
#: word of that one follows within so many lines.
_BY_ITS_MASTER, _NEXT = ("WORKER TIMEOUT (pid:", "HARAKIRI ON WORKER "), 20

#: What makes each of it less, and what to heed then. Only of swap space nothing at all is a value that changes nothing else: SGLang takes
#: --hicache-size 0 for --hicache-ratio, LMCache's other stores want some of it, and without offload the weights need another place.
_FLAGS = {
    "swap_space": ("--swap-space", ""),
    "cpu_offload_gb": ("--cpu-offload-gb", "; the GPUs then hold as much more of the weights"),
    "kv_offloading_size": ("--kv-offloading-size", ""),
    "hicache_size_gb": ("--hicache-size", "; SGLang refuses one that is no larger than the cache on the GPU"),
}
_NONE_AT_ALL = ("swap_space",)


class Use(msgspec.Struct, frozen=True):
    """One thing that takes host memory: bytes, words, where it is said, the setting or variable for each worker, and its unit."""

    size: int
    text: str
    evidence: Evidence | None = None
    setting: str = ""
    workers: int = 1
    unit: int = GIB


class Excess(msgspec.Struct, frozen=True):
    """Settings that take more host memory than there is: how much, in words, where it is said, and what makes it less."""

    needed: int
    text: str
    evidence: tuple[Evidence, ...]
    fixes: tuple[Fix, ...]


def excess(engine: Engine, sizing: Sizing, room: int) -> Excess | None:
    """Where what an engine surely takes of host memory is more than a limit or a node has; None where it fits, or nothing is set."""
    uses = [*uses_of(engine, sizing), *cached(engine)]
    needed = sum(use.size for use in uses)
    if engine.name not in PYTHON or needed <= room:
        return None
    text = f"{engine.label} takes {say_bytes(needed)} of host memory or more ({', '.join(use.text for use in uses)})"
    most = max(uses, key=lambda use: use.size)
    said = tuple(use.evidence for use in uses if use.evidence)
    return Excess(needed, text, said, tuple(_less(engine, most, room, needed - most.size)))


def greed(engine: Engine, sizing: Sizing, room: int) -> Greed | None:
    """The setting that may take half of what there is or more, and the half of that which it may take instead."""
    uses = [use for use in (*uses_of(engine, sizing), *cached(engine)) if use.setting and use.evidence]
    most = max(uses, key=lambda use: use.size, default=None)
    rounded = _ROUNDED if most is not None and most.setting in _OF_TENSORS and engine.name == "vllm" else 1
    if most is None or most.evidence is None or most.size * rounded * 2 < room:
        return None
    less = next(_less(engine, most, room * 5 // 9 // rounded, 0), None)
    again = ", and up to twice that, as memory is pinned in powers of two" if rounded > 1 else ""
    return Greed(f" {engine.label} takes {most.text}{again}.", most.evidence, less) if less is not None else None


def _less(engine: Engine, use: Use, room: int, rest: int) -> Iterator[Fix]:
    """So much less of a setting for each worker that all fits with a tenth to spare; none where so little is no setting."""
    each = max(room * 9 // 10 - rest, 0) // use.workers // use.unit
    if not use.setting or (each < 1 and use.setting not in _NONE_AT_ALL):
        return
    for_each = f", which counts for each of the {use.workers} ranks," if use.workers > 1 else ""
    flag, heed = _FLAGS.get(use.setting, (use.setting, ""))
    summary = f"Lower {flag}{for_each} to {each} {'GiB' if use.unit == GIB else 'GB'}{heed}"
    if use.setting in _FLAGS:
        yield fixes.set_flag(engine, use.setting, flag, str(each), summary)
    else:
        yield fixes.set_env(engine.container, use.setting, str(each), summary)


def died(log: Log | None) -> Line | None:
    """The first word of a process of the engine that was killed, or that ended unsaid by what."""
    if log is None:
        return None
    killed = next((line for line in log.find(*_KILLED) if not _by_its_master(line)), None)
    return killed or next((line for line in log.find(*_GONE) if not _told_why(line)), None)


def _by_its_master(line: Line) -> bool:
    """Whether a worker was killed by the process that had started it."""
    before = [x.text for x in line.log.lines(line.number - _NEXT, line.number)]
    return any(mark in text for text in before for mark in _BY_ITS_MASTER)


def _told_why(line: Line) -> bool:
    """Whether the log has another reason for the end of a process than that it was killed."""
    near = list(line.log.lines(line.number - _NEAR, line.number + _NEAR))
    before = (x for x in near if x.number < line.number)
    return any(_OF_ITSELF.search(x.text[:2000]) for x in before) or any(
        _BY_A_SIGNAL.search(x.text[:2000]) for x in near
    )


def uses_of(engine: Engine, sizing: Sizing) -> Iterator[Use]:
    """What surely takes host memory."""
    workers = _here(engine)
    if workers is None:
        return
    yield Use(int(workers * _WORKER_BYTES), f"{workers} x 1.5 GiB for the {'workers' if workers > 1 else 'worker'}")
    for name, words, unit in _PINNED.get(engine.name, ()):
        setting = engine.explicit(name)
        if setting and isinstance(setting.value, int | float) and setting.value > 0 and not _idle(engine, name):
            size = int(setting.value * workers * unit)
            if name == "cpu_offload_gb" and sizing.file_bytes:
                size = min(size, sizing.file_bytes)  # it takes as much of the weights at the most
            said = setting_evidence(engine.container, setting)
            yield Use(size, f"{say_bytes(size)} of {words}", said, name, workers, unit)
    cache = engine.explicit("kv_offloading_size") if engine.name == "vllm" and engine.pod.nodes == 1 else None
    if (
        cache
        and isinstance(cache.value, int | float)
        and cache.value > 0
        and engine.value("kv_offloading_backend", "native") == "native"
    ):
        size = int(cache.value * GIB)  # of all ranks together
        said = setting_evidence(engine.container, cache)
        yield Use(size, f"{say_bytes(size)} of the KV cache in host memory", said, "kv_offloading_size")
    model = engine.explicit("model")
    if engine.name == "vllm" and _on_cpu(engine) and sizing.file_bytes and model:
        text = f"{say_bytes(sizing.file_bytes)} of weights"
        yield Use(sizing.file_bytes, text, setting_evidence(engine.container, model))


def _idle(engine: Engine, name: str) -> bool:
    """Whether a setting is accepted and nothing allocated: swap space by vLLM's V1 engine, the cache's size where SGLang has none."""
    if name == "swap_space":
        return engine.at_least("0.8.0") is not False and engine.value("use_v1") is not False
    return name == "hicache_size_gb" and not any(
        engine.value(x) for x in ("enable_hierarchical_cache", "enable_hicache")
    )


def cached(engine: Engine) -> Iterator[Use]:
    """LMCache's cache in host memory, which each rank has for itself (lmcache/v1/config.py, local_cpu_backend.py).

    It is taken at the start unless told to grow, and by a server of its own where the connector is the one for several processes; a file
    of settings may say something else than the variables. Newer releases take no more than what the node has free then. So it tells why a
    rank died, and alone foretells nothing.
    """
    env, workers = engine.container.env, _here(engine)
    connectors = _CONNECTOR.findall(str(engine.value("kv_transfer_config")))
    if not connectors or workers is None or "LMCACHE_CONFIG_FILE" in env:
        return
    said = {name: env[name].value or "" for name in _LMCACHE if name in env}
    if said.get("LMCACHE_LOCAL_CPU", "true").lower() not in ("true", "1"):
        return
    if said.get("LMCACHE_ENABLE_LAZY_MEMORY_ALLOCATOR", "false").lower() in ("true", "1"):
        return
    size = said.get(_SIZE, "")
    if re.fullmatch(r"\d{1,6}(?:\.\d{1,6})?", size) and float(size):
        whole = int(float(size) * workers * GIB)
        text = f"{say_bytes(whole)} of LMCache's cache ({float(size):g} GiB for each of {workers} ranks)"
        yield Use(whole, text, pod_evidence(engine.container, f"env[{_SIZE}]", size), _SIZE, workers)


_CONNECTOR = expression(r"\bLMCache(?!MP)\w{0,40}Connector")
_SIZE = "LMCACHE_MAX_LOCAL_CPU_SIZE"
_LMCACHE = ("LMCACHE_LOCAL_CPU", "LMCACHE_ENABLE_LAZY_MEMORY_ALLOCATOR", _SIZE)


def _here(engine: Engine) -> int | None:
    """How many workers this container has, at the least."""
    return engine.workers if engine.pod.nodes == 1 else 1


def _on_cpu(engine: Engine) -> bool:
    """Whether the image is vLLM's build for CPUs."""
    name = engine.container.spec.image.partition("@")[0].rpartition("/")[2]
    return re.search(r"(?:^|[-_:])cpu(?:$|[-_:])", name) is not None and not engine.container.gpus
