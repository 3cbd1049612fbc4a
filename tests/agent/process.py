"""The whole agent as the process that a container runs, with the stand-in of NVML below it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import urllib3
from llmdoctor_agent.report import Report

AGENT = Path(__file__).parents[2] / "agent"


class Agent:
    """A running agent."""

    def __init__(self, process: subprocess.Popen[bytes], address: str, port: int) -> None:
        self.process = process
        self.address, self.port = address, port
        self._pool = urllib3.PoolManager(retries=False)

    def get(self, path: str) -> urllib3.BaseHTTPResponse:
        """One answer."""
        return self._pool.request("GET", f"http://{self.address}:{self.port}{path}", timeout=15)

    def report(self, *, fresh: bool = False) -> Report:
        """The report."""
        answer = self.get("/v1/report" + "?fresh=1" * fresh)
        assert answer.status == 200, answer.data
        return msgspec.json.decode(answer.data, type=Report)

    def wait(self) -> None:
        """Waits until it answers well."""
        end = time.monotonic() + 20
        while True:
            try:
                if self.get("/readyz").status == 200:
                    return
            except urllib3.exceptions.HTTPError:
                pass
            assert self.process.poll() is None, f"the agent ended with {self.process.returncode}"
            assert time.monotonic() < end, "the agent does not answer"
            time.sleep(0.05)

    def processes(self) -> list[int]:
        """The pids of the agent and of what it started."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [self.process.pid, *map(int, children)]


@contextmanager
def agent(
    *arguments: str,
    library: Path,
    scene: Path,
    address: str = "127.0.0.1",
    port: int = 0,
    node: str = "gpu-1",
    command: Sequence[str] = (sys.executable, "-m", "llmdoctor_agent"),
) -> Iterator[Agent]:
    """Starts the agent; it is ended afterwards."""
    port = port or _free(address)
    environment = os.environ | {
        "NODE_NAME": node,
        "STANDIN_NVML": str(scene),
        "LD_LIBRARY_PATH": str(library),
        "PYTHONPATH": os.pathsep.join((str(AGENT), os.environ.get("PYTHONPATH", ""))),
    }
    process = subprocess.Popen([*command, "--listen", address, "--port", str(port), *arguments], env=environment)
    try:
        yield Agent(process, address, port)
    finally:
        process.kill()
        process.wait()


def _free(address: str) -> int:
    with socket.socket() as one:
        one.bind((address, 0))
        port: int = one.getsockname()[1]
        return port
