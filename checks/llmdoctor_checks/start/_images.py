"""What is known of published images by their Dockerfiles: whose user they have, and what scripts look for in vain."""

import re
from collections.abc import Sequence

import msgspec

from kubectl_llmdoctor.api import Container

#: Repositories whose Dockerfiles name no user, so that their programs run as root.
_OF_ROOT = (
    r"(?:^|/)(?:vllm/vllm-openai(?:-cpu)?|rocm/vllm(?:-dev)?|lmsysorg/sglang|ollama/ollama|openmmlab/lmdeploy|nvidia/tritonserver"
    r"|nvidia/tensorrt-llm/release|nvidia/cuda|huggingface/text-(?:generation|embeddings)-inference|gg(?:ml-org|erganov)/llama\.cpp"
    r"|(?:library/)?(?:ubuntu|debian|python|alpine|busybox))$"
)
_NO_REGISTRY = frozenset({"ubuntu", "debian", "python", "alpine", "busybox"})

#: Repositories whose images start a shell when no command is given (triton-inference-server/server build.py, which keeps the
#: entrypoint of NVIDIA's CUDA images; sgl-project/sglang and InternLM/lmdeploy docker/Dockerfile; xorbitsai/inference
#: xinference/deploy/docker/Dockerfile).
_OF_SHELL = r"(?:^|/)(?:nvidia/tritonserver|lmsysorg/sglang|openmmlab/lmdeploy|xprobe/xinference)$"

#: Ollama's image is Ubuntu with ca-certificates and the libraries of its backends.
_OF_OLLAMA = r"(?:^|/)ollama/ollama$"
_ABSENT = r"(?:/usr)?(?:/bin/)?(?P<program>curl|wget)\b"

#: What makes up for it, or shows that its absence was thought of.
_PROVIDED = (
    r"\b(?:apt(?:-get)?|apk)\b[^\n;&|]{0,60}\b(?:install|add)\b|\b(?:command -v|which|type|hash)\s+(?:curl|wget)\b"
)

#: A loop that ends only when the program succeeds; its body must not end it otherwise.
_WAITS, _DONE, _LONGEST = rf"\b(?:until|while\s{{1,9}}!)\s{{1,9}}{_ABSENT}", r"\bdone\b", 2000
_ENDS = r"\b(?:break|exit|return|SECONDS)\b|-(?:lt|gt|ge|le|eq|ne)\b|\(\(|\|\|"
_LIMITED = r"\btimeout\s[^\n;&|]{0,80}$"

#: The last command of a script, whose failure is the script's.
_LAST = rf"(?:^|&&)\s{{0,40}}{_ABSENT}(?P<rest>.*)$"
_SHELL = r"(?:^|/)(?:ba|da)?sh$"
_FAILS = r"\|\|\s{0,9}(?:exit\s{1,9}1|false)$"
#: In the background nobody looks at it; of a pipe the last program counts, and only what looks for an answer fails without one.
_UNNOTICED = r"(?<![&>])&(?![&>])|\|(?!\s{0,9}(?:grep|jq)\b)"

#: Python's own images, whose Python huggingface_hub 1.0 runs on (3.9 and later).
_OF_PYTHON = r"(?:^|/)(?:library/)?python(?:$|:(?!2|3\.[0-8](?!\d)))"
#: What pip installs in its newest release beside huggingface_hub, and what does not hold that back.
_INSTALLS = r"\bpip3?\s{1,9}install\s([^\n;&|]{1,300})"
_HUB = r"huggingface[_-]hub(?:\[[\w,-]{0,40}\])?"
_FREE = r"-[-\w]{1,40}|hf[_-]transfer|hf[_-]xet|requests|tqdm"
#: Its client of old, which 1.0 left out; later releases have a program of that name that only says so and ends with 1.
_OLD_CLIENT = (
    r"(?:^|[;\n&(])\s{0,40}(?:exec\s{1,9}|[A-Z_]{2,40}=\S{0,60}\s{1,9}){0,3}"
    r"(?P<call>huggingface-cli\s{1,9}download\b[^\n;&|]{0,300})"
)


class Lacking(msgspec.Struct, frozen=True):
    """A program that is called and that the image does not have.

    `waits`: a loop waits for it to succeed. `direct`: the runtime is to start it, rather than a shell.
    """

    program: str
    text: str
    waits: bool = False
    direct: bool = False


def root_image(container: Container) -> bool:
    """Whether its image runs as root unless somebody names another user."""
    repository = container.repository
    return bool(re.search(_OF_ROOT, repository)) and ("/" in repository or repository in _NO_REGISTRY)


def shell_image(container: Container) -> bool:
    """Whether its image starts a shell unless somebody gives a command: without a terminal that ends at once."""
    return bool(re.search(_OF_SHELL, container.repository))


def lacking(container: Container, words: Sequence[object]) -> Lacking | None:
    """The program that a command line, or the script in it, needs and that the container's image lacks."""
    if not words or not re.search(_OF_OLLAMA, container.repository):
        return None
    text = "\n".join(line for word in words for line in str(word).splitlines() if not line.lstrip().startswith("#"))
    if re.search(_PROVIDED, text):
        return None
    loop = re.search(_WAITS, text)
    done = re.search(_DONE, text[loop.end() : loop.end() + _LONGEST]) if loop else None
    if loop and done:
        rest = text[loop.end() : loop.end() + done.end()]
        if not re.search(_ENDS, rest) and not re.search(_LIMITED, text[: loop.start()]):
            return Lacking(loop["program"], " ".join((loop[0] + rest).split()), waits=True)
    if first := re.fullmatch(_ABSENT, str(words[0])):
        return Lacking(first["program"], " ".join(map(str, words)), direct=True)
    last = re.search(_LAST, re.split(r"[;\n]", re.sub(_FAILS, "", text.rstrip("; \n")).rstrip())[-1])
    if last and re.search(_SHELL, str(words[0])) and not re.search(_UNNOTICED, last["rest"]):
        return Lacking(last["program"], last[0].strip("; \n&"))
    return None


def old_client(container: Container) -> tuple[str, str] | None:
    """Where a script downloads with the client of a huggingface_hub that it has just installed without it: path and call."""
    if not re.search(_OF_PYTHON, container.spec.image.partition("@")[0]):
        return None
    for path, text in container.words:
        code = "\n".join(line for line in text.replace("\\\n", " ").splitlines() if not line.lstrip().startswith("#"))
        installed = next(filter(_newest_hub, re.finditer(_INSTALLS, code)), None)
        called = re.search(_OLD_CLIENT, code[installed.end() :]) if installed else None
        if installed and called and not code[installed.end() + called.end() :].startswith("||"):
            return path, called["call"].strip()
    return None


def _newest_hub(installed: re.Match[str]) -> bool:
    names = [word.strip("'\"") for word in installed[1].split()]
    others = [name for name in names if not re.fullmatch(_HUB, name)]
    return len(others) < len(names) and all(re.fullmatch(_FREE, name) for name in others)
