"""The kernel's log: what is kept of it, when it was, and what a reader makes of it."""

from __future__ import annotations

import os
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llmdoctor_agent.kernel_log import KernelLog

from kubectl_llmdoctor.facts.kernel_log import KernelLog as Reader

REAL = Path(__file__).with_name("kmsg.txt")
BOOT = datetime(2026, 11, 20, 6, tzinfo=UTC)
UID = "6f1d2c3b-8a90-4e57-b1c2-0d9e8f7a6b5c"


class Clock:
    """The machine's clocks: seconds awake and asleep since it was started, and how far the time of day was set."""

    def __init__(self, awake: float = 10_000) -> None:
        self.awake, self.asleep, self.set_by = awake, 0.0, 0.0

    def now(self) -> datetime:
        return BOOT + timedelta(seconds=self.awake + self.asleep + self.set_by)

    def uptime(self, clock: int) -> float:
        return self.awake + (self.asleep if clock == time.CLOCK_BOOTTIME else 0)


def log_of(path: Path, clock: Clock | None = None, max_bytes: int = 65536) -> KernelLog:
    clock = clock or Clock()
    return KernelLog(path, deadline_s=60, max_bytes=max_bytes, clock=clock.now, uptime=clock.uptime)


def record(sequence: int, text: str, at: float = 9000, flags: str = "-", priority: int = 4) -> str:
    return f"{priority},{sequence},{int(at * 1e6)},{flags};{text}\n"


def xid(number: int, sequence: int = 0, at: float = 9000) -> str:
    return record(sequence or number, f"NVRM: Xid (PCI:0000:3b:00): {number}, pid=1, name=vllm, x", at)


def lines(log: KernelLog) -> list[str]:
    text, error = log.read()
    assert error is None
    assert text is not None
    return text.splitlines()


def texts(log: KernelLog) -> list[str]:
    return [re.sub(r"^\S+Z ", "", line) for line in lines(log)]


def test_what_is_kept_of_a_real_log() -> None:
    found = [(line[:20], line[28:64]) for line in lines(log_of(REAL))]

    assert found == [
        ("2026-11-20T06:00:14.", "nvidia-nvlink: Nvlink Core is being "),
        ("2026-11-20T06:00:14.", "nvidia: loading out-of-tree module t"),
        ("2026-11-20T06:00:15.", "NVRM: loading NVIDIA UNIX Open Kerne"),
        ("2026-11-20T07:00:00.", "pcieport 0000:3a:00.0: AER: Correcta"),
        ("2026-11-20T07:00:00.", "nvidia 0000:3b:00.0: PCIe Bus Error:"),
        ("2026-11-20T07:00:00.", "nvidia 0000:3b:00.0:   device [10de:"),
        ("2026-11-20T07:00:00.", "nvidia 0000:3b:00.0:    [ 0] RxErr  "),
        ("2026-11-20T08:00:00.", "NVRM: Xid (PCI:0000:3b:00): 31, pid="),
        ("2026-11-20T08:00:00.", "nvidia-nvswitch3: SXid (PCI:0000:05:"),
        ("2026-11-20T08:00:00.", "NVRM: The NVIDIA GPU 0000:18:00.0"),
        ("2026-11-20T08:00:00.", "NVRM: (PCI ID: 10de:2330) installed "),
        ("2026-11-20T08:00:00.", "NVRM: fallen off the bus and is not "),
        ("2026-11-20T08:00:00.", "amdgpu 0000:c1:00.0: amdgpu: ring gf"),
        ("2026-11-20T08:00:00.", "python3[4712]: segfault at 0 ip 0000"),
        ("2026-11-20T08:30:00.", "python3 invoked oom-killer: gfp_mask"),
        ("2026-11-20T08:30:00.", "memory: usage 33554432kB, limit 3355"),
        ("2026-11-20T08:30:00.", "Memory cgroup stats for /kubepods.sl"),
        ("2026-11-20T08:30:00.", "anon 12884901888"),
        ("2026-11-20T08:30:00.", "file 21474836480"),
        ("2026-11-20T08:30:00.", "shmem 20401094656"),
        ("2026-11-20T08:30:00.", "oom-kill:constraint=CONSTRAINT_MEMCG"),
        ("2026-11-20T08:30:00.", "Memory cgroup out of memory: Killed "),
        ("2026-11-20T08:30:00.", "oom_reaper: reaped process 1234 (pyt"),
    ]


