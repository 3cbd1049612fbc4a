"""A limit of host memory: where it stands, and what raises it."""

import shlex
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    GIB,
    MIB,
    PART_OF,
    RAY_CLUSTER,
    Container,
    Engine,
    Evidence,
    Fix,
    Item,
    Subject,
    dig,
    expression,
    fixes,
    pod_evidence,
    rows,
    say_bytes,
    table,
    units,
)
from llmdoctor_checks.memory._pinned import Excess, excess

#: What a server takes beside the weights: a share for buffers, and its cache.
_WITH_BUFFERS, _CACHE = 1.25, GIB

#: What the API server writes at a pod to which a LimitRange gave what it did not state (plugin/pkg/admission/limitranger).
_RANGED = "kubernetes.io/limit-ranger"

#: What is said beside a larger limit of who was well for so long that it cannot have been too little from the start.
GROWS, A_DAY = ", and find what grows", 24 * 3600

#: vLLM's connector over NIXL leaks in UCX, whose cache of registered memory frees nothing by itself (vLLM's issue 24264), until
#: vLLM 0.14 (pull requests 32181 and 32570) and later releases of NIXL (pull request 1210) set one of these.
_NIXL, _NIXL_LEAKS_NOT = "NixlConnector", "0.14.0"
_BOUNDS_UCX = ("UCX_RCACHE_MAX_UNRELEASED", "UCX_MEM_MMAP_HOOK_MODE")

#: Limits from which twice as much is a lot, and from which few nodes have more.
_LARGE, _HUGE = 128 * GIB, 512 * GIB


def stated(container: Container) -> Evidence:
    """The memory limit where it is written: at the container, else at the pod."""
    own = container.spec.resources.limits.get("memory")
    where, limit = (container, str(own)) if own is not None else (container.pod, say_bytes(container.memory_limit or 0))
    return pod_evidence(where, "resources.limits.memory", limit)


def of_settings(over: Excess, engine: Engine, limit: int, subject: Subject) -> Iterator[Fix]:
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
        yield from raised(container, limit, subject, ", or take less")


def _in_volumes(container: Container, limit: int) -> int:
    """What memory-backed volumes hold at most that alone may fill the limit, where that is stated."""
    mounted = (container.pod.volume(mount.name) for mount in container.spec.volume_mounts)
    sizes = (units(v.empty_dir.size_limit) for v in mounted if v and v.empty_dir and v.empty_dir.medium == "Memory")
    return sum(size for size in sizes if size and size >= limit)


#: The billions of parameters that the name of a model states (`Qwen3-30B-A3B`: the first of the two; `8x7B`: of each expert), and from
#: how many on its files are larger than what an initializer of 2Gi has fetched.
_BILLIONS, _MANY = expression(r"(?<![\w.])(?:(\d{1,3})x)?(\d{1,4}(?:\.\d{1,3})?)[bB](?![\w])"), 10


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


def room_for(wanted: int, container: Container, subject: Subject) -> int:
    """A limit under which a cache of this size may fill, with the rest of the server; 0 where the node is not known to have so much."""
    node = subject.nodes.get(container.pod.spec.node_name)
    there = node.allocatable("memory") if node else None
    holds = -(-wanted * 6 // 5 // GIB) * GIB
    return holds if wanted and there is not None and holds <= there else 0


def raised(
    container: Container, limit: int, subject: Subject, more: str = "", *, weights: int = 0, least: int = 0
) -> Iterator[Fix]:
    if (fix := _stated_by_operator(container, limit)) is not None:
        yield fix
        return
    pod = container.pod
    if more == GROWS:
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
    larger = max(larger, least)
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
    source = str(next(iter(container.spec.args), ""))
    large = _BILLIONS.search(source)
    # 2Gi have been too little for more than some 14 GB, 16Gi enough for 40 GB
    least = 16 if large and int(large[1] or 1) * float(large[2]) >= _MANY else 2
    change = f"from {say_bytes(limit)}, for example to {max(limit * 2 // GIB, least)}Gi"
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
