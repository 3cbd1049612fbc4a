"""Long prompts that hold up all others."""

import itertools
import re
from collections.abc import Iterator
from typing import Literal

import msgspec

from kubectl_llmdoctor.api import (
    Engine,
    Finding,
    Fix,
    Histogram,
    Line,
    Log,
    Logs,
    Metrics,
    Pod,
    Setting,
    Workload,
    check,
    count_of,
    fixes,
    log_evidence,
    say_seconds,
    seconds_between,
    setting_evidence,
    written_ago,
)
from llmdoctor_checks._load import RECENT, Load, last_load, lasts, since_when
from llmdoctor_checks.serving._processes import second_engine
from llmdoctor_checks.serving._saturation import evidence, load_of

#: A prompt of fewer tokens is computed in a fraction of a second on any GPU that serves such models.
_LONG_TOKENS = 16384


#: So many requests say how long prompts are.
_ENOUGH_REQUESTS = 200

#: Prompts are of two kinds where nine in ten are short, one in a hundred is so many times as long as they are, and few lie
#: in between.
_SHORT_SHARE, _LONG_SHARE, _TIMES, _BETWEEN = 0.85, 0.01, 8, 0.06

#: A first token that half of the requests get soon, and one in twenty waits for so much longer.
_SLOWER, _SLOW_SECONDS = 8, 2.0

#: Statements of vLLM that are looked at, and how many in a row show streams that stand still beside a prompt.
_STATEMENTS, _IN_A_ROW, _STATEMENTS_OF_AN_HOUR = 60, 3, 360

#: SGLang's statement of a batch of prompts; the share of the cache up to which there is room.
_PREFILL, _ROOM = "Prefill batch", 0.9

#: Two do where a few streams get so small a share of what they get at other times.
_FEW_STREAMS, _TWENTIETH = 16, 0.05

#: So many prompt tokens for each generated one, or in a second, are of long prompts; a stream that gets less than one token in a
#: second, and a tenth of what it gets at other times, stands still.
_PROMPT_TOKENS, _PER_STREAM, _TENTH = 1000, 1.0, 0.1

#: Where a stream never gets so many tokens a second nobody waits for them.
_READS = 5.0

#: vLLM's statement of how much its cache holds, and so many prompt tokens for each generated one are of little else.
_HOLDS, _MOSTLY = "GPU KV cache size: ", 50

#: A cache no fuller than this, and no more of the places taken, are no reason to wait; so many that wait are no chance. vLLM's places
#: where nothing sets them, on the smallest GPUs.
_HALF, _SEVERAL, _PLACES = 0.5, 3, 128

#: llama-server: a prompt that takes so long, and so large a share of the time in which another slot generates.
_PROMPT_SECONDS, _MOST = 10.0, 0.5
#: A pause that is longer has another reason. Streams that get so many times as much at other times were held up.
_AN_HOUR, _SLOWED = 3600, 3
#: So many of the last requests are looked at: what befell one long ago is over.
_REQUESTS = 50
#: From then on nobody takes it for a hesitation.
_LONG_SECONDS = 30.0

#: llama.cpp's context shift, in JSON before 2024-12; so many by one answer are three contexts of it, and more.
_SHIFT, _SHIFTS = "slot context shift", 6
_SHIFTED = r"(?:\| task (?P<task>\d{1,12}) \| slot context shift, |\"slot context shift\".{0,400}\"task_id\":(?P<json>\d{1,12})\b)"
_ENDED = r"slot released|stop processing|\"POST /|\| POST +\""

_LAUNCHED = r"slot launch_slot_: id +(\d{1,4}) \| task (\d{1,12}) \| processing task"
_TIMED = r"slot +(?:print_timing|release)?: id +(\d{1,4}) \| task (\d{1,12}) \|"
_PROMPT = r"prompt eval time = +(\d{1,12}(?:\.\d+)?) ms / +(\d{1,9}) tokens"
_ANSWER = r"(?<!prompt )eval time = +(\d{1,12}(?:\.\d+)?) ms / +(\d{1,9}) (?:tokens|runs)"


