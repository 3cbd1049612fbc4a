"""A maximum length that the KV cache cannot hold."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Engine,
    Finding,
    Line,
    Logs,
    Pod,
    Sizing,
    check,
    fixes,
    log_evidence,
    say_seconds,
    seconds_between,
)
from llmdoctor_checks._load import last_load, since_when

from ._budget import EXPLAINED, finding, gib, role_of, room
from ._graphs import ESTIMATED, REFUSED, eaten
from ._pool import LITERALS, refuses

#: What vLLM prints at its start of the cache and of the longest request.
_HOLDS, _LONGEST = "GPU KV cache size: ", "Using max model len "

#: Nothing has run for so long although requests wait and the cache is empty.
_STANDS_STILL = 60


@check("kv-cache-below-max-len", since="0.1", literals=(_HOLDS, _LONGEST, ESTIMATED, REFUSED, *LITERALS))
def kv_cache_below_max_len(pod: Pod, sizing: Sizing, logs: Logs | None) -> Iterator[Finding]:
    """One request of the maximum length does not fit into the KV cache.

    The engine keeps the keys and values of every token of a running request in GPU memory, in what is left after the
    weights and the activations. At start it checks that one request of the maximum length fits. Without
    `--max-model-len` the maximum is the model's own, often 128 Ki tokens or more, which needs many gigabytes. From
    vLLM 0.8.5 on the message says which length would fit.

    What is left is also what CUDA graphs leave, which newer vLLM estimates first: speculative decoding makes the batches for which
    they are captured several times as wide.

    A model whose layers do not all keep every token (a sliding window) starts although its cache counts fewer tokens than the
    maximum. vLLM begins a request only when there is room for its whole prompt (`--scheduler-reserve-full-isl`, the default from
    0.19 on), so that one which the whole cache cannot hold waits forever, and all others behind it.

    SGLang starts as well, and refuses what its cache cannot hold in the words for a request that is longer than the context.

    ## Fix

    Set `--max-model-len` to what fits. If long requests are really needed, make room: spread the model over more GPUs
    (`--tensor-parallel-size`), store the cache in 8 bits (`--kv-cache-dtype fp8`), take a quantized checkpoint, or raise
    `--gpu-memory-utilization` where nothing else uses the GPU.

    ## References

    - https://docs.vllm.ai/en/latest/configuration/conserving_memory/
    - https://huggingface.co/docs/text-generation-inference/reference/launcher
    """
    if logs is not None and (stuck := _waits_for_ever(pod, sizing.engine, logs)) is not None:
        yield stuck
        return
    log = sizing.engine.container.own_log(logs) if sizing.engine.name == "sglang" else None
    if log is not None and (refused := refuses(sizing.engine, sizing, log)) is not None:
        yield refused
        return
    if (by_graphs := _by_graphs(pod, sizing.engine, logs)) is not None:
        yield by_graphs
        return
    cap = sizing.engine.explicit("max_model_len")
    if cap is None or not role_of(pod, sizing):
        return
    budget = sizing.budget
    if budget is None or not (budget.lacks_room and budget.per_request):
        return
    yield finding(
        pod,
        sizing,
        f"One request of {budget.context} tokens ({cap.text}) needs {gib(budget.per_request)} of KV cache, and "
        f"{room(sizing)}.",
    )


def _by_graphs(pod: Pod, engine: Engine, logs: Logs | None) -> Finding | None:
    """CUDA graphs took the room of the cache in a server that ended of it."""
    container = engine.container
    crashed = pod.log_only or container.crashed
    found = eaten(logs, engine) if engine.name == "vllm" and crashed else None
    if found is None:
        return None
    guessed = engine.explicit("speculative_config")
    of_what = " of batches that speculative decoding makes several times as wide" if guessed is not None else ""
    fewer = ", and with them fewer tokens that are guessed at once (num_speculative_tokens)" if guessed else ""
    return Finding(
        confidence="certain",
        summary=f"CUDA graphs{of_what} take {found.graphs} GiB, and {found.left} GiB are left for the KV cache; one request of the "
        f"maximum length {found.length} needs {found.needed} GiB.",
        evidence=tuple(log_evidence(line) for line in found.lines),
        explains=("kv-cache-no-room", "context-uncapped", *EXPLAINED, "engine-dead", "worker-lost"),
        fix=fixes.advice(
            f"Capture graphs of smaller batches: a lower --max-cudagraph-capture-size or --max-num-seqs in {fixes.edited(pod)}{fewer}"
        ),
        order=found.lines[0].order,
    )


def _waits_for_ever(pod: Pod, engine: Engine, logs: Logs) -> Finding | None:
    """Requests wait in vLLM beside an empty cache, which holds fewer tokens than one request may have."""
    container = engine.container
    log = logs.current(container.name)
    if engine.name != "vllm" or log is None or not (pod.ready or pod.log_only):
        return None
    # before, and where it was told so, a request begins with what there is
    if engine.at_least("0.19") is False or engine.value("scheduler_reserve_full_isl") is False:
        return None
    still = since_when(
        last_load(container, logs), lambda x: bool(x.waiting) and not (x.running or x.tokens) and x.cache < 0.01
    )
    seconds = seconds_between(still[0].line, still[-1].line) if still else None
    holds, longest = (_count(log.find(words), words) for words in (_HOLDS, _LONGEST))
    if seconds is None or seconds < _STANDS_STILL or holds is None or longest is None or holds[0] >= longest[0]:
        return None
    last = still[-1]
    return Finding(
        summary=f"{last.waiting} requests wait in {engine.at}, and nothing has run for {say_seconds(seconds)} beside an empty KV cache: "
        f"that holds {holds[0]} tokens, and a request may have {longest[0]}. One that is larger than the cache waits forever, and all "
        "others behind it.",
        evidence=(log_evidence(holds[1]), log_evidence(longest[1]), log_evidence(last.line)),
        explains=("engine-stalled", "queue-growing"),
        fixes=(
            fixes.set_flag(
                engine,
                "max_model_len",
                "--max-model-len",
                str(holds[0]),
                f"Set --max-model-len to {holds[0]}, so that such requests are refused: none that is longer fits into the cache",
            ),
            fixes.advice("Let them begin with what room there is: --no-scheduler-reserve-full-isl"),
        ),
        order=last.line.order,
    )


def _count(lines: Iterator[Line], words: str) -> tuple[int, Line] | None:
    """The number of tokens that the last of these lines names after the words."""
    line = max(lines, key=lambda line: line.number, default=None)
    said = re.match(r"\d[\d,]{0,15}", line.text.partition(words)[2]) if line else None
    return (int(said[0].replace(",", "")), line) if line and said else None
