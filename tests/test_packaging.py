"""What is shipped: two top-level packages, the index of signatures, no cases."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from kubectl_llmdoctor import packs
from kubectl_llmdoctor.check import Check, DeclarationError
from kubectl_llmdoctor.packs import BUILT_IN, INDEX, _files, _from_index, _modules, build_index, load, signature_of
from kubectl_llmdoctor.signatures.check import as_check
from kubectl_llmdoctor.testing import diagnose_case, load_case
from tests.sampling import some

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
    sources = {(c.id, c.lines): c for c in _from_sources()}

    assert index == build_index(BUILT_IN)
    assert indexed.keys() == sources.keys()
    for key, check in sources.items():
        same = {name: getattr(check, name) for name in ("run", "where", "on_node")}
        assert msgspec.structs.replace(indexed[key], **same) == check
        assert (indexed[key].on_node is None) == (check.on_node is None)


def test_checks_from_the_index_find_what_checks_from_the_sources_find() -> None:
    from_index = _combined(_from_index(build_index(BUILT_IN), ROOT))
    from_sources = _combined(_from_sources())
    firsts = [min(folder.glob("fires_*.yaml")) for folder in (ROOT / "checks" / "cases").iterdir()]
    for path in some(firsts, 90):
        case = load_case(path)

        assert diagnose_case(case, from_index) == diagnose_case(case, from_sources), path


def _from_sources() -> Iterator[Check]:
    """The checks as their files declare them, without an index."""
    root = ROOT / "checks" / BUILT_IN
    yield from _modules(BUILT_IN, root)
    for path in _files(root, ".yaml"):
        yield as_check(signature_of(path), family=path.parent.name, where=str(path))


def _combined(found: Iterator[Check]) -> list[Check]:
    """A function and a signature of one id as one check, as packs.installed() has them."""
    checks: dict[str, Check] = {}
    for check in found:
        other = checks.get(check.id)
        checks[check.id] = msgspec.structs.replace(other, signature=check) if other else check
    return [checks[key] for key in sorted(checks)]


_SIGNATURE = """id: fan-stuck
since: "1.0"
summary: A fan is stuck
patterns:
  - literal: fan does not turn
    match: fan does not turn
matches: [the fan does not turn]
ignores: [a fan turns]
doc: A fan is stuck.
"""


@pytest.fixture
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of one signature that nobody built."""
    home = tmp_path / "acme_checks"
    (home / "memory").mkdir(parents=True)
    (home / "__init__.py").write_text("")
    (home / "memory" / "fan_stuck.yaml").write_text(_SIGNATURE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    yield home
    sys.modules.pop("acme_checks", None)


def test_the_index_of_a_source_tree_is_kept_until_a_source_changes(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [c.title for c in load("acme_checks")] == ["A fan is stuck"]
    with monkeypatch.context() as patched:
        patched.setattr(packs, "build_index", lambda package: pytest.fail(f"{package} is read again"))
        assert [c.title for c in load("acme_checks")] == ["A fan is stuck"]

    (pack / "memory" / "fan_stuck.yaml").write_text(_SIGNATURE.replace("A fan is stuck", "The fan of a GPU is stuck"))

    assert [c.title for c in load("acme_checks")] == ["The fan of a GPU is stuck"]


def test_where_no_bytecode_may_be_written_no_index_is(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    assert [c.id for c in load("acme_checks")] == ["fan-stuck"]
    assert not (pack / "__pycache__" / INDEX).exists()


def test_a_folder_that_takes_no_index_costs_nothing_else(pack: Path) -> None:
    (pack / "__pycache__").write_text("no folder")

    assert [c.id for c in load("acme_checks")] == ["fan-stuck"]


def test_a_signature_that_says_one_thing_twice_is_refused(tmp_path: Path) -> None:
    signature = tmp_path / "start" / "disk_eaten.yaml"
    signature.parent.mkdir()
    signature.write_text("id: disk-eaten\npatterns:\n  - literal: x\n    match: x\n    match: x+\n", encoding="utf-8")

    with pytest.raises(DeclarationError, match="line 5: match stands twice"):
        signature_of(signature)


def test_an_empty_signature_is_refused_by_its_name(tmp_path: Path) -> None:
    signature = tmp_path / "start" / "disk_eaten.yaml"
    signature.parent.mkdir()
    signature.write_text("", encoding="utf-8")

    with pytest.raises(DeclarationError, match=r"disk_eaten\.yaml: the file is empty"):
        signature_of(signature)