@check("head-of-line-blocking", since="0.2", severity="info", literals=(_PREFILL, _SHIFT))
def head_of_line_blocking(
    pod: Pod, engine: Engine, workload: Workload | None, metrics: Metrics | None, logs: Logs | None
) -> Iterator[Finding]:
    """Long prompts block short ones on the same endpoint.

    Without chunked prefill the engine computes a whole prompt in one step. For a prompt of a hundred thousand tokens the
    step takes many seconds, in which every other request of that replica gets no token: streams stand still, and short
    questions wait. vLLM chunks prompts by default from 0.8 on (its V1 engine; up to 0.11 whatever is set), SGLang by 2048 to
    16384 tokens.

    With chunks the long prompt takes many steps instead of one, and shares each of them with those that generate. But chunks
    are taken in the order of arrival, so that a short question behind two documents still waits for its first token. The
    metrics show it: prompts of two kinds, few in between, and a first token that most requests get soon and some late,
    although the KV cache has room and requests hardly queue. Where the long ones are so many that they have every step to themselves,
    all wait: then a queue stands beside a cache that has room and few that run, and next to nothing but prompts is computed.

    A step with a chunk takes as long as the chunk: a model that reads 2400 tokens in a second needs 3.4 s for a chunk of 8192, and
    every stream gets one token in that time. vLLM's statements show it: the prompt throughput is high, or there is none and a
    burst follows when the prompt gets its first token, and the running requests get a fraction of what they get at other times,
    though none waits. Where requests do wait, though the cache has room, and few with tens of thousands of tokens each run, prompts take
    every step; where the streams stand still again and again while the cache fills and a queue builds up, one long prompt is read each
    time. SGLang begins waiting prompts before it goes on with what runs: under a stream of new ones hundreds of
    requests get next to nothing, and its log has many batches of prompts for each of generation. With `--chunked-prefill-size -1`
    one long prompt is one batch, and nothing is stated before it is over. llama-server computes `--batch-size` tokens of a prompt
    in one go for all slots; its timings show how long another slot's answer took meanwhile.

    ## Fix

    Leave chunked prefill on. Give long prompts an endpoint of their own, and cap the length on the other. vLLM can take
    short prompts first (`--scheduling-policy priority`, with a priority in each request). A smaller chunk
    (`--max-num-batched-tokens`, `--chunked-prefill-size`, `--batch-size` of llama-server) lets streams go on meanwhile.

    ## References

    - https://docs.vllm.ai/en/latest/configuration/optimization/#chunked-prefill
    - https://docs.sglang.ai/advanced_features/server_arguments.html
    """
    if metrics is not None and pod.ready and (found := _measured(pod, engine, metrics)):
        yield found
        return
    if logs is not None and (pod.ready or pod.log_only) and (found := _told(pod, engine, logs)):
        yield found
        return
    off, length = _whole_prompts(engine), engine.value("max_model_len")
    if off is None or not isinstance(length, int) or length < _LONG_TOKENS:
        return
    replicas = workload.replicas if workload else None
    where = f" on each of {replicas} replicas" if replicas and replicas > 1 else ""
    yield Finding(
        role="note",
        summary=f"{engine.label} computes each prompt in one step ({off.text}), up to {length} tokens: meanwhile every other "
        f"request{where} waits.",
        evidence=(setting_evidence(engine.container, off),),
        fix=fixes.remove_flag(engine, off.name, f"Remove {off.text}, so that it reads prompts in chunks"),
    )


def _measured(pod: Pod, engine: Engine, metrics: Metrics) -> Finding | None:
    """Prompts of two kinds, and first tokens that come late for some while nothing else is short."""
    length, first = metrics.histogram("prompt_length"), metrics.histogram("ttft")
    waiting, cache = metrics.span("waiting"), metrics.cache
    if length is None or first is None or waiting is None or min(length.observed, first.observed) < _ENOUGH_REQUESTS:
        return None
    bound = _two_kinds(length)
    median, slow = first.quantile(0.5), first.quantile(0.95)
    if bound is not None and (crowded := _crowded_out(pod, engine, metrics, length, first, bound)):
        return crowded
    if bound is None or slow < max(_SLOWER * median, _SLOW_SECONDS):
        return None
    # where prompts are computed whole, the queue is theirs: whatever comes meanwhile waits for the step to end
    if (waiting.mean >= 1 and _whole_prompts(engine) is None) or (cache is not None and max(cache.values) > _ROOM):
        return None  # they wait for room, which is another matter
    queued = "hardly any is queued" if waiting.mean < 1 else f"{waiting.mean:.0f} are queued and the KV cache has room"
    short, far = length.below(bound), 1 - length.below(bound * _TIMES)
    return Finding(
        severity="warning",
        confidence="likely" if _whole_prompts(engine) else "possible",
        summary=f"{short:.0%} of the prompts of {engine.container.name} have at most {bound:.0f} tokens, and {far:.1%} more than "
        f"{bound * _TIMES:.0f}. Half of the requests get their first token in {median:.2g} s, one in twenty waits {slow:.2g} s or "
        f"longer, while {queued}.",
        evidence=(
            length.evidence(f"{short:.0%} at most {bound:.0f} tokens, {far:.1%} more than {bound * _TIMES:.0f}"),
            first.evidence(f"median {median:.2g} s, 95 % within {slow:.2g} s"),
            waiting.evidence(),
        ),
        fixes=(
            *_shared_steps(engine),
            fixes.advice(
                f"Give prompts of more than {bound * _TIMES:.0f} tokens an endpoint of their own, and cap the length on "
                f"{fixes.edited(pod)}"
            ),
        ),
    )


