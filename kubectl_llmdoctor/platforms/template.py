"""What an operator makes of one part of its object: a pod template, and the way back from each field of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from kubectl_llmdoctor.tree import dig, rows, say, table

from .pointer import Json, escaped, show, split, step

#: Looks up another object: kind, namespace, name -> the raw object, or None where it is not in the snapshot. Without a
#: name: all objects of the kind, as a list under `items`.
Finder = Callable[[str, str, str], "Json | None"]


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """An engine that an operator starts inside a container whose own command says nothing of it.

    `argv` is what its command line would be, program first; `texts` and `places` say for each argument after the
    program (`skip` words) how and where the object puts it.
    """

    container: str
    argv: tuple[str, ...]
    skip: int
    texts: tuple[str, ...]
    places: tuple[str, ...]
    #: where settings of the engine belong
    path: str
    #: an image that stands for the engine where the container's own does not tell it
    image: str = ""
    #: what installs the engine in place of what the image has: `vllm==0.6.3`
    package: str = ""


class Stated(msgspec.Struct, frozen=True, kw_only=True):
    """A setting that the object states in fields of its own, under the common name of all engines."""

    name: str
    value: Any
    text: str
    path: str


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A claim that an operator makes by what an object states, and what it downloads there.

    `pointer` leads to the size in the object `raw`. `model` is an id of the Hub or of NVIDIA's catalog, empty where the
    engine itself downloads; `share` is how much of the Hub's files are fetched of it at the least.
    """

    name: str
    spec: Json
    raw: Json
    pointer: str
    model: str = ""
    share: float = 1


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """A pod template, as the operator makes it.

    `places` leads from a JSON pointer inside the pod spec to one inside the object; the longest prefix counts, and an
    empty one means that the operator alone decides about it. Lists begin with what the object states, in its order.
    """

    raw: Json
    pod: Json
    places: tuple[tuple[str, str], ...]
    #: which part of the object it is: `decode`, `workers gpu-group`; empty where there is only one
    part: str = ""
    #: the place of what the operator alone decides about, for people
    base: str = "spec"
    #: all of it stands in a text of the object (the values of a chart), into which no patch reaches
    text: bool = False
    #: the namespace of its pods, where it is another one than the object's
    namespace: str = ""
    #: labels that its pods have and those of the other templates have not; `*x` is any value that ends in x, `a|b` one
    #: of the two
    labels: Mapping[str, str] = {}
    #: pods of one replica, which live and die together; None where it is not known
    nodes: int | None = 1
    #: whether another object that is not here (a runtime, a preset, a profile) may say more about the pod
    partial: bool = False
    #: whether the operator may add volumes and probes by its own rules, which differ between its releases
    completed: bool = False
    #: the volumes that another object states, a ServingRuntime: its kind, namespace and name by that of the volume
    borrowed: Mapping[str, tuple[str, str, str]] = {}
    #: whether it describes pods of other objects, and none of its own: a ServingRuntime
    context: bool = False
    #: whether the API server refuses to change it
    immutable: bool = False
    #: whether a variable of it has a value only, and cannot refer to a Secret
    literal_env: bool = False
    told: tuple[Told, ...] = ()
    stated: tuple[Stated, ...] = ()
    claims: tuple[Claim, ...] = ()

    def at(self, pointer: str) -> str | None:
        """The pointer inside the object for one inside the pod spec; None where the object has no say."""
        best: tuple[str, str] | None = None
        for prefix, target in self.places:
            inside = pointer == prefix or pointer.startswith(prefix + "/")
            if inside and (best is None or len(prefix) > len(best[0])):
                best = prefix, target
        return best[1] + pointer[len(best[0]) :] if best and best[1] else None

    def states(self, pointer: str) -> bool:
        """Whether the object itself says what stands there, and not the operator, by a value of its own."""
        place = self.at(pointer)
        return place is not None and exists(self.raw, place)

    def shown(self, pointer: str) -> str:
        """Where in the object it stands, as a person reads it; of what the operator adds, the nearest part above."""
        rest: list[str] = []
        tokens = split(pointer)
        for length in range(len(tokens), -1, -1):
            above = "".join(f"/{part}" for part in pointer.split("/")[1 : length + 1])
            target = self.at(above)
            if target is not None:
                path = show(self.raw, target)
                return ".".join(filter(None, [path, *rest])) if rest else path
            rest.insert(0, tokens[length - 1] if length else "")
        return self.base

    def matches(self, labels: Mapping[str, Any]) -> bool:
        """Whether a pod with these labels comes from this template, as far as they tell."""
        for key, wanted in self.labels.items():
            have = str(labels.get(key, ""))
            if not (have.endswith(wanted[1:]) if wanted.startswith("*") else have in wanted.split("|")):
                return False
        return True