def test_a_reader_finds_the_errors_with_their_times() -> None:
    text, _ = log_of(REAL).read()
    reader = Reader(text or "", "gpu-1", None)

    (found,) = reader.xids  # and not the one that a process wrote into the log
    assert (found.number, found.bus, found.pid) == (31, "0000:3b:00", 4711)
    assert found.time == BOOT + timedelta(hours=2)
    assert [error.line.time for error in reader.switch_errors] == [BOOT + timedelta(hours=2, microseconds=100)]
    assert [line.text[28:] for line in reader.lost] == ["NVRM: fallen off the bus and is not responding to commands."]
    (kill,) = reader.kills
    assert (kill.process, kill.pod_uid, kill.container_id) == ("python3", UID, "ab" * 32)
    assert kill.shmem == 19922944 * 1024
    assert kill.time == BOOT + timedelta(hours=2, minutes=30, microseconds=160)


@pytest.mark.parametrize(
    "text",
    [
        "NVRM: Xid (0000:03:00): 14, Channel 00000001",
        "NVRM: GPU 0000:18:00.0: GPU has fallen off the bus.",
        "NVRM: API mismatch: the client has the version 570.124.06, but",
        "NVRM: nvAssertOkFailedNoLog: Assertion failed: Out of memory [NV_ERR_NO_MEMORY] (0x00000051)",
        "nvidia-peermem nv_get_p2p_free_callback:127 ERROR detected invalid context, skipping further processing",
        "nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 12028, Non-fatal, Link 32 egress non-posted PRIV error (First)",
        "[drm:amdgpu_job_timedout [amdgpu]] *ERROR* ring gfx timeout, signaled seq=1",
        "pcieport 0000:00:1d.0: AER: Corrected error received: 0000:00:1d.0",
        "pcieport 0000:00:1d.0: PCIe Bus Error: severity=Corrected, type=Physical Layer, (Receiver ID)",
        "pcieport 0000:00:1d.0:   device [8086:a29e] error status/mask=00000001/00002000",
        "pcieport 0000:00:1d.0: DPC: containment event, status:0x1f01 source:0x0000",
        "pcieport 0000:00:1d.0: pciehp: Slot(3): Link Down",
        "{1}[Hardware Error]:   device_id: 0000:3b:00.0",
        "Out of memory: Killed process 77 (python3) total-vm:1kB, anon-rss:1kB, file-rss:0kB, shmem-rss:0kB",
        "Memory cgroup out of memory: Kill process 77 (python3) score 1954 or sacrifice child",
        "Task in /kubepods/burstable/pod1/ab killed as a result of limit of /kubepods/burstable/pod1",
        "Tasks in /kubepods.slice/x are going to be killed due to memory.oom.group set",
    ],
)
def test_lines_of_all_vintages_are_kept(tmp_path: Path, text: str) -> None:
    (tmp_path / "kmsg").write_text(record(1, text))

    assert texts(log_of(tmp_path / "kmsg")) == [text]


@pytest.mark.parametrize(
    "text",
    [
        "audit: type=1400 audit(1): apparmor=DENIED comm=nvidia-smi",
        "pci 0000:3b:00.0: [10de:2330] type 00 class 0x030200",
        "shmem 4096",
        "EXT4-fs (nvme0n1p1): mounted filesystem",
        "",
    ],
)
def test_other_lines_are_not(tmp_path: Path, text: str) -> None:
    (tmp_path / "kmsg").write_text(record(1, text))

    assert texts(log_of(tmp_path / "kmsg")) == []


def test_escapes_are_undone_but_not_for_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "kmsg").write_text(record(1, r"NVRM: a\x09b\x5cc\x1b[31m\xc3\xa4"))

    assert texts(log_of(tmp_path / "kmsg")) == [r"NVRM: a b\c\x1b[31m\xc3\xa4"]


