"""Files instead of a cluster -> Snapshot: saved snapshots, manifests, folders, dumps, support bundles, logs.

What cannot be read becomes an entry in `missing` and the rest goes on; only when nothing at all could be read it is a
`UsageError`. Everything returned is masked.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO

from kubectl_llmdoctor import forked
from kubectl_llmdoctor.errors import UsageError
from kubectl_llmdoctor.gather.offline import reading, saved
from kubectl_llmdoctor.gather.offline.documents import documents
from kubectl_llmdoctor.gather.offline.found import Found
from kubectl_llmdoctor.gather.offline.reading import UnreadableError, shown
from kubectl_llmdoctor.gather.times import has_kubelet_times
from kubectl_llmdoctor.snapshot import Cut, LogText, Snapshot

if TYPE_CHECKING:
    from pathlib import Path

#: Manifest files that a process of their own is worth.
_LEAST = 100
#: All that is read from one folder.
MAX_FOLDER = 1 << 30

_DESCRIBE = r"\s*Name:[ \t]+\S[^\n]*\n(?:[^\n]*\n){0,3}(?:Namespace|Labels|Annotations|Roles|Priority):"
_TABLE = r"\s*(?:NAMESPACE +)?NAME +(?:READY|STATUS|TYPE|DATA|DESIRED|AGE|COMPLETIONS|CLASS|[A-Z-]+ +AGE)\b"


def load(path: str, *, stdin: BinaryIO | None = None) -> Snapshot:
    """A snapshot, manifests, a folder of either, a dump, a must-gather, or a support bundle; `-` is stdin."""
    found = Found(snapshots=True)
    _take_path(found, path, stdin)
    return found.snapshot(shown(path))


def load_manifests(paths: Sequence[str], *, texts: dict[str, str] | None = None) -> Snapshot:
    """Manifest files and folders together; `-` is stdin. What the files say, unmasked, goes into `texts` by file."""
    if not paths:
        raise UsageError("no file or folder named")
    found = Found(snapshots=False)
    found.texts = texts
    for path in paths:
        _take_path(found, path, None)
    return found.snapshot(", ".join(map(shown, paths)))


def load_log(path: str, *, stdin: BinaryIO | None = None, literals: Iterable[str] = ()) -> LogText:
    """A log without its pod, read whole.

    With `literals` (those that checks look for) a log of more than `_LARGE` bytes is reduced to their lines, whatever
    its size; without them all of it is kept, and beyond `reading.MAX_LOG` the middle is left out.
    """
    if literals:
        return reading.named(path, stdin, lambda stream: _log(stream, path, literals))
    from kubectl_llmdoctor.gather.wrapped import unwrapped
    from kubectl_llmdoctor.redact import mask_text

    head, tail, dropped = reading.named(path, stdin, reading.ends)
    text = unwrapped(reading.decode(head))
    cut = Cut(after_line=text.count("\n"), bytes=dropped) if dropped else None
    text += unwrapped(reading.decode(tail))
    if not text.strip():
        raise UsageError(f"{shown(path)}: the log is empty")
    return LogText(text=mask_text(text), timestamps=has_kubelet_times(text), cut=cut)


def load_logs(path: str, *, literals: Iterable[str] = ()) -> tuple[LogText, ...]:
    """A log without its pod, as `load_log` reads it; of several programs in one file, each one's."""
    from kubectl_llmdoctor.gather.wrapped import by_program

    log = load_log(path, literals=literals)
    parts = by_program(log.text) if log.cut is None and not log.skips else {}
    return tuple(LogText(text=x, container=who, timestamps=has_kubelet_times(x)) for who, x in parts.items()) or (log,)


#: A log larger than this is not kept whole where nobody wants to save it.
_LARGE = 8 << 20


def _log(stream: BinaryIO, path: str, literals: Iterable[str]) -> LogText:
    """A log that is kept whole when it is small, else reduced while it is read."""
    from kubectl_llmdoctor.gather.wrapped import form_of, unwrapped, unwrapped_pieces
    from kubectl_llmdoctor.redact import mask_text

    pieces = reading.pieces(stream)
    early: list[bytes] = []
    for piece in pieces:
        early.append(piece)
        if sum(map(len, early)) > _LARGE and early[0][:2] not in (b"\xff\xfe", b"\xfe\xff"):
            from kubectl_llmdoctor.gather.condense import condense

            every: Iterable[bytes] = itertools.chain(early, pieces)
            if form := form_of(reading.decode(early[0])):
                every = unwrapped_pieces(form, every)
            return condense(every, literals)
    text = unwrapped(reading.decode(b"".join(early)))
    if not text.strip():
        raise UsageError(f"{shown(path)}: the log is empty")
    return LogText(text=mask_text(text), timestamps=has_kubelet_times(text))


def save(snapshot: Snapshot, path: str) -> None:
    """Writes the snapshot as JSON, as YAML where the name says so, gzipped where it ends in `.gz`; mode 0600."""
    from pathlib import Path

    if path == "-":
        raise UsageError("a snapshot is saved to a file, not to stdout")
    try:
        saved.write(Path(path), saved.encoded(snapshot, path))
    except (OSError, ValueError, RuntimeError) as e:  # RuntimeError: a loop of symbolic links
        raise UsageError(f"cannot write {shown(path)}: {reading.os_reason(e)}") from None


