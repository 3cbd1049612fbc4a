"""Our side of a pair, and whether it says the same as the real scheduler."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from kubectl_llmdoctor.api import Pending, parse
from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.snapshot import ReadList, Snapshot, TargetRef
from kubectl_llmdoctor.target import subjects

from .arena import LISTS, Outcome


@dataclass
class Comparison:
    """One pair: `agrees`, `differs` with what differs, or `not judged` with the filters that were not."""

    what: str
    why: str = ""
    theirs: Counter[str] = field(default_factory=Counter)
    ours: Counter[str] = field(default_factory=Counter)


def snapshot_of(outcome: Outcome) -> Snapshot:
    """The cluster as the scheduler met it, with the pod, as complete lists."""
    metadata = outcome.pod["metadata"]
    return Snapshot(
        taken_at=metadata["creationTimestamp"],
        target=TargetRef(kind="Pod", name=metadata["name"], namespace=metadata["namespace"], api_version="v1"),
        objects=(*outcome.objects, outcome.pod),
        read=tuple(ReadList(kind=kind) for kind in LISTS),
    )


def pending_of(snapshot: Snapshot) -> Pending:
    """The pod of the snapshot, waiting."""
    cluster = Cluster(snapshot)
    (subject,) = subjects(cluster)
    return Pending(subject.pods[0], subject)


def compare(outcome: Outcome) -> Comparison:
    """Whether our filters and the scheduler agree on the pod."""
    pending = pending_of(snapshot_of(outcome))
    verdicts = pending.verdicts
    feasible = {v.node.name for v in verdicts if v.fits is True}
    unsure = {v.node.name for v in verdicts if v.fits is None}
    ours = Counter(text for v in verdicts if v.reasons for text in {r.text for r in v.first})
    found = Comparison("agrees", ours=ours)
    gaps = {f"{gap.plugin}: {gap.why}" for v in verdicts for gap in v.gaps}
    why = "; ".join(sorted(gaps)[:3]) or ", ".join(pending.unjudged) or "nothing named"
    if outcome.what == "bound":
        if outcome.node in unsure:
            found.what, found.why = "not judged", why
        elif outcome.node not in feasible:
            refusal = [r.text for v in verdicts if v.node.name == outcome.node for r in v.first]
            found.what, found.why = "differs", f"bound to a node that we refuse: {refusal}"
        return found
    if outcome.what == "unschedulable":
        said = parse(outcome.message)
        found.theirs = Counter()
        for count in said.all:
            found.theirs[count.text] = count.number  # of several counts from one text the number is the same
        if feasible:
            found.what, found.why = "differs", f"fits nowhere, but we say {sorted(feasible)[:3]}"
        elif unsure:
            found.what, found.why = "not judged", why
        elif found.theirs != ours:
            found.what, found.why = ("not judged", why) if gaps else ("differs", "another histogram")
        return found
    if outcome.what == "gated":
        if not pending.gates:
            found.what, found.why = "differs", "gated, but we see no gate"
        return found
    # Nothing was said, or an error: no node may be promised.
    if feasible:
        found.what, found.why = "differs", f"{outcome.what} ({outcome.message}), but we say {sorted(feasible)[:3]}"
    return found
