"""Finds the programs of a control plane, of Prometheus and Helm, or builds them once.

``KUBEBUILDER_ASSETS`` names a folder that holds them, as envtest has it. What is not there is built from the Go modules
that ``binaries/go.mod`` pins and kept outside the repository, in a folder named after the contents of ``go.mod`` and
``go.sum``: another version is another folder, and a finished folder is never touched again.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kubectl-llmdoctor"

PROGRAMS = ("etcd", "kube-apiserver", "kube-scheduler", "kube-controller-manager")
MODULE = Path(__file__).with_name("binaries")

TOOLS_MODULE = MODULE / "tools"


class UnavailableError(Exception):
    """Why this machine has no control plane, in one line."""


def find() -> dict[str, Path]:
    """Each program's path; builds what no folder has yet, which takes about three minutes on two cores."""
    found = {}
    if assets := os.environ.get("KUBEBUILDER_ASSETS"):
        folder = Path(assets)
        if not folder.is_dir():
            raise UnavailableError(f"KUBEBUILDER_ASSETS names no folder: {assets}")
        found = {program: folder / program for program in PROGRAMS if (folder / program).is_file()}
    if len(found) < len(PROGRAMS):  # envtest's own folder has neither scheduler nor controller manager
        folder = _built()
        found = {program: folder / program for program in PROGRAMS} | found
    return found


def prometheus() -> dict[str, Path]:
    """Folders of a Prometheus with its promtool, by what they are called: `3.x` always, `debian` where there is one.

    The first is built from the Go modules that ``binaries/tools/go.mod`` pins, which takes about six minutes on two
    cores, once; the second is what is installed, or the distribution's package, unpacked and not installed.
    """
    found = {"3.x": _kept(TOOLS_MODULE, _build_tools)}
    installed = shutil.which("prometheus")
    if installed and shutil.which("promtool"):
        found["debian"] = Path(installed).parent
    elif package := _debian():
        found["debian"] = package
    return found


def helm() -> Path:
    """The folder of a Helm, and of nothing else, so that it can stand on the PATH; built with Prometheus, once."""
    found = shutil.which("helm")
    return Path(found).parent if found else _kept(TOOLS_MODULE, _build_tools) / "helm"


def _built() -> Path:
    return _kept(MODULE, _build)


def _kept(module: Path, build: Callable[[Path], None]) -> Path:
    """The folder that `build` fills once for each contents of the module."""
    key = hashlib.sha256((module / "go.mod").read_bytes() + (module / "go.sum").read_bytes()).hexdigest()[:16]
    folder = CACHE / key
    if folder.is_dir():
        return folder
    if not shutil.which("go"):
        raise UnavailableError(f"neither Go nor the programs of {module.name} are here")
    return _once(folder, build)


def _once(folder: Path, build: Callable[[Path], None]) -> Path:
    CACHE.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second run waits for the first one's build instead of repeating it
        if not folder.is_dir():
            # The rename is what makes the folder exist, so an interrupted build leaves nothing that looks finished.
            unfinished = folder.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            build(unfinished)
            unfinished.rename(folder)
    return folder


def _debian() -> Path | None:
    """Debian's own package; None where there is no such thing."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        return None

    def unpack(folder: Path) -> None:
        folder.mkdir()
        loaded = subprocess.run(["apt-get", "download", "prometheus"], cwd=folder, capture_output=True, check=False)
        packages = list(folder.glob("prometheus_*.deb"))
        if loaded.returncode or not packages:
            raise UnavailableError("no package of Prometheus")
        subprocess.run(["dpkg-deb", "-x", packages[0].name, "."], cwd=folder, check=True)
        packages[0].unlink()

    try:
        return _once(CACHE / "prometheus-debian", unpack) / "usr" / "bin"
    except UnavailableError:
        return None


def _build(folder: Path) -> None:
    print("e2e: building etcd and a Kubernetes control plane, once (about three minutes)", file=sys.stderr, flush=True)
    module = (MODULE / "go.mod").read_text()
    pinned = re.search(r"k8s\.io/kubernetes (v(\d+)\.(\d+)\.\d+)", module)
    if not pinned:
        raise UnavailableError(f"{MODULE / 'go.mod'} does not say which Kubernetes")
    version, major, minor = pinned.groups()
    # Without these a server calls itself v0.0.0-master, and clients that look at the version misbehave.
    stamp = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    flags = ["-s", "-w"]
    for name, value in stamp.items():
        flags += ["-X", f"k8s.io/component-base/version.{name}={value}"]
    _go_build(MODULE, folder, " ".join(flags), "the control plane")
    (folder / "server").rename(folder / "etcd")  # a Go program is named after its package


def _build_tools(folder: Path) -> None:
    print("e2e: building Prometheus, promtool and Helm, once (about six minutes)", file=sys.stderr, flush=True)
    # The tests name their targets: what finds targets in clouds is most of what there is to compile.
    _go_build(TOOLS_MODULE, folder, "-s -w", "Prometheus and Helm", tags="remove_all_sd", inline=False)
    program = (folder / "helm").rename(folder / "built")
    (folder / "helm").mkdir()
    program.rename(folder / "helm" / "helm")


def _go_build(module: Path, folder: Path, flags: str, what: str, *, tags: str = "", inline: bool = True) -> None:
    """Programs that no figure is taken of are compiled without inlining, a fifth sooner; none needs the debugger's tables."""
    compiler = ["-gcflags", "all=-dwarf=false" + ("" if inline else " -l")]
    build = subprocess.run(
        ["go", "build", "-trimpath", "-tags", tags, *compiler, "-ldflags", flags, "-o", f"{folder}/", "tool"],
        cwd=module,
        env=os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if build.returncode:
        print(build.stdout, file=sys.stderr)
        raise UnavailableError(f"go could not build {what} (its words stand above)")


def openreports() -> Path:
    """The folder with the CustomResourceDefinitions of OpenReports; fetched once into Go's module cache."""
    if not shutil.which("go"):
        raise UnavailableError("Go is not here, which fetches the API of OpenReports")
    done = subprocess.run(
        ["go", "mod", "download", "-json", "github.com/openreports/reports-api"],
        cwd=Path(__file__).with_name("openreports"),
        env=os.environ | {"GOWORK": "off", "GOFLAGS": "-mod=mod"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UnavailableError(
            f"the API of OpenReports cannot be had: {done.stderr.strip()[-200:] or done.stdout[-200:]}"
        )
    return Path(json.loads(done.stdout)["Dir"]) / "config" / "crd"


def main() -> int:
    """Builds what is not here, all at once, since linking keeps one core busy; prints the folder of Helm.

    Returns 1 where Helm cannot be had; what else cannot is said by the tests that need it.
    """
    with ThreadPoolExecutor() as builds:
        folder = builds.submit(helm)
        builds.submit(find)
        builds.submit(prometheus)
    reason = folder.exception()
    if reason is not None:
        print(f"no Helm: {reason}", file=sys.stderr)
        return 1
    print(folder.result())
    return 0


if __name__ == "__main__":
    sys.exit(main())
