"""The documentation as a site: every link of it leads somewhere, and it loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def built(root: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(root / "mkdocs.yml")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(
        [*command, "--site-dir", str(out)], env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = built(ROOT, out)
    assert done.returncode == 0, done.stderr
    return out


def test_every_page_is_in_it(site: Path) -> None:
    sources = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    pages = [path.parent if path.stem in ("index", "README") else path.with_suffix("") for path in sources]

    assert [str(page) for page in pages if not (site / page / "index.html").is_file()] == []


def test_it_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in (site / "index.html", site / "usage" / "index.html", site / "checks" / "index.html"):
        text = page.read_text(encoding="utf-8")
        assert (
            re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"?https?://(?!github\.com/OWNER)[^\s\">]+", text) == []
        )


def test_a_page_that_leaves_the_folder_leads_to_the_forge(site: Path) -> None:
    text = (site / "checks" / "shm-too-small" / "index.html").read_text(encoding="utf-8")

    assert "/blob/main/checks/llmdoctor_checks/" in text
    assert "/tree/main/checks/cases/shm-too-small" in text


def test_a_broken_link_is_an_error(tmp_path: Path) -> None:
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "site.py", tmp_path / "docs")
    (tmp_path / "docs" / "index.md").write_text("[nowhere](nowhere.md) and [there](#nothing)\n")
    config = (tmp_path / "mkdocs.yml").read_text()
    (tmp_path / "mkdocs.yml").write_text(config.partition("nav:\n")[0] + "nav: [index.md]\n")
    done = built(tmp_path, tmp_path / "out")

    assert done.returncode != 0
    assert "nowhere.md" in done.stderr
