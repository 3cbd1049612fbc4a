"""Logs of containers: whole texts, searched for literals; a line is quoted with its 1-based number."""

from __future__ import annotations

import bisect
import heapq
import itertools
import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import cache, cached_property
from typing import Any, TypeVar

import msgspec

from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.units import parse_time
from kubectl_llmdoctor.snapshot import LogText

#: What a view of a log works out of it.
M = TypeVar("M")

#: Colours, which some engines print into pipes too.
COLOUR = expression(r"\x1b\[[0-9;]*m")

#: The lower edge of a frame that Rich draws around a traceback (TGI); the message below it is wrapped to the same width.
_FRAME_END = expression(r"╰─+╯ *")
#: What begins a record of its own, and is no rest of a message.
_RECORD = expression(r"\d{4}-\d\d-\d\d[T ]|[{╭│]|\[?(?:INFO|WARN|ERROR)|Error: ")
#: Lines of one message at most.
_MOST_WRAPPED = 60
#: Triton's table of the models (common/table_printer.cc) breaks a message where its last column ends, also within a word.
_FAILED, _TABLE_FAILED = "| UNAVAILABLE: ", expression(r"\|[^|]{1,300}\|[^|]{1,40}\| UNAVAILABLE: ")
_TABLE_MORE = expression(r"\| {3,}\| {3,}\| ")
#: What begins a block of code in Markdown, and what ends one.
_FENCE, _BARE = expression(r"^\s{0,99}```[\w+.#-]{0,20}\s*$"), expression(r"^\s{0,99}```\s*$")
#: So many lines such a block has at most, and so many lines of these are looked at.
_MOST_FENCED, _MOST_FENCES = 200, 5000
#: How a program's records begin; so many lines around a block show how its own do, by so many characters.
_LOGS, _AROUND, _ALIKE = expression(r"\d{4}-\d\d-\d\d[T ]|\[?(?:INFO|WARN|ERROR)\b"), 20, 10


class Line(msgspec.Struct, frozen=True):
    """One line of a log; `text` without the kubelet's time, colours, what a carriage return overwrote, and the middle of a
    line so long that searching it would take long.
    """

    log: Log
    number: int
    text: str

    @property
    def time(self) -> datetime | None:
        """When it was written, when the log carries times."""
        return self.log.time_of(self.number)

    @property
    def order(self) -> float:
        """Its place among the lines of all logs of a pod: its time in seconds where the log carries times, else its number."""
        time = self.time
        return time.timestamp() if time else float(self.number)

    def above(self, count: int) -> list[Line]:
        """So many lines before it, the nearest last."""
        return list(self.log.lines(max(self.number - count, 1), self.number - 1)) if self.number > 1 else []


#: Characters of a line that are looked at, at its beginning and as many at its end.
_MOST_CHARS = 8192
#: `RuntimeError: [address=0.0.0.0:55022, pid=28175] …`, as Xinference's actors mark what they raise.
_ACTOR = expression(r"\[address=[\w.:\[\]-]{1,60}, pid=\d+\] ")
_ACTOR_BEGINS = "[address="
#: How far into a line the mark stands, and how many lines with one are read without it.
_MARKED_CHARS, _MOST_MARKED = 200, 2_000


def unmarked(text: str) -> str:
    """What an actor of Xinference raised, without the mark that it puts between the kind of error and its message."""
    return _ACTOR.sub("", text, count=1) if text.find(_ACTOR_BEGINS, 0, _MARKED_CHARS) >= 0 else text


#: From this size on all literals that are known beforehand are searched in one pass; below, one by one is faster.
_LARGE_CHARS = 200_000
_PIECE_LINES = 20_000
#: Lines that are remembered of one literal.
_MOST_MARKS = 10_000


@cache
def _automaton(literals: tuple[str, ...]) -> Any:
    import ahocorasick_rs

    return ahocorasick_rs.AhoCorasick(literals, matchkind=ahocorasick_rs.MatchKind.Standard)


#: So many lines at most does a report quote of a log that has more.
_QUOTED = 12


