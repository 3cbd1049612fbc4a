"""An exception without a frame is judged by its words: what other libraries, Python and clients say is no cause."""

from __future__ import annotations

import pytest

from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.packs import installed
from kubectl_llmdoctor.report.document import Target
from kubectl_llmdoctor.snapshot import LogText, Snapshot

_BANNER = "(APIServer pid=1) INFO 06-02 08:00:00 [api_server.py:1977] vLLM API server version 0.11.0\n"
_POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "llm-0", "namespace": "serving"},
    "spec": {
        "nodeName": "gpu-1",
        "containers": [{"name": "vllm", "image": "vllm/vllm-openai:v0.11.0", "args": ["--model=acme/llm"]}],
    },
    "status": {
        "phase": "Running",
        "containerStatuses": [
            {
                "name": "vllm",
                "ready": False,
                "restartCount": 5,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}},
            }
        ],
    },
}


def _crashed(last: str) -> Target:
    log = LogText(text=f"{_BANNER}{last}\n", namespace="serving", pod="llm-0", container="vllm", previous=True)
    return diagnose(Snapshot(objects=(_POD,), logs=(log,)), installed()).targets[0]


@pytest.mark.parametrize(
    "last",
    [
        # PyTorch
        "RuntimeError: Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!",
        "RuntimeError: expected scalar type Half but found BFloat16",
        "RuntimeError: mat1 and mat2 must have the same dtype, but got Half and BFloat16",
        "RuntimeError: mat1 and mat2 shapes cannot be multiplied (4096x11008 and 4096x4096)",
        "RuntimeError: shape '[1, 32, 128]' is invalid for input of size 2048",
        "RuntimeError: Tensors must have same number of dimensions: got 2 and 3",
        "RuntimeError: Could not run 'torchvision::nms' with arguments from the 'CUDA' backend. 'torchvision::nms' is only "
        "available for these backends: [CPU, Meta].",
        "RuntimeError: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a non-contiguous input.",
        # Python and its servers
        "RuntimeError: asyncio.run() cannot be called from a running event loop",
        "RuntimeError: cannot schedule new futures after shutdown",
        "RuntimeError: Expected ASGI message 'websocket.accept' or 'websocket.close', but got 'http.response.start'.",
        "ValueError: signal only works in main thread of the main interpreter",
        "ValueError: too many values to unpack (expected 2)",
        "ValueError: unsupported pickle protocol: 5",
        "ValueError: unsupported format character 'y' (0x79) at index 3",
        "ValueError: mutable default <class 'dict'> for field rope is not allowed: use default_factory",
        "KeyError: 'step_size'",
        "ValueError: unsupported locale setting",
        "KeyError: 'llama'",
        "TypeError: SamplingParams.__init__() got an unexpected keyword argument 'guided_decoding'",
        # the network, and what links GPUs
        "requests.exceptions.ProxyError: HTTPConnectionPool(host='127.0.0.1', port=30000): Max retries exceeded with url: "
        "/get_model_info (Caused by ProxyError('Unable to connect to proxy'))",
        "requests.exceptions.SSLError: HTTPSConnectionPool(host='api.wandb.ai', port=443): Max retries exceeded with url: /",
        "RuntimeError: Timed out waiting for peers; VLLM_HOST_IP must be unique on each node",
        "RuntimeError: Peer access is not supported between these two devices",
        "RuntimeError: nvshmem: IBGDA is not supported on this platform",
        "RuntimeError: ibv_reg_mr failed: Operation not supported",
        # a request, where the head of the log is gone
        "ValueError: max_tokens must be at least 1, got 0.",
        "ValueError: temperature must be non-negative, got -1.0.",
        "ValueError: Unknown role: developer",
        "ValueError: Unsupported image format",
        "ValueError: This model only supports single tool-calls at once!",
        "ValueError: The provided JSON schema contains features not supported by xgrammar.",
        "NotImplementedError: The model does not support Embeddings API",
        # a kernel's own shapes
        "ValueError: SM90 CTA tile M must be 64/128",
        "ValueError: `initial_state` must be a 4D tensor (got ndim=3).",
        # what only repeats another error
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore_0': 1}",
        "RuntimeError: Cancelled by the engine, which must be restarted",
    ],
)
def test_what_no_engine_refuses_is_no_cause(last: str) -> None:
    target = _crashed(last)

    assert [f.id for f in target.findings if f.role == "cause"] == []
    assert target.verdict == "undetermined"


@pytest.mark.parametrize(
    ("last", "cause"),
    [
        ("ValueError: --enable-eplb requires --enable-expert-parallel.", "engine-args-invalid"),
        ("NotImplementedError: Sleep mode is not supported on this platform.", "engine-args-invalid"),
        ("NotImplementedError: DeepGEMM MegaMoE requires SM100 GPUs.", "gpu-arch-unsupported"),
        ("AssertionError: Only Ampere (80), Hopper (90), and Blackwell (100) are supported", "gpu-arch-unsupported"),
        ("KeyError: 'step3p5'", "model-unsupported"),
        ("ValueError: Shard size 1536 at rank 1 exceeds loaded_weight dimension 2048", "weights-corrupt"),
    ],
)
def test_what_an_engine_refuses_is_its_cause(last: str, cause: str) -> None:
    assert [f.id for f in _crashed(last).findings if f.role == "cause"] == [cause]
