"""Lines for a terminal: text made harmless, measured in columns, wrapped at blanks, and styled when asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from kubectl_llmdoctor.expressions import expression

T = TypeVar("T")

#: columns of the margin that holds the labels: `CAUSE`, `NOT SEEN`, and the kinds of evidence
MARGIN = 10
#: between columns
GAP = "   "

_SGR = {"bold": "1", "dim": "2", "red": "1;31", "yellow": "1;33", "green": "1;32"}


def clean(text: str) -> str:
    """One harmless line of a text that a stranger may have written.

    Terminal sequences go; tabs, line breaks and unusual blanks become blanks; every other character that does not
    show (controls, direction overrides, zero-width characters) goes, and what cannot be encoded is replaced.
    """
    if text.isprintable():
        return text
    text = _SEQUENCES.sub("", text)
    return "".join(
        c if c.isprintable() else " " if c.isspace() else "\ufffd" if "\ud800" <= c <= "\udfff" else "" for c in text
    )


#: Whole terminal sequences, in their 7-bit and 8-bit forms; a sequence without an end loses only its start.
_SEQUENCES = expression(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: \x1b[31m
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x00-\x1f\x7f-\x9f]*(?:\x07|\x1b\\|\x9c)"  # OSC: \x1b]0;title\x07
    r"|\x1b[ -/]*[0-Z\\^-~]"  # the short ones: \x1b(B
)


def columns(text: str) -> int:
    """How many columns a terminal needs for a clean text."""
    if text.isascii():
        return len(text)
    from unicodedata import category, east_asian_width

    return sum(0 if category(c) in ("Mn", "Me") else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def wrap(text: str, width: int, limit: int = 0) -> list[str]:
    """Lines of at most `width` columns, broken at blanks only, so a longer word stands alone on its line.

    Line breaks and indentation of the text stay. With a `limit`, at most so many lines: what is left out becomes
    an ellipsis at the end of a word, and a word of more than `limit` full lines is cut.
    """
    lines: list[str] = []
    for raw in text.replace("\r\n", "\n").rstrip().split("\n"):
        if limit and len(lines) > limit:
            break
        row = clean(raw)
        body = row.strip(" ")
        lead = " " * min(len(row) - len(row.lstrip(" ")), width // 4)
        line, used = lead, 0
        for word in body.split(" "):
            if limit and len(lines) > limit:
                break
            size = columns(word)
            if limit and size > limit * width:
                word = cut(word, limit * width)
                size = limit * width
            if line != lead and used + 1 + size > width:
                lines.append(line.rstrip(" "))
                line = lead
            # an empty word is one blank of several in a row: kept inside a line, dropped at its start
            if line != lead:
                line, used = f"{line} {word}", used + 1 + size
            else:
                line, used = lead + word, len(lead) + size
        if line != lead:
            lines.append(line.rstrip(" "))
    if limit and len(lines) > limit:
        last = lines[limit - 1]
        while columns(last) + 2 > width and " " in last.strip():
            last = last.rsplit(" ", 1)[0].rstrip(" ")
        lines[limit - 1 :] = [last + " …"]
    return lines


def shorten(text: str, width: int) -> str:
    """The text on one line of at most `width` columns, cut at a word where there is one."""
    short = "".join(wrap(" ".join(text.split()), width, 1))
    return short if columns(short) <= width else cut(short, width)


def cut(text: str, width: int) -> str:
    """The start of the text and an ellipsis, `width` columns at most."""
    text = text[:width]
    if columns(text) + 1 <= width:
        return text + "…"
    used = 0
    for number, letter in enumerate(text):
        used += columns(letter)
        if used + 1 > width:
            return text[:number] + "…"
    return text + "…"


class Page:
    """The lines written so far, and how wide, how colourful and how complete they shall be."""

    def __init__(self, width: int, *, color: bool, wide: bool) -> None:
        self.width = max(width, 40)
        self.inner = self.width - MARGIN
        self.color = color
        self.wide = wide
        self.lines: list[str] = []
        self.apart = False

    def limit(self, number: int) -> int:
        """A limit of lines, or none when everything shall be shown."""
        return 0 if self.wide else number

    def first(self, items: Sequence[T], number: int) -> Sequence[T]:
        """The first few of a list, or all of it when everything shall be shown."""
        return items if self.wide else items[:number]

    def line(self, *spans: tuple[str, str]) -> None:
        """One line of (text, style) spans; the only way onto the page, so nothing passes uncleaned.

        Spans without any text make no line.
        """
        parts = [(clean(text), style) for text, style in spans]
        while parts and not parts[-1][0].strip(" "):
            parts.pop()
        if not parts:
            return
        parts[-1] = (parts[-1][0].rstrip(" "), parts[-1][1])
        styled = (
            f"\x1b[{_SGR[style]}m{text}\x1b[0m" if self.color and style and text else text for text, style in parts
        )
        self.lines += ([""] if self.apart and self.lines else []) + ["".join(styled)]
        self.apart = False

    def gap(self) -> None:
        """Sets the next line apart from what stands above it."""
        self.apart = True

    def flow(self, *spans: tuple[str, str]) -> None:
        """Spans with a gap between them, on as few lines as they fit on."""
        row: list[tuple[str, str]] = []
        for text, style in spans:
            for piece in wrap(text, self.width):
                if row and sum(columns(t) for t, _ in row) + len(GAP) + columns(piece) > self.width:
                    self.line(*row)
                    row = []
                row += [(GAP if row else "", ""), (piece, style)]
        self.line(*row)

    def beside(self, label: str, tone: str, *spans: tuple[str, str]) -> None:
        """One line beside a label in the margin."""
        self.line((label, tone), (" " * (MARGIN - len(label)), ""), *spans)

    def block(self, label: str, texts: Iterable[str], tone: str = "bold", style: str = "") -> None:
        """Lines beside a label, which stands before the first."""
        for text in texts:
            self.beside(label, tone, (text, style))
            label = ""

    def prose(self, label: str, text: str, limit: int = 0, tone: str = "bold", style: str = "") -> None:
        """A wrapped text beside a label."""
        self.block(label, wrap(text, self.inner, limit), tone, style)

    def list(self, label: str, texts: Iterable[str], tone: str = "bold") -> None:
        """Wrapped texts, one below the other, beside one label."""
        self.block(label, (line for text in texts for line in wrap(text, self.inner)), tone)

    def row(self, label: str, head: str, head_columns: int, text: str, limit: int = 0) -> None:
        """A label, a column of its own width, and a text that wraps beside both."""
        for line in wrap(text, self.inner - head_columns - len(GAP), limit) or [""]:
            head += " " * (head_columns - columns(head)) + GAP
            self.beside(label, "bold", (head, "dim"), (line, ""))
            label = head = ""

    def more(self, count: int, what: str = "more") -> None:
        """Says that a list was cut."""
        if count > 0:
            self.prose("", f"… {count} {what}: -o wide", style="dim")

    def text(self) -> str:
        """The page, ending in a line break."""
        return "\n".join(self.lines) + "\n"
