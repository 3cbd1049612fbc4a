"""CPU and host memory of containers, from the node's cgroups, and their /dev/shm, from the host's /proc.

Both are mounted read-only. Of version 2 all is known; of version 1 what it has: no pressure, and no count of kills that
outlives a container.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import msgspec

from llmdoctor_agent.processes import container_in, pod_in
from llmdoctor_agent.report import Container, Cpu, Error, Memory, Shm

#: how deep below the root the pods' cgroups may lie (`/system.slice/docker-ID.scope/kubelet.slice/…` is six), and how many
#: cgroups are looked at to find them
_DEPTH, _MOST = 10, 20_000
#: version 1 says "no limit" with the largest number of whole pages
_UNLIMITED = 1 << 60

#: A pod's UID and a container's id; an empty id for all containers of the pod, an empty UID where only the id is known.
Key = tuple[str, str]


class Cgroups:
    """The containers of a node, by the mount points of the host's cgroups and, where it is there, of its /proc."""

    def __init__(self, root: Path, proc: Path | None = None, deadline_s: float = 2.0) -> None:
        self.root, self.proc, self.deadline_s = root, proc, deadline_s
        self._pods: dict[str, Path] = {}

    def read(self, wanted: Mapping[Key, Collection[int]]) -> tuple[tuple[Container, ...], Error | None]:
        """The figures of containers in the order of their ids, and why some are not known.

        `wanted` gives the host pids that are known of each; any of them leads to its /dev/shm.
        """
        if not self._memory.is_dir():
            return (), self._error(f"no cgroups at {self.root}: not mounted")
        end = time.monotonic() + self.deadline_s
        if any(not self._is_there(uid) for uid, _ in wanted):
            self._find_pods()
        found: dict[Key, Container] = {}
        missing: list[Key] = []
        for key, pids in sorted((key, pids) for key, pids in wanted.items() if any(key)):
            if time.monotonic() > end:
                return tuple(found.values()), self._error(
                    f"not all of {len(wanted)} containers within {self.deadline_s:g} s"
                )
            places = [*self._places(*key)]
            if not places:
                missing.append(key)
            for uid, id, place in places:
                found[uid, id] = self._read(uid, id, place, pids)
        return tuple(found[key] for key in sorted(found)), self._complaint(missing)

    def _complaint(self, missing: list[Key]) -> Error | None:
        if missing:
            named = ", ".join(f"pod {uid or '?'} container {id or '?'}" for uid, id in missing[:3])
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            return self._error(f"no cgroup below {self.root} of {named}{more}")
        if self._version == 1:
            return self._error(
                "cgroup version 1: no pressure, no kills of containers that are gone", "memory.podOomKills"
            )
        return None

    def _error(self, reason: str, field: str = "containers") -> Error:
        return Error(source="cgroup", reason=reason, fields=(field,))

    # -- where --------------------------------------------------------------------------------------------------------

    @property
    def _version(self) -> int:
        return 2 if (self.root / "cgroup.controllers").exists() else 1

    @property
    def _memory(self) -> Path:
        return self.root if self._version == 2 else self.root / "memory"

    @property
    def _cpu(self) -> Path:
        if self._version == 2:
            return self.root
        return next((p for name in ("cpu,cpuacct", "cpu") if (p := self.root / name).is_dir()), self.root / "cpu")

    def _is_there(self, uid: str) -> bool:
        return uid in self._pods and (self._memory / self._pods[uid]).is_dir()

    def _find_pods(self) -> None:
        """Looks for the cgroups of all pods; where they lie depends on driver, runtime and the kubelet's own cgroup."""
        self._pods.clear()
        level, seen = [Path()], 0
        for _ in range(_DEPTH):
            below = []
            for place in level:
                for name in _folders(self._memory / place):
                    if uid := pod_in(name):
                        self._pods[uid] = place / name
                    else:
                        below.append(place / name)
                if (seen := seen + 1) > _MOST:
                    return
            level = below

    def _places(self, uid: str, id: str) -> Iterator[tuple[str, str, Path]]:
        """The containers that a key means: UID, id, cgroup."""
        for pod in [uid] if uid else sorted(self._pods):
            if pod not in self._pods:
                continue
            for name in _folders(self._memory / self._pods[pod]):
                if (found := container_in(name)) and id in ("", found):
                    yield pod, found, self._pods[pod] / name

    # -- what ---------------------------------------------------------------------------------------------------------

    def _read(self, uid: str, id: str, place: Path, pids: Collection[int]) -> Container:
        one = self._v2 if self._version == 2 else self._v1
        cpu, memory = one(place)
        shm = next((shm for pid in sorted(pids) if self.proc and (shm := shm_of(self.proc, pid))), None)
        return Container(pod_uid=uid, container_id=id, cpu=cpu, memory=memory, shm=shm)

    def _v2(self, place: Path) -> tuple[Cpu, Memory]:
        at = self.root / place
        quota, _, period = _text(at / "cpu.max").partition(" ")
        stat, memory, events = (_table(_text(at / name)) for name in ("cpu.stat", "memory.stat", "memory.events"))
        pod = _table(_text(at.parent / "memory.events"))
        # mounted with memory_localevents a cgroup counts only its own, so that the pod's has not what its containers' have
        kills = [found for found in (pod.get("oom_kill"), events.get("oom_kill")) if found is not None]
        return (
            Cpu(
                quota_cores=_ratio(_number(quota), _number(period)),
                nr_periods=stat.get("nr_periods"),
                nr_throttled=stat.get("nr_throttled"),
                throttled_usec=stat.get("throttled_usec"),
                **_pressure(at / "cpu.pressure"),
            ),
            Memory(
                current_bytes=_number(_text(at / "memory.current")),
                max_bytes=_number(_text(at / "memory.max")),
                peak_bytes=_number(_text(at / "memory.peak")),
                shmem_bytes=memory.get("shmem"),
                anon_bytes=memory.get("anon"),
                oom_kills=events.get("oom_kill"),
                pod_oom_kills=max(kills) if "oom_kill" in pod else None,
                **_pressure(at / "memory.pressure"),
            ),
        )

    def _v1(self, place: Path) -> tuple[Cpu, Memory]:
        at, cpu = self._memory / place, self._cpu / place
        quota, period = (_number(_text(cpu / f"cpu.cfs_{name}_us")) for name in ("quota", "period"))
        stat, memory = _table(_text(cpu / "cpu.stat")), _table(_text(at / "memory.stat"))
        limit = _number(_text(at / "memory.limit_in_bytes"))
        throttled = stat.get("throttled_time")
        return (
            Cpu(
                quota_cores=_ratio(quota, period),
                nr_periods=stat.get("nr_periods"),
                nr_throttled=stat.get("nr_throttled"),
                throttled_usec=None if throttled is None else throttled // 1000,
            ),
            Memory(
                current_bytes=_number(_text(at / "memory.usage_in_bytes")),
                max_bytes=None if limit is None or limit >= _UNLIMITED else limit,
                peak_bytes=_number(_text(at / "memory.max_usage_in_bytes")),
                shmem_bytes=memory.get("total_shmem"),
                anon_bytes=memory.get("total_rss"),
                oom_kills=_table(_text(at / "memory.oom_control")).get("oom_kill"),
            ),
        )


