"""What the checks of GPU memory share: when a budget may accuse, its evidence, its fixes."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Evidence,
    Finding,
    Fix,
    Pod,
    Sizing,
    device_evidence,
    fixes,
    limits_evidence,
    log_evidence,
    most_gpus,
    sentence,
    setting_evidence,
)
from llmdoctor_checks._consequences import FAILED_START

GIB = 1 << 30

#: How an engine calls the settings that make room.
FLAGS = {
    "vllm": {"context": "--max-model-len", "share": "--gpu-memory-utilization", "kv-dtype": "--kv-cache-dtype"},
    "sglang": {"context": "--context-length", "share": "--mem-fraction-static", "kv-dtype": "--kv-cache-dtype"},
    "tensorrt-llm": {"context": "--max_seq_len", "kv-dtype": "--kv_cache_dtype"},
    "lmdeploy": {"context": "--session-len"},
}
_TENSOR = {"vllm": "--tensor-parallel-size", "sglang": "--tp-size", "tensorrt-llm": "--tp_size", "lmdeploy": "--tp"}
_NAMES = {"context": "max_model_len", "share": "gpu_memory_utilization", "kv-dtype": "kv_cache_dtype"}

EXPLAINED = (*FAILED_START, "rollout-stuck")


def role_of(pod: Pod, sizing: Sizing) -> str:
    """`risk` for a container that did not start yet, `cause` for one that crashed and left no log, else empty.

    One that serves fits, whatever is computed; of one that printed something that is the better witness, and one that
    a signal ended did not run out of GPU memory.
    """
    container = sizing.engine.container
    if pod.log_only or (pod.exists and pod.ready):
        return ""
    if not container.crashed:
        return "risk"
    ended = container.terminated
    return "" if sizing.has_log or (ended and ended.exit_code > 128) else "cause"


def finding(pod: Pod, sizing: Sizing, summary: str, explains: tuple[str, ...] = ()) -> Finding:
    """A finding with the inputs of the budget as evidence; of a crash as its likely cause."""
    role = role_of(pod, sizing)
    return Finding(
        role="cause" if role == "cause" else "risk",
        severity="critical",
        summary=summary,
        evidence=tuple(_evidence(sizing)),
        explains=(*explains, *EXPLAINED) if role == "cause" else (),
        fixes=tuple(ways_out(sizing)),
    )


def _evidence(sizing: Sizing) -> Iterator[Evidence]:
    engine = sizing.engine
    for name in ("model", "quantization", "tensor_parallel_size", "pipeline_parallel_size", "max_model_len"):
        setting = engine.explicit(name)
        if setting is not None:
            yield setting_evidence(engine.container, setting)
    for name in ("weights", "cache"):
        if name in sizing.printed.lines:
            yield log_evidence(sizing.printed.lines[name])
    if sizing.accelerator is not None:
        yield device_evidence(engine.container, sizing.accelerator)
    elif "total" in sizing.printed.lines:
        yield log_evidence(sizing.printed.lines["total"])
    yield from limits_evidence(engine.container, engine.container.accelerators)


def ways_out(sizing: Sizing) -> Iterator[Fix]:
    """Changes after which it surely fits, the gentlest first; three at most."""
    engine = sizing.engine
    for number, option in enumerate(sizing.options):
        if number == 3:
            return
        step = option.step
        flag = FLAGS.get(engine.name, {}).get(step.kind)
        summary = sentence(step.summary)
        spread = _TENSOR.get(engine.name) if step.kind == "tensor" else None
        if flag:
            yield fixes.set_flag(engine, _NAMES[step.kind], flag, step.value, summary)
        elif spread and int(step.value) <= most_gpus(engine.container):
            chosen = [("tensor_parallel_size", spread, step.value)]
            if step.cap:
                chosen.append(("max_model_len", FLAGS[engine.name]["context"], str(step.cap)))
            yield fixes.set_flags(engine, chosen, summary, gpus=step.value)
        else:
            yield fixes.advice(f"{summary}, in {fixes.edited(engine.pod)}")


def gib(size: float) -> str:
    """`16.0 GiB`."""
    return f"{max(size, 0) / GIB:.1f} GiB"


def room(sizing: Sizing) -> str:
    """`at most 5.5 GiB are left after 65.7 GiB of weights, room for 5056 to 35936 tokens`, as far as it is known."""
    budget = sizing.budget
    if budget is None or budget.cache is None or budget.longest is None:
        return "less is left"
    after = f" after {gib(budget.weights.low)} of weights" if budget.weights else ""
    low, high = budget.longest
    tokens = f"{low} to {high}" if low != high else str(low)
    left = gib(budget.cache.high) if budget.cache.exact else f"at most {gib(budget.cache.high)}"
    return f"{left} are left{after}, room for {tokens} tokens"
