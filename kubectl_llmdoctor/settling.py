"""What a message about settings asks of those that a container states: which to add, to take out, or to give another value.

A message names options as they are written (`--enable-eplb`), as a program calls them inside (`enable_eplb`), as variables, or by
what they switch on ("expert parallelism"). Only what the container states is changed, so the answer names its place.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from kubectl_llmdoctor import engines, fixes
from kubectl_llmdoctor.catalog.families import parser_among
from kubectl_llmdoctor.engines.names import LOAD_SWITCHES, OPTIONS, load_mode
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts import script
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.engine import Engine
from kubectl_llmdoctor.report.document import Fix

#: What a message may call a setting by; the value that it wants of it may stand behind.
_NAME = expression(
    r"(?<![\w/.-])(?P<name>--?[a-zA-Z][\w-]{1,60}|[A-Z][A-Z0-9]{1,30}(?:_[A-Z0-9]{1,30}){1,8}|[a-z][a-z0-9]{0,30}(?:_[a-z0-9]{1,30}){1,8}"
    r"|[a-z]{3,20}(?= must | should |: (?:invalid|Input) ))"
    r"(?![\w-])"
)

#: What settings switch on, by what messages call it; each with the options of the engines.
_FEATURES = (
    (r"expert parallel", ("enable-expert-parallel", "ep-size", "expert-parallel-size")),
    (r"pipeline parallel", ("pipeline-parallel-size", "pp-size")),
    (r"data parallel", ("data-parallel-size", "dp-size", "dp")),
    (r"context parallel|\bDCP\b", ("decode-context-parallel-size", "prefill-context-parallel-size")),
    (r"prefix cach", ("enable-prefix-caching",)),
    (r"chunked prefill", ("enable-chunked-prefill", "chunked-prefill-size")),
    (r"speculative|spec(?:ulation)? decod", ("speculative-config", "speculative-algorithm", "speculative-model")),
    (r"\bLoRA\b", ("enable-lora", "lora-paths", "lora-modules")),
    (r"[Ss]leep mode", ("enable-sleep-mode",)),
    (r"KV cache|kv[ -]cache", ("kv-cache-dtype",)),
    (r"[Dd]ual[ -]batch|DBO\b", ("enable-dbo",)),
    (r"\bEPLB\b", ("enable-eplb",)),
    (r"[Qq]uantiz", ("quantization",)),
)

_EXCLUDES = expression(
    r"mutually exclusive|(?:can(?:not|'t| not)|must not|may not) be (?:used|set|enabled|specified|combined)|in ?compatible|not compatible"
    r"|conflicts? with|at the same time|(?:can(?:not|'t)|do not|don't) (?:use|set|specify|enable|combine)|only one of|does not work with"
)
_DEMANDS = expression(
    r"\b(?:requires?|needs?|depends on|must be used with|only (?:works|valid|supported|available) (?:with|when|if))\b"
)
_DEMANDED = expression(
    r"\b(?:is|are|must be) (?:required|set|given|specified|provided|enabled) (?:when|if|with|for|by|to use)\b"
)
_REFUSES = expression(
    r"(?i:not (?:yet |currently |been )?(?:supported|implemented|available|allowed|valid)|n[o']t support|unsupported|unknown|unrecognized"
    r"|only supports?|supports only|not applicable|can only be|invalid (?:value|type|argument))"
)
#: An option that is gone, and the one that took its place.
_SUCCESSOR = expression(r"(?:removed|renamed|no longer|deprecated).{0,80}?\b[Uu]se (--[\w-]{2,60})")
#: Those that a parser knows and that are spelt like it.
_ALIKE = expression(r"(?:Did you mean(?: one of:)?|Possible options:) ('?--[\w-]{2,60}(?:'?, '?--[\w-]{2,60}){0,9})")
_AT_LEAST = expression(
    r"^[`'\" (=\w):]{0,30}?(?:must|should|has to)(?: be)? (?:(?P<beyond>>(?!=)|(?:greater|larger|more) than(?! or))|>=|"
    r"greater than or equal to|at least|not? (?:less|smaller) than)\s{0,3}"
)
_AT_MOST = expression(
    r"^[`'\" (=\w):]{0,30}?(?:must|should|has to)(?: be)? (?:(?P<beyond><(?!=)|(?:less|smaller|lower) than(?! or))|<=|"
    r"less than or equal to|at most|not? (?:greater|larger) than)\s{0,3}"
)
_DIVISIBLE = expression(
    r"(?P<whole>[a-z]\w{1,60}|\d{1,12})(?: \(?=?(?P<is>\d{1,12})\)?)?\s{0,3}(?:%|(?:must|should|has to|is not|not) (?:be )?(?:evenly )?"
    r"divisible by|must be a multiple of|is not a multiple of)\s{0,3}(?P<by>[a-z]\w{1,60})"
)
_NO_NUMBER = expression(
    r"invalid (?:\w{0,20}int\w{0,20}|float|optional_type) value|wants a number"
    r"|: sto(?:u?ll?|[ifd])\b|valid (?:integer|number)|invalid digit|cannot be converted to <class '(?:int|float)'"
)
_NO_JSON = expression(r"JSON|json|cannot be converted to (?!<class )")
#: An object as pairs, and one of them.
_PAIRS = expression(r"\w{1,40}[=:]\s?[\w.-]{1,80}(?:[, ]\s?\w{1,40}[=:]\s?[\w.-]{1,80}){0,8}")
_PAIR = expression(r"(\w{1,40})[=:]\s?([\w.-]{1,80})")
#: What JSON writes without quotes.
_PLAIN = expression(r"-?(?:0|[1-9]\d{0,17})(?:\.\d{1,18})?|true|false|null")
#: Objects that hold settings in the code of engines.
_HOLDERS = expression(r"\b(?:self|cfg|args|server_args|config|\w{1,30}_config)\.(?=[a-z])")
_LONGEST = 600
_NUMBER = r"-?\d[\d.]{0,18}"
_BETWEEN = expression(r"\bbetween (-?\d[\d.]{0,18}) and (-?\d[\d.]{0,18})")
#: The values that a message lists.
_CHOICES = expression(
    r"(?:(?<!mean )one of|[Ss]upported \w{1,30}(?: \w{1,30})?(?: are)?|(?<!in)[Vv]alid \w{1,30}(?: are)?|[Aa]vailable \w{1,30}"
    r"|[Cc]hoo?se from)"
    r"[: ]{1,3}[\[({]?\s{0,3}(?P<list>['\"]?[\w./-]{1,60}['\"]?(?:(?:, ?| or |, or )['\"]?[\w./-]{1,60}['\"]?){0,80})"
)
_QUOTED_CHOICES = expression(r"is not one of (?P<list>'[^']{1,60}'(?:, '[^']{1,60}'){0,80})")

#: What engines call their parallel sizes inside, by the name that all share.
_SIZES = {
    "tp-size": "tensor_parallel_size", "attn-tp-size": "tensor_parallel_size", "dp-size": "data_parallel_size",
    "attn-dp-size": "data_parallel_size", "pp-size": "pipeline_parallel_size", "ep-size": "expert_parallel_size",
}  # fmt: skip

#: What stands behind a number for so many.
_UNITS = {"": 1, "k": 2**10, "K": 2**10, "M": 2**20, "G": 2**30}

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

#: Values that people write, and what parsers call the same.
_MEANT = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "float8": "fp8", "none": "auto"}

#: Shares of the GPU's memory, and how one is given in percent.
_SHARES = expression(r"(?i)-*(?:gpu[-_]memory[-_]utilization|mem[-_]fraction[-_]static|cuda[-_]memory[-_]fraction)")
_PERCENT = expression(r"(\d{1,3}(?:\.\d{1,6})?) ?%?")
_MOST_SHARE, _USUAL_SHARE = 0.95, "0.9"

#: Models of families that reason which do not, without the marks.
_UNREASONING = expression(r"(?:qwen3|kimik2).{0,80}(?:instruct|coder)")

#: What one writes and another leaves out.
_MARKS = expression(r"[-_. ]")

#: What stands behind an option in a sentence and is no value of it.
_PROSE = expression(
    r"to|and|or|is|are|be|in|for|with|when|if|as|set|must|option|flag|argument|a|an|the|instead|but|this|on|via|which|requires?|needs|can"
    r"(?:not)?|not|should|has|have|does|do|only|than|value|also|too|at|by|from|of"
)

#: What a server cannot do without, whatever a message says of it.
_KEPT = expression(
    r"-*(?:model|model[-_](?:path|id)|served[-_]model[-_]name|host|port|config|max[-_]model[-_]len|tensor[-_]parallel[-_]size|tp[-_]size|tp)"
)

#: Options that are switches by their names: what stands behind them is no value of theirs.
_SWITCH = expression(r"-{1,2}(?:enable|disable|no|use|trust|allow|skip|force)[-_]|--async-scheduling|--enforce-eager")

#: What stands behind a switch where a release takes it so.
_YES_OR_NO = frozenset({"true", "false", "yes", "no"})

#: Options that take several values.
_SEVERAL = expression(
    r"-{1,2}(?:lora-(?:modules|paths)|served-model-name|cuda-?graph-(?:sizes|bs|capture-sizes)|middleware|api-key)"
)
#: Several numbers in one word.
_LIST = expression(r"\[?\s{0,3}\d{1,9}(?:\s{0,3},\s{0,3}\d{1,9}|\s{1,3}\d{1,9}){1,200}\s{0,3}\]?")

#: Numbers of more digits are none of a setting, and JSON that is longer is not mended here.
_DIGITS, _JSON = 9, 20_000

#: What YAML reads as something else than it was meant for, or as the same thing many times.
_YAML_ONLY = expression(r"[&*!]|\b(?:yes|no|on|off|y|n)\b(?=\s{0,9}[,}\]])|(?<![\w.])0\d", re.IGNORECASE)


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
    valued = not follows.startswith("-") or re.fullmatch(_NUMBER, follows)
    apart = not equals and (follows.lower() in _YES_OR_NO if _SWITCH.match(option) else bool(valued))
    has = value if equals else follows if apart else None
    end = index + 1 + apart
    while _SEVERAL.fullmatch(option.replace("_", "-")) and end < len(words) and not words[end].startswith("-"):
        end += 1
    elements = tuple(range(end - 1, index - 1, -1))
    return Stated(name=option, value=has, vector=vector, index=index, apart=apart, elements=elements)


def _rewritten(container: Container, changes: list[tuple[str, str]], summary: str) -> Fix:
    """The start script with options written otherwise; advice where no patch can do that."""
    return fixes.rewritten(container, changes, summary) or fixes.advice(f"{summary}, in {fixes.edited(container.pod)}")


def without(container: Container, place: Stated, summary: str) -> Fix:
    """Take a setting out of where the container states it."""
    if not place.vector:
        return fixes.remove_env(container, place.name, summary)
    if place.index is None or container.told:
        return _rewritten(container, [(place.text, "")], summary)
    at = f"{container.pointer}/{place.vector}"
    return fixes.patch(container.pod, summary, [{"op": "remove", "path": f"{at}/{i}"} for i in place.elements])


def given(container: Container, place: Stated, value: str, summary: str) -> Fix:
    """Give a setting another value where the container states it."""
    if not place.vector:
        return fixes.set_env(container, place.name, value, summary)
    if place.index is None or container.told or place.value is None:
        new = f"{place.name}{' ' if place.apart else '='}{value}"
        return _rewritten(container, [(place.text, new)] if script.is_plain(value) else [], summary)
    at = place.index + 1 if place.apart else place.index
    word = value if place.apart else f"{place.name}={value}"
    operation = {"op": "replace", "path": f"{container.pointer}/{place.vector}/{at}", "value": word}
    return fixes.patch(container.pod, summary, [operation])


def added(container: Container, engine: Engine | None, words: tuple[str, ...], summary: str) -> Fix:
    """Append options to the container's arguments, to the command where that alone starts the program, or to those in a script."""
    spec = container.spec
    vector = "args" if spec.args else "command" if len(spec.command) > 1 else ""
    if script.is_script(container):
        return _rewritten(container, fixes.behind_options(engine, words) if engine else [], summary)
    if not vector or container.told:
        return fixes.advice(f"{summary}, in {fixes.edited(container.pod)}")
    return fixes.patch(container.pod, summary, fixes.appended(f"{container.pointer}/{vector}", *words))