def _folders(place: Path) -> list[str]:
    try:
        with os.scandir(place) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def _text(path: Path, most: int = 65536) -> str:
    """The beginning of a file; empty where the kernel does not have it or refuses."""
    try:
        with path.open("rb") as file:
            return file.read(most).decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"-?\d{1,20}", text) else None  # `max` is no number


def _table(text: str) -> dict[str, int]:
    """`key value` in each line."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: value for pair in pairs if len(pair) == 2 and (value := _number(pair[1])) is not None}


def _ratio(quota: int | None, period: int | None) -> float | None:
    return quota / period if quota and period and quota > 0 and period > 0 else None


def _pressure(path: Path) -> dict[str, float | None]:
    """`some avg10=1.23 avg60=0.50 avg300=0.10 total=12345`; the file is there but not readable where PSI is off."""
    found = re.match(r"some avg10=([\d.]{1,8}) avg60=[\d.]{1,8} avg300=([\d.]{1,8}) ", _text(path))
    return {"pressure10": float(found[1]), "pressure300": float(found[2])} if found else {}


# -- /dev/shm ---------------------------------------------------------------------------------------------------------


class _Mount(msgspec.Struct, frozen=True):
    device: int
    type: str
    options: tuple[str, ...]


def shm_of(proc: Path, pid: int) -> Shm | None:
    """/dev/shm as a process has it; None where it has none, it is not in memory, or the process is gone.

    Everybody may see the size; the use only who may trace the process.
    """
    mounts = _mounts(_text(proc / str(pid) / "mountinfo", 4 << 20))
    shm = mounts.get("/dev/shm")
    if not shm or shm.type != "tmpfs":
        return None
    size = next((_kib(option[5:]) for option in shm.options if option.startswith("size=")), None)
    # a look through file systems that a program serves may hang
    served = any(mounts[at].type.startswith(("fuse", "nfs", "ceph", "9p")) for at in ("/", "/dev") if at in mounts)
    blocks = None if served else _usage(proc / str(pid) / "root" / "dev" / "shm", shm.device)
    if blocks and blocks.f_blocks:
        size = size or blocks.f_blocks * blocks.f_frsize
        return Shm(size_bytes=size, used_bytes=(blocks.f_blocks - blocks.f_bfree) * blocks.f_frsize)
    return Shm(size_bytes=size) if size else None


def _usage(path: Path, device: int) -> os.statvfs_result | None:
    try:
        at = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        # a container may put a link in the place of a folder, and then this would be the agent's own
        return os.statvfs(at) if os.fstat(at).st_dev == device else None
    except OSError:
        return None
    finally:
        os.close(at)


def _kib(text: str) -> int | None:
    found = re.fullmatch(r"(\d{1,15})k", text)  # the kernel writes nothing else
    return int(found[1]) * 1024 if found else None


def _mounts(text: str) -> dict[str, _Mount]:
    """The mounts of a mountinfo by mount point (proc_pid_mountinfo(5)); the last one at a place is the one that is seen."""
    found = {}
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        here, there = before.split(" "), after.split(" ")
        major, _, minor = here[2].partition(":") if len(here) > 4 else ("", "", "")
        if len(there) >= 3 and major.isdecimal() and minor.isdecimal():
            found[here[4]] = _Mount(os.makedev(int(major), int(minor)), there[0], tuple(there[2].split(",")))
    return found
