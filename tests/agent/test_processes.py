"""Whose a process is: every layout of cgroup paths that kubelets and runtimes make, and /proc as it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmdoctor_agent.processes import Owner, Processes, container_of, owner_of

UID = "6f1d2c3b-8a90-4e57-b1c2-0d9e8f7a6b5c"
SLICE_UID = UID.replace("-", "_")
STATIC = "d41d8cd98f00b204e9800998ecf8427e"
ID, OTHER = "ab" * 32, "cd" * 32
QOS = "/kubepods.slice/kubepods-burstable.slice"


@pytest.mark.parametrize(
    "path",
    [
        f"{QOS}/kubepods-burstable-pod{SLICE_UID}.slice/cri-containerd-{ID}.scope",
        f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{SLICE_UID}.slice/cri-containerd-{ID}.scope",
        f"/kubepods.slice/kubepods-pod{SLICE_UID}.slice/cri-containerd-{ID}.scope",
        f"{QOS}/kubepods-burstable-pod{SLICE_UID}.slice/crio-{ID}.scope",
        f"{QOS}/kubepods-burstable-pod{SLICE_UID}.slice/crio-{ID}.scope/container",
        f"{QOS}/kubepods-burstable-pod{SLICE_UID}.slice/docker-{ID}.scope",
        f"/kubepods/burstable/pod{UID}/{ID}",
        f"/kubepods/pod{UID}/{ID}",
        f"/kubepods/burstable/pod{UID}/crio-{ID}",
        # a kubelet that runs in a container itself
        f"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{SLICE_UID}.slice/cri-containerd-{ID}.scope",
        f"/system.slice/docker-{OTHER}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice"
        f"/kubelet-kubepods-burstable-pod{SLICE_UID}.slice/cri-containerd-{ID}.scope",
        f"/docker/{OTHER}/kubelet/kubepods/burstable/pod{UID}/{ID}",
        # read from inside another container
        f"/../../kubepods-burstable-pod{SLICE_UID}.slice/cri-containerd-{ID}.scope",
        f"/../../../pod{UID}/{ID}",
        # what the container makes below its own cgroup is still the container
        f"{QOS}/kubepods-burstable-pod{SLICE_UID}.slice/cri-containerd-{ID}.scope/init.scope",
        f"{QOS}/kubepods-burstable-pod{SLICE_UID}.slice/cri-containerd-{ID}.scope/docker/{OTHER}",
        f"{QOS}/kubepods-burstable-pod{SLICE_UID}.slice/cri-containerd-{ID}.scope (deleted)",
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_pod_and_container_in_every_layout(path: str, nested: bool) -> None:
    assert owner_of(f"0::{path}\n", nested=nested) == Owner(pod_uid=UID, container_id=ID)


def test_version_1_has_a_path_for_each_controller() -> None:
    text = (
        "12:rdma:/\n"
        f"11:memory:/kubepods/burstable/pod{UID}/{ID}\n"
        f"4:cpu,cpuacct:/kubepods/burstable/pod{UID}/{ID}\n"
        "1:name=systemd:/system.slice/containerd.service\n"
        "0::/system.slice/containerd.service\n"
    )

    assert owner_of(text) == Owner(pod_uid=UID, container_id=ID)
    assert owner_of(text, nested=True) == Owner(pod_uid=UID, container_id=ID)


def test_the_uid_of_a_static_pod_has_no_dashes() -> None:
    path = f"{QOS}/kubepods-burstable-pod{STATIC}.slice/cri-containerd-{ID}.scope"

    assert owner_of(f"0::{path}") == Owner(pod_uid=STATIC, container_id=ID)


def test_what_only_watches_a_container_is_of_the_pod_but_not_of_the_container() -> None:
    path = f"{QOS}/kubepods-burstable-pod{SLICE_UID}.slice/crio-conmon-{ID}.scope"

    assert owner_of(f"0::{path}") == Owner(pod_uid=UID, container_id="")


@pytest.mark.parametrize(
    ("path", "container"),
    [
        ("/", ""),
        ("/user.slice/user-1000.slice/session-3.scope", ""),
        ("/system.slice/nvidia-persistenced.service", ""),
        (f"/system.slice/docker-{ID}.scope", ID),
        (f"/docker/{ID}", ID),
        ("/system.slice/podman.service", ""),
        ("/kubepods.slice/kubepods-burstable.slice", ""),
        (f"/custom/tripod{UID}/x", ""),
    ],
)
def test_a_process_of_no_pod(path: str, container: str) -> None:
    assert owner_of(f"0::{path}") == Owner(pod_uid="", container_id=container)


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        # a sibling in the reader's own pod: the pod's name is above what is shown
        (f"/../cri-containerd-{ID}.scope", Owner(container_id=ID)),
        (f"/../../crio-{ID}.scope/container", Owner(container_id=ID)),
        ("/", Owner()),
        ("/..", Owner()),
        ("/../../../../system.slice/sshd.service", Owner(pod_uid="", container_id="")),
        (f"/../../../../system.slice/docker-{ID}.scope", Owner(pod_uid="", container_id=ID)),
    ],
)
def test_what_a_relative_path_hides_is_not_known(path: str, owner: Owner) -> None:
    assert owner_of(f"0::{path}", nested=True) == owner


def test_no_line_says_nothing() -> None:
    assert owner_of("") == Owner()
    assert owner_of("garbage\n") == Owner()


@given(st.text(alphabet="/.0-:abpod12345678_sliceocr\n ") | st.text())
def test_any_text_has_an_owner_or_none(text: str) -> None:
    for nested in (False, True):
        owner = owner_of(text, nested=nested)
        assert owner.pod_uid is None or owner.pod_uid == "" or f"pod{owner.pod_uid}" in text.replace("_", "-")


ROOT = "1021 950 0:210 / / rw,relatime master:400 - overlay overlay rw,lowerdir=/var/lib/containerd/1/fs\n"
LOG = f"1040 1023 259:1 /var/lib/kubelet/pods/{UID}/containers/vllm/1a2b3c4d /dev/termination-log rw - ext4 /dev/nvme0n1p1 rw\n"
HOSTS = f"1041 1021 259:1 /var/lib/kubelet/pods/{UID}/etc-hosts /etc/hosts rw - ext4 /dev/nvme0n1p1 rw\n"


@pytest.mark.parametrize(
    ("mounts", "name"),
    [
        (ROOT + HOSTS + LOG, "vllm"),
        (ROOT + LOG.replace("/var/lib/kubelet", "").replace("/dev/termination-log", "/tmp/end"), "vllm"),
        (ROOT + LOG + LOG.replace("vllm", "other").replace(UID, OTHER[:36]), "vllm"),
        (ROOT + LOG + LOG.replace("vllm", "istio-proxy"), None),
        (ROOT + HOSTS, None),
        (ROOT + LOG.replace(UID, STATIC), None),
        ("", None),
        ("1 2 3\n", None),
    ],
)
def test_the_name_of_a_container_by_what_the_kubelet_mounts_into_it(mounts: str, name: str | None) -> None:
    assert container_of(mounts, UID) == name


def host(proc: Path, **files: str) -> Processes:
    """A /proc as the host's looks, with `PID/FILE: content` besides."""
    for name, text in {"1/cgroup": "0::/init.scope\n", "2/comm": "kthreadd\n", **files}.items():
        (proc / name).parent.mkdir(parents=True, exist_ok=True)
        (proc / name).write_text(text)
    return Processes(proc)


