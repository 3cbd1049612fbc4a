"""What is shipped: two top-level packages, the index of signatures, no cases."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from kubectl_llmdoctor.check import Check
from kubectl_llmdoctor.packs import BUILT_IN, INDEX, _from_index, build_index, load
from kubectl_llmdoctor.testing import diagnose_case, load_case

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel that is built from the sdist."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return zipfile.ZipFile(next(out.glob("*.whl")))


def test_the_wheel_has_exactly_two_top_level_packages(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}

    assert {t for t in tops if not t.endswith(".dist-info")} == {"kubectl_llmdoctor", "llmdoctor_checks"}


def test_the_wheel_has_every_check_and_no_case(wheel: zipfile.ZipFile) -> None:
    sources = {p.relative_to(ROOT / "checks").as_posix() for p in (ROOT / "checks" / "llmdoctor_checks").rglob("*.py")}
    sources |= {
        p.relative_to(ROOT / "checks").as_posix() for p in (ROOT / "checks" / "llmdoctor_checks").rglob("*.yaml")
    }

    assert sources <= set(wheel.namelist())
    assert not any("cases" in name for name in wheel.namelist())


def test_the_wheel_has_what_the_html_page_carries(wheel: zipfile.ZipFile) -> None:
    folder = ROOT / "kubectl_llmdoctor" / "report"
    for name in ("page.css", "page.js"):
        assert wheel.read(f"kubectl_llmdoctor/report/{name}") == (folder / name).read_bytes()


def test_the_index_holds_what_the_sources_hold(wheel: zipfile.ZipFile) -> None:
    index = wheel.read(f"{BUILT_IN}/{INDEX}")
    indexed = {(c.id, c.lines): c for c in _from_index(index, ROOT)}
    sources = {(c.id, c.lines): c for c in load(BUILT_IN)}

    assert index == build_index(BUILT_IN)
    assert indexed.keys() == sources.keys()
    for key, check in sources.items():
        mine = indexed[key]
        assert (mine.title, mine.doc, mine.family, mine.since, mine.severity, mine.needs) == (
            check.title,
            check.doc,
            check.family,
            check.since,
            check.severity,
            check.needs,
        )


def test_checks_from_the_index_find_what_checks_from_the_sources_find() -> None:
    from_index = _combined(_from_index(build_index(BUILT_IN), ROOT))
    for path in sorted((ROOT / "checks" / "cases").glob("*/fires_*.yaml")):
        case = load_case(path)

        assert diagnose_case(case, from_index) == diagnose_case(case), path


def _combined(found: Iterator[Check]) -> list[Check]:
    """A function and a signature of one id as one check, as packs.installed() has them."""
    checks: dict[str, Check] = {}
    for check in found:
        other = checks.get(check.id)
        checks[check.id] = msgspec.structs.replace(other, signature=check) if other else check
    return [checks[key] for key in sorted(checks)]
