"""Which release of an engine, or of Transformers, knows what the one in an image does not, and the image that has it."""

from __future__ import annotations

import re
import shlex

from kubectl_llmdoctor import fixes
from kubectl_llmdoctor.catalog.arrivals import release_for, transformers_for
from kubectl_llmdoctor.catalog.families import having, library, made_for_chats, package, tokenizer_mode, tool_parser
from kubectl_llmdoctor.catalog.images import published
from kubectl_llmdoctor.catalog.models import find
from kubectl_llmdoctor.engines.version import split_image
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.engine import Engine
from kubectl_llmdoctor.report.document import Fix
from kubectl_llmdoctor.stating import added, given, stated, word

#: A tag that is a release and nothing besides: what follows a version (a CUDA, a system) need not be there for another one.
_PLAIN = expression(r"(?P<begin>v?)\d+\.\d+\.\d+(?:\.post\d+)?(?P<end>-(?:runtime|cpu))?")

_PIP, _INSTALL = expression(r"\b(?:pip3?|uv)\b"), expression(r"\binstall\b")

#: By which engines are told their model.
_MODEL_OPTIONS = ("--model", "--model-path", "--model-id", "--model_id", "MODEL_ID")

#: What llama.cpp's own build makes, and no package of a distribution brings.
_OF_LLAMA = expression(r"lib(?:llama|ggml|mtmd)(?:-[\w-]{1,60})?\.so")
#: Libraries of CUDA, which packages of Python bring in several versions.
_CUDA = expression(r"lib(?:cu|nv|nccl)")

#: What brings libraries and programs that are none of the image's.
_ADDED = frozenset({"LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH"})

#: Packages of which each release is made for one of torch, and brings it along.
_WITH_TORCH = expression(r"torch(?:audio|vision|codec)")

#: What reads GGUF files by llama.cpp, which knows architectures of its own: Transformers has no say there.
_WITHOUT_TRANSFORMERS = frozenset({"llama.cpp", "ollama", "localai"})

#: What each image of an engine has: where it is not found something else is wrong there.
_CORE = expression(r"torch|transformers|triton|tokenizers|numpy|safetensors")


def newer(container: Container | None, engine: Engine | None, names: tuple[str, ...]) -> Fix | None:
    """The release that knows a model by one of its names (class, type); None where no table says it."""
    first = next((r for name in names if engine and (r := release_for(engine.name, name))), None)
    if engine is not None and first is not None and engine.at_least(first) is not True:
        return released(engine, first)
    library = next((r for name in names if (r := transformers_for(name))), None)
    if library is None or (engine is not None and engine.name in _WITHOUT_TRANSFORMERS):
        return None
    if container is not None and engine is not None and engine.own_image:
        return fixes.advice(
            f"Take an image of {engine.title} newer than {container.spec.image}, with Transformers {library} or later, which knows "
            f"{names[0]} (pip show transformers in the image says which it has)"
        )
    image = f" for {container.spec.image}" if container and container.spec.image else ""
    return fixes.advice(f'Build the image{image} with "transformers>={library}", which knows {names[0]}')


def released(engine: Engine, first: str, *, exact: bool = False) -> Fix:
    """An engine's release, or any after it, in the place of the one that runs; `X.post1` is any after X.

    `exact`: it is that release that ends the trouble; else it is the first that may, and the model's page knows better.
    """
    container, before = engine.container, first.removesuffix(".post1")
    least = f"{first} or later" if before == first or exact else f"later than {before}"
    text = f"{engine.title} {least}" + (f" (it is {engine.version})" if engine.version else "")
    repository, colon, tag = container.spec.image.rpartition(":")
    elsewhere = container.repository
    other = elsewhere and "$" not in elsewhere and not published(elsewhere) and not engine.pod.log_only
    text = f"Take a build of {elsewhere} with {text}" if other else f"Run {text}"
    plain = _PLAIN.fullmatch(tag)
    if not exact or not (colon and plain) or other or not engine.own_image or container.told or engine.pod.log_only:
        page = "" if exact else ", in the release that the model's page names where it is later"
        return fixes.advice(f"{text} in {fixes.edited(engine.pod)}{page}")
    image = f"{repository}:{plain['begin']}{first}{plain['end'] or ''}"
    return fixes.set_image(container, image, text)


def reads_tools(engine: Engine) -> Fix | None:
    """vLLM with the parser of its model's family; None where its name tells of none, or the server is another."""
    parser = tool_parser(engine.checkpoint.rpartition("/")[2] or engine.checkpoint)
    container = engine.container
    if not parser or engine.name != "vllm" or engine.pod.log_only or not engine.found.argv_known:
        return None
    told = stated(container, "--tool-call-parser")
    if told is not None and told.value and told.value != parser:
        return given(container, told, parser, f"Set --tool-call-parser to {parser}, the parser of {engine.checkpoint}")
    words = []
    if engine.value("enable_auto_tool_choice", False) is False:
        words.append("--enable-auto-tool-choice")
    if engine.explicit("tool_call_parser") is None:
        words.append(f"--tool-call-parser={parser}")
    return (
        added(container, engine, tuple(words), f"Add {' '.join(words)}, the parser of {engine.checkpoint}")
        if words
        else None
    )


