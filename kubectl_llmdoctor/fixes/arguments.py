"""Options and programs on a command line, where it is written: as arguments, in a script, in a variable or in a chart's values.

Arguments are changed by JSON patches that touch one element: what stands beside it may be masked here and must survive.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

from kubectl_llmdoctor.engines.config import Setting
from kubectl_llmdoctor.engines.names import passed_on
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts import script
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.engine import Engine
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.subject import workload_of
from kubectl_llmdoctor.fixes.containers import remove_env, resource_operations, set_env, variable_operations
from kubectl_llmdoctor.fixes.patches import patch
from kubectl_llmdoctor.fixes.paths import appended, in_place, index_of, inserted
from kubectl_llmdoctor.fixes.volumes import free_name, mounted
from kubectl_llmdoctor.fixes.words import advice, edited, unread
from kubectl_llmdoctor.managed import keeper
from kubectl_llmdoctor.report.document import Fix
from kubectl_llmdoctor.report.words import remarked
from kubectl_llmdoctor.snapshot import MASK


def set_flag(engine: Engine, name: str, flag: str, value: str, summary: str) -> Fix:
    """Set a flag of the engine: replaces the element that has it, else appends to `args`; without a value it is a switch.

    What is no flag is a variable, which the container gets unless arguments say the same.

    Gives advice only when the arguments stand in a script, in the image's entrypoint or in a ConfigMap.
    """
    container = engine.container
    spec, at = container.spec, container.pointer
    current = engine.explicit(name)
    by_variable = current is not None and current.source == "env" and not current.flag.startswith("-")
    if not flag.startswith("-") and (
        current is None or by_variable or current.source == "log"
    ):  # a variable, as of NIM
        if passed := passed_on(engine.name, engine.version, name):
            return advice(remarked(summary, f"{passed} {value} in NIM_PASSTHROUGH_ARGS of {edited(container.pod)}"))
        return set_env(container, current.flag if current and by_variable else flag, value, summary)
    words = spec.words("args")
    if container.told:
        place = current.path if current else container.told[0].path
        if operations := _in_variable(engine, [(name, flag, value)]):
            return patch(container.pod, summary, operations)
        return advice(remarked(summary, f"{name}: {value or 'true'}, at {place} in {edited(container.pod)}"))
    if current is None:
        if added := _added(engine, [(name, flag, value)]):
            return patch(container.pod, summary, added)
        if not words and not spec.command and spec.image and not engine.announced:
            return patch(
                container.pod, summary, [{"op": "add", "path": f"{at}/args", "value": _option(engine, flag, value)}]
            )
        if (made := rewritten(container, _in_script(engine, [(name, flag, value)]), summary)) is not None:
            return made
        return advice(remarked(summary, f"{f'{flag} {value}'.rstrip()} in {_home(container.pod, flag, value)}"))
    if operations := replaced_flag(engine, name, value):
        return patch(container.pod, summary, operations)
    if (made := rewritten(container, _in_script(engine, [(name, flag, value)]), summary)) is not None:
        return made
    flag = current.flag if current.flag.startswith("--") else flag
    if engine.announced:
        return advice(
            remarked(
                summary, f"{flag} {value} where {container.spec.image} starts the engine, whose log says {current.text}"
            )
        )
    told = "" if f"{flag} {value}" in summary else f"{flag} {value} "
    return advice(remarked(summary, f"{told}instead of {current.text} in {_home(container.pod, flag, value)}"))


def set_flags(engine: Engine, chosen: Sequence[tuple[str, str, str]], summary: str, *, gpus: str = "") -> Fix:
    """Set several flags of the engine (name, flag, value), and the number of GPUs in the limits with them.

    More GPUs than one exchange what they compute in /dev/shm where they cannot reach each other, so it gets room there.
    """
    if len(chosen) == 1 and not gpus:
        ((name, flag, value),) = chosen
        return set_flag(engine, name, flag, value, summary)
    container = engine.container
    more = _with_gpus(container, gpus) if gpus else []
    if (made := rewritten(container, _in_script(engine, chosen), summary, more)) is not None:
        return made
    if operations := _in_variable(engine, chosen):
        return patch(container.pod, summary, operations + more)
    replaced = [replaced_flag(engine, name, value) for name, _, value in chosen]
    missing = [one for one, own in zip(chosen, replaced, strict=True) if not own]
    added = _added(engine, missing) if all(engine.explicit(name) is None for name, _, _ in missing) else []
    if missing and not added:
        told = ", ".join(f"{flag} {value}" for _, flag, value in chosen)
        if container.told:
            at = next(
                (current.path for name, _, _ in chosen if (current := engine.explicit(name))), container.told[0].path
            )
            told = ", ".join(f"{name}: {value or 'true'}" for name, _, value in chosen) + f" at {at}"
        limits = f", limits.{next(iter(container.accelerators), 'nvidia.com/gpu')}: {gpus}" if gpus else ""
        return advice(remarked(summary, f"{told}{limits} in {edited(container.pod)}"))
    return patch(container.pod, summary, [operation for own in replaced for operation in own] + added + more)


def _added(engine: Engine, chosen: Sequence[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """The operations that put options behind the words of the container; none where those are a script's, an image's or a file's."""
    container = engine.container
    words = [word for _, flag, value in chosen for word in _option(engine, flag, value)]
    if not words or not engine.found.argv_known or script.is_script(container) or container.told:
        return []
    if container.spec.args:
        return appended(f"{container.pointer}/args", *words)
    if len(container.spec.command) < 2 or any(_charted(container.pod, flag, value) for _, flag, value in chosen):
        return []
    behind = appended(f"{container.pointer}/command", *words)
    beside = appended(f"{container.pointer}/args", *words, exists=False)
    # the command may be another object's, as of a runtime, behind which the arguments of this one stand
    return beside if _patched(container.pod, beside) and not _patched(container.pod, behind) else behind


