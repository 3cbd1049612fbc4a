"""What the node's agent and the kernel's log say, however they say it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmdoctor_agent import report

from kubectl_llmdoctor.catalog.sxids import sxid_class
from kubectl_llmdoctor.catalog.xids import AFTEREFFECTS, xid_meaning
from kubectl_llmdoctor.facts import agent, k8s
from kubectl_llmdoctor.facts.agent import agent_of, bus_of
from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.dcgm import gpus_by_metrics
from kubectl_llmdoctor.facts.gpu_conditions import gpu_conditions
from kubectl_llmdoctor.facts.hardware import Hardware, hardware_of
from kubectl_llmdoctor.facts.kernel_log import KernelLog
from kubectl_llmdoctor.snapshot import MetricsText, NodeData, Snapshot
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


def test_an_xid_that_is_only_named_by_what_followed_it() -> None:
    text = (
        "kernel: NVRM: GPU at PCI:0000:dc:00: GPU-5fc0bcec-c2e1-38dc-8994-2a9f9f3b709e\n"
        "kernel: NVRM: Xid (PCI:0000:dc:00): 45, pid=18, name=python3, Ch 00000001 caused by previous Xid 149\n"
        "kernel: NVRM: Xid (PCI:0000:dc:00): 45, pid=18, name=python3, Ch 00000002 caused by previous Xid 149\n"
        "kernel: NVRM: Xid (PCI:0000:48:00): 45, pid=22, name=python3, channel 0x10 caused by previous Xid 45"
    )
    xids = KernelLog(text, "gpu-1", NOW).xids
    assert [(xid.number, xid.bus) for xid in xids] == [
        (149, "0000:dc:00"),
        (45, "0000:dc:00"),
        (45, "0000:dc:00"),
        (45, "0000:48:00"),
    ]
    assert xids[0].uuid == "GPU-5fc0bcec-c2e1-38dc-8994-2a9f9f3b709e"


@pytest.mark.parametrize(
    ("line", "time"),
    [
        ("2026-11-20T09:58:04+0000 gpu-1 kernel: x", datetime(2026, 11, 20, 9, 58, 4, tzinfo=UTC)),
        ("2026-11-20T10:58:04,123456+01:00 x", datetime(2026, 11, 20, 9, 58, 4, 123456, tzinfo=UTC)),
        ("[Fri Nov 20 09:58:04 2026] x", datetime(2026, 11, 20, 9, 58, 4, tzinfo=UTC)),
        ("Nov 20 09:58:04 gpu-1 kernel: x", datetime(2026, 11, 20, 9, 58, 4, tzinfo=UTC)),
        ("Dec  1 09:58:04 gpu-1 kernel: x", datetime(2025, 12, 1, 9, 58, 4, tzinfo=UTC)),
        (
            "10.0.0.1: kern:     err: [2026-11-20T09:58:04.5Z]: x",
            datetime(2026, 11, 20, 9, 58, 4, 500000, tzinfo=UTC),
        ),
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


@pytest.mark.parametrize(
    "text",
    [
        f"Memory cgroup out of memory: {KILLED}\nTasks in /kubepods.slice/{SCOPE} are going to be killed due to memory.oom.group set\n"
        f"Memory cgroup out of memory: {KILLED}\n",
        f"Task in /kubepods.slice/{SCOPE} killed as a result of limit of /kubepods.slice/{SCOPE}\n{KILLED}\n{KILLED}\n",
    ],
)
@pytest.mark.parametrize("said", ["Out of memory: ", "Out of memory: Kill process 7 (x) score 9 or sacrifice child\n"])
def test_whose_limit_a_line_of_its_own_names(text: str, said: str) -> None:
    *limit, node = KernelLog(f"{text}{said}{KILLED}", "gpu-1", NOW).kills

    assert [(kill.whole_node, kill.pod_uid, kill.container_id) for kill in limit] == [(False, UID, "ab" * 32)] * 2
    assert (node.whole_node, node.pod_uid) == (True, "")


def test_what_the_node_had_no_memory_for_is_no_limit_of_a_pod() -> None:
    group = f"Tasks in /kubepods.slice/{SCOPE} are going to be killed due to memory.oom.group set"
    node, *_ = KernelLog(f"Out of memory: {KILLED}\n{group}\nOut of memory: {KILLED}", "gpu-1", NOW).kills

    assert node.whole_node


def test_addresses_have_one_form() -> None:
    assert bus_of("00000000:3B:00.0") == bus_of("PCI:0000:3b:00") == "0000:3b:00"
    assert bus_of("GPU-1234") == ""


def _hardware(agent: Any, kernel: str = "") -> Hardware:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "llama-0", "namespace": "serving", "uid": UID},
        "spec": {
            "nodeName": "gpu-1",
            "containers": [{"name": "vllm", "image": "vllm", "resources": {"limits": {"nvidia.com/gpu": "1"}}}],
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
    raw = {
        "driverVersion": 570,
        "errors": ["GPU 3: lost", {"gpu": 3, "error": "lost"}, None],
        "gpus": [
            {"index": "one", "name": "L40S", "ecc": [], "pcie": {"width": 16, "gen": "x"}, "processes": {}},
            5,
            None,
        ],
    }
    found = agent_of(raw)
    assert found.driver_version == ""
    assert [error.text for error in found.errors] == ["GPU 3: lost", "gpu: 3, error: lost"]
    (device,) = found.gpus
    assert (device.index, device.name, device.pcie.width, device.pcie.gen) == (None, "L40S", 16, None)


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=8)
_NAMES = (
    "gpus errors index name pciBusId ecc pcie nvlinks processes xids pods number time throttleReasons migDevices usedBytes "
    "podUid width maxWidth active fabric state lost source reason containers cpu shm throttledSince noP2P recoveryAction"
)
_KEYS = st.sampled_from(_NAMES.split())
_TREES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=5), max_leaves=30
)


@given(st.dictionaries(_KEYS, _TREES, max_size=5))
def test_no_report_is_too_odd(raw: dict[str, Any]) -> None:
    hardware = _hardware(raw)
    assert isinstance(hardware.mine, tuple)
    assert isinstance(hardware.of_node.unfit, tuple)
    assert isinstance(hardware.hits, tuple)


@given(
    st.lists(
        st.sampled_from(
            [
                "NVRM: Xid (",
                "0000:3b:00.0: AER: ",
                "Corrected error received: ",
                "SXid (PCI:1): ",
                "20034, Fatal",
                "PCI:0000:3b:00",
                "): ",
                "79",
                ", pid=",
                "oom-kill:constraint=",
                "Killed process 1 (",
            ]
        )
        | st.text(max_size=12)
    )
)
def test_no_kernel_log_is_too_odd(pieces: list[str]) -> None:
    log = KernelLog("".join(pieces), "gpu-1", NOW)
    assert (*log.xids, *log.kills, *log.lost, *log.bus_errors, *log.switch_errors, *log.mismatches) is not None


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


@pytest.mark.parametrize(("instance", "sure"), [("05", ["certain"]), ("06", []), ("07", ["certain"])])
def test_an_xid_of_a_slice_is_of_who_has_it(instance: str, sure: list[str]) -> None:
    slices = [{"gpuInstance": 5, **MINE}, {"gpuInstance": 6, **YOURS}]  # of a seventh nothing is known
    hardware = _hardware(
        {"gpus": [_gpu("0000:3B:00", migDevices=slices)]}, f"NVRM: Xid (PCI:0000:3b:00 GPU-I:{instance}): 94, Contained"
    )
    assert [found for _, found in hardware.hits] == sure


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


#: What the agent reports and no check judges, and why.
NOT_JUDGED = {
    "Report.schema": "read by who opens the report",
    "Report.node": "the snapshot says whose report it is",
    "Report.agentVersion": "says nothing of the node",
    "Report.profile": "says what the agent may read; what it could not stands in errors",
    "Report.nvmlVersion": "a mismatch shows as an error of NVML",
    "Gpu.memoryReservedBytes": "the driver's own share, part of what is not free",
    "Gpu.minor": "a name of its device file",
    "Gpu.persistenceMode": "its lack only delays the first start on an idle GPU",
    "Gpu.computeMode": "exclusive modes fail with words of their own in the log",
    "Ecc.enabled": "counters are there or not",
    "Error.fields": "its reason says what could not be read",
    "Ecc.aggregateUncorrected": "errors of the card's whole life; what they left shows in its rows and pages",
    "NvLink.errors": "since the driver was loaded; their pace is judged",
    "MigDevice.uuid": "its GPU and its instance name it",
    "Ecc.remappedCorrectable": "a repair that succeeded",
    "Ecc.remappedUncorrectable": "a repair that succeeded; one that waits or failed is judged",
    "Process.containerId": "the pod and the container are named",
    "MigDevice.profile": "the pod's request names it",
    "MigDevice.memoryTotalBytes": "processes on it are judged by what they use",
    "MigDevice.memoryUsedBytes": "processes on it are judged by what they use",
    "Memory.pressure10": "the kernel reclaims long before it kills: no fault by itself",
    "Memory.pressure300": "the kernel reclaims long before it kills: no fault by itself",
}
#: Names of the views where they differ from the report's types.
VIEWS = {
    "Gpu": "Device",
    "Xid": "SeenXid",
    "Container": "ContainerUse",
    "Shm": "SharedMemory",
    "Report": "Agent",
}


def test_every_field_of_the_agent_has_its_place() -> None:
    kinds = [k for k in vars(report).values() if isinstance(k, type) and issubclass(k, msgspec.Struct)]
    written = {
        f"{kind.__name__}.{field.encode_name}"
        for kind in kinds
        if not kind.__name__.startswith("_")
        for field in msgspec.structs.fields(kind)
    }
    read = {
        f"{name}.{field.encode_name}"
        for name in {name.partition(".")[0] for name in written}
        for field in msgspec.structs.fields(getattr(agent, VIEWS.get(name, name)))
    }
    assert written - read == set(NOT_JUDGED)


def test_a_report_as_the_agent_writes_it_is_read() -> None:
    gpu = report.Gpu(
        index=3,
        uuid="GPU-1",
        lost="lost",
        throttled_since={"hw_slowdown": "2026-11-20T09:48:00Z"},
        no_p2p={"1": "chipset not supported"},
        processes=(),
    )
    use = report.Container(pod="llama-0", container="vllm", shm=report.Shm(size_bytes=64, used_bytes=63))
    error = report.Error(source="nvml", reason="GPU_IS_LOST: GPU is lost", gpu="index 3")
    text = msgspec.json.encode(report.Report(gpus=(gpu,), containers=(use,), errors=(error,)))
    found = agent_of(msgspec.json.decode(text))
    (device,) = found.gpus
    assert (device.lost, device.processes, device.no_p2p) == ("lost", (), {"1": "chipset not supported"})
    assert device.throttled_since == {"hw_slowdown": "2026-11-20T09:48:00Z"}
    assert found.containers[0].shm.used_bytes == 63
    assert device.is_named(found.errors[0].gpu)
    assert found.errors[0].text == "nvml: GPU_IS_LOST: GPU is lost (index 3)"


@pytest.mark.parametrize(
    ("line", "bus", "severity"),
    [
        ("pcieport 0000:00:1d.0: AER: Corrected error received: 0000:3b:00.0", "0000:3b:00", "corrected"),
        (
            "pcieport 0000:00:1d.0: AER: Multiple Uncorrectable (Non-Fatal) error message received from 0000:3b:00.0",
            "0000:3b:00",
            "non-fatal",
        ),
        (
            "nvidia 0000:3b:00.0: PCIe Bus Error: severity=Uncorrected (Fatal), type=Transaction Layer, (Requester ID)",
            "0000:3b:00",
            "fatal",
        ),
        (
            "pcieport 0000:00:03.1: AER: PCIe Bus Error: severity=Corrected, type=Data Link Layer, (Transmitter ID)",
            "0000:00:03",
            "corrected",
        ),
    ],
)
def test_errors_of_the_bus(line: str, bus: str, severity: str) -> None:
    (error,) = KernelLog(f"2026-11-20T09:58:04+0000 gpu-1 kernel: {line}", "gpu-1", NOW).bus_errors
    assert (error.bus, error.severity) == (bus, severity)


def test_lines_about_the_bus_that_are_no_errors() -> None:
    text = (
        "pcieport 0000:00:1c.0: AER enabled with IRQ 122\n"
        "nvidia 0000:3b:00.0:   device [10de:26b9] error status/mask=00000001/00002000\n"
        "pcieport 0000:00:1c.5: AER: can't find device of ID00e5"
    )
    assert KernelLog(text, "gpu-1", NOW).bus_errors == ()


@pytest.mark.parametrize(
    ("line", "number", "fatal", "kind"),
    [
        ("nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 20034, Fatal, Link 30 LTSSM Fault Up", 20034, True, "fatal"),
        ("nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 12028, Non-fatal, Link 32 egress", 12028, False, "care"),
        ("nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 24001, Non-fatal, ECC", 24001, False, "harmless"),
        ("nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 23009, Fatal, Link 1", 23009, True, "switch"),
        ("nvidia-nvswitch1: SXid (PCI:0000:aa:00.0): 24007, Severity 1 Engine instance 12", 24007, True, "fatal"),
        ("nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 99999, Fatal, Link 1", 99999, True, None),
    ],
)
def test_errors_of_switches(line: str, number: int, fatal: bool, kind: str | None) -> None:
    (error,) = KernelLog(line, "gpu-1", NOW).switch_errors
    assert (error.number, error.fatal, error.kind) == (number, fatal, kind)


def test_an_sxid_has_one_class() -> None:
    numbers = {n for n in range(10000, 30000) if sxid_class(n)}
    assert len(numbers) == 93


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        (
            ("SysLogsXIDError", "True", "X", "ErrorCode:79 PCI:0000:3b:00 GPU_UUID:GPU-x;"),
            [("xid-error", (79,), "0000:3b:00")],
        ),
        (
            ("SysLogsXIDError", "True", "X", "ErrorCode:79 PCI:0000:3b:00;ErrorCode:119 PCI:0000:86:00;"),
            [("xid-error", (79,), "0000:3b:00"), ("xid-error", (119,), "0000:86:00")],
        ),
        (("SysLogsXIDError", "False", "SysLogsXIDErrorIsHealthy", "No Health Failures"), []),
        (("AcceleratedHardwareReady", "False", "NvidiaXID79Error", "detected XID-79"), [("xid-error", (79,), "")]),
        (("AcceleratedHardwareReady", "False", "DCGMError", "no connection"), [("", (), "")]),
        (("AcceleratedHardwareReady", "True", "NvidiaXID79Error", ""), []),
        (("AcceleratedHardwareReady", "Unknown", "", ""), []),
        (("XIDErrors", "True", "XIDErrors", "XID errors present in kernel log"), [("xid-error", (), "")]),
        (("GpuSomethingNew", "True", "", ""), []),
        (("Ready", "False", "", ""), []),
    ],
)
def test_conditions_of_others_and_their_polarity(
    condition: tuple[str, str, str, str], found: list[tuple[str, tuple[int, ...], str]]
) -> None:
    kind, status, reason, message = condition
    node = k8s.Node(
        status=k8s.NodeStatus(conditions=(k8s.Condition(type=kind, status=status, reason=reason, message=message),))
    )
    assert [(c.id, c.numbers, c.bus) for c in gpu_conditions(node)] == found


def _exported(*scrapes: tuple[str, str]) -> Cluster:
    texts = (MetricsText(text=text, pod="dcgm-1", node="gpu-1", taken_at=at) for at, text in scrapes)
    return Cluster(Snapshot(taken_at="2026-11-20T10:00:00Z", metrics=tuple(texts)))


_LABELS = 'gpu="3",UUID="GPU-a",pci_bus_id="00000000:3B:00.0",modelName="NVIDIA L40S",namespace="serving",pod="llama-0"'


def test_gpus_by_metrics() -> None:
    text = (
        f"DCGM_FI_DEV_FB_USED{{{_LABELS}}} 40000\nDCGM_FI_DEV_FB_FREE{{{_LABELS}}} 5000\n"
        f"DCGM_FI_DEV_CLOCK_THROTTLE_REASONS{{{_LABELS}}} 72\nDCGM_FI_DEV_ECC_DBE_VOL_TOTAL{{{_LABELS}}} 9223372036854775794\n"
        f"DCGM_FI_DEV_XID_ERRORS{{{_LABELS}}} 79\nDCGM_FI_DEV_PCIE_REPLAY_COUNTER{{{_LABELS}}} 10\nDCGM_FI_DEV_GPU_UTIL 5\n"
    )
    (device,) = gpus_by_metrics(_exported(("2026-11-20T10:00:00Z", text)), "gpu-1")
    assert (device.index, device.uuid, device.bus, device.name) == (3, "GPU-a", "0000:3b:00", "NVIDIA L40S")
    assert (device.memory_used_bytes, device.memory_total_bytes) == (40000 * 2**20, 45000 * 2**20)
    assert device.throttle_reasons == ("hw_slowdown", "hw_thermal_slowdown")
    assert (device.ecc.volatile_uncorrected, device.ecc.remap_pending) == (None, None)
    assert [(user.namespace, user.name) for user in device.pods] == [("serving", "llama-0")]
    assert [(xid.number, xid.time) for xid in device.xids] == [(79, "")]
    assert (device.pcie.replays, device.pcie.replays_per_minute) == (10, None)
    assert gpus_by_metrics(_exported(("", text)), "gpu-2") == ()


def test_what_changed_between_two_scrapes_has_a_time_and_a_pace() -> None:
    scrape = f"DCGM_FI_DEV_XID_ERRORS{{{_LABELS}}} %s\nDCGM_FI_DEV_PCIE_REPLAY_COUNTER{{{_LABELS}}} %s\n"
    cluster = _exported(
        ("2026-11-20T09:58:00Z", scrape % (0, 100)),
        ("2026-11-20T09:59:00Z", scrape % (79, 160)),
        ("2026-11-20T10:00:00Z", scrape % (79, 20)),  # the driver was loaded again
    )
    (device,) = gpus_by_metrics(cluster, "gpu-1")
    assert [(xid.number, xid.time) for xid in device.xids] == [(79, "2026-11-20T09:59:00Z")]
    assert device.pcie.replays_per_minute == 40


def test_prometheus_renames_the_labels_of_the_exporter() -> None:
    labels = 'gpu="0",UUID="GPU-a",Hostname="gpu-1",exported_pod="llama-0",exported_namespace="serving",pod="dcgm-1"'
    texts = (MetricsText(text=f"DCGM_FI_DEV_GPU_TEMP{{{labels}}} 40"),)
    (device,) = gpus_by_metrics(Cluster(Snapshot(metrics=texts)), "gpu-1")
    assert [(user.namespace, user.name) for user in device.pods] == [("serving", "llama-0")]