class Log:
    """One container instance's log. `literals` are those that will be searched for, as far as they are known.

    Where the log holds several starts of a server, `first` is the line from which it is looked at; numbers stay those of
    the whole log.
    """

    def __init__(
        self, source: LogText, literals: tuple[str, ...] = (), first: int = 1, *, plain: str | None = None
    ) -> None:
        self.source = source
        self.first = first
        self._literals = literals
        text = source.text if plain is None else plain  # a text that is searched for may have a colour within
        text = COLOUR.sub("", text) if plain is None and "\x1b[" in text else text
        text = _unwrapped(text, timestamps=source.timestamps) if plain is None and "─╯" in text else text
        self.text = _untabled(text, timestamps=source.timestamps) if plain is None and _FAILED in text else text
        self.pod = source.pod
        self.container = source.container
        self.previous = source.previous
        self._marks: dict[str, list[Line]] = {}
        self._made: dict[str, Any] = {}

    @property
    def whose(self) -> tuple[str, str, str]:
        """Namespace, pod and container that wrote it."""
        return self.source.namespace, self.pod, self.container

    def once(self, key: str, make: Callable[[], M]) -> M:
        """What a view of the log has worked out, and asks for again."""
        if key not in self._made:
            self._made[key] = make()
        found: M = self._made[key]
        return found

    @property
    def quoted(self) -> bool:
        """Whether it is as short as what a report quotes of a log, and came from no kubelet."""
        return not self.source.timestamps and len(self) <= _QUOTED

    @cached_property
    def _starts(self) -> array[int]:
        """Offsets of line starts."""
        return array("q", itertools.chain([0], (m.end() for m in re.finditer("\n", self.text))))

    @cached_property
    def _skips(self) -> tuple[list[int], list[int]]:
        """Where lines are missing: the kept lines before each gap, and how many are missing up to and with it."""
        after = [skip.after_line for skip in self.source.skips]
        return after, list(itertools.accumulate(skip.lines for skip in self.source.skips))

    def _number(self, kept: int) -> int:
        """The number in the whole log of a line by its place among those that are kept."""
        after, missing = self._skips
        gaps = bisect.bisect_left(after, kept)
        return kept + (missing[gaps - 1] if gaps else 0)

    def _place(self, number: int) -> int:
        """The place among the kept lines of a line of the whole log, or of the first kept one after it."""
        after, missing = self._skips
        gaps = bisect.bisect_left([kept + lost for kept, lost in zip(after, [0, *missing], strict=False)], number)
        return max(number - (missing[gaps - 1] if gaps else 0), after[gaps - 1] + 1) if gaps else number

    def __len__(self) -> int:
        """The number of lines, those that were not kept included."""
        kept = len(self._starts) - (self.text.endswith("\n") or not self.text)
        return kept + (self._skips[1][-1] if self.source.skips else 0)

    @cached_property
    def _begin(self) -> int:
        """The offset of the first line that is looked at."""
        return self._starts[self._place(self.first) - 1] if self.first > 1 else 0

    def since(self, first: int) -> Log:
        """The same log, looked at from a line on."""
        return Log(self.source, self._literals, first, plain=self.text)

    def _raw(self, number: int) -> str:
        """A line with its time stamp and control characters but colours, as it was given."""
        start = self._starts[self._place(number) - 1]
        end = self.text.find("\n", start)
        return self.text[start : end if end >= 0 else len(self.text)]

    def line(self, number: int) -> Line:
        """A line by its 1-based number."""
        text = self._raw(number).rstrip("\r")
        if self.source.timestamps:
            text = text.partition(" ")[2]
        text = text.rpartition("\r")[2] if "\r" in text else text
        text = COLOUR.sub("", text) if "\x1b" in text else text
        if len(text) > 2 * _MOST_CHARS:
            text = f"{text[:_MOST_CHARS]} … {text[-_MOST_CHARS:]}"
        return Line(self, number, text)

    def lines(self, first: int = 1, last: int | None = None) -> Iterator[Line]:
        """Lines `first` to `last`, both included."""
        last = min(last or len(self), len(self))
        for kept in range(self._place(max(first, self.first)), len(self._starts) + 1):
            number = self._number(kept)
            if number > last:
                return
            yield self.line(number)

    def tail(self, count: int) -> list[Line]:
        """Its last line, and so many before it."""
        return list(self.lines(max(len(self) - count, 1)))

    @cached_property
    def _offsets(self) -> dict[str, array[int]]:
        """Where each of the known literals stands, found in one pass; by pieces, for a hit is first a tuple."""
        found = {literal: array("q") for literal in self._literals}
        for first in range(0, len(self._starts), _PIECE_LINES):
            begin = self._starts[first]
            end = (*self._starts[first + _PIECE_LINES : first + _PIECE_LINES + 1], len(self.text))[0]
            hits = _automaton(self._literals).find_matches_as_indexes(self.text[begin:end], overlapping=True)
            for index, start, _ in hits:
                found[self._literals[index]].append(begin + start)
        return found

    def holds(self, literal: str) -> bool:
        """Whether a line contains a literal, be it without the mark of an actor."""
        if len(self.text) >= _LARGE_CHARS or self._joints:
            return next(self.find(literal), None) is not None
        return self.text.find(literal, self._begin) >= 0

    def find(self, *literals: str) -> Iterator[Line]:
        """Every line that contains a literal, be it without the mark of an actor: those of the first literal, of the second, ..."""
        for literal in literals:
            found = self._find(literal, self._begin, len(self.text))
            torn = []
            if self._joints and any(joint in literal for joint in self._joints):
                torn = [line for line, text in self._unmarked if literal in text and literal not in line.text]
            yield from heapq.merge(found, torn, key=lambda line: line.number) if torn else found

    @cached_property
    def _unmarked(self) -> list[tuple[Line, str]]:
        """The lines that an actor marked, and what they are without it."""
        begun = itertools.islice(self._find(_ACTOR_BEGINS, self._begin, len(self.text)), _MOST_MARKED)
        return [(line, text) for line in begun if (text := unmarked(line.text)) != line.text]

    @cached_property
    def _joints(self) -> set[str]:
        """The two characters between which the marks stood: a literal that one tore apart has them."""
        places = ((line.text.find(_ACTOR_BEGINS), text) for line, text in self._unmarked)
        return {text[at - 1 : at + 1] for at, text in places if at > 0}

    def matching(
        self, pattern: str | re.Pattern[str], *literals: str, most: int | None = None
    ) -> Iterator[tuple[Line, re.Match[str]]]:
        """Every line that contains a literal and has what matches in its first characters, `most` or all, with the match."""
        sought = expression(pattern) if isinstance(pattern, str) else pattern  # most logs have no such line
        return ((line, said) for line in self.find(*literals) if (said := sought.search(line.text[:most])) is not None)

    def last(self, *literals: str) -> Line | None:
        """The last line that contains one of the literals."""
        return max(self.find(*literals), key=lambda line: line.number, default=None)

    def between(self, literal: str, first: Line, last: Line | None) -> Iterator[Line]:
        """Every line after one and before another, or up to the end, that contains the literal."""
        begin = self._starts[min(self._place(first.number), len(self._starts) - 1)]
        yield from self._find(literal, begin, self._starts[self._place(last.number) - 1] if last else len(self.text))

    @cached_property
    def _fenced(self) -> list[tuple[int, int]]:
        """The blocks of code, from line to line, in texts in Markdown: what a model writes, or who asks it, and no program of itself.

        Not those of a log that came alone and has no record of a program outside: who sent it has put it in fences.
        """
        found, opened, at = [], 0, self.text.find("```")
        for _ in range(_MOST_FENCES):
            if at < 0:
                break
            place = bisect.bisect_right(self._starts, at)
            text = self.line(self._number(place)).text
            if opened and place - opened <= _MOST_FENCED and _BARE.match(text) and not self._own(opened, place):
                found.append((opened, place))
                opened = 0
            elif _FENCE.match(text):
                opened = place
            at = self.text.find("```", self._starts[place]) if place < len(self._starts) else -1
        return found if self.container or self._recorded(found) else []

    def _kept(self, first: int, last: int) -> Iterator[str]:
        """The texts of kept lines, from the first to before the last, that begin as a program's records do."""
        places = range(max(first, 1), min(last, len(self._starts) + 1))
        return (text for place in places if _LOGS.match(text := self.line(self._number(place)).text))

    def _own(self, opened: int, place: int) -> bool:
        """Whether a program logs between two fences as it does around them: a log that begins within a block shows its end first."""
        if not _BARE.match(self.line(self._number(opened)).text):
            return False
        around = itertools.chain(self._kept(opened - _AROUND, opened), self._kept(place + 1, place + 1 + _AROUND))
        begins = {text[:_ALIKE] for text in around}
        return any(text[:_ALIKE] in begins for text in self._kept(opened + 1, place))

    def _recorded(self, blocks: list[tuple[int, int]]) -> bool:
        """Whether a program logs outside of the blocks."""
        outside = itertools.pairwise([0, *itertools.chain(*blocks), len(self._starts) + 1])
        return any(any(self._kept(last + 1, first)) for last, first in itertools.islice(outside, 0, None, 2))

    def _quoted(self, place: int) -> bool:
        at = bisect.bisect_right(self._fenced, (place, 0))
        return at > 0 and self._fenced[at - 1][1] > place

    def _find(self, literal: str, begin: int, end: int) -> Iterator[Line]:
        places = itertools.filterfalse(self._quoted, self._places_of(literal, begin, end))
        yield from (self.line(self._number(place)) for place in places)

    def _places_of(self, literal: str, begin: int, end: int) -> Iterator[int]:
        """The places among the kept lines of those that contain a literal."""
        if len(self.text) >= _LARGE_CHARS and self._literals and literal in self._offsets:
            places = (bisect.bisect_right(self._starts, at) for at in self._offsets[literal] if begin <= at < end)
            yield from (place for place, _ in itertools.groupby(places))
            return
        at = self.text.find(literal, begin, end)
        while at >= 0:
            place = bisect.bisect_right(self._starts, at)
            yield place
            if place >= len(self._starts):
                return
            at = self.text.find(literal, self._starts[place], end)

    def time_of(self, number: int) -> datetime | None:
        """When a line was written, when the log carries times."""
        return parse_time(self._raw(number).partition(" ")[0]) if self.source.timestamps else None

    def marks(self, literal: str) -> list[Line]:
        """Every line that contains a literal which is asked for again and again."""
        if literal not in self._marks:
            self._marks[literal] = list(itertools.islice(self.find(literal), _MOST_MARKS))
        return self._marks[literal]

    def torn(self, first: int, last: int) -> bool:
        """Whether something was left out between two lines, so that neither says anything of the other."""
        cut = self.source.cut
        return cut is not None and min(first, last) <= cut.after_line < max(first, last)

    @property
    def place(self) -> str:
        """`vllm`, `vllm (previous)`; for a log that came alone: `log`."""
        return (self.container or "log") + (" (previous)" if self.previous else "")


