"""Ollama or llama-swap reloads a model for request after request."""

import math
import re
from collections.abc import Iterator
from datetime import datetime

import msgspec

from kubectl_llmdoctor.api import (
    Container,
    Engine,
    Finding,
    Fix,
    Line,
    Log,
    Logs,
    Pod,
    Subject,
    check,
    duration,
    fixes,
    log_evidence,
    releases,
    say_seconds,
    seconds_between,
)
from llmdoctor_checks.serving._answers import Answer, answered

#: Ollama's `server.go`, once or twice for each load.
#: Its time is the server's own, as that of the access log, which has no zone.
_LOADED = r"\btime=(\d{4}-\d\d-\d\dT[0-2]\d:[0-5]\d:[0-5]\d)\S* .*llama runner started in (\d{1,9}(?:\.\d+)?) seconds"

#: Why a model was dropped that was still to be kept: another needs its memory, or may not stand beside it. Ollama's `llm/server.go`,
#: and `server/sched.go` at the debug level.
_EVICTED = ("evicting a model to make space", "waiting for pending requests to complete and unload to occur")

#: How 0.12.11 and 0.13.0 say it where not all layers fit on GPUs, which they judged of machines without one, too: none ever did there, so
#: that each load put out what was loaded. Since 0.13.1 it says "more gpu memory", and only where there is one (pull request 13242).
_NO_LAYER, _MENDED = (
    'requires more memory than is currently available, evicting a model to make space" "loaded layers"=0',
    "0.13.1",
)
_LISTS = 'msg="inference compute"'

#: With which context a model is loaded: of the runner's arguments up to 0.11, and of what it is asked for since (`llm/server.go`).
#: It is the length that a request wants, times the requests that are answered at once.
_RUNNER, _ASKED_TO_LOAD = 'msg="starting ', "msg=load request="
_MODEL, _CONTEXT = r"\bcmd=.{0,400}? --model (\S{1,400})", r" --ctx-size (\d{1,9})|[{ ]KvSize:(\d{1,9}) "
_AT_ONCE = r"(?: --parallel |[{ ]Parallel:)(\d{1,4})\b"

#: A model that was in use so short a time before was not unloaded because nobody asked (`OLLAMA_KEEP_ALIVE`, 5 minutes).
#: Within Ollama's own time one that another pushed out would still be there.
_SOON_SECONDS, _KEPT_SECONDS = 60, 300

#: So many loads that soon, of so large a share of the requests, and of the time that those took, are what makes them slow.
_FEWEST, _SHARE, _COST = 4, 0.5, 0.2

#: Of fewer requests they are, where they take so large a share of the time.
_MUCH = 0.4

#: Requests that are looked at, the last ones.
_RECENT = 40

#: A load that takes so long is more than who asks now and then waits for, of a model that went by itself since nobody asked for its time;
#: who comes more seldom than that is a job, to which it does not matter.
_LONG_LOAD, _SELDOM = 45, 1800

#: llama-swap's, of a model whose process answers, of one that nobody has asked for so long (`ttl`), and of a request (`proxy/process.go`).
#: Its lines have no time by default.
_SWAPPED_IN, _WENT_BY_ITSELF, _TO_SWAP = "> Health check passed on ", "Unloading model", "] Request "
_SWAPPED = r"\] <(?P<model>[^<>]{1,300})> Health check passed on "
_OF_A_MODEL = r"\] Request \S{1,200} \"POST /v1/(?:chat/completions|completions|responses|messages|embeddings|rerank)\b"


class Load(msgspec.Struct, frozen=True):
    """One load that nobody's long silence explains: where it stands, how long it took, and what shows why.

    It followed a request closely, or pushed another model out, or is that of a model which is kept, with another context or after
    another model.
    """

    line: Line
    seconds: float
    evicted: Line | None
    #: the context lengths, where that of the same model's last load was another
    contexts: tuple[int, int] | None = None
    asked: Line | None = None
    #: whether it is a model that was there before and that another followed, within the time for which it is kept
    turn: bool = False


