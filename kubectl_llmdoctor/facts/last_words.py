"""What a program said last, in whatever language it is written: its last exception with what led to it, or its last statements."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.logs import Line, Log
from kubectl_llmdoctor.facts.processes import Traceback, last_traceback, looks_like_error

#: So many lines may a server still log of its own end below the exception of which it ends, and so many does the exception's own
#: message have.
_BELOW, _MESSAGE = 12, 4
#: Statements of a program without a traceback that count as its last, and lines at most among which they are looked for: the stacks
#: of a Go program's goroutines, or of a Java program's exceptions, stand below them.
_STATEMENTS, _LINES = 6, 400
#: What stands below or between last words and is none: frames of Java, Node.js, Go, Rust and .NET, what a shell or the runtime
#: adds to them (npm, pnpm, yarn, git and Erlang, too), the fields of an object that Node.js prints with an error, as it is or as
#: JSON, and blank lines.
_FRAME = expression(
    r"\s*$|\s+at |\s*\.\.\. \d+ more|\s*\^+\s*$|goroutine \d|\t/"
    r"|[\w./*-]{1,200}\.\S{1,100}\((?:\{?0x|\.\.\.|\)$)|created by |stack backtrace:|\s+\d+: 0x"
    r"|\s+\d+: [\w<]\S{0,300}::|note: |Node\.js v|exit status \d|\s*--- End of|Aborted\b|\[signal "
    r"|npm (?:notice|warn|WARN)\b|npm (?:error|ERR!)(?:$| (?:code|errno|path|command|workspace|location|Lifecycle|Exit|signal|A complete))"
    r"|\s{2,}(?!(?:err(?:or)?|message|msg|why|reason|cause)\b)[a-z_$][\w$]{0,60}: |\s{2,}\S.{0,300}[{\[]$|\s*[}\])]{1,3},?\s*$"
    r"|\s{2,}\"(?!(?:err(?:or)?|message|msg|why|reason|cause)\")[\w$.-]{1,60}\": |\s{2,}\"[^\"]{0,200}\",?\s*$|\s*[{\[]\s*$"
    r"|\s*ELIFECYCLE\b|error Command failed with exit code |info Visit http"
    r"|You can inspect what was checked out with 'git |and retry (?:the checkout )?with 'git |- /\S{1,300}\.[cm]?js$"
    r"|Crash dump (?:is being|was) written to: |Please make sure you have the correct access rights$|and the repository exists\.$"
)
#: An error that says only that the program ends, or does not come up.
_ONLY_ENDS = expression(
    r"(?i)\b(?:exit(?:s|ed|ing)?|abort(?:s|ed|ing)?|start-?up|shut(?:ting)? ?down|terminat\w{2,5}"
    r"|(?:not|to) (?:start|init\w{0,10}|load|run))\b"
    r"|\binitiali[sz]ation failed\W*$|\bfailed init\w{0,10}(?: [\w.]{1,60}){0,3}$|\[lib\] backend failed"
    r"|\bfailed with \[\d|create the Java Virtual Machine\b|from remote repository\b"
)
#: What only announces what stands below it, and so many lines of that.
_HEADING, _ANNOUNCED = expression(r"\s*\w{1,20}:\s*$"), 6


def last_words(log: Log) -> frozenset[int]:
    """The lines that a program said last."""
    return log.once("last words", lambda: frozenset(line.number for line in _last_words(log)))


def contradicted(line: Line, repeats: Callable[[Line], bool] = lambda _: False) -> bool:
    """Whether a program, which ended without an exception, says of another error after a line of its last words; what only
    `repeats` that line is none."""
    if _raised_last(line.log) is not None:
        return False
    after = line.log.lines(line.number + 1)
    last = last_words(line.log)
    others = (x for x in after if x.number in last and looks_like_error(x.text) and not repeats(x))
    return any(not _ONLY_ENDS.search(x.text[:500]) and not _only_announces(x, line) for x in others)


def _only_announces(other: Line, line: Line) -> bool:
    """Whether an error has only a colon at its end, and below it the line again, or a heading nothing."""
    if not other.text.rstrip().endswith(":"):
        return False
    below = [x.text.strip() for x in other.log.lines(other.number + 1, other.number + _ANNOUNCED)]
    return line.text.strip() in below or (_HEADING.match(other.text[:100]) is not None and not any(below[:1]))


def is_frame(text: str) -> bool:
    """Whether a line is no statement of a program: a frame of a stack, a field of what is printed with an error."""
    return _FRAME.match(text[:1000]) is not None


def nothing_else_after(line: Line) -> bool:
    """Whether a program has said nothing but errors since a line."""
    return all(looks_like_error(one.text) for one in _said(line.log, line.number + 1))


def _raised_last(log: Log) -> Traceback | None:
    """The exception of which a program ended."""
    last = last_traceback(log)
    return last if last is not None and _near_the_end(last.last) else None


def _last_words(log: Log) -> Iterator[Line]:
    last = _raised_last(log)
    if last is not None:
        yield from log.lines(last.last.number, last.last.number + _MESSAGE)
        while last.cause is not None:
            last = last.cause
            yield last.last
        return
    yield from [*_said(log, max(len(log) - _LINES, 1))][-_STATEMENTS:]


def _near_the_end(line: Line) -> bool:
    below = len(line.log) - line.number
    return below <= _BELOW or (below <= _LINES and len([*_said(line.log, line.number + 1)]) <= _BELOW)


def _said(log: Log, first: int) -> Iterator[Line]:
    """What a program says from a line on, without the frames of its stacks."""
    return (line for line in log.lines(first, len(log) + 1) if not is_frame(line.text))
