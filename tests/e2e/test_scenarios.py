"""What the real scheduler and the real controllers make of it, diagnosed while it happens."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from . import network
from .conftest import Doctor
from .controlplane import Api, ControlPlane
from .kubelet import PORT, Instance, Kubelet, Log

IMAGE = "vllm/vllm-openai:v0.9.1"
KV_CACHE = (
    "ValueError: To serve at least one request with the models's max seq len (32768), (1.75 GiB KV cache is needed, "
    "which is larger than the available KV cache memory (0.98 GiB). Based on the available memory,  the estimated "
    "maximum model length is 18336. Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when "
    "initializing the engine.\n"
)


@dataclass(frozen=True)
class Scene:
    """An empty namespace, and a node with one GPU that is called like it."""

    api: Api
    name: str

    def path(self, resource: str, group: str = "") -> str:
        """The path of a list in the namespace."""
        return f"/{'apis' if group else 'api'}/{group or 'v1'}/namespaces/{self.name}/{resource}"

    def items(self, resource: str, reason: str = "") -> list[Any]:
        """The objects of a list; of events, those with this reason."""
        query = f"?fieldSelector=reason%3D{reason}" if reason else ""
        items: list[Any] = self.api.get(self.path(resource) + query)["items"]
        return items

    def pod(self) -> str:
        """The name of the only pod, once it is bound to the node."""
        pods = _until(lambda: [pod for pod in self.items("pods") if pod["spec"].get("nodeName") == self.name])
        return str(pods[0]["metadata"]["name"])

    def report(self, pod: str, phase: str, ready: bool, **container: Any) -> None:
        """Patches the status that the node's kubelet would report."""
        path = f"{self.path('pods')}/{pod}"
        conditions = {"Initialized": True, "ContainersReady": ready, "Ready": ready}
        body = {
            "phase": phase,
            "hostIP": network.ADDRESS,
            "podIP": "10.244.1.5",
            "startTime": _now(),
            "conditions": [
                *(item for item in self.api.get(path)["status"]["conditions"] if item["type"] == "PodScheduled"),
                *(
                    {"type": kind, "status": str(value), "lastTransitionTime": _now()}
                    for kind, value in conditions.items()
                ),
            ],
            "containerStatuses": [{"name": "vllm", "image": IMAGE, "imageID": "", "ready": ready} | container],
        }
        self.api.patch(f"{path}/status", {"status": body})


@pytest.fixture
def scene(controllers: ControlPlane, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A scene of the test's own, called like the test; its pods are gone afterwards, the rest disturbs nobody."""
    api, name = controllers.api, request.function.__name__.replace("_", "-")
    api.create("/api/v1/namespaces", {"metadata": {"name": name}})
    api.create("/api/v1/nodes", {"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}})
    resources = {"cpu": "32", "memory": "128Gi", "pods": "110", "nvidia.com/gpu": "1"}
    status = {
        "capacity": resources,
        "allocatable": resources,
        "addresses": [{"type": "InternalIP", "address": network.ADDRESS}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": PORT}},
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "lastTransitionTime": _now()}],
    }
    api.patch(f"/api/v1/nodes/{name}/status", {"status": status})
    scene = Scene(api, name)
    yield scene
    for path in (
        scene.path("deployments", "apps/v1"),
        scene.path("statefulsets", "apps/v1"),
        scene.path("jobs", "batch/v1"),
        scene.path("pods"),
    ):
        api.delete(path)
    api.delete(f"/api/v1/nodes/{name}")
    _until(lambda: not scene.items("pods"))


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _until(done: Callable[[], Any]) -> Any:
    """Waits for the control plane to do its part."""
    deadline = time.monotonic() + 30
    while not (result := done()):
        assert time.monotonic() < deadline, "the control plane did not do it in time"
        time.sleep(0.05)
    return result


def _spec(gpus: int) -> dict[str, Any]:
    """A vLLM pod that nothing speaks against."""
    resources = {"cpu": "4", "memory": "32Gi", "nvidia.com/gpu": str(gpus)}
    arguments = ["--model", "Qwen/Qwen2.5-7B-Instruct", "--max-model-len", "32768", "--port", "8000"]
    probe = {"httpGet": {"path": "/health", "port": 8000}}
    container = {
        "name": "vllm",
        "image": IMAGE,
        "args": [*arguments, "--tensor-parallel-size", str(gpus)],
        "ports": [{"containerPort": 8000}],
        "resources": {"limits": resources, "requests": resources},
        "readinessProbe": probe,
        "startupProbe": probe | {"failureThreshold": 60},
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
    }
    return {
        "containers": [container],
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}}],
        "terminationGracePeriodSeconds": 0,
    }