def _take_path(found: Found, path: str, stdin: BinaryIO | None) -> None:
    from pathlib import Path

    place = Path(path)
    try:
        is_folder = path not in ("", "-") and place.is_dir()
    except OSError as e:
        raise UsageError(f"{shown(path)}: {reading.os_reason(e)}") from None
    if not is_folder:
        _take_file(found, shown(path), reading.named(path, stdin, lambda s: reading.whole(s, reading.MAX_NAMED)))
        return
    from kubectl_llmdoctor.gather.offline import dump, inspected

    if found.snapshots and dump.is_dump(place):
        dump.take_folder(found, place)
    elif found.snapshots and (roots := inspected.roots_of(place)):
        inspected.take_folders(found, roots)
    elif not (found.snapshots and _take_bundle(found, shown(path), place)):
        _take_folder(found, str(place))


def _take_bundle(found: Found, name: str, source: Path | bytes) -> bool:
    """Takes a support bundle, as a folder or a tar archive; whether it is one, or a broken one."""
    from kubectl_llmdoctor.gather.offline import bundle

    try:
        files = bundle.of_archive(source) if isinstance(source, bytes) else bundle.of_folder(source)
    except UnreadableError as error:
        found.miss(name, str(error))
        return True
    if files is None:
        return False
    bundle.take(found, name, files)
    return True


def _take_folder(found: Found, folder: str) -> None:
    files = _listed(folder)
    if found.snapshots:
        for name, data in files:
            _take_listed(found, name, data)
        return

    def taken(part: Sequence[tuple[str, bytes | str]]) -> Found:
        mine = found.fresh()
        for name, data in part:
            _take_listed(mine, name, data)
        return mine

    for part in forked.pieces(taken, list(files), least=_LEAST):
        found.join(part)


def _take_listed(found: Found, name: str, data: bytes | str) -> None:
    """Takes a file, or notes why it was not read."""
    if isinstance(data, str):
        found.miss(name, data)
    else:
        _take_file(found, name, data)


def _listed(folder: str) -> Iterator[tuple[str, bytes | str]]:
    """Each manifest file of a folder with its bytes, or with the reason why it was not read."""
    total = candidates = 0
    for file, reason in _walk(folder):
        name = reading.named_in_folder(file)
        if reason:
            yield name, reason
            continue
        candidates += 1
        try:
            data = reading.listed(file)
        except UnreadableError as e:
            yield name, str(e)
            continue
        total += len(data)
        if total > MAX_FOLDER:
            yield name, f"not read, nor what follows: the folder holds more than {MAX_FOLDER >> 20} MiB"
            return
        yield name, data
    if not candidates:
        yield shown(folder), "no *.yaml, *.yml or *.json in this folder"


def _walk(folder: str) -> Iterator[tuple[str, str]]:
    """The folder's manifest files in sorted order, and folders that cannot be read with the reason why.

    Linked folders are followed, each real one once.
    """
    seen: set[tuple[int, int]] = set()
    pending = [(folder, True)]
    while pending:
        place, is_folder = pending.pop()
        if not is_folder:
            yield place, ""
            continue
        try:
            info = os.stat(place)  # noqa: PTH116
            if (info.st_dev, info.st_ino) in seen:
                continue
            seen.add((info.st_dev, info.st_ino))
            with os.scandir(place) as listing:
                entries = sorted(listing, key=lambda entry: entry.name, reverse=True)
        except OSError as e:
            yield place, reading.os_reason(e)
            continue
        for entry in entries:
            if not entry.name.startswith("."):
                inner = _is_folder(entry)
                if inner or entry.name.lower().endswith(reading.SUFFIXES):
                    pending.append((entry.name if place == "." else entry.path, inner))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of symbolic links
        return False


def _take_file(found: Found, name: str, data: bytes) -> None:
    if found.snapshots and data[257:262] == b"ustar" and _take_bundle(found, name, data):
        return
    text = reading.decode(data)
    if reason := _foreign(data, text):
        found.miss(name, reason)
        return
    if found.snapshots and "==== START logs for container" in text:
        from kubectl_llmdoctor.gather.offline import dump

        if dump.has_logs(text):
            dump.take_stream(found, name, text)
            return
    read = list(documents(text))
    if len(read) == 1 and saved.is_snapshot(read[0].value):
        saved.take(found, name, read[0].value)
        return
    from kubectl_llmdoctor.gather.offline import dump, manifests

    if found.snapshots and dump.is_stream(text, read):
        dump.take_stream(found, name, text)
        return
    for document in read:
        if saved.is_snapshot(document.value):
            saved.take(found, name, document.value)
    manifests.take(found, name, [d for d in read if not saved.is_snapshot(d.value)])
    if found.texts is not None:
        found.texts[name] = text
    if not read:
        found.miss(name, "nothing but comments")


def _foreign(data: bytes, text: str) -> str:
    """The reason not to read on, for what parses by accident or not at all."""
    if data[257:262] == b"ustar":
        return "a tar archive and no support bundle of troubleshoot.sh: unpack it first"
    if data[:4] == b"PK\x03\x04":
        return "a zip archive: unpack it first"
    if not text.strip():
        return "an empty file"
    if "Name:" in text[:64] and re.match(_DESCRIBE, text):
        return "this is kubectl describe output: save with 'kubectl llmdoctor snapshot', or use kubectl get -o yaml"
    if "NAME" in text[:64] and re.match(_TABLE, text):
        return "this is the table of kubectl get: add -o yaml"
    return ""
