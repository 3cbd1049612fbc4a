"""Requests that wait, and more and more of them."""

import math
import re
from collections.abc import Iterator
from datetime import timedelta

import msgspec

from kubectl_llmdoctor.api import (
    Abstain,
    Cluster,
    Engine,
    Evidence,
    Finding,
    Fix,
    Line,
    Logs,
    Metrics,
    Pod,
    Span,
    Subject,
    check,
    count_of,
    dig,
    expression,
    fixes,
    log_evidence,
    parse_time,
    say_seconds,
    seconds_between,
    written_ago,
)
from llmdoctor_checks._clients import refused
from llmdoctor_checks._load import RECENT, idle_engines, last_load, lasts, picked, since_when, works
from llmdoctor_checks._load import Load as Said
from llmdoctor_checks.serving._answers import Answer, answered
from llmdoctor_checks.serving._autoscaling import scalers
from llmdoctor_checks.serving._held_back import FULL, held_back, queue_full
from llmdoctor_checks.serving._pickers import SHED, refused_by
from llmdoctor_checks.serving._saturation import (
    SUSTAINED_SECONDS,
    Load,
    engines_fix,
    evidence,
    idle_peer,
    limit_of,
    load_of,
    more_replicas,
    need_of,
    place_of_replicas,
    spread_fix,
    stands_still,
    with_replicas,
)

#: So many requests wait at the end, at least: fewer are a burst.
_LEAST = 10

#: An engine that runs so much more at the last of a few statements has not all in service that it can have.
_STILL_RISES = 1.1

#: Where few run at once, so many wait for several turns.
_LEAST_OF_FEW, _TURNS = 4, 3

#: The queue grows where its last third of statements counts more than its first by this factor.
_GROWS = 1.5

#: What was printed in an hour tells of a queue that grows slowly; one that has come down again by this share is worked off.
_STATEMENTS, _COMES_DOWN = 360, 0.75

#: So many requests that were refused, and this share of all, are no chance.
_FEWEST_REFUSED, _SHARE_REFUSED = 5, 0.05

#: Two looks so far apart that both show a queue here and none there are no chance.
_NO_BURST_SECONDS = 110

#: Ollama's own words for the number of requests that it runs at once, and the chain of requests, each begun before the one before
#: it was answered, of which the last waits so many times as long as the first took, and for so long, at least.
_ONE_AT_A_TIME, _CHAIN, _TIMES, _WAITS_SECONDS = "OLLAMA_NUM_PARALLEL:1 ", 4, 3, 60

#: So many requests say how long they wait; a cache so full all the time has no room for the next one.
_ENOUGH_REQUESTS, _FULL = 100, 0.9

#: Where no more of the cache is taken it is no matter of room.
_ROOM = 0.5

#: So many adapters cost hardly any memory beside each other.
_FEW_ADAPTERS = 8

#: SGLang (`model_runner`, at its start), of a model part of whose layers keep a state of each request: there are places for so many.
_STATES = "is capped to "
_CAPPED = expression(
    r"max_running_requests is capped to (?P<most>\d{1,6}) by the mamba state cache "
    r"\(max_mamba_cache_size=(?P<size>\d{1,9}), (?P<each>\d{1,4}) state slots per request\)"
)
_TOKENS = expression(r"\btoken usage: (\d(?:\.\d{1,4})?)")

#: So few slots of llama-server are a choice for one user; it gets so many times as many, where that makes no more tokens than a GPU may
#: hold the cache of.
_FEW_SLOTS, _MORE, _MOST_TOKENS = 2, 4, 131_072

#: What an endpoint picker drops for want of room.
_SHEDS = r"inference (?:gateway|error): \w{1,60} - (?:system saturated, sheddable|request timed out in queue: |.{0,200}queue at capacity)"

