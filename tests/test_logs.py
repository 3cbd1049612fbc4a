"""Logs: line numbers, times, what a carriage return overwrites; large logs are searched in one pass with the same result."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.traceback import Traceback

from kubectl_llmdoctor.facts import logs
from kubectl_llmdoctor.facts.logs import Log
from kubectl_llmdoctor.snapshot import LogText


def _lines(log: Log, literal: str) -> list[tuple[int, str]]:
    found = [(line.number, line.text) for line in log.find(literal)]
    assert log.holds(literal) == bool(found)
    return found


def test_every_line_with_the_literal_is_found_once_with_its_number() -> None:
    log = Log(LogText(text="a\nx x\n\nb x"))

    assert _lines(log, "x") == [(2, "x x"), (4, "b x")]
    assert len(log) == 4


def test_lines_above_another_and_the_last_ones_stop_where_the_log_does() -> None:
    log = Log(LogText(text="a\nb\nc\nd"))

    assert [line.text for line in log.line(3).above(5)] == ["a", "b"]
    assert log.line(1).above(5) == []
    assert [line.text for line in log.tail(1)] == ["c", "d"]
    assert [line.text for line in log.tail(9)] == ["a", "b", "c", "d"]


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


def _printed(message: str) -> str:
    """What Rich prints of an exception where no terminal is."""
    printed = io.StringIO()
    try:
        raise RuntimeError(message)
    except RuntimeError:
        Console(file=printed, width=80).print(Traceback())
    return printed.getvalue()


_MESSAGES = (
    "CUDA error: no kernel image is available for execution on the device\n"
    "CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below may be wrong.",
    "short",
    f"the file /data/{'x' * 90}/config.json of a model with a long path is not there at all, so it cannot be read",
)


@pytest.mark.parametrize("stripped", [False, True], ids=["as printed", "without blanks at the ends"])
@pytest.mark.parametrize("message", _MESSAGES)
def test_what_rich_wrapped_below_its_frame_is_one_line(message: str, stripped: bool) -> None:
    printed = (
        _printed(message) + "2026-06-02T08:00:00.000000Z ERROR text_generation_launcher: Shard 0 failed to start\n"
    )
    printed = "\n".join(map(str.rstrip, printed.split("\n"))) if stripped else printed
    log = Log(LogText(text=printed))
    raw = printed.split("\n")

    assert len(log) == len(raw) - 1
    for part in message.split("\n"):
        (line,) = log.find(part)
        assert raw[line.number - 1].removeprefix("RuntimeError: ").startswith(part[:5])
    (last,) = log.find("text_generation_launcher")
    assert last.text == raw[-2]


def test_what_rich_wrapped_is_found_behind_the_kubelets_times() -> None:
    stamped = "".join(
        f"2026-06-02T08:00:00.{n:09}Z {line}\n" for n, line in enumerate(_printed(_MESSAGES[0]).splitlines())
    )
    log = Log(LogText(text=stamped, timestamps=True))

    (line,) = log.find("no kernel image is available for execution on the device")
    assert line.text.endswith("on the device")
    assert line.time is not None
    assert log.line(line.number + 1).text == ""
    assert log.time_of(line.number + 1) is not None


def test_a_frame_without_a_message_is_left_alone() -> None:
    for text in ("╰────╯", "╰────╯\n", "│ x │\n╰────╯\n\nError: y z\n", "╰────╯\n│ next │\n"):
        assert Log(LogText(text=text)).text == text


_MODELS = """\
+-------+---------+----------------------------------------+
| Model | Version | Status                                 |
+-------+---------+----------------------------------------+
| post  | 1       | READY                                  |
| llm   | 1       | UNAVAILABLE: Internal: no engine in th |
|       |         | e folder of the model                  |
|       |         | 1  0x7f libtriton.so(+0x36045)         |
| bls   | 1       | READY                                  |
+-------+---------+----------------------------------------+
"""


@pytest.mark.parametrize("timestamps", [False, True])
def test_what_tritons_table_broke_is_one_line(timestamps: bool) -> None:
    stamp = "2026-06-02T08:00:00.000000001Z " if timestamps else ""
    log = Log(LogText(text="".join(f"{stamp}{line}\n" for line in _MODELS.splitlines()), timestamps=timestamps))

    (line,) = log.find("no engine in the folder of the model")
    assert line.number == 5
    assert "libtriton.so" in line.text
    assert [log.line(number).text for number in (6, 7)] == ["", ""]
    assert log.line(8).text == _MODELS.splitlines()[7]
    assert len(log) == len(_MODELS.splitlines())


def test_what_tritons_table_broke_at_a_blank_goes_on() -> None:
    text = (
        "| llm   | 1       | UNAVAILABLE: Internal: unable to load |\n"
        "|       |         |  shared library                       |\n"
    )

    (line,) = Log(LogText(text=text)).find("unable to load shared library")
    assert line.number == 1


def test_a_table_that_goes_no_further_is_left_as_it_is() -> None:
    for text in (
        "| llm | 1 | UNAVAILABLE: x |",
        "| llm | 1 | UNAVAILABLE: x |\n| bls | 1 | READY |\n",
        "a UNAVAILABLE: b\n",
    ):
        (line,) = Log(LogText(text=text)).find("UNAVAILABLE")
        assert line.text == text.split("\n")[0].removesuffix(" |")


def test_a_literal_is_found_where_an_actors_mark_tears_it() -> None:
    text = (
        "ValueError: plain\n"
        "ValueError: [address=0.0.0.0:36279, pid=98] No such engine\n"
        "INFO started and running address=0.0.0.0:8080\n"
        "ValueError: No such engine\n"
    )
    log = Log(LogText(pod="xi-0", container="xinference", text=text))
    assert [number for number, _ in _lines(log, "ValueError: No such")] == [2, 4]
    assert [number for number, _ in _lines(log, "No such engine")] == [2, 4]
    assert [number for number, _ in _lines(log.since(3), "ValueError: No such")] == [4]
    assert _lines(log.since(3), "plain") == []
    assert next(log.find("ValueError: No such")).text.startswith("ValueError: [address=")
