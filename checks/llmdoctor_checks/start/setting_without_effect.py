"""A variable or flag that this engine and version never reads."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Engine, Evidence, Finding, Fix, Line, Logs, Pod, Problem, check, fixes, log_evidence

#: Variables with a check of their own.
_ELSEWHERE = frozenset(["NCCL_TIMEOUT"])

#: Ollama's variable for the length of its context.
_CONTEXT = "OLLAMA_CONTEXT_LENGTH"


@check("setting-without-effect", since="0.1", severity="info")
def setting_without_effect(pod: Pod, engine: Engine, logs: Logs | None) -> Iterator[Finding]:
    """A setting has no effect: this version of the engine never reads it.

    An environment variable that nobody knows is not an error, so a misspelt one, or one that a newer version has
    dropped (`VLLM_USE_V1` after 0.11, `VLLM_ATTENTION_BACKEND` after 0.14), goes unnoticed. The same happens to arguments
    after `sh -c SCRIPT`, which become the script's own, to a positional model of
    `python -m vllm.entrypoints.openai.api_server`, and to `--config=FILE` written as one word. The server then runs, but
    not as its author meant.

    ## Fix

    Remove the setting, or use what took its place. Arguments of a script reach the engine only where the script passes
    them on (`exec vllm serve "$@"`).

    ## References

    - https://docs.vllm.ai/en/latest/configuration/env_vars/
    - https://docs.vllm.ai/en/latest/configuration/serve_args/
    """
    found = [p for p in engine.problems if p.kind == "no-effect" and p.flag not in _ELSEWHERE]
    if not found:
        return
    cut = next((p for p in found if p.flag in engine.container.env and _CONTEXT in p.detail), None)
    line = _cuts(engine, logs) if cut is not None and logs is not None and pod.ready else None
    if cut is not None and line is not None:
        yield Finding(
            role="cause",
            severity="warning",
            confidence="likely",
            summary=f"{_summary(engine, [cut])} Its context stays as it is, and prompts are cut to it.",
            evidence=(_evidence(pod, cut), log_evidence(line)),
            explains=("request-too-long",),
            fixes=(*_meant(engine, cut), _fix(engine, cut)),
            order=line.order,
            pods=(pod.name,),
        )
        return
    lost = [p for p in found if p.certain and _changes_much(engine, p)]
    grave = bool(lost) and not pod.ready
    shown = lost if grave else found
    yield Finding(
        role="risk" if grave else "note",
        severity="warning" if grave else "info",
        confidence="certain" if all(p.certain for p in shown) else "likely",
        summary=_summary(engine, shown),
        evidence=tuple(_evidence(pod, p) for p in shown),
        fixes=tuple(_fix(engine, p) for p in shown[:3]),
        pods=(pod.name,) if pod.exists else (),
    )


def _cuts(engine: Engine, logs: Logs) -> Line | None:
    """The last line by which Ollama says that it cut a prompt."""
    log = logs.current(engine.container.name)
    return next(reversed(list(log.find("truncating input prompt"))), None) if log and engine.name == "ollama" else None


def _meant(engine: Engine, problem: Problem) -> Iterator[Fix]:
    """The variable of the context that Ollama reads, with the value that was given to the other."""
    value = engine.container.env[problem.flag].value or ""
    if value.isdigit():
        yield fixes.set_env(
            engine.container, _CONTEXT, value, f"Set {_CONTEXT} to {value}, as far as the GPU's memory allows"
        )


def _summary(engine: Engine, shown: list[Problem]) -> str:
    """What is not read, and why; said once where the reason says the first half itself."""
    said, why = f"{engine.label} does not read {_names(shown)}", shown[0].detail.rstrip(".")
    return f"{why}." if why.startswith(said) else f"{said}: {why}."


def _changes_much(engine: Engine, problem: Problem) -> bool:
    """Whether without it another server runs than was meant: the model, a whole file, or options of its own are lost."""
    if problem.flag == "model":
        return engine.explicit("model") is None
    return problem.flag == "--config" or "script's $0" in problem.detail


def _names(problems: list[Problem]) -> str:
    names = list(dict.fromkeys(p.flag for p in problems))
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _evidence(pod: Pod, problem: Problem) -> Evidence:
    origin = pod.template_of.origin if pod.template_of else None
    if origin and not pod.exists:
        return Evidence(source="manifest", ref=problem.path, text=problem.text, file=origin.file, line=origin.line)
    return Evidence(source="pod", ref=problem.path, text=problem.text)


def _fix(engine: Engine, problem: Problem) -> Fix:
    where = fixes.edited(engine.pod)
    if problem.flag in engine.container.env:
        return fixes.remove_env(engine.container, problem.flag, f"Remove {problem.flag}")
    if problem.flag == "model":
        return fixes.advice(f"Write --model before the name of the model in {where}")
    if problem.flag == "--config":
        return fixes.advice(f"Write --config and the file as two list elements in {where}")
    if "script's $0" in problem.detail:
        return fixes.advice(f'Let the script pass them on in {where}: exec … "$@", with a word for $0 before them')
    return fixes.advice(f"Remove {problem.flag} in {where}")
