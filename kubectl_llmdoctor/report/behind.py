"""What is behind how many workloads: the findings of a report, each once, with the targets that have it.

Where the very same is said of several targets, such as a ConfigMap that all of them name, or a node that they were on, it
is said once for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence

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
        causes = target.having("cause")
        if not causes and target.verdict == "undetermined":
            causes = target.having("symptom")[:1]
        shown = causes or target.having("risk")
        for id, finding in {f.id: f for f in reversed(shown)}.items():
            entry = found.setdefault(id, Behind(finding, [], []))
            (entry.failing if causes else entry.at_risk).append(target)
    return sorted(found.values(), key=lambda b: (-len(b.failing), -len(b.at_risk), b.finding.id))


def together(targets: Sequence[Target]) -> list[list[Target]]:
    """The targets, those of which the same is said beside the first of them."""
    found: dict[Hashable, list[Target]] = {}
    for number, target in enumerate(targets):
        said = statement(target)
        found.setdefault(number if said is None else said, []).append(target)
    return list(found.values())


def statement(target: Target) -> Hashable:
    """What is said of it first, without its own names; None where nothing is wrong with it."""
    lead = lead_of(target)
    if lead is None:
        return None
    return target.context, target.verdict, lead.role, lead.id, without_names(lead.summary or lead.title, target)


def lead_of(target: Target) -> Finding | None:
    """The finding that stands for a target: its cause, else what it shows, else its risk."""
    if target.verdict == "healthy":
        return None
    return next((f for role in ("cause", "symptom", "risk") for f in target.findings if f.role == role), None)


def one_fix(same: Sequence[Target]) -> bool:
    """Whether the first fix of the first of these targets is that of all: what is not the platform's is there once in each namespace."""
    found = set[tuple[str, str]]()
    for target in same:
        lead = lead_of(target)
        for fix in lead.fixes[:1] if lead else ():
            found.add((fix.summary, "" if fix.owner == "platform" else target.namespace))
    return len(found) <= 1


def without_names(text: str, target: Target) -> str:
    """A text about a target that says the same of another one."""
    names = sorted({target.name, target.workload.rpartition("/")[2], *target.pods} - {""}, key=len, reverse=True)
    return re.sub(rf"(?<![\w.-])(?:{'|'.join(map(re.escape, names))})(?![\w-])", "\0", text) if names else text
