"""A reader of command lines and variables by table, for the engines whose parsers need no closer look than vLLM's.

What the words mean is said by rows: common name, kind, the engine's options, the engine's variables. What the parser of
the version takes is said by a `dialect.Table`, where there is one: an option of the table that no row names gets its
own name as a setting. Kinds of rows are those of `common.convert` and of `dialect.Row`; `notflag` stands alone and
makes the setting false, `set` keeps only that there is a value, `one` and `csv` make a tuple of one word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from kubectl_llmdoctor.tree import dig
from kubectl_llmdoctor.yamltext import load_yaml, obscure

from .argv import Word
from .common import CommandLine, Start, from_variable, shell_words, version_of
from .config import Engine, Problem, Setting
from .dialect import ALONE, Dialect, Flag, Option, Table, dialect
from .values import BadValueError, boolean, convert

Row = tuple[str, str, str, str]


class Style(msgspec.Struct, frozen=True):
    """What a parser library accepts beyond `--option value` and `--option=value`."""

    underscores: bool = True  # `--a_b` for `--a-b`
    abbreviations: bool = False  # a unique beginning of an option
    greedy: bool = False  # an option takes the next word, whatever it is
    equals: bool = True  # `--option=value`


ARGPARSE = Style(underscores=False, abbreviations=True)  # Python's own
FLEXIBLE = Style(abbreviations=True)  # the same, with vLLM's FlexibleArgumentParser
CLICK = Style(underscores=False, greedy=True)
CLAP = Style(underscores=False)
LENIENT = Style(abbreviations=True)  # where nothing is known of the parser


class Reading(msgspec.Struct, frozen=True):
    """Settings and problems, and whether all of the configuration was visible."""

    settings: dict[str, Setting]
    problems: list[Problem]
    known: bool
    unresolved: set[str]


class _Found(msgspec.Struct, frozen=True):
    """An option as it is read: the common name, the kind of its value, whether it negates, its place in the table."""

    name: str
    kind: str
    negative: bool
    flag: str
    entry: Flag | None


# Kinds of rows that say what a value means, whatever the parser makes of it.
_MEANINGS = frozenset({"set", "one", "csv", "append", "notflag"})

# Options whose value no report shows.
_SECRET = ("-key", "-keys", "-token", "-authtoken", "-password")

_TRUTH = frozenset({"true", "false", "1", "0", "yes", "no"})


def plain(text: str) -> str:
    """An option's name with dashes, for parsers that take both."""
    return "--" + text[2:].replace("_", "-") if text.startswith("--") else text


def glued_words(meant: str, written: str = "") -> str:
    """What is wrong where `--option value`, or several of them, stand in one argument."""
    words = meant.split()
    if len(words) > 2 and any(word.startswith("-") for word in words[2:]):
        return f"{len(words)} words are one argument, `{written or meant}`"
    flag, _, value = meant.partition(" ")
    parts = f"`{flag}` and `{value.strip()}`"
    return f"option and value are one argument, `{written or meant}`, where two ({parts}) are meant"


def meant(before: Mapping[str, Setting], after: Mapping[str, Setting]) -> dict[str, Setting]:
    """What a refused word has set, marked as such."""
    return {n: replace(setting, source="meant") for n, setting in after.items() if before.get(n) is not setting}


def is_option(text: str) -> bool:
    """Whether a word is an option and no value: not a negative number, not a lone dash."""
    return text.startswith("-") and len(text) > 1 and not text[1:].replace(".", "", 1).isdecimal()


