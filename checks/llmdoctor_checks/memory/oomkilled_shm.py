"""Memory-backed volumes that count against the memory limit."""

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
    Item,
    OutOfMemory,
    Pod,
    Subject,
    check,
    endings,
    expression,
    fixes,
    k8s,
    object_evidence,
    pod_evidence,
    say_bytes,
    units,
)
from llmdoctor_checks.memory._killed import CONSEQUENCES

#: Absolute paths in the words of a command, or of a script.
_PLACES = r"(?<![\w./:-])/[\w./-]+"

#: Programs of native code whose threads share their memory anyway.
_NO_SHM = frozenset({"ollama", "llama.cpp"})

#: How Ray is told of its object store, by an option or a variable.
_STORE = expression(r"(?i)object[-_]store[-_](?:max[-_])?memory")

#: Where models are kept by default in the images of engines that run as root.
_CACHES = ("/root/.cache/huggingface/hub", "/root/.ollama/models")


@check("oomkilled-shm", since="0.1")
def oomkilled_shm(pod: Pod, subject: Subject, hardware: Hardware | None) -> Iterator[Finding]:
    """A memory-backed volume filled the container's memory limit.

    Files in an emptyDir with `medium: Memory` (usually /dev/shm) are charged to the container that wrote them, stay
    charged when that process ends, and outlive a restart of the container. A `sizeLimit` above the memory limit is
    cut to it without a word, and without a `sizeLimit` the volume may fill the whole limit. The kernel then kills the
    container although its processes use little.

    ## Fix

    Give the volume a `sizeLimit` that the limit can spare, and raise the limit by that much:

        volumes: [{name: dshm, emptyDir: {medium: Memory, sizeLimit: 8Gi}}]

    Left-over files are removed by deleting the pod, not by restarting the container.

    ## References

    - https://kubernetes.io/docs/concepts/storage/volumes/#emptydir
    """
    if not pod.failing and not pod.lent:
        for container in pod.containers:
            yield from _risk(container, subject)
    for ending in endings(pod):
        container = ending.container
        limit = container.memory_limit
        if limit is None:
            continue
        volumes = list(_memory_volumes(container))
        whole = [size for _, _, size in volumes if size is None or size * 2 >= limit]
        killed = _by_kernel(ending, hardware) if hardware and volumes else None
        # a worker that is killed need not take the container's first process with it
        if not ending.oom_killed and not (killed and whole):
            continue
        used = _used(container, hardware) if hardware else None
        evidence = [pod_evidence(pod, ending.path, ending.text)]
        evidence += [pod_evidence(pod, f"volumes[{name}].emptyDir", text) for name, text, _ in volumes]
        if hardware and killed:
            summary = (
                f"{say_bytes(killed.shmem)} of the limit of {say_bytes(limit)} were shared memory, "
                f"{say_bytes(killed.anon)} were the process."
            )
            evidence.append(hardware.kernel.evidence(killed.line))
        elif used and used[0] * 2 >= limit:
            summary = f"{say_bytes(used[0])} {used[1]}, of a limit of {say_bytes(limit)}."
            evidence.append(used[2])
        elif whole:
            yield _not_measured(container, limit, whole[0], evidence)
            continue
        else:
            continue
        yield Finding(
            confidence="certain" if killed or (used and used[1].startswith("lie")) else "likely",
            summary=f"Container {container.name} was killed at its memory limit by a volume: {summary}",
            evidence=tuple(evidence),
            explains=("oomkilled-host", *CONSEQUENCES),
            fixes=tuple(_fixes(container, subject, volumes, limit, killed.shmem if killed else used[0] if used else 0)),
        )


