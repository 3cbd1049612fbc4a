"""The agent's figures of a real container: a process in a cgroup with limits, throttled and then killed by the kernel."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from llmdoctor_agent.cgroups import Cgroups, shm_of
from llmdoctor_agent.kernel_log import KernelLog
from llmdoctor_agent.processes import Owner, Processes
from llmdoctor_agent.report import Cpu, Memory

from kubectl_llmdoctor.facts.kernel_log import KernelLog as Reader

ROOT = Path("/sys/fs/cgroup")
UID, ID = "6f1d2c3b-8a90-4e57-b1c2-0d9e8f7a6b5c", "ab" * 32
MIB = 1 << 20
LIMIT = 48 * MIB

#: Joins the cgroup, then does what each line of stdin says and answers with an empty line.
PROGRAM = """
import mmap, os, sys, tempfile, time
for line in sys.stdin:
    match line.split():
        case ["burn", seconds]:
            end = time.monotonic() + float(seconds)
            while time.monotonic() < end:
                pass
        case ["shm", size]:
            file = tempfile.TemporaryFile(dir="/dev/shm")
            file.write(bytes(int(size)))
            file.flush()
        case ["eat", size]:
            held = bytearray(int(size))
    print(flush=True)
"""

#: What the agent's own container is: uid 0 without any capability, in a cgroup of another pod, with its own namespaces
#: of mounts, processes and cgroups; the host's /proc and cgroups are mounted somewhere else.
CONTAINED = """
set -e
echo $$ > "$1/cgroup.procs"
exec unshare --mount --pid --cgroup --fork sh -c '
set -e
mount --make-rprivate /
mount --rbind /proc "$0/proc"
mount --rbind /sys/fs/cgroup "$0/cgroup"
mount -t proc proc /proc
exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs --securebits=+noroot,+noroot_locked "$@"
' "$2" "$3" -c "$4" "$2" "$5"
"""
AGENT = f"""
import sys
from pathlib import Path
import msgspec
from llmdoctor_agent.cgroups import Cgroups, shm_of
from llmdoctor_agent.processes import Processes
host, pid = Path(sys.argv[1]), int(sys.argv[2])
owners, error = Processes(host / "proc").read([pid])
found = Cgroups(host / "cgroup", host / "proc").read({{("{UID}", "{ID}"): [pid]}})[0]
effective = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff"))
sys.stdout.buffer.write(msgspec.json.encode([effective, error, owners[pid], *found]))
"""


class RealContainer:
    """A process in the cgroup of a container of a pod."""

    def __init__(self, process: subprocess.Popen[str], pod: Path) -> None:
        self.process, self.pod, self.cgroups = process, pod, Cgroups(ROOT, Path("/proc"))

    def do(self, what: str) -> None:
        """Lets the process do something; it may not come back."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        self.process.stdout.readline()

    def read(self) -> tuple[Cpu, Memory]:
        """What the agent says of it."""
        (container,), _ = self.cgroups.read({(UID, ID): (self.process.pid,)})
        assert container.cpu
        assert container.memory
        return container.cpu, container.memory


@pytest.fixture
def container() -> Iterator[RealContainer]:
    """A container with 48 MiB and a twentieth of a CPU, in whichever version of cgroups this machine has the controllers."""
    version_2 = (ROOT / "cgroup.controllers").exists()
    top = f"kubepods-llmdoctor-test-{os.getpid()}"
    pods = [base / top / f"pod{UID}" for base in ([ROOT] if version_2 else [ROOT / "memory", ROOT / "cpu"])]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        try:
            for pod in pods:
                (pod / ID).mkdir(parents=True)
            if version_2:
                for place in (ROOT, pods[0].parent, pods[0]):
                    (place / "cgroup.subtree_control").write_text("+cpu +memory")
                limits = {"memory.max": LIMIT, "cpu.max": "5000 100000", "memory.swap.max": 0}
            else:
                limits = {"memory.limit_in_bytes": LIMIT, "cpu.cfs_quota_us": 5000, "memory.swappiness": 0}
            for pod in pods:
                for name, value in limits.items():
                    if (pod / ID / name).exists():
                        (pod / ID / name).write_text(str(value))
                (pod / ID / "cgroup.procs").write_text(str(process.pid))
        except OSError as e:
            pytest.skip(f"cgroups with limits may not be made here: {e}")
        yield RealContainer(process, pods[0])
    finally:
        process.kill()
        process.communicate()
        for pod in pods:
            for place in (pod / ID, pod, pod.parent):
                with suppress(FileNotFoundError):
                    remove(place)


def remove(place: Path) -> None:
    """Removes a cgroup, which the kernel lets go a moment after its last process."""
    for _ in range(50):
        try:
            return place.rmdir()
        except OSError as e:
            if isinstance(e, FileNotFoundError):
                raise
            time.sleep(0.02)
    return place.rmdir()


