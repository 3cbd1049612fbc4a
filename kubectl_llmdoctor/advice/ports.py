"""The ports of a server: which one a line says is taken, who else has it in the pod or on its node, and one that is free."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import get_args

from kubectl_llmdoctor.advice.declared import Condition, OfPorts
from kubectl_llmdoctor.advice.occurrence import Topic
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.destinations import engines_in
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.fixes import unread
from kubectl_llmdoctor.template_values import template_value
from kubectl_llmdoctor.tree import rows

#: A port by its number.
_PORT = expression(r"[0-9]{1,5}")
#: So many ports vLLM may have tried, one after the other, since its first.
_MOST_TRIED = 500

#: Variables and options with the port of a program itself, and so much of its words is read for them.
_OF_ITS_OWN = r"(?:(?:https?|listen|server|grpc|api|metrics|prometheus|system)[_-])?port"
_OWN_PORT = expression(
    rf"(?i)(?:(?:vllm|sglang|llama_arg|ollama|dyn|uvicorn|app)_)?(?:{_OF_ITS_OWN}|host)|\w{{0,30}}(?:listen|bind)\w{{0,30}}"
)
_OWN_PORT_OPTION = expression(rf"(?i)(?<![\w-])--{_OF_ITS_OWN}[= ](\d{{1,5}})(?!\w)")
_LONGEST = 100_000
#: Variables of addresses, which may as well name another program; and what is no address of another one.
_ADDRESS = expression(r"(?i)(?:\w{1,30}_)?(?:host|addr(?:ess)?)")
_ANYWHERE = expression(r"(?:(?:tcp|http)://)?(?:\*|0\.0\.0\.0|\[::\])?")

#: The first port that needs no privilege, the first of those that nodes give away (NodePorts, and of connections), those of the kubelet and
#: its neighbours, and how far a free one is looked for.
_FIRST_FREE, _GIVEN_AWAY, _OF_NODES, _NEAR = 1024, 30_000, range(10_248, 10_260), 20

#: Variables that may say where something listens.
_OF_A_PORT = expression(r"(?i)port|addr|endpoint|host|url")
#: Those that Linux gives to connections and to whoever asks for any (`net.ipv4.ip_local_port_range`, unless it is set).
_EPHEMERAL = range(32_768, 61_000)

#: What runs a script: which one that is the image says.
_RUNNERS = expression(r"(?:.{0,200}/)?(?:(?:ba|da|a|z)?sh|python[\d.]*|env|tini|node|ray|mpirun)")


class Ports(Topic):
    """The port that somebody else has, and the engine's own."""

    decides = get_args(OfPorts)

    def _holds(self) -> Iterator[Condition]:
        if self._of_both:
            yield "VLLM_PORT is the server's"
        if self._chosen_by_vllm:
            yield "port from VLLM_PORT"

    @template_value
    def port(self) -> str:
        """The port of the engine."""
        port = self.engine.value("port") if self.engine else None
        return str(port) if isinstance(port, int) else "8000"

    @property
    def _of_both(self) -> bool:
        """Whether the server's port is the one that vLLM first takes for its own processes.

        Up to 0.6.2 the server bound its port after that, when the engine was up (`entrypoints/openai/api_server.py`).
        """
        engine, told = self.engine, self.container.env.get("VLLM_PORT") if self.container else None
        if engine is None or told is None or engine.at_least("0.6.3"):
            return False
        return self._captured == told.value == str(engine.value("port"))

    @property
    def _chosen_by_vllm(self) -> bool:
        """Whether the port that was captured is one of those that vLLM takes for its own processes, from VLLM_PORT on.

        It looks for one that is free and gives it to the process that binds it later (`utils/network_utils.py`).
        """
        container, port = self.container, self._captured
        told = container.env.get("VLLM_PORT") if container else None
        first = str(told.value if told else "")
        if container is None or not port or not _PORT.fullmatch(first):
            return False
        serves = self.engine is not None and self.engine.value("port") == int(port)
        near = 0 <= int(port) - int(first) < _MOST_TRIED
        return near and not serves and port not in _written(container, besides="VLLM_PORT")

    @property
    def _captured(self) -> str:
        """The port that the line names, by itself or in an address."""
        found = self.captured.get("port") or self.captured.get("address", "").rpartition(":")[2]
        return found if _PORT.fullmatch(found) else ""

    @property
    def _own(self) -> str:
        """Where a line names none: the port that the server was told to listen on, if another pod of its node wants the same."""
        setting = self.engine.explicit("port") if self.engine and self.engine.container is self.container else None
        if setting is None or not isinstance(setting.value, int) or self.pod is None or self.container is None:
            return ""
        port = str(setting.value)
        return port if self._beside(self.pod, self.container, port) else ""

    @template_value
    def port_freed(self) -> str:
        """How the port becomes free: by who else has it in the pod, or on its node."""
        pod, container, port = self.pod, self.container, self._captured or self._own
        if pod is None or container is None or self.log_only:
            return "Give one of those that want the port another: a container of the pod, a second server in its script, a pod of its node"
        place = unread(pod) or (self.workload.ref if self.workload else f"Pod/{pod.name}")
        who, other = f"{container.name} of {place}", f"another port than {port}" if port else "another port"
        holder = next((one for one in container.beside if port and self._listens(one, int(port))), None)
        free = _free_port(port, [pod, *self._on_its_node])
        if holder is not None:
            return f"Give {container.name} or {holder.name} of {place} {other}{free}, with its probes and Service: they share one network"
        if found := self._beside(pod, container, port):
            beside, alike = found
            if free and not alike:
                return (
                    f"Give {who} {other}{free}{_remark(container, port)}, with its probes and Service: {beside} has it in the network of "
                    "their node; or take hostNetwork: true away, or keep the two on different nodes (podAntiAffinity)"
                )
            return (
                f"Keep {place} and {beside} on different nodes (podAntiAffinity), as both want the port in the network of their node, "
                f"or give one of them {other}, or take hostNetwork: true away"
            )
        if self._picked(container):
            return (
                f"Let {container.name} start again: nothing names port {port}, its processes picked it as a free one and another "
                f"socket took it before they listened there{self._fewer_ranks}"
            )
        if pod.spec.host_network:
            return f"Take hostNetwork: true out of {place}, or give {container.name} a port that nobody else has on that node"
        if container.beside:
            names = ", ".join(one.name for one in container.beside)
            at = f"{who} {other}{free}{_remark(container, port)}"
            return f"Give {at}, as all containers of a pod share one network, and {names} is in it as well"
        return f"Start one server at {f'port {port}' if port else 'the port'} in {who}: its command starts a second one, or one still runs"

    def _picked(self, container: Container) -> bool:
        """Whether the line names a port of those that a kernel gives to connections, and nothing of the pod tells a program of it.

        A program that needs one for its ranks asks for a free one, closes it, and has another process listen there later.
        """
        port = self._captured
        if not port or int(port) not in _EPHEMERAL or str(self.engine.value("port") if self.engine else "") == port:
            return False
        every = (container, *container.beside)
        if any(_told_unseen(one) for one in every):
            return False
        return not any(port in _written(one) or int(port) in one.declared_ports for one in every)

    @property
    def _fewer_ranks(self) -> str:
        """What keeps many ranks of one start from looking for ports at the same time."""
        engine = self.engine
        ranks = engine.value("data_parallel_size") if engine else None
        if not isinstance(ranks, int) or ranks < 2:
            return ""
        return f"; where it comes back, run {ranks} servers behind a router in the place of {ranks} data parallel ranks of one"

    @cached_property
    def _on_its_node(self) -> list[Pod]:
        """The other pods in the network of its node, where the pod is in it."""
        pod = self.pod
        if pod is None or not pod.spec.host_network or not pod.spec.node_name:
            return []
        others = [Pod.of(item, pod.cluster) for item in pod.cluster.items("Pod") if item is not pod.item]
        near = [one for one in others if one.spec.host_network and one.spec.node_name == pod.spec.node_name]
        return [one for one in near if not one.completed and not one.leaving]

    def _beside(self, pod: Pod, container: Container, port: str) -> tuple[str, bool] | None:
        """Another pod in the network of the same node that declares the port or is told of it, else runs the same there.

        `Pod/bench-worker-0`, and whether it is one more of the same object's.
        """
        alike = None
        for other in self._on_its_node:
            named = f"Pod/{other.name}" + ("" if other.namespace == pod.namespace else f" of {other.namespace}")
            owned = bool(_owners(other) & _owners(pod))
            for one in other.containers:
                if port in {str(p.host_port or p.container_port) for p in one.spec.ports} or _serves(one, port):
                    return named, owned
                if not alike and _runs_the_same(one, container):
                    alike = named, owned
        return alike

    def _listens(self, container: Container, port: int) -> bool:
        """Whether another container of the pod declares a port, or its engine listens there."""
        engines = self.subject.engines(self.pod) if self.pod else ()
        told = any(engine.value("port") == port for engine in engines if engine.container is container)
        return told or port in container.declared_ports


