"""Work in several processes gives what it gives in one. In processes of their own: the test runner has threads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bench.lint import write

_LINT = """
import sys
from kubectl_llmdoctor import forked
forked._processors = lambda: {processors}
from kubectl_llmdoctor.cli import main
main(sys.argv[1:])
"""

_RULES = """
ignore:
  - {id: shm-too-small, name: model-99, reason: of the last piece}
  - {id: hostpath-missing, reason: matches nothing}
"""

_PIECES = """
import os
from kubectl_llmdoctor import forked
forked._processors = lambda: 3
here = os.getpid()

def work(part):
    if os.getpid() != here:
        {breaks}
    return os.getpid() == here, list(part)

found = forked.pieces(work, range({count}), least=2)
print([where for where, _ in found], sum((part for _, part in found), []) == list(range({count})))
"""


def _run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)


def test_lint_says_the_same_in_any_number_of_processes(tmp_path: Path) -> None:
    """Findings and their order, what was not read, and which suppressions had an effect."""
    write(tmp_path, count=480)
    (tmp_path / "team-1" / "broken.yaml").write_text("a: [", encoding="utf-8")
    (tmp_path / "team-18" / "values.yaml").write_text("a: 1", encoding="utf-8")
    rules = tmp_path / ".llmdoctor.yaml"
    rules.write_text(_RULES, encoding="utf-8")
    arguments = ["lint", "-o", "json", "--config", str(rules), str(tmp_path)]

    one = _run(_LINT.format(processors=1), *arguments)
    three = _run(_LINT.format(processors=3), *arguments)

    assert one.returncode == 1
    assert one.stdout == three.stdout
    report: dict[str, Any] = json.loads(one.stdout)
    assert len(report["targets"]) == 120
    assert len(report["notRead"]) == 2
    assert [s["id"] for t in report["targets"] for s in t.get("suppressed", ())] == ["shm-too-small"]
    assert [u["id"] for u in report["unusedSuppressions"]] == ["hostpath-missing"]


@pytest.mark.parametrize(
    ("breaks", "count", "where"),
    [
        ("pass", 9, "[True, False, False]"),
        ("pass", 3, "[True]"),
        ("pass", 0, "[True]"),
        ("os.kill(os.getpid(), 9)", 9, "[True, True, True]"),
        ("raise MemoryError", 9, "[True, True, True]"),
    ],
    ids=["many", "few", "none", "killed", "raises"],
)
def test_pieces_stay_in_order(breaks: str, count: int, where: str) -> None:
    """A piece whose process breaks off is done by the first one."""
    done = _run(_PIECES.format(breaks=breaks, count=count))

    assert done.stdout.strip() == f"{where} True", done.stderr
