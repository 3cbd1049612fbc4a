"""A context length that the model's configuration does not allow."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Confidence,
    Engine,
    Finding,
    Fix,
    Line,
    Logs,
    Pod,
    Setting,
    check,
    fixes,
    log_evidence,
    pod_evidence,
    setting_evidence,
)
from kubectl_llmdoctor.catalog.models import find
from llmdoctor_checks._consequences import FAILED_START

#: Engines that refuse to start: the variable that turns the refusal into a warning, and the first version that was seen to
#: refuse ("" is all).
_REFUSES = {
    "vllm": ("VLLM_ALLOW_LONG_MAX_MODEL_LEN", ""),
    "huggingfaceserver": ("VLLM_ALLOW_LONG_MAX_MODEL_LEN", ""),
    "sglang": ("SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN", "0.5.5"),
}

#: Settings by which the model's own configuration may be changed.
_OVERRIDES = ("hf_overrides", "rope_scaling", "hf_config_path", "config_file", "model_overrides", "rope_theta")
_WORDS = ("override", "rope", "hf-config-path")

#: The assertion of a kernel that PyTorch's Inductor made, of an index beyond a table of so many rows, and what CUDA says then.
_BEYOND = "index out of bounds: 0 <= "
_ROWS = r"Assertion `index out of bounds: 0 <= .{1,120}? < (?P<rows>\d{3,8})` failed"
_ASSERTED = "device-side assert triggered"
#: vLLM's and SGLang's warning, where the check is switched off.
_WARNED = "is greater than the derived "
_DERIVED = r"User-specified (?:max_model_len|context_length) \(\d+\) is greater than the derived \w{1,20} \((?:\w{1,40}=)?(?P<derived>\d+)"
#: Lengths are given in units of so many tokens; vocabularies, whose tables are asserted as well, mostly are not.
_UNIT = 1024


@check("max-len-exceeds-model", since="0.1", literals=(_BEYOND, _ASSERTED, _WARNED))
def max_len_exceeds_model(pod: Pod, engine: Engine, logs: Logs | None) -> Iterator[Finding]:
    """The context length exceeds what the model allows.

    The engine derives the longest context from the model's config.json (max_position_embeddings and the like, times a
    RoPE scaling factor) and refuses to start with a longer one. It starts when the check is switched off
    (`VLLM_ALLOW_LONG_MAX_MODEL_LEN`, `SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN`), but then long requests give wrong
    text or CUDA errors: a position beyond the model's table stops the kernel at an assertion (`index out of bounds:
    0 <= tmp16 < 40960`, "device-side assert triggered"), and the engine dies of a request. From vLLM 0.31 on a YaRN factor
    no longer multiplies the length, so recipes that worked stop working.

    ## Fix

    Lower the length, or extend the model as its makers describe, by RoPE scaling in `--hf-overrides`.

    ## References

    - https://docs.vllm.ai/en/latest/configuration/engine_args/
    - https://docs.vllm.ai/en/latest/configuration/env_vars/
    """
    asked, model = engine.explicit("max_model_len"), engine.explicit("model")
    container = engine.container
    crashed = container.crashed
    if engine.name not in _REFUSES or asked is None or model is None or (pod.exists and not crashed) or pod.log_only:
        return
    variable, since = _REFUSES[engine.name]
    flag = engine.called("max_model_len")
    if beyond := _beyond_the_table(engine, asked, logs):
        yield beyond
        return
    if since and not engine.at_least(since):
        return
    if any(log.text for log in container.own_logs(logs)):
        return  # what it printed is the better witness
    found = find(engine.checkpoint)
    longest = found.architecture.longest_context if found else None
    if not found or not longest or not isinstance(asked.value, int) or asked.value <= longest or _overridden(engine):
        return
    if variable in container.env:
        return
    yield Finding(
        role="cause" if crashed else "risk",
        severity="critical",
        summary=f"{asked.text} is set, and the configuration of {found.id} allows {longest} tokens: {engine.label} "
        "refuses to start.",
        evidence=(setting_evidence(container, asked), setting_evidence(container, model)),
        explains=FAILED_START if crashed else (),
        fixes=(
            fixes.set_flag(engine, "max_model_len", flag, str(longest), f"Cap the context at {longest} tokens"),
            _by_scaling(),
        ),
    )


def _beyond_the_table(engine: Engine, asked: Setting, logs: Logs | None) -> Finding | None:
    """A kernel that stopped at a position which the model's table of positions does not have, with a longer context allowed."""
    container = engine.container
    variable, _ = _REFUSES[engine.name]
    flag = engine.called("max_model_len")
    if not container.crashed or logs is None or not isinstance(asked.value, int):
        return None
    stopped = _stopped(container.name, logs)
    if stopped is None:
        return None
    line, rows, derived = stopped
    found = find(engine.checkpoint)
    known = {derived, found.architecture.longest_context if found else None}
    allowed = variable in container.env
    sure: Confidence | None = "certain" if rows in known else "likely" if allowed and rows % _UNIT == 0 else None
    if found and found.architecture.vocab_size == rows:  # the table may be that of the words as well
        sure = "likely" if rows in known else None
    if sure is None or rows >= asked.value:
        return None
    capped = f"Cap the context at {rows} tokens, which the model has positions for"
    if allowed:
        capped += f", and take {variable} out, which lets a longer one pass"
    return Finding(
        confidence=sure,
        summary=f"{asked.text} is set, and the model has {rows} positions: a kernel stopped at a later one, and the engine died of it.",
        evidence=(
            log_evidence(line),
            setting_evidence(container, asked),
            *((pod_evidence(container, f"env[{variable}]", str(container.env[variable].value)),) if allowed else ()),
        ),
        explains=("illegal-memory-access", "engine-dead", *FAILED_START),
        fixes=(fixes.set_flag(engine, "max_model_len", flag, str(rows), capped), _by_scaling()),
        order=line.order,
    )


def _stopped(container: str, logs: Logs) -> tuple[Line, int, int | None] | None:
    """Where a kernel stopped beyond a table, how many rows that has, and what context the engine derived."""
    for log in logs.of(container):
        for line in log.find(_BEYOND):
            said = re.search(_ROWS, line.text[:2000])
            if said is None or not any(x.number >= line.number for x in log.find(_ASSERTED)):
                continue
            warned = (re.search(_DERIVED, x.text[:2000]) for x in log.find(_WARNED))
            derived = next((int(one["derived"]) for one in warned if one), None)
            return line, int(said["rows"]), derived
    return None


def _by_scaling() -> Fix:
    return fixes.advice(
        "For more the model needs RoPE scaling, if its makers provide for it (vLLM: --hf-overrides with "
        "rope_parameters, from 0.31 on max_position_embeddings too)"
    )


def _overridden(engine: Engine) -> bool:
    """Whether something changes the model's configuration, so that the table says nothing of it."""
    if any(engine.explicit(name) or name in engine.found.unresolved for name in _OVERRIDES):
        return True
    return any(word in text.lower() for text in engine.found.argv for word in _WORDS)
