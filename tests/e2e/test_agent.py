"""The node agent behind the pod proxy of the real API server: who may read it, and whether its objects are let in."""
# ruff: noqa: F811

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.agent import nvml_scenes as scenes
from tests.agent.kubelet import kubelet as pod_resources
from tests.agent.nvml_scenes import Scene, uuid
from tests.agent.process import Agent, agent
from tests.agent.test_nvml import library  # noqa: F401

from . import network
from .conftest import Doctor, Kubectl
from .controlplane import ApiError, ControlPlane
from .play import Object

PORT = 9479
PODS = "/api/v1/namespaces/llmdoctor/pods"
ACCESS = Path(__file__).parents[2] / "docs" / "access.md"
TARGET = ("diagnose", "llama-0", "-n", "serving")

Apply = Callable[..., list[Object]]


@pytest.fixture
def apply(doctor: Doctor, kubectl: Kubectl, cluster: ControlPlane, tmp_path: Path) -> Iterator[Apply]:
    """Prints the agent's objects and applies them; they are gone after the test."""
    runtime = {"metadata": {"name": "nvidia"}, "handler": "nvidia"}
    cluster.api.create("/apis/node.k8s.io/v1/runtimeclasses", runtime)
    file = tmp_path / "agent.yaml"

    def run(*arguments: str) -> list[Object]:
        printed = doctor("agent", "manifests", *arguments)
        assert printed.code == 0, printed.err
        file.write_text(printed.out)
        applied = kubectl("apply", "-f", str(file))
        assert applied.code == 0, applied.err
        return list(yaml.safe_load_all(printed.out))

    yield run
    for item in cluster.api.get(PODS)["items"]:
        cluster.api.delete(f"{PODS}/{item['metadata']['name']}")
    # no controller takes away what is in a namespace, so it stays, empty and unlabelled
    kinds = (("apps", "daemonsets", "llmdoctor-agent"), ("networking.k8s.io", "networkpolicies", "llmdoctor-agent"))
    for group, plural, name in (*kinds, ("rbac.authorization.k8s.io", "roles", "llmdoctor-agent-reader")):
        cluster.api.delete(f"/apis/{group}/v1/namespaces/llmdoctor/{plural}/{name}")
    cluster.api.delete("/apis/node.k8s.io/v1/runtimeclasses/nvidia")


def pod_of(objects: list[Object], name: str = "llmdoctor-agent-x2v4q", **spec: Any) -> Object:
    """The pod that the DaemonSet's controller would make."""
    (daemon_set,) = (item for item in objects if item["kind"] == "DaemonSet")
    template = daemon_set["spec"]["template"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template["metadata"], "name": name},
        "spec": {**template["spec"], **spec},
    }


def run_pod(cluster: ControlPlane, objects: list[Object], address: str = network.ADDRESS) -> None:
    """Makes the agent's pod on gpu-1, running."""
    cluster.api.create(PODS, pod_of(objects, nodeName="gpu-1"))
    row = {"name": "agent", "ready": True, "restartCount": 0, "image": "", "imageID": "", "state": {"running": {}}}
    status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "containerStatuses": [row]}
    cluster.api.patch(f"{PODS}/llmdoctor-agent-x2v4q/status", {"status": status})


@pytest.fixture
def running(library: Path, tmp_path: Path) -> Iterator[Agent]:
    """The agent of gpu-1, with an A10's neighbour in it: one L40S that serving/llama-0 has."""
    scene, socket = Scene(tmp_path / "scene", scenes.l40s(1)), tmp_path / "kubelet.sock"
    arguments = ("--with=pod-resources", "--pod-resources", str(socket))
    with (
        pod_resources(socket) as state,
        agent(*arguments, library=library, scene=scene.path, address=network.ADDRESS, port=PORT) as one,
    ):
        devices = [{"resourceName": "nvidia.com/gpu", "deviceIds": [uuid(0)]}]
        containers = [{"name": "vllm", "devices": devices}]
        state.pods = [{"name": "llama-0", "namespace": "serving", "containers": containers}]
        one.wait()
        one.report(fresh=True)
        yield one


def documented() -> list[dict[str, Any]]:
    """The rules of the first ClusterRole that docs/access.md gives."""
    block, _ = re.findall(r"(?ms)^```yaml\n(.*?)^```$", ACCESS.read_text(encoding="utf-8"))
    rules: list[dict[str, Any]] = yaml.safe_load(block)["rules"]
    return rules


@pytest.fixture(scope="module")
def users(cluster: ControlPlane) -> dict[str, Path]:
    """Two who may read what docs/access.md says; only one of them will be bound to the agent's Role."""
    for name in ("agent-reader", "no-agent-reader"):
        cluster.allow(name, documented())
    return {name: cluster.kubeconfig(name, cluster.user(name)) for name in ("agent-reader", "no-agent-reader")}


@pytest.fixture
def bound(cluster: ControlPlane, kubectl: Kubectl) -> Iterator[Callable[[], None]]:
    """Binds agent-reader to the agent's Role, as docs/agent.md says."""

    def bind() -> None:
        line = ("rolebinding", "oncall", "--role=llmdoctor-agent-reader", "--user=agent-reader")
        assert kubectl("create", "-n", "llmdoctor", *line).code == 0

    yield bind
    cluster.api.delete("/apis/rbac.authorization.k8s.io/v1/namespaces/llmdoctor/rolebindings/oncall")


def said(result: Any) -> list[str]:
    """What the report says of the agent."""
    return [row["reason"] for row in result.not_read if row["source"] == "agent"]


