"""Which of the cases a test takes that looks at each for long: so many however many there are, so that the suite stays short."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32


def some(paths: Iterable[Path], most: int) -> list[Path]:
    """At most so many of them, spread over all, in order; a new one changes the choice by one. LLMDOCTOR_ALL=1 takes all."""
    if os.environ.get("LLMDOCTOR_ALL") == "1":
        return sorted(paths)
    return sorted(sorted(paths, key=lambda path: crc32(f"{path.parent.name}/{path.stem}".encode()))[:most])
