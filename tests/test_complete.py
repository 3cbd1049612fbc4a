"""Completion, by kubectl itself: it finds the program, hands the words on and reads the answer."""
# ruff: noqa: F811

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kubectl_llmdoctor.cli.complete import complete
from tests.program import run
from tests.test_gather_cluster import deployment_world, obj
from tests.test_gather_server import FakeApi, api, kubeconfig, silence  # noqa: F401

NO_FILES, NO_SPACE = 4, 6
ROOT = Path(__file__).parent.parent


@pytest.fixture
def world(api: FakeApi, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    api.objects = [*deployment_world(), obj("Namespace", "serving", ns=""), obj("Namespace", "team", ns="")]
    return api


def values(*words: str) -> list[str]:
    return [value for value, _ in complete(list(words))[0]]


def test_pods_types_and_names_of_a_type(world: FakeApi) -> None:
    assert complete(["diagnose", ""]) == ([("llama-1-a", ""), ("llama-2-a", ""), ("llama-2-b", "")], NO_FILES)
    assert values("diagnose", "llama-2") == ["llama-2-a", "llama-2-b"]
    assert complete(["diagnose", "dep"]) == ([("deployment/", "")], NO_SPACE)
    assert values("diagnose", "deploy/") == ["deploy/llama"]
    assert values("fit", "isvc/ch") == ["isvc/chat"]
    assert values("snapshot", "nothing/") == []
    assert values("diagnose", "-n", "team", "") == []


def test_values_of_options(world: FakeApi, kubeconfig: Path) -> None:
    assert values("diagnose", "-n", "") == ["serving", "team"]
    assert values("diagnose", "--namespace=se") == ["--namespace=serving"]
    assert values("diagnose", "--context", "") == ["test"]
    assert values("diagnose", "--kubeconfig", str(kubeconfig), "--user", "t") == ["test"]
    assert values("diagnose", "--fail-on", "") == ["critical", "warning", "info", "never"]
    assert values("diagnose", "-o", "js") == ["json"]
    assert complete(["diagnose", "--from", ""]) == ([], 0)
    assert complete(["diagnose", "--timeout", ""]) == ([], NO_FILES)


def test_commands_flags_ids_and_files() -> None:
    assert {"diagnose", "lint"} <= set(values(""))
    assert values("dia") == ["diagnose"]
    assert values("--v") == ["--version"]
    assert {"--watch", "--wa"} & set(values("diagnose", "--wa")) == {"--watch"}
    assert "shm-too-small" in values("explain", "shm")
    assert complete(["lint", "deploy"]) == ([], 0)
    assert complete(["treat", ""]) == ([], NO_FILES)


def test_a_flag_given_together_with_its_value_is_understood(world: FakeApi) -> None:
    assert values("diagnose", "-nteam", "") == []
    assert values("diagnose", "--watch", "-nserving", "llama-1") == ["llama-1-a"]


def test_the_program_alone_completes_too() -> None:
    done = run("__complete", "explain", "shm-too")

    assert done.returncode == 0
    assert done.stdout.decode().splitlines()[0].startswith("shm-too-small\t")
    assert done.stdout.decode().splitlines()[-1] == ":4"
    assert b"__complete" not in run("--help").stdout


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH with kubectl, the plugin and its completion, as an installation leaves them."""
    kubectl = shutil.which("kubectl", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if kubectl is None:
        pytest.skip("no kubectl")
    (tmp_path / "kubectl").symlink_to(kubectl)
    for name, module in (("kubectl-llmdoctor", "__main__:main"), ("kubectl_complete-llmdoctor", "cli.complete:main")):
        package, _, function = module.partition(":")
        script = f"#!{sys.executable}\nfrom kubectl_llmdoctor.{package} import {function}\n{function}()\n"
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    return str(tmp_path)


def by_kubectl(path: str, *words: str) -> tuple[list[str], float]:
    start = time.monotonic()
    environment = os.environ | {"PATH": path, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "checks")])}
    done = subprocess.run(
        ["kubectl", "__complete", "llmdoctor", *words], capture_output=True, env=environment, text=True, check=False
    )
    return done.stdout.splitlines(), time.monotonic() - start


def test_kubectl_completes_the_plugin(world: FakeApi, path: str) -> None:
    assert by_kubectl(path, "diagnose", "llama-2")[0] == ["llama-2-a", "llama-2-b", ":4"]
    assert by_kubectl(path, "diagnose", "-n", "")[0] == ["serving", "team", ":4"]
    assert by_kubectl(path, "explain", "shm-too")[0][0].startswith("shm-too-small\t")
    assert by_kubectl(path, "diagnose", "dep")[0] == ["deployment/", ":6"]


def test_a_server_that_is_silent_holds_nobody_up(world: FakeApi, path: str) -> None:
    world.faults["/api/v1/namespaces/serving/pods"] = [silence]
    lines, seconds = by_kubectl(path, "diagnose", "")

    assert lines == [":4"]
    assert seconds < 10  # 2.5 s, and two programs that start on a busy machine


def test_without_a_cluster_nothing_is_offered(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", os.devnull)

    assert by_kubectl(path, "diagnose", "")[0] == [":4"]
