"""What to write in place of arguments that an engine refuses."""

import re
import shlex
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    MASK,
    Container,
    Engine,
    Evidence,
    Fix,
    Problem,
    fixes,
    settling,
    stating,
)

#: Options of `docker run` that guides show before the image, and manifests then have behind it.
_OF_DOCKER = frozenset((
    "--runtime", "--gpus", "-p", "--publish", "--ipc", "--shm-size", "-v", "--volume", "--mount", "--network", "--net", "--name",
    "--rm", "-it", "-d", "--detach", "-e", "--env", "--env-file", "--ulimit", "--privileged", "--cap-add", "--device", "--group-add",
    "--security-opt", "--restart", "--entrypoint", "--platform", "--pull",
))  # fmt: skip
#: Those of them that take no value: a word behind is something else, such as the model.
_ALONE = frozenset(("--rm", "-it", "-d", "--detach", "--privileged"))

#: The images of the projects themselves.
_PUBLISHED = r"(?:^|/)(?:vllm/vllm-openai|lmsysorg/sglang|huggingface/text-generation-inference)(?:$|[:@])"


def misspelt(engine: Engine, problems: list[Problem]) -> list[Problem]:
    """Slips of the pen, other engines' names and shortened options, in the arguments of an image of an unknown release.

    A build of somebody's own may have options that no release has.
    """
    return [p for p in problems if p.meant] if re.search(_PUBLISHED, engine.container.spec.image) else []


def listed(problems: list[Problem]) -> str:
    return "; ".join(p.detail.rstrip(".") for p in problems[:3])


def mended(engine: Engine, problems: list[Problem]) -> Iterator[Fix]:
    if gone := _to_be_removed(problems):
        yield _all_removed(engine, gone)
    for problem in [one for one in problems if one not in gone][:2]:
        where = _where(engine, problem)
        if problem.kind == "duplicate-serve":
            if problem.text == "serve":
                summary = "Remove `serve` from args: the image's entrypoint is the server already"
                yield fixes.remove_word(engine.container, problem.path, summary)
            else:
                yield fixes.advice(
                    f"Put what stands in args of {where} into command, or leave only the server's own options in args"
                )
        elif problem.kind == "glued":
            yield _split(engine, problem, where)
        else:
            yield _correction(engine, problem, where)


def _to_be_removed(problems: list[Problem]) -> list[Problem]:
    """Several options that the engine has not, nor anything like them: the container starts once all of them are gone."""
    docker = [p for p in problems if p.kind == "unknown-flag" and _option(p) in _OF_DOCKER]
    alike = docker if len(docker) > 1 else []  # `-p` by itself may be a slip of the pen
    gone = [p for p in problems if p in alike or re.search(rf" has no option {re.escape(_option(p))}$", p.detail)]
    return gone if len(gone) > 1 else []


def _option(problem: Problem) -> str:
    return problem.flag or re.split(r"[ =]", problem.text, maxsplit=1)[0]


def _all_removed(engine: Engine, gone: list[Problem]) -> Fix:
    """Several options taken out at once; those that `docker run` takes say the same in other fields of a pod."""
    container, names = engine.container, [*dict.fromkeys(map(_option, gone))]
    text = f"Remove {', '.join(names[:-1])} and {names[-1]}"
    if ours := [name for name in names if name in _OF_DOCKER]:
        text += ", which are for docker run" if ours == names else f" ({', '.join(ours)}: for docker run)"
        text += "; GPUs, ports, volumes and shared memory have fields of their own in a pod"
    places = [stating.stated(container, name) for name in names]
    vectors = {place.vector for place in places if place and place.index is not None}
    if container.told or len(vectors) != 1 or any(place is None or place.index is None for place in places):
        return fixes.advice(f"{text} in {fixes.edited(engine.pod)}")
    vector = vectors.pop()
    words = container.spec.words(vector)
    kept = {n for n, word in enumerate(words) if words[n - 1] in _ALONE and not re.search(rf"^-|{_PUBLISHED}", word)}
    elements = sorted({index for place in places if place for index in place.elements} - kept, reverse=True)
    at = f"{container.pointer}/{vector}"
    return fixes.patch(engine.pod, text, [{"op": "remove", "path": f"{at}/{index}"} for index in elements])


def _where(engine: Engine, problem: Problem) -> str:
    """What a person edits: the ConfigMap where the value is one of its keys, which many workloads may share, else the workload."""
    shared = from_config_map(engine, problem)
    return shared[0] if shared else fixes.edited(engine.pod)


def from_config_map(engine: Engine, problem: Problem) -> tuple[str, Evidence] | None:
    """The key of a ConfigMap that a refused value comes from, and what stands there."""
    if problem.kind == "bad-value":
        for name in re.findall(r"\$[({]?(\w{1,100})", problem.text):
            variable = engine.container.env.get(name)
            if variable and variable.value and variable.origin.startswith("ConfigMap "):
                text = f"{name}={variable.value} ({variable.origin})"
                return variable.origin, Evidence(source="pod", ref=variable.path, text=text)
    return None


