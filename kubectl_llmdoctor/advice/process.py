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
from kubectl_llmdoctor.engines.names import option
from kubectl_llmdoctor.engines.vllm_flags import LATER_TOOL_PARSERS
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.units import GIB
from kubectl_llmdoctor.fixes import unread
from kubectl_llmdoctor.room import amount
from kubectl_llmdoctor.tree import dig

#: What each signal that ends a process mostly tells.
_SIGNALS = {
    "4": "an instruction that the processor does not have",
    "6": "the process gave up by itself",
    "7": "a bus error, mostly /dev/shm or a file that is cut short",
    "9": "a kill, mostly for memory",
    "11": "a crash in a library",
}

#: Settings whose option a template may name: `{max_model_len_option}`.
_OPTIONS = (
    *("max_model_len", "gpu_memory_utilization", "tensor_parallel_size"),
    *("max_num_batched_tokens", "max_num_seqs", "enforce_eager"),
)

#: So many starts may have filled a volume with what they left.
_SEVERAL = 3

#: Where containers find the driver's libraries: as GKE mounts them, and as NVIDIA's toolkit does in Debian's and Red Hat's images.
_DRIVER = ("/usr/local/nvidia/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64")

#: So many ports vLLM may have tried, one after the other, since its first.
_MOST_TRIED = 500

#: A port by its number.
_PORT = expression(r"[0-9]{1,5}")
#: Variables that tell a program where it shall listen.
_LISTENING = expression(r"(?i)listen|bind|^(?:\w{1,30}_)?(?:host|addr(?:ess)?|port)$")
#: The variables and the options with the port of a program itself, and so much of its words is read for them.
_OF_ITS_OWN = r"(?:(?:https?|listen|server|grpc|api|metrics|prometheus|system)[_-])?port"
_OWN_PORT = expression(
    rf"(?i)(?:(?:vllm|sglang|llama_arg|ollama|dyn|uvicorn|app)_)?(?:{_OF_ITS_OWN}|host)|\w{{0,30}}(?:listen|bind)\w{{0,30}}"
)
_OWN_PORT_OPTION = expression(rf"(?i)(?<![\w-])--{_OF_ITS_OWN}[= ](\d{{1,5}})(?!\w)")
_LONGEST = 100_000
#: The first port that needs no privilege, the last one, and how far a free one is looked for.
_FIRST_FREE, _LAST, _NEAR = 1024, 65_500, 20

#: What runs a script: which one that is the image says.
_RUNNERS = expression(r"(?:.{0,200}/)?(?:(?:ba|da|a|z)?sh|python[\d.]*|env|tini|node|ray|mpirun)")