def _patched(pod: Pod, operations: list[dict[str, Any]]) -> bool:
    """Whether the object that a person edits can be changed so."""
    return patch(pod, "", operations).patch is not None


def _in_variable(engine: Engine, chosen: Sequence[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """Options in the variable from which an operator takes arguments, in place of how they are written there; none where none is.

    A shell reads what it says, so there is no option in it that needs quotes.
    """
    container = engine.container
    named = re.search(r"\.env\[(\w{1,100})\]$", container.told[0].path) if container.told else None
    if named is None:
        return []
    have = next((one for one in container.spec.env if one.name == named[1]), None)
    text = str(have.value or "") if have else ""
    if (have and have.value_from) or MASK in text:
        return []
    for name, flag, value in chosen:
        current, new = engine.explicit(name), " ".join(map(shlex.quote, words := _option(engine, flag, value)))
        if (
            not flag.startswith("-")
            or new != " ".join(words)
            or (current and f" {text} ".count(f" {current.text} ") != 1)
        ):
            return []
        text = f" {text} ".replace(f" {current.text} ", f" {new} ").strip() if current else f"{text} {new}".strip()
    return variable_operations(container, {named[1]: text})[0]


def _option(engine: Engine, flag: str, value: str) -> list[str]:
    """The words of an option: the parser of llama.cpp knows no `=`."""
    if not value:
        return [flag]
    return [flag, value] if engine.name == "llama.cpp" else [f"{flag}={value}"]


def _with_gpus(container: Container, count: str) -> list[dict[str, Any]]:
    """The operations that give a container so many GPUs, and room in /dev/shm where nothing is mounted there."""
    found = resource_operations(container, "limits", next(iter(container.accelerators), "nvidia.com/gpu"), count)
    if container.mount_at("/dev/shm") or (count.isdecimal() and int(count) <= container.gpus):
        return found
    volume = {"name": free_name(container.pod, "dshm"), "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}}
    return found + mounted(container, volume, "/dev/shm")


def replaced_flag(engine: Engine, name: str, value: str) -> list[dict[str, Any]]:
    """The operation that gives an option in the container's `args`, `command` or `env` another value; none where it stands elsewhere."""
    container, current = engine.container, engine.explicit(name)
    if current is None or container.told:
        return []
    if current.source == "env":
        own = [variable.name if variable.value_from is None else "" for variable in container.spec.env]
        if not value or own.count(current.flag) != 1:
            return []
        return [{"op": "replace", "path": f"{container.pointer}/env/{own.index(current.flag)}/value", "value": value}]
    vector, index = _vector(current)
    if index is None or not vector or script.is_script(container):
        return []
    words, at = container.spec.words(vector), f"{container.pointer}/{vector}"
    option, equals, _ = words[index].partition("=")
    if not option.startswith("-"):
        return [{"op": "replace", "path": f"{at}/{index}", "value": value}]
    if equals:
        return [{"op": "replace", "path": f"{at}/{index}", "value": f"{option}={value}"}]
    return [{"op": "replace", "path": f"{at}/{index + 1}", "value": value}] if index + 1 < len(words) else []


def _vector(setting: Setting) -> tuple[str, int | None]:
    """The `args` or `command` of a container in which an option stands, and its place there."""
    vector = next((field for field in ("args", "command") if f".{field}[" in setting.path), "")
    return vector, index_of(setting.path) if setting.source == "flag" else None


def remove_flag(engine: Engine, name: str, summary: str) -> Fix:
    """Take a flag of the engine, and its value, out of the container's `args`, `command` or `env`; advice where it stands anywhere else."""
    container, current = engine.container, engine.explicit(name)
    if current is None:
        return advice(summary)
    if current.source == "env" and not container.told:
        return remove_env(container, current.flag, summary)
    if (made := rewritten(container, [(current.text, "")], summary)) is not None:
        return made
    vector, index = _vector(current)
    words = container.spec.words(vector) if vector else []
    if index is None or container.told or script.is_script(container) or not (words and words[index].startswith("-")):
        return advice(remarked(summary, f"{current.text} in {edited(container.pod)}"))
    apart = "=" not in words[index] and index + 1 < len(words) and not words[index + 1].startswith("-")
    places = (index + 1, index) if apart else (index,)
    at = f"{container.pointer}/{vector}"
    return patch(container.pod, summary, [{"op": "remove", "path": f"{at}/{place}"} for place in places])


def _in_script(engine: Engine, chosen: Sequence[tuple[str, str, str]]) -> list[tuple[str, str]]:
    """What is to be written otherwise in the engine's start script so that options have other values; none where that is not plain.

    A new option stands behind one that the script has already.
    """
    texts = _plain_options(engine)
    changes: list[tuple[str, str]] = []
    if any(_charted(engine.container.pod, flag, value) for _, flag, value in chosen):
        return []
    for name, flag, value in chosen:
        current = engine.explicit(name)
        if value and not script.is_plain(value):
            return []
        if current is None:
            if not texts or not engine.found.argv_known:
                return []
            # the last one that is not changed itself
            anchor = next((t for t in reversed(texts) if all(t != old for old, _ in changes)), "")
            changes.append((anchor, " ".join((anchor, *_option(engine, flag, value)))))
        elif current.source != "flag" or not script.is_plain_option(current.text):
            return []
        else:
            option, mark = re.match(r"(-{1,2}[\w-]+)([= ]?)", current.text).groups()  # type: ignore[union-attr]
            changes.append((current.text, f"{option}{mark or ' '}{value}" if value else option))
    return changes


def _plain_options(engine: Engine) -> list[str]:
    """The options of a command line that a shell takes as they are; where there are none `serve` with the model behind it."""
    told = [s.text for s in engine.found.settings.values() if s.source == "flag"]
    options = [text for text in told if script.is_plain_option(text)]
    return options or [f"serve {text}" for text in told if engine.name == "vllm" and script.is_plain(text)][:1]


def behind_options(engine: Engine, words: Sequence[str]) -> list[tuple[str, str]]:
    """What is to be written otherwise in the engine's start script so that words stand behind an option; none where it has none."""
    texts = _plain_options(engine) if engine.found.argv_known else []
    if not texts or not all(script.is_plain(word) or script.is_plain_option(word) for word in words):
        return []
    starts = [at for at, word in enumerate(words) if word.startswith("-")]
    options = [words[at:end] for at, end in zip(starts, [*starts[1:], len(words)], strict=True)]
    return [(texts[-1], " ".join((texts[-1], *option))) for option in reversed(options)]


def rewritten(
    container: Container, changes: Sequence[tuple[str, str]], summary: str, more: Sequence[dict[str, Any]] = ()
) -> Fix | None:
    """A patch of the script that a container runs, in which these options are written otherwise; None where no patch can do that."""
    if (found := script.revised(container, changes)) is None:
        return None
    vector, index, text = found
    change = {"op": "replace", "path": f"{container.pointer}/{vector}/{index}", "value": text}
    made = patch(container.pod, summary, [change, *more])
    return made if made.patch is not None else None


def remove_word(container: Container, path: str, summary: str) -> Fix:
    """Remove one element of the container's `args`; `path` ends in its place there: `args[0]`."""
    index = index_of(path)
    if index is None or not path.endswith(f"args[{index}]") or script.is_script(container):
        return advice(f"{summary} in {edited(container.pod)}")
    return patch(container.pod, summary, [{"op": "remove", "path": f"{container.pointer}/args/{index}"}])


def rename_word(container: Container, path: str, old: str, new: str, summary: str) -> Fix:
    """Write an option of the container's `args` under another name; `path` ends in its place there, its value stays."""
    index, written = index_of(path), container.spec.words("args")
    at = index if index is not None and path.endswith(f"args[{index}]") and index < len(written) else None
    word = written[at] if at is not None else ""
    if at is None or script.is_script(container) or container.told or word.partition("=")[0] != old or MASK in word:
        return advice(f"{summary} in {edited(container.pod)}")
    changed = {"op": "replace", "path": f"{container.pointer}/args/{at}", "value": new + word[len(old) :]}
    return patch(container.pod, summary, [changed])


def split_word(container: Container, path: str, words: list[str], summary: str) -> Fix | None:
    """Write one element of `args` as several; None where it stands in a script, or is not what the object has."""
    index, written = index_of(path), container.spec.words("args")
    if index is None or ".args[" not in path or index >= len(written) or script.is_script(container) or container.told:
        return None
    if written[index].replace("=", " ", 1).split() != " ".join(words).replace("=", " ", 1).split():
        return None  # it came out of a variable, or is masked
    return patch(container.pod, summary, in_place(f"{container.pointer}/args", index, words))


#: What starts an engine whose image starts nothing by itself.
_STARTS = {
    "vllm": ("python3", "-m", "vllm.entrypoints.openai.api_server"),
    "sglang": ("python3", "-m", "sglang.launch_server"),
    "lmdeploy": ("lmdeploy", "serve", "api_server"),
    "tgi": ("text-generation-launcher",),
}


#: Which program has this command, by the engine or the image, whose entrypoint it is; LocalAI's lies in the folder where its images start.
_COMMANDS_OF = {
    "serve": {"vllm": "vllm", "ollama": "ollama"},
    "run": {"ollama": "ollama", "localai": "./local-ai"},
    "pull": {"ollama": "ollama"},
    "v2": {"infinity": "infinity_emb"},
}


#: What runs a file that is no program.
_INTERPRETERS = {".py": "python3", ".sh": "sh", ".js": "node"}


#: What only a shell understands.
_OF_A_SHELL = expression(r"[|&;<>$`*'\"\\]|^\w{1,100}=")


#: The images of llama.cpp, which have their programs in a folder that is not on PATH.
_OF_LLAMA_CPP = expression(r"\b(?:ggml-org|ggerganov)/llama\.cpp\b")


def run_by(container: Container, program: str, engine: str) -> Fix | None:
    """Let what the first word of a command misses stand before it: the words of a whole line apart, the engine, an interpreter."""
    spec = container.spec
    vector = next((v for v in ("command", "args") if getattr(spec, v) and str(getattr(spec, v)[0]) == program), "")
    if not vector or (vector == "args" and spec.command) or MASK in program:
        return None
    at = f"{container.pointer}/{vector}"
    if program.startswith("llama-") and _OF_LLAMA_CPP.search(spec.image):
        summary = f"Name {program} by its path, /app/{program}, where the image has it"
        return patch(container.pod, summary, in_place(at, 0, [f"/app/{program}"]))
    interpreter = _INTERPRETERS.get("." + program.rpartition(".")[2], "")
    if " " in program:
        by_shell = bool(_OF_A_SHELL.search(program))
        if by_shell and len(spec.argv) > 1:  # a shell would keep the other words to itself
            return None
        words = ["sh", "-c", program] if by_shell else program.split()
        summary = f"Write `{program}` as words of their own: {', '.join(words)}"
        return patch(container.pod, summary, in_place(at, 0, words))
    image = spec.image.rpartition("/")[2].partition(":")[0].partition("@")[0]
    owner = next((name for of, name in _COMMANDS_OF.get(program, {}).items() if of in (engine, image)), interpreter)
    before = list(_STARTS.get(engine, ())) if program.startswith("-") else [owner] if owner else []
    if not before:
        return None
    said = " ".join(before)
    made = [{"op": "add", "path": f"{container.pointer}/command", "value": before}]
    operations = made if vector == "args" else inserted(at, 0, before)
    what = (
        f"a command of it: {vector} replaces the image's entrypoint"
        if owner != interpreter
        else "no program of the image"
    )
    return patch(container.pod, f"Put {said} before {program}, which is {what}", operations)


def run_after(container: Container, line: str, summary: str, engine: str = "") -> Fix | None:
    """Let a shell do something before it becomes the container's command; None where only the image knows that.

    `engine` is that of which the image is the makers' own, so that its program is known where only options are given.
    """
    words = ("sh", "-c", f'{line}; exec "$0" "$@"')
    if not container.spec.command:
        program = _STARTS.get(engine, ())
        given = bool(container.spec.args) and str(container.spec.args[0]).startswith("-")
        made = [{"op": "add", "path": f"{container.pointer}/command", "value": [*words, *program]}]
        return patch(container.pod, summary, made) if program and given else None
    return patch(container.pod, summary, inserted(f"{container.pointer}/command", 0, words))


def _charted(pod: Pod, flag: str, value: str) -> bool:
    """Whether a chart writes the object that has a value for an option, which lasts where a patch of its words does not."""
    workload = workload_of(pod)
    kept = keeper(workload.raw) if workload else None
    return kept is not None and kept.flag(flag, value) is not None


def _home(pod: Pod, flag: str, value: str) -> str:
    """Where a person changes an argument that no patch can: the object, or the value of its chart."""
    workload = workload_of(pod)
    kept = keeper(workload.raw) if workload else None
    found = kept.flag(flag, value) if kept else None
    if workload is None and pod.exists and not pod.log_only and not unread(pod):
        return f"{edited(pod)}, which must be deleted and recreated"
    return f"{edited(pod)}, {found.path} of its chart" if found else edited(pod)
