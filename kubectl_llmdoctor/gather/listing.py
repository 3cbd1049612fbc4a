"""The objects of a long list, one by one while the answer comes in, so that the whole of it is never in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import msgspec

from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.gather.failure import API_SERVER, RequestError, Why, web_page

T = TypeVar("T")

#: Where the API server's encoder begins the list, and where it goes from one built-in object to the next.
_BEGIN = expression(rb'"items":\s*\[')
_BETWEEN = b'},{"metadata":'

#: A list that goes on elsewhere, in the metadata before or behind its items.
_MORE = expression(rb'"continue":\s*"[^"]')

#: What precedes the items is a few hundred bytes.
_HEAD_BYTES = 2**16

_whole = msgspec.json.Decoder(msgspec.Raw).decode
_rows = msgspec.json.Decoder(list[msgspec.Raw]).decode


def items(pieces: Iterable[bytes], decode: Callable[[bytes], T]) -> Iterator[tuple[bytes, T | None]]:
    """Each object of a list: its JSON, and decoded; None in its place where it has another shape.

    Where one object ends is guessed from the bytes between two of them and proved by decoding: a piece that is no whole
    JSON value goes on to the next such place. Raises RequestError where the list is not whole, and what `pieces` raises.
    """
    rest, head, begun = b"", b"", False
    for piece in pieces:
        rest += piece
        if not begun:
            begin = _BEGIN.search(rest)
            if begin is None:
                if len(rest) > _HEAD_BYTES:
                    break
                continue
            head, rest, begun = rest[: begin.start()], rest[begin.end() :], True
        *parts, last = rest.split(_BETWEEN)
        rest = b""
        for part in parts:
            rest += part + b"}"
            found = _decoded(rest, decode)
            if found is None:
                rest += _BETWEEN[1:]
            else:
                yield rest, found[0]
                rest = _BETWEEN[2:]
        rest += last
    if not begun:
        if _is_empty(rest):
            return
        if rest.lstrip()[:1] == b"<":
            raise RequestError(Why.OTHER, web_page(API_SERVER))
        raise RequestError(Why.BROKEN, "the answer is no list")
    end = rest.rfind(b"]")
    try:
        rows = _rows(b"[" + rest[: end + 1]) if end >= 0 else None
    except msgspec.DecodeError:
        rows = None
    if rows is not None and _MORE.search(head + rest[end:]):
        raise RequestError(Why.OTHER, "only a part of the list came")
    if rows is None:
        raise RequestError(Why.BROKEN, "the answer is not whole")
    for row in rows:
        text = bytes(row)
        found = _decoded(text, decode)
        yield text, found[0] if found else None


def _decoded(text: bytes, decode: Callable[[bytes], T]) -> tuple[T | None] | None:
    """The object, or that it has another shape; None where the text is no whole JSON value."""
    try:
        return (decode(text),)
    except (msgspec.DecodeError, RecursionError):
        try:
            _whole(text)
        except (msgspec.DecodeError, RecursionError):
            return None
        return (None,)


def _is_empty(text: bytes) -> bool:
    """Whether it is a list without items, which some servers write as null."""
    try:
        tree = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return isinstance(tree, dict) and str(tree.get("kind", "")).endswith("List") and not tree.get("items")
