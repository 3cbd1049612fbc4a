"""Writes the generated files: a page per check with an index, the help of every command, the README's picture, the
schema of the node agent's report and the files that run it.

`python docs/generate.py` rewrites them; with `--check` it changes nothing, names what is out of date and exits with 1.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
from llmdoctor_agent.report import Report

from kubectl_llmdoctor.check import Check
from kubectl_llmdoctor.cli import COMMANDS, cli
from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.gather.files import load
from kubectl_llmdoctor.packs import installed, signature_of
from kubectl_llmdoctor.report.text import render
from kubectl_llmdoctor.signatures.declared import Signature

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS))
import deploy  # noqa: E402

ROOT = DOCS.parent
DEPLOY = ROOT / "agent" / "deploy"
MARK = "<!-- Written by docs/generate.py; edit the check instead. -->"
COLUMNS = 80

#: What the picture in the README shows.
DEMO = DOCS / "demo.yaml"
DEMO_COMMAND = "kubectl llmdoctor diagnose llama-7c9d8f6b5-x2v4q -n serving"

#: Families in the order in which a pod meets them, as headings.
FAMILIES = {
    "scheduling": "Scheduling: the pod is Pending, or was never created",
    "start": "Start: image, driver, arguments, probes, model files",
    "memory": "Memory: host memory, GPU memory, KV cache",
    "multi_gpu": "Multi-GPU, multi-node",
    "hardware": "Hardware: the GPU itself, or its links",
    "serving": "Serving: it runs, but badly",
    "symptoms": "Symptoms: what is seen; always explained by something else",
}

_SOURCES = {
    "log": "container logs",
    "event": "events",
    "status": "container and pod status",
    "probe": "what probes met with",
}


def expected() -> dict[Path, str]:
    """Every generated file and what it must contain."""
    checks = [check for check in installed() if check.pack == "built-in"]
    files = {DOCS / "checks" / f"{check.id}.md": page(check) for check in checks}
    files[DOCS / "checks" / "README.md"] = index(checks)
    files[DOCS / "help.md"] = commands()
    files[DOCS / "picture.svg"] = picture()
    files[DOCS / "agent.schema.json"] = agent_schema()
    return files | deploy.files(DEPLOY)


def agent_schema() -> str:
    """The JSON schema of the node agent's report, from its types."""
    schema = msgspec.json.schema(Report)
    return msgspec.json.format(msgspec.json.encode(schema, order="sorted"), indent=2).decode() + "\n"


# --- checks -----------------------------------------------------------------------------------------------------------


def page(check: Check) -> str:
    """One check's page: what it is, what to do, and below that the lines that prove it, which may be many."""
    body = check.doc.partition("\n")[2].strip()
    about, references, links = body.partition("\n## References\n")
    parts = [f"# {check.title}", MARK, _facts(check), about.strip()]
    parts += [_lines(signature) for signature in _signatures(check)]
    parts.append(f"{references.strip()}\n{links}".strip() if references else "")
    parts.append(_where(check))
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(check: Check) -> str:
    reads = sorted({_read(need.fact) for part in check.parts if not part.lines for need in part.needs})
    reads += [_SOURCES[source] for signature in _signatures(check) for source in signature.sources]
    rows = [
        ("id", f"`{check.id}`"),
        ("family", _family(check.family)),
        ("since", check.since),
        ("severity", check.severity),
        ("reads", ", ".join(dict.fromkeys(reads))),
    ]
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)])


def _read(fact: str) -> str:
    """A fact that a check asks for, in a reader's words."""
    words = {
        "Logs": "container logs",
        "Nodes": "all nodes",
        "Pending": "what the scheduler sees",
        "Subject": "all its pods",
    }
    return words.get(fact, fact.lower())


def _lines(signature: Signature) -> str:
    """Examples of what the signature recognises, and of what looks like it."""
    fence = "~~~"
    return "\n".join(
        [
            "## Lines that prove it",
            "",
            f"{fence}text",
            *(line.rstrip("\n") for line in signature.matches),
            fence,
            "",
            "Lines that look like it and do not:",
            "",
            f"{fence}text",
            *(line.rstrip("\n") for line in signature.ignores),
            fence,
        ]
    )


def _where(check: Check) -> str:
    files = [Path(part.where) for part in check.parts]
    links = [f"[{path.name}](../../{path.resolve().relative_to(ROOT).as_posix()})" for path in files]
    cases = f"[checks/cases/{check.id}](../../checks/cases/{check.id})"
    return f"---\n\nDeclared in {' and '.join(links)}; examples that fire, and near misses: {cases}."


