"""Finds the programs of a control plane, or builds them once.

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
from pathlib import Path

PROGRAMS = ("etcd", "kube-apiserver", "kube-scheduler", "kube-controller-manager")
MODULE = Path(__file__).with_name("binaries")


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


def _built() -> Path:
    key = hashlib.sha256((MODULE / "go.mod").read_bytes() + (MODULE / "go.sum").read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kubectl-llmdoctor"
    folder = cache / key
    if folder.is_dir():
        return folder
    if not shutil.which("go"):
        raise UnavailableError(f"neither Go nor the programs of a control plane are here ({', '.join(PROGRAMS)})")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second run waits for the first one's build instead of repeating it
        if not folder.is_dir():
            # The rename is what makes the folder exist, so an interrupted build leaves nothing that looks finished.
            unfinished = cache / f"{key}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            _build(unfinished)
            unfinished.rename(folder)
    return folder


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
    build = subprocess.run(
        ["go", "build", "-trimpath", "-ldflags", " ".join(flags), "-o", f"{folder}/", "tool"],
        cwd=MODULE,
        env=os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if build.returncode:
        print(build.stdout, file=sys.stderr)
        raise UnavailableError("go could not build the control plane (its words stand above)")
    (folder / "server").rename(folder / "etcd")  # a Go program is named after its package


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
