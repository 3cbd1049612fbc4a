"""Scripts of containers: as reports quote them, and where they end at a command that fails."""

import re

from kubectl_llmdoctor.api import Container

#: A package manager, before what it is to do.
_APT, _APK = (
    rf"(?<![\w./-])(?:{name})\s{{1,9}}(?:-\S{{1,40}}\s{{1,9}}){{0,6}}"
    for name in ("apt-get|apt|yum|dnf|microdnf", "apk")
)

#: Package managers at what only root may do, and at what fails without a network; apt-get goes on from lists that it did not get.
INSTALLS = rf"(?:{_APT}(?:update|upgrade|install)|{_APK}(?:update|add))\b"
FETCHES = rf"(?:{_APT}install|{_APK}add)\b"

#: The same of Python's, which installs for its user where it may not for all.
PIP = r"(?<![\w./-])pip3?\s{1,9}(?:-\S{1,40}\s{1,9}){0,6}install\b"

#: What stands in quotes: a program of another language may have lines of its own.
_IN_QUOTES = r"\"[^\"]{0,4000}\"|'[^']{0,4000}'"

#: Before a command: a comment, words that are printed, another user, or a condition.
_NOT_RUN = (
    r"(?:^|\n)[ \t]{0,40}(?:#|echo\b)[^\n]*\Z|\bsudo\b[^\n;&|]*\Z|\|\|[^\n]*\Z|(?s:\bif\b(?:(?!\bfi\b).){0,2000}\Z)"
)

#: A line that is nothing but a comment: the words of it are no commands.
_COMMENT = r"(?m)^[ \t]{0,40}#[^\n]{0,2000}\n"

#: What makes a shell end at the first command that fails.
_ENDS_AT_ERRORS = r"(?m)^\s{0,40}set -[a-z]{0,6}e|^(?:/usr)?(?:/bin/)?(?:ba)?sh -[a-z]{0,6}e"

#: So many characters tell which line is meant.
_QUOTED = 160


def quoted(text: str) -> str:
    """The beginning of a line of a script."""
    return text[:_QUOTED]


def fails_at(container: Container, command: str) -> tuple[str, str, str] | None:
    """Where a script runs a command and ends when that fails: the path, the line, the command."""
    for path, text in container.words:
        for found in re.finditer(command, text):
            if re.search(_NOT_RUN, re.sub(_COMMENT, "", text[: found.start()])):
                continue
            behind = re.sub(_IN_QUOTES, "''", text[found.start() :]).replace("\\\n", " ")
            chain, *after = re.split(r"[;\n]", re.sub(r"&&[ \t]{0,40}\n", "&& ", behind), maxsplit=1)
            # without `set -e` a script goes on behind a chain of commands that broke
            last = chain.rpartition("&&")[2] if "&&" in chain and not "".join(after).strip() else ""
            broken = last and not re.search(command, last)
            if "||" not in chain and (broken or re.search(_ENDS_AT_ERRORS, text[: found.start()])):
                return path, chain.strip(), " ".join(found[0].split())
            break
    return None
