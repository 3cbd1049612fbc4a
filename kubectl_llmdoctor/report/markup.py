"""HTML built from elements: every text is escaped where it enters, so that nothing in a report can become markup."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TypeAlias

from kubectl_llmdoctor.report.text_layout import clean

#: Elements without an end tag, in HTML and in SVG.
_VOID = {"input": ">", "meta": ">", "path": "/>", "rect": "/>"}


class Html(str):
    """Text that is markup already; only `element`, `raw` and `join` make it."""

    __slots__ = ()


Child: TypeAlias = "str | Html | Iterable[Child] | None"


def element(tag: str, *children: Child, **attributes: str | int | bool | None) -> Html:
    """An element. Attributes of False and None are left out; `class_` is `class`, and `_` in a name is `-`."""
    given = "".join(
        f" {name.strip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(clean(str(value)))}"')
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    end = _VOID.get(tag)
    return Html(f"<{tag}{given}{end}" if end else f"<{tag}{given}>{join(children)}</{tag}>")


def join(children: Child) -> Html:
    """Markup as it is, texts as one clean and escaped line each."""
    if children is None:
        return Html("")
    if isinstance(children, Html):
        return children
    if isinstance(children, str):
        return Html(escape(clean(children), quote=False))
    return Html("".join(map(join, children)))


def lines(text: str) -> Html:
    """A text whose line breaks stay, for what is shown as it is written."""
    rows = text.replace("\r\n", "\n").strip("\n").split("\n")
    return Html("\n".join(escape(clean(row).rstrip(), quote=False) for row in rows))


def raw(text: str) -> Html:
    """Markup that the program itself has written."""
    return Html(text)
