"""What the readers of all engines share: the start of an engine, its version, settings from variables and defaults."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from kubectl_llmdoctor.expressions import expression

from .argv import Command, Stray, Word
from .config import Engine, Problem, ProblemKind, Setting
from .dialect import ONLY_PRINT, Dialect
from .launch import EnvVar, Launch
from .names import TITLES
from .values import MAX_FILE, BadValueError, convert
from .version import after, at_least, of_tag, parse, split_image


class Start(msgspec.Struct, frozen=True):
    """One engine as it is started: the words after its program, and what surrounds them."""

    engine: str
    form: str
    launch: Launch
    program: tuple[Word, ...]
    args: tuple[Word, ...]
    env: Mapping[str, EnvVar]
    files: Mapping[str, str]
    known: bool
    commands: tuple[Command, ...]
    strays: tuple[Stray, ...]
    #: the arguments repeat the image's entrypoint: the words that are too many
    repeated: tuple[Word, ...] = ()
    #: the program is the image's own entrypoint, not written in the manifest
    implied: bool = False
    #: what was found wrong before the engine's own words are looked at
    notes: tuple[Problem, ...] = ()


class CommandLine:
    """What the words of one engine set, and what its parser would refuse of them."""

    def __init__(self, speech: Dialect | None, *, usual: bool = True) -> None:
        self.dialect = speech
        # nothing is certain about a version that was not read, or where what starts it is not `usual`
        self._certain = usual and speech is not None and speech.known
        self.settings: dict[str, Setting] = {}
        self.problems: list[Problem] = []
        self.unresolved: set[str] = set()
        self.known = True

    @property
    def named(self) -> str:
        """How the engine is called in a detail."""
        return self.dialect.named if self.dialect is not None else "the server"

    def problem(
        self, kind: ProblemKind, flag: str, words: Iterable[Word], detail: str, certain: bool = False, meant: str = ""
    ) -> None:
        """Notes a problem."""
        words = list(words)
        self.problems.append(
            Problem(
                kind=kind,
                flag=flag.replace("\0", ""),
                text=" ".join(word.raw for word in words if word.raw),
                path=words[0].path if words else "",
                detail=detail.replace("\0", ""),
                certain=certain and self._certain,
                meant=meant,
            )
        )

    def refuse(self, setting: Setting, detail: str, certain: bool = True, kind: ProblemKind = "conflict") -> None:
        """Notes what is wrong with a setting that was read."""
        self.problem(kind, setting.flag, [Word("", setting.text, setting.path)], detail, certain)

    def set(self, setting: Setting) -> None:
        """Takes a setting, which wins over the same one before it."""
        self.settings.pop(setting.name, None)
        self.unresolved.discard(setting.name)
        self.settings[setting.name] = setting

    def unread(self, name: str) -> None:
        """Forgets a setting whose value was given and is not known."""
        self.settings.pop(name, None)
        self.unresolved.add(name)

    def unreadable(self, name: str, flag: str, words: Sequence[Word]) -> None:
        """The same of a value that stands in a place that is not seen."""
        self.unread(name)
        shown = " ".join(word.shown for word in words)
        self.problem("unresolved", flag, words, f"the value in `{shown}` is not known here")

    def unknown(self, key: str, words: Iterable[Word], candidates: object = None) -> None:
        """Notes an option that this version does not have: removed, not there yet, ambiguous, misspelt, or never heard of."""
        if self.dialect is None or key in ONLY_PRINT:
            return
        if isinstance(candidates, list) and candidates:
            detail = f"{key} could be {', '.join(sorted(candidates)[:4])}: {self.named} refuses it"
            self.problem("unknown-flag", key, words, detail, True, self.dialect.shortened(candidates))
            return
        found = self.dialect.unknown(key)
        self.problem(found.kind, key, words, found.detail, found.sure, found.meant)


# Last components of repositories whose tag is the engine's own version, and what a plausible version begins with.
_OWN: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "vllm": (
        ("vllm-openai", "vllm-openai-cpu", "vllm-openai-rocm", "vllm-openai-xpu", "vllm-openai-cu130", "vllm",
         "vllm-cpu", "vllm-gpu", "vllm-cuda", "vllm-rocm", "vllm-cpu-release-repo", "vllm-cpu-env", "vllm-tpu"),
        ("0.",),
    ),
    "sglang": (("sglang", "sglang-rocm", "sglang-cpu", "sgl-dev"), ("0.",)),
    "tgi": (("text-generation-inference", "tgi", "text-generation-inference-rocm"), ("0.", "1.", "2.", "3.")),
    "tei": (("text-embeddings-inference",), ("0.", "1.")),
    "lmdeploy": (("lmdeploy",), ("0.", "1.")),
    "ollama": (("ollama", "ollama-rocm"), ("0.",)),
    "localai": (("localai", "local-ai"), ("1.", "2.", "3.", "4.")),
    "tensorrt-llm": (("release", "tensorrt-llm", "trtllm", "tensorrt_llm"), ("0.", "1.", "2.")),
    "huggingfaceserver": (("huggingfaceserver", "huggingfaceserver-gpu"), ("0.", "1.")),
    "nim": ((), ("0.", "1.", "2.", "3.")),
}  # fmt: skip

#: Numbers of a release of vLLM.
_PARTS = 3

# Names within the last component under which clouds publish an engine's own image.
_WITHIN = {
    "tgi": ("text-generation-inference", "tgi"),
    "tei": ("text-embeddings-inference",),
    "huggingfaceserver": ("huggingfaceserver",),
    "lmdeploy": ("lmdeploy",),
    "triton": ("tritonserver",),
}

# What stands before the version in the tags of Text Embeddings Inference: the processor that a build is for.
_TEI_BUILDS = frozenset(
    ["cpu", "cuda", "turing", "volta", "ampere", "ada", "hopper", "86", "89", "90", "100", "120", "arm64", "xpu", "hpu"]
)

# Publishers that put a version of their own on the tag of an image that is called like the engine.
_FOREIGN = (
    *("lmcache/", "/nvidia/", "llm-d/", "ai-dynamo/", "opea/", "vllm-ascend", "neuron/", "habanalabs/"),
    "leapfrogai/",
)

#: The base that an image was built anew on keeps the version of what is in it: ollama-ubi9:0.5.7.
_BASE = expression(r"-ubi\d{1,2}$")

# Names under which pip installs an engine.
_PACKAGES = {"vllm": "vllm", "sglang": "sglang", "lmdeploy": "lmdeploy", "tensorrt-llm": "tensorrt-llm"}


#: Google's builds of what Hugging Face makes have the version in their name, and no tag.
_GOOGLES = expression(
    r"huggingface-text-(?:generation|embeddings)-inference-(?:cu\d{2,4}|cpu)\.(\d{1,2})-(\d{1,2})(?:\.[\w.-]{1,60})?"
)


def own_build(engine: str, image: str) -> bool:
    """Whether an image is the engine's own or a mirror of it by its name, and not somebody's build with other defaults.

    A version that the engine never had says that the tag counts something else.
    """
    repository, tag, _ = split_image(image)
    last = repository.lower().rpartition("/")[2]
    names, plausible = _OWN.get(engine, ((), ()))
    if not (last in names or any(part in last for part in _WITHIN.get(engine, ()))):
        return False
    numbers = of_tag(tag)
    return numbers is None or not plausible or numbers.startswith(plausible)


def version_of(start: Start) -> tuple[str | None, str]:
    """The engine's version and what says so; (None, "") where nothing states it.

    A tag counts only on the engine's own image or a plain mirror of it: `lmcache/vllm-openai`, `llm-d` and
    `nvcr.io/nvidia/vllm` carry versions of something else.
    """
    package = _PACKAGES.get(start.engine)
    if package and (found := _installed(start.commands, package)):
        return found
    return version_of_image(start.engine, start.launch.image, start.launch.labels)


def _installed(commands: Iterable[Command], package: str) -> tuple[str, str] | None:
    """`pip install vllm==0.6.6` in the start script itself."""
    for command in commands:
        texts = [word.text for word in command.words]
        if "install" not in texts[:5]:
            continue
        for text in texts:
            name, found, version = text.partition("==")
            if found and name.partition("[")[0].replace("_", "-") == package and parse(version) is not None:
                return version, f"pip install {text}"
    return None


def version_of_image(engine: str, image: str, labels: Mapping[str, str]) -> tuple[str | None, str]:
    """What the image's tag, or a chart's label beside an image without a tag, says about the engine's version."""
    repository, tag, digest = split_image(image)
    last = repository.lower().rpartition("/")[2]
    if engine == "llama.cpp":
        build = re.search(r"(?<![^._-])b\d{3,}(?![^._-])", tag)
        return (build[0], f"image tag {tag}") if build else (None, "")
    _, plausible = _OWN.get(engine, ((), ()))
    own = _is_own(engine, repository.lower())
    if engine in ("vllm", "sglang", "tgi") and not (own and of_tag(tag)):
        # rocm6.4.1_vllm_0.9.0.1_20250605, 0.3.7.post2-sglang0.5.5.post3, ray-2.41.0-py310-vllm0.7.0, 2.4.0-tgi3.0.1-gpu
        for text, kind in ((tag, "tag"), (last, "name")):
            if (marked := after(text, engine)) and marked.startswith(plausible):
                return marked, f"image {kind} {text}"
    if engine == "tei":
        tag_of_build = tag.partition("-")
        tag = tag_of_build[2] if tag_of_build[0] in _TEI_BUILDS else tag
    if engine in ("tgi", "tei") and (named := _GOOGLES.fullmatch(last)):
        return f"{named[1]}.{named[2]}", f"image name {last}"
    version = of_tag(tag) if own else None
    if version is not None and engine == "vllm" and version.count(".") < _PARTS - 1:
        version = None  # its own tags have three numbers: `vllm:0.1` is somebody's first build
    if version is not None and version.startswith(plausible):
        return version, f"image tag {tag}"
    label = labels.get("app.kubernetes.io/version", "")
    # a tag such as `latest` overrides what the chart was made for; only an image without any leaves the label standing
    if own and not tag and digest and (version := of_tag(label)) and version.startswith(plausible):
        return version, f"label app.kubernetes.io/version={label}"
    return None, ""


