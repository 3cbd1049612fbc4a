"""The agent as a process: it starts without anything, joins what it reads, and ends in time."""
# ruff: noqa: F811

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from tests.agent import nvml_scenes as scenes
from tests.agent.kubelet import Kubelet, kubelet
from tests.agent.nvml_scenes import Scene, uuid
from tests.agent.process import agent
from tests.agent.test_nvml import library  # noqa: F401

SCHEMA = Path(__file__).parents[2] / "docs" / "agent.schema.json"
POD = "6f1d2c3b-8a90-4e57-b1c2-0d9e8f7a6b5c"
ID = "ab" * 32


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "scene", scenes.h100(2))


@pytest.fixture
def lister(tmp_path: Path) -> Iterator[Kubelet]:
    with kubelet(tmp_path / "kubelet.sock") as state:
        devices = [{"resourceName": "nvidia.com/gpu", "deviceIds": [uuid(0)]}]
        state.pods = [{"name": "llama-0", "namespace": "serving", "containers": [{"name": "vllm", "devices": devices}]}]
        yield state


def host(folder: Path, *pids: int) -> list[str]:
    """A host's /proc and cgroups, as they are mounted into the agent."""
    proc, cgroup = folder / "proc", folder / "cgroup"
    place = f"kubepods.slice/kubepods-pod{POD.replace('-', '_')}.slice/cri-containerd-{ID}.scope"
    for pid, name in ((1, "systemd"), (2, "kthreadd"), *((pid, "VLLM::Worker_TP") for pid in pids)):
        (proc / str(pid)).mkdir(parents=True)
        (proc / str(pid) / "comm").write_text(f"{name}\n")
        (proc / str(pid) / "cgroup").write_text(f"0::/{place if pid in pids else 'init.scope'}\n")
    mount = "90 80 0:50 / /dev/shm rw,nosuid,nodev,noexec,relatime - tmpfs shm rw,size=65536k,inode64\n"
    for pid in pids:
        (proc / str(pid) / "mountinfo").write_text(mount)
    scope = cgroup / place
    scope.mkdir(parents=True)
    (cgroup / "cgroup.controllers").write_text("cpu memory\n")
    (scope / "cpu.max").write_text("200000 100000\n")
    (scope / "cpu.stat").write_text("usage_usec 5\nnr_periods 100\nnr_throttled 70\nthrottled_usec 900000\n")
    (scope / "memory.current").write_text("1073741824\n")
    (scope / "memory.max").write_text("2147483648\n")
    (scope / "memory.events").write_text("low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\noom_group_kill 0\n")
    return ["--proc", str(proc), "--cgroup", str(cgroup)]


def test_a_gpu_its_pod_and_what_the_pod_has(library: Path, scene: Scene, lister: Kubelet, tmp_path: Path) -> None:
    scene.add(f"process 0 compute 4711 {60 << 30}")
    paths = [*host(tmp_path / "host", 4711), "--pod-resources", str(tmp_path / "kubelet.sock")]

    with agent("--with=pod-resources,processes", "--with=cgroup", *paths, library=library, scene=scene.path) as one:
        one.wait()
        report = one.report(fresh=True)
        raw = one.get("/v1/report").data
        metrics = one.get("/metrics").data.decode()

    assert (report.node, report.driver_version) == ("gpu-1", "570.86.15")
    assert report.profile == ("nvml", "pod-resources", "processes", "cgroup")
    assert report.gpus
    first, second = report.gpus
    assert [(user.namespace, user.name, user.container) for user in first.pods or ()] == [
        ("serving", "llama-0", "vllm")
    ]
    assert second.pods == ()
    (process,) = first.processes or ()
    assert (process.name, process.pod_uid, process.container_id, process.container) == (
        "VLLM::Worker_TP",
        POD,
        ID,
        "vllm",
    )
    (container,) = report.containers or ()
    assert (container.namespace, container.pod, container.container) == ("serving", "llama-0", "vllm")
    assert container.cpu
    assert (container.cpu.quota_cores, container.cpu.nr_throttled) == (2.0, 70)
    assert container.memory
    assert (container.memory.max_bytes, container.memory.oom_kills) == (2 << 30, 1)
    assert container.shm
    assert container.shm.size_bytes == 64 << 20
    assert 'namespace="serving",pod="llama-0",container="vllm"' in metrics
    jsonschema.validate(json.loads(raw), json.loads(SCHEMA.read_text()))


def test_it_needs_nothing_to_start(tmp_path: Path) -> None:
    nothing = [
        "--pod-resources",
        str(tmp_path / "no.sock"),
        "--proc",
        str(tmp_path / "no"),
        "--cgroup",
        str(tmp_path / "no"),
    ]
    everything = "--with=pod-resources,processes,cgroup,kernel-log"

    with agent(everything, *nothing, "--kmsg", str(tmp_path / "no"), library=tmp_path, scene=tmp_path / "none") as one:
        one.wait()
        report = one.report(fresh=True)
        assert one.get("/healthz").status == 200

    assert report.gpus is None
    sources = {error.source for error in report.errors}
    assert sources >= {"nvml", "pod-resources", "kernel-log"}
    assert all(error.reason for error in report.errors)


def test_a_kubelet_that_comes_and_goes(library: Path, scene: Scene, tmp_path: Path) -> None:
    socket_ = tmp_path / "kubelet.sock"
    with agent("--with=pod-resources", "--pod-resources", str(socket_), library=library, scene=scene.path) as one:
        one.wait()
        before = one.report(fresh=True)
        with kubelet(socket_):
            between = one.report(fresh=True)
        after = one.report(fresh=True)

    assert [[gpu.pods for gpu in report.gpus or ()] for report in (before, between, after)] == [
        [None, None],
        [(), ()],
        [None, None],
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_it_is_told_to(library: Path, scene: Scene, number: signal.Signals) -> None:
    with agent(library=library, scene=scene.path) as one:
        one.wait()
        workers = one.processes()[1:]
        began = time.monotonic()
        one.process.send_signal(number)
        code = one.process.wait(10)
        took = time.monotonic() - began

    assert code == 0
    assert took < 5
    assert workers
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_it_ends_while_a_gpu_hangs(library: Path, scene: Scene) -> None:
    with agent(library=library, scene=scene.path) as one:
        one.wait()
        scene.add("hang 1 nvmlDeviceGetPowerUsage")
        report = one.report(fresh=True)
        assert [gpu.lost for gpu in report.gpus or ()] == [None, "timeout"]
        assert one.get("/healthz").status == 200
        began = time.monotonic()
        one.process.terminate()

        assert one.process.wait(10) == 0
        assert time.monotonic() - began < 8


def test_a_port_that_is_taken_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = [sys.executable, "-m", "llmdoctor_agent", "--listen", "127.0.0.1", "--port", str(port)]
        done = subprocess.run(line, capture_output=True, text=True, timeout=20, check=False)

    assert done.returncode == 2
    assert f"port {port}" in done.stderr
