"""The page of an audit for a terminal: what is down, what will break next, the GPUs between, the versions.

A workload is one line and its cause another; the whole of each is what `wide` shows below the page, and the other formats.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from kubectl_llmdoctor.report import text, words
from kubectl_llmdoctor.report.behind import lead_of, one_fix, together
from kubectl_llmdoctor.report.document import (
    Capacity,
    Cluster,
    EngineVersion,
    Finding,
    GpuNode,
    Holder,
    Report,
    Target,
)
from kubectl_llmdoctor.report.text_layout import GAP, Page, clean, columns, shorten, wrap

#: Rows of one section; `wide` shows all.
_MOST = 20
_MOST_HOLDERS = 5
_MOST_NAMES = 4
#: Workloads that are named beside the first of which the same is said.
_MOST_ALIKE = 6
#: Columns of a status, which may quote a whole error: what depends on the workload stands behind it.
_STATUS = 60

_DOWN = ("cause-found", "undetermined")


def render(
    report: Report, *, width: int = 80, color: bool = False, wide: bool = False, source: str | None = None
) -> str:
    """The page as text that ends in a line break; `source` is the file or folder that was read in place of a cluster."""
    page = Page(width, color=color, wide=wide)
    down = [target for target in report.targets if target.verdict in _DOWN]
    risky = [target for target in report.targets if target.verdict == "at-risk"]
    _summary(page, report, down, risky)
    _nodes(page, report.cluster.findings)
    _targets(page, "DOWN NOW", "red", down)
    if down and not wide:
        same = " from the same input" if source == "-" else ""
        page.prose("", f"in full{same} (all of them: -o wide):", style="dim")
        page.line(("  " + _command(down[0], source), "dim"))
    _targets(page, "NEXT", "yellow", risky)
    _capacity(page, report)
    _versions(page, report.cluster.engines)
    _comparison(page, report)
    _not_seen(page, report)
    if wide:
        page.gap()
        # what stands above is not said again
        rest = msgspec.structs.replace(report, cluster=Cluster(findings=report.cluster.findings), not_read=())
        return page.text() + "\n" + text.render(rest, width=width, color=color, wide=True)
    return page.text()


def _summary(page: Page, report: Report, down: Sequence[Target], risky: Sequence[Target]) -> None:
    fine = len(report.targets) - len(down) - len(risky)
    workloads = words.number(len(report.targets), "LLM or GPU workload")
    gpus = sum(row.total for row in report.cluster.capacity)
    free = sum(row.free for row in report.cluster.capacity)
    lost = sum(count for row in report.cluster.capacity for count in row.stranded.values())
    page.flow(
        (workloads, "bold"),
        (f"{len(down)} down", "red" if down else ""),
        (f"{len(risky)} at risk", "yellow" if risky else ""),
        (f"{fine} fine", "green" if fine else ""),
        (
            f"{words.number(gpus, 'GPU')}, {free} free" + (f" ({lost} of them not usable)" if lost else "")
            if gpus
            else "",
            "",
        ),
        (f"{words.number(len(report.not_read), 'source')} not read" if report.not_read else "", "yellow"),
    )


def _targets(page: Page, label: str, tone: str, targets: Sequence[Target]) -> None:
    """Each target with the finding that stands for it; those of which the same is said, together."""
    if targets:
        page.gap()
    groups = together(targets)
    for same in page.first(groups, _MOST):
        target = same[0]
        about = [f"{len(target.pods)} pods" if len(target.pods) > 1 else "", shorten(target.status, _STATUS)]
        head = ", ".join(filter(None, (_name(target), *about, target.impact)))
        page.prose(label, head, page.limit(2), tone, "bold")
        label = ""
        _others(page, same[1:])
        lead = lead_of(target)
        if lead is None:
            continue
        _finding(page, lead, same)
        others = ", ".join(f.id for f in [f for f in target.findings if f.role == lead.role][1:4])
        if others and not page.wide:
            page.beside("", "", (shorten(f"  also: {others}", page.inner), "dim"))
    _cut(page, len(targets), sum(map(len, groups[:_MOST])))


def _others(page: Page, targets: Sequence[Target]) -> None:
    """The further workloads of which the same is said."""
    shown = [words.path(target) for target in page.first(targets, _MOST_ALIKE)]
    if shown:
        pods = sum(len(target.pods) for target in targets)
        size = f" ({pods} pods)" if pods > len(targets) else ""
        rest = f" and {len(targets) - len(shown)} more" if len(targets) > len(shown) else ""
        page.prose("", f"and {words.number(len(targets), 'other')} alike{size}: {', '.join(shown)}{rest}", style="bold")


def _command(target: Target, source: str | None) -> str:
    """What explains a target alone, with its evidence and the commands of its fix."""
    from shlex import quote

    kind, _, name = (target.workload or f"{target.kind}/{target.name}").partition("/")
    within = f" -n {quote(clean(target.namespace))}" if target.namespace else ""
    where = f" --from {quote(clean(source))}" if source else ""
    if target.context:
        where = f" --context {quote(clean(target.context))}"
    return f"kubectl llmdoctor diagnose{where} {quote(clean(f'{kind.lower()}/{name}'))}{within}"


def _name(target: Target) -> str:
    """`eu: serving/llama (Deployment)`."""
    return words.within(target.context, f"{words.path(target)} ({(target.workload or target.kind).partition('/')[0]})")


def _finding(page: Page, finding: Finding, same: Sequence[Target]) -> None:
    """What is wrong with a target, or with several, and what to do."""
    sure = f"{finding.id}, {finding.confidence}" if finding.role != "symptom" else f"{finding.id}, no cause found"
    _stated(page, "", f"  {finding.summary or finding.title}", sure)
    for fix in finding.fixes[:1]:
        page.prose(
            "", f"  {'fix' if one_fix(same) else 'fix, of each alike'}: {fix.summary}", page.limit(4), style="green"
        )


def _stated(page: Page, label: str, text: str, id: str, tone: str = "") -> None:
    """A statement with its id behind it, which stays where the statement is cut: `explain` asks for it."""
    whole, limit = f"{text} ({id})", page.limit(4)
    if not limit or len(wrap(whole, page.inner)) <= limit:
        page.prose(label, whole, limit, tone)
        return
    page.prose(label, text, limit, tone)
    page.prose("", f"  ({id})")


def _nodes(page: Page, findings: Sequence[Finding]) -> None:
    shown = [finding for finding in findings if page.wide or finding.role != "note"]
    if shown:
        page.gap()
    label = "NODES"
    for finding in shown:
        tone = "red" if finding.role == "cause" else "yellow"
        _stated(page, label, words.within(finding.context, finding.summary), finding.id, tone)
        label = ""
        for fix in finding.fixes[:1]:
            page.prose("", f"  fix: {fix.summary}", page.limit(4), style="green")


def _capacity(page: Page, report: Report) -> None:
    """A table of products; below each what is stranded, and who holds most."""
    rows = report.cluster.capacity
    if not rows:
        return
    page.gap()
    heads = ("product", "nodes", "GPUs", "used", "free", "nodes x free")
    table = [heads, *(tuple(map(clean, _cells(row))) for row in rows)]
    widths = [max(columns(line[n]) for line in table) for n in range(len(heads) - 1)]
    label = "CAPACITY"
    for number, line in enumerate(table):
        cells = [_padded(cell, size, left=n == 0) for n, (cell, size) in enumerate(zip(line, widths, strict=False))]
        page.beside(label, "bold", (GAP.join((*cells, line[-1])), "dim" if number == 0 else ""))
        label = ""
        if number:
            for remark in _remarks(rows[number - 1], page.wide):
                page.prose("", f"  {remark}", page.limit(2), style="dim")
    stranded = [node for node in report.cluster.nodes if node.stranded]
    if stranded:
        page.list("STRANDED", (_stranded(node) for node in page.first(stranded, _MOST_NAMES)))
        _cut(page, len(stranded), _MOST_NAMES)


def _cells(row: Capacity) -> Iterator[str]:
    yield words.within(row.context, row.product)
    yield str(row.nodes)
    yield str(row.total)
    yield str(row.allocated)
    yield str(row.free)
    yield ", ".join(f"{count}x{size}" for size, count in reversed(row.chunks.items()))


def _remarks(row: Capacity, wide: bool) -> Iterator[str]:
    if row.product != row.resource and not row.resource.endswith("/gpu"):
        yield f"offered as {row.resource}"
    if row.allocatable < row.total:
        yield f"{row.total - row.allocatable} not offered by their nodes"
    if row.stranded:
        yield "free but not usable: " + ", ".join(f"{count} ({why})" for why, count in row.stranded.items())
    if row.idle:
        yield f"{row.idle} held, and nothing runs on them"
    holders = row.holders if wide else row.holders[:_MOST_HOLDERS]
    if holders:
        rest = len(row.holders) - len(holders)
        yield "held by " + ", ".join(map(_holder, holders)) + (f" and {rest} more" if rest else "")


def _holder(holder: Holder) -> str:
    idle = f", {holder.idle} idle" if holder.idle else ""
    return f"{holder.namespace}/{holder.workload.rpartition('/')[2]} ({holder.devices}{idle})"


def _stranded(node: GpuNode) -> str:
    count = sum(node.reasons.values()) or node.free
    return words.within(node.context, f"{node.name}: {count} of {node.free} free {node.product}: {node.stranded}")


def _padded(cell: str, size: int, *, left: bool) -> str:
    padding = " " * (size - columns(cell))
    return cell + padding if left else padding + cell


def _versions(page: Page, rows: Sequence[EngineVersion]) -> None:
    if rows:
        page.gap()
    page.list("ENGINES", (_version(row, page.wide) for row in rows))
    if not page.wide and any(row.vulnerabilities for row in rows):
        page.prose("", "which advisories: -o wide", style="dim")


def _version(row: EngineVersion, wide: bool) -> str:
    count = f"{len(row.workloads)} workload{'s' * (len(row.workloads) != 1)}"
    ids = row.vulnerabilities
    known = f", {len(ids)} advisor{'ies' if len(ids) != 1 else 'y'}" if ids else ""
    return f"{words.engine(row.name)} {row.version or '(version unknown)'}: {count}{known}" + (
        f" ({', '.join(ids)})" if wide and ids else ""
    )


def _comparison(page: Page, report: Report) -> None:
    found = report.comparison
    if found is None:
        return
    page.gap()
    since = f" since {found.taken_at}" if found.taken_at else ""
    counts = f"{len(found.new)} new, {len(found.fixed)} fixed, {found.unchanged} unchanged{since}"
    page.prose("COMPARED", counts)
    for word, style, rows in (("new", "red", found.new), ("fixed", "green", found.fixed)):
        for row in page.first(rows, _MOST):
            page.beside("", "", (shorten(f"  {word}: {row.target}: {row.id} ({row.role})", page.inner), style))
        _cut(page, len(rows))


def _not_seen(page: Page, report: Report) -> None:
    by_reason: dict[str, list[str]] = {}
    for row in report.not_read:
        by_reason.setdefault(row.reason, []).append(f"{words.SOURCES.get(row.source, row.source)} {row.ref}".strip())
    if by_reason or report.broken:
        page.gap()

    def lines() -> Iterator[str]:
        for reason, sources in by_reason.items():
            shown = page.first(sources, _MOST_NAMES)
            more = f" and {len(sources) - len(shown)} more" if len(sources) > len(shown) else ""
            yield f"{', '.join(shown)}{more}: {reason}"
        yield from words.not_run((item.id, item.reason) for item in report.broken)
        if any(words.forbidden(row.reason) for row in report.not_read):
            yield "kubectl llmdoctor access   shows what you may read"

    page.list("NOT SEEN", lines())


def _cut(page: Page, count: int, most: int = _MOST) -> None:
    if not page.wide and count > most:
        page.beside("", "", (f"  and {count - most} more: -o wide, or -o json", "dim"))
