"""What the Pod Security level of a namespace refuses is not offered first, and no patch asks for it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.packs import installed
from kubectl_llmdoctor.report.document import Fix, Report
from kubectl_llmdoctor.testing import diagnose_case, load_case

CASES = Path(__file__).parents[1] / "checks" / "cases"
ASKED = {
    "memlock-limit/fires_baseline": ("IPC_LOCK", "LimitMEMLOCK=infinity"),
    "kv-transfer-failed/fires_baseline": ("IPC_LOCK", "over TCP"),
    "permission-denied/fires_restricted": ("as root", "an image whose Python lies elsewhere"),
}


def _fixes(report: Report, id: str) -> tuple[Fix, ...]:
    (finding,) = [f for target in report.targets for f in target.findings if f.id == id]
    return finding.fixes


@pytest.mark.parametrize(("case", "asked", "instead"), [(case, *said) for case, said in ASKED.items()])
def test_another_fix_stands_before_the_one_that_is_refused(case: str, asked: str, instead: str) -> None:
    read = load_case(CASES / f"{case}.yaml")
    first, *_, last = _fixes(diagnose_case(read), read.id)
    assert instead in first.summary
    assert asked in last.summary
    assert "of namespace serving refuses it" in last.summary
    assert last.owner == "platform"

    objects = tuple(o for o in read.snapshot.objects if o["kind"] != "Namespace")
    first, *_ = _fixes(diagnose(msgspec.structs.replace(read.snapshot, objects=objects), installed()), read.id)
    assert asked in first.summary, "without a level nothing is known to refuse it"