#: Text Generation Inference says of each request how long it took in all, waited and was computed. So many of the last ones are looked
#: at, and as long a wait each is long; what was said longer ago says nothing of now.
_QUEUED, _REQUESTS, _STATEMENTS_OF_A_THIRD, _LONG_WAIT, _LATELY = "queue_time=", 30, 4, 20, 300
_SECONDS = r'="(\d{1,9}(?:\.\d{1,9})?)s"'
_TOOK = expression(rf"total_time{_SECONDS} .{{0,200}}?queue_time{_SECONDS} inference_time{_SECONDS}")


#: Who waits in a queue that grows is given up at last, however long somebody waits.
_LATE_ANSWERS = ("gateway-timeout",)


@check("queue-growing", since="0.2", severity="warning", literals=(_ONE_AT_A_TIME, *SHED, _QUEUED, FULL, _STATES))
def queue_growing(
    pod: Pod, engine: Engine, subject: Subject, cluster: Cluster, logs: Logs | None, metrics: Metrics | None
) -> Iterator[Finding | Abstain]:
    """More requests come in than the engine can serve, and the queue grows.

    An engine runs as many requests at once as its cache and its limits allow; the others wait. A short queue is how batching
    works. A queue that grows for minutes means that requests arrive faster than they are served: each one waits longer than
    the one before, until clients give up or the engine refuses (Ollama beyond `OLLAMA_MAX_QUEUE`, Text Generation Inference
    beyond `MAX_CONCURRENT_REQUESTS`, SGLang beyond `--max-queued-requests`).

    It is judged by the engine's metrics over ten minutes and more, or by what it prints of itself; a burst, a pod that has
    just started and a batch that is being worked off are none. How many replicas it takes follows from Little's law: the
    requests that arrive in a second, times the seconds that each is in service, divided by how many one replica has in
    service at once. Where no gauge says how many wait, how long they waited does (TensorRT-LLM's histogram, what Text Generation
    Inference prints of each request). Where a proxy lets few through at once, the queue is there, and the engine has none: Knative's
    `containerConcurrency`, the limits of a router. An endpoint picker that drops requests says it, too. A second replica does not help
    where the load is not spread: then one replica, or one of a server's data parallel engines, has a queue and the other none.

    ## Fix

    Add replicas, and scale on the number of waiting requests (`hpa-wrong-metric` says how). Limit what one client may send. Where
    the KV cache is full, see `kv-cache-saturated` first. Where it is not, and as many requests run as the engine may run at
    once, raise that limit (`--max-num-seqs`). vLLM takes requests of `--max-loras` adapters (1 by default) into a batch, SGLang's hybrid
    models as many requests as there are places for their states: where few run beside an empty cache, that is what they wait for.

    ## References

    - https://docs.vllm.ai/en/latest/usage/metrics/
    - https://docs.sglang.ai/references/production_metrics.html
    - https://docs.ollama.com/faq
    """
    if not (pod.ready or pod.log_only) or engine.container.engine_dead:
        return
    if metrics is not None and stands_still(engine, metrics):
        return
    held = held_back(pod, engine, cluster, logs) or queue_full(pod, engine, cluster)
    told = _shed(pod, engine, cluster, logs) or _waited(pod, engine, logs) or held
    if told is not None:
        yield told
        return
    load = load_of(metrics)
    if metrics is not None and load is not None:
        yield from _over_time(pod, engine, subject, cluster, metrics, load, logs)
    elif logs is not None and (found := list(_by_log(pod, engine, subject, logs, metrics))):
        yield from found
    elif metrics is not None:
        yield from _at_once(pod, engine, metrics)
        yield from _by_times(pod, engine, metrics)
    elif logs is None and pod.exists:
        yield Abstain(reason="no log and no metrics of its load over ten minutes were read")


