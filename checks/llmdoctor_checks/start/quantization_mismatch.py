"""A quantization that differs from the checkpoint's, or that this version of the engine does not have."""

import re
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import (
    Confidence,
    Engine,
    Finding,
    Fix,
    Line,
    Log,
    Logs,
    Pod,
    Setting,
    check,
    expression,
    fixes,
    log_evidence,
    setting_evidence,
)
from kubectl_llmdoctor.catalog import quantization
from kubectl_llmdoctor.catalog.models import find
from llmdoctor_checks._consequences import FAILED_START

#: Methods that read a configuration of the checkpoint, and cannot quantize a plain one.
_STORED_ONLY = frozenset(["awq", "awq_marlin", "auto_awq", "gptq", "gptq_marlin", "auto_gptq", "marlin"])

#: vLLM and SGLang, of a checkpoint that faster kernels of theirs could run, did the option not name others (`awq_marlin.py`).
_FORCED = "explicitly, so forcing"
_FASTER = expression(
    r"the model can run with (?P<faster>\w{1,30}), however you specified quantization=(?P<asked>\w{1,30}) explicitly, so forcing"
)

_FLAG = {"vllm": "--quantization", "sglang": "--quantization", "tgi": "--quantize"}


_SHAPE = r"torch\.Size\([^)]{0,80}\)"
#: What loaders of vLLM and SGLang, and PyTorch below them, say of a weight that does not fit its parameter.
_SHAPES = {
    " exceeds dimension size (": r"length \((?P<want>\d{1,12})\) exceeds dimension size \((?P<have>\d{1,12})\)",
    "Attempted to load weight": rf"load weight \((?P<have>{_SHAPE}|[^)]{{0,80}})\) into parameter \((?P<want>{_SHAPE}|[^)]{{0,80}})\)",
    "Tried to load weights of size": rf"of size (?P<have>{_SHAPE}) ?to a parameter .{{0,60}}?size (?P<want>{_SHAPE})",
}
#: Words that vLLM puts ModelOpt's own method in place of, where the checkpoint says that it is quantized so.
_BY_CHECKPOINT = frozenset({"nvfp4", "fp4"})

#: What Marlin and block-wise kernels demand of the part of a weight that one GPU has.
_WIDTHS = {
    "is not divisible by tile_": r"size_[nk] = (?P<have>\d{1,12}) is not divisible by tile_[nk]_size = (?P<want>\d{1,12})",
    "is not divisible by weight quantization block_": r"_size(?:_per_partition)? = (?P<have>\d{1,12}) is not divisible by weight "
    r"quantization block_[nk] = (?P<want>\d{1,12})",
}
#: How many values one element of a packed tensor holds: two of 4 bits in a byte, four or eight in an int32.
_PACKED = frozenset({2, 4, 8})


class Clash(msgspec.Struct, frozen=True):
    """What does not go together, and what to do."""

    summary: str
    confidence: Confidence
    settings: tuple[Setting, ...]
    fix: str
    #: the option that goes, or gets the value
    option: str = ""
    value: str = ""


@check("quantization-mismatch", since="0.1", literals=(*_SHAPES, *_WIDTHS, "quantization=", _FORCED))
def quantization_mismatch(pod: Pod, engine: Engine, logs: Logs | None) -> Iterator[Finding]:
    """The quantization does not fit the checkpoint or the engine.

    A quantized checkpoint says in its config.json how it was quantized, and the engine reads it from there.
    `--quantization` with another name, or on a checkpoint that is not quantized, is refused; so is a method that this
    version has no kernels for: vLLM has dropped AQLM, and moved GGUF (after 0.23) and bitsandbytes (after 0.26) into
    plugins. Some methods run with one data type only: the plain AWQ and GPTQ kernels with float16. An FP8 checkpoint and
    a cache in fp8_e5m2 exclude each other.

    Where layers of one checkpoint are quantized in several ways, an engine that takes one of them for another finds packed
    weights where it expects plain ones, or the reverse: one dimension differs by exactly 2, 4 or 8.

    `--quantization awq` or `gptq` also keeps vLLM and SGLang from the Marlin kernels, which they take by themselves for such a
    checkpoint and which are several times as fast; the log says so.

    ## Fix

    Leave `--quantization` out. If the method itself is not supported, take another checkpoint of the model or another
    version of the engine.

    ## References

    - https://docs.vllm.ai/en/latest/features/quantization/
    - https://huggingface.co/docs/text-generation-inference/conceptual/quantization
    """
    container = engine.container
    crashed = container.crashed
    if pod.ready and logs is not None and (slower := _slower(engine, logs)) is not None:
        yield slower
    if pod.log_only or (pod.exists and not crashed) or engine.name not in _FLAG:
        return
    if printed := [log for log in container.own_logs(logs) if log.text]:  # what it printed is the better witness
        if crashed:
            yield from _packed(engine, printed)
            yield from _too_narrow(engine, printed)
        return
    clash = next(_clashes(engine), None)
    if clash is None:
        return
    yield Finding(
        role="cause" if crashed else "risk",
        severity="warning" if not crashed and clash.confidence == "possible" else "critical",
        confidence="likely" if crashed else clash.confidence,
        summary=clash.summary,
        evidence=tuple(setting_evidence(container, setting) for setting in clash.settings),
        explains=FAILED_START if crashed else (),
        fix=_mended(engine, clash),
    )


