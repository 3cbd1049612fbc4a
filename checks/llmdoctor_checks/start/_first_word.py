"""A command of several words after `sh -c`, of which the shell takes the first alone for its script."""

import re
from collections.abc import Iterator
from typing import Any

from kubectl_llmdoctor.api import MASK, Container, Finding, Fix, Pod, ending_of, fixes, pod_evidence
from llmdoctor_checks._consequences import FAILED_START
from llmdoctor_checks.start._scripts import quoted

#: A shell and its options up to `-c`.
_SHELL = r"(?:/(?:usr/)?bin/)?(?:ba|da|a|z)?sh"
_OPTION = r"-[a-bd-np-z]{0,6}c[a-z]{0,6}"

#: A program, and no script: what a file does with no arguments is not known.
_PROGRAM = r"(?!.{0,80}\.sh\Z)[\w./+-]{1,80}"

#: Programs that do nothing without arguments: of another, one word more may be what a script calls itself.
_IDLE = r"(?:.{0,80}/)?(?:ollama|vllm|sglang|lmdeploy|ray|accelerate|mpirun|python3?(?:\.\d{1,2})?)"

#: Exit codes of a program that lacks its arguments: an interpreter without anything to read is done, others print their usage.
#: One that does something without arguments, as a server with settings in variables, ends with 1 for reasons of its own.
_CODES, _OF_ANY = (0, 1, 2), (0, 2)

#: What joins commands, where their output goes, and what a shell replaces: in one string they stand as they are.
_OF_A_SHELL = r"[&|;<>]{1,2}|[\d&]?>{1,2}(?:&\d|[\w./-]{1,300})|[^\s'\"{}]{0,300}\$[^\s'\"]{0,300}"


def first_word_alone(pod: Pod) -> Iterator[Finding]:
    """A container that ends since its program was started without its arguments, and one of a manifest that will."""
    for container in pod.containers:
        split = _split(container)
        if split is None or (not pod.exists and (pod.lent or pod.partial)):
            continue
        shell, program, words = split
        codes = _CODES if re.fullmatch(_IDLE, program) else _OF_ANY
        ended = ending_of(container)
        if pod.exists and (ended is None or ended.code not in codes):
            continue
        script = " ".join((program, *(_as_read(word) for word in words)))
        path = "args" if container.spec.args else "command"
        yield Finding(
            role="cause" if pod.exists else "risk",
            severity="critical",
            summary=f"{container.name} runs {program} without arguments: {shell[0].rpartition('/')[2]} takes the one word after "
            f"{shell[-1]} for its script, and drops {quoted(' '.join(words))}.",
            evidence=(
                pod_evidence(container, path, quoted(" ".join((program, *words)))),
                *([pod_evidence(pod, ended.path, ended.text)] if ended is not None else []),
            ),
            explains=(*FAILED_START, "setting-without-effect") if pod.exists else (),
            fix=_fix(pod, container, shell, script),
        )
        return


def _split(container: Container) -> tuple[list[str], str, list[str]] | None:
    """The shell with its options, the program, and the words that it does not get."""
    words = list(container.spec.argv)
    if not container.spec.command or len(words) < 4 or not re.fullmatch(_SHELL, words[0]):
        return None
    at = 1
    while at < len(words) and words[at].startswith("-") and not re.fullmatch(_OPTION, words[at]):
        at += 1
    at += 2 if words[at + 1 : at + 2] == ["--"] else 1
    program, rest = words[at : at + 1], words[at + 1 :]
    if not program or not rest or not re.fullmatch(_PROGRAM, program[0]) or words[at - 1][:1] != "-":
        return None
    if len(rest) == 1 and not re.fullmatch(_IDLE, program[0]):
        return None
    return words[:at], program[0], rest


def _as_read(word: str) -> str:
    """A word as a shell reads it again in a script."""
    if re.fullmatch(rf"{_OF_A_SHELL}|[\w./:=,@%+-]{{1,300}}", word):
        return word
    return "'" + word.replace("'", "'\\''") + "'"


def _fix(pod: Pod, container: Container, shell: list[str], script: str) -> Fix:
    if MASK in script:
        return fixes.advice(
            f"Write what follows {shell[-1]} as one string in {fixes.edited(pod)}, or leave the shell out (command begins with the "
            "program then)"
        )
    at = container.pointer
    moved: list[dict[str, Any]] = [{"op": "add", "path": f"{at}/command", "value": [*shell, script]}]
    if container.spec.args:
        moved.append({"op": "remove", "path": f"{at}/args"})
    return fixes.patch(
        pod,
        f"Write what follows {shell[-1]} as one string, {quoted(script)}, or leave the shell out (command begins with the program then)",
        moved,
    )
