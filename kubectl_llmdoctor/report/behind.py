"""What is behind how many workloads: the findings of a report, each once, with the targets that have it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from kubectl_llmdoctor.report.document import Finding, Target


class Behind(msgspec.Struct, frozen=True):
    """A finding in the words of the first target that has it, the targets that fail by it, and those at risk."""

    finding: Finding
    failing: list[Target]
    at_risk: list[Target]


def behind(targets: Sequence[Target]) -> list[Behind]:
    """The most failing workloads first; of a target its causes, else what it shows most, else its risks."""
    found: dict[str, Behind] = {}
    for target in targets:
        causes = [f for f in target.findings if f.role == "cause"]
        if not causes and target.verdict == "undetermined":
            causes = [f for f in target.findings if f.role == "symptom"][:1]
        shown = causes or [f for f in target.findings if f.role == "risk"]
        for id, finding in {f.id: f for f in reversed(shown)}.items():
            entry = found.setdefault(id, Behind(finding, [], []))
            (entry.failing if causes else entry.at_risk).append(target)
    return sorted(found.values(), key=lambda b: (-len(b.failing), -len(b.at_risk), b.finding.id))
