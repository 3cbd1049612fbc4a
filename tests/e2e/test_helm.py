"""A real Helm release: the fix knows its chart, and what it gives to paste sets the value and harms no other release."""

import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from . import program
from .conftest import Doctor, Kubectl
from .controlplane import ControlPlane

HELM = shutil.which("helm")

pytestmark = pytest.mark.skipif(HELM is None, reason="helm is not installed")

Run = Callable[..., subprocess.CompletedProcess[str]]

REPOSITORY = "https://helm.otwld.com"
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Release.Name }}-ollama
  labels: {helm.sh/chart: "{{ .Chart.Name }}-{{ .Chart.Version }}", app.kubernetes.io/managed-by: "{{ .Release.Service }}"}
spec:
  selector: {matchLabels: {app: "{{ .Release.Name }}"}}
  template:
    metadata: {labels: {app: "{{ .Release.Name }}"}}
    spec:
      containers:
        - {name: ollama, image: "ollama/ollama:0.12.0", resources: {{ toJson .Values.resources }}}
"""


def chart(folder: Path, name: str, version: str) -> Path:
    """A chart's folder, without templates."""
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text(f"apiVersion: v2\nname: {name}\nversion: {version}\n")
    return folder


def ollama(folder: Path) -> Path:
    """A chart that sets what ollama's does, from the same values."""
    chart(folder, "ollama", "1.77.0")
    (folder / "templates" / "deployment.yaml").write_text(DEPLOYMENT)
    (folder / "values.yaml").write_text('resources: {limits: {memory: 32Mi, nvidia.com/gpu: "1"}}\n')
    return folder


@pytest.fixture
def shell(cluster: ControlPlane, home: Path) -> Iterator[Run]:
    """Runs a command line as somebody who pastes it; the releases in the namespace `helm` are gone after the test."""
    variables = program.environment(home, {"KUBECONFIG": str(cluster.admin)})

    def run(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["sh", "-c", line], env=variables, capture_output=True, text=True, check=False)

    yield run
    run("helm list -n helm -q | xargs -r helm uninstall -n helm")


@pytest.fixture
def repository(tmp_path: Path, shell: Run) -> Iterator[str]:
    """The address of a repository that has the chart."""
    packages = tmp_path / "packages"
    assert not shell(f"helm package {ollama(tmp_path / 'packed' / 'ollama')} -d {packages}").returncode
    assert not shell(f"helm repo index {packages}").returncode
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(packages))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def pasted(doctor: Doctor, name: str) -> str:
    """The command that sets the value in the release of a Deployment."""
    findings = doctor("diagnose", f"deployment/{name}", "-n", "helm", "-o", "json").target["findings"]
    (finding,) = (finding for finding in findings if finding["id"] == "hook-oomkilled")
    (fix,) = (fix for fix in finding["fixes"] if "set resources.limits.memory in the values" in fix["summary"])
    return str(fix["commands"][1])


def limit(kubectl: Kubectl, name: str) -> str:
    path = "jsonpath={.spec.template.spec.containers[0].resources.limits.memory}"
    return kubectl("get", f"deployment/{name}", "-n", "helm", "-o", path).out


def test_the_upgrade_sets_the_value(
    shell: Run, repository: str, doctor: Doctor, kubectl: Kubectl, tmp_path: Path
) -> None:
    installed = shell(f"helm install chat {ollama(tmp_path / 'ollama')} -n helm --create-namespace")
    assert not installed.returncode, installed.stderr
    command = pasted(doctor, "chat-ollama")

    done = shell(command.replace(REPOSITORY, repository))

    assert REPOSITORY in command
    assert not done.returncode, done.stderr
    assert limit(kubectl, "chat-ollama") not in ("", "32Mi")


def test_a_release_of_a_chart_that_has_it_inside_is_left_alone(
    shell: Run, repository: str, doctor: Doctor, kubectl: Kubectl, tmp_path: Path
) -> None:
    outer = chart(tmp_path / "open-webui", "open-webui", "6.0.0")
    ollama(outer / "charts" / "ollama")
    installed = shell(f"helm install ui {outer} -n helm --create-namespace")
    assert not installed.returncode, installed.stderr

    done = shell(pasted(doctor, "ui-ollama").replace(REPOSITORY, repository))

    assert done.returncode
    assert "open-webui-6.0.0" in shell("helm list -n helm -o json").stdout
    assert limit(kubectl, "ui-ollama") == "32Mi"
