"""Runs the installed program as its users do: ``kubectl llmdoctor …``."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# kubectl finds its plugins on the PATH. kubectl is installed beside this interpreter; the program comes from the wheel.
BIN = Path(sys.executable).parent
INSTALLED = Path(os.environ.get("LLMDOCTOR_INSTALLED", BIN.parent))
SECONDS = 90


@dataclass(frozen=True)
class Result:
    """What one run gave."""

    arguments: tuple[str, ...]
    code: int
    out: str
    err: str
    seconds: float

    @property
    def report(self) -> dict[str, Any]:
        """The report of a run with ``-o json``."""
        assert self.code in (0, 1), f"exit {self.code}: {self.err}"
        document: dict[str, Any] = json.loads(self.out)
        return document

    @property
    def target(self) -> dict[str, Any]:
        """The only target of the report."""
        (target,) = self.report["targets"]
        assert isinstance(target, dict)
        return target

    @property
    def findings(self) -> list[tuple[str, str]]:
        """Role and id of the only target's findings, in order."""
        return [(finding["role"], finding["id"]) for finding in self.target["findings"]]

    @property
    def not_read(self) -> list[dict[str, str]]:
        """What the report says it could not read."""
        entries: list[dict[str, str]] = self.report["notRead"]
        return entries


def environment(home: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """Nothing of the caller's own Kubernetes: no kubeconfig, no caches, no proxies."""
    path = os.pathsep.join((str(INSTALLED / "bin"), str(BIN), os.environ["PATH"]))
    base = {"HOME": str(home), "PATH": path, "PYTHONPATH": str(INSTALLED), "LANG": "C.UTF-8"}
    return base | dict(extra)


def run(command: Sequence[str], home: Path, extra: Mapping[str, str]) -> Result:
    """Runs a command to its end; one that never ends fails the test."""
    began = time.monotonic()
    done = subprocess.run(
        command,
        env=environment(home, extra),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return Result(tuple(command), done.returncode, done.stdout, done.stderr, time.monotonic() - began)


def signature(report: Mapping[str, Any]) -> list[str]:
    """What two diagnoses of the same thing must share: the findings of each target, in order, one a line."""
    lines = []
    for target in report["targets"]:
        lines.append(f"{target['kind']} {target.get('namespace')}/{target['name']}: {target['verdict']}")
        lines += [f"  {item['id']} {item['role']} {item['confidence']}" for item in target["findings"]]
    return lines


def assert_honest(result: Result, source: str = "") -> None:
    """The pod is broken and something could not be read, of this source if named: the run says so.

    A run that cannot look at all says why in one line.
    """
    assert "Traceback" not in result.out + result.err, result.err
    if result.code == 3:
        assert result.out == ""
        assert len(result.err.splitlines()) == 1, result.err
        return
    assert result.code in (0, 1), result.err
    assert [target["verdict"] for target in result.report["targets"]] != [], "a report without a target"
    assert all(target["verdict"] != "healthy" for target in result.report["targets"]), "a broken pod called healthy"
    # Prometheus and the node agent are never there in these tests, so their absence is no news.
    said = [entry["source"] for entry in result.not_read if entry["source"] not in ("prometheus", "agent")]
    assert any(entry.startswith(source) for entry in said), f"not said to be unread: {source or 'anything'}"