def _signatures(check: Check) -> list[Signature]:
    paths = [Path(part.where) for part in check.parts if part.lines]
    return [signature_of(path) for path in paths]


def index(checks: list[Check]) -> str:
    """All checks by family."""
    parts = [
        "# Checks",
        MARK,
        "Each id names one fault. It is a *cause* where it explains a failure that is there, a *risk* where nothing\n"
        "has failed yet, a *note* where it is only worth knowing. `kubectl llmdoctor explain ID` shows a page offline.",
    ]
    families = {check.family for check in checks}
    for family in [*(f for f in FAMILIES if f in families), *sorted(families - set(FAMILIES))]:
        rows = [f"| [{c.id}]({c.id}.md) | {c.title} | {c.since} |" for c in checks if c.family == family]
        head = f"## {FAMILIES.get(family, _family(family))}"
        parts.append("\n".join([head, "", "| id | what is wrong | since |", "| --- | --- | --- |", *rows]))
    return "\n\n".join(parts) + "\n"


def _family(name: str) -> str:
    return {"multi_gpu": "multi-GPU"}.get(name, name.replace("_", " "))


# --- commands ---------------------------------------------------------------------------------------------------------


def commands() -> str:
    """The help text of the program and of every command, as a terminal of 80 columns shows it."""
    parts = ["# Help of every command", "<!-- Written by docs/generate.py. -->"]
    parts += ["What the options mean together, with examples: [usage.md](usage.md)."]
    for title, text in helps():
        parts.append(f"## {title}\n\n```text\n{text}\n```")
    return "\n\n".join(parts) + "\n"


def helps() -> Iterator[tuple[str, str]]:
    """Each command line and its help."""
    top = click.Context(
        cli,
        info_name="kubectl llmdoctor",
        terminal_width=COLUMNS,
        max_content_width=COLUMNS,
        help_option_names=["-h", "--help"],
    )
    yield "kubectl llmdoctor", cli.get_help(top)
    for name in COMMANDS:
        command = cli.get_command(top, name)
        if command is not None:
            context = click.Context(command, parent=top, info_name=name, terminal_width=COLUMNS)
            yield f"kubectl llmdoctor {name}", command.get_help(context)
            for part, below in command.commands.items() if isinstance(command, click.Group) else ():
                inner = click.Context(below, parent=context, info_name=part, terminal_width=COLUMNS)
                yield f"kubectl llmdoctor {name} {part}", below.get_help(inner)


# --- the picture ------------------------------------------------------------------------------------------------------


def picture() -> str:
    """The demo's report as an 80-column terminal shows it."""
    from rich.console import Console
    from rich.terminal_theme import DIMMED_MONOKAI
    from rich.text import Text

    report = render(diagnose(load(str(DEMO)), installed()), width=COLUMNS, color=True)
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), color_system="truecolor", force_terminal=True)
    for line in Text.from_ansi(f"\x1b[1m$ {DEMO_COMMAND}\x1b[0m\n\n{report.rstrip()}").split("\n", allow_blank=True):
        # A terminal breaks a line that is too long wherever it ends.
        for piece in line.divide(range(COLUMNS, max(line.cell_len, 1), COLUMNS)):
            console.print(piece, no_wrap=True, crop=False)
    svg = console.export_svg(title="kubectl llmdoctor", theme=DIMMED_MONOKAI, unique_id="llmdoctor")
    # The picture must not load a font from anywhere.
    svg = re.sub(r"\s*@font-face \{.*?\}\n", "\n", svg, flags=re.DOTALL)
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


# --- files ------------------------------------------------------------------------------------------------------------


def stale() -> list[Path]:
    """Pages of checks that are no more, files of deployments that nobody writes."""
    known = expected()
    there = [*(DOCS / "checks").glob("*.md"), *(p for p in DEPLOY.rglob("*") if p.is_file())]
    return [path for path in sorted(there) if path not in known]


def outdated() -> list[Path]:
    """Generated files that are missing, differ, or are left over."""
    wrong = [p for p, text in expected().items() if not p.is_file() or p.read_text(encoding="utf-8") != text]
    return [*wrong, *stale()]


def main(arguments: list[str]) -> int:
    """Rewrites the files, or only says which are out of date."""
    if arguments == ["--check"]:
        wrong = outdated()
        for path in wrong:
            sys.stderr.write(f"out of date: {path.relative_to(ROOT).as_posix()}; run `make docs`\n")
        return 1 if wrong else 0
    if arguments:
        sys.stderr.write("usage: python docs/generate.py [--check]\n")
        return 2
    for path, text in expected().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for path in stale():
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
