"""Requests that are late before the engine's scheduler has them: at the process that takes, renders and tokenizes them.

Sources: vLLM `renderers/base.py` (a request counts as arrived before its chat template, its tokens and its images are made, one after
the other in an API server) and `v1/metrics/stats.py` (what it waited in the scheduler); SGLang
`managers/tokenizer_manager.py` (created before it is tokenized) and the scheduler's own time in its queue.

By Little's law as many requests are on the way to their first token as arrive in a second times the seconds that it takes. Where the
scheduler has far fewer, those that wait and those that run together, the others are before it.
"""

from __future__ import annotations

from kubectl_llmdoctor.api import Engine, Evidence, Finding, Fix, Metrics, Pod, fixes, say_seconds
from llmdoctor_checks.serving._saturation import SUSTAINED_SECONDS

#: So many requests tell, and half of them get their first token so late.
_ENOUGH, _LATE_SECONDS = 100, 5.0
#: No more of that time than this is what nearly all of them waited in the scheduler.
_LITTLE = 0.25
#: A GPU that is less busy than that waits for something.
_IDLE = 0.5
#: One process of Python keeps so many cores busy, hardly more, where it is what all wait for.
_ONE_PROCESS = 4.0
#: By how many processes an engine takes requests, and the option for that.
_OPTIONS = {"vllm": ("api_server_count", "--api-server-count"), "sglang": ("tokenizer_worker_num", "--tokenizer-worker-num")}  # fmt: skip
_MORE, _CORES_OF_ONE = 4, 2
#: So many times as many requests are on the way as the scheduler has, and one more: SGLang does not count the prompt that it reads.
_TIMES = 1.5


def before_the_engine(pod: Pod, engine: Engine, metrics: Metrics) -> Finding | None:
    """First tokens that come late while nobody waits in the scheduler, few run, and no GPU is half busy."""
    option = _OPTIONS.get(engine.name)
    first, queued = metrics.histogram("ttft"), metrics.histogram("queue_time")
    waiting, running = metrics.span("waiting"), metrics.span("running")
    if option is None or not pod.ready or engine.side:
        return None  # prefill and decode wait for each other
    if first is None or queued is None or waiting is None or running is None or waiting.seconds < SUSTAINED_SECONDS:
        return None
    if first.lifetime or queued.lifetime or min(first.observed, queued.observed) < _ENOUGH:
        return None
    median = first.quantile(0.5)
    if median < _LATE_SECONDS or queued.quantile(0.95) > _LITTLE * median:
        return None
    recent, runs = waiting.tail(SUSTAINED_SECONDS), running.tail(SUSTAINED_SECONDS)
    under_way = first.observed / first.seconds * median if first.seconds else 0.0
    if recent.mean >= 1 or runs.mean < 1 or under_way < _TIMES * (max(runs.mean, running.mean) + recent.mean) + 1:
        return None
    grammars = metrics.span("grammar_queue")
    if grammars is not None and grammars.tail(SUSTAINED_SECONDS).mean >= 1:
        return None  # SGLang compiles what answers must look like, beside its queue
    spans = [gpu.utilization.tail(SUSTAINED_SECONDS) for gpu in metrics.gpus if gpu.utilization is not None]
    busiest = max(spans, key=lambda span: span.mean, default=None)
    if busiest is None or busiest.mean >= _IDLE or busiest.seconds < SUSTAINED_SECONDS * 0.9:
        return None
    rates = metrics.rates("cpu_seconds")
    cores = rates.tail(SUSTAINED_SECONDS) if rates is not None else None
    takes = f", and the container takes {cores.mean:.1f} cores" if cores is not None else ""
    late = f"median {median:.2g} s"
    return Finding(
        confidence="likely" if cores is not None and cores.mean < _ONE_PROCESS else "possible",
        summary=f"Half of the requests of {engine.container.name} get their first token after {say_seconds(median)} or later: about "
        f"{under_way:.0f} are on the way to it, of which the scheduler has {runs.mean:.0f} (none waits there for more than "
        f"{queued.quantile(0.95):.2g} s), the busiest GPU is {busiest.mean:.0%} busy{takes}. The others wait for what takes requests in: "
        "images, templates and tokens are made one after the other.",
        evidence=(
            first.evidence(late),
            queued.evidence(f"95 % within {queued.quantile(0.95):.2g} s"),
            running.evidence(),
            waiting.evidence(),
            busiest.evidence(lambda n: f"{n:.0%}"),
            *(
                (Evidence(source="metric", ref=cores.source, text=f"{cores.metric}: {cores.mean:.2g}"),)
                if cores
                else ()
            ),
        ),
        explains=("gateway-timeout",),
        fixes=_fixes(pod, engine, *option),
    )


def _fixes(pod: Pod, engine: Engine, name: str, flag: str) -> tuple[Fix, ...]:
    """More processes that take requests in, as far as there are cores for them; smaller images."""
    smaller = fixes.advice(
        f"Have {fixes.edited(pod)} take smaller images: clients that scale them down, or "
        + ("max_pixels in --mm-processor-kwargs" if engine.name == "vllm" else "max_pixels in --mm-process-config")
    )
    told, limit = engine.value(name, 1), engine.container.limit("cpu") or engine.container.request("cpu")
    now = told if isinstance(told, int) and told > 0 else 1
    wanted = min(_MORE * now, max(limit // 1000 // _CORES_OF_ONE, 1)) if limit else _MORE * now
    if wanted <= now:
        return (
            fixes.advice(f"Give {engine.container.name} more CPU, and {flag} {2 * now}, in {fixes.edited(pod)}"),
            smaller,
        )
    summary = f"Take requests in by {wanted} processes instead of {now} ({flag} {wanted})"
    return fixes.set_flag(engine, name, flag, str(wanted), summary), smaller
