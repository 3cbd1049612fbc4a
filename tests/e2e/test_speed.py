"""One diagnosis costs little more than the five commands that it replaces."""

import statistics
from pathlib import Path

import pytest

from .conftest import Doctor
from .controlplane import ControlPlane
from .play import Object
from .program import run

RUNS = 5
ALLOWED = 1.2
BY_HAND = (
    ("get", "pod", "llama-0", "-o", "yaml"),
    ("describe", "pod", "llama-0"),
    ("logs", "llama-0"),
    ("logs", "-p", "llama-0"),
    ("get", "events"),
)


def test_diagnose_against_kubectl(
    crashed: Object, cluster: ControlPlane, doctor: Doctor, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    by_hand, by_program = [], []
    for _ in range(RUNS + 1):
        parts = [
            run(["kubectl", *command, "-n", "serving"], home, {"KUBECONFIG": str(cluster.admin)}) for command in BY_HAND
        ]
        assert all(part.code == 0 for part in parts)
        result = doctor("diagnose", "llama-0", "-n", "serving")
        assert result.code == 1
        by_hand.append(sum(part.seconds for part in parts))
        by_program.append(result.seconds)
    # The first round fills caches (discovery, byte code, page cache) and does not count.
    hand, ours = statistics.median(by_hand[1:]), statistics.median(by_program[1:])
    with capsys.disabled():
        print(f"\nspeed: kubectl llmdoctor diagnose {ours:.3f} s, five kubectl commands {hand:.3f} s, ", end="")
        print(f"ratio {ours / hand:.2f} (medians of {RUNS}, at most {ALLOWED})")
    assert ours <= ALLOWED * hand