def _crowded_out(
    pod: Pod, engine: Engine, metrics: Metrics, length: Histogram, first: Histogram, bound: float
) -> Finding | None:
    """Requests that wait all the time, though the cache has room and few run, since a few long prompts have every step to themselves."""
    load, read, made = load_of(metrics), metrics.increase("prompt_tokens"), metrics.increase("generation_tokens")
    if load is None or not load.queues or load.recent.cache is None or read is None or made is None or read.lifetime:
        return None
    if (
        engine.side == "prefill"
        or engine.value("enable_lora")
        or not made.amount
        or max(load.recent.cache.values) > _HALF
    ):
        return None
    if engine.value("kv_transfer_config"):
        return None  # what waits may wait for a cache that comes from elsewhere
    hits, queries = metrics.increase("prefix_hits"), metrics.increase("prefix_queries")
    # the counter has those tokens, too, that were found in the cache
    share = 1 - min(hits.amount / queries.amount, 1.0) if hits and queries and queries.amount else 1.0
    computed, pace = share * read.amount, share * read.rate
    places = engine.value("max_num_seqs", _PLACES)
    running, waiting, wait = load.recent.running, load.recent.waiting, first.quantile(0.5)
    if not isinstance(places, int) or max(running.values) > _HALF * places or waiting.mean < _SEVERAL:
        return None
    if computed < _MOSTLY * made.amount or pace < _PROMPT_TOKENS or wait < _SLOW_SECONDS:
        return None
    short, far = length.below(bound), 1 - length.below(bound * _TIMES)
    return Finding(
        severity="warning",
        summary=f"{waiting.mean:.0f} requests wait in {engine.container.name} while {running.mean:.0f} run, though no more than "
        f"{max(load.recent.cache.values):.0%} of the KV cache is taken: it reads {pace:.0f} prompt tokens a second and generates "
        f"{made.rate:.0f}. {short:.0%} of the prompts have at most {bound:.0f} tokens, and {far:.1%}, with more than {bound * _TIMES:.0f}, "
        f"take the steps: half of all wait {say_seconds(wait)} or longer for their first token.",
        evidence=(
            length.evidence(f"{short:.0%} at most {bound:.0f} tokens, {far:.1%} more than {bound * _TIMES:.0f}"),
            first.evidence(f"median {wait:.2g} s, 95 % within {first.quantile(0.95):.2g} s"),
            *evidence(load),
        ),
        explains=("queue-growing",),
        fixes=(*_shared_steps(engine), _apart(pod, engine)),
    )


def _told(pod: Pod, engine: Engine, logs: Logs) -> Finding | None:
    """What the engine says of itself."""
    log = logs.current(engine.container.name)
    if engine.name == "vllm":
        said = last_load(engine.container, logs, _STATEMENTS)
        return (
            _still_beside_prompts(pod, engine, said)
            or (_behind_long_prompts(pod, engine, log, said) if log else None)
            or _queued_behind_prompts(pod, engine, last_load(engine.container, logs, _STATEMENTS_OF_AN_HOUR))
        )
    if engine.name == "sglang" and log is not None:
        return _behind_prefills(pod, engine, log, last_load(engine.container, logs, _STATEMENTS)) or _in_one_step(
            pod, engine, log
        )
    held = _held_up(pod, engine, log) if engine.name == "llama.cpp" and log is not None else None
    return held or (_without_end(pod, engine, log) if engine.name in ("llama.cpp", "ollama") and log else None)


