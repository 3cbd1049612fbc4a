"""The frame around the findings: what the target is doing, whom it hurts, what changed before, where it could run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.aftermath import lived_on
from kubectl_llmdoctor.facts.cluster import Item
from kubectl_llmdoctor.facts.endings import endings, last_round, log_of
from kubectl_llmdoctor.facts.last_words import is_frame, last_words
from kubectl_llmdoctor.facts.logs import Line, Log, Logs
from kubectl_llmdoctor.facts.processes import START, Traceback, first_errors, looks_like_error, tracebacks
from kubectl_llmdoctor.facts.starts import assertion_of, crash_of
from kubectl_llmdoctor.facts.subject import Subject
from kubectl_llmdoctor.facts.units import count_of, parse_time, rfc3339, say_seconds
from kubectl_llmdoctor.fixes import on_node
from kubectl_llmdoctor.platforms.labels import rank_of
from kubectl_llmdoctor.report import document as doc
from kubectl_llmdoctor.tree import dig, rows, words

#: Changes older than this before the failure did not cause it, as far as anyone can tell.
_RELEVANT = timedelta(days=7)
_MOST_CHANGES = 6

#: So much of a long line is quoted from its beginning and from its end, and so many lines of what a line announces.
_HEAD, _TAIL, _BELOW = 300, 200, 8
#: How a shell prints a command before it runs it (`set -x`), and so many lines below its program may complain of it.
_TRACED, _COMPLAINS = expression(r"\+{1,9} (?:/\S{1,200}/)?(?P<program>[a-z][\w.-]{0,40})(?: |$)"), 3
_FAILED_TO_START = "APPLICATION FAILED TO START"
#: The number of a revision, which is an annotation that anybody may write.
NUMBER = expression(r"[0-9]{1,18}")
#: How a tool of Unix complains, as one does that a script runs again and again until it has what it waits for.
_TOOL = expression(r"[a-z][\w.-]{1,30}: [A-Za-z]")
#: Above it exit codes are of processes that a signal ended, of which the kernel of the node knows more.
_BY_SIGNAL = 128
#: So many lines above an exception the errors stand to which it refers.
_ABOVE = 20
#: How an exception refers to what was said before it.
_REFERS = expression(
    r"(?i)\b(?:see|look|check|read|listed|logged|printed|reported)\b.{0,80}\babove\b|\b(?:errors?|logs?|messages?|output) above\b"
)
#: How a program that marks no line as an error says what it lacks, or what it was refused.
_REFUSES = (
    *(f"not {how}" for how in ("configured", "set", "found", "supported", "valid", "allowed", "permitted")),
    *("required", "missing", "invalid", "refused", "denied", "failed", "failure", "fails"),
    *("cannot", "can't", "could not", "couldn't", "unable to"),
)


def status(subject: Subject) -> str:
    """One line as kubectl would put it: `CrashLoopBackOff, 7 restarts in 21 min`."""
    pods = [p for p in subject.pods if p.exists]
    if not pods:
        return "" if subject.static or not subject.pods or subject.pods[0].log_only else "no pod exists"
    pod = next((p for p in pods if p.failing), pods[0])
    restarts = sum(c.restarts for c in pod.containers)
    phase = "Terminating" if pod.leaving else pod.status.phase or "unknown"
    parts = [pod.troubles[0].text if pod.troubles else phase]
    if pod.awaits_node:
        parts.append("an autoscaler is making a node for it")
    if restarts:
        seconds = subject.cluster.seconds_since(pod.started_at) or 0
        span = f" in {say_seconds(seconds)}" if seconds > 0 else ""
        parts.append(count_of(restarts, "restart") + span)
    return ", ".join(parts)


def impact(subject: Subject) -> str:
    """Whom it hurts: replicas ready, endpoints left. Empty when nothing of it is known."""
    if not subject.exists and subject.static:
        return ""
    return "; ".join([*_replicas(subject), *_endpoints(subject)])


def _replicas(subject: Subject) -> Iterator[str]:
    workload = subject.workload
    if workload and workload.replicas is not None and workload.ready is not None:
        if not workload.built_in and not workload.ready and any(pod.ready for pod in subject.pods):
            return  # the operator counts them elsewhere, or nowhere
        if workload.replicas or workload.ready:
            yield f"{workload.ready} of {count_of(workload.replicas, 'replica')} ready"
        else:
            yield "it is scaled to 0 replicas"


def _endpoints(subject: Subject) -> Iterator[str]:
    cluster, pod = subject.cluster, subject.pods[0] if subject.pods else None
    for service in pod.services if pod else ():
        slices = [
            s
            for s in cluster.all(k8s.EndpointSlice, "EndpointSlice", subject.namespace)
            if s.metadata.labels.get("kubernetes.io/service-name") == service.name
        ]
        if slices or cluster.complete("EndpointSlice", subject.namespace):
            named = bool(dig(service.raw, "spec.ports"))
            ready = sum(e.conditions.ready for s in slices if s.ports or not named for e in s.endpoints)
            left = count_of(ready, "ready endpoint") if ready else "no ready endpoint"
            yield f"Service {service.name} has {left}"


def placement(subject: Subject) -> tuple[doc.Placement, ...]:
    """For a pod that waits: which nodes could run it, and what stops it on each."""
    for facts in subject.scopes["pod"]:
        if facts["Pod"].unscheduled and not facts["Pod"].awaits_node:
            from kubectl_llmdoctor.facts.scheduling.placement import placement

            return placement(facts["Pending"])
    return ()


def changes(subject: Subject) -> tuple[doc.Change, ...]:
    """What changed before it broke, oldest first: rollouts with their differences, the node, the first failure."""
    found = [*_rollouts(subject), *_node_changes(subject), *_failures(subject)]
    order = ("node", "rollout", "pod", "failure")
    known = sorted((c for c in found if c.at), key=lambda c: (c.at or "", order.index(c.what), c.text))
    failure = next((parse_time(c.at) for c in known if c.what == "failure"), None)
    if failure:
        known = [c for c in known if (moment := parse_time(c.at)) and moment >= failure - _RELEVANT]
    return tuple(known[-_MOST_CHANGES:])


def _rollouts(subject: Subject) -> Iterator[doc.Change]:
    workload = subject.workload
    if workload is None:
        return
    cluster = subject.cluster
    revisions: list[tuple[int, Item, Any]] = []
    for item in cluster.items("ReplicaSet", workload.namespace):
        said = item.annotations.get("deployment.kubernetes.io/revision", "")
        if NUMBER.fullmatch(said) and cluster.owner(item) is workload.item:
            revisions.append((int(said), item, dig(item.raw, "spec.template")))
    for item in cluster.items("ControllerRevision", workload.namespace):
        revision = item.raw.get("revision")
        if isinstance(revision, int) and cluster.owner(item) is workload.item:
            revisions.append((revision, item, dig(item.raw, "data.spec.template")))
    revisions.sort(key=lambda r: r[0])
    for (_, _, before), (number, item, after) in itertools.pairwise(revisions):
        created = dig(item.raw, "metadata.creationTimestamp")
        differences = "; ".join(difference(before, after)) or "no difference in the pod template"
        yield doc.Change(
            at=created if isinstance(created, str) else None,
            what="rollout",
            text=f"{workload.ref} revision {number}: {differences}",
        )


def difference(before: Any, after: Any) -> Iterator[str]:
    """What differs between two pod templates, in a person's words: images, arguments, environment, resources."""
    old, new = _containers(before), _containers(after)
    for name in sorted(old.keys() - new.keys()):
        yield f"container {name} removed"
    for name in sorted(new.keys() - old.keys()):
        yield f"container {name} added"
    several = len(new) > 1
    for name in sorted(old.keys() & new.keys()):
        was, now = old[name], new[name]
        where = f"{name}: " if several else ""
        if was.get("image") != now.get("image"):
            yield f"{where}image {was.get('image')} -> {now.get('image')}"
        for key in ("command", "args"):
            gone, come = words(was, key), words(now, key)
            if gone != come:
                removed = [w for w in gone if w not in come]
                added = [w for w in come if w not in gone]
                yield f"{where}{key}: {' '.join(removed) or '(none)'} -> {' '.join(added) or '(none)'}"
        yield from (f"{where}{text}" for text in _env_difference(was.get("env"), now.get("env")))
        for key in ("resources", "livenessProbe", "readinessProbe", "startupProbe", "volumeMounts", "securityContext"):
            if was.get(key) != now.get(key):
                yield f"{where}{key} changed"
    for key in (
        "volumes",
        "nodeSelector",
        "affinity",
        "tolerations",
        "runtimeClassName",
        "hostIPC",
        "serviceAccountName",
    ):
        if dig(before, f"spec.{key}") != dig(after, f"spec.{key}"):
            yield f"{key} changed"


