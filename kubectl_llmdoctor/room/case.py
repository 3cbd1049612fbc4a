"""What is known of one container, whose message captured something."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

import msgspec

from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.accelerator import Accelerator
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.engine import Engine
from kubectl_llmdoctor.facts.sizing import Sizing
from kubectl_llmdoctor.room.amounts import amount
from kubectl_llmdoctor.template_values import values_of

#: Of the memory of a GPU, what weights may take at most so that a cache and the work have room: all, and a short context's.
FOR_WEIGHTS, SPREAD = 0.8, 0.9

#: A shorter context is hardly worth serving.
SHORTEST = 1024

#: PyTorch's account of the memory when there was none (CUDACachingAllocator.cpp): since 2.1, and before.
_ACCOUNT = (
    expression(
        r"Tried to allocate (?P<asked>[\d.]{1,12} [KMG]iB).{0,40}?total capac(?:i)?ty of (?P<total>[\d.]{1,12} [KMG]iB) "
        r"of which (?P<free>[\d.]{1,12} [KMG]iB) is free"
    ),
    expression(
        r"Tried to allocate (?P<asked>[\d.]{1,12} [KMG]iB) \(\wPU \d{1,3}; (?P<total>[\d.]{1,12} [KMG]iB) total capacity;"
        r".{0,160}?; (?P<free>[\d.]{1,12} [KMG]iB) free"
    ),
)


class Case(msgspec.Struct, frozen=True, eq=False, dict=True):
    """What the parts share; `told` are the lines that prove it."""

    engine: Engine | None
    container: Container | None
    captured: Mapping[str, str]
    told: str
    sizing: Sizing | None
    #: its GPU, where no engine is known in it that has a sizing
    unsized: Callable[[], object] = lambda: None

    def values(self) -> dict[str, str]:
        """Texts for fixes, by the names that templates use; empty where nothing says them."""
        return {name: text() for name, text in values_of(self).items()}

    @cached_property
    def _account(self) -> Mapping[str, str]:
        found = next((m for pattern in _ACCOUNT if (m := pattern.search(self.told))), None)
        return found.groupdict() if found else {}

    def _number(self, name: str) -> float | None:
        return amount(self.captured.get(name)) or amount(self._account.get(name))

    @cached_property
    def _gpu(self) -> Accelerator | None:
        """The GPU of the container; None where it is not known."""
        found = self.sizing.accelerator if self.sizing else self.unsized()
        return found if isinstance(found, Accelerator) else None

    @cached_property
    def _total(self) -> float | None:
        """The memory of one GPU."""
        gpu = self._gpu
        printed = self.sizing.printed.measured.total if self.sizing else None
        return self._number("total") or (printed.high if printed else None) or (gpu.gpu.memory if gpu else None)

    @cached_property
    def _share(self) -> float | None:
        """The share of a GPU that the engine takes; of one that works it out by itself only where it is set or told."""
        told = self.captured.get("have") or self.captured.get("share")
        value = self.engine.value("gpu_memory_utilization") if self.engine else None
        try:
            share = float(str(told or value or 0))
            return share if 0 < share <= 1 else None
        except ValueError:
            return None

    @property
    def _shared(self) -> bool:
        return self._gpu is not None and self._gpu.shared > 1

    def _settable(self, name: str) -> bool:
        return self.engine is not None and self.engine.flag(name) != ""

    @cached_property
    def _parallel(self) -> int:
        """Over how many GPUs the model is spread."""
        return self.engine.product_of(("tensor_parallel_size", "pipeline_parallel_size")) if self.engine else 1

    @cached_property
    def _weights(self) -> float | None:
        """What of the weights one GPU holds at least."""
        if self.sizing is None:
            return None
        budget = self.sizing.budget
        if budget is not None and budget.weights:
            return budget.weights.low
        return self.sizing.file_bytes / self._parallel if self.sizing.file_bytes else None
