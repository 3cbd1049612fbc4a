"""What vLLM sets aside for CUDA graphs where that alone is why its KV cache is too small.

Sources: vLLM `v1/worker/gpu_model_runner.py` (profile_cudagraph_memory), `v1/worker/gpu_worker.py` and `v1/core/kv_cache_utils.py`,
0.16 to 0.33. Graphs are captured for batches of up to `max_num_seqs` requests, each of as many tokens as are guessed at once and one
more. The estimate is printed in any case, and set aside only by VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS, the default from 0.20 on.
"""

import re

import msgspec

from kubectl_llmdoctor.api import Engine, Line, Logs

ESTIMATED, REFUSED = "Estimated CUDA graph memory: ", "max seq len ("

_GRAPHS = r"Estimated CUDA graph memory: (?P<size>\d{1,4}(?:\.\d{1,4})?) GiB total"
_CACHE = (
    r"max seq len \((?P<length>\d{1,9})\).{0,40}?(?P<needed>\d{1,5}(?:\.\d{1,4})?) GiB KV cache is needed.{0,80}?"
    r"available KV cache memory \((?P<left>\d{1,5}(?:\.\d{1,4})?) GiB\)"
)

#: Whether the estimate is set aside, and what vLLM says beside it where it is.
_SWITCH, _SET_ASIDE = "VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS", "CUDA graph memory profiling is enabled"
_SOON = 20

#: Graphs that take so many times what is left for the cache are no usual ones.
_TIMES = 3


class Eaten(msgspec.Struct, frozen=True):
    """What CUDA graphs take in GiB, and the cache that one request needs and has, each as it was printed."""

    graphs: str
    length: str
    needed: str
    left: str
    lines: tuple[Line, Line]


def eaten(logs: Logs | None, engine: Engine) -> Eaten | None:
    """The last refusal of a log before which graphs took more than the longest request needs."""
    for log in engine.container.own_logs(logs):
        for line in reversed(list(log.find(REFUSED))):
            cache = re.search(_CACHE, line.text[:4000])
            before = [x for x in log.find(ESTIMATED) if x.number < line.number]
            graphs = _of(before[-1]) if before else None
            if cache is None or graphs is None or not _set_aside(before[-1], engine):
                continue
            if float(graphs) >= max(float(cache["needed"]), _TIMES * float(cache["left"])):
                return Eaten(graphs, cache["length"], cache["needed"], cache["left"], (before[-1], line))
    return None


def _set_aside(line: Line, engine: Engine) -> bool:
    """Whether what vLLM estimates is taken from the cache."""
    below = line.log.lines(line.number + 1, line.number + _SOON)
    switch = engine.container.env.get(_SWITCH)
    if any(_SET_ASIDE in x.text for x in below):
        return True
    return engine.at_least("0.20.0") is True if switch is None else switch.value == "1"


def _of(line: Line) -> str | None:
    found = re.search(_GRAPHS, line.text[:2000])
    return found["size"] if found else None
