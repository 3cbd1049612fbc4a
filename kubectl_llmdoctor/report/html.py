"""The report as one HTML file that can be passed on: it asks for nothing outside itself, and works without JavaScript.

The failing workloads come first, each with its cause, the quotations and what to do; then what may break next, the GPUs
as a map, engines, and what could not be seen. The style and the script stand in the file and are named by their hashes
in its Content-Security-Policy, which forbids everything else. Without the script everything is unfolded.

The same report gives the same bytes. Beyond `MOST` characters a workload is one row, and the page says so.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from importlib.resources import files

from kubectl_llmdoctor.report import html_parts as parts
from kubectl_llmdoctor.report import html_pictures as pictures
from kubectl_llmdoctor.report import words
from kubectl_llmdoctor.report.behind import behind, together
from kubectl_llmdoctor.report.document import Capacity, Comparison, Finding, Report, Target
from kubectl_llmdoctor.report.html_target import OPEN, Writer
from kubectl_llmdoctor.report.markup import Child, Html, element, join, raw
from kubectl_llmdoctor.report.text_layout import clean

#: Characters of the map of nodes and of the workloads that are written in full, so that a page of 1,000 workloads stays
#: below 2 MB.
MOST = 1_500_000


def render(report: Report) -> bytes:
    """UTF-8 with a final newline."""
    groups = _groups(report)
    style, script = (files(__package__).joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", f"llmdoctor: {_headline(groups)}"),
        element("style", raw(style)),
    )
    body = element(
        "body",
        element("a", "Skip to the report", class_="skip", href="#report"),
        _top(report, groups),
        element("main", *_main(report, groups), id="report", tabindex="-1"),
        _foot(report),
        element("script", raw(script)),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n".encode()


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


# -- the top ----------------------------------------------------------------------------------------------------------


#: The groups of workloads: anchor, words, tone.
_GROUPS = {"failing": ("failing", "bad"), "at-risk": ("at risk", "warn"), "healthy": ("healthy", "good")}


def _groups(report: Report) -> dict[str, list[Target]]:
    """The workloads by what a reader must do about them; a verdict alone hides no cause."""
    groups: dict[str, list[Target]] = {name: [] for name in _GROUPS}
    for target in report.targets:
        roles = {f.role for f in target.findings}
        if target.verdict in ("cause-found", "undetermined") or "cause" in roles:
            groups["failing"].append(target)
        else:
            groups["at-risk" if target.verdict == "at-risk" or roles - {"note"} else "healthy"].append(target)
    return groups


def _headline(groups: dict[str, list[Target]]) -> str:
    """`2 failing, 1 at risk, 3 healthy`."""
    return ", ".join(f"{len(g)} {_GROUPS[name][0]}" for name, g in groups.items() if g) or "nothing to report"


def _top(report: Report, groups: dict[str, list[Target]]) -> Html:
    numbers = [
        element("li", element("a", element("b", str(len(groups[id]))), " ", word, href=f"#{id}"), class_=tone)
        for id, (word, tone) in _GROUPS.items()
        if groups[id]
    ]
    when = report.taken_at or "at a time that the input does not say"
    sources = len(report.not_read)
    links = [
        ("#changed", "Changes", report.comparison is not None),
        ("#capacity", "GPUs", bool(report.cluster.capacity or report.cluster.nodes)),
        ("#engines", "Engines", bool(report.cluster.engines)),
        ("#unseen", f"Not seen ({sources})" if sources else "Not seen", _has_unseen(report)),
    ]
    return element(
        "header",
        element("h1", "LLM serving report"),
        element("p", f"As of {when}, by kubectl-llmdoctor {report.tool_version}", class_="dim"),
        element(
            "nav",
            element(
                "ul",
                *numbers,
                *(element("li", element("a", text, href=to)) for to, text, is_there in links if is_there),
            ),
            aria_label="Sections",
        ),
        _filters(report) if len(report.targets) > 1 else None,
    )


def _filters(report: Report) -> Html:
    """The form that narrows the workloads; the script shows it, since without the script it could do nothing."""
    contexts: dict[str, int] = {}
    spaces: dict[str, int] = {}
    ids: dict[str, int] = {}
    for target in report.targets:
        contexts[target.context] = contexts.get(target.context, 0) + 1
        spaces[target.namespace] = spaces.get(target.namespace, 0) + 1
        for id in dict.fromkeys(f.id for f in target.findings if f.role != "note"):
            ids[id] = ids.get(id, 0) + 1
    by_count = sorted(ids.items(), key=lambda item: (-item[1], item[0]))
    severities = (("critical", "critical"), ("warning", "warning or worse"), ("info", "info or worse"))
    return element(
        "form",
        _field("Text", element("input", type="search", id="f-text", autocomplete="off", spellcheck="false"), "f-text"),
        _select("Cluster", "f-context", [(c, f"{c or 'none'} ({n})") for c, n in sorted(contexts.items())])
        if len(contexts) > 1
        else None,
        _select("Namespace", "f-ns", [(s, f"{s or 'none'} ({n})") for s, n in sorted(spaces.items())]),
        _select("Severity", "f-severity", severities),
        _select("Finding", "f-id", [(parts.key(id), f"{id} ({n})") for id, n in by_count]),
        element(
            "div",
            element("button", "Reset", type="reset"),
            element("button", "Unfold all", type="button", id="unfold"),
            element("button", "Fold all", type="button", id="fold"),
            class_="buttons",
        ),
        element("p", id="shown", role="status", class_="dim"),
        id="filters",
        role="search",
        aria_label="Filter workloads",
        hidden=True,
    )


def _field(label: str, control: Html, id: str) -> Html:
    return element("div", element("label", label, for_=id), control, class_="field")


def _select(label: str, id: str, options: Iterable[tuple[str, str]]) -> Html:
    # with a mark before it, a value that is empty is told apart from the choice of everything
    rows = [
        element("option", "all", value=""),
        *(element("option", text, value=f"={value}") for value, text in options),
    ]
    return _field(label, element("select", *rows, id=id), id)


# -- sections ---------------------------------------------------------------------------------------------------------


def _main(report: Report, groups: dict[str, list[Target]]) -> Iterator[Html]:
    failing, at_risk, healthy = groups.values()
    gpus = _gpus(report) if report.cluster.capacity or report.cluster.nodes else Html()
    writer = Writer(report, MOST - len(gpus))
    if not report.targets:
        yield element("p", "Nothing to report: no target was found.")
    if len(failing) + len(at_risk) > 5:
        yield _by_cause([*failing, *at_risk])
    if report.cluster.findings:
        listed = [writer.target(target, 0, fold=False, filtered=False) for target in _clusters(report)]
        yield _section("cluster", "The cluster itself", None, listed)
    for id, title, targets in (("failing", "Failing now", failing), ("at-risk", "At risk", at_risk)):
        if targets:
            placed = [(t, group, n) for group, same in enumerate(together(targets)) for n, t in enumerate(same)]
            many = len(report.targets) > 1
            whole = [
                # the first shows what is said of the others, too
                writer.target(t, group, fold=many and (id == "at-risk" or group >= OPEN or n > 0))
                for t, group, n in placed
                if writer.has_room
            ]
            brief = [t for t, _, _ in placed[len(whole) :]]
            yield _section(id, title, len(targets), [*whole, _rows(brief, cut=True)])
    if report.comparison:
        yield _comparison(report.comparison)
    if healthy:
        yield _section("healthy", "Healthy", len(healthy), [_rows(healthy)])
    yield gpus
    if report.cluster.engines:
        yield _engines(report)
    if _has_unseen(report):
        yield _unseen(report)
    if any(t.suppressed or t.known for t in report.targets) or report.unused_suppressions:
        yield _decided(report)


def _clusters(report: Report) -> Iterator[Target]:
    """The findings of each cluster in the form of a target, so that one function writes all findings."""
    by_context: dict[str, list[Finding]] = {}
    for finding in report.cluster.findings:
        by_context.setdefault(finding.context, []).append(finding)
    for context, findings in by_context.items():
        roles = {f.role for f in findings}
        yield Target(
            api_version="",
            kind="",
            namespace="",
            name="cluster",
            context=context,
            verdict="cause-found" if "cause" in roles else "at-risk" if "risk" in roles else "healthy",
            findings=tuple(findings),
        )


def _section(id: str, title: str, count: int | None, children: Iterable[Child]) -> Html:
    number = element("span", f"{count}", class_="count", data_all=count) if count is not None else None
    heading = element("h2", title, " " if number else None, number, id=f"{id}-title")
    return element("section", heading, *children, id=id, aria_labelledby=f"{id}-title")


#: Findings in the overview before the rest is folded, so that what fails is not far below.
_MOST_BEHIND = 10


def _by_cause(targets: Sequence[Target]) -> Html:
    """What is behind how many workloads; the script makes each id a filter."""
    rows = [
        parts.row(
            element("code", found.finding.id, class_="id", data_id=parts.key(found.finding.id)),
            found.finding.title,
            str(len(found.failing) or ""),
            str(len(found.at_risk) or ""),
            parts.few(sorted({t.namespace for t in (*found.failing, *found.at_risk)}), 4),
            numbers=(2, 3),
        )
        for found in behind(targets)
    ]
    heads = ("Finding", "What is wrong", "Failing", "At risk", "Namespaces")
    first, rest = rows[:_MOST_BEHIND], rows[_MOST_BEHIND:]
    title = "Workloads by finding, most failing first"
    children: list[Child] = [parts.table(title, heads, first, numbers=(2, 3))]
    if rest:
        more = parts.table("Workloads by finding, the others", heads, rest, numbers=(2, 3), quiet=True)
        summary = element("summary", f"{len(rest)} more findings")
        children.append(element("details", summary, more, open=True, data_fold=True))
    return _section("causes", "What is behind it", None, children)


def _rows(targets: Sequence[Target], *, cut: bool = False) -> Html | None:
    """One row each: those that are fine, and those for which the page has no room (`cut`)."""
    if not targets:
        return None
    rows = []
    for target in targets:
        notes = [f.id for f in target.findings if cut or f.role == "note"]
        first = next((f.title for f in target.findings), "")
        state = "; ".join(filter(None, (target.impact or target.status, first if cut else "")))
        rows.append(
            parts.row(words.name(target), words.about(target), state, ", ".join(notes), data=parts.filterable(target))
        )
    heads = ("Workload", "Engine, owner", "State", "Findings" if cut else "Notes")
    caption = "In brief, since the page would become too large; whole with -o json" if cut else "Healthy workloads"
    return parts.table(caption, heads, rows, quiet=not cut)


def _gpus(report: Report) -> Html:
    cluster = report.cluster
    children: list[Child] = []
    if cluster.capacity:
        heads = (
            "Product",
            "Nodes",
            "GPUs",
            "Offered",
            "Used",
            "Used but idle",
            "Free",
            "Free in chunks",
            "Free, not usable",
        )
        rows = [_capacity(row) for row in cluster.capacity]
        children.append(parts.table("GPUs by product", heads, rows, numbers=range(1, 7)))
        children.append(_holders(cluster.capacity))
    if cluster.nodes:
        children += pictures.node_map(cluster.nodes)
    return _section("capacity", "GPUs", sum(row.total for row in cluster.capacity) or None, children)


def _capacity(row: Capacity) -> Html:
    chunks = ", ".join(f"{words.nodes(count)} with {size}" for size, count in row.chunks.items())
    stranded = "; ".join(f"{count}: {why}" for why, count in row.stranded.items())
    idle = "not known" if row.idle is None else str(row.idle)
    name = words.within(row.context, row.product or row.resource)
    counts = (row.nodes, row.total, row.allocatable, row.allocated)
    return parts.row(name, *map(str, counts), idle, str(row.free), chunks, stranded, numbers=range(1, 7))


def _holders(capacity: Sequence[Capacity]) -> Html | None:
    rows = [
        parts.row(
            f"{h.namespace}/{h.workload}",
            words.within(row.context, row.product),
            str(h.devices),
            "not known" if h.idle is None else str(h.idle),
            numbers=(2, 3),
        )
        for row in capacity
        for h in row.holders[:20]
    ]
    if not rows:
        return None
    table = parts.table(
        "Who holds GPUs, at most 20 of each product", ("Workload", "Product", "GPUs", "Idle"), rows, numbers=(2, 3)
    )
    return element("details", element("summary", "Who holds them"), table, open=True, data_fold=True)


# -- the rest ---------------------------------------------------------------------------------------------------------


def _comparison(comparison: Comparison) -> Html:
    since = f"since {comparison.taken_at}" if comparison.taken_at else "since the earlier report"
    said = f"{len(comparison.new)} new, {len(comparison.fixed)} fixed, {comparison.unchanged} unchanged"
    children: list[Child] = [element("p", f"Findings {since}: {said}.")]
    for title, items in (("New", comparison.new), ("Fixed", comparison.fixed)):
        if items:
            rows = [
                parts.row(
                    item.target, element("code", item.id, class_="id"), f"{item.role}, {item.severity}", item.summary
                )
                for item in items[:200]
            ]
            more = f" (the first 200 of {len(items)})" if len(items) > 200 else ""
            children.append(parts.table(f"{title}{more}", ("Workload", "Finding", "Kind", "What"), rows))
    return _section("changed", "Compared with before", None, children)


def _engines(report: Report) -> Html:
    rows = [
        parts.row(
            f"{words.engine(engine.name)} {engine.version or '(version not known)'}",
            str(len(engine.workloads)),
            parts.few(engine.vulnerabilities, 6) or ("none known" if engine.version else "not known"),
            parts.few(engine.workloads, 8),
            numbers=(1,),
        )
        for engine in report.cluster.engines
    ]
    heads = ("Engine", "Workloads", "Vulnerabilities of this version", "Which")
    return _section(
        "engines", "Engines", None, [parts.table("Engines by version", heads, rows, numbers=(1,), quiet=True)]
    )


def _has_unseen(report: Report) -> bool:
    return bool(report.not_read or report.not_checked or any(t.not_checked for t in report.targets))


def _unseen(report: Report) -> Html:
    """What the answer does not rest on."""
    children: list[Child] = []
    if report.not_read:
        by_reason: dict[tuple[str, str], list[str]] = {}
        for item in report.not_read:
            by_reason.setdefault((words.SOURCES.get(item.source, item.source), item.reason), []).append(item.ref)
        rows = [
            parts.row(source, reason, parts.few([ref for ref in refs if ref], 5))
            for (source, reason), refs in by_reason.items()
        ]
        children.append(parts.table("Sources that could not be read", ("Source", "Why", "What"), rows[:200]))
        children.append(element("p", "What you may read: ", element("code", "kubectl llmdoctor access"), class_="dim"))
    unjudged: dict[tuple[str, str], int] = {}
    for target in report.targets:
        for check in target.not_checked:
            unjudged[check.id, check.reason] = unjudged.get((check.id, check.reason), 0) + 1
    for check in report.not_checked:
        unjudged[check.id, check.reason] = len(report.targets)
    if unjudged:
        rows = [
            parts.row(element("code", id, class_="id"), reason, str(count), numbers=(2,))
            for (id, reason), count in list(unjudged.items())[:300]
        ]
        table = parts.table("Checks that could not judge", ("Check", "Why", "Workloads"), rows, numbers=(2,))
        said = f"{len(unjudged)} checks could not judge"
        children.append(element("details", element("summary", said), table, open=True, data_fold=True))
    return _section("unseen", "Not seen", None, children)


def _decided(report: Report) -> Html:
    """What people chose not to see, and what they chose in vain."""
    children: list[Child] = []
    hidden = [(t, item) for t in report.targets for item in t.suppressed]
    if hidden:
        rows = [
            parts.row(words.name(t), element("code", i.id, class_="id"), i.reason, i.where, i.until)
            for t, i in hidden[:300]
        ]
        heads = ("Workload", "Finding", "Reason", "Where", "Until")
        children.append(parts.table("Suppressed findings", heads, rows))
    known = [item.id for t in report.targets for item in t.known]
    if known:
        children.append(element("p", f"In the baseline already: {words.counted(known)}."))
    if report.unused_suppressions:
        rows = [
            parts.row(element("code", i.id, class_="id"), i.where, i.reason) for i in report.unused_suppressions[:300]
        ]
        children.append(parts.table("Suppressions without effect", ("Finding", "Where", "Why"), rows))
    return _section("decided", "Suppressed and known", None, children)


def _foot(report: Report) -> Html:
    meanings = (
        ("cause", "explains a failure that is there"),
        ("symptom", "is there, and something else explains it"),
        ("risk", "nothing has failed yet; the mechanism is known"),
        ("note", "worth knowing"),
        ("certain, likely, possible", "the evidence states it; fits it best; does not rule it out"),
    )
    pairs = [join((element("dt", word), element("dd", text))) for word, text in meanings]
    return element(
        "footer",
        element("h2", "Words"),
        element("dl", *pairs),
        element(
            "p",
            f"Written by kubectl-llmdoctor {clean(report.tool_version)}. Nothing in this file asks the network.",
            class_="dim",
        ),
    )
