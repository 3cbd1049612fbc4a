"""Prefill and decode of LMCache whose tensor parallel sizes differ: its ranks talk to those of the same number."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Engine,
    Finding,
    Line,
    Logs,
    Pod,
    engines_in,
    fixes,
    log_evidence,
    seconds_between,
    setting_evidence,
)

#: vLLM's front end, every ten seconds while its engine is not up (`v1/engine/utils.py`, a debug message).
WAITING = " core engine proc(s) to start."
#: How long an engine may take to say more.
_LONG_SECONDS = 60

_CONNECTOR = "LMCacheConnector"
_OTHER_SIDE = {"prefill": "decode", "decode": "prefill"}


def unequal(pod: Pod, engine: Engine, logs: Logs) -> Iterator[Finding]:
    """An engine that does not come up beside one of the other side with more or fewer ranks.

    LMCache (`storage_backend/pd_backend.py`) has one port for each rank of the receiver, and a sender takes that of its own number.
    """
    side = _OTHER_SIDE.get(engine.side)
    waits = _waits(engine, logs) if side and _by_lmcache(engine) and pod.exists and not pod.ready else None
    if waits is None:
        return
    theirs = [
        e for one in pod.of_namespace if not one.leaving for e in engines_in(one) if e.side == side and _by_lmcache(e)
    ]
    ours = _ranks(engine)
    same = [one for one in theirs if one.value("model") == engine.value("model")]
    if not ours or not same or any(_ranks(one) in (ours, None) for one in same):
        return
    peer, gpus = same[0], engine.container.gpus
    scaled, rest = divmod(gpus * (_ranks(peer) or 0), ours)
    size, flag = engine.explicit("tensor_parallel_size"), "--tensor-parallel-size"
    yield Finding(
        confidence="possible",
        summary=f"{pod.name} waits for its engine, which has {ours} tensor parallel ranks where the {side} side, {peer.pod.name}, has "
        f"{_ranks(peer)}: LMCache hands the cache from each rank to that of the same number.",
        evidence=(log_evidence(waits), *((setting_evidence(engine.container, size),) if size else ())),
        explains=("not-ready", "rollout-stuck"),
        fix=fixes.set_flags(
            engine,
            [("tensor_parallel_size", size.flag if size else flag, str(_ranks(peer)))],
            f"Give both sides one tensor parallel size: {_ranks(peer)} here, as {peer.pod.name} has, and as many GPUs; or {ours} there",
            gpus=str(scaled) if scaled and not rest else "",
        ),
        order=waits.order,
    )


def _by_lmcache(engine: Engine) -> bool:
    config = engine.explicit("kv_transfer_config")
    return engine.name == "vllm" and config is not None and _CONNECTOR in str(config.value)


def _ranks(engine: Engine) -> int | None:
    size = engine.value("tensor_parallel_size", 1)
    return size if isinstance(size, int) and engine.found.argv_known else None


def _waits(engine: Engine, logs: Logs) -> Line | None:
    """The last line of an engine that has said for long that it waits for its processes, and nothing else."""
    log = logs.current(engine.container.name)
    lines = [*log.find(WAITING)] if log is not None else []
    if log is None or not lines or lines[-1].number < len(log):
        return None
    row = [line for at, line in enumerate(reversed(lines)) if line.number == len(log) - at]
    seconds = seconds_between(row[-1], row[0])
    return row[0] if seconds is not None and seconds >= _LONG_SECONDS else None
