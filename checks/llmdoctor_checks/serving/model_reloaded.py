"""Ollama loads a model anew for request after request."""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from kubectl_llmdoctor.api import (
    Engine,
    Finding,
    Line,
    Log,
    Logs,
    Pod,
    check,
    fixes,
    log_evidence,
    say_seconds,
)
from llmdoctor_checks._ollama import answered

#: Ollama's `server.go`, once or twice for each load.
#: Its time is the server's own, as that of the access log, which has no zone.
_LOADED = r"\btime=(\d{4}-\d\d-\d\dT[0-2]\d:[0-5]\d:[0-5]\d)\S* .*llama runner started in (\d{1,9}(?:\.\d+)?) seconds"

#: A model that was in use so short a time before was not unloaded because nobody asked (`OLLAMA_KEEP_ALIVE`, 5 minutes).
_SOON_SECONDS = 60

#: So many loads that soon, of so large a share of the requests, and of the time that those took, are what makes them slow.
_FEWEST, _SHARE, _COST = 4, 0.5, 0.2

#: Requests that are looked at, the last ones.
_RECENT = 40


class Load(NamedTuple):
    """One load that followed a request closely: where it stands, when it was done, and how long it took."""

    line: Line
    seconds: float


@check("model-reloaded", since="0.3", severity="warning", literals=("llama runner started in", "[GIN] "))
def model_reloaded(pod: Pod, engine: Engine, logs: Logs | None) -> Iterator[Finding]:
    """The server loads a model anew for request after request.

    Ollama loads a model when somebody asks for it, and keeps it for five minutes. It loads it again when a request wants another
    context length (`num_ctx`, which some clients compute for each prompt), when a second model does not fit beside it or
    `OLLAMA_MAX_LOADED_MODELS` forbids that, and when a client asks to drop it (`keep_alive: 0`). Clients that take turns with
    two models then wait for a load each time, which is many times as long as the answer takes.

    A model that is loaded since nobody has asked for minutes is no fault, and not counted.

    ## Fix

    Let all clients ask for one context length, or set it once (`OLLAMA_CONTEXT_LENGTH`, `num_ctx` in the Modelfile). Let the models
    that are used together fit together (smaller context, `OLLAMA_MAX_LOADED_MODELS`), or serve each from a Deployment of its own.

    ## References

    - https://docs.ollama.com/faq
    """
    log = logs.current(engine.container.name) if logs else None
    if log is None or engine.name != "ollama" or not (pod.ready or pod.log_only):
        return
    requests = [said for line in log.find("[GIN] ") if (said := answered(line)) is not None][-_RECENT:]
    loads = list(_soon(log, requests))
    took, cost = sum(seconds for _, _, seconds in requests), sum(load.seconds for load in loads)
    if len(loads) < _FEWEST or len(loads) < _SHARE * (len(requests) - 1) or not took or cost < _COST * took:
        return
    yield Finding(
        role="cause",
        severity="warning",
        confidence="likely",
        summary=f"{engine.at} loaded a model {len(loads)} times within {_SOON_SECONDS} s of a request, for "
        f"its last {len(requests)} requests: {say_seconds(cost)} of the {say_seconds(took)} that they took.",
        evidence=tuple(log_evidence(load.line) for load in (*loads[:1], *loads[-1:])),
        fixes=(
            fixes.advice(
                "Let all clients ask for one context length and keep the model (keep_alive), and let the models that are used "
                f"together fit together or serve each from a Deployment of its own, in {fixes.edited(pod)}"
            ),
        ),
        order=loads[-1].line.order,
        pods=(pod.name,),
    )


def _soon(log: Log, requests: list[tuple[Line, datetime, float]]) -> Iterator[Load]:
    """Loads that began soon after a request was answered, each once."""
    last: datetime | None = None
    for line in log.find("llama runner started in"):
        said = re.search(_LOADED, line.text)
        before = [at for other, at, _ in requests if other.number < line.number]
        if said is None or not before:
            continue
        at, seconds = datetime.fromisoformat(said[1]), float(said[2])
        again = last is not None and abs((at - last).total_seconds()) <= 1
        if not again and (at - before[-1]).total_seconds() - seconds <= _SOON_SECONDS:
            yield Load(line, seconds)
        last = at
