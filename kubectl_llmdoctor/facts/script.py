"""The start script that a container gives to a shell, and the same script with options that have other values."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from kubectl_llmdoctor import engines
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.snapshot import MASK

_SHELL = expression(r"(?:ba|da|a|k|z)?sh")

#: Options of a shell behind which a script stands; of another program they may be anything (llama.cpp's context).
_RUNS_SCRIPT = expression(r"-[abd-z]{0,8}c")

#: Words that a shell takes as they are; a script that is not too long to be sent in a command.
_PLAIN, _LONGEST = expression(r"[\w./:,+@%=-]{1,200}"), 6000

#: What may stand around an option with its value.
_BEFORE, _AFTER = r"(?<![^\s])", r"(?![^\s;])"

#: No word behind it that may be one more value, or what the server serves.
_NO_WORD = r"(?!(?:[ \t]|\\\n){1,40}(?!\d?>)[\w./])"

#: Nothing behind it that may be one more value, also where only the shell knows it.
_NO_VALUE = r"(?=(?:[ \t]|\\\n){0,40}(?:[-;&|\n>]|\d>|$))"


def is_script(container: Container) -> bool:
    """Whether the arguments are a script of a shell rather than a vector."""
    words = list(container.spec.argv)
    shells = [index for index, word in enumerate(words) if _SHELL.fullmatch(word.rpartition("/")[2])]
    return any(
        "\n" in word or (_RUNS_SCRIPT.fullmatch(word) and (" " in after or (bool(shells) and shells[0] < index)))
        for index, (word, after) in enumerate(zip(words, [*words, ""][1:], strict=True))
    )


def is_plain(text: str) -> bool:
    """Whether a shell takes a word as it is."""
    return _PLAIN.fullmatch(text) is not None


def is_plain_option(text: str) -> bool:
    """Whether it is an option, with or without a value that a shell takes as it is."""
    option, _, value = text.replace("=", " ", 1).partition(" ")
    return re.fullmatch(r"-{1,2}[a-zA-Z][\w-]{0,80}", option) is not None and (not value or is_plain(value))


def revised(container: Container, changes: Sequence[tuple[str, str]]) -> tuple[str, int, str] | None:
    """The script with each of these options written otherwise (or left out): in `args` or `command`, where in it, and its text.

    None where there is no such script, where an option is not to be found or stands there again, where a masked secret would be
    written over the real one, or where every engine that it starts would not get just that.
    """
    if not changes or container.told or not is_script(container):
        return None
    places = [
        (vector, index, str(word))
        for vector in ("args", "command")
        for index, word in enumerate(getattr(container.spec, vector))
        if " " in str(word)
    ]
    if len(places) != 1 or len(places[0][2]) > _LONGEST or MASK in places[0][2]:
        return None
    vector, index, script = places[0]
    for old, new in changes:
        behind = _AFTER + (_NO_VALUE if new.startswith(f"{old} ") else _NO_WORD)
        plain = is_plain_option(old) or is_plain(old.removeprefix("serve "))
        found = [*re.finditer(_BEFORE + re.escape(old) + behind, script)] if plain else []
        if len(found) != 1:
            return None
        script = script[: found[0].start()] + new + script[found[0].end() :]
    return (vector, index, script) if _arrives(container, vector, index, script, len(changes)) else None


def _arrives(container: Container, vector: str, index: int, script: str, count: int) -> bool:
    """Whether each engine gets other words by a script, and no more of its settings differ than were changed."""
    words = container.spec.words(vector)
    words[index] = script
    before, after = container.launch, msgspec.structs.replace(container.launch, **{vector: tuple(words)})
    old, new = engines.commands(before), engines.commands(after)
    if not old or len(old) != len(new) or any(ours == theirs for ours, theirs in zip(old, new, strict=True)):
        return False
    now, then = ({n: s.value for n, s in e.settings.items()} if (e := engines.read(x)) else {} for x in (before, after))
    return len([name for name in {*now, *then} if now.get(name) != then.get(name)]) <= count
