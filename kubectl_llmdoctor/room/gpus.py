"""How many GPUs, and of which size, a model and an engine want."""

from __future__ import annotations

import math
from functools import cached_property
from itertools import takewhile

from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.accelerator import WHOLE_GPUS, shares_of
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.k8s import Node
from kubectl_llmdoctor.facts.lengths import number_of
from kubectl_llmdoctor.facts.units import GIB, units
from kubectl_llmdoctor.room.case import FOR_WEIGHTS, SPREAD, Case
from kubectl_llmdoctor.template_values import template_value

#: By which a process is shown some of the GPUs of its container alone.
_HIDING = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")

#: Among more GPUs than this nobody shares a model, and numbers have no more digits.
_MOST_DEVICES, _DIGITS = 64, 9

#: GB of memory by which GPUs are sold, and the GiB of each that a program sees at least (a T4 of 16 GB has 14.7, an L40S of 48 GB 44.4).
_GPUS, _SEEN = (16, 24, 32, 40, 48, 80, 96, 141, 192), 0.92

#: How llama.cpp is told to keep to one GPU.
_ON_ONE = expression(r"(?:--split-mode|-sm)[ =]none\b")

#: More GPUs than this hardly any node has.
_ON_A_NODE = 8

#: Of the memory of a GPU, what weights take at least where it is they that leave no room; and where they leave none for any batch.
_HEAVY, _FULL = 0.5, 0.9


def most_gpus(container: Container, *, alone: bool = False) -> int:
    """How many GPUs of one node it can ask for instead; none where they are shared or slices, or its replica is of several pods.

    An engine that is told to compute alone (`alone`) does so whatever pods there are beside it.
    """
    pod, asked = container.pod, list(container.accelerators)
    if (pod.nodes != 1 and not alone) or len(asked) != 1 or asked[0] not in WHOLE_GPUS:
        return 0
    nodes = pod.cluster.all(Node, "Node")
    shared = {node.metadata.name for node in nodes if shares_of(node.metadata.label_texts) > 1}
    if pod.spec.node_name in shared:
        return 0
    there = (units(n.status.allocatable.get(asked[0])) or 0 for n in nodes if n.metadata.name not in shared)
    return int(max(there, default=0)) or _ON_A_NODE


