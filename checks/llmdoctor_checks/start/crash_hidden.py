"""A shell that keeps the container alive when the engine has ended."""

import re
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import (
    MASK,
    Container,
    Engine,
    Finding,
    Fix,
    Line,
    Logs,
    check,
    expression,
    fixes,
    log_evidence,
    phase_of,
    pod_evidence,
    said,
)

#: Commands that never end.
_FOREVER = (
    r"(?:exec\s+)?(?:sleep\s+(?:infinity|inf|\d{5,}|\d+d)|tail\s+-[fF]\s+/dev/null|cat\s*(?:$|[;\n])"
    r"|while\s+(?:true|:|\[\s*1\s*\])\s*+;?\s*+do\s+sleep\b.{0,1000}?\bdone)"
)
#: After an engine that runs in the foreground or, by a single `&`, behind it; the sign says whether only when it failed. Of
#: thousands of empty lines each would look through all that follow.
_GAP = r"\s{0,40}"
_AFTER = expression(
    rf"(?P<sign>\|\||;|\n|(?<![&>|])&(?![&>\d])){_GAP}(?:[{{(]{_GAP})?(?P<told>echo[^;\n]{{0,400}}?(?:[;\n]|&&){_GAP})?(?P<forever>{_FOREVER})",
    re.DOTALL,
)
#: The same as the last command of the script, while the engine runs behind it since a command before.
_AT_LAST = expression(rf"(?P<sign>;|\n|&&){_GAP}(?P<told>)(?P<forever>{_FOREVER})[\s;]{{0,400}}\Z", re.DOTALL)
#: What ends a command, or only looks like it: a line that goes on, `2>&1`, `&>`.
_ENDS = expression(r"\\\n|>&|&>|&&|\|\||[;\n|&]")
_GOES_ON = ("\\\n", ">&", "&>")
#: Programs that engines are started by.
_SERVERS = expression(
    r"vllm\s+serve|vllm\.entrypoints|sglang\.launch_server|sglang\s+serve|text-generation-launcher|llama-server"
    r"|ollama\s+serve|trtllm-serve|tritonserver|launch_triton_server\.py|lmdeploy\s+serve"
)

#: Between the two: another branch of the script, so that one does not follow the other.
_BRANCH = expression(r"\b(?:else|elif|esac|fi)\b|;;")
#: The same as a command of its own before the engine, which the script then never starts; not where it may be skipped, or is the text of
#: a file.
_HALTS = expression(
    r"(?:\A|[;\n])[ \t]{0,40}(?P<forever>sleep\s{1,9}(?:infinity|inf)|tail\s{1,9}-[fF]\s{1,9}/dev/null)[ \t]{0,40}(?=[;\n])"
)
_MAY_BE_SKIPPED = expression(
    r"\b(?:if|while|until|for|case|trap|return)\b|(?:\A|[\s;&|])[{(]|\(\)[ \t]{0,40}\{|<<|\\\n[ \t]{0,40}\Z"
)

#: In a loop: it watches over the server rather than wait for nothing.
_WATCH = expression(r"\b(?:exit|kill|break|wait|return)\b")

#: A loop or a trap above it may be what looks after the engine.
_BLOCK = expression(r"\b(?:while|trap|exec)\b")

#: Where the engine's output goes instead of the container's log; what goes to stderr alone is no such thing.
_TO_FILE = r"(?<![\d|])(?:1|&)?>>?\s*(?P<file>/(?!dev/|proc/)[\w./-]+|[\w-][\w./-]*\.(?:log|out|txt))"
#: So long an engine may load before a port that nobody answers says more.
_PATIENCE_SECONDS = 1800

#: The last line of a program that ended: the shell's word of a signal, an engine's of a part that died.
_DEAD = (
    r"^(?:\S+: line \d+: +\d+ )?(?:Killed|Terminated|Aborted|Segmentation fault|Bus error|Illegal instruction)\b"
    r"|(?i:received sigquit from a child process)|EngineDeadError|EngineCore encountered an issue"
)
#: The same of one that never served: an exception, or the complaint of a parser of arguments.
_FAILED = (
    r"^(?:[\w.]+\.)?\w*(?:Error|Exception|Interrupt)\b(?::|$)|^[\w. -]{1,60}: error: |\berror: unrecognized arguments"
)
#: So many lines at the end are looked at: an engine's other processes may have a last word, too.
_LAST_LINES = 4