def _containers(template: Any) -> dict[str, dict[str, Any]]:
    return {str(c.get("name")): c for kind in ("initContainers", "containers") for c in rows(template, f"spec.{kind}")}


def _env_difference(before: Any, after: Any) -> Iterator[str]:
    old, new = ({str(v.get("name")): v for v in rows(env)} for env in (before, after))
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            yield f"env {name} removed"
        elif name not in old:
            yield f"env {name} added"
        elif old[name] != new[name]:
            yield f"env {name} changed"


def _node_changes(subject: Subject) -> Iterator[doc.Change]:
    names = {pod.spec.node_name for pod in subject.pods if pod.spec.node_name}
    for event in subject.events:
        if event.kind == "Node" and event.name in names and event.last:
            yield doc.Change(
                at=rfc3339(event.last), what="node", text=f"{event.name}: {event.reason}: {event.message}"[:200]
            )
    for name in sorted(names):
        node = subject.nodes.get(name)
        for condition in node.obj.status.conditions if node else ():
            healthy = "True" if condition.type == "Ready" else "False"
            since = parse_time(condition.last_transition_time)
            if condition.status != healthy and since and condition.type in ("Ready", "MemoryPressure", "DiskPressure"):
                text = f"{name}: {condition.type} is {condition.status}: {condition.reason}"
                yield doc.Change(at=rfc3339(since), what="node", text=text)