def test_pieces_of_a_line_are_put_together(tmp_path: Path) -> None:
    pieces = record(1, "NVRM: Xid (PCI:0000:3b:00): 13,", flags="c") + record(2, " pid=7", flags="+")
    others = record(3, "hub 1-0:1.0: ", flags="c") + record(4, "NVRM: not a line", flags="+")
    (tmp_path / "kmsg").write_text(pieces + others)

    assert texts(log_of(tmp_path / "kmsg")) == ["NVRM: Xid (PCI:0000:3b:00): 13, pid=7"]


def test_only_the_kernels_own_records_count(tmp_path: Path) -> None:
    (tmp_path / "kmsg").write_text("".join(record(n, f"NVRM: {n}", priority=n) for n in range(24)))

    assert texts(log_of(tmp_path / "kmsg")) == [f"NVRM: {n}" for n in range(8)]


def test_garbage_between_records_is_passed_over(tmp_path: Path) -> None:
    garbage = b"\xff\x00;;,,\nNVRM: no record\n4,x,1,-;NVRM: y\n 4,1,1,-;NVRM: z\n" + b"\n" * 9
    (tmp_path / "kmsg").write_bytes(garbage + xid(79).encode() + garbage)

    assert len(texts(log_of(tmp_path / "kmsg"))) == 1


@settings(deadline=None)  # each makes a file
@given(st.binary(max_size=300))
def test_any_record_is_one_line_or_none(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    path = tmp_path_factory.mktemp("kmsg") / "kmsg"
    path.write_bytes(b"4,1,1,-;NVRM: " + text.replace(b"\n", b"") + b"\n")
    for line in lines(log_of(path)):
        assert line.isascii()
        assert line.isprintable()


# -- over time --------------------------------------------------------------------------------------------------------


def test_a_log_is_read_on(tmp_path: Path) -> None:
    path = tmp_path / "kmsg"
    path.write_text(xid(31))
    log = log_of(path)
    assert len(lines(log)) == 1
    with path.open("a") as file:
        file.write(xid(79)[:20])
        file.flush()
        assert len(lines(log)) == 1
        file.write(xid(79)[20:])
    assert [line[28:58] for line in lines(log)] == ["NVRM: Xid (PCI:0000:3b:00): 31", "NVRM: Xid (PCI:0000:3b:00): 79"]


def test_after_a_failure_nothing_is_there_twice(tmp_path: Path) -> None:
    path = tmp_path / "kmsg"
    path.write_text(xid(31))
    log = log_of(path)
    before = lines(log)
    log.close()
    path.unlink()
    assert log.read()[0] is None
    path.write_text(xid(31) + xid(79))

    assert lines(log)[:1] == before
    assert len(lines(log)) == 2


def test_a_pipe_that_nobody_writes_to_does_not_block(tmp_path: Path) -> None:
    path = tmp_path / "kmsg"
    os.mkfifo(path)
    log = log_of(path)
    assert lines(log) == []
    with path.open("w") as pipe:
        assert lines(log) == []  # it would block
        pipe.write(xid(79))
        pipe.flush()
        assert len(lines(log)) == 1
    assert len(lines(log)) == 1


def test_overwritten_records_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[bytes | OSError] = [b"4,1,1,-;NVRM: cut", BrokenPipeError(), xid(79).encode(), BlockingIOError()]

    def read(_: int, size: int) -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr("llmdoctor_agent.kernel_log.os.read", read)
    (tmp_path / "kmsg").touch()

    assert [text[:30] for text in texts(log_of(tmp_path / "kmsg"))] == ["NVRM: Xid (PCI:0000:3b:00): 79"]


def test_a_flood_of_one_error_does_not_push_out_others(tmp_path: Path) -> None:
    aer = "pcieport 0000:00:1d.0: AER: Corrected error received: 0000:00:1d.0"
    kill = "Memory cgroup out of memory: Killed process 7 (vllm) total-vm:1kB, anon-rss:1kB"
    flood = "".join(record(n, aer) for n in range(100, 10_000))
    (tmp_path / "kmsg").write_text(
        xid(79) + record(80, kill) + flood + "".join(xid(13, n) for n in range(10_000, 20_000))
    )
    text, _ = log_of(tmp_path / "kmsg").read()

    assert text is not None
    assert 65_000 < len(text) <= 65_536
    found = text.splitlines()
    assert ": 79," in found[0]
    assert found[1].endswith(kill)
    aer_lines, xid_lines = (sum(word in line for line in found) for word in ("AER", ": 13,"))
    assert 300 < aer_lines < 400
    assert 300 < xid_lines < 450
    assert len(found) == 2 + aer_lines + xid_lines


def test_a_line_larger_than_all_the_room_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "kmsg").write_text(xid(79) + record(80, "NVRM: " + "x" * 4000))

    assert [text[:30] for text in texts(log_of(tmp_path / "kmsg", max_bytes=1000))] == [
        "NVRM: Xid (PCI:0000:3b:00): 79"
    ]


