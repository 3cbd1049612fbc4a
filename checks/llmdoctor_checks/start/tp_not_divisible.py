"""A tensor parallel size that does not divide the model."""

import itertools
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import Abstain, Engine, Finding, Fix, Logs, Pod, check, escaped, fixes, setting_evidence
from kubectl_llmdoctor.catalog.architecture import Architecture
from kubectl_llmdoctor.catalog.models import find
from llmdoctor_checks._consequences import FAILED_START

#: vLLM pads the vocabulary to a multiple of this before it shares it out (`DEFAULT_VOCAB_PADDING_SIZE`).
_VOCABULARY_PADDING = 64

_ENGINES = ("vllm", "sglang", "tgi")


class Shape(msgspec.Struct, frozen=True):
    """What of a model is shared out among the GPUs."""

    heads: int
    kv_heads: int
    vocabulary: int
    intermediate: int
    moe_intermediate: int
    method: str
    group: int


@check("tp-not-divisible", since="0.1")
def tp_not_divisible(pod: Pod, engine: Engine, logs: Logs | None) -> Iterator[Finding | Abstain]:
    """The model cannot be split evenly over this many GPUs.

    Tensor parallelism gives each GPU an equal share of the attention heads, of the vocabulary and of every weight matrix.
    The sizes of the model must be multiples of the number of GPUs (key and value heads may be repeated instead), and with
    quantized weights each share must be a multiple of the quantization block: an FP8 model with blocks of 128 can refuse
    8 GPUs where 4 are fine.

    ## Fix

    Choose a size that divides, usually the next lower power of two, and request as many GPUs. If the model does not fit
    then, add pipeline parallelism, or expert parallelism for a mixture of experts.

    ## References

    - https://docs.vllm.ai/en/latest/serving/parallelism_scaling/
    - https://docs.sglang.ai/advanced_features/server_arguments.html
    """
    size, model = engine.explicit("tensor_parallel_size"), engine.explicit("model")
    container = engine.container
    crashed = container.crashed
    if engine.name not in _ENGINES or size is None or model is None or (pod.exists and not crashed) or pod.log_only:
        return
    if not isinstance(size.value, int) or size.value < 2 or engine.explicit("enable_dp_attention"):
        return
    if container.one_process:
        return  # TPUs and Neuron split and pad in ways of their own
    if any(log.text for log in container.own_logs(logs)):
        return  # what it printed is the better witness
    found = find(engine.checkpoint)
    if found is None or not found.architecture.heads:
        yield Abstain(reason=f"the attention heads of {model.value} are not known")
        return
    shape = _shape(found.architecture)
    wrong = _wrong(engine, shape, size.value)
    if wrong is None:
        return
    yield Finding(
        role="cause" if crashed else "risk",
        severity="critical",
        summary=f"{found.id} cannot be split over {size.value} GPUs ({size.text}): {wrong}.",
        evidence=(setting_evidence(container, size), setting_evidence(container, model)),
        explains=FAILED_START if crashed else (),
        fixes=tuple(_fixes(engine, shape, size.value)),
    )


def _shape(architecture: Architecture) -> Shape:
    stored = architecture.quantization
    return Shape(
        heads=architecture.heads,
        kv_heads=architecture.kv_heads,
        vocabulary=architecture.vocab_size,
        intermediate=architecture.intermediate_size,
        moe_intermediate=architecture.moe_intermediate_size,
        method=stored.method if stored else "",
        group=stored.group if stored else 0,
    )


def _wrong(engine: Engine, shape: Shape, size: int) -> str | None:
    """Which size of the model is no multiple, in words; None when all are."""
    if shape.heads % size:
        return f"it has {shape.heads} attention heads"
    if engine.name == "tgi":
        return None
    kv = shape.kv_heads
    if kv > 1 and ((size < kv and kv % size) or (size >= kv and size % kv)):
        return f"it has {kv} key and value heads"
    padded = -(-shape.vocabulary // _VOCABULARY_PADDING) * _VOCABULARY_PADDING
    if padded % size:
        return f"its vocabulary of {shape.vocabulary} is no multiple"
    if shape.group < 2 or shape.method not in ("fp8", "awq", "gptq"):
        return None
    experts = engine.explicit("expert_parallel") or engine.explicit("expert_parallel_size")
    width = shape.moe_intermediate if shape.moe_intermediate and shape.method == "fp8" and not experts else 0
    for name, whole in (
        ("experts", width),
        ("feed-forward layers", 0 if shape.moe_intermediate else shape.intermediate),
    ):
        if whole and (whole % size or (whole // size) % shape.group):
            return f"each share of its {name} is {whole / size:g} wide, no multiple of the {shape.method} block of {shape.group}"
    return None


def _with_as_many(engine: Engine, count: int, summary: str) -> Fix | None:
    """The patch of option and GPUs together, where the container asks for as many GPUs as the option says now."""
    container, size = engine.container, engine.value("tensor_parallel_size")
    told = fixes.replaced_flag(engine, "tensor_parallel_size", str(count))
    if not told or size != container.gpus or len(container.accelerators) != 1 or count == container.gpus:
        return None
    (resource,) = container.accelerators
    tables = {"limits": container.spec.resources.limits, "requests": container.spec.resources.requests}
    key = escaped(resource)
    at = f"{container.pointer}/resources"
    asked = [
        {"op": "replace", "path": f"{at}/{kind}/{key}", "value": str(count)}
        for kind, table in tables.items()
        if resource in table
    ]
    return fixes.patch(container.pod, summary, [*told, *asked])


def _fixes(engine: Engine, shape: Shape, size: int) -> Iterator[Fix]:
    # what the container has, where nothing but tensor parallelism spreads the model
    gpus = engine.container.gpus if engine.workers == size else 0
    sizes = itertools.chain((gpus,), range(min(size - 1, shape.heads), 0, -1))
    if fits := next((n for n in sizes if n and n != size and _wrong(engine, shape, n) is None), None):
        flag = engine.called("tensor_parallel_size")
        rest = "for which the container has the GPUs" if fits == gpus else "and ask for as many GPUs"
        if engine.workers != size:
            rest = "and change the number of GPUs with it"
        summary = f"Set {flag} to {fits}, {rest}"
        yield _with_as_many(engine, fits, summary) or fixes.set_flag(
            engine, "tensor_parallel_size", flag, str(fits), summary
        )
    if shape.moe_intermediate and shape.group and engine.name == "vllm":
        yield fixes.advice("Spread the experts whole: --enable-expert-parallel")
