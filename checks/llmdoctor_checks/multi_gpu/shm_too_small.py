"""/dev/shm that cannot hold what several workers exchange."""

import math
import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    GIB,
    MIB,
    Container,
    Ending,
    Engine,
    Evidence,
    Finding,
    Fix,
    Hardware,
    Line,
    Logs,
    Pod,
    Shm,
    Subject,
    check,
    endings,
    expression,
    fixes,
    log_evidence,
    log_of,
    pod_evidence,
    say_bytes,
    served,
    setting_evidence,
)
from llmdoctor_checks._consequences import FAILED_START
from llmdoctor_checks.scheduling._devices import asks_for_nothing

#: What a container has without a mount there: containerd and CRI-O both hard-code it.
DEFAULT_BYTES = 64 * MIB

#: vLLM's scheduler broadcast is a ring of 10 chunks, which had 10 MiB each before 0.9.2 and have 16 since, as a variable
#: says; every worker answers through one of 10 x 24 MiB. All are sparse files.
_OLD_RING_BYTES = 100 * MIB
_CHUNK_BYTES = 16 * MIB
_WORKER_BYTES = 240 * MIB

#: From this share of its size on /dev/shm counts as full.
_FULL = 0.95


#: NCCL's code for a call to the operating system that failed, as PyTorch and pynccl pass it on, and what says which call.
_SYSTEM_ERROR, _SAYS_WHICH = ("unhandled system error", "ncclSystemError"), "NCCL WARN"

#: vLLM's words for a worker that is gone (v1/executor/multiproc_executor.py), where it does not say by which signal, and what it
#: logs of a model that takes images (v1/metrics/loggers.py, v1/worker/gpu_model_runner.py).
_WORKER_LOST = (
    "died unexpectedly, shutting down executor",
    "died unexpectedly (exit code: None), shutting down executor",
)
_TAKES_IMAGES = ("MM cache hit rate", "Encoder cache will be initialized")
_CHECKS_ITS_QUEUES = "0.32"
#: What a process prints that dies of something else, and how far above.
_SAYS_WHY = r"ERROR|Traceback|Error: |Fatal |Failed: |Segmentation fault|Caught signal|CUDA error|[Kk]illed"
_LINES_BEFORE = 80

#: What launchers print of a process of theirs that SIGBUS ended (TGI; SGLang, vLLM; torchrun, also in its table; Python's spawn).
_ENDED_BY_SIGBUS = (
    "with signal 7", "xit code: -7", "exitcode: -7", "exitcode  : -7", "Failed core proc(s): {", "with signal SIGBUS",
)  # fmt: skip
_OF_A_PROCESS = expression(
    r"(?:signaled to shutdown with signal 7|xit ?code {0,4}: -7|Failed core proc\(s\): \{.{0,300}?': -7"
    r"|terminated with signal SIGBUS)\b(?!\.\d)"
)

#: Ray (`_private/services.py`, 2.x), which then works all the same, and slowly.
_NO_SHM = "instead of /dev/shm because /dev/shm has only "
_HAS_ONLY = r"The object store is using (?P<place>/\S{1,200}) instead of /dev/shm because /dev/shm has only (?P<bytes>\d{1,15}) bytes"
#: How large Ray says that it should be, in GiB, after its own size for the store.
_SHOULD_HAVE = r"--shm-size=(?P<size>\d{1,5}(?:\.\d{1,3})?)gb"


