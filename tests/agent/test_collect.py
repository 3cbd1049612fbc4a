"""How readings of one node are joined: devices and users, processes and pods, names and UIDs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from llmdoctor_agent.collect import Sources, collect
from llmdoctor_agent.metrics import FAMILIES, exposition
from llmdoctor_agent.nvml import Reading
from llmdoctor_agent.processes import Owner
from llmdoctor_agent.report import Container, Cpu, Error, Gpu, MigDevice, Process, Report, Shm, User, Xid
from msgspec import structs

A, B, C = (f"GPU-{digit * 8}-0000-0000-0000-000000000000" for digit in "abc")
SLICE = "MIG-11111111-0000-0000-0000-000000000000"
POD, OTHER = "6f1d2c3b-8a90-4e11-9d3c-000000000001", "6f1d2c3b-8a90-4e11-9d3c-000000000002"
ID, OTHER_ID = "1" * 64, "2" * 64
LLAMA = User(namespace="serving", name="llama-0", container="vllm")
CHAT = User(namespace="chat", name="chat-0", container="sglang")
AT = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)


@dataclass
class Boards:
    """NVML, at its outermost boundary."""

    reading: Reading

    def start(self) -> None: ...
    def stop(self) -> None: ...

    def read(self) -> Reading:
        return self.reading


@dataclass
class Kubelet:
    users: dict[str, tuple[User, ...]]
    trouble: Error | None = None

    def read(self) -> tuple[dict[str, tuple[User, ...]], Error | None]:
        return self.users, self.trouble


@dataclass
class Proc:
    owners: dict[int, Owner]
    asked: set[int] = field(default_factory=set)

    def read(self, pids: Iterable[int]) -> tuple[dict[int, Owner], Error | None]:
        self.asked |= set(pids)
        return self.owners, None


@dataclass
class Groups:
    asked: dict[tuple[str, str], list[int]] = field(default_factory=dict)

    def read(self, wanted: Mapping[tuple[str, str], Collection[int]]) -> tuple[tuple[Container, ...], Error | None]:
        self.asked = {key: list(pids) for key, pids in wanted.items()}
        return tuple(
            Container(pod_uid=uid, container_id=one, cpu=Cpu(nr_throttled=7), shm=Shm(size_bytes=65536))
            for uid, one in wanted
        ), None


class Kernel:
    def read(self) -> tuple[str, Error | None]:
        return "2026-11-20T09:59:00Z NVRM: Xid (PCI:0000:3b:00): 79", None


def gpu(uuid: str, *pids: int, index: int = 0, size: int = 1 << 30) -> Gpu:
    return Gpu(index=index, uuid=uuid, processes=tuple(Process(pid=pid, used_bytes=size) for pid in pids))


def of(uid: str, container: str) -> Owner:
    return Owner(name="VLLM::Worker", pod_uid=uid, container_id=container)


def read(*gpus: Gpu, **parts: object) -> Report:
    boards = Boards(Reading(driver_version="580.65", cuda_version="13.0", gpus=gpus))
    return collect(replace(Sources(nvml=boards), **parts), "gpu-1", lambda: AT)  # type: ignore[arg-type]


def test_nvml_alone() -> None:
    report = read(gpu(A, 10))

    assert (report.schema, report.node, report.taken_at) == ("llmdoctor.agent/v1", "gpu-1", "2026-11-20T10:00:00Z")
    assert report.profile == ("nvml",)
    assert report.gpus == (gpu(A, 10),)
    assert report.gpus[0].pods is None
    assert report.containers is None


def test_nothing_is_claimed_of_gpus_that_are_not_known() -> None:
    trouble = Error(source="nvml", reason="the library is not there")
    boards = Boards(Reading(gpus=None, errors=(trouble,)))

    report = collect(Sources(nvml=boards, pod_resources=Kubelet({A: (LLAMA,)})), None, lambda: AT)

    assert report.gpus is None
    assert report.errors == (trouble,)


def test_a_gpu_its_container_and_its_processes() -> None:
    report = read(
        gpu(A, 10, 11),
        gpu(B, index=1),
        pod_resources=Kubelet({A: (LLAMA,)}),
        processes=Proc({10: of(POD, ID), 11: of(POD, ID)}),
    )

    assert report.gpus
    assert [one.pods for one in report.gpus] == [(LLAMA,), ()]
    worker = Process(pid=10, name="VLLM::Worker", pod_uid=POD, container_id=ID, container="vllm", used_bytes=1 << 30)
    assert report.gpus[0].processes == (worker, replace_pid(worker, 11))
    assert report.containers == (
        Container(namespace="serving", pod="llama-0", container="vllm", pod_uid=POD, container_id=ID),
    )


def test_two_containers_of_a_pod_are_told_apart_by_their_names() -> None:
    drafter = User(namespace="serving", name="llama-0", container="drafter")
    owner = of(POD, ID)
    report = read(
        gpu(A, 10, 11),
        gpu(B, 12, index=1),
        pod_resources=Kubelet({A: (LLAMA,), B: (LLAMA, drafter)}),
        processes=Proc(
            {
                10: structs.replace(owner, container="vllm"),
                11: structs.replace(owner, container_id=OTHER_ID, container="exporter"),  # it has no device
                12: structs.replace(owner, container="vllm"),
            }
        ),
    )

    assert report.gpus
    assert [one.container for gpu in report.gpus for one in gpu.processes or ()] == ["vllm", "exporter", "vllm"]
    assert [(one.pod, one.container, one.pod_uid) for one in report.containers or ()] == [
        ("llama-0", "vllm", POD),
        ("llama-0", "exporter", POD),
        ("llama-0", "drafter", None),
    ]


def test_a_container_has_its_name_though_its_pods_is_not_known() -> None:
    report = read(gpu(A, 10), processes=Proc({10: structs.replace(of(POD, ID), container="vllm")}))

    assert report.containers == (Container(container="vllm", pod_uid=POD, container_id=ID),)


def replace_pid(process: Process, pid: int) -> Process:
    return Process(**{**{name: getattr(process, name) for name in process.__struct_fields__}, "pid": pid})


def test_replicas_of_a_shared_gpu_name_all_who_share_it() -> None:
    report = read(
        gpu(A, 10, 20),
        pod_resources=Kubelet({f"{A}::0": (LLAMA,), f"{A}::1": (CHAT,), f"{A}::2": (LLAMA,)}),
        processes=Proc({10: of(POD, ID), 20: of(OTHER, OTHER_ID)}),
    )

    assert report.gpus
    assert report.gpus[0].pods == (LLAMA, CHAT)
    # whose of the two a process is, nobody says
    assert [one.container for one in report.gpus[0].processes or ()] == [None, None]
    assert report.containers
    assert [(one.pod_uid, one.pod) for one in report.containers if one.pod_uid] == [(POD, None), (OTHER, None)]


def test_a_pod_that_sees_all_gpus_gets_nobody_elses_name() -> None:
    """It was given none, and holds memory on one where the owner has not begun yet, and on one where it has."""
    report = read(
        gpu(A, 66),
        gpu(B, 66, 10, index=1),
        pod_resources=Kubelet({A: (LLAMA,), B: (LLAMA,)}),
        processes=Proc({66: of(OTHER, OTHER_ID), 10: of(POD, ID)}),
    )

    assert {one.pod for one in report.containers or () if one.pod_uid} == {None}


def test_a_pod_with_processes_on_a_gpu_of_nobody_gets_no_name() -> None:
    report = read(
        gpu(A, 66),
        gpu(B, 66, index=1),
        pod_resources=Kubelet({A: (LLAMA,)}),
        processes=Proc({66: of(OTHER, OTHER_ID)}),
    )

    assert {one.pod for one in report.containers or () if one.pod_uid} == {None}


def test_the_names_of_containers_must_agree() -> None:
    def named(container: str) -> list[tuple[str | None, str | None]]:
        owner = Owner(name="python", pod_uid=POD, container_id=ID, container=container)
        report = read(gpu(A, 10), pod_resources=Kubelet({A: (LLAMA,)}), processes=Proc({10: owner}))
        return [(one.pod, one.container) for one in report.containers or ()]

    assert named("vllm") == [("llama-0", "vllm")]
    assert named("intruder") == [(None, "intruder"), ("llama-0", "vllm")]


def test_two_devices_that_contradict_each_other_name_nobody() -> None:
    report = read(
        gpu(A, 10),
        gpu(B, 10, index=1),
        pod_resources=Kubelet({A: (LLAMA,), B: (CHAT,)}),
        processes=Proc({10: of(POD, ID)}),
    )

    assert {one.pod for one in report.containers or () if one.pod_uid} == {None}


def test_slices_have_users_of_their_own() -> None:
    whole = Gpu(index=0, uuid=A, mig_enabled=True, mig_devices=(MigDevice(uuid=SLICE, processes=(Process(pid=10),)),))

    report = read(whole, pod_resources=Kubelet({SLICE: (CHAT,)}), processes=Proc({10: of(POD, ID)}))

    assert report.gpus
    assert report.gpus[0].pods == ()
    (part,) = report.gpus[0].mig_devices
    assert part.pods == (CHAT,)
    assert part.processes[0].container == "sglang"


def test_devices_by_the_number_of_their_file() -> None:
    """As GKE's plugin and NVIDIA's driver for claims name them."""
    first, second = structs.replace(gpu(A), minor=1), structs.replace(gpu(B, index=1), minor=0)
    parts = (MigDevice(uuid=SLICE, gpu_instance=2), MigDevice(uuid=SLICE.replace("1", "2"), gpu_instance=9))
    sliced = Gpu(index=2, uuid=C, minor=2, mig_devices=parts)
    given = {"nvidia1/vgpu0": (LLAMA,), "gpu.nvidia.com/gpu-0": (CHAT,), "nvidia2/gi9": (LLAMA, CHAT)}
    report = read(first, second, sliced, pod_resources=Kubelet(given))

    assert report.gpus
    assert [one.pods for one in report.gpus] == [(LLAMA,), (CHAT,), ()]
    assert [one.pods for one in report.gpus[2].mig_devices] == [(), (LLAMA, CHAT)]


def test_a_device_that_nvml_does_not_show_is_said_with_its_container() -> None:
    report = read(
        gpu(A), pod_resources=Kubelet({A: (LLAMA,), f"{B}::1": (CHAT,), f"{C}-3": (CHAT,), "mlx5_0": (CHAT,)})
    )

    (error,) = report.errors
    assert (error.source, error.gpu) == ("pod-resources", B)
    assert "chat/chat-0 (sglang)" in error.reason


def test_a_kubelet_that_does_not_answer_leaves_the_users_unknown() -> None:
    trouble = Error(source="pod-resources", reason="no answer", fields=("pods",))

    report = read(gpu(A), pod_resources=Kubelet({}, trouble))

    assert report.errors == (trouble,)
    assert report.gpus
    assert report.gpus[0].pods is None


def test_processes_of_no_pod_and_of_nobody_known() -> None:
    report = read(
        gpu(A, 10, 11, 12), processes=Proc({10: Owner(name="Xorg", pod_uid="", container_id=""), 11: Owner()})
    )

    assert report.gpus
    assert [(one.name, one.pod_uid) for one in report.gpus[0].processes or ()] == [
        ("Xorg", ""),
        (None, None),
        (None, None),
    ]
    assert report.containers == ()


def test_containers_have_what_their_cgroups_say() -> None:
    groups = Groups()
    report = read(
        gpu(A, 10, 11),
        pod_resources=Kubelet({A: (LLAMA,), B: (CHAT,)}),
        processes=Proc({10: of(POD, ID), 11: of(POD, ID)}),
        cgroup=groups,
        kernel_log=Kernel(),
    )

    assert groups.asked == {(POD, ID): [10, 11]}
    assert report.profile == ("nvml", "pod-resources", "processes", "cgroup", "kernel-log")
    first = (report.containers or ())[0]
    assert (first.pod, first.cpu, first.shm) == ("llama-0", Cpu(nr_throttled=7), Shm(size_bytes=65536))
    assert report.kernel_log == "2026-11-20T09:59:00Z NVRM: Xid (PCI:0000:3b:00): 79"


# -- metrics ----------------------------------------------------------------------------------------------------------


def test_metrics_carry_the_pod_behind() -> None:
    lost = Gpu(index=1, uuid=B, lost="timeout", xids=(Xid(number=79, time="2026-11-20T09:00:00Z"),))
    report = read(
        gpu(A, 10, 11, 12),
        lost,
        pod_resources=Kubelet({A: (LLAMA,), B: (CHAT,)}),
        processes=Proc({10: of(POD, ID), 11: of(POD, ID), 12: Owner(name="Xorg", pod_uid="", container_id="")}),
        cgroup=Groups(),
    )

    lines = exposition(report).splitlines()

    names = 'namespace="serving",pod="llama-0",container="vllm"'
    assert f'llmdoctor_gpu_container{{gpu="0",uuid="{A}",{names}}} 1' in lines
    held = f'llmdoctor_gpu_process_memory_bytes{{gpu="0",uuid="{A}",owner="pod",pod_uid="{POD}",{names},container_id="{ID}"}}'
    assert f"{held} 2147483648" in lines
    assert f'llmdoctor_gpu_process_memory_bytes{{gpu="0",uuid="{A}",owner="none"}} 1073741824' in lines
    assert f'llmdoctor_gpu_lost{{gpu="1",uuid="{B}",reason="timeout"}} 1' in lines
    xid = f'llmdoctor_gpu_xid_timestamp_seconds{{gpu="1",uuid="{B}",xid="79",namespace="chat",pod="chat-0",container="sglang"}}'
    assert f"{xid} 1795165200" in lines
    assert f'llmdoctor_container_shm_size_bytes{{{names},pod_uid="{POD}"}} 65536' in lines
    assert 'llmdoctor_agent_errors{source="nvml"} 0' in lines
    typed = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert typed == [name for name, _, _ in FAMILIES if name in typed]


def test_metrics_are_never_said_twice_and_are_escaped() -> None:
    strange = User(namespace="a", name='b"\\\n', container="c")
    report = read(
        gpu(A, 1, 2), pod_resources=Kubelet({A: (strange,)}), processes=Proc({1: Owner(), 2: Owner(pod_uid="")})
    )

    lines = [line for line in exposition(report).splitlines() if not line.startswith("#")]

    series = [line.rpartition(" ")[0] for line in lines]
    assert len(series) == len(set(series))
    assert any('pod="b\\"\\\\\\n"' in line for line in lines)
    assert exposition(None) == ""
