"""The path that a line names, the volume on which it lies, and who may write there."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import get_args

from kubectl_llmdoctor.advice.declared import Condition, OfFiles
from kubectl_llmdoctor.advice.occurrence import Topic
from kubectl_llmdoctor.advice.templates import Value
from kubectl_llmdoctor.brought import source_of
from kubectl_llmdoctor.catalog.families import package
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts import model_store
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.k8s import Volume, VolumeMount
from kubectl_llmdoctor.facts.place import SYSTEM, Place, backing, data_mounts
from kubectl_llmdoctor.facts.units import units
from kubectl_llmdoctor.fixes import larger
from kubectl_llmdoctor.template_values import template_value
from kubectl_llmdoctor.tree import dig

#: So many claims are worth naming where nobody knows which one is meant.
_MOST_CLAIMS = 3

#: Folders in which images have their programs, and not what these read or write.
_PROGRAMS = expression(
    r"/(?:app|code|src|srv|workspace|(?:vllm|sgl)-workspace|s?bin|lib(?:64)?|usr(?:/(?:local|src))?(?:/(?:s?bin|lib(?:64)?|app))?"
    r"|opt(?:/(?:venv|app|conda|vllm|sglang|nvidia|py3))?(?:/s?bin)?)"
)
#: Those of them below which a shell looks for a program by its name.
_ON_PATH = expression(r"/(?:usr|usr/local|opt|(?:usr/(?:local/)?)?s?bin|opt/(?!nvidia|app).{1,100})")
#: Those which hold a program of one's own. What pip installs lies elsewhere, but for SGLang in its image.
_OWN = expression(r"/(?:app|code|src|srv|workspace|vllm-workspace|usr/(?:local/)?(?:src|app)(?:/app)?|opt/app)")
_OF_SGLANG = "/sgl-workspace"
#: Modules that run by `python -m` and are installed, beside those of the table of packages.
_INSTALLED = expression(
    r"(?:vllm|lmdeploy|tensorrt_llm|text_generation_server|llama_cpp|fastchat|xinference|mlc_llm|aphrodite|gunicorn|hypercorn|flask|pip"
    r"|ray|bentoml|dynamo|litellm|huggingface_hub|huggingfaceserver|kserve|gradio|streamlit|jupyter|notebook)(?:\..{0,200})?"
)

#: What names the hub's cache, in the order in which its library reads them.
_CACHES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME")
#: The kinds of volumes that outlive a pod and take what it writes.
_LASTING = ("persistent_volume_claim", "host_path", "nfs", "azure_disk", "cinder", "gce_persistent_disk", "aws_elastic_block_store",
            "iscsi", "rbd")  # fmt: skip

#: What the kernel says where the user may not, whatever the mount lets.
_FORBIDDEN = frozenset({"permission denied", "operation not permitted"})
#: What it says where nobody may.
_READ_ONLY = "read-only file system"
#: A path in the words of a tool on what it may not do.
_IN_WORDS = expression(r"(?:^|[\s'\"‘])(/[^\s'\"’:]{1,300})")

#: Engines whose kernels Triton compiles.
_OF_TRITON = frozenset({"vllm", "sglang", "huggingfaceserver"})
#: The volume for a model's files on a claim, as the chart llm-d-modelservice mounts it, always read-only.
_OF_MODELSERVICE = ("model-storage", "/model-cache")
#: The home of root, for which claims are mounted that other users then look for in their own.
_ROOT = "/root"


class Files(Topic):
    """The path that the line names in the container, and its volume."""

    decides = get_args(OfFiles)

    def values(self) -> dict[str, Value]:
        return super().values() | {
            "twice": lambda: larger(units(self.captured.get("limit")), self.here.model_bytes),
            "volume": lambda: self.mount.name if self.mount else "",
            "mount": lambda: self.mount.mount_path if self.mount else "",
            "user": lambda: self._user or "1000",
            "inside": lambda: (self.place.inside if self.place else "") or "the model",
            "lacks": lambda: (self.place.inside if self.place else "") or "config.json",
            "set_at": lambda: (self.place.set_at if self.place else "") or "the argument or variable",
            "mounts": lambda: " and ".join(
                f"{mount.mount_path} ({backing(volume)})" for mount, volume in self._data[:3]
            ),
            "homed": lambda: self._homed[0],
            "homed_volume": lambda: self._homed[1],
            "homed_from": lambda: self._homed[2],
            "homed_to": lambda: self._homed[2].removeprefix(_ROOT),
            "shared_volume": lambda: self._shared[0],
            "shared_at": lambda: self._shared[1],
            "shared_by": lambda: self._shared[2],
            "shared_too": lambda: self._shared[3],
            "fetched": lambda: self._fetched[0],
            "fetched_at": lambda: self._fetched[1],
            "fetcher": lambda: self._fetched[2],
            "configuration": lambda: self._configuration[0],
            "configured_by": lambda: self._configuration[1],
            "no_data": "" if self.log_only else ", as no volume with data is mounted",
        }

    def _holds(self) -> Iterator[Condition]:
        injected = self.container is not None and self.container.name == "storage-initializer"
        yield "storage initializer" if injected else "no storage initializer"
        yield "forbidden" if self.captured.get("why", "").lower() in _FORBIDDEN else "not forbidden"
        yield "home closed" if self.place and self.place.home_closed else "home open"
        yield "volume passing" if self.place and self.place.passing else "volume lasting"
        yield "a folder" if self.folder else "no folder"
        yield "programs there" if self.place and self.place.among_programs else "no programs there"
        yield "mounted elsewhere" if self._data else "nothing mounted"
        yield from self._of_volume()

    @cached_property
    def place(self) -> Place | None:
        """The path that the line names, in the container."""
        path = self.captured.get("path") or self.captured.get("model") or ""
        if rooted := self.captured.get("rooted"):  # as a hook of the runtime names it, below the root of the container
            path = f"/{rooted}"
        if not path and self.captured.get("why", "").lower() in (*_FORBIDDEN, _READ_ONLY):
            named = _IN_WORDS.search(self.captured.get("what", ""))
            path = named[1] if named else ""
        return Place(self.container, path) if self.container and path else None

    @cached_property
    def mount(self) -> VolumeMount | None:
        """The volume on which the path lies that the line names; where it names none, the only one that may hold data."""
        if self.container is None or self.place is not None:
            return self.place.mount if self.place else None
        return self._data[0][0] if len(self._data) == 1 else None

    @template_value
    def unlocked_where(self) -> str:
        """Where else than at its mount the volume of the path is read-only, or who mounts it so."""
        mount, pod = self.mount, self.pod
        volume = pod.volume(mount.name) if pod and mount else None
        claim = volume.persistent_volume_claim if volume else None
        of_chart = mount is not None and mount.read_only and (mount.name, mount.mount_path) == _OF_MODELSERVICE
        if of_chart and pod and any(label.startswith("llm-d.ai/") for label in pod.labels):
            return (
                " (the chart llm-d-modelservice mounts it so itself: in its values mountModelVolume: false of the container, with a "
                "volume and a volumeMount of your own)"
            )
        return " (where volumes names its claim, too)" if claim is not None and claim.read_only else ""

    @template_value
    def volume_is(self) -> str:
        """`claim weights`: what is behind that volume; `the volume` where nobody knows, or the model does not lie on it."""
        if self.place:
            return self.place.volume_is
        volume = self.pod.volume(self.mount.name) if self.pod and self.mount else None
        beside = self.mount is not None and self.there.startswith("/") and not self._inside(self.there, self.mount)
        return backing(volume) if volume and not beside else "the volume"

    @template_value
    def volume_size(self) -> str:
        """What decides how large that volume is."""
        volume = self.pod.volume(self.mount.name) if self.pod and self.mount else None
        if volume and (volume.empty_dir or volume.host_path):
            node = self.node_name
            return f"this one has the room of the disk of {f'node {node}' if node else 'its node'}"
        return "a claim grows only where its storage class allows that" if volume else "this one is full"

    @staticmethod
    def _inside(path: str, mount: VolumeMount) -> bool:
        return f"{path}/".startswith(f"{mount.mount_path.rstrip('/')}/")

    def _of_volume(self) -> tuple[OfFiles, ...]:
        """What is so of the volume on which the path lies that the line names."""
        mount, pod = self.mount, self.pod
        volume = pod.volume(mount.name) if pod and mount else None
        if pod is None or mount is None or volume is None:
            return "mounted writable", "no fsGroup", "volume on disk", "no volume mounted"
        claim, scratch = volume.persistent_volume_claim, volume.empty_dir
        # what the API server fills in cannot be mounted otherwise
        given_by_api = volume.config_map or volume.secret or volume.projected
        read_only = not given_by_api and (mount.read_only or (claim is not None and claim.read_only))
        kept = volume.host_path or volume.nfs  # by which the kubelet never goes
        grouped = (kept or pod.spec.security_context.fs_group is not None) and not given_by_api
        in_memory = scratch is not None and scratch.medium == "Memory"
        return (
            "mounted read-only" if read_only else "mounted writable",
            "fsGroup set" if grouped else "no fsGroup",
            "volume in memory" if in_memory else "volume on disk",
            "no volume mounted" if given_by_api else "volume mounted",
        )

    @template_value
    def volume_at(self) -> str:
        """The place of the volume that the line names in the pod's spec."""
        names = [volume.name for volume in self.pod.spec.volumes] if self.pod else []
        return str(names.index(self.captured["volume"])) if self.captured.get("volume") in names else "0"

    @template_value
    def sub_path(self) -> str:
        """The subPath with which the volume that the line names is mounted."""
        mounts = [m for c in (self.pod.containers if self.pod else ()) for m in c.spec.volume_mounts]
        named = [m.sub_path for m in mounts if m.name == self.captured.get("volume") and m.sub_path]
        return named[0] if named else "that subPath names"

    @template_value
    def bucket(self) -> str:
        """The bucket behind the volume that the line names, by its PersistentVolume or by the pod's own words."""
        name = self.captured.get("volume", "")
        item = self.subject.cluster.item("PersistentVolume", "", name) if name else None
        own = self.pod.volume(name) if self.pod and name else None
        csi = dig(item.raw, "spec.csi") if item else own.csi if own else None
        told = dig(csi, "volumeAttributes.bucketName") or dig(csi, "volumeHandle")
        return str(told or "BUCKET").partition(":")[0]

    @template_value
    def claims(self) -> str:
        """The claims of the namespace that the pod does not mount, as a question: ` (claim weights?)`."""
        mine = [v.persistent_volume_claim for v in self.pod.spec.volumes] if self.pod else []
        used = {claim.claim_name for claim in mine if claim}
        items = self.subject.cluster.items("PersistentVolumeClaim", self.subject.namespace)
        free = [item.name for item in items if item.name not in used]
        return f" (claim {' or '.join(free)}?)" if 0 < len(free) <= _MOST_CLAIMS else ""

    @template_value
    def anew(self) -> str:
        """How many starts each had nothing of the model, where there were several: a container without any volume keeps nothing."""
        mounts = self.container.spec.volume_mounts if self.container else ()
        keeps = any(not m.mount_path.startswith(("/dev/", "/var/run/secrets/")) for m in mounts)
        starts = self.container.restarts if self.container and not keeps and not self.log_only else 0
        return str(starts) if starts > 1 else ""

    @cached_property
    def _user(self) -> str:
        """The user that the container is to run as, where it says so."""
        return str((self.container.user if self.container else None) or "")

    @cached_property
    def _data(self) -> list[tuple[VolumeMount, Volume]]:
        """The volumes of the container that may hold data."""
        return data_mounts(self.container) if self.container else []

    @template_value
    def triton_folder(self) -> str:
        """Where that is the cache in a home of another user's: the folder of Triton's cache beside it, of which an engine fails next."""
        home, cache, below = self.folder.rpartition("/.cache")
        engine = self.engine.name if self.engine else ""
        return f"{home}/.triton" if cache and not below and home.startswith("/home/") and engine in _OF_TRITON else ""

    @template_value
    def folder(self) -> str:
        """The folder at which an empty volume may be mounted for the path."""
        return self.captured.get("folder", self.place.folder if self.place else "")

    @template_value
    def cache_on(self) -> str:
        """`claim models at /cache`: the volume on which the hub's cache of the container lies, where it is a lasting one."""
        told = self._cache
        for mount, volume in self._data if told else ():
            kept = any(getattr(volume, kind) is not None for kind in _LASTING)
            if kept and not mount.read_only and f"{told}/".startswith(f"{mount.mount_path.rstrip('/')}/"):
                return f"{backing(volume)} at {mount.mount_path}"
        return ""

    @property
    def _cache(self) -> str:
        """Where the hub's cache of the container lies, by its engine, a variable or its home; empty where that is not known."""
        env = self.container.env if self.container else {}
        if self.engine and (folder := self.engine.explicit("download_dir")):
            return str(folder.value or "")
        if named := [env[name].value or "" for name in _CACHES if name in env]:
            return named[0]
        home = env["HOME"].value if "HOME" in env else "/root"
        return f"{home}/.cache/huggingface" if home else ""

    @cached_property
    def _configuration(self) -> tuple[str, str]:
        """The one file that the program is told of, as a key of its ConfigMap, and what kubectl edits for it."""
        workload = self.workload.ref if self.workload else f"Pod/{self.pod.name}" if self.pod else "the workload"
        files = [*self.container.files] if self.container else []
        told = " ".join(map(str, self.container.spec.argv)) if self.container else ""
        named = [path for path in files if path in told] or files
        source = source_of(self.container, named[0]) if self.container and len(named) == 1 else None
        if source is None or not source.key:
            return "its configuration", workload
        return f"key {source.key} of {source.ref}", f"configmap/{source.name}"

    @cached_property
    def _fetched(self) -> tuple[str, str, str]:
        """What an init container fetches from a store to the volume on which the path lies, what tells it so, and its name."""
        place = self.place
        # what is told of a folder below may be told wrongly
        volume = place.volume if place and not (place.set_at and place.inside) else None
        for one in self.pod.containers if self.pod and volume else ():
            mine = any(mount.name == volume.name for mount in one.spec.volume_mounts) if volume else False
            source = model_store.address(one) if mine and one.role == "init" and one is not self.container else ""
            if source:
                told = "storageUri" if one.name == "storage-initializer" else f"init container {one.name}"
                return source, told, one.name
        return "", "", ""

    @template_value
    def moved(self) -> str:
        """The path, below what else the container has mounted."""
        name = (self.place.path if self.place else "").rpartition("/")[2]
        return f"{self._data[0][0].mount_path.rstrip('/')}/{name}" if self._data else ""

    @cached_property
    def _homed(self) -> tuple[str, str, str]:
        """The mount below root's home that was meant for a user whose home is `/`: its number, its volume and its path."""
        path = self.place.path if self.place else ""
        for index, mount in enumerate(self.container.spec.volume_mounts if self.container else ()):
            at = mount.mount_path.rstrip("/")
            if at.startswith(f"{_ROOT}/.") and f"{path}/".startswith(f"{at.removeprefix(_ROOT)}/"):
                return str(index), mount.name, at
        return "", "", ""

    @cached_property
    def _shared(self) -> tuple[str, str, str, str]:
        """The volume that the container lacks, and other containers of the pod have where it is told of a folder.

        Its name, where they have it, who they are, and who else is told of it and lacks it: ` and llm-worker`.
        """
        path, mine = self.place.path.rstrip("/") if self.place else "", self.container
        for other in self.pod.containers if self.pod and mine and path and not self.mount else ():
            for mount in other.spec.volume_mounts:
                at = mount.mount_path.rstrip("/")
                volume = self.pod.volume(mount.name) if self.pod else None
                if volume is None or volume.config_map or volume.secret or volume.projected or not at or mine is None:
                    continue
                above = f"{at}/".startswith(f"{path}/")  # a folder that is made on the way
                if (
                    (above or f"{path}/".startswith(f"{at}/"))
                    and not self._has(mine, at)
                    and self._is_told(mine, at, path)
                ):
                    by, lacking = self._sharing(at)
                    return mount.name, at, by, "".join(f" and {name}" for name in lacking if name != mine.name)
        return "", "", "", ""

    def _sharing(self, at: str) -> tuple[str, list[str]]:
        """The containers that have a volume there, in words, and those that are told of the folder and have none."""
        every = self.pod.containers if self.pod else ()
        having = [one.name for one in every if self._has(one, at)]
        return " and ".join(having), [
            one.name for one in every if not self._has(one, at) and self._is_told(one, at, at)
        ]

    @staticmethod
    def _has(container: Container, at: str) -> bool:
        return any(mount.mount_path.rstrip("/") == at for mount in container.spec.volume_mounts)

    @staticmethod
    def _is_told(container: Container, *folders: str) -> bool:
        """Whether a container's variables or words name a folder, or one below it."""
        told = [*((one.value or "") for one in container.env.values()), *map(str, container.spec.argv)]
        values = [f"{word.rpartition('=')[2].rstrip('/')}/" for word in told]
        return any(value.startswith(f"{folder}/") for value in values for folder in folders)

    @template_value
    def there(self) -> str:
        """The path, else the engine's model."""
        if self.place:
            return self.place.path
        return str((self.engine.value("model") if self.engine else "") or "the model")

    @template_value
    def hiding(self) -> str:
        """The volume that lies where images have programs, and the program that is not found may be: `volume cache at /workspace`."""
        for mount in self.container.spec.volume_mounts if self.container else ():
            at = mount.mount_path.rstrip("/")
            volume = self.pod.volume(mount.name) if self.pod else None
            if volume and _PROGRAMS.fullmatch(at) and self._looked_for(at) and not self._brings(volume, at):
                return f"volume {mount.name} at {at}"
        return ""

    def _looked_for(self, at: str) -> bool:
        """Whether the program, or the module of Python's, that is not found would lie in a folder of an image."""
        program, module = self.captured.get("program", ""), self.captured.get("module", "")
        if program.startswith("/"):
            return program.startswith(f"{at}/")
        if program:
            return "/" not in program and not program.startswith("-") and bool(_ON_PATH.fullmatch(at))
        if module.partition(".")[0] == "sglang":
            return at == _OF_SGLANG
        # the engine's own image has it, as early ones of vLLM do in /workspace
        elsewhere = (_INSTALLED.fullmatch(module) or package(module)) and not (self.engine and self.engine.own_image)
        return bool(module) and at != _OF_SGLANG and not (elsewhere and _OWN.fullmatch(at))

    def _brings(self, volume: Volume, at: str) -> bool:
        """Whether a volume is meant to bring the program: by its kind, by another container that fills it, by where the server runs."""
        kinds = (volume.persistent_volume_claim, volume.host_path, volume.nfs, volume.csi, volume.ephemeral)
        if self.container is None or self.pod is None or not (volume.empty_dir or any(kinds)):
            return True
        others = (one for one in self.pod.containers if one is not self.container)
        if any(mount.name == volume.name and not mount.read_only for one in others for mount in one.spec.volume_mounts):
            return True
        path = self.container.env.get("PYTHONPATH")
        places = (self.container.spec.working_dir, *((path.value or "") if path else "").split(":"))
        return volume.empty_dir is None and any(f"{place.rstrip('/')}/".startswith(f"{at}/") for place in places)

    @template_value
    def chown(self) -> str:
        """What lets the container's user write to the volume."""
        give = f"chown -R {self._user}:{self._user}" if self._user else "chmod -R a+rwX"
        return f"{give} {self._given}".strip()

    @property
    def _given(self) -> str:
        """What is given to the container's user: the whole volume, of a folder of the node's own system only the path."""
        place = self.place
        if place and place.volume and place.volume.host_path and SYSTEM.fullmatch(place.volume.host_path.path):
            return place.path
        return self.mount.mount_path if self.mount else ""