@check(
    "shm-too-small",
    since="0.1",
    severity="critical",
    literals=(_NO_SHM, *_SYSTEM_ERROR, _SAYS_WHICH, *_WORKER_LOST, *_TAKES_IMAGES, *_ENDED_BY_SIGBUS),
)
def shm_too_small(pod: Pod, subject: Subject, hardware: Hardware | None, logs: Logs | None) -> Iterator[Finding]:
    """/dev/shm is too small for the workers of one replica.

    The processes of a multi-GPU server exchange data through /dev/shm, which is 64 MiB in a container unless
    something is mounted there. NCCL takes 9.2 MiB per connection and channel where the GPUs cannot reach each other
    directly and fails with "No space left on device" or "Error while creating shared memory segment"; vLLM, PyTorch
    and SGLang make sparse files there and die by SIGBUS (exit code 135, "Bus error") when a page does not fit, at the
    start or under load. A server whose workers only have NCCL there, and that is ready, has what it needs: that is a note.

    Without `NCCL_DEBUG` NCCL says "unhandled system error" and no more. Within one server, with the default of 64 MiB and
    no other word in the log, this is what it met. vLLM up to 0.31 says of a worker that died by SIGBUS only that it is gone: where
    the model takes images, which go to the workers through /dev/shm, this is what may have ended it. Where a launcher says that
    signal 7 ended a process of its own, and /dev/shm has the default, this is it most likely; a file of weights that is cut short
    ends a process the same way. Both are read so, too, of a program that is no known engine, in a container with several GPUs.

    ## Fix

    Mount a memory-backed volume at /dev/shm. It counts against the container's memory limit, so raise that by its size.

        volumes: [{name: dshm, emptyDir: {medium: Memory, sizeLimit: 8Gi}}]
        volumeMounts: [{name: dshm, mountPath: /dev/shm}]

    `hostIPC: true` works too, shares the node's segments with the pod, and is refused by Pod Security `baseline`.

    ## References

    - https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html#shared-memory
    - https://kubernetes.io/docs/concepts/storage/volumes/#emptydir
    """
    engines = subject.engines(pod)
    for engine in engines:
        yield from _of(pod, engine, hardware, logs)
    known = {engine.container.name for engine in engines}
    for container in pod.containers if not pod.ready else ():
        if container.name not in known and container.gpus > 1 and _tiny(container.shm):
            yield from _of_a_program(container, logs)


def _of_a_program(container: Container, logs: Logs | None) -> Iterator[Finding]:
    """SIGBUS in a container with several GPUs whose program is none that is known: a launcher of MPI, a script of somebody's own."""
    pod = container.pod
    killed = next((e for e in endings(pod) if e.container is container and e.signal == "SIGBUS"), None)
    told = None if killed else _ended_by_sigbus(pod, container, logs)
    if killed is None and told is None:
        return
    died = "It died by SIGBUS (exit code 135)" if killed else "A process in it was ended by SIGBUS (signal 7)"
    yield Finding(
        summary=f"Container {container.name} has {container.gpus} GPUs and only "
        f"{say_bytes(container.shm.size_bytes or DEFAULT_BYTES)} at /dev/shm. {died}, as by a page that does not fit there.",
        evidence=(
            *((pod_evidence(pod, killed.path, killed.text),) if killed else ()),
            *((log_evidence(told),) if told else ()),
            pod_evidence(container, "volumeMounts", _shm_of(container)),
        ),
        explains=("worker-lost", "crash-loop", "not-ready", "pod-failed"),
        fix=_mounted(container),
        order=told.order if told else None,
    )


def _of(pod: Pod, engine: Engine, hardware: Hardware | None, logs: Logs | None) -> Iterator[Finding]:
    container, workers = engine.container, engine.workers_at_least
    if engine.name == "nim" and engine.explicit("tensor_parallel_size") is None:
        workers = max(workers, container.gpus)  # it takes the profile for all GPUs that it sees
    if (container.devices or 0) > 1:
        workers = min(workers, container.devices or workers)  # of a group of pods each has some
    shm = container.shm
    # llama.cpp has nothing there: what it maps is the file of the model
    shares = engine.name not in ("llama.cpp", "ollama")
    killed = [e for e in endings(pod) if e.container is container and e.signal == "SIGBUS" and shares]
    full = _filled(container, hardware) if hardware else None
    small = shm.source == "default" or (shm.source == "memory-volume" and (shm.size_bytes or 2**60) < 512 * MIB)
    if full and not (killed and small):
        yield _full(pod, engine, full, killed, _system_error(pod, container, logs))
    elif killed and small:
        size = say_bytes(shm.size_bytes or 0)
        yield Finding(
            confidence="certain" if full else "likely",
            summary=f"{engine.label} died by SIGBUS (exit code 135), and /dev/shm holds only {size}.",
            evidence=(
                pod_evidence(pod, killed[0].path, killed[0].text),
                *([full[2]] if full else []),
                *_spec(container, engine),
            ),
            explains=(*FAILED_START, "worker-lost"),
            fix=_mounted(container),
        )
    elif _tiny(shm) and workers > 1 and _several_gpus(container) and not pod.completed:
        yield (
            _failed_call(pod, engine, workers, logs)
            or _process_ended(pod, engine, workers, logs)
            or _gone_with_images(pod, engine, workers, logs)
            or _without_volume(pod, engine, workers, hardware, logs)
        )
    elif not killed and not pod.completed:
        yield from _image_cache(engine)
        yield from _store_on_disk(container, logs)


