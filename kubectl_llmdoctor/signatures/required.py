"""Texts of which every match of an expression has one: a line without any needs no expression, and none is compiled for it.

They are found when the index of a pack is built, by the parser of `re`; a start would lose more by it than it saves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

from kubectl_llmdoctor.signatures.declared import Pattern

#: So many texts are looked for in less time than the expression takes; shorter ones are in every line.
_MOST, _SHORTEST = 48, 4


def required_of(pattern: Pattern) -> dict[str, tuple[str, ...]]:
    """What is known of the expressions of a pattern, and is not in the lines anyway in which they are searched."""
    found = {}
    for text, there in ((pattern.match, pattern.literal), (pattern.near_match, pattern.near), (pattern.raised_in, "")):
        known = required_by(text)
        if known and not any(one in there for one in known):
            found[text] = known
    return found


def required_by(expression: str) -> tuple[str, ...]:
    """Texts of which one is in whatever the expression matches: the longest that are known, or none."""
    tree = _parser.parse(expression)
    if tree.state.flags & re.IGNORECASE:
        return ()
    found = [texts for texts in _runs(tree) if min(map(len, texts)) >= _SHORTEST]
    return max(found, key=lambda texts: (min(map(len, texts)), -len(texts), texts), default=())


def _runs(items: Any) -> Iterator[tuple[str, ...]]:
    """How each stretch of a sequence that must be there may begin."""
    for at, (kind, argument) in enumerate(items):
        within = at and kind is op.LITERAL and items[at - 1][0] is op.LITERAL  # what begins there is longer
        texts = {""} if within else {text for text, _ in _beginnings(items[at:])}
        if "" not in texts:
            yield tuple(sorted(text for text in texts if not any(other != text and other in text for other in texts)))
        if kind is op.SUBPATTERN and not argument[1] & re.IGNORECASE:
            yield from _runs(argument[3])
        elif kind in (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT) and argument[0]:
            yield from _runs(argument[2])


def _beginnings(items: Any) -> set[tuple[str, bool]]:
    """Texts, with one of which every match of a sequence begins, and whether that is all of the match."""
    found = {("", True)}
    for kind, argument in items:
        if kind in (op.AT, op.ASSERT, op.ASSERT_NOT):
            continue  # of no width
        if kind is op.LITERAL:
            following = {(chr(argument), True)}
        elif kind is op.SUBPATTERN and not argument[1] & re.IGNORECASE:
            following = _beginnings(argument[3])
        elif kind is op.BRANCH:
            following = set[tuple[str, bool]]().union(*map(_beginnings, argument[1]))
        else:
            following = {("", False)}
        longer = {(text + more, all_of) for text, whole in found if whole for more, all_of in following}
        longer |= {(text, whole) for text, whole in found if not whole}
        if len(longer) > _MOST:
            return {(text, False) for text, _ in found}
        found = longer
        if not any(whole for _, whole in found):
            break
    return found
