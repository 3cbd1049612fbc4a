"""The report as workflow commands of GitHub Actions: annotations beside the lines of a pull request.

Notes are left out: an annotation interrupts.
"""

from __future__ import annotations

from kubectl_llmdoctor.report import places
from kubectl_llmdoctor.report.document import Report, Severity
from kubectl_llmdoctor.report.text_layout import clean

_COMMANDS: dict[Severity, str] = {"critical": "error", "warning": "warning", "info": "notice"}


def render(report: Report) -> bytes:
    """One command per finding; nothing that a stranger wrote can start another."""
    rows = []
    for target, finding in places.every(report):
        if finding.role == "note":
            continue
        file, line = places.place(target, finding)
        properties = {"file": file, "line": str(line)} if file else {}
        properties["title"] = f"{finding.title} ({finding.id})"
        listed = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
        rows.append(f"::{_COMMANDS[finding.severity]} {listed}::{_data(places.message(target, finding))}")
    for unused in report.unused_suppressions:
        where = f"file={_property(unused.file)},line={unused.line or 1}," if unused.file else ""
        said = clean(f"{unused.id}, {unused.where}: {unused.reason}")
        rows.append(f"::warning {where}title=A suppression without effect::{_data(said)}")
    rows += [f"::warning title=A check not run::{_data(clean(f'{item.id}: {item.reason}'))}" for item in report.broken]
    return "".join(f"{row}\n" for row in rows).encode("utf-8", "replace")


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(clean(text)).replace(":", "%3A").replace(",", "%2C")