def _without_end(pod: Pod, engine: Engine, log: Log) -> Finding | None:
    """An answer of llama.cpp that filled its context again and again, and goes on: nothing ends it, and it keeps its slot."""
    said = [(line, m) for line in log.find(_SHIFT) if (m := re.search(_SHIFTED, line.text[:2000]))][-_REQUESTS:]
    last = said[-1][1]["json"] or said[-1][1]["task"] if said else ""
    of_it = list(itertools.takewhile(lambda one: last == (one[1]["json"] or one[1]["task"]), reversed(said)))
    limit = engine.explicit("n_predict")
    if limit is not None and isinstance(limit.value, int) and limit.value > 0:
        return None  # which ends it, however long it is
    if len(of_it) < _SHIFTS or any(re.search(_ENDED, x.text[:2000]) for x in log.lines(of_it[0][0].number)):
        return None
    line = of_it[0][0]
    setting = "num_predict" if engine.name == "ollama" else "n_predict"
    other = (
        "a later Ollama limits it by itself" if engine.name == "ollama" else "--no-context-shift ends it at the context"
    )
    return Finding(
        role=_role(pod, line),
        severity="warning",
        summary=f"One answer of {engine.label} (task {last}) has filled its context {len(of_it)} times and goes on: nothing limits it, and "
        "others wait for its slot.",
        evidence=(log_evidence(line, _SHIFT),),
        explains=("gateway-timeout",),
        fix=fixes.advice(
            f"Limit the length of answers: {setting} (max_tokens) in requests{' or the Modelfile' if engine.name == 'ollama' else ''}; "
            f"{other}. A restart frees the slot now",
            f"kubectl -n {pod.namespace} delete pod {pod.name}",
        ),
        order=line.order,
    )


def _role(pod: Pod, last: Line) -> Literal["cause", "risk"]:
    """What held streams up hours ago does so again with the next long prompts, and is no reason for what is wrong now."""
    ago = written_ago(last, pod.cluster.now)
    return "risk" if pod.ready and ago is not None and ago > _AN_HOUR else "cause"


def _behind_prefills(pod: Pod, engine: Engine, log: Log, said: list[Load]) -> Finding | None:
    """SGLang's streams, which stand still because a batch of prompts comes before every step of theirs."""
    rank = re.match(r"\[[^\]]{0,40}?((?: [A-Z]{2,4}\d+)*)\]", said[-1].line.text) if said else None
    prefills = [
        (line.number, int(batch[1]))
        for line in (log.find(_PREFILL) if rank else ())
        if rank and f"{rank[1]}] " in line.text[:60] and (batch := re.search(r"#new-token: (\d{1,9})", line.text))
    ]
    longest, run = list[tuple[Load, float]](), list[tuple[Load, float]]()
    for before, load in itertools.pairwise(said):
        between = [tokens for number, tokens in prefills if before.line.number < number < load.line.number]
        read = sum(between) / max(seconds_between(before.line, load.line) or 0, 1)
        slow = load.running > 1 and load.tokens is not None and load.tokens <= _PER_STREAM * load.running
        still = (
            slow and not load.waiting and load.cache <= _ROOM and read >= _PROMPT_TOKENS and len(between) >= _IN_A_ROW
        )
        run = [*run, (load, read)] if still else []
        longest = max(longest, run, key=len)
    if len(longest) < _IN_A_ROW:
        return None
    (first, _), (last, read) = longest[0], longest[-1]
    return Finding(
        role=_role(pod, last.line),
        severity="warning",
        summary=f"{engine.at} reads prompts before it goes on with what runs, at {read:.0f} tokens a second, and each of "
        f"{last.running} running requests gets {_say((last.tokens or 0.0) / last.running)} tokens a second. None waits, and "
        f"{last.cache:.0%} of the KV cache is taken.",
        evidence=(log_evidence(first.line), log_evidence(last.line)),
        fixes=(
            fixes.set_flag(
                engine, "enable_mixed_chunk", "--enable-mixed-chunk", "", "Let running requests go on beside prompts"
            ),
            fixes.advice(f"Read prompts in pods of their own (--disaggregation-mode) beside {fixes.edited(pod)}"),
        ),
        order=last.line.order,
    )


