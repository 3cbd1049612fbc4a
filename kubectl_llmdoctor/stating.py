"""A setting as a container states it: where it stands, and what gives it another value, name or place, or takes it out."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from kubectl_llmdoctor import fixes
from kubectl_llmdoctor.engines.names import OPTIONS
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts import script
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.engine import Engine
from kubectl_llmdoctor.report.document import Fix

NUMBER = r"-?\d[\d.]{0,18}"

#: What engines call their parallel sizes inside, by the name that all share.
_SIZES = {
    "tp-size": "tensor_parallel_size", "attn-tp-size": "tensor_parallel_size", "dp-size": "data_parallel_size",
    "attn-dp-size": "data_parallel_size", "pp-size": "pipeline_parallel_size", "ep-size": "expert_parallel_size",
}  # fmt: skip

#: ms-swift, which starts vLLM in its own process and calls settings of it `--vllm_max_lora_rank`: these (rlhf_trainers/args_mixin.py),
#: and refuses any other; what else vLLM has, `--vllm_engine_kwargs` hands on.
_OF_SWIFT = expression(r"(?:^|[\s/])swift\s{1,9}(?:deploy|infer|rollout|app|eval)\b")
_SWIFT_HAS = frozenset({
    "data_parallel_size", "disable_cascade_attn", "disable_custom_all_reduce", "enable_expert_parallel",
    "enable_prefix_caching", "enforce_eager", "gpu_memory_utilization", "limit_mm_per_prompt", "max_lora_rank",
    "max_model_len", "max_num_seqs", "mm_processor_cache_gb", "pipeline_parallel_size", "quantization",
    "reasoning_parser", "speculative_config", "tensor_parallel_size", "use_async_engine",
})  # fmt: skip
#: What is a setting of ms-swift itself.
_SWIFT_OWN = {"dtype": "--torch_dtype", "host": "--host"}

#: Options that are switches by their names: what stands behind them is no value of theirs.
SWITCH = expression(r"-{1,2}(?:enable|disable|no|use|trust|allow|skip|force)[-_]|--async-scheduling|--enforce-eager")

#: What stands behind a switch where a release takes it so.
_YES_OR_NO = frozenset({"true", "false", "yes", "no"})

#: Options that take several values.
SEVERAL = expression(
    r"-{1,2}(?:lora-(?:modules|paths)|served-model-name|cuda-?graph-(?:sizes|bs|capture-sizes)|middleware|api-key)"
)


class Stated(msgspec.Struct, frozen=True, kw_only=True):
    """A setting as a container states it: in one element of `args` or `command` or two, in a script, or in a variable."""

    name: str
    value: str | None
    #: `args` or `command`; empty for a variable
    vector: str = ""
    #: None: somewhere in a script
    index: int | None = None
    apart: bool = False
    #: the elements of the vector in which it stands, wherever it does, the last first
    elements: tuple[int, ...] = ()

    @property
    def text(self) -> str:
        """`--tp-size 8`, as it is written."""
        return (
            f"{self.name}{'=' if not self.vector or not self.apart else ' '}{self.value}" if self.value else self.name
        )


def stated(container: Container, name: str, engine: Engine | None = None) -> Stated | None:
    """How a container states a setting that a message calls so."""
    if variable := next((v for v in container.spec.env if v.name == name), None):
        return Stated(name=name, value=None if variable.value_from or variable.value is None else str(variable.value))
    bare = name.lstrip("-").replace("_", "-")
    for vector in ("args", "command"):
        words = container.spec.words(vector)
        places = [found for index in range(len(words)) if (found := _written(words, index, vector, bare))]
        if places:  # the last one counts
            elements = sorted((i for place in places for i in place.elements), reverse=True)
            return msgspec.structs.replace(places[-1], elements=tuple(elements))
    own = engine.explicit(_SIZES.get(bare, bare.replace("-", "_"))) if engine else None
    if own is None or own.source not in ("flag", "env") or own.flag.lstrip("-").replace("_", "-") == bare:
        return None
    return stated(container, own.flag)


def _written(words: list[str], index: int, vector: str, bare: str) -> Stated | None:
    """An option of that name in one element: a word, or a script."""
    word = words[index]
    if bare.partition("-")[0] not in word:
        return None
    if " -" in word or "\n" in word:
        name = rf"(?<![\w-])(-{{1,2}}{re.escape(bare).replace('-', '[-_]').replace(chr(92) + '[', '[')})"
        found = re.search(name + r"(?:([= ])([^\s-]\S{0,200}))?(?=\s|$)", word)
        return Stated(name=found[1], value=found[3], vector=vector, apart=found[2] == " ") if found else None
    option, equals, value = word.partition("=")
    if not option.startswith("-") or option.lstrip("-").replace("_", "-") != bare:
        return None
    follows = words[index + 1] if index + 1 < len(words) else "-"
    valued = not follows.startswith("-") or re.fullmatch(NUMBER, follows)
    apart = not equals and (follows.lower() in _YES_OR_NO if SWITCH.match(option) else bool(valued))
    has = value if equals else follows if apart else None
    end = index + 1 + apart
    while SEVERAL.fullmatch(option.replace("_", "-")) and end < len(words) and not words[end].startswith("-"):
        end += 1
    elements = tuple(range(end - 1, index - 1, -1))
    return Stated(name=option, value=has, vector=vector, index=index, apart=apart, elements=elements)


def rewritten(container: Container, changes: list[tuple[str, str]], summary: str) -> Fix:
    """The start script with options written otherwise; advice where no patch can do that."""
    return fixes.rewritten(container, changes, summary) or fixes.advice(f"{summary}, in {fixes.edited(container.pod)}")


def without(container: Container, place: Stated, summary: str) -> Fix:
    """Take a setting out of where the container states it."""
    if not place.vector:
        return fixes.remove_env(container, place.name, summary)
    if place.index is None or container.told:
        return rewritten(container, [(place.text, "")], summary)
    at = f"{container.pointer}/{place.vector}"
    return fixes.patch(container.pod, summary, [{"op": "remove", "path": f"{at}/{i}"} for i in place.elements])


def given(container: Container, place: Stated, value: str, summary: str) -> Fix:
    """Give a setting another value where the container states it."""
    if not place.vector:
        return fixes.set_env(container, place.name, value, summary)
    if place.index is None or container.told or place.value is None:
        new = f"{place.name}{' ' if place.apart else '='}{value}"
        return rewritten(container, [(place.text, new)] if script.is_plain(value) else [], summary)
    at = place.index + 1 if place.apart else place.index
    word = value if place.apart else f"{place.name}={value}"
    operation = {"op": "replace", "path": f"{container.pointer}/{place.vector}/{at}", "value": word}
    return fixes.patch(container.pod, summary, [operation])


def added(container: Container, engine: Engine | None, words: tuple[str, ...], summary: str) -> Fix:
    """Append options to the container's arguments, to the command where that alone starts the program, or to those in a script."""
    spec = container.spec
    vector = "args" if spec.args else "command" if len(spec.command) > 1 else ""
    if script.is_script(container):
        return rewritten(container, fixes.behind_options(engine, words) if engine else [], summary)
    if not vector or container.told:
        return fixes.advice(f"{summary}, in {fixes.edited(container.pod)}")
    return fixes.patch(container.pod, summary, fixes.appended(f"{container.pointer}/{vector}", *words))


