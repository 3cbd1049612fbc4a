"""Who has which device, by a real gRPC server on a real socket."""

from __future__ import annotations

import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llmdoctor_agent.podresources import PodResources, _users, users_of
from llmdoctor_agent.report import User

from .kubelet import Kubelet, encode, kubelet

GPU, OTHER = "GPU-1a2b3c4d-0000-4e57-b1c2-0d9e8f7a6b5c", "GPU-ffffffff-1111-4e57-b1c2-0d9e8f7a6b5c"
MIG, OLD_MIG = "MIG-1a2b3c4d-2222-4e57-b1c2-0d9e8f7a6b5c", f"MIG-{GPU}/3/0"
LLAMA, QWEN = (
    User(namespace="serving", name="llama-0", container="vllm"),
    User(namespace="serving", name="qwen-0", container="sglang"),
)


@pytest.fixture
def path() -> Iterator[Path]:
    """A path for a socket: they are limited to 107 bytes, which pytest's own folders go beyond."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "kubelet.sock"


@pytest.fixture
def server(path: Path) -> Iterator[Kubelet]:
    with kubelet(path) as state:
        yield state


def pod(user: User, *devices: str, resource: str = "nvidia.com/gpu", **more: Any) -> dict[str, Any]:
    given = [{"resourceName": resource, "deviceIds": [*devices], "topology": {"nodes": [{"ID": 1}]}}] if devices else []
    container = {"name": user.container, "devices": given, **more}
    return {"name": user.name, "namespace": user.namespace, "containers": [{"name": "istio-proxy"}, container]}


def claimed(device: str, *cdi: str, driver: str = "gpu.nvidia.com") -> dict[str, Any]:
    resource = {
        "cdiDevices": [{"name": name} for name in cdi],
        "driverName": driver,
        "poolName": "gpu-1",
        "deviceName": device,
        "shareId": "a671734a-e8e5-11e4-8fde-42010af09327",
    }
    return {"claimName": "gpu", "claimNamespace": "serving", "claimResources": [resource]}


def test_every_form_of_device_id_as_the_kubelet_has_it(path: Path, server: Kubelet) -> None:
    ids = [GPU, MIG, OLD_MIG, f"{OTHER}::3", "nvidia0", "nvidia0/gi1", "nvidia0/vgpu2", "nvidia0/gi1/vgpu0", "3"]
    server.pods = [pod(LLAMA, *ids), pod(QWEN)]

    assert PodResources(path).read() == (dict.fromkeys(ids, (LLAMA,)), None)


def test_several_containers_may_have_one_device_and_are_named_once(path: Path, server: Kubelet) -> None:
    # the kubelet makes an entry for each NUMA node
    numa = {"resourceName": "nvidia.com/gpu", "deviceIds": [GPU]}
    server.pods = [pod(LLAMA, GPU), pod(QWEN, GPU)]
    server.pods[0]["containers"][1]["devices"] += [numa, numa]

    assert PodResources(path).read() == ({GPU: (LLAMA, QWEN)}, None)


def test_cpus_and_memory_are_passed_over(path: Path, server: Kubelet) -> None:
    memory = [{"memoryType": "hugepages-1Gi", "size": 2**63, "topology": {"nodes": [{"ID": 0}, {"ID": 300}]}}]
    server.pods = [pod(LLAMA, GPU, cpuIds=[*range(256)], memory=memory)]
    server.pods[0] |= {"cpuIds": [1, 2, 3], "memory": memory}

    assert PodResources(path).read() == ({GPU: (LLAMA,)}, None)


def test_devices_of_claims(path: Path, server: Kubelet) -> None:
    claims = [
        claimed("gpu-2", "k8s.gpu.nvidia.com/device=gpu-2", "k8s.gpu.nvidia.com/claim=0f1e-gpu-2"),
        claimed("gpu-3-mig-1g24gb-19-0", "k8s.gpu.nvidia.com/device=gpu-3-mig-1g24gb-19-0"),
        claimed("gpu-x", f"nvidia.com/gpu={OTHER}"),
        claimed("nic-0", driver="dra.net"),
    ]
    server.pods = [pod(LLAMA, dynamicResources=claims)]

    found, error = PodResources(path).read()

    assert error is None
    assert [*found] == ["gpu.nvidia.com/gpu-2", "gpu.nvidia.com/gpu-3-mig-1g24gb-19-0", OTHER, "dra.net/nic-0"]
    assert users_of(found, uuid=GPU, minor=2) == (LLAMA,)
    assert users_of(found, uuid=OTHER) == (LLAMA,)
    assert users_of(found, uuid=GPU, minor=3) == ()  # which of its MIG devices it is, the name does not say


@pytest.mark.parametrize(
    ("device", "wanted", "mine"),
    [
        (GPU, {"uuid": GPU}, True),
        (GPU, {"uuid": OTHER, "minor": 0}, False),
        (f"{GPU}::3", {"uuid": GPU}, True),
        (MIG, {"uuid": MIG, "minor": 0, "instance": 1}, True),
        (f"{MIG}::0", {"uuid": MIG}, True),
        (OLD_MIG, {"uuid": OLD_MIG}, True),
        ("nvidia0", {"uuid": GPU, "minor": 0}, True),
        ("nvidia0/vgpu2", {"uuid": GPU, "minor": 0}, True),
        ("nvidia10", {"uuid": GPU, "minor": 1}, False),
        ("nvidia0/gi1", {"uuid": GPU, "minor": 0}, False),
        ("nvidia0/gi1", {"uuid": MIG, "minor": 0, "instance": 1}, True),
        ("nvidia0/gi1/vgpu0", {"uuid": MIG, "minor": 0, "instance": 1}, True),
        ("nvidia0/gi2", {"uuid": MIG, "minor": 0, "instance": 1}, False),
        ("nvidia0", {"uuid": GPU}, False),
        # ids that do not say which GPU it is, and ids of other devices
        (f"{GPU}-3", {"uuid": GPU, "minor": 0}, False),
        (f"{GPU}-_-3", {"uuid": GPU, "minor": 0}, False),
        ("0", {"uuid": GPU, "minor": 0}, False),
        ("mlx5_0", {"uuid": GPU, "minor": 0}, False),
        ("0000:3b:00.0", {"uuid": GPU, "minor": 0}, False),
    ],
)
def test_which_gpu_an_id_means(device: str, wanted: dict[str, Any], mine: bool) -> None:
    assert users_of({device: (LLAMA,)}, **wanted) == ((LLAMA,) if mine else ())


def test_a_user_of_two_shares_is_one_user() -> None:
    assert users_of({f"{GPU}::0": (LLAMA,), f"{GPU}::1": (LLAMA, QWEN)}, uuid=GPU) == (LLAMA, QWEN)


def test_no_socket_at_all(path: Path) -> None:
    found, error = PodResources(path).read()

    assert found == {}
    assert error is not None
    assert error.source == "pod-resources"
    assert str(path) in error.reason


def test_a_kubelet_that_restarts_is_found_again(path: Path) -> None:
    resources = PodResources(path, deadline_s=3)
    with kubelet(path) as server:
        server.pods = [pod(LLAMA, GPU)]
        assert resources.read() == ({GPU: (LLAMA,)}, None)
    assert resources.read()[1] is not None
    with kubelet(path) as server:
        server.pods = [pod(QWEN, GPU)]
        assert resources.read() == ({GPU: (QWEN,)}, None)


def test_a_folder_that_may_not_be_entered(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bool:  # root may enter any
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_socket", refuse)
    _, error = PodResources(path).read()

    assert error is not None
    assert error.reason == f"{path}: Permission denied"


def test_a_socket_that_nobody_serves_any_more(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    started = time.monotonic()
    found, error = PodResources(path, deadline_s=3).read()

    assert found == {}
    assert error is not None
    assert error.reason == f"{path}: Connection refused"
    assert time.monotonic() - started < 3 + 3


def test_a_kubelet_that_never_accepts_costs_the_deadline(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(path))
        deaf.listen(8)
        started = time.monotonic()
        _, error = PodResources(path, deadline_s=0.4).read()

    assert time.monotonic() - started < 5
    assert error is not None
    assert error.reason == "the kubelet did not answer within 0.4 s"


def test_a_kubelet_that_hangs_costs_the_deadline(path: Path, server: Kubelet) -> None:
    server.may_answer.clear()
    started = time.monotonic()
    _, error = PodResources(path, deadline_s=0.4).read()
    server.may_answer.set()

    assert time.monotonic() - started < 5
    assert error is not None
    assert error.reason == "the kubelet did not answer within 0.4 s"


def test_a_kubelet_that_refuses(path: Path, server: Kubelet) -> None:
    server.refuses = grpc.StatusCode.RESOURCE_EXHAUSTED, "rejected by rate limit, 100% of it"
    _, error = PodResources(path).read()

    assert error is not None
    assert error.reason == "gRPC status 8: rejected by rate limit, 100% of it"


def test_a_kubelet_from_before_v1(path: Path) -> None:
    with kubelet(path, service="v1alpha1.PodResourcesLister"):
        _, error = PodResources(path).read()

    assert error is not None
    assert "does not know this service" in error.reason


def test_large_answers_up_to_a_bound(path: Path, server: Kubelet) -> None:
    resources = PodResources(path)
    users = [User(namespace="serving", name=f"llama-{i}", container="vllm") for i in range(500)]
    server.pods = [
        pod(user, *(f"{GPU}::{i * 8 + n}" for n in range(8)), cpuIds=[*range(384)]) for i, user in enumerate(users)
    ]
    found, error = resources.read()
    assert error is None
    assert len(found) == 4000
    assert users_of(found, uuid=GPU) == tuple(users)

    server.raw = encode(server.pods) * 10
    _, error = resources.read()
    assert error is not None
    assert error.reason == "an answer of more than 4194304 bytes"


def answered(path: Path, *answers: bytes, pause: float = 0) -> tuple[Any, str]:
    """What is made of a server that sends just this, whatever it is asked."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.recv(1 << 16)
            for answer in answers:
                connection.sendall(answer)
                time.sleep(pause)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        found, error = PodResources(path, deadline_s=0.5).read()
        thread.join()
    assert error is not None
    return found, error.reason


