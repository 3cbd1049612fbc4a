"""The archive of `make dist`: it runs from an empty folder, without this Python, and says what the sources say."""
# ruff: noqa: F811

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from kubectl_llmdoctor import __version__
from tests.program import run
from tests.test_gather_cluster import deployment_world
from tests.test_gather_server import FakeApi, api  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent
CASES = ROOT / "checks" / "cases"

pytestmark = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="the archive is for linux/amd64"
)


def _builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("archive", ROOT / "deploy" / "krew" / "archive.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make dist` leaves, but the sdist."""
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    for command in (build, [sys.executable, str(ROOT / "deploy" / "krew" / "archive.py"), str(out)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def program(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program as krew installs it: unpacked, and linked from a folder on PATH."""
    folder, on_path = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("bin")
    with tarfile.open(next(dist.glob("*.tar.gz"))) as packed:
        packed.extractall(folder, filter="data")
    (on_path / "kubectl-llmdoctor").symlink_to(folder / "kubectl-llmdoctor")
    return on_path / "kubectl-llmdoctor"


def alone(program: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    """Runs it with nothing but the system's own programs in reach."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(cwd), "KUBECONFIG": os.devnull}
    return subprocess.run(
        [str(program), *arguments], cwd=cwd, env=environment, capture_output=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    "case", ["oomkilled-host/fires_loading", "shm-too-small/fires_risk_default", "context-uncapped/quiet_capped"]
)
def test_it_says_what_the_sources_say(program: Path, tmp_path: Path, case: str) -> None:
    path = str(CASES / f"{case}.yaml")
    packed = alone(program, "diagnose", "--from", path, "-o", "json", cwd=tmp_path)
    sources = run("diagnose", "--from", path, "-o", "json")

    assert packed.stderr == b""
    assert (packed.returncode, packed.stdout) == (sources.returncode, sources.stdout)


def test_every_command_and_every_check_is_in_it(program: Path, tmp_path: Path) -> None:
    assert alone(program, "explain", cwd=tmp_path).stdout == run("explain").stdout
    for command in ("lint", "fit", "snapshot", "alerts", "access", "diagnose"):
        done = alone(program, command, "--help", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, b"")


def test_it_asks_a_cluster_and_prometheus(program: Path, tmp_path: Path, api: FakeApi) -> None:
    """Prometheus brings the largest libraries, and they are imported late."""
    api.objects = deployment_world()
    found = alone(
        program, "diagnose", "llama-2-a", "-n", "serving", "-o", "json", "--server", api.url,
        "--prometheus", "http://127.0.0.1:1", cwd=tmp_path,
    )  # fmt: skip
    report = json.loads(found.stdout)

    assert (found.returncode, found.stderr) == (1, b"")
    assert report["targets"][0]["name"] == "llama-2-a"
    (said,) = [row["reason"] for row in report["notRead"] if row["source"] == "prometheus"]
    assert "refused" in said


def test_it_anonymizes_by_what_its_compiled_code_knows(program: Path, tmp_path: Path) -> None:
    arguments = ["snapshot", "--from", str(CASES / "oomkilled-host" / "fires_loading.yaml"), "--anonymize", "-f", "-"]
    packed, sources = alone(program, *arguments, cwd=tmp_path), run(*arguments)

    assert packed.stderr == b""
    assert packed.stdout == sources.stdout


def test_it_completes(program: Path, tmp_path: Path) -> None:
    done = alone(program, "__complete", "explain", "shm-too", cwd=tmp_path)

    assert done.stdout.decode().splitlines()[0].startswith("shm-too-small\t")


def test_the_manifest_is_what_krew_takes(dist: Path) -> None:
    archive = next(dist.glob("*.tar.gz"))
    text = (dist / "llmdoctor.yaml").read_text()
    tree = yaml.safe_load(text)
    (one,) = tree["spec"]["platforms"]

    assert (tree["apiVersion"], tree["kind"]) == ("krew.googlecontainertools.github.com/v1alpha2", "Plugin")
    assert tree["metadata"] == {"name": "llmdoctor"}
    assert tree["spec"]["version"] == f"v{__version__}"
    assert "\n" not in tree["spec"]["shortDescription"]
    assert set(tree["spec"]) <= {"version", "homepage", "shortDescription", "description", "caveats", "platforms"}
    assert one["selector"] == {"matchLabels": {"os": "linux", "arch": "amd64"}}
    assert one["uri"].endswith(f"/v{__version__}/{archive.name}")
    assert one["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert re.search(r"glibc 2\.\d+ or newer", tree["spec"]["caveats"])
    assert "${" not in text


def test_the_archive_holds_what_the_manifest_needs_and_little_else(dist: Path) -> None:
    archive = next(dist.glob("*.tar.gz"))
    with tarfile.open(archive) as packed:
        members = {member.name: member for member in packed.getmembers()}

    assert members["kubectl-llmdoctor"].mode & 0o111
    assert members["LICENSE"].isreg()
    assert {"licenses/python.txt", "licenses/pyinstaller-copying.txt"} <= members.keys()
    assert not any(name.startswith(("/", "..")) or "/../" in name for name in members)
    assert all(not m.issym() or not m.linkname.startswith(("/", "..")) for m in members.values())
    assert archive.stat().st_size < 20 * 2**20


def test_a_wheel_with_a_third_package_is_refused(dist: Path) -> None:
    assert _builder().top_levels(next(dist.glob("*.whl"))) == {"kubectl_llmdoctor", "llmdoctor_checks"}
