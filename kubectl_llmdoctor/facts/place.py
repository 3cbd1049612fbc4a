"""Where a path lies that a line of a container names: on which volume, and what could be mounted there."""

from __future__ import annotations

import shlex
from functools import cached_property
from typing import Any

from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.k8s import Volume, VolumeMount

#: A hidden folder, in which programs keep caches and settings; in some an image brings programs.
_HIDDEN = expression(
    r"(?:/[^/]{1,255}){0,20}?/\.(?!(?:venv|virtualenv|env|conda|pyenv|nvm|cargo|rustup|git|local/(?:lib|bin))(?:/|$))[A-Za-z](?:[\w.-]{0,60}(?=/)|[\w-]{0,60}$)"
)
#: The home of root, which its mode closes to others, the root folder, which is the home of a user without one, and one that is not there.
_NO_HOME = expression(r"(?:/root)?/\.[A-Za-z]|/home/[^/]{1,100}/?$|/nonexistent(?:/|$)")
#: The last part of a path that is a file by its looks.
_FILE = expression(r"(?:[^/]{1,200}\.[A-Za-z][\w-]{0,15}|\d{4,40}|sha256-[^/]{1,200})/?$")
#: Folders that an image has full, or a runtime makes, over which no empty volume belongs.
_FULL = expression(
    r"/(?:app|boot|lib\w{0,4}|root|run|srv|var|workspace|\w{1,20}-workspace|(?:opt|home|\w{1,20}-workspace)(?:/[^/]{1,255})?)?/?"
    r"|/(?:bin|dev|etc|proc|sbin|sys|usr)(?:/.{0,400})?"
    r"|(?:/[^/]{1,255}){0,20}?/(?:bin|sbin|lib\w{0,4}|(?:site|dist)-packages|\.(?:venv|virtualenv|env|conda|pyenv|nvm|cargo|rustup|git))(?:/.{0,400})?"
)
#: Folders that hold the programs of an image and what these need.
_PROGRAMS = expression(
    r"/(?:bin|etc|sbin|usr)(?:/.{0,400})?"
    r"|(?:/[^/]{1,255}){0,20}?/(?:bin|sbin|lib\w{0,4}|(?:site|dist)-packages)(?:/.{0,400})?"
)
#: Folders of those names that programs fill while they run.
_FILLED = expression(r"/var/lib(?:/.{0,400})?")
#: Options that only switch something on or off; the word behind one is another argument.
_SWITCH = expression(r"--?(?:enable|disable|no|use|trust|allow|skip)[-_]")
#: Folders of a node's own system: all that is in them belongs to others as well.
SYSTEM = expression(
    r"/?|/(?:bin|home|opt|root|sbin|tmp|var|var/(?:lib|log))/?|/(?:boot|dev|etc|lib\w{0,4}|proc|run|sys|usr|var/run)(?:/.{0,400})?"
    r"|/var/lib/(?:containerd|containers|docker|etcd|kubelet|rancher)(?:/.{0,400})?"
)
#: Where every pod has what the API server gives it.
_GIVEN = "/var/run/secrets/"


