"""Device selectors: the part of CEL that they are written in, evaluated over one device.

Known are literals, `device.driver`, `device.attributes` and `device.capacity`, the operators, `in`, `has`, `size`,
`quantity`, `semver` and the methods on strings, quantities and versions that drivers document. Anything else raises
`UnsupportedError`: the selector is then not judged. What is an error in CEL (an attribute that a device lacks) is `FaultError`:
the scheduler gives up on the whole pod then.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache, total_ordering
from typing import Any

import msgspec

from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.scheduling.objects import Amount, Attribute, Device
from kubectl_llmdoctor.facts.units import milli

#: Expressions longer than the API allows are not parsed, and nesting has an end.
_MOST_TEXT, _MOST_DEPTH = 10 * 1024, 40


#: What makes names, or counts them: such an expression depends on more than the names that stand in it.
_LOOKS_AT_ALL = expression(r"[+\\]|\bsize\b")


class UnsupportedError(Exception):
    """Something of CEL that is not known here."""


class FaultError(Exception):
    """An error at run time."""


@total_ordering
class Quantity:
    """`quantity("40Gi")`, in thousandths."""

    def __init__(self, text: Any) -> None:
        amount = milli(text)
        if amount is None:
            raise FaultError(f"no quantity: {text}")
        self.amount = amount

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantity) and self.amount == other.amount

    def __lt__(self, other: Quantity) -> bool:
        return self.amount < other.amount

    def __hash__(self) -> int:
        return hash(self.amount)


@total_ordering
class Version:
    """`semver("1.2.3")`: release and pre-release compare, build metadata does not."""

    def __init__(self, text: Any) -> None:
        found = re.fullmatch(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?", str(text))
        if not found:
            raise FaultError(f"no version: {text}")
        self.parts = tuple(int(part) for part in found.groups()[:3])
        before = (found.group(4) or "").split(".") if found.group(4) else []
        marks = tuple((0, int(mark), "") if mark.isdigit() else (1, 0, mark) for mark in before)
        self._key = (self.parts, not before, marks)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self._key == other._key

    def __lt__(self, other: Version) -> bool:
        return self._key < other._key

    def __hash__(self) -> int:
        return hash(self._key)


def matches(expression: str, driver: str, device: Device) -> bool:
    """Whether a device fits a selector. Raises UnsupportedError or FaultError."""
    try:
        result = _evaluate(_parsed(expression), {"device": facts(driver, device)})
    except RecursionError as error:
        raise UnsupportedError("an expression that deep") from error
    if not isinstance(result, bool):
        raise FaultError("the selector is neither true nor false")
    return result


def fingerprint(expression: str, device: Device) -> bytes:
    """What an expression can see of a device: two devices with the same give the same result."""
    device = device.basic or device
    whole = _LOOKS_AT_ALL.search(expression)
    seen = [
        {name: v for name, v in table.items() if whole or name.rpartition("/")[2] in expression}
        for table in (device.attributes, device.capacity)
    ]
    return msgspec.json.encode((device.allow_multiple_allocations, seen))


def facts(driver: str, device: Device) -> dict[str, Any]:
    """A device as the expression sees it: names without a domain belong to the driver's."""
    device = device.basic or device
    attributes: _ByDomain = _ByDomain()
    for name, value in device.attributes.items():
        domain, slash, key = name.partition("/")
        attributes.setdefault(domain if slash else driver, {})[key if slash else name] = _attribute(value)
    capacity: _ByDomain = _ByDomain()
    for name, has in device.capacity.items():
        domain, slash, key = name.partition("/")
        amount = has.value if isinstance(has, Amount) else has
        capacity.setdefault(domain if slash else driver, {})[key if slash else name] = Quantity(amount)
    return {
        "driver": driver,
        "attributes": attributes,
        "capacity": capacity,
        "allowMultipleAllocations": device.allow_multiple_allocations,
    }


class _ByDomain(dict[str, Any]):
    """A domain that a device has nothing of is empty, and no error."""

    def __missing__(self, _: str) -> dict[str, Any]:
        return {}