class Gpus(Case, frozen=True):
    """How many GPUs, and of which size, a model and an engine want."""

    def values(self) -> dict[str, str]:
        return super().values() | {
            "of_nim": "yes" if self.engine is not None and self.engine.name == "nim" else "",
            "gpu_resource": next(iter(self.container.accelerators), "") if self.container else "",
        }

    @template_value
    def holding_gpus(self) -> str:
        """How many GPUs of one node hold weights that one does not, of an engine that spreads them over all that it has by itself."""
        size, total, container = self._number("size"), self._total, self.container
        if not size or not total or container is None or container.gpus != 1:
            return ""
        told = container.env.get("LLAMA_ARG_SPLIT_MODE")
        if (told and told.value == "none") or _ON_ONE.search(" ".join(container.spec.argv)):
            return ""
        enough = math.ceil(size / (total * SPREAD))
        return str(enough) if 1 < enough <= self._most_there else ""

    @template_value
    def larger_gpu(self) -> str:
        """The memory of a GPU on which weights leave room that fill this one."""
        weights, total = self._weights, self._total
        if not weights or not total or self._shared or weights < total * FOR_WEIGHTS:
            return ""
        larger = (n for n in _GPUS if (seen := n * _SEEN * GIB) > total and seen * FOR_WEIGHTS >= weights)
        return next((f"{n} GB" for n in larger), "")

    @template_value
    def nearly_full(self) -> str:
        """Whether the weights leave less than a tenth of the GPU: smaller batches do not fit beside them either."""
        weights, total = self._weights, self._total
        return "yes" if weights and total and not self._shared and weights > total * _FULL else ""

    @template_value
    def weights_told(self) -> str:
        """What the weights take, in words."""
        return f"{self._weights / GIB:.1f} GiB" if self._weights else ""

    @template_value
    def spread(self) -> str:
        """Over how many GPUs of one node the model is to be spread: as many as hold its weights, else twice as many as now."""
        return self._spread if self._settable("tensor_parallel_size") else ""

    @template_value
    def profile_gpus(self) -> str:
        """The same of a NIM that chooses its profile by the GPUs that it sees; only where its weights are known."""
        names = ("model_profile", "tensor_parallel_size", "pipeline_parallel_size")
        nim = self.engine if self.engine and self.engine.name == "nim" and self._weights and self._total else None
        chosen = nim is None or any(nim.explicit(name) or name in nim.found.unresolved for name in names)
        return "" if chosen else self._spread

    @cached_property
    def _spread(self) -> str:
        engine, container = self.engine, self.container
        if engine is None or container is None:
            return ""
        others = (engine.value(name, 1) for name in ("pipeline_parallel_size", "data_parallel_size", "nnodes"))
        if any(value not in (None, 1) for value in others) or not engine.found.argv_known:
            return ""
        known = self._weights and self._total
        if known and (self._weights or 0) < (self._total or 0) * _HEAVY:
            return ""  # something else takes the memory
        sizes = [n for n in (2, 4, 8) if n > self._parallel and n >= container.gpus and self._divides(n)]
        enough = next((n for n in sizes if not known or self._holds(n)), 0)
        return str(enough) if 0 < enough <= self._most_there else ""

    @cached_property
    def _most_there(self) -> int:
        """How many GPUs the container can ask for instead."""
        return 0 if self.container is None or self._shared else most_gpus(self.container, alone=self._alone)

    @property
    def _alone(self) -> bool:
        """Whether the engine states a size of one, so that no other pod computes with it."""
        size = self.engine.explicit("tensor_parallel_size") if self.engine else None
        nodes = self.engine.value("nnodes", 1) if self.engine else None
        return size is not None and self._parallel == 1 and nodes in (None, 1)

    @property
    def _want(self) -> int:
        """As many GPUs as the engine wants of its container, by its message or its settings."""
        told = self.captured.get("want", "")
        return number_of(told) if told.isdecimal() else (self.engine.workers or 0) if self.engine else 0

    @template_value
    def want_there(self) -> str:
        """That number, where the container asks for fewer and a node, as far as they are known, has as many."""
        asked = self.container.gpus if self.container else 0
        return str(self._want) if asked < self._want <= self._most_there else ""

    @template_value
    def pods_of_group(self) -> str:
        """How many pods like it have that number together, where no node has as many and it asks for all GPUs of one."""
        have = self.container.gpus if self.container else 0
        whole = 1 < have == self._most_there < self._want and self._want % have == 0
        return str(self._want // have) if whole and self.captured.get("have") in (None, str(have)) else ""

    @template_value
    def have_there(self) -> str:
        """The GPUs that it asks for and sees, where its tensor parallel size alone is what wants more."""
        have = self.container.gpus if self.container else 0
        size = self.engine.value("tensor_parallel_size") if self.engine else None
        fits = 0 < have < self._want and size == self._want and self._divides(have)
        seen = self.captured.get("have") in (None, str(have))
        return str(have) if fits and seen and self._settable("tensor_parallel_size") else ""

    @template_value
    def asked_already(self) -> str:
        """The GPUs that the container asks for, where these are as many as the engine wants: more of them do not help."""
        asked = self.container.gpus if self.container else 0
        return str(asked) if asked and asked >= self._want > 0 else ""

    @template_value
    def hidden_by(self) -> str:
        """The variable of the container that leaves its engine as few GPUs as it sees, of more that it asks for."""
        container, seen = self.container, number_of(self.captured.get("have", "0"))
        asked = container.gpus if container else 0
        if container and not asked and not seen and container.spec.resources.claims:
            asked = _ON_A_NODE  # how many a claim has is not told here: what shows none shows none of any number
        for variable in container.spec.env if container else ():
            if variable.name not in _HIDING or variable.value_from is not None:
                continue
            # the API server gives an empty value as none; from a number on that no GPU has nothing is shown
            words = [word.strip() for word in str("" if variable.value is None else variable.value).split(",")]
            shown = takewhile(
                lambda word: not word.startswith("-") and not (word.isdecimal() and number_of(word) >= asked), words
            )
            if len([word for word in shown if word]) == seen < asked:
                return variable.name
        return ""

    @template_value
    def first_hidden(self) -> str:
        """What CUDA_VISIBLE_DEVICES of the container names, where these are numbers and the first of its GPUs is none of them."""
        told = self.container.env.get("CUDA_VISIBLE_DEVICES") if self.container else None
        words = [word.strip() for word in str(told.value or "").split(",")] if told else []
        return ",".join(words) if words and all(word.isdecimal() for word in words) and "0" not in words else ""

    @template_value
    def share_fits(self) -> str:
        """The most GPUs, fewer than it has now, of which each has a share that is a multiple of the captured `size`.

        Its share is `have` now; beside a captured `tp` that is the whole.
        """
        have, size, tp = (self.captured.get(name, "") for name in ("have", "size", "tp"))
        if not all(word.isdecimal() and len(word) <= _DIGITS for word in (have, size)) or not int(size):
            return ""
        if tp and tp != str(self._size):
            return ""
        whole = int(have) * (1 if tp else self._size)
        return next((str(n) for n in self._fewer_alone if whole % (n * int(size)) == 0), "")

    @template_value
    def half_gpus(self) -> str:
        """Half of the GPUs that it has now."""
        return next((str(n) for n in self._fewer_alone if n * 2 == self._size), "")

    @property
    def _size(self) -> int:
        """The tensor parallel size; 0 where it is not known."""
        size = self.engine.value("tensor_parallel_size") if self.engine else None
        return size if isinstance(size, int) and 0 < size <= _MOST_DEVICES else 0

    @property
    def _fewer_alone(self) -> list[int]:
        """Numbers of GPUs that divide the tensor parallel size and hold the weights, the largest first; none where pods share the model."""
        asked = self.container.gpus if self.container else 0
        nodes = self.engine.value("nnodes", 1) if self.engine else 1
        if 0 < asked < self._size or nodes not in (None, 1):
            return []
        known, stages = self._weights and self._total, self._parallel // max(self._size, 1)
        even = (n for n in range(self._size - 1, 0, -1) if self._size % n == 0)
        return [n for n in even if not known or self._holds(n * stages)]

    def _divides(self, size: int) -> bool:
        return self.sizing is None or self.sizing.model is None or self.sizing.splits(size) == size

    def _holds(self, size: int) -> bool:
        weights = (self._weights or 0) * self._parallel
        return weights <= size * (self._total or 0) * FOR_WEIGHTS

    @template_value
    def spread_why(self) -> str:
        """What the number of GPUs is by."""
        if self._weights and self._total:
            whole = self._weights * self._parallel / GIB
            little = ", which leaves too little" if whole < self._total / GIB else ""
            return f", as the weights take {whole:.0f} GiB and a GPU has {self._total / GIB:.0f} GiB{little}"
        return " (how large the weights are is not known here: more if it runs out again)"
