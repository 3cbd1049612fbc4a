"""The runbook step against a real API server: from an alert, until it is healthy; completion by kubectl itself."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from . import program
from .conftest import Doctor, Kubectl
from .controlplane import ControlPlane
from .play import Object

QUIET = ("--prometheus", "off", "--ports", "off", "--agent", "off")


def _payload(folder: Path, **labels: str) -> str:
    path = folder / "alert.json"
    alert = {"status": "firing", "labels": {"alertname": "KubePodCrashLooping", **labels}}
    path.write_text(json.dumps({"version": "4", "alerts": [alert]}))
    return str(path)


def test_an_alert_names_a_pod_or_a_node(crashed: Object, doctor: Doctor, kubectl: Kubectl, tmp_path: Path) -> None:
    pod = json.loads(kubectl("get", "pod", "llama-0", "-n", "serving", "-o", "json").out)
    node = pod["spec"]["nodeName"]
    addresses = json.loads(kubectl("get", "node", node, "-o", "json").out)["status"]["addresses"]
    expected = doctor("diagnose", "llama-0", "-n", "serving", *QUIET, "-o", "json").findings
    named: list[dict[str, str]] = [
        {"namespace": "serving", "pod": "llama-0", "container": "vllm"},
        {"namespace": "serving", "statefulset": "llama"},
        {"node": node},
        {"instance": f"{addresses[0]['address']}:9100"},
    ]
    for labels in named:
        found = doctor("diagnose", "--alert", _payload(tmp_path, **labels), *QUIET, "-o", "json")
        assert found.findings == expected, labels


def test_a_user_who_may_not_list_pods_of_all_namespaces_is_told(
    crashed: Object, cluster: ControlPlane, doctor: Doctor, tmp_path: Path
) -> None:
    nobody = cluster.kubeconfig("nobody", cluster.user("nobody"))
    found = doctor("diagnose", "--alert", _payload(tmp_path, node="gpu-1"), *QUIET, kubeconfig=nobody)

    assert found.code == 3
    assert "forbidden" in found.err
    assert len(found.err.splitlines()) == 1


def test_watch_ends_when_the_pod_is_ready(crashed: Object, cluster: ControlPlane, kubectl: Kubectl, home: Path) -> None:
    arguments = ["kubectl", "llmdoctor", "diagnose", "llama-0", "-n", "serving", *QUIET]
    arguments += ["--watch", "--interval", "500ms", "--timeout", "60s", "--fail-on", "critical"]
    environment = program.environment(home, {"KUBECONFIG": str(cluster.admin)})
    watching = subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(3)
    assert watching.poll() is None
    _heal(kubectl)
    out, err = watching.communicate(timeout=70)

    assert (watching.returncode, err) == (0, "")
    assert out.count("serving/llama-0 ") >= 2


def _heal(kubectl: Kubectl) -> None:
    """What the kubelet would write once the container runs."""
    pod: dict[str, Any] = json.loads(kubectl("get", "pod", "llama-0", "-n", "serving", "-o", "json").out)
    status = pod["status"]
    names = [container["name"] for container in pod["spec"]["containers"]]
    running = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    statuses = [
        {"name": name, "ready": True, "restartCount": 0, "state": running, "image": "x", "imageID": ""}
        for name in names
    ]
    status["containerStatuses"] = statuses
    status["phase"] = "Running"
    status["conditions"] = [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}]
    patch = json.dumps({"status": {key: status[key] for key in ("containerStatuses", "phase", "conditions")}})
    done = kubectl(
        "patch", "pod", "llama-0", "-n", "serving", "--subresource=status", "--type=merge", "-p", patch
    )  # fmt: skip
    assert done.code == 0, done.err


def test_kubectl_offers_what_is_there(crashed: Object, kubectl: Kubectl) -> None:
    complete = ("__complete", "llmdoctor")

    assert kubectl(*complete, "diagnose", "-n", "serving", "lla").out.splitlines() == ["llama-0", ":4"]
    assert "serving" in kubectl(*complete, "diagnose", "-n", "").out.splitlines()
    assert kubectl(*complete, "diagnose", "-n", "serving", "sts/").out.splitlines() == ["sts/llama", ":4"]