def _in_one_step(pod: Pod, engine: Engine, log: Log) -> Finding | None:
    """SGLang's streams that stood still while it read a long prompt in one step, as it was told to."""
    whole = _whole_prompts(engine)
    if whole is None:
        return None
    held = list[tuple[Line, Line, int, float]]()
    batches = list(_batches(log))
    for at, (before, one, after) in enumerate(zip(batches, batches[1:], batches[2:], strict=False)):
        new = re.search(r"#new-token: (\d{1,9})", one.line.text[:400])
        size = int(new[1]) if new else 0
        # it is stated when its step begins, by newer releases when that is over
        begin, end = max(
            ((before.line, one.line), (one.line, after.line)), key=lambda pair: seconds_between(*pair) or 0.0
        )
        seconds = seconds_between(begin, end) or 0.0
        pace = next((x.pace for x in batches[at + 2 :] if x.rank == one.rank and x.pace is not None), None)
        # none has ended, and the new one has joined them: they were all waiting for it, and get more at other times
        waited = before.rank == one.rank == after.rank and 1 < one.running < after.running
        usual = max((x.pace for x in batches if x.pace is not None and 2 * x.running >= one.running), default=0.0)
        slowed = pace is not None and pace * _SLOWED <= usual
        if size >= _LONG_TOKENS and _PROMPT_SECONDS <= seconds < _AN_HOUR and waited and slowed:
            held.append((begin, end, size, seconds))
    if not held:
        return None
    line, following, tokens, seconds = max(held, key=lambda one: one[3])
    return Finding(
        role=_role(pod, held[-1][1]),
        severity="warning",
        confidence="likely" if len(held) > 1 else "possible",
        summary=f"{engine.at} read a prompt of {tokens} tokens in one step ({whole.text}): for {say_seconds(seconds)} the other requests "
        f"got nothing{f', and so for {len(held)} prompts' if len(held) > 1 else ''}.",
        evidence=(log_evidence(line), log_evidence(following), setting_evidence(engine.container, whole)),
        fix=fixes.remove_flag(engine, whole.name, f"Let it read long prompts in chunks: remove {whole.text}"),
        order=following.order,
    )


class _Batch(msgspec.Struct, frozen=True):
    """What SGLang states of a batch: in which line, which rank, how many requests run, and how many tokens a second each of them gets."""

    line: Line
    rank: str
    running: int
    pace: float | None


def _batches(log: Log) -> Iterator[_Batch]:
    """The last statements of a log."""
    lines = sorted((*log.find(_PREFILL), *log.find("Decode batch")), key=lambda line: line.number)
    for line in lines[-2 * _REQUESTS :]:
        rank = re.match(r"\[[^\]]{0,40}?((?: [A-Z]{2,4}\d+)*)\]", line.text)
        running = re.search(r"#running-req: (\d{1,6})", line.text[:400])
        made = re.search(r"gen throughput \(token/s\): (\d{1,9}(?:\.\d{1,6})?)", line.text[:400])
        if rank and running:
            requests = int(running[1])
            yield _Batch(line, rank[1], requests, float(made[1]) / requests if made and requests else None)


def _still_beside_prompts(pod: Pod, engine: Engine, said: list[Load]) -> Finding | None:
    """Streams that stand still while prompts are read, and go on when none is."""
    alone = [load.made / load.running for load in said if load.running and load.made and not load.read]
    if not alone:
        return None  # what streams get at other times is not known
    usual = max(alone)
    runs = [list(run) for still, run in itertools.groupby(said, lambda load: _stands_still(load, usual)) if still]
    longest = max(runs, key=len, default=[])
    if len(longest) < _IN_A_ROW:
        longest = max(_before_its_first_token(said, usual), longest, key=len)
    if len(longest) < 2:
        return None
    streams = [(load.made or 0.0) / load.running for load in longest]
    pace = sum(streams) / len(streams)
    few = pace <= _TWENTIETH * usual and max(load.running for load in longest) <= _FEW_STREAMS
    if len(longest) < _IN_A_ROW and not few:
        return None
    read = sum(load.read or 0.0 for load in longest) / len(longest)
    at = f" at {read:.0f} tokens a second" if read >= 1 else ""
    seconds = seconds_between(longest[0].line, longest[-1].line)
    whole = next(load for load in said if load.running and load.made and not load.read)
    return Finding(
        role=_role(pod, longest[-1].line),
        severity="warning",
        confidence="likely" if len(longest) >= _IN_A_ROW else "possible",
        summary=f"For {say_seconds(seconds) if seconds else count_of(len(longest), 'statement')} and longer {engine.at} read prompts"
        f"{at}, and each of up to {max(load.running for load in longest)} running requests got {_say(pace)} "
        f"tokens a second; without a prompt it is {_say(usual)}. None waited, and {max(load.cache for load in longest):.0%} of the KV "
        "cache was taken.",
        evidence=tuple(log_evidence(load.line) for load in (whole, longest[0], longest[-1])),
        fix=_smaller(engine, said[0].line.log),
        order=longest[-1].line.order,
    )


