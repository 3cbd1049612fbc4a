"""Long prompts that hold up all others."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Engine,
    Finding,
    Histogram,
    Metrics,
    Pod,
    Setting,
    Workload,
    check,
    fixes,
    setting_evidence,
)

#: A prompt of fewer tokens is computed in a fraction of a second on any GPU that serves such models.
_LONG_TOKENS = 16384


#: So many requests say how long prompts are.
_ENOUGH_REQUESTS = 200

#: Prompts are of two kinds where nine in ten are short, one in a hundred is so many times as long as they are, and few lie
#: in between.
_SHORT_SHARE, _LONG_SHARE, _TIMES, _BETWEEN = 0.85, 0.01, 8, 0.06

#: A first token that half of the requests get soon, and one in twenty waits for so much longer.
_SLOWER, _SLOW_SECONDS = 8, 2.0


@check("head-of-line-blocking", since="0.2", severity="info")
def head_of_line_blocking(
    pod: Pod, engine: Engine, workload: Workload | None, metrics: Metrics | None
) -> Iterator[Finding]:
    """Long prompts block short ones on the same endpoint.

    Without chunked prefill the engine computes a whole prompt in one step. For a prompt of a hundred thousand tokens the
    step takes many seconds, in which every other request of that replica gets no token: streams stand still, and short
    questions wait. vLLM chunks prompts by default from 0.8 on (its V1 engine), SGLang by 2048 to 16384 tokens.

    With chunks the long prompt takes many steps instead of one, and shares each of them with those that generate. But chunks
    are taken in the order of arrival, so that a short question behind two documents still waits for its first token. The
    metrics show it: prompts of two kinds, few in between, and a first token that most requests get soon and some late,
    although the KV cache has room and requests hardly queue.

    ## Fix

    Leave chunked prefill on. Give long prompts an endpoint of their own, and cap the length on the other. vLLM can take
    short prompts first (`--scheduling-policy priority`, with a priority in each request).

    ## References

    - https://docs.vllm.ai/en/latest/configuration/optimization/#chunked-prefill
    - https://docs.sglang.ai/advanced_features/server_arguments.html
    """
    if metrics is not None and pod.ready and (found := _measured(pod, engine, metrics)):
        yield found
        return
    off, length = _whole_prompts(engine), engine.value("max_model_len")
    if off is None or not isinstance(length, int) or length < _LONG_TOKENS:
        return
    replicas = workload.replicas if workload else None
    where = f" on each of {replicas} replicas" if replicas and replicas > 1 else ""
    yield Finding(
        role="note",
        severity="info",
        confidence="likely",
        summary=f"{engine.label} computes each prompt in one step ({off.text}), up to {length} tokens: meanwhile every other "
        f"request{where} waits.",
        evidence=(setting_evidence(engine.container, off),),
        fixes=(fixes.advice(f"Remove {off.text} in {fixes.edited(pod)}, or cap the length"),),
        pods=(pod.name,) if pod.exists else (),
    )


def _measured(pod: Pod, engine: Engine, metrics: Metrics) -> Finding | None:
    """Prompts of two kinds, and first tokens that come late for some while nothing else is short."""
    length, first = metrics.histogram("prompt_length"), metrics.histogram("ttft")
    waiting, cache = metrics.span("waiting"), metrics.cache
    if length is None or first is None or waiting is None or min(length.observed, first.observed) < _ENOUGH_REQUESTS:
        return None
    bound = _two_kinds(length)
    median, slow = first.quantile(0.5), first.quantile(0.95)
    if bound is None or slow < max(_SLOWER * median, _SLOW_SECONDS):
        return None
    # where prompts are computed whole, the queue is theirs: whatever comes meanwhile waits for the step to end
    if (waiting.mean >= 1 and _whole_prompts(engine) is None) or (cache is not None and max(cache.values) > 0.9):
        return None  # they wait for room, which is another matter
    queued = "hardly any is queued" if waiting.mean < 1 else f"{waiting.mean:.0f} are queued and the KV cache has room"
    short, far = length.below(bound), 1 - length.below(bound * _TIMES)
    return Finding(
        role="cause",
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
            fixes.advice(
                f"Give prompts of more than {bound * _TIMES:.0f} tokens an endpoint of their own, and cap the length on "
                f"{fixes.edited(pod)}"
            ),
        ),
        pods=(pod.name,),
    )


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
        return chunked if chunked and chunked.value is False else None
    if engine.name == "sglang":
        size = engine.explicit("chunked_prefill_size")
        return size if size and isinstance(size.value, int) and size.value <= 0 else None
    return None
