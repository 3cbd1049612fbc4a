"""A YAML signature: lines that prove a cause, as data; becomes the same `Check` as a function."""

from __future__ import annotations

import itertools
import re
import string
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from kubectl_llmdoctor.advice import FixText, Situation, fill
from kubectl_llmdoctor.check import Abstain, Check, Finding, Need
from kubectl_llmdoctor.evidence import event_evidence, log_evidence, quotation
from kubectl_llmdoctor.facts.endings import (
    PHASES,
    answered,
    failed_models,
    failed_requests,
    not_serving_yet,
    overcome,
    phase_at,
    phase_of,
    signs_of,
    stray,
    superseded,
    survived,
    told_to_stop,
    went_on,
)
from kubectl_llmdoctor.facts.logs import Line, Log
from kubectl_llmdoctor.facts.pod import Container, Pod
from kubectl_llmdoctor.facts.processes import raised_at, said
from kubectl_llmdoctor.facts.subject import Subject, Unknown
from kubectl_llmdoctor.facts.units import parse_time
from kubectl_llmdoctor.report.document import CONFIDENCES, Confidence, Evidence, Severity
from kubectl_llmdoctor.snapshot import LogText


class Pattern(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One wording of the cause.

    `literal` is a piece of text that every matching line contains; `match` a regular expression searched in that line
    (its named groups fill `summary` and the fixes). `near` is a literal that must stand within `within` lines around
    it, in a line that `near_match` matches; that line is quoted too, and its named groups are taken as well. Instead,
    `raised_in` is a regular expression for the file whose code raised the exception that the line ends. A summary of which
    a name was not captured gives way to the signature's.
    """

    literal: str
    match: str = ""
    near: str = ""
    near_match: str = ""
    within: int = 40
    #: the innermost frame of the traceback is in a file that this matches, and its statement is a `raise` or `assert`: the
    #: code refuses something. What fails otherwise there may as well be a fault of the code.
    raised_in: str = ""
    #: only where the log keeps the last line of the traceback and none of its frames, and the engine is known: then nothing
    #: but its words says whose exception it is
    bare: bool = False
    #: only in these phases of a start (`endings.phase_at`); empty is before the first of them
    phases: tuple[str, ...] = ()
    #: what shows, when it is printed later, that it was overcome: texts, or the phase that the start then reached
    overcome: tuple[str, ...] | None = None
    #: overrides the signature's, for an id that has wordings of both kinds
    affects: Literal["server", "requests"] | None = None
    summary: str = ""
    confidence: Confidence | None = None
    explains: tuple[str, ...] | None = None
    #: the wording is a warning, and counts in full
    warned: bool = False
    engines: tuple[str, ...] = ()
    fixes: tuple[FixText, ...] = ()


class Signature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One cause that a printed line proves. Lines in `matches` must match, lines in `ignores` must not."""

    id: str
    since: str
    summary: str
    patterns: tuple[Pattern, ...]
    matches: tuple[str, ...]
    ignores: tuple[str, ...]
    #: the page; empty when a module of the same name beside it has it
    doc: str = ""
    severity: Severity = "critical"
    confidence: Confidence = "certain"
    #: where the line may stand; `probe`: what the command of a probe printed in the container, as an event says it
    sources: tuple[Literal["log", "event", "status", "probe"], ...] = ("log",)
    #: whether it ends the server, or only fails requests (then it is a cause in a pod that is ready, too)
    affects: Literal["server", "requests"] = "server"
    #: a request that fails so may be what some client got wrong: a note, where the server answers many more
    stray: bool = False
    #: what it says is of the load of a model, which some servers do when somebody asks for one: of an engine that has its only
    #: model before it serves, it is of a request
    loads: bool = False
    explains: tuple[str, ...] = ()
    #: as the patterns', for those that have none of their own
    overcome: tuple[str, ...] = ()
    fixes: tuple[FixText, ...] = ()


#: What an engine's logger says without calling it an error, and an exception in it: one that was caught.
_WARNED = re.compile(
    r"(?:\([^)]{0,80}\)|\[[^\]]{0,80}\]|[\d:.,TZ -])*(?:WARNING|WARN|INFO|DEBUG)\b.{0,400}?\w(?:Error|Exception)\b"
)
#: A line of a program that a traceback quotes, whose message is not filled in; in the frame of Rich's tracebacks (TGI) any.
_SOURCE = re.compile(r"\s+(?:raise \w+|[bf]?[\"']|f\"|logger\.\w+\(|msg = |assert )|\s*│ [ ❱]? *\d+ │")
#: Engines that answer requests only once their model is loaded, and load no other one.
_LOAD_FIRST = frozenset({"vllm", "sglang", "tgi", "tei", "tensorrt-llm", "lmdeploy"})
#: So many answers for each line that speaks of a load say that the model is there.
_MANY_ANSWERS = 10
#: Processes that write to one log in turn, at most: so many times further apart two lines of one of them may stand.
_SIDE_BY_SIDE = 16
#: Hits of a pattern around which a second line is looked for.
_MOST_NEAR = 500


#: A word in an expression.
_NAMED = re.compile(r"\(\?&(\w+)\)")


@cache
def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def matching(signature: Signature, text: str) -> bool:
    """Whether a line is one that the signature looks for, whatever must stand around it."""
    return any(capture(pattern, text) is not None for pattern in signature.patterns)


def as_check(signature: Signature, *, family: str, where: str) -> Check:
    """The signature as a check."""

    # of several wordings the most certain one counts, then the first
    patterns = sorted(
        signature.patterns, key=lambda pattern: CONFIDENCES.index(pattern.confidence or signature.confidence)
    )
    signature = msgspec.structs.replace(signature, patterns=tuple(patterns))

    def run(subject: Subject) -> Iterator[Finding | Abstain]:
        if not subject.exists and not subject.static and not any(pod.log_only for pod in subject.pods):
            yield from itertools.islice(_said(signature, subject, None), 1)
            return
        for pod in subject.pods:
            spoken = subject.logs(pod) or pod.failing or signature.affects == "requests" or subject.refused
            found = next(_hits(signature, subject, pod), None) if spoken else None
            if found:
                yield found
            elif signature.sources == ("log",) and not subject.logs(pod):
                missing = subject.no_logs(pod)
                if isinstance(missing, Unknown):
                    yield Abstain(reason=missing.reason)

    title = signature.doc.strip().partition("\n")[0].rstrip(".")
    return Check(
        id=signature.id,
        title=title,
        doc=signature.doc.strip(),
        family=family,
        since=signature.since,
        severity=signature.severity,
        needs=(Need(fact="Subject", optional=False),),
        run=run,
        where=where,
        lines=True,
        literals=tuple(
            x for p in signature.patterns for x in (p.literal, p.near, *signs_of(_overcome(signature, p))) if x
        )
        if "log" in signature.sources
        else (),
    )


def _hits(signature: Signature, subject: Subject, pod: Pod) -> Iterator[Finding]:
    """Findings of one pod, the best first: the instance that died, then the one that runs."""
    if "log" in signature.sources:
        for pattern in signature.patterns:
            server = (pattern.affects or signature.affects) == "server"
            for log in subject.logs(pod):
                container = pod.container(log.container)
                died = not server or (pod.failing and _died(pod, container, previous=log.previous))
                if not died and (log.previous or not failed_models(log)):
                    continue
                if log.previous and not pod.failing:
                    continue  # an instance that is gone, of a pod that has recovered
                earlier: Finding | None = None
                for count, line in enumerate(log.find(pattern.literal)):
                    if (pattern.near or pattern.raised_in or pattern.bare) and count >= _MOST_NEAR:
                        break  # each looks at the lines around it
                    if _SOURCE.match(said(line.text).text):
                        continue  # the source of a message in a traceback, not the message
                    # the frame of an error rules out most patterns, before their expressions are compiled
                    frame = _near(pattern, line) if pattern.raised_in else None
                    if (pattern.raised_in and frame is None) or (pattern.bare and raised_at(line)):
                        continue
                    captured = _captured(pattern, line)
                    if captured is None or not _fits(pattern, subject, pod, container):
                        continue
                    if not died and not any(first <= line.number <= last for first, last in failed_models(log)):
                        continue
                    if (survived if server else not_serving_yet)(line) or told_to_stop(line):
                        continue
                    on = server and went_on(line)
                    past = on or overcome(line, _overcome(signature, pattern))
                    if past and container and container.running and not log.previous:
                        continue
                    if pod.log_only and (on or (past and (not server or _serves_after(line)))):
                        continue  # nothing says that it ever ended
                    if pattern.phases and phase_at(line) not in pattern.phases:
                        continue
                    near = frame or _near(pattern, line)
                    if pattern.near and near is None:
                        continue
                    if near and pattern.near_match and (more := _regex(pattern.near_match).search(near.text)):
                        captured |= _names(more)
                    evidence = [log_evidence(line, pattern.literal)]
                    if near and near.number != line.number:
                        evidence.append(log_evidence(near, pattern.near))
                    order = line.order
                    found = _finding(signature, pattern, captured, subject, pod, container, evidence, order)
                    found = _weighed(found, signature, pattern, line, pod, past=past, server=server)
                    if signature.loads and not server and _loads_first(subject, pod, container):
                        found = _of_one_request(found, pattern, line)
                    if superseded(line):  # the start after it does not show yet how it goes
                        earlier = msgspec.structs.replace(found, confidence="possible")
                        continue
                    yield found
                    break
                if earlier:
                    yield earlier
    if pod.failing_by_status or signature.affects == "requests" or subject.refused:
        yield from _said(signature, subject, pod)


def _weighed(
    found: Finding, signature: Signature, pattern: Pattern, line: Line, pod: Pod, *, past: bool, server: bool
) -> Finding:
    """A finding, as sure and as grave as what stands around its line lets it be."""
    if past:  # the last resort where nothing else is found
        found = msgspec.structs.replace(found, confidence="possible", explains=())
    elif not pattern.warned and _WARNED.match(line.text[:2000]):
        found = msgspec.structs.replace(found, confidence="possible")
    if not server and not found.explains and not past and not pod.log_only and pod.failing:
        return msgspec.structs.replace(found, role="note")  # the pod fails of something else
    ready = pod.exists and pod.ready
    if not server and (
        _long_past(pattern, line, ready=ready) or (signature.stray and stray(_alike(pattern, line), ready=ready))
    ):
        return msgspec.structs.replace(found, role="note", severity="info", explains=())
    return found


def _long_past(pattern: Pattern, line: Line, *, ready: bool) -> bool:
    """Whether one request alone met with it, and a ready server has answered many since."""
    if not ready or answered(line.log, after=line.number) < _MANY_ANSWERS:
        return False
    return failed_requests(_alike(pattern, line)) == 1


def _loads_first(subject: Subject, pod: Pod, container: Container | None) -> bool:
    """Whether a server that is up runs an engine that has loaded its only model before it serves."""
    names = {e.name for e in subject.engines(pod) if container is None or e.container is container}
    return (pod.ready or pod.log_only) and bool(names) and names <= _LOAD_FIRST


def _of_one_request(found: Finding, pattern: Pattern, line: Line) -> Finding:
    """What is said of a load where the one model answers many times as many requests: one of them met with the same words."""
    if answered(line.log) < _MANY_ANSWERS * len(_alike(pattern, line)):
        return found
    return msgspec.structs.replace(found, role="note", severity="info", explains=())


def _alike(pattern: Pattern, line: Line) -> list[Line]:
    """All lines of a log that a pattern matches, of which a line is one."""
    return [x for x in line.log.find(pattern.literal) if x == line or _captured(pattern, x) is not None]


def _said(signature: Signature, subject: Subject, pod: Pod | None) -> Iterator[Finding]:
    """What statuses and events say, by the order of patterns: the first is the most telling."""
    texts: list[tuple[str, Container | None, Evidence]] = []
    ends: dict[int, Line] = {}
    own = pod is not None and (pod.failing_by_status or signature.affects == "requests")
    if "status" in signature.sources:
        texts += (
            [(t, c, Evidence(source="pod", ref=w, text=t)) for w, t, c in _status_texts(pod)] if pod and own else []
        )
        texts += _workload_texts(subject)
    else:
        texts += _workload_texts(subject, quoted=True)
    if (
        "status" not in signature.sources and pod and own
    ):  # the end of the log as the kubelet keeps it, where the log itself is gone
        for where, text, container in _status_texts(pod):
            if container and "terminated" in where and not subject.logs(pod).of(container.name):
                for line in Log(LogText(text=text.partition(": ")[2])).lines():  # without the reason
                    ends[len(texts)] = line
                    texts.append((line.text, container, Evidence(source="pod", ref=where, text=line.text)))
    if "log" in signature.sources and pod is None:
        texts += _controller_texts(signature, subject)
    if "event" in signature.sources and (own or pod is None):
        for event in subject.events:
            about_other = event.kind == "Pod" and pod is not None and event.name != pod.name
            if (
                not about_other
                and (event.warning or event.kind != "Pod")
                and event.reason != "Unhealthy"  # what a probe met with is no fault of a start
            ):
                texts.append((event.message, None, event_evidence(event, subject.cluster)))
    if "probe" in signature.sources and pod and own:
        started = [c.status.state.running.started_at for c in pod.containers if c.status.state.running]
        since = min((at for at in map(parse_time, started) if at), default=None)
        for event in subject.events:
            if (event.kind, event.name, event.reason) == ("Pod", pod.name, "Unhealthy") and not (
                since and event.last and event.last < since
            ):
                texts.append((event.message, None, event_evidence(event, subject.cluster)))
    for pattern in signature.patterns:
        for number, (text, container, evidence) in enumerate(texts):
            end = ends.get(number)
            captured = None if pattern.phases else _captured(pattern, end) if end else capture(pattern, text)
            if captured is None or not (pod is None or _fits(pattern, subject, pod, container)):
                continue
            if pattern.raised_in or pattern.near:
                around = _near(pattern, end) if end else None
                if around is None and (pattern.raised_in or pattern.near not in text):
                    continue
            quoted = msgspec.structs.replace(evidence, text=quotation(evidence.text, pattern.literal))
            found = _finding(signature, pattern, captured, subject, pod, container, [quoted], None)
            if end and found.confidence == "certain":  # what stood before it in the log is not known
                found = msgspec.structs.replace(found, confidence="likely")
            yield found
            break


def _workload_texts(subject: Subject, *, quoted: bool = False) -> list[tuple[str, Container | None, Evidence]]:
    """What operators say of the objects above the pods; `quoted`: only where they repeat the server's own words."""
    found: list[tuple[str, Container | None, Evidence]] = []
    for workload in subject.platform:
        for one in workload.said:
            if quoted and not (one.quoted and one.failed):
                continue
            lines = one.text.splitlines() if one.quoted else [one.text]
            ref = f"{workload.ref} {one.path}"
            found += [(text, None, Evidence(source="workload", ref=ref, text=text.strip())) for text in lines]
    return found


def _controller_texts(signature: Signature, subject: Subject) -> Iterator[tuple[str, Container | None, Evidence]]:
    """Lines of a controller's log that name the object: no pod of it exists, and only its controller knows why."""
    names = subject.workload.names if subject.workload else frozenset()
    if not names:
        return
    named = re.compile(rf"(?<![\w.-])(?:{'|'.join(map(re.escape, sorted(names)))})(?![\w-]|\.\w)")
    for _, log in subject.controllers:
        for pattern in signature.patterns:
            for line in log.find(pattern.literal):
                if named.search(line.text[:20_000]):
                    yield line.text, None, log_evidence(line, pattern.literal)
                    break


def _serves_after(line: Line) -> bool:
    """Whether the last start that a log shows came up after a line."""
    phase = phase_of(line.log)
    return phase is not None and phase.name == "serving" and phase.line.number > line.number


def _died(pod: Pod, container: Container | None, *, previous: bool) -> bool:
    """Whether this log is of an instance that went wrong: a log of a ready container proves no failure of the server."""
    if pod.log_only or container is None or previous or container.engine_dead:
        return True
    ended = container.status.state.terminated
    if ended is not None and ended.exit_code == 0:
        return False
    return not (container.running and container.status.ready)


def capture(pattern: Pattern, text: str) -> dict[str, str] | None:
    """What the pattern captures of a text that it matches."""
    if pattern.literal not in text:
        return None
    found = _regex(pattern.match).search(text[:20_000]) if pattern.match else None
    if pattern.match and not found:
        return None
    # a sentence that ends after a name or a number leaves its full stop with it
    return {k: v.rstrip(".,;:") or v for k, v in _names(found).items()} if found else {}


def _names(found: re.Match[str]) -> dict[str, str]:
    return {k: v for k, v in found.groupdict().items() if v is not None}


def _overcome(signature: Signature, pattern: Pattern) -> tuple[str, ...]:
    return signature.overcome if pattern.overcome is None else pattern.overcome


def _captured(pattern: Pattern, line: Line) -> dict[str, str] | None:
    """What the pattern captures of a line, or of what its process said."""
    found = capture(pattern, line.text)
    return capture(pattern, said(line.text).text) if found is None else found


def _near(pattern: Pattern, line: Line) -> Line | None:
    """The line that must stand around this one, or the frame that it was raised in."""
    if pattern.raised_in:
        frame = raised_at(line)
        return frame.line if frame and frame.refuses and _regex(pattern.raised_in).search(frame.line.text) else None
    if not pattern.near:
        return None
    for other in line.log.marks(pattern.near):
        away = abs(other.number - line.number)
        if away > pattern.within * _SIDE_BY_SIDE or line.log.torn(line.number, other.number):
            continue
        if (away <= pattern.within or _close(line, other, pattern.within)) and _regex(pattern.near_match).search(
            other.text[:20_000]
        ):
            return other
    return None


def _close(line: Line, other: Line, within: int) -> bool:
    """Whether two lines of one process stand so near each other among the lines of that process."""
    who = said(line.text).process
    if not who or said(other.text).process != who:
        return False
    first, last = sorted((line.number, other.number))
    return sum(said(one.text).process == who for one in line.log.lines(first + 1, last)) <= within


def _fits(pattern: Pattern, subject: Subject, pod: Pod, container: Container | None) -> bool:
    if not pattern.engines:
        return True
    names = [e.name for e in subject.engines(pod) if container is None or e.container is container]
    return (not names and not pattern.bare) or any(name in pattern.engines for name in names)


def _status_texts(pod: Pod) -> Iterator[tuple[str, str, Container | None]]:
    """What the kubelet says of the pod and its containers: where, text, container."""
    if pod.status.message:
        yield "status.message", f"{pod.status.reason}: {pod.status.message}", None
    for container in pod.containers:
        kind = "containerStatuses" if container.role == "main" else "initContainerStatuses"
        for state, name in ((container.status.state, "state"), (container.status.last_state, "lastState")):
            path = f"status.{kind}[{container.name}].{name}"
            if state.waiting and state.waiting.message:
                yield f"{path}.waiting", f"{state.waiting.reason}: {state.waiting.message}", container
            if state.terminated and state.terminated.message:
                yield f"{path}.terminated", f"{state.terminated.reason}: {state.terminated.message}", container


def _finding(
    signature: Signature,
    pattern: Pattern,
    captured: dict[str, str],
    subject: Subject,
    pod: Pod | None,
    container: Container | None,
    evidence: Iterable[Evidence],
    order: float | None,
) -> Finding:
    here = Situation(subject, pod, container, captured)
    return Finding(
        role="cause",
        summary=fill(_summary(signature, pattern, here.values), here.values),
        confidence=pattern.confidence or signature.confidence,
        evidence=tuple(evidence),
        explains=signature.explains if pattern.explains is None else pattern.explains,
        fixes=here.fixes(pattern.fixes or signature.fixes),
        order=order,
        pods=(pod.name,) if pod else (),
    )


def _summary(signature: Signature, pattern: Pattern, values: dict[str, str]) -> str:
    """The pattern's summary where all that it names was captured."""
    names = {name for _, name, _, _ in string.Formatter().parse(pattern.summary) if name}
    return pattern.summary if pattern.summary and names <= values.keys() else signature.summary


def parse(tree: Any, *, stem: str, words: Mapping[str, str] = MappingProxyType({})) -> Signature:
    """A decoded YAML file as a signature; `words` are the expressions that `(?&name)` in a pattern stands for.

    Raises msgspec.ValidationError, ValueError or re.error with what is wrong.
    """
    signature = msgspec.convert(tree, Signature)
    signature = msgspec.structs.replace(signature, patterns=tuple(_spelt(p, words) for p in signature.patterns))
    if stem != signature.id.replace("-", "_"):
        raise ValueError(f"id {signature.id} must stand in {signature.id.replace('-', '_')}.yaml")
    for pattern in signature.patterns:
        if unknown := set(pattern.phases) - {"", *PHASES}:
            raise ValueError(f"no such phase: {', '.join(sorted(unknown))}; known are {', '.join(PHASES)}")
        if pattern.bare and not pattern.engines:
            raise ValueError(f"{pattern.literal!r} is bare, and names no engines")
        re.compile(pattern.match)
        re.compile(pattern.near_match)
        re.compile(pattern.raised_in)
    return signature


def _spelt(pattern: Pattern, words: Mapping[str, str]) -> Pattern:
    """A pattern with the words that it names in their place."""

    parts = {key: getattr(pattern, key) for key in ("match", "near_match", "raised_in")}
    return msgspec.structs.replace(pattern, **{key: _with_words(text, words) for key, text in parts.items()})


def _with_words(text: str, words: Mapping[str, str]) -> str:
    """An expression with the words in their place; a word may name those that stand above it."""
    for name, word in reversed([*words.items()]):
        text = text.replace(f"(?&{name})", word)
    if unknown := _NAMED.search(text):
        raise ValueError(f"no such word: {unknown[1]}; known are {', '.join(sorted(words))}")
    return text
