"""Evidence from the line of its object to the line of its own field.

A snapshot keeps where objects start, not every field: only the few documents that have findings are read again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from kubectl_llmdoctor.report.document import Evidence, Finding, Target

#: Larger files keep the lines of objects: a stream of a whole cluster is not read twice.
_LARGEST = 16 << 20
#: `spec.containers[vllm].args[1]` -> names, and what stands in brackets
_STEP = r"\[([^\]]*)\]|([^.\[\]]+)"

#: What elements of lists are called by: containers and variables, worker groups of Ray
_NAMES = ("name", "groupName")


def placing(texts: dict[str, str]) -> Callable[[Target], Target]:
    """Gives each quoted field of a target its line."""
    return partial(_placed, _Files(texts))


def _placed(files: _Files, target: Target) -> Target:
    if not target.findings:
        return target
    return msgspec.structs.replace(target, findings=tuple(_finding(finding, files) for finding in target.findings))


def _finding(finding: Finding, files: _Files) -> Finding:
    return msgspec.structs.replace(finding, evidence=tuple(_evidence(row, files) for row in finding.evidence))


def _evidence(row: Evidence, files: _Files) -> Evidence:
    if not row.file or row.line is None:
        return row
    line = files.line(row.file, row.line, row.ref)
    return row if line == row.line else msgspec.structs.replace(row, line=line)


class _Files:
    """The documents that were read again, as trees of nodes with their lines."""

    def __init__(self, texts: dict[str, str]) -> None:
        self._texts = texts
        self._rows: dict[str, list[str]] = {}
        self._trees: dict[tuple[str, int], tuple[_Node | None, int]] = {}

    def line(self, file: str, line: int, ref: str) -> int:
        """The line of a field of the object that starts at `line`, or of the nearest part above it that is there."""
        node, before = self._tree(file, line)
        tokens: list[tuple[str, str]] = re.findall(_STEP, ref)
        while tokens and node is not None:
            node, used = _inside(node, tokens)
            if node is not None:
                line, tokens = node.line + 1 + before, tokens[used:]
        return line

    def _tree(self, file: str, line: int) -> tuple[_Node | None, int]:
        if (file, line) not in self._trees:
            self._trees[file, line] = self._read(file, line)
        return self._trees[file, line]

    def _read(self, file: str, line: int) -> tuple[_Node | None, int]:
        text = self._texts.get(file, "")
        if not text or len(text) > _LARGEST:
            return None, 0
        if file not in self._rows:
            self._rows[file] = text.split("\n")
        rows = self._rows[file]
        item = re.match(r"( *)- ", rows[line - 1])
        outside = rf" {{0,{len(item[1])}}}[^\s#]" if item else r"---(?:\s|\Z)"
        end = next((n for n in range(line, len(rows)) if re.match(outside, rows[n])), len(rows))
        tree = _lines("\n".join(rows[line - 1 : end]))
        inner = tree.items[0] if item and tree and tree.items else tree
        return inner, line - 1


class _Node:
    """A value with its line, and what is inside by key or by position; a scalar has its text."""

    __slots__ = ("items", "keys", "line", "text")

    def __init__(self, line: int, text: str = "") -> None:
        self.line = line
        self.text = text
        self.keys: dict[str, _Node] = {}
        self.items: list[_Node] = []

    def said(self, key: str) -> str:
        """The text under a key."""
        return self.keys[key].text if key in self.keys else ""


def _lines(text: str) -> _Node | None:
    """A document as nodes, from the parser's events; a key stands for the line of its value."""
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    stack: list[tuple[_Node, bool]] = []
    key: list[tuple[str, int] | None] = []
    ends = yaml.MappingEndEvent, yaml.SequenceEndEvent
    starts = yaml.MappingStartEvent, yaml.SequenceStartEvent
    nodes = yaml.ScalarEvent, yaml.AliasEvent, *starts
    try:
        for event in iter(loader.get_event, None):
            cls = event.__class__
            if cls in ends:
                node = stack.pop()[0]
                key.pop()
                if not stack:
                    return node
            elif cls in nodes:
                start: Any = event.start_mark
                line, said = start.line, getattr(event, "value", "")
                if stack and stack[-1][1] and key[-1] is None:
                    key[-1] = said, line
                    continue
                node = _Node(line, said)
                if stack and stack[-1][1]:
                    name, node.line = key[-1] or ("", line)
                    stack[-1][0].keys[name], key[-1] = node, None
                elif stack:
                    stack[-1][0].items.append(node)
                if cls in starts:
                    stack.append((node, cls is starts[0]))
                    key.append(None)
                elif not stack:
                    return node
    except yaml.YAMLError:
        pass
    finally:
        loader.dispose()
    return None


def _inside(node: _Node, tokens: list[tuple[str, str]]) -> tuple[_Node | None, int]:
    """The value that the first tokens lead to, and how many tokens those were."""
    bracket = tokens[0][0]
    if bracket and not node.items:
        return node.keys.get(bracket), 1
    if bracket.isdecimal():
        return (node.items[int(bracket)] if int(bracket) < len(node.items) else None), 1
    if bracket:
        return next((n for n in node.items if any(n.said(key) == bracket for key in _NAMES)), None), 1
    # a key may hold dots: nvidia.com/gpu
    names = [name for _, name in tokens]
    for used in range(1, len(tokens) + 1):
        if not names[used - 1]:
            break
        found = node.keys.get(".".join(names[:used]))
        if found:
            return found, used
    return None, 1
