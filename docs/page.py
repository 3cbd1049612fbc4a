"""Draws docs/page.png: the HTML report of the demo in a headless Chromium.

`make picture` runs it. The pixels depend on the fonts of the machine, so nothing compares them.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from kubectl_llmdoctor.diagnosis import diagnose  # noqa: E402
from kubectl_llmdoctor.gather.files import load  # noqa: E402
from kubectl_llmdoctor.packs import installed  # noqa: E402
from kubectl_llmdoctor.report import html  # noqa: E402
from tests import chromium  # noqa: E402


def main() -> int:
    """Writes the picture; without a browser it says so and exits with 1."""
    executable = chromium.program()
    if executable is None:
        sys.stderr.write("no Chromium here: apt-get install chromium, or name one in CHROMIUM\n")
        return 1
    with tempfile.TemporaryDirectory() as folder, chromium.Browser(executable) as browser:
        path = Path(folder) / "report.html"
        path.write_bytes(html.render(diagnose(load(str(DOCS / "demo.yaml")), installed())))
        page = browser.open(path, width=1000, height=600)
        (DOCS / "page.png").write_bytes(page.screenshot())
    return 0


if __name__ == "__main__":
    sys.exit(main())