@check("crash-hidden", since="0.2", severity="warning")
def crash_hidden(engine: Engine, logs: Logs | None) -> Iterator[Finding]:
    """A shell keeps the container running without the engine.

    `vllm serve … || sleep infinity` is put into a command while somebody debugs, and stays there. When the engine ends,
    the container does not: no restart, no exit code, no previous log, and the pod stays Running. Without a liveness probe
    it stays so forever, holds its GPUs, and without a readiness probe it goes on getting requests.

    It is the cause where the container runs, and its log ends with the engine's end; a possible one where the engine's output goes
    to a file, so that the log says nothing, and the pod has not been ready for half an hour.

    A `sleep infinity` that stands before the engine keeps the script from ever starting it. It is the cause where such a
    container runs and the pod is not ready.

    With a liveness probe the kubelet restarts the container after all: then it is only noted, and so it is in the manifest of a Job.

    ## Fix

    Let the engine's exit be the container's: `exec vllm serve …` as the last command. For several processes in one
    container use `wait -n`, which ends with the first of them.

    ## References

    - https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#container-restarts
    """
    for group in ("command", "args"):
        for index, word in enumerate(getattr(engine.container.spec, group)):
            text = str(word)
            server = _SERVERS.search(text)
            if server is None:
                continue
            if halted := _halted(engine, f"{group}[{index}]", text[: server.start()]):
                yield halted
                return
            found = _next(text, server) or _last(text, server)
            if found and not _WATCH.search(found["forever"]):
                yield _goes_on(engine, logs, _Script(group, index, text, server, found))
                return


class _Script(msgspec.Struct, frozen=True):
    """A script that goes on without its server: where it stands, where it starts the server, and what it does for ever."""

    group: str
    index: int
    text: str
    server: re.Match[str]
    found: re.Match[str]


def _goes_on(engine: Engine, logs: Logs | None, script: _Script) -> Finding:
    container, text, found = engine.container, script.text, script.found
    watched = container.spec.liveness_probe is not None
    judged = logs if container.running and not watched else None
    ended = _ended(engine, judged, found["told"] or "") if judged is not None else None
    unseen = None if watched or ended else _unseen(engine, logs, text[script.server.end() : found.start()])
    happened, noted = bool(ended or unseen), watched or _once(container)
    if unseen:
        when = f"{engine.title} writes to {unseen}, not to the log, and does not serve; when it ends,"
    else:
        when = f"{engine.title} has ended, and" if ended else f"When {engine.title} ends,"
    return Finding(
        role="cause" if happened else "note" if noted else "risk",
        severity="critical" if happened else "info" if noted else "warning",
        confidence="possible" if unseen else "likely",
        summary=f"{when} the shell of {container.name} goes on with `{_short(found['forever'])}`: {_what_then(container)}.",
        evidence=(
            pod_evidence(container, f"{script.group}[{script.index}]", _around(text, found)),
            *((log_evidence(ended),) if ended else ()),
        ),
        explains=("not-ready",) if happened else (),
        fixes=(
            *((_read(engine, unseen),) if unseen else ()),
            _fix(engine, script.group, script.index, text, found, script.server),
        ),
    )


def _once(container: Container) -> bool:
    """Whether it is a manifest of a Job: a benchmark that asks its own server is left up for a look at its results."""
    owner = container.pod.template_of
    return not container.pod.exists and owner is not None and owner.kind == "Job"


def _what_then(container: Container) -> str:
    if container.spec.liveness_probe is not None:
        return "its liveness probe must find out"
    return "nothing restarts it" + (", and the pod stays Ready" if container.spec.readiness_probe is None else "")


