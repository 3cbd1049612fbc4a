"""What others say by a signature: the kubelet in statuses and events, operators of their objects, controllers in their logs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from functools import partial

import msgspec

from kubectl_llmdoctor.check import Finding
from kubectl_llmdoctor.evidence import event_evidence, log_evidence, quotation
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.events import Event
from kubectl_llmdoctor.facts.logs import Line, Log
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.subject import Subject, told_elsewhere
from kubectl_llmdoctor.facts.units import parse_time
from kubectl_llmdoctor.report.document import Evidence
from kubectl_llmdoctor.signatures.declared import Pattern, Signature
from kubectl_llmdoctor.signatures.wording import beside, capture, captured, finding, fits, refused_at
from kubectl_llmdoctor.snapshot import LogText
from kubectl_llmdoctor.tree import dig

#: What a controller logs of a kind that it never began to look at (controller-runtime's controller.go): a watch that it needs for
#: that kind did not come up, so that no line of its log names any object of it.
_NEVER_BEGAN = "caches to sync"
#: What it logs where it did begin, maybe when it was started again, and the kinds that a line names in Go's words: `*v1beta1.Name`.
_BEGAN, _KIND = "Starting workers", r"\*\w+\.([A-Za-z]\w{0,100})"
#: How it words that it may not look at a kind, or that there is none such.
_UNSEEN = r"failed to (?:list|watch)|no matches for kind|is forbidden: User|server APIs"

#: Why a scheduler has found no node for a pod, by reasons of events (kube-scheduler, HAMi, KAI): over where the pod has one by now, or
#: the scheduler has said something else for so long. KAI's binder reports under a name of its own.
_BINDER = "BindingError"
_UNPLACED, _SAID_SINCE = ("FailedScheduling", "FilteringFailed", "BindingFailed", _BINDER), timedelta(minutes=1)

#: A probe that has not failed for so long passes.
_PASSED = timedelta(hours=1)

#: What is searched of a text that is no line of a log.
_MOST_CHARS = 20_000


class _Statement(msgspec.Struct, frozen=True, kw_only=True):
    """A text, and where it stands."""

    text: str
    evidence: Evidence
    container: Container | None = None
    #: the text as a line of the end of a log, where the kubelet keeps it, or of a traceback that an operator repeats
    line: Line | None = None
    #: the controller that says it, which is meant where the cause speaks of a container
    teller: str = ""
    #: whether it is taken as a whole: an operator's quotation, and no end of a log that the kubelet cut
    whole: bool = False


def in_statements(signature: Signature, subject: Subject, pod: Pod | None) -> Finding | None:
    """The first finding of what is said of a pod, or of a workload without any, by the order of patterns: the most telling."""
    statements = list(_statements(signature, subject, pod))
    for pattern in signature.patterns:
        for said in statements:
            names = _proven(pattern, said)
            if names is None or not (pod is None or fits(pattern, subject, pod, said.container, names)):
                continue
            if said.teller:
                names = {**names, "container": said.teller}
            evidence = msgspec.structs.replace(said.evidence, text=quotation(said.evidence.text, pattern.literal))
            found = finding(signature, pattern, names, subject, pod, said.container, [evidence])
            # what stood in the log before the end that was kept is not known
            if said.line and not said.whole and found.confidence == "certain":
                return msgspec.structs.replace(found, confidence="likely")
            return found
    return None


def _proven(pattern: Pattern, said: _Statement) -> dict[str, str] | None:
    """What a pattern captures of a statement that shows all that it asks for."""
    line = said.line
    names = captured(pattern, line) if line else capture(pattern, said.text[:_MOST_CHARS])
    if names is None or pattern.phases or pattern.ends:
        return None
    if pattern.raised_in:
        return names if line and refused_at(pattern, line) else None
    if pattern.near and pattern.near not in said.text:
        return names if line and beside(pattern, line) else None
    return names


def _statements(signature: Signature, subject: Subject, pod: Pod | None) -> Iterator[_Statement]:
    own = pod if pod and (pod.failing_by_status or signature.affects == "requests") else None
    if "status" in signature.sources:
        if own:
            yield from _of_kubelet(own)
        yield from _of_operators(subject)
    else:
        yield from _of_operators(subject, quoted=True)
        if own:
            yield from _kept_ends(subject, own)
    if "log" in signature.sources and pod is None:
        yield from _of_controllers(signature, subject)
    if "event" in signature.sources:
        yield from _of_events(subject, own, subject.events if own or pod is None else subject.warned)
    if "probe" in signature.sources and own:
        yield from _of_probes(subject, own)


def _of_kubelet(pod: Pod) -> Iterator[_Statement]:
    """What the status says of the pod and its containers."""
    for where, text, container in _status_texts(pod):
        yield _Statement(text=text, evidence=Evidence(source="pod", ref=where, text=text), container=container)


def _kept_ends(subject: Subject, pod: Pod) -> Iterator[_Statement]:
    """The end of a log as the kubelet keeps it, where the log itself is gone."""
    for where, text, container in _status_texts(pod):
        if container and "terminated" in where and not subject.logs(pod).of(container.name):
            for line in Log(LogText(text=text.partition(": ")[2])).lines():  # without the reason
                evidence = Evidence(source="pod", ref=where, text=line.text)
                yield _Statement(text=line.text, evidence=evidence, container=container, line=line)


def _status_texts(pod: Pod) -> Iterator[tuple[str, str, Container | None]]:
    """Where, reason and message, container."""
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


def _of_operators(subject: Subject, *, quoted: bool = False) -> Iterator[_Statement]:
    """What operators say of the objects above the pods; `quoted`: only where they repeat the server's own words."""
    for workload in subject.platform:
        for one in workload.said:
            if quoted and not (one.quoted and (one.failed or one.holds)):
                continue
            ref = f"{workload.ref} {one.path}"
            if not one.quoted:
                yield _Statement(text=one.text, evidence=Evidence(source="workload", ref=ref, text=one.text.strip()))
                continue
            for line in Log(LogText(text=one.text)).lines():
                evidence = Evidence(source="workload", ref=ref, text=line.text.strip())
                yield _Statement(text=line.text, evidence=evidence, line=line, whole=True)


