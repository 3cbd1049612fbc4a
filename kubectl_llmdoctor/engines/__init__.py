"""The inference engines: which one a container runs, and with which configuration.

`read` looks at what the container was told to run, `from_log` at what the engine says itself, `enrich` puts the second
behind the first. All are pure and accept anything: what is no engine gives None, what cannot be known stays unknown.
"""

from __future__ import annotations

from .config import Engine, Problem, ProblemKind, Setting, Source
from .launch import EnvVar, Launch

__all__ = ["Engine", "EnvVar", "Launch", "Problem", "ProblemKind", "Setting", "Source"]
__all__ += ["announced", "commands", "enrich", "from_log", "of_image", "read", "with_version"]


def read(launch: Launch) -> Engine | None:
    """The engine that a container runs, or None where it runs none (a router, a sidecar, a download, a Ray node)."""
    from .reader import read as read_launch

    return read_launch(launch)


def commands(launch: Launch) -> list[tuple[str, ...]]:
    """The words of each command by which a container starts an engine."""
    from .reader import commands as read_commands

    return read_commands(launch)


def announced(launch: Launch, text: str) -> Engine | None:
    """The engine of a container whose command and image do not tell, by the banner in its log."""
    from .logs import announced as name_of
    from .reader import read_hidden

    name = name_of(text)
    return read_hidden(launch, name) if name else None


def of_image(image: str) -> str | None:
    """The engine that an image is made for, by its name."""
    from .recognise import of_image as judge

    return judge(image)


def from_log(text: str) -> Engine | None:
    """The engine that wrote this log, by its banners alone, with the configuration that it printed."""
    from .logs import from_log as read_log

    return read_log(text)


def enrich(engine: Engine | None, text: str) -> Engine | None:
    """The engine with the version and the settings that only its log states."""
    from .logs import enrich as add

    return add(engine, text)


def with_version(engine: Engine, version: str, text: str) -> Engine:
    """The same engine once its version is known, and by what (`text`): its options are judged again."""
    from .logs import with_version as known

    return known(engine, version, text)
