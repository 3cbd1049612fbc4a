"""The fixes of a signature as they hold for one case: texts filled in, patches made, commands that can be run now.

A command stays only where the cluster would take it: the API server refuses most changes of a bare pod and of a Job's
template, and nothing can be run in a container that does not run.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal

import msgspec

from kubectl_llmdoctor.brought import brings, edits, field, gives
from kubectl_llmdoctor.engines.names import OPTIONS, option
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts import model_store
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.destinations import logs_of
from kubectl_llmdoctor.facts.driver import branch_for, branch_of, image_cuda, say_cuda
from kubectl_llmdoctor.facts.endings import last_round
from kubectl_llmdoctor.facts.engine import Engine
from kubectl_llmdoctor.facts.k8s import Node, VolumeMount
from kubectl_llmdoctor.facts.lengths import Length, length_of, number_of, trained
from kubectl_llmdoctor.facts.logs import Log
from kubectl_llmdoctor.facts.named import alike, keys_named, making, renamed
from kubectl_llmdoctor.facts.nodes import RDMA, rdma_offered
from kubectl_llmdoctor.facts.place import Place, backing, data_mounts
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.pulled import had, spelt, split
from kubectl_llmdoctor.facts.subject import Subject, workload_of
from kubectl_llmdoctor.facts.units import GIB, milli, units
from kubectl_llmdoctor.facts.workload import Workload
from kubectl_llmdoctor.fixes import (
    FromField,
    FromSecret,
    Privilege,
    annotate,
    grow,
    larger,
    lone,
    mount_authority,
    mount_claim,
    mount_scratch,
    mount_shm,
    patch,
    permitted,
    remove_flag,
    request_rdma,
    run_after,
    run_by,
    set_flags,
    set_image,
    set_pull_secret,
    set_resource,
    set_sysctl,
    set_variables,
    together,
    unread,
    variable_operations,
)
from kubectl_llmdoctor.reach import ADDRESS, of_pod, other_side, reach, sides, told
from kubectl_llmdoctor.releases import for_chats, linked, newer, packaged, reads_tools
from kubectl_llmdoctor.report.document import Fix
from kubectl_llmdoctor.room import Room
from kubectl_llmdoctor.settling import dropped, named, put, serving_as, settled
from kubectl_llmdoctor.tree import dig

Condition = Literal[
    "gpu asked",
    "no gpu asked",
    "no runtime class",
    "runtime class there",
    "runtime class open",
    "pod network",
    "whole gpu",
    "mig slice",
    "host network",
    "on GKE",
    "not on GKE",
    "storage initializer",
    "no storage initializer",
    "mounted read-only",
    "mounted writable",
    "forbidden",
    "not forbidden",
    "fsGroup set",
    "no fsGroup",
    "volume in memory",
    "volume on disk",
    "volume mounted",
    "no volume mounted",
    "other hub",
    "usual hub",
    "token misnamed",
    "no token misnamed",
    "key misnamed",
    "no key misnamed",
    "token in a Secret",
    "token given",
    "no token given",
    "pull secret named",
    "pull secret of another type",
    "pull secret unused",
    "no pull secret",
    "other architecture there",
    "no other architecture",
    "context can grow",
    "fewer slots",
    "larger slots",
    "slots unknown",
    "input told",
    "input not told",
    "killed in its limit",
    "killed without a limit",
    "bus error",
    "crashed",
    "end not known",
    "group is short",
    "group is not short",
    "images differ",
    "all-to-all by option",
    "all-to-all by variable",
    "driver by the GPU operator",
    "driver not by the GPU operator",
    "KV connector known",
    "KV connector not known",
    "RDMA device named",
    "one rank late",
    "all ranks wait",
    "late rank not known",
    "capability helps",
    "RDMA offered",
    "RDMA had",
    "no RDMA had",
    "parallel size known",
    "parallel size unknown",
    "home closed",
    "home open",
    "a folder",
    "no folder",
    "volume lasting",
    "volume passing",
    "model named",
    "no model named",
    "mounted elsewhere",
    "nothing mounted",
    "object elsewhere",
    "object alike",
    "object nowhere",
    "image misspelt",
    "image known",
    "no image known",
    "store refuses",
    "store lacks it",
    "store unclear",
    "definition known",
    "definition unknown",
]


class FixText(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A fix; `{name}` stands for what the pattern captured, and for the names of `Situation.values`.

    `env`, `option`, `spec`, `annotation`, `pull_secret`, `authority` and `shm` become a patch of the object that a person edits. `asks` is
    what Pod Security may refuse: such a fix is not offered first where the namespace's level does. `when` is what must be so
    for it to be one; of a log alone nothing is known, so GPUs may be asked for or not, and the rest is taken to be as it mostly
    is. `engines` are those of which it holds, an empty name for one that is not known.
    """

    summary: str
    owner: Literal["model", "platform"] = "model"
    commands: tuple[str, ...] = ()
    #: variables that it sets in the container; without a value it removes one, `secret:NAME` takes it from that Secret, `field:PATH` from
    #: a field of the pod
    env: dict[str, str | None] = {}
    #: an option of the engine that it sets, by its common name; without a value it removes it
    option: dict[str, str | None] = {}
    #: as many GPUs as it asks for in the container's limits, beside `option`
    gpus: str = ""
    #: the memory limit that it gives the container
    memory: str = ""
    #: the memory that it lets the container request
    request: str = ""
    #: values without which it is none: a fix that needs a number is left out where nothing says it
    needs: tuple[str, ...] = ()
    #: fields that it sets in the pod's spec
    spec: dict[str, str | bool] = {}
    #: an annotation that it gives the pods
    annotation: dict[str, str] = {}
    #: a Secret with which the pods are to pull their images
    pull_secret: str = ""
    #: whether it mounts the ConfigMap private-ca with an authority, and names its file in the variables for it
    authority: bool = False
    #: whether it mounts a memory-backed volume of the size `{shm}` at /dev/shm
    shm: bool = False
    #: by which variables, options or keys the container is told of an address (a regular expression), where the line names none: what
    #: the objects say against that address takes the place of the fix
    reach: str = ""
    #: whether another pod of the group does so as well: one that never came up, or the one that ended first
    group: Literal["", "absent", "ended"] = ""
    #: whether it is about the other side of disaggregated serving: what that one says against it takes its place
    other_side: bool = False
    #: whether it has the container ask for the RDMA devices that nodes with GPUs offer (`{rdma}`)
    rdma: bool = False
    #: a message about settings, for what it asks of those that the container states (`settling`): such fixes take the place of this
    #: one, whose summary stands where it asks for nothing that can be told
    settles: str = ""
    #: a class or type of model that the image is too old for: the release that knows it
    newer: str = ""
    #: a module that is not in the image, or behind a blank a name that it lacks: the package, or its release, that has it
    package: str = ""
    #: a shared library that is not in the image: the package that brings it
    library: str = ""
    #: a name of the model to which the server is to answer besides
    serves: str = ""
    #: whether the variant of a base model for chats is served in its place
    for_chats: bool = False
    #: whether it lets the server read tool calls in the format of its model's family
    reads_tools: bool = False
    #: options and variables that are taken out of where the container states them, and an option that gets a value
    drop: tuple[str, ...] = ()
    put: dict[str, str] = {}
    #: a message about a file (its path, a line, or what stands there), which is corrected in the ConfigMap or Secret that it is from
    edits: str = ""
    #: the path of a file of settings that is not in the container, and how it comes there
    brings: str = ""
    #: a variable that the container lacks, and where it may come from
    variable: str = ""
    #: a kernel parameter that it sets for the pod
    sysctl: dict[str, str] = {}
    #: whether it mounts an emptyDir at `{folder}`
    scratch: bool = False
    #: whether a command lists what is behind the volume of the group `path`
    lists: bool = False
    #: whether a command makes the object of the groups `kind` and `name`
    creates: bool = False
    #: whether the pod is to name the object `{other_name}` in its place
    renames: bool = False
    #: whether it gives the volume of the group `path` more room; `{size}` and `{what}` are then what it gets, and which it is
    grows: bool = False
    #: whether it mounts a claim that holds the model at `{folder}`
    claims: bool = False
    #: what a shell does before it becomes the container's command
    before: str = ""
    #: whether what the first word of the command (the group `program` or `line`) misses is put before it, where that is known
    runs: bool = False
    #: the image that the container is to have
    image: str = ""
    asks: Privilege = ""
    when: tuple[Condition, ...] = ()
    engines: tuple[str, ...] = ()


