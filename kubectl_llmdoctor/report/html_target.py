"""One workload of the HTML report: the cause, the quotations, what to do, and all else in the order of its weight."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kubectl_llmdoctor.report import html_parts as parts
from kubectl_llmdoctor.report import html_pictures as pictures
from kubectl_llmdoctor.report import words
from kubectl_llmdoctor.report.document import ROLES, Evidence, Finding, Fix, Report, Role, Target
from kubectl_llmdoctor.report.markup import Html, element, join, lines, raw
from kubectl_llmdoctor.tree import say_pairs

#: Failing workloads that are unfolded.
OPEN = 3

#: Findings of one workload that are written without being folded.
_IN_FULL = 5

_ROLES = {"cause": "Cause", "symptom": "Symptom", "risk": "Risk", "note": "Note"}
_TONES = {"cause-found": "bad", "undetermined": "bad", "at-risk": "warn", "healthy": "good"}
_SEVERITIES = {"critical": "bad", "warning": "warn", "info": "info"}


class Writer:
    """Writes targets in full, and knows when there is no room left."""

    def __init__(self, report: Report, room: int) -> None:
        self._taken_at = report.taken_at
        self._room = room

    @property
    def has_room(self) -> bool:
        """Whether another target may be written in full."""
        return self._room > 0

    def target(self, target: Target, number: int, *, fold: bool, filtered: bool = True) -> Html:
        """One workload: its name and state, the causes, and all else that is worth saying."""
        causes, symptoms, risks, notes = map(target.having, ROLES)
        first: Role = "cause" if causes else "symptom" if target.verdict == "undetermined" else "risk"
        foremost = target.having(first)
        in_full = foremost[:_IN_FULL]
        rest = foremost[_IN_FULL:] + [f for f in (*symptoms, *risks, *notes) if f.role != first]
        titles = words.titles(target)
        explained = dict.fromkeys(id for cause in causes for id in cause.explains)
        lead = in_full[0] if in_full else None
        summary = element(
            "summary",
            element("h3", words.name(target)),
            element("span", words.verdict(target), class_=f"verdict {_TONES[target.verdict]}"),
            element("span", lead.title or lead.id, class_="lead") if lead else None,
        )
        facts = [text for text in (words.about(target), target.status, target.impact) if text]
        body = [
            element("p", " · ".join(facts), class_="facts") if facts else None,
            element("p", "The cause is not determined by what was read. What it shows:")
            if target.verdict == "undetermined"
            else None,
            *(_finding(target, f, unfold=number < OPEN) for f in in_full),
            parts.line("Explains", "; ".join(titles.get(id, id) for id in explained)) if explained else None,
            *(pictures.memory(budget) for budget in target.memory),
            _changes(target, self._taken_at),
            _placement(target),
            _next(target),
            *(_folded(target, f) for f in rest),
            _settings(target),
            _list_of("Not checked", words.not_run((item.id, item.reason) for item in target.not_checked), fold=True),
        ]
        written = element(
            "details",
            summary,
            element("div", *body, class_="body"),
            class_="target",
            open=True,
            data_fold=fold,
            **parts.filterable(target) if filtered else {},
        )
        self._room -= len(written)
        return written


def _finding(target: Target, finding: Finding, *, unfold: bool) -> Html:
    said = [element("p", _heading(finding)), *_said(target, finding, fold=not unfold)]
    return parts.line(_ROLES[finding.role], *said, class_=f"{finding.role} {_SEVERITIES[finding.severity]}")


def _folded(target: Target, finding: Finding) -> Html:
    """A finding beside the cause: its title, and the rest when somebody asks."""
    said = list(filter(None, _said(target, finding, fold=False)))
    shown = element("p", _heading(finding))
    if said:
        shown = element("details", element("summary", _heading(finding)), *said, open=True, data_fold=True)
    return parts.line(_ROLES[finding.role], shown, class_=f"{finding.role} {_SEVERITIES[finding.severity]}")


def _heading(finding: Finding) -> Html:
    """The title, the id, how sure and how bad."""
    sure = f"{finding.confidence}, {finding.severity}"
    if finding.pods:
        sure += f", on {parts.few(finding.pods, 3)}"
    title, id = element("strong", finding.title or finding.id), element("code", finding.id, class_="id")
    return join((title, " ", id, " ", element("span", sure, class_="dim")))


def _said(target: Target, finding: Finding, *, fold: bool) -> Iterator[Html | None]:
    """What stands below the heading; `fold` is for the quotations."""
    if finding.summary != finding.title:
        yield element("p", finding.summary) if finding.summary else None
    yield _evidence(target, finding.evidence, fold=fold)
    yield from _fixes(target, finding)
    yield _docs(finding.docs)


def _docs(url: str) -> Html | None:
    """A link only to the web; whatever else stands there is text."""
    if not url.startswith(("https://", "http://")):
        return None
    return element("p", element("a", "About this check", href=url, rel="noreferrer noopener"), class_="docs")


def _evidence(target: Target, rows: Sequence[Evidence], *, fold: bool) -> Html | None:
    if not rows:
        return None
    items = [
        element(
            "li",
            element("p", element("b", words.kind(row)), " ", words.place(row, target), class_="place"),
            element("pre", lines(row.text)),
        )
        for row in rows
    ]
    count = f"Evidence: {words.number(len(rows), 'quotation')}"
    listed = element("ul", *items, class_="evidence")
    return element("details", element("summary", count), listed, open=True, data_fold=fold)


def _fixes(target: Target, finding: Finding) -> Iterator[Html]:
    for number, fix in enumerate(finding.fixes):
        text = words.sentence(fix.summary)
        owner = element("span", f" {words.OWNERS[fix.owner]}", class_="dim")
        yield element(
            "div",
            element("p", element("b", "Or" if number else "Fix"), " ", text, owner),
            element("p", words.verified(fix.verified)) if fix.verified else None,
            _diff(fix),
            *(_command(command) for command in words.commands(fix, target)),
            class_="fix",
        )


def _diff(fix: Fix) -> Html | None:
    rows = fix.patch.diff if fix.patch else ()
    if not rows:
        return None
    # a deletion and an insertion are also told apart by their sign
    tags = [element("del" if row.startswith("-") else "ins", row) for row in rows]
    return element("pre", *(join((tag, raw("\n"))) for tag in tags), class_="diff")


def _command(command: str) -> Html:
    button = element("button", "Copy", type="button", class_="copy", aria_live="polite", hidden=True)
    return element("div", element("pre", element("code", lines(command))), button, class_="command")


def _changes(target: Target, taken_at: str | None) -> Html | None:
    if not target.changes:
        return None
    rows = [
        element(
            "li",
            element("span", words.when(c.at, taken_at), class_="dim"),
            " ",
            ": ".join(filter(None, (c.what, c.text))),
        )
        for c in target.changes
    ]
    return parts.line("Changed before", element("ol", *rows, class_="plain"))


def _placement(target: Target) -> Html | None:
    groups = target.placement
    if not groups:
        return None
    total, fitting = (sum(len(g.nodes) for g in some) for some in (groups, [g for g in groups if g.fits]))
    rows = [
        parts.row(
            parts.few(g.nodes, 6),
            str(len(g.nodes)),
            g.devices,
            "; ".join(g.reasons) or ("fits" if g.fits else ""),
            numbers=(1,),
        )
        for g in groups[:50]
    ]
    table = parts.table(
        f"Nodes for {words.name(target)}", ("Nodes", "Number", "GPUs", "Why not"), rows, numbers=(1,), quiet=True
    )
    said = f"{fitting} of {words.nodes(total)} fit{'s' * (1 in (fitting, total))}"
    return parts.line(
        "Nodes", element("details", element("summary", said), table, open=True, data_fold=len(groups) > 8)
    )


def _next(target: Target) -> Html | None:
    if not target.next_steps:
        return None
    steps = [_command(step) if step.startswith("kubectl ") else element("p", step) for step in target.next_steps]
    return parts.line("Next", *steps)


def _settings(target: Target) -> Html | None:
    """What was set explicitly, engine by engine."""
    engines = [engine for engine in words.engines(target) if engine.config]
    if not engines:
        return None
    said = []
    for engine in engines:
        config = say_pairs(engine.config)
        said.append(element("p", element("b", engine.container), " ", config))
    return parts.line(
        "Settings",
        element(
            "details",
            element("summary", f"{len(engines)} engines" if len(engines) > 1 else "1 engine"),
            *said,
            open=True,
            data_fold=True,
        ),
    )


def _list_of(label: str, rows: Sequence[str], *, fold: bool) -> Html | None:
    if not rows:
        return None
    listed = element("ul", *(element("li", row) for row in rows), class_="plain")
    checks = words.number(len(rows), "check")
    return parts.line(label, element("details", element("summary", checks), listed, open=True, data_fold=fold))