def _is_own(engine: str, repository: str) -> bool:
    """Whether an image is the engine's makers', or called like it, so that its tags are the engine's versions."""
    last, path = repository.rpartition("/")[2], f"/{repository}/"
    names, _ = _OWN.get(engine, ((), ()))
    if engine == "nim":
        return _BASE.sub("", last) in names or "/nim/" in path
    if engine == "tensorrt-llm":
        return "tensorrt-llm/release" in repository if last == "release" else _BASE.sub("", last) in names
    called = _BASE.sub("", last) in names or (engine == "vllm" and last.startswith("vllm-openai-"))
    return called and not any(part in path for part in _FOREIGN)


def defaults(
    engine: str, version: str | None, table: Iterable[tuple[str, Any, str, str]], settings: Mapping[str, Setting]
) -> dict[str, Setting]:
    """Defaults from rows of name, value, first and last version ("" is open), leaving out what is explicit.

    A row with a bound holds only where the version is known to lie within it.
    """
    title = TITLES[engine]
    out: dict[str, Setting] = {}
    for name, value, first, last in table:
        if name in settings or name in out:
            continue
        if first and at_least(version, first) is not True:
            continue
        if last and (version is None or not at_least(last, version)):
            continue
        text = f"default of {title}" + (f" {version}" if version else "")
        out[name] = Setting(name=name, value=value, source="default", text=text, path="", flag="")
    return out


