"""A variable or flag that this engine and version never reads."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Engine,
    Finding,
    Fix,
    Line,
    Logs,
    Pod,
    Problem,
    check,
    dig,
    few,
    fixes,
    log_evidence,
    pod_evidence,
    problem_evidence,
    stating,
)

#: Variables with a check of their own.
_ELSEWHERE = frozenset(["NCCL_TIMEOUT"])

#: Ollama's variable for the length of its context.
_CONTEXT = "OLLAMA_CONTEXT_LENGTH"


#: Where Ollama's image keeps the models that it pulls.
_OLLAMA_HOME = "/root/.ollama"

#: By which words a variable names the place of the models, and not that of logs or of what is only for a time.
_HOLDS_MODELS = r"MODEL|HOME|DATA|STOR"

#: Where KServe puts the model, and the fields that name it.
_MODELS, _STORED_BY = "/mnt/models", ("storageUri", "storage")

#: How the reader of vLLM ends what it says of a model that only a variable names.
_DEFAULT_MODEL = "so it serves its default model"

#: What vLLM prints of the model that it loads: the worker of every release, and the engine before it.
_LOADS = r"Starting to load model (?P<worker>\S+?)\.{0,3}$|with config: model='(?P<engine>[^']+)'"

#: What llama-server prints of a part that it cannot use and goes on without (`server-context.cpp`, `common.cpp`): the option, what it does.
_DONE_WITHOUT = (
    ("failed to initialize speculative decoding context: ", "--model-draft", "speculates nothing"),
    ("no valid control vector files passed", "--control-vector", "applies no control vector"),
)
_SERVES = "llama_server: model loaded"


@check("setting-without-effect", since="0.1", severity="info", literals=tuple(words for words, *_ in _DONE_WITHOUT))
def setting_without_effect(pod: Pod, engine: Engine, logs: Logs | None) -> Iterator[Finding]:
    """A setting has no effect: this version of the engine never reads it.

    An environment variable that nobody knows is not an error, so a misspelt one, or one that a newer version has
    dropped (`VLLM_USE_V1` after 0.11, `VLLM_ATTENTION_BACKEND` after 0.14), goes unnoticed. The same happens to arguments
    after `sh -c SCRIPT`, which become the script's own, to a positional model of
    `python -m vllm.entrypoints.openai.api_server`, and to `--config=FILE` written as one word. The server then runs, but
    not as its author meant. llama-server goes on without a draft model of another vocabulary, or a control vector that it cannot read.

    It is a risk where another server runs than was meant: what an InferenceService lets KServe download to /mnt/models is read only
    by a server that is told so, and vLLM's own image takes its model from its arguments alone, so that
    with nothing but a variable such as `MODEL_NAME` it serves its default model. So it is where a variable that Ollama does not
    read (`OLLAMA_MODELS_PATH`) points at the volume that was made for the models: they go to the container's own file system.

    Fields of a request that a server does not know go unnoticed, too: vLLM dropped `guided_json` and its like in 0.12, and answers 200 with
    text of any form. Its log says so.

    ## Fix

    Remove the setting, or use what took its place. Arguments of a script reach the engine only where the script passes
    them on (`exec vllm serve "$@"`).

    ## References

    - https://docs.vllm.ai/en/latest/configuration/env_vars/
    - https://docs.vllm.ai/en/latest/configuration/serve_args/
    """
    found = [p for p in engine.problems if p.kind == "no-effect" and p.flag not in _ELSEWHERE]
    if not found:
        yield from _unread_storage(pod, engine)
        yield from _done_without(engine, logs) if logs is not None else ()
        return
    lost = [p for p in found if p.certain and _changes_much(engine, p)]
    yield (
        _cut_all_the_same(pod, engine, found, logs)
        or _serves_another(pod, engine, lost, logs)
        or _unheard(pod, engine, found, lost)
    )


def _cut_all_the_same(pod: Pod, engine: Engine, found: list[Problem], logs: Logs | None) -> Finding | None:
    """A longer context that nobody reads, where prompts are cut to the one that there is."""
    cut = next((p for p in found if p.flag in engine.container.env and _CONTEXT in p.detail), None)
    line = _cuts(engine, logs) if cut is not None and logs is not None and pod.ready else None
    if cut is None or line is None:
        return None
    return Finding(
        severity="warning",
        summary=f"{_summary(engine, [cut])} Its context stays as it is, and prompts are cut to it.",
        evidence=(problem_evidence(pod, cut), log_evidence(line)),
        explains=("request-too-long",),
        fixes=(*_meant(engine, cut), _fix(engine, cut)),
        order=line.order,
    )


def _serves_another(pod: Pod, engine: Engine, lost: list[Problem], logs: Logs | None) -> Finding | None:
    """A model that nobody reads, where the log shows that another one is served.

    Beside a model that is stated otherwise it is a word too many, and no other model than the one that is meant is served.
    """
    named = next((p for p in lost if _names_model(p) and engine.explicit("model") is None), None)
    other = _loads_another(engine, named, logs) if named and logs else None
    if not named or not other:
        return None
    return Finding(
        severity="warning",
        confidence="certain",
        summary=f"{_summary(engine, [named])} So it serves another model than {_model(named)}.",
        evidence=(problem_evidence(pod, named), log_evidence(other)),
        explains=("served-model-name-mismatch", "model-not-found", "hf-unauthorized", "hf-unreachable"),
        fix=_fix(engine, named),
        order=other.order,
    )


def _unheard(pod: Pod, engine: Engine, found: list[Problem], lost: list[Problem]) -> Finding:
    """All that has no effect; alone what changes much where the server is not up yet."""
    # a runtime's arguments may be completed by the object that uses it
    grave = bool(lost) and not pod.ready and not ((pod.lent or pod.partial) and _names_model(lost[0]))
    shown = lost if grave else found
    return Finding(
        role="risk" if grave else "note",
        confidence="certain" if all(p.certain for p in shown) else "likely",
        summary=_summary(engine, shown),
        evidence=tuple(problem_evidence(pod, p) for p in shown),
        fixes=tuple(_fix(engine, p) for p in shown[:3]),
    )


def _done_without(engine: Engine, logs: Logs) -> Iterator[Finding]:
    """A part that llama-server was given and could not use: it serves all the same, and says so once."""
    log = logs.current(engine.container.name) if engine.name == "llama.cpp" else None
    for words, option, does in _DONE_WITHOUT if log and log.holds(_SERVES) else ():
        for line in list(log.find(words))[-1:] if log else ():
            why = line.text.partition(words)[2].strip()[:200]
            yield Finding(
                role="note",
                confidence="certain",
                summary=f"llama-server could not use what {option} names, and {does}{f': {why}' if why else ''}.",
                evidence=(log_evidence(line),),
                fix=fixes.advice(f"Correct {option}, or remove it, in {fixes.edited(engine.pod)}"),
            )
            return


def _unread_storage(pod: Pod, engine: Engine) -> Iterator[Finding]:
    """A model that KServe puts into the container, whose server was told of no model and takes its default one."""
    raw = pod.template.raw if pod.template and not pod.exists else {}
    if raw.get("kind") != "InferenceService" or not str(raw.get("apiVersion", "")).startswith("serving.kserve.io/"):
        return
    at = next((f"spec.predictor.model.{key}" for key in _STORED_BY if dig(raw, f"spec.predictor.model.{key}")), None)
    container = engine.container
    if at is None or pod.partial or engine.name != "vllm" or engine.explicit("model") or not engine.found.argv_known:
        return
    written = (*container.spec.argv, *(str(variable.value) for variable in container.spec.env))
    if container.spec.env_from or any(_MODELS in text or "{{" in text for text in written):
        return
    if any("$" in text or text.startswith("--model") for text in container.spec.argv):
        return  # told by a variable that is not known
    text = dig(raw, at)
    yield Finding(
        role="risk",
        summary=f"KServe puts the model into {_MODELS} of {container.name}, and {engine.title}, told of no model, serves its default one.",
        evidence=(
            pod_evidence(pod, at, text if isinstance(text, str) else str(dig(text, "path") or dig(text, "key"))),
            pod_evidence(container, "args", " ".join(container.spec.argv) or "none"),
        ),
        fix=fixes.advice(
            f"Add --model={_MODELS} to the arguments of {container.name}, in the runtime or in {fixes.edited(pod)}"
        ),
    )


def _cuts(engine: Engine, logs: Logs) -> Line | None:
    """The last line by which Ollama says that it cut a prompt."""
    log = logs.current(engine.container.name)
    return log.last("truncating input prompt") if log and engine.name == "ollama" else None


def _loads_another(engine: Engine, named: Problem, logs: Logs) -> Line | None:
    """The line by which vLLM says that it loads another model than the one that was named."""
    log = logs.current(engine.container.name)
    for line, said in log.matching(_LOADS, "Starting to load model ", "with config: model=") if log else ():
        if (said["worker"] or said["engine"]) != _model(named):
            return line
    return None


def _names_model(problem: Problem) -> bool:
    return problem.flag == "model" or problem.detail.endswith(_DEFAULT_MODEL)


def _model(named: Problem) -> str:
    """The model that is meant: a word, or the value of a variable."""
    return named.text.removeprefix(f"{named.flag}=")


def _meant(engine: Engine, problem: Problem) -> Iterator[Fix]:
    """The variable of the context that Ollama reads, with the value that was given to the other."""
    value = engine.container.env[problem.flag].value or ""
    if value.isdigit():
        yield fixes.set_env(
            engine.container, _CONTEXT, value, f"Set {_CONTEXT} to {value}, as far as the GPU's memory allows"
        )


def _summary(engine: Engine, shown: list[Problem]) -> str:
    """What is not read, and why; said once where the reason says the first half itself."""
    flags = list(dict.fromkeys(p.flag for p in shown))
    said, why = f"{engine.label} does not read {few(flags, 4)}", shown[0].detail.rstrip(".")
    text = f"{why}." if why.startswith(said) else f"{said}: {why}."
    return f"{text} The models that it pulls do not lie on that volume." if _beside_volume(engine, shown[0]) else text


def _changes_much(engine: Engine, problem: Problem) -> bool:
    """Whether without it another server runs than was meant: the model, a whole file, or options of its own are lost."""
    if problem.flag == "model":
        return engine.explicit("model") is None
    if _names_model(problem) or _beside_volume(engine, problem):
        return True
    return problem.flag == "--config" or "script's $0" in problem.detail


def _beside_volume(engine: Engine, problem: Problem) -> bool:
    """Whether a variable that Ollama does not read names the mount that was made for the models."""
    container = engine.container
    named = engine.name == "ollama" and problem.flag in container.env and re.search(_HOLDS_MODELS, problem.flag)
    value = container.env[problem.flag].value if named else None
    if not value or not value.startswith("/") or {"OLLAMA_MODELS", "HOME"} & container.env.keys():
        return False
    return container.mount_over(value) is not None and container.mount_over(_OLLAMA_HOME) is None


def _moved(engine: Engine, problem: Problem) -> Fix | None:
    """The value of a variable put to where it is read."""
    value = engine.container.env[problem.flag].value or ""
    if problem.detail.endswith(_DEFAULT_MODEL):
        return fixes.set_flag(engine, "model", "--model", value, f"Name {value} in the arguments")
    if _beside_volume(engine, problem):
        return fixes.set_env(engine.container, "OLLAMA_MODELS", value, f"Have Ollama keep its models in {value}")
    return None


def _fix(engine: Engine, problem: Problem) -> Fix:
    where = fixes.edited(engine.pod)
    if problem.flag in engine.container.env and (meant := _moved(engine, problem)):
        return meant
    if problem.flag in engine.container.env:
        return fixes.remove_env(engine.container, problem.flag, f"Remove {problem.flag}")
    if problem.flag == "model" and engine.explicit("model"):
        return fixes.advice(f"Remove {problem.text}, or name it with --model instead of the other model, in {where}")
    if problem.flag == "model":
        named = stating.word(engine.container, problem.text, f"--model={problem.text}", f"Write --model={problem.text}")
        return named or fixes.advice(f"Write --model before the name of the model in {where}")
    if problem.flag == "--config":
        return fixes.advice(f"Write --config and the file as two list elements in {where}")
    if "script's $0" in problem.detail:
        return fixes.advice(f'Have the script pass them on in {where}: exec … "$@", with a word for $0 before them')
    return fixes.advice(f"Remove {problem.flag} in {where}")
