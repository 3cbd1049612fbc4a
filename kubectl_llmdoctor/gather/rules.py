"""The configuration file `.llmdoctor.yaml` -> rules: what is not to be seen, and what is more or less severe.

A file that is wrong anywhere is an error, with its line: a rule that is silently not followed would be worse.
"""

from __future__ import annotations

import glob
import posixpath
from pathlib import Path
from typing import Any

from kubectl_llmdoctor.errors import UsageError
from kubectl_llmdoctor.gather.offline import reading
from kubectl_llmdoctor.gather.offline.documents import Document, documents
from kubectl_llmdoctor.redact import mask_text
from kubectl_llmdoctor.report.document import SEVERITIES
from kubectl_llmdoctor.suppression import Rule, Scope, is_date

NAME = ".llmdoctor.yaml"
_SECTIONS = ("ignore", "severity")
_SCOPE = {"kind": "kinds", "namespace": "namespaces", "name": "names", "path": "paths"}


def find(folder: Path) -> Path | None:
    """The configuration of a folder: its own, else that of the nearest one above it within the repository."""
    places = [folder, *folder.parents]
    root = next((n for n, place in enumerate(places) if (place / ".git").exists()), 0)
    return next((place / NAME for place in places[: root + 1] if (place / NAME).is_file()), None)


def load(path: Path) -> tuple[Rule, ...]:
    """The rules of a configuration file, in its order. Raises UsageError."""
    name = reading.shown(str(path))
    text = reading.decode(reading.named(str(path), None, lambda stream: reading.whole(stream, 1 << 20)))
    read = list(documents(text))
    if not read:
        return ()
    document = read[0]
    value = document.value
    if document.error or len(read) > 1 or not isinstance(value, dict):
        raise UsageError(f"{name}: {document.error or 'expected one mapping with ' + ' and '.join(_SECTIONS)}")
    for key in value:
        if key not in _SECTIONS:
            raise UsageError(f"{name}: unknown key {key[:60]}; known are {', '.join(_SECTIONS)}")
    return tuple(rule for section in _SECTIONS for rule in _section(name, path, document, section))


def _section(name: str, path: Path, document: Document, section: str) -> list[Rule]:
    entries = document.value.get(section) or []
    if not isinstance(entries, list):
        raise UsageError(f"{name}: {section} is no list")
    lines = document.item_lines.get(section, [])
    lines = lines if len(lines) == len(entries) else [document.line] * len(entries)
    rules = []
    for entry, line in zip(entries, lines, strict=True):
        try:
            rules.append(_rule(entry, section, path, f"{name}:{line}", name, line))
        except ValueError as error:
            raise UsageError(f"{name}:{line}: {error}") from None
    return rules


def _rule(entry: Any, section: str, path: Path, where: str, name: str, line: int) -> Rule:
    if not isinstance(entry, dict):
        raise ValueError(f"an entry of {section} is a mapping with id")
    known = {"id", "reason", "until", *_SCOPE} | ({"severity"} if section == "severity" else set())
    for key in entry:
        if key not in known:
            raise ValueError(f"unknown key {key[:60]}; known are {', '.join(sorted(known))}")
    ids, reason, until = _texts(entry, "id"), entry.get("reason") or "", entry.get("until") or ""
    severity = entry.get("severity")
    if not ids:
        raise ValueError("no id is given")
    if not isinstance(reason, str) or (section == "ignore" and not reason.strip()):
        raise ValueError(f"no reason is given for {', '.join(ids)}")
    if until and not (isinstance(until, str) and is_date(until)):
        raise ValueError(f"until: {str(until)[:20]} is no date such as 2026-12-31")
    if section == "severity" and severity not in SEVERITIES:
        raise ValueError(f"severity is one of {', '.join(SEVERITIES)}")
    globs = {field: _texts(entry, key) for key, field in _SCOPE.items()}
    globs["paths"] = tuple(_from_here(path, pattern) for pattern in globs["paths"])
    return Rule(
        ids=ids,
        reason=mask_text(" ".join(reason.split())),
        until=until,
        severity=severity if section == "severity" else None,
        scope=Scope(**globs),
        where=where,
        file=name,
        line=line,
    )


def _texts(entry: dict[str, Any], key: str) -> tuple[str, ...]:
    """One text or a list of texts."""
    value = entry.get(key)
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(v, str) and v for v in values):
        raise ValueError(f"{key} is a text or a list of texts")
    return tuple(values)


def _from_here(path: Path, pattern: str) -> str:
    """A glob that is relative to the configuration file, as an absolute one."""
    folder = glob.escape(reading.shown(str(path.resolve().parent)))
    return posixpath.normpath(posixpath.join(folder, pattern))
