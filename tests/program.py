"""Running the installed program as a user would, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAM = [sys.executable, "-m", "kubectl_llmdoctor"]


def run(*arguments: str, stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
    """Run it without a cluster and without a terminal."""
    environment = os.environ | {"KUBECONFIG": os.devnull, "COLUMNS": "80"} | env
    return subprocess.run(
        [*PROGRAM, *arguments], input=stdin, capture_output=True, timeout=120, env=environment, check=False
    )


def report(path: Path, *arguments: str) -> dict[str, Any]:
    """The JSON report on a file."""
    done = run("diagnose", "--from", str(path), "-o", "json", *arguments)
    assert done.returncode in (0, 1), done.stderr
    tree: dict[str, Any] = json.loads(done.stdout)
    return tree
