"""What a metrics port answers, as samples: Prometheus' text format and OpenMetrics, read leniently.

The text comes from a container and may hold anything. A line that is not understood is passed over, and what is read is
bounded; nothing here raises. Timestamps and exemplars are left out: the time of a sample is the time of its scrape.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator

import msgspec

from kubectl_llmdoctor.expressions import expression

#: What is read of one text: characters of it, samples of it, characters of a line, labels of a sample.
_TEXT, _SAMPLES, _LINE, _LABELS = 32 * 1024 * 1024, 200_000, 16_384, 64

_NAME = expression(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
#: A label, or a name in quotation marks, as Prometheus 3 has it in front of the labels.
_LABEL = expression(r'[\s,]*(?:([a-zA-Z_][\w.:/-]*)|"((?:[^"\\]|\\.)*)")\s*(?:=\s*"((?:[^"\\]|\\.)*)")?')
#: A number as Go and Python both read it; `1_000` is none.
_NUMBER = expression(r"[+-]?(?:\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?|[iI]nf(?:inity)?|[nN]a[nN])", re.ASCII)
_ESCAPE = expression(r"\\(.)")
_ESCAPED = {"n": "\n", "\\": "\\", '"': '"'}


class Sample(msgspec.Struct, frozen=True):
    """One value; it may be NaN or infinite."""

    name: str
    labels: dict[str, str]
    value: float


def samples(text: str, names: Container[str] | None = None) -> Iterator[Sample]:
    """The samples of an exposition in their order, only those of `names` where names are given.

    Args:
        text: the answer of a metrics port.
        names: names as they stand in the text, so `…_bucket` for a histogram's buckets.
    """
    read = 0
    for line in text[:_TEXT].splitlines():
        if line[:1] == "#" or len(line) > _LINE:
            continue
        sample = _sample(line.strip(), names)
        if sample is not None:
            yield sample
            read += 1
            if read == _SAMPLES:
                return


def _sample(line: str, names: Container[str] | None) -> Sample | None:
    match = _NAME.match(line)
    name, at = (match[0], match.end()) if match else ("", 0)
    if name and names is not None and name not in names:
        return None
    labels: dict[str, str] = {}
    rest = line[at:].lstrip()
    if rest[:1] == "{":
        found = _labels(rest)
        if found is None:
            return None
        quoted, labels, rest = found
        name = name or quoted
    if not name or (names is not None and name not in names):
        return None
    number = _NUMBER.match(rest := rest.lstrip())
    if number is None or rest[number.end() : number.end() + 1] not in ("", " ", "\t"):
        return None
    return Sample(name, labels, float(number[0]))


def _labels(text: str) -> tuple[str, dict[str, str], str] | None:
    """A name in quotation marks (or none), the labels, and what stands behind the brace; None where it does not close."""
    name, labels, at = "", dict[str, str](), 1
    for _ in range(_LABELS + 1):
        match = _LABEL.match(text, at)
        if match is None:
            break
        at = match.end()
        key, quoted, value = match.groups()
        if value is not None:
            labels[key or _unescape(quoted)] = _unescape(value)
        elif quoted is not None and not name:
            name = _unescape(quoted)
        else:
            return None
    behind = text[at:].lstrip(", \t")
    return (name, labels, behind[1:]) if behind[:1] == "}" else None


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda m: _ESCAPED.get(m[1], m[0]), text) if "\\" in text else text
