"""A long-context model whose context nothing caps."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Engine,
    Evidence,
    Finding,
    Fix,
    Line,
    Logs,
    Pod,
    Sizing,
    check,
    fixes,
    log_evidence,
    pod_evidence,
    setting_evidence,
)
from kubectl_llmdoctor.catalog.models import native_context
from llmdoctor_checks._consequences import FAILED_START

from ._budget import finding, gib, role_of, room
from ._graphs import eaten

#: A native context from this length on is long: its cache outweighs that of a usual chat many times.
_LONG_TOKENS = 32768

#: vLLM when the cache cannot hold one request of the maximum length, with its own estimate from 0.8.5 on.
_TOO_LONG = r"max seq len \((?P<asked>\d{1,9})\)"
_ESTIMATE = r"estimated maximum model length is (?P<fits>\d{1,9})|stored in KV cache \((?P<stored>\d{1,9})\)"
_USING = r"Using max model len (?P<tokens>\d{1,9})"

#: llama.cpp, which takes the model's own context where it is told 0 or, in most releases, nothing, makes the whole cache as it starts.
_NO_CACHE = ("failed to allocate buffer for kv cache", "failed for self-attention cache")
_CONTEXT, _TAKES = "n_ctx ", r"\bn_ctx {1,12}= (?P<tokens>\d{1,9})\b"

_ENGINES = ("vllm", "sglang", "lmdeploy")


@check(
    "context-uncapped",
    since="0.1",
    severity="critical",
    literals=("max seq len (", "Using max model len", *_NO_CACHE, _CONTEXT),
)
def context_uncapped(pod: Pod, engine: Engine, logs: Logs | None, sizing: Sizing) -> Iterator[Finding]:
    """Nothing caps the context length of a long-context model.

    Without a cap the engine takes the model's own maximum, often 131072 tokens or more, and must be able to hold one
    such request in its KV cache. vLLM refuses to start when it cannot ("To serve at least one request with the
    model's max seq len …"). Where it starts, a few long prompts fill the cache and all others wait; a server that
    started does not run out of GPU memory for a long prompt, since the cache is reserved in advance.

    Where model, GPU and settings are known, the room for the cache is computed: it is a risk when one request of the
    model's own length does not fit, and otherwise a note. Text Generation Inference caps it by itself: at what fits, before 3.0 at
    4096 tokens or less.

    llama-server makes the cache of the whole context as it starts: where it finds no memory for it, and prints a context that
    nobody asked for, this is why.

    ## Fix

    Cap the context at what clients need and the cache can hold several times:

        --max-model-len 32768        (vLLM; SGLang --context-length, LMDeploy --session-len, llama.cpp --ctx-size)

    ## References

    - https://docs.vllm.ai/en/latest/configuration/conserving_memory/
    """
    if engine.name == "llama.cpp" and logs is not None:
        yield from _of_llama(engine, logs)
    if engine.name not in _ENGINES or engine.explicit("max_model_len"):
        return
    container = engine.container
    capped = "no " + engine.called("max_model_len")
    crashed = container.crashed
    named = engine.explicit("model") is not None  # without even a model the arguments are not all known
    refused = _refusal(logs, container.name) if logs and crashed and named and engine.found.argv_known else None
    if refused and eaten(logs, engine) is not None:
        return  # the model's own length would fit beside usual graphs
    if refused:
        line, asked, fits = refused
        yield Finding(
            confidence="certain",
            summary=f"Nothing caps the context, so the model's own {asked} tokens apply, more than the KV cache can hold"
            + (f": {fits} fit." if fits else "."),
            evidence=(log_evidence(line), pod_evidence(container, "args", capped)),
            explains=("kv-cache-below-max-len", *FAILED_START),
            fixes=_fixes(engine, fits),
            order=line.order,
        )
        return
    budget = sizing.budget if role_of(pod, sizing) and (pod.exists or not _may_be_capped(pod, engine)) else None
    if budget and budget.lacks_room and budget.per_request:
        yield finding(
            pod,
            sizing,
            f"Nothing caps the context of {sizing.model_name}: one request of its own {budget.context} tokens needs "
            f"{gib(budget.per_request)} of KV cache, and {room(sizing)}.",
            explains=("kv-cache-below-max-len",),
        )
        return
    if crashed or _may_be_capped(pod, engine):  # worth a note, not in the middle of an incident
        return
    model = engine.explicit("model")
    native, evidence = _native(engine, logs)
    if native is None or native < _LONG_TOKENS or evidence is None:
        return
    yield Finding(
        role="note",
        confidence="certain",
        summary=f"Nothing caps the context of {model.value if model else 'the model'}: its own maximum of {native} tokens applies.",
        evidence=(evidence, pod_evidence(container, "args", capped)),
        fixes=_fixes(engine, None, native),
    )


def _of_llama(engine: Engine, logs: Logs) -> Iterator[Finding]:
    """llama.cpp that finds no memory for the cache of a context that nobody asked for."""
    container, told = engine.container, engine.explicit("max_model_len")
    known = engine.explicit("model") and engine.found.argv_known and "max_model_len" not in engine.found.unresolved
    if not container.crashed or not known or (told and told.value):
        return
    for log in logs.of(container.name):
        refused = next(log.find(*_NO_CACHE), None)
        said = [
            (line, re.search(_TAKES, line.text))
            for line in log.find(_CONTEXT)
            if refused and line.number < refused.number
        ]
        line, takes = said[-1] if said else (None, None)
        if refused is None or line is None or takes is None or int(takes["tokens"]) < _LONG_TOKENS:
            continue
        yield Finding(
            confidence="certain",
            summary=f"Nothing caps the context, so the model's own {takes['tokens']} tokens apply, and llama.cpp gets no memory for a KV "
            "cache of that length.",
            evidence=(
                log_evidence(refused),
                log_evidence(line),
                pod_evidence(container, "args", told.text if told else "no --ctx-size"),
            ),
            explains=("kv-cache-no-room", "host-memory-insufficient", "cuda-oom-weights", *FAILED_START),
            fix=fixes.set_flag(
                engine, "max_model_len", "--ctx-size", "8192", "Cap the context, for example: --ctx-size 8192"
            ),
            order=refused.order,
        )
        return


def _may_be_capped(pod: Pod, engine: Engine) -> bool:
    """Whether a cap may stand where it cannot be seen: in a file, a script, an open variable, a runtime or a preset."""
    return "max_model_len" in engine.found.unresolved or not engine.found.argv_known or pod.partial


def _refusal(logs: Logs, container: str) -> tuple[Line, int, int | None] | None:
    """The line by which vLLM refuses, the length asked for, and the length that fits."""
    for log in logs.of(container):
        for line, asked in log.matching(_TOO_LONG, "max seq len ("):
            if "KV cache is needed" in line.text or "stored in KV cache" in line.text:
                estimate = re.search(_ESTIMATE, line.text)
                fits = int(estimate["fits"] or estimate["stored"]) if estimate else None
                return line, int(asked["asked"]), fits
    return None


def _native(engine: Engine, logs: Logs | None) -> tuple[int | None, Evidence | None]:
    """The model's own maximum: as the engine says it, else from the table of models."""
    for log in engine.container.own_logs(logs):
        for line, found in log.matching(_USING, "Using max model len"):
            return int(found["tokens"]), log_evidence(line)
    model = engine.explicit("model")
    if model is None or not isinstance(model.value, str):
        return None, None
    return native_context(model.value), setting_evidence(engine.container, model)


def _fixes(engine: Engine, fits: int | None, native: int = _LONG_TOKENS * 2) -> tuple[Fix, ...]:
    flag = engine.called("max_model_len")
    usual = _LONG_TOKENS if native > _LONG_TOKENS else native // 2  # a cap at its own maximum would cap nothing
    tokens = fits // 16 * 16 if fits and fits >= 1024 else usual
    summary = (
        f"Cap the context at the {tokens} tokens that fit"
        if fits
        else f"Cap the context, for example at {tokens} tokens"
    )
    return (fixes.set_flag(engine, "max_model_len", flag, str(tokens), summary),)