def name_of(raw: Json) -> str:
    """An object's name."""
    return str(dig(raw, "metadata.name") or "")


def namespace_of(raw: Json) -> str:
    """An object's namespace."""
    return str(dig(raw, "metadata.namespace") or "default")


def mounted(container: Json, path: str) -> bool:
    """Whether something is mounted there."""
    return any(str(m.get("mountPath", "")).rstrip("/") == path for m in rows(container.get("volumeMounts")))


def with_shm(spec: Json, index: int, size: Any = None, name: str = "dshm") -> Json:
    """The pod spec with a memory-backed volume at /dev/shm of one container, unless something is mounted there."""
    containers = rows(spec.get("containers"))
    if index >= len(containers) or mounted(containers[index], "/dev/shm"):
        return spec
    memory: Json = {"medium": "Memory"}
    if size not in (None, ""):
        memory["sizeLimit"] = size
    volumes = rows(spec.get("volumes"))
    if all(volume.get("name") != name for volume in volumes):
        volumes = [*volumes, {"name": name, "emptyDir": memory}]
    mounts = [*rows(containers[index].get("volumeMounts")), {"name": name, "mountPath": "/dev/shm"}]
    containers = [c if i != index else {**c, "volumeMounts": mounts} for i, c in enumerate(containers)]
    return {**spec, "volumes": volumes, "containers": containers}


def named(mine: Any, others: Any) -> list[Json]:
    """Lists of named elements put together; of one name the first counts."""
    found = rows(mine)
    names = [row.get("name") for row in found]
    return found + [row for row in rows(others) if row.get("name") not in names]


def expand(raw: Json, pattern: str) -> list[tuple[str, Any, list[tuple[str, Any]]]]:
    """Each part of an object that a dotted pattern leads to: its pointer, itself, and what each `*` stood for.

    `*` is every element of a list or every value of a mapping.
    """
    found: list[tuple[str, Any, list[tuple[str, Any]]]] = [("", raw, [])]
    for key in filter(None, pattern.split(".")):
        following = []
        for pointer, tree, stars in found:
            if key != "*":
                if isinstance(tree, dict) and key in tree:
                    following.append((f"{pointer}/{key}", tree[key], stars))
            elif isinstance(tree, list):
                following += [(f"{pointer}/{i}", x, [*stars, (str(i), x)]) for i, x in enumerate(tree)]
            elif isinstance(tree, dict):
                following += [
                    (f"{pointer}/{escaped(k)}", x, [*stars, (k, x)]) for k, x in tree.items() if isinstance(k, str)
                ]
        found = following
    return found


def exists(tree: Any, pointer: str) -> bool:
    """Whether a pointer leads somewhere."""
    try:
        for token in split(pointer):
            tree = step(tree, token)
    except LookupError:
        return False
    return True


def claim_spec(size: Any, mode: Any, default: str) -> Json:
    """The spec of a claim by the fields that operators have for it."""
    return {"accessModes": [str(mode or default)], "resources": {"requests": {"storage": size}} if size else {}}


def filled(text: str, raw: Json) -> str:
    """A word with `{{.Name}}`, `{{ .Namespace }}`, `{{.Labels.x}}` replaced by the object's metadata, as KServe does."""
    meta = table(raw.get("metadata"))
    known = {"Name": name_of(raw), "Namespace": namespace_of(raw)}
    for group in ("labels", "annotations"):
        for key, value in table(meta.get(group)).items():
            known[f"{group.title()}.{key}"] = say(value)
    return re.sub(r"\{\{-?\s*\.(?:ObjectMeta\.)?([\w.]+)\s*-?\}\}", lambda m: known.get(m[1], m[0]), text)
