"""A LoRA adapter that the hub does not have, that nobody may load into a server that runs, or that was lost with the one before."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Engine,
    Finding,
    Fix,
    Line,
    Log,
    Logs,
    Pod,
    Setting,
    check,
    fixes,
    in_order,
    log_evidence,
    setting_evidence,
    written_ago,
)
from llmdoctor_checks._consequences import FAILED_START

_NOT_FOUND = "Repository Not Found for url: "
#: The repository that the hub was asked for, as huggingface_hub names it.
_ASKED = r"Repository Not Found for url: https?://[^/\s]{1,200}/(?:api/models/)?(?P<name>[\w.-]+(?:/[\w.-]+){0,8}?)(?=\.?\s*$|/(?:resolve|revision|tree)/)"
#: How it says, some lines before, that there is no such repository, and not that this one is private.
_NONE = "404 Client Error"
_WITHIN = 4
#: vLLM's route for adapters of a server that runs, which it has only where VLLM_ALLOW_RUNTIME_LORA_UPDATING says so; then it warns of it.
_VARIABLE = "VLLM_ALLOW_RUNTIME_LORA_UPDATING"
_LOADS, _OPEN = "POST /v1/load_lora_adapter", "dynamic loading & unloading is enabled"
_ALLOW = "Allow adapters to be loaded while it runs; keep the port from whom you do not trust"
_STARTED = "Application startup complete"
_NO_ROUTE, _FEWEST = r'"POST /v1/load_lora_adapter HTTP/[\d.]{1,3}" 404\b', 2
#: What vLLM prints of an adapter that was loaded or unloaded while it ran, and of a request for a name that it does not serve.
_LOADED, _REMOVED, _NO_MODEL = "Loaded new LoRA adapter: name '", "Removed LoRA adapter: name '", " does not exist."
_NAMED = r"LoRA adapter: name '(?P<name>[^']{1,120})'(?:, path '(?P<path>[^']{1,400})')?"
_ASKED_MODEL = r"The model [`'\\]{1,4}(?P<name>[^`'\\]{1,120})[`'\\]{1,4} does not exist\."
#: Who tried so many seconds ago, and not since, gave it up.
_LATELY = 86400


@check(
    "lora-adapter-missing",
    since="0.1",
    literals=(_NOT_FOUND, _NONE, _LOADS, _OPEN, _STARTED, _LOADED, _REMOVED, _NO_MODEL),
)
def lora_adapter_missing(pod: Pod, engine: Engine, logs: Logs | None) -> Iterator[Finding]:
    """A LoRA adapter is not where the engine looks.

    The engine was told to load an adapter, at start or by a request, and finds no `adapter_config.json` or no weights there: a
    wrong path, a volume that is not mounted in this container, a repository that is not on the hub. At start the server ends;
    at run time only the request that asks for the adapter fails.

    Text Generation Inference takes what has no name before it for a repository of the hub: the hub is then asked for a path
    without its first slash, and answers 401 or 404.

    vLLM lets nobody load an adapter into a server that runs unless VLLM_ALLOW_RUNTIME_LORA_UPDATING is set: controllers that do so
    (production-stack's, AIBrix') meet with 404 each time, and requests for the adapter find no such model.

    What was loaded into a server that runs is in its memory alone: after a restart of the container nobody has it, until somebody
    loads it again.

    ## Fix

    Correct the path or the volume. Have what must survive a restart loaded at every start (`--lora-modules NAME=PATH`).
    A GGUF server wants the adapter as GGUF, the others in PEFT's format. Text Generation
    Inference wants a path as `--lora-adapters NAME=PATH`.

    ## References

    - https://docs.vllm.ai/en/latest/features/lora/
    - https://huggingface.co/docs/peft/index
    - https://huggingface.co/docs/text-generation-inference/conceptual/lora
    """
    if logs is not None and (shut := _shut(pod, engine, logs)) is not None:
        yield shut
    elif logs is not None and (lost := _lost(pod, engine, logs)) is not None:
        yield lost
    told, container = engine.explicit("lora_modules"), engine.container
    if told is None or logs is None or pod.ready:
        return
    adapters = {name.strip("/"): name for name in _adapters(told)}
    for log in logs.of(container.name):
        for line in log.find(_NOT_FOUND):
            found = re.search(_ASKED, line.text)
            name = adapters.get(found["name"].rstrip(".")) if found else None
            if name is not None and (name.startswith("/") or _known_to_be_none(line)):
                yield _finding(engine, told, name, line)
                return


def _shut(pod: Pod, engine: Engine, logs: Logs) -> Finding | None:
    """A vLLM that was not told to let adapters be loaded while it runs, and somebody who tries."""
    log = logs.current(engine.container.name) if engine.name == "vllm" and pod.ready else None
    if log is None or engine.value("allow_runtime_lora_updating") or log.holds(_OPEN):
        return None
    variable = engine.container.env.get(_VARIABLE)
    unread = engine.container.spec.env_from or (variable is not None and variable.value is None)
    if (unread or not engine.own_image) and not log.holds(_STARTED):
        return None  # what nobody read may allow it; the start would tell
    asked = [line for line in log.find(_LOADS) if re.search(r'HTTP/[\d.]{1,3}" \d{3}\b', line.text[:2000])]
    if len(asked) < _FEWEST or not all(re.search(_NO_ROUTE, line.text[:2000]) for line in asked):
        return None
    if (ago := written_ago(asked[-1], pod.cluster.now)) is not None and ago > _LATELY:
        return None
    both = [fixes.set_env(engine.container, _VARIABLE, "True", _ALLOW)]
    if not engine.value("enable_lora"):
        both.append(fixes.set_flag(engine, "enable_lora", "--enable-lora", "", "Let it serve adapters"))
    return Finding(
        severity="warning",
        summary=f"Somebody asked {engine.container.name} {len(asked)} times to load a LoRA adapter, and vLLM has no such route (404): it "
        f"does only where {_VARIABLE} is set.",
        evidence=(log_evidence(asked[-1]),),
        explains=("served-model-name-mismatch",),
        fixes=tuple(both),
        order=asked[0].order,
    )


def _lost(pod: Pod, engine: Engine, logs: Logs) -> Finding | None:
    """Adapters that were loaded into the instance before while that ran, and that clients ask the one of now for in vain."""
    log = logs.current(engine.container.name) if engine.name == "vllm" and pod.ready else None
    started = next((line.number for line in log.find(_STARTED)), None) if log is not None else None
    if log is None or started is None:
        return None  # what was loaded since may stand in the part that is not there
    before = next(iter(logs.of(engine.container.name, previous=True)), None)
    again = {at["name"] for line in log.find(_LOADED) if (at := re.search(_NAMED, line.text))}
    had = {name: told for name, told in _loaded(before).items() if name not in again} if before is not None else {}
    others = {name: told for name, told in _elsewhere(pod, engine).items() if name not in again and name not in had}
    had = {**others, **had}
    refused: dict[str, list[Line]] = {}
    for line in log.find(_NO_MODEL):
        if (asked := re.search(_ASKED_MODEL, line.text[:2000])) and asked["name"] in had:
            refused.setdefault(asked["name"], []).append(line)
    gone = {
        name: lines
        for name, lines in refused.items()
        if len(lines) >= _FEWEST
        and ((ago := written_ago(lines[-1], pod.cluster.now)) is None or ago <= _LATELY)
        and not log.torn(started, lines[-1].number)
    }
    if not gone:
        return None
    names = list(gone)
    lines = in_order(line for found in gone.values() for line in found)
    what = f"The adapter {names[0]} was" if len(names) == 1 else f"The adapters {', '.join(names[:5])} were"
    them = "it" if len(names) == 1 else "them"
    other = others[names[0]][0].log.pod if all(name in others for name in names) else None
    if other is not None:
        happened = f"loaded into {other} while that ran, and not into {pod.name}: {len(lines)} requests for "
        happened += f"{them} found no such model here."
    else:
        happened = f"loaded into {engine.container.name} while it ran, and {'is' if len(names) == 1 else 'are'} gone since the "
        happened += f"container was restarted: {len(lines)} requests for {them} found no such model."
    return Finding(
        severity="warning",
        summary=f"{what} {happened}",
        evidence=(*(log_evidence(had[name][0]) for name in names[:3]), log_evidence(lines[-1])),
        explains=("served-model-name-mismatch", "http-5xx"),
        fix=_again(engine, {name: had[name][1] for name in names}),
        order=lines[0].order,
    )


def _elsewhere(pod: Pod, engine: Engine) -> dict[str, tuple[Line, str]]:
    """The adapters that other pods of the same workload have, or had, as far as their logs were read: a new one begins without."""
    found: dict[str, tuple[Line, str]] = {}
    for text in pod.cluster.snapshot.logs:
        if (
            text.namespace == pod.namespace
            and text.pod
            and text.pod != pod.name
            and text.container == engine.container.name
        ):
            other = pod.cluster.item("Pod", pod.namespace, text.pod)
            if other is not None and fixes.edited(Pod.of(other, pod.cluster)) == fixes.edited(pod):
                found |= _loaded(Log(text))
    return found


def _loaded(log: Log) -> dict[str, tuple[Line, str]]:
    """The adapters that an instance had at its end, with the line and the path from which each was loaded while it ran."""
    started = next((line.number for line in log.find(_STARTED)), 0)
    had: dict[str, tuple[Line, str]] = {}
    for line in sorted((*log.find(_LOADED), *log.find(_REMOVED)), key=lambda line: line.number):
        if line.number < started or (found := re.search(_NAMED, line.text)) is None:
            continue
        if found["path"]:
            had[found["name"]] = (line, found["path"])
        else:
            had.pop(found["name"], None)
    return had


def _again(engine: Engine, paths: dict[str, str]) -> Fix:
    option = " ".join(f"{name}={path}" for name, path in paths.items())
    here = any(path.startswith("/") for path in paths.values())
    if here or len(paths) > 1 or engine.explicit("lora_modules") is not None:
        # a folder of the container may be as new as the container, and what is there already of the option stays
        which = " and ".join(f"{name} from {path}" for name, path in paths.items())
        return fixes.advice(
            f"Load {which} again (POST /v1/load_lora_adapter), and have each start do so: --lora-modules {option} in "
            f"{fixes.edited(engine.pod)}"
        )
    return fixes.set_flag(engine, "lora_modules", "--lora-modules", option, f"Have each start load {next(iter(paths))}")


def _finding(engine: Engine, told: Setting, name: str, line: Line) -> Finding:
    edited = fixes.edited(engine.pod)
    if name.startswith("/"):
        summary = f"{engine.title} takes the path {name} of an adapter for a repository of the hub, which has none of that name."
        option = told.text.split("=")[0].split()[0]
        between = " " if option.startswith("-") else "="  # a variable otherwise: LORA_ADAPTERS
        advice = f"Give the adapter a name before its path, {option}{between}NAME={name}, in {edited}"
    else:
        summary = f"The hub knows no repository {name}, from which {engine.title} should load an adapter (404)."
        advice = f"Correct the name of the adapter's repository in {edited}"
    return Finding(
        confidence="certain",
        summary=summary,
        evidence=(log_evidence(line), setting_evidence(engine.container, told)),
        explains=("hf-unauthorized", "model-not-found", *FAILED_START, "engine-dead", "rollout-stuck"),
        fix=fixes.advice(advice),
        order=line.order,
    )


def _adapters(told: Setting) -> Iterator[str]:
    """What stands for an adapter in the option: its repository or path, with or without a name before it."""
    values = told.value if isinstance(told.value, list | tuple) else str(told.value).split(",")
    yield from (str(value).rpartition("=")[2].strip() for value in values)


def _known_to_be_none(line: Line) -> bool:
    return any(0 <= line.number - other.number <= _WITHIN for other in line.log.marks(_NONE))
