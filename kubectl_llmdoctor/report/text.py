"""The report for a terminal: the cause first, the evidence word for word, the fix ready to paste.

Everything reads the same without colour and at 80 columns. The common case fits one screen: long lists and long
quotations are cut, and say so; `wide` shows everything.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.report import words
from kubectl_llmdoctor.report.document import (
    ROLES,
    Change,
    Evidence,
    Finding,
    Fix,
    Placement,
    Report,
    Suppressed,
    Target,
    Verdict,
)
from kubectl_llmdoctor.report.text_layout import GAP, MARGIN, Page, clean, columns, cut, shorten, wrap
from kubectl_llmdoctor.tree import say_pairs

_TONES: dict[Verdict, str] = {"cause-found": "red", "undetermined": "red", "at-risk": "yellow", "healthy": "green"}
#: sources that many clusters lack: the one line of a healthy pod does not mention them
_OPTIONAL = ("agent", "metrics", "prometheus")
#: so many files that were not read are told by name
_FILES = 3


def render(report: Report, *, width: int = 80, color: bool = False, wide: bool = False) -> str:
    """The report as text that ends in a line break; below 40 columns it is written for 40."""
    page = Page(width, color=color, wide=wide)
    name_columns = min(max((columns(words.name(t)) for t in report.targets if _is_fine(t)), default=0), page.width // 2)
    listing = False
    for target in _told_apart(report.targets):
        # healthy targets stand together as one list
        if not (listing and _is_fine(target)) or wide:
            page.gap()
        listing = _is_fine(target)
        _target(page, target, report.taken_at, name_columns)
    if not report.targets:
        page.line(("Nothing to report: no target was found.", ""))
    _cluster(page, report)
    _not_seen(page, report)
    _decided(page, report)
    if wide and report.taken_at:
        page.gap()
        page.flow((f"taken {report.taken_at} by kubectl-llmdoctor {report.tool_version}", "dim"))
    if len(report.targets) > 1:
        page.gap()
        verdicts = [t.verdict for t in report.targets]
        counts = [
            f"{verdicts.count(v)} {'with ' * word.startswith('cause')}{word}"
            for v, word in words.VERDICTS.items()
            if v in verdicts
        ]
        page.flow((f"{len(verdicts)} targets: {', '.join(counts)}", "bold"))
    return page.text()


def _told_apart(targets: Sequence[Target]) -> list[Target]:
    """The targets; those that share a name, as objects of several environments do, with their files."""
    count: dict[str, int] = {}
    for target in targets:
        count[words.name(target)] = count.get(words.name(target), 0) + 1
    return [replace(t, status=t.file) if count[words.name(t)] > 1 and t.file and not t.status else t for t in targets]


# -- a target ---------------------------------------------------------------------------------------------------------


def _target(page: Page, target: Target, taken_at: str | None, name_columns: int = 0) -> None:
    """The header, what is wrong, and what else is worth saying; only the header of a target that is fine."""
    if _is_fine(target) and not page.wide:
        _one_line(page, target, name_columns)
        return
    causes, symptoms, risks, notes = map(target.having, ROLES)
    page.flow(
        (words.name(target), "bold"),
        (words.verdict(target), _TONES[target.verdict]),
        (words.about(target), ""),
        (target.status, ""),
    )

    explained_last = _causes(page, target, causes)
    if target.verdict == "undetermined":
        page.gap()
        page.prose("CAUSE", "Not determined by what was read." + " What it shows:" * bool(symptoms), tone="red")
    symptoms_in_full = page.wide or target.verdict == "undetermined"
    for symptom in symptoms if symptoms_in_full else ():
        page.gap()
        _finding(page, target, symptom, "SYMPTOM", "yellow")
        if target.verdict == "undetermined" and symptom.fixes:
            page.gap()
            _fixes(page, target, symptom)
    if target.placement:
        page.gap()
        _placement(page, target.placement)

    # short lines that stand together; what the last cause explains is one of them
    if not explained_last or target.placement or page.wide:
        page.gap()
    page.prose("IMPACT", target.impact)
    _changes(page, target.changes, taken_at)
    if not symptoms_in_full:
        explained = {id for cause in causes for id in cause.explains}
        _brief(page, "SYMPTOM", [f for f in symptoms if f.id not in explained])
    _risks(page, target, risks)
    _next_steps(page, target.next_steps)
    if page.wide:
        _all_else(page, target, notes)
        return
    _hidden(page, [item for item in target.suppressed if item.role == "cause"])
    if _more(target):
        page.prose("MORE", f"{_more(target)}: -o wide")


def _causes(page: Page, target: Target, causes: Sequence[Finding]) -> bool:
    """Each with its evidence and fixes, and what it explains; whether the last line says that.

    What an earlier cause quoted, as the scheduler's message, or explains is not told again.
    """
    titles = words.titles(target)
    quoted: set[Evidence] = set()
    advised: set[tuple[frozenset[str], Sequence[str]]] = set()
    told: dict[str, None] = {}
    explained: list[str] = []
    for cause in causes:
        page.gap()
        anew = tuple(row for row in cause.evidence if row not in quoted)
        _finding(page, target, cause if page.wide or not anew else replace(cause, evidence=anew), "CAUSE", "red")
        quoted.update(cause.evidence)
        page.gap()
        steps = _steps(cause)
        as_above = replace(cause.fixes[0], summary="both at once, as above", commands=()) if steps in advised else None
        _fixes(
            page, target, replace(cause, fixes=(as_above, *cause.fixes[1:])) if as_above and not page.wide else cause
        )
        advised.update([steps] if len(steps[0]) > 1 else [])
        page.gap()
        explained = [titles.get(i, i) for i in cause.explains if page.wide or i not in told]
        told.update(dict.fromkeys(cause.explains))
        page.prose("EXPLAINS", "; ".join(explained), page.limit(3))
    return bool(explained)


def _steps(cause: Finding) -> tuple[frozenset[str], Sequence[str]]:
    """What the first fix has done, in any order, and its commands: what two causes of one pod may ask for alike."""
    if not cause.fixes or cause.fixes[0].patch:
        return frozenset(), ()
    fix = cause.fixes[0]
    return frozenset(words.inside(step) for step in fix.summary.split(", and ")), tuple(fix.commands)


def _risks(page: Page, target: Target, risks: Sequence[Finding]) -> None:
    """The first in full where nothing else is wrong, the others in a line each."""
    in_full = page.first(risks, 3 if target.verdict == "at-risk" else 0)
    for risk in in_full:
        page.gap()
        _finding(page, target, risk, "RISK", "yellow")
        _fixes(page, target, risk)
    if in_full:
        page.gap()
    _brief(page, "RISK", risks[len(in_full) :])


def _next_steps(page: Page, steps: Sequence[str]) -> None:
    """What to do where no cause was found: commands that can be copied, and sentences."""
    if not steps:
        return
    page.gap()
    page.prose("NEXT", "Run:" if steps[0].startswith("kubectl ") else steps[0])
    for number, step in enumerate(steps):
        if step.startswith("kubectl "):
            _commands(page, (step,))
        elif number:
            page.prose("", step)
    page.gap()


def _all_else(page: Page, target: Target, notes: Sequence[Finding]) -> None:
    """What only the wide report says: notes, the settings of the engines, what is suppressed."""
    for note in notes:
        page.gap()
        _finding(page, target, note, "NOTE", "bold")
        _fixes(page, target, note)
    page.gap()
    for engine in words.engines(target):
        config = say_pairs(engine.config)
        page.prose("ENGINE", f"container {engine.container}: {config or 'nothing set'}")
    _hidden(page, target.suppressed)


def _hidden(page: Page, suppressed: Sequence[Suppressed]) -> None:
    """Who chose not to see what, and why."""
    for item in suppressed:
        by = f" by {item.where}" if item.where else ""
        page.prose("HIDDEN", f"{item.id}, suppressed{by}: {item.reason}")


def _is_fine(target: Target) -> bool:
    """Whether nothing of it must be read: it is healthy, or all that is wrong is known already."""
    return (target.verdict == "healthy" or bool(target.known)) and all(f.role == "note" for f in target.findings)


def _one_line(page: Page, target: Target, name_columns: int) -> None:
    """A target that is fine: its name and verdict, and of the rest what fits on the line, the state first.

    Where it does not serve yet, or no more, that is its state, and what the notes say of it is worth more than its engine.
    """
    name, word, tone = words.name(target), words.verdict(target), _TONES[target.verdict]
    padding = " " * (name_columns - columns(name)) + GAP
    room = page.width - columns(name + padding + word)
    passing = words.is_under_way(target)
    texts = {"state": target.status if passing else target.impact or target.status}
    further = {"about": words.about(target), "more": _more(target)}
    texts |= dict(reversed(further.items())) if passing else further
    for key, text in texts.items():
        texts[key] = shorten(text, room - len(GAP)) if text and room > 12 else ""
        room -= columns(GAP + texts[key])
    rest = GAP.join(filter(None, (texts["about"], texts["state"])))
    page.line((name, "bold"), (padding, ""), (word, tone), (GAP + rest, ""), (GAP, ""), (texts["more"], "dim"))


def _cluster(page: Page, report: Report) -> None:
    """What holds for the whole cluster, in the form of one more target."""
    if findings := report.cluster.findings:
        roles = {f.role for f in findings}
        verdict: Verdict = "cause-found" if "cause" in roles else "at-risk" if "risk" in roles else "healthy"
        page.gap()
        cluster = Target(api_version="", kind="", namespace="", name="cluster", verdict=verdict, findings=findings)
        _target(page, cluster, report.taken_at)


def _more(target: Target) -> str:
    """What only the wide form shows."""
    notes, hidden = len(target.having("note")), len(target.suppressed)
    fixes = target.verdict == "at-risk" and any(fix.commands or fix.patch for f in target.findings for fix in f.fixes)
    parts = (
        f"{notes} note{'s' * (notes > 1)}" if notes else "",
        f"{hidden} suppressed" if hidden else "",
        f"{len(target.known)} known" if target.known else "",
        "the commands of the fixes" if fixes else "",
    )
    return ", ".join(filter(None, parts))


# -- a finding --------------------------------------------------------------------------------------------------------


def _finding(page: Page, target: Target, finding: Finding, label: str, tone: str) -> None:
    """Title, id and confidence; the summary; the evidence: all of it, or enough of it."""
    title = wrap(finding.title or finding.id, page.inner) or ["unnamed"]
    tag = clean(f"{finding.id}, {finding.confidence}{_urgency(finding)}")
    if finding.pods:
        tag += f", on {_names(finding.pods, 0 if page.wide else 30)}"
    if columns(title[-1]) + len(GAP) + columns(tag) <= page.inner:
        page.block(label, title[:-1], tone, "bold")
        label = "" if title[1:] else label
        page.beside(label, tone, (title[-1], "bold"), (GAP, ""), (tag, "dim"))
    else:
        page.block(label, title, tone, "bold")
        page.prose("", tag, style="dim")
    if finding.summary != finding.title:
        page.prose("", finding.summary, page.limit(6))
    if finding.role == "cause":
        page.gap()
    shown = page.first(finding.evidence, 1 if finding.role == "risk" else 4)
    _evidence(page, target, shown)
    if finding.role != "risk":
        page.more(len(finding.evidence) - len(shown))
    if page.wide:
        page.prose("  docs", finding.docs)


def _urgency(finding: Finding) -> str:
    """A cause is as urgent as its target's state; of a risk it must be said."""
    return ", critical" if finding.role == "risk" and finding.severity == "critical" else ""


