"""Which kernels, types and options a GPU takes, by what a message says of it."""

from __future__ import annotations

from functools import cached_property

from kubectl_llmdoctor.catalog import quantization
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.engine import Engine
from kubectl_llmdoctor.room.case import Case
from kubectl_llmdoctor.template_values import template_value

#: An option that an engine advises, and a type of cache that a part of it refuses.
_TOLD_FLAG = expression(
    r"[Pp]lease (?:use|set|try|specify|choose|pass)(?: with)? [`'\"]?(?P<flag>--[a-z][\w-]{2,40})[ =]"
    r"(?P<value>(?!(?:to|and|or|instead|in|on|for|when|if|with|as|option|flag)\b)\w[\w-]{0,38}(?:\.\d{1,4})?)"
)

#: A compute capability, as messages write it: `7.0`, `70`, `120`, `sm_120a`.
_CAPABILITY = expression(r"(?:(?:sm|compute)_)?(?P<major>[5-9]|1[0-2])\.?(?P<minor>\d)[af]?")

_NO_SUCH_CACHE = expression(r"(?i)\bkv[ _]?cache(?:_dtype)? (?:is )?not supported|FP8 KV cache")

#: Settings by which an engine takes other kernels than it would.
_OWN_KERNELS = (
    "moe_backend", "moe_runner_backend", "attention_backend", "enable_flashinfer_allreduce_fusion",
    "speculative_config", "speculative_model", "speculative_algorithm", "kv_cache_dtype",
    "enable_expert_parallel",
)  # fmt: skip


def own_kernels(engine: Engine | None) -> str:
    """A setting that brings kernels of its own, and that one can do without: first those that choose other kernels than the engine."""
    told = (engine.explicit(name) for name in _OWN_KERNELS) if engine else ()
    return next((setting.text for setting in told if setting and setting.value not in (None, False, "auto")), "")


class Kernels(Case, frozen=True):
    """Which kernels, types and options a GPU takes, by what a message says of it."""

    def values(self) -> dict[str, str]:
        return super().values() | {
            "told_flag": " ".join(self.told_flag).strip(),
            "told_name": self.told_flag[0],
            "told_value": self.told_flag[1],
            "for_blackwell": "yes" if self._newer_than_the_image else "",
            "for_volta": self._older_than_the_image,
        }

    @cached_property
    def told_flag(self) -> tuple[str, str]:
        """The option that the message itself says to use instead, and its value there."""
        found = _TOLD_FLAG.search(f"{self.captured.get('why', '')}\n{self.told}")
        return (found["flag"], found["value"]) if found else ("", "")

    @template_value
    def refused_cache(self) -> str:
        """The type of the KV cache that is set, where the message says that this GPU does not take it."""
        setting = self.engine.explicit("kv_cache_dtype") if self.engine else None
        refused = _NO_SUCH_CACHE.search(f"{self.captured.get('why', '')}\n{self.told}")
        return setting.text if setting and refused and setting.value != "auto" else ""

    @property
    def _compute(self) -> tuple[int, int] | None:
        told = _CAPABILITY.fullmatch(self.captured.get("have", ""))
        if told:
            return int(told["major"]), int(told["minor"])
        return self._gpu.gpu.compute if self._gpu else None

    @template_value
    def blackwell(self) -> str:
        """The compute capability of a GPU of the Blackwell generation: 10.0 or above."""
        return ".".join(map(str, self._compute)) if self._compute is not None and self._compute >= (10, 0) else ""

    @template_value
    def for_flashinfer(self) -> str:
        """The compute capability of a GPU that FlashInfer has kernels for: 7.5 or above."""
        compute = self._gpu.gpu.compute if self._gpu else None
        return ".".join(map(str, compute)) if compute is not None and compute >= (7, 5) else ""

    @template_value
    def before_flashinfer(self) -> str:
        """The compute capability of a GPU that FlashInfer has no kernels for: below 7.5."""
        compute = self._gpu.gpu.compute if self._gpu else None
        return ".".join(map(str, compute)) if compute is not None and compute < (7, 5) else ""

    @property
    def _newer_than_the_image(self) -> bool:
        """A GPU of the Blackwell generation with an image that may be from before PyTorch knew it (2.7 for CUDA 12.8).

        Of vLLM's images those from 0.10.1 on have kernels for all of them.
        """
        own = self.engine is not None and self.engine.name == "vllm" and self.engine.at_least("0.10.1") is not False
        return self._compute is not None and self._compute >= (10, 0) and not own

    @property
    def _older_than_the_image(self) -> str:
        """The generation of a GPU for which PyTorch's builds for CUDA 12.8 and later have nothing."""
        return ".".join(map(str, self._compute)) if self._compute is not None and self._compute < (7, 5) else ""

    @template_value
    def chosen_by_driver(self) -> str:
        """The same, where Ollama may choose its library by the driver alone, as it did before 0.12."""
        later = self.engine is not None and self.engine.at_least("0.12.0")
        return "" if later else self._older_than_the_image

    @template_value
    def not_in_half(self) -> str:
        """The class of the model, where it is one that vLLM does not compute in float16."""
        model = self.sizing.model if self.sizing else None
        name = model[0].name if model else ""
        return name if quantization.not_in_half(name) else ""

    @template_value
    def graphs_on(self) -> str:
        """Whether the engine computes with CUDA graphs and can do without."""
        if self.engine is None or not self._settable("enforce_eager") or not self.engine.found.argv_known:
            return ""
        return "" if self.engine.value("enforce_eager") else "yes"

    @template_value
    def own_transfer(self) -> str:
        """The setting by which a store of KV caches beside the engine (LMCache) is used, where the message is of that one."""
        of_it = self.engine if self.captured.get("package") == "lmcache" else None
        told = of_it.explicit("kv_transfer_config") if of_it else None
        return told.text.split("=")[0].split()[0] if told and told.text else ""

    @template_value
    def suspect(self) -> str:
        """A setting of the engine whose kernels are of its own, which one can do without."""
        return own_kernels(self.engine)

    @template_value
    def layers_set(self) -> str:
        """How many layers llama.cpp is told to put on the GPU, as it is written there."""
        told = self.engine.explicit("gpu_layers") if self.engine and self.engine.name == "llama.cpp" else None
        value = str(told.value).lower() if told else ""
        return told.text if told and (value == "all" or (value.isdecimal() and value.strip("0"))) else ""

    @template_value
    def gfx_override(self) -> str:
        """The GPU for whose kernels ROCm is told to take the one that is there."""
        told = self.container.env.get("HSA_OVERRIDE_GFX_VERSION") if self.container else None
        return str(told.value or "") if told else ""
