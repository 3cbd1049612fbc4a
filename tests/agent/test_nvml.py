"""NVML through its real C interface, against a stand-in of the library or, on a machine with a GPU, the real one.

The stand-in (`standin.c`) is built here; with `LLMDOCTOR_REAL_NVML=1` only what holds for any board is tested, with the
library that the machine has.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from llmdoctor_agent import nvml, nvml_worker
from llmdoctor_agent.nvml import Nvml, Reading
from llmdoctor_agent.report import Ecc, Error, Fabric, Gpu, NvLink, Pcie, Process

from tests.agent import nvml_scenes as scenes
from tests.agent.nvml_scenes import Scene, uuid

REAL = os.environ.get("LLMDOCTOR_REAL_NVML") == "1"

standin = pytest.mark.skipif(REAL, reason="what a stand-in is told to do, real boards do not")
real = pytest.mark.skipif(not REAL, reason="needs a GPU and its driver: LLMDOCTOR_REAL_NVML=1")


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 20, 10, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def build(folder: Path, *options: str) -> Path:
    """Builds the stand-in; the folder is for LD_LIBRARY_PATH."""
    folder.mkdir()
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    source = Path(__file__).with_name("standin.c")
    library = folder / "libnvidia-ml.so.1"
    flags = ("-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-pthread", "-Wl,-soname,libnvidia-ml.so.1")
    subprocess.run([compiler, *flags, *options, "-o", library, source], check=True)
    return folder


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml") / "lib")


@pytest.fixture(scope="session")
def old_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml-old") / "lib", "-DOLD_DRIVER")


@pytest.fixture
def clock() -> Clock:
    return Clock()


Start = Callable[..., tuple[Nvml, Scene]]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock, library: Path) -> Iterator[Start]:
    """Starts the module on a scenario; it is stopped at the end."""
    started: list[Nvml] = []

    def run(lines: Sequence[str], deadline_s: float = 30.0, retry_s: float = 0.0) -> tuple[Nvml, Scene]:
        scene = Scene(tmp_path / "scene", lines)
        monkeypatch.setenv("STANDIN_NVML", str(scene.path))
        monkeypatch.setenv("LD_LIBRARY_PATH", os.environ.get("STANDIN_LIBRARY", str(library)))
        sysfs = tmp_path / "sys"
        (sysfs / "module/nvidia").mkdir(parents=True)
        (sysfs / "bus/pci/drivers/nvidia").mkdir(parents=True)
        one = Nvml(deadline_s, clock, retry_s=retry_s, sysfs=sysfs)
        started.append(one)
        one.start()
        return one, scene

    yield run
    for one in started:
        one.stop()


def gpus_of(reading: Reading) -> tuple[Gpu, ...]:
    assert reading.gpus is not None, reading.errors
    return reading.gpus


def until(read: Callable[[], Reading], good: Callable[[Reading], object]) -> Reading:
    """Reads until it is as it should be, which it is after a while."""
    end = time.monotonic() + 30
    while not good(reading := read()):
        assert time.monotonic() < end, reading
        time.sleep(0.05)
    return reading


def worker_pid(one: Nvml) -> int:
    assert one._worker is not None
    return one._worker._process.pid


@standin
def test_all_that_an_h100_says(start: Start, clock: Clock) -> None:
    one, scene = start(scenes.h100())
    scene.add(
        f"process 0 compute 4711 {60 << 30}",
        "gpu 0 clock-reasons 0x24",
        "gpu 0 utilization 97",
        "gpu 0 link.7 0",
        "gpu 0 field.161.3 40",
        "gpu 0 field.163.3 5000000000",
    )
    reading = until(one.read, lambda reading: reading.gpus and reading.gpus[7].no_p2p is not None)

    assert (reading.driver_version, reading.cuda_version) == ("570.86.15", "12.8")
    assert reading.nvml_version == "12.570.86.15"
    assert reading.errors == ()
    gpus = gpus_of(reading)
    assert [gpu.uuid for gpu in gpus] == [uuid(index) for index in range(8)]
    links = tuple(
        NvLink(
            link=link,
            active=link != 7,
            errors=5000000040 if link == 3 else 0,
            errors_per_minute=0.0,
        )
        for link in range(18)
    )
    name = {"name": "process-4711"} if Path("/proc/self/ns/pid").stat().st_ino == 0xEFFFFFFC else {}
    assert gpus[0] == Gpu(
        index=0,
        uuid=uuid(0),
        name="NVIDIA H100 80GB HBM3",
        pci_bus_id="00000000:1B:00.0",
        minor=0,
        memory_total_bytes=81559 << 20,
        memory_used_bytes=70000 << 20,
        memory_reserved_bytes=551 << 20,
        utilization_percent=97,
        temperature_c=34,
        temperature_margin_c=51,
        power_watts=121.5,
        power_limit_watts=700.0,
        sm_clock_mhz=345,
        max_sm_clock_mhz=1980,
        throttle_reasons=("sw_power_cap", "sw_thermal_slowdown"),
        throttled_since=dict.fromkeys(("sw_power_cap", "sw_thermal_slowdown"), "2026-11-20T10:00:00Z"),
        ecc=Ecc(
            enabled=True,
            volatile_uncorrected=0,
            aggregate_uncorrected=0,
            remap_pending=False,
            remap_failed=False,
            remapped_correctable=2,
            remapped_uncorrectable=0,
        ),
        pcie=Pcie(gen=5, max_gen=5, width=16, max_width=16, replays=0, replays_per_minute=0.0),
        nvlinks=links,
        fabric=Fabric(state="completed", status="success", health="healthy", problems=()),
        persistence_mode=True,
        compute_mode="default",
        recovery_action="none",
        no_p2p={},
        mig_enabled=False,
        processes=(Process(pid=4711, used_bytes=60 << 30, **name),),
    )


@standin
def test_boards_without_a_part_are_not_blamed_for_it(start: Start) -> None:
    one, scene = start(scenes.l40s())
    reading = until(one.read, lambda reading: reading.gpus and reading.gpus[3].no_p2p is not None)
    assert reading.errors == ()
    gpu = gpus_of(reading)[2]
    assert (gpu.nvlinks, gpu.fabric, gpu.mig_enabled, gpu.recovery_action) == (None, None, None, None)
    assert gpu.no_p2p == {"0": "chipset not supported", "1": "chipset not supported"}
    assert gpu.pcie is not None
    assert (gpu.pcie.gen, gpu.pcie.max_gen) == (1, 4)
    assert gpu.processes == ()

    one.stop()
    scene.replace(scenes.t4())
    reading = one.read()
    assert reading.errors == ()
    (board,) = gpus_of(reading)
    assert board.slowdown_temperature_c == 93
    assert board.temperature_margin_c is None
    assert board.ecc == Ecc(
        enabled=True,
        volatile_uncorrected=0,
        aggregate_uncorrected=0,
        retired_pages=3,
        retirement_pending=True,
    )


@standin
def test_mig_devices_have_the_names_that_the_kubelet_knows(start: Start) -> None:
    one, scene = start(scenes.a100_mig())
    one.read()
    one.read()
    scene.add("xid 1 0 94 9")
    reading = until(one.read, lambda reading: gpus_of(reading)[0].xids)
    assert reading.errors == ()
    (gpu,) = gpus_of(reading)
    assert gpu.mig_enabled is True
    assert gpu.utilization_percent is None
    assert gpu.ecc is not None
    assert (gpu.ecc.remap_pending, gpu.ecc.remapped_uncorrectable) == (True, 1)
    assert [(device.uuid[:12], device.profile, device.gpu_instance) for device in gpu.mig_devices] == [
        ("MIG-00000000", "3g.40gb", 2),
        ("MIG-00000002", "1g.10gb", 9),
    ]
    assert [(xid.number, xid.gpu_instance) for xid in gpu.xids] == [(94, 9)]
    used, idle = gpu.mig_devices
    assert (used.memory_total_bytes, used.memory_used_bytes) == (40192 << 20, 20000 << 20)
    assert [(process.pid, process.used_bytes) for process in used.processes] == [(4711, 19000 << 20)]
    assert idle.processes == ()


@standin
def test_what_every_board_has_is_missed_in_one_line_per_reason(start: Start) -> None:
    lines = [line for line in scenes.h100(2) if not line.startswith(("gpu 1 power ", "gpu 1 temperature.0"))]
    one, scene = start(lines)
    scene.add("fail 1 nvmlDeviceGetComputeRunningProcesses_v3 4", "fail 1 nvmlDeviceGetEccMode 999")
    reading = one.read()
    assert reading.errors == (
        Error(
            source="nvml",
            reason="NOT_SUPPORTED: Not Supported",
            gpu=uuid(1),
            fields=("temperatureC", "powerWatts"),
        ),
        Error(source="nvml", reason="UNKNOWN: Unknown Error", gpu=uuid(1), fields=("ecc.enabled",)),
        Error(source="nvml", reason="NO_PERMISSION: Insufficient Permissions", gpu=uuid(1), fields=("processes",)),
    )
    sound, gpu = gpus_of(reading)
    assert sound.power_watts == 121.5
    assert gpu.power_watts is None
    assert gpu.power_limit_watts == 700.0
    assert gpu.processes is None
    assert gpu.lost is None


@standin
def test_processes_of_all_lists_are_one_each(start: Start) -> None:
    one, _ = start(
        [
            *scenes.l40s(1),
            *("process 0 compute 30 100", "process 0 graphics 30 300", "process 0 mps 20 -", "process 0 graphics 10 5"),
        ]
    )
    (gpu,) = gpus_of(one.read())
    assert [(process.pid, process.used_bytes) for process in gpu.processes or ()] == [(10, 5), (20, None), (30, 300)]


@standin
@pytest.mark.parametrize(
    ("value", "fabric"),
    [
        ("2 0 0x0 0", Fabric(state="in-progress")),
        ("3 999 0x0 2", Fabric(state="completed", status="UNKNOWN", health="unhealthy", problems=())),
        (
            "3 0 0x9411 2",
            Fabric(
                state="completed",
                status="success",
                health="unhealthy",
                problems=("degraded-bandwidth", "route-unhealthy", "fabric-manager-disconnected", "no-partition"),
            ),
        ),
        ("3 0 0x0001", Fabric(state="completed", status="success", problems=("degraded-bandwidth",))),
        ("0 0 0x0 0", None),
    ],
)
def test_fabric(start: Start, value: str, fabric: Fabric | None) -> None:
    one, _ = start([*scenes.h100(1), f"gpu 0 fabric {value}"])
    reading = one.read()
    assert reading.errors == ()
    assert gpus_of(reading)[0].fabric == fabric


@standin
def test_links_of_newer_boards_count_other_errors(start: Start) -> None:
    one, _ = start(
        [
            *(line for line in scenes.h100(1) if not line.startswith("gpu 0 field.16")),
            *("gpu 0 field.208.2 3", "gpu 0 field.215.2 4", "gpu 0 field.230 2"),
        ]
    )
    (gpu,) = gpus_of(one.read())
    assert gpu.recovery_action == "node-reboot"
    assert gpu.nvlinks is not None
    assert [link.errors for link in gpu.nvlinks[:4]] == [None, None, 7, None]


@standin
def test_changes_between_two_samples(start: Start, clock: Clock) -> None:
    one, scene = start(scenes.h100(1))
    before = time.monotonic()
    (gpu,) = gpus_of(one.read())
    assert gpu.pcie is not None
    assert gpu.pcie.replays_per_minute is None
    assert gpu.throttled_since == {"gpu_idle": "2026-11-20T10:00:00Z"}

    time.sleep(0.3)
    scene.add("gpu 0 pcie-replays 6", "gpu 0 field.162.4 12", "gpu 0 clock-reasons 0x28")
    clock.now += timedelta(minutes=5)
    (gpu,) = gpus_of(one.read())
    passed = time.monotonic() - before
    assert gpu.pcie is not None
    assert gpu.pcie.replays == 6
    assert 6 / passed * 60 <= (gpu.pcie.replays_per_minute or 0) <= 6 / 0.25 * 60
    assert gpu.nvlinks is not None
    assert 12 / passed * 60 <= (gpu.nvlinks[4].errors_per_minute or 0) <= 12 / 0.25 * 60
    assert gpu.nvlinks[5].errors_per_minute == 0
    since = dict.fromkeys(("hw_slowdown", "sw_thermal_slowdown"), "2026-11-20T10:05:00Z")
    assert gpu.throttled_since == since

    scene.add("gpu 0 pcie-replays 1", "gpu 0 clock-reasons 0x20")  # as after a reload of the driver
    clock.now += timedelta(minutes=5)
    (gpu,) = gpus_of(one.read())
    assert gpu.pcie is not None
    assert gpu.pcie.replays_per_minute is None
    assert gpu.throttled_since == {"sw_thermal_slowdown": "2026-11-20T10:05:00Z"}


@standin
def test_a_gpu_that_falls_off_keeps_its_names_and_xids(start: Start) -> None:
    one, scene = start(scenes.h100())
    one.read()
    one.read()
    scene.add("xid 1 3 79")
    until(one.read, lambda reading: gpus_of(reading)[3].xids)
    scene.add("fail 3 * 15")
    reading = one.read()
    assert reading.errors == (Error(source="nvml", reason="GPU_IS_LOST: GPU is lost", gpu=uuid(3)),)
    gpu = gpus_of(reading)[3]
    assert (gpu.index, gpu.uuid, gpu.lost, gpu.memory_total_bytes) == (3, uuid(3), "lost", None)
    assert (gpu.name, gpu.pci_bus_id) == ("NVIDIA H100 80GB HBM3", scenes.bus(3))
    assert [xid.number for xid in gpu.xids] == [79]
    assert all(other.lost is None and other.memory_used_bytes for other in gpus_of(reading) if other.index != 3)

    scene.remove("fail 3 * 15")
    reading = one.read()
    assert gpus_of(reading)[3].lost is None
    assert reading.errors == ()


@standin
def test_a_lost_gpu_that_the_next_start_does_not_show_stays_lost(start: Start, tmp_path: Path) -> None:
    one, scene = start([*scenes.h100(3), "fail 2 nvmlDeviceGetMemoryInfo_v2 15"])
    assert gpus_of(one.read())[2].lost == "lost"
    scene.replace(scenes.h100(2))
    (tmp_path / "sys/bus/pci/drivers/nvidia/0000:1b:00.0").mkdir()
    gpus = gpus_of(one.read())
    assert [(gpu.index, gpu.uuid, gpu.lost) for gpu in gpus] == [
        (0, uuid(0), None),
        (1, uuid(1), None),
        (None, uuid(2), "lost"),
    ]
    scene.replace([*scenes.h100(3), "fail 2 * 15"])  # it is shown again, but cannot say who it is
    (tmp_path / "sys/bus/pci/drivers/nvidia/0000:3b:00.0").mkdir()
    gpu = gpus_of(one.read())[2]
    assert (gpu.index, gpu.uuid, gpu.lost) == (2, uuid(2), "lost")
    scene.replace(scenes.h100(3))
    assert [gpu.lost for gpu in gpus_of(one.read())] == [None] * 3


@standin
def test_a_gpu_that_needs_a_reset_or_is_not_ours(start: Start) -> None:
    one, _ = start(
        [
            *scenes.h100(4),
            "fail 1 nvmlDeviceGetMemoryInfo_v2 16",
            "fail 2 nvmlDeviceGetHandleByIndex_v2 4",
            "fail 3 nvmlDeviceGetHandleByIndex_v2 999",
        ]
    )
    reading = one.read()
    _, stuck, foreign, broken = gpus_of(reading)
    assert stuck.lost == "reset-required"
    assert foreign == Gpu(index=2, lost="no-permission")
    assert broken == Gpu(index=3, lost="unknown-error")
    assert {error.gpu: error.reason for error in reading.errors} == {
        uuid(1): "RESET_REQUIRED: GPU requires restart",
        "index 2": "NO_PERMISSION: Insufficient Permissions",
        "index 3": "UNKNOWN: Unknown Error",
    }


@standin
def test_a_call_that_hangs_costs_one_gpu_and_one_thread(start: Start) -> None:
    one, scene = start(scenes.h100(), deadline_s=3.0)
    until(one.read, lambda reading: gpus_of(reading)[0].no_p2p is not None)
    tasks = Path(f"/proc/{worker_pid(one)}/task")
    threads = len(list(tasks.iterdir()))
    scene.add("hang 5 nvmlDeviceGetPowerUsage")
    began = time.monotonic()
    reading = one.read()
    assert time.monotonic() - began < 3 + 3
    gpu = gpus_of(reading)[5]
    assert (gpu.uuid, gpu.lost, gpu.memory_used_bytes) == (uuid(5), "timeout", None)
    assert reading.errors == (Error(source="nvml", reason="timeout: no answer for 3 s", gpu=uuid(5)),)
    assert all(other.memory_used_bytes for other in gpus_of(reading) if other.index != 5)

    durations = []
    for _ in range(5):  # and is not waited for again
        began = time.monotonic()
        reading = one.read()
        durations.append(time.monotonic() - began)
        assert gpus_of(reading)[5].lost == "timeout"
    assert min(durations) < 1.0  # at once, if the machine has time
    assert [gpu.lost for gpu in gpus_of(reading)] == [None] * 5 + ["timeout"] + [None] * 2
    assert len(list(tasks.iterdir())) == threads

    scene.remove("hang 5 nvmlDeviceGetPowerUsage")
    reading = until(one.read, lambda reading: gpus_of(reading)[5].lost is None)
    assert gpus_of(reading)[5].power_watts == 121.5
    assert reading.errors == ()


@standin
def test_a_start_that_hangs_is_waited_for_and_then_given_up(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    one, scene = start([*scenes.l40s(), "hang * nvmlInitWithFlags"], deadline_s=0.5)
    began = time.monotonic()
    reading = one.read()
    assert time.monotonic() - began < 5
    assert reading.gpus is None
    (error,) = reading.errors
    assert re.fullmatch(r"timeout: no answer for \d s", error.reason)
    first = worker_pid(one)
    monkeypatch.setattr(nvml, "_HANGS", 0.0)
    one.read()
    monkeypatch.setattr(nvml, "_HANGS", 120.0)
    scene.remove("hang * nvmlInitWithFlags")
    reading = until(one.read, lambda reading: reading.gpus is not None)
    assert worker_pid(one) != first
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


@standin
def test_a_process_that_does_not_end_has_no_other_beside_it(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = start(scenes.l40s(2), deadline_s=2.0)
    until(one.read, lambda reading: reading.gpus and reading.gpus[1].uuid)
    stopped = worker_pid(one)
    os.kill(stopped, signal.SIGSTOP)
    reading = one.read()
    assert [(gpu.uuid, gpu.lost) for gpu in gpus_of(reading)] == [(uuid(0), "timeout"), (uuid(1), "timeout")]
    monkeypatch.setattr(nvml, "_HANGS", 0.0)
    one.read()
    monkeypatch.setattr(nvml, "_HANGS", 120.0)
    reading = one.read()
    assert reading.errors == (Error(source="nvml", reason="timeout: the process that called NVML does not end"),)
    assert [(gpu.uuid, gpu.lost) for gpu in gpus_of(reading)] == [(uuid(0), "timeout"), (uuid(1), "timeout")]
    assert one._worker is None
    monkeypatch.setattr(nvml, "_END", 0.0)  # from now on it is overdue
    reading = until(one.read, lambda reading: reading.gpus and reading.gpus[1].lost is None)
    assert worker_pid(one) != stopped


@standin
def test_xids_as_they_happen(start: Start, clock: Clock) -> None:
    one, scene = start([*scenes.h100(2), "xid 1 0 31"])  # that one is past
    one.read()  # after which GPUs register; at the next they have
    assert gpus_of(one.read())[0].xids == ()
    clock.now = datetime(2026, 11, 20, 10, 0, 7, tzinfo=UTC)
    scene.add("xid 2 1 79", "xid 3 1 154 0")
    reading = until(one.read, lambda reading: len(gpus_of(reading)[1].xids) == 2)
    assert [(xid.number, xid.time, xid.gpu_instance) for xid in gpus_of(reading)[1].xids] == [
        (79, "2026-11-20T10:00:07Z", None),
        (154, "2026-11-20T10:00:07Z", None),
    ]
    assert gpus_of(reading)[0].xids == ()

    scene.add(*(f"xid {serial} 0 {serial}" for serial in range(10, 10 + nvml.XIDS + 5)))
    last = 10 + nvml.XIDS + 4  # the queue is full before it comes
    reading = until(one.read, lambda reading: [xid.number for xid in gpus_of(reading)[0].xids][-1:] == [last])
    assert len(gpus_of(reading)[0].xids) == nvml.XIDS


@standin
def test_xids_survive_a_new_start_of_nvml(start: Start) -> None:
    one, scene = start(scenes.h100(2))
    one.read()
    one.read()
    scene.add("xid 1 1 48")
    until(one.read, lambda reading: gpus_of(reading)[1].xids)
    scene.add("fail * nvmlDeviceGetCount_v2 1")
    reading = one.read()
    assert reading.gpus is None
    scene.remove("fail * nvmlDeviceGetCount_v2 1")
    reading = one.read()
    assert [xid.number for xid in gpus_of(reading)[1].xids] == [48]
    one.read()
    scene.add("xid 2 1 63")
    reading = until(one.read, lambda reading: len(gpus_of(reading)[1].xids) == 2)
    assert [xid.number for xid in gpus_of(reading)[1].xids] == [48, 63]


@standin
def test_a_gpu_that_is_lost_while_pairs_are_read_costs_the_others_nothing(start: Start) -> None:
    one, scene = start([*scenes.h100(3), "hang * nvmlDeviceGetP2PStatus"])
    one.read()
    one.read()  # pairs are asked for once all GPUs have been read
    scene.add("fail 1 nvmlDeviceGetHandleByIndex_v2 15")
    assert gpus_of(one.read())[1].lost == "lost"
    scene.remove("hang * nvmlDeviceGetP2PStatus")
    until(one.read, lambda reading: gpus_of(reading)[0].no_p2p is not None)


@standin
def test_xids_of_the_others_are_heard_after_a_gpu_is_lost(start: Start) -> None:
    one, scene = start([*scenes.h100(3), "fail 0 nvmlDeviceRegisterEvents 3"])
    one.read()
    reading = one.read()
    deaf = Error(source="nvml", reason="NOT_SUPPORTED: Not Supported", gpu=uuid(0), fields=("xids",))
    assert reading.errors == (deaf,)
    scene.add("xid 1 1 79", "fail 1 * 15")  # the set with it fails, once the Xid is told
    until(one.read, lambda reading: gpus_of(reading)[1].xids)
    end = time.monotonic() + 30
    for serial in range(2, 1000):  # until the others have registered with a new one
        scene.add(f"xid {serial} 2 94")
        reading = one.read()
        if gpus_of(reading)[2].xids:
            break
        assert time.monotonic() < end
        time.sleep(0.1)
    assert reading.errors == (deaf, Error(source="nvml", reason="GPU_IS_LOST: GPU is lost", gpu=uuid(1)))
    assert [xid.number for xid in gpus_of(reading)[1].xids] == [79]


@standin
def test_xids_that_cannot_be_heard(start: Start) -> None:
    one, scene = start([*scenes.l40s(2), "fail * nvmlEventSetWait_v2 999"])
    expected = Error(source="nvml", reason="UNKNOWN: Unknown Error", fields=("xids",))
    reading = until(one.read, lambda reading: reading.errors)
    assert reading.errors == (expected,)
    assert [gpu.lost for gpu in gpus_of(reading)] == [None, None]
    scene.remove("fail * nvmlEventSetWait_v2 999")
    until(one.read, lambda reading: not reading.errors)


def test_pairs_are_not_read_of_some_gpus_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """While boards are being made, the thread of the pairs may look at any time; what it reads then is read for good."""
    said: list[dict[str, object]] = []

    class Board:
        def __init__(self, index: int, worker: nvml_worker.Worker) -> None:
            self.index = self.handle = index
            self.task = SimpleNamespace(ask=lambda number: None)
            worker._read_peers(1)

    monkeypatch.setattr(nvml_worker, "_Board", Board)
    monkeypatch.setattr(nvml_worker, "_Task", lambda work: SimpleNamespace(ask=work))
    monkeypatch.setattr(nvml_worker, "_Listener", lambda worker: SimpleNamespace(start=lambda: None))
    for name, answer in {"Init": None, "DeviceGetCount": 4, "DeviceGetP2PStatus": 1}.items():
        monkeypatch.setattr(f"pynvml.nvml{name}", lambda *_, answer=answer: answer)
    worker = nvml_worker.Worker(lambda **message: said.append(message))  # type: ignore[arg-type]
    worker.ask(1)

    (pairs,) = (message["noP2p"] for message in said if "noP2p" in message)
    chipset = "chipset not supported"
    assert pairs == {one: {other: chipset for other in range(4) if other != one} for one in range(4)}


@standin
def test_whatever_fails_costs_only_what_it_is_about(start: Start) -> None:
    """Every function of one GPU with every code, and a GPU with every code for all of them."""
    one, scene = start([*scenes.h100(2), "gpu 1 p2p.0 0"])
    until(one.read, lambda reading: gpus_of(reading)[1].no_p2p is not None)
    source = Path(__file__).with_name("standin.c").read_text()
    functions = sorted({name for name in re.findall(r"\bnvmlDevice\w+", source) if not name.endswith("_v2")} | {"*"})
    assert len(functions) > 30
    sound = gpus_of(one.read())
    for function in functions:
        for code in (3, 999) if function != "*" else (*range(1, 31), 999):
            line = f"fail 1 {function} {code}"
            scene.add(line)
            reading = one.read()
            healthy, failing = gpus_of(reading)
            assert healthy == sound[0], line
            about = {error.gpu for error in reading.errors if error.fields != ("xids",)}
            assert about <= {uuid(1), "index 1"}, line
            if function == "*" or code == 999:
                assert reading.errors or failing == sound[1], line
            if failing.lost is None:
                assert failing.uuid == uuid(1), line
                missing = [name for name in Gpu.__struct_fields__ if getattr(failing, name) is None]
                assert len(missing) - sum(getattr(sound[1], name) is None for name in missing) <= 2, (line, missing)
            scene.remove(line)
            one.read()
    assert gpus_of(one.read()) == sound


@standin
def test_a_text_that_is_none(start: Start) -> None:
    one, _ = start([*scenes.l40s(1), "gpu 0 name NVIDIA \udcff"])
    reading = one.read()
    (error,) = reading.errors
    assert error.fields == ("name",)
    assert error.reason.startswith("UnicodeDecodeError: ")
    assert gpus_of(reading)[0].uuid == uuid(0)


@standin
def test_a_new_driver_needs_no_new_agent(start: Start, tmp_path: Path) -> None:
    one, scene = start([*scenes.h100(2), "fail * nvmlInitWithFlags 18"])
    (tmp_path / "sys/module/nvidia/version").write_text("580.65.06\n")
    reading = one.read()
    assert reading.gpus is None
    assert (reading.nvml_version, reading.driver_version) == ("12.570.86.15", "580.65.06")
    assert reading.errors == (
        Error(source="nvml", reason="LIB_RM_VERSION_MISMATCH: RM has detected an NVML/RM version mismatch."),
    )
    scene.replace([*scenes.h100(2), *scenes.driver("580.65.06", 13000)])
    reading = one.read()
    assert (reading.driver_version, reading.cuda_version) == ("580.65.06", "13.0")
    assert len(gpus_of(reading)) == 2

    scene.add("fail * nvmlInitWithFlags 9", "fail * nvmlDeviceGetCount_v2 9")
    reading = one.read()
    assert reading.errors == (Error(source="nvml", reason="DRIVER_NOT_LOADED: Driver Not Loaded"),)
    scene.replace(scenes.h100(2))
    assert len(gpus_of(one.read())) == 2


@standin
def test_a_failed_start_is_not_tried_again_at_once(start: Start) -> None:
    one, scene = start([*scenes.h100(1), "fail * nvmlInitWithFlags 9"], retry_s=1.0)
    first = one.read()
    scene.replace(scenes.h100(1))
    assert one.read() == first
    assert one.read() == first
    until(one.read, lambda reading: reading.gpus)


@standin
def test_a_crash_of_the_library_is_not_one_of_the_agent(start: Start) -> None:
    one, scene = start([*scenes.h100(2), "crash 1 nvmlDeviceGetName"])
    reading = until(one.read, lambda reading: reading.gpus is None)
    assert reading.errors == (Error(source="nvml", reason="NVML ended its process with signal 11"),)
    scene.remove("crash 1 nvmlDeviceGetName")
    assert len(gpus_of(one.read())) == 2


@standin
def test_gpus_come_and_go(start: Start, tmp_path: Path) -> None:
    one, scene = start(scenes.l40s(1))
    devices = tmp_path / "sys/bus/pci/drivers/nvidia"
    assert len(gpus_of(one.read())) == 1
    scene.replace(scenes.l40s(3))
    assert len(gpus_of(one.read())) == 1  # NVML shows what there was when it was started
    (devices / "0000:2b:00.0").mkdir()
    (devices / "0000:3b:00.0").mkdir()
    assert [gpu.uuid for gpu in gpus_of(one.read())] == [uuid(0), uuid(1), uuid(2)]
    scene.replace([])
    (devices / "0000:2b:00.0").rmdir()
    assert one.read().gpus == ()


@standin
def test_an_old_driver_says_what_it_can(start: Start, old_library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_LIBRARY", str(old_library))
    one, _ = start([*scenes.l40s(1), "gpu 0 threshold.1 92", "process 0 compute 30 100", "gpu 0 fabric 3 0 0x5aaa 1"])
    reading = one.read()
    assert reading.errors == ()
    (gpu,) = gpus_of(reading)
    assert gpu.memory_total_bytes == 46068 << 20
    assert gpu.memory_used_bytes == 600 << 20  # that version counts what is reserved as used
    assert gpu.memory_reserved_bytes is None
    assert (gpu.temperature_c, gpu.temperature_margin_c, gpu.slowdown_temperature_c) == (34, None, 92)
    assert gpu.throttle_reasons == ("gpu_idle",)
    assert gpu.fabric == Fabric(state="completed", status="success")
    assert [process.pid for process in gpu.processes or ()] == [30]


@standin
def test_no_library(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_LIBRARY", str(tmp_path))
    one, _ = start(scenes.l40s(1))
    reading = one.read()
    assert (reading.gpus, reading.driver_version, reading.nvml_version) == (None, None, None)
    (error,) = reading.errors
    assert error.reason.startswith("LIBRARY_NOT_FOUND: libnvidia-ml.so.1: ")
    assert "No such file" in error.reason
    (tmp_path / "libnvidia-ml.so.1").write_bytes(b"")
    (error,) = one.read().errors
    assert error.reason.endswith("file too short")


@standin
def test_stop_leaves_nothing_behind(start: Start) -> None:
    one, _ = start([*scenes.l40s(2), "hang 1 nvmlDeviceGetName"], deadline_s=0.5)
    one.read()
    pid = worker_pid(one)
    one.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@standin
def test_the_worker_ends_with_the_agent(start: Start) -> None:
    one, _ = start([*scenes.l40s(2), "hang 1 nvmlDeviceGetName"], deadline_s=0.5)
    one.read()
    assert one._worker is not None
    stdin = one._worker._process.stdin
    assert stdin is not None
    stdin.close()  # as the kernel does when the agent is killed
    assert one._worker._process.wait(30) == 0


def memory_of(pid: int) -> dict[str, int]:
    """KiB of a process by kind: `Rss`, `Pss`, `Private_Dirty`, …"""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) for line in lines}


@standin
def test_cost_of_eight_gpus(start: Start) -> None:
    """The whole agent has 48 MiB and 0.5 % of a core, at four readings a minute 75 ms each; this is NVML's share."""
    one, _ = start(scenes.h100())
    until(one.read, lambda reading: gpus_of(reading)[0].no_p2p is not None)
    pid = worker_pid(one)
    cpu = Path(f"/proc/{pid}/stat")

    def ticks() -> int:
        return sum(map(int, cpu.read_text().rpartition(")")[2].split()[11:13]))

    before, own = ticks(), time.process_time()
    for _ in range(20):
        one.read()
    worker = (ticks() - before) / os.sysconf("SC_CLK_TCK") / 20
    own = (time.process_time() - own) / 20
    memory = memory_of(pid)
    print(
        f"worker {memory['Rss']} KiB RSS, {memory['Pss']} PSS; a reading {worker * 1000:.1f} + {own * 1000:.1f} ms CPU"
    )
    assert memory["Rss"] < 20 << 10
    assert worker + own < 0.075


@real
def test_a_real_board() -> None:
    one = Nvml(deadline_s=30.0)
    one.start()
    try:
        one.read()
        reading = until(one.read, lambda reading: reading.gpus)
        assert re.fullmatch(r"\d+\.\d+(\.\d+)?", reading.driver_version or "")
        assert re.fullmatch(r"\d+\.\d", reading.cuda_version or "")
        for gpu in gpus_of(reading):
            assert gpu.lost is None
            assert re.fullmatch(r"GPU-[0-9a-f-]{36}", gpu.uuid or "")
            assert re.fullmatch(r"[0-9A-F]{8}:[0-9A-F]{2}:[0-9A-F]{2}\.0", gpu.pci_bus_id or "")
            assert gpu.memory_total_bytes is not None
            assert 0 <= (gpu.memory_used_bytes or 0) <= gpu.memory_total_bytes
            assert 0 <= (gpu.temperature_c or 0) < 110
            assert gpu.throttle_reasons is not None
            assert gpu.pcie is not None
            assert 0 < (gpu.pcie.width or 0) <= (gpu.pcie.max_width or 0)
            assert gpu.processes is not None
            for link in gpu.nvlinks or ():
                assert link.active is not None
        print(reading)
    finally:
        one.stop()
