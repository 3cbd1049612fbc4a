"""Collective timeouts: the variable that everybody sets and nothing reads, and the setting that works."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Engine, Evidence, Finding, Fix, Logs, check, fixes, setting_evidence

#: How vLLM says that it runs on Neuron, where one process has all cores: a log alone shows no resource that says so.
_ON_NEURON = "Platform plugin neuron is activated"


@check("nccl-timeout-missing", since="0.1", severity="info", literals=(_ON_NEURON,))
def nccl_timeout_missing(engine: Engine, logs: Logs | None) -> Iterator[Finding]:
    """A multi-GPU server sets no collective timeout, or sets one that nothing reads.

    When one GPU worker stalls, the others wait for it in a collective operation until a watchdog ends them all.
    Guides say to set `NCCL_TIMEOUT`, but neither NCCL nor PyTorch nor any engine that we read looks at it: NCCL
    itself has no timeout of collectives, and PyTorch's (10 minutes for NCCL, 30 for Gloo) is set by the program that
    creates the process group.

    What works: vLLM 0.18.1 and later `--distributed-timeout-seconds`; SGLang 0.4.6 and later `--dist-timeout`;
    Text Generation Inference has 120 s built in and no setting; vLLM before 0.18.1 has none.

    ## Fix

    Leave the default unless a log shows "Watchdog caught collective operation timeout" with `Timeout(ms)=600000` and
    the work was slow, not stuck. Then raise the engine's own setting. Remove `NCCL_TIMEOUT`.

    ## References

    - https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.init_process_group
    - https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html
    """
    workers = engine.workers or 1
    variable = engine.container.env.get("NCCL_TIMEOUT")
    if engine.container.one_process or (workers < 2 and variable is None):
        return
    if logs is not None and next(logs.find(_ON_NEURON), None) is not None:
        return
    works = _works(engine)
    if variable is not None:
        shown = variable.value if variable.value is not None else f"from {variable.origin}"
        evidence = Evidence(source="pod", ref=variable.path, text=f"NCCL_TIMEOUT={shown}")
        yield Finding(
            role="note",
            confidence="certain",
            summary=f"NCCL_TIMEOUT={shown} has no effect: neither NCCL nor PyTorch nor {engine.title} reads it. {works[0]}",
            evidence=(evidence,),
            fixes=works[1],
        )
    elif engine.explicit("distributed_timeout_seconds") is None:
        evidence_of = [
            engine.explicit(n) for n in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
        ]
        yield Finding(
            role="note",
            confidence="certain",
            summary=f"{workers} workers of {engine.label} wait for each other with the default timeout. {works[0]}",
            evidence=tuple(setting_evidence(engine.container, s) for s in evidence_of if s),
            fixes=works[1],
        )


def _works(engine: Engine) -> tuple[str, tuple[Fix, ...]]:
    """What sets the timeout in this engine and version, and the fix that sets it."""
    if engine.name == "vllm":
        known = engine.at_least("0.18.1")
        if known is False:
            return f"vLLM {engine.version} has no setting for it: PyTorch's 600 s apply; 0.18.1 brought one.", ()
        flag = "--distributed-timeout-seconds"
        text = f"{flag} sets it (default 600 s)." if known else f"From vLLM 0.18.1 on, {flag} sets it (default 600 s)."
        if known and engine.found.argv_known:
            summary = "Raise the collective timeout, if collectives are slow rather than stuck"
            return text, (fixes.set_flag(engine, "distributed_timeout_seconds", flag, "1200", summary),)
        return text, ()
    if engine.name == "sglang":
        known = engine.at_least("0.4.6")
        if known is False:
            return f"SGLang {engine.version} has no setting for it; 0.4.6 brought --dist-timeout.", ()
        return "--dist-timeout sets it (default: PyTorch's 600 s).", ()
    if engine.name == "tgi":
        return "Text Generation Inference has 120 s built in and no setting.", ()
    return f"No setting of {engine.title} for it is known.", ()
