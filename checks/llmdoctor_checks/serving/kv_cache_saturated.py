"""A KV cache that is full while requests wait for it."""

import itertools
import math
import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Abstain,
    Engine,
    Evidence,
    Finding,
    Fix,
    Line,
    Logs,
    Metrics,
    Pod,
    Sizing,
    Span,
    Subject,
    check,
    count_of,
    dig,
    engines_in,
    fixes,
    given_shares,
    log_evidence,
    most_gpus,
    say_bytes,
    say_seconds,
    seconds_between,
    served_until,
    shares_of,
    written_ago,
)
from llmdoctor_checks._load import (
    PREEMPTED,
    RETRACTED,
    idle_engines,
    last_load,
    lasts,
    picked,
    preemptions,
    retractions,
    since_when,
    works,
)
from llmdoctor_checks._load import Load as Statement
from llmdoctor_checks.serving._saturation import (
    SUSTAINED_SECONDS,
    Load,
    engines_fix,
    evidence,
    idle_peer,
    load_of,
    more_replicas,
    need_of,
    stands_still,
)

#: From this share on the cache counts as full: a block that is left over fits no request.
_FULL = 0.97

#: The same over time: between two statements a finished request leaves room that the next one takes.
_FULL_OVER_TIME = 0.95

#: Preemptions in this share of the looks, and so many in ten minutes, are no accident.
_OFTEN, _FEWEST_TIMES = 0.5, 10

#: Of so many requests that end, one that is computed twice costs nobody much.
_HARDLY_ANY = 100

#: Another engine of the same server that takes no more of its cache, and has no queue, could serve more.
_ROOM_BESIDE = 0.8

#: So many statements of the engine are looked at, at least, and a queue that shrinks by this factor meanwhile is being worked off.
_FEWEST_STATEMENTS, _DRAINS = 4, 0.75

#: Three statements of vLLM that stand so far apart are those that somebody picked from its log, and their queue is no burst.
_CUT_DOWN_SECONDS = 110

#: So many statements back a pace is compared with the one of now: SGLang makes one a second.
_STATEMENTS = 360

#: So many wait at the last of a few statements that a report quotes.
_FEWEST_QUOTED = 2

#: Fewer than one for so many that run wait for a moment, as batching goes.
_FEW_OF = 10

#: Requests that were put back have room again after less, as a rule.
_LONG_BACK = 20

#: Who was put back is in service again at once, as a rule; where others compute so much less since, all of them suffer.
_SLOWER = 4

#: Of each request the same, from a cache with room to a full one, in so many statements: a GPU that gives each its share is not so uneven.
_EACH_SLOWER, _FEWEST_FULL = 3, 3

#: For so long nothing is computed, at least: less is a pause.
_STANDS_STILL = 60

#: What vLLM prints while it reads no prompt; the share of the cache that a few running requests then hold, at least, and how many
#: times as many wait.
_NO_PROMPT, _HALF, _TIMES_AS_MANY = "Avg prompt throughput: 0.0 tokens/s", 0.5, 4

#: vLLM's first engine prints its first preemption and each fiftieth; where nothing else tells, so many of these lines, so far apart, say
#: that it goes on. It is over where twice the time has passed that the fifty before took, and some minutes.
_FEWEST_TOLD, _EACH, _TOLD_SECONDS, _TOLD_LATELY = 3, 100, 120, 600

#: What stands before the share of the cache in a statement of vLLM, behind the numbers of requests.
_CACHE = "KV cache usage: "

#: vLLM takes 0.9 of a GPU's memory, in releases of late 0.92; who gave it so little left most of it to nobody, or to a neighbour.
_SMALL_SHARE = 0.45

#: A cache that somebody gave no more of its GPU than this share could be larger, as a rule.
_SMALL_CACHE = 0.25

#: The option for the number of requests at once; below so many that run it is no matter of that. What of those that run has room all the
#: time is so much. Where one is preempted for two that end, more is thrown away than waiting would cost.
_AT_ONCE = {"vllm": "--max-num-seqs", "sglang": "--max-running-requests"}
_MANY, _KEPT, _THRASHES = 16, 0.9, 0.5

