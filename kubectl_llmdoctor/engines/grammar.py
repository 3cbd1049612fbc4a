"""The grammar of shell scripts, as far as start scripts use it: text to tokens to nodes.

POSIX.1-2017, Shell & Utilities chapter 2, with bash's arrays, `[[`, `function` and here-strings. What no rule accepts
is skipped. Unknown parts stand between NUL characters and are opaque.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from kubectl_llmdoctor.expressions import expression

MAX_DEPTH = 24  # nesting of constructs and substitutions

_RESERVED = frozenset(
    {"if", "then", "else", "elif", "fi", "do", "done", "while", "until", "for", "case", "esac", "{", "}", "!"}
)
_OPERATORS = ("&&", "||", ";;&", ";;", ";&", "|&", "&>>", "&>", "<<<", "<<-", "<<", "<&", ">&", ">>", ">|", "<>")

#: `NAME=`, `NAME+=` or `NAME[i]=` at the beginning of a word.
ASSIGNMENT = expression(r"([A-Za-z_]\w*)(\[[^\]]*\])?(\+?)=", re.ASCII)

#: What stands in the place of a secret (redact.py): a part of a word, where a shell would see two redirections.
_MASK = expression(r"<masked:[\w+.-]{1,60}>", re.ASCII)


class _Token(msgspec.Struct, frozen=True):
    kind: str  # "word", "op", "end"
    text: str
    body: str = ""  # of a here-document


class Lexer:
    """Cuts a script into words (still quoted) and operators."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.pending: list[tuple[str, bool, list[_Token], int]] = []
        self.tokens: list[_Token] = []

    def run(self) -> list[_Token]:
        """All tokens; the last one is the end."""
        text, size = self.text, len(self.text)
        while self.at < size and len(self.tokens) < 20_000:
            char = text[self.at]
            if char in " \t\r":
                self.at += 1
            elif char == "\\" and text[self.at + 1 : self.at + 2] == "\n":
                self.at += 2
            elif char == "#":
                end = text.find("\n", self.at)
                self.at = size if end < 0 else end
            elif char == "\n":
                self.at += 1
                self.tokens.append(_Token("op", "\n"))
                self._here_documents()
            elif char in ";&|()<>" and not (char == "<" and _MASK.match(text, self.at)):
                self._operator()
            else:
                end = skip_word(text, self.at)
                word = text[self.at : end]
                self.at = end
                if not (word.isdecimal() and text[end : end + 1] in ("<", ">")):  # else a descriptor: `2>`
                    self.tokens.append(_Token("word", word))
        self.tokens.append(_Token("end", ""))
        return self.tokens

    def _operator(self) -> None:
        text = self.text
        if text[self.at] in "<>" and text[self.at + 1 : self.at + 2] == "(":  # process substitution: a word
            end = _skip_paren(text, self.at + 2, 0)
            self.tokens.append(_Token("word", text[self.at : end]))
            self.at = end
            return
        operator = next((op for op in _OPERATORS if text.startswith(op, self.at)), text[self.at])
        self.at += len(operator)
        self.tokens.append(_Token("op", operator))
        if operator in ("<<", "<<-"):
            while text[self.at : self.at + 1] in (" ", "\t"):
                self.at += 1
            end = skip_word(text, self.at)
            mark = text[self.at : end]
            self.at = end
            self.tokens.append(_Token("word", mark))
            self.pending.append((unquote(mark), operator == "<<-", self.tokens, len(self.tokens) - 1))

    def _here_documents(self) -> None:
        for mark, tabs, tokens, index in self.pending:
            lines: list[str] = []
            while self.at < len(self.text):
                end = self.text.find("\n", self.at)
                line = self.text[self.at : end if end >= 0 else len(self.text)]
                self.at = len(self.text) if end < 0 else end + 1
                if tabs:
                    line = line.lstrip("\t")
                if line == mark:
                    break
                lines.append(line + "\n")
            tokens[index] = msgspec.structs.replace(tokens[index], body="".join(lines))
        self.pending.clear()


def skip_word(text: str, start: int) -> int:
    """Where the word that begins at `start` ends."""
    at, size = start, len(text)
    while at < size:
        char = text[at]
        if char in " \t\n\r;&|<>)" and not (char == "<" and _MASK.match(text, at)):
            break
        if char == "(":
            if at > start and ASSIGNMENT.fullmatch(text[start:at]):  # an array: A=(b c)
                at = _skip_paren(text, at + 1, 0)
                continue
            break
        at = skip_part(text, at, 0)
    return max(at, start + 1) if start < size else size


