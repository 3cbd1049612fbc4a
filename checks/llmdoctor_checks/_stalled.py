"""Whether an engine has requests and computes nothing: by its metrics, its statements of its load, or its complaint of its workers."""

from kubectl_llmdoctor.api import Engine, Evidence, Line, Logs, Metrics, Pod, log_evidence, say_seconds, seconds_between
from llmdoctor_checks._blocked import BLOCKED
from llmdoctor_checks._load import RECENT, Load, last_load

#: For so long nothing is computed: the prefill of the longest prompts takes less, and fills the cache meanwhile.
_SECONDS = 110

#: The same by metrics, which are read every half minute or minute.
_SECONDS_OF_METRICS = 300

#: Engines that count tokens with each step; SGLang does when a request has ended.
_COUNTS_EACH_STEP = ("vllm",)

#: So many of them, a minute apart, are no step that was long.
_TIMES = 2

#: What an engine does, in words, what shows it, and the first line that does.
Still = tuple[str, tuple[Evidence, ...], Line | None]


def stalled(pod: Pod, engine: Engine, logs: Logs | None, metrics: Metrics | None) -> Still | None:
    """What tells that an engine stands still; None where it computes, or where nothing says it."""
    if not (pod.ready or pod.log_only) or engine.container.engine_dead:
        return None
    found = _by_metrics(metrics) if metrics is not None and engine.name in _COUNTS_EACH_STEP else None
    return found or (_by_log(engine, logs) if logs is not None else None)


def _by_metrics(metrics: Metrics) -> Still | None:
    running, made, read = metrics.span("running"), metrics.rates("generation_tokens"), metrics.rates("prompt_tokens")
    waiting = metrics.span("waiting")
    if running is not None and waiting is not None and not any(running.tail(_SECONDS_OF_METRICS).values):
        running = waiting
    if running is None or made is None or read is None:
        return None
    spans = [span.tail(_SECONDS_OF_METRICS) for span in (running, made, read)]
    cache = metrics.cache.tail(_SECONDS_OF_METRICS) if metrics.cache else None
    long = all(span.seconds >= _SECONDS_OF_METRICS * 0.9 and len(span.points) >= 4 for span in spans)
    still = not any(spans[1].values) and not any(spans[2].values)
    if not long or not still or min(spans[0].values) < 1 or cache is None or len(set(cache.values)) > 1:
        return None
    doing = "waiting, none running," if running is waiting else "running"
    text = f"has {running.last:.0f} requests {doing} and has computed no token for {say_seconds(spans[1].seconds)}"
    return text, (spans[0].evidence(), spans[1].evidence(), cache.evidence(lambda n: f"{n:.1%}")), None


def _by_log(engine: Engine, logs: Logs) -> Still | None:
    said = last_load(engine.container, logs)
    if not said or said[-1].tokens is None or not _has_requests(said[-1]):
        return None
    still: list[Load] = []
    for load in reversed(said):
        if load.tokens or not _has_requests(load) or load.cache != said[-1].cache:
            break
        still.insert(0, load)
    first, last = (still[0].line, still[-1].line) if still else (said[-1].line, said[-1].line)
    seconds = seconds_between(first, last) or 0
    if still and (seconds >= _SECONDS or (len(still) == RECENT and seconds)):
        there = (
            f"{said[-1].running} requests running"
            if said[-1].running
            else f"{said[-1].waiting} requests waiting, none running,"
        )
        text = f"has {there} and has computed no token for {say_seconds(seconds)}"
        return text, (log_evidence(first), log_evidence(last)), first
    if not said[-1].running:
        return None
    before = still[0].line.number if still else said[-1].line.number
    blocked = [line for line in last.log.find(BLOCKED) if line.number > before]
    if len(blocked) < _TIMES or (seconds_between(blocked[0], blocked[-1]) or 0) < 50 * (_TIMES - 1):
        return None
    text = f"has {said[-1].running} requests running, and its workers have taken no work for minutes"
    return text, (log_evidence(said[-1].line), log_evidence(blocked[0]), log_evidence(blocked[-1])), blocked[0]


def _has_requests(load: Load) -> bool:
    return bool(load.running or load.waiting)