#: What TensorRT-LLM's scheduler is told (`llmapi/llm_args.py`, CapacitySchedulerPolicy), beside GUARANTEED_NO_EVICT and STATIC_BATCH.
_EVICTS = "MAX_UTILIZATION"

#: How a model is divided among GPUs, and what else of an engine is.
_TENSOR = {"vllm": "--tensor-parallel-size", "sglang": "--tp-size"}
_PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")

#: So many prompt tokens say how well the prefix cache does.
_ENOUGH_TOKENS = 100_000


@check("kv-cache-saturated", since="0.2", severity="warning", literals=(PREEMPTED, RETRACTED))
def kv_cache_saturated(
    pod: Pod, engine: Engine, logs: Logs | None, metrics: Metrics | None, subject: Subject
) -> Iterator[Finding | Abstain]:
    """The KV cache is full, and requests wait for room in it.

    Every token of every running request has its place in the KV cache. When it is full, new requests wait although the GPU
    could compute more of them at once, and running ones are preempted: their cache is thrown away and computed again later.
    Both make answers slow, and preemption makes the server slower the busier it is. Preemptions that go on while requests wait
    prove it, however full the cache is between them.

    It is judged by the engine's metrics over ten minutes and more (`vllm:kv_cache_usage_perc`, `sglang:token_usage`, …), or
    by what it prints of itself. A cache that is full while nobody waits is well used. A batch that was handed in at once
    fills the cache until it is done, and its queue shrinks. Where a few requests hold most of the cache and none of many others is
    begun for minutes, that is possible, too.

    Prompts that begin alike share their cache. Where hardly any token is found there although prompts have a common beginning,
    it is often that the beginning holds a date or a user's name, or that a router sends the same conversation to another
    replica each time.

    ## Fix

    Make the cache larger (`--gpu-memory-utilization` as far as it goes, an fp8 cache, more GPUs), shorten what one request
    may take (`--max-model-len`), or add replicas. Where the weights take more of the only GPU than the cache, and the cache holds less
    than two requests of full length, a second GPU for the same server (`--tensor-parallel-size 2`) gives it more room than a second
    replica: the weights are there once. Where requests are preempted all the time, fewer at once (`--max-num-seqs`) take less work:
    who waits for a place costs nothing, and who is preempted is computed again. So it is with TensorRT-LLM's policy MAX_UTILIZATION.

    ## References

    - https://docs.vllm.ai/en/latest/configuration/optimization/#preemption
    - https://docs.sglang.ai/advanced_features/hyperparameter_tuning.html
    """
    if not (pod.ready or pod.log_only) or engine.container.engine_dead:
        return
    if metrics is not None and stands_still(engine, metrics):
        return
    load, sizing = load_of(metrics), subject.sizing(engine)
    if metrics is not None and load is not None and load.cache is not None:
        found = list(_over_time(pod, sizing, metrics, load, load.cache))
        said = since_when(last_load(engine.container, logs), lambda one: one.waiting > 0) if not found else []
        if lasts(said) and works(pod, said) and (none := _none_begun(pod, engine, said)) is not None:
            found = [none]
        yield from found
    elif logs is not None and (found := list(_by_log(pod, sizing, logs))):
        yield from found
    elif metrics is not None:
        yield from _at_once(pod, sizing, metrics)
    elif logs is not None:
        return
    elif pod.exists:
        yield Abstain(reason="no log and no metrics of its load over ten minutes were read")