def _over_time(
    pod: Pod, engine: Engine, subject: Subject, cluster: Cluster, metrics: Metrics, load: Load, logs: Logs | None
) -> Iterator[Finding]:
    waiting, running = load.waiting, load.running
    least = min(_LEAST, max(_LEAST_OF_FEW, _TURNS * load.recent.running.mean))
    if not load.queues or waiting.last < max(least, running.last / 4):
        return
    if waiting.last < _LEAST and load.recent.waiting.mean < _LEAST_OF_FEW:
        return  # a few that wait at one look
    spread, said = idle_peer(metrics, load), tuple[Evidence, ...]()
    turns = None if load.grows or spread is not None or load.drains else _adapters_in_turn(engine, load)
    # a batch that one client handed in is worked off where it is
    if not load.grows and (spread is None or load.drains) and turns is None:
        return
    if turns is not None:
        yield turns
        return
    finished = metrics.increase("finished")
    wait = ""
    if finished is not None and not finished.lifetime and finished.rate:
        wait = f"; {finished.rate:.2g} a second are finished, so that a new one waits {say_seconds(waiting.last / finished.rate)}"
    if spread is not None:
        wait += f". Meanwhile {spread.name} runs {max(spread.running.values):.0f} at most, and has no queue"
        said = (spread.running.evidence(),)
    states = _states(engine, load, logs) if spread is None else None
    if states is not None:
        wait += ". It has places for the states of no more"
        said = (log_evidence(states[0]),)
    yield Finding(
        summary=f"{waiting.last:.0f} requests wait in {engine.container.name} while {running.last:.0f} run, and "
        f"{say_seconds(waiting.seconds)} before {waiting.points[0][1]:.0f} waited{wait}.",
        evidence=(*evidence(load), *said),
        explains=_LATE_ANSWERS,
        fix=spread.fix if spread else states[1] if states else _fix(pod, engine, subject, cluster, metrics, load),
    )


def _states(engine: Engine, load: Load, logs: Logs | None) -> tuple[Line, Fix] | None:
    """More places for the states of SGLang's hybrid models, where as many run as there are places for, and the KV cache has room."""
    cache = load.recent.cache
    capped = _capped(engine, logs) if cache is not None and max(cache.values) < _ROOM else None
    if cache is None or capped is None:
        return None
    most = int(capped[1]["most"])
    stands = load.recent.running.share(lambda n: 0.95 * most <= n <= most) >= _FULL
    return (capped[0], _more_states(engine, capped[1], max(cache.values))) if stands else None


def _states_by_log(engine: Engine, said: list[Said], logs: Logs) -> tuple[Line, Fix] | None:
    """The same by what it prints: the share of the KV cache stands before that of the states."""
    capped = _capped(engine, logs)
    if capped is None or any(load.running != int(capped[1]["most"]) for load in said):
        return None
    shares = [float(found[1]) for load in said if (found := _TOKENS.search(load.line.text[:2000]))]
    if len(shares) < len(said) or max(shares) >= _ROOM:
        return None
    return capped[0], _more_states(engine, capped[1], max(shares))


def _capped(engine: Engine, logs: Logs | None) -> tuple[Line, re.Match[str]] | None:
    """What SGLang says of the places for states that it has, of a server without ranks that have places of their own."""
    log = engine.container.own_log(logs) if engine.name == "sglang" else None
    if log is None or engine.value("data_parallel_size", 1) != 1:
        return None
    last = next(reversed([*log.matching(_CAPPED, _STATES)]), None)
    return last if last is not None and int(last[1]["most"]) else None


def _more_states(engine: Engine, said: re.Match[str], share: float) -> Fix:
    most, each, asked = int(said["most"]), int(said["each"]), engine.value("max_num_seqs")
    wanted = asked if isinstance(asked, int) and most < asked <= _MORE * most else 2 * most
    summary = (
        f"Have {engine.container.name} keep the states of {wanted} requests instead of {most} ({each} of its {said['size']} places "
        f"each), which is taken from the KV cache: that is {share:.0%} full. --mamba-ssm-dtype bfloat16 halves each"
    )
    return fixes.set_flag(engine, "max_mamba_cache_size", "--max-mamba-cache-size", str(each * wanted), summary)


