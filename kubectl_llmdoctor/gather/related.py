"""What a pod leads to by its own words: claims, ConfigMaps, Secrets, logs; how broken it is; whether it serves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.platforms import labels
from kubectl_llmdoctor.platforms.labels import RAY_CLUSTER
from kubectl_llmdoctor.snapshot import Json
from kubectl_llmdoctor.tree import table

#: ConfigMaps that the platform puts into every namespace: authorities, no engine's configuration.
_PLATFORM_CONFIG = frozenset({"kube-root-ca.crt", "openshift-service-ca.crt", "istio-ca-root-cert"})

_GPU_RESOURCE = expression(
    r"[^/]+/(?:gpu|vgpu|mig-|pgpu|gpumem|sgpu|i915|xe|accel|gaudi|tpu|neuron|npu|mlu|dcu|gcu|xpu|Ascend|\w*_nps)",
    re.IGNORECASE,
)

#: Volumes from before CSI, which the driver of the cloud attaches by now.
_DISKS = ("awsElasticBlockStore", "gcePersistentDisk", "azureDisk", "cinder")

#: A resource that is a DeviceClass by its name.
_OF_CLASS = "deviceclass.resource.kubernetes.io/"

#: `image: vllm/vllm-openai:v0.9.1`, `command: [python3, -m, sglang.launch_server]`, `ollama serve`
_SERVER_WORDS = expression(
    r"vllm|sglang|text-generation|tritonserver|tensorrt|trtllm|nvcr\.io/nim/|/nim[:/-]|llama[._-]?(?:cpp|server)|"
    r"ollama|lmdeploy|huggingfaceserver|llm-d|mlc[-_]llm|aphrodite|text-embeddings|ktransformers|xinference|"
    r"local-?ai\b|openvino/model_server",
    re.IGNORECASE,
)


def meta(obj: Json) -> Json:
    """The metadata of an object."""
    return table(obj.get("metadata"))


def name_of(obj: Json) -> str:
    """The name of an object."""
    return str(meta(obj).get("name") or "")


def namespace_of(obj: Json) -> str:
    """The namespace of an object; empty for one that has none."""
    return str(meta(obj).get("namespace") or "")


def key_of(obj: Json) -> tuple[str, str]:
    """The namespace and the name of an object."""
    return namespace_of(obj), name_of(obj)


def labels_of(obj: Json) -> Json:
    """The labels of an object."""
    return meta(obj).get("labels") or {}


def _spec(pod: Json) -> Json:
    return table(pod.get("spec"))


def _status(pod: Json) -> Json:
    return table(pod.get("status"))


def containers(pod: Json) -> list[Json]:
    """Init containers, then the others."""
    return [*(_spec(pod).get("initContainers") or ()), *(_spec(pod).get("containers") or ())]


def claims(pod: Json) -> list[str]:
    """Names of its PersistentVolumeClaims; a generic ephemeral volume's is `<pod>-<volume>`."""
    found = []
    for volume in _spec(pod).get("volumes") or ():
        if volume.get("persistentVolumeClaim"):
            found.append(str(volume["persistentVolumeClaim"].get("claimName") or ""))
        elif volume.get("ephemeral"):
            found.append(f"{name_of(pod)}-{volume.get('name')}")
    return _names(found)


def attaches_disks(pod: Json) -> bool:
    """Whether it names disks of a cloud itself, without a claim."""
    return any(volume.get(kind) for volume in _spec(pod).get("volumes") or () for kind in _DISKS)


def config_maps(pod: Json) -> list[str]:
    """Names of the ConfigMaps that it mounts or takes variables from, without the platform's own."""
    return [name for name in _references(pod, "configMap", "configMapKeyRef", "name") if name not in _PLATFORM_CONFIG]


def secrets(pod: Json) -> list[str]:
    """Names of the Secrets that it mounts, takes variables from or pulls images with."""
    pull = [str(ref.get("name") or "") for ref in _spec(pod).get("imagePullSecrets") or ()]
    return _names([*_references(pod, "secret", "secretKeyRef", "secretName"), *pull])