def _first_of_group(subject: Subject) -> Iterator[doc.Change]:
    """Which pod of a replica ended first: the others' errors are mostly the consequences."""
    ends = last_round(subject.pods)
    first = ends[0]
    pod = first.container.pod
    rank = rank_of(pod.labels)
    who = f"{rank} (pod {pod.name})" if rank else f"pod {pod.name}"
    text = f"{who} ended first, {first.container.name} with exit code {first.code}"
    later = ends[-1].finished
    if len(ends) > 1 and later and first.finished:
        followed = "the other" if len(ends) == 2 else f"{len(ends) - 1} others"
        text += f"; {followed} followed within {say_seconds((later - first.finished).total_seconds())}"
    if first.finished:
        yield doc.Change(at=rfc3339(first.finished), what="failure", text=text)


def _failures(subject: Subject) -> Iterator[doc.Change]:
    if sum(pod.exists for pod in subject.pods) > 1 and last_round(subject.pods):
        yield from _first_of_group(subject)
        return
    for pod in subject.pods:
        if not pod.exists or not pod.failing:
            continue
        created = parse_time(pod.obj.metadata.creation_timestamp)
        if created:
            which = f"{pod.name} " if len(subject.pods) > 1 else ""
            yield doc.Change(at=rfc3339(created), what="pod", text=f"{which}created")
        for ending in endings(pod):
            if ending.finished:
                again = f", after {count_of(ending.container.restarts, 'restart')}" if ending.container.restarts else ""
                text = f"{ending.container.name} ended with exit code {ending.code}{again}"
                yield doc.Change(at=rfc3339(ending.finished), what="failure", text=text)


def next_steps(subject: Subject) -> tuple[str, ...]:
    """What to look at next when nothing was found for certain: the most telling lines, and commands."""
    steps: list[str] = []
    for pod in subject.pods:
        logs = subject.logs(pod)
        if pod.log_only:
            steps += [text for log in logs for text in _errors(log)]
        for ending in endings(pod):
            log = log_of(ending, logs)
            if log:
                steps += _errors(log)
            again = " --previous" if ending.container.running or ending.container.waiting else ""
            judged = "" if log else " | kubectl llmdoctor diagnose --logs -"
            steps.append(f"kubectl -n {pod.namespace} logs {pod.name} -c {ending.container.name}{again}{judged}")
            if ending.code > _BY_SIGNAL and pod.spec.node_name:
                steps.append(on_node(pod.spec.node_name, "dmesg -T | grep -i -e oom -e killed -e segfault -e xid"))
        if pod.exists and pod.failing and not any(endings(pod)):
            ill = [c for c in pod.containers if c.running and (c.engine_dead or not c.status.ready)]
            read = {c.name: log for c in ill if (log := logs.current(c.name))}
            steps += [text for log in read.values() for text in _errors(log)]
            steps.append(f"kubectl -n {pod.namespace} describe pod {pod.name}")
            steps += [
                f"kubectl -n {pod.namespace} logs {pod.name} -c {c.name} | kubectl llmdoctor diagnose --logs -"
                for c in ill
                if c.name not in read
            ]
    if not subject.exists and subject.workload:
        kind, name = subject.workload.resource, subject.workload.name
        steps.append(f"kubectl -n {subject.namespace} describe {kind} {name}")
        steps.append(f"kubectl -n {subject.namespace} get events --sort-by=.lastTimestamp")
    return tuple(dict.fromkeys(steps))[:8]


