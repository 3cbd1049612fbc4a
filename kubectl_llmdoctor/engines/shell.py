"""A reader of shell scripts: which programs would `sh -c SCRIPT` start, with which words.

Nothing is executed. The grammar is POSIX's (XCU chapter 2) with what bash adds and start scripts use: arrays, `[[`,
`+=`. A value that cannot be known here (`$(nproc)`, a variable from a Secret or from the image) stands in the text as
an unknown part between NUL characters; a branch that cannot be decided is read, and what it changes becomes unknown.
Everything is bounded, so that no input takes long or ends in an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from msgspec.structs import replace

from .argv import LOGINS, MAX_TEXT, SHELLS, WRAPPERS, Command, Stray, Word, basename, open_references, unknown
from .expansion import MAX_WORDS, Value, known
from .grammar import ASSIGNMENT, MAX_DEPTH, Lexer, Node, Parser, unquote
from .launch import EnvVar
from .texts import TOOLS, Texts

_MAX_STEPS = 5_000  # commands of one container

_DECLARE = frozenset({"export", "declare", "typeset", "local", "readonly"})


class Shell(Texts):
    """Walks a script with what is known of its variables and collects the programs that it would start."""

    def __init__(self, env: Mapping[str, EnvVar], files: Mapping[str, str]) -> None:
        super().__init__(env, files)
        self.functions: dict[str, Node] = {}
        self.commands: list[Command] = []
        self.strays: list[Stray] = []
        self.sure = True
        self.scripted = False
        self.steps = 0
        self.tested = False  # whether the last status came from a test

    # -- programs

    def start(self, words: list[Word], env: Mapping[str, EnvVar] | None = None) -> None:
        """What happens when these words are executed: a shell with a script, a mounted script, or a program."""
        self.steps += 1
        if not words or self.steps > _MAX_STEPS:
            return
        shell = self._shell_index(words)
        outer = self.variables, self.env
        if env is not None and env is not self.env:  # A=b in front of the command: for it alone
            changed = {name: item for name, item in env.items() if item is not self.env.get(name)}
            self.env = dict(env)
            self.variables = {**self.variables, **{name: known(item) for name, item in changed.items()}}
        started = False
        login = self._login_script(words) if basename(words[0].text) in LOGINS else None
        if login is not None and self.depth < MAX_DEPTH:
            self._script(login.text, login.path, "sh", [])
            started = True
        elif shell is not None and self.depth < MAX_DEPTH:
            started = self._run_shell(words[shell:])
        elif (script := self.file(words[0].text)) is not None and self.depth < MAX_DEPTH:
            self._script(script, self.file_path(words[0].text), words[0].text, words[1:])
            started = True
        self.variables, self.env = outer
        if started:
            return
        if len(self.commands) < _MAX_STEPS:
            words = [replace(word, text=open_references(word.text)) for word in words]
            self.commands.append(
                Command(tuple(words), dict(self.env if env is None else env), self.sure, self.scripted)
            )

    @staticmethod
    def _login_script(words: list[Word]) -> Word | None:
        """What follows `-c` of `su` and `runuser`, before or after the user's name."""
        options = [word.text for word in words[1:24]]
        at = next((i for i, text in enumerate(options, 1) if text in ("-c", "-lc", "--command")), len(words))
        return words[at + 1] if at + 1 < len(words) else None

    @staticmethod
    def _shell_index(words: list[Word]) -> int | None:
        for index, word in enumerate(words[:24]):
            name = basename(word.text)
            if name in SHELLS:
                if name == "busybox":
                    return index + 1 if len(words) > index + 1 and words[index + 1].text in SHELLS else None
                return index
            if index == 0 and name not in WRAPPERS:
                return None
        return None

    def _run_shell(self, words: list[Word]) -> bool:
        """`sh -c SCRIPT name args…` or `sh FILE args…`; False where the script cannot be seen."""
        at, inline = 1, False
        while at < len(words) and words[at].text[:1] in ("-", "+") and len(words[at].text) > 1:
            option = words[at].text
            at += 1
            if option == "--":
                break
            if option.startswith("--"):
                continue
            inline = inline or "c" in option[1:]
            if "o" in option[1:]:  # -o pipefail
                at += 1
        if at >= len(words):
            return False
        script, rest = words[at], words[at + 1 :]
        if inline:
            if rest and rest[0].text.startswith("-") and rest[0].text != "--" and not _uses_parameters(script.text):
                self.strays.append(Stray(tuple(rest)))
            elif len(rest) > 1 and rest[1].text.startswith("-") and not _uses_parameters(script.text):
                self.strays.append(Stray(tuple(rest[1:])))
            self._script(script.text, script.path, rest[0].text if rest else words[0].text, rest[1:])
            return True
        text = self.file(script.text)
        if text is None:
            return False
        self._script(text, self.file_path(script.text), script.text, rest)
        return True

    def _script(self, text: str, path: str, arg0: str, params: list[Word], inherit: bool = False) -> None:
        """Runs a script in a shell of its own (`inherit`: in this one, as `eval` and `source` do)."""
        saved = (self.params, self.arg0, self.path, self.scripted)
        # files written by the script stay
        state = None if inherit else (dict(self.variables), dict(self.env), dict(self.functions), self.stopped)
        self.params, self.arg0, self.path, self.scripted = list(params), arg0, path, True
        self.depth += 1
        self.lists(Parser(text[:MAX_TEXT]).parse())
        self.depth -= 1
        self.params, self.arg0, self.path, self.scripted = saved
        if state is not None:
            self.variables, self.env, self.functions, self.stopped = state

    def printed_by(self, script: str) -> str | None:
        """What the commands within `$(…)` print, which change nothing outside of it; None where that is not known."""
        state = self.variables, self.env, self.functions, self.files, self.stopped, self.sure, self.tested
        streams = self.captured, self.stdin, self.piping, self.output
        self.variables, self.env, self.functions = dict(self.variables), dict(self.env), dict(self.functions)
        self.files, self.captured, self.stdin, self.piping = dict(self.files), [], None, False
        count = len(self.commands)
        self.lists(Parser(script[:MAX_TEXT]).parse())
        texts = self.captured
        del self.commands[count:]  # what it starts serves nothing
        self.variables, self.env, self.functions, self.files, self.stopped, self.sure, self.tested = state
        self.captured, self.stdin, self.piping, self.output = streams
        return None if not texts or None in texts else "".join(text for text in texts if text is not None)

    # -- control flow

    def lists(self, nodes: list[Node]) -> bool | None:
        """Runs a list; the status of its last command, None where it is not known."""
        status: bool | None = True
        for node in nodes:
            if self.stopped or self.steps > _MAX_STEPS:
                break
            status = self._and_or(node[1])
        return status

    def _and_or(self, steps: list[tuple[str, Node]]) -> bool | None:
        status: bool | None = True
        for operator, node in steps:
            if self.stopped:
                break
            if (operator, status) in (("&&", False), ("||", True)):
                continue
            # a program is taken to succeed; a test that cannot be decided leaves both ways open
            if operator and status is None and (operator == "||" or self.tested):
                self._maybe([partial(self._pipe, node)])
                status = None
            else:
                status = self._pipe(node)
        return status

    def _pipe(self, node: Node) -> bool | None:
        _, negated, commands = node
        status: bool | None = None
        outer = self.stdin, self.piping
        for index, command in enumerate(commands):
            self.output = None
            self.piping = outer[1] or index + 1 < len(commands)
            status = self._node(command)
            self.stdin = self.output
        self.stdin, self.piping = outer
        if len(commands) > 1:
            self.stopped = False  # exec and exit end only their own part of a pipe
            status = None
        return None if status is None else status != negated

    def _maybe(self, branches: list[Callable[[], Any]], complete: bool = False) -> None:
        """Reads branches of which one is taken (or none, unless `complete`); what they change becomes unknown."""
        if self.captured is not None:
            self.captured.append(None)
        before, sure, env = self.variables, self.sure, self.env
        outcomes: list[dict[str, Value]] = [] if complete else [before]
        self.sure = False
        for branch in branches:
            self.variables, self.env = dict(before), dict(env)
            branch()
            if not self.stopped:
                outcomes.append(self.variables)
            self.stopped = False
        self.sure = sure
        self.env = env
        self.variables = before
        if len(outcomes) < 2:
            self.variables = outcomes[0] if outcomes else before
            return
        for name in {name for outcome in outcomes for name in outcome}:
            values = [outcome.get(name, "") for outcome in outcomes]
            if any(value != values[0] for value in values):
                before[name] = _merge(name, values)

    def _node(self, node: Node) -> bool | None:
        self.steps += 1
        self.tested = False
        if self.depth > MAX_DEPTH or self.steps > _MAX_STEPS:
            return None
        self.depth += 1
        try:
            return self._kinds(node)
        finally:
            self.depth -= 1

    def _kinds(self, node: Node) -> bool | None:
        kind = node[0]
        if kind == "simple":
            return self._simple(node)
        if kind == "test":
            self.tested = True
            return self._test(node[1], double=True)
        if kind == "arithmetic":
            self.tested = True
            return self._compare(node[1])
        if kind == "group":
            return self.lists(node[1])
        if kind == "sub":
            state = dict(self.variables), dict(self.env)
            status = self.lists(node[1])
            self.variables, self.env = state
            self.stopped = False
            return status
        if kind == "function":
            self.functions[node[1]] = node[2]
            return True
        if kind == "if":
            return self._if(node)
        if kind == "case":
            return self._case(node)
        return self._loop(node)

    def _if(self, node: Node) -> bool | None:
        _, branches, otherwise = node
        open_branches: list[Callable[[], Any]] = []
        for condition, body in branches:
            status = self.lists(condition)
            if status is True:
                if not open_branches:
                    return self.lists(body)
                open_branches.append(partial(self.lists, body))
                self._maybe(open_branches, complete=True)
                return None
            if status is None:
                open_branches.append(partial(self.lists, body))
        if not open_branches:
            return self.lists(otherwise) if otherwise else True
        if otherwise is not None:
            open_branches.append(partial(self.lists, otherwise))
        self._maybe(open_branches, complete=otherwise is not None)
        return None

    def _case(self, node: Node) -> bool | None:
        from fnmatch import fnmatchcase

        _, subject, arms = node
        value = self.single(subject)
        if "\0" in value or len(value) > 500:
            self._maybe([partial(self.lists, body) for _, body in arms])
            return None
        for patterns, body in arms:
            for pattern in patterns:
                text = self.single(pattern)
                if len(text) < 100 and fnmatchcase(value, text):
                    return self.lists(body)
        return True

    def _loop(self, node: Node) -> bool | None:
        _, kind, name, items, condition, body = node
        if kind == "for":
            words = self.params if items is None else [word for item in items for word in self.fields(item)]
            if name and items is not None and len(words) <= 16 and all(word.known for word in words):
                for word in words:
                    self.variables[name] = word.text
                    self.lists(body)
                return None
            if name:
                self.variables[name] = unknown(f"${{{name}}}")
            self._maybe([lambda: self.lists(body)])
            return None
        status = self.lists(condition)
        if status is (kind == "while"):
            self.lists(body)
        elif status is None:
            self._maybe([lambda: self.lists(body)])
        return None

    # -- simple commands

    def _simple(self, node: Node) -> bool | None:
        _, assignments, raws, redirections = node
        if raws and raws[0] in _DECLARE:
            for raw in raws[1:]:
                self._declare(raw, exported=raws[0] == "export" or "-x" in raws)
            return True
        words = [word for raw in raws for word in self.fields(raw)]
        if not words:
            for raw in assignments:
                self._assign(raw)
            return True
        env = self.env
        if assignments:
            env = dict(env)
            for raw in assignments:
                name, value = self._assignment_value(raw)
                env[name] = self._variable(name, value)
        return self._program(words, raws, env, redirections)

    def _program(
        self, words: list[Word], raws: list[str], env: Mapping[str, EnvVar], redirections: list[tuple[str, str, str]]
    ) -> bool | None:
        name = words[0].text
        if name in _BUILTINS:
            return _BUILTINS[name](self, words, raws, env)
        if name in self.functions:
            saved, self.params = self.params, words[1:]
            self._node(self.functions[name])
            self.params = saved
            if self.sure:
                self.stopped = False
            return None
        produced = basename(name) in TOOLS
        self.output = (
            self.printed(basename(name), [word.text for word in words[1:]], redirections) if produced else None
        )
        self.redirect(redirections)
        self.start(words, env)
        return True if self.output is not None else None

    # -- builtins: the words, the same before their expansion, and the environment -> the status

    def _true(self, _words: list[Word], _raws: list[str], _env: Mapping[str, EnvVar]) -> bool:
        return True

    def _false(self, _words: list[Word], _raws: list[str], _env: Mapping[str, EnvVar]) -> bool:
        return False

    def _tests(self, words: list[Word], raws: list[str], _env: Mapping[str, EnvVar]) -> bool | None:
        self.tested = True
        end = -1 if words[0].text == "[" and raws[-1] == "]" else len(raws)
        return self._test(raws[1:end], double=False)

    def _exit(self, _words: list[Word], _raws: list[str], _env: Mapping[str, EnvVar]) -> None:
        self.stopped = True

    def _exec(self, words: list[Word], _raws: list[str], env: Mapping[str, EnvVar]) -> None:
        rest = words[1:]
        while rest and rest[0].text in ("-c", "-l", "-cl", "-a", "--"):  # exec's own options
            rest = rest[2:] if rest[0].text == "-a" else rest[1:]
        if rest:
            self.start(rest, env)
            self.stopped = True

    def _set(self, _words: list[Word], raws: list[str], _env: Mapping[str, EnvVar]) -> bool:
        if "--" in raws:
            self.params = [word for raw in raws[raws.index("--") + 1 :] for word in self.fields(raw)]
        return True

    def _shift(self, words: list[Word], _raws: list[str], _env: Mapping[str, EnvVar]) -> bool:
        count = words[1].text if len(words) > 1 else "1"
        self.params = self.params[int(count) if count.isdecimal() and len(count) < 4 else 1 :]
        return True

    def _eval(self, words: list[Word], _raws: list[str], _env: Mapping[str, EnvVar]) -> None:
        self._script(" ".join(word.text for word in words[1:]), self.path, self.arg0, self.params, inherit=True)

    def _source(self, words: list[Word], _raws: list[str], _env: Mapping[str, EnvVar]) -> None:
        text = self.file(words[1].text) if len(words) > 1 else None
        if text is not None and self.depth < MAX_DEPTH:
            path = self.file_path(words[1].text)
            self._script(text, path, self.arg0, words[2:] or self.params, inherit=True)

    def _read(self, words: list[Word], _raws: list[str], _env: Mapping[str, EnvVar]) -> None:
        for word in words[1:]:
            if word.text.isidentifier():
                self.variables[word.text] = unknown(f"${{{word.text}}}")

    def _unset(self, words: list[Word], _raws: list[str], _env: Mapping[str, EnvVar]) -> bool:
        for word in words[1:]:
            self.variables.pop(word.text, None)
            self.env.pop(word.text, None)
        return True

    def _compare(self, expression: str) -> bool | None:
        """`(( a > b ))`: True, False, or None where it is not known or does more than compare."""
        for operator in ("<=", ">=", "==", "!=", "<", ">"):
            left, found, right = expression.partition(operator)
            if found:
                sides = [self.arithmetic(side, side) for side in (left, right)]
                named = {"<=": "-le", ">=": "-ge", "==": "-eq", "!=": "-ne", "<": "-lt", ">": "-gt"}[operator]
                return _binary(sides[0], named, sides[1], double=True)
        return None

    def _declare(self, raw: str, exported: bool) -> None:
        if raw.startswith("-"):
            return
        if ASSIGNMENT.match(raw):
            name, value = self._assign(raw)
        else:
            name = unquote(raw)
            value = self.variables.get(name, "")
        if exported and name.isidentifier() and (name in self.variables):
            self.env[name] = self._variable(name, value)

    def _variable(self, name: str, value: Value) -> EnvVar:
        text = value if isinstance(value, str) else " ".join(value)
        return EnvVar(name=name, value=None if "\0" in text else text, origin="script", path=self.path or "script")

    def _assignment_value(self, raw: str) -> tuple[str, Value]:
        match = ASSIGNMENT.match(raw)
        if match is None:  # not reached: callers have matched it
            return raw, ""
        name, rest = match[1], raw[match.end() :]
        value: Value
        if rest.startswith("(") and rest.endswith(")"):
            tokens = Lexer(rest[1:-1]).run()
            value = [word.text for token in tokens if token.kind == "word" for word in self.fields(token.text)]
        else:
            value = self.single(rest)
        if match[3]:
            old = self.variables.get(name, "")
            if isinstance(value, list):
                value = ([old] if isinstance(old, str) and old else list(old)) + value
            elif isinstance(old, list):
                value = [*old, value]
            else:
                value = old + value
        if isinstance(value, str):
            return name, value[:MAX_TEXT]
        return name, value[:MAX_WORDS]

    def _assign(self, raw: str) -> tuple[str, Value]:
        name, value = self._assignment_value(raw)
        self.variables[name] = value
        if name in self.env:
            self.env[name] = self._variable(name, value)
        return name, value

    # -- tests

    def _test(self, raws: list[str], double: bool) -> bool | None:
        """`[ … ]` and `[[ … ]]`: True, False, or None where an operand is unknown."""
        if len(raws) > 60:
            return None
        for joint, decisive in (("||", True), ("-o", True), ("&&", False), ("-a", False)):
            if joint in raws:
                at = raws.index(joint)
                left, right = self._test(raws[:at], double), self._test(raws[at + 1 :], double)
                if left is decisive or right is decisive:
                    return decisive
                return None if left is None or right is None else not decisive
        if raws[:1] == ["!"]:
            inner = self._test(raws[1:], double)
            return None if inner is None else not inner
        if double:
            words = [self.single(raw) for raw in raws]
        else:
            words = [word.text for raw in raws for word in self.fields(raw)]
        if len(words) == 1:
            return None if "\0" in words[0] else bool(words[0])
        if len(words) == 2:
            return self._unary(words[0], words[1])
        if len(words) == 3:
            return _binary(words[0], words[1], words[2], double)
        return None if words else False

    def _unary(self, operator: str, value: str) -> bool | None:
        if "\0" in value:
            return None
        if operator == "-n":
            return bool(value)
        if operator == "-z":
            return not value
        if operator == "-v":
            return True if value in self.variables else None
        if operator in ("-f", "-e", "-r", "-s") and value in self.files:
            return True
        return None