def _failed_call(pod: Pod, engine: Engine, workers: int, logs: Logs | None) -> Finding | None:
    """NCCL's word for a failed call to the operating system, within one server that has the default of 64 MiB."""
    container = engine.container
    if pod.nodes != 1 or container.status.ready or not (line := _system_error(pod, container, logs)):
        return None
    return Finding(
        summary=f"NCCL failed in a call to the operating system, and {_risk(engine, workers)}",
        evidence=(log_evidence(line), *_spec(container, engine)),
        explains=("nccl-other", *FAILED_START, "worker-lost"),
        fixes=(
            _mounted(container),
            fixes.set_env(container, "NCCL_DEBUG", "WARN", "Have NCCL say which call it was, should it fail again"),
        ),
        order=line.order,
    )


def _process_ended(pod: Pod, engine: Engine, workers: int, logs: Logs | None) -> Finding | None:
    """A launcher's word that SIGBUS ended a process of its own, of a server that has the default of 64 MiB."""
    if pod.ready or not (line := _ended_by_sigbus(pod, engine.container, logs)):
        return None
    return Finding(
        summary=f"A process of {engine.label} was ended by SIGBUS (signal 7), as by a page that does not fit into /dev/shm: "
        f"{_risk(engine, workers)}",
        evidence=(log_evidence(line), *_spec(engine.container, engine)),
        explains=("worker-lost", "engine-dead", *FAILED_START),
        fix=_mounted(engine.container),
        order=line.order,
    )


def _gone_with_images(pod: Pod, engine: Engine, workers: int, logs: Logs | None) -> Finding | None:
    """A worker that took images and was gone, of a server that has the default of 64 MiB."""
    if pod.ready or not (line := _worker_lost(pod, engine, logs)):
        return None
    return Finding(
        confidence="possible",
        summary="A worker that took images was gone without a word while it served, as one is that a page in a full /dev/shm "
        f"ends by SIGBUS: {_risk(engine, workers)}",
        evidence=(log_evidence(line), *_spec(engine.container, engine)),
        explains=("worker-lost", "engine-dead", "crash-loop", "not-ready", "pod-failed"),
        fix=_mounted(engine.container),
        order=line.order,
    )


def _without_volume(pod: Pod, engine: Engine, workers: int, hardware: Hardware | None, logs: Logs | None) -> Finding:
    """Several workers with the default of 64 MiB, which nothing has filled yet."""
    # NCCL takes its share when it connects, before the server is ready; vLLM's queues grow with what goes through them
    apart = tuple(_apart(hardware)) if hardware else ()
    enough = pod.exists and pod.ready and not apart and not _own_queues(engine)
    return Finding(
        role="note" if enough else "risk",
        summary=_risk(engine, workers),
        evidence=(*apart, *map(log_evidence, _on_disk(engine.container, logs)), *_spec(engine.container, engine)),
        fix=_mounted(engine.container),
    )


def _mounted(container: Container) -> Fix:
    """Enough for what is usual."""
    return fixes.mount_shm(container, "8Gi", "Mount 8Gi of memory at /dev/shm")


def _system_error(pod: Pod, container: Container, logs: Logs | None) -> Line | None:
    """The line of an instance that ended in which NCCL's code stands, where NCCL itself says no word of it."""
    for ending in endings(pod) if logs else ():
        log = log_of(ending, logs) if ending.container is container else None
        # what served had connected its workers
        if log is not None and not served(log) and not log.holds(_SAYS_WHICH):
            return next(log.find(*_SYSTEM_ERROR), None)
    return None


