"""No line that somebody made up holds a regular expression up.

What stands in a log, an event or a status may come from anybody who may send a request. `re` tries every beginning and
every end of every repeat, so that a repeat in a repeat, or one after another, takes minutes on a line that was made for
it. Such lines are made here from each expression itself; what is searched must answer soon.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import signal
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NamedTuple

import llmdoctor_checks
import pytest

import kubectl_llmdoctor
from kubectl_llmdoctor.expressions import Expression
from kubectl_llmdoctor.facts.logs import Log
from kubectl_llmdoctor.packs import signature_of
from kubectl_llmdoctor.signatures.declared import Signature
from kubectl_llmdoctor.snapshot import LogText

# The parsed form alone says what repeats; it is private, and of all versions that are tested the same.
_parser: Any = importlib.import_module("re._parser")

#: As long as a line of a log can get.
_CHARS = len(Log(LogText(text="x" * 100_000)).line(1).text)
#: Processor time of one search, some five times what the slowest ones take; a busy machine takes twice as long.
_SECONDS = 0.5
#: From so many on a repeat counts as one that a long line can fill.
_LONG = 16
#: Ways through the alternatives of one expression that are tried, at most.
_WAYS = 12

#: How the parsed form names repeats and classes of characters; of those how they are written, and one of each.
_REPEATS = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")
_CATEGORIES = {
    "CATEGORY_DIGIT": (r"\d", "1"),
    "CATEGORY_NOT_DIGIT": (r"\D", "a"),
    "CATEGORY_SPACE": (r"\s", " "),
    "CATEGORY_NOT_SPACE": (r"\S", "a"),
    "CATEGORY_WORD": (r"\w", "a"),
    "CATEGORY_NOT_WORD": (r"\W", " "),
}


class _Piece(NamedTuple):
    """A part of an expression: what it needs, and what may then be repeated."""

    needed: str
    repeated: str


class _Late(Exception):  # noqa: N818
    """No answer came in time."""


def _parts(step: Any) -> list[Any]:
    """The steps within a parsed step, once for each of its alternatives."""
    op, value = str(step[0]), step[1]
    inner = {"SUBPATTERN": 3, "ASSERT": 1, "ASSERT_NOT": 1, **dict.fromkeys(_REPEATS, 2)}
    if op in inner:
        return [value[inner[op]]]
    return list(value[1]) if op == "BRANCH" else [value] if op == "ATOMIC_GROUP" else []


def _is_long(step: Any) -> bool:
    """Whether a long line can fill a step."""
    return (str(step[0]) in _REPEATS and step[1][1] >= _LONG) or any(_is_long(s) for part in _parts(step) for s in part)


def _needed(steps: Iterable[Any]) -> str:
    """The shortest text that parsed steps match, as far as one character after the other says."""
    text = ""
    for step in steps:
        op, value = str(step[0]), step[1]
        if op in ("LITERAL", "NOT_LITERAL", "IN", "ANY"):
            text += _character(op, value)
        elif not op.startswith("ASSERT"):
            text += "".join(map(_needed, _parts(step)[:1])) * (min(value[0], _CHARS) if op in _REPEATS else 1)
    return text


def _character(op: str, value: Any) -> str:
    """A character that a parsed step matches."""
    if op == "LITERAL":
        return chr(value)
    members = [("NEGATE", None), ("LITERAL", value)] if op == "NOT_LITERAL" else value or [("NEGATE", None)]
    first, value = str(members[0][0]), members[0][1]
    if first == "NEGATE":
        outside = re.compile("[" + "".join(map(_spelt, members[1:])) + "]") if members[1:] else re.compile("\n")
        return next((c for c in "a1 xz-/." if not outside.match(c)), "~")
    return chr(value[0]) if first == "RANGE" else chr(value) if first == "LITERAL" else _CATEGORIES[str(value)][1]


def _spelt(member: Any) -> str:
    """A member of a class as it is written."""
    op, value = str(member[0]), member[1]
    if op == "CATEGORY":
        return _CATEGORIES[str(value)][0]
    return "-".join(re.escape(chr(v)) for v in value) if op == "RANGE" else re.escape(chr(value))


def _ways(steps: Iterable[Any]) -> list[list[Any]]:
    """Parsed steps without the groups around what can get long; so often that each alternative stands in one of them."""
    choices: list[list[list[Any]]] = []
    for step in steps:
        op, parts = str(step[0]), [part for part in _parts(step) if any(map(_is_long, part))]
        whole = [[step]] if op in _REPEATS or not parts else [[]] if op.startswith("ASSERT") else []
        choices.append([*whole, *(way for part in parts for way in _ways(part))])
    count = min(max(map(len, choices), default=1), _WAYS)
    return [[step for choice in choices for step in choice[number % len(choice)]] for number in range(count)]


def _pieces(way: list[Any]) -> Iterator[_Piece]:
    """A way as what must stand there, and what repeats after it."""
    needed = ""
    for step in way:
        if str(step[0]) in _REPEATS and _is_long(step):
            yield _Piece(needed, _needed(step[1][2]) or "x")
            needed = ""
        else:
            needed += _needed([step])
    yield _Piece(needed, "x")


def _attacks(expression: re.Pattern[Any], literal: str = "") -> set[str]:
    """Lines with a literal, in which an expression finds much that begins to match and nothing that ends so."""
    size = _CHARS - len(literal) - 1
    lines = set()
    for way in _ways(_parser.parse(expression.pattern, expression.flags)):
        before = last = ""
        for needed, repeated in _pieces(way):
            lines |= {_filled(text, size) for text in (needed, needed + repeated, repeated)}
            lines |= {_filled(last, size // 2) + _filled(needed, size // 2), before + needed + _filled(repeated, size)}
            before += needed + repeated
            lines |= {_filled(before, size)}
            last = needed
    lines = {line[:size] for line in lines}
    return {
        whole for line in lines for whole in ([line] if literal in line else [f"{literal} {line}", f"{line} {literal}"])
    }


def _filled(text: str, size: int) -> str:
    return (text * (size // len(text) + 1))[:size] if text else ""


def _late(signal_: int, frame: FrameType | None) -> None:
    raise _Late


def _is_late(expression: re.Pattern[Any], line: str, way: str = "search") -> bool:
    """Whether it takes too long until an expression has answered; it is interrupted then."""
    text: Any = line.encode(errors="replace") if isinstance(expression.pattern, bytes) else line
    before = signal.signal(signal.SIGVTALRM, _late)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, _SECONDS)
        try:
            for _ in expression.finditer(text) if way == "finditer" else [getattr(expression, way)(text)]:
                pass
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    except _Late:
        return True
    finally:
        signal.signal(signal.SIGVTALRM, before)
    return False


def _complaint(expression: re.Pattern[Any], literal: str = "", way: str = "search") -> str:
    """What holds an expression up, in words; nothing where nothing does."""
    for line in sorted(_attacks(expression, literal)):
        # Once may be the machine's doing.
        if _is_late(expression, line, way) and _is_late(expression, line, way):
            return f"{expression.pattern!r} is held up by {line[:100]!r}…"
    return ""


@pytest.mark.parametrize(
    "text",
    [
        r"(?P<code>401|403)[^\"]{0,60}(?:https://)?(?P<host>[\w.-]*ngc\.nvidia\.com)",
        r'(?s)volume "(?P<volume>[^"]+)" ?: .*?code = (?:PermissionDenied|Unauthenticated) desc = (?=.*?(?:bucket|blob))',
        r"(?i)warm-?up.{0,300}?(?:fail\w*\b.{0,60}|[:(] ?)out of memory",
        r"(?:\w+\.)*\w+(?:Error|Exit): (?P<why>.+) at end$",
        r"((?:a|b)+)+c",
    ],
)
def test_what_can_be_held_up_is_found_and_does_not_hold_the_test_up(text: str) -> None:
    begun = time.process_time()

    assert "is held up by" in _complaint(re.compile(text))
    assert time.process_time() - begun < 8 * _SECONDS


def test_what_is_bounded_is_not_held_up() -> None:
    assert (
        _complaint(re.compile(r'volume "(?P<volume>[^"]{1,253})".{0,400}?(?:not found|denied): (?P<why>.{1,160})'))
        == ""
    )


def _signatures() -> list[Signature]:
    paths = sorted(Path(llmdoctor_checks.__path__[0]).glob("*/*.yaml"))
    return [signature_of(path) for path in paths]


@pytest.mark.parametrize("signature", _signatures(), ids=lambda s: s.id)
def test_no_line_holds_a_signature_up(signature: Signature) -> None:
    searched = {
        (expression, literal)
        for p in signature.patterns
        for expression, literal in ((p.match, p.literal), (p.near_match, p.near), (p.raised_in, ""))
    }

    assert [said for text, literal in sorted(searched) if (said := _complaint(re.compile(text), literal))] == []


#: The methods of an expression, and how each goes through a text.
_METHODS = {name: name for name in ("search", "match", "fullmatch")} | dict.fromkeys(
    ("findall", "finditer", "sub", "subn"), "finditer"
)


class _Use(NamedTuple):
    """An expression, and how a text is searched with it."""

    expression: re.Pattern[Any]
    method: str


class _Plain(ast.NodeTransformer):
    """Puts a letter where a text takes what is not known before the program runs."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = names

    def visit_FormattedValue(self, node: ast.FormattedValue) -> ast.AST:
        return node if _value(node.value, self.names) is not None else ast.Constant("x")


