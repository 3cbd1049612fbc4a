"""Where an engine keeps the model that it downloads, and how much fits there."""

import re
from collections.abc import Iterator
from functools import partial

import msgspec

from kubectl_llmdoctor.api import (
    Container,
    Engine,
    Evidence,
    Item,
    Pod,
    dig,
    expression,
    k8s,
    object_evidence,
    pod_evidence,
    rows,
    units,
    words,
)

#: Variables that say where the Hub's cache lies, the strongest first: what is put between it and the files.
HOMES = {"HF_HUB_CACHE": "", "HUGGINGFACE_HUB_CACHE": "", "HF_HOME": "/hub"}

#: Where the images of these engines keep it when nothing is said: they run as root, TGI sets a variable.
_DEFAULTS = {"vllm": "/root/.cache/huggingface/hub", "sglang": "/root/.cache/huggingface/hub", "tgi": "/data"}

#: Folders of these names say nothing of what is in them.
_ANY_FOLDERS = frozenset({"", "cache", ".cache", "data", "hub", "mnt", "tmp"})

#: Ray's images run as the user ray; and whoever mounts a cache at another home knows that the image has that one.
_OF_RAY = expression(r"(?:^|/)rayproject/")
#: Those of llm-d, Dynamo and Red Hat have users of their own, too, whose homes changed over their releases.
_OF_OTHERS = expression(
    r"(?:^|/)(?:llm-d|ai-dynamo|modh|opendatahub|rha(?:ii|is)\w{0,9}|rhoai|rh-aiservices-bu)/|(?:rhel|ubi)\d"
)
#: Hugging Face's containers for Google Cloud set another HF_HOME (containers/tgi of Google-Cloud-Containers).
_OF_GOOGLE = expression(r"(?:^|/)deeplearning-platform-release/.{0,60}huggingface-text-generation-inference")
_HOME_OF_GOOGLE = "/tmp"
_OTHER_HOME = expression(r"^/(?!root/).{0,200}/\.cache(?:/huggingface(?:/hub)?)?/?$")

#: The Hub's own program, with a directory: `huggingface-cli download REPOSITORY --local-dir DIRECTORY`.
_FETCHES = r"\b(?:huggingface-cli|hf)\s+download\s+([^\n;&|]+)"

#: Its options that leave all files to be fetched: with a value, and without.
_VALUED = frozenset({"--local-dir-use-symlinks", "--token", "--revision", "--max-workers", "--repo-type"})
_SWITCHES = frozenset({"--quiet", "--resume-download", "--force-download"})

_VARIABLE = r"\$\{(\w+)\}|\$\((\w+)\)|\$(\w+)"


class Fetched(msgspec.Struct, frozen=True):
    """A model that an init container downloads whole: its id on the Hub, the directory, who does it and where that stands."""

    model: str
    directory: str
    container: Container
    evidence: Evidence


class Store(msgspec.Struct, frozen=True, kw_only=True):
    """A place for model files, and what lies under it.

    `kind` is `layer` for the container's own file system, which is the node's disk; `size` is None where nothing limits
    it or where the limit is not known.
    """

    path: str
    kind: str
    volume: str = ""
    size: int | None = None
    text: str = ""
    evidence: Evidence | None = None
    claim: Item | None = None
    #: the object by which an operator makes the claim, and where its size stands there, as a JSON pointer
    made_by: tuple[Item, str] | None = None

    @property
    def lost(self) -> bool:
        """Whether what lies there is gone with the pod."""
        return self.kind in ("layer", "emptyDir", "memory")


def hub_model(engine: Engine) -> str:
    """The model as an id of the Hub; empty where it is a path or an address, so that its files are there already."""
    model = engine.explicit("model")
    name = str(model.value) if model is not None else ""
    parts = name.split("/")
    return name if len(parts) == 2 and all(parts) and parts[0] not in (".", "..", "~") and ":" not in parts[0] else ""


