"""What the node's agent and the kernel's log say, however they say it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_llmdoctor.catalog.xids import AFTEREFFECTS, xid_meaning
from kubectl_llmdoctor.facts.agent import agent_of, bus_of
from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.hardware import Hardware, hardware_of
from kubectl_llmdoctor.facts.kernel_log import KernelLog
from kubectl_llmdoctor.snapshot import NodeData, Snapshot
from kubectl_llmdoctor.target import subjects

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
UID = "6f1d2c3b-8a90-4e57-b1c2-0d9e8f7a6b5c"


@pytest.mark.parametrize(
    ("line", "number", "bus", "pid", "process", "text"),
    [
        (
            "NVRM: Xid (PCI:0000:3b:00): 79, pid=1234, name=python3, GPU has fallen off the bus.",
            79,
            "0000:3b:00",
            1234,
            "python3",
            "GPU has fallen off the bus.",
        ),
        (
            "[12345.678901] NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
            79,
            "0000:3b:00",
            None,
            "",
            "GPU has fallen off the bus.",
        ),
        ("kernel: NVRM: Xid (0000:03:00): 14, Channel 00000001", 14, "0000:03:00", None, "", "Channel 00000001"),
        (
            "Nov 20 09:58:01 gpu-1 kernel: NVRM: Xid (PCI:0018:01:00): 149, NETIR_LINK_EVT Fatal XC0 i0 Link 08 (0x00)",
            149,
            "0018:01:00",
            None,
            "",
            "NETIR_LINK_EVT Fatal XC0 i0 Link 08 (0x00)",
        ),
        (
            "NVRM: Xid (PCI:0000:3B:00 GPU-I:05): 94, pid=7, name=vllm, Contained",
            94,
            "0000:3b:00",
            7,
            "vllm",
            "Contained",
        ),
    ],
)
def test_xid_lines_of_all_vintages(line: str, number: int, bus: str, pid: int | None, process: str, text: str) -> None:
    (xid,) = KernelLog(line, "gpu-1", NOW).xids
    assert (xid.number, xid.bus, xid.pid, xid.process, xid.text) == (number, bus, pid, process, text)


@pytest.mark.parametrize(
    ("line", "time"),
    [
        ("2026-11-20T09:58:04+0000 gpu-1 kernel: x", datetime(2026, 11, 20, 9, 58, 4, tzinfo=UTC)),
        ("2026-11-20T10:58:04,123456+01:00 x", datetime(2026, 11, 20, 9, 58, 4, 123456, tzinfo=UTC)),
        ("[Fri Nov 20 09:58:04 2026] x", datetime(2026, 11, 20, 9, 58, 4, tzinfo=UTC)),
        ("Nov 20 09:58:04 gpu-1 kernel: x", datetime(2026, 11, 20, 9, 58, 4, tzinfo=UTC)),
        ("Dec  1 09:58:04 gpu-1 kernel: x", datetime(2025, 12, 1, 9, 58, 4, tzinfo=UTC)),
        ("Feb 30 09:58:04 gpu-1 kernel: x", None),
        ("[12345.678901] x", None),
    ],
)
def test_times_of_the_kernel_log(line: str, time: datetime | None) -> None:
    assert KernelLog(line, "gpu-1", NOW).lines[0].time == time


SCOPE = f"kubepods-burstable-pod{UID.replace('-', '_')}.slice/cri-containerd-{'ab' * 32}.scope"
KILLED = "Killed process 8123 (python3) total-vm:98566144kB, anon-rss:16252928kB, file-rss:0kB, shmem-rss:1024kB, UID:0"


@pytest.mark.parametrize(
    ("path", "uid", "container"),
    [
        (f"/kubepods.slice/kubepods-burstable.slice/{SCOPE}", UID, "ab" * 32),
        (f"/kubepods/burstable/pod{UID}/{'cd' * 32}", UID, "cd" * 32),
        (f"/kubepods/pod{UID}/crio-{'cd' * 32}", UID, "cd" * 32),
        (f"/kubelet.slice/kubelet-kubepods.slice/kubelet-{SCOPE}", UID, "ab" * 32),
        ("/system.slice/sshd.service", "", ""),
    ],
)
def test_whose_process_the_kernel_killed(path: str, uid: str, container: str) -> None:
    text = (
        f"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),oom_memcg={path},task_memcg={path},task=python3,pid=8123,uid=0\n"
        f"Memory cgroup out of memory: {KILLED}\n"
        f"oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),global_oom,task_memcg={path},task=python3,pid=8124,uid=0\n"
        f"Out of memory: {KILLED}"
    )
    limit, node = KernelLog(text, "gpu-1", NOW).kills
    assert (limit.whole_node, node.whole_node) == (False, True)
    for kill in (limit, node):
        assert (kill.pod_uid, kill.container_id, kill.process) == (uid, container, "python3")
        assert (kill.anon, kill.shmem) == (16252928 * 1024, 1024 * 1024)


def test_addresses_have_one_form() -> None:
    assert bus_of("00000000:3B:00.0") == bus_of("PCI:0000:3b:00") == "0000:3b:00"
    assert bus_of("GPU-1234") == ""


def _hardware(agent: Any, kernel: str = "", gpus: int = 1) -> Hardware:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "llama-0", "namespace": "serving", "uid": UID},
        "spec": {
            "nodeName": "gpu-1",
            "containers": [{"name": "vllm", "image": "vllm", "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}],
        },
        "status": {"phase": "Running"},
    }
    snapshot = Snapshot(
        taken_at="2026-11-20T10:00:00Z", objects=(pod,), nodes={"gpu-1": NodeData(agent=agent, kernel_log=kernel)}
    )
    (subject,) = subjects(Cluster(snapshot))
    found = hardware_of(subject.pods[0])
    assert found is not None
    return found


def test_what_is_not_of_the_expected_form_is_not_known() -> None:
    report = {
        "driverVersion": 570,
        "errors": ["GPU 3: lost", {"gpu": 3, "error": "lost"}, None],
        "gpus": [
            {"index": "one", "name": "L40S", "ecc": [], "pcie": {"width": 16, "gen": "x"}, "processes": {}},
            5,
            None,
        ],
    }
    agent = agent_of(report)
    assert agent.driver_version == ""
    assert [error.text for error in agent.errors] == ["GPU 3: lost", "gpu: 3, error: lost"]
    (device,) = agent.gpus
    assert (device.index, device.name, device.pcie.width, device.pcie.gen) == (None, "L40S", 16, None)


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=8)
_NAMES = (
    "gpus errors index name pciBusId ecc pcie nvlinks processes xids pods number time throttleReasons migDevices usedBytes "
    "podUid width maxWidth active fabric state"
)
_KEYS = st.sampled_from(_NAMES.split())
_TREES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=5), max_leaves=30
)


@given(st.dictionaries(_KEYS, _TREES, max_size=5))
def test_no_report_is_too_odd(report: dict[str, Any]) -> None:
    hardware = _hardware(report)
    assert isinstance(hardware.mine, tuple)
    assert isinstance(hardware.hits, tuple)


@given(
    st.lists(
        st.sampled_from(
            ["NVRM: Xid (", "PCI:0000:3b:00", "): ", "79", ", pid=", "oom-kill:constraint=", "Killed process 1 ("]
        )
        | st.text(max_size=12)
    )
)
def test_no_kernel_log_is_too_odd(pieces: list[str]) -> None:
    log = KernelLog("".join(pieces), "gpu-1", NOW)
    assert (*log.xids, *log.kills, *log.lost) is not None


def _gpu(bus: str, **more: object) -> dict[str, object]:
    return {"pciBusId": bus, **more}


MINE = {"pods": [{"namespace": "serving", "name": "llama-0"}]}
YOURS = {"pods": [{"namespace": "chat", "name": "other-0"}]}


@pytest.mark.parametrize(
    ("gpus", "line", "sure"),
    [
        ([_gpu("0000:3B:00", **MINE), _gpu("0000:86:00", **YOURS)], "PCI:0000:3b:00): 109", "certain"),
        ([_gpu("0000:3B:00", **MINE), _gpu("0000:86:00", **YOURS)], "PCI:0000:86:00): 109", None),
        ([_gpu("0000:3B:00", **MINE), _gpu("0000:86:00")], "PCI:0000:86:00): 109", None),
        ([_gpu("0000:3B:00")], "PCI:0000:3b:00): 109", "certain"),  # all of the node's GPUs
        ([_gpu("0000:3B:00"), _gpu("0000:86:00")], "PCI:0000:3b:00): 109", None),
        (
            [_gpu("0000:3B:00", processes=[{"pid": 7, "podUid": UID}]), _gpu("0000:86:00")],
            "PCI:0000:3b:00): 109",
            "certain",
        ),
        (
            [_gpu("0000:3B:00", **MINE, processes=[{"pid": 7, "podUid": "of-another"}])],  # a shared GPU
            "PCI:0000:3b:00): 31, pid=7, name=python3",
            None,
        ),
    ],
)
def test_whose_xid_it_is(gpus: list[object], line: str, sure: str | None) -> None:
    hardware = _hardware({"gpus": gpus}, f"NVRM: Xid ({line}, what happened")
    found = [sure for _, sure in hardware.hits]
    assert found == (
        [sure] if sure else ["likely"] if hardware.pod.failing and not hardware.mapped and len(gpus) > 1 else []
    )


def test_the_xid_table() -> None:
    assert xid_meaning(99999) is None
    numbers = {n for n in range(200) if xid_meaning(n)}
    assert numbers >= {13, 31, 43, 45, 48, 62, 63, 64, 74, 79, 92, 94, 95, 109, 119, 120, 137, 143, 149, 154, 172}
    assert {n for n in numbers if (m := xid_meaning(n)) and m.disables} >= {62, 64, 79, 95, 119, 120, 140, 143, 158}
    for number in numbers:
        meaning = xid_meaning(number)
        assert meaning is not None
        assert all((meaning.mnemonic, meaning.meaning, meaning.action))
    assert {n for n in AFTEREFFECTS if xid_meaning(n)} == AFTEREFFECTS