def _behind_long_prompts(pod: Pod, engine: Engine, log: Log, said: list[Load]) -> Finding | None:
    """vLLM's requests that wait though there is room and a place: each step is full with the prompts of a few long requests.

    How long they are tells the cache, of which so many tokens are taken by so few.
    """
    holds = next((size for _, size in log.matching(rf"{_HOLDS}(\d[\d,]{{0,15}}) tokens", _HOLDS)), None)
    last = since_when(said, _waits_for_a_step)
    places, transfer = engine.value("max_num_seqs"), engine.value("kv_transfer_config")
    if holds is None or not lasts(last[-RECENT:]):
        return None
    if isinstance(transfer, dict) and transfer.get("kv_role") == "kv_producer":
        return None  # it does nothing but read prompts for others that generate
    tokens = int(holds[1].replace(",", ""))
    each = [load.cache * tokens / load.running for load in last]
    if sum(each) / len(each) < _LONG_TOKENS or (isinstance(places, int) and max(x.running for x in last) >= places):
        return None
    read = sum(load.read or 0.0 for load in last) / len(last)
    return Finding(
        severity="warning",
        summary=f"{engine.at} reads prompts at {read:.0f} tokens a second, and each of the up to {max(x.running for x in last)} requests "
        f"that run has {sum(each) / len(each):.0f} tokens on average: up to {max(x.waiting for x in last)} others wait for them, though no "
        f"more than {max(x.cache for x in last):.0%} of the KV cache is taken.",
        evidence=(log_evidence(last[0].line), log_evidence(last[-1].line)),
        fix=_apart(pod, engine),
        order=last[-1].line.order,
    )


def _queued_behind_prompts(pod: Pod, engine: Engine, said: list[Load]) -> Finding | None:
    """vLLM's streams that stand still, again and again, while a queue builds up behind a few long prompts though the cache has room.

    How long these are tells what was read, up to the statement after it, for each request that was begun meanwhile, and one at least
    for each statement that has read some.
    """
    usual = max((load.made / load.running for load in said if load.running and load.made), default=0.0)
    held = list[tuple[list[Load], float]]()
    if usual < _READS:
        return None  # it does little but read prompts, for others that generate
    for still, numbered in itertools.groupby(range(len(said)), lambda n: _stands_before_a_queue(said[n], usual)):
        places = list(numbered)
        run, counted = [said[n] for n in places], said[places[0] : places[-1] + 2]
        tokens = [(b.read or 0.0) * (seconds_between(a.line, b.line) or 0) for a, b in itertools.pairwise(counted)]
        each = sum(tokens) / max(run[-1].running - run[0].running, sum(map(bool, tokens)), 1)
        # one that computes nothing at all fills no cache meanwhile
        reads = run[-1].cache > run[0].cache and run[-1].waiting > run[0].waiting
        # a prompt counts when all of it is read: of short ones, with answers of a token, each statement has some
        long = any(not load.read for load in run) and each >= _LONG_TOKENS
        if still and len(run) >= _IN_A_ROW and reads and long:
            held.append((run, each))
    if len(held) < 2:
        return None
    run, each = held[-1]
    return Finding(
        role=_role(pod, run[-1].line),
        severity="warning",
        summary=f"{len(held)} times the {run[0].running} requests or so that {engine.at} runs stood still, the last time for "
        f"{say_seconds(seconds_between(run[0].line, run[-1].line) or 0)}, and the queue grew from {run[0].waiting} to {run[-1].waiting}: "
        f"it read prompts of about {each:.0f} tokens each, with {max(load.cache for load in run):.0%} of the KV cache taken. At other "
        f"times each stream gets up to {_say(usual)} tokens a second.",
        evidence=(log_evidence(run[0].line), log_evidence(run[-1].line)),
        explains=("queue-growing",),
        fixes=(*_shared_steps(engine), _apart(pod, engine)),
        order=run[-1].line.order,
    )


def _stands_before_a_queue(load: Load, usual: float) -> bool:
    """Whether running requests get hardly anything of the `usual` while others wait, and not for want of room."""
    if load.running < 2 or not load.waiting or load.cache > _ROOM or load.made is None:
        return False
    return load.made <= min(_PER_STREAM, _TENTH * usual) * load.running