def _ended_by_sigbus(pod: Pod, container: Container, logs: Logs | None) -> Line | None:
    """The line of an instance that ended by which its launcher tells that SIGBUS ended one of its processes."""
    for ending in endings(pod) if logs else ():
        log = log_of(ending, logs) if ending.container is container else None
        if log is not None:
            lines = log.find(*_ENDED_BY_SIGBUS)
            if told := next((line for line in lines if _OF_A_PROCESS.search(line.text[:2000])), None):
                return told
    return None


def _worker_lost(pod: Pod, engine: Engine, logs: Logs | None) -> Line | None:
    """The line by which vLLM tells that a worker is gone, in the log of an instance that had served requests with images.

    Images go to the workers through the queues, whose files fill with them; what has no more than text in it stays small.
    From 0.32 on vLLM does not start where its queues do not fit.
    """
    if not logs or not _own_queues(engine) or engine.at_least(_CHECKS_ITS_QUEUES):
        return None
    for ending in endings(pod):
        log = log_of(ending, logs) if ending.container is engine.container and not ending.signal else None
        if log is None or not served(log) or not any(next(log.find(sign), None) for sign in _TAKES_IMAGES):
            continue
        line = next(log.find(*_WORKER_LOST), None)
        before = line.above(_LINES_BEFORE) if line else ()
        return None if any(re.search(_SAYS_WHY, one.text[:500]) for one in before) else line
    return None


def _apart(hardware: Hardware) -> Iterator[Evidence]:
    """Pairs of the pod's GPUs that cannot reach each other: NCCL then exchanges through /dev/shm."""
    mine = {str(device.index) for device in hardware.mine}
    for device in hardware.mine:
        for other, why in sorted(device.no_p2p.items()):
            if other in mine:
                yield hardware.evidence(device, "noP2P", f"GPU {other}: {why}")
                return


def _filled(container: Container, hardware: Hardware) -> tuple[int, int, Evidence] | None:
    """Size and use of /dev/shm in bytes where it is full, by the node agent."""
    use = hardware.use_of(container)
    size, used = (use.shm.size_bytes, use.shm.used_bytes) if use else (None, None)
    if use is None or not size or used is None or used < _FULL * size:
        return None
    return size, used, hardware.use_evidence(use, "shm", f"shm.usedBytes: {used} of shm.sizeBytes: {size}")


def _full(
    pod: Pod, engine: Engine, full: tuple[int, int, Evidence], killed: list[Ending], failed: Line | None
) -> Finding:
    """What is full may be no fault of a server that runs: it has what it wants there; the next page kills it."""
    size, used, evidence = full
    died = [pod_evidence(pod, killed[0].path, killed[0].text)] if killed else []
    died += [log_evidence(failed)] if failed else []
    wanted = f"{max(8, -(-2 * size // GIB))}Gi"
    then = "; the next page that is written there ends a process by SIGBUS"
    if died:
        then = ", and it died by SIGBUS (exit code 135)" if killed else ", and NCCL failed in a call to the system"
        then += ". A container that is restarted keeps what is in it"
    return Finding(
        role="cause" if died else "risk",
        confidence="certain" if killed else "likely",
        summary=f"/dev/shm of {engine.container.name} is full: {say_bytes(used)} of {say_bytes(size)} are used{then}.",
        evidence=(*died, evidence, *_spec(engine.container, engine)),
        explains=(*FAILED_START, "worker-lost", "nccl-other") if died else (),
        fix=fixes.mount_shm(engine.container, wanted, f"Mount {wanted} of memory at /dev/shm"),
        order=failed.order if failed else None,
    )


def _tiny(shm: Shm) -> bool:
    """Whether it is the default, or a volume that is no larger."""
    mounted = shm.source == "memory-volume" and shm.size_bytes is not None and shm.size_bytes <= DEFAULT_BYTES
    return shm.source == "default" or mounted