def _not_measured(container: Container, limit: int, size: int | None, evidence: list[Evidence]) -> Finding:
    """A volume that may have filled the limit, where nothing says how much lay in it but what the container keeps there."""
    largest = "all" if size is None or size >= limit else say_bytes(size)
    stored = _stored(container, limit) or _cached(container, limit) or _fetched(container, limit)
    if stored is None:
        return Finding(
            confidence="possible",
            summary=f"Memory-backed volumes may take {largest} of the limit of {say_bytes(limit)}; how much they held is not known.",
            evidence=tuple(evidence),
            explains=("crash-loop", "not-ready"),
        )
    place, told = stored
    return Finding(
        summary=f"Container {container.name} was killed at its memory limit of {say_bytes(limit)}, and keeps its files in "
        f"memory: {place} is a memory-backed volume that may take {largest} of the limit.",
        evidence=(*evidence, told),
        explains=("oomkilled-host", *CONSEQUENCES),
        fix=_moved(container, place),
    )


def _moved(container: Container, place: str) -> Fix:
    """How files come to a disk; what processes exchange in /dev/shm stays in memory."""
    pod, mount = container.pod, container.mount_over(place)
    if place.startswith("/dev/shm"):
        elsewhere = "mount an emptyDir without medium, or a PVC, at another path, and name that where the settings name /dev/shm"
        return fixes.advice(f"Keep the files of {place} on a disk: {elsewhere}, in {fixes.edited(pod)}")
    text = f"Keep the files of {place} on a disk: take medium: Memory off the emptyDir that is mounted there"
    lender = _lender(pod, mount.name) if mount else None
    if mount is None or lender is not None:
        return fixes.advice(f"{text}, in {f'{lender.kind}/{lender.name}' if lender else fixes.edited(pod)}")
    return fixes.patch(pod, text, [{"op": "remove", "path": f"{_empty_dir(pod, mount.name)}/medium"}])


def _empty_dir(pod: Pod, name: str) -> str:
    index = next(i for i, volume in enumerate(pod.spec.volumes) if volume.name == name)
    return f"/volumes/{index}/emptyDir"


def _risk(container: Container, subject: Subject) -> Iterator[Finding]:
    """A volume that may take the whole limit, to which the kubelet cuts it: the kernel kills before it is full."""
    alone = _alone(container, subject)
    limit, pod = container.limit("memory"), container.pod
    for name, text, size in _memory_volumes(container):
        if _only_shm(container, name) and _keeps_objects(container, subject):
            continue
        if limit and size and size > limit and (pod.exists or _stated(pod, name)):
            yield Finding(
                role="risk",
                confidence="possible" if alone and _only_shm(container, name) else "likely",
                summary=f"Volume {name} has a sizeLimit of {say_bytes(size)}, and counts against the memory limit of "
                f"{say_bytes(limit)} of container {container.name}: filling it gets the container killed.",
                evidence=(
                    _volume_evidence(pod, name, text),
                    pod_evidence(container, "resources.limits.memory", str(container.spec.resources.limits["memory"])),
                ),
                fix=_shrink(pod, name, limit)
                if "/dev/shm" in (places := _places(container, name))
                else _moved(container, places[0]),
            )


def _alone(container: Container, subject: Subject) -> bool:
    """Whether the server computes in one process, or keeps nothing in shared memory, so that hardly anything comes to lie there."""
    engines = [engine for engine in subject.engines(container.pod) if engine.container is container]
    return bool(engines) and all(engine.name in _NO_SHM or engine.workers == 1 for engine in engines)


def _keeps_objects(container: Container, subject: Subject) -> bool:
    """Whether Ray's object store alone lies in /dev/shm: it takes a third of the memory that the container may have, unless it is told."""
    words = " ".join((*container.launch.command, *container.launch.args))
    told = _STORE.search(words) or any(
        _STORE.search(f"{name} {one.value or ''}") for name, one in container.env.items()
    )
    computes = container.accelerators or subject.engine_of(container)
    return "ray start" in words and not told and not computes


def _only_shm(container: Container, name: str) -> bool:
    return _places(container, name) == ["/dev/shm"]