def cache_path(engine: Engine) -> str:
    """The directory that downloads go to; empty where it is not known."""
    stated = engine.get("download_dir")
    if stated is not None:
        return str(stated.value) if str(stated.value).startswith("/") else ""
    for name, tail in HOMES.items():
        variable = engine.container.env.get(name)
        if variable is not None:
            return f"{variable.value.rstrip('/')}{tail}" if variable.value and variable.value.startswith("/") else ""
    if any(name in engine.container.env for name in ("HOME", "XDG_CACHE_HOME")) or other_user(engine.container):
        return ""
    usual = _DEFAULTS.get(engine.name, "")
    if _OF_OTHERS.search(engine.container.spec.image):
        return ""
    if _OF_GOOGLE.search(engine.container.spec.image):
        return _HOME_OF_GOOGLE
    if _OF_RAY.search(engine.container.spec.image):
        return usual.replace("root", "home/ray", 1)
    return "" if any(_OTHER_HOME.match(x.mount_path) for x in engine.container.spec.volume_mounts) else usual


def volume_beside(engine: Engine, path: str) -> Store | None:
    """The volume off the node's disk where the engine's own image keeps its models, when the one that runs keeps them elsewhere."""
    usual = _DEFAULTS.get(engine.name, "")
    mount = engine.container.mount_over(usual) if usual and path == _HOME_OF_GOOGLE else None
    found = store(engine.container, usual) if mount is not None and not mount.read_only else None
    return found if found is not None and found.volume and not found.lost else None


def claim_beside(engine: Engine, path: str) -> Store | None:
    """The claim that was meant for its models, when it was told to keep them at another path and could write there.

    It lies where the image keeps them, or its folder has the name of the one that the engine was told, and no name that any folder has.
    """
    usual, container = _DEFAULTS.get(engine.name, ""), engine.container
    mount = container.mount_over(usual) if usual and usual != path else None
    places = [(mount, usual)] if mount is not None else []
    name = path.removesuffix("/hub").rstrip("/").rpartition("/")[2]
    mounts = container.spec.volume_mounts if name not in _ANY_FOLDERS else ()
    places += [(x, x.mount_path) for x in mounts if x.mount_path.rstrip("/").endswith(f"/{name}")]
    found = (store(container, at) for one, at in places if not one.read_only)
    return next((one for one in found if one is not None and one.kind == "claim"), None)


def fetched(pod: Pod, path: str) -> Fetched | None:
    """What an init container downloads to the directory that a server reads its model from."""
    for container in pod.containers:
        if container.role != "init":
            continue
        text = " ".join(container.spec.argv)
        for match in re.finditer(_FETCHES, text.replace("\\\n", " ")):
            said = re.sub(_VARIABLE, partial(_value, container), match[1])
            model, *options = re.sub("[=\"']", " ", said).split()
            directory = (_directory(options) or "").rstrip("/")
            if directory.startswith("/") and f"{path.rstrip('/')}/".startswith(f"{directory}/"):
                return Fetched(model, directory, container, pod_evidence(container, "command", match[0].strip()))
    return None


def _directory(options: list[str]) -> str | None:
    """Where a whole repository goes to; None where some of its files are chosen, or by options that are not known."""
    directory, rest = None, iter(options)
    for option in rest:
        if option == "--local-dir":
            directory = next(rest, None)
        elif option in _VALUED:
            next(rest, None)
        elif option not in _SWITCHES:
            return None
    return directory


def _value(container: Container, name: re.Match[str]) -> str:
    """What a variable of a script holds; as it stands where that is not known."""
    variable = container.env.get(name[1] or name[2] or name[3])
    return variable.value if variable is not None and variable.value else name[0]


def other_user(container: Container) -> bool:
    """Whether it runs as another user than the image's, whose home is not known."""
    return any(
        context.run_as_user or context.run_as_non_root
        for context in (container.spec.security_context, container.pod.spec.security_context)
    )