def skip_part(text: str, at: int, depth: int) -> int:
    """Past one character or one quoted or substituted part of a word."""
    char = text[at]
    if depth > MAX_DEPTH:
        return len(text)
    if char == "<" and (mask := _MASK.match(text, at)):
        return mask.end()
    if char == "\\":
        return min(at + 2, len(text))
    if char in ("'", "\0"):
        end = text.find(char, at + 1)
        return len(text) if end < 0 else end + 1
    if char == '"':
        at += 1
        while at < len(text) and text[at] != '"':
            at = at + 1 if text[at] == "'" else skip_part(text, at, depth + 1)
        return min(at + 1, len(text))
    if char == "`":
        at += 1
        while at < len(text) and text[at] != "`":
            at += 2 if text[at] == "\\" else 1
        return min(at + 1, len(text))
    if char == "$" and text[at + 1 : at + 2] == "(":
        return _skip_paren(text, at + 2, depth + 1)
    if char == "$" and text[at + 1 : at + 2] == "{":
        at += 2
        while at < len(text) and text[at] != "}":
            at = skip_part(text, at, depth + 1)
        return min(at + 1, len(text))
    return at + 1


def _skip_paren(text: str, at: int, depth: int) -> int:
    """Past the parenthesis that closes the one just before `at`."""
    level = 1
    while at < len(text):
        if text[at] == "(":
            level += 1
            at += 1
        elif text[at] == ")":
            level -= 1
            at += 1
            if not level:
                return at
        else:
            at = skip_part(text, at, depth + 1)
    return len(text)


def unquote(raw: str) -> str:
    """A word without its quotes; substitutions stay as they are."""
    if "'" not in raw and '"' not in raw and "\\" not in raw:
        return raw
    out: list[str] = []
    at, quote = 0, ""
    while at < len(raw):
        char = raw[at]
        if quote:
            if char == quote:
                quote = ""
            elif char == "\\" and quote == '"' and raw[at + 1 : at + 2] in ("$", "`", '"', "\\", "\n"):
                at += 1
                out.append(raw[at])
            else:
                out.append(char)
        elif char in "'\"":
            quote = char
        elif char == "\\":
            at += 1
            out.append(raw[at : at + 1])
        else:
            out.append(char)
        at += 1
    return "".join(out)


# -- the grammar ------------------------------------------------------------------------------------------------------

Node = tuple[Any, ...]