def _slower(engine: Engine, logs: Logs) -> Finding | None:
    """Kernels that the option asks for, where the checkpoint would run with ones that are several times as fast."""
    log, setting = logs.current(engine.container.name), engine.explicit("quantization")
    line = log.last(_FORCED) if log is not None else None
    said = _FASTER.search(line.text[:2000]) if line is not None else None
    if line is None or said is None or setting is None or setting.value != said["asked"]:
        return None
    return Finding(
        role="note",
        severity="warning",
        confidence="certain",
        summary=f"{setting.text} makes {engine.at} compute with kernels that are several times as slow as {said['faster']}, which it would "
        "take by itself for this checkpoint and GPU.",
        evidence=(log_evidence(line), setting_evidence(engine.container, setting)),
        fix=fixes.remove_flag(
            engine, "quantization", f"Leave {setting.text} out: {engine.title} then takes {said['faster']}"
        ),
        order=line.order,
    )


def _mended(engine: Engine, clash: Clash) -> Fix:
    if clash.value:
        return fixes.set_flag(engine, clash.option, engine.called(clash.option), clash.value, clash.fix)
    if clash.option:
        return fixes.remove_flag(engine, clash.option, clash.fix)
    return fixes.advice(f"{clash.fix} ({fixes.edited(engine.pod)})")


def _packed(engine: Engine, printed: list[Log]) -> Iterator[Finding]:
    """A weight that is packed where its parameter is not, or the reverse, of an engine that quantizes."""
    for line, have, want in _said(printed, _SHAPES):
        factor = _factor(have, want)
        if (
            factor not in _PACKED
            or factor in (engine.workers, engine.container.gpus)
            or not _quantizes(engine, printed)
        ):
            continue  # a factor of the tensor parallel size is a part taken for the whole
        yield _unfit(
            engine,
            line,
            f"A weight of the checkpoint ({have}) and the parameter it belongs in ({want}) differ by exactly {factor}: "
            "one is packed, the other is not. The layer is quantized otherwise than this version of the engine takes it to be.",
            f"Take a version of {engine.title} that the model's page names for this checkpoint, or another quantization of the model",
            instead_of="weights-corrupt",
        )
        return


def _too_narrow(engine: Engine, printed: list[Log]) -> Iterator[Finding]:
    """A weight that the kernels of its quantization cannot take as it is, where no tensor parallelism made it narrower."""
    alone = engine.workers == 1 and engine.container.gpus == 1
    said = next(_said(printed, _WIDTHS), None) if alone else None
    if said:
        line, have, want = said
        yield _unfit(
            engine,
            line,
            f"A quantized weight is {have} wide, and its kernel needs a multiple of {want}; one GPU has all of it.",
            f"Take another quantization of the model, or a version of {engine.title} that leaves such layers as they are or pads them",
            instead_of="tp-not-divisible",
        )


def _unfit(engine: Engine, line: Line, summary: str, advice: str, *, instead_of: str) -> Finding:
    """A quantization that a line of the log shows to be the fault, rather than what it looks like."""
    return Finding(
        summary=summary,
        evidence=(log_evidence(line),),
        explains=(instead_of, *FAILED_START),
        fix=fixes.advice(f"{advice} ({fixes.edited(engine.pod)})"),
        order=line.order,
    )


def _said(printed: list[Log], words: dict[str, str]) -> Iterator[tuple[Line, str, str]]:
    """Lines that state what a weight has and what it should have."""
    for log in printed:
        for literal, pattern in words.items():
            yield from ((line, found["have"], found["want"]) for line, found in log.matching(pattern, literal))


