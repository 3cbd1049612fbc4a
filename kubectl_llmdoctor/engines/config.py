"""What an engine really runs: the output of every engine reader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from .version import at_least

#: `meant`: by a word that the parser refuses, in a command line that does not run as it is written.
Source = Literal["flag", "env", "file", "default", "log", "meant"]
ProblemKind = Literal[
    "unknown-flag",  # the parser knows no such option
    "removed-flag",  # it did once
    "missing-value",  # an option stands last or before another option
    "bad-value",  # a value of the wrong type or outside the allowed ones
    "glued",  # option and value are one element of argv
    "duplicate-serve",  # the image's entrypoint is written once more in the arguments
    "conflict",  # two arguments that exclude each other, or one that needs another
    "no-effect",  # accepted or passed, but nothing reads it
    "unresolved",  # the value comes from where this reader cannot see
    "script",  # a shell script does something else than its author meant
]

#: The keys that every report starts with, in this order; the others follow alphabetically.
ORDER = (
    "model", "revision", "tokenizer", "served_model_name", "port", "host", "max_model_len", "max_num_seqs",
    "max_num_batched_tokens", "gpu_memory_utilization", "kv_cache_memory_bytes", "tensor_parallel_size",
    "pipeline_parallel_size", "data_parallel_size", "expert_parallel", "nnodes", "node_rank", "quantization", "dtype",
    "kv_cache_dtype",
)  # fmt: skip


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One value under the name that all engines share, with where it was said.

    `text` is quotable: `--max-model-len=8192`, `MAX_TOTAL_TOKENS=4096`, `default of vLLM 0.9.1`; `path` is its place,
    empty for a default; `flag` is the engine's own name for it.
    """

    name: str
    value: Any
    source: Source
    text: str
    path: str
    flag: str


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Something wrong with the arguments as such.

    `certain` means that this engine at this known version surely refuses it; for `no-effect`, that it surely is not
    read. A version that is unknown, or newer than the newest that was read, makes nothing certain.
    """

    kind: ProblemKind
    flag: str
    text: str
    path: str
    detail: str
    certain: bool
    #: the option that was meant, where the one written is in no release that was read: a slip of the pen, another
    #: engine's name for it, or a beginning that the newest release takes for several
    meant: str = ""


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """An inference engine with the configuration that it really runs.

    `settings` holds what was set explicitly, `defaults` what this engine and version use otherwise; a name in neither
    is unknown, as what is set to a value that cannot be seen (`unresolved`) and all that a hidden command line may
    hold. `argv` is the engine's final argument vector, program first; `argv_known` is False where a script, a wrapper
    or a foreign image's entrypoint hides part of it.
    """

    name: str
    title: str
    version: str | None = None
    version_text: str = ""
    settings: Mapping[str, Setting] = {}
    defaults: Mapping[str, Setting] = {}
    unresolved: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    argv: tuple[str, ...] = ()
    argv_known: bool = True

    def get(self, name: str) -> Setting | None:
        """The setting in force: explicit, else the default of this engine and version, else None (unknown)."""
        return self.settings.get(name) or self.defaults.get(name)

    def explicit(self, name: str) -> Setting | None:
        """The setting as somebody wrote it, or None."""
        return self.settings.get(name)

    def value(self, name: str, fallback: Any = None) -> Any:
        """The value in force, or `fallback` where it is unknown."""
        setting = self.get(name)
        return fallback if setting is None else setting.value

    def at_least(self, version: str) -> bool | None:
        """Whether the engine is that version or newer; None where its version is unknown."""
        return at_least(self.version, version)

    @property
    def config(self) -> dict[str, Any]:
        """What was set explicitly, for the report: plain JSON values in a stable order."""
        written = {name: setting for name, setting in self.settings.items() if setting.source != "meant"}
        names = [name for name in ORDER if name in written]
        names += sorted(name for name in written if name not in ORDER)
        return {name: _plain(written[name].value) for name in names}


def _plain(value: Any) -> Any:
    """A value as JSON has it: tuples become lists."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value