def _attribute(value: Attribute) -> Any:
    for one in (value.string, value.number, value.truth):
        if one is not None:
            return one
    if value.version is not None:
        return Version(value.version)
    raise UnsupportedError("an attribute of another type")


# --- reading ----------------------------------------------------------------------------------------------------------

_TOKEN = expression(
    r"\s*(?:(?P<text>[rR]?(?:\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'))|(?P<number>0[xX][0-9a-fA-F]+|\d+(?:\.\d+)?"
    r"(?:[eE][+-]?\d+)?)u?|(?P<name>[A-Za-z_]\w*)|(?P<sign>&&|\|\||==|!=|<=|>=|[-+*/%<>!?:.,()\[\]]))"
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}

#: Binary operators by how strongly they bind.
_BINDING = {"||": 1, "&&": 2, "==": 3, "!=": 3, "<": 3, "<=": 3, ">": 3, ">=": 3, "in": 3, "+": 4, "-": 4}
_BINDING |= {"*": 5, "/": 5, "%": 5}

Tree = tuple[Any, ...]


@lru_cache(maxsize=256)
def _parsed(text: str) -> Tree:
    if len(text) > _MOST_TEXT:
        raise UnsupportedError("an expression of more than 10 KiB")
    return _Parser(text).whole()


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = list(self._split(text.rstrip()))
        self._at = self._depth = 0

    @staticmethod
    def _split(text: str) -> Iterator[tuple[str, str]]:
        at = 0
        while at < len(text):
            found = _TOKEN.match(text, at)
            if not found or not found.lastgroup:
                raise UnsupportedError(f"`{text[at : at + 20].strip()}`")
            yield found.lastgroup, found.group(found.lastgroup)
            at = found.end()

    def _peek(self) -> str:
        kind, text = self._tokens[self._at] if self._at < len(self._tokens) else ("", "")
        return text if kind in ("sign", "name") else ""

    def _take(self, *signs: str) -> bool:
        if self._peek() in signs:
            self._at += 1
            return True
        return False

    def _need(self, sign: str) -> None:
        if not self._take(sign):
            raise UnsupportedError(f"no `{sign}` where one is due")

    def whole(self) -> Tree:
        found = self._choice()
        if self._at < len(self._tokens):
            raise UnsupportedError(f"`{self._tokens[self._at][1]}`")
        return found

    def _choice(self) -> Tree:
        self._depth += 1
        if self._depth > _MOST_DEPTH:
            raise UnsupportedError("an expression that deep")
        found = self._binary(1)
        if self._take("?"):
            then = self._choice()
            self._need(":")
            found = ("?", found, then, self._choice())
        self._depth -= 1
        return found

    def _binary(self, least: int) -> Tree:
        left = self._unary()
        while (strength := _BINDING.get(self._peek(), 0)) >= least:
            sign = self._peek()
            self._at += 1
            left = (sign, left, self._binary(strength + 1))
        return left

    def _unary(self) -> Tree:
        signs: list[str] = []
        while self._peek() in ("!", "-") and len(signs) < _MOST_DEPTH:
            signs.append(self._peek())
            self._at += 1
        found = self._member()
        for sign in reversed(signs):
            found = ("not" if sign == "!" else "minus", found)
        return found

    def _member(self) -> Tree:
        found = self._primary()
        while True:
            if self._take("."):
                kind, name = self._tokens[self._at] if self._at < len(self._tokens) else ("", "")
                if kind != "name":
                    raise UnsupportedError("`.` without a name")
                self._at += 1
                found = ("method", found, name, self._arguments()) if self._take("(") else ("field", found, name)
            elif self._take("["):
                found = ("index", found, self._choice())
                self._need("]")
            else:
                return found

    def _arguments(self, end: str = ")") -> tuple[Tree, ...]:
        found: list[Tree] = []
        while not self._take(end):
            if found:
                self._need(",")
            found.append(self._choice())
        return tuple(found)

    def _primary(self) -> Tree:
        if self._at >= len(self._tokens):
            raise UnsupportedError("an expression that ends too soon")
        kind, text = self._tokens[self._at]
        self._at += 1
        if kind == "text":
            return ("value", _unquoted(text))
        if kind == "number":
            return ("value", _number_of(text))
        if text == "(":
            found = self._choice()
            self._need(")")
            return found
        if text == "[":
            return ("list", self._arguments("]"))
        if text in ("true", "false"):
            return ("value", text == "true")
        if kind == "name" and self._take("("):
            return ("call", text, self._arguments())
        if kind == "name":
            return ("name", text)
        raise UnsupportedError(f"`{text}`")


