"""What a shell offers after a Tab, by kubectl's convention for plugins.

kubectl runs `kubectl_complete-llmdoctor` with the words of the command line, the last of which is what has been typed
of the word to complete, maybe nothing. Candidates are printed one a line, a description after a tab, and at the end
`:N`, the bits of a Cobra directive.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import click

#: Bits of Cobra's directive.
_NO_SPACE, _NO_FILES = 2, 4

#: Seconds after which a cluster is not waited for: a person waits at the prompt.
_PATIENCE = 2.5

_NAMES = ("diagnose", "snapshot", "fit")
_FILES = ("FILE", "PATH", "FILE|-")

Candidates = Iterable[tuple[str, str]]


def main() -> None:
    """The program `kubectl_complete-llmdoctor`."""
    _run(sys.argv[1:])


@click.command("__complete", context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def command(words: tuple[str, ...]) -> None:
    """The same for those who have only the program itself."""
    _run(list(words))


def _run(words: list[str]) -> None:
    try:
        candidates, directive = complete(words)
    except Exception:  # noqa: BLE001  (a prompt is no place for an error)
        candidates, directive = [], _NO_FILES
    for value, description in candidates:
        sys.stdout.write(f"{value}\t{description}\n" if description else f"{value}\n")
    sys.stdout.write(f":{directive}\n")
    sys.stdout.flush()


def complete(words: list[str]) -> tuple[list[tuple[str, str]], int]:
    """The candidates for the last word with their descriptions, and Cobra's directive."""
    from kubectl_llmdoctor.cli import COMMANDS, cli

    *before, last = words or [""]
    if not before:
        listed = {**COMMANDS, "--help": "Show this message.", "--version": "Show the version."}
        return _fitting(((name, text) for name, text in listed.items() if name[0] != "-" or last), last), _NO_FILES
    command = cli.get_command(click.Context(cli), before[0])
    if command is None:
        return [], _NO_FILES
    line = _Line(command, before[1:])
    if line.open is not None:
        return _values(line, line.open, last, "")
    name, equals, value = last.partition("=")
    if equals and name in line.options:
        return _values(line, line.options[name], value, f"{name}=")
    if last.startswith("-"):
        return _fitting(_flags(command), last), _NO_FILES
    if command.name == "explain":
        return _fitting(_ids(), last), _NO_FILES
    if command.name == "lint":
        return [], 0
    if command.name in _NAMES:
        return _objects(line, last)
    return [], _NO_FILES


class _Line:
    """The words before the one to complete: which options were given, and which still waits for its value."""

    def __init__(self, command: click.Command, words: list[str]) -> None:
        self.options = {
            name: param for param in command.params if isinstance(param, click.Option) for name in param.opts
        }
        self.given: dict[str, str] = {}
        self.open: click.Option | None = None
        for word in words:
            if self.open is not None:
                self._give(self.open, word)
                self.open = None
                continue
            name, equals, value = word.partition("=")
            option = self.options.get(name) or self.options.get(word[:2])
            if option is None or option.is_flag:
                self.given[name] = ""
                continue
            if equals and name in self.options:
                self._give(option, value)
            elif name not in self.options:  # -nserving
                self._give(option, word[2:])
            else:
                self.open = option

    def _give(self, option: click.Option, value: str) -> None:
        self.given[option.name or ""] = value

    def names(self, type_name: str) -> list[str]:
        """The names of all objects of a type; none where they do not come in time."""
        found: list[str] = []
        # Also a credential plugin or a name that does not resolve must not hold up the prompt.
        asking = threading.Thread(target=lambda: found.extend(self._names(type_name)), daemon=True)
        asking.start()
        asking.join(_PATIENCE)
        return found

    def _names(self, type_name: str) -> list[str]:
        from kubectl_llmdoctor.gather import candidates
        from kubectl_llmdoctor.gather.connection import Connection

        keys = ("kubeconfig", "context", "cluster", "user", "namespace", "server", "token", "as_user")
        flags: Any = {key: self.given[key] for key in keys if key in self.given}
        insecure = "--insecure-skip-tls-verify" in self.given
        connection = Connection(**flags, insecure_skip_tls_verify=insecure, request_timeout=2.0, timeout=2.0)
        return candidates.names(connection, type_name)


def _values(line: _Line, option: click.Option, last: str, before: str) -> tuple[list[tuple[str, str]], int]:
    """What an option takes; `before` is the `--option=` that the word begins with."""
    from kubectl_llmdoctor.gather import candidates

    found: Iterable[str] = ()
    if option.name == "namespace":
        found = line.names("namespace")
    elif option.name in ("context", "cluster", "user"):
        found = candidates.of_kubeconfig(line.given.get("kubeconfig"), f"{option.name}s")
    elif option.name == "outputs":
        from kubectl_llmdoctor.cli.output import FORMATS

        found = FORMATS
    elif isinstance(option.type, click.Choice):
        found = map(str, option.type.choices)
    elif option.metavar in _FILES:
        return [], 0
    return [(before + value, "") for value in found if value.startswith(last)], _NO_FILES


def _flags(command: click.Command) -> Iterator[tuple[str, str]]:
    for param in command.params:
        if isinstance(param, click.Option) and not param.hidden:
            yield max(param.opts, key=len), (param.help or "").partition(". ")[0].rstrip(".")


def _ids() -> Iterator[tuple[str, str]]:
    from kubectl_llmdoctor.packs import installed

    return ((check.id, check.title) for check in installed())


def _objects(line: _Line, last: str) -> tuple[list[tuple[str, str]], int]:
    """Pods; types, once something of one has been typed; the objects of a type after its slash."""
    from kubectl_llmdoctor.gather import candidates

    type_name, slash, name = last.partition("/")
    if slash:
        found = line.names(type_name)
        return [(f"{type_name}/{one}", "") for one in found if one.startswith(name)], _NO_FILES
    pods = [(one, "") for one in line.names("pod") if one.startswith(last)]
    types = [(f"{one}/", "") for one in candidates.types() if last and one.startswith(last)]
    return pods + types, _NO_FILES if pods or not types else _NO_FILES | _NO_SPACE


def _fitting(candidates: Candidates, last: str) -> list[tuple[str, str]]:
    return [(value, description) for value, description in candidates if value.startswith(last)]
