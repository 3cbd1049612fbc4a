"""Work on thousands of things in as many processes as there are processors; what comes out is the same."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def pieces(work: Callable[[Sequence[T]], R], things: Sequence[T], *, least: int) -> list[R]:
    """The results of `work` for consecutive pieces of `things`, in order, of at least `least` things each.

    The first piece is done here and each other one in a forked process, which sends back its result pickled and ends.
    What `work` changes in a forked process is lost. A piece whose process fails is done here. Where forking is not safe
    (outside Linux, beside other threads) there is one piece.
    """
    count = len(things) // least
    count = min(count, _processors()) if count > 1 else 1
    bounds = [len(things) * n // count for n in range(count + 1)]
    parts = [things[start:end] for start, end in itertools.pairwise(bounds)]
    others = [_started(work, part) for part in parts[1:]]
    results = [work(parts[0])]
    for part, other in zip(parts[1:], others, strict=True):
        found = _received(*other)
        results.append(work(part) if found is None else found[0])
    return results


def _processors() -> int:
    import threading

    if sys.platform != "linux" or threading.active_count() > 1:
        return 1
    return len(os.sched_getaffinity(0))


def _started(work: Callable[[Sequence[T]], Any], part: Sequence[T]) -> tuple[int, int]:
    """A process at work, and where its result will come from."""
    source, target = os.pipe()
    child = os.fork()
    if child:
        os.close(target)
        return child, source
    try:  # nothing of the parent may run here: no handler at exit, no buffer that is flushed twice
        import pickle

        os.close(source)
        with open(target, "wb") as pipe:  # noqa: PTH123
            pickle.dump((work(part),), pipe, pickle.HIGHEST_PROTOCOL)
    finally:
        os._exit(0)


def _received(child: int, source: int) -> tuple[Any] | None:
    """The result in a tuple; None where the process broke off."""
    import pickle

    with open(source, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    try:
        found: tuple[Any] = pickle.loads(data)  # noqa: S301 # from our own process
    except (EOFError, pickle.UnpicklingError):
        return None
    return found