def store(container: Container, path: str) -> Store | None:
    """What lies under a path of a container; None where the volume is of a kind whose room is not known here."""
    mount = container.mount_over(path)
    if mount is None:
        limit = container.spec.resources.limits.get("ephemeral-storage")
        if limit is None:
            return Store(path=path, kind="layer")
        where = pod_evidence(container, "resources.limits.ephemeral-storage", str(limit))
        return Store(path=path, kind="layer", size=units(limit), text=str(limit), evidence=where)
    pod, volume = container.pod, container.pod.volume(mount.name)
    if volume is not None and volume.empty_dir is not None:
        return _empty_dir(pod, path, volume.name, volume.empty_dir)
    if volume is not None and volume.ephemeral is not None:
        spec = dig(volume.ephemeral, "volumeClaimTemplate.spec")
        return _claimed(path, volume.name, spec, pod_evidence(pod, f"volumes[{volume.name}].ephemeral", _asked(spec)))
    if volume is not None and volume.persistent_volume_claim is not None:
        name = volume.persistent_volume_claim.claim_name
        item = pod.cluster.item("PersistentVolumeClaim", pod.namespace, name)
        if item is None:
            made = next((one for one, _, _ in declared(pod) if one.volume == name), None)
            return msgspec.structs.replace(made or Store(path="", kind="claim"), path=path, volume=volume.name)
        spec = item.raw.get("spec")
        held = dig(item.raw, "status.capacity.storage")
        text = str(held) if held is not None else _asked(spec)
        where = object_evidence(item, "spec.resources.requests.storage", text)
        found = _claimed(path, volume.name, spec, where, held)
        return msgspec.structs.replace(found, claim=item)
    template = pod.template
    for claim in rows(template.raw, "spec.volumeClaimTemplates") if template and volume is None else []:
        if dig(claim, "metadata.name") == mount.name:
            spec = claim.get("spec")
            where = pod_evidence(pod, f"volumeClaimTemplates[{mount.name}]", _asked(spec))
            return _claimed(path, mount.name, spec, where)
    return None


def declared(pod: Pod) -> Iterator[tuple[Store, str, float]]:
    """The claims that an operator makes for a pod, called by their names: the room, the model that it downloads there, and the
    least share of its files.
    """
    for one in pod.template.claims if pod.template is not None else ():
        kind, name = str(one.raw.get("kind")), str(dig(one.raw, "metadata.name"))
        owner, made = (
            pod.cluster.item(*key)
            for key in ((kind, pod.namespace, name), ("PersistentVolumeClaim", pod.namespace, one.name))
        )
        if owner is None:
            continue
        where = object_evidence(owner, one.pointer.strip("/").replace("/", "."), _asked(one.spec))
        held = dig(made.raw, "status.capacity.storage") if made is not None else None
        found = _claimed("", one.name, one.spec, where, held)
        yield msgspec.structs.replace(found, claim=made, made_by=(owner, one.pointer)), one.model, one.share


def _empty_dir(pod: Pod, path: str, volume: str, empty_dir: k8s.EmptyDir) -> Store:
    limit, memory = empty_dir.size_limit, empty_dir.medium == "Memory"
    text = f"sizeLimit: {limit}" if limit is not None else "no sizeLimit"
    where = pod_evidence(pod, f"volumes[{volume}].emptyDir", f"medium: Memory, {text}" if memory else text)
    return Store(
        path=path,
        kind="memory" if memory else "emptyDir",
        volume=volume,
        size=units(limit),
        text=str(limit),
        evidence=where,
    )


def _asked(spec: object) -> str:
    return str(dig(spec, "resources.requests.storage") or "")


def _claimed(path: str, volume: str, spec: object, where: Evidence, held: object = None) -> Store:
    """A claim on a disk. A file share that several nodes mount often takes no notice of the size that was asked for."""
    modes = set(words(spec, "accessModes"))
    size = units(held if held is not None else dig(spec, "resources.requests.storage"))
    sized = size if modes and modes <= {"ReadWriteOnce", "ReadWriteOncePod"} else None
    return Store(path=path, kind="claim", volume=volume, size=sized, text=where.text, evidence=where)