def _over_time(pod: Pod, sizing: Sizing, metrics: Metrics, load: Load, whole: Span) -> Iterator[Finding]:
    full, times = load.full(_FULL_OVER_TIME), _preempted(metrics)
    if not (full or times) or not load.queues or load.drains:
        return
    cache = whole.tail(SUSTAINED_SECONDS)
    filled = f"{cache.mean:.0%} full for {say_seconds(cache.seconds)} or longer"
    if not full:
        filled = (
            f"{cache.mean:.0%} full on average of {say_seconds(cache.seconds)}, and {max(cache.values):.0%} at most"
        )
    lost, shown = "", tuple[Evidence, ...]()
    if times:
        lost = f", and running ones were preempted for lack of room, {count_of(times, 'time')} in {say_seconds(cache.seconds)}"
        text = f"{metrics.name_of('preemptions')}: +{times} in {say_seconds(cache.seconds)}"
        shown = (Evidence(source="metric", ref=whole.source, text=text),)
    hits, queries = metrics.increase("prefix_hits"), metrics.increase("prefix_queries")
    if hits is not None and queries is not None and queries.amount >= _ENOUGH_TOKENS and not queries.lifetime:
        share = f"{hits.amount / queries.amount:.0%} of {queries.amount:.0f} prompt tokens were found in it"
        shown += (Evidence(source="metric", ref=whole.source, text=f"{metrics.name_of('prefix_hits')}: {share}"),)
        lost += f". Of its prompt tokens {hits.amount / queries.amount:.0%} were in the prefix cache"
    spread, need = idle_peer(metrics, load), need_of(metrics, load)
    if spread is not None:
        lost += f". Meanwhile {spread.name} runs {max(spread.running.values):.0f} at most, and has no queue"
        shown += (spread.running.evidence(),)
    more = f"; {need.text}: {need.replicas} replicas instead of {need.now} take it" if need else ""
    yield Finding(
        # a full cache with a queue that stays as it is may be what somebody wants: a worker for batches
        confidence="likely" if times or load.grows or spread else "possible",
        summary=f"The KV cache of {sizing.engine.container.name} has been {filled}; "
        f"{load.waiting.last:.0f} requests wait for room while {load.running.last:.0f} run{lost}.",
        evidence=(*evidence(load), *shown),
        explains=("queue-growing", "gateway-timeout"),
        fixes=(spread.fix,)
        if spread
        else _fixes(pod, sizing, more, *_fewer_at_once(sizing.engine, metrics, load, times)),
    )


def _fewer_at_once(engine: Engine, metrics: Metrics, load: Load, times: int) -> tuple[Fix | None, bool]:
    """A limit of requests at once that the cache has room for, where running ones are preempted; and whether most of them are."""
    option, finished = _AT_ONCE.get(engine.name), metrics.increase("finished")
    running = load.recent.running
    wanted = math.floor(_KEPT * running.mean / 8) * 8 if running.mean >= _MANY else 0
    told = engine.explicit("max_num_seqs")
    if option is None or not times or not wanted or (told and isinstance(told.value, int) and told.value <= wanted):
        return None, False
    rate = times / max(running.seconds, 1)
    often = finished is not None and not finished.lifetime and rate >= _THRASHES * finished.rate
    summary = (
        f"Have {engine.container.name} run {wanted} requests at once at most ({option} {wanted}): the cache has room for about "
        f"{running.mean:.0f}, and one that waits costs nothing, where one that is preempted is computed again"
    )
    return fixes.set_flag(engine, "max_num_seqs", option, str(wanted), summary), often


def _at_once(pod: Pod, sizing: Sizing, metrics: Metrics) -> Iterator[Finding]:
    """One look at the metrics port, or a few close together: full, somebody waits, and it has happened often since the start."""
    waiting, running, cache = metrics.span("waiting"), metrics.span("running"), metrics.cache
    grown = metrics.increase("preemptions")
    if waiting is None or cache is None or grown is None or grown.amount < _FEWEST_TIMES:
        return
    if min(waiting.values) < 1 or min(cache.values) < _FULL:
        return
    # of two looks that are far apart nobody knows how it was between them, but for what was counted
    rates = metrics.rates("preemptions")
    if waiting.seconds > SUSTAINED_SECONDS and rates is not None and rates.last * SUSTAINED_SECONDS < _FEWEST_TIMES:
        return
    since = "since the server started" if grown.lifetime else f"in {say_seconds(grown.seconds)}"
    times = count_of(round(grown.amount), "time")
    beside = f" while {running.last:.0f} run" if running is not None else ""
    yield Finding(
        confidence="possible",
        summary=f"The KV cache of {sizing.engine.container.name} is {cache.last:.0%} full, {waiting.last:.0f} requests wait for room"
        f"{beside}, and running ones were preempted for lack of room, {times} {since}.",
        evidence=(
            cache.evidence(lambda n: f"{n:.0%}"),
            waiting.evidence(),
            Evidence(
                source="metric",
                ref=metrics.source,
                text=f"{metrics.name_of('preemptions')}: +{grown.amount:.0f} {since}",
            ),
        ),
        explains=("queue-growing", "gateway-timeout"),
        fixes=_fixes(pod, sizing, ""),
    )