class Options(CommandLine):
    """Takes the words of one engine apart and collects what they set and what the parser would refuse."""

    def __init__(
        self, start: Start, rows: Sequence[Row], table: Table | None = None, style: Style = LENIENT, strict: bool = True
    ) -> None:
        super().__init__(dialect(table, version_of(start)[0]) if table is not None else None)
        self.start = start
        self.rows = rows
        self.style = style
        # behind a start script that cannot be seen an option may be that script's
        self.strict = strict and self.dialect is not None and start.known
        self.by_flag = {self._key(flag): row for row in rows for flag in row[2].split()}
        self.positionals: list[tuple[Word, Flag | None]] = []

    # -- words

    def _key(self, name: str) -> str:
        return plain(name) if self.style.underscores else name

    def _find(self, name: str) -> _Found | list[str] | None:
        key = self._key(name)
        if self.dialect is not None:
            option = self.dialect.options.get(key)
            if option is None and self.style.abbreviations and len(key) > 3:
                candidates = self.dialect.find(key)
                if isinstance(candidates, list):
                    return candidates
                option = candidates
            if option is not None:
                return self._option(option)
            if self.strict:
                return None
        row = self.by_flag.get(key)
        if row is None and self.style.abbreviations and key.startswith("--") and len(key) > 4:
            found = {self.by_flag[other][0]: self.by_flag[other] for other in self.by_flag if other.startswith(key)}
            row = next(iter(found.values())) if len(found) == 1 else None
        return _Found(row[0], row[1], False, key, None) if row is not None else None

    def _option(self, option: Option) -> _Found:
        flag = option.flag
        names = (flag.name, *(name.lstrip("!") for _, others in flag.aliases for name in others))
        row = next((self.by_flag[key] for key in map(self._key, names) if key in self.by_flag), None)
        kind = option.kind
        if row is not None and row[1] in _MEANINGS and kind != "dead":
            kind = row[1]
        elif row is None and kind == "str" and flag.name.endswith(_SECRET):
            kind = "set"
        name = row[0] if row is not None else flag.name.lstrip("-").replace("-", "_")
        return _Found(name, kind, option.negative, flag.name, flag)

    def run(self, words: Sequence[Word]) -> None:
        """Reads the words; an option wins over the same option before it."""
        index, size = 0, len(words)
        before: Flag | None = None
        while index < size:
            word = words[index]
            index += 1
            text = word.text
            if text == "--" and not self.style.greedy:
                self.positionals += [(rest, None) for rest in words[index:]]
                return
            if not is_option(text):
                self.positionals.append((word, before))
                before = None
                continue
            before = None
            name, equals, value = text.partition("=")
            if "\0" in name:
                self.known = False
                continue
            if " " in name.strip() or (equals and self.strict and not self.style.equals):
                self._glued(word, name, value)
                continue
            found = self._find(name)
            if not isinstance(found, _Found):
                end = index
                if not equals and end < size and not is_option(words[end].text) and not self._alone(name):
                    end += 1  # most options take a value
                if self.strict:
                    self.unknown(self._key(name), words[index - 1 : end], found)
                index = end
                continue
            texts, used = ([value] if equals else []), [word]
            most = 0 if equals else self._most(found, size)
            while index < size and len(used) <= most and self._is_value(found, words[index].text):
                texts.append(words[index].text)
                used.append(words[index])
                index += 1
            self._take(found, used, texts, bool(equals))
            before = found.entry if not self._most(found, 1) else None

    def _alone(self, name: str) -> bool:
        """Whether an option that this version lacks takes no value in the versions that have it."""
        flag = self.dialect.table.flag(self._key(name)) if self.dialect is not None else None
        return flag is not None and flag.kinds[-1][1] in ALONE

    @staticmethod
    def _most(found: _Found, size: int) -> int:
        """How many words an option may take."""
        kind = found.kind
        if kind == "notflag" or kind in ALONE or (found.entry is not None and found.entry.kinds[-1][1] in ALONE):
            return 0
        if kind == "two":
            return 2
        many = kind == "list" or (found.entry is not None and found.entry.kinds[-1][1] == "list")
        return size if many else 1

    def _is_value(self, found: _Found, text: str) -> bool:
        if found.kind in ("onoff", "optbool") and text.lower() not in _ONOFF:
            return False
        return self.style.greedy or not is_option(text)

    def _glued(self, word: Word, name: str, value: str) -> None:
        """`--port 8000` as one word, or `--port=8000` for a parser that does not split it."""
        flag = name.strip().partition(" ")[0]
        # nothing runs as it is written: all else is judged by what was meant
        before = dict(self.settings)
        whole = word.text if " " in name.strip() else f"{flag} {value}"
        self.run([Word(part, word.raw, word.path) for part in shell_words(whole) if " " not in part])
        self.settings.update(meant(before, self.settings))
        detail = glued_words(whole, word.shown) + f": {self.named} "
        detail += "refuses it" if self.strict else "does not see them"
        self.problem("glued", self._key(flag), [word], detail, self.strict)

    def _take(self, found: _Found, words: list[Word], texts: list[str], equals: bool) -> None:
        name, kind, flag = found.name, found.kind, found.flag
        sure = self.dialect is not None and found.entry is not None and self.dialect.sure(found.entry)
        raw = Word("", " ".join(word.raw for word in words if word.raw), words[0].path)
        if kind == "dead":
            if self.strict and self.dialect is not None and self.dialect.known:
                hint = self.dialect.table.successors.get(flag)
                detail = f"{self.named} refuses {flag}" + (
                    f": {hint}" if hint else "; it only says what took its place"
                )
                self.problem("removed-flag", flag, words, detail, sure)
            return
        if any("\0" in text for text in texts) and kind != "set":
            self.unreadable(name, flag, words)
            return
        alone = not self._most(found, 1)
        if alone and equals and self.strict:
            self.problem(
                "bad-value", flag, words, f"{flag} takes no value; {self.named} refuses `{words[0].shown}`", sure
            )
            if texts[0].lower() not in _TRUTH:
                return
        try:
            value = self._value(found, texts)
        except BadValueError as error:
            self.problem("bad-value", flag, words, f"{flag} is {' '.join(texts)!r}: {error}", sure)
            self.unread(name)
            return
        except LookupError:
            self.problem("missing-value", flag, words, f"{flag} needs a value", True)
            return
        if kind == "stoi" and texts[0].strip() != str(value):
            self.problem("bad-value", flag, words, f"{self.named} reads {texts[0]!r} as {value}, without a warning")
        self.set(Setting(name=name, value=value, source="flag", text=raw.raw, path=raw.path, flag=flag))

    def _value(self, found: _Found, texts: list[str]) -> Any:
        kind = found.kind
        if kind in ("flag", "bool", "notflag", "optbool") or (kind == "truth" and not texts and not self.strict):
            given = boolean(texts[0]) if texts else True
            return given is (kind != "notflag") if not found.negative else not given
        if kind == "onoff":
            text = texts[0].lower() if texts else "on"
            return text if text == "auto" else boolean(text)
        if kind == "opt":
            return texts[0] if texts else True
        if not texts:
            raise LookupError
        allowed = self.dialect.choices(found.flag) if self.dialect is not None else None
        if allowed is not None and texts[0] not in allowed:
            near = _near(texts[0], allowed)
            raise BadValueError(f"not one of {', '.join(allowed)}" + (f"; the nearest is {near}" if near else ""))
        if kind == "list":
            return tuple(texts)
        if kind in ("one", "csv") and len(texts) > 1:
            return tuple(texts)
        if kind == "append":
            old = self.settings.get(found.name)
            return (*(old.value if old is not None and isinstance(old.value, tuple) else ()), texts[0])
        if kind == "two":
            return " ".join(texts)
        return convert({"truth": "bool"}.get(kind, kind), texts[0])

    # -- positional arguments

    def take_positionals(self, name: str, flag: str, slots: int) -> None:
        """The model in front (`slots`: how many words are taken so), and what is left over."""
        for word, before in self.positionals:
            text = word.text
            if before is not None and text.lower() in _TRUTH and self.strict:
                detail = f"{before.name} takes no value, so `{text}` is an argument by itself: {self.named} refuses it"
                self.problem("bad-value", before.name, [word], detail, True)
                continue
            if slots and name not in self.settings and text.strip():
                slots -= 1
                if not word.known:
                    self.unreadable(name, flag, [word])
                    # one unknown word may be many: `$ARGS`
                    self.known = self.known and len(word.shown) < len(text) - 1
                    continue
                self.settings[name] = Setting(
                    name=name, value=text, source="flag", text=word.raw, path=word.path, flag=flag
                )
                continue
            if not word.known:
                self.known = False
            elif self.strict and not text.strip():
                detail = "a backslash with a blank behind it does not continue the line: the command ends there"
                self.problem("script", "\\", [word], detail, True)
            elif self.strict:
                self.problem(
                    "unknown-flag", word.shown, [word], f"{self.named} refuses the stray argument `{text}`", True
                )

    # -- variables

    def take_variables(self) -> None:
        """Adds what variables set and no option does."""
        for name, kind, _, variables in self.rows:
            if name in self.settings or name in self.unresolved:
                continue
            for variable in variables.split():
                found = self.start.env.get(variable)
                if found is None:
                    continue
                simple = {"flag": "bool", "notflag": "not", "onoff": "str", "list": "csv", "append": "csv"}
                setting, problem = from_variable(name, simple.get(kind, kind), found)
                if setting is not None:
                    self.settings[name] = setting
                if problem is not None:
                    self.problems.append(problem)
                    self.unresolved.add(name)
                break

    def finish(self) -> Reading:
        return Reading(self.settings, self.problems, self.known, self.unresolved)


