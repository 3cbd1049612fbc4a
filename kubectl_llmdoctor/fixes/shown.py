"""What is shown of a patch: the lines that differ, and what to write by hand where no object can be patched."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.fixes.paths import container_at
from kubectl_llmdoctor.platforms import pointer
from kubectl_llmdoctor.tree import dig, say_flow

#: More than this of a patch is no help to who has to write it by hand.
_MOST_TOLD = 160


def told_by_hand(pod: Pod, operations: list[dict[str, Any]], summary: str) -> str:
    """What operations set, as a person writes it, for where none can be applied; without what the summary says already."""
    words = [word for operation in _joined(operations) for word in _words(pod, operation, summary)]
    told = ", ".join(dict.fromkeys(words))
    return f"{told}; " if told and len(told) <= _MOST_TOLD else ""


def _joined(operations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Operations, of which those that add an option and then its value as a word of its own are one."""
    found: list[dict[str, Any]] = []
    for operation in operations:
        last, value = found[-1] if found else {}, operation.get("value")
        option, at = last.get("value"), str(operation["path"]).rpartition("/")
        of_args = at[0].endswith("/args") and str(last.get("path")).startswith(f"{at[0]}/")
        words = isinstance(option, str) and isinstance(value, str) and operation["op"] == last.get("op") == "add"
        if of_args and words and re.fullmatch(r"--?[a-z][\w-]{1,80}", str(option)) and not str(value).startswith("-"):
            found[-1] = {**last, "value": f"{option} {value}"}
            continue
        found.append(operation)
    return found


def _words(pod: Pod, operation: dict[str, Any], summary: str) -> Iterator[str]:
    """What one operation sets: arguments, variables, or a field of a container or of the pod."""
    tokens, value = pointer.split(operation["path"]), operation.get("value")
    container = container_at(pod, tokens) if len(tokens) > 2 else None
    tokens = tokens[2:] if container is not None else tokens
    if operation["op"] == "remove":
        return
    if container is not None and tokens[0] in ("args", "command"):
        yield from _argument(container, tokens, value, summary)
    elif container is not None and tokens[0] == "env" and len(tokens) > 2:  # a field of one variable
        name = container.env[int(tokens[1])].name
        if tokens[2:] == ["value"]:
            yield from _variable({"name": name, "value": value}, summary)
        elif str(value) not in summary:
            yield f"{name}: {'.'.join(tokens[2:])}: {value}"
    elif tokens[0] == "env":
        for entry in value if isinstance(value, list) else [value]:
            yield from _variable(entry, summary)
    elif tokens[0].endswith("Probe") and isinstance(value, dict):
        yield f"{tokens[0]}: {say_flow(value)}"
    elif isinstance(value, str | int) and not any(part.isdigit() for part in tokens):
        said = str(value).lower() if isinstance(value, bool) else str(value)
        if said not in summary or not (tokens[-1] in summary or tokens[-1] == "image"):
            yield f"{'.'.join(part for part in tokens if part != 'resources')}: {said}"


def _argument(container: k8s.Container, tokens: list[str], value: Any, summary: str) -> Iterator[str]:
    """The option that an operation on arguments sets, with its value."""
    have = container.words(tokens[0])
    given = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    at = int(tokens[1]) if len(tokens) > 1 and tokens[1].isdigit() else 0
    if not given.startswith("-") and 0 < at <= len(have) and re.fullmatch(r"--?[a-z][\w-]{1,80}", have[at - 1]):
        given = f"{have[at - 1]} {given}"
    option, _, setting = given.replace(" ", "=", 1).partition("=")
    if given.startswith("-") and "\n" not in given and not (option in summary and setting in summary):
        yield given


def _variable(entry: Any, summary: str) -> Iterator[str]:
    """A variable with its value, or what it is from: a Secret, a field of the pod."""
    name, value = str(entry.get("name")), entry.get("value")
    secret = dig(entry, "valueFrom.secretKeyRef.name")
    if isinstance(value, str) and not (name in summary and value in summary):
        yield f"{name}={value}"
    elif secret and str(secret) not in summary:
        yield f"{name} from key {name} of Secret {secret}"
    elif field := dig(entry, "valueFrom.fieldRef.fieldPath"):
        yield f"{name} by valueFrom: {{fieldRef: {{fieldPath: {field}}}}}"


def diff(tree: Any, operations: Iterable[dict[str, Any]]) -> tuple[str, ...]:
    """What JSON patch operations take away and put in, each place as a person reads it."""
    lines: list[str] = []
    for operation in operations:
        *path, last = pointer.split(operation["path"])
        where = pointer.show(tree, operation["path"])
        try:
            parent = tree
            for key in path:
                parent = pointer.step(parent, key)
            old = pointer.step(parent, last) if last != "-" else None
            tree = pointer.changed(tree, operation)
        except LookupError:
            old = None
        inserted = isinstance(parent, list) and operation["op"] == "add"
        new = operation.get("value")
        if not inserted and isinstance(old, str) and isinstance(new, str) and len(old) > _LONG:
            old, new = _apart(old, new)
        if old is not None and not inserted:
            lines.append(f"- {where}: {_written(old)}")
        if operation["op"] != "remove":
            lines.append(f"+ {where.replace('[-]', '[]')}: {_written(new)}")
    return tuple(lines)


#: More than this of a text nobody compares.
_LONG = 60


def _apart(old: str, new: str) -> tuple[str, str]:
    """The words that two long texts (a start script) have apart, with those before them."""
    ours, theirs = old.split(), new.split()
    start = common_start(ours, theirs)
    end = common_start(ours[start:][::-1], theirs[start:][::-1])
    first = max(start - 2, 0)
    before, after = ["…"] * bool(first), ["…"] * bool(end)
    told = (" ".join([*before, *words[first : len(words) - end], *after]) for words in (ours, theirs))
    return next(told), next(told)


def common_start(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """How many words two begin with alike."""
    both = enumerate(zip(ours, theirs, strict=False))
    return next((index for index, (one, other) in both if one != other), min(len(ours), len(theirs)))


def _written(value: Any) -> str:
    """A value on one line, as YAML's flow style has it."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