def test_processes_and_their_names(tmp_path: Path) -> None:
    files = {
        "10/cgroup": f"0::/kubepods/pod{UID}/{ID}\n",
        "10/comm": "VLLM::EngineCor\n",
        "10/mountinfo": ROOT + LOG,
        "11/cgroup": "0::/user.slice\n",
        "11/comm": "python3 \x1b[31m\n",
        "12/comm": "gone\n",
    }
    owners, error = host(tmp_path, **files).read([11, 10, 12, 13, 10])

    assert error is None
    assert owners == {
        10: Owner(name="VLLM::EngineCor", pod_uid=UID, container_id=ID, container="vllm"),
        11: Owner(name="python3 ?[31m", pod_uid="", container_id=""),
        12: Owner(name="gone"),
        13: Owner(),
    }


def test_paths_are_relative_where_those_of_process_1_are(tmp_path: Path) -> None:
    files = {"1/cgroup": "0::/../../../init.scope\n", "10/cgroup": f"0::/../cri-containerd-{ID}.scope\n"}

    assert host(tmp_path, **files).read([10])[0] == {10: Owner(container_id=ID)}


def test_pids_of_another_namespace_are_not_looked_up(tmp_path: Path) -> None:
    files = {"2/comm": "node_exporter\n", "10/cgroup": f"0::/kubepods/pod{UID}/{ID}\n", "10/comm": "vllm\n"}
    owners, error = host(tmp_path, **files).read([10])

    assert owners == {10: Owner()}
    assert error is not None
    assert error.source == "processes"
    assert "node_exporter" in error.reason


def test_without_proc_nothing_is_known(tmp_path: Path) -> None:
    owners, error = Processes(tmp_path / "missing").read([10])

    assert owners == {10: Owner()}
    assert error is not None
    assert str(tmp_path / "missing") in error.reason


def test_this_process_by_the_real_proc() -> None:
    owners, error = Processes(Path("/proc")).read([os.getpid()])
    if error:
        pytest.skip(f"the tests run in a pid namespace of their own: {error.reason}")

    assert owners[os.getpid()].name == Path("/proc/self/comm").read_text().strip()
    assert owners[os.getpid()].pod_uid is not None