# -- problems and settings from the surroundings ----------------------------------------------------------------------

# Variables that people set and that no engine reads in any version (searched in the sources of vLLM 0.33, SGLang
# 0.5.23, TGI 3.3.7, LMDeploy, llama.cpp, Ollama, Triton and NCCL itself).
_UNREAD = {
    "NCCL_TIMEOUT": "no engine and no library reads NCCL_TIMEOUT",
    "TORCH_DISTRIBUTED_TIMEOUT": "neither PyTorch nor an engine reads TORCH_DISTRIBUTED_TIMEOUT",
    "USE_VLLM_V1": "nothing reads USE_VLLM_V1; the variable was VLLM_USE_V1",
}

# Variables that read like the engine's configuration. vLLM's own begin with VLLM_, llama.cpp's with LLAMA_, Ollama's
# with OLLAMA_, and TGI reads the second group (searched in the sources named above).
_ALIKE = (
    "MAX_MODEL_LEN", "GPU_MEMORY_UTILIZATION", "TENSOR_PARALLEL_SIZE", "MAX_NUM_SEQS", "MAX_NUM_BATCHED_TOKENS",
    "MEM_FRACTION_STATIC", "VLLM_MAX_MODEL_LEN", "VLLM_GPU_MEMORY_UTILIZATION", "VLLM_TENSOR_PARALLEL_SIZE",
)  # fmt: skip
_OF_TGI = (
    "NUM_SHARD", "QUANTIZE", "MAX_TOTAL_TOKENS", "MAX_INPUT_TOKENS", "MAX_INPUT_LENGTH",
    "MAX_BATCH_PREFILL_TOKENS",
)  # fmt: skip
_READS_NO_SUCH = {
    "vllm": _ALIKE + _OF_TGI,
    "sglang": _ALIKE + _OF_TGI,
    "lmdeploy": _ALIKE + _OF_TGI,
    "ollama": _ALIKE + _OF_TGI,
    "llama.cpp": _ALIKE + _OF_TGI,
    "tgi": _ALIKE,
}


