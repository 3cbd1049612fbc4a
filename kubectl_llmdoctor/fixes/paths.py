"""Where something of a pod stands in the object that a person edits, and operations of JSON patches (RFC 6902) on lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.platforms import pointer
from kubectl_llmdoctor.tree import numbered

if TYPE_CHECKING:
    from kubectl_llmdoctor.platforms import Template


def path_inside(pod: Pod, template: Template, path: str) -> str | None:
    """The path inside the template's pod spec for one in the pod's, which admission and operators have added to."""
    tokens = pointer.split(path)
    container = container_at(pod, tokens) if pod.exists else None
    if container is None:
        return path if not pod.exists or tokens[0] != "volumes" else _element(pod, template, tokens)
    index, theirs = _called(container.name, template.pod, f"spec.{tokens[0]}")
    if index is None:
        return None
    tokens[1] = str(index)
    if len(tokens) > 3 and tokens[2] in ("args", "command") and tokens[3] != "-":
        have = container.words(tokens[2])
        told = theirs.get(tokens[2])
        want = [str(w) for w in told] if isinstance(told, list) else []
        if have != want:  # what the operator put before the object's own words
            start = len(have) - len(want)
            if start < 0 or not want or have[start:] != want or int(tokens[3]) < start:
                return None
            tokens[3] = str(int(tokens[3]) - start)
    elif len(tokens) > 3 and tokens[2] == "env" and tokens[3] != "-":
        at, _ = _called(container.env[int(tokens[3])].name, theirs, "env")
        if at is None:
            return None
        tokens[3] = str(at)
    return pointer.join(tokens)


def names_container(pod: Pod, template: Template, path: str) -> bool:
    """Whether what a path inside the pod spec leads to is no container, or one that the template states."""
    tokens = pointer.split(path)
    container = container_at(pod, tokens)
    return container is None or _called(container.name, template.pod, f"spec.{tokens[0]}")[0] is not None


def container_at(pod: Pod, tokens: list[str]) -> k8s.Container | None:
    """The container into which a path inside the pod spec leads."""
    places = {"containers": pod.spec.containers, "initContainers": pod.spec.init_containers}
    return places[tokens[0]][int(tokens[1])] if tokens[0] in places and len(tokens) > 1 else None


def _element(pod: Pod, template: Template, tokens: list[str]) -> str | None:
    """The path of a volume of the pod in its template, found by its name."""
    if len(tokens) < 2 or tokens[1] == "-":
        return pointer.join(tokens)
    at, _ = _called(pod.spec.volumes[int(tokens[1])].name, template.pod, "spec.volumes")
    return None if at is None else pointer.join(["volumes", str(at), *tokens[2:]])


def _called(name: str, tree: Any, path: str) -> tuple[int | None, dict[str, Any]]:
    """What a list of an object calls so, and its place there; None where nothing is."""
    return next(((at, one) for at, one in numbered(tree, path) if one.get("name") == name), (None, {}))


def index_of(path: str) -> int | None:
    tail = path.rpartition("[")[2].rstrip("]")
    return int(tail) if tail.isdigit() else None


def appended(path: str, *values: Any, exists: bool = True) -> list[dict[str, Any]]:
    """The operations that append to a list, which they make where there is none."""
    if exists:
        return [{"op": "add", "path": f"{path}/-", "value": value} for value in values]
    return [{"op": "add", "path": path, "value": [*values]}]


def in_place(path: str, index: int, words: Sequence[str]) -> list[dict[str, Any]]:
    """The operations that put words into the place of one of a list."""
    return [{"op": "replace", "path": f"{path}/{index}", "value": words[0]}, *inserted(path, index + 1, words[1:])]


def inserted(path: str, index: int, words: Sequence[str]) -> list[dict[str, Any]]:
    """The operations that put words into a list, from this place on."""
    return [{"op": "add", "path": f"{path}/{n}", "value": word} for n, word in enumerate(words, index)]


def value_at(tree: Any, path: str) -> Any:
    """What stands at a JSON pointer; None where nothing does."""
    try:
        for key in pointer.split(path):
            tree = pointer.step(tree, key)
    except LookupError:
        return None
    return tree
