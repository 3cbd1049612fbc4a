"""Runs the end-to-end tests: ``python -m tests.e2e.run [pytest arguments]``, from the top of the repository.

The programs of the control plane are found or built first, with the network as it is, and the wheel is built and
installed, so that what is tested is what ships; pytest then runs in a network namespace of its own. A machine that
cannot do this skips the tests with one line, or fails with it where ``LLMDOCTOR_E2E_REQUIRED=1`` says that it must be
able to.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.__main__ import install

from . import binaries

HERE = Path(__file__).parent
TOP = HERE.parents[1]

# What is compared by time runs with nothing beside it, the rest in two processes with a control plane each. Files stay
# whole and in order, because some need an API server without what a later one leaves there.
ALONE = ("-m", "timed")
BESIDE = ("-m", "not timed", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")
NOTHING_CHOSEN = 5  # pytest's exit code


def main(arguments: list[str]) -> int:
    """Returns pytest's exit code."""
    try:
        programs = binaries.find()
        prometheus = binaries.prometheus()
        apart = unshare()
    except binaries.UnavailableError as reason:
        if os.environ.get("LLMDOCTOR_E2E_REQUIRED") == "1":
            print(f"e2e failed: {reason}", file=sys.stderr)
            return 1
        print(f"e2e skipped: {reason}", file=sys.stderr)
        return 0
    definitions = _openreports()
    if definitions is None and os.environ.get("LLMDOCTOR_E2E_REQUIRED") == "1":
        return 1
    # Paths that the caller names replace the whole folder, options add to it.
    named = any((TOP / argument.split("::")[0]).exists() for argument in arguments)
    runs = [[]] if named else [[*run, str(HERE)] for run in (ALONE, BESIDE)]
    environment = os.environ | {"LLMDOCTOR_E2E": os.pathsep.join(str(path) for path in programs.values())}
    environment |= {"LLMDOCTOR_E2E_PROMETHEUS_" + name: str(path) for name, path in prometheus.items()}
    environment |= {"LLMDOCTOR_OPENREPORTS": definitions or ""}
    with tempfile.TemporaryDirectory() as folder:
        environment["LLMDOCTOR_INSTALLED"] = str(Path(install(Path(folder))[0]).parents[1])
        command = [*apart, sys.executable, "-m", "tests.e2e.network", *arguments]
        codes = [subprocess.run([*command, *run], env=environment, cwd=TOP, check=False).returncode for run in runs]
    return max(codes if named else (code for code in codes if code != NOTHING_CHOSEN), default=NOTHING_CHOSEN)


def _openreports() -> str | None:
    """Where the definitions of OpenReports are; None with a line that says why not, and only their tests are skipped."""
    try:
        return str(binaries.openreports())
    except binaries.UnavailableError as reason:
        print(f"e2e without policy reports: {reason}", file=sys.stderr)
        return None


def unshare() -> list[str]:
    """The command that runs another one in namespaces of its own; raises UnavailableError."""
    # The tests die with the process namespace, and with them every server that they started, however they end.
    base = ["unshare", "--net", "--pid", "--fork", "--kill-child"]
    refused = ""
    for command in ([*base, "--user", "--map-root-user"], base):
        try:
            trial = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise binaries.UnavailableError("the command unshare is not here (Linux only)") from None
        if trial.returncode == 0:
            return command
        refused = trial.stderr.strip().splitlines()[-1] if trial.stderr.strip() else f"exit {trial.returncode}"
    raise binaries.UnavailableError(f"no network namespace of its own: {refused}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
