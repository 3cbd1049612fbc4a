"""A fix as a signature declares it, and the conditions of which it may make itself depend, by their topic."""

from typing import Literal

import msgspec

from kubectl_llmdoctor.fixes import Privilege

#: Of the object that the line names, or its kind.
OfObjects = Literal[
    "object elsewhere", "object alike", "object nowhere",
    "definition known", "definition unknown",
]  # fmt: skip
#: Of the hub or store that the model is from.
OfHub = Literal[
    "other hub", "usual hub",
    "model named", "no model named",
    "store refuses", "store lacks it", "store unclear",
]  # fmt: skip
#: Of tokens and keys in the container's variables.
OfCredentials = Literal[
    "token misnamed", "no token misnamed",
    "token in a Secret", "token given", "no token given",
    "all variables known", "variables of a Secret not known",
    "key misnamed", "no key misnamed",
    "NGC key in a Secret",
    "no NGC key in a Secret",
]  # fmt: skip
#: Of the image, and the Secret that it is pulled with.
OfImages = Literal[
    "image misspelt", "image known", "no image known",
    "pull secret named", "pull secret of another type", "pull secret unused", "no pull secret",
]  # fmt: skip
#: Of the path that the line names, and the volume that it lies on.
OfFiles = Literal[
    "forbidden", "not forbidden",
    "storage initializer", "no storage initializer",
    "mounted read-only", "mounted writable",
    "fsGroup set", "no fsGroup",
    "volume in memory", "volume on disk",
    "volume lasting", "volume passing",
    "volume mounted", "no volume mounted",
    "mounted elsewhere", "nothing mounted",
    "a folder", "no folder",
    "home closed", "home open",
    "programs there", "no programs there",
]  # fmt: skip
#: Of the context that the server has, and its slots.
OfContext = Literal[
    "context can grow",
    "context is the limit", "cache is the limit", "limit not known",
    "fewer slots", "larger slots", "slots unknown",
    "input told", "input not told",
    "batch can grow", "batch is the context",
]  # fmt: skip
#: Of the ranks of the engine, and the pods that they are in.
OfGroup = Literal[
    "group is short", "group is not short",
    "images differ", "NCCL differs",
    "one rank late", "all ranks wait", "late rank not known",
    "parallel size known", "parallel size unknown",
    "RDMA offered", "RDMA had", "no RDMA had", "RDMA device named",
    "GID index set", "side channel on localhost",
    "one GPU", "one GPU for counted ranks", "several GPUs",
    "all-to-all by option", "all-to-all by variable",
    "KV connector known", "KV connector not known",
]  # fmt: skip
#: Of how the process of the container ended, and what it may do.
OfProcess = Literal[
    "killed in its limit", "killed without a limit", "bus error", "crashed", "end not known",
    "still ready",
    "capability helps", "user given",
    "parser of later releases", "parser of no release known",
    "bitsandbytes by option",
    "larger than /dev/shm",
    "driver on the path", "driver not on the path",
    "driver mounted", "driver not mounted",
    "installs at the start", "installs nothing at the start",
    "something to run", "nothing to run",
    "adapters taken",
]  # fmt: skip
#: Of the pod's node and others, and what the pod asks of them.
OfPlacement = Literal[
    "gpu asked", "no gpu asked",
    "NVIDIA's or unknown", "of another maker",
    "whole gpu", "mig slice",
    "no runtime class", "runtime class there", "runtime class open", "runtime class, unprivileged", "GPUs by default",
    "pod network", "host network",
    "on GKE", "not on GKE",
    "on Talos", "not on Talos",
    "on a Jetson", "not on a Jetson",
    "driver by the GPU operator", "driver not by the GPU operator",
    "other architecture there", "no other architecture",
    "ARM node", "no ARM node",
    "switches by InfiniBand",
    "use of a GPU", "no use of a GPU",
]  # fmt: skip
#: Of the port that a line says is taken.
OfPorts = Literal["port from VLLM_PORT", "VLLM_PORT is the server's"]
Condition = Literal[
    OfObjects, OfHub, OfCredentials, OfImages, OfFiles, OfContext, OfGroup, OfProcess, OfPorts, OfPlacement
]


class FixText(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A fix; `{name}` stands for what the pattern captured, and for the values of the topics.

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
    #: what it says instead where another fix stands before it, so that nothing is advised twice
    after: str = ""
    #: values with which it is none, as a fix that needs them says the same of this very case
    unless: tuple[str, ...] = ()
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
    #: the model that is named where another one is
    model: str = ""
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
