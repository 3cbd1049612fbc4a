"""Writing a report in the formats that were asked for, and the exit code that follows from it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from kubectl_llmdoctor.errors import UsageError
from kubectl_llmdoctor.report.document import SEVERITIES, Report

FORMATS = ("text", "wide", "json", "yaml", "markdown", "html", "sarif", "junit", "github", "policyreport")
FAIL_ON = ("critical", "warning", "info", "never")


def parse_outputs(given: tuple[str, ...]) -> list[tuple[str, str]]:
    """`-o json`, `-o json=report.json`, repeated: pairs of format and path; an empty path is standard output."""
    outputs = []
    for text in given or ("text",):
        name, to_file, path = text.partition("=")
        if name not in FORMATS:
            raise UsageError(f"-o {text}: unknown format; known are {', '.join(FORMATS)}, each also as FORMAT=FILE")
        if to_file and not path:  # a variable of a script that is not set
            raise UsageError(f"-o {text}: no file named")
        outputs.append((name, path))
    if sum(not path for _, path in outputs) > 1:
        raise UsageError("-o: only one format can go to standard output; write the others as FORMAT=FILE")
    return outputs


def write(
    report: Report, outputs: list[tuple[str, str]], *, color: bool, fleet: bool = False, source: str | None = None
) -> None:
    """Write the report once per output, text as the page of an audit for a `fleet`. Raises UsageError when a file cannot be written.

    `source` is the file or folder that an audit read in place of a cluster.
    """
    for name, path in outputs:
        data = render(report, name, color=color and not path, fleet=fleet, source=source)
        if path:
            save(data, path, f"-o {name}")
        else:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()


def save(data: bytes, path: str, option: str, *, make_folder: bool = False) -> None:
    """Writes a file that an option names. Raises UsageError when it cannot be written."""
    try:
        if make_folder:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(data)
    except OSError as error:
        raise UsageError(f"{option}={path}: {error.strerror}") from error


def render(report: Report, name: str, *, color: bool = False, fleet: bool = False, source: str | None = None) -> bytes:
    """The report in one format."""
    if name in ("text", "wide"):
        from kubectl_llmdoctor.report import fleet as page
        from kubectl_llmdoctor.report import text

        wide = name == "wide"
        if fleet:
            return page.render(report, width=width(), color=color, wide=wide, source=source).encode()
        return text.render(report, width=width(), color=color, wide=wide).encode()
    if name in ("markdown", "html", "sarif", "junit", "github", "policyreport"):
        import importlib

        written: bytes = importlib.import_module(f"kubectl_llmdoctor.report.{name}").render(report)
        return written
    from kubectl_llmdoctor.report import data

    return data.to_json(report) if name == "json" else data.to_yaml(report)


def width() -> int:
    """Columns of the terminal; without one what COLUMNS says, or 80."""
    try:
        columns = os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        said = os.environ.get("COLUMNS", "")
        columns = int(said) if said.isdecimal() and len(said) < 6 else 0
    return max(60, min(columns or 80, 160))


def colored(no_color: bool) -> bool:
    """Whether to use colour: a terminal, and nobody who asked not to."""
    return not no_color and not os.environ.get("NO_COLOR") and sys.stdout.isatty()


def exit_code(report: Report, fail_on: str) -> int:
    """1 when a finding reaches the threshold, else 0."""
    if fail_on == "never":
        return 0
    most = SEVERITIES.index(fail_on)
    findings = [*report.cluster.findings, *(f for t in report.targets for f in t.findings)]
    return int(any(SEVERITIES.index(f.severity) <= most for f in findings))
