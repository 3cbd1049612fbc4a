"""Every measure of the project at full size: ``python -m tests.exam [--sets FOLDER] [--only NAME …] [--write]``.

What CI runs is a fixed sample of this within its time. `--sets` is a folder of recorded sets with their scoring programs,
which are not part of the repository: `incidents/`, `real-engines/`, `scheduling/`, `manifests/`. With `--write` the table
of docs/measures.md is renewed: the rows of what was run, and the machine. Exit code 1 when a measure is missed; one that
cannot be taken here says why and counts as neither.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "measures.md"
BEGIN, END = "<!-- exam: begin -->", "<!-- exam: end -->"
HEAD = ("measure", "demanded", "measured", "", "date")

_DIAGNOSE = f"{sys.executable} -m kubectl_llmdoctor diagnose --from {{}} -o json --agent off --prometheus off"


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A command and what its output must say; `figure` is the line that holds the result, `least` the first number's bound."""

    name: str
    demanded: str
    command: tuple[str, ...]
    figure: str
    least: float | None = None
    #: further patterns that must be found in the output
    also: tuple[str, ...] = ()
    #: what must be there for it
    needs: Path | None = None


def measures(sets: Path) -> list[Measure]:
    """All of them; those of recorded sets look below `sets`."""
    python = sys.executable

    def module(name: str, *arguments: str) -> tuple[str, ...]:
        return (python, "-m", name, *arguments)

    def scored(folder: str, least: float) -> Measure:
        answers = sets / folder / "answers.yaml"
        return Measure(
            name=folder,
            demanded=f"accuracy ≥ {least}, 0 crashes, 0 false alarms",
            command=(python, str(sets / "incidents" / "score.py"), "--program", _DIAGNOSE, "--answers", str(answers)),
            figure=r"accuracy .*",
            least=least,
            also=(r"crashed 0, false alarms 0",),
            needs=answers,
        )

    limits = "--min-recall 0.85 --max-violations 0 --max-causes 0 --max-mean-risks 0.7 --min-precision 0.8"
    limits += " --min-engine 0.97 --min-config 0.97 --max-errors 0"
    archive = next(iter(sorted((ROOT / "dist").glob("*_linux_amd64.tar.gz"))), ROOT / "dist" / "archive")
    return [
        Measure(
            name="unit tests", demanded="all pass", command=module("pytest", "-q", "-n", "auto"), figure=r".*\d+ passed.*"
        ),
        scored("incidents", 0.95),
        scored("real-engines", 0.95),
        scored("scheduling", 0.97),
        Measure(
            name="lint of published manifests",
            demanded="recall ≥ 0.85, precision ≥ 0.8, no violation",
            command=(
                python, str(sets / "manifests" / "score_lint.py"), *limits.split(), "--", python, "-m", "kubectl_llmdoctor"
            ),
            figure=r"must .*|precision .*",
            needs=sets / "manifests" / "score_lint.py",
        ),
        Measure(
            name="anonymised, and as support bundles",
            demanded="the same causes",
            command=module("tests.alike", str(sets / "incidents" / "snapshots")),
            figure=r"alike: .*",
            needs=sets / "incidents" / "snapshots",
        ),
        Measure(
            name="agreement with kube-scheduler",
            demanded="≥ 0.999 of 2,000 pairs; first fixes work",
            command=module("tests.e2e.agreement", "--pairs", "2000", "--simulate", "200", "--live", "20"),
            figure=r".*agree.*",
        ),
        Measure(
            name="end to end", demanded="all pass", command=module("tests.e2e.run", "-q"), figure=r".*\d+ passed.*"
        ),
        Measure(
            name="audit of 10,000 pods",
            demanded="≤ 0.5 × kubectl get, ≤ 4 × the plain lists, ≤ 400 MB",
            command=module("tests.e2e.run", "tests/e2e/test_audit.py", "-q", "-s"),
            figure=r"audit: \d+ nodes.*",
        ),
        Measure(name="start-up", demanded="≤ 2 × and ≤ 4 × kubectl", command=module("tests.bench"), figure=r".*kubectl.*"),
        Measure(
            name="start-up of the archive",
            demanded="≤ 2 × and ≤ 4 × kubectl",
            command=module("tests.bench", str(archive)),
            figure=r".*kubectl.*",
            needs=archive,
        ),
        Measure(
            name="lint of 2,000 manifests",
            demanded="≤ 1 × kube-score",
            command=module("tests.bench.lint"),
            figure=r".*(?:kube-score|per manifest).*",
        ),
        Measure(
            name="a log of 200 MB", demanded="≤ 10 × ripgrep", command=module("tests.bench.length"), figure=r"length: .*"
        ),
        Measure(name="node agent", demanded="its bounds", command=module("tests.bench.agent"), figure=r".* MiB RSS.*"),
    ]  # fmt: skip