def _factor(have: str, want: str) -> int | None:
    """By how much the one dimension differs in which two shapes differ, where that is a whole number."""
    dimensions = [[int(number) for number in re.findall(r"\d{1,9}", shape)] for shape in (have, want)]
    if len(dimensions[0]) != len(dimensions[1]):
        return None
    other = [(min(pair), max(pair)) for pair in zip(*dimensions, strict=True) if pair[0] != pair[1]]
    if len(other) != 1:
        return None
    small, large = other[0]
    return large // small if small and large % small == 0 else None


def _quantizes(engine: Engine, printed: list[Log]) -> bool:
    """Whether the engine loads the model as a quantized one: by what it prints, is told, or the model's name."""
    for log in printed:
        for _, found in log.matching(r"(?<!\w)quantization='?(?P<method>[\w.-]+)", "quantization="):
            return found["method"] != "None"
    model = engine.explicit("model")
    return engine.explicit("quantization") is not None or bool(model and _stored(str(model.value)))


def _clashes(engine: Engine) -> Iterator[Clash]:
    asked, model = engine.explicit("quantization"), engine.explicit("model")
    method = str(asked.value).lower() if asked else ""
    if asked and method not in ("", "none", "null"):
        yield from _unknown(engine, asked, method)
        if model:
            yield from _other(engine, asked, method, model)
        dtype = engine.explicit("dtype")
        if (
            engine.name == "vllm"
            and dtype
            and dtype.value == "bfloat16"
            and quantization.half_only(method, engine.version)
        ):
            summary = f"{engine.label} runs the quantization {method} with float16 only; {dtype.text} is set."
            known = find(engine.checkpoint) if model else None
            name = known.architecture.name if known else ""
            if quantization.not_in_half(name):
                leave = f"Leave {asked.flag} out: vLLM refuses float16 for {name}, and a kernel of its own choice does without"
                yield Clash(summary, "likely", (asked, dtype), leave, "quantization")
            else:
                yield Clash(summary, "likely", (asked, dtype), "Let it compute in float16", "dtype", "half")
    cache = engine.explicit("kv_cache_dtype")
    if engine.name == "vllm" and cache and cache.value == "fp8_e5m2":
        stored = _stored(engine.checkpoint) if model else None
        if method == "fp8" or (stored and stored[0] == "fp8"):
            by = asked if method == "fp8" else model
            summary = f"{engine.title} has no fp8_e5m2 cache for FP8 weights ({by.text if by else ''})."
            settings = tuple(s for s in (by, cache) if s)
            yield Clash(summary, "likely", settings, "Set the cache to fp8 (e4m3)", "kv_cache_dtype", "fp8")


def _unknown(engine: Engine, asked: Setting, method: str) -> Iterator[Clash]:
    if not engine.version or quantization.knows(engine.name, method, engine.version) is not False:
        return
    stored = _stored(engine.checkpoint) if engine.explicit("model") else None
    if method in _BY_CHECKPOINT and stored and stored[0] == "nvfp4":
        return
    plugin, last = quantization.PLUGINS.get(method), quantization.last_with(method)
    went = last and engine.at_least(last)
    tail = f"; the last release that was seen with it is {last}" if went else ""
    fix = f"Take an image of {engine.title} {last}" if went else "Take a newer image, or another checkpoint"
    if plugin:
        tail += f", and it lives in the plugin {plugin} now"
        fix = f"Take an image that has {plugin} installed, or one of {engine.title} {last}"
    yield Clash(f"{engine.label} knows no quantization {method}{tail}.", "likely", (asked,), fix)


def _other(engine: Engine, asked: Setting, method: str, model: Setting) -> Iterator[Clash]:
    """A method that cannot load this checkpoint, by what is known of it or by its name."""
    name = engine.checkpoint
    known = find(name)
    stored = _stored(name)
    leave = f"Leave {asked.flag or _FLAG[engine.name]} out: the engine reads the method from the checkpoint"
    if stored and quantization.runs(method, stored[0]) is False:
        how = f"is quantized with {stored[0]}" if stored[1] else f"is quantized with {stored[0]} by its name"
        yield Clash(f"{asked.text} is set, and {name} {how}.", "likely", (asked, model), leave, "quantization")
    elif method in _STORED_ONLY and not stored and known and known.exact:
        summary = f"{asked.text} is set, and {name} is not quantized: there is no {method} configuration to read."
        fix = f"{leave}, or take a checkpoint quantized so"
        yield Clash(summary, "likely", (asked, model), fix, "quantization")


def _stored(model: str) -> tuple[str, bool] | None:
    """The family of a checkpoint's quantization, and whether it is known rather than read off its name."""
    known = find(model)
    stored = known.architecture.quantization if known and known.exact else None
    if stored:
        return stored.method, True
    family = quantization.of_name(model)
    return (family, False) if family else None