def _workload(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": name}}, "spec": _spec(gpus=1)}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template} | spec,
    }


def test_pending_because_another_pod_has_the_gpu(scene: Scene, doctor: Doctor) -> None:
    scene.api.create(scene.path("pods"), {"metadata": {"name": "first"}, "spec": _spec(gpus=1)})
    assert scene.pod() == "first"
    scene.api.create(scene.path("pods"), {"metadata": {"name": "second"}, "spec": _spec(gpus=1)})
    event = _until(lambda: scene.items("events", "FailedScheduling"))[0]
    assert "1 Insufficient nvidia.com/gpu" in event["message"]
    result = doctor("diagnose", "second", "-n", scene.name, "-o", "json")
    assert result.code == 1
    assert result.target["verdict"] == "cause-found"
    assert result.findings[0] == ("cause", "gpu-insufficient")
    assert "Insufficient nvidia.com/gpu" in str(result.target["findings"])


def test_pods_refused_by_a_quota(scene: Scene, doctor: Doctor) -> None:
    quota = {"metadata": {"name": "gpus"}, "spec": {"hard": {"requests.nvidia.com/gpu": "0"}}}
    scene.api.create(scene.path("resourcequotas"), quota)
    _until(lambda: "hard" in scene.items("resourcequotas")[0].get("status", {}))
    service = {"selector": {"app": "refused"}, "ports": [{"port": 80, "targetPort": 8000}]}
    scene.api.create(scene.path("services"), {"metadata": {"name": "refused"}, "spec": service})
    slices = scene.path("endpointslices", "discovery.k8s.io/v1")
    # Nobody stands behind the Service, which the API says with a null and not with an empty list.
    assert _until(lambda: scene.api.get(slices)["items"])[0]["endpoints"] is None
    deployments = scene.path("deployments", "apps/v1")
    scene.api.create(deployments, _workload("Deployment", "refused"))
    event = _until(lambda: scene.items("events", "FailedCreate"))[0]
    assert "exceeded quota: gpus" in event["message"]
    _until(lambda: "ReplicaFailure" in str(scene.api.get(f"{deployments}/refused")["status"]))
    result = doctor("diagnose", "deployment/refused", "-n", scene.name, "-o", "json")
    assert result.code == 1
    assert result.target["kind"] == "Deployment"
    assert result.target["verdict"] in ("cause-found", "undetermined")
    # Nothing runs and nothing can: the refusal stands in the report, whichever finding quotes it.
    assert "exceeded quota: gpus" in str(result.target["findings"])
    assert "malformed" not in str(result.not_read)


def test_a_healthy_pod(scene: Scene, doctor: Doctor, kubelet: Kubelet) -> None:
    scene.api.create(scene.path("pods"), {"metadata": {"name": "fine"}, "spec": _spec(gpus=1)})
    scene.pod()
    running = {"running": {"startedAt": _now()}}
    scene.report("fine", "Running", True, started=True, restartCount=0, state=running)
    kubelet.logs[Instance(scene.name, "fine", "vllm", previous=False)] = Log(
        "INFO 11-20 09:56:41 [api_server.py:1336] Starting vLLM API server 0 on http://0.0.0.0:8000\n"
        "INFO:     Application startup complete.\n"
    )
    result = doctor("diagnose", "fine", "-n", scene.name, "-o", "json")
    assert result.code == 0
    assert result.target["verdict"] in ("healthy", "at-risk")
    assert not [found for found in result.findings if found[0] in ("cause", "symptom")]


