"""The texts that a start script makes: what its small tools print, the files that it writes and reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .argv import MAX_TEXT, basename, unknown
from .expansion import Expansion
from .launch import EnvVar

#: Programs that print or write texts that can be known.
TOOLS = frozenset({"echo", "printf", "cat", "envsubst", "tee", "sed", "cp", "mv"})


class Texts(Expansion):
    """A shell's files, and what flows between its commands; files by path."""

    def __init__(self, env: Mapping[str, EnvVar], files: Mapping[str, str]) -> None:
        super().__init__(env)
        self.files = dict(files)
        self.stdin: str | None = None  # what the pipe before gives, None where that is not known
        self.output: str | None = None  # what the last command prints, likewise
        self.captured: list[str | None] | None = None  # what a `$(…)` has printed so far
        self.piping = False  # whether the output goes into a pipe

    def file_path(self, name: str) -> str:
        """The path under which a file is known, if only by its end; empty where it is not."""
        if name in self.files:
            return name
        tail = "/" + name.removeprefix("./")
        found = [path for path in self.files if path.endswith(tail)]
        return found[0] if len(found) == 1 and "\0" not in name and name else ""

    def file(self, name: str) -> str | None:
        """What a file holds; None where that is not known."""
        return self.files.get(self.file_path(name))

    def printed(self, name: str, args: list[str], redirections: list[tuple[str, str, str]]) -> str | None:
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
            texts = [self.file(file) for file in files]
            return None if None in texts else "".join(text for text in texts if text is not None)
        for operator, target, body in redirections:
            if operator in ("<<", "<<-"):
                quoted = "'" in target or '"' in target or "\\" in target
                return body if quoted else self.double_quoted(body)
            if operator == "<":
                return self.file(self.single(target))
            if operator == "<<<":
                return self.single(target) + "\n"
        return self.stdin

    def redirect(self, redirections: list[tuple[str, str, str]]) -> None:
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
        path = self.file_path(file) or file
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
            text = self.file(source)
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
            self._store(file, _sed(self.file(file), scripts), append=False)
        return ""


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
