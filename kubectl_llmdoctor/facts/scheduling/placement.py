"""The nodes grouped by verdict: the table of the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from kubectl_llmdoctor.facts.accelerator import is_accelerator
from kubectl_llmdoctor.facts.scheduling.pending import Pending
from kubectl_llmdoctor.facts.scheduling.verdict import NodeVerdict, Reason, say_amount
from kubectl_llmdoctor.report.document import Placement

#: Groups of nodes that a report shows one by one; the rest is its last line.
_MOST_GROUPS = 8


def placement(pending: Pending) -> tuple[Placement, ...]:
    """The nodes grouped by verdict, the most promising first: what would have to change to place the pod there."""
    groups: dict[tuple[Any, ...], list[NodeVerdict]] = {}
    for verdict in pending.verdicts:
        open_ = () if verdict.reasons else verdict.gaps
        groups.setdefault((verdict.fits, *open_, *map(_alike, verdict.reasons)), []).append(verdict)
    ordered = sorted(groups.values(), key=lambda group: _promise(pending, group[0]))
    shown = [
        Placement(
            nodes=_names(group),
            fits=group[0].fits is True,
            devices="; ".join(_devices(pending, group)),
            reasons=tuple(_said_of(pending, group)),
        )
        for group in ordered[:_MOST_GROUPS]
    ]
    rest = [verdict for group in ordered[_MOST_GROUPS:] for verdict in group]
    if rest:
        texts = Counter(r.text for v in rest for r in v.first)
        reasons = tuple(f"{number} {text}" for text, number in sorted(texts.items()))
        shown.append(Placement(nodes=_names(rest), fits=any(v.fits for v in rest), reasons=reasons))
    return tuple(shown)


def _names(verdicts: list[NodeVerdict]) -> tuple[str, ...]:
    return tuple(sorted(v.node.name for v in verdicts))


def _alike(reason: Reason) -> tuple[str, ...]:
    """What makes two reasons one line of the table: the same words and the same names, whatever the numbers."""
    names = tuple(m.demand for m in reason.mismatches)
    never = reason.allocatable is not None and reason.asked > reason.allocatable
    return (reason.text, reason.detail if reason.taint else "", str(never), *names)


def _promise(pending: Pending, verdict: NodeVerdict) -> tuple[bool, bool, bool, int, str]:
    offers = all(verdict.node.offers(r) != 0 for r in pending.accelerators)
    return (
        verdict.fits is not True,
        not offers,
        verdict.node.control_plane and not offers,
        len(verdict.reasons),
        verdict.node.name,
    )


def _devices(pending: Pending, group: list[NodeVerdict]) -> Iterator[str]:
    """The accelerators of a group of nodes, free and in all: `0 of 8 NVIDIA-L4 free`."""
    names = dict.fromkeys(name for v in group for name, amount in v.node.accelerators.items() if amount)
    for resource in [name for name in pending.accelerators if name in names] or names:
        having = [v.node for v in group if v.node.offers(resource)]
        totals = [node.offers(resource) or 0 for node in having]
        frees = [
            max(total - pending.usage.used(node.name).get(resource, 0), 0)
            for node, total in zip(having, totals, strict=True)
        ]
        products = sorted({node.product for node in having} - {""})
        what = " or ".join(products[:2]) + (" …" if len(products) > 2 else "") if products else resource
        yield f"{_span(frees)} of {_span(totals)} {what} free"


def _span(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _said_of(pending: Pending, group: list[NodeVerdict]) -> Iterator[str]:
    first = group[0]
    for at, reason in enumerate(first.reasons):
        others = [v.reasons[at] for v in group]
        device = is_accelerator(reason.resource)
        if reason.kind != "resource" or reason.allocatable == 0 or (len(group) == 1 and not device):
            yield _detail(others)
            continue
        # how many devices are free stands before the reasons
        name = "" if device and len(pending.accelerators) == 1 else f"{reason.resource}: "
        said = f"{name}{say_amount(reason.resource, reason.asked)} asked"
        if not device:
            frees = sorted({r.free or 0 for r in others})
            ends = [say_amount(reason.resource, amount) for amount in (frees[0], frees[-1])]
            said += f", {' to '.join(dict.fromkeys(ends))} free"
        yield said
    if first.fits is None:
        rest = "; ".join(f"{gap.plugin} not judged ({gap.why})" for gap in first.gaps)
        # the scheduler itself may have refused all of them
        refused = pending.said.total is not None and pending.said.total == len(pending.verdicts)
        said = "refused by the scheduler" if refused else "nothing known stops it"
        yield f"{said}; {rest}" if rest else said


def _detail(reasons: list[Reason]) -> str:
    """A reason of a group of nodes: with its values where they are the same on all."""
    if len({r.detail for r in reasons}) == 1:
        return reasons[0].detail
    return "; ".join(dict.fromkeys(m.demand for m in reasons[0].mismatches)) or reasons[0].text.removeprefix("node(s) ")