def _unwrapped(text: str, *, timestamps: bool) -> str:
    """A log with the messages below Rich's frames in one line each; what they were continued in is left empty.

    Rich breaks between words as late as it can, so a line goes on where the next one's first word had no room.
    """
    lines = text.split("\n")

    def said(number: int) -> str:
        return lines[number].partition(" ")[2] if timestamps else lines[number]

    for end in [n for n, line in enumerate(lines) if "─╯" in line and _FRAME_END.fullmatch(said(n).rstrip("\r"))]:
        width, first = len(said(end).rstrip()), end + 1
        tail = said(first) if first < len(lines) else ""
        for number in range(first + 1, min(first + _MOST_WRAPPED, len(lines))):
            more = said(number)
            if not more.strip() or _RECORD.match(more):
                break
            if len(tail.rstrip()) <= width < len(tail.rstrip()) + 1 + len(more.partition(" ")[0]):
                folded = len(tail) == width and " " not in tail  # a word that is longer than a line
                lines[first] += more if tail.endswith(" ") or folded else f" {more}"
                lines[number] = lines[number].partition(" ")[0] + " " if timestamps else ""
            else:
                first = number
            tail = more
    return "\n".join(lines)


def _untabled(text: str, *, timestamps: bool) -> str:
    """A log with what a table says of a model that failed in one line; the rows in which it was continued are left empty."""
    lines = text.split("\n")
    row, width, rows = None, 0, 0
    for number, line in enumerate(lines):
        time, said = line.partition(" ")[::2] if timestamps else ("", line)
        if _TABLE_FAILED.match(said):
            row, width, rows = number, len(said.rstrip()), 0
            lines[row] = line.rstrip().removesuffix(" |")
        elif (
            row is None or rows == _MOST_WRAPPED or len(said.rstrip()) != width or not (more := _TABLE_MORE.match(said))
        ):
            row = None
        else:
            rows += 1
            lines[row] += said.rstrip().removesuffix(" |")[more.end() :]
            lines[number] = f"{time} " if timestamps else ""
    return "\n".join(lines)


def in_order(lines: Iterable[Line]) -> list[Line]:
    """Lines of one log, each once, as they stand in it."""
    return [line for _, line in sorted({line.number: line for line in lines}.items())]


class Logs:
    """The logs of one pod."""

    def __init__(self, logs: list[Log]) -> None:
        self.all = logs

    def __iter__(self) -> Iterator[Log]:
        return iter(self.all)

    def __bool__(self) -> bool:
        return bool(self.all)

    def of(self, container: str, *, previous: bool | None = None) -> list[Log]:
        """The logs of a container, the previous instance first."""
        found = [log for log in self.all if log.container == container and previous in (None, log.previous)]
        return sorted(found, key=lambda log: not log.previous)

    def current(self, container: str) -> Log | None:
        """The log of the container's latest instance; None where only one before it was read."""
        return next(iter(self.of(container, previous=False)), None)

    def find(self, *literals: str) -> Iterator[Line]:
        """Every line of every log that contains a literal: those of the first literal, of the second, ..."""
        for literal in literals:
            for log in self.all:
                yield from log.find(literal)