def _references(pod: Json, volume_kind: str, key_ref: str, name_key: str) -> list[str]:
    def found() -> Iterator[Any]:
        for volume in _spec(pod).get("volumes") or ():
            yield (volume.get(volume_kind) or {}).get(name_key)
            for source in (volume.get("projected") or {}).get("sources") or ():
                yield (source.get(volume_kind) or {}).get("name")
        for container in containers(pod):
            for variable in container.get("env") or ():
                yield ((variable.get("valueFrom") or {}).get(key_ref) or {}).get("name")
            for source in container.get("envFrom") or ():
                yield (source.get(f"{volume_kind}Ref") or {}).get("name")

    return _names(found())


def _names(found: Iterable[Any]) -> list[str]:
    return sorted({name for name in found if isinstance(name, str) and name})


def resource_claims(pod: Json) -> tuple[list[str], list[str]]:
    """Names of its ResourceClaims (also those made for it) and of the templates."""
    rows = _spec(pod).get("resourceClaims") or ()
    made = [row.get("resourceClaimName") for row in _status(pod).get("resourceClaimStatuses") or ()]
    return (
        _names([*(row.get("resourceClaimName") for row in rows), *made]),
        _names(row.get("resourceClaimTemplateName") for row in rows),
    )


def is_unscheduled(pod: Json) -> bool:
    """Whether it has no node yet and the scheduler may look for one."""
    spec = _spec(pod)
    return not spec.get("nodeName") and _status(pod).get("phase", "Pending") == "Pending"


def waits_for_a_head(pod: Json) -> bool:
    """Whether it is one of a Ray cluster whose init container runs still."""
    begun = (status.get("state") or {} for status in _status(pod).get("initContainerStatuses") or ())
    return RAY_CLUSTER in labels_of(pod) and any("running" in state for state in begun)


def is_gated_by_kueue(pod: Json) -> bool:
    """Whether the scheduler may not look at it before Kueue takes its gate away."""
    return any(str(gate.get("name")).startswith("kueue.x-k8s.io/") for gate in _spec(pod).get("schedulingGates") or ())


def group_key(pod: Json) -> tuple[str, ...]:
    """What all pods share that live and die with this one; empty for a pod that stands alone."""
    return labels.group_key(namespace_of(pod), labels_of(pod))


class LogRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One log to read: `restart` is the restart count of the instance that wrote it."""

    container: str
    previous: bool
    restart: int
    #: the current log holds the same lines where the previous one is not to be had
    else_current: bool = False


def log_requests(pod: Json) -> Iterator[LogRequest]:
    """The logs that exist: none of a container that never started, a previous one only after an end."""
    status = _status(pod)
    for row in (
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
        *(status.get("ephemeralContainerStatuses") or ()),
    ):
        name, restarts = str(row.get("name") or ""), int(row.get("restartCount") or 0)
        state, last = row.get("state") or {}, row.get("lastState") or {}
        ended = bool(last.get("terminated"))
        waits = "running" not in state and "terminated" not in state
        if waits and ended:
            # Between two starts the kubelet answers both questions with the log of the instance that ended last.
            yield LogRequest(container=name, previous=True, restart=restarts, else_current=True)
        elif not waits:
            if ended:
                yield LogRequest(container=name, previous=True, restart=max(restarts - 1, 0))
            yield LogRequest(container=name, previous=False, restart=restarts)


def brokenness(pod: Json) -> tuple[int, int]:
    """How broken a pod is by its status, then its restarts: (0, 0) is fine, more is worse."""
    status = _status(pod)
    rows = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    restarts = sum(int(row.get("restartCount") or 0) for row in rows)
    if status.get("phase") == "Succeeded":
        return 0, 0
    if status.get("phase") == "Failed" or any(_is_failing(row) for row in rows):
        return 4, restarts
    if status.get("phase", "Pending") == "Pending":
        return 3, restarts
    if not all(row.get("ready") for row in status.get("containerStatuses") or ()):
        return 2, restarts
    return (1 if restarts else 0), restarts


def _is_failing(row: Json) -> bool:
    state = row.get("state") or {}
    waiting = (state.get("waiting") or {}).get("reason") or ""
    ended = state.get("terminated") or {}
    return waiting not in ("", "ContainerCreating", "PodInitializing") or bool(ended.get("exitCode"))


def urgency(pod: Json) -> tuple[int, int, str, str]:
    """Sorts pods by what needs explaining most, then by name."""
    state, restarts = brokenness(pod)
    return -state, -restarts, namespace_of(pod), name_of(pod)


def most_broken_first(pods: Iterable[Json]) -> list[Json]:
    """Sorted by what needs explaining most, then by name."""
    return sorted(pods, key=urgency)


def is_gpu(resource: str) -> bool:
    """Whether a resource is a GPU or another accelerator."""
    return bool(_GPU_RESOURCE.match(resource))


def asks_for_gpu(resources: Json | None) -> bool:
    """Whether requests or limits name a GPU or another accelerator."""
    tables = [(resources or {}).get(key) or {} for key in ("requests", "limits")]
    return any(is_gpu(name) for table in tables for name in table)


def has_gpu(pod: Json) -> bool:
    """Whether a pod asks for a GPU, as a resource or by a claim that may be for one."""
    return any(asks_for_gpu(c.get("resources")) for c in containers(pod)) or bool(_spec(pod).get("resourceClaims"))


def asks_for_devices(resources: Json | None) -> bool:
    """Whether requests or limits name anything that a device plugin or a DeviceClass would serve."""
    tables = [(resources or {}).get(key) or {} for key in ("requests", "limits")]
    names = [name for table in tables for name in table if "/" in name]
    return any(not name.partition("/")[0].endswith("kubernetes.io") or name.startswith(_OF_CLASS) for name in names)


def selects_namespaces(pod: Json) -> bool:
    """Whether its required affinity to pods means those of namespaces with certain labels."""
    affinity = _spec(pod).get("affinity") or {}
    sides = [affinity.get(side) or {} for side in ("podAffinity", "podAntiAffinity")]
    terms = [term for side in sides for term in side.get("requiredDuringSchedulingIgnoredDuringExecution") or ()]
    return any(term.get("namespaceSelector") for term in terms)


_DNS_PORT = 53


def names_dns_servers(policy: Json) -> bool:
    """Whether it is a NetworkPolicy that lets pods ask for names at certain addresses."""
    rules = _spec(policy).get("egress") or () if policy.get("kind") == "NetworkPolicy" else ()
    asking = (rule for rule in rules if any(port.get("port") == _DNS_PORT for port in rule.get("ports") or ()))
    return any(peer.get("ipBlock") for rule in asking for peer in rule.get("to") or ())


#: How images and DaemonSets are called that offer devices or discover them: GPUs, EFA, RDMA, SR-IOV.
_DEVICE_DAEMONS = expression(
    r"device-?plugin|intel-[gn]pu-plugin|rdma-shared-d|kubelet-?plugin|node-feature-discovery|nfd-"
)


def is_device_plugin(pod: Json) -> bool:
    """Whether it is one of those that tell the kubelet about its node's GPUs."""
    return bool(re.search(r"device-plugin|kubelet-?plugin", name_of(pod)))


def brings_devices(daemons: Json) -> bool:
    """Whether a DaemonSet is of those plugins, or finds and labels the nodes that they go to."""
    template = (_spec(daemons).get("template") or {}).get("spec") or {}
    words = (name_of(daemons), *(str(c.get("image")) for c in template.get("containers") or ()))
    return any(_DEVICE_DAEMONS.search(word) for word in words)


def comes_before_plugins(pod: Json) -> bool:
    """Whether it brings the driver, or the container toolkit, for which a GPU operator's device plugin waits."""
    return bool(re.search(r"driver-daemonset|container-toolkit-daemonset", name_of(pod)))


def looks_like_server(*words: str | None) -> bool:
    """Whether an image, a command or an argument belongs to an inference server."""
    return any(_SERVER_WORDS.search(word) for word in words if word)