class Parser:
    """Tokens to nodes: ("simple", assignments, words, redirections), ("if", …), ("loop", …), ("arithmetic", text), …"""

    def __init__(self, text: str) -> None:
        self.tokens = Lexer(text).run()
        self.at = 0
        self.depth = 0

    def parse(self) -> list[Node]:
        """The whole script; what no rule accepts is skipped."""
        out: list[Node] = []
        while self._peek().kind != "end":
            before = self.at
            out += self._list(())
            if self.at == before:
                self.at += 1
        return out

    def _peek(self, ahead: int = 0) -> _Token:
        index = self.at + ahead
        return self.tokens[index] if index < len(self.tokens) else self.tokens[-1]

    def _is(self, *texts: str, kind: str = "word") -> bool:
        token = self._peek()
        return token.kind == kind and token.text in texts

    def _newlines(self) -> None:
        while self._is("\n", ";", kind="op"):
            self.at += 1

    def _skip_to(self, *words: str) -> None:
        if self._is(*words):
            self.at += 1

    def _list(self, stop: tuple[str, ...]) -> list[Node]:
        """Lists until a reserved word of `stop`, a closing bracket or the end."""
        out: list[Node] = []
        self.depth += 1
        while self.depth <= 2 * MAX_DEPTH:
            self._newlines()
            token = self._peek()
            if token.kind == "end" or (token.kind == "word" and token.text in stop):
                break
            if token.kind == "op" and token.text in (")", ";;", ";;&", ";&"):
                break
            before = self.at
            out.append(self._and_or())
            if self.at == before:
                break
            if self._is(";", "&", "\n", kind="op"):
                self.at += 1
        self.depth -= 1
        return out

    def _and_or(self) -> Node:
        steps = [("", self._pipeline())]
        while self._is("&&", "||", kind="op"):
            operator = self._peek().text
            self.at += 1
            while self._is("\n", kind="op"):
                self.at += 1
            steps.append((operator, self._pipeline()))
        return ("and-or", steps)

    def _pipeline(self) -> Node:
        negated = False
        while self._is("!"):
            negated = not negated
            self.at += 1
        commands = [self._command()]
        while self._is("|", "|&", kind="op"):
            self.at += 1
            while self._is("\n", kind="op"):
                self.at += 1
            commands.append(self._command())
        return ("pipe", negated, commands)

    def _command(self) -> Node:
        self.depth += 1
        node = self._any_command() if self.depth <= 2 * MAX_DEPTH else ("simple", [], [], [])
        self.depth -= 1
        return node

    def _any_command(self) -> Node:
        token = self._peek()
        node: Node | None = None
        if token.kind == "op" and token.text == "(":
            self.at += 1
            if self._is("(", kind="op"):  # (( arithmetic ))
                level, texts = 1, []
                self.at += 1
                while level and self._peek().kind != "end":
                    level += {"(": 1, ")": -1}.get(self._peek().text, 0) if self._peek().kind == "op" else 0
                    texts.append(self._peek().text)
                    self.at += 1
                if self._is(")", kind="op"):
                    self.at += 1
                return ("arithmetic", "".join(texts[:-1]))
            body = self._list(())
            if self._is(")", kind="op"):
                self.at += 1
            node = ("sub", body)
        elif token.kind == "word":
            node = self._compound(token.text)
        if node is not None:
            self._redirections()
            return node
        return self._simple()

    def _compound(self, word: str) -> Node | None:
        if word == "{":
            self.at += 1
            body = self._list(("}",))
            self._skip_to("}")
            return ("group", body)
        if word == "if":
            return self._if()
        if word in ("while", "until"):
            self.at += 1
            condition = self._list(("do",))
            return ("loop", word, "", [], condition, self._body())
        if word in ("for", "select"):
            return self._for()
        if word == "case":
            return self._case()
        if word == "[[":
            self.at += 1
            words: list[str] = []
            while self._peek().kind != "end" and not self._is("]]") and not self._is("\n", kind="op"):
                words.append(self._peek().text)
                self.at += 1
            self._skip_to("]]")
            return ("test", words)
        if word == "function" and self._peek(1).kind == "word":
            name = self._peek(1).text
            self.at += 2
            if self._is("(", kind="op"):
                self.at += 2
            self._newlines()
            return ("function", name, self._command())
        if self._peek(1).text == "(" and self._peek(2).text == ")" and self._peek(1).kind == "op":
            self.at += 3
            self._newlines()
            return ("function", word, self._command())
        return None

    def _body(self) -> list[Node]:
        self._newlines()
        self._skip_to("do")
        body = self._list(("done",))
        self._skip_to("done")
        return body

    def _if(self) -> Node:
        branches: list[tuple[list[Node], list[Node]]] = []
        otherwise: list[Node] | None = None
        while self._is("if", "elif"):
            self.at += 1
            condition = self._list(("then",))
            self._skip_to("then")
            branches.append((condition, self._list(("elif", "else", "fi"))))
        if self._is("else"):
            self.at += 1
            otherwise = self._list(("fi",))
        self._skip_to("fi")
        return ("if", branches, otherwise)

    def _for(self) -> Node:
        self.at += 1
        if self._is("(", kind="op"):  # for ((i=0; …; …))
            level = 0
            while self._peek().kind != "end":
                if self._peek().kind == "op":
                    level += {"(": 1, ")": -1}.get(self._peek().text, 0)
                self.at += 1
                if level <= 0:
                    break
            return ("loop", "for", "", None, [], self._body())
        name = self._peek().text
        self.at += 1
        self._newlines()
        items: list[str] | None = None
        if self._is("in"):
            self.at += 1
            items = []
            while self._peek().kind == "word":
                items.append(self._peek().text)
                self.at += 1
        return ("loop", "for", name, items, [], self._body())

    def _case(self) -> Node:
        self.at += 1
        subject = self._peek().text
        self.at += 1
        self._newlines()
        self._skip_to("in")
        arms: list[tuple[list[str], list[Node]]] = []
        while True:
            self._newlines()
            if self._peek().kind == "end" or self._is("esac"):
                break
            if self._is("(", kind="op"):
                self.at += 1
            patterns: list[str] = []
            while self._peek().kind != "end" and not self._is(")", kind="op"):
                if self._peek().kind == "word":
                    patterns.append(self._peek().text)
                self.at += 1
            self.at += 1
            arms.append((patterns, self._list(("esac",))))
            if self._is(";;", ";;&", ";&", kind="op") or self._is(")", kind="op"):
                self.at += 1
        self._skip_to("esac")
        return ("case", subject, arms)

    def _redirections(self) -> list[tuple[str, str, str]]:
        out: list[tuple[str, str, str]] = []
        while (self._peek().kind == "op" and self._peek().text[0] in "<>") or self._is("&>", "&>>", kind="op"):
            operator = self._peek().text
            self.at += 1
            target = self._peek()
            if target.kind == "word":
                out.append((operator, target.text, target.body))
                self.at += 1
        return out

    def _simple(self) -> Node:
        assignments: list[str] = []
        words: list[str] = []
        redirections: list[tuple[str, str, str]] = []
        while True:
            redirections += self._redirections()
            token = self._peek()
            if token.kind != "word":
                break
            if not words and token.text in _RESERVED and not assignments:
                break
            self.at += 1
            if not words and ASSIGNMENT.match(token.text):
                assignments.append(token.text)
            else:
                words.append(token.text)
        return ("simple", assignments, words, redirections)
