"""Who waits for tasks does something else meanwhile, and no longer than they take."""

import itertools
import threading
from collections.abc import Iterator

import pytest

from kubectl_llmdoctor.errors import AccessError
from kubectl_llmdoctor.gather.workers import Workers


def test_what_is_done_meanwhile_ends_with_the_tasks() -> None:
    go = threading.Event()
    done = list[int]()

    def meanwhile() -> Iterator[int]:
        for piece in itertools.count(1):  # without end: it is left when the task is done
            done.append(piece)
            if piece == 3:
                go.set()
            yield piece

    workers = Workers(2, meanwhile())
    workers.submit(lambda: assert_set(go))
    workers.drain()
    assert done[:3] == [1, 2, 3]


def assert_set(event: threading.Event) -> None:
    assert event.wait(10), "the main thread did nothing meanwhile"


def test_a_task_is_waited_for_when_nothing_is_left_to_do() -> None:
    left, done = iter("ab"), threading.Event()

    def task() -> None:
        threading.Event().wait(0.05)
        done.set()

    workers = Workers(2, left)
    workers.submit(task)
    workers.drain()
    assert done.is_set()
    assert list(left) == []


def test_what_ends_a_task_is_raised_though_there_is_more_to_do() -> None:
    def task() -> None:
        raise AccessError("refused")

    workers = Workers(2, itertools.count(1))
    workers.submit(task)
    with pytest.raises(AccessError, match="refused"):
        workers.settle()


def test_nothing_is_done_without_a_task() -> None:
    left = iter("ab")
    Workers(2, left).drain()
    assert list(left) == ["a", "b"]
