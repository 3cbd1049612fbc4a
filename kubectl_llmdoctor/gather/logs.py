"""A container's log as it streams in: decoded, masked, and kept whole up to a cap; beyond it, its head and its tail."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterable

import msgspec

from kubectl_llmdoctor.gather.failure import RequestError
from kubectl_llmdoctor.snapshot import Cut

#: Text is masked in blocks of about this many characters.
_BLOCK = 2**18

#: A line longer than this is masked in pieces: progress bars and binary output know no line ends.
_LONGEST_LINE = 2**20


class LogRead(msgspec.Struct, frozen=True, kw_only=True):
    """What came of reading one log; `trouble` says why it ended early."""

    text: str
    cut: Cut | None = None
    trouble: RequestError | None = None


def read(pieces: Iterable[bytes], cap_bytes: int) -> LogRead:
    """Reads a log to its end. An error before the first byte is raised, a later one keeps what has come."""
    from kubectl_llmdoctor.redact import TextMasker

    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    masker = TextMasker()
    kept = _Ends(cap_bytes)
    waiting: list[str] = []
    size = 0
    trouble = None
    try:
        for piece in pieces:
            text = decoder.decode(piece)
            waiting.append(text)
            size += len(text)
            if size >= min(_BLOCK, max(cap_bytes // 8, 1)):
                whole, rest = _whole_lines("".join(waiting))
                if whole:
                    kept.add(masker.feed(whole))
                waiting, size = [rest], len(rest)
    except RequestError as error:
        if not (size or kept.total):
            raise
        trouble = error
    kept.add(masker.feed("".join(waiting) + decoder.decode(b"", final=True)))
    text, cut = kept.result()
    return LogRead(text=text, cut=cut, trouble=trouble)


def _whole_lines(text: str) -> tuple[str, str]:
    end = text.rfind("\n") + 1
    if not end and len(text) > _LONGEST_LINE:
        end = len(text)
    return text[:end], text[end:]


class _Ends:
    """The head and the tail of a text that comes in blocks, each at most half of `cap` bytes, cut between lines."""

    def __init__(self, cap: int) -> None:
        self._half = max(cap // 2, 1)
        self._head: list[bytes] = []
        self._tail: deque[bytes] = deque()
        self._head_bytes = 0
        self._tail_bytes = 0
        self.total = 0

    def add(self, text: str) -> None:
        """Appends a block."""
        block = text.encode("utf-8", "surrogatepass")
        self.total += len(block)
        room = self._half - self._head_bytes
        if room:
            self._head.append(block[:room])
            self._head_bytes += len(self._head[-1])
            block = block[room:]
        if block:
            self._tail.append(block)
            self._tail_bytes += len(block)
        while self._tail and self._tail_bytes - len(self._tail[0]) >= self._half:
            self._tail_bytes -= len(self._tail.popleft())

    def result(self) -> tuple[str, Cut | None]:
        """The text that is kept, and what is missing from its middle."""
        head, tail = b"".join(self._head), b"".join(self._tail)
        if self.total <= 2 * self._half:
            return _text(head + tail), None
        # A line that is longer than the head or the tail may be is cut itself.
        head = head[: head.rfind(b"\n") + 1] or head
        start = len(tail) - self._half
        at = tail.find(b"\n", max(start - 1, 0), len(tail) - 1)
        tail = tail[at + 1 if at >= 0 else start :]
        dropped = self.total - len(head) - len(tail)
        text = _text(head)
        text += "" if text.endswith("\n") else "\n"
        return text + _text(tail), Cut(after_line=text.count("\n"), bytes=dropped)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "ignore")