def _not_read(start: Start) -> list[Problem]:
    """Variables that look like configuration, that no word and no script uses, and that the engine does not read.

    Only where the engine's own program is known to get them: an image with a start script may make options of them.
    """
    names = [name for name in _READS_NO_SUCH.get(start.engine, ()) if name in start.env]
    if not names or not start.known or start.form in ("image", "hidden", "python", "dynamo", "kaito"):
        return []
    if start.implied and version_of_image(start.engine, start.launch.image, {})[0] is None and not _own_name(start):
        return []
    texts = (*start.launch.command, *start.launch.args, *start.files.values())
    values = (variable.value or "" for name, variable in start.launch.env.items() if name not in names)
    used = "\n".join((*texts, *values))
    out = []
    for name in names:
        if name in used:
            continue
        variable = start.env[name]
        detail = f"{TITLES[start.engine]} does not read {name}, and no argument uses it"
        out.append(about(variable, "no-effect", detail, certain=variable.origin != "script"))
    return out


def _own_name(start: Start) -> bool:
    """Whether the image is called as the engine's own is."""
    last = split_image(start.launch.image)[0].lower().rpartition("/")[2]
    return last in _OWN.get(start.engine, ((), ()))[0] or last == "llama.cpp"


def surroundings(start: Start) -> list[Problem]:
    """Problems of any engine: variables that nothing reads, words that a shell script loses, unclosed lines."""
    out: list[Problem] = []
    for name, detail in _UNREAD.items():
        if name in start.env and (name != "USE_VLLM_V1" or start.engine == "vllm"):
            out.append(about(start.env[name], "no-effect", detail, certain=True))
    for stray in start.strays:
        first = stray.words[0]
        out.append(
            Problem(
                kind="no-effect",
                flag=first.shown,
                text=" ".join(word.raw for word in stray.words[:4]),
                path=first.path,
                detail="the arguments after `-c SCRIPT` are the script's $0, $1 …, and the script uses none of them",
                certain=True,
            )
        )
    out += _not_read(start)
    found = False
    for command in start.commands:
        words = command.words
        if start.args and words[-len(start.args) :] == start.args:
            found = True
        elif found and command.scripted and words and words[0].text.startswith("--"):
            out.append(
                Problem(
                    kind="script",
                    flag=words[0].text.partition("=")[0],
                    text=" ".join(word.raw for word in words[:4]),
                    path=words[0].path,
                    detail="this option is a command of its own: the line before does not end in a backslash",
                    certain=False,
                )
            )
    return out


def shell_words(text: str) -> list[str]:
    """The words of a variable that a start script splits as a shell does; at blanks where a quote is left open."""
    import shlex

    try:
        return shlex.split(text[:MAX_FILE])
    except ValueError:
        return text[:MAX_FILE].split()


def about(variable: EnvVar, kind: ProblemKind, detail: str, *, certain: bool = False) -> Problem:
    """What is wrong with a variable."""
    return Problem(
        kind=kind, flag=variable.name, text=variable_text(variable), path=variable.path, detail=detail, certain=certain
    )


def variable_text(variable: EnvVar) -> str:
    """A variable as it can be quoted."""
    return (
        f"{variable.name}={variable.value}" if variable.value is not None else f"{variable.name} from {variable.origin}"
    )


def from_variable(name: str, kind: str, variable: EnvVar) -> tuple[Setting | None, Problem | None]:
    """A setting that an environment variable gives; or the problem with it."""
    value = variable.value
    if kind == "set" and value is None:
        value = "unknown, but set"
    if value is None or "$(" in value:
        detail = f"the value of {variable.name} is not known here ({variable.origin})"
        return None, about(variable, "unresolved", detail)
    if value == "":
        return None, None
    try:
        converted = convert(kind, value)
    except BadValueError as error:
        return None, about(variable, "bad-value", f"{variable.name} is {value!r}: {error}")
    if kind == "set" and not converted:
        return None, None
    text = variable_text(variable)
    return Setting(name=name, value=converted, source="env", text=text, path=variable.path, flag=variable.name), None


def build(
    start: Start,
    settings: Mapping[str, Setting],
    problems: Sequence[Problem],
    default_rows: Iterable[tuple[str, Any, str, str]],
    known: bool,
    unresolved: Iterable[str],
) -> Engine:
    """The finished engine; what is not known to be unset gets no default."""
    version, version_text = version_of(start)
    names = tuple(sorted(set(unresolved).difference(settings)))
    known = start.known and known
    stated = defaults(start.engine, version, default_rows, settings) if known else {}
    return Engine(
        name=start.engine,
        title=TITLES[start.engine],
        version=version,
        version_text=version_text,
        settings=dict(settings),
        defaults={name: setting for name, setting in stated.items() if name not in names},
        unresolved=names,
        problems=(*start.notes, *problems, *surroundings(start)),
        argv=tuple(word.shown for word in (*start.program, *start.args)),
        argv_known=known,
    )
