"""A reader of shell scripts: which programs would `sh -c SCRIPT` start, with which words.

Nothing is executed. The grammar is POSIX's (XCU chapter 2) with what bash adds and start scripts use: arrays, `[[`,
`+=`. A value that cannot be known here (`$(nproc)`, a variable from a Secret or from the image) stands in the text as
an unknown part between NUL characters; a branch that cannot be decided is read, and what it changes becomes unknown.
Everything is bounded, so that no input takes long or ends in an error.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from re import Pattern
from typing import Any

from .argv import MAX_TEXT, SHELLS, Command, Stray, Word, basename, open_references, unknown
from .grammar import MAX_DEPTH, Lexer, Node, Parser, assignment, skip_part, unquote
from .launch import EnvVar

_MAX_WORDS = 4_000  # words of one expansion
_MAX_WORK = 4_000_000  # characters that all expansions of one container may give
_MAX_STEPS = 5_000  # commands of one container

_DECLARE = frozenset({"export", "declare", "typeset", "local", "readonly"})


@functools.cache
def _identifier() -> Pattern[str]:
    import re

    return re.compile(r"[A-Za-z_]\w*|\d+|[@*#?$!-]", re.ASCII)


Value = str | list[str]


class Shell:
    """Walks a script with what is known of its variables and collects the programs that it would start."""

    def __init__(self, env: Mapping[str, EnvVar], files: Mapping[str, str]) -> None:
        self.variables: dict[str, Value] = {name: _known(variable) for name, variable in env.items()}
        self.env = dict(env)
        self.files = dict(files)
        self.functions: dict[str, Node] = {}
        self.params: list[Word] = []
        self.arg0 = "sh"
        self.path = ""
        self.commands: list[Command] = []
        self.strays: list[Stray] = []
        self.sure = True
        self.stopped = False
        self.scripted = False
        self.depth = 0
        self.steps = 0
        self.work = 0
        self.tested = False  # whether the last status came from a test
        self.stdin: str | None = None  # what the pipe before gives, None where that is not known
        self.output: str | None = None  # what the last command prints, likewise
        self.captured: list[str | None] | None = None  # what a `$(…)` has printed so far
        self.piping = False  # whether the output goes into a pipe

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
            self.variables = {**self.variables, **{name: _known(item) for name, item in changed.items()}}
        started = False
        if shell is not None and self.depth < MAX_DEPTH:
            started = self._run_shell(words[shell:])
        elif (script := self._file(words[0].text)) is not None and self.depth < MAX_DEPTH:
            self._script(script, self._file_path(words[0].text), words[0].text, words[1:])
            started = True
        self.variables, self.env = outer
        if started:
            return
        if len(self.commands) < _MAX_STEPS:
            words = [word._replace(text=open_references(word.text)) for word in words]
            self.commands.append(
                Command(tuple(words), dict(self.env if env is None else env), self.sure, self.scripted)
            )

    @staticmethod
    def _shell_index(words: list[Word]) -> int | None:
        from .recognise import WRAPPERS

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
        text = self._file(script.text)
        if text is None:
            return False
        self._script(text, self._file_path(script.text), script.text, rest)
        return True

    def _file_path(self, name: str) -> str:
        if name in self.files:
            return name
        tail = "/" + name.removeprefix("./")
        found = [path for path in self.files if path.endswith(tail)]
        return found[0] if len(found) == 1 and "\0" not in name and name else ""

    def _file(self, name: str) -> str | None:
        return self.files.get(self._file_path(name))

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
                self._maybe([lambda node=node: self._pipe(node)])  # type: ignore[misc]
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
                open_branches.append(lambda body=body: self.lists(body))  # type: ignore[misc]
                self._maybe(open_branches, complete=True)
                return None
            if status is None:
                open_branches.append(lambda body=body: self.lists(body))  # type: ignore[misc]
        if not open_branches:
            return self.lists(otherwise) if otherwise else True
        if otherwise is not None:
            open_branches.append(lambda: self.lists(otherwise))
        self._maybe(open_branches, complete=otherwise is not None)
        return None

    def _case(self, node: Node) -> bool | None:
        from fnmatch import fnmatchcase

        _, subject, arms = node
        value = self.single(subject)
        if "\0" in value or len(value) > 500:
            self._maybe([lambda body=body: self.lists(body) for _, body in arms])  # type: ignore[misc]
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
        if name in (":", "true"):
            return True
        if name == "false":
            return False
        if name in ("[", "test"):
            self.tested = True
            end = -1 if name == "[" and raws[-1] == "]" else len(raws)
            return self._test(raws[1:end], double=False)
        if name in ("exit", "return"):
            self.stopped = True
            return None
        if name == "exec":
            rest = words[1:]
            while rest and rest[0].text in ("-c", "-l", "-cl", "-a", "--"):  # exec's own options
                rest = rest[2:] if rest[0].text == "-a" else rest[1:]
            if rest:
                self.start(rest, env)
                self.stopped = True
            return None
        if name in self.functions:
            saved, self.params = self.params, words[1:]
            self._node(self.functions[name])
            self.params = saved
            if self.sure:
                self.stopped = False
            return None
        if name == "set":
            if "--" in raws:
                self.params = [word for raw in raws[raws.index("--") + 1 :] for word in self.fields(raw)]
            return True
        if name == "shift":
            count = words[1].text if len(words) > 1 else "1"
            self.params = self.params[int(count) if count.isdecimal() and len(count) < 4 else 1 :]
            return True
        if name == "eval":
            self._script(" ".join(word.text for word in words[1:]), self.path, self.arg0, self.params, inherit=True)
            return None
        if name in (".", "source"):
            text = self._file(words[1].text) if len(words) > 1 else None
            if text is not None and self.depth < MAX_DEPTH:
                path = self._file_path(words[1].text)
                self._script(text, path, self.arg0, words[2:] or self.params, inherit=True)
            return None
        if name in ("read", "mapfile", "readarray"):
            for word in words[1:]:
                if word.text.isidentifier():
                    self.variables[word.text] = unknown(f"${{{word.text}}}")
            return None
        if name == "unset":
            for word in words[1:]:
                self.variables.pop(word.text, None)
                self.env.pop(word.text, None)
            return True
        produced = basename(name) in _TOOLS
        self.output = self._tool(basename(name), [word.text for word in words[1:]], redirections) if produced else None
        self._redirect(redirections)
        self.start(words, env)
        return True if self.output is not None else None

    # -- texts: what a script prints, writes into files and reads from them

    def _tool(self, name: str, args: list[str], redirections: list[tuple[str, str, str]]) -> str | None:
        """What one of the small tools prints, and the files that it writes; None for what is not known."""
        if name == "echo":
            newline = "\n"
            while args[:1] and args[0] in ("-n", "-e", "-ne", "-en"):
                newline = "" if "n" in args[0] else newline
                args = args[1:]
            return " ".join(args) + newline
        if name == "printf":
            return _printf(args)
        files = [arg for arg in args if not arg.startswith("-")]
        if name == "cat":
            return self._input(files, redirections)
        if name == "envsubst":
            text = self._input([], redirections)
            return None if text is None else self._substituted_variables(text)
        if name == "tee":
            text = self._input([], redirections)
            for file in files:
                self._store(file, text, append="-a" in args)
            return text
        if name in ("cp", "mv"):
            self._copy(files)
            return ""
        return self._sed(args, redirections)

    def _input(self, files: list[str], redirections: list[tuple[str, str, str]]) -> str | None:
        """What a tool reads: its files, else what is redirected to it, else the pipe."""
        if files:
            texts = [self._file(file) for file in files]
            return None if None in texts else "".join(text for text in texts if text is not None)
        for operator, target, body in redirections:
            if operator in ("<<", "<<-"):
                quoted = "'" in target or '"' in target or "\\" in target
                return body if quoted else self._double(body)
            if operator == "<":
                return self._file(self.single(target))
            if operator == "<<<":
                return self.single(target) + "\n"
        return self.stdin

    def _redirect(self, redirections: list[tuple[str, str, str]]) -> None:
        """Writes the output of a command where it is redirected to; what is not known makes the file unknown."""
        written = False
        for operator, target, _ in redirections:
            if operator not in (">", ">|", ">>", "&>", "&>>"):
                continue
            file = self.single(target)
            written = True
            if not file.startswith("/dev/"):
                self._store(file, self.output, append=operator in (">>", "&>>"))
        if self.captured is not None and not written and not self.piping:
            self.captured.append(self.output)

    def _store(self, file: str, text: str | None, append: bool) -> None:
        path = self._file_path(file) or file
        if text is None or len(self.files) > 200:
            self.files.pop(path, None)
        else:
            self.files[path] = ((self.files.get(path, "") if append else "") + text)[:MAX_TEXT]

    def _copy(self, files: list[str]) -> None:
        """`cp A B`, `cp -r DIR/. DIR2`: the text is known in the other place too."""
        if len(files) < 2:
            return
        *sources, target = files
        for source in sources:
            text = self._file(source)
            if text is not None:
                into = target.endswith("/") or len(sources) > 1
                self._store(f"{target.rstrip('/')}/{basename(source)}" if into else target, text, append=False)
                continue
            folder = source.removesuffix("/.").removesuffix("/*").rstrip("/") + "/"
            for path in [path for path in self.files if path.startswith(folder)][:50]:
                self._store(f"{target.rstrip('/')}/{path[len(folder) :]}", self.files[path], append=False)

    def _substituted_variables(self, text: str) -> str:
        """`envsubst`: variables of the environment; one that is not known here stays unknown."""
        import re

        def one(match: Any) -> str:
            found = self.env.get(match[1] or match[2])
            return unknown(match[0]) if found is None or found.value is None else found.value

        return re.sub(r"\$\{([A-Za-z_]\w*)\}|\$([A-Za-z_]\w*)", one, text, flags=re.ASCII)[:MAX_TEXT]

    def _sed(self, args: list[str], redirections: list[tuple[str, str, str]]) -> str | None:
        """`sed s/a/b/` with plain patterns; a file that another script changes in place is no longer known."""
        inplace = False
        scripts: list[str] = []
        files: list[str] = []
        words = iter(args)
        for word in words:
            if word in ("-e", "--expression"):
                scripts.append(next(words, ""))
            elif word.startswith("-"):
                inplace = inplace or word.startswith(("-i", "--in-place"))
            elif scripts or files:
                files.append(word)
            else:
                scripts.append(word)
        if not inplace:
            return _sed(self._input(files, redirections), scripts)
        for file in files:
            self._store(file, _sed(self._file(file), scripts), append=False)
        return ""

    def _compare(self, expression: str) -> bool | None:
        """`(( a > b ))`: True, False, or None where it is not known or does more than compare."""
        for operator in ("<=", ">=", "==", "!=", "<", ">"):
            left, found, right = expression.partition(operator)
            if found:
                sides = [self._arithmetic(side, side) for side in (left, right)]
                named = {"<=": "-le", ">=": "-ge", "==": "-eq", "!=": "-ne", "<": "-lt", ">": "-gt"}[operator]
                return _binary(sides[0], named, sides[1], double=True)
        return None

    def _declare(self, raw: str, exported: bool) -> None:
        if raw.startswith("-"):
            return
        if assignment().match(raw):
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
        match = assignment().match(raw)
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
        return name, value[:_MAX_WORDS]

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

    # -- expansion

    def single(self, raw: str) -> str:
        """A word as one string, without splitting: the value of an assignment."""
        return " ".join(word.text for word in self.fields(raw, split=False))

    def _double(self, text: str) -> str:
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
        while at < len(raw) and len(state.done) < _MAX_WORDS:
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
            return self._command_substitution(raw[at + 1 : end - 1], raw[at:end]), end
        following = raw[at + 1 : at + 2]
        if following == "(":
            inner = raw[at + 2 : end - 1]
            if inner.startswith("(") and inner.endswith(")"):
                return self._arithmetic(inner[1:-1], raw[at:end]), end
            return self._command_substitution(inner, raw[at:end]), end
        if following == "{":
            return self._braces(raw[at + 2 : end - 1], raw[at:end]), end
        match = _identifier().match(raw, at + 1)
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
        match = _identifier().match(inner, 1 if length else 0)
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

    def _command_substitution(self, inner: str, raw: str) -> Value:
        state = self.variables, self.env, self.functions, self.files, self.stopped, self.sure, self.tested
        streams = self.captured, self.stdin, self.piping, self.output
        self.variables, self.env, self.functions = dict(self.variables), dict(self.env), dict(self.functions)
        self.files, self.captured, self.stdin, self.piping = dict(self.files), [], None, False
        count = len(self.commands)
        self.lists(Parser(inner[:MAX_TEXT]).parse())
        texts = self.captured
        del self.commands[count:]  # what it starts serves nothing
        self.variables, self.env, self.functions, self.files, self.stopped, self.sure, self.tested = state
        self.captured, self.stdin, self.piping, self.output = streams
        if not texts or None in texts:
            return unknown(raw)
        return "".join(text for text in texts if text is not None).rstrip("\n")

    def _arithmetic(self, expression: str, raw: str) -> str:
        out: list[str] = []
        at = 0
        while at < len(expression):
            if expression[at] == "$":
                value, at = self._substitution(expression, at)
                out.append(value if isinstance(value, str) else "?")
            elif (match := _identifier().match(expression, at)) and match[0].isidentifier():
                value = self.variables.get(match[0], "?")
                out.append(value if isinstance(value, str) else "?")
                at = match.end()
            else:
                out.append(expression[at])
                at += 1
        number = _calculate("".join(out))
        return unknown(raw) if number is None else str(number)


#: Programs that print or write texts that can be known.
_TOOLS = frozenset({"echo", "printf", "cat", "envsubst", "tee", "sed", "cp", "mv"})


def _printf(args: list[str]) -> str | None:
    """`printf FORMAT …` with nothing but `%s` in the format."""
    if not args:
        return None
    pieces = args[0].replace("\\n", "\n").replace("\\t", "\t").split("%s")
    if any("%" in piece for piece in pieces) or len(pieces) != len(args):
        return None
    return pieces[0] + "".join(value + piece for value, piece in zip(args[1:], pieces[1:], strict=True))


def _sed(text: str | None, scripts: list[str]) -> str | None:
    """Applies `s/old/new/g` with patterns without special characters."""
    import re

    if text is None or not scripts:
        return None
    for script in scripts:
        match = re.fullmatch(r"s(.)((?:(?!\1).){1,200})\1((?:(?!\1).){0,500})\1(g?)", script, re.DOTALL)
        if match is None or any(char in match[2] for char in "*[]^$\\\0+?()|{}") or any(c in match[3] for c in "\\&"):
            return None
        lines = text.split("\n")
        text = "\n".join(line.replace(match[2], match[3], -1 if match[4] else 1) for line in lines)
    return text[:MAX_TEXT]


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
            for number, item in enumerate(items[:_MAX_WORDS]):
                if number:
                    self.parted = True
                    self._close()
                self.add(item)
            if items and piece[-1:].isspace():
                self.parted = True
                self._close()

    def many(self, values: list[str], quoted: bool) -> None:
        """`"${A[@]}"`: one word for each."""
        for number, value in enumerate(values[:_MAX_WORDS]):
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


def _known(variable: EnvVar) -> str:
    """A variable's value, or an unknown part that shows its name."""
    return unknown(f"${{{variable.name}}}") if variable.value is None else variable.value


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
