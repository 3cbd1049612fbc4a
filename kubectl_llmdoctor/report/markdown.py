"""The report as Markdown for a ticket or an incident channel: the cause, the quotations, the command to paste.

It uses only what GitHub, GitLab, Jira and Slack all show: headings, bold, lists, code. No tables and no HTML, so nothing
has to be unfolded either. What a stranger wrote stands in code or is escaped: it makes no markup, mentions nobody, and
links nowhere. The length is bounded: targets that do not fit become one line each, and what is left out is counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from kubectl_llmdoctor.report import words
from kubectl_llmdoctor.report.behind import Behind, behind, one_fix, together
from kubectl_llmdoctor.report.document import ROLES, Change, Changed, Comparison, Evidence, Finding, Fix, Report, Target
from kubectl_llmdoctor.report.text_layout import clean, shorten

#: Characters of the document: what Slack takes in one `markdown` block; GitHub takes 65,536, Jira 32,767.
MOST = 12_000
#: of them kept for what stands below the targets
_BELOW = 3_000

#: Workloads that are written in full.
_IN_FULL = 5
#: Of those of which the same is said, named beside the first.
_NAMED = 10

_QUOTED, _COMMAND, _PROSE = 700, 1500, 600

_WORD_JOINER = "\u2060"
_REFERENCES = r"@(?=\w)|#(?=\d)|\bGH-(?=\d)|:(?=//)|\bwww(?=\.)"


def render(report: Report) -> bytes:
    """UTF-8 with a final newline; at most `MOST` characters."""
    below = list(_below(report))
    blocks = [*_targets(report), *below]
    text = "\n\n".join(block for block in blocks if block)
    if len(text) > MOST - 1:  # names may be of any length
        text = _cut(text)
    return (text.rstrip() + "\n").encode()


def _cut(text: str) -> str:
    """The start of a document, no fence left open."""
    end = text.rfind("\n\n", 0, MOST - 200)
    head = text[: max(end, 0)]
    open_fence = ""
    for line in head.split("\n"):
        fence = re.match(r"`{3,}", line)
        if fence and (not open_fence or line == open_fence):
            open_fence = "" if open_fence else fence[0]
    closing = f"\n{open_fence}" if open_fence else ""
    return f"{head}{closing}\n\nThe rest does not fit here: `-o text`."


def _targets(report: Report) -> Iterator[str]:
    """The headline and the targets: the first in full, then a line each while there is room, then a number."""
    targets = report.targets
    verdicts = [t.verdict for t in targets]
    counts = [f"{verdicts.count(v)} {word}" for v, word in words.VERDICTS.items() if v in verdicts]
    if len(targets) > 1:
        yield f"**{len(targets)} workloads: {', '.join(counts)}**"
    if not targets:
        yield "Nothing to report: no target was found."
    ill = [t for t in targets if t.verdict != "healthy"]
    if len(ill) > _IN_FULL:
        yield _list("Behind it", map(_behind, behind(ill)), 10)
    cluster = _cluster(report)
    yield cluster
    used, brief = len(cluster), list[str]()
    for number, (target, *alike) in enumerate(together(targets)):
        if target.verdict != "healthy" and not brief and number < _IN_FULL:
            parts = [*_target(target, report.taken_at), _alike(target, alike)]
            block = "\n\n".join(part for part in parts if part)
            if used + len(block) <= MOST - _BELOW:
                used += len(block)
                yield block
                continue
        brief += map(_line, (target, *alike))
    shown, heading = list[str](), "## The others\n\n" if used else ""
    for line in brief:
        used += len(line)
        if used > MOST - _BELOW:
            break
        shown.append(line)
    if len(shown) < len(brief):
        shown.append(f"- {len(brief) - len(shown)} more: `-o text`")
    if shown:
        yield heading + "\n".join(shown)


def _alike(first: Target, targets: Sequence[Target]) -> str:
    """The further targets of which the same is said, beside the first."""
    if not targets:
        return ""
    rest = f" and {len(targets) - _NAMED} more" if len(targets) > _NAMED else ""
    names = ", ".join(code(shorten(words.name(target), 80)) for target in targets[:_NAMED])
    each = "" if one_fix((first, *targets)) else ", each with a fix of its own"
    return f"**The same holds for {words.number(len(targets), 'other')}{each}:** {names}{rest}"


def _cluster(report: Report) -> str:
    """What was found about the cluster itself."""
    listed = [f for f in report.cluster.findings if f.role != "note"]
    if not listed:
        return ""
    # as a target, so that one function writes all findings
    cluster = Target(api_version="", kind="", namespace="", name="cluster", verdict="at-risk")
    blocks = ["## Cluster"]
    for finding in listed[:2]:
        blocks += _finding(cluster, finding, words.within(finding.context, finding.role.capitalize()))
    blocks.append(_list("Also of the cluster", (words.within(prose(f.context), _brief(f)) for f in listed[2:])))
    return "\n\n".join(filter(None, blocks))


def _behind(found: Behind) -> str:
    counts = ((found.failing, "failing"), (found.at_risk, "at risk"))
    said = ", ".join(f"{len(targets)} {word}" for targets, word in counts if targets)
    return f"{prose(found.finding.title, 120)} ({code(found.finding.id)}): {said}"


def _line(target: Target) -> str:
    """A target that is fine, or for which there is no room."""
    first = next((f for f in target.findings if f.role in ("cause", "symptom", "risk")), None)
    said = f"{prose(first.title)} ({code(first.id)})" if first and target.verdict != "healthy" else ""
    state = prose(target.impact or target.status, 100) if not said else ""
    parts = [words.verdict(target), said or state]
    return f"- {code(words.name(target))}: {', '.join(filter(None, parts))}"


def _target(target: Target, taken_at: str | None) -> Iterator[str]:
    yield f"## {code(words.name(target))}: {words.verdict(target)}"
    state = (words.about(target), target.status, target.impact)
    yield " · ".join(prose(text, 200) for text in state if text)
    causes, symptoms, risks, _ = map(target.having, ROLES)
    for cause in causes[:3]:
        yield from _finding(target, cause, "Cause")
    if len(causes) > 3:
        yield _list("", (_brief(f) for f in causes[3:]))
    if target.verdict == "undetermined":
        yield "**Cause not determined** by what was read. What it shows:"
        for symptom in symptoms[:3]:
            yield from _finding(target, symptom, "Symptom")
    explained = {id for cause in causes for id in cause.explains}
    titles = words.titles(target)
    if explained:
        ids = dict.fromkeys(id for cause in causes for id in cause.explains)
        yield f"**Explains:** {'; '.join(prose(titles.get(id, id), 120) for id in ids)}"
    if target.verdict != "undetermined":
        yield _list("Also seen", (_brief(f) for f in symptoms if f.id not in explained))
    if target.verdict == "at-risk":
        for risk in risks[:2]:
            yield from _finding(target, risk, "Risk")
        risks = risks[2:]
    yield _list("Risks", map(_brief, risks))
    yield _list("Changed before", (_change(change, taken_at) for change in target.changes[-5:]))
    if target.placement:
        fitting, total = (
            sum(len(g.nodes) for g in some) for some in ([g for g in target.placement if g.fits], target.placement)
        )
        rows = [
            f"{words.nodes(len(g.nodes))} ({_names(g.nodes)}): {prose('; '.join((g.devices, *g.reasons)).strip('; ')) or 'fits'}"
            for g in target.placement
        ]
        yield _list(f"{fitting} of {words.nodes(total)} fit{'s' * (1 in (fitting, total))}", rows)
    if target.next_steps:
        yield "**Next:**"
    for step in target.next_steps[:5]:
        yield _commands([step]) if step.startswith("kubectl ") else prose(step)


def _finding(target: Target, finding: Finding, label: str) -> Iterator[str]:
    """What is wrong, how sure, the quotations, and what to do."""
    sure = ", ".join((code(finding.id), finding.confidence, finding.severity))
    yield f"**{prose(label, 80)}: {prose(finding.title or finding.id, 200)}** ({sure})"
    if finding.summary != finding.title:
        yield prose(finding.summary)
    quoted = finding.evidence[: 3 if finding.role == "cause" else 1]
    for evidence in quoted:
        yield _evidence(evidence, target)
    if len(finding.evidence) > len(quoted) and finding.role == "cause":
        yield f"… {len(finding.evidence) - len(quoted)} more quotations: `-o wide`"
    yield from _fixes(target, finding.fixes)


def _evidence(evidence: Evidence, target: Target) -> str:
    place = words.place(evidence, target)
    return f"{words.kind(evidence)}{f' {code(place)}' if place else ''}:\n{fence(evidence.text, _QUOTED)}"


def _fixes(target: Target, fixes: Sequence[Fix]) -> Iterator[str]:
    for number, fix in enumerate(fixes[:3]):
        label = "**Or:**" if number else "**Fix:**"
        yield f"{label} {prose(words.owned(fix.summary, fix.owner))}"
        if fix.verified:
            yield prose(words.verified(fix.verified))
        if not number:
            yield _commands(words.commands(fix, target))


def _commands(commands: Sequence[str]) -> str:
    """All commands in one block; one that would be cut is not shown, since half a command is none."""
    rows = [c for c in commands if len(c) <= _COMMAND]
    if not rows:
        return "The command is too long for this place: `-o text`." if commands else ""
    # without a language, which Slack would show as the first word of the command
    return fence("\n".join(rows), _COMMAND * 2)


def _brief(finding: Finding) -> str:
    severity = ", critical" if finding.severity == "critical" else ""
    return f"{prose(finding.summary or finding.title, 300)} ({code(finding.id)}{severity})"


def _change(change: Change, taken_at: str | None) -> str:
    said = ": ".join(filter(None, (change.what, change.text)))
    return f"{prose(words.when(change.at, taken_at))}: {prose(said, 300)}"


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(code(shorten(name, 60)) for name in names[:2])
    return f"{shown}, …" if len(names) > 2 else shown


def _list(title: str, rows: Iterable[str], most: int = 8) -> str:
    """A bold title and its rows; empty without rows."""
    listed = list(rows)
    if not listed:
        return ""
    shown = [f"- {row}" for row in listed[:most]]
    if len(listed) > most:
        shown.append(f"- … {len(listed) - most} more")
    return "\n".join(([f"**{title}:**", ""] if title else []) + shown)


# -- below the targets ------------------------------------------------------------------------------------------------


def _below(report: Report) -> Iterator[str]:
    if report.comparison:
        yield from _comparison(report.comparison)
    cluster = report.cluster
    yield _list("GPU capacity", (prose(words.capacity(row), 300) for row in cluster.capacity))
    vulnerable = [e for e in cluster.engines if e.vulnerabilities]
    rows = []
    for engine in vulnerable:
        which = f"{words.engine(engine.name)} {engine.version or ''}".strip()
        listed = ", ".join(code(id) for id in engine.vulnerabilities[:5])
        rows.append(f"{prose(which, 80)} ({words.number(len(engine.workloads), 'workload')}): {listed}")
    yield _list("Known vulnerabilities", rows)
    yield _list("Not seen", _not_seen(report))
    when = f"As of {prose(report.taken_at, 40)}, by" if report.taken_at else "By"
    yield f"{when} kubectl-llmdoctor {prose(report.tool_version, 40)}"


def _comparison(comparison: Comparison) -> Iterator[str]:
    since = f" since {prose(comparison.taken_at)}" if comparison.taken_at else ""
    new, fixed = len(comparison.new), len(comparison.fixed)
    yield f"**Compared{since}:** {new} new, {fixed} fixed, {comparison.unchanged} unchanged"
    yield _list("New", map(_changed, comparison.new), 5)
    yield _list("Fixed", map(_changed, comparison.fixed), 5)


def _changed(item: Changed) -> str:
    return f"{code(shorten(item.target, 100))}: {prose(item.summary or item.id, 160)} ({code(item.id)})"


def _not_seen(report: Report) -> Iterator[str]:
    by_reason: dict[str, list[str]] = {}
    for item in report.not_read:
        by_reason.setdefault(words.gist(item.reason), []).append(words.SOURCES.get(item.source, item.source))
    for why, sources in by_reason.items():
        yield f"{prose(words.counted(sources), 200)}: {prose(why)}"
    unjudged = dict.fromkeys((n.id, n.reason) for t in report.targets for n in t.not_checked)
    if unjudged:
        why = words.gists([reason for _, reason in unjudged])
        yield f"{words.number(len(unjudged), 'check')} not run: {prose(why, 300)}"


# -- text that makes no markup ----------------------------------------------------------------------------------------


def prose(text: str, most: int = _PROSE) -> str:
    """One line of at most `most` columns that reads as written: no markup, no mention, no reference, no link."""
    # @team, #42, GH-42, ://, www.: platforms look for these in the text that is shown, where escapes do not help
    text = re.sub(_REFERENCES, rf"\g<0>{_WORD_JOINER}", shorten(text, most), flags=re.IGNORECASE)
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])|[\\`*\[\]<>|~$]", r"\\\g<0>", text)
    text = re.sub(r"&(?=#?\w+;)", r"\\&", text)
    # what starts a heading, a list, or a rule
    return re.sub(r"^(\d*)([.)](?=\s|$)|(?<!\d)[#+=-])", r"\1\\\2", text)


def code(text: str) -> str:
    """A code span; its fence is longer than any run of backticks inside. Empty for an empty text."""
    text = clean(text).strip()
    if not text:
        return ""
    ticks = _ticks(text, 1)
    pad = " " if text[0] == "`" or text[-1] == "`" else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def fence(text: str, most: int) -> str:
    """A code block of at most `most` characters, cut at the end; its fence is longer than any inside."""
    rows = [clean(row).rstrip() for row in text.replace("\r\n", "\n").strip("\n").split("\n")]
    body = "\n".join(rows)
    if len(body) > most:
        body = body[:most].rstrip() + " …"
    ticks = _ticks(body, 3)
    return f"{ticks}\n{body}\n{ticks}"


def _ticks(text: str, least: int) -> str:
    return "`" * max(least, *(len(run) + 1 for run in re.findall("`+", text)), 0)
