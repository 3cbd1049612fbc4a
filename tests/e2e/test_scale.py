"""One Pending pod in a large cluster costs no more than listing that cluster once."""

import sys
from pathlib import Path
from typing import Any

import pytest

from . import program
from .conftest import Play
from .controlplane import ControlPlane

NODES, PODS, GPU_NODES = 1000, 10_000, 120
MOST_TIMES, MOST_MIB = 1.0, 300
BEGAN = "2026-11-20T08:00:00Z"
PRODUCTS = ("NVIDIA-H100-80GB-HBM3", "NVIDIA-A100-SXM4-80GB", "NVIDIA-L4")


def _node(number: int) -> dict[str, Any]:
    gpus = 8 if number < GPU_NODES else 0
    name = f"{'gpu' if gpus else 'cpu'}-{number:04}"
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/os": "linux",
        "topology.kubernetes.io/region": "eu-west-1",
        "topology.kubernetes.io/zone": f"eu-west-1{'abc'[number % 3]}",
        "node.kubernetes.io/instance-type": "p5.48xlarge" if gpus else "m7i.8xlarge",
        **{f"feature.node.kubernetes.io/cpu-cpuid.{n}": "true" for n in range(30)},
    }
    amounts = {"cpu": "64", "memory": "512Gi", "ephemeral-storage": "900Gi", "pods": "110"}
    if gpus:
        labels |= {
            "nvidia.com/gpu.present": "true",
            "nvidia.com/gpu.product": PRODUCTS[number % 3],
            "nvidia.com/gpu.count": "8",
        }
        amounts |= {"nvidia.com/gpu": "8"}
    taints = [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}] if gpus and number % 2 else []
    images = [{"names": [f"registry.example/image-{n}@sha256:{n:064x}"], "sizeBytes": 10**9 + n} for n in range(50)]
    conditions = [
        {"type": kind, "status": status, "reason": kind, "message": "kubelet says so", "lastTransitionTime": BEGAN}
        for kind, status in (
            ("MemoryPressure", "False"),
            ("DiskPressure", "False"),
            ("PIDPressure", "False"),
            ("Ready", "True"),
        )
    ]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels, "creationTimestamp": BEGAN},
        "spec": {"taints": taints},
        "status": {"capacity": amounts, "allocatable": amounts, "images": images, "conditions": conditions},
    }


def _pod(number: int) -> dict[str, Any]:
    """The first pods hold the GPUs, eight on a node; the others are what else runs."""
    gpu = number < GPU_NODES * 8
    node = number // 8 if gpu else GPU_NODES + number % (NODES - GPU_NODES)
    requests = {"cpu": "4", "memory": "24Gi", "nvidia.com/gpu": "1"} if gpu else {"cpu": "500m", "memory": "1Gi"}
    environment = [{"name": f"SETTING_{n}", "value": f"value-{n}-" + "x" * 40} for n in range(25)]
    probe = {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 10}
    containers = [
        {
            "name": name,
            "image": "vllm/vllm-openai:v0.11.0" if gpu else "registry.example/app:1.0",
            "args": ["--model", "Qwen/Qwen3-8B"] if gpu else [],
            "env": environment,
            "ports": [{"containerPort": 8000}],
            "livenessProbe": probe,
            "readinessProbe": probe,
            "resources": {"requests": requests, "limits": {"nvidia.com/gpu": "1"} if gpu else {}},
            "volumeMounts": [{"name": f"volume-{n}", "mountPath": f"/volumes/{n}"} for n in range(4)],
        }
        for name in ("main",)
    ]
    status = {
        "name": "main",
        "ready": True,
        "restartCount": 0,
        "image": "x",
        "imageID": "",
        "state": {"running": {"startedAt": BEGAN}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"app-{number:05}",
            "namespace": f"team-{number % 40}",
            "labels": {"app": f"app-{number // 8}", "pod-template-hash": f"{number % 97:x}"},
            "creationTimestamp": BEGAN,
        },
        "spec": {
            "nodeName": f"{'gpu' if gpu else 'cpu'}-{node:04}",
            "containers": containers,
            "volumes": [{"name": f"volume-{n}", "configMap": {"name": f"settings-{n}"}} for n in range(4)],
        },
        "status": {"phase": "Running", "containerStatuses": [status], "startTime": BEGAN},
    }


def _pending() -> dict[str, Any]:
    pod = _pod(0)
    pod["metadata"] |= {"name": "llama-0", "namespace": "serving"}
    del pod["spec"]["nodeName"]
    counts = (
        f"0/{NODES} nodes are available: 60 node(s) had untolerated taint(s), {NODES - 60} Insufficient nvidia.com/gpu."
    )
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": f"{counts} preemption: 0/{NODES} nodes are available: 60 No preemption victims found for incoming pod, "
        f"{NODES - 60} Preemption is not helpful for scheduling.",
        "lastTransitionTime": BEGAN,
    }
    pod["status"] = {"phase": "Pending", "conditions": [condition]}
    return pod


#: A process's peak counts what its parent had when it was made, so that a small process starts the command.
_MEASURE = """
import os, subprocess, sys, time
began = time.monotonic()
with subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE) as process:
    sys.stdout.buffer.write(process.stdout.read())
    _, code, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(code)
print(time.monotonic() - began, usage.ru_maxrss // 1024, file=sys.stderr)
sys.exit(process.returncode)
"""


def _measured(command: list[str], home: Path, kubeconfig: Path) -> tuple[float, int, str]:
    """Seconds, peak resident MiB and output of a command."""
    done = program.run([sys.executable, "-c", _MEASURE, *command], home, {"KUBECONFIG": str(kubeconfig)})
    assert done.code in (0, 1)
    seconds, mebibytes = done.err.split()
    return float(seconds), int(mebibytes), done.out


@pytest.mark.timed
def test_a_pending_pod_among_thousands(
    play: Play, cluster: ControlPlane, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    objects = [_pending(), *map(_node, range(NODES)), *map(_pod, range(PODS))]
    play({"takenAt": BEGAN, "objects": objects})
    listing = ["kubectl", "get", "nodes,pods", "-A", "-o", "json"]
    ours = ["kubectl", "llmdoctor", "diagnose", "llama-0", "-n", "serving"]
    for _ in range(2):  # the first time fills the API server's caches
        base, _, _ = _measured(listing, home, cluster.admin)
        our, peak, out = _measured(ours, home, cluster.admin)
    assert "gpu-insufficient" in out
    assert len(out.splitlines()) < 60
    with capsys.disabled():
        print(f"\nscale: {NODES} nodes, {PODS} pods: diagnosis {our:.2f} s, kubectl get {base:.2f} s, ratio ", end="")
        print(f"{our / base:.2f} (at most {MOST_TIMES}); peak {peak} MiB (at most {MOST_MIB})")
    assert our <= MOST_TIMES * base
    assert peak <= MOST_MIB
