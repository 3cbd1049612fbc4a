"""What start-up must not load: the Kubernetes client, rich and their like cost more than a diagnosis."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CASE = Path(__file__).parent.parent / "checks" / "cases" / "oomkilled-host" / "fires_loading.yaml"
HEAVY = ("kubernetes", "rich", "prometheus_api_client", "requests", "urllib3", "asyncio", "ssl", "importlib.metadata")


@pytest.mark.parametrize(
    ("arguments", "also"),
    [
        (["--help"], ("yaml", "msgspec", "re2")),
        (["diagnose", "--help"], ("yaml",)),
        (["diagnose", "--from", str(CASE)], ("hashlib",)),
    ],
    ids=["help", "diagnose-help", "diagnose-from"],
)
def test_heavy_modules_stay_out(arguments: list[str], also: tuple[str, ...]) -> None:
    code = (
        "import sys\n"
        "from kubectl_llmdoctor.cli import main\n"
        "try:\n"
        f"    main({arguments!r})\n"
        "except SystemExit:\n"
        "    pass\n"
        f"print([m for m in {HEAVY + also!r} if m in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.stderr.strip() == "[]"