def _of_controllers(signature: Signature, subject: Subject) -> Iterator[_Statement]:
    """Lines of a controller's log that name the object: no pod of it exists, and only its controller knows why.

    Of a controller that never began with this kind of object those count that say why: it knows of none.
    """
    names = subject.workload.names if subject.workload else frozenset()
    if not names or subject.workload is None:
        return
    named = re.compile(rf"(?<![\w.-])(?:{'|'.join(map(re.escape, sorted(names)))})(?![\w-]|\.\w)")
    made = parse_time(str(dig(subject.workload.raw, "metadata.creationTimestamp") or ""))
    for pod, log in subject.controllers:
        key = f"never began {subject.workload.kind} {log.source.namespace}/{pod.name}/{log.source.container} {log.source.previous}"
        kinds = subject.cluster.once(key, partial(_never_began, subject, pod, log))
        for pattern in signature.patterns:
            for line in log.find(pattern.literal):
                mine = named.search(line.text) and not told_elsewhere(line.text, names, subject.namespace)
                if line.time and made and line.time < made:
                    mine = None  # of one of the same name before it
                if mine or (kinds is not None and _says_why(line.text, kinds)):
                    yield _Statement(text=line.text, evidence=log_evidence(line, pattern.literal), teller=pod.name)
                    break


def _never_began(subject: Subject, pod: Pod, log: Log) -> set[str] | None:
    """The kinds which a controller waited for in vain before it would begin with this kind; None where it began since, or was not to."""
    kind = subject.workload.kind.partition(".")[0].lower() if subject.workload else ""
    lines = [line for line in log.find(_NEVER_BEGAN) if f"wait for {kind} {_NEVER_BEGAN}" in line.text.lower()]
    since = [
        (other, lines[-1].number if other.source is log.source else 0)
        for who, other in (subject.controllers if lines else ())
        if who.name == pod.name and other.source.container == log.source.container
    ]
    begun = any(
        re.search(rf"(?i)\b{kind}\b", line.text)
        for other, first in since
        if not other.source.previous or other.source is log.source
        for line in other.find(_BEGAN)
        if line.number > first
    )
    return {name for line in lines for name in re.findall(_KIND, line.text)} if lines and not begun else None