def _free_port(port: str, pods: list[Pod]) -> str:
    """`, such as 8081`: the next port that nobody near is known to have; empty where the port is one of the system's."""
    first = int(port or 0)
    if not _FIRST_FREE <= first < _GIVEN_AWAY - _NEAR:
        return ""
    containers = [one for pod in pods for one in pod.containers]
    taken = {str(p.host_port or p.container_port) for one in containers for p in one.spec.ports}
    taken |= {str(engine.value("port")) for pod in pods for engine in engines_in(pod)}
    taken = taken.union(*map(_written, containers))
    free = next((n for n in range(first + 1, first + _NEAR) if n not in _OF_NODES and str(n) not in taken), None)
    return f", such as {free}" if free else ""


def _written(container: Container, besides: str = "") -> set[str]:
    """What its words and variables, but the one `besides`, end with: a port stands there by itself or behind an address."""
    values = [str(variable.value or "") for name, variable in container.env.items() if name != besides]
    words = re.split(r"[\s=,'\"]+", " ".join(container.spec.argv)[:_LONGEST])
    return {word.rpartition(":")[2] for word in (*values, *words)}


def _told_unseen(container: Container) -> bool:
    """Whether it may be told of a port that nobody sees: a variable for one from elsewhere, or a shell that counts it."""
    hidden = any(variable.value is None and _OF_A_PORT.search(name) for name, variable in container.env.items())
    return hidden or "$((" in " ".join(container.spec.argv)[:_LONGEST]


