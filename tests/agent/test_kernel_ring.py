"""The kernel's log by syslog(2)."""

from __future__ import annotations

import os

import pytest
from llmdoctor_agent.kernel_ring import KernelRing, read_all

XID = b"<4>[  100.000001] NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.\n"
NOISE = b"<6>[   99.000000] eth0: link becomes ready\n"
KILLED = (
    b"<3>[  200.500000][ T4711] Memory cgroup out of memory: Killed process 4711 (python3) total-vm:1kB, anon-rss:1kB\n"
)


def test_the_lines_that_matter_with_the_time_of_day() -> None:
    text, error = KernelRing(lambda: NOISE + XID + KILLED).read()

    assert error is None
    assert text
    first, second = text.splitlines()
    assert first.endswith("Z NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.")
    assert first[:2] == "20"
    assert "Killed process 4711 (python3)" in second


def test_a_line_is_kept_once_while_the_log_grows_and_turns_over() -> None:
    log = [NOISE + XID]
    ring = KernelRing(lambda: log[0])

    ring.read()
    log[0] += KILLED
    ring.read()
    text, _ = ring.read()
    assert text
    assert len(text.splitlines()) == 2
    # all that was there has been overwritten since
    log[0] = XID.replace(b"79", b"48")
    text, _ = ring.read()
    assert text
    assert [line.partition("): ")[2][:2] for line in text.splitlines() if "Xid" in line] == ["79", "48"]


def test_a_log_without_times_and_what_a_program_wrote_into_it() -> None:
    """The kernel marks what user space writes with another facility."""
    forged = XID.replace(b"<4>", b"<12>")

    text, _ = KernelRing(
        lambda: forged + b"<4>NVRM: GPU 0000:3b:00.0: RmInitAdapter failed!\nno priority\n<4>[cut"
    ).read()

    assert text == "NVRM: GPU 0000:3b:00.0: RmInitAdapter failed!\n"


def test_without_the_capability_it_says_what_it_needs() -> None:
    def refused() -> bytes:
        raise PermissionError(1, os.strerror(1))

    text, error = KernelRing(refused).read()

    assert text is None
    assert error
    assert (error.source, "CAP_SYSLOG" in error.reason) == ("kernel-log", True)


def test_the_log_of_this_machine() -> None:
    try:
        text = read_all()
    except OSError as error:
        pytest.skip(f"syslog(2): {error.strerror}")
    lines = text.splitlines()
    if len(lines) < 2:
        pytest.skip("the log is empty")
    # the first line may have lost its beginning
    assert all(line.startswith(b"<") for line in lines[1:20])
    assert KernelRing().read()[1] is None