def test_a_failed_job(scene: Scene, doctor: Doctor, kubelet: Kubelet) -> None:
    template = {"spec": _spec(gpus=1) | {"restartPolicy": "Never"}}
    jobs = scene.path("jobs", "batch/v1")
    scene.api.create(jobs, {"metadata": {"name": "batch"}, "spec": {"backoffLimit": 0, "template": template}})
    pod = scene.pod()
    ended = {"exitCode": 1, "reason": "Error", "startedAt": _now(), "finishedAt": _now()}
    scene.report(pod, "Failed", False, restartCount=0, state={"terminated": ended})
    kubelet.logs[Instance(scene.name, pod, "vllm", previous=False)] = Log(KV_CACHE)
    _until(lambda: scene.api.get(f"{jobs}/batch")["status"].get("failed"))
    result = doctor("diagnose", "job/batch", "-n", scene.name, "-o", "json")
    assert result.code == 1
    assert result.target["workload"] == "Job/batch"
    assert result.target["pods"] == [pod]
    assert result.findings[0] == ("cause", "kv-cache-below-max-len")


def test_a_crashing_stateful_set(scene: Scene, doctor: Doctor, kubelet: Kubelet) -> None:
    scene.api.create(scene.path("statefulsets", "apps/v1"), _workload("StatefulSet", "llama", serviceName="llama"))
    assert scene.pod() == "llama-0"
    ended = {
        "exitCode": 1,
        "reason": "Error",
        "startedAt": _now(),
        "finishedAt": _now(),
        "containerID": "containerd://1",
    }
    waiting = {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container=vllm"}
    state = {"state": {"waiting": waiting}, "lastState": {"terminated": ended}}
    scene.report("llama-0", "Running", False, restartCount=3, **state)
    for previous in (False, True):
        kubelet.logs[Instance(scene.name, "llama-0", "vllm", previous)] = Log(KV_CACHE)
    result = doctor("diagnose", "statefulset/llama", "-n", scene.name, "-o", "json")
    assert result.code == 1
    assert result.target["workload"] == "StatefulSet/llama"
    assert result.findings[0] == ("cause", "kv-cache-below-max-len")
    text = doctor("diagnose", "sts/llama", "-n", scene.name)
    assert text.code == 1
    assert "kv-cache-below-max-len" in text.out
    assert text.err == ""


def test_a_start_that_fell_silent_is_told_from_one_that_loads(scene: Scene, doctor: Doctor, kubelet: Kubelet) -> None:
    scene.api.create(scene.path("pods"), {"metadata": {"name": "llama"}, "spec": _spec(gpus=1)})
    scene.pod()
    began = f"{datetime.now(UTC) - timedelta(hours=2):%Y-%m-%dT%H:%M:%SZ}"
    scene.report("llama", "Running", False, started=True, restartCount=0, state={"running": {"startedAt": began}})
    line = "INFO 11-20 09:56:41 [gpu_model_runner.py:1] Starting to load model Qwen/Qwen2.5-7B-Instruct...\n"
    said = {}
    for last in (began, _now()):
        kubelet.logs[Instance(scene.name, "llama", "vllm", previous=False)] = Log(line, at=last)
        result = doctor("diagnose", "llama", "-n", scene.name, "-o", "json")
        assert result.findings[:2] == [("cause", "slow-load"), ("symptom", "not-ready")]
        said[last] = result.target["findings"][1]["summary"]
    assert "It was loading weights, and its log has no further line for 2 h" in said[began]
    assert "By its log it is loading weights." in said[last]
