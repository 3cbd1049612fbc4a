"""Start-up against `kubectl version --client`: medians of alternating runs of the program from the built wheel.

With the archive of `make dist` as its argument, of the program in that.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
CASE = ROOT / "checks" / "cases" / "oomkilled-host" / "fires_loading.yaml"
RUNS = 10
#: (name, arguments, most times the wall time of kubectl)
BUDGETS = (("--help", ["--help"], 2.0), ("diagnose --from", ["diagnose", "--from", str(CASE)], 4.0))


def install(folder: Path) -> list[str]:
    """The wheel, installed beside nothing else; the command that runs it."""
    quiet = {"capture_output": True, "check": True}
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)], **quiet
    )  # type: ignore[call-overload]
    wheel = next(folder.glob("*.whl"))
    target = folder / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(pip, **quiet)  # type: ignore[call-overload]
    return [str(target / "bin" / "kubectl-llmdoctor")]


def unpack(archive: str, folder: Path) -> list[str]:
    """The archive, unpacked; the command that runs what is in it."""
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return [str(folder / "kubectl-llmdoctor")]


def once(command: list[str], env: dict[str, str]) -> float:
    """Seconds of one run."""
    start = time.perf_counter()
    subprocess.run(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return time.perf_counter() - start


def main(archive: str | None = None) -> int:
    """Print one line per budget; 1 when one is broken."""
    kubectl = shutil.which("kubectl", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if kubectl is None:
        print("bench: no kubectl to compare with")
        return 1
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        program = unpack(archive, Path(folder)) if archive else install(Path(folder))
        env = os.environ | {"PYTHONPATH": str(Path(folder) / "installed")}
        for name, arguments, most in BUDGETS:
            theirs, ours = [], []
            for _ in range(RUNS + 1):
                theirs.append(once([kubectl, "version", "--client"], env))
                ours.append(once([*program, *arguments], env))
            base, mine = statistics.median(theirs[1:]), statistics.median(ours[1:])
            verdict = "ok" if mine <= most * base else "TOO SLOW"
            failed += verdict != "ok"
            print(
                f"{name:16} {mine * 1000:6.1f} ms = {mine / base:.2f} x kubectl ({base * 1000:.1f} ms), at most {most} x: {verdict}"
            )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