class _Told:
    """A message, the settings that it names in their order, and which of them the container states."""

    def __init__(self, container: Container | None, engine: Engine | None, message: str) -> None:
        self.container = container
        self.engine = engine
        self.message = _bare(message)
        told = (m for m in _NAME.finditer(self.message) if not (m["name"].isalpha() and _KEPT.fullmatch(m["name"])))
        self.names = {m["name"]: m.start("name") for m in reversed([*told])}
        found = (
            [(n, stated(container, n, engine)) for n in sorted(self.names, key=self.names.__getitem__)]
            if container
            else []
        )
        self.stated = {name: place for name, place in found if place}
        if container and not self.stated:  # by what they switch on
            said = sorted((m.start(), o) for words, o in _FEATURES if (m := re.search(words, self.message)))
            places = [(option, stated(container, option, engine), at) for at, options in said for option in options]
            self.stated = {option: place for option, place, _ in places if place}
            self.names = {**self.names, **{option: at for option, place, at in places if place}}

    def options(self, start: int, end: int) -> list[str]:
        """The options, written as such, that a part of the message names."""
        return [
            n for n, at in sorted(self.names.items(), key=lambda x: x[1]) if n.startswith("--") and start <= at < end
        ]

    def wanted(self, name: str) -> str | None:
        """The value that the message gives behind an option; None where it gives none."""
        if _SWITCH.match(name):
            return None
        behind = self.message[self.names[name] + len(name) :]
        found = re.match(
            r"(?:=|\s(?:=\s)?(?=['\"]))['\"]?([\w./:-]{1,80}?)['\"]?(?=[\s.,;)]|$)|\s([a-z0-9][\w./:]{0,60}?)(?=[.,;)]?(?:\s|$))",
            behind,
        )
        value = (found[1] or found[2]) if found else None
        return None if value is None or _PROSE.fullmatch(value.lower()) else value