def test_a_server_that_does_not_speak_http_2(path: Path) -> None:
    data_on_stream_0 = b"\x00\x00\x01\x00\x00\x00\x00\x00\x00x"
    found, reason = answered(path, data_on_stream_0)

    assert found == {}
    assert reason.startswith("not HTTP/2")


def test_a_server_that_hangs_up(path: Path) -> None:
    for i, answer in enumerate((b"", b"HTTP/1.1 400 Bad Request\r\n\r\n")):
        place = path.with_name(f"{i}.sock")
        assert answered(place, answer) == ({}, "the connection was closed before the answer")


def test_a_server_that_answers_drop_by_drop_costs_the_deadline(path: Path) -> None:
    settings = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    started = time.monotonic()

    assert answered(path, *[settings] * 10, pause=0.1) == ({}, "the kubelet did not answer within 0.5 s")
    assert time.monotonic() - started < 5


def test_a_server_that_goes_away(path: Path) -> None:
    goaway = b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + b"\x00\x00\x00\x00" + b"\x00\x00\x00\x0b"

    assert answered(path, goaway) == ({}, "the call was broken off (HTTP/2 error 11)")


@settings(max_examples=50)  # each makes a socket and a thread
@given(st.binary(max_size=80))
def test_any_bytes_from_the_socket_are_an_error(raw: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found, reason = answered(Path(folder) / "kubelet.sock", raw)
        assert found == {}
        assert reason


@pytest.mark.parametrize("raw", [b"\x0a\x7f", b"\x0a", b"\xff" * 12, b"\x0b\x00", b"\x0d\x00", b"\x0a\x02\x1a\x05"])
def test_an_answer_that_is_no_message(path: Path, server: Kubelet, raw: bytes) -> None:
    server.raw = raw
    found, error = PodResources(path).read()

    assert found == {}
    assert error is not None
    assert "not understood" in error.reason


def test_nothing_is_left_open(path: Path, server: Kubelet) -> None:
    resources = PodResources(path)
    server.pods = [pod(LLAMA, GPU)]
    resources.read()
    before = len([*Path("/proc/self/fd").iterdir()])
    for _ in range(30):
        assert resources.read()[1] is None

    assert len([*Path("/proc/self/fd").iterdir()]) <= before + 4


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_an_error(raw: bytes) -> None:
    try:
        users = _users(raw)
    except ValueError:
        return
    assert all(those for those in users.values())


_words = st.text(max_size=8)


@given(st.lists(st.tuples(_words, _words, _words, st.lists(_words, max_size=3)), max_size=4))
def test_what_protobuf_writes_is_read(pods: list[tuple[str, str, str, list[str]]]) -> None:
    found = _users(encode([pod(User(namespace=s, name=n, container=c), *ids) for s, n, c, ids in pods]))

    expected: dict[str, list[User]] = {}
    for namespace, name, container, ids in pods:
        user = User(namespace=namespace, name=name, container=container)
        for device in ids:
            if user not in expected.setdefault(device, []):
                expected[device].append(user)
    assert found == {device: tuple(users) for device, users in expected.items()}