_BUILTINS: dict[str, Callable[[Shell, list[Word], list[str], Mapping[str, EnvVar]], bool | None]] = {
    ":": Shell._true,
    "true": Shell._true,
    "false": Shell._false,
    "[": Shell._tests,
    "test": Shell._tests,
    "exit": Shell._exit,
    "return": Shell._exit,
    "exec": Shell._exec,
    "set": Shell._set,
    "shift": Shell._shift,
    "eval": Shell._eval,
    ".": Shell._source,
    "source": Shell._source,
    "read": Shell._read,
    "mapfile": Shell._read,
    "readarray": Shell._read,
    "unset": Shell._unset,
}


def _uses_parameters(script: str) -> bool:
    return any(mark in script for mark in ("$@", "$*", "${@", "${*", "$0", "$1", "${0", "${1", "$#", "shift"))


def _merge(name: str, values: list[Value]) -> Value:
    """One value for several possible ones: what they begin with in common, then unknown."""
    mark = unknown(f"${{{name}}}")
    lists = [value for value in values if isinstance(value, list)]
    if lists:
        if len(lists) < len(values) and any(isinstance(value, str) and value for value in values):
            return [mark]
        shortest = min((value if isinstance(value, list) else [] for value in values), key=len)
        common: list[str] = []
        for items in zip(*(value if isinstance(value, list) else [] for value in values), strict=False):
            if any(item != items[0] for item in items):
                break
            common.append(items[0])
        return [*common[: len(shortest)], mark]
    texts = [value for value in values if isinstance(value, str)]
    first = min(texts, key=len)
    if all(text.startswith(first) for text in texts) and first and first.count("\0") % 2 == 0:
        # appended to (`ARGS="$ARGS --x"`): what stood there before stands in any case
        return f"{first} {mark}" if len(first) < MAX_TEXT else first
    return mark


def _binary(left: str, operator: str, right: str, double: bool) -> bool | None:
    from fnmatch import fnmatchcase

    if "\0" in left or "\0" in right:
        return None
    if operator in ("=", "==", "!="):
        short = len(left) < 500 and len(right) < 100
        equal = fnmatchcase(left, right) if double and short and any(c in right for c in "*?[") else left == right
        return equal if operator != "!=" else not equal
    numbers = []
    for text in (left, right):
        if not text.strip().lstrip("-").isdecimal() or len(text) > 18:
            return None
        try:
            numbers.append(int(text))
        except ValueError:
            return None
    a, b = numbers
    known = {"-eq": a == b, "-ne": a != b, "-lt": a < b, "-le": a <= b, "-gt": a > b, "-ge": a >= b}
    return known.get(operator)