def _halted(engine: Engine, path: str, before: str) -> Finding | None:
    """A command that never ends and stands before the engine in its script."""
    halt, container = _HALTS.search(before), engine.container
    if halt is None or _MAY_BE_SKIPPED.search(before[: halt.start("forever")]):
        return None
    pod, short = container.pod, _short(halt["forever"])
    if pod.ready and container.spec.readiness_probe is not None:
        return None  # somebody has started it by hand
    sure = container.running and not pod.ready
    return Finding(
        role="cause" if sure else "risk",
        severity="critical",
        summary=f"The script of {container.name} runs `{short}` before it starts {engine.title}: it never gets there.",
        evidence=(pod_evidence(container, path, f"{_around(before, halt)} …"),),
        explains=("not-ready", "probe-too-short") if sure else (),
        fix=fixes.advice(f"Take `{short}` out of {path.partition('[')[0]} in {fixes.edited(pod)}"),
    )


def _next(text: str, server: re.Match[str]) -> re.Match[str] | None:
    """What follows the engine in the same branch of the script and never ends."""
    found = _AFTER.search(text, server.end())
    return None if found and _BRANCH.search(text, server.end(), found.start("forever")) else found


def _last(text: str, server: re.Match[str]) -> re.Match[str] | None:
    """What the script ends with and never ends itself, where nothing between waits for the engine behind it."""
    end = next((one for one in _ENDS.finditer(text, server.end()) if one[0] not in _GOES_ON), None)
    found = _AT_LAST.search(text, end.end()) if end and end[0] == "&" else None
    between = text[end.end() : found.start()] if end and found else ""
    return None if not found or _WATCH.search(between) or _BLOCK.search(text, 0, found.start()) else found


def _ended(engine: Engine, logs: Logs, told: str) -> Line | None:
    """The line by which the log of a container that runs shows that the engine in it has ended.

    The wrapper may say so itself, by an `echo` before it goes to sleep.
    """
    words = re.match(r"""echo\s+(?:-\w+\s+)?(['"]?)(?P<words>[^'"$`\\]{8,}?)\1\s*(?:[;&\n]|$)""", told)
    log = logs.current(engine.container.name)
    last = [line for line in log.tail(20) if line.text.strip()][-_LAST_LINES:] if log else []
    phase = phase_of(log)
    serves = phase is not None and phase.name == "serving"
    for line in reversed(last):
        text = said(line.text).text
        if words and line.text.strip() == words["words"].strip():
            return line
        if re.search(_DEAD, text) or (not serves and re.search(_FAILED, text)):
            return line
    return None


def _unseen(engine: Engine, logs: Logs | None, rest: str) -> str | None:
    """The file that has the engine's output, if the log has none and the pod has not been ready for long."""
    container = engine.container
    to = re.search(_TO_FILE, rest)
    log = container.own_log(logs)
    trouble = container.trouble("not-ready")
    if to is None or trouble is None or (log is not None and log.text.strip()):
        return None
    seconds = container.pod.cluster.seconds_since(trouble.since)
    return to["file"] if seconds is not None and seconds > _PATIENCE_SECONDS else None


def _read(engine: Engine, file: str) -> Fix:
    container = engine.container
    return fixes.advice(
        f"Read the end of {file}",
        f"kubectl -n {container.pod.namespace} exec {container.pod.name} -c {container.name} -- tail -n 50 {file}",
    )


def _short(text: str) -> str:
    line = " ".join(text.split()).rstrip(";")
    return line if len(line) <= 60 else f"{line[:60]} …"


def _around(text: str, found: re.Match[str]) -> str:
    """The end of the engine's command and what follows it, on one line."""
    before = " ".join(text[: found.start()].split())
    return f"{'… ' if len(before) > 60 else ''}{before[-60:]} {' '.join(found[0].split())}"


def _fix(engine: Engine, group: str, index: int, text: str, found: re.Match[str], server: re.Match[str]) -> Fix:
    container, rest = engine.container, text[found.end() :].strip()
    background = re.search(r"(?<![&>|])&(?![&>\d])", text[server.end() : found.start()])
    # a mask must not be written back, and a script that goes on may mean something by it
    if background or rest.strip("; \n") or MASK in text:
        how = "wait -n in its place" if background else "the engine as the last command, started by exec"
        return fixes.advice(f"Take `{_short(found['forever'])}` out of {group} in {fixes.edited(container.pod)}: {how}")
    operation = {
        "op": "replace",
        "path": f"{container.pointer}/{group}/{index}",
        "value": text[: found.start()].rstrip(),
    }
    return fixes.patch(container.pod, "Make the engine's exit the container's", [operation])
