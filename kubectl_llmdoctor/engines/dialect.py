"""What one version of an engine's parser understands, read from a table of its options by release.

A table is exact only at its samples: between the last sample with an option and the first without it, nobody knows.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping

import msgspec

from .config import ProblemKind
from .names import TITLES, meant
from .version import Key, parse

#: Option, first and last sample that has it, kind of its value, other names. A kind or names may be followed by others
#: that hold from a later sample on (`flag 0.9.0:bool`); names stand without blanks, none
#: behind a sample ends them (`--a 0.9.0:`), `!--no-x` is the option's negation.
#: Kinds: flag (no value), bool (no value; `--no-…` as well), optbool (a value may follow), opt (likewise, any value),
#: truth (true or false must follow), str, int, float, stoi (C++'s number: digits, then anything), human (an integer,
#: `32k` or `32K` too), json, pairs (`a=1,b=2`), list (one value or more), two (two words), append (may be repeated),
#: onoff (a word or nothing), dead (known, and refused).
Row = tuple[str, str, str, str, str]


def rows(samples: tuple[str, ...], text: str) -> tuple[Row, ...]:
    """The options of a table, by name: each line has those of one first sample and kind, and may go on indented in the next.

    `0.9.0 flag 0.10.0:bool: --a --b=-b,--bb` are two options that the newest sample still has, the second with other names;
    `0.9.0..0.12.0 str: --c` is one that it has no more. What a `Row` has apart by blanks stands behind `;` in other names.
    """
    found: list[Row] = []
    for line in text.strip().replace("\n  ", " ").splitlines():
        head, _, options = line.partition(": ")
        span, _, kinds = head.partition(" ")
        first, _, last = span.partition("..")
        for option in options.split():
            name, _, names = option.partition("=")
            found.append((name, first, last or samples[-1], kinds, names.replace(";", " ")))
    return tuple(sorted(found))


#: Options at which a program prints something and ends well: no table lists them, and no parser refuses them.
ONLY_PRINT = frozenset({"-h", "--help", "--usage", "--version", "--license"})

#: Letters too many or too few of a misspelt option.
_MOST_SLIPS = 2

#: Kinds that never take the next word.
ALONE = ("flag", "bool", "dead")


class Flag(msgspec.Struct, frozen=True):
    """One option: its samples as positions in the table's samples; steps of kinds and of other names."""

    name: str
    first: int
    last: int
    kinds: tuple[tuple[int, str], ...]
    aliases: tuple[tuple[int, tuple[str, ...]], ...]


class Option(msgspec.Struct, frozen=True):
    """One name of an option in one version."""

    flag: Flag
    kind: str
    negative: bool


def _after(values: list[str], step: str) -> list[str]:
    """The values that a parser takes after a step: a list of them, or what came (`+a,b`) and went (`-c`), sorted."""
    if not step.startswith(("+", "-")):
        return step.split(",") if step else []
    for part in step.split():
        words = part[1:].split(",")
        values = sorted({*values, *words}) if part[0] == "+" else [value for value in values if value not in words]
    return values


class Table:
    """The options of an engine by release; `successors` says what took a removed option's place.

    `alike`: post releases repair only, so that one has the options of its release.
    """

    def __init__(
        self,
        engine: str,
        title: str,
        samples: tuple[str, ...],
        rows: Iterable[Row],
        choices: Mapping[str, tuple[tuple[str, str], ...]],
        successors: Mapping[str, str],
        alike: bool = False,
    ) -> None:
        self.alike = alike
        self.engine = engine
        self.title = title
        self.samples = samples
        self.choices = choices
        self.successors = successors
        self.keys: tuple[Key, ...] = tuple(key for key in map(parse, samples) if key is not None)
        self.place = {version: index for index, version in enumerate(samples)}
        self.flags = {row[0]: self._flag(row) for row in rows}
        self._names: dict[str, Flag] = {}

    def _flag(self, row: Row) -> Flag:
        name, first, last, kinds, aliases = row
        start = self.place[first]
        others = tuple(
            (since, tuple(name for name in names.split(",") if name)) for since, names in self._steps(aliases, start)
        )
        return Flag(name, start, self.place[last], tuple(self._steps(kinds, start)), others)

    def _steps(self, text: str, first: int) -> list[tuple[int, str]]:
        out = []
        for item in text.split():
            since, colon, rest = item.partition(":")
            out.append((self.place[since] if colon else first, rest if colon else item))
        return out

    def flag(self, name: str) -> Flag | None:
        """The option of that name in any version."""
        if not self._names:
            for flag in self.flags.values():
                for names in ((flag.name,), *(names for _, names in flag.aliases)):
                    for other in names:
                        self._names.setdefault(other.lstrip("!"), flag)
        return self._names.get(name)


