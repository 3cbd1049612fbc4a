"""What is shipped: two top-level packages, the index of signatures, no cases."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

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


def test_the_index_holds_what_the_yaml_files_hold(wheel: zipfile.ZipFile) -> None:
    import yaml

    entries = json.loads(wheel.read("llmdoctor_checks/_signatures.json"))
    files = sorted((ROOT / "checks" / "llmdoctor_checks").glob("*/*.yaml"))

    assert [f"{family}/{name}" for family, name, _ in entries] == [f"{p.parent.name}/{p.name}" for p in files]
    for (_, _, tree), path in zip(entries, files, strict=True):
        assert tree == yaml.safe_load(path.read_text(encoding="utf-8"))