def _errors(log: Log) -> list[str]:
    """What went wrong first in each process, the earliest first; of a log without tracebacks its telling lines."""
    found = [one for one in first_errors(Logs([log])) if one.error != "SystemExit"][:3]
    if not found:
        crash = crash_of(log)
        telling = {line.number: line for line in ([crash] if crash else []) + _telling(log)}
        return [_quote(telling[number]) for number in sorted(telling)]
    hows = ("went on after" if lived_on(one.last) else "ended with" for one in found)
    ends = [f"{one.process} {how} {one.error}".lstrip() for one, how in zip(found, hows, strict=True)]
    failed = assertion_of(log)
    above = [_meant(one) for one in found if _REFERS.search(one.message[:2000])] + ([failed] if failed else [])
    return [_quote(line) for line in above if line] + [
        f"{one.last.log.place}, line {one.last.number}: {what}: {one.message[:260]}"
        for one, what in zip(found, ends, strict=True)
    ]


def _meant(one: Traceback) -> Line | None:
    """The error above an exception that refers to it, where it is no exception itself."""
    log = one.first.log
    above = reversed([*log.lines(max(one.first.number - _ABOVE, 1), one.first.number - 1)])
    said = next((line for line in above if looks_like_error(line.text)), None)
    raised = (other for other in tracebacks(log) if said and other.first.number < said.number)
    return None if said is None or any(other.message and other.message[:200] in said.text for other in raised) else said


def _telling(log: Log) -> list[Line]:
    """The first and the last line that look like an error, or else that refuse something, and what was said last."""
    errors = _first_and_last(log, looks_like_error)
    ends = errors or _complaint(log) or _first_and_last(log, _refuses)
    said = [line for number in sorted(last_words(log)) for line in log.lines(number, number) if START not in line.text]
    of_tools = [] if errors else [line for line in said if _TOOL.match(line.text)]
    return [*ends, *_described(log), *of_tools[-1:], *said[-1:]]


def _described(log: Log) -> list[Line]:
    """What Spring Boot says of a start that failed, below a heading of its own."""
    for line in log.find(_FAILED_TO_START):
        below = [x for x in log.lines(line.number + 1, line.number + _BELOW) if x.text.strip(" *")]
        if below and below[0].text.strip() == "Description:":
            return below[1:2]
    return []


def _complaint(log: Log) -> list[Line]:
    """What the program of a command said of itself last that a start script ran and traced, and not again without that."""
    command, program, left, found = "", "", 0, dict[str, Line]()
    for line in log.lines():
        if traced := _TRACED.match(line.text[:300]):
            command, program, left = line.text, traced["program"], _COMPLAINS
            found.pop(command, None)
        elif left:
            left -= 1
            if line.text.startswith(f"{program}: "):
                found[command] = line
    return [*found.values()][-1:]


def _refuses(text: str) -> bool:
    words = text[:500].lower()
    return any(word in words for word in _REFUSES)


def _first_and_last(log: Log, tells: Callable[[str], bool]) -> list[Line]:
    """The ends of what tells something; a long log is read once, and not kept."""
    first: Line | None = None
    last: Line | None = None
    for line in log.lines():
        if tells(line.text) and START not in line.text and not is_frame(line.text):
            first, last = first or line, line
    return [line for line in (first, last) if line]


def _quote(line: Line) -> str:
    """A line, and what it announces by the colon at its end; of a long one the end as well, where Go has the innermost reason."""
    text = line.text.strip()
    if text.endswith(":"):
        below = [x.text for x in line.log.lines(line.number + 1, line.number + _BELOW + 1)]
        indented = itertools.takewhile(lambda x: not x.strip() or x[:1].isspace(), below[1:])
        text = " ".join([text, *(x.strip() for x in (*below[:1], *indented) if x.strip(" |") and not is_frame(x))])
    if len(text) > _HEAD + _TAIL:
        text = f"{text[:_HEAD]} … {text[-_TAIL:]}"
    return f"{line.log.place}, line {line.number}: {text}"