class _Blank(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "?"


#: The container of a log alone.
_UNNAMED = "the server"


def fill(template: str, values: dict[str, str]) -> str:
    """A template with its names filled in; what is not known is `?`, and a node without a name "the node"."""
    if not values.get("node"):
        template = template.replace("node {node}", "the node")
    filled = template.format_map(_Blank(values))
    unnamed = template.startswith("{container}") and values.get("container") == _UNNAMED
    return filled[:1].upper() + filled[1:] if unnamed else filled


#: A model of a hub, as no folder is named.
_HUB_ID = expression(r"[\w.-]+/[\w.-]+")

#: A model that nobody named.
_NO_MODEL = "OWNER/MODEL"

#: More GPUs than any node has: a list of as many as somebody wrote may have no end.
_MOST_DEVICES = 64

#: Numbers of more digits are none of a model's.
_DIGITS = 9

#: Settings whose option a template may name: `{max_model_len_option}`.
_OPTIONS = (
    *("max_model_len", "gpu_memory_utilization", "tensor_parallel_size"),
    *("max_num_batched_tokens", "max_num_seqs", "enforce_eager"),
)

#: An address of Hugging Face's own, which a mirror may send to as well.
_HUB_HOST = expression(r"(?:^|[./])(?:huggingface\.co|hf\.co)(?:[/:]|$)")

#: What a driver has to have: a release of CUDA, or a version of its own.
_CUDA_WANTED = expression(r"cuda\s?>=\s?(?P<major>\d{1,2})\.(?P<minor>\d{1,2})")
_DRIVER_WANTED = expression(r"(?P<branch>[4-9]\d\d)(?:\.\d{1,3}){0,2}")

#: What each signal that ends a process mostly tells.
_SIGNALS = {
    "4": "an instruction that the processor does not have",
    "6": "the process gave up by itself",
    "7": "a bus error, mostly /dev/shm or a file that is cut short",
    "9": "a kill, mostly for memory",
    "11": "a crash in a library",
}

#: What a slot of llama-server has where nothing more is known, and how its context is raised.
_A_SHARE = "which is --ctx-size divided by the number of slots"
#: What is longer than a slot by an answer whose length nobody told, is so many times as long at most.
_LONGER_ANSWERS = 4
#: What is left in a slot for the answer.
_SPARE = 1024
#: Kinds with a plain number of replicas.
_SCALABLE = ("Deployment", "StatefulSet")
#: No model takes more.
_MOST_TOKENS = 1 << 31
#: To a multiple of this llama.cpp rounds a share of the context up.
_ROUNDED = 256

#: How a rank is told where its leader is.
_LEADER = r"(?:LWS_LEADER|MASTER|LEADER|RAY_HEAD|RAY)_ADDR(?:ESS)?|--(?:master[-_]addr|dist-init-addr|rdzv[-_]endpoint|ray[-_]address)"
#: What vLLM takes as the largest rank of an adapter (config/lora.py).
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)

#: What is done to a file with which a message finds fault.
_CORRECT = "Correct what the message names"
#: Where the definitions of a group are, of the newest release of who makes them.
_DEFINED_AT = {
    "gateway.networking.k8s.io": "kubernetes-sigs/gateway-api/releases/latest/download/standard-install.yaml",
    "inference.networking.k8s.io": "kubernetes-sigs/gateway-api-inference-extension/releases/latest/download/manifests.yaml",
    "inference.networking.x-k8s.io": "kubernetes-sigs/gateway-api-inference-extension/releases/latest/download/manifests.yaml",
    "leaderworkerset.x-k8s.io": "kubernetes-sigs/lws/releases/latest/download/manifests.yaml",
    "monitoring.coreos.com": "prometheus-operator/prometheus-operator/releases/latest/download/stripped-down-crds.yaml",
}

#: So many claims are worth naming where nobody knows which one is meant.
_MOST_CLAIMS = 3

#: Resources of slices of a GPU.
_MIG = "nvidia.com/mig-"

#: How the labels begin that GKE gives each node: its pool, its accelerator, its boot disk.
_GKE = "cloud.google.com/gke-"

#: As whom registries know those who come with a key.
_REGISTRY_USERS = (
    (r"nvcr\.io", "$oauthtoken"),
    (r".*\.dkr\.ecr\..*", "AWS"),
    (r".*\.pkg\.dev|.*gcr\.io", "_json_key"),
)

#: The types of Secrets that the kubelet pulls images with.
_PULLED_WITH = ("kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg")

_ARCH = "kubernetes.io/arch"

#: By which an engine has ranks with a GPU each; and more of them than any engine has.
_PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
_MOST_RANKS = 4096

#: The release of vLLM that has --all2all-backend; before it VLLM_ALL2ALL_BACKEND alone is read.
_ALL_TO_ALL_OPTION = "0.12"

#: What PyTorch says for a rank that waited in vain, and at which operation of the group.
_WATCHDOG = "Watchdog caught collective operation timeout"
_WAITS_AT = expression(
    r"\[Rank (?P<rank>\d{1,5})\] Watchdog caught collective operation timeout: WorkNCCL\(SeqNum=(?P<at>\d{1,18})"
)

#: What the kernel says where the user may not, whatever the mount lets.
_FORBIDDEN = frozenset({"permission denied", "operation not permitted"})

#: What a variable is called that is to hold a token for Hugging Face's hub.
_TOKEN = expression(r"(?:HF|HUGGING_?FACE(?:_?HUB)?)_(?!HUB_DISABLE)(?:[A-Z]+_)*(?:TOKEN|KEY)")

#: Those that are read: by huggingface_hub and hf-hub, and the one that Text Embeddings Inference reads besides.
_TOKENS_READ = frozenset({"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_API_TOKEN"})
#: The releases since which images read HF_TOKEN; those before read HUGGING_FACE_HUB_TOKEN alone.
_KNOW_HF_TOKEN = {"vllm": "0.2.1", "tgi": "1.2.0"}

#: What a variable is called that is to hold one of the two keys for an object store.
_KEY = expression(r"(?:AWS|S3|MINIO)_(?:[A-Z]+_)*(?:ACC?ESS?|SECRETS?)_?KEY(?:_?ID)?")

