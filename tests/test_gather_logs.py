"""Logs as they stream in: whole up to a cap, cut between lines, masked whatever the pieces are."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest

from kubectl_llmdoctor.gather import logs
from kubectl_llmdoctor.gather.failure import RequestError, Why
from kubectl_llmdoctor.gather.related import LogRequest, log_requests
from kubectl_llmdoctor.snapshot import Cut


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


TEXT = "".join(f"line {number} of a log with ünïcödé\n" for number in range(1, 1001))


@pytest.mark.parametrize("size", [1, 7, 4096, 10**6])
def test_a_log_below_the_cap_is_kept_whole(size: int) -> None:
    found = logs.read(pieces(TEXT.encode(), size), 10**6)
    assert (found.text, found.cut, found.trouble) == (TEXT, None, None)


def test_a_log_without_an_end_of_line_is_kept() -> None:
    assert logs.read([b"one\ntwo"], 100).text == "one\ntwo"
    assert logs.read([], 100).text == ""


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert logs.read([b"a\xff\xe2\x82"], 100).text == "a\ufffd\ufffd"


@pytest.mark.parametrize("size", [1, 100, 10**6])
@pytest.mark.parametrize("cap", [400, 4001, 20_000])
def test_of_a_longer_log_head_and_tail_are_kept(cap: int, size: int) -> None:
    found = logs.read(pieces(TEXT.encode(), size), cap)
    assert found.cut is not None
    kept = found.text.encode()
    assert cap - 80 <= len(kept) <= cap
    assert len(kept) + found.cut.bytes == len(TEXT.encode())
    lines = TEXT.splitlines(keepends=True)
    head = "".join(lines[: found.cut.after_line])
    assert found.text.startswith(head)
    assert TEXT.endswith(found.text[len(head) :])
    assert found.text[len(head) :].startswith("line ")


def test_what_is_left_out_does_not_depend_on_the_pieces() -> None:
    cuts = {logs.read(pieces(TEXT.encode(), size), 5000).cut for size in (1, 50, 10_000)}
    assert len(cuts) == 1


def test_one_endless_line_is_cut_too() -> None:
    found = logs.read(pieces(b"x" * 100_000, 1000), 10_000)
    assert found.text == "x" * 5000 + "\n" + "x" * 5000
    assert found.cut == Cut(after_line=1, bytes=90_000)


def test_a_secret_is_masked_wherever_the_pieces_end() -> None:
    text = "start\nHF_TOKEN=hf_abcdefghijklmnopqrstuvwxyz0123456789\nend\n"
    found = {logs.read(pieces(text.encode(), size), 10**6).text for size in range(1, len(text) + 1)}
    (masked,) = found
    assert "hf_abc" not in masked
    assert masked.count("\n") == 3


def test_memory_stays_bounded() -> None:
    line = b"INFO 11-20 10:00:00 [loggers.py:116] Engine 000: Avg prompt throughput: 12.3 tokens/s\n"
    block = line * 200
    tracemalloc.start()
    found = logs.read((block for _ in range(1000)), 2**20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.cut is not None
    assert found.cut.bytes > 14 * 2**20
    assert peak < 8 * 2**20


def test_an_error_in_the_middle_keeps_what_came() -> None:
    def broken() -> Iterator[bytes]:
        yield b"one\ntw"
        raise RequestError(Why.BROKEN, "connection broken")

    found = logs.read(broken(), 100)
    assert found.text == "one\ntw"
    assert found.trouble is not None
    assert found.trouble.reason == "connection broken"


def test_an_error_at_the_beginning_is_raised() -> None:
    def refused() -> Iterator[bytes]:
        yield b""
        raise RequestError(Why.FORBIDDEN, "forbidden")

    with pytest.raises(RequestError):
        logs.read(refused(), 100)


RUNNING = {"running": {"startedAt": "2026-11-20T10:00:00Z"}}
ENDED = {"terminated": {"exitCode": 1}}
WAITING = {"waiting": {"reason": "CrashLoopBackOff"}}


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"state": {"waiting": {"reason": "ContainerCreating"}}, "restartCount": 0}, []),
        ({"state": {"waiting": {"reason": "ImagePullBackOff"}}}, []),
        ({"state": RUNNING, "restartCount": 0}, [(False, 0, False)]),
        ({"state": ENDED, "restartCount": 0}, [(False, 0, False)]),
        ({"state": RUNNING, "lastState": ENDED, "restartCount": 6}, [(True, 5, False), (False, 6, False)]),
        ({"state": ENDED, "lastState": ENDED, "restartCount": 1}, [(True, 0, False), (False, 1, False)]),
        ({"state": WAITING, "lastState": ENDED, "restartCount": 6}, [(True, 6, True)]),
        ({"state": WAITING, "restartCount": 2}, []),
        ({"state": RUNNING, "restartCount": 2}, [(False, 2, False)]),
    ],
)
def test_only_logs_that_exist_are_asked_for(row: dict[str, object], wanted: list[tuple[bool, int, bool]]) -> None:
    pod = {"status": {"containerStatuses": [{"name": "vllm", **row}]}}
    expected = [LogRequest(container="vllm", previous=p, restart=r, else_current=e) for p, r, e in wanted]
    assert list(log_requests(pod)) == expected
    assert list(log_requests({"status": {"initContainerStatuses": [{"name": "vllm", **row}]}})) == expected