def named(message: str) -> list[str]:
    """The settings that a message names, in their order."""
    return list(dict.fromkeys(m["name"] for m in _NAME.finditer(_bare(message))))


def _bare(message: str) -> str:
    """A message without the objects of its program that hold settings: `self.tp_size` is `tp_size`."""
    return _HOLDERS.sub("", message[:_LONGEST])


def settled(container: Container | None, engine: Engine | None, message: str) -> tuple[Fix, ...]:
    """The change that a message asks of what the container states, else of what the message names; nothing where it names none."""
    told = _Told(container, engine, message)
    for way in (_chosen, _written_as, _multiple, _bounded, _exclusive, _demanded, _refused):
        if found := tuple(way(told)):
            return found
    return ()


def _chosen(told: _Told) -> Iterator[Fix]:
    """A value out of those that the message lists."""
    listed = _QUOTED_CHOICES.search(told.message) or _CHOICES.search(told.message)
    place = next(iter(told.stated.values()), None)
    if listed is None or place is None or told.container is None or place.value is None:
        return
    choices = [c.strip("'\" ") for c in re.split(r",? or |, ?", listed["list"]) if c.strip("'\" ")]
    if place.value in choices or len(choices) < 2:
        return
    if right := _by_model(told, place, choices) or nearest(place.value, choices):
        yield given(told.container, place, right, f"Set {place.name} to {right} (it is {place.value})")
    else:
        yield fixes.advice(
            f"Set {place.name} to one of {', '.join(choices[:12])} in {fixes.edited(told.container.pod)} (it is {place.value})"
        )


