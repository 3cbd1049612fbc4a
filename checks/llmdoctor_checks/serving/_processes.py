"""The processes of an engine that are busy under load."""

import msgspec

from kubectl_llmdoctor.api import Engine


class Busy(msgspec.Struct, frozen=True):
    """How many processes are busy under load, and how they are counted."""

    total: int
    #: those of them that schedule and drive the GPUs: they loop at full speed as long as one request is there
    loops: int
    text: str


def busy(engine: Engine) -> Busy | None:
    """The busy processes of an engine; None where they are not known.

    vLLM from 0.8 on schedules in an engine core of its own, one per data parallel rank; with one GPU per rank the model
    runs in it, else in one worker per GPU. SGLang schedules in the GPU processes themselves. Of a group of pods only those in
    this container count: no more workers than it has devices.
    """
    workers, devices = engine.workers, engine.container.devices
    if workers is None or engine.name not in ("vllm", "sglang", "tgi", "lmdeploy"):
        return None
    everywhere, workers = workers, min(workers, devices or workers)
    if engine.name == "vllm" and engine.at_least("0.5.5") is False:
        return Busy(workers, workers, "one process per GPU")  # the API server of its own process came with 0.5.5
    servers = engine.value("tokenizer_worker_num" if engine.name == "sglang" else "api_server_count", 1)
    ranks = engine.value("data_parallel_size", 1)
    if not isinstance(servers, int) or not isinstance(ranks, int):
        return None
    ranks = max(ranks * workers // everywhere, 1)
    front = f"{servers} API server{'s' if servers > 1 else ''}"
    if workers == ranks or engine.container.one_process:
        return Busy(ranks + servers, ranks, f"{front}, {ranks} engine{'s' if ranks > 1 else ''}")
    if second_engine(engine):
        cores = f"{ranks} engine core{'s' if ranks > 1 else ''}"
        return Busy(workers + servers + ranks, workers + ranks, f"{front}, {cores}, {workers} GPU workers")
    return Busy(workers + servers, workers, f"{front}, {workers} GPU workers")


def second_engine(engine: Engine) -> bool:
    """Whether it is a vLLM that is known to run its second engine: from 0.8 on by default, and from 0.11 on without a choice."""
    return engine.name == "vllm" and engine.at_least("0.8.0") is True and engine.value("use_v1") is not False