def test_limits_use_throttling_and_a_kill(container: RealContainer) -> None:
    owners, error = Processes(Path("/proc")).read([container.process.pid])
    if not error:
        assert owners[container.process.pid].pod_uid == UID
        assert owners[container.process.pid].container_id == ID

    container.do(f"shm {8 * MIB}")
    container.do(f"eat {16 * MIB}")
    for _ in range(10):  # a machine that is busy itself may give it no more than it may have
        container.do("burn 0.3")
        cpu, memory = container.read()
        if cpu.nr_throttled:
            break

    assert cpu.quota_cores == 0.05
    assert cpu.nr_periods
    assert cpu.nr_throttled
    assert cpu.throttled_usec
    assert cpu.throttled_usec > 1000
    assert memory.max_bytes == LIMIT
    assert memory.oom_kills == 0
    assert memory.current_bytes
    assert 24 * MIB < memory.current_bytes <= LIMIT
    assert memory.shmem_bytes
    assert 8 * MIB <= memory.shmem_bytes < 16 * MIB
    assert memory.anon_bytes
    assert memory.anon_bytes >= 15 * MIB

    container.do(f"eat {2 * LIMIT}")
    assert container.process.wait(10) == -9
    _, memory = container.read()

    assert memory.oom_kills == 1
    assert memory.pod_oom_kills in (1, None)  # version 1 does not have it


def test_the_kernels_log_tells_of_a_kill(container: RealContainer) -> None:
    log = KernelLog(Path("/dev/kmsg"))
    _, error = log.read()
    if error:
        pytest.skip(f"the kernel's log is not readable here: {error.reason}")
    before = datetime.now(UTC)
    container.do(f"eat {2 * LIMIT}")
    container.process.wait(10)
    text, error = log.read()
    after = datetime.now(UTC)

    assert error is None
    kill = Reader(text or "", "gpu-1", None).kills[-1]
    assert (kill.pod_uid, kill.container_id, kill.whole_node) == (UID, ID, False)
    assert kill.anon > LIMIT // 2
    assert kill.time
    assert before - timedelta(seconds=5) <= kill.time <= after

    # an agent that starts now dates it by the clock's offset
    later = Reader(KernelLog(Path("/dev/kmsg")).read()[0] or "", "gpu-1", None).kills[-1]
    assert later.time
    assert abs(later.time - kill.time) < timedelta(seconds=60)


def test_the_owner_of_a_process_is_read_from_a_live_proc(container: RealContainer) -> None:
    owners, error = Processes(Path("/proc")).read([container.process.pid])
    if error:
        pytest.skip(f"the tests run in a pid namespace of their own: {error.reason}")

    name = Path(f"/proc/{container.process.pid}/comm").read_text().strip()
    assert owners == {container.process.pid: Owner(name=name, pod_uid=UID, container_id=ID)}


def test_from_an_unprivileged_container_all_is_seen_but_the_use_of_dev_shm(
    container: RealContainer, tmp_path: Path
) -> None:
    own = container.pod.with_name(f"pod{UID.replace('6', '7')}") / ID.replace("a", "c")
    own.mkdir(parents=True)
    for name in ("proc", "cgroup"):
        (tmp_path / name).mkdir()
    arguments = [str(own), str(tmp_path), sys.executable, AGENT, str(container.process.pid)]
    try:
        done = subprocess.run(["sh", "-c", CONTAINED, "sh", *arguments], capture_output=True, timeout=30, check=False)
    finally:
        remove(own)
        remove(own.parent)
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    if not done.stdout:
        pytest.skip(f"no namespaces may be made here: {done.stderr.decode()[-200:]}")
    effective, error, owner, figures = msgspec.json.decode(done.stdout)
    if error:
        pytest.skip(f"the tests run in a pid namespace of their own: {error['reason']}")

    assert int(effective, 16) == 0
    assert (owner["pod_uid"], owner["container_id"]) == (UID, ID)
    assert figures["memory"]["maxBytes"] == LIMIT
    shm = shm_of(Path("/proc"), container.process.pid)
    assert shm is not None
    assert shm.size_bytes
    assert figures["shm"] == {"sizeBytes": shm.size_bytes}


def test_pressure_of_a_real_version_2_hierarchy() -> None:
    root = next((p for p in (ROOT, ROOT / "unified") if (p / "cgroup.controllers").exists()), None)
    if root is None or not (root / "cpu.pressure").exists():
        pytest.skip("no cgroup version 2 with PSI on this machine")
    pod = root / f"kubepods-llmdoctor-test-{os.getpid()}" / f"pod{UID}"
    try:
        (pod / ID).mkdir(parents=True)
    except OSError as e:
        pytest.skip(f"cgroups may not be made here: {e}")
    try:
        (one,), error = Cgroups(root).read({(UID, ID): ()})
    finally:
        for place in (pod / ID, pod, pod.parent):
            remove(place)

    assert error is None
    assert one.cpu
    assert (one.cpu.pressure10, one.cpu.pressure300) == (0.0, 0.0)
    assert one.memory
    assert (one.memory.pressure10, one.memory.pressure300) == (0.0, 0.0)
