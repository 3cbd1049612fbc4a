"""A context length that the model's configuration does not allow."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Engine, Finding, Logs, Pod, check, fixes, setting_evidence
from kubectl_llmdoctor.catalog.models import find
from llmdoctor_checks._consequences import FAILED_START

#: Engines that refuse to start: the flag, the variable that turns the refusal into a warning, and the first version
#: that was seen to refuse ("" is all).
_REFUSES = {
    "vllm": ("--max-model-len", "VLLM_ALLOW_LONG_MAX_MODEL_LEN", ""),
    "huggingfaceserver": ("--max-model-len", "VLLM_ALLOW_LONG_MAX_MODEL_LEN", ""),
    "sglang": ("--context-length", "SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN", "0.5.5"),
}

#: Settings by which the model's own configuration may be changed.
_OVERRIDES = ("hf_overrides", "rope_scaling", "hf_config_path", "config_file", "model_overrides", "rope_theta")
_WORDS = ("override", "rope", "hf-config-path")


@check("max-len-exceeds-model", since="0.1")
def max_len_exceeds_model(pod: Pod, engine: Engine, logs: Logs | None) -> Iterator[Finding]:
    """The context length exceeds what the model allows.

    The engine derives the longest context from the model's config.json (max_position_embeddings and the like, times a
    RoPE scaling factor) and refuses to start with a longer one. It starts when the check is switched off
    (`VLLM_ALLOW_LONG_MAX_MODEL_LEN`, `SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN`), but then long requests give wrong
    text or CUDA errors. From vLLM 0.31 on a YaRN factor no longer multiplies the length, so recipes that worked stop
    working.

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
    flag, variable, since = _REFUSES[engine.name]
    if since and not engine.at_least(since):
        return
    if any(log.text for log in (logs.of(container.name) if logs else ())):
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
            fixes.advice(
                "For more the model needs RoPE scaling, if its makers provide for it (vLLM: --hf-overrides with "
                "rope_parameters, from 0.31 on max_position_embeddings too)"
            ),
        ),
    )


def _overridden(engine: Engine) -> bool:
    """Whether something changes the model's configuration, so that the table says nothing of it."""
    if any(engine.explicit(name) or name in engine.found.unresolved for name in _OVERRIDES):
        return True
    return any(word in text.lower() for text in engine.found.argv for word in _WORDS)