def for_chats(engine: Engine) -> Fix | None:
    """What writes the messages of a model without a template, or the variant for chats of a base model; None where no table knows it."""
    name = engine.checkpoint
    own = tokenizer_mode(name.rstrip("/").rpartition("/")[2]) if engine.name == "vllm" else None
    if own is not None and engine.explicit("tokenizer_mode") is None:
        return _mode(engine, *own)
    if made_for_chats(name):
        return None
    bare = re.sub(r"-(?:[Bb]ase|pt)$", "", name)
    ways = (bare, f"{bare}-Instruct", f"{bare}-it", f"{bare}-Chat")
    found = next((way for way in ways if way != name and (row := find(way)) and row.exact), None)
    if found is None or engine.pod.log_only:
        return None
    text = f"Serve {found}, the variant of {name} for chats, which has a template"
    return serve(engine, found, text) or fixes.advice(f"{text}, in {fixes.edited(engine.pod)}")


def serve(engine: Engine, model: str, text: str, instead: str = "") -> Fix | None:
    """Another model in the place of one that the container names, its own where none is told; None where it is not named in plain words."""
    name = instead or engine.checkpoint
    place = next((p for flag in _MODEL_OPTIONS if (p := stated(engine.container, flag, engine))), None)
    if engine.pod.log_only:
        return None
    if place is not None and place.value == name:
        return given(engine.container, place, model, text)
    return word(engine.container, name, model, text)


def _mode(engine: Engine, mode: str, first: str) -> Fix:
    """vLLM with the tokenizer mode that writes a model's messages, in a release that has it."""
    text = f"Set --tokenizer-mode {mode}: the model has no template, and vLLM writes its messages itself"
    if engine.at_least(first) is True:
        return fixes.set_flag(engine, "tokenizer_mode", "--tokenizer-mode", mode, text)
    now = f" (it is {engine.version})" if engine.version else ""
    return fixes.advice(f"{text} from {first} on{now}: run such a release in {fixes.edited(engine.pod)}")


def packaged(container: Container | None, engine: Engine | None, module: str, name: str) -> Fix | None:
    """The package, or its release, that a program misses in the image; None where no table says which that is."""
    release = transformers_for(name) if module.partition(".")[0] == "transformers" and name else None
    wanted = (having(module, name) or (f"transformers>={release}" if release else "")) if name else package(module)
    own = engine is not None and engine.own_image
    if not wanted or (own and not name and _CORE.fullmatch(wanted)):  # which no image of an engine is made without
        return None
    bare = re.split(r"[<>=\[]", wanted)[0]
    if container is None:
        return fixes.advice(f'Build the image with it: RUN pip install "{wanted}"')
    where = fixes.edited(container.pod)
    script = next((text for _, text in container.words if installs(text, bare)), "")
    if script and name:
        return fixes.advice(f'Have the start script of {where} install "{wanted}" where it installs {bare} now')
    system = " --system" if container.spec.image.startswith("vllm/vllm-openai") else ""
    pip = f"uv pip install{system}" if system else "pip install"
    if _WITH_TORCH.fullmatch(wanted):  # the newest would bring another torch, of another CUDA
        return fixes.advice(
            f"Build an image of two lines, FROM {container.spec.image} and RUN {pip} --no-deps {wanted}==RELEASE, the one made for "
            f"the image's torch (pip show torch says which it has), and name it in {where}"
        )
    return fixes.advice(
        f'Build an image of two lines, FROM {container.spec.image} and RUN {pip} "{wanted}", and name it in {where}'
    )


def linked(container: Container, engine: Engine | None, name: str) -> Fix | None:
    """What brings a shared library to an image; None where no table says it, or it is CUDA's in an engine's own image."""
    command = library(name)
    own = engine is not None and engine.own_image
    if not container.spec.image or (own and command.startswith("pip")):
        return None
    if not command:
        return _whole(container, name) if own or _OF_LLAMA.match(name) else None
    folder = "site-packages/nvidia/*/lib"
    path = (
        f" (its folder, {folder}, in LD_LIBRARY_PATH where the program is none of Python's)"
        if command.startswith("pip")
        else ""
    )
    other = "Take another release of the engine's image, which has it, or build" if own else "Build"
    return fixes.advice(
        f"{other} an image of two lines, FROM {container.spec.image} and RUN {command}{path}, and name it in {fixes.edited(container.pod)}"
    )


def _whole(container: Container, name: str) -> Fix | None:
    """Another release of an image that lacks a part of its engine; None where what the pod adds may be why."""
    if _CUDA.match(name) or _ADDED.intersection(container.env) or _INSTALL.search(" ".join(container.spec.argv)):
        return None
    image = container.spec.image
    lost = f"{name}, or does not look where it has it" if _OF_LLAMA.match(name) else name
    return fixes.advice(
        f"Name another release of {image}, the one before or after it, in {fixes.edited(container.pod)}: this one was built without {lost}",
        f"skopeo list-tags {shlex.quote(f'docker://{split_image(image)[0]}')}",
    )


def installs(script: str, package: str) -> bool:
    """Whether a start script installs a package over the one of the image."""
    named = re.compile(rf"(?<![\w-]){re.escape(package)}(?![\w-])")
    for command in re.split(r"[\n;&|]", script):
        pip = _PIP.search(command)
        install = _INSTALL.search(command, pip.end()) if pip else None
        if install and named.search(command, install.end()):
            return True
    return False
