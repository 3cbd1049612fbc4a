"""What the words of a shell script become: parameters, substitutions, arithmetic, the splitting into words.

XCU chapter 2.6 with what bash adds. What cannot be known here stands in the text as an unknown part between NUL
characters.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping

from kubectl_llmdoctor.expressions import expression

from .argv import MAX_TEXT, Word, unknown
from .grammar import MAX_DEPTH, skip_part
from .launch import EnvVar

MAX_WORDS = 4_000  # words of one expansion
_MAX_WORK = 4_000_000  # characters that all expansions of one container may give

Value = str | list[str]


_IDENTIFIER = expression(r"[A-Za-z_]\w*|\d+|[@*#?$!-]", re.ASCII)


class Expansion(ABC):
    """What is known of a shell's variables, and the words that the words of its script become."""

    def __init__(self, env: Mapping[str, EnvVar]) -> None:
        self.variables: dict[str, Value] = {name: known(variable) for name, variable in env.items()}
        self.env = dict(env)
        self.params: list[Word] = []
        self.arg0 = "sh"
        self.path = ""
        self.depth = 0
        self.work = 0
        self.stopped = False

    @abstractmethod
    def printed_by(self, script: str) -> str | None:
        """What the commands within `$(…)` print; None where that is not known."""

    def single(self, raw: str) -> str:
        """A word as one string, without splitting: the value of an assignment."""
        return " ".join(word.text for word in self.fields(raw, split=False))

    def double_quoted(self, text: str) -> str:
        """Text as inside double quotes (a here-document)."""
        out: list[str] = []
        at = 0
        while at < len(text):
            if text[at] in "$`":
                value, at = self._substitution(text, at)
                out.append(value if isinstance(value, str) else " ".join(value))
            elif text[at] == "\\" and text[at + 1 : at + 2] in ("$", "`", "\\"):
                out.append(text[at + 1])
                at += 2
            else:
                out.append(text[at])
                at += 1
        return "".join(out)[:MAX_TEXT]

    def fields(self, raw: str, split: bool = True) -> list[Word]:
        """Expands one word of the script to the words that the program gets."""
        if raw in ('"$@"', "$@", '"${@}"', "${@}", "$*", "${*}"):
            return list(self.params)
        if raw in ('"${@:2}"', '"${@:1}"'):
            return list(self.params[int(raw[5]) - 1 :])
        state = _Fields()
        at, quoted = 0, False
        while at < len(raw) and len(state.done) < MAX_WORDS:
            char = raw[at]
            if char == "\0":
                end = skip_part(raw, at, 0)
                state.add(raw[at:end])
                at = end
            elif char == "'" and not quoted:
                end = raw.find("'", at + 1)
                end = len(raw) if end < 0 else end
                state.add(raw[at + 1 : end])
                at = end + 1
            elif char == '"':
                quoted = not quoted
                state.add("")
                at += 1
            elif char == "\\":
                following = raw[at + 1 : at + 2]
                if following != "\n":
                    state.add(following if not quoted or following in ("$", "`", '"', "\\") else char + following)
                at += 2
            elif char == "$" and raw[at + 1 : at + 2] == "'" and not quoted:
                end = raw.find("'", at + 2)
                end = len(raw) if end < 0 else end
                state.add(raw[at + 2 : end].replace("\\n", "\n").replace("\\t", "\t"))
                at = end + 1
            elif char in "$`":
                value, at = self._substitution(raw, at)
                if isinstance(value, list):
                    state.many(value, quoted or not split)
                elif quoted or not split:
                    state.add(value)
                else:
                    state.split(value)
            else:
                state.add(char)
                at += 1
        texts = state.finish()
        self.work += len(raw) + state.size
        if self.work > _MAX_WORK:
            self.stopped = True
        if len(texts) == 1 and not state.parted:
            return [Word(texts[0], raw, self.path)]
        return [Word(text, text.replace("\0", ""), self.path) for text in texts]

    def _substitution(self, raw: str, at: int) -> tuple[Value, int]:
        """The value of `$x`, `${…}`, `$(…)`, `$((…))` or a backquoted command at `at`, and where it ends."""
        if self.depth > MAX_DEPTH:
            end = skip_part(raw, at, 0)
            return unknown(raw[at:end]), end
        self.depth += 1
        found = self._substituted(raw, at)
        self.depth -= 1
        return found

    def _substituted(self, raw: str, at: int) -> tuple[Value, int]:
        end = skip_part(raw, at, 0)
        if raw[at] == "`":
            return self._command(raw[at + 1 : end - 1], raw[at:end]), end
        following = raw[at + 1 : at + 2]
        if following == "(":
            inner = raw[at + 2 : end - 1]
            if inner.startswith("(") and inner.endswith(")"):
                return self.arithmetic(inner[1:-1], raw[at:end]), end
            return self._command(inner, raw[at:end]), end
        if following == "{":
            return self._braces(raw[at + 2 : end - 1], raw[at:end]), end
        match = _IDENTIFIER.match(raw, at + 1)
        if match is None:
            return "$", at + 1
        name = match[0] if not match[0].isdecimal() else match[0][0]
        value = self._lookup(name)
        return (unknown("$" + name) if value is None else value), at + 1 + len(name)

    def _lookup(self, name: str) -> Value | None:
        if name in ("@", "*"):
            return [word.text for word in self.params]
        if name == "#":
            return str(len(self.params))
        if name == "0":
            return self.arg0
        if name.isdecimal():
            index = int(name) if len(name) < 4 else 9999
            return self.params[index - 1].text if index <= len(self.params) else ""
        if name in ("?", "$", "!", "-"):
            return None
        return self.variables.get(name)

    def _braces(self, inner: str, raw: str) -> Value:
        """`${name}` with its operators; None of them that is not understood is guessed."""
        length = inner.startswith("#") and len(inner) > 1
        match = _IDENTIFIER.match(inner, 1 if length else 0)
        if match is None:
            return unknown(raw)
        name, rest = match[0], inner[match.end() :]
        value = self._lookup(name)
        if rest.startswith("["):
            index, _, rest = rest[1:].partition("]")
            items = [value] if isinstance(value, str) and value else value if isinstance(value, list) else []
            if value is None:
                value = None if index not in ("@", "*") else unknown(raw)
            elif index in ("@", "*"):
                value = list(items)
            else:
                value = items[int(index)] if index.isdecimal() and len(index) < 4 and int(index) < len(items) else None
        if length:
            return unknown(raw) if value is None or "\0" in value else str(len(value))
        if not rest:
            return unknown(raw) if value is None else value
        return self._operator(name, value, rest, raw)

    def _operator(self, name: str, value: Value | None, rest: str, raw: str) -> Value:
        operator = rest[:2] if rest[:2] in (":-", ":=", ":+", ":?", "##", "%%", ",,", "^^") else rest[:1]
        word = rest[len(operator) :]
        empty = value is None or (operator.startswith(":") and not value)
        if operator in (":-", "-", ":=", "="):
            if not empty and value is not None:
                return value
            default = self.single(word)
            if "=" in operator:
                self.variables[name] = default
            return default
        if operator in (":+", "+"):
            return "" if empty else self._plus(word)
        if operator in (":?", "?"):
            return unknown(raw) if value is None else value
        if not isinstance(value, str) or "\0" in value or len(value) > 1000:
            return unknown(raw)
        if operator in ("#", "##", "%", "%%"):
            return _strip(value, operator, self.single(word))
        if operator == "/":
            return self._replaced(value, word, raw)
        if operator == ",,":
            return value.lower()
        if operator == "^^":
            return value.upper()
        return unknown(raw)

    def _replaced(self, value: str, word: str, raw: str) -> str:
        """`${value/old/new}` and `${value//old/new}` with a plain `old`."""
        every = word.startswith("/")
        pattern = word[1:] if every else word
        cut = next(
            (at for at in range(len(pattern)) if pattern[at] == "/" and pattern[at - 1 : at] != "\\"), len(pattern)
        )
        old, new = self.single(pattern[:cut]), self.single(pattern[cut + 1 :])
        if not old or any(char in old for char in "*?[#%\0"):
            return unknown(raw)
        return value.replace(old, new) if every else value.replace(old, new, 1)

    def _plus(self, word: str) -> Value:
        words = self.fields(word)
        # `${X:+--flag "$X"}` gives several words
        return words[0].text if len(words) == 1 else [word.text for word in words]

    def _command(self, script: str, raw: str) -> str:
        text = self.printed_by(script)
        return unknown(raw) if text is None else text.rstrip("\n")

    def arithmetic(self, expression: str, raw: str) -> str:
        """The number that `$((…))` stands for."""
        out: list[str] = []
        at = 0
        while at < len(expression):
            if expression[at] == "$":
                value, at = self._substitution(expression, at)
                out.append(value if isinstance(value, str) else "?")
            elif (match := _IDENTIFIER.match(expression, at)) and match[0].isidentifier():
                value = self.variables.get(match[0], "?")
                out.append(value if isinstance(value, str) else "?")
                at = match.end()
            else:
                out.append(expression[at])
                at += 1
        number = _calculate("".join(out))
        return unknown(raw) if number is None else str(number)