def _preempted(metrics: Metrics) -> int:
    """How often running requests lost their room all through the end of the window; 0 where that was now and then.

    An engine preempts when a running request needs a block and there is none. In a small cache what it frees that way is
    a good part of the whole, so that the cache is seldom full when somebody looks.
    """
    rates = metrics.rates("preemptions")
    recent = rates.tail(SUSTAINED_SECONDS) if rates else None
    if recent is None or recent.seconds < SUSTAINED_SECONDS * 0.9 or recent.share(lambda rate: rate > 0) < _OFTEN:
        return 0
    finished = metrics.increase("finished")
    if finished is not None and not finished.lifetime and recent.mean * _HARDLY_ANY < finished.rate:
        return 0
    times = round(recent.mean * recent.seconds)
    return times if times >= _FEWEST_TIMES else 0


def _by_log(pod: Pod, sizing: Sizing, logs: Logs) -> Iterator[Finding]:
    """The engine's own statements: a cache that stays full while requests wait, or that took room from running ones."""
    engine = sizing.engine
    said = last_load(engine.container, logs)
    if not said and (found := _preempted_alone(pod, sizing, logs)) is not None:
        yield found
        return
    put_back, since = _put_back(engine, logs, said)
    if (found := _none_has_room(pod, engine, said)) is not None:
        yield found
        return
    recent = said
    said = since or since_when(said, lambda load: load.waiting > 0)
    if not said or not works(pod, said):
        return
    lasting, while_full = lasts(said), since_when(said, lambda load: load.cache >= _FULL)
    if lasts(while_full):
        said = while_full
    if lasting and (found := _none_begun(pod, engine, said)) is not None:
        yield found
        return
    last, times = said[-1], _preempted_by_log(engine, logs, said)
    full = all(load.cache >= _FULL for load in said)
    before = _before_it_slowed(recent, said) or _before_it_was_full(recent)
    quoted = picked(engine.container, logs) and _full_as_quoted(recent)
    if not (
        quoted
        or (full and (lasting or _more_than_a_burst(engine, logs, said)))
        or times
        or put_back is not None
        or before is not None
    ):
        return
    if _worked_off(said, preempted=times is not None):
        return
    others = idle_engines(engine.container, logs, said, _ROOM_BESIDE) if full and lasting else []
    lost = _what_is_lost(last, times, put_back, before)
    yield Finding(
        confidence="likely" if (full and lasting) or times else "possible",
        summary=_in_words(engine, said, lost, others, full=full),
        evidence=tuple(log_evidence(load.line, _CACHE) for load in {id(one): one for one in (said[0], last)}.values())
        + ((log_evidence(lost[1]),) if lost else ()),
        explains=("queue-growing", "gateway-timeout"),
        fixes=(engines_fix(pod),) if others else _fixes(pod, sizing, ""),
        order=last.line.order,
    )


def _more_than_a_burst(engine: Engine, logs: Logs, said: list[Statement]) -> bool:
    """Whether a few statements show more than a burst: a queue that is longer than what runs, for which whoever waits has to wait.

    A log that was cut down shows fewer of them, and then the engine's own word that the cache is full counts as one.
    """
    first, last = said[0], said[-1]
    if len(said) > 2 and first.waiting < last.waiting and last.waiting >= last.running and _cut_down(engine, said):
        return True
    enough = len(said) >= _FEWEST_STATEMENTS or (
        len(said) > 1
        and len(said) + len(retractions(engine.container, logs)) > _FEWEST_STATEMENTS
        and first.waiting <= last.waiting
    )
    return enough and all(load.waiting >= load.running for load in said)


