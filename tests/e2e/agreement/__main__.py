"""Many pairs of cluster and pod: ``python -m tests.e2e.agreement --pairs 2000 --seed 1 [--keep FOLDER]``.

It runs in the network namespace of the end-to-end tests, which it makes for itself. Exit code 1 when the agreement is
below ``--least``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.e2e import binaries, network, run

TOP = Path(__file__).parents[3]


def main() -> int:
    """Parses the arguments; goes into a namespace, then compares."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.agreement", description=__doc__)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--world", help="one cluster only, as a difference names it: 1-17")
    parser.add_argument("--pod", help="some pods of it only, with commas between")
    parser.add_argument("--only", help="features of the generator, with commas between")
    parser.add_argument("--without", default="", help="features that are left out")
    parser.add_argument("--keep", type=Path, help="a folder for the snapshots of differences")
    parser.add_argument("--least", type=float, default=0.999)
    parser.add_argument("--simulate", type=int, default=0, help="so many first fixes are applied for real")
    parser.add_argument("--live", type=int, default=0, help="so many are also gathered as the program does")
    arguments = parser.parse_args()
    if "LLMDOCTOR_E2E" not in os.environ:
        programs = binaries.find()
        environment = os.environ | {"LLMDOCTOR_E2E": os.pathsep.join(str(path) for path in programs.values())}
        command = [*run.unshare(), sys.executable, "-m", "tests.e2e.agreement", *sys.argv[1:]]
        return subprocess.run(command, env=environment, cwd=TOP, check=False).returncode
    network.set_up()
    from tests.e2e.controlplane import ControlPlane, programs_of_environment

    from .tally import pairs

    with tempfile.TemporaryDirectory() as folder:
        plane = ControlPlane(programs_of_environment(), Path(folder))
        try:
            plane.start()
            plane.start_scheduler()
            tally = pairs(plane, arguments, say=lambda line: print(line, flush=True))
        finally:
            plane.stop()
    print("\n".join(tally.lines()))
    return 0 if tally.share >= arguments.least else 1


if __name__ == "__main__":
    sys.exit(main())