@check(
    "model-reloaded",
    since="0.3",
    severity="warning",
    literals=("llama runner started in", "[GIN] ", _RUNNER, _ASKED_TO_LOAD, *_EVICTED, _SWAPPED_IN),
)
def model_reloaded(pod: Pod, subject: Subject, logs: Logs | None) -> Iterator[Finding]:
    """The server reloads a model for request after request.

    Ollama loads a model when somebody asks for it, and keeps it for five minutes. It loads it again when a request wants another
    context length (`num_ctx`, which some clients compute for each prompt), when a second model does not fit beside it or
    `OLLAMA_MAX_LOADED_MODELS` forbids that, and when a client asks to drop it (`keep_alive: 0`). Clients that take turns with
    two models then wait for a load each time, which is many times as long as the answer takes.

    Without a GPU two releases, 0.12.11 and 0.13.0, put out what is loaded at every load.

    A model that is loaded since nobody has asked for minutes is no fault, and not counted, unless Ollama says that it dropped one
    to make space for another, or loads one again within the five minutes for which it keeps it, with another context or after another
    model. Where most requests come so seldom, and each waits for a load of half a minute, that is what makes them slow: the time for which
    a model is kept is too short for who asks.

    llama-swap stops the process of one model to start that of another which its configuration does not let run beside it: by default
    only one runs. Clients that ask for two at once then end each other's requests, too, in older releases. A load after five minutes of
    silence is not counted there either, where the lines have a time.

    ## Fix

    Let all clients ask for one context length, or set it once (`OLLAMA_CONTEXT_LENGTH`, `num_ctx` in the Modelfile). Let the models
    that are used together fit together (smaller context, `OLLAMA_MAX_LOADED_MODELS`, a group of llama-swap with `swap: false`), or serve
    each from a Deployment of its own.

    ## References

    - https://docs.ollama.com/faq
    - https://github.com/mostlygeek/llama-swap/blob/main/config.example.yaml
    """
    if logs is None or not (pod.ready or pod.log_only):
        return
    engines = list(subject.engines(pod))
    for engine in engines:
        yield from _of_ollama(engine, logs)
    for container in pod.containers if not any(engine.name == "ollama" for engine in engines) else ():
        if (found := _swaps(pod, container, logs)) is not None:
            yield found
            return


def _swaps(pod: Pod, container: Container, logs: Logs) -> Finding | None:
    """llama-swap that puts one model in the place of another for request after request."""
    log = logs.current(container.name)
    texts = (_SWAPPED_IN, _WENT_BY_ITSELF, _TO_SWAP) if log is not None and next(log.find(_SWAPPED_IN), None) else ()
    lines = sorted(log.find(*texts), key=lambda line: line.number) if log else []
    requests = [line for line in lines if re.search(_OF_A_MODEL, line.text[:2000])][-_RECENT:]
    if len(requests) < _FEWEST:
        return None
    loads: list[Line] = []
    names: list[str] = []
    last, before, timed = "", lines[0], False
    for line in lines:
        if _WENT_BY_ITSELF in line.text:
            last = ""
        said = re.search(_SWAPPED, line.text[:2000])
        if said is None:
            before = line
            continue
        silence = seconds_between(before, line)
        timed |= silence is not None
        # whoever asks for another model now and then expects to wait for it
        soon = silence is None or silence < _KEPT_SECONDS
        if last and said["model"] != last and soon and line.number > requests[0].number:
            loads.append(line)
            names.append(said["model"])
        last = said["model"]
    if len(loads) < _FEWEST or len(loads) < _SHARE * (len(requests) - 1) or len(set(names)) < 2:
        return None
    return Finding(
        confidence="likely" if timed else "possible",  # without times nobody knows how long it was silent between
        summary=f"llama-swap{'' if pod.log_only else f' in {container.name}'} put one model in the place of another {len(loads)} times "
        f"for its last {len(requests)} requests: {', '.join(names[-4:])}.",
        evidence=(*(log_evidence(line) for line in loads[-2:]), log_evidence(requests[-1])),
        fixes=(
            fixes.advice(
                f"Have {' and '.join(sorted(set(names))[:4])} run together, if the GPU holds them: groups: {{together: {{swap: false, "
                f"members: [{', '.join(sorted(set(names))[:4])}]}}}} in the configuration of llama-swap ({fixes.edited(pod)})"
            ),
            fixes.advice(
                f"Serve each of {', '.join(sorted(set(names))[:4])} from a Deployment of its own, beside {fixes.edited(pod)}"
            ),
        ),
        order=loads[-1].order,
    )


