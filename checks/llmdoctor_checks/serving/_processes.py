"""The processes of an engine that are busy under load."""

from __future__ import annotations

from kubectl_llmdoctor.api import Engine


def busy(engine: Engine) -> tuple[int | None, str]:
    """How many processes are busy under load, and how they are counted; None where it is not known.

    vLLM from 0.8 on schedules in an engine core of its own, one per data parallel rank; with one GPU per rank the model
    runs in it, else in one worker per GPU. SGLang schedules in the GPU processes themselves.
    """
    workers = engine.workers
    if workers is None:
        return None, ""
    if engine.name == "vllm" and engine.at_least("0.5.5") is False:
        return workers, "one process per GPU"  # the API server of its own process came with 0.5.5
    if engine.name not in ("vllm", "sglang", "tgi", "lmdeploy"):
        return None, ""
    servers = engine.value("tokenizer_worker_num" if engine.name == "sglang" else "api_server_count", 1)
    ranks = engine.value("data_parallel_size", 1)
    if not isinstance(servers, int) or not isinstance(ranks, int):
        return None, ""
    front = f"{servers} API server{'s' if servers > 1 else ''}"
    if workers == ranks:
        return workers + servers, f"{front}, {workers} engine{'s' if workers > 1 else ''}"
    old = engine.container.env.get("VLLM_USE_V1")
    if engine.name == "vllm" and engine.at_least("0.8.0") and not (old and old.value == "0"):
        cores = f"{ranks} engine core{'s' if ranks > 1 else ''}"
        return workers + servers + ranks, f"{front}, {cores}, {workers} GPU workers"
    return workers + servers, f"{front}, {workers} GPU workers"