def _shared_steps(engine: Engine) -> Iterator[Fix]:
    """A share of vLLM's steps that no single prompt goes beyond, so that short ones are read beside it; others let it have them whole."""
    budget = engine.value("max_num_batched_tokens")
    if engine.name != "vllm" or not engine.at_least(_CAPS_PROMPTS) or engine.explicit(_CAP) or _whole_prompts(engine):
        return
    if not second_engine(engine):
        return  # the scheduler of V0 heeds it beside --max-num-partial-prefills alone
    tokens = budget // 2 if isinstance(budget, int) else _LEAST_CHUNK
    summary = "Let no prompt take a whole step: short ones are read beside it then (of a hybrid model no less than its block size)"
    yield fixes.set_flag(engine, _CAP, "--long-prefill-token-threshold", str(tokens), summary)


def _apart(pod: Pod, engine: Engine) -> Fix:
    """What lets short requests go on beside long prompts."""
    found = engine.value("enable_prefix_caching")
    on = found or (found is None and second_engine(engine))
    again = "" if on else "let prefixes that are asked again be found in the cache (--enable-prefix-caching), and "
    return fixes.advice(
        f"Give long prompts an endpoint of their own, and cap the length on {fixes.edited(pod)}; {again}let more replicas share what is "
        "left"
    )


def _waits_for_a_step(load: Load) -> bool:
    """Whether requests wait though the cache has room for one more like those that run, while next to nothing but prompts is computed."""
    if not load.running or not load.waiting or load.read is None or load.made is None:
        return False
    if load.cache * (load.running + 1) / load.running > _ROOM:
        return False
    return load.read >= _PROMPT_TOKENS and load.read >= _MOSTLY * load.made


def _say(pace: float) -> str:
    """Tokens in a second, with two digits where they are few."""
    return f"{pace:.0f}" if pace >= 10 else f"{pace:.2g}"


def _stands_still(load: Load, usual: float) -> bool:
    """Whether running requests stand still while long prompts are read."""
    if not _slow(load, usual) or load.read is None or load.made is None:
        return False
    return load.read >= _PROMPT_TOKENS * min(max(load.made, 0.1), _PER_STREAM)


def _slow(load: Load, usual: float) -> bool:
    """Whether running requests get hardly a token of the `usual` in a second, and not for want of room."""
    if load.running < 2 or load.waiting or load.cache > _ROOM or load.made is None:
        return False
    return load.made <= min(_PER_STREAM, _TENTH * usual) * load.running or (
        load.running <= _FEW_STREAMS and load.made <= _TWENTIETH * usual * load.running
    )


def _before_its_first_token(said: list[Load], usual: float) -> list[Load]:
    """The longest run of statements that tell of slow streams and a cache that fills, up to one that counts a long prompt.

    vLLM counts the tokens of a prompt when it gives its first token (`v1/metrics/stats.py`): meanwhile it reads nothing, it says.
    """
    found: list[Load] = []
    for slow, numbered in itertools.groupby(range(len(said)), lambda n: _slow(said[n], usual)):
        places = list(numbered)
        run, counted = [said[n] for n in places], said[places[0] : places[-1] + 2]
        tokens = sum((b.read or 0.0) * (seconds_between(a.line, b.line) or 0) for a, b in itertools.pairwise(counted))
        if (
            slow
            and any(load.made for load in run)  # else there is no stream: all that run are read
            and run[-1].cache > run[0].cache
            and tokens >= _LONG_TOKENS
            and len(run) > max(len(found), 1)
        ):
            found = run
    return found


class _Timing(msgspec.Struct, frozen=True):
    """What llama-server says of a request: its slot, the lines of its begin and end, and the seconds of prompt and answer."""

    slot: str
    begin: Line
    end: Line
    prompt: float
    tokens: int
    answer: float