def _value(node: ast.expr, names: dict[str, Any]) -> Any:
    """What a piece of Python is by the names of its module; None where it takes others."""
    known = ast.fix_missing_locations(
        ast.Expression(_Plain(names).visit(node) if isinstance(node, ast.JoinedStr) else node)
    )
    try:
        return eval(compile(known, "", "eval"), dict(names))
    except Exception:  # noqa: BLE001 # it takes what is no name of the module
        return None


def _uses(module: ModuleType) -> set[_Use]:
    """The expressions that a module searches texts with, each as it does. One that stands in a variable may be any of
    those in the tables of the module, and in those that it imports.
    """
    tree, names = ast.parse(Path(str(module.__file__)).read_text()), {"re": re} | vars(module)
    set_ = [node.value for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign) and node.value]
    values = [*(_value(node, names) for node in set_), *vars(module).values()]
    tables = [value for value in values if isinstance(value, list | tuple)]
    uses = set()
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            continue
        owner, method = call.func.value, _METHODS.get(call.func.attr)
        of_re = isinstance(owner, ast.Name) and owner.id == "re"
        if call.func.attr == "split" and (of_re or isinstance(_value(owner, names), re.Pattern | Expression)):
            method = "finditer"
        if method:
            told, *more = [*call.args, *(word.value for word in call.keywords)] if of_re else [owner]
            flags = next((f for f in (_value(one, names) for one in more) if isinstance(f, re.RegexFlag)), re.NOFLAG)
            known = _value(told, names)
            expressions = [e for text in _texts(tables if known is None else known) for e in _compiled(text, flags)]
            uses |= {_Use(expression, method) for expression in expressions}
    return uses


