"""Evidence from the line of its object to the line of its own field.

A snapshot keeps where objects start, not every field: only the few documents that have findings are read again.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from kubectl_llmdoctor.report.document import Evidence, Finding, Target

#: Larger files keep the lines of objects: a stream of a whole cluster is not read twice.
_LARGEST = 16 << 20
#: `spec.containers[vllm].args[1]` -> names, and what stands in brackets
_STEP = r"\[([^\[\]]*)\]|([^.\[\]]+)"

#: `Service/llama spec.type`: which object it is stands before the field
_WHOSE = r"^\w{1,63}/[^\s\[]{1,253}(?: |\Z)"

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
    """The documents that were read again, as PyYAML's nodes, which know their lines."""

    def __init__(self, texts: dict[str, str]) -> None:
        self._texts = texts
        self._rows: dict[str, list[str]] = {}
        self._trees: dict[tuple[str, int], tuple[Any, int]] = {}

    def line(self, file: str, line: int, ref: str) -> int:
        """The line of a field of the object that starts at `line`, or of the nearest part above it that is there."""
        node, before = self._tree(file, line)
        tokens: list[tuple[str, str]] = re.findall(_STEP, re.sub(_WHOSE, "", ref))
        while tokens and node is not None:
            node, at, used = _inside(node, tokens)
            if node is not None:
                line, tokens = at + 1 + before, tokens[used:]
        return line

    def _tree(self, file: str, line: int) -> tuple[Any, int]:
        if (file, line) not in self._trees:
            self._trees[file, line] = self._read(file, line)
        return self._trees[file, line]

    def _read(self, file: str, line: int) -> tuple[Any, int]:
        text = self._texts.get(file, "")
        if not text or len(text) > _LARGEST:
            return None, 0
        if file not in self._rows:
            self._rows[file] = text.split("\n")
        rows = self._rows[file]
        item = re.match(r"( *)- ", rows[line - 1])
        outside = rf" {{0,{len(item[1])}}}[^\s#]" if item else r"---(?:\s|\Z)"
        end = next((n for n in range(line, len(rows)) if re.match(outside, rows[n])), len(rows))
        tree = _composed("\n".join(rows[line - 1 : end]))
        inner = _items(tree)[0] if item and tree and _items(tree) else tree
        return inner, line - 1


def _composed(text: str) -> Any:
    """A document as PyYAML's nodes; None where there is none."""
    import yaml

    try:
        return yaml.compose(text, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader))
    except yaml.YAMLError:
        return None


def _items(node: Any) -> list[Any]:
    return node.value if node.id == "sequence" else []


def _under(node: Any, key: str) -> Any:
    """The key and the value of a mapping's entry, of several the last; None where there is none."""
    pairs = reversed(node.value) if node.id == "mapping" else ()
    return next((pair for pair in pairs if pair[0].value == key), None)


def _is_called(node: Any, name: str) -> bool:
    pairs = (_under(node, key) for key in _NAMES)
    return any(pair is not None and pair[1].value == name for pair in pairs)


def _inside(node: Any, tokens: list[tuple[str, str]]) -> tuple[Any, int, int]:
    """The value that the first tokens lead to, its line, and how many tokens those were; no value where none is there.

    What stands under a key has the key's line.
    """
    bracket, items = tokens[0][0], _items(node)
    if bracket and items:
        if bracket.isdecimal():
            found = items[int(bracket)] if int(bracket) < len(items) else None
        else:
            found = next((item for item in items if _is_called(item, bracket)), None)
        return found, found.start_mark.line if found else 0, 1
    # a key may hold dots: nvidia.com/gpu
    names = [bracket] if bracket else list(itertools.takewhile(bool, (name for _, name in tokens)))
    for used in range(1, len(names) + 1):
        if pair := _under(node, ".".join(names[:used])):
            return pair[1], pair[0].start_mark.line, used
    return None, 0, 1
