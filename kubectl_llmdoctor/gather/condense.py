"""A log too large to keep: read once, in pieces, and reduced to the lines that somebody may look at.

Kept are its head and tail, and around each line with one of the known literals some lines of context, everything masked;
of a literal that stands in very many lines the first and the last ones. Line numbers stay those of the whole log. Memory
is bounded by what is kept, time by one search for all literals together.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from kubectl_llmdoctor.gather.times import has_kubelet_times
from kubectl_llmdoctor.redact import TextMasker
from kubectl_llmdoctor.snapshot import LogText, Skip

if TYPE_CHECKING:
    from ahocorasick_rs import BytesAhoCorasick

#: Bytes of the head, which holds banners and configurations, and of the tail.
_ENDS = 400_000
#: Bytes that are searched at a time.
_BLOCK = 1 << 20
#: A line longer than this is kept only near its hits.
_LONG = 16_384
#: Lines kept before and after a hit, and after the start of a traceback.
_BEFORE, _AFTER, _TRACEBACK = 4, 4, 120
#: Hits kept of each literal: the first ones and the last ones; and bytes kept of them in all.
_FIRST, _LAST = 60, 20
#: A literal seen more often than this, as on the lines of an access log, is looked for by itself and from behind.
_OFTEN = 20_000
_MOST = 24 << 20
#: What an undetermined diagnosis quotes, whatever the engine.
_START = "Traceback (most recent call last)"
_TELLING = (
    *(_START, "Error: ", "Exception: ", "ERROR", "FATAL", "CRITICAL", "panic:", "error:", "fatal: ", "[error]"),
    *('"level":"error"', '"level":"fatal"', "level=error", "level=fatal", "\terror\t", "\tfatal\t"),
)
#: What opens a secret or a prompt that goes on in the next lines: nothing up to its end is kept.
_OPENERS = ("-----BEGIN ", ": Input: ", ": Output: ", " with format")


class _Span(NamedTuple):
    """Lines that are kept: the 1-based number of the first, and the bytes of all."""

    first: int
    data: bytes


def _made(literals: tuple[bytes, ...]) -> BytesAhoCorasick:
    """What finds all literals in one pass. It takes a fifth of a second to make."""
    from ahocorasick_rs import BytesAhoCorasick, Implementation

    # the one that is fastest, and small enough for some thousand literals
    return BytesAhoCorasick(literals, implementation=Implementation.DFA)


#: The same for the literals that every log of a run is searched for.
_kept = cache(_made)


class Condenser:
    """Takes the pieces of a log and keeps what may matter."""

    def __init__(self, literals: Iterable[str]) -> None:
        self._literals = tuple(text.encode() for text in dict.fromkeys((*literals, *_TELLING, *_OPENERS)) if text)
        self._search, self._searched = _kept(self._literals), list(range(len(self._literals)))
        self._often: list[int] = []  # the literals that the search leaves out by now
        self._traceback = self._literals.index(_START.encode())
        self._openers = {self._literals.index(text.encode()) for text in _OPENERS}
        self._seen = [0] * len(self._literals)
        self._early: list[_Span] = []
        self._late: list[deque[_Span]] = [deque(maxlen=_LAST) for _ in self._literals]
        self._size = 0
        self._size_read = 0
        self._head = bytearray()
        self._ends: deque[bytes] = deque()  # the last blocks, as many as the tail needs
        self._rest = b""
        self._line = 1  # the number of the first line of what comes next
        self._owed = 0  # lines after a hit that stand in the next block
        self._open: TextMasker | None = None  # a secret or a prompt that goes on in the next block
        self._masked: list[tuple[int, int, bytes]] = []  # parts of a block that are open, and their masks

    def feed(self, piece: bytes) -> None:
        """The next bytes of the log."""
        self._rest += piece
        while len(self._rest) >= _BLOCK:
            end = self._rest.rfind(b"\n", 0, _BLOCK) + 1 or _BLOCK
            block, self._rest = self._rest[:end], self._rest[end:]
            self._take(block)

    def result(self) -> LogText:
        """The log as far as it is kept, masked, with the numbers that its lines have in the whole."""
        if self._rest:
            self._take(self._rest)
            self._rest = b""
        tail, head = b"".join(self._ends), bytes(self._head)
        if self._size_read > len(head):  # there is more than the head
            tail = tail[-_ENDS:]
            tail, head = tail[tail.find(b"\n") + 1 :], head[: head.rfind(b"\n") + 1] or head
        first = self._line - tail.count(b"\n")
        spans = [_Span(1, head), *self._early, *(s for late in self._late for s in late), _Span(first, tail)]
        text, skips = _joined(spans)
        return LogText(text=text, timestamps=has_kubelet_times(text), skips=skips)

    def _take(self, block: bytes) -> None:
        """Searches one block, which ends with a line unless that is longer than a block."""
        counted = _Counter(block, self._line)
        self._size_read += len(block)
        self._masked = []
        begin = self._closed(block, 0) if self._open else 0
        if len(self._head) < _ENDS:
            self._head += block[: _ENDS - len(self._head)]
        if self._owed:
            last = self._after(block, begin, self._owed - 1)
            self._keep(counted, begin, last, None)
            self._owed = 0
        late: dict[int, deque[tuple[int, int]]] = {}
        for found, start, _ in self._search.find_matches_as_indexes(block, overlapping=True):
            index = self._searched[found]
            self._seen[index] += 1
            if start < begin:
                continue
            if index in self._openers and (closed := self._opened(block, counted, start)):
                begin = closed
            elif self._seen[index] <= _FIRST:
                self._hit(counted, index, start, begin, late=False)
            else:  # what every other line holds must cost little
                late.setdefault(index, deque(maxlen=_LAST)).append((start, begin))
        late |= {index: self._last(block, self._literals[index]) for index in self._often}
        for index, hits in late.items():
            for start, lowest in hits:
                self._hit(counted, index, start, lowest, late=True)
        self._leave_out()
        self._line += counted.total()
        for first, last, masked in reversed(self._masked):
            block = block[:first] + masked + block[last:]
        self._ends.append(block)
        while len(self._ends) > 1 and sum(map(len, self._ends)) - len(self._ends[0]) >= _ENDS:
            self._ends.popleft()

    def _last(self, block: bytes, literal: bytes) -> deque[tuple[int, int]]:
        """The last hits of a literal in a block, in order, each with where what may be kept before it begins."""
        hits: deque[tuple[int, int]] = deque()
        closed = [(first, last) for first, last, _ in self._masked]
        end = len(block)
        while len(hits) < _LAST and (at := block.rfind(literal, 0, end)) >= 0:
            while closed and closed[-1][0] > at:
                closed.pop()
            first, lowest = closed[-1] if closed else (0, 0)
            if at < lowest:
                end = first + len(literal) - 1
            else:
                hits.appendleft((at, lowest))
                end = at + len(literal) - 1
        return hits

    def _leave_out(self) -> None:
        """Makes the search anew without the literals that each hit of would cost too much by now."""
        often = [index for index in self._searched if self._seen[index] > _OFTEN and index not in self._openers]
        if not often:
            return
        self._often += often
        self._searched = [index for index in self._searched if index not in often]
        # two at once would be twice the memory, of which it is most: the next such log has the first one made again
        del self._search
        _kept.cache_clear()
        self._search = _made(tuple(self._literals[index] for index in self._searched))

    def _hit(self, counted: _Counter, index: int, start: int, lowest: int, *, late: bool) -> None:
        """Keeps the lines around a hit."""
        block = counted.block
        lines = _TRACEBACK if index == self._traceback else _AFTER
        first, last = max(lowest, self._before(block, start)), self._after(block, start, lines)
        self._keep(counted, first, last, index if late else None)
        if last == len(block):
            self._owed = max(self._owed, lines - block.count(b"\n", start, last) + 1)

    def _opened(self, block: bytes, counted: _Counter, at: int) -> int:
        """Keeps the line of an opener, and finds where what it opens ends; 0 when it opens nothing."""
        start = block.rfind(b"\n", 0, at) + 1
        end = block.find(b"\n", at) + 1 or len(block)
        masker = TextMasker()
        masked = masker.feed(block[start:end].decode("utf-8", "replace"))
        if not masker.open:
            return 0
        self._early.append(_Span(counted.number(start), masked.encode()))
        self._open = masker
        return self._closed(block, end)

    def _closed(self, block: bytes, start: int) -> int:
        """Where in a block what is open ends; its lines are masked for the tail."""
        at, masked = start, b""
        while self._open and at < len(block):
            end = block.find(b"\n", at) + 1 or len(block)
            line = self._open.feed(block[at:end].decode("utf-8", "replace")).encode()
            if not self._open.open:
                self._open = None  # this line is an ordinary one again
                break
            at, masked = end, masked + line
        self._masked.append((start, at, masked))
        return at

    def _keep(self, counted: _Counter, first: int, last: int, index: int | None) -> None:
        span = _Span(counted.number(first), counted.block[first:last])
        if index is not None:
            self._late[index].append(span)
        elif self._size < _MOST:
            self._size += len(span.data)
            self._early.append(span)

    @staticmethod
    def _before(block: bytes, at: int) -> int:
        """Where the lines before a place begin; of a very long line only the near part."""
        lowest = max(0, at - _LONG)
        start = block.rfind(b"\n", lowest, at) + 1 or lowest
        for _ in range(_BEFORE):
            start = block.rfind(b"\n", lowest, max(start - 1, lowest)) + 1 or start
        return start

    @staticmethod
    def _after(block: bytes, at: int, lines: int) -> int:
        """Where the lines after a place end."""
        for _ in range(lines + 1):
            end = block.find(b"\n", at, at + _LONG) + 1
            if not end:
                return min(len(block), at + _LONG)
            at = end
        return at


class _Counter:
    """The numbers of lines at places of one block, each counted from the nearest place before it."""

    def __init__(self, block: bytes, first: int) -> None:
        self.block = block
        self._places, self._numbers = [0], [first]

    def number(self, place: int) -> int:
        at = bisect.bisect_right(self._places, place) - 1
        number = self._numbers[at] + self.block.count(b"\n", self._places[at], place)
        self._places.insert(at + 1, place)
        self._numbers.insert(at + 1, number)
        return number

    def total(self) -> int:
        return self.number(len(self.block)) - self._numbers[0]


def _joined(spans: Sequence[_Span]) -> tuple[str, tuple[Skip, ...]]:
    """The kept lines one after the other, masked, and where lines are missing between them."""
    out: list[str] = []
    skips: list[Skip] = []
    masker, kept, following = TextMasker(), 0, 1
    for first, data in _merged(spans):
        if first != following:
            skips.append(Skip(after_line=kept, lines=first - following))
            masker = TextMasker()  # whatever was open there has ended before the next span
        text = masker.feed(data.decode("utf-8", "replace"))
        text += "" if text.endswith("\n") else "\n"
        out.append(text)
        kept += text.count("\n")
        following = first + text.count("\n")
    return "".join(out), tuple(skips)


def _merged(spans: Sequence[_Span]) -> Iterator[_Span]:
    """Spans in order without the lines that an earlier one has."""
    following = 1
    for span in sorted(spans, key=lambda span: (span.first, -len(span.data))):
        first, data = span
        if first < following:
            at = 0
            for _ in range(following - first):
                at = data.find(b"\n", at) + 1
                if not at:
                    break
            if not at or at >= len(data):
                continue
            first, data = following, data[at:]
        if data:
            yield _Span(first, data)
            following = first + data.count(b"\n") + (not data.endswith(b"\n"))


def condense(pieces: Iterable[bytes], literals: Iterable[str]) -> LogText:
    """The whole log of these pieces, reduced."""
    condenser = Condenser(literals)
    for piece in pieces:
        condenser.feed(piece)
    return condenser.result()