def _by_model(told: _Told, place: Stated, choices: list[str]) -> str:
    """Of parsers the one of the model's family, by its name; empty where that does not tell."""
    model = told.engine.checkpoint.rpartition("/")[2] if told.engine else ""
    if place.name.endswith("tool-call-parser"):
        return parser_among(model, choices)
    if not place.name.endswith("reasoning-parser"):
        return ""
    name = _MARKS.sub("", model.lower())
    if _UNREASONING.match(name):
        return ""
    return max((one for one in choices if name.startswith(_MARKS.sub("", one.lower()))), key=len, default="")


def nearest(value: str, choices: list[str]) -> str:
    """Of the values that a parser takes the one that was meant; empty where that is open."""
    lower = {choice.lower(): choice for choice in choices}
    if (meant := _MEANT.get(value.lower())) in lower:
        return lower[str(meant)]
    alike = [choice for choice in choices if _MARKS.sub("", choice.lower()) == _MARKS.sub("", value.lower())]
    if len(alike) == 1:
        return alike[0]
    # another number is another version of it, which a release may not have
    digits = re.findall(r"\d+", value)
    lower = {low: choice for low, choice in lower.items() if re.findall(r"\d+", low) == digits}
    begun = [choice for low, choice in lower.items() if low.startswith(value.lower()) or value.lower().startswith(low)]
    if len(begun) == 1 and len(value) > 2:
        return begun[0]
    found = difflib.get_close_matches(value.lower(), lower, n=2, cutoff=0.75)
    return lower[found[0]] if found else ""