def _fix(pod: Pod, engine: Engine, subject: Subject, cluster: Cluster, metrics: Metrics, load: Load) -> Fix:
    limit = limit_of(engine, load)
    flag = {"vllm": "--max-num-seqs", "sglang": "--max-running-requests"}.get(engine.name)
    if limit is not None and flag is not None and engine.explicit("max_num_seqs"):
        share = max(load.recent.cache.values) if load.recent.cache else 0
        here = math.ceil(load.recent.running.last + load.recent.waiting.last)
        room = math.floor(limit * _FULL / share) if share else 2 * limit
        wanted = min(2 * limit, room)
        # more than the cache has room for would be preempted; and where that does not take what waits already, replicas do
        if wanted >= min(2 * limit, here):
            summary = f"Have {engine.container.name} run {wanted} requests at once: its KV cache is {share:.0%} full at {limit}"
            return fixes.set_flag(engine, "max_num_seqs", flag, str(wanted), summary)
    if (adapters := _adapters(engine, load)) is not None:
        summary = f"Let requests of {2 * adapters} adapters share a batch instead of {adapters}: those of the others wait their turn"
        return fixes.set_flag(engine, "max_loras", "--max-loras", str(2 * adapters), summary)
    if (slots := _slots(engine, load)) is not None:
        return slots
    need, workload = need_of(metrics, load), subject.workload
    takes = _start_of(pod, engine)
    soon = f". A new one takes {say_seconds(takes)} to be ready, as this one did" if takes else ""
    if need is None:
        # as many as have all that is here now in service at once
        running, waiting = load.recent.running.last, load.recent.waiting.last
        times = max((running + waiting) / max(running, 1), 2)
        return more_replicas(pod, times, "they have all that is here now in service at once", soon)
    summary = f"Run {need.replicas} replicas instead of {need.now}: {need.text}{soon}"
    at = place_of_replicas(pod, workload.item) if workload else ""
    if workload is not None and any(scalers(subject, cluster)):
        return more_replicas(pod, need.replicas / need.now, need.text, soon)
    if workload is None or not at:
        return fixes.advice(f"{summary} (in {fixes.edited(pod)}, or the maximum of its autoscaler)")
    return with_replicas(workload.item, at, need.replicas, summary)


def _slots(engine: Engine, load: Load) -> Fix | None:
    """More slots for llama-server, where somebody gave it so few that a GPU is idle beside them; they share its context."""
    slots, context = engine.value("max_num_seqs"), engine.value("max_model_len")
    if engine.name != "llama.cpp" or not engine.explicit("max_num_seqs") or not isinstance(slots, int):
        return None
    if not 0 < slots <= _FEW_SLOTS or load.recent.running.share(lambda n: n >= slots) < _ROOM:
        return None
    more, chosen = _MORE * slots, [("max_num_seqs", "--parallel", str(_MORE * slots))]
    shares = (
        isinstance(context, int) and context > 0 and engine.explicit("max_model_len") and not engine.value("kv_unified")
    )
    if shares and _MORE * context > _MOST_TOKENS:
        return None
    if shares:
        chosen.append(("max_model_len", "--ctx-size", str(_MORE * context)))
    summary = f"Have {engine.container.name} answer {more} requests at once instead of {slots}" + (
        f", with a context of {_MORE * context} tokens, so that each keeps its {context // slots}"
        if shares
        else ""
        if engine.value("kv_unified")
        else f", each with 1/{_MORE} of the context that it has now"
    )
    return fixes.set_flags(engine, chosen, f"{summary}; where the GPU's memory does not hold that, add replicas")


def _adapters(engine: Engine, load: Load) -> int | None:
    """How many adapters vLLM takes into a batch, where requests wait though the cache has room and few run."""
    adapters, limit, cache = engine.value("max_loras", 1), engine.value("max_num_seqs"), load.recent.cache
    if engine.name != "vllm" or not engine.value("enable_lora") or not isinstance(adapters, int) or cache is None:
        return None
    few = load.recent.running.mean < (limit if isinstance(limit, int) else 128) / 4
    return adapters if few and max(cache.values) < _ROOM else None


