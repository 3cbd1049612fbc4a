"""Long prompts that hold up all others."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Engine, Finding, Pod, Setting, Workload, check, fixes, setting_evidence

#: A prompt of fewer tokens is computed in a fraction of a second on any GPU that serves such models.
_LONG_TOKENS = 16384


@check("head-of-line-blocking", since="0.2", severity="info")
def head_of_line_blocking(pod: Pod, engine: Engine, workload: Workload | None) -> Iterator[Finding]:
    """Long prompts block short ones: one endpoint for both, and prompts are not cut into chunks.

    Without chunked prefill the engine computes a whole prompt in one step. For a prompt of a hundred thousand tokens the
    step takes many seconds, in which every other request of that replica gets no token: streams stand still, and short
    questions wait. vLLM chunks prompts by default from 0.8 on (its V1 engine), SGLang by 2048 to 16384 tokens.

    ## Fix

    Leave chunked prefill on. Where it has to stay off, give long prompts an endpoint of their own, and cap the length on
    the other.

    ## References

    - https://docs.vllm.ai/en/latest/configuration/optimization/#chunked-prefill
    - https://docs.sglang.ai/advanced_features/server_arguments.html
    """
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


def _whole_prompts(engine: Engine) -> Setting | None:
    """The setting by which prompts are not cut."""
    if engine.name == "vllm":
        chunked = engine.explicit("enable_chunked_prefill")
        return chunked if chunked and chunked.value is False else None
    if engine.name == "sglang":
        size = engine.explicit("chunked_prefill_size")
        return size if size and isinstance(size.value, int) and size.value <= 0 else None
    return None