def test_a_log_that_never_ends_costs_the_deadline() -> None:
    log = log_of(Path("/dev/zero"))
    log.deadline_s = 0.2
    started = time.monotonic()
    text, error = log.read()

    assert 0.2 <= time.monotonic() - started < 5
    assert text == ""
    assert error is not None
    assert error.reason == "more than 0.2 s can read; the next reading goes on"


# -- the time ---------------------------------------------------------------------------------------------------------


def test_the_time_of_day_may_be_corrected(tmp_path: Path) -> None:
    path, clock = tmp_path / "kmsg", Clock()
    path.write_text(xid(31, at=9000))
    log = log_of(path, clock)
    assert lines(log)[0].startswith("2026-11-20T08:30:00.000000Z NVRM")
    clock.awake, clock.set_by = 10_030, 60
    with path.open("a") as file:
        file.write(xid(79, at=10_020))

    assert [line[:27] for line in lines(log)] == ["2026-11-20T08:30:00.000000Z", "2026-11-20T08:48:00.000000Z"]


def test_a_drifting_clock_of_the_kernel_is_held_between_two_readings(tmp_path: Path) -> None:
    path, clock = tmp_path / "kmsg", Clock()
    path.write_text(xid(31, at=10_500))  # five hundred seconds ahead
    log = log_of(path, clock)
    assert lines(log)[0].startswith("2026-11-20T08:46:40.000000Z")
    clock.awake += 30
    with path.open("a") as file:
        file.write(xid(79, at=9000))

    assert lines(log)[1].startswith("2026-11-20T08:46:40.000000Z")


def test_records_from_around_a_sleep_have_no_time(tmp_path: Path) -> None:
    path, clock = tmp_path / "kmsg", Clock()
    clock.asleep = 3600
    path.write_text(xid(31))
    log = log_of(path, clock)
    assert lines(log)[0].startswith("NVRM: ")
    clock.awake += 30
    with path.open("a") as file:
        file.write(xid(79, at=10_010))
        file.flush()
        assert lines(log)[1].startswith("2026-11-20T09:46:50.000000Z NVRM: ")
        clock.awake, clock.asleep = clock.awake + 30, 7200
        file.write(xid(94, at=10_050))
    assert lines(log)[2].startswith("NVRM: ")


# -- what cannot be read ----------------------------------------------------------------------------------------------


def test_no_log_at_all(tmp_path: Path) -> None:
    text, error = log_of(tmp_path / "kmsg").read()

    assert text is None
    assert error is not None
    assert error.source == "kernel-log"
    assert error.reason == f"{tmp_path / 'kmsg'}: No such file or directory"


def test_a_folder_is_no_log(tmp_path: Path) -> None:
    text, error = log_of(tmp_path).read()

    assert text is None
    assert error is not None
    assert "Is a directory" in error.reason


def test_a_log_that_may_not_be_read_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:  # root may read any
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("llmdoctor_agent.kernel_log.os.open", refuse)
    text, error = log_of(tmp_path / "kmsg").read()

    assert text is None
    assert error is not None
    assert "CAP_SYSLOG" in error.reason


def test_the_real_log_of_this_machine() -> None:
    log = KernelLog(Path("/dev/kmsg"), max_bytes=1 << 22)
    text, error = log.read()
    if text is None:
        assert error is not None
        pytest.skip(f"not readable here: {error.reason}")
    assert error is None
    again = lines(log)  # meanwhile there may be more
    assert again[: text.count("\n")] == text.splitlines()
    log.close()
    assert lines(log)[: len(again)] == again