def _places(container: Container, name: str) -> list[str]:
    """Where the container mounts a volume."""
    return [mount.mount_path.rstrip("/") for mount in container.spec.volume_mounts if mount.name == name]


def _stated(pod: Pod, name: str) -> bool:
    """Whether an object says the volume's size, and not its operator, which gives every container one of its own."""
    template = pod.template
    return template is None or name in template.borrowed or template.states(f"{_empty_dir(pod, name)}/sizeLimit")


def _lender(pod: Pod, name: str) -> Item | None:
    """The runtime that states the volume."""
    lent = pod.template.borrowed.get(name) if pod.template else None
    return pod.cluster.item(*lent) if lent else None


def _volume_evidence(pod: Pod, name: str, text: str) -> Evidence:
    path, lender = f"volumes[{name}].emptyDir", _lender(pod, name)
    return object_evidence(lender, f"spec.{path}", text) if lender else pod_evidence(pod, path, text)


def _shrink(pod: Pod, name: str, limit: int) -> Fix:
    """A quarter of the limit, in whole GiB where there are any: what a server exchanges there is seldom more."""
    size = f"{limit // 4 // GIB}Gi" if limit >= 4 * GIB else f"{limit // 4 // MIB}Mi"
    summary = (
        f"Give {name} a sizeLimit of {size}, a quarter of the memory limit; or raise the limit by what it should hold"
    )
    lender = _lender(pod, name)
    if lender is not None:
        return fixes.advice(f"{summary} (the volume is {lender.kind}/{lender.name}'s)")
    return fixes.set_spec(pod, f"{_empty_dir(pod, name)}/sizeLimit", size, summary)


def _memory_volumes(container: Container) -> Iterator[tuple[str, str, int | None]]:
    """Memory-backed volumes that the container mounts: name, what the spec says, size in bytes."""
    for mount in container.spec.volume_mounts:
        volume = container.pod.volume(mount.name)
        if volume and volume.empty_dir and volume.empty_dir.medium == "Memory":
            size = volume.empty_dir.size_limit
            yield volume.name, f"medium: Memory, sizeLimit: {size if size is not None else 'none'}", units(size)


def _stored(container: Container, limit: int) -> tuple[str, Evidence] | None:
    """A path in a memory-backed volume that the container is told to keep its model or cache in."""
    words = [*container.launch.command, *container.launch.args]
    values = [(word.rpartition("=")[2], "args") for word in words]
    values += [(var.value or "", f"env[{var.name}]") for var in container.env.values()]
    for value, path in values:
        mount = _in_memory(container, value, limit) if value.startswith("/") else None
        if mount is not None and value.rstrip("/") != mount.mount_path.rstrip("/"):
            return mount.mount_path, pod_evidence(container, path, value)
    return None


def _in_memory(container: Container, place: str, limit: int) -> k8s.VolumeMount | None:
    """The mount of a memory-backed volume that a path lies in, and that may take half of the memory limit or more."""
    mount = container.mount_over(place)
    volume = container.pod.volume(mount.name) if mount else None
    if volume is None or volume.empty_dir is None or volume.empty_dir.medium != "Memory":
        return None
    size = units(volume.empty_dir.size_limit)
    return mount if size is None or size * 2 >= limit else None


def _cached(container: Container, limit: int) -> tuple[str, Evidence] | None:
    """The same of the place where the Hub's client and Ollama keep models unless they are told another."""
    told = {"HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE", "XDG_CACHE_HOME", "OLLAMA_MODELS"}
    if told & set(container.env):
        return None
    for place in _CACHES:
        if (mount := _in_memory(container, place, limit)) is not None:
            return mount.mount_path, pod_evidence(container, f"volumeMounts[{mount.name}]", mount.mount_path)
    return None