def renamed(container: Container, place: Stated, name: str) -> Fix:
    """An option under the name that it has now; its value stays."""
    summary = f"Write {name} instead of {place.name}"
    if place.index is None or container.told:
        return rewritten(container, [(place.text, place.text.replace(place.name, name, 1))], summary)
    path = f"{container.pointer}/{place.vector}/{place.index}"
    return fixes.patch(container.pod, summary, [{"op": "replace", "path": path, "value": named_so(place, name)}])


def named_so(place: Stated, name: str) -> str:
    """The word that an option is under another name, with its value where that is a part of the word."""
    return name if place.apart or place.value is None else f"{name}={place.value}"


def dropped(container: Container, engine: Engine | None, names: Iterable[str]) -> Fix | None:
    """Settings are taken out of where the container states them; None where it states none of them."""
    places = [place for name in names if (place := stated(container, name, engine))]
    if len(places) < 2:
        return without(container, places[0], f"Remove {places[0].text}") if places else None
    told = f"Remove {', '.join(place.text for place in places)}"
    vectors = {place.vector for place in places}
    if len(vectors) > 1 or vectors == {""} or any(place.index is None for place in places) or container.told:
        return fixes.advice(f"{told} in {fixes.edited(container.pod)}")
    last_first = sorted({i for place in places for i in place.elements}, reverse=True)
    at = f"{container.pointer}/{places[0].vector}"
    return fixes.patch(container.pod, told, [{"op": "remove", "path": f"{at}/{index}"} for index in last_first])


def word(container: Container, old: str, new: str, summary: str) -> Fix | None:
    """One element of the arguments in other words; None where it is none, or several are alike."""
    for vector in ("args", "command"):
        words = container.spec.words(vector)
        if words.count(old) == 1 and not container.told:
            operation = {"op": "replace", "path": f"{container.pointer}/{vector}/{words.index(old)}", "value": new}
            return fixes.patch(container.pod, summary, [operation])
    return None


def takes_adapters(engine: Engine) -> bool:
    """Whether the server takes LoRA adapters, of which each has a name of its own beside the model's."""
    return any(engine.value(name) for name in ("enable_lora", "lora_modules", "lora_source"))


