"""A change of one pod of a replica, for the pods of its other ranks that run the same program."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.accelerator import is_accelerator
from kubectl_llmdoctor.facts.workload import Workload
from kubectl_llmdoctor.fixes.paths import appended
from kubectl_llmdoctor.fixes.shown import common_start
from kubectl_llmdoctor.platforms import pointer
from kubectl_llmdoctor.snapshot import MASK
from kubectl_llmdoctor.tree import dig, numbered, rows, table

if TYPE_CHECKING:
    from kubectl_llmdoctor.platforms import Template


#: Kinds whose templates make the pods of one replica, which run one program; and those that have several such replicas, each with
#: a template for its first pod and one for the others.
_OF_RANKS = (
    "LeaderWorkerSet", "RayCluster", "RayJob", "RayService", "JobSet", "PyTorchJob",
    "Service",  # that of llmaz; no other one has several templates
)  # fmt: skip


_OF_PAIRS = ("InferenceService", "LLMInferenceService", "ModelServing")


_SPACE = expression(r"\s+")


_FIRST_AND_OTHERS = expression(r"(?:predictor|workload|workers?)|(?P<first>.{1,253}?)(?: worker)?")


#: What makes up the command line of a container: the same words are another program's where the rest is another.
_VECTOR = ("command", "args")


#: Options of the rank that clients ask; the others may well lack them.
_OF_FIRST = frozenset({"--host", "--port"})


#: What of a container and of a pod holds for all ranks where it is written alike; probes and ports are the first one's own.
_OF_CONTAINERS = ("args", "command", "env", "image", "volumeMounts", "securityContext")


_OF_PODS = ("volumes", "runtimeClassName", "securityContext", "enableServiceLinks", "imagePullSecrets", "nodeSelector")


#: What holds for those alone that have accelerators, too: the head of a Ray cluster often runs on a node without any.
_OF_NODES_WITH_GPUS = ("runtimeClassName", "nodeSelector")


def of_other_ranks(workload: Workload, template: Template, operations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same operations for the other pods of a replica, whose template says the same there."""
    return [
        their
        for other, theirs in templates_alike(workload, template, operations)
        if not other.immutable
        for their in theirs
    ]


def templates_alike(
    workload: Workload, template: Template, operations: list[dict[str, Any]]
) -> Iterator[tuple[Template, list[dict[str, Any]]]]:
    """The templates of the other pods of a replica that say the same there, each with the operations for it: all of them."""
    for other, _ in workload.templates:
        if other.part == template.part or other.text or not _of_one_replica(workload.kind, template.part, other.part):
            continue
        theirs = [_for_rank(template, other, operation) for operation in operations]
        if all(theirs):
            yield other, [operation for of_one in theirs for operation in of_one]


def _of_one_replica(kind: str, one: str, other: str) -> bool:
    """Whether the pods of two templates of an object are ranks of one server."""
    if kind not in _OF_PAIRS:
        return kind in _OF_RANKS
    first, second = (_FIRST_AND_OTHERS.fullmatch(part) for part in (one, other))
    return first is not None and second is not None and first["first"] == second["first"]