def take(measure: Measure) -> tuple[str, str]:
    """The verdict (`ok`, `missed`, `not here`) and the figure, or the reason."""
    if measure.needs is not None and not measure.needs.exists():
        return "not here", f"no {measure.needs.name}"
    environment = os.environ | {"LLMDOCTOR_EXAM": "1"}  # at full size what e2e runs as a sample
    done = subprocess.run(measure.command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    lines = [line.strip() for line in output.splitlines() if re.fullmatch(measure.figure, line.strip())]
    if not lines:
        last = next((line for line in reversed(output.splitlines()) if line.strip()), "no output")
        return "missed", f"exit {done.returncode}: {last.strip()[:200]}"
    figure = "; ".join(lines[-2:])
    number = re.search(r"\d+\.\d+", figure)
    enough = measure.least is None or (number is not None and float(number[0]) >= measure.least)
    said = all(re.search(pattern, output) for pattern in measure.also)
    return ("ok" if done.returncode == 0 and enough and said else "missed"), figure


def machine() -> str:
    """The machine in words: a figure means nothing without it."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and (found := re.search(r"model name\s*: (.*)", cpuinfo.read_text())):
        model = found[1]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} × {model}, {memory:.0f} GiB, {platform.system()} {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}, load {load:.0f} when it began"
    )


def rows_of(page: str) -> dict[str, tuple[str, ...]]:
    """The rows of the page's table by measure."""
    rows = {}
    for line in page.partition(BEGIN)[2].partition(END)[0].splitlines():
        cells = tuple(cell.strip() for cell in line.strip().strip("|").split(" | "))
        if len(cells) == len(HEAD) and not cells[0].startswith(("measure", "---")):
            rows[cells[0]] = cells
    return rows


def table(rows: list[tuple[str, ...]], where: str) -> str:
    """The table as Markdown, with the machine above it."""
    lines = [f"Last run on {where}.", "", f"| {' | '.join(HEAD)} |", f"|{' --- |' * len(HEAD)}"]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return "\n".join(lines)


def main() -> int:
    """Takes the measures, prints the table, and writes it when asked."""
    parser = argparse.ArgumentParser(prog="python -m tests.exam", description=__doc__)
    parser.add_argument("--sets", type=Path, default=Path(os.environ.get("LLMDOCTOR_SETS", ROOT.parent / "shared")))
    parser.add_argument("--only", nargs="*", default=[], help="names of measures")
    parser.add_argument("--write", action="store_true", help="renew docs/measures.md")
    arguments = parser.parse_args()
    where, today = machine(), datetime.datetime.now(datetime.UTC).date().isoformat()
    known = measures(arguments.sets)
    if unknown := set(arguments.only) - {measure.name for measure in known}:
        parser.error(f"no measure is called {', '.join(sorted(unknown))}")
    page = PAGE.read_text(encoding="utf-8")
    rows = rows_of(page)
    missed = 0
    for measure in known:
        if arguments.only and measure.name not in arguments.only:
            continue
        start = time.monotonic()
        verdict, figure = take(measure)
        missed += verdict == "missed"
        print(f"{verdict:9} {measure.name}: {figure} ({time.monotonic() - start:.0f} s)", flush=True)
        if verdict == "missed":
            print(f"          {shlex.join(measure.command)}", flush=True)
        if verdict != "not here":
            rows[measure.name] = (measure.name, measure.demanded, figure, verdict, today)
    listed = [rows[measure.name] for measure in known if measure.name in rows]
    text = table(listed, where)
    print(f"\n{text}")
    if arguments.write:
        before, after = page.partition(BEGIN)[0], page.partition(END)[2]
        PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
