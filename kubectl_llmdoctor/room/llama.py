"""What of a model and its context fits into the GPUs of llama.cpp, by what it printed before it found no room."""

from __future__ import annotations

from functools import cached_property

from kubectl_llmdoctor.facts.llama_memory import LlamaMemory
from kubectl_llmdoctor.facts.units import GIB, MIB
from kubectl_llmdoctor.room.case import SHORTEST, Case
from kubectl_llmdoctor.template_values import template_value

#: Of what is free, that which weights leave to the cache and what is computed; and the cache to the latter, with a fixed part.
_OF_WEIGHTS, _OF_CACHE, _COMPUTES = 0.8, 0.85, GIB // 2

#: From this build on llama.cpp puts as many layers on the GPUs as fit, unless it is told how many (PR 16653).
FITS_SINCE = "b7410"

#: With these it does not.
_FITS_NOT = frozenset({
    "--tensor-split", "-ts", "--override-tensor", "-ot", "--n-cpu-moe", "-ncmoe", "--cpu-moe", "-cmoe", "--fit", "-fit",
})  # fmt: skip
_FITS_NOT_BY = frozenset(
    f"LLAMA_ARG_{name}" for name in ("TENSOR_SPLIT", "OVERRIDE_TENSOR", "N_CPU_MOE", "CPU_MOE", "FIT")
)

#: The cache of a longer context takes more than weights are reckoned to leave to it.
_LONG = 32768


class Llama(Case, frozen=True):
    """What fits into the GPUs of llama.cpp."""

    def values(self) -> dict[str, str]:
        return super().values() | {
            "left_for_cache": f"{self._memory.left / MIB:.0f} MiB" if self._memory.left else "",
            "layers_there": str(self._layers_there) if self._layers_there else "",
            "free_there": f"{self._free / MIB:.0f} MiB" if self._free else "",
        }

    @property
    def _is_llama(self) -> bool:
        return self.engine is not None and self.engine.name == "llama.cpp"

    @cached_property
    def _memory(self) -> LlamaMemory:
        return self.sizing.llama if self.sizing and self._is_llama else LlamaMemory()

    @property
    def _free(self) -> float:
        return self._memory.free.get(self._memory.device, 0)

    @property
    def _layers_there(self) -> int:
        """Of how many layers a GPU was asked to hold the weights: as many as it is told, of those that the model has."""
        layers = self._memory.layers
        return min(self._told_layers or layers + 1, layers + 1) if layers else 0

    @template_value
    def fitting_context(self) -> str:
        """A half, a quarter, … of the context that is set, of whose cache the GPU has as much left beside the weights."""
        told = self.engine.explicit("max_model_len") if self.engine else None
        context = told.value if told and isinstance(told.value, int) else 0
        room = self._memory.left * _OF_CACHE - _COMPUTES
        if not self._memory.weights.get(self._memory.device) or room <= 0:
            return ""  # then nobody knows what is left
        fits = next((context >> n for n in range(1, 11) if self._memory.refused / (1 << n) <= room), 0)
        return str(fits) if fits >= SHORTEST else ""

    @template_value
    def fitting_layers(self) -> str:
        """How many layers the one GPU holds, of which each takes as much as the others, beside a cache."""
        there, context = self._layers_there, self.engine.explicit("max_model_len") if self.engine else None
        long = context is not None and not (isinstance(context.value, int) and 0 < context.value <= _LONG)
        if not self._free or len(self._memory.free) != 1 or there < 2 or not self._told_layers or long:
            return ""
        fits = int(self._free * _OF_WEIGHTS / (self._memory.refused / there))
        return str(fits) if 0 < fits < there else ""

    @property
    def _told_layers(self) -> int:
        """How many layers it is told to put on the GPU; all of them are more than any model has."""
        told = self.engine.explicit("gpu_layers") if self.engine and self._is_llama else None
        value = str(told.value).lower() if told else ""
        return int(value) if value.isdecimal() and len(value) < 6 else 99999 if value == "all" else 0

    @template_value
    def fits_layers(self) -> str:
        """Whether this release puts as many layers on the GPUs as fit, when it is not told how many."""
        if self.engine is None or not self._told_layers or self.engine.at_least(FITS_SINCE) is not True:
            return ""
        told_how = _FITS_NOT & {*self.engine.found.argv} or _FITS_NOT_BY & {*self.engine.container.env}
        return "" if told_how else "yes"
