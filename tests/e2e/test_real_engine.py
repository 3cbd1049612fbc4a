"""A real vLLM on the CPU, scraped by a real Prometheus: saturated it is diagnosed, idle it is left alone.

Opt-in, for it takes a quarter of an hour and an engine: ``LLMDOCTOR_E2E_VLLM`` is the Python interpreter that has vLLM's
CPU build, ``LLMDOCTOR_E2E_VLLM_MODEL`` the folder of a small model (random weights do). ``LLMDOCTOR_E2E_VLLM_SECONDS`` is
how long it is under load, ``LLMDOCTOR_E2E_VLLM_SAVE`` a folder for what was read of it.
"""

import contextlib
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from . import network
from .conftest import Doctor, Play
from .play import Object
from .prometheus import Prometheus, servers, services
from .test_prometheus import serving  # noqa: F401

PYTHON = os.environ.get("LLMDOCTOR_E2E_VLLM", "")
MODEL = os.environ.get("LLMDOCTOR_E2E_VLLM_MODEL", "")
SECONDS = float(os.environ.get("LLMDOCTOR_E2E_VLLM_SECONDS", "780"))
URL = f"http://{network.ADDRESS}:8000"
#: A cache of 48 blocks of 32 tokens, so that few requests fill it.
ARGUMENTS = ["--max-model-len", "1024", "--num-gpu-blocks-override", "48", "--block-size", "32", "--max-num-seqs", "64"]

pytestmark = pytest.mark.skipif(not (PYTHON and MODEL), reason="LLMDOCTOR_E2E_VLLM names no vLLM")


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The engine; yields its log."""
    log = tmp_path_factory.mktemp("vllm") / "log"
    command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", MODEL, "--served-model-name", "tiny"]
    command += ["--host", network.ADDRESS, "--port", "8000", "--enforce-eager", *ARGUMENTS]
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1"}
    place = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_HOST_IP": network.ADDRESS}
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=os.environ | quiet | place, stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + 240
        while not _answers():
            assert process.poll() is None, log.read_text()[-4000:]
            assert time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(1)
        yield log
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def prometheus(vllm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Scrapes the engine every second."""
    server = Prometheus(servers()["3.x"], tmp_path_factory.mktemp("prometheus"))
    labels = {"namespace": "serving", "pod": "llama-0", "container": "vllm"}
    server.start([{"targets": [f"{network.ADDRESS}:8000"], "labels": labels}])
    yield server
    server.stop()


def _answers() -> bool:
    try:
        return urllib3.request("GET", f"{URL}/health", timeout=2, retries=False).status == 200
    except (OSError, urllib3.exceptions.HTTPError):
        return False


@pytest.fixture
def pod(serving: Object) -> Object:  # noqa: F811
    """The pod that the engine stands for."""
    for item in serving["objects"]:
        for spec in (item.get("spec", {}), item.get("spec", {}).get("template", {}).get("spec", {})):
            for container in spec.get("containers", ()):
                container["image"] = "vllm/vllm-openai:v0.32.0"
                container["args"] = ["--model", "/models/tiny", "--served-model-name", "tiny", *ARGUMENTS]
        for row in item.get("status", {}).get("containerStatuses", ()):
            row["image"] = "vllm/vllm-openai:v0.32.0"
    return {**serving, "objects": serving["objects"] + services()}


class Load:
    """Clients that each send one request after the other; from 12 they become 72, and all wait longer and longer."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._over = threading.Event()
        self._pool = urllib3.PoolManager(maxsize=100, retries=False)

    def run(self) -> None:
        """Returns when the time is over; the clients go on until ``stop``."""
        for _ in range(12):
            self._begin()
        for _ in range(60):
            self._begin()
            time.sleep(self._seconds / 60)

    def stop(self) -> None:
        """Lets the clients end."""
        self._over.set()

    def _begin(self) -> None:
        threading.Thread(target=self._client, daemon=True).start()

    def _client(self) -> None:
        number = 0
        while not self._over.is_set():
            number += 1
            # Another beginning each time, so that no prefix is found in the cache.
            prompt = f"{threading.get_ident()} {number} " + "x " * 200
            body = {"model": "tiny", "prompt": prompt, "max_tokens": 300, "ignore_eos": True}
            with contextlib.suppress(OSError, urllib3.exceptions.HTTPError):
                self._pool.request("POST", f"{URL}/v1/completions", json=body, timeout=600)


def _diagnosed(doctor: Doctor, name: str, tmp_path: Path) -> tuple[list[tuple[str, str]], Any]:
    saved = tmp_path / f"{name}.json"
    result = doctor("diagnose", "llama-0", "-n", "serving", "-o", "json", "--save", str(saved), "--sample", "10s")
    if folder := os.environ.get("LLMDOCTOR_E2E_VLLM_SAVE"):
        shutil.copy(saved, folder)
        (Path(folder) / f"{name}.report.json").write_text(result.out)
        (Path(folder) / f"{name}.metrics.txt").write_text(
            urllib3.request("GET", f"{URL}/metrics", timeout=10).data.decode()
        )
    return result.findings, json.loads(saved.read_text())


def test_idle_then_saturated(
    pod: Object, vllm: Path, prometheus: Prometheus, play: Play, doctor: Doctor, tmp_path: Path
) -> None:
    play(pod)
    time.sleep(20)

    findings, snapshot = _diagnosed(doctor, "idle", tmp_path)
    assert [row for row in findings if row[0] in ("cause", "symptom")] == []
    assert snapshot["prometheus"]
    assert {answer["status"] for answer in snapshot["answers"]} == {200}

    load = Load(SECONDS)
    load.run()
    findings, snapshot = _diagnosed(doctor, "saturated", tmp_path)
    load.stop()
    assert findings[0] == ("cause", "kv-cache-saturated")
    assert len(snapshot["metrics"]) == 2
