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
from collections.abc import Iterator
from typing import Any

import msgspec

from kubectl_llmdoctor import engines, fixes
from kubectl_llmdoctor.catalog.families import parser_among
from kubectl_llmdoctor.engines.names import LOAD_SWITCHES, OPTIONS, load_mode
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.engine import Engine
from kubectl_llmdoctor.report.document import Fix
from kubectl_llmdoctor.stating import (
    NUMBER,
    SEVERAL,
    SWITCH,
    Stated,
    added,
    dropped,
    given,
    named_so,
    renamed,
    rewritten,
    stated,
    without,
)

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
_BETWEEN = expression(r"\bbetween (-?\d[\d.]{0,18}) and (-?\d[\d.]{0,18})")
#: The values that a message lists.
_CHOICES = expression(
    r"(?:(?<!mean )one of|[Ss]upported \w{1,30}(?: \w{1,30})?(?: are)?|(?<!in)[Vv]alid \w{1,30}(?: are)?|[Aa]vailable \w{1,30}"
    r"|[Cc]hoo?se from)"
    r"[: ]{1,3}[\[({]?\s{0,3}(?P<list>['\"]?[\w./-]{1,60}['\"]?(?:(?:, ?| or |, or )['\"]?[\w./-]{1,60}['\"]?){0,80})"
)
_QUOTED_CHOICES = expression(r"is not one of (?P<list>'[^']{1,60}'(?:, '[^']{1,60}'){0,80})")


#: What stands behind a number for so many.
_UNITS = {"": 1, "k": 2**10, "K": 2**10, "M": 2**20, "G": 2**30}


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


#: Several numbers in one word.
_LIST = expression(r"\[?\s{0,3}\d{1,9}(?:\s{0,3},\s{0,3}\d{1,9}|\s{1,3}\d{1,9}){1,200}\s{0,3}\]?")

#: Numbers of more digits are none of a setting, and JSON that is longer is not mended here.
_DIGITS, _JSON = 9, 20_000

#: What YAML reads as something else than it was meant for, or as the same thing many times.
_YAML_ONLY = expression(r"[&*!]|\b(?:yes|no|on|off|y|n)\b(?=\s{0,9}[,}\]])|(?<![\w.])0\d", re.IGNORECASE)


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
        if SWITCH.match(name):
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
    elif _NO_NUMBER.search(told.message) and not _KEPT.fullmatch(place.name) and not re.fullmatch(NUMBER, place.value):
        yield without(told.container, place, f"Remove {place.text}: it must be a number")
    elif _NO_JSON.search(told.message) and (right := as_json(place.value)) and right != place.value:
        yield given(told.container, place, right, f"Write the value of {place.name} as plain JSON: {right}")


def _in_words(container: Container, place: Stated) -> Fix | None:
    """A list in one word, of an option that takes each of its numbers as a word of its own, as such words."""
    several = SEVERAL.fullmatch(place.name.replace("_", "-"))
    if not several or not place.vector or not _LIST.fullmatch(place.value or ""):
        return None
    words = re.findall(r"\d+", str(place.value))
    summary = f"Give {place.name} each of its numbers as a word of its own: {' '.join(words)}"
    if place.index is None or container.told:
        return rewritten(container, [(place.text, " ".join((place.name, *words)))], summary)
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
        if told.container is None or place.value is None or not re.fullmatch(NUMBER, place.value):
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
    if number := re.match(NUMBER + r"(?!\w)", text[at:]):
        return number[0].rstrip(".")
    other = _NAME.match(text, at)
    known = told.stated.get(other["name"]) if other else None
    return known.value if known and known.value and re.fullmatch(NUMBER, known.value) else ""


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
        whole = wanted or SWITCH.match(lacked)
        text = f"Add {word}{'' if whole else ' with its value'}" + (f", which {cause} wants beside it" if cause else "")
        yield (
            added(container, told.engine, (word,), text)
            if container and whole
            else fixes.advice(text + (f", in {fixes.edited(container.pod)}" if container else ""))
        )
        if container is not None and whole and cause in told.stated:
            yield without(container, told.stated[cause], f"Remove {told.stated[cause].text} instead")


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
        return rewritten(container, changes, summary)
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
    words[place.index] = named_so(place, name)
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
