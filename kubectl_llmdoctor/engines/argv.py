"""From a container's command and arguments to the programs that it starts, word by word.

Two languages are undone, in the order in which they apply: the kubelet's `$(VAR)` (kubernetes
third_party/forked/golang/expansion) and, where the command is a shell, the shell's own (`shell`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from kubectl_llmdoctor.expressions import expression

from .launch import EnvVar, Launch

SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh", "busybox"})
#: Programs that give a script to the shell of another user: `su USER -c SCRIPT`.
LOGINS = frozenset({"su", "runuser"})

#: Programs that start another program given in their arguments.
WRAPPERS = frozenset([
    "accelerate", "bash-wrapper", "builtin", "catatonit", "catchsegv", "chrt", "chroot", "command", "conda",
    "ddtrace-run", "doas", "dumb-init", "env", "exec", "gosu", "hatch", "ionice", "ldconfig-wrapper", "mamba",
    "memray", "micromamba", "mpiexec", "mpirun", "newrelic-admin", "nice", "nohup", "nsys", "numactl",
    "nvidia_entrypoint.sh", "docker-entrypoint.sh", "entrypoint.sh", "opentelemetry-instrument", "pdm", "perf",
    "pipenv", "pixi", "poetry", "py-spy", "rocprof", "runuser", "s6-setuidgid", "script", "setarch", "setpriv",
    "setsid", "srun", "stdbuf", "strace", "su-exec", "sudo", "taskset", "time", "timeout", "tini", "tini-static",
    "torchrun", "trtllm-llmapi-launch", "uv", "uvx", "unbuffer", "xargs", "sagemaker-entrypoint.sh",
])  # fmt: skip

MAX_TEXT = 200_000  # characters of one script or value


class Word(msgspec.Struct, frozen=True):
    """One word of a command: expanded text, the text as written, and its place in the manifest."""

    text: str
    raw: str
    path: str

    @property
    def known(self) -> bool:
        """Whether the whole text is known."""
        return "\0" not in self.text

    @property
    def shown(self) -> str:
        """The text with the unknown parts as they were written."""
        return self.text.replace("\0", "")


class Command(msgspec.Struct, frozen=True):
    """A program that would be started: its words, its environment, and whether it surely is reached."""

    words: tuple[Word, ...]
    env: Mapping[str, EnvVar]
    sure: bool
    scripted: bool


class Stray(msgspec.Struct, frozen=True):
    """Words that a script loses: positional parameters that it never uses."""

    words: tuple[Word, ...]


_KUBERNETES = expression(r"\$(?:\$|\(([A-Za-z_.-][\w.-]*)\))", re.ASCII)


def unknown(text: str) -> str:
    """An unknown part that shows as `text`."""
    return "\0" + text.replace("\0", "")[:60] + "\0"


def kubernetes(text: str, values: Mapping[str, EnvVar]) -> str:
    """Replaces `$(VAR)` as the kubelet does: unknown names stay as they are, `$$` escapes."""

    def one(match: Any) -> str:
        name = match[1]
        if name is None:
            return "$"
        variable = values.get(name)
        if variable is None:
            return str(match[0])
        return unknown(match[0]) if variable.value is None else variable.value

    return _KUBERNETES.sub(one, text)[:MAX_TEXT] if "$" in text else text[:MAX_TEXT]


_TEMPLATE = expression(r"\{\{-?\s*\.[A-Za-z][\w.]{0,80}\s*-?\}\}", re.ASCII)


def open_references(text: str) -> str:
    """Marks the `$(VAR)` and the `{{.Name}}` that nothing replaced as unknown."""
    if "{{" in text:
        text = _TEMPLATE.sub(lambda match: unknown(match[0]), text)
    if "$(" not in text:
        return text
    return _KUBERNETES.sub(lambda match: unknown(match[0]) if match[1] else match[0], text)


def basename(path: str) -> str:
    """The last component of a path."""
    return path.rpartition("/")[2]


class Programs(msgspec.Struct, frozen=True):
    """All that a container would start, and the environment that it starts with."""

    commands: tuple[Command, ...]
    strays: tuple[Stray, ...]
    env: Mapping[str, EnvVar]
    files: Mapping[str, str]


def environment(launch: Launch) -> dict[str, EnvVar]:
    """The variables with `$(VAR)` replaced by those that stand before, as the kubelet does."""
    out: dict[str, EnvVar] = {}
    for name, variable in launch.env.items():
        value = variable.value
        if value is not None and "$" in value:
            value = kubernetes(value.replace("\0", ""), out)
            variable = EnvVar(
                name=variable.name, value=None if "\0" in value else value, origin=variable.origin, path=variable.path
            )
        out[name] = variable
    return out


def words_of(items: Sequence[str], path: str, env: Mapping[str, EnvVar]) -> list[Word]:
    """Elements of `command` or `args` as words with their places."""
    words = []
    for index, item in enumerate(items):
        clean = str(item).replace("\0", "")
        words.append(Word(kubernetes(clean, env), clean, f"{path}[{index}]"))
    return words