def _number_of(text: str) -> int | float:
    hexadecimal = text[:2] in ("0x", "0X")
    if text != "0" and text[0] == "0" and text[1:2].isdigit():
        raise UnsupportedError(f"`{text}`")
    return float(text) if re.search(r"[.eE]", text) and not hexadecimal else int(text, 0)


def _unquoted(text: str) -> str:
    if text[0] in "rR":
        return text[2:-1]
    body = text[1:-1]
    if re.search(r"\\[^ntr\"'\\`?]", body):
        raise UnsupportedError("an escape like that")
    return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m.group(1), m.group(1)), body)


# --- evaluating -------------------------------------------------------------------------------------------------------


def _evaluate(tree: Tree, names: dict[str, Any]) -> Any:
    kind = tree[0]
    if kind == "value":
        return tree[1]
    if kind in ("&&", "||"):
        return _logic(tree, names)
    if kind == "?":
        return _evaluate(tree[2] if _boolean(_evaluate(tree[1], names)) else tree[3], names)
    if kind == "name":
        if tree[1] not in names:
            raise UnsupportedError(f"`{tree[1]}`")
        return names[tree[1]]
    if kind == "list":
        return [_evaluate(one, names) for one in tree[1]]
    if kind in ("field", "index"):
        key = tree[2] if kind == "field" else _evaluate(tree[2], names)
        return _lookup(_evaluate(tree[1], names), key)
    if kind == "not":
        return not _boolean(_evaluate(tree[1], names))
    if kind == "minus":
        return -_number(_evaluate(tree[1], names))
    if kind == "call":
        return _call(tree[1], tree[2], names)
    if kind == "method":
        if tree[1] == ("name", "cel") and tree[2] == "bind" and len(tree[3]) == 3 and tree[3][0][0] == "name":
            return _evaluate(tree[3][2], {**names, tree[3][0][1]: _evaluate(tree[3][1], names)})
        arguments = [_evaluate(one, names) for one in tree[3]]
        return _method(_evaluate(tree[1], names), tree[2], arguments)
    return _operate(kind, _evaluate(tree[1], names), _evaluate(tree[2], names))


def _logic(tree: Tree, names: dict[str, Any]) -> bool:
    """`&&` and `||` decide by either side, whatever fault the other has."""
    decided, fault = tree[0] == "||", None
    for side in tree[1:]:
        try:
            if _boolean(_evaluate(side, names)) is decided:
                return decided
        except FaultError as error:
            fault = error
    if fault:
        raise fault
    return not decided


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise FaultError("no truth value")
    return value


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FaultError("no number")
    return value


def _lookup(value: Any, key: Any) -> Any:
    if isinstance(value, dict) and isinstance(key, str):
        if isinstance(value, _ByDomain) or key in value:
            return value[key]
        raise FaultError(f"no such key: {key}")
    if isinstance(value, list) and isinstance(key, int) and 0 <= key < len(value):
        return value[key]
    raise FaultError(f"nothing at {key}")


