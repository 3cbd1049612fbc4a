"""The exam: its commands exist, its verdicts follow from what they print, its table survives."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from tests.exam import HEAD, PAGE, Measure, measures, rows_of, table, take

ROOT = Path(__file__).resolve().parent.parent


def measure(script: str, **more: object) -> Measure:
    given = {"figure": "accuracy .*", "least": 0.95, "also": ("crashed 0",), **more}
    return Measure(name="x", demanded="y", command=(sys.executable, "-c", script), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("script", "verdict", "figure"),
    [
        ("print('accuracy 0.951 (1/2), crashed 0')", "ok", "accuracy 0.951 (1/2), crashed 0"),
        ("print('accuracy 0.949 (1/2), crashed 0')", "missed", "accuracy 0.949 (1/2), crashed 0"),
        ("print('accuracy 0.999 (1/2), crashed 1')", "missed", "accuracy 0.999 (1/2), crashed 1"),
        ("print('accuracy 0.999, crashed 0'); exit(1)", "missed", "accuracy 0.999, crashed 0"),
        ("print('nothing'); exit(3)", "missed", "exit 3: nothing"),
        ("", "missed", "exit 0: no output"),
    ],
)
def test_the_verdict_follows_from_the_output(script: str, verdict: str, figure: str) -> None:
    assert take(measure(script)) == (verdict, figure)


def test_what_cannot_be_measured_here_is_neither_right_nor_wrong(tmp_path: Path) -> None:
    assert take(measure("print(1)", needs=tmp_path / "answers.yaml")) == ("not here", "no answers.yaml")


def test_every_measure_is_a_program_of_this_repository_or_of_the_sets(tmp_path: Path) -> None:
    known = measures(tmp_path)

    assert len({one.name for one in known}) == len(known)
    for one in known:
        if one.command[1] == "-m":
            assert importlib.util.find_spec(one.command[2]), one.name
        else:
            assert Path(one.command[1]).is_relative_to(tmp_path), one.name


def test_the_table_is_read_back() -> None:
    rows: list[tuple[str, ...]] = [("a", "≥ 1", "2 | 3", "ok", "2026-11-27"), ("b", "x", "y", "missed", "2026-11-26")]
    page = f"<!-- exam: begin -->\n{table(rows, 'a machine')}\n<!-- exam: end -->\n"

    assert list(rows_of(page).values()) == [("a", "≥ 1", "2 / 3", "ok", "2026-11-27"), rows[1]]


def test_the_page_has_measures_and_names_none_that_is_no_more() -> None:
    rows = rows_of(PAGE.read_text(encoding="utf-8"))

    assert rows
    assert set(rows) <= {one.name for one in measures(ROOT)}
    assert all(len(row) == len(HEAD) for row in rows.values())