def _serves(container: Container, port: str) -> bool:
    """Whether an option or a variable tells a program to listen on this port itself, and not whom to ask: `REDIS_PORT=6379`."""
    said = _OWN_PORT_OPTION.finditer(" ".join(container.spec.argv)[:_LONGEST])
    return bool(port) and (bool(_variable(container, port)) or any(option[1] == port for option in said))


def _variable(container: Container, port: str) -> str:
    """The variable that tells a program the port that it listens on; empty where none does."""
    for name, variable in container.env.items():
        where, colon, number = str(variable.value or "").rpartition(":")
        own = _OWN_PORT.fullmatch(name) or (colon and _ADDRESS.fullmatch(name) and _ANYWHERE.fullmatch(where))
        if port and number == port and own:
            return name
    return ""


def _remark(container: Container, port: str) -> str:
    name = _variable(container, port)
    return f" ({name} says it)" if name else ""


def _runs_the_same(one: Container, other: Container) -> bool:
    """Whether two containers run the same program with the same words."""
    words = one.spec.argv
    return (
        bool(words)
        and words == other.spec.argv
        and (one.spec.image == other.spec.image or not _RUNNERS.fullmatch(str(words[0])))
    )


def _owners(pod: Pod) -> set[tuple[str, str]]:
    """The objects that made a pod."""
    owners = rows(pod.item.raw, "metadata.ownerReferences") if pod.item else []
    return {(str(one.get("kind")), str(one.get("uid") or one.get("name"))) for one in owners}