def test_a_reader_with_the_documented_rights(
    crashed: Object,
    cluster: ControlPlane,
    apply: Apply,
    running: Agent,
    users: dict[str, Path],
    bound: Callable[[], None],
    doctor: Doctor,
    tmp_path: Path,
) -> None:
    run_pod(cluster, apply())
    bound()
    file = tmp_path / "snapshot.json"

    result = doctor(*TARGET, "-o", "json", "--save", str(file), kubeconfig=users["agent-reader"])

    assert said(result) == []
    report = json.loads(file.read_text())["nodes"]["gpu-1"]["agent"]
    assert (report["schema"], report["node"]) == ("llmdoctor.agent/v1", "gpu-1")
    assert report["driverVersion"] == "550.127.05"
    (gpu,) = report["gpus"]
    assert (gpu["name"], gpu["uuid"]) == ("NVIDIA L40S", uuid(0))
    assert gpu["pods"] == [{"namespace": "serving", "name": "llama-0", "container": "vllm"}]
    offline = doctor("diagnose", "--from", str(file), "-o", "json")
    assert offline.findings == result.findings
    text = doctor(*TARGET, kubeconfig=users["agent-reader"])
    assert "node agent" not in text.out
    off = doctor(*TARGET, "--agent", "off", "-o", "json", "--save", str(file), kubeconfig=users["agent-reader"])
    assert said(off) == []
    assert "nodes" not in json.loads(file.read_text())
    access = doctor("access", "-n", "serving", kubeconfig=users["agent-reader"])
    assert "1 of 1 run in the namespace llmdoctor, and the one of gpu-1 answers" in access.out


def test_others_are_refused(
    crashed: Object,
    cluster: ControlPlane,
    apply: Apply,
    running: Agent,
    users: dict[str, Path],
    bound: Callable[[], None],
    doctor: Doctor,
    kubectl: Kubectl,
) -> None:
    run_pod(cluster, apply())
    bound()

    result = doctor(*TARGET, "-o", "json", kubeconfig=users["no-agent-reader"])

    (line,) = said(result)
    assert "forbidden" in line
    assert "llmdoctor-agent-reader" in line
    text = doctor(*TARGET, kubeconfig=users["no-agent-reader"])
    assert "node agent: forbidden" in " ".join(text.out.split())
    # the Role is for this namespace, and for reading
    reader = users["agent-reader"]
    path = f"{PODS}/llmdoctor-agent-x2v4q:{PORT}/proxy/v1/report"
    assert kubectl("get", "--raw", path, kubeconfig=reader).code == 0
    assert kubectl("get", "--raw", path, kubeconfig=users["no-agent-reader"]).code != 0
    can = ("auth", "can-i")
    assert kubectl(*can, "get", "pods", "--subresource=proxy", "-n", "llmdoctor", kubeconfig=reader).code == 0
    for verb, what, below, where in (
        ("create", "pods", "proxy", "llmdoctor"),
        ("get", "pods", "proxy", "serving"),
        ("get", "pods", "exec", "llmdoctor"),
        ("create", "pods", "portforward", "llmdoctor"),
        ("get", "nodes", "proxy", "llmdoctor"),
    ):
        answer = kubectl(*can, verb, what, f"--subresource={below}", "-n", where, kubeconfig=reader)
        assert answer.out.strip() == "no", (verb, what, below)


def test_an_agent_that_is_not_reached(crashed: Object, cluster: ControlPlane, apply: Apply, doctor: Doctor) -> None:
    objects = apply()
    assert said(doctor(*TARGET, "-o", "json")) == ["not installed (kubectl llmdoctor agent manifests)"]
    run_pod(cluster, objects)

    refused = doctor(*TARGET, "-o", "json")
    cluster.api.delete(f"{PODS}/llmdoctor-agent-x2v4q")
    # an address where nobody answers at all, as behind a NetworkPolicy
    run_pod(cluster, objects, "10.99.99.99")
    silent = doctor(*TARGET, "-o", "json")

    (line,) = said(refused)
    assert "does not reach" in line
    assert "connection refused" in line
    (line,) = said(silent)
    assert "no answer from llmdoctor/llmdoctor-agent-x2v4q in 3 s" in line
    assert "--allow-from" in line
    assert silent.seconds < refused.seconds + 6


@pytest.mark.parametrize(
    ("arguments", "level"),
    [
        (("--profile", "minimal"), "restricted"),
        ((), "privileged"),
        (("--with", "processes"), "privileged"),
        (("--with", "kernel-log,cgroup"), "privileged"),
        (("--profile", "minimal", "--with", "kernel-log"), "privileged"),
    ],
    ids=["minimal", "default", "processes", "all", "minimal and kernel log"],
)
def test_pod_security_lets_in_what_the_namespace_says_and_no_more(
    cluster: ControlPlane, apply: Apply, arguments: tuple[str, ...], level: str
) -> None:
    objects = apply(*arguments)

    label = cluster.api.get("/api/v1/namespaces/llmdoctor")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    assert label == level
    cluster.api.create(f"{PODS}?dryRun=All", pod_of(objects))
    if level == "privileged":  # and needs it
        labels = {"pod-security.kubernetes.io/enforce": "baseline"}
        cluster.api.patch("/api/v1/namespaces/llmdoctor", {"metadata": {"labels": labels}})
        with pytest.raises(ApiError, match='violates PodSecurity \\\\"baseline') as refused:
            _create_until_refused(cluster, objects)
        assert refused.value.code == 403


def _create_until_refused(cluster: ControlPlane, objects: list[Object]) -> None:
    """Tries for ten seconds: what a namespace is labelled with reaches the API server's admission a moment later."""
    for _ in range(100):
        cluster.api.create(f"{PODS}?dryRun=All", pod_of(objects))
        time.sleep(0.1)