def known(variable: EnvVar) -> str:
    """A variable's value, or an unknown part that shows its name."""
    return unknown(f"${{{variable.name}}}") if variable.value is None else variable.value


class _Fields:
    """Builds the words of one expansion: quoted text joins, unquoted values split at blanks."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.current: list[str] = []
        self.open = False
        self.parted = False
        self.size = 0

    def add(self, text: str) -> None:
        if self.size < MAX_TEXT:
            self.current.append(text)
            self.size += len(text)
        self.open = True

    def _close(self) -> None:
        if self.open:
            self.done.append("".join(self.current))
        self.current, self.open = [], False

    def split(self, value: str) -> None:
        """An unquoted value: blanks separate words, except inside an unknown part."""
        for index, piece in enumerate(value.split("\0")):
            if index % 2:
                self.add(f"\0{piece}\0")
                continue
            if piece[:1].isspace():
                self.parted = True
                self._close()
            items = piece.split()
            for number, item in enumerate(items[:MAX_WORDS]):
                if number:
                    self.parted = True
                    self._close()
                self.add(item)
            if items and piece[-1:].isspace():
                self.parted = True
                self._close()

    def many(self, values: list[str], quoted: bool) -> None:
        """`"${A[@]}"`: one word for each."""
        for number, value in enumerate(values[:MAX_WORDS]):
            if number:
                self.parted = True
                self._close()
            if quoted:
                self.add(value)
            else:
                self.split(value)

    def finish(self) -> list[str]:
        self._close()
        return self.done


def _strip(value: str, operator: str, pattern: str) -> str:
    """`${value#pattern}` and its like."""
    from fnmatch import fnmatchcase

    if len(pattern) > 50:
        return unknown(f"${operator}")
    cuts = range(len(value) + 1)
    if operator in ("##", "%"):
        cuts = range(len(value), -1, -1)
    for cut in cuts:
        if operator in ("#", "##"):
            if fnmatchcase(value[:cut], pattern):
                return value[cut:]
        elif fnmatchcase(value[cut:], pattern):
            return value[:cut]
    return value


def _calculate(expression: str) -> int | None:
    """Integer arithmetic with + - * / % and brackets; None for anything else."""
    if len(expression) > 200 or not expression.strip() or any(c not in "0123456789+-*/%() \t" for c in expression):
        return None
    import ast

    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None

    def value(node: ast.AST) -> int:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
            inner = value(node.operand)
            return -inner if isinstance(node.op, ast.USub) else inner
        if isinstance(node, ast.BinOp):
            left, right = value(node.left), value(node.right)
            if max(abs(left), abs(right)) > 10**18:
                raise ValueError
            if isinstance(node.op, ast.Add):
                return left + right
            if isinstance(node.op, ast.Sub):
                return left - right
            if isinstance(node.op, ast.Mult):
                return left * right
            if isinstance(node.op, (ast.Div, ast.Mod)):
                quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
                return quotient if isinstance(node.op, ast.Div) else left - quotient * right
        raise ValueError

    try:
        return value(tree.body)
    except (ValueError, ZeroDivisionError, RecursionError):
        return None
