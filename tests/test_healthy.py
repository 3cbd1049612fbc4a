"""Healthy logs: what engines print while nothing is wrong, thousands of lines of it, is no cause.

`healthy/<engine>.log` has the lines of a start that succeeded, with the warnings that look worst, and after `--- serving`
those of a server at work, which are repeated here. The texts are those of the engines' sources and public issue reports.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.packs import installed
from kubectl_llmdoctor.report.document import Target
from kubectl_llmdoctor.snapshot import LogText, Snapshot, TargetRef

FOLDER = Path(__file__).parent / "healthy"
_REPEATED = 1000

IMAGES = {
    "llamacpp": "ghcr.io/ggml-org/llama.cpp:server-cuda-b6123",
    "lmdeploy": "openmmlab/lmdeploy:v0.10.1",
    "nim": "nvcr.io/nim/meta/llama3-8b-instruct:1.0.0",
    "ollama": "ollama/ollama:0.11.10",
    "sglang": "lmsysorg/sglang:v0.5.9",
    "tei": "ghcr.io/huggingface/text-embeddings-inference:1.8.3",
    "tgi": "ghcr.io/huggingface/text-generation-inference:3.2.3",
    "triton": "nvcr.io/nvidia/tritonserver:24.12-trtllm-python-py3",
    "trtllm": "nvcr.io/nvidia/tensorrt-llm/release:1.0.0",
    "vllm": "vllm/vllm-openai:v0.18.0",
}


#: The lines by which a start ends that succeeded.
_UP = (
    "Started server process",
    "listening on http",
    "Starting HTTP server",
    "Started GRPC",
    "Serving endpoints",
    "Connected",
)


def _log(engine: str, **more: Any) -> LogText:
    start, _, serving = (FOLDER / f"{engine}.log").read_text(encoding="utf-8").partition("--- serving\n")
    return LogText(text=start + serving * _REPEATED, **more)


@pytest.mark.parametrize("engine", sorted(IMAGES))
def test_a_log_alone_is_healthy(engine: str) -> None:
    target = diagnose(Snapshot(logs=(_log(engine),)), installed()).targets[0]

    assert target.verdict == "healthy"
    assert {f.role for f in target.findings} <= {"note"}


def _of_a_pod_that_ends(engine: str, log: LogText) -> Target:
    container = {"name": "server", "image": IMAGES[engine]}
    status = {
        "name": "server",
        "ready": False,
        "restartCount": 4,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {
            "terminated": {
                "exitCode": 1,
                "reason": "Error",
                "startedAt": "2026-06-02T06:00:00Z",
                "finishedAt": "2026-06-02T07:55:00Z",
            }
        },
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "llm-0", "namespace": "serving", "creationTimestamp": "2026-06-02T05:59:00Z"},
        "spec": {"nodeName": "gpu-1", "containers": [container]},
        "status": {"phase": "Running", "containerStatuses": [status]},
    }
    snapshot = Snapshot(
        taken_at="2026-06-02T08:00:00Z",
        target=TargetRef(kind="Pod", namespace="serving", name="llm-0"),
        objects=(pod,),
        logs=(msgspec.structs.replace(log, namespace="serving", pod="llm-0", container="server", previous=True),),
    )
    return diagnose(snapshot, installed()).targets[0]


@pytest.mark.parametrize("engine", sorted(IMAGES))
def test_nothing_in_it_explains_a_pod_that_is_not_ready(engine: str) -> None:
    """The pod fails for a reason that is nowhere to be seen: harmless lines must not be taken for it."""
    target = _of_a_pod_that_ends(engine, _log(engine))

    assert [f.id for f in target.findings if f.role == "cause"] == []
    assert target.verdict == "undetermined"


@pytest.mark.parametrize("engine", sorted(IMAGES.keys() - {"ollama"}))
def test_nothing_in_a_start_that_breaks_off_is_more_than_a_guess(engine: str) -> None:
    """It ends without a word before it serves, by which all that it had met with would be over."""
    lines = (FOLDER / f"{engine}.log").read_text(encoding="utf-8").partition("--- serving\n")[0].splitlines()
    end = next(at for at, line in enumerate(lines) if any(text in line for text in _UP))
    target = _of_a_pod_that_ends(engine, LogText(text="\n".join(lines[:end]) + "\n"))

    assert [(f.id, f.confidence) for f in target.findings if f.role == "cause" and f.confidence != "possible"] == []


@pytest.mark.parametrize(
    ("end", "telling"),
    [
        (
            "/app/tools/server/server.cpp:3843: pos_min == -1, but n_past > 0 - should not happen\n"
            "libggml-base.so(+0x183cb)[0x72edb99cd3cb]\nlibggml-base.so(ggml_abort+0x152)[0x72edb99cda02]\n",
            "pos_min == -1",
        ),
        (
            "/app/ggml/src/ggml-cuda/ggml-cuda.cu:83: CUDA error\nCUDA error: invalid argument\n"
            "  current device: 1, in function ggml_backend_cuda_synchronize at ggml-cuda.cu:2459\n",
            "invalid argument",
        ),
    ],
)
def test_a_server_that_ends_in_native_code_is_not_healthy(end: str, telling: str) -> None:
    log = LogText(text=(FOLDER / "llamacpp.log").read_text(encoding="utf-8").replace("--- serving\n", "") + end)
    target = diagnose(Snapshot(logs=(log,)), installed()).targets[0]

    assert target.verdict == "undetermined"
    assert any(telling in step for step in target.next_steps)


def test_what_an_earlier_start_died_of_is_over_once_the_last_one_serves() -> None:
    start = (FOLDER / "vllm.log").read_text(encoding="utf-8").replace("--- serving\n", "")
    banner = "vLLM API server version 0.18.0\n"
    failed = f"{banner}torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n"

    served = diagnose(Snapshot(logs=(LogText(text=failed + banner + start),)), installed()).targets[0]
    died = diagnose(Snapshot(logs=(LogText(text=start + banner + failed),)), installed()).targets[0]

    assert [f.id for f in served.findings if f.role == "cause"] == []
    assert died.verdict == "cause-found"


@pytest.mark.parametrize(
    ("status", "verdict"), [("400 Bad Request", "healthy"), ("500 Internal Server Error", "undetermined")]
)
def test_an_error_that_the_server_answers_with_400_is_the_clients(status: str, verdict: str) -> None:
    start = "INFO:     Application startup complete.\n"
    error = (
        "Traceback (most recent call last):\n"
        '  File "/usr/local/lib/python3.12/dist-packages/vllm/entrypoints/openai/serving_engine.py", line 350, in _preprocess\n'
        "    raise ValueError(prompt)\nValueError: please provide at least one prompt\n"
        f'INFO:     10.0.0.7:51002 - "POST /v1/completions HTTP/1.1" {status}\n'
    )
    target = diagnose(Snapshot(logs=(LogText(text=start + error),)), installed()).targets[0]

    assert [f.id for f in target.findings if f.role == "cause"] == []
    assert target.verdict == verdict
