"""From a container to its engine: expands the command, recognises the program, hands over to the engine's reader."""

from __future__ import annotations

import msgspec

from .argv import LOGINS, SHELLS, Command, Programs, Word, basename, environment, open_references, words_of
from .common import Start, own_build, version_of_image
from .config import Engine, Problem
from .launch import Launch
from .modules import module
from .recognise import (
    LOCALAI_ERRANDS,
    Match,
    beside,
    is_python,
    judge,
    of_environment,
    of_flags,
    of_image,
    starts_other,
    tokens_of,
)
from .version import split_image

# What the full image of llama.cpp does instead of serving (.devops/tools.sh).
_LLAMA_ERRANDS = ("--run", "--convert", "--quantize", "--bench", "--perplexity", "--all-in-one")

# Programs that arguments may name where the image's entrypoint runs what it gets.
_PROGRAMS = frozenset(
    ["dynamo", "ray", "sleep", "tail", "jupyter", "cat", "true",
     "trtllm-build", "trtllm-bench", "trtllm-eval", "trtllm-prune", "trtllm-refit"]
)  # fmt: skip


def read(launch: Launch) -> Engine | None:
    """The engine that a container runs."""
    programs = _programs(launch)
    start = _started(launch, programs)
    if start is None:
        return None
    engine: Engine = module(start.engine).read(start)
    return engine


def read_hidden(launch: Launch, name: str) -> Engine | None:
    """The engine of this name that a container starts by a program which cannot be seen into; None where it starts something else.

    Only its variables are known. What the program makes of its own arguments is not, so that nothing is found wrong with them.
    """
    programs = _programs(launch)
    if beside(launch.image) or starts_other(programs.commands, launch.image):
        return None
    unseen = Command((), programs.env, True, False)
    start = _start(launch, programs, Match(name, _form(name), (), ()), unseen, known=False)
    engine: Engine = module(name).read(start)
    return msgspec.structs.replace(engine, problems=())


def commands(launch: Launch) -> list[tuple[str, ...]]:
    """The words of each command by which a container starts an engine, or may start one."""
    started = _programs(launch).commands
    return [tuple(w.text for w in one.words) for one in started if judge(one.words, launch.image).match is not None]


def _programs(launch: Launch) -> Programs:
    """The programs that the container's command starts; without a command, the arguments are its only one."""
    env = environment(launch)
    args = words_of(launch.args, f"{launch.path}.args", env)
    words = words_of(launch.command, f"{launch.path}.command", env) + args
    names = [basename(word.text) for word in words[:24]]
    known = any(path and path in launch.files for path in (words[0].text,)) if words else False
    if not known and not SHELLS.intersection(names) and not LOGINS.intersection(names[:1]):
        words = [msgspec.structs.replace(word, text=open_references(word.text)) for word in words]
        return Programs((Command(tuple(words), env, True, False),) if words else (), (), env, launch.files)
    from .shell import Shell

    shell = Shell(env, launch.files)
    shell.start(words)
    return Programs(tuple(shell.commands), tuple(shell.strays), env, shell.files)


def _started(launch: Launch, programs: Programs) -> Start | None:
    verdicts = [(command, judge(command.words, launch.image)) for command in programs.commands]
    found = [(command, verdict.match) for command, verdict in verdicts if verdict.match is not None]
    # what is surely reached comes first
    found.sort(key=lambda pair: not pair[0].sure)
    written = _written(launch)
    if found:
        command, match = found[0]
        repeated = () if written else _repeated(launch, command, match)
        return _start(launch, programs, match, command, known=not match.hidden, repeated=repeated)
    if written and (start := _one_word(launch, programs)) is not None:
        return start
    if written:
        if not any(verdict.hidden for _, verdict in verdicts):
            return None
        engine = of_image(launch.image)
        if engine is None:
            return None
        # a script that cannot be seen starts it: only its options among the arguments are known
        command = next(command for command, verdict in verdicts if verdict.hidden)
        words = tuple(command.words)
        first = next((index for index, word in enumerate(words) if word.text.startswith("-")), len(words))
        match = Match(engine, _form(engine), words[:first], words[first:])
        return _start(launch, programs, match, command, known=False)
    return _by_image(launch, programs)


def _written(launch: Launch) -> bool:
    """Whether a command is stated: `command`, or arguments that are one, which the entrypoints of most images start.

    vLLM's own image takes them for arguments of `vllm serve`.
    """
    if launch.command:
        return not launch.command[0].startswith("-")
    return bool(launch.args) and is_python(basename(launch.args[0])) and not _official(launch.image)