def _image_cache(engine: Engine) -> Iterator[Finding]:
    """vLLM's cache of prepared images, which lies in /dev/shm where it is told to, whatever the number of GPUs."""
    asked = engine.explicit("mm_processor_cache_type")
    size = engine.value("mm_processor_cache_gb", 4)  # the default since the option came, 0.10.2
    shm = engine.container.shm
    if engine.name != "vllm" or asked is None or asked.value != "shm" or not isinstance(size, int | float):
        return
    if shm.source not in ("default", "memory-volume") or shm.size_bytes is None or shm.size_bytes >= size * GIB:
        return
    mount = f"{int(size) + 4}Gi"
    yield Finding(
        role="risk",
        summary=f"{engine.label} keeps a cache of {size:g} GiB for images in /dev/shm, which holds {say_bytes(shm.size_bytes)}: "
        "a page that does not fit kills it by SIGBUS.",
        evidence=(setting_evidence(engine.container, asked), *_spec(engine.container, engine)),
        fix=fixes.mount_shm(engine.container, mount, f"Mount {mount} of memory at /dev/shm"),
    )


def _on_disk(container: Container, logs: Logs | None) -> list[Line]:
    """Ray's word that its object store is no memory, in the log of the instance that runs; the last one."""
    log = container.own_log(logs)
    return [x for x in log.find(_NO_SHM) if re.search(_HAS_ONLY, x.text[:2000])][-1:] if log is not None else []


def _store_on_disk(container: Container, logs: Logs | None) -> Iterator[Finding]:
    """Ray's object store, which went to a disk since /dev/shm has no room for it: slow, and it fills the node's disk."""
    for line in _on_disk(container, logs):
        found = re.search(_HAS_ONLY, line.text[:2000])
        if found is None:
            return
        wanted = re.search(_SHOULD_HAVE, line.text[:2000])
        size = f"{max(8, math.ceil(float(wanted['size'])) if wanted else 0)}Gi"
        yield Finding(
            role="note",
            confidence="certain",
            summary=f"Ray keeps its objects in {found['place']} of {container.name} and not in /dev/shm, which has "
            f"{say_bytes(int(found['bytes']))}: what its processes hand each other goes through files.",
            evidence=(log_evidence(line), pod_evidence(container, "volumeMounts", _shm_of(container))),
            fix=fixes.mount_shm(
                container,
                size,
                f"Mount {size} of memory at /dev/shm, or let Ray keep less (--object-store-memory of ray start)",
            ),
        )


def _several_gpus(container: Container) -> bool:
    """Whether it has more than one GPU with a process each, or some through claims."""
    if container.one_process:
        return False
    if not (container.pod.exists or container.pod.lent or container.pod.log_only) and asks_for_nothing(container):
        return True  # the GPUs are missing too, and those who add them have this before them
    return container.gpus > 1 or bool(container.spec.resources.claims or container.pod.spec.resource_claims)


def _own_queues(engine: Engine) -> bool:
    """Whether its workers get their work through files in /dev/shm."""
    return engine.name == "vllm" and engine.value("distributed_executor_backend") != "ray"


def _risk(engine: Engine, workers: int) -> str:
    shm = engine.container.shm
    size = "64 MiB, the default" if shm.source == "default" else say_bytes(shm.size_bytes or 0)
    text = f"{workers} workers of {engine.label} share a /dev/shm of {size}."
    if _own_queues(engine):
        need = _queues(engine, workers)
        return f"{text} Its message queues alone are files of {say_bytes(need)} there: who writes more than fits is killed (SIGBUS)."
    return f"{text} Where the GPUs have no peer access, NCCL needs 9.2 MiB there per connection and channel."


def _queues(engine: Engine, workers: int) -> int:
    """The size of vLLM's message queues: of an older version, and of one that is not known, what it has at the least."""
    if engine.at_least("0.9.2") is not True:
        return _OLD_RING_BYTES
    chunk = engine.container.env.get("VLLM_MQ_MAX_CHUNK_BYTES_MB")
    stated = int(chunk.value) * MIB if chunk and chunk.value and chunk.value.isdecimal() else _CHUNK_BYTES
    return 10 * stated + workers * _WORKER_BYTES


def _spec(container: Container, engine: Engine) -> tuple[Evidence, ...]:
    stated = filter(None, map(engine.explicit, ("tensor_parallel_size", "pipeline_parallel_size")))
    shm = pod_evidence(container, "volumeMounts", _shm_of(container))
    return (*(setting_evidence(container, setting) for setting in stated), shm)


def _shm_of(container: Container) -> str:
    """What lies at /dev/shm, in words."""
    return "nothing at /dev/shm" if container.shm.source == "default" else f"/dev/shm from {container.shm.volume}"