def _of_ollama(engine: Engine, logs: Logs) -> Iterator[Finding]:
    log = logs.current(engine.container.name)
    if log is None or engine.name != "ollama":
        return
    requests = [said for line in log.find("[GIN] ") if (said := answered(line)) is not None][-_RECENT:]
    loads = list(_soon(log, requests, _kept(engine)))
    if (cold := _cold(engine, log, requests, len(loads))) is not None:
        yield cold
        return
    took, cost = sum(request.seconds for request in requests), sum(load.seconds for load in loads)
    if (
        len(loads) < _FEWEST
        or not took
        or cost < (_COST if len(loads) >= _SHARE * (len(requests) - 1) else _MUCH) * took
    ):
        return
    pushed = [load for load in loads if load.evicted is not None]
    wanted = [load for load in loads if load.contexts is not None]
    turns = sum(load.turn or load.evicted is not None for load in loads)
    how = "in the place of another" if turns == len(loads) else f"within {_SOON_SECONDS} s of a request"
    for_nothing = _put_out_for_nothing(engine, log, pushed)
    if len(wanted) > len(loads) / 2:
        how = f"with another context length each time ({_lengths(wanted)})"
    yield Finding(
        summary=f"{engine.at} loaded a model {len(loads)} times {how}, for "
        f"its last {len(requests)} requests: {say_seconds(cost)} of the {say_seconds(took)} that they took"
        f"{'; without a GPU this release puts out what is loaded at every load, whatever is free' if for_nothing else ''}.",
        evidence=(
            *(log_evidence(load.evicted) for load in pushed[-1:] if load.evicted),
            *(log_evidence(load.asked) for load in wanted[-2:] if load.asked),
            *(log_evidence(load.line) for load in (*loads[:1], *loads[-1:])),
        ),
        fixes=(
            *_kept_loaded(
                engine,
                wanted if len(wanted) > len(loads) / 2 else [],
                evicted=bool(pushed),
                turns=turns,
                for_nothing=for_nothing,
            ),
        ),
        order=loads[-1].line.order,
    )


def _put_out_for_nothing(engine: Engine, log: Log, pushed: list[Load]) -> bool:
    """Whether these releases put out a model since there is no GPU, on which the next one can never lie whole."""
    listed = list(log.find(_LISTS))
    without = all("library=cpu" in line.text for line in listed) if listed else not engine.container.accelerators
    told = all(load.evicted is not None and _NO_LAYER in load.evicted.text for load in pushed)
    return bool(pushed) and told and without and engine.at_least(_MENDED) is not True


def _cold(engine: Engine, log: Log, requests: list[Answer], soon: int) -> Finding | None:
    """Most requests wait for a long load, since Ollama drops the model between them: nobody asks for longer than it keeps it."""
    kept = _kept(engine)
    if soon >= _FEWEST or not 0 < kept <= _SELDOM:
        return None  # who keeps it for no time at all wants it gone
    loads: list[tuple[Line, float]] = []
    for line in log.find("llama runner started in"):
        said, before = re.search(_LOADED, line.text), [x for x in requests if x.line.number < line.number]
        # one load may be told twice
        if said is None or not before or (loads and loads[-1][0].number > before[-1].line.number):
            continue
        seconds = float(said[2])
        idle = (datetime.fromisoformat(said[1]) - before[-1].at).total_seconds() - seconds
        if kept <= idle <= _SELDOM:
            loads.append((line, seconds))
    took, cost = sum(request.seconds for request in requests), sum(seconds for _, seconds in loads)
    if (
        len(loads) < _FEWEST
        or len(loads) < _SHARE * (len(requests) - 1)
        or cost < _LONG_LOAD * len(loads)
        or cost < _MUCH * took
    ):
        return None
    return Finding(
        summary=f"{engine.at} loaded its model anew for {len(loads)} of its last {len(requests)} requests, "
        f"{say_seconds(cost / len(loads))} each: it drops a model for which nobody has asked for {say_seconds(kept)}, and the next request "
        "waits for it.",
        evidence=(log_evidence(loads[0][0]), log_evidence(loads[-1][0]), log_evidence(requests[-1].line)),
        fix=fixes.set_env(
            engine.container, "OLLAMA_KEEP_ALIVE", "-1", "Keep a model once it is loaded: OLLAMA_KEEP_ALIVE=-1"
        ),
        order=loads[-1][0].order,
    )