def _fetched(container: Container, limit: int) -> tuple[str, Evidence] | None:
    """A memory-backed volume that a container which runs no server is told to write: one that fetches a model into it.

    The server of a pod may be told of the same volume and only read what is in it, which costs it nothing.
    """
    if container.role != "init":
        return None
    for path, words in (("command", container.launch.command), ("args", container.launch.args)):
        for word in words:
            for place in re.findall(_PLACES, word):
                if (mount := _in_memory(container, place, limit)) is not None:
                    return mount.mount_path, pod_evidence(container, path, word)
    return None


def _by_kernel(ending: Ending, hardware: Hardware) -> OutOfMemory | None:
    """The kernel's line about a process of the instance whose shared memory outweighs its own."""
    return next((kill for kill in hardware.kills(ending, whole_node=False) if kill.shmem > kill.anon), None)


def _used(container: Container, hardware: Hardware) -> tuple[int, str, Evidence] | None:
    """How much lies in /dev/shm, which outlives the instance, or is shared memory of the instance that runs: bytes, words, proof."""
    use = hardware.use_of(container)
    if use is None:
        return None
    used, shared = use.shm.used_bytes, use.memory.shmem_bytes
    if used is not None:
        words = f"lie in /dev/shm of {container.name}"
        return used, words, hardware.use_evidence(use, "shm", f"shm.usedBytes: {used}")
    if shared is not None:
        words = f"of the memory of {container.name}, as it runs now, are shared"
        return shared, words, hardware.use_evidence(use, "memory", f"memory.shmemBytes: {shared}")
    return None


def _fixes(
    container: Container, subject: Subject, volumes: list[tuple[str, str, int | None]], limit: int, held: int
) -> Iterator[Fix]:
    """Less that lies there, where an option says how much; room for it beside what the processes have; a size of it below that."""
    pod, names = container.pod, [name for name, _, _ in volumes]
    there = ", ".join(names) or "the volume"
    engine, offloaded = _offloaded(container, subject)
    whole = 0
    # it is the region that fills the volume: of hybrid models twice what is told
    if engine and offloaded // 2 <= held <= 4 * offloaded:
        whole = 2 * offloaded if held > offloaded else offloaded
        share = min(limit // 4, offloaded // 2)
        less = str(share // GIB) if share >= GIB else f"{share / GIB:.1g}"
        text = (
            f"Offload less: lower --kv-offloading-size of {container.name} from {offloaded / GIB:g} to {less} (GiB), since the region lies "
            f"in {there} and counts against its memory limit, with hybrid models up to twice the size"
        )
        yield fixes.set_flag(engine, "kv_offloading_size", "--kv-offloading-size", less, text)
    size = max(-(-held * 5 // (4 * GIB)), 1, whole // GIB)
    larger = -(-(limit + max(held, whole)) // (8 * GIB)) * 8
    text = f"Raise the memory limit of {container.name} from {say_bytes(limit)} to {larger}Gi, and give {there} a sizeLimit of {size}Gi"
    if len(names) == 1 and _lender(pod, names[0]) is None and container.limit("memory"):
        operations = [
            {"op": "add", "path": f"{container.pointer}/resources/limits/memory", "value": f"{larger}Gi"},
            {"op": "add", "path": f"{_empty_dir(pod, names[0])}/sizeLimit", "value": f"{size}Gi"},
        ]
        yield fixes.patch(pod, text, operations)
        return
    yield fixes.advice(
        f"{text}, in {fixes.edited(pod)}; then delete the pod, which empties the volume{fixes.lone(pod)}",
        f"kubectl -n {pod.namespace} delete pod {pod.name}",
    )


def _offloaded(container: Container, subject: Subject) -> tuple[Engine | None, int]:
    """How large the region shall be to which vLLM offloads KV caches, which is a file in /dev/shm, and the engine that is told so."""
    for engine in subject.engines(container.pod):
        told = engine.explicit("kv_offloading_size") if engine.container is container else None
        if told and isinstance(told.value, int | float) and not isinstance(told.value, bool):
            return engine, int(told.value * GIB)
    return None, 0