class Unknown(msgspec.Struct, frozen=True):
    """Why a version does not take an option, whether that is sure, and which one was meant."""

    kind: ProblemKind
    detail: str
    sure: bool
    meant: str = ""


class Dialect:
    """What one version's parser understands; without a version, what any version does."""

    def __init__(self, table: Table, version: str | None) -> None:
        self.table = table
        self.version = version
        key = parse(version) if version else None
        keys = table.keys
        # the samples around the version: equal where it is one of them
        self.low = self.high = -1
        if key is not None and keys and keys[0] <= key <= keys[-1]:
            self.low = max(index for index, sample in enumerate(keys) if sample <= key)
            self.high = min(index for index, sample in enumerate(keys) if sample >= key)
            if table.alike and key[0] == keys[self.high][0] and key[1] == 0:  # 0.8.5 beside 0.8.5.post1
                self.low = self.high
        self.known = self.low >= 0
        # whether an option that no sample has can be called unknown: not where several minor releases were skipped
        self.close = self.known and _neighbours(keys[self.low], keys[self.high])
        self.options: dict[str, Option] = {}
        for flag in table.flags.values():
            if self.has(flag) is not False:
                self._add(flag)

    @property
    def named(self) -> str:
        """`vLLM 0.9.1`, or `vLLM`."""
        return f"{self.table.title} {self.version}" if self.version else self.table.title

    def since(self, sample: str) -> bool:
        """Whether the version is surely that sample or newer."""
        return self.low >= self.table.place[sample]

    def until(self, sample: str) -> bool:
        """Whether the version is surely that sample or older."""
        return self.known and self.high <= self.table.place[sample]

    def has(self, flag: Flag) -> bool | None:
        """Whether this version has the option; None where it lies between two samples that differ."""
        if not self.known:
            return None
        if flag.first <= self.low and self.high <= flag.last:
            return True
        if self.high < flag.first or self.low > flag.last:
            return False
        return None

    def kind(self, flag: Flag) -> str:
        """The kind of the option's value; without a version the newest one."""
        kinds = [kind for since, kind in flag.kinds if not self.known or since <= self.low]
        return kinds[-1] if kinds else flag.kinds[0][1]

    def sure(self, flag: Flag) -> bool:
        """Whether the kind is the same at both samples around the version."""
        return self.known and not any(self.low < since <= self.high for since, _ in flag.kinds)

    def choices(self, name: str) -> list[str] | None:
        """The values that the parser may allow for this option, None where it does not check or that is not known.

        Between two samples that stand close it allows those of either.
        """
        if not self.known:
            return None
        low, high = self._choices_at(name, self.low), self._choices_at(name, self.high)
        return sorted({*low, *high}) if low and high and (low == high or self.close) else None

    def _choices_at(self, name: str, sample: int) -> list[str]:
        allowed: list[str] = []
        for since, step in self.table.choices.get(name, ()):
            if self.table.place[since] <= sample:
                allowed = _after(allowed, step)
        return allowed

    def _add(self, flag: Flag) -> None:
        kind = self.kind(flag)
        names = [flag.name]
        if self.known:  # a name that came between the samples may be there already
            current = [others for since, others in flag.aliases if since <= self.low][-1:]
            current += [others for since, others in flag.aliases if self.low < since <= self.high]
        else:
            current = [others for _, others in flag.aliases]
        for others in current:
            names += others
        for name in names:
            negative = name.startswith("!")
            self.options.setdefault(name.lstrip("!"), Option(flag, kind, negative))
            if kind == "bool" and name.startswith("--"):
                self.options.setdefault(f"--no-{name[2:]}", Option(flag, kind, True))

    def find(self, name: str) -> Option | list[str] | None:
        """An option by its name or a unique beginning of it; the candidates where there are several."""
        option = self.options.get(name)
        if option is not None or len(name) < 3:
            return option
        if name.startswith("--"):
            found = [other for other in self.options if other.startswith(name)]
            if len(found) > 1 and not self.known:
                newest = [other for other in found if self.options[other].flag.last == len(self.table.samples) - 1]
                found = newest if len(newest) == 1 else found
            elif len(found) > 1 and self.low < self.high:
                # an option that came between the samples may not be there yet, and makes nothing ambiguous
                certain = [other for other in found if self.has(self.options[other].flag)]
                if len({self.options[other].flag.name for other in certain}) < 2:
                    found = (certain or found)[:1]
            if len({self.options[other].flag.name for other in found}) == 1:
                return self.options[found[0]]
            return found or None
        return None

    def shortened(self, candidates: list[str]) -> str:
        """What a beginning of several options most likely means, where the newest release has more than one of them."""
        newest = [other for other in candidates if self.options[other].flag.last == len(self.table.samples) - 1]
        return min(newest, key=len) if len({self.options[other].flag.name for other in newest}) > 1 else ""

    def unknown(self, key: str) -> Unknown:
        """Why this version does not take an option: removed, not there yet, misspelt, or never heard of."""
        title = self.table.title
        flag = self.table.flag(key) or self.table.flag(key.replace("--no-", "--", 1))
        if flag is not None and self.known and self.has(flag) is not True:
            if flag.last < self.low or (flag.last <= self.low and flag.last < len(self.table.samples) - 1):
                return Unknown("removed-flag", self.removed(flag, key), self.has(flag) is False)
            first = self.table.samples[flag.first]
            detail = f"{key} came with {title} {first}; {self.named} does not have it"
            return Unknown("unknown-flag", detail, self.has(flag) is False)
        near = self.nearest(key) if flag is None else flag.name
        owners, own = meant(self.table.engine, key) if flag is None else ((), "")
        detail = f"{self.named} has no option {key}"
        if near:
            detail += f"; the nearest is {near}"
        elif owners:
            detail += f", which is {TITLES[owners[0]]}'s" + (f" name for {own}" if own else "")
        sure = self.close and (flag is None or self._settled(flag))
        if "_" in key:  # whether underscores stand for dashes differs between releases
            return Unknown("unknown-flag", detail, sure)
        slip = near if flag is None and near and near.count("-") == key.count("-") else ""
        return Unknown("unknown-flag", detail, sure, slip or own)

    def _settled(self, flag: Flag) -> bool:
        """Whether an option has the same kind and names at both samples around the version."""
        return self.sure(flag) and not any(self.low < since <= self.high for since, _ in flag.aliases)

    def removed(self, flag: Flag, key: str) -> str:
        """When an option was removed, and what took its place."""
        hint = self.table.successors.get(key) or self.table.successors.get(flag.name)
        place = f" ({hint})" if hint else ""
        return f"{key} was removed after {self.table.title} {self.table.samples[flag.last]}{place}"

    def nearest(self, key: str) -> str | None:
        """The option that somebody meant who wrote `key`."""
        from difflib import get_close_matches

        dashed = key.replace("_", "-")
        if dashed in self.options and dashed != key:
            return dashed
        found = get_close_matches(key[:80], list(self.options), n=1, cutoff=0.8)
        # what has a word more is another option, no slip of the pen
        slip = found and (abs(len(found[0]) - len(key)) <= _MOST_SLIPS or key.startswith(found[0]))
        return found[0] if slip else None


@functools.lru_cache(maxsize=64)
def dialect(table: Table, version: str | None) -> Dialect:
    """The options of a version."""
    return Dialect(table, version)


def _neighbours(low: Key, high: Key) -> bool:
    """Whether two samples are of one minor release or of two that follow each other; llama.cpp's builds always are."""
    minors = (*low[0][1:2], 0)
    return high[0][1:2] <= (minors[0] + 1,)