def _kept_loaded(engine: Engine, wanted: list[Load], *, evicted: bool, turns: int, for_nothing: bool) -> Iterator[Fix]:
    """What keeps a model loaded, by why it went: another context, another model, or its time."""
    where = fixes.edited(engine.container.pod)
    if wanted:
        longest = max(max(load.contexts) for load in wanted if load.contexts is not None)
        yield fixes.advice(
            f"Have all clients of {where} ask for one context length: num_ctx {longest}, the largest of theirs"
        )
    elif evicted or turns:
        if for_nothing:
            yield releases.released(engine, _MENDED, exact=True)
            return
        limit = engine.container.env.get("OLLAMA_MAX_LOADED_MODELS")
        if limit is not None and limit.value == "1":
            yield fixes.set_env(
                engine.container,
                "OLLAMA_MAX_LOADED_MODELS",
                "2",
                "Let two models be loaded at once, if the GPU holds both",
            )
        yield fixes.advice(f"Serve each of the models that take turns from a Deployment of its own, beside {where}")
    # one that has to make room for another goes however long it was to be kept
    if not evicted and _kept(engine) < math.inf:
        yield fixes.set_env(
            engine.container, "OLLAMA_KEEP_ALIVE", "-1", "Keep a model once it is loaded: OLLAMA_KEEP_ALIVE=-1"
        )


def _kept(engine: Engine) -> float:
    """For how many seconds a model stays after its last request: Go's notation or a number, and for ever below 0."""
    stated = engine.explicit("keep_alive")
    if stated is None:
        return _KEPT_SECONDS
    text = str(stated.value)
    seconds = float(text) if re.fullmatch(r"-?\d{1,9}", text) else duration(text)
    if seconds is None:
        return _KEPT_SECONDS  # what it cannot read it leaves out
    return math.inf if seconds < 0 else seconds


def _lengths(loads: list[Load]) -> str:
    """The context lengths of loads, the last few."""
    found = [load.contexts for load in loads if load.contexts is not None]
    return ", ".join(map(str, [*(one for one, _ in found[-3:]), *(one for _, one in found[-1:])]))


def _soon(log: Log, requests: list[Answer], kept: float) -> Iterator[Load]:
    """Loads that began soon after a request was answered, or for which another model or context had to go, each once."""
    last: datetime | None = None
    held: dict[str, int] = {}
    turns = _Turns()
    told = sorted(log.find(_RUNNER, _ASKED_TO_LOAD), key=lambda line: line.number)
    read = 0
    gone = sorted(log.find(*_EVICTED), key=lambda line: line.number)
    for line in log.find("llama runner started in"):
        said = re.search(_LOADED, line.text)
        begin = read
        while read < len(told) and told[read].number < line.number:
            read += 1
        mine = told[begin:read]
        contexts, asked = _changed(mine, held)
        before = [request for request in requests if request.line.number < line.number]
        model = next(reversed([found[1] for one in mine if (found := re.search(_MODEL, one.text[:4000]))]), "")
        left = turns.follow(model, before[-1].at if before else None)
        if said is None or not before:
            continue
        at, seconds = datetime.fromisoformat(said[1]), float(said[2])
        again = last is not None and abs((at - last).total_seconds()) <= 1
        evicted = next((x for x in reversed(gone) if before[-1].line.number < x.number < line.number), None)
        idle = (at - before[-1].at).total_seconds() - seconds
        # what was answered last was another model's: since when nobody asks for this one is longer
        turn = left is not None and (at - left).total_seconds() - seconds <= kept
        if not again and (turn or idle <= (_KEPT_SECONDS if evicted else kept if contexts else _SOON_SECONDS)):
            yield Load(line, seconds, evicted, contexts, asked, turn)
        last = at


class _Turns:
    """Which model was loaded last, and when each that another followed was last asked."""

    def __init__(self) -> None:
        self._last, self._left = "", dict[str, datetime]()

    def follow(self, model: str, asked: datetime | None) -> datetime | None:
        """Note that a model is loaded, after a request; when it was last asked itself, where another came between."""
        if not model or model == self._last:
            return None
        if self._last and asked is not None:
            self._left[self._last] = asked
        self._last = model
        return self._left.pop(model, None)


def _changed(lines: list[Line], held: dict[str, int]) -> tuple[tuple[int, int] | None, Line | None]:
    """The context that a model had and the one with which it is loaded now, where they differ; `held` is what each had last."""
    models = [found[1] for line in lines if (found := re.search(_MODEL, line.text[:4000])) is not None]
    sizes = [(line, size) for line in lines if (size := _length(line)) is not None]
    if not models or not sizes:
        return None, None
    had, (line, now) = held.get(models[-1]), sizes[-1]
    held[models[-1]] = now
    return ((had, now), line) if had is not None and had != now else (None, None)


def _length(line: Line) -> int | None:
    """The context length of one request, by a line that says with which a model is loaded."""
    text = line.text[:4000]
    size, at_once = re.search(_CONTEXT, text), re.search(_AT_ONCE, text)
    if size is None:
        return None
    return int(size[1] or size[2]) // max(int(at_once[1]) if at_once else 1, 1)
