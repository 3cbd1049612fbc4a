"""CPU, memory and /dev/shm of containers, from files as kernels write them."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmdoctor_agent.cgroups import Cgroups, _mounts, _table, shm_of
from llmdoctor_agent.report import Container, Cpu, Memory, Shm

UID = "6f1d2c3b-8a90-4e57-b1c2-0d9e8f7a6b5c"
POD = f"kubepods-burstable-pod{UID.replace('-', '_')}.slice"
ID, PAUSE = "ab" * 32, "cd" * 32
QOS = "kubepods.slice/kubepods-burstable.slice"

#: as a kernel 6.8 has them
V2 = {
    "cpu.max": "400000 100000\n",
    "cpu.stat": "usage_usec 811234567\nuser_usec 700000000\nsystem_usec 111234567\nnice_usec 0\n"
    "core_sched.force_idle_usec 0\nnr_periods 90210\nnr_throttled 81189\nthrottled_usec 5500123456\nnr_bursts 0\nburst_usec 0\n",
    "cpu.pressure": "some avg10=91.20 avg60=90.00 avg300=88.15 total=5612345678\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    "memory.current": "34359730176\n",
    "memory.max": "34359738368\n",
    "memory.peak": "34359738368\n",
    "memory.stat": "anon 12884901888\nfile 21474836480\nkernel 104857600\nshmem 20401094656\nfile_mapped 4096\n",
    "memory.events": "low 0\nhigh 0\nmax 4711\noom 3\noom_kill 2\noom_group_kill 0\n",
    "memory.events.local": "low 0\nhigh 0\nmax 4711\noom 3\noom_kill 2\noom_group_kill 0\n",
    "memory.pressure": "some avg10=1.50 avg60=0.70 avg300=0.20 total=1234\nfull avg10=1.10 avg60=0.50 avg300=0.10 total=999\n",
}
POD_EVENTS = "low 0\nhigh 0\nmax 0\noom 5\noom_kill 5\noom_group_kill 0\n"

V1 = {
    "cpu,cpuacct": {
        "cpu.cfs_quota_us": "400000\n",
        "cpu.cfs_period_us": "100000\n",
        "cpu.stat": "nr_periods 90210\nnr_throttled 81189\nthrottled_time 5500123456789\n",
    },
    "memory": {
        "memory.usage_in_bytes": "34359730176\n",
        "memory.limit_in_bytes": "34359738368\n",
        "memory.max_usage_in_bytes": "34359738368\n",
        "memory.stat": "cache 1\nrss 2\nshmem 3\ntotal_cache 4\ntotal_rss 12884901888\ntotal_shmem 20401094656\n",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    },
}

CPU = Cpu(
    quota_cores=4.0,
    nr_periods=90210,
    nr_throttled=81189,
    throttled_usec=5500123456,
    pressure10=91.20,
    pressure300=88.15,
)
MEMORY = Memory(
    current_bytes=34359730176,
    max_bytes=34359738368,
    peak_bytes=34359738368,
    shmem_bytes=20401094656,
    anon_bytes=12884901888,
    oom_kills=2,
    pod_oom_kills=5,
    pressure10=1.5,
    pressure300=0.2,
)


def write(place: Path, files: dict[str, str]) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (place / name).write_text(text)
    return place


def v2(root: Path, place: str = f"{QOS}/{POD}", name: str = f"cri-containerd-{ID}.scope", **changed: str) -> Cgroups:
    """A tree of version 2 with one pod."""
    write(root, {"cgroup.controllers": "cpuset cpu io memory hugetlb pids rdma misc\n"})
    write(root / place, {"memory.events": POD_EVENTS})
    write(root / place / name, V2 | {key.replace("_", "."): text for key, text in changed.items()})
    for more in ("system.slice/sshd.service", "init.scope"):
        write(root / more, V2)
    return Cgroups(root)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (f"{QOS}/{POD}", f"cri-containerd-{ID}.scope"),
        (f"{QOS}/{POD}", f"crio-{ID}.scope"),
        (f"kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice", f"cri-containerd-{ID}.scope"),
        (f"kubepods/besteffort/pod{UID}", ID),
        (f"kubepods/pod{UID}", f"crio-{ID}"),
        (
            f"kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-{POD}",
            f"cri-containerd-{ID}.scope",
        ),
        (
            f"system.slice/docker-{PAUSE}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-{POD}",
            f"cri-containerd-{ID}.scope",
        ),
    ],
)
def test_version_2_in_every_layout(tmp_path: Path, place: str, name: str) -> None:
    cgroups = v2(tmp_path, place, name)

    expected = ((Container(pod_uid=UID, container_id=ID, cpu=CPU, memory=MEMORY),), None)
    assert cgroups.read({(UID, ID): ()}) == expected
    assert cgroups.read({("", ID): ()}) == expected


def test_version_1_gives_what_it_has(tmp_path: Path) -> None:
    for controller, files in V1.items():
        write(tmp_path / controller / "kubepods" / "burstable" / f"pod{UID}" / ID, files)
    containers, error = Cgroups(tmp_path).read({(UID, ID): ()})

    assert [*containers] == [
        Container(
            pod_uid=UID,
            container_id=ID,
            cpu=Cpu(quota_cores=4.0, nr_periods=90210, nr_throttled=81189, throttled_usec=5500123456),
            memory=Memory(
                current_bytes=34359730176,
                max_bytes=34359738368,
                peak_bytes=34359738368,
                shmem_bytes=20401094656,
                anon_bytes=12884901888,
                oom_kills=2,
            ),
        )
    ]
    assert error is not None
    assert error.reason.startswith("cgroup version 1")


def test_without_limits(tmp_path: Path) -> None:
    (container,) = v2(tmp_path, cpu_max="max 100000\n", memory_max="max\n").read({(UID, ID): ()})[0]
    assert container.cpu
    assert container.cpu.quota_cores is None
    assert container.memory
    assert container.memory.max_bytes is None

    one = tmp_path / "one"
    unlimited = {"memory.limit_in_bytes": "9223372036854771712\n"}
    write(one / "memory" / "kubepods" / f"pod{UID}" / ID, unlimited)
    write(one / "cpu" / "kubepods" / f"pod{UID}" / ID, {"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"})
    (container,) = Cgroups(one).read({(UID, ID): ()})[0]
    assert container.cpu == Cpu()
    assert container.memory == Memory()


def test_what_a_kernel_does_not_have_is_not_known(tmp_path: Path) -> None:
    cgroups = v2(tmp_path, memory_events="low 0\nhigh 0\nmax 9\noom 3\n")  # before 4.13
    for name in ("memory.peak", "cpu.pressure", "memory.pressure"):
        (tmp_path / QOS / POD / f"cri-containerd-{ID}.scope" / name).unlink()
    (tmp_path / QOS / POD / "memory.events").unlink()
    (container,) = cgroups.read({(UID, ID): ()})[0]

    memory, cpu = container.memory, container.cpu
    assert memory
    assert (memory.peak_bytes, memory.oom_kills, memory.pod_oom_kills, memory.pressure10) == (None,) * 4
    assert cpu
    assert (cpu.pressure10, cpu.nr_throttled) == (None, 81189)


def test_a_pod_has_at_least_the_kills_of_its_container(tmp_path: Path) -> None:
    cgroups = v2(tmp_path)
    write(tmp_path / QOS / POD, {"memory.events": POD_EVENTS.replace("5", "0")})  # memory_localevents
    (container,) = cgroups.read({(UID, ID): ()})[0]

    assert container.memory
    assert container.memory.pod_oom_kills == 2


def test_all_containers_of_a_pod_but_not_what_watches_them(tmp_path: Path) -> None:
    cgroups = v2(tmp_path)
    for name in (f"crio-{PAUSE}.scope", f"crio-conmon-{ID}.scope", "not-a-container.scope"):
        write(tmp_path / QOS / POD / name, V2)

    assert [c.container_id for c in cgroups.read({(UID, ""): ()})[0]] == [ID, PAUSE]


def test_a_restarted_container_and_a_new_pod_are_found(tmp_path: Path) -> None:
    cgroups = v2(tmp_path)
    assert cgroups.read({(UID, ID): ()})[1] is None
    scope = tmp_path / QOS / POD / f"cri-containerd-{ID}.scope"
    scope.rename(scope.with_name(f"cri-containerd-{PAUSE}.scope"))
    assert cgroups.read({(UID, ID): ()})[0] == ()
    assert [c.container_id for c in cgroups.read({(UID, PAUSE): ()})[0]] == [PAUSE]

    other = UID.replace("6", "7")
    (tmp_path / QOS / POD).rename(tmp_path / QOS / POD.replace("6", "7"))
    assert cgroups.read({(UID, ""): ()})[0] == ()
    assert [c.pod_uid for c in cgroups.read({(other, ""): ()})[0]] == [other]


def test_nothing_asked_is_nothing_read(tmp_path: Path) -> None:
    assert v2(tmp_path).read({("", ""): (1,)}) == ((), None)


def test_pods_that_are_not_there_are_named_once(tmp_path: Path) -> None:
    wanted = {(UID.replace("6", digit), ""): () for digit in "01234"}
    containers, error = v2(tmp_path).read(wanted)

    assert containers == ()
    assert error is not None
    assert error.source == "cgroup"
    assert "and 2 more" in error.reason


def test_nothing_is_mounted(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "missing"):
        containers, error = Cgroups(root).read({(UID, ID): ()})
        assert containers == ()
        assert error is not None
        assert "not mounted" in error.reason


def test_the_deadline_ends_a_reading(tmp_path: Path) -> None:
    cgroups = v2(tmp_path)
    cgroups.deadline_s = -1
    containers, error = cgroups.read({(UID, ID): ()})

    assert containers == ()
    assert error is not None
    assert "not all of 1 containers" in error.reason


# -- /dev/shm ---------------------------------------------------------------------------------------------------------

ROOT = "1021 950 0:210 / / rw,relatime master:400 - overlay overlay rw,lowerdir=/var/lib/containerd/1/fs,upperdir=/u\n"
DEV = "1023 1021 0:212 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755\n"
SHM = "1030 1023 0:205 / /dev/shm rw,nosuid,nodev,noexec,relatime - tmpfs shm rw,size=65536k\n"
DSHM = "1031 1023 0:44 / /dev/shm rw,relatime - tmpfs tmpfs rw,size=16777216k\n"
ON_DISK = (
    "1031 1023 259:1 /var/lib/kubelet/pods/x/volumes/kubernetes.io~empty-dir/shm /dev/shm rw - ext4 /dev/nvme0n1p1 rw\n"
)
OF_HOST = "1031 1023 0:25 / /dev/shm rw,nosuid,nodev shared:4 - tmpfs tmpfs rw,inode64\n"


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        (ROOT + DEV + SHM, Shm(size_bytes=64 << 20)),
        (ROOT + DEV + DSHM, Shm(size_bytes=16 << 30)),
        (ROOT + DEV + SHM + DSHM, Shm(size_bytes=16 << 30)),
        (ROOT + DEV + DSHM + ON_DISK, None),
        (ROOT + DEV + OF_HOST, None),
        (ROOT + DEV, None),
        ("", None),
    ],
)
def test_the_size_of_dev_shm_by_the_mounts_of_a_process(tmp_path: Path, mounts: str, expected: Shm | None) -> None:
    write(tmp_path / "10", {"mountinfo": mounts})

    assert shm_of(tmp_path, 10) == expected


def test_dev_shm_of_whichever_process_is_still_there(tmp_path: Path) -> None:
    cgroups = v2(tmp_path / "cgroup")
    cgroups.proc = tmp_path / "proc"
    write(cgroups.proc / "12", {"mountinfo": ROOT + DEV + SHM})
    (container,) = cgroups.read({(UID, ID): (11, 12)})[0]

    assert container.shm == Shm(size_bytes=64 << 20)


def test_dev_shm_of_this_very_process() -> None:
    mount = _mounts(Path("/proc/self/mountinfo").read_text()).get("/dev/shm")
    if mount is None or mount.type != "tmpfs":
        pytest.skip("this machine has no tmpfs at /dev/shm")
    before = shm_of(Path("/proc"), os.getpid())
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        file.write(bytes(8 << 20))
        file.flush()
        after = shm_of(Path("/proc"), os.getpid())

    stat = os.statvfs("/dev/shm")
    assert before is not None
    assert before.used_bytes is not None
    assert after is not None
    assert after.used_bytes is not None
    assert after.size_bytes == before.size_bytes == stat.f_blocks * stat.f_frsize
    assert after.used_bytes - before.used_bytes >= 4 << 20  # others may free some meanwhile


def test_a_link_in_the_place_of_dev_shm_is_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "10", {"mountinfo": ROOT + DEV + SHM})
    (tmp_path / "10" / "root" / "dev").mkdir(parents=True)
    (tmp_path / "10" / "root" / "dev" / "shm").symlink_to("/dev/shm")
    assert shm_of(tmp_path, 10) == Shm(size_bytes=64 << 20)

    write(tmp_path / "11", {"mountinfo": ROOT + DEV + SHM})
    (tmp_path / "11" / "root").mkdir()
    (tmp_path / "11" / "root" / "dev").symlink_to("/dev")
    assert shm_of(tmp_path, 11) == Shm(size_bytes=64 << 20)


@given(st.text(alphabet="0123456789:/ -kdevshmtpf\n,=") | st.text())
def test_any_text_is_mounts_and_a_table(text: str) -> None:
    assert all(isinstance(place, str) for place in _mounts(text))
    assert all(isinstance(value, int) for value in _table(text).values())


def test_a_walk_over_a_large_node_is_cheap(tmp_path: Path) -> None:
    cgroups = v2(tmp_path)
    for i in range(400):
        write(tmp_path / "system.slice" / f"unit-{i}.service", {"cgroup.procs": ""})
    started = time.process_time()
    for _ in range(10):
        cgroups.read({(UID, ID): ()})

    assert time.process_time() - started < 0.5