#: By which a token or keys come from somewhere else, so that no variable need hold them.
_TOKEN_ELSEWHERE = ("HF_TOKEN_PATH",)
_KEYS_ELSEWHERE = (
    *("AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_PROFILE"),
    *("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
)


def _words(container: Container) -> str:
    """The command with its arguments: a script in it may hand on what has another name."""
    return " ".join(container.spec.argv)


class _Slot(msgspec.Struct, frozen=True):
    """What a slot of llama-server is of its context, and what makes it larger."""

    text: str
    #: so few slots leave each enough; 0 where none does
    fewer: int = 0
    #: the context of which each of the slots then has enough, and how much that is
    whole: int = 0
    each: int = 0
    #: whether nobody knows how its context is divided
    unknown: bool = False


class Situation:
    """Where a signature was found: of which pod and container, and what it captured."""

    def __init__(
        self,
        subject: Subject,
        pod: Pod | None,
        container: Container | None,
        captured: dict[str, str],
        told: str = "",
    ) -> None:
        self.subject = subject
        self.pod = pod
        self.container = container
        self.captured = captured
        #: the lines that prove it
        self.told = told
        self.workload = (workload_of(pod) if pod else None) or subject.workload
        self.log_only = pod is not None and pod.log_only

    @cached_property
    def engine(self) -> Engine | None:
        """The engine of the container."""
        engines = self.subject.engines(self.pod) if self.pod else ()
        return next((e for e in engines if self.container is None or e.container is self.container), None)

    @cached_property
    def values(self) -> dict[str, str]:
        """What templates may name, by name."""
        pod, container = self.pod, self.container
        name = pod.name if pod else ""
        workload = (unread(pod) if pod else "") or (self.workload.ref if self.workload else f"Pod/{name}")
        engine = self.engine
        model = self.captured.get("model") or (engine.value("model") if engine else None)
        named_hub = isinstance(model, str) and bool(_HUB_ID.fullmatch(model))
        port = engine.value("port") if engine else None
        give = f"chown -R {self._user}:{self._user}" if self._user else "chmod -R a+rwX"
        size = container.shm.size_bytes if container else None
        return {
            "pod": "the pod" if self.log_only else name,
            "namespace": self.subject.namespace,
            "container": container.name if container and container.name else _UNNAMED,
            "image": container.spec.image if container else "",
            "image_now": (container.spec.image if container else "") or "the one that runs",
            "at": self._at,
            "volume_at": self._volume_at,
            "sub_path": self._sub_path,
            "cached": f"models--{model.replace('/', '--')}" if isinstance(model, str) and named_hub else "",
            "twice": larger(units(self.captured.get("limit")), self._files),
            "workload": "its workload" if self.log_only else workload,
            "node": pod.spec.node_name if pod else "",
            "driver": self._driver,
            "runtime_class": self._runtime_class,
            "driver_needed": self._needed[0],
            "newer_driver_nodes": self._needed[1],
            "account": (pod.spec.service_account_name if pod else "") or "default",
            "hub_model": model if isinstance(model, str) and named_hub else _NO_MODEL,
            "devices": ",".join(map(str, range(min(max(container.gpus if container else 0, 1), _MOST_DEVICES)))),
            # enough for most, and twice what a volume that is there has
            "shm": f"{max(2 * (size or 0) // GIB, 8)}Gi",
            **{f"{name}_option": option(engine.name if engine else None, name) for name in _OPTIONS},
            "volume": self._mount.name if self._mount else "",
            "mount": self._mount.mount_path if self._mount else "",
            "user": self._user or "1000",
            "chown": f"{give} {self._mount.mount_path if self._mount else ''}".strip(),
            "hub": self._hub,
            "hub_url": self._hub or "https://huggingface.co",
            "lora_rank": str(next((r for r in _RANKS if r >= self._rank), self._rank)),
            "fewer_gpus": str(self._fewer or "?"),
            "port": str(port) if isinstance(port, int) else "8000",
            "leader": self._leader or "the leader's name",
            "signal_meant": _SIGNALS.get(self.captured.get("signal", ""), "its process was ended from outside"),
            "known_as": self._known_as,
            "divides": self._divides,
            "slot_is": self._slot.text,
            "fewer_slots": str(self._slot.fewer),
            "per_slot": str(self._slot.each),
            "larger_context": str(self._slot.whole),
            "more_replicas": self._more_replicas,
            "port_freed": self._port_freed,
            "context": str(self._length.now) if self._length.now else "what it is",
            "longer_context": str(self._length.longer),
            "context_bound": self._length.bound,
            "ask_less": self._ask_less,
            "enough": str(1 << (self._have - 1).bit_length()) if self._have > 0 else "",
            **self._registry(container.spec.image if container else ""),
            "token_variable": self._misnamed_token,
            **sides(container),
            "token_meant": "HUGGING_FACE_HUB_TOKEN" if self._unread_token else "HF_TOKEN",
            "token_at": self._index_of(self._misnamed_token),
            "key_at": self._index_of(self._misnamed_key[0]),
            "way": self._way,
            **self._of_store,
            "hub_host": self.captured.get("host") or (self._hub or "https://huggingface.co").partition("://")[2],
            "licence": f"the licence of {model} at https://huggingface.co/{model}"
            if named_hub
            else "the model's licence",
            "token_secret": self._token_of[0],
            "token_key": self._token_of[1],
            "key_variable": self._misnamed_key[0],
            "key_meant": self._misnamed_key[1],
            "set_by": self._set_by,
            "bucket": self._bucket,
            "google_account": self._google_account,
            "node_taints": self._node_taints,
            "pull_secret": self._pull_secret[0],
            "pull_secret_type": self._pull_secret[1],
            "free_pull_secret": self._free_pull_secret,
            **self._group,
            **self._memory,
            "rdma": self._rdma,
            "late_rank": self._late[1],
            "recomputing": self._recomputing,
            "images": self._images,
            **self._sizes,
            "node_arch": self._architectures[0] or "the node's architecture",
            "other_arch": self._architectures[1],
            "other_arch_nodes": self._architectures[2],
            "search": model.rpartition("/")[2] if isinstance(model, str) and not model.startswith("/") else "",
            "verbs": "get,list,watch"
            if self.captured.get("verb") in ("get", "list", "watch")
            else self.captured.get("verb", ""),
            "resource_in": ".".join(filter(None, (self.captured.get("resource"), self.captured.get("group")))),
            "defined_at": _DEFINED_AT.get(self.captured.get("group", ""), ""),
            "cpus": str(self._cpus),
            **self._of_place,
            **self._of_object,
            **self._of_image,
            **self.captured,
        }

    @cached_property
    def _room(self) -> Room:
        """What is enough, by the message and the specification."""
        engine = self.engine
        sizing = self.subject.sizing(engine) if engine else None
        return Room(engine, self.container or (engine.container if engine else None), self.captured, self.told, sizing)

    @cached_property
    def _leader(self) -> str:
        """The host of the leader, by the line or by what the container is told; empty where neither says it."""
        container = self.container
        given = told(_LEADER, container, self.subject.cluster) if container else ()
        said = (ADDRESS.match(one) for one in given)
        return self.captured.get("host") or next((one["host"] for one in said if one), "")

    @cached_property
    def _files(self) -> int | None:
        """The least bytes of the model's files, where they are known."""
        return self.subject.sizing(self.engine).file_bytes if self.engine else None

    @property
    def _at(self) -> str:
        """The place of the container in the pod's spec: of the one that the line names, else of the one that printed it."""
        every = self.pod.containers if self.pod else ()
        who, image = self.captured.get("who"), self.captured.get("image")
        named = [c for c in every if c.name == who or (image and c.spec.image == image)]
        servers = [c for c in every if c.role == "main"]
        found = next(iter([*named, *filter(None, [self.container]), *servers]), None)
        return found.pointer.strip("/") if found else "containers/0"

    @property
    def _volume_at(self) -> str:
        """The place of the volume that the line names in the pod's spec."""
        names = [volume.name for volume in self.pod.spec.volumes] if self.pod else []
        return str(names.index(self.captured["volume"])) if self.captured.get("volume") in names else "0"

    @property
    def _sub_path(self) -> str:
        """The subPath with which the volume that the line names is mounted."""
        mounts = [m for c in (self.pod.containers if self.pod else ()) for m in c.spec.volume_mounts]
        named = [m.sub_path for m in mounts if m.name == self.captured.get("volume") and m.sub_path]
        return named[0] if named else "that subPath names"

    @property
    def _cpus(self) -> int:
        """As many threads as the container has CPUs to run them on, where something says so, else four."""
        told = (self.container.limit("cpu") or self.container.request("cpu")) if self.container else None
        return max((told or 4000) // 1000, 1)

    @cached_property
    def _place(self) -> Place | None:
        """The path that the line names, in the container."""
        path = self.captured.get("path") or self.captured.get("model") or ""
        return Place(self.container, path) if self.container and path else None

    @property
    def _of_place(self) -> dict[str, str]:
        """What templates may name of the path."""
        place = self._place
        mounts = data_mounts(self.container) if self.container else []
        said = " and ".join(f"{mount.mount_path} ({backing(volume)})" for mount, volume in mounts[:3])
        return {
            "volume_is": place.volume_is if place else "the volume",
            "inside": (place.inside if place else "") or "the model",
            "folder": place.folder if place else "",
            "set_at": (place.set_at if place else "") or "the argument or variable",
            "mounts": said,
            "moved": f"{mounts[0][0].mount_path.rstrip('/')}/{(place.path if place else '').rpartition('/')[2]}"
            if mounts
            else "",
            "there": place.path
            if place
            else str(self.engine.value("model") or "the model")
            if self.engine
            else "the model",
            "claims": self._claims,
        }

    @property
    def _claims(self) -> str:
        """The claims of the namespace that the pod does not mount, as a question: ` (claim weights?)`."""
        mine = [v.persistent_volume_claim for v in self.pod.spec.volumes] if self.pod else []
        used = {claim.claim_name for claim in mine if claim}
        items = self.subject.cluster.items("PersistentVolumeClaim", self.subject.namespace)
        free = [item.name for item in items if item.name not in used]
        return f" (claim {' or '.join(free)}?)" if 0 < len(free) <= _MOST_CLAIMS else ""

    @property
    def _kind(self) -> str:
        """The kind of the object that the line names, as Kubernetes writes it."""
        return {"secret": "Secret", "configmap": "ConfigMap"}.get(self.captured.get("kind", "").lower(), "")

    @cached_property
    def _made(self) -> tuple[str, str, str]:
        """Of the object that the line names: the command that makes it, the namespace that has it, and one that may be meant."""
        name = self.captured.get("name", "")
        if self.pod is None or not self._kind or not name:
            return "", "", ""
        return *making(self.pod, self._kind, name), alike(self.pod, self._kind, name)

    @property
    def _of_object(self) -> dict[str, str]:
        """What templates may name of the object."""
        keys = keys_named(self.pod, self._kind, self.captured.get("name", "")) if self.pod and self._kind else []
        with_keys = f" with the key{'s' if len(keys) > 1 else ''} {', '.join(keys)}" if keys else ""
        return {
            "copied_from": self._made[1],
            "other_name": self._made[2],
            "with_keys": with_keys,
            "data_field": "stringData" if self._kind == "Secret" else "data",
        }

    @cached_property
    def _had(self) -> tuple[str, str]:
        """An image of the same repository that was pulled, and who has it."""
        image = self.captured.get("image") or (self.container.spec.image if self.container else "")
        return had(self.pod, image) if self.pod and image else ("", "")

    @property
    def _of_image(self) -> dict[str, str]:
        """What templates may name of the image that is meant."""
        image = self.captured.get("image") or (self.container.spec.image if self.container else "")
        repository, _ = split(image)
        host = repository.partition("/")[0]
        return {
            "known_image": self._had[0],
            "known_by": self._had[1],
            "spelt_image": spelt(image),
            "repository": repository,
            "registry_host": "registry-1.docker.io" if host == "docker.io" else host,
        }

    @cached_property
    def _driver(self) -> str:
        """` (570.148.08)`: the version of the node's driver, where its label says the whole of it."""
        item = self.pod.cluster.item("Node", "", self.pod.spec.node_name) if self.pod else None
        version = item.labels.get("nvidia.com/cuda.driver-version.full", "") if item else ""
        return f" ({version})" if version else ""

    @cached_property
    def _runtime_class(self) -> str:
        """The cluster's runtime class for NVIDIA's GPUs, where it is known to have one."""
        listed = self.subject.cluster.items("RuntimeClass")
        return next((item.name for item in listed if str(item.raw.get("handler") or "").startswith("nvidia")), "")

    @cached_property
    def _needed(self) -> tuple[str, str]:
        """The driver that the image needs, as the message or the image's CUDA says, and the nodes that have it."""
        pod, told = self.pod, self.captured.get("need", "")
        if pod is None or self.log_only:
            return "", ""
        cuda, number = _CUDA_WANTED.search(told), _DRIVER_WANTED.fullmatch(told)
        logs, container = self.subject.logs(pod), self.container
        built = image_cuda(container, logs) if container and not cuda and not number else None
        if number:
            branch: int | None = int(number["branch"])
            said = f"{told} or later"
        else:
            wanted = (int(cuda["major"]), int(cuda["minor"])) if cuda else built[0] if built else None
            branch = branch_for(wanted) if wanted and wanted[1] is not None else None
            said = f"branch {branch} or later, for CUDA {say_cuda(wanted)}" if branch and wanted else ""
        if branch is None:
            return "", ""
        nodes = (node for node in self.subject.nodes.all if node.name != pod.spec.node_name)
        able = [n.name for n in nodes if (branch_of(n) or 0) > branch - (1 if not number else 0)]
        return said, ", ".join(able[:3])

    @property
    def _divides(self) -> str:
        """A number of GPUs below the captured `tp` that shares `have` evenly.

        A power of two, where one does: the other sizes of a model are mostly multiples of one.
        """
        have, tp = (self.captured.get(name, "") for name in ("have", "tp"))
        if not have.isdecimal() or not tp.isdecimal() or len(have) > _DIGITS or len(tp) > _DIGITS:
            return "1"
        fit = [n for n in range(1, min(int(tp), _MOST_DEVICES + 1)) if int(have) % n == 0] or [1]
        even = [n for n in fit if n & (n - 1) == 0]
        return str(even[-1] if len(even) > 1 else fit[-1])

    @cached_property
    def _known_as(self) -> str:
        """`, but to llama`: the name of the model that the server answers to, where it is known to be another than was asked for."""
        engine = self.engine
        name = (engine.value("served_model_name") or engine.value("model")) if engine else None
        names = [name] if isinstance(name, str) else list(name) if isinstance(name, (list, tuple)) else []
        if not names or self.captured.get("name") in names or not all(isinstance(n, str) and n for n in names):
            return ""
        return f", but to {' or '.join(names)}"

    @property
    def _port_freed(self) -> str:
        """How the port that was captured, by itself or in an address, becomes free: by who else has it in the pod, or on its node."""
        pod, container = self.pod, self.container
        address = self.captured.get("address", "").rpartition(":")[2]
        port = self.captured.get("port") or (address if address.isdecimal() else "")
        if pod is None or container is None or self.log_only:
            return "Give one of those that want the port another: a container of the pod, a second server in its script, a pod of its node"
        place = unread(pod) or (self.workload.ref if self.workload else f"Pod/{pod.name}")
        who, other = f"{container.name} of {place}", f"another port than {port}" if port else "another port"
        mine = [one for one in pod.containers if one is not container and one.role != "init"]
        holder = next((one for one in mine if port and self._listens(one, int(port))), None)
        if holder is not None:
            return f"Give {container.name} or {holder.name} of {place} {other}, with its probes and Service: they share one network"
        if pod.spec.host_network:
            return f"Take hostNetwork: true out of {place}, or give {container.name} a port that nobody else has on that node"
        if mine:
            names = ", ".join(one.name for one in mine)
            return f"Give {who} {other}, as all containers of a pod share one network, and {names} is in it as well"
        return f"Start one server at {f'port {port}' if port else 'the port'} in {who}: its command starts a second one, or one still runs"

    def _listens(self, container: Container, port: int) -> bool:
        """Whether another container of the pod declares a port, or its engine listens there."""
        engines = self.subject.engines(self.pod) if self.pod else ()
        told = any(engine.value("port") == port for engine in engines if engine.container is container)
        return told or any(one.container_port == port for one in container.spec.ports)

    @property
    def _rank(self) -> int:
        """The rank of an adapter that was captured."""
        rank = self.captured.get("rank", "")
        return int(rank) if rank.isdecimal() else 0

    @cached_property
    def _fewer(self) -> int:
        """The most GPUs, fewer than it has now, that can share the model evenly; 0 where that is not known."""
        size = self.engine.value("tensor_parallel_size") if self.engine else None
        if self.engine is None or not isinstance(size, int) or size < 2:
            return 0
        return self.subject.sizing(self.engine).splits(size - 1)

    @cached_property
    def _more_replicas(self) -> str:
        """Twice the replicas that the workload has."""
        told = dig(self.workload.raw, "spec.replicas") if self.workload else None
        if told is None and self.workload is not None and self.workload.kind in _SCALABLE:
            told = 1  # which is what Kubernetes takes it for
        return str(2 * told) if isinstance(told, int) and told > 0 else "twice as many"

    def _scales_by_hand(self, workload: Workload) -> bool:
        """Whether a number of replicas lasts that is set by hand: no autoscaler sets it."""
        targets = (
            dig(scaler.raw, "spec.scaleTargetRef.name")
            for kind in ("HorizontalPodAutoscaler", "ScaledObject")
            for scaler in self.subject.cluster.items(kind, self.subject.namespace)
        )
        return workload.kind in _SCALABLE and workload.name not in targets

    @cached_property
    def _length(self) -> Length:
        """The context of the server, what the request needs of it, and how long it may become."""
        sizing = self.subject.sizing(self.engine) if self.engine is not None else None
        return length_of(self.engine, self._log, self.captured, sizing)

    @cached_property
    def _log(self) -> Log | None:
        """What the container says now."""
        if self.pod is None or self.container is None or self.log_only:
            return None
        return logs_of(self.pod).current(self.container.name)

    @property
    def _have(self) -> int:
        """The number that was captured of a request; 0 for none."""
        return number_of(self.captured.get("have"))

    @property
    def _ask_less(self) -> str:
        """What clients have to do where the context stays as it is."""
        length, new = self._length, number_of(self.captured.get("new"))
        if new and 0 < self._have < length.now:
            return f"Let clients ask for at most {length.now - self._have} tokens after such a prompt (max_tokens; {new} were asked for)"
        if length.wanted and length.now and length.wanted > length.now:
            over = f"{length.wanted - length.now} tokens less"
            return f"Let clients send, or ask for, {over}: prompt and answer (max_tokens) have {length.now} together"
        return "Let clients send less, or ask for fewer tokens: max_tokens counts together with the prompt"

    @cached_property
    def _slot(self) -> _Slot:
        """What a slot of llama-server of `max` tokens is of its context, and how it gets more.

        A slot has its share of the context, or all of it, and never more than the model was trained with
        (`server-context.cpp`).
        """
        told = self.engine.explicit("max_model_len") if self.engine and self.engine.name == "llama.cpp" else None
        whole, part = told.value if told else None, number_of(self.captured.get("max"))
        if self.engine is None or told is None or not isinstance(whole, int) or part < 1 or whole < 1:
            return _Slot(f"{_A_SHARE} unless they share it", unknown=True)
        have, most = self._have, trained(self._log)
        if most and (most <= part or most < have):
            return _Slot(f"and the model was trained with {most} by its log")
        need = have or _LONGER_ANSWERS * part
        each = min(-(-(need + _SPARE) // _ROUNDED) * _ROUNDED, most or _MOST_TOKENS)
        if part >= whole:
            return _Slot(f"all of {told.text}", whole=each, each=each)
        slots = self.engine.value("max_num_seqs", 1)
        if (
            not isinstance(slots, int)
            or "max_num_seqs" in self.engine.found.unresolved
            or not self.engine.found.argv_known
        ):
            return _Slot(f"{_A_SHARE} or what the model was trained with", unknown=True)
        if slots > 1 and 0 <= part - whole // slots < _ROUNDED:
            fewer = max(whole // need, 1)
            text = f"as {told.text} is divided among {slots} slots"
            if whole >= need and fewer < slots:
                return _Slot(text, fewer=fewer, each=min(whole // fewer, most or _MOST_TOKENS), whole=each * slots)
            return _Slot(text, whole=each * slots, each=each)
        return _Slot(f"which is mostly what the model was trained with, as {told.text} is more")

    @cached_property
    def _mount(self) -> VolumeMount | None:
        """The volume on which the path lies that the line names; where it names none, the only one that may hold data."""
        if self.container is None or self._place is not None:
            return self._place.mount if self._place else None
        data = [mount for mount, _ in data_mounts(self.container)]
        return data[0] if len(data) == 1 else None

    def _registry(self, image: str) -> dict[str, str]:
        """Where the image is pulled from, as a pull secret names it, and as whom."""
        first, slash, _ = (self.captured.get("image") or image).partition("/")
        named = bool(slash) and ("." in first or ":" in first or first == "localhost")
        registry = first if named and first != "docker.io" else "https://index.docker.io/v1/"
        user = next((user for host, user in _REGISTRY_USERS if re.fullmatch(host, registry)), "USER")
        return {"registry": registry, "registry_user": user}

    @cached_property
    def _user(self) -> str:
        """The user that the container is to run as, where it says so."""
        own = self.container.spec.security_context.run_as_user if self.container else None
        whole = self.pod.spec.security_context.run_as_user if self.pod else None
        return str(own or whole or "")

    @cached_property
    def _bucket(self) -> str:
        """The bucket behind the volume that the line names, by its PersistentVolume or by the pod's own words."""
        name = self.captured.get("volume", "")
        item = self.subject.cluster.item("PersistentVolume", "", name) if name else None
        own = self.pod.volume(name) if self.pod and name else None
        csi = dig(item.raw, "spec.csi") if item else own.csi if own else None
        attributes = dig(csi, "volumeAttributes") if csi else None
        told = attributes.get("bucketName") if isinstance(attributes, dict) else None
        return str(told or (dig(csi, "volumeHandle") if csi else "") or "BUCKET").partition(":")[0]

    @cached_property
    def _google_account(self) -> str:
        """The account of Google Cloud that the pod's service account acts as."""
        name = (self.pod.spec.service_account_name if self.pod else "") or "default"
        item = self.subject.cluster.item("ServiceAccount", self.subject.namespace, name)
        return str(item.annotations.get("iam.gke.io/gcp-service-account") or "" if item else "") or "GOOGLE_ACCOUNT"

    @cached_property
    def _node_taints(self) -> str:
        """The taints that keep new pods off the pod's node, as `kubectl taint` writes them."""
        name = self.pod.spec.node_name if self.pod else ""
        node = next((n for n in self.subject.cluster.all(Node, "Node") if n.metadata.name == name), None)
        kept = [t for t in node.spec.taints if t.effect in ("NoSchedule", "NoExecute")] if node else []
        own = [t for t in kept if not t.key.startswith("node.kubernetes.io/")]
        words = [f"{t.key}={t.value}:{t.effect}" if t.value else f"{t.key}:{t.effect}" for t in own]
        return f"the taint {' and '.join(words)}" if words else "the taints of GPU nodes"

    @cached_property
    def _pull_secret(self) -> tuple[str, str]:
        """The Secret with which the pod pulls its images, and its type where it is one that is not read for that."""
        for secret in self.pod.spec.image_pull_secrets if self.pod else ():
            item = self.subject.cluster.item("Secret", self.subject.namespace, secret.name)
            kind = str(item.raw.get("type") or "") if item else ""
            return secret.name, "" if kind in ("", *_PULLED_WITH) else kind
        return "", ""

    @cached_property
    def _free_pull_secret(self) -> str:
        """A Secret of the namespace for pulling images, where there is one and the pod names none."""
        if self.pod is None or self._pull_secret[0]:
            return ""
        listed = self.subject.cluster.items("Secret", self.subject.namespace)
        found = [item.name for item in listed if item.raw.get("type") in _PULLED_WITH]
        return found[0] if len(found) == 1 else ""

    @cached_property
    def _architectures(self) -> tuple[str, str, str]:
        """The node's, and the one of other nodes on which the pod could have its accelerators, with their names."""
        asked = self.pod.accelerators if self.pod else {}
        nodes = {node.metadata.name: node for node in self.subject.cluster.all(Node, "Node")}
        own = nodes.get(self.pod.spec.node_name if self.pod else "")
        here = str(own.metadata.labels.get(_ARCH, "")) if own else ""
        able = [n for n in nodes.values() if all(milli(n.status.allocatable.get(r)) for r in asked)]
        there = [n for n in able if here and n.metadata.labels.get(_ARCH, here) != here and not n.spec.unschedulable]
        if not there:
            return here, "", ""
        other = str(there[0].metadata.labels[_ARCH])
        names = sorted(n.metadata.name for n in there if n.metadata.labels[_ARCH] == other)
        return here, other, ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")

    @cached_property
    def _hub(self) -> str:
        """Where the container asks for models instead of Hugging Face's hub."""
        variable = self.container.env.get("HF_ENDPOINT") if self.container else None
        return (variable.value or "").rstrip("/") if variable else ""

    @cached_property
    def _misnamed_token(self) -> str:
        """The variable that holds a token for the hub, where it is none of those that the hub's libraries read."""
        container = self.container
        if container is None or container.spec.env_from or any(name in container.env for name in _TOKEN_ELSEWHERE):
            return ""  # the one that is read may come from there
        named = [n for n, v in container.env.items() if _TOKEN.fullmatch(n) and v.value != ""]
        read = _TOKENS_READ - self._unread_token
        strange = [n for n in named if n not in read and n not in _words(container)]
        return strange[0] if strange and len(strange) == len(named) else ""

    @property
    def _unread_token(self) -> frozenset[str]:
        """HF_TOKEN, where the release has a library of the hub before 0.18, which does not know it."""
        first = _KNOW_HF_TOKEN.get(self.engine.name) if self.engine else None
        old = first is not None and self.engine is not None and self.engine.at_least(first) is False
        return frozenset({"HF_TOKEN"}) if old else frozenset()

    @cached_property
    def _token_of(self) -> tuple[str, str, bool]:
        """The Secret that a token for the hub is from, its key there, and whether that is known; else what fixes call them."""
        variables = self.container.env if self.container else {}
        told = [variables[name].origin for name in sorted(_TOKENS_READ & variables.keys())]
        secret, _, key = next((x for x in told if x.startswith("Secret ")), "").removeprefix("Secret ").partition("/")
        return (secret, key, True) if secret and key else ("hf-token", "HF_TOKEN", False)

    @cached_property
    def _misnamed_key(self) -> tuple[str, str]:
        """The variable that holds a key for an object store under a name that boto does not read, and the name that it does."""
        container = self.container
        if container is None or container.spec.env_from or any(name in container.env for name in _KEYS_ELSEWHERE):
            return "", ""
        for name, variable in container.env.items():
            meant = "AWS_SECRET_ACCESS_KEY" if "SECRET" in name else "AWS_ACCESS_KEY_ID"
            if not _KEY.fullmatch(name) or variable.value == "" or name in _words(container):
                continue
            if (read := container.env.get(meant)) is None or read.value == "":
                return name, meant
        return "", ""

    @cached_property
    def _group(self) -> dict[str, str]:
        """The GPUs that the engine's ranks need, and those that the pods of its group ask for."""
        have = sum(one.gpus for one in self.subject.pods if one.exists)
        engine = self.engine
        sizes = [engine.value(name, 1) for name in _PARALLEL] if engine else []
        want = math.prod(size for size in sizes if isinstance(size, int)) if sizes else 0
        return {"gpus_wanted": str(want), "gpus_there": str(have)}

    @property
    def _recomputing(self) -> str:
        """The configuration of vLLM's KV connector with the policy to compute again what was not delivered; empty where it is not known."""
        told = self.engine.explicit("kv_transfer_config") if self.engine else None
        if told is None or not isinstance(told.value, dict):
            return ""
        config = msgspec.json.encode({**told.value, "kv_load_failure_policy": "recompute"}).decode()
        return "" if "<masked:" in config else config

    @cached_property
    def _images(self) -> str:
        """`llm-0 has A, llm-0-1 has B`: the images of the engine in the pods of its group, where they differ."""
        name = self.container.name if self.container else ""
        every = {one.name: c.spec.image for one in self.subject.pods for c in one.containers if c.name == name}
        first = {image: pod for pod, image in reversed(every.items())}
        return ", ".join(f"{pod} has {image}" for image, pod in list(first.items())[:3]) if len(first) > 1 else ""

    @cached_property
    def _memory(self) -> dict[str, str]:
        """The container's memory limit, and one that is half as much again."""
        container = self.container
        limit = container.limit("memory") if container else None
        if container is None or not limit:
            return {"memory_now": "", "more_memory": ""}
        told = str(container.spec.resources.limits["memory"])
        return {"memory_now": told, "more_memory": f"{math.ceil(limit * 1.5 / GIB)}Gi"}

    @cached_property
    def _sizes(self) -> dict[str, str]:
        """Of two sizes that must divide each other: the largest divisor of one below the other, and the least multiple above it."""
        one, other = self.captured.get("one", ""), self.captured.get("other", "")
        if not (
            one.isdecimal() and other.isdecimal() and 0 < int(one) <= _MOST_RANKS and 0 < int(other) <= _MOST_RANKS
        ):
            return {}
        whole, part = int(one), int(other)
        divisor = max(n for n in range(1, part + 1) if whole % n == 0)
        return {"divisor": str(divisor), "multiple": str(math.ceil(part / whole) * whole)}

    @cached_property
    def _late(self) -> tuple[Condition, str]:
        """Of the ranks of which others say that they waited in vain, the one that waited for nobody or at an earlier operation."""
        waits: dict[int, int] = {}
        lines = [line for one in self.subject.pods for line in self.subject.logs(one).find(_WATCHDOG)]
        for said in (_WAITS_AT.search(line.text[:2000]) for line in lines):
            if said is not None:
                waits[int(said["rank"])] = int(said["at"])
        ranks = int(self._group["gpus_wanted"])
        missing = [rank for rank in range(min(ranks, _MOST_RANKS)) if rank not in waits]
        if waits and len(missing) == 1 and ranks > 1:
            return "one rank late", str(missing[0])
        first = [rank for rank, at in waits.items() if at == min(waits.values())]
        if not waits or missing or len(waits) != ranks:
            return "late rank not known", ""
        return ("one rank late", str(first[0])) if len(first) == 1 < ranks else ("all ranks wait", "")

    @cached_property
    def _rdma(self) -> str:
        """`rdma/ib: 4`: the RDMA devices that nodes with GPUs offer and the container does not ask for."""
        offered = request_rdma(self.container, "{rdma}") if self.container and not self.log_only else None
        found = rdma_offered(self.subject.cluster, self.container.gpus) if offered and self.container else None
        return f"{found[0]}: {found[1]}" if found else ""

    @property
    def _has_rdma(self) -> bool:
        """Whether the container may have an RDMA device: it asks for one, or sees those of the host."""
        container, pod = self.container, self.pod
        if container is None or pod is None or self.log_only or pod.spec.host_network or pod.spec.resource_claims:
            return True
        security = container.spec.security_context
        mounted = any(v.host_path and "infiniband" in v.host_path.path for v in pod.spec.volumes)
        asked = any(re.fullmatch(RDMA, name.lower()) for name in container.spec.resources.limits)
        return asked or mounted or bool(security and security.privileged)

    @cached_property
    def _may_gain(self) -> bool:
        """Whether a capability that is added has an effect: a process that is not root gets none of them."""
        own = self.container.spec.security_context.run_as_user if self.container else None
        whole = self.pod.spec.security_context.run_as_user if self.pod else None
        return not (whole if own is None else own)

    @cached_property
    def _ending(self) -> Condition:
        """How a process ended that a signal took, as the line says it."""
        signal = self.captured.get("signal", "").lower() if self.container and not self.log_only else ""
        if signal in ("9", "sigkill", "killed"):
            return "killed in its limit" if self._memory["memory_now"] else "killed without a limit"
        if signal in ("7", "sigbus", "bus error"):
            return "bus error"
        return "crashed" if signal else "end not known"

    @cached_property
    def _set_by(self) -> str:
        """The variable that holds what the line gives as a value, where it is just one; else words for whatever holds it."""
        value, env = self.captured.get("value"), self.container.env if self.container else {}
        names = [name for name, variable in env.items() if value and variable.value == value]
        return f"the variable {names[0]}" if len(names) == 1 else "the argument, variable or file that sets it"

    def fixes(self, texts: tuple[FixText, ...]) -> tuple[Fix, ...]:
        """The fixes that apply here, those last that the namespace's Pod Security level refuses."""
        engine = self.engine.name if self.engine else ""
        if any(text.needs for text in texts):  # dear: the model's memory is computed for it
            self.values.update({**self._room.values(), **self.values})
        fitting = (text for text in texts if not text.engines or engine in text.engines)
        held = (text for text in fitting if self._holds.issuperset(text.when))
        known = (text for text in held if all(self.values.get(name) for name in text.needs))
        made = ((fix, text.asks) for text in known for fix in self._settled(text) or (self._fix(text),))
        offered = ((fix, asks) for fix, asks in made if fix is not None)
        return permitted(self.subject.cluster, self.subject.namespace, offered)

    @cached_property
    def _holds(self) -> set[str]:
        """Which conditions of fixes hold."""
        injected = self.container is not None and self.container.name == "storage-initializer"
        found = {"storage initializer" if injected else "no storage initializer", *self._of_volume()}
        asked = self.captured.get("host") or self.captured.get("url") or ""
        other = self._hub and not _HUB_HOST.search(self._hub) and not _HUB_HOST.search(asked)
        found.add("other hub" if other else "usual hub")
        found.add("forbidden" if self.captured.get("why", "").lower() in _FORBIDDEN else "not forbidden")
        found.add("token misnamed" if self._misnamed_token else "no token misnamed")
        found.add("key misnamed" if self._misnamed_key[0] else "no key misnamed")
        found |= {self._token_given, model_store.answer_of(self.captured.values())}
        named, unread_type = self._pull_secret
        if self.pod is None or not named:
            found.add("pull secret unused" if self._free_pull_secret else "no pull secret")
        else:
            found.add("pull secret of another type" if unread_type else "pull secret named")
        if self._length.longer and (self.engine is not None or self.pod is None or self.log_only):
            found.add("context can grow")
        if self._slot.fewer:
            found.add("fewer slots")
        if self._slot.whole:
            found.add("larger slots")
        if self._slot.unknown:
            found.add("slots unknown")
        found.add("input told" if self._have > 0 else "input not told")
        found |= {self._ending, self._late[0], "RDMA had" if self._has_rdma else "no RDMA had"}
        found |= {"RDMA offered"} if self._rdma else set()
        found |= {"capability helps"} if self._may_gain else set()
        wanted, there = int(self._group["gpus_wanted"]), int(self._group["gpus_there"])
        found |= {"images differ"} if self._images else set()
        older = self.engine is not None and self.engine.at_least(_ALL_TO_ALL_OPTION) is False
        found.add("all-to-all by variable" if older else "all-to-all by option")
        node = self.subject.cluster.item("Node", "", self.pod.spec.node_name if self.pod else "")
        driven = node is not None and node.labels.get("nvidia.com/gpu.deploy.driver") == "true"
        found.add("driver by the GPU operator" if driven else "driver not by the GPU operator")
        found.add("KV connector known" if self._recomputing else "KV connector not known")
        by_name = self.engine is not None and self.engine.explicit("disaggregation_ib_device") is not None
        found |= {"RDMA device named"} if by_name else set()
        whole = len(self.subject.pods) > 1 or self.subject.cluster.complete("Pod", self.subject.namespace)
        found.add("group is short" if whole and 0 < there < wanted else "group is not short")
        found.add("parallel size known" if self._fewer else "parallel size unknown")
        found.add("other architecture there" if self._architectures[1] else "no other architecture")
        found |= {self._where_is_made, self._which_image}
        found.add("definition known" if self.values["defined_at"] else "definition unknown")
        found.add("home closed" if self._place and self._place.home_closed else "home open")
        found.add("volume passing" if self._place and self._place.passing else "volume lasting")
        found.add("model named" if self.values["search"] else "no model named")
        found.add("a folder" if self.values["folder"] else "no folder")
        found.add("mounted elsewhere" if self.container and data_mounts(self.container) else "nothing mounted")
        if self.pod is None or self.log_only:
            return found | {
                "gpu asked",
                "no gpu asked",
                "no runtime class",
                "runtime class open",
                "not on GKE",
                "pod network",
                "whole gpu",
            }
        every = [self.container] if self.container else self.pod.containers
        gpus = any(c.gpus or c.spec.resources.claims for c in every)
        found.add("gpu asked" if gpus else "no gpu asked")
        slices = any(name.startswith(_MIG) for c in every for name in c.spec.resources.limits)
        found.add("mig slice" if slices else "whole gpu")
        found.add("on GKE" if self._on_gke else "not on GKE")
        found.add("host network" if self.pod.spec.host_network else "pod network")
        if self.pod.spec.runtime_class_name:
            return found
        found.add("no runtime class")
        if self._runtime_class:
            found.add("runtime class there")
        elif not self.subject.cluster.complete("RuntimeClass"):  # a pod that names one that is not there is refused
            found.add("runtime class open")
        return found

    @property
    def _token_given(self) -> Condition:
        """How the container gets a token for the hub, by variables that its libraries read."""
        variables = self.container.env if self.container else {}
        if not _TOKENS_READ & variables.keys():
            return "no token given"
        return "token in a Secret" if self._token_of[2] else "token given"

    @property
    def _way(self) -> str:
        """By what the container would reach the outside: the proxy that it is told of, or none."""
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
            variable = self.container.env.get(name) if self.container else None
            if variable is not None:
                return f"the proxy {variable.value or variable.origin} that {name} names must let them pass"
        return "the container is told of no proxy, so where the network has one set HTTPS_PROXY, with the cluster's own names in NO_PROXY"

    @property
    def _of_store(self) -> dict[str, str]:
        """What templates may name of the store that the model is from."""
        container = self.container
        secret = model_store.secret(container) if container else ""
        return {
            "store_uri": (model_store.address(container) if container else "") or "the model's address",
            "store": (model_store.endpoint(container) if container else "") or "the store",
            "store_keys": f"Secret {secret}" if secret else "a Secret that its secrets name, or a role",
        }

    def _index_of(self, name: str) -> str:
        """The place of a variable in the container's own list."""
        own = [variable.name for variable in self.container.spec.env] if self.container else []
        return str(own.index(name)) if name in own else "0"

    @property
    def _where_is_made(self) -> Condition:
        """Where the object that the line names may be from."""
        if self._made[2]:
            return "object alike"
        return "object elsewhere" if self._made[1] else "object nowhere"

    @property
    def _which_image(self) -> Condition:
        """Whether another image is known that may be meant."""
        if self.values["spelt_image"]:
            return "image misspelt"
        return "image known" if self._had[0] else "no image known"

    @property
    def _on_gke(self) -> bool:
        """Whether the pod's node is one of GKE's, whose device plugin mounts the driver: there is no runtime for GPUs."""
        name = self.pod.spec.node_name if self.pod else ""
        node = self.subject.cluster.item("Node", "", name)
        return any(label.startswith(_GKE) for label in node.labels) if node else name.startswith("gke-")

    def _of_volume(self) -> tuple[str, ...]:
        """What is so of the volume on which the path lies that the line names."""
        mount, pod = self._mount, self.pod
        volume = pod.volume(mount.name) if pod and mount else None
        if pod is None or mount is None or volume is None:
            return "mounted writable", "no fsGroup", "volume on disk", "no volume mounted"
        claim, scratch = volume.persistent_volume_claim, volume.empty_dir
        # what the API server fills in cannot be mounted otherwise
        given_by_api = volume.config_map or volume.secret or volume.projected
        read_only = not given_by_api and (mount.read_only or (claim is not None and claim.read_only))
        # the kubelet gives each emptyDir to the group; of the others the file system or its driver decides
        kept = volume.host_path or volume.nfs  # by which the kubelet never goes
        grouped = (kept or pod.spec.security_context.fs_group is not None) and scratch is None and not given_by_api
        in_memory = scratch is not None and scratch.medium == "Memory"
        return (
            "mounted read-only" if read_only else "mounted writable",
            "fsGroup set" if grouped else "no fsGroup",
            "volume in memory" if in_memory else "volume on disk",
            "no volume mounted" if given_by_api else "volume mounted",
        )

    def _settled(self, text: FixText) -> tuple[Fix, ...]:
        """The fixes that follow from what the container states of that which a text is about."""
        container = None if self.log_only else self.container
        message = fill(text.settles, self.values) if text.settles else ""
        module, _, name = fill(text.package, self.values).partition(" ")
        missing = module, name.replace("?", "")
        kinds = tuple(re.findall(r"[A-Za-z][\w.-]*", fill(text.newer, self.values))) if text.newer else ()
        if message and (found := settled(container, self.engine, message)):
            return found
        if container is None:
            known = (
                newer(None, self.engine, kinds)
                if kinds
                else packaged(None, self.engine, *missing)
                if missing[0]
                else None
            )
            return (known,) if known else ()
        lacked = fill(text.brings, self.values) if text.brings else ""
        wrong = fill(text.edits, self.values) if text.edits else ""
        values = {name: fill(value, self.values) for name, value in text.put.items()}
        made = (
            dropped(container, self.engine, text.drop) if text.drop else None,
            *(
                put(container, self.engine, name, v, fill(text.summary, self.values))
                for name, v in values.items()
                if "?" not in v
            ),
            linked(container, self.engine, fill(text.library, self.values)) if text.library else None,
            serving_as(self.engine, fill(text.serves, self.values)) if text.serves and self.engine else None,
            for_chats(self.engine) if text.for_chats and self.engine else None,
            reads_tools(self.engine) if text.reads_tools and self.engine else None,
            newer(container, self.engine, kinds) if kinds else None,
            packaged(container, self.engine, *missing) if missing[0] else None,
            field(container, named(message), "Correct or remove {name}") if message else None,
            brings(container, lacked) if lacked else None,
            edits(container, wrong, _CORRECT) if wrong else None,
            gives(container, fill(text.variable, self.values)) if text.variable else None,
        )
        return tuple(fix for fix in made if fix)

    def _fix(self, text: FixText) -> Fix | None:
        if text.runs or text.before or text.grows:
            return None if self.container is None or self.log_only else self._where_known(text, self.container)
        if (text.reach or text.group or text.other_side) and (mended := self._reached(text)) is not None:
            return mended
        summary = fill(text.summary, self.values)
        if self.pod and any(" delete pod {pod}" in command for command in text.commands):
            summary += lone(self.pod)
        commands = () if self.log_only else self._commands(text)
        told = summary + self._variables(text, summary)
        change = None
        if self.pod is not None and not self.log_only:
            change = self._change(text, self.pod, summary)
            if change and change.patch is None and told != summary:
                change = self._change(text, self.pod, told)
        if change is None:
            return Fix(summary=told + self._setting(text), owner=text.owner, commands=commands)
        return msgspec.structs.replace(change, owner=text.owner, commands=(*commands, *change.commands))

    def _reached(self, text: FixText) -> Fix | None:
        """What mends whom the line or the container's settings name, where the objects say what is wrong there."""
        pod, container = self.pod, self.container
        if pod is None or self.log_only:
            return None
        if text.other_side and self.engine is not None and (mended := other_side(self.engine)) is not None:
            return mended
        named = self.captured.get("host", "")
        port = self.captured.get("port", "")
        asked = [
            f"{named}:{port}" if named and port.isdecimal() else named,
            *map(self.captured.get, ("peer", "address", "url")),
        ]
        if text.reach and container is not None and not any(asked):
            asked = [*told(text.reach, container, pod.cluster)]
        found = (reach(address, pod, container) for address in dict.fromkeys(asked) if address)
        mended = next((fix for fix in found if fix), None)
        if mended is not None or not text.group:
            return mended
        first = [ending.container.pod for ending in last_round(self.subject.pods)[:1]] if text.group == "ended" else []
        idle = [one for one in self.subject.pods if not any(c.running or c.terminated for c in one.containers)]
        others = (one for one in (*first, *idle) if one is not pod)
        return next((fix for one in others if (fix := of_pod(one, f"of the same group as {pod.name}"))), None)

    def _where_known(self, text: FixText, container: Container) -> Fix | None:
        """A fix that is none where the container does not tell what would be changed."""
        if text.runs:
            program = self.captured.get("program") or self.captured.get("line") or ""
            return run_by(container, program, self.engine.name if self.engine else "")
        if text.before:
            return run_after(container, text.before, fill(text.summary, self.values))
        return grow(container, self._mount, self._files, text.summary) if self._mount else None

    def _change(self, text: FixText, pod: Pod, summary: str) -> Fix | None:
        """What the fix changes of the object that a person edits; None where it is not known what that would be."""
        if text.spec:
            return patch(pod, summary, [*self._fields(text), *self._set(text)])
        if text.sysctl:
            ((parameter, to),) = text.sysctl.items()
            return set_sysctl(pod, parameter, to, summary)
        if text.image:
            of_image = [c for c in pod.containers if c.spec.image == self.captured.get("image")]
            one = next(iter([*of_image, *filter(None, [self.container])]), None)
            return set_image(one, fill(text.image, self.values), summary) if one else None
        if text.renames:
            return patch(pod, summary, renamed(pod, self._kind, self.values["name"], self.values["other_name"]))
        if text.annotation:
            ((name, given),) = text.annotation.items()
            return annotate(pod, {name: fill(given, self.values)}, summary)
        if text.pull_secret:
            return set_pull_secret(pod, fill(text.pull_secret, self.values), summary)
        if text.option or text.gpus:
            set_there = self._set_options(text, summary)
            if set_there is None or not text.env or self.container is None:
                return set_there
            return together(set_there, self._env(text, self.container, summary))
        return self._of_container(text, self.container, summary) if self.container else None

    def _of_container(self, text: FixText, container: Container, summary: str) -> Fix | None:
        """What the fix changes of the container, or gives it."""
        if given := text.memory or text.request:
            kind = "limits" if text.memory else "requests"
            return set_resource(container, kind, "memory", fill(given, self.values), summary)
        if text.rdma:
            return request_rdma(container, summary)
        if text.claims and self.values["folder"] and (size := larger(None, self._files)):
            return mount_claim(container, self.values["folder"], size, summary)
        if text.scratch and self.values["folder"]:
            return mount_scratch(container, [self.values["folder"]], summary)
        if text.authority:
            return mount_authority(container, summary)
        if text.shm:
            return mount_shm(container, self.values["shm"], summary)
        if not text.env:
            return None
        return self._env(text, container, summary)

    def _fields(self, text: FixText) -> Iterator[dict[str, Any]]:
        """The operations that set fields of the pod's spec."""
        for name, value in text.spec.items():
            filled = fill(value, self.values) if isinstance(value, str) else value
            number = int(filled) if isinstance(filled, str) and filled.isdecimal() else filled
            yield {"op": "add", "path": f"/{fill(name, self.values)}", "value": number}

    def _set(self, text: FixText) -> list[dict[str, Any]]:
        """The operations that set the variables of a fix that changes the spec as well."""
        values = {name: self._value(value) for name, value in text.env.items()}
        return variable_operations(self.container, values)[0] if self.container and values else []

    def _set_options(self, text: FixText, summary: str) -> Fix | None:
        """The options of the engine that a fix sets, and the GPUs that go with them."""
        if self.engine is None:
            return None
        chosen: list[tuple[str, str, str]] = []
        for setting, value in text.option.items():
            if value is None:
                return remove_flag(self.engine, setting, summary)
            if not (flag := OPTIONS.get(setting, {}).get(self.engine.name, "")):
                return None
            chosen.append((setting, flag, fill(value, self.values)))
        return set_flags(self.engine, chosen, summary, gpus=fill(text.gpus, self.values))

    def _env(self, text: FixText, container: Container, summary: str) -> Fix:
        return set_variables(container, {name: self._value(value) for name, value in text.env.items()}, summary)

    def _value(self, text: str | None) -> str | FromSecret | FromField | None:
        """The value of a variable as `fixes.set_variables` takes it."""
        if text is None:
            return None
        kind, _, name = text.partition(":")
        if kind == "field":
            return FromField(name)
        return FromSecret(name) if kind == "secret" else fill(text, self.values)

    def _variables(self, text: FixText, summary: str) -> str:
        """The variables that a fix sets and does not name, for where no patch says them: `: A=b C=d`."""
        given = {name: self._value(value) for name, value in text.env.items() if name not in summary}
        told = [f"{name}={value}" for name, value in given.items() if isinstance(value, str)]
        return f": {' '.join(told)}" if told else ""

    def _setting(self, text: FixText) -> str:
        """The option that a fix sets, for where nothing is known of the container's arguments."""
        given = [(name, value) for name, value in text.option.items() if value is not None]
        engine = self.engine.name if self.engine else None
        values = [f" {fill(value, self.values)}" if engine else "" for _, value in given]
        told = [option(engine, name) + value for (name, _), value in zip(given, values, strict=True) if name in OPTIONS]
        return f" ({', '.join(told)})" if told else ""

    def _commands(self, text: FixText) -> tuple[str, ...]:
        """The commands that can be run: on the object that a person edits, and in a container that runs."""
        quoted = {name: shlex.quote(value) if value else "" for name, value in self.values.items()}
        commands = text.commands
        if self.values["container"] == _UNNAMED:  # kubectl then takes the first one
            commands = tuple(command.replace(" -c {container}", "") for command in commands)
        known = {"{node}": self.values["node"], "{leader}": self._leader}
        unknown = [name for name, value in known.items() if not value]
        commands = tuple(command for command in commands if not any(name in command for name in unknown))
        stored = model_store.listing(self.container) if self.container else ""
        listed = (self._place.lists if self._place else "") or stored
        own = [listed if text.lists else "", self._made[0] if text.creates else ""]
        filled = (fill(command, quoted) for command in commands)
        # what somebody has to fill in is no command
        return (*filter(None, own), *self._applicable(command for command in filled if _NO_MODEL not in command))

    def _applicable(self, commands: Iterator[str]) -> Iterator[str]:
        pod, container, workload = self.pod, self.container, self.workload
        template = pod.template if pod else None
        fixed = workload is None or (template and template.immutable and template.raw is workload.raw)
        fixed = fixed or (pod is not None and bool(unread(pod)))
        running = container.running if container else any(c.running for c in pod.containers) if pod else False
        for command in commands:
            if " scale " in command and (fixed or workload is None or not self._scales_by_hand(workload)):
                continue
            if (" edit " in command and fixed) or (" exec " in command and not running):
                continue
            # an instance before the first one has no log
            yield command.replace(" --previous", "") if container and not container.restarts else command
