"""A reader of command lines and variables by table, for the engines whose parsers need no closer look.

A row is: common name, kind, the engine's options, the engine's variables. Kinds are those of `common.convert`, and
`flag` (stands alone, true), `notflag` (stands alone, the setting becomes false), `onoff` (a value may follow),
`list` (values up to the next option), `append` (may be repeated).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .argv import Word
from .common import BadValueError, Start, boolean, convert, from_variable, load_yaml
from .config import Problem, Setting

Row = tuple[str, str, str, str]


class Reading(NamedTuple):
    """Settings and problems, and whether all of the configuration was visible."""

    settings: dict[str, Setting]
    problems: list[Problem]
    positionals: list[Word]
    known: bool
    unresolved: set[str]


def plain(text: str) -> str:
    """An option's name with dashes, for parsers that take both."""
    return "--" + text[2:].replace("_", "-") if text.startswith("--") else text


def read_options(
    start: Start,
    table: Sequence[Row],
    positional: str = "",
    abbreviations: bool = True,
    known_flags: Iterable[str] = (),
) -> Reading:
    """Reads the words and the variables of one engine; options win over variables.

    `known_flags` are further options that stand alone, so that a word after them is not taken for their value.
    """
    options = {plain(flag): row for row in table for flag in row[2].split()}
    alone = {plain(flag) for flag in known_flags}
    settings: dict[str, Setting] = {}
    problems: list[Problem] = []
    positionals: list[Word] = []
    known = True
    unresolved: set[str] = set()
    words = list(start.args)
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if not is_option(word.text):
            positionals.append(word)
            continue
        name, equals, value = word.text.partition("=")
        row = _find(options, plain(name), abbreviations)
        if row is None:
            if "\0" in word.text:
                known = False
            if not equals and plain(name) not in alone and index < len(words) and not is_option(words[index].text):
                index += 1  # most options of these engines take a value
            continue
        kind = row[1]
        used = [word]
        texts = [value] if equals else []
        if not equals and kind not in ("flag", "notflag"):
            most = len(words) if kind == "list" else 1
            while index < len(words) and len(texts) < most and not is_option(words[index].text):
                if kind == "onoff" and words[index].text.lower() not in _ONOFF:
                    break
                texts.append(words[index].text)
                used.append(words[index])
                index += 1
        if any("\0" in text for text in texts) and kind != "set":
            unresolved.add(row[0])
        _take(settings, problems, row, plain(name), used, texts)
    if positional and positional not in settings and positionals:
        word = positionals[0]
        row = next((row for row in table if row[0] == positional), (positional, "str", "", ""))
        if not word.known:
            unresolved.add(positional)
        _take(settings, problems, row, row[2].partition(" ")[0], [word], [word.text])
    known = known and all(word.known for word in positionals[bool(positional) :])
    read_variables(start, table, settings, problems, unresolved)
    return Reading(settings, problems, positionals, known, unresolved)


_ONOFF = frozenset({"on", "off", "auto", "true", "false", "0", "1", "enabled", "disabled"})


def is_option(text: str) -> bool:
    """Whether a word is an option and no value: not a negative number, not a lone dash."""
    return text.startswith("-") and len(text) > 1 and not text[1:].replace(".", "", 1).isdecimal()


def _find(options: Mapping[str, Row], name: str, abbreviations: bool) -> Row | None:
    row = options.get(name)
    if row is None and abbreviations and name.startswith("--") and len(name) > 4:
        found = {options[other][0]: options[other] for other in options if other.startswith(name)}
        if len(found) == 1:
            return next(iter(found.values()))
    return row


def _take(
    settings: dict[str, Setting], problems: list[Problem], row: Row, flag: str, words: list[Word], texts: list[str]
) -> None:
    name, kind = row[0], row[1]
    raw = " ".join(word.raw for word in words)
    path = words[0].path

    def problem(which: str, detail: str) -> None:
        problems.append(
            Problem(kind=which, flag=flag, text=raw, path=path, detail=detail, certain=False)  # type: ignore[arg-type]
        )

    if any("\0" in text for text in texts) and kind != "set":
        settings.pop(name, None)
        shown = " ".join(word.shown for word in words)
        problem("unresolved", f"the value in `{shown}` is not known here")
        return
    try:
        value = _value(kind, texts, settings.get(name))
    except BadValueError as error:
        problem("bad-value", f"{flag} is {' '.join(texts)!r}: {error}")
        return
    except LookupError:
        problem("missing-value", f"{flag} needs a value")
        return
    settings.pop(name, None)
    settings[name] = Setting(name=name, value=value, source="flag", text=raw, path=path, flag=flag)


def _value(kind: str, texts: list[str], old: Setting | None) -> Any:
    if kind in ("flag", "notflag"):
        given = boolean(texts[0]) if texts else True
        return given if kind == "flag" else not given
    if kind == "onoff":
        text = texts[0].lower() if texts else "on"
        return text if text == "auto" else boolean(text)
    if kind == "bool" and not texts:
        return True
    if not texts:
        raise LookupError
    if kind == "list":
        return tuple(texts)
    if kind == "append":
        return (*(old.value if old is not None and isinstance(old.value, tuple) else ()), texts[0])
    return convert(kind, texts[0])


def read_variables(
    start: Start, table: Sequence[Row], settings: dict[str, Setting], problems: list[Problem], unresolved: set[str]
) -> None:
    """Adds what variables set and no option does."""
    for name, kind, _, variables in table:
        if name in settings or name in unresolved:
            continue
        for variable in variables.split():
            found = start.env.get(variable)
            if found is None:
                continue
            simple = {"flag": "bool", "notflag": "not", "onoff": "str", "list": "csv", "append": "csv"}.get(kind, kind)
            setting, problem = from_variable(name, simple, found)
            if setting is not None:
                settings[name] = setting
            if problem is not None:
                problems.append(problem)
                unresolved.add(name)
            break


def read_yaml(
    start: Start, name: str, rows: Mapping[str, tuple[str, str]], settings: dict[str, Setting], overrides: bool
) -> bool:
    """Adds settings of a mounted YAML file: dotted key -> common name and kind; False where it is not visible."""
    text = start.files.get(name)
    content = load_yaml(text) if text is not None else None
    if not isinstance(content, dict):
        return False
    for key, (setting, kind) in rows.items():
        value: Any = content
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is None or (setting in settings and not overrides):
            continue
        try:
            converted = value if isinstance(value, (bool, dict, list)) else convert(kind, str(value))
        except BadValueError:
            continue
        settings[setting] = Setting(
            name=setting, value=converted, source="file", text=f"{key}: {value}", path=name, flag=key
        )
    return True


def rename(settings: dict[str, Setting], name: str, change: Callable[[Any], Any]) -> None:
    """Changes the value of one setting in place."""
    old = settings.get(name)
    if old is not None:
        settings[name] = Setting(
            name=name, value=change(old.value), source=old.source, text=old.text, path=old.path, flag=old.flag
        )
