"""The report as JUnit XML: a test suite per target, a failure per finding, a skipped test per suppressed one.

Sources that could not be read are skipped tests, too. Notes do not fail: they stand in the output of the suite's passing test.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as Xml

from kubectl_llmdoctor.report import places
from kubectl_llmdoctor.report.document import Finding, Report, Target

#: What XML 1.0 has no way to write.
_FORBIDDEN = "[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"


def render(report: Report) -> bytes:
    """One document with an XML declaration."""
    root = Xml.Element("testsuites", {"name": "kubectl-llmdoctor"})
    for target in report.targets:
        _suite(root, target, target.findings)
    if report.cluster.findings:
        _suite(root, None, report.cluster.findings)
    if report.not_read:
        _not_read(root, report)
    for key in ("tests", "failures", "skipped"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    Xml.indent(root)
    written: str = Xml.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{written}\n'.encode()


def _suite(root: Xml.Element, target: Target | None, findings: tuple[Finding, ...]) -> None:
    failing = [f for f in findings if f.role != "note"]
    hidden = target.suppressed if target else ()
    name = places.name(target)
    cases = max(len(failing) + len(hidden), 1)
    counts = {"tests": str(cases), "failures": str(len(failing)), "errors": "0", "skipped": str(len(hidden))}
    suite = Xml.SubElement(root, "testsuite", {"name": _text(name)} | counts)
    for finding in failing:
        file, line = places.place(target, finding)
        where = {"file": _text(file), "line": str(line)} if file else {}
        case = Xml.SubElement(suite, "testcase", {"classname": _text(name), "name": _text(finding.id), **where})
        said = {"type": finding.severity, "message": _text(finding.summary)}
        at = f"{file}:{line}\n" if file else ""
        Xml.SubElement(case, "failure", said).text = _text(at + places.message(target, finding))
    for item in hidden:
        case = Xml.SubElement(suite, "testcase", {"classname": _text(name), "name": _text(item.id)})
        Xml.SubElement(case, "skipped", {"message": _text(f"suppressed by {item.where}: {item.reason}")})
    if not failing and not hidden:
        Xml.SubElement(suite, "testcase", {"classname": _text(name), "name": "no finding"})
    notes = [places.message(target, f) for f in findings if f.role == "note"]
    if notes:
        Xml.SubElement(suite, "system-out").text = _text("\n\n".join(notes))


def _not_read(root: Xml.Element, report: Report) -> None:
    """What could not be read, as tests that were skipped: what nobody saw must not look as if it had passed."""
    count = str(len(report.not_read))
    counts = {"tests": count, "failures": "0", "errors": "0", "skipped": count}
    suite = Xml.SubElement(root, "testsuite", {"name": "not read"} | counts)
    for item in report.not_read:
        named = _text(" ".join(filter(None, (item.source, item.ref))))
        case = Xml.SubElement(suite, "testcase", {"classname": "not read", "name": named})
        Xml.SubElement(case, "skipped", {"message": _text(item.reason)})


def _text(text: str) -> str:
    return re.sub(_FORBIDDEN, "\ufffd", text)