def _preempted_alone(pod: Pod, sizing: Sizing, logs: Logs) -> Finding | None:
    """An engine that says nothing of its load (--disable-log-stats, or a log of warnings alone) and counts its preemptions on and on."""
    engine = sizing.engine
    said = preemptions(engine.container, logs)
    again = [at for at in range(1, len(said)) if said[at][1] < said[at - 1][1]]  # another engine, or a start anew
    said = said[again[-1] :] if again else said
    if len(said) < _FEWEST_TOLD:
        return _preempted_as_quoted(pod, sizing, logs, said)
    (first, before), (last, times) = said[0], said[-1]
    seconds = seconds_between(first, last) or 0
    if times - before < _EACH or seconds < _TOLD_SECONDS or times - before < seconds / 60:
        return None
    pace = seconds_between(said[-2][0], last) or 0
    if (written_ago(last, pod.cluster.now) or 0) > max(_TOLD_LATELY, 2 * pace):
        return None
    return Finding(
        confidence="possible",
        summary=f"{engine.container.name or engine.title} preempted running requests for lack of room in its KV cache, "
        f"{count_of(times - before, 'time')} in {say_seconds(seconds)}, and computes again what they had.",
        evidence=(log_evidence(first), log_evidence(last)),
        explains=("queue-growing", "gateway-timeout"),
        fixes=_fixes(pod, sizing, ""),
        order=last.order,
    )


def _preempted_as_quoted(pod: Pod, sizing: Sizing, logs: Logs, said: list[tuple[Line, int]]) -> Finding | None:
    """A report that quotes one or two of these warnings, by which it had happened again and again."""
    engine = sizing.engine
    if not said or said[-1][1] < _EACH or not picked(engine.container, logs):
        return None
    last, times = said[-1]
    ran = served_until(last, engine.container)
    if ran is not None and times < ran / 60:
        return None
    return Finding(
        confidence="possible",
        summary=f"{engine.container.name or engine.title} has preempted running requests for lack of room in its KV cache, "
        f"{count_of(times, 'time')} since it started, and computes again what they had.",
        evidence=(log_evidence(last),),
        explains=("queue-growing", "gateway-timeout"),
        fixes=_fixes(pod, sizing, ""),
        order=last.order,
    )


def _full_as_quoted(said: list[Statement]) -> bool:
    """Whether each of the few statements that a report quotes shows a full cache, and the queue grows no shorter."""
    first, last = said[0], said[-1]
    least = max(first.waiting, _FEWEST_QUOTED, last.running / _FEW_OF)
    return last.waiting >= least and all(one.cache >= _FULL_OVER_TIME for one in said)


def _cut_down(engine: Engine, said: list[Statement]) -> bool:
    """Whether a few statements of vLLM, which makes one every ten seconds as long as anything runs, stand for minutes."""
    return engine.name == "vllm" and (seconds_between(said[0].line, said[-1].line) or 0) >= _CUT_DOWN_SECONDS


def _in_words(
    engine: Engine, said: list[Statement], lost: tuple[str, Line] | None, others: list[str], *, full: bool
) -> str:
    last = said[-1]
    before = f", and was so in its last {count_of(len(said), 'statement')}" if full and len(said) > 1 else ""
    beside = f". Meanwhile {count_of(len(others), 'other engine')} of the same server had room and no queue"
    return (
        f"The KV cache of {engine.container.name or engine.title} is {last.cache:.0%} full{before}; {last.running} requests run and "
        f"{last.waiting} wait{lost[0] if lost else ''}{beside if others else ''}."
    )