def _alike(a: Any, b: Any) -> bool:
    """Equality: things of different types are different, but for numbers."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    both = isinstance(a, int | float) and isinstance(b, int | float)
    return bool((both or type(a) is type(b)) and a == b)


def _operate(sign: str, a: Any, b: Any) -> Any:
    if sign in ("==", "!="):
        return _alike(a, b) is (sign == "==")
    if sign == "in":
        if isinstance(b, dict):
            return isinstance(a, str) and a in b
        if isinstance(b, list):
            return any(_alike(a, one) for one in b)
        raise FaultError("`in` wants a list or a map")
    if sign == "+" and isinstance(a, str) and isinstance(b, str):
        return a + b
    if sign in ("<", "<=", ">", ">="):
        if isinstance(a, str) and isinstance(b, str):
            order = (a > b) - (a < b)
        else:
            order = (_number(a) > _number(b)) - (_number(a) < _number(b))
        return {"<": order < 0, "<=": order <= 0, ">": order > 0, ">=": order >= 0}[sign]
    if sign in ("+", "-", "*"):
        x, y = _number(a), _number(b)
        return x + y if sign == "+" else x - y if sign == "-" else x * y
    raise UnsupportedError(f"`{sign}`")


def _call(name: str, arguments: tuple[Tree, ...], names: dict[str, Any]) -> Any:
    if name == "has" and len(arguments) == 1 and arguments[0][0] == "field":
        holder = _evaluate(arguments[0][1], names)
        if not isinstance(holder, dict):
            raise FaultError("has() wants a field")
        return arguments[0][2] in holder
    values = [_evaluate(one, names) for one in arguments]
    if len(values) != 1:
        raise UnsupportedError(f"{name}() with {len(values)} arguments")
    makers: dict[str, Callable[[Any], Any]] = {"quantity": Quantity, "semver": Version, "size": _size}
    if name not in makers:
        raise UnsupportedError(f"{name}()")
    return makers[name](values[0])


def _size(value: Any) -> int:
    if not isinstance(value, str | list | dict):
        raise FaultError("no size")
    return len(value)


_STRINGS: dict[str, Callable[..., Any]] = {
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "contains": str.__contains__,
    "lowerAscii": lambda text: "".join(c.lower() if c.isascii() else c for c in text),
    "upperAscii": lambda text: "".join(c.upper() if c.isascii() else c for c in text),
    "trim": str.strip,
    "size": len,
}
_ORDERS: dict[str, Callable[[Any, Any], Any]] = {
    "compareTo": lambda a, b: (a > b) - (a < b),
    "isGreaterThan": lambda a, b: a > b,
    "isLessThan": lambda a, b: a < b,
}
_VERSION_PARTS = ("major", "minor", "patch")


def _method(value: Any, name: str, arguments: list[Any]) -> Any:
    if isinstance(value, str):
        if name == "matches" and len(arguments) == 1 and isinstance(arguments[0], str):
            return _search(arguments[0], value)
        takes = 1 if name in ("startsWith", "endsWith", "contains") else 0
        if name in _STRINGS and len(arguments) == takes:
            if not all(isinstance(one, str) for one in arguments):
                raise FaultError(f"{name}() wants a string")
            return _STRINGS[name](value, *arguments)
    elif isinstance(value, Quantity | Version):
        if name in _ORDERS and len(arguments) == 1:
            if type(arguments[0]) is not type(value):
                raise FaultError(f"{name}() wants its like")
            return _ORDERS[name](value, arguments[0])
        if isinstance(value, Version) and name in _VERSION_PARTS and not arguments:
            return value.parts[_VERSION_PARTS.index(name)]
    elif name == "size" and not arguments:
        return _size(value)
    raise UnsupportedError(f"{name}()")


#: One piece of a plain pattern, which may be repeated; there are no groups.
_PLAIN = r"(?:[\w\s,;:/@#%&=~\"'<>!-]|\\[.\-/+*?()\[\]dws]|\[\^?[\w\s.-]+\]|\.)"


def _search(pattern: str, text: str) -> bool:
    """A regular expression of the plain kind, over as much as an attribute holds: others could take for ever."""
    plain = re.fullmatch(rf"\^?(?:{_PLAIN}[*+?]?)*\$?", pattern)
    if not plain or len(pattern) > 128 or len(text) > 64 or len(re.findall(r"[*+?]", pattern)) > 3:
        raise UnsupportedError("a regular expression like that")
    return re.search(pattern, text, re.ASCII) is not None