def _texts(value: Any) -> Iterator[Any]:
    """All texts and expressions in a value."""
    if isinstance(value, str | re.Pattern | Expression):
        yield value
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def _compiled(text: Any, flags: re.RegexFlag) -> list[re.Pattern[Any]]:
    """A text as an expression, if it is one and has a repeat."""
    if isinstance(text, re.Pattern | Expression):
        return [re.compile(text.pattern, text.flags)]
    try:
        with warnings.catch_warnings(action="ignore"):
            return [re.compile(text, flags)] if re.search(r"[*+}]", text) else []
    except re.error:
        return []


def _modules() -> list[ModuleType]:
    names = [
        module.name
        for package in (kubectl_llmdoctor, llmdoctor_checks)
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if not module.name.endswith("__main__")
    ]
    return [importlib.import_module(name) for name in names]


@pytest.mark.parametrize("module", _modules(), ids=lambda m: m.__name__)
def test_no_line_holds_a_module_up(module: ModuleType) -> None:
    uses = sorted(_uses(module), key=repr)

    assert [said for use in uses if (said := _complaint(use.expression, way=use.method))] == []


def test_no_module_compiles_an_expression_before_it_is_searched_with() -> None:
    eager = [
        f"{module.__name__}.{name}"
        for module in _modules()
        for name, value in vars(module).items()
        if any(isinstance(text, re.Pattern) for text in _texts(value))
    ]

    assert eager == []