def _one_word(launch: Launch, programs: Programs) -> Start | None:
    """`command: ["vllm serve m"]`: a whole command line as the name of a program, which no runtime finds."""
    command = next(iter(programs.commands), None)
    first = command.words[0] if command is not None and not command.scripted else None
    if command is None or first is None or " " not in first.text:
        return None
    words = tuple(Word(text, text, first.path) for text in first.text.split()) + command.words[1:]
    match = judge(words, launch.image).match
    if match is None:
        return None
    detail = f"the whole command line is one word, so a program named `{first.shown[:80]}` is looked for and not found"
    note = Problem(
        kind="glued", flag=match.program[0].text, text=first.raw, path=first.path, detail=detail, certain=True
    )
    start = _start(launch, programs, match, msgspec.structs.replace(command, words=words), known=True)
    return msgspec.structs.replace(start, notes=(note,))


def _form(engine: str) -> str:
    return "hidden" if engine == "vllm" else ""


def _by_image(launch: Launch, programs: Programs) -> Start | None:
    """No command: the image's entrypoint gets the arguments."""
    args = tuple(word for command in programs.commands for word in command.words)
    image = launch.image
    engine = of_image(image)
    known = engine is not None and _own_entrypoint(engine, image, bool(args))
    if engine is None:
        if beside(image):
            return None
        engine = of_flags(args) or of_environment(launch)
    if engine is None:
        return None
    first = args[0].text if args else ""
    # `download-to-cache`, `bench …`, `pull …`: the image's program with another errand
    if engine in ("nim", "ollama", "lmdeploy", "triton") and first and not first.startswith("-"):
        if (engine, first) == ("ollama", "serve"):
            args = args[1:]
        else:
            return None
    if (engine == "llama.cpp" and first in _LLAMA_ERRANDS) or (first in _PROGRAMS and not _official(image)):
        return None
    if engine == "localai" and first in LOCALAI_ERRANDS:
        return None
    if engine == "localai" and first == "run":
        args = args[1:]
    if engine == "llama.cpp":
        tag = split_image(image)[1]
        if tag.startswith("light"):  # its entrypoint is `llama-cli`
            return None
        if first in ("--server", "-s") and tag.startswith("full"):
            args = args[1:]
    empty = Command(args, programs.env, True, False)
    form = "python" if engine == "llama.cpp" and "python" in tokens_of(image)[1] else ""
    if engine == "vllm" and not _official(image):
        form = "image"
        if first == "serve":  # an entrypoint of its own: `vllm`
            form, args = "serve", args[1:]
    match = Match(engine, form, (), args)
    return _start(launch, programs, match, empty, known=known, implied=True)


def _own_entrypoint(engine: str, image: str, told: bool) -> bool:
    """Whether it is the engine's own image, whose entrypoint is known; `told` is whether it gets any arguments.

    An image that somebody called llama-server and that gets none may start it with arguments of its own.
    """
    if engine == "vllm":
        return _official(image) or version_of_image(engine, image, {})[0] is not None
    if engine == "nim":
        return True
    last = split_image(image)[0].lower().rpartition("/")[2]
    if engine == "llama.cpp":
        return last == "llama.cpp" or (told and last in ("llama-server", "llama-cpp"))
    return own_build(engine, image)


def _official(image: str) -> bool:
    """Whether it is vLLM's own image or a mirror of it, so that its entrypoint is that of the release."""
    return split_image(image)[0].lower().rpartition("/")[2].startswith("vllm-openai")


def _repeated(launch: Launch, command: Command, match: Match) -> tuple[Word, ...]:
    """A whole command in `args`, where the image's entrypoint already is one; only where that is known."""
    if match.engine != "vllm" or not _official(launch.image):
        return ()
    if command.scripted or basename(launch.args[0] if launch.args else "") in SHELLS:
        return (Word(launch.args[0], launch.args[0], f"{launch.path}.args[0]"),) if launch.args else ()
    return match.program[:2]


def _start(
    launch: Launch,
    programs: Programs,
    match: Match,
    command: Command,
    known: bool,
    repeated: tuple[Word, ...] = (),
    implied: bool = False,
) -> Start:
    return Start(
        engine=match.engine,
        form=match.form,
        launch=launch,
        program=match.program,
        args=match.args,
        env=command.env,
        files=programs.files,
        known=known,
        commands=programs.commands,
        strays=programs.strays,
        repeated=repeated,
        implied=implied,
    )
