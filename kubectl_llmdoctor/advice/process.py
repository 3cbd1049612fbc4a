"""The process of the container: how it ended, what it is given, and what it answers to."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import cached_property, partial
from typing import get_args

from kubectl_llmdoctor.advice.declared import Condition, OfProcess
from kubectl_llmdoctor.advice.occurrence import Topic
from kubectl_llmdoctor.advice.templates import Value
from kubectl_llmdoctor.engines.names import option, passed_on
from kubectl_llmdoctor.engines.vllm_flags import LATER_TOOL_PARSERS
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts import script
from kubectl_llmdoctor.facts.engine import Engine
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.units import GIB
from kubectl_llmdoctor.fixes import edited
from kubectl_llmdoctor.reach import server_of
from kubectl_llmdoctor.room.amounts import amount
from kubectl_llmdoctor.stating import takes_adapters
from kubectl_llmdoctor.template_values import template_value

#: What each signal that ends a process mostly tells.
_SIGNALS = {
    "4": "an instruction that the processor does not have",
    "6": "the process gave up by itself",
    "7": "a bus error, usually /dev/shm or a file that is cut short",
    "9": "a kill, usually for memory",
    "11": "a crash in a library",
}

#: Settings whose option a template may name: `{max_model_len_option}`.
_OPTIONS = (
    *("max_model_len", "gpu_memory_utilization", "tensor_parallel_size"),
    *("max_num_batched_tokens", "max_num_seqs", "enforce_eager", "served_model_name", "max_input_tokens"),
)

#: So many starts may have filled a volume with what they left.
_SEVERAL = 3
#: A volume that has no room for this part of it was filled by more than one start: the segments of all ranks together are less.
_LITTLE_OF_IT = 64

#: Where containers find the driver's libraries: as GKE mounts them, and as NVIDIA's toolkit does in Debian's and Red Hat's images.
_DRIVER = ("/usr/local/nvidia/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64")


#: The user that an image has for its server: Triton's triton-server.
_MADE_FOR = {"triton": 1000}
#: The release from which llama-server's --flash-attn takes a value.
_FLASH_VALUE = "b6325"

#: The release from which vLLM takes its loader for bitsandbytes of what the checkpoint's config.json says (engine/arg_utils.py).
_BITSANDBYTES_BY_ITSELF = "0.8.4"

#: By which a start script changes the packages of its image.
_PIP_INSTALL = expression(r"\bpip3?[ \t][^\n;&|]{0,200}\binstall\b")

#: What pip took away when a start installed another release of it, and its words behind which a value follows.
_REPLACED = expression(r"Found existing installation: (?P<name>[\w.-]{1,80}) (?P<release>\d[\w.+!-]{0,40})\s*$")
_WITH_A_VALUE = (
    "-i",
    "-r",
    "-c",
    "-t",
    "-f",
    "--index-url",
    "--extra-index-url",
    "--find-links",
    "--target",
    "--constraint",
)
#: A bound from below alone keeps no newer release away.
_NAMED = expression(r"(?P<name>[A-Za-z][\w.-]{0,80})(?:\[[\w,.-]{0,80}\])?(?:>=?\d[\w.]{0,20})?")
_AT_A_RELEASE = expression(r"(?P<name>[A-Za-z][\w.-]{0,80})(?:\[[\w,.-]{0,80}\])?==(?P<release>\d[\w.+!-]{0,40})")
#: Behind which the rest of a line of a shell is a comment.
_COMMENT = expression(r"(?:^|\s)#")
_FROM_GIT = expression(r"(?:[\w.-]{1,80} {0,2}@ {0,2})?git\+[^@\s]{1,200}/(?P<name>[\w.-]{1,80}?)(?:\.git)?")

#: Settings with a draft model, and by what the log tells that it is loaded: vLLM's words (v1/worker/gpu_model_runner.py), and frames.
_DRAFTS = ("speculative_config", "speculative_model", "speculative_algorithm")
_LOADS_DRAFT = ("Loading drafter model", "/vllm/v1/spec_decode/", "/sglang/srt/speculative/")

#: SGLang's attention backends with kernels for every generation of GPUs.
_ANY_GPU = ("triton", "flashinfer")

#: By which vLLM is told how long its API servers wait for the engine.
_READY_TIMEOUT = "VLLM_ENGINE_READY_TIMEOUT_S"

#: A variable as a shell knows it, in what a program took for a name.
_SHELL_VARIABLE = expression(r"\$\{?(?P<name>[A-Za-z_]\w{0,80})\}?")


class Process(Topic):
    """How the process ended, its memory, and what its engine calls settings."""

    decides = get_args(OfProcess)

    def values(self) -> dict[str, Value]:
        return super().values() | {
            "signal_meant": _SIGNALS.get(self.captured.get("signal", ""), "its process was ended from outside"),
            "memory_now": lambda: self._memory[0],
            "more_memory": lambda: self._memory[1],
            "cpus": lambda: str(self._cpus),
            "known_name": lambda: " or ".join(self._names) or "a name that stands at /v1/models",
            "unfilled": lambda: self._unfilled[0],
            "filled": lambda: self._unfilled[1],
            **{f"{name}_option": partial(self._option, name) for name in _OPTIONS},
        }

    def _holds(self) -> Iterator[Condition]:
        yield self._ending
        if self.container is not None and self.container.engine_dead and not self.log_only:
            yield "still ready"
        if not self.container or self.container.may_be_root:
            if not self.container or not self.container.may("IPC_LOCK"):
                yield "capability helps"
        elif not self.log_only:
            yield "user given"
        # the group `value` of a message that vLLM has none of that name
        of_tools = self.captured.get("kind") != "Reasoning"
        later = of_tools and self.captured.get("value", "") in LATER_TOOL_PARSERS
        yield "parser of later releases" if later else "parser of no release known"
        if self._unread_by_bitsandbytes:
            yield "bitsandbytes by option"
        if self._beyond_shm:
            yield "larger than /dev/shm"
        path = self.container.env.get("LD_LIBRARY_PATH") if self.container else None
        folders = [folder.rstrip("/") for folder in (path.value or "" if path else "").split(":")]
        yield "driver on the path" if _DRIVER[0] in folders else "driver not on the path"
        mounts = self.container.spec.volume_mounts if self.container else ()
        above = {_DRIVER[0], _DRIVER[0].rpartition("/")[0]}
        yield "driver mounted" if any(m.mount_path.rstrip("/") in above for m in mounts) else "driver not mounted"
        words = self.container.words if self.container else ()
        installs = any(_PIP_INSTALL.search(text) for _, text in words)
        yield "installs at the start" if installs or self.container is None else "installs nothing at the start"
        said = self.container is None or bool(self.container.spec.command or self.container.spec.args)
        yield "something to run" if said else "nothing to run"
        if self.engine is not None and takes_adapters(self.engine):
            yield "adapters taken"

    @property
    def _unread_by_bitsandbytes(self) -> bool:
        """Whether vLLM takes its loader for bitsandbytes only by an option, and was not told it; that one divides no tensors."""
        engine = self.engine
        if engine is None or engine.name != "vllm" or engine.at_least(_BITSANDBYTES_BY_ITSELF) is not False:
            return False
        told = (engine.value(name) for name in ("quantization", "load_format"))
        return "bitsandbytes" not in told and engine.value("tensor_parallel_size", 1) == 1

    @cached_property
    def _ending(self) -> OfProcess:
        """How a process ended that a signal took, as the line says it."""
        signal = self.captured.get("signal", "").lower() if self.container and not self.log_only else ""
        if signal in ("9", "sigkill", "killed"):
            return "killed in its limit" if self._memory[0] else "killed without a limit"
        if signal in ("7", "sigbus", "bus error"):
            return "bus error"
        return "crashed" if signal else "end not known"

    @template_value
    def image_user(self) -> str:
        """The user for whom the engine's own image was made, where the container is to run as another."""
        made_for = _MADE_FOR.get(self.engine.name) if self.engine and self.engine.own_image else None
        user = self.container.user if self.container and not self.log_only else None
        return str(made_for) if made_for and user and user != made_for else ""

    @cached_property
    def _ollama(self) -> Engine | None:
        """The Ollama server that the container is, or asks alone, where a command can be run in it."""
        if self.log_only:
            return None
        server = self.engine or (server_of(self.container) if self.container else None)
        return server if server is not None and server.name == "ollama" and server.container.running else None

    @template_value
    def ollama_pod(self) -> str:
        """The pod of the Ollama server that the container is, or asks alone: `ollama-0`."""
        return self._ollama.pod.name if self._ollama else ""

    @template_value
    def ollama_namespace(self) -> str:
        """Its namespace."""
        return self._ollama.pod.namespace if self._ollama else ""

    @template_value
    def ollama_container(self) -> str:
        """Its container."""
        return self._ollama.container.name if self._ollama else ""

    @template_value
    def loader_told(self) -> str:
        """LD_LIBRARY_PATH of the container, by which the loader looks elsewhere than the image says, with its value where that is known."""
        told = self.container.env.get("LD_LIBRARY_PATH") if self.container else None
        return "" if told is None else f"LD_LIBRARY_PATH={told.value}" if told.value else "LD_LIBRARY_PATH"

    @template_value
    def flash_on(self) -> str:
        """How llama-server is told to use flash attention: by a switch alone in releases before the option took a value."""
        old = (
            self.engine is not None and self.engine.name == "llama.cpp" and self.engine.at_least(_FLASH_VALUE) is False
        )
        return "--flash-attn" if old else "--flash-attn on"

    @template_value
    def asker(self) -> str:
        """`OPENAI_MODEL of agent in Deployment/agent`: the variable of another pod that holds the name which clients ask for."""
        name, pod = self.captured.get("name"), self.pod
        if not name or pod is None or self.log_only:
            return ""
        for item in self.subject.cluster.items("Pod", pod.namespace):
            other = Pod.of(item, self.subject.cluster)
            for container in () if item is pod.item or other.completed else other.containers:
                told = [n for n, variable in container.env.items() if variable.value == name and "MODEL" in n.upper()]
                if told:
                    return f"{told[0]} of {container.name} in {edited(other)}"
        return ""

    @template_value
    def driver_first(self) -> str:
        """A path of libraries on which those of the driver come first, and CUDA's compatibility libraries not at all."""
        told = self.container.env.get("LD_LIBRARY_PATH") if self.container else None
        own = [folder for folder in (told.value or "" if told else "").split(":") if "/compat" not in folder]
        return ":".join(dict.fromkeys((*_DRIVER, *filter(None, own), "/usr/local/cuda/lib64")))

    @cached_property
    def _unfilled(self) -> tuple[str, str]:
        """An option whose value has a variable as only a shell fills it in, and that value as Kubernetes does.

        The variable is that of the captured host, path or model, in whatever letters a program repeats it, and one that the container has.
        """
        container = self.container
        texts = (self.captured.get(group, "") for group in ("host", "path", "model"))
        told = next((found for text in texts if (found := _SHELL_VARIABLE.search(text))), None)
        if container is None or told is None or script.is_script(container):
            return "", ""
        name = next((n for n in container.env if n.upper() == told["name"].upper()), "")
        if not name and (leader := told["name"].upper()).startswith("LWS_"):
            name = leader  # LeaderWorkerSet's webhook gives it to each pod
        if not name:
            return "", ""
        written = re.compile(rf"\$(?:\{{{name}\}}|{name}(?!\w))")
        for vector in (container.spec.args, container.spec.command):
            words = [str(word) for word in vector]
            for index, word in enumerate(words):
                option, equals, value = word.partition("=")
                if not written.search(word):
                    continue
                if option.startswith("-") and equals:
                    return option, written.sub(f"$({name})", value)
                if index and words[index - 1].startswith("-") and "=" not in words[index - 1]:
                    return words[index - 1], written.sub(f"$({name})", word)
        return "", ""

    @property
    def _cpus(self) -> int:
        """As many threads as the container has CPUs to run them on, where something says so, else four."""
        told = (self.container.limit("cpu") or self.container.request("cpu")) if self.container else None
        return max((told or 4000) // 1000, 1)

    @template_value
    def known_as(self) -> str:
        """`, but to llama`: the name of the model that the server answers to, where it is known to be another than was asked for."""
        return f", but to {' or '.join(self._names)}" if self._names else ""

    @cached_property
    def _names(self) -> list[str]:
        """The names that the server answers to, where they are known, and the one that was asked for is none of them."""
        engine = self.engine
        name = (engine.value("served_model_name") or engine.value("model")) if engine else None
        names = [name] if isinstance(name, str) else list(name) if isinstance(name, (list, tuple)) else []
        asked = self.captured.get("name") in names
        return names if not asked and all(isinstance(n, str) and n for n in names) else []

    @template_value
    def set_by(self) -> str:
        """The variable that holds what the line gives as a value, where it is just one; else words for whatever holds it."""
        value, env = self.captured.get("value"), self.container.env if self.container else {}
        names = [name for name, variable in env.items() if value and variable.value == value]
        return f"the variable {names[0]}" if len(names) == 1 else "the argument, variable or file that sets it"

    @cached_property
    def _memory(self) -> tuple[str, str]:
        """The container's memory limit, and one that is half as much again."""
        container = self.container
        limit = container.limit("memory") if container else None
        if container is None or not limit:
            return "", ""
        return str(container.spec.resources.limits["memory"]), f"{math.ceil(limit * 1.5 / GIB)}Gi"

    @template_value
    def node_heap(self) -> str:
        """Three quarters of the container's memory limit in MiB, for the heap of Node, unless it has options of its own."""
        limit = self.container.limit("memory") if self.container else None
        told = self.container is not None and "NODE_OPTIONS" in self.container.env
        return "" if not limit or told else str(limit * 3 // 4 // 2**20)

    @template_value
    def shm(self) -> str:
        """A size of /dev/shm that is enough for most, twice what a volume that is there has, and half as much again as was asked for."""
        size = self.container.shm.size_bytes if self.container else None
        asked = amount(self.captured.get("store") or self.captured.get("need")) or 0
        return f"{max(2 * (size or 0) // GIB, math.ceil(asked * 1.5 / GIB), 8)}Gi"

    @property
    def _beyond_shm(self) -> bool:
        """Whether more was asked for than /dev/shm has room for when it is empty."""
        size, need = self.container.shm.size_bytes if self.container else None, amount(self.captured.get("need"))
        return size is not None and need is not None and need > size

    @property
    def _pip_commands(self) -> Iterator[tuple[str, list[str]]]:
        """The commands of the start that install packages, each with what it names."""
        for _, text in self.container.words if self.container else ():
            for found in _PIP_INSTALL.finditer(text):
                if _COMMENT.search(text[text.rfind("\n", 0, found.start()) + 1 : found.start()]):
                    continue
                rest = re.split(r"[\n;&|]", text[found.end() : found.end() + 2000], maxsplit=1)[0]
                yield f"{found[0]}{rest}".strip()[:200], _required(rest.split())

    @cached_property
    def _installed(self) -> tuple[str, list[str]]:
        """The first command that installs packages without saying which release, and those; else nothing."""
        for command, named in self._pip_commands:
            if names := [found["name"] for word in named if (found := _unpinned(word))]:
                return command, names
        return "", []

    @cached_property
    def _exchanged(self) -> tuple[str, dict[str, str]]:
        """The command of the start by which pip took packages of the image away, and the releases that these had; else nothing."""
        logs = self.container.own_logs(self.subject.logs(self.pod)) if self.container and self.pod else []
        had = {
            _plain(said["name"]): said["release"]
            for log in logs
            for _, said in log.matching(_REPLACED, "Found existing installation: ", most=300)
        }
        for command, named in self._pip_commands if had else ():
            asked = [found for word in named if (found := _unpinned(word) or _AT_A_RELEASE.fullmatch(word))]
            gone = {one["name"]: had[_plain(one["name"])] for one in asked if _plain(one["name"]) in had}
            if gone:
                return command, gone
        return "", {}

    @template_value
    def pip_line(self) -> str:
        """The command of the start that took packages of the image away, else the one that installs the newest of some."""
        return self._exchanged[0] or self._installed[0]

    @template_value
    def unpinned(self) -> str:
        """The packages that are named there without a release."""
        return ", ".join(self._installed[1])

    @template_value
    def pins(self) -> str:
        """The packages that the image had, with the release that pip says that it took away: `transformers==4.57.0`."""
        return " ".join(f"{name}=={release}" for name, release in self._exchanged[1].items())

    @template_value
    def other_backend(self) -> str:
        """The kernels for attention that SGLang may be told to take on any GPU, without those that it is told already."""
        told = self.engine.explicit("attention_backend") if self.engine and self.engine.name == "sglang" else None
        return " or ".join(name for name in _ANY_GPU if told is None or str(told.value) != name)

    @template_value
    def draft_told(self) -> str:
        """The setting by which the engine has a draft model, where the log says that it had come to loading that one."""
        told = (self.engine.explicit(name) for name in _DRAFTS) if self.engine else ()
        setting = next((one for one in told if one is not None), None)
        if setting is None or self.container is None or self.pod is None:
            return ""
        logs = self.container.own_logs(self.subject.logs(self.pod))
        comes = any(next(log.find(*_LOADS_DRAFT), None) is not None for log in logs)
        return setting.flag if comes else ""

    @template_value
    def fixed_wait(self) -> str:
        """The release of a vLLM whose API servers wait for the engine as long as they are made to."""
        from kubectl_llmdoctor.engines.vllm import first_with

        engine = self.engine
        if engine is None or engine.name != "vllm" or engine.at_least(first_with(_READY_TIMEOUT)) is not False:
            return ""
        return engine.version or ""

    @property
    def _volume_of_several(self) -> bool:
        """Whether the volume at /dev/shm is one that lives as long as the pod, in which several starts have come and gone."""
        container = self.container
        mounts = container.spec.volume_mounts if container and container.restarts >= _SEVERAL else ()
        found = (m for m in mounts if m.mount_path.rstrip("/") == "/dev/shm")
        volume = next((container.pod.volume(m.name) for m in found), None) if container else None
        return volume is not None and volume.empty_dir is not None

    @template_value
    def left_there(self) -> str:
        """That starts before left their segments in a volume at /dev/shm, which lives as long as the pod."""
        if self.container is None or not self._volume_of_several or self.starts_left:
            return ""
        return f", and what {self.container.restarts} starts left there stays until the pod is made again"

    @template_value
    def starts_left(self) -> str:
        """How many starts have left their segments in such a volume, where one of the captured `bytes` is little beside its size."""
        bytes_ = self.captured.get("bytes", "")
        if self.container is None or not self._volume_of_several or not bytes_.isdecimal():
            return ""
        size = self.container.shm.size_bytes
        return str(self.container.restarts) if size is not None and int(bytes_) * _LITTLE_OF_IT <= size else ""

    @template_value
    def node_shm(self) -> str:
        """The node whose /dev/shm the container has: nothing is mounted there, and the pod has hostIPC, or it mounts that folder."""
        container = self.container
        if container is None:
            return ""
        mounts = [m for m in container.spec.volume_mounts if m.mount_path.rstrip("/") == "/dev/shm"]
        volume = container.pod.volume(mounts[0].name) if mounts else None
        of_node = (
            volume is not None and volume.host_path is not None and volume.host_path.path.rstrip("/") == "/dev/shm"
        )
        return self.node_name if of_node or (not mounts and container.pod.spec.host_ipc) else ""

    def _option(self, name: str) -> str:
        """What the engine calls a setting."""
        if self.engine is None:
            return option(None, name)
        passed = passed_on(self.engine.name, self.engine.version, name)
        return f"{passed} (in NIM_PASSTHROUGH_ARGS)" if passed else option(self.engine.name, name)


def _plain(name: str) -> str:
    """A package's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _required(words: list[str]) -> list[str]:
    """Of the words of a `pip install`, what it is to install."""
    texts = [word.strip("'\"") for word in words]
    behind = [False, *(word in _WITH_A_VALUE for word in words)]
    return [text for text, is_value in zip(texts, behind, strict=False) if not is_value and not text.startswith("-")]


def _unpinned(word: str) -> re.Match[str] | None:
    """What names a package without its release."""
    return _NAMED.fullmatch(word) or _FROM_GIT.fullmatch(word)