def _written_as(told: _Told) -> Iterator[Fix]:
    """A value that is written in another way than the parser wants it: JSON in quotes, a number with a unit."""
    place = next(iter(told.stated.values()), None)
    if place is None or place.value is None or told.container is None:
        return
    if share := as_share(told.container, place):
        yield share
    elif _NO_NUMBER.search(told.message) and (words := _in_words(told.container, place)):
        yield words
    elif _NO_NUMBER.search(told.message) and (digits := in_digits(told.container, place)):
        yield digits
    elif _NO_NUMBER.search(told.message) and not _KEPT.fullmatch(place.name) and not re.fullmatch(_NUMBER, place.value):
        yield without(told.container, place, f"Remove {place.text}: it must be a number")
    elif _NO_JSON.search(told.message) and (right := as_json(place.value)) and right != place.value:
        yield given(told.container, place, right, f"Write the value of {place.name} as plain JSON: {right}")


def _in_words(container: Container, place: Stated) -> Fix | None:
    """A list in one word, of an option that takes each of its numbers as a word of its own, as such words."""
    several = _SEVERAL.fullmatch(place.name.replace("_", "-"))
    if not several or not place.vector or not _LIST.fullmatch(place.value or ""):
        return None
    words = re.findall(r"\d+", str(place.value))
    summary = f"Give {place.name} each of its numbers as a word of its own: {' '.join(words)}"
    if place.index is None or container.told:
        return _rewritten(container, [(place.text, " ".join((place.name, *words)))], summary)
    at, begin = f"{container.pointer}/{place.vector}", place.index + place.apart
    written = words if place.apart else [place.name, *words]
    operations = [{"op": "add", "path": f"{at}/{begin + i}", "value": word} for i, word in enumerate(written)]
    return fixes.patch(container.pod, summary, [{**operations[0], "op": "replace"}, *operations[1:]])


def as_share(container: Container, place: Stated) -> Fix | None:
    """A share of the GPU's memory that is given in percent, or is more than the whole, as a part of one; None where it is none."""
    percent = _PERCENT.fullmatch(place.value or "") if _SHARES.fullmatch(place.name) else None
    number = float(percent[1]) if percent else 0
    if 1 < number < 10:  # all of a GPU leaves nothing for what lies beside weights and cache
        return given(container, place, _USUAL_SHARE, f"Set {place.name} to {_USUAL_SHARE} (it is {place.value})")
    if not 10 <= number <= 100:
        return None
    right = f"{min(number / 100, _MOST_SHARE):g}"
    return given(container, place, right, f"Set {place.name} to {right}: it is a part of 1, not {place.value}")


def in_digits(container: Container, place: Stated) -> Fix | None:
    """A whole number that is written in another way, in digits; None where the value is none, or is digits already."""
    number = _number(place.value or "")
    if not number:
        return None
    # Go's %v, from a million on
    by_helm = "e" in str(place.value).lower() and len(number) > 6
    whence = "; Helm writes large numbers of its values so: quote it there" if by_helm else ""
    return given(
        container, place, number, f"Write {place.name} in digits alone: {number} (it is {place.value}{whence})"
    )