class Process(Topic):
    """How the process ended, its memory and ports, and what its engine calls settings."""

    decides = get_args(OfProcess)

    def values(self) -> dict[str, Value]:
        return {
            "signal_meant": _SIGNALS.get(self.captured.get("signal", ""), "its process was ended from outside"),
            "memory_now": lambda: self._memory[0],
            "more_memory": lambda: self._memory[1],
            "shm": lambda: self._shm,
            "left_there": lambda: self._left_there,
            "cpus": lambda: str(self._cpus),
            "port": lambda: self._port,
            "port_freed": lambda: self._port_freed,
            "known_as": lambda: self._known_as,
            "set_by": lambda: self._set_by,
            "driver_first": lambda: self._driver_first,
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
        if self._chosen_by_vllm:
            yield "port from VLLM_PORT"
        # the group `value` of a message that vLLM has none of that name
        of_tools = self.captured.get("kind") != "Reasoning"
        later = of_tools and self.captured.get("value", "") in LATER_TOOL_PARSERS
        yield "parser of later releases" if later else "parser of no release known"

    @property
    def _chosen_by_vllm(self) -> bool:
        """Whether the port that was captured is one of those that vLLM takes for its own processes, from VLLM_PORT on.

        It looks for one that is free and gives it to the process that binds it later (`utils/network_utils.py`).
        """
        container, port = self.container, self._taken
        told = container.env.get("VLLM_PORT") if container else None
        first = str(told.value if told else "")
        if container is None or not _PORT.fullmatch(first) or not _PORT.fullmatch(port):
            return False
        serves = self.engine is not None and self.engine.value("port") == int(port)
        return 0 <= int(port) - int(first) < _MOST_TRIED and not serves and not _chosen(container, port)

    @property
    def _taken(self) -> str:
        """The port that was captured, by itself or in an address."""
        address = self.captured.get("address", "").rpartition(":")[2]
        told = self.captured.get("port") or address
        return told if _PORT.fullmatch(told) else ""

    @cached_property
    def _ending(self) -> OfProcess:
        """How a process ended that a signal took, as the line says it."""
        signal = self.captured.get("signal", "").lower() if self.container and not self.log_only else ""
        if signal in ("9", "sigkill", "killed"):
            return "killed in its limit" if self._memory[0] else "killed without a limit"
        if signal in ("7", "sigbus", "bus error"):
            return "bus error"
        return "crashed" if signal else "end not known"

    @property
    def _driver_first(self) -> str:
        """A path of libraries on which those of the driver come first, and CUDA's compatibility libraries not at all."""
        told = self.container.env.get("LD_LIBRARY_PATH") if self.container else None
        own = [folder for folder in (told.value or "" if told else "").split(":") if "/compat" not in folder]
        return ":".join(dict.fromkeys((*_DRIVER, *filter(None, own), "/usr/local/cuda/lib64")))

    @property
    def _cpus(self) -> int:
        """As many threads as the container has CPUs to run them on, where something says so, else four."""
        told = (self.container.limit("cpu") or self.container.request("cpu")) if self.container else None
        return max((told or 4000) // 1000, 1)

    @property
    def _port_freed(self) -> str:
        """How the port that was captured becomes free: by who else has it in the pod, or on its node."""
        pod, container = self.pod, self.container
        port = self._taken or self._own_port
        if pod is None or container is None or self.log_only:
            return "Give one of those that want the port another: a container of the pod, a second server in its script, a pod of its node"
        place = unread(pod) or (self.workload.ref if self.workload else f"Pod/{pod.name}")
        who, other = f"{container.name} of {place}", f"another port than {port}" if port else "another port"
        mine = [one for one in pod.containers if one is not container and one.role != "init"]
        holder = next((one for one in mine if port and self._listens(one, int(port))), None)
        near = [one for other in self._on_its_network(pod) for one in other.containers]
        free = _free_port(port, [*pod.containers, *near])
        if holder is not None:
            return f"Give {container.name} or {holder.name} of {place} {other}{free}, with its probes and Service: they share one network"
        if pod.spec.host_network and (found := self._beside(pod, container, port)):
            beside, alike = found
            if free and not alike:
                return (
                    f"Give {who} {other}{free}{_told_by(container, port)}, with its probes and Service: {beside} has it in the network of "
                    "their node; or take hostNetwork: true away, or keep the two on different nodes (podAntiAffinity)"
                )
            return (
                f"Keep {place} and {beside} on different nodes (podAntiAffinity), as both want the port in the network of their node, "
                f"or give one of them {other}, or take hostNetwork: true away"
            )
        if pod.spec.host_network:
            return f"Take hostNetwork: true out of {place}, or give {container.name} a port that nobody else has on that node"
        if mine:
            names = ", ".join(one.name for one in mine)
            at = f"{who} {other}{free}{_told_by(container, port)}"
            return f"Give {at}, as all containers of a pod share one network, and {names} is in it as well"
        return f"Start one server at {f'port {port}' if port else 'the port'} in {who}: its command starts a second one, or one still runs"

    @property
    def _own_port(self) -> str:
        """Where a line names none: the port that the server was told to listen on, if another pod of its node wants the same."""
        setting = self.engine.explicit("port") if self.engine and self.engine.container is self.container else None
        if setting is None or not isinstance(setting.value, int) or self.pod is None or self.container is None:
            return ""
        port = str(setting.value)
        return port if self.pod.spec.host_network and self._beside(self.pod, self.container, port) else ""

    def _on_its_network(self, pod: Pod) -> list[Pod]:
        """The other pods in the network of the same node."""
        if not pod.spec.host_network or not pod.spec.node_name:
            return []
        others = [
            Pod.of(item, self.subject.cluster) for item in self.subject.cluster.items("Pod") if item is not pod.item
        ]
        return [
            one
            for one in others
            if one.spec.host_network
            and one.spec.node_name == pod.spec.node_name
            and not one.completed
            and not one.leaving
        ]

    def _beside(self, pod: Pod, container: Container, port: str) -> tuple[str, bool] | None:
        """Another pod in the network of the same node that declares the port or is told of it, else runs the same there.

        `Pod/bench-worker-0`, and whether it is one more of the same object's.
        """
        alike = None
        for other in self._on_its_network(pod):
            named = f"Pod/{other.name}" + ("" if other.namespace == pod.namespace else f" of {other.namespace}")
            owned = _owners(other) & _owners(pod)
            for one in other.containers:
                if port in {str(p.host_port or p.container_port) for p in one.spec.ports} or _serves(one, port):
                    return named, bool(owned)
                if not alike and _runs_the_same(one, container):
                    alike = named, bool(owned)
        return alike

    def _listens(self, container: Container, port: int) -> bool:
        """Whether another container of the pod declares a port, or its engine listens there."""
        engines = self.subject.engines(self.pod) if self.pod else ()
        told = any(engine.value("port") == port for engine in engines if engine.container is container)
        return told or any(one.container_port == port for one in container.spec.ports)

    @cached_property
    def _known_as(self) -> str:
        """`, but to llama`: the name of the model that the server answers to, where it is known to be another than was asked for."""
        engine = self.engine
        name = (engine.value("served_model_name") or engine.value("model")) if engine else None
        names = [name] if isinstance(name, str) else list(name) if isinstance(name, (list, tuple)) else []
        if not names or self.captured.get("name") in names or not all(isinstance(n, str) and n for n in names):
            return ""
        return f", but to {' or '.join(names)}"

    @cached_property
    def _set_by(self) -> str:
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

    @property
    def _shm(self) -> str:
        """A size of /dev/shm that is enough for most, twice what a volume that is there has, and half as much again as was asked for."""
        size = self.container.shm.size_bytes if self.container else None
        asked = amount(self.captured.get("store")) or 0
        return f"{max(2 * (size or 0) // GIB, math.ceil(asked * 1.5 / GIB), 8)}Gi"

    @property
    def _left_there(self) -> str:
        """That starts before left their segments in a volume at /dev/shm, which lives as long as the pod."""
        container = self.container
        mounts = container.spec.volume_mounts if container and container.restarts >= _SEVERAL else ()
        volume = (
            next((container.pod.volume(m.name) for m in mounts if m.mount_path.rstrip("/") == "/dev/shm"), None)
            if container
            else None
        )
        if container is None or volume is None or volume.empty_dir is None:
            return ""
        return f", and what {container.restarts} starts left there stays until the pod is made anew"

    @property
    def _port(self) -> str:
        """The port of the engine."""
        port = self.engine.value("port") if self.engine else None
        return str(port) if isinstance(port, int) else "8000"

    def _option(self, name: str) -> str:
        """What the engine calls a setting."""
        return option(self.engine.name if self.engine else None, name)


def _told(container: Container, port: str) -> bool:
    """Whether an option or a variable of a port has this one: `--port 8080`, `VLLM_PORT=8080`."""
    words = " ".join(container.spec.argv)
    return bool(port) and bool(_told_by(container, port) or re.search(rf"port[= ]{port}(?!\w)", words))


def _chosen(container: Container, port: str) -> bool:
    """Whether an option or another variable than VLLM_PORT gives this port, by itself or at the end of an address."""
    own = (str(variable.value or "") for name, variable in container.env.items() if name != "VLLM_PORT")
    words = re.split(r"[\s=,'\"]+", " ".join(map(str, container.spec.argv)))
    return any(word.rpartition(":")[2] == port for word in (*own, *words))


def _serves(container: Container, port: str) -> bool:
    """Whether an option or a variable tells a program to listen on this port itself, and not whom to ask: `REDIS_PORT=6379`."""
    told = any(_value_of_port(v.value) == port for name, v in container.env.items() if _OWN_PORT.fullmatch(name))
    said = _OWN_PORT_OPTION.finditer(" ".join(container.spec.argv)[:_LONGEST])
    return bool(port) and (told or any(option[1] == port for option in said))


def _value_of_port(value: str | None) -> str:
    """`8080` of `8080` and of `0.0.0.0:8080`."""
    return (value or "").rpartition(":")[2]


def _runs_the_same(one: Container, other: Container) -> bool:
    """Whether two containers run the same program with the same words."""
    words = one.spec.argv
    return (
        bool(words)
        and words == other.spec.argv
        and (one.spec.image == other.spec.image or not _RUNNERS.fullmatch(str(words[0])))
    )


def _owners(pod: Pod) -> set[str]:
    """The objects that made a pod, by their uid."""
    owners = dig(pod.item.raw, "metadata.ownerReferences") if pod.item else None
    return {str(one.get("uid")) for one in owners if isinstance(one, dict)} if isinstance(owners, list) else set()


def _told_by(container: Container, port: str) -> str:
    """` (LISTEN_ADDR says it)`: the variable that tells a program the port that it listens on; empty where none does."""
    for name, variable in container.env.items():
        if port and _LISTENING.search(name) and (variable.value or "").rpartition(":")[2] == port:
            return f" ({name} says it)"
    return ""


def _free_port(port: str, containers: list[Container]) -> str:
    """`, such as 8081`: the next port that no container near declares; empty where the port is one of the system's."""
    if not port or not _FIRST_FREE <= int(port) < _LAST:
        return ""
    taken = {p.host_port or p.container_port for one in containers for p in one.spec.ports}
    told = {number for one in containers for number in range(int(port), int(port) + _NEAR) if _told(one, str(number))}
    free = next((n for n in range(int(port) + 1, int(port) + _NEAR) if n not in taken | told), None)
    return f", such as {free}" if free else ""