def _correction(engine: Engine, problem: Problem, where: str) -> Fix:
    """What to write instead, where the detail names it; else what to take away, or which release has it."""
    name, container = problem.flag or problem.text, engine.container
    # by the name that stands there, which may be a short one
    own = {name, problem.text.partition(" ")[0]} - {""} if where == fixes.edited(engine.pod) else set()
    place = next((found for one in sorted(own) if (found := stating.stated(container, one))), None)
    return (
        _other_name(container, problem, name, where)
        or _other_value(container, problem, name, where, place)
        or _left_out(container, problem, name, where, place)
        or _as_plain_json(container, problem, name, place)
        or fixes.advice(f"Correct or remove {name} in {where}: {problem.detail}")
    )


#: The end of a detail that names what is nearest.
_NEAREST = r"; the nearest is (\S{1,80})$"


def _other_name(container: Container, problem: Problem, name: str, where: str) -> Fix | None:
    """The flag that is meant, where there is none of that name."""
    if problem.kind != "unknown-flag":
        return None
    if several := re.search(r" could be (-[^:]{1,400}): ", problem.detail):
        return fixes.advice(f"Write in {where} the one of {several[1]} that is meant, instead of {name}")
    near = re.search(_NEAREST, problem.detail)
    right = near[1] if near else problem.meant
    text = f"Write {right} instead of {name}"
    return fixes.rename_word(container, problem.path, name, right, text) if right else None


def _other_value(
    container: Container, problem: Problem, name: str, where: str, place: "stating.Stated | None"
) -> Fix | None:
    """The value that is meant, or those that there are."""
    detail = problem.detail
    if place and (share := settling.as_share(container, place)):
        return share
    if re.search(r"not a whole number| reads '", detail) and place and (digits := settling.in_digits(container, place)):
        return digits
    near, listed = re.search(_NEAREST, detail), re.search(r": not (one of (.{1,600}))$", detail)
    right = near[1] if near else _meant(detail, listed[2].split(", ") if listed else [])
    if problem.kind == "bad-value" and right:
        text = f"Set {name} to {right}"
        known = place is not None and place.value is not None
        return stating.given(container, place, right, text) if place and known else fixes.advice(f"{text} in {where}")
    return fixes.advice(f"Set {name} in {where} to {listed[1]}, or remove it") if listed else None


def _left_out(
    container: Container, problem: Problem, name: str, where: str, place: "stating.Stated | None"
) -> Fix | None:
    """What goes, as this release has no such option, or what goes elsewhere; or the value that it lacks."""
    detail = problem.detail
    if first := re.search(r" came with ([^;]{1,60}); ", detail):
        return _removed(container, place, f"Remove {name}", where, f"; {first[1]} is the first release with it")
    if problem.kind == "removed-flag":
        instead = re.search(r" \(([^()]{1,200})\)$", detail)
        return _removed(container, place, f"Remove {name}", where, f": {instead[1]}" if instead else "")
    if name == "--model" and " as its first argument " in detail:
        model = problem.text.removeprefix(name).strip()
        return fixes.advice(f"Write the model behind serve (vllm serve {model}) and leave {name} out, in {where}")
    if problem.kind == "missing-value":
        return fixes.advice(f"Give {name} its value in {where}, or remove it")
    if re.search(rf"has no option {re.escape(name)}(?:, which is [^,;]{{1,60}})?$", detail):
        return _removed(container, place, f"Remove {name}", where, "")
    return None


def _as_plain_json(container: Container, problem: Problem, name: str, place: "stating.Stated | None") -> Fix | None:
    right = settling.as_json(place.value) if place and place.value else None
    if not right or not place or not problem.detail.endswith(": not valid JSON"):
        return None
    return stating.given(container, place, right, f"Write the value of {name} as plain JSON: {right}")


def _meant(detail: str, choices: list[str]) -> str:
    """The value that was meant by one that the parser does not take; empty where that is open."""
    value = re.search(r" is '([^']{1,80})': ", f"{detail}")
    if only := re.search(r"\(it has ([\w.-]{1,60})\)$", detail):
        return only[1]
    return settling.nearest(value[1], choices) if value and choices else ""


def _removed(container: Container, place: "stating.Stated | None", text: str, where: str, why: str) -> Fix:
    """An option taken out of the arguments that state it."""
    return stating.without(container, place, text + why) if place else fixes.advice(f"{text} in {where}{why}")


def _split(engine: Engine, problem: Problem, where: str) -> Fix:
    """Each word as an element of its own; `--flag=value` is one word, except for llama.cpp, which does not split it."""
    text = problem.text.strip()
    try:
        words = shlex.split(text if " " in text else text.replace("=", " ", 1))
    except ValueError:
        words = text.split()
    summary = f"Write `{words[0]}` and what follows as {len(words)} elements of the list"
    fix = fixes.split_word(engine.container, problem.path, words, summary) if MASK not in text else None
    return fix or fixes.advice(f"{summary} in {where}")