def _held_up(pod: Pod, engine: Engine, log: Log) -> Finding | None:
    """A long prompt of one slot that took most of the time in which another slot was answering."""
    timings = list(_timings(log))[-_REQUESTS:]
    for long in reversed(timings):
        if long.prompt < _PROMPT_SECONDS:
            continue
        for other in timings:
            beside = (
                other.slot != long.slot
                and other.begin.number < long.begin.number
                and other.end.number > long.begin.number
            )
            if not beside or other.tokens * _TENTH > long.tokens or long.prompt < _MOST * other.answer:
                continue
            return Finding(
                role=_role(pod, long.end),
                severity="warning",
                confidence="likely" if long.prompt >= _LONG_SECONDS else "possible",
                summary=f"Slot {long.slot} of {engine.at} read a prompt of {long.tokens} tokens for {say_seconds(long.prompt)}, and "
                f"slot {other.slot}, which was answering, took {say_seconds(other.answer)}: it stood still meanwhile.",
                evidence=(log_evidence(long.end), log_evidence(other.end)),
                fix=_smaller(engine, log),
                order=long.end.order,
            )
    return None


def _timings(log: Log) -> Iterator[_Timing]:
    """The requests of which a log has both begin and timing, which stands in the lines below its heading."""
    begun: dict[tuple[str, str], Line] = {}
    for line in log.find("slot "):
        if launched := re.search(_LAUNCHED, line.text):
            begun[launched[1], launched[2]] = line
            continue
        timed = re.search(_TIMED, line.text)
        begin = begun.get((timed[1], timed[2])) if timed and "timing" in line.text else None
        if timed is None or begin is None:
            continue
        text = "\n".join(other.text for other in log.lines(line.number, line.number + 3))
        prompt, answer = re.search(_PROMPT, text), re.search(_ANSWER, text)
        if prompt:
            seconds = float(answer[1]) / 1000 if answer else 0.0
            yield _Timing(timed[1], begin, line, float(prompt[1]) / 1000, int(prompt[2]), seconds)


#: vLLM's cap on what one prompt gets of a step, which the scheduler of V1 heeds since then (`v1/core/sched/scheduler.py`).
_CAP, _CAPS_PROMPTS = "long_prefill_token_threshold", "0.8.5"

#: What vLLM prints of the tokens of a step, as what it takes where nothing is set goes by its GPU and release; what llama-server takes
#: then; and fewer than that cost throughput.
_TOLD_CHUNK, _SLOTS_CHUNK, _LEAST_CHUNK = "max_num_batched_tokens=", 2048, 1024


def _smaller(engine: Engine, log: Log) -> Fix:
    """Smaller chunks, or an endpoint of their own for long prompts."""
    flag = engine.called("max_num_batched_tokens")
    told, seqs = engine.value("max_num_batched_tokens"), engine.value("max_num_seqs")
    printed = (re.search(rf"\b{_TOLD_CHUNK}(\d{{1,7}})\b", line.text[:4000]) for line in log.find(_TOLD_CHUNK))
    now = told if isinstance(told, int) else next((int(said[1]) for said in printed if said), 0)
    now = now or (_SLOTS_CHUNK if engine.name == "llama.cpp" else 0)
    # vLLM takes no fewer than it runs requests
    lower = max(now // 4 // 256 * 256, _LEAST_CHUNK, seqs if isinstance(seqs, int) and engine.name == "vllm" else 0)
    if lower < now:
        summary = f"Lower {flag} from {now} to {lower}, so that a step with a prompt takes less"
        return fixes.set_flag(engine, "max_num_batched_tokens", flag, str(lower), summary)
    where = fixes.edited(engine.container.pod)
    lowered = "" if now else f", or lower {flag}, so that a step with a prompt takes less"
    return fixes.advice(f"Give long prompts an endpoint of their own, beside {where}{lowered}")


def _two_kinds(length: Histogram) -> float | None:
    """The length that short prompts do not exceed, where prompts are of two kinds; None elsewhere."""
    for bound in length.bounds:
        if length.below(bound) < _SHORT_SHARE:
            continue
        far = 1 - length.below(bound * _TIMES)
        between = 1 - far - length.below(bound)
        return bound if far >= _LONG_SHARE and between <= _BETWEEN else None
    return None


def _whole_prompts(engine: Engine) -> Setting | None:
    """The setting by which prompts are not cut."""
    if engine.name == "vllm":
        chunked = engine.explicit("enable_chunked_prefill")
        return chunked if chunked and chunked.value is False and not _chunks_anyway(engine) else None
    if engine.name == "sglang":
        size = engine.explicit("chunked_prefill_size")
        return size if size and isinstance(size.value, int) and size.value <= 0 else None
    return None


def _chunks_anyway(engine: Engine) -> bool:
    """Whether it is a release of vLLM whose V1 engine chunks prompts whatever was asked for (0.8 to 0.11)."""
    return second_engine(engine) and not engine.at_least("0.12.0")
