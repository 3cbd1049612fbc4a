"""How much of the host's memory is asked for, and which request and limit hold it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from kubectl_llmdoctor.facts.k8s import Node
from kubectl_llmdoctor.facts.put_in import memory_annotation
from kubectl_llmdoctor.facts.units import GIB, say_bytes, units
from kubectl_llmdoctor.room.amounts import amount, quantity
from kubectl_llmdoctor.room.case import Case
from kubectl_llmdoctor.template_values import template_value

#: Of a memory limit, what weights and cache may take beside the rest of the program.
_OF_LIMIT = 0.9

#: What SGLang keeps free beside its hierarchical cache, 10 GiB, in the GB in which it counts that (`mem_cache/memory_pool_host.py`).
_RESERVE = 10 * GIB / 10**9

#: The release of SGLang from which on that is taken off what it prints to be free.
_RESERVE_OFF = "0.4.10"

#: A memory limit with which no engine starts, and the GiB that somebody can have meant by as many MiB; what suffices for many.
_TINY, _MEANT, _ENOUGH = 256 << 20, range(4, 33), 8


class HostMemory(Case, frozen=True):
    """How much of the host's memory is asked for, and which request and limit hold it."""

    def values(self) -> dict[str, str]:
        return super().values() | {"limit_written": str(self._limits.get("memory", "none"))}

    @template_value
    def host_share(self) -> str:
        """The share of a node's own memory that an engine which computes there may take, of what is free and allowed beside its weights."""
        free, total, want = map(self._number, ("free", "total", "want"))
        if not free or not total or not want or not self._settable("gpu_memory_utilization"):
            return ""
        taken = self._number("taken") or want  # before the weights are loaded nothing is held
        held = taken - want
        limit = (self.container.limit("memory") if self.container else None) or total
        share = math.floor((min(free + held, limit * _OF_LIMIT) / total - 0.01) * 100) / 100
        return f"{share:.2f}" if held + GIB < share * total < taken else ""

    @template_value
    def host_cache(self) -> str:
        """The GB of SGLang's cache in host memory for which each rank has room beside what stays in reserve."""
        free, want = ((amount(self.captured.get(name)) or 0) / GIB for name in ("have", "want"))
        if not free or not want or self.engine is None or not self.engine.workers:
            return ""
        # the reserve is printed beside what is free, or taken off: by releases before 0.4.10 neither
        neither = free >= want or self.engine.at_least(_RESERVE_OFF) is not True
        kept = _RESERVE if self.captured.get("reserve") or neither else 0
        each = int((free - kept) / self.engine.workers)
        return str(each) if 1 <= each < want else ""

    @property
    def _limits(self) -> Mapping[str, object]:
        return self.container.spec.resources.limits if self.container else {}

    @template_value
    def limit_annotation(self) -> str:
        """The annotation that sets the memory limit of a container which a webhook puts into the pod."""
        return memory_annotation(self.container) if self.container else ""

    @template_value
    def limit_meant(self) -> str:
        """What a limit of a few MiB may have been to be: of an engine as many GiB, where somebody can have meant that."""
        limit = self.container.limit("memory") if self.container else None
        if limit is None or limit >= _TINY:
            return ""
        number = str(self._limits.get("memory", "")).rstrip("kKMmi")
        meant = int(number) if number.isdecimal() and len(number) < 3 else 0
        return f"{meant if meant in _MEANT else _ENOUGH}Gi" if self.engine else "1Gi"

    @property
    def _wanted(self) -> float | None:
        """How much of the host's memory the message asks for."""
        return self._number("want") or amount(self.captured.get("size", "") + self.captured.get("unit", ""))

    @template_value
    def memory_request(self) -> str:
        """What a container without a limit is to request, so that its node has as much; only where any may have it."""
        container, wanted = self.container, self._wanted
        free = container is not None and container.limit("memory") is None and container.pod.memory_limit is None
        had = self._number("have")
        enough = wanted and had and had > wanted  # the node was not what it lacked
        return quantity(wanted * 1.1) if free and wanted and not enough and not self._beyond(wanted * 1.1) else ""

    @template_value
    def memory_needed(self) -> str:
        """How much memory a node must have for what was asked for, where none that is known has it."""
        wanted = self._wanted
        return quantity(wanted * 1.1).replace("Gi", " GiB") if wanted and self._beyond(wanted * 1.1) else ""

    def _beyond(self, size: float) -> bool:
        """Whether none of the nodes, as far as they are known, has as much memory."""
        nodes = self.container.pod.cluster.all(Node, "Node") if self.container else []
        there = [units(node.status.allocatable.get("memory")) for node in nodes]
        return bool(there) and all(room is not None and room < size for room in there)

    @template_value
    def memory_held(self) -> str:
        """What holds the memory that lacks, where all that there is (the group `total`) would do, and a tenth to spare."""
        wanted, total, have = self._wanted, self._number("total"), self._number("have")
        if wanted is None or total is None or have is None or total < wanted * 1.1:
            return ""
        return say_bytes(total - have)

    @template_value
    def memory_limit(self) -> str:
        """A memory limit with room for what was asked for besides; only where the container has one, and its node as much."""
        container = self.container
        limit = container.limit("memory") if container else None
        needed = self._wanted
        if container is None or limit is None or needed is None:
            return ""
        have = self._number("have")
        lacking = needed - have if have is not None and have < needed else needed
        larger = quantity(limit + lacking * 1.1)
        node = container.pod.cluster.item("Node", "", container.pod.spec.node_name)
        there = units(str(node.raw.get("status", {}).get("allocatable", {}).get("memory", ""))) if node else None
        return larger if there is None or (units(larger) or 0) <= there else ""