def _says_why(text: str, kinds: set[str]) -> bool:
    """Whether a line tells why kinds could not be looked at: of those that were waited for, where they are known."""
    named = not kinds or "server APIs" in text or any(re.search(rf"\b{kind}\b", text) for kind in kinds)
    return named and bool(re.search(_UNSEEN, text))


def _of_events(subject: Subject, pod: Pod | None, events: Iterable[Event]) -> Iterator[_Statement]:
    """Warnings about the pod, and all that is said of what it belongs to."""
    for event in events:
        about_other = event.kind == "Pod" and pod is not None and event.name != pod.name
        if about_other or not (event.warning or event.kind != "Pod") or event.reason == "Unhealthy":
            continue  # what a probe met with is no fault of a start
        if _ready_since(event, subject):
            continue
        if pod is not None and event.reason in _UNPLACED and (pod.spec.node_name or _overruled(event, pod, subject)):
            continue
        evidence = event_evidence(event, subject.cluster)
        yield _Statement(text=event.message, evidence=evidence, container=_container_of(event, pod))


#: What the kubelet calls the event of a container that it could not make or start; the runtime's words are its message.
_FAILED = "Failed"


def _container_of(event: Event, pod: Pod | None) -> Container | None:
    """The container of the pod that an event is about, by the field that it names; where it names none, the only one that there is."""
    if pod is None or event.kind != "Pod":
        return None
    if not event.field_path and event.reason == _FAILED and len(pod.containers) == 1:
        return pod.containers[0]
    return next((c for c in pod.containers if event.field_path.endswith(f"ontainers{{{c.name}}}")), None)


def _ready_since(event: Event, subject: Subject) -> bool:
    """Whether the operator of the object that it warns of has called that ready later."""
    return event.last is not None and any(
        (ready := workload.item.condition("Ready", "True")) is not None
        and (since := parse_time(ready.last_transition_time)) is not None
        and since > event.last
        for workload in subject.platform
        if (workload.kind, workload.name) == (event.kind, event.name)
    )


def _overruled(event: Event, pod: Pod, subject: Subject) -> bool:
    """Whether the scheduler has said why it finds no node for the pod later than by this event."""
    later = (
        e.last
        for e in subject.events.of("FailedScheduling", "Unschedulable")
        if e.name == pod.name and (e.reporter == event.reporter or event.reason == _BINDER)
    )
    return event.last is not None and any(last and last - event.last > _SAID_SINCE for last in later)


def _of_probes(subject: Subject, pod: Pod) -> Iterator[_Statement]:
    """What the commands of probes printed in the instances that run, and in those before them that never became ready either."""
    since = min((at for c in pod.containers if (at := _tried_since(c))), default=None)
    now = pod.cluster.now
    if pod.ready and now is not None:
        since = max(since or now - _PASSED, now - _PASSED)
    for event in subject.events:
        if (event.kind, event.name, event.reason) == ("Pod", pod.name, "Unhealthy") and not (
            since and event.last and event.last < since
        ):
            yield _Statement(text=event.message, evidence=event_evidence(event, subject.cluster))


def _tried_since(container: Container) -> datetime | None:
    """When the instance began that runs; of one that is not up yet the one before it, which a probe may have ended.

    Where the containers were ready since that one began, it had come up, whatever its probes met with before.
    """
    running, before = container.status.state.running, container.status.last_state.terminated
    began, first = (
        parse_time(running.started_at) if running else None,
        parse_time(before.started_at) if before else None,
    )
    if began is None or first is None or container.status.ready or container.status.started is not False:
        return began
    unready = container.pod.condition("ContainersReady", "False")
    fell = parse_time(unready.last_transition_time) if unready else None
    return began if fell and fell > first else first
