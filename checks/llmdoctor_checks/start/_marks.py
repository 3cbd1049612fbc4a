"""Arguments and variables with marks of what they were copied from: quotation marks around a value, dashes of a word processor."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Container,
    Evidence,
    Finding,
    Fix,
    Logs,
    Pod,
    endings,
    fixes,
    last_words,
    log_evidence,
    log_of,
    pod_evidence,
    stating,
)
from llmdoctor_checks._consequences import FAILED_START
from llmdoctor_checks.start._scripts import quoted

#: Quotation marks that open a value, each with those that close it: of programs, and of word processors in several languages.
_MARKS = {'"': '"', "'": "'", "“": "”“", "”": "”", "„": "“”", "‘": "’‘", "’": "’", "‚": "‘’", "«": "»", "»": "«"}

#: An option whose hyphens a word processor made a dash: that is one letter, in the place of one or two.
_DASH = r"[\u2010-\u2015\u2212]-?(?P<name>[A-Za-z][\w.-]{0,60})"

#: The longest value that is compared with a log: a script, or a whole file, is none.
_LONGEST = 400

#: What a program says of a value that it cannot use, whatever the value is for.
_BY_THE_VALUE = (
    "model-not-found", "hf-unreachable", "hf-unauthorized", "model-registry-failed", "multinode-discovery", "port-mismatch",
    "lora-adapter-missing", "secret-missing", "weights-corrupt",
)  # fmt: skip


def in_marks(pod: Pod, logs: Logs | None) -> Iterator[Finding]:
    """A container that ended with such a word in its last ones."""
    for ending in endings(pod):
        log = log_of(ending, logs)
        if log is None or not ending.code:
            continue
        container, last = ending.container, last_words(log)
        for value, why, shown, fix in (*_marked(container), *_dashed(container)):
            line = next((x for x in log.find(value) if x.number in last), None)
            if line is None:
                continue
            yield Finding(
                confidence="certain",
                summary=f"{container.name} was given {quoted(value)}, {why}.",
                evidence=(log_evidence(line), shown),
                explains=(*FAILED_START, *_BY_THE_VALUE),
                fix=fix,
            )
            return


def _marked(container: Container) -> Iterator[tuple[str, str, Evidence, Fix]]:
    """Each value in quotation marks: with them, what is wrong with it, where it stands, and the fix."""
    why = "its quotation marks included, and takes them for a part of it: no shell reads arguments and variables of a container"
    for path, text in container.words:
        value = text if _bare(text) else text.partition("=")[2]
        if bare := _bare(value):
            yield (
                value,
                why,
                pod_evidence(container, path, quoted(text)),
                _in_words(container, text, text.removesuffix(value) + bare),
            )
    for variable in container.spec.env:
        value = str(variable.value or "")
        if bare := _bare(value):
            told = f"Take the quotation marks away: {variable.name}={bare}"
            shown = pod_evidence(container, f"env[{variable.name}]", quoted(value))
            yield value, why, shown, fixes.set_env(container, variable.name, bare, told)


def _dashed(container: Container) -> Iterator[tuple[str, str, Evidence, Fix]]:
    """Each option that begins with a dash in the place of its hyphens."""
    for path, text in container.words:
        option, equals, value = text.partition("=")
        if found := re.fullmatch(_DASH, option):
            hyphens = "-" if len(found["name"]) == 1 else "--"
            why = "which begins with a dash of a word processor in the place of the hyphens of an option"
            yield (
                option,
                why,
                pod_evidence(container, path, quoted(text)),
                _in_words(container, text, f"{hyphens}{found['name']}{equals}{value}"),
            )


def _in_words(container: Container, old: str, new: str) -> Fix:
    told = f"Write {quoted(new)}" + ("" if new.startswith("-") else ", without quotation marks")
    return stating.word(container, old, new, told) or fixes.advice(f"{told} in {fixes.edited(container.pod)}")


def _bare(value: str) -> str:
    """A value without the quotation marks around it; empty where there are none, and for a path, which is then not found."""
    inner = value[1:-1].strip()
    around = 2 < len(value) <= _LONGEST and value[-1] in _MARKS.get(value[0], "")
    return inner if around and inner and inner[0] != "/" and not set(inner) & {value[0], value[-1]} else ""