def _worked_off(said: list[Statement], *, preempted: bool) -> bool:
    """Whether nobody comes, and what was handed in at once is being worked off."""
    third = max(len(said) // 3, 1)
    early, late = (sum(load.waiting for load in part) for part in (said[:third], said[-third:]))
    falls = said[0].waiting > said[-1].waiting and all(a.waiting >= b.waiting for a, b in itertools.pairwise(said))
    return late < _DRAINS * early or (falls and not preempted)


def _what_is_lost(
    last: Statement, times: tuple[int, float, Line] | None, put_back: Line | None, before: Statement | None
) -> tuple[str, Line] | None:
    """What the full cache costs, as a sentence that follows, and the line that says so."""
    if times:
        often = f"{count_of(times[0], 'time')} in {say_seconds(times[1])}"
        return f". Running ones were preempted for lack of room, {often}", times[2]
    if put_back is not None:
        return ". It ran out of room, and what it then put back waits since", put_back
    if before is not None:
        slower = f"{last.made} tokens/s, where it was {before.made} before"
        return f". Since some wait, all of them get {slower}", before.line
    return None


def _none_begun(pod: Pod, engine: Engine, said: list[Statement]) -> Finding | None:
    """vLLM has begun none of those that wait, for minutes, beside a few that hold most of the cache.

    It begins a waiting request as soon as there is room for it and as long as fewer run than may. What waits for something
    else (a grammar, an adapter, a cache from elsewhere) looks the same, so that it is a guess.
    """
    first, last = said[0], said[-1]
    limit = engine.explicit("max_num_seqs")
    limited = limit is not None and isinstance(limit.value, int) and limit.value <= last.running
    if engine.announced and engine.get("max_num_seqs") is None:
        return None  # the script that starts it may have told it how many
    if limited or not all(_NO_PROMPT in load.line.text and load.tokens for load in said):
        return None
    if any(load.cache < _HALF or load.waiting < _TIMES_AS_MANY * load.running or not load.running for load in said):
        return None
    if last.waiting < first.waiting or all(load.cache >= _FULL for load in said):
        return None  # it is worked off, or full by its own word
    seconds = seconds_between(first.line, last.line) or 0
    return Finding(
        confidence="possible",
        summary=f"{last.waiting} requests wait in {engine.container.name or engine.title}, and in {say_seconds(seconds)} none of them "
        f"was begun (no prompt was read): {last.cache:.0%} of the KV cache is taken by {count_of(last.running, 'running one')}, and "
        "what is left may be too little for the next.",
        evidence=(log_evidence(first.line, _CACHE), log_evidence(last.line, _CACHE)),
        explains=("queue-growing", "gateway-timeout"),
        fix=fixes.advice(
            f"Cap what one request may take: max_tokens of the clients, and a lower {engine.called('max_model_len')} in "
            f"{fixes.edited(pod)}. Those that "
            "wait begin when one that runs ends, or is given up by its client; more cache (kubectl llmdoctor fit says how much) lets "
            "them begin beside it"
        ),
        order=last.line.order,
    )


def _preempted_by_log(engine: Engine, logs: Logs, said: list[Statement]) -> tuple[int, float, Line] | None:
    """How often requests lost their room lately by the engine's own count, in how many seconds, and the line that says so."""
    told = preemptions(engine.container, logs) or retractions(engine.container, logs)
    near = [one for one in told if (seconds_between(one[0], said[-1].line) or 0) <= SUSTAINED_SECONDS]
    if len(near) == 1 and len(told) > 1:
        near = told[-2:]  # vLLM says it once in fifty times
    if len(near) < 2:
        return None
    (first, before), (line, count) = near[0], near[-1]
    seconds = seconds_between(first, line)
    if seconds is None or (count - before) * SUSTAINED_SECONDS < _FEWEST_TIMES * max(seconds, SUSTAINED_SECONDS):
        return None
    return count - before, seconds, line


def _put_back(engine: Engine, logs: Logs, said: list[Statement]) -> tuple[Line | None, list[Statement]]:
    """The line by which SGLang last put requests back, and the statements since, where some have waited in all of them.

    As a rule they get their room within seconds, when another request has ended.
    """
    told = [line for line, _ in retractions(engine.container, logs)]
    longer = last_load(engine.container, logs, _STATEMENTS) if told else []
    for line in told:
        since = [load for load in longer if load.line.number > line.number]
        before = [load for load in longer if load.line.number < line.number]
        if _slower_since(before, since):
            return line, [*before[-1:], *since]
    for line in told[-1:]:
        since = [load for load in said if load.line.number > line.number]
        if len(since) < _FEWEST_STATEMENTS or not all(load.waiting for load in since):
            break
        first, last = (seconds_between(line, load.line) for load in (since[0], since[-1]))
        if first is not None and last is not None and first <= SUSTAINED_SECONDS and last >= _LONG_BACK:
            return line, since
    return None, []


def _slower_since(before: list[Statement], since: list[Statement]) -> bool:
    """Whether the cache was full before, requests have waited ever since, and all together make a fraction of what they made."""
    if not before or len(since) < 2 or before[-1].cache < _FULL or not all(load.waiting for load in (*before, *since)):
        return False
    paces = [[load.tokens for load in part if load.tokens is not None] for part in (before, since)]
    return all(paces) and max(paces[1]) * _SLOWER <= max(paces[0])


def _before_it_slowed(recent: list[Statement], said: list[Statement]) -> Statement | None:
    """vLLM's last statement before the queue, where about as many have run since in a full cache, and make a fraction of it.

    V1 prints nothing when it preempts. What it throws away and computes again shows neither as a prompt nor as an answer.
    """
    before = recent[: len(recent) - len(said)][-1:]
    if (
        not before
        or len(said) < _FEWEST_STATEMENTS
        or any(load.cache < _FULL or load.read for load in (*before, *said))
    ):
        return None
    if 2 * min(load.running for load in said) < before[0].running:
        return None
    paces = [load.made for load in (*before, *said) if load.made is not None]
    return before[0] if len(paces) > len(said) and max(paces[1:]) * _SLOWER <= paces[0] else None


def _before_it_was_full(recent: list[Statement]) -> Statement | None:
    """vLLM's last statement before its cache was full, where each request since has made a fraction of what each of about as many made."""
    full = since_when(recent, lambda load: load.cache >= _FULL)
    before = recent[: len(recent) - len(full)][-1:]
    compared = (*before, *full)
    if not before or len(full) < _FEWEST_FULL or not full[-1].waiting or any(load.read for load in compared):
        return None
    if 2 * before[0].running < max(load.running for load in full):
        return None
    paces = [load.made / load.running for load in compared if load.made is not None and load.running]
    return before[0] if len(paces) == len(compared) and max(paces[1:]) * _EACH_SLOWER <= paces[0] else None


def _none_has_room(pod: Pod, engine: Engine, said: list[Statement]) -> Finding | None:
    """vLLM's first engine with a full cache, and nothing that runs: what was swapped out or waits finds no room for its next block."""
    still = since_when(said, lambda load: load.cache >= _FULL and not load.running and not load.tokens)
    seconds = seconds_between(still[0].line, still[-1].line) if len(still) > 1 else None
    if engine.name != "vllm" or seconds is None or seconds < _STANDS_STILL or "Swapped: " not in still[-1].line.text:
        return None
    last = still[-1]
    swapped = re.search(r"Swapped: (\d{1,9}) reqs?", last.line.text)
    return Finding(
        severity="critical",
        summary=f"The KV cache of {engine.container.name or engine.title} has been {last.cache:.0%} full for {say_seconds(seconds)} "
        f"and nothing runs: {swapped[1] if swapped else 0} swapped out and {last.waiting} waiting requests find no room in it.",
        evidence=(log_evidence(still[0].line, _CACHE), log_evidence(last.line, _CACHE)),
        explains=("queue-growing", "engine-stalled"),
        fix=fixes.advice(
            f"Restart it, and cap the length of a request ({engine.called('max_model_len')}) at what the cache holds, or give it "
            f"more room, in {fixes.edited(pod)} (kubectl llmdoctor fit says how much)"
        ),
        order=last.line.order,
    )


def _fixes(pod: Pod, sizing: Sizing, more: str, fewer: Fix | None = None, often: bool = False) -> tuple[Fix, ...]:
    """Replicas, or more memory for the cache; by what says how many it takes, else twice as many.

    Where requests are preempted as often as every second one ends, `often`, fewer at once come first.
    """
    need = re.search(r"(\d{1,6}) replicas instead of (\d{1,6}) take it", more)
    times = int(need[1]) / max(int(need[2]), 1) if need else 2
    return (
        *_larger_share(pod, sizing.engine),
        *_whole_share(pod, sizing),
        *_without_eviction(pod, sizing.engine),
        *((fewer,) if fewer and often else ()),
        *(_second_gpu(pod, sizing) if times <= 2 else ()),
        more_replicas(pod, times, more.removeprefix("; ") or "each has a cache of its own"),
        *((fewer,) if fewer and not often else ()),
        fixes.advice(
            f"Give the cache of {fixes.edited(pod)} more memory: kubectl llmdoctor fit says how much it takes"
        ),
    )


def _larger_share(pod: Pod, engine: Engine) -> Iterator[Fix]:
    """Twice the share of the GPU's memory, where somebody gave vLLM less than half of what it takes by itself."""
    share = engine.explicit("gpu_memory_utilization")
    if engine.name != "vllm" or share is None or not isinstance(share.value, int | float) or len(engines_in(pod)) != 1:
        return
    if _shares_its_gpu(pod, engine):
        return
    if 0 < share.value <= _SMALL_SHARE:
        twice = f"{2 * share.value:.4g}"
        yield fixes.set_flag(
            engine,
            share.name,
            "--gpu-memory-utilization",
            twice,
            f"Raise --gpu-memory-utilization from {share.value} to {twice}: all that is added is cache, as far as nothing else takes the "
            "rest of the memory",
        )


def _whole_share(pod: Pod, sizing: Sizing) -> Iterator[Fix]:
    """What gpu-memory-utilization leaves, where somebody gave vLLM's cache a size that is a small part of its GPU."""
    engine, gpu = sizing.engine, sizing.accelerator.gpu if sizing.accelerator else None
    size = engine.explicit("kv_cache_memory_bytes")
    if engine.name != "vllm" or gpu is None or size is None or not isinstance(size.value, int):
        return
    if len(engines_in(pod)) != 1 or _shares_its_gpu(pod, engine) or not 0 < size.value <= _SMALL_CACHE * gpu.memory:
        return
    yield fixes.remove_flag(
        engine,
        size.name,
        f"Take {size.flag} away: it keeps the cache at {say_bytes(size.value)} on a GPU of {say_bytes(gpu.memory)}, and without it the "
        "cache has what --gpu-memory-utilization leaves beside the weights",
    )


def _without_eviction(pod: Pod, engine: Engine) -> Iterator[Fix]:
    """TensorRT-LLM's policy that begins what it has room for to the end, where it is told to begin more, and to pause some again."""
    policy = engine.explicit("capacity_scheduler_policy")
    if policy is None or str(policy.value).upper() != _EVICTS:
        return
    default = "guaranteed_no_evict" if str(policy.value).islower() else "GUARANTEED_NO_EVICT"
    yield fixes.advice(
        f"Have {engine.container.name} begin only what its cache has room for up to its end: {policy.flag.rpartition('.')[2]} {default} in "
        f"{policy.path} of {fixes.edited(pod)}; by {policy.value} it begins more, and throws away what running ones have computed"
    )


def _second_gpu(pod: Pod, sizing: Sizing) -> Iterator[Fix]:
    """The same server on two GPUs, where its cache is less than its weights on one, and holds less than two requests of full length.

    A second replica takes a GPU as well, and most of it for the same weights once more: two caches, of which none holds a second long
    request either. Of latent attention, and of a single KV head, each GPU has the whole cache.
    """
    engine, measured, length = sizing.engine, sizing.printed.measured, sizing.engine.value("max_model_len")
    flag, gpu = _TENSOR.get(engine.name), sizing.accelerator.gpu if sizing.accelerator else None
    weights = measured.weights.low if measured.weights else 0
    cache = measured.cache.low if measured.cache else gpu.memory - weights if gpu else None
    if not flag or cache is None or not measured.tokens or not isinstance(length, int) or len(engines_in(pod)) != 1:
        return
    if not length <= measured.tokens < 2 * length or not 0 < cache <= weights:
        return
    alone = engine.container.gpus == 1 and all(engine.value(name) in (None, 1) for name in _PARALLEL)
    kept = sizing.model[0].caches or () if sizing.model else ()
    whole = any(one.kind == "latent" or (one.kind != "state" and one.heads < 2) for one in kept)
    if not alone or whole or _shares_its_gpu(pod, engine) or most_gpus(engine.container) < 2 or sizing.splits(2) != 2:
        return
    yield fixes.set_flags(
        engine,
        [("tensor_parallel_size", flag, "2")],
        f"Give {engine.container.name} 2 GPUs instead of 1 ({flag} 2): beside {say_bytes(weights)} of weights its cache holds "
        f"{measured.tokens} tokens, {measured.tokens / length:.1f} requests of full length, and then at least three times as many",
        gpus="2",
    )


def _shares_its_gpu(pod: Pod, engine: Engine) -> bool:
    """Whether others may have memory of the same GPU: the device plugin gives it to several pods, or a part of it to each."""
    node = pod.cluster.item("Node", "", str(dig(pod.item.raw, "spec.nodeName"))) if pod.item is not None else None
    parts = any(name.endswith(".shared") for name in engine.container.accelerators)
    return parts or bool(given_shares(pod.annotations)) or (node is not None and shares_of(node.labels) > 1)
