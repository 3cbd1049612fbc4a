"""Logs as collectors store them, line by line in a record of their own, become what the container printed.

Known are the files of a node (containerd and CRI-O: `TIME stderr F text`, Docker's JSON), `kubectl logs --prefix`, stern, `docker
compose logs`, the journal and syslog, the JSON lines of Fluent Bit, Vector, logcli and Cloud Logging, and what Markdown has around a
log: quotes, and the indentation of code. An engine that itself writes JSON is left alone: its records name no stream and no pod.

Sources: Kubernetes CRI logging design (kubernetes/design-proposals-archive, kubelet-cri-logging.md), Docker's json-file
driver, Fluent Bit's kubernetes filter, Vector's kubernetes_logs source, Loki's logcli.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import msgspec

from kubectl_llmdoctor.expressions import expression

#: A table whose rows begin with a word has more.
_PROGRAMS = 12
#: Lines by which the form is recognised, and how many of ten must have it.
_LINES, _OF_TEN = 60, 8
_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)"
_CRI = expression(rf"(?P<time>{_TIME}) (?:stdout|stderr) [FP](?::[\w:]*)? ?")
_PREFIX = expression(r"^\[pod/(?P<who>[\w.-]{1,253}/[\w.-]{1,63})\] ?")
#: `llama-0 vllm text`
_STERN = expression(r"^(?P<who>[a-z0-9][a-z0-9.-]{0,252}-[a-z0-9.-]{1,63} [a-z0-9][a-z0-9-]{0,62}) ")
_LEAST = 5
#: `vllm-1  | text`, `llm_vllm.1.x8k2j3@node  | text`, pm2's `0|vllm  | text`; a logger may put its level there
_COMPOSE = expression(
    r"^(?:\x1b\[[\d;]{0,12}m){0,2}(?P<who>(?!(?:TRACE|DEBUG|INFO|WARN|WARNING|ERROR|CRITICAL|FATAL) )"
    r"(?:\d{1,3}\|)?\w[\w.@-]{0,160}) {1,60}\| ?(?:\x1b\[0?m)?"
)
#: `Jun 02 08:00:00 gpu-1 ollama[317]: text`, of whatever number: a restart gives another, and systemd tells of it in lines of its own
_SYSLOG = expression(
    rf"^(?:(?:[^\W\d_]{{3,5}}\.?|\d{{1,2}}月) [ \d]\d \d\d:\d\d:\d\d|{_TIME}) "
    r"(?P<who>[\w.-]{1,253} (?!systemd\[)[\w./@-]{1,64})\[\d{1,10}\]: ?"
)
_QUOTED = expression(r"^(?P<who>>)(?: |$)")
#: A block of code in Markdown; a traceback whose beginning is gone is indented by less.
_INDENTED = expression(r"^(?P<who>    |\t)")
#: What Docker Desktop and other viewers of logs put before each line. A logger's own time is not before the lines of a traceback, nor
#: before another time; one as fine as the kubelet's is kept.
_STAMPED = expression(r"^\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d{1,6})?(?:Z| UTC|[+-]\d\d:?\d\d)?[ \t]")
_TWICE = expression(
    r'^(?:Traceback \(most recent call last\):|  File "|time=\d{4}-|\[?\d{4}-\d\d-\d\d|[A-Z]{4,8} \d\d-\d\d \d\d:)'
)
#: Each with the lines that it takes to be sure: what collectors of a cluster write, and what stands in a log that comes alone.
_COLLECTED, _PASTED = ((_PREFIX, 1), (_STERN, _LEAST)), ((_COMPOSE, 1), (_SYSLOG, 1), (_QUOTED, 1))
#: Times as fine as the kubelet's are kept: they cannot be an engine's own.
_FINE = expression(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7,9}(?:Z|[+-]\d\d:\d\d)")
#: Where a record holds the line, and what else a collector writes beside it.
_TEXTS = ("log", "message", "line", "textPayload")
_BESIDE = ("stream", "kubernetes", "labels", "insertId")


def unwrapped(text: str, *, alone: bool = True) -> str:
    """A log without what a collector wrapped around its lines; itself where nothing is known to be around them."""
    form = form_of(text, alone=alone)
    if form is None:
        return text
    end = "\n" if text.endswith("\n") else ""
    return "\n".join(map(form, text.removesuffix("\n").split("\n"))) + end


def by_program(text: str) -> dict[str, str]:
    """What each of several programs printed, by the name that `docker compose logs` or `kubectl logs --prefix` puts before its lines.

    The lines of the others are empty in it, so that a line keeps its number. Empty where the lines have no such names, or only one.
    """
    lines = text.split("\n")
    early = [line for line in lines[: _LINES + 1] if line.strip()]
    for prefix in (_PREFIX, _COMPOSE):
        if sum(prefix.match(line) is not None for line in early) * 10 < len(early) * _OF_TEN:
            continue
        names, name = [], ""
        for line in lines:
            match = prefix.match(line)
            name = match["who"] if match else name  # what has no name goes on with the line before it
            names.append(name)
        every = dict.fromkeys(filter(None, names))
        if 1 < len(every) <= _PROGRAMS:
            own = [prefix.sub("", line, count=1) for line in lines]
            return {who: "\n".join(x if n == who else "" for n, x in zip(names, own, strict=True)) for who in every}
    return {}


def unwrapped_pieces(form: Callable[[str], str], pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same for a log that comes in pieces, of the form that its head has."""
    rest = b""
    for piece in pieces:
        whole, newline, rest = (rest + piece).rpartition(b"\n")
        if newline:
            yield "".join(f"{form(line)}\n" for line in whole.decode("utf-8", "replace").split("\n")).encode()
    if rest:
        yield form(rest.decode("utf-8", "replace")).encode()


