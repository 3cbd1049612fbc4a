"""Which GPU a container has or would get, as far as labels, the node agent, logs or the pod's own demands say so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from kubectl_llmdoctor.catalog import gpus
from kubectl_llmdoctor.catalog.gpus import Gpu
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.accelerator import Accelerator, shares_of
from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.constraints import mismatches, tolerated
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.logs import Line, Logs
from kubectl_llmdoctor.facts.node_hardware import node_hardware
from kubectl_llmdoctor.facts.nodes import GKE_GPU, GPU_PRODUCT, MACHINE, Node, Nodes
from kubectl_llmdoctor.facts.units import GIB, MIB
from kubectl_llmdoctor.facts.unknown import NOT_APPLICABLE, NotApplicable, Unknown

#: Labels that name the GPU of a node, the most precise first. Sources: NVIDIA and AMD device labellers, GKE, Karpenter.
_NAMES = (
    GPU_PRODUCT, GKE_GPU, "karpenter.k8s.aws/instance-gpu-name",
    "eks.amazonaws.com/instance-gpu-name", "amd.com/gpu.product-name", "beta.amd.com/gpu.product-name",
)  # fmt: skip
_MEMORY = {
    GPU_PRODUCT: "nvidia.com/gpu.memory",
    "karpenter.k8s.aws/instance-gpu-name": "karpenter.k8s.aws/instance-gpu-memory",
    "eks.amazonaws.com/instance-gpu-name": "eks.amazonaws.com/instance-gpu-memory",
}
#: How far two statements of one GPU's memory may lie apart: by the driver's version, by error correction.
_DRIVER, _ALIKE = 0.03, 0.08


def gpu_of(container: Container, logs: Logs, nodes: Nodes) -> Accelerator | Unknown | NotApplicable:
    """The GPU of a container; unknown where nothing says it or what says it differs.

    `logs` are those of its pod. The node's labels come first, then the agent's report, the engine's log, and for a pod
    without a node what its selectors demand, or what all nodes that could run it have. What a log says of the memory in
    total wins over a table: sharing shims show a container less than the device has.
    """
    pod = container.pod
    asks = bool(container.accelerators or container.spec.resources.claims)
    found: Accelerator | Unknown | None = None
    if pod.spec.node_name:
        node = nodes.get(pod.spec.node_name)
        if node is not None and (asks or not container.pod.log_only):
            found = of_node(node, container)
        found = found or _of_agent(pod.spec.node_name, pod.cluster)
    said = _of_log(container, logs)
    if isinstance(found, Accelerator):
        if said and said.gpu.measured and abs(said.gpu.memory - found.gpu.memory) > 0.03 * found.gpu.memory:
            gpu = msgspec.structs.replace(found.gpu, memory=said.gpu.memory)
            return msgspec.structs.replace(said, gpu=gpu, shared=found.shared, sharing=found.sharing)
        return found
    if said:
        return said
    if found is None and not pod.spec.node_name and asks:
        found = _of_demands(container) or _of_nodes(container, nodes)
    if found is not None:
        return found
    if not asks:
        return NOT_APPLICABLE
    return Unknown(f"nothing says which GPU container {container.name} has")


# -- nodes ------------------------------------------------------------------------------------------------------------


def of_node(node: Node, container: Container | None) -> Accelerator | None:
    """The GPU of a node by its labels; with a container that asks for a MIG profile, that slice of it."""
    labels = node.labels
    found = _of_labels(labels)
    if found is None:
        return None
    gpu, text = found
    profile = _profile(container) or labels.get("cloud.google.com/gke-gpu-partition-size", "")
    if profile and not gpu.profile:
        size = labels.get(f"nvidia.com/mig-{profile}.memory", "")
        cut = gpus.mig(gpu, profile)
        if size.isdigit():
            gpu = msgspec.structs.replace(
                gpu, name=f"{gpu.name} MIG {profile}", memory=int(size) * MIB, reported=int(size), profile=profile
            )
        elif cut:
            gpu = cut
        else:
            return None
        text = f"{text}, MIG {profile}"
    shared, sharing = _sharing(labels, container)
    return Accelerator(gpu=gpu, source="label", ref=f"Node/{node.name}", text=text, shared=shared, sharing=sharing)


def _of_labels(labels: Mapping[str, str]) -> tuple[Gpu, str] | None:
    for key in _NAMES:
        name = labels.get(key)
        if not name:
            continue
        reported = _integer(labels.get(_MEMORY.get(key, "")))
        text = f"{key}={name}"
        gpu = _product(name, reported)
        compute = _compute(labels)
        if gpu is None and reported and key == GPU_PRODUCT:
            gpu = _unlisted(name, reported, compute)
            text += f", nvidia.com/gpu.memory={reported}"
        if gpu is not None:
            return (msgspec.structs.replace(gpu, compute=compute) if compute and gpu.vendor == "nvidia" else gpu), text
    machine = labels.get(MACHINE, "")
    gpu = gpus.by_instance(machine) if machine else None
    return (gpu, f"{MACHINE}={machine}") if gpu else None


def _product(name: str, reported: int | None) -> Gpu | None:
    """The GPU of this name, unless what is said of its memory shows that it is none of the table's.

    Error correction in GDDR memory takes a sixteenth of it, and can be switched on and off.
    """
    gpu = gpus.by_product(name, reported)
    if gpu is None or not reported:
        return gpu
    more = reported - gpu.reported
    if abs(more) > _ALIKE * gpu.reported:
        return None
    if abs(more) < _DRIVER * gpu.reported:
        return gpu
    return msgspec.structs.replace(gpu, memory=gpu.memory + more * MIB, reported=reported)


def _unlisted(name: str, reported: int, compute: tuple[int, int] | None) -> Gpu:
    """A GPU that the table lacks, by what its node says; its memory is the upper bound."""
    return Gpu(
        name=name.replace("-", " ").removeprefix("NVIDIA "),
        memory=reported * MIB,
        reported=reported,
        compute=compute,
        measured=False,
        profile=gpus.profile_of(name),
        fp8=(compute or (0, 0)) >= (8, 9),
    )


def _compute(labels: Mapping[str, str]) -> tuple[int, int] | None:
    major = _integer(labels.get("nvidia.com/gpu.compute.major"))
    minor = _integer(labels.get("nvidia.com/gpu.compute.minor"))
    return None if major is None or minor is None else (major, minor)


def _profile(container: Container | None) -> str:
    """The MIG profile that a container asks for by resource name (strategy `mixed`)."""
    for resource in container.accelerators if container else ():
        if resource.startswith("nvidia.com/mig-"):
            return resource.removeprefix("nvidia.com/mig-")
    return ""


def _sharing(labels: Mapping[str, str], container: Container | None) -> tuple[int, str]:
    strategy = labels.get("nvidia.com/gpu.sharing-strategy") or labels.get("cloud.google.com/gke-gpu-sharing-strategy")
    shared = shares_of(labels)
    named = any(resource.endswith(".shared") for resource in (container.accelerators if container else ()))
    if shared > 1 or named:
        return max(shared, 2), strategy if strategy and strategy != "none" else "time-slicing"
    return 1, ""


def _integer(text: Any) -> int | None:
    return int(text) if isinstance(text, str) and text.isdecimal() and len(text) < 8 else None


def _of_agent(name: str, cluster: Cluster) -> Accelerator | Unknown | None:
    """The GPU of a node as its agent reports it, where all of its devices are alike."""
    hardware = node_hardware(cluster, name)
    found: dict[str, Gpu] = {}
    for device in hardware.devices if hardware and hardware.agent else ():
        if device.lost and not device.name:
            continue
        if not device.name or device.mig_enabled:
            return None
        size = device.memory_total_bytes or 0
        reported = size // MIB if size > 0 else None
        gpu = _product(device.name, reported) or (_unlisted(device.name, reported, None) if reported else None)
        if gpu is None:
            return None
        found[device.name] = gpu
    if len(found) > 1:
        return Unknown(f"node {name} has several kinds of GPU: {', '.join(sorted(found))}")
    for product, gpu in found.items():
        return Accelerator(gpu=gpu, source="agent", ref=f"Node/{name} agent gpus", text=product)
    return None


# -- logs -------------------------------------------------------------------------------------------------------------

# llama.cpp (ggml_cuda_init), Ollama ("inference compute"), vLLM's worker, PyTorch's CUDA out of memory.
_LLAMA = expression(
    r"Device \d+: (?P<name>.{1,100}?), compute capability (?P<cc>\d{1,3}\.\d{1,3})(?:.{0,100}VRAM: (?P<mib>\d{1,9}) MiB)?"
)


def _then(field: str, value: str) -> str:
    """A field of a line in logfmt, after what other ones stand before it."""
    return rf'(?>(?: (?!{field})\w{{1,40}}=(?:"[^"]{{0,400}}"|[^\s"]{{0,400}})){{0,30}}) {field}{value}'


_OLLAMA = expression(
    'msg="inference compute"'
    + _then("library=", r"(?P<library>\w+)")
    + _then("compute=", r"(?P<cc>[\d.]{1,9})")
    + _then('(?:description|name)="', '(?P<name>[^"]+)"')
    + _then('total="', r'(?P<gib>\d{1,9}(?:\.\d+)?) GiB"')
)
_TOTALS = (
    (
        "Free memory on device",
        expression(r"Free memory on device(?: [\w:]+)? \([\d.]+/(?P<gib>\d{1,9}(?:\.\d+)?) GiB\)"),
    ),
    ("total_gpu_memory", expression(r"total_gpu_memory[ =]\(?(?P<gib>\d{1,9}(?:\.\d+)?) ?GiB")),
    ("has a total capacity of", expression(r"has a total capacity of (?P<gib>\d{1,9}(?:\.\d+)?) GiB")),
)
# vLLM's config, PyTorch's warning for a GPU without kernels.
_STATED = (
    (
        "GPU has compute capability",
        expression(r"Your (?P<name>.{1,100}?) GPU has compute capability (?P<cc>\d{1,3}\.\d{1,3})"),
    ),
    (
        "is not compatible with the current PyTorch",
        expression(
            r"(?P<name>(?:NVIDIA|Tesla|Quadro|GeForce)[\w ()-]{1,80}?) with CUDA capability sm_(?P<sm>\d{1,4}) is"
        ),
    ),
)


#: All that is looked for.
LITERALS = ("compute capability ", "inference compute", *(text for text, _ in (*_STATED, *_TOTALS)))


def _of_log(container: Container, logs: Logs) -> Accelerator | None:
    """What the engine's log says of its devices: name, compute capability, memory in total."""
    named: Accelerator | None = None
    total: Accelerator | None = None
    for line, gpu, has_name in _said(container, logs):
        said = Accelerator(gpu=gpu, source="log", ref=line.log.place, text=line.text.strip(), line=line)
        if has_name and named is None:
            named = said
        if gpu.measured and total is None:
            total = said
    if named and total and not named.gpu.measured:
        gpu = msgspec.structs.replace(named.gpu, memory=total.gpu.memory, measured=True)
        return msgspec.structs.replace(total, gpu=gpu)
    return named or total


