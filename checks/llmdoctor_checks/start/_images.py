"""What is known of published images by their Dockerfiles: whose user they have, and what scripts look for in vain."""

from __future__ import annotations

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
    first = re.fullmatch(_ABSENT, str(words[0]))
    if first:
        return Lacking(first["program"], " ".join(map(str, words)), direct=True)
    last = re.search(_LAST, re.split(r"[;\n]", re.sub(_FAILS, "", text.rstrip("; \n")).rstrip())[-1])
    if last and re.search(_SHELL, str(words[0])) and not re.search(_UNNOTICED, last["rest"]):
        return Lacking(last["program"], last[0].strip("; \n&"))
    return None