def form_of(text: str, *, alone: bool = True) -> Callable[[str], str] | None:
    """How each line of a log is unwrapped; None where its first lines have no form that is known.

    Only a log that comes `alone`, and not with its cluster's objects, may have been copied from elsewhere.
    """
    lines = [line for line in text[:65536].split("\n")[: _LINES + 1][:_LINES] if line.strip()]
    if not lines:
        return None
    for form in (_of_cri, _of_json):
        if sum(form(line) is not None for line in lines) * 10 >= len(lines) * _OF_TEN:
            return lambda line: line if (found := form(line)) is None else found
    for prefix, least in (*_COLLECTED, *(_PASTED if alone else ())):
        found = [match["who"] for line in lines if (match := prefix.match(line))] if len(lines) >= least else []
        # lines of several containers in turn keep theirs: it tells them apart
        if len(found) * 10 >= len(lines) * _OF_TEN and len(set(found)) == 1:
            return partial(prefix.sub, "", count=1)
    if not alone:
        return None
    if all(map(_INDENTED.match, lines)):
        return partial(_INDENTED.sub, "", count=1)
    if all(map(_STAMPED.match, lines)) and any(_TWICE.match(_STAMPED.sub("", line, count=1)) for line in lines):
        return partial(_STAMPED.sub, "", count=1)
    return None


def _of_cri(line: str) -> str | None:
    found = _CRI.match(line)
    return _timed(found["time"], line[found.end() :]) if found else None


def _of_json(line: str) -> str | None:
    if not line.startswith("{"):
        return None
    try:
        record: Any = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError):
        return None
    if not isinstance(record, dict) or not any(key in record for key in _BESIDE):
        return None
    text = next((record[key] for key in _TEXTS if isinstance(record.get(key), str)), None)
    return None if text is None else _timed(record.get("time"), text.removesuffix("\n"))


def _timed(time: Any, text: str) -> str:
    return f"{time} {text}" if isinstance(time, str) and _FINE.fullmatch(time) else text