def _number(value: str) -> str:
    """`32k`, `"8192"`, `8,192` and `1.31072e+05` in digits."""
    bare = value.strip("'\" ").replace("_", "")
    if re.fullmatch(r"\d{1,3}(?:,\d{3}){1,3}", bare):
        bare = bare.replace(",", "")
    found = re.fullmatch(r"(\d{1,12})(?:\.0{1,3})?([kKMG]?)(i?)B?", bare)
    number = str(int(found[1]) * _UNITS[found[2]]) if found else ""
    if powers := re.fullmatch(r"(\d)(?:\.(\d{1,15}))?[eE]\+?(\d{1,2})", bare):
        digits, places = (powers[2] or "").rstrip("0"), int(powers[3])
        number = powers[1] + digits.ljust(places, "0") if len(digits) <= places <= _DIGITS else ""
    return number if number != value else ""


def as_json(value: str) -> str:
    """A value as JSON, where it is one in the quotes of a shell, with Python's quotes, with none, or pairs; else empty."""
    bare = value.strip()
    while len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "'\"":
        bare = bare[1:-1].strip()
    bare = bare.replace('\\"', '"')
    if _PAIRS.fullmatch(bare):
        bare = "{" + ", ".join(f'"{name}": {_plain(value)}' for name, value in _PAIR.findall(bare)) + "}"
    if not re.match(r"[\[{]", bare) or len(bare) > _JSON:
        return ""
    try:
        tree = _tree(bare)
        return msgspec.json.encode(tree).decode() if isinstance(tree, dict | list) else ""
    except (msgspec.DecodeError, ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return ""


def _plain(value: str) -> str:
    """A word as JSON has it: a number, `true` or `false` as they are, anything else in quotes."""
    return value.lower() if _PLAIN.fullmatch(value.lower()) else f'"{value}"'


def _tree(text: str) -> Any:
    """What a text means that is JSON, a value of Python's, or JSON whose quotes a shell took; None where that is open."""
    for read in (msgspec.json.decode, ast.literal_eval):
        with contextlib.suppress(msgspec.DecodeError, ValueError, SyntaxError):
            return read(text)
    if _YAML_ONLY.search(text):
        return None
    bare = text if re.search("['\"]", text) else re.sub(r"(?<=[{,])(\s{0,9}[\w-]{1,60}):(?=\S)", r"\1: ", text)
    tree = msgspec.yaml.decode(bare)
    empty = b"null" in msgspec.json.encode(tree) and "null" not in text  # a name without a value
    return None if empty else tree


def _integer(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and len(text) <= _DIGITS else None


def _multiple(told: _Told) -> Iterator[Fix]:
    """A number that another one must be a multiple of: the largest smaller divisor."""
    found = _DIVISIBLE.search(told.message)
    place = told.stated.get(found["by"]) if found else None
    whole = _value(told, found["whole"], found["is"]) if found else None
    part = (_integer(place.value) if place else None) or 0
    if found is None or place is None or told.container is None or not whole or part < 1 or whole % part == 0:
        return
    small = [d for d in range(1, math.isqrt(whole) + 1) if whole % d == 0]
    right = str(max(d for d in (*small, *(whole // d for d in small)) if d <= part))
    yield given(told.container, place, right, f"Set {place.name} to {right}, which divides {whole} (it is {part})")


def _value(told: _Told, name: str, said: str | None) -> int | None:
    """A number of a message: as it stands there, or as the container states it."""
    if name.isdecimal() or said:
        return _integer(name) if name.isdecimal() else _integer(said)
    place = told.stated.get(name)
    if place is None and name.endswith("tp_size"):
        return 1
    return _integer(place.value) if place else None


def _bounded(told: _Told) -> Iterator[Fix]:
    """A number that must not be below, or above, another one, or between two."""
    for name, place in told.stated.items():
        behind = told.message[told.names[name] + len(name) :]
        if told.container is None or place.value is None or not re.fullmatch(_NUMBER, place.value):
            continue
        if (between := _BETWEEN.search(behind)) and len(told.stated) == 1:
            text = f"Set {name} to a number from {between[1]} to {between[2]} (it is {place.value})"
            yield fixes.advice(f"{text} in {fixes.edited(told.container.pod)}, or leave it out")
            return
        least, most = _AT_LEAST.match(behind), _AT_MOST.match(behind)
        limit = least or most
        bound = _bound(told, behind, limit.end()) if limit else ""
        if limit and bound:
            step = 1 if least else -1
            whole = bound.lstrip("-").isdecimal() and len(bound) <= _DIGITS
            right = str(int(bound) + step) if limit["beyond"] and whole else bound
            if least and right in ("0", "1"):  # the least that is none too few is not what anybody means
                yield without(told.container, place, f"Remove {place.text}: it must be {right} at least")
            else:
                yield given(told.container, place, right, f"Set {place.name} to {right} (it is {place.value})")
            return


def _bound(told: _Told, text: str, at: int) -> str:
    """The number that stands at a place of the message, or that a setting has which it names there."""
    if number := re.match(_NUMBER + r"(?!\w)", text[at:]):
        return number[0].rstrip(".")
    other = _NAME.match(text, at)
    known = told.stated.get(other["name"]) if other else None
    return known.value if known and known.value and re.fullmatch(_NUMBER, known.value) else ""


def _exclusive(told: _Told) -> Iterator[Fix]:
    """Two settings that exclude each other: the one that the message names first goes."""
    if not _EXCLUDES.search(told.message):
        return
    if told.container is not None and told.stated:
        free = [place for place in told.stated.values() if not _KEPT.fullmatch(place.name)]
        if not free:
            return
        place = free[0]
        others = [other for other in told.stated.values() if other is not place]
        beside = f"; {others[0].text} can stay" if others else ""
        yield without(told.container, place, f"Remove {place.text}{beside}")
    elif len(both := told.options(0, len(told.message))) > 1:
        yield fixes.advice(f"Leave out one of {both[0]} and {both[1]}")


def _demanded(told: _Told) -> Iterator[Fix]:
    """A setting that wants another one beside it."""
    demand, required = _DEMANDS.search(told.message), _DEMANDED.search(told.message)
    if demand:
        first, second = told.options(0, demand.start()), told.options(demand.end(), len(told.message))
    elif required:
        second, first = told.options(0, required.start()), told.options(required.end(), len(told.message))
    else:
        return
    lacked = next((name for name in second if name not in told.stated), "")
    other = next((name for name in second if name in told.stated and told.wanted(name)), "")
    cause = next((name for name in (*told.stated, *first) if name not in second), "")
    container = told.container
    if other and not lacked and container is not None:
        value = str(told.wanted(other))
        yield given(
            container, told.stated[other], value, f"Set {other} to {value}, as {cause or 'the message'} wants it"
        )
    elif lacked:
        wanted = told.wanted(lacked)
        word = f"{lacked}={wanted}" if wanted else lacked
        whole = wanted or _SWITCH.match(lacked)
        text = f"Add {word}{'' if whole else ' with its value'}" + (f", which {cause} wants beside it" if cause else "")
        yield (
            added(container, told.engine, (word,), text)
            if container and whole
            else fixes.advice(text + (f", in {fixes.edited(container.pod)}" if container else ""))
        )
        if container is not None and whole and cause in told.stated:
            yield without(container, told.stated[cause], f"Remove {told.stated[cause].text} instead")


def renamed(container: Container, place: Stated, name: str) -> Fix:
    """An option under the name that it has now; its value stays."""
    summary = f"Write {name} instead of {place.name}"
    if place.index is None or container.told:
        return _rewritten(container, [(place.text, place.text.replace(place.name, name, 1))], summary)
    path = f"{container.pointer}/{place.vector}/{place.index}"
    return fixes.patch(container.pod, summary, [{"op": "replace", "path": path, "value": _named(place, name)}])


def _named(place: Stated, name: str) -> str:
    """The word that an option is under another name, with its value where that is a part of the word."""
    return name if place.apart or place.value is None else f"{name}={place.value}"


def _loads_by_mode(container: Container) -> Fix | None:
    """llama.cpp's option for how a model is loaded, in place of all the switches for that: it ends at the first of them."""
    places = [
        place for name in LOAD_SWITCHES if (place := stated(container, name)) and place.vector and not place.value
    ]
    places.sort(key=lambda place: (place.vector, place.index or 0))
    if not places:
        return None
    if stated(container, "--load-mode") or stated(container, "-lm"):
        return dropped(container, None, [place.name for place in places])
    first, mode = places[0], load_mode({place.name for place in places})
    names = " and ".join(place.name for place in places)
    summary = f"Write --load-mode {mode} instead of {names}, which newer releases no longer have"
    if container.told or any(place.index is None or place.vector != first.vector for place in places):
        changes = [(first.name, f"--load-mode {mode}"), *((place.name, "") for place in places[1:])]
        return _rewritten(container, changes, summary)
    at = f"{container.pointer}/{first.vector}"
    later = sorted((i for place in places for i in place.elements if i != first.index), reverse=True)
    operations = [
        *({"op": "remove", "path": f"{at}/{index}"} for index in later),
        {"op": "replace", "path": f"{at}/{first.index}", "value": "--load-mode"},
        {"op": "add", "path": f"{at}/{(first.index or 0) + 1}", "value": mode},
    ]
    return fixes.patch(container.pod, summary, operations)


#: Of llama.cpp, which took it alone before b6325, and takes it by itself since where it is left out.
_WANTS_A_VALUE = "--flash-attn"


def _meant(engine: Engine | None, container: Container, place: Stated) -> str:
    """The option that was meant: the nearest of the engine's release, or one that begins as it or that it begins: `--max-model-length`."""
    name = place.name
    near = next((one.meant for one in engine.problems if one.flag == name and one.meant), "") if engine else ""
    if near and (near != _WANTS_A_VALUE or place.value is not None) and _takes(container, place, near):
        return near
    known = [options[engine.name] for options in OPTIONS.values() if engine.name in options] if engine else []
    begun = {o for o in known if len(name) > 6 and o.startswith(name)}
    # with a word more it is an option of another release
    longer = {o for o in known if name.startswith(o) and not re.search("[-_]", name.removeprefix(o))}
    found = (begun | longer) - {name}
    return found.pop() if len(found) == 1 else ""


def _takes(container: Container, place: Stated, name: str) -> bool:
    """Whether the engine takes what the container states under another name."""
    if place.index is None or container.told:
        return False
    words = container.spec.words(place.vector)
    words[place.index] = _named(place, name)
    found = engines.read(msgspec.structs.replace(container.launch, **{place.vector: tuple(words)}))
    return found is not None and not any(one.flag == name for one in found.problems)


def _refused(told: _Told) -> Iterator[Fix]:
    """A setting of what cannot be had here."""
    if told.container is None or not told.stated:
        return
    first, successor = next(iter(told.stated.values())), _SUCCESSOR.search(told.message)
    unknown = _meant(told.engine, told.container, first) if told.message.startswith("unknown ") else ""
    if alike := _ALIKE.search(told.message):
        # Click also names what only shares a word: --model-timeout for --model
        unknown = next(iter(difflib.get_close_matches(first.name, re.findall(r"--[\w-]+", alike[1]), 1, 0.7)), "")
        if first.vector and not unknown:
            yield without(told.container, first, f"Remove {first.text}, which is none of its options")
            return
    of_llama = told.engine is not None and told.engine.name == "llama.cpp" and first.name in LOAD_SWITCHES
    if of_llama and told.message.startswith("unknown ") and (fix := _loads_by_mode(told.container)):
        yield fix
        return
    if first.vector and (right := successor[1] if successor else unknown):
        yield renamed(told.container, first, right)
        return
    if (
        _REFUSES.search(told.message)
        or _DEMANDS.search(told.message)
        or re.search(r"\b(?:when|if|with)\b", told.message)
    ):
        demand = None if _REFUSES.search(told.message) else _DEMANDS.search(told.message)
        wanted = {name for name, at in told.names.items() if demand and at > demand.start()}
        place = next((p for n, p in told.stated.items() if n not in wanted and not _KEPT.fullmatch(p.name)), None)
        if place is None:
            return
        yield without(told.container, place, f"Remove {place.text}")


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
        return _rewritten(container, [change] if script.is_plain(name) else [], summary)
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
        return _rewritten(container, changes, summary)
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
