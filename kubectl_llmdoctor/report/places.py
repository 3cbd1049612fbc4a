"""What formats of code review share: each finding with its file and line, and its text without a layout."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from kubectl_llmdoctor.report.document import Finding, Report, Target
from kubectl_llmdoctor.report.text_layout import clean
from kubectl_llmdoctor.report.words import within


def every(report: Report) -> Iterator[tuple[Target | None, Finding]]:
    """All findings; those of the cluster have no target."""
    for target in report.targets:
        for finding in target.findings:
            yield target, finding
    for finding in report.cluster.findings:
        yield None, finding


def name(target: Target | None, context: str = "") -> str:
    """`Deployment serving/llama`, or the cluster itself; `eu: …` with a kubeconfig's context, where there are several."""
    if target is None:
        return within(context, "cluster")
    path = "/".join(filter(None, (target.namespace, target.name)))
    return within(target.context, clean(f"{target.kind} {path}".strip()))


def lasting(target: Target | None, context: str = "") -> str:
    """The same with the workload in place of its pods, whose names pass: `Deployment serving/llama`."""
    if target is None or not target.workload:
        return name(target, context)
    kind, _, own = target.workload.partition("/")
    return name(replace(target, kind=kind, name=own))


def place(target: Target | None, finding: Finding) -> tuple[str, int]:
    """The file and line of the first evidence that has one, else those of the object; empty without a file."""
    for evidence in finding.evidence:
        if evidence.file:
            return evidence.file, evidence.line or 1
    if target is not None and target.file:
        return target.file, target.line or 1
    return "", 0


def message(target: Target | None, finding: Finding) -> str:
    """Target, summary, evidence and fixes in lines that hold no control character."""
    rows = [f"{name(target, finding.context)}: {clean(finding.summary)}"]
    rows += [f"{clean(e.ref)}: {clean(e.text)[:_QUOTED]}" for e in finding.evidence[:4]]
    rows += [f"Fix: {clean(fix.summary)}" for fix in finding.fixes[:3]]
    return "\n".join(rows)


#: Characters of one quotation.
_QUOTED = 400