class Place:
    """A path in a container."""

    def __init__(self, container: Container, path: str) -> None:
        self.container = container
        self.path = path

    @cached_property
    def mount(self) -> VolumeMount | None:
        """The mount in which it lies."""
        return self.container.mount_over(self.path) if self.path.startswith("/") else None

    @cached_property
    def volume(self) -> Volume | None:
        """The volume on which it lies."""
        return self.container.pod.volume(self.mount.name) if self.mount else None

    @property
    def volume_is(self) -> str:
        """`claim weights`: what is behind the volume, as a person knows it."""
        return backing(self.volume) if self.volume else "no volume"

    @property
    def passing(self) -> bool:
        """Whether the volume is an emptyDir, which is made with the pod, and no init container fills it."""
        volume = self.volume
        return volume is not None and volume.empty_dir is not None and not filled(self.container, volume)

    @property
    def inside(self) -> str:
        """The path in what is behind the volume, without a slash before it."""
        below = self.path[len(self.mount.mount_path.rstrip("/")) :] if self.mount else self.path
        parts = (self.mount.sub_path if self.mount else "").strip("/"), below.strip("/")
        return "/".join(filter(None, parts))

    @property
    def home_closed(self) -> bool:
        """Whether it is in the home of root, or in or is that of a user without one, and the container's user is not root."""
        return self.mount is None and self.container.user != 0 and bool(_NO_HOME.match(self.path))

    @property
    def among_programs(self) -> bool:
        """Whether it is in a folder, on no volume, that has programs or libraries of the image, which an empty volume would hide."""
        kept = self.mount is None and not _FILLED.fullmatch(self.path) and not _HIDDEN.match(self.path)
        return kept and bool(_PROGRAMS.fullmatch(self.path))

    @property
    def folder(self) -> str:
        """The folder at which an empty volume may be mounted for it; empty where that would hide what an image has there."""
        if self.mount is not None or not self.path.startswith("/"):
            return ""
        hidden = _HIDDEN.match(self.path)
        above, of_the_hub, _ = self.path.partition("/models--")  # a cache of it
        found = (
            hidden[0] if hidden else above if of_the_hub else "" if _FILE.search(self.path) else self.path.rstrip("/")
        )
        return "" if _FULL.fullmatch(found) else found

    @property
    def set_at(self) -> str:
        """What gives the path to the program: `--model`, `the variable MODEL_ID`; empty where nothing that is known does."""
        words = [str(word) for word in self.container.spec.argv]
        path = self.path.rstrip("/")
        for index, word in enumerate(words):
            flag, equals, value = word.partition("=")
            if equals and value.rstrip("/") == path and flag.startswith("-"):
                return flag
            before = words[index - 1] if index else ""
            if word.rstrip("/") == path and before.startswith("-") and "=" not in before and not _SWITCH.match(before):
                return before
        named = [name for name, variable in self.container.env.items() if (variable.value or "").rstrip("/") == path]
        return f"the variable {named[0]}" if named else ""

    @property
    def lists(self) -> str:
        """A command that lists what is behind the volume, in a pod of its own as the container does not run; empty where there is none."""
        pod, volume = self.container.pod, self.volume
        if self.mount is None or volume is None or volume.empty_dir or volume.ephemeral:
            return ""
        if volume.config_map or volume.secret:
            kind, name = ("configmap", volume.config_map.name) if volume.config_map else ("secret", "")
            name = name or (volume.secret.secret_name if volume.secret else "")
            return f"kubectl -n {shlex.quote(pod.namespace)} describe {kind} {shlex.quote(name)}"
        raw: dict[str, Any] = {"name": "v"}
        if volume.persistent_volume_claim:
            raw["persistentVolumeClaim"] = {"claimName": volume.persistent_volume_claim.claim_name}
        elif volume.host_path:
            raw["hostPath"] = {"path": volume.host_path.path}
        elif volume.nfs:
            raw["nfs"] = volume.nfs
        else:
            return ""
        look = {
            "name": "look",
            "image": "busybox",
            "command": ["find", "/v", "-maxdepth", "3", "-exec", "ls", "-ldn", "{}", "+"],
            "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": True}],
        }
        spec: dict[str, Any] = {"containers": [look], "volumes": [raw], "tolerations": [{"operator": "Exists"}]}
        if pod.spec.node_name:
            spec["nodeName"] = pod.spec.node_name
        import json  # dearer than this module, and few fixes look

        document = json.dumps({"spec": spec}, separators=(",", ":"))
        return (
            f"kubectl -n {shlex.quote(pod.namespace)} run look --rm -it --restart=Never --image=busybox "
            f"--overrides={shlex.quote(document)}"
        )


def backing(volume: Volume) -> str:
    """`claim weights`: what is behind a volume, as a person knows it."""
    if volume.persistent_volume_claim:
        return f"claim {volume.persistent_volume_claim.claim_name}"
    if volume.config_map:
        return f"ConfigMap {volume.config_map.name}"
    if volume.secret:
        return f"Secret {volume.secret.secret_name}"
    if volume.host_path:
        return f"hostPath {volume.host_path.path}"
    if volume.nfs:
        return f"NFS {volume.nfs.get('server')}:{volume.nfs.get('path')}"
    return f"emptyDir {volume.name}" if volume.empty_dir else f"volume {volume.name}"


def filled(container: Container, volume: Volume) -> bool:
    """Whether an init container of the pod has the volume as well, and so may fill it before the container starts."""
    others = (one for one in container.pod.containers if one.role == "init" and one is not container)
    return any(mount.name == volume.name for one in others for mount in one.spec.volume_mounts)


def data_mounts(container: Container) -> list[tuple[VolumeMount, Volume]]:
    """The volumes of a container that may hold a model, with where they are mounted."""
    volumes = {volume.name: volume for volume in container.pod.spec.volumes}
    mounted = [(mount, volumes[mount.name]) for mount in container.spec.volume_mounts if mount.name in volumes]
    return [
        (mount, volume)
        for mount, volume in mounted
        if not (volume.config_map or volume.secret or volume.projected)
        and (volume.empty_dir is None or filled(container, volume))
        and not mount.mount_path.startswith(_GIVEN)
    ]
