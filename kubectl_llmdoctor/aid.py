"""What may help where no cause is known: back to the revision that ran, or a start without what is not the default."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import msgspec

from kubectl_llmdoctor.evidence import object_evidence
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.aftermath import lived_on
from kubectl_llmdoctor.facts.cluster import Cluster, Item
from kubectl_llmdoctor.facts.endings import endings, log_of
from kubectl_llmdoctor.facts.logs import Logs
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.processes import first_errors
from kubectl_llmdoctor.facts.subject import Subject
from kubectl_llmdoctor.facts.units import parse_time, say_seconds
from kubectl_llmdoctor.fixes import advice, edited, maker
from kubectl_llmdoctor.managed import keeper
from kubectl_llmdoctor.report import document as doc
from kubectl_llmdoctor.story import NUMBER, difference
from kubectl_llmdoctor.tree import dig

#: By which label a pod, and what it is a copy of, know each other.
_HASH = {"Deployment": "pod-template-hash", "StatefulSet": "controller-revision-hash"}
#: What goes wrong in a container, as its template may have it: none that served before, and none that the node does not make.
_OF_TEMPLATE = ("waiting", "crashed", "not-ready")
#: That a Deployment went back to the template of an older ReplicaSet, which is as old as before.
_AGAIN = "deployment.kubernetes.io/revision-history"
#: A revision that stood for so long ran, and a rollout so long ago may have to do with what fails now.
_STOOD, _LATELY = timedelta(days=1), timedelta(days=1)
#: How soon after a rollout its workload is no longer available that was so under the revision before.
_SOON = timedelta(minutes=15)
_MOST_TOLD = 240
#: Frames of a traceback; options that a server cannot do without, or that change nothing of how it computes; so many others are named.
_FRAME = expression(r'File "(?P<file>[^"]{1,300})", line (?P<line>\d{1,7})')
_NEEDED = expression(
    r"--(?:model|served|host|port|tp|tensor|pipeline|pp|nnodes|node|dist-|master|api-key|token|download|trust|max-model-len|context-length"
    r"|gpu-memory|mem-fraction|attention-backend[= ]ascend\b|log|enable-metrics|root|uvicorn|ssl|tool|chat-template|reasoning|headless"
    r"|disaggregation-mode)"
)
_MOST_OPTIONS = 5


class _Revision(msgspec.Struct, frozen=True):
    number: int
    item: Item
    template: Any
    #: as its pods name it
    hash: str


def with_aid(findings: tuple[doc.Finding, ...], subject: Subject) -> tuple[doc.Finding, ...]:
    """The findings of a target without a cause, of which the first says what may help: the last revision that ran, fewer options."""
    first = findings[0] if findings else None
    if first is None or first.role != "symptom":
        return findings
    back = next(_back(subject), None)
    without = next(_without(subject), None) if not first.fixes else None
    fixes = (*((back[0],) if back else ()), *((without,) if without else ()), *first.fixes)
    evidence = (*first.evidence, *((back[1],) if back else ()))
    return (msgspec.structs.replace(first, fixes=fixes, evidence=evidence), *findings[1:])


def _without(subject: Subject) -> Iterator[doc.Fix]:
    """Whose an exception is that nobody knows, and which options an engine may start without."""
    for pod in subject.pods:
        for ending in endings(pod):
            log = log_of(ending, subject.logs(pod))
            error = next((one for one in first_errors(Logs([log])) if one.error != "SystemExit"), None) if log else None
            if error is None or lived_on(error.last):
                continue
            frames = [
                said
                for x in error.last.log.lines(error.first.number, error.last.number)
                if (said := _FRAME.search(x.text))
            ]
            at = f" at {frames[-1]['file']}:{frames[-1]['line']}" if frames else ""
            image = ending.container.spec.image or "its image"
            report = f"report `{error.error}`{at} to the makers of {image}, or try another release of it"
            engine = subject.engine_of(ending.container)
            given = [one.text for one in engine.found.settings.values()] if engine else []
            options = [text[:60] for text in given if text.startswith("--") and not _NEEDED.match(text)]
            again = " --previous" if ending.container.running or ending.container.waiting else ""
            command = f"kubectl -n {pod.namespace} logs {pod.name} -c {ending.container.name}{again}"
            if not options:
                yield advice(f"{report[:1].upper()}{report[1:]}: no check knows this error", command)
                return
            listed = ", ".join(options[:_MOST_OPTIONS])
            yield advice(
                f"Take away options that are not the default, one after the other ({listed}), in {edited(pod)}: no check knows this "
                f"error, and one of them may lead to it; where that does not help, {report}",
                command,
            )
            return


def _back(subject: Subject) -> Iterator[tuple[doc.Fix, doc.Evidence]]:
    """The way back to the last revision that ran, and what shows that it did."""
    for pod in subject.pods:
        # what stands still before a container runs, or fails outside of them all, another template does not mend
        fails = any(one.kind in _OF_TEMPLATE and one.container is not None for one in pod.troubles)
        workload = _workload(pod) if fails else None
        revisions = _revisions(workload, pod.cluster) if workload else []
        if workload is None or len(revisions) < 2 or pod.labels.get(_HASH[workload.kind]) != revisions[-1].hash:
            continue
        newest = revisions[-1]
        if _ready_of(newest, workload, pod.cluster) is not None:
            continue
        for after, before in itertools.pairwise(reversed(revisions)):
            proof = _ran(before, after, newest, workload, pod)
            if proof is not None and any(difference(before.template, newest.template)):
                yield _undo(pod, workload, before, newest, proof[0]), proof[1]
                return


def _workload(pod: Pod) -> Item | None:
    """The Deployment or StatefulSet that a pod is of."""
    item = pod.cluster.owner(pod.item) if pod.item else None
    above = pod.cluster.owner(item) if item is not None and item.kind == "ReplicaSet" else item
    return above if above is not None and above.kind in _HASH else None


def _revisions(workload: Item, cluster: Cluster) -> list[_Revision]:
    """What its pods were to be, one rollout after the other."""
    found: list[_Revision] = []
    for item in cluster.items("ReplicaSet", workload.namespace) if workload.kind == "Deployment" else ():
        said = item.annotations.get("deployment.kubernetes.io/revision", "")
        if NUMBER.fullmatch(said) and cluster.owner(item) is workload:
            template = dig(item.raw, "spec.template")
            found.append(_Revision(int(said), item, template, item.labels.get(_HASH["Deployment"], "")))
    for item in cluster.items("ControllerRevision", workload.namespace) if workload.kind == "StatefulSet" else ():
        number = item.raw.get("revision")
        if isinstance(number, int) and cluster.owner(item) is workload:
            found.append(_Revision(number, item, dig(item.raw, "data.spec.template"), item.name))
    return sorted(found, key=lambda one: one.number)


def _ran(
    revision: _Revision, after: _Revision, newest: _Revision, workload: Item, failing: Pod
) -> tuple[str, doc.Evidence] | None:
    """What shows that a revision ran: its pods do, its workload was available until the rollout, or it stood for days."""
    pod = _ready_of(revision, workload, failing.cluster)
    if pod is not None and pod.item is not None:
        shown = object_evidence(pod.item, "status.conditions[Ready]", f"True, revision {revision.number}")
        return f"{pod.name} of it is ready", shown
    ready = dig(revision.item.raw, "status.readyReplicas")
    if isinstance(ready, int) and ready:
        text = f"readyReplicas: {ready}"
        return f"{ready} of its pods {'is' if ready == 1 else 'are'} ready", object_evidence(
            revision.item, "status", text
        )
    began, end, now = _made(newest), _made(after), failing.cluster.now
    if began is None or end is None or now is None or now - began > _LATELY or failing.ready:
        return None
    said = workload.condition("Available")
    if said is not None:
        until = parse_time(said.last_transition_time)
        if said.status != "False" or until is None or not end <= until <= end + _SOON:
            return None  # it fails since before that rollout, or came through it
        text = f"False since {said.last_transition_time}"
        evidence = object_evidence(workload, "status.conditions[Available]", text)
        return f"it was available until revision {after.number} came", evidence
    if dig(workload.raw, "status.currentRevision") == newest.hash:
        return None  # all pods of a StatefulSet had it, and were ready
    since = _made(revision)
    if since is not None and end - since >= _STOOD:
        text = f"creationTimestamp: {dig(revision.item.raw, 'metadata.creationTimestamp')}"
        stood = say_seconds((end - since).total_seconds())
        return f"it stood for {stood}", object_evidence(revision.item, "metadata", text)
    return None


def _ready_of(revision: _Revision, workload: Item, cluster: Cluster) -> Pod | None:
    """A pod of a revision that is ready."""
    label = _HASH[workload.kind]
    items = (item for item in cluster.items("Pod", workload.namespace) if item.labels.get(label) == revision.hash != "")
    return next((pod for item in items if (pod := Pod.of(item, cluster)).ready and _workload(pod) is workload), None)


def _made(revision: _Revision) -> datetime | None:
    """Since when a revision stands; None where it came back."""
    return (
        None
        if _AGAIN in revision.item.annotations
        else parse_time(dig(revision.item.raw, "metadata.creationTimestamp"))
    )


def _undo(pod: Pod, workload: Item, earlier: _Revision, newest: _Revision, proof: str) -> doc.Fix:
    """Back to a revision, by whoever writes the workload."""
    ref = f"{workload.kind}/{workload.name}"
    changed = "; ".join(difference(earlier.template, newest.template))[:_MOST_TOLD] or "nothing that is known here"
    began = dig(newest.item.raw, "metadata.creationTimestamp") or "?"
    why = f"{proof}, and revision {newest.number}, which fails, changed since {began}: {changed}"
    at, kept = f"kubectl -n {workload.namespace}", keeper(workload.raw)
    if by := maker(workload):
        return advice(
            f"Take back in {by} what was changed since revision {earlier.number} of {ref}: {why}",
            f"{at} edit {shlex.quote(by)}",
        )
    if kept is not None and kept.by == "Helm" and kept.release:
        release = shlex.quote(kept.release)
        space = workload.annotations.get("meta.helm.sh/release-namespace") or workload.namespace
        helm = f"helm -n {shlex.quote(space)}"
        return advice(
            f"Go back to the release of {kept.release} that was deployed before {began}, which had revision {earlier.number} "
            f"of {ref}: {why}",
            f"{helm} history {release}",
            *([f"{helm} rollback {release}"] if earlier.number == newest.number - 1 else []),
        )
    own = f"{workload.kind.lower()}/{workload.name}"
    paused = dig(workload.raw, "spec.paused") is True  # kubectl takes back nothing of what is paused
    commands = [
        *([f"{at} rollout resume {own}"] if paused else []),
        f"{at} rollout undo {own} --to-revision={earlier.number}",
    ]
    if kept is not None:
        return advice(
            f"Go back to revision {earlier.number} of {ref}, and take the change back where {kept.by} {kept.name} has it from, "
            f"or its next run undoes this: {why}",
            *commands,
        )
    # a StatefulSet waits for a pod that does not become ready, and does not replace it
    again = (f"{at} delete pod {pod.name}",) if workload.kind == "StatefulSet" else ()
    return advice(f"Go back to revision {earlier.number} of {ref}: {why}", *commands, *again)
