"""A YAML signature: lines that prove a cause, as data."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from kubectl_llmdoctor.advice.declared import FixText
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.starts import PHASES
from kubectl_llmdoctor.report.document import CONFIDENCES, Confidence, Severity


class Pattern(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One wording of the cause.

    `literal` is a piece of text that every matching line contains; `match` a regular expression searched in that line
    (its named groups fill `summary` and the fixes). `near` is a literal that must stand within `within` lines around
    it, in a line that `near_match` matches; that line is quoted too, and its named groups are taken as well. Instead,
    `raised_in` is a regular expression for the file whose code raised the exception that the line ends. A summary of which
    a name was not captured gives way to the signature's.
    """

    literal: str
    match: str = ""
    near: str = ""
    near_match: str = ""
    within: int = 40
    #: the innermost frame of the traceback is in a file that this matches, and its statement is a `raise` or `assert`: the
    #: code refuses something. What fails otherwise there may as well be a fault of the code.
    raised_in: str = ""
    #: only where the log keeps the last line of the traceback and none of its frames, and the engine is known: then nothing
    #: but its words says whose exception it is
    bare: bool = False
    #: it says only that the process is gone that the group `worker` names: not where that one's own exception stands above
    wordless: bool = False
    #: only among the last words of an instance that ended with an error: elsewhere a program may do without what it speaks of
    ends: bool = False
    #: only in these phases of a start (`starts.phase_at`); empty is before the first of them
    phases: tuple[str, ...] = ()
    #: what shows, when it is printed later, that it was overcome: texts, or the phase that the start then reached
    overcome: tuple[str, ...] | None = None
    #: overrides the signature's, for an id that has wordings of both kinds
    affects: Literal["server", "requests"] | None = None
    summary: str = ""
    confidence: Confidence | None = None
    explains: tuple[str, ...] | None = None
    #: the wording is a warning, and counts in full
    warned: bool = False
    engines: tuple[str, ...] = ()
    #: only where the node's driver is not known to have this CUDA (`13.0`), or the one that the image was built for (`image`)
    without_cuda: str = ""
    #: only in a container that asks for accelerators, and for none that CUDA runs on
    without_nvidia: bool = False
    #: not in a container that is made for no accelerator: what it says of having none is what was meant
    asks: bool = False
    #: only in a container that may lock as much memory as it likes (root with the capability for it), or in one of which that is
    #: not known
    locks: bool | None = None
    #: only where the arguments, variables or the image of the container, or its log, match this
    speaks_of: str = ""
    fixes: tuple[FixText, ...] = ()


class Signature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One cause that a printed line proves. Lines in `matches` must match, lines in `ignores` must not."""

    id: str
    since: str
    summary: str
    patterns: tuple[Pattern, ...]
    matches: tuple[str, ...]
    ignores: tuple[str, ...]
    #: the page; empty when a module of the same name beside it has it
    doc: str = ""
    severity: Severity = "critical"
    confidence: Confidence = "certain"
    #: where the line may stand; `probe`: what the command of a probe printed in the container, as an event says it
    sources: tuple[Literal["log", "event", "status", "probe"], ...] = ("log",)
    #: whether it ends the server, or only fails requests (then it is a cause in a pod that is ready, too)
    affects: Literal["server", "requests"] = "server"
    #: a request that fails so may be what some client got wrong: a note, where the server answers many more
    stray: bool = False
    #: where it is answered with 4xx: so many answers for each that a ready server refuses make it what some of its clients get wrong
    per_refusal: int = 0
    #: what it says is of the load of a model, which some servers do when somebody asks for one: of an engine that has its only
    #: model before it serves, it is of a request
    loads: bool = False
    #: a client that asks this server alone may quote it of an answer with an error, and counts where the server's log has no word
    quoted: bool = False
    explains: tuple[str, ...] = ()
    #: what it explains, too, where another than the server prints it: what should have brought the model failed of it
    explains_before: tuple[str, ...] = ()
    #: as the patterns', for those that have none of their own
    overcome: tuple[str, ...] = ()
    fixes: tuple[FixText, ...] = ()


#: A word in an expression.
_NAMED = expression(r"\(\?&(\w+)\)")


def parse(tree: Any, *, stem: str, words: Mapping[str, str] = MappingProxyType({})) -> Signature:
    """A decoded YAML file as a signature; `words` are the expressions that `(?&name)` in a pattern stands for.

    Raises msgspec.ValidationError, ValueError or re.error with what is wrong.
    """
    signature = msgspec.convert(tree, Signature)
    signature = msgspec.structs.replace(signature, patterns=tuple(_spelt(p, words) for p in signature.patterns))
    if stem != signature.id.replace("-", "_"):
        raise ValueError(f"id {signature.id} must stand in {signature.id.replace('-', '_')}.yaml")
    for pattern in signature.patterns:
        if unknown := set(pattern.phases) - {"", *PHASES}:
            raise ValueError(f"no such phase: {', '.join(sorted(unknown))}; known are {', '.join(PHASES)}")
        if pattern.bare and not pattern.engines:
            raise ValueError(f"{pattern.literal!r} is bare, and names no engines")
        if pattern.without_cuda and not re.fullmatch(r"image|\d{2}\.\d", pattern.without_cuda):
            raise ValueError(f"no such CUDA: {pattern.without_cuda!r}")
        re.compile(pattern.match)
        re.compile(pattern.near_match)
        re.compile(pattern.raised_in)
        re.compile(pattern.speaks_of)
    return msgspec.structs.replace(signature, patterns=_ordered(signature))


def _ordered(signature: Signature) -> tuple[Pattern, ...]:
    """The wordings as they are tried: of several the most certain one counts, then the first."""
    return tuple(sorted(signature.patterns, key=lambda p: CONFIDENCES.index(p.confidence or signature.confidence)))


def _spelt(pattern: Pattern, words: Mapping[str, str]) -> Pattern:
    """A pattern with the words that it names in their place."""

    parts = {key: getattr(pattern, key) for key in ("match", "near_match", "raised_in", "speaks_of")}
    return msgspec.structs.replace(pattern, **{key: _with_words(text, words) for key, text in parts.items()})


def _with_words(text: str, words: Mapping[str, str]) -> str:
    """An expression with the words in their place; a word may name those that stand above it."""
    for name, word in reversed([*words.items()]):
        text = text.replace(f"(?&{name})", word)
    if unknown := _NAMED.search(text):
        raise ValueError(f"no such word: {unknown[1]}; known are {', '.join(sorted(words))}")
    return text