def _adapters_in_turn(engine: Engine, load: Load) -> Finding | None:
    """A queue that neither grows nor shrinks, though few run and the cache is empty: more adapters are there than a batch takes."""
    slots, modules = _adapters(engine, load), engine.value("lora_modules")
    named = len(modules) if isinstance(modules, list | tuple) else 0
    if slots is None or named <= slots:
        return None
    wanted = min(named, max(2 * slots, _FEW_ADAPTERS))
    return Finding(
        confidence="possible",  # who reads long prompts lets others wait, too
        summary=f"{load.recent.waiting.mean:.0f} requests have waited in {engine.container.name} on average of "
        f"{say_seconds(load.recent.waiting.seconds)} while {load.recent.running.mean:.0f} run and its KV cache has room: a batch takes "
        f"{count_of(slots, 'adapter')}, and {named} are served, so that the requests of one wait until those of another are done.",
        evidence=evidence(load),
        explains=_LATE_ANSWERS,
        fix=fixes.set_flag(
            engine,
            "max_loras",
            "--max-loras",
            str(wanted),
            f"Let requests of {wanted} adapters share a batch instead of {slots}",
        ),
    )


def _start_of(pod: Pod, engine: Engine) -> float | None:
    """How long the pod took from the start of its engine to being ready; None where a restart or a failed probe hides it."""
    ready, started = pod.condition("Ready"), engine.container.started
    since = parse_time(ready.last_transition_time) if ready else None
    seconds = (since - started).total_seconds() if since and started else 0
    return seconds if engine.container.restarts == 0 and 60 <= seconds <= 7200 else None


def _at_once(pod: Pod, engine: Engine, metrics: Metrics) -> Iterator[Finding]:
    """One look at the metrics port, or a few: it may be a burst, unless another replica is idle all the while."""
    waiting, running = metrics.span("waiting"), metrics.span("running")
    if waiting is None or running is None or min(waiting.values) < _LEAST:
        return
    idle = _idle_now(metrics, min(running.values))
    if idle is not None and min(waiting.seconds, idle[1].seconds) >= _NO_BURST_SECONDS:
        yield Finding(
            summary=f"{waiting.last:.0f} requests wait in {engine.container.name} while {running.last:.0f} run, and "
            f"{say_seconds(waiting.seconds)} before {waiting.points[0][1]:.0f} waited. Meanwhile {idle[0]} runs "
            f"{max(idle[1].values):.0f} at most, and has no queue.",
            evidence=(waiting.evidence(), running.evidence(), idle[1].evidence()),
            fix=spread_fix(pod),
        )
        return
    if min(waiting.values) < running.last:
        return
    yield Finding(
        role="note",
        confidence="possible",
        summary=f"At this moment {waiting.last:.0f} requests wait in {engine.container.name} while {running.last:.0f} run; one "
        "look does not say whether that lasts.",
        evidence=(waiting.evidence(), running.evidence()),
        fix=fixes.advice("Look again after some minutes", f"kubectl llmdoctor diagnose {pod.name} -n {pod.namespace}"),
    )