_ONOFF = frozenset({"on", "off", "auto", "true", "false", "0", "1", "enabled", "disabled"})


def _near(text: str, allowed: Sequence[str]) -> str | None:
    from difflib import get_close_matches

    found = get_close_matches(text.lower()[:80], allowed, n=1, cutoff=0.75)
    return found[0] if found else None


def read_options(
    start: Start, rows: Sequence[Row], table: Table | None = None, style: Style = LENIENT, positional: str = ""
) -> Reading:
    """Reads the words and the variables of one engine; options win over variables."""
    options = Options(start, rows, table, style)
    options.run(start.args)
    flag = next((row[2].partition(" ")[0] for row in rows if row[0] == positional), "")
    options.take_positionals(positional, flag, slots=1 if positional else 0)
    options.take_variables()
    return options.finish()


def read_yaml(
    start: Start,
    name: str,
    rows: Mapping[str, tuple[str, str]],
    settings: dict[str, Setting],
    unresolved: set[str],
    overrides: bool,
) -> bool:
    """Adds settings of a YAML file: dotted key -> common name and kind; False where it is not visible."""
    text = start.files.get(name)
    content = load_yaml(text) if text is not None else None
    if not isinstance(content, dict):
        return False
    for key, (setting, kind) in rows.items():
        value = dig(content, key)
        if value is None or (setting in settings and not overrides):
            continue
        if "\0" in obscure(str(value)):
            settings.pop(setting, None)
            unresolved.add(setting)
            continue
        try:
            converted = value if isinstance(value, (bool, dict, list)) else convert(kind, str(value))
        except BadValueError:
            continue
        unresolved.discard(setting)
        settings[setting] = Setting(
            name=setting, value=converted, source="file", text=f"{key}: {value}", path=name, flag=key
        )
    return True


def judge(engine: Engine, speech: Dialect) -> list[Problem]:
    """What of an engine's options its version, learnt later, does not have."""
    out = list(engine.problems)
    seen = {problem.flag for problem in out}
    for setting in engine.settings.values():
        flag = speech.table.flags.get(setting.flag)
        if flag is None or setting.source not in ("flag", "file") or setting.flag in seen:
            continue
        if speech.has(flag) is False:
            found = speech.unknown(flag.name)
            out.append(
                Problem(
                    kind=found.kind,
                    flag=flag.name,
                    text=setting.text,
                    path=setting.path,
                    detail=found.detail,
                    certain=found.sure,
                )
            )
    return out
