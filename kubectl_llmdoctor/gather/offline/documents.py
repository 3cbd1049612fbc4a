"""Text -> the YAML or JSON documents in it, one by one, so that a broken one costs only itself.

YAML is read from libyaml's events instead of PyYAML's constructors: that is faster, knows the line of everything, and
needs no recursion, so hostile nesting and alias bombs are refused by counting.

Scalars become what Kubernetes' own YAML reader makes of them, with two differences that only keep text as text:
timestamps and sexagesimal numbers (`22:30`) stay strings. Keys are always strings: a plain `on`, `yes` or `true`
becomes `"true"` as it does for Kubernetes, any other key is its text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

#: Nesting beyond this is refused; the deepest published objects (CRD schemas) stay below 60.
MAX_DEPTH = 400
#: Where a document may hold a list of things that have a line of their own.
LISTS = ("items", "objects", "ignore", "severity")
#: What aliases of one document may stand for: references, and nodes after expansion.
MAX_ALIASES = 10_000
MAX_EXPANDED = 1_000_000
#: A text with more broken documents than this is something else altogether.
MAX_ERRORS = 100
#: JSON that does not parse is tried as YAML (`{a: b}`) up to this size.
MAX_FLOW = 4 << 20
#: So many keys that stand twice are named of one document.
_MOST_REPEATED = 5

# Patterns are text, not compiled here: compiling them takes longer than to read a small snapshot.
_SEPARATOR = r"(?m)^---(?=[ \t\r\n]|\Z)"
#: A line that is more than a comment, a directive or an end mark.
_CONTENT = r"(?m)^[ \t]*(?!\.\.\.[ \t\r]*$)[^#%\s]"
#: What ends a line for libyaml, by which it counts them.
_BREAK = "\r\n|[\r\n\x85\u2028\u2029]"
_BARE_SEPARATOR = r"---[ \t]*(?:#[^\n]*)?(?:\r?\n|\Z)"
#: What libyaml refuses to read at all.
_CONTROL = "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]"


class Document(msgspec.Struct, kw_only=True, gc=False):
    """One document: `value`, or `error` in plain words."""

    value: Any = None
    error: str = ""
    #: 1-based line where its content starts
    line: int
    text: str
    #: for a list, or a mapping with one of `LISTS`: the line of each item; only for YAML
    item_lines: dict[str, list[int]] = {}
    #: keys that stand once more in the same mapping, of which the last counts, the first few with their lines; only for YAML
    repeated: list[tuple[str, int]] = []


class _Broken(Exception):  # noqa: N818 - never leaves this file
    def __init__(self, problem: str, line: int) -> None:
        super().__init__(problem)
        self.problem = problem
        self.line = line


def documents(text: str, *, first_line: int = 1) -> Iterator[Document]:
    """All documents of a YAML file, a JSON file or concatenated JSON, in order; empty ones are left out."""
    errors = 0
    for chunk, line in _chunks(text, first_line):
        for document in _read(chunk, line):
            yield document
            errors += bool(document.error)
            if errors >= MAX_ERRORS:
                yield Document(error=f"too many errors, gave up at line {document.line}", line=document.line, text="")
                return


def _chunks(text: str, line: int) -> Iterator[tuple[str, int]]:
    """The text cut before each `---` line, with the line each piece starts at.

    At the start of a line `---` always separates, even within quotes or a block of text, and JSON strings hold no
    line breaks.
    """
    start = 0
    if not text.startswith("---") and "\n---" not in text:
        yield text, line
        return
    for match in re.finditer(_SEPARATOR, text):
        end = match.start()
        if end > start:
            yield text[start:end], line
            line += text.count("\n", start, end)
        start = end
    yield (text[start:] if start else text), line


def _read(chunk: str, line: int) -> Iterator[Document]:
    if match := re.match(_BARE_SEPARATOR, chunk):
        chunk = chunk[match.end() :]
        line += 1
    content = chunk.lstrip()
    if content[:1] in ("{", "["):
        yield from _json(content, line + chunk.count("\n", 0, len(chunk) - len(content)))
    elif content and re.search(_CONTENT, chunk):
        yield from _yaml_or_error(chunk, line)


# --- JSON -------------------------------------------------------------------------------------------------------------


def _json(text: str, line: int) -> Iterator[Document]:
    try:
        yield Document(value=msgspec.json.decode(text), line=line, text=text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        yield from _json_stream(text, line)


def _json_stream(text: str, line: int) -> Iterator[Document]:
    """Concatenated JSON documents, as `kubectl cluster-info dump` prints them, or JSON that is none."""
    import json

    decode = json.JSONDecoder().raw_decode
    start_of_line, content = re.compile(r"(?m)^[{\[]"), re.compile(r"\S")
    first_line, pos = line, 0
    while pos < len(text):
        try:
            value, end = decode(text, pos)
            yield Document(value=value, line=line, text=text[pos:end])
        except (ValueError, RecursionError) as e:
            if pos == 0 and len(text) <= MAX_FLOW:
                flow = list(_yaml_or_error(text, line))
                if flow and not (flow[0].error and _looks_like_json(text)):
                    yield from flow
                    return
            yield Document(error=_json_error(e, first_line), line=line, text=text[pos : pos + 4096])
            restart = start_of_line.search(text, pos + 1)
            end = restart.start() if restart else len(text)
        following = content.search(text, end)
        end = following.start() if following else len(text)
        line += text.count("\n", pos, end)
        pos = end


def _looks_like_json(text: str) -> bool:
    return re.match(r'[{\[]\s*(?:["}\]]|[{\[]\s*")', text) is not None


def _json_error(error: Exception, first_line: int) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    line = first_line + getattr(error, "lineno", 1) - 1
    return f"JSON error at line {line}: {getattr(error, 'msg', 'a number is too long')}"


_JSON_MARK = r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]'


def json_item_lines(text: str, line: int, key: str) -> list[int]:
    """The line of each element of the list under `key` of a JSON object, or of the list itself where `key` is empty."""
    lines: list[int] = []
    depth, inside, counted, last = 0, 0, 0, ""
    wanted = f'"{key}"'
    for match in re.finditer(_JSON_MARK, text):
        mark = match[0]
        if mark in "{[":
            if inside and depth == inside:
                line += text.count("\n", counted, match.start())
                counted = match.start()
                lines.append(line)
            depth += 1
            if not inside and mark == "[" and (depth == 2 and last == wanted if key else depth == 1):
                inside = depth
        elif mark in "}]":
            if inside and depth == inside:
                break
            depth -= 1
        elif depth == 1:
            last = mark
    return lines


# --- YAML -------------------------------------------------------------------------------------------------------------


def _yaml_or_error(chunk: str, line: int) -> Iterator[Document]:
    import yaml

    try:
        yield from _yaml(chunk, line)
    except _Broken as e:
        at = line + e.line
        yield Document(error=f"YAML error at line {at}: {e.problem}", line=at, text=chunk)
    except yaml.MarkedYAMLError as e:
        at = line + (e.problem_mark.line if e.problem_mark else 0)
        yield Document(error=f"YAML error at line {at}: {e.problem or e.context}", line=at, text=chunk)
    except yaml.YAMLError as e:
        problem = getattr(e, "reason", "not readable")
        yield Document(error=f"YAML error at line {line}: {problem}", line=line, text=chunk)


def _yaml(chunk: str, first_line: int) -> Iterator[Document]:
    import yaml

    if re.search(_CONTROL, chunk):
        chunk = re.sub(_CONTROL, "\ufffd", chunk)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(chunk)
    try:
        build = _Builder(yaml)
        while build.take(loader.get_event):
            if build.root is not None:
                yield build.document(chunk, first_line)
            build = _Builder(yaml)
    finally:
        loader.dispose()


#: Stands for "no key yet" and "the merge key" where any string may be a key.
_NO_KEY: Any = object()
_MERGE: Any = object()

_BOOLEANS = {
    word: value
    for value, words in ((True, ("true", "yes", "on")), (False, ("false", "no", "off")))
    for name in words
    for word in (name, name.title(), name.upper())
}
_PLAIN: dict[str, Any] = {**_BOOLEANS, "": None, "~": None, "null": None, "Null": None, "NULL": None}
#: Plain keys that are another string, or the merge key.
_ODD_KEYS: dict[str, Any] = {
    **{word: "null" for word, value in _PLAIN.items() if value is None},
    **{word: "true" if value else "false" for word, value in _BOOLEANS.items()},
    "<<": _MERGE,
}
_NUMERIC_START = frozenset("-+.0123456789")
_INT = r"[-+]?(?:0|[1-9][0-9_]*|0[0-7_]+|0b[01_]+|0x[0-9a-fA-F_]+)\Z"
_FLOAT = r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+][0-9]+)?\Z"
_CORE_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("int", "float", "bool", "null"))


def plain_scalar(text: str) -> Any:
    """What an unquoted word means."""
    if text in _PLAIN:
        return _PLAIN[text]
    if text[0] not in _NUMERIC_START:
        return text
    if re.match(_INT, text):
        try:
            return _integer(text.replace("_", ""))
        except ValueError:  # thousands of digits, or none but underscores
            return text
    return float(text) if re.match(_FLOAT, text) else text


def _integer(text: str) -> int:
    octal = text.lstrip("+-").isdigit() and text.lstrip("+-")[0] == "0"
    return int(text, 8 if octal else 0)


def _line_of_key(rows: list[str], key: str, line: int) -> int:
    """The line of a key whose value begins at `line`, or below it."""
    stated = re.compile(rf"\s*(?:- +)*[\"']?{re.escape(key)}[\"']?\s*:")
    return next((n for n in range(line, -1, -1) if stated.match(rows[n])), line)


class _Frame:
    """A mapping or sequence that is still open."""

    __slots__ = ("anchor", "key", "merges", "node", "size")

    def __init__(self, node: Any, anchor: str | None, size: int) -> None:
        self.node = node
        self.anchor = anchor
        self.size = size
        self.key: Any = _NO_KEY
        self.merges: list[dict[str, Any]] = []


#: What stands in the place of one outside of all.
_NO_FRAME = _Frame(None, None, 0)


class _Builder:
    """Makes one document's value from its events."""

    def __init__(self, yaml: Any) -> None:
        self._scalar, self._alias = yaml.ScalarEvent, yaml.AliasEvent
        self._mapping, self._sequence = yaml.MappingStartEvent, yaml.SequenceStartEvent
        self._ends = (yaml.MappingEndEvent, yaml.SequenceEndEvent)
        self._document_end = yaml.DocumentEndEvent
        self.root: Any = None
        self.line = 0
        self.item_lines: dict[str, list[int]] = {}
        self.repeated: list[tuple[str, int]] = []
        self._stack: list[_Frame] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._size = self._expanded = self._aliases = 0

    def document(self, text: str, first_line: int) -> Document:
        """The finished document, its lines counted from the file's start."""
        lines = {key: [line + first_line for line in found] for key, found in self.item_lines.items()}
        rows = re.split(_BREAK, text) if self.repeated else []
        repeated = [(key, _line_of_key(rows, key, line) + first_line) for key, line in self.repeated[:_MOST_REPEATED]]
        return Document(value=self.root, line=first_line + self.line, text=text, item_lines=lines, repeated=repeated)

    def take(self, get_event: Callable[[], Any]) -> bool:
        """Builds up to the end of a document; false at the end of the text.

        A text has as many events as words, so that the common ones, scalars in a mapping, are dealt with right here.
        """
        scalar, mapping, sequence, ends = self._scalar, self._mapping, self._sequence, self._ends
        stack, sized = self._stack, 0
        frame: Any = _NO_FRAME
        for event in iter(get_event, None):
            cls = event.__class__
            if cls is scalar:
                text: str = event.value
                sized += 1 + (len(text) >> 6)
                plain = event.implicit[0] or event.tag in _CORE_TAGS
                if frame.key is _NO_KEY and frame.node.__class__ is dict:
                    frame.key = text if not plain or text not in _ODD_KEYS else _ODD_KEYS[text]
                    value = text
                else:
                    value = plain_scalar(text) if plain else text
                    if frame.key.__class__ is str and len(stack) > 2:
                        if frame.key in frame.node:
                            self.repeated.append((frame.key, event.start_mark.line))
                        frame.node[frame.key] = value
                        frame.key = _NO_KEY
                    else:
                        if len(stack) <= 2:
                            self._note_line(event)
                        self._add(value, event)
                if event.anchor:
                    self._anchors[event.anchor] = value, 1 + (len(text) >> 6)
            else:
                self._size += sized
                sized = 0
                if cls is mapping or cls is sequence:
                    self._open(event, {} if cls is mapping else [])
                elif cls in ends:
                    self._close(event)
                elif cls is self._alias:
                    self._take_alias(event)
                elif cls is self._document_end:
                    return True
                frame = stack[-1] if stack else _NO_FRAME
        return False

    def _open(self, event: Any, node: Any) -> None:
        stack = self._stack
        if len(stack) >= MAX_DEPTH:
            raise _Broken("nested too deeply", event.start_mark.line)
        if stack and stack[-1].key is _NO_KEY and stack[-1].node.__class__ is dict:
            raise _Broken("a mapping key is no plain value", event.start_mark.line)
        if len(stack) <= 2:
            self._note_line(event)
        if stack and stack[-1].node.__class__ is dict and stack[-1].key in stack[-1].node:
            self.repeated.append((stack[-1].key, event.start_mark.line))
        if event.anchor:
            self._anchors.pop(event.anchor, None)
        stack.append(_Frame(node, event.anchor, self._size))
        self._size += 1

    def _close(self, event: Any) -> None:
        frame = self._stack.pop()
        for base in frame.merges:
            for key, value in base.items():
                frame.node.setdefault(key, value)
        if frame.anchor:
            self._anchors[frame.anchor] = frame.node, self._size - frame.size
        self._add(frame.node, event)

    def _take_alias(self, event: Any) -> None:
        line = event.start_mark.line
        if event.anchor not in self._anchors:
            raise _Broken("an alias names no anchor before it", line)
        value, size = self._anchors[event.anchor]
        self._aliases += 1
        self._size += size
        self._expanded += size
        if self._aliases > MAX_ALIASES or self._expanded > MAX_EXPANDED:
            raise _Broken("aliases expand to too much", line)
        frame = self._stack[-1] if self._stack else None
        if frame and frame.key is _NO_KEY and frame.node.__class__ is dict:
            if isinstance(value, (dict, list)):
                raise _Broken("a mapping key is no plain value", line)
            frame.key = _ODD_KEYS[str(value)] if isinstance(value, bool) else str(value)
            return
        if len(self._stack) <= 2:
            self._note_line(event)
        self._add(value, event)

    def _add(self, value: Any, event: Any) -> None:
        if not self._stack:
            self.root = value
            return
        frame = self._stack[-1]
        if frame.node.__class__ is list:
            frame.node.append(value)
            return
        key, frame.key = frame.key, _NO_KEY
        if key is not _MERGE:
            if key in frame.node and not isinstance(value, (dict, list)):  # of those it was noted when they began
                self.repeated.append((key, event.start_mark.line))
            frame.node[key] = value
            return
        bases = value if isinstance(value, list) else [value]
        if not all(isinstance(base, dict) for base in bases):
            raise _Broken("'<<' takes a mapping", event.start_mark.line)
        # a merge may repeat within a merged base, so it counts like an alias
        self._expanded += sum(map(len, bases))
        if self._expanded > MAX_EXPANDED:
            raise _Broken("aliases expand to too much", event.start_mark.line)
        frame.merges += bases

    def _note_line(self, event: Any) -> None:
        """Remembers where the document, and each item of a list in it, starts."""
        stack = self._stack
        line = event.start_mark.line
        if not stack:
            self.line = line
        elif len(stack) == 1:
            if stack[0].node.__class__ is list:
                self.item_lines.setdefault("", []).append(line)
        elif stack[1].node.__class__ is list and stack[0].key in LISTS:
            self.item_lines.setdefault(stack[0].key, []).append(line)