def _said(container: Container, logs: Logs) -> Iterator[tuple[Line, Gpu, bool]]:
    """What the logs say of the GPU: the line, what it is by that line, and whether it is named there."""
    for log in logs.all if container.pod.log_only else logs.of(container.name):
        names: set[str] = set()
        for literal, pattern in (("compute capability ", _LLAMA), ("inference compute", _OLLAMA), *_STATED):
            for line in log.find(literal):
                match = pattern.search(line.text)
                if match and (gpu := _stated(match.groupdict())):
                    names.add(gpu.name)
                    if len(names) > 1:  # devices of several kinds: which of them runs the model is not said
                        return
                    yield line, gpu, True
        for literal, pattern in _TOTALS:
            for line in log.find(literal):
                match = pattern.search(line.text)
                if match:
                    size = float(match["gib"])
                    gpu = Gpu(name=f"GPU of {size:g} GiB", memory=int(size * GIB), reported=int(size * 1024))
                    yield line, gpu, False
                    break


def _stated(said: Mapping[str, str | None]) -> Gpu | None:
    name = said.get("name") or ""
    sm, cc = said.get("sm"), said.get("cc")
    text = f"{sm[:-1]}.{sm[-1]}" if sm else cc or ""
    major, _, minor = text.partition(".")
    compute = (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else None
    mib = said.get("mib")
    gib = said.get("gib")
    size = int(mib) * MIB if mib else int(float(gib) * GIB) if gib else 0
    gpu = gpus.by_product(name, size // MIB or None)
    if gpu is None:
        gpu = _unlisted(name, size // MIB, compute) if size or compute else None
    if gpu is None:
        return None
    if (said.get("library") or "").lower() == "rocm":
        compute = None
    changes: dict[str, Any] = {"measured": bool(size)}
    if size:
        changes["memory"] = size
    if compute and gpu.vendor == "nvidia":
        changes["compute"] = compute
    return msgspec.structs.replace(gpu, **changes)


# -- pods without a node ----------------------------------------------------------------------------------------------


def _of_demands(container: Container) -> Accelerator | Unknown | None:
    """The GPU that nodeSelector or required affinity names, where all that they allow is of one kind."""
    pod = container.pod
    demanded: list[tuple[str, str, tuple[str, ...]]] = [
        ("nodeSelector", key, (str(value),)) for key, value in pod.spec.node_selector.items()
    ]
    terms = pod.spec.node_terms
    for index, key in enumerate((*_NAMES, MACHINE)):
        listed = [r for t in terms for r in t.match_expressions if r.key == key and r.operator == "In"]
        if listed and len(listed) == len(terms):
            values = tuple(str(v) for r in listed for v in r.values)
            demanded.append(("affinity.nodeAffinity", key, values))
        for path, name, values in demanded:
            if name != key or not values:
                continue
            named = [gpus.by_instance(v) if index == len(_NAMES) else gpus.by_product(v) for v in values]
            kinds = {gpu.name: gpu for gpu in named if gpu}
            if None in named:
                continue
            if len(kinds) > 1:
                return Unknown(f"the pod may run on several kinds of GPU: {', '.join(sorted(kinds))}")
            gpu = next(iter(kinds.values()))
            profile = _profile(container)
            cut = gpus.mig(gpu, profile) if profile and not gpu.profile else gpu
            if cut:
                text = f"{key}: {', '.join(values)}"
                return Accelerator(gpu=cut, source="selector", ref=f"{pod.spec_path}.{path}", text=text)
    return None


def _of_nodes(container: Container, nodes: Nodes) -> Accelerator | Unknown | None:
    """The GPU of all nodes that could run the pod, where they are alike and no other node exists."""
    if not nodes.complete or not container.accelerators:
        return None
    spec = container.pod.spec
    found: dict[str, Accelerator] = {}
    for node in nodes:
        if not all(node.offers(resource) for resource in container.accelerators):
            continue
        hard = [t for t in node.taints if t.effect in ("NoSchedule", "NoExecute")]
        if mismatches(spec, node.name, node.labels) or not all(tolerated(t, spec.tolerations) for t in hard):
            continue
        of = of_node(node, container)
        if of is None:
            return None
        found.setdefault(of.gpu.name, of)
    if len(found) > 1:
        return Unknown(f"the nodes that could run it have several kinds of GPU: {', '.join(sorted(found))}")
    for of in found.values():
        return msgspec.structs.replace(of, source="nodes")
    return None
