"""SGLang's pool of tokens, where it holds fewer than the context allows: requests in between are refused as too long."""

import math
import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import GIB, Engine, Finding, Fix, Line, Log, Sizing, fixes, log_evidence, stray

#: What SGLang's scheduler prints when it is up, and of each request that the smaller of pool and context refuses (`scheduler.py`).
LITERALS = _UP, _REFUSED = "max_total_num_tokens=", "exceeds the maximum allowed length"
_POOL = (
    r"max_total_num_tokens=(?P<pool>\d{1,9}),(?:.{0,80}?\bchunked_prefill_size=(?P<chunk>-?\d{1,7}),)?"
    r".{0,300}?\bcontext_len=(?P<context>\d{1,9}),?"
    r"(?:.{0,200}?\bavailable_gpu_mem=(?P<free>\d{1,4}(?:\.\d{1,3})?) GB)?"
)
_TOO_LONG = r"Input length \((?P<have>\d{1,9}) tokens\) exceeds the maximum allowed length \((?P<most>\d{1,9}) tokens\)"

#: SGLang keeps a few tokens of the pool back. So many GB beside what the share leaves free are more than they should be; by how much a
#: share is raised then, and what graphs and activations are left.
_KEPT, _PLENTY, _MORE, _LEFT = 64, 5, 0.1, 6

#: What SGLang itself leaves beside the share that it chooses (`server_args.py`): MB for each token of a chunk, for each GPU of a
#: server and for the rest, on a large GPU so many GB at least. Its share where it does not know the GPU.
_OF_A_TOKEN, _OF_A_GPU, _OF_THE_REST, _LARGE, _AT_LEAST, _MOST = 1.5, 128, 1536, 60, 10, 0.88
#: The tokens of a chunk where it does not say how many, the fewest that it reckons with, and those of a prefill that is not chunked.
_CHUNK, _FEWEST, _WHOLE = 8192, 2048, 16384

#: The least share that SGLang takes where it is told none, and the memory of a GPU that is not known: a large one.
_SHARE, _MEMORY = 0.8, 180.0


def refuses(engine: Engine, sizing: Sizing, log: Log) -> Finding | None:
    """Refusals of requests that the context would allow and the pool cannot hold."""
    up = log.last(_UP)
    said = re.search(_POOL, up.text[:2000]) if up is not None else None
    if up is None or said is None or int(said["pool"]) >= int(said["context"]):
        return None
    pool, context = int(said["pool"]), int(said["context"])
    late = [(x, m) for x in log.find(_REFUSED) if x.number > up.number and (m := re.search(_TOO_LONG, x.text[:500]))]
    of_pool = [(x, m) for x, m in late if pool - _KEPT <= int(m["most"]) <= pool and int(m["have"]) <= context]
    lines: list[Line] = [x for x, _ in of_pool]
    if not lines or stray(lines):
        return None
    free, share = float(said["free"] or 0), engine.value("gpu_memory_utilization")
    memory = sizing.accelerator.gpu.memory / GIB if sizing.accelerator else _MEMORY
    idle = free - memory * (1 - (share if isinstance(share, float) else _SHARE)) >= _PLENTY
    beside = f", while {free:g} GB of the GPU are free" if idle else ""
    return Finding(
        summary=f"A request of {of_pool[-1][1]['have']} tokens was refused: the KV cache of {engine.at} holds {pool} tokens, and the "
        f"context allows {context}{beside}.",
        evidence=(log_evidence(up, said[0]), log_evidence(lines[-1])),
        explains=("request-too-long",),
        fixes=tuple(
            _raised(engine, free, memory, _most(engine, sizing, int(said["chunk"] or _CHUNK)))
            if idle
            else _shorter(engine, pool)
        ),
        order=lines[-1].order,
    )


def _most(engine: Engine, sizing: Sizing, chunk: int) -> float:
    """The largest share, in hundredths, that leaves what SGLang would leave beside it."""
    if sizing.accelerator is None:
        return _MOST
    memory = sizing.accelerator.gpu.memory / GIB
    sizes = (engine.value(name) for name in ("tensor_parallel_size", "pipeline_parallel_size"))
    gpus = math.prod(size for size in sizes if isinstance(size, int))
    tokens = max(chunk, _FEWEST) if chunk > 0 else _WHOLE
    beside = (tokens * _OF_A_TOKEN + gpus * _OF_A_GPU + _OF_THE_REST) / 1024
    return math.floor(100 - 100 * max(beside, _AT_LEAST if memory > _LARGE else 0) / memory) / 100


def _raised(engine: Engine, free: float, memory: float, most: float) -> Iterator[Fix]:
    """A larger pool, as more memory is left than should be."""
    share = engine.value("gpu_memory_utilization")
    if isinstance(share, float) and (raised := min(share + min(_MORE, (free - _LEFT) / memory), most)) > share + 0.01:
        summary = f"Raise --mem-fraction-static from {share:g} to {raised:.2f}, as {free:g} GB are free"
        yield fixes.set_flag(engine, "gpu_memory_utilization", "--mem-fraction-static", f"{raised:.2f}", summary)
    yield fixes.advice(
        f"Take a newer SGLang in {fixes.edited(engine.pod)}: releases before September 2026 count what loading still holds as used "
        "when they size the cache"
    )


def _shorter(engine: Engine, pool: int) -> Iterator[Fix]:
    """A context that the pool holds, or a pool for the context."""
    yield fixes.advice(
        f"Make the cache larger (more GPUs by --tp, --kv-cache-dtype fp8_e5m2, a quantized model, a higher --mem-fraction-static), or "
        f"set --context-length to {pool} at most in {fixes.edited(engine.pod)}, which then is what clients are told"
    )
