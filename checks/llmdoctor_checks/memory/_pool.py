"""SGLang's pool of tokens, where it holds fewer than the context allows: requests in between are refused as too long."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import Engine, Finding, Fix, Line, Log, fixes, log_evidence, stray

#: What SGLang's scheduler prints when it is up, and of each request that the smaller of pool and context refuses (`scheduler.py`).
LITERALS = _UP, _REFUSED = "max_total_num_tokens=", "exceeds the maximum allowed length"
_POOL = (
    r"max_total_num_tokens=(?P<pool>\d{1,9}),.{0,300}?\bcontext_len=(?P<context>\d{1,9}),?"
    r"(?:.{0,200}?\bavailable_gpu_mem=(?P<free>\d{1,4}(?:\.\d{1,3})?) GB)?"
)
_TOO_LONG = r"Input length \((?P<have>\d{1,9}) tokens\) exceeds the maximum allowed length \((?P<most>\d{1,9}) tokens\)"

#: SGLang keeps a few tokens of the pool back. So much free memory is more than graphs and activations leave; by how much a share is
#: raised then, and up to which.
_KEPT, _PLENTY, _MORE, _MOST = 64, 8, 0.1, 0.95


def refuses(engine: Engine, log: Log) -> Finding | None:
    """Refusals of requests that the context would allow and the pool cannot hold."""
    up = max(log.find(_UP), key=lambda line: line.number, default=None)
    said = re.search(_POOL, up.text[:2000]) if up is not None else None
    if up is None or said is None or int(said["pool"]) >= int(said["context"]):
        return None
    pool, context = int(said["pool"]), int(said["context"])
    late = [(x, m) for x in log.find(_REFUSED) if x.number > up.number and (m := re.search(_TOO_LONG, x.text[:500]))]
    of_pool = [(x, m) for x, m in late if pool - _KEPT <= int(m["most"]) <= pool and int(m["have"]) <= context]
    lines: list[Line] = [x for x, _ in of_pool]
    if not lines or stray(lines):
        return None
    free = float(said["free"] or 0)
    beside = f", while {free:g} GB of the GPU are free" if free >= _PLENTY else ""
    return Finding(
        role="cause",
        summary=f"A request of {of_pool[-1][1]['have']} tokens was refused: the KV cache of {engine.at} holds {pool} tokens, and the "
        f"context allows {context}{beside}.",
        evidence=(log_evidence(up, said[0]), log_evidence(lines[-1])),
        explains=("request-too-long",),
        fixes=tuple(_fixes(engine, pool, free)),
        order=lines[-1].order,
    )


def _fixes(engine: Engine, pool: int, free: float) -> Iterator[Fix]:
    """A larger pool where memory is left for one, else a context that it holds."""
    share = engine.value("gpu_memory_utilization")
    if free >= _PLENTY:
        if isinstance(share, float) and share < _MOST:
            more = f"{min(share + _MORE, _MOST):.2f}"
            summary = f"Raise --mem-fraction-static from {share:g} to {more}, as {free:g} GB are free"
            yield fixes.set_flag(engine, "gpu_memory_utilization", "--mem-fraction-static", more, summary)
        yield fixes.advice(
            f"Take a newer SGLang in {fixes.edited(engine.pod)}: releases before September 2026 count what loading still holds as used "
            "when they size the cache"
        )
        return
    yield fixes.advice(
        f"Make the cache larger (more GPUs by --tp, --kv-cache-dtype fp8_e5m2, a quantized model, a higher --mem-fraction-static), or "
        f"set --context-length to {pool} at most in {fixes.edited(engine.pod)}, which then is what clients are told"
    )
