"""What would make it fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from kubectl_llmdoctor.catalog.architecture import LINEAR, Architecture, Quantization, bits_per_weight
from kubectl_llmdoctor.catalog.gpus import Gpu
from kubectl_llmdoctor.memory.amount import Amount
from kubectl_llmdoctor.memory.budget import Budget, budget
from kubectl_llmdoctor.memory.serving import Serving, memory_fraction
from kubectl_llmdoctor.memory.weights import indivisible


def memory_of(gpu: Gpu) -> Amount:
    """What one GPU of the table has in all, as a program sees it: drivers differ by half a percent."""
    high = gpu.memory * 1005 // 1000 if gpu.measured else gpu.reported << 20
    return Amount(low=gpu.memory, high=max(gpu.memory, high), source=gpu.name)


Kind = Literal["context", "share", "kv-dtype", "tensor", "checkpoint", "gpu"]
#: Changes so large that a cap of the context may go with them.
_LARGE: frozenset[Kind] = frozenset({"tensor", "checkpoint", "gpu"})
#: A cap below this number of tokens is not worth offering.
_SHORTEST = 1024


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One change: what is changed, to which value, in words, and what would then run on which GPU."""

    kind: Kind
    value: str
    summary: str
    model: Architecture
    serving: Serving
    gpu: Gpu
    #: the length that the context must be capped at besides; 0 where it need not be
    cap: int = 0


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """A change after which it surely fits, with the budget that it leads to."""

    step: Step
    budget: Budget


def options(model: Architecture, serving: Serving, gpu: Gpu, larger: Sequence[Gpu] = ()) -> list[Option]:
    """Changes that make it fit, the gentlest first: settings, more GPUs, other weights, a larger GPU.

    Of each kind only the smallest step that fits; where more GPUs, other weights or a larger GPU alone do not suffice, the
    one that leaves the longest context, capped at what fits. `larger` are other GPUs, by memory.
    """
    now = budget(model, serving, memory_of(gpu), gpu.name)
    found: dict[Kind, Option] = {}
    for step in _steps(model, serving, now, gpu, larger):
        known = found.get(step.kind)
        if known is not None and not known.step.cap:
            continue
        option = _tried(step)
        if option is not None and (known is None or not option.step.cap or option.step.cap > known.step.cap):
            found[step.kind] = option
    return list(found.values())


def _tried(step: Step) -> Option | None:
    """What a step leads to if it fits, where need be with the context capped."""
    result = budget(step.model, step.serving, memory_of(step.gpu), step.gpu.name)
    if result.verdict == "fits":
        return Option(step=step, budget=result)
    length = rounded(result.longest[0]) if result.longest else 0
    if step.kind not in _LARGE or length < _SHORTEST:
        return None
    capped = msgspec.structs.replace(
        step,
        summary=f"{step.summary}, with the context capped at {length} tokens",
        serving=msgspec.structs.replace(step.serving, max_model_len=length),
        cap=length,
    )
    result = budget(capped.model, capped.serving, memory_of(capped.gpu), capped.gpu.name)
    return Option(step=capped, budget=result) if result.verdict == "fits" else None


def _steps(model: Architecture, serving: Serving, now: Budget, gpu: Gpu, larger: Sequence[Gpu]) -> Iterator[Step]:
    """Changes, the gentlest kind first, and of each kind the smallest first."""

    def step(kind: Kind, value: object, summary: str, **changes: Any) -> Step:
        shape, card = changes.pop("model", model), changes.pop("gpu", gpu)
        changed = msgspec.structs.replace(serving, **changes)
        return Step(kind=kind, value=str(value), summary=summary, model=shape, serving=changed, gpu=card)

    if now.longest and now.longest[0] >= _SHORTEST:
        length = rounded(now.longest[0])
        yield step("context", length, f"cap the context at {length} tokens", max_model_len=length)
    if serving.engine == "vllm":
        for share in (0.92, 0.95):
            if share > (memory_fraction(serving) or 1):
                yield step("share", share, f"raise --gpu-memory-utilization to {share:g}", memory_fraction=share)
    if gpu.fp8 and (serving.kv_cache_dtype or "auto") == "auto":
        yield step("kv-dtype", "fp8", "keep the KV cache in FP8", kv_cache_dtype="fp8")
    for size in (2, 4, 8):  # within one node
        if size > serving.tensor_parallel and not indivisible(model, size):
            yield step("tensor", size, f"spread it over {size} GPUs (tensor parallel)", tensor_parallel=size)
    if model.quantization is None and not serving.quantization:
        for words, method in _CHECKPOINTS:
            if gpu.fp8 or method.method != "fp8":
                other = msgspec.structs.replace(model, quantization=method)
                yield step("checkpoint", method.method, f"take a checkpoint quantized to {words}", model=other)
    for card in larger:
        yield step("gpu", card.name, f"take a GPU with more memory: {card.name}", gpu=card)


_CHECKPOINTS = (
    ("8 bits (FP8)", Quantization(method="fp8", bits=8, parts=LINEAR)),
    ("4 bits (AWQ)", Quantization(method="awq", bits=bits_per_weight("awq", 4, 128), parts=LINEAR, group=128)),
)


def rounded(tokens: int) -> int:
    """A length that a person would write: down to a multiple of 1024, or of 16 below that."""
    return tokens // 1024 * 1024 if tokens >= 2048 else tokens // 16 * 16