def _brief(page: Page, label: str, findings: Sequence[Finding]) -> None:
    """A line each: the summary, with the numbers of this case, if it fits; else the title, which may take two."""
    shown = page.first(findings, 5)
    lines = []
    for finding in shown:
        tag = f" ({clean(finding.id)}{_urgency(finding)})"
        room = max(page.inner - columns(tag), 20)
        summary = " ".join(clean(finding.summary).split()).removesuffix(".")
        fits = summary and columns(summary) <= room
        lines.append((summary if fits else finding.title or shorten(summary, room)) + tag)
    page.list(label, lines, "yellow")
    page.more(len(findings) - len(shown))


def _evidence(page: Page, target: Target, rows: Sequence[Evidence]) -> None:
    """Quotations: beside their place where they need no more lines there, else below it over the whole width."""

    def is_beside(place: str, text: str, place_columns: int) -> bool:
        room = page.inner - place_columns - len(GAP)
        lines = wrap(text, room, 3)
        fits = columns(place) <= place_columns and all(columns(line) <= room for line in lines)
        return fits and len(lines) <= min(2, len(wrap(text, page.inner - 2, 3)))

    placed = [(words.kind(row), words.place(row, target), row.text) for row in rows]
    short = [columns(place) for _, place, _ in placed if columns(place) <= page.inner // 2]
    beside = [is_beside(place, text, max(short, default=0)) for _, place, text in placed]
    widest = max(
        (columns(place) for (_, place, _), is_short in zip(placed, beside, strict=True) if is_short), default=0
    )
    for (kind, place, text), is_short in zip(placed, beside, strict=True):
        if is_short:
            page.row(f"  {kind}", place, widest, text)
        elif not place:
            page.prose(f"  {kind}", text, page.limit(3))
        else:
            page.prose(f"  {kind}", place, style="dim")
            page.block("", (f"  {line}" for line in wrap(text, page.inner - 2, page.limit(3))))


# -- fixes ------------------------------------------------------------------------------------------------------------


def _fixes(page: Page, target: Target, finding: Finding) -> None:
    """The first fix with its commands, the others in a line or two; of a risk only what to do; or everything."""
    shown = page.first(finding.fixes, 1 if finding.role == "risk" else 4)
    label = "  fix" if finding.role in ("risk", "note") else "FIX"
    for number, fix in enumerate(shown):
        text = words.inside(fix.summary)
        if number == 0 or fix.owner != finding.fixes[0].owner:
            text = words.owned(text, fix.owner)
        text = f"or: {text}" if number else words.sentence(text)
        page.prose(label, text, page.limit(4 if number else 12), "green")
        label = ""
        if fix.verified:
            page.prose("", words.verified(fix.verified), page.limit(3))
        if page.wide or (number == 0 and finding.role != "risk"):
            _diff(page, fix)
            _commands(page, words.commands(fix, target))
    if finding.role != "risk":
        page.more(len(finding.fixes) - len(shown))


#: Lines of a patch that are shown.
_MOST_DIFF = 6


def _diff(page: Page, fix: Fix) -> None:
    """What a patch takes away and puts in."""
    rows = fix.patch.diff if fix.patch else ()
    shown = page.first(rows, _MOST_DIFF)
    for row in shown:
        text = clean(row)
        if not page.wide:
            alike = [clean(other) for other in shown if _path(other) == _path(row)]
            text = _cut_path(text, page.inner, max(alike, key=columns))
        page.line((" " * MARGIN, ""), (text, "red" if row.startswith("-") else "green"))
    page.more(len(rows) - len(shown))


def _path(row: str) -> str:
    """The path of a row of a patch: `spec.replicas` of `- spec.replicas: 1`."""
    return row.partition(" ")[2].partition(": ")[0]


def _cut_path(row: str, width: int, longest: str) -> str:
    """`+ …limits.memory: 8Gi`: of a long row the beginning of the path goes, which says least, then the end of the value.

    `longest` is the longest row of that path: what is taken away and what is put in stand below each other.
    """
    sign, _, rest = row.partition(" ")
    path, _, value = rest.partition(": ")
    steps, over = path.split("."), columns(longest) - width
    whole = columns(path)
    while over > whole - columns(path) and len(steps) > 1 and columns(path) > width // 3:
        steps = steps[1:]
        path = "…" + ".".join(steps)
        row = f"{sign} {path}: {value}"
    return row if columns(row) <= width else cut(row, width)


def _commands(page: Page, commands: Sequence[str]) -> None:
    """Commands as they are pasted: never wrapped, and those of several lines without an indent (here-documents)."""
    indent = MARGIN if all(columns(clean(command)) <= page.inner for command in commands) else 2
    for command in commands:
        rows = "\n".join(clean(row).rstrip() for row in command.split("\n")).strip("\n").split("\n")
        for row in rows:
            if row:
                page.line(("" if len(rows) > 1 else " " * indent, ""), (row, "bold"))
            elif len(rows) > 1:
                page.lines.append("")


# -- nodes, changes, what was not seen --------------------------------------------------------------------------------


def _placement(page: Page, groups: Sequence[Placement]) -> None:
    """One row for all nodes that share a verdict: how many, which, and why not."""
    total, fitting = (sum(len(g.nodes) for g in some) for some in (groups, [g for g in groups if g.fits]))
    page.prose(
        "NODES", f"{fitting} of {total} node{'s' * (total != 1)} fit{'s' * (1 in (fitting, total))}", style="bold"
    )
    shown = page.first(groups, 6)
    digits = len(str(max(len(g.nodes) for g in groups)))
    heads = [f"{len(g.nodes):>{digits}}" for g in shown]
    if not page.wide:
        named = [_names(g.nodes, page.inner // 3).replace("…, …", "…") for g in shown]
        heads = [f"{n}{GAP}{names}" for n, names in zip(heads, named, strict=True)]
    widest = max(columns(head) for head in heads)
    for group, head in zip(shown, heads, strict=True):
        said = [group.devices, *group.reasons] if group.devices else [*group.reasons]
        page.row("", head, widest, "; ".join(said) or ("fits" if group.fits else "does not fit"), page.limit(3))
        if page.wide:  # the names may fill pages, so they stand below the reason
            page.row("", "", widest, _names(group.nodes, 0))
    page.more(sum(len(g.nodes) for g in groups[len(shown) :]), "more nodes")


def _names(names: Sequence[str], room: int) -> str:
    """The first few names that fit, at least one; all of them without a `room`."""
    text = shorten(names[0], room) if names and room else clean(", ".join(names))
    for number, name in enumerate(names[1:] if room else (), 2):
        longer = f"{text}, {clean(name)}"
        if columns(longer) + (3 if number < len(names) else 0) > room:
            return f"{text}, …"
        text = longer
    return text


def _changes(page: Page, changes: Sequence[Change], taken_at: str | None) -> None:
    """A timeline in the order given; the last few stand nearest to what broke."""
    shown = changes if page.wide else changes[-5:]
    times = [words.when(change.at, taken_at) for change in shown]
    widest = max(map(columns, times), default=0)
    label = "CHANGED"
    for change, time in zip(shown, times, strict=True):
        page.row(label, time, widest, ": ".join(filter(None, (change.what, change.text))), page.limit(2))
        label = ""
    page.more(len(changes) - len(shown), "earlier")


def _not_seen(page: Page, report: Report) -> None:
    """What this answer does not rest on: sources that could not be read, checks that could not judge."""
    fine = bool(report.targets) and all(_is_fine(t) for t in report.targets)
    if fine and not page.wide and not report.broken and all(item.source in _OPTIONAL for item in report.not_read):
        return
    if not page.wide and not report.not_read and report.targets and all(map(_sure_without_its_node, report.targets)):
        return
    if page.wide or len(report.targets) != 1 or fine:
        page.gap()
    unjudged = dict.fromkeys((n.id, n.reason) for t in report.targets for n in t.not_checked)
    unread = [(words.SOURCES.get(item.source, item.source), item.ref, item.reason) for item in report.not_read]
    if page.wide:
        page.list("NOT SEEN", (f"{source} {ref}".strip() + f": {reason}" for source, ref, reason in unread))
        page.list("NOT RUN", words.not_run(unjudged))
        return
    by_reason: dict[str, list[tuple[str, str]]] = {}
    for source, ref, reason in unread:
        by_reason.setdefault(words.gist(reason), []).append((source, ref))
    lines = wrap("; ".join(f"{_whence(where)}: {why}" for why, where in by_reason.items()), page.inner, 2)
    if unjudged:
        why = words.gists([reason for _, reason in unjudged])
        lines += wrap(f"{words.number(len(unjudged), 'check')} not run (-o wide names them): {why}", page.inner, 2)
    if any(words.forbidden(reason) for _, _, reason in unread):
        lines += wrap("kubectl llmdoctor access   shows what you may read", page.inner)
    page.block("NOT SEEN", lines)
    if unjudged and not unread and len(report.targets) == 1:
        _to_add(page, report.targets[0])


#: What is said of a node that a recorded input lacks.
_LACKS_NODE = expression(r"node ([\w.-]+) was not read")


def _sure(target: Target) -> bool:
    """Whether its cause is certain: the first one is what it is about."""
    return next((f.confidence == "certain" for f in target.findings if f.role == "cause"), False)


def _sure_without_its_node(target: Target) -> bool:
    """Whether its cause is certain, and no check lacked anything but a node that a recorded input does not have."""
    return _sure(target) and all(_LACKS_NODE.fullmatch(item.reason) for item in target.not_checked)


def _to_add(page: Page, target: Target) -> None:
    """How to bring the nodes that a recorded input lacks, where they may change the answer."""
    if target.verdict == "healthy" or _sure(target):
        return
    found = [_LACKS_NODE.fullmatch(item.reason) for item in target.not_checked]
    names = list(dict.fromkeys(node[1] for node in found if node))
    if names:
        what, of = ("it", f"node {names[0]}") if len(names) == 1 else ("them", "nodes")
        page.prose("", f"to add {what}: kubectl get {of} -o yaml, into one folder with the input; then --from FOLDER")


def _whence(unread: list[tuple[str, str]]) -> str:
    """What was not read for one reason, by its kind and how often; a few files by their names."""
    if len(unread) <= _FILES and all(source == "file" and ref for source, ref in unread):
        return words.counted([clean(ref.rpartition("/")[2].partition(":")[0]) for _, ref in unread])
    return words.counted([source for source, _ in unread])


def _decided(page: Page, report: Report) -> None:
    """What people decided beforehand: known findings, suppressions without effect; and what no manifest can tell."""
    known = [item.id for target in report.targets for item in target.known]
    count = sum(not item.broken for item in report.not_checked)
    if known or report.unused_suppressions or count:
        page.gap()
    if known:
        some = "findings are" if len(known) > 1 else "finding is"
        page.prose("KNOWN", f"{len(known)} {some} in the baseline already: {words.counted(known)}", page.limit(2))
    unused = report.unused_suppressions
    shown = page.first(unused, 5)
    page.list("UNUSED", (f"{item.id}, {item.where}: {item.reason}" for item in shown), "yellow")
    page.more(len(unused) - len(shown))
    if count:
        page.prose("NOT RUN", f"{count} checks, which need a cluster: they look at logs, events, status and nodes")
