"""Logs: line numbers, times, what a carriage return overwrites; large logs are searched in one pass with the same result."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kubectl_llmdoctor.facts import logs
from kubectl_llmdoctor.facts.logs import Log
from kubectl_llmdoctor.snapshot import LogText


def _lines(log: Log, literal: str) -> list[tuple[int, str]]:
    return [(line.number, line.text) for line in log.find(literal)]


def test_every_line_with_the_literal_is_found_once_with_its_number() -> None:
    log = Log(LogText(text="a\nx x\n\nb x"))

    assert _lines(log, "x") == [(2, "x x"), (4, "b x")]
    assert len(log) == 4


def test_what_a_carriage_return_overwrote_is_gone() -> None:
    log = Log(LogText(text="10%\r50%\r100% done\r\nnext\n"))

    assert log.line(1).text == "100% done"
    assert len(log) == 2


def test_the_kubelets_time_is_not_part_of_the_text() -> None:
    log = Log(LogText(text="2026-11-20T10:00:01.123456789Z hello\n", timestamps=True))

    assert log.line(1).text == "hello"
    assert str(log.line(1).time) == "2026-11-20 10:00:01.123456+00:00"


@given(
    st.text(alphabet="abé\n\r ", max_size=60),
    st.lists(st.text(alphabet="abé ", min_size=1, max_size=3), min_size=1, max_size=5, unique=True),
)
def test_one_pass_over_a_large_log_finds_what_searching_one_by_one_finds(text: str, literals: list[str]) -> None:
    filler = "0123456789\n" * (logs._LARGE_CHARS // 11 + 1)
    source = LogText(text=filler + text)
    large, plain = Log(source, tuple(literals)), Log(source)

    for literal in literals:
        assert _lines(large, literal) == _lines(plain, literal)


def test_hits_on_both_sides_of_every_piece_are_found() -> None:
    text = "".join(f"line {n} é\n" for n in range(2 * logs._PIECE_LINES + 2))
    log = Log(LogText(text=text), ("line",))

    assert [line.number for line in log.find("line")] == list(range(1, 2 * logs._PIECE_LINES + 3))
