"""Pieces of the HTML report: tables, rows of a workload, and what the filters look at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kubectl_llmdoctor.report.document import Target
from kubectl_llmdoctor.report.markup import Child, Html, element
from kubectl_llmdoctor.report.text_layout import clean


def table(
    caption: str, heads: Sequence[str], rows: Iterable[Child], *, numbers: Sequence[int] = (), quiet: bool = False
) -> Html:
    """A table whose first column names its rows; `numbers` are the columns that are aligned to the right.

    The caption is only read aloud (`quiet`) where the heading above says the same.
    """
    cells = [element("th", text, scope="col", class_="n" if n in numbers else None) for n, text in enumerate(heads)]
    head = element("thead", element("tr", *cells))
    title = element("caption", caption, class_="quiet" if quiet else None)
    return element("div", element("table", title, head, element("tbody", *rows)), class_="table")


def row(name: Child, *cells: Child, numbers: Sequence[int] = (), data: dict[str, str] | None = None) -> Html:
    """A row of a table; `data` are attributes of its element."""
    first = element("th", name, scope="row")
    rest = (element("td", cell, class_="n" if n in numbers else None) for n, cell in enumerate(cells, 1))
    return element("tr", first, *rest, **data or {})


def few(names: Sequence[str], most: int) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def line(label: str, *children: Child, class_: str = "") -> Html:
    """A row of a target: what it is at the left, what is said at the right."""
    return element(
        "div", element("p", label, class_="label"), element("div", *children), class_=f"row {class_}".strip()
    )


def key(id: str) -> str:
    """An id without blanks, which separate ids in an attribute."""
    return "".join(clean(id).split())


def filterable(target: Target) -> dict[str, str]:
    """What the filters look at, beside the text."""
    findings = [f for f in target.findings if f.role != "note"]
    severity = next((s for s in ("critical", "warning", "info") if any(f.severity == s for f in findings)), "")
    return {
        "data_ns": target.namespace,
        **({"data_context": target.context} if target.context else {}),
        "data_severity": severity,
        "data_ids": " ".join(dict.fromkeys(key(f.id) for f in findings)),
    }