def _for_rank(template: Template, other: Template, operation: dict[str, Any]) -> list[dict[str, Any]]:
    """An operation inside one template for another, as operations on the object; none where the other says something else there."""
    tokens, mine, theirs = pointer.split(operation["path"]), template.pod.get("spec"), other.pod.get("spec")
    if tokens[0] in _OF_NODES_WITH_GPUS and _accelerated(mine) != _accelerated(theirs):
        return []
    held: tuple[str, ...] = _OF_PODS
    before: list[str] = []
    if tokens[0] in ("containers", "initContainers"):
        own = next((one for at, one in numbered(mine, tokens[0]) if [str(at)] == tokens[1:2]), {})
        alike = [(at, one) for at, one in numbered(theirs, tokens[0]) if one.get("image") == own.get("image")]
        if not own or len(alike) != 1 or len(tokens) < 3:
            return []
        mine, theirs, held = own, alike[0][1], _OF_CONTAINERS
        tokens, before = tokens[2:], [tokens[0], str(alike[0][0])]
        if tokens[0] == "resources" and "/" in tokens[-1]:  # accelerators
            held = ("resources",)
    field = tokens[0]
    here, there = (table(one).get(field) for one in (mine, theirs))
    added = operation["op"] == "add" and field == "env" and tokens[1:] in ([], ["-"])
    at = other.at(pointer.join([*before, field]))
    if field not in held or at is None:
        return []
    if field in _VECTOR and any(table(mine).get(one) != table(theirs).get(one) for one in _VECTOR):
        own = _same_words(operation, tokens[1:], table(mine).get(field), table(theirs).get(field))
        return [{**operation, **own, "path": f"{at}{own['path']}"}] if own else []
    if not (here == there or added):
        return []
    if here == there:
        return [{**operation, "path": at + "".join(f"/{pointer.escaped(token)}" for token in tokens[1:])}]
    entries = operation["value"] if isinstance(operation["value"], list) else [operation["value"]]
    named = {one.get("name") for one in rows(theirs, "env")}
    new = [entry for entry in entries if entry.get("name") not in named]
    return appended(at, *new, exists=bool(named)) if new == entries else []


def _same_words(operation: dict[str, Any], place: list[str], here: Any, there: Any) -> dict[str, Any]:
    """An operation on one command line for another that has the same option with the same value; empty where that is not plain."""
    if not isinstance(here, list) or not isinstance(there, list):
        return {}
    if operation["op"] == "add":  # behind a line that has all words of this one, but for which rank it is
        pairs = pairwise(["", *map(str, here)])
        words = [word for before, word in pairs if _OF_FIRST.isdisjoint((before, word.partition("=")[0]))]
        own = {word for word in words if "-rank" not in word and not word.isdecimal()}
        return {"path": "/-"} if place == ["-"] and own <= set(map(str, there)) else {}
    at, new = int(place[0]), operation.get("value")
    old = str(here[at])
    if _SPACE.search(old) and isinstance(new, str):  # a script
        return _same_in_script(old, new, there)
    # an option by itself or with its value, or a value behind its option, or the model behind `serve`
    words = here[at : at + 1] if old.startswith("-") else here[max(at - 1, 0) : at + 1]
    found = [i for i in range(len(there)) if there[i : i + len(words)] == words]
    plain = len(found) == 1 and _names(str(words[0]))
    return {"path": f"/{found[0] + len(words) - 1}"} if plain else {}


def _names(word: str) -> bool:
    """Whether it says what the word behind it is: an option, or `serve` of a model."""
    return word.startswith("-") or word == "serve"


def _same_in_script(old: str, new: str, there: list[Any]) -> dict[str, Any]:
    """What changes of an option in one script, in the one script of another command line that has it once and alike."""
    ours, theirs = _SPACE.split(old), _SPACE.split(new)
    start = common_start(ours, theirs)
    end = common_start(ours[start:][::-1], theirs[start:][::-1])
    # from the option on: it may stand one or two words before what is written otherwise
    begin = start - (start == len(ours) - end)
    first = next((at for at in range(begin, max(begin - 2, -1), -1) if _names(ours[at])), None)
    if first is None:
        return {}
    gone, put = ours[first : len(ours) - end], theirs[first : len(theirs) - end]
    same = re.compile(r"(?<!\S)" + r"[ \t]+".join(map(re.escape, gone)) + r"(?![^\s;])")
    found = [(at, where) for at, text in enumerate(there) if isinstance(text, str) for where in same.finditer(text)]
    if len(found) != 1 or MASK in there[found[0][0]]:
        return {}
    ((at, where),) = found
    text = f"{there[at][: where.start()]}{' '.join(put)}{there[at][where.end() :]}"
    return {"path": f"/{at}", "value": text}


def _accelerated(spec: Any) -> bool:
    """Whether containers of a pod's spec ask for accelerators."""
    return any(
        is_accelerator(str(name)) for one in rows(spec, "containers") for name in table(dig(one, "resources.limits"))
    )
