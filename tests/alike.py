"""Whether recorded snapshots keep their causes as something else: ``python -m tests.alike FOLDER [--every N]``.

Each snapshot is anonymised, and packed into a support bundle of troubleshoot.sh, and diagnosed again. What differs is
named; exit code 1 when anything does, but for what a bundle cannot hold (reports of node agents, answers of Prometheus,
logs that belong to no pod), which is left out of the comparison.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from kubectl_llmdoctor.anonymize import anonymized
from kubectl_llmdoctor.diagnosis import diagnose, looked_for
from kubectl_llmdoctor.gather.files import load
from kubectl_llmdoctor.packs import installed, texts
from kubectl_llmdoctor.snapshot import Snapshot
from tests import bundles


def causes(snapshot: Snapshot) -> list[Any]:
    """The verdict and the causes of each target."""
    report = diagnose(snapshot, installed())
    return [(t.verdict, [f.id for f in t.findings if f.role == "cause"]) for t in report.targets]


def as_bundle(snapshot: Snapshot, folder: Path) -> Snapshot:
    """The same out of a support bundle. What was asked about is not part of one; when it was taken, a whole one tells by what
    nodes and leases say of themselves all the time, which a recorded part of a cluster lacks.
    """
    tree = {"objects": list(snapshot.objects), "logs": [msgspec.to_builtins(log) for log in snapshot.logs]}
    path = folder / "bundle.tar.gz"
    path.write_bytes(bundles.packed(bundles.files(tree)))
    kept = {name: getattr(snapshot, name) for name in ("target", "targets", "taken_at")}
    return msgspec.structs.replace(load(str(path)), **kept)


def fits_a_bundle(snapshot: Snapshot) -> bool:
    """Whether all of it has a place in a bundle."""
    elsewhere = snapshot.nodes or snapshot.prometheus or snapshot.metrics or snapshot.answers
    return not elsewhere and all(log.pod for log in snapshot.logs)


def main() -> int:
    """Prints what differs, and one line per kind with how many are alike."""
    parser = argparse.ArgumentParser(prog="python -m tests.alike", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1, help="only every so-manieth")
    arguments = parser.parse_args()
    keep = (*looked_for(installed()), *texts())
    alike = {"anonymised": [0, 0], "as support bundles": [0, 0]}
    with tempfile.TemporaryDirectory() as scratch:
        for path in sorted([*arguments.folder.rglob("*.yaml"), *arguments.folder.rglob("*.yaml.gz")])[
            :: arguments.every
        ]:
            snapshot = load(str(path))
            expected = causes(snapshot)
            others = {"anonymised": anonymized(snapshot, keep)}
            if fits_a_bundle(snapshot):
                others["as support bundles"] = as_bundle(snapshot, Path(scratch))
            for what, other in others.items():
                found = causes(other)
                alike[what][0] += found == expected
                alike[what][1] += 1
                if found != expected:
                    print(f"{path.name} {what}: {found}, not {expected}")
    print("alike: " + ", ".join(f"{what} {right} of {of}" for what, (right, of) in alike.items()))
    return int(any(right < of for right, of in alike.values()))


if __name__ == "__main__":
    sys.exit(main())
