"""What the node agent costs its node: memory, and CPU at the default interval with the kubelet's probes.

`python -m tests.bench.agent [SECONDS]`: eight H100 by the stand-in of NVML, every part read, one pod with eight ranks. The
time measured is whole intervals of 30 s after the first reading, so that it holds as many readings as ten minutes do,
in proportion; nothing is extrapolated. Memory is what all processes of the agent have together: RSS counts pages
that two of them share twice, PSS once.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.agent import nvml_scenes as scenes
from tests.agent.kubelet import kubelet
from tests.agent.nvml_scenes import Scene, uuid
from tests.agent.process import Agent, agent
from tests.agent.test_nvml import build
from tests.agent.test_process import host

GPUS = 8
INTERVAL = 30
SECONDS = 60
#: MiB of all processes together, and percent of one core
MOST_MEMORY, MOST_CPU = 48.0, 0.5


def cpu_seconds(one: Agent) -> float:
    """CPU time of all processes of the agent so far, with that of the threads that have ended."""
    return sum(time.clock_gettime(_clock_of(pid)) for pid in one.processes())


def _clock_of(pid: int) -> int:
    """The clock of a process's CPU time, by clock_getcpuclockid(3)."""
    clock = ctypes.c_int()
    if error := ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock)):
        raise OSError(error, os.strerror(error))
    return clock.value


def memory(one: Agent, kind: str) -> float:
    """MiB of all processes of the agent."""
    rows = [
        line.split()
        for pid in one.processes()
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        if line.startswith(f"{kind}:")
    ]
    return sum(int(row[1]) for row in rows) / 1024


def measure(folder: Path, parts: str, seconds: int) -> tuple[float, float, float]:
    """RSS and PSS in MiB, CPU in percent of a core."""
    pids = [4700 + rank for rank in range(GPUS)]
    lines = [*scenes.h100(GPUS), *(f"process {n} compute {pid} {60 << 30}" for n, pid in enumerate(pids))]
    scene = Scene(folder / "scene", lines)
    library = folder.parent / "lib"
    paths = [*host(folder / "host", *pids), "--pod-resources", str(folder / "kubelet.sock")]
    devices = [{"resourceName": "nvidia.com/gpu", "deviceIds": [uuid(n) for n in range(GPUS)]}]
    with kubelet(folder / "kubelet.sock") as state:
        containers = [{"name": "vllm", "devices": devices, "cpuIds": list(range(96))}]
        state.pods = [{"name": "llama-0", "namespace": "serving", "containers": containers}]
        state.pods += [{"name": f"other-{n}", "namespace": "other", "containers": [{"name": "a"}]} for n in range(100)]
        with agent(*([f"--with={parts}"] if parts else []), *paths, library=library, scene=scene.path) as one:
            one.wait()
            one.report(fresh=True)
            before, began = cpu_seconds(one), time.monotonic()
            probe = 0
            while (now := time.monotonic() - began) < seconds:
                time.sleep(min(max(10 * probe - now, 0), seconds - now))
                one.get("/readyz")
                if probe % 3 == 0:
                    one.get("/healthz")
                    one.get("/metrics")
                probe += 1
            used = cpu_seconds(one) - before
            report = one.report()
            assert len(report.gpus or ()) == GPUS
            return memory(one, "Rss"), memory(one, "Pss"), 100 * used / (time.monotonic() - began)


def main(arguments: list[str]) -> int:
    """Prints one line per profile; 1 when a budget is broken."""
    seconds = int(arguments[0]) if arguments else SECONDS
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        build(Path(name) / "lib")
        for profile, parts in (("default", "pod-resources"), ("all", "pod-resources,processes,cgroup,kernel-log")):
            folder = Path(name) / profile
            folder.mkdir()
            rss, pss, cpu = measure(folder, parts, max(seconds // INTERVAL, 1) * INTERVAL)
            verdict = "ok" if rss <= MOST_MEMORY and cpu <= MOST_CPU else "TOO MUCH"
            failed += verdict != "ok"
            print(
                f"{profile:8} {rss:5.1f} MiB RSS, {pss:5.1f} MiB PSS, at most {MOST_MEMORY:g}; "
                f"{cpu:.3f} % of a core, at most {MOST_CPU:g}: {verdict}"
            )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
