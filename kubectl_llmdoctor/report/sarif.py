"""The report as SARIF 2.1.0, for code scanning: rules, results with their places, suppressions with their reasons."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import msgspec

from kubectl_llmdoctor.report import places
from kubectl_llmdoctor.report.document import Finding, Report, Severity, Target
from kubectl_llmdoctor.report.text_layout import clean

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"

#: Each rule by id, and its place among them.
_Rules = dict[str, tuple[dict[str, Any], int]]

_LEVELS: dict[Severity, str] = {"critical": "error", "warning": "warning", "info": "note"}


def render(report: Report) -> bytes:
    """Indented JSON with a final newline."""
    rules: _Rules = {}
    results = [_result(target, finding, rules) for target, finding in places.every(report)]
    results += [result for target in report.targets for result in _suppressed(target, rules)]
    log = {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "kubectl-llmdoctor",
                        "version": report.tool_version,
                        "rules": [rule for rule, _ in rules.values()],
                    }
                },
                "columnKind": "unicodeCodePoints",
                "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": list(_notes(report))}],
                "results": results,
            }
        ],
    }
    return msgspec.json.format(msgspec.json.encode(log), indent=2) + b"\n"


def _result(target: Target | None, finding: Finding, rules: _Rules) -> dict[str, Any]:
    rule = {
        "id": finding.id,
        "shortDescription": {"text": clean(finding.title) or finding.id},
        "help": {"text": f"kubectl llmdoctor explain {finding.id}"},
    }
    rules.setdefault(finding.id, (rule, len(rules)))
    file, line = places.place(target, finding)
    said = places.message(target, finding)
    result = _base(finding.id, rules, _LEVELS[finding.severity], said, target, file, line, finding.context)
    related = [e for e in finding.evidence if e.file and (e.file, e.line or 1) != (file, line)]
    if related:
        result["relatedLocations"] = [
            {"id": n, **_location(e.file or "", e.line or 1), "message": {"text": f"{clean(e.ref)}: {clean(e.text)}"}}
            for n, e in enumerate(related, 1)
        ]
    result["properties"] = {"role": finding.role, "confidence": finding.confidence}
    return result


def _suppressed(target: Target, rules: _Rules) -> Iterator[dict[str, Any]]:
    for item in target.suppressed:
        rules.setdefault(item.id, ({"id": item.id}, len(rules)))
        text = f"{places.name(target)}: {clean(item.summary)}"
        level = _LEVELS[item.severity or "info"]
        result = _base(item.id, rules, level, text, target, target.file or "", target.line or 1)
        kind = "inSource" if item.where.startswith("annotation") else "external"
        result["suppressions"] = [{"kind": kind, "justification": clean(item.reason)}]
        yield result


def _base(
    id: str, rules: _Rules, level: str, text: str, target: Target | None, file: str, line: int, context: str = ""
) -> dict[str, Any]:
    location: dict[str, Any] = _location(file, line) if file else {}
    location["logicalLocations"] = [{"fullyQualifiedName": places.name(target, context), "kind": "resource"}]
    return {
        "ruleId": id,
        "ruleIndex": rules[id][1],
        "level": level,
        "message": {"text": text},
        "locations": [location],
        # what stays the same when lines move and pods are replaced
        "partialFingerprints": {"targetAndRule/v1": f"{places.lasting(target, context)} {id}"},
    }


def _location(file: str, line: int) -> dict[str, Any]:
    return {"physicalLocation": {"artifactLocation": _artifact(file), "region": {"startLine": max(line, 1)}}}


def _artifact(file: str) -> dict[str, str]:
    """A file as a URI: relative to the folder that the program ran in, or absolute."""
    uri = quote(file.encode("utf-8", "replace"), safe="/-._~")
    return {"uri": f"file://{uri}"} if file.startswith("/") else {"uri": uri, "uriBaseId": "%SRCROOT%"}


def _notes(report: Report) -> Iterator[dict[str, Any]]:
    for item in report.not_read:
        said = ": ".join(clean(part) for part in (item.source, item.ref, item.reason) if part)
        yield {"level": "note", "message": {"text": f"not read: {said}"}}
    for unused in report.unused_suppressions:
        text = f"suppression without effect: {clean(unused.id)}, {clean(unused.where)}: {clean(unused.reason)}"
        notification: dict[str, Any] = {"level": "warning", "message": {"text": text}}
        if unused.file:
            notification["locations"] = [_location(unused.file, unused.line or 1)]
        yield notification
    for check in report.broken:
        yield {"level": "error", "message": {"text": f"not checked: {check.id}: {clean(check.reason)}"}}
    if needing := [item.id for item in report.not_checked if not item.broken]:
        text = f"not checked: needs the cluster: {', '.join(needing)}"
        yield {"level": "none", "message": {"text": text}}