def serving_as(engine: Engine, name: str) -> Fix | None:
    """vLLM, or a NIM, answers to one more name; None where the server is another, or what it answers to is not known.

    Nor where the name may be that of an adapter: the model would answer in its place, without the adapter and without a word.
    """
    container, told = engine.container, engine.explicit("served_model_name")
    value = told.value if told else engine.value("model")
    names = [value] if isinstance(value, str) else [*value] if isinstance(value, list | tuple) else []
    if (
        engine.name not in ("vllm", "nim")
        or takes_adapters(engine)
        or not names
        or name in names
        or not name
        or name.startswith("-")
        or engine.pod.log_only
        or not engine.found.argv_known
    ):
        return None
    if engine.name == "nim":
        every, variable = ",".join((*map(str, names), name)), OPTIONS["served_model_name"]["nim"]
        return fixes.set_env(container, variable, every, f"Have the server answer to {name}, too")
    place = stated(container, "--served-model-name")
    whole = " ".join((*map(str, names), name))
    summary = f"Have the server answer to {name}, too: --served-model-name {whole}"
    if place is None and told is None:
        return added(container, engine, ("--served-model-name", *map(str, names), name), summary)
    if place is None or container.told:
        return fixes.advice(f"{summary} in {fixes.edited(container.pod)}")
    if place.index is None:  # in a script
        change = (place.text, f"{place.text.replace('=', ' ', 1)} {name}")
        return rewritten(container, [change] if script.is_plain(name) else [], summary)
    at = f"{container.pointer}/{place.vector}"
    if place.apart:
        return fixes.patch(container.pod, summary, [{"op": "add", "path": f"{at}/{place.index + 2}", "value": name}])
    words = [place.name, *map(str, names), name]
    return fixes.patch(container.pod, summary, fixes.in_place(at, place.index, words))


def put(container: Container, engine: Engine | None, name: str, value: str, summary: str) -> Fix:
    """An option gets a value: where the container states it, else at the end of its arguments; without one it is a switch."""
    if of_swift := engine is None and _OF_SWIFT.search(" ".join(map(str, container.spec.argv))) is not None:
        setting = name.lstrip("-").replace("-", "_")
        own = _SWIFT_OWN.get(setting) or (f"--vllm_{setting}" if setting in _SWIFT_HAS else "")
        if not own:
            return fixes.advice(
                f"{summary}: as {setting} in the JSON of --vllm_engine_kwargs, in {fixes.edited(container.pod)}"
            )
        name, summary = own, summary.replace(name, own)
    place = stated(container, name, engine)
    if place is not None and place.value is not None:
        return given(container, place, value, summary)
    if place is not None and place.vector and value:  # it stands there without one, so that a second one would not help
        if place.index is not None and not container.told:
            at = f"{container.pointer}/{place.vector}/{place.index + 1}"
            return fixes.patch(container.pod, summary, [{"op": "add", "path": at, "value": value}])
        changes = [(place.name, f"{place.name} {value}")] if script.is_plain(value) else []
        return rewritten(container, changes, summary)
    if engine is None and place is None and not of_swift:  # whatever starts the server has arguments of its own
        return fixes.advice(f"{summary}: {_of_a_starter(container, name)}")
    if value and engine is not None and engine.name == "llama.cpp":  # whose parser knows no `=`
        return added(container, engine, (name, value), summary)
    return added(container, engine, (f"{name}={value}" if value else name,), summary)


def _of_a_starter(container: Container, name: str) -> str:
    """Where a program that starts a server by a configuration of its own has an option: a ConfigMap's key that names it, if any."""
    words = "[-_]".join(re.escape(word) for word in re.split(r"[-_]", name.lstrip("-")))
    for config, data in container.config_maps:
        for key, text in data.items():
            if re.search(rf"(?<![\w-])-{{0,2}}{words}(?![\w-])", text[:20_000]):
                return f"key {key} of ConfigMap/{config} names it"
    return f"{container.name} in {fixes.edited(container.pod)} starts it by a configuration of its own"


def holding(container: Container, value: str) -> Stated | None:
    """The one option or variable whose value is this one, or has it in it."""
    found = [Stated(name=v.name, value=str(v.value)) for v in container.spec.env if v.value and str(v.value) == value]
    for vector in ("args", "command"):
        words = container.spec.words(vector)
        for index, word in enumerate(words):
            option, equals, behind = word.partition("=")
            if equals and option.startswith("-") and behind == value:
                found.append(Stated(name=option, value=behind, vector=vector, index=index))
            elif word == value and index and words[index - 1].startswith("-"):
                found.append(Stated(name=words[index - 1], value=value, vector=vector, index=index - 1, apart=True))
    return found[0] if len(found) == 1 else None
