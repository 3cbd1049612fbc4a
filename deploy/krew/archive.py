"""`make dist`: the archive for krew, a folder with its own Python for linux/amd64, and the manifest that points to it.

PyInstaller's folder form starts within the budget of tests/bench; its single file would unpack itself at every start, and
a zipapp cannot hold compiled modules. glibc is not in it: the manifest names the oldest that the files ask for.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PACKAGES = ("kubectl_llmdoctor", "llmdoctor_checks")

#: What a frozen program must bring: PyInstaller sees neither modules that are imported by name nor tables.
_COLLECT = [f"--collect-{what}={package}" for package in PACKAGES for what in ("submodules", "data")]

#: Modules that libraries would use if they were there, and that no dependency asks for.
_LEFT_OUT = (
    "OpenSSL",
    "attr",
    "cffi",
    "_cffi_backend",
    "cryptography",
    "h2",
    "multiprocessing",
    "numpy",
    "pandas",
    "setuptools",
    "tkinter",
)


def main(out: Path) -> int:
    """Checks the wheel in `out`, and writes the archive and the manifest beside it."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        sys.stderr.write("the archive is built on linux/amd64 only; the wheel and the sdist are there\n")
        return 0
    (wheel,) = out.glob("*.whl")
    if (tops := top_levels(wheel)) != set(PACKAGES):
        sys.stderr.write(f"{wheel.name} holds the packages {', '.join(sorted(tops))}, not just {', '.join(PACKAGES)}\n")
        return 1
    version = wheel.name.split("-")[1]
    archive = out / f"kubectl-llmdoctor_v{version}_linux_amd64.tar.gz"
    with tempfile.TemporaryDirectory() as scratch:
        folder = freeze(wheel, Path(scratch))
        add_licenses(folder)
        glibc = oldest_glibc(folder)
        archive.write_bytes(packed(folder))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    (out / "llmdoctor.yaml").write_text(manifest(version, digest, glibc), encoding="utf-8")
    sys.stdout.write(f"{archive.name}: {archive.stat().st_size / 2**20:.1f} MiB, glibc {glibc} or newer, {digest}\n")
    return 0


def top_levels(wheel: Path) -> set[str]:
    """What the wheel would put into site-packages, less its metadata."""
    names = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    return {name for name in names if not name.endswith(".dist-info")}


def freeze(wheel: Path, scratch: Path) -> Path:
    """The program of a wheel as a folder that runs without a Python."""
    installed, entry = scratch / "installed", scratch / "entry.py"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(installed), str(wheel)]
    subprocess.run(pip, check=True)
    entry.write_text("from kubectl_llmdoctor.__main__ import main\n\nmain()\n", encoding="utf-8")
    command = [sys.executable, "-m", "PyInstaller", "--log-level=ERROR", "--noconfirm", "--onedir", "--strip"]
    # Modules as files of their own start a third sooner than out of one compressed archive.
    command += ["--debug=noarchive", "--name=kubectl-llmdoctor", f"--paths={installed}", *_COLLECT]
    command += [f"--exclude-module={name}" for name in _LEFT_OUT]
    command += [f"--{what}path={scratch / what}" for what in ("dist", "work", "spec")] + [str(entry)]
    # Only what was installed just now, never the source tree; the same bytes for the same input.
    environment = os.environ | {"PYTHONPATH": str(installed), "PYTHONHASHSEED": "0", "SOURCE_DATE_EPOCH": "0"}
    subprocess.run(command, check=True, cwd=scratch, env=environment)
    folder = scratch / "dist" / "kubectl-llmdoctor"
    script = folder / "kubectl_complete-llmdoctor"
    script.write_text('#!/bin/sh\nexec kubectl llmdoctor __complete "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    return folder


def add_licenses(folder: Path) -> None:
    """The licences of the program, of Python and of every library in the folder."""
    shutil.copy(ROOT / "LICENSE", folder / "LICENSE")
    licenses = folder / "licenses"
    licenses.mkdir()
    python = Path(sys.base_prefix) / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "LICENSE.txt"
    if python.is_file():
        shutil.copy(python, licenses / "python.txt")
    for name in [*sorted(libraries("kubectl-llmdoctor")), "pyinstaller"]:
        for file in importlib.metadata.files(name) or ():
            if re.match(r"(?i)(licen[cs]e|copying|notice)", file.name) and ".dist-info" in str(file):
                shutil.copy(str(file.locate()), licenses / f"{name}-{file.name}".lower())


def libraries(name: str) -> set[str]:
    """All distributions that one needs, and those that these need."""
    found, waiting = set[str](), [name]
    while waiting:
        for requirement in importlib.metadata.requires(waiting.pop()) or ():
            needed = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
            if "extra ==" not in requirement and needed not in found:
                found.add(needed)
                waiting.append(needed)
    return found


def oldest_glibc(folder: Path) -> str:
    """The oldest glibc that has every symbol the files ask for."""
    asked = {
        tuple(int(part) for part in found.split(b"."))
        for path in folder.rglob("*")
        if path.is_file() and path.open("rb").read(4) == b"\x7fELF"
        for found in re.findall(rb"GLIBC_(\d+\.\d+)", path.read_bytes())
    }
    return ".".join(map(str, max(asked)))


def packed(folder: Path) -> bytes:
    """A tar.gz of the folder's content; the same bytes for the same files."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in _sorted(folder):
            info = archive.gettarinfo(str(path), arcname=path.relative_to(folder).as_posix())
            info.uid = info.gid = info.mtime = 0
            info.uname = info.gname = ""
            info.mode = 0o755 if info.isdir() or info.mode & 0o100 else 0o644
            with path.open("rb") if info.isreg() else io.BytesIO() as data:
                archive.addfile(info, data if info.isreg() else None)
    return gzip.compress(plain.getvalue(), mtime=0)


def _sorted(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.rglob("*"), key=lambda path: path.as_posix())


def manifest(version: str, sha256: str, glibc: str) -> str:
    """The manifest of the plugin for this archive. Raises ValueError where the template lacks a place."""
    text = (HERE / "llmdoctor.yaml").read_text(encoding="utf-8")
    for place, value in (("VERSION", version), ("SHA256", sha256), ("GLIBC", glibc)):
        if f"${{{place}}}" not in text:
            raise ValueError(f"llmdoctor.yaml has no ${{{place}}}")
        text = text.replace(f"${{{place}}}", value)
    return text


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
