"""Bytes of files and streams, within bounds, and the text they are."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from kubectl_llmdoctor.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

#: What is read from a folder.
SUFFIXES = (".yaml", ".yml", ".json", ".yaml.gz", ".yml.gz", ".json.gz")
#: The largest file read from a folder, and the largest that is named itself, both unpacked.
MAX_FILE = 256 << 20
MAX_NAMED = 1 << 30
#: A log beyond this loses its middle.
MAX_LOG = 512 << 20

_GZIP = b"\x1f\x8b"
_PIECE = 1 << 20
_FIRST = 1 << 16
_T = TypeVar("_T")


class UnreadableError(Exception):
    """Something that says nothing, and why."""


def shown(path: str) -> str:
    """A path as reports name it: relative where the user's was, always UTF-8."""
    from pathlib import Path

    return "stdin" if path == "-" else os.fsencode(Path(path).as_posix()).decode("utf-8", "replace")


def named_in_folder(path: str) -> str:
    """The same of a path below a folder, which is in its plain form already."""
    return os.fsencode(path if os.sep == "/" else path.replace(os.sep, "/")).decode("utf-8", "replace")


def os_reason(error: Exception) -> str:
    """What went wrong, without the path."""
    return getattr(error, "strerror", None) or str(error)


def named(path: str, stdin: BinaryIO | None, read: Callable[[BinaryIO], _T]) -> _T:
    """`read(stream)` of a file that the user named, or of stdin for `-`; it must be there."""
    from pathlib import Path

    if not path:  # which Path would take for the working folder
        raise UsageError("the name of a file is empty")
    try:
        if path == "-":
            return read(_standard_input(stdin))
        if Path(path).is_dir():
            raise UsageError(f"{shown(path)}: a folder, not a file")
        with open(path, "rb") as file:  # noqa: PTH123
            return read(file)
    except (OSError, ValueError) as e:
        raise UsageError(f"{shown(path)}: {os_reason(e)}") from None
    except UnreadableError as e:
        raise UsageError(f"{shown(path)}: {e}") from None


def _standard_input(stdin: BinaryIO | None) -> BinaryIO:
    if stdin is not None:
        return stdin
    import sys

    if sys.stdin is None:
        raise UnreadableError("closed")
    return sys.stdin.buffer


def listed(file: str | Path) -> bytes:
    """A file found in a folder; a pipe there would wait forever."""
    try:
        info = os.stat(file)  # noqa: PTH116 # as text, as `os.scandir` found it: a folder has thousands
        if not stat.S_ISREG(info.st_mode):
            raise UnreadableError("not a regular file")
        if info.st_size > MAX_FILE:
            raise UnreadableError(f"larger than {MAX_FILE >> 20} MiB")
        with open(file, "rb") as stream:  # noqa: PTH123
            return whole(stream, MAX_FILE)
    except OSError as e:
        raise UnreadableError(os_reason(e)) from None


def whole(stream: BinaryIO, limit: int) -> bytes:
    """All bytes, unpacked."""
    data = _up_to(stream, limit + 1)
    if data[:2] == _GZIP:
        import gzip
        import io
        import zlib

        try:
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
                data = packed.read(limit + 1)
        except (OSError, EOFError, zlib.error):
            raise UnreadableError("damaged gzip file") from None
    if len(data) > limit:
        raise UnreadableError(f"larger than {limit >> 20} MiB")
    return data


def _up_to(stream: BinaryIO, limit: int) -> bytes:
    """At most so many bytes, asked for bit by bit: room for the limit itself costs more than to read a manifest."""
    data = stream.read(min(_FIRST, limit))
    if len(data) < _FIRST:
        return data
    found, ask = [data], _FIRST
    while data and (limit := limit - len(data)):
        ask = min(2 * ask, limit)
        data = stream.read(ask)
        found.append(data)
    return b"".join(found)


def ends(stream: BinaryIO) -> tuple[bytes, bytes, int]:
    """A log's head and tail in whole lines, and the bytes left out between; where none are, the head is all."""
    half = MAX_LOG // 2
    head, tail = bytearray(), deque[bytes]()
    kept = dropped = 0
    incoming = pieces(stream)
    for piece in incoming:
        head += piece
        if len(head) >= half:
            break
    for piece in incoming:
        tail.append(piece)
        kept += len(piece)
        while kept - len(tail[0]) > half:
            kept -= len(tail[0])
            dropped += len(tail.popleft())
    if not dropped:
        return bytes(head) + b"".join(tail), b"", 0
    end = b"".join(tail)
    head_size, skipped = head.rfind(b"\n") + 1 or len(head), end.find(b"\n") + 1
    return bytes(head[:head_size]), end[skipped:], dropped + len(head) - head_size + skipped


def pieces(stream: BinaryIO) -> Iterator[bytes]:
    """A stream in bounded pieces, unpacked."""
    piece = stream.read(_PIECE)
    if piece[:2] == _GZIP:
        import zlib

        try:
            yield from _unpacked(stream, piece)
        except zlib.error:
            raise UnreadableError("damaged gzip file") from None
        return
    while piece:
        yield piece
        piece = stream.read(_PIECE)


def _unpacked(stream: BinaryIO, piece: bytes) -> Iterator[bytes]:
    """The unpacked stream in bounded pieces; of a gzip file that breaks off, what is there."""
    import zlib

    unpack = zlib.decompressobj(wbits=31)
    while piece:
        while piece:
            if unpack.eof:  # gzip files may be concatenated, and padded with zeros
                piece = piece.lstrip(b"\0")
                unpack = zlib.decompressobj(wbits=31)
            yield unpack.decompress(piece, _PIECE)
            piece = unpack.unconsumed_tail or unpack.unused_data
        piece = stream.read(_PIECE)
    yield unpack.flush()


def decode(data: bytes) -> str:
    """Text whatever the bytes: PowerShell's `>` writes UTF-16, editors write byte order marks."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace").replace("\r\n", "\n")
    return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