def _by_log(pod: Pod, engine: Engine, subject: Subject, logs: Logs, metrics: Metrics | None) -> Iterator[Finding]:
    if engine.name == "ollama":
        yield from _one_by_one(engine, logs)
        return
    whole = since_when(last_load(engine.container, logs, _STATEMENTS), lambda load: load.waiting > 0)
    said = whole[-RECENT:]
    if not said or not works(pod, said):
        return
    if not lasts(said):
        if picked(engine.container, logs) and (quoted := _as_quoted(pod, engine, subject, said)) is not None:
            yield quoted
        return
    if (full := _refuses(pod, engine, logs, said)) is not None:
        yield full
        return
    if min(load.waiting for load in said) >= _LEAST and (beside := idle_engines(engine.container, logs, said)):
        yield _one_of_several(pod, engine, said, beside)
        return
    last, idle = said[-1], None
    if metrics is not None:
        idle = _idle_now(metrics, min(load.running for load in said))
    slowly = _grew(whole) and max(load.waiting for load in whole) * _COMES_DOWN <= last.waiting
    # what has grown for long goes on
    lasted = slowly and (seconds_between(whole[0].line, last.line) or 0) >= SUSTAINED_SECONDS
    if not (_grew(said) or slowly or idle is not None):
        return
    if last.waiting < max(_LEAST, last.running / 4 if lasted else last.running):
        return
    said = whole if slowly and not _grew(said) else said
    times = -(-(last.waiting + last.running) // max(last.running, 1))
    spread = f". At this moment {idle[0]} runs {idle[1].last:.0f}, and has no queue" if idle else ""
    states = _states_by_log(engine, said[-RECENT:], logs) if idle is None else None
    shown = (idle[1].evidence(),) if idle else (log_evidence(states[0]),) if states else ()
    yield Finding(
        summary=f"{last.waiting} requests wait in {engine.container.name or engine.title} while {last.running} run; "
        f"{count_of(len(said) - 1, 'statement')} before {said[0].waiting} waited{spread}.",
        evidence=(log_evidence(said[0].line), log_evidence(last.line), *shown),
        explains=_LATE_ANSWERS,
        fix=spread_fix(pod)
        if idle
        else states[1]
        if states
        else more_replicas(pod, times, "they have all that is here now in service at once", _whether_spread(subject)),
        order=last.line.order,
    )


def _as_quoted(pod: Pod, engine: Engine, subject: Subject, said: list[Said]) -> Finding | None:
    """The few statements that a report quotes, where the cache has room and more wait than run, and no fewer at the end."""
    first, last = said[0], said[-1]
    if last.waiting < max(_LEAST, last.running) or any(load.cache >= _FULL for load in said):
        return None
    # one statement alone may be that of a burst, unless all that it may run at once do
    if last.waiting <= first.waiting if len(said) > 1 else last.running != engine.value("max_num_seqs"):
        return None
    if last.running > _STILL_RISES * first.running:
        return None  # it takes ever more in service
    times = -(-(last.waiting + last.running) // max(last.running, 1))
    before = f"; {count_of(len(said) - 1, 'statement')} before {first.waiting} waited" if len(said) > 1 else ""
    why = "they have all that is here now in service at once"
    return Finding(
        confidence="possible",
        summary=f"{last.waiting} requests wait in {engine.container.name or engine.title} while {last.running} run{before}.",
        evidence=tuple(log_evidence(load.line) for load in {id(load): load for load in (first, last)}.values()),
        explains=_LATE_ANSWERS,
        fix=more_replicas(pod, times, why, _whether_spread(subject)),
        order=last.line.order,
    )


def _one_of_several(pod: Pod, engine: Engine, said: list[Said], beside: list[str]) -> Finding:
    """One of a server's data parallel engines has the load, and others have none."""
    last = said[-1]
    return Finding(
        summary=f"{last.waiting} requests wait in one engine of {engine.container.name or engine.title} while {last.running} run; "
        f"{count_of(len(said) - 1, 'statement')} before {said[0].waiting} waited. Meanwhile {count_of(len(beside), 'other engine')} of "
        f"the same server ({', '.join(beside)}) had nothing to do.",
        evidence=(log_evidence(said[0].line), log_evidence(last.line)),
        fix=engines_fix(pod),
        order=last.line.order,
    )


def _grew(said: list[Said]) -> bool:
    """Whether the queue is longer in the last third of some statements than in the first."""
    third = len(said) // 3
    early, late = (sum(load.waiting for load in part) for part in (said[:third], said[-third:]))
    return late >= _GROWS * early


def _whether_spread(subject: Subject) -> str:
    """What to look at before replicas are added, where there are others already."""
    ready = dig(subject.workload.raw, "status.readyReplicas") if subject.workload else None
    if not isinstance(ready, int) or ready < 2:
        return ""
    return f"; first see whether all {ready} have a queue, as a client that keeps its connections open stays with one"


def _refuses(pod: Pod, engine: Engine, logs: Logs, said: list[Said]) -> Finding | None:
    """A queue that cannot grow, since the engine refuses what comes beyond it, by the statuses of its access log."""
    count, all_of = refused(logs.current(engine.container.name), "503", "429", after=said[0].line.number)
    last = said[-1]
    if count < _FEWEST_REFUSED or count < _SHARE_REFUSED * all_of or not all(load.running for load in said):
        return None
    return Finding(
        summary=f"{engine.container.name or engine.title} refused {count} of {all_of} requests (503 or 429) while {last.running} run and "
        f"{last.waiting} wait: more come in than it serves, and its queue is full.",
        evidence=(log_evidence(said[0].line), log_evidence(last.line)),
        fixes=(
            more_replicas(pod, 1 + count / max(all_of - count, 1), "a longer queue only makes clients wait longer"),
            fixes.advice("Have what stands before it pass a 503 on, rather than drop the server for it"),
        ),
        explains=("http-5xx",),
        order=last.line.order,
    )


def _by_times(pod: Pod, engine: Engine, metrics: Metrics) -> Iterator[Finding]:
    """How long requests waited, where how many do is not exported (TensorRT-LLM before 1.3)."""
    waited, cache = metrics.histogram("queue_time"), metrics.cache
    if metrics.span("waiting") is not None or waited is None or waited.lifetime or waited.observed < _ENOUGH_REQUESTS:
        return
    median, recent = waited.quantile(0.5), cache.tail(SUSTAINED_SECONDS) if cache else None
    # what waited an hour ago may be long served: a full cache tells that they wait now
    if median < _LONG_WAIT or recent is None or recent.seconds < SUSTAINED_SECONDS * 0.9 or min(recent.values) < _FULL:
        return
    yield Finding(
        confidence="possible",  # a batch that is handed in at once waits for itself
        summary=f"Half of the last {waited.observed:.0f} requests of {engine.container.name} waited for {say_seconds(median)} or longer "
        f"before it began with them, and its KV cache is {recent.last:.0%} full.",
        evidence=(waited.evidence(f"median {median:.3g} s"), recent.evidence(lambda n: f"{n:.0%}")),
        fixes=(
            more_replicas(pod, 2, "each has a queue of its own"),
            fixes.advice("Have clients cap max_tokens, for which room is kept from the beginning"),
        ),
    )


def _shed(pod: Pod, engine: Engine, cluster: Cluster, logs: Logs | None) -> Finding | None:
    """What the endpoint picker of the pod's pool drops, of late and for minutes, while requests wait in the engine."""
    said = last_load(engine.container, logs)
    if not said or not works(pod, said) or not all(load.waiting for load in said):
        return None
    for pool in pod.pools:
        shed = [line for line in refused_by(pool, cluster, SHED) if re.search(_SHEDS, line.text[:4000])]
        lines = [x for x in shed if (ago := written_ago(x, cluster.now)) is not None and ago <= SUSTAINED_SECONDS]
        if len(lines) < _FEWEST_REFUSED:
            continue
        return Finding(
            summary=f"The endpoint picker of InferencePool {pool.name} dropped {len(lines)} requests in ten minutes, since it counts every "
            f"server of the pool as full: {said[-1].running} run in {engine.container.name}, {said[-1].waiting} wait, and "
            f"{said[-1].cache:.0%} of its KV cache is taken.",
            evidence=(log_evidence(lines[-1]), log_evidence(said[-1].line)),
            explains=("http-5xx",),
            fixes=(
                more_replicas(pod, 2, "the picker has room then"),
                fixes.advice("Give what must not be dropped a higher priority (an InferenceObjective)"),
            ),
            order=said[-1].line.order,
        )
    return None


def _waited(pod: Pod, engine: Engine, logs: Logs | None) -> Finding | None:
    """Requests that Text Generation Inference answered after they had waited far longer than it computed, and kept coming meanwhile."""
    log = engine.container.own_log(logs)
    lines = [*log.find(_QUEUED)][-_REQUESTS:] if log is not None and engine.name == "tgi" else []
    told = [(x, float(m[1]), float(m[2]), float(m[3])) for x in lines if (m := _TOOK.search(x.text[:8000]))]
    third, ago = len(told) // 3, written_ago(lines[-1], pod.cluster.now) if lines else None
    if third < _STATEMENTS_OF_A_THIRD or len(told) < len(lines) or ago is None or ago > _LATELY:
        return None
    (first, total, *_), (last, whole, queued, computed) = told[0], told[-1]
    # those that were handed in at once wait one for another, too
    came = (seconds_between(first, last) or 0) - whole + total
    waits = [wait for _, _, wait, _ in told]
    if came < _NO_BURST_SECONDS or sum(waits[-third:]) < _COMES_DOWN * sum(waits[:third]):
        return None
    if min(waits) < _LONG_WAIT or any(wait < _TIMES * took for _, _, wait, took in told):
        return None
    return Finding(
        # clients that always have as many requests open wait as long each time, and mean to
        confidence="likely" if min(waits[-third:]) > max(waits[:third]) else "possible",
        summary=f"The last {len(told)} requests that {engine.container.name or engine.title} answered had waited for "
        f"{say_seconds(min(waits))} or longer, and more keep coming: the last one waited for {say_seconds(queued)} and "
        f"was computed in {say_seconds(computed)}.",
        evidence=(log_evidence(first, _QUEUED), log_evidence(last, _QUEUED)),
        fixes=(
            more_replicas(pod, min(1 + queued / max(computed, 1), 4), f"a request waited for {say_seconds(queued)}"),
            fixes.advice("See whether clients send a grammar (structured outputs): it makes each step slower"),
        ),
        order=last.order,
    )


def _one_by_one(engine: Engine, logs: Logs) -> Iterator[Finding]:
    """Ollama runs one request at a time, and those that came meanwhile wait for all before them."""
    log = logs.current(engine.container.name)
    told = next(log.find(_ONE_AT_A_TIME), None) if log else None
    if log is None or told is None:
        return
    chain: list[Answer] = []
    for line in log.find("[GIN] "):
        if (said := answered(line)) is None:
            continue
        if chain and said.at - timedelta(seconds=said.seconds) >= chain[-1].at:
            chain = []
        chain.append(said)
    if len(chain) < _CHAIN or chain[-1].seconds < max(_TIMES * chain[0].seconds, _WAITS_SECONDS):
        return
    first, last = chain[0], chain[-1]
    yield Finding(
        confidence="possible",  # it may be a burst
        summary=f"{engine.at} runs one request at a time, and the last {len(chain)} came before the one before them was answered: the "
        f"first took {say_seconds(first.seconds)}, the last {say_seconds(last.seconds)}.",
        evidence=(log_evidence(told), log_evidence(first.line), log_evidence(last.line)),
        fix=fixes.set_env(
            engine.container,
            "OLLAMA_NUM_PARALLEL",
            str(len(chain)),
            f"Let it run {len(chain)} requests at once, as far as the GPU's memory has room for their context; else add replicas",
        ),
        order=last.line.order,
    )


def _idle_now(metrics: Metrics, busy: float) -> tuple[str, Span] | None:
    """A replica that has no queue and less than half to do of what this one has, in all looks."""
    for peer in metrics.peers:
        waiting, running = peer.span("waiting"), peer.span("running")
        if waiting and running and not any(waiting.values) and max(running.values) < busy / 2:
            return peer.pod.name, msgspec.structs.replace(running, metric=f"{running.metric} of {peer.pod.name}")
    return None
